//! `hift fmt`

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use similar::TextDiff;

use super::{Failure, folder_of, print, read, source};
use crate::lang::{self, Source, Sources};
use crate::problem::{Fault, Problem, Problems};

#[derive(Debug, clap::Args)]
pub struct Format {
    /// Pipeline files, or folders with such files; `-` reads from standard input and writes to standard output
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write nothing; name the files that would change, and end with 65 if there is one
    #[arg(long)]
    check: bool,
    /// Write nothing; show what would change, line by line
    #[arg(long)]
    diff: bool,
}

impl Format {
    pub fn run(self) -> Result<(), Failure> {
        let mut files: Vec<PathBuf> = Vec::new();
        for file in &self.files {
            match file.is_dir() {
                true => files.extend(pipelines_in(file)?),
                false => files.push(file.clone()),
            }
        }
        let mut faults: Vec<Fault> = Vec::new();
        let mut n_changed = 0;
        for file in &files {
            match self.format(file) {
                Ok(changes) => n_changed += usize::from(changes),
                Err(failure) if files.len() == 1 => return Err(failure),
                Err(failure) => {
                    failure.print();
                    faults.push(failure.problems.fault());
                }
            }
        }
        let of_files = |n: usize| match files.len() {
            1 => "the file".to_owned(),
            n_files => format!("{n} of {n_files} files"),
        };
        let mut problems = Problems::default();
        if let Some(fault) = faults.first() {
            let what = format!("{} could not be formatted", of_files(faults.len()));
            problems.push(Problem::of(*fault, "hift::cli::fmt", what).help("see above for the reasons"));
        }
        if self.check && n_changed > 0 {
            let is = if n_changed == 1 { "is" } else { "are" };
            let what = format!("{} {is} not in the layout of the language", of_files(n_changed));
            problems
                .push(Problem::new("hift::cli::layout", what).help("`hift fmt` without `--check` writes it"));
        }
        match problems.has_errors() {
            true => Err(Failure::of(problems, &Sources::default())),
            false => Ok(()),
        }
    }

    /// Formats one file, or says what would change; whether anything does.
    fn format(&self, file: &Path) -> Result<bool, Failure> {
        let is_stdin = file == Path::new("-");
        let source = if is_stdin { standard_input()? } else { read(file)? };
        let formatted = lang::format(&source.text).map_err(|problems| {
            let mut sources = Sources::default();
            sources.push(source.clone());
            Failure::of(problems, &sources)
        })?;
        let changes = formatted != source.text;
        if self.diff {
            if changes {
                print(&diff(&source, &formatted))?;
            }
        } else if is_stdin && !self.check {
            print(&formatted)?;
        } else if changes {
            if !self.check {
                replace(file, &formatted)?;
            }
            print(&format!("{}\n", source.name))?;
        }
        Ok(changes)
    }
}

fn standard_input() -> Result<Source, Failure> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).map_err(|error| {
        let what = format!("standard input cannot be read: {error}");
        Problem::of(Fault::Missing, "hift::cli::no_pipeline", what).help("pipe a pipeline file into it")
    })?;
    Ok(source("standard input", bytes)?)
}

/// The `.hift` files of a folder and of the folders in it, in the order of their names. Hidden folders and links to
/// folders are left out.
fn pipelines_in(folder: &Path) -> Result<Vec<PathBuf>, Problem> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(inner) = folders.pop() {
        let entries = fs::read_dir(&inner).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(|error| {
            let what = format!("{} cannot be read: {error}", inner.display());
            Problem::of(Fault::Missing, "hift::cli::no_pipeline", what).help("name files that can be read")
        })?;
        for entry in entries {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            let path = entry.path();
            if is_folder && !is_hidden {
                folders.push(path);
            } else if !is_folder && path.extension().is_some_and(|extension| extension == "hift") {
                files.push(path);
            }
        }
    }
    if files.is_empty() {
        let what = format!("{} has no pipeline file in it", folder.display());
        return Err(Problem::of(Fault::Missing, "hift::cli::no_pipeline", what)
            .help("name a folder with files that end in `.hift`"));
    }
    files.sort();
    Ok(files)
}

/// What changes, as `diff -u` and `git diff` show it.
fn diff(source: &Source, formatted: &str) -> String {
    // A long file in which every line changes would take minutes; then the diff is right, but not the shortest.
    let diff =
        TextDiff::configure().timeout(Duration::from_millis(500)).diff_lines(source.text.as_str(), formatted);
    diff.unified_diff().header(&source.name, &source.name).to_string()
}

/// Writes a file anew, beside it first: it is there, whole, at all times. Its permissions and its owner stay.
///
/// # Errors
/// When it cannot be written (73).
fn replace(path: &Path, text: &str) -> Result<(), Problem> {
    let unwritable = |error: io::Error| {
        let what = format!("{} cannot be written: {error}", path.display());
        Problem::of(Fault::Output, "hift::cli::unwritable", what)
            .help("allow writing to it and to its folder, or see the changes with `--diff`")
    };
    // Where the path is a link, the file that it leads to is written.
    let file = fs::canonicalize(path).map_err(unwritable)?;
    let old = fs::metadata(&file).map_err(unwritable)?;
    // Renaming asks for the folder's permission only.
    if old.permissions().readonly() {
        return Err(unwritable(io::Error::new(io::ErrorKind::PermissionDenied, "it is read-only")));
    }
    let write = || -> io::Result<()> {
        let mut beside = tempfile::Builder::new().prefix(".hift-fmt-").tempfile_in(folder_of(&file))?;
        beside.write_all(text.as_bytes())?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt, fchown};
            // Only an administrator can write another one's file to this place, and may give it back.
            let _ = fchown(beside.as_file(), Some(old.uid()), Some(old.gid()));
        }
        beside.as_file().set_permissions(old.permissions())?;
        beside.as_file().sync_all()?;
        beside.persist(&file).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(unwritable)
}
