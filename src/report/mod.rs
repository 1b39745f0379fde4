//! What people look at: plans, estimates and models as text. JSON for machines is the nouns themselves.
//!
//! Reading order: [`plan`] (a plan with its estimate), [`facts`] and [`diff`] (what differs between two),
//! [`paper`] (the paper's table), [`model`] (the layers of a model), [`lock`] (what became of a lock file), [`rows`]
//! (rows as the model will see them), [`mod@manual`] (the manual of the language), [`mod@starter`] (a file to begin with),
//! [`record`] (what a run directory tells), [`page`] (that as a page, with
//! [`chart`]s), [`table`] (columns).
//!
//! This room must not decide anything, and reads no file.

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
    fn work_has_a_unit() {
        let check = |x: f64, text: &str| assert_eq!(flops(x), text);
        check(12.0, "12.00 FLOP");
        check(1.5e12, "1.50 TFLOP");
    }
}
