//! The estimate against the allocator: every byte, every group.
//!
//! A process of its own, with one test: whatever else allocated would be counted too.

mod common;

use std::fs;

use hift::data::{Batches, Library};
use hift::engine::{Parameters, Place, Resting, Store, memory, store};
use hift::estimate::{estimate, left_over, peak, play, step};
use hift::lang::pipeline::{Shuffle, Weights};
use hift::lang::schema::ALGORITHMS;
use hift::plan::{RunAgain, StagePlan, TrainPlan};
use hift::program::residency::Rests;
use hift::program::{ParamId, StepPrograms};
use hift::run::train::Stepper;
use hift::units::Bytes;

use common::{families, pipeline, planned};

#[global_allocator]
static ALLOCATOR: memory::Counting<std::alloc::System> = memory::Counting(std::alloc::System);

/// Bookkeeping that a step may have beside its tensors: shapes, locks, maps of values. The step's own tensors have
/// megabytes.
const BOOKKEEPING: u64 = 512 << 10;

const PRECISIONS: [&str; 6] =
    ["fp32", "bf16", "mixed(bf16)", "mixed(fp16)", "mixed_hi(bf16)", "mixed_hi(fp16)"];

const ON_DISK: [&str; 3] = ["states = disk", "states = disk weights = disk", "weights = disk"];

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
    let (mut steps, mut sets) = (0, 0);
    for (name, config) in MODELS {
        let config = format!(
            r#"{{"model_type": "llama", "vocab_size": 96, "max_position_embeddings": 128, {config}}}"#
        );
        fs::write(folder.path().join("config.json"), config).unwrap();
        for (groups, optimizer, train) in SETTINGS {
            let half = PRECISIONS[1 + sets % (PRECISIONS.len() - 1)];
            sets += 1;
            for (pack, recompute, rest, precision) in [
                (false, "none", "states = host", "fp32"),
                (true, "none", "states = discard", "fp32"),
                (false, "blocks", "states = device", "fp32"),
                (sets % 2 == 0, ["none", "blocks"][sets / 2 % 2], "states = host", half),
                // The disk's pages are no memory of this process.
                (false, ["none", "blocks"][sets % 2], ON_DISK[sets % 3], PRECISIONS[sets % 6]),
            ] {
                let text = format!(
                    r#"hift 1
data rows {{ source = json("rows.jsonl") format = tokens(input = "ids") }}
tokenizer none {{ max_length = 80 tokens pack = {pack} }}
model tiny {{ weights = random("config.json", seed = 1) recompute = {recompute} precision = {precision} }}
groups g {{ {groups} }}
schedule s {{ rate = constant(1e-3) {rest} }}
{optimizer}
train t {{ data = rows tokenizer = none model = tiny groups = g schedule = s optimizer = o steps = 20 {train} }}
"#
                );
                steps += check(
                    folder.path(),
                    &text,
                    &format!("{name}, {groups}, {optimizer}, {train}, {recompute}, {precision}, {rest}"),
                );
            }
        }
    }
    steps += check_budget(folder.path());
    let tried = |name: &str| {
        let word = format!("algorithm = {name} ");
        SETTINGS.iter().any(|(_, optimizer, _)| optimizer.contains(&word))
    };
    assert!(ALGORITHMS.iter().all(|algorithm| tried(algorithm.name)), "every algorithm is tried");
    for (at, (name, config)) in families::FAMILIES.iter().enumerate() {
        for (more, precision) in PRECISIONS.iter().enumerate() {
            steps += check_family(name, config, at + more, precision);
        }
    }
    println!("{steps} steps, each equal to its estimate");
}

/// With room for the numbers of some blocks and not of all.
fn check_budget(folder: &std::path::Path) -> usize {
    let (_, config) = MODELS[0];
    let config = config.replace("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 6");
    let config =
        format!(r#"{{"model_type": "llama", "vocab_size": 96, "max_position_embeddings": 128, {config}}}"#);
    fs::write(folder.join("config.json"), config).unwrap();
    let text = |recompute: &str, limit: u64| {
        format!(
            r#"hift 1
data rows {{ source = json("rows.jsonl") format = tokens(input = "ids") }}
model tiny {{ weights = random("config.json", seed = 1) recompute = {recompute} precision = mixed(bf16) }}
groups g {{ split = by_layer(1) }}
schedule s {{ rate = constant(1e-3) }}
optimizer adamw {{ }}
train t {{
    data = rows model = tiny groups = g schedule = s optimizer = adamw
    steps = 20 micro_batch = 8 memory_limit = {limit} B
}}
"#
        )
    };
    let train = |text: &str| {
        let mut library = Library::new(folder.to_path_buf(), &|| false);
        let mut plan = planned(&pipeline(folder, text), &mut library).unwrap();
        let StagePlan::Train(train) = plan.stages.remove(0) else { panic!("one stage") };
        train
    };
    let threads = rayon::current_num_threads();
    let [most, least] = ["none", "blocks"].map(|word| peak(&train(&text(word, 1 << 40)), threads).0);
    assert!(least < most);
    let limit = least + (most - least) / 3;
    let text = text("auto", limit);
    let settled = train(&text);
    let RunAgain::Blocks(of_groups) = &settled.run_again else { panic!("{:?}", settled.run_again) };
    let counts: Vec<usize> = of_groups.iter().map(Vec::len).collect();
    assert!(counts[0] > 1 && counts[0] < 6, "some of the six blocks: {counts:?}");
    assert!(counts.is_sorted_by(|a, b| a >= b), "the higher the group, the fewer: {counts:?}");
    assert_eq!(counts.last(), Some(&0), "the head needs none");
    for (group, blocks) in of_groups.iter().enumerate() {
        assert!(step(&settled, group, threads).peak.0 <= limit, "group {group} fits");
        if let Some((_, fewer)) = blocks.split_last() {
            let mut other = settled.clone();
            other.run_again = RunAgain::Blocks(vec![fewer.to_vec(); of_groups.len()]);
            assert!(step(&other, group, threads).peak.0 > limit, "group {group} needs all of {blocks:?}");
        }
    }
    check(folder, &text, "a budget")
}

/// One setting for each family and precision, in turn.
fn check_family(name: &str, config: &str, at: usize, precision: &str) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let blocks = families::rows(folder.path(), config, 24, &|i| i % 2);
    let (groups, optimizer, train) = SETTINGS[at % SETTINGS.len()];
    let recompute = ["none", "blocks"][at / SETTINGS.len() % 2];
    let text = format!(
        r#"hift 1
{blocks}
model tiny {{ weights = random("config.json", seed = 1) recompute = {recompute} precision = {precision} }}
groups g {{ {groups} }}
schedule s {{ rate = constant(1e-3) }}
{optimizer}
train t {{ data = rows tokenizer = words model = tiny groups = g schedule = s optimizer = o steps = 20 {train} }}
"#
    );
    check(folder.path(), &text, &format!("{name}, {groups}, {optimizer}, {train}, {recompute}, {precision}"))
}

fn check(folder: &std::path::Path, text: &str, name: &str) -> usize {
    let pipeline = pipeline(folder, text);
    let mut library = Library::new(folder.to_path_buf(), &|| false);
    let whole = planned(&pipeline, &mut library).unwrap_or_else(|e| panic!("{name}: {e}"));
    let [StagePlan::Train(plan)] = &whole.stages[..] else { panic!("one stage") };
    let limits = hift::run::limits(&plan.model.model);
    let dataset = library.get(&plan.data, &plan.tokenizer, &limits).unwrap();
    let weights = Weights::Random { config: "config.json".into(), seed: 1 };
    let empty = memory::live();
    let precision = plan.model.precision;
    let away = plan.away();
    let place = Place { machine: None, away, tf32: false, scratch: folder.into() };
    let mut loaded = Parameters::default();
    memory::reset_peak();
    let take = |tensor| loaded.add(tensor, precision, Some(&place));
    store::load_each(&plan.model.model, &weights, folder, precision.kept(), take).unwrap();
    let mut store = Store::of(loaded).at(Some(&place)).unwrap();
    let here = |rests: Rests, bytes: Bytes| if rests == Rests::Disk { 0 } else { bytes.0 };
    let parameters = here(away.weights, plan.model.bytes) + here(away.masters, plan.model.masters);
    if away.needs_disk() {
        let load = estimate(&whole, rayon::current_num_threads()).stages[0].phases[0].clone();
        let peak = memory::peak() - empty;
        assert!(load.name == "load" && peak <= load.bytes.0, "{name}: {peak} of {}", load.bytes.0);
    }
    assert_eq!(memory::live() - empty, parameters, "{name}: weights and masters");

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
        let done = stepper.step(&mut store, &mut batches, &dataset, full, 1e-3).unwrap().unwrap();
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
        .flat_map(|i| store.states_of(ParamId(i)).iter().map(Resting::in_memory).collect::<Vec<_>>())
        .sum();
    assert_eq!(
        memory::live() - empty,
        parameters + states,
        "{name}: weights, masters and states are all there is"
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
