//! The manual's text about kinds, keys, words, functions and units, as it stands under a cursor: in Markdown.

use crate::lang::schema::{Key, Kind, Need, Role, UNITS, Unit};
use crate::report::manual;

pub use crate::report::manual::function_doc;

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
    format!("**`{}`**\n\n{}", key.name, manual::key_text(key))
}

/// A word of the language.
pub fn word_doc(word: &str, doc: &str, key: Option<&Key>) -> String {
    match key {
        Some(key) => format!("{}\n\n{doc}\n", code(&format!("{} = {word}", key.name))),
        None => format!("{}\n\n{doc}\n", code(word)),
    }
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

/// A piece of the language.
pub fn code(text: &str) -> String {
    format!("```hift\n{text}\n```")
}
