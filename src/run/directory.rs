//! The run directory: what was run, with what, and how it went.
//!
//! ```text
//! pipeline.hift    what was run: every value and where it came from; paths start from here
//! plan.json        the plan and its estimate
//! hift.lock        every input by content, and the program's version
//! metrics.jsonl    a line a step
//! events.jsonl     start, audit, evaluate, samples, checkpoint, interrupt, export, finish, with times
//! checkpoints/     weights, states, position
//! tensorboard/     the same figures for TensorBoard, where it is asked for
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value as Json, json};

use crate::lang::resolved::seen_from;
use crate::lock::{Drift, Lock};
use crate::problem::{Fault, Problem};

use super::checkpoint::{self, Point};
use super::identity::{self, Kinship, Placed};
use super::tensorboard::{self, TensorBoard};
use super::watch::{StepReport, Watch};
use super::{Order, Resume, export, hold, unwritable};

/// An open run directory. The lock is held until this is dropped, or the process ends in whatever way.
pub struct RunDirectory {
    pub path: PathBuf,
    metrics: File,
    metrics_bytes: u64,
    events: File,
    events_bytes: u64,
    tensorboard: Option<TensorBoard>,
    /// What is taken up is of this very plan.
    same: bool,
    /// Seconds that the slowest checkpoint of this call has taken.
    pub(super) slowest_save: f64,
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
        let mut lock = take_lock(path, order.wait, &mut |text| watch.note(text))?;
        checkpoint::sweep(path);
        let mut news = News::default();
        let known = path.join("plan.json").exists() || !checkpoint::list(path).whole.is_empty();
        let mut points = Vec::new();
        if known && order.resume == Resume::Never {
            drop(lock);
            let aside = move_aside(path)?;
            watch.note(&format!("moved what was in {} to {}", path.display(), aside.display()));
            fs::create_dir_all(path).map_err(io)?;
            lock = take_lock(path, order.wait, &mut |text| watch.note(text))?;
        } else if known {
            match take_up(order, inputs, &mut news)? {
                None => return Ok(Opened::Finished),
                Some(found) => points = found,
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
        // What is there says the same, and where its values come from.
        if !news.same || !path.join("pipeline.hift").exists() {
            write_whole(&path.join("pipeline.hift"), &order.text)?;
            let plan = serde_json::to_string_pretty(&plan_json(order)).expect("a plan is JSON");
            write_whole(&path.join("plan.json"), &plan)?;
        }
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
        let mut directory = RunDirectory {
            path: path.clone(),
            metrics,
            metrics_bytes: keep,
            events,
            events_bytes,
            tensorboard: None,
            same: news.same,
            slowest_save: 0.0,
            _lock: lock,
        };
        if order.tensorboard {
            directory.show_in_tensorboard()?;
        }
        for what in news.damaged {
            watch.warn(&what);
            directory.event("damaged", json!({ "message": what }))?;
        }
        for what in news.changed {
            watch.note(&what);
            directory.event("changed", json!({ "message": what }))?;
        }
        if let Some(point) = points.last() {
            watch.note(&format!("going on from {}", point.path.display()));
        }
        Ok(Opened::Ready { directory, points })
    }

    pub fn metrics_bytes(&self) -> u64 {
        self.metrics_bytes
    }

    /// Takes away the lines of metrics.jsonl that came after a checkpoint: the steps are made again.
    pub fn rewind(&mut self, metrics_bytes: u64) -> Result<(), Problem> {
        self.metrics_bytes = self.metrics_bytes.min(metrics_bytes);
        let cut = self.metrics.set_len(self.metrics_bytes);
        cut.map_err(|error| unwritable(&self.path.join("metrics.jsonl"), &error))?;
        if self.tensorboard.is_some() { self.show_in_tensorboard() } else { Ok(()) }
    }

    /// Begins a file for TensorBoard with what there is.
    fn show_in_tensorboard(&mut self) -> Result<(), Problem> {
        let folder = self.path.join(tensorboard::FOLDER);
        let begun = TensorBoard::of(&self.path).map_err(|error| unwritable(&folder, &error))?;
        self.tensorboard = Some(begun);
        Ok(())
    }

    fn tell_tensorboard(
        &mut self,
        tell: impl FnOnce(&mut TensorBoard) -> std::io::Result<()>,
    ) -> Result<(), Problem> {
        let Some(board) = &mut self.tensorboard else { return Ok(()) };
        tell(board).map_err(|error| unwritable(&board.path, &error))
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
        if report.memory.reserved.0 > 0 {
            line["device_reserved_bytes"] = report.memory.reserved.0.into();
        }
        if let Some(scale) = report.loss_scale {
            line["loss_scale"] = scale.into();
        }
        let text = format!("{line}\n");
        add_line(&mut self.metrics, &mut self.metrics_bytes, &text)
            .map_err(|error| unwritable(&self.path.join("metrics.jsonl"), &error))?;
        self.tell_tensorboard(|board| board.metric(&line))
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
            .map_err(|error| unwritable(&self.path.join("events.jsonl"), &error))?;
        self.tell_tensorboard(|board| board.event(&line))
    }

    /// Writes hift.lock. That of the same run stays: its paths start where those of plan.json do.
    pub fn write_lock(&self, lock: &Lock) -> Result<(), Problem> {
        let path = self.path.join("hift.lock");
        if self.same && path.exists() { Ok(()) } else { write_whole(&path, &lock.text()) }
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

/// Whether another run is at work here, before anything else is done; waits for it to end, at the most `wait`. The
/// lock itself is taken later.
///
/// # Errors
/// When another run holds the lock (75).
pub fn check_free(path: &Path, wait: Duration, told: &mut dyn FnMut(&str)) -> Result<(), Problem> {
    if path.join(LOCK).exists() { take_lock(path, wait, told).map(drop) } else { Ok(()) }
}

/// What was found out about a run that is there.
#[derive(Debug, Default)]
struct News {
    /// It is of this very plan.
    same: bool,
    damaged: Vec<String>,
    changed: Vec<String>,
}

/// The checkpoints of the run that is there, oldest first; None where it is this run, finished.
///
/// # Errors
/// When it is another run (65), or what it exported is gone for good (66).
fn take_up(order: &Order<'_>, inputs: &Lock, news: &mut News) -> Result<Option<Vec<Point>>, Problem> {
    let path = &order.directory;
    let another = |what: String| {
        Problem::new("hift::run::another_run", what).help(
            "give this run a folder of its own with `--dir`, or start anew here with `--new` (what is there is \
             moved aside)",
        )
    };
    let read = |text: &str| serde_json::from_str::<Json>(text).ok();
    let Some(written) = fs::read_to_string(path.join("plan.json")).ok().as_deref().and_then(read) else {
        let what = "holds a run, but its plan.json cannot be read";
        return Err(another(format!("{} {what}", path.display())));
    };
    // Both go through the same reader, which need not give back every last bit of a number.
    let plan = read(&plan_json(order).to_string()).expect("a plan is JSON");
    let folder = path.join(written["folder"].as_str().unwrap_or("."));
    let old = Placed { plan: &written["plan"], folder: &folder };
    let new = Placed { plan: &plan["plan"], folder: &order.folder };
    match identity::compare(&old, &new) {
        Kinship::Same => news.same = true,
        Kinship::Harmless(changed) => news.changed.push(format!("changed: {}", changed.join(", "))),
        Kinship::Another => {
            return Err(another(format!("{} holds a run of another plan", path.display())));
        }
    }
    if let Some(what) = changed_input(path, &folder, inputs, &order.folder) {
        return Err(another(format!("{what} since the run in {} began", path.display())));
    }
    let finished = is_finished(path);
    let gone = export::targets(order).into_iter().find(|to| !to.exists());
    if finished && gone.is_none() {
        return Ok(None);
    }
    let points = checkpoint::sound(path, &mut |what| news.damaged.push(what))?;
    match gone.filter(|_| finished) {
        None => {}
        Some(gone) if points.is_empty() => {
            let (path, gone) = (path.display(), gone.display());
            let what = format!("{path} holds this run, finished, but {gone} is gone");
            return Err(Problem::of(Fault::Missing, "hift::run::export_gone", what)
                .help("no checkpoint is left to export from: start anew with `--new`"));
        }
        Some(gone) => news.changed.push(format!("{} is gone and is written again", gone.display())),
    }
    Ok(Some(points))
}

/// `plan.json`: the plan, its estimate, and the folder of the pipeline as seen from the run directory, where the
/// plan's paths start.
fn plan_json(order: &Order<'_>) -> Json {
    let (folder, directory) = (export::resolved(&order.folder), export::resolved(&order.directory));
    let folder = seen_from(&directory, &folder, ".");
    json!({ "plan": order.plan, "estimate": order.estimate, "folder": folder })
}

/// A file that is not what it was when the run began. The pipeline's own text may say the same in other words: the
/// plan tells.
fn changed_input(path: &Path, folder: &Path, inputs: &Lock, inputs_from: &Path) -> Option<String> {
    let lock = fs::read_to_string(path.join("hift.lock")).ok()?;
    let lock = identity::renamed(Lock::parse(&lock).ok()?, folder, inputs, inputs_from);
    let drift = lock.drift(inputs).into_iter().find(Drift::is_input)?;
    Some(match &drift {
        Drift::Param { name, .. } => format!("param `{name}` has changed"),
        Drift::Changed { is, .. } => format!("`{}` has changed", is.path),
        Drift::New(is) => format!("`{}` is read and has come to be there", is.path),
        Drift::Gone(was) => format!("`{}` is no longer read", was.path),
    })
}

const LOCK: &str = ".lock";

/// Which process is at work in a run directory, if any is.
pub fn holder(path: &Path) -> Option<String> {
    hold::holder(&path.join(LOCK))
}

fn take_lock(path: &Path, wait: Duration, told: &mut dyn FnMut(&str)) -> Result<File, Problem> {
    let at = format!("at work in {}", path.display());
    hold::take(&path.join(LOCK), &at, "give this run a folder of its own with `--dir`", wait, told)
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
pub(super) fn is_finished(path: &Path) -> bool {
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
