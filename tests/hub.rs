//! Repositories on the Hub, from a server on this machine that speaks its paths.
#![cfg(feature = "run")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

const HIFT: &str = env!("CARGO_BIN_EXE_hift");
const FIRST: &str = "0123456789abcdef0123456789abcdef01234567";
const SECOND: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// What a server has: files by repository, commit and path.
#[derive(Default)]
struct Shelf {
    /// `models/org/tiny` or `datasets/org/rows`.
    commits: BTreeMap<(String, String), BTreeMap<String, Vec<u8>>>,
    /// Branches and tags.
    revisions: BTreeMap<(String, String), String>,
    /// May be read with this token only.
    secret: Vec<String>,
    /// What was asked for.
    asked: Vec<String>,
    /// Large files come with a byte flipped, or not for a long time.
    damaged: bool,
    slow: bool,
}

#[derive(Clone)]
struct Server {
    shelf: Arc<Mutex<Shelf>>,
    address: String,
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { shelf: Arc::default(), address };
        let own = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let server = own.clone();
                std::thread::spawn(move || server.talk(stream.unwrap()));
            }
        });
        server
    }

    fn put(&self, repository: &str, commit: &str, path: &str, bytes: impl AsRef<[u8]>) {
        let mut shelf = self.shelf.lock().unwrap();
        let key = (repository.to_owned(), commit.to_owned());
        shelf.commits.entry(key).or_default().insert(path.to_owned(), bytes.as_ref().to_vec());
    }

    fn name(&self, repository: &str, revision: &str, commit: &str) {
        let key = (repository.to_owned(), revision.to_owned());
        self.shelf.lock().unwrap().revisions.insert(key, commit.to_owned());
    }

    /// What was asked for since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.shelf.lock().unwrap().asked)
    }

    fn talk(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                match reader.read_line(&mut line) {
                    Ok(0) | Err(_) => return,
                    Ok(_) if line.trim().is_empty() => break,
                    Ok(_) => head.push(line.trim().to_owned()),
                }
            }
            let path = head[0].split(' ').nth(1).unwrap().to_owned();
            let header = |name: &str| {
                let start = format!("{name}:");
                head.iter()
                    .find(|line| line.to_lowercase().starts_with(&start))
                    .map(|line| line[start.len()..].trim().to_owned())
            };
            self.shelf.lock().unwrap().asked.push(path.clone());
            if path.starts_with("/lfs/") && self.shelf.lock().unwrap().slow {
                std::thread::sleep(Duration::from_secs(60));
            }
            let (status, headers, body) =
                self.answer(&path, header("range").as_deref(), header("authorization").as_deref());
            let mut text = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n", body.len());
            headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
            if stream.write_all(format!("{text}\r\n").as_bytes()).is_err() || stream.write_all(&body).is_err()
            {
                return;
            }
        }
    }

    fn answer(
        &self,
        path: &str,
        range: Option<&str>,
        token: Option<&str>,
    ) -> (u16, Vec<(&'static str, String)>, Vec<u8>) {
        let shelf = self.shelf.lock().unwrap();
        let commit = |shelf: &Shelf, repository: &str, revision: &str| {
            let revision = revision.replace("%2F", "/");
            let key = (repository.to_owned(), revision.clone());
            match shelf.commits.contains_key(&key) {
                true => Some(revision),
                false => shelf.revisions.get(&key).cloned(),
            }
        };
        let may = |shelf: &Shelf, repository: &str| {
            !shelf.secret.iter().any(|secret| secret == repository) || token == Some("Bearer good")
        };
        let part = |bytes: &[u8]| {
            let range = range.and_then(|range| range.strip_prefix("bytes=")).expect("a range is asked for");
            let (from, to) = range.split_once('-').unwrap();
            let from: usize = from.parse().unwrap();
            let to = to.parse::<usize>().map_or(bytes.len(), |to| (to + 1).min(bytes.len()));
            (format!("bytes {from}-{}/{}", to.max(1) - 1, bytes.len()), bytes[from..to].to_vec())
        };
        if let Some(rest) = path.strip_prefix("/api/") {
            let (repository, revision) = rest.split_once("/revision/").unwrap();
            if !may(&shelf, repository) {
                return (401, Vec::new(), b"{}".to_vec());
            }
            let Some(commit) = commit(&shelf, repository, revision) else {
                return (404, Vec::new(), b"{}".to_vec());
            };
            let files = &shelf.commits[&(repository.to_owned(), commit.clone())];
            let names: Vec<_> = files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
            let json = serde_json::json!({ "sha": commit, "siblings": names, "private": false });
            return (200, Vec::new(), json.to_string().into_bytes());
        }
        if let Some(hash) = path.strip_prefix("/lfs/") {
            let file = shelf.commits.values().flat_map(BTreeMap::values).find(|file| sha256(file) == hash);
            let mut file = file.unwrap().clone();
            if shelf.damaged {
                file[1000] ^= 1;
            }
            let (range, bytes) = part(&file);
            return (206, vec![("Content-Range", range)], bytes);
        }
        let (repository, rest) = path[1..].split_once("/resolve/").unwrap();
        let repository = match repository.starts_with("datasets/") {
            true => repository.to_owned(),
            false => format!("models/{repository}"),
        };
        let (revision, name) = rest.split_once('/').unwrap();
        if !may(&shelf, &repository) {
            return (401, Vec::new(), Vec::new());
        }
        let Some(commit) = commit(&shelf, &repository, revision) else {
            return (404, Vec::new(), Vec::new());
        };
        let Some(file) = shelf.commits[&(repository, commit.clone())].get(name) else {
            return (404, Vec::new(), Vec::new());
        };
        let hash = sha256(file);
        if name.ends_with(".safetensors") || name.ends_with(".parquet") {
            let headers = vec![
                ("X-Repo-Commit", commit),
                ("X-Linked-Etag", format!("\"{hash}\"")),
                ("X-Linked-Size", file.len().to_string()),
                ("ETag", "\"of the redirection\"".to_owned()),
                ("Location", format!("{}/lfs/{hash}", self.address)),
            ];
            return (302, headers, Vec::new());
        }
        let (range, bytes) = part(file);
        // Small files have the hash of git, which has forty digits.
        let headers = vec![
            ("X-Repo-Commit", commit),
            ("ETag", format!("\"{}\"", &hash[..40])),
            ("Content-Range", range),
        ];
        (206, headers, bytes)
    }
}

/// A folder with a pipeline, and a server with what it needs.
struct Case {
    folder: tempfile::TempDir,
    server: Server,
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

const PIPELINE: &str = r#"hift 1
data rows {
    source = hub("org/rows")
    format = text
    holdout = hub("org/rows", split = "validation")
}
tokenizer words { file = hub("org/tiny")  max_length = 16 tokens }
model tiny { weights = hub("org/tiny", revision = "main") }
groups layers { split = by_layer(1) }
schedule turns { rate = constant(1e-3) }
optimizer adamw { }
train sft {
    data = rows tokenizer = words model = tiny groups = layers schedule = turns optimizer = adamw
    steps = 2 micro_batch = 2
}
export final { from = sft  to = "out" }
"#;

impl Case {
    fn new() -> Self {
        let (server, model) = (Server::start(), golden());
        for entry in fs::read_dir(&model).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            server.put("models/org/tiny", FIRST, &name, fs::read(&path).unwrap());
        }
        server.put("models/org/tiny", FIRST, "README.md", "a tiny model");
        server.name("models/org/tiny", "main", FIRST);
        let rows = |words: &[&str]| -> String {
            words.iter().map(|word| format!("{{\"text\": \"{word}\"}}\n")).collect()
        };
        let rows_of = "datasets/org/rows";
        server.put(rows_of, FIRST, "data/train-0.jsonl", rows(&["the cat", "the dog sat", "a cat sat"]));
        server.put(rows_of, FIRST, "data/train-1.jsonl", rows(&["on the mat", "a dog"]));
        server.put(rows_of, FIRST, "data/validation.jsonl", rows(&["the mat sat"]));
        server.put(rows_of, FIRST, "README.md", "---\n---\n");
        server.name(rows_of, "main", FIRST);
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("p.hift"), PIPELINE).unwrap();
        Self { folder, server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Another pipeline, with changes to the usual one.
    fn with(&self, name: &str, changes: &[(&str, &str)]) {
        let mut text = PIPELINE.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        fs::write(self.path(name), text).unwrap();
    }

    #[track_caller]
    fn hift(&self, arguments: &str, variables: &[(&str, &str)]) -> Said {
        let mut command = Command::new(HIFT);
        command.args(arguments.split_whitespace()).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("NO_COLOR", "1").env("RAYON_NUM_THREADS", "2");
        command
            .env("HIFT_CACHE", "")
            .env("HF_HOME", self.path("hf"))
            .env("HF_ENDPOINT", &self.server.address);
        command.envs(variables.iter().copied());
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let said = Said {
            code: output.status.code().unwrap_or(-1),
            out: text(output.stdout),
            err: text(output.stderr),
        };
        assert!(!said.err.contains("panicked"), "{arguments}\n{}", said.err);
        said
    }

    #[track_caller]
    fn succeeds(&self, arguments: &str, variables: &[(&str, &str)]) -> String {
        let said = self.hift(arguments, variables);
        assert_eq!(said.code, 0, "{arguments}\n{}{}", said.out, said.err);
        said.out
    }

    /// Ends with 66 and says all of this to people.
    #[track_caller]
    fn fails(&self, arguments: &str, variables: &[(&str, &str)], texts: &[&str]) {
        let said = self.hift(arguments, variables);
        assert_eq!(said.code, 66, "{arguments}\n{}{}", said.out, said.err);
        let err: Vec<&str> = said.err.split_whitespace().filter(|word| *word != "│").collect();
        for text in texts {
            assert!(err.join(" ").contains(text), "{arguments}: no `{text}` in\n{}", said.err);
        }
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models/llama-tiny")
}

#[test]
fn a_run_fetches_what_the_cache_lacks_and_then_nothing() {
    let case = Case::new();
    // A plan needs no weights.
    let plan = case.succeeds("plan p.hift", &[]);
    assert!(plan.contains(&format!("hub org/tiny at {}", &FIRST[..12])), "{plan}");
    assert!(plan.contains("5 sequences, 1 held out"), "{plan}");
    let asked = case.server.asked();
    assert!(asked.iter().all(|path| !path.contains("safetensors") && !path.contains("README")), "{asked:?}");
    assert!(asked.len() > 8, "{asked:?}");

    case.succeeds("run p.hift --progress none", &[]);
    let asked = case.server.asked();
    assert!(asked.iter().all(|path| path.contains("safetensors") || path.contains("/lfs/")), "{asked:?}");
    // The layout that Hugging Face's libraries share.
    let store = case.path("hf/hub/models--org--tiny");
    assert_eq!(fs::read_to_string(store.join("refs/main")).unwrap(), FIRST);
    let weights = store.join("snapshots").join(FIRST).join("model.safetensors");
    assert_eq!(fs::read(&weights).unwrap(), fs::read(golden().join("model.safetensors")).unwrap());
    assert!(fs::symlink_metadata(&weights).unwrap().is_symlink());
    assert!(case.path("out/model.safetensors").exists() && case.path("out/tokenizer.json").exists());

    for arguments in ["run p.hift --progress none --resume never", "check --data p.hift", "plan p.hift"] {
        case.succeeds(arguments, &[]);
        assert_eq!(case.server.asked(), Vec::<String>::new(), "{arguments}");
    }
    case.succeeds("plan p.hift", &[("HF_HUB_OFFLINE", "1")]);
}

#[test]
fn a_lock_pins_the_commit() {
    let case = Case::new();
    case.succeeds("lock p.hift", &[]);
    let lock = fs::read_to_string(case.path("p.lock")).unwrap();
    for line in [
        format!("\"path\": \"hub:org/tiny@main/model.safetensors\", \"revision\": \"{FIRST}\""),
        format!("\"path\": \"hub:datasets/org/rows@main/data/train-1.jsonl\", \"revision\": \"{FIRST}\""),
        format!("\"path\": \"hub:org/tiny@main/tokenizer.json\", \"revision\": \"{FIRST}\""),
    ] {
        assert!(lock.contains(&line), "{line} in\n{lock}");
    }
    // The branch moves on; the lock stays, on another machine, too.
    case.server.put("datasets/org/rows", SECOND, "data/train-0.jsonl", "{\"text\": \"the dog\"}\n");
    case.server.put("datasets/org/rows", SECOND, "data/validation.jsonl", "{\"text\": \"the mat\"}\n");
    case.server.name("datasets/org/rows", "main", SECOND);
    fs::remove_dir_all(case.path("hf")).unwrap();
    case.server.asked();
    case.succeeds("run p.hift --locked --progress none", &[]);
    assert!(case.server.asked().iter().all(|path| !path.contains(SECOND)));
    let own = fs::read_to_string(case.path("runs/p/hift.lock")).unwrap();
    assert_eq!(own.matches(FIRST).count(), lock.matches(FIRST).count());

    let text = case.succeeds("lock p.hift", &[]);
    assert!(text.contains("train-1.jsonl` is no longer read"), "{text}");
    assert!(fs::read_to_string(case.path("p.lock")).unwrap().contains(SECOND));
}

#[test]
fn what_cannot_be_fetched_is_told() {
    let case = Case::new();
    let check = |changes: &[(&str, &str)], variables: &[(&str, &str)], texts: &[&str]| {
        case.with("q.hift", changes);
        case.fails("plan q.hift", variables, texts);
    };
    let model = "hub(\"org/tiny\", revision = \"main\")";
    check(
        &[(model, "hub(\"org/tiny\", revision = \"v2\")")],
        &[],
        &["hift::hub::no_revision", "`org/tiny` has no revision `v2`", "this repository"],
    );
    check(
        &[(model, "hub(\"org/nano\")")],
        &[],
        &["hift::hub::no_repository", "there is no model `org/nano`"],
    );
    check(
        &[("hub(\"org/rows\")", "hub(\"org/rows\", files = \"*.parquet\")")],
        &[],
        &["hift::hub::no_file", "matches `*.parquet`", "`data/train-0.jsonl`"],
    );
    check(
        &[("\"validation\"", "\"test\"")],
        &[],
        &["hift::hub::no_file", "`org/rows` has no rows of `test`"],
    );
    case.server.put("models/org/bare", FIRST, "config.json", "{}");
    case.server.name("models/org/bare", "main", FIRST);
    check(&[("file = hub(\"org/tiny\")", "file = hub(\"org/bare\")")], &[], &["has no `tokenizer.json`"]);

    case.server.shelf.lock().unwrap().secret.push("models/org/secret".to_owned());
    for entry in fs::read_dir(golden()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        case.server.put("models/org/secret", FIRST, &name, fs::read(&path).unwrap());
    }
    case.server.name("models/org/secret", "main", FIRST);
    let secret = [(model, "hub(\"org/secret\")")];
    check(&secret, &[], &["hift::hub::denied", "(401)", "set HF_TOKEN"]);
    check(&secret, &[("HF_TOKEN", "bad")], &["hift::hub::denied", "whether the token may read it"]);
    case.succeeds("plan q.hift", &[("HF_TOKEN", "good")]);
    // The token that `hf auth login` keeps.
    fs::remove_dir_all(case.path("hf/hub/models--org--secret")).unwrap();
    fs::write(case.path("hf/token"), "good\n").unwrap();
    case.succeeds("plan q.hift", &[]);

    let away = case.path("away").display().to_string();
    let nowhere = [("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_HUB_CACHE", &away)];
    check(&[], &nowhere, &["hift::hub::unreachable", "http://127.0.0.1:9 cannot be asked"]);
    let offline = [("HF_HUB_OFFLINE", "1"), ("HF_HUB_CACHE", &away)];
    check(&[], &offline, &["hift::hub::offline", "HF_HUB_OFFLINE forbids"]);
    case.server.asked();
    check(&[], &[("HF_HUB_OFFLINE", "1"), ("HF_HOME", &away)], &["hift::hub::offline"]);
    assert_eq!(case.server.asked(), Vec::<String>::new());
}

#[test]
fn a_file_that_did_not_come_whole_is_not_kept() {
    let case = Case::new();
    case.server.shelf.lock().unwrap().damaged = true;
    case.fails(
        "run p.hift --progress plain",
        &[],
        &["hift::hub::damaged", "`model.safetensors` of `org/tiny`"],
    );
    case.server.shelf.lock().unwrap().damaged = false;
    case.succeeds("run p.hift --progress none", &[]);
}

#[test]
#[cfg(unix)]
fn a_signal_ends_the_wait_for_the_hub() {
    let case = Case::new();
    case.server.shelf.lock().unwrap().slow = true;
    let mut command = Command::new(HIFT);
    command.args(["run", "p.hift"]).current_dir(case.folder.path()).stdin(Stdio::null());
    command.env_clear().env("HIFT_CACHE", "").env("HF_HOME", case.path("hf"));
    let mut run = command.env("HF_ENDPOINT", &case.server.address).stderr(Stdio::piped()).spawn().unwrap();
    let since = Instant::now();
    while !case.server.asked().iter().any(|path| path.starts_with("/lfs/")) {
        assert!(since.elapsed() < Duration::from_secs(30), "it never asks");
        std::thread::sleep(Duration::from_millis(10));
    }
    let killed = Command::new("kill").args(["-TERM", &run.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(run.wait().unwrap().code(), Some(75));
    assert!(since.elapsed() < Duration::from_secs(30));
}

#[test]
fn what_another_program_has_fetched_is_enough() {
    let case = Case::new();
    // As huggingface_hub leaves it: no list of the commit's files.
    let store = case.path("hf/hub/models--org--tiny");
    let snapshot = store.join("snapshots").join(FIRST);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(store.join("refs")).unwrap();
    fs::write(store.join("refs/main"), FIRST).unwrap();
    for entry in fs::read_dir(golden()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, snapshot.join(path.file_name().unwrap())).unwrap();
    }
    fs::write(case.path("rows.jsonl"), "{\"text\": \"the cat sat\"}\n{\"text\": \"a dog sat\"}\n").unwrap();
    let holdout = "hub(\"org/rows\", split = \"validation\")";
    case.with("q.hift", &[(holdout, "none"), ("hub(\"org/rows\")", "json(\"rows.jsonl\")")]);
    case.succeeds("run q.hift --progress none", &[]);
    assert_eq!(case.server.asked(), Vec::<String>::new());
}

/// What older versions of transformers wrote, one file or shards, trains to the same weights as safetensors on this machine.
#[test]
fn old_weights_are_fetched_where_there_are_no_others() {
    let case = Case::new();
    let own = |name: &str| {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/weights").join(name)).unwrap()
    };
    let whole = [("config.json", "config.json"), ("pytorch_model.bin", "zip.bin")];
    let shards =
        [("config.json", "config.json"), ("shard-1.bin", "shard-1.bin"), ("shard-2.bin", "shard-2.bin")];
    let index = r#"{"weight_map": {"lm_head.weight": "shard-1.bin", "model.norm.weight": "shard-2.bin"}}"#;
    case.server.put("models/org/shards", FIRST, "pytorch_model.bin.index.json", index);
    for (repository, files) in [("models/org/old", &whole[..]), ("models/org/shards", &shards[..])] {
        files.iter().for_each(|(name, from)| case.server.put(repository, FIRST, name, own(from)));
        case.server.put(repository, FIRST, "flax_model.msgpack", "for another library");
        case.server.name(repository, "main", FIRST);
    }
    fs::create_dir(case.path("plain")).unwrap();
    fs::write(case.path("plain/config.json"), own("config.json")).unwrap();
    fs::write(case.path("plain/model.safetensors"), own("plain.safetensors")).unwrap();
    fs::write(case.path("rows.jsonl"), "{\"input_ids\": [1, 2, 3, 4, 0]}\n{\"input_ids\": [3, 1, 1]}\n")
        .unwrap();
    let trained = |name: &str, weights: &str| {
        case.with(
            &format!("{name}.hift"),
            &[
                ("hub(\"org/tiny\", revision = \"main\")", weights),
                ("file = hub(\"org/tiny\")", ""),
                ("hub(\"org/rows\")", "json(\"rows.jsonl\")"),
                ("hub(\"org/rows\", split = \"validation\")", "none"),
                ("format = text", "format = tokens"),
                ("\"out\"", &format!("\"out-{name}\"")),
            ],
        );
        case.server.asked();
        case.succeeds(&format!("run {name}.hift --progress none"), &[]);
        fs::read(case.path(&format!("out-{name}/model.safetensors"))).unwrap()
    };
    let expected = trained("plain", "\"plain\"");
    assert_eq!(case.server.asked(), Vec::<String>::new());
    for (name, weights, n) in [("old", "hub(\"org/old\")", 1), ("shards", "hub(\"org/shards\")", 2)] {
        assert_eq!(trained(name, weights), expected, "{name}");
        let asked = case.server.asked();
        assert!(asked.iter().all(|path| !path.contains("msgpack")), "{asked:?}");
        let fetched = |path: &&String| path.contains("resolve") && path.ends_with(".bin");
        assert!(asked.iter().filter(fetched).count() >= n, "{asked:?}");
        case.succeeds(&format!("run {name}.hift --progress none --resume never"), &[("HF_HUB_OFFLINE", "1")]);
    }
}

#[test]
fn a_look_at_the_file_fetches_the_configuration_only() {
    let case = Case::new();
    let said = case.succeeds("check p.hift", &[]);
    assert!(said.contains("no mistakes"), "{said}");
    let asked = case.server.asked();
    assert!(
        asked.iter().all(|path| path.ends_with("/config.json") || path.starts_with("/api/")),
        "{asked:?}"
    );
}
