//! Blocks and values against the schema. What passes is typed and complete: params are replaced, defaults filled in.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::lang::edit;
use crate::lang::load::normal;
use crate::lang::names::{joined, nearest, sure};
use crate::lang::parse::parse_value;
use crate::lang::pipeline::{Origin, Setting};
use crate::lang::schema::{self, Form, Function, Key, Kind, Need, Range, UNITS, Unit};
use crate::lang::source::Sources;
use crate::lang::syntax::{Argument, Block, Entry, Name, Number, Term, Value};
use crate::lang::too_many;
use crate::problem::{Edit, Problem, Problems, Span};

use super::Options;
use super::bindings::{Bindings, By};
use super::calculate::{Calculator, Wanted, is_calculation};
use super::complain::{
    Asked, From, call_example, called_units, described, duplicate, meant, number_text, surely_meant,
    unknown_part, written_units,
};
use super::datum::{Checked, Datum, Fields, Index};

/// Every default of the schema by its text, read.
static DEFAULTS: LazyLock<HashMap<&'static str, Value>> = LazyLock::new(|| {
    fn keys(keys: &'static [Key], found: &mut HashMap<&'static str, Value>) {
        for key in keys {
            if let Need::Default(text) = key.need {
                found.insert(text, parse_value(text).expect("the schema's defaults are values"));
            }
            forms(key.takes, found);
        }
    }
    fn forms(all: &'static [Form], found: &mut HashMap<&'static str, Value>) {
        for form in all {
            match form {
                Form::Function(function) => keys(function.arguments, found),
                Form::List(inner, _) | Form::Record(inner, _) => forms(inner, found),
                Form::Word(..) | Form::Block(_) => {}
                Form::Whole(_) | Form::Real(_) | Form::Amount(_) | Form::Boolean => {}
                Form::Text | Form::Path | Form::Template => {}
            }
        }
    }
    let mut found = HashMap::new();
    for kind in schema::KINDS {
        keys(kind.keys, &mut found);
        for part in kind.parts {
            keys(part.keys, &mut found);
        }
    }
    found
});

/// The value of a default that the schema has.
pub(super) fn default_value(text: &str) -> Value {
    DEFAULTS[text].clone()
}

/// Values in all that a file may come to once its names are replaced: names of lists of names grow fast.
const MAX_VALUES: usize = 200_000;

/// Lists in lists that names may make.
const MAX_DEPTH: usize = 64;

/// What the checks look up and where they complain.
pub(super) struct Checker<'c, 'f> {
    pub bindings: &'c Bindings<'f>,
    pub index: &'c Index<'f>,
    pub sources: &'c Sources,
    pub options: &'c Options,
    pub problems: &'c mut Problems,
    /// Values looked at so far, and how deep in lists the present one stands.
    pub n_values: usize,
    pub depth: usize,
}

impl<'f> Checker<'_, 'f> {
    /// Checks every entry and part of a block; what is wrong is missing in the result.
    pub fn block(&mut self, kind: &'static Kind, block: &'f Block) -> Checked<'f> {
        let mut fields = Fields::default();
        let mut seen: Vec<(&str, Span)> = Vec::new();
        let mut slips: Vec<(&str, Span)> = Vec::new();
        let values_before = self.n_values;
        for entry in &block.entries {
            let name = &entry.name;
            if too_many(self.problems, name.span) {
                // What has not been looked at is not missing.
                seen.extend(kind.keys.iter().map(|key| (key.name, name.span)));
                break;
            }
            let Some(key) = kind.keys.iter().find(|key| key.name == name.text) else {
                self.problems.push(self.unknown_key(kind, block, entry));
                // A slip of the pen is one mistake: the key that was meant is not missing as well.
                slips.extend(meant(&name.text, kind.keys).map(|key| (key, name.span)));
                continue;
            };
            if let Some((_, first)) = seen.iter().find(|(seen, _)| *seen == key.name) {
                let same = block.entries.iter().find(|other| other.name.span == *first);
                let written = |entry: &Entry| self.sources.text(entry.value.span);
                let same = same.is_some_and(|other| written(other) == written(entry));
                let edit = same.then(|| edit::remove(self.sources, name.span.to(entry.value.span))).flatten();
                self.problems.push(duplicate(&block.title(), name, *first).fix_with(edit));
                continue;
            }
            seen.push((key.name, name.span));
            let asked = Asked { key, of: None, entry: None, from: From::Here, calculated: false };
            if let Some(value) = self.value(&entry.value, key.takes, &asked) {
                fields.put(key.name, value);
            }
        }
        seen.extend(slips);
        // A block of the key's name says what was meant; `parts` complains about its form.
        seen.extend(block.blocks.iter().map(|inner| (inner.kind.text.as_str(), inner.kind.span)));
        for key in kind.keys.iter().filter(|key| seen.iter().all(|(seen, _)| *seen != key.name)) {
            match key.need {
                Need::Required if !block.damaged && !self.index.is_partial(block) => {
                    self.missing_key(block, key)
                }
                Need::Default(text) => self.default(key, None, text, &mut fields),
                Need::Required | Need::Depends(_) => {}
            }
        }
        let parts = self.parts(kind, block);
        let name = block.name.as_ref().map_or(String::new(), |name| name.text.clone());
        let weight = self.n_values.saturating_sub(values_before);
        Checked { kind, block, name, fields, parts, weight }
    }

    fn parts(&mut self, kind: &'static Kind, block: &'f Block) -> Vec<Checked<'f>> {
        let mut parts: Vec<Checked> = Vec::new();
        for inner in &block.blocks {
            let word = &inner.kind;
            if too_many(self.problems, word.span) {
                break;
            }
            let Some(part) = kind.parts.iter().find(|part| part.name == word.text) else {
                self.problems.push(unknown_part(kind, block, inner));
                continue;
            };
            if let Some(name) = &inner.name {
                self.problems.push(
                    Problem::new(
                        "hift::lang::name",
                        format!("`{}` inside `{}` has no name", word.text, kind.name),
                    )
                    .label(name.span, "a name")
                    .help(format!("write `{} {{ ... }}`", word.text))
                    .fix(Span::new(word.span.end, name.span.end), ""),
                );
            }
            if let Some(first) = parts.iter().find(|part| part.kind.name == word.text) {
                self.problems.push(duplicate(&block.title(), word, first.block.kind.span));
                continue;
            }
            parts.push(self.block(part, inner));
        }
        parts
    }

    fn default(
        &mut self,
        key: &'static Key,
        of: Option<&'static str>,
        text: &'static str,
        fields: &mut Fields,
    ) {
        let asked = Asked { key, of, entry: None, from: From::Default, calculated: false };
        if let Some(value) = self.value(&DEFAULTS[text], key.takes, &asked) {
            fields.put(key.name, value);
        }
    }

    /// A value that answers a key, its names replaced.
    fn value(&mut self, value: &Value, forms: &'static [Form], asked: &Asked) -> Option<Setting<Datum>> {
        let place = match asked.from {
            From::Binding { used, .. } => used,
            From::Here => value.span,
            From::Default => Span::default(),
        };
        if too_many(self.problems, place) {
            return None;
        }
        self.n_values += match &value.term {
            // Long ones count for more.
            Term::Text(text) => 1 + text.len() / 100,
            _ => 1,
        };
        if self.n_values > MAX_VALUES || self.depth > MAX_DEPTH {
            // Once is enough.
            if self.n_values < usize::MAX / 2 {
                let problem =
                    Problem::new("hift::lang::too_much", "the names in this file come to too many values");
                self.problems.push(
                    problem.label(place, "here it becomes too much").help("use fewer names inside of names"),
                );
            }
            self.n_values = usize::MAX / 2;
            return None;
        }
        self.depth += 1;
        let setting = self.value_within(value, forms, asked);
        self.depth -= 1;
        setting
    }

    fn value_within(
        &mut self,
        value: &Value,
        forms: &'static [Form],
        asked: &Asked,
    ) -> Option<Setting<Datum>> {
        if is_calculation(value) {
            let limit = match asked.from {
                From::Here => self.bindings.len(),
                From::Binding { position, .. } => position,
                From::Default => 0,
            };
            let mut found = Problems::default();
            let mut calculator =
                Calculator { bindings: self.bindings, limit, options: self.options, problems: &mut found };
            let takes_text =
                forms.iter().any(|form| matches!(form, Form::Text | Form::Path | Form::Template));
            if let (true, Term::Product(factors)) = (takes_text, &value.term)
                && let Some((_, Value { term: Term::Word(first), .. })) = factors.first()
                && self.bindings.find(first).is_none()
            {
                // `models/llama` is no division.
                let written = self.sources.text(value.span).to_owned();
                let problem =
                    Problem::new("hift::lang::no_quotes", format!("`{written}` is written without quotes"))
                        .label(value.span, "a text stands in quotes")
                        .help(format!("write `\"{written}\"`"))
                        .fix(value.span, format!("\"{written}\""));
                self.complain_with(asked, problem);
                return None;
            }
            let wanted = if takes_text { Wanted::Any } else { Wanted::Value };
            let calculated = calculator.value(value, wanted);
            for problem in found.0 {
                self.complain_with(asked, problem);
            }
            return self.value(&calculated?, forms, &Asked { calculated: true, ..asked.clone() });
        }
        let datum = match &value.term {
            Term::Word(word) => return self.word(word, value, forms, asked),
            Term::Number(number) => self.number(number.value, &number.text, value, forms, asked)?,
            Term::Amount(number, unit) => self.amount(number.value, unit, value, forms, asked)?,
            Term::Text(text) => self.text(text, value, forms, asked)?,
            Term::Boolean(value_) => match forms.iter().any(|form| matches!(form, Form::Boolean)) {
                true => Datum::Boolean(*value_),
                false => return self.wrong_type(value, forms, asked),
            },
            Term::Call(name, arguments) => self.call(name, arguments, value, forms, asked)?,
            Term::List(values) => {
                let Some((inner, length)) = forms.iter().find_map(|form| match form {
                    Form::List(inner, length) => Some((*inner, *length)),
                    _ => None,
                }) else {
                    return self.wrong_type(value, forms, asked);
                };
                if length.is_some_and(|length| length != values.len()) {
                    let length = length.unwrap_or(0);
                    self.complain(
                        asked,
                        value.span,
                        "hift::lang::wrong_type",
                        format!("{} takes {length} values, not {}", asked.subject(), values.len()),
                        match values.len() {
                            1 => "one value".to_owned(),
                            n => format!("{n} values"),
                        },
                        asked.example(),
                    );
                    return None;
                }
                let values: Vec<_> = values.iter().map(|value| self.value(value, inner, asked)).collect();
                Datum::List(values.into_iter().collect::<Option<_>>()?)
            }
            Term::Record(entries) => self.record(entries, value, forms, asked)?,
            // Calculated above.
            Term::Mixed(_) | Term::Sum(_) | Term::Product(_) | Term::Negative(_) => return None,
        };
        Some(self.setting(datum, value.span, asked))
    }

    fn setting<T>(&self, value: T, span: Span, asked: &Asked) -> Setting<T> {
        match asked.from {
            From::Here if asked.calculated => Setting { value, origin: Origin::Calculated(span) },
            From::Here => Setting::written(value, span),
            From::Binding { used, .. } => Setting { value, origin: Origin::Named(used) },
            From::Default => Setting::default(value),
        }
    }

    fn word(
        &mut self,
        word: &str,
        value: &Value,
        forms: &'static [Form],
        asked: &Asked,
    ) -> Option<Setting<Datum>> {
        for form in forms {
            match form {
                Form::Word(name, _) if *name == word => {
                    return Some(self.setting(Datum::Word(name), value.span, asked));
                }
                Form::Function(function) if function.name == word => {
                    let fields = self.arguments(function, &[], value.span, asked)?;
                    return Some(self.setting(Datum::Call(function.name, fields), value.span, asked));
                }
                Form::Block(kinds) => {
                    if let Some(kind) = kinds.iter().find(|kind| self.index.find(kind, word).is_some()) {
                        return Some(self.setting(Datum::Block(kind, word.to_owned()), value.span, asked));
                    }
                }
                _ => {}
            }
        }
        let Some((position, binding)) = self.bindings.find(word) else {
            return self.unknown_word(word, value, forms, asked);
        };
        let used = match asked.from {
            From::Here => value.span,
            From::Binding { used, position: outer } if position < outer => used,
            From::Binding { position: outer, .. } => {
                let outer = &self.bindings.get(outer).name.text;
                let (place, message, help) = if outer == word {
                    (
                        "itself",
                        format!("`{word}` is defined by itself"),
                        "write a value that does not need it".to_owned(),
                    )
                } else {
                    (
                        "defined further down",
                        format!("`{word}` is used before it is defined"),
                        format!("move `{word}` above `{outer}`"),
                    )
                };
                self.complain(asked, value.span, "hift::lang::param_order", message, place.into(), help);
                return None;
            }
            From::Default => return None,
        };
        self.bindings.mark_used(position);
        let asked = Asked { from: From::Binding { used, position }, ..asked.clone() };
        // Where there is none, that has been said.
        let own = binding.value.clone()?;
        self.value(&own, forms, &asked)
    }

    fn number(
        &mut self,
        number: f64,
        written: &str,
        value: &Value,
        forms: &'static [Form],
        asked: &Asked,
    ) -> Option<Datum> {
        for form in forms {
            match form {
                Form::Whole(range) => {
                    if number.fract() != 0.0 {
                        self.complain(
                            asked,
                            value.span,
                            "hift::lang::wrong_type",
                            format!("{} takes a whole number, not `{written}`", asked.subject()),
                            "not a whole number".into(),
                            asked.example(),
                        );
                        return None;
                    }
                    return self
                        .in_range(number, written, range, None, value, asked)
                        .then_some(Datum::Number(number));
                }
                Form::Real(range) => {
                    return self
                        .in_range(number, written, range, None, value, asked)
                        .then_some(Datum::Number(number));
                }
                _ => {}
            }
        }
        let units = amounts(forms);
        if units.is_empty() {
            return self.wrong_type(value, forms, asked);
        }
        // A fraction in front of a share means percent.
        let share = units.iter().any(|(unit, _)| *unit == Unit::Percent) && number > 0.0 && number < 1.0;
        let choices: Vec<String> = match share {
            true => vec![format!("`{} %`", (number * 1e6).round() / 1e4)],
            false => units.iter().map(|(unit, _)| format!("`{written} {}`", unit.written())).collect(),
        };
        let only = match units.as_slice() {
            // How large a unit of memory was meant, nobody can say.
            [(Unit::Bytes, _)] => false,
            [_] => true,
            _ => share,
        };
        let edit = only.then(|| Edit { span: value.span, text: choices[0].trim_matches('`').to_owned() });
        let problem = Problem::new(
            "hift::lang::missing_unit",
            format!("`{written}` what? {} has a unit", asked.subject()),
        )
        .label(value.span, "without a unit")
        .help(format!("write {}", joined(&choices, "or")))
        .fix_with(edit);
        self.complain_with(asked, problem);
        None
    }

    fn amount(
        &mut self,
        number: f64,
        unit: &Name,
        value: &Value,
        forms: &'static [Form],
        asked: &Asked,
    ) -> Option<Datum> {
        let units = amounts(forms);
        let written = &value.to_string();
        let plain = forms.iter().any(|form| matches!(form, Form::Whole(_) | Form::Real(_)));
        let Some((_, known, size)) = UNITS.iter().find(|(name, ..)| *name == unit.text) else {
            let fitting = || {
                let fitting =
                    UNITS.iter().filter(|(_, known, _)| units.iter().any(|(unit, _)| unit == known));
                fitting.map(|(name, ..)| *name)
            };
            let alias = match unit.text.to_lowercase().as_str() {
                "percent" | "pct" => Some("%"),
                "tok" | "toks" => Some("tokens"),
                "iters" | "iterations" | "updates" => Some("steps"),
                "samples" | "examples" | "lines" | "sequences" => Some("rows"),
                _ => None,
            };
            let certain = alias
                .filter(|alias| fitting().any(|name| name == *alias))
                .or_else(|| sure(&unit.text, fitting()));
            // Which of two sizes it is remains open.
            let likely = match unit.text.as_str() {
                "K" | "k" | "Ki" => Some("KiB"),
                "M" | "m" | "Mi" => Some("MiB"),
                "G" | "g" | "Gi" | "gig" | "gigs" => Some("GiB"),
                "T" | "t" | "Ti" => Some("TiB"),
                _ => None,
            };
            let likely = likely.filter(|likely| fitting().any(|name| name == *likely));
            let help = match certain.or(likely).or_else(|| nearest(&unit.text, fitting())) {
                Some(meant) => format!("did you mean `{} {meant}`?", number_text(value)),
                None if units.is_empty() => asked.example(),
                None => format!("{} is counted in {}", asked.subject(), written_units(&units)),
            };
            let problem =
                Problem::new("hift::lang::unknown_unit", format!("there is no unit `{}`", unit.text))
                    .label(unit.span, "not a unit")
                    .help(help)
                    .fix_with(certain.map(|meant| Edit { span: unit.span, text: meant.to_owned() }));
            self.complain_with(asked, problem);
            return None;
        };
        let Some((_, range)) = units.iter().find(|(unit, _)| unit == known) else {
            if units.is_empty() && !plain {
                return self.wrong_type(value, forms, asked);
            }
            let plain_number = match known {
                Unit::Percent => Number::calculated(number / 100.0).text,
                Unit::Bytes | Unit::Steps | Unit::Epochs | Unit::Cycles => number_text(value).to_owned(),
                Unit::Rows | Unit::Tokens | Unit::Minutes => number_text(value).to_owned(),
            };
            let is_count = known.is_whole() && forms.iter().any(|form| matches!(form, Form::Whole(_)));
            let problem = match units.as_slice() {
                [] => Problem::new(
                    "hift::lang::wrong_unit",
                    format!("{} is a number without a unit", asked.subject()),
                )
                .label(unit.span, "a unit")
                .help(format!("write `{} = {}`", asked.key.name, plain_number))
                // That `8 steps` are 8 of whatever is counted here is certain; what `2 %` of a rate are is not.
                .fix_with(is_count.then_some(Edit { span: value.span, text: plain_number })),
                _ => Problem::new(
                    "hift::lang::wrong_unit",
                    format!(
                        "{} is counted in {}, not in {}",
                        asked.subject(),
                        called_units(&units),
                        known.called()
                    ),
                )
                .label(unit.span, "another unit")
                .help(asked.example()),
            };
            self.complain_with(asked, problem);
            return None;
        };
        if known.is_whole() && number.fract() != 0.0 {
            self.complain(
                asked,
                value.span,
                "hift::lang::wrong_type",
                format!("{} takes whole {}, not {}", asked.subject(), known.written(), number_text(value)),
                "not a whole number".into(),
                format!("write a whole number of {}", known.written()),
            );
            return None;
        }
        self.in_range(number, written, range, Some(*known), value, asked)
            .then_some(Datum::Amount(number * size, *known))
    }

    /// Whether a number is in range; complains if not.
    fn in_range(
        &mut self,
        number: f64,
        written: &str,
        range: &Range,
        unit: Option<Unit>,
        value: &Value,
        asked: &Asked,
    ) -> bool {
        // Beyond this, whole numbers are no longer told apart.
        let countable = number <= (1u64 << 53) as f64;
        if range.contains(number) && countable {
            return true;
        }
        let with_unit = |bound: f64| match unit {
            Some(Unit::Bytes) | None => bound.to_string(),
            Some(unit) => match unit.forms() {
                Some((one, _)) if bound == 1.0 => format!("{bound} {one}"),
                _ => format!("{bound} {}", unit.written()),
            },
        };
        let low = format!("{} {}", if range.above { "above" } else { "at least" }, with_unit(range.low));
        let high = format!("{} {}", if range.below { "below" } else { "at most" }, with_unit(range.high));
        let must = match (range.high.is_finite(), countable) {
            (true, _) => format!("{low} and {high}"),
            (false, true) => low,
            (false, false) => "at most 9007199254740992".into(),
        };
        self.complain(
            asked,
            value.span,
            "hift::lang::range",
            format!("{} is {written}, but must be {must}", asked.subject()),
            "out of range".into(),
            asked.example(),
        );
        false
    }

    fn text(&mut self, text: &str, value: &Value, forms: &'static [Form], asked: &Asked) -> Option<Datum> {
        for form in forms {
            match form {
                Form::Text => return Some(Datum::Text(text.to_owned())),
                Form::Path if !text.is_empty() => {
                    return Some(Datum::Text(self.path(text, value.span, asked)));
                }
                Form::Path => {
                    self.complain(
                        asked,
                        value.span,
                        "hift::lang::range",
                        format!("{} is a path, and this one is empty", asked.subject()),
                        "empty".into(),
                        asked.example(),
                    );
                    return None;
                }
                Form::Template => match template(text) {
                    Ok(()) => return Some(Datum::Text(text.to_owned())),
                    Err((message, help)) => {
                        self.complain(
                            asked,
                            value.span,
                            "hift::lang::template",
                            message,
                            "this text".into(),
                            help,
                        );
                        return None;
                    }
                },
                _ => {}
            }
        }
        let is_word = forms.iter().any(|form| match form {
            Form::Word(word, _) => *word == text,
            Form::Function(function) => function.name == text,
            Form::Block(kinds) => kinds.iter().any(|kind| self.index.find(kind, text).is_some()),
            _ => false,
        });
        if is_word || is_bare(text, forms) {
            let problem =
                Problem::new("hift::lang::quotes", format!("`{text}` is written without quotes here"))
                    .label(value.span, "in quotes")
                    .help(format!("write `{text}`"))
                    .fix(value.span, text);
            self.complain_with(asked, problem);
            return None;
        }
        self.wrong_type(value, forms, asked)
    }

    /// A path as it is seen from the first file's folder: one in an imported file starts from that file's folder.
    fn path(&self, path: &str, place: Span, asked: &Asked) -> String {
        let folder = match asked.from {
            From::Binding { position, .. } if self.bindings.get(position).by == By::Set => None,
            From::Default => None,
            From::Here | From::Binding { .. } => self.sources.get(self.sources.locate(place).0),
        };
        match folder.map(|source| &source.folder) {
            Some(folder) if !folder.as_os_str().is_empty() => {
                normal(&folder.join(path)).display().to_string()
            }
            Some(_) | None => path.to_owned(),
        }
    }

    fn record(
        &mut self,
        entries: &[Entry],
        value: &Value,
        forms: &'static [Form],
        asked: &Asked,
    ) -> Option<Datum> {
        let Some((inner, example)) = forms.iter().find_map(|form| match form {
            Form::Record(inner, example) => Some((*inner, *example)),
            _ => None,
        }) else {
            return self.wrong_type(value, forms, asked);
        };
        if entries.is_empty() {
            self.complain(
                asked,
                value.span,
                "hift::lang::range",
                format!("{} names nothing", asked.subject()),
                "empty".into(),
                asked.example(),
            );
            return None;
        }
        let mut fields = Vec::new();
        let mut whole = true;
        let mut seen: HashMap<&str, Span> = HashMap::new();
        for entry in entries {
            if too_many(self.problems, entry.name.span) {
                return None;
            }
            let first = *seen.entry(&entry.name.text).or_insert(entry.name.span);
            if first != entry.name.span {
                self.complain_with(asked, duplicate(asked.key.name, &entry.name, first));
                whole = false;
                continue;
            }
            let asked = &Asked { entry: Some((entry.name.text.clone(), example)), ..asked.clone() };
            match self.value(&entry.value, inner, asked) {
                Some(value) => {
                    fields.push((self.setting(entry.name.text.clone(), entry.name.span, asked), value));
                }
                None => whole = false,
            }
        }
        whole.then_some(Datum::Record(fields))
    }

    fn call(
        &mut self,
        name: &Name,
        arguments: &[Argument],
        value: &Value,
        forms: &'static [Form],
        asked: &Asked,
    ) -> Option<Datum> {
        for form in forms {
            match form {
                Form::Function(function) if function.name == name.text => {
                    let fields = self.arguments(function, arguments, value.span, asked)?;
                    return Some(Datum::Call(function.name, fields));
                }
                Form::Word(word, _) if *word == name.text => {
                    let problem =
                        Problem::new("hift::lang::wrong_type", format!("`{word}` takes no arguments"))
                            .label(value.span, "in parentheses")
                            .help(format!("write `{} = {word}`", asked.key.name))
                            .fix_with(
                                arguments
                                    .is_empty()
                                    .then(|| Edit { span: value.span, text: (*word).to_owned() }),
                            );
                    self.complain_with(asked, problem);
                    return None;
                }
                _ => {}
            }
        }
        let functions = || {
            forms.iter().filter_map(|form| match form {
                Form::Function(function) => Some(function.name),
                _ => None,
            })
        };
        let problem = Problem::new(
            "hift::lang::unknown_word",
            format!("{} does not know `{}(...)`", asked.subject(), name.text),
        )
        .label(name.span, "not known here")
        .help(match nearest(&name.text, functions()) {
            Some(meant) => format!("did you mean `{meant}(...)`?"),
            None => format!("it takes {}", described(forms)),
        });
        let meant = sure(&name.text, functions());
        let edit = meant.map(|meant| Edit { span: name.span, text: meant.to_owned() });
        self.complain_with(asked, problem.fix_with(edit));
        None
    }

    /// A function's arguments by name, defaults filled in. `span` is the whole call.
    fn arguments(
        &mut self,
        function: &'static Function,
        arguments: &[Argument],
        span: Span,
        asked: &Asked,
    ) -> Option<Fields> {
        let mut fields = Fields::default();
        let mut seen: Vec<(&str, Span)> = Vec::new();
        let mut whole = true;
        let by_position: Vec<&Key> = function.arguments.iter().collect();
        let example = call_example(function);
        for (i, argument) in arguments.iter().enumerate() {
            let place = argument.name.as_ref().map_or(argument.value.span, |name| name.span);
            if too_many(self.problems, place) {
                return None;
            }
            let key = match &argument.name {
                Some(name) => function.arguments.iter().find(|key| key.name == name.text),
                None => by_position.get(i).copied(),
            };
            let Some(key) = key else {
                let (message, help) = match &argument.name {
                    Some(name) => (
                        format!("`{}` has no argument `{}`", function.name, name.text),
                        match meant(&name.text, function.arguments) {
                            Some(meant) => format!("did you mean `{meant} = ...`?"),
                            None => {
                                let known = function.arguments.iter().map(|key| format!("`{}`", key.name));
                                let known = known.collect::<Vec<_>>().join(", ");
                                format!("its arguments are {known}: write, for example, `{example}`")
                            }
                        },
                    ),
                    None => (
                        match by_position.len() {
                            0 => format!("`{}` takes no arguments", function.name),
                            1 => format!("`{}` takes one argument", function.name),
                            n => format!("`{}` takes at most {n} arguments", function.name),
                        },
                        format!("write, for example, `{example}`"),
                    ),
                };
                let label = if argument.name.is_some() { "not known" } else { "one too many" };
                let meant =
                    argument.name.as_ref().and_then(|name| surely_meant(&name.text, function.arguments));
                let problem = Problem::new("hift::lang::argument", message)
                    .label(place, label)
                    .help(help)
                    .fix_with(meant.map(|meant| Edit { span: place, text: meant.to_owned() }));
                self.complain_with(asked, problem);
                whole = false;
                continue;
            };
            if let Some((_, first)) = seen.iter().find(|(seen, _)| *seen == key.name) {
                let name = Name { text: key.name.into(), span: place };
                self.complain_with(asked, duplicate(function.name, &name, *first));
                whole = false;
                continue;
            }
            seen.push((key.name, place));
            let inner =
                Asked { key, of: Some(function.name), entry: None, from: asked.from, calculated: false };
            match self.value(&argument.value, key.takes, &inner) {
                Some(value) => fields.put(key.name, value),
                None => whole = false,
            }
        }
        for key in function.arguments.iter().filter(|key| seen.iter().all(|(seen, _)| *seen != key.name)) {
            match key.need {
                // An argument that was not understood may have been this one.
                Need::Required if whole => {
                    self.complain(
                        asked,
                        span,
                        "hift::lang::argument",
                        format!("`{}` needs `{}`", function.name, key.name),
                        format!("`{}` is missing", key.name),
                        format!("write, for example, `{example}`"),
                    );
                    whole = false;
                }
                Need::Default(text) => self.default(key, Some(function.name), text, &mut fields),
                Need::Required | Need::Depends(_) => {}
            }
        }
        whole.then_some(fields)
    }
}

/// Whether a text holds what a key takes without quotes: a number, an amount, `true`, a list or a call.
fn is_bare(text: &str, forms: &'static [Form]) -> bool {
    // A long one is meant as a text.
    if text.len() > 200 {
        return false;
    }
    let Ok(value) = parse_value(text) else { return false };
    forms.iter().any(|form| match (form, &value.term) {
        (Form::Whole(_) | Form::Real(_), Term::Number(_)) => true,
        (Form::Amount(_), Term::Amount(..)) => true,
        (Form::Boolean, Term::Boolean(_)) => true,
        (Form::List(..), Term::List(_)) => true,
        (Form::Function(function), Term::Call(name, _)) => function.name == name.text,
        _ => false,
    })
}

/// Whether every brace of a template belongs to a column's name or is doubled; else what is wrong and what to do.
fn template(text: &str) -> Result<(), (String, String)> {
    let mut rest = text;
    let literal = "a column is `{name}`; for a brace itself write `{{` or `}}`".to_owned();
    while let Some(at) = rest.find(['{', '}']) {
        let behind = &rest[at + 1..];
        let brace = rest.as_bytes()[at];
        rest = match (brace, behind.as_bytes().first()) {
            (b'{', Some(b'{')) | (b'}', Some(b'}')) => &behind[1..],
            (b'}', _) => return Err(("this template has a `}` too many".into(), literal)),
            _ => match behind.find(['{', '}']) {
                Some(0) => return Err(("this template has a column without a name".into(), literal)),
                Some(end) if behind.as_bytes()[end] == b'}' => &behind[end + 1..],
                _ => return Err(("this template has a `{` that is not closed".into(), literal)),
            },
        };
    }
    Ok(())
}

fn amounts(forms: &'static [Form]) -> Vec<(Unit, Range)> {
    forms
        .iter()
        .flat_map(|form| match form {
            Form::Amount(units) => *units,
            _ => &[],
        })
        .copied()
        .collect()
}
