//! Tokens that were made once, kept between runs.
//!
//! ```text
//! CACHE/KEY.arrow     ids and labels of all rows, an arrow stream, mapped into memory when read
//! CACHE/KEY.json      what it was made from, its hash, what became of the rows; written last
//! CACHE/KEY.lock      held while it is being made
//! ```
//!
//! The key is a hash of what the tokens follow from, and of nothing else: the content of the data, the tokenizer and
//! the chat template, and the settings that apply. Each file is written beside its place and renamed, so a killed
//! run leaves nothing that looks whole. Whoever wants tokens that another process is making waits for them.
//!
//! The folder is `HIFT_CACHE`, else `hift` in `XDG_CACHE_HOME`, else `.cache/hift` in `HOME`; without any of these, or
//! with an empty `HIFT_CACHE`, nothing is kept. A cache that cannot be written is no reason to fail.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use arrow_array::{ArrayRef, LargeListArray, RecordBatch, UInt32Array};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, Schema};
use fs4::fs_std::FileExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::audit::Counts;
use super::sequences::{Sequences, Stretch};
use super::{arrow, files};
use crate::lock::Hashed;
use crate::units::Bytes;

/// Changes whenever the same inputs give other tokens, or tokens are kept in another form.
const FORM: u32 = 2;

/// How often one looks whether another process is done.
const GLANCE: Duration = Duration::from_millis(20);

/// A folder of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    folder: PathBuf,
}

/// What tokens follow from: names, such as the path of a file, with what they stood for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// Which data block of which files it is for; tells which tokens were made for the same before.
    pub purpose: String,
    /// In the order in which they were read. The names do not matter, the hashes do.
    pub files: Vec<(String, String)>,
    pub settings: BTreeMap<String, String>,
}

/// What lies beside the tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Card {
    form: u32,
    origin: Origin,
    /// Of the arrow file, in lowercase hexadecimal.
    sha256: String,
    bytes: u64,
    counts: Counts,
}

/// What the cache did for a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cached {
    /// There is no cache.
    Off,
    /// The tokens were there.
    Read,
    /// The tokens were made; what has changed since they were last made, if they ever were.
    Made(Vec<String>),
}

impl Cached {
    /// Of two sources together: read only if both were.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Cached::Off, _) | (_, Cached::Off) => Cached::Off,
            (Cached::Made(mut changed), Cached::Made(others)) => {
                // What the blocks of a mix share has changed once.
                let news: Vec<String> = others.into_iter().filter(|other| !changed.contains(other)).collect();
                changed.extend(news);
                Cached::Made(changed)
            }
            (Cached::Made(changed), Cached::Read) | (Cached::Read, Cached::Made(changed)) => {
                Cached::Made(changed)
            }
            (Cached::Read, Cached::Read) => Cached::Read,
        }
    }
}

/// Tokens in the cache, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub key: String,
    pub bytes: u64,
    /// The files that were tokenised.
    pub files: Vec<String>,
    /// Seconds since they were last used.
    pub unused_for: u64,
}

impl Cache {
    /// The cache that the environment asks for, if any.
    pub fn of_environment(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let folder = match variable("HIFT_CACHE") {
            Some(folder) => PathBuf::from(folder),
            None => {
                let filled = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
                // A relative XDG_CACHE_HOME is to be ignored, says the standard.
                let caches = filled("XDG_CACHE_HOME").filter(|folder| folder.is_absolute());
                caches.or_else(|| Some(filled("HOME")?.join(".cache")))?.join("hift")
            }
        };
        (!folder.as_os_str().is_empty()).then_some(Self { folder })
    }

    /// A cache in this folder, which need not be there.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The tokens of this origin, or those that `make` puts on a shelf, which are then kept. Where the folder cannot be
    /// written, or turns out to be full, they are made in memory; `make` may be called a second time.
    ///
    /// # Errors
    /// Those of `make` only.
    pub(super) fn get_or<E>(
        &self,
        origin: &Origin,
        cancelled: &dyn Fn() -> bool,
        mut make: impl FnMut(&mut Shelf) -> Result<(Counts, bool), E>,
    ) -> Result<(Sequences, Counts, Cached), E> {
        let key = origin.key();
        if let Some((rows, counts)) = self.read(&key, cancelled) {
            return Ok((rows, counts, Cached::Read));
        }
        // Without a lock (a folder that cannot be written) tokens are made all the same; who was interrupted while
        // waiting for it hears so from `make`.
        let lock = self.lock(&key, cancelled).ok();
        if lock.is_some()
            && let Some((rows, counts)) = self.read(&key, cancelled)
        {
            return Ok((rows, counts, Cached::Read));
        }
        let changed = self.changed(origin);
        // The process in the name keeps two that cannot lock from writing to one file.
        let part = self.path(&key, &format!("arrow.{}.part", std::process::id()));
        let mut shelf = match lock.as_ref().map(|_| Writing::new(part.clone())) {
            Some(Ok(writing)) => Shelf::File(Box::new(writing)),
            Some(Err(_)) | None => Shelf::Memory(Sequences::default()),
        };
        let (mut counts, is_kept) = match make(&mut shelf) {
            Ok(made) => made,
            Err(error) => {
                drop(shelf);
                let _ = fs::remove_file(&part);
                // Only who holds it may.
                if lock.is_some() {
                    let _ = fs::remove_file(self.path(&key, "lock"));
                }
                return Err(error);
            }
        };
        let mut written = match shelf {
            Shelf::File(writing) => writing.finish().ok(),
            Shelf::Memory(rows) => return Ok((rows.share(), counts, Cached::Off)),
        };
        // Mapped before it has its name: from then on it is another process's, too.
        let mut rows = written.as_ref().and_then(|_| mapped(&part));
        let mut is_there = false;
        let is_kept = is_kept && rows.as_ref().is_some_and(|rows| !rows.is_empty());
        if let (Some((sha256, bytes)), true) = (written.take(), is_kept) {
            let card = Card { form: FORM, origin: origin.clone(), sha256, bytes, counts: counts.clone() };
            is_there = self.put(&key, &part, &card).is_ok();
        }
        let _ = fs::remove_file(&part);
        if rows.is_none() {
            let mut shelf = Shelf::Memory(Sequences::default());
            counts = make(&mut shelf)?.0;
            if let Shelf::Memory(own) = shelf {
                rows = Some(own.share());
            }
        }
        // While it is held, so that nobody can come between; those who wait take another.
        let _ = fs::remove_file(self.path(&key, "lock"));
        drop(lock);
        let cached = if is_there { Cached::Made(changed) } else { Cached::Off };
        Ok((rows.unwrap_or_default(), counts, cached))
    }

    fn path(&self, key: &str, extension: &str) -> PathBuf {
        self.folder.join(format!("{key}.{extension}"))
    }

    /// Holds the key's lock; waits for whoever has it, until `cancelled` says that it is of no use.
    fn lock(&self, key: &str, cancelled: &dyn Fn() -> bool) -> io::Result<File> {
        fs::create_dir_all(&self.folder)?;
        loop {
            let path = self.path(key, "lock");
            let file = File::options().create(true).append(true).open(&path)?;
            while !FileExt::try_lock_exclusive(&file)? {
                if cancelled() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                thread::sleep(GLANCE);
            }
            // Whoever had it may have removed it: a lock on a file without a name excludes nobody.
            if same_file(&file, &path) {
                return Ok(file);
            }
        }
    }

    /// The tokens of a key, if they are there and whole.
    fn read(&self, key: &str, cancelled: &dyn Fn() -> bool) -> Option<(Sequences, Counts)> {
        let card = self.card(key)?;
        let path = self.path(key, "arrow");
        // Not through the mapping, whose pages would all count as this process's.
        let hashed = Hashed::stream("", &path, cancelled).ok()??;
        if hashed.bytes != card.bytes || hashed.sha256 != card.sha256 {
            return None;
        }
        let rows = mapped(&path)?;
        // When it was last used decides what `prune` removes.
        let _ = File::options()
            .append(true)
            .open(self.path(key, "json"))
            .and_then(|card| card.set_modified(SystemTime::now()));
        Some((rows, card.counts))
    }

    fn card(&self, key: &str) -> Option<Card> {
        let card: Card = serde_json::from_slice(&fs::read(self.path(key, "json")).ok()?).ok()?;
        (card.form == FORM).then_some(card)
    }

    /// Gives tokens that were written their name, and then the card that says they are whole.
    fn put(&self, key: &str, part: &Path, card: &Card) -> io::Result<()> {
        fs::rename(part, self.path(key, "arrow"))?;
        let beside = self.path(key, &format!("json.{}.part", std::process::id()));
        let write = || {
            let file = File::create(&beside)?;
            serde_json::to_writer_pretty(&file, card).map_err(io::Error::other)?;
            file.sync_all()?;
            fs::rename(&beside, self.path(key, "json"))
        };
        write().inspect_err(|_| drop(fs::remove_file(&beside)))
    }

    /// What is not as it was when tokens were last made for the same purpose.
    fn changed(&self, origin: &Origin) -> Vec<String> {
        let same = self.keys().into_iter().filter_map(|key| {
            let card = self.card(&key)?;
            let made = fs::metadata(self.path(&key, "json")).and_then(|file| file.modified()).ok()?;
            (card.origin.purpose == origin.purpose).then_some((made, card.origin))
        });
        same.max_by_key(|(made, _)| *made).map_or(Vec::new(), |(_, before)| origin.differs(&before))
    }

    fn keys(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let name = |entry: fs::DirEntry| Some(entry.file_name().to_str()?.strip_suffix(".json")?.to_owned());
        let mut keys: Vec<String> = entries.filter_map(name).collect();
        keys.sort_unstable();
        keys
    }

    /// All that is there, least recently used first.
    pub fn list(&self) -> Vec<Entry> {
        let now = SystemTime::now();
        let entry = |key: String| {
            let card: Card = serde_json::from_slice(&fs::read(self.path(&key, "json")).ok()?).ok()?;
            let used = fs::metadata(self.path(&key, "json")).and_then(|file| file.modified()).ok()?;
            Some(Entry {
                bytes: card.bytes,
                files: card.origin.files.into_iter().map(|(path, _)| path).collect(),
                unused_for: now.duration_since(used).unwrap_or_default().as_secs(),
                key,
            })
        };
        let mut entries: Vec<Entry> = self.keys().into_iter().filter_map(entry).collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.unused_for));
        entries
    }

    /// Removes what was not used for so long, and what killed runs have left. What is being made stays.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn prune(&self, unused_for: Duration) -> io::Result<(usize, Bytes)> {
        let old = |path: &Path| {
            let used = fs::metadata(path).and_then(|file| file.modified()).ok();
            used.and_then(|used| SystemTime::now().duration_since(used).ok())
                .is_some_and(|age| age >= unused_for)
        };
        let (mut n, mut bytes) = (0, 0);
        for key in self.keys() {
            if !old(&self.path(&key, "json")) {
                continue;
            }
            // The card goes first: tokens without one are not there.
            fs::remove_file(self.path(&key, "json"))?;
            let tokens = self.path(&key, "arrow");
            bytes += fs::metadata(&tokens).map_or(0, |file| file.len());
            if tokens.exists() {
                fs::remove_file(tokens)?;
            }
            n += 1;
        }
        let keys = self.keys();
        for file in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let (path, name) = (file.path(), file.file_name().to_string_lossy().into_owned());
            let Some((key, rest)) = name.split_once('.') else { continue };
            // Only what this cache writes: the folder may be someone's own.
            let is_key = key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
            let is_left = is_key
                && (rest.ends_with(".part")
                    || rest == "lock"
                    || (rest == "arrow" && !keys.contains(&key.to_owned())));
            if !is_left {
                continue;
            }
            let lock = File::options().append(true).open(self.path(key, "lock"));
            let is_free =
                lock.as_ref().map_or(true, |lock| FileExt::try_lock_exclusive(lock).unwrap_or(false));
            if is_free {
                bytes += file.metadata().map_or(0, |file| file.len());
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok((n, Bytes(bytes)))
    }
}

/// Where tokens are put while they are made.
pub(super) enum Shelf {
    Memory(Sequences),
    File(Box<Writing>),
}

impl Shelf {
    /// Puts more rows behind those that are there.
    pub fn put(&mut self, rows: Sequences) {
        match self {
            Shelf::Memory(all) => all.append(rows),
            Shelf::File(writing) => writing.put(rows),
        }
    }
}

/// Tokens on their way into a file. A thread of its own writes and hashes them, while others are being made.
pub(super) struct Writing {
    waiting: Sequences,
    /// Where they go. No more are under way than can be written soon.
    batches: SyncSender<Sequences>,
    thread: JoinHandle<io::Result<Written>>,
}

/// A file that is complete, but perhaps not yet on the disk.
struct Written {
    file: File,
    /// In lowercase hexadecimal.
    sha256: String,
    bytes: u64,
}

/// Tokens that are written together.
const BATCH_TOKENS: u64 = 1 << 18;

impl Writing {
    fn new(path: PathBuf) -> io::Result<Self> {
        let file = File::create(path)?;
        let (batches, written) = sync_channel(1);
        let thread = thread::Builder::new().spawn(move || write(file, written))?;
        Ok(Self { waiting: Sequences::default(), batches, thread })
    }

    fn put(&mut self, rows: Sequences) {
        self.waiting.append(rows);
        if self.waiting.tokens() >= BATCH_TOKENS {
            self.send();
        }
    }

    fn send(&mut self) {
        // A thread that takes no more has failed; what comes after that is thrown away, and `finish` says why.
        let _ = self.batches.send(std::mem::take(&mut self.waiting));
    }

    /// The hash and the size of the file, which is on the disk then.
    fn finish(mut self) -> io::Result<(String, u64)> {
        self.send();
        // Nothing more comes.
        drop(self.batches);
        let written =
            self.thread.join().map_err(|_| io::Error::other("the thread that writes has failed"))?;
        let Written { file, sha256, bytes } = written?;
        file.sync_all()?;
        Ok((sha256, bytes))
    }
}

/// Writes rows into a file, a batch for each stretch, until no more come.
fn write(file: File, batches: Receiver<Sequences>) -> io::Result<Written> {
    let item = Arc::new(Field::new("item", DataType::UInt32, false));
    let field = |name: &str| Field::new(name, DataType::LargeList(item.clone()), false);
    let schema = Arc::new(Schema::new(vec![field("ids"), field("labels")]));
    let file = Sum { inner: file, digest: Sha256::new(), bytes: 0 };
    let file = io::BufWriter::with_capacity(1 << 20, file);
    let mut writer = StreamWriter::try_new(file, &schema).map_err(io::Error::other)?;
    for stretch in batches.iter().flat_map(Sequences::stretches) {
        let (ids, labels, offsets) = stretch.columns();
        let offsets = OffsetBuffer::new(offsets);
        let list = |words: ScalarBuffer<u32>| {
            let words = Arc::new(UInt32Array::new(words, None));
            LargeListArray::new(item.clone(), offsets.clone(), words, None)
        };
        let columns: Vec<ArrayRef> = vec![Arc::new(list(ids)), Arc::new(list(labels))];
        let batch = RecordBatch::try_new(schema.clone(), columns).map_err(io::Error::other)?;
        writer.write(&batch).map_err(io::Error::other)?;
    }
    writer.finish().map_err(io::Error::other)?;
    let mut file = writer.into_inner().map_err(io::Error::other)?;
    file.flush()?;
    let Sum { inner, digest, bytes } =
        file.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Written { file: inner, sha256: hexadecimal(&digest.finalize()), bytes })
}

/// The rows of a file of tokens, which stay in it.
fn mapped(path: &Path) -> Option<Sequences> {
    let bytes = files::mapped(path).ok()?;
    let stretch = |batch: RecordBatch| {
        let column = |name| {
            let lists = batch.column_by_name(name)?.as_list_opt::<i64>()?;
            let words = lists.values().as_primitive_opt::<UInt32Type>()?.values().clone();
            Some((words, lists.offsets().inner().clone()))
        };
        let (ids, offsets) = column("ids")?;
        let (labels, _) = column("labels")?;
        let is_whole = ids.len() == labels.len() && offsets.last().copied() == Some(ids.len() as i64);
        is_whole.then(|| Stretch::new(ids, labels, offsets).mapped())
    };
    let stretches: Option<Vec<Stretch>> =
        arrow::decode(bytes).ok()?.map(|batch| batch.ok().and_then(stretch)).collect();
    Some(Sequences::of(stretches?))
}

#[cfg(unix)]
fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(own), Ok(named)) => (own.dev(), own.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn same_file(_: &File, _: &Path) -> bool {
    true // there, a file that is open cannot be removed
}

/// Hashes and counts what passes through it.
struct Sum<W> {
    inner: W,
    digest: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Sum<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.digest.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Origin {
    /// A hash of the files' content, in their order, and of the settings.
    fn key(&self) -> String {
        let hashes: Vec<&String> = self.files.iter().map(|(_, hash)| hash).collect();
        let whole = serde_json::to_vec(&(FORM, hashes, &self.settings)).expect("texts are JSON");
        hexadecimal(&Sha256::digest(whole))
    }

    /// What is not as it was.
    fn differs(&self, before: &Origin) -> Vec<String> {
        let mut changes = Vec::new();
        let short = |hash: &str| hash.chars().take(12).collect::<String>();
        for (path, hash) in &self.files {
            match before.files.iter().find(|(other, _)| other == path) {
                Some((_, was)) if was != hash => {
                    changes.push(format!("`{path}` was sha256 {}, is {}", short(was), short(hash)));
                }
                Some(_) => {}
                None => changes.push(format!("`{path}` is new: sha256 {}", short(hash))),
            }
        }
        for (path, _) in &before.files {
            if !self.files.iter().any(|(other, _)| other == path) {
                changes.push(format!("`{path}` is no longer read"));
            }
        }
        for (name, value) in &self.settings {
            let was = before.settings.get(name).map_or("not there", String::as_str);
            if was != value {
                changes.push(format!("`{name}` was {was}, is {value}"));
            }
        }
        changes
    }
}
