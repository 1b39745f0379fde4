//! The manual of the language, as Markdown: `grammar/language.md`, and the text that an editor shows for a word.
//!
//! ```text
//! manual.md (prose) + schema (every block, key, function, word) ──manual──▶ grammar/language.md
//! ```
//!
//! What a key means is said once, in the schema; the prose is about the language itself. A test writes the file
//! and fails where it is out of date.

use std::fmt::Write as _;

use crate::lang::resolve::type_names;
use crate::lang::schema::{self, Form, Function, Key, Kind, Need, Range, Unit};

/// The prose. `{contents}` is where the table of contents goes, `{types}` where the types of params go, and
/// `{block data}` where the keys of `data` go.
const PROSE: &str = include_str!("manual.md");

/// The blocks that the manual's examples speak of, by kind.
pub const NAMES: &[(&str, &str)] = &[
    ("data", "rows"),
    ("tokenizer", "bpe"),
    ("model", "llama"),
    ("groups", "layers"),
    ("schedule", "hift"),
    ("optimizer", "adamw"),
    ("hook", "note"),
    ("train", "sft"),
];

/// The whole manual.
pub fn manual() -> String {
    let mut body = String::new();
    for line in PROSE.lines() {
        match line.strip_prefix("{block ").and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => body += &block(schema::kind(name).expect("the prose names kinds of blocks")),
            None => {
                body += line;
                body.push('\n');
            }
        }
    }
    let contents = contents(&body);
    let types: Vec<String> = type_names().map(|name| format!("`{name}`")).collect();
    body.replace("{contents}\n", &contents).replace("{types}", &joined(&types, "and"))
}

/// A list of the sections, with the keys of each block.
fn contents(body: &str) -> String {
    let mut text = String::new();
    let mut fenced = false;
    for line in body.lines() {
        fenced ^= line.starts_with("```");
        if let (false, Some(title)) = (fenced, line.strip_prefix("## ")) {
            let _ = write!(text, "\n- [{title}](#{})", anchor(title));
            if let Some(kind) = schema::kind(title.trim_matches('`')) {
                let parts = kind.parts.iter().map(|part| format!("{}.{}", kind.name, part.name));
                let keys = kind.keys.iter().map(|key| (format!("{}.{}", kind.name, key.name), key.name));
                let links = keys.chain(parts.zip(kind.parts.iter().map(|part| part.name)));
                let links: Vec<String> =
                    links.map(|(path, name)| format!("[`{name}`](#{})", anchor(&path))).collect();
                let _ = write!(text, ": {}", links.join(" · "));
            }
        }
    }
    format!("{}\n", text.trim_start())
}

/// How a heading is linked to.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The keys and parts of a kind of block: an overview, then each key.
fn block(kind: &Kind) -> String {
    let mut text = overview(kind.name, kind);
    for key in kind.keys {
        let _ = write!(text, "\n### {}.{}\n\n{}", kind.name, key.name, key_text(key));
    }
    for part in kind.parts {
        let path = format!("{}.{}", kind.name, part.name);
        let _ = write!(text, "\n### {path}\n\n{}\n\n{}", part.doc, overview(&path, part));
        for key in part.keys {
            let _ = write!(text, "\n#### {path}.{}\n\n{}", key.name, key_text(key));
        }
    }
    text
}

/// A table of the keys with what they take and their defaults.
fn overview(path: &str, kind: &Kind) -> String {
    let mut text = "| key | takes | if left out |\n| --- | --- | --- |\n".to_owned();
    for key in kind.keys {
        let link = format!("[`{}`](#{})", key.name, anchor(&format!("{path}.{}", key.name)));
        // A bar would end the cell.
        let takes = takes(key.takes).replace('|', "\\|");
        let row = match key.need {
            Need::Required => format!("{takes} | it must be written"),
            Need::Default(value) => format!("{takes} | `{value}`"),
            Need::Depends(on) => format!("{takes} | {on}"),
        };
        let _ = writeln!(text, "| {link} | {row} |");
    }
    for part in kind.parts {
        let link = format!("[`{} {{ ... }}`](#{})", part.name, anchor(&format!("{path}.{}", part.name)));
        let _ = writeln!(text, "| {link} | a block | it does not happen |");
    }
    text
}

/// The manual's text for a key: `key_doc("schedule", "rate")`, `key_doc("train.checkpoint", "keep")`. None where
/// there is no such key.
pub fn key_doc(kind: &str, key: &str) -> Option<String> {
    let found = find(kind)?;
    Some(key_text(found.keys.iter().find(|known| known.name == key)?))
}

/// The manual's text for a kind of block, or for a block inside another one: `kind_doc("train.checkpoint")`.
pub fn kind_doc(kind: &str) -> Option<String> {
    Some(format!("{}\n", find(kind)?.doc))
}

/// The manual's text for a word or function that may stand as a key's value: `word_doc("train", "clip", "none")`.
pub fn word_doc(kind: &str, key: &str, word: &str) -> Option<String> {
    word_of(find(kind)?.keys.iter().find(|known| known.name == key)?.takes, word)
}

/// A kind of block by its path: `train`, `train.checkpoint`.
fn find(path: &str) -> Option<&'static Kind> {
    match path.split_once('.') {
        None => schema::kind(path),
        Some((outer, part)) => schema::kind(outer)?.parts.iter().find(|known| known.name == part),
    }
}

fn word_of(forms: &'static [Form], wanted: &str) -> Option<String> {
    forms.iter().find_map(|form| match form {
        Form::Word(word, doc) if *word == wanted => Some(format!("{doc}\n")),
        Form::Function(function) if function.name == wanted => Some(function_doc(function)),
        Form::Function(function) => {
            function.arguments.iter().find_map(|argument| word_of(argument.takes, wanted))
        }
        Form::List(inner, _) | Form::Record(inner, _) => word_of(inner, wanted),
        Form::Word(..) | Form::Whole(_) | Form::Real(_) | Form::Amount(_) => None,
        Form::Boolean | Form::Text | Form::Path | Form::Template | Form::Block(_) => None,
    })
}

/// A function with its arguments.
pub fn function_doc(function: &Function) -> String {
    let arguments = function.arguments.iter().map(|argument| format!("- {}\n", argument_text(argument)));
    format!("`{}`: {}\n\n{}", call(function), function.doc, arguments.collect::<String>())
}

/// A key or an argument: its meaning, what applies where it is left out, values, other names, an example.
pub fn key_text(key: &Key) -> String {
    let mut text = format!("{}\n\n", key.doc);
    match key.need {
        Need::Required => text += "It must be written. ",
        Need::Default(value) => _ = write!(text, "Without it: `{value}`. "),
        Need::Depends(on) if on.starts_with("needed") => _ = write!(text, "It is {on}. "),
        Need::Depends(on) if on.ends_with("is needed") => _ = write!(text, "{}. ", capital(on)),
        Need::Depends(on) => _ = write!(text, "Without it: {on}. "),
    }
    match key.takes {
        [one] if !is_named(one) => _ = write!(text, "Takes {}.", form(one)),
        _ => {
            text += if key.takes.len() > 1 { "Takes one of:\n\n" } else { "Takes:\n\n" };
            let mut told = Vec::new();
            key.takes.iter().for_each(|form| text += &value_text(form, &mut told));
            text = text.trim_end().to_owned();
        }
    }
    text += "\n";
    if !key.also.is_empty() {
        let also: Vec<String> = key.also.iter().map(|name| format!("`{name}`")).collect();
        let _ = write!(text, "\nOther tools say {}.\n", also.join(", "));
    }
    let _ = write!(text, "\n```hift\n{} = {}\n```\n", key.name, example(key));
    text
}

/// The key's example, which names the block that it may name.
fn example(key: &Key) -> String {
    fn named(form: &Form) -> Option<&'static (&'static str, &'static str)> {
        match form {
            Form::Block(kinds) => NAMES.iter().find(|(known, _)| kinds.contains(known)),
            Form::List(inner, _) => inner.iter().find_map(named),
            Form::Word(..) | Form::Function(_) | Form::Whole(_) | Form::Real(_) => None,
            Form::Amount(_) | Form::Boolean | Form::Text | Form::Path | Form::Template => None,
            Form::Record(..) => None,
        }
    }
    match key.takes.iter().find_map(named) {
        Some((_, name)) => key.example.replace("NAME", name),
        None => {
            debug_assert!(!key.example.contains("NAME"), "{}: the example names no block", key.name);
            key.example.to_owned()
        }
    }
}

/// A form of value in a list, with what it means. Arguments that a function before it has, too, are told once.
fn value_text<'k>(form_: &'k Form, told: &mut Vec<&'k Key>) -> String {
    match form_ {
        Form::Word(word, doc) => format!("- `{word}`: {doc}\n"),
        Form::Function(function) => {
            let mut text = format!("- `{}`: {}\n", call(function), function.doc);
            let is_told = |key: &Key, told: &[&Key]| {
                told.iter().any(|other| (other.name, other.doc) == (key.name, key.doc))
            };
            let known: Vec<String> = function
                .arguments
                .iter()
                .filter(|key| is_told(key, told))
                .map(|key| format!("`{}`", key.name))
                .collect();
            if !known.is_empty() {
                let _ = writeln!(text, "  - {}: as above.", joined(&known, "and"));
            }
            for key in function.arguments.iter().filter(|key| !is_told(key, told)).collect::<Vec<_>>() {
                let _ = writeln!(text, "  - {}", argument_text(key));
                told.push(key);
            }
            text
        }
        Form::Whole(_) | Form::Real(_) | Form::Amount(_) | Form::Boolean | Form::Text | Form::Path => {
            format!("- {}\n", form(form_))
        }
        Form::Template | Form::Block(_) | Form::Record(..) => format!("- {}\n", form(form_)),
        Form::List(inner, _) => {
            let words: String = inner.iter().map(|form| indented(&value_text(form, told))).collect();
            match inner.iter().any(is_named) {
                true => format!("- {}:\n{words}", form(form_)),
                false => format!("- {}\n", form(form_)),
            }
        }
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// An argument in a line: `size`, a whole number from 1: how many layers ...
fn argument_text(key: &Key) -> String {
    let mut text = format!("`{}`: ", key.name);
    text += key.doc;
    let _ = write!(text, " It is {}", takes(key.takes));
    match key.need {
        Need::Required => text += "; it must be written.",
        Need::Default(value) => _ = write!(text, "; `{value}` where it is left out."),
        Need::Depends(on) => _ = write!(text, "; where it is left out, {on}."),
    }
    for form in key.takes {
        if let Form::Word(word, doc) = form {
            let _ = write!(text, " `{word}`: {doc}");
        }
    }
    text
}

/// A function as it is called, without the values: `by_layer(size, tail)`.
fn call(function: &Function) -> String {
    let names: Vec<&str> = function.arguments.iter().map(|key| key.name).collect();
    format!("{}({})", function.name, names.join(", "))
}

/// Whether a form has words to be explained.
fn is_named(form: &Form) -> bool {
    match form {
        Form::Word(..) | Form::Function(_) => true,
        Form::List(inner, _) => inner.iter().any(is_named),
        Form::Whole(_) | Form::Real(_) | Form::Amount(_) | Form::Boolean => false,
        Form::Text | Form::Path | Form::Template | Form::Block(_) | Form::Record(..) => false,
    }
}

/// What a key takes, in a phrase: "`none` or a number above 0".
fn takes(forms: &[Form]) -> String {
    let parts: Vec<String> = forms.iter().map(form).collect();
    joined(&parts, "or")
}

fn joined(parts: &[String], conjunction: &str) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} {conjunction} {last}", first.join(", ")),
    }
}

/// A form in a phrase.
fn form(form: &Form) -> String {
    match form {
        Form::Word(word, _) => format!("`{word}`"),
        Form::Function(function) => format!("`{}`", call(function)),
        Form::Whole(range) => format!("a whole number {}", range_text(range)),
        Form::Real(range) => format!("a number {}", range_text(range)),
        Form::Amount(units) => {
            let parts: Vec<String> = units
                .iter()
                .map(|(unit, range)| match unit {
                    Unit::Bytes => format!("memory (`{}`)", unit.written()),
                    Unit::Minutes => format!("time (`{}`)", unit.written()),
                    Unit::Percent | Unit::Steps | Unit::Epochs | Unit::Cycles | Unit::Rows | Unit::Tokens => {
                        format!("`{}` {}", unit.written(), range_text(range))
                    }
                })
                .collect();
            match parts.as_slice() {
                [one] if one.starts_with('`') => format!("a number of {one}"),
                [one] => format!("an amount of {one}"),
                parts => {
                    let parts: Vec<String> = parts.iter().map(|part| format!("in {part}")).collect();
                    format!("an amount {}", joined(&parts, "or"))
                }
            }
        }
        Form::Boolean => "`true` or `false`".into(),
        Form::Text => "a text".into(),
        Form::Path => "a path".into(),
        Form::Template => "a text with columns in `{}`".into(),
        Form::Block(kinds) => {
            let article = if kinds[0].starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
            let kinds: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
            format!("the name of {article} {} block", joined(&kinds, "or"))
        }
        Form::List(inner, None) => format!("a list of {}", plural(inner)),
        Form::List(inner, Some(n)) => format!("a list of {n} values, each {}", takes(inner)),
        Form::Record(inner, _) => format!("names of your choice in `{{}}`, each with {}", takes(inner)),
    }
}

/// What a list holds, in a phrase.
fn plural(inner: &[Form]) -> String {
    match inner {
        [Form::Text] => "texts".into(),
        inner => takes(inner),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// From where to where a number may go.
fn range_text(range: &Range) -> String {
    let low = format!("{} {}", if range.above { "above" } else { "from" }, range.low);
    match (range.high.is_finite(), range.below) {
        (false, _) => low,
        (true, true) => format!("{low} to below {}", range.high),
        (true, false) => format!("{low} to {}", range.high),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_explained_by_its_path() {
        let check = |kind, key, part: &str| {
            let text = key_doc(kind, key).unwrap_or_else(|| panic!("{kind}.{key}"));
            assert!(text.contains(part), "{text}");
        };
        check("train", "clip", "`none`: Gradients are taken as they are.");
        check("train.checkpoint", "keep", "Takes a whole number from 1.");
        check("tokenizer", "max_length", "a number of `tokens` from 1");
        check("schedule", "rate", "`cosine(peak, warmup, end)`");
        check("evaluate", "from", "from = sft");
        assert_eq!(key_doc("train", "clop"), None);
        assert_eq!(key_doc("trane", "clip"), None);
    }

    #[test]
    fn a_word_is_explained_where_it_stands() {
        let check = |kind, key, word, text: &str| {
            assert!(word_doc(kind, key, word).is_some_and(|found| found.starts_with(text)), "{word}");
        };
        check("model", "recompute", "auto", "For each group as few blocks");
        check("groups", "split", "joined", "The final norm and the head are one layer");
        check("train.evaluate", "metrics", "loss", "Mean cross entropy");
        check("schedule", "order", "random", "`random(seed, redraw)`: Drawn");
        assert_eq!(word_doc("model", "recompute", "blokcs"), None);
    }
}
