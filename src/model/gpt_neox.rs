//! The gpt_neox family, Pythia included: attention and feed-forward that read the same residual stream side by side,
//! queries, keys and values fused head by head, positions that turn a part of each head.
//!
//! Sources: Black et al. 2022, "GPT-NeoX-20B"; Biderman et al. 2023, "Pythia"; names and configuration keys as in Hugging
//! Face's `GPTNeoXForCausalLM`.

use std::sync::Arc;

use crate::problem::Problem;
use crate::program::builder::Builder;
use crate::program::{Activation, Heads, Input, LayerNorm, Linear, ParamId, ValueId};

use super::decoder::language_head;
use super::params::Params;
use super::rope::{Names, Turn, inverse_frequencies};
use super::{Family, Keys, Parts, Task};

#[derive(Debug)]
struct GptNeox {
    heads: usize,
    head_dim: usize,
    activation: Activation,
    /// Attention and feed-forward both read what enters the block.
    parallel: bool,
    turn: Turn,
    tokens: ParamId,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

#[derive(Debug)]
struct Block {
    attention_norm: LayerNorm,
    /// For each head its query, key and value.
    qkv: Linear,
    out: Linear,
    mlp_norm: LayerNorm,
    up: Linear,
    down: Linear,
}

pub(super) fn read(keys: &Keys<'_>, task: Task) -> Result<Parts, Problem> {
    let (vocab, hidden) = (keys.size("vocab_size")?, keys.size("hidden_size")?);
    let (heads, ffn) = (keys.size("num_attention_heads")?, keys.size("intermediate_size")?);
    let positions = keys.optional_size("max_position_embeddings")?.unwrap_or(2048);
    let n_blocks = keys.blocks("num_hidden_layers")?;
    let eps = keys.number("layer_norm_eps", 1e-5)? as f32;
    let std = keys.number("initializer_range", 0.02)? as f32;
    let activation = keys.activation("hidden_act", "gelu")?;
    let bias = keys.flag("attention_bias", true)?;
    let parallel = keys.flag("use_parallel_residual", true)?;
    let head_dim = keys.head_dim(hidden, heads, "num_attention_heads")?;
    let names = Names { theta: "rotary_emb_base", share: "rotary_pct", default_share: 0.25, ..Names::PLAIN };
    let turn = inverse_frequencies(keys, head_dim, &names)?;

    let mut params = Params::new(std, "gpt_neox.");
    let tokens = params.matrix("embedding", "gpt_neox.embed_in.weight", "embedding.tokens", [vocab, hidden]);
    let mut blocks = Vec::with_capacity(n_blocks);
    for idx in 0..n_blocks {
        let layer = &format!("block.{idx}");
        let name = |module: &str| format!("gpt_neox.layers.{idx}.{module}");
        let path = |path: &str| format!("{layer}.{path}");
        let norm = |params: &mut Params, module: &str, at: &str| {
            params.layer_norm(layer, &name(module), &path(at), hidden, eps)
        };
        let linear = |params: &mut Params, module: &str, at: &str, shape, bias| {
            params.linear(layer, &name(module), &path(at), shape, bias)
        };
        blocks.push(Block {
            attention_norm: norm(&mut params, "input_layernorm", "norm.attention"),
            mlp_norm: norm(&mut params, "post_attention_layernorm", "norm.mlp"),
            qkv: linear(
                &mut params,
                "attention.query_key_value",
                "attention.qkv",
                [3 * hidden, hidden],
                bias,
            ),
            out: linear(&mut params, "attention.dense", "attention.out", [hidden, hidden], bias),
            up: linear(&mut params, "mlp.dense_h_to_4h", "mlp.up", [ffn, hidden], true),
            down: linear(&mut params, "mlp.dense_4h_to_h", "mlp.down", [hidden, ffn], true),
        });
    }
    let norm = params.layer_norm("norm", "gpt_neox.final_layer_norm", "norm", hidden, eps);
    let tied = keys.flag("tie_word_embeddings", false)?;
    let names = ["embed_out.weight", "score.weight", "classifier"];
    let head = language_head(&mut params, task, tokens, tied, names, [vocab, hidden], None);
    Ok(Parts {
        family: "gpt_neox",
        params: params.params,
        layers: params.layers,
        tied: head.is(tokens),
        hidden,
        vocab,
        positions,
        both_ways: false,
        head,
        trunk: Arc::new(GptNeox { heads, head_dim, activation, parallel, turn, tokens, blocks, norm }),
    })
}

impl Family for GptNeox {
    fn near(&self) -> Option<usize> {
        self.turn.near()
    }

    fn trunk(&self, build: &mut Builder<'_>) -> ValueId {
        let ids = build.input(Input::Ids);
        build.at("embedding", None);
        let mut x = build.embed("x", self.tokens, ids, 0); // [rows, hidden]
        let table = self.turn.table(build, "rope"); // [rows, turned]
        for (idx, block) in self.blocks.iter().enumerate() {
            x = self.block(build, idx, block, x, table);
        }
        build.at("", None);
        build.layer_norm("norm", x, self.norm) // [rows, hidden]
    }
}

impl GptNeox {
    /// `x + attention(norm(x)) + mlp(norm(x))`, or one after the other: `[rows, hidden]` to the same.
    fn block(
        &self,
        build: &mut Builder<'_>,
        idx: usize,
        block: &Block,
        x: ValueId,
        table: ValueId,
    ) -> ValueId {
        let (heads, head_dim) = (self.heads, self.head_dim);
        build.at(format!("block.{idx}.attention"), Some(idx));
        let h = build.layer_norm("norm", x, block.attention_norm); // [rows, hidden]
        let qkv = build.linear("qkv", h, block.qkv); // [rows, heads x 3 x head_dim]
        let [q, k, v] = [("q", 0), ("k", 1), ("v", 2)]
            .map(|(name, part)| build.columns(name, qkv, part * head_dim, head_dim, 3 * head_dim));
        let q = build.rope("q_turned", q, table, heads, head_dim); // [rows, hidden]
        let k = build.rope("k_turned", k, table, heads, head_dim); // [rows, hidden]
        let h = build.attention("mixed", [q, k, v], Heads::causal(heads, heads, head_dim));
        let h = build.linear("out", h, block.out); // [rows, hidden]
        let after = build.add("x", x, h);

        build.at(format!("block.{idx}.mlp"), Some(idx));
        let read = if self.parallel { x } else { after };
        let h = build.layer_norm("norm", read, block.mlp_norm); // [rows, hidden]
        let h = build.linear("up", h, block.up); // [rows, ffn]
        let h = build.activate("bent", self.activation, h);
        let h = build.linear("down", h, block.down); // [rows, hidden]
        build.add("x", after, h)
    }
}
