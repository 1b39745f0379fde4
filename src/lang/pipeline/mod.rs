//! What the author of a pipeline means: typed, complete, every reference resolved, every default filled in.
//!
//! Each value knows whether it was written (and where) or took its default, so that later rooms can point
//! at it. Paths are as written; [`Pipeline::path`] makes them absolute relative to the file's folder.

mod data;
mod groups;
mod model;
mod optimizer;
mod schedule;
mod stages;
mod tokenizer;
mod train;

use std::ops::Deref;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::problem::Span;

pub use data::{
    Data, Filter, Format, Holdout, Part, Pick, Repository, Shuffle, Snapshot, Source, Stop, Test, Tools,
    Weigh,
};
pub use groups::{Groups, Split, Tail};
pub use model::{Half, Model, Precision, Recompute, Task, Weights};
pub use optimizer::{Algorithm, Optimizer};
pub use schedule::{Advance, Decline, Horizon, Order, Rate, Residence, Rest, Schedule, Timescale, Warmup};
pub use stages::{Evaluate, Export, Generate};
pub use tokenizer::{LossOn, Mark, ROLES, Tokenizer, TooLong};
pub use train::{
    Checkpoint, Device, Divergence, EvaluateDuring, Interval, Length, Metric, RollBack, Samples, Train,
};

/// A value with its origin. Reads like the value itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Setting<T> {
    pub value: T,
    #[serde(skip)]
    pub origin: Origin,
}

/// What a value comes from, with the place in the file where it applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It stands there.
    Written(Span),
    /// The name of a param or let stands there.
    Named(Span),
    /// A calculation stands there.
    Calculated(Span),
    /// Nothing is written.
    Default,
}

impl<T> Setting<T> {
    pub fn written(value: T, span: Span) -> Self {
        Self { value, origin: Origin::Written(span) }
    }

    pub fn default(value: T) -> Self {
        Self { value, origin: Origin::Default }
    }

    /// Where it is written, if it is.
    pub fn span(&self) -> Option<Span> {
        match self.origin {
            Origin::Written(span) | Origin::Named(span) | Origin::Calculated(span) => Some(span),
            Origin::Default => None,
        }
    }
}

impl<T> Deref for Setting<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// A whole pipeline. `stages` stand in the order in which they run: what a stage needs comes before it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pipeline {
    /// The folder that relative paths start from.
    #[serde(skip)]
    pub folder: PathBuf,
    pub version: u32,
    /// `param` values as they apply, after `--set`.
    pub params: Vec<(String, String)>,
    /// What runs when a run has ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    pub stages: Vec<Stage>,
    /// What the repositories that it names stood for when they were fetched.
    #[serde(skip)]
    pub snapshots: Vec<Snapshot>,
}

/// `hook NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hook {
    pub name: String,
    pub on: Setting<Vec<Outcome>>,
    /// For `sh -c`.
    pub run: Setting<String>,
}

/// How a run can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Success,
    Failure,
    Interruption,
}

impl Outcome {
    /// The word of the language.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Failure => "failure",
            Outcome::Interruption => "interruption",
        }
    }
}

impl Pipeline {
    /// A path of the file, made relative to the file's folder.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.join(Path::new(path))
    }
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Stage {
    Train(Box<Train>),
    Evaluate(Box<Evaluate>),
    Generate(Box<Generate>),
    Export(Box<Export>),
}

impl Stage {
    pub fn name(&self) -> &str {
        match self {
            Stage::Train(stage) => &stage.name,
            Stage::Evaluate(stage) => &stage.name,
            Stage::Generate(stage) => &stage.name,
            Stage::Export(stage) => &stage.name,
        }
    }
}
