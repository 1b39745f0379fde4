//! Rows of a [`Table`] to [`Sequences`]: encode, mark, cut, shift.

use std::ops::Range;

use rayon::Scope;

use super::account::and_more;
use super::audit::Counts;
use super::chat::Chat;
use super::encode::{self, Line, Recipe};
use super::encoder::{Encoder, Marks};
use super::render::Layout;
use super::sequences::{IGNORE, Sequences, trained};
use super::table::{Place, Table, int_row, ints, texts};
use super::{Labels, Limits, Target, labels, question};
use crate::lang::pipeline::{Data, Format, Tokenizer, TooLong};
use crate::problem::{Fault, Problem, Problems};
use crate::units::Count;

/// So many tokens are put away together, while others are being made.
const TOKENS: u64 = 1 << 18;

/// What Hugging Face's datasets hold where a token carries no loss.
pub(super) const HUGGING_FACE_IGNORE: i64 = -100;

/// How long a row may be.
///
/// # Errors
/// More than the model has positions, or too few for a token and its successor.
pub(super) fn max_length(tokenizer: &Tokenizer, limits: &Limits) -> Result<usize, Problem> {
    let Some(length) = *tokenizer.max_length else { return Ok(limits.positions) };
    let problem = |message, label: &str, help: String| {
        Err(Problem::new("hift::data::max_length", message)
            .label_at(tokenizer.max_length.span(), label)
            .help(help))
    };
    if length > limits.positions as u64 {
        return problem(
            format!(
                "max_length is {} tokens, but the model has {} positions",
                Count(length),
                Count(limits.positions as u64)
            ),
            "beyond the model's positions",
            format!("write at most `{} tokens`, or leave `max_length` out", limits.positions),
        );
    }
    if length < 2 {
        return problem(
            format!("max_length is {length}, which leaves nothing to predict"),
            "a token and its successor are needed",
            "write at least `2 tokens`".to_owned(),
        );
    }
    Ok(length as usize)
}

/// How rows become ids.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    pub layout: &'a Layout,
    pub data: &'a Data,
    pub tokenizer: &'a Tokenizer,
    /// For rows of text.
    pub encoder: Option<(&'a Encoder, &'a Marks)>,
    /// For chats.
    pub chat: Option<&'a Chat>,
    pub max_length: usize,
    pub limits: &'a Limits,
    pub cancelled: &'a dyn Fn() -> bool,
}

impl<'a> How<'a> {
    fn recipe(&self, encoder: &'a Encoder) -> Recipe<'a> {
        Recipe { layout: self.layout, chat: self.chat, loss_on: &self.tokenizer.loss_on, encoder }
    }
}

/// Rows on their way from tables to sequences, a table at a time.
pub(super) struct Tokenised<'s, 'a> {
    pub how: How<'a>,
    pub collector: Collector<'a>,
    /// Labels that are none.
    pub strange: Found,
    /// Labels that are not as many as the ids, ids that are none, masks with holes.
    pub uneven: Found,
    alien: Found,
    holes: Found,
    /// Lists of words, and answers, that are none.
    pub odd: Found,
    /// Chats that cannot be written out, by code.
    refusals: Vec<(&'static str, Found)>,
    /// Rows of text that are being encoded.
    line: Line<'s, 'a>,
    /// One row at a time, with its marks.
    ids: Vec<u32>,
    labels: Vec<u32>,
}

impl<'s, 'a> Tokenised<'s, 'a> {
    /// `threads`: of the encoder, to do their part while more is read.
    pub fn new(how: How<'a>, threads: Option<&'s Scope<'a>>) -> Self {
        let mut collector = Collector::new(how.tokenizer, how.max_length, how.limits);
        collector.n_begin = how.encoder.map_or(0, |(_, marks)| marks.begin.len());
        Self {
            how,
            collector,
            strange: Found::default(),
            uneven: Found::default(),
            alien: Found::default(),
            holes: Found::default(),
            odd: Found::default(),
            refusals: Vec::new(),
            line: Line::new(threads),
            ids: Vec::new(),
            labels: Vec::new(),
        }
    }

    /// Takes the rows of a table, of which so many did not pass the filter.
    ///
    /// # Errors
    /// A text that cannot be encoded, or an interruption (75). What is wrong with rows is told at the end.
    pub fn table(&mut self, table: &Table, filtered: u64) -> Result<(), Problems> {
        let counts = &mut self.collector.counts;
        counts.rows += filtered;
        counts.dropped.filtered += filtered;
        let Some((encoder, marks)) = self.how.encoder else { return self.token_rows(table) };
        match &self.how.data.format.value {
            Format::TokenLabels { .. } => labels::rows(self, table, encoder, marks),
            Format::Question { .. } => question::rows(self, table, encoder),
            Format::Text { .. }
            | Format::Instruct { .. }
            | Format::Tokens { .. }
            | Format::Classify { .. }
            | Format::Chat { .. }
            | Format::OfParts => self.text_rows(table, self.how.recipe(encoder)),
        }
    }

    /// Whether it is worth while to take what is done.
    pub fn is_full(&self) -> bool {
        self.collector.rows.tokens() >= TOKENS
    }

    /// The sequences that are done, ready to be put away.
    pub fn take(&mut self) -> Sequences {
        let mut done = std::mem::take(&mut self.collector.rows);
        done.fit();
        self.collector.n_taken += done.len();
        done
    }

    /// The rest of the sequences, and what became of all rows.
    ///
    /// # Errors
    /// As [`Tokenised::table`], for rows that were under way. Rows that are too long where that is a failure, ids that the
    /// model does not have, labels that are none or not as many as the inputs; the first of each names its row.
    pub fn finish(mut self) -> Result<(Sequences, Counts), Problems> {
        if let Some((encoder, _)) = self.how.encoder {
            while self.take_piece(self.how.recipe(encoder))? {
                if (self.how.cancelled)() {
                    return Err(interrupted().into());
                }
            }
        }
        let Self { mut collector, strange, uneven, alien, holes, odd, refusals, .. } = self;
        collector.found.extend([odd, uneven, alien, holes, strange]);
        collector.found.extend(refusals.into_iter().map(|(_, found)| found));
        let (mut rest, counts) = collector.finish()?;
        rest.fit();
        Ok((rest, counts))
    }
}

impl<'a> Tokenised<'_, 'a> {
    /// Puts the rows of a table into the line, and takes out those that are done.
    fn text_rows(&mut self, table: &Table, recipe: Recipe<'a>) -> Result<(), Problems> {
        for piece in encode::pieces(table) {
            if (self.how.cancelled)() {
                return Err(interrupted().into());
            }
            self.line.put(recipe, piece);
            while self.line.is_full() {
                self.take_piece(recipe)?;
            }
        }
        Ok(())
    }

    /// Collects the rows of the piece that is next in the line, once they are done; says whether there was one.
    fn take_piece(&mut self, recipe: Recipe<'a>) -> Result<bool, Problems> {
        let Some((encoded, table)) = self.line.take(recipe) else { return Ok(false) };
        let encoded = encoded?;
        let Self { how, collector, strange, refusals, ids, labels, .. } = self;
        let How { layout, data, tokenizer, encoder, chat, limits, .. } = *how;
        let Some((encoder, marks)) = encoder else { unreachable!("it has encoded these rows") };
        let has_response = matches!(data.format.value, Format::Instruct { .. } | Format::Chat { .. });
        let mut rows = encoded.rows.iter();
        for (batch, lines) in table.parts() {
            let classes = layout.class().map(|column| texts(batch, column));
            for ((at, &line), row) in lines.iter().enumerate().zip(&mut rows) {
                if let (Some(refused), Some(chat)) = (&row.refused, chat) {
                    if !refusals.iter().any(|(code, _)| *code == refused.code) {
                        refusals.push((refused.code, Found::default()));
                    }
                    let found = refusals.iter_mut().find(|(code, _)| *code == refused.code);
                    found.expect("just added").1.add(|| chat.problem(refused, &table.at(line)));
                }
                if row.is_empty {
                    collector.counts.rows += 1;
                    collector.counts.dropped.empty += 1;
                    continue;
                }
                let text_ids = encoded.ids(row);
                for (role, learned) in &row.turns {
                    let turns = collector.counts.turns.entry((*role).to_owned()).or_default();
                    turns.all += 1;
                    turns.learned += u64::from(*learned);
                }
                collector.counts.empty_responses += u64::from(has_response && row.empty_response);
                collector.counts.begins_marked +=
                    u64::from(!marks.begin.is_empty() && text_ids.starts_with(&marks.begin));
                collector.counts.ends_marked +=
                    u64::from(!marks.end.is_empty() && text_ids.ends_with(&marks.end));

                ids.clear();
                ids.extend_from_slice(&marks.begin);
                ids.extend_from_slice(text_ids);
                if let Some(classes) = classes {
                    let known = limits.target.as_ref().expect("the plan has asked for it");
                    let Some(class) = label_of(classes.value(at), known) else {
                        strange.add(|| no_label(data, &table, line, classes.value(at), known));
                        continue;
                    };
                    collector.classified(&table, line, ids, &marks.end, (class, known), |line, id| {
                        unknown_id(encoder, tokenizer, limits.vocab, &table.at(line), id)
                    });
                    continue;
                }
                ids.extend_from_slice(&marks.end);
                labels.clear();
                labels.resize(marks.begin.len(), IGNORE);
                labels.extend_from_slice(encoded.labels(row));
                labels.extend_from_slice(&marks.end);
                collector.row(&table, line, ids, labels, |line, id| {
                    unknown_id(encoder, tokenizer, limits.vocab, &table.at(line), id)
                });
            }
        }
        Ok(true)
    }
}

/// The label of a row: a class's number, as it is written or that of its name; or the bits of a number.
fn label_of(text: &str, target: &Target) -> Option<u32> {
    let text = text.trim();
    let Some(classes) = &target.classes else {
        return text.parse::<f32>().ok().filter(|number| number.is_finite()).map(f32::to_bits);
    };
    match text.parse::<usize>() {
        Ok(number) => (number < classes.len()).then_some(number as u32),
        Err(_) => classes.iter().position(|name| name == text).map(|at| at as u32),
    }
}

fn no_label(data: &Data, table: &Table, line: Place, label: &str, target: &Target) -> Problem {
    let place = table.at(line);
    let Some(classes) = &target.classes else {
        return Problem::new("hift::data::class", format!("{place}: `{label}` is no number"))
            .label_at(data.format.span(), "the model gives each row a number")
            .help("give each row a number, or the model classes: two entries or more of `id2label` in its config.json");
    };
    let names: Vec<_> = classes.iter().take(8).map(|name| format!("`{name}`")).collect();
    let more = if classes.len() > 8 { ", ..." } else { "" };
    Problem::new("hift::data::class", format!("{place}: `{label}` is no class of the model"))
        .label_at(
            data.format.span(),
            format!("its classes are 0 to {}: {}{more}", classes.len() - 1, names.join(", ")),
        )
        .help("give each row the number or the name of a class; `id2label` in the model's config.json says which there are")
}

pub(super) fn unknown_id(
    encoder: &Encoder,
    tokenizer: &Tokenizer,
    vocab: usize,
    at: &str,
    id: u32,
) -> Problem {
    let token = encoder.token_text(id).unwrap_or_default();
    Problem::new(
        "hift::data::vocabulary",
        format!(
            "the token `{token}` has id {id}, but the vocabulary of the model ends at {}",
            vocab.saturating_sub(1)
        ),
    )
    .label_at(tokenizer.file.span(), format!("{} ids here, {vocab} in the model", encoder.vocab()))
    .help(format!(
        "use the tokenizer that belongs to the model, or keep `{token}` out of the rows: it is in {at}"
    ))
}

impl Tokenised<'_, '_> {
    fn token_rows(&mut self, table: &Table) -> Result<(), Problems> {
        let Self { how, collector, strange, uneven, alien, holes, .. } = self;
        let How { layout, data, max_length, limits, cancelled, .. } = *how;
        let Format::Tokens { input, labels: label, mask, .. } = &data.format.value else {
            unreachable!("only called for rows of token ids");
        };
        let columns = layout.tokens();
        let (mut ids, mut labels) = (Vec::new(), Vec::new());
        let as_id = |id: i64| u32::try_from(id).ok().filter(|&id| (id as usize) < limits.vocab);
        // Labels are ids of tokens, or classes of them.
        let n_labels = match &limits.labels {
            Some(Labels::Classes(classes)) => classes.len(),
            Some(Labels::Ends) | None => limits.vocab,
        };
        let as_label = |id: i64| as_id(id).filter(|&id| (id as usize) < n_labels);
        for (batch, lines) in table.parts() {
            if cancelled() {
                return Err(interrupted().into());
            }
            let given_ids = ints(batch, 0);
            let given_labels = columns.labels.map(|column| ints(batch, column));
            let given_classes = columns.class.map(|column| texts(batch, column));
            let given_masks = columns.mask.map(|column| ints(batch, column));
            for (row, &line) in lines.iter().enumerate() {
                let mut given = int_row(given_ids, row);
                if let Some(masks) = given_masks {
                    let seen = int_row(masks, row);
                    let length = seen.iter().take_while(|&&seen| seen == 1).count();
                    if seen.len() != given.len() || seen[length..].iter().any(|&seen| seen != 0) {
                        holes.add(|| {
                            not_a_mask(data, table, line, mask.as_deref().unwrap_or_default(), input)
                        });
                        continue;
                    }
                    given = &given[..length];
                }
                let given_labels = given_labels.map(|labels| int_row(labels, row));
                let alien = &mut *alien;
                let mut not_an_id = |column: &str, position: usize, id: i64| {
                    alien.add(|| {
                    Problem::new(
                        "hift::data::vocabulary",
                        format!(
                            "{}: `{column}[{position}]` is {id}, but the model's ids are 0 to {}",
                            table.at(line),
                            limits.vocab.saturating_sub(1)
                        ),
                    )
                    .label_at(data.format.span(), format!("the model's vocabulary has {}", limits.vocab))
                    .help("the rows must be tokenised with the model's own tokenizer; -100 is allowed in labels only")
                });
                };

                ids.clear();
                labels.clear();
                match given.iter().position(|&id| as_id(id).is_none()) {
                    Some(position) => {
                        not_an_id(input, position, given[position]);
                        continue;
                    }
                    None => ids.extend(given.iter().map(|&id| id as u32)),
                }
                if let Some(classes) = given_classes {
                    let known = limits.target.as_ref().expect("the plan has asked for it");
                    match label_of(classes.value(row), known) {
                        None => strange.add(|| no_label(data, table, line, classes.value(row), known)),
                        Some(class) => {
                            collector.classified(table, line, &mut ids, &[], (class, known), |_, _| {
                                unreachable!("every id was looked at")
                            })
                        }
                    }
                    continue;
                }
                match given_labels {
                    None => labels.extend_from_slice(&ids),
                    // Where padding is masked, its labels go with it.
                    Some(given_labels) if given_masks.is_some() && given_labels.len() > given.len() => {
                        labels.extend(
                            given_labels[..given.len()].iter().map(|&id| as_label(id).unwrap_or(IGNORE)),
                        );
                    }
                    Some(given_labels) if given_labels.len() != given.len() => {
                        uneven.add(|| {
                            let label = label.as_deref().unwrap_or_default();
                            Problem::new(
                                "hift::data::lengths_differ",
                                format!(
                                    "{}: `{input}` has {} tokens, but `{label}` has {}",
                                    table.at(line),
                                    given.len(),
                                    given_labels.len()
                                ),
                            )
                            .label_at(data.format.span(), "these columns")
                            .help("give each token its label, -100 where it carries no loss")
                        });
                        continue;
                    }
                    Some(given_labels) => {
                        let bad = |&id: &i64| id != HUGGING_FACE_IGNORE && as_label(id).is_none();
                        if let Some(position) = given_labels.iter().position(bad) {
                            if limits.labels.is_some() {
                                strange.add(|| {
                                    not_a_class(data, &table.at(line), given_labels[position], n_labels)
                                });
                                continue;
                            }
                            not_an_id(label.as_deref().unwrap_or_default(), position, given_labels[position]);
                            continue;
                        }
                        labels.extend(given_labels.iter().map(|&id| as_label(id).unwrap_or(IGNORE)));
                    }
                }
                if limits.labels.is_some() {
                    let Some(kept) = collector.fits(table, line, ids.len()) else { continue };
                    let own = match kept {
                        Kept::All | Kept::Pieces => 0..ids.len(),
                        Kept::First => 0..max_length,
                        Kept::Last => ids.len() - max_length..ids.len(),
                    };
                    let used = collector.labelled(line, &ids[own.clone()], &labels[own], false, |_, _| {
                        unreachable!("every id was looked at")
                    });
                    collector.counts.dropped.untrained += u64::from(!used);
                    continue;
                }
                collector
                    .row(table, line, &mut ids, &mut labels, |_, _| unreachable!("every id was looked at"));
            }
        }
        Ok(())
    }
}

fn not_a_class(data: &Data, at: &str, label: i64, classes: usize) -> Problem {
    Problem::new("hift::data::class", format!("{at}: {label} is no class of the model"))
        .label_at(data.format.span(), format!("its classes are 0 to {}", classes - 1))
        .help("give each token the number of its class, -100 where it is not learned")
}

fn not_a_mask(data: &Data, table: &Table, line: Place, mask: &str, input: &str) -> Problem {
    Problem::new(
        "hift::data::mask",
        format!(
            "{}: `{mask}` is not 1 for the first tokens of `{input}` and 0 for the others",
            table.at(line)
        ),
    )
    .label_at(data.format.span(), "the column that marks padding")
    .help("pad rows on the right, and give each token of a row its 1 or 0")
}

pub(super) fn interrupted() -> Problem {
    Problem::of(Fault::Again, "hift::data::interrupted", "interrupted while the data was being tokenised")
        .help("nothing was written; start again")
}

/// One kind of mistake: the first row's problem, and how many rows have it.
#[derive(Default)]
pub(super) struct Found {
    first: Option<Problem>,
    rows: u64,
}

impl Found {
    pub(super) fn add(&mut self, problem: impl FnOnce() -> Problem) {
        self.rows += 1;
        self.first.get_or_insert_with(problem);
    }

    fn problem(self) -> Option<Problem> {
        let mut problem = self.first?;
        problem.message.push_str(&and_more(self.rows));
        Some(problem)
    }
}

/// What is kept of a row.
pub(super) enum Kept {
    All,
    /// Its first tokens, as many as are allowed.
    First,
    /// Its last ones, behind the begin mark.
    Last,
    /// All of it, in pieces.
    Pieces,
}

/// Gathers rows, and counts what becomes of them.
pub(super) struct Collector<'a> {
    tokenizer: &'a Tokenizer,
    vocab: usize,
    max_length: usize,
    /// Tokens of the begin mark.
    n_begin: usize,
    pub(super) rows: Sequences,
    /// The sequences that were taken away already.
    n_taken: usize,
    pub(super) counts: Counts,
    too_long: Found,
    unknown: Found,
    found: Vec<Found>,
}

impl<'a> Collector<'a> {
    fn new(tokenizer: &'a Tokenizer, max_length: usize, limits: &Limits) -> Self {
        Self {
            tokenizer,
            vocab: limits.vocab,
            max_length,
            n_begin: 0,
            rows: Sequences::default(),
            n_taken: 0,
            counts: Counts::default(),
            too_long: Found::default(),
            unknown: Found::default(),
            found: Vec::new(),
        }
    }

    /// Takes a row whose labels are aligned with its ids: `labels[t]` is the id of token t, or [`IGNORE`].
    fn row(
        &mut self,
        table: &Table,
        line: Place,
        ids: &mut Vec<u32>,
        labels: &mut Vec<u32>,
        unknown_id: impl FnOnce(Place, u32) -> Problem,
    ) {
        let Some(kept) = self.fits(table, line, ids.len()) else { return };
        // The first token has no position before it that could predict it.
        let trained_before = trained(&labels[1..]);
        let mut piece = ids.len();
        match kept {
            Kept::All => {}
            Kept::First => {
                ids.truncate(self.max_length);
                labels.truncate(self.max_length);
            }
            Kept::Last => {
                let gone = self.left_out(ids.len());
                ids.drain(gone.clone());
                labels.drain(gone);
            }
            Kept::Pieces => piece = self.max_length,
        }
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.vocab) {
            self.unknown.add(|| unknown_id(line, id));
            return;
        }
        let mut pieces = 0;
        let mut start = 0;
        // The last token of a piece is the first of the next one, so that every token is predicted once.
        while start == 0 || start + 1 < ids.len() {
            let end = (start + piece).min(ids.len());
            let labels = &mut labels[start..end];
            // The label of the token that the next piece begins with is needed again, and is never learned there.
            labels.rotate_left(1);
            if let Some(last) = labels.last_mut() {
                *last = IGNORE;
            }
            if trained(labels) > 0 {
                if pieces > 0 {
                    self.counts.continues.push((self.n_taken + self.rows.len()) as u32);
                }
                self.rows.push(&ids[start..end], labels);
                pieces += 1;
            }
            start = end.max(2) - 1;
        }
        match pieces {
            0 => {
                self.counts.dropped.untrained += 1;
                self.counts.trained_part_cut += u64::from(trained_before > 0);
            }
            pieces => self.counts.pieces += pieces - 1,
        }
    }

    /// Takes a row that has a class. `ids` is without its end mark, which stays when the row is cut.
    fn classified(
        &mut self,
        table: &Table,
        line: Place,
        ids: &mut Vec<u32>,
        end: &[u32],
        (label, target): (u32, &Target),
        unknown_id: impl FnOnce(Place, u32) -> Problem,
    ) {
        let Some(kept) = self.fits(table, line, ids.len() + end.len()) else { return };
        match kept {
            // A row with a class is not split: the language refuses that.
            Kept::All | Kept::Pieces => ids.extend_from_slice(end),
            Kept::First => {
                ids.truncate(self.max_length.saturating_sub(end.len()));
                ids.extend_from_slice(end);
                ids.truncate(self.max_length);
            }
            Kept::Last => {
                ids.extend_from_slice(end);
                ids.drain(self.left_out(ids.len()));
            }
        }
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.vocab) {
            self.unknown.add(|| unknown_id(line, id));
            return;
        }
        let mut labels = vec![IGNORE; ids.len()];
        labels[if target.at_first { 0 } else { ids.len() - 1 }] = label;
        self.rows.push(ids, &labels);
    }

    /// Takes a row, or a piece of one that `continues` the piece before, whose labels stand at the tokens that they are of.
    /// Says whether it is used: it has a label, and no token that the model does not have.
    pub(super) fn labelled(
        &mut self,
        line: Place,
        ids: &[u32],
        labels: &[u32],
        continues: bool,
        unknown_id: impl FnOnce(Place, u32) -> Problem,
    ) -> bool {
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.vocab) {
            self.unknown.add(|| unknown_id(line, id));
            return false;
        }
        if trained(labels) == 0 {
            return false;
        }
        if continues {
            self.counts.continues.push((self.n_taken + self.rows.len()) as u32);
            self.counts.pieces += 1;
        }
        self.rows.push(ids, labels);
        true
    }

    /// The tokens that go where a row of `length` loses its beginning: those behind the begin mark.
    fn left_out(&self, length: usize) -> Range<usize> {
        let first = self.n_begin.min(self.max_length - 1);
        first..first + length - self.max_length
    }

    /// Counts a row of `length` tokens and says what is kept of it; nothing where the row is not used.
    pub(super) fn fits(&mut self, table: &Table, line: Place, length: usize) -> Option<Kept> {
        let max_length = self.max_length;
        self.counts.rows += 1;
        self.counts.longest_row = self.counts.longest_row.max(length as u64);
        if length == 0 {
            self.counts.dropped.empty += 1;
            return None;
        }
        if length <= max_length {
            return Some(Kept::All);
        }
        match *self.tokenizer.too_long {
            TooLong::Cut => {
                self.counts.cut += 1;
                Some(Kept::First)
            }
            TooLong::CutLeft => {
                self.counts.cut += 1;
                Some(Kept::Last)
            }
            TooLong::Split => {
                self.counts.split += 1;
                Some(Kept::Pieces)
            }
            TooLong::Drop => {
                self.counts.dropped.too_long += 1;
                None
            }
            TooLong::Fail => {
                let tokenizer = self.tokenizer;
                self.too_long.add(|| {
                    Problem::new(
                        "hift::data::too_long",
                        format!(
                            "{}: the row has {length} tokens, more than the {max_length} allowed",
                            table.at(line)
                        ),
                    )
                    .label_at(tokenizer.max_length.span(), "the length allowed")
                    .label_at(tokenizer.too_long.span(), "makes it an error")
                });
                None
            }
        }
    }

    fn finish(mut self) -> Result<(Sequences, Counts), Problems> {
        if let Some(problem) = &mut self.too_long.first {
            problem.help = Some(format!(
                "the longest row has {} tokens; write `too_long = cut` or `drop`, or a larger `max_length`",
                self.counts.longest_row
            ));
        }
        let found = [self.too_long, self.unknown].into_iter().chain(self.found);
        let problems = Problems(found.filter_map(Found::problem).collect());
        if problems.has_errors() { Err(problems) } else { Ok((self.rows, self.counts)) }
    }
}
