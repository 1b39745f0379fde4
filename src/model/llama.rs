//! The llama family: pre-norm blocks of rotary attention with grouped heads and a gated feed-forward.
//!
//! Sources: Touvron et al. 2023, "LLaMA" and "Llama 2"; Grattafiori et al. 2024, "The Llama 3 Herd of Models"
//! (the scaling of rotary frequencies); names and configuration keys as in Hugging Face's `LlamaForCausalLM`.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::problem::Problem;
use crate::program::builder::Builder;
use crate::program::{Input, ParamId, ValueId};

use super::{Family, Init, Keys, Layer, Param, Parts, unsupported, wrong};

#[derive(Debug)]
struct Llama {
    eps: f32,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    inv_freq: Arc<[f32]>,
    embedding: ParamId,
    blocks: Vec<Block>,
    norm: ParamId,
    head: ParamId,
}

/// A weight and, if the configuration asks for it, its bias.
type Linear = (ParamId, Option<ParamId>);

#[derive(Debug)]
struct Block {
    attention_norm: ParamId,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    mlp_norm: ParamId,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Family for Llama {
    fn trunk(&self, build: &mut Builder<'_>) -> ValueId {
        let ids = build.input(Input::Ids);
        build.at("embedding", None);
        let mut x = build.embed("x", self.embedding, ids); // [rows, hidden]
        let table = build.rope_table("rope", self.inv_freq.clone()); // [rows, head_dim]
        for (idx, block) in self.blocks.iter().enumerate() {
            x = self.block(build, idx, block, x, table);
        }
        build.at("", None);
        build.rms_norm("norm", x, self.norm, self.eps) // [rows, hidden]
    }

    fn head(&self) -> ParamId {
        self.head
    }
}

impl Llama {
    /// `x + attention(norm(x))`, then `x + mlp(norm(x))`: `[rows, hidden]` to the same.
    fn block(
        &self,
        build: &mut Builder<'_>,
        idx: usize,
        block: &Block,
        x: ValueId,
        table: ValueId,
    ) -> ValueId {
        let linear =
            |build: &mut Builder<'_>, name, x, (weight, bias): Linear| build.linear(name, x, weight, bias);
        build.at(format!("block.{idx}.attention"), Some(idx));
        let h = build.rms_norm("norm", x, block.attention_norm, self.eps); // [rows, hidden]
        let q = linear(build, "q", h, block.q); // [rows, heads x head_dim]
        let k = linear(build, "k", h, block.k); // [rows, kv_heads x head_dim]
        let v = linear(build, "v", h, block.v); // [rows, kv_heads x head_dim]
        let q = build.rope("q_turned", q, table, self.heads, self.head_dim);
        let k = build.rope("k_turned", k, table, self.kv_heads, self.head_dim);
        let o = build.attention("mixed", [q, k, v], self.heads, self.kv_heads, self.head_dim);
        let o = linear(build, "out", o, block.o); // [rows, hidden]
        let x = build.add("x", x, o);

        build.at(format!("block.{idx}.mlp"), Some(idx));
        let h = build.rms_norm("norm", x, block.mlp_norm, self.eps); // [rows, hidden]
        let gate = linear(build, "gate", h, block.gate); // [rows, ffn]
        let up = linear(build, "up", h, block.up); // [rows, ffn]
        let h = build.swiglu("mixed", gate, up); // [rows, ffn]
        let h = linear(build, "down", h, block.down); // [rows, hidden]
        build.add("x", x, h)
    }
}

pub(super) fn read(config: &Map<String, Json>) -> Result<Parts, Problem> {
    let keys = Keys(config);
    let hidden = keys.size("hidden_size")?;
    let ffn = keys.size("intermediate_size")?;
    let n_blocks = keys.size("num_hidden_layers")?;
    let heads = keys.size("num_attention_heads")?;
    let kv_heads = keys.optional_size("num_key_value_heads")?.unwrap_or(heads);
    let vocab = keys.size("vocab_size")?;
    let positions = keys.optional_size("max_position_embeddings")?.unwrap_or(2048);
    let head_dim = keys.optional_size("head_dim")?.unwrap_or(hidden / heads);
    let eps = keys.number("rms_norm_eps", 1e-6)? as f32;
    let tied = keys.flag("tie_word_embeddings", false)?;
    let attention_bias = keys.flag("attention_bias", false)?;
    let mlp_bias = keys.flag("mlp_bias", false)?;
    let std = keys.number("initializer_range", 0.02)? as f32;
    if let Some(act) = keys.word("hidden_act")?.filter(|act| *act != "silu") {
        return Err(unsupported("hidden_act", act, "silu"));
    }
    if !heads.is_multiple_of(kv_heads) {
        return Err(Problem::new(
            "hift::model::config",
            format!("{heads} attention heads cannot share {kv_heads} key/value heads evenly"),
        )
        .help("take the config.json that came with the weights, unchanged"));
    }
    if n_blocks > 1024 {
        return Err(unsupported("num_hidden_layers", &n_blocks.to_string(), "up to 1024"));
    }
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        return Err(unsupported(
            "head_dim",
            &head_dim.to_string(),
            "even numbers, since rotary positions turn pairs",
        ));
    }
    let inv_freq = inverse_frequencies(&keys, head_dim)?;

    let mut params: Vec<Param> = Vec::new();
    let mut layers: Vec<Layer> = Vec::new();
    let mut add = |layer: &str, name: String, path: String, shape: Vec<usize>, init: Init| {
        if layers.last().is_none_or(|last: &Layer| last.name != layer) {
            layers.push(Layer { name: layer.to_string(), params: Vec::new() });
        }
        let id = ParamId(params.len());
        params.push(Param { name, alias: None, path, shape, init });
        layers.last_mut().expect("just pushed").params.push(id);
        id
    };

    let embedding = add(
        "embedding",
        "model.embed_tokens.weight".into(),
        "embedding.tokens".into(),
        vec![vocab, hidden],
        Init::Normal(std),
    );
    let mut blocks = Vec::with_capacity(n_blocks);
    for idx in 0..n_blocks {
        let layer = format!("block.{idx}");
        let mut linear = |module: &str, path: &str, out: usize, inner: usize, bias: bool| -> Linear {
            let name = format!("model.layers.{idx}.{module}");
            let path = format!("{layer}.{path}");
            let weight =
                add(&layer, format!("{name}.weight"), path.clone(), vec![out, inner], Init::Normal(std));
            let bias = bias
                .then(|| add(&layer, format!("{name}.bias"), format!("{path}.bias"), vec![out], Init::Zeros));
            (weight, bias)
        };
        let q = linear("self_attn.q_proj", "attention.q", heads * head_dim, hidden, attention_bias);
        let k = linear("self_attn.k_proj", "attention.k", kv_heads * head_dim, hidden, attention_bias);
        let v = linear("self_attn.v_proj", "attention.v", kv_heads * head_dim, hidden, attention_bias);
        let o = linear("self_attn.o_proj", "attention.out", hidden, heads * head_dim, attention_bias);
        let gate = linear("mlp.gate_proj", "mlp.gate", ffn, hidden, mlp_bias);
        let up = linear("mlp.up_proj", "mlp.up", ffn, hidden, mlp_bias);
        let down = linear("mlp.down_proj", "mlp.down", hidden, ffn, mlp_bias);
        let mut norm = |module: &str, path: &str| {
            let name = format!("model.layers.{idx}.{module}.weight");
            add(&layer, name, format!("{layer}.norm.{path}"), vec![hidden], Init::Ones)
        };
        let attention_norm = norm("input_layernorm", "attention");
        let mlp_norm = norm("post_attention_layernorm", "mlp");
        blocks.push(Block { attention_norm, q, k, v, o, mlp_norm, gate, up, down });
    }
    let norm = add("norm", "model.norm.weight".into(), "norm".into(), vec![hidden], Init::Ones);
    let head = if tied {
        embedding
    } else {
        add("head", "lm_head.weight".into(), "head.logits".into(), vec![vocab, hidden], Init::Normal(std))
    };
    params[embedding.0].alias = tied.then_some("lm_head.weight");
    let trunk = Llama { eps, heads, kv_heads, head_dim, inv_freq, embedding, blocks, norm, head };
    Ok(Parts { family: "llama", params, layers, tied, hidden, vocab, positions, trunk: Arc::new(trunk) })
}

/// The frequencies of rotary positions, `[head_dim / 2]`: `theta^(-2i / head_dim)`, scaled as the configuration says.
fn inverse_frequencies(keys: &Keys<'_>, head_dim: usize) -> Result<Arc<[f32]>, Problem> {
    // Since version 5, transformers writes everything about rotary positions into `rope_parameters`.
    let (key, scaling) = match (keys.get("rope_parameters"), keys.get("rope_scaling")) {
        (Some(value), _) => ("rope_parameters", Some(value)),
        (None, value) => ("rope_scaling", value),
    };
    let empty = Map::new();
    let scaling = match scaling {
        None => &empty,
        Some(Json::Object(map)) => map,
        Some(other) => return Err(wrong(key, other, "an object")),
    };
    let scaling = Keys(scaling);
    let theta = scaling.number("rope_theta", keys.number("rope_theta", 10_000.0)?)?;
    let mut inv_freq: Vec<f32> =
        (0..head_dim / 2).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / head_dim as f32)).collect();
    let kind = match scaling.word("rope_type")? {
        Some(kind) => kind,
        None => scaling.word("type")?.unwrap_or("default"),
    };
    match kind {
        "default" => {}
        // Source: Chen et al. 2023, "Extending Context Window of Large Language Models via Positional Interpolation".
        "linear" => {
            let factor = scaling.number("factor", 1.0)? as f32;
            inv_freq.iter_mut().for_each(|freq| *freq /= factor);
        }
        "llama3" => {
            let factor = scaling.number("factor", 8.0)? as f32;
            let low = scaling.number("low_freq_factor", 1.0)? as f32;
            let high = scaling.number("high_freq_factor", 4.0)? as f32;
            let context = scaling.number("original_max_position_embeddings", 8192.0)? as f32;
            for freq in &mut inv_freq {
                let wavelength = 2.0 * std::f32::consts::PI / *freq;
                if wavelength > context / low {
                    *freq /= factor;
                } else if wavelength > context / high {
                    let smooth = (context / wavelength - low) / (high - low);
                    *freq = (1.0 - smooth) * *freq / factor + smooth * *freq;
                }
            }
        }
        other => return Err(unsupported(&format!("{key}.rope_type"), other, "default, linear, llama3")),
    }
    Ok(inv_freq.into())
}
