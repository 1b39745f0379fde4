//! The mistral family: llama's blocks, in which a position may see a window of what comes before it.
//!
//! Sources: Jiang et al. 2023, "Mistral 7B"; names and configuration keys as in Hugging Face's `MistralForCausalLM`.

use crate::problem::Problem;

use super::decoder::Decoder;
use super::rope::{Names, inverse_frequencies};
use super::{Keys, Parts, Task};

pub(super) fn read(keys: &Keys<'_>, task: Task) -> Result<Parts, Problem> {
    keys.only("hidden_act", "silu")?;
    let mut decoder = Decoder::read(keys, "mistral")?;
    let window = keys.size_or_none("sliding_window", Some(4096))?;
    decoder.blocks.iter_mut().for_each(|block| block.window = window);
    decoder.frequencies = vec![inverse_frequencies(keys, decoder.head_dim, &Names::PLAIN)?];
    Ok(decoder.parts(task))
}
