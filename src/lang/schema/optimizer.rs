//! The algorithms with their keys and defaults, and what an `optimizer` block may say.

use std::fmt;

use super::{BELOW_1, FROM_0, Form, Key, REAL, depends};

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

pub(super) const OPTIMIZER: &[Key] = &[
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
