//! Whole stages on a device: what a run leaves, what it takes, and how it goes on.
//!
//! The device is the emulated one of `tests/gpu`. A process of its own, with one test: the peak of a step is what this
//! process has allocated meanwhile, on either side.

mod common;
#[path = "gpu/emulator.rs"]
mod emulator;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hift::engine::gpu::{Machine, Room, Usage};
use hift::engine::{Devices, memory};
use hift::estimate::{Estimate, Profile, StageEstimate};
use hift::problem::Fault;
use hift::run::Ending;
use hift::run::generate::Written;
use hift::units::Bytes;
use safetensors::SafeTensors;

use common::{run_beside, run_on};
use emulator::Emulator;

#[global_allocator]
static ALLOCATOR: memory::Counting<std::alloc::System> = memory::Counting(std::alloc::System);

/// Model, schedule, train, and how far losses and weights may be from the CPU's: half numbers round here and there to
/// the other neighbour.
const CASES: &[(&str, &str, &str, f64)] = &[
    ("precision = fp32", "states = host", "", 1e-5),
    ("precision = fp32", "states = device", "clip = 0.5", 1e-5),
    ("precision = fp32", "states = host weights = host", "clip = 0.5 accumulate = 2", 1e-5),
    ("precision = mixed_hi(bf16)", "states = host", "clip = 0.5", 2e-2),
    ("precision = mixed_hi(bf16) recompute = blocks", "states = host weights = host", "", 2e-2),
    ("precision = mixed(bf16)", "states = discard weights = host dwell = 2 steps", "accumulate = 2", 2e-2),
    ("precision = mixed_hi(fp16)", "states = host order = random(seed = 3)", "", 5e-3),
    ("precision = fp32", "states = disk", "clip = 0.5", 1e-5),
    ("precision = fp32 recompute = blocks", "states = disk weights = disk", "accumulate = 2", 1e-5),
    ("precision = mixed_hi(bf16)", "states = disk", "clip = 0.5", 2e-2),
    ("precision = mixed_hi(bf16)", "states = host weights = disk", "accumulate = 2", 2e-2),
    ("precision = mixed(bf16)", "states = discard weights = disk dwell = 2 steps", "", 2e-2),
];

fn pipeline(device: &str, model: &str, schedule: &str, train: &str) -> String {
    format!(
        r#"hift 1
data rows {{ source = json("rows.jsonl") format = tokens(input = "ids") holdout = 4 rows }}
model tiny {{ weights = random("config.json", seed = 1) {model} }}
groups g {{ split = by_layer(1) }}
schedule s {{ rate = constant(1e-3) {schedule} }}
optimizer adamw {{ }}
train t {{
    data = rows model = tiny groups = g schedule = s optimizer = adamw device = {device}
    steps = 9 micro_batch = 2 {train}
    evaluate {{ every = 4 steps metrics = [loss] }}
    checkpoint {{ every = 4 steps keep = 9 }}
}}
evaluate after {{ from = t data = rows metrics = [loss] device = {device} }}
export final {{ from = t to = "final" }}
"#
    )
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let row = |i: u32| (0..12).map(|t| (i * 31 + t * (i % 5 + 2)) % 40).collect::<Vec<u32>>();
    let rows: String = (0..40).map(|i| format!("{{\"ids\": {:?}}}\n", row(i))).collect();
    fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    let config = r#"{"model_type": "llama", "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}"#;
    fs::write(folder.path().join("config.json"), config).unwrap();
    folder
}

/// The numbers of all tensors of a file.
fn numbers(file: &Path) -> Vec<f64> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut names = tensors.names();
    names.sort_unstable();
    let wide = |name| {
        let data = tensors.tensor(name).unwrap();
        match data.dtype() {
            safetensors::Dtype::F32 => {
                data.data().chunks(4).map(|x| f32::from_le_bytes(x.try_into().unwrap()).into()).collect()
            }
            safetensors::Dtype::BF16 => {
                let bits = |x: &[u8]| half::bf16::from_le_bytes(x.try_into().unwrap()).to_f64();
                data.data().chunks(2).map(bits).collect::<Vec<f64>>()
            }
            other => panic!("{other:?}"),
        }
    };
    names.into_iter().flat_map(wide).collect()
}

fn assert_near(got: &[f64], expected: &[f64], part: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let norm = |all: &mut dyn Iterator<Item = f64>| all.map(|x| x * x).sum::<f64>().sqrt();
    let apart = norm(&mut got.iter().zip(expected).map(|(a, b)| a - b));
    let length = norm(&mut expected.iter().copied());
    // NaN is never near.
    assert!(apart <= part * length, "{what}: {apart:e} apart of {length:e}");
}

/// A device that is full in the middle of a run: what was trained is kept, and goes on to the same bits.
fn no_room(emulator: &Emulator, device: &Devices) {
    let text = pipeline("cuda(0)", "", "", "clip = 1.0");
    let whole = folder();
    let (seen, ..) = run_on(device, whole.path(), &text).unwrap();
    let folder = folder();
    let run = |tensors: i64| {
        emulator.tensors_left.store(tensors, Ordering::Relaxed);
        let ended = run_on(device, folder.path(), &text);
        emulator.tensors_left.store(i64::MAX, Ordering::Relaxed);
        ended
    };
    let problems = run(1000).unwrap_err();
    assert_eq!((problems.0[0].code, problems.0[0].fault), ("hift::engine::device_full", Fault::Failed));
    let said = problems.to_string();
    for part in ["no room for another tensor, at step", "group ", "the plan has", "kept activations"] {
        assert!(said.contains(part), "{said}");
    }
    // What the steps before have taken is known nevertheless.
    let memory = memory(folder.path());
    let made = fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap().lines().count();
    let most = seen.peaks[..made].iter().max();
    assert_eq!((memory["measured"].as_u64(), memory["foretold"].as_u64()), (most.copied(), most.copied()));
    let (again, ..) = run(i64::MAX).unwrap();
    let n = again.losses.len();
    assert!(n < 9, "it goes on, it does not begin anew");
    assert_eq!(again.losses[..], seen.losses[9 - n..]);
    let weights = |folder: &Path| fs::read(folder.join("final/model.safetensors")).unwrap();
    assert!(weights(folder.path()) == weights(whole.path()));
}

/// What a run has written of its memory.
fn memory(folder: &Path) -> serde_json::Value {
    let events = fs::read_to_string(folder.join("run/events.jsonl")).unwrap();
    let memory: Vec<&str> = events.lines().filter(|line| line.contains("\"memory\"")).collect();
    assert_eq!(memory.len(), 1, "{events}");
    serde_json::from_str(memory[0]).unwrap()
}

/// What a device says of its memory: before anything is loaded it must have room, and what a step took is held against
/// what was foretold.
fn told_room(emulator: &Emulator, device: &Devices) {
    let text = pipeline("cuda(0)", "", "", "");
    let mebibytes = |n: u64| Bytes(n << 20);
    let room = |total, free, own| Room {
        total,
        free,
        own: Some(own),
        others: vec![("python3 (process 4711)".to_string(), mebibytes(40))],
    };
    let tell = |room| *emulator.room.lock().unwrap() = room;
    let refused = |code: &str, fault: Fault, parts: &[&str]| {
        let folder = folder();
        let problems = run_on(device, folder.path(), &text).unwrap_err();
        assert_eq!((problems.0[0].code, problems.0[0].fault), (code, fault), "{problems}");
        let said = problems.to_string();
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        assert!(!folder.path().join("run").exists(), "nothing was begun");
    };
    tell(Some(room(Bytes(100 << 10), Bytes(50 << 10), Bytes(50 << 10))));
    refused(
        "hift::run::device_too_small",
        Fault::Limit,
        &["stage `t` needs ", "of cuda(0), which has 100.00 KiB"],
    );
    tell(Some(room(mebibytes(41), Bytes(40 << 10), Bytes(60 << 10))));
    let parts = [
        "stage `t` needs ",
        "where 100.00 KiB of 41.00 MiB are free",
        "python3 (process 4711) has 40.00 MiB",
    ];
    refused("hift::run::device_taken", Fault::Again, &parts);

    tell(Some(room(mebibytes(64), mebibytes(20), mebibytes(4))));
    for (above, warnings) in [(1.0, 0), (1.01, 0), (1.05, 1)] {
        let folder = folder();
        let (_, estimate, _) = run_on(device, folder.path(), &text).unwrap();
        let foretold = estimate.stages[0].groups.iter().map(|group| group.peak.0).min().unwrap();
        let used = Bytes((foretold as f64 * above) as u64);
        // All groups are said to take as much as the one that takes the least is foretold to, or more.
        *emulator.usage.lock().unwrap() = Some(Usage { used, reserved: used * 2 });
        fs::remove_dir_all(folder.path().join("run")).unwrap();
        fs::remove_dir_all(folder.path().join("final")).unwrap();
        let (seen, ..) = run_on(device, folder.path(), &text).unwrap();
        *emulator.usage.lock().unwrap() = None;
        assert_eq!(seen.warnings.len(), warnings, "{:?}", seen.warnings);
        let memory = memory(folder.path());
        assert_eq!(memory["measured"], used.0);
        assert_eq!((&memory["reserved"], &memory["process"]), (&(2 * used.0).into(), &(4 << 20).into()));
    }

    // The process, against the device's profile: a guess promises nothing.
    let guess =
        Profile { context: mebibytes(1), libraries: mebibytes(1), kernels: mebibytes(1), ..Profile::guess() };
    let known = Profile { device: Some("emulated".to_owned()), ..guess.clone() };
    for (above, profile, warned) in [(1.01, &known, false), (1.05, &known, true), (1.05, &guess, false)] {
        let folder = folder();
        let pipeline = common::pipeline(folder.path(), &text);
        let mut library = hift::data::Library::new(folder.path().to_path_buf(), &|| false);
        let plan = common::planned(&pipeline, &mut library).unwrap();
        let peak = hift::estimate::estimate(&plan, 2).stages[0].peak;
        let foretold = Bytes(peak.0 + (3 << 20) + (peak.0 as f64 * profile.rounding).ceil() as u64);
        let own = Bytes((foretold.0 as f64 * above) as u64);
        tell(Some(room(mebibytes(64), mebibytes(20), own)));
        let (seen, estimate, _) = run_beside(device, Some(profile), folder.path(), &text).unwrap();
        assert_eq!(estimate.stages[0].process(), foretold);
        let memory = memory(folder.path());
        assert_eq!((&memory["process"], &memory["foretold_process"]), (&own.0.into(), &foretold.0.into()));
        assert_eq!(seen.warnings.len(), usize::from(warned), "{:?}", seen.warnings);
        for part in
            [format!("the process has {own}"), "5.0 % more".into(), format!("(tensors {peak}, context ")]
        {
            assert!(seen.warnings.iter().all(|said| said.contains(&part)), "{:?}", seen.warnings);
        }
    }
    tell(None);
}

/// What rests on disk instead of in the host's memory changes no bit, and leaves nothing in the run directory.
fn as_on_the_host(
    device: &Devices,
    text: &str,
    name: &str,
    seen: &common::Seen,
    estimate: &Estimate,
    there: &tempfile::TempDir,
) {
    let other = folder();
    let (on_host, figures, _) = run_on(device, other.path(), &text.replace("= disk", "= host")).unwrap();
    assert_eq!(seen.losses, on_host.losses, "{name}");
    assert_eq!(seen.grad_norms, on_host.grad_norms, "{name}");
    assert_eq!(seen.evaluations, on_host.evaluations, "{name}");
    let bytes = |folder: &Path| fs::read(folder.join("final/model.safetensors")).unwrap();
    assert!(bytes(there.path()) == bytes(other.path()), "{name}");
    let [disk, host] = [estimate, &figures].map(|estimate| &estimate.stages[0]);
    assert!(disk.host < host.host && disk.scratch >= host.host - disk.host, "{name}");
    assert_eq!((host.scratch.0, host.staging.0, disk.staging.0), (0, 0, 64 << 20), "{name}");
    let moved = |stage: &StageEstimate| -> u64 {
        stage.groups.iter().map(|group| group.host_transfers.0 + group.disk_transfers.0).sum()
    };
    assert_eq!(moved(disk), moved(host), "{name}: as much is fetched and evicted");
    let files = |folder: &Path| {
        let names = fs::read_dir(folder.join("run")).unwrap().flatten().map(|entry| entry.file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(files(there.path()), files(other.path()), "{name}");
}

/// Gradients that overflow fp16 on a device: no weight changes, no update is counted, and the turn is taken again.
fn overflow(device: &Devices) {
    let run = |devices: &Devices, name: &str, precision: &str| {
        let folder = folder();
        let rows: String = (0..16)
            .map(|i| {
                format!(
                    "{{\"ids\": {:?}, \"y\": 1000.0}}\n",
                    (0..8).map(|t| (i * 31 + t * 7) % 40).collect::<Vec<_>>()
                )
            })
            .collect();
        fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
        let config = fs::read_to_string(folder.path().join("config.json")).unwrap();
        let head = "\"architectures\": [\"LlamaForSequenceClassification\"], \"id2label\": {\"0\": \"y\"}, \"vocab_size\"";
        fs::write(folder.path().join("config.json"), config.replace("\"vocab_size\"", head)).unwrap();
        let text = format!(
            r#"hift 1
data rows {{ source = json("rows.jsonl") format = tokens(input = "ids", label = "y") }}
model tiny {{ weights = random("config.json", seed = 1) precision = {precision} }}
groups g {{ split = by_layer(2) }}
schedule s {{ rate = constant(1e-2) }}
optimizer adamw {{ }}
train t {{
    data = rows model = tiny groups = g schedule = s optimizer = adamw device = {name}
    steps = 6 micro_batch = 4 clip = 1.0
}}
export final {{ from = t to = "final" dtype = fp32 }}
"#
        );
        let (seen, ..) =
            run_on(devices, folder.path(), &text).unwrap_or_else(|problems| panic!("{problems}"));
        let events = fs::read_to_string(folder.path().join("run/events.jsonl")).unwrap();
        (
            seen.losses,
            numbers(&folder.path().join("final/model.safetensors")),
            events.matches("\"overflow\"").count(),
        )
    };
    let (losses, weights, none) = run(&Devices::default(), "cpu", "fp32");
    for precision in ["mixed(fp16)", "mixed_hi(fp16)"] {
        let (seen, trained, overflows) = run(device, "cuda(0)", precision);
        assert!(overflows >= 9 && none == 0, "{overflows}");
        assert_near(&seen, &losses, 1e-4, &format!("{precision}: losses"));
        // An update that is counted though it was not made would make the next ones smaller.
        assert_near(&trained, &weights, 6e-2, &format!("{precision}: weights"));
    }
}

/// The texts that a small random model writes.
fn texts(devices: &Devices, device: &str, search: &str) -> Vec<String> {
    let folder = folder();
    fs::write(folder.path().join("tokenizer.json"), common::word_tokenizer(40)).unwrap();
    let text = format!(
        r#"hift 1
tokenizer words {{ file = "tokenizer.json" end = none }}
model tiny {{ weights = random("config.json", seed = 1) }}
generate texts {{
    model = tiny tokenizer = words prompts = ["w5 w6 w7", "w9", "w30 w20 w10 w11", "w5"]
    max_new_tokens = 12 tokens {search} device = {device}
}}
"#
    );
    let (seen, ..) = run_on(devices, folder.path(), &text).unwrap_or_else(|problems| panic!("{problems}"));
    seen.texts.into_iter().map(|(_, text)| text).collect()
}

/// Rows that are answered while training evaluates, beside weights that rest on the host or the device.
fn samples(devices: &Devices, device: &str, schedule: &str) -> (Vec<(u64, Vec<Written>)>, Vec<f64>) {
    let folder = folder();
    fs::write(folder.path().join("tokenizer.json"), common::word_tokenizer(40)).unwrap();
    let row = |i: u32| format!("{{\"a\": \"w{} w{}\", \"b\": \"w{}\"}}\n", 5 + i, 20 + i, 6 + i);
    fs::write(folder.path().join("asked.jsonl"), (0..12).map(row).collect::<String>()).unwrap();
    let text = format!(
        r#"hift 1
data rows {{
    source = json("asked.jsonl") format = instruct(prompt = "{{a}}", response = " {{b}}") holdout = 3 rows
}}
tokenizer words {{ file = "tokenizer.json" end = none }}
model tiny {{ weights = random("config.json", seed = 1) }}
groups g {{ split = by_layer(1) }}
schedule s {{ rate = constant(1e-3) {schedule} }}
optimizer adamw {{ }}
train t {{
    data = rows tokenizer = words model = tiny groups = g schedule = s optimizer = adamw device = {device}
    steps = 4 micro_batch = 2 evaluate {{ every = 2 steps samples = 3 max_new_tokens = 9 tokens }}
}}
"#
    );
    let (seen, ..) = run_on(devices, folder.path(), &text).unwrap_or_else(|problems| panic!("{problems}"));
    (seen.samples, seen.losses)
}

#[test]
fn a_stage_on_a_device_ends_as_on_the_cpu_in_the_memory_that_was_foretold() {
    let Some(emulator) = Emulator::new() else { return };
    let emulator = Arc::new(emulator);
    let device = Devices::default().with(0, emulator.clone() as Arc<dyn Machine>);
    no_room(&emulator, &device);
    told_room(&emulator, &device);
    overflow(&device);
    for search in ["", "beams = 3", "temperature = 1.1 seed = 4"] {
        let here = texts(&Devices::default(), "cpu", search);
        assert_eq!(texts(&device, "cuda(0)", search), here, "{search}");
    }
    for schedule in ["", "weights = host"] {
        let (here, losses) = samples(&Devices::default(), "cpu", "");
        let (there, again) = samples(&device, "cuda(0)", schedule);
        assert_eq!(here.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 2, 4]);
        assert_eq!(there, here, "{schedule}");
        assert_near(&again, &losses, 1e-5, schedule);
    }
    for (model, schedule, train, apart) in CASES {
        let name = format!("{model}, {schedule}, {train}");
        let (here, there) = (folder(), folder());
        let text = pipeline("cpu", model, schedule, train);
        let (on_cpu, on_host, _) = run_on(&Devices::default(), here.path(), &text).unwrap();
        let text = pipeline("cuda(0)", model, schedule, train);
        emulator.late.store(0, Ordering::Relaxed);
        let (seen, estimate, ending) = run_on(&device, there.path(), &text).unwrap();
        assert!(matches!(ending, Ending::Finished { .. }));
        assert_eq!(seen.groups, on_cpu.groups, "{name}");
        assert_near(&seen.losses, &on_cpu.losses, *apart, &format!("{name}: losses"));
        assert_near(&seen.grad_norms, &on_cpu.grad_norms, 5.0 * apart, &format!("{name}: norms"));
        assert_eq!(seen.evaluations.len(), on_cpu.evaluations.len());
        for ((step, got), (_, expected)) in seen.evaluations.iter().zip(&on_cpu.evaluations) {
            assert_near(&[got[0].1], &[expected[0].1], *apart, &format!("{name}: at {step:?}"));
        }
        let weights = |folder: &Path| numbers(&folder.join("final/model.safetensors"));
        assert_near(&weights(there.path()), &weights(here.path()), 2.0 * apart, &name);

        // Masters and states go home beside the next step.
        let late = emulator.late.load(Ordering::Relaxed);
        let (half, resting) = (model.contains("mixed_hi"), !schedule.contains("states = device"));
        assert_eq!(
            late > 0,
            half || (resting && !schedule.contains("discard")) || schedule.contains("weights"),
            "{name}"
        );

        // All rows are as long as the longest, so every step is as large as the estimate's.
        let groups = &estimate.stages[0].groups;
        for (names, peak) in seen.groups.iter().zip(&seen.peaks) {
            let foretold = groups.iter().find(|group| group.names == *names).unwrap();
            assert_eq!(*peak, foretold.peak.0, "{name}: {names:?}\n{:?}", foretold.by);
        }

        if schedule.contains("disk") {
            as_on_the_host(&device, &text, &name, &seen, &estimate, &there);
            // A processor, whose memory is the host's, has them elsewhere, too.
            let groups = &on_host.stages[0].groups;
            for (names, peak) in on_cpu.groups.iter().zip(&on_cpu.peaks) {
                let foretold = groups.iter().find(|group| group.names == *names).unwrap();
                assert_eq!(*peak, foretold.peak.0, "{name}, on the CPU: {names:?}\n{:?}", foretold.by);
            }
        }

        // Taken up at its second checkpoint it ends with the same bits.
        let (ended, run) =
            (fs::read(there.path().join("final/model.safetensors")).unwrap(), there.path().join("run"));
        fs::remove_dir_all(there.path().join("final")).unwrap();
        fs::remove_dir_all(run.join("checkpoints/t-8")).unwrap();
        let _ = fs::remove_dir_all(run.join("checkpoints/t-9"));
        let events = fs::read_to_string(run.join("events.jsonl")).unwrap();
        let unfinished: String = events
            .lines()
            .filter(|line| !line.contains("\"finish\""))
            .map(|line| format!("{line}\n"))
            .collect();
        fs::write(run.join("events.jsonl"), unfinished).unwrap();
        let (again, ..) = run_on(&device, there.path(), &text).unwrap();
        assert_eq!(again.losses[..], seen.losses[4..], "{name}");
        assert!(fs::read(there.path().join("final/model.safetensors")).unwrap() == ended, "{name}");
    }
}
