//! The stages behind training, decided.

use serde::Serialize;

use crate::lang::Pipeline;
use crate::lang::pipeline::{Data, Device, Evaluate, Export, Format, Generate, LossOn, Metric, Tokenizer};
use crate::problem::{Problem, Problems, Span};
use crate::program::builder::CacheShape;
use crate::units::Dtype;

use super::fit::{batch, check_metrics, check_task, longest};
use super::model::ModelPlan;
use super::{Rows, World};

/// An evaluate stage.
#[derive(Debug, Clone, Serialize)]
pub struct EvaluatePlan {
    pub name: String,
    pub from: Option<String>,
    pub model: ModelPlan,
    pub data: Data,
    pub tokenizer: Tokenizer,
    pub rows: Option<Rows>,
    pub metrics: Vec<Metric>,
    pub micro_batch: u64,
    pub seq: u64,
    pub packed: bool,
    pub device: Device,
}

/// A generate stage.
#[derive(Debug, Clone, Serialize)]
pub struct GeneratePlan {
    pub name: String,
    pub from: Option<String>,
    pub model: ModelPlan,
    pub tokenizer: Tokenizer,
    /// Nothing where rows of `data` are continued.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<Rows>,
    /// How many rows are continued at the most; all, if nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<u64>,
    /// How many rows there are to continue. None if there are none, or nobody has looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continued: Option<u64>,
    /// What would be right, for each prompt; or nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// Tokens of the longest prompt. None if nobody has looked.
    pub prompt_tokens: Option<u64>,
    #[serde(flatten)]
    pub decoding: Decoding,
    /// Texts that end an answer, and do not belong to it.
    pub stop: Vec<String>,
    /// The file for the texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    pub device: Device,
}

impl GeneratePlan {
    /// How many prompts there are; None where they are rows that nobody has counted.
    pub fn n_prompts(&self) -> Option<u64> {
        match self.data {
            Some(_) => self.continued.or(self.at_most),
            None => Some(self.prompts.len() as u64),
        }
    }
}

/// How texts are continued.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decoding {
    pub max_new_tokens: u64,
    /// 0 takes the most probable token each time.
    pub temperature: f64,
    /// Tokens are drawn among so many, the most probable ones.
    pub top_k: Option<u64>,
    /// And of these among the fewest that have this share of the probability.
    pub top_p: f64,
    /// Texts that are tried at once.
    pub beams: u64,
    /// Texts are compared by their score over their length to this power.
    pub length_penalty: f64,
    /// The search ends with as many texts as there are beams, though another may become better.
    pub early_stopping: bool,
    pub seed: u64,
    /// Prompts that are continued at once.
    pub micro_batch: u64,
}

impl Decoding {
    /// The most probable token each time, so that two answers to a prompt can be compared.
    pub(super) fn greedy(max_new_tokens: u64, micro_batch: u64) -> Self {
        Self {
            max_new_tokens,
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            beams: 1,
            length_penalty: 1.0,
            early_stopping: false,
            seed: 0,
            micro_batch,
        }
    }

    /// The keys and values to keep for prompts of which the longest has so many tokens.
    pub fn cache(&self, longest: u64, positions: u64, prompts: u64) -> CacheShape {
        let capacity = longest.saturating_add(self.max_new_tokens).min(positions.max(longest));
        CacheShape {
            sequences: (self.micro_batch.min(prompts.max(1)) * self.beams) as usize,
            capacity: capacity as usize,
        }
    }
}

/// An export stage.
#[derive(Debug, Clone, Serialize)]
pub struct ExportPlan {
    pub name: String,
    pub from: Option<String>,
    pub model: ModelPlan,
    pub tokenizer: Option<Tokenizer>,
    pub to: String,
    pub dtype: Dtype,
}

pub(super) fn evaluate(
    pipeline: &Pipeline,
    stage: &Evaluate,
    model: ModelPlan,
    world: &mut dyn World,
) -> Result<EvaluatePlan, Problems> {
    check_task(&stage.data, &stage.tokenizer, &model.model)?;
    check_metrics(&stage.metrics, &model)?;
    longest(&stage.tokenizer, &model.model, None)?;
    let rows = world.rows(pipeline, &stage.data, &stage.tokenizer, &model.model)?;
    let seen = rows.map(|rows| match rows.holdout {
        0 => (rows.train, rows.longest),
        holdout => (holdout, rows.longest_holdout),
    });
    let seq = longest(&stage.tokenizer, &model.model, seen.map(|(_, longest)| longest))?;
    Ok(EvaluatePlan {
        name: stage.name.clone(),
        from: stage.from.clone(),
        data: stage.data.clone(),
        tokenizer: stage.tokenizer.clone(),
        rows,
        metrics: stage.metrics.value.clone(),
        micro_batch: batch(&stage.micro_batch, seen.map(|(rows, _)| rows), seq)?,
        seq,
        packed: *stage.tokenizer.pack || model.model.both_ways,
        device: *stage.device,
        model,
    })
}

/// What rows are continued for.
pub(super) enum Continued {
    ByStage,
    /// While training evaluates; where the pipeline says so.
    AsSamples(Option<Span>),
}

/// Makes sure that the rows of a data block have a prompt and a response that can be told apart.
///
/// # Errors
/// Rows that are learned whole, by their format or by `loss_on`.
pub(super) fn check_responses(data: &Data, tokenizer: &Tokenizer, why: &Continued) -> Result<(), Problem> {
    let (asked, otherwise) = match why {
        Continued::ByStage => (None, "write `prompts = [...]`"),
        Continued::AsSamples(span) => (*span, "remove `samples`"),
    };
    let whole = |message: String, span, label: &str, help: &str| {
        Err(Problem::new("hift::plan::no_response", message)
            .label_at(span, label)
            .label_at(asked, "asks for answers to them")
            .help(help))
    };
    let has_response = |part: &&Data| match &part.format.value {
        Format::Instruct { .. } | Format::Chat { .. } | Format::Tokens { labels: Some(_), .. } => true,
        Format::Text { .. } | Format::Tokens { .. } | Format::OfParts => false,
        Format::Classify { .. } | Format::TokenLabels { .. } | Format::Question { .. } => false,
    };
    let parts = data.parts();
    let Some(part) = parts.iter().find(|part| has_response(part)) else {
        return whole(
            format!("the rows of `{}` have no response, so nothing says where to go on from", data.name),
            parts.first().and_then(|part| part.format.span()),
            "is one text",
            &format!("use a data block with `format = instruct(...)` or `chat`, or {otherwise}"),
        );
    };
    let of_tokens = matches!(part.format.value, Format::Tokens { .. });
    match &tokenizer.loss_on.value {
        LossOn::All if !of_tokens => whole(
            format!(
                "the rows of `{}` are learned whole, so nothing says where their responses begin",
                data.name
            ),
            tokenizer.loss_on.span(),
            "prompts, too",
            "write `loss_on = response` in the tokenizer block",
        ),
        LossOn::Roles(roles) if roles.iter().any(|role| role != "assistant") => whole(
            format!("the rows of `{}` are not learned for their responses alone", data.name),
            tokenizer.loss_on.span(),
            "others are learned, too",
            "write `loss_on = response` in the tokenizer block of the stage, which are the turns of the assistant",
        ),
        LossOn::All | LossOn::Response | LossOn::Last | LossOn::Roles(_) => Ok(()),
    }
}

pub(super) fn generate(
    pipeline: &Pipeline,
    stage: &Generate,
    model: ModelPlan,
    world: &mut dyn World,
) -> Result<GeneratePlan, Problems> {
    let rows = match &stage.data {
        None => None,
        Some(data) => {
            check_task(data, &stage.tokenizer, &model.model)?;
            check_responses(data, &stage.tokenizer, &Continued::ByStage)?;
            world.rows(pipeline, data, &stage.tokenizer, &model.model)?
        }
    };
    let prompts = world.check_prompts(pipeline, stage, &model.model)?;
    Ok(GeneratePlan {
        name: stage.name.clone(),
        from: stage.from.clone(),
        model,
        tokenizer: stage.tokenizer.clone(),
        prompts: stage.prompts.iter().map(|prompt| prompt.value.clone()).collect(),
        data: stage.data.clone(),
        rows,
        at_most: *stage.rows,
        continued: prompts.filter(|_| stage.data.is_some()).map(|prompts| prompts.n),
        references: stage.references.iter().map(|text| text.value.clone()).collect(),
        metrics: stage.metrics.value.clone(),
        prompt_tokens: prompts.map(|prompts| prompts.longest),
        decoding: Decoding {
            max_new_tokens: *stage.max_new_tokens,
            temperature: *stage.temperature,
            top_k: *stage.top_k,
            top_p: *stage.top_p,
            beams: *stage.beams,
            length_penalty: *stage.length_penalty,
            early_stopping: *stage.early_stopping,
            seed: *stage.seed,
            micro_batch: *stage.micro_batch,
        },
        stop: stage.stop.iter().map(|text| text.value.clone()).collect(),
        to: stage.to.value.clone(),
        device: *stage.device,
    })
}

pub(super) fn export(stage: &Export, model: ModelPlan) -> ExportPlan {
    ExportPlan {
        name: stage.name.clone(),
        from: stage.from.clone(),
        model,
        tokenizer: stage.tokenizer.clone(),
        to: stage.to.value.clone(),
        dtype: *stage.dtype,
    }
}
