//! What a dataset takes of the host's memory, for the estimate.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cache::Cached;
use super::sequences::Sequences;
use crate::units::Bytes;

/// Host memory of a dataset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Host {
    /// What is there as long as the dataset is: ids and labels, their order, and of questions the texts with their
    /// answers.
    pub rows: Bytes,
    /// What of the rows lies in files of the cache that are mapped into memory instead: the system takes it back where
    /// it needs room.
    pub mapped: Bytes,
    /// What is there at the most while the dataset is made, `rows` included; before a model is loaded.
    pub making: Bytes,
}

/// Parts of the data on their way from a file to ids: cells, texts and ids of a table, the sequences that wait to be
/// written together, and a batch of them as it is written. Each is bounded, and none grows with the files.
const PARTS: Bytes = Bytes(64 << 20);

/// What files are read through, be they rows or tokens of the cache.
const BUFFERS: Bytes = Bytes(2 << 20);

/// What is told apart by row while rows are compared, split and packed: hashes, orders, the lists of those that are
/// packed together.
const A_ROW: u64 = 120;

/// A text on its way through the tokenizer, for each of its tokens: the text twice with where each byte was, and what
/// the tokenizers crate says of a token.
const A_TOKEN: u64 = 512;

/// The words that the tokenizers crate remembers, in each thread: 10,000 with their tokens.
const WORDS: Bytes = Bytes(10_000 * 512);

/// A tokenizer in memory against its file: the vocabulary both ways, the merges, and the JSON that they are read from.
const TOKENIZER: u64 = 24;

/// What a dataset is made from, as far as its memory depends on it.
pub(super) struct Making<'a> {
    pub cached: &'a Cached,
    /// Rows that were read.
    pub rows: u64,
    /// Tokens of the longest one.
    pub longest: u64,
    /// Bytes of the tokenizer's file.
    pub tokenizer: u64,
}

impl Host {
    /// Of sequences to train on and those held out.
    pub(super) fn of(train: &Sequences, holdout: &Sequences, making: &Making<'_>) -> Self {
        let mut stretches: BTreeMap<usize, (u64, bool)> = BTreeMap::new();
        let mut rows = 0;
        for half in [train, holdout] {
            rows += half.index_bytes();
            // Both halves are mostly taken from the same rows.
            stretches.extend(half.kept_bytes().map(|(place, bytes, is_mapped)| (place, (bytes, is_mapped))));
        }
        // The order in which an epoch goes through them.
        rows += 4 * train.len() as u64;
        let of = |mapped: bool| {
            stretches.values().filter(|(_, own)| *own == mapped).map(|(bytes, _)| bytes).sum::<u64>()
        };
        let (rows, mapped) = (Bytes(rows + of(false)), Bytes(of(true)));
        let passing = match making.cached {
            Cached::Read => Bytes(0),
            // Each thread has a text of its own.
            Cached::Made(_) | Cached::Off => {
                let of_thread = WORDS + Bytes(A_TOKEN * making.longest);
                PARTS + of_thread * rayon::current_num_threads() as u64
            }
        };
        let beside = BUFFERS + Bytes(A_ROW * making.rows + TOKENIZER * making.tokenizer);
        Self { rows, mapped, making: rows + passing + beside }
    }
}
