//! What people look at while a job runs and afterwards, and what starts it without them.

mod common;

use std::fs;
use std::process::Command;

use serde_json::{Value as Json, json};

use common::case::{Case, HIFT, Said, names};

#[test]
fn a_status_follows_a_run() {
    let case = Case::new().with("param steps = 8", "param steps = 1000000");
    let running = case.start("run p.hift", &["\"step\":20,"]);
    let status = case.run("status runs/p --json").json();
    assert_eq!(status["state"], "running");
    assert!(status["process"].as_str().unwrap().starts_with(&format!("process {} ", running.child.id())));
    let stage = &status["stages"][0];
    assert!(stage["step"].as_u64().unwrap() >= 20 && stage["steps"] == 1_000_000, "{status}");
    assert!(stage["seconds_left"].as_f64().unwrap() > 0.0 && stage["loss"].as_f64().unwrap() > 0.0);
    assert!(case.run("status runs/p").works().out.starts_with("runs/p: running (process "));
    running.signal("INT");
    running.end().fails(75, &[]);
    let said = case.run("status runs/p").out.clone();
    for text in ["runs/p: interrupted", "/1,000,000, cycle ", "held-out", "foretold", "checkpoints/sft-"] {
        assert!(said.contains(text), "{text} in {said}");
    }
    case.run("run p.hift --dir runs/q --set steps=3").works();
    let runs = case.run("runs");
    let lines: Vec<&str> = runs.works().out.lines().collect();
    assert!(
        lines.len() == 3 && lines[1].contains("interrupted") && lines[2].contains("finished"),
        "{lines:?}"
    );
    assert_eq!(case.run("runs --json").json()[1]["state"], "finished");
    case.run("status nowhere").fails(66, &["not a run directory", "hift runs"]);
    case.run("runs nowhere").fails(66, &["cannot be read"]);
}

/// One page, nothing beside it, and everything that the run knows.
#[test]
fn a_report_is_one_page_that_needs_nothing_beside_it() {
    let case = Case::stages();
    case.run("run p.hift").works();
    let said = case.run("report runs/p");
    assert!(said.works().out.contains("the report lies in runs/p/report.html"));
    let page = fs::read_to_string(case.path("runs/p/report.html")).unwrap();
    for text in [
        "<!doctype html>",
        "<span class=\"state finished\">finished</span>",
        "<h2>train a</h2>",
        "<h2>train b</h2>",
        "Rate, the same for each group",
        "Gradient norm of each group",
        "Peak memory over a cycle",
        "<h2>evaluate held</h2>",
        "<h2>Time</h2>",
        "<p class=\"sample\"><b>one two</b>",
        "Audit of the rows of a",
        "Plan of train b",
        "words.txt</th><td>data",
        "<summary>Pipeline</summary>",
        "prefers-color-scheme: dark",
    ] {
        assert!(page.contains(text), "{text}");
    }
    for elsewhere in ["http:", "https:", "<script", "<link", "@import", "url("] {
        let found = page.find(elsewhere).map(|at| page[at..].chars().take(60).collect::<String>());
        assert_eq!(found, None);
    }
    assert!(!page.contains("NaN") && !page.contains("inf,"));
    // Every group has a bar, and what was measured is what was foretold.
    let plan = case.json("runs/p/plan.json");
    let peak = plan["estimate"]["stages"][1]["groups"][0]["peak"].as_u64().unwrap();
    let metrics = case.lines("runs/p/metrics.jsonl");
    let group = &plan["plan"]["stages"][1]["groups"][0]["names"];
    let of_group = metrics.iter().filter(|line| line["stage"] == "b" && line["group"] == *group);
    assert_eq!(of_group.map(|line| line["device_peak_bytes"].as_u64().unwrap()).max(), Some(peak));
    assert!(well_formed(&page), "a tag is not closed");
    assert_eq!(case.run("report runs/p -o -").works().out, page);
    case.run("report runs/p --output nowhere/x.html").fails(73, &["cannot be written", "--output"]);
    // A run that has done nothing yet has a page, too.
    fs::remove_file(case.path("runs/p/metrics.jsonl")).unwrap();
    fs::remove_file(case.path("runs/p/events.jsonl")).unwrap();
    case.run("report runs/p").works();
    assert!(fs::read_to_string(case.path("runs/p/report.html")).unwrap().contains("nothing yet"));
}

/// Whether every tag that is opened is closed, in order.
fn well_formed(page: &str) -> bool {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        let end = at + rest[at..].find('>').expect("a tag ends");
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
        if tag.starts_with('!') || tag.ends_with('/') || ["meta", "br"].contains(&name) {
            continue;
        }
        if tag.starts_with('/') {
            if open.pop() != Some(name) {
                println!("</{name}> closes another tag");
                return false;
            }
        } else {
            open.push(name);
        }
        if name == "style" && !tag.starts_with('/') {
            rest = &rest[rest.find("</style").expect("a style ends")..];
        }
    }
    open.is_empty()
}

#[test]
fn a_service_runs_it_as_cron_and_systemd_would() {
    let case = Case::new();
    let line = case.run("service p.hift --cron --every 5min --max-time 1h").works().out.clone();
    let command = line.strip_prefix("*/5 * * * * ").expect("the times come first").trim_end();
    assert!(!command.contains('%') || command.contains("\\%"), "{command}");
    // What cron gives a job, and not even that.
    let environments: [&[(&str, &str)]; 2] =
        [&[("SHELL", "/bin/sh"), ("PATH", "/usr/bin:/bin"), ("LOGNAME", "u"), ("LANG", "C")], &[]];
    for (i, variables) in environments.into_iter().enumerate() {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", command]).current_dir("/").env_clear().envs(variables.iter().copied());
        let said = Said::of(&mut shell, "a job of cron");
        said.works().is_silent();
        assert_eq!(case.metrics("runs/p").len(), 8, "call {i}");
    }
    assert_eq!(
        case.lines("runs/p/events.jsonl").iter().filter(|event| event["event"] == "finish").count(),
        1
    );
    // When something is wrong, one line says what.
    fs::remove_file(case.path("rows.jsonl")).unwrap();
    let mut shell = Command::new("/bin/sh");
    let said = Said::of(shell.args(["-c", command]).current_dir("/").env_clear(), "a job of cron");
    said.fails(66, &["p.hift:4:14: there is no file `rows.jsonl`"]);
    assert_eq!((said.out.as_str(), said.err.lines().count()), ("", 1), "{}", said.err);

    let units = case.run("service p.hift").works().out.clone();
    for text in [
        "Type=oneshot\n",
        "SuccessExitStatus=75\n",
        "OnUnitInactiveSec=600s\n",
        "WantedBy=timers.target\n",
        &format!("ExecStart={HIFT} run "),
    ] {
        assert!(units.contains(text), "{text} in {units}");
    }
    case.run("service p.hift --cron --every 7min").fails(2, &["cron cannot call every 7 minutes"]);
    case.run("service nowhere.hift").fails(66, &["cannot be read"]);
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("skipped: there is no systemd-analyze to ask about the units");
        return;
    }
    let (service, timer) = units.split_once("# ~/.config/systemd/user/hift-p.timer").unwrap();
    case.put("hift-p.service", service);
    case.put("hift-p.timer", timer);
    let said = case.shell("systemd-analyze --user verify ./hift-p.service ./hift-p.timer 2>&1");
    assert!(!said.out.contains("hift-p."), "{}", said.out);
}

#[test]
fn warnings_are_for_those_who_watch() {
    // A warm-up that is longer than the run.
    let case = Case::new().with("rate = constant(1e-2)", "rate = cosine(peak = 1e-2, warmup = 90 %)");
    let watched = case.run("run p.hift --progress plain --dir watched");
    let warned = watched.works().err.contains("hift::");
    case.run("run p.hift").works().is_silent();
    let check = case.run("check p.hift");
    assert_eq!(warned, check.err.contains("hift::"));
    let outcome: Json = case.run("run p.hift --json").json();
    assert_eq!(outcome["outcome"], json!("nothing to do"));
}

/// A hook that writes down what it is told.
fn hooked(on: &str) -> Case {
    let hook = format!("hook note {{ on = {on} run = \"cat >> told.jsonl\" }}\ntrain sft {{");
    Case::new().with("train sft {", &hook)
}

#[test]
fn hooks_are_told_how_a_run_ended() {
    let case = hooked("[success, failure, interruption]").with("param steps = 8", "param steps = 300");
    // Nothing is called while the file is read, and whoever checks it sees what will be.
    let check = case.run("check p.hift");
    assert!(check.works().out.contains("p.hift: on success, failure, interruption runs: cat >> told.jsonl"));
    case.run("plan p.hift").works();
    assert!(!case.path("told.jsonl").exists());
    let running = case.start("run p.hift", &["\"steps\":300", "\"step\":20,"]);
    running.signal("TERM");
    running.end().fails(75, &[]);
    // Another run at work is no ending.
    case.run("run p.hift").works().is_silent();
    case.run("run p.hift").works().is_silent();
    fs::remove_file(case.path("rows.jsonl")).unwrap();
    case.run("run p.hift").fails(66, &[]);
    let told = case.lines("told.jsonl");
    let outcomes: Vec<&Json> = told.iter().map(|told| &told["outcome"]).collect();
    assert_eq!(outcomes, ["interruption", "success", "failure"]);
    let codes: Vec<&Json> = told.iter().map(|told| &told["exit_code"]).collect();
    assert_eq!(codes, [75, 0, 66]);
    assert!(told[0]["checkpoint"].as_str().unwrap().contains("checkpoints/sft-"));
    assert!(told[1]["exports"][0].as_str().unwrap().ends_with("out/final"));
    assert_eq!(told[1]["results"]["evaluations"][0]["stage"], "sft");
    assert!(told[2]["message"].as_str().unwrap().contains("rows.jsonl"));

    let case = hooked("failure");
    case.run("run p.hift").works();
    assert!(!case.path("told.jsonl").exists());
    // What becomes of a hook changes nothing about the run, and neither does what it prints.
    let case = hooked("success").with("cat >> told.jsonl", "echo hello; exit 3");
    let said = case.run("run p.hift --json");
    said.fails(0, &["hello", "hook `note` failed: exit status: 3"]);
    assert_eq!(said.json()["outcome"], "finished");
}

/// What TensorBoard reads in a run: for each value its name, its step and itself. The frames and their checksums must
/// be right.
fn tensorboard(case: &Case, run: &str) -> Vec<(String, u64, f32)> {
    let folder = case.path(&format!("{run}/tensorboard"));
    let files = names(&folder);
    assert_eq!(files.len(), 1, "{files:?}");
    let bytes = fs::read(folder.join(&files[0])).unwrap();
    let mut rest = bytes.as_slice();
    let mut take = |n: usize| {
        let (own, more) = rest.split_at(n);
        rest = more;
        (own, more.is_empty())
    };
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    let masked = |bytes: &[u8]| {
        let sum = crc32c::crc32c(bytes);
        sum.rotate_right(15).wrapping_add(0xa282_ead8)
    };
    let mut values = Vec::new();
    for n in 0.. {
        let length = take(8).0;
        assert_eq!(word(take(4).0), masked(length), "record {n}");
        let event = take(u64::from_le_bytes(length.try_into().unwrap()) as usize).0;
        let (sum, is_last) = take(4);
        assert_eq!(word(sum), masked(event), "record {n}");
        let fields = fields(event);
        let step = fields.iter().find(|(number, _)| *number == 2).map_or(0, |(_, field)| field.number());
        match n {
            0 => assert!(fields.iter().any(|(n, field)| *n == 3 && field.bytes() == b"brain.Event:2")),
            1 => assert!(
                fields.iter().any(|(n, field)| *n == 7 && field.bytes() == [8, 1]),
                "a session starts"
            ),
            _ => {
                let (_, summary) = fields.iter().find(|(number, _)| *number == 5).unwrap();
                for (_, value) in self::fields(summary.bytes()) {
                    let of = self::fields(value.bytes());
                    let name = String::from_utf8(of[0].1.bytes().to_vec()).unwrap();
                    values.push((name, step, f32::from_bits(of[1].1.number() as u32)));
                }
            }
        }
        if is_last {
            return values;
        }
    }
    unreachable!("a file has an end")
}

#[derive(Debug)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Field<'_> {
    fn number(&self) -> u64 {
        match self {
            Field::Number(number) => *number,
            Field::Bytes(bytes) => panic!("{bytes:?} is no number"),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Field::Bytes(bytes) => bytes,
            Field::Number(number) => panic!("{number} is no text"),
        }
    }
}

/// The fields of a protocol buffer, with their numbers.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let n = bytes.iter().take_while(|byte| **byte >= 0x80).count() + 1;
        let (own, rest) = bytes.split_at(n);
        *bytes = rest;
        own.iter().rev().fold(0, |all, byte| all << 7 | u64::from(byte & 0x7f))
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let fixed = |own: &[u8]| own.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            kind @ (1 | 5) => {
                let (own, rest) = bytes.split_at(if kind == 1 { 8 } else { 4 });
                bytes = rest;
                Field::Number(fixed(own))
            }
            2 => {
                let n = varint(&mut bytes) as usize;
                let (own, rest) = bytes.split_at(n);
                bytes = rest;
                Field::Bytes(own)
            }
            other => panic!("a field of kind {other}"),
        };
        fields.push((key >> 3, field));
    }
    fields
}

#[test]
fn tensorboard_sees_every_step_once_whenever_it_is_asked_for() {
    let case = Case::new().with("param steps = 8", "param steps = 200");
    // Half of it without, then killed, then taken up with.
    let running = case.start("run p.hift", &["\"step\":100,", "\"steps\":200"]);
    running.signal("KILL");
    running.end();
    assert!(!case.path("runs/p/tensorboard").exists(), "not asked for");
    let running = case.start("run p.hift --tensorboard", &["\"step\":150,", "\"steps\":200"]);
    running.signal("KILL");
    running.end();
    case.run("run p.hift --tensorboard").works().is_silent();
    let values = tensorboard(&case, "runs/p");
    let of = |name: &str| -> Vec<(u64, f32)> {
        values.iter().filter(|(own, ..)| own == name).map(|(_, step, value)| (*step, *value)).collect()
    };
    let metrics = case.lines("runs/p/metrics.jsonl");
    let figures = |key: &str| -> Vec<(u64, f32)> {
        metrics
            .iter()
            .map(|line| (line["step"].as_u64().unwrap(), line[key].as_f64().unwrap() as f32))
            .collect()
    };
    assert_eq!(metrics.len(), 200);
    for (name, key) in [("sft/loss", "loss"), ("sft/rate", "lr"), ("sft/grad_norm", "grad_norm")] {
        assert_eq!(of(name), figures(key), "{name}");
    }
    let head: Vec<(u64, f32)> = figures("grad_norm").into_iter().filter(|(step, _)| step % 4 == 0).collect();
    assert_eq!(of("sft grad_norm/head"), head);
    let held_out = case.evaluations("runs/p");
    let held_out: Vec<(u64, f32)> = held_out
        .iter()
        .map(|(_, step, metrics)| (step.as_u64().unwrap(), metrics["loss"].as_f64().unwrap() as f32))
        .collect();
    let mut seen = of("sft held-out/loss");
    // One that a kill has cut off from its checkpoint is made again, and gives the same.
    seen.dedup();
    assert_eq!(seen, held_out);
    // A run that goes back over its steps shows none of those that did not count.
    let case = Case::new()
        .with("constant(1e-2)", "constant(1e15)")
        .with("optimizer adamw", "optimizer sgd")
        .with("optimizer = adamw", "optimizer = sgd")
        .with("    evaluate { every = 4 steps }\n", "")
        .with(
            "every = 3 steps keep = 2 }",
            "every = 1 step }\n    divergence { then = roll_back(rate = 1e-9, times = 4) }",
        );
    case.run("run p.hift --tensorboard").fails(0, &["going on from step"]);
    let steps = tensorboard(&case, "runs/p").into_iter().filter(|(name, ..)| name == "sft/loss");
    assert_eq!(steps.map(|(_, step, _)| step).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
    fs::remove_dir_all(case.path("runs/p/tensorboard")).unwrap();
    case.put("runs/p/tensorboard", "a file in its place");
    case.unfinish("runs/p");
    case.run("run p.hift --tensorboard").fails(73, &["tensorboard"]);
}
