//! The loop: one optimizer update after the other, each of the group whose turn it is.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use rayon::prelude::*;
use serde_json::json;

use crate::data::{Batch, Batches, Dataset};
use crate::engine::access::{bytes, dtype, numbers, with_floats};
use crate::engine::cpu::number::Number;
use crate::engine::{Inputs, Knobs, Played, Store, Tensor, memory, play, store};
use crate::lang::pipeline::{Metric, Rest, Shuffle};
use crate::plan::{Queue, TrainPlan, Visits};
use crate::problem::{Fault, Problem, Problems};
use crate::program::builder::BatchShape;
use crate::program::{ParamId, Program, StepPrograms};
use crate::random::Random;
use crate::units::Bytes;

use super::checkpoint::{self, Position};
use super::directory::RunDirectory;
use super::evaluate::{evaluate, inputs};
use super::loss_scale::LossScale;
use super::watch::{Measured, StepReport, Watch};
use super::{metrics as scores, signals};

/// Programs that are kept for batches of other shapes; compiling one costs less than a step.
const PROGRAMS_KEPT: usize = 64;

/// What a stage starts from: fresh weights, or a checkpoint.
pub struct Begin {
    pub store: Store,
    /// Updates already made.
    pub step: u64,
    /// An interruption came before the held-out rows were through.
    pub owes_evaluation: bool,
    /// Where the order of the turns depends on what was measured.
    pub queue: Option<Queue>,
    /// Where the loss is scaled.
    pub scale: Option<LossScale>,
}

impl Begin {
    /// The first step of a stage.
    pub fn fresh(store: Store) -> Self {
        Self { store, step: 0, owes_evaluation: false, queue: None, scale: None }
    }
}

pub enum End {
    Done(Store),
    Interrupted { checkpoint: PathBuf },
}

/// Trains a stage to its end or to an interruption. With `keep_end` its last state is kept as a checkpoint.
pub fn train(
    plan: &TrainPlan,
    stage_index: usize,
    begin: Begin,
    keep_end: bool,
    dataset: &Dataset,
    directory: &mut RunDirectory,
    watch: &mut dyn Watch,
) -> Result<End, Problems> {
    let Begin { mut store, step: begin, owes_evaluation, queue, scale } = begin;
    let steps = plan.steps.expect("the rows were counted before the run");
    let shuffle = match plan.shuffle {
        Shuffle::None => Shuffle::None,
        // The data's own seed has decided what is held out; the stage's seed decides the order of each epoch.
        Shuffle::Seed(_) => Shuffle::Seed(plan.seed),
        Shuffle::ByLength(_) => Shuffle::ByLength(plan.seed),
    };
    let mut batches = Batches::new(&dataset.train, plan.micro_batch, plan.accumulate, shuffle);
    let measured = plan.visits == Visits::Importance && (1..steps).contains(&begin);
    if measured && queue.as_ref().is_none_or(|queue| !queue.fits(plan.groups.len())) {
        return Err(Problem::of(
            Fault::Missing,
            "hift::run::broken_checkpoint",
            format!("the checkpoint of step {begin} does not say in which order the groups have their turns"),
        )
        .help("remove it to go on from the one before, or start anew with `--resume never`")
        .into());
    }
    let mut stepper = Stepper::new(plan).with(queue, scale);
    stepper.prepare(&mut store, begin)?;
    let evaluates =
        |now: u64| plan.evaluate.as_ref().filter(|every| now.is_multiple_of(every.steps) || now == steps);
    let mut owes = false;
    if let Some(every) = evaluates(begin).filter(|_| owes_evaluation) {
        owes = !held_out(plan, &every.metrics, begin, &mut store, dataset, directory, watch)?;
    }
    if owes || (signals::interrupted() && begin < steps) {
        return interrupt(plan, stage_index, begin, owes, &store, &stepper, directory);
    }
    let keep = plan.checkpoint.as_ref().map_or(1, |every| every.keep);
    if let Some(every) = &plan.evaluate
        && begin == 0
    {
        held_out(plan, &every.metrics, 0, &mut store, dataset, directory, watch)?;
    }
    let mut last_good: Option<f64> = None;
    let mut unproven = true;
    for step in begin..steps {
        let began = Instant::now();
        let group = stepper.group_at(step);
        let rate = plan.rate.at(step);
        stepper.turn(&mut store, step)?;
        let done = loop {
            let done = stepper.step(&mut store, &mut batches, dataset, step, rate)?;
            if !done.overflow {
                break done;
            }
            // No weight has changed: the turn is taken again, with a smaller scale.
            let scale = stepper.scale.as_mut().expect("only scaled gradients overflow");
            let left = scale.overflow();
            let what = json!({
                "stage": plan.name, "step": step + 1, "group": plan.groups[group].names, "loss_scale": scale.factor,
            });
            directory.event("overflow", what)?;
            watch.note(&format!(
                "step {}: the gradients overflow fp16; again with a loss scale of {}",
                step + 1,
                scale.factor
            ));
            if !left {
                return Err(not_finite(plan, step, group, &done, last_good).into());
            }
        };
        if !done.loss.is_finite() || !done.grad_norm.is_finite() {
            return Err(not_finite(plan, step, group, &done, last_good).into());
        }
        last_good = Some(done.loss);
        // The checkpoint before the last goes only when a step has shown that the last one is good.
        if std::mem::take(&mut unproven) {
            checkpoint::prune(directory, stage_index, keep)?;
        }
        let report = StepReport {
            stage: &plan.name,
            step: step + 1,
            steps,
            cycle: plan.cycle_at(step),
            cycles: plan.cycles().unwrap_or(0),
            group: &plan.groups[group].names,
            rate,
            loss: done.loss,
            grad_norm: done.grad_norm,
            tokens: done.tokens,
            loss_scale: done.loss_scale,
            seconds: began.elapsed().as_secs_f64(),
            memory: done.memory,
        };
        directory.metric(&report)?;
        watch.step(&report);

        let now = step + 1;
        let due =
            plan.checkpoint.as_ref().is_some_and(|every| now.is_multiple_of(every.steps) || now == steps);
        if due || now == steps || signals::interrupted() {
            finite(plan, now, &store)?;
        }
        let owes = match evaluates(now) {
            Some(every) => !held_out(plan, &every.metrics, now, &mut store, dataset, directory, watch)
                .map_err(|mut problem| {
                    let group = plan.groups[group].names.join(", ");
                    problem.message += &format!(
                        " after step {now} of stage `{}`, group {group}; the training loss of that step was {:.4}",
                        plan.name, done.loss
                    );
                    problem
                })?,
            None => false,
        };
        if owes || (signals::interrupted() && now < steps) {
            return interrupt(plan, stage_index, now, owes, &store, &stepper, directory);
        }
        if due || (keep_end && now == steps) {
            save(plan, stage_index, now, false, &store, &stepper, directory)?;
            unproven = true;
        }
    }
    checkpoint::prune(directory, stage_index, keep)?;
    Ok(End::Done(store))
}

fn save(
    plan: &TrainPlan,
    stage_index: usize,
    step: u64,
    owes_evaluation: bool,
    store: &Store,
    stepper: &Stepper<'_>,
    directory: &mut RunDirectory,
) -> Result<PathBuf, Problem> {
    let queue = stepper.queue().cloned();
    let scale = stepper.scale;
    let position = Position { stage: plan.name.clone(), stage_index, step, owes_evaluation, queue, scale };
    let path = checkpoint::save(directory, &position, &plan.model.model, store)?;
    directory.event("checkpoint", json!({ "stage": plan.name, "step": step, "path": path }))?;
    Ok(path)
}

fn interrupt(
    plan: &TrainPlan,
    stage_index: usize,
    step: u64,
    owes_evaluation: bool,
    store: &Store,
    stepper: &Stepper<'_>,
    directory: &mut RunDirectory,
) -> Result<End, Problems> {
    finite(plan, step, store)?;
    let checkpoint = save(plan, stage_index, step, owes_evaluation, store, stepper, directory)?;
    Ok(End::Interrupted { checkpoint })
}

/// Weights that are not numbers must not become a checkpoint, nor replace an export.
fn finite(plan: &TrainPlan, step: u64, store: &Store) -> Result<(), Problem> {
    let model = &plan.model.model;
    let broken = |tensor: &Tensor| with_floats!(dtype(tensor), T => numbers::<T>(tensor).par_iter().any(|x| !x.wide().is_finite()));
    match model.params.iter().zip(&store.weights).find(|(_, weights)| broken(weights)) {
        None => Ok(()),
        Some((param, _)) => Err(Problem::of(
            Fault::Failed,
            "hift::run::not_finite",
            format!(
                "`{}` is no longer made of numbers after step {step} of stage `{}`",
                param.name, plan.name
            ),
        )
        .help(DIVERGED)),
    }
}

/// Whether the held-out rows were all seen, so that the figures stand.
fn held_out(
    plan: &TrainPlan,
    metrics: &[Metric],
    step: u64,
    store: &mut Store,
    dataset: &Dataset,
    directory: &mut RunDirectory,
    watch: &mut dyn Watch,
) -> Result<bool, Problem> {
    let Some(sums) = evaluate(&plan.model, store, &dataset.holdout, plan.micro_batch)? else {
        return Ok(false);
    };
    let metrics = sums.metrics(metrics);
    directory
        .event("evaluate", json!({ "stage": plan.name, "step": step, "metrics": scores::json(&metrics) }))?;
    watch.evaluated(&plan.name, Some(step), &metrics);
    Ok(true)
}

fn not_finite(plan: &TrainPlan, step: u64, group: usize, done: &Done, last_good: Option<f64>) -> Problem {
    let group = plan.groups[group].names.join(", ");
    let (what, value) =
        if done.loss.is_finite() { ("gradient's norm", done.grad_norm) } else { ("loss", done.loss) };
    let before = match last_good {
        Some(loss) => format!("the loss of the step before was {loss:.4}"),
        None => "it was the first step of this call".to_string(),
    };
    Problem::of(
        Fault::Failed,
        "hift::run::not_finite",
        format!(
            "the {what} is {value} at step {} of stage `{}`, group {group}; {before}",
            step + 1,
            plan.name
        ),
    )
    .help(if plan.model.precision.is_scaled() { TOO_LARGE } else { DIVERGED })
}

const TOO_LARGE: &str = "numbers of fp16 end at 65,504: write `bf16` in its place, or lower the rate's peak; \
                         checkpoints written before are untouched";

const DIVERGED: &str = "lower the rate's peak, add `clip = 1.0`, or lengthen the warm-up; checkpoints written before are untouched";

/// What one update gave.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    pub loss: f64,
    pub grad_norm: f64,
    pub tokens: u64,
    /// Scaled gradients were too large: nothing has changed.
    pub overflow: bool,
    /// What the loss was multiplied by, where that changes from step to step.
    pub loss_scale: Option<f64>,
    pub memory: Measured,
}

/// Makes single updates. The loop, the memory oracle and the benchmarks all use this.
pub struct Stepper<'a> {
    plan: &'a TrainPlan,
    threads: usize,
    programs: HashMap<(usize, BatchShape), StepPrograms>,
    /// What was measured, where the order of the turns depends on it.
    queue: Queue,
    /// Where the loss is scaled.
    pub scale: Option<LossScale>,
}

impl<'a> Stepper<'a> {
    pub fn new(plan: &'a TrainPlan) -> Self {
        Self {
            plan,
            threads: rayon::current_num_threads(),
            programs: HashMap::new(),
            queue: Queue::new(plan.groups.len()),
            scale: plan.model.precision.is_scaled().then(LossScale::default),
        }
    }

    /// Goes on with what an earlier run has measured.
    pub fn with(mut self, queue: Option<Queue>, scale: Option<LossScale>) -> Self {
        self.queue = queue.unwrap_or(self.queue);
        self.scale = scale.or(self.scale);
        self
    }

    /// What a checkpoint must keep for the order of the turns to go on.
    pub fn queue(&self) -> Option<&Queue> {
        (self.plan.visits == Visits::Importance).then_some(&self.queue)
    }

    /// Which group has its turn at a step of the current cycle, counted from 0.
    pub fn group_at(&self, step: u64) -> usize {
        match self.queue() {
            Some(queue) => queue.group(step / self.plan.dwell),
            None => self.plan.group_at(step),
        }
    }

    fn measured(&mut self, step: u64, group: usize, norm: f64) {
        if self.plan.visits == Visits::Importance {
            self.queue.measured(group, norm);
            if (step + 1).is_multiple_of(self.plan.steps_per_cycle()) {
                self.queue.next_cycle();
            }
        }
    }

    /// Makes the states that rest between turns. With `discard` only those of the group at `step` exist.
    pub fn prepare(&mut self, store: &mut Store, step: u64) -> Result<(), Problem> {
        let plan = self.plan;
        let groups = match plan.states {
            Rest::Device | Rest::Host => plan.groups.as_slice(),
            Rest::Discard => std::slice::from_ref(&plan.groups[self.group_at(step)]),
        };
        for group in groups {
            store
                .make_states(&group.params, &plan.algorithm, &plan.model.model)
                .map_err(|error| store::failed(&error))?;
        }
        Ok(())
    }

    /// Where a turn begins, forgets the states of the turn before if they are not kept.
    pub fn turn(&mut self, store: &mut Store, step: u64) -> Result<(), Problem> {
        if self.plan.states == Rest::Discard && step.is_multiple_of(self.plan.dwell) {
            let all: Vec<ParamId> = self.plan.groups.iter().flat_map(|group| group.params.clone()).collect();
            store.discard_states(&all);
            self.prepare(store, step)?;
        }
        Ok(())
    }

    fn programs(&mut self, group: usize, shape: BatchShape) -> &StepPrograms {
        if self.programs.len() >= PROGRAMS_KEPT && !self.programs.contains_key(&(group, shape)) {
            self.programs.clear();
        }
        let (plan, threads) = (self.plan, self.threads);
        self.programs.entry((group, shape)).or_insert_with(|| plan.programs(group, shape, threads))
    }

    /// One update: all micro-batches of `step`, normalised by the trained tokens of all of them together.
    pub fn step(
        &mut self,
        store: &mut Store,
        batches: &mut Batches<'_>,
        dataset: &Dataset,
        step: u64,
        rate: f64,
    ) -> Result<Done, Problem> {
        let plan = self.plan;
        let group = self.group_at(step);
        let rows = batches.rows(step);
        let trained: u64 = rows.iter().map(|rows| batches.trained(rows)).sum();
        let scale = self.scale.map_or(1.0, |scale| scale.factor);
        let knobs = Knobs {
            loss_scale: (scale / trained as f64) as f32,
            unscale: (1.0 / scale) as f32,
            noise: Random::stream(Random::named(plan.seed, "rounding").next(), step).next(),
            rate,
            factors: &plan.factors,
            algorithm: &plan.algorithm,
            weight_decay: plan.weight_decay,
        };
        let mut nll = 0.0;
        let mut tokens = 0;
        let mut squares = 0.0;
        let mut gradients = Vec::new();
        let before = memory::live();
        memory::reset_peak();
        let mut play = |program: &Program, inputs: Inputs, gradients| -> Result<Played, Problem> {
            play(program, store, inputs, gradients, &knobs).map_err(|error| store::failed(&error))
        };
        let n = rows.len();
        for (idx, rows) in rows.iter().enumerate() {
            let lengths = rows.iter().map(|row| dataset.train.length(*row as usize) as u64);
            tokens += lengths.sum::<u64>();
            let batch = Batch::new(&dataset.train, rows);
            let shape = BatchShape { batch: batch.rows, seq: batch.seq, packed: batch.starts.is_some() };
            match self.programs(group, shape) {
                StepPrograms::Whole(program) => {
                    let played = play(program, inputs(batch, &plan.model.model), Vec::new())?;
                    nll += f64::from(played.numbers(0)[0]);
                    squares = f64::from(played.numbers(1)[0]);
                }
                StepPrograms::Parts(parts) => {
                    let program = if idx == 0 { &parts.first } else { &parts.next };
                    let played =
                        play(program, inputs(batch, &plan.model.model), std::mem::take(&mut gradients))?;
                    nll += f64::from(played.numbers(0)[0]);
                    gradients = played.gradients;
                    if idx + 1 == n {
                        let played = play(&parts.update, Inputs::default(), std::mem::take(&mut gradients))?;
                        squares = f64::from(played.numbers(0)[0]);
                    }
                }
            }
        }
        let loss = nll / trained as f64;
        let grad_norm = squares.sqrt() / scale;
        // A loss that is no number is not mended by another scale.
        let overflow = self.scale.is_some() && loss.is_finite() && !grad_norm.is_finite();
        if !overflow {
            self.measured(step, group, grad_norm);
        }
        if let Some(scale) = &mut self.scale
            && grad_norm.is_finite()
        {
            scale.good();
        }
        let resident = resident(store);
        let memory = Measured {
            live: resident,
            peak: resident + Bytes(memory::peak().saturating_sub(before)),
            resident: Bytes(memory::peak_resident()),
        };
        let loss_scale = self.scale.is_some().then_some(scale);
        Ok(Done { loss, grad_norm, tokens, overflow, loss_scale, memory })
    }
}

/// Bytes of weights, masters and states.
fn resident(store: &Store) -> Bytes {
    let all = |tensors: &[Tensor]| tensors.iter().map(bytes).sum::<u64>();
    let states = (0..store.weights.len()).map(|i| all(store.states_of(ParamId(i)))).sum::<u64>();
    Bytes(all(&store.weights) + all(store.masters()) + states)
}
