//! The model of a stage: its configuration read, its precision decided.

use std::sync::Arc;

use serde::Serialize;

use crate::lang::Pipeline;
use crate::lang::pipeline::{Precision, Task as Ask, Weights};
use crate::model::{Kind, Model, Task};
use crate::problem::{Fault, Problem, Problems, Span};
use crate::program::builder::{BatchShape, CacheShape};
use crate::program::{Graph, precision};
use crate::units::Bytes;

use super::World;

/// Where weights come from, and what they are.
#[derive(Debug, Clone, Serialize)]
pub struct ModelPlan {
    pub name: String,
    pub weights: Weights,
    pub family: &'static str,
    /// What it is trained for, where that is not the next token.
    #[serde(skip_serializing_if = "is_next_token")]
    pub task: Task,
    pub n_elements: u64,
    pub precision: Precision,
    /// Products of 32-bit numbers may round their operands to 19 bits.
    pub tf32: bool,
    /// The weights as they are computed with.
    pub bytes: Bytes,
    /// Their 32-bit masters, all of them.
    pub masters: Bytes,
    #[serde(skip)]
    pub model: Arc<Model>,
    /// Where the pipeline names the weights.
    #[serde(skip)]
    pub span: Option<Span>,
}

fn is_next_token(task: &Task) -> bool {
    *task == Task::NextToken
}

impl ModelPlan {
    /// The forward pass to the loss, in the plan's precision.
    pub fn loss(&self, shape: BatchShape) -> Graph {
        self.lower(self.model.loss(shape))
    }

    /// The same, which also gives what the loss is computed from, in 32 bits.
    pub fn evaluation(&self, shape: BatchShape) -> Graph {
        self.lower(self.model.evaluation(shape))
    }

    /// The forward pass to logits, in the plan's precision.
    pub fn logits(&self, shape: BatchShape) -> Graph {
        self.lower(self.model.logits(shape))
    }

    /// The same for texts that are continued: keys and values are kept in `cache`.
    pub fn continuation(&self, shape: BatchShape, cache: CacheShape) -> Graph {
        self.lower(self.model.continuation(shape, cache))
    }

    fn lower(&self, graph: Graph) -> Graph {
        precision::lower(graph, self.precision.dtype())
    }
}

/// Reads the configuration of a model block, and holds the weights beside it against it.
///
/// # Errors
/// When there is no configuration, it is not one that is known here, or the weights are another model's.
pub fn read_model(
    pipeline: &Pipeline,
    block: &crate::lang::pipeline::Model,
    world: &mut dyn World,
) -> Result<ModelPlan, Problems> {
    let span = block.weights.span();
    let placed = |problem: Problem| match problem.labels.is_empty() {
        true if problem.code == "hift::model::task" => {
            problem.label_at(block.task.span().or(span), "is to be trained for this")
        }
        true => problem.label_at(span, "this model"),
        false => problem,
    };
    let config = match &*block.weights {
        Weights::Directory { path } | Weights::Hub { path: Some(path), .. } => {
            pipeline.path(path).join("config.json")
        }
        Weights::Random { config, .. } => pipeline.path(config),
        Weights::Hub { repository, path: None, .. } => {
            let what = format!("`{}` is on the Hub, and was not fetched", repository.name);
            let problem = Problem::of(Fault::Missing, "hift::plan::not_fetched", what);
            return Err(placed(problem)
                .help("`hift run FILE` fetches it; this program may have been built without what it needs to run")
                .into());
        }
    };
    let (kind, labels) = match &*block.task {
        Ask::Auto => (Kind::Auto, None),
        Ask::SequenceClassification { labels } => (Kind::Classes, labels.as_deref()),
        Ask::Regression => (Kind::Number, None),
        Ask::TokenClassification { labels } => (Kind::TokenClasses, labels.as_deref()),
        Ask::QuestionAnswering => (Kind::Answers, None),
    };
    let model = world.read(&config).and_then(|text| {
        Model::for_task(&text, kind, labels).map_err(|mut problem| {
            problem.message = format!("{}: {}", config.display(), problem.message);
            problem
        })
    });
    let model = model.map_err(placed)?;
    if let Some(path) = block.weights.directory() {
        let checked = world.check_weights(&pipeline.path(path), &model);
        checked.map_err(|found| Problems(found.0.into_iter().map(placed).collect()))?;
    }
    Ok(ModelPlan {
        name: block.name.clone(),
        weights: block.weights.value.clone(),
        family: model.family,
        task: model.task(),
        tf32: *block.tf32,
        n_elements: model.n_elements(),
        precision: *block.precision,
        bytes: Bytes(block.precision.dtype().size() * model.n_elements()),
        masters: if block.precision.has_masters() { model.bytes() } else { Bytes(0) },
        model: Arc::new(model),
        span,
    })
}
