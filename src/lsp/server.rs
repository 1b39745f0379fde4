//! The conversation with an editor: one message at a time, in their order.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::select;
use lsp_server::{Connection, ErrorCode, Message, Notification, Request, RequestId, Response};
use lsp_types::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use crate::problem::{Fault, Problem};

use super::hints::hints;
use super::text::Encoding;
use super::worker::{Planned, Worker};
use super::workspace::{Analysis, Workspace};
use super::{Machine, complete, diagnose, hover, navigate, outline, text};

/// Talks with an editor until it says goodbye.
///
/// # Errors
/// When the conversation does not follow the protocol, or ends without a goodbye.
pub fn serve(connection: &Connection, machine: Machine) -> Result<(), Problem> {
    let (id, params) = connection.initialize_start().map_err(ended)?;
    let client = Client::new(&params);
    let mut workspace = Workspace::new(machine.outside.clone());
    workspace.encoding = client.encoding;
    workspace.folders = client.folders.clone();
    let result = InitializeResult {
        capabilities: capabilities(client.encoding),
        server_info: Some(ServerInfo {
            name: "hift".to_owned(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        }),
    };
    connection.initialize_finish(id, to_json(&result)).map_err(ended)?;
    let worker = Worker::new(machine, client.rows);
    let mut server = Server {
        connection,
        client,
        workspace,
        worker,
        planned: HashMap::new(),
        asked: HashMap::new(),
        published: HashMap::new(),
        waiting: Vec::new(),
        n_requests: 0,
    };
    server.watch();
    server.talk()
}

/// A conversation that did not end as it should.
pub fn ended(why: impl std::fmt::Display) -> Problem {
    Problem::of(
        Fault::Failed,
        "hift::lsp::protocol",
        format!("the conversation with the editor ended: {why}"),
    )
    .help("`hift lsp` is started by an editor; on a terminal, use `hift check`")
}

/// What an editor can do, and wants.
#[derive(Debug, Clone)]
struct Client {
    encoding: Encoding,
    snippets: bool,
    refresh: bool,
    watch: bool,
    folders: Vec<PathBuf>,
    /// Whether rows are read for the estimate: `{ "rows": true }` in the options.
    rows: bool,
}

impl Client {
    /// A capability that is missing, or is not what it should be, is not there.
    fn new(params: &Json) -> Self {
        let flag = |path: &str| params.pointer(path).and_then(Json::as_bool).unwrap_or(false);
        let encodings = params.pointer("/capabilities/general/positionEncodings");
        let encodings: Vec<PositionEncodingKind> =
            encodings.and_then(|offered| serde_json::from_value(offered.clone()).ok()).unwrap_or_default();
        let folder = |uri: &Json| text::path(&Uri(uri.as_str()?.to_owned()));
        let folders = params.get("workspaceFolders").and_then(Json::as_array);
        let mut folders: Vec<PathBuf> =
            folders.into_iter().flatten().filter_map(|own| folder(own.get("uri")?)).collect();
        if folders.is_empty() {
            folders.extend(params.get("rootUri").and_then(folder));
        }
        Self {
            encoding: Encoding::agreed(&encodings),
            snippets: flag("/capabilities/textDocument/completion/completionItem/snippetSupport"),
            refresh: flag("/capabilities/workspace/inlayHint/refreshSupport"),
            watch: flag("/capabilities/workspace/didChangeWatchedFiles/dynamicRegistration"),
            folders,
            rows: flag("/initializationOptions/rows"),
        }
    }
}

fn capabilities(encoding: Encoding) -> ServerCapabilities {
    ServerCapabilities {
        position_encoding: Some(encoding.kind()),
        text_document_sync: Some(TextDocumentSync::Options(TextDocumentSyncOptions {
            open_close: Some(true),
            change: Some(TextDocumentSyncKind::Incremental),
            save: Some(Save::Bool(true)),
            ..TextDocumentSyncOptions::default()
        })),
        completion_provider: Some(CompletionOptions {
            trigger_characters: Some(["\"", "/", "=", "(", ",", "[", " ", "{"].map(str::to_owned).to_vec()),
            ..CompletionOptions::default()
        }),
        hover_provider: Some(HoverProvider::Bool(true)),
        definition_provider: Some(DefinitionProvider::Bool(true)),
        references_provider: Some(ReferencesProvider::Bool(true)),
        document_highlight_provider: Some(DocumentHighlightProvider::Bool(true)),
        document_symbol_provider: Some(DocumentSymbolProvider::Bool(true)),
        folding_range_provider: Some(FoldingRangeProvider::Bool(true)),
        document_formatting_provider: Some(DocumentFormattingProvider::Bool(true)),
        rename_provider: Some(RenameProvider::RenameOptions(RenameOptions {
            prepare_provider: Some(true),
            ..RenameOptions::default()
        })),
        code_action_provider: Some(CodeActionProvider::CodeActionOptions(CodeActionOptions {
            code_action_kinds: Some(vec![CodeActionKind::QuickFix, CodeActionKind::SourceFixAll]),
            ..CodeActionOptions::default()
        })),
        inlay_hint_provider: Some(InlayHintProvider::Bool(true)),
        ..ServerCapabilities::default()
    }
}

/// What a request that cannot be answered gets instead.
struct Refusal(ErrorCode, String);

type Answer = Result<Json, Refusal>;

fn to_json(value: &impl Serialize) -> Json {
    serde_json::to_value(value).expect("what the protocol says is JSON")
}

fn params<T: DeserializeOwned>(params: Json) -> Result<T, Refusal> {
    serde_json::from_value(params).map_err(|error| Refusal(ErrorCode::InvalidParams, error.to_string()))
}

struct Server<'c> {
    connection: &'c Connection,
    client: Client,
    workspace: Workspace,
    worker: Worker,
    /// The last plan of each pipeline.
    planned: HashMap<PathBuf, Planned>,
    /// The reading of each pipeline that was last given to the worker.
    asked: HashMap<PathBuf, u64>,
    /// The problems that the editor shows of each file, and of which version.
    published: HashMap<PathBuf, (Option<i32>, Vec<Diagnostic>)>,
    /// Requests for hints whose plan is still being made.
    waiting: Vec<(RequestId, InlayHintParams)>,
    n_requests: i32,
}

impl Server<'_> {
    fn talk(&mut self) -> Result<(), Problem> {
        let messages = self.connection.receiver.clone();
        let answers = self.worker.answers.clone();
        loop {
            select! {
                recv(messages) -> message => {
                    let mut next = message.ok();
                    if next.is_none() {
                        return Err(ended("it has gone without a goodbye"));
                    }
                    // What has come in the meantime belongs to it: problems are looked for once.
                    while let Some(message) = next {
                        if self.message(message)? {
                            return Ok(());
                        }
                        next = messages.try_recv().ok();
                    }
                }
                recv(answers) -> planned => {
                    if let Ok(planned) = planned {
                        self.planned(planned);
                    }
                }
            }
            if catch_unwind(AssertUnwindSafe(|| self.refresh())).is_err() {
                self.published.clear();
            }
        }
    }

    /// Whether the conversation is over.
    fn message(&mut self, message: Message) -> Result<bool, Problem> {
        match message {
            Message::Request(request) => {
                if self.connection.handle_shutdown(&request).map_err(ended)? {
                    return Ok(true);
                }
                self.request(request);
            }
            Message::Notification(notification) => self.notification(notification),
            Message::Response(_) => {}
        }
        Ok(false)
    }

    fn send(&self, message: impl Into<Message>) {
        // An editor that does not listen any more will say so, or be gone.
        let _ = self.connection.sender.send(message.into());
    }

    fn respond(&self, id: RequestId, answer: Answer) {
        self.send(match answer {
            Ok(result) => Response::new_ok(id, result),
            Err(Refusal(code, message)) => Response::new_err(id, code as i32, message),
        });
    }

    fn ask(&mut self, method: &str, params: Json) {
        self.n_requests += 1;
        self.send(Request::new(RequestId::from(self.n_requests), method.to_owned(), params));
    }

    /// Asks to be told when pipelines or models change on the disk.
    fn watch(&mut self) {
        if self.client.watch {
            let watchers = json!([{ "globPattern": "**/*.hift" }, { "globPattern": "**/*.json" }]);
            let registration = json!({
                "id": "files",
                "method": "workspace/didChangeWatchedFiles",
                "registerOptions": { "watchers": watchers },
            });
            self.ask("client/registerCapability", json!({ "registrations": [registration] }));
        }
    }

    fn notification(&mut self, notification: Notification) {
        let Notification { method, params } = notification;
        // Nothing is answered to a notification; what panicked has told stderr.
        let _ = catch_unwind(AssertUnwindSafe(|| self.notified(&method, params)));
    }

    fn notified(&mut self, method: &str, json: Json) -> Result<(), Refusal> {
        match method {
            "textDocument/didOpen" => {
                let opened: DidOpenTextDocumentParams = params(json)?;
                let document = opened.text_document;
                // An editor without our language may call its files by another one's name.
                let is_ours =
                    document.uri.as_ref().ends_with(".hift") || document.language_id.to_string() == "hift";
                if !is_ours {
                    return Ok(());
                }
                self.workspace.open(document.uri, document.version, document.text);
            }
            "textDocument/didChange" => {
                let changed: DidChangeTextDocumentParams = params(json)?;
                let document = changed.text_document;
                let uri = document.text_document_identifier.uri;
                self.workspace.change(&uri, document.version, changed.content_changes);
            }
            "textDocument/didClose" => {
                let closed: DidCloseTextDocumentParams = params(json)?;
                let path = Workspace::path(&closed.text_document.uri);
                self.workspace.close(&closed.text_document.uri);
                self.planned.remove(&path);
                self.asked.remove(&path);
            }
            "textDocument/didSave" | "workspace/didChangeWatchedFiles" => self.workspace.forget_all(),
            "$/cancelRequest" => {
                let cancelled: CancelParams = params(json)?;
                let id = match cancelled.id {
                    Id::Int(id) => RequestId::from(id),
                    Id::String(id) => RequestId::from(id),
                };
                let before = self.waiting.len();
                self.waiting.retain(|(waiting, _)| *waiting != id);
                if self.waiting.len() < before {
                    self.respond(id, Err(Refusal(ErrorCode::RequestCanceled, "cancelled".to_owned())));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn request(&mut self, request: Request) {
        let Request { id, method, params: json, .. } = request;
        if method == "textDocument/inlayHint" {
            match params::<InlayHintParams>(json) {
                Ok(wanted) => self.waiting.push((id, wanted)),
                Err(refusal) => self.respond(id, Err(refusal)),
            }
            return;
        }
        let answer = catch_unwind(AssertUnwindSafe(|| self.answer(&method, json)));
        let answer = answer.unwrap_or_else(|_| {
            Err(Refusal(ErrorCode::InternalError, format!("hift failed at {method}: please report it")))
        });
        self.respond(id, answer);
    }

    /// The analysis that a document is part of, the number of its source, and a position in it.
    fn view(&mut self, at: &TextDocumentPositionParams) -> Option<(Arc<Analysis>, usize, Position)> {
        let (analysis, source) = self.workspace.view(&at.text_document.uri)?;
        Some((analysis, source, at.position))
    }

    fn answer(&mut self, method: &str, json: Json) -> Answer {
        match method {
            "textDocument/completion" => {
                let wanted: CompletionParams = params(json)?;
                let view = self.view(&wanted.text_document_position_params);
                let items = view.map(|(analysis, source, position)| {
                    let snippets = self.client.snippets;
                    complete::complete(&self.workspace, &analysis, source, position, snippets)
                });
                Ok(to_json(&items.unwrap_or_default()))
            }
            "textDocument/hover" => {
                let wanted: HoverParams = params(json)?;
                let view = self.view(&wanted.text_document_position_params);
                Ok(to_json(
                    &view.and_then(|(analysis, source, position)| hover::hover(&analysis, source, position)),
                ))
            }
            "textDocument/definition" => {
                let wanted: DefinitionParams = params(json)?;
                let view = self.view(&wanted.text_document_position_params);
                Ok(to_json(&view.and_then(|(analysis, source, position)| {
                    navigate::definition(&self.workspace, &analysis, source, position)
                })))
            }
            "textDocument/references" => {
                let wanted: ReferenceParams = params(json)?;
                let definition = wanted.context.include_declaration;
                let view = self.view(&wanted.text_document_position_params);
                Ok(to_json(&view.and_then(|(analysis, source, position)| {
                    navigate::references(&mut self.workspace, &analysis, source, position, definition)
                })))
            }
            "textDocument/documentHighlight" => {
                let wanted: DocumentHighlightParams = params(json)?;
                let view = self.view(&wanted.text_document_position_params);
                Ok(to_json(&view.and_then(|(analysis, source, position)| {
                    navigate::highlights(&analysis, source, position)
                })))
            }
            "textDocument/prepareRename" => {
                let wanted: PrepareRenameParams = params(json)?;
                let view = self.view(&wanted.text_document_position_params);
                let found = view.and_then(|(analysis, source, position)| {
                    navigate::renameable(&analysis, source, position)
                });
                Ok(to_json(
                    &found.map(|(range, placeholder)| PrepareRenamePlaceholder { range, placeholder }),
                ))
            }
            "textDocument/rename" => {
                let wanted: RenameParams = params(json)?;
                let Some((analysis, source, position)) = self.view(&wanted.text_document_position_params)
                else {
                    return Ok(Json::Null);
                };
                let workspace = &mut self.workspace;
                let changes = navigate::rename(workspace, &analysis, source, position, &wanted.new_name);
                let changes = changes.map_err(|why| Refusal(ErrorCode::RequestFailed, why))?;
                Ok(to_json(&WorkspaceEdit { changes: Some(changes), ..WorkspaceEdit::default() }))
            }
            "textDocument/documentSymbol" => {
                let wanted: DocumentSymbolParams = params(json)?;
                let encoding = self.workspace.encoding;
                let text = self.text(&wanted.text_document.uri);
                Ok(to_json(&text.map(|text| outline::symbols(&text, encoding))))
            }
            "textDocument/foldingRange" => {
                let wanted: FoldingRangeParams = params(json)?;
                let text = self.text(&wanted.text_document.uri);
                Ok(to_json(&text.map(|text| outline::folds(&text))))
            }
            "textDocument/formatting" => {
                let wanted: DocumentFormattingParams = params(json)?;
                let encoding = self.workspace.encoding;
                let text = self.text(&wanted.text_document.uri);
                Ok(to_json(&text.and_then(|text| outline::formatted(&text, encoding))))
            }
            "textDocument/codeAction" => {
                let wanted: CodeActionParams = params(json)?;
                let Some((analysis, source)) = self.workspace.view(&wanted.text_document.uri) else {
                    return Ok(json!([]));
                };
                let problems = self.problems(&analysis);
                let mut actions =
                    diagnose::actions(&self.workspace, &analysis, source, &problems, wanted.range);
                if let Some(only) = &wanted.context.only {
                    // `source` asks for `source.fixAll`, too.
                    let is_wanted = |kind: &CodeActionKind| {
                        only.iter().any(|only| {
                            let rest = kind.as_str().strip_prefix(only.as_str());
                            rest.is_some_and(|rest| {
                                rest.is_empty() || rest.starts_with('.') || only.as_str().is_empty()
                            })
                        })
                    };
                    actions.retain(|action| action.kind.as_ref().is_some_and(is_wanted));
                }
                Ok(to_json(&actions))
            }
            _ => Err(Refusal(ErrorCode::MethodNotFound, format!("hift does not answer {method}"))),
        }
    }

    fn text(&self, uri: &Uri) -> Option<Arc<str>> {
        self.workspace.document(&Workspace::path(uri)).map(|document| document.text.clone())
    }

    /// The plan of a reading, if it is there.
    fn plan(&self, analysis: &Analysis) -> Option<&Planned> {
        let planned = self.planned.get(analysis.paths.first()?)?;
        (planned.revision == analysis.revision).then_some(planned)
    }

    /// What is wrong with a pipeline: its language, and as soon as that is right, its plan.
    fn problems(&self, analysis: &Analysis) -> Vec<Problem> {
        let mut problems = analysis.reading.problems.0.clone();
        for problem in self.plan(analysis).iter().flat_map(|planned| &planned.problems.0) {
            if !problems.contains(problem) {
                problems.push(problem.clone());
            }
        }
        problems
    }

    fn planned(&mut self, planned: Planned) {
        if self.asked.get(&planned.path) != Some(&planned.revision) {
            return;
        }
        let stages = planned.stages.clone();
        let before = self.planned.insert(planned.path.clone(), planned);
        let is_new = before.is_none_or(|before| before.stages != stages);
        // Those who wait are answered anyway.
        if is_new && self.waiting.is_empty() && self.client.refresh {
            self.ask("workspace/inlayHint/refresh", Json::Null);
        }
    }

    /// Tells the problems of every file that has changed, has new readings planned, and answers what waited for plans.
    fn refresh(&mut self) {
        let roots = self.workspace.roots();
        let mut shown: HashMap<PathBuf, Vec<Diagnostic>> = HashMap::new();
        for (path, analysis) in &roots {
            if self.asked.insert(path.clone(), analysis.revision) != Some(analysis.revision) {
                self.worker.ask(path.clone(), analysis.revision, analysis.reading.pipeline.as_ref());
            }
            for file in &analysis.paths {
                shown.entry(file.clone()).or_default();
            }
            let problems = self.problems(analysis);
            for (file, found) in diagnose::by_file(&self.workspace, analysis, &problems) {
                let own = shown.entry(file).or_default();
                for diagnostic in found {
                    if !own.contains(&diagnostic) {
                        own.push(diagnostic);
                    }
                }
            }
        }
        let gone: Vec<PathBuf> =
            self.published.keys().filter(|path| !shown.contains_key(*path)).cloned().collect();
        for path in gone {
            self.published.remove(&path);
            self.publish(&path, None, Vec::new());
        }
        for (path, diagnostics) in shown {
            let version = self.workspace.document(&path).map(|document| document.version);
            let state = (version, diagnostics);
            // A file that is not open and has nothing wrong is not spoken of.
            let is_known = self
                .published
                .get(&path)
                .map_or(version.is_none() && state.1.is_empty(), |own| *own == state);
            if !is_known {
                self.publish(&path, version, state.1.clone());
                self.published.insert(path, state);
            }
        }
        self.answer_hints();
    }

    fn publish(&self, path: &Path, version: Option<i32>, diagnostics: Vec<Diagnostic>) {
        let params = PublishDiagnosticsParams { uri: self.workspace.uri(path), version, diagnostics };
        self.send(Notification::new("textDocument/publishDiagnostics".to_owned(), params));
    }

    fn answer_hints(&mut self) {
        for (id, wanted) in std::mem::take(&mut self.waiting) {
            let Some((analysis, source)) = self.workspace.view(&wanted.text_document.uri) else {
                self.respond(id, Ok(json!([])));
                continue;
            };
            match (self.plan(&analysis), &analysis.reading.pipeline) {
                (Some(planned), _) => {
                    let hints = hints(&analysis, source, wanted.range, &planned.stages);
                    self.respond(id, Ok(to_json(&hints)));
                }
                (None, None) => self.respond(id, Ok(json!([]))),
                (None, Some(_)) => self.waiting.push((id, wanted)),
            }
        }
    }
}
