//! Text to [`Pipeline`].

pub mod pipeline;

pub use pipeline::Pipeline;
