//! Files that a dataset is made from, each with its hash.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use arrow_buffer::Buffer;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::lang::Pipeline;
use crate::lang::pipeline::{Format, Setting, Source, Stage};
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
            Stage::Generate(stage) => (stage.data.as_ref(), Some(&stage.tokenizer)),
            Stage::Export(stage) => (None, stage.tokenizer.as_ref()),
        };
        for data in data.iter().flat_map(|data| data.parts()) {
            for source in std::iter::once(&data.source).chain(data.held_source().as_ref()) {
                files.extend(
                    named(&pipeline.folder, source).map(|path| wanted(Role::Data, &path, source.span())),
                );
            }
            if let Format::Chat { template: Some(path), .. } = &data.format.value {
                files.push(wanted(Role::Tokenizer, path, data.format.span()));
            }
        }
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
    let mut add = |problem: Problem| {
        if !problems.0.contains(&problem) {
            problems.push(problem);
        }
    };
    let data = pipeline.stages.iter().filter_map(|stage| match stage {
        Stage::Train(stage) => Some(&stage.data),
        Stage::Evaluate(stage) => Some(&stage.data),
        Stage::Generate(stage) => stage.data.as_ref(),
        Stage::Export(_) => None,
    });
    let mut unlisted = Vec::new();
    for data in data.flat_map(|data| data.parts()) {
        for source in std::iter::once(&data.source).chain(data.held_source().as_ref()) {
            if !matches!(source.value, Source::Mix { .. } | Source::Hub { .. })
                && let Err(problem) = of_source(&pipeline.folder, &source.value, source.span())
            {
                unlisted.push(written(&source.value).to_owned());
                add(problem);
            }
        }
    }
    for Wanted { path, span, .. } in inputs(pipeline) {
        if !unlisted.contains(&path)
            && let Err(problem) = find(&pipeline.folder, &path, span)
        {
            add(problem);
        }
    }
    problems
}

/// Where a file of the pipeline is.
pub(super) fn find(folder: &Path, path: &str, span: Option<Span>) -> Result<PathBuf, Problem> {
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
        Err(error) => Err(unreadable(path, &found, span, &error)),
    }
}

/// The files of a source: those with rows, in the order in which they follow each other, and those that say which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// The path as written.
    pub written: String,
    pub beside: Vec<String>,
    pub rows: Vec<String>,
}

/// The paths that a source names, or the one that is written where they cannot be found.
fn named(folder: &Path, source: &Setting<Source>) -> impl Iterator<Item = String> + use<> {
    let files = match &source.value {
        Source::Mix { .. } => Vec::new(),
        // They are known once they are fetched, which a look at the file alone does not ask for.
        Source::Hub { files, .. } => files.clone(),
        other => match of_source(folder, other, source.span()) {
            Ok(listed) => [listed.beside, listed.rows].concat(),
            Err(_) => vec![written(other).to_owned()],
        },
    };
    files.into_iter()
}

/// The path that a source names, as written.
pub(super) fn written(source: &Source) -> &str {
    match source {
        Source::Json { path }
        | Source::Text { path, .. }
        | Source::Csv { path, .. }
        | Source::Parquet { path }
        | Source::Arrow { path, .. } => path,
        Source::Hub { repository, .. } => &repository.name,
        Source::Mix { .. } => "",
    }
}

/// Finds the files of a source.
///
/// # Errors
/// A pattern that matches nothing, a folder that is no dataset (66); a split that is missing or not there.
pub(super) fn of_source(folder: &Path, source: &Source, span: Option<Span>) -> Result<Listed, Problem> {
    let path = written(source);
    let whole = folder.join(path);
    match source {
        Source::Hub { files, .. } if files.is_empty() => {
            let what = format!("the rows of `{path}` are on the Hub, and were not fetched");
            Err(Problem::of(Fault::Missing, "hift::data::not_fetched", what)
                .label_at(span, "this repository")
                .help("`hift check --data FILE` fetches them, and so does `hift run FILE`"))
        }
        Source::Hub { files, .. } => {
            Ok(Listed { written: path.to_owned(), beside: Vec::new(), rows: files.clone() })
        }
        Source::Arrow { split, .. } if whole.is_dir() => saved_dataset(folder, path, split.as_deref(), span),
        Source::Arrow { split: Some(_), .. } => {
            Err(Problem::new("hift::data::split", format!("`{path}` is no folder, so it has no splits"))
                .label_at(span, "asks for one")
                .help("leave `split` out, or name a folder that `save_to_disk` has written"))
        }
        _ => Ok(Listed {
            written: path.to_owned(),
            beside: Vec::new(),
            rows: if whole.exists() || !path.contains(['*', '?', '[']) {
                vec![path.to_owned()]
            } else {
                matching(folder, path, span)?
            },
        }),
    }
}

/// The files that a pattern matches, sorted by name.
fn matching(folder: &Path, pattern: &str, span: Option<Span>) -> Result<Vec<String>, Problem> {
    let bad = |what: String| Problem::new("hift::data::pattern", what).label_at(span, "this pattern");
    // What is special in the folder's own name is not meant.
    let whole = match Path::new(pattern).is_absolute() || folder.as_os_str().is_empty() {
        true => pattern.to_owned(),
        false => format!("{}/{pattern}", glob::Pattern::escape(&folder.to_string_lossy())),
    };
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
    let paths = glob::glob_with(&whole, options).map_err(|error| {
        bad(format!("`{pattern}` is no pattern: {error}"))
            .help("`*` is any text, `?` any character, `[a-c]` one of these, `**` any folders")
    })?;
    let mut found = Vec::new();
    for path in paths {
        let path = path.map_err(|error| {
            let what = format!("`{}` cannot be read: {}", error.path().display(), error.error());
            Problem::of(Fault::Missing, "hift::data::unreadable", what).label_at(span, "this pattern")
        })?;
        if path.is_file() {
            let own = path.strip_prefix(folder).unwrap_or(&path);
            found.push(own.to_string_lossy().into_owned());
        }
    }
    found.sort_unstable();
    if found.is_empty() {
        return Err(nothing_matches(folder, pattern, span));
    }
    Ok(found)
}

fn nothing_matches(folder: &Path, pattern: &str, span: Option<Span>) -> Problem {
    // The folder in front of the first special character.
    let fixed = &pattern[..pattern.find(['*', '?', '[']).unwrap_or(pattern.len())];
    let inside = fixed.rfind('/').map_or(Path::new(""), |at| Path::new(&fixed[..at + 1]));
    let place = if inside.as_os_str().is_empty() { folder.to_path_buf() } else { folder.join(inside) };
    let place = std::path::absolute(&place).unwrap_or(place);
    let names: Vec<String> = fs::read_dir(&place)
        .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .map(Iterator::collect)
        .unwrap_or_default();
    let own = Path::new(pattern).file_name().unwrap_or_default().to_string_lossy();
    Problem::of(Fault::Missing, "hift::data::missing_file", format!("no file matches `{pattern}`"))
        .label_at(span, format!("looked in {}", place.display()))
        .help(match nearest(&own, names.iter().map(String::as_str)) {
            Some(near) => format!("there is `{}`", inside.join(near).display()),
            None => "paths start at the folder of the pipeline file".to_owned(),
        })
}

/// The files of a folder that Hugging Face's `save_to_disk` has written, of one split if it has several.
fn saved_dataset(
    folder: &Path,
    path: &str,
    split: Option<&str>,
    span: Option<Span>,
) -> Result<Listed, Problem> {
    let json =
        |name: &Path| -> Option<Value> { serde_json::from_slice(&fs::read(folder.join(name)).ok()?).ok() };
    let root = Path::new(path);
    let names = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
    };
    let mut beside = Vec::new();
    let dict = root.join("dataset_dict.json");
    let within = match (json(&dict), split) {
        (Some(splits), split) => {
            let splits = names(&splits["splits"]);
            let known = splits.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let problem = |what: String, label: &str| {
                Problem::new("hift::data::split", what)
                    .label_at(span, label)
                    .help(format!("write `split = \"...\"` with one of {known}"))
            };
            let Some(split) = split else {
                return Err(problem(format!("`{path}` has the splits {known}"), "which one?"));
            };
            if !splits.iter().any(|name| name == split) {
                return Err(problem(format!("`{path}` has no split `{split}`"), "not there"));
            }
            beside.push(dict.to_string_lossy().into_owned());
            root.join(split)
        }
        (None, Some(split)) if !root_has_state(folder, root) => root.join(split),
        (None, Some(split)) => {
            return Err(Problem::new(
                "hift::data::split",
                format!("`{path}` is one dataset, without a split `{split}`"),
            )
            .label_at(span, "asks for a split")
            .help("leave `split` out"));
        }
        (None, None) => root.to_path_buf(),
    };
    let state = within.join("state.json");
    let not_one = |what: &str| {
        Problem::of(Fault::Missing, "hift::data::no_dataset", format!("`{}` {what}", within.display()))
            .label_at(span, "is to be a folder that `save_to_disk` of Hugging Face's datasets has written")
            .help("name an arrow file, or the folder with `state.json` in it")
    };
    let Some(described) = json(&state) else { return Err(not_one("has no readable `state.json`")) };
    let is_null = |key: &str| described.get(key).is_none_or(|value| value.is_null() || *value == json!([]));
    if !is_null("_indices_data_files") || !is_null("_indices_files") {
        return Err(not_one("keeps the order of its rows in a file of its own, which is not read")
            .help("call `flatten_indices()` before `save_to_disk`"));
    }
    beside.push(state.to_string_lossy().into_owned());
    let files = described["_data_files"].as_array().cloned().unwrap_or_default();
    let rows: Vec<String> = files
        .iter()
        .filter_map(|file| Some(within.join(file["filename"].as_str()?).to_string_lossy().into_owned()))
        .collect();
    if rows.is_empty() || rows.len() < files.len() {
        return Err(not_one("names no files in its `state.json`"));
    }
    Ok(Listed { written: path.to_owned(), beside, rows })
}

fn root_has_state(folder: &Path, root: &Path) -> bool {
    folder.join(root).join("state.json").is_file()
}

/// The hashes of a source's files, in the order in which they are read.
///
/// # Errors
/// Files that cannot be read (66), or an interruption (75).
pub(super) fn hash(
    folder: &Path,
    source: &Setting<Source>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<Hashed>, Problems> {
    let span = source.span();
    let listed = of_source(folder, &source.value, span)?;
    let (mut problems, mut hashes) = (Problems::default(), Vec::new());
    for path in listed.beside.iter().chain(&listed.rows) {
        let hashed = find(folder, path, span).and_then(|found| {
            Hashed::stream(path, &found, cancelled).map_err(|error| {
                let what = format!("`{path}` cannot be read: {error}");
                Problem::of(Fault::Missing, "hift::data::unreadable", what)
                    .label_at(span, format!("looked for {}", found.display()))
            })
        });
        match hashed {
            Ok(Some(hashed)) => hashes.push(hashed),
            Ok(None) => return Err(super::tokenize::interrupted().into()),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.has_errors() { Err(problems) } else { Ok(hashes) }
}

/// A file of text that is read once, from its beginning to its end: unpacked if it was packed with gzip or Zstandard,
/// which its first bytes say and not its name, and without a byte order mark.
pub(super) struct Input {
    text: Box<dyn BufRead>,
    read: Rc<RefCell<(Sha256, u64)>>,
    path: String,
    place: PathBuf,
    is_packed: bool,
    span: Option<Span>,
    /// Where the text begins in the unpacked file.
    pub start: u64,
}

/// Hashes what is read through it.
struct Hashing {
    file: File,
    read: Rc<RefCell<(Sha256, u64)>>,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        let (digest, bytes) = &mut *self.read.borrow_mut();
        digest.update(&buffer[..n]);
        *bytes += n as u64;
        Ok(n)
    }
}

/// Bytes that are read from a file at a time.
const BUFFER: usize = 1 << 18;

impl Input {
    /// Opens a file whose path stands in the pipeline at `span`, relative to `folder`.
    ///
    /// # Errors
    /// Exit code 66: names the path as written and where it was looked for. A packed file may be damaged.
    pub fn open(folder: &Path, path: &str, span: Option<Span>) -> Result<Self, Problem> {
        let place = find(folder, path, span)?;
        let file = File::open(&place).map_err(|error| unreadable(path, &place, span, &error))?;
        let read = Rc::new(RefCell::new((Sha256::new(), 0)));
        let mut raw = BufReader::with_capacity(BUFFER, Hashing { file, read: read.clone() });
        let begins = raw.fill_buf().map_err(|error| unreadable(path, &place, span, &error))?.to_vec();
        let mut input = Self {
            text: Box::new(io::empty()),
            read,
            path: path.to_owned(),
            place,
            is_packed: true,
            span,
            start: 0,
        };
        input.text = if begins.starts_with(&[0x1f, 0x8b]) {
            Box::new(BufReader::with_capacity(BUFFER, flate2::bufread::MultiGzDecoder::new(raw)))
        } else if begins.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let decoder =
                zstd::stream::read::Decoder::with_buffer(raw).map_err(|error| input.broken(&error))?;
            Box::new(BufReader::with_capacity(BUFFER, decoder))
        } else {
            input.is_packed = false;
            Box::new(raw)
        };
        let mut first = Vec::new();
        let text = std::mem::replace(&mut input.text, Box::new(io::empty()));
        let mut beginning = text.take(3);
        beginning.read_to_end(&mut first).map_err(|error| input.broken(&error))?;
        let rest = beginning.into_inner();
        input.text = match first.as_slice() {
            [0xef, 0xbb, 0xbf] => {
                input.start = 3;
                rest
            }
            _ => Box::new(io::Cursor::new(first).chain(rest)),
        };
        Ok(input)
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn span(&self) -> Option<Span> {
        self.span
    }

    /// What an error while reading means.
    pub fn broken(&self, error: &io::Error) -> Problem {
        match self.is_packed {
            true => {
                let what = format!("`{}` cannot be unpacked: {error}", self.path);
                Problem::new("hift::data::packed", what)
                    .label_at(self.span, "this file")
                    .help("it is damaged or was not written to its end: get it again")
            }
            false => unreadable(&self.path, &self.place, self.span, error),
        }
    }

    /// The hash of the file, as it was read.
    pub fn finish(mut self) -> Result<Hashed, Problem> {
        io::copy(&mut self.text, &mut io::sink()).map_err(|error| self.broken(&error))?;
        let (digest, bytes) = &*self.read.borrow();
        let sha256 = digest.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Hashed { path: self.path.clone(), sha256, bytes: *bytes })
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.text.read(buffer)
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.text.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.text.consume(n);
    }
}

fn unreadable(path: &str, place: &Path, span: Option<Span>, error: &io::Error) -> Problem {
    Problem::of(Fault::Missing, "hift::data::unreadable", format!("`{path}` cannot be read: {error}"))
        .label_at(span, format!("looked for {}", place.display()))
}

/// A file, mapped into memory, with its hash.
///
/// # Errors
/// As [`read`].
pub(super) fn map(folder: &Path, path: &str, span: Option<Span>) -> Result<(Buffer, Hashed), Problem> {
    let found = find(folder, path, span)?;
    let broken = |error: io::Error| unreadable(path, &found, span, &error);
    // Not through the mapping, whose pages would all count as this process's.
    let hashed = Hashed::stream(path, &found, &|| false).map_err(broken)?.expect("never cancelled");
    Ok((mapped(&found).map_err(broken)?, hashed))
}

/// The bytes of a file, mapped into memory.
pub(super) fn mapped(place: &Path) -> io::Result<Buffer> {
    let file = File::open(place)?;
    if file.metadata()?.len() == 0 {
        return Ok(Buffer::from_vec(Vec::<u8>::new())); // nothing can be mapped
    }
    // SAFETY: the mapping is read only. Another program could write to the file or cut it off meanwhile, as it could
    // for every program that maps data; arrow files are written once, and a changed one is found by its hash.
    #[allow(unsafe_code)]
    let map = Arc::new(unsafe { memmap2::Mmap::map(&file)? });
    let start = NonNull::new(map.as_ptr().cast_mut()).expect("a mapping has an address");
    // SAFETY: the buffer lives as long as the mapping, which it owns; its length is that of the mapping.
    #[allow(unsafe_code)]
    Ok(unsafe { Buffer::from_custom_allocation(start, map.len(), map.clone()) })
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
