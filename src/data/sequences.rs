//! Token ids with what each position must predict, in stretches that may lie in a file of the cache.

use std::borrow::Cow;
use std::ops::{Deref, Range};
use std::sync::Arc;

use arrow_buffer::{ArrowNativeType, ScalarBuffer};
use rayon::prelude::*;

use super::question::Passage;

/// The label of a position that predicts or is given nothing.
pub const IGNORE: u32 = u32::MAX;

/// New rows in memory begin another stretch after so many tokens, so that a large one is never copied to grow.
const STRETCH: usize = 1 << 22;

/// Rows of token ids and labels, 8 bytes a token. Selections share them with what they are taken from, at 4 bytes a
/// row, and so do packed sequences; those of the token cache stay in its file.
#[derive(Debug, Clone, Default)]
pub struct Sequences {
    stretches: Vec<Stretch>,
    /// Which rows, in which order; without it, all.
    rows: Option<Vec<u32>>,
    /// Packed only: where each sequence ends among the rows.
    ends: Option<Vec<u32>>,
}

/// Rows that lie one behind the other.
#[derive(Debug, Clone, Default)]
pub(super) struct Stretch {
    /// The rows in the stretches before it.
    first: usize,
    ids: Words<u32>,
    labels: Words<u32>,
    /// Where each row begins in both, and where the last one ends.
    offsets: Words<i64>,
    /// Of questions: for each row the text that it holds a piece of; else empty.
    passages: Arc<Vec<Passage>>,
    /// They lie in a file.
    is_mapped: bool,
}

/// Numbers that are still being gathered, or shared.
#[derive(Debug, Clone)]
enum Words<T: ArrowNativeType> {
    Own(Vec<T>),
    Shared(ScalarBuffer<T>),
}

impl<T: ArrowNativeType> Default for Words<T> {
    fn default() -> Self {
        Words::Own(Vec::new())
    }
}

impl<T: ArrowNativeType> Deref for Words<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match self {
            Words::Own(words) => words,
            Words::Shared(words) => words,
        }
    }
}

impl<T: ArrowNativeType> Words<T> {
    /// To write on; what was shared is copied.
    fn own(&mut self) -> &mut Vec<T> {
        if let Words::Shared(words) = self {
            *self = Words::Own(words.to_vec());
        }
        match self {
            Words::Own(words) => words,
            Words::Shared(_) => unreachable!("just copied"),
        }
    }

    fn fit(&mut self) {
        match self {
            Words::Own(words) => words.shrink_to_fit(),
            Words::Shared(_) => {}
        }
    }

    fn share(self) -> ScalarBuffer<T> {
        match self {
            Words::Own(words) => words.into(),
            Words::Shared(words) => words,
        }
    }
}

impl Stretch {
    /// Rows with as many ids as labels; `offsets` begins with 0, never falls and ends with their number.
    pub fn new(ids: ScalarBuffer<u32>, labels: ScalarBuffer<u32>, offsets: ScalarBuffer<i64>) -> Self {
        assert_eq!(ids.len(), labels.len());
        let (ids, labels, offsets) = (Words::Shared(ids), Words::Shared(labels), Words::Shared(offsets));
        Self { first: 0, ids, labels, offsets, passages: Arc::default(), is_mapped: false }
    }

    /// The same, of columns that lie in a file.
    pub fn mapped(self) -> Self {
        Self { is_mapped: true, ..self }
    }

    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The ids, the labels, and where each row begins and the last one ends in both.
    pub fn columns(self) -> (ScalarBuffer<u32>, ScalarBuffer<u32>, ScalarBuffer<i64>) {
        (self.ids.share(), self.labels.share(), self.offsets.share())
    }

    fn range(&self, row: usize) -> Range<usize> {
        self.offsets[row] as usize..self.offsets[row + 1] as usize
    }
}

/// One row, or several that are packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence<'s> {
    pub ids: Cow<'s, [u32]>,
    /// `labels[t]` is the id that position t must predict, or [`IGNORE`].
    pub labels: Cow<'s, [u32]>,
    /// The lengths of the rows that are packed in it; `None` where sequences are not packed.
    pub segments: Option<Vec<u32>>,
    /// Of questions: the text that the sequence holds a piece of.
    pub passage: Option<&'s Passage>,
}

/// The same sequences in the same order, wherever they are kept.
impl PartialEq for Sequences {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Sequences {}

impl Sequences {
    /// Rows that are kept elsewhere.
    pub(super) fn of(stretches: impl IntoIterator<Item = Stretch>) -> Self {
        let mut all = Self::default();
        stretches.into_iter().for_each(|stretch| all.add(stretch));
        all
    }

    /// The stretches, of rows that are neither selected nor packed.
    pub(super) fn stretches(self) -> Vec<Stretch> {
        debug_assert!(self.rows.is_none() && self.ends.is_none());
        self.stretches
    }

    fn add(&mut self, stretch: Stretch) {
        if stretch.len() > 0 {
            let first = self.kept();
            self.stretches.push(Stretch { first, ..stretch });
        }
    }

    /// The rows that there are, selected or not.
    fn kept(&self) -> usize {
        self.stretches.last().map_or(0, |last| last.first + last.len())
    }

    /// How many sequences there are.
    pub fn len(&self) -> usize {
        match (&self.ends, &self.rows) {
            (Some(ends), _) => ends.len(),
            (None, Some(rows)) => rows.len(),
            (None, None) => self.kept(),
        }
    }

    /// No sequence at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether sequences hold several rows.
    pub fn is_packed(&self) -> bool {
        self.ends.is_some()
    }

    /// Bytes of what says which rows are meant and how they are packed.
    pub(super) fn index_bytes(&self) -> u64 {
        4 * [&self.rows, &self.ends].into_iter().flatten().map(|list| list.len() as u64).sum::<u64>()
    }

    /// The stretches that there are, selected or not: where each lies, its bytes, and whether they are in a file. The
    /// passages of questions are counted with their rows.
    pub(super) fn kept_bytes(&self) -> impl Iterator<Item = (usize, u64, bool)> {
        self.stretches.iter().map(|stretch| {
            let bytes = 8 * (stretch.ids.len() + stretch.offsets.len());
            let bytes = bytes as u64 + Passage::bytes(&stretch.passages);
            (stretch.ids.as_ptr() as usize, bytes, stretch.is_mapped)
        })
    }

    /// Gives back the room that was kept for more rows.
    pub(super) fn fit(&mut self) {
        for stretch in &mut self.stretches {
            stretch.ids.fit();
            stretch.labels.fit();
            stretch.offsets.fit();
            if let Some(passages) = Arc::get_mut(&mut stretch.passages) {
                passages.shrink_to_fit();
            }
        }
    }

    /// Where a kept row is.
    fn place(&self, row: usize) -> (&Stretch, Range<usize>) {
        let stretch = self.stretch_of(row);
        (stretch, stretch.range(row - stretch.first))
    }

    /// The stretch that a kept row is in.
    fn stretch_of(&self, row: usize) -> &Stretch {
        let at = match self.stretches.as_slice() {
            [_] => 0,
            all => all.partition_point(|stretch| stretch.first <= row) - 1,
        };
        &self.stretches[at]
    }

    /// The rows of sequence `i`, as numbers of kept rows.
    fn rows_of(&self, i: usize) -> impl Iterator<Item = usize> + '_ {
        let range = match &self.ends {
            Some(ends) => i.checked_sub(1).map_or(0, |before| ends[before] as usize)..ends[i] as usize,
            None => i..i + 1,
        };
        range.map(|at| self.rows.as_ref().map_or(at, |rows| rows[at] as usize))
    }

    /// The ids and labels of each row of sequence `i`.
    pub fn parts(&self, i: usize) -> impl Iterator<Item = (&[u32], &[u32])> {
        self.rows_of(i).map(|row| {
            let (stretch, range) = self.place(row);
            (&stretch.ids[range.clone()], &stretch.labels[range])
        })
    }

    /// The ids and labels of each row, by itself, in the order in which the files have them.
    pub(super) fn in_files(&self) -> impl Iterator<Item = (&[u32], &[u32])> {
        let mut rows: Vec<usize> = (0..self.len()).flat_map(|i| self.rows_of(i)).collect();
        rows.sort_unstable();
        // A mix may take a row several times.
        rows.dedup();
        rows.into_iter().map(|row| {
            let (stretch, range) = self.place(row);
            (&stretch.ids[range.clone()], &stretch.labels[range])
        })
    }

    /// All tokens.
    pub fn tokens(&self) -> u64 {
        match &self.rows {
            None => self.stretches.iter().map(|stretch| stretch.ids.len() as u64).sum(),
            Some(_) => (0..self.len()).map(|i| self.length(i) as u64).sum(),
        }
    }

    /// The positions that predict something.
    pub fn trained(&self) -> u64 {
        (0..self.len()).into_par_iter().map(|i| self.trained_of(i)).sum()
    }

    /// The positions of sequence `i` that predict something.
    pub fn trained_of(&self, i: usize) -> u64 {
        self.parts(i).map(|(_, labels)| trained(labels)).sum()
    }

    /// The length of the longest sequence; 0 if there is none.
    pub fn longest(&self) -> usize {
        (0..self.len()).map(|i| self.length(i)).max().unwrap_or(0)
    }

    /// The length of sequence `i`.
    pub fn length(&self, i: usize) -> usize {
        self.rows_of(i).map(|row| self.place(row).1.len()).sum()
    }

    /// Sequence `i`.
    pub fn get(&self, i: usize) -> Sequence<'_> {
        let passage = self.passage_of(i);
        if self.ends.is_none()
            && let Some((ids, labels)) = self.parts(i).next()
        {
            return Sequence {
                ids: Cow::Borrowed(ids),
                labels: Cow::Borrowed(labels),
                segments: None,
                passage,
            };
        }
        let (mut ids, mut labels, mut segments) = (Vec::new(), Vec::new(), Vec::new());
        for (own, learned) in self.parts(i) {
            ids.extend_from_slice(own);
            labels.extend_from_slice(learned);
            segments.push(own.len() as u32);
        }
        Sequence { ids: Cow::Owned(ids), labels: Cow::Owned(labels), segments: Some(segments), passage }
    }

    /// All sequences, first to last.
    pub fn iter(&self) -> impl Iterator<Item = Sequence<'_>> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// Adds one row, to rows that are neither selected nor packed.
    pub(super) fn push(&mut self, ids: &[u32], labels: &[u32]) {
        assert_eq!(ids.len(), labels.len());
        debug_assert!(self.rows.is_none() && self.ends.is_none());
        let is_open = |stretch: &Stretch| {
            matches!(stretch.ids, Words::Own(_)) && stretch.ids.len() + ids.len() <= STRETCH
        };
        if !self.stretches.last().is_some_and(is_open) {
            let first = self.kept();
            self.stretches.push(Stretch { first, offsets: Words::Own(vec![0]), ..Stretch::default() });
        }
        let stretch = self.stretches.last_mut().expect("just added");
        stretch.ids.own().extend_from_slice(ids);
        stretch.labels.own().extend_from_slice(labels);
        let end = stretch.ids.len() as i64;
        stretch.offsets.own().push(end);
    }

    /// The text that the sequence added last holds a piece of. Every sequence has one, or none.
    pub(super) fn passage(&mut self, passage: Passage) {
        let stretch = self.stretches.last_mut().expect("a sequence was added");
        Arc::make_mut(&mut stretch.passages).push(passage);
        debug_assert_eq!(stretch.passages.len(), stretch.len());
    }

    /// Of questions: the text that sequence `i` holds a piece of. Questions are never packed with others.
    pub fn passage_of(&self, i: usize) -> Option<&Passage> {
        let row = self.rows_of(i).next()?;
        let stretch = self.stretch_of(row);
        stretch.passages.get(row - stretch.first)
    }

    /// The same, ready to be selected from without being copied.
    pub(super) fn share(mut self) -> Self {
        for stretch in &mut self.stretches {
            let (first, is_mapped) = (stretch.first, stretch.is_mapped);
            let passages = std::mem::take(&mut stretch.passages);
            let (ids, labels, offsets) = std::mem::take(stretch).columns();
            *stretch = Stretch { first, passages, is_mapped, ..Stretch::new(ids, labels, offsets) };
        }
        self
    }

    /// These sequences of `self`, in this order, which are not packed.
    pub(super) fn select(&self, sequences: &[u32]) -> Self {
        debug_assert!(self.ends.is_none());
        let rows = match &self.rows {
            None => sequences.to_vec(),
            Some(own) => sequences.iter().map(|i| own[*i as usize]).collect(),
        };
        Self { stretches: self.stretches.clone(), rows: Some(rows), ends: None }
    }

    /// Adds the rows of another, in their order. Nothing is copied.
    pub(super) fn append(&mut self, other: Self) {
        debug_assert!(self.ends.is_none() && other.ends.is_none());
        let shift = self.kept() as u32;
        if self.rows.is_some() || other.rows.is_some() {
            let mut rows = self.rows.take().unwrap_or_else(|| (0..shift).collect());
            match &other.rows {
                Some(others) => rows.extend(others.iter().map(|row| row + shift)),
                None => rows.extend(shift..shift + other.kept() as u32),
            }
            self.rows = Some(rows);
        }
        other.stretches.into_iter().for_each(|stretch| self.add(stretch));
    }

    /// Sequences of one row each, as packed ones are: nothing sees beyond its row.
    pub(super) fn alone(self) -> Self {
        let n = self.len() as u32;
        Self { ends: Some((1..=n).collect()), ..self }
    }

    /// One sequence for each group of rows of `self`. No row predicts into the next one, since the
    /// last label of a row is always [`IGNORE`].
    pub(super) fn join(&self, groups: &[Vec<u32>]) -> Self {
        let mut end = 0;
        let ends = groups.iter().map(|group| {
            end += group.len() as u32;
            end
        });
        let ends = ends.collect();
        let rows: Vec<u32> = groups.concat();
        Self { ends: Some(ends), ..self.select(&rows) }
    }
}

/// How many labels are an id.
pub(super) fn trained(labels: &[u32]) -> u64 {
    labels.iter().filter(|&&label| label != IGNORE).count() as u64
}
