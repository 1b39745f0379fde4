//! Files that a dataset is made from, each with its hash.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::lang::Pipeline;
use crate::lang::pipeline::{Source, Stage};
use crate::lock::{Hashed, Role, Wanted};
use crate::problem::{Fault, Problem, Problems, Span};

/// What lies beside a `tokenizer.json` and changes what it gives: marks, added tokens, the chat template.
const NEIGHBOURS: &[&str] = &[
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "config.json",
];

/// The files that a pipeline reads rows and tokenizers from, in the order of its stages, none looked into. What
/// lies beside a tokenizer is among them if it is there.
pub fn inputs(pipeline: &Pipeline) -> Vec<Wanted> {
    let wanted = |role, path: &str, span| {
        let place = pipeline.folder.join(path);
        Wanted { role, path: path.to_owned(), place, span, hashed: None }
    };
    let mut files = Vec::new();
    for stage in &pipeline.stages {
        let (data, tokenizer) = match stage {
            Stage::Train(stage) => (Some(&stage.data), Some(&stage.tokenizer)),
            Stage::Evaluate(stage) => (Some(&stage.data), Some(&stage.tokenizer)),
            Stage::Generate(stage) => (None, Some(&stage.tokenizer)),
            Stage::Export(stage) => (None, stage.tokenizer.as_ref()),
        };
        files.extend(data.map(|data| match &data.source.value {
            Source::Json { path } | Source::Text { path, .. } => wanted(Role::Data, path, data.source.span()),
        }));
        let Some((path, span)) = tokenizer.and_then(|t| Some((t.file.value.as_deref()?, t.file.span())))
        else {
            continue;
        };
        files.push(wanted(Role::Tokenizer, path, span));
        let neighbours = NEIGHBOURS.iter().map(|name| Path::new(path).with_file_name(name));
        let neighbours = neighbours.map(|path| wanted(Role::Tokenizer, &path.to_string_lossy(), span));
        files.extend(neighbours.filter(|file| file.place.is_file()));
    }
    files
}

/// Whether the files that a pipeline reads rows and tokenizers from are there, without reading them.
pub fn check_files(pipeline: &Pipeline) -> Problems {
    let mut problems = Problems::default();
    for Wanted { path, span, .. } in inputs(pipeline) {
        if let Err(problem) = find(&pipeline.folder, &path, span)
            && !problems.0.contains(&problem)
        {
            problems.push(problem);
        }
    }
    problems
}

/// Where a file of the pipeline is.
fn find(folder: &Path, path: &str, span: Option<Span>) -> Result<PathBuf, Problem> {
    let place = folder.join(path);
    let found = std::path::absolute(&place).unwrap_or(place);
    let problem = |code, message| {
        Problem::of(Fault::Missing, code, message).label_at(span, format!("looked for {}", found.display()))
    };
    match fs::metadata(&found) {
        Ok(file) if file.is_dir() => {
            let what = format!("`{path}` is a folder, not a file");
            Err(problem("hift::data::unreadable", what).help("name the file itself"))
        }
        Ok(_) => Ok(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(problem("hift::data::missing_file", format!("there is no file `{path}`"))
                .help("paths start at the folder of the pipeline file"))
        }
        Err(error) => Err(problem("hift::data::unreadable", format!("`{path}` cannot be read: {error}"))),
    }
}

/// Reads a file whose path stands in the pipeline at `span`, relative to `folder`.
///
/// # Errors
/// Exit code 66: names the path as written and where it was looked for.
pub(super) fn read(folder: &Path, path: &str, span: Option<Span>) -> Result<(Vec<u8>, Hashed), Problem> {
    let found = find(folder, path, span)?;
    match fs::read(&found) {
        Ok(bytes) => {
            let hashed = Hashed::of(path, &bytes);
            Ok((bytes, hashed))
        }
        Err(error) => {
            let what = format!("`{path}` cannot be read: {error}");
            Err(Problem::of(Fault::Missing, "hift::data::unreadable", what)
                .label_at(span, format!("looked for {}", found.display())))
        }
    }
}

/// The name among `names` that `wanted` was probably meant to be.
pub(super) fn nearest<'n>(wanted: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let wanted = wanted.to_lowercase();
    names
        .into_iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(&wanted, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= 0.5)
        // The name itself breaks ties, so that the answer does not depend on the order of a hash map.
        .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))
        .map(|(_, name)| name)
}
