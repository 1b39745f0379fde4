//! What the checks turn syntax into: values that have passed the schema, by name, and blocks by kind and name.

use std::collections::{HashMap, HashSet};

use crate::lang::pipeline::Setting;
use crate::lang::schema::{Kind, Unit};
use crate::lang::syntax::Block;
use crate::problem::Span;

/// A value that has passed the schema.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Datum {
    Number(f64),
    /// In the unit's base: bytes, percent, minutes.
    Amount(f64, Unit),
    Boolean(bool),
    Text(String),
    Word(&'static str),
    Call(&'static str, Fields),
    /// Kind and name of a block that exists.
    Block(&'static str, String),
    List(Vec<Setting<Datum>>),
    Record(Vec<(Setting<String>, Setting<Datum>)>),
}

/// The values of a block or of a function's arguments, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Fields(Vec<(&'static str, Setting<Datum>)>);

impl Fields {
    pub fn put(&mut self, name: &'static str, value: Setting<Datum>) {
        self.0.push((name, value));
    }

    pub fn get(&self, name: &str) -> Option<&Setting<Datum>> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = &(&'static str, Setting<Datum>)> {
        self.0.iter()
    }

    /// The value as `read` makes it; none where it is missing or of another form.
    pub fn read<T>(&self, name: &str, read: impl FnOnce(&Datum) -> Option<T>) -> Option<Setting<T>> {
        let setting = self.get(name)?;
        Some(Setting { value: read(&setting.value)?, origin: setting.origin })
    }

    /// A whole number, with or without a unit.
    pub fn whole(&self, name: &str) -> Option<Setting<u64>> {
        self.read(name, Datum::whole)
    }

    pub fn real(&self, name: &str) -> Option<Setting<f64>> {
        self.read(name, Datum::real)
    }

    pub fn text(&self, name: &str) -> Option<Setting<String>> {
        self.read(name, Datum::text)
    }

    pub fn boolean(&self, name: &str) -> Option<Setting<bool>> {
        self.read(name, |datum| match datum {
            Datum::Boolean(value) => Some(*value),
            _ => None,
        })
    }
}

impl Datum {
    pub fn whole(&self) -> Option<u64> {
        self.real().map(|value| value as u64)
    }

    pub fn real(&self) -> Option<f64> {
        match self {
            Datum::Number(value) | Datum::Amount(value, _) => Some(*value),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<String> {
        match self {
            Datum::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    pub fn word(&self) -> Option<&'static str> {
        match self {
            Datum::Word(word) => Some(word),
            _ => None,
        }
    }

    /// Kinds and names of the blocks that it names, however deep.
    pub fn blocks<'d>(&'d self, found: &mut HashSet<(&'static str, &'d str)>) {
        match self {
            Datum::Block(kind, name) => drop(found.insert((kind, name.as_str()))),
            Datum::List(values) => values.iter().for_each(|value| value.value.blocks(found)),
            Datum::Call(_, of) => of.iter().for_each(|(_, value)| value.value.blocks(found)),
            Datum::Record(values) => values.iter().for_each(|(_, value)| value.value.blocks(found)),
            Datum::Number(_) | Datum::Amount(..) | Datum::Boolean(_) | Datum::Text(_) | Datum::Word(_) => {}
        }
    }

    /// The texts of a list.
    pub fn texts(&self) -> Option<Vec<Setting<String>>> {
        match self {
            Datum::List(values) => values
                .iter()
                .map(|value| Some(Setting { value: value.value.text()?, origin: value.origin }))
                .collect(),
            _ => None,
        }
    }
}

/// A block that has been through the checks.
pub(super) struct Checked<'f> {
    pub kind: &'static Kind,
    pub block: &'f Block,
    pub name: String,
    pub fields: Fields,
    pub parts: Vec<Checked<'f>>,
    /// How much a copy of it takes, in values.
    pub weight: usize,
}

impl Checked<'_> {
    pub fn head(&self) -> Span {
        self.block.head()
    }

    /// `train sft`
    pub fn title(&self) -> String {
        self.block.title()
    }
}

/// The named blocks of the top level.
pub(super) struct Index<'f> {
    pub blocks: Vec<(&'static Kind, &'f Block)>,
    pub by_name: HashMap<(&'static str, &'f str), &'f Block>,
    /// A block may exist that could not be read.
    pub damaged: bool,
    /// Kinds and names of definitions that may be incomplete, since others take them over and nothing else names them.
    pub partial: HashSet<(String, String)>,
}

impl<'f> Index<'f> {
    pub fn find(&self, kind: &str, name: &str) -> Option<&'f Block> {
        self.by_name.get(&(kind, name)).copied()
    }

    pub fn of(&self, kind: &str) -> impl Iterator<Item = &'f Block> {
        self.blocks.iter().filter(move |(own, _)| own.name == kind).map(|(_, block)| *block)
    }

    /// Whether a block may leave out what it needs.
    pub fn is_partial(&self, block: &Block) -> bool {
        let name = block.name.as_ref().map(|name| name.text.clone());
        name.is_some_and(|name| self.partial.contains(&(block.kind.text.clone(), name)))
    }

    pub fn names(&self, kind: &str) -> impl Iterator<Item = &'f str> {
        self.of(kind).filter_map(|block| block.name.as_ref()).map(|name| name.text.as_str())
    }
}
