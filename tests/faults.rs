//! What a job that is left alone meets at night: processes that are killed, disks that fill up or fail, clocks that
//! jump. Nothing that was there before is lost, and what is taken up ends as the uninterrupted run does, to the bit.

mod common;

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

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
fn slurms_warning_is_heard_and_a_second_signal_ends_at_once() {
    let case = Case::new().with("param steps = 8", "param steps = 1000000");
    let running = case.start("run p.hift", &["\"step\":5,"]);
    running.signal("USR1");
    running.end().fails(75, &["interrupted (SIGUSR1); what was done is kept in"]);
    // So much to evaluate that the second signal comes before the first one is obeyed is hard to arrange: a step of
    // many micro-batches is not left off at once, but between two of them.
    let running = case.start("run p.hift", &["\"step\":"]);
    running.signal("STOP");
    running.signal("TERM");
    running.signal("INT");
    running.signal("CONT");
    let code = running.end().code;
    assert!(code == Some(128 + 2) || code == Some(128 + 15) || code == Some(75), "{code:?}");
    case.run("run p.hift --max-time 1s").fails(75, &[]);
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
