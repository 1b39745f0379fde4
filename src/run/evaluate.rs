//! Held-out rows through the forward pass.

use std::collections::HashMap;

use crate::data::{Batch, IGNORE, Sequences, in_order};
use crate::engine::access::floats;
use crate::engine::{Inputs, Knobs, Store, play, store};
use crate::lang::pipeline::Algorithm;
use crate::model::{Head, Model, Target};
use crate::plan::ModelPlan;
use crate::problem::{Fault, Problem};
use crate::program::builder::BatchShape;
use crate::program::forward_only;
use crate::program::residency::bring;

use super::metrics::Scores;
use super::signals;

/// What the program for a batch depends on.
pub fn shape_of(batch: &Batch, model: &Model) -> BatchShape {
    let far = model.is_far(batch.longest());
    BatchShape { batch: batch.rows, seq: batch.seq, packed: batch.starts.is_some(), far }
}

/// The numbers of a batch, as the engine takes them.
pub fn inputs(batch: Batch, model: &Model) -> Inputs {
    let Batch { rows, seq, ids, labels, positions, starts, lengths, types, .. } = batch;
    // Where a model does not tell parts apart, all are the first.
    let types = if model.parts() > 1 { types } else { Vec::new() };
    match &model.head {
        Head::Tokens { .. } | Head::Labels { .. } => {
            Inputs { ids, labels, positions, starts, types, ..Inputs::default() }
        }
        // The one position of each row that has a label is where its answer begins; the label is where it ends.
        Head::Span { .. } => {
            let mut spans = vec![0; 3 * rows];
            for (row, labels) in labels.chunks_exact(seq).enumerate() {
                let begin = labels.iter().position(|label| *label != IGNORE).unwrap_or(0);
                spans[row] = begin as u32;
                spans[rows + row] = labels[begin];
                spans[2 * rows + row] = lengths[row];
            }
            Inputs { ids, positions, starts, types, spans, ..Inputs::default() }
        }
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
    let backend = store.backend();
    let mut programs = HashMap::new();
    let mut scores = Scores::new(&model.model);
    let mut first = 0;
    for batch in in_order(sequences, micro_batch) {
        if signals::interrupted() {
            return Ok(None);
        }
        let shape = shape_of(&batch, &model.model);
        scores.tokens += batch.trained;
        let program = programs
            .entry(shape)
            .or_insert_with(|| bring(forward_only(&model.evaluation(shape), backend), store.away()));
        let played = play(program, store, inputs(batch, &model.model), Vec::new(), &STILL)
            .map_err(|e| store::failed(&e))?;
        let sums = played.numbers(0);
        scores.nll += f64::from(sums[0]);
        scores.correct += f64::from(sums[1]);
        if let Some(logits) = played.results.get(1) {
            let own = (first..first + shape.batch).map(|row| sequences.get(row));
            scores.add(own, &floats(logits), shape.seq);
        }
        first += shape.batch;
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
