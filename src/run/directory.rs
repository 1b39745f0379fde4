//! The run directory: what was run, with what, and how it went.
//!
//! ```text
//! pipeline.hift    what was run: every value and where it came from; paths start from here
//! plan.json        the plan and its estimate
//! hift.lock        every input by content, and the program's version
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

use crate::lock::{Drift, Lock};
use crate::problem::{Fault, Problem};

use super::checkpoint::{self, Point};
use super::watch::{StepReport, Watch};
use super::{Order, Resume, export, unwritable};

/// An open run directory. The lock is held until this is dropped, or the process ends in whatever way.
pub struct RunDirectory {
    pub path: PathBuf,
    metrics: File,
    metrics_bytes: u64,
    events: File,
    events_bytes: u64,
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
    /// When another run holds it (75), it holds another pipeline's run or one of other inputs (65), it is no run
    /// directory or cannot be written (73).
    pub fn open(order: &Order<'_>, inputs: &Lock, watch: &mut dyn Watch) -> Result<Opened, Problem> {
        let path = &order.directory;
        let io = |error: std::io::Error| unwritable(path, &error);
        check_ours(path)?;
        fs::create_dir_all(path).map_err(io)?;
        let mut lock = take_lock(path)?;
        checkpoint::sweep(path);
        let plan = json!({ "plan": order.plan, "estimate": order.estimate });
        let plan = serde_json::to_string_pretty(&plan).expect("a plan is JSON");
        let written = fs::read_to_string(path.join("plan.json")).ok();
        let mut points = checkpoint::list(path);
        if written.is_some() || !points.is_empty() {
            if order.resume == Resume::Never {
                drop(lock);
                let aside = move_aside(path)?;
                watch.note(&format!("moved what was in {} to {}", path.display(), aside.display()));
                fs::create_dir_all(path).map_err(io)?;
                lock = take_lock(path)?;
                points = Vec::new();
            } else {
                let another = |what: String| {
                    let problem = Problem::new("hift::run::another_run", what);
                    problem.help(
                        "give this run a folder of its own with `--dir`, or start anew here with `--resume never` \
                         (what is there is moved aside)",
                    )
                };
                // Both go through the same reader, which need not give back every last bit of a number.
                let read = |text: &str| serde_json::from_str::<Json>(text).ok()?.get("plan").cloned();
                match written.as_deref().map(read) {
                    Some(Some(written)) if Some(&written) == read(&plan).as_ref() => {}
                    Some(Some(_)) => {
                        return Err(another(format!("{} holds a run of another plan", path.display())));
                    }
                    Some(None) | None => {
                        let what = "holds a run, but its plan.json cannot be read";
                        return Err(another(format!("{} {what}", path.display())));
                    }
                }
                if let Some(what) = changed_input(path, inputs) {
                    return Err(another(format!("{what} since the run in {} began", path.display())));
                }
                if is_finished(path) {
                    let gone = export::targets(order).into_iter().find(|to| !to.exists());
                    match gone {
                        None => return Ok(Opened::Finished),
                        Some(gone) if points.is_empty() => {
                            let what = format!(
                                "{} holds this run, finished, but {} is gone",
                                path.display(),
                                gone.display()
                            );
                            return Err(Problem::of(Fault::Missing, "hift::run::export_gone", what).help(
                                "no checkpoint is left to export from: start anew with `--resume never`",
                            ));
                        }
                        Some(gone) => watch.note(&format!("{} is gone and is written again", gone.display())),
                    }
                }
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
        write("plan.json", &plan)?;
        let (mut metrics, mut events) = (append(path, "metrics.jsonl")?, append(path, "events.jsonl")?);
        // A line that was not written to its end must not spoil the next one.
        let known = fs::read(path.join("events.jsonl")).map_err(io)?;
        let events_bytes = known.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
        events.set_len(events_bytes).map_err(io)?;
        events.seek(SeekFrom::End(0)).map_err(io)?;
        // What came after the checkpoint is done again.
        let length = metrics.metadata().map_err(io)?.len();
        let keep = points.last().map_or(0, |point| point.metrics_bytes.min(length));
        metrics.set_len(keep).map_err(io)?;
        metrics.seek(SeekFrom::End(0)).map_err(io)?;
        if let Some(point) = points.last() {
            watch.note(&format!("going on from {}", point.path.display()));
        }
        let directory = RunDirectory {
            path: path.clone(),
            metrics,
            metrics_bytes: keep,
            events,
            events_bytes,
            _lock: lock,
        };
        Ok(Opened::Ready { directory, points })
    }

    pub fn metrics_bytes(&self) -> u64 {
        self.metrics_bytes
    }

    /// Adds a line to metrics.jsonl.
    pub fn metric(&mut self, report: &StepReport<'_>) -> Result<(), Problem> {
        let mut line = json!({
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
        if let Some(scale) = report.loss_scale {
            line["loss_scale"] = scale.into();
        }
        let text = format!("{line}\n");
        add_line(&mut self.metrics, &mut self.metrics_bytes, &text)
            .map_err(|error| unwritable(&self.path.join("metrics.jsonl"), &error))
    }

    /// Makes sure that the lines so far are on the disk.
    pub fn sync(&self) -> Result<(), Problem> {
        self.metrics
            .sync_all()
            .and_then(|()| self.events.sync_all())
            .map_err(|error| unwritable(&self.path.join("metrics.jsonl"), &error))
    }

    /// Adds a line to events.jsonl.
    pub fn event(&mut self, event: &str, what: Json) -> Result<(), Problem> {
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let mut line = json!({ "time": time, "event": event });
        if let (Some(line), Json::Object(what)) = (line.as_object_mut(), what) {
            line.extend(what);
        }
        add_line(&mut self.events, &mut self.events_bytes, &format!("{line}\n"))
            .map_err(|error| unwritable(&self.path.join("events.jsonl"), &error))
    }

    /// Writes hift.lock.
    pub fn write_lock(&self, lock: &Lock) -> Result<(), Problem> {
        write_whole(&self.path.join("hift.lock"), &lock.text())
    }
}

/// Adds a line whole or not at all; `length` is that of the file.
fn add_line(file: &mut File, length: &mut u64, text: &str) -> std::io::Result<()> {
    let written = file.write_all(text.as_bytes());
    match written {
        Ok(()) => *length += text.len() as u64,
        // What is left of it is cut off; where even that fails, opening the directory does it.
        Err(_) => drop(file.set_len(*length)),
    }
    written
}

/// Refuses a folder that holds something and is not a run directory: what is in it may have the names that a run uses.
fn check_ours(path: &Path) -> Result<(), Problem> {
    let empty = fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
    if empty || path.join(LOCK).exists() || path.join("plan.json").exists() {
        return Ok(());
    }
    Err(Problem::of(
        Fault::Output,
        "hift::run::not_a_run",
        format!("{} holds other things and is not a run directory", path.display()),
    )
    .help("name a new folder with `--dir`"))
}

/// Whether another run is at work here, before anything else is done. The lock itself is taken later.
///
/// # Errors
/// When another run holds the lock (75).
pub fn check_free(path: &Path) -> Result<(), Problem> {
    if path.join(LOCK).exists() { take_lock(path).map(drop) } else { Ok(()) }
}

/// A file that is not what it was when the run began. The pipeline's own text may say the same in other words: the
/// plan tells.
fn changed_input(path: &Path, inputs: &Lock) -> Option<String> {
    let lock = fs::read_to_string(path.join("hift.lock")).ok()?;
    let drifts = Lock::parse(&lock).ok()?.drift(inputs);
    let drift = drifts.into_iter().find(Drift::is_input)?;
    Some(match &drift {
        Drift::Param { name, .. } => format!("param `{name}` has changed"),
        Drift::Changed { is, .. } => format!("`{}` has changed", is.path),
        Drift::New(is) => format!("`{}` is read and has come to be there", is.path),
        Drift::Gone(was) => format!("`{}` is no longer read", was.path),
    })
}

const LOCK: &str = ".lock";

/// Takes the kernel's lock on the directory; it goes with the process, so none is ever stale.
fn take_lock(path: &Path) -> Result<File, Problem> {
    let file = path.join(LOCK);
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
pub(crate) fn write_whole(path: &Path, text: &str) -> Result<(), Problem> {
    let beside = path.with_extension("writing");
    let written = fs::write(&beside, text)
        .and_then(|()| File::open(&beside)?.sync_all())
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        let _ = fs::remove_file(&beside);
        unwritable(path, &error)
    })
}

fn append(path: &Path, name: &str) -> Result<File, Problem> {
    let path = path.join(name);
    let file = OpenOptions::new().create(true).append(true).open(&path);
    file.map_err(|error| unwritable(&path, &error))
}
