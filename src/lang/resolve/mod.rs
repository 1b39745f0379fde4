//! [`File`] to [`Pipeline`]: every name found, every default filled in, every value typed.
//!
//! Reading order: `params` (values with names), `check` (blocks and values against the schema), `complain` (what is said where they do not pass),
//! `definitions` and `stages` (what passed, as the pipeline's types). This file says in which order
//! that happens, finds blocks by name and puts the stages into the order in which they run.

mod check;
mod complain;
mod datum;
mod definitions;
mod params;
mod stages;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use crate::problem::{Problem, Problems, Span};

use super::names::nearest;
use super::pipeline::{Pipeline, Stage};
use super::schema::{self, Role};
use super::syntax::{Block, File, Term};
use super::wording;

use check::Checker;
use complain::article;
use datum::{Checked, Datum, Index, title};
use params::Params;
use stages::Builder;

pub(in crate::lang) use params::applied;

/// The language version that this program reads.
pub const VERSION: u32 = 1;

/// What a pipeline depends on besides its file.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The folder that relative paths start from.
    pub folder: PathBuf,
    /// Params by name with the text of their value, as `--set` gives them; the last one of a name counts.
    pub set: Vec<(String, String)>,
}

/// The pipeline that a file means, and everything that is wrong with it. There is a pipeline exactly if
/// no problem is an error and `parse` has read the whole file.
pub fn resolve(file: &File, options: &Options) -> (Option<Pipeline>, Problems) {
    let mut problems = Problems::default();
    version(file, &mut problems);
    let params = Params::new(file, &options.set, &mut problems);
    let index = index(file, &mut problems);

    let mut checker = Checker { params: &params, index: &index, problems: &mut problems };
    let checked: Vec<Checked> = index.blocks.iter().map(|(kind, block)| checker.block(kind, block)).collect();
    let (stages, definitions): (Vec<_>, Vec<_>) =
        checked.into_iter().partition(|checked| checked.kind.role == Role::Stage);

    // Conflicts inside a definition are told once, however many stages use it.
    for definition in &definitions {
        match definition.kind.name {
            "groups" => drop(definitions::groups(definition, &mut problems)),
            "schedule" => drop(definitions::schedule(definition, &mut problems)),
            "optimizer" => drop(definitions::optimizer(definition, &mut problems)),
            _ => {}
        }
    }
    if stages.is_empty() && !file.is_damaged() {
        problems.push(no_stage(file));
    }
    let order = in_order(&stages, &mut problems);
    let mut builder = Builder {
        definitions: &definitions,
        problems: &mut problems,
        trained: HashMap::new(),
        written: HashMap::new(),
    };
    let built: Vec<Option<Stage>> = order.iter().map(|i| builder.stage(&stages[*i])).collect();
    if !problems.has_errors() && !file.is_damaged() {
        unused(&definitions, &stages, &params, &mut problems);
    }
    sort(&mut problems);
    if problems.has_errors() || file.is_damaged() {
        return (None, problems);
    }
    let Some(stages) = built.into_iter().collect::<Option<Vec<_>>>() else {
        // A word that the schema allows and nothing here understands; a test builds every word.
        problems.push(
            Problem::new("hift::lang::bug", "this file is right, but hift does not understand it")
                .help("please report it together with the file"),
        );
        return (None, problems);
    };
    let pipeline =
        Pipeline { folder: options.folder.clone(), version: VERSION, params: params.values(), stages };
    (Some(pipeline), problems)
}

/// Puts problems into the order of the file; those without a place come first. Says nothing twice.
pub(super) fn sort(problems: &mut Problems) {
    problems.0.sort_by_key(|problem| problem.labels.first().map_or(0, |label| label.span.start + 1));
    problems.0.dedup();
}

fn version(file: &File, problems: &mut Problems) {
    match &file.version {
        None if file.items.is_empty() && file.damaged => {}
        None => {
            let first = file.blocks().map(|block| block.kind.span.start);
            let first = first.chain(file.params().map(|param| param.name.span.start)).min().unwrap_or(0);
            problems.push(
                Problem::new("hift::lang::version", "the file does not say its language version")
                    .label(Span::new(first, first), "before this")
                    .help(format!("write `hift {VERSION}` as the first line")),
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
fn index<'f>(file: &'f File, problems: &mut Problems) -> Index<'f> {
    let mut index = Index { blocks: Vec::new(), damaged: file.damaged };
    for block in file.blocks() {
        let word = &block.kind;
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
        let first = index.blocks.iter().find(|(other, block): &&(&'static schema::Kind, &Block)| {
            let rivals = other.name == kind.name || (other.role == Role::Stage && kind.role == Role::Stage);
            rivals && block.name.as_ref().is_some_and(|other| other.text == name.text)
        });
        if let Some((other, first)) = first {
            let noun =
                if other.name == kind.name { format!("{} blocks", kind.name) } else { "stages".into() };
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
        index.blocks.push((kind, block));
    }
    index
}

fn unknown_kind(block: &Block) -> Problem {
    let word = &block.kind;
    let problem = Problem::new(
        "hift::lang::unknown_block",
        format!("there is no kind of block called `{}`", word.text),
    )
    .label(word.span, "not known");
    let part_of = schema::KINDS.iter().find(|kind| kind.parts.iter().any(|part| part.name == word.text));
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

fn no_stage(file: &File) -> Problem {
    let problem = Problem::new("hift::lang::no_stage", "nothing in this file runs");
    let problem = match file.blocks().last() {
        Some(last) => problem.label(last.head(), "this is the last block, and none is a stage"),
        None => problem,
    };
    problem.help("add a stage: `train NAME { ... }`, `evaluate`, `generate` or `export`")
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
    let need = |i: usize| {
        let (name, span) = needs(&stages[i])?;
        let position = stages.iter().position(|other| other.kind.name == "train" && other.name == name)?;
        Some((position, span))
    };
    let mut order: Vec<usize> = Vec::new();
    let mut done = vec![false; stages.len()];
    while let Some(next) = (0..stages.len()).find(|i| !done[*i] && need(*i).is_none_or(|(j, _)| done[j])) {
        done[next] = true;
        order.push(next);
    }
    let mut told: HashSet<usize> = HashSet::new();
    for start in (0..stages.len()).filter(|i| !done[*i]) {
        // Each stage needs one other at most: following the needs runs into the circle.
        let mut path = vec![start];
        while let Some((next, _)) = need(path[path.len() - 1]) {
            if let Some(at) = path.iter().position(|seen| *seen == next) {
                path.drain(..at);
                break;
            }
            path.push(next);
        }
        if path.iter().any(|i| told.contains(i)) {
            continue;
        }
        told.extend(&path);
        let first = path.iter().position(|i| Some(i) == path.iter().min()).unwrap_or(0);
        path.rotate_left(first);
        let names: Vec<String> =
            path.iter().chain(path.first()).map(|i| format!("`{}`", stages[*i].name)).collect();
        let mut problem = Problem::new(
            "hift::lang::circle",
            match path.as_slice() {
                [one] => format!("`{}` goes on from itself", stages[*one].title()),
                _ => format!("these stages go on from each other in a circle: {}", names.join(" from ")),
            },
        );
        for i in &path {
            if let Some((j, span)) = need(*i) {
                problem =
                    problem.label(span, format!("`{}` needs `{}` first", stages[*i].name, stages[j].name));
            }
        }
        problems.push(problem.help("have one of them start from a model block: `model = NAME`"));
    }
    order
}

/// Warns about what no stage uses.
fn unused(definitions: &[Checked], stages: &[Checked], params: &Params, problems: &mut Problems) {
    let named: HashSet<(&str, &str)> = stages
        .iter()
        .flat_map(|stage| stage.fields.iter())
        .filter_map(|(_, value)| match &value.value {
            Datum::Block(kind, name) => Some((*kind, name.as_str())),
            _ => None,
        })
        .collect();
    for definition in definitions {
        if !named.contains(&(definition.kind.name, definition.name.as_str())) {
            problems.push(
                Problem::warning(
                    "hift::lang::unused",
                    format!("no stage uses `{}`", title(definition.block)),
                )
                .label(definition.head(), "not used")
                .help(format!(
                    "remove it, or write `{} = {}` in a stage",
                    definition.kind.name, definition.name
                )),
            );
        }
    }
    for param in params.unused() {
        problems.push(
            Problem::warning("hift::lang::unused", format!("nothing uses the param `{}`", param.name.text))
                .label(param.name.span, "not used")
                .help(format!("remove it, or write `{}` where its value applies", param.name.text)),
        );
    }
}
