//! `param` values and what `--set` makes of them.

use std::cell::RefCell;
use std::collections::HashSet;

use crate::lang::names::{nearest, quoted};
use crate::lang::parse::parse_value;
use crate::lang::syntax::{File, Param, Term, Value};
use crate::problem::{Fault, Problem, Problems};

/// The params of a file, in its order, as they apply.
pub(super) struct Params<'f> {
    all: Vec<Applied<'f>>,
    used: RefCell<HashSet<usize>>,
}

pub(super) struct Applied<'f> {
    pub param: &'f Param,
    /// The value from `--set`, whose spans are no places in the file.
    pub set: Option<Value>,
}

impl Applied<'_> {
    pub fn value(&self) -> &Value {
        self.set.as_ref().unwrap_or(&self.param.value)
    }
}

impl<'f> Params<'f> {
    /// The first param of a name counts; a second one is a problem.
    pub fn new(file: &'f File, sets: &[(String, String)], problems: &mut Problems) -> Self {
        let mut all: Vec<Applied> = Vec::new();
        for param in file.params() {
            match all.iter().find(|other| other.param.name.text == param.name.text) {
                Some(first) => problems.push(
                    Problem::new(
                        "hift::lang::duplicate_param",
                        format!("there are two params called `{}`", param.name.text),
                    )
                    .label(param.name.span, "the second one")
                    .label(first.param.name.span, "the first one")
                    .help("remove one of them, or rename it"),
                ),
                None => all.push(Applied { param, set: None }),
            }
        }
        for (name, text) in sets {
            match applied(file, name, text) {
                Ok((param, value)) => {
                    if let Some(found) = all.iter_mut().find(|other| other.param.name.text == param.name.text)
                    {
                        found.set = Some(value);
                    }
                }
                Err(problem) => problems.push(problem),
            }
        }
        Self { all, used: RefCell::default() }
    }

    /// The param of that name and its position.
    pub fn find(&self, name: &str) -> Option<(usize, &Applied<'f>)> {
        self.all.iter().enumerate().find(|(_, param)| param.param.name.text == name)
    }

    pub fn get(&self, position: usize) -> &Applied<'f> {
        &self.all[position]
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|param| param.param.name.text.as_str())
    }

    pub fn mark_used(&self, position: usize) {
        self.used.borrow_mut().insert(position);
    }

    pub fn unused(&self) -> impl Iterator<Item = &'f Param> {
        let used = self.used.borrow().clone();
        self.all.iter().enumerate().filter(move |(i, _)| !used.contains(i)).map(|(_, param)| param.param)
    }

    /// Names and values as they apply.
    pub fn values(&self) -> Vec<(String, String)> {
        self.all.iter().map(|param| (param.param.name.text.clone(), param.value().to_string())).collect()
    }
}

/// The param that `--set name=text` is about, and its new value.
///
/// # Errors
/// When there is no such param, or the text is no value.
pub(in crate::lang) fn applied<'f>(
    file: &'f File,
    name: &str,
    text: &str,
) -> Result<(&'f Param, Value), Problem> {
    let usage = |message: String| Problem::of(Fault::Usage, "hift::lang::set", message);
    let Some(param) = file.params().find(|param| param.name.text == name) else {
        let names = || file.params().map(|param| param.name.text.as_str());
        let problem = usage(format!("`--set {name}={text}`: the file has no param `{name}`"));
        return Err(match (nearest(name, names()), names().count()) {
            (Some(meant), _) => problem.help(format!("did you mean `--set {meant}={text}`?")),
            (None, 0) => {
                problem.help(format!("add `param {name} = ...` to the file and use it where it applies"))
            }
            (None, _) => problem.help(format!("its params are {}", quoted(names(), "and"))),
        });
    };
    let value = parse_value(text);
    // A shell takes the quotes away: where the file has a text, what is a bare word or no value is a text, too.
    if let Term::Text(_) = param.value.term
        && !text.trim_start().starts_with('"')
        && value.as_ref().map_or(true, |value| matches!(value.term, Term::Word(_)))
    {
        return Ok((param, Value { term: Term::Text(text.to_owned()), span: param.value.span }));
    }
    match value {
        Ok(value) => Ok((param, value)),
        Err(problem) => {
            Err(usage(format!("`--set {name}={text}`: the value cannot be read: {}", problem.message)).help(
                format!("write a value as in the file, for example `--set {name}={}`", shell(&param.value)),
            ))
        }
    }
}

/// A value as an argument for a shell, quoted where the shell would take it apart.
fn shell(value: &Value) -> String {
    let text = value.to_string();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.,/".contains(c));
    if plain { text } else { format!("'{text}'") }
}
