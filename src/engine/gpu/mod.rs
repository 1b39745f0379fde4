//! The numbers on a GPU: every operation of a program as launches of kernels and matrix products.
//!
//! ```text
//! Program ──player──▶ launches, products ──Machine──▶ a CUDA device, or in the tests a CPU that acts like one
//! ```
//!
//! Reading order: [`kernels`] (the sources, and what they are compiled for), [`machine`] (what is asked of a device),
//! [`player`] (operation by operation), [`update`] (the optimizers), [`words`] (what a driver's codes mean).
//!
//! All launches of a program go to one stream, in its order. No kernel uses atomics, so two runs give the same bits.
//!
//! This room must not know models, plans or files; only [`cuda`] and `management` know that there is a driver.

pub mod check;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod kernels;
pub mod machine;
#[cfg(feature = "cuda")]
mod management;
pub mod player;
pub mod update;
pub mod words;

pub use kernels::Module;
pub use machine::{Arg, Launch, Machine, NO_ROOM, Pin, Product, Room, Ticket, Usage};
pub use player::play;
