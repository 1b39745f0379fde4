//! What several tests need: a folder to run in, and a pipeline from text to its end.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod case;
pub mod families;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use hift::data::Library;
use hift::engine::Devices;
use hift::estimate::{Estimate, Profile, estimate, settle};
use hift::lang::pipeline::Metric;
use hift::lang::{Options, Pipeline, Source, check};
use hift::plan::{Plan, StagePlan, compile};
use hift::problem::Problems;
use hift::run::generate::Written;
use hift::run::inputs::list;
use hift::run::{Ending, Order, Resume, StepReport, Watch, execute};

/// A file or folder under `tests/`.
pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)
}

/// A file or folder beside the repository, where one has the data; a test that wants it says when it skips.
pub fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// A tokenizer of the words `w5`, `w6` and so on up to `n` ids, which puts `[CLS]` before a text, `[SEP]` between two and behind.
pub fn word_tokenizer(n: usize) -> String {
    let marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let words = (marks.len()..n).map(|id| format!("w{id}"));
    let vocab: serde_json::Map<_, _> = marks
        .map(str::to_string)
        .into_iter()
        .chain(words)
        .zip(0..)
        .map(|(word, id)| (word, json!(id)))
        .collect();
    let special = |id: &str, part: u32| json!({ "SpecialToken": { "id": id, "type_id": part } });
    let text = |id: &str, part: u32| json!({ "Sequence": { "id": id, "type_id": part } });
    let token =
        |name: &str, id: u32| (name.to_string(), json!({ "id": name, "ids": [id], "tokens": [name] }));
    json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]", 0), text("A", 0), special("[SEP]", 0)],
            "pair": [special("[CLS]", 0), text("A", 0), special("[SEP]", 0), text("B", 1), special("[SEP]", 1)],
            "special_tokens": serde_json::Map::from_iter([token("[CLS]", 2), token("[SEP]", 3)]),
        },
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" },
    })
    .to_string()
}

/// A pipeline that must have no mistakes.
pub fn pipeline(folder: &Path, text: &str) -> Pipeline {
    let (pipeline, problems) = check(text, &Options { folder: folder.to_path_buf(), ..Options::default() });
    assert!(!problems.has_errors(), "{problems}\n{text}");
    pipeline.expect("no errors, so a pipeline")
}

/// Its plan, or what is wrong.
pub fn planned(pipeline: &Pipeline, library: &mut Library<'_>) -> Result<Plan, Problems> {
    let plan = compile(pipeline, &mut hift::cli::disk::Disk { library: Some(library) })?;
    Ok(settle(plan, rayon::current_num_threads()))
}

/// The step, and what the held-out rows gave.
pub type Evaluation = (Option<u64>, Vec<(Metric, f64)>);

/// What a run told its watcher.
#[derive(Debug, Default)]
pub struct Seen {
    pub losses: Vec<f64>,
    pub grad_norms: Vec<f64>,
    pub groups: Vec<Vec<String>>,
    pub rates: Vec<f64>,
    pub peaks: Vec<u64>,
    pub evaluations: Vec<Evaluation>,
    pub texts: Vec<(String, String)>,
    pub warnings: Vec<String>,
    /// The step, and the held-out rows that were answered there.
    pub samples: Vec<(u64, Vec<Written>)>,
}

impl Watch for Seen {
    fn audited(&mut self, _: &serde_json::Value) {}
    fn stage(&mut self, _: &StagePlan, _: usize, _: usize) {}

    fn step(&mut self, report: &StepReport<'_>) {
        self.losses.push(report.loss);
        self.grad_norms.push(report.grad_norm);
        self.groups.push(report.group.to_vec());
        self.rates.push(report.rate);
        self.peaks.push(report.memory.peak.0);
    }

    fn evaluated(&mut self, _: &str, step: Option<u64>, metrics: &[(Metric, f64)]) {
        self.evaluations.push((step, metrics.to_vec()));
    }

    fn generated(&mut self, _: &str, prompt: &str, text: &str) {
        self.texts.push((prompt.to_string(), text.to_string()));
    }

    fn sampled(&mut self, _: &str, step: u64, samples: &[Written]) {
        self.samples.push((step, samples.to_vec()));
    }

    fn note(&mut self, _: &str) {}

    fn warn(&mut self, text: &str) {
        self.warnings.push(text.to_string());
    }
}

/// Runs a pipeline in `folder` to its end.
pub fn run(folder: &Path, text: &str) -> Result<(Seen, Estimate, Ending), Problems> {
    run_on(&Devices::default(), folder, text)
}

/// Runs a pipeline in `folder` to its end, on these devices.
pub fn run_on(devices: &Devices, folder: &Path, text: &str) -> Result<(Seen, Estimate, Ending), Problems> {
    run_beside(devices, None, folder, text)
}

/// The same, on devices of which it is known what they take beside tensors.
pub fn run_beside(
    devices: &Devices,
    profile: Option<&Profile>,
    folder: &Path,
    text: &str,
) -> Result<(Seen, Estimate, Ending), Problems> {
    let pipeline = pipeline(folder, text);
    let mut library = Library::new(folder.to_path_buf(), &|| false);
    let plan = planned(&pipeline, &mut library)?;
    let mut estimate = estimate(&plan, rayon::current_num_threads());
    if let Some(profile) = profile {
        estimate = estimate.on_devices(&plan, &|_| profile.clone());
    }
    let order = Order {
        devices,
        plan: &plan,
        estimate: &estimate,
        text: text.to_string(),
        folder: folder.to_path_buf(),
        directory: folder.join("run"),
        scratch: None,
        resume: Resume::Auto,
        wait: Duration::ZERO,
        inputs: list(&pipeline, &Source::new("pipeline.hift", text).into(), BTreeMap::new()),
        locked: None,
        tensorboard: false,
    };
    let mut seen = Seen::default();
    let ending = execute(&order, &mut library, &mut seen)?;
    Ok((seen, estimate, ending))
}
