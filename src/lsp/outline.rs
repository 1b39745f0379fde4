//! What a document is made of: the outline beside it, what can be folded, and its layout.

use lsp_types::{DocumentSymbol, FoldingRange, FoldingRangeKind, SymbolKind, TextEdit};

use crate::lang;
use crate::lang::schema::{self, Role};
use crate::lang::syntax::{Block, Entry, Item};
use crate::problem::Span;

use super::text::{Encoding, Lines};

/// The imports, params, lets and blocks of a text, blocks with their keys.
pub fn symbols(text: &str, encoding: Encoding) -> Vec<DocumentSymbol> {
    let (file, _) = lang::parse(text);
    let lines = Lines::new(text);
    let outline = Outline { text, lines, encoding };
    file.items
        .iter()
        .map(|item| match item {
            Item::Import(import) => {
                outline.symbol(&import.path, None, SymbolKind::Module, import.span, import.path_span)
            }
            Item::Param(param) => {
                let value = param.value.as_ref().map(ToString::to_string);
                outline.symbol(&param.name.text, value, SymbolKind::Constant, param.span, param.name.span)
            }
            Item::Let(binding) => {
                let value = Some(binding.value.to_string());
                let (name, span) = (&binding.name, binding.span);
                outline.symbol(&name.text, value, SymbolKind::Variable, span, name.span)
            }
            Item::Block(block) => outline.block(block),
        })
        .collect()
}

struct Outline<'t> {
    text: &'t str,
    lines: Lines,
    encoding: Encoding,
}

impl Outline<'_> {
    fn symbol(
        &self,
        name: &str,
        detail: Option<String>,
        kind: SymbolKind,
        span: Span,
        name_span: Span,
    ) -> DocumentSymbol {
        let range = |span| self.lines.range(self.text, span, self.encoding);
        #[expect(deprecated, reason = "the field is there")]
        DocumentSymbol {
            // An editor refuses a symbol without a name.
            name: if name.is_empty() { "?".to_owned() } else { name.to_owned() },
            detail,
            kind,
            range: range(span.to(name_span)),
            selection_range: range(name_span),
            tags: None,
            deprecated: None,
            children: None,
        }
    }

    fn block(&self, block: &Block) -> DocumentSymbol {
        let kind = match schema::kind(&block.kind.text).map(|kind| kind.role) {
            Some(Role::Stage) => SymbolKind::Function,
            Some(Role::Definition | Role::Part) => SymbolKind::Class,
            None => SymbolKind::Namespace,
        };
        let (name, detail) = match &block.name {
            Some(name) => (name, Some(block.kind.text.clone())),
            None => (&block.kind, None),
        };
        let children = block.entries.iter().map(|entry| self.entry(entry));
        let parts = block.blocks.iter().map(|part| self.block(part));
        let mut children: Vec<DocumentSymbol> = children.chain(parts).collect();
        children.sort_by_key(|child| child.range.start);
        let symbol = self.symbol(&name.text, detail, kind, block.span, name.span);
        DocumentSymbol { children: (!children.is_empty()).then_some(children), ..symbol }
    }

    fn entry(&self, entry: &Entry) -> DocumentSymbol {
        let span = entry.name.span.to(entry.value.span);
        let value = Some(entry.value.to_string());
        self.symbol(&entry.name.text, value, SymbolKind::Property, span, entry.name.span)
    }
}

/// Blocks, values over several lines, and comments of several lines.
pub fn folds(text: &str) -> Vec<FoldingRange> {
    fn blocks(all: &[Block], spans: &mut Vec<Span>) {
        for block in all {
            spans.push(block.span);
            spans.extend(block.entries.iter().map(|entry| entry.name.span.to(entry.value.span)));
            blocks(&block.blocks, spans);
        }
    }
    let (file, _) = lang::parse(text);
    let lines = Lines::new(text);
    let mut spans = Vec::new();
    for item in &file.items {
        match item {
            Item::Import(import) => spans.push(import.span),
            Item::Param(param) => spans.push(param.span),
            Item::Let(binding) => spans.push(binding.span),
            Item::Block(block) => blocks(std::slice::from_ref(block), &mut spans),
        }
    }
    let fold = |first: usize, last: usize, kind| FoldingRange {
        start_line: first as u32,
        end_line: last as u32,
        kind,
        ..FoldingRange::default()
    };
    let mut folds: Vec<FoldingRange> = spans
        .iter()
        .map(|span| (lines.line(span.start), lines.line(span.end)))
        .filter(|(first, last)| first < last)
        .map(|(first, last)| fold(first, last, None))
        .collect();
    let mut first = None;
    let n_lines = text.lines().count();
    for (i, line) in text.lines().chain([""]).enumerate() {
        match (line.trim_start().starts_with('#'), first) {
            (true, None) => first = Some(i),
            (false, Some(begin)) => {
                if i > begin + 1 {
                    folds.push(fold(begin, (i - 1).min(n_lines), Some(FoldingRangeKind::Comment)));
                }
                first = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
    folds
}

/// The edit that brings a text into its layout, from the first line that differs to the last; none where it has that
/// layout already. Nothing where the text cannot be read: what is wrong is told as a problem.
pub fn formatted(text: &str, encoding: Encoding) -> Option<Vec<TextEdit>> {
    let layout = lang::format(text).ok()?;
    if layout == text {
        return Some(Vec::new());
    }
    let lines = |text| -> Vec<&str> { str::split_inclusive(text, '\n').collect() };
    let (old, new) = (lines(text), lines(&layout));
    let same = |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| pairs.take_while(|(a, b)| a == b).count();
    let first = same(&mut old.iter().zip(&new));
    let most = old.len().min(new.len()) - first;
    let last = same(&mut old.iter().rev().zip(new.iter().rev())).min(most);
    let start = old[..first].concat().len();
    let end = text.len() - old[old.len() - last..].concat().len();
    let range = Lines::new(text).range(text, Span::new(start, end), encoding);
    Some(vec![TextEdit { range, new_text: new[first..new.len() - last].concat() }])
}
