//! In which order the groups have their turns, where what rests lies, and at which rate they learn.

use serde::{Deserialize, Serialize};

use crate::problem::Span;

use super::Setting;

/// `schedule NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Schedule {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    pub order: Setting<Order>,
    /// Optimizer updates that a group gets in a row.
    pub dwell: Setting<u64>,
    pub advance: Setting<Advance>,
    pub horizon: Setting<Horizon>,
    pub states: Setting<Rest>,
    pub weights: Setting<Residence>,
    pub rate: Setting<Rate>,
    /// Each layer's rate is this times the rate of the layer above it.
    pub layer_decay: Setting<f64>,
    /// Groups or layers whose rate is multiplied by a number of their own.
    pub factors: Setting<Vec<(Setting<String>, f64)>>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Order {
    /// From the embedding to the head.
    BottomUp,
    TopDown,
    /// Drawn from the seed: once and then kept, or for each cycle.
    Random {
        seed: u64,
        redraw: bool,
    },
    /// Each turn draws `size` groups, whatever was drawn before.
    Sample {
        seed: u64,
        size: u64,
    },
    /// The group whose gradient was longest comes first.
    Importance,
    /// Layer names (or group names with `named`), first to last; several names are one turn.
    List {
        turns: Vec<Setting<Vec<Setting<String>>>>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Advance {
    /// The rate moves when every group has had its turn (the paper's delayed rate).
    PerCycle,
    /// The same, but where m does not divide n, after n / m turns rounded down, as the reference implementation does.
    PerShortCycle,
    PerStep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Horizon {
    /// The schedule is built over cycles and ends with the run.
    Cycles,
    /// The schedule is built for all steps but ticked once per cycle, as the reference implementation does.
    Steps,
}

/// Where weights rest while no operation needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Residence {
    Device,
    Host,
    /// In files that are mapped into memory.
    Disk,
}

/// Where optimizer states rest between turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    Device,
    Host,
    /// In files that are mapped into memory.
    Disk,
    /// Forgotten when the turn ends (BAdam).
    Discard,
}

/// The learning rate.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Rate {
    /// `constant(1e-4)`, `constant(1e-4, warmup = 3 %)`
    Constant { peak: Setting<f64>, warmup: Setting<Warmup> },
    /// `linear(peak = 1e-4, warmup = 3 %, end = 0)`: down to `end` in a straight line.
    Linear { peak: Setting<f64>, warmup: Setting<Warmup>, end: Setting<f64> },
    /// `cosine(peak = 1e-4, warmup = 3 %, end = 0)`: down to `end` along half a cosine.
    Cosine { peak: Setting<f64>, warmup: Setting<Warmup>, end: Setting<f64> },
    /// `cosine_with_restarts(peak = 1e-4, periods = 3)`: so many half cosines, each from `peak` to `end`.
    CosineWithRestarts {
        peak: Setting<f64>,
        warmup: Setting<Warmup>,
        end: Setting<f64>,
        periods: Setting<u64>,
    },
    /// `polynomial(peak = 1e-4, power = 2)`: what is left of the course, to the power.
    Polynomial { peak: Setting<f64>, warmup: Setting<Warmup>, end: Setting<f64>, power: Setting<f64> },
    /// `inverse_sqrt(peak = 1e-4, warmup = 100 steps)`: by one over the square root of the time.
    InverseSqrt { peak: Setting<f64>, warmup: Setting<Warmup>, timescale: Setting<Timescale> },
    /// `wsd(peak = 1e-4, warmup = 3 %, decay = 10 %)`: warm-up, stable, then down to `end`.
    Wsd {
        peak: Setting<f64>,
        warmup: Setting<Warmup>,
        end: Setting<f64>,
        decay: Setting<Warmup>,
        shape: Setting<Decline>,
    },
}

impl Rate {
    /// The highest rate, and how long it rises before.
    pub fn parts(&self) -> (&Setting<f64>, &Setting<Warmup>) {
        match self {
            Rate::Constant { peak, warmup }
            | Rate::Linear { peak, warmup, .. }
            | Rate::Cosine { peak, warmup, .. }
            | Rate::CosineWithRestarts { peak, warmup, .. }
            | Rate::Polynomial { peak, warmup, .. }
            | Rate::InverseSqrt { peak, warmup, .. }
            | Rate::Wsd { peak, warmup, .. } => (peak, warmup),
        }
    }

    /// The last rate, where it is not the highest one.
    pub fn end(&self) -> Option<&Setting<f64>> {
        match self {
            Rate::Constant { .. } | Rate::InverseSqrt { .. } | Rate::CosineWithRestarts { .. } => None,
            Rate::Linear { end, .. } | Rate::Cosine { end, .. } => Some(end),
            Rate::Polynomial { end, .. } | Rate::Wsd { end, .. } => Some(end),
        }
    }
}

/// When an inverse square root is down by half of its root.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Timescale {
    /// As long as the warm-up, or 10,000 ticks where there is none.
    Warmup,
    Steps(u64),
    Cycles(u64),
}

/// How the last part of a `wsd` rate goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decline {
    Linear,
    Cosine,
    /// One minus the square root of the progress.
    Sqrt,
}

/// A part of the schedule's length.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Warmup {
    None,
    /// Of the schedule's length, from 0 to 1, written in percent.
    Share(f64),
    Steps(u64),
    Cycles(u64),
}
