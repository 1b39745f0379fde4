//! Room on disk, asked for before it is needed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::plan::StagePlan;
use crate::problem::{Fault, Problem};
use crate::units::Bytes;

use super::directory::is_finished;
use super::{Order, export};

/// Makes sure, before anything is trained, that what the plan says will be written has room: all checkpoints that are
/// kept and the one that is written beside them, the exports, and what rests on disk. What lies in the run directory
/// already counts; of a run that is done, nothing comes to rest any more.
///
/// # Errors
/// When a file system has less room than that (73). Where it cannot be asked, writing will tell.
pub fn check(order: &Order<'_>) -> Result<(), Problem> {
    // A file system, a folder on it, what is to be written there.
    let mut wanted: Vec<(u64, PathBuf, Bytes)> = Vec::new();
    let targets = export::targets(order);
    let mut targets = targets.iter();
    let mut add = |place: &Path, bytes: Bytes| {
        let Some(device) = standing(place).and_then(|folder| Some(fs::metadata(folder).ok()?.dev())) else {
            return;
        };
        match wanted.iter_mut().find(|(known, ..)| *known == device) {
            Some((_, _, sum)) => *sum += bytes,
            None => wanted.push((device, place.to_path_buf(), bytes)),
        }
    };
    let scratch: Bytes = order.estimate.stages.iter().map(|stage| stage.scratch).sum();
    for (stage, estimate) in order.plan.stages.iter().zip(&order.estimate.stages) {
        let (place, bytes) = match stage {
            StagePlan::Train(plan) => (order.directory.as_path(), estimate.disk * plan.checkpoints_at_once()),
            StagePlan::Export(_) => {
                (targets.next().expect("each export has a target").as_path(), estimate.disk)
            }
            StagePlan::Evaluate(_) | StagePlan::Generate(_) => continue,
        };
        add(place, bytes);
    }
    if scratch > Bytes(0) && !is_finished(&order.directory) {
        add(order.scratch(), scratch);
    }
    let there = Bytes(used(&order.directory.join("checkpoints")));
    for (_, place, bytes) in wanted {
        let bytes = if place == order.directory { Bytes(bytes.0.saturating_sub(there.0)) } else { bytes };
        require(&place, bytes, "the plan writes").map_err(|mut problem| {
            if scratch > Bytes(0) {
                let what = format!("; {scratch} of it, at the most, for what rests on disk");
                problem.message += &what;
                problem = problem.help(
                    "free some space, name another folder with `--dir` or `to`, another one for what rests on disk with \
                     `--scratch`, or keep fewer checkpoints with `keep`",
                );
            }
            problem
        })?;
    }
    Ok(())
}

/// Makes sure that `bytes` have room where `place` is or is to be.
///
/// # Errors
/// When they have not (73).
pub fn require(place: &Path, bytes: Bytes, what: &str) -> Result<(), Problem> {
    let Some(free) = standing(place).and_then(|folder| fs4::available_space(folder).ok()) else {
        return Ok(());
    };
    if bytes.0 <= free {
        return Ok(());
    }
    Err(Problem::of(
        Fault::Output,
        "hift::run::no_space",
        format!("{what} {bytes} to {}, where {} are free", place.display(), Bytes(free)),
    )
    .help("free some space, name another folder with `--dir` or `to`, or keep fewer checkpoints with `keep`"))
}

/// The nearest folder above that is there.
fn standing(place: &Path) -> Option<&Path> {
    place.ancestors().find(|folder| folder.exists()).or(Some(Path::new(".")))
}

/// Bytes of all files below a folder; links are not followed.
fn used(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => used(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_refused_and_says_how_much_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("not/yet/there");
        assert_eq!(require(&place, Bytes(1 << 10), "a checkpoint takes"), Ok(()));
        let problem = require(&place, Bytes(1 << 60), "a checkpoint takes").unwrap_err();
        assert_eq!(problem.fault, Fault::Output);
        assert!(problem.message.starts_with("a checkpoint takes 1024.00 PiB to "), "{problem}");
        assert!(problem.message.ends_with(" are free"), "{problem}");
    }

    #[test]
    fn files_are_added_up() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/b"), [0; 10]).unwrap();
        fs::write(folder.path().join("c"), [0; 5]).unwrap();
        std::os::unix::fs::symlink("a", folder.path().join("d")).unwrap();
        let link = fs::symlink_metadata(folder.path().join("d")).unwrap().len();
        assert_eq!(used(folder.path()), 15 + link);
        assert_eq!(used(&folder.path().join("nowhere")), 0);
    }
}
