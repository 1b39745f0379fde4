//! What a `train` stage may say, and the blocks inside it.

use super::{
    ABOVE_0, ABOVE_1, CUDA, FROM_1, Form, Function, Key, Kind, Role, SEED, Unit, WITHIN_1, default, depends,
    required,
};

pub(super) const DEVICE: &[Form] = &[
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

pub(super) const METRICS: Key = default(
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

pub(super) const DATA_NAME: &[Form] = &[Form::Block(&["data"])];
pub(super) const TOKENIZER_NAME: &[Form] = &[Form::Block(&["tokenizer"])];

pub(super) const TRAIN: &[Key] = &[
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

pub(super) const TRAIN_PARTS: &[Kind] = &[
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
