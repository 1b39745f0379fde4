//! What every code of a problem means and why it matters, at more length than the problem itself can say it; with an
//! example before and after where a file can show it.
//!
//! One table a room. A test holds them against the codes that the source raises, and tries every example.

mod elsewhere;
mod language;
mod plans;

use crate::lang::nearest;

/// What a code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// Without `hift::` in front.
    pub code: &'static str,
    /// What is so, in one line.
    pub line: &'static str,
    /// What it means and why it matters.
    pub text: &'static str,
    pub example: Option<Example>,
}

/// The part of a file that has the problem, and the same without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Example {
    pub before: &'static str,
    pub after: &'static str,
}

const fn shown(
    code: &'static str,
    line: &'static str,
    text: &'static str,
    before: &'static str,
    after: &'static str,
) -> Explanation {
    Explanation { code, line, text, example: Some(Example { before, after }) }
}

const fn told(code: &'static str, line: &'static str, text: &'static str) -> Explanation {
    Explanation { code, line, text, example: None }
}

/// Every explanation, those of the language first.
pub fn all() -> impl Iterator<Item = &'static Explanation> {
    language::TABLE.iter().chain(plans::TABLE).chain(elsewhere::TABLE)
}

/// The explanation of a whole code, with or without `hift::`.
pub fn find(code: &str) -> Option<&'static Explanation> {
    let code = code.strip_prefix("hift::").unwrap_or(code);
    all().find(|explanation| explanation.code == code)
}

/// The explanations that a user's word names: a whole code, or what it ends in, which several rooms may have.
///
/// # Errors
/// When there is none; gives the code that was meant, if one is like it.
pub fn named(word: &str) -> Result<Vec<&'static Explanation>, Option<&'static str>> {
    let code = word.trim().trim_start_matches("hift::");
    let what = |explanation: &Explanation| {
        explanation.code.rsplit_once("::").map_or(explanation.code, |(_, what)| what)
    };
    let found: Vec<_> =
        all().filter(|explanation| explanation.code == code || what(explanation) == code).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let whole = nearest(code, all().map(|explanation| explanation.code)).filter(|_| code.contains("::"));
    let by_end = || {
        let meant = nearest(code.rsplit("::").next().unwrap_or(code), all().map(&what))?;
        all().find(|own| what(own) == meant).map(|own| own.code)
    };
    Err(whole.or_else(by_end))
}
