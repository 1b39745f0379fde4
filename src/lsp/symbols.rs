//! Where every name is defined and used: blocks, params and lets, across a file and its imports.

use std::collections::{HashMap, HashSet};

use crate::lang::Loaded;
use crate::lang::schema::{self, Form, Kind, PROFILE};
use crate::lang::syntax::{Block, Entry, Item, Name, Piece, Term, Value};
use crate::problem::Span;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Symbol {
    /// Kind and name.
    Block(&'static str, String),
    Profile(String),
    /// A param or let.
    Binding(String),
}

impl Symbol {
    pub fn name(&self) -> &str {
        match self {
            Symbol::Block(_, name) | Symbol::Profile(name) | Symbol::Binding(name) => name,
        }
    }
}

/// A name at a place.
#[derive(Debug, Clone)]
pub struct Occurrence {
    pub symbol: Symbol,
    pub span: Span,
    pub defines: bool,
    /// What may stand there, where it is a value; none: anything.
    pub forms: Option<&'static [Form]>,
}

impl Occurrence {
    /// Whether a place is in it or right behind it.
    pub fn holds(&self, at: usize) -> bool {
        self.span.start <= at && at <= self.span.end
    }
}

/// Every name of a file and its imports.
#[derive(Debug, Default)]
pub struct Symbols {
    pub all: Vec<Occurrence>,
}

impl Symbols {
    pub fn new(loaded: &Loaded) -> Self {
        let file = &loaded.file;
        let mut walk = Walk {
            blocks: HashSet::new(),
            bindings: HashMap::new(),
            followed: HashSet::new(),
            found: Symbols::default(),
        };
        for item in &file.items {
            match item {
                Item::Param(param) => {
                    walk.bindings.entry(&param.name.text).or_insert(param.value.as_ref());
                }
                Item::Let(binding) => {
                    walk.bindings.entry(&binding.name.text).or_insert(Some(&binding.value));
                }
                Item::Block(block) => {
                    if let (Some(kind), Some(name)) = (schema::kind(&block.kind.text), &block.name) {
                        walk.blocks.insert((kind.name, name.text.as_str()));
                    }
                }
                Item::Import(_) => {}
            }
        }
        for item in &file.items {
            match item {
                Item::Param(param) => {
                    walk.put(Symbol::Binding(param.name.text.clone()), param.name.span, true, None);
                    if let Some(value) = &param.value {
                        walk.value(value, None);
                    }
                }
                Item::Let(binding) => {
                    walk.put(Symbol::Binding(binding.name.text.clone()), binding.name.span, true, None);
                    walk.value(&binding.value, None);
                }
                Item::Block(block) if block.kind.text == PROFILE => walk.profile(block),
                Item::Block(block) => walk.block(block, true),
                Item::Import(_) => {}
            }
        }
        for given in &loaded.given {
            walk.binding(&given.entry.name, None);
            walk.value(&given.entry.value, None);
        }
        let mut found = walk.found;
        // What a definition's value names is found again with what its uses ask for.
        found.all.sort_by(|a, b| {
            let forms = |of: &Occurrence| of.forms.is_none();
            (a.span, &a.symbol, forms(a)).cmp(&(b.span, &b.symbol, forms(b)))
        });
        found.all.dedup_by(|a, b| a.span == b.span && a.symbol == b.symbol);
        found
    }

    /// The name that a place is in, or right behind.
    pub fn at(&self, at: usize) -> Option<&Occurrence> {
        let inside = |of: &&Occurrence| of.span.start <= at && at < of.span.end;
        self.all.iter().find(inside).or_else(|| self.all.iter().find(|of| of.span.end == at))
    }

    pub fn of<'s>(&'s self, symbol: &'s Symbol) -> impl Iterator<Item = &'s Occurrence> {
        self.all.iter().filter(move |of| of.symbol == *symbol)
    }

    pub fn definition(&self, symbol: &Symbol) -> Option<&Occurrence> {
        self.all.iter().find(|of| of.defines && of.symbol == *symbol)
    }
}

struct Walk<'f> {
    blocks: HashSet<(&'static str, &'f str)>,
    /// The params and lets with their values.
    bindings: HashMap<&'f str, Option<&'f Value>>,
    /// Names whose values have been looked at for what a key asks.
    followed: HashSet<(&'f str, *const Form)>,
    found: Symbols,
}

impl<'f> Walk<'f> {
    fn put(&mut self, symbol: Symbol, span: Span, defines: bool, forms: Option<&'static [Form]>) {
        self.found.all.push(Occurrence { symbol, span, defines, forms });
    }

    fn binding(&mut self, name: &Name, forms: Option<&'static [Form]>) {
        if self.bindings.contains_key(name.text.as_str()) {
            self.put(Symbol::Binding(name.text.clone()), name.span, false, forms);
        }
    }

    fn profile(&mut self, profile: &'f Block) {
        if let Some(name) = &profile.name {
            self.put(Symbol::Profile(name.text.clone()), name.span, true, None);
        }
        for entry in &profile.entries {
            self.binding(&entry.name, None);
            self.value(&entry.value, None);
        }
        for change in &profile.blocks {
            self.block(change, false);
        }
    }

    fn block(&mut self, block: &'f Block, defines: bool) {
        let Some(kind) = schema::kind(&block.kind.text) else { return };
        if let Some(name) = &block.name {
            self.put(Symbol::Block(kind.name, name.text.clone()), name.span, defines, None);
        }
        if let Some(base) = &block.base {
            self.put(Symbol::Block(kind.name, base.text.clone()), base.span, false, None);
        }
        self.entries(kind, &block.entries);
        for part in &block.blocks {
            if let Some(kind) = kind.parts.iter().find(|kind| kind.name == part.kind.text) {
                self.entries(kind, &part.entries);
            }
        }
    }

    fn entries(&mut self, kind: &'static Kind, entries: &'f [Entry]) {
        for entry in entries {
            let key = kind.keys.iter().find(|key| key.name == entry.name.text);
            self.value(&entry.value, key.map(|key| key.takes));
        }
    }

    /// The names in a value; `forms` is what may stand there, none where that is not known.
    fn value(&mut self, value: &'f Value, forms: Option<&'static [Form]>) {
        match &value.term {
            Term::Word(word) => self.word(word, value.span, forms),
            Term::Number(_) | Term::Amount(..) | Term::Text(_) | Term::Boolean(_) => {}
            Term::Mixed(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Text(_) => {}
                        Piece::Hole(value) => self.value(value, None),
                    }
                }
            }
            Term::Call(name, arguments) => {
                let function = forms.iter().flat_map(|forms| forms.iter()).find_map(|form| match form {
                    Form::Function(function) if function.name == name.text => Some(*function),
                    _ => None,
                });
                let by_position: Vec<_> = function.iter().flat_map(|function| function.arguments).collect();
                for (i, argument) in arguments.iter().enumerate() {
                    let key = match &argument.name {
                        Some(name) => by_position.iter().find(|key| key.name == name.text),
                        None => by_position.get(i),
                    };
                    self.value(&argument.value, key.map(|key| key.takes));
                }
            }
            Term::List(values) => {
                let inner = forms.and_then(|forms| {
                    forms.iter().find_map(|form| match form {
                        Form::List(inner, _) => Some(*inner),
                        _ => None,
                    })
                });
                values.iter().for_each(|value| self.value(value, inner));
            }
            Term::Record(entries) => {
                let inner = forms.and_then(|forms| {
                    forms.iter().find_map(|form| match form {
                        Form::Record(inner, _) => Some(*inner),
                        _ => None,
                    })
                });
                entries.iter().for_each(|entry| self.value(&entry.value, inner));
            }
            Term::Sum(terms) => terms.iter().for_each(|(_, value)| self.value(value, None)),
            Term::Product(factors) => factors.iter().for_each(|(_, value)| self.value(value, None)),
            Term::Negative(value) => self.value(value, None),
        }
    }

    /// A word of the language, the name of a block, or a param or let, in the order in which the checks ask.
    fn word(&mut self, word: &'f str, span: Span, forms: Option<&'static [Form]>) {
        for form in forms.unwrap_or_default() {
            match form {
                Form::Word(own, _) if *own == word => return,
                Form::Function(function) if function.name == word => return,
                Form::Block(kinds) => {
                    if let Some(kind) = kinds.iter().find(|kind| self.blocks.contains(&(**kind, word))) {
                        return self.put(Symbol::Block(kind, word.to_owned()), span, false, forms);
                    }
                }
                _ => {}
            }
        }
        let Some(value) = self.bindings.get(word).copied() else {
            // A name of a block that is not there, or not yet.
            if let Some(kinds) = forms.unwrap_or_default().iter().find_map(|form| match form {
                Form::Block(kinds) => Some(*kinds),
                _ => None,
            }) {
                self.put(Symbol::Block(kinds[0], word.to_owned()), span, false, forms);
            }
            return;
        };
        self.put(Symbol::Binding(word.to_owned()), span, false, forms);
        // The value answers the same key.
        if let (Some(value), Some(forms)) = (value, forms)
            && self.followed.insert((word, forms.as_ptr()))
        {
            self.value(value, Some(forms));
        }
    }
}
