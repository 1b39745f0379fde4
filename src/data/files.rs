//! Files that a dataset is made from, each with its hash.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::problem::{Fault, Problem, Span};

/// A file as it was when it was read, for the lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hashed {
    /// As written in the pipeline.
    pub path: String,
    /// In lowercase hexadecimal.
    pub sha256: String,
    pub bytes: u64,
}

impl Hashed {
    fn of(path: &str, bytes: &[u8]) -> Self {
        use std::fmt::Write;
        let mut sha256 = String::with_capacity(64);
        for byte in Sha256::digest(bytes) {
            let _ = write!(sha256, "{byte:02x}");
        }
        Self { path: path.to_owned(), sha256, bytes: bytes.len() as u64 }
    }
}

/// Reads a file whose path stands in the pipeline at `span`, relative to `folder`.
///
/// # Errors
/// Exit code 66: names the path as written and where it was looked for.
pub(super) fn read(folder: &Path, path: &str, span: Option<Span>) -> Result<(Vec<u8>, Hashed), Problem> {
    let place = folder.join(path);
    let found = std::path::absolute(&place).unwrap_or(place);
    let problem = |code, message| Problem::of(Fault::Missing, code, message);
    if found.is_dir() {
        return Err(problem("hift::data::unreadable", format!("`{path}` is a folder, not a file"))
            .label_at(span, format!("looked for {}", found.display()))
            .help("name the file itself"));
    }
    match fs::read(&found) {
        Ok(bytes) => {
            let hashed = Hashed::of(path, &bytes);
            Ok((bytes, hashed))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(problem("hift::data::missing_file", format!("there is no file `{path}`"))
                .label_at(span, format!("looked for {}", found.display()))
                .help("paths start at the folder of the pipeline file"))
        }
        Err(error) => Err(problem("hift::data::unreadable", format!("`{path}` cannot be read: {error}"))
            .label_at(span, format!("looked for {}", found.display()))),
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
