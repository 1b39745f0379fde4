//! Rows as the model will see them, for people.

use serde::Serialize;

use super::encoder::Encoder;
use super::sequences::{IGNORE, Sequences};
use super::{Labels, Limits};

/// One sequence as the model will see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// The rows in it; one, unless rows are packed.
    pub segments: Vec<Segment>,
}

/// One row inside a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Segment {
    pub tokens: Vec<Seen>,
    /// The tokens as text, special ones included; empty without a tokenizer.
    pub text: String,
    /// The class or number, where rows have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

/// One token as the model will see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    pub id: u32,
    /// As in the vocabulary; the id in words without a tokenizer.
    pub token: String,
    /// What it adds to the text. A token that ends inside a character adds nothing, the one that completes it adds it.
    pub text: String,
    /// Whether the position before has to predict it; or whether it has a class, or is a part of the answer.
    pub trained: bool,
    /// The token's class, where tokens have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

/// The first `n` sequences. `limits`: of the model that sees them; without, it predicts the next token.
pub fn preview(
    sequences: &Sequences,
    encoder: Option<&Encoder>,
    limits: Option<&Limits>,
    n: usize,
) -> Vec<Preview> {
    let target = limits.and_then(|limits| limits.target.as_ref());
    let of_tokens = limits.and_then(|limits| limits.labels.as_ref());
    let seen = |t: usize, id: u32, text: String, labels: &[u32]| Seen {
        id,
        token: encoder.and_then(|encoder| encoder.token_text(id)).unwrap_or_else(|| id.to_string()),
        text,
        trained: match (target, of_tokens) {
            (Some(_), _) => false,
            (None, None) => t > 0 && labels[t - 1] != IGNORE,
            (None, Some(Labels::Classes(_))) => labels[t] != IGNORE,
            (None, Some(Labels::Ends)) => answer(labels).is_some_and(|answer| answer.contains(&t)),
        },
        class: match of_tokens {
            Some(Labels::Classes(classes)) => classes.get(labels[t] as usize).cloned(),
            Some(Labels::Ends) | None => None,
        },
    };
    let one = |sequence: super::Sequence<'_>| {
        let whole = vec![sequence.ids.len() as u32];
        let mut start = 0;
        let segment = |&length: &u32| {
            let range = start..start + length as usize;
            start = range.end;
            let (ids, labels) = (&sequence.ids[range.clone()], &sequence.labels[range]);
            let texts = match encoder {
                Some(encoder) => encoder.texts(ids),
                None => ids.iter().map(|id| format!("{id} ")).collect(),
            };
            let tokens = ids.iter().zip(texts).enumerate();
            Segment {
                tokens: tokens.map(|(t, (&id, text))| seen(t, id, text, labels)).collect(),
                text: encoder.map(|encoder| encoder.decode(ids)).unwrap_or_default(),
                class: target.and_then(|target| {
                    let label = labels.iter().find(|label| **label != IGNORE)?;
                    Some(target.show(*label))
                }),
            }
        };
        Preview { segments: sequence.segments.clone().unwrap_or(whole).iter().map(segment).collect() }
    };
    sequences.iter().take(n).map(one).collect()
}

/// The tokens of an answer; nothing where there is none, which is said by pointing at the first token.
fn answer(labels: &[u32]) -> Option<std::ops::RangeInclusive<usize>> {
    let begin = labels.iter().position(|label| *label != IGNORE)?;
    let end = labels[begin] as usize;
    (end > 0).then_some(begin..=end)
}
