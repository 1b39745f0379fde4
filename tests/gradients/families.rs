//! Every family's graph: the gradients of some groups against the oracle of single operations.
//!
//! That a family's forward pass is what its source says is checked against transformers, by `tests/python/families.py`; here
//! it is what the passes make of it.

use candle_core::{Device, Result, Var};
use hift::engine::Inputs;
use hift::model::{Head, Init, Model, Read, Target};
use hift::program::{BatchShape, Graph, ParamId};
use hift::random::Random;

use crate::common::families::FAMILIES;
use crate::ops::nll;
use crate::{Truth, WAYS, Work, Worst, check_step};

/// Rows of these lengths in each micro-batch, padded on the right.
const MICROS: [&[usize]; 3] = [&[9, 4, 7], &[8, 8], &[5]];

/// Weights that are far from where training starts, so that no part of the model is next to idle.
fn weights(model: &Model) -> Vec<Vec<f32>> {
    let draw = |param: &hift::model::Param| {
        let mut random = Random::named(7, &param.name);
        let (mean, std) = match param.init {
            Init::Normal(_) => (0.0, 1.5 / (*param.shape.last().unwrap() as f64).sqrt()),
            Init::Ones => (1.0, 0.3),
            Init::Zeros => (0.0, 0.3),
        };
        (0..param.elements()).map(|_| (mean + std * random.normals()[0]) as f32).collect()
    };
    model.params.iter().map(draw).collect()
}

fn pass(model: &Model, lengths: &[usize], random: &mut Random) -> (Graph, Inputs) {
    let seq = *lengths.iter().max().unwrap();
    let mut inputs = Inputs { starts: model.both_ways.then(Vec::new), ..Inputs::default() };
    for (row, length) in lengths.iter().enumerate() {
        for at in 0..seq {
            let inside = at < *length;
            inputs.ids.push(if inside { random.below(model.vocab as u64) as u32 } else { 0 });
            let counts = inside && random.below(5) > 0;
            let n_labels = match &model.head {
                Head::Labels { classes, .. } => classes.len(),
                Head::Tokens { .. } | Head::Sequence { .. } | Head::Span { .. } => model.vocab,
            };
            inputs.labels.push(if counts { random.below(n_labels as u64) as u32 } else { u32::MAX });
            inputs.types.push(u32::from(inside && at > 1 && model.parts() > 1));
            inputs.positions.push(at as u32);
            if let Some(starts) = &mut inputs.starts {
                starts.push(if inside { 0 } else { at as u32 });
            }
        }
        if let Head::Sequence { target, read, .. } = &model.head {
            let at = match read {
                Read::First => 0,
                Read::Last => length - 1,
            };
            inputs.queries.push((row * seq + at) as u32);
            match target {
                Target::Classes(classes) => inputs.classes.push(random.below(classes.len() as u64) as u32),
                Target::Number => inputs.targets.push((random.normals()[0] as f32).to_bits()),
            }
        }
    }
    // First tokens, last tokens, lengths.
    let mut ends: Vec<[u64; 2]> = Vec::new();
    for length in lengths {
        let begin = random.below(*length as u64);
        ends.push([begin, begin + random.below(*length as u64 - begin)]);
    }
    inputs.spans = [0, 1].iter().flat_map(|side| ends.iter().map(|ends| ends[*side] as u32)).collect();
    inputs.spans.extend(lengths.iter().map(|length| *length as u32));
    let shape = BatchShape { batch: lengths.len(), seq, packed: false, far: model.is_far(seq) };
    (model.loss(shape), inputs)
}

fn check(name: &str, config: &str, worst: &mut [Worst; 2]) {
    let model = Model::from_config(config).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut random = Random::named(7, name);
    let passes = MICROS.iter().map(|lengths| pass(&model, lengths, &mut random)).collect();
    let work = Work {
        params: model.params.iter().map(|param| (param.name.clone(), param.shape.clone())).collect(),
        weights: weights(&model),
        passes,
        tokens: 20.0,
    };
    let truth = |n: usize| -> Result<Truth> {
        let vars = work.weights.iter().zip(&work.params).map(|(numbers, (_, shape))| {
            let wide: Vec<f64> = numbers.iter().map(|x| f64::from(*x)).collect();
            Var::from_vec(wide, shape.as_slice(), &Device::Cpu)
        });
        let vars = vars.collect::<Result<Vec<_>>>()?;
        let sums = work.passes[..n].iter().map(|(graph, inputs)| nll(graph, &vars, inputs));
        let sum = sums.reduce(|a, b| a? + b?).unwrap()?;
        let found = (&sum / work.tokens)?.backward()?;
        let of = |var: &Var| found.get(var).map_or(Ok(Vec::new()), |g| g.flatten_all()?.to_vec1());
        Ok(Truth { loss: sum.to_scalar()?, gradients: vars.iter().map(of).collect::<Result<_>>()? })
    };
    let truths = [1, MICROS.len()].map(|n| truth(n).unwrap_or_else(|error| panic!("{name}: {error}")));
    for (gradients, param) in truths[0].gradients.iter().zip(&model.params) {
        assert!(!gradients.is_empty(), "{name}: {} is in no operation", param.name);
    }
    let layers = model.tail(true);
    let [first, last] = [layers.first().unwrap(), layers.last().unwrap()];
    let groups: [(&str, Vec<ParamId>); 4] = [
        ("the first layer", first.params.clone()),
        ("the second layer", layers[1].params.clone()),
        ("the last layer", last.params.clone()),
        ("all", work.all()),
    ];
    for (idx, (group, active)) in groups.iter().enumerate() {
        for way in [WAYS[idx % 2], WAYS[3]] {
            let what = |part: &str| format!("{name}: {group}, {way:?}: {part}");
            check_step(&work, &truths[usize::from(way.micros > 1)], active, way, what, worst);
        }
    }
}

#[test]
fn every_family_has_the_gradients_that_autograd_finds() {
    let mut worst = [Worst::default(), Worst::default()];
    FAMILIES.iter().for_each(|(name, config)| check(name, config, &mut worst));
    worst[0].print("gradients");
    worst[1].print("losses");
}
