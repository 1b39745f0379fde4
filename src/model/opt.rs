//! The opt family: blocks with learned positions that count from two, layer norms before or (350m) after attention and
//! feed-forward; embeddings may be narrower than hidden (350m), with a projection in and out.
//!
//! Sources: Zhang et al. 2022, "OPT: Open Pre-trained Transformer Language Models"; names and configuration keys as in Hugging
//! Face's `OPTForCausalLM`.

use std::sync::Arc;

use crate::problem::Problem;
use crate::program::builder::Builder;
use crate::program::{Activation, Heads, Input, LayerNorm, Linear, ParamId, ValueId};

use super::decoder::language_head;
use super::params::Params;
use super::{Family, Keys, Parts, Task, unsupported};

/// Rows of the table of positions that no token has.
const OFFSET: usize = 2;

/// Of PyTorch's layer norms, which the configuration does not name.
const EPS: f32 = 1e-5;

#[derive(Debug)]
struct Opt {
    heads: usize,
    head_dim: usize,
    activation: Activation,
    /// Norms stand before attention and feed-forward, not after the sum.
    before: bool,
    tokens: ParamId,
    positions: ParamId,
    project_in: Option<Linear>,
    blocks: Vec<Block>,
    norm: Option<LayerNorm>,
    project_out: Option<Linear>,
}

#[derive(Debug)]
struct Block {
    attention_norm: LayerNorm,
    /// Queries, keys, values.
    qkv: [Linear; 3],
    out: Linear,
    mlp_norm: LayerNorm,
    up: Linear,
    down: Linear,
}

pub(super) fn read(keys: &Keys<'_>, task: Task) -> Result<Parts, Problem> {
    let (vocab, hidden) = (keys.size("vocab_size")?, keys.size("hidden_size")?);
    let (heads, ffn) = (keys.size("num_attention_heads")?, keys.size("ffn_dim")?);
    let positions = keys.optional_size("max_position_embeddings")?.unwrap_or(2048);
    let width = keys.optional_size("word_embed_proj_dim")?.unwrap_or(hidden);
    let n_blocks = keys.blocks("num_hidden_layers")?;
    let std = keys.number("init_std", 0.02)? as f32;
    let activation = keys.activation("activation_function", "relu")?;
    let bias = keys.flag("enable_bias", true)?;
    let before = keys.flag("do_layer_norm_before", true)?;
    let last_norm = before && !keys.flag("_remove_final_layer_norm", false)?;
    if !keys.flag("layer_norm_elementwise_affine", true)? {
        return Err(unsupported("layer_norm_elementwise_affine", "false", "true"));
    }
    let head_dim = keys.head_dim(hidden, heads, "num_attention_heads")?;

    let mut params = Params::new(std, "model.");
    let tokens =
        params.matrix("embedding", "model.decoder.embed_tokens.weight", "embedding.tokens", [vocab, width]);
    let table = params.matrix(
        "embedding",
        "model.decoder.embed_positions.weight",
        "embedding.positions",
        [positions + OFFSET, hidden],
    );
    let project = |params: &mut Params, layer: &str, name: &str, path: &str, shape| {
        let name = format!("model.decoder.{name}");
        (width != hidden).then(|| params.linear(layer, &name, path, shape, false))
    };
    let project_in = project(&mut params, "embedding", "project_in", "embedding.projection", [hidden, width]);
    let mut blocks = Vec::with_capacity(n_blocks);
    for idx in 0..n_blocks {
        let layer = &format!("block.{idx}");
        let name = |module: &str| format!("model.decoder.layers.{idx}.{module}");
        let path = |path: &str| format!("{layer}.{path}");
        let norm = |params: &mut Params, module: &str, at: &str| {
            params.layer_norm(layer, &name(module), &path(at), hidden, EPS)
        };
        let linear = |params: &mut Params, module: &str, at: &str, shape| {
            params.linear(layer, &name(module), &path(at), shape, bias)
        };
        blocks.push(Block {
            qkv: ["q", "k", "v"].map(|part| {
                let module = format!("self_attn.{part}_proj");
                linear(&mut params, &module, &format!("attention.{part}"), [hidden, hidden])
            }),
            out: linear(&mut params, "self_attn.out_proj", "attention.out", [hidden, hidden]),
            attention_norm: norm(&mut params, "self_attn_layer_norm", "norm.attention"),
            up: linear(&mut params, "fc1", "mlp.up", [ffn, hidden]),
            down: linear(&mut params, "fc2", "mlp.down", [hidden, ffn]),
            mlp_norm: norm(&mut params, "final_layer_norm", "norm.mlp"),
        });
    }
    let norm =
        last_norm.then(|| params.layer_norm("norm", "model.decoder.final_layer_norm", "norm", hidden, EPS));
    let project_out = project(&mut params, "norm", "project_out", "norm.projection", [width, hidden]);
    let tied = keys.flag("tie_word_embeddings", true)?;
    let names = ["lm_head.weight", "score.weight", "classifier"];
    let head = language_head(&mut params, task, tokens, tied, names, [vocab, width], None);
    Ok(Parts {
        family: "opt",
        params: params.params,
        layers: params.layers,
        tied: head.is(tokens),
        hidden,
        vocab,
        positions,
        both_ways: false,
        head,
        trunk: Arc::new(Opt {
            heads,
            head_dim,
            activation,
            before,
            tokens,
            positions: table,
            project_in,
            blocks,
            norm,
            project_out,
        }),
    })
}

impl Family for Opt {
    fn trunk(&self, build: &mut Builder<'_>) -> ValueId {
        let (ids, positions) = (build.input(Input::Ids), build.input(Input::Positions));
        build.at("embedding", None);
        let mut x = build.embed("tokens", self.tokens, ids, 0); // [rows, width]
        if let Some(linear) = self.project_in {
            x = build.linear("projected", x, linear); // [rows, hidden]
        }
        let at = build.embed("positions", self.positions, positions, OFFSET); // [rows, hidden]
        let mut x = build.add("x", x, at);
        for (idx, block) in self.blocks.iter().enumerate() {
            x = self.block(build, idx, block, x);
        }
        build.at("", None);
        if let Some(norm) = self.norm {
            x = build.layer_norm("norm", x, norm); // [rows, hidden]
        }
        match self.project_out {
            Some(linear) => build.linear("projected", x, linear), // [rows, width]
            None => x,
        }
    }
}

impl Opt {
    /// `x + attention(norm(x))`, then `x + mlp(norm(x))`, or `norm(x + attention(x))`, then `norm(x + mlp(x))`: `[rows, hidden]`
    /// to the same.
    fn block(&self, build: &mut Builder<'_>, idx: usize, block: &Block, x: ValueId) -> ValueId {
        let heads = self.heads;
        let norm = |build: &mut Builder<'_>, here: bool, x: ValueId, norm: LayerNorm| match here {
            true => build.layer_norm("norm", x, norm),
            false => x,
        };
        build.at(format!("block.{idx}.attention"), Some(idx));
        let h = norm(build, self.before, x, block.attention_norm); // [rows, hidden]
        let [q, k, v] = block.qkv;
        let q = build.linear("q", h, q); // [rows, hidden]
        let k = build.linear("k", h, k); // [rows, hidden]
        let v = build.linear("v", h, v); // [rows, hidden]
        let h = build.attention("mixed", [q, k, v], Heads::causal(heads, heads, self.head_dim));
        let h = build.linear("out", h, block.out); // [rows, hidden]
        let x = build.add("x", x, h);
        let x = norm(build, !self.before, x, block.attention_norm);

        build.at(format!("block.{idx}.mlp"), Some(idx));
        let h = norm(build, self.before, x, block.mlp_norm); // [rows, hidden]
        let h = build.linear("up", h, block.up); // [rows, ffn]
        let h = build.activate("bent", self.activation, h);
        let h = build.linear("down", h, block.down); // [rows, hidden]
        let x = build.add("x", x, h);
        norm(build, !self.before, x, block.mlp_norm)
    }
}
