//! What happens in a run as TensorBoard reads it: `RUN_DIR/tensorboard/events.out.tfevents.*`.
//!
//! A file holds records, a record an event: the length, its masked checksum, the event, its masked checksum (CRC-32C).
//! An event is a protocol buffer with a time, a step and a value with a name. Only four of its messages are needed, of
//! two or three fields each; the crates that write them are no longer kept, and one that reads the whole protocol would
//! be larger than this room.
//!
//! The file is written anew whenever the run directory is opened or goes back to a checkpoint, from `metrics.jsonl` and
//! `events.jsonl`: so it never holds steps that did not count, and has those that were made before anyone asked for it.
//!
//! Source: TensorFlow's `core/util/event.proto`, `core/framework/summary.proto`, `core/lib/io/record_writer.h`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value as Json;

/// The folder in a run directory.
pub const FOLDER: &str = "tensorboard";

/// What the names of its files begin with: TensorBoard looks for `tfevents`.
const NAME: &str = "events.out.tfevents.";

/// A file that is being written.
pub struct TensorBoard {
    file: File,
    pub path: PathBuf,
}

impl TensorBoard {
    /// Begins a file with what a run directory holds so far; the one before goes when the new one is whole.
    pub fn of(directory: &Path) -> io::Result<Self> {
        let folder = directory.join(FOLDER);
        fs::create_dir_all(&folder)?;
        let before: Vec<PathBuf> = fs::read_dir(&folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(NAME))
            })
            .collect();
        // Names are read in their order; a number that grows holds whatever the clock says.
        let number = |path: &PathBuf| path.extension()?.to_str()?.parse::<u64>().ok();
        let next = before.iter().filter_map(number).max().map_or(0, |last| last + 1);
        let path = folder.join(format!("{NAME}{next:010}"));
        let mut bytes = record(&event(now(), 0, &text(3, "brain.Event:2")));
        // A session that starts at step 0 takes the place of whatever was shown before.
        bytes.extend(record(&event(now(), 0, &message(7, &number_field(1, 1)))));
        let lines = |name: &str| {
            let text = fs::read_to_string(directory.join(name)).unwrap_or_default();
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<Json>>()
        };
        let metrics = lines("metrics.jsonl");
        bytes.extend(metrics.iter().flat_map(of_step));
        let reached = |stage: &Json| {
            let steps = metrics.iter().filter(|line| line["stage"] == *stage);
            steps.filter_map(|line| line["step"].as_u64()).max().unwrap_or(0)
        };
        let happened = lines("events.jsonl");
        // Evaluations of steps that are made again come again.
        let counts =
            |event: &&Json| event["step"].as_u64().is_none_or(|step| step <= reached(&event["stage"]));
        bytes.extend(happened.iter().filter(counts).flat_map(of_event));
        let mut file = File::create_new(&path)?;
        file.write_all(&bytes)?;
        for path in before {
            fs::remove_file(path)?;
        }
        Ok(Self { file, path })
    }

    /// Adds a line of metrics.jsonl.
    pub fn metric(&mut self, line: &Json) -> io::Result<()> {
        self.file.write_all(&of_step(line))
    }

    /// Adds a line of events.jsonl.
    pub fn event(&mut self, line: &Json) -> io::Result<()> {
        self.file.write_all(&of_event(line))
    }
}

/// The records of a step: loss, rate, gradient norm (of its group by itself, too), speed, memory.
fn of_step(line: &Json) -> Vec<u8> {
    let number = |key: &str| line[key].as_f64();
    let stage = line["stage"].as_str().unwrap_or_default();
    let group: Vec<&str> = line["group"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    let speed = number("tokens").zip(number("seconds")).map(|(tokens, seconds)| tokens / seconds.max(1e-9));
    let mebibytes = |key| number(key).map(|bytes| bytes / f64::from(1 << 20));
    let values = [
        (format!("{stage}/loss"), number("loss")),
        (format!("{stage}/rate"), number("lr")),
        (format!("{stage}/grad_norm"), number("grad_norm")),
        (format!("{stage} grad_norm/{}", group.join(", ")), number("grad_norm")),
        (format!("{stage}/tokens_per_second"), speed),
        (format!("{stage}/loss_scale"), number("loss_scale")),
        (format!("{stage} memory/device peak MiB"), mebibytes("device_peak_bytes")),
        (format!("{stage} memory/host peak MiB"), mebibytes("host_peak_bytes")),
    ];
    scalars(line, values)
}

/// The records of an evaluation; other events have none.
fn of_event(line: &Json) -> Vec<u8> {
    if line["event"] != "evaluate" {
        return Vec::new();
    }
    let stage = line["stage"].as_str().unwrap_or_default();
    let metrics = line["metrics"].as_object().into_iter().flatten();
    scalars(line, metrics.map(|(name, value)| (format!("{stage} held-out/{name}"), value.as_f64())))
}

/// One event with all values that are there.
fn scalars(line: &Json, values: impl IntoIterator<Item = (String, Option<f64>)>) -> Vec<u8> {
    let step = line["step"].as_u64().unwrap_or(0);
    let values = values.into_iter().filter_map(|(tag, value)| Some((tag, value?)));
    let summary: Vec<u8> = values
        .flat_map(|(tag, value)| {
            let mut scalar = text(1, &tag);
            scalar.push(2 << 3 | FIXED_32);
            scalar.extend((value as f32).to_le_bytes());
            message(1, &scalar)
        })
        .collect();
    if summary.is_empty() { Vec::new() } else { record(&event(now(), step, &message(5, &summary))) }
}

// The kinds of fields of a protocol buffer.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const BYTES: u8 = 2;
const FIXED_32: u8 = 5;

/// An event with a time (seconds since 1970), a step, and what else it has.
fn event(time: f64, step: u64, what: &[u8]) -> Vec<u8> {
    let mut event = vec![1 << 3 | FIXED_64];
    event.extend(time.to_le_bytes());
    event.extend(number_field(2, step));
    event.extend(what);
    event
}

fn number_field(field: u8, value: u64) -> Vec<u8> {
    let mut bytes = vec![field << 3 | VARINT];
    bytes.extend(varint(value));
    bytes
}

fn message(field: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![field << 3 | BYTES];
    bytes.extend(varint(content.len() as u64));
    bytes.extend(content);
    bytes
}

fn text(field: u8, text: &str) -> Vec<u8> {
    message(field, text.as_bytes())
}

/// Seven bits a byte, the lowest first; the eighth says that there are more.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn record(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked(&length).to_le_bytes());
    record.extend(content);
    record.extend(masked(content).to_le_bytes());
    record
}

/// A checksum that is not that of a text which holds checksums.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_those_of_tensorflow() {
        // What TensorFlow's writer begins each file with, at time 0.
        let record = record(&event(0.0, 0, &text(3, "brain.Event:2")));
        assert_eq!(record[..8], 26u64.to_le_bytes());
        assert_eq!(record[12..], {
            let mut rest = b"\x09\0\0\0\0\0\0\0\0\x10\0\x1a\x0dbrain.Event:2".to_vec();
            rest.extend(masked(&rest).to_le_bytes());
            rest
        });
        // RFC 3720, B.4: 32 bytes of zeros have the checksum 8a9136aa.
        assert_eq!(masked(&[0; 32]), 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8));
        assert_eq!(varint(300), [0xac, 0x02]);
    }
}
