//! A text to the same text in the one layout that the language has.
//!
//! ```text
//! text ── parse ──▶ File ──┐
//!      └─ scan ──▶ comments ┴─ Printer ──▶ rows ── Page::finish ──▶ text
//! ```
//!
//! The tree says what belongs together; every word is copied from where it stands in the text, and what the tree
//! leaves out (punctuation, comments) is looked up there in the scan. So nothing is lost or said in another way:
//! numbers and texts stay as they are written.
//!
//! Where a person broke a line is kept in four places: keys on one line stay on it, a block on one line stays a
//! block on one line, brackets whose first element has a line of its own stay open, and a blank line stays. All
//! of that only as far as [`WIDTH`] allows.
//!
//! Reading order: this file (files and blocks), `values` (what stands behind `=`), `page` (rows and columns).

mod page;
mod values;

use std::borrow::Cow;

use crate::problem::{Problems, Span};

use super::parse;
use super::scan::{Scan, Token};
use super::syntax::{Block, Entry, File, Import, Item, Let, Param, Value};
use page::{Page, width};

/// Columns of a line, at most, as far as lines can be broken.
pub const WIDTH: usize = 100;

/// Columns a block is set in by.
const INDENT: usize = 4;

/// The text in its layout. What it means, its comments and their order stay as they are; the layout of a layout
/// is itself.
///
/// # Errors
/// When the text cannot be read; all that is wrong with it.
pub fn format(text: &str) -> Result<String, Problems> {
    let (file, problems) = parse(text);
    if problems.has_errors() || file.is_damaged() {
        return Err(problems);
    }
    let (text, file) = match text.contains('\r') {
        true => {
            let text = text.replace("\r\n", "\n").replace('\r', "\n");
            let (file, _) = parse(&text);
            (Cow::Owned(text), file)
        }
        false => (Cow::Borrowed(text), file),
    };
    let mut printer =
        Printer { scan: Scan::new(&text), page: Page::new(), at: 0, n_comments: 0, continued: false };
    printer.body(&members(&file), text.len(), Body::File);
    Ok(printer.page.finish())
}

/// Writes a tree onto a page, with the comments that stand between its words.
struct Printer<'t> {
    scan: Scan<'t>,
    page: Page<'t>,
    /// The byte behind the last word or comment that was written.
    at: usize,
    /// Comments that are written already.
    n_comments: usize,
    /// The page is set in further than the line that is being written began.
    continued: bool,
}

/// What a body is part of: whether its members may share a line, and stand apart from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    File,
    Block,
    /// A block on one line that is too long for it.
    LongLine,
}

/// What stands in a file or a block.
#[derive(Debug, Clone, Copy)]
enum Member<'f> {
    Header(&'f Value),
    Import(&'f Import),
    Param(&'f Param),
    Let(&'f Let),
    Entry(&'f Entry),
    Block(&'f Block),
}

/// Kinds of members that stand together without a blank line where each is one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Header,
    Import,
    Value,
    Block,
}

impl Member<'_> {
    fn sort(self) -> Sort {
        match self {
            Member::Header(_) => Sort::Header,
            Member::Import(_) => Sort::Import,
            Member::Param(_) | Member::Let(_) | Member::Entry(_) => Sort::Value,
            Member::Block(_) => Sort::Block,
        }
    }
}

/// The members of a file, in its order.
fn members(file: &File) -> Vec<Member<'_>> {
    let items = file.items.iter().map(|item| match item {
        Item::Import(import) => Member::Import(import),
        Item::Param(param) => Member::Param(param),
        Item::Let(binding) => Member::Let(binding),
        Item::Block(block) => Member::Block(block),
    });
    file.version.iter().map(Member::Header).chain(items).collect()
}

/// The members of a block, in the order of the text.
fn parts_of(block: &Block) -> Vec<Member<'_>> {
    let entries = block.entries.iter().map(|entry| (entry.name.span.start, Member::Entry(entry)));
    let blocks = block.blocks.iter().map(|block| (block.span.start, Member::Block(block)));
    let mut members: Vec<(usize, Member<'_>)> = entries.chain(blocks).collect();
    members.sort_by_key(|(start, _)| *start);
    members.into_iter().map(|(_, member)| member).collect()
}

/// A word of a member, with the blanks in front of it.
#[derive(Debug, Clone, Copy)]
enum Word<'f> {
    /// Punctuation, or a word of the language.
    Sign(usize, &'static str),
    /// Copied from the text.
    Copy(usize, Span),
    Value(&'f Value),
    Record(&'f [Entry]),
}

/// A row of a body before it is written.
struct Line<'f> {
    start: usize,
    end: usize,
    sort: Sort,
    kind: Kind<'f>,
    /// Blanks in front of `=` or `{`, beyond the one, so that they stand below each other.
    pad: usize,
}

enum Kind<'f> {
    /// Members that fit on one row.
    Flat(String),
    /// A block that fits on one row: its head, and what is in braces.
    FlatBlock(String, String),
    Entry(&'f Entry),
    /// What takes several rows.
    Long(Member<'f>),
}

impl<'t> Printer<'t> {
    // What stands where in the text.

    fn text(&self, span: Span) -> &'t str {
        &self.scan.text[span.start..span.end]
    }

    /// The place of the next token at or behind a byte.
    fn token_at(&self, at: usize) -> Span {
        self.scan.span(self.scan.index(at))
    }

    /// The byte behind the last token in front of `at`.
    fn end_before(&self, at: usize) -> usize {
        match self.scan.index(at) {
            0 => 0,
            index => self.scan.span(index - 1).end.min(at),
        }
    }

    fn has_comment(&self, span: Span) -> bool {
        let next = self.scan.comments.partition_point(|comment| comment.start < span.start);
        self.scan.comments.get(next).is_some_and(|comment| comment.start < span.end)
    }

    fn has_line_end(&self, start: usize, end: usize) -> bool {
        self.scan.text[start..end].contains('\n')
    }

    /// Whether a blank line stands between two bytes with no token in between.
    fn has_blank_line(&self, start: usize, end: usize) -> bool {
        let first = self.scan.comments.partition_point(|comment| comment.start < start);
        let comments = self.scan.comments[first..].iter().take_while(|comment| comment.start < end);
        let mut from = start;
        for comment in comments {
            if self.is_apart(from, comment.start) {
                return true;
            }
            from = comment.end;
        }
        self.is_apart(from, end)
    }

    /// Whether a blank line stands between two bytes with no token and no comment in between.
    fn is_apart(&self, start: usize, end: usize) -> bool {
        self.scan.text[start..end].matches('\n').count() > 1
    }

    fn start(&self, member: Member<'_>) -> usize {
        match member {
            // The word `hift` stands in front of the version.
            Member::Header(version) => self.scan.span(self.scan.index(version.span.start) - 1).start,
            Member::Import(import) => import.span.start,
            Member::Param(param) => param.span.start,
            Member::Let(binding) => binding.span.start,
            Member::Entry(entry) => entry.name.span.start,
            Member::Block(block) => block.span.start,
        }
    }

    /// The words of a member; of a block, those in front of its brace.
    fn words<'f>(&self, member: Member<'f>, pad: usize) -> Vec<Word<'f>> {
        let mut words = Vec::new();
        match member {
            Member::Header(version) => words.extend([Word::Sign(0, "hift"), Word::Value(version)]),
            Member::Import(import) => {
                words.extend([Word::Sign(0, "import"), Word::Copy(1, import.path_span)]);
                if self.scan.token(self.scan.index(import.path_span.end)) == Token::Open('{') {
                    words.push(Word::Record(&import.entries));
                }
            }
            Member::Param(param) => {
                words.extend([Word::Sign(0, "param"), Word::Copy(1, param.name.span)]);
                for (i, choice) in param.types.iter().enumerate() {
                    words.push(if i == 0 { Word::Sign(0, ":") } else { Word::Sign(1, "|") });
                    words.push(Word::Value(choice));
                }
                if let Some(range) = &param.range {
                    words.push(Word::Sign(1, "in"));
                    words.extend(range.low.iter().map(Word::Value));
                    words.push(Word::Sign(1, ".."));
                    words.extend(range.high.iter().map(Word::Value));
                }
                if let Some(value) = &param.value {
                    words.extend([Word::Sign(1, "="), Word::Value(value)]);
                }
            }
            Member::Let(Let { name, value, .. }) => words.extend([
                Word::Sign(0, "let"),
                Word::Copy(1, name.span),
                Word::Sign(1, "="),
                Word::Value(value),
            ]),
            Member::Entry(Entry { name, value }) => {
                words.extend([Word::Copy(0, name.span), Word::Sign(1 + pad, "="), Word::Value(value)]);
            }
            Member::Block(block) => {
                words.push(Word::Copy(0, block.kind.span));
                words.extend(block.name.iter().map(|name| Word::Copy(1, name.span)));
                if let Some(base) = &block.base {
                    words.extend([Word::Sign(1, "="), Word::Copy(1, base.span)]);
                }
            }
        }
        words
    }

    // One row.

    /// A member on one row of `room` columns. Between `start` and `end`, where it stands, is no comment.
    fn flat_member(&self, member: Member<'_>, room: usize) -> Option<String> {
        match member {
            Member::Block(block) => {
                let (head, body) = self.flat_block(block, room)?;
                Some(format!("{head} {body}"))
            }
            Member::Header(_) | Member::Import(_) | Member::Param(_) | Member::Let(_) | Member::Entry(_) => {
                self.flat_words(member, room)
            }
        }
    }

    fn flat_words(&self, member: Member<'_>, room: usize) -> Option<String> {
        let mut flat = values::Flat::new(room);
        for word in self.words(member, 0) {
            match word {
                Word::Sign(gap, sign) => flat.push(gap, sign)?,
                Word::Copy(gap, span) => flat.push(gap, self.text(span))?,
                Word::Value(value) => {
                    flat.push(1, "")?;
                    self.flat_value(value, &mut flat)?;
                }
                Word::Record(entries) => {
                    flat.push(1, "")?;
                    self.flat_brackets("{", &values::of_entries(entries), "}", &mut flat)?;
                }
            }
        }
        Some(flat.text)
    }

    /// The head of a block and what is in braces, if a person wrote it on one line and it fits there.
    fn flat_block(&self, block: &Block, room: usize) -> Option<(String, String)> {
        let members = parts_of(block);
        let on_one_line = members.is_empty() || self.is_on_one_line(block);
        if self.has_comment(block.span) || !on_one_line {
            return None;
        }
        let head = self.flat_words(Member::Block(block), room)?;
        if members.is_empty() {
            return (width(&head) + 3 <= room).then(|| (head, "{}".to_owned()));
        }
        let mut room = room.checked_sub(width(&head) + " { ".len() + " }".len())?;
        let mut body = String::from("{");
        for (i, member) in members.into_iter().enumerate() {
            let gap = if i == 0 { " " } else { "  " };
            let text = self.flat_member(member, room)?;
            room = room.saturating_sub(width(&text) + 2);
            body.push_str(gap);
            body.push_str(&text);
        }
        body.push_str(" }");
        Some((head, body))
    }

    /// Whether no line ends between a block's braces.
    fn is_on_one_line(&self, block: &Block) -> bool {
        !self.has_line_end(self.brace(block), block.span.end)
    }

    /// Where a block's opening brace is.
    fn brace(&self, block: &Block) -> usize {
        let last = block.base.as_ref().or(block.name.as_ref()).unwrap_or(&block.kind);
        self.token_at(last.span.end).start
    }

    // A file or a block.

    /// Writes what stands between here and `close`, the end of the file or the brace that closes the block.
    fn body(&mut self, members: &[Member<'_>], close: usize, body: Body) {
        let (first_row, indent) = (self.page.n_rows(), self.page.indent);
        let lines = self.lines(members, close, body);
        let mut above: Option<&Line<'_>> = None;
        for line in &lines {
            let stands_apart = body == Body::File
                && above.is_some_and(|above| {
                    let together = above.is_one_row() && line.is_one_row() && above.sort == line.sort;
                    !together && !self.has_blank_line(above.end, line.start)
                });
            self.page.indent = indent;
            self.continued = false;
            if self.gap(line.start, first_row, stands_apart) {
                self.page.blank();
            }
            self.page.newline();
            match &line.kind {
                Kind::Flat(text) => {
                    self.page.word(0, text);
                    self.at = line.end;
                }
                Kind::FlatBlock(head, body) => {
                    self.page.word(0, head);
                    self.page.word(1 + line.pad, body);
                    self.at = line.end;
                }
                Kind::Entry(entry) => self.member(Member::Entry(entry), line.pad),
                Kind::Long(member) => self.member(*member, 0),
            }
            above = Some(line);
        }
        self.page.indent = indent;
        self.gap(close, first_row, false);
    }

    /// Which members share a row, and how `=` and `{` are aligned.
    fn lines<'f>(&self, members: &[Member<'f>], close: usize, body: Body) -> Vec<Line<'f>> {
        let room = WIDTH.saturating_sub(self.page.indent * INDENT);
        let starts: Vec<usize> = members.iter().map(|member| self.start(*member)).collect();
        let end = |i: usize| self.end_before(starts.get(i + 1).copied().unwrap_or(close));
        let mut lines: Vec<Line<'f>> = Vec::new();
        let mut from = 0;
        while from < members.len() {
            let is_joined = |i: usize| {
                body == Body::Block && i < members.len() && !self.has_line_end(end(i - 1), starts[i])
            };
            let to = (from + 1..).find(|i| !is_joined(*i)).unwrap_or(members.len());
            match self.joined(&members[from..to], Span::new(starts[from], end(to - 1)), room) {
                Some(line) => lines.push(line),
                None => {
                    for i in from..to {
                        lines.push(self.line(members[i], Span::new(starts[i], end(i)), room));
                    }
                }
            }
            from = to;
        }
        self.align(&mut lines, room);
        lines
    }

    /// Several members on one row, if they fit.
    fn joined<'f>(&self, members: &[Member<'f>], span: Span, room: usize) -> Option<Line<'f>> {
        let [first, _, ..] = members else { return None };
        if self.has_comment(span) {
            return None;
        }
        let mut row = String::new();
        for (i, member) in members.iter().enumerate() {
            row.push_str(if i == 0 { "" } else { "  " });
            row.push_str(&self.flat_member(*member, room.checked_sub(width(&row))?)?);
        }
        Some(Line { start: span.start, end: span.end, sort: first.sort(), kind: Kind::Flat(row), pad: 0 })
    }

    /// A member that shares its row with none.
    fn line<'f>(&self, member: Member<'f>, span: Span, room: usize) -> Line<'f> {
        let kind = match member {
            Member::Entry(entry) => Kind::Entry(entry),
            Member::Block(block) => match self.flat_block(block, room) {
                Some((head, body)) => Kind::FlatBlock(head, body),
                None => Kind::Long(member),
            },
            Member::Header(_) | Member::Import(_) | Member::Param(_) | Member::Let(_) => {
                let flat = if self.has_comment(span) { None } else { self.flat_words(member, room) };
                flat.map_or(Kind::Long(member), Kind::Flat)
            }
        };
        Line { start: span.start, end: span.end, sort: member.sort(), kind, pad: 0 }
    }

    /// Puts the `=` of keys that follow one another in one column, and the `{` of blocks on one row.
    fn align(&self, lines: &mut [Line<'_>], room: usize) {
        let names: Vec<Aligned> = lines
            .iter()
            .map(|line| match &line.kind {
                Kind::Entry(entry) => Aligned::new(line.start, line.end, Some(width(&entry.name.text))),
                Kind::Flat(_) | Kind::FlatBlock(..) | Kind::Long(_) => {
                    Aligned::new(line.start, line.end, None)
                }
            })
            .collect();
        let heads: Vec<Aligned> = lines
            .iter()
            .map(|line| match &line.kind {
                Kind::FlatBlock(head, _) => Aligned::new(line.start, line.end, Some(width(head))),
                Kind::Flat(_) | Kind::Entry(_) | Kind::Long(_) => Aligned::new(line.start, line.end, None),
            })
            .collect();
        for (first, pads) in self.columns(&names) {
            for (line, pad) in lines[first..].iter_mut().zip(pads) {
                line.pad = pad;
            }
        }
        for (first, pads) in self.columns(&heads) {
            let run = &mut lines[first..first + pads.len()];
            // No row becomes too long by that.
            let fits = run.iter().zip(&pads).all(|(line, pad)| match &line.kind {
                Kind::FlatBlock(head, body) => width(head) + 1 + pad + width(body) <= room,
                Kind::Flat(_) | Kind::Entry(_) | Kind::Long(_) => true,
            });
            if fits {
                run.iter_mut().zip(pads).for_each(|(line, pad)| line.pad = pad);
            }
        }
    }

    /// Runs of what can be aligned and follows one another without a blank line: the index of the first, and
    /// what each lacks to the widest.
    fn columns(&self, all: &[Aligned]) -> Vec<(usize, Vec<usize>)> {
        let mut runs: Vec<(usize, Vec<usize>)> = Vec::new();
        for (i, aligned) in all.iter().enumerate() {
            let Some(width) = aligned.width else { continue };
            let follows =
                i > 0 && all[i - 1].width.is_some() && !self.has_blank_line(all[i - 1].end, aligned.start);
            match runs.last_mut() {
                Some((_, widths)) if follows => widths.push(width),
                _ => runs.push((i, vec![width])),
            }
        }
        for (_, widths) in &mut runs {
            let widest = widths.iter().copied().max().unwrap_or(0);
            widths.iter_mut().for_each(|width| *width = widest - *width);
        }
        runs
    }

    fn member(&mut self, member: Member<'_>, pad: usize) {
        let (indent, continued) = (self.page.indent, self.continued);
        for word in self.words(member, pad) {
            match word {
                Word::Sign(gap, sign) => self.sign(gap, sign),
                Word::Copy(gap, span) => self.copy(gap, span),
                Word::Value(value) => self.value(1, value, 0),
                Word::Record(entries) => self.brackets(1, "{", &values::of_entries(entries), "}"),
            }
        }
        let Member::Block(block) = member else { return };
        let body = if self.is_on_one_line(block) { Body::LongLine } else { Body::Block };
        self.sign(1, "{");
        (self.page.indent, self.continued) = (indent + 1, false);
        self.body(&parts_of(block), block.span.end - 1, body);
        (self.page.indent, self.continued) = (indent, continued);
        self.page.newline();
        self.sign(0, "}");
    }

    // Words and comments.

    /// Writes the next token of the text.
    fn sign(&mut self, gap: usize, sign: &str) {
        let start = self.token_at(self.at).start;
        self.copy(gap, Span::new(start, start + sign.len()));
    }

    /// Writes a piece of the text, behind the comments in front of it.
    fn copy(&mut self, gap: usize, span: Span) {
        self.comments_within(span.start);
        self.page.word(gap, self.text(span));
        self.at = span.end;
    }

    /// Writes the comments in front of `until`, in the midst of what should be one line: it goes on below them,
    /// set in.
    fn comments_within(&mut self, until: usize) {
        if self.next_comment(until).is_none() {
            return;
        }
        self.set_in();
        while let Some(comment) = self.next_comment(until) {
            self.comment(comment);
        }
    }

    /// The rest of the line goes on in a row of its own.
    fn set_in(&mut self) {
        if !self.continued {
            self.page.indent += 1;
            self.continued = true;
        }
        self.page.newline();
    }

    /// Writes the comments in front of `until`, where the next line of a body or of brackets begins, with the
    /// blank lines between them; or with one in front of all that have lines of their own where they are to stand
    /// apart. Says whether a blank line follows. There is none in front of the body's first row.
    fn gap(&mut self, until: usize, first_row: usize, mut stands_apart: bool) -> bool {
        while let Some(comment) = self.next_comment(until) {
            // The comment may stand in front of a comma that is written already.
            let blank = stands_apart || self.is_apart(self.at.min(comment.start), comment.start);
            if blank && self.place(comment) == Place::Alone && self.page.n_rows() > first_row {
                self.page.blank();
                stands_apart = false;
            }
            self.comment(comment);
        }
        (stands_apart || self.is_apart(self.at, until)) && self.page.n_rows() > first_row
    }

    /// The next comment that is not yet written and stands in front of `until`.
    fn next_comment(&self, until: usize) -> Option<Span> {
        self.scan.comments.get(self.n_comments).copied().filter(|comment| comment.start < until)
    }

    fn comment(&mut self, comment: Span) {
        let text = self.text(comment).trim_end();
        match self.place(comment) {
            Place::Behind => self.page.comment_behind(text),
            Place::Below => self.page.comment_below(text),
            Place::Alone => self.page.comment_alone(text),
        }
        self.at = self.at.max(comment.end);
        self.n_comments += 1;
    }

    fn place(&self, comment: Span) -> Place {
        let (line, column) = self.line_of(comment.start);
        if !line.chars().all(|char| matches!(char, ' ' | '\t' | '\u{FEFF}')) {
            return if self.page.takes_comment() { Place::Behind } else { Place::Alone };
        }
        let above = self.n_comments.checked_sub(1).map(|i| self.scan.comments[i]);
        let goes_on = above.is_some_and(|above| {
            let between = &self.scan.text[above.end..comment.start];
            between.trim().is_empty()
                && between.matches('\n').count() == 1
                && self.line_of(above.start).1 == column
        });
        // A comment with `##` belongs to what stands below it.
        match goes_on && self.page.takes_more_comment() && !self.text(comment).starts_with("##") {
            true => Place::Below,
            false => Place::Alone,
        }
    }

    /// What stands on the line in front of a byte, and how many columns that are.
    fn line_of(&self, at: usize) -> (&'t str, usize) {
        let start = self.scan.text[..at].rfind('\n').map_or(0, |at| at + 1);
        let line = &self.scan.text[start..at];
        (line, width(line))
    }
}

/// Where a comment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On a line of its own.
    Alone,
    /// Behind something, on its line.
    Behind,
    /// Right below a comment that stands behind something, and in its column: they are one.
    Below,
}

impl Line<'_> {
    fn is_one_row(&self) -> bool {
        match self.kind {
            Kind::Flat(_) | Kind::FlatBlock(..) | Kind::Entry(_) => true,
            Kind::Long(_) => false,
        }
    }
}

/// What stands in a column with others, unless `width` is none.
struct Aligned {
    start: usize,
    end: usize,
    width: Option<usize>,
}

impl Aligned {
    fn new(start: usize, end: usize, width: Option<usize>) -> Self {
        Self { start, end, width }
    }
}
