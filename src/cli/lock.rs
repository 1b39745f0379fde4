//! `hift lock`

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::hub::{self, Purpose};
use super::{Failure, Machine, Sets, print, read, resolve};
use crate::lock::{Listing, Lock, Locked, beside};
use crate::problem::{Fault, Problem, Problems};
use crate::report;
use crate::run::{inputs, signals, write_whole};

#[derive(Debug, clap::Args)]
pub struct Write {
    /// The pipeline file; its lock is `NAME.lock` beside it
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Write nothing; say what is not as the lock says (exit code 65)
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    sets: Sets,
}

impl Write {
    pub fn run(self) -> Result<(), Failure> {
        signals::listen();
        let machine = Arc::new(Machine::default());
        let (sources, mut pipeline, _) = resolve(read(&self.file)?, &self.file, &self.sets, machine.clone())?;
        let failure = |problems| Failure::of(problems, &sources);
        let purpose = if self.check { Purpose::Run } else { Purpose::Lock };
        hub::settle(&mut pipeline, &self.file, purpose).map_err(failure)?;
        let mut listing = inputs::list(&pipeline, &sources, machine.variables());
        let accept = accept(&self.file, &self.sets);
        if self.check {
            let locked = Locked::read(&self.file, accept)?;
            let path = locked.path.display().to_string();
            let locked = hold(&mut listing, locked).map_err(failure)?;
            let n = locked.lock.inputs.len();
            return Ok(print(&format!("{path}: nothing has drifted, {n} inputs\n"))?);
        }
        let lock = listing.hash(&signals::interrupted).map_err(failure)?;
        let path = beside(&self.file);
        let before = known(&path)?;
        // A file that says the same already is left alone, so that build tools see no change.
        if before.as_ref() != Some(&lock) {
            write_whole(&path, &lock.text()).map_err(|problem| {
                problem.help(
                    "the lock lies beside the pipeline; choose a pipeline in a folder that may be written",
                )
            })?;
        }
        Ok(print(&report::lock::written(&path.display().to_string(), before.as_ref(), &lock))?)
    }
}

/// The lock that is there, if it can be read.
///
/// # Errors
/// When the file is no lock at all, such as that of another program (73).
fn known(path: &Path) -> Result<Option<Lock>, Problem> {
    let Ok(bytes) = fs::read(path) else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    match Lock::parse(&text) {
        Ok(lock) => Ok(Some(lock)),
        // One that a merge has spoiled, or of another version, is written anew.
        Err(_) if text.contains("\"hift\"") => Ok(None),
        Err(_) => Err(Problem::of(
            Fault::Output,
            "hift::lock::not_ours",
            format!("{} is there already and is not a lock of this program", path.display()),
        )
        .help("move it away, or give the pipeline another name")),
    }
}

/// Makes sure that all inputs are as the lock says, and keeps the hashes.
///
/// # Errors
/// What has drifted (65), or cannot be read (66).
pub(crate) fn hold(listing: &mut Listing, locked: Locked) -> Result<Locked, Problems> {
    let now = listing.hash(&signals::interrupted)?;
    locked.check(&now, listing)?;
    listing.remember(&now.hashes());
    Ok(locked)
}

/// The command that accepts what is there now.
pub(crate) fn accept(file: &Path, sets: &Sets) -> String {
    let profiles = sets.profiles.iter().map(|name| format!(" --profile {name}"));
    let sets = sets.set.iter().map(|(name, value)| format!(" --set {name}={value}"));
    format!("hift lock {}{}", file.display(), profiles.chain(sets).collect::<String>())
}
