//! Tables as text: comma or tab separated values.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;

use super::account::Account;
use super::files::Input;
use super::read::{Out, line_breaks, utf8};
use super::table::{Cell, Column, TableBuilder, Unit};
use crate::lock::Hashed;
use crate::problem::{Problem, Problems};

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

/// What a csv reader has been given and has not made rows of yet, so that the line of each row is known.
struct Window {
    /// Bytes of the file, from the last row on that was asked for.
    bytes: Vec<u8>,
    /// How many of them are passed.
    passed: usize,
    /// Where the next one stands in the file, and in which line.
    at: u64,
    line: u64,
}

impl Window {
    /// Goes on to a row that begins at this byte, or behind line breaks that begin there. The reader's own position
    /// may still be at the line break before it.
    fn reach(&mut self, byte: u64) {
        let whole = self.passed + byte.saturating_sub(self.at) as usize;
        let breaks = self.bytes[whole..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let to = whole + breaks;
        self.line += line_breaks(&self.bytes[self.passed..to]);
        self.at += (to - self.passed) as u64;
        self.passed = to;
        if self.passed > WINDOW {
            self.bytes.drain(..self.passed);
            self.passed = 0;
        }
    }
}

/// Passed bytes are kept up to so many, since each removal moves the others.
const WINDOW: usize = 1 << 16;

/// A file that keeps a [`Window`].
struct Seen {
    input: Input,
    window: Rc<RefCell<Window>>,
}

impl Read for Seen {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.window.borrow_mut().bytes.extend_from_slice(&buffer[..n]);
        Ok(n)
    }
}

/// Reads the wanted columns.
///
/// # Errors
/// Rows that do not have as many cells as there are columns; a column that is not there.
pub(super) fn read(
    input: Input,
    form: &Form,
    columns: &[Column],
    out: &mut Out<'_>,
) -> Result<Hashed, Problems> {
    let (path, span, start) = (input.path().to_owned(), input.span(), input.start);
    let path = path.as_str();
    let window = Window { bytes: Vec::new(), passed: 0, at: start, line: 1 };
    let window = Rc::new(RefCell::new(window));
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(form.separator)
        .quoting(form.quotes)
        .has_headers(form.names.is_none())
        .flexible(true)
        .from_reader(Seen { input, window: window.clone() });
    let broken = |line: u64, what: String, help: &str| {
        let message = format!("`{path}`, line {line}: {what}");
        Problem::new("hift::data::csv", message).label_at(span, "this file").help(help)
    };
    let unreadable = |reader: &csv::Reader<Seen>, error: csv::Error| {
        if let csv::ErrorKind::Io(error) = error.kind() {
            return reader.get_ref().input.broken(error);
        }
        let line = error.position().map_or(1, csv::Position::line);
        broken(line, error.to_string(), "write one row a line, with the same number of cells in each")
    };
    // Where the bytes of this row are not text.
    let not_utf8 = |reader: &csv::Reader<Seen>| {
        let window = window.borrow();
        let bytes = &window.bytes[window.passed..];
        match utf8(bytes, &reader.get_ref().input, window.at, window.line) {
            Err(problem) => problem,
            Ok(_) => broken(window.line, "a cell is not text".to_owned(), "convert the file to UTF-8"),
        }
    };
    let names: Vec<String> = match &form.names {
        Some(names) => names.clone(),
        None => {
            let names = match reader.byte_headers() {
                Ok(names) => csv::StringRecord::from_byte_record(names.clone()),
                Err(error) => return Err(unreadable(&reader, error).into()),
            };
            let Ok(names) = names else { return Err(not_utf8(&reader).into()) };
            names.iter().map(|name| name.trim().to_owned()).collect()
        }
    };
    let mut account = Account::new(path, Unit::Line, span, columns);
    account.seen = names.clone();
    let at: Vec<Option<usize>> =
        columns.iter().map(|column| names.iter().position(|name| *name == column.name)).collect();
    let mut table = TableBuilder::new(columns);
    let mut uneven: Option<(u64, usize, u64)> = None; // the first line, its cells, how many such lines
    let mut record = csv::ByteRecord::new();
    let mut read = 0;
    loop {
        match reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return Err(unreadable(&reader, error).into()),
        }
        window.borrow_mut().reach(start + record.position().map_or(0, csv::Position::byte));
        let line = window.borrow().line;
        let Ok(record) = csv::StringRecord::from_byte_record(record.clone()) else {
            return Err(not_utf8(&reader).into());
        };
        if record.len() != names.len() {
            let (_, _, rows) = uneven.get_or_insert((line, record.len(), 0));
            *rows += 1;
            continue;
        }
        let row: Vec<Option<Cell<'_>>> = at
            .iter()
            .zip(columns)
            .map(|(at, column)| {
                let text = &record[(*at)?];
                // An empty cell is how such files leave a value out.
                (!text.is_empty() || !column.kind.is_optional()).then(|| Cell::Text(text.into()))
            })
            .collect();
        table.push(line, &row, |i, odd| account.refuse(i, odd, line));
        read += 1;
        if table.is_full() {
            out.put(table.take(path), uneven.is_none() && account.is_clean())?;
        }
    }
    out.put(table.take(path), uneven.is_none() && account.is_clean())?;
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
    problems.0.extend(account.problems(read).0);
    if problems.has_errors() {
        return Err(problems);
    }
    Ok(reader.into_inner().input.finish()?)
}
