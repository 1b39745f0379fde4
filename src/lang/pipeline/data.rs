//! Rows to learn from.

use serde::Serialize;

use crate::problem::Span;

use super::Setting;

/// `data NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Data {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    pub source: Setting<Source>,
    pub format: Setting<Format>,
    /// Which rows are used: those that pass every test.
    #[serde(skip_serializing_if = "is_unfiltered")]
    pub filter: Setting<Vec<Filter>>,
    /// Whether rows that are the same, token by token, as an earlier one are left out.
    #[serde(skip_serializing_if = "is_off")]
    pub dedup: Setting<bool>,
    /// The rows kept for evaluation.
    pub holdout: Setting<Holdout>,
    pub shuffle: Setting<Shuffle>,
}

fn is_unfiltered(filter: &Setting<Vec<Filter>>) -> bool {
    filter.is_empty()
}

fn is_off(setting: &Setting<bool>) -> bool {
    !setting.value
}

impl Data {
    /// The data blocks that have files of their own: those of a mix, or this one.
    pub fn parts(&self) -> Vec<&Data> {
        match &self.source.value {
            Source::Mix { parts, .. } => parts.iter().map(|part| &part.data).collect(),
            Source::Json { .. }
            | Source::Text { .. }
            | Source::Csv { .. }
            | Source::Parquet { .. }
            | Source::Arrow { .. }
            | Source::Hub { .. } => vec![self],
        }
    }

    /// Where the rows that are kept for evaluation come from, if they have files of their own.
    pub fn held_source(&self) -> Option<Setting<Source>> {
        match &self.holdout.value {
            Holdout::From(source) => Some(Setting { value: (**source).clone(), origin: self.holdout.origin }),
            Holdout::None | Holdout::Share(_) | Holdout::Rows(_) => None,
        }
    }

    /// Whether any rows are kept for evaluation.
    pub fn holds_out(&self) -> bool {
        self.parts().iter().any(|part| part.holdout.value != Holdout::None)
    }
}

/// A test that a row must pass.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Filter {
    pub column: Setting<String>,
    pub test: Test,
}

/// What a column must hold. A row without a value passes [`Test::Not`] only.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// One of these texts.
    Is(Vec<String>),
    /// None of these texts.
    Not(Vec<String>),
    AtLeast(f64),
    AtMost(f64),
}

/// A data block in a mix.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    pub data: Data,
    /// Its share relative to the others; without it, as many as it has.
    pub weight: Option<f64>,
}

/// What the weights of a mix count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weigh {
    Rows,
    Tokens,
}

/// When a mix is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// When the first block is used up: no row comes twice.
    First,
    /// When every block is used up: rows of the others come again.
    All,
}

/// Where rows come from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Source {
    /// `json("file.jsonl")`: JSON lines, or a file that is one JSON array of objects.
    Json { path: String },
    /// `text("file.txt")`: one row a line; `text("file.txt", separator = "<|endoftext|>")`: rows between separators,
    /// surrounding white space removed, empty rows skipped. The column is called `text`.
    Text { path: String, separator: Option<String> },
    /// `csv("file.csv")`: without `separator`, a tab for `.tsv`, else a comma; without `columns`, the first line names
    /// them; without `quotes`, cells may be quoted unless a tab separates.
    Csv {
        path: String,
        separator: Option<String>,
        #[serde(rename = "columns")]
        names: Option<Vec<String>>,
        quotes: Option<bool>,
    },
    /// `parquet("file.parquet")`
    Parquet { path: String },
    /// `arrow("file.arrow")`: an IPC file or stream; a folder is one that `save_to_disk` has written.
    Arrow { path: String, split: Option<String> },
    /// `hub("org/name")`: its files are known once they are fetched.
    Hub {
        repository: Repository,
        /// Which files.
        pick: Pick,
        /// Where those are, in the order of their names; empty until they are fetched.
        #[serde(skip)]
        files: Vec<String>,
    },
    /// `mix([a, b], weights = [2, 1])`: the rows of other data blocks, never of mixes.
    Mix { parts: Vec<Part>, by: Weigh, stop: Stop },
}

/// `hub("org/name", revision = "main")`: a repository on the Hugging Face Hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repository {
    pub name: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

/// Which files of a dataset's repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// Those that this pattern matches.
    Files(String),
    /// Those whose paths name this split.
    Split(String),
}

/// What a repository was when it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// As it stands in lock files: `hub:org/name@main`, `hub:datasets/org/name@main`.
    pub label: String,
    pub commit: String,
    /// Where its files are: an absolute path.
    pub folder: String,
}

/// How a row becomes what the model reads.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Format {
    /// `text(column = "text")`
    Text { column: String },
    /// `instruct(prompt = "{instruction}\n{input}", response = "{output}")`: templates over columns; `{{` and `}}` are braces.
    Instruct { prompt: String, response: String },
    /// `tokens(input = "input_ids", labels = "labels")`: rows tokenised elsewhere. Labels are aligned with the
    /// inputs (position t holds the id of token t), -100 is ignored, the shift by one is made inside.
    /// Without `labels`, every token is its own label. `tokens(label = "label", mask = "attention_mask")`: rows have a
    /// class; what the mask marks with 0 is padding.
    Tokens { input: String, labels: Option<String>, label: Option<String>, mask: Option<String> },
    /// `classify(text = "{sentence}", label = "label")`: a template, and the column of the class.
    Classify { text: String, label: String },
    /// `token_labels(tokens = "tokens", labels = "ner_tags")`: a list of words, and one of their classes.
    TokenLabels { tokens: String, labels: String },
    /// `question(question = "question", context = "context", answers = "answers")`: what is asked, the text that holds the
    /// answer, and where it stands, as SQuAD has them. Pieces of a text that is split overlap by `stride` tokens; without
    /// it, by a third of what is allowed.
    Question { question: String, context: String, answers: String, stride: Option<u64> },
    /// `chat`: a list of messages, written out by a chat template.
    Chat {
        /// The column of the messages; without it, `messages` or `conversations`.
        column: Option<String>,
        /// The tools that a row offers.
        tools: Tools,
        /// A file with a Jinja template; without it, the tokenizer's own.
        template: Option<String>,
        /// Further names of roles, each with what it means.
        roles: Vec<(String, String)>,
    },
    /// Of a mix: each of its blocks has a format of its own.
    OfParts,
}

/// Where the tools stand that a row of a chat offers, as a list or as JSON text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tools {
    /// In the column `tools`, if there is one.
    Auto,
    /// Nowhere.
    None,
    Column(String),
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Holdout {
    None,
    /// A share from 0 to 1, written in percent; drawn after shuffling.
    Share(f64),
    /// So many; drawn after shuffling.
    Rows(u64),
    /// The rows of a source of their own.
    From(Box<Source>),
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shuffle {
    None,
    /// Every epoch has its own order, drawn from the seed and the epoch's number.
    Seed(u64),
    /// The same, but rows of like length share a batch, so that less of it is padding.
    ByLength(u64),
}
