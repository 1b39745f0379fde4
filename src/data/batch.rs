//! Sequences to batches: what one forward pass sees.

use super::sequences::{IGNORE, Sequences, trained};
use crate::lang::pipeline::Shuffle;
use crate::random::Random;

/// The input of one forward pass: `rows` sequences, padded on the right to `seq` tokens.
/// Every vector is `[rows, seq]`, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub rows: usize,
    pub seq: usize,
    /// Padding has id 0. Nothing looks back at it, so which id it has does not matter.
    pub ids: Vec<u32>,
    /// What each position must predict, or [`IGNORE`].
    pub labels: Vec<u32>,
    /// The position inside the row of the data; restarts with each packed row, goes on over padding.
    /// Always below the longest sequence's length, so never beyond what the model has.
    pub positions: Vec<u32>,
    /// Packed only: the index in the sequence of the first token that a position may look at. A
    /// position of padding sees itself alone.
    pub starts: Option<Vec<u32>>,
    /// The positions that predict something; at least one a sequence.
    pub trained: u64,
    /// The tokens of each sequence, padding not counted: `[rows]`.
    pub lengths: Vec<u32>,
    /// 1 where a token belongs to the second part of a pair; empty where there are no pairs.
    pub types: Vec<u32>,
}

impl Batch {
    /// The tokens of the longest document, padding not counted.
    pub fn longest(&self) -> usize {
        let documents = self.starts.iter().flat_map(|starts| starts.chunks_exact(self.seq));
        let within = documents.flat_map(|starts| starts.iter().zip(0u32..).map(|(start, at)| at + 1 - start));
        match self.starts {
            Some(_) => within.max(),
            None => self.lengths.iter().copied().max(),
        }
        .unwrap_or(0) as usize
    }

    /// A batch of these sequences, in this order.
    pub fn new(sequences: &Sequences, rows: &[u32]) -> Self {
        let seq = rows.iter().map(|&row| sequences.length(row as usize)).max().unwrap_or(0);
        let size = rows.len() * seq;
        let mut batch = Self {
            rows: rows.len(),
            seq,
            ids: Vec::with_capacity(size),
            labels: Vec::with_capacity(size),
            positions: Vec::with_capacity(size),
            starts: sequences.is_packed().then(|| Vec::with_capacity(size)),
            trained: 0,
            lengths: Vec::with_capacity(rows.len()),
            types: Vec::new(),
        };
        for (i, &row) in rows.iter().enumerate() {
            let (mut last, end) = (0, (i + 1) * seq);
            for (ids, labels) in sequences.parts(row as usize) {
                let start = batch.positions.len() - i * seq;
                batch.ids.extend_from_slice(ids);
                batch.labels.extend_from_slice(labels);
                batch.trained += trained(labels);
                last = ids.len() as u32;
                batch.positions.extend(0..last);
                if let Some(starts) = &mut batch.starts {
                    starts.resize(starts.len() + ids.len(), start as u32);
                }
            }
            let length = (batch.ids.len() - i * seq) as u32;
            batch.ids.resize(end, 0);
            batch.labels.resize(end, IGNORE);
            batch.positions.extend(last..last + seq as u32 - length);
            batch.lengths.push(length);
            if let Some(passage) = sequences.passage_of(row as usize) {
                batch.types.reserve_exact(size - batch.types.len());
                batch.types.resize(i * seq + passage.second.min(length) as usize, 0);
                batch.types.resize(i * seq + length as usize, 1);
                batch.types.resize(end, 0);
            }
            if let Some(starts) = &mut batch.starts {
                starts.extend(length..seq as u32);
            }
        }
        batch
    }
}

/// The training batches of a run, step by step. What a step sees follows from its number alone, so
/// resuming needs no state.
#[derive(Debug, Clone)]
pub struct Batches<'s> {
    sequences: &'s Sequences,
    micro_batch: usize,
    accumulate: usize,
    shuffle: Shuffle,
    /// The epoch whose order was drawn last, and the order.
    drawn: Option<(u64, Vec<u32>)>,
}

impl<'s> Batches<'s> {
    /// `accumulate` micro-batches of `micro_batch` sequences make a step. Both are at least 1, and there is
    /// at least one sequence.
    pub fn new(sequences: &'s Sequences, micro_batch: u64, accumulate: u64, shuffle: Shuffle) -> Self {
        assert!(micro_batch > 0 && accumulate > 0 && !sequences.is_empty());
        let small = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Self {
            sequences,
            micro_batch: small(micro_batch),
            accumulate: small(accumulate),
            shuffle,
            drawn: None,
        }
    }

    /// Optimizer steps in which every sequence is seen once.
    pub fn steps_per_epoch(&self) -> u64 {
        self.sequences.len().div_ceil(self.per_step()) as u64
    }

    fn per_step(&self) -> usize {
        self.micro_batch.saturating_mul(self.accumulate)
    }

    /// The sequences of each micro-batch of an optimizer step, counted from 0. The last step of an epoch may
    /// have fewer micro-batches, and its last one may be smaller.
    pub fn rows(&mut self, step: u64) -> Vec<Vec<u32>> {
        let (epoch, in_epoch) = (step / self.steps_per_epoch(), step % self.steps_per_epoch());
        let per_step = self.per_step();
        let micro_batch = self.micro_batch;
        let order = self.order(epoch);
        let start = in_epoch as usize * per_step;
        let end = start.saturating_add(per_step).min(order.len());
        order[start..end].chunks(micro_batch).map(<[u32]>::to_vec).collect()
    }

    /// The micro-batches of an optimizer step, counted from 0.
    pub fn step(&mut self, step: u64) -> Vec<Batch> {
        let sequences = self.sequences;
        self.rows(step).iter().map(|rows| Batch::new(sequences, rows)).collect()
    }

    /// The positions that predict something in one of the lists of [`Batches::rows`].
    pub fn trained(&self, rows: &[u32]) -> u64 {
        rows.iter().map(|&row| self.sequences.trained_of(row as usize)).sum()
    }

    fn order(&mut self, epoch: u64) -> &[u32] {
        let draw = || (epoch, order(self.sequences, self.shuffle, epoch, self.micro_batch));
        let (drawn, order) = self.drawn.get_or_insert_with(draw);
        if *drawn != epoch {
            (*drawn, *order) = draw();
        }
        order
    }
}

fn order(sequences: &Sequences, shuffle: Shuffle, epoch: u64, micro_batch: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..sequences.len() as u32).collect();
    match shuffle {
        Shuffle::None => {}
        Shuffle::Seed(seed) => Random::stream(seed, epoch).shuffle(&mut order),
        Shuffle::ByLength(seed) => {
            let mut random = Random::stream(seed, epoch);
            random.shuffle(&mut order);
            // Sorted within a stretch only: rows of like length share a batch, but not the same rows every epoch.
            for stretch in order.chunks_mut(micro_batch.saturating_mul(STRETCH)) {
                stretch.sort_by_key(|row| sequences.length(*row as usize));
            }
            let mut batches: Vec<&[u32]> = order.chunks(micro_batch).collect();
            // A batch that is not full stays the last one.
            let whole = order.len() / micro_batch;
            random.shuffle(&mut batches[..whole]);
            order = batches.concat();
        }
    }
    order
}

/// So many batches are sorted by length together.
const STRETCH: usize = 50;

/// All sequences once, in order, `micro_batch` at a time: for evaluation.
pub fn in_order(sequences: &Sequences, micro_batch: u64) -> impl Iterator<Item = Batch> + '_ {
    let micro_batch = usize::try_from(micro_batch).unwrap_or(usize::MAX).max(1);
    (0..sequences.len()).step_by(micro_batch).map(move |start| {
        let end = start.saturating_add(micro_batch).min(sequences.len());
        let rows: Vec<u32> = (start as u32..end as u32).collect();
        Batch::new(sequences, &rows)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::pack;

    const NONE: u32 = IGNORE;

    /// Rows of these lengths; the ids of row r are 10 r, 10 r + 1, ...
    fn rows(lengths: &[u32]) -> Sequences {
        let mut rows = Sequences::default();
        for (row, &length) in (0..).zip(lengths) {
            let ids: Vec<u32> = (0..length).map(|t| 10 * row + t).collect();
            let mut labels = ids[1..].to_vec();
            labels.push(IGNORE);
            rows.push(&ids, &labels);
        }
        rows
    }

    /// The first id of each row of each micro-batch.
    fn firsts(batches: &[Batch]) -> Vec<Vec<u32>> {
        batches.iter().map(|b| b.ids.chunks(b.seq).map(|row| row[0] / 10).collect()).collect()
    }

    #[test]
    fn rows_are_padded_on_the_right() {
        let batch = Batch::new(&rows(&[3, 2]), &[0, 1]);
        assert_eq!(
            batch,
            Batch {
                rows: 2,
                seq: 3,
                ids: vec![0, 1, 2, 10, 11, 0],
                labels: vec![1, 2, NONE, 11, NONE, NONE],
                positions: vec![0, 1, 2, 0, 1, 2],
                starts: None,
                trained: 3,
                lengths: vec![3, 2],
                types: Vec::new(),
            }
        );
        assert_eq!(batch.longest(), 3);
    }

    #[test]
    fn packed_rows_do_not_see_each_other() {
        // Room for 5: 4 alone, 3 and 2 together, and 2 alone with padding.
        let packed = pack(&rows(&[4, 2, 3, 2]), 5);
        let batch = Batch::new(&packed, &[1, 2]);
        assert_eq!(
            batch,
            Batch {
                rows: 2,
                seq: 5,
                ids: vec![10, 11, 20, 21, 22, 30, 31, 0, 0, 0],
                labels: vec![11, NONE, 21, 22, NONE, 31, NONE, NONE, NONE, NONE],
                positions: vec![0, 1, 0, 1, 2, 0, 1, 2, 3, 4],
                starts: Some(vec![0, 0, 2, 2, 2, 0, 0, 2, 3, 4]),
                trained: 4,
                lengths: vec![5, 2],
                types: Vec::new(),
            }
        );
        assert_eq!(batch.longest(), 3);
    }

    #[test]
    fn a_step_is_a_function_of_its_number() {
        let rows = rows(&[2; 7]);
        // 2 x 2 sequences a step: 4, then 3 in two micro-batches, the last one small.
        let mut batches = Batches::new(&rows, 2, 2, Shuffle::None);
        assert_eq!(batches.steps_per_epoch(), 2);
        assert_eq!(firsts(&batches.step(0)), [[0, 1], [2, 3]]);
        assert_eq!(firsts(&batches.step(1)), [vec![4, 5], vec![6]]);
        assert_eq!(firsts(&batches.step(2)), [[0, 1], [2, 3]]);

        let mut batches = Batches::new(&rows, 4, 2, Shuffle::None);
        assert_eq!(batches.steps_per_epoch(), 1);
        assert_eq!(firsts(&batches.step(5)), [vec![0, 1, 2, 3], vec![4, 5, 6]]);
    }

    #[test]
    fn every_epoch_has_its_own_order_and_sees_every_row() {
        let rows = rows(&[2; 64]);
        let mut forward = Batches::new(&rows, 4, 4, Shuffle::Seed(3));
        let seen: Vec<_> = (0..12).map(|step| firsts(&forward.step(step)).concat()).collect();
        let mut epochs: Vec<_> = seen.chunks(4).map(<[_]>::concat).collect();
        assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
        for epoch in &mut epochs {
            epoch.sort_unstable();
            assert_eq!(*epoch, (0..64).collect::<Vec<_>>());
        }
        let mut backward = Batches::new(&rows, 4, 4, Shuffle::Seed(3));
        for step in (0..12).rev() {
            assert_eq!(firsts(&backward.step(step)).concat(), seen[step as usize]);
        }
        let mut other = Batches::new(&rows, 4, 4, Shuffle::Seed(4));
        assert_ne!(firsts(&other.step(0)).concat(), seen[0]);
    }

    #[test]
    fn rows_of_like_length_share_a_batch() {
        let lengths: Vec<u32> = (0..61).map(|row| 2 + row * 7 % 23).collect();
        let rows = rows(&lengths);
        let padding = |shuffle| {
            let mut batches = Batches::new(&rows, 4, 1, shuffle);
            let all: Vec<Batch> = (0..32).flat_map(|step| batches.step(step)).collect();
            let mut seen: Vec<u32> = firsts(&all[..16]).concat();
            seen.sort_unstable();
            assert_eq!(seen, (0..61).collect::<Vec<_>>(), "every row once an epoch");
            assert_ne!(firsts(&all[..16]), firsts(&all[16..]), "another order every epoch");
            let slots: usize = all.iter().map(|batch| batch.ids.len()).sum();
            slots as u64 - 2 * lengths.iter().map(|length| u64::from(*length)).sum::<u64>()
        };
        let (grouped, mixed) = (padding(Shuffle::ByLength(3)), padding(Shuffle::Seed(3)));
        assert!(grouped * 4 < mixed, "{grouped} and {mixed} tokens of padding");
    }

    #[test]
    fn evaluation_goes_through_all_in_order() {
        let rows = rows(&[2, 3, 4]);
        let batches: Vec<_> = in_order(&rows, 2).collect();
        assert_eq!(firsts(&batches), [vec![0, 1], vec![2]]);
        assert_eq!(in_order(&Sequences::default(), 2).count(), 0);
    }
}
