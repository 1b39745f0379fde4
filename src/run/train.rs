//! The loop: one optimizer update after the other, each of the group whose turn it is.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::data::{Batch, Batches, Dataset};
use crate::engine::store::DEVICE_FULL;
use crate::engine::{Inputs, Knobs, Place, Played, Store, memory, play, store};
use crate::estimate::{self, Beside};
use crate::lang::pipeline::{Rest, Shuffle};
use crate::plan::{EvaluateEvery, Queue, TrainPlan, Visits};
use crate::problem::{Fault, Problem, Problems};
use crate::program::builder::BatchShape;
use crate::program::{ParamId, Program, StepPrograms};
use crate::random::Random;
use crate::units::Bytes;

use super::checkpoint::{self, Position};
use super::course::{Best, Course};
use super::directory::RunDirectory;
use super::evaluate::{evaluate, inputs, shape_of};
use super::generate::Asked;
use super::loss_scale::LossScale;
use super::watch::{Measured, StepReport, Watch};
use super::{metrics as scores, signals};

/// Programs that are kept for batches of other shapes; compiling one costs less than a step.
const PROGRAMS_KEPT: usize = 64;

/// A step that takes by so large a share more memory than was foretold is told of.
const WORTH_A_WARNING: f64 = 0.02;

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
    pub course: Course,
}

impl Begin {
    /// The first step of a stage.
    pub fn fresh(store: Store) -> Self {
        Self { store, step: 0, owes_evaluation: false, queue: None, scale: None, course: Course::default() }
    }

    /// The position that it begins at.
    pub fn position(&self, plan: &TrainPlan, stage_index: usize) -> Position {
        Position {
            stage: plan.name.clone(),
            stage_index,
            step: self.step,
            owes_evaluation: self.owes_evaluation,
            queue: self.queue.clone(),
            scale: self.scale,
            course: self.course.clone(),
        }
    }
}

/// What a stage is trained on and measured by.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub dataset: &'a Dataset,
    /// Held-out rows that are answered at each evaluation.
    pub asked: Option<&'a Asked>,
}

pub enum End {
    Done {
        store: Box<Store>,
        /// Updates made.
        step: u64,
    },
    Interrupted {
        checkpoint: PathBuf,
    },
}

/// Trains a stage to its end or to an interruption. With `keep_end` its last state is kept as a checkpoint. `beside`: what
/// the process was foretold to have of a GPU.
pub fn train(
    plan: &TrainPlan,
    stage_index: usize,
    begin: Begin,
    keep_end: bool,
    place: &Place,
    beside: Option<&Beside>,
    rows: Rows<'_>,
    directory: &mut RunDirectory,
    watch: &mut dyn Watch,
) -> Result<End, Problems> {
    let Begin { store, step: begin, owes_evaluation, queue, scale, course } = begin;
    let dataset = rows.dataset;
    let mut store = store.at(Some(place)).map_err(|error| store::failed(&error))?;
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
    let mut stepper = Stepper::new(plan).with(queue, scale).until(&signals::interrupted);
    stepper.prepare(&mut store, begin)?;
    let mut stage =
        Stage { plan, stage_index, place, beside, rows, course, directory, watch, met: BTreeMap::new() };
    let ended = stage.go_through(store, stepper, &mut batches, begin, owes_evaluation, keep_end);
    // However it ended: what it has taken so far is known.
    let said = stage.say_memory();
    let ended = ended?;
    said?;
    Ok(ended)
}

/// What became of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeldOut {
    /// A signal came before all rows were seen.
    CutShort,
    Done,
    /// Better than all before, where the best one is kept.
    Best,
}

/// A train stage at work: what its parts have in common.
struct Stage<'a> {
    plan: &'a TrainPlan,
    stage_index: usize,
    place: &'a Place,
    beside: Option<&'a Beside>,
    rows: Rows<'a>,
    course: Course,
    directory: &'a mut RunDirectory,
    watch: &'a mut dyn Watch,
    /// For each group that had its turn, the memory of the step that took the most.
    met: BTreeMap<usize, Measured>,
}

impl Stage<'_> {
    /// From its first step, or from where it was taken up, to its end or an interruption.
    fn go_through(
        &mut self,
        mut store: Store,
        mut stepper: Stepper<'_>,
        batches: &mut Batches<'_>,
        begin: u64,
        owes_evaluation: bool,
        keep_end: bool,
    ) -> Result<End, Problems> {
        let plan = self.plan;
        let dataset = self.rows.dataset;
        let steps = plan.steps.expect("the rows were counted before the run");
        self.link_best()?;
        let evaluates =
            |now: u64| plan.evaluate.as_ref().filter(|every| now.is_multiple_of(every.steps) || now == steps);
        let mut owes = false;
        if let Some(every) = evaluates(begin).filter(|_| owes_evaluation) {
            let held_out = self.held_out(every, begin, &mut store)?;
            owes = held_out == HeldOut::CutShort;
            let ends = !owes && self.course.is_out_of_patience(plan) && begin < steps;
            if ends {
                self.end_early(begin)?;
            }
            if held_out == HeldOut::Best || (ends && (keep_end || plan.checkpoint.is_some())) {
                self.save(begin, false, &store, &stepper)?;
            }
        }
        if owes || (signals::interrupted() && begin < steps) {
            return self.interrupt(begin, owes, &store, &stepper);
        }
        if let Some(every) = &plan.evaluate
            && begin == 0
            && self.course.evaluated.is_none()
        {
            match self.held_out(every, 0, &mut store)? {
                HeldOut::Best => drop(self.save(0, false, &store, &stepper)?),
                HeldOut::Done => {}
                HeldOut::CutShort => return self.interrupt(0, true, &store, &stepper),
            }
        }
        let mut last_good: Option<f64> = None;
        let mut unproven = true;
        let mut made = begin;
        while made < steps && !self.course.ended_early {
            let step = made;
            let began = Instant::now();
            let group = stepper.group_at(step);
            let rate = plan.rate.at(step) * self.course.rate_factor(plan);
            stepper.turn(&mut store, step)?;
            let done = loop {
                let updates = store.updates_of_all(&plan.groups[group].params);
                let tried = stepper.step(&mut store, batches, dataset, step, rate);
                if let Err(problem) = &tried
                    && problem.code == DEVICE_FULL
                    && store.updates_of_all(&plan.groups[group].params) == updates
                {
                    // No weight has changed yet, so nothing is lost.
                    let kept = self.save(step, false, &store, &stepper)?;
                    self.watch.note(&format!("what was trained is kept in {}", kept.display()));
                }
                let Some(done) = tried? else {
                    // No weight has changed yet: the step is made again as a whole.
                    return self.interrupt(step, false, &store, &stepper);
                };
                if !done.overflow {
                    break done;
                }
                // No weight has changed: the turn is taken again, with a smaller scale.
                let scale = stepper.scale.as_mut().expect("only scaled gradients overflow");
                let left = scale.overflow();
                let what = json!({
                    "stage": plan.name, "step": step + 1, "group": plan.groups[group].names, "loss_scale": scale.factor,
                });
                self.directory.event("overflow", what)?;
                self.watch.note(&format!(
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
            self.course.stepped(plan, step, done.loss)?;
            last_good = Some(done.loss);
            // The checkpoint before the last goes only when a step has shown that the last one is good.
            if std::mem::take(&mut unproven) {
                self.prune()?;
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
            self.directory.metric(&report)?;
            self.watch.step(&report);
            self.met(group, done.memory);

            let now = step + 1;
            made = now;
            let due =
                plan.checkpoint.as_ref().is_some_and(|every| now.is_multiple_of(every.steps) || now == steps);
            if due || now == steps || signals::interrupted() {
                finite(plan, now, &store)?;
            }
            if due || evaluates(now).is_some() {
                // What is foretold of these holds without what the step has left on its way home.
                store.make_room(Bytes(0), Bytes(0)).map_err(|error| store::failed(&error))?;
            }
            let held_out = match evaluates(now) {
                Some(every) => {
                    Some(self.held_out(every, now, &mut store).map_err(|mut problem| {
                        let group = plan.groups[group].names.join(", ");
                        problem.message += &format!(
                            " after step {now} of stage `{}`, group {group}; the training loss of that step was {:.4}",
                            plan.name, done.loss
                        );
                        problem
                    })?)
                }
                None => None,
            };
            if held_out == Some(HeldOut::CutShort) {
                return self.interrupt(now, true, &store, &stepper);
            }
            if self.course.is_out_of_patience(plan) && now < steps {
                self.end_early(now)?;
            }
            let ends = now == steps || self.course.ended_early;
            if due || held_out == Some(HeldOut::Best) || (ends && (keep_end || plan.checkpoint.is_some())) {
                let checkpoint = self.save(now, false, &store, &stepper)?;
                unproven = true;
                if signals::interrupted() && !ends {
                    return Ok(End::Interrupted { checkpoint });
                }
            } else if signals::interrupted() && !ends {
                return self.interrupt(now, false, &store, &stepper);
            }
            // What must be possible before the time is up: one more step, and a checkpoint.
            signals::reserve(began.elapsed().mul_f64(1.5) + self.saving());
        }
        self.prune()?;
        let best = plan.checkpoint.as_ref().filter(|every| every.ends_with_best).and(self.course.best);
        if let Some(best) = best.filter(|best| best.step != made) {
            drop(store);
            store = self.best(best)?;
        }
        Ok(End::Done { store: Box::new(store), step: made })
    }

    fn save(
        &mut self,
        step: u64,
        owes_evaluation: bool,
        store: &Store,
        stepper: &Stepper<'_>,
    ) -> Result<PathBuf, Problem> {
        let plan = self.plan;
        let position = Position {
            stage: plan.name.clone(),
            stage_index: self.stage_index,
            step,
            owes_evaluation,
            queue: stepper.queue().cloned(),
            scale: stepper.scale,
            course: self.course.clone(),
        };
        let began = Instant::now();
        let path = checkpoint::save(self.directory, &position, &plan.model.model, store)?;
        self.link_best()?;
        let seconds = began.elapsed().as_secs_f64();
        self.directory.slowest_save = self.directory.slowest_save.max(seconds);
        self.directory.event(
            "checkpoint",
            json!({ "stage": plan.name, "step": step, "path": path, "seconds": seconds }),
        )?;
        Ok(path)
    }

    /// Lets `best` lead to the best checkpoint, which a kill may have left undone.
    fn link_best(&self) -> Result<(), Problem> {
        match self.course.best.filter(|_| self.keeps_best()) {
            Some(best) => checkpoint::link_best(&self.directory.path, &self.plan.name, best.step),
            None => Ok(()),
        }
    }

    fn keeps_best(&self) -> bool {
        self.plan.checkpoint.as_ref().is_some_and(|every| every.best.is_some())
    }

    /// How long a checkpoint may take to write.
    fn saving(&self) -> Duration {
        Duration::from_secs_f64(2.0 * self.directory.slowest_save)
    }

    fn interrupt(
        &mut self,
        step: u64,
        owes_evaluation: bool,
        store: &Store,
        stepper: &Stepper<'_>,
    ) -> Result<End, Problems> {
        finite(self.plan, step, store)?;
        let checkpoint = self.save(step, owes_evaluation, store, stepper)?;
        Ok(End::Interrupted { checkpoint })
    }

    fn prune(&self) -> Result<(), Problem> {
        let keep = self.plan.checkpoint.as_ref().map_or(1, |every| every.keep);
        let best = self.course.best.filter(|_| self.keeps_best()).map(|best| best.step);
        checkpoint::prune(self.directory, self.stage_index, keep, best)
    }

    fn end_early(&mut self, step: u64) -> Result<(), Problem> {
        let Self { plan, course, directory, watch, .. } = self;
        course.ended_early = true;
        let best = course.best.expect("patience counts from the best evaluation");
        directory.event("early_stop", json!({ "stage": plan.name, "step": step, "best": best }))?;
        watch.note(&format!(
            "{}: ends after step {step}: {} evaluations were no better than that at step {} ({:.4})",
            plan.name, course.stale, best.step, best.value
        ));
        Ok(())
    }

    /// The weights of the best checkpoint.
    fn best(&mut self, best: Best) -> Result<Store, Problem> {
        let points = checkpoint::list(&self.directory.path).whole;
        let found =
            points.into_iter().find(|point| point.stage_index == self.stage_index && point.step == best.step);
        let broken = |what: &str| {
            Problem::of(
                Fault::Missing,
                "hift::run::broken_checkpoint",
                format!("the best checkpoint of stage `{}`, of step {}, {what}", self.plan.name, best.step),
            )
            .help("write `result = last` to end with the last weights, or start anew with `--new`")
        };
        let point = found.ok_or_else(|| broken("is gone"))?;
        if let Some(damage) = point.damage()? {
            return Err(broken(&format!("is damaged: {damage}")));
        }
        self.watch.note(&format!("{}: ends with the weights of step {}", self.plan.name, best.step));
        Ok(Store::of(point.parameters(&self.plan.model, &self.place.afterwards())?))
    }

    fn met(&mut self, group: usize, memory: Measured) {
        let most = self.met.entry(group).or_default();
        if memory.peak > most.peak {
            *most = Measured { reserved: most.reserved.max(memory.reserved), ..memory };
        }
        most.reserved = most.reserved.max(memory.reserved);
    }

    /// Sets beside each other what was foretold and what was met, of the group that went the furthest above it, and of the
    /// process where the device tells what that has; much more than was foretold is worth a warning. Nothing is to be said
    /// before the first step.
    fn say_memory(&mut self) -> Result<(), Problem> {
        let Self { plan, place, beside, directory, watch, met, .. } = self;
        let threads = rayon::current_num_threads();
        let told = met.iter().map(|(group, most)| {
            let foretold = estimate::step(plan, *group, threads).peak;
            (above(most.peak, foretold), *group, foretold, most)
        });
        // Where all are as foretold, the highest.
        let worst = told.max_by(|a, b| a.0.total_cmp(&b.0).then(a.3.peak.cmp(&b.3.peak)));
        let Some((off, group, foretold, most)) = worst else { return Ok(()) };
        let reserved = met.values().map(|met| met.reserved).max().filter(|bytes| bytes.0 > 0);
        // A pool gives nothing back, so what the process has now is the most that it had.
        let process = place.machine.as_ref().and_then(|machine| machine.room()?.own);
        let foretold_process = beside.map(|beside| beside.process);
        directory.event(
            "memory",
            json!({
                "stage": plan.name, "group": plan.groups[group].names, "foretold": foretold, "measured": most.peak,
                "reserved": reserved, "process": process, "foretold_process": foretold_process,
            }),
        )?;
        if off > WORTH_A_WARNING {
            watch.warn(&format!(
                "{}: a step of group {} took {}, {:.1} % more than the {foretold} that were foretold",
                plan.name,
                plan.groups[group].names.join(", "),
                most.peak,
                100.0 * off
            ));
        }
        // A guess of what stands beside tensors is no promise.
        let promised = beside.filter(|beside| beside.measured);
        if let Some((process, beside)) = process.zip(promised)
            && above(process, beside.process) > WORTH_A_WARNING
        {
            let parts: Vec<String> =
                beside.parts().iter().map(|(name, bytes)| format!("{name} {bytes}")).collect();
            watch.warn(&format!(
                "{}: the process has {process} of the device, {:.1} % more than the {} that were foretold (tensors {}, {}); \
                 `hift doctor --calibrate` measures what stands beside tensors",
                plan.name,
                100.0 * above(process, beside.process),
                beside.process,
                beside.tensors(),
                parts.join(", ")
            ));
        }
        Ok(())
    }

    /// Measures the held-out rows, answers some of them, and says so.
    fn held_out(&mut self, every: &EvaluateEvery, step: u64, store: &mut Store) -> Result<HeldOut, Problem> {
        let Self { plan, rows, directory, watch, course, .. } = self;
        let began = Instant::now();
        let Some(sums) = evaluate(&plan.model, store, &rows.dataset.holdout, plan.micro_batch)? else {
            return Ok(HeldOut::CutShort);
        };
        let (measuring, began) = (began.elapsed(), Instant::now());
        let samples = match rows.asked.zip(every.samples.as_ref()) {
            None => Vec::new(),
            // Nothing has been told yet, so that an evaluation that is made again is told once.
            Some((asked, samples)) => match asked.answered(&plan.model, store, &samples.decoding)? {
                Some(samples) => samples,
                None => return Ok(HeldOut::CutShort),
            },
        };
        let metrics = sums.metrics(&every.metrics);
        directory.event(
            "evaluate",
            json!({
                "stage": plan.name, "step": step, "metrics": scores::json(&metrics),
                "seconds": measuring.as_secs_f64(),
            }),
        )?;
        watch.evaluated(&plan.name, Some(step), &metrics);
        if !samples.is_empty() {
            let seconds = began.elapsed().as_secs_f64();
            let event = json!({ "stage": plan.name, "step": step, "samples": samples, "seconds": seconds });
            directory.event("samples", event)?;
            watch.sampled(&plan.name, step, &samples);
        }
        let better = course.note(plan, step, &sums);
        Ok(if better && self.keeps_best() { HeldOut::Best } else { HeldOut::Done })
    }
}

/// By what share of `foretold` more was `measured`.
fn above(measured: Bytes, foretold: Bytes) -> f64 {
    measured.0 as f64 / foretold.0.max(1) as f64 - 1.0
}

/// Weights that are not numbers must not become a checkpoint, nor replace an export.
fn finite(plan: &TrainPlan, step: u64, store: &Store) -> Result<(), Problem> {
    let model = &plan.model.model;
    let broken = || {
        store.settle()?;
        for (param, weights) in model.params.iter().zip(&store.weights) {
            if !weights.is_finite()? {
                return Ok(Some(param));
            }
        }
        Ok(None)
    };
    match broken().map_err(|error| store::failed(&error))? {
        None => Ok(()),
        Some(param) => Err(Problem::of(
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

/// Adds to a failure for want of room what the plan foretells for the step.
fn with_plan(mut problem: Problem, plan: &TrainPlan, group: usize, step: u64) -> Problem {
    if problem.code == DEVICE_FULL {
        let foretold = estimate::step(plan, group, rayon::current_num_threads());
        let parts = foretold.by.parts().into_iter().filter(|(_, bytes)| bytes.0 > 0);
        let parts: Vec<String> = parts.map(|(name, bytes)| format!("{name} {bytes}")).collect();
        problem.message += &format!(
            ", at step {} of stage `{}`, group {}; the plan has {} there at the most ({}), in `{}`",
            step + 1,
            plan.name,
            foretold.names.join(", "),
            foretold.peak,
            parts.join(", "),
            foretold.operation
        );
    }
    problem
}

const TOO_LARGE: &str = "numbers of fp16 end at 65,504: write `bf16` in its place, or lower the rate's peak; \
                         checkpoints written before are untouched";

pub(super) const DIVERGED: &str = "lower the rate's peak, add `clip = 1.0`, or lengthen the warm-up; checkpoints written before are untouched";

/// Whether the stage has diverged, and the file says to go back for it once more.
pub fn may_roll_back(plan: &TrainPlan, problems: &Problems, roll_backs: u64) -> bool {
    let diverged = problems
        .0
        .iter()
        .any(|problem| ["hift::run::not_finite", "hift::run::diverged"].contains(&problem.code));
    let roll_back = plan.divergence.and_then(|divergence| divergence.roll_back);
    diverged && roll_back.is_some_and(|roll_back| roll_backs < roll_back.times)
}

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
    /// By group, what its programs take at the most, and a batch.
    most: HashMap<usize, (Bytes, Bytes)>,
    /// What was measured, where the order of the turns depends on it.
    queue: Queue,
    /// Where the loss is scaled.
    pub scale: Option<LossScale>,
    /// Whether to leave off between two micro-batches.
    stop: &'a dyn Fn() -> bool,
}

impl<'a> Stepper<'a> {
    pub fn new(plan: &'a TrainPlan) -> Self {
        Self {
            plan,
            threads: rayon::current_num_threads(),
            programs: HashMap::new(),
            most: HashMap::new(),
            queue: Queue::new(plan.groups.len()),
            scale: plan.model.precision.is_scaled().then(LossScale::default),
            stop: &|| false,
        }
    }

    /// Leaves off between two micro-batches once `stop` says so.
    pub fn until(mut self, stop: &'a dyn Fn() -> bool) -> Self {
        self.stop = stop;
        self
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
            Rest::Device | Rest::Host | Rest::Disk => plan.groups.as_slice(),
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

    /// What the programs of a group's step take at the most, and what a batch is put together from: twice what goes into a
    /// program, since not all of it does.
    fn most(&mut self, group: usize) -> (Bytes, Bytes) {
        if let Some(known) = self.most.get(&group) {
            return *known;
        }
        let programs = self.programs(group, self.plan.largest_batch()).each();
        let usage: Vec<Vec<u64>> = programs.iter().map(|(_, program)| program.usage()).collect();
        let most = usage.iter().flatten().max().copied().unwrap_or_default();
        let known = (Bytes(most), Bytes(2 * usage[0][0]));
        self.most.insert(group, known);
        known
    }

    /// One update: all micro-batches of `step`, normalised by the trained tokens of all of them together. None when
    /// it was left off before any weight changed.
    pub fn step(
        &mut self,
        store: &mut Store,
        batches: &mut Batches<'_>,
        dataset: &Dataset,
        step: u64,
        rate: f64,
    ) -> Result<Option<Done>, Problem> {
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
        // What the step before has left on its way home may be there as far as this one leaves room for it.
        if store.machine().is_some() {
            let (most, batch) = self.most(group);
            store.make_room(most, batch).map_err(|error| store::failed(&error))?;
        }
        let before = memory::live().saturating_sub(store.leaving().0);
        memory::reset_peak();
        if let Some(machine) = store.machine() {
            machine.reset_peak().map_err(|error| store::failed(&error))?;
        }
        let mut play = |program: &Program, inputs: Inputs, gradients| -> Result<Played, Problem> {
            play(program, store, inputs, gradients, &knobs)
                .map_err(|error| with_plan(store::failed(&error), plan, group, step))
        };
        let n = rows.len();
        for (idx, rows) in rows.iter().enumerate() {
            if idx > 0 && (self.stop)() {
                return Ok(None);
            }
            let lengths = rows.iter().map(|row| dataset.train.length(*row as usize) as u64);
            tokens += lengths.sum::<u64>();
            let batch = Batch::new(&dataset.train, rows);
            let shape = shape_of(&batch, &plan.model.model);
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
                    // The loss does not stand beside the update.
                    let Played { results, gradients: formed } = played;
                    drop(results);
                    gradients = formed;
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
        if overflow && store.machine().is_some() {
            // A device is not asked before the next update is launched.
            store.uncount_updates(&plan.groups[group].params);
        }
        let live = store.resident();
        let counted = match store.machine() {
            Some(machine) => machine.peak().map_err(|error| store::failed(&error))?,
            None => None,
        };
        let memory = Measured {
            live,
            peak: counted
                .map_or_else(|| live + Bytes(memory::peak().saturating_sub(before)), |counted| counted.used),
            reserved: counted.unwrap_or_default().reserved,
            resident: Bytes(memory::peak_resident()),
        };
        let loss_scale = self.scale.is_some().then_some(scale);
        Ok(Some(Done { loss, grad_norm, tokens, overflow, loss_scale, memory }))
    }
}
