//! `hift run`

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::device;
use super::hub::{self, Purpose};
use super::lock::{accept, hold};
use super::progress::{Progress, Style};
use super::{Failure, Machine, Sets, folder_of, hooks, plan, print, read, resolve_quietly};
use crate::data::Library;
use crate::engine::memory::{self, Work};
use crate::lang::pipeline::Outcome;
use crate::lang::{Pipeline, Resolved, Sources};
use crate::lock::Locked;
use crate::problem::{Fault, Problem, Problems};
use crate::report::{self, facts::Summary};
use crate::run::{self, Ending, Order, signals};

#[derive(Debug, clap::Args)]
pub struct Run {
    /// The pipeline file
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// The run directory; `runs/NAME` by default, after the pipeline's name
    #[arg(long, value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
    /// A folder on the disk for `states = disk` and `weights = disk`; the run directory by default. No file is left there
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    scratch: Option<PathBuf>,
    /// What to do with an unfinished run of the same plan in the run directory
    #[arg(long, value_enum, default_value_t = Resume::Auto)]
    resume: Resume,
    /// Start anew, whatever is there; it is moved aside
    #[arg(long, conflicts_with = "resume")]
    new: bool,
    /// Wait so long for another run in the run directory to end: `30m`; without this, end at once with 75
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "0s")]
    wait: Duration,
    /// How progress is shown; `auto` is a bar on a terminal and silence elsewhere
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    progress: Style,
    /// Refuse to run unless every input is as the lock beside the pipeline says (`hift lock` writes it)
    #[arg(long)]
    locked: bool,
    /// End in time, with a checkpoint: `5h`, `90min`. The end of a Slurm job is kept by itself
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_time: Option<Duration>,
    /// Write files for TensorBoard to RUN_DIR/tensorboard, earlier steps of the run included
    #[arg(long)]
    tensorboard: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sets: Sets,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Resume {
    /// Go on if there is one
    Auto,
    /// Start anew; what is there is moved aside
    Never,
    /// Go on or fail
    Must,
}

impl Run {
    pub fn run(self) -> Result<(), Failure> {
        // Where nobody watches, all that is said is what went wrong, on one line.
        let watched = self.progress != Style::Auto || std::io::stderr().is_terminal();
        match self.execute(watched) {
            Err(failure) if !watched => {
                failure.print_line();
                Err(Failure::told(failure.fault()))
            }
            ending => ending,
        }
    }

    fn execute(&self, watched: bool) -> Result<(), Failure> {
        signals::listen();
        signals::end_within(
            self.max_time,
            signals::job_time(std::env::var("SLURM_JOB_END_TIME").ok().as_deref()),
        );
        let machine = Arc::new(Machine::default());
        let (sources, mut pipeline, resolved, mut warnings) =
            resolve_quietly(read(&self.file)?, &self.file, &self.sets, machine.clone())?;
        warnings.0.retain(|_| watched);
        let directory = self.dir.clone().unwrap_or_else(|| default_directory(&self.file));
        let folder = folder_of(&self.file);
        hub::settle(&mut pipeline, &self.file, Purpose::Run).map_err(|found| Failure::of(found, &sources))?;
        let prepared = Prepared { sources, pipeline, resolved, warnings, machine, directory };
        let mut told = Told::default();
        let ending = self.carry_out(&prepared, watched, &mut told);
        if let Some((outcome, result)) = told.result(&self.file, &prepared.directory, ending.as_ref().err()) {
            for what in hooks::run(&prepared.pipeline.hooks, outcome, &folder, &result) {
                let _ = writeln!(std::io::stderr(), "hift: {what}");
            }
        }
        ending
    }

    /// Plans, checks, and trains.
    fn carry_out(&self, prepared: &Prepared, watched: bool, told: &mut Told) -> Result<(), Failure> {
        let Prepared { sources, pipeline, resolved, warnings, machine, directory } = prepared;
        let mut warnings = warnings.clone();
        let failure = |problems| Failure::of(problems, sources);
        run::check_free(directory, self.wait, &mut |text| {
            if watched {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
        })?;
        let mut inputs = run::inputs::list(pipeline, sources, machine.variables());
        let locked = match self.locked {
            true => Some(hold(&mut inputs, Locked::read(&self.file, accept(&self.file, &self.sets))?)),
            false => None,
        };
        let locked = locked.transpose().map_err(failure)?;
        let mut library = Library::new(pipeline.folder.clone(), &signals::interrupted);
        library = library.with_cache(super::cache::cache());
        memory::doing(Work::Rows);
        let (plan, estimate, notice) = plan::prepare(pipeline, &mut library).map_err(failure)?;
        warnings.0.extend(plan.warnings.clone());
        if watched && !warnings.0.is_empty() {
            super::show(&warnings, sources);
        }
        if let Some(notice) = notice.filter(|_| watched) {
            let _ = writeln!(std::io::stderr(), "{notice}");
        }
        let devices = device::open(&plan)?;
        let mut held = Vec::new();
        for (number, machine) in devices.iter() {
            if let Some(uuid) = machine.uuid() {
                held.push(run::hold_device(&uuid, number, self.wait, &mut |text| {
                    if watched {
                        let _ = writeln!(std::io::stderr(), "{text}");
                    }
                })?);
            }
        }
        plan::check_limits(pipeline, &plan, &estimate).map_err(failure)?;

        let order = Order {
            devices: &devices,
            plan: &plan,
            estimate: &estimate,
            text: as_it_runs(resolved, sources, &folder_of(&self.file), directory),
            folder: folder_of(&self.file),
            directory: directory.clone(),
            scratch: self.scratch.clone(),
            resume: match self.resume {
                _ if self.new => run::Resume::Never,
                Resume::Auto => run::Resume::Auto,
                Resume::Never => run::Resume::Never,
                Resume::Must => run::Resume::Must,
            },
            wait: self.wait,
            inputs,
            locked,
            tensorboard: self.tensorboard,
        };
        let mut progress = Progress::new(self.progress, &estimate);
        memory::doing(Work::Stages);
        let ending = run::execute(&order, &mut library, &mut progress);
        progress.finish();
        let ending = match ending {
            Ok(ending) => ending,
            Err(problems) => {
                let another = problems.0.iter().any(|problem| problem.code == "hift::run::another_run");
                let difference = another.then(|| difference(&order)).flatten().filter(|_| watched);
                let failure = failure(problems);
                if let Some(difference) = difference {
                    failure.print();
                    let _ = writeln!(std::io::stderr(), "\nfrom that run to this one:\n\n{difference}");
                    return Err(Failure::told(failure.fault()));
                }
                return Err(failure);
            }
        };
        *told = Told { ending: Some(ending.clone()), results: progress.results() };
        self.report(&order, &ending, &mut progress)
    }

    fn report(&self, order: &Order<'_>, ending: &Ending, progress: &mut Progress) -> Result<(), Failure> {
        let directory = order.directory.display().to_string();
        let (word, interrupted) = match ending {
            Ending::Finished { .. } => ("finished", None),
            Ending::NothingToDo => ("nothing to do", None),
            Ending::Interrupted { checkpoint, by } => ("interrupted", Some((checkpoint, by))),
        };
        if self.json {
            let exports = match ending {
                Ending::Finished { exports } => exports.clone(),
                Ending::NothingToDo | Ending::Interrupted { .. } => Vec::new(),
            };
            let outcome = json!({
                "outcome": word, "directory": directory, "exports": exports, "results": progress.results(),
            });
            print(&format!("{outcome}\n"))?;
        } else if progress.speaks() {
            print(&progress.summary())?;
            match ending {
                Ending::Finished { exports } => {
                    for export in exports {
                        print(&format!("the model lies in {}\n", export.display()))?;
                    }
                    print(&format!("metrics, events and the plan lie in {directory}\n"))?;
                }
                Ending::NothingToDo => print(&format!(
                    "nothing to do: {directory} holds this run, finished (start anew with `--new`)\n"
                ))?,
                Ending::Interrupted { .. } => {}
            }
        }
        match interrupted {
            None => Ok(()),
            Some((checkpoint, by)) => Err(Problem::of(
                Fault::Again,
                "hift::run::interrupted",
                format!("interrupted ({by}); what was done is kept in {}", checkpoint.display()),
            )
            .help("call the same command again to go on from there")
            .into()),
        }
    }
}

/// A pipeline that is to run, read.
struct Prepared {
    sources: Sources,
    pipeline: Pipeline,
    resolved: Resolved,
    warnings: Problems,
    machine: Arc<Machine>,
    directory: PathBuf,
}

/// How far a run got.
#[derive(Default)]
struct Told {
    ending: Option<Ending>,
    results: Json,
}

impl Told {
    /// What hooks are told; None where nothing has come to an end that they are for: there was nothing to do, or
    /// another run is at work.
    fn result(&self, file: &Path, directory: &Path, failure: Option<&Failure>) -> Option<(Outcome, Json)> {
        let (exports, checkpoint) = match &self.ending {
            Some(Ending::Finished { exports }) => (exports.clone(), None),
            Some(Ending::Interrupted { checkpoint, .. }) => (Vec::new(), Some(checkpoint)),
            Some(Ending::NothingToDo) | None => (Vec::new(), None),
        };
        let (outcome, message, code) = match (&self.ending, failure) {
            (Some(Ending::NothingToDo), _) | (None, None) => return None,
            (Some(Ending::Interrupted { .. }), Some(failure)) => {
                (Outcome::Interruption, failure.problems.to_string(), failure.fault().exit_code())
            }
            (None, Some(failure)) if failure.fault() == Fault::Again => return None,
            (_, Some(failure)) => {
                (Outcome::Failure, failure.problems.to_string(), failure.fault().exit_code())
            }
            (Some(_), None) => (Outcome::Success, String::new(), 0),
        };
        let result = json!({
            "outcome": outcome, "exit_code": code, "pipeline": file, "directory": directory, "message": message,
            "exports": exports, "checkpoint": checkpoint, "results": self.results,
        });
        Some((outcome, result))
    }
}

/// What differs between the run that is there and this one, in terms of the plan.
fn difference(order: &Order<'_>) -> Option<String> {
    let summary = |text: &str| Summary::read(&serde_json::from_str(text).ok()?).ok();
    let old = summary(&std::fs::read_to_string(order.directory.join("plan.json")).ok()?)?;
    let new = summary(&plan::json(order.plan, order.estimate).to_string())?;
    let difference = report::diff::diff(&old, &new, None);
    (!difference.is_empty()).then(|| report::diff::text(&difference))
}

/// The pipeline as a file of its own in the run directory: its relative paths start there.
fn as_it_runs(resolved: &Resolved, sources: &Sources, folder: &Path, directory: &Path) -> String {
    match (whole(folder), whole(directory)) {
        (Ok(folder), Ok(directory)) => resolved.moved(&folder, &directory).text(sources, false),
        // Without a current folder, there is no way from one to the other.
        (Err(_), _) | (_, Err(_)) => resolved.text(sources, false),
    }
}

/// A path from the root on, links followed as far as it exists.
fn whole(path: &Path) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let there = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    Ok(match there {
        Some((above, real)) => real.join(path.strip_prefix(above).unwrap_or(Path::new(""))),
        None => path,
    })
}

/// `runs/NAME` in the current folder; for the `pipeline.hift` of a run directory, that directory.
fn default_directory(file: &Path) -> PathBuf {
    let folder = folder_of(file);
    if file.file_name().is_some_and(|name| name == "pipeline.hift") && folder.join("plan.json").exists() {
        return folder;
    }
    Path::new("runs").join(file.file_stem().unwrap_or(file.as_os_str()))
}
