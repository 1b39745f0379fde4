//! Text from a model, one token after the other.

use std::path::Path;

use crate::data::Encoder;
use crate::engine::{Inputs, Store, play, store};
use crate::plan::GeneratePlan;
use crate::problem::{Problem, Problems};
use crate::program::builder::BatchShape;
use crate::program::forward_only;
use crate::random::Random;

use super::evaluate::STILL;
use super::signals;

/// Continues each prompt until an end mark, `max_new_tokens`, or the end of the model's positions. None when
/// interrupted: a text cut short would pass for the whole.
///
/// # Errors
/// When the tokenizer cannot be read, or an operation fails.
pub fn generate(
    plan: &GeneratePlan,
    store: &mut Store,
    folder: &Path,
) -> Result<Option<Vec<(String, String)>>, Problems> {
    let encoder = Encoder::open(folder, &plan.tokenizer)?;
    let marks = encoder.marks(&plan.tokenizer.begin, &plan.tokenizer.end)?;
    let model = &plan.model.model;
    let mut random = Random::named(plan.seed, "generate");
    let mut texts = Vec::new();
    for prompt in &plan.prompts {
        let mut ids = marks.begin.clone();
        ids.extend(encoder.encode(prompt, false)?);
        let n_prompt = ids.len();
        let room = model.positions.saturating_sub(n_prompt) as u64;
        for _ in 0..plan.max_new_tokens.min(room) {
            if signals::interrupted() {
                return Ok(None);
            }
            let next = choose(&logits(plan, store, &ids)?, plan.temperature, &mut random);
            if model.eos.contains(&next) || marks.end.contains(&next) {
                break;
            }
            ids.push(next);
        }
        texts.push((prompt.clone(), encoder.decode(&ids[n_prompt..])));
    }
    Ok(Some(texts))
}

/// The logits of the token after `ids`.
fn logits(plan: &GeneratePlan, store: &mut Store, ids: &[u32]) -> Result<Vec<f32>, Problem> {
    let shape = BatchShape { batch: 1, seq: ids.len(), packed: false };
    let program = forward_only(&plan.model.logits(shape), rayon::current_num_threads());
    let inputs = Inputs {
        ids: ids.to_vec(),
        positions: (0..ids.len() as u32).collect(),
        queries: vec![ids.len() as u32 - 1],
        ..Inputs::default()
    };
    let played = play(&program, store, inputs, Vec::new(), &STILL).map_err(|error| store::failed(&error))?;
    Ok(played.numbers(0))
}

/// The most probable token, or one drawn with the probabilities of `softmax(logits / temperature)`.
fn choose(logits: &[f32], temperature: f64, random: &mut Random) -> u32 {
    // Of equal ones the first, as everywhere.
    let best = (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or(0);
    if temperature <= 0.0 {
        return best as u32;
    }
    let weight = |logit: &f32| (f64::from(logit - logits[best]) / temperature).exp();
    let mut left = random.uniform() * logits.iter().map(weight).sum::<f64>();
    for (id, logit) in logits.iter().enumerate() {
        left -= weight(logit);
        if left < 0.0 {
            return id as u32;
        }
    }
    best as u32
}
