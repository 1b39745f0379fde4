//! Stage blocks that have passed the schema, as the types of the pipeline: every name replaced by what it names.

use std::collections::HashMap;

use crate::lang::edit;
use crate::lang::pipeline::{
    Checkpoint, Data, Device, Divergence, Evaluate, EvaluateDuring, Export, Format, Generate, Interval,
    Length, Metric, Model, RollBack, Samples, Setting, Stage, Tokenizer, Train,
};
use crate::lang::schema::Unit;
use crate::lang::source::Sources;
use crate::problem::{Problem, Problems, Span};
use crate::units::{Bytes, Dtype};

use super::complain::{meant, missing, missing_both};
use super::datum::{Checked, Datum, Fields};
use super::definitions;
use super::warnings;

/// Values that all stages may come to together.
const MAX_WEIGHT: usize = 1_000_000;

/// Builds stages one after the other; what a stage needs must have been built before it.
pub(super) struct Builder<'b, 'f> {
    /// By kind and name.
    pub definitions: HashMap<(&'static str, &'b str), &'b Checked<'f>>,
    pub sources: &'b Sources,
    pub problems: &'b mut Problems,
    pub trained: HashMap<String, Train>,
    /// What stages write, and where they say so.
    pub written: HashMap<String, Span>,
}

/// What is said of two keys of which a stage has exactly one.
struct OneOf {
    /// What either key says.
    says: &'static str,
    /// What each says it in.
    labels: [&'static str; 2],
    help: &'static str,
}

/// What `from` or `model` names.
struct Origin {
    model: Model,
    train: Option<Train>,
}

impl<'b, 'f> Builder<'b, 'f> {
    /// The stage, or nothing where it has errors, which are among the problems.
    pub fn stage(&mut self, checked: &Checked<'f>) -> Option<Stage> {
        Some(match checked.kind.name {
            "train" => {
                let train = self.train(checked)?;
                self.trained.insert(train.name.clone(), train.clone());
                Stage::Train(Box::new(train))
            }
            "evaluate" => Stage::Evaluate(Box::new(self.evaluate(checked)?)),
            "generate" => Stage::Generate(Box::new(self.generate(checked)?)),
            "export" => Stage::Export(Box::new(self.export(checked)?)),
            _ => return None,
        })
    }

    /// Whether the stages would come to too much, since each holds all that it uses; says so.
    pub fn is_too_much(&mut self, stages: &[Checked<'f>]) -> bool {
        let mut weights: HashMap<&str, usize> = HashMap::new();
        let mut total = 0;
        for stage in stages {
            let mut weight = stage.weight;
            for (_, value) in stage.fields.iter() {
                if let Datum::Block(kind, name) = &value.value {
                    weight += self.definition(kind, name).map_or(0, |definition| definition.weight);
                }
            }
            weights.insert(&stage.name, weight);
        }
        for stage in stages {
            // What it goes on from is a part of it.
            let from = stage.fields.iter().find_map(|(_, value)| match &value.value {
                Datum::Block("train", name) => weights.get(name.as_str()),
                _ => None,
            });
            total += weights.get(stage.name.as_str()).unwrap_or(&0) + from.unwrap_or(&0);
            if total > MAX_WEIGHT {
                self.problems.push(
                    Problem::new("hift::lang::too_much", "the stages come to too many values")
                        .label(stage.head(), "here it becomes too much")
                        .help("write fewer stages, or shorter lists"),
                );
                return true;
            }
        }
        false
    }

    fn definition(&self, kind: &'static str, name: &str) -> Option<&'b Checked<'f>> {
        self.definitions.get(&(kind, name)).copied()
    }

    /// The definition that a key of the stage names.
    fn named(&self, checked: &Checked, key: &str) -> Option<&'b Checked<'f>> {
        match &checked.fields.get(key)?.value {
            Datum::Block(kind, name) => self.definition(kind, name),
            _ => None,
        }
    }

    fn data(&mut self, checked: &Checked) -> Option<Data> {
        let definitions = &self.definitions;
        let find = |name: &str| definitions.get(&("data", name)).copied();
        let Datum::Block(_, name) = &checked.fields.get("data")?.value else { return None };
        definitions::data(find(name)?, &find, self.problems)
    }

    fn train(&mut self, checked: &Checked<'f>) -> Option<Train> {
        let fields = &checked.fields;
        let data = self.data(checked);
        let tokenizer = self.tokenizer(checked, data.as_ref(), None);
        let optimizer = self.named(checked, "optimizer").and_then(|block| {
            let mut found = Problems::default();
            let optimizer = definitions::optimizer(block, &mut found);
            optimizer.filter(|_| !found.has_errors())
        });
        let schedule = self
            .named(checked, "schedule")
            .and_then(|block| definitions::schedule(block, &mut Problems::default()));
        let groups = self
            .named(checked, "groups")
            .and_then(|block| definitions::groups(block, &mut Problems::default()));
        let length = self.length(checked);
        let (model, from) = match fields.get("model").map(|model| &model.value) {
            Some(Datum::Block("train", stage)) => {
                (self.trained.get(stage).map(|train| train.model.clone()), Some(stage.clone()))
            }
            _ => (
                self.named(checked, "model").and_then(|block| definitions::model(block, self.problems)),
                None,
            ),
        };
        let evaluate = part(checked, "evaluate").map(|part| {
            Some(EvaluateDuring {
                span: part.head(),
                every: interval(&part.fields)?,
                metrics: metrics(&part.fields)?,
                patience: part.fields.read("patience", |patience| Some(patience.whole()))?,
                samples: self.samples(part)?,
            })
        });
        if let (Some(part), Some(data)) = (part(checked, "evaluate"), &data)
            && !data.holds_out()
        {
            self.problems.push(
                Problem::new(
                    "hift::lang::no_holdout",
                    format!("`{}` evaluates, but `data {}` keeps no rows for it", checked.title(), data.name),
                )
                .label(part.head(), "evaluates here")
                .label(data.holdout.span().unwrap_or(data.span), "every row of this is learned")
                .help(format!("add `holdout = 2 %` to `data {}`, or remove `evaluate`", data.name)),
            );
        }
        if let Some(Some(EvaluateDuring { samples: Some(samples), .. })) = &evaluate
            && tokenizer.as_ref().is_some_and(|tokenizer| tokenizer.file.is_none() && tokenizer.hub.is_none())
        {
            self.problems.push(
                Problem::new(
                    "hift::lang::missing_key",
                    format!("`{}` writes samples, and nothing says what its tokens mean", checked.title()),
                )
                .label_at(samples.rows.span(), "texts, made of tokens")
                .label(checked.head(), "has no tokenizer with a `file`")
                .help("add `tokenizer = NAME` with a block that has a `file`, or remove `samples`"),
            );
        }
        let checkpoint = part(checked, "checkpoint").map(|part| {
            Some(Checkpoint {
                span: part.head(),
                every: interval(&part.fields)?,
                keep: part.fields.whole("keep")?,
                best: match part.fields.get("best") {
                    Some(_) => Some(part.fields.read("best", metric)?),
                    None => None,
                },
                ends_with_best: part.fields.read("result", |result| match result.word()? {
                    "last" => Some(false),
                    "best" => Some(true),
                    _ => None,
                })?,
            })
        });
        let best = part(checked, "checkpoint").and_then(|part| part.fields.get("best"));
        if let (Some(best), None) = (best, part(checked, "evaluate")) {
            self.problems.push(
                Problem::new(
                    "hift::lang::no_evaluation",
                    format!("`{}` keeps its best checkpoint, but evaluates none", checked.title()),
                )
                .label_at(best.span(), "best by this")
                .help("add `evaluate { every = 200 steps }`, or remove `best`"),
            );
        }
        if let Some(Some(Checkpoint { best: None, ends_with_best, .. })) = &checkpoint
            && ends_with_best.value
        {
            self.problems.push(
                Problem::new(
                    "hift::lang::no_best",
                    format!("`{}` is to end with its best checkpoint, but keeps none", checked.title()),
                )
                .label_at(ends_with_best.span(), "the best by what?")
                .help("add `best = loss` beside it"),
            );
        }
        let divergence = part(checked, "divergence").map(|part| {
            Some(Divergence {
                span: part.head(),
                spike: part.fields.read("spike", |spike| Some(spike.real()))?,
                roll_back: part.fields.read("then", |then| match then {
                    Datum::Word("stop") => Some(None),
                    Datum::Call("roll_back", of) => {
                        let (rate, times) = (of.real("rate")?, of.whole("times")?);
                        Some(Some(RollBack { rate: rate.value, times: times.value }))
                    }
                    _ => None,
                })?,
            })
        });
        let train = Train {
            name: checked.name.clone(),
            span: checked.head(),
            data: data?,
            tokenizer: tokenizer?,
            model: model?,
            from,
            groups: groups?,
            schedule: schedule?,
            optimizer: optimizer?,
            length: length?,
            micro_batch: fields.whole("micro_batch")?,
            accumulate: fields.whole("accumulate")?,
            clip: fields.read("clip", |clip| Some(clip.real()))?,
            seed: fields.whole("seed")?,
            device: device(fields)?,
            memory_limit: fields
                .read("memory_limit", |limit| Some(limit.real().map(|bytes| Bytes(bytes as u64))))?,
            evaluate: match evaluate {
                Some(evaluate) => Some(evaluate?),
                None => None,
            },
            checkpoint: match checkpoint {
                Some(checkpoint) => Some(checkpoint?),
                None => None,
            },
            divergence: match divergence {
                Some(divergence) => Some(divergence?),
                None => None,
            },
        };
        warnings::train(&train, self.problems);
        Some(train)
    }

    /// The held-out rows that an evaluation answers; Some(None) where it answers none.
    fn samples(&mut self, part: &Checked) -> Option<Option<Samples>> {
        let rows = part.fields.read("samples", |rows| Some(rows.whole()))?;
        let max_new_tokens = part.fields.whole("max_new_tokens")?;
        if rows.is_none() && max_new_tokens.span().is_some() {
            warnings::no_effect(
                "`max_new_tokens` limits nothing where no row is answered",
                max_new_tokens.span(),
                "does nothing",
                Some(part.head()),
                "answers no row",
                "add `samples = 3`, or remove `max_new_tokens`",
                self.problems,
            );
        }
        let answered = |n| Samples { rows: Setting { value: n, origin: rows.origin }, max_new_tokens };
        Some(rows.value.map(answered))
    }

    fn length(&mut self, checked: &Checked) -> Option<Setting<Length>> {
        let words = OneOf {
            says: "how long the run is",
            labels: ["in epochs", "in steps"],
            help: "add `epochs = 3` or `steps = 500`: how long the run is",
        };
        match self.one_of(checked, ["epochs", "steps"], &words)? {
            "epochs" => checked.fields.read("epochs", |epochs| Some(Length::Epochs(epochs.real()?))),
            _ => checked.fields.read("steps", |steps| Some(Length::Steps(steps.whole()?))),
        }
    }

    /// Which one of two keys is written.
    fn one_of(&mut self, checked: &Checked, keys: [&'static str; 2], words: &OneOf) -> Option<&'static str> {
        let [one, other] = keys;
        if slipped(checked, &keys) {
            return None;
        }
        let place = |key: &str| checked.block.entries.iter().find(|entry| entry.name.text == key);
        match (place(one), place(other)) {
            (Some(first), Some(second)) => {
                let what = format!("`{one}` and `{other}` both say {}", words.says);
                self.problems.push(
                    Problem::new("hift::lang::conflict", what)
                        .label(first.name.span, words.labels[0])
                        .label(second.name.span, words.labels[1])
                        .help("keep one of them"),
                );
                None
            }
            (None, None) => {
                if !checked.block.damaged {
                    self.problems.push(missing_both(checked.block, one, other, words.help));
                }
                None
            }
            (Some(_), None) => Some(one),
            (None, Some(_)) => Some(other),
        }
    }

    /// The stage's own tokenizer, else that of the stage it goes on from. `data` is what it serves.
    fn tokenizer(
        &mut self,
        checked: &Checked<'f>,
        data: Option<&Data>,
        from: Option<&Train>,
    ) -> Option<Tokenizer> {
        let written = checked.block.entries.iter().any(|entry| entry.name.text == "tokenizer");
        let name = match (checked.fields.get("tokenizer"), written, from) {
            (Some(Setting { value: Datum::Block(_, name), .. }), ..) => name.clone(),
            (_, false, Some(from)) if !from.tokenizer.name.is_empty() => from.tokenizer.name.clone(),
            _ => String::new(),
        };
        if let Some(block) = self.definition("tokenizer", &name) {
            return definitions::tokenizer(block, data, self.problems);
        }
        if data.is_some_and(|data| {
            data.parts().iter().all(|part| matches!(part.format.value, Format::Tokens { .. }))
        }) {
            return (!written).then(definitions::no_tokenizer);
        }
        let needed = match checked.kind.name {
            "generate" => checked.fields.get("from").is_none() || from.is_some(),
            _ => data.is_some(),
        };
        if needed && !written && !checked.block.damaged && !slipped(checked, &["tokenizer"]) {
            let mut known = self.definitions.values().filter(|checked| checked.kind.name == "tokenizer");
            let help = match (known.next(), known.next()) {
                (Some(one), None) => format!("add `tokenizer = {}`", one.name),
                (Some(_), Some(_)) => "add `tokenizer = NAME` with the name of a tokenizer block".into(),
                (None, _) => "define `tokenizer NAME { file = ... }` and add `tokenizer = NAME`".into(),
            };
            let only = self.definitions.values().copied().filter(|checked| checked.kind.name == "tokenizer");
            let only: Vec<&Checked> = only.collect();
            let edit = match only.as_slice() {
                [one] => edit::append(self.sources, checked.block.span, &format!("tokenizer = {}", one.name)),
                _ => None,
            };
            self.problems.push(missing(checked.block, "tokenizer", help).fix_with(edit));
        }
        None
    }

    /// What the stage works on: exactly one of `from` and `model`.
    fn origin(&mut self, checked: &Checked) -> Option<Origin> {
        let words = OneOf {
            says: "which model is used",
            labels: ["the result of a stage", "a model as it is"],
            help: "add `from = NAME` with a train stage, or `model = NAME` with a model block",
        };
        match self.one_of(checked, ["from", "model"], &words)? {
            "model" => Some(Origin {
                model: self
                    .named(checked, "model")
                    .and_then(|block| definitions::model(block, self.problems))?,
                train: None,
            }),
            _ => match &checked.fields.get("from")?.value {
                Datum::Block(_, name) => {
                    let train = self.trained.get(name)?;
                    Some(Origin { model: train.model.clone(), train: Some(train.clone()) })
                }
                _ => None,
            },
        }
    }

    fn evaluate(&mut self, checked: &Checked<'f>) -> Option<Evaluate> {
        let origin = self.origin(checked);
        let train = origin.as_ref().and_then(|origin| origin.train.as_ref());
        let alone = origin.as_ref().is_some_and(|origin| origin.train.is_none());
        let has = |key: &str| checked.block.entries.iter().any(|entry| entry.name.text == key);
        let fields = &checked.fields;
        // With a model as it is, nothing can be inherited.
        for (key, example) in [("data", "NAME"), ("micro_batch", "4")] {
            if alone && !has(key) && !checked.block.damaged && !slipped(checked, &[key]) {
                self.problems.push(missing(checked.block, key, format!("add `{key} = {example}`")));
            }
        }
        let data = match train {
            Some(train) if !has("data") => Some(train.data.clone()),
            _ => self.data(checked),
        };
        let tokenizer = self.tokenizer(checked, data.as_ref(), train);
        let micro_batch = match train {
            Some(train) if !has("micro_batch") => Some(train.micro_batch.clone()),
            _ => fields.whole("micro_batch"),
        };
        let evaluate = Evaluate {
            name: checked.name.clone(),
            span: checked.head(),
            from: train.map(|train| train.name.clone()),
            metrics: metrics(fields)?,
            micro_batch: micro_batch?,
            device: inherited_device(fields, train)?,
            data: data?,
            tokenizer: tokenizer?,
            model: origin?.model,
        };
        warnings::evaluate(&evaluate, self.problems);
        Some(evaluate)
    }

    fn generate(&mut self, checked: &Checked<'f>) -> Option<Generate> {
        let origin = self.origin(checked);
        let train = origin.as_ref().and_then(|origin| origin.train.as_ref());
        let data = self.continued(checked)?;
        // Texts are made of tokens, whatever the rows are.
        let of_text = |data: &&Data| {
            !data.parts().iter().all(|part| matches!(part.format.value, Format::Tokens { .. }))
        };
        let tokenizer = self.tokenizer(checked, data.as_ref().filter(of_text), train);
        let fields = &checked.fields;
        let to = fields.read("to", |to| match to {
            Datum::Word("none") => Some(None),
            path => Some(Some(path.text()?)),
        })?;
        self.writes(&to.value, to.span());
        let prompts = match &data {
            None => fields.read("prompts", Datum::texts)?,
            Some(_) => Setting::default(Vec::new()),
        };
        let generate = Generate {
            name: checked.name.clone(),
            span: checked.head(),
            from: train.map(|train| train.name.clone()),
            tokenizer: tokenizer?,
            prompts,
            data,
            rows: fields.read("rows", |rows| Some(rows.whole()))?,
            references: fields.read("references", |references| match references {
                Datum::Word("none") => Some(Vec::new()),
                texts => texts.texts(),
            })?,
            metrics: metrics(fields)?,
            max_new_tokens: fields.whole("max_new_tokens")?,
            temperature: fields.real("temperature")?,
            top_k: fields.read("top_k", |k| Some(k.whole()))?,
            top_p: fields.real("top_p")?,
            beams: fields.whole("beams")?,
            length_penalty: fields.real("length_penalty")?,
            early_stopping: fields.boolean("early_stopping")?,
            stop: fields.read("stop", |stop| match stop {
                Datum::Word("none") => Some(Vec::new()),
                texts => texts.texts(),
            })?,
            micro_batch: fields.whole("micro_batch")?,
            seed: fields.whole("seed")?,
            to,
            device: inherited_device(fields, train)?,
            model: origin?.model,
        };
        let (prompts, references) = (generate.prompts.len(), generate.references.len());
        if references > 0 && generate.data.is_some() {
            let place = checked.block.entries.iter().find(|entry| entry.name.text == "data");
            self.problems.push(
                Problem::new("hift::lang::conflict", "the rows of `data` have references of their own")
                    .label_at(generate.references.span(), "others")
                    .label_at(place.map(|entry| entry.name.span), "the rows")
                    .help("remove `references`"),
            );
        } else if references > 0 && references != prompts {
            self.problems.push(
                Problem::new(
                    "hift::lang::conflict",
                    format!("{prompts} prompts have {references} references"),
                )
                .label_at(generate.references.span(), "not one for each prompt")
                .label_at(generate.prompts.span(), "the prompts")
                .help("give each prompt a text, in the same order"),
            );
        }
        if *generate.beams > 1 && *generate.temperature > 0.0 {
            self.problems.push(
                Problem::new("hift::lang::conflict", "beams follow the most probable texts, and draw none")
                    .label_at(generate.beams.span(), "searches for them")
                    .label_at(generate.temperature.span(), "draws tokens")
                    .help("remove `temperature`, or `beams`"),
            );
        }
        warnings::generate(&generate, self.problems);
        Some(generate)
    }

    /// The data block whose rows a stage continues; Some(None) where it has prompts of its own.
    fn continued(&mut self, checked: &Checked<'f>) -> Option<Option<Data>> {
        let place = |key: &str| checked.block.entries.iter().find(|entry| entry.name.text == key);
        if slipped(checked, &["prompts", "data"]) {
            return None;
        }
        match (place("prompts"), place("data")) {
            (Some(prompts), Some(data)) => {
                self.problems.push(
                    Problem::new("hift::lang::conflict", "`prompts` and `data` both say what is continued")
                        .label(prompts.name.span, "these texts")
                        .label(data.name.span, "rows of a data block")
                        .help("keep one of them"),
                );
                None
            }
            (None, None) => {
                if !checked.block.damaged {
                    self.problems.push(missing_both(
                        checked.block,
                        "prompts",
                        "data",
                        "add `prompts = [\"...\"]`, or `data = NAME` to continue its held-out rows",
                    ));
                }
                None
            }
            (Some(_), None) => Some(None),
            (None, Some(_)) => self.data(checked).map(Some),
        }
    }

    /// Remembers what a stage writes; two that write to the same place are a mistake.
    fn writes(&mut self, to: &Option<String>, span: Option<Span>) {
        let (Some(to), Some(span)) = (to, span) else { return };
        match self.written.get(to) {
            Some(other) => self.problems.push(
                Problem::new("hift::lang::conflict", format!("two stages write to `{to}`"))
                    .label(span.max(*other), "the second one")
                    .label(span.min(*other), "the first one")
                    .help("give each a place of its own"),
            ),
            None => {
                self.written.insert(to.clone(), span);
            }
        }
    }

    fn export(&mut self, checked: &Checked<'f>) -> Option<Export> {
        let origin = self.origin(checked);
        let fields = &checked.fields;
        let to = fields.text("to")?;
        self.writes(&Some(to.value.clone()), to.span());
        let origin = origin?;
        Some(Export {
            name: checked.name.clone(),
            span: checked.head(),
            from: origin.train.as_ref().map(|train| train.name.clone()),
            tokenizer: origin
                .train
                .map(|train| train.tokenizer)
                .filter(|own| own.file.is_some() || own.hub.is_some()),
            model: origin.model,
            to,
            dtype: fields.read("dtype", |word| match word.word()? {
                "fp32" => Some(Dtype::F32),
                "bf16" => Some(Dtype::Bf16),
                "fp16" => Some(Dtype::F16),
                _ => None,
            })?,
        })
    }
}

/// Whether an entry that the block does not know was meant as one of these keys, none of which is written: that has
/// been said.
fn slipped(checked: &Checked, keys: &[&str]) -> bool {
    let names = || checked.block.entries.iter().map(|entry| entry.name.text.as_str());
    let is_known = |name: &str| checked.kind.keys.iter().any(|key| key.name == name);
    let is_meant = |name: &str| meant(name, checked.kind.keys).is_some_and(|meant| keys.contains(&meant));
    names().all(|name| !keys.contains(&name)) && names().any(|name| !is_known(name) && is_meant(name))
}

fn part<'c, 'f>(checked: &'c Checked<'f>, kind: &str) -> Option<&'c Checked<'f>> {
    checked.parts.iter().find(|part| part.kind.name == kind)
}

fn interval(fields: &Fields) -> Option<Setting<Interval>> {
    fields.read("every", |every| match every {
        Datum::Amount(steps, Unit::Steps) => Some(Interval::Steps(*steps as u64)),
        Datum::Amount(cycles, Unit::Cycles) => Some(Interval::Cycles(*cycles as u64)),
        Datum::Amount(epochs, Unit::Epochs) => Some(Interval::Epochs(*epochs)),
        _ => None,
    })
}

fn metrics(fields: &Fields) -> Option<Setting<Vec<Metric>>> {
    fields.read("metrics", |metrics| match metrics {
        Datum::List(metrics) => metrics.iter().map(|one| metric(&one.value)).collect(),
        _ => None,
    })
}

fn metric(metric: &Datum) -> Option<Metric> {
    Metric::named(metric.word()?)
}

fn device(fields: &Fields) -> Option<Setting<Device>> {
    fields.read("device", |device| match device {
        Datum::Word("auto") => Some(Device::Auto),
        Datum::Word("cpu") => Some(Device::Cpu),
        Datum::Call("cuda", of) => Some(Device::Cuda(of.whole("index")?.value as u32)),
        _ => None,
    })
}

fn inherited_device(fields: &Fields, train: Option<&Train>) -> Option<Setting<Device>> {
    match (fields.get("device"), train) {
        (Some(_), _) => device(fields),
        (None, Some(train)) => Some(train.device.clone()),
        (None, None) => Some(Setting::default(Device::Auto)),
    }
}
