//! The estimate against the allocator: every byte, every group.
//!
//! A process of its own, with one test: whatever else allocated would be counted too.

mod common;

use std::fs;

use hift::data::{Batches, Library};
use hift::engine::{Store, memory, store};
use hift::estimate::{left_over, play, step};
use hift::lang::pipeline::{Shuffle, Weights};
use hift::lang::schema::ALGORITHMS;
use hift::model::Head;
use hift::plan::{StagePlan, TrainPlan};
use hift::program::{ParamId, StepPrograms};
use hift::run::train::Stepper;

use common::{families, pipeline, planned};

#[global_allocator]
static ALLOCATOR: memory::Counting<std::alloc::System> = memory::Counting(std::alloc::System);

/// Bookkeeping that a step may have beside its tensors: shapes, locks, maps of values. The step's own tensors have
/// megabytes.
const BOOKKEEPING: u64 = 512 << 10;

const MODELS: &[(&str, &str)] = &[
    (
        "plain",
        r#""hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4"#,
    ),
    (
        "grouped",
        r#""hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6,
           "num_key_value_heads": 2, "tie_word_embeddings": true"#,
    ),
    (
        "biased",
        r#""hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 2,
           "head_dim": 24, "attention_bias": true, "mlp_bias": true"#,
    ),
];

const SETTINGS: &[(&str, &str, &str)] = &[
    // groups, optimizer, train
    ("split = by_layer(1)", "optimizer o { algorithm = adamw }", "micro_batch = 4"),
    ("split = by_layer(1, tail = split)", "optimizer o { algorithm = sgdm }", "micro_batch = 3 clip = 1.0"),
    ("split = by_layer(2)", "optimizer o { algorithm = adamw }", "micro_batch = 2 accumulate = 3"),
    ("split = all()", "optimizer o { algorithm = adamw }", "micro_batch = 4"),
    ("split = all()", "optimizer o { algorithm = sgd }", "micro_batch = 2 accumulate = 2 clip = 0.5"),
    (r#"split = by_layer(1) always = ["embedding"]"#, "optimizer o { algorithm = adamw }", "micro_batch = 4"),
    ("split = by_size(100 KiB) grow = true", "optimizer o { algorithm = sgdm }", "micro_batch = 4"),
    // The others, with states of every form, and tensors large and small.
    ("split = by_layer(2)", "optimizer o { algorithm = adam }", "micro_batch = 4 clip = 1.0"),
    ("split = by_layer(1)", "optimizer o { algorithm = adagrad }", "micro_batch = 4"),
    ("split = by_layer(1)", "optimizer o { algorithm = rmsprop }", "micro_batch = 2 accumulate = 2"),
    (
        "split = by_layer(2)",
        "optimizer o { algorithm = rmsprop momentum = 0.9 centered = true }",
        "micro_batch = 4",
    ),
    ("split = by_layer(1)", "optimizer o { algorithm = adafactor }", "micro_batch = 4 clip = 1.0"),
    (
        "split = all()",
        "optimizer o { algorithm = adafactor beta1 = 0.9 scale_parameter = true }",
        "micro_batch = 4",
    ),
    ("split = by_layer(1)", "optimizer o { algorithm = lion }", "micro_batch = 4"),
    ("split = by_layer(1)", "optimizer o { algorithm = lamb }", "micro_batch = 4"),
    ("split = by_layer(1)", "optimizer o { algorithm = lars }", "micro_batch = 4"),
    ("split = by_layer(1)", "optimizer o { algorithm = adam_mini }", "micro_batch = 4"),
    ("split = by_layer(1)", "optimizer o { algorithm = adamw8bit }", "micro_batch = 4"),
    ("split = all()", "optimizer o { algorithm = adam8bit }", "micro_batch = 2 accumulate = 3 clip = 1.0"),
    ("split = by_layer(2)", "optimizer o { algorithm = lion8bit }", "micro_batch = 4"),
    (
        r#"split = { attention = ["block.*.attention"], rest = ["**"] }"#,
        "optimizer o { algorithm = adamw }",
        "micro_batch = 4",
    ),
];

#[test]
fn the_estimate_is_what_the_allocator_sees_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    // Rows of one length, so that every batch is the largest; 24 rows of 40 tokens.
    let row = |i: u32| (0..40).map(|t| ((i * 31 + t * 7) % 96).to_string()).collect::<Vec<_>>().join(",");
    let rows: String = (0..24).map(|i| format!("{{\"ids\": [{}]}}\n", row(i))).collect();
    fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    let mut steps = 0;
    for (name, config) in MODELS {
        let config = format!(
            r#"{{"model_type": "llama", "vocab_size": 96, "max_position_embeddings": 128, {config}}}"#
        );
        fs::write(folder.path().join("config.json"), config).unwrap();
        for (groups, optimizer, train) in SETTINGS {
            for (pack, recompute, states) in
                [(false, "none", "host"), (true, "none", "discard"), (false, "blocks", "device")]
            {
                let text = format!(
                    r#"hift 1
data rows {{ source = json("rows.jsonl") format = tokens(input = "ids") }}
tokenizer none {{ max_length = 80 tokens pack = {pack} }}
model tiny {{ weights = random("config.json", seed = 1) recompute = {recompute} }}
groups g {{ {groups} }}
schedule s {{ rate = constant(1e-3) states = {states} }}
{optimizer}
train t {{ data = rows tokenizer = none model = tiny groups = g schedule = s optimizer = o steps = 20 {train} }}
"#
                );
                steps += check(
                    folder.path(),
                    &text,
                    &format!("{name}, {groups}, {optimizer}, {train}, {recompute}"),
                );
            }
        }
    }
    let tried = |name: &str| {
        let word = format!("algorithm = {name} ");
        SETTINGS.iter().any(|(_, optimizer, _)| optimizer.contains(&word))
    };
    assert!(ALGORITHMS.iter().all(|algorithm| tried(algorithm.name)), "every algorithm is tried");
    for (at, (name, config)) in families::FAMILIES.iter().enumerate() {
        steps += check_family(name, config, at);
    }
    println!("{steps} steps, each equal to its estimate");
}

/// One setting for each family, in turn.
fn check_family(name: &str, config: &str, at: usize) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let ids = |i: u32| (0..40).map(|t| (i * 31 + t * 7) % 40).collect::<Vec<u32>>();
    let words =
        |i: u32, n: usize| ids(i).iter().take(n).map(|id| format!("w{}", id.max(&5))).collect::<Vec<_>>();
    let row = |i: u32| {
        let labels: Vec<u32> = ids(i).iter().map(|id| id % 3).collect();
        let text = words(i, 30).join(" ");
        format!(
            r#"{{"ids": {:?}, "class": {}, "labels": {labels:?}, "question": "{}", "context": "{text}",
                "answers": {{"text": ["{}"], "answer_start": [0]}}}}"#,
            ids(i),
            i % 2,
            words(i + 1, 7).join(" "),
            words(i, 3).join(" "),
        )
        .replace('\n', " ")
    };
    let rows: String = (0..24).map(|i| row(i) + "\n").collect();
    fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    fs::write(folder.path().join("config.json"), config).unwrap();
    let model = hift::model::Model::from_config(config).unwrap();
    let format = match model.head {
        Head::Tokens { .. } => r#"tokens(input = "ids")"#,
        Head::Sequence { .. } => r#"tokens(input = "ids", label = "class")"#,
        Head::Labels { .. } => r#"tokens(input = "ids", labels = "labels")"#,
        Head::Span { .. } => "question",
    };
    let tokenizer = match model.head {
        Head::Span { .. } => "tokenizer words { file = \"tokenizer.json\" }",
        Head::Tokens { .. } | Head::Sequence { .. } | Head::Labels { .. } => {
            "tokenizer words { pack = false }"
        }
    };
    fs::write(folder.path().join("tokenizer.json"), common::word_tokenizer(40)).unwrap();
    let (groups, optimizer, train) = SETTINGS[at % SETTINGS.len()];
    let recompute = ["none", "blocks"][at / SETTINGS.len() % 2];
    let text = format!(
        r#"hift 1
data rows {{ source = json("rows.jsonl") format = {format} }}
{tokenizer}
model tiny {{ weights = random("config.json", seed = 1) recompute = {recompute} }}
groups g {{ {groups} }}
schedule s {{ rate = constant(1e-3) }}
{optimizer}
train t {{ data = rows tokenizer = words model = tiny groups = g schedule = s optimizer = o steps = 20 {train} }}
"#
    );
    check(folder.path(), &text, &format!("{name}, {groups}, {optimizer}, {train}, {recompute}"))
}

fn check(folder: &std::path::Path, text: &str, name: &str) -> usize {
    let pipeline = pipeline(folder, text);
    let mut library = Library::new(folder.to_path_buf(), &|| false);
    let plan = planned(&pipeline, &mut library).unwrap_or_else(|e| panic!("{name}: {e}"));
    let [StagePlan::Train(plan)] = &plan.stages[..] else { panic!("one stage") };
    let limits = hift::run::limits(&plan.model.model);
    let dataset = library.get(&plan.data, &plan.tokenizer, &limits).unwrap();
    let weights = Weights::Random { config: "config.json".into(), seed: 1 };
    let empty = memory::live();
    let mut store = Store::new(store::load(&plan.model.model, &weights, folder).unwrap());
    assert_eq!(memory::live() - empty, plan.model.bytes.0, "{name}: weights");

    let mut batches = Batches::new(&dataset.train, plan.micro_batch, plan.accumulate, Shuffle::None);
    let mut stepper = Stepper::new(plan);
    // One turn of every group to warm up: the matrix library keeps some scratch, and orders are drawn.
    let mut steps = 0;
    let n = plan.groups.len() as u64;
    for turn in 0..2 * n {
        if turn == 0 {
            stepper.prepare(&mut store, 0).unwrap();
        }
        stepper.turn(&mut store, turn).unwrap();
        let full = full_step(plan, &mut batches, turn);
        let (before, others) = (memory::live(), memory::live_of_the_rest());
        let done = stepper.step(&mut store, &mut batches, &dataset, full, 1e-3).unwrap();
        let expected = step(plan, plan.group_at(full), rayon::current_num_threads());
        if turn >= n {
            assert_eq!(done.memory.peak, expected.peak, "{name}: group {:?}", expected.names);
            let rest = memory::peak_of_the_rest().saturating_sub(others);
            assert!(rest < BOOKKEEPING, "{name}: {rest} bytes beside the tensors");
            steps += 1;
        }
        assert_eq!(memory::live(), before, "{name}: a step leaves nothing behind");
    }
    carried(plan);
    drop(batches);
    let states: u64 = (0..plan.model.model.params.len())
        .flat_map(|i| {
            store.states_of(ParamId(i)).iter().map(|t| 4 * t.elem_count() as u64).collect::<Vec<_>>()
        })
        .sum();
    assert_eq!(
        memory::live() - empty,
        plan.model.bytes.0 + states,
        "{name}: weights and states are all there is"
    );
    steps
}

/// A step of the same group whose batches are all full.
fn full_step(plan: &TrainPlan, batches: &mut Batches<'_>, step: u64) -> u64 {
    let n = plan.groups.len() as u64;
    (0..)
        .map(|k| step + k * n)
        .find(|step| {
            let rows = batches.rows(*step);
            rows.len() as u64 == plan.accumulate
                && rows.iter().all(|rows| rows.len() as u64 == plan.micro_batch)
        })
        .expect("an epoch has a full step")
}

/// What a micro-batch leaves for the next is what the next counts at its start.
fn carried(plan: &TrainPlan) {
    let StepPrograms::Parts(parts) = plan.programs(0, plan.largest_batch(), 1) else { return };
    let results = 8;
    let gradients = left_over(&parts.first).0 - results;
    assert!(play(&parts.next).by.gradients.0 >= gradients);
    assert_eq!(left_over(&parts.next).0 - results, gradients);
}
