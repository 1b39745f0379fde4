//! Every kind of block and every key of the language, in one table: what it takes, its default, what it means.
//!
//! Checking, suggestions, defaults, completion and the manual all read this table. A default is written
//! in the language itself and passes the same checks as a user's value.

mod data;
mod groups;
mod hook;
mod model;
mod optimizer;
mod schedule;
mod stages;
mod tokenizer;
mod train;

use data::DATA;
use groups::GROUPS;
use hook::HOOK;
use model::MODEL;
use optimizer::OPTIMIZER;
use schedule::SCHEDULE;
use stages::{EVALUATE, EXPORT, GENERATE};
use tokenizer::TOKENIZER;
use train::{TRAIN, TRAIN_PARTS};

pub use optimizer::{ALGORITHMS, AlgorithmKeys, Preset};

/// A kind of block.
#[derive(Debug)]
pub struct Kind {
    pub name: &'static str,
    pub role: Role,
    /// What such a block says, in a sentence.
    pub doc: &'static str,
    pub keys: &'static [Key],
    /// The blocks that may stand inside it.
    pub parts: &'static [Kind],
}

/// What a block is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Says what something is.
    Definition,
    /// Is what runs.
    Stage,
    /// Stands inside another block and has no name.
    Part,
}

/// A key of a block, or an argument of a function.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    /// What its value may be, any one of these.
    pub takes: &'static [Form],
    pub need: Need,
    /// A value to show to someone who asks what to write.
    pub example: &'static str,
    /// Its meaning and unit, in a sentence.
    pub doc: &'static str,
    /// What other tools call it.
    pub also: &'static [&'static str],
}

/// Whether a key must be written, and what applies where it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It must be written.
    Required,
    /// The value that applies where none is written, in the language.
    Default(&'static str),
    /// What applies where none is written, in words.
    Depends(&'static str),
}

/// A form that a value can have.
#[derive(Debug)]
pub enum Form {
    /// A word of the language and its meaning.
    Word(&'static str, &'static str),
    /// `name(...)`; just `name` where no argument is required.
    Function(&'static Function),
    /// A whole number without a unit.
    Whole(Range),
    /// A number without a unit.
    Real(Range),
    /// A number with one of these units.
    Amount(&'static [(Unit, Range)]),
    /// `true` or `false`.
    Boolean,
    /// Any text.
    Text,
    /// A path of a file or folder, relative to the pipeline file.
    Path,
    /// A text with `{column}` in it.
    Template,
    /// The name of a block of one of these kinds; the first kind that has the name wins.
    Block(&'static [&'static str]),
    /// So many values, or any number of them.
    List(&'static [Form], Option<usize>),
    /// Names of the user's choice, each with a value; and one to show.
    Record(&'static [Form], &'static str),
}

/// A function of the language: a word with arguments.
#[derive(Debug)]
pub struct Function {
    pub name: &'static str,
    pub arguments: &'static [Key],
    pub doc: &'static str,
}

/// The numbers that are allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The smallest number, or what it stays above.
    pub low: f64,
    /// The largest number, or what it stays below.
    pub high: f64,
    /// Whether `low` itself is excluded.
    pub above: bool,
    /// Whether `high` itself is excluded.
    pub below: bool,
}

impl Range {
    /// Whether a number is allowed.
    pub fn contains(&self, value: f64) -> bool {
        let low = if self.above { value > self.low } else { value >= self.low };
        let high = if self.below { value < self.high } else { value <= self.high };
        low && high
    }
}

/// What an amount is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Of memory; every unit of memory is accepted where this one is.
    Bytes,
    Percent,
    Steps,
    Epochs,
    Cycles,
    Rows,
    Tokens,
    Minutes,
}

/// Every way to write a unit, singular first where it has one, with its size in the unit's base.
pub const UNITS: &[(&str, Unit, f64)] = &[
    ("%", Unit::Percent, 1.0),
    ("step", Unit::Steps, 1.0),
    ("steps", Unit::Steps, 1.0),
    ("epoch", Unit::Epochs, 1.0),
    ("epochs", Unit::Epochs, 1.0),
    ("cycle", Unit::Cycles, 1.0),
    ("cycles", Unit::Cycles, 1.0),
    ("row", Unit::Rows, 1.0),
    ("rows", Unit::Rows, 1.0),
    ("token", Unit::Tokens, 1.0),
    ("tokens", Unit::Tokens, 1.0),
    ("min", Unit::Minutes, 1.0),
    ("h", Unit::Minutes, 60.0),
    ("B", Unit::Bytes, 1.0),
    ("KiB", Unit::Bytes, 1024.0),
    ("MiB", Unit::Bytes, 1048576.0),
    ("GiB", Unit::Bytes, 1073741824.0),
    ("TiB", Unit::Bytes, 1099511627776.0),
    ("KB", Unit::Bytes, 1e3),
    ("MB", Unit::Bytes, 1e6),
    ("GB", Unit::Bytes, 1e9),
    ("TB", Unit::Bytes, 1e12),
];

impl Unit {
    /// As it is written behind a number.
    pub fn written(self) -> &'static str {
        match self {
            Unit::Bytes => "GiB",
            Unit::Percent => "%",
            Unit::Steps => "steps",
            Unit::Epochs => "epochs",
            Unit::Cycles => "cycles",
            Unit::Rows => "rows",
            Unit::Tokens => "tokens",
            Unit::Minutes => "min",
        }
    }

    /// Singular and plural, where it has both.
    pub fn forms(self) -> Option<(&'static str, &'static str)> {
        match self {
            Unit::Steps => Some(("step", "steps")),
            Unit::Epochs => Some(("epoch", "epochs")),
            Unit::Cycles => Some(("cycle", "cycles")),
            Unit::Rows => Some(("row", "rows")),
            Unit::Tokens => Some(("token", "tokens")),
            Unit::Bytes | Unit::Percent | Unit::Minutes => None,
        }
    }

    /// As it is called in a sentence.
    pub fn called(self) -> &'static str {
        match self {
            Unit::Bytes => "memory",
            Unit::Percent => "percent",
            Unit::Minutes => "time",
            Unit::Steps | Unit::Epochs | Unit::Cycles | Unit::Rows | Unit::Tokens => self.written(),
        }
    }

    /// Whether only whole numbers of it make sense.
    pub fn is_whole(self) -> bool {
        match self {
            Unit::Steps | Unit::Cycles | Unit::Rows | Unit::Tokens => true,
            Unit::Bytes | Unit::Percent | Unit::Epochs | Unit::Minutes => false,
        }
    }
}

const ANY: f64 = f64::INFINITY;
const FINITE: Range = Range { low: -ANY, high: ANY, above: true, below: true };
const FROM_0: Range = Range { low: 0.0, high: ANY, above: false, below: false };
const FROM_1: Range = Range { low: 1.0, high: ANY, above: false, below: false };
const ABOVE_0: Range = Range { low: 0.0, high: ANY, above: true, below: false };
const BELOW_1: Range = Range { low: 0.0, high: 1.0, above: false, below: true };
const ABOVE_1: Range = Range { low: 1.0, high: ANY, above: true, below: false };
const WITHIN_1: Range = Range { low: 0.0, high: 1.0, above: true, below: true };
const UP_TO_1: Range = Range { low: 0.0, high: 1.0, above: true, below: false };
const PERCENT: Range = Range { low: 0.0, high: 100.0, above: false, below: true };
const CUDA: Range = Range { low: 0.0, high: 255.0, above: false, below: false };

const SEED: &[Form] = &[Form::Whole(FROM_0)];
const REAL: &[Form] = &[Form::Real(ABOVE_0)];

const fn required(
    name: &'static str,
    takes: &'static [Form],
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, takes, need: Need::Required, example, doc, also: &[] }
}

const fn default(
    name: &'static str,
    takes: &'static [Form],
    value: &'static str,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, takes, need: Need::Default(value), example, doc, also: &[] }
}

const fn depends(
    name: &'static str,
    takes: &'static [Form],
    on: &'static str,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, takes, need: Need::Depends(on), example, doc, also: &[] }
}

impl Key {
    const fn also(mut self, names: &'static [&'static str]) -> Key {
        self.also = names;
        self
    }
}

/// The word that begins a profile: params and keys of blocks that `--profile` gives other values.
pub const PROFILE: &str = "profile";

/// The kind of that name at the top level.
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// Every kind of block at the top level, definitions first.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "data",
        role: Role::Definition,
        doc: "Rows to learn from, and how a row becomes text.",
        keys: DATA,
        parts: &[],
    },
    Kind {
        name: "tokenizer",
        role: Role::Definition,
        doc: "How text becomes tokens, and which of them are learned.",
        keys: TOKENIZER,
        parts: &[],
    },
    Kind {
        name: "model",
        role: Role::Definition,
        doc: "The model to start from, and how it computes.",
        keys: MODEL,
        parts: &[],
    },
    Kind {
        name: "groups",
        role: Role::Definition,
        doc: "Which layers are trained together, and which never.",
        keys: GROUPS,
        parts: &[],
    },
    Kind {
        name: "schedule",
        role: Role::Definition,
        doc: "In which order the groups have their turns, and at which rate they learn.",
        keys: SCHEDULE,
        parts: &[],
    },
    Kind {
        name: "optimizer",
        role: Role::Definition,
        doc: "How a gradient changes a weight. The block's name is the algorithm unless `algorithm` says it.",
        keys: OPTIMIZER,
        parts: &[],
    },
    Kind {
        name: "hook",
        role: Role::Definition,
        doc: "A command that runs when a run has ended, such as one that tells somebody. Nothing is called while \
              the file is read, and what the command does changes nothing about the run.",
        keys: HOOK,
        parts: &[],
    },
    Kind {
        name: "train",
        role: Role::Stage,
        doc: "Trains a model, one group of layers at a time.",
        keys: TRAIN,
        parts: TRAIN_PARTS,
    },
    Kind {
        name: "evaluate",
        role: Role::Stage,
        doc: "Measures a model on rows that are held out.",
        keys: EVALUATE,
        parts: &[],
    },
    Kind {
        name: "generate",
        role: Role::Stage,
        doc: "Has a model continue prompts. Keys and values of what was read are kept, so that each new token is one short \
              pass.",
        keys: GENERATE,
        parts: &[],
    },
    Kind {
        name: "export",
        role: Role::Stage,
        doc: "Writes a model as a Hugging Face directory, which transformers loads.",
        keys: EXPORT,
        parts: &[],
    },
];
