//! The gemma2 family: gemma's blocks with norms before and after attention and feed-forward, every other block with a window,
//! scores and logits that are bent.
//!
//! Sources: Gemma Team 2024, "Gemma 2"; names and configuration keys as in Hugging Face's `Gemma2ForCausalLM`.

use crate::problem::Problem;

use super::decoder::{Decoder, Norms};
use super::rope::{Names, inverse_frequencies};
use super::{Keys, Parts, Task, gemma};

pub(super) fn read(keys: &Keys<'_>, task: Task) -> Result<Parts, Problem> {
    let mut decoder = base(keys, "gemma2", |idx| idx.is_multiple_of(2), [Some(50.0), Some(30.0)])?;
    decoder.frequencies = vec![inverse_frequencies(keys, decoder.head_dim, &Names::PLAIN)?];
    Ok(decoder.parts(task))
}

/// What the second and third generation share. `slides`: which blocks have a window, where the configuration does not say.
/// `caps`: of scores and logits, likewise.
pub(super) fn base(
    keys: &Keys<'_>,
    family: &'static str,
    slides: impl Fn(usize) -> bool,
    caps: [Option<f64>; 2],
) -> Result<Decoder, Problem> {
    let mut decoder = gemma::base(keys, family)?;
    decoder.activation = keys.activation("hidden_activation", "gelu_pytorch_tanh")?;
    decoder.norms = Norms::Around;
    decoder.scale = (keys.number("query_pre_attn_scalar", 256.0)? as f32).powf(-0.5);
    let cap = |key, default| keys.number_or_none(key, default).map(|cap| cap.map(|cap| cap as f32));
    decoder.score_cap = cap("attn_logit_softcapping", caps[0])?;
    decoder.logit_cap = cap("final_logit_softcapping", caps[1])?;
    let window = keys.size_or_none("sliding_window", Some(4096))?;
    let slides = keys.slides(decoder.blocks.len(), slides)?;
    for (block, slides) in decoder.blocks.iter_mut().zip(slides) {
        block.window = window.filter(|_| slides);
    }
    Ok(decoder)
}
