//! What is asked of a device: room for tensors, launches of kernels, products of matrices.

use std::any::Any;

use candle_core::{Device, Result, Tensor};

use crate::units::{Bytes, Dtype};

use super::super::resting::Resting;
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
    /// 32-bit operands may be rounded to 19 bits.
    pub tf32: bool,
    pub c: u64,
    pub ldc: usize,
    /// Of `c`: as `a` and `b`, or 32-bit floats.
    pub c_dtype: Dtype,
    pub beta: f32,
}

/// How the error begins that a device gives which has no room for a tensor.
pub const NO_ROOM: &str = "the device has no room";

/// A copy under way between the host's memory and the device's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// What tensors have taken of a device's memory, at the most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// What they had.
    pub used: Bytes,
    /// What was taken from the device to give it to them.
    pub reserved: Bytes,
}

/// How a device's memory is shared out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    pub total: Bytes,
    pub free: Bytes,
    /// Of this process, with what the driver and libraries take for it, where that can be told.
    pub own: Option<Bytes>,
    /// Other processes, such as `python3 (process 4711)`, and what they have, the largest first.
    pub others: Vec<(String, Bytes)>,
}

impl Room {
    /// Who else takes the device's memory, in words.
    pub fn others(&self) -> String {
        let known: Vec<String> =
            self.others.iter().map(|(who, bytes)| format!("{who} has {bytes}")).collect();
        if known.is_empty() {
            "other processes and the driver have the rest".to_owned()
        } else {
            known.join(", ")
        }
    }
}

/// Host memory that a device reads and writes by itself, until this is dropped.
pub type Pin = Box<dyn Any + Send + Sync>;

/// A device. Everything that it is asked for happens in order, but for the copies that [`Machine::fetch`] and
/// [`Machine::evict`] begin: they are done when [`Machine::wait`] says so.
pub trait Machine: Send + Sync {
    /// Where candle keeps its tensors.
    fn device(&self) -> &Device;

    /// What tells it from all other devices of the world.
    fn uuid(&self) -> Option<String>;

    /// A new tensor whose numbers are whatever was there.
    ///
    /// # Errors
    /// When the device has no room for it: [`NO_ROOM`], and what takes it.
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

    /// Begins to copy a tensor of the host or of its disk to one of the device, which nobody reads before [`Machine::wait`].
    ///
    /// # Errors
    /// When the driver refuses.
    fn fetch(&self, home: &Resting, to: &Tensor) -> Result<Ticket>;

    /// Begins to copy a tensor of the device, as it is after what was launched before, to one of the host or of its disk.
    /// Nobody writes into it or lets it go before [`Machine::wait`].
    ///
    /// # Errors
    /// When the driver refuses.
    fn evict(&self, from: &Tensor, home: &Resting) -> Result<Ticket>;

    /// What is launched from here on comes after the copy; the host does not wait.
    ///
    /// # Errors
    /// When the driver refuses.
    fn wait(&self, copy: Ticket) -> Result<()>;

    /// What is fetched from here on comes after the copy, which is still to be waited for.
    ///
    /// # Errors
    /// When the driver refuses.
    fn precede(&self, copy: &Ticket) -> Result<()>;

    /// Waits until all that was asked for is done: then the host may read what was brought back to it.
    ///
    /// # Errors
    /// When something that was launched has failed.
    fn settle(&self) -> Result<()>;

    /// Lets copies of a tensor of the host go at full speed beside the computation. None where that cannot be had; they
    /// are slower then.
    fn pin(&self, home: &Tensor) -> Option<Pin>;

    /// The most memory that tensors have taken since [`Machine::reset_peak`], where the device counts it.
    ///
    /// # Errors
    /// When the driver does not say.
    fn peak(&self) -> Result<Option<Usage>>;

    /// How its memory is shared out now; None where nobody says.
    fn room(&self) -> Option<Room>;

    /// # Errors
    /// When the driver refuses.
    fn reset_peak(&self) -> Result<()>;
}
