//! The run directory: what was run, with what, and how it went.
//!
//! ```text
//! pipeline.hift    the file as it was run, parameters applied
//! plan.json        the plan and its estimate
//! hift.lock        hashes of data, tokenizer and weights, and the program's version
//! metrics.jsonl    a line a step
//! events.jsonl     start, audit, evaluate, checkpoint, interrupt, export, finish, with times
//! checkpoints/     weights, states, position
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fs4::fs_std::FileExt;
use serde_json::{Value as Json, json};

use crate::data::Hashed;
use crate::problem::{Fault, Problem};

use super::checkpoint::{self, Point};
use super::watch::{StepReport, Watch};
use super::{Order, Resume, unwritable};

/// An open run directory. The lock is held until this is dropped, or the process ends in whatever way.
pub struct RunDirectory {
    pub path: PathBuf,
    metrics: File,
    metrics_bytes: u64,
    events: File,
    /// Held, not read.
    _lock: File,
}

/// What was found where the run directory is to be.
pub enum Opened {
    /// This very run, finished.
    Finished,
    /// With the checkpoints to go on from, oldest first.
    Ready { directory: RunDirectory, points: Vec<Point> },
}

impl RunDirectory {
    /// Opens, takes up or makes the run directory.
    ///
    /// # Errors
    /// When another run holds it (75), it holds another pipeline's run (65), or it cannot be written (73).
    pub fn open(order: &Order<'_>, watch: &mut dyn Watch) -> Result<Opened, Problem> {
        let path = &order.directory;
        let io = |error: std::io::Error| unwritable(path, &error);
        fs::create_dir_all(path).map_err(io)?;
        let mut lock = take_lock(path)?;
        let plan = json!({ "plan": order.plan, "estimate": order.estimate });
        let written = fs::read_to_string(path.join("plan.json")).ok();
        let written: Option<Json> = written.and_then(|text| serde_json::from_str(&text).ok());
        let mut points = Vec::new();
        if let Some(written) = written {
            if order.resume == Resume::Never {
                drop(lock);
                let aside = move_aside(path)?;
                watch.note(&format!("moved what was in {} to {}", path.display(), aside.display()));
                fs::create_dir_all(path).map_err(io)?;
                lock = take_lock(path)?;
            } else {
                let same = written.get("plan") == Some(&json!(order.plan));
                if !same {
                    return Err(Problem::new(
                        "hift::run::another_run",
                        format!("{} holds a run of another plan", path.display()),
                    )
                    .help(
                        "give this run a folder of its own with `--dir`, or start anew here with `--resume never` \
                         (what is there is moved aside)",
                    ));
                }
                if is_finished(path) {
                    return Ok(Opened::Finished);
                }
                points = checkpoint::list(path);
            }
        }
        if points.is_empty() && order.resume == Resume::Must {
            return Err(Problem::of(
                Fault::Missing,
                "hift::run::nothing_to_resume",
                format!("{} holds no checkpoint to go on from", path.display()),
            )
            .help("leave out `--resume must` to start from the beginning"));
        }
        let write = |name: &str, text: &str| write_whole(&path.join(name), text);
        write("pipeline.hift", &order.text)?;
        write("plan.json", &serde_json::to_string_pretty(&plan).expect("a plan is JSON"))?;
        let (mut metrics, events) = (append(path, "metrics.jsonl")?, append(path, "events.jsonl")?);
        // What came after the checkpoint is done again.
        let keep = points.last().map_or(0, |point| point.metrics_bytes);
        metrics.set_len(keep).map_err(io)?;
        metrics.seek(SeekFrom::End(0)).map_err(io)?;
        if let Some(point) = points.last() {
            watch.note(&format!("going on from {}", point.path.display()));
        }
        let directory =
            RunDirectory { path: path.clone(), metrics, metrics_bytes: keep, events, _lock: lock };
        Ok(Opened::Ready { directory, points })
    }

    pub fn metrics_bytes(&self) -> u64 {
        self.metrics_bytes
    }

    /// Adds a line to metrics.jsonl.
    pub fn metric(&mut self, report: &StepReport<'_>) -> Result<(), Problem> {
        let line = json!({
            "stage": report.stage,
            "step": report.step,
            "cycle": report.cycle,
            "group": report.group,
            "lr": report.rate,
            "loss": report.loss,
            "grad_norm": report.grad_norm,
            "tokens": report.tokens,
            "seconds": report.seconds,
            "device_bytes": report.memory.live.0,
            "device_peak_bytes": report.memory.peak.0,
            "host_peak_bytes": report.memory.resident.0,
        });
        let text = format!("{line}\n");
        self.metrics
            .write_all(text.as_bytes())
            .map_err(|error| unwritable(&self.path.join("metrics.jsonl"), &error))?;
        self.metrics_bytes += text.len() as u64;
        Ok(())
    }

    /// Adds a line to events.jsonl.
    pub fn event(&mut self, event: &str, what: Json) -> Result<(), Problem> {
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let mut line = json!({ "time": time, "event": event });
        if let (Some(line), Json::Object(what)) = (line.as_object_mut(), what) {
            line.extend(what);
        }
        writeln!(self.events, "{line}").map_err(|error| unwritable(&self.path.join("events.jsonl"), &error))
    }

    /// Writes hift.lock.
    pub fn write_lock(&self, files: &[Hashed]) -> Result<(), Problem> {
        let lock = json!({ "version": env!("CARGO_PKG_VERSION"), "files": files });
        let text = serde_json::to_string_pretty(&lock).expect("hashes are JSON");
        write_whole(&self.path.join("hift.lock"), &text)
    }
}

/// Takes the kernel's lock on the directory; it goes with the process, so none is ever stale.
fn take_lock(path: &Path) -> Result<File, Problem> {
    let file = path.join(".lock");
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    let mut lock = options.open(&file).map_err(|error| unwritable(&file, &error))?;
    let taken = FileExt::try_lock_exclusive(&lock).map_err(|error| unwritable(&file, &error))?;
    if !taken {
        let mut holder = String::new();
        // Who holds it is a courtesy; without it the message is still right.
        let _ = lock.read_to_string(&mut holder);
        return Err(Problem::of(
            Fault::Again,
            "hift::run::locked",
            format!("another run ({}) is at work in {}", holder.trim(), path.display()),
        )
        .help("wait for it to end, or give this run a folder of its own with `--dir`"));
    }
    lock.set_len(0)
        .and_then(|()| lock.write_all(format!("process {}", std::process::id()).as_bytes()))
        .map_err(|error| unwritable(&file, &error))?;
    Ok(lock)
}

/// Renames the directory to the first free `NAME.1`, `NAME.2`, ...
fn move_aside(path: &Path) -> Result<PathBuf, Problem> {
    let free = (1..)
        .map(|n| {
            let mut name = path.as_os_str().to_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        })
        .find(|aside| !aside.exists())
        .expect("some number is free");
    fs::rename(path, &free).map_err(|error| unwritable(&free, &error))?;
    Ok(free)
}

/// Whether the last thing that happened here was the end.
fn is_finished(path: &Path) -> bool {
    let events = fs::read_to_string(path.join("events.jsonl")).unwrap_or_default();
    let last = events.lines().next_back().and_then(|line| serde_json::from_str::<Json>(line).ok());
    last.is_some_and(|event| event["event"] == "finish")
}

/// Writes beside and renames, so that the old text is there until the new one is whole.
pub(super) fn write_whole(path: &Path, text: &str) -> Result<(), Problem> {
    let beside = path.with_extension("writing");
    fs::write(&beside, text)
        .and_then(|()| File::open(&beside)?.sync_all())
        .and_then(|()| fs::rename(&beside, path))
        .map_err(|error| unwritable(path, &error))
}

fn append(path: &Path, name: &str) -> Result<File, Problem> {
    let path = path.join(name);
    let file = OpenOptions::new().create(true).append(true).open(&path);
    file.map_err(|error| unwritable(&path, &error))
}
