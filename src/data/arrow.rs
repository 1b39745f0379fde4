//! Tables as arrow has them: its own files and streams, mapped into memory, and parquet.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, LargeListArray, LargeStringArray, RecordBatch, RecordBatchOptions};
use arrow_buffer::Buffer;
use arrow_cast::cast::{CastOptions, can_cast_types, cast_with_options};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_ipc::reader::StreamDecoder;
use arrow_schema::{ArrowError, DataType, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};

use super::account::{Account, MAX_COLUMNS};
use super::files;
use super::read::Out;
use super::table::{self, Column, Kind, Odd, Place, Table, Unit};
use crate::lock::Hashed;
use crate::problem::{Fault, Problem, Problems, Span};

/// What an arrow file, as opposed to a stream, begins and ends with.
const MAGIC: &[u8] = b"ARROW1";

/// Rows that are passed on at a time.
const PART_ROWS: usize = 4096;

/// Reads an arrow file or stream.
///
/// # Errors
/// A file that is missing (66) or broken; a column that is not there or holds something else.
pub(super) fn read_ipc(
    folder: &Path,
    path: &str,
    columns: &[Column],
    span: Option<Span>,
    out: &mut Out<'_>,
) -> Result<Hashed, Problems> {
    let (bytes, hashed) = files::map(folder, path, span)?;
    let mut rows = Rows::new(path, columns, span);
    if bytes.is_empty() {
        return Err(broken(path, "an arrow file", "it is empty", span).into());
    }
    let not_arrow = |error: ArrowError| broken(path, "an arrow file", &error.to_string(), span);
    for batch in decode(bytes).map_err(not_arrow)? {
        rows.add(&batch.map_err(not_arrow)?, out)?;
    }
    rows.finish()?;
    Ok(hashed)
}

/// The batches of an arrow file or stream; their buffers stay in `bytes`. A file is a stream with a frame around it.
pub(super) fn decode(
    mut bytes: Buffer,
) -> Result<impl Iterator<Item = Result<RecordBatch, ArrowError>>, ArrowError> {
    if bytes.starts_with(MAGIC) {
        let end = bytes.len() - 10.min(bytes.len());
        let tail = bytes.get(end..end + 4).and_then(|size| Some(u32::from_le_bytes(size.try_into().ok()?)));
        let body = tail.and_then(|size| end.checked_sub(size as usize)?.checked_sub(8));
        match body {
            Some(body) if bytes.ends_with(MAGIC) => bytes = bytes.slice_with_length(8, body),
            Some(_) | None => {
                return Err(ArrowError::IpcError("the file was not written to its end".to_owned()));
            }
        }
    }
    let mut decoder = StreamDecoder::new();
    let mut done = false;
    Ok(std::iter::from_fn(move || {
        if done {
            return None;
        }
        match decoder.decode(&mut bytes) {
            Ok(Some(batch)) => Some(Ok(batch)),
            Ok(None) => {
                done = true;
                decoder.finish().err().map(Err)
            }
            Err(error) => {
                done = true;
                Some(Err(error))
            }
        }
    }))
}

/// Reads a parquet file.
///
/// # Errors
/// As [`read_ipc`]; a file with rows that cannot be read in its middle names the first of them.
pub(super) fn read_parquet(
    folder: &Path,
    path: &str,
    columns: &[Column],
    span: Option<Span>,
    out: &mut Out<'_>,
) -> Result<Hashed, Problems> {
    let place = files::find(folder, path, span)?;
    let unreadable = |error: std::io::Error| {
        Problem::of(Fault::Missing, "hift::data::unreadable", format!("`{path}` cannot be read: {error}"))
            .label_at(span, format!("looked for {}", place.display()))
    };
    let hashed = Hashed::stream(path, &place, &|| false).map_err(unreadable)?.expect("never cancelled");
    let file = File::open(&place).map_err(unreadable)?;
    let mut rows = Rows::new(path, columns, span);
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|error| broken(path, "a parquet file", &error.to_string(), span))?;
    // Column `a` is every leaf below it, so that only what is needed is decoded.
    let wanted = |leaf: &str| columns.iter().any(|column| column.name == leaf);
    let description = builder.parquet_schema();
    let leaves = (0..description.num_columns())
        .filter(|leaf| description.column(*leaf).path().parts().first().is_some_and(|root| wanted(root)));
    let mask = ProjectionMask::leaves(description, leaves.collect::<Vec<_>>());
    rows.see(builder.schema());
    let reader = builder.with_projection(mask).with_batch_size(PART_ROWS).build();
    let reader = reader.map_err(|error| broken(path, "a parquet file", &error.to_string(), span))?;
    for batch in reader {
        match batch {
            Ok(batch) => rows.add(&batch, out)?,
            Err(error) => {
                let what = format!("behind row {}: {error}", rows.read);
                return Err(broken(path, "a whole parquet file", &what, span).into());
            }
        }
    }
    rows.finish()?;
    Ok(hashed)
}

fn broken(path: &str, what: &str, why: &str, span: Option<Span>) -> Problem {
    Problem::new("hift::data::arrow", format!("`{path}` is not {what}: {why}"))
        .label_at(span, "this file")
        .help("look whether it was written to its end, and whether its reader is the right one: `arrow`, `parquet`, `json`, `csv`, `text`")
}

/// Collects the wanted columns of arrow batches.
struct Rows<'a> {
    account: Account<'a>,
    schema: SchemaRef,
    path: &'a str,
    /// Rows that were taken.
    read: u64,
}

impl<'a> Rows<'a> {
    fn new(path: &'a str, columns: &'a [Column], span: Option<Span>) -> Self {
        Self {
            account: Account::new(path, Unit::Row, span, columns),
            schema: table::schema(columns),
            path,
            read: 0,
        }
    }

    /// Remembers the columns that there are.
    fn see(&mut self, schema: &SchemaRef) {
        for (n, field) in schema.fields().iter().enumerate() {
            let wanted = self.account.columns.iter().any(|column| column.name == *field.name());
            if (n < MAX_COLUMNS || wanted) && !self.account.seen.contains(field.name()) {
                self.account.seen.push(field.name().clone());
            }
        }
    }

    /// Passes the rows of a batch on, a part of a large one at a time.
    fn add(&mut self, batch: &RecordBatch, out: &mut Out<'_>) -> Result<(), Problems> {
        self.see(&batch.schema());
        for start in (0..batch.num_rows()).step_by(PART_ROWS) {
            self.pass(&batch.slice(start, PART_ROWS.min(batch.num_rows() - start)), out)?;
        }
        Ok(())
    }

    fn pass(&mut self, batch: &RecordBatch, out: &mut Out<'_>) -> Result<(), Problems> {
        let (n, first) = (batch.num_rows(), self.read + 1);
        let mut taken: Vec<ArrayRef> = Vec::new();
        for (i, column) in self.account.columns.iter().enumerate() {
            let array = batch.column_by_name(&column.name);
            let account = &mut self.account;
            taken.push(take(array, column.kind, n, |row, odd| account.refuse(i, odd, first + row as u64)));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(n));
        let taken = RecordBatch::try_new_with_options(self.schema.clone(), taken, &options)
            .expect("columns of one length and of the schema's types");
        let number = |row| Place { file: 0, number: u32::try_from(first + row).unwrap_or(u32::MAX) };
        self.read += n as u64;
        let table = Table {
            path: self.path.to_owned(),
            files: vec![(self.path.to_owned(), Unit::Row)],
            batches: vec![taken],
            places: (0..n as u64).map(number).collect(),
        };
        out.put(table, self.account.is_clean())
    }

    fn finish(self) -> Result<(), Problems> {
        let problems = self.account.problems(self.read);
        if problems.has_errors() { Err(problems) } else { Ok(()) }
    }
}

/// A column as a table has it; `refused` hears of the cells that cannot be taken.
fn take(array: Option<&ArrayRef>, kind: Kind, rows: usize, mut refused: impl FnMut(usize, Odd)) -> ArrayRef {
    let blank = || match kind {
        Kind::Ints => arrow_array::new_empty_array(&table::data_type(kind)),
        Kind::Text | Kind::Nested | Kind::Any | Kind::Maybe => {
            arrow_array::new_null_array(&DataType::LargeUtf8, rows)
        }
    };
    let mut refuse_all = |odd: Odd| (0..rows).for_each(|row| refused(row, odd.clone()));
    let Some(array) = array.filter(|array| *array.data_type() != DataType::Null) else {
        if kind.is_optional() {
            return blank();
        }
        refuse_all(Odd::Absent);
        return placeholder(kind, rows);
    };
    let is_nested = array.data_type().is_nested();
    if kind == Kind::Ints {
        return match ints(array) {
            Ok(lists) => {
                for row in (0..rows).filter(|row| lists.is_null(*row)) {
                    refused(row, Odd::Absent);
                }
                if lists.null_count() == 0 { Arc::new(lists) } else { placeholder(kind, rows) }
            }
            Err(what) => {
                refuse_all(Odd::Other(what));
                placeholder(kind, rows)
            }
        };
    }
    let texts: LargeStringArray = match (is_nested, kind) {
        (true, Kind::Text | Kind::Ints) => {
            refuse_all(Odd::Other(called(array.data_type())));
            return placeholder(kind, rows);
        }
        (true, Kind::Nested | Kind::Any | Kind::Maybe) => {
            (0..rows).map(|row| array.is_valid(row).then(|| value(array, row).to_string())).collect()
        }
        (false, _) if kind == Kind::Nested && !is_text(array.data_type()) => {
            refuse_all(Odd::Other(called(array.data_type())));
            return placeholder(kind, rows);
        }
        (false, _) => texts(array),
    };
    if !kind.is_optional() && texts.null_count() > 0 {
        for row in (0..rows).filter(|row| texts.is_null(*row)) {
            refused(row, Odd::Absent);
        }
        return placeholder(kind, rows);
    }
    Arc::new(texts)
}

/// So many cells of no value: the table that holds them is never used, since each was refused.
fn placeholder(kind: Kind, rows: usize) -> ArrayRef {
    match kind {
        Kind::Ints => {
            let mut lists =
                arrow_array::builder::LargeListBuilder::new(arrow_array::builder::Int64Builder::new())
                    .with_field(table::int_item());
            (0..rows).for_each(|_| lists.append(true));
            Arc::new(lists.finish())
        }
        Kind::Text | Kind::Nested | Kind::Any | Kind::Maybe => {
            Arc::new(LargeStringArray::from_iter_values((0..rows).map(|_| "")))
        }
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn called(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::ListView(_)
        | DataType::LargeListView(_) => "a list",
        DataType::Struct(_) | DataType::Map(..) => "an object",
        DataType::Boolean => "a truth value",
        other if other.is_numeric() => "a number",
        other if is_text(other) => "text",
        _ => "something else",
    }
}

/// Cells as text: text as it is, numbers and truth values as they are written in JSON.
fn texts(array: &ArrayRef) -> LargeStringArray {
    if is_text(array.data_type()) && can_cast_types(array.data_type(), &DataType::LargeUtf8) {
        let cast = cast_with_options(array, &DataType::LargeUtf8, &CastOptions::default())
            .expect("text of one kind becomes text of another");
        return cast.as_string::<i64>().clone();
    }
    let cell = |row| {
        array.is_valid(row).then(|| match value(array, row) {
            Value::String(text) => text,
            other => other.to_string(),
        })
    };
    (0..array.len()).map(cell).collect()
}

/// Lists of whole numbers, of whichever width.
fn ints(array: &ArrayRef) -> Result<LargeListArray, &'static str> {
    let item = match array.data_type() {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => item,
        other => return Err(called(other)),
    };
    const OTHER: &str = "a list with something else in it";
    if !item.data_type().is_integer() {
        return Err(OTHER);
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let wanted = table::data_type(Kind::Ints);
    let nullable = DataType::LargeList(Arc::new(table::int_item().with_nullable(true)));
    let cast = cast_with_options(array, &nullable, &options).map_err(|_| OTHER)?;
    let (_, offsets, values, nulls) = cast.as_list::<i64>().clone().into_parts();
    if values.null_count() > 0 {
        return Err(OTHER);
    }
    let values = values.as_primitive::<Int64Type>().clone();
    let DataType::LargeList(field) = wanted else { return Err(OTHER) };
    LargeListArray::try_new(field, offsets, Arc::new(values), nulls).map_err(|_| OTHER)
}

/// A cell as JSON. What JSON has no form for becomes text.
fn value(array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    let items = |items: ArrayRef| Value::Array((0..items.len()).map(|i| value(&items, i)).collect());
    match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Utf8 => Value::String(array.as_string::<i32>().value(row).to_owned()),
        DataType::LargeUtf8 => Value::String(array.as_string::<i64>().value(row).to_owned()),
        DataType::Utf8View => Value::String(array.as_string_view().value(row).to_owned()),
        DataType::List(_) => items(array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => items(array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => items(array.as_fixed_size_list().value(row)),
        DataType::Struct(fields) => {
            let of = array.as_struct();
            let pairs = fields.iter().zip(of.columns());
            Value::Object(
                pairs.map(|(field, cells)| (field.name().clone(), value(cells, row))).collect::<Map<_, _>>(),
            )
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            let pair = |i| match value(keys, i) {
                Value::String(key) => (key, value(values, i)),
                other => (other.to_string(), value(values, i)),
            };
            Value::Object((0..entries.len()).map(pair).collect::<Map<_, _>>())
        }
        other => {
            let text = ArrayFormatter::try_new(array, &FormatOptions::default())
                .ok()
                .and_then(|formatter| formatter.value(row).try_to_string().ok())
                .unwrap_or_default();
            match other.is_numeric() {
                true => serde_json::from_str(&text).unwrap_or(Value::String(text)),
                false => Value::String(text),
            }
        }
    }
}
