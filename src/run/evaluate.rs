//! Held-out rows through the forward pass.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use crate::data::{Batch, IGNORE, Sequences, in_order};
use crate::engine::{Inputs, Knobs, Store, play, store};
use crate::lang::pipeline::{Algorithm, Metric};
use crate::model::{Head, Model, Target};
use crate::plan::ModelPlan;
use crate::problem::{Fault, Problem};
use crate::program::builder::BatchShape;
use crate::program::forward_only;

use super::signals;

/// Sums over all rows that were evaluated.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scores {
    /// Cross entropy in nats, or squared errors.
    pub nll: f64,
    /// Trained tokens that are the model's first choice.
    pub correct: f64,
    /// Trained tokens.
    pub tokens: u64,
}

impl Scores {
    pub fn loss(&self) -> f64 {
        self.nll / self.tokens.max(1) as f64
    }

    pub fn metrics(&self, wanted: &[Metric]) -> Vec<(Metric, f64)> {
        let value = |metric| match metric {
            Metric::Loss => self.loss(),
            Metric::Perplexity => self.loss().exp(),
            Metric::Accuracy => self.correct / self.tokens.max(1) as f64,
        };
        wanted.iter().map(|metric| (*metric, value(*metric))).collect()
    }
}

/// The word for a metric in reports and files.
pub fn name(metric: Metric) -> &'static str {
    match metric {
        Metric::Loss => "loss",
        Metric::Perplexity => "perplexity",
        Metric::Accuracy => "accuracy",
    }
}

/// Metrics as a JSON object.
pub fn json(metrics: &[(Metric, f64)]) -> Json {
    let entries = metrics.iter().map(|(metric, value)| (name(*metric).to_string(), Json::from(*value)));
    Json::Object(entries.collect::<Map<_, _>>())
}

/// The numbers of a batch, as the engine takes them.
pub fn inputs(batch: Batch, model: &Model) -> Inputs {
    let Batch { rows, ids, labels, positions, starts, .. } = batch;
    match &model.head {
        Head::Tokens { .. } => Inputs { ids, labels, positions, starts, ..Inputs::default() },
        // The one position of each row that has a label is where it is read.
        Head::Sequence { target, .. } => {
            let labelled = labels.iter().enumerate().filter(|(_, label)| **label != IGNORE);
            // Of just their size: these become tensors, and every byte of a tensor is planned.
            let (mut queries, mut given) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
            for (at, label) in labelled {
                queries.push(at as u32);
                given.push(*label);
            }
            let inputs = Inputs { ids, positions, starts, queries, ..Inputs::default() };
            match target {
                Target::Classes(_) => Inputs { classes: given, ..inputs },
                Target::Number => Inputs { targets: given, ..inputs },
            }
        }
    }
}

/// Knobs for a pass that trains nothing.
pub(super) const STILL: Knobs<'static> = Knobs {
    loss_scale: 0.0,
    unscale: 1.0,
    noise: 0,
    rate: 0.0,
    factors: &[],
    algorithm: &Algorithm::Sgd,
    weight_decay: 0.0,
};

/// Evaluates all of `sequences`, `micro_batch` at a time. None when interrupted: the sums of some of the rows would
/// pass for those of all.
///
/// # Errors
/// When an operation fails, or the loss is not a number.
pub fn evaluate(
    model: &ModelPlan,
    store: &mut Store,
    sequences: &Sequences,
    micro_batch: u64,
) -> Result<Option<Scores>, Problem> {
    let threads = rayon::current_num_threads();
    let mut programs = HashMap::new();
    let mut scores = Scores::default();
    for batch in in_order(sequences, micro_batch) {
        if signals::interrupted() {
            return Ok(None);
        }
        let shape = BatchShape { batch: batch.rows, seq: batch.seq, packed: batch.starts.is_some() };
        scores.tokens += batch.trained;
        let program = programs.entry(shape).or_insert_with(|| forward_only(&model.loss(shape), threads));
        let played = play(program, store, inputs(batch, &model.model), Vec::new(), &STILL)
            .map_err(|e| store::failed(&e))?;
        let sums = played.numbers(0);
        scores.nll += f64::from(sums[0]);
        scores.correct += f64::from(sums[1]);
    }
    if !scores.nll.is_finite() {
        return Err(Problem::of(
            Fault::Failed,
            "hift::run::not_finite",
            format!("the held-out loss is {}", scores.loss()),
        )
        .help("the weights have diverged: lower the rate, or start from an earlier checkpoint"));
    }
    Ok(Some(scores))
}
