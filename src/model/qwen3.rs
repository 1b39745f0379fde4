//! The qwen3 family: qwen2's blocks without biases, with a norm of each head's queries and keys.
//!
//! Sources: Yang et al. 2025, "Qwen3 Technical Report"; names and configuration keys as in Hugging Face's
//! `Qwen3ForCausalLM`.

use crate::problem::Problem;

use super::decoder::{Decoder, HeadNorms};
use super::qwen2::windows;
use super::rope::{Names, inverse_frequencies};
use super::{Keys, Parts, Task};

pub(super) fn read(keys: &Keys<'_>, task: Task) -> Result<Parts, Problem> {
    keys.only("hidden_act", "silu")?;
    let mut decoder = Decoder::read(keys, "qwen3")?;
    decoder.set_head_dim(keys.optional_size("head_dim")?.unwrap_or(128));
    let attention = keys.flag("attention_bias", false)?;
    decoder.biases = [attention, attention, false];
    decoder.head_norms = HeadNorms::Each;
    windows(keys, &mut decoder)?;
    decoder.frequencies = vec![inverse_frequencies(keys, decoder.head_dim, &Names::PLAIN)?];
    Ok(decoder.parts(task))
}
