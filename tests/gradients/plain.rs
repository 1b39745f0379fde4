//! The oracle: llama's forward pass as its papers write it, in elementary candle operations and 64 bits.
//!
//! Shares the configuration and the weights' names with the program, and no code. One row of the batch and one head at a
//! time. Nothing here may be fused: candle's fused softmax, norms and rotary positions cut the gradient in silence.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use hift::engine::Inputs;
use hift::model::Model;
use hift::program::BatchShape;
use serde_json::Value as Json;

/// The numbers of a micro-batch.
#[derive(Clone)]
pub struct Micro {
    pub shape: BatchShape,
    pub inputs: Inputs,
}

pub struct Plain<'a> {
    model: &'a Model,
    weights: HashMap<&'a str, Var>,
}

/// What one forward pass gives, as sums over the tokens that count.
pub struct Sums {
    /// Cross entropies.
    pub nll: Tensor,
    /// Labels that are the first choice.
    pub correct: f64,
}

impl<'a> Plain<'a> {
    /// `weights` in the order of the model's parameters.
    pub fn new(model: &'a Model, weights: &[Vec<f32>]) -> Result<Self> {
        let wide = |numbers: &[f32]| numbers.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
        let vars = model.params.iter().zip(weights).map(|(param, numbers)| {
            let tensor = Tensor::from_vec(wide(numbers), param.shape.as_slice(), &Device::Cpu)?;
            Ok((param.name.as_str(), Var::from_tensor(&tensor)?))
        });
        Ok(Self { model, weights: vars.collect::<Result<_>>()? })
    }

    /// The gradient of `loss` by every parameter.
    pub fn gradients(&self, loss: &Tensor) -> Result<Vec<Vec<f64>>> {
        let gradients = loss.backward()?;
        let of = |name: &str| {
            let gradient = gradients.get(self.weight(name)).expect("every parameter has a gradient");
            gradient.flatten_all()?.to_vec1()
        };
        self.model.params.iter().map(|param| of(&param.name)).collect()
    }

    pub fn sums(&self, micro: &Micro) -> Result<Sums> {
        cross_entropy(&self.logits(micro)?, &micro.inputs.labels)
    }

    /// `[rows, vocab]`
    pub fn logits(&self, micro: &Micro) -> Result<Tensor> {
        let ids = Tensor::new(micro.inputs.ids.as_slice(), &Device::Cpu)?;
        let mut x = self.weight("model.embed_tokens.weight").index_select(&ids, 0)?; // [rows, hidden]
        for block in 0..self.size("num_hidden_layers").unwrap() {
            let name = |module: &str| format!("model.layers.{block}.{module}");
            let h = self.norm(&x, &name("input_layernorm"))?;
            x = (&x + self.attention(&h, &name("self_attn"), micro)?)?;
            let h = self.norm(&x, &name("post_attention_layernorm"))?;
            x = (&x + self.mlp(&h, &name("mlp"))?)?;
        }
        let x = self.norm(&x, "model.norm")?;
        let head = if self.model.tied { "model.embed_tokens" } else { "lm_head" };
        self.linear(&x, head)
    }

    /// Grouped heads: Ainslie et al. 2023, "GQA".
    fn attention(&self, x: &Tensor, module: &str, micro: &Micro) -> Result<Tensor> {
        let heads = self.size("num_attention_heads").unwrap();
        let kv_heads = self.size("num_key_value_heads").unwrap_or(heads);
        let head_dim = self.size("head_dim").unwrap_or(self.model.hidden / heads);
        let BatchShape { batch, seq, .. } = micro.shape;
        let q = self.linear(x, &format!("{module}.q_proj"))?; // [rows, heads x head_dim]
        let k = self.linear(x, &format!("{module}.k_proj"))?; // [rows, kv_heads x head_dim]
        let v = self.linear(x, &format!("{module}.v_proj"))?; // [rows, kv_heads x head_dim]
        let mut rows = Vec::new();
        for row in 0..batch {
            let (from, to) = (row * seq, (row + 1) * seq);
            let mask = mask(micro.inputs.starts.as_ref().map(|starts| &starts[from..to]), seq)?;
            let (cos, sin) = self.turns(&micro.inputs.positions[from..to], head_dim)?;
            let mut columns = Vec::new();
            for head in 0..heads {
                let part = |x: &Tensor, head: usize| {
                    x.narrow(0, from, seq)?.narrow(1, head * head_dim, head_dim)?.contiguous()
                };
                let shared = head / (heads / kv_heads);
                let q = turn(&part(&q, head)?, &cos, &sin)?; // [seq, head_dim]
                let k = turn(&part(&k, shared)?, &cos, &sin)?; // [seq, head_dim]
                columns.push(attend(&q, &k, &part(&v, shared)?, &mask)?);
            }
            rows.push(Tensor::cat(&columns, 1)?); // [seq, heads x head_dim]
        }
        self.linear(&Tensor::cat(&rows, 0)?, &format!("{module}.o_proj"))
    }

    fn mlp(&self, x: &Tensor, module: &str) -> Result<Tensor> {
        let gate = self.linear(x, &format!("{module}.gate_proj"))?;
        let up = self.linear(x, &format!("{module}.up_proj"))?;
        self.linear(&gated(&gate, &up)?, &format!("{module}.down_proj"))
    }

    fn norm(&self, x: &Tensor, module: &str) -> Result<Tensor> {
        let eps = self.model.config.get("rms_norm_eps").and_then(Json::as_f64).unwrap_or(1e-6);
        normed(x, self.weight(&format!("{module}.weight")), eps)
    }

    fn linear(&self, x: &Tensor, module: &str) -> Result<Tensor> {
        let y = x.matmul(&self.weight(&format!("{module}.weight")).t()?)?;
        match self.weights.get(format!("{module}.bias").as_str()) {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    fn weight(&self, name: &str) -> &Var {
        self.weights.get(name).unwrap_or_else(|| panic!("the model has no {name}"))
    }

    fn size(&self, key: &str) -> Option<usize> {
        self.model.config.get(key)?.as_u64().map(|size| size as usize)
    }

    /// Cosines and sines of position x frequency, `[seq, head_dim / 2]`.
    fn turns(&self, positions: &[u32], head_dim: usize) -> Result<(Tensor, Tensor)> {
        let frequencies = frequencies(&self.model.config, head_dim);
        let shape = (positions.len(), frequencies.len());
        let angles: Vec<f64> =
            positions.iter().flat_map(|at| frequencies.iter().map(move |f| f64::from(*at) * f)).collect();
        let angles = Tensor::from_vec(angles, shape, &Device::Cpu)?;
        Ok((angles.cos()?, angles.sin()?))
    }
}

/// `logits` are `[rows, vocab]`; a label of `u32::MAX` does not count.
pub fn cross_entropy(logits: &Tensor, labels: &[u32]) -> Result<Sums> {
    let vocab = logits.dim(1)?;
    let mut wanted = vec![0.0; labels.len() * vocab];
    for (row, label) in labels.iter().enumerate().filter(|(_, label)| **label != u32::MAX) {
        wanted[row * vocab + *label as usize] = 1.0;
    }
    let wanted = Tensor::from_vec(wanted, logits.shape(), &Device::Cpu)?; // [rows, vocab]
    let max = logits.max_keepdim(D::Minus1)?.detach();
    let log_sum = logits.broadcast_sub(&max)?.exp()?.sum_keepdim(D::Minus1)?.log()?.broadcast_add(&max)?;
    let nll = log_sum.broadcast_sub(logits)?.mul(&wanted)?.sum_all()?;
    let first = logits.broadcast_eq(&max)?.to_dtype(DType::F64)?;
    Ok(Sums { nll, correct: first.mul(&wanted)?.sum_all()?.to_scalar()? })
}

/// One head of one row, all `[seq, head_dim]`. Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let scores = (q.matmul(&k.t()?)? / (q.dim(1)? as f64).sqrt())?.add(mask)?; // [seq, seq]
    let exp = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?.matmul(v)
}

/// Source: Shazeer 2020, "GLU Variants Improve Transformer", section 2.
pub fn gated(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.div(&(gate.neg()?.exp()? + 1.0)?)?.mul(up)
}

/// Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization".
pub fn normed(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let root = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    x.broadcast_div(&root)?.broadcast_mul(weight)
}

/// Source: Su et al. 2021, RoFormer, equation 34, over pairs that stand half a head apart.
pub fn turn(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let half = x.dim(1)? / 2;
    let (a, b) = (x.narrow(1, 0, half)?, x.narrow(1, half, half)?);
    Tensor::cat(&[(a.mul(cos)? - b.mul(sin)?)?, (b.mul(cos)? + a.mul(sin)?)?], 1)
}

/// Zero where a position (row) sees another (column), and next to minus infinity elsewhere.
pub fn mask(starts: Option<&[u32]>, seq: usize) -> Result<Tensor> {
    let first = |at: usize| starts.map_or(0, |starts| starts[at] as usize);
    let sees = |at: usize, other: usize| (first(at)..=at).contains(&other);
    let mask: Vec<f64> = (0..seq)
        .flat_map(|at| (0..seq).map(move |other| if sees(at, other) { 0.0 } else { -1e30 }))
        .collect();
    Tensor::from_vec(mask, (seq, seq), &Device::Cpu)
}

/// Source: the functions `_compute_*_parameters` of transformers' `modeling_rope_utils.py`.
fn frequencies(config: &serde_json::Map<String, Json>, head_dim: usize) -> Vec<f64> {
    let scaling = config.get("rope_parameters").or(config.get("rope_scaling")).unwrap_or(&Json::Null);
    let number = |key: &str| scaling[key].as_f64().unwrap_or_else(|| panic!("rope has no {key}"));
    let theta = scaling["rope_theta"].as_f64().or(config.get("rope_theta").and_then(Json::as_f64));
    let base = |pair: usize| theta.unwrap_or(10_000.0).powf(-2.0 * pair as f64 / head_dim as f64);
    let scaled = |frequency: f64| match scaling["rope_type"].as_str().or(scaling["type"].as_str()) {
        None | Some("default") => frequency,
        Some("linear") => frequency / number("factor"),
        Some("llama3") => {
            let context = number("original_max_position_embeddings");
            // How often the pair turns within the context it was trained with.
            let turns = context * frequency / (2.0 * std::f64::consts::PI);
            let (low, high) = (number("low_freq_factor"), number("high_freq_factor"));
            let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            keep * frequency + (1.0 - keep) * frequency / number("factor")
        }
        Some(other) => panic!("{other} is not known to the oracle"),
    };
    (0..head_dim / 2).map(|pair| scaled(base(pair))).collect()
}
