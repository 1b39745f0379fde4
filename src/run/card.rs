//! The model card beside an export: what the model is, from what and how it was made, and what was measured.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::Value as Json;

use crate::lang::pipeline::Weights;
use crate::model::{Head, Target};
use crate::plan::{ExportPlan, StagePlan, TrainPlan};
use crate::units::Count;

use super::Order;

/// The text of the card; Hugging Face reads its head as YAML.
pub fn card(plan: &ExportPlan, order: &Order<'_>) -> String {
    let trained: Vec<&TrainPlan> = lineage(plan, order);
    let model = &plan.model.model;
    let (class, task) = match &model.head {
        Head::Tokens { .. } => ("AutoModelForCausalLM", "text-generation"),
        Head::Sequence { target: Target::Classes(_) | Target::Number, .. } => {
            ("AutoModelForSequenceClassification", "text-classification")
        }
        Head::Labels { .. } => ("AutoModelForTokenClassification", "token-classification"),
        Head::Span { .. } => ("AutoModelForQuestionAnswering", "question-answering"),
    };
    let name = Path::new(&plan.to).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let base = match &plan.model.weights {
        Weights::Directory { path } => Some(path),
        Weights::Hub { repository, .. } => Some(&repository.name),
        Weights::Random { .. } => None,
    };
    let mut text =
        format!("---\nlibrary_name: transformers\npipeline_tag: {task}\ntags: [hift]\n---\n\n# {name}\n\n");
    let from = match base {
        Some(path) => format!("started from `{path}`"),
        None => "started from random weights".to_string(),
    };
    let _ = writeln!(
        text,
        "A `{}` model of {} parameters, {from}, written by [hift](https://arxiv.org/abs/2401.15207) {}.\n",
        model.family,
        Count(plan.model.n_elements),
        env!("CARGO_PKG_VERSION")
    );
    for stage in &trained {
        let _ = writeln!(text, "{}\n", training(stage));
    }
    let measured = measured(plan, order);
    if !measured.is_empty() {
        text +=
            "## Measured on rows held out\n\n| stage | step | metric | value |\n| --- | --- | --- | --- |\n";
        for (stage, step, metric, value) in measured {
            let _ = writeln!(text, "| {stage} | {step} | {metric} | {value:.4} |");
        }
        text.push('\n');
    }
    let tokenizer = plan.tokenizer.is_some();
    let import = if tokenizer { format!("AutoTokenizer, {class}") } else { class.to_string() };
    let _ = write!(text, "## To load it\n\n```python\nfrom transformers import {import}\n\n");
    let _ = writeln!(text, "model = {class}.from_pretrained(\"{name}\")");
    if tokenizer {
        let _ = writeln!(text, "tokenizer = AutoTokenizer.from_pretrained(\"{name}\")");
    }
    text += "```\n\nThe pipeline that made it, with every value, stands in `hift.json`.\n";
    text
}

/// The train stages that lead to an export, the first one first.
fn lineage<'p>(plan: &ExportPlan, order: &Order<'p>) -> Vec<&'p TrainPlan> {
    let mut stages = Vec::new();
    let mut from = plan.from.as_deref();
    while let Some(name) = from {
        let found = order.plan.stages.iter().find_map(|stage| match stage {
            StagePlan::Train(stage) if stage.name == name => Some(stage),
            StagePlan::Train(_) | StagePlan::Evaluate(_) | StagePlan::Generate(_) | StagePlan::Export(_) => {
                None
            }
        });
        let Some(stage) = found else { break };
        stages.push(&**stage);
        from = stage.from.as_deref();
    }
    stages.reverse();
    stages
}

fn training(stage: &TrainPlan) -> String {
    let rows = stage.rows.map_or(String::new(), |rows| {
        format!(", {} sequences to learn from, {} held out", Count(rows.train), Count(rows.holdout))
    });
    format!(
        "## Training `{}`\n\n- data: `{}`{rows}\n- {} groups of layers in turn, {} updates of {} sequences each\n\
         - optimizer `{}`, peak rate {:e}, seed {}",
        stage.name,
        source(stage),
        stage.groups.len(),
        stage.steps.map_or("some".to_string(), |steps| Count(steps).to_string()),
        stage.micro_batch * stage.accumulate,
        word(&stage.algorithm, "algorithm").unwrap_or_default(),
        stage.rate.peak,
        stage.seed
    )
}

/// The file that rows come from, or the block that says it.
fn source(stage: &TrainPlan) -> String {
    word(&stage.data.source.value, "path").unwrap_or_else(|| stage.data.name.clone())
}

/// A word of a value as `plan.json` has it.
fn word(value: &impl serde::Serialize, key: &str) -> Option<String> {
    serde_json::to_value(value).ok()?[key].as_str().map(str::to_owned)
}

/// The last evaluations of the stages that it comes from, and of those that evaluate the same result.
fn measured(plan: &ExportPlan, order: &Order<'_>) -> Vec<(String, String, String, f64)> {
    let events = std::fs::read_to_string(order.directory.join("events.jsonl")).unwrap_or_default();
    let stages: Vec<&str> = order
        .plan
        .stages
        .iter()
        .filter(|stage| {
            let evaluates = matches!(stage, StagePlan::Evaluate(_));
            Some(stage.name()) == plan.from.as_deref() || (evaluates && stage.from() == plan.from.as_deref())
        })
        .map(StagePlan::name)
        .collect();
    let mut last: BTreeMap<&str, Json> = BTreeMap::new();
    for event in events.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok()) {
        let stage = stages.iter().find(|stage| event["stage"] == **stage);
        if let Some(stage) = stage.filter(|_| event["event"] == "evaluate") {
            last.insert(stage, event);
        }
    }
    let rows = last.iter().flat_map(|(stage, event)| {
        let step = event["step"].as_u64().map_or("end".to_string(), |step| Count(step).to_string());
        let metrics = event["metrics"].as_object().into_iter().flatten();
        metrics.map(move |(metric, value)| {
            ((*stage).to_string(), step.clone(), metric.clone(), value.as_f64().unwrap_or(f64::NAN))
        })
    });
    rows.collect()
}
