//! hift fine-tunes every weight of a language model on one small device.

pub mod cli;
pub mod estimate;
pub mod lang;
pub mod model;
pub mod plan;
pub mod problem;
pub mod program;
pub mod random;
pub mod report;
pub mod units;
pub mod weights;

#[cfg(feature = "run")]
pub mod data;
#[cfg(feature = "run")]
pub mod engine;
#[cfg(feature = "run")]
pub mod run;
