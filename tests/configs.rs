//! Configurations of checkpoints on the Hub, as they are there and as transformers 5 writes them
//! (`tests/python/configs.py` counted their parameters).

use std::fs;

use serde_json::{Value as Json, json};

use hift::model::Model;
use hift::program::BatchShape;

fn configs() -> Vec<(String, u64, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/configs.json");
    let golden: Json = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let entry = |entry: &Json| {
        let name = entry["name"].as_str().unwrap().to_string();
        (name, entry["parameters"].as_u64().unwrap(), entry["config"].to_string())
    };
    golden.as_array().unwrap().iter().map(entry).collect()
}

fn read(name: &str, config: &str) -> Model {
    Model::from_config(config).unwrap_or_else(|problem| panic!("{name}: {problem}"))
}

#[test]
fn checkpoints_have_as_many_parameters_as_transformers_counts() {
    for (name, parameters, config) in configs() {
        assert_eq!(read(&name, &config).n_elements(), parameters, "{name}");
    }
}

/// Windows, scales, frequencies of positions: the same forward pass, whichever version of transformers wrote them down.
#[test]
fn a_configuration_means_the_same_in_the_words_of_transformers_5() {
    let configs = configs();
    let mut compared = 0;
    for (name, _, config) in &configs {
        let again = configs.iter().find(|(other, ..)| *other == format!("{name}, rewritten"));
        let Some((_, _, again)) = again else { continue };
        compared += 1;
        for (seq, far) in [(8192, false), (8192, true)] {
            let shape = BatchShape { batch: 1, seq, packed: false, far };
            let [one, other] = [config, again].map(|config| read(name, config));
            assert_eq!((one.near(), one.positions, &one.eos), (other.near(), other.positions, &other.eos));
            assert!(one.loss(shape) == other.loss(shape), "{name}");
        }
    }
    assert!(compared > 20, "{compared}");
}

#[test]
fn of_a_model_that_sees_pictures_the_text_model_is_read() {
    let (_, _, config) = configs().into_iter().find(|(name, ..)| name == "google/gemma-3-4b-it").unwrap();
    let model = read("gemma3", &config);
    assert_eq!((model.family, model.eos.as_slice()), ("gemma3_text", &[1, 106][..]));
    assert_eq!(model.config["model_type"], "gemma3_text");
    assert_eq!(model.config["architectures"], json!(["Gemma3ForCausalLM"]));
    assert!(!model.config.contains_key("vision_config"));
    let names = |path: &str| {
        let param = model.params.iter().find(|param| param.path == path).unwrap();
        [&param.name].into_iter().chain(&param.aliases).cloned().collect::<Vec<_>>()
    };
    let q = names("block.3.attention.q");
    for name in ["model", "language_model.model", "model.language_model"] {
        let name = format!("{name}.layers.3.self_attn.q_proj.weight");
        assert!(q.contains(&name), "{name} in {q:?}");
    }
    let tokens = names("embedding.tokens");
    assert!(tokens.contains(&"language_model.lm_head.weight".to_string()), "{tokens:?}");
}
