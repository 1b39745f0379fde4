//! The qwen2 family, Qwen2.5 included: llama's blocks with biases of queries, keys and values; the upper blocks may see
//! a window only.
//!
//! Sources: Yang et al. 2024, "Qwen2 Technical Report"; names and configuration keys as in Hugging Face's
//! `Qwen2ForCausalLM`.

use crate::problem::Problem;

use super::decoder::Decoder;
use super::rope::{Names, inverse_frequencies};
use super::{Keys, Parts, Task};

pub(super) fn read(keys: &Keys<'_>, task: Task) -> Result<Parts, Problem> {
    keys.only("hidden_act", "silu")?;
    let mut decoder = Decoder::read(keys, "qwen2")?;
    decoder.biases = [true, false, false];
    windows(keys, &mut decoder)?;
    decoder.frequencies = vec![inverse_frequencies(keys, decoder.head_dim, &Names::PLAIN)?];
    Ok(decoder.parts(task))
}

/// Which blocks see a window: those that `layer_types` names, else all from `max_window_layers` on.
pub(super) fn windows(keys: &Keys<'_>, decoder: &mut Decoder) -> Result<(), Problem> {
    let window = match keys.flag("use_sliding_window", false)? {
        true => keys.size_or_none("sliding_window", Some(4096))?,
        false => None,
    };
    let first = keys.whole("max_window_layers", 28)?;
    let slides = keys.slides(decoder.blocks.len(), |idx| idx >= first)?;
    for (block, slides) in decoder.blocks.iter_mut().zip(slides) {
        block.window = window.filter(|_| slides);
    }
    Ok(())
}
