//! A train stage, decided.

use serde::Serialize;

use crate::lang::Pipeline;
use crate::lang::pipeline::{
    Algorithm, Data, Device, Interval, Length, Metric, Precision, Recompute, Residence, Rest, RollBack,
    Samples as AskedSamples, Setting, Shuffle, Tokenizer, Train,
};
use crate::model::Task;
use crate::problem::{Problem, Problems, Span};
use crate::program::builder::BatchShape;
use crate::program::residency::{Away, Rests, bring, on_pages};
use crate::program::{ParamId, Program, Settings, StepPrograms, forward_only, step_programs};
use crate::units::{Bytes, Dtype};

use super::fit::{batch, check_metrics, check_task, longest};
use super::model::ModelPlan;
use super::stages::{Continued, Decoding, check_responses};
use super::{Group, RatePlan, Rows, Visits, World, backend, group, optimizer, rate};

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

pub(super) fn train(
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
