//! Token ids with what each position must predict, stored flat.

use std::ops::Deref;
use std::sync::Arc;

use arrow_buffer::ScalarBuffer;

use super::question::Passage;

/// The label of a position that predicts or is given nothing.
pub const IGNORE: u32 = u32::MAX;

/// Rows of token ids and labels, one behind the other: 8 bytes a token. Selections share them with what they are
/// taken from, and those of the token cache stay in its file.
#[derive(Debug, Clone, Default)]
pub struct Sequences {
    ids: Words,
    labels: Words,
    places: Vec<Place>,
    segments: Option<Segments>,
    /// Of questions: for each sequence the text that it holds a piece of.
    passages: Option<Vec<Arc<Passage>>>,
}

/// Where a sequence stands among the ids.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: usize,
    length: u32,
}

/// Numbers that are still being gathered, or shared.
#[derive(Debug, Clone)]
enum Words {
    Own(Vec<u32>),
    Shared(ScalarBuffer<u32>),
}

impl Default for Words {
    fn default() -> Self {
        Words::Own(Vec::new())
    }
}

impl Deref for Words {
    type Target = [u32];
    fn deref(&self) -> &[u32] {
        match self {
            Words::Own(words) => words,
            Words::Shared(words) => words,
        }
    }
}

impl Words {
    /// To write on; what was shared is copied.
    fn own(&mut self) -> &mut Vec<u32> {
        if let Words::Shared(words) = self {
            *self = Words::Own(words.to_vec());
        }
        match self {
            Words::Own(words) => words,
            Words::Shared(_) => unreachable!("just copied"),
        }
    }

    fn share(self) -> Self {
        match self {
            Words::Own(words) => Words::Shared(words.into()),
            Words::Shared(_) => self,
        }
    }
}

/// The same sequences in the same order, wherever they are kept.
impl PartialEq for Sequences {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Sequences {}

/// The rows inside packed sequences, one behind the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Segments {
    lengths: Vec<u32>,
    /// Where each sequence ends in `lengths`.
    ends: Vec<usize>,
}

/// One sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence<'s> {
    pub ids: &'s [u32],
    /// `labels[t]` is the id that position t must predict, or [`IGNORE`].
    pub labels: &'s [u32],
    /// The lengths of the rows that are packed in it; `None` where sequences are not packed.
    pub segments: Option<&'s [u32]>,
    /// Of questions: the text that the sequence holds a piece of.
    pub passage: Option<&'s Passage>,
}

impl Sequences {
    /// How many sequences there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// No sequence at all.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether sequences hold several rows.
    pub fn is_packed(&self) -> bool {
        self.segments.is_some()
    }

    /// All tokens.
    pub fn tokens(&self) -> u64 {
        self.places.iter().map(|place| u64::from(place.length)).sum()
    }

    /// The positions that predict something.
    pub fn trained(&self) -> u64 {
        self.iter().map(|sequence| trained(sequence.labels)).sum()
    }

    /// The length of the longest sequence; 0 if there is none.
    pub fn longest(&self) -> usize {
        self.places.iter().map(|place| place.length).max().unwrap_or(0) as usize
    }

    /// The length of sequence `i`.
    pub fn length(&self, i: usize) -> usize {
        self.places[i].length as usize
    }

    /// Sequence `i`.
    pub fn get(&self, i: usize) -> Sequence<'_> {
        let Place { start, length } = self.places[i];
        let range = start..start + length as usize;
        Sequence {
            ids: &self.ids[range.clone()],
            labels: &self.labels[range],
            segments: self.segments.as_ref().map(|segments| &segments.lengths[span(&segments.ends, i)]),
            passage: self.passages.as_ref().map(|passages| &*passages[i]),
        }
    }

    /// All sequences, first to last.
    pub fn iter(&self) -> impl Iterator<Item = Sequence<'_>> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// Adds one row.
    pub(super) fn push(&mut self, ids: &[u32], labels: &[u32]) {
        assert_eq!(ids.len(), labels.len());
        self.places.push(Place { start: self.ids.len(), length: ids.len() as u32 });
        self.ids.own().extend_from_slice(ids);
        self.labels.own().extend_from_slice(labels);
    }

    /// The text that the sequence added last holds a piece of. Every sequence has one, or none.
    pub(super) fn passage(&mut self, passage: Passage) {
        self.passages.get_or_insert_default().push(Arc::new(passage));
    }

    /// The same, ready to be selected from without being copied.
    pub(super) fn share(self) -> Self {
        Self { ids: self.ids.share(), labels: self.labels.share(), ..self }
    }

    /// These rows of `self`, in this order.
    pub(super) fn select(&self, rows: &[u32]) -> Self {
        Self {
            ids: self.ids.clone(),
            labels: self.labels.clone(),
            places: rows.iter().map(|row| self.places[*row as usize]).collect(),
            segments: None,
            passages: self
                .passages
                .as_ref()
                .map(|passages| rows.iter().map(|row| passages[*row as usize].clone()).collect()),
        }
    }

    /// Adds the rows of another, in their order.
    pub(super) fn append(&mut self, other: &Self) {
        for Sequence { ids, labels, .. } in other.iter() {
            self.push(ids, labels);
        }
        if let Some(passages) = &other.passages {
            self.passages.get_or_insert_default().extend(passages.iter().cloned());
        }
    }

    /// The ids and labels of all rows in their order, and where each row ends in both.
    pub(super) fn columns(&self) -> (ScalarBuffer<u32>, ScalarBuffer<u32>, Vec<i64>) {
        let mut offsets = vec![0];
        let mut end = 0;
        for place in &self.places {
            end += i64::from(place.length);
            offsets.push(end);
        }
        // As they were gathered, rows follow each other without gaps.
        let gapless = self.places.iter().zip(&offsets).all(|(place, start)| place.start as i64 == *start);
        match (&self.ids, &self.labels) {
            (Words::Shared(ids), Words::Shared(labels)) if gapless && ids.len() as i64 == end => {
                (ids.clone(), labels.clone(), offsets)
            }
            _ => {
                let mut copy = Self::default();
                copy.append(self);
                (copy.ids.to_vec().into(), copy.labels.to_vec().into(), offsets)
            }
        }
    }

    /// What [`Sequences::columns`] gave, without copying. There are as many ids as labels, and `offsets` begins with 0,
    /// never falls and ends with their number.
    pub(super) fn of_columns(ids: ScalarBuffer<u32>, labels: ScalarBuffer<u32>, offsets: &[i64]) -> Self {
        assert_eq!(ids.len(), labels.len());
        let place = |pair: &[i64]| Place { start: pair[0] as usize, length: (pair[1] - pair[0]) as u32 };
        Self {
            ids: Words::Shared(ids),
            labels: Words::Shared(labels),
            places: offsets.windows(2).map(place).collect(),
            segments: None,
            passages: None,
        }
    }

    /// Sequences of one row each, as packed ones are: nothing sees beyond its row.
    pub(super) fn alone(mut self) -> Self {
        let lengths = self.places.iter().map(|place| place.length).collect();
        self.segments = Some(Segments { lengths, ends: (1..=self.len()).collect() });
        self
    }

    /// One sequence for each group of rows of `self`. No row predicts into the next one, since the
    /// last label of a row is always [`IGNORE`].
    pub(super) fn join(&self, groups: &[Vec<u32>]) -> Self {
        let mut segments = Segments::default();
        let n = self.tokens() as usize;
        let (mut all_ids, mut all_labels) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let mut places = Vec::with_capacity(groups.len());
        for group in groups {
            let start = all_ids.len();
            for &row in group {
                let Sequence { ids, labels, .. } = self.get(row as usize);
                debug_assert_eq!(labels.last(), Some(&IGNORE));
                all_ids.extend_from_slice(ids);
                all_labels.extend_from_slice(labels);
                segments.lengths.push(ids.len() as u32);
            }
            places.push(Place { start, length: (all_ids.len() - start) as u32 });
            segments.ends.push(segments.lengths.len());
        }
        let joined = Self {
            ids: Words::Own(all_ids),
            labels: Words::Own(all_labels),
            places,
            segments: Some(segments),
            // Rows with an answer are never packed.
            passages: None,
        };
        joined.share()
    }
}

fn span(ends: &[usize], i: usize) -> std::ops::Range<usize> {
    let start = if i == 0 { 0 } else { ends[i - 1] };
    start..ends[i]
}

/// How many labels are an id.
pub(super) fn trained(labels: &[u32]) -> u64 {
    labels.iter().filter(|&&label| label != IGNORE).count() as u64
}
