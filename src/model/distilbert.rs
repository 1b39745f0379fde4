//! The distilbert family: bert without parts of a pair, with a dense layer in the pooler's
//! place.
//!
//! Sources: Sanh et al. 2019, "DistilBERT"; names and configuration keys as in Hugging Face's
//! `DistilBertForSequenceClassification`, `...ForTokenClassification` and `...ForQuestionAnswering`.

use crate::problem::Problem;
use crate::program::Activation;

use super::encoder::{Dense, Encoder, Names};
use super::{Keys, Parts, Task};

pub(super) fn read(keys: &Keys<'_>, task: Task) -> Result<Parts, Problem> {
    let size = |key, default| keys.optional_size(key).map(|size| size.unwrap_or(default));
    let (hidden, heads) = (size("dim", 768)?, size("n_heads", 12)?);
    keys.head_dim(hidden, heads, "n_heads")?;
    let encoder = Encoder {
        family: "distilbert",
        hidden,
        heads,
        ffn: size("hidden_dim", 4 * 768)?,
        vocab: size("vocab_size", 30522)?,
        table: size("max_position_embeddings", 512)?,
        offset: 0,
        n_blocks: keys.blocks_or("n_layers", 6)?,
        eps: 1e-12,
        std: keys.number("initializer_range", 0.02)? as f32,
        activation: keys.activation("activation", "gelu")?,
        names: Names {
            prefix: "distilbert.",
            types: None,
            blocks: "distilbert.transformer.layer",
            attention: ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"],
            attention_norm: "sa_layer_norm",
            mlp: ["ffn.lin1", "ffn.lin2"],
            mlp_norm: "output_layer_norm",
            classifier: "classifier",
        },
        task,
        dense: Dense { layer: "head", name: "pre_classifier", activation: Activation::Relu },
    };
    Ok(encoder.parts())
}
