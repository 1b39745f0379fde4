//! The layers of a model: names, shapes, sizes.

use std::fmt::Write;

use crate::model::{Model, Param};
use crate::units::Count;

use super::table::table;

/// One line a tensor, layer by layer. `stored` gives a tensor's type in the checkpoint, if there is one.
pub fn model(model: &Model, stored: impl Fn(&Param) -> Option<String>) -> String {
    let mut text = format!(
        "{}: {} parameters in {} tensors and {} layers, vocabulary {}, {} positions{}\n\n",
        model.family,
        Count(model.n_elements()),
        model.params.len(),
        model.layers.len(),
        Count(model.vocab as u64),
        Count(model.positions as u64),
        if model.tied { ", head tied to the embedding" } else { "" },
    );
    let mut rows = Vec::new();
    for layer in &model.layers {
        for id in &layer.params {
            let param = model.param(*id);
            let shape = param.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
            rows.push(vec![
                layer.name.clone(),
                shape,
                Count(param.elements()).to_string(),
                param.bytes().to_string(),
                stored(param).unwrap_or_else(|| "-".to_string()),
                param.path.clone(),
                param.name.clone(),
            ]);
        }
    }
    let _ = writeln!(
        text,
        "{}",
        table(&["layer", "shape", "elements", "in f32", "stored", "path", "name"], &rows, 2)
    );
    text
}
