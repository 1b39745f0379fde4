//! A Hugging Face directory from weights: `config.json`, `model.safetensors`, the tokenizer.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use half::{bf16, f16};
use safetensors::tensor::{Dtype as FileDtype, SafeTensorError, View};
use serde_json::Value as Json;

use crate::engine::access::floats;
use crate::lang::pipeline::Weights;
use crate::plan::{ExportPlan, StagePlan};
use crate::problem::{Fault, Problem, Problems};
use crate::units::Dtype;

use super::checkpoint::sync;
use super::directory::write_whole;
use super::{Order, unwritable};

/// Files beside a `tokenizer.json` that belong to it.
const TOKENIZER_FILES: &[&str] =
    &["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"];

/// What a directory that this program has written holds; nothing else in it is overwritten.
const MARK: &str = "model.safetensors";

/// A tensor in the type that the export asks for; converted when its turn to be written comes.
struct Converted {
    tensor: Tensor,
    dtype: Dtype,
}

impl View for &Converted {
    fn dtype(&self) -> FileDtype {
        match self.dtype {
            Dtype::F32 => FileDtype::F32,
            Dtype::F16 => FileDtype::F16,
            Dtype::Bf16 => FileDtype::BF16,
            Dtype::U32 => unreachable!("weights are exported as floats"),
        }
    }

    fn shape(&self) -> &[usize] {
        self.tensor.dims()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let numbers = floats(&self.tensor);
        let mut bytes = Vec::with_capacity(self.data_len());
        for x in numbers.iter() {
            match self.dtype {
                Dtype::F32 => bytes.extend(x.to_le_bytes()),
                Dtype::F16 => bytes.extend(f16::from_f32(*x).to_le_bytes()),
                Dtype::Bf16 => bytes.extend(bf16::from_f32(*x).to_le_bytes()),
                Dtype::U32 => unreachable!("weights are exported as floats"),
            }
        }
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.tensor.elem_count() * self.dtype.size() as usize
    }
}

/// Makes sure, before anything is trained, that every export can be written in the end.
pub fn check_targets(order: &Order<'_>) -> Result<(), Problems> {
    let mut problems = Problems::default();
    for stage in &order.plan.stages {
        let StagePlan::Export(plan) = stage else { continue };
        let to = order.folder.join(&plan.to);
        if to.exists() && !replaceable(&to) {
            problems.push(
                Problem::of(
                    Fault::Output,
                    "hift::run::not_an_export",
                    format!("{} is there already and is not an earlier export", to.display()),
                )
                .help("choose another folder for `to`, or move away what is there"),
            );
            continue;
        }
        let parent = to.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
        let probe = beside(&to, "probe");
        let written = fs::create_dir_all(&parent).and_then(|()| fs::create_dir_all(&probe));
        if let Err(error) = written.and_then(|()| fs::remove_dir(&probe)) {
            problems.push(unwritable(&to, &error));
        }
    }
    if problems.has_errors() { Err(problems) } else { Ok(()) }
}

/// An empty folder, or an earlier export.
fn replaceable(to: &Path) -> bool {
    let mut entries = fs::read_dir(to).into_iter().flatten().flatten().peekable();
    to.is_dir() && (entries.peek().is_none() || to.join(MARK).exists())
}

/// `.NAME.what` in the same folder.
fn beside(to: &Path, what: &str) -> PathBuf {
    let name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
    to.with_file_name(format!(".{name}.{what}"))
}

/// Writes the export beside its place, then gives it its name.
pub fn export(plan: &ExportPlan, weights: &[Tensor], folder: &Path) -> Result<PathBuf, Problem> {
    let to = folder.join(&plan.to);
    let to = std::path::absolute(&to).unwrap_or(to);
    let writing = beside(&to, "writing");
    let io = |error: std::io::Error| unwritable(&to, &error);
    if writing.exists() {
        fs::remove_dir_all(&writing).map_err(io)?;
    }
    fs::create_dir_all(&writing).map_err(io)?;

    let model = &plan.model.model;
    let tensors: Vec<(String, Converted)> = model
        .params
        .iter()
        .zip(weights)
        .map(|(param, tensor)| (param.name.clone(), Converted { tensor: tensor.clone(), dtype: plan.dtype }))
        .collect();
    let file = writing.join(MARK);
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(
        tensors.iter().map(|(name, tensor)| (name, tensor)),
        Some(metadata),
        &file,
    )
    .map_err(|error| match error {
        SafeTensorError::IoError(error) => unwritable(&to, &error),
        error => Problem::of(Fault::Failed, "hift::run::export", format!("{}: {error}", to.display())),
    })?;
    sync(&file)?;

    let mut config = model.config.clone();
    let dtype = match plan.dtype {
        Dtype::F32 | Dtype::U32 => "float32",
        Dtype::F16 => "float16",
        Dtype::Bf16 => "bfloat16",
    };
    // Newer versions of transformers call it `dtype`.
    let key = if config.contains_key("dtype") { "dtype" } else { "torch_dtype" };
    config.insert(key.to_string(), Json::from(dtype));
    let text = serde_json::to_string_pretty(&config).expect("a configuration is JSON");
    write_whole(&writing.join("config.json"), &(text + "\n"))?;

    if let Weights::Directory { path } = &plan.model.weights {
        copy(&folder.join(path), &writing, "generation_config.json")?;
    }
    if let Some(file) = plan.tokenizer.as_ref().and_then(|tokenizer| tokenizer.file.as_ref()) {
        let file = folder.join(file);
        fs::copy(&file, writing.join("tokenizer.json")).map_err(io)?;
        for name in TOKENIZER_FILES {
            copy(file.parent().unwrap_or(Path::new(".")), &writing, name)?;
        }
    }
    if to.exists() {
        let old = beside(&to, "old");
        if old.exists() {
            fs::remove_dir_all(&old).map_err(io)?;
        }
        fs::rename(&to, &old).map_err(io)?;
        fs::rename(&writing, &to).map_err(io)?;
        fs::remove_dir_all(&old).map_err(io)?;
    } else {
        fs::rename(&writing, &to).map_err(io)?;
    }
    Ok(to)
}

/// Copies a file if it is there.
fn copy(from: &Path, to: &Path, name: &str) -> Result<(), Problem> {
    let source = from.join(name);
    if source.exists() {
        fs::copy(&source, to.join(name)).map_err(|error| unwritable(&to.join(name), &error))?;
    }
    Ok(())
}
