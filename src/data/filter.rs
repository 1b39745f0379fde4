//! Which rows are used: tests of their columns.

use arrow_array::{Array, RecordBatch};

use super::table::{Column, Kind, Table, texts};
use crate::lang::pipeline::{Filter, Test};
use crate::problem::Problem;

/// The columns that are read: those of a format, and those that only tests look at.
pub(super) struct Tests<'f> {
    pub columns: Vec<Column>,
    /// Each test with the column that it looks at.
    tests: Vec<(usize, &'f Test)>,
}

impl<'f> Tests<'f> {
    /// # Errors
    /// A test of a column that holds lists of numbers.
    pub fn new(layout: &[Column], filters: &'f [Filter]) -> Result<Self, Problem> {
        let mut columns = layout.to_vec();
        let mut tests = Vec::new();
        for Filter { column, test } in filters {
            let at = match columns.iter().position(|own| own.name == **column) {
                Some(at) => at,
                None => {
                    columns.push(Column { name: column.value.clone(), kind: Kind::Any });
                    columns.len() - 1
                }
            };
            if columns[at].kind == Kind::Ints {
                return Err(Problem::new(
                    "hift::data::filter",
                    format!("`{}` holds lists of numbers, which cannot be tested", column.value),
                )
                .label_at(column.span(), "this column")
                .help("name a column of texts, numbers or truth values"));
            }
            tests.push((at, test));
        }
        Ok(Self { columns, tests })
    }

    /// The rows that pass every test.
    pub fn apply(&self, table: Table) -> Table {
        if self.tests.is_empty() {
            return table;
        }
        table.filtered(|batch, row| self.tests.iter().all(|(column, test)| passes(batch, *column, row, test)))
    }
}

fn passes(batch: &RecordBatch, column: usize, row: usize, test: &Test) -> bool {
    let cells = texts(batch, column);
    let cell = cells.is_valid(row).then(|| cells.value(row));
    let number = || cell.and_then(|text| text.trim().parse::<f64>().ok());
    match test {
        Test::Is(texts) => cell.is_some_and(|cell| texts.iter().any(|text| text == cell)),
        Test::Not(texts) => cell.is_none_or(|cell| texts.iter().all(|text| text != cell)),
        Test::AtLeast(bound) => number().is_some_and(|number| number >= *bound),
        Test::AtMost(bound) => number().is_some_and(|number| number <= *bound),
    }
}
