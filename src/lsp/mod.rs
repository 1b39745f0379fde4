//! A language server for `.hift` files: what an editor asks while someone writes.
//!
//! ```text
//! editor ── messages ──▶ server ── edits ──▶ workspace ── lang::read ──▶ Analysis ─┬─▶ diagnostics, at once
//!                          │                                                       └─▶ worker ── plan, estimate
//!                          └─ place, symbols ─▶ complete, hover, navigate                  └─▶ diagnostics, hints
//! ```
//!
//! Reading order: [`text`] (places as editors count them), [`workspace`] (documents and what they come to), [`place`]
//! (what belongs at a cursor, by tokens), [`symbols`] (where names are defined and used), then what is answered:
//! [`complete`], [`hover`], [`navigate`], [`diagnose`], [`outline`], [`hints`]; [`worker`] plans beside it, and
//! [`server`] is the conversation.
//!
//! Everything works on files with mistakes. An open document stands for its file, saved or not. This room knows no
//! tensor and loads no weights; what a plan needs of the machine comes through [`Machine`].

pub mod complete;
pub mod diagnose;
pub mod hints;
pub mod hover;
pub mod manual;
pub mod navigate;
pub mod outline;
pub mod place;
pub mod server;
pub mod symbols;
pub mod text;
pub mod worker;
pub mod workspace;

use std::sync::Arc;

use crate::estimate::Estimate;
use crate::lang::{Outside, Pipeline};
use crate::plan::Plan;
use crate::problem::Problems;

pub use server::serve;

/// What a server asks of the machine that it runs on.
#[derive(Clone)]
pub struct Machine {
    /// Files that are not open in the editor, and the environment.
    pub outside: Arc<dyn Outside + Send + Sync>,
    pub plan: Planner,
}

/// Plans a pipeline, with a look at its rows or without, and estimates it; what is wrong with it apart from the
/// language. Stops when nobody wants to know any more.
pub type Planner = fn(&Pipeline, rows: bool, stop: &dyn Fn() -> bool) -> (Problems, Option<(Plan, Estimate)>);
