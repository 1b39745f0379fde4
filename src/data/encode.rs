//! Rows of text to ids, on all cores, while the next ones are read.
//!
//! ```text
//! table ──pieces──▶ Line ──threads──▶ (Encoded, piece)     in the order in which they were put in
//! ```
//!
//! Whoever reads the files puts tables in and takes rows out; in between no more is under way than keeps the threads
//! busy. All that can be done with a row by itself is done there: writing it out, encoding it, and finding what of it
//! carries a loss.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};

use rayon::Scope;

use super::chat::{Chat, Refused};
use super::encoder::Encoder;
use super::render::{Layout, Rendered};
use super::sequences::IGNORE;
use super::table::Table;
use crate::lang::pipeline::LossOn;
use crate::problem::Problem;

/// So much text is encoded in one go: little against what threads share, so that none waits long for the last.
const PIECE_BYTES: usize = 16 << 10;

/// So much text is under way at the most, or a piece for each thread where pieces are larger.
const BYTES_UNDER_WAY: usize = 1 << 20;

/// How rows become ids.
#[derive(Clone, Copy)]
pub(super) struct Recipe<'a> {
    pub layout: &'a Layout,
    /// For chats.
    pub chat: Option<&'a Chat>,
    pub loss_on: &'a LossOn,
    pub encoder: &'a Encoder,
}

/// The rows of a piece, without the marks around them.
#[derive(Default)]
pub(super) struct Encoded {
    pub rows: Vec<Row>,
    ids: Vec<u32>,
    labels: Vec<u32>,
}

/// What is known of a row besides its ids.
pub(super) struct Row {
    /// Its tokens among those of the piece.
    tokens: Range<usize>,
    /// There is nothing but white space.
    pub is_empty: bool,
    /// There is nothing but white space in the response.
    pub empty_response: bool,
    /// Of a chat: the role of each message, and whether it is learned.
    pub turns: Vec<(&'static str, bool)>,
    /// Why it cannot be written out.
    pub refused: Option<Refused>,
}

impl Encoded {
    /// The ids of a row.
    pub fn ids(&self, row: &Row) -> &[u32] {
        &self.ids[row.tokens.clone()]
    }

    /// For each id of a row the same again where it carries a loss, else [`IGNORE`].
    pub fn labels(&self, row: &Row) -> &[u32] {
        &self.labels[row.tokens.clone()]
    }
}

impl Recipe<'_> {
    /// The rows of a table.
    ///
    /// # Errors
    /// A text that cannot be encoded.
    fn rows(&self, table: &Table) -> Result<Encoded, Problem> {
        let mut encoded = Encoded::default();
        for batch in &table.batches {
            match self.chat {
                None => {
                    for row in self.layout.render(batch, self.loss_on) {
                        self.row(row, None, &mut encoded)?;
                    }
                }
                Some(chat) => {
                    for (messages, tools) in self.layout.messages(batch) {
                        let (row, refused) = match chat.row(messages, tools, self.loss_on) {
                            Ok(row) => (row, None),
                            Err(refused) => (Rendered::default(), Some(refused)),
                        };
                        self.row(row, refused, &mut encoded)?;
                    }
                }
            }
        }
        Ok(encoded)
    }

    /// Prompt and response are encoded as one text, for that is what the model will see.
    fn row(&self, row: Rendered, refused: Option<Refused>, into: &mut Encoded) -> Result<(), Problem> {
        let Rendered { text, trained, empty_response, turns } = row;
        let is_empty = text.trim().is_empty();
        let first = into.ids.len();
        if is_empty {
            // Nobody asks for its ids.
        } else if trained.as_slice() == std::slice::from_ref(&(0..text.len())) {
            // Without offsets, which is faster.
            into.ids.extend_from_slice(&self.encoder.encode(&text, false)?);
            into.labels.extend_from_slice(&into.ids[first..]);
        } else {
            let (ids, ends) = self.encoder.encode_with_ends(&text)?;
            let label = |(&id, end): (&u32, usize)| if is_trained(end, &trained) { id } else { IGNORE };
            into.labels.extend(ids.iter().zip(ends).map(label));
            into.ids.extend_from_slice(&ids);
        }
        into.rows.push(Row { tokens: first..into.ids.len(), is_empty, empty_response, turns, refused });
        Ok(())
    }
}

/// Whether a token carries a loss, by the byte behind its last and the bytes that carry one. A token belongs to the part
/// that its last byte is in, so one that straddles the boundary between prompt and response belongs to the response.
/// (Tokens that stand for white space may have no bytes at all: some tokenizers trim it from the offsets.)
fn is_trained(end: usize, parts: &[Range<usize>]) -> bool {
    let last = end.saturating_sub(1);
    let part = parts.partition_point(|part| part.end <= last);
    parts.get(part).is_some_and(|part| part.contains(&last))
}

/// Does work beside the encoder's threads, which are given something to do by it and are waited for.
pub(super) fn beside<'a, R>(encoder: Option<&Encoder>, work: impl FnOnce(Option<&Scope<'a>>) -> R) -> R {
    match encoder.and_then(Encoder::threads) {
        Some(threads) => threads.in_place_scope(|scope| work(Some(scope))),
        None => work(None),
    }
}

/// Pieces of tables that are under way, first in, first out.
pub(super) struct Line<'s, 'a> {
    /// Without it, pieces are encoded when they are taken out.
    threads: Option<&'s Scope<'a>>,
    n_threads: usize,
    under_way: VecDeque<Piece>,
    /// Bytes of text in them.
    bytes: usize,
}

struct Piece {
    bytes: usize,
    work: Work,
}

enum Work {
    Given(Receiver<Done>),
    Here(Table),
}

/// What became of a piece, and the piece.
type Done = (Result<Encoded, Problem>, Table);

impl<'s, 'a> Line<'s, 'a> {
    pub fn new(threads: Option<&'s Scope<'a>>) -> Self {
        let n_threads = rayon::current_num_threads();
        Self { threads, n_threads, under_way: VecDeque::new(), bytes: 0 }
    }

    /// Puts a piece of a table in.
    pub fn put(&mut self, recipe: Recipe<'a>, (table, bytes): (Table, usize)) {
        let work = match self.threads {
            None => Work::Here(table),
            Some(threads) => {
                let (done, wait) = sync_channel(1);
                threads.spawn(move |_| {
                    let rows = recipe.rows(&table);
                    // Where something went wrong before, nobody waits any more.
                    let _ = done.send((rows, table));
                });
                Work::Given(wait)
            }
        };
        self.bytes += bytes;
        self.under_way.push_back(Piece { bytes, work });
    }

    /// Whether enough is under way.
    pub fn is_full(&self) -> bool {
        self.bytes >= BYTES_UNDER_WAY && self.under_way.len() > self.n_threads
    }

    /// Takes out the piece that was put in first; waits for it.
    pub fn take(&mut self, recipe: Recipe<'a>) -> Option<Done> {
        let Piece { bytes, work } = self.under_way.pop_front()?;
        self.bytes -= bytes;
        Some(match work {
            Work::Given(wait) => wait.recv().expect("a thread that panics takes this one with it"),
            Work::Here(table) => (recipe.rows(&table), table),
        })
    }
}

/// Cuts a table of text into pieces of about [`PIECE_BYTES`], each with its bytes.
pub(super) fn pieces(table: &Table) -> impl Iterator<Item = (Table, usize)> {
    table.parts().flat_map(move |(batch, places)| {
        let (mut start, mut bytes) = (0, 0);
        (0..places.len()).filter_map(move |row| {
            bytes += Table::row_bytes(batch, row);
            (bytes >= PIECE_BYTES || row + 1 == places.len()).then(|| {
                let rows = start..row + 1;
                start = rows.end;
                let piece = Table {
                    path: table.path.clone(),
                    files: table.files.clone(),
                    batches: vec![batch.slice(rows.start, rows.len())],
                    places: places[rows].to_vec(),
                };
                (piece, std::mem::take(&mut bytes))
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::table::TableBuilder;
    use crate::data::{Column, Kind};

    #[test]
    fn pieces_hold_every_row_once_and_in_order() {
        let check = |lengths: &[usize], expected: &[&[u32]]| {
            let mut table = TableBuilder::new(&[Column { name: "text".to_owned(), kind: Kind::Text }]);
            for (row, length) in lengths.iter().enumerate() {
                table.push_line(row as u64, &"x".repeat(*length));
            }
            let table = table.take("rows.txt");
            let pieces: Vec<(Table, usize)> = pieces(&table).collect();
            let lines = |piece: &Table| piece.places.iter().map(|place| place.number).collect::<Vec<_>>();
            assert_eq!(pieces.iter().map(|(piece, _)| lines(piece)).collect::<Vec<_>>(), expected);
            for (piece, bytes) in &pieces {
                let own: Vec<usize> =
                    (0..piece.rows()).map(|row| piece.cell(row, 0).unwrap().len()).collect();
                let given: Vec<usize> = lines(piece).iter().map(|line| lengths[*line as usize]).collect();
                assert_eq!((own.iter().sum::<usize>(), own), (*bytes, given));
            }
        };
        const HALF: usize = PIECE_BYTES / 2;
        check(&[], &[]);
        check(&[5], &[&[0]]);
        check(&[HALF, HALF, HALF, 1], &[&[0, 1], &[2, 3]]);
        check(&[1, 5 * HALF, 1, 1], &[&[0, 1], &[2, 3]]);
        // Without any text a row is still a row.
        check(&[0, 0], &[&[0, 1]]);
    }
}
