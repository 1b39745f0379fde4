//! The model, its weights and the precision it computes in.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::problem::Span;
use crate::units::Dtype;

use super::{Repository, Setting};

/// `model NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Model {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    pub weights: Setting<Weights>,
    #[serde(skip_serializing_if = "is_auto")]
    pub task: Setting<Task>,
    pub precision: Setting<Precision>,
    pub recompute: Setting<Recompute>,
    /// Products of 32-bit numbers may round their operands to 19 bits, where a device gains by it.
    pub tf32: Setting<bool>,
}

fn is_auto(task: &Setting<Task>) -> bool {
    task.value == Task::Auto
}

/// What a model is trained for. Classes that are not written are those of its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Task {
    /// What the configuration says.
    Auto,
    SequenceClassification {
        labels: Option<Vec<String>>,
    },
    Regression,
    TokenClassification {
        labels: Option<Vec<String>>,
    },
    QuestionAnswering,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Weights {
    /// A Hugging Face directory: `config.json` and safetensors, single or sharded.
    Directory { path: String },
    /// `hub("org/name")`: such a directory, once it is fetched.
    Hub {
        repository: Repository,
        #[serde(skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
        /// Where it is.
        #[serde(skip)]
        path: Option<String>,
    },
    /// `random("config.json", seed = 1)`: a fresh start, drawn as the family's reference draws it.
    Random { config: String, seed: u64 },
}

impl Weights {
    /// The directory that they lie in; None for a fresh start, and for a repository that is not fetched.
    pub fn directory(&self) -> Option<&str> {
        match self {
            Weights::Directory { path } => Some(path),
            Weights::Hub { path, .. } => path.as_deref(),
            Weights::Random { .. } => None,
        }
    }
}

/// The numbers that a model is computed in, and those that are kept to learn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Fp32,
    /// Half weights, rounded at random when they change, and nothing else.
    Bf16,
    /// Half weights, and 32-bit masters of all of them where they are computed with.
    Mixed(Half),
    /// Half weights; 32-bit masters rest on the host but for those of the active group.
    MixedHi(Half),
}

/// 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    Bf16,
    Fp16,
}

impl Half {
    pub fn dtype(self) -> Dtype {
        match self {
            Half::Bf16 => Dtype::Bf16,
            Half::Fp16 => Dtype::F16,
        }
    }
}

impl Precision {
    /// Of weights and activations.
    pub fn dtype(self) -> Dtype {
        match self {
            Precision::Fp32 => Dtype::F32,
            Precision::Bf16 => Dtype::Bf16,
            Precision::Mixed(half) | Precision::MixedHi(half) => half.dtype(),
        }
    }

    /// Of what is kept, and exported: masters where there are some.
    pub fn kept(self) -> Dtype {
        if self.has_masters() { Dtype::F32 } else { self.dtype() }
    }

    pub fn has_masters(self) -> bool {
        match self {
            Precision::Fp32 | Precision::Bf16 => false,
            Precision::Mixed(_) | Precision::MixedHi(_) => true,
        }
    }

    /// Whether the loss is scaled, since small gradients would vanish.
    pub fn is_scaled(self) -> bool {
        match self {
            Precision::Fp32 | Precision::Bf16 => false,
            Precision::Mixed(half) | Precision::MixedHi(half) => half == Half::Fp16,
        }
    }
}

/// As it is written.
impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |half: &Half| match half {
            Half::Bf16 => "bf16",
            Half::Fp16 => "fp16",
        };
        match self {
            Precision::Fp32 => f.write_str("fp32"),
            Precision::Bf16 => f.write_str("bf16"),
            Precision::Mixed(half) => write!(f, "mixed({})", name(half)),
            Precision::MixedHi(half) => write!(f, "mixed_hi({})", name(half)),
        }
    }
}

impl Serialize for Precision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Nothing but what is cheap: norms and activations whose inputs are kept anyway.
    None,
    /// Only the input of each block is kept; the block runs again when its turn in reverse comes.
    Blocks,
    /// The cheapest blocks that leave `memory_limit` enough room, for each group.
    Auto,
}
