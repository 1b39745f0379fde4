//! The frequencies of rotary positions, as configurations say them.
//!
//! Source: the functions `_compute_*_parameters` of Hugging Face's `modeling_rope_utils.py`.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::problem::Problem;

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
}

impl Names {
    pub const PLAIN: Names = Names {
        theta: "rope_theta",
        default_theta: 10_000.0,
        share: "partial_rotary_factor",
        default_share: 1.0,
        attention: "full_attention",
        scaled: true,
    };
}

/// The frequencies, `[turned / 2]`: `theta^(-2i / turned)`, scaled as the configuration says.
///
/// # Errors
/// When a key is not what it should be, or the scaling is not known here.
pub(super) fn inverse_frequencies(
    keys: &Keys<'_>,
    head_dim: usize,
    names: &Names,
) -> Result<Arc<[f32]>, Problem> {
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
    let kind = match scaling.word("rope_type")? {
        Some(kind) => kind,
        None => scaling.word("type")?.unwrap_or("default"),
    };
    match kind {
        "default" => {}
        // Source: Chen et al. 2023, "Extending Context Window of Large Language Models via Positional Interpolation".
        "linear" => {
            let factor = scaling.number("factor", 1.0)? as f32;
            inv_freq.iter_mut().for_each(|freq| *freq /= factor);
        }
        // Source: Grattafiori et al. 2024, "The Llama 3 Herd of Models".
        "llama3" => {
            let factor = scaling.number("factor", 8.0)? as f32;
            let low = scaling.number("low_freq_factor", 1.0)? as f32;
            let high = scaling.number("high_freq_factor", 4.0)? as f32;
            let context = scaling.number("original_max_position_embeddings", 8192.0)? as f32;
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
        other => return Err(unsupported(&format!("{key}.rope_type"), other, "default, linear, llama3")),
    }
    Ok(inv_freq.into())
}
