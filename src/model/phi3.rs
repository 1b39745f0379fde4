//! The phi3 family, Phi-3.5 and Phi-4 included: llama's blocks with fused projections, of whose heads a part may be turned,
//! in long texts more slowly than in short ones.
//!
//! Sources: Abdin et al. 2024, "Phi-3 Technical Report"; names and configuration keys as in Hugging Face's
//! `Phi3ForCausalLM`.

use crate::problem::Problem;

use super::decoder::{Decoder, Projections};
use super::rope::{Names, inverse_frequencies};
use super::{Keys, Parts, Task};

pub(super) fn read(keys: &Keys<'_>, task: Task) -> Result<Parts, Problem> {
    keys.only("hidden_act", "silu")?;
    let mut decoder = Decoder::read(keys, "phi3")?;
    decoder.eps = keys.number("rms_norm_eps", 1e-5)? as f32;
    decoder.projections = Projections::Fused;
    let window = keys.size_or_none("sliding_window", None)?;
    decoder.blocks.iter_mut().for_each(|block| block.window = window);
    let names = Names { default_original: Some(4096), ..Names::PLAIN };
    decoder.frequencies = vec![inverse_frequencies(keys, decoder.head_dim, &names)?];
    Ok(decoder.parts(task))
}
