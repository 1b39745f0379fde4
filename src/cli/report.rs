//! `hift status`, `hift runs` and `hift report`

use std::fs;
use std::path::{Path, PathBuf};

use super::{Failure, print};
use crate::problem::{Fault, Problem};
use crate::report::record::Record;
use crate::report::{page, record};
use crate::run::{self, write_whole};

#[derive(Debug, clap::Args)]
pub struct Status {
    /// The run directory
    #[arg(value_hint = clap::ValueHint::DirPath)]
    directory: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub fn run(self) -> Result<(), Failure> {
        let record = read(&self.directory)?;
        let text = if self.json { format!("{}\n", record.status()) } else { record::status(&record) };
        Ok(print(&text)?)
    }
}

#[derive(Debug, clap::Args)]
pub struct Runs {
    /// The folder that the run directories lie in
    #[arg(default_value = "runs", value_hint = clap::ValueHint::DirPath)]
    folder: PathBuf,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

impl Runs {
    pub fn run(self) -> Result<(), Failure> {
        let entries = fs::read_dir(&self.folder).map_err(|error| {
            let text = format!("{} cannot be read: {error}", self.folder.display());
            Problem::of(Fault::Missing, "hift::cli::no_run", text)
                .help("name the folder that the run directories lie in")
        })?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.join("plan.json").is_file());
        paths.sort();
        let records = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
        let text = match (self.json, records.is_empty()) {
            (true, _) => {
                let all: Vec<_> = records.iter().map(Record::status).collect();
                format!("{}\n", serde_json::Value::from(all))
            }
            (false, true) => format!("no runs in {}\n", self.folder.display()),
            (false, false) => record::list(&records),
        };
        Ok(print(&text)?)
    }
}

#[derive(Debug, clap::Args)]
pub struct Report {
    /// The run directory
    #[arg(value_hint = clap::ValueHint::DirPath)]
    directory: PathBuf,
    /// The file to write; `report.html` in the run directory by default, `-` for standard output
    #[arg(long, short, value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,
}

impl Report {
    pub fn run(self) -> Result<(), Failure> {
        let page = page::page(&read(&self.directory)?);
        match self.output {
            Some(path) if path == Path::new("-") => Ok(print(&page)?),
            output => {
                let path = output.unwrap_or_else(|| self.directory.join("report.html"));
                write_whole(&path, &page)
                    .map_err(|problem| problem.help("name another file with `--output`"))?;
                Ok(print(&format!("the report lies in {}\n", path.display()))?)
            }
        }
    }
}

/// The files of a run directory. Those that are not there yet count as empty.
fn read(directory: &Path) -> Result<Record, Problem> {
    let name = directory.display().to_string();
    let plan = fs::read_to_string(directory.join("plan.json")).map_err(|error| {
        let text = format!("{name} is not a run directory: its plan.json cannot be read: {error}");
        Problem::of(Fault::Missing, "hift::cli::no_run", text)
            .help("name a run directory, such as runs/quickstart; `hift runs` lists them")
    })?;
    let text = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
    let (lock, pipeline) = (text("hift.lock"), text("pipeline.hift"));
    let (metrics, events) = (text("metrics.jsonl"), text("events.jsonl"));
    let record = Record::read(&name, &plan, &lock, &pipeline, &metrics, &events);
    Ok(Record { holder: run::holder(directory), ..record })
}
