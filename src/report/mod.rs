//! What people look at: plans, estimates and models as text. JSON for machines is the nouns themselves.
//!
//! Reading order: [`plan`] (a plan with its estimate), [`facts`] and [`diff`] (what differs between two),
//! [`paper`] (the paper's table), [`model`] (the layers of a model), [`lock`] (what became of a lock file), [`rows`]
//! (rows as the model will see them), [`audit`] (what became of all of them), [`mod@manual`] (the manual of the language), [`mod@starter`] (a file to begin with),
//! [`record`] (what a run directory tells), [`page`] (that as a page, with
//! [`chart`]s), [`table`] (columns).
//!
//! This room must not decide anything, and reads no file.

pub mod audit;
pub mod chart;
pub mod diff;
pub mod facts;
pub mod lock;
pub mod manual;
pub mod model;
pub mod page;
pub mod paper;
pub mod plan;
pub mod problems;
pub mod record;
#[cfg(feature = "run")]
pub mod rows;
pub mod starter;
pub mod table;

use serde_json::Value as Json;

use crate::lang::pipeline::Metric;

/// A learning rate, short: `2e-5`, `1.25e-3`.
pub fn rate(rate: f64) -> String {
    if rate == 0.0 {
        return "0".to_string();
    }
    let text = format!("{rate:.2e}");
    let (digits, exponent) = text.split_once('e').expect("the format has an exponent");
    format!("{}e{exponent}", digits.trim_end_matches('0').trim_end_matches('.'))
}

/// A large count of operations: `1.50 TFLOP`.
pub fn flops(flops: f64) -> String {
    let units = ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"];
    let mut value = flops;
    let mut unit = 0;
    while value >= 999.995 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.2} {}", units[unit])
}

/// `3 h 12 min`, `4.2 s`
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A metric as people read it: `0.0074`, `99.86 %`.
pub fn metric(metric: Metric, value: f64) -> String {
    match metric {
        Metric::Loss => format!("{value:.4}"),
        Metric::Perplexity => format!("{value:.3}"),
        Metric::Matthews | Metric::Pearson | Metric::Spearman => format!("{value:.3}"),
        Metric::Bleu | Metric::Nist => format!("{value:.2}"),
        Metric::Accuracy
        | Metric::F1
        | Metric::MacroF1
        | Metric::ExactMatch
        | Metric::EntityF1
        | Metric::EntityPrecision
        | Metric::EntityRecall
        | Metric::Rouge1
        | Metric::Rouge2
        | Metric::RougeL => format!("{:.2} %", 100.0 * value),
    }
}

/// The metrics that an event or a status holds, by name, as people read them.
pub fn metrics(found: &Json) -> Vec<(&str, String)> {
    let all = found.as_object().into_iter().flatten();
    let text = |(name, value): (&'_ String, &'_ Json)| {
        let value = value.as_f64().unwrap_or(f64::NAN);
        Metric::named(name).map_or_else(|| format!("{value:.4}"), |known| metric(known, value))
    };
    all.map(|(name, value)| (name.as_str(), text((name, value)))).collect()
}

/// The ends of a list of names: `embedding`, `block.0 + block.1`, `embedding ... head (10 layers)`.
pub fn names(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [first, .., last] if names.len() > 4 => format!("{first} ... {last} ({} layers)", names.len()),
        _ => names.join(" + "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_short() {
        let check = |x: f64, text: &str| assert_eq!(rate(x), text);
        check(2e-5, "2e-5");
        check(0.00125, "1.25e-3");
        check(0.0, "0");
        check(1.0, "1e0");
    }

    #[test]
    fn metrics_are_said_as_their_kind_is_read() {
        let found = serde_json::json!({ "loss": 0.00741, "accuracy": 0.99861, "of_later": 2.0 });
        let said: Vec<String> =
            metrics(&found).into_iter().map(|(name, value)| format!("{name} {value}")).collect();
        assert_eq!(said, ["loss 0.0074", "accuracy 99.86 %", "of_later 2.0000"]);
    }

    #[test]
    fn work_has_a_unit() {
        let check = |x: f64, text: &str| assert_eq!(flops(x), text);
        check(12.0, "12.00 FLOP");
        check(1.5e12, "1.50 TFLOP");
    }
}
