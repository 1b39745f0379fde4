//! The open documents, what they come to, and which of them is judged as part of which.
//!
//! An open document stands for its file wherever that is imported. A document that another open one imports is
//! judged as part of it, since names go both ways; every other one is judged for itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsp_types::{Location, Position, Range, TextDocumentContentChangeEvent, Uri};

use crate::lang::syntax::{Block, Entry};
use crate::lang::{self, Options, Outside, Reading, Source};
use crate::problem::Span;

use super::symbols::Symbols;
use super::text::{self, Encoding, Lines};

/// A document as the editor has it.
#[derive(Debug, Clone)]
pub struct Document {
    pub uri: Uri,
    pub version: i32,
    pub text: Arc<str>,
}

/// A file with what it imports, read.
pub struct Analysis {
    /// Counts up with every reading, so that an answer that comes late is known to be late.
    pub revision: u64,
    pub options: Options,
    pub reading: Reading,
    pub symbols: Symbols,
    /// The file of each source.
    pub paths: Vec<PathBuf>,
    lines: Vec<Lines>,
    pub encoding: Encoding,
}

impl Analysis {
    /// The text of a source.
    pub fn text(&self, source: usize) -> &str {
        self.reading.sources().get(source).map_or("", |source| source.text.as_str())
    }

    /// A place among all sources as a file and a range in it.
    pub fn range(&self, span: Span) -> (usize, Range) {
        let (source, span) = self.reading.sources().locate(span);
        let range = self.lines.get(source).map(|lines| lines.range(self.text(source), span, self.encoding));
        (source, range.unwrap_or_default())
    }

    /// The place among all sources of a position in one of them.
    pub fn place(&self, source: usize, position: Position) -> usize {
        let at = self.byte(source, position);
        self.reading.sources().place(source, Span::new(at, at)).start
    }

    /// The byte of a position in its own source.
    pub fn byte(&self, source: usize, position: Position) -> usize {
        self.lines.get(source).map_or(0, |lines| lines.byte(self.text(source), position, self.encoding))
    }

    /// A span of a source as a range in it.
    pub fn local(&self, source: usize, span: Span) -> Range {
        let lines = self.lines.get(source);
        lines.map_or_else(Range::default, |lines| lines.range(self.text(source), span, self.encoding))
    }

    pub fn span(&self, source: usize, range: Range) -> Span {
        Span::new(self.byte(source, range.start), self.byte(source, range.end))
    }

    /// The blocks of the top level with their kind.
    pub fn blocks<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Block> {
        self.reading.loaded.file.blocks().filter(move |block| block.kind.text == kind)
    }

    pub fn block(&self, kind: &str, name: &str) -> Option<&Block> {
        self.reading.loaded.file.blocks().find(|block| block.kind.text == kind && block.is_called(name))
    }

    /// An entry of a block, or of those that it takes over.
    pub fn entry<'a>(&'a self, block: &'a Block, key: &str) -> Option<&'a Entry> {
        let mut block = block;
        // As many steps as there are blocks: bases may run in a circle.
        for _ in 0..=self.reading.loaded.file.items.len() {
            if let Some(entry) = block.entries.iter().find(|entry| entry.name.text == key) {
                return Some(entry);
            }
            block = self.block(&block.kind.text, &block.base.as_ref()?.text)?;
        }
        None
    }

    /// The entry whose key is at a place.
    pub fn entry_at(&self, at: usize) -> Option<&Entry> {
        fn within(blocks: &[Block], at: usize) -> Option<&Entry> {
            blocks.iter().filter(|block| block.span.start <= at && at <= block.span.end).find_map(|block| {
                let own = block
                    .entries
                    .iter()
                    .find(|entry| entry.name.span.start <= at && at <= entry.value.span.end);
                own.or_else(|| within(&block.blocks, at))
            })
        }
        self.reading.loaded.file.blocks().find_map(|block| within(std::slice::from_ref(block), at))
    }
}

/// Everything that the editor has told.
pub struct Workspace {
    outside: Arc<dyn Outside + Send + Sync>,
    pub encoding: Encoding,
    /// Folders that the editor has open.
    pub folders: Vec<PathBuf>,
    documents: BTreeMap<PathBuf, Document>,
    /// In the order in which they were opened.
    opened: Vec<PathBuf>,
    analyses: HashMap<PathBuf, Arc<Analysis>>,
    n_readings: u64,
}

impl Workspace {
    pub fn new(outside: Arc<dyn Outside + Send + Sync>) -> Self {
        Self {
            outside,
            encoding: Encoding::Utf16,
            folders: Vec::new(),
            documents: BTreeMap::new(),
            opened: Vec::new(),
            analyses: HashMap::new(),
            n_readings: 0,
        }
    }

    /// The file of an address; a document that is no file has its address for a path.
    pub fn path(uri: &Uri) -> PathBuf {
        text::path(uri).unwrap_or_else(|| PathBuf::from(uri.as_ref()))
    }

    /// The address of a file, as the editor calls it.
    pub fn uri(&self, path: &Path) -> Uri {
        self.documents.get(path).map_or_else(|| text::uri(path), |document| document.uri.clone())
    }

    pub fn document(&self, path: &Path) -> Option<&Document> {
        self.documents.get(path)
    }

    pub fn open(&mut self, uri: Uri, version: i32, text: String) {
        let path = Self::path(&uri);
        if !self.opened.contains(&path) {
            self.opened.push(path.clone());
        }
        self.documents.insert(path.clone(), Document { uri, version, text: text.into() });
        self.forget(&path);
    }

    pub fn change(&mut self, uri: &Uri, version: i32, changes: Vec<TextDocumentContentChangeEvent>) {
        let path = Self::path(uri);
        if let Some(document) = self.documents.get_mut(&path) {
            document.text = text::edited(document.text.to_string(), changes, self.encoding).into();
            document.version = version;
            self.forget(&path);
        }
    }

    pub fn close(&mut self, uri: &Uri) {
        let path = Self::path(uri);
        self.documents.remove(&path);
        self.opened.retain(|opened| *opened != path);
        self.analyses.remove(&path);
        self.forget(&path);
    }

    /// What was read with the file is out of date, and so is what could not find a file.
    fn forget(&mut self, path: &Path) {
        self.analyses.retain(|_, analysis| {
            let problems = &analysis.reading.problems.0;
            !analysis.paths.iter().any(|own| own == path)
                && !problems.iter().any(|problem| problem.code == "hift::lang::import")
        });
    }

    /// Files on the disk may have changed.
    pub fn forget_all(&mut self) {
        self.analyses.clear();
    }

    /// Reads a file that starts with this text, or that the editor has open.
    pub fn read(&mut self, path: &Path, text: &str) -> Analysis {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let texts = self.documents.iter().map(|(path, open)| (path.clone(), open.text.clone())).collect();
        let outside = Arc::new(Overlay { texts, disk: self.outside.clone() });
        let options = Options { folder, outside, ..Options::default() };
        let reading = lang::read(Source::new(path.display().to_string(), text), &options);
        let paths: Vec<PathBuf> = reading
            .sources()
            .iter()
            .enumerate()
            .map(|(i, source)| if i == 0 { path.to_path_buf() } else { PathBuf::from(&source.name) })
            .collect();
        self.n_readings += 1;
        Analysis {
            revision: self.n_readings,
            options,
            symbols: Symbols::new(&reading.loaded),
            lines: reading.sources().iter().map(|source| Lines::new(&source.text)).collect(),
            reading,
            paths,
            encoding: self.encoding,
        }
    }

    fn analysis(&mut self, path: &Path) -> Option<Arc<Analysis>> {
        if let Some(known) = self.analyses.get(path) {
            return Some(known.clone());
        }
        let text = self.documents.get(path)?.text.clone();
        let analysis = Arc::new(self.read(path, &text));
        self.analyses.insert(path.to_path_buf(), analysis.clone());
        Some(analysis)
    }

    /// The documents that are judged for themselves, in the order in which they were opened.
    pub fn roots(&mut self) -> Vec<(PathBuf, Arc<Analysis>)> {
        let opened = self.opened.clone();
        let all: Vec<(PathBuf, Arc<Analysis>)> =
            opened.into_iter().filter_map(|path| Some((path.clone(), self.analysis(&path)?))).collect();
        let imported: HashSet<&PathBuf> = all.iter().flat_map(|(_, analysis)| &analysis.paths[1..]).collect();
        let mut covered: HashSet<PathBuf> = HashSet::new();
        let mut is_root = vec![false; all.len()];
        // First those that nobody imports, then one of each circle.
        for circles in [false, true] {
            for (i, (path, analysis)) in all.iter().enumerate() {
                let free = if circles { !covered.contains(path) } else { !imported.contains(path) };
                if free && !is_root[i] {
                    is_root[i] = true;
                    covered.extend(analysis.paths.iter().cloned());
                }
            }
        }
        all.iter().zip(is_root).filter(|(_, is_root)| *is_root).map(|(root, _)| root.clone()).collect()
    }

    /// What a document is part of, and which source of it.
    pub fn view(&mut self, uri: &Uri) -> Option<(Arc<Analysis>, usize)> {
        let path = Self::path(uri);
        self.documents.get(&path)?;
        self.roots().into_iter().find_map(|(_, analysis)| {
            let source = analysis.paths.iter().position(|own| *own == path)?;
            Some((analysis, source))
        })
    }

    pub fn location(&self, analysis: &Analysis, span: Span) -> Location {
        let (source, range) = analysis.range(span);
        let path = analysis.paths.get(source).or(analysis.paths.first());
        Location { uri: path.map_or_else(|| Uri(String::new()), |path| self.uri(path)), range }
    }

    /// Every pipeline, open or in an open folder, that is made of this file among others.
    pub fn users(&mut self, path: &Path) -> Vec<Arc<Analysis>> {
        let mut users: Vec<Arc<Analysis>> = self.roots().into_iter().map(|(_, analysis)| analysis).collect();
        let mut folders = self.folders.clone();
        folders.extend(path.parent().map(Path::to_path_buf));
        for file in pipelines(&folders) {
            if self.documents.contains_key(&file) {
                continue;
            }
            if let Ok(text) = self.outside.read(&file) {
                users.push(Arc::new(self.read(&file, &text)));
            }
        }
        users.retain(|analysis| analysis.paths.iter().any(|own| own == path));
        users
    }

    /// The text of a file: the editor's, or the disk's.
    pub fn file(&self, path: &Path) -> Result<String, String> {
        match self.documents.get(path) {
            Some(document) => Ok(document.text.to_string()),
            None => self.outside.read(path),
        }
    }
}

/// The open documents in front of the disk.
struct Overlay {
    texts: HashMap<PathBuf, Arc<str>>,
    disk: Arc<dyn Outside + Send + Sync>,
}

impl Outside for Overlay {
    fn read(&self, path: &Path) -> Result<String, String> {
        match self.texts.get(path) {
            Some(text) => Ok(text.to_string()),
            None => self.disk.read(path),
        }
    }

    fn env(&self, name: &str) -> Option<String> {
        self.disk.env(name)
    }
}

/// The most files and folders that are looked through for pipelines.
const MAX_LOOK: usize = 5_000;

/// How deep in folders pipelines are looked for.
const MAX_DEPTH: usize = 6;

/// The pipeline files in and below folders.
fn pipelines(folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut waiting: Vec<(PathBuf, usize)> = folders.iter().map(|folder| (folder.clone(), 0)).collect();
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    let mut looked = 0;
    while let Some((folder, depth)) = waiting.pop() {
        if !seen.insert(folder.clone()) {
            continue;
        }
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            looked += 1;
            if looked > MAX_LOOK {
                return found;
            }
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && depth < MAX_DEPTH && !name.starts_with('.') && name != "target" {
                waiting.push((path, depth + 1));
            } else if !is_folder && name.ends_with(".hift") && !found.contains(&path) {
                found.push(path);
            }
        }
    }
    found
}
