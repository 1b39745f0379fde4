//! What the manual says about kinds, keys, words, functions and units, as Markdown out of the schema.

use crate::lang::schema::{Form, Function, Key, Kind, Need, Range, Role, UNITS, Unit};

/// A kind of block.
pub fn kind_doc(kind: &Kind) -> String {
    let head = match kind.role {
        Role::Definition | Role::Stage => format!("{} NAME {{ ... }}", kind.name),
        Role::Part => format!("{} {{ ... }}", kind.name),
    };
    let mut text = format!("{}\n\n{}\n", code(&head), kind.doc);
    let needed: Vec<String> = kind.keys.iter().filter(|key| key.need == Need::Required).map(name).collect();
    if !needed.is_empty() {
        text += &format!("\nNeeded: {}\n", needed.join(", "));
    }
    let others: Vec<String> = kind
        .keys
        .iter()
        .filter(|key| matches!(key.need, Need::Default(_) | Need::Depends(_)))
        .map(name)
        .collect();
    if !others.is_empty() {
        text += &format!("\nAlso: {}\n", others.join(", "));
    }
    if !kind.parts.is_empty() {
        let parts: Vec<String> = kind.parts.iter().map(|part| format!("`{} {{ ... }}`", part.name)).collect();
        text += &format!("\nInside: {}\n", parts.join(", "));
    }
    text
}

fn name(key: &Key) -> String {
    format!("`{}`", key.name)
}

/// A key of a block, or an argument of a function.
pub fn key_doc(key: &Key) -> String {
    let mut text = format!("{}\n\n{}\n", code(&format!("{} = {}", key.name, takes(key.takes))), key.doc);
    text += &match key.need {
        Need::Required => "\nMust be written.\n".to_owned(),
        Need::Default(value) => format!("\nWhere it is not written: `{value}`\n"),
        Need::Depends(on) => format!("\nWhere it is not written: {on}\n"),
        Need::Soon => "\nPlanned; not available in this version.\n".to_owned(),
    };
    let words: Vec<String> = key.takes.iter().filter_map(word_line).collect();
    if !words.is_empty() {
        text += &format!("\n{}\n", words.join("\n"));
    }
    if !key.example.is_empty() {
        text += &format!("\nExample: `{} = {}`\n", key.name, key.example);
    }
    text
}

/// A line of a list, for a form that is a word or a function.
fn word_line(form: &Form) -> Option<String> {
    match form {
        Form::Word(word, doc) => Some(format!("- `{word}`: {doc}")),
        Form::Function(function) => Some(format!("- `{}`: {}", signature(function), function.doc)),
        Form::Soon(_) | Form::Whole(_) | Form::Real(_) | Form::Amount(_) | Form::Boolean => None,
        Form::Text | Form::Path | Form::Template | Form::Block(_) | Form::List(..) | Form::Record(..) => None,
    }
}

/// A word of the language.
pub fn word_doc(word: &str, doc: &str, key: Option<&Key>) -> String {
    match key {
        Some(key) => format!("{}\n\n{doc}\n", code(&format!("{} = {word}", key.name))),
        None => format!("{}\n\n{doc}\n", code(word)),
    }
}

/// A function with its arguments.
pub fn function_doc(function: &Function) -> String {
    let mut text = format!("{}\n\n{}\n", code(&signature(function)), function.doc);
    let lines: Vec<String> = function
        .arguments
        .iter()
        .filter(|key| key.need != Need::Soon)
        .map(|key| {
            let need = match key.need {
                Need::Required | Need::Soon => String::new(),
                Need::Default(value) => format!(" Default: `{value}`."),
                Need::Depends(on) => format!(" Default: {on}."),
            };
            format!("- `{}`: {}{need}", key.name, key.doc)
        })
        .collect();
    if !lines.is_empty() {
        text += &format!("\n{}\n", lines.join("\n"));
    }
    text
}

/// `cosine(peak, warmup = none, end = 0)`
pub fn signature(function: &Function) -> String {
    let arguments: Vec<String> = function
        .arguments
        .iter()
        .filter_map(|key| match key.need {
            Need::Soon => None,
            Need::Default(value) => Some(format!("{} = {value}", key.name)),
            Need::Required | Need::Depends(_) => Some(key.name.to_owned()),
        })
        .collect();
    format!("{}({})", function.name, arguments.join(", "))
}

/// A unit, as it is written behind a number.
pub fn unit_doc(written: &str) -> Option<String> {
    let (_, unit, size) = UNITS.iter().find(|(name, ..)| *name == written)?;
    let doc = match unit {
        Unit::Bytes => format!("{} bytes of memory.", crate::units::Count(*size as u64)),
        Unit::Percent => "Percent: `3 %` is a share of 0.03.".into(),
        Unit::Steps => "Optimizer updates.".into(),
        Unit::Epochs => "Passes through the data.".into(),
        Unit::Cycles => "Cycles: in one, every group has its turn.".into(),
        Unit::Rows => "Rows of the data.".into(),
        Unit::Tokens => "Tokens.".into(),
        Unit::Minutes if *size == 1.0 => "Minutes.".into(),
        Unit::Minutes => format!("{size} minutes."),
    };
    Some(format!("{}\n\n{doc}\n", code(&format!("1 {written}"))))
}

/// What a value may be, short: `none | a number of tokens`.
pub fn takes(forms: &[Form]) -> String {
    let parts: Vec<String> = forms
        .iter()
        .filter_map(|form| {
            Some(match form {
                Form::Word(word, _) => (*word).to_owned(),
                Form::Soon(_) => return None,
                Form::Function(function) => format!("{}(...)", function.name),
                Form::Whole(range) => format!("a whole number{}", bounds(range)),
                Form::Real(range) => format!("a number{}", bounds(range)),
                Form::Amount(units) => {
                    let units: Vec<&str> = units.iter().map(|(unit, _)| unit.written()).collect();
                    format!("a number of {}", units.join(", "))
                }
                Form::Boolean => "true | false".to_owned(),
                Form::Text | Form::Template => "a text".to_owned(),
                Form::Path => "a path".to_owned(),
                Form::Block(kinds) => format!("a {} block", kinds.join(" or ")),
                Form::List(inner, None) => format!("[{}, ...]", takes(inner)),
                Form::List(inner, Some(n)) => format!("[{n} times {}]", takes(inner)),
                Form::Record(inner, _) => format!("{{ NAME = {}, ... }}", takes(inner)),
            })
        })
        .collect();
    parts.join(" | ")
}

/// ` from 1`, ` above 0 and below 1`, or nothing.
fn bounds(range: &Range) -> String {
    let low = (range.low.is_finite()).then(|| match range.above {
        true => format!("above {}", range.low),
        false => format!("from {}", range.low),
    });
    let high = (range.high.is_finite()).then(|| match range.below {
        true => format!("below {}", range.high),
        false => format!("up to {}", range.high),
    });
    let bounds: Vec<String> = low.into_iter().chain(high).collect();
    if bounds.is_empty() { String::new() } else { format!(" {}", bounds.join(" and ")) }
}

/// A piece of the language.
pub fn code(text: &str) -> String {
    format!("```hift\n{text}\n```")
}
