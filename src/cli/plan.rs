//! `hift plan`

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::hub::{self, Purpose};
use super::{Failure, Sets, disk::Disk, open, print, profile, show, threads};
use crate::estimate::{self, Estimate};
use crate::lang::{Pipeline, pipeline::Stage};
use crate::plan::{self, Plan, StagePlan};
use crate::problem::{Fault, Problem, Problems};
use crate::report;

#[derive(Debug, clap::Args)]
pub struct Show {
    /// The pipeline file
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Print the plan and its estimate as JSON
    #[arg(long, conflicts_with = "program")]
    json: bool,
    /// Print the program of a group's step, with each value's size and its death: a layer's name, or a number
    #[arg(long, value_name = "GROUP")]
    program: Option<String>,
    /// Print parameters, gradients and states in the columns of the HiFT paper, for its optimizers and precisions
    #[arg(long, conflicts_with_all = ["json", "program"])]
    paper: bool,
    /// Do not read the rows: no counts of rows and tokens, sequences as long as they may be
    #[arg(long)]
    no_data: bool,
    #[command(flatten)]
    sets: Sets,
}

impl Show {
    pub fn run(self) -> Result<(), Failure> {
        let (sources, mut pipeline) = open(&self.file, &self.sets)?;
        let no_data = self.no_data || self.paper;
        hub::settle(&mut pipeline, &self.file, Purpose::Plan { rows: !no_data })
            .map_err(|problems| Failure::of(problems, &sources))?;
        let plan = compile(&pipeline, no_data).map_err(|problems| Failure::of(problems, &sources))?;
        if !plan.warnings.is_empty() {
            show(&Problems(plan.warnings.clone()), &sources);
        }
        if self.paper {
            print(&report::paper::paper(&plan))?;
            return Ok(());
        }
        if let Some(group) = &self.program {
            print(&program(&plan, group)?)?;
            return Ok(());
        }
        let estimate = profile::estimated(&plan);
        if self.json {
            let json = json(&plan, &estimate);
            print(&format!("{}\n", serde_json::to_string_pretty(&json).expect("a plan is JSON")))?;
        } else {
            print(&report::plan::plan(&plan, &estimate))?;
        }
        check_limits(&pipeline, &plan, &estimate).map_err(|problems| Failure::of(problems, &sources))
    }
}

/// Plans a pipeline, with a look at its rows or without; what is odd about the rows is among the plan's warnings.
pub(crate) fn compile(pipeline: &Pipeline, no_data: bool) -> Result<Plan, Problems> {
    #[cfg(feature = "run")]
    let plan = {
        let mut library = crate::data::Library::new(pipeline.folder.clone(), &|| false);
        library = library.with_cache(super::cache::cache());
        let mut disk = Disk { library: (!no_data).then_some(&mut library) };
        let mut plan = plan::compile(pipeline, &mut disk)?;
        if !no_data {
            let warnings = row_warnings(&plan, &mut library);
            plan.warnings.extend(warnings);
        }
        plan
    };
    #[cfg(not(feature = "run"))]
    let plan = {
        // This program cannot read rows.
        let _ = no_data;
        plan::compile(pipeline, &mut Disk { library: None })?
    };
    Ok(settled(plan).0)
}

/// A plan with what is left to this machine and to the budget decided: which device computes, and what runs again. The
/// second is why a GPU is not used, where one could be.
pub(crate) fn settled(mut plan: Plan) -> (Plan, Option<String>) {
    #[cfg(feature = "run")]
    let notice = super::device::choose(&mut plan);
    #[cfg(not(feature = "run"))]
    let notice = None;
    plan = estimate::settle(plan, threads());
    (plan, notice)
}

/// A plan and its estimate, as they stand in `plan.json`.
pub(crate) fn json(plan: &Plan, estimate: &Estimate) -> Json {
    json!({ "schema": plan::SCHEMA, "plan": plan, "estimate": estimate })
}

/// What is odd about the rows that a plan's stages read.
#[cfg(feature = "run")]
pub(crate) fn row_warnings(plan: &Plan, library: &mut crate::data::Library<'_>) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for stage in &plan.stages {
        let (data, tokenizer, model) = match stage {
            StagePlan::Train(stage) => (&stage.data, &stage.tokenizer, &stage.model.model),
            StagePlan::Evaluate(stage) => (&stage.data, &stage.tokenizer, &stage.model.model),
            StagePlan::Generate(stage) => match &stage.data {
                Some(data) => (data, &stage.tokenizer, &stage.model.model),
                None => continue,
            },
            StagePlan::Export(_) => continue,
        };
        let limits = crate::run::limits(model);
        // The plan has read them, so they are there.
        let Ok(dataset) = library.get(data, tokenizer, &limits) else { continue };
        for warning in &dataset.audit.warnings {
            if !warnings.contains(warning) {
                warnings.push(warning.clone());
            }
        }
    }
    warnings
}

/// Refuses a plan whose peak is above a stage's `memory_limit`.
pub(crate) fn check_limits(pipeline: &Pipeline, plan: &Plan, estimate: &Estimate) -> Result<(), Problems> {
    let mut problems = Problems::default();
    for (stage, figures) in plan.stages.iter().zip(&estimate.stages) {
        let StagePlan::Train(train) = stage else { continue };
        let Some(limit) = train.memory_limit.filter(|limit| figures.peak > *limit) else { continue };
        let span = pipeline.stages.iter().find_map(|stage| match stage {
            Stage::Train(written) if written.name == train.name => written.memory_limit.span(),
            Stage::Train(_) | Stage::Evaluate(_) | Stage::Generate(_) | Stage::Export(_) => None,
        });
        let over = figures.peak - limit;
        let highest = figures.groups.iter().max_by_key(|group| group.peak);
        let (what, help) = match highest.filter(|group| group.peak == figures.peak) {
            Some(group) => (
                format!("group {} needs {over} more", report::names(&group.names)),
                "lower `micro_batch` or `max_length`, write `recompute = blocks`, or raise the limit",
            ),
            // Something beside the steps needs more than any of them.
            None => {
                let phase = figures.phases.iter().max_by_key(|phase| phase.bytes);
                let name = phase.map_or("", |phase| phase.name);
                (
                    format!("`{name}` needs {over} more"),
                    match name {
                        "sample" => "lower `samples`, `max_new_tokens` or `micro_batch`, or raise the limit",
                        _ => "lower `micro_batch` or `max_length`, or raise the limit",
                    },
                )
            }
        };
        problems.push(
            Problem::of(
                Fault::Limit,
                "hift::estimate::over_limit",
                format!("stage `{}` needs {}, more than its limit of {limit}", train.name, figures.peak),
            )
            .label_at(span, what)
            .help(help),
        );
    }
    if problems.has_errors() { Err(problems) } else { Ok(()) }
}

/// The programs of one group of each train stage, by the name of one of its layers or its number.
fn program(plan: &Plan, wanted: &str) -> Result<String, Problem> {
    let mut known = Vec::new();
    let mut text = String::new();
    for stage in &plan.stages {
        let StagePlan::Train(train) = stage else { continue };
        for (idx, group) in train.groups.iter().enumerate() {
            if group.names.iter().any(|name| name == wanted) || wanted == idx.to_string() {
                for (name, program) in train.programs(idx, train.largest_batch(), threads()).each() {
                    text +=
                        &format!("# {}, {}: {name}\n{program}\n", train.name, report::names(&group.names));
                }
            }
            let name = report::names(&group.names);
            if !known.contains(&name) {
                known.push(name);
            }
        }
    }
    if !text.is_empty() {
        return Ok(text);
    }
    Err(Problem::of(Fault::Usage, "hift::cli::no_group", format!("no group trains `{wanted}`"))
        .help(format!("write a layer's name or a group's number; the groups are: {}", known.join(", "))))
}

/// What became of the rows that a plan's stages read, each data block once, for people and for machines.
#[cfg(feature = "run")]
pub(crate) fn audits(plan: &Plan, library: &mut crate::data::Library<'_>) -> Vec<(String, Json)> {
    let mut audits: Vec<(String, Json)> = Vec::new();
    for stage in &plan.stages {
        let (data, tokenizer, model) = match stage {
            StagePlan::Train(stage) => (&stage.data, &stage.tokenizer, &stage.model.model),
            StagePlan::Evaluate(stage) => (&stage.data, &stage.tokenizer, &stage.model.model),
            StagePlan::Generate(stage) => match &stage.data {
                Some(data) => (data, &stage.tokenizer, &stage.model.model),
                None => continue,
            },
            StagePlan::Export(_) => continue,
        };
        let Ok(dataset) = library.get(data, tokenizer, &crate::run::limits(model)) else { continue };
        let text = report::audit::text(&data.name, &serde_json::json!(dataset.audit))
            + &report::rows::cached(&dataset.cached);
        if !audits.iter().any(|(known, _)| *known == text) {
            let json = json!({ "data": data.name, "audit": dataset.audit, "cache": dataset.cached });
            audits.push((text, json));
        }
    }
    audits
}

/// Both, with the limits not yet checked, and why a GPU is not used, where one could be.
#[cfg(feature = "run")]
pub(crate) fn prepare(
    pipeline: &Pipeline,
    library: &mut crate::data::Library<'_>,
) -> Result<(Plan, Estimate, Option<String>), Problems> {
    let (plan, notice) = settled(plan::compile(pipeline, &mut Disk { library: Some(library) })?);
    let estimate = profile::estimated(&plan);
    Ok((plan, estimate, notice))
}
