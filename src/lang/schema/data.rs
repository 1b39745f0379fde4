//! What a `data` block may say: sources, formats, filters, what is held out.

use super::{
    ABOVE_0, FINITE, FROM_0, FROM_1, Form, Function, Key, PERCENT, Unit, default, depends, required,
};

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
pub(super) const HUB: Form = Form::Function(&Function {
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

pub(super) const DATA: &[Key] = &[
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
