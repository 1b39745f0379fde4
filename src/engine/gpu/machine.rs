//! What is asked of a device: room for tensors, launches of kernels, products of matrices.

use candle_core::{Device, Result, Tensor};

use crate::units::Dtype;

use super::kernels::Module;

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// An address on the device; 0 for none.
    Pointer(u64),
    U32(u32),
    U64(u64),
    I32(i32),
    F32(f32),
}

/// A call of a kernel by `grid` blocks of `block` threads.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch<'a> {
    pub module: Module,
    pub kernel: &'static str,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Bytes of shared memory beside what the kernel declares.
    pub shared_bytes: u32,
    pub args: &'a [Arg],
}

/// `c = a b + beta c`, with `c` of `m x n`, `a` of `m x k` and `b` of `k x n` numbers, row by row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: u64,
    /// From row to row of what lies at `a`.
    pub lda: usize,
    /// What lies at `a` is `k x m`.
    pub a_turned: bool,
    pub b: u64,
    pub ldb: usize,
    /// What lies at `b` is `n x k`.
    pub b_turned: bool,
    /// Of `a` and `b`.
    pub dtype: Dtype,
    pub c: u64,
    pub ldc: usize,
    /// Of `c`: as `a` and `b`, or 32-bit floats.
    pub c_dtype: Dtype,
    pub beta: f32,
}

/// A device. Everything that it is asked for happens in order.
pub trait Machine {
    /// Where candle keeps its tensors.
    fn device(&self) -> &Device;

    /// A new tensor whose numbers are whatever was there.
    ///
    /// # Errors
    /// When the device has no room for it.
    fn fresh(&self, shape: &[usize], dtype: Dtype) -> Result<Tensor>;

    /// A new tensor of words.
    ///
    /// # Errors
    /// As [`Machine::fresh`].
    fn upload(&self, words: Vec<u32>, shape: &[usize]) -> Result<Tensor>;

    /// Where a tensor's first number lies.
    ///
    /// # Errors
    /// When the tensor is elsewhere.
    fn address(&self, tensor: &Tensor) -> Result<u64>;

    /// # Errors
    /// When the kernel does not compile or start.
    fn launch(&self, launch: &Launch<'_>) -> Result<()>;

    /// # Errors
    /// When the library refuses.
    fn multiply(&self, product: &Product) -> Result<()>;
}
