//! The text models of the gemma3 family: gemma2's blocks with a norm of each head's queries and keys instead of bent scores;
//! five blocks with a window, then one without, which turn at different rates.
//!
//! Sources: Gemma Team 2025, "Gemma 3"; names and configuration keys as in Hugging Face's `Gemma3ForCausalLM`.

use crate::problem::Problem;

use super::decoder::HeadNorms;
use super::rope::{Names, inverse_frequencies};
use super::{Keys, Parts, Task, gemma2};

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
