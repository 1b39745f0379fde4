//! Turns a [`Pipeline`] into a [`Plan`]: which parameters train at which step, at which rate, on which rows.
//!
//! A plan is plain data. It holds no tensor and no open file, so printing it, estimating its memory and running
//! it all start from the same value. It is complete: no later room finds a user's mistake, save that the machine
//! is too small.
//!
//! Reading order: [`group`] (what trains together), [`turn`] (whose turn it is), [`rate`] (how fast), [`optimizer`] (what
//! is kept for each parameter), what rows and metrics fit the model (`fit`), the stages (`train`, `stages`), then [`compile`].
//!
//! This room must not know the device: how much memory it has is the caller's question. It reads no file itself:
//! configurations and counts of rows come through [`World`].

mod fit;
pub mod group;
mod model;
pub mod optimizer;
pub mod rate;
mod stages;
mod train;
pub mod turn;
mod warnings;

use std::path::Path;

use serde::Serialize;

use crate::lang::Pipeline;
use crate::lang::pipeline::{Data, Device, Generate, Hook, Stage, Tokenizer};
use crate::model::{Model, Task};
use crate::problem::{Problem, Problems};
use crate::program::Backend;
use crate::units::Bytes;

pub use fit::check_task;
pub use group::Group;
pub use model::{ModelPlan, read_model};
pub use rate::RatePlan;
pub use stages::{Decoding, EvaluatePlan, ExportPlan, GeneratePlan};
pub use train::{CheckpointEvery, Divergence, EvaluateEvery, RunAgain, Samples, TrainPlan};
pub use turn::{Queue, Visits};

/// The version of `plan.json`.
pub const SCHEMA: u32 = 1;

/// What a plan needs to know about files. The command line looks at the disk, a test at a table.
pub trait World {
    /// The text of a small file.
    fn read(&mut self, path: &Path) -> Result<String, Problem>;
    /// Holds the weights in `folder`, if there are any, against what the model needs.
    fn check_weights(&mut self, folder: &Path, model: &Model) -> Result<(), Problems>;
    /// Counts of the rows of `data`, tokenised; None where nobody wants to look.
    fn rows(
        &mut self,
        pipeline: &Pipeline,
        data: &Data,
        tokenizer: &Tokenizer,
        model: &Model,
    ) -> Result<Option<Rows>, Problems>;
    /// Holds the prompts of a stage against the tokenizer and the model; None where nobody wants to look.
    fn check_prompts(&mut self, _: &Pipeline, _: &Generate, _: &Model) -> Result<Option<Prompts>, Problems> {
        Ok(None)
    }
    /// The same for the rows of `data` that are to be continued, the first `at_most` of them.
    fn check_rows(
        &mut self,
        _: &Pipeline,
        _: (&Data, &Tokenizer),
        _at_most: Option<u64>,
        _: &Model,
    ) -> Result<Option<Prompts>, Problems> {
        Ok(None)
    }
}

/// What is known about the prompts that a stage continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prompts {
    pub n: u64,
    /// Tokens of the longest.
    pub longest: u64,
}

/// What is known about the rows of a data block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rows {
    /// Sequences to train on, after packing.
    pub train: u64,
    /// Sequences held out, after packing.
    pub holdout: u64,
    pub tokens: u64,
    /// Tokens that carry a loss.
    pub trained_tokens: u64,
    /// Tokens of the longest sequence to train on.
    pub longest: u64,
    /// Tokens of the longest sequence held out.
    pub longest_holdout: u64,
    /// What ids, labels and their order take in memory, and of questions their texts. That depends on the cache: the same plan may need less the next
    /// time.
    #[serde(skip)]
    pub memory: Bytes,
    /// What lies in a file that is mapped into memory: the system takes it back where it needs room.
    #[serde(skip)]
    pub mapped: Bytes,
    /// What is there at the most while the rows are read and made into tokens.
    #[serde(skip)]
    pub making: Bytes,
}

/// The whole run, decided.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    pub schema: u32,
    /// What runs when the run has ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    pub stages: Vec<StagePlan>,
    /// What can be done but is surely unwanted.
    #[serde(skip)]
    pub warnings: Vec<Problem>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StagePlan {
    Train(Box<TrainPlan>),
    Evaluate(Box<EvaluatePlan>),
    Generate(Box<GeneratePlan>),
    Export(Box<ExportPlan>),
}

impl StagePlan {
    pub fn name(&self) -> &str {
        match self {
            StagePlan::Train(stage) => &stage.name,
            StagePlan::Evaluate(stage) => &stage.name,
            StagePlan::Generate(stage) => &stage.name,
            StagePlan::Export(stage) => &stage.name,
        }
    }

    /// What computes it.
    pub fn device(&self) -> Device {
        match self {
            StagePlan::Train(stage) => stage.device,
            StagePlan::Evaluate(stage) => stage.device,
            StagePlan::Generate(stage) => stage.device,
            StagePlan::Export(_) => Device::Cpu,
        }
    }

    /// The same, to be decided.
    pub fn device_mut(&mut self) -> Option<&mut Device> {
        match self {
            StagePlan::Train(stage) => Some(&mut stage.device),
            StagePlan::Evaluate(stage) => Some(&mut stage.device),
            StagePlan::Generate(stage) => Some(&mut stage.device),
            StagePlan::Export(_) => None,
        }
    }

    pub fn model(&self) -> &ModelPlan {
        match self {
            StagePlan::Train(stage) => &stage.model,
            StagePlan::Evaluate(stage) => &stage.model,
            StagePlan::Generate(stage) => &stage.model,
            StagePlan::Export(stage) => &stage.model,
        }
    }

    /// The train stage whose result this one takes up.
    pub fn from(&self) -> Option<&str> {
        match self {
            StagePlan::Train(stage) => stage.from.as_deref(),
            StagePlan::Evaluate(stage) => stage.from.as_deref(),
            StagePlan::Generate(stage) => stage.from.as_deref(),
            StagePlan::Export(stage) => stage.from.as_deref(),
        }
    }
}

/// What programs are compiled for.
pub fn backend(device: Device, threads: usize) -> Backend {
    match device {
        Device::Auto | Device::Cpu => Backend::Cpu { threads },
        Device::Cuda(_) => Backend::Gpu,
    }
}

/// Decides the whole run.
///
/// # Errors
/// Everything that the pipeline asks of its model or data and that they do not have, all at once.
pub fn compile(pipeline: &Pipeline, world: &mut dyn World) -> Result<Plan, Problems> {
    let mut problems = Problems::default();
    let mut stages = Vec::new();
    let mut warnings: Vec<Problem> = Vec::new();
    let mut models: Vec<(&crate::lang::pipeline::Model, Result<ModelPlan, ()>)> = Vec::new();
    for stage in &pipeline.stages {
        let block = match stage {
            Stage::Train(stage) => &stage.model,
            Stage::Evaluate(stage) => &stage.model,
            Stage::Generate(stage) => &stage.model,
            Stage::Export(stage) => &stage.model,
        };
        // Blocks that ask for the same are one model.
        let is_it = |other: &crate::lang::pipeline::Model| {
            let asks = |block: &crate::lang::pipeline::Model| {
                (block.weights.value.clone(), *block.precision, block.task.value.clone())
            };
            asks(other) == asks(block)
        };
        let known = models.iter().find(|(other, _)| is_it(other)).map(|(_, model)| model.clone());
        let model = known.unwrap_or_else(|| {
            let model = read_model(pipeline, block, world).map_err(|found| problems.0.extend(found.0));
            models.push((block, model.clone()));
            model
        });
        let Ok(model) = model else { continue };
        let planned = match stage {
            Stage::Train(stage) => {
                train::train(pipeline, stage, model, world).map(|p| StagePlan::Train(Box::new(p)))
            }
            Stage::Evaluate(stage) => {
                stages::evaluate(pipeline, stage, model, world).map(|p| StagePlan::Evaluate(Box::new(p)))
            }
            Stage::Generate(stage) if model.model.task() != Task::NextToken => Err(Problem::new(
                "hift::plan::task",
                format!("`{}` writes text, which this model cannot", stage.name),
            )
            .label(stage.span, "generates")
            .label_at(stage.model.weights.span(), "it labels what is written")
            .help(
                "remove the stage, or use a model whose config.json names a class that ends in `ForCausalLM`",
            )
            .into()),
            Stage::Generate(stage) => {
                stages::generate(pipeline, stage, model, world).map(|p| StagePlan::Generate(Box::new(p)))
            }
            Stage::Export(stage) => Ok(StagePlan::Export(Box::new(stages::export(stage, model)))),
        };
        match planned {
            Ok(planned) => {
                for warning in warnings::stage(stage, &planned) {
                    if !warnings.contains(&warning) {
                        warnings.push(warning);
                    }
                }
                stages.push(planned);
            }
            // Stages that share a data block find the same mistakes.
            Err(found) => {
                for problem in found.0 {
                    if !problems.0.contains(&problem) {
                        problems.push(problem);
                    }
                }
            }
        }
    }
    if problems.has_errors() {
        Err(problems)
    } else {
        Ok(Plan { schema: SCHEMA, hooks: pipeline.hooks.clone(), stages, warnings })
    }
}
