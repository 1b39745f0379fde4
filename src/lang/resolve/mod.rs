//! [`File`] to [`Pipeline`]: every name found, every default filled in, every value typed.
//!
//! Reading order: `bindings` (params and lets), `calculate` (what their values come to), `check` (blocks and values against the schema), `complain` (what is said where they do not pass),
//! `definitions` and `stages` (what passed, as the pipeline's types), `explain` (what passed, with its origins), `warnings`
//! (what is legal but surely unwanted). This file says in which order
//! that happens, finds blocks by name and puts the stages into the order in which they run.

mod bindings;
mod calculate;
mod check;
mod complain;
mod datum;
mod definitions;
mod explain;
mod scope;
mod stages;
mod warnings;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::problem::{Edit, Problem, Problems, Span};

use super::load::Loaded;
use super::merge::merge;
use super::names::{nearest, sure};
use super::pipeline::{Hook, Pipeline, Stage};
use super::resolved::Resolved;
use super::schema::{self, Form, Role};
use super::source::Sources;
use super::syntax::{Block, Entry, File, Term, Value};
use super::{MAX_PROBLEMS, too_many, wording};

use bindings::{Bindings, What};
use check::Checker;
use complain::article;
use datum::{Checked, Datum, Index};
use explain::{Explained, explain};
use stages::Builder;

pub use bindings::type_names;
pub use calculate::ENV;
pub use scope::Scope;

/// The language version that this program reads.
pub const VERSION: u32 = 1;

/// What a pipeline depends on besides its file.
#[derive(Clone)]
pub struct Options {
    /// The folder that relative paths start from.
    pub folder: PathBuf,
    /// Params by name with the text of their value, as `--set` gives them; the last one of a name counts.
    pub set: Vec<(String, String)>,
    /// The profiles that apply, in that order.
    pub profiles: Vec<String>,
    pub outside: Arc<dyn Outside + Send + Sync>,
}

impl Default for Options {
    fn default() -> Self {
        Self { folder: PathBuf::new(), set: Vec::new(), profiles: Vec::new(), outside: Arc::new(Nothing) }
    }
}

/// What a file may ask of the world while it is read: the text of files that it imports, environment variables.
pub trait Outside {
    /// The text of a file.
    ///
    /// # Errors
    /// When it cannot be read; says why.
    fn read(&self, path: &Path) -> Result<String, String>;
    fn env(&self, name: &str) -> Option<String>;
}

/// An empty world.
#[derive(Debug, Clone, Copy)]
pub struct Nothing;

impl Outside for Nothing {
    fn read(&self, _: &Path) -> Result<String, String> {
        Err("nothing can be imported here".into())
    }

    fn env(&self, _: &str) -> Option<String> {
        None
    }
}

/// Whether an optimizer of that name needs no `algorithm`.
pub(super) fn is_algorithm(name: &str) -> bool {
    let key = schema::kind("optimizer").and_then(|kind| kind.keys.iter().find(|key| key.name == "algorithm"));
    let forms = key.map_or(&[][..], |key| key.takes);
    forms.iter().any(|form| matches!(form, Form::Word(word, _) if *word == name))
}

/// What a file comes to.
#[derive(Debug, Default)]
pub struct Resolution {
    /// There is one exactly if no problem is an error and the whole file could be read.
    pub pipeline: Option<Pipeline>,
    /// Every value with its origin, as far as it is known.
    pub resolved: Resolved,
    pub problems: Problems,
}

/// The pipeline that a file means, and everything that is wrong with it.
pub fn resolve(loaded: &Loaded, options: &Options) -> Resolution {
    let mut problems = Problems::default();
    let file = &loaded.file;
    version(file, &loaded.sources, 0, &mut problems);
    let merged = merge(file, &options.profiles, &mut problems);
    let bindings = Bindings::new(file, &loaded.given, &merged.given, options, &mut problems);
    let damaged = file.damaged || merged.blocks.iter().any(Block::is_damaged);
    let index = index(file, &merged.blocks, &mut problems);

    let mut checker = Checker {
        bindings: &bindings,
        index: &index,
        sources: &loaded.sources,
        options,
        problems: &mut problems,
        n_values: 0,
        depth: 0,
    };
    let checked: Vec<Checked> = index.blocks.iter().map(|(kind, block)| checker.block(kind, block)).collect();
    let (stages, definitions): (Vec<_>, Vec<_>) =
        checked.into_iter().partition(|checked| checked.kind.role == Role::Stage);
    let definitions: Vec<Checked> =
        definitions.into_iter().filter(|definition| !index.is_partial(definition.block)).collect();

    // Conflicts inside a definition are told once, however many stages use it.
    for definition in &definitions {
        match definition.kind.name {
            "groups" => drop(definitions::groups(definition, &mut problems)),
            "schedule" => drop(definitions::schedule(definition, &mut problems)),
            "optimizer" => drop(definitions::optimizer(definition, &mut problems)),
            _ => {}
        }
    }
    let hooks: Vec<Option<Hook>> =
        definitions.iter().filter(|own| own.kind.name == "hook").map(definitions::hook).collect();
    let order = in_order(&stages, &mut problems);
    let mut builder = Builder {
        definitions: definitions.iter().map(|own| ((own.kind.name, own.name.as_str()), own)).collect(),
        sources: &loaded.sources,
        problems: &mut problems,
        trained: HashMap::new(),
        written: HashMap::new(),
    };
    let built: Vec<Option<Stage>> = match builder.is_too_much(&stages) {
        true => Vec::new(),
        false => order.iter().map(|i| builder.stage(&stages[*i])).collect(),
    };
    if !problems.has_errors() && !damaged {
        match stages.is_empty() {
            true => problems.push(no_stage(&merged.blocks)),
            false => {
                let own = loaded.sources.first().map_or(0, |source| source.text.len());
                unused(&definitions, &stages, &index, &bindings, own, &mut problems);
            }
        }
    }
    sort(&mut problems);
    let whole = built.iter().all(Option::is_some) && hooks.iter().all(Option::is_some);
    let hooks = hooks.into_iter().flatten().collect();
    let built: Vec<Stage> = built.into_iter().flatten().collect();
    let resolved = explain(&Explained {
        file,
        sources: &loaded.sources,
        bindings: &bindings,
        definitions: &definitions,
        stages: order.iter().map(|i| &stages[*i]).collect(),
        built: &built,
    });
    if problems.has_errors() || damaged {
        return Resolution { pipeline: None, resolved, problems };
    }
    if !whole {
        // A word that the schema allows and nothing here understands; a test builds every word.
        problems.push(
            Problem::new("hift::lang::bug", "this file is right, but hift does not understand it")
                .help("please report it together with the file"),
        );
        return Resolution { pipeline: None, resolved, problems };
    }
    let folder = options.folder.clone();
    let pipeline = Pipeline {
        folder,
        version: VERSION,
        params: bindings.values(),
        hooks,
        stages: built,
        snapshots: Vec::new(),
    };
    Resolution { pipeline: Some(pipeline), resolved, problems }
}

/// Puts problems into the order of the file; those without a place come first. Says nothing twice.
pub(super) fn sort(problems: &mut Problems) {
    problems.0.sort_by_key(|problem| problem.labels.first().map_or(0, |label| label.span.start + 1));
    let mut said: HashSet<(&str, String, Option<Span>)> = HashSet::new();
    problems.0.retain(|problem| {
        let place = problem.labels.first().map(|label| label.span);
        said.insert((problem.code, problem.message.clone(), place))
    });
}

/// Holds the language version of source number `i` against this program's.
pub(super) fn version(file: &File, sources: &Sources, i: usize, problems: &mut Problems) {
    match &file.version {
        None if file.items.is_empty() && file.damaged => {}
        None => {
            let text = sources.get(i).map_or("", |source| source.text.as_str());
            // Where a byte order mark stands, the text begins behind it.
            let begin = text.len() - text.trim_start_matches('\u{FEFF}').len();
            let begin = sources.place(i, Span::new(begin, begin));
            // Its first line that is neither empty nor a comment.
            let mut first = begin.start;
            for line in text.trim_start_matches('\u{FEFF}').split_inclusive('\n') {
                let start = line.len() - line.trim_start().len();
                if !line.trim().is_empty() && !line[start..].starts_with('#') {
                    first += start;
                    break;
                }
                first += line.len();
            }
            problems.push(
                Problem::new("hift::lang::version", "the file does not say its language version")
                    .label(Span::new(first, first), "before this")
                    .help(format!("write `hift {VERSION}` as the first line"))
                    .fix(begin, format!("hift {VERSION}\n")),
            );
        }
        Some(version) => {
            if !matches!(&version.term, Term::Number(number) if number.value == f64::from(VERSION)) {
                problems.push(
                    Problem::new(
                        "hift::lang::version",
                        format!("this program does not read language version {version}"),
                    )
                    .label(version.span, "not known")
                    .help(format!(
                        "write `hift {VERSION}`, or install the version of hift that the file was written for"
                    )),
                );
            }
        }
    }
}

/// The blocks of the top level that have a kind and a name of their own.
fn index<'f>(file: &File, blocks: &'f [Block], problems: &mut Problems) -> Index<'f> {
    let mut index = Index {
        blocks: Vec::new(),
        by_name: HashMap::new(),
        damaged: file.damaged,
        partial: partial(blocks),
    };
    let mut stages: HashMap<&str, &Block> = HashMap::new();
    for block in blocks {
        let word = &block.kind;
        if too_many(problems, word.span) {
            index.damaged = true;
            break;
        }
        let Some(kind) = schema::kind(&word.text) else {
            index.damaged = true;
            problems.push(unknown_kind(block));
            continue;
        };
        let Some(name) = &block.name else {
            index.damaged = true;
            let problem = Problem::new("hift::lang::name", format!("this {} block has no name", kind.name));
            let train_part =
                schema::KINDS.iter().any(|outer| outer.parts.iter().any(|part| part.name == kind.name));
            problems.push(problem.label(word.span, "a name must follow").help(match train_part {
                true => format!("write `{0} NAME {{ ... }}`, or move it into a train block", kind.name),
                false => format!("write `{} NAME {{ ... }}` with a name of your choice", kind.name),
            }));
            continue;
        };
        // Stages have their directories side by side, so their names differ even across kinds.
        let first = match kind.role {
            Role::Stage => stages.get(name.text.as_str()).copied(),
            Role::Definition | Role::Part => index.find(kind.name, &name.text),
        };
        if let Some(first) = first {
            let same = first.kind.text == kind.name;
            let noun = if same { format!("{} blocks", kind.name) } else { "stages".into() };
            problems.push(
                Problem::new(
                    "hift::lang::duplicate_block",
                    format!("there are two {noun} called `{}`", name.text),
                )
                .label(block.head(), "the second one")
                .label(first.head(), "the first one")
                .help("rename one of them, or remove it"),
            );
            continue;
        }
        if kind.role == Role::Stage {
            stages.insert(&name.text, block);
        }
        index.by_name.insert((kind.name, &name.text), block);
        index.blocks.push((kind, block));
    }
    index
}

/// Definitions that others take over and nothing names: they may leave out what the others say.
fn partial(blocks: &[Block]) -> HashSet<(String, String)> {
    fn words<'v>(value: &'v Value, found: &mut HashSet<&'v str>) {
        match &value.term {
            Term::Word(word) => drop(found.insert(word.as_str())),
            Term::List(values) => values.iter().for_each(|value| words(value, found)),
            Term::Call(_, arguments) => arguments.iter().for_each(|argument| words(&argument.value, found)),
            Term::Record(entries) => entries.iter().for_each(|entry| words(&entry.value, found)),
            Term::Number(_) | Term::Amount(..) | Term::Text(_) | Term::Boolean(_) => {}
            Term::Mixed(_) | Term::Sum(_) | Term::Product(_) | Term::Negative(_) => {}
        }
    }
    let mut named = HashSet::new();
    let entries = blocks.iter().flat_map(|block| &block.entries);
    entries.for_each(|Entry { value, .. }| words(value, &mut named));
    blocks
        .iter()
        .filter(|block| schema::kind(&block.kind.text).is_some_and(|kind| kind.role == Role::Definition))
        .filter_map(|block| Some((block.kind.text.clone(), block.base.as_ref()?.text.clone())))
        .filter(|(_, name)| !named.contains(name.as_str()))
        .collect()
}

fn unknown_kind(block: &Block) -> Problem {
    let word = &block.kind;
    let problem = Problem::new(
        "hift::lang::unknown_block",
        format!("there is no kind of block called `{}`", word.text),
    )
    .label(word.span, "not known");
    let part_of = schema::KINDS.iter().find(|kind| kind.parts.iter().any(|part| part.name == word.text));
    let meant = sure(&word.text, schema::KINDS.iter().map(|kind| kind.name));
    let problem = problem.fix_with(meant.map(|meant| Edit { span: word.span, text: meant.to_owned() }));
    match (part_of, nearest(&word.text, schema::KINDS.iter().map(|kind| kind.name))) {
        (Some(outer), _) => problem.help(format!(
            "`{} {{ ... }}` stands inside {} block: move it there",
            word.text,
            article(outer.name)
        )),
        (None, Some(meant)) => problem.help(format!("did you mean `{meant}`?")),
        (None, None) => problem.help(format!("write one of {}", wording::kinds())),
    }
}

fn no_stage(blocks: &[Block]) -> Problem {
    let problem = Problem::warning("hift::lang::no_stage", "nothing in this file runs");
    let problem = match blocks.last() {
        Some(last) => problem.label(last.head(), "this is the last block, and none is a stage"),
        None => problem,
    };
    problem.help("import it into a file with stages, or add one: `train NAME { ... }`, `evaluate`, `generate` or `export`")
}

/// The train stage that a stage goes on from, and where it says so.
fn needs<'c>(stage: &'c Checked) -> Option<(&'c str, Span)> {
    stage.fields.iter().find_map(|(_, value)| match &value.value {
        Datum::Block("train", name) => Some((name.as_str(), value.span().unwrap_or_default())),
        _ => None,
    })
}

/// The stages by their positions: what a stage needs comes before it, and otherwise as in the file.
/// Stages on a circle, or behind one, are left out.
fn in_order(stages: &[Checked], problems: &mut Problems) -> Vec<usize> {
    let trains = stages.iter().enumerate().filter(|(_, stage)| stage.kind.name == "train");
    let positions: HashMap<&str, usize> = trains.map(|(i, stage)| (stage.name.as_str(), i)).collect();
    let needed: Vec<Option<(usize, Span)>> = stages
        .iter()
        .map(|stage| {
            let (name, span) = needs(stage)?;
            Some((*positions.get(name)?, span))
        })
        .collect();
    let need = |i: usize| needed[i];
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); stages.len()];
    let mut ready: BinaryHeap<Reverse<usize>> = BinaryHeap::new();
    for (i, need) in needed.iter().enumerate() {
        match need {
            Some((before, _)) => followers[*before].push(i),
            None => ready.push(Reverse(i)),
        }
    }
    let mut order: Vec<usize> = Vec::new();
    let mut done = vec![false; stages.len()];
    while let Some(Reverse(next)) = ready.pop() {
        done[next] = true;
        order.push(next);
        ready.extend(followers[next].iter().copied().map(Reverse));
    }
    // From which start a stage was reached first.
    let mut reached: Vec<Option<usize>> = vec![None; stages.len()];
    for start in (0..stages.len()).filter(|i| !done[*i]) {
        // Each of these needs another one of these: following the needs runs into the circle.
        let mut path = Vec::new();
        let mut next = start;
        while reached[next].is_none() {
            reached[next] = Some(start);
            path.push(next);
            next = need(next).map_or(start, |(before, _)| before);
        }
        if reached[next] != Some(start) {
            // It has been told.
            continue;
        }
        path.drain(..path.iter().position(|i| *i == next).unwrap_or(0));
        let first = path.iter().position(|i| Some(i) == path.iter().min()).unwrap_or(0);
        path.rotate_left(first);
        // More of them help nobody.
        let shown = &path[..path.len().min(8)];
        let mut names: Vec<String> = shown.iter().map(|i| format!("`{}`", stages[*i].name)).collect();
        names.extend((shown.len() < path.len()).then(|| format!("{} more", path.len() - shown.len())));
        names.extend(names.first().cloned());
        let mut problem = Problem::new(
            "hift::lang::circle",
            match path.as_slice() {
                [one] => format!("`{}` goes on from itself", stages[*one].title()),
                _ => format!("these stages go on from each other in a circle: {}", names.join(" from ")),
            },
        );
        for i in shown {
            if let Some((j, span)) = need(*i) {
                problem =
                    problem.label(span, format!("`{}` needs `{}` first", stages[*i].name, stages[j].name));
            }
        }
        problems.push(problem.help("have one of them start from a model block: `model = NAME`"));
    }
    order
}

/// Warns about what no stage uses. What is imported serves others, too: only the first `own` bytes count.
fn unused(
    definitions: &[Checked],
    stages: &[Checked],
    index: &Index,
    bindings: &Bindings,
    own: usize,
    problems: &mut Problems,
) {
    let mut named = HashSet::new();
    for stage in stages {
        stage.fields.iter().for_each(|(_, value)| value.value.blocks(&mut named));
    }
    // A mix that is used uses its blocks.
    let is_named = |block: &&Checked| named.contains(&(block.kind.name, block.name.as_str()));
    let mixes: Vec<&Checked> = definitions.iter().filter(is_named).collect();
    for mix in mixes {
        mix.fields.iter().for_each(|(_, value)| value.value.blocks(&mut named));
    }
    let bases: HashSet<(&str, &str)> = index
        .blocks
        .iter()
        .filter_map(|(kind, block)| Some((kind.name, block.base.as_ref()?.text.as_str())))
        .collect();
    // A hook is named by nothing.
    let definitions = definitions.iter().filter(|definition| definition.kind.name != "hook");
    for definition in definitions.filter(|definition| definition.head().start < own) {
        if problems.0.len() >= MAX_PROBLEMS {
            return;
        }
        let is_base = bases.contains(&(definition.kind.name, definition.name.as_str()));
        if !is_base && !named.contains(&(definition.kind.name, definition.name.as_str())) {
            problems.push(
                Problem::warning("hift::lang::unused", format!("no stage uses `{}`", definition.title()))
                    .label(definition.head(), "not used")
                    .help(format!(
                        "remove it, or write `{} = {}` in a stage",
                        definition.kind.name, definition.name
                    )),
            );
        }
    }
    for binding in bindings.unused().filter(|binding| binding.name.span.start < own) {
        if problems.0.len() >= MAX_PROBLEMS {
            return;
        }
        let name = &binding.name.text;
        let what = match binding.what {
            What::Param(_) => "param",
            What::Let(_) => "let",
        };
        problems.push(
            Problem::warning("hift::lang::unused", format!("nothing uses the {what} `{name}`"))
                .label(binding.name.span, "not used")
                .help(format!("remove it, or write `{name}` where its value applies")),
        );
    }
}
