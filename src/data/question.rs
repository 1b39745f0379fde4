//! Questions about a text that holds the answer: the two as one row, and where in it the answer begins and ends.
//!
//! As Hugging Face's examples do it (`run_qa.py`): question, then text, with what the tokenizer puts around and between
//! them; a long text in pieces that overlap; and a piece without the answer points at its first token.

use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;

use super::encoder::Encoder;
use super::render::one;
use super::sequences::IGNORE;
use super::table::{Place, Table, texts};
use super::tokenize::{How, Kept, Tokenised, interrupted, unknown_id};
use crate::lang::pipeline::{Data, Format};
use crate::problem::{Problem, Problems};

/// Rows that are encoded between two looks at the cancel flag.
const CHUNK: usize = 64;

/// A question's text, and what would be right to answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    pub context: String,
    /// None where the text has no answer.
    pub answers: Vec<String>,
    /// The bytes of the text that each of its tokens stands for.
    pub tokens: Vec<Range<u32>>,
}

/// The piece of a question's text that a sequence holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    pub asked: Arc<Asked>,
    /// The token of the sequence that the text begins at.
    pub first: u32,
    /// Which tokens of the text follow from there.
    pub tokens: Range<u32>,
    /// From this token on, the sequence is the second part of a pair.
    pub second: u32,
}

impl Passage {
    /// What passages take in memory. The pieces of a text follow each other and share it.
    pub(super) fn bytes(passages: &[Passage]) -> u64 {
        let texts = passages.chunk_by(|a, b| Arc::ptr_eq(&a.asked, &b.asked)).map(|pieces| {
            let asked = &pieces[0].asked;
            let answers: usize = asked.answers.iter().map(|answer| size_of::<String>() + answer.len()).sum();
            let tokens = size_of::<Range<u32>>() * asked.tokens.len();
            let counts = 2 * size_of::<usize>(); // of those who share it
            counts + size_of::<Asked>() + asked.context.len() + answers + tokens
        });
        (texts.sum::<usize>() + size_of_val(passages)) as u64
    }
}

/// What a tokenizer puts around and between two texts, and from which token on it counts them as the second.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PairMarks {
    pub before: Vec<u32>,
    pub between: Vec<u32>,
    pub after: Vec<u32>,
    /// So many of `between` belong to the second part.
    pub second: usize,
    /// Whether it tells the parts apart.
    pub typed: bool,
}

/// An answer, in bytes of its text.
struct Answer {
    text: String,
    bytes: Range<usize>,
}

/// What is wrong with a row's answers.
enum Wrong {
    Form,
    Place { text: String, at: u64, there: String },
}

/// Encodes the rows of a table of questions.
///
/// # Errors
/// A text that cannot be encoded, or an interruption (75). Answers that have another form or do not stand where they say
/// are told at the end; the first names its line.
pub(super) fn rows(
    tokenised: &mut Tokenised<'_, '_>,
    table: &Table,
    encoder: &Encoder,
) -> Result<(), Problems> {
    let Tokenised { how, collector, odd, .. } = tokenised;
    let How { layout, data, tokenizer, max_length, limits, cancelled, .. } = *how;
    let Format::Question { answers: answers_column, stride, .. } = &data.format.value else {
        unreachable!("only called for questions");
    };
    let marks = encoder.pair_marks()?;
    let n_marks = marks.before.len() + marks.between.len() + marks.after.len();
    let [question_at, context_at, answers_at] = layout.triple();
    for (batch, places) in table.parts() {
        let [questions, contexts, answers] = [question_at, context_at, answers_at].map(|at| texts(batch, at));
        let mut read: Vec<(Place, &str, &str, Vec<Answer>)> = Vec::with_capacity(places.len());
        for (row, &place) in places.iter().enumerate() {
            let context = contexts.value(row);
            match answers_of(answers.value(row), context) {
                Ok(answers) => read.push((place, questions.value(row).trim_start(), context, answers)),
                Err(what) => odd.add(|| refused(data, &table.at(place), answers_column, &what)),
            }
        }
        for chunk in read.chunks(CHUNK) {
            if cancelled() {
                return Err(interrupted().into());
            }
            let encoded = encoder.each(chunk, |(_, question, context, _)| {
                Ok((encoder.encode(question, false)?, encoder.encode_with_places(context)?))
            });
            for ((place, _, context, answers), (question, (ids, tokens))) in chunk.iter().zip(encoded?) {
                let length = question.len() + ids.len() + n_marks;
                let nothing = question.is_empty() || ids.is_empty();
                let Some(kept) = collector.fits(table, *place, if nothing { 0 } else { length }) else {
                    continue;
                };
                let room = max_length.saturating_sub(question.len() + n_marks);
                if room == 0 {
                    collector.counts.dropped.too_long += 1;
                    continue;
                }
                let pieces = match kept {
                    Kept::All => one(0..ids.len()),
                    Kept::First | Kept::Last => one(0..room.min(ids.len())),
                    Kept::Pieces => {
                        let stride = stride.map_or(max_length / 3, |stride| stride as usize);
                        windows(ids.len(), room, stride)
                    }
                };
                let wanted = answers.first().map(|answer| &answer.bytes);
                let asked = Arc::new(Asked {
                    context: (*context).to_string(),
                    answers: answers.iter().map(|answer| answer.text.clone()).collect(),
                    tokens,
                });
                let mut found = false;
                for (n, piece) in pieces.into_iter().enumerate() {
                    let first = marks.before.len() + question.len() + marks.between.len();
                    let row =
                        [&marks.before[..], &question, &marks.between, &ids[piece.clone()], &marks.after]
                            .concat();
                    let span = wanted.and_then(|bytes| span(&asked.tokens, &piece, bytes));
                    found |= span.is_some();
                    let (begin, end) = span.map_or((0, 0), |(begin, end)| (first + begin, first + end));
                    // The label of the token that the answer begins at is the token that it ends at.
                    let mut labels = vec![IGNORE; row.len()];
                    labels[begin] = end as u32;
                    let known = collector.labelled(*place, &row, &labels, n > 0, |place, id| {
                        unknown_id(encoder, tokenizer, limits.vocab, &table.at(place), id)
                    });
                    if known {
                        collector.rows.passage(Passage {
                            asked: asked.clone(),
                            first: first as u32,
                            tokens: piece.start as u32..piece.end as u32,
                            second: match marks.typed {
                                true => (first - marks.second) as u32,
                                false => row.len() as u32,
                            },
                        });
                    }
                }
                collector.counts.lost_answers += u64::from(!answers.is_empty() && !found);
            }
        }
    }
    Ok(())
}

/// Pieces of `room` tokens that share `stride` with the one before; the last may be shorter.
fn windows(n: usize, room: usize, stride: usize) -> Vec<Range<usize>> {
    // A piece must go on by at least half of itself, or a long question would make thousands of pieces.
    let step = room - stride.min(room / 2);
    let mut pieces = Vec::new();
    let mut at = 0;
    loop {
        pieces.push(at..(at + room).min(n));
        if at + room >= n {
            return pieces;
        }
        at += step;
    }
}

/// The tokens of a piece that an answer begins and ends at, counted from the piece's first; nothing where the piece does
/// not hold all of it.
fn span(tokens: &[Range<u32>], piece: &Range<usize>, answer: &Range<usize>) -> Option<(usize, usize)> {
    let own = &tokens[piece.clone()];
    let (begin, end) = (answer.start as u32, answer.end as u32);
    if own.first()?.start > begin || own.last()?.end < end {
        return None;
    }
    let first = own.iter().rposition(|token| token.start <= begin)?;
    let last = own.iter().position(|token| token.end >= end)?;
    // An answer that is nothing but white space has no token of its own.
    (first <= last).then_some((first, last))
}

/// The answers of a row, from JSON text: lists of texts and of the characters that they begin at, or a list of both.
fn answers_of(json: &str, context: &str) -> Result<Vec<Answer>, Wrong> {
    let given: Value = serde_json::from_str(json).map_err(|_| Wrong::Form)?;
    let pairs: Option<Vec<(Value, Value)>> = match given {
        Value::Null => Some(Vec::new()),
        Value::Object(columns) => match (columns.get("text"), columns.get("answer_start")) {
            (Some(Value::Array(texts)), Some(Value::Array(starts))) if texts.len() == starts.len() => {
                Some(texts.iter().cloned().zip(starts.iter().cloned()).collect())
            }
            (Some(text @ Value::String(_)), Some(start)) => Some(vec![(text.clone(), start.clone())]),
            _ => None,
        },
        Value::Array(items) => items
            .into_iter()
            .map(|item| Some((item.get("text")?.clone(), item.get("answer_start")?.clone())))
            .collect(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    };
    let answer = |(text, start): (Value, Value)| {
        let (text, at) = match (text, start.as_u64()) {
            (Value::String(text), Some(at)) => (text, at),
            _ => return Err(Wrong::Form),
        };
        let from = context.char_indices().map(|(byte, _)| byte).chain([context.len()]).nth(at as usize);
        match from {
            Some(from) if context[from..].starts_with(&text) => {
                Ok(Answer { bytes: from..from + text.len(), text })
            }
            _ => {
                let there = context.chars().skip(at as usize).take(text.chars().count().min(40)).collect();
                Err(Wrong::Place { text, at, there })
            }
        }
    };
    pairs.ok_or(Wrong::Form)?.into_iter().map(answer).collect()
}

fn refused(data: &Data, at: &str, column: &str, wrong: &Wrong) -> Problem {
    let (fact, help) = match wrong {
        Wrong::Form => (
            format!("`{column}` is neither lists of `text` and `answer_start` nor a list of such answers"),
            "write, for example, `{\"text\": [\"Paris\"], \"answer_start\": [17]}`; empty lists where there is no answer",
        ),
        Wrong::Place { text, at, there } => (
            format!(
                "the answer `{text}` is to begin at character {at} of the text, but there stands `{there}`"
            ),
            "count `answer_start` in characters from 0, in the text as it stands in the column",
        ),
    };
    Problem::new("hift::data::answer", format!("{at}: {fact}"))
        .label_at(data.format.span(), "reads this column")
        .help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::single_range_in_vec_init, reason = "a list of one piece")]
    fn long_texts_become_pieces_that_overlap() {
        let check = |n, room, stride, expected: &[Range<usize>]| {
            assert_eq!(windows(n, room, stride), expected);
        };
        check(5, 10, 3, &[0..5]);
        check(10, 10, 3, &[0..10]);
        check(11, 10, 3, &[0..10, 7..11]);
        check(25, 10, 3, &[0..10, 7..17, 14..24, 21..25]);
        check(4, 2, 9, &[0..2, 1..3, 2..4]); // more than half is never shared
        check(3, 1, 1, &[0..1, 1..2, 2..3]);
    }

    #[test]
    fn an_answer_is_the_tokens_that_hold_it() {
        // "the old cat": tokens `the`, `old`, `cat`
        let tokens = [0..3, 4..7, 8..11];
        let check = |piece: Range<usize>, answer: Range<usize>, expected| {
            assert_eq!(span(&tokens, &piece, &answer), expected);
        };
        check(0..3, 4..11, Some((1, 2)));
        check(0..3, 0..3, Some((0, 0)));
        check(0..3, 5..6, Some((1, 1))); // a part of a token
        check(1..3, 4..7, Some((0, 0)));
        check(0..2, 4..11, None); // its end lies beyond the piece
        check(1..3, 0..3, None);
        check(0..3, 3..4, Some((0, 1))); // a space has no token: those around it
    }

    #[test]
    fn answers_stand_where_they_say() {
        let context = "Zoë met Ann";
        let check = |json: &str, expected: Result<&[Range<usize>], &str>| {
            let found = answers_of(json, context);
            let found = found.map(|answers| answers.into_iter().map(|a| a.bytes).collect::<Vec<_>>());
            let found = found.map_err(|wrong| match wrong {
                Wrong::Form => "form".to_string(),
                Wrong::Place { there, .. } => there,
            });
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{json}");
        };
        // The ë has two bytes.
        let ann = 9..12;
        check(r#"{"text": ["Ann"], "answer_start": [8]}"#, Ok(std::slice::from_ref(&ann)));
        check(
            r#"[{"text": "Ann", "answer_start": 8}, {"text": "Zo", "answer_start": 0}]"#,
            Ok(&[ann.clone(), 0..2]),
        );
        check(r#"{"text": "Ann", "answer_start": 8}"#, Ok(std::slice::from_ref(&ann)));
        check(r#"{"text": [], "answer_start": []}"#, Ok(&[]));
        check("null", Ok(&[]));
        check(r#"{"text": ["Ann"], "answer_start": [7]}"#, Err(" An"));
        check(r#"{"text": ["Ann"], "answer_start": [99]}"#, Err(""));
        check(r#"{"text": ["Ann"]}"#, Err("form"));
        check(r#""Ann""#, Err("form"));
    }
}
