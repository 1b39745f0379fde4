//! Graphs that no model has: values read several times, weights used several times, in an order that chance decides.
//! The rules and the passes must hold for what a later family may build, not for llama's wiring alone.

use std::sync::Arc;

use candle_core::{Device, Result, Var};
use hift::engine::Inputs;
use hift::program::{
    Activation, BatchShape, Builder, Graph, Heads, Input, LayerNorm, Linear, ParamId, RmsNorm, Role,
};
use hift::random::Random;

use crate::ops::nll;
use crate::{Truth, WAYS, Way, Work, Worst, check_step};

const SHAPE: BatchShape = BatchShape { batch: 2, seq: 5, packed: false, far: false };
const VOCAB: usize = 11;
const HEADS: usize = 2;
const HEAD_DIM: usize = 4;
const HIDDEN: usize = HEADS * HEAD_DIM;
const EPS: f32 = 1e-2;
const MATRICES: usize = 3;
const VECTORS: usize = 2;

/// Tables, matrices, biases, norms: few, so that most are used more than once.
fn params() -> Vec<(String, Vec<usize>)> {
    let named = |kind: &str, n: usize, shape: &[usize]| -> Vec<(String, Vec<usize>)> {
        (0..n).map(|i| (format!("{kind}{i}"), shape.to_vec())).collect()
    };
    [
        named("table", 2, &[VOCAB, HIDDEN]),
        named("matrix", MATRICES, &[HIDDEN, HIDDEN]),
        named("bias", VECTORS, &[HIDDEN]),
        named("norm", VECTORS, &[HIDDEN]),
        named("head", 1, &[HEAD_DIM]),
        named("fused", 1, &[3 * HIDDEN, HIDDEN]),
    ]
    .concat()
}

/// A graph of about `n` operations. What nothing reads in the end is added up, so every parameter in it counts.
fn graph(params: &[(String, Vec<usize>)], n: usize, random: &mut Random) -> Graph {
    let mut build = Builder::new(params, SHAPE);
    let mut pick = |n: usize| random.below(n as u64) as usize;
    let [matrix, bias, norm] = [2, 2 + MATRICES, 2 + MATRICES + VECTORS];
    let [head, fused] = [norm + VECTORS, norm + VECTORS + 1].map(ParamId);
    let rms = |weight: usize| RmsNorm { weight: ParamId(weight), eps: EPS, offset: 0.0 };
    let ids = build.input(Input::Ids);
    build.at("start", None);
    let mut values = vec![build.embed("x", ParamId(0), ids, 0)];
    let mut unread = values.clone();
    let table = build.rope_table("table", Arc::new([1.0, 0.3]));
    let narrow = build.rope_table("narrow", Arc::new([0.7]));
    for idx in 0..n {
        build.at(format!("op{idx}"), (pick(4) > 0).then_some(idx / 4));
        let mut x = || values[pick(values.len())];
        let [a, b, c] = [x(), x(), x()];
        let mut linear = |bias: Option<usize>, transposed: bool| Linear {
            weight: ParamId(matrix + pick(MATRICES)),
            bias: bias.map(ParamId),
            transposed,
        };
        let [plain, turned] = [linear(None, false), linear(None, true)];
        let biased = linear(Some(bias + idx % VECTORS), idx % 2 == 0);
        let curve = [
            Activation::Silu,
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::Relu,
            Activation::Tanh { cap: 1.5 },
        ][pick(5)];
        let causal = Heads::causal(HEADS, HEADS, HEAD_DIM);
        let (read, value) = match pick(15) {
            0 => (vec![], build.embed("embedded", ParamId(pick(2)), ids, pick(2))),
            1 => (vec![a], build.linear("y", a, plain)),
            2 => (vec![a], build.linear("y", a, biased)),
            3 => (vec![a], build.rope("turned", a, table, HEADS, HEAD_DIM)),
            4 => (vec![a, b, c], build.attention("mixed", [a, b, c], causal)),
            5 => (vec![a, b], build.gated("gated", Activation::Silu, a, b)),
            6 => (vec![a, b], build.add("sum", a, b)),
            7 => (vec![a], build.linear("y", a, turned)),
            8 => {
                let weight = ParamId(norm + pick(VECTORS));
                let bias = ParamId(bias + pick(VECTORS));
                (vec![a], build.layer_norm("normed", a, LayerNorm { weight, bias, eps: EPS }))
            }
            9 => (vec![a], build.rms_norm("heads", a, RmsNorm { weight: head, eps: EPS, offset: 1.0 })),
            10 => (vec![a], build.rope("part_turned", a, narrow, HEADS, HEAD_DIM)),
            11 => {
                let all = build.linear("all", a, Linear::new(fused, None));
                // Whole thirds, or a third of each head; perhaps fewer than three of them are read.
                let period = if pick(2) == 0 { 3 * HIDDEN } else { 3 * HEAD_DIM };
                let third = period / 3;
                let part = |build: &mut Builder<'_>, i| build.columns("part", all, i * third, third, period);
                let (first, last) = (part(&mut build, 0), part(&mut build, 2));
                (vec![a], build.gated("gated", curve, first, last))
            }
            12 => (vec![a], build.activate("bent", curve, a)),
            13 => (vec![a], build.scale("scaled", a, 1.5)),
            _ => {
                let heads = Heads { softcap: Some(0.8), window: Some(1 + pick(3)), scale: 0.9, ..causal };
                let heads = Heads { causal: pick(2) == 0, ..heads };
                // A window looks behind only, so one that sees all has none.
                let heads = if heads.causal { heads } else { Heads { window: None, ..heads } };
                (vec![a, b, c], build.attention("mixed", [a, b, c], heads))
            }
        };
        unread.retain(|id| !read.contains(id));
        // Norms keep the numbers where single precision is good.
        let normed = build.rms_norm("norm", value, rms(norm + pick(VECTORS)));
        let keep = pick(3) > 0;
        values.extend([normed].into_iter().chain(keep.then_some(value)));
        unread.extend([normed]);
    }
    build.at("", None);
    let sum = unread.into_iter().reduce(|a, b| build.add("sum", a, b)).unwrap();
    let x = build.rms_norm("last", sum, rms(norm));
    let loss = match pick(3) {
        0 => build.linear_cross_entropy("loss", x, ParamId(pick(2)), 4, Some(2.0)),
        1 => {
            let queries = build.input(Input::Queries);
            let x = build.pick("read", x, queries);
            let logits = build.linear("logits", x, Linear::new(ParamId(pick(2)), None));
            build.cross_entropy("loss", logits)
        }
        _ => build.linear_cross_entropy("loss", x, ParamId(pick(2)), 4, None),
    };
    build.finish(loss)
}

/// The parameters that are in the graph.
fn used(graph: &Graph) -> Vec<ParamId> {
    let param = |role| if let Role::Weight(param) = role { Some(param) } else { None };
    graph.values.iter().filter_map(|value| param(value.role)).collect()
}

fn check(seed: u64, worst: &mut [Worst; 2]) {
    let mut random = Random::new(seed);
    let params = params();
    let graph = graph(&params, 3 + seed as usize % 12, &mut random);
    let weights = params.iter().map(|(name, shape)| {
        let (mean, std) = match name.split_at(4).0 {
            "norm" => (1.0, 0.3),
            "head" => (0.0, 0.3),
            "bias" => (0.0, 0.5),
            _ => (0.0, 1.0 / (HIDDEN as f64).sqrt()),
        };
        (0..shape.iter().product()).map(|_| (mean + std * random.normals()[0]) as f32).collect::<Vec<f32>>()
    });
    let weights: Vec<Vec<f32>> = weights.collect();
    let mut inputs = || Inputs {
        // One less than there are, since some tables are read one further.
        ids: (0..SHAPE.rows()).map(|_| random.below(VOCAB as u64 - 1) as u32).collect(),
        labels: (0..SHAPE.rows()).map(|_| random.below(VOCAB as u64) as u32).collect(),
        positions: (0..SHAPE.batch).flat_map(|_| 0..SHAPE.seq as u32).collect(),
        starts: Some(vec![0, 0, 0, 3, 3, 0, 0, 2, 2, 2]),
        queries: (0..SHAPE.batch).map(|row| (row * SHAPE.seq + 2 * row) as u32).collect(),
        classes: (0..SHAPE.batch).map(|_| random.below(VOCAB as u64) as u32).collect(),
        ..Inputs::default()
    };
    let passes: Vec<(Graph, Inputs)> = (0..3).map(|_| (graph.clone(), inputs())).collect();
    let work = Work { params, weights, passes, tokens: 3.0 * SHAPE.rows() as f64 };
    let used = used(&graph);
    let truth = |n: usize| {
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
    let truths: [Truth; 2] = [1, 3].map(|n| truth(n).unwrap_or_else(|e: candle_core::Error| panic!("{e}")));
    let mut one = |active: &[ParamId], way: Way| {
        let what = |part: &str| format!("graph {seed}, {active:?}, {way:?}: {part}");
        check_step(&work, &truths[usize::from(way.micros > 1)], active, way, what, worst);
    };
    let way = |at: usize| WAYS[(seed as usize + at) % WAYS.len()];
    for (at, param) in used.iter().enumerate() {
        one(&[*param], way(at));
    }
    let some: Vec<ParamId> = used.iter().copied().filter(|param| (seed >> param.0) & 1 == 1).collect();
    if !some.is_empty() {
        one(&some, way(1));
    }
    for at in 0..3 {
        one(&used, way(2 * at));
    }
}

#[test]
fn graphs_of_any_wiring_have_the_gradient_that_autograd_finds() {
    let mut worst = [Worst::default(), Worst::default()];
    (0..40).for_each(|seed| check(seed, &mut worst));
    worst[0].print("gradients");
    worst[1].print("losses");
}
