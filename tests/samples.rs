//! Held-out rows that are answered while training evaluates: which, what is told of them, and that they change nothing.

mod common;

use std::fs;
use std::path::Path;

use hift::run::Ending;
use serde_json::{Value as Json, json};

use common::case::Case;
use common::families::FAMILIES;
use common::{Seen, run};

const ROWS: usize = 14;

/// A folder with a small model and rows to learn, the last four of which are held out; and a pipeline over them.
fn case(model: &str, schedule: &str, train: &str, evaluate: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), FAMILIES[0].1).unwrap();
    fs::write(folder.path().join("tokenizer.json"), common::word_tokenizer(40)).unwrap();
    let row = |i: usize| json!({ "ask": format!("w{} w{}", 5 + i, 20 + i), "say": format!("w{} w9", 6 + i) });
    let rows: String = (0..ROWS).map(|i| row(i).to_string() + "\n").collect();
    fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    let text = format!(
        r#"hift 1
data rows {{
    source = json("rows.jsonl") format = instruct(prompt = "{{ask}}", response = " {{say}}")
    holdout = 4 rows shuffle = none
}}
tokenizer words {{ file = "tokenizer.json" }}
model tiny {{ weights = random("config.json", seed = 1) {model} }}
groups g {{ split = by_layer(1) }}
schedule s {{ rate = constant(1e-2) {schedule} }}
optimizer adamw {{ }}
train t {{
    data = rows tokenizer = words model = tiny groups = g schedule = s optimizer = adamw
    steps = 9 micro_batch = 2 {train}
    evaluate {{ every = 4 steps {evaluate} }}
    checkpoint {{ every = 3 steps keep = 9 }}
}}
generate after {{ from = t data = rows rows = 3 max_new_tokens = 5 tokens to = "texts.jsonl" }}
export final {{ from = t to = "final" }}
"#
    );
    (folder, text)
}

const ASKED: &str = "samples = 3 max_new_tokens = 5 tokens";

fn finished(folder: &Path, text: &str) -> Seen {
    let (seen, _, ending) = run(folder, text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    assert!(matches!(ending, Ending::Finished { .. }));
    seen
}

fn lines(path: &Path) -> Vec<Json> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_first_rows_held_out_are_answered_at_each_evaluation_as_a_generate_stage_answers_them() {
    let (folder, text) = case("", "", "", ASKED);
    let seen = finished(folder.path(), &text);
    let steps: Vec<u64> = seen.samples.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [0, 4, 8, 9]);
    for (step, samples) in &seen.samples {
        let prompts: Vec<&str> = samples.iter().map(|sample| sample.prompt.as_str()).collect();
        assert_eq!(prompts, ["w15 w30", "w16 w31", "w17 w32"], "at step {step}");
        let right: Vec<&str> = samples.iter().filter_map(|sample| sample.reference.as_deref()).collect();
        assert_eq!(right, ["w16 w9", "w17 w9", "w18 w9"], "at step {step}");
        assert!(samples.iter().all(|sample| sample.tokens <= 5));
    }
    let (first, last) = (&seen.samples[0].1, &seen.samples[3].1);
    assert_ne!(first, last, "training has changed what is answered");
    let texts = lines(&folder.path().join("texts.jsonl"));
    assert_eq!(json!(last), json!(texts), "the last samples are what the weights of the end write");
    // The events say the same.
    let events = lines(&folder.path().join("run/events.jsonl"));
    let told: Vec<&Json> = events.iter().filter(|event| event["event"] == "samples").collect();
    assert_eq!(told.len(), 4);
    assert_eq!((&told[3]["step"], &told[3]["samples"]), (&json!(9), &json!(last)));
}

#[test]
fn samples_change_neither_losses_nor_metrics_nor_weights() {
    for (model, schedule, train) in [
        ("", "order = random(seed = 3)", "clip = 1.0"),
        ("precision = bf16", "states = discard", ""),
        ("precision = mixed_hi(fp16)", "order = importance", "accumulate = 2"),
    ] {
        let (with, text) = case(model, schedule, train, ASKED);
        let seen = finished(with.path(), &text);
        let (without, text) = case(model, schedule, train, "");
        let expected = finished(without.path(), &text);
        assert_eq!((seen.losses, seen.grad_norms), (expected.losses, expected.grad_norms), "{model}");
        assert_eq!(seen.evaluations, expected.evaluations, "{model}");
        let weights = |folder: &Path| fs::read(folder.join("final/model.safetensors")).unwrap();
        assert!(weights(with.path()) == weights(without.path()), "{model}");
    }
}

#[test]
fn what_is_taken_up_writes_the_same_samples() {
    let (folder, text) = case("precision = mixed(bf16)", "", "", ASKED);
    let whole = finished(folder.path(), &text);
    let path = |path: &str| folder.path().join(path);
    let weights = fs::read(path("final/model.safetensors")).unwrap();
    for step in [6, 9] {
        fs::remove_dir_all(path(&format!("run/checkpoints/t-{step}"))).unwrap();
    }
    let events = fs::read_to_string(path("run/events.jsonl")).unwrap();
    let unfinished: String =
        events.lines().filter(|line| !line.contains("\"finish\"")).map(|line| format!("{line}\n")).collect();
    fs::write(path("run/events.jsonl"), unfinished).unwrap();
    let again = finished(folder.path(), &text);
    assert_eq!(again.losses[..], whole.losses[3..]);
    assert_eq!(again.samples, whole.samples[1..]);
    assert!(fs::read(path("final/model.safetensors")).unwrap() == weights);
}

#[test]
fn what_cannot_be_answered_is_refused_where_it_is_asked() {
    let check = |changes: &[(&str, &str)], expected: &str, words: &[&str]| {
        let (folder, text) = case("", "", "", ASKED);
        // Without what would be refused for the same reason.
        let mut text = without("generate", &text);
        for (from, to) in changes {
            assert_eq!(text.matches(from).count(), 1, "{from}");
            text = text.replace(from, to);
        }
        let problems = run(folder.path(), &text).expect_err("refused");
        let problem = &problems.0[0];
        assert_eq!(problem.code, expected, "{problems}");
        let labels = problem.labels.iter().map(|label| label.text.as_str());
        let said: Vec<&str> = [problem.message.as_str(), problem.help.as_deref().unwrap_or_default()]
            .into_iter()
            .chain(labels)
            .collect();
        for words in words {
            assert!(said.iter().any(|said| said.contains(words)), "no `{words}` in {said:?}");
        }
    };
    let format = r#"instruct(prompt = "{ask}", response = " {say}")"#;
    let file = r#"file = "tokenizer.json""#;
    let why = "asks for answers to them";
    check(&[(format, r#"text("ask")"#)], "hift::plan::no_response", &["remove `samples`", why]);
    let whole = format!("{file} loss_on = all");
    check(&[(file, &whole)], "hift::plan::no_response", &["write `loss_on = response`", why]);
    check(
        &[(r#"prompt = "{ask}""#, r#"prompt = """#)],
        "hift::data::no_response",
        &["give the rows a prompt"],
    );
    let split = format!("{file} max_length = 4 tokens too_long = split");
    check(&[(file, &split)], "hift::data::no_response", &["write `too_long = drop`", "splits them"]);
    // Models that write no text.
    let classify = r#"classify(text = "{ask}", label = "say")"#;
    let classes = r#"task = sequence_classification(labels = ["a", "b"]) weights = random("#;
    let words = r#"token_labels(tokens = "ask", labels = "say")"#;
    let tags = r#"task = token_classification(labels = ["O", "B-X"]) weights = random("#;
    for (other, task) in [(classify, classes), (words, tags)] {
        let changes = [(format, other), ("weights = random(", task)];
        check(&changes, "hift::plan::task", &["writes samples, which this model cannot", "remove `samples`"]);
    }
}

/// The pipeline without a stage that stands on one line.
fn without(stage: &str, text: &str) -> String {
    text.lines().filter(|line| !line.starts_with(stage)).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_run_that_is_interrupted_while_it_samples_tells_of_each_evaluation_once() {
    let (folder, text) = case("", "", "", "samples = 4 max_new_tokens = 600 tokens");
    // Many positions, so that answers without an end are long.
    let config =
        FAMILIES[0].1.replace("\"max_position_embeddings\": 64", "\"max_position_embeddings\": 4096");
    assert_ne!(config, FAMILIES[0].1);
    let case = Case { folder };
    case.put("config.json", config);
    let text = text.replace("file = \"tokenizer.json\"", "file = \"tokenizer.json\" end = none");
    case.put("p.hift", without("generate", &text));
    case.run("run p.hift --dir whole").works();
    let weights = case.weights("final");
    let running = case.start("run p.hift --dir again", &["\"step\":4,\"steps\""]);
    running.signal("TERM");
    running.end().fails(75, &[]);
    let position = case.json("again/checkpoints/t-4/position.json");
    assert_eq!(position["owes_evaluation"], true, "it was cut short: {position}");
    case.run("run p.hift --dir again").works();
    let told = |run: &str| {
        let events = case.lines(&format!("{run}/events.jsonl")).into_iter();
        let samples = events.filter(|event| event["event"] == "samples");
        samples.map(|event| (event["step"].clone(), event["samples"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(told("again"), told("whole"));
    assert_eq!(case.evaluations("again"), case.evaluations("whole"));
    assert!(case.weights("final") == weights);
}

#[test]
fn people_see_samples_as_lines_and_in_the_report() {
    let (folder, text) = case("", "", "", "samples = 2 max_new_tokens = 5 tokens");
    let case = Case { folder };
    case.put("p.hift", text);
    let plan = case.run("plan p.hift");
    assert!(
        plan.works().out.contains("2 held-out rows answered at each evaluation, up to 5 new tokens each")
    );
    assert!(plan.out.contains(" · sample "), "{}", plan.out);
    let said = case.run("run p.hift --progress plain");
    let lines: Vec<&str> = said.works().err.lines().filter(|line| line.contains("w15 w30 → ")).collect();
    assert_eq!(lines.len(), 4, "{}", said.err);
    assert!(lines[0].ends_with(" (right: w16 w9)"), "{}", lines[0]);
    case.run("report runs/p").works();
    let page = fs::read_to_string(case.path("runs/p/report.html")).unwrap();
    let at = page.find("<div class=\"sample\"><b>w15 w30</b> <i>(w16 w9)</i><table><tr><td>step 0</td><td>");
    let end = page[at.expect("a sample")..].find("</table>").unwrap();
    let rows = &page[at.unwrap()..][..end];
    for step in ["step 4", "step 8", "step 9"] {
        assert!(rows.contains(&format!("<tr><td>{step}</td><td>")), "{rows}");
    }
}
