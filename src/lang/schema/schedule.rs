//! What a `schedule` block may say: orders, residence, rates.

use super::{FROM_0, FROM_1, Form, Function, Key, PERCENT, REAL, SEED, UP_TO_1, Unit, default, required};

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

pub(super) const SCHEDULE: &[Key] = &[
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
