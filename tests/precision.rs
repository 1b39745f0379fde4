//! Half numbers: the same runs as in 32 bits, within what half numbers can tell apart.

mod common;

use std::fs;
use std::path::Path;

use serde_json::{Value as Json, json};

use hift::data::{Batches, Library};
use hift::engine::access::floats;
use hift::engine::{Inputs, Knobs, Parameters, Store, play, store};
use hift::lang::pipeline::{Algorithm, Shuffle, Weights};
use hift::plan::StagePlan;
use hift::program::StepPrograms;

use common::{Seen, families, fixture, pipeline, planned, run};

fn read(name: &str) -> Json {
    serde_json::from_str(&fs::read_to_string(fixture("golden").join(name)).unwrap()).unwrap()
}

fn numbers(json: &Json) -> Vec<f64> {
    json.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// The golden case `adamw-bottom2up-m1` of a model, in a precision, in `folder`.
fn golden_run(folder: &Path, model: &str, precision: &str) -> Seen {
    let classifies = model.contains("cls");
    let batches = read(if classifies { "batches-cls.json" } else { "batches-lm.json" });
    let mut rows = String::new();
    for batch in batches["batches"].as_array().unwrap() {
        let column = |name: &str| batch[name].as_array().cloned().unwrap_or_default();
        let [ids, labels, masks] = ["input_ids", "labels", "attention_mask"].map(column);
        for (row, (ids, labels)) in ids.iter().zip(labels).enumerate() {
            rows += &format!(
                "{}\n",
                json!({ "input_ids": ids, "labels": labels, "attention_mask": masks.get(row) })
            );
        }
    }
    fs::write(folder.join("rows.jsonl"), rows).unwrap();
    let format = if classifies {
        r#"tokens(label = "labels", mask = "attention_mask")"#
    } else {
        r#"tokens(labels = "labels")"#
    };
    let golden = read(&format!("{model}.json"));
    let case = golden["cases"].as_array().unwrap().iter().find(|case| case["id"] == "adamw-bottom2up-m1");
    let text = format!(
        r#"hift 1
data rows {{ source = json("rows.jsonl") format = {format} shuffle = none }}
model tiny {{ weights = "{}" precision = {precision} }}
groups layers {{ split = by_layer(1, tail = split) rotate = true }}
schedule turns {{ rate = constant(1e-3) }}
optimizer adamw {{ weight_decay = 0.1 }}
train sft {{
    data = rows model = tiny groups = layers schedule = turns optimizer = adamw
    steps = {} micro_batch = 4 clip = 1.0
}}
evaluate test {{ from = sft }}
export final {{ from = sft to = "final" dtype = fp32 }}
"#,
        fixture("golden/models").join(model).display(),
        case.unwrap()["config"]["max_steps"],
    );
    run(folder, &text).unwrap_or_else(|e| panic!("{model}, {precision}: {e}")).0
}

/// The mean and the largest of the differences.
fn off(got: &[f64], expected: &[f64]) -> (f64, f64) {
    assert_eq!(got.len(), expected.len());
    let all = got.iter().zip(expected).map(|(a, b)| (a - b).abs());
    (all.clone().sum::<f64>() / got.len() as f64, all.fold(0.0, f64::max))
}

const MODELS: [&str; 3] = ["llama-tiny", "gpt2-tiny", "bert-cls-tiny"];

/// `python/precision.py` made the same runs in half numbers with PyTorch. Ours may stray from the 32-bit run as far as
/// those do, three times over: both are a draw of the same noise.
#[test]
fn losses_stray_from_the_32_bit_run_no_farther_than_those_of_pytorch() {
    let half = read("precision.json");
    for model in MODELS {
        let golden = read(&format!("{model}.json"));
        let case = golden["cases"].as_array().unwrap().iter().find(|case| case["id"] == half["case"]);
        let [loss, norm] = ["loss", "grad_norm"].map(|key| numbers(&case.unwrap()[key]));
        for (precision, dtype) in
            [("mixed(bf16)", "bf16"), ("mixed(fp16)", "fp16"), ("mixed_hi(bf16)", "bf16"), ("bf16", "bf16")]
        {
            let folder = tempfile::tempdir().unwrap();
            let seen = golden_run(folder.path(), model, precision);
            let [loss_half, norm_half] = ["loss", "grad_norm"].map(|key| numbers(&half[model][dtype][key]));
            for (what, got, theirs, golden) in
                [("loss", &seen.losses, &loss_half, &loss), ("norm", &seen.grad_norms, &norm_half, &norm)]
            {
                let (ours, theirs) = (off(got, golden), off(theirs, golden));
                println!("{model}, {precision}, {what}: off by {ours:?}, PyTorch's {theirs:?}");
                // Weights that are rounded at random as they learn are off by their last bit at every step.
                let times = if precision == "bf16" { 6.0 } else { 3.0 };
                assert!(ours.0 < times * theirs.0, "{model}, {precision}, {what}: {ours:?}, not {theirs:?}");
                assert!(ours.1 < times * theirs.1, "{model}, {precision}, {what}: {ours:?}, not {theirs:?}");
                assert!(ours.0 > 0.0, "{model}, {precision}: half numbers are not 32 bits");
            }
            let (.., evaluation) = seen.evaluations.last().unwrap();
            assert!(evaluation.iter().all(|(_, value)| value.is_finite()));
        }
    }
}

#[test]
fn on_the_cpu_it_makes_no_difference_where_masters_rest() {
    let [one, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let all = golden_run(one.path(), "llama-tiny", "mixed(fp16)");
    let active = golden_run(other.path(), "llama-tiny", "mixed_hi(fp16)");
    assert_eq!(all.losses, active.losses);
    assert_eq!(all.peaks, active.peaks);
    let export = |folder: &Path| fs::read(folder.join("final/model.safetensors")).unwrap();
    assert!(export(one.path()) == export(other.path()));
}

/// Masters are exported, with all of their bits: rounding them gives an export in half numbers.
#[test]
fn exports_are_the_masters() {
    use candle_core::{DType, Device, safetensors};
    let folder = tempfile::tempdir().unwrap();
    golden_run(folder.path(), "llama-tiny", "mixed(bf16)");
    let weights = safetensors::load(folder.path().join("final/model.safetensors"), &Device::Cpu).unwrap();
    let finer = weights.values().filter(|tensor| {
        assert_eq!(tensor.dtype(), DType::F32);
        let numbers = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        numbers.iter().any(|x| x.to_bits() & 0xffff != 0)
    });
    assert!(finer.count() > 30, "32 bits have more to say than 16");
}

/// The gradients of every parameter for one batch, one update away from any change, by precision.
fn gradients(folder: &Path, config: &str, precision: &str) -> Vec<(String, Vec<f32>)> {
    let blocks = families::rows(folder, config, 8, &|i| u32::from(i % 4 == 1));
    let text = format!(
        r#"hift 1
{blocks}
model tiny {{ weights = random("config.json", seed = 1) precision = {precision} }}
groups g {{ split = all() }}
schedule s {{ rate = constant(1e-3) }}
optimizer sgd {{ }}
train t {{ data = rows tokenizer = words model = tiny groups = g schedule = s optimizer = sgd steps = 1 micro_batch = 4 accumulate = 2 }}
"#
    );
    let pipeline = pipeline(folder, &text);
    let mut library = Library::new(folder.to_path_buf(), &|| false);
    let plan = planned(&pipeline, &mut library).unwrap();
    let [StagePlan::Train(plan)] = &plan.stages[..] else { panic!("one stage") };
    let model = &plan.model.model;
    let dataset = library.get(&plan.data, &plan.tokenizer, &hift::run::limits(model)).unwrap();
    let weights = Weights::Random { config: "config.json".into(), seed: 1 };
    let kept = store::load(model, &weights, folder, plan.model.precision.kept()).unwrap();
    let mut store = Store::of(Parameters::of(kept, plan.model.precision).unwrap());
    let mut batches = Batches::new(&dataset.train, 4, 2, Shuffle::None);
    let rows = &batches.rows(0)[0];
    let batch = hift::data::Batch::new(&dataset.train, rows);
    let shape = plan.largest_batch();
    let StepPrograms::Parts(parts) = plan.programs(0, shape, rayon::current_num_threads()) else {
        panic!("it accumulates")
    };
    let inputs: Inputs = hift::run::evaluate::inputs(batch, model);
    let knobs = Knobs {
        // So that what fp16 cannot tell from zero plays no part.
        loss_scale: 16.0,
        unscale: 1.0,
        noise: 0,
        rate: 0.0,
        factors: &[],
        algorithm: &Algorithm::Sgd,
        weight_decay: 0.0,
    };
    let played = play(&parts.first, &mut store, inputs, Vec::new(), &knobs).unwrap();
    let gradients = played.gradients.iter();
    gradients.map(|(id, tensor)| (model.param(*id).name.clone(), floats(tensor).to_vec())).collect()
}

/// Every family's gradients, so that each operation is seen in each type, by the angle to those in 32 bits.
#[test]
fn gradients_of_every_family_point_where_they_do_in_32_bits() {
    for (family, config) in families::FAMILIES {
        let folder = tempfile::tempdir().unwrap();
        let wide = gradients(folder.path(), config, "fp32");
        // The unit of rounding is 2^-9 and 2^-12; a gradient passes some tens of roundings.
        for (precision, allowed) in [("mixed(bf16)", 0.06), ("mixed(fp16)", 0.0075)] {
            // OPT's ReLU is all or nothing: a number that rounding takes across zero counts whole.
            let allowed = if family.starts_with("opt") { 3.0 * allowed } else { allowed };
            let half = gradients(folder.path(), config, precision);
            assert_eq!(half.len(), wide.len());
            let size = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            let all: Vec<f32> = wide.iter().flat_map(|(_, g)| g.clone()).collect();
            // A gradient that is nothing but rounding (of biases of keys) has no direction.
            let least = 1e-3 * size(&all);
            let mut worst = (0.0, String::new());
            for ((name, half), (known, wide)) in half.iter().zip(&wide) {
                assert_eq!(name, known);
                let apart: Vec<f32> = half.iter().zip(wide).map(|(a, b)| a - b).collect();
                // An answer's ends are chosen by a softmax over the text, to which a bias of all logits is nothing: its
                // gradient is the rounding of those of the logits, which are the largest there are.
                let least = match name.as_str() {
                    "qa_outputs.bias" => {
                        assert!(size(wide) < 1e-5 * size(&all), "{family}: {wide:?}");
                        10.0 * least
                    }
                    _ => least,
                };
                let off = size(&apart) / size(wide).max(least);
                if off > worst.0 {
                    worst = (off, name.clone());
                }
            }
            println!("{family}, {precision}: at most {:.4} off ({})", worst.0, worst.1);
            assert!(worst.0 < allowed, "{family}, {precision}: {worst:?}");
            assert!(worst.0 > 0.0, "{family}, {precision}: half numbers are not 32 bits");
        }
    }
}

/// A regression whose targets are `target`: the gradient of its loss is as large as they are.
fn regression(folder: &Path, precision: &str, target: f64, steps: u64) -> String {
    let ids = |i: u32| (0..8).map(|t| (i * 31 + t * 7) % 40).collect::<Vec<u32>>();
    let rows: String = (0..16).map(|i| format!("{{\"ids\": {:?}, \"y\": {target}}}\n", ids(i))).collect();
    fs::write(folder.join("rows.jsonl"), rows).unwrap();
    let config = r#"{"model_type": "llama", "architectures": ["LlamaForSequenceClassification"], "vocab_size": 40,
        "hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 1, "num_attention_heads": 2,
        "max_position_embeddings": 64, "id2label": {"0": "y"}}"#;
    fs::write(folder.join("config.json"), config).unwrap();
    format!(
        r#"hift 1
data rows {{ source = json("rows.jsonl") format = tokens(input = "ids", label = "y") shuffle = seed(3) }}
model tiny {{ weights = random("config.json", seed = 1) precision = {precision} }}
groups g {{ split = by_layer(1) }}
schedule s {{ rate = constant(1e-3) order = importance }}
optimizer adamw {{ }}
train t {{
    data = rows model = tiny groups = g schedule = s optimizer = adamw
    steps = {steps} micro_batch = 4 clip = 1.0
    checkpoint {{ every = 2 steps keep = 9 }}
}}
export final {{ from = t to = "final" dtype = fp32 }}
"#
    )
}

fn lines(folder: &Path, file: &str) -> Vec<Json> {
    let text = fs::read_to_string(folder.join("run").join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_overflow_changes_nothing_and_the_turn_is_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let text = regression(folder.path(), "mixed(fp16)", 1000.0, 5);
    let (seen, ..) = run(folder.path(), &text).unwrap();
    // The gradient of a prediction near 0 is `2 * 1000 / 4` times the scale, which must stay below 65,520: 128 at most.
    let events = lines(folder.path(), "events.jsonl");
    let overflows: Vec<&Json> = events.iter().filter(|event| event["event"] == "overflow").collect();
    assert!(overflows.len() >= 9, "from 65,536 to 128: {overflows:?}");
    assert_eq!(overflows[0]["loss_scale"], 32768.0);
    assert_eq!((&overflows[0]["step"], &overflows[0]["stage"]), (&json!(1), &json!("t")));
    let metrics = lines(folder.path(), "metrics.jsonl");
    assert_eq!(metrics.len(), 5, "a line for each update");
    let last = overflows.last().unwrap()["loss_scale"].as_f64().unwrap();
    assert_eq!(metrics[4]["loss_scale"].as_f64().unwrap(), last);
    assert!(last <= 128.0, "{last}");
    assert!(seen.grad_norms.iter().all(|norm| norm.is_finite() && *norm > 0.0));
    let position: Json = serde_json::from_str(
        &fs::read_to_string(folder.path().join("run/checkpoints/t-5/position.json")).unwrap(),
    )
    .unwrap();
    let good = 5 - (overflows.last().unwrap()["step"].as_u64().unwrap() - 1);
    assert_eq!(position["scale"], json!({ "factor": last, "good_steps": good }));

    // Had the first tries changed anything, the losses would not be those of 32 bits.
    let wide = tempfile::tempdir().unwrap();
    let text = regression(wide.path(), "fp32", 1000.0, 5);
    let (expected, ..) = run(wide.path(), &text).unwrap();
    for (got, expected) in seen.losses.iter().zip(&expected.losses) {
        assert!((got / expected - 1.0).abs() < 1e-4, "{:?}, not {:?}", seen.losses, expected);
    }
    assert_eq!(seen.groups, expected.groups);
    assert!(lines(wide.path(), "metrics.jsonl")[0].get("loss_scale").is_none());
}

#[test]
fn what_overflows_at_any_scale_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let text = regression(folder.path(), "mixed_hi(fp16)", 1e6, 5);
    let error = run(folder.path(), &text).unwrap_err();
    assert_eq!(error.0[0].code, "hift::run::not_finite");
    assert!(error.0[0].help.as_ref().unwrap().contains("write `bf16` in its place"), "{error}");
    let overflows = lines(folder.path(), "events.jsonl");
    assert_eq!(overflows.iter().filter(|event| event["event"] == "overflow").count(), 17);
    // The same in bf16 is no trouble.
    let folder = tempfile::tempdir().unwrap();
    let text = regression(folder.path(), "mixed_hi(bf16)", 1e6, 5);
    run(folder.path(), &text).unwrap();
}

/// Steps of a small part of a weight's last bit: rounded to the nearest, nothing would ever change.
#[test]
fn small_steps_count_in_the_mean() {
    let folder = tempfile::tempdir().unwrap();
    let losses = |precision: &str| {
        let text = regression(folder.path(), precision, 1.0, 300)
            .replace("rate = constant(1e-3)", "rate = constant(2e-5)");
        let _ = fs::remove_dir_all(folder.path().join("run"));
        let (seen, ..) = run(folder.path(), &text.replace("every = 2 steps", "every = 300 steps")).unwrap();
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        mean(&seen.losses[..20]) - mean(&seen.losses[280..])
    };
    let [wide, half] = ["fp32", "bf16"].map(losses);
    println!("learned in fp32 {wide:.5}, in bf16 {half:.5}");
    assert!(wide > 0.0 && (half / wide - 1.0).abs() < 0.3, "{half}, not {wide}");
}
