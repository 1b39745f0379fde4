//! A generate stage: prompts to texts.

use std::path::Path;

use crate::data::Encoder;
use crate::engine::Store;
use crate::plan::GeneratePlan;
use crate::problem::Problems;

use super::decode::{Ends, Prompt, continue_all};

/// Continues each prompt until an end mark, a text that ends it, `max_new_tokens`, or the end of the model's positions. None
/// when interrupted: a text cut short would pass for the whole.
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
    let prompt = |text: &String| {
        let text = encoder.encode(text, false)?;
        Ok::<_, Problems>(Prompt { ids: marks.begin.iter().chain(&text).map(|id| u64::from(*id)).collect() })
    };
    let prompts = plan.prompts.iter().map(prompt).collect::<Result<Vec<_>, _>>()?;
    let mut tokens: Vec<u64> = model.eos.iter().chain(&marks.end).map(|id| u64::from(*id)).collect();
    tokens.sort_unstable();
    tokens.dedup();
    drop(marks);
    let text = |ids: &[u64]| encoder.decode(&ids.iter().map(|id| *id as u32).collect::<Vec<_>>());
    // Each token is a letter at the least, so the end of a text is enough to look at.
    let longest = plan.stop.iter().map(String::len).max().unwrap_or(0);
    let stops = |ids: &[u64]| {
        longest > 0 && {
            let end = text(&ids[ids.len().saturating_sub(longest + 4)..]);
            plan.stop.iter().any(|stop| end.contains(stop))
        }
    };
    let ends = Ends { tokens: &tokens, stops: &stops };
    let Some(found) = continue_all(&plan.model, store, &prompts, &plan.decoding, &ends)? else {
        return Ok(None);
    };
    let texts = found.iter().map(|ids| {
        let mut text = text(ids);
        if let Some(at) = plan.stop.iter().filter_map(|stop| text.find(stop)).min() {
            text.truncate(at);
        }
        text
    });
    Ok(Some(plan.prompts.iter().cloned().zip(texts).collect()))
}
