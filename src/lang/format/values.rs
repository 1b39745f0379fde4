//! What stands behind `=`: on one row where it fits, or else with a row for each element or term.

use crate::problem::Span;

use super::super::scan::Token;
use super::super::syntax::{Argument, Entry, Factor, Name, Sign, Term, Value};
use super::page::width;
use super::{Aligned, Printer, WIDTH};

/// What stands in brackets, between commas.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element<'f> {
    name: Option<&'f Name>,
    value: &'f Value,
}

impl Element<'_> {
    fn start(&self) -> usize {
        self.name.map_or(self.value.span, |name| name.span).start
    }
}

pub(super) fn of_entries(entries: &[Entry]) -> Vec<Element<'_>> {
    entries.iter().map(|Entry { name, value }| Element { name: Some(name), value }).collect()
}

fn of_arguments(arguments: &[Argument]) -> Vec<Element<'_>> {
    arguments.iter().map(|Argument { name, value }| Element { name: name.as_ref(), value }).collect()
}

fn of_values(values: &[Value]) -> Vec<Element<'_>> {
    values.iter().map(|value| Element { name: None, value }).collect()
}

/// The operators and operands of a calculation; the first operator is not written.
fn operands(term: &Term) -> Vec<(&'static str, &Value)> {
    match term {
        Term::Sum(terms) => {
            let sign = |sign: &Sign| match sign {
                Sign::Plus => "+",
                Sign::Minus => "-",
            };
            terms.iter().map(|(of, term)| (sign(of), term)).collect()
        }
        Term::Product(factors) => {
            let sign = |factor: &Factor| match factor {
                Factor::Times => "*",
                Factor::Over => "/",
            };
            factors.iter().map(|(of, factor)| (sign(of), factor)).collect()
        }
        Term::Number(_)
        | Term::Amount(..)
        | Term::Text(_)
        | Term::Mixed(_)
        | Term::Boolean(_)
        | Term::Word(_)
        | Term::Call(..)
        | Term::List(_)
        | Term::Record(_)
        | Term::Negative(_) => Vec::new(),
    }
}

/// A row in the making, with the room that is left on it.
pub(super) struct Flat {
    pub text: String,
    room: usize,
}

impl Flat {
    pub fn new(room: usize) -> Self {
        Self { text: String::new(), room }
    }

    /// Writes a word behind `gap` blanks; none, if it does not fit.
    pub fn push(&mut self, gap: usize, word: &str) -> Option<()> {
        self.room = self.room.checked_sub(gap + width(word))?;
        self.text.extend(std::iter::repeat_n(' ', gap));
        self.text.push_str(word);
        Some(())
    }
}

impl Printer<'_> {
    /// A value without the parentheses around it, and how many of those there are.
    fn inner(&self, value: &Value) -> (Span, usize) {
        // A calculation may begin with a parenthesis of its first operand.
        let start = operands(&value.term).first().map(|(_, operand)| operand.span.start);
        let first = self.scan.index(value.span.start);
        let is_open = |index: usize| self.scan.token(index) == Token::Open('(');
        let depth = match start {
            Some(start) => self.scan.index(start) - first,
            None => (first..).take_while(|index| is_open(*index)).count(),
        };
        let mut end = self.end_before(value.span.end);
        for _ in 0..depth {
            end = self.end_before(end - 1);
        }
        (Span::new(self.scan.span(first + depth).start, end), depth)
    }

    // On one row.

    /// A value on one row of `room` columns: not where a comment is in it, or a person opened its brackets.
    fn flat(&self, value: &Value, span: Span, room: usize) -> Option<String> {
        if self.has_comment(span) {
            return None;
        }
        let mut flat = Flat::new(room);
        self.flat_value(value, &mut flat)?;
        Some(flat.text)
    }

    pub(super) fn flat_value(&self, value: &Value, flat: &mut Flat) -> Option<()> {
        let (_, depth) = self.inner(value);
        if depth > 0 {
            flat.push(0, "(")?;
        }
        self.flat_term(value, flat)?;
        if depth > 0 {
            flat.push(0, ")")?;
        }
        Some(())
    }

    /// A value on one row, without the parentheses around it.
    fn flat_term(&self, value: &Value, flat: &mut Flat) -> Option<()> {
        match &value.term {
            Term::Number(_) | Term::Text(_) | Term::Mixed(_) | Term::Boolean(_) | Term::Word(_) => {
                flat.push(0, self.text(self.inner(value).0))
            }
            Term::Amount(_, unit) => {
                let start = self.inner(value).0.start;
                flat.push(0, self.text(Span::new(start, unit.span.start)).trim_end())?;
                flat.push(1, &unit.text)
            }
            Term::Call(name, arguments) => {
                flat.push(0, &name.text)?;
                self.flat_brackets("(", &of_arguments(arguments), ")", flat)
            }
            Term::List(values) => self.flat_brackets("[", &of_values(values), "]", flat),
            Term::Record(entries) => self.flat_brackets("{", &of_entries(entries), "}", flat),
            Term::Sum(_) | Term::Product(_) => {
                for (i, (sign, operand)) in operands(&value.term).into_iter().enumerate() {
                    if i > 0 {
                        flat.push(1, sign)?;
                        flat.push(1, "")?;
                    }
                    self.flat_value(operand, flat)?;
                }
                Some(())
            }
            Term::Negative(value) => {
                flat.push(0, "-")?;
                self.flat_value(value, flat)
            }
        }
    }

    pub(super) fn flat_brackets(
        &self,
        open: &str,
        elements: &[Element<'_>],
        close: &str,
        flat: &mut Flat,
    ) -> Option<()> {
        if self.are_open(elements) && !(open == "(" && is_embrace(elements)) {
            return None;
        }
        let gap = usize::from(open == "{" && !elements.is_empty());
        flat.push(0, open)?;
        for (i, element) in elements.iter().enumerate() {
            match i {
                0 => flat.push(gap, "")?,
                _ => flat.push(0, ", ")?,
            }
            if let Some(name) = element.name {
                flat.push(0, &name.text)?;
                flat.push(0, " = ")?;
            }
            self.flat_value(element.value, flat)?;
        }
        flat.push(gap, close)
    }

    /// Whether a person gave the first element in brackets a line of its own.
    fn are_open(&self, elements: &[Element<'_>]) -> bool {
        elements.first().is_some_and(|first| {
            let start = first.start();
            self.has_line_end(self.end_before(start), start)
        })
    }

    // On several rows.

    /// Writes a value, where `tail` columns are needed behind it.
    pub(super) fn value(&mut self, gap: usize, value: &Value, tail: usize) {
        self.comments_within(value.span.start);
        let (inner, depth) = self.inner(value);
        if depth == 0 {
            self.term(gap, value, inner, tail);
            return;
        }
        let span = Span::new(value.span.start, self.end_before(value.span.end));
        let room = WIDTH.saturating_sub(self.page.column(gap) + tail);
        if let Some(text) = self.flat(value, span, room) {
            self.page.word(gap, &text);
            self.at = span.end;
            return;
        }
        // One pair of parentheses says as much as several, unless a comment stands between two.
        let pairs = if self.has_comment(span) { depth } else { 1 };
        self.sign(gap, "(");
        (1..pairs).for_each(|_| self.sign(0, "("));
        self.at = self.end_before(inner.start);
        self.term(0, value, inner, tail + pairs);
        (0..pairs).for_each(|_| self.sign(0, ")"));
        self.at = span.end;
    }

    /// Writes a value without the parentheses around it; `inner` is where it stands.
    fn term(&mut self, gap: usize, value: &Value, inner: Span, tail: usize) {
        self.comments_within(inner.start);
        let mut flat = Flat::new(WIDTH.saturating_sub(self.page.column(gap) + tail));
        if !self.has_comment(inner) && self.flat_term(value, &mut flat).is_some() {
            self.page.word(gap, &flat.text);
            self.at = inner.end;
            return;
        }
        match &value.term {
            Term::Number(_)
            | Term::Amount(..)
            | Term::Text(_)
            | Term::Mixed(_)
            | Term::Boolean(_)
            | Term::Word(_) => {
                // Too long, and nothing in it can be broken.
                let mut flat = Flat::new(usize::MAX);
                self.flat_term(value, &mut flat);
                self.page.word(gap, &flat.text);
                self.at = inner.end;
            }
            Term::Call(name, arguments) => {
                self.copy(gap, name.span);
                let elements = of_arguments(arguments);
                match elements.as_slice() {
                    [only] if is_embrace(&elements) && self.is_bare(only.value, inner.end) => {
                        self.sign(0, "(");
                        self.value(0, only.value, tail + 1);
                        self.step_over_comma();
                        self.sign(0, ")");
                    }
                    _ => self.brackets(0, "(", &elements, ")"),
                }
            }
            Term::List(values) => self.brackets(gap, "[", &of_values(values), "]"),
            Term::Record(entries) => self.brackets(gap, "{", &of_entries(entries), "}"),
            Term::Sum(_) | Term::Product(_) => {
                let operands = operands(&value.term);
                let last = operands.len() - 1;
                for (i, (sign, operand)) in operands.into_iter().enumerate() {
                    if i > 0 {
                        self.comments_within(self.token_at(self.at).start);
                        self.set_in();
                        self.sign(0, sign);
                    }
                    let gap = if i > 0 { 1 } else { gap };
                    self.value(gap, operand, if i == last { tail } else { 0 });
                }
            }
            Term::Negative(value) => {
                self.sign(gap, "-");
                self.value(0, value, tail);
            }
        }
    }

    /// Writes brackets with a row for each element.
    pub(super) fn brackets(&mut self, gap: usize, open: &str, elements: &[Element<'_>], close: &str) {
        self.sign(gap, open);
        let outer = (self.page.indent, self.continued);
        let first_row = self.page.n_rows();
        for (element, pad) in elements.iter().zip(self.pads(elements)) {
            (self.page.indent, self.continued) = (outer.0 + 1, false);
            if self.gap(element.start(), first_row, false) {
                self.page.blank();
            }
            self.page.newline();
            if let Some(name) = element.name {
                self.copy(0, name.span);
                self.sign(1 + pad, "=");
            }
            self.value(usize::from(element.name.is_some()), element.value, 1);
            self.page.word(0, ",");
            self.step_over_comma();
        }
        (self.page.indent, self.continued) = (outer.0 + 1, false);
        self.gap(self.token_at(self.at).start, first_row, false);
        (self.page.indent, self.continued) = outer;
        self.page.newline();
        self.sign(0, close);
    }

    /// Blanks in front of each `=`, beyond the one, so that they stand below each other.
    fn pads(&self, elements: &[Element<'_>]) -> Vec<usize> {
        let columns: Vec<Aligned> = elements
            .iter()
            .enumerate()
            .map(|(i, element)| {
                // Behind the comma; nothing depends on the end of the last one.
                let next = elements.get(i + 1).map_or(element.value.span.end, Element::start);
                let width = element.name.map(|name| width(&name.text));
                Aligned::new(element.start(), self.end_before(next), width)
            })
            .collect();
        let mut pads = vec![0; elements.len()];
        for (first, run) in self.columns(&columns) {
            pads[first..first + run.len()].copy_from_slice(&run);
        }
        pads
    }

    /// The comma behind an element is written already, or is not needed.
    fn step_over_comma(&mut self) {
        let index = self.scan.index(self.at);
        if self.scan.token(index) == Token::Comma {
            self.at = self.scan.span(index).end;
        }
    }

    /// Whether no comment stands around the only argument of a call that ends at `end`.
    fn is_bare(&self, value: &Value, end: usize) -> bool {
        let before = self.end_before(value.span.start);
        let behind = self.end_before(value.span.end);
        !self.has_comment(Span::new(before, value.span.start)) && !self.has_comment(Span::new(behind, end))
    }
}

/// Whether a call has nothing but a list or a record, whose brackets can open together with its own.
fn is_embrace(elements: &[Element<'_>]) -> bool {
    matches!(elements, [Element { name: None, value }] if matches!(value.term, Term::List(_) | Term::Record(_)))
}
