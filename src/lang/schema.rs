//! Every kind of block and every key of the language, in one table: what it takes, its default, what it means.
//!
//! Checking, suggestions, defaults, completion and the manual all read this table. A default is written
//! in the language itself and passes the same checks as a user's value.

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
    /// Planned, and refused by this version.
    Soon,
}

/// A form that a value can have.
#[derive(Debug)]
pub enum Form {
    /// A word of the language and its meaning.
    Word(&'static str, &'static str),
    /// A word or function that is planned and refused by this version.
    Soon(&'static str),
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
const FROM_0: Range = Range { low: 0.0, high: ANY, above: false, below: false };
const FROM_1: Range = Range { low: 1.0, high: ANY, above: false, below: false };
const ABOVE_0: Range = Range { low: 0.0, high: ANY, above: true, below: false };
const BELOW_1: Range = Range { low: 0.0, high: 1.0, above: false, below: true };
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

const fn soon(name: &'static str, doc: &'static str) -> Key {
    Key { name, takes: &[], need: Need::Soon, example: "", doc, also: &[] }
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
        doc: "Which layers are trained together.",
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
    Kind { name: "train", role: Role::Stage, doc: "Trains a model.", keys: TRAIN, parts: TRAIN_PARTS },
    Kind { name: "evaluate", role: Role::Stage, doc: "Measures a model.", keys: EVALUATE, parts: &[] },
    Kind {
        name: "generate",
        role: Role::Stage,
        doc: "Has a model continue prompts.",
        keys: GENERATE,
        parts: &[],
    },
    Kind {
        name: "export",
        role: Role::Stage,
        doc: "Writes a model as a Hugging Face directory.",
        keys: EXPORT,
        parts: &[],
    },
];

const DATA: &[Key] = &[
    required(
        "source",
        &[
            Form::Function(&Function {
                name: "json",
                arguments: &[required("path", &[Form::Path], "\"data/train.jsonl\"", "The file.")],
                doc: "JSON lines, or one JSON array of objects.",
            }),
            Form::Function(&Function {
                name: "text",
                arguments: &[
                    required("path", &[Form::Path], "\"data/train.txt\"", "The file."),
                    default(
                        "separator",
                        &[Form::Text, Form::Word("none", "Each line is a row.")],
                        "none",
                        "\"<|endoftext|>\"",
                        "What stands between two rows.",
                    ),
                ],
                doc: "Plain text; the column is called `text`.",
            }),
            Form::Soon("csv"),
            Form::Soon("parquet"),
            Form::Soon("arrow"),
            Form::Soon("mix"),
            Form::Soon("hub"),
        ],
        "json(\"data/train.jsonl\")",
        "Where rows come from.",
    )
    .also(&["path", "file", "dataset", "files", "url"]),
    required(
        "format",
        &[
            Form::Function(&Function {
                name: "text",
                arguments: &[default("column", &[Form::Text], "\"text\"", "\"text\"", "The column to read.")],
                doc: "One column is the text.",
            }),
            Form::Function(&Function {
                name: "instruct",
                arguments: &[
                    required("prompt", &[Form::Template], "\"{instruction}\\n\"", "What is asked."),
                    required("response", &[Form::Template], "\"{output}\"", "What is to be answered."),
                ],
                doc: "A prompt and its response, made from columns: `{name}` is a column, `{{` and `}}` are braces.",
            }),
            Form::Function(&Function {
                name: "tokens",
                arguments: &[
                    default("input", &[Form::Text], "\"input_ids\"", "\"input_ids\"", "The column of token ids."),
                    default(
                        "labels",
                        &[Form::Text, Form::Word("none", "Every token is its own label.")],
                        "none",
                        "\"labels\"",
                        "The column of labels, aligned with the ids; -100 is not learned.",
                    ),
                    soon("label", "The column of a row's class."),
                    soon("mask", "The column that marks padding."),
                ],
                doc: "Rows tokenised elsewhere.",
            }),
            Form::Soon("chat"),
            Form::Soon("classify"),
        ],
        "instruct(prompt = \"{instruction}\\n\", response = \"{output}\")",
        "How a row becomes what the model reads.",
    )
    .also(&["template", "type", "prompt"]),
    default(
        "holdout",
        &[Form::Word("none", "All rows are learned."), Form::Amount(&[(Unit::Percent, PERCENT), (Unit::Rows, FROM_1)])],
        "none",
        "2 %",
        "The share or number of rows that is kept for evaluation, drawn after shuffling.",
    )
    .also(&["val_size", "test_size", "validation", "eval_split"]),
    default(
        "shuffle",
        &[
            Form::Word("none", "Rows keep the order of the file."),
            Form::Function(&Function {
                name: "seed",
                arguments: &[required("seed", &[Form::Whole(FROM_0)], "17", "A whole number.")],
                doc: "Every epoch has its own order, drawn from the seed and the epoch's number.",
            }),
        ],
        "seed(0)",
        "seed(17)",
        "The order of the rows.",
    ),
];

const MARK: &[Form] = &[
    Form::Word("auto", "What the tokenizer itself puts there."),
    Form::Word("none", "Nothing."),
    Form::Text,
];

const TOKENIZER: &[Key] = &[
    depends(
        "file",
        &[Form::Path],
        "needed unless all data that it serves is in `tokens` format",
        "\"models/llama/tokenizer.json\"",
        "A `tokenizer.json` as Hugging Face writes it.",
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
        "The most tokens of a row.",
    )
    .also(&["max_seq_length", "max_seq_len", "cutoff_len", "sequence_len", "block_size", "seq_len"]),
    default(
        "too_long",
        &[
            Form::Word("cut", "Longer rows lose their end."),
            Form::Word("drop", "Longer rows are left out."),
            Form::Word("fail", "A longer row is an error."),
        ],
        "cut",
        "cut",
        "What happens to longer rows.",
    )
    .also(&["truncation"]),
    default(
        "pack",
        &[Form::Boolean],
        "false",
        "true",
        "Whether several rows share one sequence, without seeing each other.",
    )
    .also(&["packing", "sample_packing"]),
    depends(
        "loss_on",
        &[
            Form::Word("all", "Every token is learned."),
            Form::Word(
                "response",
                "Only the response of an `instruct` row is learned, its end mark included.",
            ),
        ],
        "`response` where the data is `instruct`, else `all`",
        "response",
        "Which tokens are learned.",
    )
    .also(&["train_on_inputs", "completion_only_loss", "mask_prompt"]),
    default("begin", MARK, "auto", "\"<s>\"", "What is put in front of a row.")
        .also(&["add_bos_token", "bos"]),
    default("end", MARK, "auto", "\"</s>\"", "What is put behind a row.").also(&["add_eos_token", "eos"]),
];

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
                doc: "A fresh start, drawn as the model's family draws it.",
            }),
            Form::Soon("hub"),
        ],
        "\"models/llama\"",
        "A Hugging Face directory with `config.json` and safetensors.",
    )
    .also(&["path", "model_name_or_path", "base_model", "file", "name"]),
    default(
        "precision",
        &[
            Form::Word("fp32", "32-bit floating point throughout."),
            Form::Soon("bf16"),
            Form::Soon("mixed"),
            Form::Soon("mixed_hi"),
        ],
        "fp32",
        "fp32",
        "The numbers that weights are kept and computed in.",
    )
    .also(&["dtype", "torch_dtype", "fp16", "bf16"]),
    default(
        "recompute",
        &[
            Form::Word("none", "Activations are kept until they are needed."),
            Form::Word("blocks", "Only the input of each block is kept; the block runs again in reverse."),
            Form::Word("auto", "`none` where that fits `memory_limit`, else `blocks`."),
        ],
        "none",
        "auto",
        "Whether memory is saved by computing twice.",
    )
    .also(&["gradient_checkpointing", "activation_checkpointing"]),
];

const PATTERNS: &[Form] = &[Form::List(&[Form::Text], None)];

const GROUPS: &[Key] = &[
    required(
        "split",
        &[
            Form::Function(&Function {
                name: "by_layer",
                arguments: &[
                    required("size", &[Form::Whole(FROM_1)], "1", "How many layers train together."),
                    default(
                        "tail",
                        &[
                            Form::Word("joined", "The final norm and the head are one layer."),
                            Form::Word(
                                "split",
                                "The final norm, the pooler and the head are layers of their own.",
                            ),
                        ],
                        "joined",
                        "split",
                        "What comes behind the blocks.",
                    ),
                ],
                doc: "So many layers in a row: embedding, block.0 and so on, head.",
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
                    "Names of layers or parameters, where `*` is any text; the first group that matches gets it.",
                )],
                doc: "Groups by name.",
            }),
            Form::Record(PATTERNS, "[\"block.*\", \"head\"]"),
        ],
        "by_layer(1)",
        "Which layers are trained together.",
    ),
    default(
        "freeze",
        PATTERNS,
        "[]",
        "[\"embedding\"]",
        "Names or patterns of layers or parameters that are never trained.",
    )
    .also(&["frozen", "exclude"]),
    default(
        "rotate",
        &[Form::Boolean],
        "false",
        "true",
        "Where the layers do not divide evenly: whether groups wrap around, as in the reference implementation, instead of a short last one.",
    ),
];

const SEED: &[Form] = &[Form::Whole(FROM_0)];
const REAL: &[Form] = &[Form::Real(ABOVE_0)];
const PEAK: Key =
    required("peak", REAL, "2e-5", "The highest rate.").also(&["lr", "rate", "learning_rate", "max_lr"]);
const WARMUP: Key = default(
    "warmup",
    &[
        Form::Word("none", "The first rate is the highest."),
        Form::Amount(&[(Unit::Percent, PERCENT), (Unit::Steps, FROM_0), (Unit::Cycles, FROM_0)]),
    ],
    "none",
    "3 %",
    "How long the rate rises before it is at its highest; percent are of the whole run.",
)
.also(&["warmup_ratio", "warmup_steps"]);
const END: Key =
    default("end", &[Form::Real(FROM_0)], "0", "1e-6", "The last rate.").also(&["min_lr", "final"]);

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
                    soon("redraw", "When a new order is drawn."),
                ],
                doc: "Drawn once, then kept.",
            }),
            Form::List(&[Form::Text], None),
        ],
        "bottom_up",
        "top_down",
        "In which order the groups have their turns; a list names layers or groups, first to last.",
    ),
    default(
        "dwell",
        &[Form::Amount(&[(Unit::Steps, FROM_1)])],
        "1 step",
        "100 steps",
        "How long a group's turn lasts, in optimizer updates.",
    ),
    default(
        "advance",
        &[
            Form::Word("per_cycle", "The rate moves when every group has had its turn."),
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
                "It is drawn over steps but moves once a cycle, as in the reference implementation.",
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
            Form::Word("discard", "Nowhere: each turn begins with fresh states."),
            Form::Soon("disk"),
        ],
        "host",
        "device",
        "Where optimizer states rest between turns.",
    ),
    default(
        "weights",
        &[Form::Word("device", "On the device."), Form::Soon("host"), Form::Soon("disk")],
        "device",
        "device",
        "Where frozen weights rest.",
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
        ],
        "cosine(peak = 2e-5, warmup = 3 %)",
        "The learning rate and its course.",
    )
    .also(&["lr", "learning_rate", "lr_scheduler", "lr_scheduler_type"]),
];

const OPTIMIZER: &[Key] = &[
    depends(
        "algorithm",
        &[
            Form::Word("adamw", "Adam with decoupled weight decay."),
            Form::Word("sgd", "Plain gradient descent, without states."),
            Form::Word("sgdm", "Gradient descent with momentum."),
        ],
        "the block's name",
        "adamw",
        "How a gradient changes a weight.",
    )
    .also(&["type", "name", "optim"]),
    depends(
        "betas",
        &[Form::List(&[Form::Real(BELOW_1)], Some(2))],
        "`[0.9, 0.999]`; for `adamw`",
        "[0.9, 0.999]",
        "How slowly the averages of the gradient and of its square move.",
    ),
    depends("eps", REAL, "`1e-8`; for `adamw`", "1e-8", "What keeps the division from zero.")
        .also(&["epsilon"]),
    depends(
        "momentum",
        &[Form::Real(BELOW_1)],
        "`0.9`; for `sgdm`",
        "0.9",
        "How slowly the average of the gradient moves.",
    ),
    depends(
        "weight_decay",
        &[Form::Real(FROM_0)],
        "`0.01` for `adamw`, else `0`",
        "0.01",
        "How fast weights shrink, in units of the rate; tensors with one axis do not.",
    )
    .also(&["wd", "decay"]),
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

const METRICS: Key = default(
    "metrics",
    &[Form::List(
        &[
            Form::Word("loss", "Mean cross entropy per learned token, in nats."),
            Form::Word("perplexity", "exp(loss)."),
            Form::Word("accuracy", "The share of learned tokens that are the model's first choice."),
        ],
        None,
    )],
    "[loss]",
    "[loss, perplexity]",
    "What is measured.",
)
.also(&["metric"]);

const EVERY: Key = required(
    "every",
    &[Form::Amount(&[(Unit::Steps, FROM_1), (Unit::Cycles, FROM_1), (Unit::Epochs, ABOVE_0)])],
    "200 steps",
    "How often.",
);

const DATA_NAME: &[Form] = &[Form::Block(&["data"])];
const TOKENIZER_NAME: &[Form] = &[Form::Block(&["tokenizer"])];

const TRAIN: &[Key] = &[
    required("data", DATA_NAME, "NAME", "The data block to learn from.").also(&["dataset", "train_data"]),
    depends(
        "tokenizer",
        TOKENIZER_NAME,
        "needed unless the data is in `tokens` format",
        "NAME",
        "The tokenizer block.",
    ),
    required(
        "model",
        &[Form::Block(&["model", "train"])],
        "NAME",
        "The model block to start from, or the train stage to go on from.",
    )
    .also(&["base_model", "from"]),
    required("groups", &[Form::Block(&["groups"])], "NAME", "The groups block.").also(&["group"]),
    required("schedule", &[Form::Block(&["schedule"])], "NAME", "The schedule block.").also(&["scheduler"]),
    required("optimizer", &[Form::Block(&["optimizer"])], "NAME", "The optimizer block.").also(&["optim"]),
    depends(
        "epochs",
        &[Form::Real(ABOVE_0), Form::Amount(&[(Unit::Epochs, ABOVE_0)])],
        "either this or `steps` is needed",
        "3",
        "How often the data is gone through.",
    )
    .also(&["num_train_epochs", "num_epochs", "n_epochs"]),
    depends(
        "steps",
        &[Form::Whole(FROM_1), Form::Amount(&[(Unit::Steps, FROM_1)])],
        "either this or `epochs` is needed",
        "500",
        "How many optimizer updates are made.",
    )
    .also(&["max_steps", "num_steps", "iterations"]),
    required("micro_batch", &[Form::Whole(FROM_1)], "4", "Sequences in one forward pass.").also(&[
        "batch_size",
        "batch",
        "per_device_train_batch_size",
        "micro_batch_size",
    ]),
    default("accumulate", &[Form::Whole(FROM_1)], "1", "4", "Forward passes for one optimizer update.")
        .also(&["gradient_accumulation_steps", "grad_accum"]),
    default(
        "clip",
        &[Form::Word("none", "Gradients are taken as they are."), Form::Real(ABOVE_0)],
        "none",
        "1.0",
        "The largest norm of the active group's gradient.",
    )
    .also(&["max_grad_norm", "gradient_clip", "grad_clip"]),
    default("seed", SEED, "0", "42", "What everything random in this stage is drawn from."),
    default("device", DEVICE, "auto", "cuda(0)", "Where it runs."),
    default(
        "memory_limit",
        &[Form::Word("none", "What the device has."), Form::Amount(&[(Unit::Bytes, ABOVE_0)])],
        "none",
        "22 GiB",
        "The most device memory that the stage may take.",
    )
    .also(&["max_memory", "memory", "budget"]),
];

const TRAIN_PARTS: &[Kind] = &[
    Kind {
        name: "evaluate",
        role: Role::Part,
        doc: "Measures the holdout during training.",
        keys: &[EVERY.also(&["eval_steps", "interval"]), METRICS],
        parts: &[],
    },
    Kind {
        name: "checkpoint",
        role: Role::Part,
        doc: "Saves what is needed to go on after an interruption.",
        keys: &[
            EVERY.also(&["save_steps", "interval"]),
            default("keep", &[Form::Whole(FROM_1)], "2", "2", "How many checkpoints are kept.")
                .also(&["save_total_limit"]),
            soon("best", "The metric by which the best checkpoint is kept, too."),
        ],
        parts: &[],
    },
];

const FROM: Key = depends(
    "from",
    &[Form::Block(&["train"])],
    "either this or `model` is needed",
    "NAME",
    "The train stage whose result is used.",
);
const ALONE: Key = depends(
    "model",
    &[Form::Block(&["model"])],
    "either this or `from` is needed",
    "NAME",
    "The model block that is used as it is.",
);
const OWN_TOKENIZER: Key =
    depends("tokenizer", TOKENIZER_NAME, "that of the `from` stage", "NAME", "The tokenizer block.");
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
        "The data block to measure on: its holdout if it has one, else all of it.",
    ),
    OWN_TOKENIZER,
    METRICS,
    depends(
        "micro_batch",
        &[Form::Whole(FROM_1)],
        "that of the `from` stage",
        "4",
        "Sequences in one forward pass.",
    )
    .also(&["batch_size", "batch"]),
    OWN_DEVICE,
];

const GENERATE: &[Key] = &[
    FROM,
    ALONE,
    OWN_TOKENIZER,
    required(
        "prompts",
        &[Form::List(&[Form::Text], None)],
        "[\"Once upon a time\"]",
        "The texts to continue.",
    )
    .also(&["prompt", "input", "inputs"]),
    default(
        "max_new_tokens",
        &[Form::Whole(FROM_1), Form::Amount(&[(Unit::Tokens, FROM_1)])],
        "128 tokens",
        "64 tokens",
        "The most tokens that are written for a prompt.",
    )
    .also(&["max_tokens", "max_length"]),
    default(
        "temperature",
        &[Form::Real(FROM_0)],
        "0",
        "0.7",
        "How much chance has a say; 0 takes the most probable token each time.",
    ),
    default("seed", SEED, "0", "42", "What tokens are drawn from."),
    OWN_DEVICE,
];

const EXPORT: &[Key] = &[
    FROM,
    ALONE,
    required("to", &[Form::Path], "\"out/model\"", "The directory to write.").also(&[
        "path",
        "output",
        "output_dir",
        "dir",
    ]),
    default(
        "dtype",
        &[
            Form::Word("fp32", "32-bit floating point."),
            Form::Word("bf16", "Brain floating point, 16 bits."),
            Form::Word("fp16", "IEEE floating point, 16 bits."),
        ],
        "fp32",
        "bf16",
        "The numbers that are written.",
    )
    .also(&["precision", "torch_dtype", "format"]),
];
