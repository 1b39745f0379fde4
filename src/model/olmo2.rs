//! The olmo2 family: llama's blocks that normalise what attention and feed-forward give instead of what they read, with
//! a norm of all queries and one of all keys.
//!
//! Sources: OLMo Team 2025, "2 OLMo 2 Furious"; names and configuration keys as in Hugging Face's `Olmo2ForCausalLM`.

use crate::problem::Problem;

use super::decoder::{Decoder, HeadNorms, Norms};
use super::rope::{Names, inverse_frequencies};
use super::{Keys, Parts, Task};

pub(super) fn read(keys: &Keys<'_>, task: Task) -> Result<Parts, Problem> {
    keys.only("hidden_act", "silu")?;
    let mut decoder = Decoder::read(keys, "olmo2")?;
    decoder.eps = keys.number("rms_norm_eps", 1e-5)? as f32;
    let attention = keys.flag("attention_bias", false)?;
    decoder.biases = [attention, attention, false];
    decoder.norms = Norms::After;
    decoder.head_norms = HeadNorms::All;
    decoder.frequencies = vec![inverse_frequencies(keys, decoder.head_dim, &Names::PLAIN)?];
    Ok(decoder.parts(task))
}
