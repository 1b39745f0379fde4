//! Definition blocks that have passed the schema, as the types of the pipeline.
//!
//! A function here gives nothing only where the checks have already complained.

use crate::lang::names::{nearest, quoted};
use crate::lang::pipeline::{
    Advance, Algorithm, Data, Decline, Filter, Format, Groups, Half, Holdout, Hook, Horizon, LossOn, Mark,
    Model, Optimizer, Order, Origin, Outcome, Part, Pick, Precision, ROLES, Rate, Recompute, Repository,
    Residence, Rest, Schedule, Setting, Shuffle, Source, Split, Stop, Tail, Task, Test, Timescale, Tokenizer,
    TooLong, Tools, Warmup, Weigh, Weights,
};
use crate::lang::schema::{ALGORITHMS, AlgorithmKeys, Preset, Unit};
use crate::problem::{Problem, Problems};
use crate::units::Bytes;

use super::complain::missing;
use super::datum::{Checked, Datum, Fields};

pub(super) fn hook(checked: &Checked) -> Option<Hook> {
    let outcome = |datum: &Datum| match datum.word()? {
        "success" => Some(Outcome::Success),
        "failure" => Some(Outcome::Failure),
        "interruption" => Some(Outcome::Interruption),
        _ => None,
    };
    Some(Hook {
        name: checked.name.clone(),
        on: checked.fields.read("on", |on| match on {
            Datum::List(list) => list.iter().map(|one| outcome(&one.value)).collect(),
            one => Some(vec![outcome(one)?]),
        })?,
        run: checked.fields.text("run")?,
    })
}

/// The data that a block means. `find` gives the other data blocks, which a mix needs.
pub(super) fn data<'d>(
    checked: &Checked,
    find: &dyn Fn(&str) -> Option<&'d Checked<'d>>,
    problems: &mut Problems,
) -> Option<Data> {
    let fields = &checked.fields;
    let mix = match fields.get("source").map(|source| &source.value) {
        Some(Datum::Call("mix", of)) => Some(of),
        _ => None,
    };
    let source = match mix {
        Some(of) => {
            let mixed = mix_of(checked, of, find, problems)?;
            fields.read("source", |_| Some(mixed))
        }
        None => fields.read("source", source_of),
    }?;
    let written = |key: &str| checked.block.entries.iter().find(|entry| entry.name.text == key);
    let format = match (mix, written("format")) {
        (Some(_), None) => Setting::default(Format::OfParts),
        (None, None) => {
            if !checked.block.damaged {
                problems.push(missing(
                    checked.block,
                    "format",
                    "add `format = instruct(prompt = \"{instruction}\\n\", response = \"{output}\")`, `chat`, `text` or another".into(),
                ));
            }
            return None;
        }
        (Some(_), Some(_)) | (None, Some(_)) => fields.read("format", format)?,
    };
    if mix.is_some() {
        // What a block of the mix says cannot be said again for all of them.
        for key in ["format", "filter", "holdout"] {
            if let Some(entry) = written(key) {
                problems.push(
                    Problem::new(
                        "hift::lang::conflict",
                        format!("the blocks of a mix have their own `{key}`"),
                    )
                    .label(entry.name.span, "does nothing")
                    .label_at(source.span(), "because of this")
                    .help(format!("remove it; write `{key}` in the blocks that are mixed")),
                );
            }
        }
    }
    let data = Data {
        name: checked.name.clone(),
        span: checked.head(),
        source,
        format,
        filter: fields.read("filter", filters)?,
        dedup: fields.boolean("dedup")?,
        holdout: fields.read("holdout", |holdout| match holdout {
            Datum::Word("none") => Some(Holdout::None),
            Datum::Amount(percent, Unit::Percent) => Some(Holdout::Share(percent / 100.0)),
            Datum::Amount(rows, Unit::Rows) => Some(Holdout::Rows(*rows as u64)),
            other => source_of(other).map(|source| Holdout::From(Box::new(source))),
        })?,
        shuffle: fields.read("shuffle", |shuffle| match shuffle {
            Datum::Word("none") => Some(Shuffle::None),
            Datum::Call("seed", of) => {
                let seed = of.whole("seed")?.value;
                Some(if of.boolean("by_length")?.value {
                    Shuffle::ByLength(seed)
                } else {
                    Shuffle::Seed(seed)
                })
            }
            _ => None,
        })?,
    };
    named_well(fields.get("source"), problems);
    named_well(fields.get("holdout"), problems);
    if let Format::Chat { roles, .. } = &data.format.value {
        for (name, role) in roles.iter().filter(|(_, role)| !ROLES.contains(&role.as_str())) {
            problems.push(
                Problem::new("hift::lang::range", format!("`{name}` cannot mean `{role}`, which is no role"))
                    .label_at(data.format.span(), "not a role")
                    .help(format!("write one of {}", quoted(ROLES, "or"))),
            );
        }
    }
    let separator = |source: &Source| match source {
        Source::Csv { separator: Some(text), .. } => text.len() != 1,
        _ => false,
    };
    for (source, span) in [
        (Some(&data.source.value), data.source.span()),
        (
            match &data.holdout.value {
                Holdout::From(source) => Some(&**source),
                Holdout::None | Holdout::Share(_) | Holdout::Rows(_) => None,
            },
            data.holdout.span(),
        ),
    ] {
        if source.is_some_and(separator) {
            problems.push(
                Problem::new("hift::lang::range", "`separator` of `csv` is one character of ASCII")
                    .label_at(span, "more or less than one")
                    .help("write, for example, `separator = \";\"`, or `\"\\t\"` for a tab"),
            );
        }
    }
    Some(data)
}

/// A source that has files.
fn source_of(datum: &Datum) -> Option<Source> {
    let Datum::Call(function, of) = datum else { return None };
    if *function == "hub" {
        let text = |name: &str| of.text(name).map(|text| text.value);
        let pick = match (text("files"), text("split")) {
            (Some(files), _) => Pick::Files(files),
            (None, split) => Pick::Split(split.unwrap_or_else(|| "train".to_owned())),
        };
        return Some(Source::Hub { repository: repository(of)?, pick, files: Vec::new() });
    }
    let path = of.text("path")?.value;
    Some(match *function {
        "json" => Source::Json { path },
        "text" => Source::Text { path, separator: of.get("separator")?.text() },
        "csv" => Source::Csv {
            path,
            separator: of.text("separator").map(|text| text.value),
            names: of.get("columns").and_then(|names| plain_texts(names)),
            quotes: of.boolean("quotes").map(|quotes| quotes.value),
        },
        "parquet" => Source::Parquet { path },
        "arrow" => Source::Arrow { path, split: of.text("split").map(|split| split.value) },
        _ => return None,
    })
}

fn repository(of: &Fields) -> Option<Repository> {
    Some(Repository { name: of.text("name")?.value, revision: of.text("revision")?.value })
}

/// Complains about a repository that cannot be one.
fn named_well(datum: Option<&Setting<Datum>>, problems: &mut Problems) {
    let Some(Datum::Call("hub", of)) = datum.map(|datum| &datum.value) else { return };
    let span = datum.and_then(Setting::span);
    let is_name = |part: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && part.chars().all(is_plain) && !part.starts_with('.') && !part.contains("..")
    };
    if let Some(Setting { value: name, .. }) = of.text("name")
        && !(name.split('/').count() <= 2 && name.split('/').all(is_name))
    {
        problems.push(
            Problem::new("hift::lang::range", format!("`{name}` is no name of a repository"))
                .label_at(span, "this repository")
                .help("write it as it stands in its address, without what is before it: `hub(\"org/name\")`"),
        );
    }
    if let Some(Setting { value: revision, .. }) = of.text("revision")
        && !revision.split('/').all(is_name)
    {
        problems.push(
            Problem::new("hift::lang::range", format!("`{revision}` is no revision"))
                .label_at(span, "this repository")
                .help("write a branch, a tag or a commit, for example `revision = \"main\"`"),
        );
    }
    if let (Some(_), Some(_)) = (of.text("files"), of.text("split")) {
        problems.push(
            Problem::new("hift::lang::conflict", "`files` and `split` both say which files are read")
                .label_at(span, "says both")
                .help("remove one of them"),
        );
    }
}

fn plain_texts(datum: &Datum) -> Option<Vec<String>> {
    Some(datum.texts()?.into_iter().map(|text| text.value).collect())
}

fn mix_of<'d>(
    checked: &Checked,
    of: &Fields,
    find: &dyn Fn(&str) -> Option<&'d Checked<'d>>,
    problems: &mut Problems,
) -> Option<Source> {
    let Datum::List(names) = &of.get("blocks")?.value else { return None };
    let weights = match of.get("weights").map(|weights| (&weights.value, weights.span())) {
        Some((Datum::List(weights), span)) if weights.len() != names.len() => {
            problems.push(
                Problem::new(
                    "hift::lang::conflict",
                    format!("{} blocks are mixed with {} weights", names.len(), weights.len()),
                )
                .label_at(span, "not as many as there are blocks")
                .help("give each block its weight"),
            );
            return None;
        }
        Some((Datum::List(weights), _)) => {
            weights.iter().map(|weight| weight.value.real().map(Some)).collect::<Option<Vec<_>>>()?
        }
        Some(_) => return None,
        None => vec![None; names.len()],
    };
    let mut parts = Vec::new();
    for (name, weight) in names.iter().zip(weights) {
        let Datum::Block(_, block) = &name.value else { return None };
        let part = find(block)?;
        let is_mix =
            matches!(part.fields.get("source").map(|source| &source.value), Some(Datum::Call("mix", _)));
        if is_mix || part.name == checked.name {
            problems.push(
                Problem::new(
                    "hift::lang::conflict",
                    format!("`data {block}` is a mix, and mixes cannot be mixed"),
                )
                .label_at(name.span(), "a mix in a mix")
                .help("name its blocks instead"),
            );
            return None;
        }
        parts.push(Part { data: data(part, find, problems)?, weight });
    }
    if parts.is_empty() {
        problems.push(
            Problem::new("hift::lang::range", "the mix names no block")
                .label(checked.head(), "mixes nothing")
                .help("write, for example, `mix([a, b], weights = [2, 1])`"),
        );
        return None;
    }
    Some(Source::Mix {
        parts,
        by: match of.get("by")?.value.word()? {
            "rows" => Weigh::Rows,
            "tokens" => Weigh::Tokens,
            _ => return None,
        },
        stop: match of.get("stop")?.value.word()? {
            "first" => Stop::First,
            "all" => Stop::All,
            _ => return None,
        },
    })
}

fn format(format: &Datum) -> Option<Format> {
    let column = |text: String| format!("{{{text}}}");
    match format {
        Datum::Call("text", of) => Some(Format::Text { column: of.text("column")?.value }),
        Datum::Call("instruct", of) => {
            Some(Format::Instruct { prompt: of.text("prompt")?.value, response: of.text("response")?.value })
        }
        Datum::Call("completion", of) => Some(Format::Instruct {
            prompt: column(of.text("prompt")?.value),
            response: column(of.text("completion")?.value),
        }),
        Datum::Call("tokens", of) => Some(Format::Tokens {
            input: of.text("input")?.value,
            labels: of.get("labels")?.text(),
            label: of.get("label")?.text(),
            mask: of.get("mask")?.text(),
        }),
        Datum::Call("classify", of) => {
            Some(Format::Classify { text: of.text("text")?.value, label: of.text("label")?.value })
        }
        Datum::Call("token_labels", of) => {
            Some(Format::TokenLabels { tokens: of.text("tokens")?.value, labels: of.text("labels")?.value })
        }
        Datum::Call("question", of) => Some(Format::Question {
            question: of.text("question")?.value,
            context: of.text("context")?.value,
            answers: of.text("answers")?.value,
            stride: of.whole("stride").map(|stride| stride.value),
        }),
        Datum::Call("chat", of) => Some(Format::Chat {
            column: of.get("column")?.text(),
            tools: match &of.get("tools")?.value {
                Datum::Word("auto") => Tools::Auto,
                Datum::Word("none") => Tools::None,
                other => Tools::Column(other.text()?),
            },
            template: of.get("template")?.text(),
            roles: match of.get("roles").map(|roles| &roles.value) {
                Some(Datum::Record(roles)) => roles
                    .iter()
                    .map(|(name, role)| Some((name.value.clone(), role.value.text()?)))
                    .collect::<Option<_>>()?,
                Some(_) => return None,
                None => Vec::new(),
            },
        }),
        _ => None,
    }
}

fn filters(datum: &Datum) -> Option<Vec<Filter>> {
    let Datum::Record(columns) = datum else { return Some(Vec::new()) };
    let test = |datum: &Datum| match datum {
        Datum::Text(text) => Some(Test::Is(vec![text.clone()])),
        Datum::Boolean(truth) => Some(Test::Is(vec![truth.to_string()])),
        Datum::List(_) => Some(Test::Is(plain_texts(datum)?)),
        Datum::Call("not", of) => Some(Test::Not(match &of.get("texts")?.value {
            Datum::Text(text) => vec![text.clone()],
            texts => plain_texts(texts)?,
        })),
        Datum::Call("at_least", of) => Some(Test::AtLeast(of.real("number")?.value)),
        Datum::Call("at_most", of) => Some(Test::AtMost(of.real("number")?.value)),
        _ => None,
    };
    columns
        .iter()
        .map(|(column, of)| Some(Filter { column: column.clone(), test: test(&of.value)? }))
        .collect()
}

/// Whether the rows, or some of a mix, have a class or a number each.
fn classifies(data: &Data) -> bool {
    data.parts().iter().any(|part| {
        matches!(part.format.value, Format::Classify { .. } | Format::Tokens { label: Some(_), .. })
    })
}

/// Whether the rows, or some of a mix, have a part that is the response.
fn responds(data: &Data) -> bool {
    data.parts().iter().any(|part| matches!(part.format.value, Format::Instruct { .. } | Format::Chat { .. }))
}

fn chats(data: &Data) -> bool {
    data.parts().iter().any(|part| matches!(part.format.value, Format::Chat { .. }))
}

/// A tokenizer as it serves this data; without data (prompts), every token counts.
pub(super) fn tokenizer(
    checked: &Checked,
    data: Option<&Data>,
    problems: &mut Problems,
) -> Option<Tokenizer> {
    let fields = &checked.fields;
    let format = data.map(|data| &data.format);
    let responds = data.is_some_and(responds);
    let loss_on = match fields.get("loss_on") {
        None if responds => Setting::default(LossOn::Response),
        None => Setting::default(LossOn::All),
        // Nothing is learned from prompts.
        Some(_) if data.is_none() => Setting::default(LossOn::All),
        Some(_) => fields.read("loss_on", |loss_on| match loss_on {
            Datum::Word("all") => Some(LossOn::All),
            Datum::Word("response") => Some(LossOn::Response),
            Datum::Word("last") => Some(LossOn::Last),
            Datum::Call("roles", of) => Some(LossOn::Roles(plain_texts(of.get("names")?)?)),
            _ => None,
        })?,
    };
    if let (LossOn::Response, Some(format), false) = (&loss_on.value, format, responds) {
        problems.push(
            Problem::new("hift::lang::conflict", "only `instruct` and `chat` rows have a response")
                .label_at(loss_on.span(), "asks for the response")
                .label_at(format.span(), "these rows have none")
                .help("write `loss_on = all`, or give the data `format = instruct(prompt = ..., response = ...)`"),
        );
    }
    if let (LossOn::Last | LossOn::Roles(_), Some(data), Some(format)) = (&loss_on.value, data, format)
        && !chats(data)
    {
        problems.push(
            Problem::new("hift::lang::conflict", "only `chat` rows have turns")
                .label_at(loss_on.span(), "asks for turns")
                .label_at(format.span(), "these rows have none")
                .help("write `loss_on = all` or `response`, or give the data `format = chat`"),
        );
    }
    let too_long = fields.read("too_long", |word| match word.word()? {
        "cut" => Some(TooLong::Cut),
        "cut_left" => Some(TooLong::CutLeft),
        "split" => Some(TooLong::Split),
        "drop" => Some(TooLong::Drop),
        "fail" => Some(TooLong::Fail),
        _ => None,
    })?;
    if let (TooLong::Split, Some(data), Some(format)) = (too_long.value, data, format)
        && classifies(data)
    {
        problems.push(
            Problem::new("hift::lang::conflict", "a row with a class cannot become several")
                .label_at(too_long.span(), "splits longer rows")
                .label_at(format.span(), "each row has one class")
                .help("write `too_long = cut`, `cut_left` or `drop`"),
        );
    }
    let asks = data.is_some_and(|data| {
        data.parts().iter().any(|part| matches!(part.format.value, Format::Question { .. }))
    });
    if let (TooLong::CutLeft, true, Some(format)) = (too_long.value, asks, format) {
        problems.push(
            Problem::new("hift::lang::conflict", "a question cannot lose its beginning")
                .label_at(too_long.span(), "cuts there")
                .label_at(format.span(), "each row begins with its question")
                .help("write `too_long = split`, `cut` or `drop`"),
        );
    }
    if let LossOn::Roles(names) = &loss_on.value {
        for name in names.iter().filter(|name| !ROLES.contains(&name.as_str())) {
            problems.push(
                Problem::new("hift::lang::range", format!("there is no role `{name}`"))
                    .label_at(loss_on.span(), "not a role")
                    .help(format!("write some of {}", quoted(ROLES, "and"))),
            );
        }
    }
    named_well(fields.get("file"), problems);
    let hub = match fields.get("file").map(|file| &file.value) {
        Some(Datum::Call("hub", of)) => repository(of),
        _ => None,
    };
    let file = match fields.get("file") {
        Some(file) => Setting { value: file.value.text(), origin: file.origin },
        None => {
            let tokenised = data.is_some_and(|data| {
                data.parts().iter().all(|part| matches!(part.format.value, Format::Tokens { .. }))
            });
            let written = checked.block.entries.iter().any(|entry| entry.name.text == "file");
            if !tokenised && !written && !checked.block.damaged {
                problems.push(missing(
                    checked.block,
                    "file",
                    "add `file = \"models/NAME/tokenizer.json\"`; it lies beside the model's weights".into(),
                ));
            }
            Setting::default(None)
        }
    };
    let mark = |name| {
        fields.read(name, |mark| match mark {
            Datum::Word("auto") => Some(Mark::Auto),
            Datum::Word("none") => Some(Mark::None),
            Datum::Text(token) => Some(Mark::Token(token.clone())),
            _ => None,
        })
    };
    let (begin, end) = (mark("begin")?, mark("end")?);
    for (key, mark) in [("begin", &begin), ("end", &end)] {
        if let (true, Some(format), true) = (asks, format, mark.value != Mark::Auto) {
            problems.push(
                Problem::new(
                    "hift::lang::conflict",
                    "what stands around a question and its text is the tokenizer's own",
                )
                .label_at(mark.span(), "asks for another mark")
                .label_at(format.span(), "rows of two parts")
                .help(format!("remove `{key}`")),
            );
        }
    }
    Some(Tokenizer {
        name: checked.name.clone(),
        span: checked.head(),
        file,
        hub,
        max_length: fields.read("max_length", |length| Some(length.whole()))?,
        too_long,
        pack: fields.boolean("pack")?,
        loss_on,
        begin,
        end,
    })
}

/// What applies where a stage over `tokens` rows names no tokenizer.
pub(super) fn no_tokenizer() -> Tokenizer {
    Tokenizer {
        name: String::new(),
        span: Default::default(),
        file: Setting::default(None),
        hub: None,
        max_length: Setting::default(None),
        too_long: Setting::default(TooLong::Cut),
        pack: Setting::default(false),
        loss_on: Setting::default(LossOn::All),
        begin: Setting::default(Mark::Auto),
        end: Setting::default(Mark::Auto),
    }
}

pub(super) fn model(checked: &Checked, problems: &mut Problems) -> Option<Model> {
    let fields = &checked.fields;
    named_well(fields.get("weights"), problems);
    Some(Model {
        name: checked.name.clone(),
        span: checked.head(),
        weights: fields.read("weights", |weights| match weights {
            Datum::Text(path) => Some(Weights::Directory { path: path.clone() }),
            Datum::Call("hub", of) => {
                Some(Weights::Hub { repository: repository(of)?, commit: None, path: None })
            }
            Datum::Call("random", of) => {
                Some(Weights::Random { config: of.text("config")?.value, seed: of.whole("seed")?.value })
            }
            _ => None,
        })?,
        task: fields.read("task", |task| {
            let labels = |of: &Fields| match of.get("labels") {
                None => Some(None),
                Some(labels) => plain_texts(labels).map(Some),
            };
            match task {
                Datum::Word("auto") => Some(Task::Auto),
                Datum::Word("regression") => Some(Task::Regression),
                Datum::Word("question_answering") => Some(Task::QuestionAnswering),
                Datum::Call("sequence_classification", of) => {
                    Some(Task::SequenceClassification { labels: labels(of)? })
                }
                Datum::Call("token_classification", of) => {
                    Some(Task::TokenClassification { labels: labels(of)? })
                }
                _ => None,
            }
        })?,
        precision: fields.read("precision", |value| match value {
            Datum::Word("fp32") => Some(Precision::Fp32),
            Datum::Word("bf16") => Some(Precision::Bf16),
            Datum::Call("mixed", of) => Some(Precision::Mixed(half(of)?)),
            Datum::Call("mixed_hi", of) => Some(Precision::MixedHi(half(of)?)),
            _ => None,
        })?,
        recompute: fields.read("recompute", |word| match word.word()? {
            "none" => Some(Recompute::None),
            "blocks" => Some(Recompute::Blocks),
            "auto" => Some(Recompute::Auto),
            _ => None,
        })?,
        tf32: fields.boolean("tf32")?,
    })
}

fn half(of: &Fields) -> Option<Half> {
    match of.get("half")?.word()? {
        "bf16" => Some(Half::Bf16),
        "fp16" => Some(Half::Fp16),
        _ => None,
    }
}

pub(super) fn groups(checked: &Checked, problems: &mut Problems) -> Option<Groups> {
    let fields = &checked.fields;
    let tail = |of: &Fields| match of.get("tail")?.word()? {
        "joined" => Some(Tail::Joined),
        "split" => Some(Tail::Split),
        _ => None,
    };
    let split = fields.read("split", |split| match split {
        Datum::Call("by_layer", of) => {
            Some(Split::ByLayer { size: of.whole("size")?.value, tail: tail(of)? })
        }
        Datum::Call("by_size", of) => {
            Some(Split::BySize { bytes: Bytes(of.whole("size")?.value), tail: tail(of)? })
        }
        Datum::Call("all", _) => Some(Split::All),
        Datum::Call("named", of) => named(of.get("groups")?),
        Datum::Record(_) => named(fields.get("split")?),
        _ => None,
    })?;
    let rotate = fields.boolean("rotate")?;
    if rotate.value && !matches!(split.value, Split::ByLayer { .. }) {
        problems.push(
            Problem::new("hift::lang::conflict", "only groups made by `by_layer` can rotate")
                .label_at(rotate.span(), "asks for rotation")
                .label_at(split.span(), "made in another way")
                .help("remove `rotate`, or write `split = by_layer(...)`"),
        );
    }
    let grow = fields.boolean("grow")?;
    if grow.value && rotate.value {
        problems.push(
            Problem::new("hift::lang::conflict", "groups that grow cannot rotate")
                .label_at(rotate.span(), "asks for rotation")
                .label_at(grow.span(), "asks for growth")
                .help("remove one of them"),
        );
    }
    Some(Groups {
        name: checked.name.clone(),
        span: checked.head(),
        split,
        freeze: fields.read("freeze", Datum::texts)?,
        always: fields.read("always", Datum::texts)?,
        grow,
        rotate,
    })
}

fn named(record: &Setting<Datum>) -> Option<Split> {
    let Datum::Record(groups) = &record.value else { return None };
    let groups = groups.iter().map(|(name, patterns)| Some((name.clone(), patterns.value.texts()?)));
    Some(Split::Named { groups: groups.collect::<Option<_>>()? })
}

pub(super) fn schedule(checked: &Checked, problems: &mut Problems) -> Option<Schedule> {
    let fields = &checked.fields;
    let advance = fields.read("advance", |word| match word.word()? {
        "per_cycle" => Some(Advance::PerCycle),
        "per_short_cycle" => Some(Advance::PerShortCycle),
        "per_step" => Some(Advance::PerStep),
        _ => None,
    });
    let horizon = fields.read("horizon", |word| match word.word()? {
        "cycles" => Some(Horizon::Cycles),
        "steps" => Some(Horizon::Steps),
        _ => None,
    });
    if let (Some(advance), Some(horizon)) = (&advance, &horizon)
        && advance.value == Advance::PerStep
        && horizon.origin != Origin::Default
    {
        problems.push(
            Problem::new("hift::lang::conflict", "a rate that moves every step has no use for `horizon`")
                .label_at(horizon.span(), "does nothing")
                .label_at(advance.span(), "because of this")
                .help("remove `horizon`, or write `advance = per_cycle`"),
        );
    }
    Some(Schedule {
        name: checked.name.clone(),
        span: checked.head(),
        order: fields.read("order", |order| match order {
            Datum::Word("bottom_up") => Some(Order::BottomUp),
            Datum::Word("top_down") => Some(Order::TopDown),
            Datum::Word("importance") => Some(Order::Importance),
            Datum::Call("random", of) => Some(Order::Random {
                seed: of.whole("seed")?.value,
                redraw: match of.get("redraw")?.word()? {
                    "never" => false,
                    "per_cycle" => true,
                    _ => return None,
                },
            }),
            Datum::Call("sample", of) => {
                Some(Order::Sample { seed: of.whole("seed")?.value, size: of.whole("size")?.value })
            }
            Datum::List(turns) => {
                let turn = |turn: &Setting<Datum>| {
                    let names = match &turn.value {
                        Datum::Text(name) => vec![Setting { value: name.clone(), origin: turn.origin }],
                        several => several.texts()?,
                    };
                    Some(Setting { value: names, origin: turn.origin })
                };
                Some(Order::List { turns: turns.iter().map(turn).collect::<Option<_>>()? })
            }
            _ => None,
        })?,
        dwell: fields.whole("dwell")?,
        advance: advance?,
        horizon: horizon?,
        states: fields.read("states", |word| match word.word()? {
            "device" => Some(Rest::Device),
            "host" => Some(Rest::Host),
            "disk" => Some(Rest::Disk),
            "discard" => Some(Rest::Discard),
            _ => None,
        })?,
        weights: fields.read("weights", |word| match word.word()? {
            "device" => Some(Residence::Device),
            "host" => Some(Residence::Host),
            "disk" => Some(Residence::Disk),
            _ => None,
        })?,
        rate: fields.read("rate", rate)?,
        layer_decay: fields.real("layer_decay")?,
        factors: fields.read("factors", |factors| match factors {
            Datum::Word("none") => Some(Vec::new()),
            Datum::Record(factors) => {
                factors.iter().map(|(name, factor)| Some((name.clone(), factor.value.real()?))).collect()
            }
            _ => None,
        })?,
    })
}

fn rate(rate: &Datum) -> Option<Rate> {
    let Datum::Call(function, of) = rate else { return None };
    let peak = of.real("peak")?;
    let part = |part: &Datum| match part {
        Datum::Word("none") => Some(Warmup::None),
        Datum::Amount(percent, Unit::Percent) => Some(Warmup::Share(percent / 100.0)),
        Datum::Amount(steps, Unit::Steps) => Some(Warmup::Steps(*steps as u64)),
        Datum::Amount(cycles, Unit::Cycles) => Some(Warmup::Cycles(*cycles as u64)),
        _ => None,
    };
    let warmup = of.read("warmup", part)?;
    let end = || of.real("end");
    match *function {
        "constant" => Some(Rate::Constant { peak, warmup }),
        "linear" => Some(Rate::Linear { peak, warmup, end: end()? }),
        "cosine" => Some(Rate::Cosine { peak, warmup, end: end()? }),
        "cosine_with_restarts" => {
            Some(Rate::CosineWithRestarts { peak, warmup, end: end()?, periods: of.whole("periods")? })
        }
        "polynomial" => Some(Rate::Polynomial { peak, warmup, end: end()?, power: of.real("power")? }),
        "inverse_sqrt" => Some(Rate::InverseSqrt {
            peak,
            warmup,
            timescale: of.read("timescale", |timescale| match timescale {
                Datum::Word("warmup") => Some(Timescale::Warmup),
                Datum::Amount(steps, Unit::Steps) => Some(Timescale::Steps(*steps as u64)),
                Datum::Amount(cycles, Unit::Cycles) => Some(Timescale::Cycles(*cycles as u64)),
                _ => None,
            })?,
        }),
        "wsd" => Some(Rate::Wsd {
            peak,
            warmup,
            end: end()?,
            decay: of.read("decay", part)?,
            shape: of.read("shape", |shape| match shape.word()? {
                "linear" => Some(Decline::Linear),
                "cosine" => Some(Decline::Cosine),
                "sqrt" => Some(Decline::Sqrt),
                _ => None,
            })?,
        }),
        _ => None,
    }
}

pub(super) fn optimizer(checked: &Checked, problems: &mut Problems) -> Option<Optimizer> {
    let names = || ALGORITHMS.iter().map(|algorithm| algorithm.name);
    let fields = &checked.fields;
    let written = checked.block.entries.iter().find(|entry| entry.name.text == "algorithm");
    let algorithm = match (fields.get("algorithm"), written) {
        (Some(algorithm), _) => algorithm.value.word()?,
        // Written, but wrong: the checks have said so.
        (None, Some(_)) => return None,
        (None, None) => match names().find(|known| *known == checked.name) {
            Some(known) => known,
            None => {
                let name = checked.block.name.as_ref()?;
                let problem = Problem::new(
                    "hift::lang::missing_key",
                    format!("`{}` is no algorithm, and the block names none", name.text),
                )
                .label(name.span, "not an algorithm")
                .help(match nearest(&name.text, names()) {
                    Some(meant) => format!("did you mean `optimizer {meant}`?"),
                    None => format!("add `algorithm = adamw`, or another of {}", quoted(names(), "and")),
                });
                problems.push(problem);
                return None;
            }
        },
    };
    let algorithm = ALGORITHMS.iter().find(|known| known.name == algorithm)?;
    let keys = algorithm.keys.iter().map(|(key, _)| *key);
    // A key that the algorithm does not use would be a dead one.
    for entry in &checked.block.entries {
        let name = entry.name.text.as_str();
        if fields.get(name).is_some() && name != "algorithm" && !keys.clone().any(|key| key == name) {
            problems.push(
                Problem::new("hift::lang::conflict", format!("`{}` has no `{name}`", algorithm.name))
                    .label(entry.name.span, "does nothing")
                    .label_at(
                        fields.get("algorithm").and_then(Setting::span).or(Some(checked.head())),
                        "because of this",
                    )
                    .help(match keys.clone().count() {
                        1 => format!(
                            "remove it; `{}` has only {}",
                            algorithm.name,
                            quoted(keys.clone(), "and")
                        ),
                        _ => format!(
                            "remove it; the keys of `{}` are {}",
                            algorithm.name,
                            quoted(keys.clone(), "and")
                        ),
                    }),
            );
        }
    }
    let of = Tuned { algorithm, fields };
    Some(Optimizer {
        name: checked.name.clone(),
        span: checked.head(),
        algorithm: match algorithm.name {
            "adamw" => Algorithm::Adamw { betas: of.pair("betas")?, eps: of.real("eps")? },
            "adam" => Algorithm::Adam { betas: of.pair("betas")?, eps: of.real("eps")? },
            "sgd" => Algorithm::Sgd,
            "sgdm" => Algorithm::Sgdm { momentum: of.real("momentum")?, nesterov: of.flag("nesterov")? },
            "adagrad" => Algorithm::Adagrad { eps: of.real("eps")? },
            "rmsprop" => Algorithm::Rmsprop {
                alpha: of.real("alpha")?,
                eps: of.real("eps")?,
                momentum: of.real("momentum")?,
                centered: of.flag("centered")?,
            },
            "adafactor" => Algorithm::Adafactor {
                eps: of.real("eps")?,
                decay_rate: of.real("decay_rate")?,
                clip_threshold: of.real("clip_threshold")?,
                beta1: of.optional("beta1")?,
                scale_parameter: of.flag("scale_parameter")?,
            },
            "lion" => Algorithm::Lion { betas: of.pair("betas")? },
            "lamb" => Algorithm::Lamb { betas: of.pair("betas")?, eps: of.real("eps")? },
            "lars" => Algorithm::Lars {
                momentum: of.real("momentum")?,
                nesterov: of.flag("nesterov")?,
                trust: of.real("trust")?,
            },
            "adam_mini" => Algorithm::AdamMini { betas: of.pair("betas")?, eps: of.real("eps")? },
            "adamw8bit" => Algorithm::Adamw8bit { betas: of.pair("betas")?, eps: of.real("eps")? },
            "adam8bit" => Algorithm::Adam8bit { betas: of.pair("betas")?, eps: of.real("eps")? },
            "lion8bit" => Algorithm::Lion8bit { betas: of.pair("betas")? },
            _ => return None,
        },
        weight_decay: of.real("weight_decay")?,
    })
}

/// The keys of an optimizer block, with what its algorithm has where one is not written.
struct Tuned<'c> {
    algorithm: &'static AlgorithmKeys,
    fields: &'c Fields,
}

impl Tuned<'_> {
    /// What is written, as `read` makes it, or the preset, as `preset` does.
    fn value<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Datum) -> Option<T>,
        preset: impl FnOnce(Preset) -> Option<T>,
    ) -> Option<Setting<T>> {
        if self.fields.get(key).is_some() {
            return self.fields.read(key, read);
        }
        let (_, value) = self.algorithm.keys.iter().find(|(known, _)| *known == key)?;
        preset(*value).map(Setting::default)
    }

    fn real(&self, key: &str) -> Option<Setting<f64>> {
        self.value(key, Datum::real, |preset| match preset {
            Preset::Real(x) => Some(x),
            Preset::Pair(..) | Preset::Flag(_) | Preset::Nothing => None,
        })
    }

    fn flag(&self, key: &str) -> Option<Setting<bool>> {
        let read = |datum: &Datum| match datum {
            Datum::Boolean(flag) => Some(*flag),
            _ => None,
        };
        self.value(key, read, |preset| match preset {
            Preset::Flag(flag) => Some(flag),
            Preset::Real(_) | Preset::Pair(..) | Preset::Nothing => None,
        })
    }

    fn pair(&self, key: &str) -> Option<Setting<[f64; 2]>> {
        let read = |datum: &Datum| match datum {
            Datum::List(values) => match values.as_slice() {
                [first, second] => Some([first.value.real()?, second.value.real()?]),
                _ => None,
            },
            _ => None,
        };
        self.value(key, read, |preset| match preset {
            Preset::Pair(first, second) => Some([first, second]),
            Preset::Real(_) | Preset::Flag(_) | Preset::Nothing => None,
        })
    }

    /// A number, or none for `none`.
    fn optional(&self, key: &str) -> Option<Setting<Option<f64>>> {
        self.value(
            key,
            |datum| Some(datum.real()),
            |preset| match preset {
                Preset::Real(x) => Some(Some(x)),
                Preset::Nothing => Some(None),
                Preset::Pair(..) | Preset::Flag(_) => None,
            },
        )
    }
}
