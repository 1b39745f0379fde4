//! Who is told how a run goes: a progress bar, plain lines, or nobody.

use serde_json::Value as Json;

use crate::lang::pipeline::Metric;
use crate::plan::StagePlan;
use crate::units::Bytes;

use super::generate::Written;

/// One optimizer update, as it went.
#[derive(Debug, Clone)]
pub struct StepReport<'a> {
    pub stage: &'a str,
    /// Counted from 1.
    pub step: u64,
    pub steps: u64,
    pub cycle: u64,
    pub cycles: u64,
    pub group: &'a [String],
    pub rate: f64,
    /// Mean cross entropy per trained token, in nats.
    pub loss: f64,
    /// Of the active group's gradient, before clipping.
    pub grad_norm: f64,
    /// Tokens that went through the model, padding not counted.
    pub tokens: u64,
    /// What the loss was multiplied by, where that changes from step to step.
    pub loss_scale: Option<f64>,
    pub seconds: f64,
    pub memory: Measured,
}

/// What the counting allocator saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    /// Tensors that exist after the step.
    pub live: Bytes,
    /// The most that existed at a time during the step.
    pub peak: Bytes,
    /// What a device's pool held for them at the most; 0 where there is none.
    pub reserved: Bytes,
    /// The highest resident memory of the process so far.
    pub resident: Bytes,
}

pub trait Watch {
    fn stage(&mut self, stage: &StagePlan, index: usize, n_stages: usize);
    /// What became of the rows of the stage at work, before its first step: an audit as `events.jsonl` has it.
    fn audited(&mut self, audit: &Json);
    fn step(&mut self, report: &StepReport<'_>);
    /// `step` is None for an evaluate stage.
    fn evaluated(&mut self, stage: &str, step: Option<u64>, metrics: &[(Metric, f64)]);
    fn generated(&mut self, stage: &str, prompt: &str, text: &str);
    /// Held-out rows, answered by what training has come to; the same prompts each time.
    fn sampled(&mut self, stage: &str, step: u64, samples: &[Written]);
    fn note(&mut self, text: &str);
    /// Something that is not as it should be, though the run goes on.
    fn warn(&mut self, text: &str) {
        self.note(text);
    }
}
