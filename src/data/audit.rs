//! What became of the rows, and whether that is worth training on.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::sequences::Sequences;
use crate::lang::pipeline::{Data, Format, LossOn, Tokenizer};
use crate::problem::Problem;
use crate::units::Count;

/// Less than this share of the tokens with a loss is surely not meant.
const LITTLE: f64 = 0.01;

/// An account of every row that was read: `rows + pieces + repeated = train.rows + holdout.rows + dropped`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Audit {
    /// Rows in the source.
    pub rows: u64,
    /// Rows that are not used, by reason.
    pub dropped: Dropped,
    /// Rows that lost an end to `max_length`.
    pub cut: u64,
    /// Rows that became several, with `too_long = split`.
    pub split: u64,
    /// Rows more than there were, since some became several.
    pub pieces: u64,
    /// Rows of a mix that come again.
    pub repeated: u64,
    /// Tokens of the longest row before cutting.
    pub longest_row: u64,
    /// Rows whose response holds nothing but white space.
    pub empty_responses: u64,
    /// Questions whose answer was cut away: they are trained as having none.
    pub lost_answers: u64,
    /// Of chats: the messages, by role.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub turns: BTreeMap<String, Turns>,
    /// Rows that are the same, token by token, as an earlier one.
    pub duplicates: u64,
    /// Held-out rows that are also trained on.
    pub leaked: u64,
    pub train: Part,
    pub holdout: Part,
    pub warnings: Vec<Problem>,
}

/// Messages of a role.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turns {
    pub all: u64,
    /// Those that carry a loss.
    pub learned: u64,
}

/// Rows that are not used, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Longer than `max_length`, with `too_long = drop`.
    pub too_long: u64,
    /// No text, or no tokens.
    pub empty: u64,
    /// No token carries a loss.
    pub untrained: u64,
    /// Did not pass `filter`.
    pub filtered: u64,
    /// The same as an earlier row, with `dedup = true`.
    pub repeats: u64,
    /// More than the weights of a mix ask for.
    pub unmixed: u64,
}

impl Dropped {
    /// All of them.
    pub fn total(self) -> u64 {
        self.too_long + self.empty + self.untrained + self.filtered + self.repeats + self.unmixed
    }
}

/// The rows on one side of the holdout.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Part {
    pub rows: u64,
    /// The same as `rows`, unless rows are packed.
    pub sequences: u64,
    pub tokens: u64,
    /// Tokens that carry a loss.
    pub trained_tokens: u64,
    /// Tokens of the longest sequence.
    pub longest: u64,
    /// The share of the room in packed sequences that holds tokens.
    pub fill: Option<f64>,
    /// Of the rows, after cutting and before packing; `None` if there is no row.
    pub lengths: Option<Lengths>,
}

/// How many tokens rows have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lengths {
    pub min: u64,
    /// Half of the rows are at most this long.
    pub median: u64,
    pub max: u64,
    pub histogram: Vec<Bin>,
}

/// Rows that are at most `up_to` tokens long, and longer than the bin before. Bins end at powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bin {
    pub up_to: u64,
    pub rows: u64,
}

/// What is counted while rows are tokenised.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Counts {
    pub rows: u64,
    pub dropped: Dropped,
    pub cut: u64,
    pub split: u64,
    pub pieces: u64,
    /// Sequences that go on with the row of the one before, in their order.
    pub continues: Vec<u32>,
    pub longest_row: u64,
    pub empty_responses: u64,
    /// Questions whose answer stands in no piece of the text that is used.
    #[serde(default)]
    pub lost_answers: u64,
    pub turns: BTreeMap<String, Turns>,
    /// Of `dropped.untrained`: cutting took all that carried a loss.
    pub trained_part_cut: u64,
    /// Rows whose own text begins, or ends, with the mark that is put there too.
    pub begins_marked: u64,
    pub ends_marked: u64,
}

impl Counts {
    /// Of two sources together. Which sequences go on with a row is not kept.
    pub(super) fn add(&mut self, other: &Counts) {
        self.rows += other.rows;
        let (own, others) = (&mut self.dropped, other.dropped);
        own.too_long += others.too_long;
        own.empty += others.empty;
        own.untrained += others.untrained;
        own.filtered += others.filtered;
        own.repeats += others.repeats;
        own.unmixed += others.unmixed;
        self.cut += other.cut;
        self.split += other.split;
        self.pieces += other.pieces;
        self.longest_row = self.longest_row.max(other.longest_row);
        self.empty_responses += other.empty_responses;
        self.lost_answers += other.lost_answers;
        for (role, turns) in &other.turns {
            let own = self.turns.entry(role.clone()).or_default();
            own.all += turns.all;
            own.learned += turns.learned;
        }
        self.trained_part_cut += other.trained_part_cut;
        self.begins_marked += other.begins_marked;
        self.ends_marked += other.ends_marked;
    }
}

impl Part {
    /// Accounts for rows, given before packing and as they are used.
    pub(super) fn new(rows: &Sequences, used: &Sequences, max_length: usize) -> Self {
        let room = used.len() as f64 * max_length as f64;
        Self {
            rows: rows.len() as u64,
            sequences: used.len() as u64,
            tokens: used.tokens(),
            trained_tokens: used.trained(),
            longest: used.longest() as u64,
            fill: (used.is_packed() && !used.is_empty()).then(|| used.tokens() as f64 / room),
            lengths: Lengths::of((0..rows.len()).map(|i| rows.length(i) as u64)),
        }
    }
}

impl Lengths {
    fn of(lengths: impl Iterator<Item = u64>) -> Option<Self> {
        let mut rows_of: BTreeMap<u64, u64> = BTreeMap::new();
        lengths.for_each(|length| *rows_of.entry(length).or_default() += 1);
        let (&min, &max) = (rows_of.keys().next()?, rows_of.keys().next_back()?);
        let mut histogram: Vec<Bin> = Vec::new();
        for (length, rows) in &rows_of {
            let up_to = length.next_power_of_two();
            match histogram.last_mut() {
                Some(bin) if bin.up_to == up_to => bin.rows += rows,
                _ => histogram.push(Bin { up_to, rows: *rows }),
            }
        }
        let middle = rows_of.values().sum::<u64>().div_ceil(2);
        let mut seen = 0;
        let median = rows_of.iter().find(|(_, rows)| {
            seen += **rows;
            seen >= middle
        });
        Some(Self { min, median: *median?.0, max, histogram })
    }
}

/// For each of these sequences whether it is the same, token by token, as an earlier one; and how many of those from
/// `from` on are the same as one before it. Takes 13 bytes a sequence, whatever their lengths.
pub(super) fn repeats(all: &Sequences, from: usize) -> (Vec<bool>, u64) {
    let hashes: Vec<u64> = (0..all.len())
        .into_par_iter()
        .map(|i| {
            let mut hasher = DefaultHasher::new();
            all.parts(i).for_each(|part| part.hash(&mut hasher));
            hasher.finish()
        })
        .collect();
    let mut order: Vec<u32> = (0..all.len() as u32).collect();
    order.par_sort_unstable_by_key(|&i| (hashes[i as usize], i));
    let mut repeats = vec![false; all.len()];
    let mut crossing = 0;
    // Hashes that are the same are not yet the same rows.
    for run in order.chunk_by(|a, b| hashes[*a as usize] == hashes[*b as usize]) {
        for (n, &i) in run.iter().enumerate() {
            let same = |earlier: &&u32| all.parts(**earlier as usize).eq(all.parts(i as usize));
            // The first of them is the earliest.
            if let Some(first) = run[..n].iter().find(same) {
                repeats[i as usize] = true;
                crossing += u64::from(i as usize >= from && (*first as usize) < from);
            }
        }
    }
    (repeats, crossing)
}

/// No row is left to train on: why, and what to do.
pub(super) fn nothing_trained(
    counts: &Counts,
    data: &Data,
    tokenizer: &Tokenizer,
    path: &str,
    max_length: usize,
) -> Problem {
    let dropped = counts.dropped;
    let without_loss = dropped.untrained - counts.trained_part_cut;
    let is_chat = matches!(data.format.value, Format::Chat { .. });
    let has_response = matches!(data.format.value, Format::Instruct { .. } | Format::Chat { .. })
        && *tokenizer.loss_on != LossOn::All;
    let has_labels = matches!(data.format.value, Format::Tokens { labels: Some(_), .. });
    let reasons = [
        (
            counts.trained_part_cut,
            format!("what carries a loss begins after the first {max_length} tokens and is cut away"),
            "write a larger `max_length`, shorten the prompt, or write `loss_on = all`",
        ),
        (dropped.too_long, format!("longer than {max_length} tokens"), "write a larger `max_length`"),
        (
            without_loss,
            match (has_labels, has_response) {
                (true, _) => "all labels are -100".to_owned(),
                (_, true) if is_chat => "no turn of those that `loss_on` asks for".to_owned(),
                (_, true) => "the response is empty, and no end mark follows it".to_owned(),
                _ => "fewer than two tokens".to_owned(),
            },
            match (has_labels, has_response) {
                (true, _) => "look at the column that `labels` names",
                (_, true) if is_chat => "look at `loss_on`, and at the roles of the messages",
                (_, true) => "look at the template of `response`, or write `loss_on = all`",
                _ => "look at the column that `format` names",
            },
        ),
        (dropped.empty, "no text".to_owned(), "look at the columns that `format` names"),
        (
            dropped.filtered,
            "do not pass `filter`".to_owned(),
            "look at `filter`, and at the columns that it names",
        ),
    ];
    let why: Vec<_> = reasons
        .iter()
        .filter(|(rows, ..)| *rows > 0)
        .map(|(rows, why, _)| format!("{} of {} rows: {why}", Count(*rows), Count(counts.rows)))
        .collect();
    let help = reasons.iter().max_by_key(|(rows, ..)| *rows).map_or("", |(_, _, help)| help);
    let at = if counts.trained_part_cut + dropped.too_long > 0 {
        tokenizer.max_length.span().or(data.format.span())
    } else {
        data.format.span()
    };
    Problem::new(
        "hift::data::nothing_trained",
        format!("no token of `{path}` carries a loss ({})", why.join("; ")),
    )
    .label_at(at, "leaves nothing to train on")
    .help(help)
}

/// What is legal, but surely unwanted.
pub(super) fn warnings(
    counts: &Counts,
    train: &Part,
    tokenizer: &Tokenizer,
    classified: bool,
    path: &str,
) -> Vec<Problem> {
    let mut warnings = Vec::new();
    let share = train.trained_tokens as f64 / train.tokens.max(1) as f64;
    // A classifier has one loss a row, however long the row is.
    if share < LITTLE && !classified {
        warnings.push(
            Problem::warning(
                "hift::data::little_trained",
                format!(
                    "only {} of {} tokens of `{path}` carry a loss ({:.2} %)",
                    Count(train.trained_tokens),
                    Count(train.tokens),
                    100.0 * share
                ),
            )
            .label_at(tokenizer.loss_on.span(), "says which tokens carry a loss")
            .help("`hift inspect` shows the rows with their loss mask"),
        );
    }
    let marks = [
        (counts.begins_marked, "begin", tokenizer.begin.span()),
        (counts.ends_marked, "end", tokenizer.end.span()),
    ];
    for (rows, name, span) in marks {
        if rows > 0 {
            warnings.push(
                Problem::warning(
                    "hift::data::double_mark",
                    format!(
                        "the text of {} of `{path}` {name}s with the {name} mark already, so it stands there twice",
                        super::rows(rows)
                    ),
                )
                .label_at(span, "adds the second one")
                .help(format!("write `{name} = none`, or take the mark out of the text")),
            );
        }
    }
    warnings
}
