//! Answers found in a text: exact match and F1, as SQuAD counts them.
//!
//! Sources: Rajpurkar et al. 2016 and 2018, "SQuAD", with their evaluation scripts; which answer is given for the logits
//! of all pieces of a text is that of Hugging Face's `postprocess_qa_predictions`.

use std::sync::Arc;

use crate::data::{Asked, Sequence};

use super::{f1, share};

/// So many tokens an answer has at the most.
const LONGEST: usize = 30;
/// So many first and last tokens are tried.
const TRIED: usize = 20;

/// The best answer to each question so far.
#[derive(Debug, Clone, Default)]
pub struct Answers(Vec<Found>);

#[derive(Debug, Clone)]
struct Found {
    asked: Arc<Asked>,
    /// Its sum of logits, and its bytes in the text.
    best: Option<(f32, [u32; 2])>,
    /// The smallest sum of logits that says in a piece that there is no answer.
    none: f32,
}

impl Answers {
    /// Adds a piece of a question's text. `logits` is `[seq, 2]`; pieces of one text follow each other.
    pub fn add(&mut self, sequence: &Sequence<'_>, logits: &[f32]) {
        let Some(passage) = sequence.passage else { return };
        if !self.0.last().is_some_and(|last| Arc::ptr_eq(&last.asked, &passage.asked)) {
            self.0.push(Found { asked: passage.asked.clone(), best: None, none: f32::INFINITY });
        }
        let found = self.0.last_mut().expect("just added");
        found.none = found.none.min(logits[0] + logits[1]);
        let length = sequence.ids.len();
        let highest = |side: usize| {
            let mut order: Vec<usize> = (0..length).collect();
            order.sort_by(|a, b| logits[2 * b + side].total_cmp(&logits[2 * a + side]));
            order.truncate(TRIED);
            order
        };
        let own = passage.first as usize..passage.first as usize + passage.tokens.len();
        let (firsts, lasts) = (highest(0), highest(1));
        for &first in firsts.iter().filter(|at| own.contains(at)) {
            for &last in lasts.iter().filter(|at| own.contains(at)) {
                if last < first || last - first + 1 > LONGEST {
                    continue;
                }
                let sum = logits[2 * first] + logits[2 * last + 1];
                if found.best.is_none_or(|(best, _)| sum > best) {
                    let token =
                        |at: usize| &passage.asked.tokens[at - own.start + passage.tokens.start as usize];
                    found.best = Some((sum, [token(first).start, token(last).end]));
                }
            }
        }
    }

    /// Exact match and F1, the mean over all questions. Where some have no answer, saying that there is none counts as an
    /// answer.
    pub fn scores(&self) -> [f64; 2] {
        let may_be_none = self.0.iter().any(|found| found.asked.answers.is_empty());
        let mut sums = [0.0, 0.0];
        for found in &self.0 {
            let given = match found.best {
                Some((best, _)) if may_be_none && found.none > best => "",
                Some((_, [begin, end])) => &found.asked.context[begin as usize..end as usize],
                None => "",
            };
            let scores = against(given, &found.asked.answers);
            sums = [sums[0] + scores[0], sums[1] + scores[1]];
        }
        sums.map(|sum| share(sum, self.0.len() as f64))
    }
}

/// Exact match and F1 of an answer: the best over all that are right; none is right where there are none with a word.
pub fn against(given: &str, answers: &[String]) -> [f64; 2] {
    let given = words(given);
    let answers = answers.iter().map(|answer| words(answer)).filter(|answer| !answer.is_empty());
    let mut best = None;
    for answer in answers {
        let exact = f64::from(u8::from(given == answer));
        let one = [exact, overlap(&given, &answer)];
        best = Some(best.map_or(one, |best: [f64; 2]| [best[0].max(one[0]), best[1].max(one[1])]));
    }
    best.unwrap_or([f64::from(u8::from(given.is_empty())); 2])
}

/// In small letters, without ASCII's punctuation and without articles.
fn words(text: &str) -> Vec<String> {
    let plain: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    // An article may stand beside a sign that is not of ASCII, and leaves a gap there.
    let runs = plain.split_inclusive(|c: char| !c.is_alphanumeric()).map(|run| {
        let word = run.trim_end_matches(|c: char| !c.is_alphanumeric());
        if ["a", "an", "the"].contains(&word) { format!(" {}", &run[word.len()..]) } else { run.to_string() }
    });
    runs.collect::<String>().split_whitespace().map(str::to_string).collect()
}

fn overlap(given: &[String], answer: &[String]) -> f64 {
    let mut left: Vec<&String> = answer.iter().collect();
    let common = given.iter().filter(|word| {
        let at = left.iter().position(|other| other == word);
        at.map(|at| left.swap_remove(at)).is_some()
    });
    f1(common.count() as f64, given.len() as f64, answer.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_as_squad_counts_them() {
        let check = |given: &str, answers: &[&str], expected: [f64; 2]| {
            let answers: Vec<String> = answers.iter().map(|answer| answer.to_string()).collect();
            let found = against(given, &answers);
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{given}: {found:?}");
        };
        // By hand from the rules of SQuAD's evaluate-v2.0.py.
        check("the Eiffel Tower!", &["Eiffel tower"], [1.0, 1.0]);
        check("Eiffel", &["Eiffel tower"], [0.0, 2.0 / 3.0]);
        check("tower of Pisa", &["Eiffel tower", "Pisa"], [0.0, 0.5]);
        check("the the", &["the"], [1.0, 1.0]);
        check("Paris", &["Rome"], [0.0, 0.0]);
        check("", &[], [1.0, 1.0]);
        check("Paris", &[], [0.0, 0.0]);
        check("to to to", &["to be"], [0.0, 0.4]);
    }
}
