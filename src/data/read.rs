//! Files to a [`Table`]: JSON lines, a JSON array, plain text; `csv` and `arrow` know the others.

use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::account::{Account, MAX_COLUMNS, missing_column};
use super::csv::Form;
use super::files;
use super::table::{Column, Kind, Table, TableBuilder, Unit};
use crate::lang::pipeline::{Setting, Source};
use crate::lock::Hashed;
use crate::problem::{Problem, Problems, Span};

/// So many broken lines are reported one by one; the rest is counted.
const MAX_REPORTED: usize = 5;

/// Reads the columns that are needed from a source, and the hashes of its files.
///
/// # Errors
/// A file that is missing (66), cannot be unpacked, is not what its reader expects, has no row, or has rows without
/// a needed column; each names the line or row.
pub fn read(
    folder: &Path,
    source: &Setting<Source>,
    columns: &[Column],
) -> Result<(Table, Vec<Hashed>), Problems> {
    let span = source.span();
    let listed = files::of_source(folder, &source.value, span)?;
    let (mut tables, mut hashes) = (Vec::new(), Vec::new());
    for path in &listed.beside {
        hashes.push(files::read(folder, path, span)?.1);
    }
    let mut problems = Problems::default();
    for path in &listed.rows {
        let read = match &source.value {
            Source::Json { .. } => with_text(folder, path, span, |text| json(path, text, columns, span)),
            Source::Text { separator, .. } => {
                with_text(folder, path, span, |text| plain(path, text, separator.as_deref(), columns, span))
            }
            Source::Csv { separator, names, quotes, .. } => {
                let form = Form::of(path, separator.as_deref(), names.as_deref(), *quotes);
                with_text(folder, path, span, |text| super::csv::read(path, text, &form, columns, span))
            }
            Source::Arrow { .. } => super::arrow::read_ipc(folder, path, columns, span),
            Source::Parquet { .. } => super::arrow::read_parquet(folder, path, columns, span),
            Source::Mix { .. } => unreachable!("a mix is read block by block"),
        };
        match read {
            Ok((table, hashed)) => {
                tables.push(table);
                hashes.push(hashed);
            }
            Err(found) => problems.0.extend(found.0),
        }
    }
    if problems.has_errors() {
        return Err(problems);
    }
    let table = Table::joined(&listed.written, tables);
    if table.rows() == 0 {
        return Err(Problem::new("hift::data::no_rows", format!("`{}` holds no rows", table.path))
            .label_at(span, "nothing to train on")
            .help("a row is a line that is not blank, or an element of the array")
            .into());
    }
    Ok((table, hashes))
}

/// The table that `read` makes of a file's text, which may be packed.
fn with_text(
    folder: &Path,
    path: &str,
    span: Option<Span>,
    read: impl FnOnce(&str) -> Result<Table, Problems>,
) -> Result<(Table, Hashed), Problems> {
    let (bytes, hashed) = files::read(folder, path, span)?;
    let bytes = files::unpack(bytes, path, span)?;
    Ok((read(utf8(&bytes, path, span)?)?, hashed))
}

fn utf8<'b>(bytes: &'b [u8], path: &str, span: Option<Span>) -> Result<&'b str, Problem> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => {
            let at = error.valid_up_to();
            let line = line_of(bytes, at);
            Err(Problem::new(
                "hift::data::not_utf8",
                format!("`{path}` is not UTF-8: byte {at}, in line {line}, is 0x{:02x}", bytes[at]),
            )
            .label_at(span, "this file")
            .help("convert it first, for example with `iconv -f LATIN1 -t UTF-8`"))
        }
    }
}

fn line_of(bytes: &[u8], at: usize) -> u64 {
    1 + bytes[..at].iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// A place in a text that only moves forward, so that a whole file is counted through once.
pub(super) struct Place<'t> {
    text: &'t str,
    at: usize,
    line: u64,
    line_start: usize,
}

impl<'t> Place<'t> {
    pub fn start(text: &'t str) -> Self {
        Self { text, at: 0, line: 1, line_start: 0 }
    }

    /// The line and column, both from 1, of a place not before the last one asked for.
    pub fn of(&mut self, at: usize) -> (u64, usize) {
        let passed = &self.text.as_bytes()[self.at..at];
        self.line += line_of(passed, passed.len()) - 1;
        if let Some(newline) = passed.iter().rposition(|&byte| byte == b'\n') {
            self.line_start = self.at + newline + 1;
        }
        self.at = at;
        (self.line, at - self.line_start + 1)
    }
}

// ---------------------------------------------------------------------------------------------- text

fn plain(
    path: &str,
    text: &str,
    separator: Option<&str>,
    columns: &[Column],
    span: Option<Span>,
) -> Result<Table, Problems> {
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
    match separator {
        None => {
            for (i, line) in text.lines().enumerate() {
                if !line.trim().is_empty() {
                    table.push_line(i as u64 + 1, line);
                }
            }
        }
        Some(separator) => {
            let mut place = Place::start(text);
            for piece in text.split(separator) {
                let row = piece.trim();
                if !row.is_empty() {
                    let start = row.as_ptr() as usize - text.as_ptr() as usize;
                    table.push_line(place.of(start).0, row);
                }
            }
        }
    }
    Ok(table.finish(path))
}

// ---------------------------------------------------------------------------------------------- json

fn json(path: &str, text: &str, columns: &[Column], span: Option<Span>) -> Result<Table, Problems> {
    let mut rows = JsonRows {
        path,
        span,
        table: TableBuilder::new(columns),
        account: Account::new(path, Unit::Line, span, columns),
        broken: Vec::new(),
        n_broken: 0,
    };
    if text.trim_start().starts_with('[') {
        rows.array(text);
    } else {
        for (i, line) in text.split('\n').enumerate() {
            if !line.trim().is_empty() {
                rows.row(line, i as u64 + 1, 1);
            }
        }
    }
    rows.finish()
}

struct JsonRows<'a> {
    path: &'a str,
    span: Option<Span>,
    table: TableBuilder,
    account: Account<'a>,
    broken: Vec<Problem>,
    n_broken: usize,
}

impl JsonRows<'_> {
    /// One object that begins at this line and column of the file.
    fn row(&mut self, text: &str, line: u64, column: usize) {
        let object = text.trim_start();
        if !object.starts_with('{') {
            let column = column + text.len() - object.len();
            return self.broken(line, column, "expected an object", text);
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let seed = RowSeed { columns: self.account.columns, seen: &mut self.account.seen };
        let row = seed.deserialize(&mut json).and_then(|row| json.end().map(|()| row));
        match row {
            Ok(row) => {
                let account = &mut self.account;
                self.table.push(line, &row, |i, odd| account.refuse(i, odd, line));
            }
            Err(error) => self.error(&error, text, line, column),
        }
    }

    /// The elements of a JSON array, each with the line where it begins.
    fn array(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let skip_space = |from: usize| {
            bytes[from..].iter().position(|b| !b.is_ascii_whitespace()).map_or(bytes.len(), |n| from + n)
        };
        let mut place = Place::start(text);
        let mut at = skip_space(0) + 1; // behind the bracket
        let mut may_close = true;
        loop {
            at = skip_space(at);
            let (line, column) = place.of(at);
            match bytes.get(at) {
                Some(b']') if may_close => break,
                Some(b'{') => {}
                Some(_) => return self.broken(line, column, "expected an object", &text[at..]),
                None => return self.broken(line, column, "the array is not closed", ""),
            }
            let mut elements = serde_json::Deserializer::from_str(&text[at..]).into_iter::<IgnoredAny>();
            if let Some(Err(error)) = elements.next() {
                return self.error(&error, &text[at..], line, column);
            }
            let end = at + elements.byte_offset();
            self.row(&text[at..end], line, column);
            at = skip_space(end);
            match bytes.get(at) {
                Some(b',') => (at, may_close) = (at + 1, false),
                Some(b']') => may_close = true,
                Some(_) | None => {
                    let (line, column) = place.of(at);
                    return self.broken(line, column, "expected `,` or `]`", &text[at..]);
                }
            }
        }
        at = skip_space(at + 1);
        if at < bytes.len() {
            let (line, column) = place.of(at);
            self.broken(line, column, "there is something after the array", &text[at..]);
        }
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

    fn finish(mut self) -> Result<Table, Problems> {
        let mut problems = Problems(std::mem::take(&mut self.broken));
        if self.n_broken > problems.0.len() {
            let more = self.n_broken - problems.0.len();
            problems.push(
                Problem::new("hift::data::json", format!("{more} more lines of `{}` are broken", self.path))
                    .label_at(self.span, "this file"),
            );
        }
        let table = self.table.finish(self.path);
        problems.0.extend(self.account.problems(table.rows()).0);
        if problems.has_errors() { Err(problems) } else { Ok(table) }
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
    type Value = Vec<Option<Value>>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = Vec<Option<Value>>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut row = vec![None; self.columns.len()];
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
