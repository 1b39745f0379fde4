//! What is said where a block or value does not pass the schema: the fact, the place that can be changed, a way out.

use crate::lang::names::{joined, nearest, quoted};
use crate::lang::schema::{self, Form, Function, Key, Kind, Need, Range, Role, Unit};
use crate::lang::syntax::{Block, Name, Term, Value};
use crate::problem::{Fault, Problem, Span};

use super::bindings::By;
use super::check::Checker;

/// Where a value comes from, which decides what a problem with it points at.
#[derive(Clone, Copy)]
pub(super) enum From {
    Here,
    /// By a param or let, used at this place.
    Binding {
        used: Span,
        position: usize,
    },
    /// From the schema.
    Default,
}

/// The question that a value answers.
#[derive(Clone)]
pub(super) struct Asked<'k> {
    pub key: &'k Key,
    /// The function whose argument it is.
    pub of: Option<&'static str>,
    /// The entry of a record, and what it could be.
    pub entry: Option<(String, &'static str)>,
    pub from: From,
    /// The value is what a calculation came to.
    pub calculated: bool,
}

impl Asked<'_> {
    /// `` `peak` of `cosine` ``
    pub(super) fn subject(&self) -> String {
        match (&self.entry, self.of) {
            (Some((entry, _)), _) => format!("`{entry}` of `{}`", self.key.name),
            (None, Some(function)) => format!("`{}` of `{function}`", self.key.name),
            (None, None) => format!("`{}`", self.key.name),
        }
    }

    pub(super) fn example(&self) -> String {
        match &self.entry {
            Some((entry, example)) => format!("write, for example, `{entry} = {example}`"),
            None => format!("write, for example, `{} = {}`", self.key.name, self.key.example),
        }
    }
}

impl Checker<'_, '_> {
    /// A problem with a value, told at the place that can be changed.
    pub(super) fn complain(
        &mut self,
        asked: &Asked,
        span: Span,
        code: &'static str,
        message: String,
        label: String,
        help: String,
    ) {
        self.complain_with(asked, Problem::new(code, message).label(span, label).help(help));
    }

    pub(super) fn complain_with(&mut self, asked: &Asked, mut problem: Problem) {
        if let From::Binding { used, position } = asked.from {
            let binding = self.bindings.get(position);
            let name = &binding.name.text;
            match (binding.by, &binding.value) {
                (By::Set, Some(value)) => {
                    problem.fault = Fault::Usage;
                    problem.labels.clear();
                    problem = problem.label(used, format!("`--set {name}={value}`"));
                }
                _ => problem = problem.label(used, format!("`{name}` is used here")),
            }
        }
        self.problems.push(problem);
    }

    pub(super) fn wrong_type<T>(
        &mut self,
        value: &Value,
        forms: &'static [Form],
        asked: &Asked,
    ) -> Option<T> {
        let is = match &value.term {
            Term::Number(_) => "a number".to_owned(),
            Term::Amount(..) => "an amount".into(),
            Term::Text(_) => "a text".into(),
            Term::Boolean(value) => format!("`{value}`"),
            Term::Word(word) => format!("`{word}`"),
            Term::Call(name, _) => format!("`{}(...)`", name.text),
            Term::List(_) => "a list".into(),
            Term::Record(_) => "names in braces".into(),
            // Checked before: what a calculation comes to is none.
            Term::Mixed(_) | Term::Sum(_) | Term::Product(_) | Term::Negative(_) => "a calculation".into(),
        };
        // A path without quotes is the usual way to get here with a word.
        self.complain(
            asked,
            value.span,
            "hift::lang::wrong_type",
            format!("{} takes {}, not {is}", asked.subject(), described(forms)),
            is,
            asked.example(),
        );
        None
    }

    pub(super) fn unavailable<T>(
        &mut self,
        name: &str,
        span: Span,
        forms: &'static [Form],
        asked: &Asked,
    ) -> Option<T> {
        self.complain(
            asked,
            span,
            "hift::lang::unavailable",
            format!("`{name}` is not available in this version"),
            "planned".into(),
            format!("{} takes {} for now", asked.subject(), described(forms)),
        );
        None
    }

    pub(super) fn unknown_word<T>(
        &mut self,
        word: &str,
        value: &Value,
        forms: &'static [Form],
        asked: &Asked,
    ) -> Option<T> {
        let Some(kinds) = forms.iter().find_map(|form| match form {
            Form::Block(kinds) => Some(*kinds),
            _ => None,
        }) else {
            let words = forms.iter().filter_map(|form| match form {
                Form::Word(word, _) | Form::Soon(word) => Some(*word),
                Form::Function(function) => Some(function.name),
                _ => None,
            });
            let elsewhere = self
                .index
                .blocks
                .iter()
                .find(|(_, block)| block.name.as_ref().is_some_and(|name| name.text == word));
            let takes_text =
                forms.iter().any(|form| matches!(form, Form::Text | Form::Path | Form::Template));
            let help = match nearest(word, words.chain(self.bindings.names())) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if takes_text => format!(
                    "a text stands in quotes: `\"{word}\"`; a param is defined by `param {word} = ...`"
                ),
                None => format!("it takes {}", described(forms)),
            };
            let label = match elsewhere {
                Some((kind, _)) => format!("the name of a {} block", kind.name),
                None => "not known here".into(),
            };
            self.complain(
                asked,
                value.span,
                "hift::lang::unknown_word",
                format!("{} does not know `{word}`", asked.subject()),
                label,
                help,
            );
            return None;
        };
        let wanted = kinds.join(" or ");
        let other =
            self.index.blocks.iter().find(|(_, block)| block.name.as_ref().is_some_and(|n| n.text == word));
        let names: Vec<&str> = kinds.iter().flat_map(|kind| self.index.names(kind)).collect();
        if other.is_none() && self.index.damaged {
            return None;
        }
        let help = match (nearest(word, names.iter().copied().chain(self.bindings.names())), names.as_slice())
        {
            (Some(meant), _) => format!("did you mean `{meant}`?"),
            (None, []) => format!("define it: `{} {word} {{ ... }}`", kinds[0]),
            (None, [one]) => format!("write `{} = {one}`", asked.key.name),
            (None, names) => format!("there are {}", quoted(names.iter().copied(), "and")),
        };
        let problem = match other {
            Some((kind, block)) => Problem::new(
                "hift::lang::unknown_name",
                format!("`{word}` is a {} block, but {} names a {wanted} block", kind.name, asked.subject()),
            )
            .label(value.span, format!("not a {wanted} block"))
            .label(block.head(), format!("a {} block", kind.name)),
            None => Problem::new(
                "hift::lang::unknown_name",
                format!("there is no {wanted} block called `{word}`"),
            )
            .label(value.span, "not defined"),
        };
        self.complain_with(asked, problem.help(help));
        None
    }

    pub(super) fn unknown_key(&self, kind: &'static Kind, block: &Block, name: &Name) -> Problem {
        let problem = Problem::new(
            "hift::lang::unknown_key",
            format!("`{}` is no key of {} block", name.text, article(kind.name)),
        )
        .label(name.span, "not known here");
        if let Some(part) = kind.parts.iter().find(|part| part.name == name.text) {
            return problem.help(format!("write `{} {{ {} }}`, without `=`", part.name, part_example(part)));
        }
        if let Some(meant) = meant(&name.text, kind.keys) {
            return match block.entries.iter().any(|entry| entry.name.text == meant) {
                true => problem.help(format!("remove it: `{meant}` says it already")),
                false => problem.help(format!("did you mean `{meant}`?")),
            };
        }
        let home =
            schema::KINDS.iter().flat_map(|kind| std::iter::once(kind).chain(kind.parts)).find(|other| {
                other.keys.iter().any(|key| key.name == name.text || key.also.contains(&name.text.as_str()))
            });
        match home {
            Some(home) => {
                let key = meant(&name.text, home.keys).unwrap_or(&name.text);
                let place = match home.role {
                    Role::Part => format!("`{} {{ ... }}`", home.name),
                    Role::Definition | Role::Stage => format!("{} block", article(home.name)),
                };
                problem.help(format!("`{key}` is a key of {place}: move it there"))
            }
            None => problem.help(format!("its keys are {}", quoted(available(kind.keys), "and"))),
        }
    }

    pub(super) fn missing_key(&mut self, block: &Block, key: &Key) {
        let kinds = key.takes.iter().find_map(|form| match form {
            Form::Block(kinds) => Some(*kinds),
            _ => None,
        });
        let names: Vec<&str> = kinds
            .iter()
            .flat_map(|kinds| kinds.iter())
            .take(1)
            .flat_map(|kind| self.index.names(kind))
            .collect();
        let help = match (kinds, names.as_slice()) {
            (None, _) => format!("add `{} = {}`", key.name, key.example),
            (Some(kinds), []) => {
                format!("define `{} NAME {{ ... }}` and add `{} = NAME`", kinds[0], key.name)
            }
            (Some(_), [one]) => format!("add `{} = {one}`", key.name),
            (Some(_), several) => {
                format!(
                    "add `{} = {}`, or another of {}",
                    key.name,
                    several[0],
                    quoted(several.iter().copied(), "and")
                )
            }
        };
        self.problems.push(missing(block, key.name, help));
    }
}

/// A block has neither of two keys.
pub(super) fn missing_both(block: &Block, one: &str, other: &str, help: &str) -> Problem {
    Problem::new("hift::lang::missing_key", format!("`{}` has neither `{one}` nor `{other}`", block.title()))
        .label(block.head(), "one of them is missing")
        .help(help)
}

/// A block lacks a key.
pub(super) fn missing(block: &Block, key: &str, help: String) -> Problem {
    Problem::new("hift::lang::missing_key", format!("`{}` has no `{key}`", block.title()))
        .label(block.head(), format!("`{key}` is missing"))
        .help(help)
}

pub(super) fn duplicate(place: &str, name: &Name, first: Span) -> Problem {
    Problem::new("hift::lang::duplicate_key", format!("`{}` stands twice in `{place}`", name.text))
        .label(name.span, "the second one")
        .label(first, "the first one")
        .help("remove one of them")
}

pub(super) fn unavailable_key(key: &Key, block: &Block, name: &Name) -> Problem {
    Problem::new(
        "hift::lang::unavailable",
        format!("`{}` of `{}` is not available in this version", key.name, block.title()),
    )
    .label(name.span, "planned")
    .help("leave it out")
}

pub(super) fn unknown_part(kind: &Kind, block: &Block, inner: &Block) -> Problem {
    let word = &inner.kind.text;
    let problem = Problem::new(
        "hift::lang::unknown_block",
        format!("`{word} {{ ... }}` cannot stand in `{}`", block.title()),
    )
    .label(inner.head(), "a block inside a block");
    if let Some(key) = kind.keys.iter().find(|key| key.name == word) {
        return problem.help(format!("write `{} = {}`", key.name, key.example));
    }
    if schema::kind(word).is_some() {
        return problem.help(format!("put it before or behind `{}`", block.title()));
    }
    match (nearest(word, kind.parts.iter().map(|part| part.name)), kind.parts) {
        (Some(meant), _) => problem.help(format!("did you mean `{meant} {{ ... }}`?")),
        (None, []) => problem.help("remove it; nothing stands in braces here"),
        (None, parts) => {
            problem.help(format!("there are {}", quoted(parts.iter().map(|part| part.name), "and")))
        }
    }
}

/// The key that was meant by a word: by what other tools call it, or by its likeness.
pub(super) fn meant<'k>(word: &str, keys: &'k [Key]) -> Option<&'k str> {
    let by_likeness = || nearest(word, keys.iter().map(|key| key.name));
    keys.iter().find(|key| key.also.contains(&word)).map(|key| key.name).or_else(by_likeness)
}

pub(super) fn available(keys: &'static [Key]) -> impl Iterator<Item = &'static str> {
    keys.iter().filter(|key| key.need != Need::Soon).map(|key| key.name)
}

pub(super) fn part_example(part: &Kind) -> String {
    let needed = part.keys.iter().filter(|key| key.need == Need::Required);
    needed.map(|key| format!("{} = {}", key.name, key.example)).collect::<Vec<_>>().join(" ")
}

pub(super) fn call_example(function: &Function) -> String {
    let needed: Vec<&Key> = function.arguments.iter().filter(|key| key.need == Need::Required).collect();
    let arguments = match needed.as_slice() {
        [one] => vec![one.example.to_owned()],
        several => several.iter().map(|key| format!("{} = {}", key.name, key.example)).collect(),
    };
    format!("{}({})", function.name, arguments.join(", "))
}

pub(super) fn written_units(units: &[(Unit, Range)]) -> String {
    quoted(units.iter().map(|(unit, _)| unit.written()), "or")
}

pub(super) fn called_units(units: &[(Unit, Range)]) -> String {
    let called: Vec<String> = units.iter().map(|(unit, _)| unit.called().to_owned()).collect();
    joined(&called, "or")
}

pub(super) fn number_text(value: &Value) -> &str {
    match &value.term {
        Term::Number(number) | Term::Amount(number, _) => &number.text,
        _ => "",
    }
}

/// What a value may be, in words.
pub(super) fn described(forms: &'static [Form]) -> String {
    let parts: Vec<String> = forms
        .iter()
        .filter_map(|form| {
            Some(match form {
                Form::Word(word, _) => format!("`{word}`"),
                Form::Soon(_) => return None,
                Form::Function(function) if function.arguments.is_empty() => format!("`{}`", function.name),
                Form::Function(function) => format!("`{}(...)`", function.name),
                Form::Whole(_) => "a whole number".into(),
                Form::Real(_) => "a number".into(),
                Form::Amount(units) => match units {
                    [(Unit::Bytes, _)] => "an amount of memory".into(),
                    units => format!("a number of {}", called_units(units)),
                },
                Form::Boolean => "`true` or `false`".into(),
                Form::Text | Form::Template => "a text in quotes".into(),
                Form::Path => "a path in quotes".into(),
                Form::Block(kinds) => format!("the name of {} block", article(&kinds.join(" or "))),
                Form::List(inner, None) => format!("a list in `[]` (of {})", described(inner)),
                Form::List(inner, Some(n)) => format!("a list in `[]` of {n} ({})", described(inner)),
                Form::Record(..) => "names in `{}` (each with a list)".into(),
            })
        })
        .collect();
    joined(&parts, "or")
}

pub(super) fn article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}
