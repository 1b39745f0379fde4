//! What a pipeline's inputs are, by content: the files that it reads, each with its hash, and what has drifted since.
//!
//! ```text
//! Listing ──hash──▶ Lock ──text──▶ NAME.lock beside NAME.hift, hift.lock in a run directory
//!                    Lock ──drift(Lock)──▶ [Drift]
//! ```
//!
//! Both files have one form: JSON with a line an input, in a fixed order, so that a version control system shows
//! what changed. The program's version stands in it to be read; another version alone is no drift.
//!
//! This room must not know what is in the files, nor which ones a pipeline reads: `run::inputs` lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::problem::{Fault, Problem, Problems, Span};
use crate::units::Bytes;

/// The version of a lock file's form.
pub const SCHEMA: u32 = 1;

/// A file as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hashed {
    /// As written in the pipeline.
    pub path: String,
    /// In lowercase hexadecimal.
    pub sha256: String,
    pub bytes: u64,
}

impl Hashed {
    pub fn of(path: &str, bytes: &[u8]) -> Self {
        Self { path: path.to_owned(), sha256: hexadecimal(&Sha256::digest(bytes)), bytes: bytes.len() as u64 }
    }

    /// A file that is too large to be held in memory; None once `cancelled` says yes.
    pub fn stream(path: &str, file: &Path, cancelled: &dyn Fn() -> bool) -> io::Result<Option<Self>> {
        let mut file = fs::File::open(file)?;
        let (mut digest, mut bytes) = (Sha256::new(), 0);
        let mut buffer = vec![0; 1 << 20];
        loop {
            if cancelled() {
                return Ok(None);
            }
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    digest.update(&buffer[..n]);
                    bytes += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Self { path: path.to_owned(), sha256: hexadecimal(&digest.finalize()), bytes }))
    }
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What an input is to the pipeline. Inputs stand in a lock in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The pipeline's own text, and what it imports.
    Pipeline,
    Data,
    /// A `tokenizer.json` and what belongs to it: its configuration, its chat template.
    Tokenizer,
    /// A model's `config.json`.
    Config,
    Weights,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Pipeline => "pipeline",
            Role::Data => "data",
            Role::Tokenizer => "tokenizer",
            Role::Config => "config",
            Role::Weights => "weights",
        })
    }
}

/// A file that a pipeline reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub role: Role,
    /// As written in the pipeline, or as it follows from what is written there.
    pub path: String,
    /// Where it is.
    pub place: PathBuf,
    /// Where the pipeline asks for it.
    pub span: Option<Span>,
    /// Its hash, where the bytes are at hand.
    pub hashed: Option<Hashed>,
}

/// Everything that decides what a pipeline computes, before it is hashed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Parameters as they apply, and the variables of the environment that are asked for.
    pub params: Vec<(String, String)>,
    /// Each path once.
    pub files: Vec<Wanted>,
}

impl Listing {
    /// Adds a file unless it is there.
    pub fn add(&mut self, file: Wanted) {
        if !self.files.iter().any(|known| known.path == file.path) {
            self.files.push(file);
        }
    }

    /// Remembers hashes of files that have been read.
    pub fn remember<'h>(&mut self, hashes: impl IntoIterator<Item = &'h Hashed>) {
        for hashed in hashes {
            if let Some(file) = self.files.iter_mut().find(|file| file.path == hashed.path) {
                file.hashed = Some(hashed.clone());
            }
        }
    }

    /// Hashes what is not hashed yet, several files at a time.
    ///
    /// # Errors
    /// Files that cannot be read, all of them (66), or an interruption (75).
    #[cfg(feature = "run")]
    pub fn hash(&self, cancelled: &(dyn Fn() -> bool + Sync)) -> Result<Lock, Problems> {
        use rayon::prelude::*;

        let read = |file: &Wanted| match &file.hashed {
            Some(hashed) => Ok(Some(hashed.clone())),
            None => Hashed::stream(&file.path, &file.place, &|| cancelled()),
        };
        let hashed: Vec<_> = self.files.par_iter().map(read).collect();
        let (mut problems, mut inputs) = (Problems::default(), Vec::new());
        for (file, hashed) in self.files.iter().zip(hashed) {
            match hashed {
                Ok(Some(Hashed { path, sha256, bytes })) => {
                    inputs.push(Input { role: file.role, path, revision: None, bytes, sha256 });
                }
                Ok(None) => return Err(interrupted().into()),
                Err(error) => {
                    let place = std::path::absolute(&file.place).unwrap_or_else(|_| file.place.clone());
                    let text = format!("`{}` cannot be read: {error}", file.path);
                    problems.push(
                        Problem::of(Fault::Missing, "hift::lock::unreadable", text)
                            .label_at(file.span, format!("looked for {}", place.display()))
                            .help("paths start at the folder of the pipeline file"),
                    );
                }
            }
        }
        if problems.has_errors() {
            return Err(problems);
        }
        inputs.sort_by(|a, b| (a.role, &a.path).cmp(&(b.role, &b.path)));
        let hift = env!("CARGO_PKG_VERSION").to_string();
        Ok(Lock { schema: SCHEMA, hift, params: self.params.iter().cloned().collect(), inputs })
    }

    /// Where the pipeline asks for a path.
    fn span(&self, path: &str) -> Option<Span> {
        self.files.iter().find(|file| file.path == path)?.span
    }
}

#[cfg(feature = "run")]
fn interrupted() -> Problem {
    Problem::of(Fault::Again, "hift::lock::interrupted", "interrupted while hashing the inputs")
        .help("call the same command again")
}

/// An input, by content.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    pub role: Role,
    /// From the folder of the pipeline.
    pub path: String,
    /// For an input out of a repository: the commit that it is taken from. Files have none.
    #[serde(default)]
    pub revision: Option<String>,
    pub bytes: u64,
    /// In lowercase hexadecimal.
    pub sha256: String,
}

impl Input {
    /// `401.20 KiB, sha256 3fa9c1d2e4b5`
    pub fn content(&self) -> String {
        let revision = self.revision.as_ref().map_or(String::new(), |revision| format!(", {revision}"));
        let sha256: String = self.sha256.chars().take(12).collect();
        format!("{}, sha256 {sha256}{revision}", Bytes(self.bytes))
    }
}

/// Every input of a pipeline, by content.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    pub schema: u32,
    /// The version of the program that wrote it.
    pub hift: String,
    /// Parameters as they apply, and the variables of the environment that are asked for.
    pub params: BTreeMap<String, String>,
    /// In the order of role and path.
    pub inputs: Vec<Input>,
}

/// What is not as a lock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    Param {
        name: String,
        was: Option<String>,
        is: Option<String>,
    },
    Changed {
        was: Input,
        is: Input,
    },
    /// Is read, and was not.
    New(Input),
    /// Was read, and is not.
    Gone(Input),
}

impl Drift {
    /// Whether it is about a file other than the pipeline's text.
    pub fn is_input(&self) -> bool {
        match self {
            Drift::Param { .. } => false,
            Drift::Changed { is: input, .. } | Drift::New(input) | Drift::Gone(input) => {
                input.role != Role::Pipeline
            }
        }
    }

    /// What it is about: a path, or a parameter's name.
    pub fn name(&self) -> &str {
        match self {
            Drift::Param { name, .. } => name,
            Drift::Changed { is: input, .. } | Drift::New(input) | Drift::Gone(input) => &input.path,
        }
    }
}

/// One line: what, and how it was and is.
impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "not there".to_string());
        match self {
            Drift::Param { name, was, is } => {
                write!(f, "param `{name}` was {}, is {}", value(was), value(is))
            }
            Drift::Changed { was, is } => {
                write!(f, "{} `{}` was {}, is {}", is.role, is.path, was.content(), is.content())
            }
            Drift::New(is) => write!(f, "{} `{}` is new: {}", is.role, is.path, is.content()),
            Drift::Gone(was) => write!(f, "{} `{}` is no longer read", was.role, was.path),
        }
    }
}

impl Lock {
    /// The hashes of its inputs.
    pub fn hashes(&self) -> Vec<Hashed> {
        let hashed = |input: &Input| Hashed {
            path: input.path.clone(),
            sha256: input.sha256.clone(),
            bytes: input.bytes,
        };
        self.inputs.iter().map(hashed).collect()
    }

    /// The lock that a text is, or what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let json: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match json["schema"].as_u64() {
            Some(schema) if schema != u64::from(SCHEMA) => {
                return Err(format!("it has schema {schema}, and this program knows {SCHEMA}"));
            }
            Some(_) | None => {}
        }
        serde_json::from_value(json).map_err(|error| error.to_string())
    }

    /// The lock as it stands in a file: a line an input.
    pub fn text(&self) -> String {
        let mut lines = vec![
            "{".to_string(),
            format!("  \"schema\": {},", self.schema),
            format!("  \"hift\": {},", json(&self.hift)),
        ];
        let mut block = |open: &str, entries: Vec<String>, close: &str| match entries.as_slice() {
            [] => lines.push(format!("  {open}{close}")),
            entries => {
                lines.push(format!("  {open}"));
                lines.push(format!("    {}", entries.join(",\n    ")));
                lines.push(format!("  {close}"));
            }
        };
        let param = |(name, value): (&String, &String)| format!("{}: {}", json(name), json(value));
        block("\"params\": {", self.params.iter().map(param).collect(), "},");
        let input = |input: &Input| {
            let Input { role, path, revision, bytes, sha256 } = input;
            let revision =
                revision.as_ref().map_or(String::new(), |r| format!("\"revision\": {}, ", json(r)));
            let (role, path, sha256) = (json(role), json(path), json(sha256));
            format!(
                "{{ \"role\": {role}, \"path\": {path}, {revision}\"bytes\": {bytes}, \"sha256\": {sha256} }}"
            )
        };
        block("\"inputs\": [", self.inputs.iter().map(input).collect(), "]");
        lines.push("}".to_string());
        lines.join("\n") + "\n"
    }

    /// What of `now` is not as this lock says. The program's version is not asked for.
    pub fn drift(&self, now: &Lock) -> Vec<Drift> {
        let mut drifts = Vec::new();
        let names: BTreeSet<&String> = self.params.keys().chain(now.params.keys()).collect();
        for name in names {
            let (was, is) = (self.params.get(name).cloned(), now.params.get(name).cloned());
            if was != is {
                drifts.push(Drift::Param { name: name.clone(), was, is });
            }
        }
        for is in &now.inputs {
            match self.inputs.iter().find(|was| was.path == is.path) {
                None => drifts.push(Drift::New(is.clone())),
                Some(was) if (&was.sha256, &was.revision) != (&is.sha256, &is.revision) => {
                    drifts.push(Drift::Changed { was: was.clone(), is: is.clone() });
                }
                Some(_) => {}
            }
        }
        let gone = self.inputs.iter().filter(|was| !now.inputs.iter().any(|is| is.path == was.path));
        drifts.extend(gone.cloned().map(Drift::Gone));
        drifts
    }
}

/// The lock file of a pipeline, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    pub lock: Lock,
    pub path: PathBuf,
    /// The command that accepts what is there now.
    pub accept: String,
}

impl Locked {
    /// Reads the lock beside a pipeline.
    ///
    /// # Errors
    /// When there is none (66), or it is not a lock or one of another version (65). The help says how to write it.
    pub fn read(pipeline: &Path, accept: String) -> Result<Self, Problem> {
        let path = beside(pipeline);
        let text = fs::read_to_string(&path).map_err(|error| {
            let text = match error.kind() {
                io::ErrorKind::NotFound => format!("there is no {}", path.display()),
                _ => format!("{} cannot be read: {error}", path.display()),
            };
            Problem::of(Fault::Missing, "hift::lock::missing", text).help(format!("`{accept}` writes it"))
        })?;
        match Lock::parse(&text) {
            Ok(lock) => Ok(Self { lock, path, accept }),
            Err(what) => {
                let text = format!("{} is not a lock file: {what}", path.display());
                Err(Problem::new("hift::lock::broken", text).help(format!("`{accept}` writes it anew")))
            }
        }
    }

    /// Makes sure that `now` is what the lock says.
    ///
    /// # Errors
    /// Every drift, at the place that asks for the input (65).
    pub fn check(&self, now: &Lock, listing: &Listing) -> Result<(), Problems> {
        let mut problems = Problems::default();
        for drift in self.lock.drift(now) {
            let span = listing.span(drift.name()).filter(|_| drift.is_input());
            problems.push(
                Problem::new("hift::lock::drift", drift.to_string())
                    .label_at(span, format!("not as {} says", self.path.display())),
            );
        }
        let Some(last) = problems.0.last_mut() else { return Ok(()) };
        let version = match self.lock.hift == now.hift {
            true => String::new(),
            false => format!("; the lock was written by hift {}, this is {}", self.lock.hift, now.hift),
        };
        let accept = &self.accept;
        last.help =
            Some(format!("put back what it was, or accept what is there now with `{accept}`{version}"));
        Err(problems)
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("what a lock holds is JSON")
}

/// The lock file of a pipeline: `NAME.lock` beside `NAME.hift`.
pub fn beside(pipeline: &Path) -> PathBuf {
    pipeline.with_extension("lock")
}
