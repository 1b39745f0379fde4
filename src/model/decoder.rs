//! What the rotary decoders have in common: blocks of causal attention with grouped heads, positions that turn
//! queries and keys, a gated feed-forward, root-mean-square norms.
//!
//! A family's file says what is its own as a [`Decoder`]; names are those of Hugging Face's `LlamaForCausalLM`, which all
//! of them share.

use std::sync::Arc;

use crate::problem::Problem;
use crate::program::builder::Builder;
use crate::program::{Activation, Heads, Input, Linear, ParamId, RmsNorm, ValueId};

use super::params::Params;
use super::rope::Turn;
use super::{Family, Head, Keys, Parts, Read, Task, unsupported};

/// A rotary decoder, described.
pub(super) struct Decoder {
    pub family: &'static str,
    pub hidden: usize,
    pub ffn: usize,
    pub vocab: usize,
    pub positions: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    pub eps: f32,
    /// The spread of fresh matrices.
    pub std: f32,
    pub tied: bool,
    /// Biases of queries, keys and values; of the attention's output; of the feed-forward.
    pub biases: [bool; 3],
    pub projections: Projections,
    pub norms: Norms,
    /// What is added to a norm's weight.
    pub norm_offset: f32,
    pub head_norms: HeadNorms,
    pub activation: Activation,
    /// What embeddings are multiplied by.
    pub embedding_scale: Option<f32>,
    /// Where scores and logits are bent to stay below.
    pub score_cap: Option<f32>,
    pub logit_cap: Option<f32>,
    /// Frequencies of positions, each kind once.
    pub frequencies: Vec<Turn>,
    pub blocks: Vec<BlockKind>,
}

/// What differs from block to block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockKind {
    /// How many positions a position sees, itself among them.
    pub window: Option<usize>,
    /// Which of the decoder's frequencies its positions turn with.
    pub frequencies: usize,
}

/// How a checkpoint holds the matrices that read the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Projections {
    /// `q_proj`, `k_proj`, `v_proj`; `gate_proj`, `up_proj`
    Apart,
    /// `qkv_proj`; `gate_up_proj`
    Fused,
}

/// Where a block normalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Norms {
    /// What attention and feed-forward read.
    Before,
    /// What they give.
    After,
    /// Both.
    Around,
}

/// Norms of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadNorms {
    None,
    /// Each head by itself; all heads share a weight.
    Each,
    /// All heads of a token together.
    All,
}

impl Decoder {
    /// What most families read in the same way; the rest is llama's.
    ///
    /// # Errors
    /// When a key is missing or not what it should be.
    pub fn read(keys: &Keys<'_>, family: &'static str) -> Result<Self, Problem> {
        let hidden = keys.size("hidden_size")?;
        let n_blocks = keys.blocks("num_hidden_layers")?;
        let heads = keys.size("num_attention_heads")?;
        let kv_heads = keys.optional_size("num_key_value_heads")?.unwrap_or(heads);
        let head_dim = keys.optional_size("head_dim")?.unwrap_or(hidden / heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(Problem::new(
                "hift::model::config",
                format!("{heads} attention heads cannot share {kv_heads} key/value heads evenly"),
            )
            .help("take the config.json that came with the weights, unchanged"));
        }
        if head_dim == 0 {
            return Err(unsupported("num_attention_heads", &heads.to_string(), "at most `hidden_size`"));
        }
        Ok(Self {
            family,
            hidden,
            ffn: keys.size("intermediate_size")?,
            vocab: keys.size("vocab_size")?,
            positions: keys.optional_size("max_position_embeddings")?.unwrap_or(2048),
            heads,
            kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            eps: keys.number("rms_norm_eps", 1e-6)? as f32,
            std: keys.number("initializer_range", 0.02)? as f32,
            tied: keys.flag("tie_word_embeddings", false)?,
            biases: [false; 3],
            projections: Projections::Apart,
            norms: Norms::Before,
            norm_offset: 0.0,
            head_norms: HeadNorms::None,
            activation: Activation::Silu,
            embedding_scale: None,
            score_cap: None,
            logit_cap: None,
            frequencies: Vec::new(),
            blocks: vec![BlockKind { window: None, frequencies: 0 }; n_blocks],
        })
    }

    /// Heads of another width than hidden over heads.
    pub fn set_head_dim(&mut self, head_dim: usize) {
        (self.head_dim, self.scale) = (head_dim, 1.0 / (head_dim as f32).sqrt());
    }

    /// The parameters and the forward pass.
    pub fn parts(self, task: Task) -> Parts {
        let mut params = Params::new(self.std, "model.");
        let embedding = params.matrix(
            "embedding",
            "model.embed_tokens.weight",
            "embedding.tokens",
            [self.vocab, self.hidden],
        );
        let blocks = (0..self.blocks.len()).map(|idx| self.block(&mut params, idx)).collect();
        let norm = [self.eps, self.norm_offset];
        let norm = params.rms_norm("norm", "model.norm", "norm", self.hidden, norm);
        let head = language_head(
            &mut params,
            task,
            embedding,
            self.tied,
            ["lm_head.weight", "score.weight", "score"],
            [self.vocab, self.hidden],
            self.logit_cap,
        );
        Parts {
            family: self.family,
            layers: params.layers,
            params: params.params,
            tied: head.is(embedding),
            hidden: self.hidden,
            vocab: self.vocab,
            positions: self.positions,
            both_ways: false,
            head,
            trunk: Arc::new(Trunk { embedding, blocks, norm, decoder: self }),
        }
    }

    fn block(&self, params: &mut Params, idx: usize) -> Block {
        let layer = &format!("block.{idx}");
        let [qkv_bias, out_bias, mlp_bias] = self.biases;
        let [q_width, kv_width] = [self.heads, self.kv_heads].map(|heads| heads * self.head_dim);
        let linear = |params: &mut Params, module: &str, path: &str, shape, bias| {
            let name = format!("model.layers.{idx}.{module}");
            params.linear(layer, &name, &format!("{layer}.{path}"), shape, bias)
        };
        let norm = |params: &mut Params, module: &str, path: &str, width| {
            let name = format!("model.layers.{idx}.{module}");
            let norm = [self.eps, self.norm_offset];
            params.rms_norm(layer, &name, &format!("{layer}.{path}"), width, norm)
        };
        let hidden = self.hidden;
        let qkv = match self.projections {
            Projections::Apart => Shared::Apart(vec![
                linear(params, "self_attn.q_proj", "attention.q", [q_width, hidden], qkv_bias),
                linear(params, "self_attn.k_proj", "attention.k", [kv_width, hidden], qkv_bias),
                linear(params, "self_attn.v_proj", "attention.v", [kv_width, hidden], qkv_bias),
            ]),
            Projections::Fused => {
                let shape = [q_width + 2 * kv_width, hidden];
                Shared::Fused(linear(params, "self_attn.qkv_proj", "attention.qkv", shape, qkv_bias))
            }
        };
        let out = linear(params, "self_attn.o_proj", "attention.out", [hidden, q_width], out_bias);
        let head_norms = match self.head_norms {
            HeadNorms::None => None,
            HeadNorms::Each => Some([self.head_dim, self.head_dim]),
            HeadNorms::All => Some([q_width, kv_width]),
        };
        let head_norms = head_norms.map(|[q, k]| {
            [
                norm(params, "self_attn.q_norm", "attention.q_norm", q),
                norm(params, "self_attn.k_norm", "attention.k_norm", k),
            ]
        });
        let gate_up = match self.projections {
            Projections::Apart => Shared::Apart(vec![
                linear(params, "mlp.gate_proj", "mlp.gate", [self.ffn, hidden], mlp_bias),
                linear(params, "mlp.up_proj", "mlp.up", [self.ffn, hidden], mlp_bias),
            ]),
            Projections::Fused => {
                let shape = [2 * self.ffn, hidden];
                Shared::Fused(linear(params, "mlp.gate_up_proj", "mlp.gate_up", shape, mlp_bias))
            }
        };
        let down = linear(params, "mlp.down_proj", "mlp.down", [hidden, self.ffn], mlp_bias);
        let mut norm = |module: &str, path: &str| Some(norm(params, module, path, hidden));
        let [attention_in, attention_out, mlp_in, mlp_out] = match self.norms {
            Norms::Before => [
                norm("input_layernorm", "norm.attention"),
                None,
                norm("post_attention_layernorm", "norm.mlp"),
                None,
            ],
            Norms::After => [
                None,
                norm("post_attention_layernorm", "norm.attention_out"),
                None,
                norm("post_feedforward_layernorm", "norm.mlp_out"),
            ],
            Norms::Around => [
                norm("input_layernorm", "norm.attention"),
                norm("post_attention_layernorm", "norm.attention_out"),
                norm("pre_feedforward_layernorm", "norm.mlp"),
                norm("post_feedforward_layernorm", "norm.mlp_out"),
            ],
        };
        Block { qkv, out, head_norms, gate_up, down, attention_in, attention_out, mlp_in, mlp_out }
    }
}

/// The head of a model that writes from left to right: the next token's logits, a class read at the last token, or a
/// class for each token, which sees those before it.
///
/// `names`: of the logits' matrix, of the classifier's, and of the module that classifies tokens. `shape`: `[vocab, width]`.
pub(super) fn language_head(
    params: &mut Params,
    task: Task,
    embedding: ParamId,
    tied: bool,
    names: [&str; 3],
    [vocab, width]: [usize; 2],
    softcap: Option<f32>,
) -> Head {
    match task {
        Task::NextToken if tied => {
            params.alias(embedding, names[0]);
            Head::Tokens { weight: embedding, softcap }
        }
        Task::NextToken => {
            let weight = params.matrix("head", names[0], "head.logits", [vocab, width]);
            Head::Tokens { weight, softcap }
        }
        Task::Sequence(target) => {
            let from = params.params.len();
            let weight = params.matrix("head", names[1], "head.classes", [target.width(), width]);
            params.may_be_missing(from);
            Head::Sequence { target, read: Read::Last, dense: None, out: Linear::new(weight, None) }
        }
        Task::Tokens(classes) => {
            let from = params.params.len();
            let out = params.linear("head", names[2], "head.classes", [classes.len(), width], true);
            params.may_be_missing(from);
            Head::Labels { classes, out }
        }
        Task::Span => unreachable!("no decoder's tasks have it"),
    }
}

/// Projections of the same numbers.
#[derive(Debug)]
enum Shared {
    Apart(Vec<Linear>),
    /// One matrix, whose rows are those of all of them, one after the other.
    Fused(Linear),
}

impl Shared {
    /// `[rows, hidden]` to `[rows, width]` for each.
    fn apply<const N: usize>(
        &self,
        build: &mut Builder<'_>,
        names: [&str; N],
        widths: [usize; N],
        x: ValueId,
    ) -> [ValueId; N] {
        match self {
            Shared::Apart(linears) => std::array::from_fn(|i| build.linear(names[i], x, linears[i])),
            Shared::Fused(linear) => {
                let all = build.linear(&names.concat(), x, *linear); // [rows, sum of widths]
                let period = widths.iter().sum();
                std::array::from_fn(|i| {
                    build.columns(names[i], all, widths[..i].iter().sum(), widths[i], period)
                })
            }
        }
    }
}

struct Trunk {
    decoder: Decoder,
    embedding: ParamId,
    blocks: Vec<Block>,
    norm: RmsNorm,
}

#[derive(Debug)]
struct Block {
    qkv: Shared,
    out: Linear,
    head_norms: Option<[RmsNorm; 2]>,
    gate_up: Shared,
    down: Linear,
    attention_in: Option<RmsNorm>,
    attention_out: Option<RmsNorm>,
    mlp_in: Option<RmsNorm>,
    mlp_out: Option<RmsNorm>,
}

impl std::fmt::Debug for Trunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct(self.decoder.family).field("blocks", &self.blocks).finish_non_exhaustive()
    }
}

impl Family for Trunk {
    fn near(&self) -> Option<usize> {
        self.decoder.frequencies.iter().filter_map(Turn::near).min()
    }

    fn trunk(&self, build: &mut Builder<'_>) -> ValueId {
        let ids = build.input(Input::Ids);
        build.at("embedding", None);
        let mut x = build.embed("x", self.embedding, ids, 0); // [rows, hidden]
        if let Some(scale) = self.decoder.embedding_scale {
            x = build.scale("scaled", x, scale);
        }
        let n = self.decoder.frequencies.len();
        let tables: Vec<ValueId> = self
            .decoder
            .frequencies
            .iter()
            .enumerate()
            .map(|(i, frequencies)| {
                let name = if n == 1 { "rope".to_string() } else { format!("rope{i}") };
                frequencies.table(build, &name) // [rows, turned]
            })
            .collect();
        for (idx, (block, kind)) in self.blocks.iter().zip(&self.decoder.blocks).enumerate() {
            x = self.block(build, idx, block, x, tables[kind.frequencies], kind.window);
        }
        build.at("", None);
        build.rms_norm("norm", x, self.norm) // [rows, hidden]
    }
}

impl Trunk {
    /// `x + norm(attention(norm(x)))`, then `x + norm(mlp(norm(x)))`, with the norms that the family has: `[rows, hidden]`
    /// to the same.
    fn block(
        &self,
        build: &mut Builder<'_>,
        idx: usize,
        block: &Block,
        x: ValueId,
        table: ValueId,
        window: Option<usize>,
    ) -> ValueId {
        let Decoder { heads, kv_heads, head_dim, ffn, scale, score_cap, activation, .. } = self.decoder;
        let norm = |build: &mut Builder<'_>, name: &str, x: ValueId, norm: Option<RmsNorm>| match norm {
            Some(norm) => build.rms_norm(name, x, norm),
            None => x,
        };
        build.at(format!("block.{idx}.attention"), Some(idx));
        let h = norm(build, "norm", x, block.attention_in); // [rows, hidden]
        let widths = [heads * head_dim, kv_heads * head_dim, kv_heads * head_dim];
        let [mut q, mut k, v] = block.qkv.apply(build, ["q", "k", "v"], widths, h);
        if let Some([q_norm, k_norm]) = block.head_norms {
            q = build.rms_norm("q_normed", q, q_norm);
            k = build.rms_norm("k_normed", k, k_norm);
        }
        let q = build.rope("q_turned", q, table, heads, head_dim); // [rows, heads x head_dim]
        let k = build.rope("k_turned", k, table, kv_heads, head_dim); // [rows, kv_heads x head_dim]
        let spec = Heads { scale, window, softcap: score_cap, ..Heads::causal(heads, kv_heads, head_dim) };
        let h = build.attention("mixed", [q, k, v], spec); // [rows, heads x head_dim]
        let h = build.linear("out", h, block.out); // [rows, hidden]
        let h = norm(build, "out_normed", h, block.attention_out);
        let x = build.add("x", x, h);

        build.at(format!("block.{idx}.mlp"), Some(idx));
        let h = norm(build, "norm", x, block.mlp_in); // [rows, hidden]
        let [gate, up] = block.gate_up.apply(build, ["gate", "up"], [ffn, ffn], h); // [rows, ffn]
        let h = build.gated("mixed", activation, gate, up); // [rows, ffn]
        let h = build.linear("down", h, block.down); // [rows, hidden]
        let h = norm(build, "out_normed", h, block.mlp_out);
        build.add("x", x, h)
    }
}
