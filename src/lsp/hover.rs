//! What is to be said about a word: the manual's text, and what a name stands for.

use std::path::Path;

use lsp_types::{Contents, Hover, MarkupContent, MarkupKind, Position};

use crate::lang::load::normal;
use crate::lang::scan::{Scan, Token};
use crate::lang::schema::{self, Form, PROFILE};
use crate::lang::syntax::{Item, Term};
use crate::lang::{Scope, Source};
use crate::units::Bytes;

use super::manual;
use super::place::{Asked, Slot, function, place};
use super::symbols::{Occurrence, Symbol};
use super::workspace::Analysis;

/// What is to be said about the word at a position.
pub fn hover(analysis: &Analysis, source: usize, position: Position) -> Option<Hover> {
    let text = analysis.text(source);
    let scan = Scan::new(text);
    let at = analysis.byte(source, position);
    let place = place(&scan, at, true);
    let scope = Scope::new(&analysis.reading.loaded, &analysis.options);
    let word = text.get(place.word.start..place.word.end).unwrap_or("");
    let next = scan.token(scan.index(place.word.end.max(place.word.start + 1)));
    let global = analysis.place(source, position);
    let about = About { analysis, scope: &scope, word, next, source, global };
    // The names that people give come first: a block may be called like a word of the language.
    let (said, range) = match analysis.symbols.at(global) {
        Some(found) => (about.symbol(found), Some(analysis.range(found.span).1)),
        None => {
            let range = (!word.is_empty()).then(|| analysis.local(source, place.word));
            (about.slot(&scan, at, place.slot), range)
        }
    };
    let said = said?;
    let contents = Contents::MarkupContent(MarkupContent { kind: MarkupKind::Markdown, value: said });
    Some(Hover { contents, range })
}

struct About<'a> {
    analysis: &'a Analysis,
    scope: &'a Scope<'a>,
    word: &'a str,
    /// The token behind the word.
    next: Token,
    source: usize,
    /// The place among all sources.
    global: usize,
}

impl About<'_> {
    fn slot(&self, scan: &Scan, at: usize, slot: Slot) -> Option<String> {
        let behind = matches!(self.next, Token::Equals | Token::Open('{'));
        match slot {
            Slot::Item => self.item(),
            Slot::Key(outer, unit) => {
                if let Some(asked) = unit.filter(|_| !behind) {
                    return self.value(asked);
                }
                let kind = outer.kind?;
                if let Some(part) = kind.parts.iter().find(|part| part.name == self.word) {
                    return Some(manual::kind_doc(part));
                }
                let key = kind.keys.iter().find(|key| key.name == self.word)?;
                let mut text = manual::key_doc(key);
                let entry = self.analysis.entry_at(self.global);
                if let Some(entry) = entry.filter(|entry| entry.name.text == self.word) {
                    let named = match &entry.value.term {
                        Term::Word(word) => self.scope.value(word).cloned(),
                        _ => None,
                    };
                    if let Some(value) = named.or_else(|| self.scope.calculate(&entry.value)) {
                        text += &format!("\nHere: `{value}`\n");
                    }
                }
                Some(text)
            }
            Slot::Argument(function, _, asked) => {
                match function.arguments.iter().find(|key| key.name == self.word) {
                    Some(key) if self.next == Token::Equals => Some(manual::key_doc(key)),
                    _ => self.value(asked),
                }
            }
            Slot::Value(asked) => self.value(asked),
            Slot::Profiled(_) => schema::kind(self.word).map(manual::kind_doc),
            Slot::Import(start) => self.path(scan, start),
            Slot::Text(start, asked) => self.text(scan, start, at, asked),
            Slot::Free | Slot::BlockName(_) | Slot::Base(..) | Slot::ParamType => None,
            Slot::ProfiledName(_) | Slot::Given(_) => None,
        }
    }

    fn item(&self) -> Option<String> {
        if let Some(kind) = schema::kind(self.word) {
            return Some(manual::kind_doc(kind));
        }
        let (head, doc) = match self.word {
            "hift" => ("hift 1", "The version of the language; the first line of a file."),
            "param" => (
                "param NAME: TYPE in LOW .. HIGH = VALUE",
                "A value with a name, which `--set NAME=VALUE` replaces. Type and range may be left out. \
                 `##` comments above it say what it is for.",
            ),
            "let" => ("let NAME = VALUE", "A name for a value that nothing outside of the file replaces."),
            "import" => (
                "import \"shared.hift\" { NAME = VALUE }",
                "Takes over what another file defines; in braces, values for its params. The path starts from the \
                 folder of this file.",
            ),
            PROFILE => {
                ("profile NAME { ... }", "Other values for params and keys, which `--profile NAME` applies.")
            }
            _ => return None,
        };
        Some(format!("{}\n\n{doc}\n", manual::code(head)))
    }

    fn value(&self, asked: Asked) -> Option<String> {
        if asked.unit {
            return manual::unit_doc(self.word);
        }
        for form in asked.forms.unwrap_or(&[]) {
            match form {
                Form::Word(word, doc) if *word == self.word => {
                    return Some(manual::word_doc(word, doc, asked.key));
                }
                Form::Function(function) if function.name == self.word => {
                    return Some(manual::function_doc(function));
                }
                _ => {}
            }
        }
        if self.next == Token::Open('(') {
            if self.word == crate::lang::resolve::ENV {
                let doc = "The value of an environment variable, or the default where it is not set.";
                return Some(format!("{}\n\n{doc}\n", manual::code("env(\"NAME\", default)")));
            }
            if asked.forms.is_none() {
                return function(self.word).map(manual::function_doc);
            }
        }
        self.calculated()
    }

    /// What the entry at the place comes to.
    fn calculated(&self) -> Option<String> {
        let value = self.scope.calculate(&self.analysis.entry_at(self.global)?.value)?;
        Some(format!("Comes to `{value}`\n"))
    }

    fn text(&self, scan: &Scan, start: usize, at: usize, asked: Asked) -> Option<String> {
        let takes_path = asked.forms.is_some_and(|forms| forms.iter().any(|form| matches!(form, Form::Path)));
        let is_plain = !scan.text[start..at].contains("${");
        if takes_path && is_plain {
            return self.path(scan, start);
        }
        self.calculated()
    }

    /// A path in quotes: what lies there.
    fn path(&self, scan: &Scan, start: usize) -> Option<String> {
        let written = scan.word(scan.index(start)).trim_matches('"');
        let folder = self.analysis.paths.get(self.source)?.parent()?;
        let path = normal(&folder.join(written));
        let is = match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => "a folder".to_owned(),
            Ok(found) => format!("a file of {}", Bytes(found.len())),
            Err(_) => "not there".to_owned(),
        };
        Some(format!("`{}`: {is}\n", path.display()))
    }

    fn symbol(&self, found: &Occurrence) -> Option<String> {
        let loaded = &self.analysis.reading.loaded;
        let definition = self.analysis.symbols.definition(&found.symbol)?;
        let mut text = String::new();
        match &found.symbol {
            Symbol::Block(kind, name) => {
                let block = self.analysis.block(kind, name)?;
                let base = block.base.as_ref().map_or(String::new(), |base| format!(" = {}", base.text));
                text += &format!("{}\n", manual::code(&format!("{kind} {name}{base} {{ ... }}")));
                text += &paragraph(&block.doc);
                if let Some(base) = &block.base {
                    let of = Symbol::Block(kind, base.text.clone());
                    let place = self.analysis.symbols.definition(&of).map(|base| self.place(base));
                    let place = place.map_or(String::new(), |place| format!(", {place}"));
                    text += &format!("\nTakes over `{kind} {}`{place}, and changes it.\n", base.text);
                }
                if let Some(kind) = schema::kind(kind) {
                    text += &format!("\n{}\n", kind.doc);
                }
            }
            Symbol::Profile(name) => {
                text += &format!("{}\n", manual::code(&format!("profile {name} {{ ... }}")));
                text += &format!("\nApplied by `--profile {name}`.\n");
            }
            Symbol::Binding(name) => {
                let item = loaded.file.items.iter().find(|item| match item {
                    Item::Param(param) => param.name.text == *name,
                    Item::Let(binding) => binding.name.text == *name,
                    Item::Import(_) | Item::Block(_) => false,
                })?;
                let (written, doc, value) = match item {
                    Item::Param(param) => (param.to_string(), &param.doc, param.value.as_ref()),
                    Item::Let(binding) => {
                        let written = format!("let {name} = {}", binding.value);
                        (written, &binding.doc, Some(&binding.value))
                    }
                    Item::Import(_) | Item::Block(_) => return None,
                };
                text += &format!("{}\n", manual::code(&written));
                text += &paragraph(doc);
                match self.scope.value(name) {
                    Some(own) if value.is_none_or(|value| value.to_string() != own.to_string()) => {
                        text += &format!("\nComes to `{own}`\n");
                    }
                    Some(_) => {}
                    None => text += "\nHas no value, or a wrong one.\n",
                }
            }
        }
        let is_elsewhere = self.analysis.range(definition.span).0 != self.source;
        if is_elsewhere || !definition.holds(self.global) {
            text += &format!("\nDefined in {}\n", self.place(definition));
        }
        Some(text)
    }

    /// `shared.hift:3`
    fn place(&self, found: &Occurrence) -> String {
        let (source, range) = self.analysis.range(found.span);
        let name = self.analysis.reading.sources().get(source).map(|Source { name, .. }| name.as_str());
        let name = name.and_then(|name| Path::new(name).file_name()).unwrap_or_default();
        format!("{}:{}", name.to_string_lossy(), range.start.line + 1)
    }
}

fn paragraph(doc: &str) -> String {
    if doc.is_empty() { String::new() } else { format!("\n{doc}\n") }
}
