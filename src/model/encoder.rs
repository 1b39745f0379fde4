//! What the encoders have in common: post-norm blocks of attention that sees all of a sequence, learned positions, and
//! a class or a number for each sequence, read at its first token, a class for each token, or the ends of an answer.
//!
//! A family's file says what is its own as an [`Encoder`].

use std::sync::Arc;

use crate::program::builder::Builder;
use crate::program::{Activation, Heads, Input, LayerNorm, Linear, ParamId, ValueId};

use super::params::Params;
use super::{Family, Head, Parts, Read, Task};

/// An encoder, described.
pub(super) struct Encoder {
    pub family: &'static str,
    pub hidden: usize,
    pub ffn: usize,
    pub vocab: usize,
    /// Rows of the table of positions, and how many of them no token has.
    pub table: usize,
    pub offset: usize,
    pub n_blocks: usize,
    pub heads: usize,
    pub eps: f32,
    /// The spread of fresh matrices.
    pub std: f32,
    pub activation: Activation,
    pub names: Names,
    pub task: Task,
    /// The layer that a sequence's class is read through, and its function.
    pub dense: Dense,
}

/// What the checkpoint calls the trunk's modules.
pub(super) struct Names {
    /// What a checkpoint of the bare trunk leaves out: `bert.`
    pub prefix: &'static str,
    /// Parts of a pair have embeddings of their own; so many.
    pub types: Option<usize>,
    /// The list of blocks: `bert.encoder.layer`
    pub blocks: &'static str,
    /// Queries, keys, values, the attention's output.
    pub attention: [&'static str; 4],
    pub attention_norm: &'static str,
    /// Up and down.
    pub mlp: [&'static str; 2],
    pub mlp_norm: &'static str,
    /// Of sequences. That of tokens is called `classifier` everywhere.
    pub classifier: &'static str,
}

/// The layer between the trunk and the classes.
pub(super) struct Dense {
    /// The schedule's layer that it belongs to: `pooler`, if checkpoints of the trunk have it, else `head`.
    pub layer: &'static str,
    pub name: &'static str,
    pub activation: Activation,
}

impl Encoder {
    /// The parameters and the forward pass.
    pub fn parts(self) -> Parts {
        let Self { hidden, ffn, eps, .. } = self;
        let Names { prefix, types, attention, mlp, .. } = self.names;
        let mut params = Params::new(self.std, prefix);
        let table = |params: &mut Params, name: &str, path: &str, rows: usize| {
            let name = format!("{prefix}embeddings.{name}.weight");
            params.matrix("embedding", &name, &format!("embedding.{path}"), [rows, hidden])
        };
        let tokens = table(&mut params, "word_embeddings", "tokens", self.vocab);
        let positions = table(&mut params, "position_embeddings", "positions", self.table);
        let types = types.map(|types| table(&mut params, "token_type_embeddings", "types", types));
        let name = format!("{prefix}embeddings.LayerNorm");
        let norm = params.layer_norm("embedding", &name, "embedding.norm", hidden, eps);
        let mut blocks = Vec::with_capacity(self.n_blocks);
        for idx in 0..self.n_blocks {
            let layer = &format!("block.{idx}");
            let name = |module: &str| format!("{}.{idx}.{module}", self.names.blocks);
            let path = |path: &str| format!("{layer}.{path}");
            let linear = |params: &mut Params, module: &str, at: &str, shape| {
                params.linear(layer, &name(module), &path(at), shape, true)
            };
            let norm = |params: &mut Params, module: &str, at: &str| {
                params.layer_norm(layer, &name(module), &path(at), hidden, eps)
            };
            let [q, k, v, out] = [0, 1, 2, 3].map(|i| {
                let part = ["attention.q", "attention.k", "attention.v", "attention.out"][i];
                linear(&mut params, attention[i], part, [hidden, hidden])
            });
            blocks.push(Block {
                qkv: [q, k, v],
                out,
                attention_norm: norm(&mut params, self.names.attention_norm, "norm.attention"),
                up: linear(&mut params, mlp[0], "mlp.up", [ffn, hidden]),
                down: linear(&mut params, mlp[1], "mlp.down", [hidden, ffn]),
                mlp_norm: norm(&mut params, self.names.mlp_norm, "norm.mlp"),
            });
        }
        let from = params.params.len();
        let head = match self.task {
            Task::Sequence(target) => {
                let Dense { layer, name, activation } = self.dense;
                let dense = params.linear(layer, name, &format!("{layer}.dense"), [hidden, hidden], true);
                let shape = [target.width(), hidden];
                let out = params.linear("head", self.names.classifier, "head.classes", shape, true);
                Head::Sequence { target, read: Read::First, dense: Some((dense, activation)), out }
            }
            Task::Tokens(classes) => {
                let shape = [classes.len(), hidden];
                let out = params.linear("head", "classifier", "head.classes", shape, true);
                Head::Labels { classes, out }
            }
            Task::Span => {
                Head::Span { out: params.linear("head", "qa_outputs", "head.ends", [2, hidden], true) }
            }
            Task::NextToken => unreachable!("no encoder's tasks have it"),
        };
        params.may_be_missing(from);
        // Checkpoints that were converted from TensorFlow keep its words.
        for param in &mut params.params {
            for (ours, theirs) in
                [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")]
            {
                if param.name.ends_with(ours) {
                    let names = [&param.name[..]].into_iter().chain(param.aliases.iter().map(String::as_str));
                    let old: Vec<String> = names.map(|name| name.replace(ours, theirs)).collect();
                    param.aliases.extend(old);
                }
            }
        }
        Parts {
            family: self.family,
            params: params.params,
            layers: params.layers,
            tied: false,
            hidden,
            vocab: self.vocab,
            positions: self.table - self.offset,
            both_ways: true,
            head,
            trunk: Arc::new(Trunk {
                heads: self.heads,
                head_dim: hidden / self.heads,
                activation: self.activation,
                offset: self.offset,
                tokens,
                positions,
                types,
                norm,
                blocks,
            }),
        }
    }
}

#[derive(Debug)]
struct Trunk {
    heads: usize,
    head_dim: usize,
    activation: Activation,
    offset: usize,
    tokens: ParamId,
    positions: ParamId,
    types: Option<ParamId>,
    norm: LayerNorm,
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    /// Queries, keys, values.
    qkv: [Linear; 3],
    out: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    mlp_norm: LayerNorm,
}

impl Family for Trunk {
    fn trunk(&self, build: &mut Builder<'_>) -> ValueId {
        let (ids, positions) = (build.input(Input::Ids), build.input(Input::Positions));
        build.at("embedding", None);
        let mut x = build.embed("tokens", self.tokens, ids, 0); // [rows, hidden]
        if let Some(table) = self.types {
            let types = build.input(Input::Types);
            let types = build.embed("types", table, types, 0); // [rows, hidden]
            x = build.add("typed", x, types);
        }
        let at = build.embed("positions", self.positions, positions, self.offset); // [rows, hidden]
        let x = build.add("sum", x, at);
        let mut x = build.layer_norm("x", x, self.norm);
        for (idx, block) in self.blocks.iter().enumerate() {
            x = self.block(build, idx, block, x);
        }
        x
    }
}

impl Trunk {
    /// `norm(x + attention(x))`, then `norm(x + mlp(x))`: `[rows, hidden]` to the same.
    fn block(&self, build: &mut Builder<'_>, idx: usize, block: &Block, x: ValueId) -> ValueId {
        let heads = self.heads;
        build.at(format!("block.{idx}.attention"), Some(idx));
        let [q, k, v] = block.qkv;
        let q = build.linear("q", x, q); // [rows, hidden]
        let k = build.linear("k", x, k); // [rows, hidden]
        let v = build.linear("v", x, v); // [rows, hidden]
        let spec = Heads { causal: false, ..Heads::causal(heads, heads, self.head_dim) };
        let h = build.attention("mixed", [q, k, v], spec); // [rows, hidden]
        let h = build.linear("out", h, block.out); // [rows, hidden]
        let x = build.add("sum", x, h);
        let x = build.layer_norm("x", x, block.attention_norm);

        build.at(format!("block.{idx}.mlp"), Some(idx));
        let h = build.linear("up", x, block.up); // [rows, ffn]
        let h = build.activate("bent", self.activation, h);
        let h = build.linear("down", h, block.down); // [rows, hidden]
        let x = build.add("sum", x, h);
        build.layer_norm("x", x, block.mlp_norm)
    }
}
