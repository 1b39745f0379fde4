//! Every gradient that a compiled step forms, against oracles outside the code: candle's autograd over a plain
//! 64-bit forward pass, finite differences, and numbers that transformers and PyTorch gave for real models.

mod common;
#[path = "gradients/families.rs"]
mod families;
#[path = "gradients/ops.rs"]
mod ops;
#[path = "gradients/plain.rs"]
mod plain;
#[path = "gradients/wiring.rs"]
mod wiring;

use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use hift::engine::{Inputs, Knobs, Played, Store, play, store};
use hift::lang::pipeline::{Algorithm, Weights};
use hift::model::{Init, Model};
use hift::program::residency::Away;
use hift::program::{
    BatchShape, Graph, Op, ParamId, Program, Settings, StepPrograms, forward_only, step_programs,
};
use hift::random::Random;
use hift::units::Dtype;
use serde_json::Value as Json;

use common::shared;
use plain::{Micro, Plain};

/// Largest error of a tensor's gradient, as a part of its norm.
const GRADIENT: f64 = 1e-5;
/// Largest error of a loss, as a part of it.
const LOSS: f64 = 1e-6;
/// Largest difference of two ways to add the same gradients.
const ORDER: f64 = 1e-6;
/// Plain descent with a huge rate, so that the gradient is what is left when the weight has been taken off; a power of
/// two, so that nothing else is lost. A weight that is read after its update cannot hide either.
const RATE: f64 = (1_u64 << 24) as f64;

/// A model, and the lengths of the documents in each row of each micro-batch.
struct Variant {
    name: &'static str,
    config: &'static str,
    micros: &'static [&'static [&'static [usize]]],
    packed: bool,
    /// Rows of logits at a time, where the model's own choice would take all at once.
    chunk: Option<usize>,
    ways: &'static [Way],
}

const VARIANTS: &[Variant] = &[
    Variant {
        name: "plain",
        config: r#""hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 3, "num_attention_heads": 2"#,
        micros: &[&[&[9], &[9]], &[&[9], &[9]], &[&[9], &[9]]],
        packed: false,
        chunk: None,
        ways: &WAYS,
    },
    Variant {
        name: "grouped heads, tied",
        config: r#""hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 6,
            "num_key_value_heads": 2, "tie_word_embeddings": true, "rms_norm_eps": 1e-5"#,
        // Shorter rows are padded; the last micro-batch of an epoch has fewer rows.
        micros: &[&[&[11], &[4], &[7]], &[&[8], &[10], &[2]], &[&[5]]],
        packed: false,
        chunk: Some(7),
        ways: &WAYS,
    },
    Variant {
        name: "biases, one key head, heads wider than hidden",
        config: r#""hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 1, "head_dim": 10, "attention_bias": true, "mlp_bias": true"#,
        micros: &[&[&[8], &[10]], &[&[9], &[9]], &[&[3], &[6]]],
        packed: false,
        chunk: Some(5),
        ways: &WAYS,
    },
    Variant {
        name: "llama3 positions, packed rows",
        // Wavelengths 6, 63, 628 and 6283: kept, in between, and twice divided.
        config: r#""hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "rope_scaling": { "rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 128 }"#,
        micros: &[&[&[5, 1, 6], &[9, 2]], &[&[12], &[3, 3, 3, 3]], &[&[7, 4], &[1, 8]]],
        packed: true,
        chunk: None,
        ways: &WAYS,
    },
    Variant {
        name: "linear positions, biases, tied, packed rows",
        config: r#""hidden_size": 12, "intermediate_size": 18, "num_hidden_layers": 2, "num_attention_heads": 3,
            "attention_bias": true, "tie_word_embeddings": true,
            "rope_parameters": { "rope_type": "linear", "factor": 4.0, "rope_theta": 500.0 }"#,
        micros: &[&[&[4, 4], &[7]], &[&[1, 1, 6], &[8]], &[&[2, 5], &[3, 4]]],
        packed: true,
        chunk: Some(3),
        ways: &WAYS,
    },
    Variant {
        name: "rows longer than a tile",
        config: r#""hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 1"#,
        micros: &[&[&[150, 119, 1]]],
        packed: true,
        chunk: Some(100),
        ways: &[WAYS[0]],
    },
];

/// What a step is compiled for, beside its group.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// Micro-batches, and whether the programs can take several.
    micros: usize,
    accumulate: bool,
    /// The largest norm, in norms of the true gradient.
    clip: Option<f64>,
}

/// The first four are for every group; all of them are for single parameters in turn, and for all together.
const WAYS: [Way; 7] = [
    Way { micros: 1, accumulate: false, clip: None },
    Way { micros: 1, accumulate: false, clip: Some(0.25) },
    Way { micros: 3, accumulate: true, clip: None },
    Way { micros: 3, accumulate: true, clip: Some(0.25) },
    Way { micros: 1, accumulate: false, clip: Some(4.0) },
    Way { micros: 1, accumulate: true, clip: None },
    Way { micros: 3, accumulate: true, clip: Some(4.0) },
];

/// What a step is made of: the names, shapes and numbers of the parameters, and a forward pass for each micro-batch.
struct Work {
    params: Vec<(String, Vec<usize>)>,
    weights: Vec<Vec<f32>>,
    passes: Vec<(Graph, Inputs)>,
    /// The gradient is that of the mean over this many tokens.
    tokens: f64,
}

impl Work {
    fn all(&self) -> Vec<ParamId> {
        (0..self.params.len()).map(ParamId).collect()
    }

    fn store(&self, weights: &[Vec<f32>]) -> Store {
        let tensors = self.params.iter().zip(weights).map(|((_, shape), numbers)| {
            Tensor::from_vec(numbers.clone(), shape.as_slice(), &Device::Cpu).unwrap()
        });
        Store::new(tensors.collect())
    }

    /// Runs a graph forward, with other weights.
    fn forward(&self, weights: &[Vec<f32>], graph: &Graph, inputs: &Inputs) -> Vec<f32> {
        let program = forward_only(graph, rayon::current_num_threads());
        let knobs = Knobs {
            loss_scale: 0.0,
            unscale: 1.0,
            noise: 0,
            rate: 0.0,
            factors: &[],
            algorithm: &Algorithm::Sgd,
            weight_decay: 0.0,
        };
        play(&program, &mut self.store(weights), inputs.clone(), Vec::new(), &knobs).unwrap().numbers(0)
    }

    /// One update of the parameters `active`.
    fn step(&self, active: &[ParamId], way: Way, clip: Option<f32>, recompute_blocks: bool) -> Stepped {
        let mut store = self.store(&self.weights);
        let mut is_active = vec![false; self.params.len()];
        active.iter().for_each(|param| is_active[param.0] = true);
        let settings = Settings {
            active: &is_active,
            states: &|_| Vec::new(),
            clip,
            masters: false,
            scaled: false,
            accumulate: way.accumulate,
            recompute: &|_| recompute_blocks,
            backend: rayon::current_num_threads().into(),
            away: Away::default(),
        };
        let knobs = Knobs {
            loss_scale: (1.0 / self.tokens) as f32,
            unscale: 1.0,
            noise: 0,
            rate: RATE,
            factors: &[],
            algorithm: &Algorithm::Sgd,
            weight_decay: 0.0,
        };
        let mut play = |program: &Program, inputs: Inputs, gradients| -> Played {
            play(program, &mut store, inputs, gradients, &knobs).unwrap()
        };
        let (mut loss, mut squares, mut gradients) = (0.0, 0.0, Vec::new());
        for (idx, (graph, inputs)) in self.passes[..way.micros].iter().enumerate() {
            match step_programs(graph, &settings) {
                StepPrograms::Whole(program) => {
                    let played = play(&program, inputs.clone(), Vec::new());
                    loss = f64::from(played.numbers(0)[0]);
                    squares = f64::from(played.numbers(1)[0]);
                }
                StepPrograms::Parts(parts) => {
                    let program = if idx == 0 { &parts.first } else { &parts.next };
                    let played = play(program, inputs.clone(), gradients);
                    loss += f64::from(played.numbers(0)[0]);
                    gradients = played.gradients;
                    if idx + 1 == way.micros {
                        let played = play(&parts.update, Inputs::default(), std::mem::take(&mut gradients));
                        squares = f64::from(played.numbers(0)[0]);
                    }
                }
            }
        }
        let weights =
            store.weights.iter().map(|weight| weight.tensor().flatten_all().unwrap().to_vec1().unwrap());
        Stepped { weights: weights.collect(), loss, norm: squares.sqrt() }
    }
}

/// A model with weights that are far from where training starts, so that no part of it is next to idle.
struct Case {
    model: Model,
    micros: Vec<Micro>,
    work: Work,
}

impl Case {
    fn new(variant: &Variant) -> Self {
        let config = format!(r#"{{"model_type": "llama", "vocab_size": 37, {}}}"#, variant.config);
        let model = Model::from_config(&config).unwrap();
        let weights = model.params.iter().map(|param| {
            let mut random = Random::named(7, &param.name);
            let mut normals = std::iter::repeat_with(move || random.normals()).flatten();
            let (mean, std) = match param.init {
                Init::Normal(_) => (0.0, 1.5 / (*param.shape.last().unwrap() as f64).sqrt()),
                Init::Ones => (1.0, 0.3),
                Init::Zeros => (0.0, 0.3),
            };
            (0..param.elements()).map(|_| (mean + std * normals.next().unwrap()) as f32).collect()
        });
        let weights: Vec<Vec<f32>> = weights.collect();
        let mut random = Random::named(7, variant.name);
        let micros = variant.micros.iter().map(|rows| micro(rows, variant.packed, &mut random)).collect();
        Self::of(model, weights, micros, variant.chunk)
    }

    fn of(model: Model, weights: Vec<Vec<f32>>, micros: Vec<Micro>, chunk: Option<usize>) -> Self {
        let pass = |micro: &Micro| {
            let mut graph = model.loss(micro.shape);
            if let (Some(chunk), Some(node)) = (chunk, graph.nodes.last_mut()) {
                node.op = Op::LinearCrossEntropy { chunk, softcap: None };
            }
            (graph, micro.inputs.clone())
        };
        let labels = micros.iter().flat_map(|micro| &micro.inputs.labels);
        let work = Work {
            params: model.params.iter().map(|param| (param.name.clone(), param.shape.clone())).collect(),
            weights,
            passes: micros.iter().map(pass).collect(),
            tokens: labels.filter(|label| **label != u32::MAX).count() as f64,
        };
        Self { model, micros, work }
    }

    /// Layers of a schedule and mixtures of them, by what they are called.
    fn groups(&self) -> Vec<(String, Vec<ParamId>)> {
        let [split, joined] = [true, false].map(|split| self.model.tail(split));
        let mut groups: Vec<(String, Vec<ParamId>)> =
            split.iter().chain(&joined).map(|layer| (layer.name.clone(), layer.params.clone())).collect();
        let ends = [&split[0], split.last().unwrap()].iter().flat_map(|layer| layer.params.clone()).collect();
        groups.push(("both ends".into(), ends));
        let inner = split[1..split.len() - 1].iter().flat_map(|layer| layer.params.clone()).collect();
        groups.push(("all but both ends".into(), inner));
        groups.push(("every second".into(), self.work.all().into_iter().step_by(2).collect()));
        groups.push(("all".into(), self.work.all()));
        // Where the head is tied, and where there is one block, some are the same.
        let mut known = Vec::new();
        groups.retain(|(_, active)| {
            !known.contains(active) && {
                known.push(active.clone());
                true
            }
        });
        groups
    }
}

/// Rows of documents, padded on the right. Every fifth label does not count, nor does the last of a document.
fn micro(rows: &[&[usize]], packed: bool, random: &mut Random) -> Micro {
    let seq = rows.iter().map(|row| row.iter().sum()).max().unwrap();
    let mut inputs = Inputs { starts: packed.then(Vec::new), ..Inputs::default() };
    for row in rows {
        let padding = std::iter::repeat_n((1, true), seq - row.iter().sum::<usize>());
        let mut start = 0;
        for (length, padding) in row.iter().map(|length| (*length, false)).chain(padding) {
            for at in 0..length {
                inputs.ids.push(if padding { 0 } else { random.below(37) as u32 });
                let counts = !padding && at + 1 < length.max(2) && random.below(5) > 0;
                inputs.labels.push(if counts { random.below(37) as u32 } else { u32::MAX });
                // Padding goes on counting; it must not matter.
                inputs.positions.push(if padding { start } else { at as u32 });
                if let Some(starts) = &mut inputs.starts {
                    starts.push(start);
                }
            }
            start += length as u32;
        }
    }
    Micro { shape: BatchShape { batch: rows.len(), seq, packed, far: false }, inputs }
}

/// What a step left behind.
#[derive(Debug, PartialEq)]
struct Stepped {
    weights: Vec<Vec<f32>>,
    /// The sum of the cross entropies, and the norm of the gradient before clipping.
    loss: f64,
    norm: f64,
}

impl Stepped {
    /// What was taken off a weight, by rate.
    fn gradient(&self, before: &[Vec<f32>], param: usize) -> Vec<f64> {
        let pairs = before[param].iter().zip(&self.weights[param]);
        pairs.map(|(before, after)| (f64::from(*before) - f64::from(*after)) / RATE).collect()
    }
}

fn norm(numbers: impl IntoIterator<Item = f64>) -> f64 {
    numbers.into_iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The norm of the difference as a part of the true norm.
fn error(found: &[f64], true_: &[f64]) -> f64 {
    assert_eq!(found.len(), true_.len());
    norm(found.iter().zip(true_).map(|(a, b)| a - b)) / norm(true_.iter().copied())
}

/// The largest error seen, and where.
#[derive(Default)]
struct Worst(f64, String);

impl Worst {
    fn check(&mut self, error: f64, allowed: f64, what: impl Fn() -> String) {
        assert!(error < allowed, "{}: off by {error:e}", what());
        if error > self.0 {
            *self = Self(error, what());
        }
    }

    fn print(&self, what: &str) {
        println!("{what}: at most {:.1e}, {}", self.0, self.1);
    }
}

/// The sum of the cross entropies and the gradient of every parameter, as an oracle has them.
struct Truth {
    loss: f64,
    gradients: Vec<Vec<f64>>,
}

/// Of the first `n` micro-batches, by candle.
fn autograd(case: &Case, n: usize) -> Truth {
    let plain = Plain::new(&case.model, &case.work.weights).unwrap();
    let sums = case.micros[..n].iter().map(|micro| plain.sums(micro).unwrap().nll);
    let nll = sums.reduce(|a, b| a.add(&b).unwrap()).unwrap();
    let gradients = plain.gradients(&(&nll / case.work.tokens).unwrap()).unwrap();
    Truth { loss: nll.to_scalar().unwrap(), gradients }
}

/// Checks one step, with and without running blocks again.
fn check_step(
    work: &Work,
    truth: &Truth,
    active: &[ParamId],
    way: Way,
    what: impl Fn(&str) -> String,
    [gradients, losses]: &mut [Worst; 2],
) {
    let true_norm = norm(active.iter().map(|param| norm(truth.gradients[param.0].iter().copied())));
    let max_norm = way.clip.map(|clip| (clip * true_norm) as f32);
    // Source: PyTorch's `clip_grad_norm_`.
    let factor = max_norm.map_or(1.0, |max| (f64::from(max) / (true_norm + 1e-6)).min(1.0));

    let stepped = work.step(active, way, max_norm, false);
    losses.check((stepped.loss / truth.loss - 1.0).abs(), LOSS, || what("loss"));
    gradients.check((stepped.norm / true_norm - 1.0).abs(), GRADIENT, || what("norm of the gradient"));
    for param in work.all() {
        let name = || what(&work.params[param.0].0);
        if active.contains(&param) {
            let wanted: Vec<f64> = truth.gradients[param.0].iter().map(|g| factor * g).collect();
            let found = stepped.gradient(&work.weights, param.0);
            // A bias of keys moves all scores of a query alike: what is left of its gradient is rounding.
            let all = factor * norm(truth.gradients.iter().flatten().copied());
            let off = match norm(wanted.iter().copied()) < 1e-9 * all {
                true => norm(found) / all,
                false => error(&found, &wanted),
            };
            gradients.check(off, GRADIENT, name);
        } else {
            assert!(stepped.weights[param.0] == work.weights[param.0], "{} has moved", name());
        }
    }
    let again = work.step(active, way, max_norm, true);
    assert!(again == stepped, "{}", what("blocks that are run again change the step"));
}

fn check(variant: &Variant, worst: &mut [Worst; 2]) {
    let case = Case::new(variant);
    let oracle = [1, case.micros.len()].map(|n| autograd(&case, n));
    let mut one = |group: &str, active: &[ParamId], way: Way| {
        let what = |tensor: &str| format!("{}: {group}, {way:?}: {tensor}", variant.name);
        check_step(&case.work, &oracle[usize::from(way.micros > 1)], active, way, what, worst);
    };
    for (group, active) in case.groups() {
        let n = if group == "all" { WAYS.len() } else { 4 };
        variant.ways.iter().take(n).for_each(|way| one(&group, &active, *way));
    }
    // A pattern may pick any parameter alone.
    for param in case.work.all() {
        one("alone", &[param], variant.ways[param.0 % variant.ways.len()]);
    }
}

#[test]
fn every_group_has_the_gradient_that_autograd_finds() {
    let mut worst = [Worst::default(), Worst::default()];
    VARIANTS.iter().for_each(|variant| check(variant, &mut worst));
    worst[0].print("gradients");
    worst[1].print("losses");
}

/// The rows of one micro-batch, each as a micro-batch of its own.
fn row_by_row(micro: &Micro) -> Vec<Micro> {
    let seq = micro.shape.seq;
    let row = |numbers: &[u32], row: usize| numbers[row * seq..(row + 1) * seq].to_vec();
    let one = |at: usize| Micro {
        shape: BatchShape { batch: 1, ..micro.shape },
        inputs: Inputs {
            ids: row(&micro.inputs.ids, at),
            labels: row(&micro.inputs.labels, at),
            positions: row(&micro.inputs.positions, at),
            starts: micro.inputs.starts.as_ref().map(|starts| row(starts, at)),
            ..Inputs::default()
        },
    };
    (0..micro.shape.batch).map(one).collect()
}

#[test]
fn accumulating_rows_is_as_good_as_having_them_in_one_batch() {
    let mut worst = Worst::default();
    for variant in VARIANTS {
        let whole = Case::new(variant);
        let mut rows = Case::of(
            whole.model.clone(),
            whole.work.weights.clone(),
            row_by_row(&whole.micros[0]),
            variant.chunk,
        );
        rows.work.tokens = whole.work.tokens;
        for (group, active) in whole.groups() {
            let what = |tensor: &str| format!("{}: {group}: {tensor}", variant.name);
            let at_once = whole.work.step(&active, WAYS[0], None, false);
            let way = Way { micros: rows.micros.len(), accumulate: true, clip: None };
            let one_by_one = rows.work.step(&active, way, None, false);
            worst.check((one_by_one.loss / at_once.loss - 1.0).abs(), ORDER, || what("loss"));
            worst.check((one_by_one.norm / at_once.norm - 1.0).abs(), ORDER, || what("norm"));
            for param in &active {
                let [a, b] = [&one_by_one, &at_once].map(|step| step.gradient(&whole.work.weights, param.0));
                worst.check(error(&a, &b), ORDER, || what(&whole.model.param(*param).name));
            }
        }
    }
    worst.print("differences");
}

/// How far a central difference along `direction` is from the gradient's part in it, by the gradient's norm.
fn slope_error(
    weights: &[Vec<f32>],
    param: usize,
    gradient: &[f64],
    width: f64,
    loss: impl Fn(&[Vec<f32>]) -> f64,
) -> f64 {
    let mut random = Random::named(3, &param.to_string());
    let direction: Vec<f64> = gradient.iter().map(|_| random.normals()[0]).collect();
    let length = norm(direction.iter().copied());
    let moved = |by: f64| {
        let mut weights = weights.to_vec();
        let numbers = weights[param].iter_mut().zip(&direction);
        numbers.for_each(|(x, d)| *x = (f64::from(*x) + by * d / length) as f32);
        weights
    };
    let [above, below] = [moved(width), moved(-width)];
    let [up, down] = [loss(&above), loss(&below)];
    // The way that was really gone, after rounding.
    let gone = above[param].iter().zip(&below[param]).map(|(a, b)| f64::from(*a) - f64::from(*b));
    let expected: f64 = gone.zip(gradient).map(|(way, g)| way * g).sum();
    (up - down - expected).abs() / (2.0 * width * norm(gradient.iter().copied()))
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    let (mut own, mut plain) = (Worst::default(), Worst::default());
    for variant in &VARIANTS[..VARIANTS.len() - 1] {
        let mut case = Case::new(variant);
        case.work.tokens = 1.0;
        let work = &case.work;
        let (graph, inputs) = &work.passes[0];
        let stepped = work.step(&work.all(), WAYS[0], None, false);
        for param in work.all() {
            let gradient = stepped.gradient(&work.weights, param.0);
            let what = || format!("{}: {}", variant.name, case.model.param(param).name);
            // The program's own loss: what single precision leaves of a difference is three digits at the best.
            let loss = |weights: &[Vec<f32>]| f64::from(work.forward(weights, graph, inputs)[0]);
            own.check(slope_error(&work.weights, param.0, &gradient, 1e-2, loss), 3e-3, what);
            let loss = |weights: &[Vec<f32>]| {
                let sums = Plain::new(&case.model, weights).unwrap().sums(&case.micros[0]).unwrap();
                sums.nll.to_scalar::<f64>().unwrap()
            };
            plain.check(slope_error(&work.weights, param.0, &gradient, 1e-3, loss), 1e-5, what);
        }
    }
    own.print("slopes of the program's loss");
    plain.print("slopes of the plain loss");
}

#[test]
fn forward_passes_give_the_plain_loss_choices_and_logits() {
    let (mut loss, mut logits) = (Worst::default(), Worst::default());
    for variant in VARIANTS {
        let case = Case::new(variant);
        let work = &case.work;
        let plain = Plain::new(&case.model, &work.weights).unwrap();
        for (micro, (graph, inputs)) in case.micros.iter().zip(&work.passes) {
            let wanted = plain.sums(micro).unwrap();
            let found = work.forward(&work.weights, graph, inputs);
            let nll: f64 = wanted.nll.to_scalar().unwrap();
            loss.check((f64::from(found[0]) / nll - 1.0).abs(), LOSS, || variant.name.to_string());
            assert_eq!(f64::from(found[1]), wanted.correct, "{}: first choices", variant.name);

            let BatchShape { batch, seq, .. } = micro.shape;
            // Anywhere in a row, not only at its end.
            let queries: Vec<u32> =
                (0..batch).map(|row| (row * seq + (seq - 1) / (row + 1)) as u32).collect();
            let all: Vec<Vec<f64>> = plain.logits(micro).unwrap().to_vec2().unwrap();
            let inputs = Inputs { queries: queries.clone(), ..micro.inputs.clone() };
            let found = work.forward(&work.weights, &case.model.logits(micro.shape), &inputs);
            let found: Vec<f64> = found.into_iter().map(f64::from).collect();
            for (query, found) in queries.iter().zip(found.chunks(case.model.vocab)) {
                let off = error(found, &all[*query as usize]);
                logits.check(off, GRADIENT, || format!("{}: logits of row {query}", variant.name));
            }
        }
    }
    loss.print("losses");
    logits.print("logits");
}

fn numbers(json: &Json) -> Vec<f64> {
    json.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn ids(json: &Json) -> Vec<u32> {
    json.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

/// Rows of ids that predict their next one from position `from` on.
fn predicting(rows: &[Vec<u32>], from: usize) -> Micro {
    let seq = rows[0].len();
    let label = |row: &[u32], at: usize| row.get(at + 1).copied().filter(|_| at >= from).unwrap_or(u32::MAX);
    let inputs = Inputs {
        ids: rows.concat(),
        labels: rows.iter().flat_map(|row| (0..seq).map(move |at| label(row, at))).collect(),
        positions: rows.iter().flat_map(|_| 0..seq as u32).collect(),
        ..Inputs::default()
    };
    Micro { shape: BatchShape { batch: rows.len(), seq, packed: false, far: false }, inputs }
}

/// A real model against what transformers and PyTorch gave; the tolerances are those that its note names.
fn check_real(folder: &Path) {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let model = Model::from_config(&read("config.json")).unwrap();
    let reference: Json = serde_json::from_str(&read("reference.json")).unwrap();
    let weights = store::load(&model, &Weights::Directory { path: ".".into() }, folder, Dtype::F32).unwrap();
    let weights = weights.iter().map(|weight| weight.flatten_all().unwrap().to_vec1().unwrap()).collect();
    let batch = &reference["batch"];
    let rows: Vec<Vec<u32>> = batch["input_ids"].as_array().unwrap().iter().map(ids).collect();
    let Case { model, work, .. } = Case::of(model, weights, vec![predicting(&rows, 0)], None);
    let name = folder.file_name().unwrap().to_string_lossy();

    let prompt = ids(&reference["logits"]["input_ids"]);
    let mut micro = predicting(std::slice::from_ref(&prompt), 0);
    micro.inputs.queries = vec![prompt.len() as u32 - 1];
    let logits = work.forward(&work.weights, &model.logits(micro.shape), &micro.inputs);
    let mut worst = Worst::default();
    let first = numbers(&reference["logits"]["last_position_first8"]).into_iter().enumerate();
    let top = ids(&reference["logits"]["top5_ids"]).into_iter().map(|id| id as usize);
    for (id, wanted) in first.chain(top.zip(numbers(&reference["logits"]["top5_logits"]))) {
        worst.check((f64::from(logits[id]) - wanted).abs(), 1e-3, || format!("{name}: logit {id}"));
    }
    worst.print("logits");

    // Every id of the continuation is the first choice after those before it.
    let output = ids(&reference["greedy"]["output_ids"]);
    let micro = predicting(std::slice::from_ref(&output), prompt.len() - 1);
    let sums = work.forward(&work.weights, &model.loss(micro.shape), &micro.inputs);
    assert_eq!(sums[1] as usize, output.len() - prompt.len(), "{name}: greedy continuation");

    let stepped = work.step(&work.all(), WAYS[0], None, false);
    let mut worst = Worst::default();
    let loss = stepped.loss / work.tokens;
    worst.check((loss - batch["loss"].as_f64().unwrap()).abs(), 1e-4, || format!("{name}: loss"));
    worst.print("loss");
    let mut worst = Worst::default();
    let mut check = |found: f64, wanted: &Json, tensor: &str| {
        let wanted = wanted.as_f64().unwrap();
        worst.check((found / wanted - 1.0).abs(), 1e-3, || format!("{name}: {tensor}"));
    };
    check(stepped.norm, &batch["grad_norm_total"], "all together");
    for param in work.all() {
        let tensor = &model.param(param).name;
        check(norm(stepped.gradient(&work.weights, param.0)), &batch["grad_norm"][tensor], tensor);
    }
    worst.print("norms of gradients");
}

#[test]
fn real_models_give_what_transformers_gives() {
    for name in ["stories260k", "tinystories-656k"] {
        if let Some(folder) = shared(&format!("data/models/{name}")) {
            check_real(&folder);
        }
    }
}
