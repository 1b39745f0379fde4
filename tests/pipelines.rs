//! The files that users copy: each is checked and planned, and those that are small are run.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hift::cli::disk::Disk;
use hift::data::Library;
use hift::estimate::{estimate, settle};
use hift::lang::pipeline::{Metric, Order, Split};
use hift::lang::{self, Options};
use hift::plan::{RunAgain, StagePlan, TrainPlan, compile};
use hift::run::Ending;

use common::{pipeline, planned, run};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines")
}

fn text(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

#[test]
fn every_pipeline_is_checked_and_planned() {
    let mut planned_files = Vec::new();
    let mut waiting = vec![folder()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "hift") {
            continue;
        }
        // Their data and models are not of this repository: the next test plans them without.
        if path.parent().is_some_and(|parent| parent.ends_with("quality")) {
            continue;
        }
        let name = path.strip_prefix(folder()).unwrap().to_string_lossy().into_owned();
        let folder = path.parent().unwrap().to_path_buf();
        let pipeline = pipeline(&folder, &text(&name));
        let mut library = Library::new(folder, &|| false);
        let plan = planned(&pipeline, &mut library).unwrap_or_else(|error| panic!("{name}: {error}"));
        let figures = estimate(&plan, 2);
        assert_eq!(figures.stages.len(), pipeline.stages.len(), "{name}");
        assert!(figures.peak.0 > 0, "{name}");
        planned_files.push(name);
    }
    assert!(planned_files.len() >= 10, "{planned_files:?}");
}

/// What compares HiFT with full fine-tuning: both have the same steps and rates and train every weight, and nothing is
/// warned about. Planned without rows, for models that are a `config.json` here.
#[test]
fn methods_that_are_compared_differ_in_their_groups_alone() {
    let planned = |name: &str, model: &str, profiles: &[&str]| {
        let folder = folder().join("quality");
        let set = vec![("model".into(), folder.join("..").join(model).to_string_lossy().into_owned())];
        let profiles = profiles.iter().map(ToString::to_string).collect();
        let options = Options { folder, set, profiles, ..Options::default() };
        let (read, problems) = lang::check(&text(&format!("quality/{name}")), &options);
        assert!(problems.0.is_empty(), "{name}: {problems}");
        let plan = compile(&read.unwrap(), &mut Disk { library: None }).unwrap();
        let [StagePlan::Train(train)] = &*plan.stages else { panic!("{name}: it trains and no more") };
        train.clone()
    };
    let names = [
        ("sst2.hift", "paper/roberta-base", 14),
        ("e2e.hift", "llama-7b", 34),
        ("alpaca.hift", "llama-7b", 34),
    ];
    for (name, model, n_groups) in names {
        let (hift, full) = (planned(name, model, &[]), planned(name, model, &["full"]));
        assert_eq!((hift.groups.len(), full.groups.len()), (n_groups, 1), "{name}");
        let n_trained = |train: &TrainPlan| train.groups.iter().map(|group| group.n_elements).sum::<u64>();
        assert_eq!(n_trained(&hift), n_trained(&full), "{name}: every weight");
        assert_eq!(
            (hift.steps, hift.seed, hift.rate.peak),
            (full.steps, full.seed, full.rate.peak),
            "{name}"
        );
    }
    let folder = folder().join("quality");
    let files = fs::read_dir(folder).unwrap().filter(|entry| {
        entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "hift")
    });
    assert_eq!(files.count(), names.len(), "each file is tried");
}

/// The paper's figures for LLaMA-7B: parameters, and those of the largest group.
#[test]
fn seven_billion_parameters_are_planned_without_weights_in_no_time() {
    let pipeline = pipeline(&folder(), &text("llama-7b.hift"));
    let began = Instant::now();
    let plan = compile(&pipeline, &mut Disk { library: None }).unwrap();
    let figures = estimate(&plan, 2);
    let took = began.elapsed();
    let StagePlan::Train(train) = &plan.stages[0] else { panic!("it trains") };
    assert_eq!(train.model.n_elements, 6_738_415_616);
    assert_eq!(train.groups.iter().map(|group| group.n_elements).max(), Some(202_383_360));
    assert_eq!(train.groups.len(), 34);
    // 4 bytes a weight; Adam's two moments for every weight.
    let by = figures.stages[0].groups[0].by;
    assert_eq!((by.weights.0, by.states.0), (4 * 6_738_415_616, 8 * 6_738_415_616));
    // Kept for each of the 32 blocks and 8 x 512 tokens: six of hidden, two of ffn, a log-sum-exp per head; and once
    // the table of positions and what the head's norm reads.
    let tokens = 8 * 512;
    let block = tokens * (6 * 4096 + 2 * 11_008 + 32);
    assert_eq!(by.kept.0, 4 * (32 * block + tokens * 128), "{by:?}");
    // A fifth of a second is promised; a busy machine may take longer.
    assert!(took < Duration::from_secs(2), "planning took {took:?}");
}

/// The card that the paper's largest models want, and no more: with masters and states of resting groups on the host.
#[test]
fn seven_billion_parameters_fit_a_card_of_24_gb() {
    let pipeline = pipeline(&folder(), &text("llama-7b-24gb.hift"));
    let plan = settle(compile(&pipeline, &mut Disk { library: None }).unwrap(), 2);
    let figures = estimate(&plan, 2);
    let StagePlan::Train(train) = &plan.stages[0] else { panic!("it trains") };
    let (n, block) = (6_738_415_616_u64, 202_383_360_u64);
    // Half weights. The lowest block's masters and moments come when most activations are gone, the highest block's are
    // the most that is there. All masters and moments have a place on the host.
    let by = |group: usize| figures.stages[0].groups[group].by;
    assert_eq!([by(1).weights.0, by(1).masters.0, by(1).states.0], [2 * n, 0, 0]);
    // But for a norm, which has gone home.
    let there = block - 4096;
    assert_eq!([by(32).weights.0, by(32).masters.0, by(32).states.0], [2 * n, 4 * there, 8 * there]);
    assert_eq!(figures.stages[0].host.0, 12 * n);
    let limit = train.memory_limit.unwrap();
    assert!(figures.stages[0].peak <= limit, "{} of {limit}", figures.stages[0].peak);
    // What has room is kept: of a block and 4,096 tokens two bytes for six of hidden and two of ffn.
    let kept = 2 * 4096 * (6 * 4096 + 2 * 11_008);
    assert!(limit.0 - figures.stages[0].peak.0 < kept, "{} of {limit}", figures.stages[0].peak);
    let RunAgain::Blocks(blocks) = &train.run_again else { panic!("{:?}", train.run_again) };
    assert!(blocks[1].len() < 20 && blocks[33].is_empty(), "{blocks:?}");
}

/// The same where the host has little memory, too: what rested there rests on disk.
#[test]
fn what_rests_on_disk_is_no_memory_of_the_host() {
    let planned = |profiles: &[&str]| {
        let profiles = profiles.iter().map(|name| (*name).to_string()).collect();
        let options = Options { folder: folder(), profiles, ..Options::default() };
        let (pipeline, problems) = lang::check(&text("llama-7b-24gb.hift"), &options);
        let pipeline = pipeline.unwrap_or_else(|| panic!("{problems}"));
        let plan = settle(compile(&pipeline, &mut Disk { library: None }).unwrap(), 2);
        let StagePlan::Train(train) = &plan.stages[0] else { panic!("it trains") };
        let limit = train.memory_limit.unwrap();
        (estimate(&plan, 2).stages.remove(0), limit)
    };
    let n = 6_738_415_616_u64;
    let ((host, limit), (disk, _), (all, _)) =
        (planned(&[]), planned(&["disk"]), planned(&["disk", "streamed"]));
    // Masters and two moments of every weight; 32 MiB each way to copy through. Every size is one of whole pages.
    assert_eq!((host.host.0, host.scratch.0, host.staging.0), (12 * n, 0, 0));
    assert_eq!((disk.host.0, disk.scratch.0, disk.staging.0), (0, 12 * n, 64 << 20));
    assert!(disk.peak <= limit, "{} of {limit}", disk.peak);
    assert_eq!((all.host.0, all.scratch.0), (2 * n, 12 * n));
    for (host, disk) in host.groups.iter().zip(&disk.groups) {
        assert_eq!((host.disk_transfers.0, disk.host_transfers.0), (0, 0));
        // But for what recomputes: it is the group's masters and moments, there and back.
        assert_eq!(disk.disk_transfers.0, 24 * disk.n_elements);
        assert_eq!(disk.disk_transfers, host.host_transfers);
    }
}

/// A few steps of a pipeline, in a folder of its own.
fn short(name: &str, steps: u64) -> (common::Seen, Ending, tempfile::TempDir) {
    let place = tempfile::tempdir().unwrap();
    for files in ["quickstart", "chat", "words"] {
        fs::create_dir(place.path().join(files)).unwrap();
        for entry in fs::read_dir(folder().join(files)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, place.path().join(files).join(path.file_name().unwrap())).unwrap();
        }
    }
    let text = text(name).replace("\"../out/", "\"out/");
    let full = text.lines().find(|line| line.trim_start().starts_with("steps ")).unwrap().to_string();
    let text = text.replace(&full, &format!("    steps = {steps}"));
    let (seen, _, ending) = run(place.path(), &text).unwrap_or_else(|error| panic!("{name}: {error}"));
    (seen, ending, place)
}

#[test]
fn the_quickstart_learns_and_exports() {
    let (seen, ending, place) = short("quickstart.hift", 400);
    let loss =
        |at: usize| seen.evaluations[at].1.iter().find(|(metric, _)| *metric == Metric::Loss).unwrap().1;
    let last = seen.evaluations.len() - 1;
    assert!(loss(0) > 4.0 && loss(last) < 1.0, "held out: {} to {}", loss(0), loss(last));
    assert!(!seen.texts.is_empty(), "it shows what it learned");
    let Ending::Finished { exports } = ending else { panic!("{ending:?}") };
    assert!(exports[0].starts_with(place.path().canonicalize().unwrap()));
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        assert!(exports[0].join(file).exists(), "{file}");
    }
}

#[test]
fn entities_and_answers_are_learned() {
    let check = |name: &str, steps: u64, metric: Metric, least: f64| {
        let (seen, ..) = short(name, steps);
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        let (first, last) = (mean(&seen.losses[..10]), mean(&seen.losses[seen.losses.len() - 10..]));
        let of = |metrics: &[(Metric, f64)]| {
            metrics.iter().find(|(own, _)| *own == metric).map(|(_, value)| *value)
        };
        let found = seen.evaluations.iter().filter_map(|evaluation| of(&evaluation.1)).next_back();
        assert!(last < first / 2.0, "{name}: {first} to {last}");
        assert!(found.is_some_and(|found| found >= least), "{name}: {found:?}");
    };
    check("entities.hift", 150, Metric::EntityF1, 0.9);
    check("answers.hift", 200, Metric::F1, 0.25);
}

#[test]
fn full_fine_tuning_is_one_group() {
    let (seen, ..) = short("full.hift", 3);
    assert_eq!(seen.groups[0].len(), 4, "all layers in every step: {:?}", seen.groups[0]);
    assert!(seen.groups.windows(2).all(|pair| pair[0] == pair[1]));
    let pipeline = pipeline(&folder(), &text("full.hift"));
    let lang::pipeline::Stage::Train(train) = &pipeline.stages[0] else { panic!("it trains") };
    assert_eq!((&*train.groups.split, &*train.schedule.order), (&Split::All, &Order::BottomUp));
}

#[test]
fn chats_and_tables_are_mixed() {
    let (seen, ..) = short("chat.hift", 60);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&seen.losses[..10]), mean(&seen.losses[50..]));
    assert!(last < first - 0.5, "{first} to {last}");
    assert!(!seen.evaluations.is_empty(), "what the blocks hold out is measured");
}

/// Text blocks of the README.
fn readme() -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    text.split("```text\n").skip(1).map(|rest| rest.split("\n```").next().unwrap().to_string()).collect()
}

#[test]
fn the_readme_shows_the_quickstart_and_its_plan_as_they_are() {
    let shown = readme();
    let text_shown = shown.iter().find(|block| block.starts_with("hift 1")).unwrap();
    let (shown_pipeline, shipped) =
        (pipeline(&folder(), text_shown), pipeline(&folder(), &text("quickstart.hift")));
    let cache = tempfile::tempdir().unwrap();
    let cache = hift::data::Cache::at(cache.path().to_path_buf());
    let mut library = Library::new(folder(), &|| false).with_cache(Some(cache));
    let (a, b) = (planned(&shown_pipeline, &mut library).unwrap(), planned(&shipped, &mut library).unwrap());
    let train = |plan: &hift::plan::Plan| serde_json::to_value(&plan.stages[0]).unwrap();
    assert_eq!(train(&a), train(&b), "the README's pipeline means what the shipped one does");

    let report = hift::report::plan::plan(&b, &estimate(&b, 2));
    let report = report.split("\nevaluate test").next().unwrap().trim_end();
    let plan_shown = shown.iter().find(|block| block.starts_with("train sft\n")).unwrap();
    // What reading takes depends on the processors, and on whether the tokens are there already.
    let settled = |text: &str| {
        let line = |line: &str| line.split("; up to ").next().unwrap().to_string();
        text.lines().map(line).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(settled(plan_shown), settled(report), "the README's plan is what `hift plan` prints");
}
