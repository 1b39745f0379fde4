//! What a `tokenizer` block may say.

use super::data::HUB;
use super::{FROM_1, Form, Function, Key, Unit, default, depends, required};

const MARK: &[Form] = &[
    Form::Word(
        "auto",
        "What the tokenizer itself puts there: what its post-processor adds; behind a row, if that adds \
         nothing, the end mark that its configuration names.",
    ),
    Form::Word("none", "Nothing."),
    Form::Text,
];

pub(super) const TOKENIZER: &[Key] = &[
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
