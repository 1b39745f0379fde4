//! `hift diff`

#[cfg(feature = "run")]
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use super::git::{Object, Revision};
use super::hub::{self, Purpose};
use super::{Failure, Machine, Sets, plan, print, profile};
use crate::lang::{Outside, Pipeline, Sources};
use crate::lock::Lock;
use crate::problem::{Fault, Problem};
use crate::report::{self, facts::Summary};

/// The arguments. A pipeline out of a revision reads the model and the rows of today's work tree.
#[derive(Debug, clap::Args)]
pub struct Diff {
    /// Before: a pipeline file, a run directory, a plan.json, or REV:PATH, a file as it is in a git revision
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    a: PathBuf,
    /// After: the same
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    b: PathBuf,
    /// Print the difference as JSON
    #[arg(long)]
    json: bool,
    /// End with 1 if there is a difference; without this, 0 either way
    #[arg(long)]
    exit_code: bool,
    /// Do not read the rows: no counts of rows and tokens, sequences as long as they may be
    #[arg(long)]
    no_data: bool,
    // Applies to A and B alike.
    #[command(flatten)]
    sets: Sets,
}

impl Diff {
    pub fn run(self) -> Result<(), Failure> {
        let sides = (self.side(&self.a), self.side(&self.b));
        let (a, b) = match sides {
            (Ok(a), Ok(b)) => (a, b),
            (Err(a), Err(b)) => {
                a.print();
                return Err(b);
            }
            (Err(failure), Ok(_)) | (Ok(_), Err(failure)) => return Err(failure),
        };
        if !self.sets.set.is_empty() && a.pipeline.is_none() && b.pipeline.is_none() {
            let text = "`--set` has no pipeline file to apply to";
            return Err(Problem::of(Fault::Usage, "hift::cli::no_params", text)
                .help("a plan holds no params any more; name a pipeline file")
                .into());
        }
        let (lock_a, lock_b) = (self.lock(&a, &b)?, self.lock(&b, &a)?);
        let inputs = lock_a.as_ref().zip(lock_b.as_ref());
        let difference = report::diff::diff(&a.summary, &b.summary, inputs);
        if self.json {
            let json = report::diff::json(&difference, &a.name, &b.name);
            print(&format!("{}\n", serde_json::to_string_pretty(&json).expect("a difference is JSON")))?;
        } else if difference.is_empty() {
            print("no difference in what the plan does\n")?;
        } else {
            print(&report::diff::text(&difference))?;
        }
        match self.exit_code && !difference.is_empty() {
            // All has been said.
            true => Err(Failure::told(Fault::Failed)),
            false => Ok(()),
        }
    }

    fn side(&self, path: &Path) -> Result<Side, Failure> {
        let name = path.display().to_string();
        if path.is_dir() {
            let text = std::fs::read_to_string(path.join("plan.json")).map_err(|error| {
                Problem::of(
                    Fault::Missing,
                    "hift::cli::no_run",
                    format!("{name} is not a run directory: its plan.json cannot be read: {error}"),
                )
                .help("name a run directory, a pipeline file or a plan.json")
            })?;
            let lock = std::fs::read_to_string(path.join("hift.lock")).ok();
            let lock = lock.and_then(|text| Lock::parse(&text).ok());
            return Ok(Side { lock, ..Side::of_plan(name, &text)? });
        }
        let object = (!path.exists()).then(|| Object::parse(&name)).flatten();
        // Whatever the pipeline imports is of the same revision.
        let (bytes, place, outside): (_, _, Arc<dyn Outside + Send + Sync>) = match object {
            Some(object) => (object.read()?, object.place()?, Arc::new(Revision(object.revision))),
            None => (super::read_bytes(path)?, path.to_path_buf(), Arc::new(Machine::default())),
        };
        let source = super::source(&name, bytes)?;
        if path.extension().is_some_and(|extension| extension == "json") {
            return Ok(Side::of_plan(name, &source.text)?);
        }
        let (sources, mut pipeline, _) = super::resolve(source, &place, &self.sets, outside)?;
        hub::settle(&mut pipeline, &place, Purpose::Plan { rows: !self.no_data })
            .map_err(|found| Failure::of(found, &sources))?;
        let plan = plan::compile(&pipeline, self.no_data).map_err(|found| Failure::of(found, &sources))?;
        let estimate = profile::estimated(&plan);
        let json = serde_json::to_string(&plan::json(&plan, &estimate)).expect("a plan is JSON");
        Ok(Side { pipeline: Some((pipeline, sources)), ..Side::of_plan(name, &json)? })
    }

    /// A side's inputs by content, where the other's are known: those of a run are kept with it, those of a pipeline
    /// file are hashed.
    #[cfg(feature = "run")]
    fn lock(&self, side: &Side, other: &Side) -> Result<Option<Lock>, Failure> {
        match &side.pipeline {
            Some((pipeline, sources)) if other.lock.is_some() && !self.no_data => {
                let mut listing = crate::run::inputs::list(pipeline, sources, BTreeMap::new());
                // A plan needs no weights, so neither does this.
                listing.files.retain(|file| file.place.is_file());
                let lock = listing.hash(&|| false).map_err(|problems| Failure::of(problems, sources))?;
                Ok(Some(lock))
            }
            Some(_) | None => Ok(side.lock.clone()),
        }
    }

    #[cfg(not(feature = "run"))]
    fn lock(&self, side: &Side, _: &Side) -> Result<Option<Lock>, Failure> {
        Ok(side.lock.clone())
    }
}

/// One of the two.
struct Side {
    name: String,
    summary: Summary,
    /// Of a run directory.
    lock: Option<Lock>,
    /// With its texts.
    pipeline: Option<(Pipeline, Sources)>,
}

impl Side {
    /// Both sides come from text: the reader need not give back every last bit of a number that was never written.
    fn of_plan(name: String, text: &str) -> Result<Self, Problem> {
        let json = serde_json::from_str::<Json>(text).map_err(|error| format!("is not JSON: {error}"));
        let summary = json.and_then(|json| {
            Summary::read(&json).map_err(|what| format!("is not the plan of a run: {what}"))
        });
        match summary {
            Ok(summary) => Ok(Self { name, summary, lock: None, pipeline: None }),
            Err(what) => {
                let text = format!("{name} {what}");
                Err(Problem::new("hift::cli::not_a_plan", text)
                    .help("name a plan.json as a run or `hift plan --json` writes it"))
            }
        }
    }
}
