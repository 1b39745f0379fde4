//! What a job that is left alone meets at night: processes that are killed, disks that fill up or fail, clocks that
//! jump. Nothing that was there before is lost, and what is taken up ends as the uninterrupted run does, to the bit.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use common::case::{Case, Said};

/// Numbers that look drawn, the same ones each time.
struct Draw(u64);

impl Draw {
    /// From 0 to below `n`.
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

#[test]
fn killed_at_fifty_moments_a_run_ends_as_if_nothing_had_been() {
    let case = Case::new()
        .with("param steps = 8", "param steps = 120")
        .with("every = 3 steps keep = 2", "every = 2 steps keep = 2 best = loss");
    let began = Instant::now();
    case.run("run p.hift --dir whole").works();
    // The same time for each kill, whatever the machine: from the start of the process to the end of a whole run.
    let whole = began.elapsed();
    let (weights, files) = (case.weights("out/final"), case.checkpoints("whole"));
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
    let (mut kills, mut runs) = (0, 0);
    while kills < 50 {
        let dir = format!("runs/{runs}");
        loop {
            let mut command = case.command(&format!("run p.hift --dir {dir}"));
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let life = whole.mul_f64(draw.below(1000) as f64 / 2500.0).max(Duration::from_millis(1));
            let born = Instant::now();
            let ended = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break Some(status);
                }
                if born.elapsed() >= life {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    break None;
                }
                std::thread::sleep(Duration::from_micros(300));
            };
            match ended {
                Some(status) => {
                    assert!(status.success(), "after {kills} kills: {status}");
                    break;
                }
                None => kills += 1,
            }
            if kills % 50 == 0 {
                // To its end.
                case.run(&format!("run p.hift --dir {dir}")).works();
                break;
            }
        }
        assert!(case.weights("out/final") == weights, "run {runs}, {kills} kills");
        assert_eq!(case.metrics(&dir), case.metrics("whole"), "run {runs}, {kills} kills");
        assert_eq!(case.evaluations(&dir), case.evaluations("whole"), "run {runs}, {kills} kills");
        assert_eq!(case.checkpoints(&dir), files, "run {runs}, {kills} kills");
        for file in ["weights.safetensors", "states.safetensors"] {
            let of = |run: &str| fs::read(case.path(&format!("{run}/checkpoints/latest/{file}"))).unwrap();
            assert!(of(&dir) == of("whole"), "run {runs}, {kills} kills: {file}");
        }
        runs += 1;
    }
    println!("{kills} kills in {runs} runs, {:.1} s", began.elapsed().as_secs_f64());
}

#[test]
fn one_wrong_byte_anywhere_is_found_and_the_checkpoint_before_is_used() {
    let case = Case::new();
    case.run("run p.hift").works();
    let (weights, metrics) = (case.weights("out/final"), case.metrics("runs/p"));
    for file in ["weights.safetensors", "states.safetensors", "position.json", "SHA256SUMS"] {
        for share in [0.0, 0.3, 0.9] {
            case.unfinish("runs/p");
            let path = format!("runs/p/checkpoints/sft-8/{file}");
            let mut bytes = fs::read(case.path(&path)).unwrap();
            let at = (share * bytes.len() as f64) as usize;
            bytes[at] ^= 0x10;
            case.put(&path, bytes);
            let said = case.run("run p.hift");
            said.fails(0, &["sft-8 is damaged", "set aside as runs/p/checkpoints/sft-8.damaged"]);
            assert_eq!(case.metrics("runs/p"), metrics, "{file} at {at}");
            assert!(case.weights("out/final") == weights, "{file} at {at}");
            assert_eq!(case.checkpoints("runs/p"), ["sft-6", "sft-8", "sft-8.damaged"]);
        }
    }
    // Without any that is sound, the run begins anew, and says so.
    case.unfinish("runs/p");
    for step in [6, 8] {
        fs::remove_file(case.path(&format!("runs/p/checkpoints/sft-{step}/states.safetensors"))).unwrap();
    }
    case.run("run p.hift").fails(0, &["sft-8 is damaged (states.safetensors is gone)", "sft-6 is damaged"]);
    assert_eq!(case.metrics("runs/p"), metrics);
}

#[test]
fn links_lead_to_the_latest_checkpoint_and_the_best() {
    let case = Case::new().with("every = 3 steps keep = 2", "every = 3 steps keep = 1 best = loss");
    case.run("run p.hift").works();
    let leads = |name: &str| fs::read_link(case.path(&format!("runs/p/checkpoints/{name}"))).unwrap();
    assert_eq!(leads("latest").to_str(), Some("sft-8"));
    let evaluations = case.evaluations("runs/p");
    let losses = evaluations.iter().map(|(_, step, metrics)| (metrics["loss"].as_f64().unwrap(), step));
    let best = losses.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap().1;
    assert_eq!(leads("best").to_str(), Some(format!("sft-{best}").as_str()));
    // Killed before they were moved, they are moved when the run goes on.
    case.unfinish("runs/p");
    case.shell("cd runs/p/checkpoints && ln -sfn gone latest && ln -sfn gone best").works();
    case.run("run p.hift").works();
    assert_eq!(leads("latest").to_str(), Some("sft-8"));
    assert_eq!(leads("best").to_str(), Some(format!("sft-{best}").as_str()));
    let sums = case.shell("cd runs/p/checkpoints/latest && sha256sum -c SHA256SUMS");
    assert!(sums.works().out.contains("states.safetensors: OK"), "{}", sums.out);
}

#[test]
fn a_stage_can_end_early_and_with_its_best_weights() {
    // A rate at which nothing gets better after a while.
    let text = "every = 1 step patience = 2 }\n    checkpoint { every = 50 steps keep = 1 best = loss result = best }";
    let case = Case::new()
        .with("param steps = 8", "param steps = 400")
        .with("every = 4 steps }\n    checkpoint { every = 3 steps keep = 2 }", text);
    let said = case.run("run p.hift --progress plain");
    said.fails(0, &["2 evaluations were no better than that at step", "ends with the weights of step"]);
    let evaluations = case.evaluations("runs/p");
    let losses: Vec<f64> =
        evaluations.iter().map(|(.., metrics)| metrics["loss"].as_f64().unwrap()).collect();
    let n = losses.len();
    let best = losses[n - 3];
    assert!(n < 400 && losses.iter().all(|loss| *loss >= best), "{losses:?}");
    let exported = case.weights("out/final");
    let of =
        |name: &str| fs::read(case.path(&format!("runs/p/checkpoints/{name}/weights.safetensors"))).unwrap();
    assert!(exported == of("best") && exported != of("latest"));
    assert_eq!(case.run("run p.hift --json").json()["outcome"], "nothing to do");
    // Interrupted on its way, it ends at the same step with the same weights.
    for sign in ["\"step\":1,", "\"step\":3,"] {
        // A busy machine may give the signal so late that it was at its end already.
        let is_there = case.path("again/events.jsonl").exists();
        if is_there && case.lines("again/events.jsonl").iter().any(|event| event["event"] == "finish") {
            break;
        }
        let running = case.start("run p.hift --dir again", &["\"steps\":400", sign]);
        running.signal("TERM");
        running.end();
    }
    case.run("run p.hift --dir again").works();
    assert_eq!(case.metrics("again"), case.metrics("runs/p"));
    assert!(case.weights("out/final") == exported);
    // Taken up after its end, it stays there.
    case.unfinish("again");
    case.run("run p.hift --dir again").works();
    assert_eq!(case.metrics("again"), case.metrics("runs/p"));
    assert!(case.weights("out/final") == exported);
}

#[test]
fn a_run_that_diverges_goes_back_as_the_file_says() {
    let wild = |then: &str| {
        Case::new()
            .with("constant(1e-2)", "constant(1e15)")
            .with("optimizer adamw", "optimizer sgd")
            .with("optimizer = adamw", "optimizer = sgd")
            .with("    evaluate { every = 4 steps }\n", "")
            .with("every = 3 steps keep = 2 }", &format!("every = 1 step }}\n    divergence {{ {then} }}"))
    };
    let case = wild("then = roll_back(rate = 1e-9, times = 4)");
    let said = case.run("run p.hift");
    said.fails(0, &["is NaN at step", "going on from step", "at 1.00e-9 times the rate"]);
    assert_eq!(case.metrics("runs/p").len(), 8);
    let backs = |case: &Case| {
        case.lines("runs/p/events.jsonl").iter().filter(|event| event["event"] == "roll_back").count()
    };
    let needed = backs(&case);
    assert!((1..=4).contains(&needed));
    // Not more often than it may.
    let case = wild("then = roll_back(rate = 0.5, times = 2)");
    case.run("run p.hift").fails(1, &["is NaN at step"]);
    assert_eq!(backs(&case), 2);
    let case = wild("then = stop");
    case.run("run p.hift").fails(1, &["is NaN at step"]);
    assert_eq!(backs(&case), 0);
}

#[test]
fn a_spike_of_the_loss_counts_as_diverged() {
    // From one row on all labels are those of another language, as it were.
    let rows = |n: u64| {
        let ids: Vec<u64> = (0..8).map(|t| 3 + if n < 60 { t } else { 7 * n % 61 }).collect();
        format!("{}\n", serde_json::json!({ "input_ids": ids, "labels": ids }))
    };
    let case = Case::new()
        .write("rows.jsonl", (0..90).map(rows).collect::<String>())
        .with("param steps = 8", "param steps = 40")
        .with("holdout = 2 rows", "shuffle = none")
        .with("    evaluate { every = 4 steps }\n", "")
        .with("every = 3 steps keep = 2 }", "every = 3 steps }\n    divergence { spike = 1.5 }");
    let said = case.run("run p.hift");
    said.fails(1, &["of stage `sft`, more than 1.5 times its mean of", "lower the rate's peak"]);
    let steps = case.metrics("runs/p").len();
    assert!((10..40).contains(&steps), "{steps}");
    // Without the word it goes on.
    let case = case.with(" divergence { spike = 1.5 }", "");
    case.run("run p.hift --dir on").works();
}

#[test]
fn a_run_ends_in_time() {
    let case = Case::new().with("param steps = 8", "param steps = 1000000");
    let began = Instant::now();
    let said = case.run("run p.hift --max-time 1500ms");
    said.fails(75, &["interrupted (the time of --max-time is up)", "call the same command again"]);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let steps = case.metrics("runs/p").len();
    assert!(steps > 0);
    let last = case.lines("runs/p/events.jsonl").pop().unwrap();
    assert_eq!((&last["event"], &last["by"]), (&"interrupt".into(), &"the time of --max-time is up".into()));
    // The end that Slurm has set.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut command = case.command("run p.hift");
    let said = Said::of(command.env("SLURM_JOB_END_TIME", (now + 2).to_string()), "a Slurm job");
    said.fails(75, &["the job's time is up (SLURM_JOB_END_TIME)"]);
    assert!(case.metrics("runs/p").len() > steps);
    case.run("run p.hift --max-time soon").fails(2, &["--max-time"]);
}

#[test]
fn slurms_warning_is_heard() {
    let case = Case::new().with("param steps = 8", "param steps = 1000000");
    let running = case.start("run p.hift", &["\"step\":5,"]);
    running.signal("USR1");
    running.end().fails(75, &["interrupted (SIGUSR1); what was done is kept in"]);
    case.run("run p.hift --max-time 1s").fails(75, &[]);
}

/// With a model of 20 MiB and as much again, twice, of states: a checkpoint takes its time.
fn large() -> Case {
    let case = Case::new().with("    evaluate { every = 4 steps }\n", "");
    case.edit("config.json", "\"vocab_size\":64", "\"vocab_size\":20000").edit(
        "config.json",
        "\"hidden_size\":16",
        "\"hidden_size\":128",
    )
}

/// Waits until something is true.
#[track_caller]
fn until(what: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !what() {
        assert!(Instant::now() < patience, "it does not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_signal_is_heard_while_rows_are_tokenised() {
    let case = Case::stages().write("words.txt", "one two three four\n".repeat(1_000_000));
    let cache = case.path("cache");
    let mut command = case.command("run p.hift");
    let mut child = command.env("HIFT_CACHE", &cache).stderr(Stdio::piped()).spawn().unwrap();
    until(|| !common::case::names(&cache).is_empty());
    let asked = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let code = child.wait().unwrap().code();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("interrupted while the data was being tokenised"), "{said}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert!(!case.path("runs").exists());
}

#[test]
fn a_signal_is_heard_between_micro_batches() {
    // Steps of thousands of them.
    let case = Case::new()
        .write("rows.jsonl", (0..8000).map(common::case::row).collect::<String>())
        .with("    evaluate { every = 4 steps }\n", "")
        .with("micro_batch = 2", "micro_batch = 1 accumulate = 7000");
    let running = case.start("run p.hift", &["\"step\":1,"]);
    running.signal("INT");
    running.end().fails(75, &["interrupted (SIGINT)"]);
    assert_eq!(case.metrics("runs/p").len(), 1, "the second step was left off");
    // What has been measured of the memory is told, though the stage is not at its end.
    let events = case.lines("runs/p/events.jsonl");
    let memory: Vec<_> = events.iter().filter(|event| event["event"] == "memory").collect();
    assert_eq!(memory.len(), 1, "{events:?}");
    assert_eq!(memory[0]["measured"], case.lines("runs/p/metrics.jsonl")[0]["device_peak_bytes"]);
    assert_eq!(case.checkpoints("runs/p"), ["sft-1"]);
}

#[test]
fn a_signal_is_heard_while_texts_are_generated() {
    let prompts = vec!["\"one two\""; 3000].join(", ");
    let case = Case::stages().with("\"one two\"", &prompts).with("steps = 200", "steps = 2");
    let texts = |run: &str| {
        let events = case.lines(&format!("{run}/events.jsonl"));
        events.iter().filter(|event| event["event"] == "generate").count()
    };
    let running = case.start("run p.hift", &["\"stage\":\"talk\",\"index\":3"]);
    running.signal("INT");
    running.end().fails(75, &["interrupted (SIGINT)"]);
    assert_eq!(texts("runs/p"), 0, "some of the texts would pass for all");
    assert!(!case.path("out/final").exists());
    case.run("run p.hift").works();
    assert_eq!(texts("runs/p"), 3000);
}

#[test]
fn a_signal_is_heard_while_a_checkpoint_is_written() {
    let case = large().with("every = 3 steps keep = 2", "every = 1 step keep = 1");
    let writing = || {
        common::case::names(&case.path("runs/p/checkpoints")).iter().any(|name| name.ends_with(".writing"))
    };
    let running = case.start("run p.hift", &["\"stage\":\"sft\""]);
    until(writing);
    running.signal("TERM");
    running.end().fails(75, &["interrupted (SIGTERM)", "checkpoints/sft-"]);
    // What was being written is what is gone on from; nothing is trained after the signal.
    let made = case.metrics("runs/p").len();
    assert_eq!(case.checkpoints("runs/p").last(), Some(&format!("sft-{made}")));
    // A second signal does not wait for the disk.
    let running = case.start("run p.hift", &["\"stage\":\"sft\""]);
    until(writing);
    running.signal("TERM");
    until(|| running.has_taken("TERM"));
    running.signal("INT");
    let code = running.end().code;
    assert_eq!(code, Some(128 + 2));
    case.run("run p.hift").works();
    assert_eq!(case.metrics("runs/p").len(), 8);
}

#[test]
fn taking_a_run_up_needs_no_more_memory_than_the_run() {
    let case = large();
    let most = |run: &str| {
        let lines = case.lines(&format!("{run}/metrics.jsonl"));
        lines.iter().map(|line| line["host_peak_bytes"].as_u64().unwrap()).max().unwrap()
    };
    case.run("run p.hift").works();
    let whole = most("runs/p");
    // As if it had died right after its checkpoint: the last steps are those of another process.
    fs::remove_dir_all(case.path("runs/p/checkpoints/sft-8")).unwrap();
    case.unfinish("runs/p");
    case.run("run p.hift").works();
    let resumed = case.lines("runs/p/metrics.jsonl").pop().unwrap()["host_peak_bytes"].as_u64().unwrap();
    println!("at the most {whole} B, taken up {resumed} B");
    // What the allocator keeps for its threads differs from process to process; the checkpoint in memory beside the
    // tensors would be 60 MiB more.
    assert!(resumed <= whole + (8 << 20), "{resumed} B where the run had {whole} B");
}

#[test]
fn a_folder_that_fails_in_the_middle_costs_nothing() {
    let case = Case::new().with("param steps = 8", "param steps = 1000000");
    let running = case.start("run p.hift", &["\"step\":20,"]);
    fs::rename(case.path("runs/p/checkpoints"), case.path("aside")).unwrap();
    case.put("runs/p/checkpoints", "a file in its place");
    running.end().fails(73, &["cannot be written"]);
    let last = case.lines("runs/p/events.jsonl").pop().unwrap();
    assert_eq!(last["event"], "fail");
    fs::remove_file(case.path("runs/p/checkpoints")).unwrap();
    fs::rename(case.path("aside"), case.path("runs/p/checkpoints")).unwrap();
    case.run("run p.hift --max-time 1s --progress plain").fails(75, &["going on from", "interrupted"]);
}

#[test]
fn folders_that_become_read_only_in_the_middle_cost_nothing() {
    let case = Case::new()
        .with("param steps = 8", "param steps = 900")
        .with("every = 3 steps keep = 2", "every = 30 steps keep = 2");
    case.run("run p.hift --dir whole").works();
    let (weights, metrics, exported) = (case.weights("out/final"), case.metrics("whole"), case.files("out"));
    // Whoever may do everything writes into read-only folders, too, and runs it as nobody.
    let root = case.shell("test $(id -u) = 0").code == Some(0);
    let may = if root { "setpriv --reuid 65534 --regid 65534 --clear-groups" } else { "" };
    if root && case.shell(&format!("chown -R 65534 . && {may} $HIFT --version")).code != Some(0) {
        println!("skipped: nobody may not run {}", common::case::HIFT);
        return;
    }
    // `folder` is read-only from a while after the start until the run has ended.
    let run = |folder: &str, after: &str| {
        case.shell(&format!(
            "{may} \"$HIFT\" run p.hift & until test -e runs/p/checkpoints/{after}; do sleep 0.01; done; \
             chmod a-w {folder}; wait $!; code=$?; chmod u+w {folder}; exit $code"
        ))
    };
    let said = run("runs/p/checkpoints", "sft-30");
    said.fails(73, &["runs/p/checkpoints", "cannot be written: Permission denied"]);
    assert!(!case.checkpoints("runs/p").is_empty() && case.files("out") == exported);
    let said = run("out", "sft-90");
    said.fails(73, &["out/final cannot be written: Permission denied"]);
    assert!(case.files("out") == exported && case.checkpoints("runs/p").last().unwrap() == "sft-900");
    fs::remove_dir_all(case.path("out/final")).unwrap();
    case.shell(&format!("{may} \"$HIFT\" run p.hift")).works();
    assert_eq!(case.metrics("runs/p"), metrics);
    assert!(case.weights("out/final") == weights);
}

#[test]
fn data_that_changes_under_a_running_job_does_not_change_the_job() {
    let case = Case::new().with("param steps = 8", "param steps = 300");
    case.run("run p.hift --dir whole").works();
    let (whole, rows) = (case.weights("out/final"), fs::read(case.path("rows.jsonl")).unwrap());
    let running = case.start("run p.hift", &["\"steps\":300", "\"step\":20,"]);
    case.put("rows.jsonl", (20..32).map(common::case::row).collect::<String>());
    running.end().works();
    assert!(case.weights("out/final") == whole);
    // Interrupted, it would not go on with other rows.
    case.unfinish("runs/p");
    case.run("run p.hift").fails(65, &["`rows.jsonl` has changed since the run in runs/p began"]);
    case.put("rows.jsonl", rows);
    case.run("run p.hift").works();
}

#[test]
fn a_disk_that_is_too_small_is_found_before_anything_is_trained() {
    let case = Case::new();
    // A file system of its own, which goes with the process. A checkpoint takes about 80 KiB, and three are there at
    // a time.
    let script =
        "mkdir small && mount -t tmpfs -o size=200k none small && exec \"$HIFT\" run p.hift --dir small/run";
    let said =
        case.shell(&format!("unshare -m true 2>/dev/null || exit 99; exec unshare -m sh -c '{script}'"));
    if said.code == Some(99) || said.err.contains("mount:") {
        println!("skipped: no small file system can be mounted here: {}", said.err);
        return;
    }
    said.fails(73, &["the plan writes", "to small/run, where", "are free", "keep fewer checkpoints"]);
    // With room for the plan, it runs.
    let roomy = script.replace("mkdir small && ", "").replace("200k", "2m");
    case.shell(&format!("exec unshare -m sh -c '{roomy}'")).works();
}

/// A case whose states and weights rest on disk.
fn on_disk() -> Case {
    Case::new()
        .with("param steps = 8", "param steps = 300")
        .with("rate = constant(1e-2)", "rate = constant(1e-2) states = disk weights = disk")
}

#[test]
fn what_rests_on_disk_is_gone_with_a_kill_and_the_run_goes_on() {
    let case = on_disk();
    case.run("run p.hift --dir whole").works();
    let (weights, metrics) = (case.weights("out/final"), case.metrics("whole"));
    for scratch in ["", "--scratch fast/disk"] {
        let running = case.start(&format!("run p.hift {scratch}"), &["\"steps\":300", "\"step\":20,"]);
        running.signal("KILL");
        running.end();
        let names = |folder: &str| -> BTreeSet<OsString> {
            fs::read_dir(case.path(folder)).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        assert_eq!(names("runs/p"), names("whole"), "{scratch}");
        assert!(scratch.is_empty() || names("fast/disk").is_empty());
        case.run(&format!("run p.hift {scratch}")).works();
        assert!(case.weights("out/final") == weights, "{scratch}");
        assert_eq!(case.metrics("runs/p"), metrics, "{scratch}");
        fs::remove_dir_all(case.path("runs")).unwrap();
    }
}

#[test]
fn a_disk_has_room_for_what_rests_there_before_anything_is_trained_and_to_the_end() {
    let case = on_disk();
    case.run("run p.hift --dir whole").works();
    let weights = case.weights("out/final");
    // As above; each of the model's tensors and each of its states has a file of a page or two.
    let script = "mkdir -p small && mount -t tmpfs -o size=SIZE none small && exec sh -c 'RUN'";
    let shell = |size: &str, run: &str| {
        let script = script.replace("SIZE", size).replace("RUN", run);
        case.put("script.sh", script);
        case.shell("unshare -m true 2>/dev/null || exit 99; exec unshare -m sh script.sh")
    };
    let said = shell("60k", "exec \"$HIFT\" run p.hift --scratch small");
    if said.code == Some(99) || said.err.contains("mount:") {
        println!("skipped: no small file system can be mounted here: {}", said.err);
        return;
    }
    said.fails(73, &["the plan writes", "to small, where", "for what rests on disk", "`--scratch`"]);
    assert!(!case.path("runs/p").exists());
    // Somebody else fills the disk while the run is at work: it has what it needs.
    let full = "\"$HIFT\" run p.hift --scratch small & run=$!
        until grep -q \"\\\"step\\\":5,\" runs/p/metrics.jsonl 2>/dev/null; do sleep 0.02; done
        ! cat /dev/zero > small/fill 2>/dev/null || exit 98
        wait $run";
    shell("1m", full).works();
    assert!(case.weights("out/final") == weights);
}

#[test]
fn memory_that_is_refused_while_tokenising_ends_the_run_with_words() {
    // Held in memory, since there is no cache: 2 x 4 bytes a token, and more while it grows.
    let words = "one two three four ".repeat(500);
    let case = Case::stages();
    case.run("run p.hift").works();
    let before = [case.files("runs/p"), case.files("out")];
    case.put("words.txt", format!("{words}\n").repeat(12_000));
    let limited = |kib: u64| case.shell(&format!("ulimit -v {kib}; exec \"$HIFT\" run p.hift --dir other"));
    // What the program needs to begin with is the system's and the allocator's matter: more and more, until it gets to
    // the rows.
    let at_the_rows = (1..12).map(|n| limited(n * 60_000)).find(|said| said.err.contains("tokenised"));
    let said = at_the_rows.expect("some limit is between its beginning and its rows");
    said.fails(
        1,
        &["hift: out of memory while rows were read and tokenised", "RAYON_NUM_THREADS", "MiB in use"],
    );
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    assert!([case.files("runs/p"), case.files("out")] == before, "what was there is as it was");
    assert!(!case.path("other/checkpoints").exists());
}

/// Rows of text in parquet, in groups of so many.
fn parquet(rows: usize, a_group: usize) -> Vec<u8> {
    let texts: StringArray = (0..rows).map(|row| Some(format!("one two three four {row}"))).collect();
    let batch = RecordBatch::try_from_iter([("text", Arc::new(texts) as ArrayRef)]).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(a_group)).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn rows_that_cannot_be_read_in_the_middle_of_a_file_are_named() {
    let case = Case::stages();
    let text = fs::read_to_string(case.path("p.hift")).unwrap();
    case.put("p.hift", text.replace("text(\"words.txt\")", "parquet(\"words.parquet\")"));
    let whole = parquet(20_000, 1000);
    case.put("words.parquet", &whole);
    // Without a cache, and with one: nothing of a file that is broken is kept.
    let run = |name: &str, cached: bool| {
        let cache = if cached { case.path("cache") } else { Default::default() };
        Said::of(case.command(&format!("run p.hift --dir {name}")).env("HIFT_CACHE", cache), name)
    };
    run("first", true).works();
    let before = [case.files("first"), case.files("out"), case.files("cache")];
    let mut broken = whole.clone();
    let middle = broken.len() / 2;
    broken[middle..middle + 2000].fill(0xff);
    for (cached, name) in [(true, "first"), (false, "second")] {
        case.put("words.parquet", &broken);
        let said = run(name, cached);
        said.fails(65, &["`words.parquet` is not a whole parquet file: behind row "]);
        let row = said.err.split("behind row ").nth(1).unwrap().split(':').next().unwrap();
        let row: usize = row.parse().unwrap();
        assert!((4096..16_000).contains(&row), "{row}");
        // Cut off, as by a download that has ended too soon.
        case.put("words.parquet", &whole[..middle]);
        run(name, cached).fails(65, &["`words.parquet` is not a parquet file"]);
    }
    let after = [case.files("first"), case.files("out"), case.files("cache")];
    let names =
        |all: &[BTreeMap<PathBuf, Vec<u8>>]| all.iter().flat_map(|files| files.keys().cloned()).collect();
    let (was, is): (Vec<PathBuf>, Vec<PathBuf>) = (names(&before), names(&after));
    assert_eq!(is, was);
    assert!(after == before && !case.path("second").exists());
    case.put("words.parquet", &whole);
    assert_eq!(run("first", true).works().err, "");
}

/// Whatever time it is, the clock on the wall jumps by ten years at each glance: back, ahead, back.
const JUMPING: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    static atomic_int n;
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (clock == CLOCK_REALTIME) time->tv_sec += (atomic_fetch_add(&n, 1) % 2 ? 1 : -1) * 315576000L;
    return result;
}
"#;

#[test]
fn a_clock_that_jumps_changes_no_figure() {
    let case = Case::new().with("param steps = 8", "param steps = 60").write("jump.c", JUMPING);
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o", "jump.so", "jump.c", "-ldl"])
        .current_dir(case.folder.path())
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        println!("skipped: there is no C compiler to make a clock that jumps");
        return;
    }
    case.run("run p.hift --dir whole").works();
    let library = case.path("jump.so");
    let run = |arguments: &str| Said::of(case.command(arguments).env("LD_PRELOAD", &library), arguments);
    // Interrupted by a time that counts on another clock, and taken up.
    case.put(
        "long.hift",
        fs::read_to_string(case.path("p.hift")).unwrap().replace("steps = 60", "steps = 100000"),
    );
    let began = Instant::now();
    run("run long.hift --dir long --max-time 1500ms").fails(75, &["the time of --max-time is up"]);
    assert!(began.elapsed() > Duration::from_millis(400), "{:?}", began.elapsed());
    assert!(case.metrics("long").len() > 1);
    let said = run("run p.hift --dir jumped --progress plain");
    assert!(!said.works().err.contains("0000 s left"), "{}", said.err);
    assert_eq!(case.metrics("jumped"), case.metrics("whole"));
    let took = began.elapsed().as_secs_f64();
    let mut sum = 0.0;
    for line in case.lines("jumped/metrics.jsonl") {
        sum += line["seconds"].as_f64().unwrap();
    }
    assert!(sum > 0.0 && sum < took, "{sum} s");
    let events = case.lines("jumped/events.jsonl");
    let years: Vec<&str> = events.iter().map(|event| &event["time"].as_str().unwrap()[..4]).collect();
    assert!(years.windows(2).any(|years| years[0] != years[1]), "it has jumped: {years:?}");
    for event in events.iter().filter(|event| event.get("seconds").is_some()) {
        assert!((0.0..took).contains(&event["seconds"].as_f64().unwrap()), "{event}");
    }
    for command in ["status jumped", "status long", "runs .", "report jumped", "run p.hift --dir jumped"] {
        run(command).works();
    }
    let status = run("status jumped --json").works().json();
    assert_eq!(status["stages"][0]["step"], 60, "{status}");
    run("run long.hift --dir long --max-time 700ms").fails(75, &["interrupted"]);
}

#[test]
fn the_scale_of_the_loss_is_taken_up_and_so_are_packed_accumulated_turns() {
    let words = ["one", "two", "three", "four"];
    let lines =
        (0..60).map(|n| (0..2 + n % 5).map(|t| words[(n * 3 + t * t) % 4]).collect::<Vec<_>>().join(" "));
    let case = Case::stages().write("words.txt", lines.map(|line| line + "\n").collect::<String>());
    let text = r#"hift 1
data words { source = text("words.txt") format = text holdout = 4 rows shuffle = seed(5) }
tokenizer plain { file = "tokenizer.json" max_length = 16 tokens pack = true }
model tiny { weights = random("config.json", seed = 1) precision = mixed_hi(fp16) }
groups layers { split = by_layer(1) }
schedule turns { rate = linear(1e-3) dwell = 3 steps order = random(seed = 3, redraw = per_cycle) }
optimizer adamw {}
train sft {
    data = words tokenizer = plain model = tiny groups = layers schedule = turns optimizer = adamw
    steps = 60 micro_batch = 2 accumulate = 3
    evaluate { every = 20 steps }
    checkpoint { every = 7 steps keep = 2 }
}
export final { from = sft to = "out/final" dtype = fp32 }
"#;
    case.put("p.hift", text);
    // Logits so large that gradients of the first steps overflow, times 65,536.
    let config = fs::read_to_string(case.path("config.json")).unwrap();
    case.put("config.json", config.replace("\"initializer_range\":0.08", "\"initializer_range\":6.0"));
    case.run("run p.hift --dir whole").works();
    let (weights, metrics) = (case.weights("out/final"), case.metrics("whole"));
    let overflows = |run: &str| {
        let events = case.lines(&format!("{run}/events.jsonl"));
        let at = events.into_iter().filter(|event| event["event"] == "overflow");
        at.map(|event| (event["step"].as_u64().unwrap(), event["loss_scale"].to_string())).collect::<Vec<_>>()
    };
    let seen = overflows("whole");
    assert!(!seen.is_empty() && seen[0].0 < 30, "{seen:?}");
    // Killed behind each tenth step or so, wherever that falls in a turn.
    for after in (3..60).step_by(9) {
        let sign = format!("\"step\":{after},");
        let running = case.start("run p.hift --dir again", &[&sign, "\"steps\":60"]);
        running.signal("KILL");
        running.end();
    }
    case.run("run p.hift --dir again").works();
    assert!(case.weights("out/final") == weights);
    assert_eq!(case.metrics("again"), metrics);
    let last = |run: &str| case.json(&format!("{run}/checkpoints/latest/position.json"))["scale"].clone();
    assert_eq!(last("again"), last("whole"));
    assert_ne!(last("whole")["factor"], 65536.0);
    assert_eq!(case.evaluations("again"), case.evaluations("whole"));
}
