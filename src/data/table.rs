//! Rows as they were read: arrow batches of the columns that the format asks for.

use std::sync::Arc;

use arrow_array::builder::{Int64Builder, LargeListBuilder, LargeStringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, LargeListArray, LargeStringArray, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use serde_json::Value;

/// Rows per arrow batch, which is also how often a cancel flag is looked at.
pub(super) const BATCH_ROWS: usize = 512;

/// What a column must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text; numbers and truth values are taken as they are written.
    Text,
    /// A list of whole numbers.
    Ints,
}

/// A column that a format needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
}

/// The rows of a source, in the order of the file.
#[derive(Debug, Clone)]
pub struct Table {
    /// The path as written.
    pub path: String,
    pub batches: Vec<RecordBatch>,
    /// Where each row begins in the file; lines count from 1.
    pub lines: Vec<u64>,
}

impl Table {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.lines.len()
    }

    /// The batches, each with the lines of its rows.
    pub fn parts(&self) -> impl Iterator<Item = (&RecordBatch, &[u64])> {
        let mut rest = &self.lines[..];
        self.batches.iter().map(move |batch| {
            let (lines, after) = rest.split_at(batch.num_rows());
            rest = after;
            (batch, lines)
        })
    }
}

/// A text column of a batch.
pub(super) fn texts(batch: &RecordBatch, column: usize) -> &LargeStringArray {
    batch.column(column).as_string()
}

/// A column of number lists of a batch.
pub(super) fn ints(batch: &RecordBatch, column: usize) -> &LargeListArray {
    batch.column(column).as_list()
}

/// The numbers of one row of such a column.
pub(super) fn int_row(lists: &LargeListArray, row: usize) -> &[i64] {
    let range = lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize;
    &lists.values().as_primitive::<Int64Type>().values()[range]
}

/// Why a cell cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Odd {
    /// The column is absent from the row, or null.
    Absent,
    /// It holds something else, named here.
    Other(&'static str),
}

enum Cells {
    Text(LargeStringBuilder),
    Ints(LargeListBuilder<Int64Builder>),
}

impl Cells {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Text => Cells::Text(LargeStringBuilder::new()),
            Kind::Ints => Cells::Ints(LargeListBuilder::new(Int64Builder::new()).with_field(int_item())),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Cells::Text(cells) => Arc::new(cells.finish()),
            Cells::Ints(cells) => Arc::new(cells.finish()),
        }
    }

    /// A place holder, so that columns keep the same length when a cell was refused.
    fn blank(&mut self) {
        match self {
            Cells::Text(cells) => cells.append_value(""),
            Cells::Ints(cells) => cells.append(true),
        }
    }
}

fn int_item() -> Field {
    Field::new("item", DataType::Int64, false)
}

/// Collects rows into a [`Table`].
pub(super) struct TableBuilder {
    schema: SchemaRef,
    cells: Vec<Cells>,
    pending: usize,
    batches: Vec<RecordBatch>,
    lines: Vec<u64>,
}

impl TableBuilder {
    pub(super) fn new(columns: &[Column]) -> Self {
        let field = |column: &Column| {
            let data_type = match column.kind {
                Kind::Text => DataType::LargeUtf8,
                Kind::Ints => DataType::LargeList(Arc::new(int_item())),
            };
            Field::new(&column.name, data_type, false)
        };
        Self {
            schema: Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>())),
            cells: columns.iter().map(|column| Cells::new(column.kind)).collect(),
            pending: 0,
            batches: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// Adds one row; `refused` hears of each cell that cannot be taken, by the column's index.
    pub(super) fn push(&mut self, line: u64, row: &[Option<Value>], mut refused: impl FnMut(usize, Odd)) {
        for (i, (cells, value)) in self.cells.iter_mut().zip(row).enumerate() {
            let taken = match (&mut *cells, value) {
                (_, None | Some(Value::Null)) => Err(Odd::Absent),
                (Cells::Text(cells), Some(value)) => push_text(cells, value),
                (Cells::Ints(cells), Some(value)) => push_ints(cells, value),
            };
            if let Err(odd) = taken {
                cells.blank();
                refused(i, odd);
            }
        }
        self.row_done(line);
    }

    /// Adds a row of a table with one text column.
    pub(super) fn push_line(&mut self, line: u64, text: &str) {
        for cells in &mut self.cells {
            match cells {
                Cells::Text(cells) => cells.append_value(text),
                Cells::Ints(_) => cells.blank(),
            }
        }
        self.row_done(line);
    }

    fn row_done(&mut self, line: u64) {
        self.lines.push(line);
        self.pending += 1;
        if self.pending == BATCH_ROWS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.pending == 0 {
            return;
        }
        let columns = self.cells.iter_mut().map(Cells::finish).collect();
        let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(self.pending));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .expect("columns of one length and of the schema's types");
        self.batches.push(batch);
        self.pending = 0;
    }

    pub(super) fn finish(mut self, path: &str) -> Table {
        self.flush();
        Table { path: path.to_owned(), batches: self.batches, lines: self.lines }
    }
}

fn push_text(cells: &mut LargeStringBuilder, value: &Value) -> Result<(), Odd> {
    match value {
        Value::String(text) => cells.append_value(text),
        Value::Number(number) => cells.append_value(number.to_string()),
        Value::Bool(truth) => cells.append_value(if *truth { "true" } else { "false" }),
        Value::Array(_) => return Err(Odd::Other("a list")),
        Value::Object(_) => return Err(Odd::Other("an object")),
        Value::Null => return Err(Odd::Absent),
    }
    Ok(())
}

fn push_ints(cells: &mut LargeListBuilder<Int64Builder>, value: &Value) -> Result<(), Odd> {
    let items = match value {
        Value::Array(items) => items,
        Value::String(_) => return Err(Odd::Other("text")),
        Value::Number(_) => return Err(Odd::Other("a number")),
        Value::Bool(_) => return Err(Odd::Other("a truth value")),
        Value::Object(_) => return Err(Odd::Other("an object")),
        Value::Null => return Err(Odd::Absent),
    };
    if !items.iter().all(Value::is_i64) {
        return Err(Odd::Other("a list with something else in it"));
    }
    for item in items {
        cells.values().append_option(item.as_i64());
    }
    cells.append(true);
    Ok(())
}
