//! `hift explain` from outside: every code that the source raises is explained, no other is, and every example does
//! what it says.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hift::explain::{self, Explanation};
use hift::lang::pipeline::{Data, Tokenizer};
use hift::lang::{self, Look, Options, Outside, Pipeline, Source, Sources};
use hift::model::Model;
use hift::plan::{self, Rows, World};
use hift::problem::{Problem, Problems};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

#[test]
fn every_code_that_is_raised_is_explained_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    let mut raised = BTreeSet::new();
    for path in paths.iter().filter(|path| !path.starts_with(root.join("explain"))) {
        let text = fs::read_to_string(path).unwrap();
        for (at, start) in text.match_indices("\"hift::") {
            let code = text[at + start.len()..].split('"').next().unwrap();
            // A text that only shows how a code is written is none.
            if !code.contains('{') {
                raised.insert(code.to_owned());
            }
        }
    }
    let explained: BTreeSet<String> = explain::all().map(|own| own.code.to_owned()).collect();
    assert!(raised.len() > 90, "the codes were found: {raised:?}");
    assert_eq!(raised.difference(&explained).collect::<Vec<_>>(), Vec::<&String>::new(), "not explained");
    assert_eq!(explained.difference(&raised).collect::<Vec<_>>(), Vec::<&String>::new(), "never raised");
    assert_eq!(explain::all().count(), explained.len(), "explained twice");
}

#[test]
fn an_explanation_is_a_line_and_a_paragraph() {
    for Explanation { code, line, text, example } in explain::all() {
        for sentence in [line, text] {
            assert!(sentence.ends_with('.') && !sentence.contains('\n'), "{code}: {sentence}");
        }
        assert!(line.chars().count() <= 140, "{code}: {line}");
        assert!(example.is_some() || !matches!(*code, "lang::syntax"), "{code}");
    }
}

/// A model for every path, and one file that can be imported.
struct Table;

impl Outside for Table {
    fn read(&self, path: &Path) -> Result<String, String> {
        match path.ends_with("shared.hift") {
            true => Ok("hift 1\n".into()),
            false => Err("there is no such file".into()),
        }
    }

    fn env(&self, _: &str) -> Option<String> {
        None
    }
}

impl World for Table {
    fn read(&mut self, _: &Path) -> Result<String, Problem> {
        Ok(include_str!("golden/models/llama-tiny/config.json").into())
    }

    fn check_weights(&mut self, _: &Path, _: &Model) -> Result<(), Problems> {
        Ok(())
    }

    fn rows(&mut self, _: &Pipeline, _: &Data, _: &Tokenizer, _: &Model) -> Result<Option<Rows>, Problems> {
        Ok(None)
    }
}

/// The codes that a part of a file raises, completed as a case is.
fn codes(part: &str, plans: bool) -> Vec<&'static str> {
    found(part, plans).0.0.iter().map(|problem| problem.code.trim_start_matches("hift::")).collect()
}

fn found(part: &str, plans: bool) -> (Problems, Sources) {
    let mut text = if part.starts_with("hift") { String::new() } else { "hift 1\n".to_owned() };
    writeln!(text, "{part}").unwrap();
    for line in include_str!("cases/rest.hift").lines() {
        let kind = line.split(' ').next().unwrap();
        if !part.lines().any(|own| own.strip_prefix(kind).is_some_and(|rest| rest.starts_with(' '))) {
            writeln!(text, "{line}").unwrap();
        }
    }
    let options = Options { outside: Arc::new(Table), ..Options::default() };
    let reading = lang::read(Source::new("example.hift", text), &options);
    let mut problems = reading.problems;
    if let (true, Some(pipeline)) = (plans, reading.pipeline) {
        match plan::compile(&pipeline, &mut Table) {
            Ok(plan) => problems.0.extend(plan.warnings),
            Err(found) => problems.0.extend(found.0),
        }
    }
    (problems, reading.loaded.sources)
}

/// What a user reads about each code: the language's beside its cases, the plan's beside this test.
#[test]
fn every_code_that_a_file_can_show_is_drawn() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut paths = Vec::new();
    sources(&root.join("cases"), &mut paths);
    let drawn: String = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    for Explanation { code, example, .. } in explain::all() {
        if code.starts_with("lang::") {
            // A mistake of hift itself has no case.
            let shown = drawn.lines().any(|line| line.strip_prefix("hift::") == Some(*code));
            assert!(shown || *code == "lang::bug", "{code} is in no case under tests/cases");
        } else if let Some(example) = example {
            let (problems, sources) = found(example.before, true);
            let about = |problem: &&Problem| problem.code.strip_prefix("hift::") == Some(*code);
            let problems = Problems(problems.0.iter().filter(about).cloned().collect());
            let now = lang::render(&problems, &sources, Look::default());
            expect_test::expect_file![root.join(format!("drawn/{}.txt", code.replace("::", "-")))]
                .assert_eq(&now);
        }
    }
}

#[test]
fn every_example_has_the_problem_before_and_none_after() {
    let mut wrong = String::new();
    for Explanation { code, example, .. } in explain::all() {
        let Some(example) = example else { continue };
        let plans = !code.starts_with("lang::");
        let (before, after) = (codes(example.before, plans), codes(example.after, plans));
        if !before.contains(code) {
            writeln!(wrong, "{code}: not raised by its example, but {before:?}").unwrap();
        }
        if !after.is_empty() {
            writeln!(wrong, "{code}: the example is still wrong: {after:?}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_code_is_found_by_its_end_and_by_its_likeness() {
    let check = |word: &str, found: Result<&[&str], Option<&str>>| {
        let named = explain::named(word).map(|all| all.iter().map(|own| own.code).collect::<Vec<_>>());
        assert_eq!(named.as_deref().map_err(|meant| *meant), found, "{word}");
    };
    check("hift::lang::unknown_key", Ok(&["lang::unknown_key"]));
    check("lang::unknown_key", Ok(&["lang::unknown_key"]));
    check("unknown_key", Ok(&["lang::unknown_key"]));
    check("too_long", Ok(&["plan::too_long", "data::too_long"]));
    check("unknwon_key", Err(Some("lang::unknown_key")));
    check("hift::lang::unknown_kye", Err(Some("lang::unknown_key")));
    check("nothing_like_any_code", Err(None));
}
