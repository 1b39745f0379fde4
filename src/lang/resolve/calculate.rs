//! Values that are calculated: arithmetic with units, texts with holes, environment variables.

use std::sync::Arc;

use crate::lang::names::{nearest, quoted, sure};
use crate::lang::parse::parse_value;
use crate::lang::schema::{UNITS, Unit};
use crate::lang::syntax::{Argument, Factor, Name, Number, Piece, Sign, Term, Value};
use crate::problem::{Edit, Fault, Problem, Problems, Span};

use super::Options;
use super::bindings::Bindings;

/// The function that reads an environment variable.
pub const ENV: &str = "env";

/// The longest text that holes may make.
const MAX_TEXT: usize = 1 << 16;

/// Whether a value must be calculated before anything else can be said about it.
pub(super) fn is_calculation(value: &Value) -> bool {
    match &value.term {
        Term::Sum(_) | Term::Product(_) | Term::Negative(_) | Term::Mixed(_) => true,
        Term::Call(name, _) => name.text == ENV,
        Term::Number(_) | Term::Amount(..) | Term::Text(_) | Term::Boolean(_) => false,
        Term::Word(_) | Term::List(_) | Term::Record(_) => false,
    }
}

/// What a text from outside is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// As its default, if it has one, and else as a text.
    Any,
    Text,
    /// A value of the language.
    Value,
}

/// A number with or without a unit. The value is in the unit's base: bytes, percent, minutes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantity {
    pub value: f64,
    /// As it was written, with its size in the base.
    written: Option<(Name, Unit, f64)>,
}

impl Quantity {
    /// The quantity that a value is.
    ///
    /// # Errors
    /// When it is no number, or its unit is not known; gives the unit.
    pub fn of(value: &Value) -> Result<Self, Option<Name>> {
        match &value.term {
            Term::Number(number) => Ok(Self { value: number.value, written: None }),
            Term::Amount(number, unit) => match UNITS.iter().find(|(name, ..)| *name == unit.text) {
                Some((_, known, size)) => {
                    Ok(Self { value: number.value * size, written: Some((unit.clone(), *known, *size)) })
                }
                None => Err(Some(unit.clone())),
            },
            Term::Text(_) | Term::Mixed(_) | Term::Boolean(_) | Term::Word(_) => Err(None),
            Term::Call(..) | Term::List(_) | Term::Record(_) => Err(None),
            Term::Sum(_) | Term::Product(_) | Term::Negative(_) => Err(None),
        }
    }

    pub fn unit(&self) -> Option<Unit> {
        self.written.as_ref().map(|(_, unit, _)| *unit)
    }

    fn term(&self) -> Term {
        match &self.written {
            None => Term::Number(Number::calculated(rounded(self.value))),
            Some((name, unit, size)) => {
                let number = Number::calculated(rounded(self.value / size));
                // `1 step`, `2 steps`
                let name = match unit.forms() {
                    Some((one, many)) => if number.value == 1.0 { one } else { many }.to_owned(),
                    None => name.text.clone(),
                };
                Term::Amount(number, Name { text: name, span: Span::default() })
            }
        }
    }
}

/// Without the noise of binary fractions: three times 1e-5 is 3e-5.
fn rounded(value: f64) -> f64 {
    if value.fract() == 0.0 { value } else { format!("{value:.14e}").parse().unwrap_or(value) }
}

/// Calculates values by the params and lets above position `limit`.
pub(super) struct Calculator<'c, 'f> {
    pub bindings: &'c Bindings<'f>,
    pub limit: usize,
    pub options: &'c Options,
    pub problems: &'c mut Problems,
}

impl Calculator<'_, '_> {
    /// The value that a calculation comes to, at the calculation's place; nothing where it is wrong.
    pub fn value(&mut self, value: &Value, wanted: Wanted) -> Option<Value> {
        let term = match &value.term {
            Term::Mixed(pieces) => Term::Text(self.text(pieces)?),
            Term::Call(name, arguments) if name.text == ENV => {
                return self.env(arguments, value.span, wanted);
            }
            Term::Sum(_) | Term::Product(_) | Term::Negative(_) => self.quantity(value)?.term(),
            Term::Number(_) | Term::Amount(..) | Term::Text(_) | Term::Boolean(_) => value.term.clone(),
            Term::Word(_) | Term::Call(..) | Term::List(_) | Term::Record(_) => value.term.clone(),
        };
        let term = match term {
            Term::Amount(number, unit) => Term::Amount(number, Name { span: value.span, ..unit }),
            term => term,
        };
        Some(Value { term, span: value.span })
    }

    fn wrong<T>(&mut self, span: Span, message: String, label: &str, help: impl Into<String>) -> Option<T> {
        self.problems.push(Problem::new("hift::lang::calculation", message).label(span, label).help(help));
        None
    }

    /// The value of a param or let that is used at a place.
    fn named(&mut self, word: &str, span: Span) -> Option<Arc<Value>> {
        let Some((position, binding)) = self.bindings.find(word) else {
            let names = || self.bindings.names().take(self.limit);
            let parts: Vec<&str> = word.split('-').collect();
            let is_known = |part: &&str| self.bindings.find(part).is_some();
            let instead = match parts.len() > 1 && parts.iter().all(is_known) {
                true => Some(parts.join(" - ")),
                false => sure(word, names()).map(str::to_owned),
            };
            let help = match nearest(word, names()) {
                _ if parts.len() > 1 && parts.iter().any(|part| self.bindings.find(part).is_some()) => {
                    format!("a minus has white space around it: `{}`", parts.join(" - "))
                }
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("define it above: `param {word} = ...` or `let {word} = ...`"),
            };
            self.problems.push(
                Problem::new("hift::lang::unknown_name", format!("there is no param or let called `{word}`"))
                    .label(span, "not defined")
                    .help(help)
                    .fix_with(instead.map(|text| Edit { span, text })),
            );
            return None;
        };
        if position >= self.limit {
            let defined = binding.name.span;
            self.problems.push(
                Problem::new("hift::lang::param_order", format!("`{word}` is used before it is defined"))
                    .label(span, "used here")
                    .label(defined, "defined here")
                    .help(format!("move `{word}` above this")),
            );
            return None;
        }
        self.bindings.mark_used(position);
        binding.value.clone()
    }

    fn quantity(&mut self, value: &Value) -> Option<Quantity> {
        match &value.term {
            Term::Number(_) | Term::Amount(..) => match Quantity::of(value) {
                Ok(quantity) => Some(quantity),
                Err(unit) => {
                    let unit = unit?;
                    let units = || UNITS.iter().map(|(name, ..)| *name);
                    let help = match nearest(&unit.text, units()) {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => {
                            let plural = UNITS
                                .iter()
                                .filter(|(name, unit, _)| unit.forms().is_none_or(|(one, _)| one != *name));
                            format!("units are {}", quoted(plural.map(|(name, ..)| *name), "and"))
                        }
                    };
                    let span = if unit.span == Span::default() { value.span } else { unit.span };
                    let meant = sure(&unit.text, units()).filter(|_| span != value.span);
                    self.problems.push(
                        Problem::new("hift::lang::unknown_unit", format!("there is no unit `{}`", unit.text))
                            .label(span, "not a unit")
                            .help(help)
                            .fix_with(meant.map(|meant| Edit { span, text: meant.to_owned() })),
                    );
                    None
                }
            },
            Term::Word(word) => {
                let named = self.named(word, value.span)?;
                match Quantity::of(&named) {
                    Ok(quantity) => Some(quantity),
                    Err(_) => self.no_number(&named, value.span, &format!("`{word}` is `{}`", named.brief())),
                }
            }
            Term::Call(name, arguments) if name.text == ENV => {
                let value = self.env(arguments, value.span, Wanted::Value)?;
                match Quantity::of(&value) {
                    Ok(quantity) => Some(quantity),
                    Err(_) => {
                        let is = format!("the environment gives `{}`", value.brief());
                        self.no_number(&value, value.span, &is)
                    }
                }
            }
            Term::Negative(of) => {
                let of = self.quantity(of)?;
                Some(Quantity { value: -of.value, ..of })
            }
            Term::Sum(terms) => self.sum(terms),
            Term::Product(factors) => self.product(factors),
            Term::Text(_) | Term::Mixed(_) => self.no_number(value, value.span, "this is a text"),
            Term::Boolean(_) | Term::Call(..) | Term::List(_) | Term::Record(_) => {
                self.no_number(value, value.span, &format!("`{}` is no number", value.brief()))
            }
        }
    }

    fn no_number<T>(&mut self, value: &Value, span: Span, is: &str) -> Option<T> {
        let help = match &value.term {
            Term::Text(_) | Term::Mixed(_) => "texts are put together in one: `\"out/${name}\"`",
            _ => "calculate with numbers and amounts only",
        };
        self.wrong(span, format!("{is}, and only numbers are calculated with"), "not a number", help)
    }

    fn sum(&mut self, terms: &[(Sign, Value)]) -> Option<Quantity> {
        let mut total: Option<Quantity> = None;
        for (sign, value) in terms {
            let term = self.quantity(value)?;
            let signed = match sign {
                Sign::Plus => term.value,
                Sign::Minus => -term.value,
            };
            total = Some(match total {
                None => Quantity { value: signed, ..term },
                Some(total) if total.unit() == term.unit() => {
                    Quantity { value: total.value + signed, ..total }
                }
                Some(total) => {
                    let called = |unit: Option<Unit>| {
                        unit.map_or("a plain number".to_owned(), |unit| unit.called().to_owned())
                    };
                    let what = match sign {
                        Sign::Plus => "added to",
                        Sign::Minus => "taken from",
                    };
                    let (own, other) = (called(term.unit()), called(total.unit()));
                    // A plain number beside an amount was meant in the amount's unit.
                    let meant = match (&term.written, &total.written, &value.term) {
                        (None, Some((unit, ..)), Term::Number(_)) => Some(format!("{value} {}", unit.text)),
                        _ => None,
                    };
                    let help = match &meant {
                        Some(meant) => format!("write `{meant}`"),
                        None => "both sides of `+` and `-` are of the same unit".to_owned(),
                    };
                    self.problems.push(
                        Problem::new("hift::lang::calculation", format!("{own} cannot be {what} {other}"))
                            .label(value.span, own)
                            .label(terms[0].1.span, other)
                            .help(help)
                            .fix_with(meant.map(|text| Edit { span: value.span, text })),
                    );
                    return None;
                }
            });
        }
        self.finite(total?, terms.first()?.1.span.to(terms.last()?.1.span))
    }

    fn product(&mut self, factors: &[(Factor, Value)]) -> Option<Quantity> {
        let mut total = Quantity { value: 1.0, written: None };
        for (factor, value) in factors {
            let own = self.quantity(value)?;
            total = match (factor, total.unit(), own.unit()) {
                (Factor::Times, None, _) => Quantity { value: total.value * own.value, ..own },
                (Factor::Times, Some(_), None) => Quantity { value: total.value * own.value, ..total },
                (Factor::Over, _, _) if own.value == 0.0 => {
                    return self.wrong(
                        value.span,
                        "nothing can be divided by zero".into(),
                        "is zero",
                        "write another number",
                    );
                }
                (Factor::Over, _, None) => Quantity { value: total.value / own.value, ..total },
                (Factor::Over, Some(one), Some(other)) if one == other => {
                    Quantity { value: total.value / own.value, written: None }
                }
                (Factor::Times, Some(one), Some(other)) => {
                    return self.wrong(
                        value.span,
                        format!("{} times {} is nothing that has a unit", one.called(), other.called()),
                        "has a unit, too",
                        "multiply by a number without a unit",
                    );
                }
                (Factor::Over, one, Some(other)) => {
                    let one = one.map_or("a plain number", Unit::called);
                    return self.wrong(
                        value.span,
                        format!("{one} cannot be divided by {}", other.called()),
                        "of another unit",
                        "divide by a number without a unit, or by an amount of the same unit",
                    );
                }
            };
        }
        self.finite(total, factors.first()?.1.span.to(factors.last()?.1.span))
    }

    fn finite(&mut self, quantity: Quantity, span: Span) -> Option<Quantity> {
        if quantity.value.is_finite() {
            return Some(quantity);
        }
        self.wrong(
            span,
            "this comes to more than any number can be".into(),
            "too large",
            "calculate with smaller numbers",
        )
    }

    fn text(&mut self, pieces: &[Piece]) -> Option<String> {
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Hole(value) => {
                    let filled = match &value.term {
                        Term::Word(word) => self.named(word, value.span)?,
                        _ => Arc::new(self.value(value, Wanted::Any)?),
                    };
                    match &filled.term {
                        Term::Number(number) => text.push_str(&number.text),
                        Term::Text(filled) => text.push_str(filled),
                        Term::Boolean(filled) => text.push_str(&filled.to_string()),
                        Term::Word(filled) => text.push_str(filled),
                        Term::Amount(_, unit) => {
                            let one = format!("${{{value} / 1 {}}}", unit.text);
                            return self.wrong(
                                value.span,
                                format!("`{filled}` has a unit, and a text has none"),
                                "an amount",
                                format!("write `{one}` for the number alone"),
                            );
                        }
                        _ => {
                            return self.wrong(
                                value.span,
                                format!("`{}` cannot stand in a text", filled.brief()),
                                "neither a number nor a text",
                                "write the name of a number or a text",
                            );
                        }
                    }
                }
            }
            if text.len() > MAX_TEXT {
                self.problems.push(
                    Problem::new(
                        "hift::lang::too_much",
                        format!("a text of more than {MAX_TEXT} characters"),
                    )
                    .label(value_span(pieces), "here it becomes too long")
                    .help("no value needs so many"),
                );
                return None;
            }
        }
        self.bindings.spend(text.len() / 100, value_span(pieces), self.problems).then_some(text)
    }

    /// `env("NAME")`, `env("NAME", default)`
    fn env(&mut self, arguments: &[Argument], span: Span, wanted: Wanted) -> Option<Value> {
        let named = |i: usize, name: &str| {
            let by_name =
                arguments.iter().find(|argument| argument.name.as_ref().is_some_and(|own| own.text == name));
            by_name.or_else(|| arguments.get(i).filter(|argument| argument.name.is_none()))
        };
        let (name, default) = (named(0, "name"), named(1, "default"));
        let known = usize::from(name.is_some()) + usize::from(default.is_some());
        let (Some(name), true) = (name, known == arguments.len()) else {
            self.problems.push(
                Problem::new(
                    "hift::lang::argument",
                    "`env` takes the name of a variable and, perhaps, a default",
                )
                .label(span, "not this")
                .help("write `env(\"NAME\")` or `env(\"NAME\", 4)`"),
            );
            return None;
        };
        let Term::Text(variable) = &name.value.term else {
            self.problems.push(
                Problem::new("hift::lang::argument", "the name of an environment variable is a text")
                    .label(name.value.span, "not a text in quotes")
                    .help(match &name.value.term {
                        Term::Word(word) => format!("write `env(\"{word}\")`"),
                        _ => "write `env(\"NAME\")`".to_owned(),
                    })
                    .fix_with(match &name.value.term {
                        Term::Word(word) => Some(Edit { span: name.value.span, text: format!("\"{word}\"") }),
                        _ => None,
                    }),
            );
            return None;
        };
        let default = match default.map(|default| &default.value) {
            Some(Value { term: Term::Word(word), span }) => match self.bindings.find(word) {
                Some((_, binding)) => {
                    if !self.bindings.spend(binding.weight, *span, self.problems) {
                        return None;
                    }
                    Some(self.named(word, *span)?.as_ref().clone())
                }
                None => Some(Value { term: Term::Word(word.clone()), span: *span }),
            },
            Some(default) if is_calculation(default) => Some(self.value(default, wanted)?),
            Some(default) => Some(default.clone()),
            None => None,
        };
        let Some(text) = self.options.outside.env(variable) else {
            if let Some(default) = default {
                return Some(Value { span, ..default });
            }
            self.problems.push(
                Problem::of(
                    Fault::Missing,
                    "hift::lang::env",
                    format!("the environment variable `{variable}` is not set"),
                )
                .label(span, "needed here")
                .help(format!("set it, or give a default: `env(\"{variable}\", ...)`")),
            );
            return None;
        };
        let is_text = match (wanted, &default) {
            (Wanted::Text, _) => true,
            (Wanted::Value, _) => false,
            (Wanted::Any, None) => true,
            (Wanted::Any, Some(default)) => matches!(default.term, Term::Text(_)),
        };
        if is_text {
            return Some(Value { term: Term::Text(text), span });
        }
        match parse_value(&text) {
            Ok(Value { term: Term::Amount(number, unit), .. }) => {
                Some(Value { term: Term::Amount(number, Name { span, ..unit }), span })
            }
            Ok(Value {
                term: term @ (Term::Number(_) | Term::Boolean(_) | Term::Word(_) | Term::Text(_)),
                ..
            }) => Some(Value { term, span }),
            _ => {
                let like = default.map_or(String::new(), |default| format!(" such as `{default}`"));
                self.problems.push(
                    Problem::of(
                        Fault::Usage,
                        "hift::lang::env",
                        format!("the environment variable `{variable}` is `{text}`, which is no value"),
                    )
                    .label(span, "needed here")
                    .help(format!("set it to a value{like}")),
                );
                None
            }
        }
    }
}

fn value_span(pieces: &[Piece]) -> Span {
    pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Hole(value) => Some(value.span),
        })
        .next_back()
        .unwrap_or_default()
}
