//! The roberta family: bert with positions that count from behind the padding's id, and a
//! head of two layers.
//!
//! Sources: Liu et al. 2019, "RoBERTa"; names and configuration keys as in Hugging Face's
//! `RobertaForSequenceClassification`, `...ForTokenClassification` and `...ForQuestionAnswering`.

use crate::problem::Problem;
use crate::program::Activation;

use super::encoder::{Dense, Names};
use super::{Keys, Parts, Task, bert};

pub(super) fn read(keys: &Keys<'_>, task: Task) -> Result<Parts, Problem> {
    let names = Names {
        prefix: "roberta.",
        types: Some(keys.optional_size("type_vocab_size")?.unwrap_or(2)),
        blocks: "roberta.encoder.layer",
        attention: [
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
        ],
        attention_norm: "attention.output.LayerNorm",
        mlp: ["intermediate.dense", "output.dense"],
        mlp_norm: "output.LayerNorm",
        classifier: "classifier.out_proj",
    };
    let dense = Dense { layer: "head", name: "classifier.dense", activation: Activation::Tanh { cap: 1.0 } };
    // The padding's position is its id; the first token comes behind it.
    let offset = keys.whole("pad_token_id", 1)? + 1;
    Ok(bert::encoder(keys, "roberta", names, task, dense, offset)?.parts())
}
