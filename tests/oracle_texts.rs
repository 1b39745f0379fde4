//! The estimate against the allocator where texts are continued.
//!
//! A process of its own, with one test: whatever else allocated would be counted too.

mod common;

use std::fs;

use hift::data::Library;
use hift::engine::{Store, memory, store};
use hift::estimate::estimate;
use hift::lang::pipeline::Weights;
use hift::model::{Model, Task};
use hift::plan::StagePlan;
use hift::run::generate::generate;

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
        let texts = generate(plan, &mut store, folder.path(), dataset.as_deref()).unwrap().unwrap();
        assert_eq!(texts.len(), 3);
        if round == 1 {
            assert_eq!(memory::peak() - empty, expected.0, "{name}, {search}");
        }
        drop(store);
        assert_eq!(memory::live(), empty, "{name}, {search}: nothing stays");
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
    }
}
