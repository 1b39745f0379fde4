//! The gemma family: llama's blocks with scaled embeddings, norms whose weight counts from one, and a gate that is a
//! Gaussian error unit; heads may be wider than hidden.
//!
//! Sources: Gemma Team 2024, "Gemma"; names and configuration keys as in Hugging Face's `GemmaForCausalLM`.

use crate::problem::Problem;
use crate::program::Activation;

use super::decoder::Decoder;
use super::rope::{Names, inverse_frequencies};
use super::{Keys, Parts, Task};

pub(super) fn read(keys: &Keys<'_>, task: Task) -> Result<Parts, Problem> {
    // The first configurations say `gelu` and mean this one.
    let key = if keys.get("hidden_activation").is_some() { "hidden_activation" } else { "hidden_act" };
    let activation = match keys.word(key)? {
        Some("gelu") => Activation::GeluTanh,
        _ => keys.activation(key, "gelu_pytorch_tanh")?,
    };
    let mut decoder = base(keys, "gemma")?;
    decoder.activation = activation;
    decoder.frequencies = vec![inverse_frequencies(keys, decoder.head_dim, &Names::PLAIN)?];
    Ok(decoder.parts(task))
}

/// What the three generations share.
pub(super) fn base(keys: &Keys<'_>, family: &'static str) -> Result<Decoder, Problem> {
    if keys.flag("use_bidirectional_attention", false)? {
        return Err(super::unsupported("use_bidirectional_attention", "true", "false"));
    }
    let mut decoder = Decoder::read(keys, family)?;
    decoder.set_head_dim(keys.optional_size("head_dim")?.unwrap_or(256));
    let attention = keys.flag("attention_bias", false)?;
    decoder.biases = [attention, attention, false];
    decoder.tied = keys.flag("tie_word_embeddings", true)?;
    decoder.norm_offset = 1.0;
    decoder.embedding_scale = Some((decoder.hidden as f64).sqrt() as f32);
    Ok(decoder)
}
