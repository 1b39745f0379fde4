//! Repositories on the Hugging Face Hub, as files in the Hub's own cache.
//!
//! ```text
//! Pipeline that says hub("org/name") ──settle──▶ Pipeline with paths into the cache, and what each name stood for
//! ```
//!
//! The cache is laid out as Hugging Face's libraries lay it out, so that all share it:
//!
//! ```text
//! CACHE/models--ORG--NAME/refs/REVISION          the commit that a branch or a tag stood for
//! CACHE/models--ORG--NAME/snapshots/COMMIT/...   its files, which are links into blobs/
//! CACHE/models--ORG--NAME/.hift/COMMIT.json      all files that the commit has; others take no notice of it
//! ```
//!
//! The network is touched only where the pipeline names a repository and the cache lacks a file that is needed. A
//! branch stays at the commit that was first fetched, or that a lock file names, until someone asks for a newer one.
//!
//! This room must not know what is in the files.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use crate::lang::Pipeline;
use crate::lang::pipeline::{
    Data, Holdout, Model, Pick, Repository, Snapshot, Source, Stage, Tokenizer, Weights,
};
use crate::lock::{Hashed, Lock};
use crate::problem::{Fault, Problem, Problems, Span};
use crate::weights;

/// A server that is silent for so long is not there.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a signal is looked for meanwhile.
const GLANCE: Duration = Duration::from_millis(20);

/// What belongs to a tokenizer, besides `tokenizer.json`.
const BESIDE_TOKENIZER: &[&str] = &[
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "config.json",
];

/// Files that rows can be read from, by how their names end.
const ROWS: &[&str] = &["parquet", "jsonl", "ndjson", "json", "csv", "tsv", "txt", "arrow"];

/// Splits, with the words that stand for them in paths.
const SPLITS: &[(&str, &[&str])] = &[
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "dev", "val"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// The Hub, and where its files are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hub {
    cache: Option<PathBuf>,
    endpoint: String,
    token: Option<String>,
    offline: bool,
}

/// What has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Rows and tokenizers; else only what a plan without rows needs.
    pub rows: bool,
    pub weights: bool,
    /// Asks what branches and tags stand for now.
    pub renew: bool,
    /// May touch the network.
    pub online: bool,
}

/// Hears what is being fetched.
pub trait Watch: Send + Sync {
    /// A file of so many bytes comes next.
    fn begins(&self, file: &str, bytes: u64);
    /// So many bytes of it have come.
    fn passes(&self, bytes: u64);
    /// All is there.
    fn ends(&self);
}

/// The two kinds of repositories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Dataset,
}

/// What is needed of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Need {
    Config,
    Weights,
    Tokenizer,
    Rows(Pick),
}

/// Commits that a lock file names, by the path of an input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins(Vec<(String, String)>);

impl Pins {
    pub fn of(lock: &Lock) -> Self {
        let pin = |input: &crate::lock::Input| Some((input.path.clone(), input.revision.clone()?));
        Self(lock.inputs.iter().filter_map(pin).collect())
    }

    fn commit(&self, kind: Kind, repository: &Repository) -> Option<&str> {
        let start = format!("{}/", label(kind, repository));
        self.0.iter().find(|(path, _)| path.starts_with(&start)).map(|(_, commit)| commit.as_str())
    }
}

/// How a repository is called where its files are: `hub:org/name@main`, `hub:datasets/org/name@main`.
fn label(kind: Kind, repository: &Repository) -> String {
    let Repository { name, revision } = repository;
    match kind {
        Kind::Model => format!("hub:{name}@{revision}"),
        Kind::Dataset => format!("hub:datasets/{name}@{revision}"),
    }
}

impl Hub {
    /// The Hub as the environment describes it, with the variables that Hugging Face's libraries know.
    pub fn of_environment(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let filled = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| filled(name).map(PathBuf::from);
        let text = |name: &str| Some(filled(name)?.to_string_lossy().trim().to_owned());
        let home = path("HF_HOME").or_else(|| {
            let caches = path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
            Some(caches?.join("huggingface"))
        });
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let token_file = path("HF_TOKEN_PATH").or_else(|| Some(home.clone()?.join("token")));
        let kept = || {
            let text = fs::read_to_string(token_file.as_ref()?).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let is_on = |name: &str| {
            text(name)
                .is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str()))
        };
        Self {
            cache: cache.or_else(|| Some(home.as_ref()?.join("hub"))),
            endpoint: text("HF_ENDPOINT").map_or_else(
                || "https://huggingface.co".to_owned(),
                |endpoint| endpoint.trim_end_matches('/').to_owned(),
            ),
            token: text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")).or_else(kept),
            offline: is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"),
        }
    }

    /// Sees to it that what a pipeline needs of the Hub is in the cache, and puts the paths of the files in the place
    /// of the names.
    ///
    /// # Errors
    /// Each repository of which something is needed that is not there and cannot be fetched, at the place that names
    /// it; or an interruption (75).
    pub fn settle(
        &self,
        pipeline: &mut Pipeline,
        asked: Asked,
        pins: &Pins,
        watch: &Arc<dyn Watch>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), Problems> {
        let mut fetching = Fetching {
            hub: self,
            asked,
            pins,
            watch,
            cancelled,
            snapshots: Vec::new(),
            problems: Problems::default(),
        };
        for stage in &mut pipeline.stages {
            match stage {
                Stage::Train(stage) => {
                    fetching.model(&mut stage.model);
                    fetching.data(&mut stage.data);
                    fetching.tokenizer(&mut stage.tokenizer);
                }
                Stage::Evaluate(stage) => {
                    fetching.model(&mut stage.model);
                    fetching.data(&mut stage.data);
                    fetching.tokenizer(&mut stage.tokenizer);
                }
                Stage::Generate(stage) => {
                    fetching.model(&mut stage.model);
                    if let Some(data) = &mut stage.data {
                        fetching.data(data);
                    }
                    fetching.tokenizer(&mut stage.tokenizer);
                }
                Stage::Export(stage) => {
                    fetching.model(&mut stage.model);
                    if let Some(tokenizer) = &mut stage.tokenizer {
                        fetching.tokenizer(tokenizer);
                    }
                }
            }
        }
        let Fetching { snapshots, problems, .. } = fetching;
        watch.ends();
        pipeline.snapshots = snapshots;
        if problems.has_errors() { Err(problems) } else { Ok(()) }
    }
}

/// One pass over a pipeline.
struct Fetching<'f> {
    hub: &'f Hub,
    asked: Asked,
    pins: &'f Pins,
    watch: &'f Arc<dyn Watch>,
    cancelled: &'f dyn Fn() -> bool,
    /// What names stood for so far, so that all parts of a pipeline see one commit.
    snapshots: Vec<Snapshot>,
    problems: Problems,
}

impl Fetching<'_> {
    fn model(&mut self, model: &mut Model) {
        let span = model.weights.span();
        let Weights::Hub { repository, commit, path } = &mut model.weights.value else { return };
        let need = if self.asked.weights { Need::Weights } else { Need::Config };
        if let Some((found, _)) = self.need(Kind::Model, repository, &need, span) {
            (*commit, *path) = (Some(found.commit), Some(found.folder));
        }
    }

    fn tokenizer(&mut self, tokenizer: &mut Tokenizer) {
        let Some(repository) = tokenizer.hub.clone().filter(|_| self.asked.rows) else { return };
        let span = tokenizer.file.span();
        if let Some((found, _)) = self.need(Kind::Model, &repository, &Need::Tokenizer, span) {
            tokenizer.file.value = Some(format!("{}/tokenizer.json", found.folder));
        }
    }

    fn data(&mut self, data: &mut Data) {
        if !self.asked.rows {
            return;
        }
        let span = data.source.span();
        self.source(&mut data.source.value, span);
        let span = data.holdout.span();
        if let Holdout::From(source) = &mut data.holdout.value {
            self.source(source, span);
        }
    }

    fn source(&mut self, source: &mut Source, span: Option<Span>) {
        match source {
            Source::Hub { repository, pick, files } => {
                let need = Need::Rows(pick.clone());
                if let Some((found, names)) = self.need(Kind::Dataset, repository, &need, span) {
                    *files = names.iter().map(|name| format!("{}/{name}", found.folder)).collect();
                }
            }
            Source::Mix { parts, .. } => parts.iter_mut().for_each(|part| self.data(&mut part.data)),
            Source::Json { .. }
            | Source::Text { .. }
            | Source::Csv { .. }
            | Source::Parquet { .. }
            | Source::Arrow { .. } => {}
        }
    }

    /// A repository as it is in the cache, and the names of the files that are needed, all there.
    fn need(
        &mut self,
        kind: Kind,
        repository: &Repository,
        need: &Need,
        span: Option<Span>,
    ) -> Option<(Snapshot, Vec<String>)> {
        match self.fetch(kind, repository, need) {
            Ok((commit, folder, names)) => {
                let folder = std::path::absolute(&folder).unwrap_or(folder).to_string_lossy().into_owned();
                let snapshot = Snapshot { label: label(kind, repository), commit, folder };
                if !self.snapshots.contains(&snapshot) {
                    self.snapshots.push(snapshot.clone());
                }
                Some((snapshot, names))
            }
            Err(problem) => {
                let problem = problem.label_at(span, "this repository");
                if !self.problems.0.contains(&problem) {
                    self.problems.push(problem);
                }
                None
            }
        }
    }

    fn fetch(
        &self,
        kind: Kind,
        repository: &Repository,
        need: &Need,
    ) -> Result<(String, PathBuf, Vec<String>), Problem> {
        let label = label(kind, repository);
        let name = &repository.name;
        let Some(cache) = &self.hub.cache else {
            return Err(Problem::of(
                Fault::Missing,
                "hift::hub::no_cache",
                format!("`{name}` has no place to be kept"),
            )
            .help("set HF_HOME to a folder, or HOME"));
        };
        let store = Store { folder: cache.join(repo(kind, repository, "main").folder_name()) };
        let seen = self.snapshots.iter().find(|snapshot| snapshot.label == label);
        let pinned = self.pins.commit(kind, repository);
        let written = &repository.revision;
        let known = match (seen, pinned) {
            (Some(seen), _) => Some(seen.commit.clone()),
            (None, Some(pinned)) if !self.asked.renew => Some(pinned.to_owned()),
            (None, _) if is_commit(written) => Some(written.clone()),
            (None, _) => store.commit(written).filter(|_| !self.asked.renew || self.hub.offline),
        };
        let is_offline = self.hub.offline || !self.asked.online;
        if let Some(commit) = &known
            && let Some(names) = store.holds(commit, need, is_offline)
        {
            return Ok((commit.clone(), store.snapshot(commit), names));
        }
        if is_offline {
            let (why, help) = match self.hub.offline {
                true => ("and HF_HUB_OFFLINE forbids fetching it", "fetch it once without HF_HUB_OFFLINE"),
                false => (
                    "and is not fetched here",
                    "`hift check FILE` fetches what planning needs, `hift run FILE` all",
                ),
            };
            let what =
                format!("{} of `{name}` at `{written}` is not in {}, {why}", need.called(), cache.display());
            return Err(Problem::of(Fault::Missing, "hift::hub::offline", what).help(help));
        }
        let link = Link::new(self, cache, kind, repository)?;
        let revision = known.as_deref().unwrap_or(written);
        let (commit, listing) =
            match known.as_deref().and_then(|commit| Some((commit, store.listing(commit)?))) {
                Some((commit, listing)) => (commit.to_owned(), listing),
                None => link.list(revision)?,
            };
        let unwritable = |error: io::Error| {
            Problem::of(
                Fault::Output,
                "hift::hub::cache",
                format!("{} cannot be written: {error}", cache.display()),
            )
            .help("set HF_HOME to a folder that may be written")
        };
        store
            .keep(
                &commit,
                &listing,
                Some(written.as_str()).filter(|_| known.is_none() && !is_commit(written)),
            )
            .map_err(unwritable)?;
        let folder = store.snapshot(&commit);
        let mut names = need.of(&listing).ok_or_else(|| need.lacks(repository, &listing))?;
        for name in &names {
            link.fetch(&commit, name, &folder)?;
        }
        if *need == Need::Weights {
            for name in shards(&folder) {
                if !listing.contains(&name) {
                    return Err(need.lacks(repository, &listing));
                }
                link.fetch(&commit, &name, &folder)?;
                names.push(name);
            }
        }
        Ok((commit, folder, names))
    }
}

/// The shards that an index of weights names, there or not.
fn shards(folder: &Path) -> Vec<String> {
    let beginning = weights::beginning(|name| folder.join(name).exists());
    let index = beginning.filter(|name| weights::is_index(name));
    let index = index.and_then(|index| fs::read(folder.join(index)).ok());
    let json: Option<serde_json::Value> = index.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let map = json.as_ref().and_then(|json| json["weight_map"].as_object());
    let mut names: Vec<String> = map
        .into_iter()
        .flat_map(|map| map.values().filter_map(|name| name.as_str().map(str::to_owned)))
        .filter(|name| is_inside(name))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Whether a path stays in its folder.
fn is_inside(name: &str) -> bool {
    !name.is_empty()
        && Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)))
}

/// Whether a revision names a commit itself.
fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn repo(kind: Kind, repository: &Repository, revision: &str) -> Repo {
    let kind = match kind {
        Kind::Model => RepoType::Model,
        Kind::Dataset => RepoType::Dataset,
    };
    Repo::with_revision(repository.name.clone(), kind, revision.to_owned())
}

impl Need {
    /// As it is called in a sentence.
    fn called(&self) -> &'static str {
        match self {
            Need::Config => "the configuration",
            Need::Weights => "a part of the weights",
            Need::Tokenizer => "the tokenizer",
            Need::Rows(_) => "a part of the rows",
        }
    }

    /// The files that are needed, out of all that there are; None where what has to be there is not. Shards of weights
    /// are known once their index is read.
    fn of(&self, listing: &[String]) -> Option<Vec<String>> {
        let has = |name: &str| listing.iter().any(|own| own == name);
        let those = |names: &[&str]| -> Vec<String> {
            names.iter().filter(|name| has(name)).map(|name| (*name).to_owned()).collect()
        };
        match self {
            Need::Config => has("config.json").then(|| those(&["config.json"])),
            Need::Weights => {
                let file = weights::beginning(has)?;
                has("config.json").then(|| those(&["config.json", "generation_config.json", file]))
            }
            Need::Tokenizer => {
                has("tokenizer.json").then(|| [those(&["tokenizer.json"]), those(BESIDE_TOKENIZER)].concat())
            }
            Need::Rows(pick) => Some(picked(pick, listing)).filter(|names| !names.is_empty()),
        }
    }

    /// The repository has not what is needed.
    fn lacks(&self, repository: &Repository, listing: &[String]) -> Problem {
        let name = &repository.name;
        let (what, help) = match self {
            Need::Config => (
                "has no `config.json`".to_owned(),
                "name a repository of a model in the form of transformers",
            ),
            Need::Weights => (
                "has no `config.json` with weights".to_owned(),
                "name a repository or a revision with `model.safetensors` or `pytorch_model.bin`, or with all shards that an index names",
            ),
            Need::Tokenizer => (
                "has no `tokenizer.json`".to_owned(),
                "name a repository with one; a fast tokenizer of transformers writes it with `save_pretrained`",
            ),
            Need::Rows(Pick::Files(pattern)) => (
                format!("has no file that matches `{pattern}` and holds rows"),
                "write `files = \"...\"` with one of its files, or a pattern of them",
            ),
            Need::Rows(Pick::Split(split)) => (
                format!("has no rows of `{split}`"),
                "write `files = \"...\"` with one of its files, or a pattern of them",
            ),
        };
        let some: Vec<String> = listing.iter().take(12).map(|name| format!("`{name}`")).collect();
        let more = if listing.len() > some.len() { ", ..." } else { "" };
        let message = format!("`{name}` {what}: its files are {}{more}", some.join(", "));
        Problem::of(Fault::Missing, "hift::hub::no_file", message).help(help)
    }
}

/// How rows of a file are written, by its name: one of [`ROWS`].
pub fn form(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    ROWS.iter().find(|form| name.strip_suffix(**form).is_some_and(|rest| rest.ends_with('.'))).copied()
}

/// The files with rows that are meant, sorted by name.
fn picked(pick: &Pick, listing: &[String]) -> Vec<String> {
    let mut rows: Vec<&String> = listing.iter().filter(|name| form(name).is_some()).collect();
    match pick {
        Pick::Files(pattern) => {
            let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
            let Ok(pattern) = glob::Pattern::new(pattern) else { return Vec::new() };
            rows.retain(|name| pattern.matches_with(name, options));
        }
        Pick::Split(split) => {
            let words_of = |split: &str| -> Vec<String> {
                let known = SPLITS.iter().find(|(_, words)| words.contains(&split));
                known.map_or_else(
                    || vec![split.to_lowercase()],
                    |(_, words)| words.iter().map(|word| (*word).to_owned()).collect(),
                )
            };
            let names = |name: &str, words: &[String]| {
                let lower = name.to_lowercase();
                lower
                    .split(|c: char| !c.is_ascii_alphabetic())
                    .any(|part| words.iter().any(|word| word == part))
            };
            let all: Vec<String> =
                SPLITS.iter().flat_map(|(_, words)| words.iter().map(|word| (*word).to_owned())).collect();
            let named = rows.iter().any(|name| names(name, &all));
            let words = words_of(split);
            // JSON files in the root describe a dataset more often than they are one.
            if named || split != "train" {
                rows.retain(|name| names(name, &words));
            } else {
                rows.retain(|name| {
                    !matches!(
                        name.as_str(),
                        "dataset_infos.json" | "dataset_info.json" | "state.json" | "dataset_dict.json"
                    )
                });
            }
        }
    }
    // A repository that has its rows in several forms has them several times.
    let count = |own: &str| rows.iter().filter(|name| form(name) == Some(own)).count();
    let most = ROWS.iter().rev().max_by_key(|own| count(own));
    if let (Pick::Split(_), Some(most)) = (pick, most) {
        rows.retain(|name| form(name) == Some(most));
    }
    let mut names: Vec<String> = rows.into_iter().cloned().collect();
    names.sort_unstable();
    names
}

/// A repository's part of the cache.
struct Store {
    folder: PathBuf,
}

impl Store {
    fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// What a branch or a tag stood for when it was fetched.
    fn commit(&self, revision: &str) -> Option<String> {
        let text = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|text| is_inside(text))
    }

    /// All files of a commit, if it was asked for them.
    fn listing(&self, commit: &str) -> Option<Vec<String>> {
        let bytes = fs::read(self.folder.join(".hift").join(format!("{commit}.json"))).ok()?;
        let names: Vec<String> = serde_json::from_slice(&bytes).ok()?;
        Some(names.into_iter().filter(|name| is_inside(name)).collect())
    }

    /// Remembers what a revision stands for, and which files there are.
    fn keep(&self, commit: &str, listing: &[String], revision: Option<&str>) -> io::Result<()> {
        let own = self.folder.join(".hift");
        fs::create_dir_all(&own)?;
        let write = |path: &Path, text: &[u8]| {
            let part = path.with_extension(format!("{}.part", std::process::id()));
            fs::write(&part, text)?;
            fs::rename(part, path)
        };
        let names = serde_json::to_vec(listing).map_err(io::Error::other)?;
        write(&own.join(format!("{commit}.json")), &names)?;
        if let Some(revision) = revision.filter(|revision| is_inside(revision)) {
            let path = self.folder.join("refs").join(revision);
            fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
            write(&path, commit.as_bytes())?;
        }
        Ok(())
    }

    /// The names of what is needed, if all of it is there. Another program may have fetched a part of a commit: what
    /// else there is, is known from the list of its files only. Where that cannot be asked for, what is there counts.
    fn holds(&self, commit: &str, need: &Need, is_offline: bool) -> Option<Vec<String>> {
        let folder = self.snapshot(commit);
        let listing = self.listing(commit);
        let is_listed = listing.is_some();
        let listing = listing.unwrap_or_else(|| files_in(&folder));
        let mut names = need.of(&listing)?;
        match need {
            Need::Config => {}
            Need::Weights => names.extend(shards(&folder)),
            Need::Tokenizer => {
                if !is_listed && !is_offline && !folder.join("tokenizer_config.json").exists() {
                    return None;
                }
            }
            Need::Rows(_) => {
                if !is_listed && !is_offline {
                    return None;
                }
            }
        }
        names.iter().all(|name| folder.join(name).exists()).then_some(names)
    }
}

/// The files below a folder, with their paths from there.
fn files_in(folder: &Path) -> Vec<String> {
    let (mut waiting, mut files) = (vec![folder.to_path_buf()], Vec::new());
    while let Some(place) = waiting.pop() {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => waiting.push(path),
                false => {
                    files.extend(path.strip_prefix(folder).ok().map(|own| own.to_string_lossy().into_owned()))
                }
            }
        }
    }
    files.sort_unstable();
    files
}

/// The way to a repository.
struct Link<'f> {
    fetching: &'f Fetching<'f>,
    api: Api,
    kind: Kind,
    repository: &'f Repository,
}

impl<'f> Link<'f> {
    fn new(
        fetching: &'f Fetching<'f>,
        cache: &Path,
        kind: Kind,
        repository: &'f Repository,
    ) -> Result<Self, Problem> {
        let hub = fetching.hub;
        let builder = ApiBuilder::from_cache(Cache::new(cache.to_path_buf()))
            .with_endpoint(hub.endpoint.clone())
            .with_token(hub.token.clone())
            .with_progress(false)
            .with_user_agent("hift", env!("CARGO_PKG_VERSION"));
        let api = builder.build().map_err(|error| unreachable(&hub.endpoint, &error.to_string()))?;
        Ok(Self { fetching, api, kind, repository })
    }

    fn repo(&self, revision: &str) -> ApiRepo {
        self.api.repo(repo(self.kind, self.repository, revision))
    }

    /// The commit that a revision stands for, and all its files.
    fn list(&self, revision: &str) -> Result<(String, Vec<String>), Problem> {
        let repo = self.repo(revision);
        let info = match self.apart(move |_| repo.info())? {
            Ok(info) => info,
            Err(error) if status(&error) == Some(404) => return Err(self.not_found(revision)?),
            Err(error) => return Err(self.refused(&error)),
        };
        let names = info.siblings.into_iter().map(|sibling| sibling.rfilename);
        let names: Vec<String> = names.filter(|name| is_inside(name)).collect();
        match is_inside(&info.sha) {
            true => Ok((info.sha, names)),
            false => Err(unreachable(&self.fetching.hub.endpoint, "it names no commit")),
        }
    }

    /// Whether it is the repository or the revision that is not there.
    fn not_found(&self, revision: &str) -> Result<Problem, Problem> {
        let Repository { name, .. } = self.repository;
        let repo = self.repo("main");
        let is_there = revision != "main" && self.apart(move |_| repo.info())?.is_ok();
        let what = match self.kind {
            Kind::Model => "model",
            Kind::Dataset => "dataset",
        };
        Ok(match is_there {
            true => Problem::of(
                Fault::Missing,
                "hift::hub::no_revision",
                format!("`{name}` has no revision `{revision}`"),
            )
            .help("write a branch, a tag or a commit of the repository; without `revision`, it is `main`"),
            false => Problem::of(
                Fault::Missing,
                "hift::hub::no_repository",
                format!("there is no {what} `{name}` at {}", self.fetching.hub.endpoint),
            )
            .help("write the name as it stands in the repository's address: `hub(\"org/name\")`"),
        })
    }

    /// Fetches a file of a commit, unless it is there. Waits for another process that is fetching it.
    fn fetch(&self, commit: &str, name: &str, folder: &Path) -> Result<(), Problem> {
        let place = folder.join(name);
        while !place.exists() {
            let (repo, own) = (self.repo(commit), name.to_owned());
            match self.apart(move |counter| repo.download_with_progress(&own, counter))? {
                Ok(_) => self.verify(&place, name)?,
                Err(ApiError::LockAcquisition(_)) => {}
                Err(ApiError::InvalidResume) => return Err(self.damaged(&place, name)),
                Err(error) => return Err(self.refused(&error)),
            }
        }
        Ok(())
    }

    /// Holds a large file against its hash, which is its name in the cache.
    fn verify(&self, place: &Path, name: &str) -> Result<(), Problem> {
        let Ok(blob) = fs::canonicalize(place) else { return Ok(()) };
        let etag = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if etag.len() != 64 || !etag.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(());
        }
        match Hashed::stream(name, &blob, self.fetching.cancelled) {
            Ok(Some(hashed)) if hashed.sha256 == etag => Ok(()),
            Ok(Some(_)) => {
                let _ = fs::remove_file(place);
                let _ = fs::remove_file(blob);
                Err(self.damage(name))
            }
            Ok(None) => Err(interrupted()),
            Err(error) => Err(unreachable(&place.display().to_string(), &error.to_string())),
        }
    }

    fn damage(&self, name: &str) -> Problem {
        let what = format!("`{name}` of `{}` did not come whole", self.repository.name);
        Problem::of(Fault::Missing, "hift::hub::damaged", what)
            .help("call the same command again; it is fetched anew")
    }

    /// What an earlier try has left is longer than the file: removes it.
    fn damaged(&self, place: &Path, name: &str) -> Problem {
        let blobs = place.ancestors().find(|folder| folder.ends_with("snapshots"));
        let blobs = blobs.and_then(Path::parent).map(|store| store.join("blobs"));
        for entry in blobs.and_then(|blobs| fs::read_dir(blobs).ok()).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "part") {
                let _ = fs::remove_file(entry.path());
            }
        }
        self.damage(name)
    }

    /// Does something on the network in a thread of its own, so that a signal is not kept waiting.
    fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(Counter) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<Result<T, ApiError>, Problem> {
        let passed = Arc::new(AtomicU64::new(0));
        let counter = Counter { passed: passed.clone(), watch: self.fetching.watch.clone() };
        let (tell, told) = channel();
        std::thread::spawn(move || tell.send(work(counter)));
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            match told.recv_timeout(GLANCE) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(unreachable(&self.fetching.hub.endpoint, "it gave no usable answer"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if (self.fetching.cancelled)() {
                return Err(interrupted());
            }
            let now = passed.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            if since.elapsed() > PATIENCE {
                let what = format!("nothing came for {} seconds", PATIENCE.as_secs());
                return Err(unreachable(&self.fetching.hub.endpoint, &what));
            }
        }
    }

    /// What an error of the network means.
    fn refused(&self, error: &ApiError) -> Problem {
        let (name, hub) = (&self.repository.name, self.fetching.hub);
        match (status(error), error) {
            (Some(code @ (401 | 403)), _) => {
                let what = format!("{} does not let `{name}` be read ({code})", hub.endpoint);
                Problem::of(Fault::Missing, "hift::hub::denied", what).help(match hub.token {
                    Some(_) => "see whether the token may read it, and whether its terms were accepted on its page; a name that is wrong is answered like this, too",
                    None => "set HF_TOKEN to a token that may read it; a name that is wrong is answered like this, too",
                })
            }
            (Some(code), _) => unreachable(&hub.endpoint, &format!("it answers {code}")),
            (None, ApiError::IoError(error)) if is_of_disk(error) => Problem::of(
                Fault::Output,
                "hift::hub::cache",
                format!("the Hub's cache cannot be written: {error}"),
            )
            .help("set HF_HOME to a folder that may be written, on a disk with room"),
            (None, error) => unreachable(&hub.endpoint, &error.to_string()),
        }
    }
}

fn is_of_disk(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::PermissionDenied
            | Kind::StorageFull
            | Kind::ReadOnlyFilesystem
            | Kind::QuotaExceeded
            | Kind::NotADirectory
    )
}

/// The status of an answer that is not what was hoped for.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(code) => Some(code),
            _ => None,
        },
        _ => None,
    }
}

fn unreachable(endpoint: &str, why: &str) -> Problem {
    Problem::of(Fault::Missing, "hift::hub::unreachable", format!("{endpoint} cannot be asked: {why}"))
        .help("see whether the network is there; what was fetched once needs none")
}

fn interrupted() -> Problem {
    Problem::of(Fault::Again, "hift::hub::interrupted", "interrupted while fetching from the Hub")
        .help("call the same command again; what has come is kept")
}

/// Counts what comes, and says so.
struct Counter {
    passed: Arc<AtomicU64>,
    watch: Arc<dyn Watch>,
}

impl Progress for Counter {
    fn init(&mut self, size: usize, filename: &str) {
        self.passed.fetch_add(1, Ordering::Relaxed);
        self.watch.begins(filename, size as u64);
    }

    fn update(&mut self, size: usize) {
        self.passed.fetch_add(size as u64 + 1, Ordering::Relaxed);
        self.watch.passes(size as u64);
    }

    fn finish(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_split_are_found_by_their_names() {
        let check = |listing: &[&str], pick: Pick, expected: &[&str]| {
            let listing: Vec<String> = listing.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(picked(&pick, &listing), expected, "{pick:?} of {listing:?}");
        };
        let split = |name: &str| Pick::Split(name.to_owned());
        let files = |pattern: &str| Pick::Files(pattern.to_owned());
        let parquet = [
            "README.md",
            "data/train-00001-of-00002.parquet",
            "data/train-00000-of-00002.parquet",
            "data/validation-00000-of-00001.parquet",
            "dataset_infos.json",
        ];
        check(
            &parquet,
            split("train"),
            &["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
        );
        check(&parquet, split("valid"), &["data/validation-00000-of-00001.parquet"]);
        check(&parquet, split("test"), &[]);
        check(&parquet, files("data/v*"), &["data/validation-00000-of-00001.parquet"]);
        check(&parquet, files("*.parquet"), &[]); // `*` stays in a folder
        check(&parquet, files("**/*.md"), &[]); // no rows
        // Without names of splits, everything is `train`; what describes a dataset is none of its rows.
        check(
            &["rows.jsonl.gz", "more.jsonl", "dataset_infos.json"],
            split("train"),
            &["more.jsonl", "rows.jsonl.gz"],
        );
        check(&["rows.jsonl"], split("dev"), &[]);
        // A word inside another one is not meant.
        check(&["constraints.csv", "a_train.csv"], split("train"), &["a_train.csv"]);
        // The same rows in two forms are read once.
        check(&["train.csv", "train.parquet"], split("train"), &["train.parquet"]);
        check(&["own/de.txt", "own/en.txt"], split("own"), &["own/de.txt", "own/en.txt"]);
    }

    #[test]
    fn the_environment_says_where_and_who() {
        let check = |variables: &[(&str, &str)], cache: Option<&str>, token: Option<&str>, offline: bool| {
            let hub = Hub::of_environment(|name| {
                variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).into())
            });
            assert_eq!(
                (hub.cache.as_deref(), hub.token.as_deref(), hub.offline),
                (cache.map(Path::new), token, offline),
                "{variables:?}"
            );
        };
        check(&[], None, None, false);
        check(&[("HOME", "/h")], Some("/h/.cache/huggingface/hub"), None, false);
        check(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], Some("/x/huggingface/hub"), None, false);
        check(&[("HOME", "/h"), ("HF_HOME", "/f"), ("HF_TOKEN", " t\n")], Some("/f/hub"), Some("t"), false);
        check(
            &[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c"), ("HF_HUB_OFFLINE", "YES")],
            Some("/c"),
            None,
            true,
        );
        check(&[("HF_HUB_OFFLINE", "0")], None, None, false);
    }
}
