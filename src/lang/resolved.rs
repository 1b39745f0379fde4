//! A pipeline with nothing left to look up: every block that runs, every key with the value that applies, and where
//! that value comes from. Plain data, which prints as a file of its own.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::problem::Span;

use super::format::format;
use super::resolve::VERSION;
use super::schema::{Form, Key, Kind};
use super::source::Sources;
use super::syntax::{Term, Value};

/// What a file comes to. It is whole exactly if the file means a pipeline; of a file with mistakes, it holds what is
/// known.
#[derive(Debug, Clone, Default)]
pub struct Resolved {
    /// Params and lets, in their order.
    pub names: Vec<ResolvedName>,
    /// The definitions that stages use, by kind; then the stages, in the order in which they run. Where there is no
    /// stage, all definitions but those that only others take over.
    pub blocks: Vec<ResolvedBlock>,
}

/// A param or let as it applies.
#[derive(Debug, Clone)]
pub struct ResolvedName {
    pub name: String,
    /// Where it is defined.
    pub span: Span,
    /// Nothing where it is wrong.
    pub value: Option<Arc<Value>>,
    pub origin: Origin,
}

/// A block, or a part of one.
#[derive(Debug, Clone)]
pub struct ResolvedBlock {
    pub kind: &'static Kind,
    /// Empty for a part.
    pub name: String,
    /// The place of `KIND NAME`.
    pub head: Span,
    /// In the order of the schema.
    pub entries: Vec<ResolvedEntry>,
    pub parts: Vec<ResolvedBlock>,
    /// Keys that nobody wrote and that mean something else for each stage that uses the block.
    pub varied: Vec<Varied>,
}

/// A key with its value.
#[derive(Debug, Clone)]
pub struct ResolvedEntry {
    pub key: &'static Key,
    /// Without names, calculations and arguments that are left out.
    pub value: Value,
    pub origin: Origin,
    /// The parts of the value that come from elsewhere: an argument, an element.
    pub within: Vec<Within>,
}

/// A part of a value.
#[derive(Debug, Clone)]
pub struct Within {
    /// `peak`, `[1]`, `groups.low[0]`
    pub path: String,
    pub value: Value,
    pub origin: Origin,
}

/// What a key that nobody wrote comes to, for which stages.
#[derive(Debug, Clone)]
pub struct Varied {
    pub key: &'static Key,
    pub values: Vec<(Value, Vec<String>)>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    pub how: How,
    /// What it passed through, from the value outwards.
    pub through: Vec<Through>,
    /// The calculation that it is the result of.
    pub calculation: Option<String>,
    /// Where to change it.
    pub place: Option<Span>,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum How {
    /// It stands in the block.
    Written,
    Param(String),
    Let(String),
    /// A calculation stands in the block.
    Calculated,
    /// A calculation with an environment variable in it.
    Env,
    /// Nobody wrote it. The algorithm whose default it is, where each has its own.
    Default(Option<String>),
    /// It is that of the stage that this one goes on from.
    Taken(String),
    /// It follows from something else.
    Derived(&'static str),
}

/// What brings a value to where it applies.
#[derive(Debug, Clone, PartialEq)]
pub enum Through {
    /// The block that is taken over.
    Base(String),
    Profile(String),
    /// The values behind an import.
    Import,
    /// `--set`
    Set,
}

impl Origin {
    pub fn new(how: How) -> Self {
        Self { how, through: Vec::new(), calculation: None, place: None }
    }

    /// In words, without the place: `param batch, profile laptop`.
    pub fn words(&self) -> String {
        let mut words = match &self.how {
            How::Written => "written".to_owned(),
            How::Param(name) => format!("param {name}"),
            How::Let(name) => format!("let {name}"),
            // The calculation itself says whether it asks the environment.
            How::Calculated | How::Env => "calculated".into(),
            How::Default(None) => "default".into(),
            How::Default(Some(of)) => format!("default of {of}"),
            How::Taken(stage) => format!("from {stage}"),
            How::Derived(from) => format!("derived from {from}"),
        };
        if let Some(calculation) = &self.calculation {
            let sign = match self.how {
                How::Param(_) | How::Let(_) => " =",
                How::Written | How::Calculated | How::Env => ":",
                How::Default(_) | How::Taken(_) | How::Derived(_) => ":",
            };
            words.push_str(&format!("{sign} {calculation}"));
        }
        for through in &self.through {
            words.push_str(&match through {
                Through::Base(name) => format!(", base {name}"),
                Through::Profile(name) => format!(", profile {name}"),
                Through::Import => ", import".into(),
                Through::Set => ", --set".into(),
            });
        }
        words
    }

    /// In words, with the place: `param batch, profile laptop, x.hift:7`.
    fn text(&self, lines: &Lines) -> String {
        match self.place.map(|place| lines.place(place)) {
            Some(("", line, _)) => format!("{}, line {line}", self.words()),
            Some((name, line, _)) => format!("{}, {name}:{line}", self.words()),
            None => self.words(),
        }
    }

    fn json(&self, lines: &Lines) -> Json {
        let (how, name) = match &self.how {
            How::Written => ("written", None),
            How::Param(name) => ("param", Some(name.as_str())),
            How::Let(name) => ("let", Some(name.as_str())),
            How::Calculated => ("calculated", None),
            How::Env => ("env", None),
            How::Default(of) => ("default", of.as_deref()),
            How::Taken(stage) => ("stage", Some(stage.as_str())),
            How::Derived(from) => ("derived", Some(*from)),
        };
        let through: Vec<Json> = self
            .through
            .iter()
            .map(|through| match through {
                Through::Base(name) => json!({ "kind": "base", "name": name }),
                Through::Profile(name) => json!({ "kind": "profile", "name": name }),
                Through::Import => json!({ "kind": "import" }),
                Through::Set => json!({ "kind": "set" }),
            })
            .collect();
        let place = self.place.map(|place| {
            let (file, line, column) = lines.place(place);
            json!({ "file": file, "line": line, "column": column })
        });
        json!({
            "kind": how, "of": name, "through": through, "calculation": self.calculation, "place": place,
        })
    }
}

/// Where the lines of all texts begin, so that a place is found without reading up to it.
struct Lines<'s> {
    sources: &'s Sources,
    begins: Vec<Vec<usize>>,
}

impl<'s> Lines<'s> {
    fn new(sources: &'s Sources) -> Self {
        let begins = sources.iter().map(|source| {
            let ends = source.text.match_indices('\n').map(|(at, _)| at + 1);
            std::iter::once(0).chain(ends).collect()
        });
        Self { sources, begins: begins.collect() }
    }

    /// The file's name, the line and the column in characters, both from 1.
    fn place(&self, span: Span) -> (&str, usize, usize) {
        let (i, span) = self.sources.locate(span);
        let (Some(source), Some(begins)) = (self.sources.get(i), self.begins.get(i)) else {
            return ("", 1, 1);
        };
        let line = begins.partition_point(|begin| *begin <= span.start);
        let begin = begins[line - 1];
        let column = source.text.get(begin..span.start).map_or(0, |text| text.chars().count()) + 1;
        (&source.name, line, column)
    }
}

impl Resolved {
    /// A file that means the same without params, lets, imports, bases and profiles. Behind every key stands where
    /// its value comes from, unless `plain`.
    pub fn text(&self, sources: &Sources, plain: bool) -> String {
        let lines = Lines::new(sources);
        let mut text = format!("hift {VERSION}\n");
        for block in &self.blocks {
            text.push('\n');
            write_block(block, 0, (!plain).then_some(&lines), &mut text);
        }
        // It is a file like any other, in the layout that all have.
        format(&text).unwrap_or(text)
    }

    /// The same for machines.
    pub fn json(&self, sources: &Sources) -> Json {
        let lines = &Lines::new(sources);
        let names: Vec<Json> = self
            .names
            .iter()
            .map(|name| {
                let value = name.value.as_ref().map(|value| value.to_string());
                json!({ "name": name.name, "value": value, "origin": name.origin.json(lines) })
            })
            .collect();
        let blocks: Vec<Json> = self.blocks.iter().map(|block| block.json(lines)).collect();
        json!({ "version": VERSION, "names": names, "blocks": blocks })
    }

    /// The same as a file in another folder says it: relative paths, which start from `from`, start from `to`.
    /// Both are whole paths without links.
    pub fn moved(&self, from: &Path, to: &Path) -> Self {
        let mut moved = self.clone();
        for block in &mut moved.blocks {
            for entry in &mut block.entries {
                move_paths(&mut entry.value, entry.key.takes, &|path| seen_from(to, from, path));
            }
        }
        moved
    }

    /// The block of that kind and name.
    pub fn block(&self, kind: &str, name: &str) -> Option<&ResolvedBlock> {
        self.blocks.iter().find(|block| block.kind.name == kind && block.name == name)
    }
}

impl ResolvedBlock {
    pub fn entry(&self, key: &str) -> Option<&ResolvedEntry> {
        self.entries.iter().find(|entry| entry.key.name == key)
    }

    fn json(&self, lines: &Lines) -> Json {
        let keys: Vec<Json> = self
            .entries
            .iter()
            .map(|entry| {
                let within: Vec<Json> = entry
                    .within
                    .iter()
                    .map(|part| {
                        let (path, value) = (&part.path, part.value.to_string());
                        json!({ "path": path, "value": value, "origin": part.origin.json(lines) })
                    })
                    .collect();
                let (key, value) = (entry.key.name, entry.value.to_string());
                json!({ "key": key, "value": value, "origin": entry.origin.json(lines), "within": within })
            })
            .collect();
        let varied: Vec<Json> = self
            .varied
            .iter()
            .map(|varied| {
                let values = varied.values.iter();
                let values: Vec<Json> = values
                    .map(|(value, stages)| json!({ "value": value.to_string(), "stages": stages }))
                    .collect();
                json!({ "key": varied.key.name, "values": values })
            })
            .collect();
        let parts: Vec<Json> = self.parts.iter().map(|part| part.json(lines)).collect();
        json!({ "kind": self.kind.name, "name": self.name, "keys": keys, "varied": varied, "parts": parts })
    }
}

fn write_block(block: &ResolvedBlock, depth: usize, lines: Option<&Lines>, text: &mut String) {
    let indent = "    ".repeat(depth);
    let name = if block.name.is_empty() { String::new() } else { format!(" {}", block.name) };
    text.push_str(&format!("{indent}{}{name} {{\n", block.kind.name));
    for entry in &block.entries {
        text.push_str(&format!("{indent}    {} = {}", entry.key.name, entry.value));
        if let Some(lines) = lines {
            text.push_str(&format!("  # {}", comment(entry, lines)));
        }
        text.push('\n');
    }
    if lines.is_some() {
        for varied in &block.varied {
            let values: Vec<String> = varied
                .values
                .iter()
                .map(|(value, stages)| format!("{value} for {}", stages.join(", ")))
                .collect();
            text.push_str(&format!("{indent}    # {} = {}\n", varied.key.name, values.join("; ")));
        }
    }
    for part in &block.parts {
        write_block(part, depth + 1, lines, text);
    }
    text.push_str(&format!("{indent}}}\n"));
}

/// `written, x.hift:12; peak: param peak, x.hift:3; end: default`
fn comment(entry: &ResolvedEntry, lines: &Lines) -> String {
    let mut comment = entry.origin.text(lines);
    for part in &entry.within {
        comment.push_str(&format!("; {}: {}", part.path, part.origin.text(lines)));
    }
    // Names of files may hold anything.
    comment.replace(['\n', '\r'], " ")
}

/// A path that starts from one folder, as it starts from another. The `..` that it begins with lead out of the
/// folder, which is no link; those further inside may stand behind one, and stay.
pub(crate) fn seen_from(folder: &Path, start: &Path, path: &str) -> String {
    if Path::new(path).is_absolute() {
        return path.to_owned();
    }
    let mut whole = start.to_path_buf();
    let mut parts = Path::new(path).components().peekable();
    while let Some(part) = parts.next_if(|part| matches!(part, Component::CurDir | Component::ParentDir)) {
        if part == Component::ParentDir {
            whole.pop();
        }
    }
    whole.extend(parts);
    let (whole, folder): (Vec<Component>, Vec<Component>) =
        (whole.components().collect(), folder.components().collect());
    let shared = whole.iter().zip(&folder).take_while(|(one, other)| one == other).count();
    // Nothing is shared with another drive.
    let up = folder[shared..].iter().filter(|_| shared > 0).map(|_| Component::ParentDir);
    let seen: PathBuf = up.chain(whole[shared..].iter().copied()).collect();
    match seen.as_os_str().is_empty() {
        true => ".".into(),
        false if cfg!(windows) => seen.to_string_lossy().replace('\\', "/"),
        false => seen.to_string_lossy().into_owned(),
    }
}

/// Changes every path in a value.
fn move_paths(value: &mut Value, forms: &'static [Form], moved: &impl Fn(&str) -> String) {
    let is_path = forms.iter().any(|form| matches!(form, Form::Path));
    match &mut value.term {
        Term::Text(path) if is_path => *path = moved(path),
        Term::Call(name, arguments) => {
            let functions = forms.iter().filter_map(|form| match form {
                Form::Function(function) => Some(*function),
                _ => None,
            });
            let Some(function) = functions.into_iter().find(|function| function.name == name.text) else {
                return;
            };
            for (i, argument) in arguments.iter_mut().enumerate() {
                let key = match &argument.name {
                    Some(name) => function.arguments.iter().find(|key| key.name == name.text),
                    None => function.arguments.get(i),
                };
                if let Some(key) = key {
                    move_paths(&mut argument.value, key.takes, moved);
                }
            }
        }
        Term::List(values) => {
            for form in forms {
                if let Form::List(inner, _) = form {
                    values.iter_mut().for_each(|value| move_paths(value, inner, moved));
                }
            }
        }
        Term::Record(entries) => {
            for form in forms {
                if let Form::Record(inner, _) = form {
                    entries.iter_mut().for_each(|entry| move_paths(&mut entry.value, inner, moved));
                }
            }
        }
        Term::Number(_) | Term::Amount(..) | Term::Text(_) | Term::Boolean(_) | Term::Word(_) => {}
        Term::Mixed(_) | Term::Sum(_) | Term::Product(_) | Term::Negative(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_same_place_from_another_folder() {
        let check = |from: &str, to: &str, path: &str, moved: &str| {
            assert_eq!(seen_from(Path::new(to), Path::new(from), path), moved, "{path}");
        };
        check("/a/pipelines", "/a/runs/x", "rows.jsonl", "../../pipelines/rows.jsonl");
        check("/a/pipelines", "/a/runs/x", "../out/x", "../../out/x");
        check("/a/pipelines", "/a/runs/x", "../../b", "../../../b");
        check("/a/pipelines", "/a/runs/x", "./m/../n", "../../pipelines/m/../n");
        check("/a/pipelines", "/a/runs/x", "/data/rows", "/data/rows");
        check("/a", "/a/runs/x", "rows", "../../rows");
        check("/a/b", "/a", "rows", "b/rows");
        check("/a", "/a", "rows", "rows");
        check("/a", "/a", ".", ".");
        check("/a/b", "/a", "..", ".");
        check("/a/b", "/a/b", "../b/rows", "rows");
        check("/a", "/a", "models//llama/", "models/llama");
    }
}
