//! What a train stage remembers of how it went: the best evaluation, the mean loss, how often it was rolled back. A
//! checkpoint keeps it, so that a run that is taken up decides as the uninterrupted one does.

use serde::{Deserialize, Serialize};

use crate::plan::TrainPlan;
use crate::problem::{Fault, Problem};

use super::metrics::Scores;

/// Steps that the mean loss is taken over, about.
const MEAN_STEPS: f64 = 50.0;

/// Steps that no loss is held against their mean: there is none yet.
const FIRST_STEPS: u64 = 10;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Course {
    pub best: Option<Best>,
    /// The step of the last evaluation.
    pub evaluated: Option<u64>,
    /// Evaluations since the best one.
    pub stale: u64,
    /// The loss, smoothed, and over how many steps.
    mean: f64,
    steps: u64,
    /// How often the stage went back to a checkpoint because it diverged.
    pub roll_backs: u64,
    /// The step of the checkpoint that it last went back to.
    pub rolled_back_to: Option<u64>,
    /// The stage ended before its last step, since it got no better.
    pub ended_early: bool,
}

/// The best evaluation so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub step: u64,
    pub value: f64,
}

impl Course {
    /// Of a stage whose training is over.
    pub fn at_its_end() -> Self {
        Self { ended_early: true, ..Self::default() }
    }

    /// Takes note of an evaluation; says whether it is better than all before. One that is made again is not.
    pub fn note(&mut self, plan: &TrainPlan, step: u64, scores: &Scores) -> bool {
        if self.evaluated.replace(step) == Some(step) {
            return false;
        }
        let Some(judge) = plan.judge() else { return false };
        let value = scores.metrics(&[judge])[0].1;
        let better = self.best.is_none_or(|best| judge.is_better(value, best.value));
        if better {
            self.best = Some(Best { step, value });
            self.stale = 0;
        } else {
            self.stale += 1;
        }
        better
    }

    /// Whether so many evaluations were no better that training is to end.
    pub fn is_out_of_patience(&self, plan: &TrainPlan) -> bool {
        let patience = plan.evaluate.as_ref().and_then(|evaluate| evaluate.patience);
        patience.is_some_and(|patience| self.stale >= patience)
    }

    /// What the rate is multiplied by after the roll backs so far.
    pub fn rate_factor(&self, plan: &TrainPlan) -> f64 {
        let roll_back = plan.divergence.and_then(|divergence| divergence.roll_back);
        roll_back.map_or(1.0, |roll_back| (0..self.roll_backs).map(|_| roll_back.rate).product())
    }

    /// Takes note of a step's loss, unless it is a spike.
    ///
    /// # Errors
    /// When the loss is too many times the mean of those before.
    pub fn stepped(&mut self, plan: &TrainPlan, step: u64, loss: f64) -> Result<(), Problem> {
        let spike = plan.divergence.and_then(|divergence| divergence.spike);
        if let Some(spike) = spike.filter(|_| self.steps >= FIRST_STEPS)
            && loss > spike * self.mean
        {
            return Err(Problem::of(
                Fault::Failed,
                "hift::run::diverged",
                format!(
                    "the loss is {loss:.4} at step {} of stage `{}`, more than {spike} times its mean of {:.4}",
                    step + 1,
                    plan.name,
                    self.mean
                ),
            )
            .help(super::train::DIVERGED));
        }
        self.steps += 1;
        let share = (1.0 / self.steps as f64).max(1.0 / MEAN_STEPS);
        self.mean += share * (loss - self.mean);
        Ok(())
    }
}
