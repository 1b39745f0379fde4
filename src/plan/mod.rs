//! Turns a [`Pipeline`] into a [`Plan`]: which parameters train at which step, at which rate, on which rows.
//!
//! A plan is plain data. It holds no tensor and no open file, so printing it, estimating its memory and running
//! it all start from the same value. It is complete: no later room finds a user's mistake, save that the machine
//! is too small.
//!
//! Reading order: [`group`] (what trains together), [`turn`] (whose turn it is), [`rate`] (how fast), [`optimizer`] (what
//! is kept for each parameter), then [`compile`].
//!
//! This room must not know the device: how much memory it has is the caller's question. It reads no file itself:
//! configurations and counts of rows come through [`World`].

pub mod group;
pub mod optimizer;
pub mod rate;
pub mod turn;

mod warnings;

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::lang::Pipeline;
use crate::lang::pipeline::{
    Algorithm, Data, Device, Evaluate, Export, Format, Generate, Hook, Interval, Length, LossOn, Metric,
    Precision, Recompute, Residence, Rest, RollBack, Samples as AskedSamples, Setting, Shuffle, Stage,
    Task as Ask, Tokenizer, Train, Weights,
};
use crate::model::{Kind, Model, Target, Task};
use crate::problem::{Fault, Problem, Problems, Span};
use crate::program::builder::{BatchShape, CacheShape};
use crate::program::residency::{Away, Rests, bring, on_pages};
use crate::program::{
    Backend, Graph, ParamId, Program, Settings, StepPrograms, forward_only, precision, step_programs,
};
use crate::units::{Bytes, Dtype};

pub use group::Group;
pub use rate::RatePlan;
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

/// Where weights come from, and what they are.
#[derive(Debug, Clone, Serialize)]
pub struct ModelPlan {
    pub name: String,
    pub weights: Weights,
    pub family: &'static str,
    /// What it is trained for, where that is not the next token.
    #[serde(skip_serializing_if = "is_next_token")]
    pub task: Task,
    pub n_elements: u64,
    pub precision: Precision,
    /// Products of 32-bit numbers may round their operands to 19 bits.
    pub tf32: bool,
    /// The weights as they are computed with.
    pub bytes: Bytes,
    /// Their 32-bit masters, all of them.
    pub masters: Bytes,
    #[serde(skip)]
    pub model: Arc<Model>,
    /// Where the pipeline names the weights.
    #[serde(skip)]
    pub span: Option<Span>,
}

fn is_next_token(task: &Task) -> bool {
    *task == Task::NextToken
}

impl ModelPlan {
    /// The forward pass to the loss, in the plan's precision.
    pub fn loss(&self, shape: BatchShape) -> Graph {
        self.lower(self.model.loss(shape))
    }

    /// The same, which also gives what the loss is computed from, in 32 bits.
    pub fn evaluation(&self, shape: BatchShape) -> Graph {
        self.lower(self.model.evaluation(shape))
    }

    /// The forward pass to logits, in the plan's precision.
    pub fn logits(&self, shape: BatchShape) -> Graph {
        self.lower(self.model.logits(shape))
    }

    /// The same for texts that are continued: keys and values are kept in `cache`.
    pub fn continuation(&self, shape: BatchShape, cache: CacheShape) -> Graph {
        self.lower(self.model.continuation(shape, cache))
    }

    fn lower(&self, graph: Graph) -> Graph {
        precision::lower(graph, self.precision.dtype())
    }
}

/// A train stage.
#[derive(Debug, Clone, Serialize)]
pub struct TrainPlan {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    pub from: Option<String>,
    pub model: ModelPlan,
    pub data: Data,
    pub tokenizer: Tokenizer,
    pub rows: Option<Rows>,
    /// Every set of parameters that a turn can train; in the order of their turns, where they follow one another.
    pub groups: Vec<Group>,
    pub visits: Visits,
    pub turns_per_cycle: u64,
    /// Optimizer updates per turn.
    pub dwell: u64,
    /// Optimizer updates in all. None if that depends on rows nobody has looked at.
    pub steps: Option<u64>,
    pub steps_per_epoch: Option<u64>,
    pub rate: RatePlan,
    /// What a layer's rate is multiplied by for each layer above it.
    pub layer_decay: f64,
    /// Groups or layers whose rate is multiplied by a number of their own.
    pub named_factors: Vec<(String, f64)>,
    /// What that makes of the rate for each parameter, by [`ParamId`]; empty where all have the rate itself.
    #[serde(skip)]
    pub factors: Vec<f64>,
    pub algorithm: Algorithm,
    pub weight_decay: f64,
    pub states: Rest,
    pub weights_rest: Residence,
    pub clip: Option<f64>,
    pub micro_batch: u64,
    pub accumulate: u64,
    /// Tokens of the longest sequence.
    pub seq: u64,
    pub packed: bool,
    pub recompute: Recompute,
    /// What that comes to. With `auto`, [`crate::estimate::settle`] decides.
    pub run_again: RunAgain,
    /// Masters and states come to a device so late that few are there at a time, though it waits for them. With `auto`,
    /// [`crate::estimate::settle`] decides.
    pub sparing: bool,
    pub shuffle: Shuffle,
    pub seed: u64,
    pub device: Device,
    pub memory_limit: Option<Bytes>,
    pub evaluate: Option<EvaluateEvery>,
    pub checkpoint: Option<CheckpointEvery>,
    pub divergence: Option<Divergence>,
}

/// Blocks that run again in reverse instead of keeping what they computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunAgain {
    None,
    All,
    /// For each group those that its step has no room for.
    Blocks(Vec<Vec<usize>>),
}

impl RunAgain {
    fn has(&self, group: usize, block: usize) -> bool {
        match self {
            RunAgain::None => false,
            RunAgain::All => true,
            RunAgain::Blocks(of_groups) => of_groups[group].contains(&block),
        }
    }
}

/// Evaluation in the course of training.
#[derive(Debug, Clone, Serialize)]
pub struct EvaluateEvery {
    /// Optimizer updates between two evaluations.
    pub steps: u64,
    pub metrics: Vec<Metric>,
    /// Evaluations in a row without a better one, after which training ends.
    pub patience: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<Samples>,
}

/// Held-out rows that are answered at each evaluation, the same ones each time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Samples {
    /// The first ones in the order of the files: so many, or as many as there are.
    pub rows: u64,
    /// Tokens of the longest prompt. None if nobody has looked.
    pub prompt_tokens: Option<u64>,
    #[serde(flatten)]
    pub decoding: Decoding,
}

#[derive(Debug, Clone, Serialize)]
pub struct CheckpointEvery {
    /// Optimizer updates between two checkpoints.
    pub steps: u64,
    pub keep: u64,
    /// The metric by which the best one is kept, too.
    pub best: Option<Metric>,
    /// Whether the stage ends with the best one's weights.
    pub ends_with_best: bool,
}

/// What counts as diverged, and what happens then.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Divergence {
    /// A loss above so many times its mean.
    pub spike: Option<f64>,
    /// None: the run ends.
    pub roll_back: Option<RollBack>,
}

/// An evaluate stage.
#[derive(Debug, Clone, Serialize)]
pub struct EvaluatePlan {
    pub name: String,
    pub from: Option<String>,
    pub model: ModelPlan,
    pub data: Data,
    pub tokenizer: Tokenizer,
    pub rows: Option<Rows>,
    pub metrics: Vec<Metric>,
    pub micro_batch: u64,
    pub seq: u64,
    pub packed: bool,
    pub device: Device,
}

/// A generate stage.
#[derive(Debug, Clone, Serialize)]
pub struct GeneratePlan {
    pub name: String,
    pub from: Option<String>,
    pub model: ModelPlan,
    pub tokenizer: Tokenizer,
    /// Nothing where rows of `data` are continued.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<Rows>,
    /// How many rows are continued at the most; all, if nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<u64>,
    /// How many rows there are to continue. None if there are none, or nobody has looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continued: Option<u64>,
    /// What would be right, for each prompt; or nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// Tokens of the longest prompt. None if nobody has looked.
    pub prompt_tokens: Option<u64>,
    #[serde(flatten)]
    pub decoding: Decoding,
    /// Texts that end an answer, and do not belong to it.
    pub stop: Vec<String>,
    /// The file for the texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    pub device: Device,
}

impl GeneratePlan {
    /// How many prompts there are; None where they are rows that nobody has counted.
    pub fn n_prompts(&self) -> Option<u64> {
        match self.data {
            Some(_) => self.continued.or(self.at_most),
            None => Some(self.prompts.len() as u64),
        }
    }
}

/// How texts are continued.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decoding {
    pub max_new_tokens: u64,
    /// 0 takes the most probable token each time.
    pub temperature: f64,
    /// Tokens are drawn among so many, the most probable ones.
    pub top_k: Option<u64>,
    /// And of these among the fewest that have this share of the probability.
    pub top_p: f64,
    /// Texts that are tried at once.
    pub beams: u64,
    /// Texts are compared by their score over their length to this power.
    pub length_penalty: f64,
    /// The search ends with as many texts as there are beams, though another may become better.
    pub early_stopping: bool,
    pub seed: u64,
    /// Prompts that are continued at once.
    pub micro_batch: u64,
}

impl Decoding {
    /// The most probable token each time, so that two answers to a prompt can be compared.
    fn greedy(max_new_tokens: u64, micro_batch: u64) -> Self {
        Self {
            max_new_tokens,
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            beams: 1,
            length_penalty: 1.0,
            early_stopping: false,
            seed: 0,
            micro_batch,
        }
    }

    /// The keys and values to keep for prompts of which the longest has so many tokens.
    pub fn cache(&self, longest: u64, positions: u64, prompts: u64) -> CacheShape {
        let capacity = longest.saturating_add(self.max_new_tokens).min(positions.max(longest));
        CacheShape {
            sequences: (self.micro_batch.min(prompts.max(1)) * self.beams) as usize,
            capacity: capacity as usize,
        }
    }
}

/// An export stage.
#[derive(Debug, Clone, Serialize)]
pub struct ExportPlan {
    pub name: String,
    pub from: Option<String>,
    pub model: ModelPlan,
    pub tokenizer: Option<Tokenizer>,
    pub to: String,
    pub dtype: Dtype,
}

impl TrainPlan {
    /// How many checkpoints lie on the disk at a time, at the most: those that are kept, and the one that is written
    /// before the oldest goes.
    pub fn checkpoints_at_once(&self) -> u64 {
        1 + self.checkpoint.as_ref().map_or(0, |every| every.keep + u64::from(every.best.is_some()))
    }

    /// The metric that tells which evaluation was the best, where that matters.
    pub fn judge(&self) -> Option<Metric> {
        let best = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.best);
        let patience = self.evaluate.as_ref().filter(|evaluate| evaluate.patience.is_some());
        best.or(patience.map(|evaluate| evaluate.metrics.first().copied().unwrap_or(Metric::Loss)))
    }

    /// Which group has its turn at a step, counted from 0, where that does not depend on what a run measures.
    pub fn group_at(&self, step: u64) -> usize {
        self.visits.group(step / self.dwell, self.groups.len())
    }

    /// Cycles completed before a step.
    pub fn cycle_at(&self, step: u64) -> u64 {
        step / self.steps_per_cycle()
    }

    pub fn steps_per_cycle(&self) -> u64 {
        self.turns_per_cycle.saturating_mul(self.dwell)
    }

    /// Cycles in all, the last one perhaps unfinished.
    pub fn cycles(&self) -> Option<u64> {
        self.steps.map(|steps| steps.div_ceil(self.steps_per_cycle()))
    }

    /// The largest batch that the plan allows.
    pub fn largest_batch(&self) -> BatchShape {
        let seq = self.seq as usize;
        let far = self.model.model.is_far(seq);
        BatchShape { batch: self.micro_batch as usize, seq, packed: self.packed, far }
    }

    /// The programs of one step of `group` on batches of `shape`.
    pub fn programs(&self, group: usize, shape: BatchShape, threads: usize) -> StepPrograms {
        self.programs_with(group, shape, threads, &|block| self.run_again.has(group, block))
    }

    /// The same, with other blocks that run again.
    pub fn programs_with(
        &self,
        group: usize,
        shape: BatchShape,
        threads: usize,
        recompute: &dyn Fn(usize) -> bool,
    ) -> StepPrograms {
        let model = &self.model.model;
        let mut active = vec![false; model.params.len()];
        for id in &self.groups[group].params {
            active[id.0] = true;
        }
        let settings = Settings {
            active: &active,
            states: &|id| optimizer::states(&self.algorithm, model, id),
            clip: self.clip.map(|clip| clip as f32),
            masters: self.model.precision.has_masters(),
            scaled: self.model.precision.is_scaled(),
            accumulate: self.accumulate > 1,
            recompute,
            backend: backend(self.device, threads),
            away: self.away(),
        };
        step_programs(&self.model.loss(shape), &settings)
    }

    /// The program that evaluates batches of `shape`.
    pub fn evaluation(&self, shape: BatchShape, threads: usize) -> Program {
        bring(forward_only(&self.model.evaluation(shape), backend(self.device, threads)), self.away())
    }

    /// What rests away from the device while no instruction needs it.
    pub fn away(&self) -> Away {
        let host = match self.device {
            // The device's memory is the host's.
            Device::Auto | Device::Cpu => Rests::Here,
            Device::Cuda(_) => Rests::Host,
        };
        let weights = match self.weights_rest {
            Residence::Device => Rests::Here,
            Residence::Host => host,
            Residence::Disk => Rests::Disk,
        };
        let states = match self.states {
            Rest::Device | Rest::Discard => Rests::Here,
            Rest::Host => host,
            Rest::Disk => Rests::Disk,
        };
        let masters = match self.model.precision {
            // Where anything rests on disk, the host has no room for the largest of all.
            Precision::MixedHi(_) if [weights, states].contains(&Rests::Disk) => Rests::Disk,
            Precision::MixedHi(_) => host,
            Precision::Mixed(_) => weights,
            Precision::Fp32 | Precision::Bf16 => Rests::Here,
        };
        Away { weights, masters, states, sparing: self.sparing }
    }

    /// What the stage takes of the disk for what rests there: while it trains, or once it has ended, when parameters that
    /// were on the device come to it, too.
    pub fn scratch(&self) -> Bytes {
        let away = self.away();
        if !away.needs_disk() {
            return Bytes(0);
        }
        let model = &self.model.model;
        let of = |rests: Rests, bytes: Bytes| if rests == Rests::Disk { bytes } else { Bytes(0) };
        let parameters = |dtype: Dtype| -> Bytes {
            model.params.iter().map(|param| on_pages(Bytes(dtype.size() * param.elements()))).sum()
        };
        let weights = parameters(self.model.precision.dtype());
        let masters = if self.model.precision.has_masters() {
            parameters(self.model.precision.kept())
        } else {
            Bytes(0)
        };
        let states = |id: &ParamId| optimizer::states(&self.algorithm, model, *id);
        let states = self.trained().iter().flat_map(states).map(|state| on_pages(state.bytes())).sum();
        let training = of(away.weights, weights) + of(away.masters, masters) + of(away.states, states);
        match self.device {
            Device::Auto | Device::Cpu => training,
            Device::Cuda(_) => training.max(weights + masters),
        }
    }

    /// Optimizer states of a group.
    pub fn state_bytes(&self, group: &Group) -> Bytes {
        let states = |id: &ParamId| optimizer::states(&self.algorithm, &self.model.model, *id);
        group.params.iter().flat_map(states).map(|state| state.bytes()).sum()
    }

    /// Optimizer states of everything that is trained, each counted once.
    pub fn all_state_bytes(&self) -> Bytes {
        self.state_bytes(&Group { names: Vec::new(), params: self.trained(), n_elements: 0 })
    }

    /// Every parameter that some group trains, once.
    fn trained(&self) -> Vec<ParamId> {
        let mut params: Vec<_> = self.groups.iter().flat_map(|group| &group.params).copied().collect();
        params.sort_unstable();
        params.dedup();
        params
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
                train(pipeline, stage, model, world).map(|p| StagePlan::Train(Box::new(p)))
            }
            Stage::Evaluate(stage) => {
                evaluate(pipeline, stage, model, world).map(|p| StagePlan::Evaluate(Box::new(p)))
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
                generate(pipeline, stage, model, world).map(|p| StagePlan::Generate(Box::new(p)))
            }
            Stage::Export(stage) => Ok(StagePlan::Export(Box::new(export(stage, model)))),
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

/// Reads the configuration of a model block, and holds the weights beside it against it.
///
/// # Errors
/// When there is no configuration, it is not one that is known here, or the weights are another model's.
pub fn read_model(
    pipeline: &Pipeline,
    block: &crate::lang::pipeline::Model,
    world: &mut dyn World,
) -> Result<ModelPlan, Problems> {
    let span = block.weights.span();
    let placed = |problem: Problem| match problem.labels.is_empty() {
        true if problem.code == "hift::model::task" => {
            problem.label_at(block.task.span().or(span), "is to be trained for this")
        }
        true => problem.label_at(span, "this model"),
        false => problem,
    };
    let config = match &*block.weights {
        Weights::Directory { path } | Weights::Hub { path: Some(path), .. } => {
            pipeline.path(path).join("config.json")
        }
        Weights::Random { config, .. } => pipeline.path(config),
        Weights::Hub { repository, path: None, .. } => {
            let what = format!("`{}` is on the Hub, and was not fetched", repository.name);
            let problem = Problem::of(Fault::Missing, "hift::plan::not_fetched", what);
            return Err(placed(problem)
                .help("`hift run FILE` fetches it; this program may have been built without what it needs to run")
                .into());
        }
    };
    let (kind, labels) = match &*block.task {
        Ask::Auto => (Kind::Auto, None),
        Ask::SequenceClassification { labels } => (Kind::Classes, labels.as_deref()),
        Ask::Regression => (Kind::Number, None),
        Ask::TokenClassification { labels } => (Kind::TokenClasses, labels.as_deref()),
        Ask::QuestionAnswering => (Kind::Answers, None),
    };
    let model = world.read(&config).and_then(|text| {
        Model::for_task(&text, kind, labels).map_err(|mut problem| {
            problem.message = format!("{}: {}", config.display(), problem.message);
            problem
        })
    });
    let model = model.map_err(placed)?;
    if let Some(path) = block.weights.directory() {
        let checked = world.check_weights(&pipeline.path(path), &model);
        checked.map_err(|found| Problems(found.0.into_iter().map(placed).collect()))?;
    }
    Ok(ModelPlan {
        name: block.name.clone(),
        weights: block.weights.value.clone(),
        family: model.family,
        task: model.task(),
        tf32: *block.tf32,
        n_elements: model.n_elements(),
        precision: *block.precision,
        bytes: Bytes(block.precision.dtype().size() * model.n_elements()),
        masters: if block.precision.has_masters() { model.bytes() } else { Bytes(0) },
        model: Arc::new(model),
        span,
    })
}

/// Holds the rows of a data block against the model's task.
///
/// # Errors
/// When rows have classes and the model has none, or the other way round; or when a classifier's rows are to be packed.
pub fn check_task(data: &Data, tokenizer: &Tokenizer, model: &Model) -> Result<(), Problem> {
    /// What a row has.
    #[derive(PartialEq)]
    enum Has {
        Text,
        Class,
        /// Of tokens, or of words.
        Labels,
        Answer,
    }
    let has = match &data.format.value {
        Format::Classify { .. } | Format::Tokens { label: Some(_), .. } => Has::Class,
        Format::TokenLabels { .. } => Has::Labels,
        Format::Tokens { labels: Some(_), .. } if matches!(model.task(), Task::Tokens(_)) => Has::Labels,
        Format::Question { .. } => Has::Answer,
        Format::Text { .. } | Format::Instruct { .. } | Format::Chat { .. } | Format::Tokens { .. } => {
            Has::Text
        }
        // Each block of a mix by itself.
        Format::OfParts => {
            return data.parts().into_iter().try_for_each(|part| check_task(part, tokenizer, model));
        }
    };
    let problem = |message: String, label: &str, help: &str| {
        Err(Problem::new("hift::plan::task", message).label_at(data.format.span(), label).help(help))
    };
    if let Format::Tokens { labels: Some(labels), label: Some(label), .. } = &data.format.value {
        return problem(
            format!("the rows of `{}` have both labels for each token and a class", data.name),
            &format!("`{labels}` is for models that predict tokens, `{label}` for classifiers"),
            "keep `labels` or `label`, whichever the model is trained for",
        );
    }
    let task = match has {
        Has::Text => None,
        Has::Class => Some("sequence_classification"),
        Has::Labels => Some("token_classification"),
        Has::Answer => Some("question_answering"),
    };
    match model.task() {
        Task::NextToken if has != Has::Text => problem(
            format!("the rows of `{}` have labels, but the model predicts the next token", data.name),
            match has {
                Has::Answer => "gives each row an answer to find",
                Has::Labels => "gives each word a label",
                Has::Class | Has::Text => "gives each row a label",
            },
            &format!(
                "write another `format`, or `task = {}` in the `model` block",
                task.unwrap_or("sequence_classification")
            ),
        ),
        Task::Tokens(classes) if has != Has::Labels => problem(
            format!(
                "the model gives each token one of {} classes, but the rows of `{}` have none for their words",
                classes.len(),
                data.name
            ),
            "has no classes of words",
            "write `format = token_labels(tokens = \"tokens\", labels = \"ner_tags\")` with the columns' names",
        ),
        Task::Span if has != Has::Answer => problem(
            format!("the model finds answers in a text, but the rows of `{}` ask nothing", data.name),
            "has no questions",
            "write `format = question(question = \"question\", context = \"context\", answers = \"answers\")`",
        ),
        Task::Sequence(_) if matches!(has, Has::Labels | Has::Answer) => problem(
            format!("the model gives each sequence a label, but the rows of `{}` have other ones", data.name),
            match has {
                Has::Labels => "gives each word a label",
                Has::Answer | Has::Class | Has::Text => "gives each row an answer to find",
            },
            &format!("write `task = {}` in the `model` block", task.unwrap_or("auto")),
        ),
        Task::Sequence(target) if has != Has::Class => problem(
            match target {
                Target::Classes(classes) => format!(
                    "the model tells {} classes apart, but the rows of `{}` have none",
                    classes.len(),
                    data.name
                ),
                Target::Number => {
                    format!("the model gives each row a number, but the rows of `{}` have none", data.name)
                }
            },
            "gives the rows no label",
            "write `format = classify(text = \"{text}\", label = \"label\")` with the columns' names",
        ),
        Task::Sequence(_) | Task::Tokens(_) | Task::Span if *tokenizer.pack => Err(Problem::new(
            "hift::plan::task",
            "rows that each have a label cannot be packed into one sequence",
        )
        .label_at(tokenizer.pack.span(), "asks for packing")
        .label_at(data.format.span(), "gives each row a label")
        .help("write `pack = false`")),
        Task::NextToken | Task::Sequence(_) | Task::Tokens(_) | Task::Span => Ok(()),
    }
}

/// The metrics that fit a task.
fn fitting(task: &Task) -> Vec<Metric> {
    use Metric::{
        Accuracy, EntityF1, EntityPrecision, EntityRecall, ExactMatch, F1, Loss, MacroF1, Matthews,
    };
    match task {
        Task::NextToken => vec![Loss, Metric::Perplexity, Accuracy],
        Task::Sequence(Target::Number) => vec![Loss, Metric::Pearson, Metric::Spearman],
        Task::Sequence(Target::Classes(classes)) => {
            let f1 = (classes.len() == 2).then_some(F1);
            [Loss, Metric::Perplexity, Accuracy, MacroF1, Matthews].into_iter().chain(f1).collect()
        }
        Task::Tokens(_) => {
            vec![Loss, Metric::Perplexity, Accuracy, MacroF1, EntityF1, EntityPrecision, EntityRecall]
        }
        Task::Span => vec![Loss, Accuracy, ExactMatch, F1],
    }
}

/// Holds the metrics of a stage against the model's task.
fn check_metrics(metrics: &Setting<Vec<Metric>>, model: &ModelPlan) -> Result<(), Problem> {
    let task = model.model.task();
    let fitting = fitting(&task);
    let Some(strange) = metrics.iter().find(|metric| !fitting.contains(metric)) else { return Ok(()) };
    let names: Vec<&str> = fitting.iter().map(|metric| metric.name()).collect();
    let does = match &task {
        Task::NextToken => "predicts the next token".to_string(),
        Task::Sequence(Target::Number) => "gives each sequence a number".to_string(),
        Task::Sequence(Target::Classes(classes)) => {
            format!("tells {} classes of sequences apart", classes.len())
        }
        Task::Tokens(classes) => format!("tells {} classes of tokens apart", classes.len()),
        Task::Span => "finds answers in a text".to_string(),
    };
    let help = match (strange, &task) {
        (Metric::F1, Task::Sequence(Target::Classes(_))) => {
            "write `macro_f1`: `f1` is of two classes".to_string()
        }
        (
            Metric::Bleu
            | Metric::Nist
            | Metric::Rouge1
            | Metric::Rouge2
            | Metric::RougeL
            | Metric::ExactMatch,
            Task::NextToken,
        ) => {
            format!("a `generate` stage with `references` measures texts; here: {}", names.join(", "))
        }
        _ => format!("write some of {}", names.join(", ")),
    };
    Err(Problem::new(
        "hift::plan::metric",
        format!("`{}` does not measure a model that {does}", strange.name()),
    )
    .label_at(metrics.span(), "asks for it")
    .label_at(model.span, does)
    .help(help))
}

/// The longest sequence to plan for: what the rows really hold, else what the tokenizer may give.
fn longest(tokenizer: &Tokenizer, model: &Model, rows: Option<u64>) -> Result<u64, Problem> {
    let positions = model.positions as u64;
    if let Some(max_length) = *tokenizer.max_length
        && max_length > positions
    {
        return Err(Problem::new(
            "hift::plan::too_long",
            format!("sequences of {max_length} tokens do not fit a model with {positions} positions"),
        )
        .label_at(tokenizer.max_length.span(), format!("at most {positions} here"))
        .help(format!("write `max_length = {positions} tokens` or less")));
    }
    let allowed = tokenizer.max_length.unwrap_or(positions);
    Ok(rows.map_or(allowed, |longest| longest.min(allowed)))
}

/// More tokens than this in one forward pass are surely not meant, and sizes stay within 64 bits.
const MAX_BATCH_TOKENS: u64 = 1 << 31;

/// Sequences per forward pass: what the pipeline says, but no more than there are.
fn batch(micro_batch: &Setting<u64>, rows: Option<u64>, seq: u64) -> Result<u64, Problem> {
    let batch = rows.map_or(**micro_batch, |rows| rows.max(1).min(**micro_batch));
    if batch.saturating_mul(seq) <= MAX_BATCH_TOKENS {
        return Ok(batch);
    }
    let most = (MAX_BATCH_TOKENS / seq.max(1)).max(1);
    Err(Problem::new(
        "hift::plan::batch_too_large",
        format!("{batch} sequences of {seq} tokens are more than one forward pass can take"),
    )
    .label_at(micro_batch.span(), format!("at most {most} here"))
    .help("write a small `micro_batch`, such as 4, and `accumulate` for a larger batch"))
}

fn train(
    pipeline: &Pipeline,
    stage: &Train,
    model: ModelPlan,
    world: &mut dyn World,
) -> Result<TrainPlan, Problems> {
    let mut problems = Problems::default();
    check_task(&stage.data, &stage.tokenizer, &model.model)?;
    if let Some(evaluate) = &stage.evaluate {
        check_metrics(&evaluate.metrics, &model)?;
    }
    let asked = stage.evaluate.as_ref().and_then(|evaluate| evaluate.samples.as_ref());
    if let Some(asked) = asked {
        check_samples(stage, asked, &model)?;
    }
    if let Some(best) = stage.checkpoint.as_ref().and_then(|checkpoint| checkpoint.best.as_ref()) {
        check_metrics(&Setting { value: vec![best.value], origin: best.origin }, &model)?;
    }
    let turns = group::turns(&stage.groups, &stage.schedule, &model.model);
    longest(&stage.tokenizer, &model.model, None)?;
    let rows = world.rows(pipeline, &stage.data, &stage.tokenizer, &model.model);
    let (turns, rows) = match (turns, rows) {
        (Ok(turns), Ok(rows)) => (turns, rows),
        (turns, rows) => {
            problems.0.extend(turns.err().into_iter().chain(rows.err()).flat_map(|found| found.0));
            return Err(problems);
        }
    };
    let seq = longest(&stage.tokenizer, &model.model, rows.map(|rows| rows.longest))?;
    let micro_batch = batch(&stage.micro_batch, rows.map(|rows| rows.train), seq)?;
    let per_step = micro_batch.saturating_mul(*stage.accumulate);
    let steps_per_epoch = rows.map(|rows| rows.train.div_ceil(per_step));
    let steps = match *stage.length {
        Length::Steps(steps) => Some(steps),
        Length::Epochs(epochs) => steps_per_epoch.map(|steps| (epochs * steps as f64).ceil() as u64),
    };
    let dwell = *stage.schedule.dwell;
    let layer_decay = *stage.schedule.layer_decay;
    let steps_per_cycle = turns.per_cycle.saturating_mul(dwell);
    let interval = |every: Interval| match every {
        Interval::Steps(steps) => steps,
        Interval::Cycles(cycles) => cycles.saturating_mul(steps_per_cycle),
        // Without a look at the rows an epoch has no length; nothing that is planned then depends on it.
        Interval::Epochs(epochs) => {
            steps_per_epoch.map_or(u64::MAX, |steps| (epochs * steps as f64).ceil().max(1.0) as u64)
        }
    };
    if let Some(evaluate) = &stage.evaluate
        && rows.is_some_and(|rows| rows.holdout == 0)
    {
        return Err(Problem::new(
            "hift::plan::no_holdout",
            format!("`{}` evaluates, but `{}` holds no rows out", stage.name, stage.data.name),
        )
        .label(evaluate.span, "needs rows that are not trained on")
        .label(stage.data.span, "has no `holdout`")
        .help(format!("write `holdout = 2 %` in `data {}`", stage.data.name))
        .into());
    }
    let samples = match asked {
        Some(asked) => Some(samples(pipeline, stage, asked, &model, micro_batch, world)?),
        None => None,
    };
    // What hides packed rows from each other hides padding, too.
    let packed = *stage.tokenizer.pack || model.model.both_ways;
    Ok(TrainPlan {
        name: stage.name.clone(),
        span: stage.span,
        from: stage.from.clone(),
        rate: RatePlan::new(
            &stage.schedule,
            steps.unwrap_or(u64::MAX),
            steps_per_cycle,
            turns.short_cycle.saturating_mul(dwell),
        ),
        layer_decay,
        named_factors: stage.schedule.factors.iter().map(|(name, by)| (name.value.clone(), *by)).collect(),
        factors: match layer_decay == 1.0 && stage.schedule.factors.is_empty() {
            true => Vec::new(),
            false => {
                let by_depth = rate::layer_factors(&model.model, layer_decay);
                by_depth.iter().zip(&turns.factors).map(|(a, b)| a * b).collect()
            }
        },
        model,
        data: stage.data.clone(),
        tokenizer: stage.tokenizer.clone(),
        rows,
        groups: turns.groups,
        visits: turns.visits,
        turns_per_cycle: turns.per_cycle,
        dwell,
        steps,
        steps_per_epoch,
        algorithm: stage.optimizer.algorithm.clone(),
        weight_decay: *stage.optimizer.weight_decay,
        states: *stage.schedule.states,
        weights_rest: *stage.schedule.weights,
        clip: *stage.clip,
        micro_batch,
        accumulate: *stage.accumulate,
        seq,
        packed,
        recompute: *stage.model.recompute,
        sparing: false,
        run_again: match *stage.model.recompute {
            Recompute::Blocks => RunAgain::All,
            Recompute::None | Recompute::Auto => RunAgain::None,
        },
        shuffle: *stage.data.shuffle,
        seed: *stage.seed,
        device: *stage.device,
        memory_limit: *stage.memory_limit,
        evaluate: stage.evaluate.as_ref().map(|e| EvaluateEvery {
            steps: interval(*e.every),
            metrics: e.metrics.value.clone(),
            patience: *e.patience,
            samples,
        }),
        checkpoint: stage.checkpoint.as_ref().map(|c| CheckpointEvery {
            steps: interval(*c.every),
            keep: *c.keep,
            best: c.best.as_ref().map(|best| best.value),
            ends_with_best: *c.ends_with_best,
        }),
        divergence: stage
            .divergence
            .as_ref()
            .map(|d| Divergence { spike: *d.spike, roll_back: *d.roll_back }),
    })
}

/// Makes sure that a train stage has rows that can be answered, and a model that answers.
///
/// # Errors
/// A model that writes no text; rows without a prompt.
fn check_samples(stage: &Train, asked: &AskedSamples, model: &ModelPlan) -> Result<(), Problem> {
    match model.model.task() {
        Task::NextToken => {
            check_responses(&stage.data, &stage.tokenizer, &Continued::AsSamples(asked.rows.span()))
        }
        Task::Sequence(_) | Task::Tokens(_) | Task::Span => Err(Problem::new(
            "hift::plan::task",
            format!("`{}` writes samples, which this model cannot", stage.name),
        )
        .label_at(asked.rows.span(), "asks for text")
        .label_at(model.span, "it labels what is written")
        .help("remove `samples`; `metrics` measure what it labels")),
    }
}

/// The held-out rows that a train stage answers at each evaluation.
///
/// # Errors
/// Rows of which none can be continued.
fn samples(
    pipeline: &Pipeline,
    stage: &Train,
    asked: &AskedSamples,
    model: &ModelPlan,
    micro_batch: u64,
    world: &mut dyn World,
) -> Result<Samples, Problems> {
    let rows = (&stage.data, &stage.tokenizer);
    let found = world.check_rows(pipeline, rows, Some(*asked.rows), &model.model)?;
    Ok(Samples {
        rows: found.map_or(*asked.rows, |found| found.n),
        prompt_tokens: found.map(|found| found.longest),
        decoding: Decoding::greedy(*asked.max_new_tokens, micro_batch),
    })
}

fn evaluate(
    pipeline: &Pipeline,
    stage: &Evaluate,
    model: ModelPlan,
    world: &mut dyn World,
) -> Result<EvaluatePlan, Problems> {
    check_task(&stage.data, &stage.tokenizer, &model.model)?;
    check_metrics(&stage.metrics, &model)?;
    longest(&stage.tokenizer, &model.model, None)?;
    let rows = world.rows(pipeline, &stage.data, &stage.tokenizer, &model.model)?;
    let seen = rows.map(|rows| match rows.holdout {
        0 => (rows.train, rows.longest),
        holdout => (holdout, rows.longest_holdout),
    });
    let seq = longest(&stage.tokenizer, &model.model, seen.map(|(_, longest)| longest))?;
    Ok(EvaluatePlan {
        name: stage.name.clone(),
        from: stage.from.clone(),
        data: stage.data.clone(),
        tokenizer: stage.tokenizer.clone(),
        rows,
        metrics: stage.metrics.value.clone(),
        micro_batch: batch(&stage.micro_batch, seen.map(|(rows, _)| rows), seq)?,
        seq,
        packed: *stage.tokenizer.pack || model.model.both_ways,
        device: *stage.device,
        model,
    })
}

/// What rows are continued for.
enum Continued {
    ByStage,
    /// While training evaluates; where the pipeline says so.
    AsSamples(Option<Span>),
}

/// Makes sure that the rows of a data block have a prompt and a response that can be told apart.
///
/// # Errors
/// Rows that are learned whole, by their format or by `loss_on`.
fn check_responses(data: &Data, tokenizer: &Tokenizer, why: &Continued) -> Result<(), Problem> {
    let (asked, otherwise) = match why {
        Continued::ByStage => (None, "write `prompts = [...]`"),
        Continued::AsSamples(span) => (*span, "remove `samples`"),
    };
    let whole = |message: String, span, label: &str, help: &str| {
        Err(Problem::new("hift::plan::no_response", message)
            .label_at(span, label)
            .label_at(asked, "asks for answers to them")
            .help(help))
    };
    let has_response = |part: &&Data| match &part.format.value {
        Format::Instruct { .. } | Format::Chat { .. } | Format::Tokens { labels: Some(_), .. } => true,
        Format::Text { .. } | Format::Tokens { .. } | Format::OfParts => false,
        Format::Classify { .. } | Format::TokenLabels { .. } | Format::Question { .. } => false,
    };
    let parts = data.parts();
    let Some(part) = parts.iter().find(|part| has_response(part)) else {
        return whole(
            format!("the rows of `{}` have no response, so nothing says where to go on from", data.name),
            parts.first().and_then(|part| part.format.span()),
            "is one text",
            &format!("use a data block with `format = instruct(...)` or `chat`, or {otherwise}"),
        );
    };
    let of_tokens = matches!(part.format.value, Format::Tokens { .. });
    match &tokenizer.loss_on.value {
        LossOn::All if !of_tokens => whole(
            format!(
                "the rows of `{}` are learned whole, so nothing says where their responses begin",
                data.name
            ),
            tokenizer.loss_on.span(),
            "prompts, too",
            "write `loss_on = response` in the tokenizer block",
        ),
        LossOn::Roles(roles) if roles.iter().any(|role| role != "assistant") => whole(
            format!("the rows of `{}` are not learned for their responses alone", data.name),
            tokenizer.loss_on.span(),
            "others are learned, too",
            "write `loss_on = response` in the tokenizer block of the stage, which are the turns of the assistant",
        ),
        LossOn::All | LossOn::Response | LossOn::Last | LossOn::Roles(_) => Ok(()),
    }
}

fn generate(
    pipeline: &Pipeline,
    stage: &Generate,
    model: ModelPlan,
    world: &mut dyn World,
) -> Result<GeneratePlan, Problems> {
    let rows = match &stage.data {
        None => None,
        Some(data) => {
            check_task(data, &stage.tokenizer, &model.model)?;
            check_responses(data, &stage.tokenizer, &Continued::ByStage)?;
            world.rows(pipeline, data, &stage.tokenizer, &model.model)?
        }
    };
    let prompts = world.check_prompts(pipeline, stage, &model.model)?;
    Ok(GeneratePlan {
        name: stage.name.clone(),
        from: stage.from.clone(),
        model,
        tokenizer: stage.tokenizer.clone(),
        prompts: stage.prompts.iter().map(|prompt| prompt.value.clone()).collect(),
        data: stage.data.clone(),
        rows,
        at_most: *stage.rows,
        continued: prompts.filter(|_| stage.data.is_some()).map(|prompts| prompts.n),
        references: stage.references.iter().map(|text| text.value.clone()).collect(),
        metrics: stage.metrics.value.clone(),
        prompt_tokens: prompts.map(|prompts| prompts.longest),
        decoding: Decoding {
            max_new_tokens: *stage.max_new_tokens,
            temperature: *stage.temperature,
            top_k: *stage.top_k,
            top_p: *stage.top_p,
            beams: *stage.beams,
            length_penalty: *stage.length_penalty,
            early_stopping: *stage.early_stopping,
            seed: *stage.seed,
            micro_batch: *stage.micro_batch,
        },
        stop: stage.stop.iter().map(|text| text.value.clone()).collect(),
        to: stage.to.value.clone(),
        device: *stage.device,
    })
}

fn export(stage: &Export, model: ModelPlan) -> ExportPlan {
    ExportPlan {
        name: stage.name.clone(),
        from: stage.from.clone(),
        model,
        tokenizer: stage.tokenizer.clone(),
        to: stage.to.value.clone(),
        dtype: *stage.dtype,
    }
}
