//! The texts that problems point into. The file itself comes first, what it imports behind it: a place is a byte of
//! all texts, one behind the other, so that a span needs no name of a file.

use std::path::PathBuf;

use crate::problem::Span;

/// A pipeline file: what it is called in messages, and its text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub text: String,
    /// The folder it lies in, seen from that of the first file; relative paths in it start there.
    pub folder: PathBuf,
}

impl Source {
    /// A source of that name, mostly the file's path.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into(), folder: PathBuf::new() }
    }
}

/// A file and what it imports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    all: Vec<Source>,
    /// Where each text begins among all; a byte lies between two texts.
    begins: Vec<usize>,
}

impl Sources {
    /// Puts a text behind the others; the place at which it begins.
    pub fn push(&mut self, source: Source) -> usize {
        let begin = self.end();
        self.all.push(source);
        self.begins.push(begin);
        begin
    }

    /// The place at which the next text would begin.
    pub fn end(&self) -> usize {
        match (self.all.last(), self.begins.last()) {
            (Some(last), Some(begin)) => begin + last.text.len() + 1,
            _ => 0,
        }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The source that a place is in, by its number, and the place in its text alone.
    pub fn locate(&self, span: Span) -> (usize, Span) {
        let i = self.begins.partition_point(|begin| *begin <= span.start).saturating_sub(1);
        let (Some(begin), Some(source)) = (self.begins.get(i), self.all.get(i)) else {
            return (0, Span::default());
        };
        let within = |at: usize| at.saturating_sub(*begin).min(source.text.len());
        (i, Span::new(within(span.start), within(span.end)))
    }

    /// The place among all texts of a place in one of them.
    pub fn place(&self, i: usize, span: Span) -> Span {
        let begin = self.begins.get(i).copied().unwrap_or(0);
        Span::new(span.start + begin, span.end + begin)
    }

    pub fn get(&self, i: usize) -> Option<&Source> {
        self.all.get(i)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.all.iter()
    }

    /// The file itself.
    pub fn first(&self) -> Option<&Source> {
        self.all.first()
    }

    /// What is written at a place.
    pub fn text(&self, span: Span) -> &str {
        let (i, span) = self.locate(span);
        self.all.get(i).and_then(|source| source.text.get(span.start..span.end)).unwrap_or("")
    }

    /// The line of a place, from 1, and the file's name: `shared.hift:3`.
    pub fn line(&self, span: Span) -> String {
        let (i, span) = self.locate(span);
        let Some(source) = self.all.get(i) else { return String::new() };
        let line = source.text.get(..span.start).map_or(0, |text| text.matches('\n').count()) + 1;
        format!("{}:{line}", source.name)
    }
}

impl From<Source> for Sources {
    fn from(source: Source) -> Self {
        let mut sources = Self::default();
        sources.push(source);
        sources
    }
}
