//! Problems as people read them: the place in the file, what is so there, and what to do.

use std::fmt;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents,
    NamedSource, Severity, SourceCode, SourceSpan, SpanContents,
};

use textwrap::{WordSeparator, WordSplitter};

use crate::problem::{Problem, Problems};

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
        // A path and a command are copied whole.
        .with_break_words(false)
        .with_word_separator(WordSeparator::AsciiSpace)
        .with_word_splitter(WordSplitter::NoHyphenation)
        .with_links(false)
        .with_context_lines(1);
    let codes: Vec<NamedSource<Code>> =
        sources.iter().map(|source| NamedSource::new(&source.name, Code(source.text.clone()))).collect();
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

/// A text of which no more is drawn than a person reads.
struct Code(String);

/// Bytes of the text that are drawn for places which belong together.
const MAX_DRAWN: usize = 2000;

impl SourceCode for Code {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let contents = self.0.read_span(span, before, after)?;
        if contents.data().len() <= MAX_DRAWN {
            return Ok(contents);
        }
        // Of long lines, what stands around the place.
        let first = contents.span().offset();
        let last = first + contents.data().len();
        let boundary = |at: usize| (0..=at).rev().find(|at| self.0.is_char_boundary(*at)).unwrap_or(0);
        let line = self.0[..span.offset()].rfind('\n').map_or(0, |at| at + 1);
        let start = boundary(span.offset().saturating_sub(MAX_DRAWN / 20).max(first).max(line));
        let end = boundary((span.offset() + span.len().min(MAX_DRAWN / 2) + MAX_DRAWN / 20).min(last));
        let lines_before = self.0[first..start].matches('\n').count();
        let piece = SourceSpan::new(start.into(), end - start);
        let (line, column) = (contents.line() + lines_before, start - line);
        Ok(Box::new(MietteSpanContents::new(&self.0.as_bytes()[start..end], piece, line, column, 1)))
    }
}

/// A text as a person reads it, cut where it has lost every measure.
fn brief(text: &str) -> String {
    if text.len() <= MAX_DRAWN {
        return text.to_owned();
    }
    let (head, tail) = (text.chars().take(200), text.chars().rev().take(200));
    let tail: Vec<char> = tail.collect();
    format!("{}...{}", head.collect::<String>(), tail.into_iter().rev().collect::<String>())
}

/// A problem together with the texts that its places are in.
struct Placed<'p> {
    problem: Problem,
    /// Those in the file of the first one, as places in it.
    labels: Vec<LabeledSpan>,
    code: Option<&'p NamedSource<Code>>,
    /// The places in other files.
    elsewhere: Vec<Placed<'p>>,
}

impl<'p> Placed<'p> {
    fn new(problem: &Problem, sources: &Sources, codes: &'p [NamedSource<Code>]) -> Self {
        let home = problem.labels.first().map_or(0, |label| sources.locate(label.span).0);
        let mut placed = Self {
            problem: Problem {
                message: brief(&problem.message),
                help: problem.help.as_deref().map(brief),
                ..problem.clone()
            },
            labels: Vec::new(),
            code: codes.get(home),
            elsewhere: Vec::new(),
        };
        for (i, label) in problem.labels.iter().enumerate() {
            let (file, span) = sources.locate(label.span);
            let text = Some(brief(&label.text));
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
