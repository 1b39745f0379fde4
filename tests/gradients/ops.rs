//! The oracle of single operations: each as its source writes it, in elementary candle operations and 64 bits.
//!
//! Shares with the engine what an operation is called and nothing else. One row of the batch and one head at a time. Nothing
//! here may be fused: candle's fused softmax, norms and rotary positions cut the gradient in silence.

use std::collections::HashMap;

use candle_core::{D, Device, Result, Tensor, Var};
use hift::engine::Inputs;
use hift::program::{Activation, AttentionSpec, Graph, Input, Op, Role, ValueId};

use crate::plain::{cross_entropy, gated, normed, turn};

/// The sum of the cross entropies of `graph`, operation by operation.
pub fn nll(graph: &Graph, weights: &[Var], inputs: &Inputs) -> Result<Tensor> {
    let mut values: HashMap<ValueId, Tensor> = HashMap::new();
    for node in &graph.nodes {
        let input = |at: usize| match graph.value(node.inputs[at]).role {
            Role::Weight(param) => weights[param.0].as_tensor().clone(),
            _ => values[&node.inputs[at]].clone(),
        };
        let brought = |at: usize| match graph.value(node.inputs[at]).role {
            Role::Input(kind) => bring(kind, inputs, graph.value(node.inputs[at]).elements()),
            role => panic!("{role:?} is not brought by the batch"),
        };
        let value = match &node.op {
            Op::Embed { offset } => {
                let rows: Vec<u32> = brought(1).iter().map(|id| id + *offset as u32).collect();
                input(0).index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?
            }
            Op::Linear { bias, transposed } => {
                let weight = if *transposed { input(1) } else { input(1).t()? };
                let y = input(0).matmul(&weight)?;
                if *bias { y.broadcast_add(&input(2))? } else { y }
            }
            Op::RmsNorm { eps, offset } => {
                let (x, weight) = (input(0), (input(1) + f64::from(*offset))?);
                let pieces = x.reshape(((), weight.elem_count()))?;
                normed(&pieces, &weight, f64::from(*eps))?.reshape(x.shape())?
            }
            Op::LayerNorm { eps } => layer_normed(&input(0), &input(1), &input(2), f64::from(*eps))?,
            Op::RopeTable { inv_freq } => {
                let positions = brought(0);
                let angles =
                    positions.iter().flat_map(|at| inv_freq.iter().map(|f| f64::from(*at) * f64::from(*f)));
                let shape = (positions.len(), inv_freq.len());
                let angles = Tensor::from_vec(angles.collect::<Vec<f64>>(), shape, &Device::Cpu)?;
                Tensor::cat(&[angles.cos()?, angles.sin()?], 1)?
            }
            Op::Rope { heads, head_dim, .. } => {
                let (x, table) = (input(0), input(1));
                let turned = table.dim(1)?;
                let half = turned / 2;
                let (cos, sin) = (table.narrow(1, 0, half)?, table.narrow(1, half, half)?);
                let head = |head: usize| {
                    let first = turn(&x.narrow(1, head * head_dim, turned)?, &cos, &sin)?;
                    match head_dim - turned {
                        0 => Ok(first),
                        rest => Tensor::cat(&[first, x.narrow(1, head * head_dim + turned, rest)?], 1),
                    }
                };
                Tensor::cat(&(0..*heads).map(head).collect::<Result<Vec<_>>>()?, 1)?
            }
            Op::Attention(spec) => {
                let starts = spec.packed.then(|| brought(3));
                attention(spec, &input(0), &input(1), &input(2), starts.as_deref())?
            }
            Op::Columns { start, width, period } => {
                let x = input(0);
                let rows = x.dim(0)?;
                x.reshape((rows, (), *period))?
                    .narrow(2, *start, *width)?
                    .contiguous()?
                    .reshape((rows, ()))?
            }
            Op::Activate(activation) => curve(*activation, &input(0))?,
            Op::Gated(Activation::Silu) => gated(&input(0), &input(1))?,
            Op::Gated(activation) => curve(*activation, &input(0))?.mul(&input(1))?,
            Op::Scale { factor } => (input(0) * f64::from(*factor))?,
            Op::Add => (input(0) + input(1))?,
            Op::LinearCrossEntropy { softcap, .. } => {
                let logits = input(0).matmul(&input(1).t()?)?;
                let logits = match softcap {
                    Some(cap) => curve(Activation::Tanh { cap: *cap }, &logits)?,
                    None => logits,
                };
                return Ok(cross_entropy(&logits, &brought(2))?.nll);
            }
            Op::CrossEntropy => return Ok(cross_entropy(&input(0), &brought(1))?.nll),
            Op::SpanCrossEntropy { seq } => {
                let (logits, spans) = (input(0), brought(1));
                let batch = spans.len() / 3;
                let mut sum = Tensor::zeros((), logits.dtype(), &Device::Cpu)?;
                for row in 0..batch {
                    let own = logits.narrow(0, row * seq, spans[2 * batch + row] as usize)?;
                    for side in 0..2 {
                        let column = own.narrow(1, side, 1)?.t()?;
                        sum = (sum + cross_entropy(&column, &[spans[side * batch + row]])?.nll)?;
                    }
                }
                return sum / 2.0;
            }
            Op::SquaredError => {
                let targets = brought(1).into_iter().map(|bits| f64::from(f32::from_bits(bits)));
                let targets = Tensor::from_iter(targets, &Device::Cpu)?.reshape(((), 1))?;
                return input(0).sub(&targets)?.sqr()?.sum_all();
            }
            op => panic!("a forward pass has no {}", op.name()),
        };
        values.insert(node.outputs[0], value);
    }
    panic!("a graph ends with its loss")
}

fn bring(kind: Input, inputs: &Inputs, n: usize) -> Vec<u32> {
    match kind {
        Input::Ids => inputs.ids.clone(),
        Input::Types if inputs.types.is_empty() => vec![0; n],
        Input::Types => inputs.types.clone(),
        Input::Labels => inputs.labels.clone(),
        Input::Positions => inputs.positions.clone(),
        Input::Starts => inputs.starts.clone().expect("the pass has starts"),
        Input::Queries => inputs.queries.clone(),
        Input::Classes => inputs.classes.clone(),
        Input::Targets => inputs.targets.clone(),
        Input::Spans => inputs.spans.clone(),
        Input::Places | Input::Seen | Input::Lengths => panic!("no loss reads what was kept"),
    }
}

/// Source: Ba et al. 2016, "Layer Normalization".
fn layer_normed(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let root = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    centred.broadcast_div(&root)?.broadcast_mul(weight)?.broadcast_add(bias)
}

/// Source: Hendrycks and Gimpel 2016, "Gaussian Error Linear Units", for both of that name.
fn curve(activation: Activation, x: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::Silu => x.div(&(x.neg()?.exp()? + 1.0)?),
        Activation::Gelu => x.mul(&((((x / 2_f64.sqrt())?.erf()? + 1.0)? / 2.0)?)),
        Activation::GeluTanh => {
            let inner = ((x + (x.powf(3.0)? * 0.044715)?)? * (2.0 / std::f64::consts::PI).sqrt())?;
            x.mul(&(((inner.tanh()? + 1.0)? / 2.0)?))
        }
        Activation::Relu => x.relu(),
        Activation::Tanh { cap } => (x / f64::from(cap))?.tanh()? * f64::from(cap),
    }
}

/// Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2; grouped heads: Ainslie et al. 2023, "GQA".
fn attention(
    spec: &AttentionSpec,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    starts: Option<&[u32]>,
) -> Result<Tensor> {
    let AttentionSpec { batch, seq, heads, kv_heads, head_dim, scale, causal, window, softcap, .. } = *spec;
    let mut rows = Vec::new();
    for row in 0..batch {
        let start = |at: usize| starts.map_or(0, |starts| starts[row * seq + at]);
        let sees = |at: usize, other: usize| {
            start(at) == start(other)
                && (!causal || other <= at)
                && window.is_none_or(|window| at < other + window)
        };
        let mask: Vec<f64> = (0..seq)
            .flat_map(|at| (0..seq).map(move |other| if sees(at, other) { 0.0 } else { -1e30 }))
            .collect();
        let mask = Tensor::from_vec(mask, (seq, seq), &Device::Cpu)?;
        let mut columns = Vec::new();
        for head in 0..heads {
            let part = |x: &Tensor, head: usize| {
                x.narrow(0, row * seq, seq)?.narrow(1, head * head_dim, head_dim)?.contiguous()
            };
            let shared = head / (heads / kv_heads);
            let scores = (part(q, head)?.matmul(&part(k, shared)?.t()?)? * f64::from(scale))?;
            let scores = match softcap {
                Some(cap) => curve(Activation::Tanh { cap }, &scores)?,
                None => scores,
            };
            let scores = scores.add(&mask)?;
            let exp = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
            let mixed = exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?.matmul(&part(v, shared)?)?;
            columns.push(mixed);
        }
        rows.push(Tensor::cat(&columns, 1)?); // [seq, heads x head_dim]
    }
    Tensor::cat(&rows, 0)
}
