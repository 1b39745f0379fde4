//! `hift run`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::hub::{self, Purpose};
use super::lock::{accept, hold};
use super::progress::{Progress, Style};
use super::{Failure, Machine, Sets, folder_of, plan, print, read, resolve};
use crate::data::Library;
use crate::lang::pipeline::Device;
use crate::lang::{Resolved, Sources};
use crate::lock::Locked;
use crate::plan::StagePlan;
use crate::problem::{Fault, Problem, Problems};
use crate::run::{self, Ending, Order, signals};

#[derive(Debug, clap::Args)]
pub struct Run {
    /// The pipeline file
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// The run directory; `runs/NAME` by default, after the pipeline's name
    #[arg(long, value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
    /// What to do with an unfinished run of the same plan in the run directory
    #[arg(long, value_enum, default_value_t = Resume::Auto)]
    resume: Resume,
    /// How progress is shown; `auto` is a bar on a terminal and silence elsewhere
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    progress: Style,
    /// Refuse to run unless every input is as the lock beside the pipeline says (`hift lock` writes it)
    #[arg(long)]
    locked: bool,
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
        signals::listen();
        let machine = Arc::new(Machine::default());
        let (sources, mut pipeline, resolved) =
            resolve(read(&self.file)?, &self.file, &self.sets, machine.clone())?;
        let failure = |problems| Failure::of(problems, &sources);
        let directory = self.dir.clone().unwrap_or_else(|| default_directory(&self.file));
        run::check_free(&directory)?;
        hub::settle(&mut pipeline, &self.file, Purpose::Run).map_err(failure)?;
        let mut inputs = run::inputs::list(&pipeline, &sources, machine.variables());
        let locked = match self.locked {
            true => Some(hold(&mut inputs, Locked::read(&self.file, accept(&self.file, &self.sets))?)),
            false => None,
        };
        let locked = locked.transpose().map_err(failure)?;
        let mut library = Library::new(pipeline.folder.clone(), &signals::interrupted);
        library = library.with_cache(super::cache::cache());
        let (plan, estimate) = plan::prepare(&pipeline, &mut library).map_err(failure)?;
        if !plan.warnings.is_empty() {
            super::show(&Problems(plan.warnings.clone()), &sources);
        }
        for stage in &plan.stages {
            device(stage)?;
        }
        plan::check_limits(&pipeline, &plan, &estimate).map_err(failure)?;

        let order = Order {
            plan: &plan,
            estimate: &estimate,
            text: as_it_runs(&resolved, &sources, &folder_of(&self.file), &directory),
            folder: folder_of(&self.file),
            directory,
            resume: match self.resume {
                Resume::Auto => run::Resume::Auto,
                Resume::Never => run::Resume::Never,
                Resume::Must => run::Resume::Must,
            },
            inputs,
            locked,
        };
        let mut progress = Progress::new(self.progress, &estimate);
        let ending = run::execute(&order, &mut library, &mut progress);
        progress.finish();
        let ending = ending.map_err(failure)?;
        self.report(&order, &ending, &mut progress)
    }

    fn report(&self, order: &Order<'_>, ending: &Ending, progress: &mut Progress) -> Result<(), Failure> {
        let directory = order.directory.display().to_string();
        let (word, interrupted) = match ending {
            Ending::Finished { .. } => ("finished", None),
            Ending::NothingToDo => ("nothing to do", None),
            Ending::Interrupted { checkpoint } => ("interrupted", Some(checkpoint)),
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
                    "nothing to do: {directory} holds this run, finished (start anew with `--resume never`)\n"
                ))?,
                Ending::Interrupted { .. } => {}
            }
        }
        match interrupted {
            None => Ok(()),
            Some(checkpoint) => Err(Problem::of(
                Fault::Again,
                "hift::run::interrupted",
                format!("interrupted; what was done is kept in {}", checkpoint.display()),
            )
            .help("call the same command again to go on from there")
            .into()),
        }
    }
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

/// This build computes on the CPU.
fn device(stage: &StagePlan) -> Result<(), Problem> {
    let device = match stage {
        StagePlan::Train(stage) => stage.device,
        StagePlan::Evaluate(stage) => stage.device,
        StagePlan::Generate(stage) => stage.device,
        StagePlan::Export(_) => Device::Cpu,
    };
    match device {
        Device::Auto | Device::Cpu => Ok(()),
        Device::Cuda(n) => Err(Problem::of(
            Fault::Device,
            "hift::run::no_device",
            format!("stage `{}` asks for cuda({n}), but this program computes on the CPU only", stage.name()),
        )
        .help("write `device = auto` or `device = cpu`")),
    }
}

/// `runs/NAME` in the current folder.
fn default_directory(file: &Path) -> PathBuf {
    Path::new("runs").join(file.file_stem().unwrap_or(file.as_os_str()))
}
