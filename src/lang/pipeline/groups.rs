//! Which layers are trained together.

use serde::Serialize;

use crate::problem::Span;
use crate::units::Bytes;

use super::Setting;

/// `groups NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Groups {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    pub split: Setting<Split>,
    /// Layer or parameter name patterns (`*` matches any text) that are never trained.
    pub freeze: Setting<Vec<Setting<String>>>,
    /// Patterns of what every turn trains, beside its group.
    pub always: Setting<Vec<Setting<String>>>,
    /// A turn trains the groups before it, too, and the last keeps its turn.
    pub grow: Setting<bool>,
    /// m does not divide n: take m from the queue's head and append them to its tail,
    /// as the reference implementation does, instead of fixed groups with a short last one.
    pub rotate: Setting<bool>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Split {
    /// `by_layer(m, tail = joined | split)`: m layers train together.
    ByLayer { size: u64, tail: Tail },
    /// `by_size(400 MiB, tail = joined | split)`: as few groups of consecutive layers as keep each below that size
    /// of weights, as even as they can be. A layer that is larger is a group of its own.
    BySize { bytes: Bytes, tail: Tail },
    /// `all()`: plain full fine-tuning.
    All,
    /// `named({ bottom = ["embedding", "block.0"], top = ["block.*", "head"] })`: patterns over layer and parameter names;
    /// the first group that matches a parameter gets it, and every parameter must be in a group or frozen.
    Named { groups: Vec<(Setting<String>, Vec<Setting<String>>)> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tail {
    /// Final norm and head are one layer, `head`; with a tied head the norm joins the last block.
    Joined,
    /// Final norm and head are layers of their own.
    Split,
}
