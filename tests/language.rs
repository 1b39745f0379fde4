//! The language from outside: every file under `tests/cases`, with the expectation at the place it is about.
//!
//! - `... # error unknown_key `rat``: this line has that problem, `hift::lang::unknown_key`, and its first label
//!   stands under the text in backticks (left out where there is nothing to quote).
//! - `# ^ error ...`, alone on a line: the same for the line above it.
//! - `#! error set`: a problem without a place. `#! set peak=1`: run with `--set peak=1`.
//! - `#! whole`: the file is complete. Otherwise every kind of block that a case does not show is taken from `rest.hift`.
//!
//! No other problem may come up. What a user reads is in the `.txt` beside each case that has problems;
//! `UPDATE_EXPECT=1` writes it anew.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use hift::lang::{self, Look, Options, Source};
use hift::problem::{Problem, Severity};

const REST: &str = include_str!("cases/rest.hift");

/// A case as it is run.
struct Case {
    name: String,
    path: PathBuf,
    text: String,
    options: Options,
    expected: Vec<Expected>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Expected {
    /// From 1; 0 is no place.
    line: usize,
    problem: String,
    quote: Option<String>,
}

fn cases() -> Vec<Case> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => collect(&path, found),
                Some(extension) if extension == "hift" && !path.ends_with("rest.hift") => found.push(path),
                _ => {}
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
            case(name, path, text)
        })
        .collect()
}

fn case(name: String, path: PathBuf, commented: String) -> Case {
    let mut options = Options { folder: PathBuf::from("/pipelines"), ..Options::default() };
    let mut expected = Vec::new();
    let mut whole = false;
    let mut above = 0;
    // As a user would have written it: without the expectations.
    let mut text = String::new();
    for (i, line) in commented.lines().enumerate() {
        let line_number = i + 1;
        let end = ["#!", "# ^ ", "# error ", "# warning "].iter().filter_map(|mark| line.find(mark)).min();
        text.push_str(line[..end.unwrap_or(line.len())].trim_end());
        text.push('\n');
        if let Some(directive) = line.strip_prefix("#! ") {
            match directive.split_once(' ') {
                None if directive == "whole" => whole = true,
                Some(("set", set)) => {
                    let (name, value) = set.split_once('=').expect("#! set NAME=VALUE");
                    options.set.push((name.into(), value.into()));
                }
                Some(("error", code)) => {
                    expected.push(Expected { line: 0, problem: format!("error {code}"), quote: None });
                }
                _ => panic!("{name}: {directive}"),
            }
            continue;
        }
        if !line.trim_start().starts_with("# ^ ") {
            above = line_number;
        }
        for part in line.split('#').skip(1).map(str::trim) {
            let (line, part) = (above, part.strip_prefix("^ ").unwrap_or(part));
            if !part.starts_with("error ") && !part.starts_with("warning ") {
                continue;
            }
            let (problem, quote) = match part.split_once(" `") {
                Some((problem, quote)) => (problem, Some(quote.trim_end_matches('`').to_owned())),
                None => (part, None),
            };
            expected.push(Expected { line, problem: problem.to_owned(), quote });
        }
    }
    expected.sort();
    if !whole {
        text.push('\n');
        let kinds: Vec<&str> = REST.lines().filter_map(|line| line.split(' ').next()).collect();
        for (kind, line) in kinds.iter().zip(REST.lines()) {
            if !text.lines().any(|own| own.strip_prefix(kind).is_some_and(|rest| rest.starts_with(' '))) {
                writeln!(text, "{line}").unwrap();
            }
        }
    }
    Case { name, path, text, options, expected }
}

fn found(problem: &Problem, text: &str, expected: &[Expected]) -> Expected {
    let severity = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let code = problem.code.strip_prefix("hift::lang::").unwrap_or(problem.code);
    let (line, quote) = match problem.labels.first() {
        None => (0, None),
        Some(label) => {
            let quote = text[label.span.start..label.span.end].lines().next().unwrap_or("").to_owned();
            (text[..label.span.start].matches('\n').count() + 1, Some(quote))
        }
    };
    let problem = format!("{severity} {code}");
    // Without a quote in the expectation, any will do.
    let any = expected.iter().any(|e| e.line == line && e.problem == problem && e.quote.is_none());
    Expected { line, problem, quote: quote.filter(|_| !any) }
}

#[test]
fn every_case_has_its_problems_and_no_others() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut wrong = String::new();
    for case in cases() {
        let (pipeline, problems) = lang::check(&case.text, &case.options);
        assert_eq!(pipeline.is_none(), problems.has_errors(), "{}", case.name);
        let mut actual: Vec<Expected> =
            problems.0.iter().map(|p| found(p, &case.text, &case.expected)).collect();
        actual.sort();
        if actual != case.expected {
            writeln!(wrong, "{}:\n  expected {:#?}\n  found    {actual:#?}", case.name, case.expected)
                .unwrap();
        }
        for problem in &problems.0 {
            let help = problem.help.as_deref().unwrap_or("");
            if help.is_empty() || help.ends_with('.') || problem.message.ends_with('.') {
                writeln!(wrong, "{}: no help, or a full stop: {} / {help}", case.name, problem.message)
                    .unwrap();
            }
        }
        let source = Source::new(case.name.rsplit('/').next().unwrap(), case.text.clone());
        let drawn = lang::render(&problems, &source, Look::default());
        let golden = case.path.with_extension("txt");
        if problems.0.is_empty() {
            assert!(!golden.exists(), "{} has no problems, but a .txt", case.name);
        } else if update {
            fs::write(&golden, &drawn).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default().replace("\r\n", "\n") != drawn {
            writeln!(wrong, "{}: it is drawn differently now (UPDATE_EXPECT=1 accepts):\n{drawn}", case.name)
                .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_printed_file_reads_as_itself_and_means_the_same() {
    for case in cases() {
        let (pipeline, _) = lang::check(&case.text, &case.options);
        let printed = lang::parse(&case.text).0.to_string();
        if let Some(pipeline) = pipeline {
            let (again, problems) = lang::check(&printed, &case.options);
            assert_eq!(lang::parse(&printed).0.to_string(), printed, "{}", case.name);
            let json = |pipeline| serde_json::to_string(&pipeline).unwrap();
            assert_eq!(json(again.unwrap_or_else(|| panic!("{problems}"))), json(pipeline), "{}", case.name);
        }
    }
}

fn design() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/good/everything.hift"))
        .unwrap()
}

#[test]
fn a_file_cut_off_at_any_byte_is_answered() {
    let text = design();
    let start = Instant::now();
    for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
        let (pipeline, problems) = lang::check(&text[..end], &Options::default());
        assert!(pipeline.is_some() || problems.has_errors(), "cut at {end}");
        for label in problems.0.iter().flat_map(|problem| &problem.labels) {
            assert!(label.span.start <= label.span.end && label.span.end <= end, "cut at {end}: {problems}");
            assert!(text.is_char_boundary(label.span.start) && text.is_char_boundary(label.span.end));
        }
    }
    println!("{} cuts in {:?}", text.len(), start.elapsed());
}

#[test]
fn a_file_with_any_byte_changed_or_lost_is_answered_and_drawn() {
    let text = design();
    for at in
        (0..text.len()).step_by(17).filter(|at| text.is_char_boundary(*at) && text.is_char_boundary(at + 1))
    {
        for other in ["", "}", "{", "\"", "é", "="] {
            let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            let (_, problems) = lang::check(&changed, &Options::default());
            if at % 3 == 0 {
                lang::render(&problems, &Source::new("x", changed), Look::default());
            }
        }
    }
}

#[test]
fn line_ends_and_a_byte_order_mark_change_nothing() {
    let text = design();
    let json = |text: &str| {
        let (pipeline, problems) = lang::check(text, &Options::default());
        serde_json::to_string(&pipeline.unwrap_or_else(|| panic!("{problems}"))).unwrap()
    };
    assert_eq!(json(&text.replace('\n', "\r\n")), json(&text));
    assert_eq!(json(&format!("\u{FEFF}{text}")), json(&text));
}

#[test]
fn the_text_as_run_holds_the_values_that_were_set() {
    let source = Source::new("x", "hift 1\nparam a = 1e-5  # the rate\nparam out = \"x\"\nparam c = [1]\n");
    let check = |sets: &[(&str, &str)], text: &str| {
        let sets: Vec<(String, String)> = sets.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        assert_eq!(lang::applied(&source, &sets), text);
    };
    check(&[], &source.text);
    check(&[("b", "1")], &source.text);
    check(&[("a", "]")], &source.text);
    check(
        &[("out", "runs/1"), ("a", "1"), ("a", "2e-5")],
        "hift 1\nparam a = 2e-5  # the rate\nparam out = \"runs/1\"\nparam c = [1]\n",
    );
}
