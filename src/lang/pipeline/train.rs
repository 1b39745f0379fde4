//! A stage that trains, and the blocks inside it.

use serde::Serialize;

use crate::problem::Span;
use crate::units::Bytes;

use super::{Data, Groups, Model, Optimizer, Schedule, Setting, Tokenizer};

/// `train NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Train {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    pub data: Data,
    /// May be left out where the data is in `tokens` format.
    pub tokenizer: Tokenizer,
    /// The model block that the weights come from in the end.
    pub model: Model,
    /// The stage whose result this one continues, if `model` names a train stage.
    pub from: Option<String>,
    pub groups: Groups,
    pub schedule: Schedule,
    pub optimizer: Optimizer,
    pub length: Setting<Length>,
    /// Sequences per forward pass.
    pub micro_batch: Setting<u64>,
    /// Forward passes per optimizer update.
    pub accumulate: Setting<u64>,
    /// The largest norm of the active group's gradient.
    pub clip: Setting<Option<f64>>,
    pub seed: Setting<u64>,
    pub device: Setting<Device>,
    pub memory_limit: Setting<Option<Bytes>>,
    pub evaluate: Option<EvaluateDuring>,
    pub checkpoint: Option<Checkpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Divergence>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    Epochs(f64),
    Steps(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// CUDA where this program has it and finds a device, else the CPU.
    Auto,
    Cpu,
    Cuda(u32),
}

/// `evaluate { ... }` inside `train`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvaluateDuring {
    #[serde(skip)]
    pub span: Span,
    pub every: Setting<Interval>,
    pub metrics: Setting<Vec<Metric>>,
    /// Evaluations in a row without a better one, after which training ends.
    pub patience: Setting<Option<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<Samples>,
}

/// Held-out rows that are answered at each evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Samples {
    pub rows: Setting<u64>,
    /// Of each answer, at most.
    pub max_new_tokens: Setting<u64>,
}

/// `checkpoint { ... }` inside `train`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checkpoint {
    #[serde(skip)]
    pub span: Span,
    pub every: Setting<Interval>,
    /// How many are kept.
    pub keep: Setting<u64>,
    /// The metric by which the best one is kept, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<Setting<Metric>>,
    /// Whether the stage ends with the best one's weights, not with the last ones.
    pub ends_with_best: Setting<bool>,
}

/// `divergence { ... }` inside `train`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Divergence {
    #[serde(skip)]
    pub span: Span,
    /// A loss above so many times its mean counts as diverged.
    pub spike: Setting<Option<f64>>,
    /// None: the run ends.
    pub roll_back: Setting<Option<RollBack>>,
}

/// Going on from the last checkpoint at a lower rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RollBack {
    /// What the rate is multiplied by, once more each time.
    pub rate: f64,
    /// How often, at the most.
    pub times: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    Steps(u64),
    Cycles(u64),
    Epochs(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Mean cross entropy per trained token, in nats.
    Loss,
    /// exp(loss)
    Perplexity,
    /// The share of trained tokens that are the model's first choice.
    Accuracy,
    /// Of two classes, that of the second; of answers, of their words.
    F1,
    /// The mean of all classes' F1.
    MacroF1,
    /// The correlation of classes by Matthews, of two or more.
    Matthews,
    Pearson,
    Spearman,
    /// The share of answers that are word for word one of the references.
    ExactMatch,
    /// Of whole entities.
    EntityF1,
    EntityPrecision,
    EntityRecall,
    /// Of texts against references.
    Bleu,
    Nist,
    Rouge1,
    Rouge2,
    RougeL,
}

impl Metric {
    /// Every one, with the word for it in the language, in reports and in files.
    pub const ALL: &[(Metric, &str)] = &[
        (Metric::Loss, "loss"),
        (Metric::Perplexity, "perplexity"),
        (Metric::Accuracy, "accuracy"),
        (Metric::F1, "f1"),
        (Metric::MacroF1, "macro_f1"),
        (Metric::Matthews, "matthews"),
        (Metric::Pearson, "pearson"),
        (Metric::Spearman, "spearman"),
        (Metric::ExactMatch, "exact_match"),
        (Metric::EntityF1, "entity_f1"),
        (Metric::EntityPrecision, "entity_precision"),
        (Metric::EntityRecall, "entity_recall"),
        (Metric::Bleu, "bleu"),
        (Metric::Nist, "nist"),
        (Metric::Rouge1, "rouge_1"),
        (Metric::Rouge2, "rouge_2"),
        (Metric::RougeL, "rouge_l"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(metric, _)| *metric == self).map_or("", |(_, name)| name)
    }

    pub fn named(name: &str) -> Option<Metric> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(metric, _)| *metric)
    }

    /// Whether `value` is better than `than`.
    pub fn is_better(self, value: f64, than: f64) -> bool {
        match self {
            Metric::Loss | Metric::Perplexity => value < than,
            Metric::Accuracy
            | Metric::F1
            | Metric::MacroF1
            | Metric::Matthews
            | Metric::Pearson
            | Metric::Spearman
            | Metric::ExactMatch
            | Metric::EntityF1
            | Metric::EntityPrecision
            | Metric::EntityRecall
            | Metric::Bleu
            | Metric::Nist
            | Metric::Rouge1
            | Metric::Rouge2
            | Metric::RougeL => value > than,
        }
    }
}
