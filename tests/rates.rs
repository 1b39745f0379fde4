//! Learning rates against transformers' schedulers (`python/rates.py`), and as a function of cycles.

mod common;

use std::fs;
use std::path::Path;

use serde_json::Value as Json;

use hift::lang::pipeline::{Schedule, Stage};
use hift::model::Model;
use hift::plan::RatePlan;
use hift::plan::rate::layer_factors;

use common::{fixture, pipeline};

fn schedule(keys: &str) -> Schedule {
    let text = format!(
        r#"hift 1
data rows {{ source = json("rows.jsonl") format = tokens }}
model tiny {{ weights = random("config.json") }}
groups g {{ split = by_layer(1) }}
schedule s {{ {keys} }}
optimizer sgd {{ }}
train t {{ data = rows model = tiny groups = g schedule = s optimizer = sgd steps = 1 micro_batch = 1 }}
"#
    );
    match &pipeline(Path::new(""), &text).stages[0] {
        Stage::Train(train) => train.schedule.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn with_a_tick_a_step_rates_are_those_of_transformers() {
    let golden: Json =
        serde_json::from_str(&fs::read_to_string(fixture("golden/rates.json")).unwrap()).unwrap();
    let steps = golden["steps"].as_u64().unwrap();
    for (rate, expected) in golden["cases"].as_object().unwrap() {
        let plan = RatePlan::new(&schedule(&format!("rate = {rate} horizon = steps")), steps, 1, 1);
        let expected = expected.as_array().unwrap();
        assert_eq!(expected.len() as u64, steps);
        for (step, expected) in expected.iter().enumerate() {
            let (got, expected) = (plan.at(step as u64), expected.as_f64().unwrap());
            assert!((got - expected).abs() < 1e-12, "{rate}, step {step}: {got}, not {expected}");
        }
    }
    assert!(golden["cases"].as_object().unwrap().len() >= 16);
}

#[test]
fn the_reference_implementation_hardly_lets_the_rate_fall() {
    // Its figures: 750 steps of 35 layers, linear; 2,146 steps, cosine. j counts completed cycles.
    let linear = RatePlan::new(&schedule("rate = linear(2e-5) horizon = steps"), 750, 35, 35);
    let cosine = RatePlan::new(&schedule("rate = cosine(1e-5) horizon = steps"), 2146, 35, 35);
    for step in 0..300 {
        let j = (step / 35) as f64;
        assert!((linear.at(step) - 2e-5 * (1.0 - j / 750.0)).abs() < 1e-18);
        let expected = 1e-5 * 0.5 * (1.0 + (std::f64::consts::PI * j / 2146.0).cos());
        assert!((cosine.at(step) - expected).abs() < 1e-18);
    }
}

#[test]
fn a_short_cycle_leaves_out_the_turn_that_wraps_round() {
    // 35 layers in twos: 17 turns where a cycle has 18.
    let plan =
        RatePlan::new(&schedule("rate = linear(1) horizon = steps advance = per_short_cycle"), 100, 18, 17);
    assert_eq!([16, 17, 33, 34].map(|step| plan.at(step)), [1.0, 0.99, 0.99, 0.98]);
}

#[test]
fn cycles_are_what_a_course_is_counted_in() {
    // 12 cycles of 5 steps; what is written in steps is rounded up to whole cycles.
    let check = |rate: &str, expected: &[f64]| {
        let plan = RatePlan::new(&schedule(&format!("rate = {rate}")), 60, 5, 5);
        let got: Vec<f64> = (0..12).map(|cycle| plan.at(5 * cycle)).collect();
        for cycle in 0..12 {
            assert_eq!(plan.at(5 * cycle + 4), plan.at(5 * cycle), "{rate}: a cycle has one rate");
        }
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-12, "{rate}: {got:?}, not {expected:?}");
        }
    };
    check(
        "wsd(1, warmup = 1 cycle, decay = 4 cycles, shape = linear)",
        &[0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25],
    );
    check(
        "wsd(1, decay = 6 steps, shape = linear)",
        &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5],
    );
    check("polynomial(1, power = 2)", &[1.0, 121.0 / 144.0, 100.0 / 144.0, 81.0 / 144.0]);
    check(
        "cosine_with_restarts(1, periods = 3)",
        &[1.0, 0.853_553_390_593_273_7, 0.5, 0.146_446_609_406_726_2, 1.0, 0.853_553_390_593_273_7],
    );
    check("inverse_sqrt(1, timescale = 3 cycles)", &[1.0, 0.75_f64.sqrt(), 0.6_f64.sqrt(), 0.5_f64.sqrt()]);
}

#[test]
fn layers_further_down_learn_more_slowly() {
    let config = r#"{"model_type": "llama", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2}"#;
    let model = Model::from_config(config).unwrap();
    let factors = layer_factors(&model, 0.5);
    let of = |path: &str| factors[model.params.iter().position(|param| param.path == path).unwrap()];
    assert_eq!(["head.logits", "norm"].map(of), [1.0, 1.0]);
    assert_eq!(["block.1.mlp.down", "block.0.norm.mlp", "embedding.tokens"].map(of), [0.5, 0.25, 0.125]);
}
