//! What is kept to go on from: weights (their masters, where there are some, say what they are), optimizer states, and
//! the position in the plan.
//!
//! ```text
//! checkpoints/sft-400/weights.safetensors    by the parameters' names
//!                     states.safetensors     NAME#SLOT, those of resting groups too
//!                     position.json          the step, and what else decides how it goes on
//!                     SHA256SUMS             of the three, as `sha256sum -c` reads it
//! checkpoints/latest -> sft-400              moved last
//! checkpoints/best   -> sft-200
//! ```
//!
//! A checkpoint is written beside its place, read back, and renamed, so that it is there whole or not at all; only then
//! the links move, and only later an older one goes. Batches, groups, rates and what is drawn at random follow from
//! the step's number, so nothing else is needed to go on exactly. The links are for people and their tools: a run goes
//! on from the newest checkpoint whose hashes are right.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::access::dtype;
use crate::engine::{Parameters, Place, Resting, Store, files, store};
use crate::lock::Hashed;
use crate::model::Model;
use crate::plan::{ModelPlan, Queue};
use crate::problem::{Fault, Problem};
use crate::program::ParamId;
use crate::units::Bytes;

use super::course::Course;
use super::directory::RunDirectory;
use super::loss_scale::LossScale;
use super::train::Begin;
use super::{signals, space, unwritable};

const WEIGHTS: &str = "weights.safetensors";
const STATES: &str = "states.safetensors";
const POSITION: &str = "position.json";
const SUMS: &str = "SHA256SUMS";

/// What a checkpoint must have, each with its hash.
const FILES: [&str; 3] = [WEIGHTS, STATES, POSITION];

const LATEST: &str = "latest";
const BEST: &str = "best";

/// What a checkpoint is renamed to that is damaged: nothing goes on from it, and nothing of it is lost.
const DAMAGED: &str = ".damaged";

/// Where in the plan a checkpoint stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Position {
    pub stage: String,
    pub stage_index: usize,
    /// Updates made.
    pub step: u64,
    /// An interruption came before the held-out rows were through.
    pub owes_evaluation: bool,
    /// Where the order of the turns depends on what was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
    /// Where the loss is scaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<LossScale>,
    #[serde(default)]
    pub course: Course,
}

/// `position.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Written {
    #[serde(flatten)]
    position: Position,
    /// How often each parameter was updated.
    updates: BTreeMap<String, u64>,
    /// Length of metrics.jsonl when the checkpoint was written; what came later is done again.
    metrics_bytes: u64,
}

/// A checkpoint on disk.
#[derive(Debug, Clone)]
pub struct Point {
    pub path: PathBuf,
    pub stage_index: usize,
    pub step: u64,
    pub metrics_bytes: u64,
    owes_evaluation: bool,
    queue: Option<Queue>,
    scale: Option<LossScale>,
    pub course: Course,
    updates: BTreeMap<String, u64>,
}

/// What lies in a run's `checkpoints/`.
#[derive(Debug, Default)]
pub struct Found {
    /// Oldest first. Their hashes have not been looked at.
    pub whole: Vec<Point>,
    /// Those whose position cannot be read, and why.
    pub damaged: Vec<(PathBuf, String)>,
}

/// Makes sure that a file or folder is on the disk.
pub(super) fn sync(path: &Path) -> Result<(), Problem> {
    fs::File::open(path).and_then(|file| file.sync_all()).map_err(|error| unwritable(path, &error))
}

fn folder(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

/// Writes a checkpoint. Where that fails, nothing of it stays: it would fill the disk further.
pub fn save(
    directory: &RunDirectory,
    position: &Position,
    model: &Model,
    store: &Store,
) -> Result<PathBuf, Problem> {
    store.settle().map_err(|error| store::failed(&error))?;
    store.sync().map_err(|error| {
        Problem::of(
            Fault::Output,
            "hift::engine::scratch",
            format!("what rests on disk cannot be relied on: {error}; no checkpoint is written of it"),
        )
        .help(
            "the disk or its connection is failing: checkpoints from before are untouched; name a folder on another disk \
             with `--scratch`, and the same command goes on from the last one",
        )
    })?;
    let written = write(directory, position, model, store);
    if written.is_err() {
        sweep(&directory.path);
    }
    written
}

/// The tensors of a checkpoint, by file and name.
fn tensors(model: &Model, store: &Store) -> [(&'static str, Vec<(String, Resting)>); 2] {
    let ids = || (0..model.params.len()).map(ParamId);
    let name = |id: ParamId| model.param(id).name.clone();
    let weights = ids().map(|id| (name(id), store.kept()[id.0].clone())).collect();
    let states = ids().flat_map(|id| {
        let states = store.states_of(id).iter().enumerate();
        states.map(move |(slot, tensor)| (format!("{}#{slot}", name(id)), tensor.clone()))
    });
    [(WEIGHTS, weights), (STATES, states.collect())]
}

fn write(
    directory: &RunDirectory,
    position: &Position,
    model: &Model,
    store: &Store,
) -> Result<PathBuf, Problem> {
    let all = folder(&directory.path);
    let name = format!("{}-{}", position.stage, position.step);
    let path = all.join(&name);
    let beside = all.join(format!(".{name}.writing"));
    let io = |error: io::Error| unwritable(&beside, &error);
    if beside.exists() {
        fs::remove_dir_all(&beside).map_err(io)?;
    }
    fs::create_dir_all(&beside).map_err(io)?;
    let files = tensors(model, store);
    let needed: u64 = files.iter().flat_map(|(_, tensors)| tensors).map(|(_, tensor)| tensor.bytes()).sum();
    space::require(&all, Bytes(needed), "a checkpoint takes")?;
    let mut sums = String::new();
    let mut sum = |file: &str| {
        let hashed = Hashed::stream(file, &beside.join(file), &|| false).map_err(io)?;
        sums += &line(&hashed.expect("nobody cancels"));
        Ok(())
    };
    for (file, tensors) in &files {
        let path = beside.join(file);
        let io = |error: io::Error| unwritable(&path, &error);
        files::write(&path, tensors, None).map_err(io)?;
        if !files::holds(&path, tensors, None).map_err(io)? {
            return Err(Problem::of(
                Fault::Output,
                "hift::run::read_back",
                format!("{} does not hold what was written to it", path.display()),
            )
            .help("the disk or its connection is failing: checkpoints from before are untouched; move the run directory to another disk"));
        }
        sum(file)?;
    }
    // A checkpoint must not know of lines that a power cut can still take away.
    directory.sync()?;
    let ids = || (0..model.params.len()).map(ParamId);
    let updates = ids().map(|id| (model.param(id).name.clone(), store.updates_of(id)));
    let written = Written {
        position: position.clone(),
        updates: updates.filter(|(_, n)| *n > 0).collect(),
        metrics_bytes: directory.metrics_bytes(),
    };
    let text = serde_json::to_string_pretty(&written).expect("a position is JSON");
    put(&beside.join(POSITION), &text)?;
    sum(POSITION)?;
    put(&beside.join(SUMS), &sums)?;
    sync(&beside)?;
    if path.exists() {
        // The same step again, after a resume: the old one is whole until the new one has its name.
        let old = all.join(format!(".{name}.old"));
        fs::rename(&path, &old).map_err(io)?;
        fs::rename(&beside, &path).map_err(io)?;
        fs::remove_dir_all(&old).map_err(io)?;
    } else {
        fs::rename(&beside, &path).map_err(io)?;
    }
    sync(&all)?;
    link(&directory.path, LATEST, &name)?;
    Ok(path)
}

/// Writes a small file and makes sure that it is on the disk.
fn put(file: &Path, text: &str) -> Result<(), Problem> {
    fs::write(file, text).map_err(|error| unwritable(file, &error))?;
    sync(file)
}

/// A line of `SHA256SUMS`.
fn line(hashed: &Hashed) -> String {
    format!("{}  {}\n", hashed.sha256, hashed.path)
}

/// What a link in `checkpoints/` names.
fn leads_to(run: &Path, name: &str) -> Option<String> {
    fs::read_link(folder(run).join(name)).ok()?.to_str().map(str::to_owned)
}

/// Lets a link in `checkpoints/` lead to another checkpoint, all at once.
fn link(run: &Path, name: &str, to: &str) -> Result<(), Problem> {
    let all = folder(run);
    let (place, beside) = (all.join(name), all.join(format!(".{name}.link")));
    let moved = || {
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Err(_) | Ok(()) => {}
        }
        symlink(to, &beside)?;
        fs::rename(&beside, &place)
    };
    moved().map_err(|error| unwritable(&place, &error))?;
    sync(&all)
}

/// Lets `best` lead to the checkpoint of that step, if it is there.
pub fn link_best(run: &Path, stage: &str, step: u64) -> Result<(), Problem> {
    let name = format!("{stage}-{step}");
    if folder(run).join(&name).exists() { link(run, BEST, &name) } else { Ok(()) }
}

/// Removes the stage's oldest checkpoints beyond `keep`, but not that of the step `best`.
pub fn prune(
    directory: &RunDirectory,
    stage_index: usize,
    keep: u64,
    best: Option<u64>,
) -> Result<(), Problem> {
    let of_stage = list(&directory.path).whole.into_iter().filter(|point| point.stage_index == stage_index);
    let mut of_stage: Vec<Point> = of_stage.collect();
    of_stage.truncate(of_stage.len().saturating_sub(usize::try_from(keep.max(1)).unwrap_or(usize::MAX)));
    for old in of_stage.into_iter().filter(|point| Some(point.step) != best) {
        old.remove()?;
    }
    Ok(())
}

/// Removes what an interrupted write has left.
pub fn sweep(run: &Path) {
    for entry in fs::read_dir(folder(run)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(hidden) = name.strip_prefix('.') else { continue };
        let old = hidden.strip_suffix(".old").map(|of| entry.path().with_file_name(of));
        match old {
            // The new one had not yet got the name when the process ended.
            Some(place) if !place.exists() => {
                let _ = fs::rename(entry.path(), place);
            }
            _ => {
                let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
            }
        }
    }
}

/// The checkpoints of a run.
pub fn list(run: &Path) -> Found {
    let mut found = Found::default();
    for entry in fs::read_dir(folder(run)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if name.starts_with('.') || name.ends_with(DAMAGED) || !is_folder {
            continue;
        }
        let path = entry.path();
        let Ok(text) = fs::read(path.join(POSITION)) else { continue };
        match serde_json::from_slice::<Written>(&text) {
            Ok(Written { position, updates, metrics_bytes }) => found.whole.push(Point {
                path,
                stage_index: position.stage_index,
                step: position.step,
                metrics_bytes,
                owes_evaluation: position.owes_evaluation,
                queue: position.queue,
                scale: position.scale,
                course: position.course,
                updates,
            }),
            Err(error) => found.damaged.push((path, format!("{POSITION}: {error}"))),
        }
    }
    found.whole.sort_by_key(|point| (point.stage_index, point.step));
    found
}

/// The checkpoints that a run can go on from, oldest first: of each stage, the newest one has the right hashes. Those
/// that are damaged are renamed, and `say` is told.
///
/// # Errors
/// When one cannot be read at all (66), or a signal comes meanwhile (75).
pub fn sound(run: &Path, say: &mut dyn FnMut(String)) -> Result<Vec<Point>, Problem> {
    let Found { mut whole, damaged } = list(run);
    for (path, what) in damaged {
        say(set_aside(&path, &what)?);
    }
    let stages: BTreeSet<usize> = whole.iter().map(|point| point.stage_index).collect();
    for stage in stages {
        while let Some(at) = whole.iter().rposition(|point| point.stage_index == stage)
            && let Some(what) = whole[at].damage()?
        {
            say(set_aside(&whole.remove(at).path, &what)?);
        }
    }
    // A kill may have come between a checkpoint and its link, or the one that the link names is set aside.
    if let Some(name) = whole.last().and_then(|point| point.path.file_name()?.to_str())
        && leads_to(run, LATEST).as_deref() != Some(name)
    {
        link(run, LATEST, name)?;
    }
    Ok(whole)
}

fn set_aside(path: &Path, what: &str) -> Result<String, Problem> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(DAMAGED);
    let aside = path.with_file_name(name);
    let moved = match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Err(_) | Ok(()) => fs::rename(path, &aside),
    };
    moved.map_err(|error| unwritable(&aside, &error))?;
    Ok(format!(
        "the checkpoint {} is damaged ({what}); it is set aside as {}",
        path.display(),
        aside.display()
    ))
}

impl Point {
    /// What is wrong with the checkpoint, if anything is: each file is held against its hash.
    ///
    /// # Errors
    /// When it cannot be read (66), or a signal comes meanwhile (75).
    pub fn damage(&self) -> Result<Option<String>, Problem> {
        let text = match fs::read_to_string(self.path.join(SUMS)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(format!("no {SUMS}"))),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                return Ok(Some(format!("{SUMS} is not text")));
            }
            Err(error) => return Err(self.broken(&format!("{SUMS}: {error}"))),
        };
        for file in FILES {
            let hashed = match Hashed::stream(file, &self.path.join(file), &signals::interrupted) {
                Ok(Some(hashed)) => hashed,
                Ok(None) => {
                    return Err(Problem::of(
                        Fault::Again,
                        "hift::run::interrupted",
                        "interrupted while the checkpoints were looked at",
                    )
                    .help("call the same command again"));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Ok(Some(format!("{file} is gone")));
                }
                Err(error) => return Err(self.broken(&format!("{file}: {error}"))),
            };
            if !text.lines().any(|sum| format!("{sum}\n") == line(&hashed)) {
                return Ok(Some(format!("{file} is not what was written: its SHA-256 is another")));
            }
        }
        Ok(None)
    }

    /// Removes the checkpoint. It goes out of sight first: half of one must not look like a whole one.
    pub fn remove(&self) -> Result<(), Problem> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let gone = self.path.with_file_name(format!(".{name}.gone"));
        let removed = fs::rename(&self.path, &gone).and_then(|()| fs::remove_dir_all(&gone));
        removed.map_err(|error| unwritable(&self.path, &error))
    }

    fn broken(&self, what: &str) -> Problem {
        Problem::of(
            Fault::Missing,
            "hift::run::broken_checkpoint",
            format!("the checkpoint {} cannot be read: {what}", self.path.display()),
        )
        .help("remove it to go on from the one before, or start anew with `--new`")
    }

    /// Reads weights and states, one after the other; what is to rest on the disk of `place` goes there.
    pub fn load(&self, plan: &ModelPlan, place: &Place) -> Result<Begin, Problem> {
        let model = &plan.model;
        let broken = |what: String| self.broken(&what);
        let open = |file: &str| {
            files::Incoming::open(&self.path.join(file)).map_err(|error| broken(format!("{file}: {error}")))
        };
        let states = open(STATES)?;
        let unreadable = |error: io::Error| broken(error.to_string());
        let mut store = Store::of(self.parameters(plan, place)?);
        for (idx, param) in model.params.iter().enumerate() {
            let mut slots = Vec::new();
            while let Some(state) =
                states.get(&format!("{}#{}", param.name, slots.len())).map_err(unreadable)?
            {
                slots.push(place.state(state).map_err(|error| store::failed(&error))?);
            }
            store.restore(ParamId(idx), slots, self.updates.get(&param.name).copied().unwrap_or(0));
        }
        Ok(Begin {
            store,
            step: self.step,
            owes_evaluation: self.owes_evaluation,
            queue: self.queue.clone(),
            scale: self.scale,
            course: self.course.clone(),
        })
    }

    /// Reads weights alone, or their masters. As [`Point::load`].
    pub fn parameters(&self, plan: &ModelPlan, place: &Place) -> Result<Parameters, Problem> {
        let model = &plan.model;
        let broken = |what: String| self.broken(&what);
        let weights = files::Incoming::open(&self.path.join(WEIGHTS))
            .map_err(|error| broken(format!("{WEIGHTS}: {error}")))?;
        let unreadable = |error: io::Error| broken(error.to_string());
        let mut parameters = Parameters::default();
        for param in &model.params {
            match weights.get(&param.name).map_err(unreadable)? {
                Some(tensor) if dtype(&tensor) != plan.precision.kept() => {
                    return Err(broken(format!("`{}` is in {}", param.name, dtype(&tensor))));
                }
                Some(tensor) if tensor.dims() == param.shape => {
                    let added = parameters.add(tensor, plan.precision, Some(place));
                    added.map_err(|error| store::failed(&error))?;
                }
                Some(_) => return Err(broken(format!("`{}` has another shape", param.name))),
                None => return Err(broken(format!("`{}` is missing", param.name))),
            }
        }
        Ok(parameters)
    }
}
