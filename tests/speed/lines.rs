//! A pipeline of any length, as a person could write it.

use std::fmt::Write as _;

/// Pipelines one behind the other, of about forty lines each.
pub fn text(n_pipelines: usize) -> String {
    let mut text = "hift 1\n".to_owned();
    for i in 0..n_pipelines {
        writeln!(
            text,
            "param peak{i} = 2e-5\nparam batch{i}: whole in 1 .. 64 = 4\nlet length{i} = 2 * (batch{i} * 128 tokens)\n\n\
             data rows{i} {{\n    source  = json(\"rows{i}.jsonl\")\n    format  = text\n    holdout = 2 %\n}}\n\n\
             tokenizer bpe{i} {{\n    file       = \"models/tokenizer.json\"  # a comment\n    max_length = length{i}\n}}\n\n\
             model llama{i} {{\n    weights = \"models/llama-${{batch{i}}}\"\n}}\n\n\
             groups layers{i} {{\n    split  = by_layer(1)\n    freeze = [\"embedding\", \"block.0\"]\n}}\n\n\
             schedule hift{i} {{\n    rate = cosine(peak = peak{i}, warmup = 3 %)\n}}\n\n\
             optimizer fast{i} {{\n    algorithm    = adamw\n    weight_decay = 0.01\n}}\n\n\
             train sft{i} {{\n    data        = rows{i}\n    tokenizer   = bpe{i}\n    model       = llama{i}\n\
             \x20   groups      = layers{i}\n    schedule    = hift{i}\n    optimizer   = fast{i}\n    epochs      = 3\n\
             \x20   micro_batch = batch{i}\n    evaluate {{ every = 200 steps }}\n}}"
        )
        .expect("a text grows");
    }
    text
}
