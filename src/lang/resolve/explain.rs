//! What passed the checks, as plain values with their origins: what a reader asks who wonders why a key has its value.

use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

use crate::lang::pipeline::{self, Setting, Stage, Tokenizer};
use crate::lang::resolved::{
    How, Origin, Resolved, ResolvedBlock, ResolvedEntry, ResolvedName, Through, Varied, Within,
};
use crate::lang::schema::{self, Form, Key, Need, UNITS, Unit};
use crate::lang::source::Sources;
use crate::lang::syntax::{Argument, Block, Entry, File, Name, Number, Piece, Term, Value};
use crate::problem::Span;

use super::bindings::{Bindings, By, What};
use super::calculate::{ENV, is_calculation};
use super::check::default_value;
use super::datum::{Checked, Datum};

/// Everything that a file has come to.
pub(super) struct Explained<'e, 'f> {
    pub file: &'f File,
    pub sources: &'e Sources,
    pub bindings: &'e Bindings<'f>,
    pub definitions: &'e [Checked<'f>],
    /// In the order in which they run.
    pub stages: Vec<&'e Checked<'f>>,
    pub built: &'e [Stage],
}

pub(super) fn explain(all: &Explained) -> Resolved {
    let mut homes: Vec<&Block> = all.file.blocks().collect();
    homes.sort_by_key(|block| block.span.start);
    let by_name = all.stages.iter().map(|stage| ((stage.kind.name, stage.name.as_str()), *stage)).collect();
    let mut uses: HashMap<(&str, &str), Vec<&Stage>> = HashMap::new();
    for stage in all.built {
        for used in used_by(stage) {
            uses.entry(used).or_default().push(stage);
        }
    }
    let explainer = Explainer { all, homes, by_name, uses };
    let names = (0..all.bindings.len()).map(|position| explainer.name(position)).collect();
    let stages: Vec<ResolvedBlock> = all.stages.iter().map(|stage| explainer.stage(stage)).collect();
    let mut used: HashSet<(&str, &str)> =
        all.stages.iter().flat_map(|stage| explainer.names_of(stage)).collect();
    // A mix that is used uses its blocks.
    let is_used = |block: &&Checked| used.contains(&(block.kind.name, block.name.as_str()));
    let mixes: Vec<&Checked> = all.definitions.iter().filter(is_used).collect();
    for mix in mixes {
        mix.fields.iter().for_each(|(_, value)| value.value.blocks(&mut used));
    }
    let mut definitions: Vec<&Checked> = all
        .definitions
        .iter()
        .filter(|checked| {
            stages.is_empty()
                || checked.kind.name == "hook"
                || used.contains(&(checked.kind.name, checked.name.as_str()))
        })
        .collect();
    definitions.sort_by_key(|checked| schema::KINDS.iter().position(|kind| kind.name == checked.kind.name));
    let definitions = definitions.into_iter().map(|checked| explainer.definition(checked));
    Resolved { names, blocks: definitions.chain(stages.iter().cloned()).collect() }
}

struct Explainer<'e, 'f> {
    all: &'e Explained<'e, 'f>,
    /// The blocks of the file, by their places.
    homes: Vec<&'f Block>,
    /// Stages by kind and name.
    by_name: HashMap<(&'static str, &'e str), &'e Checked<'f>>,
    /// Which stages use a definition.
    uses: HashMap<(&'static str, &'e str), Vec<&'e Stage>>,
}

impl<'e, 'f> Explainer<'e, 'f> {
    fn name(&self, position: usize) -> ResolvedName {
        let binding = self.all.bindings.get(position);
        ResolvedName {
            name: binding.name.text.clone(),
            span: binding.name.span,
            value: binding.value.clone(),
            origin: self.of_binding(position),
        }
    }

    /// The train stage that a stage goes on from.
    fn from(&self, stage: &Checked) -> Option<&'e Checked<'f>> {
        match stage.fields.get("from").map(|from| &from.value) {
            Some(Datum::Block(kind, name)) => self.by_name.get(&(*kind, name.as_str())).copied(),
            _ => None,
        }
    }

    /// What applies where a stage leaves out a key: that of the train stage it goes on from.
    fn taken(&self, stage: &Checked, key: &Key) -> Option<(&'e Checked<'f>, &'e Setting<Datum>)> {
        match key.need {
            // What a stage continues is its own affair.
            Need::Depends(_) if (stage.kind.name, key.name) == ("generate", "data") => None,
            // The stage stands for the model, which is not named beside it.
            Need::Depends(_) if key.name != "model" && stage.fields.get(key.name).is_none() => {
                let from = self.from(stage)?;
                Some((from, from.fields.get(key.name)?))
            }
            Need::Depends(_) | Need::Required | Need::Default(_) => None,
        }
    }

    /// Kinds and names of the blocks that a stage uses.
    fn names_of(&self, stage: &'e Checked<'f>) -> Vec<(&'static str, &'e str)> {
        let own = stage.fields.iter().map(|(_, value)| value);
        let taken = stage.kind.keys.iter().filter_map(|key| self.taken(stage, key)).map(|(_, value)| value);
        own.chain(taken)
            .filter_map(|setting| match &setting.value {
                Datum::Block(kind, name) => Some((*kind, name.as_str())),
                _ => None,
            })
            .collect()
    }

    fn stage(&self, stage: &Checked) -> ResolvedBlock {
        let mut block = self.block(stage, stage.block);
        for key in stage.kind.keys {
            if let Some((from, setting)) = self.taken(stage, key) {
                let value = value(&setting.value, key.takes);
                let origin = Origin::new(How::Taken(from.name.clone()));
                block.entries.push(ResolvedEntry { key, value, origin, within: Vec::new() });
            } else if key.name == "device"
                && stage.fields.get("device").is_none()
                && stage.kind.name != "train"
            {
                // Stages that use a model as it is have none to take it from.
                let value = default_value("auto");
                let origin = Origin::new(How::Default(None));
                block.entries.push(ResolvedEntry { key, value, origin, within: Vec::new() });
            }
        }
        in_order(&mut block.entries, stage.kind.keys);
        block
    }

    fn definition(&self, checked: &Checked) -> ResolvedBlock {
        let mut block = self.block(checked, checked.block);
        let depends: Vec<&'static Key> = checked
            .kind
            .keys
            .iter()
            .filter(|key| matches!(key.need, Need::Depends(_)) && checked.fields.get(key.name).is_none())
            .collect();
        if depends.is_empty() {
            return block;
        }
        // The pipeline calls its values as the schema does, so its own JSON says what came of a key.
        let uses = self.uses.get(&(checked.kind.name, checked.name.as_str())).map_or(&[][..], Vec::as_slice);
        let uses: Vec<(&str, Json)> = uses.iter().map(|stage| (stage.name(), used(stage, checked))).collect();
        for key in depends {
            let mut values: Vec<(Value, Vec<String>)> = Vec::new();
            for (stage, json) in &uses {
                let Some(value) = of_json(json, key.name) else { continue };
                match values.iter_mut().find(|(known, _)| *known == value) {
                    Some((_, stages)) => stages.push((*stage).to_owned()),
                    None => values.push((value, vec![(*stage).to_owned()])),
                }
            }
            if values.len() > 1 {
                block.varied.push(Varied { key, values });
            } else if let Some((value, _)) = values.pop() {
                let algorithm = uses.first().and_then(|(_, json)| of_json(json, "algorithm"));
                let how = match (checked.kind.name, key.name) {
                    ("optimizer", "algorithm") => How::Derived("the block's name"),
                    ("optimizer", _) => How::Default(algorithm.map(|name| name.to_string())),
                    ("tokenizer", _) => How::Derived("the rows' format"),
                    _ => How::Default(None),
                };
                block.entries.push(ResolvedEntry {
                    key,
                    value,
                    origin: Origin::new(how),
                    within: Vec::new(),
                });
            }
        }
        in_order(&mut block.entries, checked.kind.keys);
        block
    }

    /// What is written or has a default of its own. `home` is the block of the top level.
    fn block(&self, checked: &Checked, home: &Block) -> ResolvedBlock {
        let mut entries: Vec<ResolvedEntry> = Vec::new();
        for key in checked.kind.keys {
            let Some(setting) = checked.fields.get(key.name) else { continue };
            if setting.origin == pipeline::Origin::Default && !has_use(checked, key) {
                continue;
            }
            let entry = checked.block.entries.iter().find(|entry| entry.name.text == key.name);
            let mut within = Vec::new();
            let place = Place { entry, home };
            self.within(setting, key.takes, &place, "", &mut within);
            entries.push(ResolvedEntry {
                key,
                value: value(&setting.value, key.takes),
                origin: self.origin(setting.origin, &place),
                within,
            });
        }
        ResolvedBlock {
            kind: checked.kind,
            name: checked.name.clone(),
            head: checked.head(),
            entries,
            parts: checked.parts.iter().map(|part| self.block(part, home)).collect(),
            varied: Vec::new(),
        }
    }

    /// The parts of a value that come from elsewhere than the whole.
    fn within(
        &self,
        whole: &Setting<Datum>,
        forms: &'static [Form],
        place: &Place,
        path: &str,
        found: &mut Vec<Within>,
    ) {
        let mut part = |part: &Setting<Datum>, forms: &'static [Form], path: String| {
            if !is_alike(whole.origin, part.origin) {
                found.push(Within {
                    path: path.clone(),
                    value: value(&part.value, forms),
                    origin: self.origin(part.origin, place),
                });
            }
            self.within(part, forms, place, &path, found);
        };
        let dot = if path.is_empty() { "" } else { "." };
        match &whole.value {
            Datum::Call(name, fields) => {
                let Some(function) = function(name, forms) else { return };
                for key in function.arguments {
                    if let Some(setting) = fields.get(key.name) {
                        part(setting, key.takes, format!("{path}{dot}{}", key.name));
                    }
                }
            }
            Datum::List(values) => {
                for (i, setting) in values.iter().enumerate() {
                    part(setting, inner(forms), format!("{path}[{i}]"));
                }
            }
            Datum::Record(fields) => {
                for (name, setting) in fields {
                    part(setting, inner(forms), format!("{path}{dot}{}", name.value));
                }
            }
            Datum::Number(_) | Datum::Amount(..) | Datum::Boolean(_) | Datum::Text(_) => {}
            Datum::Word(_) | Datum::Block(..) => {}
        }
    }

    fn origin(&self, origin: pipeline::Origin, place: &Place) -> Origin {
        match origin {
            pipeline::Origin::Default => Origin::new(How::Default(None)),
            pipeline::Origin::Written(span) => {
                Origin { through: self.through(span, place), place: Some(span), ..Origin::new(How::Written) }
            }
            pipeline::Origin::Calculated(span) => {
                let calculation = place.entry.and_then(|entry| find(&entry.value, span));
                let asks = calculation.is_some_and(asks_environment);
                Origin {
                    how: if asks { How::Env } else { How::Calculated },
                    through: self.through(span, place),
                    calculation: calculation.map(Value::to_string),
                    place: Some(span),
                }
            }
            pipeline::Origin::Named(span) => {
                let binding = self.all.bindings.find(self.all.sources.text(span));
                let mut origin = match binding {
                    Some((position, _)) => self.of_binding(position),
                    None => Origin { place: Some(span), ..Origin::new(How::Written) },
                };
                origin.through.extend(self.through(span, place));
                origin
            }
        }
    }

    fn of_binding(&self, position: usize) -> Origin {
        let binding = self.all.bindings.get(position);
        let name = binding.name.text.clone();
        let how = match binding.what {
            What::Param(_) => How::Param(name),
            What::Let(_) => How::Let(name),
        };
        let written = match binding.what {
            What::Param(param) => param.value.as_ref(),
            What::Let(binding) => Some(&binding.value),
        };
        let calculation = match binding.by {
            By::Written => written.filter(|value| is_calculation(value)).map(Value::to_string),
            By::Given(_) | By::Set => None,
        };
        let (through, place) = match binding.by {
            By::Written => (Vec::new(), Some(written.map_or(binding.name.span, |value| value.span))),
            By::Given(span) => match self.home(span) {
                Some(profile) if profile.kind.text == schema::PROFILE => {
                    (vec![Through::Profile(name_of(profile))], Some(span))
                }
                Some(_) | None => (vec![Through::Import], Some(span)),
            },
            By::Set => (vec![Through::Set], None),
        };
        Origin { how, through, calculation, place }
    }

    /// The block of the top level that a place is in.
    fn home(&self, span: Span) -> Option<&'f Block> {
        let behind = self.homes.partition_point(|block| block.span.start <= span.start);
        let home = *self.homes.get(behind.checked_sub(1)?)?;
        (span.start < home.span.end).then_some(home)
    }

    /// What brought an entry into the block that it applies in.
    fn through(&self, span: Span, place: &Place) -> Vec<Through> {
        let base = place.home.base.as_ref();
        // The algorithm that a base's name says stands at the name.
        if let Some(base) = base.filter(|base| base.span == span) {
            return vec![Through::Base(base.text.clone())];
        }
        match self.home(span) {
            Some(home) if home.kind.text == schema::PROFILE => vec![Through::Profile(name_of(home))],
            Some(home) if home.span != place.home.span => vec![Through::Base(name_of(home))],
            Some(_) | None => Vec::new(),
        }
    }
}

/// Where a value is looked for.
struct Place<'p> {
    /// The entry that it is or is part of, if it is written.
    entry: Option<&'p Entry>,
    /// The block of the top level in which it applies.
    home: &'p Block,
}

/// Whether a key does anything: one that does not is refused where it is written.
fn has_use(checked: &Checked, key: &Key) -> bool {
    match (checked.kind.name, key.name) {
        ("schedule", "horizon") => {
            checked.fields.get("advance").and_then(|advance| advance.value.word()) != Some("per_step")
        }
        ("generate", "rows") => checked.fields.get("data").is_some(),
        // Of a mix, its blocks say it.
        ("data", "filter" | "holdout") => {
            !matches!(checked.fields.get("source").map(|source| &source.value), Some(Datum::Call("mix", _)))
        }
        _ => true,
    }
}

fn name_of(block: &Block) -> String {
    block.name.as_ref().map_or(String::new(), |name| name.text.clone())
}

/// Whether a part has nothing to say beyond what its whole says.
fn is_alike(whole: pipeline::Origin, part: pipeline::Origin) -> bool {
    use pipeline::Origin::{Calculated, Default, Named, Written};
    match (whole, part) {
        (Written(_), Written(_)) | (Default, Default) | (Calculated(_), Calculated(_)) => true,
        (Named(one), Named(other)) => one == other,
        (Written(_) | Named(_) | Calculated(_) | Default, _) => false,
    }
}

/// The part of a value that stands at a place.
fn find(value: &Value, span: Span) -> Option<&Value> {
    if value.span == span && is_calculation(value) {
        return Some(value);
    }
    if span.start < value.span.start || value.span.end < span.end {
        return None;
    }
    match &value.term {
        Term::Call(_, arguments) => arguments.iter().find_map(|argument| find(&argument.value, span)),
        Term::List(values) => values.iter().find_map(|value| find(value, span)),
        Term::Record(entries) => entries.iter().find_map(|entry| find(&entry.value, span)),
        Term::Number(_) | Term::Amount(..) | Term::Text(_) | Term::Boolean(_) | Term::Word(_) => None,
        Term::Mixed(_) | Term::Sum(_) | Term::Product(_) | Term::Negative(_) => None,
    }
}

fn asks_environment(value: &Value) -> bool {
    match &value.term {
        Term::Call(name, _) => name.text == ENV,
        Term::Mixed(pieces) => pieces.iter().any(|piece| match piece {
            Piece::Text(_) => false,
            Piece::Hole(value) => asks_environment(value),
        }),
        Term::Sum(terms) => terms.iter().any(|(_, value)| asks_environment(value)),
        Term::Product(factors) => factors.iter().any(|(_, value)| asks_environment(value)),
        Term::Negative(value) => asks_environment(value),
        Term::Number(_) | Term::Amount(..) | Term::Text(_) | Term::Boolean(_) => false,
        Term::Word(_) | Term::List(_) | Term::Record(_) => false,
    }
}

fn in_order(entries: &mut [ResolvedEntry], keys: &'static [Key]) {
    entries.sort_by_key(|entry| keys.iter().position(|key| key.name == entry.key.name));
}

fn function(name: &str, forms: &'static [Form]) -> Option<&'static schema::Function> {
    forms.iter().find_map(|form| match form {
        Form::Function(function) if function.name == name => Some(*function),
        _ => None,
    })
}

/// What the elements of a list, or the values of names in braces, may be.
fn inner(forms: &'static [Form]) -> &'static [Form] {
    let inner = forms.iter().find_map(|form| match form {
        Form::List(inner, _) | Form::Record(inner, _) => Some(*inner),
        _ => None,
    });
    inner.unwrap_or(&[])
}

/// A value as it is written without any name or calculation.
fn value(datum: &Datum, forms: &'static [Form]) -> Value {
    plain(match datum {
        Datum::Number(number) => Term::Number(Number::calculated(*number)),
        Datum::Amount(number, unit) => amount(*number, *unit),
        Datum::Boolean(value) => Term::Boolean(*value),
        Datum::Text(text) => Term::Text(text.clone()),
        Datum::Word(word) => Term::Word((*word).to_owned()),
        Datum::Block(_, name) => Term::Word(name.clone()),
        Datum::Call(name, fields) => {
            let keys = function(name, forms).map_or(&[][..], |function| function.arguments);
            // One argument needs no name.
            let alone = keys.len() == 1;
            let arguments = keys.iter().filter_map(|key| {
                Some(Argument {
                    name: (!alone).then(|| word(key.name)),
                    value: value(&fields.get(key.name)?.value, key.takes),
                })
            });
            Term::Call(word(name), arguments.collect())
        }
        Datum::List(values) => {
            Term::List(values.iter().map(|setting| value(&setting.value, inner(forms))).collect())
        }
        Datum::Record(fields) => {
            let entries = fields.iter().map(|(name, setting)| Entry {
                name: word(&name.value),
                value: value(&setting.value, inner(forms)),
            });
            Term::Record(entries.collect())
        }
    })
}

fn plain(term: Term) -> Value {
    Value { term, span: Span::default() }
}

fn word(text: &str) -> Name {
    Name { text: text.to_owned(), span: Span::default() }
}

/// An amount in the largest unit in which it is a whole number; of bytes, a binary one where one fits.
fn amount(value: f64, unit: Unit) -> Term {
    let is_decimal = |size: f64| unit == Unit::Bytes && size.log2().fract() != 0.0;
    let fits = |size: f64| {
        let number = value / size;
        size > 1.0 && value != 0.0 && number.fract() == 0.0 && number * size == value
    };
    let fitting = |decimal: bool| {
        let mut units = UNITS.iter().rev().filter(|(_, known, _)| *known == unit);
        units.find(|(_, _, size)| fits(*size) && is_decimal(*size) == decimal)
    };
    let (name, size) = match (unit.forms(), fitting(false).or_else(|| fitting(true))) {
        (Some((one, many)), _) => (if value == 1.0 { one } else { many }, 1.0),
        (None, Some((name, _, size))) => (*name, *size),
        (None, None) => (smallest(unit), 1.0),
    };
    Term::Amount(Number::calculated(value / size), word(name))
}

/// The unit in which an amount is kept.
fn smallest(unit: Unit) -> &'static str {
    let mut names = UNITS.iter().filter(|(_, known, size)| *known == unit && *size == 1.0);
    names.next().map_or(unit.written(), |(name, ..)| *name)
}

fn tokenizer_of(stage: &Stage) -> Option<&Tokenizer> {
    match stage {
        Stage::Train(stage) => Some(&stage.tokenizer),
        Stage::Evaluate(stage) => Some(&stage.tokenizer),
        // Neither learns or measures anything.
        Stage::Generate(_) | Stage::Export(_) => None,
    }
}

/// Kinds and names of the definitions in a stage whose keys depend on more than the definition.
fn used_by(stage: &Stage) -> Vec<(&'static str, &str)> {
    let optimizer = match stage {
        Stage::Train(stage) => Some(("optimizer", stage.optimizer.name.as_str())),
        Stage::Evaluate(_) | Stage::Generate(_) | Stage::Export(_) => None,
    };
    let tokenizer = tokenizer_of(stage).map(|tokenizer| ("tokenizer", tokenizer.name.as_str()));
    tokenizer.into_iter().chain(optimizer).collect()
}

/// What a stage made of a definition that it uses.
fn used(stage: &Stage, definition: &Checked) -> Json {
    let json = match (definition.kind.name, stage) {
        ("tokenizer", _) => serde_json::to_value(tokenizer_of(stage)),
        ("optimizer", Stage::Train(stage)) => serde_json::to_value(&stage.optimizer),
        _ => return Json::Null,
    };
    // The types of a pipeline are JSON whatever they hold.
    json.unwrap_or_default()
}

/// The value of a key in a block's JSON, where what depends on an algorithm stands together.
fn of_json(json: &Json, key: &str) -> Option<Value> {
    let own = json.get(key).filter(|value| !value.is_object());
    let value = own.or_else(|| json.get("algorithm")?.get(key))?;
    term_of(value).map(plain)
}

fn term_of(json: &Json) -> Option<Term> {
    Some(match json {
        Json::Bool(value) => Term::Boolean(*value),
        Json::Number(number) => Term::Number(Number::calculated(number.as_f64()?)),
        Json::String(word) => Term::Word(word.clone()),
        Json::Array(values) => {
            Term::List(values.iter().map(|value| term_of(value).map(plain)).collect::<Option<_>>()?)
        }
        Json::Null | Json::Object(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_in_the_largest_unit_that_is_exact() {
        let check =
            |value: f64, unit: Unit, text: &str| assert_eq!(plain(amount(value, unit)).to_string(), text);
        check(24.0 * 1073741824.0, Unit::Bytes, "24 GiB");
        check(1.5 * 1073741824.0, Unit::Bytes, "1536 MiB");
        check(1e9, Unit::Bytes, "1 GB");
        check(1001.0, Unit::Bytes, "1001 B");
        check(102.4, Unit::Bytes, "102.4 B");
        check(0.0, Unit::Bytes, "0 B");
        check(3.0, Unit::Percent, "3 %");
        check(0.5, Unit::Percent, "0.5 %");
        check(1.0, Unit::Steps, "1 step");
        check(200.0, Unit::Steps, "200 steps");
        check(0.5, Unit::Epochs, "0.5 epochs");
        check(90.0, Unit::Minutes, "90 min");
        check(120.0, Unit::Minutes, "2 h");
    }
}
