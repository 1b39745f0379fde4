//! Files to token batches, with an account of what became of every row.
//!
//! ```text
//! read::read      files -> Table       arrow batches of the columns that the format asks for
//! Layout::render  Table -> Rendered    text, and which part of it carries a loss
//! tokenize        Rendered -> Sequences   ids, and what each position must predict; cut, drop or fail
//! split           Sequences -> train, holdout
//! pack::pack      Sequences -> Sequences  several rows in one, without cross-talk
//! Batches         Sequences -> Batch   what one forward pass sees
//! ```
//!
//! [`load`] goes from the first line to the last but one. Everything is a function of the pipeline, the files
//! and the seed: the same input gives the same batches on every machine.
//!
//! Labels are shifted here, once: `labels[t]` is what position t must predict. Every row that is kept has
//! at least one such position.
//!
//! This room must not know tensors, devices or the model; of the model it is told [`Limits`].

use std::path::Path;

use serde::Serialize;

use crate::lang::pipeline::{Data, Format, Holdout, Setting, Shuffle, Tokenizer};
use crate::lock::Hashed;
use crate::problem::{Problem, Problems};
use crate::random::Random;
use crate::units::Count;

mod audit;
mod batch;
mod encoder;
mod files;
mod library;
mod pack;
mod preview;
mod prompts;
mod read;
mod render;
mod sequences;
mod table;
mod tokenize;

pub use audit::{Audit, Bin, Dropped, Lengths, Part};
pub use batch::{Batch, Batches, in_order};
pub use encoder::{Encoder, Marks};
pub use files::{check_files, inputs};
pub use library::Library;
pub use pack::pack;
pub use preview::{Preview, Seen, Segment, preview};
pub use prompts::check_prompts;
pub use read::read;
pub use render::{Layout, Rendered};
pub use sequences::{IGNORE, Sequence, Sequences};
pub use table::{Column, Kind, Table};

/// What the data has to know of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Ids are below this.
    pub vocab: usize,
    /// The longest sequence.
    pub positions: usize,
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
    limits: Limits,
    cancelled: &dyn Fn() -> bool,
) -> Result<Dataset, Problems> {
    let mut problems = Problems::default();
    let layout = keep(&mut problems, Layout::new(&data.format));
    let source =
        layout.as_ref().and_then(|layout| keep(&mut problems, read(folder, &data.source, &layout.columns)));
    let max_length = keep(&mut problems, tokenize::max_length(tokenizer, limits));
    let is_text = !matches!(data.format.value, Format::Tokens { .. });
    let encoder = is_text.then(|| keep(&mut problems, Encoder::open(folder, tokenizer))).flatten();
    let marks = encoder
        .as_ref()
        .and_then(|encoder| keep(&mut problems, encoder.marks(&tokenizer.begin, &tokenizer.end)));
    let (Some(layout), Some((table, hashed)), Some(max_length)) = (layout, source, max_length) else {
        return Err(problems);
    };
    if problems.has_errors() {
        return Err(problems);
    }

    let (rows, counts) = match (&encoder, &marks) {
        (Some(encoder), Some(marks)) => tokenize::text_rows(
            &table,
            &layout,
            data,
            tokenizer,
            (encoder, marks),
            (max_length, limits),
            cancelled,
        )?,
        _ => tokenize::token_rows(&table, data, tokenizer, (max_length, limits), cancelled)?,
    };
    let path = table.path.clone();
    drop(table);
    if rows.is_empty() {
        return Err(audit::nothing_trained(&counts, data, tokenizer, &path, max_length).into());
    }

    let (train, holdout) = split(rows.len(), &data.holdout, *data.shuffle)?;
    let (train, holdout) = (rows.select(&train), rows.select(&holdout));
    let (duplicates, leaked) = (audit::duplicates(&rows), audit::leaked(&train, &holdout));
    drop(rows);
    let (train, train_part) = use_rows(train, *tokenizer.pack, max_length);
    let (holdout, holdout_part) = use_rows(holdout, *tokenizer.pack, max_length);
    let audit = Audit {
        rows: counts.rows,
        dropped: counts.dropped,
        cut: counts.cut,
        longest_row: counts.longest_row,
        empty_responses: counts.empty_responses,
        duplicates,
        leaked,
        warnings: audit::warnings(&counts, &train_part, tokenizer, &path),
        train: train_part,
        holdout: holdout_part,
    };
    let mut hashes = vec![hashed];
    hashes.extend(encoder.iter().flat_map(|encoder| encoder.hashes()).cloned());
    Ok(Dataset { train, holdout, audit, hashes })
}

/// Rows as the batches will take them, and the account of them.
fn use_rows(rows: Sequences, packs: bool, max_length: usize) -> (Sequences, Part) {
    if packs {
        let packed = pack(&rows, max_length);
        let part = Part::new(&rows, &packed, max_length);
        (packed, part)
    } else {
        let part = Part::new(&rows, &rows, max_length);
        (rows, part)
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

/// Which of `n` rows are trained on, and which are held out; both in the order of the file. Rows are shuffled
/// if there is a seed; the last ones are held out, at least one and never all.
fn split(n: usize, holdout: &Setting<Holdout>, shuffle: Shuffle) -> Result<(Vec<u32>, Vec<u32>), Problem> {
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
        Holdout::None | Holdout::Rows(0) => 0,
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
        Shuffle::Seed(seed) => Random::stream(seed, HOLDOUT_STREAM).shuffle(&mut train),
    }
    let mut holdout = train.split_off(n - held);
    train.sort_unstable();
    holdout.sort_unstable();
    Ok((train, holdout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rows_are_held_out() {
        let check = |n, holdout, expected: Result<&[u32], &str>| {
            let split = split(n, &Setting::default(holdout), Shuffle::None);
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
    fn a_seed_draws_the_holdout() {
        let check = |seed| split(100, &Setting::default(Holdout::Rows(10)), Shuffle::Seed(seed)).unwrap();
        let (train, held) = check(1);
        assert_eq!(check(1), (train.clone(), held.clone()));
        assert_ne!(check(2).1, held);
        assert_ne!(held, (90..100).collect::<Vec<_>>());
        let mut all = [train, held].concat();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }
}
