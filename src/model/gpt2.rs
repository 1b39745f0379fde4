//! The gpt2 family: pre-norm blocks with learned positions, layer norms and fused queries, keys and values. Matrices are
//! held as `[in, out]`.
//!
//! Sources: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; names and configuration keys as
//! in Hugging Face's `GPT2LMHeadModel`. Checkpoints of the bare trunk leave `transformer.` out.

use std::sync::Arc;

use crate::problem::Problem;
use crate::program::builder::Builder;
use crate::program::{Activation, Heads, Input, LayerNorm, Linear, ParamId, ValueId};

use super::decoder::language_head;
use super::params::Params;
use super::{Family, Keys, Parts, Task};

#[derive(Debug)]
struct Gpt2 {
    hidden: usize,
    heads: usize,
    activation: Activation,
    tokens: ParamId,
    positions: ParamId,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

#[derive(Debug)]
struct Block {
    /// What scores are multiplied by.
    scale: f32,
    attention_norm: LayerNorm,
    qkv: Linear,
    out: Linear,
    mlp_norm: LayerNorm,
    up: Linear,
    down: Linear,
}

pub(super) fn read(keys: &Keys<'_>, task: Task) -> Result<Parts, Problem> {
    let size = |key, default| keys.optional_size(key).map(|size| size.unwrap_or(default));
    let (vocab, positions, hidden) =
        (size("vocab_size", 50257)?, size("n_positions", 1024)?, size("n_embd", 768)?);
    let (heads, ffn) = (size("n_head", 12)?, size("n_inner", 4 * hidden)?);
    let n_blocks = keys.blocks_or("n_layer", 12)?;
    let eps = keys.number("layer_norm_epsilon", 1e-5)? as f32;
    let std = keys.number("initializer_range", 0.02)? as f32;
    let activation = keys.activation("activation_function", "gelu_new")?;
    let head_dim = keys.head_dim(hidden, heads, "n_head")?;
    let scaled = keys.flag("scale_attn_weights", true)?;
    let by_depth = keys.flag("scale_attn_by_inverse_layer_idx", false)?;
    // Two paths of each block add to the residual stream: their fresh matrices are the smaller the more there are.
    let out_std = std / (2.0 * n_blocks as f32).sqrt();

    let mut params = Params::new(std, "transformer.");
    let tokens = params.matrix("embedding", "transformer.wte.weight", "embedding.tokens", [vocab, hidden]);
    let table =
        params.matrix("embedding", "transformer.wpe.weight", "embedding.positions", [positions, hidden]);
    let mut blocks = Vec::with_capacity(n_blocks);
    for idx in 0..n_blocks {
        let layer = &format!("block.{idx}");
        let name = |module: &str| format!("transformer.h.{idx}.{module}");
        let path = |path: &str| format!("{layer}.{path}");
        let norm = |params: &mut Params, module: &str, at: &str| {
            params.layer_norm(layer, &name(module), &path(at), hidden, eps)
        };
        let linear = |params: &mut Params, module: &str, at: &str, shape, std| {
            params.transposed(layer, &name(module), &path(at), shape, std)
        };
        let scale = if scaled { 1.0 / (head_dim as f32).sqrt() } else { 1.0 };
        blocks.push(Block {
            scale: if by_depth { scale / (idx + 1) as f32 } else { scale },
            attention_norm: norm(&mut params, "ln_1", "norm.attention"),
            qkv: linear(&mut params, "attn.c_attn", "attention.qkv", [3 * hidden, hidden], std),
            out: linear(&mut params, "attn.c_proj", "attention.out", [hidden, hidden], out_std),
            mlp_norm: norm(&mut params, "ln_2", "norm.mlp"),
            up: linear(&mut params, "mlp.c_fc", "mlp.up", [ffn, hidden], std),
            down: linear(&mut params, "mlp.c_proj", "mlp.down", [hidden, ffn], out_std),
        });
    }
    let norm = params.layer_norm("norm", "transformer.ln_f", "norm", hidden, eps);
    let tied = keys.flag("tie_word_embeddings", true)?;
    let names = ["lm_head.weight", "score.weight", "classifier"];
    let head = language_head(&mut params, task, tokens, tied, names, [vocab, hidden], None);
    Ok(Parts {
        family: "gpt2",
        params: params.params,
        layers: params.layers,
        tied: head.is(tokens),
        hidden,
        vocab,
        positions,
        both_ways: false,
        head,
        trunk: Arc::new(Gpt2 { hidden, heads, activation, tokens, positions: table, blocks, norm }),
    })
}

impl Family for Gpt2 {
    fn trunk(&self, build: &mut Builder<'_>) -> ValueId {
        let (ids, positions) = (build.input(Input::Ids), build.input(Input::Positions));
        build.at("embedding", None);
        let x = build.embed("tokens", self.tokens, ids, 0); // [rows, hidden]
        let at = build.embed("positions", self.positions, positions, 0); // [rows, hidden]
        let mut x = build.add("x", x, at);
        for (idx, block) in self.blocks.iter().enumerate() {
            x = self.block(build, idx, block, x);
        }
        build.at("", None);
        build.layer_norm("norm", x, self.norm) // [rows, hidden]
    }
}

impl Gpt2 {
    /// `x + attention(norm(x))`, then `x + mlp(norm(x))`: `[rows, hidden]` to the same.
    fn block(&self, build: &mut Builder<'_>, idx: usize, block: &Block, x: ValueId) -> ValueId {
        let (hidden, heads) = (self.hidden, self.heads);
        build.at(format!("block.{idx}.attention"), Some(idx));
        let h = build.layer_norm("norm", x, block.attention_norm); // [rows, hidden]
        let qkv = build.linear("qkv", h, block.qkv); // [rows, 3 x hidden]
        let [q, k, v] = [("q", 0), ("k", 1), ("v", 2)]
            .map(|(name, part)| build.columns(name, qkv, part * hidden, hidden, 3 * hidden));
        let spec = Heads { scale: block.scale, ..Heads::causal(heads, heads, hidden / heads) };
        let h = build.attention("mixed", [q, k, v], spec); // [rows, hidden]
        let h = build.linear("out", h, block.out); // [rows, hidden]
        let x = build.add("x", x, h);

        build.at(format!("block.{idx}.mlp"), Some(idx));
        let h = build.layer_norm("norm", x, block.mlp_norm); // [rows, hidden]
        let h = build.linear("up", h, block.up); // [rows, ffn]
        let h = build.activate("bent", self.activation, h);
        let h = build.linear("down", h, block.down); // [rows, hidden]
        build.add("x", x, h)
    }
}
