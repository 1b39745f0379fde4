//! The syntax tree: what is written, before anyone asks what it means.
//!
//! Every node knows its place. Printing gives the tree in one plain layout, without comments.

use std::fmt;

use crate::problem::Span;

/// A whole file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct File {
    /// The language version of `hift 1`.
    pub version: Option<Value>,
    pub items: Vec<Item>,
    /// Something at the top level could not be read and is not in `items`.
    pub damaged: bool,
}

impl File {
    /// Whether anything in the file could not be read.
    pub fn is_damaged(&self) -> bool {
        self.damaged || self.blocks().any(Block::is_damaged)
    }

    /// The params, in the order of the file.
    pub fn params(&self) -> impl Iterator<Item = &Param> {
        self.items.iter().filter_map(|item| match item {
            Item::Param(param) => Some(param),
            Item::Block(_) => None,
        })
    }

    /// The blocks of the top level, in the order of the file.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.items.iter().filter_map(|item| match item {
            Item::Block(block) => Some(block),
            Item::Param(_) => None,
        })
    }
}

/// What stands at the top level.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    Param(Param),
    Block(Block),
}

/// `param NAME = value`
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    pub name: Name,
    pub value: Value,
}

/// `KIND NAME { ... }`, or `KIND { ... }` inside another block.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    pub kind: Name,
    pub name: Option<Name>,
    pub entries: Vec<Entry>,
    pub blocks: Vec<Block>,
    /// From the kind to the closing brace.
    pub span: Span,
    /// Something in it could not be read and is in neither list.
    pub damaged: bool,
}

impl Block {
    /// Whether it or a block in it is damaged.
    pub fn is_damaged(&self) -> bool {
        self.damaged || self.blocks.iter().any(Block::is_damaged)
    }

    /// The place of `KIND NAME`.
    pub fn head(&self) -> Span {
        match &self.name {
            Some(name) => self.kind.span.to(name.span),
            None => self.kind.span,
        }
    }
}

/// `name = value`
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub name: Name,
    pub value: Value,
}

/// A word and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Name {
    pub text: String,
    pub span: Span,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    pub term: Term,
    pub span: Span,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    /// `4`
    Number(Number),
    /// `24 GiB`
    Amount(Number, Name),
    /// `"..."`, escapes replaced.
    Text(String),
    /// `true` or `false`
    Boolean(bool),
    /// `none`
    Word(String),
    /// `cosine(peak = 2e-5)`
    Call(Name, Vec<Argument>),
    /// `[1, 2]`
    List(Vec<Value>),
    /// `{ a = 1, b = 2 }`
    Record(Vec<Entry>),
}

/// A number as it is written, without underscores; finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Number {
    pub text: String,
    pub value: f64,
}

/// An argument by position, or by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Argument {
    pub name: Option<Name>,
    pub value: Value,
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(version) = &self.version {
            writeln!(f, "hift {version}")?;
        }
        for item in &self.items {
            match item {
                Item::Param(param) => writeln!(f, "param {} = {}", param.name.text, param.value)?,
                Item::Block(block) => write_block(f, block, 0)?,
            }
        }
        Ok(())
    }
}

fn write_block(f: &mut fmt::Formatter<'_>, block: &Block, depth: usize) -> fmt::Result {
    let indent = "    ".repeat(depth);
    write!(f, "{indent}{} ", block.kind.text)?;
    if let Some(name) = &block.name {
        write!(f, "{} ", name.text)?;
    }
    writeln!(f, "{{")?;
    for entry in &block.entries {
        writeln!(f, "{indent}    {} = {}", entry.name.text, entry.value)?;
    }
    for inner in &block.blocks {
        write_block(f, inner, depth + 1)?;
    }
    writeln!(f, "{indent}}}")
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.term {
            Term::Number(number) => f.write_str(&number.text),
            Term::Amount(number, unit) => write!(f, "{} {}", number.text, unit.text),
            Term::Text(text) => write_text(f, text),
            Term::Boolean(value) => write!(f, "{value}"),
            Term::Word(word) => f.write_str(word),
            Term::Call(name, arguments) => {
                write!(f, "{}(", name.text)?;
                for (i, argument) in arguments.iter().enumerate() {
                    f.write_str(if i > 0 { ", " } else { "" })?;
                    if let Some(name) = &argument.name {
                        write!(f, "{} = ", name.text)?;
                    }
                    write!(f, "{}", argument.value)?;
                }
                f.write_str(")")
            }
            Term::List(values) => {
                f.write_str("[")?;
                for (i, value) in values.iter().enumerate() {
                    f.write_str(if i > 0 { ", " } else { "" })?;
                    write!(f, "{value}")?;
                }
                f.write_str("]")
            }
            Term::Record(entries) => {
                f.write_str("{")?;
                for (i, entry) in entries.iter().enumerate() {
                    f.write_str(if i > 0 { ", " } else { " " })?;
                    write!(f, "{} = {}", entry.name.text, entry.value)?;
                }
                f.write_str(" }")
            }
        }
    }
}

/// The text in quotes, as the language reads it back.
fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for char in text.chars() {
        match char {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            '\r' => f.write_str("\\r")?,
            char if char.is_control() => write!(f, "\\u{{{:x}}}", u32::from(char))?,
            char => write!(f, "{char}")?,
        }
    }
    f.write_str("\"")
}
