//! Plays programs with tensors. The only room that knows candle.
//!
//! Reading order: [`player`] (a program, instruction by instruction), [`store`] (weights and optimizer states),
//! [`resting`] (where they lie), `leaving` (what is still on its way there), [`update`] (which kernel
//! changes a weight), [`access`] (from candle's tensors to slices), [`cpu`] (the kernels), [`gpu`] (the same on a GPU), [`devices`] (which of them computes), [`files`] (tensors on disk), [`memory`] (what was really allocated).
//!
//! Candle holds the tensors; its autograd is not used. `backward` forms the gradients of frozen operands, pins
//! activations through them, and stops in silence at its fused norms, softmax and rotary positions. The tests use
//! it, over plain operations, as the oracle.
//!
//! This room must not know models, files of a run, or why a program looks as it does.

pub mod access;
pub mod cpu;
pub mod devices;
pub mod files;
pub mod gpu;
mod leaving;
pub mod memory;
pub mod player;
pub mod resting;
pub mod store;
pub mod update;

pub use candle_core::{Device, Tensor};
pub use devices::Devices;
pub use player::{Inputs, Knobs, Played, play};
pub use resting::Resting;
pub use store::{Parameters, Place, Store};
