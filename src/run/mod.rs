//! Executes a [`Plan`]: stage after stage, in a run directory that says what was done and can be taken up again.
//!
//! Reading order: [`execute`] (the stages in turn), [`train`] (the loop), [`directory`] (what is written, and the
//! lock), [`inputs`] (what it reads), [`mod@evaluate`] and [`metrics`], [`checkpoint`] (what is kept to go on from), [`export`], [`generate`], [`signals`], [`watch`] (who is told).
//!
//! This room must not know the language's text or how anything is drawn: it is given a plan, and tells a [`Watch`].

mod card;
pub mod checkpoint;
pub mod course;
pub mod decode;
pub mod directory;
pub mod evaluate;
pub mod export;
pub mod generate;
mod hold;
mod identity;
pub mod inputs;
pub mod loss_scale;
pub mod metrics;
mod room;
pub mod signals;
mod space;
pub mod tensorboard;
pub mod train;
pub mod watch;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::data::{Cached, Labels, Library, Limits, Target};
use crate::engine::{Devices, Parameters, Place, Store, store};
use crate::estimate::Estimate;
use crate::lang::pipeline::{Device, Precision, Weights};
use crate::lock::{Listing, Lock, Locked};
use crate::model::{self, Head, Model, Read};
use crate::plan::{Plan, StagePlan, TrainPlan};
use crate::problem::{Fault, Problem, Problems};
use crate::program::residency::Away;
use crate::weights::Directory;

use checkpoint::Position;
use course::Course;
pub(crate) use directory::write_whole;
pub use directory::{RunDirectory, check_free, holder};
pub use hold::device as hold_device;
pub use watch::{Measured, StepReport, Watch};

/// What a run is given beside its plan.
pub struct Order<'a> {
    pub plan: &'a Plan,
    pub estimate: &'a Estimate,
    /// The pipeline's text with parameters applied.
    pub text: String,
    /// Relative paths of the pipeline start here.
    pub folder: PathBuf,
    pub directory: PathBuf,
    /// The folder whose disk has what rests there; the run directory, if nothing is said.
    pub scratch: Option<PathBuf>,
    pub resume: Resume,
    /// What computes the stages that ask for more than processors.
    pub devices: &'a Devices,
    /// How long to wait for another run in the directory to end.
    pub wait: Duration,
    /// What the stages read.
    pub inputs: Listing,
    /// What that must be.
    pub locked: Option<Locked>,
    /// Whether TensorBoard is to see how the run goes.
    pub tensorboard: bool,
}

impl Order<'_> {
    /// The folder whose disk has what rests there.
    fn scratch(&self) -> &Path {
        self.scratch.as_ref().unwrap_or(&self.directory)
    }
}

/// What to do with a run directory that holds an unfinished run of the same plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Take it up if there is one.
    Auto,
    /// Start anew; what is there is moved aside.
    Never,
    /// Take it up or fail.
    Must,
}

/// How a run ended well.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    Finished {
        exports: Vec<PathBuf>,
    },
    /// The directory holds this run, finished.
    NothingToDo,
    /// A signal came, or the time was up; a checkpoint was written.
    Interrupted {
        checkpoint: PathBuf,
        by: String,
    },
}

/// Where a finished train stage left its weights.
struct Trained {
    stage: String,
    stage_index: usize,
    step: u64,
    parameters: Parameters,
}

/// How far the stages got.
enum Reached {
    End,
    /// A signal came. The train stage at work has written a checkpoint, if there was one at work.
    Interrupted {
        checkpoint: Option<PathBuf>,
    },
}

/// Runs all stages.
///
/// # Errors
/// What fails, with the exit code that tells why. What was on disk before is still there.
pub fn execute(
    order: &Order<'_>,
    library: &mut Library<'_>,
    watch: &mut dyn Watch,
) -> Result<Ending, Problems> {
    let began = Instant::now();
    export::check_targets(order)?;
    generate::check_targets(order)?;
    room::check(order)?;
    space::check(order)?;
    check_weights(order, watch)?;
    let lock = take(order, library)?;
    if let Some(locked) = &order.locked {
        // They were as the lock says a moment ago; what has been read since is what counts.
        locked.check(&lock, &order.inputs)?;
    }
    let (mut directory, points) = match RunDirectory::open(order, &lock, watch)? {
        directory::Opened::Finished => return Ok(Ending::NothingToDo),
        directory::Opened::Ready { directory, points } => (directory, points),
    };
    directory
        .event("start", json!({ "version": env!("CARGO_PKG_VERSION"), "resumed": !points.is_empty() }))?;
    directory.write_lock(&lock)?;
    std::fs::create_dir_all(order.scratch()).map_err(|error| unwritable(order.scratch(), &error))?;
    let mut results: Vec<Trained> = Vec::new();
    let mut exports = Vec::new();
    let reached = stages(order, library, watch, &mut directory, &points, &mut results, &mut exports);
    match reached {
        Ok(Reached::End) => {
            directory.event("finish", json!({ "seconds": began.elapsed().as_secs_f64() }))?;
            Ok(Ending::Finished { exports })
        }
        Ok(Reached::Interrupted { checkpoint }) => {
            let checkpoint = match checkpoint {
                Some(checkpoint) => checkpoint,
                None => keep_results(order, &directory, results)?,
            };
            let by = signals::cause().map_or(String::new(), |cause| cause.to_string());
            directory.event("interrupt", json!({ "checkpoint": checkpoint, "by": by }))?;
            Ok(Ending::Interrupted { checkpoint, by })
        }
        Err(problems) => {
            // What was trained must not be lost because something after it failed. Where this fails too, the first
            // failure is the one to tell.
            if !results.is_empty()
                && let Ok(kept) = keep_results(order, &directory, results)
            {
                watch.note(&format!("what was trained is kept in {}", kept.display()));
            }
            let _ = directory.event("fail", json!({ "message": problems.to_string() }));
            Err(problems)
        }
    }
}

fn stages(
    order: &Order<'_>,
    library: &mut Library<'_>,
    watch: &mut dyn Watch,
    directory: &mut RunDirectory,
    points: &[checkpoint::Point],
    results: &mut Vec<Trained>,
    exports: &mut Vec<PathBuf>,
) -> Result<Reached, Problems> {
    let reached = points.iter().map(|point| point.stage_index).max().unwrap_or(0);
    let last_train = order.plan.stages.iter().rposition(|stage| matches!(stage, StagePlan::Train(_)));
    for (index, stage) in order.plan.stages.iter().enumerate() {
        if index < reached && !matches!(stage, StagePlan::Train(_)) {
            // Done before the checkpoint that this run goes on from.
            continue;
        }
        watch.stage(stage, index, order.plan.stages.len());
        match stage {
            StagePlan::Train(plan) => {
                let dataset = library.get(&plan.data, &plan.tokenizer, &limits(&plan.model.model))?;
                watch.audited(&json!(dataset.audit));
                for warning in &dataset.audit.warnings {
                    watch.note(&warning.message);
                }
                if let Cached::Made(changed) = &dataset.cached
                    && !changed.is_empty()
                {
                    watch.note(&format!("{} was tokenised anew: {}", plan.data.name, changed.join("; ")));
                }
                let audit = json!({ "stage": plan.name, "audit": dataset.audit, "cache": dataset.cached });
                directory.event("audit", audit)?;
                let place = place(order, plan.device, plan.away(), plan.model.tf32);
                let fresh =
                    || Ok(train::Begin::fresh(Store::of(parameters(order, results, stage, Some(&place))?)));
                let mut begin = match points.iter().rfind(|point| point.stage_index == index) {
                    Some(point) => point.load(&plan.model, &place)?,
                    None => fresh()?,
                };
                let (start, mut roll_backs) = (directory.metrics_bytes(), begin.course.roll_backs);
                let asked = generate::Asked::while_training(plan, &order.folder, &dataset)?;
                let rows = train::Rows { dataset: &dataset, asked: asked.as_ref() };
                let beside = order.estimate.stages[index].beside.as_ref();
                // A later train stage may begin anew from this one's weights.
                let keep_end = last_train.is_some_and(|last| index < last);
                let end = loop {
                    let problems = match train::train(
                        plan, index, begin, keep_end, &place, beside, rows, directory, watch,
                    ) {
                        Ok(end) => break end,
                        Err(problems) if train::may_roll_back(plan, &problems, roll_backs) => problems,
                        Err(problems) => return Err(problems),
                    };
                    roll_backs += 1;
                    begin =
                        go_back(plan, index, &place, &problems, roll_backs, start, fresh, directory, watch)?;
                };
                match end {
                    train::End::Done { store, step } => results.push(Trained {
                        stage: plan.name.clone(),
                        stage_index: index,
                        step,
                        parameters: store.into_parameters().map_err(|error| store::failed(&error))?,
                    }),
                    train::End::Interrupted { checkpoint } => {
                        return Ok(Reached::Interrupted { checkpoint: Some(checkpoint) });
                    }
                }
            }
            StagePlan::Evaluate(plan) => {
                let dataset = library.get(&plan.data, &plan.tokenizer, &limits(&plan.model.model))?;
                let mut store = still(order, results, stage, plan.device)?;
                let sequences = if dataset.holdout.is_empty() { &dataset.train } else { &dataset.holdout };
                let Some(scores) = evaluate::evaluate(&plan.model, &mut store, sequences, plan.micro_batch)?
                else {
                    return Ok(Reached::Interrupted { checkpoint: None });
                };
                let metrics = scores.metrics(&plan.metrics);
                directory
                    .event("evaluate", json!({ "stage": plan.name, "metrics": metrics::json(&metrics) }))?;
                watch.evaluated(&plan.name, None, &metrics);
            }
            StagePlan::Generate(plan) => {
                let dataset = match &plan.data {
                    Some(data) => Some(library.get(data, &plan.tokenizer, &limits(&plan.model.model))?),
                    None => None,
                };
                let mut store = still(order, results, stage, plan.device)?;
                let asked = generate::Asked::by(plan, &order.folder, dataset.as_deref())?;
                let texts = asked.answered(&plan.model, &mut store, &plan.decoding)?;
                let Some(texts) = texts else { return Ok(Reached::Interrupted { checkpoint: None }) };
                for text in &texts {
                    let mut event = json!(text);
                    event["stage"] = json!(plan.name);
                    directory.event("generate", event)?;
                    watch.generated(&plan.name, &text.prompt, &text.text);
                }
                if let Some(to) = generate::target(order, plan) {
                    generate::write(&to, &texts)?;
                    watch.note(&format!("wrote {}", to.display()));
                }
                let pair = |text: generate::Written| Some((text.text, vec![text.reference?]));
                let pairs: Vec<_> = texts.into_iter().filter_map(pair).collect();
                if !plan.metrics.is_empty() && !pairs.is_empty() {
                    let metrics = metrics::texts::metrics(&pairs, &plan.metrics);
                    directory.event(
                        "evaluate",
                        json!({ "stage": plan.name, "metrics": metrics::json(&metrics) }),
                    )?;
                    watch.evaluated(&plan.name, None, &metrics);
                }
            }
            StagePlan::Export(plan) => {
                let parameters = parameters(order, results, stage, None)?;
                let to = export::export(plan, parameters.kept(), order)?;
                directory.event("export", json!({ "stage": plan.name, "to": to }))?;
                watch.note(&format!("wrote {}", to.display()));
                exports.push(to);
            }
        }
        if signals::interrupted() && index + 1 < order.plan.stages.len() {
            return Ok(Reached::Interrupted { checkpoint: None });
        }
    }
    Ok(Reached::End)
}

/// Where a stage that has diverged goes on: at its last checkpoint, or at its beginning, with a lower rate. Where it has
/// gone on from that checkpoint before, its weights have left their course already, and the one before it is taken.
fn go_back(
    plan: &TrainPlan,
    index: usize,
    place: &Place,
    problems: &Problems,
    roll_backs: u64,
    start: u64,
    fresh: impl Fn() -> Result<train::Begin, Problems>,
    directory: &mut RunDirectory,
    watch: &mut dyn Watch,
) -> Result<train::Begin, Problems> {
    let mut points = checkpoint::sound(&directory.path, &mut |what| watch.warn(&what))?;
    points.retain(|point| point.stage_index == index);
    let spoiled = points.pop_if(|point| point.course.rolled_back_to == Some(point.step));
    let (mut begin, bytes) = match points.last() {
        Some(point) => (point.load(&plan.model, place)?, point.metrics_bytes),
        None => (fresh()?, start),
    };
    begin.course.roll_backs = roll_backs;
    begin.course.rolled_back_to = Some(begin.step);
    directory.rewind(bytes)?;
    // A kill from here on must find the lower rate.
    checkpoint::save(directory, &begin.position(plan, index), &plan.model.model, &begin.store)?;
    if let Some(spoiled) = spoiled.filter(|spoiled| spoiled.step != begin.step) {
        spoiled.remove()?;
    }
    let rate = begin.course.rate_factor(plan);
    directory.event(
        "roll_back",
        json!({ "stage": plan.name, "to": begin.step, "rate_factor": rate, "message": problems.to_string() }),
    )?;
    let times = if rate < 0.001 { format!("{rate:.2e}") } else { rate.to_string() };
    watch.warn(&format!("{problems}; going on from step {} at {times} times the rate", begin.step));
    Ok(begin)
}

/// Makes sure, before anything is trained, that the weights of every stage are there, and says what of them is not.
/// Planning needs no weights.
fn check_weights(order: &Order<'_>, watch: &mut dyn Watch) -> Result<(), Problems> {
    let mut problems = Problems::default();
    let mut noted = Vec::new();
    for stage in order.plan.stages.iter().filter(|stage| stage.from().is_none()) {
        let plan = stage.model();
        let Some(path) = plan.weights.directory() else { continue };
        match Directory::require(&order.folder.join(path)) {
            Ok(directory) => {
                let drawn = directory.left_out(&plan.model);
                if !drawn.is_empty() && !noted.contains(&path) {
                    noted.push(path);
                    watch
                        .note(&format!("{path} has no {}: what stands there starts fresh", drawn.join(", ")));
                }
            }
            Err(problem) => {
                let problem = problem.label_at(plan.span, "these weights");
                if !problems.0.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
    }
    if problems.has_errors() { Err(problems) } else { Ok(()) }
}

/// Every input by content. Rows and tokenizers are what planning has read, the rest is read here.
fn take(order: &Order<'_>, library: &mut Library<'_>) -> Result<Lock, Problems> {
    let mut listing = order.inputs.clone();
    for stage in &order.plan.stages {
        // Planning has read the rows already, so this costs nothing.
        let dataset = match stage {
            StagePlan::Train(plan) => library.get(&plan.data, &plan.tokenizer, &limits(&plan.model.model))?,
            StagePlan::Evaluate(plan) => {
                library.get(&plan.data, &plan.tokenizer, &limits(&plan.model.model))?
            }
            StagePlan::Generate(plan) => match &plan.data {
                Some(data) => library.get(data, &plan.tokenizer, &limits(&plan.model.model))?,
                None => continue,
            },
            StagePlan::Export(_) => continue,
        };
        listing.remember(&dataset.hashes);
    }
    listing.hash(&signals::interrupted)
}

/// Writes checkpoints of finished train stages that have none, so that only what comes after them is done again.
fn keep_results(
    order: &Order<'_>,
    directory: &RunDirectory,
    results: Vec<Trained>,
) -> Result<PathBuf, Problem> {
    let mut path = directory.path.clone();
    for Trained { stage, stage_index, step, parameters } in results {
        let known = checkpoint::list(&directory.path).whole;
        path = match known.iter().find(|point| point.stage_index == stage_index && point.step == step) {
            Some(point) => point.path.clone(),
            None => {
                let model = &order.plan.stages[stage_index].model().model;
                // It is at its end, even where that came before its last step.
                let (queue, course) = (None, Course::at_its_end());
                let position =
                    Position { stage, stage_index, step, owes_evaluation: false, queue, scale: None, course };
                checkpoint::save(directory, &position, model, &Store::of(parameters))?
            }
        };
    }
    Ok(path)
}

/// What the data has to know of a model.
pub fn limits(model: &Model) -> Limits {
    let labels = match &model.head {
        Head::Tokens { .. } | Head::Sequence { .. } => None,
        Head::Labels { classes, .. } => Some(Labels::Classes(classes.clone())),
        Head::Span { .. } => Some(Labels::Ends),
    };
    let target = match &model.head {
        Head::Tokens { .. } | Head::Labels { .. } | Head::Span { .. } => None,
        Head::Sequence { target, read, .. } => Some(Target {
            classes: match target {
                model::Target::Classes(classes) => Some(classes.clone()),
                model::Target::Number => None,
            },
            at_first: *read == Read::First,
        }),
    };
    let (vocab, positions) = (model.vocab, model.positions);
    Limits { vocab, positions, target, labels, both_ways: model.both_ways }
}

/// A store for a stage that trains nothing, on its device.
fn still(
    order: &Order<'_>,
    results: &[Trained],
    stage: &StagePlan,
    device: Device,
) -> Result<Store, Problems> {
    // Masters stay where they are.
    let Parameters { weights, masters: _ } = parameters(order, results, stage, None)?;
    let place = place(order, device, Away::default(), stage.model().tf32);
    let store = Store::of(Parameters { weights, masters: Vec::new() }).at(Some(&place));
    store.map_err(|error| store::failed(&error).into())
}

/// Where a stage is computed, and what rests elsewhere.
fn place(order: &Order<'_>, device: Device, away: Away, tf32: bool) -> Place {
    Place { machine: order.devices.get(device).cloned(), away, tf32, scratch: order.scratch().into() }
}

/// The parameters that a stage begins with: of the train stage that it names, or of its model. Tensors share their
/// storage, so weights that no later train stage changes are not copied. Those of a model that are to rest on the disk of
/// `place` go there as they are read.
fn parameters(
    order: &Order<'_>,
    results: &[Trained],
    stage: &StagePlan,
    place: Option<&Place>,
) -> Result<Parameters, Problems> {
    let failed = |error| Problems::from(store::failed(&error));
    match stage.from() {
        Some(from) => {
            let result = results.iter().find(|result| result.stage == from);
            let result = result.expect("stages stand in the order of their dependencies");
            match stage {
                // Training writes into its weights; what it starts from stays as it is.
                StagePlan::Train(_) => result.parameters.copy().map_err(failed),
                StagePlan::Evaluate(_) | StagePlan::Generate(_) | StagePlan::Export(_) => {
                    Ok(result.parameters.clone())
                }
            }
        }
        None => {
            let plan = stage.model();
            let path = match &plan.weights {
                Weights::Directory { .. } | Weights::Hub { .. } => order.folder.clone(),
                Weights::Random { .. } => PathBuf::new(),
            };
            // Masters are for learning and for exports; to evaluate, what is computed with is enough.
            let dtype = match stage {
                StagePlan::Train(_) | StagePlan::Export(_) => plan.precision.kept(),
                StagePlan::Evaluate(_) | StagePlan::Generate(_) => plan.precision.dtype(),
            };
            // Masters are made for training only.
            let precision = match stage {
                StagePlan::Train(_) => plan.precision,
                StagePlan::Evaluate(_) | StagePlan::Generate(_) | StagePlan::Export(_) => Precision::Fp32,
            };
            let mut parameters = Parameters::default();
            let take = |tensor| parameters.add(tensor, precision, place);
            store::load_each(&plan.model, &plan.weights, &path, dtype, take).map_err(|mut problems| {
                for problem in &mut problems.0 {
                    if let Some(span) = plan.span.filter(|_| problem.labels.is_empty()) {
                        *problem = problem.clone().label(span, "these weights");
                    }
                }
                problems
            })?;
            Ok(parameters)
        }
    }
}

/// An output that cannot be written.
pub(crate) fn unwritable(path: &Path, error: &std::io::Error) -> Problem {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let full = matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge);
    let help = if full {
        "free some space, then call the same command again: the run goes on from its last checkpoint"
    } else {
        "choose a folder that may be written, with `--dir` for the run and `to` for an export"
    };
    Problem::of(
        Fault::Output,
        "hift::run::unwritable",
        format!("{} cannot be written: {error}", path.display()),
    )
    .help(help)
}
