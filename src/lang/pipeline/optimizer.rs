//! How a gradient changes a weight.

use serde::Serialize;

use crate::problem::Span;

use super::Setting;

/// `optimizer NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Optimizer {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    pub algorithm: Algorithm,
    /// Applies to tensors with two or more axes only.
    pub weight_decay: Setting<f64>,
}

/// How a gradient changes a weight. [`crate::lang::schema::ALGORITHMS`] says which keys each one has.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "algorithm", rename_all = "snake_case")]
pub enum Algorithm {
    /// Adam with decoupled weight decay.
    Adamw {
        betas: Setting<[f64; 2]>,
        eps: Setting<f64>,
    },
    /// Adam; weight decay is a part of the gradient.
    Adam {
        betas: Setting<[f64; 2]>,
        eps: Setting<f64>,
    },
    Sgd,
    Sgdm {
        momentum: Setting<f64>,
        nesterov: Setting<bool>,
    },
    Adagrad {
        eps: Setting<f64>,
    },
    Rmsprop {
        alpha: Setting<f64>,
        eps: Setting<f64>,
        /// 0: none, and no state for it.
        momentum: Setting<f64>,
        /// The variance instead of the square; one more state.
        centered: Setting<bool>,
    },
    Adafactor {
        eps: Setting<f64>,
        decay_rate: Setting<f64>,
        clip_threshold: Setting<f64>,
        /// None: no first moment, and no state for it.
        beta1: Setting<Option<f64>>,
        scale_parameter: Setting<bool>,
    },
    Lion {
        betas: Setting<[f64; 2]>,
    },
    Lamb {
        betas: Setting<[f64; 2]>,
        eps: Setting<f64>,
    },
    Lars {
        momentum: Setting<f64>,
        nesterov: Setting<bool>,
        trust: Setting<f64>,
    },
    /// AdamW with one second moment for each row or head.
    AdamMini {
        betas: Setting<[f64; 2]>,
        eps: Setting<f64>,
    },
    /// AdamW whose moments have 8 bits.
    Adamw8bit {
        betas: Setting<[f64; 2]>,
        eps: Setting<f64>,
    },
    /// Adam whose moments have 8 bits.
    Adam8bit {
        betas: Setting<[f64; 2]>,
        eps: Setting<f64>,
    },
    /// Lion whose moment has 8 bits.
    Lion8bit {
        betas: Setting<[f64; 2]>,
    },
}
