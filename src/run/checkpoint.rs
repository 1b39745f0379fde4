//! What is kept to go on from: weights, optimizer states, and the position in the plan.
//!
//! A checkpoint is written beside its place and renamed, so that it is there whole or not at all. Batches, groups
//! and rates follow from the step's number, so nothing else is needed to go on exactly.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{CpuStorage, Storage, Tensor};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensorError, View};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

use crate::engine::Store;
use crate::engine::access::fresh;
use crate::model::Model;
use crate::problem::{Fault, Problem};
use crate::program::ParamId;

use super::directory::RunDirectory;
use super::train::Begin;
use super::unwritable;

const WEIGHTS: &str = "weights.safetensors";
const STATES: &str = "states.safetensors";
const POSITION: &str = "position.json";

/// Where in the plan a checkpoint stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub stage: String,
    pub stage_index: usize,
    /// Updates made.
    pub step: u64,
    /// An interruption came before the held-out rows were through.
    pub owes_evaluation: bool,
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
    updates: HashMap<String, u64>,
}

/// A 32-bit tensor, written from where it lies.
struct Lying(Tensor);

impl View for &Lying {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.0.dims()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let (storage, _) = self.0.storage_and_layout();
        match &*storage {
            Storage::Cpu(CpuStorage::F32(numbers)) => Cow::Owned(as_bytes(numbers)),
            _ => unreachable!("the CPU player makes 32-bit floats only"),
        }
    }

    fn data_len(&self) -> usize {
        4 * self.0.elem_count()
    }
}

fn as_bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Writes tensors to `path` and makes sure that they are on the disk.
pub(super) fn write_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), Problem> {
    let lying: Vec<(String, Lying)> =
        tensors.iter().map(|(name, tensor)| (name.clone(), Lying(tensor.clone()))).collect();
    write_views(path, lying.iter().map(|(name, tensor)| (name.as_str(), tensor)))
}

/// Writes a safetensors file and makes sure that it is on the disk.
pub(super) fn write_views<'v, V: View>(
    path: &Path,
    views: impl Iterator<Item = (&'v str, V)>,
) -> Result<(), Problem> {
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|error| match error {
        SafeTensorError::IoError(error) => unwritable(path, &error),
        error => Problem::of(Fault::Failed, "hift::run::tensors", format!("{}: {error}", path.display())),
    })?;
    // It comes from a temporary file that only its owner may read; a result is as readable as any new file.
    let like = path.with_extension("mode");
    let _ = fs::File::create(&like)
        .and_then(|file| file.metadata())
        .and_then(|new| fs::set_permissions(path, new.permissions()));
    let _ = fs::remove_file(&like);
    sync(path)
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
    let weights: Vec<_> = ids().map(|id| (name(id), store.weights[id.0].clone())).collect();
    write_tensors(&beside.join(WEIGHTS), &weights)?;
    let states: Vec<_> = ids()
        .flat_map(|id| {
            let states = store.states_of(id).iter().enumerate();
            states.map(move |(slot, tensor)| (id, slot, tensor.clone())).collect::<Vec<_>>()
        })
        .map(|(id, slot, tensor)| (format!("{}#{slot}", name(id)), tensor))
        .collect();
    write_tensors(&beside.join(STATES), &states)?;
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
                updates: written.updates,
            })
        })
        .collect();
    points.sort_by_key(|point| (point.stage_index, point.step));
    points
}

impl Point {
    /// Reads weights and states.
    pub fn load(&self, model: &Model) -> Result<Begin, Problem> {
        let broken = |what: String| {
            Problem::of(
                Fault::Missing,
                "hift::run::broken_checkpoint",
                format!("the checkpoint {} cannot be read: {what}", self.path.display()),
            )
            .help("remove it to go on from the one before, or start anew with `--resume never`")
        };
        // Mapped, not read: taking a run up must not need more memory than the run did.
        #[allow(
            unsafe_code,
            reason = "a memory map of a file that nobody changes while the run holds the lock"
        )]
        let read = |file: &str| {
            fs::File::open(self.path.join(file))
                .and_then(|file| unsafe { Mmap::map(&file) })
                .map_err(|error| broken(format!("{file}: {error}")))
        };
        let weights = read(WEIGHTS)?;
        let weights = safetensors::SafeTensors::deserialize(&weights)
            .map_err(|error| broken(format!("{WEIGHTS}: {error}")))?;
        let states = read(STATES)?;
        let states = safetensors::SafeTensors::deserialize(&states)
            .map_err(|error| broken(format!("{STATES}: {error}")))?;
        let tensor = |view: safetensors::tensor::TensorView<'_>| {
            fresh(view.shape(), |numbers| {
                let words = view.data().as_chunks::<4>().0.iter();
                numbers.iter_mut().zip(words).for_each(|(x, word)| *x = f32::from_le_bytes(*word));
            })
            .map_err(|error| broken(error.to_string()))
        };
        let mut tensors = Vec::with_capacity(model.params.len());
        for param in &model.params {
            let view = weights.tensor(&param.name).map_err(|error| broken(error.to_string()))?;
            if view.shape() != param.shape {
                return Err(broken(format!("`{}` has another shape", param.name)));
            }
            tensors.push(tensor(view)?);
        }
        let mut store = Store::new(tensors);
        for (idx, param) in model.params.iter().enumerate() {
            let mut slots = Vec::new();
            while let Ok(view) = states.tensor(&format!("{}#{}", param.name, slots.len())) {
                slots.push(tensor(view)?);
            }
            store.restore(ParamId(idx), slots, self.updates.get(&param.name).copied().unwrap_or(0));
        }
        Ok(Begin { store, step: self.step, owes_evaluation: self.owes_evaluation })
    }
}
