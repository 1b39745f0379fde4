//! An editor as a language server sees one: it speaks the protocol over the pipes of a process, byte by byte, with
//! nothing of the server's own code.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tempfile::TempDir;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An editor with a folder of files.
pub struct Editor {
    pub folder: TempDir,
    child: Child,
    stdin: Option<ChildStdin>,
    messages: Receiver<Json>,
    /// What came while something else was waited for.
    kept: Vec<Json>,
    n_requests: i64,
    /// The answer to `initialize`.
    pub hello: Json,
}

impl Editor {
    /// An editor with snippets, on a folder with a tiny model.
    pub fn new() -> Self {
        Self::with(json!({
            "textDocument": { "completion": { "completionItem": { "snippetSupport": true } } },
        }))
    }

    pub fn with(capabilities: Json) -> Self {
        Self::start(capabilities, Json::Null)
    }

    pub fn start(capabilities: Json, options: Json) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config().to_string()).unwrap();
        std::fs::create_dir(folder.path().join("models")).unwrap();
        let rows: String = (0..12).map(row).collect();
        std::fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_hift"))
            .args(["lsp", "--stdio"])
            .env("HIFT_TEST_NAME", "from-outside")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, messages) = channel();
        std::thread::spawn(move || {
            while let Some(message) = read(&mut stdout) {
                if send.send(message).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        let mut editor =
            Self { folder, child, stdin, messages, kept: Vec::new(), n_requests: 0, hello: Json::Null };
        let root = editor.uri("");
        let hello = editor.request(
            "initialize",
            json!({
                "processId": null, "rootUri": root, "capabilities": capabilities,
                "initializationOptions": options,
                "workspaceFolders": [{ "uri": root, "name": "test" }],
            }),
        );
        editor.hello = hello.unwrap();
        editor.notify("initialized", json!({}));
        editor
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn uri(&self, name: &str) -> String {
        let path = self.path(name).display().to_string();
        format!("file://{}", path.trim_end_matches('/').replace(' ', "%20").replace('é', "%C3%A9"))
    }

    /// Writes a file that is not open.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        if let Some(folder) = self.path(name).parent() {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(self.path(name), text).unwrap();
    }

    fn send(&mut self, message: &Json) {
        let body = message.to_string();
        let stdin = self.stdin.as_mut().expect("the server listens");
        write!(stdin, "Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        stdin.flush().unwrap();
    }

    pub fn notify(&mut self, method: &str, params: Json) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    /// Sends a request; its number.
    pub fn ask(&mut self, method: &str, params: Json) -> i64 {
        self.n_requests += 1;
        let id = self.n_requests;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        id
    }

    /// The answer to a request, or the error.
    pub fn answer(&mut self, id: i64) -> Result<Json, Json> {
        let message =
            self.wait(&|message| message.get("method").is_none() && message.get("id") == Some(&json!(id)));
        match message.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(message["result"].clone()),
        }
    }

    pub fn request(&mut self, method: &str, params: Json) -> Result<Json, Json> {
        let id = self.ask(method, params);
        self.answer(id)
    }

    /// The first message that is meant, of those that came and come; the others are kept.
    pub fn wait(&mut self, meant: &dyn Fn(&Json) -> bool) -> Json {
        if let Some(i) = self.kept.iter().position(meant) {
            return self.kept.remove(i);
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok(message) if meant(&message) => return message,
                Ok(message) => self.kept.push(message),
                Err(_) => {
                    let ended = self.child.try_wait();
                    panic!("no answer came; the server: {ended:?}; other messages: {:#?}", self.kept);
                }
            }
        }
    }

    pub fn open(&mut self, name: &str, text: &str) {
        let uri = self.uri(name);
        let document = json!({ "uri": uri, "languageId": "hift", "version": 1, "text": text });
        self.notify("textDocument/didOpen", json!({ "textDocument": document }));
    }

    /// Opens a text without its `§`, whose place is the answer.
    pub fn open_at(&mut self, name: &str, text: &str) -> Json {
        let (text, position) = marked(text);
        self.open(name, &text);
        position
    }

    /// Replaces the whole text.
    pub fn change(&mut self, name: &str, version: i64, text: &str) {
        let document = json!({ "uri": self.uri(name), "version": version });
        let changes = json!([{ "text": text }]);
        self.notify("textDocument/didChange", json!({ "textDocument": document, "contentChanges": changes }));
    }

    /// A request about a place in a document.
    pub fn at(&mut self, method: &str, name: &str, position: &Json) -> Json {
        let params = json!({ "textDocument": { "uri": self.uri(name) }, "position": position });
        self.request(&format!("textDocument/{method}"), params).unwrap()
    }

    /// The problems of a file, as soon as they are as wanted.
    pub fn diagnostics_when(&mut self, name: &str, wanted: &dyn Fn(&[Json]) -> bool) -> Vec<Json> {
        let uri = self.uri(name);
        let message = self.wait(&|message| {
            message["method"] == "textDocument/publishDiagnostics"
                && message["params"]["uri"] == uri.as_str()
                && wanted(message["params"]["diagnostics"].as_array().unwrap())
        });
        message["params"]["diagnostics"].as_array().unwrap().clone()
    }

    /// The problems of the next message about a version of a file.
    pub fn diagnostics(&mut self, name: &str, version: i64) -> Vec<Json> {
        let uri = self.uri(name);
        let message = self.wait(&|message| {
            message["method"] == "textDocument/publishDiagnostics"
                && message["params"]["uri"] == uri.as_str()
                && message["params"]["version"] == version
        });
        message["params"]["diagnostics"].as_array().unwrap().clone()
    }

    /// The labels that completion offers at `§`, in the order in which an editor shows them.
    pub fn labels(&mut self, text: &str) -> Vec<String> {
        let items = self.complete(text);
        items.iter().map(|item| item["label"].as_str().unwrap().to_owned()).collect()
    }

    pub fn complete(&mut self, text: &str) -> Vec<Json> {
        let position = self.open_at("complete.hift", text);
        let mut items = self.at("completion", "complete.hift", &position).as_array().unwrap().clone();
        items.sort_by_key(|item| item["sortText"].as_str().unwrap().to_owned());
        items
    }

    /// What hovering over `§` shows; empty where nothing.
    pub fn hover(&mut self, text: &str) -> String {
        let position = self.open_at("hover.hift", text);
        let hover = self.at("hover", "hover.hift", &position);
        hover["contents"]["value"].as_str().unwrap_or("").to_owned()
    }

    /// Says goodbye; how the server ended, and what it wrote to stderr.
    pub fn close(mut self) -> (ExitStatus, String) {
        self.request("shutdown", Json::Null).unwrap();
        self.notify("exit", Json::Null);
        self.end()
    }

    /// Goes away without a word.
    pub fn end(mut self) -> (ExitStatus, String) {
        drop(self.stdin.take());
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap(), said)
    }
}

impl Drop for Editor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One message, or nothing where the pipe ends.
fn read(from: &mut impl BufRead) -> Option<Json> {
    let mut length = None;
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim();
        if line.is_empty() {
            break;
        }
        if let Some(n) = line.strip_prefix("Content-Length: ") {
            length = n.parse().ok();
        }
    }
    let mut body = vec![0; length?];
    from.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

/// A text without its `§`, and the position of that, in lines and units of UTF-16.
pub fn marked(text: &str) -> (String, Json) {
    let at = text.find('§').expect("the text has a mark");
    let plain = text.replacen('§', "", 1);
    (plain.clone(), position(&plain, at))
}

/// The position of a byte.
pub fn position(text: &str, at: usize) -> Json {
    let before = &text[..at];
    let line = before.matches('\n').count();
    let column = before.rsplit('\n').next().unwrap().encode_utf16().count();
    json!({ "line": line, "character": column })
}

/// What a range holds.
pub fn within<'t>(text: &'t str, range: &Json) -> &'t str {
    let byte = |position: &Json| {
        let line = position["line"].as_u64().unwrap() as usize;
        let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
        let mut left = position["character"].as_u64().unwrap() as usize;
        let mut at = start;
        for char in text[start..].chars() {
            if left == 0 {
                break;
            }
            left -= char.len_utf16();
            at += char.len_utf8();
        }
        at
    };
    &text[byte(&range["start"])..byte(&range["end"])]
}

/// The text after edits.
pub fn edited(text: &str, edits: &Json) -> String {
    let mut edits: Vec<&Json> = edits.as_array().unwrap().iter().collect();
    let place = |edit: &Json| {
        let start = &edit["range"]["start"];
        (start["line"].as_u64().unwrap(), start["character"].as_u64().unwrap())
    };
    edits.sort_by_key(|edit| std::cmp::Reverse(place(edit)));
    let mut text = text.to_owned();
    for edit in edits {
        let held = within(&text, &edit["range"]);
        let start = held.as_ptr() as usize - text.as_ptr() as usize;
        let end = start + held.len();
        text.replace_range(start..end, edit["newText"].as_str().unwrap());
    }
    text
}

pub fn codes(diagnostics: &[Json]) -> Vec<&str> {
    diagnostics.iter().map(|problem| problem["code"].as_str().unwrap()).collect()
}

/// The tiny model's configuration.
pub fn config() -> Json {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 32, "vocab_size": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false, "torch_dtype": "float32",
    })
}

fn row(n: u64) -> String {
    let ids: Vec<u64> = (0..8).map(|t| 3 + (7 * n + 5 * t) % 61).collect();
    format!("{}\n", json!({ "input_ids": ids, "labels": ids }))
}

/// A file of the repository.
pub fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}
