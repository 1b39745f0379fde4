//! `hift run`

use std::path::{Path, PathBuf};

use serde_json::json;

use super::progress::{Progress, Style};
use super::{Failure, Sets, folder_of, open, plan, print};
use crate::data::Library;
use crate::lang::pipeline::Device;
use crate::plan::StagePlan;
use crate::problem::{Fault, Problem, Problems};
use crate::run::{self, Ending, Order, signals};

#[derive(Debug, clap::Args)]
pub struct Run {
    /// The pipeline file
    file: PathBuf,
    /// The run directory; `runs/NAME` by default, after the pipeline's name
    #[arg(long)]
    dir: Option<PathBuf>,
    /// What to do with an unfinished run of the same plan in the run directory
    #[arg(long, value_enum, default_value_t = Resume::Auto)]
    resume: Resume,
    /// How progress is shown; `auto` is a bar on a terminal and silence elsewhere
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    progress: Style,
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
        let (sources, pipeline) = open(&self.file, &self.sets)?;
        let failure = |problems| Failure::of(problems, &sources);
        let directory = self.dir.clone().unwrap_or_else(|| default_directory(&self.file));
        run::check_free(&directory)?;
        let mut library = Library::new(pipeline.folder.clone(), &signals::interrupted);
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
            text: sources.first().map_or(String::new(), |source| source.text.clone()),
            folder: folder_of(&self.file),
            directory,
            resume: match self.resume {
                Resume::Auto => run::Resume::Auto,
                Resume::Never => run::Resume::Never,
                Resume::Must => run::Resume::Must,
            },
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
