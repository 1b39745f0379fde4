//! Files to token batches, with an account of what became of every row.
//!
//! ```text
//! read            files -> Tables      arrow batches of the columns that the format asks for, a part at a time
//! filter          Table -> Table       the rows that pass the tests
//! Layout::render  Table -> Rendered    text, and which part of it carries a loss; `chat` by a template
//! encode          Rendered -> Encoded  ids on all cores, while the next part is read
//! tokenize        Encoded -> Sequences    what each position must predict; cut, split, drop or fail
//!                 `labels`, `question`: the same for words with classes, and for questions about a text
//! cache           Sequences <-> files  so that all of the above happens once, and the rows need not be in memory
//! split           Sequences -> train, holdout
//! mix             several of these -> one
//! pack::pack      Sequences -> Sequences  several rows in one, without cross-talk
//! Batches         Sequences -> Batch   what one forward pass sees
//! ```
//!
//! [`load`] goes from the first line to the last but one. Everything is a function of the pipeline, the files
//! and the seed: the same input gives the same batches on every machine.
//!
//! From the files to the cache, no more than a part is held. What comes after it names rows by their number, and
//! leaves ids and labels where they are.
//!
//! Labels are shifted here, once: `labels[t]` is what position t must predict. Every row that is kept has
//! at least one such position.
//!
//! This room must not know tensors, devices or the model; of the model it is told [`Limits`].

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::Path;

use serde::Serialize;

use crate::lang::pipeline::{Data, Format, Holdout, Mark, Setting, Shuffle, Source, Tokenizer};
use crate::lock::Hashed;
use crate::problem::{Problem, Problems};
use crate::random::Random;
use crate::units::Count;

mod account;
mod arrow;
mod audit;
mod batch;
mod cache;
mod chat;
mod csv;
mod encode;
mod encoder;
mod files;
mod filter;
mod host;
mod labels;
mod library;
mod mix;
mod pack;
mod preview;
mod prompts;
mod question;
mod read;
mod render;
mod sequences;
mod table;
mod tokenize;

pub use audit::{Audit, Bin, Dropped, Lengths, Part};
pub use batch::{Batch, Batches, in_order};
pub use cache::{Cache, Cached, Entry};
pub use encoder::{Encoder, Marks};
pub use files::{check_files, inputs};
pub use host::Host;
pub use library::Library;
pub use pack::pack;
pub use preview::{Preview, Seen, Segment, preview};
pub use prompts::{Exercise, check_exercises, check_prompts, exercises};
pub use question::{Asked, Passage};
pub use read::read;
pub use render::{Layout, Rendered};
pub use sequences::{IGNORE, Sequence, Sequences};
pub use table::{Column, Kind, Place, Table, Unit};

use chat::Chat;
use read::read_through;

/// What the data has to know of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Ids are below this.
    pub vocab: usize,
    /// The longest sequence.
    pub positions: usize,
    /// What a row is given; None where the next token is predicted, or its tokens are given something.
    pub target: Option<Target>,
    /// What the tokens of a row are given.
    pub labels: Option<Labels>,
    /// A token sees those after it, too, so that padding must be hidden from it.
    pub both_ways: bool,
}

impl Limits {
    /// Of a model that predicts the next token.
    pub const fn language(vocab: usize, positions: usize) -> Self {
        Self { vocab, positions, target: None, labels: None, both_ways: false }
    }
}

/// What a model gives the tokens of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Labels {
    /// Each one of these classes, in the order of their numbers.
    Classes(Vec<String>),
    /// Where an answer begins and ends. The label of the token that it begins at is the number of that which it ends at.
    Ends,
}

/// What a model gives each sequence. In the labels of a row it stands where it is read: the number of a class, or the bits of a
/// 32-bit float.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// One of these classes, in the order of their numbers; None: any number.
    pub classes: Option<Vec<String>>,
    /// It is read at the first token of a sequence, not at the last.
    pub at_first: bool,
}

impl Target {
    /// As people write it.
    fn show(&self, label: u32) -> String {
        match &self.classes {
            Some(classes) => classes.get(label as usize).cloned().unwrap_or_default(),
            None => f32::from_bits(label).to_string(),
        }
    }
}

/// A data block, ready to be trained on.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// At least one sequence.
    pub train: Sequences,
    /// Empty where nothing is held out.
    pub holdout: Sequences,
    pub audit: Audit,
    /// The source, the tokenizer, and what was read beside it.
    pub hashes: Vec<Hashed>,
    /// Whether the tokens were in the cache.
    pub cached: Cached,
    /// What it takes of the host's memory.
    pub host: Host,
}

/// Reads, tokenises, splits and packs a data block. Relative paths start at `folder`. `cancelled` is asked
/// now and then; once it says yes, this returns.
///
/// # Errors
/// All that can be wrong with the data (65), a file that is missing (66), or an interruption (75). Problems
/// point into the pipeline and name lines of the source.
pub fn load(
    folder: &Path,
    data: &Data,
    tokenizer: &Tokenizer,
    limits: &Limits,
    cancelled: &dyn Fn() -> bool,
) -> Result<Dataset, Problems> {
    load_through(None, folder, data, tokenizer, limits, cancelled)
}

/// As [`load`], through a cache of tokens.
///
/// # Errors
/// As [`load`].
pub fn load_through(
    cache: Option<&Cache>,
    folder: &Path,
    data: &Data,
    tokenizer: &Tokenizer,
    limits: &Limits,
    cancelled: &dyn Fn() -> bool,
) -> Result<Dataset, Problems> {
    let reading = Reading { cache, folder, tokenizer, limits, cancelled };
    let mut problems = Problems::default();
    let mut halves = Vec::new();
    for part in data.parts() {
        halves.extend(keep(&mut problems, reading.halves(part)));
    }
    let mut said: Vec<Problem> = Vec::new();
    // What is wrong with the tokenizer every block of a mix says.
    problems.0.retain(|problem| {
        !said.contains(problem) && {
            said.push(problem.clone());
            true
        }
    });
    if problems.has_errors() {
        return Err(problems);
    }
    let max_length = tokenize::max_length(tokenizer, limits)?;

    if *data.dedup && data.parts().len() > 1 {
        once(&mut halves);
    }
    let mut repeated = 0;
    if let Source::Mix { parts, by, stop } = &data.source.value {
        let trains: Vec<&Sequences> = halves.iter().map(|half| &half.train.rows).collect();
        let weights: Vec<Option<f64>> = parts.iter().map(|part| part.weight).collect();
        let drawn = mix::draw(&trains, &weights, *by, *stop, *data.shuffle);
        for (half, drawn) in halves.iter_mut().zip(drawn) {
            let distinct = drawn.iter().collect::<HashSet<_>>().len();
            half.counts.dropped.unmixed += (half.train.rows.len() - distinct) as u64;
            repeated += (drawn.len() - distinct) as u64;
            half.train.rows = half.train.rows.select(&drawn);
        }
    }
    let first = halves[0].path.clone();
    let mut all = halves.into_iter();
    let mut whole = all.next().expect("a block, or those of a mix");
    for half in all {
        whole.train.rows.append(half.train.rows);
        whole.holdout.rows.append(half.holdout.rows);
        whole.counts.add(&half.counts);
        whole.hashes.extend(half.hashes);
        whole.cached = whole.cached.and(half.cached);
    }
    let Halves { train, holdout, counts, hashes, cached, .. } = whole;
    let (train, holdout) = (train.rows, holdout.rows);
    let path = if data.parts().len() > 1 { data.name.clone() } else { first };
    if train.is_empty() {
        return Err(audit::nothing_trained(&counts, data, tokenizer, &path, max_length).into());
    }
    let (train, holdout) = (train.share(), holdout.share());
    // Those that a mix repeats are meant to stand there again.
    let mut both = train.clone();
    both.append(holdout.clone());
    let (repeats, leaked) = audit::repeats(&both, train.len());
    let duplicates = repeats.iter().filter(|repeats| **repeats).count() as u64;
    let duplicates = duplicates.saturating_sub(repeated);
    drop((repeats, both));
    let (train, train_part) = use_rows(train, *tokenizer.pack, max_length, limits);
    let (holdout, holdout_part) = use_rows(holdout, *tokenizer.pack, max_length, limits);
    let audit = Audit {
        rows: counts.rows,
        dropped: counts.dropped,
        cut: counts.cut,
        split: counts.split,
        pieces: counts.pieces,
        repeated,
        longest_row: counts.longest_row,
        empty_responses: counts.empty_responses,
        lost_answers: counts.lost_answers,
        turns: counts.turns.clone(),
        duplicates,
        leaked,
        warnings: audit::warnings(
            &counts,
            &train_part,
            tokenizer,
            limits.target.is_some() || limits.labels.is_some(),
            &path,
        ),
        train: train_part,
        holdout: holdout_part,
    };
    let own = |hashed: &&Hashed| tokenizer.file.as_ref() == Some(&hashed.path);
    let making = host::Making {
        cached: &cached,
        rows: audit.rows,
        longest: audit.longest_row,
        tokenizer: hashes.iter().find(own).map_or(0, |file| file.bytes),
    };
    let host = Host::of(&train, &holdout, &making);
    Ok(Dataset { train, holdout, audit, hashes, cached, host })
}

/// The two sides of a data block that has files of its own.
struct Halves {
    train: Side,
    holdout: Side,
    counts: audit::Counts,
    hashes: Vec<Hashed>,
    cached: Cached,
    path: String,
}

/// What is trained on, or what is held out.
struct Side {
    rows: Sequences,
    /// Sequences that go on with the row of the one before, in their order.
    continues: Vec<u32>,
}

impl Side {
    /// These sequences of `rows`, in their order; `continues` is of all of them.
    fn of(rows: &Sequences, continues: &[u32], own: &[u32]) -> Self {
        let goes_on = |at: &u32| continues.binary_search(&own[*at as usize]).is_ok();
        let continues = (0..own.len() as u32).filter(goes_on).collect();
        Self { rows: rows.select(own), continues }
    }

    /// How many rows there are, however many pieces each has.
    fn n_rows(&self) -> u64 {
        (self.rows.len() - self.continues.len()) as u64
    }
}

/// Leaves out rows that came before, in the same block of a mix or in another. What is held out comes first, so that
/// no row is on both sides.
fn once(halves: &mut [Halves]) {
    let (mut all, mut continues) = (Sequences::default(), Vec::new());
    let held_out = halves.iter().map(|half| &half.holdout);
    for side in held_out.chain(halves.iter().map(|half| &half.train)) {
        let first = all.len() as u32;
        continues.extend(side.continues.iter().map(|at| first + at));
        all.append(side.rows.clone());
    }
    let (kept, _) = distinct(&all, &continues);
    let (mut kept, mut first) = (kept.into_iter().peekable(), 0);
    // How many rows of a side go.
    let mut keep = |side: &mut Side| {
        let (before, end) = (side.n_rows(), first + side.rows.len() as u32);
        let own = std::iter::from_fn(|| kept.next_if(|at| *at < end)).map(|at| at - first);
        *side = Side::of(&side.rows, &side.continues, &own.collect::<Vec<_>>());
        first = end;
        before - side.n_rows()
    };
    for half in halves.iter_mut() {
        half.counts.dropped.repeats += keep(&mut half.holdout);
    }
    for half in halves.iter_mut() {
        half.counts.dropped.repeats += keep(&mut half.train);
    }
}

/// The rows of one source.
struct Rows {
    rows: Sequences,
    counts: audit::Counts,
    hashes: Vec<Hashed>,
    cached: Cached,
}

/// How sources are read.
struct Reading<'r> {
    cache: Option<&'r Cache>,
    folder: &'r Path,
    tokenizer: &'r Tokenizer,
    limits: &'r Limits,
    cancelled: &'r dyn Fn() -> bool,
}

impl Reading<'_> {
    /// A block's rows, what is held out set apart. That depends on nothing but the block: what is held out of it alone is
    /// held out of every mix.
    fn halves(&self, data: &Data) -> Result<Halves, Problems> {
        let path = files::of_source(self.folder, &data.source.value, data.source.span())
            .map_or_else(|_| String::new(), |listed| listed.written);
        let held = data.held_source().map(|source| self.rows(data, &source));
        let own = self.rows(data, &data.source);
        let (held, own) = match (held.transpose(), own) {
            (Ok(held), Ok(own)) => (held, own),
            (held, own) => {
                let mut problems = own.err().unwrap_or_default();
                problems.0.extend(held.err().unwrap_or_default().0);
                return Err(problems);
            }
        };
        let Rows { mut rows, mut counts, mut hashes, cached } = own;
        if rows.is_empty() {
            let max_length = tokenize::max_length(self.tokenizer, self.limits)?;
            return Err(audit::nothing_trained(&counts, data, self.tokenizer, &path, max_length).into());
        }
        if *data.dedup {
            let (kept, gone) = distinct(&rows, &counts.continues);
            counts.dropped.repeats += gone;
            let at = |old: &u32| kept.binary_search(old).ok().map(|new| new as u32);
            counts.continues = counts.continues.iter().filter_map(at).collect();
            rows = rows.select(&kept);
        }
        // Sides share what they are selected from.
        let rows = rows.share();
        let (train, holdout, cached) = match held {
            Some(held) => {
                let train = Side { rows, continues: counts.continues.clone() };
                let holdout = Side { rows: held.rows.share(), continues: held.counts.continues.clone() };
                counts.add(&held.counts);
                hashes.extend(held.hashes);
                (train, holdout, cached.and(held.cached))
            }
            None => {
                let continues = &counts.continues;
                let (train, holdout) = split(rows.len(), continues, &data.holdout, *data.shuffle)?;
                (Side::of(&rows, continues, &train), Side::of(&rows, continues, &holdout), cached)
            }
        };
        Ok(Halves { train, holdout, counts, hashes, cached, path })
    }

    /// The rows of a source, in the form that the block asks for.
    fn rows(&self, data: &Data, source: &Setting<Source>) -> Result<Rows, Problems> {
        let Self { cache, folder, tokenizer, limits, cancelled } = *self;
        // Answers are measured against their texts, which the cache does not keep.
        let cache = cache.filter(|_| !matches!(data.format.value, Format::Question { .. }));
        let mut problems = Problems::default();
        let layout = keep(&mut problems, Layout::new(&data.format));
        let tests = layout
            .as_ref()
            .and_then(|layout| keep(&mut problems, filter::Tests::new(&layout.columns, &data.filter)));
        // With a cache the files are hashed only, as long as nothing is wrong.
        let hashed = cache.and_then(|_| keep(&mut problems, files::hash(folder, source, cancelled)));
        let max_length = keep(&mut problems, tokenize::max_length(tokenizer, limits));
        let is_text = !matches!(data.format.value, Format::Tokens { .. });
        let is_chat = matches!(data.format.value, Format::Chat { .. });
        let encoder = is_text.then(|| keep(&mut problems, Encoder::open(folder, tokenizer))).flatten();
        // A chat template writes its own marks.
        let mark = |mark: &Setting<Mark>| Setting {
            value: if is_chat && mark.value == Mark::Auto { Mark::None } else { mark.value.clone() },
            origin: mark.origin,
        };
        let (begin, end) = (mark(&tokenizer.begin), mark(&tokenizer.end));
        let marks = encoder.as_ref().and_then(|encoder| keep(&mut problems, encoder.marks(&begin, &end)));
        let chat = match &encoder {
            Some(encoder) if is_chat => keep(&mut problems, Chat::open(folder, &data.format, encoder)),
            Some(_) | None => None,
        };
        if problems.has_errors()
            && let Some(tests) = &tests
            && (cache.is_none() || hashed.is_some())
        {
            // What is wrong with the rows is said along with the rest, and before it where they are read first.
            let rest = if cache.is_none() { std::mem::take(&mut problems) } else { Problems::default() };
            keep(&mut problems, read_through(folder, source, &tests.columns, &mut |_| Ok(())));
            problems.0.extend(rest.0);
        }
        let (Some(layout), Some(tests), Some(max_length), false) =
            (layout.as_ref(), tests.as_ref(), max_length, problems.has_errors())
        else {
            return Err(problems);
        };

        let how = tokenize::How {
            layout,
            data,
            tokenizer,
            encoder: encoder.as_ref().zip(marks.as_ref()),
            chat: chat.as_ref(),
            max_length,
            limits,
            cancelled,
        };
        let tokenise = |shelf: &mut cache::Shelf| {
            encode::beside(encoder.as_ref(), |threads| {
                let mut tokenised = tokenize::Tokenised::new(how, threads);
                let mut take = |table: Table| {
                    let read = table.rows();
                    let table = tests.apply(table);
                    tokenised.table(&table, (read - table.rows()) as u64)?;
                    if tokenised.is_full() {
                        shelf.put(tokenised.take());
                    }
                    Ok(())
                };
                let hashes = read_through(folder, source, &tests.columns, &mut take)?;
                let (rest, counts) = tokenised.finish()?;
                shelf.put(rest);
                Ok::<_, Problems>((counts, hashes))
            })
        };
        // All files that the rows follow from, each once.
        let all_files = |of_rows: &[Hashed]| {
            let mut files = of_rows.to_vec();
            let beside = encoder.iter().flat_map(|encoder| encoder.hashes());
            for hashed in beside.chain(chat.iter().flat_map(|chat| &chat.hashes)) {
                if !files.contains(hashed) {
                    files.push(hashed.clone());
                }
            }
            files
        };
        match (cache, hashed) {
            (Some(cache), Some(hashed)) => {
                let files = all_files(&hashed);
                let origin = cache::Origin {
                    purpose: purpose(folder, data, source),
                    files: files.iter().map(|file| (file.path.clone(), file.sha256.clone())).collect(),
                    settings: settings(data, source, tokenizer, max_length, limits),
                };
                let (rows, counts, cached) = cache.get_or(&origin, cancelled, |shelf| {
                    let (counts, read) = tokenise(shelf)?;
                    // A file that changed between hashing and reading is used as it was read, and not kept.
                    Ok::<_, Problems>((counts, read == hashed))
                })?;
                Ok(Rows { rows, counts, hashes: files, cached })
            }
            (Some(_), None) => Err(problems),
            (None, _) => {
                let mut shelf = cache::Shelf::Memory(Sequences::default());
                let (counts, read) = tokenise(&mut shelf)?;
                let cache::Shelf::Memory(rows) = shelf else { unreachable!("it was made of memory") };
                Ok(Rows { rows: rows.share(), counts, hashes: all_files(&read), cached: Cached::Off })
            }
        }
    }
}

/// What tokens are for: this block of these files.
fn purpose(folder: &Path, data: &Data, source: &Setting<Source>) -> String {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    format!("{} of {} in {}", data.name, files::written(&source.value), folder.display())
}

/// The settings that tokens follow from. Where files lie is none of them.
fn settings(
    data: &Data,
    source: &Setting<Source>,
    tokenizer: &Tokenizer,
    max_length: usize,
    limits: &Limits,
) -> BTreeMap<String, String> {
    let json = |value: serde_json::Value| value.to_string();
    let without = |value: serde_json::Value, keys: &[&str]| {
        let mut value = value;
        if let Some(object) = value.as_object_mut() {
            object.retain(|key, _| !keys.contains(&key.as_str()));
        }
        value.to_string()
    };
    let settings = [
        (
            "source",
            match &source.value {
                Source::Hub { files, .. } => {
                    // The names say how files are read.
                    files.iter().filter_map(|file| crate::hub::form(file)).collect::<Vec<_>>().join(" ")
                }
                Source::Json { .. }
                | Source::Text { .. }
                | Source::Csv { .. }
                | Source::Arrow { .. }
                | Source::Parquet { .. }
                | Source::Mix { .. } => without(serde_json::json!(source), &["path", "split"]),
            },
        ),
        ("format", without(serde_json::json!(data.format), &["template"])),
        ("filter", json(serde_json::json!(data.filter))),
        ("loss_on", json(serde_json::json!(tokenizer.loss_on))),
        ("begin", json(serde_json::json!(tokenizer.begin))),
        ("end", json(serde_json::json!(tokenizer.end))),
        ("too_long", json(serde_json::json!(tokenizer.too_long))),
        ("max_length", max_length.to_string()),
        ("vocabulary", limits.vocab.to_string()),
        ("target", json(serde_json::json!(limits.target))),
        ("labels", json(serde_json::json!(limits.labels))),
    ];
    settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Which rows are not the same as an earlier one, in their order, and how many are. Sequences in `continues` belong to
/// the row of the one before.
fn distinct(rows: &Sequences, continues: &[u32]) -> (Vec<u32>, u64) {
    let pieces = whole_rows(rows.len(), continues);
    let repeats = match continues {
        [] => audit::repeats(rows, rows.len()).0,
        _ => {
            let whole: Vec<Vec<u32>> = pieces.iter().map(|pieces| pieces.clone().collect()).collect();
            audit::repeats(&rows.join(&whole), whole.len()).0
        }
    };
    let gone = repeats.iter().filter(|repeats| **repeats).count() as u64;
    let kept = pieces.into_iter().zip(repeats).filter(|(_, repeats)| !repeats);
    (kept.flat_map(|(pieces, _)| pieces).collect(), gone)
}

/// The sequences of each row: one, and those that go on with it.
fn whole_rows(n: usize, continues: &[u32]) -> Vec<Range<u32>> {
    let mut rows: Vec<Range<u32>> = Vec::with_capacity(n);
    let mut continues = continues.iter().peekable();
    for i in 0..n as u32 {
        match rows.last_mut() {
            Some(row) if continues.next_if(|next| **next == i).is_some() => row.end = i + 1,
            Some(_) | None => rows.push(i..i + 1),
        }
    }
    rows
}

/// Rows as the batches will take them, and the account of them.
fn use_rows(rows: Sequences, packs: bool, max_length: usize, limits: &Limits) -> (Sequences, Part) {
    if packs {
        let packed = pack(&rows, max_length);
        let part = Part::new(&rows, &packed, max_length);
        (packed, part)
    } else {
        let part = Part::new(&rows, &rows, max_length);
        // What hides packed rows from each other hides padding, too.
        (if limits.both_ways { rows.alone() } else { rows }, part)
    }
}

/// The value, or its problems among those found so far.
fn keep<T, E: Into<Problems>>(problems: &mut Problems, result: Result<T, E>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(found) => {
            problems.0.extend(found.into().0);
            None
        }
    }
}

/// `1 row`, `2,000 rows`
fn rows(n: u64) -> String {
    format!("{} row{}", Count(n), if n == 1 { "" } else { "s" })
}

/// The holdout is drawn from a stream of the seed that no epoch uses.
const HOLDOUT_STREAM: u64 = u64::MAX;

/// Which of `n` sequences are trained on, and which are held out; both in the order of the file. Rows are shuffled
/// if there is a seed; the last ones are held out, at least one and never all. Sequences in `continues` belong to the
/// row of the one before and stay on its side.
fn split(
    n: usize,
    continues: &[u32],
    holdout: &Setting<Holdout>,
    shuffle: Shuffle,
) -> Result<(Vec<u32>, Vec<u32>), Problem> {
    let pieces = whole_rows(n, continues);
    let n = pieces.len();
    let too_large = |asked: String| {
        Problem::new(
            "hift::data::holdout",
            format!("holding out {asked} leaves nothing to train on: only {} can be used", rows(n as u64)),
        )
        .label_at(holdout.span(), "too much")
        .help(match n {
            1 => "write `holdout = none`".to_owned(),
            n => format!("write at most `{}`", rows(n as u64 - 1)),
        })
    };
    let held = match holdout.value {
        // Those of a file are not drawn.
        Holdout::None | Holdout::Rows(0) | Holdout::From(_) => 0,
        Holdout::Rows(asked) if asked >= n as u64 => return Err(too_large(rows(asked))),
        Holdout::Rows(asked) => asked as usize,
        Holdout::Share(share) if share <= 0.0 => 0,
        Holdout::Share(share) if share >= 1.0 || n == 1 => {
            return Err(too_large(format!("{} %", 100.0 * share)));
        }
        Holdout::Share(share) => ((share * n as f64).round() as usize).clamp(1, n - 1),
    };
    let mut train: Vec<u32> = (0..n as u32).collect();
    match shuffle {
        Shuffle::None => {}
        Shuffle::Seed(seed) | Shuffle::ByLength(seed) => {
            Random::stream(seed, HOLDOUT_STREAM).shuffle(&mut train)
        }
    }
    let holdout = train.split_off(n - held);
    let sequences = |mut rows: Vec<u32>| {
        rows.sort_unstable();
        rows.into_iter().flat_map(|row| pieces[row as usize].clone()).collect()
    };
    Ok((sequences(train), sequences(holdout)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rows_are_held_out() {
        let check = |n, holdout, expected: Result<&[u32], &str>| {
            let split = split(n, &[], &Setting::default(holdout), Shuffle::None);
            match (split, expected) {
                (Ok((train, held)), Ok(expected)) => {
                    assert_eq!(held, expected);
                    assert_eq!(train, (0..(n - held.len()) as u32).collect::<Vec<_>>());
                }
                (Err(problem), Err(expected)) => assert_eq!(problem.message, expected),
                (split, expected) => panic!("{split:?}, not {expected:?}"),
            }
        };
        check(4, Holdout::None, Ok(&[]));
        check(4, Holdout::Rows(1), Ok(&[3]));
        check(4, Holdout::Share(0.5), Ok(&[2, 3]));
        check(4, Holdout::Share(0.01), Ok(&[3])); // at least one
        check(4, Holdout::Share(0.99), Ok(&[1, 2, 3])); // never all
        check(
            4,
            Holdout::Rows(4),
            Err("holding out 4 rows leaves nothing to train on: only 4 rows can be used"),
        );
        check(
            1,
            Holdout::Share(0.02),
            Err("holding out 2 % leaves nothing to train on: only 1 row can be used"),
        );
    }

    #[test]
    fn pieces_of_a_row_stay_together() {
        // Three rows: the second has three pieces.
        let (train, held) = split(5, &[2, 3], &Setting::default(Holdout::Rows(2)), Shuffle::None).unwrap();
        assert_eq!((train, held), (vec![0], vec![1, 2, 3, 4]));
    }

    #[test]
    fn a_seed_draws_the_holdout() {
        let check =
            |seed| split(100, &[], &Setting::default(Holdout::Rows(10)), Shuffle::Seed(seed)).unwrap();
        let (train, held) = check(1);
        assert_eq!(check(1), (train.clone(), held.clone()));
        assert_ne!(check(2).1, held);
        assert_ne!(held, (90..100).collect::<Vec<_>>());
        let mut all = [train, held].concat();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }
}
