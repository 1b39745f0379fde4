//! Runs against traces of an independent PyTorch program: losses, gradient norms, final weights.
//!
//! `golden/README.md` says how the traces were made and what may be expected of a correct implementation.

mod common;

use std::fs;

use candle_core::{Device, safetensors};
use serde_json::{Value as Json, json};

use common::{fixture, run};

/// Largest difference of a loss that is allowed.
const LOSS: f64 = 2e-5;

fn read(name: &str) -> Json {
    serde_json::from_str(&fs::read_to_string(fixture("golden").join(name)).unwrap()).unwrap()
}

fn names(indices: &Json, units: &Json) -> Vec<String> {
    let layer = |index: &Json| {
        let name = units[index.as_u64().unwrap() as usize][0].as_str().unwrap();
        if name == "embed" { "embedding".to_string() } else { name.to_string() }
    };
    indices.as_array().unwrap().iter().map(layer).collect()
}

/// The case in the language.
fn text(case: &Json, defaults: &Json, units: &Json) -> String {
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
    format = tokens(input = "input_ids", labels = "labels")
    shuffle = none
}}
model tiny {{ weights = "{}" }}
groups layers {{ split = by_layer({}, tail = split) rotate = true }}
schedule turns {{ order = {order} rate = constant({}) }}
{optimizer}
train sft {{
    data = rows model = tiny groups = layers schedule = turns optimizer = {optimizer_name}
    steps = {} micro_batch = 4 clip = {clip}
}}
export final {{ from = sft to = "final" dtype = fp32 }}
"#,
        fixture("golden/models/llama-tiny").display(),
        config("m"),
        config("lr"),
        config("max_steps"),
    )
}

fn check(case: &Json, golden: &Json) {
    let id = case["id"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let batches = read("batches-lm.json");
    let mut rows = String::new();
    for batch in batches["batches"].as_array().unwrap() {
        let pairs = batch["input_ids"].as_array().unwrap().iter().zip(batch["labels"].as_array().unwrap());
        for (ids, labels) in pairs {
            rows += &format!("{}\n", json!({ "input_ids": ids, "labels": labels }));
        }
    }
    fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    let units = &golden["units"]["split_head"];
    let (seen, ..) =
        run(folder.path(), &text(case, &golden["defaults"], units)).unwrap_or_else(|e| panic!("{id}: {e}"));

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
}

fn check_all(optimizer: &str) {
    let golden = read("llama-tiny.json");
    let cases = golden["cases"].as_array().unwrap().iter();
    let cases: Vec<&Json> = cases.filter(|case| case["config"]["optimizer"] == optimizer).collect();
    assert_eq!(cases.len(), 9);
    cases.into_iter().for_each(|case| check(case, &golden));
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
