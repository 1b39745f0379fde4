//! Plans are made beside the conversation: a thread plans what was last asked for, and drops what is out of date.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::lang::Pipeline;
use crate::problem::Problems;

use super::Machine;
use super::hints::{StageHint, summary};

/// How long it waits for the next stroke of a key before it plans.
const PAUSE: Duration = Duration::from_millis(120);

struct Job {
    path: PathBuf,
    revision: u64,
    pipeline: Pipeline,
}

/// What came of a plan.
#[derive(Debug, Clone, Default)]
pub struct Planned {
    pub path: PathBuf,
    /// The reading that it was made from.
    pub revision: u64,
    pub problems: Problems,
    pub stages: Vec<StageHint>,
}

/// The thread that plans.
pub struct Worker {
    jobs: Sender<Job>,
    /// For each pipeline, the reading that counts.
    newest: Arc<Mutex<HashMap<PathBuf, u64>>>,
    pub answers: Receiver<Planned>,
}

impl Worker {
    /// With `rows`, rows are read and counted.
    pub fn new(machine: Machine, rows: bool) -> Self {
        let (jobs, waiting) = unbounded();
        let (send, answers) = unbounded();
        let newest = Arc::new(Mutex::new(HashMap::new()));
        let known = newest.clone();
        // It ends with the program: a plan that nobody waits for is not waited for.
        thread::spawn(move || work(&machine, rows, &waiting, &send, &known));
        Self { jobs, newest, answers }
    }

    /// Asks for a plan. What was asked before for this pipeline no longer counts; without a pipeline, that is all.
    pub fn ask(&self, path: PathBuf, revision: u64, pipeline: Option<&Pipeline>) {
        newest(&self.newest, |newest| newest.insert(path.clone(), revision));
        if let Some(pipeline) = pipeline {
            // The thread lives as long as this.
            let _ = self.jobs.send(Job { path, revision, pipeline: pipeline.clone() });
        }
    }
}

fn newest<T>(shared: &Mutex<HashMap<PathBuf, u64>>, look: impl FnOnce(&mut HashMap<PathBuf, u64>) -> T) -> T {
    // Every state of the table is whole.
    look(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
}

fn work(
    machine: &Machine,
    rows: bool,
    waiting: &Receiver<Job>,
    answers: &Sender<Planned>,
    shared: &Mutex<HashMap<PathBuf, u64>>,
) {
    while let Ok(job) = waiting.recv() {
        let mut jobs = vec![job];
        while let Ok(job) = waiting.recv_timeout(PAUSE) {
            jobs.retain(|other| other.path != job.path);
            jobs.push(job);
        }
        for Job { path, revision, pipeline } in jobs {
            let is_late = || newest(shared, |newest| newest.get(&path).is_some_and(|own| *own != revision));
            if is_late() {
                continue;
            }
            let planned = catch_unwind(AssertUnwindSafe(|| (machine.plan)(&pipeline, rows, &is_late)));
            // What panicked has told stderr; the editor goes on without a plan.
            let (problems, plan) = planned.unwrap_or_default();
            let stages = plan.map_or_else(Vec::new, |(plan, estimate)| summary(&pipeline, &plan, &estimate));
            if !is_late() && answers.send(Planned { path, revision, problems, stages }).is_err() {
                return;
            }
        }
    }
}
