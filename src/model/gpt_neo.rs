//! The gpt_neo family: gpt2's blocks with projections of their own, scores that are not scaled, and every other block
//! with a window.
//!
//! Sources: Black et al. 2021, "GPT-Neo"; names and configuration keys as in Hugging Face's `GPTNeoForCausalLM`.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::problem::Problem;
use crate::program::builder::Builder;
use crate::program::{Activation, Heads, Input, LayerNorm, Linear, ParamId, ValueId};

use super::decoder::language_head;
use super::params::Params;
use super::{Family, Keys, Parts, Task, wrong};

#[derive(Debug)]
struct GptNeo {
    heads: usize,
    head_dim: usize,
    activation: Activation,
    tokens: ParamId,
    positions: ParamId,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

#[derive(Debug)]
struct Block {
    window: Option<usize>,
    attention_norm: LayerNorm,
    /// Queries, keys, values.
    qkv: [Linear; 3],
    out: Linear,
    mlp_norm: LayerNorm,
    up: Linear,
    down: Linear,
}

pub(super) fn read(keys: &Keys<'_>, task: Task) -> Result<Parts, Problem> {
    let size = |key, default| keys.optional_size(key).map(|size| size.unwrap_or(default));
    let (vocab, positions) = (size("vocab_size", 50257)?, size("max_position_embeddings", 2048)?);
    let (hidden, heads) = (size("hidden_size", 2048)?, size("num_heads", 16)?);
    let ffn = size("intermediate_size", 4 * hidden)?;
    let n_blocks = keys.blocks_or("num_layers", 24)?;
    let eps = keys.number("layer_norm_epsilon", 1e-5)? as f32;
    let std = keys.number("initializer_range", 0.02)? as f32;
    let activation = keys.activation("activation_function", "gelu_new")?;
    let head_dim = keys.head_dim(hidden, heads, "num_heads")?;
    let window = size("window_size", 256)?;
    let local = local_blocks(keys, n_blocks)?;

    let mut params = Params::new(std, "transformer.");
    let tokens = params.matrix("embedding", "transformer.wte.weight", "embedding.tokens", [vocab, hidden]);
    let table =
        params.matrix("embedding", "transformer.wpe.weight", "embedding.positions", [positions, hidden]);
    let mut blocks = Vec::with_capacity(n_blocks);
    for (idx, local) in local.into_iter().enumerate() {
        let layer = &format!("block.{idx}");
        let name = |module: &str| format!("transformer.h.{idx}.{module}");
        let path = |path: &str| format!("{layer}.{path}");
        let norm = |params: &mut Params, module: &str, at: &str| {
            params.layer_norm(layer, &name(module), &path(at), hidden, eps)
        };
        let linear = |params: &mut Params, module: &str, at: &str, shape, bias| {
            params.linear(layer, &name(module), &path(at), shape, bias)
        };
        let square = [hidden, hidden];
        blocks.push(Block {
            window: local.then_some(window),
            attention_norm: norm(&mut params, "ln_1", "norm.attention"),
            qkv: ["q", "k", "v"].map(|part| {
                let module = format!("attn.attention.{part}_proj");
                linear(&mut params, &module, &format!("attention.{part}"), square, false)
            }),
            out: linear(&mut params, "attn.attention.out_proj", "attention.out", square, true),
            mlp_norm: norm(&mut params, "ln_2", "norm.mlp"),
            up: linear(&mut params, "mlp.c_fc", "mlp.up", [ffn, hidden], true),
            down: linear(&mut params, "mlp.c_proj", "mlp.down", [hidden, ffn], true),
        });
    }
    let norm = params.layer_norm("norm", "transformer.ln_f", "norm", hidden, eps);
    let tied = keys.flag("tie_word_embeddings", true)?;
    let names = ["lm_head.weight", "score.weight", "classifier"];
    let head = language_head(&mut params, task, tokens, tied, names, [vocab, hidden], None);
    Ok(Parts {
        family: "gpt_neo",
        params: params.params,
        layers: params.layers,
        tied: head.is(tokens),
        hidden,
        vocab,
        positions,
        both_ways: false,
        head,
        trunk: Arc::new(GptNeo { heads, head_dim, activation, tokens, positions: table, blocks, norm }),
    })
}

/// Which blocks see a window: `attention_types` is `[[["global", "local"], 12]]`, a pattern and how often it comes.
fn local_blocks(keys: &Keys<'_>, n_blocks: usize) -> Result<Vec<bool>, Problem> {
    let Some(types) = keys.get("attention_types") else {
        return Ok((0..n_blocks).map(|idx| idx % 2 == 1).collect());
    };
    let expand = || {
        let mut local = Vec::new();
        for item in types.as_array()? {
            let [pattern, times] = item.as_array()?.as_slice() else { return None };
            let pattern = pattern.as_array()?.iter().map(|word| match word.as_str()? {
                "global" => Some(false),
                "local" => Some(true),
                _ => None,
            });
            let pattern: Vec<bool> = pattern.collect::<Option<_>>()?;
            for _ in 0..times.as_u64()?.min(n_blocks as u64 + 1) {
                local.extend(&pattern);
            }
        }
        Some(local)
    };
    let wanted = format!("patterns of `global` and `local` for {n_blocks} blocks");
    expand().filter(|local: &Vec<bool>| local.len() == n_blocks).ok_or_else(|| {
        let types: &Json = types;
        wrong("attention_types", types, &wanted)
    })
}

impl Family for GptNeo {
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

impl GptNeo {
    /// `x + attention(norm(x))`, then `x + mlp(norm(x))`: `[rows, hidden]` to the same.
    fn block(&self, build: &mut Builder<'_>, idx: usize, block: &Block, x: ValueId) -> ValueId {
        let (heads, window) = (self.heads, block.window);
        build.at(format!("block.{idx}.attention"), Some(idx));
        let h = build.layer_norm("norm", x, block.attention_norm); // [rows, hidden]
        let [q, k, v] = block.qkv;
        let q = build.linear("q", h, q); // [rows, hidden]
        let k = build.linear("k", h, k); // [rows, hidden]
        let v = build.linear("v", h, v); // [rows, hidden]
        let spec = Heads { scale: 1.0, window, ..Heads::causal(heads, heads, self.head_dim) };
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
