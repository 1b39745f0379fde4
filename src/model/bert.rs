//! The bert family, as a classifier of sequences or tokens, or to find answers.
//!
//! Sources: Devlin et al. 2019, "BERT"; names and configuration keys as in Hugging Face's
//! `BertForSequenceClassification`, `BertForTokenClassification` and `BertForQuestionAnswering`.

use crate::problem::Problem;
use crate::program::Activation;

use super::encoder::{Dense, Encoder, Names};
use super::{Keys, Parts, Task};

pub(super) fn read(keys: &Keys<'_>, task: Task) -> Result<Parts, Problem> {
    let names = Names {
        prefix: "bert.",
        types: Some(keys.optional_size("type_vocab_size")?.unwrap_or(2)),
        blocks: "bert.encoder.layer",
        attention: [
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
        ],
        attention_norm: "attention.output.LayerNorm",
        mlp: ["intermediate.dense", "output.dense"],
        mlp_norm: "output.LayerNorm",
        classifier: "classifier",
    };
    let dense =
        Dense { layer: "pooler", name: "bert.pooler.dense", activation: Activation::Tanh { cap: 1.0 } };
    Ok(encoder(keys, "bert", names, task, dense, 0)?.parts())
}

/// What bert and roberta read in the same way.
pub(super) fn encoder(
    keys: &Keys<'_>,
    family: &'static str,
    names: Names,
    task: Task,
    dense: Dense,
    offset: usize,
) -> Result<Encoder, Problem> {
    if let Some(kind) = keys.word("position_embedding_type")?.filter(|kind| *kind != "absolute") {
        return Err(super::unsupported("position_embedding_type", kind, "absolute"));
    }
    for key in ["is_decoder", "add_cross_attention"] {
        if keys.flag(key, false)? {
            return Err(super::unsupported(key, "true", "false"));
        }
    }
    let size = |key, default| keys.optional_size(key).map(|size| size.unwrap_or(default));
    let (hidden, heads) = (keys.size("hidden_size")?, keys.size("num_attention_heads")?);
    keys.head_dim(hidden, heads, "num_attention_heads")?;
    let table = size("max_position_embeddings", 512)?;
    if table < offset + 2 {
        return Err(super::unsupported("max_position_embeddings", &table.to_string(), "larger numbers"));
    }
    Ok(Encoder {
        family,
        hidden,
        heads,
        ffn: keys.size("intermediate_size")?,
        vocab: keys.size("vocab_size")?,
        table,
        offset,
        n_blocks: keys.blocks("num_hidden_layers")?,
        eps: keys.number("layer_norm_eps", 1e-12)? as f32,
        std: keys.number("initializer_range", 0.02)? as f32,
        activation: keys.activation("hidden_act", "gelu")?,
        names,
        task,
        dense,
    })
}
