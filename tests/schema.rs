//! No dead keys: every key of every block, every argument of every function and every word of the schema changes
//! what is planned, or is refused.
//!
//! The test walks the schema itself, so a new key is held to this as soon as it stands in the table. For each key
//! it writes several legal values, made from the example, the default, the words, the ranges and the units, into
//! small files (`contexts`), and compares the plans with their estimates.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use hift::estimate::{estimate, settle};
use hift::lang::pipeline::{Data, Stage, Tokenizer, Weights};
use hift::lang::schema::{self, Form, Key, Kind, Need, Range, Unit};
use hift::lang::{self, Options, Pipeline};
use hift::model::Model;
use hift::plan::{Plan, Rows, World, compile};
use hift::problem::{Problem, Problems};
use hift::units::Bytes;

/// A llama of seven layers (embedding, five blocks, head) and a thousand rows, wherever one looks; a model called
/// `classifier` is one.
struct Table;

impl World for Table {
    fn read(&mut self, path: &Path) -> Result<String, Problem> {
        if path.starts_with("classifier") {
            return Ok(include_str!("golden/models/bert-cls-tiny/config.json").into());
        }
        let config = include_str!("golden/models/llama-tiny/config.json");
        let config = config.replace("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5");
        Ok(config.replace("\"max_position_embeddings\": 128", "\"max_position_embeddings\": 2048"))
    }

    fn check_weights(&mut self, _: &Path, _: &Model) -> Result<(), Problems> {
        Ok(())
    }

    fn rows(&mut self, _: &Pipeline, _: &Data, _: &Tokenizer, _: &Model) -> Result<Option<Rows>, Problems> {
        Ok(Some(Rows {
            train: 1000,
            holdout: 50,
            tokens: 50_000,
            trained_tokens: 30_000,
            longest: 100,
            longest_holdout: 90,
            memory: Bytes(400_000),
            mapped: Bytes(0),
            making: Bytes(0),
        }))
    }
}

/// Keys with their values, as they are written.
type Entries = BTreeMap<&'static str, String>;

/// A file with two blocks of every kind, called `one` and `two`; evaluations, generations and exports stand alone.
#[derive(Clone)]
struct Text {
    /// By kind; the blocks called `two` differ from those called `one` by [`OTHER`] alone.
    blocks: BTreeMap<&'static str, Entries>,
    /// Blocks inside the train stage.
    parts: BTreeMap<&'static str, Entries>,
}

/// What the second block of a kind says otherwise.
const OTHER: &[(&str, &str, &str)] = &[
    ("model", "weights", "\"another\""),
    ("groups", "split", "by_layer(3)"),
    ("schedule", "rate", "constant(1e-6)"),
    ("optimizer", "weight_decay", "0.25"),
];

impl Text {
    fn new(blocks: &[(&'static str, &[(&'static str, &str)])]) -> Self {
        let entries = |all: &[(&'static str, &str)]| -> Entries {
            all.iter().map(|(key, value)| (*key, (*value).to_owned())).collect()
        };
        let blocks = blocks.iter().map(|(kind, all)| (*kind, entries(all))).collect();
        Self { blocks, parts: BTreeMap::new() }
    }

    fn print(&self) -> String {
        let mut text = "hift 1\n".to_owned();
        let mut block = |head: String, entries: &Entries, parts: &BTreeMap<&'static str, Entries>| {
            writeln!(text, "{head} {{").unwrap();
            entries.iter().for_each(|(key, value)| writeln!(text, "    {key} = {value}").unwrap());
            for (part, entries) in parts {
                let all = entries.iter().map(|(key, value)| format!("{key} = {value}"));
                writeln!(text, "    {part} {{ {} }}", all.collect::<Vec<_>>().join("  ")).unwrap();
            }
            writeln!(text, "}}").unwrap();
        };
        let none = BTreeMap::new();
        for (kind, entries) in &self.blocks {
            match *kind {
                // A mix has nothing of its own, and blocks that it takes rows from.
                "data" if entries["source"].starts_with("mix(") => {
                    let mut mix = entries.clone();
                    mix.retain(|key, _| !["format", "holdout", "filter"].contains(key));
                    block("data one".into(), &mix, &none);
                    for name in ["two", "three", "four"] {
                        let own = [("source", format!("json(\"{name}\")")), ("format", "chat".into())];
                        block(format!("data {name}"), &own.into(), &none);
                    }
                }
                "train" => {
                    block("train one".into(), entries, &self.parts);
                    block("train two".into(), entries, &none);
                }
                "evaluate" | "generate" | "export" => block(format!("{kind} {kind}"), entries, &none),
                _ => {
                    block(format!("{kind} one"), entries, &none);
                    let mut other = entries.clone();
                    let changes = OTHER.iter().filter(|(of, ..)| of == kind);
                    other.extend(changes.map(|(_, key, value)| (*key, (*value).to_owned())));
                    block(format!("{kind} two"), &other, &none);
                }
            }
        }
        text
    }

    /// The file with that value.
    fn with(&self, place: &Place, value: &str) -> String {
        let mut text = self.clone();
        if let Some(part) = place.part {
            // `every` must be there, whichever key of the part is tried.
            let parts = schema::kind(place.kind).unwrap().parts;
            let keys = parts.iter().find(|kind| kind.name == part).unwrap().keys;
            if keys.iter().any(|key| key.name == "every") {
                text.parts.entry(part).or_default().insert("every", "9 steps".to_owned());
            }
        }
        text.set(place, value);
        text.print()
    }

    fn set(&mut self, place: &Place, value: &str) {
        let entries = match place.part {
            None => self.blocks.get_mut(place.kind).unwrap(),
            Some(part) => self.parts.entry(part).or_default(),
        };
        entries.insert(place.key.name, value.to_owned());
        // What says the same in another way makes room.
        let rival = match (place.kind, place.key.name) {
            ("train", "epochs") => "steps",
            ("train", "steps") => "epochs",
            (_, "from") => "model",
            ("generate", "prompts") => "data",
            ("generate", "data") => "prompts",
            ("evaluate" | "generate" | "export", "model") => "from",
            _ => return,
        };
        entries.remove(rival);
    }
}

/// Where a key stands.
struct Place {
    kind: &'static str,
    part: Option<&'static str>,
    key: &'static Key,
}

impl Place {
    fn name(&self) -> String {
        [Some(self.kind), self.part, Some(self.key.name)].into_iter().flatten().collect::<Vec<_>>().join(".")
    }
}

/// Files in which the keys of a kind of block are tried, until one shows what they do: not every key goes with every
/// algorithm, format or way to split.
fn contexts(kind: &str) -> Vec<Text> {
    let base = Text::new(&[
        ("data", &[("source", "json(\"rows.jsonl\")"), ("format", "text"), ("holdout", "5 %")]),
        ("tokenizer", &[("file", "\"tokenizer.json\"")]),
        ("model", &[("weights", "\"llama\"")]),
        ("groups", &[("split", "by_layer(4)")]),
        ("schedule", &[("rate", "cosine(peak = 1e-4, warmup = 3 %)"), ("order", "top_down")]),
        ("optimizer", &[("algorithm", "adamw")]),
        ("hook", &[("on", "success"), ("run", "\"true\"")]),
        (
            "train",
            &[
                ("data", "one"),
                ("tokenizer", "one"),
                ("model", "one"),
                ("groups", "one"),
                ("schedule", "one"),
                ("optimizer", "one"),
                ("epochs", "3"),
                ("micro_batch", "8"),
            ],
        ),
        ("evaluate", &[("from", "two")]),
        ("generate", &[("from", "two"), ("prompts", "[\"a\"]")]),
        ("export", &[("from", "two"), ("to", "\"out\"")]),
    ]);
    let with = |changes: &[(&'static str, &'static str, &str)]| {
        let mut text = base.clone();
        for (kind, key, value) in changes {
            text.blocks.get_mut(kind).unwrap().insert(key, (*value).to_owned());
        }
        text
    };
    let mut all = vec![
        base.clone(),
        with(&[("data", "format", "instruct(prompt = \"{a}\", response = \"{b}\")")]),
        with(&[("data", "format", "chat")]),
        with(&[("data", "format", "tokens")]),
        with(&[("groups", "split", "by_layer(1)")]),
        with(&[("groups", "split", "{ rest = [\"**\"] }")]),
    ];
    // Stages that use a model as it is say for themselves what they would else take from their train stage.
    let mut alone = with(&[
        ("evaluate", "data", "one"),
        ("evaluate", "tokenizer", "one"),
        ("evaluate", "micro_batch", "8"),
        ("generate", "tokenizer", "one"),
    ]);
    for stage in ["evaluate", "generate", "export"] {
        let entries = alone.blocks.get_mut(stage).unwrap();
        entries.remove("from");
        entries.insert("model", "one".into());
    }
    let mut classifier =
        with(&[("model", "weights", "\"classifier\""), ("data", "format", "tokens(label = \"c\")")]);
    classifier.blocks.remove("generate");
    // Models of the other tasks, with their rows.
    let of_task = |task: &str, format: &str| {
        let mut text = classifier.clone();
        text.blocks.get_mut("model").unwrap().insert("task", task.to_owned());
        text.blocks.get_mut("data").unwrap().insert("format", format.to_owned());
        text
    };
    let tagger = of_task("token_classification(labels = [\"O\", \"B-X\", \"I-X\"])", "token_labels");
    let reader = of_task("question_answering", "question");
    let mut splitting = reader.clone();
    splitting.blocks.get_mut("tokenizer").unwrap().insert("too_long", "split".to_owned());
    let two = of_task("sequence_classification(labels = [\"no\", \"yes\"])", "tokens(label = \"c\")");
    let number = of_task("regression", "tokens(label = \"c\")");
    match kind {
        "data" => all.extend([classifier, tagger, splitting]),
        "model" => {
            // A model that is only exported may be for any task.
            let mut exported = alone;
            for kind in ["train", "evaluate", "generate"] {
                exported.blocks.remove(kind);
            }
            all.extend([exported, classifier, tagger, reader]);
        }
        "train" => {
            let mut evaluated = base.clone();
            evaluated.parts.insert("evaluate", [("every", "9 steps".to_owned())].into());
            let best = [("every", "9 steps".to_owned()), ("best", "loss".to_owned())];
            let mut best_kept = evaluated.clone();
            best_kept.parts.insert("checkpoint", best.into());
            for mut text in [tagger, reader, two, number] {
                all.push(text.clone());
                // The best may be kept by any metric of the task.
                text.parts = best_kept.parts.clone();
                all.push(text);
            }
            // Rows with a prompt can be answered.
            let mut sampled = evaluated.clone();
            let format = "instruct(prompt = \"{a}\", response = \"{b}\")";
            sampled.blocks.get_mut("data").unwrap().insert("format", format.to_owned());
            sampled.parts.get_mut("evaluate").unwrap().insert("samples", "2".to_owned());
            all.extend([evaluated, best_kept, sampled]);
        }
        "evaluate" => all.extend([alone, tagger, reader, two, number]),
        "generate" => {
            let mut measured = alone.clone();
            measured.blocks.get_mut("generate").unwrap().insert("references", "[\"b\"]".to_owned());
            let mut of_rows = alone.clone();
            let format = "instruct(prompt = \"{a}\", response = \"{b}\")";
            of_rows.blocks.get_mut("data").unwrap().insert("format", format.to_owned());
            let stage = of_rows.blocks.get_mut("generate").unwrap();
            stage.remove("prompts");
            stage.insert("data", "one".to_owned());
            all.extend([alone, measured, of_rows]);
        }
        "export" => all.push(alone),
        "optimizer" => {
            let keys = schema::kind("optimizer").unwrap().keys;
            let algorithm = keys.iter().find(|key| key.name == "algorithm").unwrap();
            let algorithms = words(algorithm.takes);
            all.extend(algorithms.iter().map(|word| with(&[("optimizer", "algorithm", word)])));
        }
        _ => {}
    }
    all
}

fn words(forms: &[Form]) -> Vec<&'static str> {
    forms
        .iter()
        .filter_map(|form| match form {
            Form::Word(word, _) => Some(*word),
            Form::Function(_) | Form::Whole(_) | Form::Real(_) | Form::Amount(_) => None,
            Form::Boolean | Form::Text | Form::Path | Form::Template | Form::Block(_) => None,
            Form::List(..) | Form::Record(..) => None,
        })
        .collect()
}

/// Lists and records that must name what the model has; their form alone does not tell.
const NAMES: &[(&str, &str)] = &[
    ("data.source mix.blocks", "[three, four]"),
    ("data.source mix.weights", "[1, 3]"),
    ("data.format chat.roles", "{ boss = \"user\" }"),
    ("tokenizer.loss_on roles.names", "[\"user\"]"),
    ("model.task sequence_classification.labels", "[\"a\", \"b\", \"c\"]"),
    ("model.task token_classification.labels", "[\"a\", \"b\", \"c\"]"),
    ("generate.references", "[\"z\"]"),
    ("generate.stop", "[\"a\", \"b\"]"),
    ("groups.freeze", "[\"head\"]"),
    ("groups.split", "{ low = [\"embedding\"], rest = [\"**\"] }"),
    ("groups.split named.groups", "{ all = [\"**\"] }"),
    (
        "schedule.order",
        "[\"head\", \"block.4\", \"block.3\", \"block.1\", \"block.2\", \"block.0\", \"embedding\"]",
    ),
    (
        "schedule.order",
        "[\"embedding\", \"block.4\", \"block.3\", \"block.1\", \"block.2\", \"block.0\", \"head\"]",
    ),
];

/// Values that a key can have, several of each form.
fn values(name: &str, key: &'static Key) -> Vec<String> {
    let mut values = vec![key.example.to_owned()];
    if let Need::Default(text) = key.need {
        values.push(text.to_owned());
    }
    values.extend(NAMES.iter().filter(|(place, _)| *place == name).map(|(_, value)| (*value).to_owned()));
    values.extend(key.takes.iter().flat_map(of_form));
    let mut seen = Vec::new();
    values.retain(|value| {
        !value.contains("NAME") && !seen.contains(value) && {
            seen.push(value.clone());
            true
        }
    });
    values
}

fn of_form(form: &'static Form) -> Vec<String> {
    match form {
        Form::Word(word, _) => vec![(*word).to_owned()],
        Form::Function(function) => {
            let required = function.arguments.iter().filter(|key| key.need == Need::Required);
            let example = |key: &Key| match (function.name, key.name) {
                // The model here is small.
                ("by_size", "size") => "400 KiB",
                _ => key.example,
            };
            let arguments: Vec<String> =
                required.map(|key| format!("{} = {}", key.name, example(key))).collect();
            vec![format!("{}({})", function.name, arguments.join(", "))]
        }
        Form::Whole(range) => numbers(*range, true),
        Form::Real(range) => numbers(*range, false),
        Form::Amount(units) => units.iter().flat_map(|(unit, range)| amounts(*unit, *range)).collect(),
        Form::Boolean => vec!["true".into(), "false".into()],
        Form::Text | Form::Path => vec!["\"a\"".into(), "\"b\"".into()],
        Form::Template => vec!["\"{a}\"".into(), "\"{b}\"".into()],
        Form::Block(_) => vec!["one".into(), "two".into()],
        Form::List(inner, length) => {
            let inner: Vec<String> = inner.iter().flat_map(of_form).collect();
            let list = |value: &String| format!("[{}]", vec![value.as_str(); length.unwrap_or(1)].join(", "));
            inner.iter().map(list).collect()
        }
        Form::Record(..) => vec![],
    }
}

fn amounts(unit: Unit, range: Range) -> Vec<String> {
    let numbers = numbers(range, unit.is_whole() || unit == Unit::Percent);
    match unit {
        // The model here is small: 100, 200 and 1,000 KiB.
        Unit::Bytes => ["100 KiB", "200 KiB", "1000 KiB"].map(String::from).into(),
        _ => numbers.into_iter().map(|number| format!("{number} {}", unit.written())).collect(),
    }
}

/// A few numbers of a range.
fn numbers(range: Range, whole: bool) -> Vec<String> {
    let tried = if whole { [1.0, 2.0, 5.0, 7.0].as_slice() } else { &[0.25, 0.5, 2.5, 4.5] };
    tried.iter().filter(|x| range.contains(**x)).map(|x| x.to_string()).collect()
}

/// The pipeline, with every model of the Hub in the Hub's cache.
fn fetched(mut pipeline: Pipeline) -> Pipeline {
    for stage in &mut pipeline.stages {
        let model = match stage {
            Stage::Train(stage) => &mut stage.model,
            Stage::Evaluate(stage) => &mut stage.model,
            Stage::Generate(stage) => &mut stage.model,
            Stage::Export(stage) => &mut stage.model,
        };
        if let Weights::Hub { path, .. } = &mut model.weights.value {
            *path = Some("cache".to_owned());
        }
    }
    pipeline
}

/// The plan of a file and its estimate as JSON, or what is wrong with it.
fn outcome(text: &str) -> Result<(Plan, String), Problems> {
    let (pipeline, problems) = lang::check(text, &Options::default());
    let plan = settle(compile(&fetched(pipeline.ok_or(problems)?), &mut Table)?, 1);
    let json = serde_json::to_string(&plan).unwrap();
    Ok((plan, json))
}

/// What became of the values of a key.
struct Tried {
    values: Vec<String>,
    /// Of each value, by context: the plan, where it is accepted.
    plans: Vec<Vec<Option<(Plan, String)>>>,
    /// A file in which it is refused, for each value that is accepted nowhere.
    refused: Vec<Option<String>>,
}

fn tried(place: &Place, contexts: &[Text], values: Vec<String>) -> Tried {
    let mut tried = Tried { plans: Vec::new(), refused: Vec::new(), values };
    for value in &tried.values {
        let mut refused = None;
        let plans: Vec<_> = contexts
            .iter()
            .map(|context| {
                let text = context.with(place, value);
                outcome(&text).map_err(|problems| refused = Some(format!("{text}{problems}"))).ok()
            })
            .collect();
        tried.refused.push(refused.filter(|_| plans.iter().all(Option::is_none)));
        tried.plans.push(plans);
    }
    tried
}

impl Tried {
    /// Whether some context takes both; a classifier's rows are no language model's.
    fn meet(&self, a: usize, b: usize) -> bool {
        self.plans[a].iter().zip(&self.plans[b]).any(|(a, b)| a.is_some() && b.is_some())
    }

    /// Whether some context plans something else for `a` than for `b`.
    fn differ(&self, a: usize, b: usize) -> bool {
        let both =
            || self.plans[a].iter().zip(&self.plans[b]).filter_map(|(a, b)| a.as_ref().zip(b.as_ref()));
        let plans = || both().any(|((_, a), (_, b))| a != b);
        plans() || both().any(|((a, _), (b, _))| estimate(a, 1) != estimate(b, 1))
    }
}

/// The problems of one key, or of one argument of a function; `value` makes the key's value of the argument's.
fn check(
    name: &str,
    place: &Place,
    key: &'static Key,
    value: &dyn Fn(&str) -> String,
    contexts: &[Text],
    wrong: &mut String,
) {
    let candidates = values(name, key);
    let tried = tried(place, contexts, candidates.iter().map(|candidate| value(candidate)).collect());
    let mut say = |text: String| writeln!(wrong, "{name}: {text}").unwrap();
    let accepted: Vec<usize> = (0..candidates.len()).filter(|i| tried.refused[*i].is_none()).collect();
    // Legal are the example, the default and every word.
    let mut legal = words(key.takes);
    legal.push(key.example);
    if let Need::Default(text) = key.need {
        legal.push(text);
    }
    for (candidate, refused) in candidates.iter().zip(&tried.refused) {
        if let (true, Some(refused)) = (legal.contains(&candidate.as_str()), refused) {
            say(format!("`{candidate}` is refused everywhere:\n{refused}"));
        }
    }
    let alive = accepted.iter().any(|a| accepted.iter().any(|b| tried.differ(*a, *b)));
    let only_one = key.takes.len() == 1 && words(key.takes).len() == 1;
    if !alive && !only_one {
        say(format!("dead: {:?} all plan the same", tried.values));
    }
    // So does every form by itself, each unit among them.
    let strands = key.takes.iter().flat_map(|form| match form {
        Form::Amount(units) => units.iter().map(|(unit, range)| amounts(*unit, *range)).collect(),
        // Lists and records are mostly of names, which stand in `NAMES`.
        Form::Word(..) | Form::Function(_) | Form::List(..) | Form::Record(..) => vec![],
        Form::Whole(_) | Form::Real(_) | Form::Boolean | Form::Text => vec![of_form(form)],
        Form::Path | Form::Template | Form::Block(_) => vec![of_form(form)],
    });
    for strand in strands {
        let of: Vec<usize> = (0..candidates.len()).filter(|i| strand.contains(&candidates[*i])).collect();
        if !of.iter().any(|a| of.iter().any(|b| tried.differ(*a, *b))) {
            say(format!("dead: {strand:?} all plan the same, or are refused everywhere"));
        }
    }
    // Every word and every function says something of its own.
    let own = |candidate: &String| {
        key.takes.iter().any(|form| match form {
            Form::Word(word, _) => word == candidate,
            Form::Function(_) => of_form(form).contains(candidate),
            Form::Whole(_) | Form::Real(_) | Form::Amount(_) | Form::Boolean => false,
            Form::Text | Form::Path | Form::Template | Form::Block(_) | Form::List(..) | Form::Record(..) => {
                false
            }
        })
    };
    let own: Vec<usize> = accepted.into_iter().filter(|i| own(&candidates[*i])).collect();
    for (n, a) in own.iter().enumerate() {
        for b in &own[n + 1..] {
            if tried.meet(*a, *b) && !tried.differ(*a, *b) {
                say(format!("`{}` and `{}` plan the same", candidates[*a], candidates[*b]));
            }
        }
    }
}

/// A key and the arguments of its functions.
fn check_key(place: &Place, contexts: &[Text], wrong: &mut String) {
    let name = place.name();
    check(&name, place, place.key, &str::to_owned, contexts, wrong);
    for form in place.key.takes {
        let Form::Function(function) = form else { continue };
        for argument in function.arguments {
            let others = function.arguments.iter().filter(|other| other.need == Need::Required);
            let others: Vec<String> = others
                .filter(|other| other.name != argument.name)
                .map(|other| {
                    format!("{} = {}", other.name, other.example.replace("[NAME, NAME]", "[three, four]"))
                })
                .collect();
            let value = |value: &str| {
                let own = format!("{} = {value}", argument.name);
                format!("{}({})", function.name, [others.clone(), vec![own]].concat().join(", "))
            };
            let name = format!("{name} {}.{}", function.name, argument.name);
            check(&name, place, argument, &value, contexts, wrong);
        }
    }
}

#[test]
fn every_key_argument_and_word_changes_the_plan() {
    let mut wrong = String::new();
    let mut n_keys = 0;
    let mut keys = |kind: &'static Kind, part: Option<&'static Kind>| {
        let contexts = contexts(kind.name);
        for context in &contexts {
            let text = context.print();
            outcome(&text).unwrap_or_else(|problems| panic!("{text}{problems}"));
        }
        for key in part.unwrap_or(kind).keys {
            n_keys += 1;
            let place = Place { kind: kind.name, part: part.map(|part| part.name), key };
            check_key(&place, &contexts, &mut wrong);
        }
    };
    for kind in schema::KINDS {
        keys(kind, None);
        kind.parts.iter().for_each(|part| keys(kind, Some(part)));
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(n_keys > 60, "the schema was walked: {n_keys} keys");
}
