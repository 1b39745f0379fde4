//! What a `model` block may say.

use super::data::HUB;
use super::{FROM_0, Form, Function, Key, default, depends, required};

const LABELS: Key = depends(
    "labels",
    &[Form::List(&[Form::Text], None)],
    "`id2label` in `config.json`",
    "[\"negative\", \"positive\"]",
    "The classes' names, in the order of their numbers.",
)
.also(&["classes", "id2label", "label_list"]);

pub(super) const MODEL: &[Key] = &[
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
