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
        match backend {
            Backend::Cpu { threads } => self.on_cpu(inputs, dtype, threads),
            Backend::Gpu => self.on_gpu(inputs, dtype),
        }
    }

    fn on_cpu(&self, inputs: &[&[usize]], dtype: Dtype, threads: usize) -> Bytes {
        let half = dtype.size() < 4;
        let floats = match self {
            Op::Attention(spec) => threads * (spec.scratch() + if half { spec.sums() } else { 0 }),
            Op::AttentionGrad(spec) => {
                threads * (spec.grad_scratch() + if half { spec.grad_sums() } else { 0 })
            }
            // The scores of a query, and the query and its result in 32 bits.
            Op::CachedAttention(spec) => threads * (spec.capacity + 2 * spec.head_dim),
            // A half weight without a master is widened, changed, and rounded at random.
            Op::Update { master: false, .. } if half => inputs[0].iter().product(),
            Op::LinearCrossEntropy { chunk, .. } | Op::LinearCrossEntropyGrad { chunk, .. } => {
                chunk.min(&inputs[0][0]) * inputs[1][0]
            }
            Op::Embed { .. }
            | Op::EmbedGrad { .. }
            | Op::Linear { .. }
            | Op::LinearGradInput { .. }
            | Op::LinearGradWeight { .. }
            | Op::LinearGradBias { .. }
            | Op::RmsNorm { .. }
            | Op::RmsNormGradInput { .. }
            | Op::RmsNormGradWeight { .. }
            | Op::LayerNorm { .. }
            | Op::LayerNormGradInput { .. }
            | Op::LayerNormGradWeight { .. }
            | Op::RopeTable { .. }
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
            | Op::CrossEntropy
            | Op::CrossEntropyGrad
            | Op::SquaredError
            | Op::SquaredErrorGrad
            | Op::SpanCrossEntropy { .. }
            | Op::SpanCrossEntropyGrad { .. }
            | Op::SumSquares { .. }
            | Op::GradFactor { .. }
            | Op::Update { .. } => 0,
        };
        Bytes(4 * floats as u64)
    }

    fn on_gpu(&self, inputs: &[&[usize]], dtype: Dtype) -> Bytes {
        let elements = |i: usize| inputs[i].iter().product::<usize>();
        let floats = match self {
            // What each query's gradient and result have in common.
            Op::AttentionGrad(spec) => spec.batch * spec.seq * spec.heads,
            // The frequencies.
            Op::RopeTable { inv_freq } => inv_freq.len(),
            // Mean and scale of each row.
            Op::RmsNormGradWeight { width, .. } => 2 * elements(0) / width,
            Op::LayerNormGradWeight { .. } => 2 * inputs[0][0],
            // The logits, and each row's loss and whether it is right.
            Op::LinearCrossEntropy { chunk, .. } | Op::LinearCrossEntropyGrad { chunk, .. } => {
                chunk.min(&inputs[0][0]) * inputs[1][0] + 2 * inputs[0][0]
            }
            Op::CrossEntropy | Op::CrossEntropyGrad | Op::SquaredError | Op::SquaredErrorGrad => {
                2 * inputs[0][0]
            }
            Op::SpanCrossEntropy { .. } | Op::SpanCrossEntropyGrad { .. } => 2 * inputs[1][0] / 3,
            // A double for each part.
            Op::SumSquares { .. } => 2 * gpu_blocks(elements(0)),
            Op::Update { master, .. } => {
                let widened = if *master || dtype.size() == 4 { 0 } else { elements(0) };
                widened + GPU_UPDATE / 4
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
            | Op::Attention(_)
            | Op::Fetch
            | Op::Evict
            | Op::CacheWrite
            | Op::CachedAttention(_)
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
