//! Files to [`Table`]s, a part at a time: JSON lines, a JSON array, plain text; `csv` and `arrow` know the others.

use std::fmt;
use std::io::BufRead;
use std::path::Path;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::account::{Account, MAX_COLUMNS, missing_column};
use super::csv::Form;
use super::files::{self, Input};
use super::table::{Cell, Column, Kind, Table, TableBuilder, Unit};
use crate::lang::pipeline::{Setting, Source};
use crate::lock::Hashed;
use crate::problem::{Problem, Problems, Span};

/// So many broken lines are reported one by one; the rest is counted.
const MAX_REPORTED: usize = 5;

/// Takes tables, a part of a source at a time, in the order of the files.
pub(super) type Sink<'s> = &'s mut dyn FnMut(Table) -> Result<(), Problems>;

/// Where the tables of a source go, as long as nothing is wrong.
pub(super) struct Out<'s> {
    sink: Sink<'s>,
    rows: u64,
    /// Something is wrong: rows are still read, so that all of it is told, but not passed on.
    is_closed: bool,
    /// Whoever takes the tables has had enough.
    is_refused: bool,
}

impl Out<'_> {
    /// Passes a table on, if all that was read of its file so far is right.
    pub fn put(&mut self, table: Table, is_right: bool) -> Result<(), Problems> {
        self.rows += table.rows() as u64;
        self.is_closed |= !is_right;
        if self.is_closed {
            return Ok(());
        }
        (self.sink)(table).inspect_err(|_| self.is_refused = true)
    }
}

/// Reads the columns that are needed from a source, a part at a time, and gives the hashes of its files. What is held at
/// a time does not grow with the files.
///
/// # Errors
/// A file that is missing (66), cannot be unpacked, is not what its reader expects, has no row, or has rows without
/// a needed column; each names the line or row. Whatever `sink` says.
pub(super) fn read_through(
    folder: &Path,
    source: &Setting<Source>,
    columns: &[Column],
    sink: Sink<'_>,
) -> Result<Vec<Hashed>, Problems> {
    let span = source.span();
    let listed = files::of_source(folder, &source.value, span)?;
    let mut hashes = Vec::new();
    for path in &listed.beside {
        hashes.push(files::read(folder, path, span)?.1);
    }
    let mut out = Out { sink, rows: 0, is_closed: false, is_refused: false };
    let mut problems = Problems::default();
    for path in &listed.rows {
        let own;
        let reader = match &source.value {
            Source::Hub { .. } => {
                own = of_name(path);
                &own
            }
            Source::Json { .. }
            | Source::Text { .. }
            | Source::Csv { .. }
            | Source::Arrow { .. }
            | Source::Parquet { .. }
            | Source::Mix { .. } => &source.value,
        };
        let out = &mut out;
        let text = || Input::open(folder, path, span);
        let read = match reader {
            Source::Json { .. } => text().map_err(Problems::from).and_then(|text| json(text, columns, out)),
            Source::Text { separator, .. } => {
                let separator = separator.as_deref();
                text().map_err(Problems::from).and_then(|text| plain(text, separator, columns, out))
            }
            Source::Csv { separator, names, quotes, .. } => {
                let form = Form::of(path, separator.as_deref(), names.as_deref(), *quotes);
                text().map_err(Problems::from).and_then(|text| super::csv::read(text, &form, columns, out))
            }
            Source::Arrow { .. } => super::arrow::read_ipc(folder, path, columns, span, out),
            Source::Parquet { .. } => super::arrow::read_parquet(folder, path, columns, span, out),
            Source::Hub { .. } => unreachable!("the name says how it is read"),
            Source::Mix { .. } => unreachable!("a mix is read block by block"),
        };
        match read {
            Ok(hashed) => hashes.push(hashed),
            Err(found) if out.is_refused => return Err(found),
            Err(found) => {
                out.is_closed = true;
                problems.0.extend(found.0);
            }
        }
    }
    if problems.has_errors() {
        return Err(problems);
    }
    if out.rows == 0 {
        return Err(Problem::new("hift::data::no_rows", format!("`{}` holds no rows", listed.written))
            .label_at(span, "nothing to train on")
            .help("a row is a line that is not blank, or an element of the array")
            .into());
    }
    Ok(hashes)
}

/// The whole of a source.
///
/// # Errors
/// As [`read_through`].
pub fn read(
    folder: &Path,
    source: &Setting<Source>,
    columns: &[Column],
) -> Result<(Table, Vec<Hashed>), Problems> {
    let mut tables = Vec::new();
    let mut keep = |table| {
        tables.push(table);
        Ok(())
    };
    let hashes = read_through(folder, source, columns, &mut keep)?;
    Ok((Table::joined(files::written(&source.value), tables), hashes))
}

/// How a file out of a repository is read: its name says so.
fn of_name(path: &str) -> Source {
    let path = path.to_owned();
    match crate::hub::form(&path) {
        Some("parquet") => Source::Parquet { path },
        Some("csv" | "tsv") => Source::Csv { path, separator: None, names: None, quotes: None },
        Some("txt") => Source::Text { path, separator: None },
        Some("arrow") => Source::Arrow { path, split: None },
        Some(_) | None => Source::Json { path },
    }
}

/// Bytes as text.
///
/// # Errors
/// They are not; `at` is where they are in the file, and `line` the line that they begin in.
pub(super) fn utf8<'b>(bytes: &'b [u8], input: &Input, at: u64, line: u64) -> Result<&'b str, Problem> {
    std::str::from_utf8(bytes).map_err(|error| {
        let wrong = error.valid_up_to();
        let line = line + line_breaks(&bytes[..wrong]);
        let (path, at, byte) = (input.path(), at + wrong as u64, bytes[wrong]);
        let what = format!("`{path}` is not UTF-8: byte {at}, in line {line}, is 0x{byte:02x}");
        Problem::new("hift::data::not_utf8", what)
            .label_at(input.span(), "this file")
            .help("convert it first, for example with `iconv -f LATIN1 -t UTF-8`")
    })
}

pub(super) fn line_breaks(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// What stands in a text up to some byte, again and again.
struct Pieces {
    input: Input,
    /// Where the next piece begins, in bytes, and in which line.
    at: u64,
    line: u64,
    piece: Vec<u8>,
}

impl Pieces {
    fn new(input: Input) -> Self {
        Self { at: input.start, input, line: 1, piece: Vec::new() }
    }

    /// The next piece up to `end`, with the line where it begins; nothing behind the last one.
    fn next(&mut self, end: &[u8]) -> Result<Option<(&str, u64)>, Problem> {
        self.piece.clear();
        let last = end.last().copied().unwrap_or(b'\n');
        loop {
            let n =
                self.input.read_until(last, &mut self.piece).map_err(|error| self.input.broken(&error))?;
            if n == 0 || self.piece.ends_with(end) {
                break;
            }
        }
        if self.piece.is_empty() {
            return Ok(None);
        }
        let (at, line) = (self.at, self.line);
        let text = utf8(&self.piece, &self.input, at, line)?;
        self.at += text.len() as u64;
        self.line += line_breaks(text.as_bytes());
        let end = std::str::from_utf8(end).unwrap_or_default();
        Ok(Some((text.strip_suffix(end).unwrap_or(text), line)))
    }
}

// ---------------------------------------------------------------------------------------------- text

fn plain(
    input: Input,
    separator: Option<&str>,
    columns: &[Column],
    out: &mut Out<'_>,
) -> Result<Hashed, Problems> {
    let (path, span) = (input.path().to_owned(), input.span());
    let path = path.as_str();
    let seen = ["text".to_owned()];
    let mut problems = Problems::default();
    for column in columns {
        match column.kind {
            Kind::Maybe => {}
            Kind::Text | Kind::Ints | Kind::Nested | Kind::Any if column.name != "text" => {
                problems.push(missing_column(path, &column.name, &seen, span));
            }
            Kind::Text | Kind::Any => {}
            Kind::Ints | Kind::Nested => problems.push(
                Problem::new(
                    "hift::data::cell",
                    match column.kind {
                        Kind::Ints => format!("`{path}` holds text where lists of whole numbers are needed"),
                        _ => format!("`{path}` holds text where lists are needed"),
                    },
                )
                .label_at(span, "this source")
                .help("read such rows with `json(...)`, `parquet(...)` or `arrow(...)`"),
            ),
        }
    }
    if separator == Some("") {
        problems.push(
            Problem::new("hift::data::separator", "the separator is empty")
                .label_at(span, "nothing separates the rows")
                .help("leave `separator` out for one row a line"),
        );
    }
    if problems.has_errors() {
        return Err(problems);
    }

    let mut table = TableBuilder::new(columns);
    let mut pieces = Pieces::new(input);
    while let Some((piece, line)) = pieces.next(separator.unwrap_or("\n").as_bytes())? {
        match separator {
            None if piece.trim().is_empty() => {}
            None => table.push_line(line, piece.strip_suffix('\r').unwrap_or(piece)),
            Some(_) => {
                let row = piece.trim_start();
                let before = &piece[..piece.len() - row.len()];
                if !row.is_empty() {
                    table.push_line(line + line_breaks(before.as_bytes()), row.trim_end());
                }
            }
        }
        if table.is_full() {
            out.put(table.take(path), true)?;
        }
    }
    out.put(table.take(path), true)?;
    Ok(pieces.input.finish()?)
}

// ---------------------------------------------------------------------------------------------- json

fn json(mut input: Input, columns: &[Column], out: &mut Out<'_>) -> Result<Hashed, Problems> {
    let (path, span) = (input.path().to_owned(), input.span());
    let mut rows = JsonRows {
        path: &path,
        span,
        table: TableBuilder::new(columns),
        account: Account::new(&path, Unit::Line, span, columns),
        broken: Vec::new(),
        n_broken: 0,
        read: 0,
    };
    let mut place = Reached { at: input.start, line: 1, column: 1 };
    skip_space(&mut input, &mut place)?;
    let input = match next_byte(&mut input)? {
        Some(b'[') => {
            array(&mut input, place, &mut rows, out)?;
            input
        }
        Some(_) | None => {
            // The first line may have begun with blanks.
            let mut column = place.column;
            let mut pieces = Pieces { at: place.at, line: place.line, ..Pieces::new(input) };
            while let Some((line, number)) = pieces.next(b"\n")? {
                if !line.trim().is_empty() {
                    rows.line(line, number, column);
                }
                column = 1;
                rows.pass_on(out)?;
            }
            pieces.input
        }
    };
    rows.finish(out)?;
    Ok(input.finish()?)
}

/// How far a text was read: in bytes, and line and column from 1.
#[derive(Debug, Clone, Copy)]
struct Reached {
    at: u64,
    line: u64,
    column: usize,
}

impl Reached {
    fn pass(&mut self, bytes: &[u8]) {
        self.at += bytes.len() as u64;
        self.line += line_breaks(bytes);
        self.column = match bytes.iter().rposition(|&byte| byte == b'\n') {
            Some(newline) => bytes.len() - newline,
            None => self.column + bytes.len(),
        };
    }
}

/// The byte that comes next; it is not passed over.
fn next_byte(input: &mut Input) -> Result<Option<u8>, Problem> {
    match input.fill_buf().map(|bytes| bytes.first().copied()) {
        Ok(byte) => Ok(byte),
        Err(error) => Err(input.broken(&error)),
    }
}

/// Some of what comes next, to be shown.
fn ahead(input: &mut Input) -> String {
    let bytes = input.fill_buf().unwrap_or_default();
    String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned()
}

fn skip_space(input: &mut Input, place: &mut Reached) -> Result<(), Problem> {
    loop {
        let bytes = match input.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) => return Err(input.broken(&error)),
        };
        let n = bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        place.pass(&bytes[..n]);
        let is_done = n < bytes.len() || bytes.is_empty();
        input.consume(n);
        if is_done {
            return Ok(());
        }
    }
}

/// Reads from a brace to the one that closes it, or to the end.
fn object(input: &mut Input, place: &mut Reached, into: &mut Vec<u8>) -> Result<(), Problem> {
    let (mut depth, mut in_text, mut escaped) = (0_u32, false, false);
    loop {
        let bytes = match input.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) => return Err(input.broken(&error)),
        };
        let mut end = None;
        for (i, byte) in bytes.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_text => escaped = true,
                b'"' => in_text = !in_text,
                _ if in_text => {}
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        end = Some(i + 1);
                        break;
                    }
                }
                _ => {}
            }
        }
        let n = end.unwrap_or(bytes.len());
        place.pass(&bytes[..n]);
        into.extend_from_slice(&bytes[..n]);
        let is_done = end.is_some() || bytes.is_empty();
        input.consume(n);
        if is_done {
            return Ok(());
        }
    }
}

/// The elements of a JSON array, each with the line where it begins.
fn array(
    input: &mut Input,
    mut place: Reached,
    rows: &mut JsonRows<'_>,
    out: &mut Out<'_>,
) -> Result<(), Problems> {
    let pass = |input: &mut Input, place: &mut Reached| {
        place.pass(b"[");
        input.consume(1);
    };
    pass(input, &mut place); // the bracket
    let mut may_close = true;
    let mut element = Vec::new();
    loop {
        skip_space(input, &mut place)?;
        let Reached { at, line, column } = place;
        match next_byte(input)? {
            Some(b']') if may_close => break,
            Some(b'{') => {}
            Some(_) => {
                rows.broken(line, column, "expected an object", &ahead(input));
                return Ok(());
            }
            None => {
                rows.broken(line, column, "the array is not closed", "");
                return Ok(());
            }
        }
        element.clear();
        object(input, &mut place, &mut element)?;
        let text = utf8(&element, input, at, line)?;
        if let Err(error) = rows.row(text, line) {
            let shown = text.to_owned() + &ahead(input);
            rows.error(&error, &shown, line, column);
            return Ok(());
        }
        rows.pass_on(out)?;
        skip_space(input, &mut place)?;
        match next_byte(input)? {
            Some(b',') => {
                pass(input, &mut place);
                may_close = false;
            }
            Some(b']') => may_close = true,
            Some(_) | None => {
                rows.broken(place.line, place.column, "expected `,` or `]`", &ahead(input));
                return Ok(());
            }
        }
    }
    pass(input, &mut place);
    skip_space(input, &mut place)?;
    if next_byte(input)?.is_some() {
        rows.broken(place.line, place.column, "there is something after the array", &ahead(input));
    }
    Ok(())
}

struct JsonRows<'a> {
    path: &'a str,
    span: Option<Span>,
    table: TableBuilder,
    account: Account<'a>,
    broken: Vec<Problem>,
    n_broken: usize,
    /// Rows that were passed on.
    read: u64,
}

impl JsonRows<'_> {
    /// A line that is to be one object, which begins at this column of the file.
    fn line(&mut self, text: &str, line: u64, column: usize) {
        let object = text.trim_start();
        if !object.starts_with('{') {
            let column = column + text.len() - object.len();
            self.broken(line, column, "expected an object", text);
        } else if let Err(error) = self.row(text, line) {
            self.error(&error, text, line, column);
        }
    }

    /// Takes an object that begins in this line of the file.
    fn row(&mut self, text: &str, line: u64) -> serde_json::Result<()> {
        let mut json = serde_json::Deserializer::from_str(text);
        let seed = RowSeed { columns: self.account.columns, seen: &mut self.account.seen };
        let row = seed.deserialize(&mut json).and_then(|row| json.end().map(|()| row));
        let account = &mut self.account;
        self.table.push(line, &row?, |i, odd| account.refuse(i, odd, line));
        Ok(())
    }

    fn error(&mut self, error: &serde_json::Error, text: &str, line: u64, column: usize) {
        let what = error.to_string();
        let what = what.rfind(" at line ").map_or(what.as_str(), |at| &what[..at]);
        // serde_json counts from the start of the text it was given.
        let column = if error.line() <= 1 { column - 1 + error.column().max(1) } else { error.column() };
        self.broken(line + (error.line() as u64).saturating_sub(1), column, what, text);
    }

    fn broken(&mut self, line: u64, column: usize, what: &str, text: &str) {
        self.n_broken += 1;
        if self.broken.len() == MAX_REPORTED {
            return;
        }
        let problem = Problem::new(
            "hift::data::json",
            format!("`{}`, line {line}, column {column}: {what}", self.path),
        )
        .help("write one JSON object a line, or one array of objects");
        self.broken.push(match beginning(text) {
            text if text.is_empty() => problem.label_at(self.span, "this file"),
            text => problem.label_at(self.span, format!("the text begins with `{text}`")),
        });
    }

    /// Passes on what is there, if it is enough.
    fn pass_on(&mut self, out: &mut Out<'_>) -> Result<(), Problems> {
        if self.table.is_full() { self.pass_all(out) } else { Ok(()) }
    }

    fn pass_all(&mut self, out: &mut Out<'_>) -> Result<(), Problems> {
        let table = self.table.take(self.path);
        self.read += table.rows() as u64;
        out.put(table, self.n_broken == 0 && self.account.is_clean())
    }

    fn finish(mut self, out: &mut Out<'_>) -> Result<(), Problems> {
        self.pass_all(out)?;
        let mut problems = Problems(std::mem::take(&mut self.broken));
        if self.n_broken > problems.0.len() {
            let more = self.n_broken - problems.0.len();
            problems.push(
                Problem::new("hift::data::json", format!("{more} more lines of `{}` are broken", self.path))
                    .label_at(self.span, "this file"),
            );
        }
        problems.0.extend(self.account.problems(self.read).0);
        if problems.has_errors() { Err(problems) } else { Ok(()) }
    }
}

/// The first characters of a text, on one line.
fn beginning(text: &str) -> String {
    let line = text.trim_start().lines().next().unwrap_or_default();
    match line.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

/// Takes the wanted columns out of an object and skips the others unparsed.
struct RowSeed<'a> {
    columns: &'a [Column],
    seen: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = Vec<Option<Cell<'de>>>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = Vec<Option<Cell<'de>>>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut row: Self::Value = self.columns.iter().map(|_| None).collect();
        while let Some(column) =
            map.next_key_seed(KeySeed { columns: self.columns, seen: &mut *self.seen })?
        {
            match column {
                Some(column) => row[column] = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(row)
    }
}

impl<'de> Deserialize<'de> for Cell<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(CellVisitor)
    }
}

/// Leaves text where it is and takes everything else as [`Value`] does.
struct CellVisitor;

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cell::Text(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cell::Text(text.to_owned().into()))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Self::Value, E> {
        Ok(Cell::Other(truth.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Cell::Other(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Cell::Other(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Cell::Other(number.into()))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Cell::Other(Value::Null))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, items: S) -> Result<Self::Value, S::Error> {
        Value::deserialize(SeqAccessDeserializer::new(items)).map(Cell::Other)
    }

    fn visit_map<M: MapAccess<'de>>(self, pairs: M) -> Result<Self::Value, M::Error> {
        Value::deserialize(MapAccessDeserializer::new(pairs)).map(Cell::Other)
    }
}

/// A key to the wanted column that it names.
struct KeySeed<'a> {
    columns: &'a [Column],
    seen: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        let column = self.columns.iter().position(|column| column.name == key);
        // A wanted column is always remembered, since whether it was seen at all decides the message.
        if (self.seen.len() < MAX_COLUMNS || column.is_some()) && !self.seen.iter().any(|name| name == key) {
            self.seen.push(key.to_owned());
        }
        Ok(column)
    }
}
