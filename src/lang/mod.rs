//! Text to [`Pipeline`]: the language of `.hift` files.
//!
//! ```text
//! text ── parse ──▶ File ── load ──▶ Loaded ── resolve ──▶ Pipeline
//!                            ▲ imports
//! ```
//!
//! Reading order: `grammar/hift.pest` (what can be written), [`syntax`] (the tree), [`schema`] (what every block
//! and key means, in one table), [`mod@resolve`] (the tree against the table), [`pipeline`] (what comes out),
//! [`mod@render`] (problems, drawn). `scan` and `wording` find the words for a text that the grammar does not match.
//!
//! Every pass reports all that it finds, and nothing here panics on any text. This room must not know tensors,
//! models or the machine: that a file exists or a layer is called so is not asked here.

pub mod load;
pub mod parse;
pub mod pipeline;
pub mod render;
pub mod resolve;
pub mod schema;
pub mod source;
pub mod syntax;

mod edit;
mod fix;
mod lookalike;
mod merge;
mod names;
mod scan;
mod wording;

use crate::problem::{Problem, Problems};

pub use fix::{Change, Fixed, apply, fix};
pub use load::{Loaded, load};
pub use names::nearest;
pub use parse::{parse, parse_value};
pub use pipeline::Pipeline;
pub use render::{Look, render};
pub use resolve::{Options, Outside, resolve};
pub use source::{Source, Sources};
pub use syntax::File;

/// A file that has been read: what it means, and what is wrong with it.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Nothing exactly if a problem is an error.
    pub pipeline: Option<Pipeline>,
    pub problems: Problems,
    /// The file and what it imports: what the problems point into.
    pub loaded: Loaded,
}

impl Reading {
    pub fn sources(&self) -> &Sources {
        &self.loaded.sources
    }
}

/// More mistakes than this are not told: nobody reads them, and most follow from the first ones.
const MAX_PROBLEMS: usize = 1000;

/// The most profiles that a file may have: each is checked, applied or not.
const MAX_PROFILES: usize = 32;

/// Reads a file with what it imports, and resolves it. Profiles that are not chosen are checked, too.
pub fn read(source: Source, options: &Options) -> Reading {
    let (loaded, mut problems) = load(source, options);
    let (pipeline, found) = resolve(&loaded, options);
    let pipeline = pipeline.filter(|_| !problems.has_errors());
    let place = |problem: &Problem| (problem.code, problem.labels.first().map(|label| label.span));
    // A text in wrong quotes that should have none at all is one mistake.
    let said_better = |problem: &Problem| found.0.iter().any(|other| place(other) == place(problem));
    problems.0.retain(|problem| problem.code != "hift::lang::quotes" || !said_better(problem));
    problems.0.extend(found.0);
    let others = in_profiles(&loaded, options);
    let known = |problem: &Problem| problems.0.iter().any(|other| place(other) == place(problem));
    let others: Vec<Problem> = others.into_iter().filter(|problem| !known(problem)).collect();
    problems.0.extend(others);
    if problems.has_errors() {
        // What is used cannot be said of a file that is not understood.
        problems.0.retain(|problem| !matches!(problem.code, "hift::lang::unused" | "hift::lang::no_stage"));
    }
    resolve::sort(&mut problems);
    if let Some(first) = problems.0.get(MAX_PROBLEMS) {
        let place = first.labels.first().map(|label| label.span);
        problems.0.truncate(MAX_PROBLEMS);
        problems.push(
            Problem::new("hift::lang::too_much", format!("more than {MAX_PROBLEMS} mistakes"))
                .label_at(place, "from here on, none is told")
                .help("correct the first ones; many may follow from them"),
        );
    }
    Reading { pipeline: pipeline.filter(|_| !problems.has_errors()), problems, loaded }
}

/// What is wrong when another profile applies.
fn in_profiles(loaded: &Loaded, options: &Options) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (i, profile) in merge::profiles(&loaded.file).enumerate() {
        if i == MAX_PROFILES {
            problems.push(
                Problem::new("hift::lang::too_much", format!("a file has more than {MAX_PROFILES} profiles"))
                    .label(profile.head(), "one too many")
                    .help("give a `param` another value with `--set` instead"),
            );
            break;
        }
        let Some(name) = profile.name.as_ref().filter(|name| !options.profiles.contains(&name.text)) else {
            continue;
        };
        let options = Options { profiles: vec![name.text.clone()], ..options.clone() };
        let (_, found) = resolve(loaded, &options);
        for mut problem in found.0.into_iter().filter(Problem::is_error) {
            problem.message = format!("with the profile `{}`, {}", name.text, problem.message);
            problems.push(problem);
        }
    }
    problems
}

/// Reads a text that is a file by itself: the pipeline, if there is no error, and everything that is wrong.
pub fn check(text: &str, options: &Options) -> (Option<Pipeline>, Problems) {
    let reading = read(Source::new("", text), options);
    (reading.pipeline, reading.problems)
}
