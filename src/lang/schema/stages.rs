//! What the stages behind training may say: `evaluate`, `generate`, `export`.

use super::train::{DATA_NAME, DEVICE, METRICS, TOKENIZER_NAME};
use super::{FROM_0, FROM_1, Form, Key, SEED, UP_TO_1, Unit, default, depends, required};

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

pub(super) const EVALUATE: &[Key] = &[
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

pub(super) const GENERATE: &[Key] = &[
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

pub(super) const EXPORT: &[Key] = &[
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
