//! What could be written at a place.

use std::path::{Path, PathBuf};

use lsp_types::{
    CompletionItem, CompletionItemKind, CompletionItemTextEdit, Documentation, InsertTextFormat,
    MarkupContent, MarkupKind, Position, Range, TextEdit,
};

use crate::lang::resolve::type_names;
use crate::lang::scan::{Scan, Token};
use crate::lang::schema::{self, Form, Function, Key, Kind, Need, PROFILE, UNITS, Unit};
use crate::lang::syntax::{Block, Item, Term, Value};
use crate::lang::{Scope, load::normal};
use crate::model::Model;
use crate::problem::Span;

use super::manual;
use super::place::{Asked, Outer, Slot, place, written};
use super::workspace::{Analysis, Workspace};

/// Files that are shown of one folder.
const MAX_FILES: usize = 1_000;

/// Everything that could be written at a position, what is needed first.
pub fn complete(
    workspace: &Workspace,
    analysis: &Analysis,
    source: usize,
    position: Position,
    snippets: bool,
) -> Vec<CompletionItem> {
    let text = analysis.text(source);
    let scan = Scan::new(text);
    let at = analysis.byte(source, position);
    let place = place(&scan, at, false);
    let scope = Scope::new(&analysis.reading.loaded, &analysis.options);
    let mut list = List {
        workspace,
        analysis,
        source,
        scan: &scan,
        scope: &scope,
        range: analysis.local(source, place.word),
        next: {
            let behind = scan.index(place.word.end.max(at));
            let between = text.get(place.word.end..scan.span(behind).start).unwrap_or("\n");
            if between.contains(['\n', '\r']) { Token::End } else { scan.token(behind) }
        },
        snippets,
        items: Vec::new(),
    };
    match place.slot {
        Slot::Free | Slot::BlockName(_) => {}
        Slot::Item => list.item(),
        Slot::Base(kind, own) => list.names(&[kind], Some(own)),
        Slot::ParamType => {
            for name in type_names() {
                list.plain(name, CompletionItemKind::TypeParameter, String::new(), "0");
            }
        }
        Slot::Key(outer, unit) => {
            if let Some(asked) = unit {
                list.units(asked.forms.unwrap_or(&[]));
            }
            list.keys(outer);
        }
        Slot::Profiled(open) => list.profiled(open),
        Slot::ProfiledName(kind) => list.names(&[kind], None),
        Slot::Value(asked) if asked.unit => {
            list.units(asked.forms.unwrap_or(&[]));
            if let Some(of) = asked.of {
                list.arguments(of, None);
            }
        }
        Slot::Value(asked) => list.value(asked),
        Slot::Argument(function, open, asked) => {
            list.arguments(function, Some(open));
            list.value(asked);
        }
        Slot::Given(path) => list.given(path.trim_matches('"')),
        Slot::Import(start) => list.paths(start, at, &|name, is_folder| is_folder || name.ends_with(".hift")),
        Slot::Text(start, asked) => list.text(start, at, asked),
    }
    list.items
}

struct List<'a, 't> {
    workspace: &'a Workspace,
    analysis: &'a Analysis,
    source: usize,
    scan: &'a Scan<'t>,
    scope: &'a Scope<'a>,
    /// What is replaced.
    range: Range,
    /// The token behind it on the line.
    next: Token,
    snippets: bool,
    items: Vec<CompletionItem>,
}

impl List<'_, '_> {
    /// `snippet` is what is written, with `${1:...}` where the user goes on; those are left out for a client that
    /// does not know them.
    fn put(&mut self, label: &str, kind: CompletionItemKind, snippet: &str, doc: String, sort: &str) {
        let has_holes = self.snippets && snippet.contains('$');
        let new_text = if has_holes { snippet.to_owned() } else { without_holes(snippet) };
        let sort_text = format!("{sort}{:03}", self.items.len());
        self.items.push(CompletionItem {
            label: label.to_owned(),
            kind: Some(kind),
            documentation: (!doc.is_empty())
                .then_some(MarkupContent { kind: MarkupKind::Markdown, value: doc })
                .map(Documentation::MarkupContent),
            sort_text: Some(sort_text),
            insert_text_format: Some(match has_holes {
                true => InsertTextFormat::Snippet,
                false => InsertTextFormat::PlainText,
            }),
            text_edit: Some(CompletionItemTextEdit::TextEdit(TextEdit { range: self.range, new_text })),
            ..CompletionItem::default()
        });
    }

    /// A word that is written as it is called.
    fn plain(&mut self, label: &str, kind: CompletionItemKind, doc: String, sort: &str) {
        self.put(label, kind, &escaped(label), doc, sort);
    }

    fn detail(&mut self, detail: impl Into<String>) {
        if let Some(last) = self.items.last_mut() {
            last.detail = Some(detail.into());
        }
    }

    /// What stands at the top level.
    fn item(&mut self) {
        let alone = !matches!(self.next, Token::Word | Token::Open('{') | Token::Text | Token::Number);
        let begins = self.scan.token(0) == Token::Word && self.scan.word(0) == "hift";
        let has_header = begins && self.scan.token(1) == Token::Number;
        if !has_header {
            let doc = "The version of the language; the first line of a file.".to_owned();
            self.put("hift", CompletionItemKind::Keyword, if alone { "hift 1" } else { "hift" }, doc, "0");
        }
        for kind in schema::KINDS {
            let snippet = if alone { self.block(kind) } else { kind.name.to_owned() };
            self.put(kind.name, CompletionItemKind::Class, &snippet, manual::kind_doc(kind), "1");
            self.detail(brief(kind.doc));
        }
        for (word, snippet, doc) in WORDS {
            let snippet = if alone { snippet } else { word };
            self.put(word, CompletionItemKind::Keyword, snippet, (*doc).to_owned(), "2");
        }
    }

    /// A block with the keys that it needs.
    fn block(&self, kind: &Kind) -> String {
        let named = kind.role != schema::Role::Part;
        let mut n = 1;
        let mut hole = |text: &str| {
            let hole = format!("${{{n}:{}}}", escaped(text));
            n += 1;
            hole
        };
        let mut text = match named {
            true => format!("{} {} {{\n", kind.name, hole("NAME")),
            false => format!("{} {{\n", kind.name),
        };
        let needed = needed(kind);
        let width = needed.iter().map(|key| key.name.len()).max().unwrap_or(0);
        for key in &needed {
            let value = match self.only_block(key) {
                Some(name) => name,
                None => hole(key.example),
            };
            text += &format!("    {:width$} = {value}\n", key.name);
        }
        if needed.is_empty() { format!("{text}    $0\n}}") } else { format!("{text}}}$0") }
    }

    /// The name that a key must have, if only one block can be meant.
    fn only_block(&self, key: &Key) -> Option<String> {
        let kinds = block_kinds(key.takes)?;
        let mut names = self.names_of(&kinds[..1]);
        (names.len() == 1).then(|| names.remove(0))
    }

    fn names_of(&self, kinds: &[&str]) -> Vec<String> {
        let blocks = kinds.iter().flat_map(|kind| self.analysis.blocks(kind));
        let mut names: Vec<String> =
            blocks.filter_map(|block| block.name.as_ref()).map(|name| name.text.clone()).collect();
        names.dedup();
        names
    }

    /// The names of blocks of some kinds.
    fn names(&mut self, kinds: &[&str], but: Option<&str>) {
        for kind in kinds {
            let blocks: Vec<Block> = self.analysis.blocks(kind).cloned().collect();
            for block in blocks {
                let Some(name) = block.name.as_ref().filter(|name| Some(name.text.as_str()) != but) else {
                    continue;
                };
                let doc = block.doc.clone();
                self.plain(&name.text, CompletionItemKind::Reference, doc, "0");
                self.detail(format!("{} block", block.kind.text));
            }
        }
    }

    /// The keys and parts of a block that are not written yet.
    fn keys(&mut self, outer: Outer) {
        let Some(kind) = outer.kind else { return };
        let there = written(self.scan, outer.open);
        let word = self.analysis.span(self.source, self.range);
        let is_new = |name: &str| !there.iter().any(|(own, span)| *own == name && *span != word);
        let assigned = self.next == Token::Equals;
        for key in kind.keys.iter().filter(|key| is_new(key.name)) {
            let (sort, detail) = match key.need {
                Need::Required if !outer.changes => ("0", "must be written".to_owned()),
                Need::Required => ("1", String::new()),
                Need::Depends(on) => ("1", on.to_owned()),
                Need::Default(value) => ("2", format!("default {value}")),
            };
            let snippet = match assigned {
                true => escaped(key.name),
                false => format!("{} = {}", key.name, self.example(key)),
            };
            self.put(key.name, CompletionItemKind::Property, &snippet, manual::key_doc(key), sort);
            self.detail(detail);
            // What other tools call it finds it, too.
            if let Some(last) = self.items.last_mut().filter(|_| !key.also.is_empty()) {
                last.filter_text = Some(format!("{} {}", key.name, key.also.join(" ")));
            }
        }
        for part in kind.parts.iter().filter(|part| is_new(part.name)) {
            let snippet = match self.next == Token::Open('{') {
                true => part.name.to_owned(),
                false => self.block(part),
            };
            self.put(part.name, CompletionItemKind::Class, &snippet, manual::kind_doc(part), "3");
            self.detail(brief(part.doc));
        }
    }

    /// What to write behind `key =`, with a hole where there is something to choose.
    fn example(&self, key: &Key) -> String {
        let choices: Vec<String> = match block_kinds(key.takes) {
            Some(kinds) => self.names_of(kinds),
            None => {
                let words = key.takes.iter().map(|form| match form {
                    Form::Word(word, _) => Some((*word).to_owned()),
                    _ => None,
                });
                words.collect::<Option<Vec<_>>>().unwrap_or_default()
            }
        };
        match choices.as_slice() {
            [] => format!("${{1:{}}}", escaped(key.example)),
            [one] => escaped(one),
            several => format!("${{1|{}|}}", several.join(",")),
        }
    }

    fn profiled(&mut self, open: usize) {
        let there = written(self.scan, open);
        let file = &self.analysis.reading.loaded.file;
        let params: Vec<_> = file.params().cloned().collect();
        for param in params.iter().filter(|param| !there.iter().any(|(own, _)| *own == param.name.text)) {
            let value = param.value.as_ref().map_or("1".to_owned(), ToString::to_string);
            let snippet = match self.next == Token::Equals {
                true => param.name.text.clone(),
                false => format!("{} = ${{1:{}}}", param.name.text, escaped(&value)),
            };
            self.put(&param.name.text, CompletionItemKind::Constant, &snippet, param.doc.clone(), "0");
            self.detail("param");
        }
        let titles: Vec<(String, String)> = file
            .blocks()
            .filter(|block| block.kind.text != PROFILE && block.name.is_some())
            .map(|block| (block.title(), block.doc.clone()))
            .collect();
        for (title, doc) in titles {
            let snippet = format!("{} {{ $0 }}", escaped(&title));
            self.put(&title, CompletionItemKind::Class, &snippet, doc, "1");
        }
    }

    /// The arguments of a function that are not written yet.
    fn arguments(&mut self, function: &'static Function, open: Option<usize>) {
        let there = open.map_or_else(Vec::new, |open| written(self.scan, open));
        let word = self.analysis.span(self.source, self.range);
        for key in function.arguments.iter() {
            if there.iter().any(|(name, span)| *name == key.name && *span != word) {
                continue;
            }
            let snippet = match self.next == Token::Equals {
                true => key.name.to_owned(),
                false => format!("{} = ${{1:{}}}", key.name, escaped(key.example)),
            };
            self.put(key.name, CompletionItemKind::Property, &snippet, manual::key_doc(key), "0");
            self.detail(format!("of {}", function.name));
        }
    }

    fn units(&mut self, forms: &[Form]) {
        let units: Vec<Unit> = forms
            .iter()
            .flat_map(|form| match form {
                Form::Amount(units) => *units,
                _ => &[],
            })
            .map(|(unit, _)| *unit)
            .collect();
        for (name, unit, _) in UNITS.iter().filter(|(_, unit, _)| units.contains(unit)) {
            let sort = if unit.written() == *name { "0" } else { "1" };
            self.plain(name, CompletionItemKind::Unit, manual::unit_doc(name).unwrap_or_default(), sort);
        }
    }

    /// What may stand behind a key.
    fn value(&mut self, asked: Asked) {
        for form in asked.forms.unwrap_or(&[]).iter().filter(|_| !asked.calculated) {
            match form {
                Form::Word(word, doc) => {
                    self.plain(
                        word,
                        CompletionItemKind::EnumMember,
                        manual::word_doc(word, doc, asked.key),
                        "0",
                    );
                    self.detail(brief(doc));
                }
                Form::Function(function) => {
                    let snippet = match self.next == Token::Open('(') {
                        true => function.name.to_owned(),
                        false => call(function),
                    };
                    let doc = manual::function_doc(function);
                    self.put(function.name, CompletionItemKind::Function, &snippet, doc, "0");
                    self.detail(brief(function.doc));
                }
                Form::Boolean => {
                    self.plain("true", CompletionItemKind::EnumMember, String::new(), "0");
                    self.plain("false", CompletionItemKind::EnumMember, String::new(), "0");
                }
                Form::Block(kinds) => self.names(kinds, asked.block.and_then(|block| block.name)),
                Form::Whole(_) | Form::Real(_) | Form::Amount(_) | Form::List(..) | Form::Record(..) => {}
                Form::Text | Form::Path | Form::Template => {}
            }
        }
        if self.is_layers(&asked) {
            self.layers(&asked, true);
        }
        // Something to begin with, where there is no word for it.
        if let (Some(key), Some(forms), false) = (asked.key, asked.forms, asked.calculated)
            && forms.as_ptr() == key.takes.as_ptr()
            && block_kinds(forms).is_none()
        {
            let known = self.items.iter().any(|item| key.example.starts_with(item.label.as_str()));
            let default = match key.need {
                Need::Default(value) if value.starts_with(|c: char| c.is_ascii_digit() || c == '"') => value,
                _ => "",
            };
            let examples = [key.example, default];
            for (i, example) in examples.iter().enumerate() {
                let offered = if i == 0 { known } else { examples[0] == *example };
                if !example.is_empty() && !offered {
                    self.plain(example, CompletionItemKind::Value, String::new(), "1");
                    self.detail(if i == 0 { "for example" } else { "the default" });
                }
            }
        }
        self.bindings(asked);
    }

    /// Params and lets whose value can stand there.
    fn bindings(&mut self, asked: Asked) {
        let at = self.analysis.place(self.source, self.range.start);
        let items = self.analysis.reading.loaded.file.items.clone();
        for item in &items {
            let (name, doc, what) = match item {
                Item::Param(param) => (&param.name, &param.doc, "param"),
                Item::Let(binding) => (&binding.name, &binding.doc, "let"),
                Item::Import(_) | Item::Block(_) => continue,
            };
            let own = holds(item, at);
            let value = self.scope.value(&name.text).cloned();
            let fits = match (&value, asked.forms) {
                (Some(value), Some(_)) if asked.calculated => {
                    matches!(value.term, Term::Number(_) | Term::Amount(..))
                }
                (Some(value), Some(forms)) => fits(value, forms),
                (None, _) | (_, None) => true,
            };
            if own || !fits {
                continue;
            }
            self.plain(&name.text, CompletionItemKind::Variable, doc.clone(), "0");
            self.detail(value.map_or(what.to_owned(), |value| format!("{what} = {value}")));
        }
    }

    /// The params of an imported file.
    fn given(&mut self, path: &str) {
        let folder = self.folder();
        let Ok(text) = self.workspace.file(&normal(&folder.join(path))) else { return };
        let (file, _) = crate::lang::parse(&text);
        for param in file.params() {
            let value = param.value.as_ref().map_or("1".to_owned(), ToString::to_string);
            let snippet = match self.next == Token::Equals {
                true => param.name.text.clone(),
                false => format!("{} = ${{1:{}}}", param.name.text, escaped(&value)),
            };
            self.put(&param.name.text, CompletionItemKind::Constant, &snippet, param.doc.clone(), "0");
            self.detail(format!("param of {path}"));
        }
    }

    /// The folder that paths of this source start from.
    fn folder(&self) -> PathBuf {
        let path = self.analysis.paths.get(self.source);
        path.and_then(|path| path.parent()).map_or_else(|| PathBuf::from("."), Path::to_path_buf)
    }

    /// Files and folders, of what is written of a path so far.
    fn paths(&mut self, start: usize, at: usize, wanted: &dyn Fn(&str, bool) -> bool) {
        let so_far = &self.scan.text[start + 1..at.max(start + 1)];
        let (folder, from) = match so_far.rfind('/') {
            Some(slash) => (&so_far[..=slash], start + 1 + slash + 1),
            None => ("", start + 1),
        };
        self.range = self.analysis.local(self.source, Span::new(from, at.max(from)));
        let Ok(entries) = std::fs::read_dir(self.folder().join(folder)) else { return };
        let mut found: Vec<(String, bool)> = entries
            .flatten()
            .take(MAX_FILES)
            .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path().is_dir()))
            .filter(|(name, is_folder)| !name.starts_with('.') && wanted(name, *is_folder))
            .collect();
        found.sort();
        for (name, is_folder) in found {
            let (label, kind) = match is_folder {
                true => (format!("{name}/"), CompletionItemKind::Folder),
                false => (name, CompletionItemKind::File),
            };
            self.plain(&label, kind, String::new(), if is_folder { "1" } else { "0" });
        }
    }

    /// Inside of quotes: a path, or names of layers.
    fn text(&mut self, start: usize, at: usize, asked: Asked) {
        if self.is_layers(&asked) {
            self.range = self.analysis.local(self.source, Span::new(start + 1, self.text_end(start, at)));
            return self.layers(&asked, false);
        }
        let takes_path = asked.forms.is_some_and(|forms| forms.iter().any(|form| matches!(form, Form::Path)));
        if takes_path {
            let folders_only =
                asked.of.is_none() && asked.key.is_some_and(|key| matches!(key.name, "weights" | "to"));
            self.paths(start, at, &|_, is_folder| is_folder || !folders_only);
        }
    }

    /// Where the text that begins at a byte ends, without its quote; on an unfinished line, the place itself.
    fn text_end(&self, start: usize, at: usize) -> usize {
        let index = self.scan.index(start);
        match self.scan.token(index) {
            Token::Text => self.scan.span(index).end - 1,
            _ => at,
        }
    }

    /// Whether names of layers are asked for.
    fn is_layers(&self, asked: &Asked) -> bool {
        let names = |key: Option<&'static Key>| {
            key.is_some_and(|key| matches!(key.name, "order" | "freeze" | "split"))
        };
        let texts = asked.forms.is_some_and(|forms| forms.iter().any(|form| matches!(form, Form::Text)));
        let of_groups = asked
            .block
            .and_then(|block| block.kind)
            .is_some_and(|kind| matches!(kind.name, "groups" | "schedule"));
        texts && of_groups && names(asked.entry.or(asked.key))
    }

    fn layers(&mut self, asked: &Asked, quoted: bool) {
        let Some((kind, name)) = asked.block.and_then(|block| Some((block.kind?.name, block.name?))) else {
            return;
        };
        let patterns = asked.entry.or(asked.key).is_some_and(|key| key.name != "order");
        for (label, detail, sort) in layers(self.workspace, self.analysis, self.scope, kind, name, patterns) {
            let written = if quoted { format!("\"{label}\"") } else { label };
            self.plain(&written, CompletionItemKind::Value, String::new(), sort);
            self.detail(detail);
        }
    }
}

/// The words of the top level that are no kinds.
const WORDS: &[(&str, &str, &str)] = &[
    ("param", "param ${1:name} = ${2:value}", "A value with a name, which `--set name=value` replaces."),
    ("let", "let ${1:name} = ${2:value}", "A name for a value that nothing outside of the file replaces."),
    ("import", "import \"${1:shared.hift}\"", "Takes over what another file defines."),
    (
        PROFILE,
        "profile ${1:NAME} {\n    $0\n}",
        "Other values for params and keys, which `--profile NAME` applies.",
    ),
];

/// The first sentence.
fn brief(doc: &str) -> &str {
    doc.find(". ").map_or(doc, |end| &doc[..=end])
}

/// The keys that a new block should have: those that are required, and one of several that are.
fn needed(kind: &Kind) -> Vec<&Key> {
    let mut needed: Vec<&Key> = Vec::new();
    for key in kind.keys {
        let known = |on: &str| needed.iter().any(|key| on.contains(&format!("`{}`", key.name)));
        match key.need {
            Need::Required => needed.push(key),
            Need::Depends(on) if on.starts_with("needed") => needed.push(key),
            Need::Depends(on) if on.starts_with("either") && !known(on) => needed.push(key),
            Need::Depends(_) | Need::Default(_) => {}
        }
    }
    needed
}

fn block_kinds(forms: &'static [Form]) -> Option<&'static [&'static str]> {
    forms.iter().find_map(|form| match form {
        Form::Block(kinds) => Some(*kinds),
        _ => None,
    })
}

/// `cosine(peak = ${1:2e-5})`; just the name where nothing is needed.
fn call(function: &Function) -> String {
    let needed: Vec<&Key> = function.arguments.iter().filter(|key| key.need == Need::Required).collect();
    match needed.as_slice() {
        [] => function.name.to_owned(),
        [one] => format!("{}(${{1:{}}})", function.name, escaped(one.example)),
        several => {
            let arguments: Vec<String> = several
                .iter()
                .enumerate()
                .map(|(i, key)| format!("{} = ${{{}:{}}}", key.name, i + 1, escaped(key.example)))
                .collect();
            format!("{}({})", function.name, arguments.join(", "))
        }
    }
}

/// A text in which a client finds no holes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('$', "\\$").replace('}', "\\}")
}

/// What a snippet writes where its holes are left as they are.
fn without_holes(snippet: &str) -> String {
    let mut text = String::new();
    let mut chars = snippet.chars().peekable();
    // In how many holes the place is, and whether the rest of a list of choices is left out.
    let (mut depth, mut skip) = (0, false);
    while let Some(char) = chars.next() {
        match char {
            '\\' => text.extend(chars.next().filter(|_| !skip)),
            '$' => {
                let hole = chars.next_if_eq(&'{').is_some();
                while chars.next_if(char::is_ascii_digit).is_some() {}
                if hole {
                    depth += 1;
                    chars.next_if(|c| matches!(c, ':' | '|'));
                }
            }
            ',' | '|' if depth > 0 && snippet.contains("${1|") => skip = true,
            '}' if depth > 0 => (depth, skip) = (depth - 1, false),
            char if !skip => text.push(char),
            _ => {}
        }
    }
    text
}

/// Whether a param or let is being written at a place.
fn holds(item: &Item, at: usize) -> bool {
    let span = match item {
        Item::Param(param) => param.span,
        Item::Let(binding) => binding.span,
        Item::Import(_) | Item::Block(_) => return false,
    };
    span.start <= at && at <= span.end
}

/// Whether a value may answer a key, as far as its form tells.
fn fits(value: &Value, forms: &[Form]) -> bool {
    forms.iter().any(|form| match (&value.term, form) {
        (Term::Number(_), Form::Whole(_) | Form::Real(_)) => true,
        (Term::Amount(_, unit), Form::Amount(units)) => {
            UNITS.iter().any(|(name, own, _)| *name == unit.text && units.iter().any(|(unit, _)| unit == own))
        }
        (Term::Text(_) | Term::Mixed(_), Form::Text | Form::Path | Form::Template) => true,
        (Term::Boolean(_), Form::Boolean) => true,
        (Term::Word(word), Form::Word(own, _)) => word == own,
        (Term::Word(word), Form::Function(function)) => word == function.name,
        (Term::Word(_), Form::Block(_)) => true,
        (Term::Call(name, _), Form::Function(function)) => name.text == function.name,
        (Term::List(_), Form::List(..)) => true,
        (Term::Record(_), Form::Record(..)) => true,
        _ => false,
    })
}

/// Layers and, where patterns may stand, parameters of the models that are trained with a groups or schedule block.
fn layers(
    workspace: &Workspace,
    analysis: &Analysis,
    scope: &Scope,
    kind: &str,
    name: &str,
    patterns: bool,
) -> Vec<(String, String, &'static str)> {
    let word = |block: &Block, key: &str| -> Option<String> {
        let entry = analysis.entry(block, key)?;
        match &entry.value.term {
            Term::Word(word) => match scope.value(word) {
                Some(Value { term: Term::Word(word), .. }) => Some(word.clone()),
                Some(_) | None => Some(word.clone()),
            },
            _ => None,
        }
    };
    let users: Vec<&Block> =
        analysis.blocks("train").filter(|stage| word(stage, kind).as_deref() == Some(name)).collect();
    let mut found: Vec<(String, String, &'static str)> = Vec::new();
    let mut put = |label: String, detail: String, sort| {
        if !found.iter().any(|(own, ..)| *own == label) {
            found.push((label, detail, sort));
        }
    };
    // With names of groups, an order is one of groups.
    let mut named = false;
    for user in users.iter().filter(|_| !patterns) {
        let groups = word(user, "groups").and_then(|name| analysis.block("groups", &name));
        let split = groups.and_then(|groups| analysis.entry(groups, "split")).map(|entry| &entry.value.term);
        let record = match split {
            Some(Term::Record(entries)) => Some(entries),
            Some(Term::Call(_, arguments)) => {
                arguments.iter().find_map(|argument| match &argument.value.term {
                    Term::Record(entries) => Some(entries),
                    _ => None,
                })
            }
            _ => None,
        };
        for entry in record.into_iter().flatten() {
            named = true;
            put(entry.name.text.clone(), "group".to_owned(), "0");
        }
    }
    let mut models: Vec<&Block> = Vec::new();
    for user in users {
        let mut stage = user;
        // From a stage to the one that it goes on from, down to a model; no more steps than there are blocks.
        for _ in 0..=analysis.reading.loaded.file.items.len() {
            let Some(name) = word(stage, "model") else { break };
            if let Some(model) = analysis.block("model", &name) {
                models.push(model);
                break;
            }
            let Some(before) = analysis.block("train", &name) else { break };
            stage = before;
        }
    }
    if models.is_empty() {
        models.extend(analysis.blocks("model").take(1));
    }
    for model in models.into_iter().filter(|_| !named) {
        let Some(model) = read_model(workspace, analysis, scope, model) else { continue };
        for layer in model.tail(false).iter().chain(model.tail(true).iter()) {
            let n: u64 = layer.params.iter().map(|id| model.param(*id).elements()).sum();
            put(layer.name.clone(), format!("{} weights", crate::units::Count(n)), "0");
        }
        if patterns {
            put("block.*".to_owned(), "every block".to_owned(), "1");
            for param in &model.params {
                let general: Vec<&str> = param
                    .path
                    .split('.')
                    .map(|part| if part.bytes().all(|byte| byte.is_ascii_digit()) { "*" } else { part })
                    .collect();
                put(general.join("."), "parameters".to_owned(), "2");
            }
        }
    }
    found
}

/// The model of a block, by the configuration that it names.
fn read_model(workspace: &Workspace, analysis: &Analysis, scope: &Scope, block: &Block) -> Option<Model> {
    let weights = &analysis.entry(block, "weights")?.value;
    let text = |value: &Value| -> Option<String> {
        let value = scope.calculate(value).unwrap_or_else(|| value.clone());
        match &value.term {
            Term::Text(text) => Some(text.clone()),
            Term::Word(word) => match &scope.value(word)?.term {
                Term::Text(text) => Some(text.clone()),
                _ => None,
            },
            _ => None,
        }
    };
    let path = match &weights.term {
        Term::Call(_, arguments) => {
            let config = arguments
                .iter()
                .find(|argument| argument.name.as_ref().is_none_or(|name| name.text == "config"))?;
            PathBuf::from(text(&config.value)?)
        }
        _ => Path::new(&text(weights)?).join("config.json"),
    };
    let source = analysis.reading.sources().locate(weights.span).0;
    let folder = analysis.paths.get(source)?.parent()?;
    Model::from_config(&workspace.file(&normal(&folder.join(path))).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snippet_without_holes_is_what_it_writes() {
        let check = |snippet: &str, text: &str| assert_eq!(without_holes(snippet), text);
        check("a = ${1:b}", "a = b");
        check("${1:\\{x\\}}, ${2:y}$0", "{x}, y");
        check("a = ${1|b,c|}", "a = b");
        check("t {\n    $0\n}", "t {\n    \n}");
        check("a = ${1:[0.9, 0.999]}", "a = [0.9, 0.999]");
        check("costs \\$5", "costs $5");
    }

    #[test]
    fn what_a_client_could_take_for_a_hole_is_escaped() {
        assert_eq!(escaped("\"${x}\""), "\"\\${x\\}\"");
        assert_eq!(without_holes(&escaped("{ a = \"${x}\" }")), "{ a = \"${x}\" }");
    }
}
