//! Text to [`Pipeline`]: the language of `.hift` files.
//!
//! ```text
//! text ── parse ──▶ File ── resolve ──▶ Pipeline
//! ```
//!
//! Reading order: `grammar/hift.pest` (what can be written), [`syntax`] (the tree), [`schema`] (what every block
//! and key means, in one table), [`mod@resolve`] (the tree against the table), [`pipeline`] (what comes out),
//! [`mod@render`] (problems, drawn). `scan` and `wording` find the words for a text that the grammar does not match.
//!
//! Every pass reports all that it finds, and nothing here panics on any text. This room must not know tensors,
//! models or the machine: that a file exists or a layer is called so is not asked here.

pub mod parse;
pub mod pipeline;
pub mod render;
pub mod resolve;
pub mod schema;
pub mod syntax;

mod names;
mod scan;
mod wording;

use crate::problem::Problems;

pub use parse::{parse, parse_value};
pub use pipeline::Pipeline;
pub use render::{Look, Source, applied, render};
pub use resolve::{Options, resolve};
pub use syntax::File;

/// Parses and resolves in one go: the pipeline, if there is no error, and everything that is wrong.
pub fn check(text: &str, options: &Options) -> (Option<Pipeline>, Problems) {
    let (file, mut problems) = parse(text);
    let (pipeline, found) = resolve(&file, options);
    let pipeline = pipeline.filter(|_| !problems.has_errors());
    problems.0.extend(found.0);
    resolve::sort(&mut problems);
    (pipeline, problems)
}
