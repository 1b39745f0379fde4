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
    /// Folders that are a repository at a commit: where they are, how they are called, the commit.
    pub repositories: Vec<(PathBuf, String, String)>,
}

impl Listing {
    /// How a path stands in a lock, the same on every machine; and the commit, for a file of a repository.
    fn named(&self, path: String) -> (String, Option<String>) {
        let found = self.repositories.iter().find_map(|(folder, name, commit)| {
            let own = Path::new(&path).strip_prefix(folder).ok()?;
            Some((format!("{name}/{}", own.display()), Some(commit.clone())))
        });
        found.unwrap_or((path, None))
    }

    /// Adds a file unless it is there.
    pub fn add(&mut self, file: Wanted) {
        if !self.files.iter().any(|known| known.path == file.path) {
            self.files.push(file);
        }
    }

    /// Remembers hashes of files that have been read.
    pub fn remember<'h>(&mut self, hashes: impl IntoIterator<Item = &'h Hashed>) {
        for hashed in hashes {
            let is_it =
                |file: &Wanted| file.path == hashed.path || self.named(file.path.clone()).0 == hashed.path;
            if let Some(at) = self.files.iter().position(is_it) {
                let path = self.files[at].path.clone();
                self.files[at].hashed = Some(Hashed { path, ..hashed.clone() });
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
                    let (path, revision) = self.named(path);
                    inputs.push(Input { role: file.role, path, revision, bytes, sha256 });
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
        self.files.iter().find(|file| self.named(file.path.clone()).0 == path)?.span
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

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn input(role: Role, path: &str, text: &str) -> Input {
        let Hashed { path, sha256, bytes } = Hashed::of(path, text.as_bytes());
        Input { role, path, revision: None, bytes, sha256 }
    }

    fn lock(params: &[(&str, &str)], inputs: Vec<Input>) -> Lock {
        let params = params.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string()));
        Lock { schema: SCHEMA, hift: "0.1.0".to_string(), params: params.collect(), inputs }
    }

    #[test]
    fn a_lock_has_a_line_an_input() {
        let mut weights = input(Role::Weights, "org/model.safetensors", "");
        weights.revision = Some("5f0b02c7".to_string());
        let lock = lock(
            &[("peak", "1e-5"), ("what", "\"a\"")],
            vec![input(Role::Data, "rows.jsonl", "abc"), weights],
        );
        let text = lock.text();
        // The hashes of "abc" and of nothing: FIPS 180-2, appendix B.1, and `sha256sum /dev/null`.
        expect![[r#"
            {
              "schema": 1,
              "hift": "0.1.0",
              "params": {
                "peak": "1e-5",
                "what": "\"a\""
              },
              "inputs": [
                { "role": "data", "path": "rows.jsonl", "bytes": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
                { "role": "weights", "path": "org/model.safetensors", "revision": "5f0b02c7", "bytes": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" }
              ]
            }
        "#]]
        .assert_eq(&text);
        assert_eq!(Lock::parse(&text).as_ref(), Ok(&lock));
        let empty = Lock { inputs: vec![], params: BTreeMap::new(), ..lock };
        assert_eq!(Lock::parse(&empty.text()), Ok(empty));
    }

    #[test]
    fn what_is_no_lock_is_refused() {
        let check = |text: &str, expected: &str| {
            let what = Lock::parse(text).unwrap_err();
            assert!(what.contains(expected), "{what}");
        };
        check("<<<<<<< HEAD\n{}", "expected value");
        check("{}", "missing field");
        check(r#"{"schema": 2}"#, "it has schema 2, and this program knows 1");
        let more = lock(&[], vec![]).text().replace("\"hift\"", "\"extra\": 1, \"hift\"");
        check(&more, "unknown field `extra`");
    }

    #[test]
    fn drift_is_told_input_by_input() {
        let old = || vec![input(Role::Pipeline, "p.hift", "p"), input(Role::Data, "rows.jsonl", "abc")];
        let check = |params: &[(&str, &str)], inputs: Vec<Input>, expected: &[&str]| {
            let mut now = lock(params, inputs);
            // Another version alone is no drift.
            now.hift = "9.9.9".to_string();
            let drifts = lock(&[("a", "1"), ("b", "2")], old()).drift(&now);
            assert_eq!(drifts.iter().map(Drift::to_string).collect::<Vec<_>>(), expected);
        };
        let params = [("a", "1"), ("b", "2")];
        check(&params, old(), &[]);
        check(
            &[("a", "3"), ("c", "4")],
            old(),
            &["param `a` was 1, is 3", "param `b` was 2, is not there", "param `c` was not there, is 4"],
        );
        let mut changed = old();
        changed[1] = input(Role::Data, "rows.jsonl", "abd");
        let was = "data `rows.jsonl` was 3 B, sha256 ba7816bf8f01, is 3 B, sha256 a52d159f262b";
        check(&params, changed, &[was]);
        let mut moved = old();
        moved[1].path = "other.jsonl".to_string();
        check(
            &params,
            moved,
            &["data `other.jsonl` is new: 3 B, sha256 ba7816bf8f01", "data `rows.jsonl` is no longer read"],
        );
        let mut pinned = old();
        pinned[0].revision = Some("5f0b".to_string());
        check(
            &params,
            pinned,
            &["pipeline `p.hift` was 1 B, sha256 148de9c5a7a4, is 1 B, sha256 148de9c5a7a4, 5f0b"],
        );
    }

    #[cfg(feature = "run")]
    #[test]
    fn files_are_hashed_unless_their_hash_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = |role, path: &str| Wanted {
            role,
            path: path.to_string(),
            place: folder.path().join(path),
            span: None,
            hashed: None,
        };
        // More than one buffer.
        let large = vec![7; (5 << 19) + 3];
        fs::write(folder.path().join("w"), &large).unwrap();
        fs::write(folder.path().join("d"), "abc").unwrap();
        let mut listing = Listing::default();
        for file in [wanted(Role::Weights, "w"), wanted(Role::Data, "d"), wanted(Role::Config, "d")] {
            listing.add(file);
        }
        let lock = listing.hash(&|| false).unwrap();
        let inputs = |lock: &Lock| lock.inputs.iter().map(|i| (i.role, i.path.clone())).collect::<Vec<_>>();
        assert_eq!(inputs(&lock), [(Role::Data, "d".to_string()), (Role::Weights, "w".to_string())]);
        assert_eq!(lock.hashes()[1], Hashed::of("w", &large));
        assert_eq!(listing.hash(&|| true).unwrap_err().fault(), Fault::Again);
        fs::remove_file(folder.path().join("w")).unwrap();
        let problems = listing.hash(&|| false).unwrap_err();
        assert_eq!(problems.fault(), Fault::Missing);
        assert!(problems.0[0].message.starts_with("`w` cannot be read"), "{problems}");
        listing.remember(&lock.hashes());
        assert_eq!(listing.hash(&|| true).unwrap(), lock);
    }
}
