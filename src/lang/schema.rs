//! Every kind of block and every key of the language, in one table: what it takes, its default, what it means.
//!
//! Checking, suggestions, defaults, completion and the manual all read this table. A default is written
//! in the language itself and passes the same checks as a user's value.

use std::fmt;

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

const JSON: Form = Form::Function(&Function {
    name: "json",
    arguments: &[required("path", &[Form::Path], "\"data/train.jsonl\"", FILES)],
    doc: "JSON lines, one object a line, or a file that is one JSON array of objects.",
});
const TEXT: Form = Form::Function(&Function {
    name: "text",
    arguments: &[
        required("path", &[Form::Path], "\"data/train.txt\"", FILES),
        default(
            "separator",
            &[Form::Text, Form::Word("none", "Each line is a row.")],
            "none",
            "\"<|endoftext|>\"",
            "What stands between two rows.",
        ),
    ],
    doc: "Plain text. A row is a line, or what stands between two separators, without the \
          white space around it; empty rows are left out. The column is called `text`.",
});
const CSV: Form = Form::Function(&Function {
    name: "csv",
    arguments: &[
        required("path", &[Form::Path], "\"data/train.csv\"", FILES),
        depends(
            "separator",
            &[Form::Text],
            "a tab for `.tsv`, else a comma",
            "\";\"",
            "The character between two cells.",
        )
        .also(&["sep", "delimiter"]),
        depends(
            "columns",
            &[Form::List(&[Form::Text], None)],
            "the first line names them",
            "[\"text\", \"label\"]",
            "The names of the columns, where the first line is a row already.",
        )
        .also(&["names", "header"]),
        depends(
            "quotes",
            &[Form::Boolean],
            "`true`, but `false` where a tab separates",
            "false",
            "Whether a cell in double quotes may hold separators and line breaks.",
        ),
    ],
    doc: "Comma or tab separated values.",
});
const PARQUET: Form = Form::Function(&Function {
    name: "parquet",
    arguments: &[required("path", &[Form::Path], "\"data/train-*.parquet\"", FILES)],
    doc: "Parquet files.",
});
const ARROW: Form = Form::Function(&Function {
    name: "arrow",
    arguments: &[
        required(
            "path",
            &[Form::Path],
            "\"data/train.arrow\"",
            "The file, a pattern of files, or a folder that `save_to_disk` of Hugging Face's datasets has written.",
        ),
        depends(
            "split",
            &[Form::Text],
            "needed for a folder with several splits",
            "\"train\"",
            "The split of such a folder.",
        ),
    ],
    doc: "Arrow IPC files or streams, mapped into memory.",
});

const HUB_NAME: Key =
    required("name", &[Form::Text], "\"org/name\"", "The repository's name, as it stands in its address.");
const HUB_REVISION: Key = default(
    "revision",
    &[Form::Text],
    "\"main\"",
    "\"v1.0\"",
    "A branch, a tag or a commit. A branch stays at the commit that was first fetched, or that the lock file \
     names, until `hift lock` asks for a newer one.",
);
/// A repository of a model or of its tokenizer.
const HUB: Form = Form::Function(&Function {
    name: "hub",
    arguments: &[HUB_NAME, HUB_REVISION],
    doc: "A repository on the Hugging Face Hub. What the Hub's own cache lacks is fetched into it; otherwise \
          nothing touches the network. `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_ENDPOINT` and \
          `HF_HUB_OFFLINE` mean what they mean elsewhere.",
});
const HUB_ROWS: Form = Form::Function(&Function {
    name: "hub",
    arguments: &[
        HUB_NAME,
        HUB_REVISION,
        depends(
            "files",
            &[Form::Text],
            "those of the split",
            "\"data/train-*.parquet\"",
            "The file, or a pattern of files. Their names say how they are read: `.parquet`, `.jsonl`, `.json`, \
             `.csv`, `.tsv`, `.txt` or `.arrow`, with `.gz` or `.zst` behind it or not.",
        ),
        depends(
            "split",
            &[Form::Text],
            "`train`, where `files` is left out",
            "\"validation\"",
            "The files with this word in their path; those of a repository that names no splits are all `train`.",
        ),
    ],
    doc: "A dataset on the Hugging Face Hub, fetched into the Hub's own cache if it is not there.",
});

/// What a path of a source may be.
const FILES: &str = "The file, packed by gzip or zstd or not, or a pattern of files such as `data/*.jsonl`, read in the order of their names.";

const DATA: &[Key] = &[
    required(
        "source",
        &[
            JSON,
            CSV,
            PARQUET,
            ARROW,
            TEXT,
            Form::Function(&Function {
                name: "mix",
                arguments: &[
                    required(
                        "blocks",
                        &[Form::List(&[Form::Block(&["data"])], None)],
                        "[NAME, NAME]",
                        "Data blocks, each with a format of its own.",
                    ),
                    depends(
                        "weights",
                        &[Form::List(&[Form::Real(ABOVE_0)], None)],
                        "all that each block has",
                        "[2, 1]",
                        "How much of each block, relative to the others.",
                    ),
                    default(
                        "by",
                        &[Form::Word("rows", "Rows."), Form::Word("tokens", "Tokens.")],
                        "rows",
                        "tokens",
                        "What the weights count.",
                    ),
                    default(
                        "stop",
                        &[
                            Form::Word("first", "When the first block is used up: no row comes twice."),
                            Form::Word("all", "When every block is used up: rows of the others come again."),
                        ],
                        "first",
                        "all",
                        "When the mix is complete.",
                    ),
                ],
                doc: "The rows of other data blocks. What each holds out by itself, with its own `shuffle`, is held \
                      out.",
            }),
            HUB_ROWS,
        ],
        "json(\"data/train.jsonl\")",
        "The files that rows come from, or the blocks. Columns are the fields of a JSON object, those of a table, or `text`.",
    )
    .also(&["path", "file", "dataset", "files", "url"]),
    depends(
        "format",
        &[
            Form::Function(&Function {
                name: "text",
                arguments: &[default("column", &[Form::Text], "\"text\"", "\"text\"", "The column to read.")],
                doc: "One column holds the text.",
            }),
            Form::Function(&Function {
                name: "instruct",
                arguments: &[
                    required("prompt", &[Form::Template], "\"{instruction}\\n\"", "What is asked."),
                    required("response", &[Form::Template], "\"{output}\"", "What is to be answered."),
                ],
                doc: "A prompt and its response, made from columns: `{name}` stands for a column, `{{` \
                      and `}}` are braces. They are joined as they are, so a space or line break between \
                      them belongs to one of the two.",
            }),
            Form::Function(&Function {
                name: "tokens",
                arguments: &[
                    default(
                        "input",
                        &[Form::Text],
                        "\"input_ids\"",
                        "\"input_ids\"",
                        "The column of token ids.",
                    ),
                    default(
                        "labels",
                        &[Form::Text, Form::Word("none", "Every token is its own label.")],
                        "none",
                        "\"labels\"",
                        "The column of labels. They are aligned with the ids (the label of place t is the \
                         token of place t; the shift by one is made inside), and -100 is not learned.",
                    ),
                    default(
                        "label",
                        &[Form::Text, Form::Word("none", "Rows have no class.")],
                        "none",
                        "\"label\"",
                        "The column of a row's class, as its number or its name.",
                    ),
                    default(
                        "mask",
                        &[Form::Text, Form::Word("none", "Nothing is padding.")],
                        "none",
                        "\"attention_mask\"",
                        "The column that marks padding, which comes last, with 0.",
                    ),
                ],
                doc: "Rows tokenised elsewhere: lists of token ids. No tokenizer is needed.",
            }),
            Form::Function(&Function {
                name: "classify",
                arguments: &[
                    required("text", &[Form::Template], "\"{text}\"", "What is read: `{name}` is a column."),
                    default(
                        "label",
                        &[Form::Text],
                        "\"label\"",
                        "\"label\"",
                        "The column of a row's class, as its number or its name.",
                    ),
                ],
                doc: "A text and its class.",
            }),
            Form::Function(&Function {
                name: "token_labels",
                arguments: &[
                    default("tokens", &[Form::Text], "\"tokens\"", "\"tokens\"", "The column of the words, a list."),
                    default(
                        "labels",
                        &[Form::Text],
                        "\"labels\"",
                        "\"ner_tags\"",
                        "The column of their classes, a list of numbers or names; -100 is not learned.",
                    ),
                ],
                doc: "Words and a class for each, as for named entities. The first token of a word has its class, \
                      the others are not learned.",
            }),
            Form::Function(&Function {
                name: "question",
                arguments: &[
                    default("question", &[Form::Text], "\"question\"", "\"question\"", "The column of what is asked."),
                    default(
                        "context",
                        &[Form::Text],
                        "\"context\"",
                        "\"context\"",
                        "The column of the text that holds the answer.",
                    ),
                    default(
                        "answers",
                        &[Form::Text],
                        "\"answers\"",
                        "\"answers\"",
                        "The column of the answers: `{\"text\": [...], \"answer_start\": [...]}`, counted in characters, \
                         or a list of `{\"text\": ..., \"answer_start\": ...}`; none where the text has no answer. \
                         The first one is learned, all of them count when the model is measured.",
                    ),
                    depends(
                        "stride",
                        &[Form::Amount(&[(Unit::Tokens, FROM_0)])],
                        "a third of `max_length`",
                        "128 tokens",
                        "How many tokens of the text two pieces of it share, with `too_long = split`.",
                    )
                    .also(&["doc_stride"]),
                ],
                doc: "A question, and a text in which the answer stands, as SQuAD has them. With `too_long = split` a long text \
                      is looked at in pieces that overlap.",
            }),
            Form::Function(&Function {
                name: "completion",
                arguments: &[
                    default("prompt", &[Form::Text], "\"prompt\"", "\"question\"", "The column of what is asked."),
                    default(
                        "completion",
                        &[Form::Text],
                        "\"completion\"",
                        "\"answer\"",
                        "The column of what is to be answered.",
                    ),
                ],
                doc: "As `instruct`, of two columns as they are.",
            }),
            Form::Function(&Function {
                name: "chat",
                arguments: &[
                    default(
                        "column",
                        &[Form::Word("auto", "`messages`, or else `conversations`."), Form::Text],
                        "auto",
                        "\"messages\"",
                        "The column of the messages, each with `role` and `content`, or with `from` and `value`.",
                    )
                    .also(&["messages"]),
                    default(
                        "tools",
                        &[
                            Form::Word("auto", "`tools`, in rows that have it."),
                            Form::Word("none", "None."),
                            Form::Text,
                        ],
                        "auto",
                        "\"tools\"",
                        "The column of the tools that a row offers, as a list or as JSON text.",
                    ),
                    default(
                        "template",
                        &[Form::Word("auto", "That of the tokenizer."), Form::Path],
                        "auto",
                        "\"chat.jinja\"",
                        "A file with the Jinja template that writes out the messages.",
                    )
                    .also(&["chat_template"]),
                    depends(
                        "roles",
                        &[Form::Record(&[Form::Text], "\"user\"")],
                        "those that are in use",
                        "{ customer = \"user\", agent = \"assistant\" }",
                        "Further names of roles, each with the role that is meant: `system`, `user`, `assistant`, `tool`.",
                    ),
                ],
                doc: "Messages, written out by a chat template, which also says where each begins and ends.",
            }),
        ],
        "needed unless the source is a `mix`",
        "instruct(prompt = \"{instruction}\\n\", response = \"{output}\")",
        "How a row becomes the text that the model reads, and which part of it is a response.",
    )
    .also(&["template", "type", "prompt"]),
    default(
        "filter",
        &[
            Form::Word("none", "All rows are used."),
            Form::Record(
                &[
                    Form::Text,
                    Form::Boolean,
                    Form::List(&[Form::Text], None),
                    Form::Function(&Function {
                        name: "not",
                        arguments: &[required(
                            "texts",
                            &[Form::Text, Form::List(&[Form::Text], None)],
                            "\"spam\"",
                            "What the column must not hold.",
                        )],
                        doc: "Anything else, or nothing.",
                    }),
                    Form::Function(&Function {
                        name: "at_least",
                        arguments: &[required("number", &[Form::Real(FINITE)], "0.5", "The smallest number.")],
                        doc: "This number or a larger one.",
                    }),
                    Form::Function(&Function {
                        name: "at_most",
                        arguments: &[required("number", &[Form::Real(FINITE)], "0.5", "The largest number.")],
                        doc: "This number or a smaller one.",
                    }),
                ],
                "\"en\"",
            ),
        ],
        "none",
        "{ language = \"en\", score = at_least(0.5) }",
        "What columns must hold for a row to be used: a text, one of several, a number in bounds.",
    )
    .also(&["where", "filters"]),
    default(
        "dedup",
        &[Form::Boolean],
        "false",
        "true",
        "Whether a row that is the same, token by token, as an earlier one is left out.",
    )
    .also(&["deduplicate", "unique"]),
    default(
        "holdout",
        &[
            Form::Word("none", "All rows are learned."),
            Form::Amount(&[(Unit::Percent, PERCENT), (Unit::Rows, FROM_1)]),
            JSON,
            CSV,
            PARQUET,
            ARROW,
            TEXT,
            HUB_ROWS,
        ],
        "none",
        "2 %",
        "What is kept for evaluation and never trained on: a share or number of the rows, or all rows of another \
         source. A share is drawn after shuffling, so the same `shuffle` holds out the same rows.",
    )
    .also(&["val_size", "test_size", "validation", "eval_split"]),
    default(
        "shuffle",
        &[
            Form::Word("none", "Rows keep the order of the file."),
            Form::Function(&Function {
                name: "seed",
                arguments: &[
                    required("seed", &[Form::Whole(FROM_0)], "17", "What the orders are drawn from."),
                    default(
                        "by_length",
                        &[Form::Boolean],
                        "false",
                        "true",
                        "Whether rows of like length share a batch, so that less of it is padding.",
                    )
                    .also(&["group_by_length"]),
                ],
                doc: "Every epoch has its own order, drawn from the seed and the epoch's number.",
            }),
        ],
        "seed(0)",
        "seed(17)",
        "The order in which rows are learned.",
    ),
];

const MARK: &[Form] = &[
    Form::Word(
        "auto",
        "What the tokenizer itself puts there: what its post-processor adds; behind a row, if that adds \
         nothing, the end mark that its configuration names.",
    ),
    Form::Word("none", "Nothing."),
    Form::Text,
];

const TOKENIZER: &[Key] = &[
    depends(
        "file",
        &[Form::Path, HUB],
        "needed unless all data that it serves is in `tokens` format",
        "\"models/llama/tokenizer.json\"",
        "A `tokenizer.json` as Hugging Face writes it; it lies beside the model's weights. What \
         `tokenizer_config.json` beside it says about the end mark is read, too.",
    )
    .also(&["path", "name", "tokenizer"]),
    default(
        "max_length",
        &[
            Form::Word("none", "As many tokens as the model has positions."),
            Form::Amount(&[(Unit::Tokens, FROM_1)]),
        ],
        "none",
        "512 tokens",
        "The most tokens of a row, marks included. Memory for activations grows with it: the plan reckons \
         with the longest row that the data really has, up to this.",
    )
    .also(&["max_seq_length", "max_seq_len", "cutoff_len", "sequence_len", "block_size", "seq_len"]),
    default(
        "too_long",
        &[
            Form::Word("cut", "Longer rows lose their end."),
            Form::Word("cut_left", "Longer rows lose their beginning, but not the begin mark."),
            Form::Word("split", "Longer rows become several."),
            Form::Word("drop", "Longer rows are left out."),
            Form::Word("fail", "A longer row is an error."),
        ],
        "cut",
        "cut",
        "What becomes of rows that are longer than `max_length`. `hift check --data` says how many there \
         are.",
    )
    .also(&["truncation"]),
    default(
        "pack",
        &[Form::Boolean],
        "false",
        "true",
        "Whether several rows share one sequence of `max_length` tokens. They do not see each other, and \
         positions restart with each row, so only padding is saved.",
    )
    .also(&["packing", "sample_packing"]),
    depends(
        "loss_on",
        &[
            Form::Word("all", "Every token is learned."),
            Form::Word(
                "response",
                "Only the response of a row is learned, its end mark included: every turn of the assistant in a chat.",
            ),
            Form::Word("last", "Only the assistant's last turn in a chat is learned."),
            Form::Function(&Function {
                name: "roles",
                arguments: &[required(
                    "names",
                    &[Form::List(&[Form::Text], None)],
                    "[\"assistant\"]",
                    "Roles: `system`, `user`, `assistant`, `tool`.",
                )],
                doc: "Only the turns of these roles in a chat are learned.",
            }),
        ],
        "`response` where the data has one, else `all`",
        "response",
        "Which tokens carry a loss. The others are read but not learned.",
    )
    .also(&["train_on_inputs", "completion_only_loss", "mask_prompt"]),
    default("begin", MARK, "auto", "\"<s>\"", "The token that is put in front of a row.")
        .also(&["add_bos_token", "bos"]),
    default(
        "end",
        MARK,
        "auto",
        "\"</s>\"",
        "The token that is put behind a row, and at which generated text ends.",
    )
    .also(&["add_eos_token", "eos"]),
];

const LABELS: Key = depends(
    "labels",
    &[Form::List(&[Form::Text], None)],
    "`id2label` in `config.json`",
    "[\"negative\", \"positive\"]",
    "The classes' names, in the order of their numbers.",
)
.also(&["classes", "id2label", "label_list"]);

const MODEL: &[Key] = &[
    required(
        "weights",
        &[
            Form::Path,
            Form::Function(&Function {
                name: "random",
                arguments: &[
                    required("config", &[Form::Path], "\"config.json\"", "The model's `config.json`."),
                    default("seed", &[Form::Whole(FROM_0)], "0", "1", "What the weights are drawn from."),
                ],
                doc: "A fresh start, drawn as the model's family draws it. A plan needs nothing but the \
                      configuration, so this is also the way to plan for a model that is not there.",
            }),
            HUB,
        ],
        "\"models/llama\"",
        "The weights to start from: a Hugging Face directory with `config.json` and safetensors, in one \
         file or in shards. Where there are none, `pytorch_model.bin` or its shards are read.",
    )
    .also(&["path", "model_name_or_path", "base_model", "file", "name"]),
    default(
        "task",
        &[
            Form::Word(
                "auto",
                "What `architectures` in `config.json` says; an encoder (bert) of another task gives each sequence a class.",
            ),
            Form::Function(&Function {
                name: "sequence_classification",
                arguments: &[LABELS],
                doc: "Each sequence is given a class.",
            }),
            Form::Word("regression", "Each sequence is given a number."),
            Form::Function(&Function {
                name: "token_classification",
                arguments: &[LABELS],
                doc: "Each word is given a class, as for named entities.",
            }),
            Form::Word("question_answering", "Where the answer to a question begins and ends in a text."),
        ],
        "auto",
        "sequence_classification(labels = [\"negative\", \"positive\"])",
        "What the model is trained for. A head that the weights do not have starts fresh, and the export says what it \
         is: `BertForTokenClassification`.",
    )
    .also(&["head", "architecture", "task_type", "labels"]),
    default(
        "precision",
        &[
            Form::Word("fp32", "32-bit floating point throughout."),
            Form::Word(
                "bf16",
                "Weights of 16 bits and no others: a changed weight is rounded up or down at random, so that small \
                 steps count in the mean. The least memory.",
            ),
            Form::Function(&Function {
                name: "mixed",
                arguments: HALF,
                doc: "Weights and activations of 16 bits, beside 32-bit masters of all weights: those are what \
                      changes, is kept in checkpoints and exported.",
            }),
            Form::Function(&Function {
                name: "mixed_hi",
                arguments: HALF,
                doc: "The same, but on a device with memory of its own there are masters of the active group only; \
                      the others rest on the host. (HiFT's Mixed^Hi.)",
            }),
        ],
        "fp32",
        "mixed_hi(bf16)",
        "The numbers that weights are kept and computed in. In `fp32` a weight takes 4 bytes, an activation 4 for \
         each number; with the others 2. Sums, gradients of weights and the optimizer's states have 32 bits in any \
         case. With `fp16` the loss is scaled: it begins at 65,536 times itself; a step whose gradients overflow is \
         made again with half of that, and 2,000 good steps double it. `fp16` without masters is not offered: its \
         smallest step is too coarse to learn with.",
    )
    .also(&["dtype", "torch_dtype", "fp16", "bf16"]),
    default(
        "recompute",
        &[
            Form::Word("none", "Activations are kept until they are needed."),
            Form::Word(
                "blocks",
                "Only the input of each block is kept; the block runs again when its turn in reverse \
                     comes. About a third more work where the embedding trains, less further up.",
            ),
            Form::Word("auto", "For each group as few blocks as `memory_limit` asks for; none where everything fits."),
        ],
        "none",
        "auto",
        "Whether memory is saved by computing twice. Below the active group nothing is kept in any case; \
         this is about the blocks above it.",
    )
    .also(&["gradient_checkpointing", "activation_checkpointing"]),
    default(
        "tf32",
        &[Form::Boolean],
        "false",
        "true",
        "Whether products of `fp32` numbers on a GPU may round their operands to 19 bits: its tensor cores then form \
         them, several times as fast. On the CPU nothing is rounded.",
    ),
];

/// The type of `mixed` and `mixed_hi`.
const HALF: &[Key] = &[required(
    "half",
    &[
        Form::Word("bf16", "Brain floating point: the range of `fp32`, 8 bits of precision."),
        Form::Word("fp16", "IEEE floating point: numbers up to 65,504, 11 bits of precision."),
    ],
    "bf16",
    "The type of weights and activations.",
)];

const PATTERNS: &[Form] = &[Form::List(&[Form::Text], None)];

const TAIL: Key = default(
    "tail",
    &[
        Form::Word(
            "joined",
            "The final norm and the head are one layer, `head`. Where the head shares the embedding's matrix, the \
             norm joins the last block and the matrix is `embedding`.",
        ),
        Form::Word("split", "The final norm, the pooler and the head are layers of their own."),
    ],
    "joined",
    "split",
    "What the layers behind the blocks are.",
);

const GROUPS: &[Key] = &[
    required(
        "split",
        &[
            Form::Function(&Function {
                name: "by_layer",
                arguments: &[
                    required(
                        "size",
                        &[Form::Whole(FROM_1)],
                        "1",
                        "How many layers train together: m in the paper. Where it does not divide the \
                         number of layers, the last group is shorter, unless `rotate` says otherwise.",
                    ),
                    TAIL,
                ],
                doc: "So many layers in a row train together. The layers are `embedding`, `block.0` and \
                      so on, `head`.",
            }),
            Form::Function(&Function {
                name: "by_size",
                arguments: &[
                    required(
                        "size",
                        &[Form::Amount(&[(Unit::Bytes, ABOVE_0)])],
                        "400 MiB",
                        "The most that the weights of a group take, in 32-bit floats.",
                    ),
                    TAIL,
                ],
                doc: "Consecutive layers, in groups of about the same size; a larger layer is a group of its own.",
            }),
            Form::Function(&Function {
                name: "all",
                arguments: &[],
                doc: "One group with every layer: plain full fine-tuning.",
            }),
            Form::Function(&Function {
                name: "named",
                arguments: &[required(
                    "groups",
                    &[Form::Record(PATTERNS, "[\"block.*\", \"head\"]")],
                    "{ bottom = [\"embedding\", \"block.0\"], top = [\"block.*\", \"head\"] }",
                    "Each group with its patterns: names of layers (`block.3`), of what is inside \
                     (`block.*.attention`) or of parameters, where `*` is any text without a dot and `**` \
                     any text. The first group that matches a parameter gets it, and each parameter must \
                     be in a group or frozen.",
                )],
                doc: "Groups by name, in the order of their turns from bottom to top.",
            }),
            Form::Record(PATTERNS, "[\"block.*\", \"head\"]"),
        ],
        "by_layer(1)",
        "Which layers are trained together. Gradients and, where states rest elsewhere, optimizer states \
         are needed for one group at a time: small groups save memory, large groups take fewer steps for a \
         cycle.",
    ),
    default(
        "freeze",
        PATTERNS,
        "[]",
        "[\"embedding\"]",
        "Names or patterns, as in `split`, of what is never trained. It needs neither gradients nor \
         states; one that matches nothing is an error.",
    )
    .also(&["frozen", "exclude"]),
    default(
        "always",
        PATTERNS,
        "[]",
        "[\"embedding\", \"head\"]",
        "Names or patterns of layers or parameters that every turn trains, beside its group.",
    )
    .also(&["always_active"]),
    default(
        "grow",
        &[Form::Boolean],
        "false",
        "true",
        "Whether each turn trains the groups before it, too; the last one then keeps its turn.",
    ),
    default(
        "rotate",
        &[Form::Boolean],
        "false",
        "true",
        "Where the layers do not divide evenly by `by_layer(size)`: whether groups wrap around, as in the \
         reference implementation, which takes `size` layers from the queue's head and appends them to its \
         tail, instead of a short last group.",
    ),
];

const SEED: &[Form] = &[Form::Whole(FROM_0)];
const REAL: &[Form] = &[Form::Real(ABOVE_0)];
const PEAK: Key =
    required("peak", REAL, "2e-5", "The highest rate: that of the first step, or of the end of the warm-up.")
        .also(&["lr", "rate", "learning_rate", "max_lr"]);
const WARMUP: Key = default(
    "warmup",
    &[
        Form::Word("none", "The first rate is the highest."),
        Form::Amount(&[(Unit::Percent, PERCENT), (Unit::Steps, FROM_0), (Unit::Cycles, FROM_0)]),
    ],
    "none",
    "3 %",
    "How long the rate rises in a straight line before it is at its highest. Percent are of the whole \
     run; steps are rounded up to whole cycles where the rate moves once a cycle.",
)
.also(&["warmup_ratio", "warmup_steps"]);
const END: Key = default("end", &[Form::Real(FROM_0)], "0", "1e-6", "The rate at which the course ends.")
    .also(&["min_lr", "final"]);

const SCHEDULE: &[Key] = &[
    default(
        "order",
        &[
            Form::Word("bottom_up", "From the embedding to the head."),
            Form::Word("top_down", "From the head to the embedding."),
            Form::Function(&Function {
                name: "random",
                arguments: &[
                    required("seed", SEED, "7", "What the order is drawn from."),
                    default(
                        "redraw",
                        &[
                            Form::Word("never", "The order is drawn once and then kept."),
                            Form::Word("per_cycle", "Each cycle has an order of its own."),
                        ],
                        "never",
                        "per_cycle",
                        "When a new order is drawn.",
                    ),
                ],
                doc: "Drawn from the seed.",
            }),
            Form::Function(&Function {
                name: "sample",
                arguments: &[
                    required("seed", SEED, "7", "What the turns are drawn from."),
                    default("size", &[Form::Whole(FROM_1)], "1", "2", "How many groups a turn trains."),
                ],
                doc: "Each turn draws which groups it trains, whatever was drawn before.",
            }),
            Form::Word(
                "importance",
                "The group whose gradient was longest the last time; at first as `bottom_up`.",
            ),
            Form::List(&[Form::Text, Form::List(&[Form::Text], None)], None),
        ],
        "bottom_up",
        "top_down",
        "In which order the groups have their turns: the paper's update strategy. A list names layers, or \
         groups with `named`, first to last; a list inside it is a turn of several.",
    ),
    default(
        "dwell",
        &[Form::Amount(&[(Unit::Steps, FROM_1)])],
        "1 step",
        "100 steps",
        "How long a group's turn lasts, in optimizer updates. The paper has one; BAdam has many, with \
         `states = discard`.",
    ),
    default(
        "advance",
        &[
            Form::Word(
                "per_cycle",
                "The rate moves when every group has had its turn: the paper's delayed rate, so that \
                     all groups of a cycle learn at the same rate.",
            ),
            Form::Word(
                "per_short_cycle",
                "The same, but where the layers do not divide evenly, one turn earlier, as in the reference \
                 implementation.",
            ),
            Form::Word("per_step", "The rate moves with every update."),
        ],
        "per_cycle",
        "per_step",
        "When the rate moves on.",
    ),
    default(
        "horizon",
        &[
            Form::Word("cycles", "The rate's course is drawn over cycles and ends with the run."),
            Form::Word(
                "steps",
                "It is drawn over all steps but moves once a cycle, as in the reference implementation; \
                 most of it is never reached, and warm-up begins at a rate of zero.",
            ),
        ],
        "cycles",
        "steps",
        "What the length of the rate's course is counted in.",
    ),
    default(
        "states",
        &[
            Form::Word("host", "In the computer's memory."),
            Form::Word("device", "On the device."),
            Form::Word(
                "disk",
                "In files without a name on the disk of the run directory, or of `hift run --scratch`, mapped into memory: \
                 they come for their update and go back. So do 32-bit masters where the precision has them at rest \
                 (`mixed_hi`). For a computer whose memory does not hold them; a disk is slower by far.",
            ),
            Form::Word(
                "discard",
                "Nowhere: each turn begins with fresh states, as in BAdam. Only the active group's \
                     states take memory.",
            ),
        ],
        "host",
        "device",
        "Where the optimizer states of a group rest between its turns. On the CPU, host and device are \
         the same memory; on disk, they are not in it.",
    ),
    default(
        "weights",
        &[
            Form::Word("device", "On the device."),
            Form::Word(
                "host",
                "In the computer's memory: each block's come to the device a block ahead of their use, forward and in \
                     reverse, and go again. Device memory then does not grow with the number of layers.",
            ),
            Form::Word(
                "disk",
                "In files without a name on the disk of the run directory, or of `hift run --scratch`, mapped into memory, \
                 with their masters; they come and go as with `host`, on the CPU, too.",
            ),
        ],
        "device",
        "host",
        "Where weights rest while no operation needs them. On the CPU, host and device are the same memory; on disk, they \
         are not in it.",
    ),
    required(
        "rate",
        &[
            Form::Function(&Function {
                name: "constant",
                arguments: &[PEAK, WARMUP],
                doc: "The same rate throughout.",
            }),
            Form::Function(&Function {
                name: "linear",
                arguments: &[PEAK, WARMUP, END],
                doc: "Down to `end` in a straight line.",
            }),
            Form::Function(&Function {
                name: "cosine",
                arguments: &[PEAK, WARMUP, END],
                doc: "Down to `end` along half a cosine.",
            }),
            Form::Function(&Function {
                name: "cosine_with_restarts",
                arguments: &[
                    PEAK,
                    default(
                        "periods",
                        &[Form::Whole(FROM_1)],
                        "1",
                        "3",
                        "How often the rate starts at its highest.",
                    )
                    .also(&["num_cycles", "cycles", "restarts"]),
                    WARMUP,
                    END,
                ],
                doc: "Along several half cosines, each from the highest rate down to `end`.",
            }),
            Form::Function(&Function {
                name: "polynomial",
                arguments: &[
                    PEAK,
                    default(
                        "power",
                        REAL,
                        "1",
                        "2.0",
                        "To which power what is left of the course is raised.",
                    ),
                    WARMUP,
                    END,
                ],
                doc: "Down to `end` along a power of what is left of the course.",
            }),
            Form::Function(&Function {
                name: "inverse_sqrt",
                arguments: &[
                    PEAK,
                    WARMUP,
                    default(
                        "timescale",
                        &[
                            Form::Word("warmup", "The length of the warm-up, or 10,000 where there is none."),
                            Form::Amount(&[(Unit::Steps, FROM_1), (Unit::Cycles, FROM_1)]),
                        ],
                        "warmup",
                        "200 steps",
                        "The time in whose units the square root is taken.",
                    ),
                ],
                doc: "Down by one over the square root of the time, without an end.",
            }),
            Form::Function(&Function {
                name: "wsd",
                arguments: &[
                    PEAK,
                    default(
                        "decay",
                        &[Form::Amount(&[
                            (Unit::Percent, PERCENT),
                            (Unit::Steps, FROM_1),
                            (Unit::Cycles, FROM_1),
                        ])],
                        "10 %",
                        "20 %",
                        "How long before the end the rate begins to go down; percent are of the whole run.",
                    )
                    .also(&["num_decay_steps"]),
                    default(
                        "shape",
                        &[
                            Form::Word("linear", "In a straight line."),
                            Form::Word("cosine", "Along half a cosine."),
                            Form::Word(
                                "sqrt",
                                "By the square root of the progress: fast first, then slower.",
                            ),
                        ],
                        "cosine",
                        "sqrt",
                        "How the rate goes down.",
                    )
                    .also(&["decay_type"]),
                    WARMUP,
                    END,
                ],
                doc: "Warm-up, stable, decay: at its highest until shortly before the end.",
            }),
        ],
        "cosine(peak = 2e-5, warmup = 3 %)",
        "The learning rate and its course over the run.",
    )
    .also(&["lr", "learning_rate", "lr_scheduler", "lr_scheduler_type"]),
    default(
        "layer_decay",
        &[Form::Real(UP_TO_1)],
        "1",
        "0.9",
        "What the rate of a layer is multiplied by for each layer above it; the head has the rate itself.",
    )
    .also(&["layerwise_lr_decay", "llrd"]),
    default(
        "factors",
        &[Form::Word("none", "All have the rate itself."), Form::Record(REAL, "10")],
        "none",
        "{ head = 10 }",
        "What the rate of some groups or layers is multiplied by, by their names.",
    ),
];

/// An algorithm of an optimizer block, and the keys that it has.
#[derive(Debug)]
pub struct AlgorithmKeys {
    pub name: &'static str,
    pub doc: &'static str,
    /// Keys of the block with what applies where one is not written.
    pub keys: &'static [(&'static str, Preset)],
}

/// What applies for an algorithm where a key is not written. Prints as it is written in the language.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Preset {
    Real(f64),
    Pair(f64, f64),
    Flag(bool),
    /// The word `none`.
    Nothing,
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Preset::Real(x) if *x != 0.0 && *x < 1e-3 => write!(f, "{x:e}"),
            Preset::Real(x) => write!(f, "{x}"),
            Preset::Pair(a, b) => write!(f, "[{a}, {b}]"),
            Preset::Flag(flag) => write!(f, "{flag}"),
            Preset::Nothing => f.write_str("none"),
        }
    }
}

/// The table of the algorithms, and the words of the key `algorithm`.
macro_rules! algorithms {
    ($($name:literal, $doc:literal, { $($key:literal: $preset:expr),* $(,)? };)*) => {
        /// Every algorithm with its keys and their defaults.
        pub const ALGORITHMS: &[AlgorithmKeys] =
            &[$(AlgorithmKeys { name: $name, doc: $doc, keys: &[$(($key, $preset)),*] }),*];
        const ALGORITHM_WORDS: &[Form] = &[$(Form::Word($name, $doc)),*];
    };
}

algorithms! {
    "adamw", "Adam with decoupled weight decay.",
        { "betas": Preset::Pair(0.9, 0.999), "eps": Preset::Real(1e-8), "weight_decay": Preset::Real(0.01) };
    "adam", "Adam; weight decay is a part of the gradient.",
        { "betas": Preset::Pair(0.9, 0.999), "eps": Preset::Real(1e-8), "weight_decay": Preset::Real(0.0) };
    "sgd", "Plain gradient descent, without states.",
        { "weight_decay": Preset::Real(0.0) };
    "sgdm", "Gradient descent with momentum.",
        { "momentum": Preset::Real(0.9), "nesterov": Preset::Flag(false), "weight_decay": Preset::Real(0.0) };
    "adagrad", "Steps shrink with the sum of the squared gradients.",
        { "eps": Preset::Real(1e-10), "weight_decay": Preset::Real(0.0) };
    "rmsprop", "Steps shrink with an average of the squared gradients.",
        { "alpha": Preset::Real(0.99), "eps": Preset::Real(1e-8), "momentum": Preset::Real(0.0),
          "centered": Preset::Flag(false), "weight_decay": Preset::Real(0.0) };
    "adafactor", "The squared gradient's average is kept as a row and a column of each matrix.",
        { "eps": Preset::Real(1e-30), "decay_rate": Preset::Real(0.8), "clip_threshold": Preset::Real(1.0),
          "beta1": Preset::Nothing, "scale_parameter": Preset::Flag(false), "weight_decay": Preset::Real(0.0) };
    "lion", "The sign of an average of the gradient; wants about a tenth of Adam's rate.",
        { "betas": Preset::Pair(0.9, 0.99), "weight_decay": Preset::Real(0.0) };
    "lamb", "AdamW whose step is as large as the weights of its tensor ask for.",
        { "betas": Preset::Pair(0.9, 0.999), "eps": Preset::Real(1e-6), "weight_decay": Preset::Real(0.01) };
    "lars", "Momentum whose step is as large as the weights of its tensor ask for.",
        { "momentum": Preset::Real(0.9), "nesterov": Preset::Flag(false), "trust": Preset::Real(0.001),
          "weight_decay": Preset::Real(0.0) };
    "adam_mini", "AdamW with one second moment for each head or row instead of each weight.",
        { "betas": Preset::Pair(0.9, 0.999), "eps": Preset::Real(1e-8), "weight_decay": Preset::Real(0.01) };
    "adamw8bit", "AdamW whose moments have 8 bits.",
        { "betas": Preset::Pair(0.9, 0.999), "eps": Preset::Real(1e-8), "weight_decay": Preset::Real(0.01) };
    "adam8bit", "Adam whose moments have 8 bits.",
        { "betas": Preset::Pair(0.9, 0.999), "eps": Preset::Real(1e-8), "weight_decay": Preset::Real(0.0) };
    "lion8bit", "Lion whose moment has 8 bits.",
        { "betas": Preset::Pair(0.9, 0.99), "weight_decay": Preset::Real(0.0) };
}

const BETA: &[Form] = &[Form::Real(BELOW_1)];

const OPTIMIZER: &[Key] = &[
    depends("algorithm", ALGORITHM_WORDS, "the block's name", "adamw", "How a gradient changes a weight.")
        .also(&["type", "name", "optim"]),
    depends(
        "betas",
        &[Form::List(BETA, Some(2))],
        "`[0.9, 0.999]`, `[0.9, 0.99]` for `lion`",
        "[0.9, 0.999]",
        "How slowly the averages of the gradient and of its square move. Both are a group's own and count \
         its own updates.",
    ),
    depends(
        "eps",
        REAL,
        "`1e-8`; `1e-10` for `adagrad`, `1e-6` for `lamb`, `1e-30` for `adafactor`",
        "1e-8",
        "What keeps the division from zero.",
    )
    .also(&["epsilon"]),
    depends(
        "momentum",
        BETA,
        "`0.9` for `sgdm` and `lars`, `0` for `rmsprop`",
        "0.9",
        "How slowly the average of the gradient moves.",
    ),
    depends("nesterov", &[Form::Boolean], "`false`", "true", "Whether momentum looks one step ahead."),
    depends("alpha", BETA, "`0.99`", "0.99", "How slowly the average of the squared gradient moves."),
    depends(
        "centered",
        &[Form::Boolean],
        "`false`",
        "true",
        "Whether the variance of the gradient counts instead of its square.",
    ),
    depends(
        "decay_rate",
        REAL,
        "`0.8`",
        "0.8",
        "How the averages settle: at a tensor's t-th update the new square has the share t to the minus this.",
    ),
    depends(
        "clip_threshold",
        REAL,
        "`1`",
        "1.0",
        "The largest root mean square of an update, before the rate.",
    ),
    depends(
        "beta1",
        &[Form::Word("none", "Updates are taken as they are."), Form::Real(BELOW_1)],
        "`none`",
        "0.9",
        "How slowly an average of the updates moves, which costs a state as large as the weights.",
    ),
    depends(
        "scale_parameter",
        &[Form::Boolean],
        "`false`",
        "true",
        "Whether the rate is in units of the root mean square of a tensor's weights.",
    ),
    depends(
        "trust",
        REAL,
        "`0.001`",
        "0.001",
        "The size of a step in units of the norm of its tensor's weights.",
    )
    .also(&["trust_coefficient", "eta"]),
    depends(
        "weight_decay",
        &[Form::Real(FROM_0)],
        "`0.01` for `adamw`, `adamw8bit`, `adam_mini` and `lamb`, else `0`",
        "0.01",
        "How fast weights shrink, in units of the rate. Only the active group's do, and tensors with one \
         axis (norms, biases) never do.",
    )
    .also(&["wd", "decay"]),
];

const ENDINGS: &[Form] = &[
    Form::Word("success", "The run has finished."),
    Form::Word("failure", "The run has failed."),
    Form::Word("interruption", "A signal came or the time was up, and a checkpoint was written."),
];

const HOOK: &[Key] = &[
    required(
        "on",
        &[
            Form::Word("success", "The run has finished."),
            Form::Word("failure", "The run has failed."),
            Form::Word("interruption", "A signal came or the time was up, and a checkpoint was written."),
            Form::List(ENDINGS, None),
        ],
        "[success, failure]",
        "After which endings it runs. A call that finds nothing to do runs none.",
    ),
    required(
        "run",
        &[Form::Text],
        "\"mail -s hift me@example.org\"",
        "The command, for `sh -c`, in the folder of the pipeline file. Its standard input is a line of JSON: \
         `outcome`, `exit_code`, `pipeline`, `directory`, `message`, `exports`, `checkpoint`, `results`.",
    )
    .also(&["command", "cmd"]),
];

const DEVICE: &[Form] = &[
    Form::Word("auto", "CUDA where this program has it and finds a device, else the CPU."),
    Form::Word("cpu", "The CPU."),
    Form::Function(&Function {
        name: "cuda",
        arguments: &[default("index", &[Form::Whole(CUDA)], "0", "0", "Which device.")],
        doc: "A CUDA device.",
    }),
];

const METRIC: &[Form] = &[
    Form::Word("loss", "Mean cross entropy per learned token, in nats."),
    Form::Word("perplexity", "exp(loss)."),
    Form::Word(
        "accuracy",
        "The share of learned tokens (of rows, where these have a class or an answer) whose label is the \
                 model's first choice.",
    ),
    Form::Word("f1", "Of two classes, F1 of the second; of answers, of their words, as SQuAD counts."),
    Form::Word("macro_f1", "The mean of the classes' F1."),
    Form::Word("matthews", "Matthews' correlation of classes, -1 to 1."),
    Form::Word("pearson", "The correlation of the numbers, -1 to 1."),
    Form::Word("spearman", "The correlation of the numbers' ranks, -1 to 1."),
    Form::Word("exact_match", "The share of answers that are one of those given, as SQuAD counts."),
    Form::Word(
        "entity_f1",
        "F1 of whole entities, as seqeval counts: classes are called `B-...`, `I-...`, `O`.",
    ),
    Form::Word("entity_precision", "The share of entities found that are right."),
    Form::Word("entity_recall", "The share of entities that are found."),
];

const METRICS: Key = default(
    "metrics",
    &[Form::List(METRIC, None)],
    "[loss]",
    "[loss, perplexity]",
    "What is measured, on tokens that carry a loss.",
)
.also(&["metric"]);

const EVERY: Key = required(
    "every",
    &[Form::Amount(&[(Unit::Steps, FROM_1), (Unit::Cycles, FROM_1), (Unit::Epochs, ABOVE_0)])],
    "200 steps",
    "How often, counted in optimizer updates, in cycles or in passes over the data.",
);

const DATA_NAME: &[Form] = &[Form::Block(&["data"])];
const TOKENIZER_NAME: &[Form] = &[Form::Block(&["tokenizer"])];

const TRAIN: &[Key] = &[
    required("data", DATA_NAME, "NAME", "The `data` block to learn from.").also(&["dataset", "train_data"]),
    depends(
        "tokenizer",
        TOKENIZER_NAME,
        "needed unless the data is in `tokens` format",
        "NAME",
        "The `tokenizer` block.",
    ),
    required(
        "model",
        &[Form::Block(&["model", "train"])],
        "NAME",
        "The `model` block to start from, or the `train` stage to go on from: its weights as they are \
         when it ends, with fresh optimizer states.",
    )
    .also(&["base_model", "from"]),
    required("groups", &[Form::Block(&["groups"])], "NAME", "The `groups` block: what trains together.")
        .also(&["group"]),
    required(
        "schedule",
        &[Form::Block(&["schedule"])],
        "NAME",
        "The `schedule` block: whose turn it is, and at which rate.",
    )
    .also(&["scheduler"]),
    required(
        "optimizer",
        &[Form::Block(&["optimizer"])],
        "NAME",
        "The `optimizer` block: how weights change.",
    )
    .also(&["optim"]),
    depends(
        "epochs",
        &[Form::Real(ABOVE_0), Form::Amount(&[(Unit::Epochs, ABOVE_0)])],
        "either this or `steps` is needed",
        "3",
        "How often the data is gone through. Each step trains one group, so every group sees its share of \
         the steps of an epoch.",
    )
    .also(&["num_train_epochs", "num_epochs", "n_epochs"]),
    depends(
        "steps",
        &[Form::Whole(FROM_1), Form::Amount(&[(Unit::Steps, FROM_1)])],
        "either this or `epochs` is needed",
        "500",
        "How many optimizer updates are made in all. A cycle takes as many as there are groups, times \
         `dwell`.",
    )
    .also(&["max_steps", "num_steps", "iterations"]),
    required(
        "micro_batch",
        &[Form::Whole(FROM_1)],
        "4",
        "Sequences in one forward pass. Memory for activations grows with it.",
    )
    .also(&["batch_size", "batch", "per_device_train_batch_size", "micro_batch_size"]),
    default(
        "accumulate",
        &[Form::Whole(FROM_1)],
        "1",
        "4",
        "Forward passes for one optimizer update. The group stays the same for all of them, and the loss \
         is the mean over all their tokens, so `micro_batch = 4 accumulate = 4` learns what `micro_batch = \
         16` does, in less memory.",
    )
    .also(&["gradient_accumulation_steps", "grad_accum"]),
    default(
        "clip",
        &[Form::Word("none", "Gradients are taken as they are."), Form::Real(ABOVE_0)],
        "none",
        "1.0",
        "The largest norm of the active group's gradient; a larger one is scaled down to it.",
    )
    .also(&["max_grad_norm", "gradient_clip", "grad_clip"]),
    default("seed", SEED, "0", "42", "What is drawn at random in this stage comes from this number."),
    default("device", DEVICE, "auto", "cuda(0)", "Where it runs."),
    default(
        "memory_limit",
        &[Form::Word("none", "What the device has."), Form::Amount(&[(Unit::Bytes, ABOVE_0)])],
        "none",
        "22 GiB",
        "The most memory that the stage may take on its device. A plan that needs more is refused before \
         anything is loaded (exit code 78), with what it would need; `recompute = auto` keeps below it \
         where it can.",
    )
    .also(&["max_memory", "memory", "budget"]),
];

const TRAIN_PARTS: &[Kind] = &[
    Kind {
        name: "evaluate",
        role: Role::Part,
        doc: "Measures the rows that are held out during training: before the first step, and then as \
              often as it says.",
        keys: &[
            EVERY.also(&["eval_steps", "interval"]),
            METRICS,
            default(
                "patience",
                &[Form::Word("none", "Training goes on to its end."), Form::Whole(FROM_1)],
                "none",
                "3",
                "After how many evaluations in a row that were no better than the best one before training \
                 ends early. Better is judged by `best` of `checkpoint`, else by the first of `metrics`.",
            )
            .also(&["early_stopping", "early_stopping_patience"]),
            default(
                "samples",
                &[
                    Form::Word("none", "No text is written."),
                    Form::Whole(FROM_1),
                    Form::Amount(&[(Unit::Rows, FROM_1)]),
                ],
                "none",
                "3",
                "How many of the held-out rows, the first ones in the order of its files, are answered at each \
                 evaluation, with the most probable token each time: the same prompts over and over, so that one \
                 can read what the model learns. The rows need a prompt before their response, as `instruct` and \
                 `chat` have. The texts stand in `events.jsonl` and in the report, beside the responses.",
            )
            .also(&["n_samples", "num_samples", "generations", "eval_samples"]),
            default(
                "max_new_tokens",
                &[Form::Whole(FROM_1), Form::Amount(&[(Unit::Tokens, FROM_1)])],
                "64 tokens",
                "32 tokens",
                "The most tokens of a sample. It also ends with the end mark of the tokenizer, or where the model \
                 has no more positions.",
            )
            .also(&["max_tokens"]),
        ],
        parts: &[],
    },
    Kind {
        name: "checkpoint",
        role: Role::Part,
        doc: "Saves what is needed to go on after an interruption, to the same bits. Without this block only \
              an interruption writes one.",
        keys: &[
            EVERY.also(&["save_steps", "interval"]),
            default(
                "keep",
                &[Form::Whole(FROM_1)],
                "2",
                "2",
                "How many checkpoints are kept. Before an old one goes, the new one is whole.",
            )
            .also(&["save_total_limit"]),
            depends(
                "best",
                METRIC,
                "none is kept beside the last ones",
                "loss",
                "The metric by which the best checkpoint is kept beside the last ones. An evaluation that is \
                 better than all before writes one, whatever `every` says, and the link `best` leads to it.",
            )
            .also(&["metric_for_best_model"]),
            default(
                "result",
                &[
                    Form::Word("last", "The weights after the last step."),
                    Form::Word("best", "The weights of the best checkpoint; this needs `best`."),
                ],
                "last",
                "best",
                "What the stage ends with: what is evaluated, exported or trained further.",
            )
            .also(&["load_best_model_at_end"]),
        ],
        parts: &[],
    },
    Kind {
        name: "divergence",
        role: Role::Part,
        doc: "What counts as a run that has diverged, and what happens then. A loss or a gradient that is not \
              a number always counts; without this block it ends the run.",
        keys: &[
            default(
                "spike",
                &[Form::Word("none", "No number is too large."), Form::Real(ABOVE_1)],
                "none",
                "4",
                "A loss that is more than so many times its mean counts too. The mean is one over about 50 \
                 steps; the first 10 are let be.",
            ),
            default(
                "then",
                &[
                    Form::Word("stop", "The run ends (exit code 1); its checkpoints stay."),
                    Form::Function(&Function {
                        name: "roll_back",
                        arguments: &[
                            default(
                                "rate",
                                &[Form::Real(WITHIN_1)],
                                "0.5",
                                "0.5",
                                "What the rate is multiplied by from there on, once more each time.",
                            ),
                            default(
                                "times",
                                &[Form::Whole(FROM_1)],
                                "3",
                                "3",
                                "How often; after that the run ends.",
                            ),
                        ],
                        doc: "The stage goes on from its last checkpoint, or from its beginning where it has \
                              none, at a lower rate.",
                    }),
                ],
                "stop",
                "roll_back(rate = 0.5)",
                "What happens then.",
            ),
        ],
        parts: &[],
    },
];

const FROM: Key = depends(
    "from",
    &[Form::Block(&["train"])],
    "either this or `model` is needed",
    "NAME",
    "The `train` stage whose result is used.",
);
const ALONE: Key = depends(
    "model",
    &[Form::Block(&["model"])],
    "either this or `from` is needed",
    "NAME",
    "The `model` block that is used as it is.",
);
const OWN_TOKENIZER: Key =
    depends("tokenizer", TOKENIZER_NAME, "that of the `from` stage", "NAME", "The `tokenizer` block.");
const OWN_DEVICE: Key =
    depends("device", DEVICE, "that of the `from` stage, else `auto`", "cuda(0)", "Where it runs.");

const EVALUATE: &[Key] = &[
    FROM,
    ALONE,
    depends(
        "data",
        DATA_NAME,
        "that of the `from` stage",
        "NAME",
        "The `data` block to measure on: its holdout if it has one, else all of it.",
    ),
    OWN_TOKENIZER,
    METRICS,
    depends(
        "micro_batch",
        &[Form::Whole(FROM_1)],
        "that of the `from` stage",
        "4",
        "Sequences in one forward pass. Memory for activations grows with it.",
    )
    .also(&["batch_size", "batch"]),
    OWN_DEVICE,
];

const GENERATE: &[Key] = &[
    FROM,
    ALONE,
    OWN_TOKENIZER,
    depends(
        "prompts",
        &[Form::List(&[Form::Text], None)],
        "either this or `data` is needed",
        "[\"Once upon a time\"]",
        "The texts to continue.",
    )
    .also(&["prompt", "input", "inputs"]),
    depends(
        "data",
        DATA_NAME,
        "either this or `prompts` is needed",
        "NAME",
        "The `data` block whose rows are continued from where their response begins (of a chat, the last answer), which \
         is their reference: its holdout if it has one, else all of it. Rows that `too_long = cut` has shortened are \
         left out.",
    )
    .also(&["dataset", "test_data", "eval_data"]),
    default(
        "rows",
        &[
            Form::Word("all", "Every row."),
            Form::Whole(FROM_1),
            Form::Amount(&[(Unit::Rows, FROM_1)]),
        ],
        "all",
        "100 rows",
        "How many rows of `data`, the first ones in the order of its files.",
    )
    .also(&["max_rows", "n_rows", "limit"]),
    default(
        "references",
        &[Form::Word("none", "Nothing to measure against."), Form::List(&[Form::Text], None)],
        "none",
        "[\"there was a king.\"]",
        "What would be right to answer, a text for each prompt; `metrics` measure the texts against them.",
    )
    .also(&["labels", "targets", "expected"]),
    default(
        "metrics",
        &[Form::List(
            &[
                Form::Word(
                    "exact_match",
                    "The share of texts that are their reference, but for white space around them.",
                ),
                Form::Word("bleu", "BLEU of all texts, 0 to 100, as sacrebleu counts."),
                Form::Word(
                    "nist",
                    "NIST of all texts, from 0 on: rare words count for more. As nltk counts.",
                ),
                Form::Word("rouge_1", "F1 of the words, as rouge-score counts."),
                Form::Word("rouge_2", "F1 of pairs of words."),
                Form::Word("rouge_l", "F1 of the longest common subsequence of words."),
            ],
            None,
        )],
        "[]",
        "[bleu, rouge_l]",
        "What is measured of the texts against their `references`, or against the responses of `data`.",
    )
    .also(&["metric"]),
    default(
        "max_new_tokens",
        &[Form::Whole(FROM_1), Form::Amount(&[(Unit::Tokens, FROM_1)])],
        "128 tokens",
        "64 tokens",
        "The most tokens that are written for a prompt. A text also ends with the end mark of the \
         tokenizer, or where the model has no more positions.",
    )
    .also(&["max_tokens", "max_length"]),
    default(
        "temperature",
        &[Form::Real(FROM_0)],
        "0",
        "0.7",
        "How much chance has a say: the next token is drawn with the probabilities softmax(logits / \
         temperature). 0 takes the most probable token each time.",
    ),
    default(
        "top_k",
        &[Form::Word("none", "Among all of them."), Form::Whole(FROM_1)],
        "none",
        "50",
        "Among how many tokens, the most probable ones, the next is drawn.",
    ),
    default(
        "top_p",
        &[Form::Real(UP_TO_1)],
        "1",
        "0.9",
        "The next token is drawn among the fewest that have this share of the probability together.",
    ),
    default(
        "beams",
        &[Form::Whole(FROM_1)],
        "1",
        "4",
        "How many texts are followed at once, the most probable ones so far; the best is taken in the end.",
    )
    .also(&["num_beams", "beam_size"]),
    default(
        "length_penalty",
        &[Form::Real(FROM_0)],
        "1",
        "2.0",
        "Beams are compared by the sum of their logarithms over their length to this power: 0 favours short texts, \
         more than 1 long ones.",
    ),
    default(
        "early_stopping",
        &[Form::Boolean],
        "false",
        "true",
        "Whether a search ends as soon as so many texts are complete as there are beams.",
    ),
    default(
        "stop",
        &[Form::Word("none", "Nothing but the end mark."), Form::List(&[Form::Text], None)],
        "none",
        "[\"\\n\"]",
        "Texts that end an answer, besides the end mark; they do not belong to it.",
    )
    .also(&["stop_strings", "stop_sequences"]),
    default(
        "micro_batch",
        &[Form::Whole(FROM_1)],
        "8",
        "4",
        "How many prompts are continued at once. Memory for keys and values grows with it, and with `beams`.",
    )
    .also(&["batch_size", "batch"]),
    default("seed", SEED, "0", "42", "What tokens are drawn from."),
    default(
        "to",
        &[Form::Word("none", "The events of the run hold the texts, and nothing else does."), Form::Path],
        "none",
        "\"out/texts.jsonl\"",
        "The file to write: a JSON line for each prompt with `prompt`, `text`, `reference` (if there is one), `finish` \
         (`end`: an end mark, `stop`: a text of `stop`, `length`: no room) and `tokens`. It appears when all are written.",
    )
    .also(&["output", "output_file", "path"]),
    OWN_DEVICE,
];

const EXPORT: &[Key] = &[
    FROM,
    ALONE,
    required(
        "to",
        &[Form::Path],
        "\"out/model\"",
        "The directory to write: `config.json`, safetensors and, where there is one, the tokenizer, as \
         transformers loads them.",
    )
    .also(&["path", "output", "output_dir", "dir"]),
    default(
        "dtype",
        &[
            Form::Word("fp32", "32-bit floating point."),
            Form::Word("bf16", "Brain floating point, 16 bits."),
            Form::Word("fp16", "IEEE floating point, 16 bits."),
        ],
        "fp32",
        "bf16",
        "The numbers that the weights are written in.",
    )
    .also(&["precision", "torch_dtype", "format"]),
];
