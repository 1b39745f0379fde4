//! What changes from one version of a pipeline to the next: `hift diff`, `hift lock`, `hift run --locked`.
//!
//! The binary from outside, in a folder with a tiny model, rows and a pipeline that works; each case changes one
//! thing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hift::report::diff::diff;
use hift::report::facts::Summary;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

const HIFT: &str = env!("CARGO_BIN_EXE_hift");

const PIPELINE: &str = r#"hift 1
param steps = 8
data words { source = text("words.txt") format = text holdout = 2 rows }
tokenizer plain { file = "tokenizer.json" max_length = 16 tokens }
model tiny { weights = "model" }
groups layers { split = by_layer(1) }
schedule turns { rate = cosine(peak = 1e-2) }
optimizer adamw {}
train sft {
    data = words tokenizer = plain model = tiny groups = layers schedule = turns optimizer = adamw
    steps = steps micro_batch = 2 clip = 1.0
    evaluate { every = 4 steps }
    checkpoint { every = 4 steps keep = 1 }
}
evaluate held { from = sft data = words metrics = [loss, accuracy] }
generate talk { from = sft prompts = ["one two"] max_new_tokens = 3 tokens }
export final { from = sft to = "out" dtype = bf16 }
"#;

struct Case(TempDir);

/// How a command ended, and what it said.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Case {
    fn new() -> Self {
        let case = Self(tempfile::tempdir().unwrap());
        case.put("p.hift", PIPELINE);
        let lines = ["one two three four\n", "two three four one\n", "three one\n", "four one two\n"];
        case.put("words.txt", lines.repeat(3).concat());
        let words = ["<unk>", "<s>", "</s>", "one", "two", "three", "four"];
        let vocab: serde_json::Map<String, Json> =
            words.iter().enumerate().map(|(id, word)| (word.to_string(), json!(id))).collect();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "decoder": null,
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" },
        });
        case.put("tokenizer.json", tokenizer.to_string());
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models/llama-tiny");
        for entry in fs::read_dir(model).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            case.put(&format!("model/{name}"), fs::read(&path).unwrap());
        }
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The pipeline with changes, each of a text that must stand there once, under another name.
    fn with(&self, name: &str, changes: &[(&str, &str)]) {
        let mut text = self.text("p.hift");
        for (from, to) in changes {
            assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
            text = text.replace(from, to);
        }
        self.put(name, text);
    }

    fn command(&self, program: &str, arguments: &str) -> Said {
        let mut command = Command::new(program);
        command.args(arguments.split_whitespace()).current_dir(self.0.path()).stdin(Stdio::null());
        // Scratch depends on the threads; git on who one is.
        command
            .env("RAYON_NUM_THREADS", "2")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("NO_COLOR", "1")
            .env("HIFT_CACHE", "");
        // Set inside a hook, they would lead to another repository.
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            command.env_remove(name);
        }
        let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let said = Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
        assert!(!said.err.contains("panicked"), "{arguments}\n{}", said.err);
        said
    }

    #[track_caller]
    fn hift(&self, arguments: &str) -> String {
        let said = self.command(HIFT, arguments);
        assert_eq!(said.code, Some(0), "{arguments}\n{}{}", said.out, said.err);
        assert_eq!(said.err, "", "{arguments}");
        said.out
    }

    /// Ends with this code and says all of this to people.
    #[track_caller]
    fn fails(&self, arguments: &str, code: i32, texts: &[&str]) {
        let said = self.command(HIFT, arguments);
        assert_eq!(said.code, Some(code), "{arguments}\n{}{}", said.out, said.err);
        let err: Vec<&str> = said.err.split_whitespace().filter(|word| *word != "│").collect();
        let err = err.join(" ");
        for text in texts {
            assert!(err.contains(text), "{arguments}: no `{text}` in\n{}", said.err);
        }
    }

    /// The lines of a difference, white space made one.
    #[track_caller]
    fn lines(&self, arguments: &str) -> Vec<String> {
        let out = self.hift(arguments);
        out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }
}

// ------------------------------------------------------------------------------------- hift diff

const SAME: &str = "no difference in what the plan does\n";

#[test]
fn other_words_for_the_same_plan_make_no_difference() {
    let case = Case::new();
    let check = |changes: &[(&str, &str)]| {
        case.with("q.hift", changes);
        assert_eq!(case.hift("diff p.hift q.hift --exit-code"), SAME, "{changes:?}");
    };
    check(&[]);
    check(&[("hift 1\n", "hift 1  # The first version.\n\n")]);
    check(&[
        ("data words {", "data lines {"),
        ("data = words tokenizer", "data = lines tokenizer"),
        ("data = words metrics", "data = lines metrics"),
    ]);
    check(&[("steps = steps", "steps = n"), ("param steps", "param n")]);
    // Defaults, written.
    check(&[("optimizer adamw {}", "optimizer adamw { betas = [0.9, 0.999] eps = 1e-8 }")]);
    check(&[("cosine(peak = 1e-2)", "cosine(peak = 1e-2, end = 0)")]);
}

#[test]
fn what_the_plan_does_otherwise_is_told() {
    let case = Case::new();
    let check = |changes: &[(&str, &str)], expected: &[&str]| {
        case.with("q.hift", changes);
        let lines = case.lines("diff p.hift q.hift");
        for line in expected {
            assert!(lines.iter().any(|said| said == line), "{changes:?}: no `{line}` in {lines:#?}");
        }
    };
    // The model has 6 layers, so that 8 steps begin a second cycle and 13 a third. The longest row has 4 tokens. A
    // cosine is at a half after one of two cycles, and at a quarter after two of three.
    check(
        &[("steps = 8", "steps = 13")],
        &[
            "train sft",
            "steps 8 → 13 +62.5 %",
            "cycles 2 → 3 +50.0 %",
            "tokens in all, at most 64 → 104 +62.5 %",
            "rate at the end 5e-3 → 2.5e-3 −50.0 %",
        ],
    );
    check(
        &[("micro_batch = 2", "micro_batch = 1 accumulate = 3")],
        &[
            "sequences a pass 2 → 1 −50.0 %",
            "passes a step 1 → 3 +200.0 %",
            "tokens a step, at most 8 → 12 +50.0 %",
            "tokens in all, at most 64 → 96 +50.0 %",
        ],
    );
    check(
        &[("by_layer(1)", "by_layer(2)")],
        &["turns a cycle 6 → 3 −50.0 %", "cycles 2 → 3 +50.0 %", "groups"],
    );
    check(
        &[("cosine(peak = 1e-2)", "cosine(peak = 1e-2) order = top_down")],
        &["embedding, block.0 ... head (6)", "→ head, block.3 ... embedding (6)"],
    );
    check(
        &[("peak = 1e-2", "peak = 5e-3")],
        &["rate, peak 1e-2 → 5e-3 −50.0 %", "rate at the start 1e-2 → 5e-3 −50.0 %"],
    );
    check(&[("adamw {}", "sgd {}"), ("optimizer = adamw", "optimizer = sgd")], &["optimizer", "→ sgd"]);
    check(&[(" clip = 1.0", "")], &["clipped at norm 1 → -"]);
    check(&[("keep = 1", "keep = 3")], &["checkpoints kept 1 → 3 +200.0 %"]);
    check(
        &[("holdout = 2 rows", "holdout = 3 rows")],
        &[
            "holdout 2 rows → 3 rows",
            "sequences 10 → 9 −10.0 %",
            "as in sft: holdout, sequences, sequences held out, longest held out",
        ],
    );
    check(
        &[("cosine(peak = 1e-2)", "cosine(peak = 1e-2) states = discard")],
        &["states rest host → discard"],
    );
    check(
        &[("max_new_tokens = 3", "max_new_tokens = 6")],
        &["generate talk", "new tokens, at most 3 → 6 +100.0 %"],
    );
    check(&[("bf16", "fp32")], &["export final", "dtype bf16 → f32"]);
    check(&[("to = \"out\"", "to = \"elsewhere\"")], &["to out → elsewhere"]);
    check(
        &[("metrics = [loss, accuracy]", "metrics = [loss]")],
        &["evaluate held", "metrics loss, accuracy → loss"],
    );
    check(
        &[
            ("train sft", "train all"),
            ("held { from = sft", "held { from = all"),
            ("talk { from = sft", "talk { from = all"),
            ("final { from = sft", "final { from = all"),
        ],
        &["train sft → all"],
    );
}

#[test]
fn a_stage_more_or_less_is_told() {
    let case = Case::new();
    let held = "evaluate held { from = sft data = words metrics = [loss, accuracy] }\n";
    case.with("q.hift", &[(held, "")]);
    let lines = case.lines("diff p.hift q.hift");
    assert!(lines.len() == 1 && lines[0].starts_with("evaluate held: only in the first, peak "), "{lines:?}");
    let lines = case.lines("diff q.hift p.hift");
    assert!(
        lines.len() == 1 && lines[0].starts_with("evaluate held: only in the second, peak "),
        "{lines:?}"
    );
    let json: Json = serde_json::from_str(&case.hift("diff q.hift p.hift --json")).unwrap();
    let stage = &json["stages"][0];
    assert_eq!((&stage["name"], &stage["change"]), (&json!("held"), &json!("added")));
}

#[test]
fn a_difference_is_json_for_machines_and_a_code_for_shells() {
    let case = Case::new();
    case.with("q.hift", &[("steps = 8", "steps = 12")]);
    let said = case.command(HIFT, "diff p.hift q.hift --json --exit-code");
    assert_eq!((said.code, said.err.as_str()), (Some(1), ""));
    let json: Json = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (&json["same"], &json["old"], &json["new"]),
        (&json!(false), &json!("p.hift"), &json!("q.hift"))
    );
    let steps = json!({ "fact": "steps", "unit": "count", "old": 8, "new": 12, "relative": 0.5 });
    let facts = json["stages"][0]["facts"].as_array().unwrap();
    assert!(facts.contains(&steps), "{facts:#?}");
    let same: Json = serde_json::from_str(&case.hift("diff p.hift p.hift --json --exit-code")).unwrap();
    let nothing = json!([]);
    assert_eq!((&same["same"], &same["stages"], &same["whole"]), (&json!(true), &nothing, &nothing));
    // Parameters apply to both.
    assert_eq!(case.hift("diff p.hift q.hift --set steps=20 --exit-code"), SAME);
}

#[test]
fn runs_and_plans_are_compared_like_files() {
    let case = Case::new();
    case.hift("run p.hift");
    case.put("plan.json", case.hift("plan p.hift --json"));
    for (a, b) in [
        ("runs/p", "p.hift"),
        ("p.hift", "runs/p/plan.json"),
        ("plan.json", "runs/p"),
        ("plan.json", "p.hift"),
    ] {
        assert_eq!(case.hift(&format!("diff {a} {b} --exit-code")), SAME, "{a} {b}");
    }
    assert!(case.lines("diff runs/p p.hift --set steps=12").contains(&"steps 8 → 12 +50.0 %".to_string()));
    // Rows of the same number and length, but others: only their content tells.
    case.put("words.txt", case.text("words.txt").replacen("one two three four", "two one three four", 1));
    let lines = case.lines("diff runs/p p.hift");
    assert_eq!(lines[0], "inputs");
    assert!(lines[1].starts_with("data `words.txt` was 183 B, sha256 "), "{lines:?}");
    assert_eq!(case.command(HIFT, "diff runs/p p.hift --exit-code").code, Some(1));
    assert_eq!(case.hift("diff runs/p p.hift --no-data").lines().next(), Some("train sft"));
    // A plan alone does not know what was in the files.
    assert_eq!(case.hift("diff plan.json p.hift"), SAME);
}

#[test]
fn files_of_a_revision_are_compared() {
    let case = Case::new();
    let git = |arguments: &str| {
        let who =
            "-c user.name=a -c user.email=a@example.org -c init.defaultBranch=trunk -c commit.gpgsign=false";
        let said = case.command("git", &format!("{who} {arguments}"));
        assert_eq!(said.code, Some(0), "{arguments}: {}", said.err);
    };
    // The pipeline lies in a folder; its paths start there.
    for name in ["p.hift", "words.txt", "tokenizer.json", "model"] {
        fs::create_dir_all(case.path("pipelines")).unwrap();
        fs::rename(case.path(name), case.path("pipelines").join(name)).unwrap();
    }
    git("init -q");
    git("add pipelines/p.hift");
    git("commit -q -m first");
    let text = case.text("pipelines/p.hift").replace("steps = 8", "steps = 12");
    case.put("pipelines/p.hift", &text);
    let steps = "steps 8 → 12 +50.0 %".to_string();
    assert!(case.lines("diff HEAD:pipelines/p.hift pipelines/p.hift").contains(&steps));
    assert!(case.lines("diff HEAD:./pipelines/p.hift pipelines/p.hift").contains(&steps));
    assert_eq!(case.hift("diff HEAD:pipelines/p.hift pipelines/p.hift --set steps=9"), SAME);
    git("commit -q -a -m second");
    assert!(case.lines("diff HEAD~1:pipelines/p.hift HEAD:pipelines/p.hift").contains(&steps));
    case.fails(
        "diff HEAD:p.hift pipelines/p.hift",
        66,
        &["git does not find HEAD:p.hift", "top of the work tree"],
    );
    case.fails("diff elsewhere:pipelines/p.hift pipelines/p.hift", 66, &["git does not find elsewhere:"]);
    // What it imports is of the same revision.
    let (first, rest) = text.split_once("model tiny { weights = \"model\" }\n").unwrap();
    case.put(
        "pipelines/p.hift",
        format!("{first}import \"parts/rate.part\"\nmodel tiny {{ weights = \"model\" }}\n{rest}")
            .replace("peak = 1e-2", "peak = peak"),
    );
    case.put("pipelines/parts/rate.part", "hift 1\nparam peak = 1e-2\n");
    git("add pipelines");
    git("commit -q -m parts");
    assert_eq!(case.hift("diff HEAD~1:pipelines/p.hift HEAD:pipelines/p.hift"), SAME);
    case.put("pipelines/parts/rate.part", "hift 1\nparam peak = 5e-3\n");
    let rate = "rate, peak 1e-2 → 5e-3 −50.0 %".to_string();
    assert!(case.lines("diff HEAD:pipelines/p.hift pipelines/p.hift").contains(&rate));
    assert_eq!(case.hift("diff :pipelines/p.hift HEAD:pipelines/p.hift"), SAME);
    case.fails("diff HEAD~1:pipelines/parts/rate.part pipelines/p.hift", 66, &["git does not find"]);
    case.fails(
        "diff HEAD:pipelines/parts/rate.part pipelines/p.hift",
        65,
        &["nothing in HEAD:pipelines/parts/rate.part runs"],
    );
    // A mistake of back then is shown in the text of back then.
    case.put("pipelines/p.hift", text.replace("12", "twelve"));
    git("commit -q -a -m third");
    case.put("pipelines/p.hift", &text);
    case.fails("diff HEAD:pipelines/p.hift pipelines/p.hift", 65, &["[HEAD:pipelines/p.hift:2:", "twelve"]);
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let case = Case::new();
    case.put("not.json", "{}");
    case.put("broken.json", "{");
    case.put("broken.hift", PIPELINE.replace("micro_batch = 2", "micro_batch = many"));
    case.fails("diff p.hift nowhere.hift", 66, &["nowhere.hift cannot be read"]);
    case.fails("diff model p.hift", 66, &["model is not a run directory"]);
    case.fails("diff p.hift not.json", 65, &["not.json is not the plan of a run: it has no `plan`"]);
    case.fails("diff broken.json p.hift", 65, &["broken.json is not JSON"]);
    case.fails("diff p.hift broken.hift", 65, &["broken.hift:11:", "many"]);
    case.fails("diff broken.hift nowhere.hift", 66, &["broken.hift:11:", "nowhere.hift cannot be read"]);
    case.put("plan.json", case.hift("plan p.hift --json"));
    case.fails("diff plan.json plan.json --set steps=3", 2, &["`--set` has no pipeline file to apply to"]);
    case.fails("diff p.hift", 2, &[]);
}

/// Entries of `plan.json` that say nothing about what the plan does: names of blocks, and what stands there twice.
const SILENT: &[&str] = &[
    "plan.stages.model.name",
    "plan.stages.data.name",
    "plan.stages.tokenizer.name",
    "plan.stages.packed",
    "plan.stages.shuffle.seed",
    "plan.stages.recompute",
    "schema",
    "estimate.schema",
    "estimate.stages.name",
    "estimate.stages.groups.n_elements",
    "estimate.stages.groups.program",
    "estimate.stages.groups.instruction",
    "estimate.stages.groups.operation",
    // Less where the cache has the tokens already, which is no part of a plan.
    "estimate.stages.making",
    // Properties of the machine.
    "estimate.stages.beside",
    "estimate.stages.seconds",
];

#[test]
fn nothing_in_a_plan_is_passed_over() {
    let case = Case::new();
    case.with(
        "q.hift",
        &[
            ("cosine(peak = 1e-2)", "cosine(peak = 1e-2, warmup = 2 cycles)"),
            ("format = text", "format = text shuffle = seed(3)"),
            ("micro_batch = 2", "micro_batch = 2 memory_limit = 1 GiB"),
            ("steps = 8", "steps = 300"),
        ],
    );
    let json: Json = serde_json::from_str(&case.hift("plan q.hift --json")).unwrap();
    let summary = Summary::read(&json).unwrap();
    // By path without places in lists: whether any such entry, when changed, makes a difference.
    let mut told: BTreeMap<String, bool> = BTreeMap::new();
    each_entry(&json, &mut Vec::new(), &mut |at: &[String], value: &Json| {
        let mut changed = json.clone();
        let entry = at.iter().fold(&mut changed, |json, key| match json {
            Json::Array(list) => &mut list[key.parse::<usize>().unwrap()],
            json => &mut json[key.as_str()],
        });
        *entry = match value {
            Json::Null => json!(7),
            Json::Bool(value) => json!(!value),
            Json::Number(number) if number.is_f64() => json!(1.5 * number.as_f64().unwrap() + 1.0),
            Json::Number(number) => json!(2 * number.as_u64().unwrap() + 1),
            Json::String(text) => json!(format!("{text} changed")),
            Json::Array(_) | Json::Object(_) => unreachable!("only what holds no more"),
        };
        // What is no plan any more has been noticed too.
        let noticed = Summary::read(&changed).is_ok_and(|changed| !diff(&summary, &changed, None).is_empty())
            || Summary::read(&changed).is_err();
        let path: Vec<&str> =
            at.iter().map(String::as_str).filter(|key| key.parse::<usize>().is_err()).collect();
        *told.entry(path.join(".")).or_default() |= noticed;
    });
    assert!(told.len() > 80, "the plan was walked through: {told:?}");
    let silent: BTreeSet<&str> =
        told.iter().filter(|(_, told)| !**told).map(|(path, _)| path.as_str()).collect();
    assert_eq!(silent, SILENT.iter().copied().collect());
}

fn each_entry(json: &Json, at: &mut Vec<String>, what: &mut dyn FnMut(&[String], &Json)) {
    let entries: Vec<(String, &Json)> = match json {
        Json::Array(list) => list.iter().enumerate().map(|(idx, value)| (idx.to_string(), value)).collect(),
        Json::Object(entries) => entries.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => return what(at, json),
    };
    for (key, value) in entries {
        at.push(key);
        each_entry(value, at, what);
        at.pop();
    }
}

// ------------------------------------------------------------------------------------- hift lock

#[test]
fn a_lock_is_written_refreshed_and_checked() {
    let case = Case::new();
    case.fails("lock --check p.hift", 66, &["there is no p.lock", "`hift lock p.hift` writes it"]);
    assert!(!case.path("p.lock").exists());
    let said = case.hift("lock p.hift");
    assert!(said.starts_with("p.lock: 5 inputs, ") && said.ends_with("; written\n"), "{said}");
    let lock = case.text("p.lock");
    let json: Json = serde_json::from_str(&lock).unwrap();
    let inputs = json["inputs"].as_array().unwrap().iter();
    let inputs: Vec<String> = inputs.map(|input| format!("{} {}", input["role"], input["path"])).collect();
    let expected = [
        r#""pipeline" "p.hift""#,
        r#""data" "words.txt""#,
        r#""tokenizer" "tokenizer.json""#,
        r#""config" "model/config.json""#,
        r#""weights" "model/model.safetensors""#,
    ];
    assert_eq!(inputs, expected);
    assert_eq!(json["params"], json!({ "steps": "8" }));
    let said = case.hift("lock p.hift");
    assert!(said.ends_with("; as it was\n"), "{said}");
    assert_eq!(case.hift("lock p.hift --check"), "p.lock: nothing has drifted, 5 inputs\n");

    case.put("words.txt", "one two\n");
    case.put("tokenizer_config.json", "{}");
    let before = case.text("p.lock");
    case.fails(
        "lock --check p.hift",
        65,
        &[
            "data `words.txt` was 183 B",
            "is 8 B",
            "not as p.lock says",
            "tokenizer `tokenizer_config.json` is new",
            "`hift lock p.hift`",
        ],
    );
    assert_eq!(case.text("p.lock"), before);
    let said = case.hift("lock p.hift");
    assert!(said.contains("; 2 changed\n") && said.contains("\n  data `words.txt` was 183 B, "), "{said}");
    case.hift("lock --check p.hift");
    // Parameters are locked as they apply.
    case.fails(
        "lock --check p.hift --set steps=9",
        65,
        &["param `steps` was 8, is 9", "`hift lock p.hift --set steps=9`"],
    );
    case.hift("lock p.hift --set steps=9");
    case.hift("lock --check p.hift --set steps=9");
}

#[test]
fn imports_and_the_environment_are_inputs_too() {
    let case = Case::new();
    let text = PIPELINE
        .replace("param steps = 8\n", "param steps = 8\nimport \"parts/rate.part\"\n")
        .replace("peak = 1e-2", "peak = peak")
        .replace("clip = 1.0", "clip = env(\"HIFT_TEST_CLIP\", 1.0)");
    case.put("p.hift", text);
    case.put("parts/rate.part", "hift 1\nparam peak = 1e-2\n");
    case.hift("lock p.hift");
    let lock: Json = serde_json::from_str(&case.text("p.lock")).unwrap();
    assert_eq!(lock["inputs"][1]["path"], "parts/rate.part");
    assert_eq!(lock["inputs"][1]["role"], "pipeline");
    assert_eq!(lock["params"], json!({ "peak": "1e-2", "steps": "8" }));
    case.put("parts/rate.part", "hift 1\nparam peak = 5e-3\n");
    case.fails(
        "run p.hift --locked --progress plain",
        65,
        &["param `peak` was 1e-2, is 5e-3", "pipeline `parts/rate.part` was"],
    );
    case.hift("lock p.hift");
    let with_clip = |arguments: &str| case.command("env", &format!("HIFT_TEST_CLIP=2 {HIFT} {arguments}"));
    let said = with_clip("run p.hift --locked");
    assert_eq!(said.code, Some(65));
    assert!(said.err.contains("param `env(\"HIFT_TEST_CLIP\")` was not there, is 2"), "{}", said.err);
    assert_eq!(with_clip("lock p.hift").code, Some(0));
    assert_eq!(with_clip("run p.hift --locked").code, Some(0));
}

#[test]
fn a_lock_stands_beside_its_pipeline_and_replaces_no_other_file() {
    let case = Case::new();
    case.put("deep/Cargo.lock", "# not ours\n");
    case.put(
        "deep/Cargo.hift",
        PIPELINE
            .replace("\"words.txt", "\"../words.txt")
            .replace("\"tokenizer", "\"../tokenizer")
            .replace("\"model\"", "\"../model\""),
    );
    case.fails(
        "lock deep/Cargo.hift",
        73,
        &["deep/Cargo.lock is there already and is not a lock of this program"],
    );
    assert_eq!(case.text("deep/Cargo.lock"), "# not ours\n");
    fs::rename(case.path("deep/Cargo.hift"), case.path("deep/train.hift")).unwrap();
    case.hift("lock deep/train.hift");
    assert!(case.text("deep/train.lock").contains("\"path\": \"../words.txt\""));
    // One that a merge has spoiled says so, and is written anew.
    let spoiled = case.text("deep/train.lock").replace("{\n", "<<<<<<< HEAD\n{\n");
    case.put("deep/train.lock", spoiled);
    case.fails("lock --check deep/train.hift", 65, &["deep/train.lock is not a lock file", "writes it anew"]);
    case.hift("lock deep/train.hift");
    case.hift("lock --check deep/train.hift");
}

#[test]
fn what_is_missing_is_not_locked() {
    let case = Case::new();
    fs::remove_file(case.path("words.txt")).unwrap();
    fs::remove_file(case.path("model/model.safetensors")).unwrap();
    case.fails(
        "lock p.hift",
        66,
        &["`words.txt` cannot be read", "`model/model.safetensors` cannot be read", "looked for"],
    );
    assert!(!case.path("p.lock").exists());
    case.put("p.hift", PIPELINE.replace("micro_batch = 2", "micro_batch = many"));
    case.fails("lock p.hift", 65, &["many"]);
}

#[test]
fn a_locked_run_refuses_drift_before_anything_is_loaded() {
    let case = Case::new();
    case.fails("run p.hift --locked", 66, &["there is no p.lock", "`hift lock p.hift` writes it"]);
    case.hift("lock p.hift");
    assert_eq!(case.hift("run p.hift --locked"), "");
    // A run keeps the same lock.
    assert_eq!(case.text("runs/p/hift.lock"), case.text("p.lock"));
    fs::remove_dir_all(case.path("runs")).unwrap();
    fs::remove_dir_all(case.path("out")).unwrap();

    let check = |name: &str, text: Vec<u8>, texts: &[&str]| {
        let before = fs::read(case.path(name)).ok();
        case.put(name, text);
        case.fails(
            "run p.hift --locked",
            65,
            &[texts, &["or accept what is there now with `hift lock p.hift`"]].concat(),
        );
        // What it was is fine again.
        match before {
            Some(before) => case.put(name, before),
            None => fs::remove_file(case.path(name)).unwrap(),
        }
    };
    // Not even JSON: had anything been loaded, that would be the complaint.
    check(
        "tokenizer.json",
        b"{".to_vec(),
        &["tokenizer `tokenizer.json` was", "is 1 B", "not as p.lock says"],
    );
    check("model/config.json", b"{".to_vec(), &["config `model/config.json` was", "is 1 B"]);
    check("words.txt", b"\xff\n".to_vec(), &["data `words.txt` was 183 B, sha256", "is 2 B, sha256"]);
    check("added_tokens.json", b"{}".to_vec(), &["tokenizer `added_tokens.json` is new"]);
    let comment = format!("{PIPELINE}# A word more.\n").into_bytes();
    check("p.hift", comment, &["pipeline `p.hift` was"]);
    // One bit of one weight, the size as it was.
    let mut weights = fs::read(case.path("model/model.safetensors")).unwrap();
    *weights.last_mut().unwrap() ^= 1;
    check("model/model.safetensors", weights, &["weights `model/model.safetensors` was"]);
    case.fails(
        "run p.hift --locked --set steps=9",
        65,
        &["param `steps` was 8, is 9", "`hift lock p.hift --set steps=9`"],
    );
    assert!(!case.path("runs").exists(), "a refused run leaves nothing");
    case.hift("run p.hift --locked");
}
