//! Text to token ids: a thin border around the `tokenizers` crate, so that it can be exchanged.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde_json::Value;
use tokenizers::tokenizer::{Encoding, Token};

use super::files::{self, nearest};
use super::question::PairMarks;
use crate::lang::pipeline::{Mark, Setting, Tokenizer};
use crate::lock::Hashed;
use crate::problem::{Problem, Problems, Span};

/// A loaded `tokenizer.json`. It neither cuts nor pads, whatever the file says: that is the pipeline's matter.
#[derive(Debug, Clone)]
pub struct Encoder {
    inner: tokenizers::Tokenizer,
    /// The path as written.
    path: String,
    span: Option<Span>,
    /// What the post-processor puts in front of a text.
    before: Vec<u32>,
    /// What the post-processor puts behind a text.
    after: Vec<u32>,
    /// The special tokens that swallow the white space behind them, with their texts.
    swallowing: HashMap<u32, String>,
    eos: Option<Eos>,
    /// The file and those beside it that were read.
    hashes: Vec<Hashed>,
    /// The tokenizers crate remembers words for each thread, and forgets them only when the thread ends: these end with
    /// the encoder. They start when they are needed.
    threads: Arc<OnceLock<Option<ThreadPool>>>,
}

/// The end mark that a file beside the tokenizer names.
#[derive(Debug, Clone)]
enum Eos {
    /// Its text, and the file that says so.
    Token(String, String),
    Id(u32),
}

/// The special tokens around a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    pub begin: Vec<u32>,
    pub end: Vec<u32>,
}

impl Encoder {
    /// Loads the tokenizer of a block.
    ///
    /// # Errors
    /// No file is named; the file is missing (66) or is not a tokenizer.
    pub fn open(folder: &Path, tokenizer: &Tokenizer) -> Result<Self, Problem> {
        match &tokenizer.file.value {
            Some(file) => Self::load(folder, file, tokenizer.file.span()),
            None => Err(Problem::new("hift::data::no_tokenizer", "text needs a tokenizer")
                .label(tokenizer.span, "no `file` here")
                .help("write `file = \"path/to/tokenizer.json\"`")),
        }
    }

    /// Loads a `tokenizer.json`, and the end mark that its neighbours name. `span` is where the path stands.
    ///
    /// # Errors
    /// The file is missing (66) or is not a tokenizer.
    pub fn load(folder: &Path, file: &str, span: Option<Span>) -> Result<Self, Problem> {
        let (bytes, hashed) = files::read(folder, file, span)?;
        let not_a_tokenizer = |error: tokenizers::Error| {
            Problem::new("hift::data::tokenizer_file", format!("`{file}` is not a tokenizer: {error}"))
                .label_at(span, "this file")
                .help("a `tokenizer.json` as Hugging Face's fast tokenizers save it is needed")
        };
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(not_a_tokenizer)?;
        inner.with_truncation(None).map_err(not_a_tokenizer)?;
        inner.with_padding(None);
        let (before, after) = added_marks(&inner).map_err(not_a_tokenizer)?;
        let mut hashes = vec![hashed];
        let eos = find_eos(folder, file, &mut hashes);
        let added = inner.get_added_tokens_decoder().into_iter();
        let swallowing =
            added.filter(|(_, token)| token.rstrip).map(|(id, token)| (id, token.content)).collect();
        Ok(Self {
            inner,
            path: file.to_owned(),
            span,
            before,
            after,
            swallowing,
            eos,
            hashes,
            threads: Arc::default(),
        })
    }

    /// What `encode` gives for each of the rows, made on all cores.
    ///
    /// # Errors
    /// One of those of `encode`.
    pub(super) fn each<T: Sync, R: Send>(
        &self,
        rows: &[T],
        encode: impl Fn(&T) -> Result<R, Problem> + Sync + Send,
    ) -> Result<Vec<R>, Problem> {
        let all = || rows.par_iter().map(encode).collect();
        match self.threads() {
            Some(threads) => threads.install(all),
            None => all(),
        }
    }

    /// One for each core; none where the system has no more to give.
    pub(super) fn threads(&self) -> Option<&ThreadPool> {
        let threads = || ThreadPoolBuilder::new().num_threads(rayon::current_num_threads()).build().ok();
        self.threads.get_or_init(threads).as_ref()
    }

    /// The ids of a text. `add_special` lets the post-processor add its marks.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, Problem> {
        match self.inner.encode_fast(text, add_special) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(error) => Err(self.refused(text, &error)),
        }
    }

    /// The ids of a text without marks, and for each the byte of `text` behind its last one. White space that a special
    /// token swallows is not its own: `<|assistant|>` ends where the answer begins, though the answer begin with a
    /// line's end.
    pub fn encode_with_ends(&self, text: &str) -> Result<(Vec<u32>, Vec<usize>), Problem> {
        match self.inner.encode(text, false) {
            Ok(encoding) => {
                let ids = encoding.get_ids().to_vec();
                let end = |(id, &(start, end)): (&u32, &(usize, usize))| match self.swallowing.get(id) {
                    Some(token) => {
                        text[start..end].find(token.as_str()).map_or(end, |at| start + at + token.len())
                    }
                    None => end,
                };
                let ends = ids.iter().zip(encoding.get_offsets()).map(end).collect();
                Ok((ids, ends))
            }
            Err(error) => Err(self.refused(text, &error)),
        }
    }

    /// The ids of a text without marks, and for each the bytes of `text` that it stands for.
    pub(super) fn encode_with_places(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<u32>>), Problem> {
        match self.inner.encode(text, false) {
            Ok(encoding) => {
                let place = |&(start, end): &(usize, usize)| start as u32..end as u32;
                Ok((encoding.get_ids().to_vec(), encoding.get_offsets().iter().map(place).collect()))
            }
            Err(error) => Err(self.refused(text, &error)),
        }
    }

    /// The ids of words, each encoded by itself, and the word that each id belongs to.
    pub(super) fn encode_words(&self, words: &[String]) -> Result<(Vec<u32>, Vec<Option<u32>>), Problem> {
        match self.inner.encode(words, false) {
            Ok(encoding) => Ok((encoding.get_ids().to_vec(), encoding.get_word_ids().to_vec())),
            Err(error) => Err(self.refused(&words.join(" "), &error)),
        }
    }

    /// What the post-processor puts around and between two texts.
    pub(super) fn pair_marks(&self) -> Result<PairMarks, Problem> {
        // Two made-up texts of one token each, whose ids no vocabulary reaches.
        let [first, second] = [u32::MAX - 1, u32::MAX];
        let text = |id| Encoding::from_tokens(vec![Token::new(id, "x".to_owned(), (0, 1))], 0);
        let whole = self
            .inner
            .post_process(text(first), Some(text(second)), true)
            .map_err(|error| self.refused("x", &error))?;
        let ids = whole.get_ids();
        let at = |id| ids.iter().position(|known| *known == id);
        let (Some(a), Some(b)) = (at(first), at(second)) else { return Ok(PairMarks::default()) };
        let types = whole.get_type_ids();
        Ok(PairMarks {
            before: ids[..a].to_vec(),
            between: ids[a + 1..b].to_vec(),
            after: ids[b + 1..].to_vec(),
            second: types[a + 1..b].iter().filter(|part| **part > 0).count(),
            typed: types[b] > 0,
        })
    }

    fn refused(&self, text: &str, error: &tokenizers::Error) -> Problem {
        let text: String = text.chars().take(40).collect();
        Problem::new("hift::data::encode", format!("`{}` cannot encode {text:?}: {error}", self.path))
            .label_at(self.span, "this tokenizer")
    }

    /// The id of a token, by its text in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A token's text in the vocabulary.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// How many ids there are, added tokens included.
    pub fn vocab(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The text of ids, special tokens included. Ids that the tokenizer does not know are left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.inner.decode(ids, false).unwrap_or_default()
    }

    /// What each of these ids adds to the text of those before it.
    pub fn texts(&self, ids: &[u32]) -> Vec<String> {
        let mut stream = self.inner.decode_stream(false);
        let mut texts: Vec<String> =
            ids.iter().map(|id| stream.step(*id).ok().flatten().unwrap_or_default()).collect();
        // Bytes at the end that make no whole character.
        let given: usize = texts.iter().map(String::len).sum();
        if let Some(last) = texts.last_mut() {
            last.push_str(self.decode(ids).get(given..).unwrap_or_default());
        }
        texts
    }

    /// The path of a file beside the tokenizer's own.
    pub(super) fn beside(&self, name: &str) -> String {
        Path::new(&self.path).with_file_name(name).to_string_lossy().into_owned()
    }

    /// Where the pipeline names the tokenizer.
    pub(super) fn span(&self) -> Option<Span> {
        self.span
    }

    /// What lies beside the tokenizer and says what its special tokens are, with the files that said so. What
    /// `tokenizer_config.json` says comes first.
    pub(super) fn config(&self, folder: &Path) -> (Value, Vec<Hashed>) {
        let (mut config, mut hashes) = (serde_json::Map::new(), Vec::new());
        for name in ["tokenizer_config.json", "special_tokens_map.json"] {
            let Ok((bytes, hashed)) = files::read(folder, &self.beside(name), None) else { continue };
            let Ok(Value::Object(own)) = serde_json::from_slice(&bytes) else { continue };
            hashes.push(hashed);
            for (key, value) in own {
                config.entry(key).or_insert(value);
            }
        }
        (Value::Object(config), hashes)
    }

    /// The tokenizer's file and those beside it that were read.
    pub fn hashes(&self) -> &[Hashed] {
        &self.hashes
    }

    /// What `begin` and `end` of a tokenizer block mean for this tokenizer.
    ///
    /// # Errors
    /// A token that the vocabulary does not have; names the nearest.
    pub fn marks(&self, begin: &Setting<Mark>, end: &Setting<Mark>) -> Result<Marks, Problems> {
        let mut problems = Problems::default();
        let mut token = |mark: &Setting<Mark>, token: &str| match self.token_id(token) {
            Some(id) => vec![id],
            None => {
                problems.push(self.unknown_token(token, mark.span()));
                Vec::new()
            }
        };
        let begin_ids = match &begin.value {
            Mark::Auto => self.before.clone(),
            Mark::None => Vec::new(),
            Mark::Token(name) => token(begin, name),
        };
        let mut end_ids = match &end.value {
            // A post-processor that ends the text has said what ends it: no second mark.
            Mark::Auto => self.after.clone(),
            Mark::None => Vec::new(),
            Mark::Token(name) => token(end, name),
        };
        if end.value == Mark::Auto && end_ids.is_empty() {
            match &self.eos {
                Some(Eos::Id(id)) => end_ids.push(*id),
                Some(Eos::Token(name, file)) => match self.token_id(name) {
                    Some(id) => end_ids.push(id),
                    None => problems.push(
                        Problem::new(
                            "hift::data::token",
                            format!(
                                "`{file}` names `{name}` as the end mark, but `{}` has no such token",
                                self.path
                            ),
                        )
                        .label_at(self.span, "this tokenizer")
                        .help("write `end = \"...\"` with a token of the tokenizer, or `end = none`"),
                    ),
                },
                None => {}
            }
        }
        if problems.has_errors() {
            return Err(problems);
        }
        Ok(Marks { begin: begin_ids, end: end_ids })
    }

    fn unknown_token(&self, token: &str, span: Option<Span>) -> Problem {
        let added = self.inner.get_added_tokens_decoder();
        let mut near = nearest(token, added.values().map(|token| token.content.as_str())).map(str::to_owned);
        if near.is_none() {
            let vocab = self.inner.get_vocab(true);
            near = nearest(token, vocab.keys().map(String::as_str)).map(str::to_owned);
        }
        Problem::new("hift::data::token", format!("`{}` has no token `{token}`", self.path))
            .label_at(span, "not in the vocabulary")
            .help(match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => "write a token of the tokenizer's vocabulary, or `none`".to_owned(),
            })
    }
}

/// What the post-processor puts around a text, found by giving it a text of one made-up token.
fn added_marks(inner: &tokenizers::Tokenizer) -> tokenizers::Result<(Vec<u32>, Vec<u32>)> {
    let text = Encoding::from_tokens(vec![Token::new(0, "x".to_owned(), (0, 1))], 0);
    let whole = inner.post_process(text, None, true)?;
    let is_mark = whole.get_special_tokens_mask();
    let Some(at) = is_mark.iter().position(|&special| special == 0) else {
        return Ok((Vec::new(), Vec::new()));
    };
    Ok((whole.get_ids()[..at].to_vec(), whole.get_ids()[at + 1..].to_vec()))
}

fn find_eos(folder: &Path, tokenizer: &str, hashes: &mut Vec<Hashed>) -> Option<Eos> {
    for name in ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "config.json"]
    {
        let path = Path::new(tokenizer).with_file_name(name).to_string_lossy().into_owned();
        // A neighbour is a courtesy: one that is missing or broken names no end mark.
        let Ok((bytes, hashed)) = files::read(folder, &path, None) else { continue };
        let Ok(json) = serde_json::from_slice::<Value>(&bytes) else { continue };
        let eos = match name {
            "tokenizer_config.json" | "special_tokens_map.json" => {
                let token = &json["eos_token"];
                let token = token.as_str().or_else(|| token["content"].as_str());
                token.map(|token| Eos::Token(token.to_owned(), path))
            }
            _ => {
                let id = &json["eos_token_id"];
                let id = id.as_u64().or_else(|| id[0].as_u64());
                id.and_then(|id| u32::try_from(id).ok()).map(Eos::Id)
            }
        };
        if eos.is_some() {
            hashes.push(hashed);
            return eos;
        }
    }
    None
}
