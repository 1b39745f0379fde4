//! What is legal but surely unwanted, as far as the file alone can tell. What depends on a model or on rows is told
//! by the plan.

use std::collections::HashMap;

use crate::lang::MAX_PROBLEMS;
use crate::lang::pipeline::{
    Algorithm, Evaluate, Generate, Holdout, Interval, Length, Metric, Order, Setting, Shuffle, Source, Split,
    Train, Warmup,
};
use crate::lang::syntax::Number;
use crate::problem::{Problem, Problems, Span};

/// Rates above this one are a lost sign of the exponent.
const HIGH_RATE: f64 = 1e-2;

/// Below this one, 32-bit weights hardly move.
const LOW_RATE: f64 = 1e-9;

pub(super) fn train(stage: &Train, problems: &mut Problems) {
    rate(stage, problems);
    length(stage, problems);
    groups(stage, problems);
    rows(stage, problems);
    if let Some(evaluate) = &stage.evaluate {
        repeated(
            "metrics",
            evaluate.metrics.iter().map(|metric| (metric_name(*metric).to_owned(), evaluate.metrics.span())),
            problems,
        );
    }
}

/// What a stage does with its rows.
fn rows(stage: &Train, problems: &mut Problems) {
    for data in stage.data.parts() {
        if let Holdout::Share(share) = *data.holdout
            && share > 0.5
        {
            problems.push(
                Problem::warning(
                    "hift::lang::large_holdout",
                    format!("`data {}` holds out more rows than it leaves to learn from", data.name),
                )
                .label_at(data.holdout.span(), "kept away from training")
                .help("a few percent are enough to measure on, for example `holdout = 2 %`"),
            );
        }
        if let Holdout::From(source) = &*data.holdout
            && **source == *data.source
        {
            problems.push(
                Problem::warning(
                    "hift::lang::same_holdout",
                    format!("`data {}` is measured on the rows that it is trained on", data.name),
                )
                .label_at(data.holdout.span(), "held out")
                .label_at(data.source.span(), "and trained on")
                .help("name other rows, or keep some of these away from training: `holdout = 2 %`"),
            );
        }
    }
    if let Source::Mix { parts, .. } = &*stage.data.source {
        let span = stage.data.source.span();
        repeated("mix", parts.iter().map(|part| (part.data.name.clone(), span)), problems);
    }
    if let (Shuffle::ByLength(_), true) = (*stage.data.shuffle, *stage.tokenizer.pack) {
        no_effect(
            "`by_length` changes nothing where rows are packed",
            stage.data.shuffle.span(),
            "groups rows by length",
            stage.tokenizer.pack.span(),
            "packed sequences are all about as long",
            "remove `by_length`, or write `pack = false`",
            problems,
        );
    }
}

fn rate(stage: &Train, problems: &mut Problems) {
    let (peak, warmup) = stage.schedule.rate.parts();
    if let Algorithm::Adamw { .. } = stage.optimizer.algorithm
        && **peak > HIGH_RATE
    {
        problems.push(
            Problem::warning(
                "hift::lang::high_rate",
                format!("a rate of {} is very high for AdamW", short(**peak)),
            )
            .label_at(peak.span(), "very high")
            .help("fine-tuning mostly wants 1e-6 to 1e-4; see whether the exponent lacks its sign"),
        );
    }
    if **peak < LOW_RATE {
        problems.push(
            Problem::warning("hift::lang::low_rate", format!("a rate of {} moves no weight", short(**peak)))
                .label_at(peak.span(), "very low")
                .help("fine-tuning mostly wants 1e-6 to 1e-4"),
        );
    }
    if let Some(end) = stage.schedule.rate.end()
        && **end > **peak
    {
        problems.push(
            Problem::warning(
                "hift::lang::rising_rate",
                format!("the rate ends at {}, above its peak of {}", short(**end), short(**peak)),
            )
            .label_at(end.span(), "the last rate")
            .label_at(peak.span(), "the highest rate")
            .help("write an `end` below the peak, or leave it out to end at 0"),
        );
    }
    let long_warmup = |message: String, label: &str| {
        Problem::warning("hift::lang::long_warmup", message)
            .label_at(warmup.span(), label)
            .help("shorten the warm-up, for example `warmup = 3 %`")
    };
    match (**warmup, *stage.length) {
        (Warmup::Steps(rising), Length::Steps(steps)) if rising >= steps => problems.push(
            long_warmup(
                format!("the warm-up takes {rising} steps and the run only {steps}: the rate never reaches its peak"),
                &format!("{rising} steps"),
            )
            .label_at(stage.length.span(), format!("{steps} steps")),
        ),
        (Warmup::Share(share), _) if share > 0.5 => problems.push(long_warmup(
            format!("the warm-up takes {} % of the run", 100.0 * share),
            "more than half of it",
        )),
        (Warmup::None | Warmup::Share(_) | Warmup::Steps(_) | Warmup::Cycles(_), _) => {}
    }
    if let Algorithm::Adamw { betas, .. } = &stage.optimizer.algorithm
        && betas[0] > betas[1]
    {
        problems.push(
            Problem::warning(
                "hift::lang::betas",
                format!("the first beta, {}, is larger than the second, {}", betas[0], betas[1]),
            )
            .label_at(betas.span(), "mostly the other way round")
            .help(format!("write `betas = [{}, {}]`", betas[1], betas[0])),
        );
    }
}

/// Intervals and turns that the run is too short for.
fn length(stage: &Train, problems: &mut Problems) {
    let Length::Steps(steps) = *stage.length else { return };
    let too_rare = |every: &Setting<Interval>, what: &str| match **every {
        Interval::Steps(every_steps) if every_steps > steps => Some(
            Problem::warning(
                "hift::lang::too_rare",
                format!("`{what}` every {every_steps} steps, but the run ends after {steps}"),
            )
            .label_at(every.span(), format!("{every_steps} steps"))
            .label_at(stage.length.span(), format!("{steps} steps"))
            .help(format!("write a smaller `every`, or remove `{what}`")),
        ),
        Interval::Steps(_) | Interval::Cycles(_) | Interval::Epochs(_) => None,
    };
    let evaluate = stage.evaluate.as_ref().and_then(|part| too_rare(&part.every, "evaluate"));
    let checkpoint = stage.checkpoint.as_ref().and_then(|part| too_rare(&part.every, "checkpoint"));
    problems.0.extend(evaluate.into_iter().chain(checkpoint));
    let dwell = *stage.schedule.dwell;
    if dwell >= steps && !matches!(*stage.groups.split, Split::All) {
        problems.push(
            Problem::warning(
                "hift::lang::long_turn",
                format!(
                    "a turn lasts {dwell} steps and the run {steps}: only the first group is ever trained"
                ),
            )
            .label_at(stage.schedule.dwell.span(), format!("{dwell} steps a turn"))
            .label_at(stage.length.span(), format!("{steps} steps in all"))
            .help("write a smaller `dwell`, or more steps"),
        );
    }
}

/// Settings about turns where there is one group only, and names that stand twice. What is written as it would be anyway is
/// no surprise: a rendered pipeline spells all of it out.
fn groups(stage: &Train, problems: &mut Problems) {
    if matches!(*stage.groups.split, Split::All) {
        let order = &stage.schedule.order;
        let is_list = matches!(**order, Order::List { .. });
        for (name, span, written) in [
            ("order", order.span(), **order != Order::BottomUp && !is_list),
            ("dwell", stage.schedule.dwell.span(), *stage.schedule.dwell != 1),
        ] {
            if written {
                no_effect(
                    &format!("`{name}` changes nothing where all layers are one group"),
                    span,
                    "does nothing",
                    stage.groups.split.span(),
                    "one group",
                    &format!("remove `{name}`, or write `split = by_layer(1)`"),
                    problems,
                );
            }
        }
    }
    repeated("freeze", quoted(&stage.groups.freeze), problems);
}

pub(super) fn evaluate(stage: &Evaluate, problems: &mut Problems) {
    let span = stage.metrics.span();
    repeated("metrics", stage.metrics.iter().map(|metric| (metric_name(*metric).to_owned(), span)), problems);
}

pub(super) fn generate(stage: &Generate, problems: &mut Problems) {
    if *stage.temperature == 0.0 {
        // Without chance the same prompt gives the same answer.
        repeated("prompts", quoted(&stage.prompts), problems);
        for (key, span, written) in [
            ("seed", stage.seed.span(), *stage.seed != 0),
            ("top_k", stage.top_k.span(), stage.top_k.is_some()),
            ("top_p", stage.top_p.span(), *stage.top_p < 1.0),
        ] {
            if written {
                no_effect(
                    &format!("`{key}` changes nothing where no token is drawn"),
                    span,
                    "does nothing",
                    stage.temperature.span().or(Some(stage.span)),
                    "takes the most probable token each time",
                    &format!("remove `{key}`, or write `temperature = 0.7`"),
                    problems,
                );
            }
        }
    }
    if stage.data.is_none() && stage.rows.is_some() {
        no_effect(
            "`rows` counts nothing without `data`",
            stage.rows.span(),
            "does nothing",
            stage.prompts.span().or(Some(stage.span)),
            "the prompts are written here",
            "remove `rows`, or write `data = NAME` instead of `prompts`",
            problems,
        );
    }
    if stage.references.is_empty() && stage.data.is_none() && !stage.metrics.is_empty() {
        no_effect(
            "`metrics` measure nothing without `references`",
            stage.metrics.span(),
            "does nothing",
            Some(stage.span),
            "has no references",
            "add `references = [...]`, a text for each prompt, or remove `metrics`",
            problems,
        );
    }
    if *stage.beams == 1 {
        for (key, span, written) in [
            ("length_penalty", stage.length_penalty.span(), *stage.length_penalty != 1.0),
            ("early_stopping", stage.early_stopping.span(), *stage.early_stopping),
        ] {
            if written {
                no_effect(
                    &format!("`{key}` changes nothing where one text is followed"),
                    span,
                    "does nothing",
                    stage.beams.span().or(Some(stage.span)),
                    "has no beams",
                    &format!("remove `{key}`, or write `beams = 4`"),
                    problems,
                );
            }
        }
    }
}

/// As a person writes it: `1e-5`.
fn short(number: f64) -> String {
    Number::calculated(number).text
}

pub(super) fn no_effect(
    message: &str,
    span: Option<Span>,
    label: &str,
    because: Option<Span>,
    why: &str,
    help: &str,
    problems: &mut Problems,
) {
    problems.push(
        Problem::warning("hift::lang::no_effect", message)
            .label_at(span, label)
            .label_at(because, why)
            .help(help),
    );
}

/// Warns about a value that stands twice in a list.
fn repeated(key: &str, values: impl Iterator<Item = (String, Option<Span>)>, problems: &mut Problems) {
    let mut seen: HashMap<String, Option<Span>> = HashMap::new();
    for (value, span) in values {
        if problems.0.len() >= MAX_PROBLEMS {
            return;
        }
        match seen.get(&value) {
            Some(first) => {
                let first = first.filter(|first| Some(*first) != span);
                problems.push(
                    Problem::warning("hift::lang::repeated", format!("`{value}` stands twice in `{key}`"))
                        .label_at(span, "the second time")
                        .label_at(first, "the first time")
                        .help("remove one of them"),
                );
            }
            None => drop(seen.insert(value, span)),
        }
    }
}

fn quoted(texts: &[Setting<String>]) -> impl Iterator<Item = (String, Option<Span>)> {
    texts.iter().map(|text| (format!("\"{}\"", **text), text.span()))
}

fn metric_name(metric: Metric) -> &'static str {
    metric.name()
}
