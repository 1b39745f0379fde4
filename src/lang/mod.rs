//! Text to [`Pipeline`]: the language of `.hift` files.
//!
//! ```text
//! text ── parse ──▶ File ── load ──▶ Loaded ── resolve ──┬─▶ Pipeline
//!                            ▲ imports                    └─▶ Resolved (the same, with the origin of each value)
//! ```
//!
//! Reading order: `grammar/hift.pest` (what can be written), [`syntax`] (the tree), [`schema`] (what every block
//! and key means, in one table), [`mod@resolve`] (the tree against the table), [`pipeline`] and [`resolved`] (what comes
//! out), [`mod@render`] (problems, drawn), [`mod@format`] (a text in its one layout). `scan` and `wording` find the words
//! for a text that the grammar does not match.
//!
//! Every pass reports all that it finds, and nothing here panics on any text. This room must not know tensors,
//! models or the machine: that a file exists or a layer is called so is not asked here.

pub mod format;
pub mod load;
pub mod parse;
pub mod pipeline;
pub mod render;
pub mod resolve;
pub mod resolved;
pub mod scan;
pub mod schema;
pub mod source;
pub mod syntax;

mod edit;
mod fix;
mod lookalike;
mod merge;
mod names;
mod wording;

use crate::problem::{Problem, Problems, Span};

pub use fix::{Change, Fixed, apply, fix};
pub use format::format;
pub use load::{Loaded, load};
pub use names::nearest;
pub use parse::{parse, parse_value};
pub use pipeline::Pipeline;
pub use render::{Look, render};
pub use resolve::{Options, Outside, Resolution, Scope, resolve};
pub use resolved::Resolved;
pub use source::{Source, Sources};
pub use syntax::File;

/// A file that has been read: what it means, and what is wrong with it.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Nothing exactly if a problem is an error.
    pub pipeline: Option<Pipeline>,
    /// Every value with its origin: whole if there is a pipeline, and else what is known.
    pub resolved: Resolved,
    pub problems: Problems,
    /// The file and what it imports: what the problems point into.
    pub loaded: Loaded,
}

impl Reading {
    pub fn sources(&self) -> &Sources {
        &self.loaded.sources
    }
}

/// The most profiles that a file may have: each is checked, applied or not.
const MAX_PROFILES: usize = 32;

/// Text that is read for all profiles together, in bytes.
const MAX_PROFILED: usize = 4 << 20;

/// Mistakes after which the rest of a file is not looked at.
const MAX_PROBLEMS: usize = 1000;

fn no_more(at: Span) -> Problem {
    Problem::new("hift::lang::too_much", format!("there are more than {MAX_PROBLEMS} mistakes"))
        .label(at, "not looked at from here on")
        .help("correct the first ones, and look again")
}

/// Whether so much is wrong that `at` and what comes behind it is not looked at; says so once.
fn too_many(problems: &mut Problems, at: Span) -> bool {
    // Warnings stop nothing.
    if problems.0.len() < MAX_PROBLEMS || problems.n_errors() < MAX_PROBLEMS {
        return false;
    }
    if !problems.0.iter().rev().any(is_no_more) {
        problems.push(no_more(at));
    }
    true
}

/// Whether a problem says that there are too many.
fn is_no_more(problem: &Problem) -> bool {
    problem.code == "hift::lang::too_much" && problem.message == no_more(Span::default()).message
}

/// Reads a file with what it imports, and resolves it. Profiles that are not chosen are checked, too.
pub fn read(source: Source, options: &Options) -> Reading {
    let (loaded, mut problems) = load(source, options);
    let Resolution { pipeline, resolved, problems: found } = resolve(&loaded, options);
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
    // Of as many warnings, nobody misses the last ones.
    let mut room = MAX_PROBLEMS.saturating_sub(problems.n_errors());
    problems.0.retain(|problem| {
        let stays = problem.is_error() || room > 0;
        room -= usize::from(stays && !problem.is_error());
        stays
    });
    if problems.0.len() > MAX_PROBLEMS {
        // Several passes may have come to their end: that is said once, behind what is told.
        problems.0.retain(|problem| !is_no_more(problem));
        let rest = problems.0.split_off(MAX_PROBLEMS.min(problems.0.len()));
        let place = rest.first().or(problems.0.last()).and_then(|problem| problem.labels.first());
        let end = no_more(place.map_or(Span::default(), |label| label.span));
        problems.push(end);
    }
    Reading { pipeline: pipeline.filter(|_| !problems.has_errors()), resolved, problems, loaded }
}

/// What is wrong when another profile applies.
fn in_profiles(loaded: &Loaded, options: &Options) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (i, profile) in merge::profiles(&loaded.file).enumerate() {
        if i == MAX_PROFILES || (i + 1) * loaded.sources.end() > MAX_PROFILED {
            let too_many = match i == MAX_PROFILES {
                true => format!("a file has more than {MAX_PROFILES} profiles"),
                false => format!("the file is too large for more than {i} profiles"),
            };
            problems.push(
                Problem::new("hift::lang::too_much", too_many)
                    .label(profile.head(), "one too many")
                    .help("give a `param` another value with `--set` instead"),
            );
            break;
        }
        let Some(name) = profile.name.as_ref().filter(|name| !options.profiles.contains(&name.text)) else {
            continue;
        };
        let options = Options { profiles: vec![name.text.clone()], ..options.clone() };
        let Resolution { problems: found, .. } = resolve(loaded, &options);
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
