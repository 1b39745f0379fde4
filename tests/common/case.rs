//! The binary from outside. A case is a transcript: files, a command, what must come of it. [`Case`] has a pipeline that
//! works; each case breaks one thing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value as Json, json};
use tempfile::TempDir;

pub const HIFT: &str = env!("CARGO_BIN_EXE_hift");

pub const PIPELINE: &str = r#"hift 1
param steps = 8
data rows {
    source = json("rows.jsonl")
    format = tokens(input = "input_ids", labels = "labels")
    holdout = 2 rows
}
model tiny { weights = random("config.json", seed = 1) }
groups layers { split = by_layer(1) }
schedule turns { rate = constant(1e-2) }
optimizer adamw {}
train sft {
    data = rows model = tiny groups = layers schedule = turns optimizer = adamw
    steps = steps micro_batch = 2
    evaluate { every = 4 steps }
    checkpoint { every = 3 steps keep = 2 }
}
export final { from = sft to = "out/final" dtype = fp32 }
"#;

pub const STAGES: &str = r#"hift 1
data words { source = text("words.txt") format = text holdout = 2 rows }
tokenizer plain { file = "tokenizer.json" max_length = 16 tokens }
model tiny { weights = random("config.json", seed = 1) }
groups layers { split = by_layer(2) }
schedule turns { rate = constant(1e-2) }
optimizer adamw {}
train a {
    data = words tokenizer = plain model = tiny groups = layers schedule = turns optimizer = adamw
    steps = 5 micro_batch = 2
}
train b {
    data = words tokenizer = plain model = a groups = layers schedule = turns optimizer = adamw
    steps = 200 micro_batch = 2
}
evaluate held { from = b data = words metrics = [loss, accuracy] }
generate talk { from = b prompts = ["one two"] max_new_tokens = 3 tokens }
export final { from = b to = "out/final" dtype = bf16 }
"#;

/// A folder with a tiny model, rows and a pipeline that works.
pub struct Case {
    pub folder: TempDir,
}

impl Case {
    pub fn new() -> Self {
        let case = Self { folder: tempfile::tempdir().unwrap() };
        case.write("p.hift", PIPELINE)
            .write("config.json", config().to_string())
            .write("rows.jsonl", (0..12).map(row).collect::<String>())
    }

    /// With two train stages, on text.
    pub fn stages() -> Self {
        let words = ["one two three four\n", "two three four one\n", "three one\n", "four one two\n"];
        Self::new()
            .write("p.hift", STAGES)
            .write("tokenizer.json", tokenizer().to_string())
            .write("words.txt", words.repeat(3).concat())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        self.put(name, text);
        self
    }

    pub fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    /// Changes a text in a file, where it must stand once.
    pub fn edit(self, name: &str, from: &str, to: &str) -> Self {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
        self.put(name, text.replace(from, to));
        self
    }

    /// Changes the pipeline.
    pub fn with(self, from: &str, to: &str) -> Self {
        self.edit("p.hift", from, to)
    }

    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(HIFT);
        command.args(arguments.split_whitespace()).current_dir(self.folder.path());
        command.stdin(Stdio::null()).env("RAYON_NUM_THREADS", "2").env("HIFT_CACHE", "");
        command
    }

    pub fn run(&self, arguments: &str) -> Said {
        Said::of(&mut self.command(arguments), arguments)
    }

    /// In a shell, where `$HIFT` is the program.
    pub fn shell(&self, script: &str) -> Said {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(self.folder.path()).env("HIFT", HIFT);
        command.env("RAYON_NUM_THREADS", "2").env("HIFT_CACHE", "");
        Said::of(&mut command, script)
    }

    /// Starts a run and waits until a line of its JSON progress holds all of `signs`.
    pub fn start(&self, arguments: &str, signs: &[&str]) -> Running {
        let mut command = self.command(&format!("{arguments} --progress json"));
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        loop {
            let start = said.len();
            let n = lines.read_line(&mut said).unwrap();
            assert!(n > 0, "the run ended too soon: {said}");
            if signs.iter().all(|sign| said[start..].contains(sign)) {
                break;
            }
        }
        Running { child, lines, said }
    }

    pub fn json(&self, name: &str) -> Json {
        serde_json::from_str(&fs::read_to_string(self.path(name)).unwrap()).unwrap()
    }

    pub fn lines(&self, name: &str) -> Vec<Json> {
        let text = fs::read_to_string(self.path(name)).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// What a run gave: metrics without times and memory.
    pub fn metrics(&self, run: &str) -> Vec<Json> {
        let mut lines = self.lines(&format!("{run}/metrics.jsonl"));
        for line in &mut lines {
            let line = line.as_object_mut().unwrap();
            for measured in ["seconds", "device_bytes", "device_peak_bytes", "host_peak_bytes"] {
                assert!(line.shift_remove(measured).is_some(), "{measured}");
            }
        }
        lines
    }

    /// The evaluations of a run: stage, step, metrics. One that was made again counts once, and gave the same.
    pub fn evaluations(&self, run: &str) -> Vec<(Json, Json, Json)> {
        let mut evaluations: Vec<(Json, Json, Json)> = Vec::new();
        for event in
            self.lines(&format!("{run}/events.jsonl")).into_iter().filter(|e| e["event"] == "evaluate")
        {
            let (stage, step, metrics) =
                (event["stage"].clone(), event["step"].clone(), event["metrics"].clone());
            match evaluations.iter().find(|known| known.0 == stage && known.1 == step) {
                Some(known) => assert_eq!(known.2, metrics, "{stage} at {step}"),
                None => evaluations.push((stage, step, metrics)),
            }
        }
        evaluations
    }

    /// Every file below a folder, with its bytes. The lock is left out: it names the last process.
    pub fn files(&self, name: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.path(name)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if !path.ends_with(".lock") {
                    files.insert(path.clone(), fs::read(path).unwrap());
                }
            }
        }
        files
    }

    /// Lets a finished run look as if its process had died before it could say so.
    pub fn unfinish(&self, run: &str) {
        let file = format!("{run}/events.jsonl");
        let events = fs::read_to_string(self.path(&file)).unwrap();
        let rest = events.lines().filter(|line| !line.contains("\"finish\""));
        self.put(&file, rest.map(|line| format!("{line}\n")).collect::<String>());
    }

    pub fn weights(&self, export: &str) -> Vec<u8> {
        fs::read(self.path(export).join("model.safetensors")).unwrap()
    }

    /// Without the links.
    pub fn checkpoints(&self, run: &str) -> Vec<String> {
        let folder = self.path(run).join("checkpoints");
        names(&folder).into_iter().filter(|name| !folder.join(name).is_symlink()).collect()
    }
}

/// Names in a folder, hidden ones too.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What a command said, with white space and the lines' breaks made one.
pub struct Said {
    pub what: String,
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn of(command: &mut Command, what: &str) -> Self {
        let output = command.output().unwrap();
        Self {
            what: what.to_string(),
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Ends with this code and says all of this to people.
    #[track_caller]
    pub fn fails(&self, code: i32, texts: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{}\n{}{}", self.what, self.out, self.err);
        let err: Vec<&str> = self.err.split_whitespace().filter(|word| *word != "│").collect();
        let err = err.join(" ");
        for text in texts {
            assert!(err.contains(text), "{}: no `{text}` in\n{}", self.what, self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }

    #[track_caller]
    pub fn works(&self) -> &Self {
        self.fails(0, &[])
    }

    #[track_caller]
    pub fn is_silent(&self) -> &Self {
        assert_eq!((self.out.as_str(), self.err.as_str()), ("", ""), "{}", self.what);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{}: {error}\n{}", self.what, self.out))
    }
}

/// A run at work.
pub struct Running {
    pub child: Child,
    pub lines: BufReader<std::process::ChildStderr>,
    pub said: String,
}

impl Running {
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
    }

    /// Whether a signal that was sent has reached the process. (Where that cannot be seen, it has.)
    pub fn has_taken(&self, signal: &str) -> bool {
        let number = ["HUP", "INT", "", "", "", "", "", "", "", "USR1", "", "", "", "", "TERM"]
            .iter()
            .position(|name| *name == signal)
            .unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let waiting = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
        let waiting = waiting.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        waiting.is_none_or(|mask| mask >> number & 1 == 0)
    }

    pub fn end(mut self) -> Said {
        self.lines.read_to_string(&mut self.said).unwrap();
        let code = self.child.wait().unwrap().code();
        let mut out = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        Said { what: "the run".to_string(), code, out, err: self.said }
    }
}

/// Not under `nohup`, nor where it cannot be known.
pub fn hang_ups_arrive() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 0))
}

pub fn config() -> Json {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 32, "vocab_size": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false, "torch_dtype": "float32",
        "initializer_range": 0.08, "bos_token_id": 1, "eos_token_id": 2,
    })
}

pub fn row(n: u64) -> String {
    let ids: Vec<u64> = (0..8).map(|t| 3 + (7 * n + 5 * t) % 61).collect();
    format!("{}\n", json!({ "input_ids": ids, "labels": ids }))
}

pub fn tokenizer() -> Json {
    let words = ["<unk>", "<s>", "</s>", "one", "two", "three", "four"];
    let vocab: serde_json::Map<String, Json> =
        words.iter().enumerate().map(|(id, word)| (word.to_string(), json!(id))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" },
    })
}

/// The small checkpoint of the traces, copied.
pub fn with_checkpoint() -> Case {
    let case = Case::new().with(r#"random("config.json", seed = 1)"#, r#""model""#);
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models/llama-tiny");
    for name in names(&from) {
        case.put(&format!("model/{name}"), fs::read(from.join(name)).unwrap());
    }
    case
}
