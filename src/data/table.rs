//! Rows as they were read: arrow batches of the columns that the format asks for.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow_array::builder::{Int64Builder, LargeListBuilder, LargeStringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, LargeListArray, LargeStringArray, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use serde_json::Value;

/// The most rows per arrow batch.
pub(super) const BATCH_ROWS: usize = 8192;

/// So many bytes of cells, about, are passed on together: few, for as long as the first are read nothing is encoded.
const TABLE_BYTES: usize = 256 << 10;

/// What a column must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text; numbers and truth values are taken as they are written.
    Text,
    /// A list of whole numbers.
    Ints,
    /// Lists and objects, kept as JSON text.
    Nested,
    /// Anything, as text or as JSON text; a row may lack it.
    Any,
    /// As [`Kind::Any`], and no row needs to have it.
    Maybe,
}

impl Kind {
    /// Whether a row may lack a value.
    pub(super) fn is_optional(self) -> bool {
        match self {
            Kind::Text | Kind::Ints | Kind::Nested => false,
            Kind::Any | Kind::Maybe => true,
        }
    }

    /// As it is called in a sentence.
    pub(super) fn called(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Ints => "a list of whole numbers",
            Kind::Nested => "a list",
            Kind::Any | Kind::Maybe => "a value",
        }
    }
}

/// A column that a format needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
}

/// The rows of a source, in the order of the files.
#[derive(Debug, Clone)]
pub struct Table {
    /// The path as written.
    pub path: String,
    /// The files that it stands for, and what their rows are counted in.
    pub files: Vec<(String, Unit)>,
    pub batches: Vec<RecordBatch>,
    /// Where each row is.
    pub places: Vec<Place>,
}

/// What the rows of a file are counted in, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Line,
    Row,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unit::Line => "line",
            Unit::Row => "row",
        })
    }
}

/// Where a row begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// An index into the files of the table.
    pub file: u32,
    /// The line or row of that file, from 1.
    pub number: u32,
}

impl Table {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.places.len()
    }

    /// The batches, each with the places of its rows.
    pub fn parts(&self) -> impl Iterator<Item = (&RecordBatch, &[Place])> {
        let mut rest = &self.places[..];
        self.batches.iter().map(move |batch| {
            let (places, after) = rest.split_at(batch.num_rows());
            rest = after;
            (batch, places)
        })
    }

    /// The bytes of a row's texts.
    pub(super) fn row_bytes(batch: &RecordBatch, row: usize) -> usize {
        let texts = batch.columns().iter().filter_map(|column| column.as_string_opt::<i64>());
        texts.map(|texts| texts.value_length(row) as usize).sum()
    }

    /// A cell as text; lists as JSON has them.
    pub fn cell(&self, row: usize, column: usize) -> Option<String> {
        let mut row = row;
        for batch in &self.batches {
            if row < batch.num_rows() {
                return match batch.column(column).as_string_opt::<i64>() {
                    Some(texts) => texts.is_valid(row).then(|| texts.value(row).to_owned()),
                    None => Some(format!("{:?}", int_row(ints(batch, column), row))),
                };
            }
            row -= batch.num_rows();
        }
        None
    }

    /// `` `rows.jsonl`, line 3 ``
    pub fn at(&self, place: Place) -> String {
        let (path, unit) = &self.files[place.file as usize];
        format!("`{path}`, {unit} {}", place.number)
    }

    /// The rows of several files, one behind the other.
    pub(super) fn joined(path: &str, tables: Vec<Table>) -> Table {
        let mut joined =
            Table { path: path.to_owned(), files: Vec::new(), batches: Vec::new(), places: Vec::new() };
        for table in tables {
            let file = joined.files.len() as u32;
            joined.files.extend(table.files);
            joined.batches.extend(table.batches);
            joined
                .places
                .extend(table.places.iter().map(|place| Place { file: file + place.file, ..*place }));
        }
        joined
    }

    /// The rows for which `keeps` says yes, by their batch and their position in it.
    pub(super) fn filtered(mut self, keeps: impl Fn(&RecordBatch, usize) -> bool) -> Table {
        let mut places = Vec::new();
        let mut rest = &self.places[..];
        for batch in &mut self.batches {
            let (own, after) = rest.split_at(batch.num_rows());
            rest = after;
            let kept: Vec<bool> = (0..batch.num_rows()).map(|row| keeps(batch, row)).collect();
            places.extend(own.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(place, _)| *place));
            *batch = filter_record_batch(batch, &BooleanArray::from(kept))
                .expect("as many answers as rows, and no array of a kind that cannot be filtered");
        }
        Table { places, ..self }
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

/// The arrow type of a column.
pub(super) fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Text | Kind::Nested | Kind::Any | Kind::Maybe => DataType::LargeUtf8,
        Kind::Ints => DataType::LargeList(Arc::new(int_item())),
    }
}

/// The arrow schema of rows with these columns.
pub(super) fn schema(columns: &[Column]) -> SchemaRef {
    let field = |c: &Column| Field::new(&c.name, data_type(c.kind), c.kind.is_optional());
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

/// A cell as a reader finds it.
pub(super) enum Cell<'t> {
    /// Where nothing in it is escaped, it stays where it was read.
    Text(Cow<'t, str>),
    /// What is not text.
    Other(Value),
}

enum Cells {
    Text(Kind, LargeStringBuilder),
    Ints(LargeListBuilder<Int64Builder>),
}

impl Cells {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Text | Kind::Nested | Kind::Any | Kind::Maybe => {
                Cells::Text(kind, LargeStringBuilder::new())
            }
            Kind::Ints => Cells::Ints(LargeListBuilder::new(Int64Builder::new()).with_field(int_item())),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Cells::Text(_, cells) => Arc::new(cells.finish()),
            Cells::Ints(cells) => Arc::new(cells.finish()),
        }
    }

    /// A place holder, so that columns keep the same length when a cell was refused.
    fn blank(&mut self) {
        match self {
            Cells::Text(_, cells) => cells.append_value(""),
            Cells::Ints(cells) => cells.append(true),
        }
    }
}

/// What stands in the lists of a column of number lists.
pub(super) fn int_item() -> Field {
    Field::new("item", DataType::Int64, false)
}

/// Collects rows into a [`Table`].
pub(super) struct TableBuilder {
    schema: SchemaRef,
    cells: Vec<Cells>,
    pending: usize,
    /// Bytes of text and numbers in the rows that are there.
    bytes: usize,
    batches: Vec<RecordBatch>,
    places: Vec<Place>,
}

impl TableBuilder {
    pub(super) fn new(columns: &[Column]) -> Self {
        Self {
            schema: schema(columns),
            cells: columns.iter().map(|column| Cells::new(column.kind)).collect(),
            pending: 0,
            bytes: 0,
            batches: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Adds one row; `refused` hears of each cell that cannot be taken, by the column's index.
    pub(super) fn push(&mut self, line: u64, row: &[Option<Cell<'_>>], mut refused: impl FnMut(usize, Odd)) {
        for (i, (cells, value)) in self.cells.iter_mut().zip(row).enumerate() {
            self.bytes += match value {
                Some(Cell::Text(text)) => text.len(),
                Some(Cell::Other(Value::Array(items))) => 8 * items.len(),
                Some(_) | None => 8,
            };
            let taken = match (&mut *cells, value) {
                (Cells::Text(kind, cells), None | Some(Cell::Other(Value::Null))) if kind.is_optional() => {
                    cells.append_null();
                    Ok(())
                }
                (_, None | Some(Cell::Other(Value::Null))) => Err(Odd::Absent),
                (Cells::Text(kind, cells), Some(value)) => push_text(*kind, cells, value),
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
        self.bytes += text.len();
        for cells in &mut self.cells {
            match cells {
                Cells::Text(Kind::Maybe, cells) => cells.append_null(),
                Cells::Text(_, cells) => cells.append_value(text),
                Cells::Ints(_) => cells.blank(),
            }
        }
        self.row_done(line);
    }

    fn row_done(&mut self, line: u64) {
        self.places.push(Place { file: 0, number: u32::try_from(line).unwrap_or(u32::MAX) });
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

    /// Whether there is enough to be passed on.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= TABLE_BYTES
    }

    /// What is there; the builder goes on without it.
    pub(super) fn take(&mut self, path: &str) -> Table {
        self.flush();
        self.bytes = 0;
        Table {
            path: path.to_owned(),
            files: vec![(path.to_owned(), Unit::Line)],
            batches: std::mem::take(&mut self.batches),
            places: std::mem::take(&mut self.places),
        }
    }
}

fn push_text(kind: Kind, cells: &mut LargeStringBuilder, cell: &Cell<'_>) -> Result<(), Odd> {
    let value = match cell {
        Cell::Text(text) => {
            cells.append_value(text);
            return Ok(());
        }
        Cell::Other(value) => value,
    };
    let nested = match kind {
        Kind::Text | Kind::Ints => false,
        Kind::Nested | Kind::Any | Kind::Maybe => true,
    };
    match value {
        Value::String(text) => cells.append_value(text),
        Value::Array(_) | Value::Object(_) if nested => cells.append_value(value.to_string()),
        Value::Array(_) => return Err(Odd::Other("a list")),
        Value::Object(_) => return Err(Odd::Other("an object")),
        Value::Number(_) if kind == Kind::Nested => return Err(Odd::Other("a number")),
        Value::Bool(_) if kind == Kind::Nested => return Err(Odd::Other("a truth value")),
        Value::Number(number) => cells.append_value(number.to_string()),
        Value::Bool(truth) => cells.append_value(if *truth { "true" } else { "false" }),
        Value::Null => return Err(Odd::Absent),
    }
    Ok(())
}

fn push_ints(cells: &mut LargeListBuilder<Int64Builder>, cell: &Cell<'_>) -> Result<(), Odd> {
    let value = match cell {
        Cell::Text(_) => return Err(Odd::Other("text")),
        Cell::Other(value) => value,
    };
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
