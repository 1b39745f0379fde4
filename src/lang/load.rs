//! A file and what it imports, as one: imports are replaced by the items of the file that they name.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::problem::{Edit, Fault, Problem, Problems};

use super::names::{nearest, quoted, sure};
use super::parse::parse;
use super::resolve::Options;
use super::source::{Source, Sources};
use super::syntax::{Entry, File, Import, Item, Shift};
use super::too_many;

/// Files that one pipeline may be made of.
const MAX_FILES: usize = 64;

/// Bytes of text that one pipeline may be made of. A long one has a tenth of it.
const MAX_TEXT: usize = 512 << 10;

/// A file with everything it imports.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Without imports; every place in it is one of `sources`.
    pub file: File,
    pub sources: Sources,
    /// Values that imports give to params of what they import. Names above item number `above` may be used in them.
    pub given: Vec<Given>,
}

/// `{ peak = 1e-5 }` behind an import.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    pub entry: Entry,
    /// How many params and lets stand above the import.
    pub above: usize,
}

/// Reads a file and, through `options.outside`, what it imports.
pub fn load(source: Source, options: &Options) -> (Loaded, Problems) {
    let mut loader = Loader {
        options,
        loaded: Loaded::default(),
        problems: Problems::default(),
        open: vec![normal(&options.folder.join(file_name(&source.name)))],
        done: HashMap::new(),
        n_names: 0,
    };
    loader.file(source);
    (loader.loaded, loader.problems)
}

struct Loader<'o> {
    options: &'o Options,
    loaded: Loaded,
    problems: Problems,
    /// The files that are being read, outermost first.
    open: Vec<PathBuf>,
    /// The files that have been read, and the params that they and what they import have.
    done: HashMap<PathBuf, Arc<HashSet<String>>>,
    /// Params and lets so far.
    n_names: usize,
}

impl Loader<'_> {
    fn file(&mut self, source: Source) {
        if self.loaded.sources.end() + source.text.len() > MAX_TEXT {
            let what =
                if self.loaded.sources.is_empty() { "this file has" } else { "the files together have" };
            self.problems.push(
                Problem::new(
                    "hift::lang::too_much",
                    format!("{what} more than {} KiB of text", MAX_TEXT >> 10),
                )
                .help("say it in fewer words; rows and texts to learn from stand in files of their own"),
            );
            self.loaded.file.damaged = true;
            self.loaded.sources.push(Source { text: String::new(), ..source });
            return;
        }
        let (mut file, mut problems) = parse(&source.text);
        let folder = source.folder.clone();
        let is_first = self.loaded.sources.is_empty();
        let begin = self.loaded.sources.push(source);
        file.shift(begin);
        problems.0.iter_mut().for_each(|problem| problem.shift(begin));
        self.problems.0.extend(problems.0);
        if !is_first {
            let last = self.loaded.sources.len() - 1;
            super::resolve::version(&file, &self.loaded.sources, last, &mut self.problems);
        }
        let damaged = file.is_damaged();
        if is_first {
            self.loaded.file.version = file.version;
        }
        self.loaded.file.damaged |= damaged;
        for item in file.items {
            if let Item::Import(import) = &item
                && too_many(&mut self.problems, import.span)
            {
                self.loaded.file.damaged = true;
                break;
            }
            match item {
                Item::Import(import) => self.import(&import, &folder),
                Item::Param(_) | Item::Let(_) => {
                    self.n_names += 1;
                    self.loaded.file.items.push(item);
                }
                Item::Block(_) => self.loaded.file.items.push(item),
            }
        }
    }

    fn import(&mut self, import: &Import, folder: &Path) {
        let above = self.n_names;
        let path = normal(&folder.join(&import.path));
        let params = self
            .done
            .get(&normal(&self.options.folder.join(&path)))
            .cloned()
            .or_else(|| self.read(import, &path));
        let Some(params) = params else {
            self.loaded.file.damaged = true;
            return;
        };
        for entry in &import.entries {
            if params.contains(&entry.name.text) {
                self.loaded.given.push(Given { entry: entry.clone(), above });
                continue;
            }
            if too_many(&mut self.problems, entry.name.span) {
                break;
            }
            let mut names: Vec<&str> = params.iter().map(String::as_str).collect();
            names.sort_unstable();
            self.problems.push(
                Problem::new(
                    "hift::lang::import",
                    format!("`{}` has no param `{}`", import.path, entry.name.text),
                )
                .label(entry.name.span, "not a param there")
                .fix_with(
                    sure(&entry.name.text, names.iter().copied())
                        .map(|meant| Edit { span: entry.name.span, text: meant.to_owned() }),
                )
                .help(
                    match (nearest(&entry.name.text, names.iter().copied()), names.as_slice()) {
                        (Some(meant), _) => format!("did you mean `{meant}`?"),
                        (None, []) => "only params can be given; remove it, or make it a param there".into(),
                        (None, names) => format!("its params are {}", quoted(names.iter().copied(), "and")),
                    },
                ),
            );
        }
    }

    /// Reads an imported file; which params it and what it imports have.
    fn read(&mut self, import: &Import, path: &Path) -> Option<Arc<HashSet<String>>> {
        // The same file, however the path to it is written.
        let full = normal(&self.options.folder.join(path));
        if let Some(at) = self.open.iter().position(|open| *open == full) {
            let circle = self.open[at..].iter().chain([&full]);
            let circle: Vec<String> =
                circle.map(|path| file_name(&path.display().to_string()).to_owned()).collect();
            self.problems.push(
                Problem::new(
                    "hift::lang::circle",
                    match circle.len() {
                        2 => format!("`{}` imports itself", circle[0]),
                        _ => {
                            format!("these files import each other in a circle: {}", circle.join(" imports "))
                        }
                    },
                )
                .label(import.path_span, "closes the circle")
                .help("put what both need into a third file, and import that"),
            );
            return None;
        }
        if self.loaded.sources.len() >= MAX_FILES {
            self.problems.push(
                Problem::new(
                    "hift::lang::import",
                    format!("a pipeline is made of more than {MAX_FILES} files"),
                )
                .label(import.path_span, "one too many")
                .help("put what belongs together into one file"),
            );
            return None;
        }
        let text = match self.options.outside.read(&full) {
            Ok(text) => text,
            Err(error) => {
                self.problems.push(
                    Problem::of(
                        Fault::Missing,
                        "hift::lang::import",
                        format!("`{}` cannot be read: {error}", import.path),
                    )
                    .label(import.path_span, "imported here")
                    .help("paths start from the folder of the file that they stand in"),
                );
                return None;
            }
        };
        // Called as the first file is, so that a terminal can open it.
        let shown = match self.loaded.sources.first().map(|first| Path::new(&first.name)) {
            Some(first) => normal(&first.parent().unwrap_or(Path::new("")).join(path)),
            None => path.to_path_buf(),
        };
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let from = self.loaded.file.items.len();
        self.open.push(full.clone());
        self.file(Source { name: shown.display().to_string(), text, folder });
        self.open.pop();
        let params = self.loaded.file.items[from..].iter().filter_map(|item| match item {
            Item::Param(param) => Some(param.name.text.clone()),
            Item::Import(_) | Item::Let(_) | Item::Block(_) => None,
        });
        let params: Arc<HashSet<String>> = Arc::new(params.collect());
        self.done.insert(full, params.clone());
        Some(params)
    }
}

/// The last part of a path.
fn file_name(path: &str) -> &str {
    Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or("")
}

/// The path without `.` and, where the folder before them is known, without `..`.
pub fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(normal.components().next_back(), Some(Component::Normal(_))) => {
                normal.pop();
            }
            Component::ParentDir | Component::Normal(_) | Component::RootDir | Component::Prefix(_) => {
                normal.push(part)
            }
        }
    }
    normal
}
