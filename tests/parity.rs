//! Runs against traces of an independent PyTorch program: losses, gradient norms, final weights.
//!
//! `golden/README.md` says how the traces were made and what may be expected of a correct implementation. On a GPU
//! (`tests/gpu/goldens.py` runs them there) nearly all is other code: here that is run by the emulated one.

mod common;
#[path = "gpu/emulator.rs"]
mod emulator;

use std::fs;
use std::sync::Arc;

use candle_core::{Device, safetensors};
use hift::engine::Devices;
use hift::engine::gpu::Machine;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use common::{fixture, run_on};
use emulator::Emulator;

/// Largest difference of a loss that is allowed.
const LOSS: f64 = 2e-5;

fn read(name: &str) -> Json {
    serde_json::from_str(&fs::read_to_string(fixture("golden").join(name)).unwrap()).unwrap()
}

fn names(indices: &Json, units: &Json) -> Vec<String> {
    let layer = |index: &Json| {
        let name = units[index.as_u64().unwrap() as usize][0].as_str().unwrap();
        let ours = match name {
            "embed" => "embedding",
            "classifier" => "head",
            other => other,
        };
        ours.to_string()
    };
    indices.as_array().unwrap().iter().map(layer).collect()
}

/// A model with its traces.
struct Golden {
    model: &'static str,
    batches: &'static str,
    format: &'static str,
}

const GOLDENS: &[Golden] = &[
    Golden { model: "llama-tiny", batches: "batches-lm.json", format: r#"tokens(labels = "labels")"# },
    Golden { model: "gpt2-tiny", batches: "batches-lm.json", format: r#"tokens(labels = "labels")"# },
    Golden {
        model: "bert-cls-tiny",
        batches: "batches-cls.json",
        format: r#"tokens(label = "labels", mask = "attention_mask")"#,
    },
];

/// Where cases are run.
struct On<'a> {
    devices: &'a Devices,
    device: &'a str,
    /// What the schedule says of where weights and states rest.
    resting: &'a str,
}

/// The case in the language.
fn text(golden: &Golden, case: &Json, defaults: &Json, units: &Json, on: &On<'_>) -> String {
    let config = |key: &str| case["config"].get(key).unwrap_or(&defaults[key]).clone();
    let order = match config("strategy").as_str().unwrap() {
        "bottom2up" => "bottom_up".to_string(),
        "top2down" => "top_down".to_string(),
        "random" => json!(names(&case["queue"], units)).to_string(),
        other => panic!("strategy {other}"),
    };
    let optimizer = match config("optimizer").as_str().unwrap() {
        "adamw" => format!(
            "optimizer adamw {{ betas = {} eps = {} weight_decay = {} }}",
            config("betas"),
            config("eps"),
            config("weight_decay")
        ),
        "sgdm" => format!(
            "optimizer sgdm {{ momentum = {} weight_decay = {} }}",
            config("momentum"),
            config("weight_decay")
        ),
        "adafactor" => format!("optimizer adafactor {{ weight_decay = {} }}", config("weight_decay")),
        other => panic!("optimizer {other}"),
    };
    let optimizer_name = config("optimizer").as_str().unwrap().to_string();
    let clip = match config("grad_clip").as_f64().unwrap() {
        0.0 => "none".to_string(),
        clip => clip.to_string(),
    };
    format!(
        r#"hift 1
data rows {{
    source = json("rows.jsonl")
    format = {}
    shuffle = none
}}
model tiny {{ weights = "{}" }}
groups layers {{ split = by_layer({}, tail = split) rotate = true }}
schedule turns {{ order = {order} rate = constant({}) {} }}
{optimizer}
train sft {{
    data = rows model = tiny groups = layers schedule = turns optimizer = {optimizer_name} device = {}
    steps = {} micro_batch = 4 clip = {clip}
}}
export final {{ from = sft to = "final" dtype = fp32 }}
"#,
        golden.format,
        fixture("golden/models").join(golden.model).display(),
        config("m"),
        config("lr"),
        on.resting,
        on.device,
        config("max_steps"),
    )
}

/// Runs a case in a new folder, and compares it with its trace.
fn check(named: &Golden, case: &Json, golden: &Json, on: &On<'_>) -> TempDir {
    let id = &format!("{}, {}, {} {}", named.model, case["id"].as_str().unwrap(), on.device, on.resting);
    let folder = tempfile::tempdir().unwrap();
    let batches = read(named.batches);
    let mut rows = String::new();
    for batch in batches["batches"].as_array().unwrap() {
        let column = |name: &str| batch[name].as_array().cloned().unwrap_or_default();
        let [ids, labels, masks] = ["input_ids", "labels", "attention_mask"].map(column);
        for (row, (ids, labels)) in ids.iter().zip(labels).enumerate() {
            let row = json!({ "input_ids": ids, "labels": labels, "attention_mask": masks.get(row) });
            rows += &format!("{row}\n");
        }
    }
    fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    let units = &golden["units"]["split_head"];
    let text = text(named, case, &golden["defaults"], units, on);
    let (seen, ..) = run_on(on.devices, folder.path(), &text).unwrap_or_else(|e| panic!("{id}: {e}"));

    let expected =
        |key: &str| case[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
    let active: Vec<Vec<String>> =
        case["active"].as_array().unwrap().iter().map(|a| names(a, units)).collect();
    assert_eq!(seen.groups, active, "{id}");
    for (step, (loss, golden)) in seen.losses.iter().zip(expected("loss")).enumerate() {
        assert!((loss - golden).abs() < LOSS, "{id}, step {step}: loss {loss}, not {golden}");
    }
    for (step, (norm, golden)) in seen.grad_norms.iter().zip(expected("grad_norm")).enumerate() {
        assert!((norm - golden).abs() < 1e-3 * golden, "{id}, step {step}: norm {norm}, not {golden}");
    }
    assert_eq!(seen.losses.len(), expected("loss").len(), "{id}");

    let weights = safetensors::load(folder.path().join("final/model.safetensors"), &Device::Cpu).unwrap();
    for (name, golden) in golden["tensors"].as_array().unwrap().iter().zip(case["final"].as_array().unwrap())
    {
        let name = name.as_str().unwrap();
        let numbers: Vec<f32> = weights[name].flatten_all().unwrap().to_vec1().unwrap();
        let n = numbers.len() as f64;
        let sum: f64 = numbers.iter().map(|x| f64::from(*x)).sum();
        let absolute: f64 = numbers.iter().map(|x| f64::from(x.abs())).sum();
        // A few times the mean noise that single precision itself has, per element.
        let noise = golden[4].as_f64().unwrap();
        let allowed = 4.0 * noise + 1e-7;
        for (what, sum, golden) in [("sum", sum, &golden[0]), ("absolute sum", absolute, &golden[1])] {
            let off = (sum - golden.as_f64().unwrap()).abs() / n;
            assert!(off <= allowed, "{id}, {name}: {what} is off by {off:e} an element, {allowed:e} allowed");
        }
    }
    folder
}

fn check_all(optimizer: &str) {
    let on = On { devices: &Devices::default(), device: "cpu", resting: "" };
    for named in GOLDENS {
        let golden = read(&format!("{}.json", named.model));
        let cases = golden["cases"].as_array().unwrap().iter();
        let cases: Vec<&Json> = cases.filter(|case| case["config"]["optimizer"] == optimizer).collect();
        assert_eq!(cases.len(), 9);
        cases.into_iter().for_each(|case| drop(check(named, case, &golden, &on)));
    }
}

#[test]
fn adamw_follows_pytorch() {
    check_all("adamw");
}

#[test]
fn sgd_with_momentum_follows_pytorch() {
    check_all("sgdm");
}

#[test]
fn adafactor_follows_pytorch() {
    check_all("adafactor");
}

/// Where weights and states rest, by the order of the turns: what copies bring must be what was taken away.
const RESTING: [&str; 3] =
    ["states = host weights = host", "states = device", "states = disk weights = disk"];

/// Of each model one case an optimizer, the short ones, with each order. All cases are run on the CPU, above, and by
/// `tests/gpu/goldens.py --all` on a device.
#[test]
fn a_device_follows_pytorch_and_itself_to_the_bit() {
    let Some(emulator) = Emulator::new() else { return };
    let devices = Devices::default().with(0, Arc::new(emulator) as Arc<dyn Machine>);
    for (nth, named) in GOLDENS.iter().enumerate() {
        let golden = read(&format!("{}.json", named.model));
        let cases = golden["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 27);
        for optimizer in 0..3 {
            let (order, layers) = ((optimizer + nth) % 3, if optimizer == nth { 1 } else { 2 });
            let at = 9 * optimizer + 3 * order + layers;
            let case = &cases[at];
            let on = On { devices: &devices, device: "cuda(0)", resting: RESTING[order] };
            let weights = || {
                let folder = check(named, case, &golden, &on);
                fs::read(folder.path().join("final/model.safetensors")).unwrap()
            };
            let first = weights();
            if (optimizer + 1) % 3 == nth {
                assert!(weights() == first, "{}, {}: two runs, two results", named.model, case["id"]);
            }
        }
    }
}
