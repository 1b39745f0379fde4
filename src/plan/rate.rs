//! The learning rate: moved once per cycle, so that every group trains at the same rate.
//!
//! Source: Liu et al. 2024, "HiFT", the delayed learning rate.

use serde::{Deserialize, Serialize};

use crate::lang::pipeline::{Advance, Horizon, Rate, Schedule, Warmup};

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    Constant,
    Linear,
    Cosine,
}

impl RatePlan {
    pub fn new(schedule: &Schedule, steps: u64, steps_per_cycle: u64) -> Self {
        let (shape, peak, warmup, end) = match &*schedule.rate {
            Rate::Constant { peak, warmup } => (Shape::Constant, peak, warmup, **peak),
            Rate::Linear { peak, warmup, end } => (Shape::Linear, peak, warmup, **end),
            Rate::Cosine { peak, warmup, end } => (Shape::Cosine, peak, warmup, **end),
        };
        let steps_per_tick = match *schedule.advance {
            Advance::PerCycle => steps_per_cycle,
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
        let warmup = match **warmup {
            Warmup::None => 0,
            Warmup::Share(share) => (share * ticks as f64).ceil() as u64,
            Warmup::Steps(steps) => in_ticks(steps),
            Warmup::Cycles(cycles) => match *schedule.advance {
                Advance::PerCycle => cycles,
                Advance::PerStep => cycles * steps_per_cycle,
            },
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
        let height = match self.shape {
            Shape::Constant => return self.peak,
            Shape::Linear => 1.0 - progress,
            Shape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.end + (self.peak - self.end) * height
    }
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
