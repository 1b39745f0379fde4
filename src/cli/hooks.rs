//! The commands that a pipeline asks for when its run has ended.

use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value as Json;

use crate::lang::pipeline::{Hook, Outcome};

/// Runs the hooks of an ending, one after the other, with `result` as a line on their standard input; says which of
/// them failed. What they print goes where this program's words go.
pub fn run(hooks: &[Hook], outcome: Outcome, folder: &Path, result: &Json) -> Vec<String> {
    let called = hooks.iter().filter(|hook| hook.on.contains(&outcome));
    called
        .filter_map(|hook| {
            let what = match call(&hook.run, folder, result) {
                Ok(None) => return None,
                Ok(Some(status)) => status,
                Err(error) => error.to_string(),
            };
            Some(format!("hook `{}` failed: {what}", hook.name))
        })
        .collect()
}

/// How the command ended, if not well.
fn call(command: &str, folder: &Path, result: &Json) -> std::io::Result<Option<String>> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .current_dir(folder)
        .stdin(Stdio::piped())
        // What this program prints is its result.
        .stdout(std::io::stderr().as_fd().try_clone_to_owned()?)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        match writeln!(input, "{result}") {
            // It need not read what it is told.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error),
            Err(_) | Ok(()) => {}
        }
    }
    let status = child.wait()?;
    Ok((!status.success()).then(|| status.to_string()))
}
