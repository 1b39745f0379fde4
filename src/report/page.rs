//! A run as one page of HTML that needs nothing beside it: curves, memory, time, samples, audit, plan, inputs.

use std::fmt::Write;

use serde_json::Value as Json;

use crate::units::{Bytes, Count};

use super::chart::{Bar, Drawn, Series, bars, escape, lines, shares};
use super::facts::{Fact, Summary, short};
use super::record::{Record, State, Step, foretold, moment, smoothed};
use super::{audit, duration, metrics, rate};

const STYLE: &str = include_str!("page.css");

/// The page.
pub fn page(record: &Record) -> String {
    let state = record.state();
    let mut body = String::new();
    let _ = write!(
        body,
        "<header><h1>{}</h1><span class=\"state {}\">{}</span></header>",
        escape(&record.name),
        state.word(),
        state.word()
    );
    if let (State::Failed, Some(fail)) = (state, record.events_of("fail").last()) {
        let message = fail["message"].as_str().unwrap_or_default();
        let _ = write!(body, "<p class=\"fail\">{}</p>", escape(message));
    }
    for stage in record.stages("train") {
        body += &train(record, stage);
    }
    for stage in record.stages("evaluate") {
        let name = stage["name"].as_str().unwrap_or_default();
        if let Some(found) = record.last_metrics(name) {
            let numbers = metrics(found).into_iter().map(|(name, value)| (name.to_owned(), value));
            body += &section(&format!("evaluate {name}"), &cards(numbers));
        }
    }
    body += &section("Time", &time(record));
    body += &samples(record);
    body += &section("What happened", &events(record));
    for event in last_of_each_stage(record, "audit") {
        let stage = event["stage"].as_str().unwrap_or_default();
        body += &folded(&format!("Audit of the rows of {stage}"), &audited(&event["audit"]));
    }
    body += &plan(record);
    body += &folded("Inputs by content", &inputs(record));
    body += &folded("Pipeline", &format!("<pre>{}</pre>", escape(&record.pipeline)));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{}</title><style>{STYLE}</style></head>\n<body><main>{body}\
         <footer>hift {}</footer></main></body></html>\n",
        escape(&record.name),
        env!("CARGO_PKG_VERSION")
    )
}

fn section(title: &str, content: &str) -> String {
    format!("<section><h2>{}</h2>{content}</section>\n", escape(title))
}

fn folded(title: &str, content: &str) -> String {
    format!("<details><summary>{}</summary>{content}</details>\n", escape(title))
}

fn figure(title: &str, legend: &str, content: &str) -> String {
    format!("<figure><figcaption>{title}{legend}</figcaption>{content}</figure>")
}

fn cards(numbers: impl Iterator<Item = (String, String)>) -> String {
    let cards = numbers.map(|(name, value)| {
        format!("<div class=\"card\"><b>{}</b><span>{}</span></div>", escape(&value), escape(&name))
    });
    format!("<div class=\"cards\">{}</div>", cards.collect::<String>())
}

fn legend(entries: &[(String, String)]) -> String {
    let entries = entries.iter().map(|(name, colour)| {
        format!("<span class=\"key\"><i style=\"background:{colour}\"></i>{}</span>", escape(name))
    });
    entries.collect()
}

// ------------------------------------------------------------------------------------- a train stage

fn train(record: &Record, plan: &Json) -> String {
    let name = plan["name"].as_str().unwrap_or_default();
    let steps: Vec<&Step> = record.steps(name).collect();
    let mut content = summary(record, plan, &steps);
    content += &losses(record, name, &steps);
    let groups = groups(plan);
    let by_group = |value: fn(&Step) -> f64, drawn: Drawn| -> Vec<Series> {
        let series = groups.iter().enumerate().map(|(i, group)| Series {
            name: group.join(" + "),
            colour: colour(i, groups.len()),
            points: steps
                .iter()
                .filter(|step| step.group == *group)
                .map(|step| (step.step as f64, value(step)))
                .collect(),
            drawn,
        });
        series.collect()
    };
    let keys = keys(&groups);
    let series = by_group(|step| step.rate, Drawn::Points);
    content += &match plan["named_factors"].as_array().is_none_or(Vec::is_empty)
        && plan["layer_decay"].as_f64().is_none_or(|share| share == 1.0)
    {
        // Curves that lie upon each other would look like one of them.
        true => {
            let points = steps.iter().map(|step| (step.step as f64, step.rate)).collect();
            let all = Series { name: "rate".into(), colour: "var(--c0)".into(), points, drawn: Drawn::Line };
            figure("Rate, the same for each group", "", &lines(&[all], "step", false, &rate))
        }
        false => figure("Rate of each group", &keys, &lines(&series, "step", false, &rate)),
    };
    let norms = lines(&by_group(|step| step.grad_norm, Drawn::Points), "step", true, &plain);
    content += &figure("Gradient norm of each group, before clipping", &keys, &norms);
    let memory = memory(record, name, &groups, &steps);
    let both = legend(&[
        ("foretold".to_string(), "var(--soft)".to_string()),
        ("measured".to_string(), "var(--c0)".to_string()),
    ]);
    content += &figure("Peak memory over a cycle", &both, &memory);
    section(&format!("train {name}"), &content)
}

fn summary(record: &Record, plan: &Json, steps: &[&Step]) -> String {
    let name = plan["name"].as_str().unwrap_or_default();
    let of = plan["steps"].as_u64().map_or("steps".to_owned(), |of| format!("of {} steps", Count(of)));
    let mut numbers = vec![(of, Count(steps.len() as u64).to_string())];
    if let Some(loss) = smoothed(steps.iter().copied()) {
        numbers.push(("training loss".to_string(), format!("{loss:.4}")));
    }
    let held_out = record.held_out(name, "loss");
    if let (Some(first), Some(last)) = (held_out.first(), held_out.last()) {
        let from = if held_out.len() > 1 { format!(", {:.4} at first", first.1) } else { String::new() };
        numbers.push((format!("held-out loss{from}"), format!("{:.4}", last.1)));
    }
    let (tokens, seconds) = (steps.iter().map(|step| step.tokens), steps.iter().map(|step| step.seconds));
    let (tokens, seconds) = (tokens.sum::<u64>(), seconds.sum::<f64>());
    numbers.push(("tokens".to_string(), Count(tokens).to_string()));
    if seconds > 0.0 {
        let speed = (tokens as f64 / seconds) as u64;
        numbers.push(("tokens a second".to_string(), Count(speed).to_string()));
    }
    if let (Some(peak), Some(foretold)) =
        (steps.iter().map(|step| step.peak).max(), foretold(record.estimate(name)))
    {
        numbers.push((format!("peak memory, {} foretold", Bytes(foretold)), Bytes(peak).to_string()));
    }
    if let Some((process, Some(foretold))) = record.process(name) {
        let name = format!("the process on the device, {} foretold", Bytes(foretold));
        numbers.push((name, Bytes(process).to_string()));
    }
    cards(numbers.into_iter())
}

fn losses(record: &Record, name: &str, steps: &[&Step]) -> String {
    let raw = steps.iter().map(|step| (step.step as f64, step.loss)).collect();
    let line = |name: &str, colour: &str, points, drawn| Series {
        name: name.to_string(),
        colour: colour.to_string(),
        points,
        drawn,
    };
    let mut series = vec![
        line("each step", "var(--c0)", raw, Drawn::Faint),
        line("training", "var(--c0)", smooth(steps), Drawn::Line),
    ];
    let held_out = record.held_out(name, "loss");
    let mut keys = vec![("training".to_string(), "var(--c0)".to_string())];
    if !held_out.is_empty() {
        let points = held_out.iter().map(|(step, loss)| (*step as f64, *loss)).collect();
        series.push(line("held-out", "var(--c1)", points, Drawn::Marked));
        keys.push(("held-out".to_string(), "var(--c1)".to_string()));
    }
    // Where a loss falls to a small part of what it was, all that comes late would be a line at the bottom.
    let smooth = &series[1].points;
    let all = || smooth.iter().map(|(_, loss)| *loss).chain(held_out.iter().map(|(_, loss)| *loss));
    let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
    let log = least > 0.0 && most > 20.0 * least;
    let title = if log { "Loss, on a logarithmic scale" } else { "Loss" };
    figure(title, &legend(&keys), &lines(&series, "step", log, &plain))
}

/// The loss, averaged over as many steps before as behind: over more of them the longer the run, and over fewer near
/// its ends.
fn smooth(steps: &[&Step]) -> Vec<(f64, f64)> {
    let steps: Vec<&&Step> = steps.iter().filter(|step| step.loss.is_finite()).collect();
    let reach = (steps.len() / 100).clamp(2, 50);
    // Sums of the first so many.
    let mut sums = vec![0.0];
    steps.iter().for_each(|step| sums.push(sums[sums.len() - 1] + step.loss));
    let mean = |(i, step): (usize, &&&Step)| {
        let reach = reach.min(i).min(steps.len() - 1 - i);
        let loss = (sums[i + reach + 1] - sums[i - reach]) / (2 * reach + 1) as f64;
        (step.step as f64, loss)
    };
    steps.iter().enumerate().map(mean).collect()
}

fn groups(plan: &Json) -> Vec<Vec<String>> {
    let names = |group: &Json| {
        let names = group["names"].as_array().into_iter().flatten().filter_map(Json::as_str);
        names.map(str::to_owned).collect()
    };
    plan["groups"].as_array().into_iter().flatten().map(names).collect()
}

/// Few groups have colours that differ, many have a row of them.
fn colour(i: usize, n: usize) -> String {
    match n {
        0..=8 => format!("var(--c{i})"),
        _ => format!("hsl({:.0} 65% 52%)", 215.0 + 250.0 * i as f64 / (n - 1) as f64),
    }
}

fn keys(groups: &[Vec<String>]) -> String {
    let n = groups.len();
    let key = |i: usize| (super::names(&groups[i]), colour(i, n));
    match n {
        0..=8 => legend(&(0..n).map(key).collect::<Vec<_>>()),
        _ => legend(&[key(0), key(n / 2), key(n - 1)]),
    }
}

fn memory(record: &Record, stage: &str, groups: &[Vec<String>], steps: &[&Step]) -> String {
    let estimated = record.estimate(stage)["groups"].as_array().map_or(&[][..], Vec::as_slice);
    let rows: Vec<Bar> = groups
        .iter()
        .zip(estimated)
        .map(|(group, estimate)| {
            let measured = steps.iter().filter(|step| step.group == *group).map(|step| step.peak).max();
            let foretold = estimate["peak"].as_u64().unwrap_or(0);
            let said = match measured {
                Some(measured) => format!("{} of {}", Bytes(measured), Bytes(foretold)),
                None => format!("{} foretold", Bytes(foretold)),
            };
            let name = super::names(group);
            Bar { name, whole: foretold as f64, part: measured.unwrap_or(0) as f64, said }
        })
        .collect();
    bars(&rows)
}

/// A number for an axis.
fn plain(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_string(),
        0.01..10_000.0 => {
            let text = format!("{value:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        }
        _ => rate(value),
    }
}

// ------------------------------------------------------------------------------------- the whole run

/// Where the time went, of all calls together.
fn time(record: &Record) -> String {
    let stamp = |event: &Json| {
        humantime::parse_rfc3339(event["time"].as_str()?).ok()?.duration_since(std::time::UNIX_EPOCH).ok()
    };
    // From each start to the last sign of life before the next one.
    let (mut wall, mut begun, mut last) = (0.0, None, None);
    for event in &record.events {
        let Some(at) = stamp(event) else { continue };
        if event["event"] == "start" {
            wall += span(begun, last);
            begun = Some(at);
        }
        last = Some(at);
    }
    wall += span(begun, last);
    let sum =
        |event: &str| -> f64 { record.events_of(event).filter_map(|event| event["seconds"].as_f64()).sum() };
    let train: f64 = record.metrics.iter().map(|step| step.seconds).sum();
    let (evaluate, save) = (sum("evaluate") + sum("samples"), sum("checkpoint"));
    let rest = (wall - train - evaluate - save).max(0.0);
    let parts: Vec<(String, String, f64)> = [
        ("training", "var(--c0)", train),
        ("evaluating", "var(--c1)", evaluate),
        ("checkpoints", "var(--c2)", save),
        ("all else", "var(--soft)", rest),
    ]
    .into_iter()
    .filter(|(.., seconds)| *seconds > 0.0)
    .map(|(name, colour, seconds)| (format!("{name} {}", duration(seconds)), colour.to_string(), seconds))
    .collect();
    let keys: Vec<(String, String)> =
        parts.iter().map(|(name, colour, _)| (name.clone(), colour.clone())).collect();
    figure(&format!("{} in all", duration(wall.max(train))), &legend(&keys), &shares(&parts))
}

fn span(from: Option<std::time::Duration>, to: Option<std::time::Duration>) -> f64 {
    from.zip(to).map_or(0.0, |(from, to)| to.saturating_sub(from).as_secs_f64())
}

fn samples(record: &Record) -> String {
    let samples: String = record
        .events_of("generate")
        .map(|event| {
            let text = |key: &str| escape(event[key].as_str().unwrap_or_default());
            let reference = match &event["reference"] {
                Json::String(reference) => format!(" <i>({})</i>", escape(reference)),
                _ => String::new(),
            };
            format!("<p class=\"sample\"><b>{}</b>{}{reference}</p>", text("prompt"), text("text"))
        })
        .collect();
    let stages = record.stages("train").map(|stage| stage["name"].as_str().unwrap_or_default());
    let of_training: String = stages.map(|stage| while_training(&record.samples(stage))).collect();
    let all = of_training + &samples;
    if all.is_empty() { all } else { section("Samples", &all) }
}

/// Each row that evaluations have answered, with its answers from step to step: the first one and the last ones.
fn while_training(evaluations: &[(u64, &[Json])]) -> String {
    const LAST: usize = 11;
    let left_out = evaluations.len().saturating_sub(LAST + 1);
    let shown = || evaluations.iter().take(1).chain(evaluations.iter().skip(1 + left_out));
    let Some((_, rows)) = evaluations.last() else { return String::new() };
    let row = |(at, row): (usize, &Json)| {
        let text = |value: &Json| escape(value.as_str().unwrap_or_default());
        let answers = shown().filter_map(|(step, texts)| Some((step, texts.get(at)?)));
        let answers = answers.map(|(step, sample)| {
            format!("<tr><td>step {}</td><td>{}</td></tr>", Count(*step), text(&sample["text"]))
        });
        let answers: String = answers.collect();
        let (prompt, reference) = (text(&row["prompt"]), text(&row["reference"]));
        format!("<div class=\"sample\"><b>{prompt}</b> <i>({reference})</i><table>{answers}</table></div>")
    };
    let note = match left_out {
        0 => String::new(),
        n => format!("<p class=\"none\">{} more evaluations are in events.jsonl</p>", Count(n as u64)),
    };
    rows.iter().enumerate().map(row).collect::<String>() + &note
}

/// Events that are not shown elsewhere on the page, the last ones.
fn events(record: &Record) -> String {
    const SHOWN: usize = 40;
    let elsewhere = ["audit", "evaluate", "generate", "memory", "samples"];
    let told = record.events.iter().filter(|event| !elsewhere.iter().any(|known| event["event"] == *known));
    let told: Vec<&Json> = told.collect();
    let rows = told[told.len().saturating_sub(SHOWN)..].iter().map(|event| {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let mut what: Vec<String> = Vec::new();
        for (key, value) in event.as_object().into_iter().flatten() {
            let name = key.replace('_', " ");
            match (key.as_str(), value) {
                ("time" | "event", _) | (_, Json::Null | Json::Bool(false)) => {}
                ("seconds", value) => what.push(duration(value.as_f64().unwrap_or(0.0))),
                ("version", Json::String(version)) => what.push(format!("hift {version}")),
                (_, Json::Bool(true)) => what.push(name),
                (_, Json::String(text)) => what.push(text.clone()),
                (_, Json::Number(n)) if n.is_u64() => {
                    what.push(format!("{name} {}", Count(n.as_u64().unwrap_or(0))));
                }
                (_, Json::Array(list)) => {
                    what.push(list.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(" + "));
                }
                (_, Json::Object(parts)) => {
                    let parts = parts.iter().map(|(name, value)| format!("{name} {value}"));
                    what.push(format!("{name}: {}", parts.collect::<Vec<_>>().join(", ")));
                }
                (_, Json::Number(value)) => what.push(format!("{name} {value}")),
            }
        }
        [moment(&text("time")), text("event").replace('_', " "), what.join(" · ")]
    });
    let rows: String = rows
        .map(|[time, event, what]| {
            let (event, what) = (escape(&event), escape(&what));
            format!("<tr><td class=\"when\">{time}</td><td class=\"when\">{event}</td><td>{what}</td></tr>")
        })
        .collect();
    format!("<div class=\"scroll\"><table>{rows}</table></div>")
}

fn last_of_each_stage<'r>(record: &'r Record, event: &'r str) -> Vec<&'r Json> {
    let mut last: Vec<&Json> = Vec::new();
    for event in record.events_of(event) {
        last.retain(|known| known["stage"] != event["stage"]);
        last.push(event);
    }
    last
}

/// What became of the rows of a stage.
fn audited(found: &Json) -> String {
    let mut rows = vec![("read".to_owned(), format!("{} rows", Count(found["rows"].as_u64().unwrap_or(0))))];
    for (name, part) in [("train", "train"), ("held out", "holdout")] {
        rows.extend(audit::part(&found[part]).map(|text| (name.to_owned(), text)));
    }
    rows.extend(audit::turns(found).map(|text| ("turns".to_owned(), text)));
    rows.extend(audit::fates(found).map(|(n, what)| (what.to_owned(), n.to_string())));
    let warnings = found["warnings"].as_array().into_iter().flatten();
    let warned = warnings.filter_map(|warning| warning["message"].as_str());
    rows.extend(warned.map(|message| ("warning".to_owned(), message.to_owned())));
    let mut text = table(&rows);
    if let Some((sentence, bins)) = audit::lengths(&found["train"]) {
        let bins: Vec<Bar> = bins
            .into_iter()
            .map(|(up_to, n)| Bar {
                name: format!("up to {} tokens", Count(up_to)),
                whole: n as f64,
                part: n as f64,
                said: format!("{} rows", Count(n)),
            })
            .collect();
        let title = format!("Lengths: {}", escape(&sentence));
        text += &format!("<figcaption>{title}</figcaption>{}", bars(&bins));
    }
    text
}

fn table(rows: &[(String, String)]) -> String {
    let rows: String = rows
        .iter()
        .map(|(name, value)| format!("<tr><th>{}</th><td>{}</td></tr>", escape(name), escape(value)))
        .collect();
    format!("<div class=\"scroll\"><table>{rows}</table></div>")
}

fn plan(record: &Record) -> String {
    let Ok(summary) = Summary::read(&record.plan) else { return String::new() };
    let rows = |facts: &[Fact]| -> Vec<(String, String)> {
        let rows = facts.iter().map(|fact| (fact.name.clone(), short(fact.unit, &fact.value)));
        rows.filter(|(_, value)| !value.is_empty()).collect()
    };
    let stages = summary
        .stages
        .iter()
        .map(|stage| folded(&format!("Plan of {} {}", stage.kind, stage.name), &table(&rows(&stage.facts))));
    stages.collect()
}

fn inputs(record: &Record) -> String {
    let rows = record.lock["inputs"].as_array().into_iter().flatten().map(|input| {
        let text = |key: &str| input[key].as_str().unwrap_or_default();
        let bytes = Bytes(input["bytes"].as_u64().unwrap_or(0));
        (text("path").to_owned(), format!("{}, {bytes}, sha256 {}", text("role"), text("sha256")))
    });
    table(&rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_nothing_is_a_page() {
        let page = page(&Record::read("a<b", "", "", "", "", ""));
        assert!(page.starts_with("<!doctype html>") && page.contains("a&lt;b") && !page.contains("a<b"));
    }

    #[test]
    fn many_groups_have_a_row_of_colours_and_three_keys() {
        let groups: Vec<Vec<String>> = (0..33).map(|i| vec![format!("block.{i}")]).collect();
        let colours: std::collections::BTreeSet<String> = (0..33).map(|i| colour(i, 33)).collect();
        assert_eq!(colours.len(), 33);
        let keys = keys(&groups);
        assert!(
            keys.contains("block.0<") && keys.contains("block.16<") && keys.contains("block.32<"),
            "{keys}"
        );
        assert_eq!(keys.matches("<i ").count(), 3);
    }
}
