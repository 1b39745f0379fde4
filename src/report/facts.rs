//! What a plan does, as a list of facts that can be compared.
//!
//! Facts are taken out of `plan.json`, so that a plan made a moment ago and one read from a run directory go the
//! same way. What is known here gets a name and a unit that people read; whatever else stands in the JSON becomes a
//! fact under its own name, so that no difference between two plans is passed over. Left out are the names of blocks,
//! which change nothing, and what only words differ in.

use serde_json::{Map, Value as Json};

use crate::plan::{RatePlan, SCHEMA};
use crate::units::{Bytes, Count};

use super::{flops, rate};

/// How a value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Words, lists, seeds: nothing that grows or shrinks.
    Text,
    /// Whole numbers of something.
    Count,
    /// A plain number.
    Number,
    /// A learning rate.
    Rate,
    Bytes,
    /// Floating-point operations.
    Work,
}

impl Unit {
    /// The word for it in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Text => "text",
            Unit::Count => "count",
            Unit::Number => "number",
            Unit::Rate => "rate",
            Unit::Bytes => "bytes",
            Unit::Work => "flop",
        }
    }

    /// Whether a change can be said in percent.
    pub fn is_amount(self) -> bool {
        match self {
            Unit::Text => false,
            Unit::Count | Unit::Number | Unit::Rate | Unit::Bytes | Unit::Work => true,
        }
    }
}

/// One thing that a plan does, with how much of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    pub name: String,
    pub unit: Unit,
    pub value: Json,
}

/// What one group does in its turn.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupFacts {
    pub names: Vec<String>,
    pub facts: Vec<Fact>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct StageFacts {
    /// `train`, `evaluate`, `generate`, `export`
    pub kind: String,
    pub name: String,
    /// The train stage whose result it takes up.
    pub from: Option<String>,
    pub facts: Vec<Fact>,
    /// In the order of their turns.
    pub groups: Vec<GroupFacts>,
}

/// A plan and its estimate.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub stages: Vec<StageFacts>,
    pub whole: Vec<Fact>,
}

impl Summary {
    /// Takes the facts out of a `plan.json`.
    ///
    /// # Errors
    /// What is missing or cannot be understood, in a few words.
    pub fn read(json: &Json) -> Result<Self, String> {
        let mut plan = Entries::of(&json["plan"], "plan")?;
        let mut estimate = Entries::of(&json["estimate"], "estimate")?;
        match plan.take("schema").as_u64() {
            Some(schema) if schema == u64::from(SCHEMA) => {}
            Some(schema) => return Err(format!("it has schema {schema}, and this program knows {SCHEMA}")),
            None => return Err("its plan has no `schema`".to_string()),
        }
        estimate.take("schema");
        let (stages, figures) = (plan.list("stages")?, estimate.list("stages")?);
        if stages.len() != figures.len() {
            return Err("its plan and its estimate have not the same stages".to_string());
        }
        let stages = stages.iter().zip(&figures).map(|(stage, figures)| read_stage(stage, figures));
        let stages = stages.collect::<Result<_, _>>()?;
        let mut whole = Facts::default();
        whole.add("peak", Unit::Bytes, estimate.take("peak"));
        whole.add("disk in all", Unit::Bytes, estimate.take("disk"));
        whole.add("threads", Unit::Count, estimate.take("threads"));
        whole.rest("", plan);
        whole.rest("", estimate);
        Ok(Self { stages, whole: whole.0 })
    }
}

/// The entries of an object, taken out one by one.
struct Entries(Map<String, Json>);

impl Entries {
    fn of(json: &Json, what: &str) -> Result<Self, String> {
        json.as_object().cloned().map(Self).ok_or_else(|| format!("it has no `{what}`"))
    }

    /// The entries of a value that may not be there.
    fn maybe(json: Json) -> Self {
        match json {
            Json::Object(entries) => Self(entries),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
                Self(Map::new())
            }
        }
    }

    /// The value, or null.
    fn take(&mut self, key: &str) -> Json {
        self.0.shift_remove(key).unwrap_or_default()
    }

    fn list(&mut self, key: &str) -> Result<Vec<Json>, String> {
        match self.take(key) {
            Json::Array(list) => Ok(list),
            _ => Err(format!("it has no list of `{key}`")),
        }
    }

    fn name(&mut self, key: &str) -> Result<String, String> {
        self.take(key).as_str().map(str::to_string).ok_or_else(|| format!("a stage has no `{key}`"))
    }
}

#[derive(Default)]
struct Facts(Vec<Fact>);

impl Facts {
    /// Adds a fact, unless nothing is known about it.
    fn add(&mut self, name: &str, unit: Unit, value: impl Into<Json>) {
        let value = value.into();
        // A number that stands for something that has no length yet.
        if !value.is_null() && value.as_u64() != Some(u64::MAX) {
            self.0.push(Fact { name: name.to_string(), unit, value });
        }
    }

    /// Moves an entry under another name.
    fn take(&mut self, entries: &mut Entries, key: &str, name: &str, unit: Unit) {
        self.add(name, unit, entries.take(key));
    }

    /// Adds what nobody has taken, under its own name.
    fn rest(&mut self, within: &str, entries: Entries) {
        for (key, value) in entries.0 {
            let words = key.replace('_', " ");
            let name = if within.is_empty() { words } else { format!("{within} {words}") };
            match value {
                Json::Object(inner) if !is_call(&inner) => self.rest(&name, Entries(inner)),
                value => {
                    let bytes = ["bytes", "peak", "disk", "transfers"].iter().any(|word| key.ends_with(word));
                    let unit = match &value {
                        Json::Number(number) if number.is_u64() && bytes => Unit::Bytes,
                        Json::Number(_) if key.ends_with("flops") => Unit::Work,
                        Json::Number(_) if key.ends_with("seed") => Unit::Text,
                        Json::Number(number) if number.is_u64() => Unit::Count,
                        Json::Number(_) => Unit::Number,
                        Json::Null | Json::Bool(_) | Json::String(_) | Json::Array(_) | Json::Object(_) => {
                            Unit::Text
                        }
                    };
                    self.add(&name, unit, value);
                }
            }
        }
    }
}

fn read_stage(plan: &Json, figures: &Json) -> Result<StageFacts, String> {
    let (mut plan, mut figures) = (Entries::of(plan, "stage")?, Entries::of(figures, "stage")?);
    let (kind, name) = (plan.name("kind")?, plan.name("name")?);
    figures.take("name");
    let mut facts = Facts::default();
    let from = plan.take("from").as_str().map(str::to_string);
    let mut model = Entries::maybe(plan.take("model"));
    model.take("name");
    // A stage that takes up another has its model.
    if from.is_none() {
        facts.take(&mut model, "weights", "model", Unit::Text);
        facts.take(&mut model, "family", "family", Unit::Text);
        facts.take(&mut model, "n_elements", "parameters", Unit::Count);
        facts.take(&mut model, "precision", "precision", Unit::Text);
        facts.take(&mut model, "tf32", "products in tf32", Unit::Text);
        facts.take(&mut model, "bytes", "weights", Unit::Bytes);
        facts.take(&mut model, "masters", "masters", Unit::Bytes);
        facts.rest("model", model);
    }
    let rows = data(&mut facts, &mut plan);
    for (key, name, unit) in [
        ("prompts", "prompts", Unit::Text),
        ("at_most", "rows continued, at most", Unit::Count),
        ("continued", "rows continued", Unit::Count),
        ("references", "references", Unit::Text),
        ("max_new_tokens", "new tokens, at most", Unit::Count),
        ("temperature", "temperature", Unit::Number),
        ("top_k", "tokens to draw from", Unit::Count),
        ("top_p", "probability to draw from", Unit::Number),
        ("beams", "beams", Unit::Count),
        ("length_penalty", "length penalty", Unit::Number),
        ("early_stopping", "stops early", Unit::Text),
        ("stop", "stops at", Unit::Text),
        ("to", "to", Unit::Text),
        ("dtype", "dtype", Unit::Text),
        ("metrics", "metrics", Unit::Text),
    ] {
        facts.take(&mut plan, key, name, unit);
    }
    let (groups, estimated) = match kind.as_str() {
        "train" => train(&mut facts, &mut plan, &mut figures, &rows)?,
        _ => (Vec::new(), Vec::new()),
    };
    for (key, name, unit) in [
        ("micro_batch", "sequences a pass", Unit::Count),
        ("seq", "tokens a sequence, at most", Unit::Count),
        ("seed", "seed", Unit::Text),
        ("device", "device", Unit::Text),
        ("memory_limit", "memory limit", Unit::Bytes),
    ] {
        facts.take(&mut plan, key, name, unit);
    }
    // Both are said of the tokenizer and the data.
    plan.take("packed");
    plan.take("shuffle");
    // A setting whose effect, `run_again`, stands beside it.
    plan.take("recompute");
    facts.rest("", plan);

    facts.take(&mut figures, "peak", "peak", Unit::Bytes);
    highest(&mut facts, &estimated);
    for phase in figures.list("phases")? {
        let mut phase = Entries::of(&phase, "phase")?;
        let name = format!("memory, {}", phase.name("name")?);
        facts.take(&mut phase, "bytes", &name, Unit::Bytes);
        facts.rest(&name, phase);
    }
    // What stands beside tensors, and time, are properties of the machine.
    figures.take("beside");
    figures.take("seconds");
    facts.take(&mut figures, "host", "host memory of what rests", Unit::Bytes);
    facts.take(&mut figures, "staging", "host memory to copy to and from the disk", Unit::Bytes);
    facts.take(&mut figures, "scratch", "disk for what rests there", Unit::Bytes);
    facts.take(&mut figures, "data", "host memory of the rows", Unit::Bytes);
    facts.take(&mut figures, "mapped", "rows in the token cache", Unit::Bytes);
    // Less where the cache has the tokens already, which is no part of a plan.
    figures.take("making");
    let disk = if kind == "train" { "disk a checkpoint" } else { "disk" };
    facts.take(&mut figures, "disk", disk, Unit::Bytes);
    facts.take(&mut figures, "flops", "work", Unit::Work);
    figures.take("groups");
    facts.rest("", figures);
    Ok(StageFacts { kind, name, from, facts: facts.0, groups })
}

/// What is read, and what becomes of it. Gives back what is known about the rows.
fn data(facts: &mut Facts, plan: &mut Entries) -> Json {
    let mut data = Entries::maybe(plan.take("data"));
    data.take("name");
    facts.take(&mut data, "source", "data", Unit::Text);
    facts.take(&mut data, "format", "format", Unit::Text);
    facts.take(&mut data, "holdout", "holdout", Unit::Text);
    facts.take(&mut data, "shuffle", "shuffle", Unit::Text);
    facts.rest("data", data);
    let mut tokenizer = Entries::maybe(plan.take("tokenizer"));
    tokenizer.take("name");
    facts.take(&mut tokenizer, "file", "tokenizer", Unit::Text);
    facts.rest("tokenizer", tokenizer);
    let known = plan.take("rows");
    let mut rows = Entries::maybe(known.clone());
    facts.take(&mut rows, "train", "sequences", Unit::Count);
    facts.take(&mut rows, "holdout", "sequences held out", Unit::Count);
    facts.take(&mut rows, "tokens", "tokens in the data", Unit::Count);
    facts.take(&mut rows, "trained_tokens", "tokens that carry a loss", Unit::Count);
    facts.take(&mut rows, "longest", "longest sequence", Unit::Count);
    facts.take(&mut rows, "longest_holdout", "longest held out", Unit::Count);
    facts.rest("rows", rows);
    known
}

/// What trains when, on how much, at which rate. Gives back the groups, and what was estimated of them.
fn train(
    facts: &mut Facts,
    plan: &mut Entries,
    figures: &mut Entries,
    rows: &Json,
) -> Result<(Vec<GroupFacts>, Vec<Json>), String> {
    let number = |json: &Json| json.as_u64();
    let planned = plan.list("groups")?;
    let estimated = figures.list("groups")?;
    let groups = planned.iter().zip(&estimated).map(|(plan, figures)| group(plan, figures));
    let groups = groups.collect::<Result<Vec<_>, _>>()?;
    let names: Vec<Json> = groups.iter().map(|group| group.names.join(" + ").into()).collect();
    facts.add("groups", Unit::Text, names);
    let (turns, dwell) = (plan.take("turns_per_cycle"), plan.take("dwell"));
    let (steps, epoch) = (plan.take("steps"), plan.take("steps_per_epoch"));
    let cycle = number(&turns).unwrap_or(1).saturating_mul(number(&dwell).unwrap_or(1)).max(1);
    facts.add("turns a cycle", Unit::Count, turns);
    facts.add("steps a turn", Unit::Count, dwell);
    facts.take(plan, "visits", "order of the turns", Unit::Text);
    let steps = number(&steps);
    facts.add("steps", Unit::Count, steps);
    facts.add("cycles", Unit::Count, steps.map(|steps| steps.div_ceil(cycle)));
    if let (Some(steps), Some(epoch)) = (steps, number(&epoch).filter(|epoch| *epoch > 0)) {
        facts.add("epochs", Unit::Number, steps as f64 / epoch as f64);
    }
    facts.add("steps an epoch", Unit::Count, epoch);

    let (micro_batch, accumulate) = (plan.take("micro_batch"), plan.take("accumulate"));
    let seq = plan.take("seq");
    let sequences = number(&micro_batch).zip(number(&accumulate)).map(|(n, times)| n.saturating_mul(times));
    facts.add("sequences a pass", Unit::Count, micro_batch);
    facts.add("passes a step", Unit::Count, accumulate);
    let tokens = sequences.zip(number(&seq)).map(|(n, seq)| n.saturating_mul(seq));
    facts.add("tokens a sequence, at most", Unit::Count, seq);
    facts.add("tokens a step, at most", Unit::Count, tokens);
    facts.add(
        "tokens in all, at most",
        Unit::Count,
        tokens.zip(steps).map(|(tokens, steps)| tokens.saturating_mul(steps)),
    );
    let mean = || {
        let all = rows["train"].as_u64()? + rows["holdout"].as_u64()?;
        Some(rows["tokens"].as_u64()? as f64 / all.max(1) as f64)
    };
    if let (Some(mean), Some(n), Some(steps)) = (mean(), sequences, steps) {
        let about = mean * n as f64 * steps as f64;
        facts.add("tokens in all, about", Unit::Count, about.round() as u64);
    }

    rates(facts, plan.take("rate"), steps)?;
    facts.take(plan, "layer_decay", "rate, times for each layer above", Unit::Number);
    facts.take(plan, "named_factors", "rate, times for some", Unit::Text);
    facts.take(plan, "algorithm", "optimizer", Unit::Text);
    facts.take(plan, "weight_decay", "weight decay", Unit::Number);
    facts.take(plan, "clip", "clipped at norm", Unit::Number);
    facts.take(plan, "states", "states rest", Unit::Text);
    facts.take(plan, "weights_rest", "weights rest", Unit::Text);
    facts.take(plan, "run_again", "blocks run again", Unit::Text);
    facts.take(plan, "sparing", "masters and states come late", Unit::Text);
    for (key, every, within) in [
        ("evaluate", "steps between evaluations", "evaluation"),
        ("checkpoint", "steps between checkpoints", "checkpoint"),
    ] {
        let mut entries = Entries::maybe(plan.take(key));
        facts.take(&mut entries, "steps", every, Unit::Count);
        facts.take(&mut entries, "keep", "checkpoints kept", Unit::Count);
        let mut samples = Entries::maybe(entries.take("samples"));
        facts.take(&mut samples, "rows", "rows answered at evaluations", Unit::Count);
        facts.take(&mut samples, "max_new_tokens", "new tokens of a sample, at most", Unit::Count);
        facts.take(&mut samples, "prompt_tokens", "tokens of a sample's prompt, at most", Unit::Count);
        // They are always written in the same way.
        drop(samples);
        facts.rest(within, entries);
    }
    Ok((groups, estimated))
}

/// The rate: what it is built from, and its course.
fn rates(facts: &mut Facts, json: Json, steps: Option<u64>) -> Result<(), String> {
    let plan: RatePlan =
        serde_json::from_value(json.clone()).map_err(|error| format!("its rate cannot be read: {error}"))?;
    let mut entries = Entries::maybe(json);
    facts.take(&mut entries, "shape", "rate", Unit::Text);
    facts.take(&mut entries, "peak", "rate, peak", Unit::Rate);
    facts.take(&mut entries, "end", "rate, end of decay", Unit::Rate);
    facts.add("warm-up steps", Unit::Count, plan.warmup.saturating_mul(plan.steps_per_tick));
    facts.add("steps between moves of the rate", Unit::Count, plan.steps_per_tick);
    if let Some(steps) = steps.filter(|steps| *steps > 0) {
        let built = plan.ticks.saturating_mul(plan.steps_per_tick);
        // Mostly the run's own length, to the end of its last cycle.
        if !(steps..steps.saturating_add(plan.steps_per_tick)).contains(&built) {
            facts.add("steps that the rate is built for", Unit::Count, built);
        }
        for (share, name) in [
            (0.0, "rate at the start"),
            (0.25, "rate after a quarter"),
            (0.5, "rate at half time"),
            (0.75, "rate after three quarters"),
            (1.0, "rate at the end"),
        ] {
            let step = ((steps - 1) as f64 * share).round() as u64;
            facts.add(name, Unit::Rate, plan.at(step.min(steps - 1)));
        }
    }
    // What is left says how the course comes about, which has been told.
    for key in ["steps_per_tick", "warmup", "ticks", "starts_above_zero"] {
        entries.take(key);
    }
    facts.rest("rate", entries);
    Ok(())
}

/// The group whose step needs the most, and what it needs it for.
fn highest(facts: &mut Facts, groups: &[Json]) {
    let Some(highest) = groups.iter().rev().max_by_key(|group| group["peak"].as_u64()) else { return };
    facts.add("peak in the step of", Unit::Text, joined(&highest["names"]));
    for (part, bytes) in highest["by"].as_object().into_iter().flatten() {
        facts.add(&format!("peak, {part}"), Unit::Bytes, bytes.clone());
    }
}

fn joined(names: &Json) -> String {
    let names = names.as_array().into_iter().flatten().filter_map(Json::as_str);
    names.collect::<Vec<_>>().join(" + ")
}

fn group(plan: &Json, figures: &Json) -> Result<GroupFacts, String> {
    let (mut plan, mut figures) = (Entries::of(plan, "group")?, Entries::of(figures, "group")?);
    let names = plan.list("names")?.iter().filter_map(Json::as_str).map(str::to_string).collect();
    let mut facts = Facts::default();
    facts.take(&mut plan, "n_elements", "parameters", Unit::Count);
    facts.take(&mut figures, "peak", "peak", Unit::Bytes);
    facts.take(&mut figures, "flops", "work a step", Unit::Work);
    facts.rest("", plan);
    // What makes up the peak is told of the highest one; where in its program it occurs is no fact of the plan.
    for key in ["names", "n_elements", "by", "program", "instruction", "operation"] {
        figures.take(key);
    }
    facts.rest("", figures);
    Ok(GroupFacts { names, facts: facts.0 })
}

/// Whether an object stands for a word with arguments: `{"kind": "json", "path": ...}`, `{"seed": 17}`.
fn is_call(entries: &Map<String, Json>) -> bool {
    entries.contains_key("kind")
        || entries.contains_key("algorithm")
        || (entries.len() == 1 && entries.values().all(|value| !value.is_object()))
}

/// A value as people read it: `6.44 MiB`, `2e-5`, `json("rows.jsonl")`.
pub fn short(unit: Unit, value: &Json) -> String {
    match (unit, value.as_f64()) {
        (Unit::Count, Some(_)) => match value.as_u64() {
            Some(count) => Count(count).to_string(),
            None => value.to_string(),
        },
        (Unit::Bytes, Some(number)) => Bytes(value.as_u64().unwrap_or(number as u64)).to_string(),
        (Unit::Rate, Some(number)) => rate(number),
        (Unit::Work, Some(number)) => flops(number),
        (Unit::Number, Some(number)) => {
            let text = value.to_string();
            match text.len() > LONGEST_NUMBER {
                true if number.abs() < 0.1 => rate(number),
                true => trimmed(number, 3),
                // Written without an end that says nothing.
                false => text.strip_suffix(".0").map_or(text.clone(), str::to_string),
            }
        }
        (Unit::Text | Unit::Count | Unit::Bytes | Unit::Rate | Unit::Work | Unit::Number, _) => {
            words(value, false)
        }
    }
}

/// A value with nothing left out.
pub fn exact(unit: Unit, value: &Json) -> String {
    match (unit, value.as_u64()) {
        (Unit::Bytes, Some(bytes)) => format!("{} B", Count(bytes)),
        (Unit::Text, _) => words(value, true),
        (Unit::Bytes | Unit::Count | Unit::Number | Unit::Rate | Unit::Work, _) => value.to_string(),
    }
}

/// A number of more characters than this is rounded.
const LONGEST_NUMBER: usize = 8;

/// So many entries of a list are shown at most, where not all are asked for.
const SHOWN: usize = 4;

/// Words, as the language would write them.
fn words(value: &Json, all: bool) -> String {
    match value {
        Json::Null => "none".to_string(),
        Json::Bool(true) => "yes".to_string(),
        Json::Bool(false) => "no".to_string(),
        Json::Number(number) => number.to_string(),
        Json::String(text) => plain(text),
        Json::Array(list) => {
            let entry = |value| words(value, all);
            match list.as_slice() {
                [first, second, .., last] if list.len() > SHOWN && !all => {
                    format!("{}, {} ... {} ({})", entry(first), entry(second), entry(last), list.len())
                }
                list => list.iter().map(entry).collect::<Vec<_>>().join(", "),
            }
        }
        Json::Object(entries) => {
            let head =
                ["kind", "algorithm"].into_iter().find_map(|key| Some((key, entries.get(key)?.as_str()?)));
            match head {
                Some((key, name)) => {
                    let arguments = entries.iter().filter(|(name, value)| *name != key && !value.is_null());
                    let arguments: Vec<String> =
                        arguments.map(|(name, value)| format!("{name} = {}", argument(value, all))).collect();
                    match arguments.is_empty() {
                        true => name.to_string(),
                        false => format!("{name}({})", arguments.join(", ")),
                    }
                }
                None => {
                    let entries = entries.iter().map(|(name, value)| match (name.as_str(), value.as_f64()) {
                        ("share", Some(share)) => format!("{} %", trimmed(100.0 * share, 6)),
                        ("rows", Some(rows)) => format!("{rows} rows"),
                        _ => format!("{name}({})", argument(value, all)),
                    });
                    entries.collect::<Vec<_>>().join(", ")
                }
            }
        }
    }
}

fn argument(value: &Json, all: bool) -> String {
    match value {
        Json::String(text) => format!("{text:?}"),
        Json::Array(_) => format!("[{}]", words(value, all)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_) => words(value, all),
    }
}

/// A text without quotation marks where it can stand without them.
fn plain(text: &str) -> String {
    let clear = !text.is_empty() && text.trim() == text && !text.contains([',', '\n', '"', '\t']);
    if clear { text.to_string() } else { format!("{text:?}") }
}

/// Rounded, without zeros at the end.
fn trimmed(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_read_like_the_language() {
        let check = |unit, value: Json, short_form: &str| assert_eq!(short(unit, &value), short_form);
        check(Unit::Count, json!(3000), "3,000");
        check(Unit::Bytes, json!(1536), "1.50 KiB");
        check(Unit::Rate, json!(2e-5), "2e-5");
        check(Unit::Work, json!(1.5e12), "1.50 TFLOP");
        check(Unit::Number, json!(1.0), "1");
        check(Unit::Number, json!(0.01), "0.01");
        check(Unit::Number, json!(3000.0 / 485.0), "6.186");
        check(Unit::Number, json!(0.001_234_567_89), "1.23e-3");
        check(Unit::Text, json!(null), "none");
        check(Unit::Text, json!(true), "yes");
        check(Unit::Text, json!(17), "17");
        check(Unit::Text, json!(""), "\"\"");
        check(Unit::Text, json!(["loss", "accuracy"]), "loss, accuracy");
        check(Unit::Text, json!(["385 = ", "9"]), "\"385 = \", 9");
        check(Unit::Text, json!(["a", "b", "c", "d", "e"]), "a, b ... e (5)");
        check(Unit::Text, json!({ "kind": "json", "path": "rows.jsonl" }), "json(path = \"rows.jsonl\")");
        check(Unit::Text, json!({ "kind": "text", "path": "a", "separator": null }), "text(path = \"a\")");
        check(Unit::Text, json!({ "algorithm": "sgd" }), "sgd");
        check(
            Unit::Text,
            json!({ "algorithm": "adamw", "betas": [0.9, 0.999], "eps": 1e-8 }),
            "adamw(betas = [0.9, 0.999], eps = 1e-8)",
        );
        check(Unit::Text, json!({ "share": 0.07 }), "7 %");
        check(Unit::Text, json!({ "rows": 2 }), "2 rows");
        check(Unit::Text, json!({ "cuda": 0 }), "cuda(0)");
    }

    #[test]
    fn what_is_not_known_here_becomes_a_fact_under_its_own_name() {
        let entries = json!({
            "room_to_spare": { "host_bytes": 2048, "share": 0.5 }, "seconds": 1.5, "draw_seed": 3,
            "place": { "kind": "disk", "path": "x" }, "nothing": null,
        });
        let mut facts = Facts::default();
        facts.rest("", Entries::maybe(entries));
        let told: Vec<String> =
            facts.0.iter().map(|fact| format!("{}: {}", fact.name, short(fact.unit, &fact.value))).collect();
        assert_eq!(
            told,
            [
                "room to spare host bytes: 2.00 KiB",
                "room to spare share: 0.5",
                "seconds: 1.5",
                "draw seed: 3",
                "place: disk(path = \"x\")",
            ]
        );
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        let check = |json: Json, expected: &str| assert_eq!(Summary::read(&json).unwrap_err(), expected);
        check(json!([]), "it has no `plan`");
        check(json!({ "plan": {} }), "it has no `estimate`");
        check(json!({ "plan": {}, "estimate": {} }), "its plan has no `schema`");
        check(
            json!({ "plan": { "schema": 99 }, "estimate": {} }),
            &format!("it has schema 99, and this program knows {SCHEMA}"),
        );
        check(json!({ "plan": { "schema": SCHEMA }, "estimate": {} }), "it has no list of `stages`");
    }
}
