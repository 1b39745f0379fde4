//! Rows of text, and the comments behind them in columns.

use unicode_width::UnicodeWidthStr;

use super::{INDENT, WIDTH};

/// Blanks in front of a comment behind something, at least.
const GAP: usize = 2;

/// Columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// What is written, from top to bottom.
pub(super) struct Page<'t> {
    rows: Vec<Row<'t>>,
    /// How far the next row is set in, in steps of [`INDENT`].
    pub indent: usize,
    /// The next word begins a row.
    starts: bool,
}

#[derive(Default)]
struct Row<'t> {
    indent: usize,
    /// Empty in a blank row, and where the comment goes on that stands behind the row above.
    text: String,
    comment: Option<&'t str>,
}

impl Row<'_> {
    /// The column behind the text.
    fn end(&self) -> usize {
        self.indent * INDENT + width(&self.text)
    }

    fn is_comment(&self) -> bool {
        self.text.starts_with('#')
    }
}

impl<'t> Page<'t> {
    pub fn new() -> Self {
        Self { rows: Vec::new(), indent: 0, starts: true }
    }

    pub fn n_rows(&self) -> usize {
        self.rows.len()
    }

    /// The next word begins a row.
    pub fn newline(&mut self) {
        self.starts = true;
    }

    /// A blank row.
    pub fn blank(&mut self) {
        self.rows.push(Row::default());
        self.starts = true;
    }

    /// Writes a word, behind `gap` blanks unless it begins a row.
    pub fn word(&mut self, gap: usize, word: &str) {
        match self.rows.last_mut() {
            Some(row) if !self.starts => {
                row.text.extend(std::iter::repeat_n(' ', gap));
                row.text.push_str(word);
            }
            _ => self.rows.push(Row { indent: self.indent, text: word.to_owned(), comment: None }),
        }
        self.starts = false;
    }

    /// The column in which a word would begin.
    pub fn column(&self, gap: usize) -> usize {
        match self.rows.last() {
            Some(row) if !self.starts => row.end() + gap,
            _ => self.indent * INDENT,
        }
    }

    /// Whether a comment can stand behind the last row.
    pub fn takes_comment(&self) -> bool {
        self.rows.last().is_some_and(|row| !row.text.is_empty() && row.comment.is_none() && !row.is_comment())
    }

    /// Whether the comment behind the last row can go on below it: in a column in which no comment begins that
    /// has its line to itself.
    pub fn takes_more_comment(&self) -> bool {
        let commented = self.rows.iter().rev().take_while(|row| row.comment.is_some());
        let row = commented.into_iter().find(|row| !row.text.is_empty());
        row.is_some_and(|row| row.end() + GAP > self.indent * INDENT)
    }

    pub fn comment_behind(&mut self, comment: &'t str) {
        if let Some(row) = self.rows.last_mut() {
            row.comment = Some(comment);
        }
        self.starts = true;
    }

    /// In the column of the comment above.
    pub fn comment_below(&mut self, comment: &'t str) {
        let indent = self.rows.last().map_or(self.indent, |row| row.indent);
        self.rows.push(Row { indent, text: String::new(), comment: Some(comment) });
        self.starts = true;
    }

    pub fn comment_alone(&mut self, comment: &'t str) {
        self.rows.push(Row { indent: self.indent, text: comment.to_owned(), comment: None });
        self.starts = true;
    }

    /// The text, its last line ended.
    pub fn finish(self) -> String {
        let columns = self.comment_columns();
        let mut text = String::new();
        for (row, column) in self.rows.iter().zip(columns) {
            if !row.text.is_empty() {
                text.extend(std::iter::repeat_n(' ', row.indent * INDENT));
                text.push_str(&row.text);
            }
            if let Some(comment) = row.comment {
                let end = if row.text.is_empty() { 0 } else { row.end() };
                text.extend(std::iter::repeat_n(' ', column - end));
                text.push_str(comment);
            }
            text.push('\n');
        }
        text
    }

    /// Where the comment behind each row begins.
    fn comment_columns(&self) -> Vec<usize> {
        let mut columns = vec![0; self.rows.len()];
        let mut first = 0;
        while first < self.rows.len() {
            let (length, column) = self.column_from(first);
            columns[first..first + length].fill(column);
            first += length.max(1);
        }
        columns
    }

    /// How many rows from `first` on have comments in one column, and that column: rows that follow one another,
    /// equally far set in, as long as no comment is pushed beyond [`WIDTH`] that would fit by itself.
    fn column_from(&self, first: usize) -> (usize, usize) {
        let (mut widest, mut longest) = (0, 0);
        let rows = &self.rows[first..];
        for (i, row) in rows.iter().enumerate() {
            let Some(comment) = row.comment else { return (i, widest + GAP) };
            let goes_on = row.text.is_empty();
            let end = if goes_on { 0 } else { row.end() };
            let length = if end + GAP + width(comment) > WIDTH { 0 } else { width(comment) };
            let fits = row.indent == rows[0].indent && widest.max(end) + GAP + longest.max(length) <= WIDTH;
            if i > 0 && !goes_on && !fits {
                return (i, widest + GAP);
            }
            (widest, longest) = (widest.max(end), longest.max(length));
        }
        (rows.len(), widest + GAP)
    }
}
