//! The operations. Each one knows its shapes, its scratch, its cost, and what it may write in place.
//!
//! Activations have two axes, `[rows, features]`, where rows = batch x seq. Weights are as checkpoints hold
//! them: `[out, in]`. A match over [`Op`] has no wildcard arm, here or in the rooms that play programs: a new
//! operation does not compile until shape, storage, cost, reverse and both players know it.

use std::sync::Arc;

use crate::units::Dtype;

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
    /// A position sees so many positions at the most, itself among them, and none that come earlier.
    pub window: Option<usize>,
    /// Scores are bent to stay below it: `cap tanh(score / cap)`. Source: Gemma Team 2024, "Gemma 2", section 2.
    pub softcap: Option<f32>,
}

/// Attention of one new token a sequence, to those before it whose keys and values are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CachedSpec {
    pub batch: usize,
    /// Tokens that a sequence can have.
    pub capacity: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub scale: f32,
    pub window: Option<usize>,
    pub softcap: Option<f32>,
}

/// A function of single numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`
    Silu,
    /// `x` times the normal distribution's integral up to `x`. Source: Hendrycks and Gimpel 2016, "GELU".
    Gelu,
    /// The same, with a hyperbolic tangent for the integral
    GeluTanh,
    /// `max(x, 0)`
    Relu,
    /// `cap tanh(x / cap)`
    Tanh { cap: f32 },
}

/// `accumulate`: the last input is a sum so far; the output takes over its storage and adds to it.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// `(table [n, hidden], ids [rows]) -> [rows, hidden]`: the rows `ids + offset` of the table
    Embed { offset: usize },
    /// `(dy [rows, hidden], ids [rows]) -> d_table [n, hidden]`
    EmbedGrad { n: usize, offset: usize, accumulate: bool },
    /// `(x [rows, in], w [out, in], b [out]?) -> [rows, out]`: `x wᵀ + b`; `transposed`: w is `[in, out]`
    Linear { bias: bool, transposed: bool },
    /// `(dy [rows, out], w [out, in]) -> dx [rows, in]`: `dy w`
    LinearGradInput { transposed: bool, accumulate: bool },
    /// `(dy [rows, out], x [rows, in]) -> dw [out, in]`: `dyᵀ x`
    LinearGradWeight { transposed: bool, accumulate: bool },
    /// `(dy [rows, out]) -> db [out]`: the sum over rows
    LinearGradBias { accumulate: bool },
    /// `(x [rows, n x width], w [width]) -> [rows, n x width]`: `(offset + w) x / sqrt(mean(x²) + eps)`, each `width`
    /// numbers by themselves. Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization".
    RmsNorm { eps: f32, offset: f32 },
    /// `(dy, x, w) -> dx`, as `x`; the scale is computed again from `x`
    RmsNormGradInput { eps: f32, offset: f32, accumulate: bool },
    /// `(dy, x) -> dw [width]`
    RmsNormGradWeight { eps: f32, width: usize, accumulate: bool },
    /// `(x [rows, hidden], w [hidden], b [hidden]) -> [rows, hidden]`: `w (x - mean(x)) / sqrt(var(x) + eps) + b`.
    /// Its bias has the gradient of a linear layer's. Source: Ba et al. 2016, "Layer Normalization".
    LayerNorm { eps: f32 },
    /// `(dy, x, w) -> dx`; the row's mean and scale are computed again from `x`
    LayerNormGradInput { eps: f32, accumulate: bool },
    /// `(dy, x) -> dw [hidden]`
    LayerNormGradWeight { eps: f32, accumulate: bool },
    /// `(positions [rows]) -> [rows, head_dim]`: cosines, then sines, of position x inverse frequency
    RopeTable { inv_freq: Arc<[f32]> },
    /// `(x [rows, heads x head_dim], table [rows, turned]) -> ` the same: of the first `turned` numbers of each head, pairs
    /// half of `turned` apart are turned; the others stay. Its own reverse, turned the other way. Source: Su et al. 2021, RoFormer, in the layout of Hugging Face's llama.
    Rope { heads: usize, head_dim: usize, inverse: bool },
    /// `(q, k, v, starts?) -> (o [rows, heads x head_dim], lse [batch x heads, seq])`: softmax attention by tiles;
    /// `lse` is the logarithm of each row's sum of exponentials.
    /// Source: Dao et al. 2022, FlashAttention.
    Attention(AttentionSpec),
    /// `(d_o, q, k, v, o, lse, starts?) -> (dq, dk, dv)`; scores are computed again, tile by tile
    AttentionGrad(AttentionSpec),
    /// `(x [rows, width], cache [n, width], places [rows]) -> ()`: writes each row of `x` to its place
    CacheWrite,
    /// `(home) -> ` the same: begins to copy what rests elsewhere to the device. Who reads the copy first waits for it.
    Fetch,
    /// `(copy, home) -> ()`: begins to copy what was changed back to where it rests. The copy goes when that is done.
    Evict,
    /// `(q [batch, heads x head_dim], keys [n, kv_heads x head_dim], values, seen [batch x capacity], lengths [batch]) -> ` as
    /// `q`: softmax attention to the rows that are seen
    CachedAttention(CachedSpec),
    /// `(x [rows, n x period]) -> [rows, n x width]`: of each `period` numbers those from `start` on. What a fused
    /// projection gives, taken apart.
    Columns { start: usize, width: usize, period: usize },
    /// `(dy [rows, n x width]) -> dx [rows, n x period]`, zero elsewhere
    ColumnsGrad { start: usize, width: usize, period: usize, accumulate: bool },
    /// `(x) -> f(x)`
    Activate(Activation),
    /// `(dy, x) -> dx`
    ActivateGrad(Activation),
    /// `(gate, up) -> f(gate) up`. Source: Shazeer 2020, "GLU Variants Improve Transformer".
    Gated(Activation),
    /// `(dy, gate, up) -> (d_gate, d_up)`
    GatedGrad(Activation),
    /// `(gate, up, w) -> f(gate) up wT`: [`Op::Gated`] and [`Op::Linear`] for `chunk` rows at a time.
    GatedLinear { activation: Activation, transposed: bool, chunk: usize },
    /// `(dy, gate, up, w) -> (d_gate, d_up)`
    GatedLinearGrad { activation: Activation, transposed: bool, chunk: usize },
    /// `(x) -> factor x`
    Scale { factor: f32 },
    /// `(a, b) -> a + b`
    Add,
    /// `(a) -> a`, in storage of its own
    Copy,
    /// `(a) -> a`, in numbers of another type
    Cast { to: Dtype },
    /// `(x [rows, hidden], w [vocab, hidden], labels [rows]) -> [2]`: the sum of the cross entropies of `x wᵀ` and the
    /// number of labels that are the first choice. At most `chunk` rows of logits exist at a time; `softcap` bends them
    /// as [`Activation::Tanh`] does.
    LinearCrossEntropy { chunk: usize, softcap: Option<f32> },
    /// The same, and in the same pass over the logits `dx` and `dw` where wanted; what the logits' chunk held becomes
    /// its gradient in place. `(x, w, labels, dw so far?) -> ([2], dx?, dw?)`
    LinearCrossEntropyGrad { chunk: usize, softcap: Option<f32>, input: bool, weight: bool, accumulate: bool },
    /// The last norm, the loss of its rows, and back through both, for `chunk` rows at a time:
    /// `(x, norm's w, w, labels) -> ([2], dx)`
    NormedLossGrad { eps: f32, offset: f32, chunk: usize, softcap: Option<f32> },
    /// `(logits [rows, classes], labels [rows]) -> [2]`: as above, of logits that are there anyway
    CrossEntropy,
    /// The same, and in the same pass the gradient of the logits. `(logits, labels) -> ([2], d_logits)`
    CrossEntropyGrad,
    /// `(x [rows, 1], targets [rows]) -> [2]`: the sum of `(x - target)²`, and 0; targets are the bits of floats
    SquaredError,
    /// The same, and in the same pass the gradient. `(x, targets) -> ([2], dx)`
    SquaredErrorGrad,
    /// `(logits [batch x seq, 2], spans [3 x batch]) -> [2]`: where an answer begins and ends; `spans` are first tokens,
    /// last tokens and lengths. Of each sequence the mean of two cross entropies, over its own tokens. Source: Devlin
    /// et al. 2019, "BERT", section 4.2.
    SpanCrossEntropy { seq: usize },
    /// The same, and in the same pass the gradient of the logits. `(logits, spans) -> ([2], d_logits)`
    SpanCrossEntropyGrad { seq: usize },
    /// `(g) -> [1]`: the sum of the squares
    SumSquares { accumulate: bool },
    /// `(sum of squares [1]) -> [1]`: what gradients are multiplied by. They come scaled by `s`, which a step is told:
    /// `1 / s`, times `min(1, max_norm / (norm / s + 1e-6))` where they are clipped; 0 where the sum is no number.
    GradFactor { max_norm: Option<f32> },
    /// `(w, g, master?, states..., factor?) -> ()`: changes the weight and its states in place. With a `master`, that
    /// is what changes, and the weight becomes its nearest half number; a half weight without one is rounded at random.
    /// A factor of 0 changes nothing.
    Update { master: bool, states: usize, scaled: bool },
}

impl Op {
    /// The word that the printed program uses.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "embed",
            Op::EmbedGrad { .. } => "embed_grad",
            Op::Linear { .. } => "linear",
            Op::LinearGradInput { .. } => "linear_grad_input",
            Op::LinearGradWeight { .. } => "linear_grad_weight",
            Op::LinearGradBias { .. } => "linear_grad_bias",
            Op::RmsNorm { .. } => "rms_norm",
            Op::RmsNormGradInput { .. } => "rms_norm_grad_input",
            Op::RmsNormGradWeight { .. } => "rms_norm_grad_weight",
            Op::LayerNorm { .. } => "layer_norm",
            Op::LayerNormGradInput { .. } => "layer_norm_grad_input",
            Op::LayerNormGradWeight { .. } => "layer_norm_grad_weight",
            Op::RopeTable { .. } => "rope_table",
            Op::Rope { inverse: false, .. } => "rope",
            Op::Rope { inverse: true, .. } => "rope_inverse",
            Op::Attention(_) => "attention",
            Op::AttentionGrad(_) => "attention_grad",
            Op::Fetch => "fetch",
            Op::Evict => "evict",
            Op::CacheWrite => "cache_write",
            Op::CachedAttention(_) => "cached_attention",
            Op::Columns { .. } => "columns",
            Op::ColumnsGrad { .. } => "columns_grad",
            Op::Activate(Activation::Silu) => "silu",
            Op::Activate(Activation::Gelu) => "gelu",
            Op::Activate(Activation::GeluTanh) => "gelu_tanh",
            Op::Activate(Activation::Relu) => "relu",
            Op::Activate(Activation::Tanh { .. }) => "tanh",
            Op::ActivateGrad(Activation::Silu) => "silu_grad",
            Op::ActivateGrad(Activation::Gelu) => "gelu_grad",
            Op::ActivateGrad(Activation::GeluTanh) => "gelu_tanh_grad",
            Op::ActivateGrad(Activation::Relu) => "relu_grad",
            Op::ActivateGrad(Activation::Tanh { .. }) => "tanh_grad",
            Op::Gated(Activation::Silu) => "swiglu",
            Op::Gated(Activation::Gelu) => "geglu",
            Op::Gated(Activation::GeluTanh) => "geglu_tanh",
            Op::Gated(Activation::Relu) => "reglu",
            Op::Gated(Activation::Tanh { .. }) => "tanhglu",
            Op::GatedGrad(Activation::Silu) => "swiglu_grad",
            Op::GatedGrad(Activation::Gelu) => "geglu_grad",
            Op::GatedGrad(Activation::GeluTanh) => "geglu_tanh_grad",
            Op::GatedGrad(Activation::Relu) => "reglu_grad",
            Op::GatedGrad(Activation::Tanh { .. }) => "tanhglu_grad",
            Op::GatedLinear { .. } => "gated_linear",
            Op::GatedLinearGrad { .. } => "gated_linear_grad",
            Op::Scale { .. } => "scale",
            Op::Add => "add",
            Op::Copy => "copy",
            Op::Cast { .. } => "cast",
            Op::LinearCrossEntropy { .. } => "linear_cross_entropy",
            Op::LinearCrossEntropyGrad { .. } => "linear_cross_entropy_grad",
            Op::NormedLossGrad { .. } => "normed_loss_grad",
            Op::CrossEntropy => "cross_entropy",
            Op::CrossEntropyGrad => "cross_entropy_grad",
            Op::SquaredError => "squared_error",
            Op::SquaredErrorGrad => "squared_error_grad",
            Op::SpanCrossEntropy { .. } => "span_cross_entropy",
            Op::SpanCrossEntropyGrad { .. } => "span_cross_entropy_grad",
            Op::SumSquares { .. } => "sum_squares",
            Op::GradFactor { .. } => "grad_factor",
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
            Op::Embed { .. } => {
                assert_eq!((inputs[0].len(), inputs[1].len()), (2, 1));
                vec![vec![inputs[1][0], inputs[0][1]]]
            }
            Op::EmbedGrad { n, .. } => {
                assert_eq!(inputs[0][0], inputs[1][0]);
                vec![vec![*n, inputs[0][1]]]
            }
            Op::Linear { bias, transposed } => {
                let [out, inner] = out_in(inputs[1], *transposed);
                assert_eq!(inputs[0][1], inner, "linear: features of x and w");
                assert!(!bias || inputs[2] == [out]);
                vec![vec![inputs[0][0], out]]
            }
            Op::LinearGradInput { transposed, .. } => {
                let [out, inner] = out_in(inputs[1], *transposed);
                assert_eq!(inputs[0][1], out);
                vec![vec![inputs[0][0], inner]]
            }
            Op::LinearGradWeight { transposed, .. } => {
                assert_eq!(inputs[0][0], inputs[1][0]);
                vec![out_in(&[inputs[0][1], inputs[1][1]], *transposed).to_vec()]
            }
            Op::LinearGradBias { .. } => vec![vec![inputs[0][1]]],
            Op::RmsNorm { .. } => {
                assert!(inputs[1].len() == 1 && inputs[0][1].is_multiple_of(inputs[1][0]));
                vec![shape(0)]
            }
            Op::LayerNorm { .. } => {
                assert_eq!([inputs[0][1]], inputs[1]);
                assert_eq!(inputs[1], inputs[2]);
                vec![shape(0)]
            }
            Op::RmsNormGradInput { .. } | Op::LayerNormGradInput { .. } => {
                assert_eq!(inputs[0], inputs[1]);
                vec![shape(0)]
            }
            Op::RmsNormGradWeight { width, .. } => {
                assert_eq!(inputs[0], inputs[1]);
                assert!(inputs[0][1].is_multiple_of(*width));
                vec![vec![*width]]
            }
            Op::LayerNormGradWeight { .. } => {
                assert_eq!(inputs[0], inputs[1]);
                vec![vec![inputs[0][1]]]
            }
            Op::RopeTable { inv_freq } => vec![vec![inputs[0][0], 2 * inv_freq.len()]],
            Op::Rope { heads, head_dim, .. } => {
                assert_eq!(inputs[0][1], heads * head_dim);
                assert_eq!(inputs[1][0], inputs[0][0]);
                assert!(inputs[1][1] <= *head_dim, "rope: the table is wider than a head");
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
            Op::Fetch => vec![shape(0)],
            Op::Evict => {
                assert_eq!(inputs[0], inputs[1]);
                vec![]
            }
            Op::CacheWrite => {
                assert_eq!((inputs[0][1], inputs[2]), (inputs[1][1], &inputs[0][..1]));
                vec![]
            }
            Op::CachedAttention(spec) => {
                assert_eq!(inputs[0], [spec.batch, spec.heads * spec.head_dim]);
                assert_eq!((inputs[1][1], inputs[1]), (spec.kv_heads * spec.head_dim, inputs[2]));
                assert_eq!((inputs[3], inputs[4]), (&[spec.batch * spec.capacity][..], &[spec.batch][..]));
                vec![shape(0)]
            }
            Op::Columns { start, width, period } => {
                assert!(start + width <= *period && inputs[0][1].is_multiple_of(*period));
                vec![vec![inputs[0][0], inputs[0][1] / period * width]]
            }
            Op::ColumnsGrad { width, period, .. } => {
                assert!(inputs[0][1].is_multiple_of(*width));
                vec![vec![inputs[0][0], inputs[0][1] / width * period]]
            }
            Op::Gated(_) | Op::Add | Op::ActivateGrad(_) => {
                assert_eq!(inputs[0], inputs[1]);
                vec![shape(0)]
            }
            Op::GatedLinear { transposed, .. } => {
                assert_eq!(inputs[0], inputs[1]);
                vec![vec![inputs[0][0], out_in(inputs[2], *transposed)[0]]]
            }
            Op::GatedLinearGrad { .. } => {
                assert_eq!(inputs[1], inputs[2]);
                vec![shape(1), shape(2)]
            }
            Op::GatedGrad(_) => {
                assert!(inputs[0] == inputs[1] && inputs[1] == inputs[2]);
                vec![shape(1), shape(2)]
            }
            Op::Copy | Op::Cast { .. } | Op::Activate(_) | Op::Scale { .. } => vec![shape(0)],
            Op::LinearCrossEntropy { .. } => {
                assert_eq!(inputs[0][1], inputs[1][1]);
                assert_eq!([inputs[0][0]], inputs[2]);
                vec![vec![2]]
            }
            Op::NormedLossGrad { .. } => {
                assert!(inputs[0][1..] == *inputs[1] && inputs[0][1] == inputs[2][1]);
                vec![vec![2], shape(0)]
            }
            Op::LinearCrossEntropyGrad { input, weight, .. } => {
                assert_eq!(inputs[0][1], inputs[1][1]);
                let mut shapes = vec![vec![2]];
                shapes.extend(input.then(|| shape(0)));
                shapes.extend(weight.then(|| shape(1)));
                shapes
            }
            Op::CrossEntropy => {
                assert_eq!([inputs[0][0]], inputs[1]);
                vec![vec![2]]
            }
            Op::SquaredError => {
                assert_eq!(inputs[0], [inputs[1][0], 1]);
                vec![vec![2]]
            }
            Op::SpanCrossEntropy { seq } => {
                assert_eq!(inputs[0], [inputs[1][0] / 3 * seq, 2]);
                vec![vec![2]]
            }
            Op::CrossEntropyGrad | Op::SquaredErrorGrad | Op::SpanCrossEntropyGrad { .. } => {
                vec![vec![2], shape(0)]
            }
            Op::SumSquares { .. } | Op::GradFactor { .. } => vec![vec![1]],
            Op::Update { .. } => vec![],
        }
    }

    /// The types of the outputs, from those of the inputs, of an operation of the forward pass. Sums over a row are
    /// formed in 32 bits whatever these are; results are rounded once.
    pub fn dtypes(&self, inputs: &[Dtype]) -> Vec<Dtype> {
        match self {
            Op::Embed { .. }
            | Op::Linear { .. }
            | Op::RmsNorm { .. }
            | Op::LayerNorm { .. }
            | Op::Rope { .. }
            | Op::Columns { .. }
            | Op::Activate(_)
            | Op::Gated(_)
            | Op::Scale { .. }
            | Op::Add
            | Op::CachedAttention(_)
            | Op::Copy => vec![inputs[0]],
            Op::Attention(_) => vec![inputs[0], Dtype::F32],
            // Angles of far positions would fall together in half numbers.
            Op::RopeTable { .. } => vec![Dtype::F32],
            Op::Cast { to } => vec![*to],
            Op::LinearCrossEntropy { .. }
            | Op::CrossEntropy
            | Op::SquaredError
            | Op::SpanCrossEntropy { .. } => vec![Dtype::F32],
            Op::CacheWrite => vec![],
            op @ (Op::EmbedGrad { .. }
            | Op::Fetch
            | Op::Evict
            | Op::LinearGradInput { .. }
            | Op::LinearGradWeight { .. }
            | Op::LinearGradBias { .. }
            | Op::RmsNormGradInput { .. }
            | Op::RmsNormGradWeight { .. }
            | Op::LayerNormGradInput { .. }
            | Op::LayerNormGradWeight { .. }
            | Op::AttentionGrad(_)
            | Op::ColumnsGrad { .. }
            | Op::ActivateGrad(_)
            | Op::GatedGrad(_)
            | Op::GatedLinear { .. }
            | Op::GatedLinearGrad { .. }
            | Op::LinearCrossEntropyGrad { .. }
            | Op::NormedLossGrad { .. }
            | Op::CrossEntropyGrad
            | Op::SquaredErrorGrad
            | Op::SpanCrossEntropyGrad { .. }
            | Op::SumSquares { .. }
            | Op::GradFactor { .. }
            | Op::Update { .. }) => panic!("{} does not stand inside a forward pass", op.name()),
        }
    }

    /// Whether the first input must be in 32 bits: what a loss reads from memory.
    pub fn reads_wide(&self) -> bool {
        matches!(self, Op::CrossEntropy | Op::SquaredError | Op::SpanCrossEntropy { .. })
    }

    /// Floating-point operations; a multiply and an add are two. Products are exact, the rest is a few per element.
    pub fn flops(&self, inputs: &[&[usize]]) -> u64 {
        let elements = |i: usize| inputs[i].iter().product::<usize>() as u64;
        // `rows x features` times the other side of the product.
        match self {
            Op::Embed { .. }
            | Op::Copy
            | Op::Cast { .. }
            | Op::Fetch
            | Op::Evict
            | Op::CacheWrite
            | Op::Columns { .. }
            | Op::ColumnsGrad { accumulate: false, .. } => 0,
            Op::EmbedGrad { .. }
            | Op::Add
            | Op::Scale { .. }
            | Op::LinearGradBias { .. }
            | Op::ColumnsGrad { accumulate: true, .. } => elements(0),
            Op::Linear { transposed, .. } => 2 * elements(0) * out_in(inputs[1], *transposed)[0] as u64,
            Op::LinearGradInput { transposed, .. } => {
                2 * elements(0) * out_in(inputs[1], *transposed)[1] as u64
            }
            Op::LinearGradWeight { .. } => 2 * elements(0) * inputs[1][1] as u64,
            Op::RmsNorm { .. } => 4 * elements(0),
            Op::RmsNormGradInput { .. } => 8 * elements(0),
            Op::RmsNormGradWeight { .. } => 5 * elements(0),
            Op::LayerNorm { .. } => 7 * elements(0),
            Op::LayerNormGradInput { .. } => 12 * elements(0),
            Op::LayerNormGradWeight { .. } => 8 * elements(0),
            Op::RopeTable { inv_freq } => 3 * elements(0) * inv_freq.len() as u64,
            Op::Rope { .. } => 3 * elements(0),
            // Two products forward, five in reverse; a causal mask leaves half of the scores.
            Op::Attention(spec) => 2 * spec.product(),
            Op::AttentionGrad(spec) => 5 * spec.product(),
            // As if every sequence were as long as it can be.
            Op::CachedAttention(spec) => 4 * (spec.batch * spec.heads * spec.head_dim * spec.capacity) as u64,
            Op::Activate(_) => 5 * elements(0),
            Op::ActivateGrad(_) => 10 * elements(0),
            Op::Gated(_) => 6 * elements(0),
            Op::GatedGrad(_) => 12 * elements(0),
            Op::GatedLinear { transposed, .. } => {
                6 * elements(0) + 2 * elements(0) * out_in(inputs[2], *transposed)[0] as u64
            }
            Op::GatedLinearGrad { transposed, .. } => {
                12 * elements(1) + 2 * elements(0) * out_in(inputs[3], *transposed)[1] as u64
            }
            Op::LinearCrossEntropy { .. } => 2 * elements(0) * inputs[1][0] as u64,
            Op::LinearCrossEntropyGrad { input, weight, .. } => {
                2 * elements(0) * inputs[1][0] as u64 * (1 + u64::from(*input) + u64::from(*weight))
            }
            Op::NormedLossGrad { .. } => elements(0) * (12 + 4 * inputs[2][0] as u64),
            Op::CrossEntropy | Op::SquaredErrorGrad | Op::SpanCrossEntropy { .. } => 4 * elements(0),
            Op::CrossEntropyGrad | Op::SpanCrossEntropyGrad { .. } => 6 * elements(0),
            Op::SquaredError => 3 * elements(0),
            Op::SumSquares { .. } => 2 * elements(0),
            Op::GradFactor { .. } => 3,
            Op::Update { states, .. } => (4 + 6 * *states as u64) * elements(0),
        }
    }

    /// Whether the last input is a sum that the output takes over and adds to.
    pub fn accumulates(&self) -> bool {
        match self {
            Op::EmbedGrad { accumulate, .. }
            | Op::LinearGradInput { accumulate, .. }
            | Op::LinearGradWeight { accumulate, .. }
            | Op::LinearGradBias { accumulate }
            | Op::RmsNormGradInput { accumulate, .. }
            | Op::RmsNormGradWeight { accumulate, .. }
            | Op::LayerNormGradInput { accumulate, .. }
            | Op::LayerNormGradWeight { accumulate, .. }
            | Op::ColumnsGrad { accumulate, .. }
            | Op::LinearCrossEntropyGrad { accumulate, .. }
            | Op::SumSquares { accumulate } => *accumulate,
            Op::Embed { .. }
            | Op::Linear { .. }
            | Op::RmsNorm { .. }
            | Op::LayerNorm { .. }
            | Op::RopeTable { .. }
            | Op::Rope { .. }
            | Op::Attention(_)
            | Op::AttentionGrad(_)
            | Op::Fetch
            | Op::Evict
            | Op::CacheWrite
            | Op::CachedAttention(_)
            | Op::Columns { .. }
            | Op::Activate(_)
            | Op::ActivateGrad(_)
            | Op::Gated(_)
            | Op::GatedGrad(_)
            | Op::GatedLinear { .. }
            | Op::GatedLinearGrad { .. }
            | Op::Scale { .. }
            | Op::Add
            | Op::Copy
            | Op::Cast { .. }
            | Op::LinearCrossEntropy { .. }
            | Op::NormedLossGrad { .. }
            | Op::CrossEntropy
            | Op::CrossEntropyGrad
            | Op::SquaredError
            | Op::SquaredErrorGrad
            | Op::SpanCrossEntropy { .. }
            | Op::SpanCrossEntropyGrad { .. }
            | Op::GradFactor { .. }
            | Op::Update { .. } => false,
        }
    }

    /// Ways to write in place: each is a list of `(output, input)` pairs that hold together, best first. A way may
    /// be taken when all of its inputs die at this instruction.
    pub fn in_place(&self) -> &'static [&'static [(usize, usize)]] {
        match self {
            Op::Rope { .. }
            | Op::Activate(_)
            | Op::ActivateGrad(_)
            | Op::Gated(_)
            | Op::Scale { .. }
            | Op::Copy => &[&[(0, 0)]],
            Op::Add => &[&[(0, 0)], &[(0, 1)]],
            Op::GatedGrad(_) | Op::GatedLinearGrad { .. } => &[&[(0, 1), (1, 2)]],
            Op::RmsNormGradInput { accumulate: false, .. }
            | Op::LayerNormGradInput { accumulate: false, .. } => &[&[(0, 0)]],
            Op::CrossEntropyGrad
            | Op::NormedLossGrad { .. }
            | Op::SquaredErrorGrad
            | Op::SpanCrossEntropyGrad { .. } => &[&[(1, 0)]],
            Op::GatedLinear { .. }
            | Op::Embed { .. }
            | Op::EmbedGrad { .. }
            | Op::Linear { .. }
            | Op::LinearGradInput { .. }
            | Op::LinearGradWeight { .. }
            | Op::LinearGradBias { .. }
            | Op::RmsNorm { .. }
            | Op::RmsNormGradInput { accumulate: true, .. }
            | Op::RmsNormGradWeight { .. }
            | Op::LayerNorm { .. }
            | Op::LayerNormGradInput { accumulate: true, .. }
            | Op::LayerNormGradWeight { .. }
            | Op::RopeTable { .. }
            | Op::Attention(_)
            | Op::AttentionGrad(_)
            | Op::Fetch
            | Op::Evict
            | Op::CacheWrite
            | Op::CachedAttention(_)
            | Op::Columns { .. }
            | Op::ColumnsGrad { .. }
            | Op::Cast { .. }
            | Op::LinearCrossEntropy { .. }
            | Op::LinearCrossEntropyGrad { .. }
            | Op::CrossEntropy
            | Op::SquaredError
            | Op::SpanCrossEntropy { .. }
            | Op::SumSquares { .. }
            | Op::GradFactor { .. }
            | Op::Update { .. } => &[],
        }
    }

    /// Whether running it again costs little beside the products of a layer: one pass over memory.
    pub fn is_cheap(&self) -> bool {
        match self {
            Op::RmsNorm { .. } | Op::LayerNorm { .. } | Op::Activate(_) | Op::Gated(_) => true,
            Op::Embed { .. }
            | Op::EmbedGrad { .. }
            | Op::Linear { .. }
            | Op::LinearGradInput { .. }
            | Op::LinearGradWeight { .. }
            | Op::LinearGradBias { .. }
            | Op::RmsNormGradInput { .. }
            | Op::RmsNormGradWeight { .. }
            | Op::LayerNormGradInput { .. }
            | Op::LayerNormGradWeight { .. }
            | Op::RopeTable { .. }
            | Op::Rope { .. }
            | Op::Attention(_)
            | Op::AttentionGrad(_)
            | Op::Fetch
            | Op::Evict
            | Op::CacheWrite
            | Op::CachedAttention(_)
            | Op::Columns { .. }
            | Op::ColumnsGrad { .. }
            | Op::ActivateGrad(_)
            | Op::GatedGrad(_)
            | Op::GatedLinear { .. }
            | Op::GatedLinearGrad { .. }
            | Op::NormedLossGrad { .. }
            | Op::Scale { .. }
            | Op::Add
            | Op::Copy
            | Op::Cast { .. }
            | Op::LinearCrossEntropy { .. }
            | Op::LinearCrossEntropyGrad { .. }
            | Op::CrossEntropy
            | Op::CrossEntropyGrad
            | Op::SquaredError
            | Op::SquaredErrorGrad
            | Op::SpanCrossEntropy { .. }
            | Op::SpanCrossEntropyGrad { .. }
            | Op::SumSquares { .. }
            | Op::GradFactor { .. }
            | Op::Update { .. } => false,
        }
    }
}

/// A linear layer's `[out, in]` from the shape of its weight, or the shape from `[out, in]`.
fn out_in(shape: &[usize], transposed: bool) -> [usize; 2] {
    if transposed { [shape[1], shape[0]] } else { [shape[0], shape[1]] }
}

impl AttentionSpec {
    /// Queries of a tile.
    fn queries(&self) -> usize {
        if self.seq <= 512 { self.seq.min(64) } else { 128 }
    }

    /// Floats of scratch per thread, forward: one tile of scores, never `seq x seq`.
    pub(super) fn scratch(&self) -> usize {
        self.queries() * self.seq.min(256)
    }

    /// What half numbers need beside that: the results of a tile's queries.
    pub(super) fn sums(&self) -> usize {
        self.queries() * self.head_dim
    }

    /// The same in reverse: a tile's gradients of queries, and those of a head's keys and values.
    pub(super) fn grad_sums(&self) -> usize {
        (self.queries() + 2 * self.seq) * self.head_dim
    }

    /// Floats of scratch per thread, reverse: a tile of probabilities and one of their gradients.
    pub(super) fn grad_scratch(&self) -> usize {
        2 * self.scratch()
    }

    /// Floating-point operations of one product over all scores.
    fn product(&self) -> u64 {
        let all = self.seq * self.seq;
        // The keys that the last `seq - window` queries no longer see are a triangle; a causal mask leaves half.
        let unseen = self.seq - self.window.unwrap_or(self.seq).min(self.seq);
        let twice_seen = if self.causal { all - unseen * unseen } else { 2 * all };
        (self.batch * self.heads * twice_seen * self.head_dim) as u64
    }
}
