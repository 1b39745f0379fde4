//! The operations. Each one knows its shapes, its scratch, its cost, and what it may write in place.
//!
//! Activations have two axes, `[rows, features]`, where rows = batch x seq. Weights are as checkpoints hold
//! them: `[out, in]`. A match over [`Op`] has no wildcard arm, here or in the rooms that play programs: a new
//! operation does not compile until shape, storage, cost, reverse and both players know it.

use std::sync::Arc;

use crate::units::Bytes;

/// Self-attention of one block: who sees whom, and in which shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionSpec {
    pub batch: usize,
    pub seq: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Scores are multiplied by it before the softmax.
    pub scale: f32,
    /// A position sees itself and what comes before it.
    pub causal: bool,
    /// Several documents in a row do not see each other; the operation has `starts` as an input.
    pub packed: bool,
}

/// `accumulate`: the last input is a sum so far; the output takes over its storage and adds to it.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// `(table [n, hidden], ids [rows]) -> [rows, hidden]`
    Embed,
    /// `(dy [rows, hidden], ids [rows]) -> d_table [n, hidden]`
    EmbedGrad { n: usize, accumulate: bool },
    /// `(x [rows, in], w [out, in], b [out]?) -> [rows, out]`: `x wᵀ + b`
    Linear { bias: bool },
    /// `(dy [rows, out], w [out, in]) -> dx [rows, in]`: `dy w`
    LinearGradInput { accumulate: bool },
    /// `(dy [rows, out], x [rows, in]) -> dw [out, in]`: `dyᵀ x`
    LinearGradWeight { accumulate: bool },
    /// `(dy [rows, out]) -> db [out]`: the sum over rows
    LinearGradBias { accumulate: bool },
    /// `(x [rows, hidden], w [hidden]) -> [rows, hidden]`: `w x / sqrt(mean(x²) + eps)`.
    /// Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization".
    RmsNorm { eps: f32 },
    /// `(dy, x, w) -> dx`, all `[rows, hidden]`; the row's scale is computed again from `x`
    RmsNormGradInput { eps: f32, accumulate: bool },
    /// `(dy, x) -> dw [hidden]`
    RmsNormGradWeight { eps: f32, accumulate: bool },
    /// `(positions [rows]) -> [rows, head_dim]`: cosines, then sines, of position x inverse frequency
    RopeTable { inv_freq: Arc<[f32]> },
    /// `(x [rows, heads x head_dim], table) -> ` the same: pairs half a head apart are turned.
    /// Its own reverse, turned the other way. Source: Su et al. 2021, RoFormer, in the layout of Hugging Face's llama.
    Rope { heads: usize, head_dim: usize, inverse: bool },
    /// `(q, k, v, starts?) -> (o [rows, heads x head_dim], lse [batch x heads, seq])`: softmax attention by tiles;
    /// `lse` is the logarithm of each row's sum of exponentials.
    /// Source: Dao et al. 2022, FlashAttention.
    Attention(AttentionSpec),
    /// `(d_o, q, k, v, o, lse, starts?) -> (dq, dk, dv)`; scores are computed again, tile by tile
    AttentionGrad(AttentionSpec),
    /// `(gate, up) -> silu(gate) up`. Source: Shazeer 2020, "GLU Variants Improve Transformer".
    SwiGlu,
    /// `(dy, gate, up) -> (d_gate, d_up)`
    SwiGluGrad,
    /// `(a, b) -> a + b`
    Add,
    /// `(a) -> a`, in storage of its own
    Copy,
    /// `(x [rows, hidden], w [vocab, hidden], labels [rows]) -> [2]`: the sum of the cross entropies of `x wᵀ` and the
    /// number of labels that are the first choice. At most `chunk` rows of logits exist at a time.
    LinearCrossEntropy { chunk: usize },
    /// The same, and in the same pass over the logits `dx` and `dw` where wanted; what the logits' chunk held becomes
    /// its gradient in place. `(x, w, labels, dw so far?) -> ([2], dx?, dw?)`
    LinearCrossEntropyGrad { chunk: usize, input: bool, weight: bool, accumulate: bool },
    /// `(g) -> [1]`: the sum of the squares
    SumSquares { accumulate: bool },
    /// `(sum of squares [1]) -> [1]`: `min(1, max_norm / (norm + 1e-6))`
    ClipFactor { max_norm: f32 },
    /// `(w, g, states..., clip factor?) -> ()`: changes the weight and its states in place
    Update { states: usize, clipped: bool },
}

impl Op {
    /// The word that the printed program uses.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Embed => "embed",
            Op::EmbedGrad { .. } => "embed_grad",
            Op::Linear { .. } => "linear",
            Op::LinearGradInput { .. } => "linear_grad_input",
            Op::LinearGradWeight { .. } => "linear_grad_weight",
            Op::LinearGradBias { .. } => "linear_grad_bias",
            Op::RmsNorm { .. } => "rms_norm",
            Op::RmsNormGradInput { .. } => "rms_norm_grad_input",
            Op::RmsNormGradWeight { .. } => "rms_norm_grad_weight",
            Op::RopeTable { .. } => "rope_table",
            Op::Rope { inverse: false, .. } => "rope",
            Op::Rope { inverse: true, .. } => "rope_inverse",
            Op::Attention(_) => "attention",
            Op::AttentionGrad(_) => "attention_grad",
            Op::SwiGlu => "swiglu",
            Op::SwiGluGrad => "swiglu_grad",
            Op::Add => "add",
            Op::Copy => "copy",
            Op::LinearCrossEntropy { .. } => "linear_cross_entropy",
            Op::LinearCrossEntropyGrad { .. } => "linear_cross_entropy_grad",
            Op::SumSquares { .. } => "sum_squares",
            Op::ClipFactor { .. } => "clip_factor",
            Op::Update { .. } => "update",
        }
    }

    /// The shapes of the outputs, from those of the inputs.
    ///
    /// Inputs are checked where they are put in (the model's shapes, the passes here); a wrong shape is a mistake
    /// in this program, not in a pipeline, so it panics.
    pub fn shapes(&self, inputs: &[&[usize]]) -> Vec<Vec<usize>> {
        let shape = |i: usize| inputs[i].to_vec();
        match self {
            Op::Embed => {
                assert_eq!((inputs[0].len(), inputs[1].len()), (2, 1));
                vec![vec![inputs[1][0], inputs[0][1]]]
            }
            Op::EmbedGrad { n, .. } => {
                assert_eq!(inputs[0][0], inputs[1][0]);
                vec![vec![*n, inputs[0][1]]]
            }
            Op::Linear { bias } => {
                assert_eq!(inputs[0][1], inputs[1][1], "linear: features of x and w");
                assert!(!bias || inputs[2] == [inputs[1][0]]);
                vec![vec![inputs[0][0], inputs[1][0]]]
            }
            Op::LinearGradInput { .. } => {
                assert_eq!(inputs[0][1], inputs[1][0]);
                vec![vec![inputs[0][0], inputs[1][1]]]
            }
            Op::LinearGradWeight { .. } => {
                assert_eq!(inputs[0][0], inputs[1][0]);
                vec![vec![inputs[0][1], inputs[1][1]]]
            }
            Op::LinearGradBias { .. } => vec![vec![inputs[0][1]]],
            Op::RmsNorm { .. } => {
                assert_eq!([inputs[0][1]], inputs[1]);
                vec![shape(0)]
            }
            Op::RmsNormGradInput { .. } => {
                assert_eq!(inputs[0], inputs[1]);
                vec![shape(0)]
            }
            Op::RmsNormGradWeight { .. } => {
                assert_eq!(inputs[0], inputs[1]);
                vec![vec![inputs[0][1]]]
            }
            Op::RopeTable { inv_freq } => vec![vec![inputs[0][0], 2 * inv_freq.len()]],
            Op::Rope { heads, head_dim, .. } => {
                assert_eq!(inputs[0][1], heads * head_dim);
                assert_eq!(inputs[1], [inputs[0][0], *head_dim]);
                vec![shape(0)]
            }
            Op::Attention(spec) => {
                assert_eq!(inputs[0], [spec.batch * spec.seq, spec.heads * spec.head_dim]);
                assert_eq!(inputs[1], [spec.batch * spec.seq, spec.kv_heads * spec.head_dim]);
                assert_eq!(inputs[1], inputs[2]);
                assert_eq!(inputs.len(), 3 + usize::from(spec.packed));
                vec![shape(0), vec![spec.batch * spec.heads, spec.seq]]
            }
            Op::AttentionGrad(spec) => {
                assert_eq!(inputs.len(), 6 + usize::from(spec.packed));
                vec![shape(1), shape(2), shape(3)]
            }
            Op::SwiGlu | Op::Add => {
                assert_eq!(inputs[0], inputs[1]);
                vec![shape(0)]
            }
            Op::SwiGluGrad => {
                assert!(inputs[0] == inputs[1] && inputs[1] == inputs[2]);
                vec![shape(1), shape(2)]
            }
            Op::Copy => vec![shape(0)],
            Op::LinearCrossEntropy { .. } => {
                assert_eq!(inputs[0][1], inputs[1][1]);
                assert_eq!([inputs[0][0]], inputs[2]);
                vec![vec![2]]
            }
            Op::LinearCrossEntropyGrad { input, weight, .. } => {
                assert_eq!(inputs[0][1], inputs[1][1]);
                let mut shapes = vec![vec![2]];
                shapes.extend(input.then(|| shape(0)));
                shapes.extend(weight.then(|| shape(1)));
                shapes
            }
            Op::SumSquares { .. } | Op::ClipFactor { .. } => vec![vec![1]],
            Op::Update { .. } => vec![],
        }
    }

    /// Scratch in bytes that is held while the operation runs, beyond its inputs and outputs.
    pub fn workspace(&self, inputs: &[&[usize]], threads: usize) -> Bytes {
        let floats = match self {
            Op::Attention(spec) => threads * spec.scratch(),
            Op::AttentionGrad(spec) => threads * spec.grad_scratch(),
            Op::LinearCrossEntropy { chunk } | Op::LinearCrossEntropyGrad { chunk, .. } => {
                chunk.min(&inputs[0][0]) * inputs[1][0]
            }
            Op::Embed
            | Op::EmbedGrad { .. }
            | Op::Linear { .. }
            | Op::LinearGradInput { .. }
            | Op::LinearGradWeight { .. }
            | Op::LinearGradBias { .. }
            | Op::RmsNorm { .. }
            | Op::RmsNormGradInput { .. }
            | Op::RmsNormGradWeight { .. }
            | Op::RopeTable { .. }
            | Op::Rope { .. }
            | Op::SwiGlu
            | Op::SwiGluGrad
            | Op::Add
            | Op::Copy
            | Op::SumSquares { .. }
            | Op::ClipFactor { .. }
            | Op::Update { .. } => 0,
        };
        Bytes(4 * floats as u64)
    }

    /// Floating-point operations; a multiply and an add are two. Products are exact, the rest is a few per element.
    pub fn flops(&self, inputs: &[&[usize]]) -> u64 {
        let elements = |i: usize| inputs[i].iter().product::<usize>() as u64;
        // `rows x features` times the other side of the product.
        match self {
            Op::Embed | Op::Copy => 0,
            Op::EmbedGrad { .. } | Op::Add | Op::LinearGradBias { .. } => elements(0),
            Op::Linear { .. } => 2 * elements(0) * inputs[1][0] as u64,
            Op::LinearGradInput { .. } | Op::LinearGradWeight { .. } => 2 * elements(0) * inputs[1][1] as u64,
            Op::RmsNorm { .. } => 4 * elements(0),
            Op::RmsNormGradInput { .. } => 8 * elements(0),
            Op::RmsNormGradWeight { .. } => 5 * elements(0),
            Op::RopeTable { inv_freq } => 3 * elements(0) * inv_freq.len() as u64,
            Op::Rope { .. } => 3 * elements(0),
            // Two products forward, five in reverse; a causal mask leaves half of the scores.
            Op::Attention(spec) => 2 * spec.product(),
            Op::AttentionGrad(spec) => 5 * spec.product(),
            Op::SwiGlu => 6 * elements(0),
            Op::SwiGluGrad => 12 * elements(0),
            Op::LinearCrossEntropy { .. } => 2 * elements(0) * inputs[1][0] as u64,
            Op::LinearCrossEntropyGrad { input, weight, .. } => {
                2 * elements(0) * inputs[1][0] as u64 * (1 + u64::from(*input) + u64::from(*weight))
            }
            Op::SumSquares { .. } => 2 * elements(0),
            Op::ClipFactor { .. } => 3,
            Op::Update { states, .. } => (4 + 6 * *states as u64) * elements(0),
        }
    }

    /// Whether the last input is a sum that the output takes over and adds to.
    pub fn accumulates(&self) -> bool {
        match self {
            Op::EmbedGrad { accumulate, .. }
            | Op::LinearGradInput { accumulate }
            | Op::LinearGradWeight { accumulate }
            | Op::LinearGradBias { accumulate }
            | Op::RmsNormGradInput { accumulate, .. }
            | Op::RmsNormGradWeight { accumulate, .. }
            | Op::LinearCrossEntropyGrad { accumulate, .. }
            | Op::SumSquares { accumulate } => *accumulate,
            Op::Embed
            | Op::Linear { .. }
            | Op::RmsNorm { .. }
            | Op::RopeTable { .. }
            | Op::Rope { .. }
            | Op::Attention(_)
            | Op::AttentionGrad(_)
            | Op::SwiGlu
            | Op::SwiGluGrad
            | Op::Add
            | Op::Copy
            | Op::LinearCrossEntropy { .. }
            | Op::ClipFactor { .. }
            | Op::Update { .. } => false,
        }
    }

    /// Ways to write in place: each is a list of `(output, input)` pairs that hold together, best first. A way may
    /// be taken when all of its inputs die at this instruction.
    pub fn in_place(&self) -> &'static [&'static [(usize, usize)]] {
        match self {
            Op::Rope { .. } | Op::SwiGlu | Op::Copy => &[&[(0, 0)]],
            Op::Add => &[&[(0, 0)], &[(0, 1)]],
            Op::SwiGluGrad => &[&[(0, 1), (1, 2)]],
            Op::RmsNormGradInput { accumulate: false, .. } => &[&[(0, 0)]],
            Op::Embed
            | Op::EmbedGrad { .. }
            | Op::Linear { .. }
            | Op::LinearGradInput { .. }
            | Op::LinearGradWeight { .. }
            | Op::LinearGradBias { .. }
            | Op::RmsNorm { .. }
            | Op::RmsNormGradInput { accumulate: true, .. }
            | Op::RmsNormGradWeight { .. }
            | Op::RopeTable { .. }
            | Op::Attention(_)
            | Op::AttentionGrad(_)
            | Op::LinearCrossEntropy { .. }
            | Op::LinearCrossEntropyGrad { .. }
            | Op::SumSquares { .. }
            | Op::ClipFactor { .. }
            | Op::Update { .. } => &[],
        }
    }

    /// Whether running it again costs little beside the products of a layer: one pass over memory.
    pub fn is_cheap(&self) -> bool {
        match self {
            Op::RmsNorm { .. } | Op::SwiGlu => true,
            Op::Embed
            | Op::EmbedGrad { .. }
            | Op::Linear { .. }
            | Op::LinearGradInput { .. }
            | Op::LinearGradWeight { .. }
            | Op::LinearGradBias { .. }
            | Op::RmsNormGradInput { .. }
            | Op::RmsNormGradWeight { .. }
            | Op::RopeTable { .. }
            | Op::Rope { .. }
            | Op::Attention(_)
            | Op::AttentionGrad(_)
            | Op::SwiGluGrad
            | Op::Add
            | Op::Copy
            | Op::LinearCrossEntropy { .. }
            | Op::LinearCrossEntropyGrad { .. }
            | Op::SumSquares { .. }
            | Op::ClipFactor { .. }
            | Op::Update { .. } => false,
        }
    }
}

impl AttentionSpec {
    /// Floats of scratch per thread, forward: one tile of scores, never `seq x seq`.
    fn scratch(&self) -> usize {
        let queries = if self.seq <= 512 { self.seq.min(64) } else { 128 };
        queries * self.seq.min(256)
    }

    /// Floats of scratch per thread, reverse: a tile of probabilities and one of their gradients.
    fn grad_scratch(&self) -> usize {
        2 * self.scratch()
    }

    /// Floating-point operations of one product over all scores.
    fn product(&self) -> u64 {
        let scores = (self.batch * self.heads * self.seq * self.seq) as u64;
        2 * scores * self.head_dim as u64 / if self.causal { 2 } else { 1 }
    }
}
