//! Problems as people read them: the place in the file, what is so there, and what to do.

use std::fmt;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity, SourceCode,
};

use crate::problem::{Problem, Problems, Span};

use super::source::Sources;

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

/// Draws every problem with its places in the sources, one below the other.
pub fn render(problems: &Problems, sources: &Sources, look: Look) -> String {
    let theme = if look.colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(look.width)
        .with_links(false)
        .with_context_lines(1);
    let codes: Vec<NamedSource<String>> =
        sources.iter().map(|source| NamedSource::new(&source.name, source.text.clone())).collect();
    let mut text = String::new();
    for (i, problem) in problems.0.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        // Writing into a string does not fail; where a place cannot be drawn, the words still stand.
        if handler.render_report(&mut text, &Placed::new(problem, sources, &codes)).is_err() {
            text.push_str(&format!("{}\n", problem.message));
        }
    }
    // A terminal does not show white space at the end of a line, and a golden file should not hold it.
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The longest line that is drawn, in bytes: no terminal shows more, and drawing it takes long.
const MAX_LINE: usize = 4096;

/// Whether the lines of a place are short enough to be shown.
fn is_drawable(sources: &Sources, span: Span) -> bool {
    let (i, span) = sources.locate(span);
    let Some(text) = sources.get(i).map(|source| source.text.as_bytes()) else { return true };
    let is_line_end = |byte: &u8| *byte == b'\n';
    let before = text[..span.start].iter().rev().take(MAX_LINE).position(is_line_end);
    let behind = text[span.start..].iter().take(MAX_LINE).position(is_line_end);
    let short = before.unwrap_or(span.start) + behind.unwrap_or(text.len() - span.start);
    short < MAX_LINE && span.end - span.start < MAX_LINE
}

/// A problem together with the texts that its places are in.
struct Placed<'p> {
    problem: Problem,
    /// Those in the file of the first one, as places in it.
    labels: Vec<LabeledSpan>,
    code: Option<&'p NamedSource<String>>,
    /// The places in other files.
    elsewhere: Vec<Placed<'p>>,
}

impl<'p> Placed<'p> {
    fn new(problem: &Problem, sources: &Sources, codes: &'p [NamedSource<String>]) -> Self {
        let home = problem.labels.first().map_or(0, |label| sources.locate(label.span).0);
        if let Some(label) = problem.labels.iter().find(|label| !is_drawable(sources, label.span)) {
            let mut problem = problem.clone();
            problem.message = format!("{} ({})", problem.message, sources.line(label.span));
            problem.labels.clear();
            return Self { problem, labels: Vec::new(), code: None, elsewhere: Vec::new() };
        }
        let mut placed = Self {
            problem: problem.clone(),
            labels: Vec::new(),
            code: codes.get(home),
            elsewhere: Vec::new(),
        };
        for (i, label) in problem.labels.iter().enumerate() {
            let (file, span) = sources.locate(label.span);
            let text = Some(label.text.clone());
            // The first label is what the problem is about: its line stands in the heading.
            let drawn = match i {
                0 => LabeledSpan::new_primary_with_span(text, span),
                _ => LabeledSpan::new_with_span(text, span),
            };
            if file == home {
                placed.labels.push(drawn);
                continue;
            }
            let name = sources.get(file).map_or("", |source| source.name.as_str());
            let mut there = Problem::warning("", format!("{}, in {name}", label.text));
            there.labels.clear();
            placed.elsewhere.push(Self {
                problem: there,
                labels: vec![LabeledSpan::new_primary_with_span(None, span)],
                code: codes.get(file),
                elsewhere: Vec::new(),
            });
        }
        placed
    }
}

impl fmt::Debug for Placed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl fmt::Display for Placed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for Placed<'_> {}

impl Diagnostic for Placed<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.code().filter(|_| !self.problem.code.is_empty())
    }

    fn severity(&self) -> Option<Severity> {
        // What stands in another file is told beside the problem itself.
        if self.problem.code.is_empty() {
            Some(Severity::Advice)
        } else {
            Diagnostic::severity(&self.problem)
        }
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Diagnostic::help(&self.problem)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let labels = self.labels.iter().cloned();
        (!self.labels.is_empty()).then(|| Box::new(labels) as Box<dyn Iterator<Item = _>>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.code.map(|code| code as &dyn SourceCode)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        let elsewhere = self.elsewhere.iter().map(|placed| placed as &dyn Diagnostic);
        (!self.elsewhere.is_empty()).then(|| Box::new(elsewhere) as Box<dyn Iterator<Item = _>>)
    }
}
