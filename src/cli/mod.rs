//! The command line: arguments, files, printing. No decisions.
//!
//! One file per command. Results go to stdout, people's text to stderr; a [`Fault`] becomes the exit code.

#[cfg(feature = "run")]
pub mod cache;
#[cfg(feature = "run")]
mod calibrate;
pub mod check;
pub mod completions;
#[cfg(feature = "run")]
mod device;
pub mod diff;
pub mod disk;
#[cfg(feature = "run")]
pub mod doctor;
pub mod explain;
pub mod fmt;
mod git;
#[cfg(feature = "run")]
mod hooks;
mod hub;
#[cfg(feature = "run")]
pub mod inspect;
#[cfg(feature = "run")]
pub mod lock;
pub mod lsp;
pub mod man;
pub mod new;
pub mod plan;
#[cfg(feature = "run")]
mod processor;
mod profile;
#[cfg(feature = "run")]
pub mod progress;
pub mod render;
#[cfg(feature = "run")]
pub mod report;
#[cfg(feature = "run")]
pub mod run;
#[cfg(feature = "run")]
pub mod service;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use clap::{CommandFactory, Parser, Subcommand};

use crate::lang::{self, Look, Options, Outside, Pipeline, Resolved, Source, Sources};
use crate::problem::{Fault, Problem, Problems};
#[cfg(feature = "run")]
use crate::report::problems::Checked;

/// Fine-tunes every weight of a language model on one small device, group by group (HiFT), from one file that says
/// everything; foretells its memory before anything is loaded.
#[derive(Debug, Parser)]
#[command(version, about, disable_help_subcommand = true, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
   0  done, or nothing left to do
   1  the run failed
   2  wrong usage
  65  the pipeline or its data is wrong
  66  an input is missing
  69  the device is not there
  73  an output cannot be written
  75  try again: another run holds the lock, or interrupted after a checkpoint
  78  the plan does not fit the memory limit";

#[derive(Debug, Subcommand)]
enum Command {
    /// Say everything that is wrong with pipelines, without loading weights
    Check(check::Check),
    /// Write pipelines in the layout of the language; comments and blank lines stay where they are
    Fmt(fmt::Format),
    /// Say more about the code of a problem, with an example before and after
    Explain(explain::Explain),
    /// Show stages, groups, turns, rates, and the memory of every part, before anything is loaded
    Plan(plan::Show),
    /// Say what changes between two pipelines or runs: what trains when, rates, tokens, memory, disk, work
    Diff(diff::Diff),
    /// Help an editor: problems, completion, hover, renaming, and what a plan says, as you type
    Lsp(lsp::Lsp),
    /// Print a pipeline without params, imports and profiles: every value, and where it comes from
    Render(render::Render),
    /// Plan, check the machine, and train
    #[cfg(feature = "run")]
    Run(run::Run),
    /// Say how a run stands
    #[cfg(feature = "run")]
    Status(report::Status),
    /// List the runs of a folder
    #[cfg(feature = "run")]
    Runs(report::Runs),
    /// Write a run as one page of HTML: curves, memory, time, samples, audit, plan, inputs
    #[cfg(feature = "run")]
    Report(report::Report),
    /// Print what systemd or cron need to run a pipeline by themselves
    #[cfg(feature = "run")]
    Service(service::Service),
    /// Write or check the hashes of everything that a pipeline reads, for `run --locked`
    #[cfg(feature = "run")]
    Lock(lock::Write),
    /// Show a model's layers, or rows as the model will see them
    #[cfg(feature = "run")]
    Inspect(inspect::Inspect),
    /// Say what this machine computes with, and compare every kernel of its GPUs with the CPU
    #[cfg(feature = "run")]
    Doctor(doctor::Doctor),
    /// Write a commented pipeline to start from
    New(new::New),
    /// Print what a shell needs to complete commands and options
    Completions(completions::Completions),
    /// Print the manual page, or write one for each command
    Man(man::Man),
    /// Show or prune the tokens that are kept between runs
    #[cfg(feature = "run")]
    Cache(cache::Cache),
}

/// The program.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are results; anything else is wrong usage.
            let code = if error.use_stderr() { Fault::Usage.exit_code() } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let result = match arguments.command {
        Command::Check(command) => command.run(),
        Command::Fmt(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Diff(command) => command.run(),
        Command::Lsp(command) => command.run(),
        Command::Render(command) => command.run(),
        #[cfg(feature = "run")]
        Command::Run(command) => command.run(),
        #[cfg(feature = "run")]
        Command::Status(command) => command.run(),
        #[cfg(feature = "run")]
        Command::Runs(command) => command.run(),
        #[cfg(feature = "run")]
        Command::Report(command) => command.run(),
        #[cfg(feature = "run")]
        Command::Service(command) => command.run(),
        #[cfg(feature = "run")]
        Command::Lock(command) => command.run(),
        #[cfg(feature = "run")]
        Command::Inspect(command) => command.run(),
        #[cfg(feature = "run")]
        Command::Doctor(command) => command.run(),
        Command::New(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
        #[cfg(feature = "run")]
        Command::Cache(command) => command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.fault().exit_code())
        }
    }
}

/// The command line, as it is built: for completions and manual pages.
fn command() -> clap::Command {
    Arguments::command()
}

/// What went wrong, with the text that it points into.
#[derive(Debug)]
pub struct Failure {
    pub problems: Problems,
    pub sources: Sources,
    /// Decides the exit code where everything has been said already.
    told: Option<Fault>,
}

impl Failure {
    pub fn of(problems: impl Into<Problems>, sources: &Sources) -> Self {
        Self { problems: problems.into(), sources: sources.clone(), told: None }
    }

    /// A failure of which everything has been said.
    pub(crate) fn told(fault: Fault) -> Self {
        Self { problems: Problems::default(), sources: Sources::default(), told: Some(fault) }
    }

    fn fault(&self) -> Fault {
        self.told.unwrap_or_else(|| self.problems.fault())
    }

    fn print(&self) {
        show(&self.problems, &self.sources);
    }

    /// On one line, for a log that nobody watches.
    #[cfg(feature = "run")]
    fn print_line(&self) {
        let checked = Checked::new(String::new(), self.problems.clone(), self.sources.clone(), Vec::new());
        let line = crate::report::problems::line(&checked);
        if !line.is_empty() {
            let _ = writeln!(std::io::stderr(), "hift: {line}");
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { problems: problem.into(), sources: Sources::default(), told: None }
    }
}

/// Prints problems to stderr.
pub(crate) fn show(problems: &Problems, sources: &Sources) {
    let terminal = std::io::stderr().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = lang::render(problems, sources, Look { colour, ..Look::default() });
    // Where stderr is closed there is nobody to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Prints a result to stdout. A reader that has gone away (`| head`) is no failure.
///
/// # Errors
/// When the result does not get where it is to go, such as a full disk (73).
pub(crate) fn print(text: &str) -> Result<(), Problem> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Problem::of(
            Fault::Output,
            "hift::cli::stdout",
            format!("the result cannot be written to standard output: {error}"),
        )
        .help("write it to a place with room")),
        Err(_) | Ok(()) => Ok(()),
    }
}

/// Whether to colour what goes to stdout.
#[cfg(feature = "run")]
pub(crate) fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// `--set NAME=VALUE` and `--profile NAME`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Sets {
    /// Give a `param` of the file another value: `--set peak=1e-5`
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_set)]
    pub set: Vec<(String, String)>,
    /// Apply a `profile` of the file; of several, the last one counts
    #[arg(long = "profile", value_name = "NAME")]
    pub profiles: Vec<String>,
}

fn parse_set(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, as in `--set peak=1e-5`")?;
    Ok((name.trim().to_string(), value.trim().to_string()))
}

/// Reads and resolves a pipeline file that is to run. Warnings are shown at once.
pub(crate) fn open(path: &Path, sets: &Sets) -> Result<(Sources, Pipeline), Failure> {
    let opened = resolve(read(path)?, path, sets, Arc::new(Machine::default()));
    opened.map(|(sources, pipeline, _)| (sources, pipeline))
}

/// Resolves a pipeline that was read, as if it lay at `path`, and gives the origins of its values. Warnings are shown
/// at once.
pub(crate) fn resolve(
    source: Source,
    path: &Path,
    sets: &Sets,
    outside: Arc<dyn Outside + Send + Sync>,
) -> Result<(Sources, Pipeline, Resolved), Failure> {
    let (sources, pipeline, resolved, warnings) = resolve_quietly(source, path, sets, outside)?;
    if !warnings.0.is_empty() {
        show(&warnings, &sources);
    }
    Ok((sources, pipeline, resolved))
}

/// The same, and the warnings are given back.
pub(crate) fn resolve_quietly(
    source: Source,
    path: &Path,
    sets: &Sets,
    outside: Arc<dyn Outside + Send + Sync>,
) -> Result<(Sources, Pipeline, Resolved, Problems), Failure> {
    let name = source.name.clone();
    let reading = lang::read(source, &Options { outside, ..options(path, sets) });
    match reading.pipeline {
        Some(pipeline) if pipeline.stages.is_empty() => {
            let problem = Problem::new("hift::cli::no_stage", format!("nothing in {name} runs"));
            Err(problem
                .help("name a file with a stage, such as `train NAME { ... }`; this one can only be imported")
                .into())
        }
        Some(pipeline) => Ok((reading.loaded.sources, pipeline, reading.resolved, reading.problems)),
        None => Err(Failure::of(reading.problems, &reading.loaded.sources)),
    }
}

pub(crate) fn options(path: &Path, sets: &Sets) -> Options {
    Options {
        folder: folder_of(path),
        set: sets.set.clone(),
        profiles: sets.profiles.clone(),
        outside: Arc::new(Machine::default()),
    }
}

/// The files and the environment of this machine.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    /// The variables that were asked for and are set.
    variables: Mutex<BTreeMap<String, String>>,
}

#[cfg(feature = "run")]
impl Machine {
    /// The variables that were asked for so far and are set.
    pub(crate) fn variables(&self) -> BTreeMap<String, String> {
        self.variables.lock().expect("nobody panics while holding it").clone()
    }
}

impl Outside for Machine {
    fn read(&self, path: &Path) -> Result<String, String> {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".into())
    }

    fn env(&self, name: &str) -> Option<String> {
        let value = std::env::var(name).ok()?;
        let mut variables = self.variables.lock().expect("nobody panics while holding it");
        variables.insert(name.to_string(), value.clone());
        Some(value)
    }
}

pub(crate) fn read(path: &Path) -> Result<Source, Failure> {
    Ok(source(&path.display().to_string(), read_bytes(path)?)?)
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, Problem> {
    std::fs::read(path).map_err(|error| {
        Problem::of(
            Fault::Missing,
            "hift::cli::no_pipeline",
            format!("{} cannot be read: {error}", path.display()),
        )
        .help("name a pipeline file, such as pipelines/quickstart.hift")
    })
}

/// The text of a pipeline that is called `name` in messages.
pub(crate) fn source(name: &str, bytes: Vec<u8>) -> Result<Source, Problem> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Problem::new("hift::cli::not_utf8", format!("{name} is not UTF-8 text: byte {at} is wrong"))
            .help("save the file as UTF-8")
    })?;
    Ok(Source::new(name, text))
}

/// Puts other bytes in a file's place, all at once: what is new is written beside it and then renamed. The file
/// keeps its permissions, and a link still leads to it.
///
/// # Errors
/// When that cannot be written (73); the file is then as it was.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    let write = || -> std::io::Result<()> {
        let path = std::fs::canonicalize(path)?;
        let permissions = std::fs::metadata(&path)?.permissions();
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.new", std::process::id()));
        let beside = path.with_file_name(name);
        let mut file = std::fs::File::create_new(&beside)?;
        let written = file
            .write_all(bytes)
            .and_then(|()| file.set_permissions(permissions))
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(&beside, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
        written
    };
    write().map_err(|error| {
        let message = format!("{} cannot be written: {error}", path.display());
        Problem::of(Fault::Output, "hift::cli::unwritable", message)
            .help("see whether the file and its folder may be written to")
    })
}

/// Relative paths of a pipeline start from the folder it lies in.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Threads that tensors are computed with.
pub(crate) fn threads() -> usize {
    #[cfg(feature = "run")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "run"))]
    std::thread::available_parallelism().map_or(1, usize::from)
}
