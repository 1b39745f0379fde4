//! The numbers on a CPU: pure functions over slices of `f32`, or of half numbers that are read into `f32`, one file per
//! operation.
//!
//! Everything is row-major and contiguous; an activation is `[rows, features]` with `rows = batch * seq`. Forward and
//! gradient stand side by side. Every kernel runs on the current rayon pool, in one pass over memory where one is
//! enough, and is compiled for several instruction sets of which one is chosen at run time.
//!
//! Two promises hold for all of them:
//!
//! - **The same bits** from run to run and for any number of threads: work is cut by the sizes of its operands, and
//!   partial sums are joined in a fixed order.
//! - **No hidden memory**: what a kernel needs beside its operands is an argument (`scratch`) or a small array on the
//!   stack. A byte count of the program is then a byte count of the run.
//!
//! Reading order: [`number`] (32 bits or half of that), [`simd`] (how a loop becomes vector code), [`reduce`] (fixed-order sums), then any operation.
//!
//! This room must not know tensors, models or programs: it sees slices and sizes.

pub mod activation;
pub mod attention;
pub mod cache;
pub mod columns;
pub mod embedding;
pub mod gated;
pub mod layer_norm;
pub mod loss;
pub mod matmul;
pub mod norm;
pub mod number;
pub mod optimizer;
mod product;
pub mod reduce;
pub mod rope;
pub mod simd;

#[cfg(test)]
mod oracle;

use number::Number;

/// Room for `n` numbers that a kernel is about to write, every one of them. Debug builds fill it with NaN.
#[allow(
    unsafe_code,
    clippy::uninit_vec,
    reason = "zeroing costs a pass over memory; kernels write what they are given"
)]
pub fn buffer<T: Number>(n: usize) -> Vec<T> {
    let mut numbers: Vec<T> = Vec::with_capacity(n);
    // SAFETY: the capacity is `n`, every bit pattern is a number of each type, and nothing reads before a kernel has written.
    unsafe { numbers.set_len(n) };
    if cfg!(debug_assertions) {
        numbers.fill(T::nearest(f32::NAN));
    }
    numbers
}
