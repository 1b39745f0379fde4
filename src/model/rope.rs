//! The frequencies of rotary positions, as configurations say them.
//!
//! Source: the functions `_compute_*_parameters` of Hugging Face's `modeling_rope_utils.py`.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::problem::Problem;

use crate::program::{Builder, ValueId};

use super::{Keys, unsupported, wrong};

/// What a family's configuration calls the parts, and what holds where it is silent.
pub(super) struct Names {
    pub theta: &'static str,
    pub default_theta: f64,
    /// The share of a head that is turned.
    pub share: &'static str,
    pub default_share: f64,
    /// Whose entry in `rope_parameters` holds, where that is kept by kind of attention.
    pub attention: &'static str,
    /// Whether positions may be scaled.
    pub scaled: bool,
    /// `original_max_position_embeddings` where nothing says it; None is the largest position.
    pub default_original: Option<usize>,
}

impl Names {
    pub const PLAIN: Names = Names {
        theta: "rope_theta",
        default_theta: 10_000.0,
        share: "partial_rotary_factor",
        default_share: 1.0,
        attention: "full_attention",
        scaled: true,
        default_original: None,
    };
}

/// How positions turn a part of each head.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    /// `[turned / 2]`
    pub frequencies: Arc<[f32]>,
    /// What cosines and sines are multiplied by.
    pub factor: f32,
    /// What holds instead where the longest document of a pass is long.
    pub far: Option<Far>,
}

/// The frequencies of passes with a document of more than `near` tokens.
#[derive(Debug, Clone)]
pub(super) struct Far {
    pub near: usize,
    /// `[turned / 2]`
    pub frequencies: Arc<[f32]>,
}

impl Turn {
    /// How long the longest document of a pass may be before all turn otherwise.
    pub fn near(&self) -> Option<usize> {
        self.far.as_ref().map(|far| far.near)
    }

    /// Cosines and sines of every token, `[rows, turned]`.
    pub fn table(&self, build: &mut Builder<'_>, name: &str) -> ValueId {
        let frequencies = match &self.far {
            Some(far) if build.shape().far => &far.frequencies,
            Some(_) | None => &self.frequencies,
        };
        let table = build.rope_table(name, frequencies.clone()); // [rows, turned]
        match self.factor == 1.0 {
            true => table,
            false => build.scale(&format!("{name}_scaled"), table, self.factor),
        }
    }
}

/// How positions turn: by `theta^(-2i / turned)`, scaled as the configuration says.
///
/// # Errors
/// When a key is not what it should be, or the scaling is not known here.
pub(super) fn inverse_frequencies(keys: &Keys<'_>, head_dim: usize, names: &Names) -> Result<Turn, Problem> {
    // Since version 5, transformers writes everything about rotary positions into `rope_parameters`.
    let (key, found) = match (keys.get("rope_parameters"), keys.get("rope_scaling")) {
        (Some(value), _) => ("rope_parameters", Some(value)),
        (None, value) => ("rope_scaling", value.filter(|_| names.scaled)),
    };
    let empty = Map::new();
    let object = |value: Option<&'_ Json>| match value {
        None => Ok(None),
        Some(Json::Object(map)) => Ok(Some(map.clone())),
        Some(other) => Err(wrong(key, other, "an object")),
    };
    let found = object(found)?.unwrap_or(empty);
    let scaling = match found.get(names.attention) {
        None => found,
        inner => object(inner)?.unwrap_or_default(),
    };
    let scaling = Keys(&scaling);
    let theta = scaling.number("rope_theta", keys.number(names.theta, names.default_theta)?)?;
    let share = scaling.number("partial_rotary_factor", keys.number(names.share, names.default_share)?)?;
    let turned = (head_dim as f64 * share) as usize;
    if turned == 0 || turned > head_dim || !turned.is_multiple_of(2) {
        return Err(match share == 1.0 {
            true => unsupported(
                "head_dim",
                &head_dim.to_string(),
                "even numbers, since rotary positions turn pairs",
            ),
            false => unsupported(names.share, &share.to_string(), "shares that give an even part of a head"),
        });
    }
    let mut inv_freq: Vec<f32> =
        (0..turned / 2).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / turned as f32)).collect();
    let (mut factor, mut far) = (1.0, None);
    let positive = |name: &str, default: Option<f64>| match (scaling.number_or_none(name, default)?, default)
    {
        (Some(number), _) | (None, Some(number)) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err(Problem::new(
            "hift::model::config",
            format!("`{key}.{name}` in the model's config.json is not a number above 0"),
        )
        .help("take the file that came with the weights, unchanged")),
    };
    let longest = keys.optional_size("max_position_embeddings")?;
    // Phi-3 keeps it beside the scaling, and what stands there goes first.
    let original = || {
        let beside = keys.optional_size("original_max_position_embeddings")?;
        let within = scaling.optional_size("original_max_position_embeddings")?;
        beside.or(names.default_original).or(within).or(longest).map(|n| n as f64).ok_or_else(|| {
            Problem::new(
                "hift::model::config",
                format!("`{key}` in the model's config.json has no `original_max_position_embeddings`"),
            )
            .help("take the file that came with the weights, unchanged")
        })
    };
    // By how much the positions are stretched, unless it is said.
    let stretch = |original: f64| match scaling.get("factor") {
        Some(_) => positive("factor", None),
        None => Ok(longest.map_or(1.0, |longest| longest as f64 / original)),
    };
    let kind = match scaling.word("rope_type")? {
        Some(kind) => kind,
        None => scaling.word("type")?.unwrap_or("default"),
    };
    // The first Phi-3 called it so.
    let kind = if kind == "yarn" && scaling.get("short_factor").is_some() { "longrope" } else { kind };
    match kind {
        "default" => {}
        // It stretches only what is longer than `max_position_embeddings`, and no sequence here is.
        "dynamic" => drop(positive("factor", None)?),
        // Source: Chen et al. 2023, "Extending Context Window of Large Language Models via Positional Interpolation".
        "linear" => {
            let factor = positive("factor", Some(1.0))? as f32;
            inv_freq.iter_mut().for_each(|freq| *freq /= factor);
        }
        // Source: Grattafiori et al. 2024, "The Llama 3 Herd of Models".
        "llama3" => {
            let factor = positive("factor", Some(8.0))? as f32;
            let low = positive("low_freq_factor", Some(1.0))? as f32;
            let high = positive("high_freq_factor", Some(4.0))? as f32;
            let context = original()? as f32;
            for freq in &mut inv_freq {
                let wavelength = 2.0 * std::f32::consts::PI / *freq;
                if wavelength > context / low {
                    *freq /= factor;
                } else if wavelength > context / high {
                    let smooth = (context / wavelength - low) / (high - low);
                    *freq = (1.0 - smooth) * *freq / factor + smooth * *freq;
                }
            }
        }
        // Source: Peng et al. 2023, "YaRN: Efficient Context Window Extension of Large Language Models".
        "yarn" => {
            let original = original()?;
            let stretch = stretch(original)?;
            let grown = |by: f64| if stretch <= 1.0 { 1.0 } else { 0.1 * by * stretch.ln() + 1.0 };
            let inferred = match (scaling.number("mscale", 0.0)?, scaling.number("mscale_all_dim", 0.0)?) {
                (0.0, _) | (_, 0.0) => grown(1.0),
                (own, all) => grown(own) / grown(all),
            };
            factor = positive("attention_factor", Some(inferred))? as f32;
            // Which frequency turns so often over the original positions.
            let place = |turns: f64| {
                turned as f64 * (original / (turns * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln())
            };
            let fast = place(positive("beta_fast", Some(32.0))?);
            let slow = place(positive("beta_slow", Some(1.0))?);
            let [low, high] = match scaling.flag("truncate", true)? {
                true => [fast.floor(), slow.ceil()],
                false => [fast, slow],
            };
            let (low, mut high) = (low.max(0.0), high.min(turned as f64 - 1.0));
            if low == high {
                high += 0.001;
            }
            for (i, freq) in inv_freq.iter_mut().enumerate() {
                let slowed = (((i as f64 - low) / (high - low)) as f32).clamp(0.0, 1.0);
                *freq = *freq / stretch as f32 * slowed + *freq * (1.0 - slowed);
            }
        }
        // Source: Ding et al. 2024, "LongRoPE". Up to the original number of positions the short factors hold; a pass with
        // a longer document turns all of its positions by the long ones.
        "longrope" | "su" => {
            let original = original()?;
            let stretch = stretch(original)?;
            let inferred = match stretch <= 1.0 {
                true => 1.0,
                false => (1.0 + stretch.ln() / original.ln()).sqrt(),
            };
            factor = positive("attention_factor", Some(inferred))? as f32;
            let slowed = |name: &str| -> Result<Vec<f32>, Problem> {
                let factors = scaling.get(name).and_then(Json::as_array).into_iter().flatten();
                let factors: Vec<f32> = factors.filter_map(Json::as_f64).map(|x| x as f32).collect();
                if factors.len() != inv_freq.len() || factors.iter().any(|factor| *factor <= 0.0) {
                    return Err(Problem::new(
                        "hift::model::config",
                        format!(
                            "`{key}.{name}` in the model's config.json is not a list of {} numbers above 0",
                            inv_freq.len()
                        ),
                    )
                    .help("take the file that came with the weights, unchanged"));
                }
                Ok(inv_freq.iter().zip(factors).map(|(freq, factor)| freq / factor).collect())
            };
            let (short, long) = (slowed("short_factor")?, slowed("long_factor")?);
            far = Some(Far { near: original as usize, frequencies: long.into() });
            inv_freq = short;
        }
        other => {
            let known = "default, linear, dynamic, llama3, yarn, longrope";
            return Err(unsupported(&format!("{key}.rope_type"), other, known));
        }
    }
    Ok(Turn { frequencies: inv_freq.into(), factor, far })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The frequencies of a head of 8, and the factor.
    fn check(
        mut config: Json,
        scaling: Json,
        frequencies: [f32; 4],
        factor: f32,
        far: Option<(usize, [f32; 4])>,
    ) {
        config["max_position_embeddings"] = json!(64);
        config["rope_scaling"] = scaling;
        let turn = inverse_frequencies(&Keys(config.as_object().unwrap()), 8, &Names::PLAIN).unwrap();
        let same = |found: &[f32], expected: [f32; 4]| {
            for (one, expected) in found.iter().zip(expected) {
                assert!((one / expected - 1.0).abs() < 1e-6, "{config}: {found:?}");
            }
        };
        same(&turn.frequencies, frequencies);
        assert_eq!(turn.factor, factor, "{config}");
        assert_eq!(turn.far.as_ref().map(|far| far.near), far.map(|(near, _)| near), "{config}");
        turn.far.iter().zip(far).for_each(|(found, (_, expected))| same(&found.frequencies, expected));
    }

    #[test]
    fn positions_are_scaled_as_transformers_does() {
        // `ROPE_INIT_FUNCTIONS` of transformers 5.
        let scaling = json!({"rope_type": "linear", "factor": 4.0});
        check(json!({}), scaling, [0.25, 0.025, 0.0025, 0.00025], 1.0, None);
        let scaling = json!({"type": "dynamic", "factor": 4.0});
        check(json!({}), scaling, [1.0, 0.1, 0.01, 0.001], 1.0, None);
        let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16});
        check(json!({}), scaling, [0.5760564, 0.0125, 0.00125, 0.000125], 1.0, None);
        let scaling = json!({"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "beta_fast": 4.0,
            "original_max_position_embeddings": 16});
        check(json!({}), scaling, [1.0, 0.07905694, 0.025, 0.007905695], 1.138_629_4, None);
        let scaling = json!({"rope_type": "yarn", "rope_theta": 50.0, "factor": 8.0, "mscale": 0.7,
            "mscale_all_dim": 1.3, "truncate": false, "original_max_position_embeddings": 32});
        check(json!({}), scaling, [1.0, 0.1783678, 0.01767767, 0.00664787], 0.901_784, None);
        let scaling =
            json!({"type": "longrope", "short_factor": [1.0, 1.3, 1.7, 2.5], "long_factor": [2, 3, 5, 9]});
        let beside = json!({"original_max_position_embeddings": 32});
        let short = [1.0, 0.07692308, 0.005882353, 0.0004];
        let long = [0.5, 0.033333335, 0.002, 0.00011111112];
        check(beside, scaling, short, 1.095_445_1, Some((32, long)));
    }
}
