//! From a Hugging Face `config.json` to parameters, layers and the forward pass of a language model.
//!
//! ```text
//! config.json ──Model::from_config──▶ Model { params, layers } ──Model::forward──▶ program::Graph
//! ```
//!
//! One file per family, its sources named at its top. A family says which parameters it has and what its trunk
//! computes; everything about training is elsewhere.
//!
//! This room must not know groups, optimizers or devices, and opens no file.

pub mod llama;

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::problem::Problem;
use crate::program::builder::{BatchShape, Builder, Graph};
use crate::program::{Input, ParamId, ValueId};
use crate::units::Bytes;

/// The families that this program knows, by the `model_type` of their configuration.
pub const FAMILIES: &[&str] = &["llama"];

/// The most bytes that a chunk of logits takes, unless a single tile of rows needs more.
const LOGITS_CHUNK: usize = 8 << 20;

/// One tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// As the checkpoint calls it: `model.layers.0.self_attn.q_proj.weight`
    pub name: String,
    /// What a checkpoint may call it instead: of tied matrices it keeps one, under either name.
    pub alias: Option<&'static str>,
    /// As patterns in a pipeline call it: `block.0.attention.q`
    pub path: String,
    pub shape: Vec<usize>,
    pub init: Init,
}

impl Param {
    pub fn elements(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64
    }

    /// Its size in 32-bit floats.
    pub fn bytes(&self) -> Bytes {
        Bytes(4 * self.elements())
    }
}

/// How a fresh parameter is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// A normal distribution around zero with this standard deviation.
    Normal(f32),
    Ones,
    Zeros,
}

/// What trains together at the least: the embedding, a block, the head.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    pub name: String,
    pub params: Vec<ParamId>,
}

/// What a family has to say about itself.
pub trait Family: fmt::Debug + Send + Sync {
    /// From token ids to what the head reads, `[rows, hidden]`.
    fn trunk(&self, build: &mut Builder<'_>) -> ValueId;
    /// The matrix that turns it into logits, `[vocab, hidden]`.
    fn head(&self) -> ParamId;
}

/// A model: its parameters, its layers, its forward pass. Holds no tensor.
#[derive(Debug, Clone)]
pub struct Model {
    pub family: &'static str,
    /// The configuration as it was read, for the export.
    pub config: Map<String, Json>,
    pub params: Vec<Param>,
    /// From input to output; norm and head apart.
    pub layers: Vec<Layer>,
    /// The head is the embedding's matrix.
    pub tied: bool,
    pub hidden: usize,
    pub vocab: usize,
    /// The longest sequence that the model has positions for.
    pub positions: usize,
    pub eos: Vec<u32>,
    trunk: Arc<dyn Family>,
    /// Name and shape, as the builder wants them.
    shapes: Arc<Vec<(String, Vec<usize>)>>,
}

/// The parts of a model that a family's file works out.
struct Parts {
    family: &'static str,
    params: Vec<Param>,
    layers: Vec<Layer>,
    tied: bool,
    hidden: usize,
    vocab: usize,
    positions: usize,
    trunk: Arc<dyn Family>,
}

impl Model {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// When it is not JSON, names a family that is not known, or asks for something that the family does not have
    /// here; says which key.
    pub fn from_config(text: &str) -> Result<Model, Problem> {
        let config: Map<String, Json> = serde_json::from_str(text).map_err(|error| {
            Problem::new(
                "hift::model::config",
                format!("the model's config.json is not a JSON object: {error}"),
            )
            .help("take the file that came with the weights, unchanged")
        })?;
        let family = family_of(&config)?;
        let parts = match family {
            "llama" => llama::read(&config)?,
            other => unreachable!("{other} is in FAMILIES"),
        };
        let eos = match config.get("eos_token_id") {
            Some(Json::Array(ids)) => ids.iter().filter_map(Json::as_u64).map(|id| id as u32).collect(),
            Some(id) => id.as_u64().map(|id| id as u32).into_iter().collect(),
            None => Vec::new(),
        };
        let shapes = parts.params.iter().map(|param| (param.name.clone(), param.shape.clone())).collect();
        Ok(Model {
            family: parts.family,
            config,
            params: parts.params,
            layers: parts.layers,
            tied: parts.tied,
            hidden: parts.hidden,
            vocab: parts.vocab,
            positions: parts.positions,
            eos,
            trunk: parts.trunk,
            shapes: Arc::new(shapes),
        })
    }

    pub fn param(&self, id: ParamId) -> &Param {
        &self.params[id.0]
    }

    pub fn n_elements(&self) -> u64 {
        self.params.iter().map(Param::elements).sum()
    }

    pub fn bytes(&self) -> Bytes {
        self.params.iter().map(Param::bytes).sum()
    }

    /// The layers as a schedule sees them. With `split`, norm and head are layers of their own; without, they are
    /// one layer `head`, and where the head is the embedding's matrix, the norm joins the last block.
    pub fn tail(&self, split: bool) -> Vec<Layer> {
        let mut layers = self.layers.clone();
        if split {
            return layers;
        }
        let norm = layers.iter().position(|layer| layer.name == "norm").expect("every family has a norm");
        let norm = layers.remove(norm);
        let last = layers.last_mut().expect("a model has layers");
        if self.tied {
            last.params.extend(norm.params);
        } else {
            last.params.splice(0..0, norm.params);
        }
        layers
    }

    /// The forward pass up to the loss: `[2]`, the sum of the cross entropies and the number of right first choices.
    pub fn loss(&self, shape: BatchShape) -> Graph {
        let mut build = Builder::new(&self.shapes, shape);
        let x = self.trunk.trunk(&mut build);
        build.at("", None);
        let loss = build.linear_cross_entropy("loss", x, self.trunk.head(), self.chunk());
        build.finish(loss)
    }

    /// The forward pass up to the logits of the rows that `queries` names: `[batch, vocab]`.
    pub fn logits(&self, shape: BatchShape) -> Graph {
        let mut build = Builder::new(&self.shapes, shape);
        let x = self.trunk.trunk(&mut build);
        build.at("", None);
        let queries = build.input(Input::Queries);
        let x = build.pick("last", x, queries);
        let logits = build.linear("logits", x, self.trunk.head(), None);
        build.finish(logits)
    }

    /// Rows of logits that exist at a time: as many as fit [`LOGITS_CHUNK`], at least 64, a multiple of 64.
    fn chunk(&self) -> usize {
        (LOGITS_CHUNK / (4 * self.vocab) / 64 * 64).max(64)
    }
}

fn family_of(config: &Map<String, Json>) -> Result<&'static str, Problem> {
    let known = || FAMILIES.join(", ");
    let Some(model_type) = config.get("model_type").and_then(Json::as_str) else {
        return Err(Problem::new(
            "hift::model::unknown_family",
            "the model's config.json has no `model_type`",
        )
        .help(format!("known families are: {}", known())));
    };
    FAMILIES.iter().copied().find(|family| *family == model_type).ok_or_else(|| {
        let nearest = FAMILIES
            .iter()
            .map(|family| (strsim::damerau_levenshtein(family, model_type), family))
            .min()
            .filter(|(distance, _)| *distance <= 2)
            .map(|(_, family)| format!("; the nearest is `{family}`"));
        Problem::new(
            "hift::model::unknown_family",
            format!("`{model_type}` is not a model family known here"),
        )
        .help(format!("known families are: {}{}", known(), nearest.unwrap_or_default()))
    })
}

/// Reads keys of a configuration, with errors that name the key.
struct Keys<'a>(&'a Map<String, Json>);

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Json> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn size(&self, key: &str) -> Result<usize, Problem> {
        self.optional_size(key)?.ok_or_else(|| {
            Problem::new("hift::model::config", format!("the model's config.json has no `{key}`"))
                .help("take the file that came with the weights, unchanged")
        })
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>, Problem> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64() {
            // Far beyond any model, and small enough that no product of sizes leaves 64 bits.
            Some(size) if (1..=1 << 22).contains(&size) => Ok(Some(size as usize)),
            _ => Err(wrong(key, value, "a whole number from 1 to 4 million")),
        }
    }

    fn number(&self, key: &str, default: f64) -> Result<f64, Problem> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_f64().ok_or_else(|| wrong(key, value, "a number"))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, Problem> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| wrong(key, value, "true or false"))
    }

    fn word(&self, key: &str) -> Result<Option<&str>, Problem> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| wrong(key, value, "a text"))
    }
}

fn wrong(key: &str, value: &Json, wanted: &str) -> Problem {
    Problem::new(
        "hift::model::config",
        format!("`{key}` in the model's config.json is {value}, not {wanted}"),
    )
    .help("take the file that came with the weights, unchanged")
}

fn unsupported(key: &str, value: &str, known: &str) -> Problem {
    Problem::new(
        "hift::model::config",
        format!("`{key}` in the model's config.json is {value}, which this version does not compute"),
    )
    .help(format!("known here: {known}"))
}
