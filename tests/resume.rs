//! A run that is taken up from any of its checkpoints ends as the uninterrupted one does, to the bit: for every
//! algorithm and precision, and for every way in which turns follow one another.

mod common;

use std::fs;
use std::path::Path;

use hift::lang::schema::ALGORITHMS;

use common::{fixture, run};

/// What makes a run: precision, groups, schedule, optimizer.
fn text(precision: &str, groups: &str, schedule: &str, optimizer: &str) -> String {
    format!(
        r#"hift 1
data rows {{
    source = json("rows.jsonl")
    format = tokens(input = "input_ids", labels = "labels")
    shuffle = seed(3)
}}
model tiny {{ weights = "{}" precision = {precision} }}
groups g {{ {groups} }}
schedule s {{ rate = linear(1e-3) {schedule} }}
optimizer o {{ {optimizer} }}
train sft {{
    data = rows model = tiny groups = g schedule = s optimizer = o
    steps = 15 micro_batch = 4 clip = 1.0
    checkpoint {{ every = 4 steps keep = 9 }}
}}
export final {{ from = sft to = "final" dtype = fp32 }}
"#,
        fixture("golden/models/llama-tiny").display()
    )
}

fn rows(folder: &Path) {
    let batches: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(fixture("golden/batches-lm.json")).unwrap()).unwrap();
    let mut rows = String::new();
    for batch in batches["batches"].as_array().unwrap() {
        let pairs = batch["input_ids"].as_array().unwrap().iter().zip(batch["labels"].as_array().unwrap());
        for (ids, labels) in pairs {
            rows += &format!("{}\n", serde_json::json!({ "input_ids": ids, "labels": labels }));
        }
    }
    fs::write(folder.join("rows.jsonl"), rows).unwrap();
}

fn check(groups: &str, schedule: &str, optimizer: &str) {
    check_in("fp32", groups, schedule, optimizer);
}

/// Gives the weights that are exported.
fn check_in(precision: &str, groups: &str, schedule: &str, optimizer: &str) -> Vec<u8> {
    let name = format!("{precision}, {groups}, {schedule}, {optimizer}");
    let folder = tempfile::tempdir().unwrap();
    rows(folder.path());
    let text = text(precision, groups, schedule, optimizer);
    let path = |path: &str| folder.path().join(path);
    let bytes = |file: &str| fs::read(path(file)).unwrap();
    let (whole, ..) = run(folder.path(), &text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (weights, states) =
        (bytes("final/model.safetensors"), bytes("run/checkpoints/sft-15/states.safetensors"));
    for begin in [12, 8, 4] {
        // As if the process had died right after this checkpoint.
        for step in (begin + 1..=15).filter(|step| path(&format!("run/checkpoints/sft-{step}")).exists()) {
            fs::remove_dir_all(path(&format!("run/checkpoints/sft-{step}"))).unwrap();
        }
        let events = fs::read_to_string(path("run/events.jsonl")).unwrap();
        let unfinished: String = events
            .lines()
            .filter(|line| !line.contains("\"finish\""))
            .map(|line| format!("{line}\n"))
            .collect();
        fs::write(path("run/events.jsonl"), unfinished).unwrap();
        let (seen, ..) = run(folder.path(), &text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let from = begin as usize;
        assert_eq!(seen.losses, whole.losses[from..], "{name}, from step {begin}");
        assert_eq!(seen.groups, whole.groups[from..], "{name}, from step {begin}");
        assert_eq!(seen.grad_norms, whole.grad_norms[from..], "{name}, from step {begin}");
        assert!(bytes("final/model.safetensors") == weights, "{name}, from step {begin}: other weights");
        let again = bytes("run/checkpoints/sft-15/states.safetensors");
        assert!(again == states, "{name}, from step {begin}: other states");
    }
    weights
}

#[test]
fn every_algorithm_goes_on_to_the_bit() {
    for algorithm in ALGORITHMS {
        check("split = by_layer(2)", "", &format!("algorithm = {}", algorithm.name));
    }
    check("split = by_layer(2)", "", "algorithm = rmsprop centered = true momentum = 0.9");
    check("split = by_layer(2)", "", "algorithm = adafactor beta1 = 0.9");
}

#[test]
fn every_precision_goes_on_to_the_bit() {
    for (precision, optimizer) in [
        ("bf16", "adamw"),
        ("bf16", "adafactor"),
        ("bf16", "lion8bit"),
        ("mixed(bf16)", "adamw"),
        ("mixed(fp16)", "adam_mini"),
        ("mixed_hi(bf16)", "lars"),
        ("mixed_hi(fp16)", "adamw"),
    ] {
        check_in(precision, "split = by_layer(2)", "", &format!("algorithm = {optimizer}"));
    }
    check_in(
        "bf16",
        "split = by_layer(1)",
        "order = importance dwell = 2 steps states = discard",
        "algorithm = adamw",
    );
}

#[test]
fn what_rests_on_disk_goes_on_to_the_bit_as_in_memory() {
    for (precision, rest, optimizer) in [
        ("fp32", "states = disk", "adamw"),
        ("bf16", "states = disk weights = disk", "adafactor"),
        ("mixed_hi(bf16)", "states = disk", "adamw8bit"),
        ("mixed(fp16)", "states = discard weights = disk", "sgdm"),
    ] {
        let optimizer = format!("algorithm = {optimizer}");
        let disk = check_in(precision, "split = by_layer(2)", rest, &optimizer);
        let memory = check_in(precision, "split = by_layer(2)", &rest.replace("disk", "host"), &optimizer);
        assert!(disk == memory, "{precision}, {rest}: other weights");
    }
}

#[test]
fn every_order_of_turns_goes_on_to_the_bit() {
    let check = |groups: &str, schedule: &str| check(groups, schedule, "algorithm = adamw");
    check("split = by_layer(1)", "order = importance");
    check("split = by_layer(1)", "order = importance dwell = 2 steps states = discard");
    check(
        "split = by_layer(1)",
        "order = random(seed = 1, redraw = per_cycle) dwell = 3 steps states = discard",
    );
    check(
        "split = by_layer(1) always = [\"embedding\", \"head\"]",
        "order = sample(seed = 1) dwell = 3 steps advance = per_step",
    );
    check("split = by_layer(1) grow = true", "order = top_down dwell = 3 steps layer_decay = 0.5");
    check("split = by_layer(2, tail = split) rotate = true", "horizon = steps");
}
