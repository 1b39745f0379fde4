//! The manual, `grammar/language.md`: up to date (`UPDATE_EXPECT=1` writes it), complete, and right in every example.
//!
//! A fenced `hift` block that begins with `hift 1` is a whole file and has nothing wrong with it, not even a warning.
//! A block that follows a line such as "In `shared.hift`:" is that file, for others to import. Any other block is a
//! part of a file, completed by `cases/rest.hift`, and has no errors; below the heading of a key it is that key's
//! example, which `schema.rs` holds against the plan.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hift::lang::schema;
use hift::lang::{self, Options, Outside, Source};
use hift::report::manual::{NAMES, manual};

const REST: &str = include_str!("cases/rest.hift");

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("grammar/language.md")
}

#[test]
fn the_manual_is_what_the_schema_says() {
    let now = manual();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(path(), &now).unwrap();
    }
    let written = fs::read_to_string(path()).unwrap_or_default().replace("\r\n", "\n");
    assert!(written == now, "grammar/language.md is out of date: UPDATE_EXPECT=1 cargo test --test manual");
}

/// A fenced block: the heading that it stands under, the file that it is, its text.
struct Example {
    heading: String,
    file: Option<String>,
    text: String,
}

fn examples(manual: &str) -> Vec<Example> {
    let mut examples = Vec::new();
    let (mut heading, mut file) = (String::new(), None);
    let mut lines = manual.lines();
    while let Some(line) = lines.next() {
        if line == "```hift" {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let text = format!("{}\n", text.join("\n"));
            examples.push(Example { heading: heading.clone(), file: file.take(), text });
        } else if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim().to_owned();
        } else if let Some(name) = line.strip_prefix("In `").and_then(|rest| rest.strip_suffix("`:")) {
            file = Some(name.to_owned());
        }
    }
    examples
}

/// The files of the manual, and no environment.
struct Files(HashMap<String, String>);

impl Outside for Files {
    fn read(&self, path: &Path) -> Result<String, String> {
        self.0.get(&*path.to_string_lossy()).cloned().ok_or_else(|| "not in the manual".into())
    }

    fn env(&self, _: &str) -> Option<String> {
        None
    }
}

/// The text with every kind of block that it does not have.
fn completed(text: &str) -> String {
    let mut whole = format!("hift 1\n{text}");
    for line in REST.lines() {
        let kind = line.split(' ').next().unwrap();
        if !text.lines().any(|own| own.strip_prefix(kind).is_some_and(|rest| rest.starts_with(' '))) {
            whole += &format!("{line}\n");
        }
    }
    whole
}

#[test]
fn every_example_is_right() {
    let examples = examples(&manual());
    let files: HashMap<String, String> =
        examples.iter().filter_map(|example| Some((example.file.clone()?, example.text.clone()))).collect();
    let options = Options { outside: Arc::new(Files(files)), ..Options::default() };
    let keys: HashMap<String, String> = keys().into_iter().collect();
    let (mut n_whole, mut n_parts, mut n_keys) = (0, 0, 0);
    for Example { heading, file, text } in examples {
        if let Some(example) = keys.get(&heading) {
            assert_eq!(text.trim_end(), example, "{heading}");
            n_keys += 1;
            continue;
        }
        assert_eq!(lang::format(&text).as_ref(), Ok(&text), "{heading}: in the canonical layout");
        let is_whole = text.starts_with("hift 1");
        let whole = if is_whole { text.clone() } else { completed(&text) };
        let reading = lang::read(Source::new("example.hift", whole.clone()), &options);
        // What another file imports runs nothing by itself.
        let problems = reading.problems.0.iter().filter(|problem| match is_whole && file.is_none() {
            true => true,
            false => problem.is_error(),
        });
        let problems: Vec<String> = problems.map(|problem| problem.message.clone()).collect();
        assert!(problems.is_empty(), "{heading}:\n{whole}\n{problems:#?}");
        if is_whole { n_whole += 1 } else { n_parts += 1 }
    }
    assert!(n_whole >= 3 && n_parts >= 15, "{n_whole} whole files, {n_parts} parts");
    assert_eq!(n_keys, keys.len(), "an example for each key");
}

/// The headings of the keys, with their examples.
fn keys() -> Vec<(String, String)> {
    let mut keys = Vec::new();
    for kind in schema::KINDS {
        let own = kind.keys.iter().map(|key| (format!("{}.{}", kind.name, key.name), key));
        let parts = kind.parts.iter().flat_map(|part| {
            part.keys.iter().map(move |key| (format!("{}.{}.{}", kind.name, part.name, key.name), key))
        });
        keys.extend(own.chain(parts));
    }
    keys.into_iter()
        .map(|(heading, key)| {
            let block = key.takes.iter().find_map(|form| match form {
                schema::Form::Block(kinds) => NAMES.iter().find(|(kind, _)| kinds.contains(kind)),
                _ => None,
            });
            let example = block.map_or(key.example.to_owned(), |(_, name)| key.example.replace("NAME", name));
            (heading, format!("{} = {example}", key.name))
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let manual = manual();
    let anchor = |title: &str| -> String {
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
        kept.to_lowercase().replace(' ', "-")
    };
    let mut anchors = HashSet::new();
    let mut fenced = false;
    for line in manual.lines() {
        fenced ^= line.starts_with("```");
        if !fenced && line.starts_with('#') {
            let own = anchor(line.trim_start_matches('#').trim());
            assert!(anchors.insert(own.clone()), "two headings are called {own}");
        }
    }
    let mut n_links = 0;
    for link in manual.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        n_links += 1;
        match link.strip_prefix('#') {
            Some(own) => assert!(anchors.contains(own), "{link} leads nowhere"),
            None => {
                let file = link.split('#').next().unwrap();
                assert!(path().parent().unwrap().join(file).exists(), "{link} is not there");
            }
        }
    }
    assert!(n_links > 100, "{n_links} links");
}

#[test]
fn nothing_is_left_to_be_filled_in() {
    for line in manual().lines() {
        assert!(!line.ends_with(' '), "white space at the end of `{line}`");
        assert!(!line.contains("{block ") && !line.contains("{contents}"), "{line}");
    }
}
