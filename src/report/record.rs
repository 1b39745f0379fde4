//! What a run directory tells of a run: how it stands, its course, what it measured.

use serde_json::{Value as Json, json};

use crate::units::{Bytes, Count};

use super::table::columns;
use super::{duration, metrics, names, rate};

/// The files of a run directory, read.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// What the directory is called.
    pub name: String,
    /// `plan.json`
    pub plan: Json,
    /// `hift.lock`
    pub lock: Json,
    /// `pipeline.hift`
    pub pipeline: String,
    pub metrics: Vec<Step>,
    /// `events.jsonl`
    pub events: Vec<Json>,
    /// The process at work in it.
    pub holder: Option<String>,
}

/// A line of `metrics.jsonl`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    pub stage: String,
    pub step: u64,
    pub cycle: u64,
    pub group: Vec<String>,
    pub rate: f64,
    pub loss: f64,
    pub grad_norm: f64,
    pub tokens: u64,
    pub seconds: f64,
    pub peak: u64,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Running,
    Finished,
    Interrupted,
    Failed,
    /// The process ended without a word.
    Killed,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Finished => "finished",
            State::Interrupted => "interrupted",
            State::Failed => "failed",
            State::Killed => "killed",
        }
    }
}

impl Record {
    /// Reads the texts of a run directory's files; a line that was not written to its end is left out.
    pub fn read(name: &str, plan: &str, lock: &str, pipeline: &str, metrics: &str, events: &str) -> Self {
        let parsed = |text: &str| serde_json::from_str::<Json>(text).unwrap_or_default();
        let lines = |text: &str| text.lines().map(parsed).filter(Json::is_object).collect::<Vec<_>>();
        Self {
            name: name.to_owned(),
            plan: parsed(plan),
            lock: parsed(lock),
            pipeline: pipeline.to_owned(),
            metrics: lines(metrics).iter().map(step).collect(),
            events: lines(events),
            holder: None,
        }
    }

    pub fn state(&self) -> State {
        if self.holder.is_some() {
            return State::Running;
        }
        let last = self.events.last().and_then(|event| event["event"].as_str());
        match last {
            Some("finish") => State::Finished,
            Some("interrupt") => State::Interrupted,
            Some("fail") => State::Failed,
            Some(_) | None => State::Killed,
        }
    }

    /// The stages of the plan of one kind.
    pub fn stages<'r>(&'r self, kind: &'r str) -> impl Iterator<Item = &'r Json> {
        let stages = self.plan["plan"]["stages"].as_array().into_iter().flatten();
        stages.filter(move |stage| stage["kind"] == kind)
    }

    /// What was estimated of a stage.
    pub fn estimate(&self, stage: &str) -> &Json {
        let stages = self.plan["estimate"]["stages"].as_array().map_or(&[][..], Vec::as_slice);
        stages.iter().find(|known| known["name"] == stage).unwrap_or(&Json::Null)
    }

    pub fn steps<'r>(&'r self, stage: &'r str) -> impl Iterator<Item = &'r Step> {
        self.metrics.iter().filter(move |step| step.stage == stage)
    }

    pub fn events_of<'r>(&'r self, event: &'r str) -> impl Iterator<Item = &'r Json> {
        self.events.iter().filter(move |known| known["event"] == event)
    }

    /// Evaluations in the course of a stage: step and value. One that was made again counts once.
    pub fn held_out(&self, stage: &str, metric: &str) -> Vec<(u64, f64)> {
        let mut found: Vec<(u64, f64)> = Vec::new();
        for event in self.events_of("evaluate").filter(|event| event["stage"] == stage) {
            if let (Some(step), Some(value)) = (event["step"].as_u64(), event["metrics"][metric].as_f64()) {
                found.retain(|(known, _)| *known < step);
                found.push((step, value));
            }
        }
        found
    }

    /// The held-out rows that evaluations of a stage have answered: step and texts. One that was made again counts once.
    pub fn samples(&self, stage: &str) -> Vec<(u64, &[Json])> {
        let mut found: Vec<(u64, &[Json])> = Vec::new();
        for event in self.events_of("samples").filter(|event| event["stage"] == stage) {
            if let (Some(step), Some(texts)) = (event["step"].as_u64(), event["samples"].as_array()) {
                found.retain(|(known, _)| *known < step);
                found.push((step, texts));
            }
        }
        found
    }

    /// The last metrics that an evaluation of a stage gave.
    pub fn last_metrics(&self, stage: &str) -> Option<&Json> {
        let of_stage = self.events_of("evaluate").filter(|event| event["stage"] == stage);
        of_stage.last().map(|event| &event["metrics"])
    }

    /// The most that the process had of the device in a stage, and what was foretold, in bytes. Each call that worked on
    /// the stage has said so when it ended or was interrupted.
    pub fn process(&self, stage: &str) -> Option<(u64, Option<u64>)> {
        let told = self.events_of("memory").filter(|event| event["stage"] == stage);
        let most = told.filter_map(|event| event["process"].as_u64()).max()?;
        Some((most, self.estimate(stage)["beside"]["process"].as_u64()))
    }

    /// How the run stands, for machines.
    pub fn status(&self) -> Json {
        let stages = self.stages("train").map(|plan| {
            let name = plan["name"].as_str().unwrap_or_default();
            let last = self.steps(name).last();
            let (made, of) = (last.map_or(0, |step| step.step), plan["steps"].as_u64());
            let speed = self.speed(name);
            let left = of.and_then(|of| Some((of - made.min(of)) as f64 * self.seconds_a_step(name)?));
            json!({
                "stage": name, "step": made, "steps": of, "cycle": last.map(|step| step.cycle),
                "group": last.map(|step| &step.group), "loss": smoothed(self.steps(name)),
                "lr": last.map(|step| step.rate), "tokens_per_second": speed, "seconds_left": left,
                "held_out": self.last_metrics(name),
                "peak_bytes": self.steps(name).map(|step| step.peak).max(),
                "foretold_peak_bytes": foretold(self.estimate(name)),
                "process_bytes": self.process(name).map(|(most, _)| most),
                "foretold_process_bytes": self.estimate(name)["beside"]["process"].as_u64(),
            })
        });
        let last = self.events.last().map(|event| &event["time"]);
        let checkpoint = self.events_of("checkpoint").last().map(|event| &event["path"]);
        let message = self.events_of("fail").last().map(|event| &event["message"]);
        json!({
            "run": self.name, "state": self.state().word(), "process": self.holder, "last_event": last,
            "checkpoint": checkpoint, "message": message.filter(|_| self.state() == State::Failed),
            "stages": stages.collect::<Vec<_>>(),
        })
    }

    /// Tokens a second over the last steps.
    fn speed(&self, stage: &str) -> Option<f64> {
        let last: Vec<&Step> = self.steps(stage).collect();
        let last = &last[last.len().saturating_sub(RECENT)..];
        let seconds: f64 = last.iter().map(|step| step.seconds).sum();
        (seconds > 0.0).then(|| last.iter().map(|step| step.tokens).sum::<u64>() as f64 / seconds)
    }

    fn seconds_a_step(&self, stage: &str) -> Option<f64> {
        let last: Vec<f64> = self.steps(stage).map(|step| step.seconds).collect();
        let last = &last[last.len().saturating_sub(RECENT)..];
        (!last.is_empty()).then(|| last.iter().sum::<f64>() / last.len() as f64)
    }
}

/// Steps that a speed is taken over.
const RECENT: usize = 200;

fn step(line: &Json) -> Step {
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| line[key].as_f64().unwrap_or(f64::NAN);
    let count = |key: &str| line[key].as_u64().unwrap_or_default();
    let group = line["group"].as_array().into_iter().flatten().filter_map(Json::as_str);
    Step {
        stage: text("stage"),
        step: count("step"),
        cycle: count("cycle"),
        group: group.map(str::to_owned).collect(),
        rate: number("lr"),
        loss: number("loss"),
        grad_norm: number("grad_norm"),
        tokens: count("tokens"),
        seconds: number("seconds"),
        peak: count("device_peak_bytes"),
    }
}

/// The loss over the last steps, smoothed as the progress display does.
pub fn smoothed<'s>(steps: impl Iterator<Item = &'s Step>) -> Option<f64> {
    steps.fold(None, |loss: Option<f64>, step| {
        Some(loss.map_or(step.loss, |loss| 0.9 * loss + 0.1 * step.loss))
    })
}

/// The highest peak of a train stage's steps.
pub fn foretold(estimate: &Json) -> Option<u64> {
    estimate["groups"].as_array()?.iter().filter_map(|group| group["peak"].as_u64()).max()
}

/// The time of an event, for people: `2026-01-02 03:04:05`.
pub fn moment(time: &str) -> String {
    time.replace('T', " ").chars().take(19).collect()
}

/// How a run stands, for people.
pub fn status(record: &Record) -> String {
    let json = record.status();
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    for stage in json["stages"].as_array().into_iter().flatten() {
        let number = |key: &str| stage[key].as_f64();
        let count = |key: &str| stage[key].as_u64();
        let of = count("steps").map_or(String::new(), |of| format!("/{}", Count(of)));
        let mut line = format!("step {}{of}", Count(count("step").unwrap_or(0)));
        if let Some(cycle) = count("cycle") {
            line += &format!(", cycle {}", cycle + 1);
        }
        if let Some(group) = stage["group"].as_array() {
            let group: Vec<String> = group.iter().filter_map(Json::as_str).map(str::to_owned).collect();
            line += &format!(", group {}", names(&group));
        }
        if let Some(lr) = number("lr") {
            line += &format!(", rate {}", rate(lr));
        }
        row(stage["stage"].as_str().unwrap_or_default(), line);
        if let Some(loss) = number("loss") {
            row("loss", format!("{loss:.4}"));
        }
        let metrics = metrics(&stage["held_out"]);
        if !metrics.is_empty() {
            let shown = metrics.iter().map(|(name, value)| format!("{name} {value}"));
            row("held-out", shown.collect::<Vec<_>>().join(", "));
        }
        if let Some(speed) = number("tokens_per_second") {
            row("speed", format!("{} tokens/s", Count(speed as u64)));
        }
        if let Some(left) = number("seconds_left").filter(|left| *left > 0.0) {
            row("left", duration(left));
        }
        if let (Some(peak), Some(foretold)) = (count("peak_bytes"), count("foretold_peak_bytes")) {
            row("memory", format!("peak {}, foretold {}", Bytes(peak), Bytes(foretold)));
        }
        if let (Some(process), Some(foretold)) = (count("process_bytes"), count("foretold_process_bytes")) {
            row("", format!("the process {}, foretold {}", Bytes(process), Bytes(foretold)));
        }
    }
    let text = |key: &str| json[key].as_str().map(str::to_owned);
    if let Some(path) = text("checkpoint") {
        row("checkpoint", path);
    }
    if let Some(time) = text("last_event") {
        row("last heard of", format!("{} UTC", moment(&time)));
    }
    if let Some(message) = text("message") {
        row("failed", message);
    }
    let who = record.holder.as_ref().map_or(String::new(), |holder| format!(" ({holder})"));
    format!("{}: {}{who}\n{}", record.name, record.state().word(), columns(&rows, &[]))
}

/// A line for each run.
pub fn list(records: &[Record]) -> String {
    let mut rows = vec![
        ["run", "state", "stage", "step", "loss", "held-out", "last heard of (UTC)"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for record in records {
        let json = record.status();
        let stages = json["stages"].as_array().cloned().unwrap_or_default();
        let at = stages.iter().rfind(|stage| stage["step"].as_u64().unwrap_or(0) > 0).or(stages.first());
        let at = at.cloned().unwrap_or_default();
        let number = |value: &Json| value.as_f64().map_or(String::new(), |value| format!("{value:.4}"));
        let of = at["steps"].as_u64().map_or(String::new(), |of| format!("/{}", Count(of)));
        rows.push(vec![
            record.name.clone(),
            record.state().word().to_owned(),
            at["stage"].as_str().unwrap_or_default().to_owned(),
            format!("{}{of}", Count(at["step"].as_u64().unwrap_or(0))),
            number(&at["loss"]),
            number(&at["held_out"]["loss"]),
            moment(json["last_event"].as_str().unwrap_or_default()),
        ]);
    }
    columns(&rows, &[3, 4, 5])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn record(events: &str) -> Record {
        let plan = json!({
            "plan": { "stages": [{ "kind": "train", "name": "sft", "steps": 8 }] },
            "estimate": { "stages": [{ "name": "sft", "groups": [{ "peak": 2048 }, { "peak": 1024 }] }] },
        });
        let line = |step: u64, loss: f64| {
            let (group, tokens) = (["head"], 10);
            json!({ "stage": "sft", "step": step, "cycle": 0, "group": group, "lr": 1e-3, "loss": loss,
                "grad_norm": 1.0, "tokens": tokens, "seconds": 0.5, "device_peak_bytes": 2048 })
        };
        let metrics = format!("{}\n{}\n{{\"stage\":\"s", line(1, 4.0), line(2, 3.0));
        Record::read("runs/p", &plan.to_string(), "{}", "hift 1\n", &metrics, events)
    }

    #[test]
    fn a_status_says_how_far_how_well_and_how_long() {
        let evaluate = r#"{"time":"2026-01-02T03:04:05.000Z","event":"evaluate","stage":"sft","step":2,"metrics":{"loss":3.5}}"#;
        expect![[r#"
            runs/p: killed
              sft            step 2/8, cycle 1, group head, rate 1e-3
              loss           3.9000
              held-out       loss 3.5000
              speed          20 tokens/s
              left           3.0 s
              memory         peak 2.00 KiB, foretold 2.00 KiB
              last heard of  2026-01-02 03:04:05 UTC
        "#]]
        .assert_eq(&status(&record(evaluate)));
        assert_eq!(
            list(&[record(evaluate)]),
            "  run    state  stage step   loss held-out  last heard of (UTC)\n  \
             runs/p killed sft    2/8 3.9000   3.5000  2026-01-02 03:04:05\n"
        );
    }

    #[test]
    fn the_last_event_tells_how_a_run_stands() {
        let check = |event: &str, state: State| {
            let record = record(&format!("{{\"event\":\"start\"}}\n{{\"event\":\"{event}\"}}\n"));
            assert_eq!(record.state(), state);
            assert_eq!(Record { holder: Some("process 1".into()), ..record }.state(), State::Running);
        };
        check("finish", State::Finished);
        check("interrupt", State::Interrupted);
        check("fail", State::Failed);
        check("checkpoint", State::Killed);
    }

    #[test]
    fn times_are_said_in_two_units() {
        let check = |seconds: f64, text: &str| assert_eq!(duration(seconds), text);
        check(0.25, "0.2 s");
        check(59.0, "59 s");
        check(61.0, "1 min 01 s");
        check(11_520.0, "3 h 12 min");
    }
}
