//! Files of a revision, `REV:PATH` as git writes it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Machine;
use crate::lang::Outside;
use crate::problem::{Fault, Problem};

/// A file at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub revision: String,
    /// As written: from the work tree's top, or from where one is if it begins with `./` or `../`.
    pub path: String,
}

impl Object {
    /// What `HEAD~1:pipelines/x.hift` names; None if it is no such name.
    pub fn parse(name: &str) -> Option<Self> {
        let (revision, path) = name.split_once(':')?;
        // `C:\x` is a path, and what begins with a dash would be an option.
        let is_drive = revision.len() == 1 && path.starts_with(['\\', '/']);
        let is_name = !path.is_empty() && !is_drive && !revision.starts_with('-');
        is_name.then(|| Self { revision: revision.to_string(), path: path.to_string() })
    }

    /// Where the file lies in the work tree, or would lie.
    ///
    /// # Errors
    /// Outside a work tree (66).
    pub fn place(&self) -> Result<PathBuf, Problem> {
        if self.path.starts_with("./") || self.path.starts_with("../") {
            return Ok(PathBuf::from(&self.path));
        }
        // How to get from here to the top keeps paths in messages short.
        let up = self.git(["rev-parse", "--show-cdup"])?;
        let up = String::from_utf8_lossy(&up);
        Ok(PathBuf::from(up.trim_end_matches(['\n', '\r'])).join(&self.path))
    }

    /// What the file holds.
    ///
    /// # Errors
    /// When there is no such revision or file, or no git (66).
    pub fn read(&self) -> Result<Vec<u8>, Problem> {
        self.git(["cat-file", "blob", &format!("{}:{}", self.revision, self.path)])
    }

    fn git<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Vec<u8>, Problem> {
        let name = format!("{}:{}", self.revision, self.path);
        let arguments = arguments.into_iter().map(OsStr::new);
        let output = Command::new("git").args(arguments).output().map_err(|error| {
            Problem::of(
                Fault::Missing,
                "hift::cli::no_git",
                format!("{name} is looked for with git, which cannot be started: {error}"),
            )
            .help("install git, or name a file, a run directory or a plan.json")
        })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or_default().trim_start_matches("fatal: ");
        Err(Problem::of(
            Fault::Missing,
            "hift::cli::no_revision",
            format!("git does not find {name}: {said}"),
        )
        .help("write REV:PATH with the path from the top of the work tree, or REV:./PATH from here"))
    }
}

/// What a file of a revision imports: files of the same revision, for as long as they lie in the work tree. The
/// environment is today's.
#[derive(Debug)]
pub struct Revision(pub String);

impl Outside for Revision {
    fn read(&self, path: &Path) -> Result<String, String> {
        if path.is_absolute() {
            return Machine::default().read(path);
        }
        let object = Object { revision: self.0.clone(), path: format!("./{}", path.display()) };
        let bytes = object.read().map_err(|problem| problem.message)?;
        String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".into())
    }

    fn env(&self, name: &str) -> Option<String> {
        Machine::default().env(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_revisions() {
        let check = |name: &str, expected: Option<(&str, &str)>| {
            let object = Object::parse(name);
            let parts = object.as_ref().map(|object| (object.revision.as_str(), object.path.as_str()));
            assert_eq!(parts, expected, "{name}");
        };
        check("HEAD~1:pipelines/x.hift", Some(("HEAD~1", "pipelines/x.hift")));
        check("main:./x.hift", Some(("main", "./x.hift")));
        // The index.
        check(":x.hift", Some(("", "x.hift")));
        check("x.hift", None);
        check("HEAD:", None);
        check("C:\\x.hift", None);
        check("--output=x:y", None);
    }
}
