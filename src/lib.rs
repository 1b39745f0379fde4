//! hift fine-tunes every weight of a language model on one small device, from one declarative file, and says before
//! anything is loaded what it will cost.
//!
//! # The map
//!
//! ```text
//!                 lang::check            plan::compile, estimate::settle
//!     .hift text ────────────▶ Pipeline ─────────────▶ Plan ──┬─ estimate::estimate ─▶ Estimate ─▶ report
//!                                          ▲                  │
//!                     model::Model, data ──┘                  └─ run::execute ─▶ run directory
//!
//!     model ─ Builder ─▶ Graph ─ program::step_programs ─▶ Program ──┬─ estimate::play (byte counters) ─▶ Peak
//!                                                                    └─ engine::play (tensors) ─▶ loss, new weights
//! ```
//!
//! Each arrow is one function, each noun one type that can be printed, compared and tested by itself. Nothing flows
//! back. A training step is a [`program::Program`]: data that is played twice, with counters and with tensors, so
//! that the estimate cannot drift from the run.
//!
//! # The rooms, and whom each may know
//!
//! `problem`, `units` and `random` are words that every room speaks. The test `rooms` holds this table against the
//! `use crate::` lines.
//!
//! | room | what it does | knows |
//! | --- | --- | --- |
//! | `lang` | text to [`lang::Pipeline`], and what is wrong with it | |
//! | `program` | a training step as data: operations, reverse, lifetimes | |
//! | `model` | a `config.json` to parameters, layers and a forward pass | `program` |
//! | `weights` | the tensors of a Hugging Face directory | `model` |
//! | `plan` | which parameters train at which step, at which rate | `lang`, `model`, `program` |
//! | `estimate` | plays programs with byte counters | `lang`, `plan`, `program` |
//! | `hub` | repositories on the Hugging Face Hub, as files in its cache | `lang`, `lock`, `weights` |
//! | `lock` | inputs by content, and what has drifted | |
//! | `data` | files to token batches, with an audit | `hub`, `lang`, `lock` |
//! | `engine` | plays programs with tensors; the only room that knows candle | `lang`, `model`, `plan`, `program`, `weights` |
//! | `run` | executes a plan in a run directory | `data`, `engine`, `estimate`, `lang`, `lock`, `model`, `plan`, `program`, `weights` |
//! | `explain` | what every code of a problem means, with examples | `lang` |
//! | `report` | plans, models, rows, problems and the language as people and machines look at them | `data`, `estimate`, `explain`, `lang`, `lock`, `model`, `plan` |
//! | `lsp` | what an editor asks while someone writes | `estimate`, `lang`, `model`, `plan`, `report` |
//! | `cli` | arguments, files, printing | all |
//!
//! What each must not know: `lang` no tensor and no model; `lock` no
//! pipeline; `program` no model, and of devices what scratch operations need there and in which chunks they work; `model`,
//! `plan` and `estimate` no tensor and no open file; `data` no model beyond its limits; `engine` no files of a run; `report`
//! decides nothing. `lang`, `program`, `model`, `plan`, `estimate`, `report` and `lsp` build without candle
//! (`--no-default-features`): a check and an estimate need no tensor library, no weights and no GPU.

pub mod cli;
pub mod estimate;
pub mod explain;
pub mod lang;
pub mod lock;
pub mod lsp;
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
pub mod hub;
#[cfg(feature = "run")]
pub mod run;
