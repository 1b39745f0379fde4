//! What an optimizer keeps for each parameter: the engine allocates it, the estimate counts it. The other half of
//! each algorithm, its update, is in [`crate::engine`].

use crate::lang::pipeline::Algorithm;
use crate::model::Model;
use crate::program::{ParamId, State};
use crate::units::Dtype;

/// Numbers that share one scale in an 8-bit state.
///
/// Source: Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization"; bitsandbytes takes 256.
pub const BLOCK: usize = 256;

/// Tensors of fewer elements keep 32-bit states even with an 8-bit optimizer, as bitsandbytes has it.
pub const MIN_8BIT: usize = 4096;

/// The states of a parameter, in the order in which the update takes them. All begin at zero.
pub fn states(algorithm: &Algorithm, model: &Model, id: ParamId) -> Vec<State> {
    let shape = model.param(id).shape.as_slice();
    let like = |name| State { name, shape: shape.to_vec(), dtype: Dtype::F32 };
    let moments = || vec![like("m"), like("v")];
    match algorithm {
        Algorithm::Adamw { .. } | Algorithm::Adam { .. } | Algorithm::Lamb { .. } => moments(),
        Algorithm::Sgd => vec![],
        Algorithm::Sgdm { .. } | Algorithm::Lars { .. } => vec![like("momentum")],
        Algorithm::Adagrad { .. } => vec![like("sum")],
        Algorithm::Rmsprop { momentum, centered, .. } => {
            let mut states = vec![like("square")];
            states.extend(centered.then(|| like("mean")));
            states.extend((**momentum > 0.0).then(|| like("momentum")));
            states
        }
        Algorithm::Adafactor { beta1, .. } => {
            let mut states = factored(shape);
            states.extend(beta1.is_some().then(|| like("m")));
            states
        }
        Algorithm::Lion { .. } => vec![like("m")],
        Algorithm::AdamMini { .. } => {
            vec![like("m"), State { name: "v", shape: vec![blocks(model, id)], dtype: Dtype::F32 }]
        }
        Algorithm::Adamw8bit { .. } | Algorithm::Adam8bit { .. } => {
            eight_bit(shape, &[["m", "m scale"], ["v", "v scale"]]).unwrap_or_else(moments)
        }
        Algorithm::Lion8bit { .. } => {
            eight_bit(shape, &[["m", "m scale"]]).unwrap_or_else(|| vec![like("m")])
        }
    }
}

/// The second moment of a matrix as the means of its rows and of its columns; of a vector as it is.
///
/// Source: Shazeer and Stern 2018, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost".
fn factored(shape: &[usize]) -> Vec<State> {
    match shape {
        [outer @ .., rows, columns] => {
            let along = |axis: usize| outer.iter().copied().chain([axis]).collect();
            vec![
                State { name: "rows", shape: along(*rows), dtype: Dtype::F32 },
                State { name: "columns", shape: along(*columns), dtype: Dtype::F32 },
            ]
        }
        vector => vec![State { name: "v", shape: vector.to_vec(), dtype: Dtype::F32 }],
    }
}

/// For each moment its codes, four to a word, and the scale of each block; None for a small tensor.
fn eight_bit(shape: &[usize], moments: &[[&'static str; 2]]) -> Option<Vec<State>> {
    let n: usize = shape.iter().product();
    let pair = |[codes, scales]: &[&'static str; 2]| {
        [
            State { name: codes, shape: vec![n.div_ceil(4)], dtype: Dtype::U32 },
            State { name: scales, shape: vec![n.div_ceil(BLOCK)], dtype: Dtype::F32 },
        ]
    };
    (n >= MIN_8BIT).then(|| moments.iter().flat_map(pair).collect())
}

/// Parts of a parameter that share a second moment: the heads of queries and keys, the rows of other matrices
/// (tokens of embedding and head, output neurons), a vector as a whole.
///
/// Source: Zhang et al. 2024, "Adam-mini: Use Fewer Learning Rates To Gain More", algorithm 3.
fn blocks(model: &Model, id: ParamId) -> usize {
    let param = model.param(id);
    let rows = match param.shape.as_slice() {
        [rows, _, ..] => *rows,
        _ => return 1,
    };
    let size = |names: &[&str]| names.iter().find_map(|name| model.config.get(*name)?.as_u64());
    let heads = size(&["num_attention_heads", "num_heads", "n_head"]);
    let key_heads = size(&["num_key_value_heads"]).or(heads);
    let heads = match param.path.rsplit_once('.') {
        Some((within, "q")) if within.ends_with(".attention") => heads,
        Some((within, "k")) if within.ends_with(".attention") => key_heads,
        _ => None,
    };
    heads
        .map(|heads| heads as usize)
        .filter(|heads| *heads > 0 && rows.is_multiple_of(*heads))
        .unwrap_or(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lang::pipeline::Setting;

    /// States as `name[shape]`, 8-bit codes as `name[words]`.
    fn check(algorithm: &Algorithm, path: &str, expected: &str) {
        let config = r#"{"model_type": "llama", "vocab_size": 90, "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}"#;
        let model = Model::from_config(config).unwrap();
        let id = model.params.iter().position(|param| param.path == path).unwrap();
        let states = states(algorithm, &model, ParamId(id));
        let shown: Vec<String> = states
            .iter()
            .map(|state| match state.dtype {
                Dtype::U32 => format!("{} u32{:?}", state.name, state.shape),
                _ => format!("{}{:?}", state.name, state.shape),
            })
            .collect();
        assert_eq!(shown.join(" "), expected, "{algorithm:?} of {path}");
    }

    fn real(x: f64) -> Setting<f64> {
        Setting::default(x)
    }

    #[test]
    fn states_are_as_large_as_the_algorithm_needs() {
        let betas = || Setting::default([0.9, 0.999]);
        let flag = Setting::default;
        let (q, k, norm, down) =
            ("block.0.attention.q", "block.0.attention.k", "block.0.norm.mlp", "block.0.mlp.down");

        check(&Algorithm::Sgd, q, "");
        check(&Algorithm::Adam { betas: betas(), eps: real(1e-8) }, q, "m[64, 64] v[64, 64]");
        let rmsprop = |momentum, centered| Algorithm::Rmsprop {
            alpha: real(0.99),
            eps: real(1e-8),
            momentum: real(momentum),
            centered: flag(centered),
        };
        check(&rmsprop(0.0, false), norm, "square[64]");
        check(&rmsprop(0.9, true), norm, "square[64] mean[64] momentum[64]");

        let adafactor = |beta1| Algorithm::Adafactor {
            eps: real(1e-30),
            decay_rate: real(0.8),
            clip_threshold: real(1.0),
            beta1: Setting::default(beta1),
            scale_parameter: flag(false),
        };
        check(&adafactor(None), down, "rows[64] columns[96]");
        check(&adafactor(Some(0.9)), norm, "v[64] m[64]");

        // One value a head for queries and keys, one a row elsewhere, one in all for a vector.
        let mini = Algorithm::AdamMini { betas: betas(), eps: real(1e-8) };
        check(&mini, q, "m[64, 64] v[4]");
        check(&mini, k, "m[32, 64] v[2]");
        check(&mini, down, "m[64, 96] v[64]");
        check(&mini, "embedding.tokens", "m[90, 64] v[90]");
        check(&mini, norm, "m[64] v[1]");

        // 64 x 64 are 4,096 elements in 16 blocks; 32 x 64 are too few; 64 x 96 fill 24 blocks.
        let eight = Algorithm::Adamw8bit { betas: betas(), eps: real(1e-8) };
        check(&eight, q, "m u32[1024] m scale[16] v u32[1024] v scale[16]");
        check(&eight, k, "m[32, 64] v[32, 64]");
        check(&Algorithm::Lion8bit { betas: betas() }, down, "m u32[1536] m scale[24]");
        check(&Algorithm::Lion8bit { betas: betas() }, "embedding.tokens", "m u32[1440] m scale[23]");
    }
}
