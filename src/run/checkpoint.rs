//! What is kept to go on from: weights (their masters, where there are some, say what they are), optimizer states, and
//! the position in the plan.
//!
//! A checkpoint is written beside its place and renamed, so that it is there whole or not at all. Batches, groups
//! and rates follow from the step's number, so nothing else is needed to go on exactly.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::access::dtype;
use crate::engine::{Parameters, Store, files, store};
use crate::model::Model;
use crate::plan::{ModelPlan, Queue};
use crate::problem::{Fault, Problem};
use crate::program::ParamId;

use super::directory::RunDirectory;
use super::loss_scale::LossScale;
use super::train::Begin;
use super::unwritable;

const WEIGHTS: &str = "weights.safetensors";
const STATES: &str = "states.safetensors";
const POSITION: &str = "position.json";

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
}

/// `position.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Written {
    #[serde(flatten)]
    position: Position,
    /// How often each parameter was updated.
    updates: HashMap<String, u64>,
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
    updates: HashMap<String, u64>,
}

/// Makes sure that a file or folder is on the disk.
pub(super) fn sync(path: &Path) -> Result<(), Problem> {
    fs::File::open(path).and_then(|file| file.sync_all()).map_err(|error| unwritable(path, &error))
}

/// Writes a checkpoint. Where that fails, nothing of it stays: it would fill the disk further.
pub fn save(
    directory: &RunDirectory,
    position: &Position,
    model: &Model,
    store: &Store,
) -> Result<PathBuf, Problem> {
    let written = write(directory, position, model, store);
    if written.is_err() {
        sweep(&directory.path);
    }
    written
}

fn write(
    directory: &RunDirectory,
    position: &Position,
    model: &Model,
    store: &Store,
) -> Result<PathBuf, Problem> {
    let all = directory.path.join("checkpoints");
    let path = all.join(format!("{}-{}", position.stage, position.step));
    let beside = all.join(format!(".{}-{}.writing", position.stage, position.step));
    let io = |error: std::io::Error| unwritable(&beside, &error);
    if beside.exists() {
        fs::remove_dir_all(&beside).map_err(io)?;
    }
    fs::create_dir_all(&beside).map_err(io)?;
    let ids = || (0..model.params.len()).map(ParamId);
    let name = |id: ParamId| model.param(id).name.clone();
    let weights: Vec<_> = ids().map(|id| (name(id), store.kept()[id.0].clone())).collect();
    let tensors = |file: &str, tensors: &[_]| {
        let path = beside.join(file);
        files::write(&path, tensors, None).map_err(|error| unwritable(&path, &error))
    };
    tensors(WEIGHTS, &weights)?;
    let states: Vec<_> = ids()
        .flat_map(|id| {
            let states = store.states_of(id).iter().enumerate();
            states.map(move |(slot, tensor)| (id, slot, tensor.clone())).collect::<Vec<_>>()
        })
        .map(|(id, slot, tensor)| (format!("{}#{slot}", name(id)), tensor))
        .collect();
    tensors(STATES, &states)?;
    // A checkpoint must not know of lines that a power cut can still take away.
    directory.sync()?;
    let written = Written {
        position: position.clone(),
        updates: ids().map(|id| (name(id), store.updates_of(id))).filter(|(_, n)| *n > 0).collect(),
        metrics_bytes: directory.metrics_bytes(),
    };
    let text = serde_json::to_string_pretty(&written).expect("a position is JSON");
    let file = beside.join(POSITION);
    fs::write(&file, text).map_err(|error| unwritable(&file, &error))?;
    sync(&file)?;
    sync(&beside)?;
    if path.exists() {
        // The same step again, after a resume: the old one is whole until the new one has its name.
        let old = all.join(format!(".{}-{}.old", position.stage, position.step));
        fs::rename(&path, &old).map_err(io)?;
        fs::rename(&beside, &path).map_err(io)?;
        fs::remove_dir_all(&old).map_err(io)?;
    } else {
        fs::rename(&beside, &path).map_err(io)?;
    }
    sync(&all)?;
    Ok(path)
}

/// Removes the stage's oldest checkpoints beyond `keep`.
pub fn prune(directory: &RunDirectory, stage_index: usize, keep: u64) -> Result<(), Problem> {
    let of_stage = list(&directory.path).into_iter().filter(|point| point.stage_index == stage_index);
    let mut of_stage: Vec<Point> = of_stage.collect();
    of_stage.truncate(of_stage.len().saturating_sub(usize::try_from(keep.max(1)).unwrap_or(usize::MAX)));
    for old in of_stage {
        fs::remove_dir_all(&old.path).map_err(|error| unwritable(&old.path, &error))?;
    }
    Ok(())
}

/// Removes what an interrupted write has left.
pub fn sweep(run: &Path) {
    for entry in fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(hidden) = name.strip_prefix('.') else { continue };
        let old = hidden.strip_suffix(".old").map(|of| entry.path().with_file_name(of));
        match old {
            // The new one had not yet got the name when the process ended.
            Some(place) if !place.exists() => {
                let _ = fs::rename(entry.path(), place);
            }
            _ => {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// The whole checkpoints of a run, oldest first.
pub fn list(run: &Path) -> Vec<Point> {
    let Ok(entries) = fs::read_dir(run.join("checkpoints")) else { return Vec::new() };
    let mut points: Vec<Point> = entries
        .flatten()
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path().join(POSITION)).ok()?;
            let written: Written = serde_json::from_str(&text).ok()?;
            Some(Point {
                path: entry.path(),
                stage_index: written.position.stage_index,
                step: written.position.step,
                metrics_bytes: written.metrics_bytes,
                owes_evaluation: written.position.owes_evaluation,
                queue: written.position.queue,
                scale: written.position.scale,
                updates: written.updates,
            })
        })
        .collect();
    points.sort_by_key(|point| (point.stage_index, point.step));
    points
}

impl Point {
    /// Reads weights and states.
    pub fn load(&self, plan: &ModelPlan) -> Result<Begin, Problem> {
        let model = &plan.model;
        let broken = |what: String| {
            Problem::of(
                Fault::Missing,
                "hift::run::broken_checkpoint",
                format!("the checkpoint {} cannot be read: {what}", self.path.display()),
            )
            .help("remove it to go on from the one before, or start anew with `--resume never`")
        };
        let open = |file: &str| {
            files::Incoming::open(&self.path.join(file)).map_err(|error| broken(format!("{file}: {error}")))
        };
        let (weights, states) = (open(WEIGHTS)?, open(STATES)?);
        let unreadable = |error: std::io::Error| broken(error.to_string());
        let mut tensors = Vec::with_capacity(model.params.len());
        for param in &model.params {
            match weights.get(&param.name).map_err(unreadable)? {
                Some(tensor) if dtype(&tensor) != plan.precision.kept() => {
                    return Err(broken(format!("`{}` is in {}", param.name, dtype(&tensor))));
                }
                Some(tensor) if tensor.dims() == param.shape => tensors.push(tensor),
                Some(_) => return Err(broken(format!("`{}` has another shape", param.name))),
                None => return Err(broken(format!("`{}` is missing", param.name))),
            }
        }
        let parameters = Parameters::of(tensors, plan.precision).map_err(|error| store::failed(&error))?;
        let mut store = Store::of(parameters);
        for (idx, param) in model.params.iter().enumerate() {
            let mut slots = Vec::new();
            while let Some(state) =
                states.get(&format!("{}#{}", param.name, slots.len())).map_err(unreadable)?
            {
                slots.push(state);
            }
            store.restore(ParamId(idx), slots, self.updates.get(&param.name).copied().unwrap_or(0));
        }
        Ok(Begin {
            store,
            step: self.step,
            owes_evaluation: self.owes_evaluation,
            queue: self.queue.clone(),
            scale: self.scale,
        })
    }
}
