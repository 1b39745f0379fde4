//! What the author of a pipeline means: typed, complete, every reference resolved, every default filled in.
//!
//! Each value knows whether it was written (and where) or took its default, so that later rooms can point
//! at it. Paths are as written; [`Pipeline::path`] makes them absolute relative to the file's folder.

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use crate::problem::Span;
use crate::units::{Bytes, Dtype};

/// A value with its origin. Reads like the value itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Setting<T> {
    pub value: T,
    #[serde(skip)]
    pub origin: Origin,
}

/// What a value comes from, with the place in the file where it applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It stands there.
    Written(Span),
    /// The name of a param or let stands there.
    Named(Span),
    /// A calculation stands there.
    Calculated(Span),
    /// Nothing is written.
    Default,
}

impl<T> Setting<T> {
    pub fn written(value: T, span: Span) -> Self {
        Self { value, origin: Origin::Written(span) }
    }

    pub fn default(value: T) -> Self {
        Self { value, origin: Origin::Default }
    }

    /// Where it is written, if it is.
    pub fn span(&self) -> Option<Span> {
        match self.origin {
            Origin::Written(span) | Origin::Named(span) | Origin::Calculated(span) => Some(span),
            Origin::Default => None,
        }
    }
}

impl<T> Deref for Setting<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// A whole pipeline. `stages` stand in the order in which they run: what a stage needs comes before it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pipeline {
    /// The folder that relative paths start from.
    #[serde(skip)]
    pub folder: PathBuf,
    pub version: u32,
    /// `param` values as they apply, after `--set`.
    pub params: Vec<(String, String)>,
    /// What runs when a run has ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    pub stages: Vec<Stage>,
    /// What the repositories that it names stood for when they were fetched.
    #[serde(skip)]
    pub snapshots: Vec<Snapshot>,
}

/// `hook NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hook {
    pub name: String,
    pub on: Setting<Vec<Outcome>>,
    /// For `sh -c`.
    pub run: Setting<String>,
}

/// How a run can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Success,
    Failure,
    Interruption,
}

impl Outcome {
    /// The word of the language.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Failure => "failure",
            Outcome::Interruption => "interruption",
        }
    }
}

impl Pipeline {
    /// A path of the file, made relative to the file's folder.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.join(Path::new(path))
    }
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Stage {
    Train(Box<Train>),
    Evaluate(Box<Evaluate>),
    Generate(Box<Generate>),
    Export(Box<Export>),
}

impl Stage {
    pub fn name(&self) -> &str {
        match self {
            Stage::Train(stage) => &stage.name,
            Stage::Evaluate(stage) => &stage.name,
            Stage::Generate(stage) => &stage.name,
            Stage::Export(stage) => &stage.name,
        }
    }
}

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

/// `tokenizer NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tokenizer {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    /// A `tokenizer.json`. Not needed where every data block that it serves is in `tokens` format.
    pub file: Setting<Option<String>>,
    /// The repository whose `tokenizer.json` it is, where `file` names one; `file` is its path once it is fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub: Option<Repository>,
    /// In tokens; without it, what the model's positions allow.
    pub max_length: Setting<Option<u64>>,
    pub too_long: Setting<TooLong>,
    /// Several rows in one sequence, without cross-talk.
    pub pack: Setting<bool>,
    pub loss_on: Setting<LossOn>,
    /// What is put in front of a row.
    pub begin: Setting<Mark>,
    /// What is put behind a row.
    pub end: Setting<Mark>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TooLong {
    /// The end goes.
    Cut,
    /// The beginning goes, the begin mark stays.
    CutLeft,
    /// The row becomes several. Each begins with the last token of the one before, so that every token is predicted
    /// once.
    Split,
    Drop,
    Fail,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LossOn {
    /// Every token.
    All,
    /// The response of an `instruct` row, its end mark included; every turn of the assistant in a chat. In a mix,
    /// rows without a response are learned whole.
    Response,
    /// The last turn of the assistant in a chat.
    Last,
    /// The turns of these roles in a chat.
    Roles(Vec<String>),
}

/// The roles that a message of a chat may have.
pub const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// A special token at an end of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// begin: what the tokenizer's own post-processor puts there. end: the `eos_token` that
    /// `tokenizer_config.json` beside the tokenizer names, if there is one.
    Auto,
    None,
    Token(String),
}

/// `model NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Model {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    pub weights: Setting<Weights>,
    #[serde(skip_serializing_if = "is_auto")]
    pub task: Setting<Task>,
    pub precision: Setting<Precision>,
    pub recompute: Setting<Recompute>,
    /// Products of 32-bit numbers may round their operands to 19 bits, where a device gains by it.
    pub tf32: Setting<bool>,
}

fn is_auto(task: &Setting<Task>) -> bool {
    task.value == Task::Auto
}

/// What a model is trained for. Classes that are not written are those of its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Task {
    /// What the configuration says.
    Auto,
    SequenceClassification {
        labels: Option<Vec<String>>,
    },
    Regression,
    TokenClassification {
        labels: Option<Vec<String>>,
    },
    QuestionAnswering,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Weights {
    /// A Hugging Face directory: `config.json` and safetensors, single or sharded.
    Directory { path: String },
    /// `hub("org/name")`: such a directory, once it is fetched.
    Hub {
        repository: Repository,
        #[serde(skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
        /// Where it is.
        #[serde(skip)]
        path: Option<String>,
    },
    /// `random("config.json", seed = 1)`: a fresh start, drawn as the family's reference draws it.
    Random { config: String, seed: u64 },
}

impl Weights {
    /// The directory that they lie in; None for a fresh start, and for a repository that is not fetched.
    pub fn directory(&self) -> Option<&str> {
        match self {
            Weights::Directory { path } => Some(path),
            Weights::Hub { path, .. } => path.as_deref(),
            Weights::Random { .. } => None,
        }
    }
}

/// The numbers that a model is computed in, and those that are kept to learn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Fp32,
    /// Half weights, rounded at random when they change, and nothing else.
    Bf16,
    /// Half weights, and 32-bit masters of all of them where they are computed with.
    Mixed(Half),
    /// Half weights; 32-bit masters rest on the host but for those of the active group.
    MixedHi(Half),
}

/// 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    Bf16,
    Fp16,
}

impl Half {
    pub fn dtype(self) -> Dtype {
        match self {
            Half::Bf16 => Dtype::Bf16,
            Half::Fp16 => Dtype::F16,
        }
    }
}

impl Precision {
    /// Of weights and activations.
    pub fn dtype(self) -> Dtype {
        match self {
            Precision::Fp32 => Dtype::F32,
            Precision::Bf16 => Dtype::Bf16,
            Precision::Mixed(half) | Precision::MixedHi(half) => half.dtype(),
        }
    }

    /// Of what is kept, and exported: masters where there are some.
    pub fn kept(self) -> Dtype {
        if self.has_masters() { Dtype::F32 } else { self.dtype() }
    }

    pub fn has_masters(self) -> bool {
        match self {
            Precision::Fp32 | Precision::Bf16 => false,
            Precision::Mixed(_) | Precision::MixedHi(_) => true,
        }
    }

    /// Whether the loss is scaled, since small gradients would vanish.
    pub fn is_scaled(self) -> bool {
        match self {
            Precision::Fp32 | Precision::Bf16 => false,
            Precision::Mixed(half) | Precision::MixedHi(half) => half == Half::Fp16,
        }
    }
}

/// As it is written.
impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |half: &Half| match half {
            Half::Bf16 => "bf16",
            Half::Fp16 => "fp16",
        };
        match self {
            Precision::Fp32 => f.write_str("fp32"),
            Precision::Bf16 => f.write_str("bf16"),
            Precision::Mixed(half) => write!(f, "mixed({})", name(half)),
            Precision::MixedHi(half) => write!(f, "mixed_hi({})", name(half)),
        }
    }
}

impl Serialize for Precision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Nothing but what is cheap: norms and activations whose inputs are kept anyway.
    None,
    /// Only the input of each block is kept; the block runs again when its turn in reverse comes.
    Blocks,
    /// The cheapest blocks that leave `memory_limit` enough room, for each group.
    Auto,
}

/// `groups NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Groups {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    pub split: Setting<Split>,
    /// Layer or parameter name patterns (`*` matches any text) that are never trained.
    pub freeze: Setting<Vec<Setting<String>>>,
    /// Patterns of what every turn trains, beside its group.
    pub always: Setting<Vec<Setting<String>>>,
    /// A turn trains the groups before it, too, and the last keeps its turn.
    pub grow: Setting<bool>,
    /// m does not divide n: take m from the queue's head and append them to its tail,
    /// as the reference implementation does, instead of fixed groups with a short last one.
    pub rotate: Setting<bool>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Split {
    /// `by_layer(m, tail = joined | split)`: m layers train together.
    ByLayer { size: u64, tail: Tail },
    /// `by_size(400 MiB, tail = joined | split)`: as few groups of consecutive layers as keep each below that size
    /// of weights, as even as they can be. A layer that is larger is a group of its own.
    BySize { bytes: Bytes, tail: Tail },
    /// `all()`: plain full fine-tuning.
    All,
    /// `named({ bottom = ["embedding", "block.0"], top = ["block.*", "head"] })`: patterns over layer and parameter names;
    /// the first group that matches a parameter gets it, and every parameter must be in a group or frozen.
    Named { groups: Vec<(Setting<String>, Vec<Setting<String>>)> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tail {
    /// Final norm and head are one layer, `head`; with a tied head the norm joins the last block.
    Joined,
    /// Final norm and head are layers of their own.
    Split,
}

/// `schedule NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Schedule {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    pub order: Setting<Order>,
    /// Optimizer updates that a group gets in a row.
    pub dwell: Setting<u64>,
    pub advance: Setting<Advance>,
    pub horizon: Setting<Horizon>,
    pub states: Setting<Rest>,
    pub weights: Setting<Residence>,
    pub rate: Setting<Rate>,
    /// Each layer's rate is this times the rate of the layer above it.
    pub layer_decay: Setting<f64>,
    /// Groups or layers whose rate is multiplied by a number of their own.
    pub factors: Setting<Vec<(Setting<String>, f64)>>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Order {
    /// From the embedding to the head.
    BottomUp,
    TopDown,
    /// Drawn from the seed: once and then kept, or for each cycle.
    Random {
        seed: u64,
        redraw: bool,
    },
    /// Each turn draws `size` groups, whatever was drawn before.
    Sample {
        seed: u64,
        size: u64,
    },
    /// The group whose gradient was longest comes first.
    Importance,
    /// Layer names (or group names with `named`), first to last; several names are one turn.
    List {
        turns: Vec<Setting<Vec<Setting<String>>>>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Advance {
    /// The rate moves when every group has had its turn (the paper's delayed rate).
    PerCycle,
    /// The same, but where m does not divide n, after n / m turns rounded down, as the reference implementation does.
    PerShortCycle,
    PerStep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Horizon {
    /// The schedule is built over cycles and ends with the run.
    Cycles,
    /// The schedule is built for all steps but ticked once per cycle, as the reference implementation does.
    Steps,
}

/// Where weights rest while no operation needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Residence {
    Device,
    Host,
    /// In files that are mapped into memory.
    Disk,
}

/// Where optimizer states rest between turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    Device,
    Host,
    /// In files that are mapped into memory.
    Disk,
    /// Forgotten when the turn ends (BAdam).
    Discard,
}

/// The learning rate.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Rate {
    /// `constant(1e-4)`, `constant(1e-4, warmup = 3 %)`
    Constant { peak: Setting<f64>, warmup: Setting<Warmup> },
    /// `linear(peak = 1e-4, warmup = 3 %, end = 0)`: down to `end` in a straight line.
    Linear { peak: Setting<f64>, warmup: Setting<Warmup>, end: Setting<f64> },
    /// `cosine(peak = 1e-4, warmup = 3 %, end = 0)`: down to `end` along half a cosine.
    Cosine { peak: Setting<f64>, warmup: Setting<Warmup>, end: Setting<f64> },
    /// `cosine_with_restarts(peak = 1e-4, periods = 3)`: so many half cosines, each from `peak` to `end`.
    CosineWithRestarts {
        peak: Setting<f64>,
        warmup: Setting<Warmup>,
        end: Setting<f64>,
        periods: Setting<u64>,
    },
    /// `polynomial(peak = 1e-4, power = 2)`: what is left of the course, to the power.
    Polynomial { peak: Setting<f64>, warmup: Setting<Warmup>, end: Setting<f64>, power: Setting<f64> },
    /// `inverse_sqrt(peak = 1e-4, warmup = 100 steps)`: by one over the square root of the time.
    InverseSqrt { peak: Setting<f64>, warmup: Setting<Warmup>, timescale: Setting<Timescale> },
    /// `wsd(peak = 1e-4, warmup = 3 %, decay = 10 %)`: warm-up, stable, then down to `end`.
    Wsd {
        peak: Setting<f64>,
        warmup: Setting<Warmup>,
        end: Setting<f64>,
        decay: Setting<Warmup>,
        shape: Setting<Decline>,
    },
}

impl Rate {
    /// The highest rate, and how long it rises before.
    pub fn parts(&self) -> (&Setting<f64>, &Setting<Warmup>) {
        match self {
            Rate::Constant { peak, warmup }
            | Rate::Linear { peak, warmup, .. }
            | Rate::Cosine { peak, warmup, .. }
            | Rate::CosineWithRestarts { peak, warmup, .. }
            | Rate::Polynomial { peak, warmup, .. }
            | Rate::InverseSqrt { peak, warmup, .. }
            | Rate::Wsd { peak, warmup, .. } => (peak, warmup),
        }
    }

    /// The last rate, where it is not the highest one.
    pub fn end(&self) -> Option<&Setting<f64>> {
        match self {
            Rate::Constant { .. } | Rate::InverseSqrt { .. } | Rate::CosineWithRestarts { .. } => None,
            Rate::Linear { end, .. } | Rate::Cosine { end, .. } => Some(end),
            Rate::Polynomial { end, .. } | Rate::Wsd { end, .. } => Some(end),
        }
    }
}

/// When an inverse square root is down by half of its root.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Timescale {
    /// As long as the warm-up, or 10,000 ticks where there is none.
    Warmup,
    Steps(u64),
    Cycles(u64),
}

/// How the last part of a `wsd` rate goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decline {
    Linear,
    Cosine,
    /// One minus the square root of the progress.
    Sqrt,
}

/// A part of the schedule's length.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Warmup {
    None,
    /// Of the schedule's length, from 0 to 1, written in percent.
    Share(f64),
    Steps(u64),
    Cycles(u64),
}

/// `optimizer NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Optimizer {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    pub algorithm: Algorithm,
    /// Applies to tensors with two or more axes only.
    pub weight_decay: Setting<f64>,
}

/// How a gradient changes a weight. [`crate::lang::schema::ALGORITHMS`] says which keys each one has.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "algorithm", rename_all = "snake_case")]
pub enum Algorithm {
    /// Adam with decoupled weight decay.
    Adamw {
        betas: Setting<[f64; 2]>,
        eps: Setting<f64>,
    },
    /// Adam; weight decay is a part of the gradient.
    Adam {
        betas: Setting<[f64; 2]>,
        eps: Setting<f64>,
    },
    Sgd,
    Sgdm {
        momentum: Setting<f64>,
        nesterov: Setting<bool>,
    },
    Adagrad {
        eps: Setting<f64>,
    },
    Rmsprop {
        alpha: Setting<f64>,
        eps: Setting<f64>,
        /// 0: none, and no state for it.
        momentum: Setting<f64>,
        /// The variance instead of the square; one more state.
        centered: Setting<bool>,
    },
    Adafactor {
        eps: Setting<f64>,
        decay_rate: Setting<f64>,
        clip_threshold: Setting<f64>,
        /// None: no first moment, and no state for it.
        beta1: Setting<Option<f64>>,
        scale_parameter: Setting<bool>,
    },
    Lion {
        betas: Setting<[f64; 2]>,
    },
    Lamb {
        betas: Setting<[f64; 2]>,
        eps: Setting<f64>,
    },
    Lars {
        momentum: Setting<f64>,
        nesterov: Setting<bool>,
        trust: Setting<f64>,
    },
    /// AdamW with one second moment for each row or head.
    AdamMini {
        betas: Setting<[f64; 2]>,
        eps: Setting<f64>,
    },
    /// AdamW whose moments have 8 bits.
    Adamw8bit {
        betas: Setting<[f64; 2]>,
        eps: Setting<f64>,
    },
    /// Adam whose moments have 8 bits.
    Adam8bit {
        betas: Setting<[f64; 2]>,
        eps: Setting<f64>,
    },
    /// Lion whose moment has 8 bits.
    Lion8bit {
        betas: Setting<[f64; 2]>,
    },
}

/// `train NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Train {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    pub data: Data,
    /// May be left out where the data is in `tokens` format.
    pub tokenizer: Tokenizer,
    /// The model block that the weights come from in the end.
    pub model: Model,
    /// The stage whose result this one continues, if `model` names a train stage.
    pub from: Option<String>,
    pub groups: Groups,
    pub schedule: Schedule,
    pub optimizer: Optimizer,
    pub length: Setting<Length>,
    /// Sequences per forward pass.
    pub micro_batch: Setting<u64>,
    /// Forward passes per optimizer update.
    pub accumulate: Setting<u64>,
    /// The largest norm of the active group's gradient.
    pub clip: Setting<Option<f64>>,
    pub seed: Setting<u64>,
    pub device: Setting<Device>,
    pub memory_limit: Setting<Option<Bytes>>,
    pub evaluate: Option<EvaluateDuring>,
    pub checkpoint: Option<Checkpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Divergence>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    Epochs(f64),
    Steps(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// CUDA where this program has it and finds a device, else the CPU.
    Auto,
    Cpu,
    Cuda(u32),
}

/// `evaluate { ... }` inside `train`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvaluateDuring {
    #[serde(skip)]
    pub span: Span,
    pub every: Setting<Interval>,
    pub metrics: Setting<Vec<Metric>>,
    /// Evaluations in a row without a better one, after which training ends.
    pub patience: Setting<Option<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<Samples>,
}

/// Held-out rows that are answered at each evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Samples {
    pub rows: Setting<u64>,
    /// Of each answer, at most.
    pub max_new_tokens: Setting<u64>,
}

/// `checkpoint { ... }` inside `train`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checkpoint {
    #[serde(skip)]
    pub span: Span,
    pub every: Setting<Interval>,
    /// How many are kept.
    pub keep: Setting<u64>,
    /// The metric by which the best one is kept, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<Setting<Metric>>,
    /// Whether the stage ends with the best one's weights, not with the last ones.
    pub ends_with_best: Setting<bool>,
}

/// `divergence { ... }` inside `train`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Divergence {
    #[serde(skip)]
    pub span: Span,
    /// A loss above so many times its mean counts as diverged.
    pub spike: Setting<Option<f64>>,
    /// None: the run ends.
    pub roll_back: Setting<Option<RollBack>>,
}

/// Going on from the last checkpoint at a lower rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RollBack {
    /// What the rate is multiplied by, once more each time.
    pub rate: f64,
    /// How often, at the most.
    pub times: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    Steps(u64),
    Cycles(u64),
    Epochs(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Mean cross entropy per trained token, in nats.
    Loss,
    /// exp(loss)
    Perplexity,
    /// The share of trained tokens that are the model's first choice.
    Accuracy,
    /// Of two classes, that of the second; of answers, of their words.
    F1,
    /// The mean of all classes' F1.
    MacroF1,
    /// The correlation of classes by Matthews, of two or more.
    Matthews,
    Pearson,
    Spearman,
    /// The share of answers that are word for word one of the references.
    ExactMatch,
    /// Of whole entities.
    EntityF1,
    EntityPrecision,
    EntityRecall,
    /// Of texts against references.
    Bleu,
    Nist,
    Rouge1,
    Rouge2,
    RougeL,
}

impl Metric {
    /// Every one, with the word for it in the language, in reports and in files.
    pub const ALL: &[(Metric, &str)] = &[
        (Metric::Loss, "loss"),
        (Metric::Perplexity, "perplexity"),
        (Metric::Accuracy, "accuracy"),
        (Metric::F1, "f1"),
        (Metric::MacroF1, "macro_f1"),
        (Metric::Matthews, "matthews"),
        (Metric::Pearson, "pearson"),
        (Metric::Spearman, "spearman"),
        (Metric::ExactMatch, "exact_match"),
        (Metric::EntityF1, "entity_f1"),
        (Metric::EntityPrecision, "entity_precision"),
        (Metric::EntityRecall, "entity_recall"),
        (Metric::Bleu, "bleu"),
        (Metric::Nist, "nist"),
        (Metric::Rouge1, "rouge_1"),
        (Metric::Rouge2, "rouge_2"),
        (Metric::RougeL, "rouge_l"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(metric, _)| *metric == self).map_or("", |(_, name)| name)
    }

    pub fn named(name: &str) -> Option<Metric> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(metric, _)| *metric)
    }

    /// Whether `value` is better than `than`.
    pub fn is_better(self, value: f64, than: f64) -> bool {
        match self {
            Metric::Loss | Metric::Perplexity => value < than,
            Metric::Accuracy
            | Metric::F1
            | Metric::MacroF1
            | Metric::Matthews
            | Metric::Pearson
            | Metric::Spearman
            | Metric::ExactMatch
            | Metric::EntityF1
            | Metric::EntityPrecision
            | Metric::EntityRecall
            | Metric::Bleu
            | Metric::Nist
            | Metric::Rouge1
            | Metric::Rouge2
            | Metric::RougeL => value > than,
        }
    }
}

/// `evaluate NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluate {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    /// The train stage whose result is evaluated, or None: the model as it is.
    pub from: Option<String>,
    pub model: Model,
    /// Its holdout is used if it has one, else all of it.
    pub data: Data,
    pub tokenizer: Tokenizer,
    pub metrics: Setting<Vec<Metric>>,
    pub micro_batch: Setting<u64>,
    pub device: Setting<Device>,
}

/// `generate NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generate {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    pub from: Option<String>,
    pub model: Model,
    pub tokenizer: Tokenizer,
    /// Nothing where the rows of a data block are continued.
    pub prompts: Setting<Vec<Setting<String>>>,
    /// The block whose held-out rows are continued if it has some, else all of them.
    pub data: Option<Data>,
    /// At most so many of them.
    pub rows: Setting<Option<u64>>,
    /// What would be right, for each prompt; or nothing.
    pub references: Setting<Vec<Setting<String>>>,
    /// Of the texts against their references.
    pub metrics: Setting<Vec<Metric>>,
    pub max_new_tokens: Setting<u64>,
    /// 0 takes the most probable token each time.
    pub temperature: Setting<f64>,
    /// Tokens are drawn among so many, the most probable ones.
    pub top_k: Setting<Option<u64>>,
    /// And of these among the fewest that have this share of the probability.
    pub top_p: Setting<f64>,
    pub beams: Setting<u64>,
    pub length_penalty: Setting<f64>,
    pub early_stopping: Setting<bool>,
    /// Texts that end an answer.
    pub stop: Setting<Vec<Setting<String>>>,
    /// Prompts that are continued at once.
    pub micro_batch: Setting<u64>,
    pub seed: Setting<u64>,
    /// The file for the texts, as JSON lines.
    pub to: Setting<Option<String>>,
    pub device: Setting<Device>,
}

/// `export NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Export {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    pub from: Option<String>,
    pub model: Model,
    /// The tokenizer of the train stage, copied beside the weights.
    pub tokenizer: Option<Tokenizer>,
    pub to: Setting<String>,
    pub dtype: Setting<Dtype>,
}
