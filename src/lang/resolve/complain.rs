//! What is said where a block or value does not pass the schema: the fact, the place that can be changed, a way out.

use crate::lang::edit;
use crate::lang::names::{joined, nearest, quoted, sure};
use crate::lang::schema::{self, Form, Function, Key, Kind, Need, Range, Role, Unit};
use crate::lang::syntax::{Block, Entry, Name, Term, Value};
use crate::problem::{Edit, Fault, Problem, Span};

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
        // What stands elsewhere may serve others, too, and what was calculated stands nowhere.
        if asked.calculated || !matches!(asked.from, From::Here) {
            problem.fix.clear();
        }
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
        let problem = Problem::new(
            "hift::lang::wrong_type",
            format!("{} takes {}, not {is}", asked.subject(), described(forms)),
        )
        .label(value.span, is);
        let is_number = |form: &Form| matches!(form, Form::Whole(_) | Form::Real(_) | Form::Amount(_));
        let single = forms.iter().any(|form| match (form, &value.term) {
            (Form::List(inner, None), Term::Number(_)) => inner.iter().any(is_number),
            (Form::List(_, None), Term::Word(_) | Term::Text(_)) => true,
            _ => false,
        });
        let problem = match single {
            // The one value of a list.
            true => problem.help(format!("write `[{value}]`")).fix(value.span, format!("[{value}]")),
            false => problem.help(match wrapped(value, forms) {
                Some(call) if asked.entry.is_none() => {
                    format!("write, for example, `{} = {call}`", asked.key.name)
                }
                Some(_) | None => asked.example(),
            }),
        };
        self.complain_with(asked, problem);
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
            let fits = |form: &Form| matches!(form, Form::Word(known, _) if *known == word);
            if forms.iter().any(|form| matches!(form, Form::List(inner, None) if inner.iter().any(fits))) {
                return self.wrong_type(value, forms, asked);
            }
            let words = forms.iter().filter_map(|form| match form {
                Form::Word(word, _) => Some(*word),
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
            let takes_boolean = forms.iter().any(|form| matches!(form, Form::Boolean));
            let takes_list = forms.iter().any(|form| matches!(form, Form::List(_, None)));
            let known: Vec<&str> = words.chain(self.bindings.names()).collect();
            let parts: Vec<&str> = word.split('-').collect();
            let calculates = parts.len() > 1 && parts.iter().all(|part| self.bindings.find(part).is_some());
            let lacks_masters =
                matches!(word, "fp16" | "float16" | "f16" | "half") && known.contains(&"mixed_hi");
            let elsewhere_meant = match word.to_lowercase().as_str() {
                "true" | "yes" | "on" if takes_boolean => Some("true"),
                "false" | "no" | "off" if takes_boolean => Some("false"),
                "null" | "nil" | "off" | "false" | "no" | "disabled" => Some("none"),
                "gpu" => Some("cuda"),
                "float32" | "f32" => Some("fp32"),
                "float16" | "f16" | "half" => Some("fp16"),
                "bfloat16" => Some("bf16"),
                "truncate" => Some("cut"),
                "acc" => Some("accuracy"),
                "ppl" => Some("perplexity"),
                _ => None,
            };
            let elsewhere_meant = elsewhere_meant.filter(|meant| takes_boolean || known.contains(meant));
            let certain = elsewhere_meant.or_else(|| sure(word, known.iter().copied()));
            let (help, instead) = match certain.or_else(|| nearest(word, known.iter().copied())) {
                // Some tools call it `fp16` and keep masters all the same.
                _ if lacks_masters => (
                    "fp16 alone is too coarse to learn with: `mixed_hi(fp16)` keeps 32-bit masters beside it"
                        .into(),
                    None,
                ),
                _ if calculates => {
                    let sum = parts.join(" - ");
                    (format!("a minus has white space around it: `{sum}`"), Some(sum))
                }
                Some(meant) => (format!("did you mean `{meant}`?"), certain.map(str::to_owned)),
                None if takes_text => (
                    format!(
                        "a text stands in quotes: `\"{word}\"`; a param is defined by `param {word} = ...`"
                    ),
                    Some(format!("\"{word}\"")),
                ),
                None if takes_list => {
                    (format!("a list stands in brackets: `[{word}]`"), Some(format!("[{word}]")))
                }
                None => (format!("it takes {}", described(forms)), None),
            };
            let label = match elsewhere {
                Some((kind, _)) => format!("the name of a {} block", kind.name),
                None => "not known here".into(),
            };
            let problem = Problem::new(
                "hift::lang::unknown_word",
                format!("{} does not know `{word}`", asked.subject()),
            )
            .label(value.span, label)
            .help(help)
            .fix_with(instead.map(|text| Edit { span: value.span, text }));
            self.complain_with(asked, problem);
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
                format!(
                    "`{word}` is {} block, but {} names {} block",
                    article(kind.name),
                    asked.subject(),
                    article(&wanted)
                ),
            )
            .label(value.span, format!("not {} block", article(&wanted)))
            .label(block.head(), format!("{} block", article(kind.name))),
            None => Problem::new(
                "hift::lang::unknown_name",
                format!("there is no {wanted} block called `{word}`"),
            )
            .label(value.span, "not defined"),
        };
        let meant = sure(word, names.iter().copied().chain(self.bindings.names()));
        let edit = meant.map(|meant| Edit { span: value.span, text: meant.to_owned() });
        self.complain_with(asked, problem.help(help).fix_with(edit));
        None
    }

    pub(super) fn unknown_key(&self, kind: &'static Kind, block: &Block, entry: &Entry) -> Problem {
        let name = &entry.name;
        let problem = Problem::new(
            "hift::lang::unknown_key",
            format!("`{}` is no key of {} block", name.text, article(kind.name)),
        )
        .label(name.span, "not known here");
        if let Some(part) = kind.parts.iter().find(|part| part.name == name.text) {
            let is_record = matches!(entry.value.term, Term::Record(_));
            let sign = Span::new(name.span.end, entry.value.span.start);
            return problem
                .help(format!("write `{} {{ {} }}`, without `=`", part.name, part_example(part)))
                .fix_with(is_record.then(|| Edit { span: sign, text: " ".into() }));
        }
        let home =
            schema::KINDS.iter().flat_map(|kind| std::iter::once(kind).chain(kind.parts)).find(|other| {
                other.keys.iter().any(|key| key.name == name.text || key.also.contains(&name.text.as_str()))
            });
        let exact = home.is_some_and(|home| home.keys.iter().any(|key| key.name == name.text));
        let likely = match exact {
            // A key of another block was hardly meant as one that is only like it.
            true => surely_meant(&name.text, kind.keys),
            false => meant(&name.text, kind.keys),
        };
        if let Some(meant) = likely {
            // What a profile says, or the base, is changed and not said twice.
            let own = |span: Span| span.to(block.span) == block.span;
            let is_written =
                |other: &Entry| other.name.text == meant && own(other.name.span) == own(name.span);
            return match block.entries.iter().any(is_written) {
                true => problem.help(format!("remove it: `{meant}` says it already")),
                false => {
                    let edit = surely_meant(&name.text, kind.keys)
                        .map(|meant| Edit { span: name.span, text: meant.to_owned() });
                    problem.help(format!("did you mean `{meant}`?")).fix_with(edit)
                }
            };
        }
        match home {
            Some(home) => {
                let key = meant(&name.text, home.keys).unwrap_or(&name.text);
                let place = match home.role {
                    Role::Part => format!("`{} {{ ... }}`", home.name),
                    Role::Definition | Role::Stage => format!("{} block", article(home.name)),
                };
                problem
                    .help(format!("`{key}` is a key of {place}: move it there"))
                    .fix_with(self.moved(block, entry).into_iter().flatten())
            }
            None => problem.help(format!("its keys are {}", quoted(available(kind.keys), "and"))),
        }
    }

    /// Moves an entry to the one block that it can belong to, if there is exactly one.
    fn moved(&self, block: &Block, entry: &Entry) -> Option<[Edit; 2]> {
        let name = entry.name.text.as_str();
        let has = |kind: &Kind| kind.keys.iter().any(|key| key.name == name);
        // Which block is meant is not certain where several kinds have such a key.
        let all = schema::KINDS.iter().flat_map(|kind| std::iter::once(kind).chain(kind.parts));
        if all.filter(|kind| has(kind)).count() != 1 {
            return None;
        }
        let tops = schema::KINDS.iter().filter(|kind| has(kind)).flat_map(|kind| self.index.of(kind.name));
        let parts = schema::KINDS.iter().flat_map(|kind| {
            let parts = kind.parts.iter().filter(|part| has(part));
            parts.flat_map(|part| {
                self.index
                    .of(kind.name)
                    .flat_map(|block| &block.blocks)
                    .filter(move |inner| inner.kind.text == part.name)
            })
        });
        let mut homes = tops.chain(parts);
        let (home, None) = (homes.next()?, homes.next()) else { return None };
        let file = |span: Span| self.sources.locate(span).0;
        let free = !home.is_damaged()
            && home.entries.iter().all(|own| own.name.text != name)
            && file(home.span) == file(entry.name.span)
            && home.span != block.span;
        let written = self.sources.text(entry.name.span.to(entry.value.span));
        let edits = [
            edit::remove(self.sources, entry.name.span.to(entry.value.span))?,
            edit::append(self.sources, home.span, written)?,
        ];
        free.then_some(edits)
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
        let only = match names.as_slice() {
            [one] => edit::append(self.sources, block.span, &format!("{} = {one}", key.name)),
            _ => None,
        };
        self.problems.push(missing(block, key.name, help).fix_with(only));
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
    let meant = sure(word, kind.parts.iter().map(|part| part.name));
    let problem = problem.fix_with(meant.map(|meant| Edit { span: inner.kind.span, text: meant.to_owned() }));
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

/// The key that was meant by a word without any doubt.
pub(super) fn surely_meant<'k>(word: &str, keys: &'k [Key]) -> Option<&'k str> {
    let known = keys.iter();
    known
        .clone()
        .find(|key| key.also.contains(&word))
        .map(|key| key.name)
        .or_else(|| sure(word, known.map(|key| key.name)))
}

pub(super) fn available(keys: &'static [Key]) -> impl Iterator<Item = &'static str> {
    keys.iter().map(|key| key.name)
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

/// A value as the argument of the function that takes one like it, `constant(2e-5)`.
fn wrapped(value: &Value, forms: &'static [Form]) -> Option<String> {
    let takes = |form: &Form| match (&value.term, form) {
        (Term::Number(number), Form::Whole(range)) => {
            number.value.fract() == 0.0 && range.contains(number.value)
        }
        (Term::Number(number), Form::Real(range)) => range.contains(number.value),
        (Term::Text(_), Form::Path | Form::Text) => true,
        _ => false,
    };
    forms.iter().find_map(|form| {
        let Form::Function(function) = form else { return None };
        let mut needed = function.arguments.iter().filter(|key| key.need == Need::Required);
        let (Some(only), None) = (needed.next(), needed.next()) else { return None };
        only.takes.iter().any(takes).then(|| format!("{}({value})", function.name))
    })
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
        .map(|form| match form {
            Form::Word(word, _) => format!("`{word}`"),
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
            Form::List(inner, None) => format!("a list in `[]` (each {})", described(inner)),
            Form::List(inner, Some(n)) => format!("a list of {n} in `[]` (each {})", described(inner)),
            Form::Record([Form::List(..)], _) => "names in `{}` (each with a list)".into(),
            Form::Record(inner, _) => format!("names in `{{}}` (each with {})", described(inner)),
        })
        .collect();
    joined(&parts, "or")
}

pub(super) fn article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}
