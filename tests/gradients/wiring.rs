//! Graphs that no model has: values read several times, weights used several times, in an order that chance decides.
//! The rules and the passes must hold for what a later family may build, not for llama's wiring alone.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};
use hift::engine::Inputs;
use hift::program::{BatchShape, Builder, Graph, Input, Op, ParamId, Role, ValueId};
use hift::random::Random;

use crate::plain::{attend, cross_entropy, gated, mask, normed, turn};
use crate::{Truth, WAYS, Way, Work, Worst, check_step};

const SHAPE: BatchShape = BatchShape { batch: 2, seq: 5, packed: false };
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
    ]
    .concat()
}

/// A graph of about `n` operations. What nothing reads in the end is added up, so every parameter in it counts.
fn graph(params: &[(String, Vec<usize>)], n: usize, random: &mut Random) -> Graph {
    let mut build = Builder::new(params, SHAPE);
    let mut pick = |n: usize| random.below(n as u64) as usize;
    let [matrix, bias, norm] = [2, 2 + MATRICES, 2 + MATRICES + VECTORS];
    let ids = build.input(Input::Ids);
    build.at("start", None);
    let mut values = vec![build.embed("x", ParamId(0), ids)];
    let mut unread = values.clone();
    let table = build.rope_table("table", Arc::new([1.0, 0.3]));
    for idx in 0..n {
        build.at(format!("op{idx}"), (pick(4) > 0).then_some(idx / 4));
        let mut x = || values[pick(values.len())];
        let [a, b, c] = [x(), x(), x()];
        let (read, value) = match pick(7) {
            0 => (vec![], build.embed("embedded", ParamId(pick(2)), ids)),
            1 => (vec![a], build.linear("y", a, ParamId(matrix + pick(MATRICES)), None)),
            2 => {
                let bias = ParamId(bias + pick(VECTORS));
                (vec![a], build.linear("y", a, ParamId(matrix + pick(MATRICES)), Some(bias)))
            }
            3 => (vec![a], build.rope("turned", a, table, HEADS, HEAD_DIM)),
            4 => (vec![a, b, c], build.attention("mixed", [a, b, c], HEADS, HEADS, HEAD_DIM)),
            5 => (vec![a, b], build.swiglu("gated", a, b)),
            _ => (vec![a, b], build.add("sum", a, b)),
        };
        unread.retain(|id| !read.contains(id));
        // Norms keep the numbers where single precision is good.
        let normed = build.rms_norm("norm", value, ParamId(norm + pick(VECTORS)), EPS);
        let keep = pick(3) > 0;
        values.extend([normed].into_iter().chain(keep.then_some(value)));
        unread.extend([normed]);
    }
    build.at("", None);
    let sum = unread.into_iter().reduce(|a, b| build.add("sum", a, b)).unwrap();
    let x = build.rms_norm("last", sum, ParamId(norm), EPS);
    let loss = build.linear_cross_entropy("loss", x, ParamId(pick(2)), 4);
    build.finish(loss)
}

/// The sum of the cross entropies of `graph`, operation by operation.
fn nll(graph: &Graph, weights: &[Var], inputs: &Inputs) -> Result<Tensor> {
    let mut values: HashMap<ValueId, Tensor> = HashMap::new();
    for node in &graph.nodes {
        let input = |at: usize| match graph.value(node.inputs[at]).role {
            Role::Weight(param) => weights[param.0].as_tensor().clone(),
            _ => values[&node.inputs[at]].clone(),
        };
        let value = match &node.op {
            Op::Embed => input(0).index_select(&Tensor::new(inputs.ids.as_slice(), &Device::Cpu)?, 0)?,
            Op::Linear { bias } => {
                let y = input(0).matmul(&input(1).t()?)?;
                if *bias { y.broadcast_add(&input(2))? } else { y }
            }
            Op::RmsNorm { eps } => normed(&input(0), &input(1), f64::from(*eps))?,
            Op::RopeTable { inv_freq } => {
                let at = inputs.positions.iter();
                let angles = at.flat_map(|at| inv_freq.iter().map(|f| f64::from(*at) * f64::from(*f)));
                let shape = (SHAPE.rows(), inv_freq.len());
                let angles = Tensor::from_vec(angles.collect::<Vec<f64>>(), shape, &Device::Cpu)?;
                Tensor::cat(&[angles.cos()?, angles.sin()?], 1)?
            }
            Op::Rope { .. } => {
                let half = HEAD_DIM / 2;
                let (cos, sin) = (input(1).narrow(1, 0, half)?, input(1).narrow(1, half, half)?);
                let turned = |head| turn(&input(0).narrow(1, head * HEAD_DIM, HEAD_DIM)?, &cos, &sin);
                Tensor::cat(&(0..HEADS).map(turned).collect::<Result<Vec<_>>>()?, 1)?
            }
            Op::Attention(_) => {
                let one = |row: usize, head: usize| {
                    let part = |at| {
                        let x = input(at).narrow(0, row * SHAPE.seq, SHAPE.seq)?;
                        x.narrow(1, head * HEAD_DIM, HEAD_DIM)?.contiguous()
                    };
                    attend(&part(0)?, &part(1)?, &part(2)?, &mask(None, SHAPE.seq)?)
                };
                let row =
                    |row| Tensor::cat(&(0..HEADS).map(|head| one(row, head)).collect::<Result<Vec<_>>>()?, 1);
                Tensor::cat(&(0..SHAPE.batch).map(row).collect::<Result<Vec<_>>>()?, 0)?
            }
            Op::SwiGlu => gated(&input(0), &input(1))?,
            Op::Add => (input(0) + input(1))?,
            Op::LinearCrossEntropy { .. } => {
                return Ok(cross_entropy(&input(0).matmul(&input(1).t()?)?, &inputs.labels)?.nll);
            }
            op => panic!("the graphs here have no {}", op.name()),
        };
        values.insert(node.outputs[0], value);
    }
    panic!("a graph ends with its loss")
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
            "bias" => (0.0, 0.5),
            _ => (0.0, 1.0 / (HIDDEN as f64).sqrt()),
        };
        (0..shape.iter().product()).map(|_| (mean + std * random.normals()[0]) as f32).collect::<Vec<f32>>()
    });
    let weights: Vec<Vec<f32>> = weights.collect();
    let mut inputs = || Inputs {
        ids: (0..SHAPE.rows()).map(|_| random.below(VOCAB as u64) as u32).collect(),
        labels: (0..SHAPE.rows()).map(|_| random.below(VOCAB as u64) as u32).collect(),
        positions: (0..SHAPE.batch).flat_map(|_| 0..SHAPE.seq as u32).collect(),
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
