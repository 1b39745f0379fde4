//! SIGINT, SIGTERM and SIGHUP ask a run to write a checkpoint and stop; a second one ends it at once.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Starts to listen.
pub fn listen() {
    let asked = ASKED.get_or_init(Arc::default);
    // Under `nohup` a terminal that goes away is to be ignored, and this must not undo it.
    let hang_up = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    for signal in [SIGINT, SIGTERM].into_iter().chain(hang_up) {
        // The second one finds the flag set and ends the process; the order of the two calls matters.
        let second = signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, asked.clone());
        let first = signal_hook::flag::register(signal, asked.clone());
        second.and(first).expect("these signals can be caught");
    }
}

/// Whether this process was started with the signal ignored; where that cannot be known, yes.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Whether a signal has come.
pub fn interrupted() -> bool {
    ASKED.get().is_some_and(|asked| asked.load(Relaxed))
}
