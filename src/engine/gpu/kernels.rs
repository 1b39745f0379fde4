//! The sources of the kernels, and what they are compiled for.

use crate::engine::cpu::optimizer::eight_bit;
use crate::program::{Op, Program, Role};
use crate::units::Dtype;

/// The language of the device: conversions, tensor cores, shared memory.
pub const DEVICE: &str = include_str!("kernels/cuda.cuh");

/// The kernels, in the order in which each may use what stands before it.
pub const SOURCES: [(&str, &str); 7] = [
    ("common.cuh", include_str!("kernels/common.cuh")),
    ("values.cu", include_str!("kernels/values.cu")),
    ("rows.cu", include_str!("kernels/rows.cu")),
    ("loss.cu", include_str!("kernels/loss.cu")),
    ("attention.cu", include_str!("kernels/attention.cu")),
    ("cache.cu", include_str!("kernels/cache.cu")),
    ("optimizer.cu", include_str!("kernels/optimizer.cu")),
];

/// All kernels as one text, to be compiled behind [`DEVICE`] or what stands in for it.
pub fn source() -> String {
    let [common, rest @ ..] = SOURCES.map(|(_, source)| source);
    [&[common, &table("SIGNED", true), &table("UNSIGNED", false)][..], &rest].concat().join("\n")
}

/// What the codes of an 8-bit moment stand for.
fn table(name: &str, signed: bool) -> String {
    let values = eight_bit::values(signed).map(|x| format!("{x:e}f")).join(", ");
    format!("static __device__ const float {name}[256] = {{ {values} }};\n")
}

/// What the sources are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Module {
    /// Of activations and weights.
    pub real: Dtype,
    /// Numbers of an attention head, rounded up to 16.
    pub head_dim: usize,
}

impl Module {
    /// What a program needs.
    pub fn of(program: &Program) -> Self {
        let head_dim = program.instrs.iter().find_map(|instr| match &instr.op {
            Op::Attention(spec) | Op::AttentionGrad(spec) => Some(spec.head_dim),
            Op::CachedAttention(spec) => Some(spec.head_dim),
            _ => None,
        });
        let half = program.values.iter().find_map(|value| match (value.role, value.dtype) {
            (Role::Weight(_) | Role::Activation | Role::Flow, dtype @ (Dtype::F16 | Dtype::Bf16)) => {
                Some(dtype)
            }
            _ => None,
        });
        Self { real: half.unwrap_or(Dtype::F32), head_dim: head_dim.unwrap_or(16).next_multiple_of(16) }
    }

    /// What the preprocessor is told: names and their values.
    pub fn defines(&self) -> [(&'static str, String); 3] {
        let real = match self.real {
            Dtype::F32 => "float",
            Dtype::Bf16 => "bf16",
            Dtype::F16 => "f16",
            Dtype::U32 => unreachable!("activations are floats"),
        };
        [
            ("REAL", real.to_owned()),
            ("REAL_BYTES", self.real.size().to_string()),
            ("HEAD_DIM", self.head_dim.to_string()),
        ]
    }

    /// Rows of the tile that a block of the attention kernels owns, and of those that it goes through; as
    /// `attention.cu` has it.
    fn tiles(&self) -> (usize, usize) {
        match (self.real.size(), self.head_dim) {
            (2, ..=128) => (64, 64),
            (2, _) => (32, 32),
            (_, ..=64) => (64, 32),
            (_, ..=128) => (32, 32),
            (_, _) => (16, 16),
        }
    }

    /// Rows that a block of the attention kernels owns.
    pub fn own(&self) -> usize {
        self.tiles().0
    }

    /// Bytes of shared memory that an attention kernel asks for: `own` and `others` tiles of rows, and one of scores.
    pub fn shared_bytes(&self, own: usize, others: usize) -> u32 {
        let (owned, passed) = self.tiles();
        let size = self.real.size() as usize;
        let pad = 16 / size;
        let rows = (own * owned + others * passed) * (self.head_dim + pad);
        ((rows + owned * (passed + pad)) * size) as u32
    }
}

/// The names of all kernels.
pub fn names() -> impl Iterator<Item = &'static str> {
    SOURCES.iter().flat_map(|(_, source)| {
        source.split("extern \"C\" __global__ void").skip(1).map(|rest| {
            // `__launch_bounds__(…)` may stand before the name.
            let rest = rest.trim_start();
            let rest = rest.strip_prefix("__launch_bounds__(32 * WARPS)").unwrap_or(rest).trim_start();
            &rest[..rest.find('(').expect("a kernel has parameters")]
        })
    })
}
