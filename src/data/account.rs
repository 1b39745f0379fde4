//! What is missing or odd in the rows of a file: told once a column, with the first row and how many there are.

use super::files::nearest;
use super::table::{Column, Kind, Odd, Unit};
use crate::problem::{Problem, Problems, Span};

/// So many column names are remembered and shown.
pub(super) const MAX_COLUMNS: usize = 40;

/// How many rows something is true of, and the first one's number.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    rows: u64,
    first: u64,
}

impl Tally {
    fn add(&mut self, number: u64) {
        if self.rows == 0 {
            self.first = number;
        }
        self.rows += 1;
    }
}

/// The cells of a file that cannot be taken.
pub(super) struct Account<'a> {
    path: &'a str,
    unit: Unit,
    span: Option<Span>,
    pub columns: &'a [Column],
    /// Every column that some row has, in the order of appearance.
    pub seen: Vec<String>,
    absent: Vec<Tally>,
    other: Vec<(Tally, &'static str)>,
}

impl<'a> Account<'a> {
    pub fn new(path: &'a str, unit: Unit, span: Option<Span>, columns: &'a [Column]) -> Self {
        let n = columns.len();
        Self {
            path,
            unit,
            span,
            columns,
            seen: Vec::new(),
            absent: vec![Tally::default(); n],
            other: vec![(Tally::default(), ""); n],
        }
    }

    /// Column `i` of a row cannot be taken.
    pub fn refuse(&mut self, i: usize, odd: Odd, number: u64) {
        match odd {
            Odd::Absent => self.absent[i].add(number),
            Odd::Other(what) => {
                self.other[i].0.add(number);
                if self.other[i].0.rows == 1 {
                    self.other[i].1 = what;
                }
            }
        }
    }

    /// Whether every cell so far could be taken.
    pub fn is_clean(&self) -> bool {
        self.absent.iter().all(|tally| tally.rows == 0) && self.other.iter().all(|(tally, _)| tally.rows == 0)
    }

    /// All that was refused, of a file with so many rows.
    pub fn problems(self, rows: u64) -> Problems {
        let Self { path, unit, span, .. } = self;
        let mut problems = Problems::default();
        for (i, column) in self.columns.iter().enumerate() {
            let Tally { rows: absent, first } = self.absent[i];
            let never = !self.seen.contains(&column.name);
            let needed = absent > 0 || (column.kind == Kind::Any && rows > 0);
            if needed && never {
                problems.push(missing_column(path, &column.name, &self.seen, span));
            } else if absent > 0 {
                problems.push(
                    Problem::new(
                        "hift::data::absent_cell",
                        format!(
                            "`{path}`, {unit} {first}: no value for `{}`{}",
                            column.name,
                            and_more(absent)
                        ),
                    )
                    .label_at(span, format!("its columns are {}", list(&self.seen)))
                    .help("give every row a value; an empty text \"\" is one"),
                );
            }
            let (Tally { rows: other, first }, what) = self.other[i];
            if other > 0 {
                problems.push(
                    Problem::new(
                        "hift::data::cell",
                        format!(
                            "`{path}`, {unit} {first}: `{}` holds {what}; {} is needed{}",
                            column.name,
                            column.kind.called(),
                            and_more(other)
                        ),
                    )
                    .label_at(span, "this file")
                    .help("name another column in `format`, or change the rows"),
                );
            }
        }
        problems
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

pub(super) fn missing_column(path: &str, name: &str, seen: &[String], span: Option<Span>) -> Problem {
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
    let names: Vec<_> = names.iter().take(MAX_COLUMNS).map(|name| format!("`{name}`")).collect();
    names.join(", ")
}
