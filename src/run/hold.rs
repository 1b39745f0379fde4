//! Kernel locks on files: who holds one works alone. They go with the process in whatever way it ends, so none is ever
//! stale.
//!
//! The file says who holds it. A run holds one in its directory; whatever else must not be shared, such as a device,
//! is held in the same way.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use fs4::fs_std::FileExt;

use crate::problem::{Fault, Problem};

use super::{signals, unwritable};

/// How often a lock is asked for again.
const POLL: Duration = Duration::from_millis(50);

/// So long a lock is asked for in any case: whoever looks who holds it has it for a moment.
const GRACE: Duration = Duration::from_millis(200);

/// Takes the lock `file`, which is made if it is not there; `at` is what it guards, in words: `at work in runs/a`.
/// Where another process holds it, waits until it is free, at the most `wait`; `told` hears once that it waits.
/// `otherwise`: what one can do instead of waiting.
///
/// # Errors
/// When it is still held then, or a signal comes while waiting (75).
pub fn take(
    file: &Path,
    at: &str,
    otherwise: &str,
    wait: Duration,
    told: &mut dyn FnMut(&str),
) -> Result<File, Problem> {
    let began = Instant::now();
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    // In a folder of all users a system may refuse to make a file that is there already and another user's.
    let open = || match options.open(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            options.clone().create(true).truncate(false).open(file)
        }
        known => known,
    };
    let mut waits = false;
    loop {
        let mut lock = open().map_err(|error| unwritable(file, &error))?;
        if FileExt::try_lock_exclusive(&lock).map_err(|error| unwritable(file, &error))? {
            let who = format!("process {}{}, since {}", std::process::id(), host(), now());
            lock.set_len(0)
                .and_then(|()| lock.write_all(who.as_bytes()))
                .map_err(|error| unwritable(file, &error))?;
            return Ok(lock);
        }
        // Who holds it is a courtesy; without it the message is still right.
        let mut holder = String::new();
        let _ = lock.read_to_string(&mut holder);
        let what = format!("another run ({}) is {at}", holder.trim());
        if signals::interrupted() {
            return Err(Problem::of(
                Fault::Again,
                "hift::run::interrupted",
                format!("interrupted while waiting: {what}"),
            )
            .help("call the same command again"));
        }
        if began.elapsed() >= wait.max(GRACE) {
            return Err(Problem::of(Fault::Again, "hift::run::locked", what)
                .help(format!("wait for it to end, with `--wait 30m` if you like, or {otherwise}")));
        }
        if !wait.is_zero() && !std::mem::replace(&mut waits, true) {
            told(&format!("{what}; waiting for it to end"));
        }
        std::thread::sleep(POLL);
    }
}

/// Holds the device whose UUID is given, for all users of the machine, until the file is dropped.
///
/// # Errors
/// As [`take`].
pub fn device(uuid: &str, number: u32, wait: Duration, told: &mut dyn FnMut(&str)) -> Result<File, Problem> {
    let file = std::env::temp_dir().join(format!("hift-{uuid}.lock"));
    let lock = take(
        &file,
        &format!("at work on cuda({number})"),
        "take another device with `device = cuda(N)`",
        wait,
        told,
    )?;
    // Other users take the same lock. Where that cannot be said, it is theirs already.
    #[cfg(unix)]
    let _ = std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o666));
    Ok(lock)
}

/// Who holds the lock `file`, if anybody does.
pub fn holder(file: &Path) -> Option<String> {
    let mut lock = File::open(file).ok()?;
    if FileExt::try_lock_shared(&lock).unwrap_or(true) {
        return None;
    }
    let mut holder = String::new();
    lock.read_to_string(&mut holder).ok()?;
    Some(holder.trim().to_string())
}

/// ` on NAME`, where the system says what it is called.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { String::new() } else { format!(" on {}", name.trim()) }
}

fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_held_for_all_runs_of_the_machine() {
        let uuid = format!("GPU-of-a-test-{}", std::process::id());
        let ask = || device(&uuid, 1, Duration::ZERO, &mut |_| {});
        let first = ask().unwrap();
        let problem = ask().unwrap_err();
        assert_eq!(problem.fault, Fault::Again);
        assert!(problem.message.ends_with("is at work on cuda(1)"), "{problem}");
        drop(first);
        ask().unwrap();
        std::fs::remove_file(std::env::temp_dir().join(format!("hift-{uuid}.lock"))).unwrap();
    }

    #[test]
    fn one_holds_and_the_others_hear_who_or_wait() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lock");
        let ask = |wait: u64, told: &mut dyn FnMut(&str)| {
            take(&file, "at work here", "go elsewhere", Duration::from_millis(wait), told)
        };
        assert_eq!(holder(&file), None);
        let first = ask(0, &mut |_| {}).unwrap();
        let problem = ask(0, &mut |_| {}).unwrap_err();
        assert_eq!((problem.fault, problem.code), (Fault::Again, "hift::run::locked"));
        let who = format!("another run (process {}", std::process::id());
        assert!(
            problem.message.starts_with(&who) && problem.message.ends_with("is at work here"),
            "{problem}"
        );
        assert!(holder(&file).is_some_and(|holder| holder.starts_with("process ")));
        let mut heard = Vec::new();
        ask(250, &mut |text| heard.push(text.to_owned())).unwrap_err();
        assert_eq!(heard.len(), 1, "{heard:?}");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(150));
                drop(first);
            });
            ask(10_000, &mut |_| {}).unwrap();
        });
    }
}
