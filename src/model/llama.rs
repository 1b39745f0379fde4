//! The llama family: pre-norm blocks of rotary attention with grouped heads and a gated feed-forward. SmolLM and many
//! others are of it.
//!
//! Sources: Touvron et al. 2023, "LLaMA" and "Llama 2"; Grattafiori et al. 2024, "The Llama 3 Herd of Models"
//! (the scaling of rotary frequencies); names and configuration keys as in Hugging Face's `LlamaForCausalLM`.

use crate::problem::Problem;

use super::decoder::Decoder;
use super::rope::{Names, inverse_frequencies};
use super::{Keys, Parts, Task};

pub(super) fn read(keys: &Keys<'_>, task: Task) -> Result<Parts, Problem> {
    keys.only("hidden_act", "silu")?;
    let mut decoder = Decoder::read(keys, "llama")?;
    let attention = keys.flag("attention_bias", false)?;
    decoder.biases = [attention, attention, keys.flag("mlp_bias", false)?];
    decoder.frequencies = vec![inverse_frequencies(keys, decoder.head_dim, &Names::PLAIN)?];
    Ok(decoder.parts(task))
}
