//! SIGINT and SIGTERM ask a run to write a checkpoint and stop; a second one ends it at once.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use signal_hook::consts::{SIGINT, SIGTERM};

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Starts to listen.
pub fn listen() {
    let asked = ASKED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        // The second one finds the flag set and ends the process; the order of the two calls matters.
        let second = signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, asked.clone());
        let first = signal_hook::flag::register(signal, asked.clone());
        second.and(first).expect("SIGINT and SIGTERM can be caught");
    }
}

/// Whether a signal has come.
pub fn interrupted() -> bool {
    ASKED.get().is_some_and(|asked| asked.load(Relaxed))
}
