//! The learning rate: moved once per cycle, so that every group trains at the same rate.
//!
//! Sources: Liu et al. 2024, "HiFT", the delayed learning rate; the courses are those of transformers'
//! `get_scheduler`, counted in ticks.

use serde::{Deserialize, Serialize};

use crate::lang::pipeline::{Advance, Decline, Horizon, Rate, Schedule, Timescale, Warmup};
use crate::model::Model;

/// A learning rate over the steps of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RatePlan {
    pub shape: Shape,
    pub peak: f64,
    /// Where the decay ends.
    pub end: f64,
    /// Optimizer updates per tick: those of a cycle, or one.
    pub steps_per_tick: u64,
    /// Ticks of warm-up.
    pub warmup: u64,
    /// Ticks that the schedule is built for.
    pub ticks: u64,
    /// The warm-up's first tick is above zero; without, it is zero, as in the reference implementation.
    pub starts_above_zero: bool,
}

/// The course after the warm-up. Lengths are in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    Constant,
    Linear,
    Cosine,
    CosineWithRestarts {
        periods: u64,
    },
    Polynomial {
        power: f64,
    },
    InverseSqrt {
        timescale: u64,
    },
    /// Stable, then down in the last `decay` ticks.
    Wsd {
        decay: u64,
        decline: Decline,
    },
}

impl Shape {
    /// As the language calls it.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Constant => "constant",
            Shape::Linear => "linear",
            Shape::Cosine => "cosine",
            Shape::CosineWithRestarts { .. } => "cosine_with_restarts",
            Shape::Polynomial { .. } => "polynomial",
            Shape::InverseSqrt { .. } => "inverse_sqrt",
            Shape::Wsd { .. } => "wsd",
        }
    }
}

/// How long an inverse square root's time unit is where neither it nor a warm-up is given.
const TIMESCALE: u64 = 10_000;

impl RatePlan {
    /// `short_cycle`: the steps of a cycle without the turn that wraps round.
    pub fn new(schedule: &Schedule, steps: u64, steps_per_cycle: u64, short_cycle: u64) -> Self {
        let steps_per_tick = match *schedule.advance {
            Advance::PerCycle => steps_per_cycle,
            Advance::PerShortCycle => short_cycle,
            Advance::PerStep => 1,
        };
        let (ticks, starts_above_zero) = match *schedule.horizon {
            Horizon::Cycles => (steps.div_ceil(steps_per_tick), true),
            Horizon::Steps => (steps, false),
        };
        let in_ticks = |steps: u64| match *schedule.horizon {
            Horizon::Cycles => steps.div_ceil(steps_per_tick),
            Horizon::Steps => steps,
        };
        let in_cycles = |cycles: u64| match *schedule.advance {
            Advance::PerCycle | Advance::PerShortCycle => cycles,
            Advance::PerStep => cycles.saturating_mul(steps_per_cycle),
        };
        let part = |part: Warmup| match part {
            Warmup::None => 0,
            Warmup::Share(share) => (share * ticks as f64).ceil() as u64,
            Warmup::Steps(steps) => in_ticks(steps),
            Warmup::Cycles(cycles) => in_cycles(cycles),
        };
        let (peak, warmup) = schedule.rate.parts();
        let warmup = part(**warmup);
        let (shape, end) = match &*schedule.rate {
            Rate::Constant { peak, .. } => (Shape::Constant, **peak),
            Rate::Linear { end, .. } => (Shape::Linear, **end),
            Rate::Cosine { end, .. } => (Shape::Cosine, **end),
            Rate::CosineWithRestarts { end, periods, .. } => {
                (Shape::CosineWithRestarts { periods: **periods }, **end)
            }
            Rate::Polynomial { end, power, .. } => (Shape::Polynomial { power: **power }, **end),
            Rate::InverseSqrt { timescale, .. } => {
                let timescale = match **timescale {
                    Timescale::Warmup if warmup > 0 => warmup,
                    Timescale::Warmup => TIMESCALE,
                    Timescale::Steps(steps) => in_ticks(steps).max(1),
                    Timescale::Cycles(cycles) => in_cycles(cycles),
                };
                (Shape::InverseSqrt { timescale }, 0.0)
            }
            Rate::Wsd { end, decay, shape, .. } => {
                (Shape::Wsd { decay: part(**decay), decline: **shape }, **end)
            }
        };
        Self { shape, peak: **peak, end, steps_per_tick, warmup, ticks, starts_above_zero }
    }

    /// The rate of a step, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        let tick = step / self.steps_per_tick;
        if tick < self.warmup {
            let share = if self.starts_above_zero {
                (tick + 1) as f64 / (self.warmup + 1) as f64
            } else {
                tick as f64 / self.warmup as f64
            };
            return self.peak * share;
        }
        let span = self.ticks.saturating_sub(self.warmup).max(1);
        let progress = ((tick - self.warmup) as f64 / span as f64).min(1.0);
        let cosine = |progress: f64| 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        let height = match self.shape {
            Shape::Constant => return self.peak,
            Shape::Linear => 1.0 - progress,
            Shape::Cosine => cosine(progress),
            Shape::CosineWithRestarts { .. } if progress >= 1.0 => 0.0,
            Shape::CosineWithRestarts { periods } => cosine((periods as f64 * progress).fract()),
            Shape::Polynomial { power } => (1.0 - progress).powf(power),
            Shape::InverseSqrt { timescale } => {
                // At the end of the warm-up the time is one unit.
                let time = (tick - self.warmup) as f64 / timescale as f64 + 1.0;
                return self.peak / time.sqrt();
            }
            Shape::Wsd { decay, decline } => {
                let begin = self.ticks.saturating_sub(decay).max(self.warmup);
                let span = self.ticks.saturating_sub(begin).max(1);
                let progress = (tick.saturating_sub(begin) as f64 / span as f64).min(1.0);
                match decline {
                    Decline::Linear => 1.0 - progress,
                    Decline::Cosine => cosine(progress),
                    Decline::Sqrt => 1.0 - progress.sqrt(),
                }
            }
        };
        self.end + (self.peak - self.end) * height
    }
}

/// What the rate is multiplied by for each parameter by its depth: `decay` once for each layer above its own. The embedding is
/// below the first block; norm, pooler and head are on top.
///
/// Source: Clark et al. 2020, "ELECTRA", section 3.1 (layerwise learning-rate decay).
pub fn layer_factors(model: &Model, decay: f64) -> Vec<f64> {
    let is_block = |name: &str| name.starts_with("block.");
    let n_blocks = model.layers.iter().filter(|layer| is_block(&layer.name)).count();
    let mut below = 0;
    let mut factors = vec![1.0; model.params.len()];
    for layer in &model.layers {
        below += usize::from(is_block(&layer.name));
        // The depth of what comes after the blocks is one more than that of the last block.
        let behind = below == n_blocks && !is_block(&layer.name);
        let above = n_blocks + 1 - below - usize::from(behind);
        for id in &layer.params {
            factors[id.0] = decay.powi(above as i32);
        }
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(shape: Shape, warmup: u64, ticks: u64, starts_above_zero: bool) -> RatePlan {
        RatePlan { shape, peak: 1.0, end: 0.0, steps_per_tick: 3, warmup, ticks, starts_above_zero }
    }

    fn check(plan: &RatePlan, expected: &[f64]) {
        for (tick, expected) in expected.iter().enumerate() {
            for step in 0..3 {
                let rate = plan.at(3 * tick as u64 + step);
                assert!((rate - expected).abs() < 1e-12, "tick {tick}: {rate}, not {expected}");
            }
        }
    }

    #[test]
    fn the_rate_waits_for_the_cycle_to_end() {
        check(&plan(Shape::Linear, 0, 4, true), &[1.0, 0.75, 0.5, 0.25, 0.0]);
        check(&plan(Shape::Constant, 0, 4, true), &[1.0; 6]);
    }

    #[test]
    fn warm_up_starts_above_zero() {
        check(&plan(Shape::Linear, 3, 5, true), &[0.25, 0.5, 0.75, 1.0, 0.5]);
    }

    #[test]
    fn the_reference_starts_at_zero() {
        check(&plan(Shape::Linear, 2, 4, false), &[0.0, 0.5, 1.0, 0.5]);
    }

    #[test]
    fn a_cosine_is_half_way_down_in_the_middle() {
        check(&plan(Shape::Cosine, 0, 4, true), &[1.0, 0.853_553_390_593_273_7, 0.5]);
    }
}
