//! Problems as people read them: the place in the file, what is so there, and what to do.

use std::fmt;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

use crate::problem::{Problem, Problems, Span};

use super::parse::parse;
use super::resolve::applied as applied_param;

/// A pipeline file: what it is called in messages, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub text: String,
}

impl Source {
    /// A source of that name, mostly the file's path.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }
}

/// How problems are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// In columns.
    pub width: usize,
    pub colour: bool,
}

impl Default for Look {
    fn default() -> Self {
        Self { width: 100, colour: false }
    }
}

/// Draws every problem with its places in the source, one below the other.
pub fn render(problems: &Problems, source: &Source, look: Look) -> String {
    let theme = if look.colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(look.width)
        .with_links(false)
        .with_context_lines(1);
    let code = NamedSource::new(&source.name, source.text.clone());
    let mut text = String::new();
    for (i, problem) in problems.0.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        let placed = Placed { problem: fitted(problem, source.text.len()), code: &code };
        // Writing into a string does not fail; where a place cannot be drawn, the words still stand.
        if handler.render_report(&mut text, &placed).is_err() {
            text.push_str(&format!("{}\n", problem.message));
        }
    }
    // A terminal does not show white space at the end of a line, and a golden file should not hold it.
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The problem with every place inside a text of that length.
fn fitted(problem: &Problem, length: usize) -> Problem {
    let mut problem = problem.clone();
    for label in &mut problem.labels {
        label.span = Span::new(label.span.start.min(length), label.span.end.min(length));
    }
    problem
}

/// A problem together with the text that its places are in.
#[derive(Debug)]
struct Placed<'p> {
    problem: Problem,
    code: &'p NamedSource<String>,
}

impl fmt::Display for Placed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for Placed<'_> {}

impl Diagnostic for Placed<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.code()
    }

    fn severity(&self) -> Option<miette::Severity> {
        Diagnostic::severity(&self.problem)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Diagnostic::help(&self.problem)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        // The first label is what the problem is about: its line stands in the heading.
        let labels = self.problem.labels.iter().enumerate().map(|(i, label)| {
            let text = Some(label.text.clone());
            match i {
                0 => LabeledSpan::new_primary_with_span(text, label.span),
                _ => LabeledSpan::new_with_span(text, label.span),
            }
        });
        (!self.problem.labels.is_empty()).then(|| Box::new(labels) as Box<dyn Iterator<Item = _>>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.code)
    }
}

/// The text of a pipeline as it is run: the values of params replaced by those of `--set`, and nothing else
/// changed. A set that names no param or has no value changes nothing; `resolve` complains about it.
pub fn applied(source: &Source, sets: &[(String, String)]) -> String {
    let (file, _) = parse(&source.text);
    let mut changes: Vec<(Span, String)> = Vec::new();
    for (name, text) in sets {
        if let Ok((param, value)) = applied_param(&file, name, text) {
            // The last one of a name counts.
            changes.retain(|(span, _)| *span != param.value.span);
            changes.push((param.value.span, value.to_string()));
        }
    }
    changes.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
    let mut text = source.text.clone();
    for (span, value) in changes {
        text.replace_range(span.start..span.end, &value);
    }
    text
}
