//! The estimate against the allocator where texts are continued.
//!
//! A process of its own, with one test: whatever else allocated would be counted too.

mod common;

use std::fs;

use hift::data::Library;
use hift::engine::{Parameters, Store, memory, store};
use hift::estimate::estimate;
use hift::lang::pipeline::Weights;
use hift::model::{Model, Task};
use hift::plan::StagePlan;
use hift::run::generate::Asked;
use hift::run::train::Stepper;

use common::{families, pipeline, planned};

#[global_allocator]
static ALLOCATOR: memory::Counting<std::alloc::System> = memory::Counting(std::alloc::System);

/// Texts that are continued: weights, keys and values, and the passes, to the byte.
fn check(name: &str, config: &str, what: &str, search: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config).unwrap();
    let row = |a: &str| format!("{{\"a\": \"{a}\", \"b\": \"w8 w9\"}}\n");
    let rows: String = ["w5 w6 w7 w8 w9", "w7 w6", "w9 w8 w7"].into_iter().map(row).collect();
    fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    // Without marks: the tokenizer's own lists of them are numbers, too.
    let mut tokenizer: serde_json::Value = serde_json::from_str(&common::word_tokenizer(40)).unwrap();
    tokenizer["post_processor"] = serde_json::Value::Null;
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let text = format!(
        r#"hift 1
tokenizer words {{ file = "tokenizer.json" end = none }}
model tiny {{ weights = random("config.json", seed = 1) }}
data rows {{ source = json("rows.jsonl") format = instruct(prompt = "{{a}}", response = " {{b}}") }}
generate texts {{
    model = tiny tokenizer = words {what}
    max_new_tokens = 9 tokens {search}
}}
"#
    );
    let pipeline = pipeline(folder.path(), &text);
    let mut library = Library::new(folder.path().to_path_buf(), &|| false);
    let plan = planned(&pipeline, &mut library).unwrap_or_else(|e| panic!("{name}: {e}"));
    let expected = estimate(&plan, rayon::current_num_threads()).stages[0].peak;
    let [StagePlan::Generate(plan)] = &plan.stages[..] else { panic!("one stage") };
    let limits = hift::run::limits(&plan.model.model);
    let dataset = plan.data.as_ref().map(|data| library.get(data, &plan.tokenizer, &limits).unwrap());
    let weights = Weights::Random { config: "config.json".into(), seed: 1 };
    // The second time the matrix library has its scratch.
    for round in 0..2 {
        let empty = memory::live();
        let mut store = Store::new(
            store::load(&plan.model.model, &weights, folder.path(), plan.model.precision.dtype()).unwrap(),
        );
        memory::reset_peak();
        let asked = Asked::by(plan, folder.path(), dataset.as_deref()).unwrap();
        let texts = asked.answered(&plan.model, &mut store, &plan.decoding).unwrap().unwrap();
        assert_eq!(texts.len(), 3);
        if round == 1 {
            assert_eq!(memory::peak() - empty, expected.0, "{name}, {search}");
        }
        drop(store);
        assert_eq!(memory::live(), empty, "{name}, {search}: nothing stays");
    }
}

/// Held-out rows that are answered while training evaluates: the same, with masters and states beside the weights.
fn check_samples(name: &str, config: &str, precision: &str, schedule: &str, samples: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config).unwrap();
    let row = |a: &str| format!("{{\"a\": \"{a}\", \"b\": \"w8 w9\"}}\n");
    let rows: String = ["w5 w6 w7 w8 w9", "w7 w6", "w9 w8 w7", "w5 w6", "w7"].into_iter().map(row).collect();
    fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    let mut tokenizer: serde_json::Value = serde_json::from_str(&common::word_tokenizer(40)).unwrap();
    tokenizer["post_processor"] = serde_json::Value::Null;
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let text = format!(
        r#"hift 1
tokenizer words {{ file = "tokenizer.json" end = none }}
model tiny {{ weights = random("config.json", seed = 1) precision = {precision} }}
data rows {{
    source = json("rows.jsonl") format = instruct(prompt = "{{a}}", response = " {{b}}")
    holdout = 3 rows shuffle = none
}}
groups g {{ split = by_layer(1) }}
schedule s {{ rate = constant(1e-3) {schedule} }}
optimizer adamw {{ }}
train t {{
    data = rows tokenizer = words model = tiny groups = g schedule = s optimizer = adamw
    steps = 4 micro_batch = 2
    evaluate {{ every = 2 steps {samples} }}
}}
"#
    );
    let pipeline = pipeline(folder.path(), &text);
    let mut library = Library::new(folder.path().to_path_buf(), &|| false);
    let plan = planned(&pipeline, &mut library).unwrap_or_else(|e| panic!("{name}: {e}"));
    let phases = &estimate(&plan, rayon::current_num_threads()).stages[0].phases;
    let expected = phases.iter().find(|phase| phase.name == "sample").unwrap().bytes;
    let [StagePlan::Train(plan)] = &plan.stages[..] else { panic!("one stage") };
    let limits = hift::run::limits(&plan.model.model);
    let dataset = library.get(&plan.data, &plan.tokenizer, &limits).unwrap();
    let weights = Weights::Random { config: "config.json".into(), seed: 1 };
    let samples = plan.evaluate.as_ref().unwrap().samples.as_ref().unwrap();
    let asked = Asked::while_training(plan, folder.path(), &dataset).unwrap().unwrap();
    let mut before = Vec::new();
    for round in 0..2 {
        let empty = memory::live();
        let precision = plan.model.precision;
        let kept = store::load(&plan.model.model, &weights, folder.path(), precision.kept()).unwrap();
        let mut store = Store::of(Parameters::of(kept, precision).unwrap());
        // The group with the most states stands for all where only one has any.
        let most = (0..plan.groups.len()).max_by_key(|group| plan.state_bytes(&plan.groups[*group])).unwrap();
        Stepper::new(plan).prepare(&mut store, most as u64).unwrap();
        memory::reset_peak();
        let texts = asked.answered(&plan.model, &mut store, &samples.decoding).unwrap().unwrap();
        if round == 1 {
            assert_eq!(texts, before, "{name}: another answer");
            assert_eq!(memory::peak() - empty, expected.0, "{name}, {precision:?}, {schedule}");
        }
        before = texts;
        drop(store);
        assert_eq!(memory::live(), empty, "{name}, {precision:?}, {schedule}: nothing stays");
    }
}

#[test]
fn keys_values_and_passes_are_what_the_allocator_sees_to_the_byte() {
    let searches = ["", "micro_batch = 2", "beams = 3", "temperature = 0.8 top_k = 5 top_p = 0.9"];
    let writes = |config: &str| Model::from_config(config).unwrap().task() == Task::NextToken;
    let writers = families::FAMILIES.iter().filter(|(_, config)| writes(config));
    for (at, (name, config)) in writers.enumerate() {
        let prompts = r#"prompts = ["w5 w6 w7 w8 w9", "w7", "w9 w8 w7"]"#;
        check(name, config, prompts, searches[at % searches.len()]);
        if at < searches.len() {
            check(name, config, "data = rows", searches[at]);
        }
        let precision = ["fp32", "bf16", "mixed(bf16)", "mixed_hi(fp16)"][at % 4];
        let schedule = ["", "states = discard", "states = device"][at % 3];
        let samples = ["samples = 3 max_new_tokens = 7 tokens", "samples = 1"][at % 2];
        check_samples(name, config, precision, schedule, samples);
        // Texts that become long are read again.
        if Model::from_config(config).unwrap().near().is_some() {
            searches.iter().for_each(|search| check(name, config, prompts, search));
        }
    }
}
