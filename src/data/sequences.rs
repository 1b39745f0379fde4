//! Token ids with what each position must predict, stored flat.

/// The label of a position that predicts nothing.
pub const IGNORE: u32 = u32::MAX;

/// Rows of token ids and labels, one behind the other: 8 bytes a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequences {
    ids: Vec<u32>,
    labels: Vec<u32>,
    /// Where each sequence ends in `ids`.
    ends: Vec<usize>,
    segments: Option<Segments>,
}

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
}

impl Sequences {
    /// How many sequences there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// No sequence at all.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether sequences hold several rows.
    pub fn is_packed(&self) -> bool {
        self.segments.is_some()
    }

    /// All tokens.
    pub fn tokens(&self) -> u64 {
        self.ids.len() as u64
    }

    /// The positions that predict something.
    pub fn trained(&self) -> u64 {
        trained(&self.labels)
    }

    /// The length of the longest sequence; 0 if there is none.
    pub fn longest(&self) -> usize {
        (0..self.len()).map(|i| self.get(i).ids.len()).max().unwrap_or(0)
    }

    /// Sequence `i`.
    pub fn get(&self, i: usize) -> Sequence<'_> {
        let range = span(&self.ends, i);
        Sequence {
            ids: &self.ids[range.clone()],
            labels: &self.labels[range],
            segments: self.segments.as_ref().map(|segments| &segments.lengths[span(&segments.ends, i)]),
        }
    }

    /// All sequences, first to last.
    pub fn iter(&self) -> impl Iterator<Item = Sequence<'_>> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// Adds one row.
    pub(super) fn push(&mut self, ids: &[u32], labels: &[u32]) {
        assert_eq!(ids.len(), labels.len());
        self.ids.extend_from_slice(ids);
        self.labels.extend_from_slice(labels);
        self.ends.push(self.ids.len());
    }

    /// These rows of `self`, in this order.
    pub(super) fn select(&self, rows: &[u32]) -> Self {
        let mut selected = Self::default();
        for &row in rows {
            let Sequence { ids, labels, .. } = self.get(row as usize);
            selected.push(ids, labels);
        }
        selected
    }

    /// Sequences of one row each, as packed ones are: nothing sees beyond its row.
    pub(super) fn alone(mut self) -> Self {
        let lengths = (0..self.len()).map(|i| span(&self.ends, i).len() as u32).collect();
        self.segments = Some(Segments { lengths, ends: (1..=self.len()).collect() });
        self
    }

    /// One sequence for each group of rows of `self`. No row predicts into the next one, since the
    /// last label of a row is always [`IGNORE`].
    pub(super) fn join(&self, groups: &[Vec<u32>]) -> Self {
        let mut segments = Segments::default();
        let mut joined = Self {
            ids: Vec::with_capacity(self.ids.len()),
            labels: Vec::with_capacity(self.labels.len()),
            ..Self::default()
        };
        for group in groups {
            for &row in group {
                let Sequence { ids, labels, .. } = self.get(row as usize);
                debug_assert_eq!(labels.last(), Some(&IGNORE));
                joined.ids.extend_from_slice(ids);
                joined.labels.extend_from_slice(labels);
                segments.lengths.push(ids.len() as u32);
            }
            joined.ends.push(joined.ids.len());
            segments.ends.push(segments.lengths.len());
        }
        joined.segments = Some(segments);
        joined
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
