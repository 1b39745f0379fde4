//! Columns of text without lines around them.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// A table whose first column is text and whose other columns are numbers, except for the last `text_at_end`.
pub fn table(header: &[&str], rows: &[Vec<String>], text_at_end: usize) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| (*name).to_string()).collect::<Vec<_>>());
    for row in rows {
        table.add_row(row.clone());
    }
    let n = header.len();
    for (idx, column) in table.column_iter_mut().enumerate() {
        let numbers = idx > 0 && idx + text_at_end < n;
        column.set_cell_alignment(if numbers { CellAlignment::Right } else { CellAlignment::Left });
        column.set_padding((if idx == 0 { 2 } else { 1 }, 1));
    }
    lines(&table)
}

/// Columns without a header, those of `numbers` flush right, the last one set apart; a line break after each row.
pub fn columns(rows: &[Vec<String>], numbers: &[usize]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.add_rows(rows.iter().cloned());
    let n = rows[0].len();
    for (idx, column) in table.column_iter_mut().enumerate() {
        let number = numbers.contains(&idx);
        column.set_cell_alignment(if number { CellAlignment::Right } else { CellAlignment::Left });
        column.set_padding((if [0, n - 1].contains(&idx) { 2 } else { 1 }, 0));
    }
    lines(&table) + "\n"
}

fn lines(table: &Table) -> String {
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_string()).collect();
    lines.join("\n")
}
