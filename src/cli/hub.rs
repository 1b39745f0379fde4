//! What a command needs of the Hugging Face Hub, fetched before it begins.

use std::path::Path;

use crate::lang::Pipeline;
use crate::problem::Problems;

/// What a command is going to do with a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "run"), allow(dead_code, reason = "nothing runs without it"))]
pub(crate) enum Purpose {
    /// Plan, with a look at the rows or without.
    Plan { rows: bool },
    /// Run, or whatever else reads weights, too.
    Run,
    /// Lock what there is now.
    Lock,
    /// Say what can be said without the network.
    Look { rows: bool },
}

/// Sees to it that what a pipeline needs of the Hub is in the Hub's cache. The lock beside `file` says at which commits.
///
/// # Errors
/// What is not there and cannot be fetched (66), or an interruption (75).
#[cfg(feature = "run")]
pub(crate) fn settle(pipeline: &mut Pipeline, file: &Path, purpose: Purpose) -> Result<(), Problems> {
    use std::sync::Arc;

    use crate::hub::{Asked, Hub, Pins, Watch};
    use crate::lock::{self, Lock};
    use crate::run::signals;

    let asked = match purpose {
        Purpose::Plan { rows } => Asked { rows, weights: false, renew: false, online: true },
        Purpose::Run => Asked { rows: true, weights: true, renew: false, online: true },
        Purpose::Lock => Asked { rows: true, weights: true, renew: true, online: true },
        Purpose::Look { rows } => Asked { rows, weights: false, renew: false, online: false },
    };
    // A run keeps its lock beside the pipeline as it ran.
    let kept = file.with_file_name("hift.lock");
    let lock = match lock::beside(file) {
        beside if beside.exists() => beside,
        _ if file.file_name().is_some_and(|name| name == "pipeline.hift") => kept,
        beside => beside,
    };
    let lock = std::fs::read_to_string(lock).ok().and_then(|text| Lock::parse(&text).ok());
    let pins = lock.as_ref().map(Pins::of).unwrap_or_default();
    let watch: Arc<dyn Watch> = Arc::new(Bar::new());
    let hub = Hub::of_environment(|name| std::env::var_os(name));
    hub.settle(pipeline, asked, &pins, &watch, &signals::interrupted)
}

/// This program fetches nothing: what is on the Hub is told by the plan.
#[cfg(not(feature = "run"))]
pub(crate) fn settle(_: &mut Pipeline, _: &Path, _: Purpose) -> Result<(), Problems> {
    Ok(())
}

/// A bar for each file, on a terminal; nothing elsewhere.
#[cfg(feature = "run")]
struct Bar {
    shown: Option<indicatif::ProgressBar>,
}

#[cfg(feature = "run")]
impl Bar {
    fn new() -> Self {
        use std::io::IsTerminal;
        let style = indicatif::ProgressStyle::with_template(
            "{bar:24} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} · {msg}",
        );
        let bar = || {
            let bar = indicatif::ProgressBar::no_length();
            bar.with_style(style.expect("a template that is right"))
        };
        Self { shown: std::io::stderr().is_terminal().then(bar) }
    }
}

#[cfg(feature = "run")]
impl crate::hub::Watch for Bar {
    fn begins(&self, file: &str, bytes: u64) {
        if let Some(bar) = &self.shown {
            bar.set_message(format!("fetching {file}"));
            bar.set_length(bytes);
            bar.set_position(0);
        }
    }

    fn passes(&self, bytes: u64) {
        if let Some(bar) = &self.shown {
            bar.inc(bytes);
        }
    }

    fn ends(&self) {
        if let Some(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}
