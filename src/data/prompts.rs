//! Prompts, held against the tokenizer and the model before anything is trained; and rows that are continued.

use std::path::Path;

use super::sequences::IGNORE;
use super::{Dataset, Encoder, Limits, Marks, Sequences};
use crate::lang::pipeline::{Data, Setting, Tokenizer, TooLong};
use crate::problem::{Problem, Problems};

/// A row whose response is to be written again. Tokens have 64 bits wherever no program reads them, so that they do not
/// pass for tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exercise {
    /// What stands before the response; of a chat, before the last turn that is learned.
    pub prompt: Vec<u64>,
    /// The response, its end mark included.
    pub answer: Vec<u64>,
}

/// The rows of a dataset that can be continued, in the order of its files: those held out if there are some, else all;
/// the first `at_most` of them. Rows without a prompt, rows that were cut, and those that leave no position to write
/// at are left out.
///
/// # Errors
/// Rows that were split, whose pieces may begin in the middle of a prompt; no row that can be continued.
pub fn exercises(
    dataset: &Dataset,
    data: &Data,
    tokenizer: &Tokenizer,
    marks: &Marks,
    positions: usize,
    at_most: Option<u64>,
) -> Result<Vec<Exercise>, Problem> {
    let problem = |message: String, span, label: &str, help: &str| {
        Err(Problem::new("hift::data::no_response", message).label_at(span, label).help(help))
    };
    if dataset.audit.split > 0 {
        return problem(
            format!(
                "{} rows of `{}` are split, and a piece may begin in the middle of its prompt",
                dataset.audit.split, data.name
            ),
            tokenizer.too_long.span(),
            "splits them",
            "write `too_long = drop`, or a larger `max_length`",
        );
    }
    let most = at_most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    // Rows as long as is allowed may have been cut, if any was.
    let longest = match (dataset.audit.cut, *tokenizer.too_long) {
        (0, _) | (_, TooLong::Split | TooLong::Drop | TooLong::Fail) => usize::MAX,
        (_, TooLong::Cut | TooLong::CutLeft) => {
            tokenizer.max_length.map_or(positions, |length| length as usize) - 1
        }
    };
    let rows: &Sequences = if dataset.holdout.is_empty() { &dataset.train } else { &dataset.holdout };
    let exercise = |(ids, labels): (&[u32], &[u32])| {
        let is_learned = |at: &usize| labels[*at] != IGNORE;
        let end = (0..labels.len()).rev().find(is_learned)? + 1;
        let begin = (0..end).rev().take_while(is_learned).last()?;
        let wide = |ids: &[u32]| ids.iter().map(|id| u64::from(*id)).collect::<Vec<_>>();
        // The first token is learned by nothing, so a row that is learned whole seems to have one before its response.
        let has_prompt = begin + 1 > marks.begin.len().max(1);
        (has_prompt && begin + 1 < positions && ids.len() <= longest)
            .then(|| Exercise { prompt: wide(&ids[..=begin]), answer: wide(&labels[begin..end]) })
    };
    let found: Vec<Exercise> = rows.in_files().filter_map(exercise).take(most).collect();
    if found.is_empty() {
        return problem(
            format!("no row of `{}` has a prompt that can be continued", data.name),
            data.format.span(),
            "rows of this format",
            "give the rows a prompt before their response; `hift inspect FILE` shows what they become",
        );
    }
    Ok(found)
}

/// Makes sure that the rows of a stage can be continued: how many there are, and the tokens of the longest prompt.
///
/// # Errors
/// As [`exercises`], and a tokenizer that is missing (66) or broken.
pub fn check_exercises(
    folder: &Path,
    (dataset, data): (&Dataset, &Data),
    tokenizer: &Tokenizer,
    at_most: Option<u64>,
    limits: &Limits,
) -> Result<(u64, u64), Problems> {
    let marks = Encoder::open(folder, tokenizer)?.marks(&tokenizer.begin, &tokenizer.end)?;
    let found = exercises(dataset, data, tokenizer, &marks, limits.positions, at_most)?;
    let longest = found.iter().map(|exercise| exercise.prompt.len() as u64).max().unwrap_or(0);
    Ok((found.len() as u64, longest))
}

/// Makes sure that every prompt can be continued: how many there are, and the tokens of the longest.
///
/// # Errors
/// A tokenizer that is missing (66) or broken; prompts without tokens, with tokens that the model does not have, or
/// that leave no room for a continuation.
pub fn check_prompts(
    folder: &Path,
    tokenizer: &Tokenizer,
    prompts: &[Setting<String>],
    limits: &Limits,
) -> Result<(u64, u64), Problems> {
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
    if problems.has_errors() { Err(problems) } else { Ok((prompts.len() as u64, longest)) }
}
