//! What asks a run to write a checkpoint and stop: SIGINT, SIGTERM, SIGUSR1 and SIGHUP, or a time that is up. A second
//! signal ends it at once.
//!
//! Every loop asks [`interrupted`]. The end of the time is counted on the monotonic clock: a clock that is set anew
//! neither ends a run nor lengthens it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
/// The first signal that came.
static SIGNAL: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
static END: OnceLock<(Instant, Cause)> = OnceLock::new();
/// Milliseconds that a run needs to stop in good order.
static RESERVE: AtomicU64 = AtomicU64::new(0);

/// Why a run was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Signal(i32),
    /// `--max-time`
    MaxTime,
    /// The time that Slurm gives the job.
    JobEnd,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Signal(SIGHUP) => f.write_str("SIGHUP"),
            Cause::Signal(SIGINT) => f.write_str("SIGINT"),
            Cause::Signal(SIGTERM) => f.write_str("SIGTERM"),
            Cause::Signal(SIGUSR1) => f.write_str("SIGUSR1"),
            Cause::Signal(other) => write!(f, "signal {other}"),
            Cause::MaxTime => f.write_str("the time of --max-time is up"),
            Cause::JobEnd => f.write_str("the job's time is up (SLURM_JOB_END_TIME)"),
        }
    }
}

/// Starts to listen.
pub fn listen() {
    let asked = ASKED.get_or_init(Arc::default);
    let which = SIGNAL.get_or_init(Arc::default);
    // Under `nohup` a terminal that goes away is to be ignored, and this must not undo it.
    let hang_up = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    for signal in [SIGINT, SIGTERM, SIGUSR1].into_iter().chain(hang_up) {
        // The second one finds the flag set and ends the process; the order of the calls matters.
        let second = signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, asked.clone());
        let name = signal_hook::flag::register_usize(signal, which.clone(), signal.unsigned_abs() as usize);
        let first = signal_hook::flag::register(signal, asked.clone());
        second.and(name).and(first).expect("these signals can be caught");
    }
}

/// Ends the run in time: `max_time` from now on, or when Slurm ends the job, whichever comes first.
pub fn end_within(max_time: Option<Duration>, job_end: Option<Duration>) {
    let now = Instant::now();
    let ends = [(max_time, Cause::MaxTime), (job_end, Cause::JobEnd)];
    let ends = ends.into_iter().filter_map(|(left, cause)| Some((now.checked_add(left?)?, cause)));
    if let Some(end) = ends.min_by_key(|(at, _)| *at) {
        END.get_or_init(|| end);
    }
}

/// How long Slurm lets the job of this process run, by the variable that it sets: seconds since 1970.
pub fn job_time(variable: Option<&str>) -> Option<Duration> {
    let end = UNIX_EPOCH + Duration::from_secs(variable?.trim().parse().ok()?);
    Some(end.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Asks for so much time before the end, to stop in good order: a step and a checkpoint. The most that was asked for
/// counts.
pub fn reserve(time: Duration) {
    RESERVE.fetch_max(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Relaxed);
}

/// Whether this process was started with the signal ignored; where that cannot be known, yes.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Whether the run is to stop.
pub fn interrupted() -> bool {
    ASKED.get().is_some_and(|asked| asked.load(Relaxed)) || time_is_up()
}

fn time_is_up() -> bool {
    let left = END.get().map(|(end, _)| end.saturating_duration_since(Instant::now()));
    left.is_some_and(|left| left <= Duration::from_millis(RESERVE.load(Relaxed)))
}

/// Why the run is to stop, if it is.
pub fn cause() -> Option<Cause> {
    if ASKED.get().is_some_and(|asked| asked.load(Relaxed)) {
        let signal = SIGNAL.get().map_or(0, |which| which.load(Relaxed));
        return Some(Cause::Signal(i32::try_from(signal).unwrap_or(0)));
    }
    END.get().filter(|_| time_is_up()).map(|(_, cause)| *cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_job_is_read_from_its_variable() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let left = job_time(Some(&(now + 600).to_string())).unwrap();
        assert!((598..=600).contains(&left.as_secs()), "{left:?}");
        assert_eq!(job_time(Some("1000")), Some(Duration::ZERO), "long ago");
        assert_eq!(job_time(Some("soon")), None);
        assert_eq!(job_time(None), None);
    }
}
