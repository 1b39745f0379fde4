//! Rows as the model will see them, for people.

use serde::Serialize;

use super::Target;
use super::encoder::Encoder;
use super::sequences::{IGNORE, Sequences};

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
    /// Whether the position before has to predict it.
    pub trained: bool,
}

/// The first `n` sequences. `target`: what their rows are given.
pub fn preview(
    sequences: &Sequences,
    encoder: Option<&Encoder>,
    target: Option<&Target>,
    n: usize,
) -> Vec<Preview> {
    let seen = |t: usize, id: u32, text: String, labels: &[u32]| Seen {
        id,
        token: encoder.and_then(|encoder| encoder.token_text(id)).unwrap_or_else(|| id.to_string()),
        text,
        trained: target.is_none() && t > 0 && labels[t - 1] != IGNORE,
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
