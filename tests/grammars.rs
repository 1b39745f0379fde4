//! The grammars for editors, `grammar/hift.tmLanguage.json` and `grammar/tree-sitter`: their words are those of the
//! schema (`UPDATE_EXPECT=1` writes them), and they read what the language reads.
//!
//! Two tests need tools that are not part of the build, and say so where they are missing: the tree-sitter command
//! (`cargo install tree-sitter-cli`) on the path, and node with `npm install vscode-textmate vscode-oniguruma` in the
//! folder that `HIFT_TEXTMATE` names.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hift::lang::schema::{self, Form, Key};
use hift::lang::{self, resolve};
use hift::problem::Problem;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The words that editors colour, by what they are.
#[derive(Default)]
struct Words {
    kinds: BTreeSet<&'static str>,
    keys: BTreeSet<&'static str>,
    words: BTreeSet<&'static str>,
    functions: BTreeSet<&'static str>,
    units: BTreeSet<&'static str>,
}

impl Words {
    fn of_the_schema() -> Self {
        let mut words = Words::default();
        for kind in schema::KINDS {
            words.kinds.insert(kind.name);
            words.keys(kind.keys);
            for part in kind.parts {
                words.kinds.insert(part.name);
                words.keys(part.keys);
            }
        }
        words.kinds.insert(schema::PROFILE);
        words.functions.insert(resolve::ENV);
        words.units.extend(schema::UNITS.iter().map(|(unit, ..)| *unit));
        words
    }

    fn keys(&mut self, keys: &'static [Key]) {
        for key in keys {
            self.keys.insert(key.name);
            self.forms(key.takes);
        }
    }

    fn forms(&mut self, forms: &'static [Form]) {
        for form in forms {
            match form {
                Form::Word(word, _) => _ = self.words.insert(word),
                Form::Function(function) => {
                    self.functions.insert(function.name);
                    self.keys(function.arguments);
                }
                Form::List(inner, _) | Form::Record(inner, _) => self.forms(inner),
                Form::Whole(_) | Form::Real(_) | Form::Amount(_) | Form::Boolean => {}
                Form::Text | Form::Path | Form::Template | Form::Block(_) => {}
            }
        }
    }
}

/// The file with the list of words behind each `opening` replaced, up to `closing`; a list must be there.
fn filled(text: &str, opening: &str, closing: &str, list: &str) -> String {
    let mut parts = text.split(opening);
    let mut filled = parts.next().unwrap().to_owned();
    let mut n_lists = 0;
    for part in parts {
        let end = part.find(closing).unwrap_or_else(|| panic!("`{closing}` must follow `{opening}`"));
        write!(filled, "{opening}{list}{}", &part[end..]).unwrap();
        n_lists += 1;
    }
    assert!(n_lists > 0, "there is no `{opening}`");
    filled
}

fn check_words(path: &str, fill: impl Fn(String, &Words) -> String) {
    let path = root().join(path);
    let written = fs::read_to_string(&path).unwrap().replace("\r\n", "\n");
    let now = fill(written.clone(), &Words::of_the_schema());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &now).unwrap();
    } else {
        assert!(written == now, "{} has other words: UPDATE_EXPECT=1 writes them", path.display());
    }
}

#[test]
fn the_words_of_the_textmate_grammar_are_the_schemas() {
    check_words("grammar/hift.tmLanguage.json", |mut text, words| {
        let lists = [
            ("kinds", &words.kinds),
            ("keys", &words.keys),
            ("words", &words.words),
            ("functions", &words.functions),
            ("units", &words.units),
        ];
        for (name, list) in lists {
            // `(?<kinds>data|model|...)`: a group with a name holds each list. The longest word comes first.
            let mut list: Vec<&str> = list.iter().copied().collect();
            list.sort_by_key(|word| std::cmp::Reverse(word.len()));
            text = filled(&text, &format!("(?<{name}>"), ")", &list.join("|"));
        }
        text
    });
}

#[test]
fn the_words_of_the_tree_sitter_queries_are_the_schemas() {
    check_words("grammar/tree-sitter/queries/highlights.scm", |mut text, words| {
        let lists = [
            ("keyword", &words.kinds),
            ("property", &words.keys),
            ("constant.builtin", &words.words),
            ("function.builtin", &words.functions),
            ("type.builtin", &words.units),
        ];
        for (capture, list) in lists {
            let mut lines = String::new();
            let mut width = usize::MAX;
            for word in list.iter().map(|word| format!("\"{word}\"")) {
                if width.saturating_add(word.len()) > 100 {
                    lines.push_str("\n  ");
                    width = 0;
                } else {
                    lines.push(' ');
                }
                width += word.len() + 1;
                lines.push_str(&word);
            }
            text = filled(&text, &format!("(#any-of? @{capture}"), ")", &lines);
        }
        text
    });
}

#[test]
fn the_units_of_the_tree_sitter_scanner_are_the_schemas() {
    check_words("grammar/tree-sitter/src/scanner.c", |text, words| {
        let units: Vec<String> = words.units.iter().map(|unit| format!("\"{unit}\"")).collect();
        filled(&text, "*const UNITS[] = {", "}", &units.join(", "))
    });
}

#[test]
fn the_units_of_the_languages_own_grammar_are_the_schemas() {
    let text = fs::read_to_string(root().join("grammar/hift.pest")).unwrap();
    let rule = text.split("known = _{").nth(1).and_then(|rest| rest.split('}').next()).unwrap();
    let mut units: BTreeSet<&str> = rule.split('"').skip(1).step_by(2).collect();
    // It is no name, and stands in the rule `unit`.
    units.insert("%");
    assert_eq!(units, Words::of_the_schema().units);
}

/// Every file of the pipelines and the cases.
fn files() -> Vec<PathBuf> {
    let mut folders =
        vec![root().join("pipelines"), root().join("tests/cases"), root().join("tests/grammars")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "hift" => files.push(path),
                _ => {}
            }
        }
    }
    files.sort();
    files
}

/// What a grammar alone cannot know: how deep brackets may be, how large a number, where the header stands.
fn is_beyond_grammars(problem: &Problem) -> bool {
    ["hift::lang::nesting", "hift::lang::range", "hift::lang::import"].contains(&problem.code)
}

/// Whether the language's own grammar reads a text.
fn reads(text: &str) -> bool {
    let (_, problems) = lang::parse(text);
    problems.0.iter().all(is_beyond_grammars)
}

/// A text with one byte lost, or another one in its place: mostly wrong, sometimes not.
fn changed(text: &str) -> Vec<String> {
    let places =
        (0..text.len()).step_by(7).filter(|at| text.is_char_boundary(*at) && text.is_char_boundary(at + 1));
    places
        .flat_map(|at| ["", "}", "{", "\"", "=", "x", " "].map(|other| (at, other)))
        .map(|(at, other)| format!("{}{other}{}", &text[..at], &text[at + 1..]))
        .collect()
}

#[test]
fn tree_sitter_reads_what_the_language_reads() {
    let Ok(_) = Command::new("tree-sitter").arg("--version").output() else {
        println!("skipped: there is no tree-sitter command (cargo install tree-sitter-cli)");
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let grammar = place.path().join("grammar");
    fs::create_dir_all(grammar.join("queries")).unwrap();
    fs::create_dir_all(grammar.join("src")).unwrap();
    let source = root().join("grammar/tree-sitter");
    for file in ["grammar.js", "tree-sitter.json", "src/scanner.c", "queries/highlights.scm"] {
        fs::copy(source.join(file), grammar.join(file)).unwrap();
    }
    // What it builds stays in this folder.
    let tree_sitter = |arguments: &[&str]| {
        let output = Command::new("tree-sitter")
            .args(arguments)
            .current_dir(&grammar)
            .env("XDG_CACHE_HOME", place.path())
            .env("TREE_SITTER_LIBDIR", place.path())
            .env("RUST_BACKTRACE", "0")
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned(), output.stderr)
    };
    let (generated, _, stderr) = tree_sitter(&["generate"]);
    assert!(generated, "{}", String::from_utf8_lossy(&stderr));

    let mut texts: Vec<(String, String)> = files()
        .into_iter()
        .map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap().replace("\r\n", "\n")))
        .collect();
    let design = fs::read_to_string(root().join("tests/grammars/sample.hift")).unwrap();
    texts.extend(changed(&design).into_iter().enumerate().map(|(n, text)| (format!("change {n}"), text)));
    let paths: Vec<PathBuf> = (0..texts.len()).map(|n| place.path().join(format!("{n}.hift"))).collect();
    for (path, (_, text)) in paths.iter().zip(&texts) {
        fs::write(path, text).unwrap();
    }
    let list = place.path().join("paths.txt");
    fs::write(&list, paths.iter().map(|path| format!("{}\n", path.display())).collect::<String>()).unwrap();
    let (_, output, stderr) = tree_sitter(&["parse", "--quiet", "--paths", list.to_str().unwrap()]);
    // A line for each file with a mistake.
    let wrong: BTreeSet<usize> = output
        .lines()
        .filter(|line| line.contains("ERROR") || line.contains("MISSING"))
        .filter_map(|line| Path::new(line.split('\t').next()?.trim()).file_stem()?.to_str()?.parse().ok())
        .collect();
    let mut mistaken = String::new();
    let (mut n_right, mut n_wrong) = (0, 0);
    for (n, (name, text)) in texts.iter().enumerate() {
        let (ours, theirs) = (reads(text), !wrong.contains(&n));
        if ours {
            n_right += 1
        } else {
            n_wrong += 1
        }
        if ours != theirs {
            let what = if theirs { "reads what is wrong" } else { "does not read" };
            writeln!(mistaken, "tree-sitter {what}: {name}").unwrap();
            if name.starts_with("change") {
                let at = text.bytes().zip(design.bytes()).position(|(a, b)| a != b).unwrap_or(0);
                let line = text[..at].matches('\n').count();
                writeln!(mistaken, "    {}", text.lines().nth(line).unwrap_or("")).unwrap();
            }
        }
    }
    assert!(mistaken.is_empty(), "{mistaken}{}", String::from_utf8_lossy(&stderr));
    assert!(n_right > 100 && n_wrong > 100, "{n_right} right, {n_wrong} wrong");

    let sample = root().join("tests/grammars/sample.hift");
    let (coloured, captures, stderr) =
        tree_sitter(&["query", "--captures", "queries/highlights.scm", sample.to_str().unwrap()]);
    assert!(coloured, "{}", String::from_utf8_lossy(&stderr));
    // `pattern: 0, capture: 1 - comment, start: (0, 0), end: (0, 2), text: `...``
    let shown: String = captures
        .lines()
        .filter_map(|line| {
            let capture = line.split(" - ").nth(1)?.split(',').next()?;
            let text = line.split_once("text: `")?.1.trim_end().strip_suffix('`')?;
            Some(format!("{text}  {capture}\n"))
        })
        .collect();
    golden("tests/grammars/sample.captures", &shown);
}

#[test]
fn the_textmate_grammar_colours_the_sample() {
    let Some(folder) = std::env::var_os("HIFT_TEXTMATE") else {
        println!("skipped: HIFT_TEXTMATE names no folder with vscode-textmate and vscode-oniguruma");
        return;
    };
    let output = Command::new("node")
        .arg(root().join("tests/grammars/textmate.mjs"))
        .arg(folder)
        .arg(root().join("grammar/hift.tmLanguage.json"))
        .arg(root().join("tests/grammars/sample.hift"))
        .output()
        .expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    golden("tests/grammars/sample.scopes", &String::from_utf8_lossy(&output.stdout));
}

fn golden(path: &str, now: &str) {
    let path = root().join(path);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, now).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    assert_eq!(now, written, "{} is out of date: UPDATE_EXPECT=1 writes it", path.display());
}

/// Every rule that the TextMate grammar includes is there, and each is used.
#[test]
fn the_textmate_grammar_is_whole() {
    let text = fs::read_to_string(root().join("grammar/hift.tmLanguage.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rules: BTreeSet<String> = json["repository"].as_object().unwrap().keys().cloned().collect();
    let included: BTreeSet<String> = text
        .split("\"include\": \"#")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect();
    assert_eq!(rules, included);
}
