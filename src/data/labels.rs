//! Rows of words with a class each: one label at the first token of a word.
//!
//! As Hugging Face's examples do it (`run_ner.py`): each word is encoded by itself, its first token has its class, and the
//! others, like the marks around the row, are not learned.

use serde_json::Value;

use super::Labels;
use super::encoder::{Encoder, Marks};
use super::render::one;
use super::sequences::IGNORE;
use super::table::{Place, Table, texts};
use super::tokenize::{HUGGING_FACE_IGNORE, How, Kept, Tokenised, interrupted, unknown_id};
use crate::lang::pipeline::{Data, Format};
use crate::problem::{Problem, Problems};

/// Rows that are encoded between two looks at the cancel flag.
const CHUNK: usize = 256;

/// The words of a row, and the class of each or [`IGNORE`].
type Row = (Vec<String>, Vec<u32>);

/// Encodes the rows of a table of words.
///
/// # Errors
/// A word that cannot be encoded, or an interruption (75). Lists that are none or of other lengths, and classes that the
/// model does not have, are told at the end; the first of each names its line.
pub(super) fn rows(
    tokenised: &mut Tokenised<'_, '_>,
    table: &Table,
    encoder: &Encoder,
    marks: &Marks,
) -> Result<(), Problems> {
    let Tokenised { how, collector, odd, uneven, strange, .. } = tokenised;
    let How { layout, data, tokenizer, max_length, limits, cancelled, .. } = *how;
    let Format::TokenLabels { tokens: words_column, labels: labels_column } = &data.format.value else {
        unreachable!("only called for rows of words");
    };
    let Some(Labels::Classes(classes)) = &limits.labels else { unreachable!("the plan has asked for them") };
    let room = max_length.saturating_sub(marks.begin.len() + marks.end.len()).max(1);
    let [words_at, labels_at] = layout.pair();
    for (batch, places) in table.parts() {
        let (given_words, given_labels) = (texts(batch, words_at), texts(batch, labels_at));
        let mut read: Vec<(Place, Row)> = Vec::with_capacity(places.len());
        for (row, &place) in places.iter().enumerate() {
            let at = |column: &str, what: &str| {
                Problem::new("hift::data::words", format!("{}: `{column}` is no {what}", table.at(place)))
                    .label_at(data.format.span(), "reads this column")
                    .help("give each row a list of words and a list with the class of each")
            };
            let Some(words) = words(given_words.value(row)) else {
                odd.add(|| at(words_column, "list of words"));
                continue;
            };
            let Some(labels) = list(given_labels.value(row)) else {
                odd.add(|| at(labels_column, "list of classes"));
                continue;
            };
            if words.len() != labels.len() {
                uneven.add(|| {
                    Problem::new(
                        "hift::data::lengths_differ",
                        format!(
                            "{}: `{words_column}` has {} words, but `{labels_column}` has {} classes",
                            table.at(place),
                            words.len(),
                            labels.len()
                        ),
                    )
                    .label_at(data.format.span(), "these columns")
                    .help("give each word its class, -100 where it is not to be learned")
                });
                continue;
            }
            let known: Result<Vec<u32>, &Value> =
                labels.iter().map(|label| class_of(label, classes).ok_or(label)).collect();
            match known {
                Ok(labels) => read.push((place, (words, labels))),
                Err(label) => strange.add(|| no_class(data, &table.at(place), label, classes)),
            }
        }
        for chunk in read.chunks(CHUNK) {
            if cancelled() {
                return Err(interrupted().into());
            }
            let encoded = encoder.each(chunk, |(_, (words, _))| encoder.encode_words(words));
            for ((place, (_, classes)), (ids, words)) in chunk.iter().zip(encoded?) {
                let labels = first_tokens(&words, classes);
                let n_marks = marks.begin.len() + marks.end.len();
                let Some(kept) =
                    collector.fits(table, *place, if ids.is_empty() { 0 } else { ids.len() + n_marks })
                else {
                    continue;
                };
                let pieces: Vec<std::ops::Range<usize>> = match kept {
                    Kept::All => one(0..ids.len()),
                    Kept::First => one(0..room.min(ids.len())),
                    Kept::Last => one(ids.len().saturating_sub(room)..ids.len()),
                    Kept::Pieces => {
                        (0..ids.len()).step_by(room).map(|at| at..(at + room).min(ids.len())).collect()
                    }
                };
                let mut first = true;
                for piece in pieces {
                    let row_ids = [&marks.begin[..], &ids[piece.clone()], &marks.end].concat();
                    let ignored = |n: usize| vec![IGNORE; n];
                    let row_labels =
                        [ignored(marks.begin.len()), labels[piece].to_vec(), ignored(marks.end.len())]
                            .concat();
                    first &= !collector.labelled(*place, &row_ids, &row_labels, !first, |place, id| {
                        unknown_id(encoder, tokenizer, limits.vocab, &table.at(place), id)
                    });
                }
                if first {
                    collector.counts.dropped.untrained += 1;
                }
            }
        }
    }
    Ok(())
}

/// Words; numbers and truth values are taken as they are written.
fn words(text: &str) -> Option<Vec<String>> {
    let word = |value: Value| match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    list(text)?.into_iter().map(word).collect()
}

fn list(text: &str) -> Option<Vec<Value>> {
    match serde_json::from_str(text).ok()? {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

/// The number of a class, as it is given or that of its name; [`IGNORE`] for -100.
fn class_of(label: &Value, classes: &[String]) -> Option<u32> {
    match label {
        Value::Number(number) if number.as_i64() == Some(HUGGING_FACE_IGNORE) => Some(IGNORE),
        Value::Number(number) => {
            number.as_u64().filter(|n| *n < classes.len() as u64).map(|number| number as u32)
        }
        Value::String(name) => {
            let at = classes.iter().position(|class| class == name);
            at.or_else(|| name.parse().ok().filter(|n| *n < classes.len())).map(|at| at as u32)
        }
        _ => None,
    }
}

fn no_class(data: &Data, at: &str, label: &Value, classes: &[String]) -> Problem {
    let names: Vec<String> = classes.iter().take(12).map(|name| format!("`{name}`")).collect();
    let more = if classes.len() > 12 { ", ..." } else { "" };
    Problem::new("hift::data::class", format!("{at}: {label} is no class of the model"))
        .label_at(
            data.format.span(),
            format!("its classes are 0 to {}: {}{more}", classes.len() - 1, names.join(", ")),
        )
        .help(
            "write the classes in the model block, `task = token_classification(labels = [...])`, in the order of their \
             numbers",
        )
}

/// The class of each word at its first token. `words`: the word that each token belongs to.
fn first_tokens(words: &[Option<u32>], classes: &[u32]) -> Vec<u32> {
    let mut before = None;
    let label = |word: &Option<u32>| {
        let is_first = word.is_some() && *word != before;
        before = *word;
        match word {
            Some(word) if is_first => classes[*word as usize],
            Some(_) | None => IGNORE,
        }
    };
    words.iter().map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_token_of_a_word_has_its_class() {
        let check = |words: &[Option<u32>], expected: &[u32]| {
            assert_eq!(first_tokens(words, &[7, IGNORE, 9]), expected);
        };
        check(&[Some(0), Some(0), Some(1), Some(2), Some(2)], &[7, IGNORE, IGNORE, 9, IGNORE]);
        // A word without tokens has no label, a mark between words neither.
        check(&[None, Some(0), None, Some(2)], &[IGNORE, 7, IGNORE, 9]);
    }

    #[test]
    fn classes_have_numbers_and_names() {
        let classes = ["O".to_string(), "B-PER".to_string(), "3".to_string()];
        let check = |label: &str, expected: Option<u32>| {
            assert_eq!(class_of(&serde_json::from_str(label).unwrap(), &classes), expected, "{label}");
        };
        check("1", Some(1));
        check("-100", Some(IGNORE));
        check("3", None);
        check("-1", None);
        check(r#""B-PER""#, Some(1));
        check(r#""3""#, Some(2)); // a name before a number
        check(r#""1""#, Some(1));
        check(r#""B-LOC""#, None);
        check("null", None);
    }
}
