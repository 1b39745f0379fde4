//! Files to a [`Table`]: JSON lines, a JSON array, plain text.

use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::files::{self, nearest};
use super::table::{Column, Kind, Odd, Table, TableBuilder};
use crate::lang::pipeline::{Setting, Source};
use crate::lock::Hashed;
use crate::problem::{Problem, Problems, Span};

/// So many broken lines are reported one by one; the rest is counted.
const MAX_REPORTED: usize = 5;
/// So many column names are remembered and shown.
const MAX_COLUMNS: usize = 40;

/// Reads the columns that are needed from a source.
///
/// # Errors
/// A file that is missing (66), is not UTF-8 or not JSON, has no row, or has rows without a needed column;
/// each names the line.
pub fn read(
    folder: &Path,
    source: &Setting<Source>,
    columns: &[Column],
) -> Result<(Table, Hashed), Problems> {
    let span = source.span();
    let path = match &source.value {
        Source::Json { path } | Source::Text { path, .. } => path,
    };
    let (bytes, hashed) = files::read(folder, path, span)?;
    let text = utf8(&bytes, path, span)?;
    let table = match &source.value {
        Source::Json { path } => json(path, text, columns, span)?,
        Source::Text { path, separator } => plain(path, text, separator.as_deref(), columns, span)?,
    };
    if table.rows() == 0 {
        return Err(Problem::new("hift::data::no_rows", format!("`{path}` holds no rows"))
            .label_at(span, "nothing to train on")
            .help("a row is a line that is not blank, or an element of the array")
            .into());
    }
    Ok((table, hashed))
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
struct Place<'t> {
    text: &'t str,
    at: usize,
    line: u64,
    line_start: usize,
}

impl<'t> Place<'t> {
    fn start(text: &'t str) -> Self {
        Self { text, at: 0, line: 1, line_start: 0 }
    }

    /// The line and column, both from 1, of a place not before the last one asked for.
    fn of(&mut self, at: usize) -> (u64, usize) {
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
        if column.name != "text" {
            problems.push(missing_column(path, &column.name, &seen, span));
        } else if column.kind == Kind::Ints {
            problems.push(
                Problem::new(
                    "hift::data::cell",
                    format!("`{path}` holds text where lists of whole numbers are needed"),
                )
                .label_at(span, "this source")
                .help("read rows tokenised elsewhere with `json(...)`"),
            );
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
        columns,
        table: TableBuilder::new(columns),
        seen: Vec::new(),
        absent: vec![Tally::default(); columns.len()],
        other: vec![(Tally::default(), ""); columns.len()],
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

/// How many rows something is true of, and the first one's line.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    rows: u64,
    first: u64,
}

impl Tally {
    fn add(&mut self, line: u64) {
        if self.rows == 0 {
            self.first = line;
        }
        self.rows += 1;
    }
}

struct JsonRows<'a> {
    path: &'a str,
    span: Option<Span>,
    columns: &'a [Column],
    table: TableBuilder,
    /// Every key of every row, in the order of appearance.
    seen: Vec<String>,
    absent: Vec<Tally>,
    other: Vec<(Tally, &'static str)>,
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
        let seed = RowSeed { columns: self.columns, seen: &mut self.seen };
        let row = seed.deserialize(&mut json).and_then(|row| json.end().map(|()| row));
        match row {
            Ok(row) => {
                let (absent, other) = (&mut self.absent, &mut self.other);
                self.table.push(line, &row, |i, odd| match odd {
                    Odd::Absent => absent[i].add(line),
                    Odd::Other(what) => {
                        other[i].0.add(line);
                        if other[i].0.rows == 1 {
                            other[i].1 = what;
                        }
                    }
                });
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
        for (i, column) in self.columns.iter().enumerate() {
            let Tally { rows, first } = self.absent[i];
            if rows > 0 && !self.seen.contains(&column.name) {
                problems.push(missing_column(self.path, &column.name, &self.seen, self.span));
            } else if rows > 0 {
                problems.push(
                    Problem::new(
                        "hift::data::absent_cell",
                        format!(
                            "`{}`, line {first}: no value for `{}`{}",
                            self.path,
                            column.name,
                            and_more(rows)
                        ),
                    )
                    .label_at(self.span, format!("its columns are {}", list(&self.seen)))
                    .help("give every row a value; an empty text \"\" is one"),
                );
            }
            let (Tally { rows, first }, what) = self.other[i];
            if rows > 0 {
                let needed = match column.kind {
                    Kind::Text => "text",
                    Kind::Ints => "a list of whole numbers",
                };
                problems.push(
                    Problem::new(
                        "hift::data::cell",
                        format!(
                            "`{}`, line {first}: `{}` holds {what}; {needed} is needed{}",
                            self.path,
                            column.name,
                            and_more(rows)
                        ),
                    )
                    .label_at(self.span, "this file")
                    .help("name another column in `format`, or change the rows"),
                );
            }
        }
        if problems.has_errors() { Err(problems) } else { Ok(table) }
    }
}

/// ` (and 3 more rows)`, when the first of `rows` rows has been named.
pub(super) fn and_more(rows: u64) -> String {
    match rows {
        0 | 1 => String::new(),
        2 => " (and 1 more row)".to_owned(),
        rows => format!(" (and {} more rows)", rows - 1),
    }
}

fn missing_column(path: &str, name: &str, seen: &[String], span: Option<Span>) -> Problem {
    let help = match nearest(name, seen.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "name one of these columns in `format`".to_owned(),
    };
    Problem::new("hift::data::no_column", format!("`{path}` has no column `{name}`"))
        .label_at(span, format!("its columns are {}", list(seen)))
        .help(help)
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
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
