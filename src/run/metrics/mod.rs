//! What evaluated rows give: sums as they come, metrics in the end.
//!
//! Reading order: [`Scores`], then [`classes`] (F1, Matthews), [`numbers`] (correlations), [`entities`] (spans of tagged
//! words), [`answers`] (answers found in a text), [`texts`] (generated text against references).

pub mod answers;
pub mod classes;
pub mod entities;
pub mod numbers;
pub mod texts;

use serde_json::{Map, Value as Json};

use crate::data::{IGNORE, Sequence};
use crate::lang::pipeline::Metric;
use crate::model::{Head, Model, Target};

use answers::Answers;
use classes::Confusion;
use entities::Entities;

/// What all rows that were evaluated gave.
#[derive(Debug, Clone)]
pub struct Scores {
    /// Cross entropy in nats, or squared errors.
    pub nll: f64,
    /// Trained tokens whose label is the model's first choice.
    pub correct: f64,
    /// Trained tokens; of rows with one label each, the rows.
    pub tokens: u64,
    given: Given,
}

/// What the model gave, as far as its metrics need it.
#[derive(Debug, Clone)]
enum Given {
    /// The next token is measured by sums alone.
    Nothing,
    Classes(Confusion),
    /// What the model gave, and what was right.
    Numbers(Vec<[f64; 2]>),
    Labels(Confusion, Entities),
    Answers(Answers),
}

impl Scores {
    pub fn new(model: &Model) -> Self {
        let given = match &model.head {
            Head::Tokens { .. } => Given::Nothing,
            Head::Sequence { target: Target::Classes(classes), .. } => {
                Given::Classes(Confusion::new(classes.len()))
            }
            Head::Sequence { target: Target::Number, .. } => Given::Numbers(Vec::new()),
            Head::Labels { classes, .. } => {
                Given::Labels(Confusion::new(classes.len()), Entities::new(classes))
            }
            Head::Span { .. } => Given::Answers(Answers::default()),
        };
        Self { nll: 0.0, correct: 0.0, tokens: 0, given }
    }

    /// Adds a batch of these sequences. `logits` are what the loss was computed from: `[rows, classes]`, or for each token
    /// of rows padded to `seq`.
    pub fn add<'s>(&mut self, sequences: impl Iterator<Item = Sequence<'s>>, logits: &[f32], seq: usize) {
        match &mut self.given {
            Given::Nothing => {}
            Given::Classes(confusion) => {
                let choices = logits.chunks_exact(confusion.classes()).map(first_choice);
                for (choice, sequence) in choices.zip(sequences) {
                    confusion.add(label(&sequence) as usize, choice);
                }
            }
            Given::Numbers(pairs) => {
                let right = sequences.map(|sequence| f64::from(f32::from_bits(label(&sequence))));
                pairs.extend(logits.iter().zip(right).map(|(&x, right)| [f64::from(x), right]));
            }
            Given::Labels(confusion, entities) => {
                let classes = confusion.classes();
                for (logits, sequence) in logits.chunks_exact(seq * classes).zip(sequences) {
                    let labelled = logits.chunks_exact(classes).zip(sequence.labels.iter());
                    let row: Vec<[usize; 2]> = labelled
                        .filter(|(_, label)| **label != IGNORE)
                        .map(|(logits, label)| [*label as usize, first_choice(logits)])
                        .collect();
                    row.iter().for_each(|[label, choice]| confusion.add(*label, *choice));
                    entities.add(&row);
                }
            }
            Given::Answers(answers) => {
                for (logits, sequence) in logits.chunks_exact(2 * seq).zip(sequences) {
                    answers.add(&sequence, logits);
                }
            }
        }
    }

    /// The mean cross entropy per trained token in nats, or the mean squared error.
    pub fn loss(&self) -> f64 {
        self.nll / self.tokens.max(1) as f64
    }

    /// Those that are wanted. The plan has made sure that they fit.
    pub fn metrics(&self, wanted: &[Metric]) -> Vec<(Metric, f64)> {
        let confusion = match &self.given {
            Given::Classes(confusion) | Given::Labels(confusion, _) => Some(confusion),
            Given::Nothing | Given::Numbers(_) | Given::Answers(_) => None,
        };
        let of_classes = |f: fn(&Confusion) -> f64| confusion.map_or(f64::NAN, f);
        let of_numbers = |f: fn(&[[f64; 2]]) -> f64| match &self.given {
            Given::Numbers(pairs) => f(pairs),
            Given::Nothing | Given::Classes(_) | Given::Labels(..) | Given::Answers(_) => f64::NAN,
        };
        let of_entities = |f: fn(&Entities) -> f64| match &self.given {
            Given::Labels(_, entities) => f(entities),
            Given::Nothing | Given::Classes(_) | Given::Numbers(_) | Given::Answers(_) => f64::NAN,
        };
        // Once for both.
        let answers = std::cell::OnceCell::new();
        let of_answers = |i: usize| match &self.given {
            Given::Answers(given) => answers.get_or_init(|| given.scores())[i],
            Given::Nothing | Given::Classes(_) | Given::Numbers(_) | Given::Labels(..) => f64::NAN,
        };
        let value = |metric| match metric {
            Metric::Loss => self.loss(),
            Metric::Perplexity => self.loss().exp(),
            Metric::Accuracy => self.correct / self.tokens.max(1) as f64,
            Metric::F1 if confusion.is_some() => of_classes(|confusion| confusion.f1(1)),
            Metric::F1 => of_answers(1),
            Metric::MacroF1 => of_classes(Confusion::macro_f1),
            Metric::Matthews => of_classes(Confusion::matthews),
            Metric::Pearson => of_numbers(numbers::pearson),
            Metric::Spearman => of_numbers(numbers::spearman),
            Metric::ExactMatch => of_answers(0),
            Metric::EntityF1 => of_entities(Entities::f1),
            Metric::EntityPrecision => of_entities(Entities::precision),
            Metric::EntityRecall => of_entities(Entities::recall),
            Metric::Bleu | Metric::Nist | Metric::Rouge1 | Metric::Rouge2 | Metric::RougeL => f64::NAN,
        };
        wanted.iter().map(|metric| (*metric, value(*metric))).collect()
    }
}

/// Metrics as a JSON object.
pub fn json(metrics: &[(Metric, f64)]) -> Json {
    let entries = metrics.iter().map(|(metric, value)| (metric.name().to_string(), Json::from(*value)));
    Json::Object(entries.collect::<Map<_, _>>())
}

/// The one label of a row.
fn label(sequence: &Sequence<'_>) -> u32 {
    sequence.labels.iter().copied().find(|label| *label != IGNORE).unwrap_or_default()
}

/// The largest; of equal ones the first.
fn first_choice(logits: &[f32]) -> usize {
    (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or(0)
}

/// A share of something, 0 where there is nothing.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// The harmonic mean of precision and recall, from what was right, what was found and what was to be found.
fn f1(right: f64, found: f64, wanted: f64) -> f64 {
    share(2.0 * right, found + wanted)
}
