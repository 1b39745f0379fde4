//! What a `groups` block may say.

use super::{ABOVE_0, FROM_1, Form, Function, Key, Unit, default, required};

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

pub(super) const GROUPS: &[Key] = &[
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
