//! The text models of the gemma3 family: gemma2's blocks with a norm of each head's queries and keys instead of bent scores;
//! five blocks with a window, then one without, which turn at different rates. Of the models that see pictures, the part that
//! reads and writes text.
//!
//! Sources: Gemma Team 2025, "Gemma 3"; names and configuration keys as in Hugging Face's `Gemma3ForCausalLM`, and in
//! `Gemma3ForConditionalGeneration` where pictures are seen.

use serde_json::{Map, Value as Json, json};

use crate::problem::Problem;

use super::decoder::HeadNorms;
use super::rope::{Names, inverse_frequencies};
use super::{Keys, Parts, Task, gemma2};

/// The configuration of the text model in that of one that sees pictures, which keeps it apart and leaves out what is usual.
pub(super) fn text_part(config: &Map<String, Json>) -> Option<Map<String, Json>> {
    let (Some("gemma3"), Some(Json::Object(text))) =
        (config.get("model_type").and_then(Json::as_str), config.get("text_config"))
    else {
        return None;
    };
    let usual = json!({
        "vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131_072,
    });
    let Json::Object(mut merged) = usual else { unreachable!("written above") };
    // What is said of both stands outside.
    let both = ["eos_token_id", "bos_token_id", "pad_token_id", "dtype", "torch_dtype", "initializer_range"];
    let outside = both.into_iter().filter_map(|key| Some((key.to_string(), config.get(key)?.clone())));
    merged.extend(outside.chain(text.clone()));
    merged.insert("model_type".into(), "gemma3_text".into());
    merged.insert("architectures".into(), json!(["Gemma3ForCausalLM"]));
    Some(merged)
}

/// What the weights of a model that sees pictures call a tensor of its text model: by the version of transformers.
pub(super) fn names_beside_pictures(name: &str) -> Vec<String> {
    let newer = name.strip_prefix("model.").map(|rest| format!("model.language_model.{rest}"));
    newer.into_iter().chain([format!("language_model.{name}")]).collect()
}

pub(super) fn read(keys: &Keys<'_>, task: Task) -> Result<Parts, Problem> {
    let pattern = keys.optional_size("sliding_window_pattern")?.unwrap_or(6);
    let slides = |idx: usize| !(idx + 1).is_multiple_of(pattern);
    let mut decoder = gemma2::base(keys, "gemma3_text", slides, [None, None])?;
    decoder.head_norms = HeadNorms::Each;
    let far = Names { default_theta: 1_000_000.0, ..Names::PLAIN };
    let near = Names {
        theta: "rope_local_base_freq",
        default_theta: 10_000.0,
        attention: "sliding_attention",
        scaled: false,
        ..Names::PLAIN
    };
    let slides = keys.slides(decoder.blocks.len(), slides)?;
    for (block, slides) in decoder.blocks.iter_mut().zip(slides) {
        block.frequencies = usize::from(slides);
    }
    let head_dim = decoder.head_dim;
    decoder.frequencies =
        vec![inverse_frequencies(keys, head_dim, &far)?, inverse_frequencies(keys, head_dim, &near)?];
    Ok(decoder.parts(task))
}
