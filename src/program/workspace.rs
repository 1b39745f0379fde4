//! Scratch: what an operation holds while it runs, beside its operands, on each kind of device.

use crate::units::{Bytes, Dtype};

use super::Op;

/// What a program is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Each thread has scratch of its own.
    Cpu {
        threads: usize,
    },
    Gpu,
}

/// Threads of a processor.
impl From<usize> for Backend {
    fn from(threads: usize) -> Self {
        Backend::Cpu { threads }
    }
}

/// Blocks that share a loop over a whole buffer on a GPU, at most; and the parts of a sum that is formed in two steps.
pub const GPU_BLOCKS: usize = 1024;

/// Blocks of 256 threads for a loop over `n` numbers.
pub fn gpu_blocks(n: usize) -> usize {
    n.div_ceil(256).clamp(1, GPU_BLOCKS)
}

/// Bytes that an update may use on a GPU: the parts of two sums, and 128 numbers.
pub const GPU_UPDATE: usize = 2 * 8 * GPU_BLOCKS + 512;

impl Op {
    /// Scratch in bytes that is held while the operation runs, beyond its inputs and outputs. `dtype` is what it
    /// computes on: half numbers are summed in 32 bits.
    pub fn workspace(&self, inputs: &[&[usize]], dtype: Dtype, backend: Backend) -> Bytes {
        let half = dtype.size() < 4;
        let elements = |i: usize| inputs[i].iter().product::<usize>();
        // What each thread of a processor needs, and what a GPU needs.
        let on = |of_thread: usize, on_gpu: usize| match backend {
            Backend::Cpu { threads } => threads * of_thread,
            Backend::Gpu => on_gpu,
        };
        let floats = match self {
            Op::Attention(spec) => on(spec.scratch() + if half { spec.sums() } else { 0 }, 0),
            // On a GPU what each query's gradient and result have in common.
            Op::AttentionGrad(spec) => {
                let of_thread = spec.grad_scratch() + if half { spec.grad_sums() } else { 0 };
                on(of_thread, spec.batch * spec.seq * spec.heads)
            }
            // The scores of a query, and the query and its result in 32 bits.
            Op::CachedAttention(spec) => on(spec.capacity + 2 * spec.head_dim, 0),
            // The logits; on a GPU each row's loss, too, and whether it is right.
            Op::LinearCrossEntropy { chunk, .. } | Op::LinearCrossEntropyGrad { chunk, .. } => {
                chunk.min(&inputs[0][0]) * inputs[1][0] + on(0, 2 * inputs[0][0])
            }
            Op::CrossEntropy | Op::CrossEntropyGrad | Op::SquaredError | Op::SquaredErrorGrad => {
                on(0, 2 * inputs[0][0])
            }
            Op::SpanCrossEntropy { .. } | Op::SpanCrossEntropyGrad { .. } => on(0, 2 * inputs[1][0] / 3),
            // As above, and a chunk of what the norm gives, or of its gradient.
            Op::NormedLossGrad { chunk, .. } => {
                let (chunk, row) = ((*chunk).min(inputs[0][0]), inputs[0][1]);
                let normed = if half { (chunk * row).div_ceil(2) } else { chunk * row };
                chunk * inputs[2][0] + normed + on(0, 2 * inputs[0][0])
            }
            // A chunk of what the product reads, or of its gradient.
            Op::GatedLinear { chunk, .. } | Op::GatedLinearGrad { chunk, .. } => {
                let gate = inputs[usize::from(matches!(self, Op::GatedLinearGrad { .. }))];
                let numbers = chunk.min(&gate[0]) * gate[1];
                if half { numbers.div_ceil(2) } else { numbers }
            }
            // The frequencies.
            Op::RopeTable { inv_freq } => on(0, inv_freq.len()),
            // Mean and scale of each row.
            Op::RmsNormGradWeight { width, .. } => on(0, 2 * elements(0) / width),
            Op::LayerNormGradWeight { .. } => on(0, 2 * inputs[0][0]),
            // A double for each part.
            Op::SumSquares { .. } => on(0, 2 * gpu_blocks(elements(0))),
            // A half weight without a master is widened, changed, and rounded at random.
            Op::Update { master, .. } => {
                let widened = if half && !master { elements(0) } else { 0 };
                widened + on(0, GPU_UPDATE / 4)
            }
            Op::Embed { .. }
            | Op::EmbedGrad { .. }
            | Op::Linear { .. }
            | Op::LinearGradInput { .. }
            | Op::LinearGradWeight { .. }
            | Op::LinearGradBias { .. }
            | Op::RmsNorm { .. }
            | Op::RmsNormGradInput { .. }
            | Op::LayerNorm { .. }
            | Op::LayerNormGradInput { .. }
            | Op::Rope { .. }
            | Op::Fetch
            | Op::Evict
            | Op::CacheWrite
            | Op::Columns { .. }
            | Op::ColumnsGrad { .. }
            | Op::Activate(_)
            | Op::ActivateGrad(_)
            | Op::Gated(_)
            | Op::GatedGrad(_)
            | Op::Scale { .. }
            | Op::Add
            | Op::Copy
            | Op::Cast { .. }
            | Op::GradFactor { .. } => 0,
        };
        Bytes(4 * floats as u64)
    }
}
