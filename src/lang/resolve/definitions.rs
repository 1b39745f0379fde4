//! Definition blocks that have passed the schema, as the types of the pipeline.
//!
//! A function here gives nothing only where the checks have already complained.

use crate::lang::names::{nearest, quoted};
use crate::lang::pipeline::{
    Advance, Algorithm, Data, Format, Groups, Holdout, Horizon, LossOn, Mark, Model, Optimizer, Order,
    Origin, Precision, Rate, Recompute, Rest, Schedule, Setting, Shuffle, Source, Split, Tail, Tokenizer,
    TooLong, Warmup, Weights,
};
use crate::lang::schema::Unit;
use crate::problem::{Problem, Problems};

use super::complain::missing;
use super::datum::{Checked, Datum, Fields};

pub(super) fn data(checked: &Checked) -> Option<Data> {
    let fields = &checked.fields;
    Some(Data {
        name: checked.name.clone(),
        span: checked.head(),
        source: fields.read("source", |source| match source {
            Datum::Call("json", of) => Some(Source::Json { path: of.text("path")?.value }),
            Datum::Call("text", of) => {
                Some(Source::Text { path: of.text("path")?.value, separator: of.get("separator")?.text() })
            }
            _ => None,
        })?,
        format: fields.read("format", |format| match format {
            Datum::Call("text", of) => Some(Format::Text { column: of.text("column")?.value }),
            Datum::Call("instruct", of) => Some(Format::Instruct {
                prompt: of.text("prompt")?.value,
                response: of.text("response")?.value,
            }),
            Datum::Call("tokens", of) => {
                Some(Format::Tokens { input: of.text("input")?.value, labels: of.get("labels")?.text() })
            }
            _ => None,
        })?,
        holdout: fields.read("holdout", |holdout| match holdout {
            Datum::Word("none") => Some(Holdout::None),
            Datum::Amount(percent, Unit::Percent) => Some(Holdout::Share(percent / 100.0)),
            Datum::Amount(rows, Unit::Rows) => Some(Holdout::Rows(*rows as u64)),
            _ => None,
        })?,
        shuffle: fields.read("shuffle", |shuffle| match shuffle {
            Datum::Word("none") => Some(Shuffle::None),
            Datum::Call("seed", of) => Some(Shuffle::Seed(of.whole("seed")?.value)),
            _ => None,
        })?,
    })
}

/// A tokenizer as it serves this data; without data (prompts), every token counts.
pub(super) fn tokenizer(
    checked: &Checked,
    data: Option<&Data>,
    problems: &mut Problems,
) -> Option<Tokenizer> {
    let fields = &checked.fields;
    let format = data.map(|data| &data.format);
    let instruct = format.is_some_and(|format| matches!(format.value, Format::Instruct { .. }));
    let loss_on = match fields.get("loss_on") {
        None if instruct => Setting::default(LossOn::Response),
        None => Setting::default(LossOn::All),
        Some(_) => fields.read("loss_on", |word| match word.word()? {
            "all" => Some(LossOn::All),
            "response" => Some(LossOn::Response),
            _ => None,
        })?,
    };
    if let (LossOn::Response, Some(format), false) = (loss_on.value, format, instruct) {
        problems.push(
            Problem::new("hift::lang::conflict", "only `instruct` rows have a response")
                .label_at(loss_on.span(), "asks for the response")
                .label_at(format.span(), "these rows have none")
                .help("write `loss_on = all`, or give the data `format = instruct(prompt = ..., response = ...)`"),
        );
    }
    let file = match fields.text("file") {
        Some(file) => Setting { value: Some(file.value), origin: file.origin },
        None => {
            let tokenised = format.is_some_and(|format| matches!(format.value, Format::Tokens { .. }));
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
    Some(Tokenizer {
        name: checked.name.clone(),
        span: checked.head(),
        file,
        max_length: fields.read("max_length", |length| Some(length.whole()))?,
        too_long: fields.read("too_long", |word| match word.word()? {
            "cut" => Some(TooLong::Cut),
            "drop" => Some(TooLong::Drop),
            "fail" => Some(TooLong::Fail),
            _ => None,
        })?,
        pack: fields.boolean("pack")?,
        loss_on,
        begin: mark("begin")?,
        end: mark("end")?,
    })
}

/// What applies where a stage over `tokens` rows names no tokenizer.
pub(super) fn no_tokenizer() -> Tokenizer {
    Tokenizer {
        name: String::new(),
        span: Default::default(),
        file: Setting::default(None),
        max_length: Setting::default(None),
        too_long: Setting::default(TooLong::Cut),
        pack: Setting::default(false),
        loss_on: Setting::default(LossOn::All),
        begin: Setting::default(Mark::Auto),
        end: Setting::default(Mark::Auto),
    }
}

pub(super) fn model(checked: &Checked) -> Option<Model> {
    let fields = &checked.fields;
    Some(Model {
        name: checked.name.clone(),
        span: checked.head(),
        weights: fields.read("weights", |weights| match weights {
            Datum::Text(path) => Some(Weights::Directory { path: path.clone() }),
            Datum::Call("random", of) => {
                Some(Weights::Random { config: of.text("config")?.value, seed: of.whole("seed")?.value })
            }
            _ => None,
        })?,
        precision: fields.read("precision", |word| match word.word()? {
            "fp32" => Some(Precision::Fp32),
            _ => None,
        })?,
        recompute: fields.read("recompute", |word| match word.word()? {
            "none" => Some(Recompute::None),
            "blocks" => Some(Recompute::Blocks),
            "auto" => Some(Recompute::Auto),
            _ => None,
        })?,
    })
}

pub(super) fn groups(checked: &Checked, problems: &mut Problems) -> Option<Groups> {
    let fields = &checked.fields;
    let split = fields.read("split", |split| match split {
        Datum::Call("by_layer", of) => Some(Split::ByLayer {
            size: of.whole("size")?.value,
            tail: match of.get("tail")?.word()? {
                "joined" => Tail::Joined,
                "split" => Tail::Split,
                _ => return None,
            },
        }),
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
    Some(Groups {
        name: checked.name.clone(),
        span: checked.head(),
        split,
        freeze: fields.read("freeze", Datum::texts)?,
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
            Datum::Call("random", of) => Some(Order::Random { seed: of.whole("seed")?.value }),
            list => Some(Order::List { names: list.texts()? }),
        })?,
        dwell: fields.whole("dwell")?,
        advance: advance?,
        horizon: horizon?,
        states: fields.read("states", |word| match word.word()? {
            "device" => Some(Rest::Device),
            "host" => Some(Rest::Host),
            "discard" => Some(Rest::Discard),
            _ => None,
        })?,
        rate: fields.read("rate", rate)?,
    })
}

fn rate(rate: &Datum) -> Option<Rate> {
    let Datum::Call(function, of) = rate else { return None };
    let peak = of.real("peak")?;
    let warmup = of.read("warmup", |warmup| match warmup {
        Datum::Word("none") => Some(Warmup::None),
        Datum::Amount(percent, Unit::Percent) => Some(Warmup::Share(percent / 100.0)),
        Datum::Amount(steps, Unit::Steps) => Some(Warmup::Steps(*steps as u64)),
        Datum::Amount(cycles, Unit::Cycles) => Some(Warmup::Cycles(*cycles as u64)),
        _ => None,
    })?;
    match *function {
        "constant" => Some(Rate::Constant { peak, warmup }),
        "linear" => Some(Rate::Linear { peak, warmup, end: of.real("end")? }),
        "cosine" => Some(Rate::Cosine { peak, warmup, end: of.real("end")? }),
        _ => None,
    }
}

pub(super) fn optimizer(checked: &Checked, problems: &mut Problems) -> Option<Optimizer> {
    const ALGORITHMS: [&str; 3] = ["adamw", "sgd", "sgdm"];
    let fields = &checked.fields;
    let written = checked.block.entries.iter().find(|entry| entry.name.text == "algorithm");
    let algorithm = match (fields.get("algorithm"), written) {
        (Some(algorithm), _) => algorithm.value.word()?,
        // Written, but wrong: the checks have said so.
        (None, Some(_)) => return None,
        (None, None) => match ALGORITHMS.iter().find(|known| **known == checked.name) {
            Some(known) => known,
            None => {
                let name = checked.block.name.as_ref()?;
                let problem = Problem::new(
                    "hift::lang::missing_key",
                    format!("`{}` is no algorithm, and the block names none", name.text),
                )
                .label(name.span, "not an algorithm")
                .help(match nearest(&name.text, ALGORITHMS) {
                    Some(meant) => format!("did you mean `optimizer {meant}`?"),
                    None => format!("add `algorithm = adamw`, or another of {}", quoted(ALGORITHMS, "and")),
                });
                problems.push(problem);
                return None;
            }
        },
    };
    // A key that the algorithm does not use would be a dead one.
    let used: &[&str] = match algorithm {
        "adamw" => &["algorithm", "betas", "eps", "weight_decay"],
        "sgdm" => &["algorithm", "momentum", "weight_decay"],
        _ => &["algorithm", "weight_decay"],
    };
    for entry in &checked.block.entries {
        if fields.get(&entry.name.text).is_some() && !used.contains(&entry.name.text.as_str()) {
            problems.push(
                Problem::new("hift::lang::conflict", format!("`{algorithm}` has no `{}`", entry.name.text))
                    .label(entry.name.span, "does nothing")
                    .label_at(
                        fields.get("algorithm").and_then(Setting::span).or(Some(checked.head())),
                        "because of this",
                    )
                    .help(match used {
                        [_, only] => format!("remove it; `{algorithm}` has only `{only}`"),
                        _ => format!(
                            "remove it; the keys of `{algorithm}` are {}",
                            quoted(used[1..].iter().copied(), "and")
                        ),
                    }),
            );
        }
    }
    let or = |name: &str, value: f64| fields.real(name).unwrap_or(Setting::default(value));
    Some(Optimizer {
        name: checked.name.clone(),
        span: checked.head(),
        algorithm: match algorithm {
            "adamw" => Algorithm::Adamw { betas: betas(fields), eps: or("eps", 1e-8) },
            "sgdm" => Algorithm::Sgdm { momentum: or("momentum", 0.9) },
            _ => Algorithm::Sgd,
        },
        weight_decay: or("weight_decay", if algorithm == "adamw" { 0.01 } else { 0.0 }),
    })
}

fn betas(fields: &Fields) -> Setting<[f64; 2]> {
    let written = fields.read("betas", |betas| match betas {
        Datum::List(betas) => match betas.as_slice() {
            [first, second] => Some([first.value.real()?, second.value.real()?]),
            _ => None,
        },
        _ => None,
    });
    written.unwrap_or(Setting::default([0.9, 0.999]))
}
