//! A Hugging Face directory from weights: `config.json`, `model.safetensors`, the tokenizer.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use crate::engine::{Resting, files};
use crate::lock::Hashed;
use crate::plan::{ExportPlan, StagePlan};
use crate::problem::{Fault, Problem, Problems};
use crate::units::Dtype;

use super::checkpoint::sync;
use super::directory::write_whole;
use super::{Order, card, unwritable};

/// Files beside a `tokenizer.json` that belong to it.
const TOKENIZER_FILES: &[&str] =
    &["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"];

/// The model's files.
const WEIGHTS: &str = "model.safetensors";
const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer.json";
const CARD: &str = "README.md";

/// Says where an export comes from. Only a folder that has it, and nothing that an export does not write, is
/// replaced by the next export: any other model's folder has a `model.safetensors` too.
const MARK: &str = "hift.json";

/// The folders that a run exports to.
pub fn targets(order: &Order<'_>) -> Vec<PathBuf> {
    let exports = order.plan.stages.iter().filter_map(|stage| match stage {
        StagePlan::Export(plan) => Some(target(order, plan)),
        StagePlan::Train(_) | StagePlan::Evaluate(_) | StagePlan::Generate(_) => None,
    });
    exports.collect()
}

/// Where an export goes, with links followed as far as the path exists.
fn target(order: &Order<'_>, plan: &ExportPlan) -> PathBuf {
    resolved(&order.folder.join(&plan.to))
}

/// An absolute path, with links followed as far as it exists.
pub(super) fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let known = path.ancestors().find_map(|known| Some((known, known.canonicalize().ok()?)));
    match known {
        Some((known, canonical)) => match path.strip_prefix(known) {
            Ok(rest) if rest.as_os_str().is_empty() => canonical,
            Ok(rest) => canonical.join(rest),
            Err(_) => path,
        },
        None => path,
    }
}

/// Makes sure, before anything is trained, that every export can be written in the end.
pub fn check_targets(order: &Order<'_>) -> Result<(), Problems> {
    let mut problems = Problems::default();
    for stage in &order.plan.stages {
        let StagePlan::Export(plan) = stage else { continue };
        let to = target(order, plan);
        restore(&to);
        if let Err(problem) = check_target(order, &to) {
            problems.push(problem);
            continue;
        }
        if let Some(file) = plan.tokenizer.as_ref().and_then(|tokenizer| tokenizer.file.value.as_ref())
            && !order.folder.join(file).is_file()
        {
            let what = format!("the tokenizer `{file}`, which `{}` copies, is not there", plan.name);
            problems.push(Problem::of(Fault::Missing, "hift::run::no_tokenizer", what).label_at(
                plan.tokenizer.as_ref().and_then(|tokenizer| tokenizer.file.span()),
                format!("looked for {}", order.folder.join(file).display()),
            ));
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

/// Whether `to` may be written or replaced: it does not exist, is empty, or is an earlier export and nothing else.
fn check_target(order: &Order<'_>, to: &Path) -> Result<(), Problem> {
    let refused = |what: String| {
        Err(Problem::of(Fault::Output, "hift::run::not_an_export", what)
            .help("choose another folder for `to`, or move away what is there"))
    };
    let run = resolved(&order.directory);
    if run.starts_with(to) || to.starts_with(run.join("checkpoints")) {
        return refused(format!("the export to {} would replace the run in {}", to.display(), run.display()));
    }
    if !to.exists() {
        return Ok(());
    }
    let names = match fs::read_dir(to) {
        Ok(entries) => entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()),
        Err(error) => return Err(unwritable(to, &error)),
    };
    let names: Vec<String> = names.collect();
    let ours = |name: &str| {
        [WEIGHTS, CONFIG, GENERATION, TOKENIZER, MARK].contains(&name) || TOKENIZER_FILES.contains(&name)
    };
    if !names.is_empty() && !names.iter().any(|name| name == MARK) {
        return refused(format!("{} is there already and is not an earlier export", to.display()));
    }
    // The card is ours as long as nobody has written in it.
    let changed = |name: &str| name == CARD && !is_our_card(to);
    match names.iter().find(|name| changed(name) || !(ours(name) || *name == CARD)) {
        None => Ok(()),
        Some(other) => refused(format!(
            "{} is an earlier export, but holds `{other}` too, which would be lost",
            to.display()
        )),
    }
}

/// Whether the model card is as the export that stands here wrote it.
fn is_our_card(to: &Path) -> bool {
    let mark = fs::read_to_string(to.join(MARK)).unwrap_or_default();
    let mark: Json = serde_json::from_str(&mark).unwrap_or_default();
    let card = fs::read(to.join(CARD)).map(|card| Hashed::of(CARD, &card).sha256);
    card.is_ok_and(|card| mark["card"] == card)
}

/// `.NAME.what` in the same folder.
fn beside(to: &Path, what: &str) -> PathBuf {
    let name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
    to.with_file_name(format!(".{name}.{what}"))
}

/// Gives an earlier export its name back if the process ended while it was being replaced.
fn restore(to: &Path) {
    let old = beside(to, "old");
    if old.exists() && !to.exists() {
        let _ = fs::rename(old, to);
    }
}

/// Writes the export beside its place, then gives it its name. Where that fails, nothing of it stays, and an earlier
/// export is what it was.
pub fn export(plan: &ExportPlan, weights: &[Resting], order: &Order<'_>) -> Result<PathBuf, Problem> {
    let to = target(order, plan);
    check_target(order, &to)?;
    let writing = beside(&to, "writing");
    let written = write(plan, weights, order, &writing).and_then(|()| replace(&to, &writing));
    written.map_err(|error| {
        let _ = fs::remove_dir_all(&writing);
        restore(&to);
        match error {
            Failed::Io(error) => unwritable(&to, &error),
            Failed::Problem(problem) => problem,
        }
    })?;
    Ok(to)
}

enum Failed {
    Io(std::io::Error),
    Problem(Problem),
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Failed::Io(error)
    }
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Failed::Problem(problem)
    }
}

fn write(plan: &ExportPlan, weights: &[Resting], order: &Order<'_>, writing: &Path) -> Result<(), Failed> {
    let folder = &order.folder;
    if writing.exists() {
        fs::remove_dir_all(writing)?;
    }
    fs::create_dir_all(writing)?;
    let model = &plan.model.model;
    let names = model.params.iter().map(|param| param.name.clone());
    let tensors: Vec<(String, Resting)> = names.zip(weights.iter().cloned()).collect();
    files::write(&writing.join(WEIGHTS), &tensors, Some(plan.dtype))?;

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
    write_whole(&writing.join(CONFIG), &(text + "\n"))?;

    if let Some(path) = plan.model.weights.directory() {
        copy(&folder.join(path), writing, GENERATION)?;
    }
    if let Some(file) = plan.tokenizer.as_ref().and_then(|tokenizer| tokenizer.file.as_ref()) {
        let file = folder.join(file);
        fs::copy(&file, writing.join(TOKENIZER))?;
        for name in TOKENIZER_FILES {
            copy(file.parent().unwrap_or(Path::new(".")), writing, name)?;
        }
    }
    let card = card::card(plan, order);
    write_whole(&writing.join(CARD), &card)?;
    let mark = json!({
        "version": env!("CARGO_PKG_VERSION"), "stage": plan.name, "from": plan.from, "pipeline": order.text,
        "card": Hashed::of(CARD, card.as_bytes()).sha256,
    });
    let mark = serde_json::to_string_pretty(&mark).expect("a mark is JSON");
    write_whole(&writing.join(MARK), &(mark + "\n"))?;
    sync(writing)?;
    Ok(())
}

/// Puts the new folder in the place of the old one, which is whole until then.
fn replace(to: &Path, writing: &Path) -> Result<(), Failed> {
    let old = beside(to, "old");
    if old.exists() {
        fs::remove_dir_all(&old)?;
    }
    if to.exists() {
        fs::rename(to, &old)?;
        fs::rename(writing, to)?;
        fs::remove_dir_all(&old)?;
    } else {
        fs::rename(writing, to)?;
    }
    if let Some(parent) = to.parent() {
        sync(parent)?;
    }
    Ok(())
}

/// Copies a file if it is there.
fn copy(from: &Path, to: &Path, name: &str) -> Result<(), Failed> {
    let source = from.join(name);
    if source.exists() {
        fs::copy(&source, to.join(name))?;
    }
    Ok(())
}
