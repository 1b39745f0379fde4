//! What became of a lock file, as a person reads it.

use std::fmt::Write;

use crate::lock::Lock;
use crate::units::Bytes;

/// One line, and one more for everything that is not as it was.
pub fn written(path: &str, before: Option<&Lock>, lock: &Lock) -> String {
    let bytes = Bytes(lock.inputs.iter().map(|input| input.bytes).sum());
    let drifts = before.map(|before| before.drift(lock));
    let what = match drifts.as_deref() {
        None => "written".to_string(),
        Some([]) => "as it was".to_string(),
        Some(drifts) => format!("{} changed", drifts.len()),
    };
    let mut text = format!("{path}: {} inputs, {bytes}; {what}\n", lock.inputs.len());
    for drift in drifts.iter().flatten() {
        let _ = writeln!(text, "  {drift}");
    }
    text
}
