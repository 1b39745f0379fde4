//! From a name to where it is defined and used, and to another name.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use lsp_types::{DocumentHighlight, DocumentHighlightKind, Location, Position, Range, TextEdit, Uri};

use crate::lang::load::normal;
use crate::lang::scan::{Scan, Token};
use crate::lang::schema::{self, Form, Role};

use super::place::{Slot, place};
use super::symbols::{Occurrence, Symbol};
use super::workspace::{Analysis, Workspace};

/// Where the name at a position is defined; for a path, the file.
pub fn definition(
    workspace: &Workspace,
    analysis: &Analysis,
    source: usize,
    position: Position,
) -> Option<Location> {
    if let Some(found) = analysis.symbols.at(analysis.place(source, position)) {
        let definition = analysis.symbols.definition(&found.symbol)?;
        return Some(workspace.location(analysis, definition.span));
    }
    let scan = Scan::new(analysis.text(source));
    let (start, folder) = match place(&scan, analysis.byte(source, position), true).slot {
        Slot::Import(start) => (start, analysis.paths.get(source)?.parent()?),
        Slot::Text(start, asked) if asked.forms?.iter().any(|form| matches!(form, Form::Path)) => {
            (start, analysis.paths.get(source)?.parent()?)
        }
        _ => return None,
    };
    let path = normal(&folder.join(scan.word(scan.index(start)).trim_matches('"')));
    let is_file = workspace.document(&path).is_some() || path.is_file();
    is_file.then(|| Location { uri: workspace.uri(&path), range: Range::default() })
}

/// A place of a name in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    path: PathBuf,
    start: (u32, u32),
    end: (u32, u32),
    defines: bool,
}

impl Place {
    fn range(&self) -> Range {
        let position = |(line, character)| Position { line, character };
        Range { start: position(self.start), end: position(self.end) }
    }
}

fn located(analysis: &Analysis, found: &Occurrence) -> Option<Place> {
    let (source, range) = analysis.range(found.span);
    Some(Place {
        path: analysis.paths.get(source)?.clone(),
        start: (range.start.line, range.start.character),
        end: (range.end.line, range.end.character),
        defines: found.defines,
    })
}

/// Every place of a name in all pipelines that have it from the same place, and those pipelines.
fn everywhere(
    workspace: &mut Workspace,
    analysis: &Arc<Analysis>,
    symbol: &Symbol,
) -> (BTreeSet<Place>, Vec<Arc<Analysis>>) {
    let home = analysis.symbols.definition(symbol).and_then(|found| located(analysis, found));
    let mut users = match &home {
        Some(home) => workspace.users(&home.path),
        None => Vec::new(),
    };
    users.retain(|user| {
        user.symbols.definition(symbol).and_then(|found| located(user, found)) == home
            && user.revision != analysis.revision
    });
    users.push(analysis.clone());
    let places =
        users.iter().flat_map(|user| user.symbols.of(symbol).filter_map(|found| located(user, found)));
    (places.collect(), users)
}

/// Every place of the name at a position; without its definition where that is not wanted.
pub fn references(
    workspace: &mut Workspace,
    analysis: &Arc<Analysis>,
    source: usize,
    position: Position,
    definition: bool,
) -> Option<Vec<Location>> {
    let symbol = analysis.symbols.at(analysis.place(source, position))?.symbol.clone();
    let (places, _) = everywhere(workspace, analysis, &symbol);
    let wanted = places.into_iter().filter(|place| definition || !place.defines);
    Some(wanted.map(|place| Location { uri: workspace.uri(&place.path), range: place.range() }).collect())
}

/// The places of the name at a position in the same document.
pub fn highlights(analysis: &Analysis, source: usize, position: Position) -> Option<Vec<DocumentHighlight>> {
    let symbol = &analysis.symbols.at(analysis.place(source, position))?.symbol;
    let places = analysis.symbols.of(symbol).filter_map(|found| {
        let (own, range) = analysis.range(found.span);
        let kind = if found.defines { DocumentHighlightKind::Write } else { DocumentHighlightKind::Read };
        (own == source).then_some(DocumentHighlight { range, kind: Some(kind) })
    });
    Some(places.collect())
}

/// The name at a position, if it can be changed.
pub fn renameable(analysis: &Analysis, source: usize, position: Position) -> Option<(Range, String)> {
    let found = analysis.symbols.at(analysis.place(source, position))?;
    analysis.symbols.definition(&found.symbol)?;
    let (own, range) = analysis.range(found.span);
    (own == source).then(|| (range, found.symbol.name().to_owned()))
}

/// The edits that give the name at a position another one, everywhere.
///
/// # Errors
/// When there is no name, or the new one would mean something else; says why.
pub fn rename(
    workspace: &mut Workspace,
    analysis: &Arc<Analysis>,
    source: usize,
    position: Position,
    new: &str,
) -> Result<HashMap<Uri, Vec<TextEdit>>, String> {
    let found = analysis.symbols.at(analysis.place(source, position)).map(|found| found.symbol.clone());
    let Some(symbol) = found.filter(|symbol| analysis.symbols.definition(symbol).is_some()) else {
        return Err("there is no name that can be changed here".into());
    };
    if symbol.name() == new {
        return Ok(HashMap::new());
    }
    is_name(new)?;
    let (places, users) = everywhere(workspace, analysis, &symbol);
    for user in &users {
        is_free(user, &symbol, new)?;
    }
    let mut changes: HashMap<Uri, Vec<TextEdit>> = HashMap::new();
    for place in &places {
        let edit = TextEdit { range: place.range(), new_text: new.to_owned() };
        changes.entry(workspace.uri(&place.path)).or_default().push(edit);
    }
    if let Some((uri, edit)) = algorithm(workspace, analysis, &symbol) {
        changes.entry(uri).or_default().push(edit);
    }
    Ok(changes)
}

fn is_name(new: &str) -> Result<(), String> {
    let mut letters = new.chars();
    let begins = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !begins || !letters.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        return Err(format!(
            "`{new}` is no name: write letters, digits, `_` and `-`, beginning with a letter"
        ));
    }
    if ["true", "false", "hift", "import", "param", "let", "in"].contains(&new) {
        return Err(format!("`{new}` is a word of the language"));
    }
    Ok(())
}

/// Whether nothing else would be meant by the new name, nor the new name by something else.
fn is_free(user: &Analysis, symbol: &Symbol, new: &str) -> Result<(), String> {
    let taken = |what: &str| Err(format!("there is already a {what} called `{new}`"));
    let has_block = |kind: &str| user.block(kind, new).is_some();
    match symbol {
        Symbol::Profile(_) => {
            if user.symbols.definition(&Symbol::Profile(new.to_owned())).is_some() {
                return taken("profile");
            }
        }
        Symbol::Binding(_) => {
            if user.symbols.definition(&Symbol::Binding(new.to_owned())).is_some() {
                return taken("param or let");
            }
            for form in user.symbols.of(symbol).flat_map(|found| found.forms.unwrap_or(&[])) {
                match form {
                    Form::Word(word, _) if *word == new => {
                        return Err(format!("`{new}` is a word of the language where the name is used"));
                    }
                    Form::Function(function) if function.name == new => {
                        return Err(format!("`{new}` is a word of the language where the name is used"));
                    }
                    Form::Block(kinds) if kinds.iter().any(|kind| has_block(kind)) => {
                        return taken("block");
                    }
                    _ => {}
                }
            }
        }
        Symbol::Block(kind, _) => {
            // Stages have their directories side by side, and `model` of a stage names a model or a stage.
            let rivals = schema::KINDS.iter().filter(|other| {
                let stages = schema::kind(kind).is_some_and(|kind| kind.role == Role::Stage)
                    && other.role == Role::Stage;
                let models = matches!((*kind, other.name), ("model", "train") | ("train", "model"));
                other.name == *kind || stages || models
            });
            for rival in rivals {
                if has_block(rival.name) {
                    return taken(&format!("{} block", rival.name));
                }
            }
            let shadowed = user.symbols.of(&Symbol::Binding(new.to_owned())).any(|found| {
                found.forms.unwrap_or(&[]).iter().any(|form| match form {
                    Form::Block(kinds) => kinds.contains(kind),
                    _ => false,
                })
            });
            if shadowed {
                return taken("param or let");
            }
            let says = |name: &str| {
                user.block(kind, name).is_some_and(|block| user.entry(block, "algorithm").is_some())
            };
            if *kind == "optimizer" && is_algorithm(new) && !says(symbol.name()) {
                return Err(format!("the name is the algorithm: as `{new}` it would be another one"));
            }
        }
    }
    Ok(())
}

/// Whether an optimizer of that name needs no `algorithm`.
fn is_algorithm(name: &str) -> bool {
    let key = schema::kind("optimizer").and_then(|kind| kind.keys.iter().find(|key| key.name == "algorithm"));
    key.is_some_and(|key| key.takes.iter().any(|form| matches!(form, Form::Word(word, _) if *word == name)))
}

/// An optimizer whose name was its algorithm says it from now on.
fn algorithm(workspace: &Workspace, analysis: &Analysis, symbol: &Symbol) -> Option<(Uri, TextEdit)> {
    let Symbol::Block("optimizer", name) = symbol else { return None };
    let block = analysis.block("optimizer", name)?;
    if !is_algorithm(name) || analysis.entry(block, "algorithm").is_some() {
        return None;
    }
    let (source, head) = analysis.reading.sources().locate(block.head());
    let scan = Scan::new(analysis.text(source));
    let mut index = scan.index(head.end);
    while !matches!(scan.token(index), Token::Open('{') | Token::End) {
        index += 1;
    }
    let brace = scan.span(index).end;
    let range = analysis.local(source, crate::problem::Span::new(brace, brace));
    let rest = analysis.text(source)[brace..].chars().next();
    let space = if rest == Some('}') { " " } else { "" };
    let new_text = match rest {
        Some('\n' | '\r') => format!("\n    algorithm = {name}"),
        _ => format!(" algorithm = {name}{space}"),
    };
    Some((workspace.uri(analysis.paths.get(source)?), TextEdit { range, new_text }))
}
