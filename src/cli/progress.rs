//! How a run is shown: a bar on a terminal, plain lines, JSON lines, or nothing.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value as Json, json};

use crate::estimate::Estimate;
use crate::lang::pipeline::Metric;
use crate::plan::StagePlan;
use crate::report;
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

/// Shows a run on stderr and collects what the summary on stdout says.
pub struct Progress {
    style: Style,
    /// Whether what is not as it should be is told where nothing else is.
    warns: bool,
    bar: ProgressBar,
    estimate: Estimate,
    last_line: Option<Instant>,
    /// Of the stage at work: loss smoothed over a few steps, tokens and seconds so far.
    loss: Option<f64>,
    tokens: u64,
    seconds: f64,
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
            bar: ProgressBar::hidden(),
            estimate: estimate.clone(),
            last_line: None,
            loss: None,
            tokens: 0,
            seconds: 0.0,
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

    /// Takes the bar away.
    pub fn finish(&mut self) {
        self.close_stage();
        self.bar.finish_and_clear();
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
                    let before = before
                        .map_or(String::new(), |(_, before)| format!("{} → ", number(*metric, *before)));
                    format!("{} {before}{}", metric.name(), number(*metric, *value))
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
            Style::Auto => self.bar.suspend(|| drop(writeln!(std::io::stderr(), "{text}"))),
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

fn number(metric: Metric, value: f64) -> String {
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

impl Watch for Progress {
    fn stage(&mut self, stage: &StagePlan, index: usize, n_stages: usize) {
        self.close_stage();
        self.bar.finish_and_clear();
        self.line(&json!({ "stage": stage.name(), "index": index, "of": n_stages }));
        (self.loss, self.tokens, self.seconds, self.last_line) = (None, 0, 0.0, None);
        let figures = self.estimate.stages[index].clone();
        match stage {
            StagePlan::Train(plan) => {
                self.say(report::plan::brief(plan, &figures).trim_end());
                let steps = figures.groups.iter().map(|group| group.peak).max().unwrap_or_default();
                self.memory.push((plan.name.clone(), steps, Bytes(0)));
                if self.style == Style::Auto {
                    let template = "{bar:24} {pos}/{len} {msg} · {eta} left";
                    let style = ProgressStyle::with_template(template).expect("the template is right");
                    self.bar =
                        ProgressBar::with_draw_target(plan.steps, ProgressDrawTarget::stderr_with_hz(8));
                    self.bar.set_style(style.progress_chars("━━─"));
                }
            }
            StagePlan::Evaluate(_) | StagePlan::Generate(_) | StagePlan::Export(_) => {
                self.bar = ProgressBar::hidden();
            }
        }
    }

    fn step(&mut self, report: &StepReport<'_>) {
        self.tokens += report.tokens;
        self.seconds += report.seconds;
        self.peak = self.peak.max(report.memory.peak);
        let smooth = self.loss.map_or(report.loss, |loss| 0.9 * loss + 0.1 * report.loss);
        self.loss = Some(smooth);
        let speed = self.tokens as f64 / self.seconds.max(1e-9);
        match self.style {
            Style::Auto => {
                let foretold = self.memory.last().map_or(Bytes(0), |(_, foretold, _)| *foretold);
                self.bar.set_position(report.step);
                self.bar.set_message(format!(
                    "cycle {}/{} · {} · loss {smooth:.4} · rate {} · {} tokens/s · {} of {foretold}",
                    report.cycle + 1,
                    report.cycles,
                    report::names(report.group),
                    report::rate(report.rate),
                    Count(speed as u64),
                    report.memory.peak,
                ));
            }
            Style::Plain => {
                let due =
                    self.last_line.is_none_or(|last| last.elapsed() >= EVERY) || report.step == report.steps;
                if due {
                    self.last_line = Some(Instant::now());
                    let left = self.seconds / report.step.max(1) as f64 * (report.steps - report.step) as f64;
                    self.say(&format!(
                        "step {}/{} cycle {}/{} group {} loss {smooth:.4} rate {} {} tokens/s, {:.0} s left",
                        report.step,
                        report.steps,
                        report.cycle + 1,
                        report.cycles,
                        report::names(report.group),
                        report::rate(report.rate),
                        Count(speed as u64),
                        left,
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
        let shown: Vec<String> = metrics
            .iter()
            .map(|(metric, value)| format!("{} {}", metric.name(), number(*metric, *value)))
            .collect();
        let at = step.map_or(String::new(), |step| format!(" at step {}", Count(step)));
        self.say(&format!("{stage}: held-out {}{at}", shown.join(", ")));
        self.line(&json!({ "stage": stage, "step": step, "metrics": metrics::json(metrics) }));
    }

    fn generated(&mut self, stage: &str, prompt: &str, text: &str) {
        self.texts.push((prompt.to_string(), text.to_string()));
        self.line(&json!({ "stage": stage, "prompt": prompt, "text": text }));
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
