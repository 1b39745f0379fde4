//! What people look at while a job runs and afterwards, and what starts it without them.

mod common;

use std::fs;
use std::process::Command;

use serde_json::{Value as Json, json};

use common::case::{Case, HIFT, Said};

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
        "Rate of each group",
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
