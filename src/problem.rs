//! What can go wrong, said to a person: what is so, where, and what to do about it.
//!
//! A [`Problem`] carries everything a reader needs (fact, places in the pipeline file, a way out) and the
//! [`Fault`] that decides the exit code. The source text is attached once, at the edge (`lang::Source`,
//! `cli`), so rooms carry only spans. A pass that can find several mistakes returns [`Problems`].

use std::fmt;

use serde::Serialize;

/// A range of bytes in the pipeline file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The smallest span that holds both.
    pub fn to(self, other: Span) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

impl From<Span> for miette::SourceSpan {
    fn from(span: Span) -> Self {
        (span.start, span.end - span.start).into()
    }
}

/// The kinds of failure a shell or cron can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The run failed (a loss that is not a number, an operation that failed).
    Failed,
    /// The command line is wrong.
    Usage,
    /// The pipeline or its data is wrong.
    Pipeline,
    /// An input is missing or cannot be read.
    Missing,
    /// The device is not there.
    Device,
    /// An output cannot be written.
    Output,
    /// Try again: another run holds the lock, or interrupted after a checkpoint.
    Again,
    /// The plan does not fit the memory limit.
    Limit,
}

impl Fault {
    /// The exit code, as documented in the README.
    pub fn exit_code(self) -> u8 {
        match self {
            Fault::Failed => 1,
            Fault::Usage => 2,
            Fault::Pipeline => 65,
            Fault::Missing => 66,
            Fault::Device => 69,
            Fault::Output => 73,
            Fault::Again => 75,
            Fault::Limit => 78,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Error,
    Warning,
}

/// A place in the pipeline file and what to say there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Label {
    pub span: Span,
    pub text: String,
}

/// What to change in the file so that a problem is gone: the way out of its help, for a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Edit {
    pub span: Span,
    /// What is to stand there instead.
    pub text: String,
}

/// One mistake or failure, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub severity: Severity,
    pub fault: Fault,
    /// `hift::<room>::<what>`
    pub code: &'static str,
    /// The fact, in one sentence without a full stop.
    pub message: String,
    /// The first label is the place that the problem is about.
    pub labels: Vec<Label>,
    /// What to write or do instead.
    pub help: Option<String>,
    /// Changes that make it right, where that is mechanical; they do not overlap.
    pub fix: Vec<Edit>,
}

impl Problem {
    /// A mistake in the pipeline or its data (exit code 65).
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self::of(Fault::Pipeline, code, message)
    }

    pub fn of(fault: Fault, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            fault,
            code,
            message: message.into(),
            labels: Vec::new(),
            help: None,
            fix: Vec::new(),
        }
    }

    /// Legal, but surely unwanted.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::new(code, message) }
    }

    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// A label where there is a place to point at; settings that took their default have none.
    pub fn label_at(self, span: Option<Span>, text: impl Into<String>) -> Self {
        match span {
            Some(span) => self.label(span, text),
            None => self,
        }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// A change that makes it right without any doubt about what was meant.
    pub fn fix(mut self, span: Span, text: impl Into<String>) -> Self {
        self.fix.push(Edit { span, text: text.into() });
        self
    }

    /// Such a change, where there is one.
    pub fn fix_with(mut self, edits: impl IntoIterator<Item = Edit>) -> Self {
        self.fix.extend(edits);
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl Problem {
    /// Moves every place, as when the text comes to stand behind another one.
    pub fn shift(&mut self, by: usize) {
        self.relocate(&|at| at + by);
    }

    /// Moves every place: `to` says where a byte comes to stand.
    pub fn relocate(&mut self, to: &dyn Fn(usize) -> usize) {
        let spans = self.labels.iter_mut().map(|label| &mut label.span);
        for span in spans.chain(self.fix.iter_mut().map(|edit| &mut edit.span)) {
            *span = Span::new(to(span.start), to(span.end));
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl miette::Diagnostic for Problem {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        if self.labels.is_empty() {
            return None;
        }
        Some(Box::new(
            self.labels
                .iter()
                .map(|label| miette::LabeledSpan::new_with_span(Some(label.text.clone()), label.span)),
        ))
    }
}

/// Everything a pass found, errors and warnings, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    pub fn has_errors(&self) -> bool {
        self.0.iter().any(Problem::is_error)
    }

    pub fn n_errors(&self) -> usize {
        self.0.iter().filter(|problem| problem.is_error()).count()
    }

    /// The fault of the first error, which decides the exit code.
    pub fn fault(&self) -> Fault {
        self.0.iter().find(|p| p.is_error()).map_or(Fault::Failed, |p| p.fault)
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
