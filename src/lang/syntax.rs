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
            Item::Import(_) | Item::Let(_) | Item::Block(_) => None,
        })
    }

    /// The blocks of the top level, in the order of the file, profiles among them.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.items.iter().filter_map(|item| match item {
            Item::Block(block) => Some(block),
            Item::Import(_) | Item::Param(_) | Item::Let(_) => None,
        })
    }

    pub fn imports(&self) -> impl Iterator<Item = &Import> {
        self.items.iter().filter_map(|item| match item {
            Item::Import(import) => Some(import),
            Item::Param(_) | Item::Let(_) | Item::Block(_) => None,
        })
    }
}

/// What stands at the top level.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    Import(Import),
    Param(Param),
    Let(Let),
    Block(Block),
}

/// `import "shared.hift" { peak = 1e-5 }`
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// Relative to the folder of the file that it stands in.
    pub path: String,
    pub path_span: Span,
    /// Values for params of the imported file.
    pub entries: Vec<Entry>,
    pub span: Span,
}

/// `param NAME: TYPES in RANGE = value`
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// The `##` comments above it.
    pub doc: String,
    pub name: Name,
    /// What its value may be, any one of these; anything where nothing is said.
    pub types: Vec<Value>,
    pub range: Option<Range>,
    pub value: Option<Value>,
    pub span: Span,
}

/// `LOW .. HIGH`, both included; either may be left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    pub low: Option<Value>,
    pub high: Option<Value>,
    pub span: Span,
}

/// `let NAME = value`
#[derive(Debug, Clone, PartialEq)]
pub struct Let {
    pub doc: String,
    pub name: Name,
    pub value: Value,
    pub span: Span,
}

/// `KIND NAME { ... }`, or `KIND { ... }` inside another block.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    pub doc: String,
    pub kind: Name,
    pub name: Option<Name>,
    /// The block that this one takes over and changes: `model big = base { ... }`.
    pub base: Option<Name>,
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

    /// `train sft`, or just `evaluate`.
    pub fn title(&self) -> String {
        match &self.name {
            Some(name) => format!("{} {}", self.kind.text, name.text),
            None => self.kind.text.clone(),
        }
    }

    pub fn is_called(&self, name: &str) -> bool {
        self.name.as_ref().is_some_and(|own| own.text == name)
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
    /// `"out/${name}"`
    Mixed(Vec<Piece>),
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
    /// `a + b - c`: two terms or more; the sign of the first is a plus.
    Sum(Vec<(Sign, Value)>),
    /// `a * b / c`: two factors or more; the first is multiplied.
    Product(Vec<(Factor, Value)>),
    /// `-a`
    Negative(Box<Value>),
}

/// A part of a text with holes.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    Text(String),
    /// `${value}`
    Hole(Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Plus,
    Minus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factor {
    Times,
    Over,
}

/// A number as it is written, without underscores; finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Number {
    pub text: String,
    pub value: f64,
}

impl Number {
    /// A number that was calculated.
    pub fn calculated(value: f64) -> Self {
        let (plain, power) = (format!("{value}"), format!("{value:e}"));
        // `3000` reads better than `3e3`.
        let is_count = value.fract() == 0.0 && value.abs() < 1e15;
        Self { text: if power.len() < plain.len() && !is_count { power } else { plain }, value }
    }
}

/// An argument by position, or by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Argument {
    pub name: Option<Name>,
    pub value: Value,
}

/// Moves every place in a tree: `to` says where a byte comes to stand.
pub(super) trait Shift {
    fn relocate(&mut self, to: &dyn Fn(usize) -> usize);

    /// As when the text comes to stand behind another one.
    fn shift(&mut self, by: usize) {
        self.relocate(&|at| at + by);
    }
}

impl<T: Shift> Shift for Vec<T> {
    fn relocate(&mut self, to: &dyn Fn(usize) -> usize) {
        self.iter_mut().for_each(|part| part.relocate(to));
    }
}

impl<T: Shift> Shift for Option<T> {
    fn relocate(&mut self, to: &dyn Fn(usize) -> usize) {
        self.iter_mut().for_each(|part| part.relocate(to));
    }
}

impl<T, U: Shift> Shift for (T, U) {
    fn relocate(&mut self, to: &dyn Fn(usize) -> usize) {
        self.1.relocate(to);
    }
}

impl Shift for Span {
    fn relocate(&mut self, to: &dyn Fn(usize) -> usize) {
        *self = Span::new(to(self.start), to(self.end));
    }
}

impl Shift for File {
    fn relocate(&mut self, to: &dyn Fn(usize) -> usize) {
        self.version.relocate(to);
        self.items.relocate(to);
    }
}

impl Shift for Item {
    fn relocate(&mut self, to: &dyn Fn(usize) -> usize) {
        match self {
            Item::Import(import) => {
                import.path_span.relocate(to);
                import.entries.relocate(to);
                import.span.relocate(to);
            }
            Item::Param(param) => {
                param.name.relocate(to);
                param.types.relocate(to);
                if let Some(range) = &mut param.range {
                    range.low.relocate(to);
                    range.high.relocate(to);
                    range.span.relocate(to);
                }
                param.value.relocate(to);
                param.span.relocate(to);
            }
            Item::Let(binding) => {
                binding.name.relocate(to);
                binding.value.relocate(to);
                binding.span.relocate(to);
            }
            Item::Block(block) => block.relocate(to),
        }
    }
}

impl Shift for Block {
    fn relocate(&mut self, to: &dyn Fn(usize) -> usize) {
        self.kind.relocate(to);
        self.name.relocate(to);
        self.base.relocate(to);
        self.entries.relocate(to);
        self.blocks.relocate(to);
        self.span.relocate(to);
    }
}

impl Shift for Entry {
    fn relocate(&mut self, to: &dyn Fn(usize) -> usize) {
        self.name.relocate(to);
        self.value.relocate(to);
    }
}

impl Shift for Name {
    fn relocate(&mut self, to: &dyn Fn(usize) -> usize) {
        self.span.relocate(to);
    }
}

impl Shift for Value {
    fn relocate(&mut self, to: &dyn Fn(usize) -> usize) {
        self.span.relocate(to);
        match &mut self.term {
            Term::Number(_) | Term::Text(_) | Term::Boolean(_) | Term::Word(_) => {}
            Term::Amount(_, unit) => unit.relocate(to),
            Term::Mixed(pieces) => pieces.relocate(to),
            Term::Call(name, arguments) => {
                name.relocate(to);
                arguments.relocate(to);
            }
            Term::List(values) => values.relocate(to),
            Term::Record(entries) => entries.relocate(to),
            Term::Sum(terms) => terms.relocate(to),
            Term::Product(factors) => factors.relocate(to),
            Term::Negative(value) => value.relocate(to),
        }
    }
}

impl Shift for Piece {
    fn relocate(&mut self, to: &dyn Fn(usize) -> usize) {
        match self {
            Piece::Text(_) => {}
            Piece::Hole(value) => value.relocate(to),
        }
    }
}

impl Shift for Argument {
    fn relocate(&mut self, to: &dyn Fn(usize) -> usize) {
        self.name.relocate(to);
        self.value.relocate(to);
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(version) = &self.version {
            writeln!(f, "hift {version}")?;
        }
        for item in &self.items {
            match item {
                Item::Import(import) => writeln!(f, "{import}")?,
                Item::Param(param) => {
                    write_doc(f, &param.doc)?;
                    writeln!(f, "{param}")?;
                }
                Item::Let(binding) => {
                    write_doc(f, &binding.doc)?;
                    writeln!(f, "let {} = {}", binding.name.text, binding.value)?;
                }
                Item::Block(block) => write_block(f, block, 0)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("import ")?;
        write_text(f, &self.path)?;
        if !self.entries.is_empty() {
            f.write_str(" ")?;
            write_record(f, &self.entries)?;
        }
        Ok(())
    }
}

impl fmt::Display for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "param {}", self.name.text)?;
        for (i, choice) in self.types.iter().enumerate() {
            write!(f, "{} {choice}", if i > 0 { " |" } else { ":" })?;
        }
        if let Some(range) = &self.range {
            f.write_str(" in")?;
            if let Some(low) = &range.low {
                write!(f, " {low}")?;
            }
            f.write_str(" ..")?;
            if let Some(high) = &range.high {
                write!(f, " {high}")?;
            }
        }
        match &self.value {
            Some(value) => write!(f, " = {value}"),
            None => Ok(()),
        }
    }
}

fn write_doc(f: &mut fmt::Formatter<'_>, doc: &str) -> fmt::Result {
    for line in doc.lines() {
        writeln!(f, "{}", format!("## {line}").trim_end())?;
    }
    Ok(())
}

fn write_block(f: &mut fmt::Formatter<'_>, block: &Block, depth: usize) -> fmt::Result {
    let indent = "    ".repeat(depth);
    if depth == 0 {
        write_doc(f, &block.doc)?;
    }
    write!(f, "{indent}{} ", block.kind.text)?;
    if let Some(name) = &block.name {
        write!(f, "{} ", name.text)?;
    }
    if let Some(base) = &block.base {
        write!(f, "= {} ", base.text)?;
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

impl Value {
    /// As it prints, cut off where that is long: for a sentence.
    pub fn brief(&self) -> String {
        /// Takes so many bytes.
        struct Brief(String);
        impl fmt::Write for Brief {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.push_str(text);
                if self.0.len() > 60 { Err(fmt::Error) } else { Ok(()) }
            }
        }
        let mut brief = Brief(String::new());
        match fmt::write(&mut brief, format_args!("{self}")) {
            Ok(()) => brief.0,
            Err(_) => format!("{}...", brief.0.chars().take(50).collect::<String>()),
        }
    }
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
            Term::Record(entries) => write_record(f, entries),
            Term::Mixed(pieces) => {
                f.write_str("\"")?;
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => write_escaped(f, text)?,
                        Piece::Hole(value) => write!(f, "${{{value}}}")?,
                    }
                }
                f.write_str("\"")
            }
            Term::Sum(terms) => {
                for (i, (sign, term)) in terms.iter().enumerate() {
                    f.write_str(match (i, sign) {
                        (0, _) => "",
                        (_, Sign::Plus) => " + ",
                        (_, Sign::Minus) => " - ",
                    })?;
                    write_operand(f, term, matches!(term.term, Term::Sum(_)))?;
                }
                Ok(())
            }
            Term::Product(factors) => {
                for (i, (factor, value)) in factors.iter().enumerate() {
                    f.write_str(match (i, factor) {
                        (0, _) => "",
                        (_, Factor::Times) => " * ",
                        (_, Factor::Over) => " / ",
                    })?;
                    write_operand(f, value, matches!(value.term, Term::Sum(_) | Term::Product(_)))?;
                }
                Ok(())
            }
            Term::Negative(value) => {
                f.write_str("-")?;
                let plain = matches!(value.term, Term::Word(_) | Term::Call(..));
                write_operand(f, value, !plain)
            }
        }
    }
}

/// A part of a calculation, in parentheses where it would be read otherwise without.
fn write_operand(f: &mut fmt::Formatter<'_>, value: &Value, grouped: bool) -> fmt::Result {
    if grouped { write!(f, "({value})") } else { write!(f, "{value}") }
}

fn write_record(f: &mut fmt::Formatter<'_>, entries: &[Entry]) -> fmt::Result {
    f.write_str("{")?;
    for (i, entry) in entries.iter().enumerate() {
        f.write_str(if i > 0 { ", " } else { " " })?;
        write!(f, "{} = {}", entry.name.text, entry.value)?;
    }
    f.write_str(" }")
}

/// The text in quotes, as the language reads it back.
fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    write_escaped(f, text)?;
    f.write_str("\"")
}

fn write_escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for (at, char) in text.char_indices() {
        match char {
            '$' if text[at + 1..].starts_with('{') => f.write_str("\\$")?,
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            '\r' => f.write_str("\\r")?,
            char if char.is_control() => write!(f, "\\u{{{:x}}}", u32::from(char))?,
            char => write!(f, "{char}")?,
        }
    }
    Ok(())
}
