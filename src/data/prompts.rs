//! Prompts held against the tokenizer and the model, before anything is trained.

use std::path::Path;

use super::{Encoder, Limits};
use crate::lang::pipeline::{Setting, Tokenizer};
use crate::problem::{Problem, Problems};

/// Makes sure that every prompt can be continued, and gives the tokens of the longest.
///
/// # Errors
/// A tokenizer that is missing (66) or broken; prompts without tokens, with tokens that the model does not have, or
/// that leave no room for a continuation.
pub fn check_prompts(
    folder: &Path,
    tokenizer: &Tokenizer,
    prompts: &[Setting<String>],
    limits: &Limits,
) -> Result<u64, Problems> {
    let encoder = Encoder::open(folder, tokenizer)?;
    let marks = encoder.marks(&tokenizer.begin, &tokenizer.end)?;
    let mut problems = Problems::default();
    let mut longest = 0;
    for prompt in prompts {
        let ids = encoder.encode(prompt, false)?;
        let length = marks.begin.len() + ids.len();
        longest = longest.max(length as u64);
        let positions = limits.positions;
        if length == 0 {
            problems.push(
                Problem::new("hift::data::prompt", "the prompt has no token to go on from")
                    .label_at(prompt.span(), "nothing here")
                    .help("write a prompt, or give the tokenizer a `begin` mark"),
            );
        } else if length >= positions {
            problems.push(
                Problem::new(
                    "hift::data::prompt",
                    format!("the prompt has {length} tokens, but the model has {positions} positions"),
                )
                .label_at(prompt.span(), "leaves no room for a continuation")
                .help(format!("shorten it to less than {positions} tokens")),
            );
        }
        if let Some(id) = marks.begin.iter().chain(&ids).find(|id| **id as usize >= limits.vocab) {
            problems.push(
                Problem::new(
                    "hift::data::vocabulary",
                    format!("the prompt holds token {id}, but the model's ids end at {}", limits.vocab - 1),
                )
                .label_at(prompt.span(), "in this prompt")
                .help("use the tokenizer that belongs to the model"),
            );
        }
    }
    if problems.has_errors() { Err(problems) } else { Ok(longest) }
}
