//! Tables as text: comma or tab separated values.

use super::account::Account;
use super::table::{Column, Table, TableBuilder, Unit};
use crate::problem::{Problem, Problems, Span};
use serde_json::Value;

/// How such a file is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Form {
    separator: u8,
    /// The columns, where the first line does not name them.
    names: Option<Vec<String>>,
    /// Whether a cell may stand in quotes.
    quotes: bool,
}

impl Form {
    /// What is not said follows from the file's name: `.tsv` is separated by tabs, and where tabs separate, quotes are
    /// text, as the registered type `text/tab-separated-values` has it.
    pub fn of(path: &str, separator: Option<&str>, names: Option<&[String]>, quotes: Option<bool>) -> Self {
        let name = path.trim_end_matches(".gz").trim_end_matches(".zst");
        let separator = match separator.and_then(|text| text.bytes().next()) {
            Some(byte) => byte,
            None if name.ends_with(".tsv") => b'\t',
            None => b',',
        };
        Self { separator, names: names.map(<[String]>::to_vec), quotes: quotes.unwrap_or(separator != b'\t') }
    }
}

/// Reads the wanted columns.
///
/// # Errors
/// Rows that do not have as many cells as there are columns; a column that is not there.
pub(super) fn read(
    path: &str,
    text: &str,
    form: &Form,
    columns: &[Column],
    span: Option<Span>,
) -> Result<Table, Problems> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(form.separator)
        .quoting(form.quotes)
        .has_headers(form.names.is_none())
        .flexible(true)
        .from_reader(text.as_bytes());
    let broken = |line: u64, what: String, help: &str| {
        let message = format!("`{path}`, line {line}: {what}");
        Problem::new("hift::data::csv", message).label_at(span, "this file").help(help)
    };
    let unreadable = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        broken(line, error.to_string(), "write one row a line, with the same number of cells in each")
    };
    let names: Vec<String> = match &form.names {
        Some(names) => names.clone(),
        None => reader.headers().map_err(unreadable)?.iter().map(|name| name.trim().to_owned()).collect(),
    };
    let mut account = Account::new(path, Unit::Line, span, columns);
    account.seen = names.clone();
    let at: Vec<Option<usize>> =
        columns.iter().map(|column| names.iter().position(|name| *name == column.name)).collect();
    let mut table = TableBuilder::new(columns);
    let mut uneven: Option<(u64, usize, u64)> = None; // the first line, its cells, how many such lines
    let mut record = csv::StringRecord::new();
    let mut place = super::read::Place::start(text);
    while reader.read_record(&mut record).map_err(unreadable)? {
        // A record's own position may still be at the line break before it.
        let from = record.position().map_or(0, |position| position.byte() as usize);
        let breaks = text.as_bytes()[from..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let line = place.of(from + breaks).0;
        if record.len() != names.len() {
            let (_, _, rows) = uneven.get_or_insert((line, record.len(), 0));
            *rows += 1;
            continue;
        }
        let row: Vec<Option<Value>> = at
            .iter()
            .zip(columns)
            .map(|(at, column)| {
                let text = &record[(*at)?];
                // An empty cell is how such files leave a value out.
                (!text.is_empty() || !column.kind.is_optional()).then(|| Value::String(text.to_owned()))
            })
            .collect();
        table.push(line, &row, |i, odd| account.refuse(i, odd, line));
    }
    let table = table.finish(path);
    let mut problems = Problems::default();
    if let Some((line, cells, rows)) = uneven {
        let more = super::account::and_more(rows);
        let what = format!("{cells} cells, but there are {} columns{more}", names.len());
        problems.push(broken(
            line,
            what,
            if form.quotes {
                "put cells with a separator or a line break in quotes; if quotes are text here, write `quotes = false`"
            } else {
                "give every row as many cells; if cells stand in quotes, write `quotes = true`"
            },
        ));
    }
    problems.0.extend(account.problems(table.rows()).0);
    if problems.has_errors() { Err(problems) } else { Ok(table) }
}
