//! The language from outside: every file under `tests/cases`, with the expectation at the place it is about.
//!
//! - `... # error unknown_key `rat``: this line has that problem, `hift::lang::unknown_key`, and its first label
//!   stands under the text in backticks (left out where there is nothing to quote).
//! - `# ^ error ...`, alone on a line: the same for the line above it.
//! - `#! error set`: a problem without a place, or in a file that the case imports. `#! set peak=1`: run with
//!   `--set peak=1`; `#! profile laptop`, `#! env NAME=value`. What a case imports lies beside it, as `.part`.
//! - `#! whole`: the file is complete. Otherwise every kind of block that a case does not show is taken from `rest.hift`.
//!
//! - `#! means`: the pipeline that comes out, defaults filled in, is in the `.json` beside the case.
//! - `#! renders`: what `hift render` prints is in the `.rendered` beside the case.
//!
//! No other problem may come up. What a user reads is in the `.txt` beside each case that has problems, and what
//! `hift check --fix` makes of the file in the `.fixed` beside each case of which it makes anything;
//! `UPDATE_EXPECT=1` writes them anew.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use hift::lang::pipeline::{Pipeline, Stage};
use hift::lang::schema::{self, Form, Key, Need};
use hift::lang::{self, Look, Options, Outside, Source, Sources};
use hift::problem::{Problem, Problems, Severity, Span};
use serde_json::Value as Json;

const REST: &str = include_str!("cases/rest.hift");

/// A case as it is run.
struct Case {
    name: String,
    path: PathBuf,
    text: String,
    options: Options,
    expected: Vec<Expected>,
    means: bool,
    renders: bool,
    /// How much of the text the case itself shows.
    own: usize,
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
    let mut outside = Beside { folder: path.parent().unwrap().to_path_buf(), env: Vec::new() };
    let mut expected = Vec::new();
    let (mut whole, mut means, mut renders) = (false, false, false);
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
                None if directive == "means" => means = true,
                None if directive == "renders" => renders = true,
                Some(("set", set)) => {
                    let (name, value) = set.split_once('=').expect("#! set NAME=VALUE");
                    options.set.push((name.into(), value.into()));
                }
                Some(("profile", profile)) => options.profiles.push(profile.into()),
                Some(("env", env)) => {
                    let (name, value) = env.split_once('=').expect("#! env NAME=VALUE");
                    outside.env.push((name.into(), value.into()));
                }
                Some(("error" | "warning", _)) => {
                    expected.push(Expected { line: 0, problem: directive.into(), quote: None });
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
    options.outside = Arc::new(outside);
    let own = text.len();
    if !whole {
        text.push('\n');
        let kinds: Vec<&str> = REST.lines().filter_map(|line| line.split(' ').next()).collect();
        for (kind, line) in kinds.iter().zip(REST.lines()) {
            if !text.lines().any(|own| own.strip_prefix(kind).is_some_and(|rest| rest.starts_with(' '))) {
                writeln!(text, "{line}").unwrap();
            }
        }
    }
    Case { name, path, text, options, expected, means, renders, own }
}

/// The files beside a case, and the environment that it asks for.
struct Beside {
    folder: PathBuf,
    env: Vec<(String, String)>,
}

impl Outside for Beside {
    fn read(&self, path: &Path) -> Result<String, String> {
        // An error of the system reads differently from system to system.
        let none = "there is no such file";
        let path = self.folder.join(path.strip_prefix("/pipelines").map_err(|_| none)?);
        fs::read_to_string(path).map_err(|_| none.into())
    }

    fn env(&self, name: &str) -> Option<String> {
        self.env.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone())
    }
}

fn found(problem: &Problem, sources: &Sources, expected: &[Expected]) -> Expected {
    let severity = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let code = problem.code.strip_prefix("hift::lang::").unwrap_or(problem.code);
    let (line, quote) = match problem.labels.first().map(|label| sources.locate(label.span)) {
        Some((0, span)) => {
            let text = &sources.first().unwrap().text;
            let quote = text[span.start..span.end].lines().next().unwrap_or("").to_owned();
            (text[..span.start].matches('\n').count() + 1, Some(quote))
        }
        None | Some(_) => (0, None),
    };
    let problem = format!("{severity} {code}");
    // Without a quote in the expectation, any will do.
    let any = expected.iter().any(|e| e.line == line && e.problem == problem && e.quote.is_none());
    Expected { line, problem, quote: quote.filter(|_| !any) }
}

/// What the fixes make of a case, without the blocks of `rest.hift`; empty where they change nothing.
fn fixed(case: &Case, problems: &Problems) -> Result<String, String> {
    let name = case.name.rsplit('/').next().unwrap();
    let fixed = lang::fix(Source::new(name, case.text.clone()), &case.options);
    let errors = |problems: &Problems| problems.0.iter().filter(|problem| problem.is_error()).count();
    let unread = |text: &str| lang::parse(text).1.0.len();
    let better =
        unread(&fixed.text) < unread(&case.text) || errors(&fixed.reading.problems) <= errors(problems);
    if !better {
        return Err(format!("more is wrong after the fixes:\n{}\n{}", fixed.text, fixed.reading.problems));
    }
    let again = lang::fix(Source::new(name, fixed.text.clone()), &case.options);
    if again.text != fixed.text {
        return Err(format!("the fixes have not come to an end:\n{}\n{}", fixed.text, again.text));
    }
    if fixed.text == case.text {
        return Ok(String::new());
    }
    let rest = case.text.len() - case.own;
    let own = fixed.text.strip_suffix(&case.text[case.own..]).unwrap_or(&fixed.text);
    if rest > 0 && own.len() == fixed.text.len() {
        return Err(format!("a fix changes what the case does not show:\n{}", fixed.text));
    }
    Ok(own.to_owned())
}

#[test]
fn every_case_has_its_problems_and_no_others() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut wrong = String::new();
    for case in cases() {
        let source = Source::new(case.name.rsplit('/').next().unwrap(), case.text.clone());
        let reading = lang::read(source, &case.options);
        let (pipeline, problems) = (&reading.pipeline, &reading.problems);
        assert_eq!(pipeline.is_none(), problems.has_errors(), "{}", case.name);
        let mut actual: Vec<Expected> =
            problems.0.iter().map(|p| found(p, reading.sources(), &case.expected)).collect();
        actual.sort();
        if actual != case.expected {
            writeln!(wrong, "{}:", case.name).unwrap();
            for (word, list, others) in
                [("expected", &case.expected, &actual), ("found", &actual, &case.expected)]
            {
                for one in list.iter().filter(|one| !others.contains(one)) {
                    writeln!(wrong, "  {word} {one:?}").unwrap();
                }
                if list.len() != others.len() {
                    writeln!(wrong, "  {word} {}", list.len()).unwrap();
                }
            }
        }
        for problem in &problems.0 {
            let help = problem.help.as_deref().unwrap_or("");
            if help.is_empty() || help.ends_with('.') || problem.message.ends_with('.') {
                writeln!(wrong, "{}: no help, or a full stop: {} / {help}", case.name, problem.message)
                    .unwrap();
            }
        }
        let drawn = lang::render(problems, reading.sources(), Look::default());
        let meaning = case.means.then(|| format!("{}\n", serde_json::to_string_pretty(&pipeline).unwrap()));
        let rendered = case.renders.then(|| reading.resolved.text(reading.sources(), false));
        let fixed = fixed(&case, problems).unwrap_or_else(|error| {
            writeln!(wrong, "{}: {error}", case.name).unwrap();
            String::new()
        });
        let goldens = [
            ("txt", drawn),
            ("json", meaning.unwrap_or_default()),
            ("rendered", rendered.unwrap_or_default()),
            ("fixed", fixed),
        ];
        for (extension, now) in goldens {
            let golden = case.path.with_extension(extension);
            if now.is_empty() {
                if golden.exists() && update {
                    fs::remove_file(&golden).unwrap();
                } else if golden.exists() {
                    writeln!(wrong, "{} has nothing to say, but a .{extension}", case.name).unwrap();
                }
            } else if update {
                fs::write(&golden, &now).unwrap();
            } else if fs::read_to_string(&golden).unwrap_or_default().replace("\r\n", "\n") != now {
                writeln!(wrong, "{}: .{extension} is now (UPDATE_EXPECT=1 accepts):\n{now}", case.name)
                    .unwrap();
            }
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

/// What a pipeline means, its params aside: a rendering has none.
fn meaning(pipeline: Option<Pipeline>, problems: &Problems) -> Json {
    let pipeline = pipeline.unwrap_or_else(|| panic!("{problems}"));
    serde_json::to_value(Pipeline { params: Vec::new(), ..pipeline }).unwrap()
}

#[test]
fn a_rendering_means_the_same_and_renders_as_itself() {
    let check = |name: &str, text: &str, options: &Options| {
        let reading = lang::read(Source::new(name, text), options);
        if reading.pipeline.is_none() {
            return false;
        }
        let meant = meaning(reading.pipeline.clone(), &reading.problems);
        let here = Options { folder: options.folder.clone(), ..Options::default() };
        for plain in [false, true] {
            let rendered = reading.resolved.text(reading.sources(), plain);
            assert_eq!(lang::format(&rendered).as_ref(), Ok(&rendered), "{name}");
            let again = lang::read(Source::new(name, rendered.clone()), &here);
            assert_eq!(meaning(again.pipeline.clone(), &again.problems), meant, "{name}:\n{rendered}");
            let twice = again.resolved.text(again.sources(), true);
            assert_eq!(twice, reading.resolved.text(reading.sources(), true), "{name}");
        }
        // From another folder, the paths lead to the same files.
        let moved = reading.resolved.moved(Path::new("/a/pipelines"), Path::new("/a/runs/x"));
        let text = moved.text(reading.sources(), false);
        let (there, problems) = lang::check(&text, &here);
        assert!(there.is_some(), "{name}: {problems}");
        let back = lang::read(Source::new(name, text), &here).resolved;
        let back = back.moved(Path::new("/a/runs/x"), Path::new("/a/pipelines"));
        assert_eq!(
            back.text(reading.sources(), true),
            reading.resolved.text(reading.sources(), true),
            "{name}"
        );
        true
    };
    let n = cases().iter().filter(|case| check(&case.name, &case.text, &case.options)).count();
    assert!(n > 20, "{n} cases without errors");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let mut waiting = vec![folder];
    let mut n = 0;
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "hift") {
            let text = fs::read_to_string(&path).unwrap();
            assert!(check(&path.to_string_lossy(), &text, &Options::default()), "{}", path.display());
            n += 1;
        }
    }
    assert!(n > 10, "{n} pipelines");
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
        for other in ["", "}", "{", "\"", "é", "=", "'", "“", "//", "/*", "\u{A0}", "\u{200B}о"] {
            let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            let (_, problems) = lang::check(&changed, &Options::default());
            for span in problems.0.iter().flat_map(|problem| {
                let edits = problem.fix.iter().map(|edit| edit.span);
                problem.labels.iter().map(|label| label.span).chain(edits)
            }) {
                assert!(changed.get(span.start..span.end).is_some(), "{at} {other}: {span:?} of {problems}");
            }
            if at % 3 == 0 {
                lang::render(&problems, &Source::new("x", changed).into(), Look::default());
            }
        }
    }
}

#[test]
fn fixes_of_a_broken_file_come_to_an_end_and_make_nothing_worse() {
    let text = design();
    for at in (0..text.len()).step_by(127).filter(|at| text.is_char_boundary(*at)) {
        for changed in [
            text[..at].to_owned(),
            format!("{}'{}", &text[..at], &text[at..]),
            format!("{},{}", &text[..at], &text[at..]),
            format!("{}{}", &text[..at], &text[(at + 4).min(text.len())..]),
        ] {
            let unread = |text: &str| lang::parse(text).1.0.len();
            let fixed = lang::fix(Source::new("x", changed.clone()), &Options::default());
            assert!(unread(&fixed.text) <= unread(&changed), "cut at {at}:\n{}", fixed.text);
        }
    }
}

#[test]
fn a_thousand_mistakes_are_told_and_then_no_more() {
    let check = |text: String| {
        let reading = lang::read(Source::new("x.hift", format!("hift 1\n{text}")), &Options::default());
        assert!(reading.pipeline.is_none());
        assert_eq!(reading.problems.0.len(), 1001);
        assert_eq!(reading.problems.0[1000].code, "hift::lang::too_much");
    };
    check("x: 1\n".repeat(5000));
    check(format!("model a {{ {} }}", "x = 1 ".repeat(5000)));
    check("mо ".repeat(5000));
}

#[test]
fn of_a_line_that_no_terminal_shows_a_piece_is_drawn() {
    let text = format!("hift 1\nmodel a {{ weights = \"{}\"  colour = 1 }}\n", "x".repeat(5000));
    let reading = lang::read(Source::new("x.hift", text), &Options::default());
    let drawn = lang::render(&reading.problems, reading.sources(), Look::default());
    assert!(
        drawn.contains("`colour` is no key of a model block") && drawn.contains("x.hift:2:5025"),
        "{drawn}"
    );
    assert!(drawn.len() < 2000, "{drawn}");
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

/// The blocks of `rest.hift`, with a stage of each kind, and one key of one kind written as given.
fn file_with(kind: &str, part: Option<&str>, key: &str, value: &str) -> String {
    let names = "data = rows tokenizer = bpe model = llama groups = layers schedule = hift optimizer = adamw";
    // The first algorithm that has the key.
    let has = |algorithm: &&schema::AlgorithmKeys| algorithm.keys.iter().any(|(known, _)| *known == key);
    let algorithm = schema::ALGORITHMS.iter().find(has).unwrap_or(&schema::ALGORITHMS[0]);
    let algorithm = &format!("algorithm = {}", algorithm.name);
    let format = match value {
        "response" => "format = instruct(prompt = \"{a}\", response = \"{b}\")",
        "last" => "format = chat",
        roles if roles.starts_with("roles(") => "format = chat",
        _ => "format = text",
    };
    // A mix takes everything else from the blocks that it names.
    let is_mix = value.starts_with("mix(");
    let value = &value.replace("[NAME, NAME]", "[one, two]");
    let rows = if is_mix { String::new() } else { format!("source = json(\"a\") {format} holdout = 9 %") };
    let length = if key == "epochs" { "" } else { "steps = 100" };
    let split = if key == "split" { "" } else { "split = by_layer(2)" };
    let train = format!("{names} {length} micro_batch = 1");
    let blocks = [
        ("data", "rows", rows),
        ("tokenizer", "bpe", "file = \"t.json\"".to_owned()),
        ("model", "llama", "weights = \"llama\"".to_owned()),
        ("groups", "layers", split.to_owned()),
        ("schedule", "hift", "rate = constant(1e-5)".to_owned()),
        ("optimizer", "adamw", algorithm.clone()),
        ("hook", "bell", "on = success run = \"true\"".to_owned()),
        ("train", "sft", train),
        ("evaluate", "held", "from = sft".to_owned()),
        ("generate", "talk", "from = sft prompts = [\"a\"]".to_owned()),
        ("export", "out", "from = sft to = \"out\"".to_owned()),
    ];
    let mut text = "hift 1\n".to_owned();
    if is_mix {
        text += "data one { source = json(\"a\") format = text }\ndata two { source = json(\"b\") format = text }\n";
    }
    for (own, name, mut entries) in blocks {
        let entry = format!("{key} = {value}");
        if own == kind && part.is_none() {
            // The key's old entry makes room for the new one.
            let old = entries.find(&format!("{key} = ")).map(|at| {
                let rest = &entries[at + key.len() + 3..];
                let next = rest.find(" = ").and_then(|equals| rest[..equals].rfind(' '));
                (at, next.map_or(entries.len(), |next| at + key.len() + 3 + next))
            });
            if let Some((from, to)) = old {
                entries.replace_range(from..to, "");
            }
            if key == "model" && kind != "train" {
                entries = entries.replace("from = sft", "data = rows tokenizer = bpe micro_batch = 1");
                if kind != "evaluate" {
                    entries = entries.replace("data = rows", "").replace("micro_batch = 1", "");
                }
                if kind == "export" {
                    entries = entries.replace("tokenizer = bpe", "");
                }
            }
            if (kind, key) == ("generate", "data") {
                entries = entries.replace("prompts = [\"a\"]", "");
            }
            entries = format!("{entries} {entry}");
        }
        if let (true, Some(part)) = (own == kind, part) {
            let every = if key == "every" || part == "divergence" { "" } else { "every = 9 steps" };
            // The best checkpoint is one of those that are evaluated, by a metric.
            let (evaluate, best) = match (part, key) {
                ("checkpoint", "result") => ("evaluate { every = 9 steps }", "best = loss"),
                ("checkpoint", _) => ("evaluate { every = 9 steps }", ""),
                _ => ("", ""),
            };
            entries = format!("{entries} {evaluate} {part} {{ {every} {best} {entry} }}");
        }
        writeln!(text, "{own} {name} {{ {entries} }}").unwrap();
    }
    text
}

#[test]
fn every_word_and_example_of_the_schema_is_understood() {
    let check = |kind: &str, part: Option<&str>, key: &Key| {
        let mut values = vec![key.example.replace(
            "NAME",
            match key.name {
                "data" => "rows",
                "tokenizer" => "bpe",
                "model" => "llama",
                "groups" => "layers",
                "schedule" => "hift",
                "optimizer" => "adamw",
                _ => "sft",
            },
        )];
        if let Need::Default(text) = key.need {
            values.push(text.into());
        }
        for form in key.takes {
            match form {
                Form::Word(word, _) => values.push((*word).into()),
                Form::Function(function) => {
                    let required = function.arguments.iter().filter(|key| key.need == Need::Required);
                    let arguments: Vec<_> =
                        required.map(|key| format!("{} = {}", key.name, key.example)).collect();
                    values.push(format!("{}({})", function.name, arguments.join(", ")));
                    for key in function.arguments.iter() {
                        let others =
                            arguments.iter().filter(|text| !text.starts_with(&format!("{} =", key.name)));
                        let others: Vec<_> = others.cloned().collect();
                        let words = key.takes.iter().filter_map(|form| match form {
                            Form::Word(word, _) => Some(*word),
                            _ => None,
                        });
                        for value in words.chain([key.example]) {
                            values.push(format!(
                                "{}({} {} = {value})",
                                function.name,
                                others.join(" "),
                                key.name
                            ));
                        }
                    }
                }
                _ => {}
            }
        }
        for value in values {
            let text = file_with(kind, part, key.name, &value);
            let (_, problems) = lang::check(&text, &Options::default());
            assert!(!problems.has_errors(), "{kind} {}: {value}\n{text}{problems}", key.name);
        }
    };
    for kind in schema::KINDS {
        kind.keys.iter().for_each(|key| check(kind.name, None, key));
        for part in kind.parts {
            part.keys.iter().for_each(|key| check(kind.name, Some(part.name), key));
        }
    }
}

#[test]
fn a_setting_knows_where_it_is_written() {
    let text = format!("hift 1\nparam batch = 4\n{}", REST.replace("micro_batch = 1", "micro_batch = batch"));
    let (pipeline, _) = lang::check(&text, &Options::default());
    let stages = pipeline.unwrap().stages;
    let [Stage::Train(train)] = stages.as_slice() else { panic!("one train stage") };
    let check = |span: Option<Span>, written: Option<&str>| {
        assert_eq!(span.map(|span| &text[span.start..span.end]), written);
    };
    check(train.micro_batch.span(), Some("batch"));
    check(train.length.span(), Some("100"));
    check(train.data.holdout.span(), Some("10 %"));
    check(train.accumulate.span(), None);
    check(Some(train.span), Some("train sft"));
}

#[test]
fn the_presets_of_an_algorithm_are_what_applies_where_nothing_is_written() {
    for algorithm in schema::ALGORITHMS {
        let meaning = |keys: &str| {
            let text = file_with("optimizer", None, "algorithm", &format!("{} {keys}", algorithm.name));
            let (pipeline, problems) = lang::check(&text, &Options::default());
            serde_json::to_value(pipeline.unwrap_or_else(|| panic!("{problems}\n{text}"))).unwrap()
        };
        let written: Vec<String> =
            algorithm.keys.iter().map(|(key, preset)| format!("{key} = {preset}")).collect();
        assert_eq!(meaning(""), meaning(&written.join(" ")), "{}", algorithm.name);
        let optimizer = &meaning("")["stages"][0]["optimizer"];
        assert_eq!(optimizer["algorithm"]["algorithm"], algorithm.name);
        for (key, _) in algorithm.keys {
            let shown = optimizer.get(key).or_else(|| optimizer["algorithm"].get(key));
            assert!(shown.is_some(), "`{}` does nothing with `{key}`: {optimizer}", algorithm.name);
        }
    }
}
