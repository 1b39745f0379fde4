//! How a run is shown: bars on a terminal, plain lines, JSON lines, or nothing.
//!
//! ```text
//! sft    ━━━━━━━━━━━━━━━─────────  1,819 of 3,000 · 60,226 tokens/s · 6.1 s left
//! cycle  ━━━━━━━━━━━━────────────  455 of 750 · now block.0 · rate 5.54e-4
//! loss   █▇▅▃▂▂▁▁▁▁▁▁▁▁▁▁          0.0079 ↘ · held-out 0.0346
//! memory ━━━━━━━━━━━━━━━━━━━━━━━━  6.43 MiB of 6.44 MiB foretold
//! ```

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value as Json, json};

use crate::estimate::Estimate;
use crate::lang::pipeline::Metric;
use crate::plan::StagePlan;
use crate::report::{self, duration};
use crate::run::generate::Written;
use crate::run::metrics;
use crate::run::{StepReport, Watch};
use crate::units::{Bytes, Count};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Style {
    /// A bar on a terminal, silence elsewhere
    Auto,
    /// A line now and then
    Plain,
    /// A JSON line for everything that happens
    Json,
    /// Nothing
    None,
}

/// How often plain lines come.
const EVERY: Duration = Duration::from_secs(5);

type Scores = Vec<(Metric, f64)>;

/// The bars of a train stage.
struct Bars {
    all: MultiProgress,
    steps: ProgressBar,
    cycle: ProgressBar,
    loss: ProgressBar,
    memory: ProgressBar,
}

impl Bars {
    fn new(stage: &str, steps: Option<u64>, steps_per_cycle: u64, foretold: Bytes) -> Self {
        // At least as wide as the words before the other bars.
        let width = stage.chars().count().max("memory".len());
        let style = |bar: &str| {
            let style = ProgressStyle::with_template(&format!("{{prefix:{width}}} {bar}{{wide_msg}}"));
            style.expect("the template is right").progress_chars("━━─")
        };
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8));
        let bar = |length: Option<u64>, look: &str, prefix: String| {
            let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden());
            all.add(bar.with_style(style(look)).with_prefix(prefix))
        };
        let steps = bar(steps, "{bar:24.cyan}  ", stage.to_string());
        let cycle = bar(Some(steps_per_cycle), "{bar:24.cyan}  ", "cycle".into());
        let loss = bar(None, "", "loss".into());
        let memory = bar(Some(foretold.0), "{bar:24.cyan}  ", "memory".into());
        Self { steps, cycle, loss, memory, all }
    }
}

/// How fast a stage goes, in this call of the program, evaluations and checkpoints included.
#[derive(Debug, Default)]
struct Pace {
    /// When the first step began.
    began: Option<Instant>,
    steps: u64,
    /// Tokens, and the seconds that the steps alone took.
    tokens: u64,
    seconds: f64,
}

impl Pace {
    fn step(&mut self, tokens: u64, seconds: f64) {
        let now = Instant::now();
        let began = now.checked_sub(Duration::try_from_secs_f64(seconds).unwrap_or_default());
        self.began.get_or_insert(began.unwrap_or(now));
        self.steps += 1;
        self.tokens += tokens;
        self.seconds += seconds;
    }

    fn tokens_a_second(&self) -> Count {
        Count((self.tokens as f64 / self.seconds.max(1e-9)) as u64)
    }

    /// What so many further steps will take, in seconds.
    fn left(&self, steps: u64) -> f64 {
        let taken = self.began.map_or(0.0, |began| began.elapsed().as_secs_f64());
        taken / self.steps.max(1) as f64 * steps as f64
    }
}

/// Where the loss goes: its mean over stretches of steps. When there are too many of them, two become one.
#[derive(Debug, Default)]
struct Trend {
    /// Sum and number of steps of each.
    stretches: Vec<(f64, u64)>,
    /// Steps of a whole stretch.
    length: u64,
    smooth: Option<f64>,
}

/// The most stretches; as wide as the bars.
const STRETCHES: usize = 24;

impl Trend {
    fn push(&mut self, loss: f64) {
        self.smooth = Some(self.smooth.map_or(loss, |smooth| 0.9 * smooth + 0.1 * loss));
        self.length = self.length.max(1);
        match self.stretches.last_mut() {
            Some((sum, n)) if *n < self.length => (*sum, *n) = (*sum + loss, *n + 1),
            Some(_) | None => self.stretches.push((loss, 1)),
        }
        if self.stretches.len() > STRETCHES {
            let pairs = self.stretches.chunks(2);
            self.stretches = pairs
                .map(|pair| pair.iter().fold((0.0, 0), |all, own| (all.0 + own.0, all.1 + own.1)))
                .collect();
            self.length *= 2;
        }
    }

    fn means(&self) -> Vec<f64> {
        self.stretches.iter().map(|(sum, n)| sum / *n as f64).collect()
    }

    /// The loss now, smoothed over a few steps.
    fn loss(&self) -> f64 {
        self.smooth.unwrap_or(f64::NAN)
    }

    /// A column for each stretch, as wide as the bars; the highest mean is as high as a line.
    fn columns(&self) -> String {
        let means = self.means();
        let (low, high) = means
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), mean| (low.min(*mean), high.max(*mean)));
        let column = |mean: &f64| {
            let share = if high > low { (mean - low) / (high - low) } else { 0.0 };
            ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'][(share * 7.0).round() as usize]
        };
        let columns: String = means.iter().map(column).collect();
        format!("{columns:STRETCHES$}")
    }

    /// Whether the loss rises or falls: the last quarter of the stretches against the one before it, one part in a
    /// hundred being neither.
    fn arrow(&self) -> &'static str {
        let means = self.means();
        let n = (means.len() / 4).max(1);
        let Some(before) = means.len().checked_sub(2 * n) else { return "→" };
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (then, now) = (mean(&means[before..before + n]), mean(&means[before + n..]));
        match (now - then) / then.abs().max(f64::MIN_POSITIVE) {
            change if change > 0.01 => "↗",
            change if change < -0.01 => "↘",
            _ => "→",
        }
    }
}

/// Shows a run on stderr and collects what the summary on stdout says.
pub struct Progress {
    style: Style,
    /// Whether what is not as it should be is told where nothing else is.
    warns: bool,
    bars: Option<Bars>,
    estimate: Estimate,
    last_line: Option<Instant>,
    pace: Pace,
    trend: Trend,
    /// The last held-out loss of the stage at work.
    held_out: Option<f64>,
    steps_per_cycle: u64,
    peak: Bytes,
    /// The first and the last evaluation of each stage, and what was generated.
    evaluations: Vec<(String, Scores, Scores)>,
    texts: Vec<(String, String)>,
    memory: Vec<(String, Bytes, Bytes)>,
}

impl Progress {
    pub fn new(style: Style, estimate: &Estimate) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let warns = style != Style::None;
        let style = match style {
            Style::Auto if terminal => Style::Auto,
            Style::Auto => Style::None,
            Style::Plain | Style::Json | Style::None => style,
        };
        Self {
            style,
            warns,
            bars: None,
            estimate: estimate.clone(),
            last_line: None,
            pace: Pace::default(),
            trend: Trend::default(),
            held_out: None,
            steps_per_cycle: 1,
            peak: Bytes(0),
            evaluations: Vec::new(),
            texts: Vec::new(),
            memory: Vec::new(),
        }
    }

    /// Whether people are listening.
    pub fn speaks(&self) -> bool {
        match self.style {
            Style::Auto | Style::Plain => true,
            Style::Json | Style::None => false,
        }
    }

    /// Takes the bars away.
    pub fn finish(&mut self) {
        self.close_stage();
        self.clear();
    }

    fn clear(&mut self) {
        if let Some(bars) = self.bars.take() {
            [bars.steps, bars.cycle, bars.loss, bars.memory].iter().for_each(ProgressBar::finish_and_clear);
        }
    }

    /// What the stages gave, for `--json`.
    pub fn results(&self) -> Json {
        let stages = self
            .evaluations
            .iter()
            .map(|(stage, _, last)| json!({ "stage": stage, "metrics": metrics::json(last) }));
        let texts = self.texts.iter().map(|(prompt, text)| json!({ "prompt": prompt, "text": text }));
        json!({ "evaluations": stages.collect::<Vec<_>>(), "texts": texts.collect::<Vec<_>>() })
    }

    /// What the stages gave, for people.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for (stage, predicted, measured) in &self.memory {
            let verdict = match measured.cmp(predicted) {
                Ordering::Equal => "to the byte",
                Ordering::Less => "no batch was as large as the plan allows",
                Ordering::Greater => "more than foretold, which is a mistake in hift: please report it",
            };
            let _ = writeln!(
                text,
                "{stage}: memory peak {measured} ({} B), foretold {predicted} ({} B): {verdict}",
                Count(measured.0),
                Count(predicted.0)
            );
        }
        for (stage, first, last) in &self.evaluations {
            let shown: Vec<String> = last
                .iter()
                .map(|(metric, value)| {
                    let before = first.iter().find(|(known, before)| known == metric && before != value);
                    let before = before.map_or(String::new(), |(_, before)| {
                        format!("{} → ", report::metric(*metric, *before))
                    });
                    format!("{} {before}{}", metric.name(), report::metric(*metric, *value))
                })
                .collect();
            let _ = writeln!(text, "{stage}: held-out {}", shown.join(", "));
        }
        for (prompt, continuation) in &self.texts {
            let _ = writeln!(text, "  {} {}", prompt.trim_end(), continuation.trim());
        }
        text
    }

    fn say(&mut self, text: &str) {
        match self.style {
            // A terminal that has gone away is no reason to stop.
            Style::Auto => {
                let say = || drop(writeln!(std::io::stderr(), "{text}"));
                match &self.bars {
                    Some(bars) => bars.all.suspend(say),
                    None => say(),
                }
            }
            Style::Plain => {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
            Style::Json | Style::None => {}
        }
    }

    fn line(&self, json: &Json) {
        if self.style == Style::Json {
            let _ = writeln!(std::io::stderr(), "{json}");
        }
    }

    fn close_stage(&mut self) {
        if self.peak > Bytes(0)
            && let Some((_, _, measured)) = self.memory.last_mut()
        {
            *measured = self.peak;
        }
        self.memory.retain(|(_, _, measured)| *measured > Bytes(0));
        self.peak = Bytes(0);
    }
}

/// What a row was answered, and what would be right: `385 = → 5 · 8 3 (right: 5 8 3)`. Of each text no more than its
/// share of a line; of a prompt the end, which is what is answered.
fn in_a_line(sample: &Written) -> String {
    const SHARE: usize = 36;
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let begin = |text: &str| {
        let text = words(text);
        match text.char_indices().nth(SHARE) {
            Some((at, _)) => format!("{}…", text[..at].trim_end()),
            None => text,
        }
    };
    let end = |text: &str| {
        let text = words(text);
        match text.char_indices().rev().nth(SHARE - 1) {
            Some((at, _)) if at > 0 => format!("…{}", text[at..].trim_start()),
            Some(_) | None => text,
        }
    };
    let right = match &sample.reference {
        Some(reference) if words(reference) == words(&sample.text) => ", as it should be".to_owned(),
        Some(reference) => format!(" (right: {})", begin(reference)),
        None => String::new(),
    };
    format!("{} → {}{right}", end(&sample.prompt), begin(&sample.text))
}

impl Watch for Progress {
    fn stage(&mut self, stage: &StagePlan, index: usize, n_stages: usize) {
        self.close_stage();
        self.clear();
        self.line(&json!({ "stage": stage.name(), "index": index, "of": n_stages }));
        (self.pace, self.trend, self.held_out, self.last_line) = Default::default();
        let figures = self.estimate.stages[index].clone();
        match stage {
            StagePlan::Train(plan) => {
                self.say(report::plan::brief(plan, &figures).trim_end());
                let steps = figures.groups.iter().map(|group| group.peak).max().unwrap_or_default();
                self.memory.push((plan.name.clone(), steps, Bytes(0)));
                self.steps_per_cycle = plan.steps_per_cycle().max(1);
                if self.style == Style::Auto {
                    self.bars = Some(Bars::new(&plan.name, plan.steps, self.steps_per_cycle, steps));
                }
            }
            StagePlan::Evaluate(_) | StagePlan::Generate(_) | StagePlan::Export(_) => {}
        }
    }

    fn audited(&mut self, audit: &Json) {
        self.say(report::audit::brief(audit).trim_end());
    }

    fn step(&mut self, report: &StepReport<'_>) {
        self.pace.step(report.tokens, report.seconds);
        self.trend.push(report.loss);
        self.peak = self.peak.max(report.memory.peak);
        let foretold = self.memory.last().map_or(Bytes(0), |(_, foretold, _)| *foretold);
        let left = duration(self.pace.left(report.steps - report.step));
        let (loss, arrow, speed) = (self.trend.loss(), self.trend.arrow(), self.pace.tokens_a_second());
        let (group, rate) = (report::names(report.group), report::rate(report.rate));
        match self.style {
            Style::Auto => {
                let Some(bars) = &self.bars else { return };
                let (step, steps) = (Count(report.step), Count(report.steps));
                bars.steps.set_position(report.step);
                bars.steps.set_message(format!("{step} of {steps} · {speed} tokens/s · {left} left"));
                bars.cycle.set_position((report.step - 1) % self.steps_per_cycle + 1);
                let (cycle, cycles) = (Count(report.cycle + 1), Count(report.cycles));
                bars.cycle.set_message(format!("{cycle} of {cycles} · now {group} · rate {rate}"));
                let held_out = self.held_out.map_or(String::new(), |loss| format!(" · held-out {loss:.4}"));
                bars.loss.set_message(format!("{}  {loss:.4} {arrow}{held_out}", self.trend.columns()));
                bars.memory.set_position(self.peak.0);
                bars.memory.set_message(format!("{} of {foretold} foretold", self.peak));
            }
            Style::Plain => {
                let due =
                    self.last_line.is_none_or(|last| last.elapsed() >= EVERY) || report.step == report.steps;
                if due {
                    self.last_line = Some(Instant::now());
                    self.say(&format!(
                        "step {}/{} cycle {}/{} group {group} loss {loss:.4} {arrow} rate {rate} {speed} tokens/s, \
                         {} of {foretold}, {left} left",
                        report.step,
                        report.steps,
                        report.cycle + 1,
                        report.cycles,
                        self.peak,
                    ));
                }
            }
            Style::Json => self.line(&json!({
                "stage": report.stage, "step": report.step, "steps": report.steps, "cycle": report.cycle,
                "group": report.group, "loss": report.loss, "lr": report.rate, "tokens": report.tokens,
                "seconds": report.seconds,
            })),
            Style::None => {}
        }
    }

    fn evaluated(&mut self, stage: &str, step: Option<u64>, metrics: &[(Metric, f64)]) {
        match self.evaluations.iter_mut().find(|(known, ..)| known == stage) {
            Some((_, _, last)) => *last = metrics.to_vec(),
            None => self.evaluations.push((stage.to_string(), metrics.to_vec(), metrics.to_vec())),
        }
        let loss = metrics.iter().find(|(metric, _)| *metric == Metric::Loss);
        self.held_out = loss.map(|(_, loss)| *loss).or(self.held_out);
        let shown: Vec<String> = metrics
            .iter()
            .map(|(metric, value)| format!("{} {}", metric.name(), report::metric(*metric, *value)))
            .collect();
        let at = step.map_or(String::new(), |step| format!(" at step {}", Count(step)));
        self.say(&format!("{stage}: held-out {}{at}", shown.join(", ")));
        self.line(&json!({ "stage": stage, "step": step, "metrics": metrics::json(metrics) }));
    }

    fn generated(&mut self, stage: &str, prompt: &str, text: &str) {
        self.texts.push((prompt.to_string(), text.to_string()));
        self.line(&json!({ "stage": stage, "prompt": prompt, "text": text }));
    }

    fn sampled(&mut self, stage: &str, step: u64, samples: &[Written]) {
        let told: Vec<String> = samples.iter().map(|sample| format!("  {}", in_a_line(sample))).collect();
        self.say(&told.join("\n"));
        self.line(&json!({ "stage": stage, "step": step, "samples": samples }));
    }

    fn note(&mut self, text: &str) {
        self.say(text);
        self.line(&json!({ "note": text }));
    }

    fn warn(&mut self, text: &str) {
        match self.style {
            Style::Auto | Style::Plain => self.say(text),
            Style::Json => self.line(&json!({ "warning": text })),
            Style::None if self.warns => drop(writeln!(std::io::stderr(), "hift: {text}")),
            Style::None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_is_drawn_as_wide_as_the_bars_however_long_it_gets() {
        let check = |losses: &mut dyn Iterator<Item = f64>, columns: &str, arrow: &str| {
            let mut trend = Trend::default();
            losses.for_each(|loss| trend.push(loss));
            assert_eq!((trend.columns().trim_end(), trend.arrow()), (columns, arrow));
            assert_eq!(trend.columns().chars().count(), STRETCHES);
        };
        check(&mut [].into_iter(), "", "→");
        check(&mut [3.0].into_iter(), "▁", "→");
        check(&mut [3.0, 2.0].into_iter(), "█▁", "↘");
        check(&mut [8.0, 1.0, 2.0, 3.0, 4.0].into_iter(), "█▁▂▃▄", "↗");
        check(&mut std::iter::repeat_n(1.5, 25), "▁▁▁▁▁▁▁▁▁▁▁▁▁", "→");
        // Means of 2 and of 128 steps.
        check(&mut (0..32).map(|n| f64::from(n / 4 % 2)), "▁▁██▁▁██▁▁██▁▁██", "→");
        check(&mut (0..3000).map(|n| f64::from(3000 - n)), "██▇▇▇▆▆▆▆▅▅▅▄▄▄▃▃▃▂▂▂▂▁▁", "↘");
    }

    #[test]
    fn time_left_counts_the_steps_of_this_call_only() {
        let mut pace = Pace::default();
        assert_eq!(pace.left(100), 0.0);
        pace.step(64, 2.0);
        let left = pace.left(100);
        assert!((200.0..230.0).contains(&left), "{left}");
        assert_eq!(pace.tokens_a_second().0, 32);
    }
}
