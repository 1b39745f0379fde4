//! The stages behind training.

use serde::Serialize;

use crate::problem::Span;
use crate::units::Dtype;

use super::{Data, Device, Metric, Model, Setting, Tokenizer};

/// `evaluate NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluate {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    /// The train stage whose result is evaluated, or None: the model as it is.
    pub from: Option<String>,
    pub model: Model,
    /// Its holdout is used if it has one, else all of it.
    pub data: Data,
    pub tokenizer: Tokenizer,
    pub metrics: Setting<Vec<Metric>>,
    pub micro_batch: Setting<u64>,
    pub device: Setting<Device>,
}

/// `generate NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generate {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    pub from: Option<String>,
    pub model: Model,
    pub tokenizer: Tokenizer,
    /// Nothing where the rows of a data block are continued.
    pub prompts: Setting<Vec<Setting<String>>>,
    /// The block whose held-out rows are continued if it has some, else all of them.
    pub data: Option<Data>,
    /// At most so many of them.
    pub rows: Setting<Option<u64>>,
    /// What would be right, for each prompt; or nothing.
    pub references: Setting<Vec<Setting<String>>>,
    /// Of the texts against their references.
    pub metrics: Setting<Vec<Metric>>,
    pub max_new_tokens: Setting<u64>,
    /// 0 takes the most probable token each time.
    pub temperature: Setting<f64>,
    /// Tokens are drawn among so many, the most probable ones.
    pub top_k: Setting<Option<u64>>,
    /// And of these among the fewest that have this share of the probability.
    pub top_p: Setting<f64>,
    pub beams: Setting<u64>,
    pub length_penalty: Setting<f64>,
    pub early_stopping: Setting<bool>,
    /// Texts that end an answer.
    pub stop: Setting<Vec<Setting<String>>>,
    /// Prompts that are continued at once.
    pub micro_batch: Setting<u64>,
    pub seed: Setting<u64>,
    /// The file for the texts, as JSON lines.
    pub to: Setting<Option<String>>,
    pub device: Setting<Device>,
}

/// `export NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Export {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    pub from: Option<String>,
    pub model: Model,
    /// The tokenizer of the train stage, copied beside the weights.
    pub tokenizer: Option<Tokenizer>,
    pub to: Setting<String>,
    pub dtype: Setting<Dtype>,
}
