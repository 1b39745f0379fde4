//! Every algorithm's update against other people's: weights after five of them.
//!
//! `python/optimizers.py` says whose, and wrote `golden/optimizers.json`.

mod common;

use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::Value as Json;

use hift::engine::access::zeros;
use hift::engine::update::{Step, update};
use hift::lang::pipeline::{Optimizer, Stage};
use hift::lang::schema::ALGORITHMS;
use hift::model::Model;
use hift::plan::optimizer::states;
use hift::program::ParamId;

use common::{fixture, pipeline};

const CONFIG: &str = r#"{"model_type": "llama", "vocab_size": 90, "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 1, "num_attention_heads": 4}"#;

fn golden() -> Json {
    serde_json::from_str(&fs::read_to_string(fixture("golden/optimizers.json")).unwrap()).unwrap()
}

fn numbers(json: &Json) -> Vec<f64> {
    json.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// `adamw weight_decay = 0.1` as an optimizer block.
fn optimizer(block: &str) -> Optimizer {
    let (algorithm, keys) = block.split_once(' ').unwrap_or((block, ""));
    let text = format!(
        r#"hift 1
data rows {{ source = json("rows.jsonl") format = tokens }}
model tiny {{ weights = random("config.json") }}
groups g {{ split = all() }}
schedule s {{ rate = constant(1e-2) }}
optimizer o {{ algorithm = {algorithm} {keys} }}
train t {{ data = rows model = tiny groups = g schedule = s optimizer = o steps = 1 micro_batch = 1 }}
"#
    );
    match &pipeline(Path::new(""), &text).stages[0] {
        Stage::Train(train) => train.optimizer.clone(),
        other => panic!("{other:?}"),
    }
}

/// What the weights have become, with gradients that are `times` as large and a scale that makes up for it.
fn updated(block: &str, tensor: &str, golden: &Json, times: f32) -> Vec<f32> {
    let Optimizer { algorithm, weight_decay, .. } = optimizer(block);
    let model = Model::from_config(CONFIG).unwrap();
    let id = ParamId(model.params.iter().position(|param| param.path == tensor).unwrap());
    let shape = model.param(id).shape.as_slice();
    let n: usize = shape.iter().product();
    let make = |f: &dyn Fn(f64) -> f64| {
        let numbers: Vec<f32> = (0..n).map(|i| f(i as f64) as f32).collect();
        Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
    };
    let weight = make(&|i| 0.5 * (0.37 * i).cos());
    let states: Vec<Tensor> = states(&algorithm, &model, id)
        .iter()
        .map(|state| zeros(&state.shape, state.dtype).unwrap())
        .collect();
    for count in 1..=golden["steps"].as_u64().unwrap() {
        let t = count as f64;
        let gradient = make(&|i| {
            let g = (0.11 * i * t + 0.7 * t).sin() * (-3.0 * (i % 97.0) / 97.0).exp();
            f64::from(g as f32 * times)
        });
        let step = Step {
            algorithm: &algorithm,
            rate: golden["rate"].as_f64().unwrap(),
            weight_decay: *weight_decay,
            count,
            scale: 1.0 / times,
        };
        update(&step, &weight, &gradient, &states).unwrap();
    }
    for state in states.iter().filter(|state| state.dtype() == DType::F32) {
        let state = state.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(state.iter().all(|x| x.is_finite()) && state.iter().any(|x| *x != 0.0), "{block}, {tensor}");
    }
    weight.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn updates_are_those_of_other_implementations() {
    let golden = golden();
    let mut seen: Vec<&str> = Vec::new();
    let mut worst = 0.0_f64;
    for case in golden["cases"].as_array().unwrap() {
        let (block, tensor) = (case["optimizer"].as_str().unwrap(), case["tensor"].as_str().unwrap());
        seen.push(block.split(' ').next().unwrap());
        let p = updated(block, tensor, &golden, 1.0);
        assert_eq!(p, updated(block, tensor, &golden, 4.0), "{block}, {tensor}: a scaled gradient");
        let n = p.len() as f64;
        let sums = [p.iter().map(|x| f64::from(*x)).sum::<f64>(), p.iter().map(|x| f64::from(x.abs())).sum()];
        for (sum, key) in sums.into_iter().zip(["sum", "absolute"]) {
            let off = (sum - case[key].as_f64().unwrap()).abs() / n;
            assert!(off < 2e-7, "{block}, {tensor}: {key} off by {off:e} an element");
        }
        let stride = if p.len() < 1000 { 7 } else { 61 };
        for (i, (p, expected)) in p.iter().step_by(stride).zip(numbers(&case["values"])).enumerate() {
            let off = (f64::from(*p) - expected).abs();
            worst = worst.max(off);
            assert!(off < 2e-6, "{block}, {tensor}: element {}: {p}, not {expected}", i * stride);
        }
    }
    let all: Vec<&str> = ALGORITHMS.iter().map(|algorithm| algorithm.name).collect();
    assert!(all.iter().all(|name| seen.contains(name)), "all of {all:?} are held against something");
    println!("{} cases, at most {worst:e} off", seen.len());
}
