//! A tiny configuration of every family, each with what is the family's own, and rows for each.

use std::fs;
use std::path::Path;

use hift::model::{Head, Model};

/// What it is called, and its `config.json`.
pub const FAMILIES: &[(&str, &str)] = &[
    (
        "llama",
        r#"{"model_type": "llama", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}"#,
    ),
    (
        "llama for classes",
        r#"{"model_type": "llama", "architectures": ["LlamaForSequenceClassification"], "vocab_size": 40,
            "hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 2,
            "max_position_embeddings": 64, "id2label": {"0": "no", "1": "perhaps", "2": "yes"}}"#,
    ),
    (
        "mistral",
        r#"{"model_type": "mistral", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 28,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 3,
            "max_position_embeddings": 64}"#,
    ),
    (
        "qwen2",
        r#"{"model_type": "qwen2", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "use_sliding_window": true, "sliding_window": 4,
            "max_window_layers": 1, "tie_word_embeddings": true, "max_position_embeddings": 64}"#,
    ),
    (
        "qwen3",
        r#"{"model_type": "qwen3", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "max_position_embeddings": 64}"#,
    ),
    (
        "phi3",
        r#"{"model_type": "phi3", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "partial_rotary_factor": 0.5,
            "max_position_embeddings": 64}"#,
    ),
    (
        "phi3, longrope",
        r#"{"model_type": "phi3", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "partial_rotary_factor": 0.5,
            "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [2.0, 4.0]},
            "original_max_position_embeddings": 8, "max_position_embeddings": 64}"#,
    ),
    (
        "gemma",
        r#"{"model_type": "gemma", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 10, "max_position_embeddings": 64}"#,
    ),
    (
        "gemma2",
        r#"{"model_type": "gemma2", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 10, "query_pre_attn_scalar": 9,
            "sliding_window": 3, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 2.0,
            "max_position_embeddings": 64}"#,
    ),
    (
        "gemma3",
        r#"{"model_type": "gemma3_text", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 28,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 10,
            "query_pre_attn_scalar": 9, "sliding_window": 3, "sliding_window_pattern": 2, "max_position_embeddings": 64}"#,
    ),
    (
        "olmo2",
        r#"{"model_type": "olmo2", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}"#,
    ),
    (
        "gpt2",
        r#"{"model_type": "gpt2", "vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64,
            "scale_attn_by_inverse_layer_idx": true}"#,
    ),
    (
        "gpt_neo",
        r#"{"model_type": "gpt_neo", "vocab_size": 40, "hidden_size": 16, "num_layers": 2, "num_heads": 2,
            "attention_types": [[["global", "local"], 1]], "window_size": 3, "max_position_embeddings": 64}"#,
    ),
    (
        "gpt_neox",
        r#"{"model_type": "gpt_neox", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 28,
            "num_hidden_layers": 2, "num_attention_heads": 2, "rotary_pct": 0.5, "max_position_embeddings": 64}"#,
    ),
    (
        "gpt_neox, one after the other",
        r#"{"model_type": "gpt_neox", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 28,
            "num_hidden_layers": 2, "num_attention_heads": 2, "use_parallel_residual": false, "attention_bias": false,
            "rotary_pct": 0.25, "max_position_embeddings": 64}"#,
    ),
    (
        "opt",
        r#"{"model_type": "opt", "vocab_size": 40, "hidden_size": 16, "ffn_dim": 28, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 64}"#,
    ),
    (
        "opt, as 350m",
        r#"{"model_type": "opt", "vocab_size": 40, "hidden_size": 16, "ffn_dim": 28, "num_hidden_layers": 2,
            "num_attention_heads": 2, "word_embed_proj_dim": 12, "do_layer_norm_before": false,
            "max_position_embeddings": 64}"#,
    ),
    (
        "bert",
        r#"{"model_type": "bert", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 64, "id2label": {"0": "a", "1": "b", "2": "c"}}"#,
    ),
    (
        "roberta",
        r#"{"model_type": "roberta", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 66, "type_vocab_size": 1}"#,
    ),
    (
        "bert for a number",
        r#"{"model_type": "bert", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 64, "num_labels": 1}"#,
    ),
    (
        "bert for words",
        r#"{"model_type": "bert", "architectures": ["BertForTokenClassification"], "vocab_size": 40, "hidden_size": 16,
            "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64,
            "id2label": {"0": "O", "1": "B-X", "2": "I-X"}}"#,
    ),
    (
        "roberta for answers",
        r#"{"model_type": "roberta", "architectures": ["RobertaForQuestionAnswering"], "vocab_size": 40,
            "hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 2,
            "max_position_embeddings": 66, "type_vocab_size": 2}"#,
    ),
    (
        "llama for words",
        r#"{"model_type": "llama", "architectures": ["LlamaForTokenClassification"], "vocab_size": 40, "hidden_size": 16,
            "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 2,
            "max_position_embeddings": 64, "id2label": {"0": "O", "1": "B-X", "2": "I-X"}}"#,
    ),
    (
        "distilbert",
        r#"{"model_type": "distilbert", "vocab_size": 40, "dim": 16, "hidden_dim": 28, "n_layers": 2, "n_heads": 2,
            "max_position_embeddings": 64}"#,
    ),
];

/// Writes `n` rows of 40 tokens for the family of `config` into `folder`, beside `config.json` and a tokenizer; gives the
/// blocks `rows` and `words` that read them. `class`: of a row, where rows have one.
pub fn rows(folder: &Path, config: &str, n: u32, class: &dyn Fn(u32) -> u32) -> String {
    let ids = |i: u32| (0..40).map(|t| (i * 31 + t * 7) % 40).collect::<Vec<u32>>();
    let words =
        |i: u32, n: usize| ids(i).iter().take(n).map(|id| format!("w{}", id.max(&5))).collect::<Vec<_>>();
    let row = |i: u32| {
        let labels: Vec<u32> = ids(i).iter().map(|id| id % 3).collect();
        let text = words(i, 30).join(" ");
        format!(
            r#"{{"ids": {:?}, "class": {}, "labels": {labels:?}, "question": "{}", "context": "{text}",
                "answers": {{"text": ["{}"], "answer_start": [0]}}}}"#,
            ids(i),
            class(i),
            words(i + 1, 7).join(" "),
            words(i, 3).join(" "),
        )
        .replace('\n', " ")
    };
    let rows: String = (0..n).map(|i| row(i) + "\n").collect();
    fs::write(folder.join("rows.jsonl"), rows).unwrap();
    fs::write(folder.join("config.json"), config).unwrap();
    fs::write(folder.join("tokenizer.json"), super::word_tokenizer(40)).unwrap();
    let plain = "tokenizer words { pack = false }";
    let (format, tokenizer) = match Model::from_config(config).unwrap().head {
        Head::Tokens { .. } => (r#"tokens(input = "ids")"#, plain),
        Head::Sequence { .. } => (r#"tokens(input = "ids", label = "class")"#, plain),
        Head::Labels { .. } => (r#"tokens(input = "ids", labels = "labels")"#, plain),
        Head::Span { .. } => ("question", r#"tokenizer words { file = "tokenizer.json" }"#),
    };
    format!("data rows {{ source = json(\"rows.jsonl\") format = {format} shuffle = none }}\n{tokenizer}")
}
