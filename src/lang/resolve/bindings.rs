//! Params and lets: names with values, what gives params other values, and the types that params ask for.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::lang::load::Given;
use crate::lang::merge::value_weight;
use crate::lang::names::{joined, nearest, quoted, sure};
use crate::lang::parse::parse_value;
use crate::lang::schema::{UNITS, Unit};
use crate::lang::syntax::{Entry, File, Item, Let, Name, Param, Term, Value};
use crate::lang::too_many;
use crate::problem::{Edit, Fault, Problem, Problems, Span};

use super::Options;
use super::calculate::{Calculator, Quantity, Wanted, is_calculation};

/// Values that names and calculations may copy in all: names of names of long lists grow fast.
const MAX_COPIED: usize = 200_000;

/// The params and lets of a file and its imports, in their order, as they apply.
pub(super) struct Bindings<'f> {
    all: Vec<Binding<'f>>,
    by_name: HashMap<&'f str, usize>,
    used: RefCell<HashSet<usize>>,
    /// Values that names and calculations have copied so far.
    copied: Cell<usize>,
}

/// A name with a value.
pub(super) struct Binding<'f> {
    pub name: &'f Name,
    pub what: What<'f>,
    pub by: By,
    /// As it applies: calculated, unless it is a word, a list, a call or names with values. None where it is wrong
    /// or missing, which has been said. Names of one list share it.
    pub value: Option<Arc<Value>>,
    /// How much a copy of the value takes.
    pub weight: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum What<'f> {
    Param(&'f Param),
    Let(&'f Let),
}

/// What a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The param or let itself.
    Written,
    /// The entry of an import or a profile, at this place.
    Given(Span),
    /// `--set`: its places are none of the file.
    Set,
}

impl<'f> Bindings<'f> {
    /// `given` are values from imports, `profiled` from profiles; what comes later counts, `--set` last.
    pub fn new(
        file: &'f File,
        given: &[Given],
        profiled: &[Entry],
        options: &Options,
        problems: &mut Problems,
    ) -> Self {
        let mut bindings =
            Self { all: Vec::new(), by_name: HashMap::new(), used: RefCell::default(), copied: Cell::new(0) };
        for item in &file.items {
            let (name, what) = match item {
                Item::Param(param) => (&param.name, What::Param(param)),
                Item::Let(binding) => (&binding.name, What::Let(binding)),
                Item::Import(_) | Item::Block(_) => continue,
            };
            if too_many(problems, name.span) {
                break;
            }
            if let Some(first) = bindings.by_name.get(name.text.as_str()) {
                problems.push(
                    Problem::new(
                        "hift::lang::duplicate_param",
                        format!("the name `{}` is given twice", name.text),
                    )
                    .label(name.span, "the second one")
                    .label(bindings.all[*first].name.span, "the first one")
                    .help("remove one of them, or rename it"),
                );
                continue;
            }
            bindings.by_name.insert(&name.text, bindings.all.len());
            bindings.all.push(Binding { name, what, by: By::Written, value: None, weight: 0 });
        }
        let mut values: HashMap<usize, (By, Value, usize)> = HashMap::new();
        for given in given {
            if let Some(position) = bindings.by_name.get(given.entry.name.text.as_str()) {
                let value = given.entry.value.clone();
                values.insert(*position, (By::Given(value.span), value, given.above));
            }
        }
        for entry in profiled {
            if too_many(problems, entry.name.span) {
                break;
            }
            match bindings.param(&entry.name.text) {
                Some((position, _)) => {
                    let value = entry.value.clone();
                    values.insert(position, (By::Given(value.span), value, position));
                }
                None => problems.push(bindings.no_param(&entry.name)),
            }
        }
        for (name, text) in &options.set {
            match bindings.set(name, text) {
                Ok((position, value)) => {
                    values.insert(position, (By::Set, value, position));
                }
                Err(problem) => problems.push(problem),
            }
        }
        for position in 0..bindings.all.len() {
            if too_many(problems, bindings.all[position].name.span) {
                break;
            }
            let (by, value, limit) = match (values.remove(&position), bindings.all[position].what) {
                (Some((by, value, limit)), _) => (by, Some(value), limit.min(position)),
                (None, What::Param(param)) => (By::Written, param.value.clone(), position),
                (None, What::Let(binding)) => (By::Written, Some(binding.value.clone()), position),
            };
            bindings.all[position].by = by;
            let named = match &value {
                Some(Value { term: Term::Word(word), .. }) => {
                    bindings.find(word).map(|(_, named)| named.weight)
                }
                _ => None,
            };
            let value = bindings.apply(position, by, value, limit, options, problems);
            let weight = named.unwrap_or_else(|| value.as_deref().map_or(0, value_weight));
            bindings.all[position].weight = weight;
            bindings.all[position].value = value;
            let place = bindings.all[position].name.span;
            if named.is_some() && !bindings.spend(weight, place, problems) {
                break;
            }
        }
        bindings
    }

    /// The value of a param or let as it applies, if it is right.
    fn apply(
        &self,
        position: usize,
        by: By,
        value: Option<Value>,
        limit: usize,
        options: &Options,
        problems: &mut Problems,
    ) -> Option<Arc<Value>> {
        let binding = &self.all[position];
        let Some(value) = value else {
            let name = &binding.name.text;
            problems.push(
                Problem::new("hift::lang::no_value", format!("the param `{name}` has no value"))
                    .label(binding.name.span, "must be set")
                    .help(format!("call hift with `--set {name}=...`, or write `param {name} = ...`")),
            );
            return None;
        };
        let wanted = match binding.what {
            What::Param(param) if is_typed(param) => match wants_text(param) {
                true => Wanted::Text,
                false => Wanted::Value,
            },
            What::Param(_) | What::Let(_) => Wanted::Any,
        };
        let mut found = Problems::default();
        let value = match &value.term {
            Term::Word(word) => match self.find(word) {
                // Further down: said where it is used, since it may be meant as a word of the language.
                Some((other, binding)) if other < limit => {
                    self.mark_used(other);
                    binding.value.clone()
                }
                Some(_) | None => Some(Arc::new(value)),
            },
            _ if is_calculation(&value) => {
                let mut calculator = Calculator { bindings: self, limit, options, problems: &mut found };
                calculator.value(&value, wanted).map(Arc::new)
            }
            _ => Some(Arc::new(value)),
        };
        let value = value.filter(|value| match binding.what {
            What::Param(param) => self.check(param, value, by, &mut found),
            What::Let(_) => true,
        });
        for mut problem in found.0 {
            if by == By::Set {
                let written = options.set.iter().rev().find(|(name, _)| *name == binding.name.text);
                let text = written.map_or("", |(_, text)| text.as_str());
                problem.fault = Fault::Usage;
                problem.labels.clear();
                problem = problem.label(binding.name.span, format!("`--set {}={text}`", binding.name.text));
            }
            problems.push(problem);
        }
        value
    }

    /// Whether a value is of one of the param's types and in its range; says what is wrong.
    fn check(&self, param: &Param, value: &Value, by: By, problems: &mut Problems) -> bool {
        let before = problems.0.len();
        let name = &param.name.text;
        for choice in &param.types {
            if let Term::Word(word) = &choice.term
                && param.types.len() == 1
                && Type::named(word).is_none()
            {
                problems.push(
                    Problem::new("hift::lang::param_type", format!("there is no type called `{word}`"))
                        .label(choice.span, "not a type")
                        .fix_with(
                            sure(word, type_names())
                                .map(|meant| Edit { span: choice.span, text: meant.to_owned() }),
                        )
                        .help(match nearest(word, TYPES.iter().map(|(name, ..)| *name)) {
                            Some(meant) => format!("did you mean `{meant}`?"),
                            None => format!(
                                "write one of {}; words to choose from stand side by side, `small | large`",
                                quoted(TYPES.iter().map(|(name, ..)| *name), "and")
                            ),
                        }),
                );
                return false;
            }
        }
        // A word that names nothing here may still be one that the key knows.
        if !param.types.is_empty() && !param.types.iter().any(|choice| fits(choice, value)) {
            let choices: Vec<String> = param.types.iter().map(called).collect();
            let problem = Problem::new(
                "hift::lang::param_type",
                format!("the param `{name}` is {}, not `{}`", joined(&choices, "or"), value.brief()),
            );
            let problem = match by {
                By::Written | By::Given(_) => problem.label(value.span, "another type"),
                By::Set => problem,
            };
            let types: Vec<Span> = param.types.iter().map(|choice| choice.span).collect();
            let types = types.iter().copied().reduce(Span::to);
            problems.push(
                problem
                    .label_at(types.filter(|_| by != By::Set), "asked for here")
                    .help(format!("write, for example, {}", example(param))),
            );
        }
        if let Some(range) = &param.range {
            let of = |value: &Value| Quantity::of(value).ok();
            let (low, high) = (range.low.as_ref(), range.high.as_ref());
            let bounds = [low, high].map(|bound| bound.and_then(of));
            let wanted: Vec<String> = [("at least", low), ("at most", high)]
                .into_iter()
                .filter_map(|(word, bound)| Some(format!("{word} {}", bound?)))
                .collect();
            let quantity = of(value);
            let unlike = |bound: &Quantity| quantity.as_ref().is_none_or(|own| own.unit() != bound.unit());
            if problems.0.len() > before {
            } else if bounds.iter().flatten().any(unlike) {
                problems.push(
                    Problem::new(
                        "hift::lang::param_type",
                        format!("`{}` cannot be compared with the range of `{name}`", value.brief()),
                    )
                    .label(value.span, "this")
                    .label(range.span, "the range")
                    .help(format!("write a value that is {}", joined(&wanted, "and"))),
                );
            } else if let (Some(own), [low, high]) = (quantity, &bounds)
                && (low.as_ref().is_some_and(|low| own.value < low.value)
                    || high.as_ref().is_some_and(|high| own.value > high.value))
            {
                problems.push(
                    Problem::new(
                        "hift::lang::range",
                        format!("`{name}` is {value}, but must be {}", joined(&wanted, "and")),
                    )
                    .label(value.span, "out of range")
                    .label(range.span, "the range")
                    .help("write a value in the range, or widen the range"),
                );
            }
        }
        problems.0.len() == before
    }

    /// The param or let of that name and its position.
    pub fn find(&self, name: &str) -> Option<(usize, &Binding<'f>)> {
        let position = *self.by_name.get(name)?;
        Some((position, &self.all[position]))
    }

    fn param(&self, name: &str) -> Option<(usize, &'f Param)> {
        match self.find(name) {
            Some((position, Binding { what: What::Param(param), .. })) => Some((position, param)),
            _ => None,
        }
    }

    pub fn get(&self, position: usize) -> &Binding<'f> {
        &self.all[position]
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|binding| binding.name.text.as_str())
    }

    /// Adds to what names and calculations have copied; says so where it becomes too much.
    pub fn spend(&self, weight: usize, place: Span, problems: &mut Problems) -> bool {
        self.copied.set(self.copied.get() + weight);
        let is_fine = self.copied.get() <= MAX_COPIED;
        if !is_fine {
            problems.push(
                Problem::new("hift::lang::too_much", "params and lets come to too many values")
                    .label(place, "here it becomes too much")
                    .help("use fewer names inside of names"),
            );
        }
        is_fine
    }

    pub fn mark_used(&self, position: usize) {
        self.used.borrow_mut().insert(position);
    }

    pub fn unused(&self) -> impl Iterator<Item = &Binding<'f>> {
        let used = self.used.borrow().clone();
        self.all.iter().enumerate().filter(move |(i, _)| !used.contains(i)).map(|(_, binding)| binding)
    }

    /// Names and values of the params as they apply.
    pub fn values(&self) -> Vec<(String, String)> {
        let params = self.all.iter().filter(|binding| matches!(binding.what, What::Param(_)));
        params
            .filter_map(|binding| Some((binding.name.text.clone(), binding.value.as_ref()?.to_string())))
            .collect()
    }

    fn no_param(&self, name: &Name) -> Problem {
        let params = || {
            let params = self.all.iter().filter(|binding| matches!(binding.what, What::Param(_)));
            params.map(|binding| binding.name.text.as_str())
        };
        let problem =
            Problem::new("hift::lang::profile", format!("there is no param `{}` to give a value", name.text));
        let problem = match self.find(&name.text) {
            Some((_, binding)) => problem.label(name.span, "a let").label(binding.name.span, "defined here"),
            None => problem.label(name.span, "not a param").fix_with(
                sure(&name.text, params()).map(|meant| Edit { span: name.span, text: meant.into() }),
            ),
        };
        problem.help(match (nearest(&name.text, params()), params().count()) {
            (Some(meant), _) if meant != name.text => format!("did you mean `{meant}`?"),
            _ => "a profile gives values to params; keys stand in their block, `train sft { ... }`".into(),
        })
    }

    /// The position of the param that `--set name=text` is about, and its new value.
    ///
    /// # Errors
    /// When there is no such param, or the text is no value.
    fn set(&self, name: &str, text: &str) -> Result<(usize, Value), Problem> {
        let usage = |message: String| Problem::of(Fault::Usage, "hift::lang::set", message);
        let params = || {
            let params = self.all.iter().filter(|binding| matches!(binding.what, What::Param(_)));
            params.map(|binding| binding.name.text.as_str())
        };
        let Some((position, param)) = self.param(name) else {
            let problem = usage(format!("`--set {name}={text}`: the file has no param `{name}`"));
            return Err(match (nearest(name, params()), params().count()) {
                _ if self.find(name).is_some() => {
                    problem.help(format!("`{name}` is a let; write `param {name} = ...` to have it set"))
                }
                (Some(meant), _) => problem.help(format!("did you mean `--set {meant}={text}`?")),
                (None, 0) => {
                    problem.help(format!("add `param {name} = ...` to the file and use it where it applies"))
                }
                (None, _) => problem.help(format!("its params are {}", quoted(params(), "and"))),
            });
        };
        value_of(param, text).map(|value| (position, value)).map_err(|problem| {
            usage(format!("`--set {name}={text}`: the value cannot be read: {}", problem.message)).help(
                format!(
                    "write a value as in the file, for example `--set {name}={}`",
                    shell(param.value.as_ref())
                ),
            )
        })
    }
}

/// What a text outside of the file means as a param's value. A shell takes quotes away: where the param is a text,
/// what is a bare word or no value is a text, too.
fn value_of(param: &Param, text: &str) -> Result<Value, Problem> {
    let value = parse_value(text);
    let like_text =
        !is_typed(param) && matches!(&param.value, Some(Value { term: Term::Text(_) | Term::Mixed(_), .. }));
    // `runs/1` is no division where a text is wanted.
    let bare = match &value {
        Err(_) => true,
        Ok(value) => {
            matches!(value.term, Term::Word(_) | Term::Sum(_) | Term::Product(_) | Term::Negative(_))
        }
    };
    if !text.trim_start().starts_with('"') && (wants_text(param) || (like_text && bare)) {
        return Ok(Value { term: Term::Text(text.to_owned()), span: param.name.span });
    }
    value
}

/// A value as an argument for a shell, quoted where the shell would take it apart.
fn shell(value: Option<&Value>) -> String {
    let text = value.map_or("1".into(), Value::to_string);
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.,/".contains(c));
    if plain { text } else { format!("'{text}'") }
}

/// A type that a param may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Number,
    Whole,
    Text,
    Boolean,
    List,
    Amount(Unit),
}

/// The types by their names, with what they are called in a sentence and an example.
const TYPES: &[(&str, Type, &str, &str)] = &[
    ("number", Type::Number, "a number", "2e-5"),
    ("whole", Type::Whole, "a whole number", "4"),
    ("text", Type::Text, "a text", "\"data/train.jsonl\""),
    ("boolean", Type::Boolean, "`true` or `false`", "true"),
    ("list", Type::List, "a list", "[1, 2]"),
    ("memory", Type::Amount(Unit::Bytes), "an amount of memory", "22 GiB"),
    ("percent", Type::Amount(Unit::Percent), "a share in percent", "3 %"),
    ("time", Type::Amount(Unit::Minutes), "a time", "90 min"),
    ("steps", Type::Amount(Unit::Steps), "a number of steps", "200 steps"),
    ("epochs", Type::Amount(Unit::Epochs), "a number of epochs", "3 epochs"),
    ("cycles", Type::Amount(Unit::Cycles), "a number of cycles", "10 cycles"),
    ("rows", Type::Amount(Unit::Rows), "a number of rows", "100 rows"),
    ("tokens", Type::Amount(Unit::Tokens), "a number of tokens", "512 tokens"),
];

impl Type {
    fn named(word: &str) -> Option<Type> {
        TYPES.iter().find(|(name, ..)| *name == word).map(|(_, own, ..)| *own)
    }
}

/// The names of the types that a param may ask for.
pub fn type_names() -> impl Iterator<Item = &'static str> {
    TYPES.iter().map(|(name, ..)| *name)
}

fn is_typed(param: &Param) -> bool {
    !param.types.is_empty()
}

/// Whether a text from outside is a text, however it looks.
fn wants_text(param: &Param) -> bool {
    let is_text = |choice: &Value| match &choice.term {
        Term::Word(word) => Type::named(word) == Some(Type::Text),
        term => matches!(term, Term::Text(_)),
    };
    is_typed(param) && param.types.iter().all(is_text)
}

fn fits(choice: &Value, value: &Value) -> bool {
    let wanted = match &choice.term {
        Term::Word(word) => Type::named(word),
        _ => None,
    };
    match (wanted, &value.term) {
        (Some(Type::Number), Term::Number(_)) => true,
        (Some(Type::Whole), Term::Number(number)) => number.value.fract() == 0.0,
        (Some(Type::Text), Term::Text(_)) => true,
        (Some(Type::Boolean), Term::Boolean(_)) => true,
        (Some(Type::List), Term::List(_)) => true,
        (Some(Type::Amount(unit)), Term::Amount(_, own)) => {
            UNITS.iter().any(|(name, known, _)| *name == own.text && *known == unit)
        }
        (Some(_), _) => false,
        (None, _) => match (Quantity::of(choice), Quantity::of(value)) {
            (Ok(one), Ok(other)) => one.unit() == other.unit() && one.value == other.value,
            _ => match (&choice.term, &value.term) {
                (Term::Word(one), Term::Word(other)) | (Term::Text(one), Term::Text(other)) => one == other,
                _ => false,
            },
        },
    }
}

/// A choice, in words.
fn called(choice: &Value) -> String {
    if let Term::Word(word) = &choice.term
        && let Some((.., called, _)) = TYPES.iter().find(|(name, ..)| name == word)
    {
        return (*called).into();
    }
    format!("`{choice}`")
}

fn example(param: &Param) -> String {
    let examples: Vec<String> = param
        .types
        .iter()
        .map(|choice| match &choice.term {
            Term::Word(word) => match TYPES.iter().find(|(name, ..)| name == word) {
                Some((.., example)) => format!("`{example}`"),
                None => format!("`{word}`"),
            },
            _ => format!("`{choice}`"),
        })
        .collect();
    joined(&examples, "or")
}
