//! From a Hugging Face `config.json` to parameters, layers and the forward pass of a language model.
//!
//! ```text
//! config.json ──Model::from_config──▶ Model { params, layers } ──Model::forward──▶ program::Graph
//! ```
//!
//! One file per family, its sources named at its top. A family says which parameters it has and what its trunk
//! computes; everything about training is elsewhere. What families share: [`decoder`] (llama and its relatives),
//! [`encoder`] (bert and its), [`rope`] (frequencies of positions), [`params`] (names to parameters).
//!
//! This room must not know groups, optimizers or devices, and opens no file.

mod bert;
mod decoder;
mod distilbert;
mod encoder;
mod gemma;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neo;
mod gpt_neox;
mod llama;
mod mistral;
mod olmo2;
mod opt;
mod params;
mod phi3;
mod qwen2;
mod qwen3;
mod roberta;
mod rope;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::problem::Problem;
use crate::program::builder::{BatchShape, Builder, CacheShape, Graph};
use crate::program::{Activation, Input, Linear, ParamId, Role, ValueId};
use crate::units::Bytes;

/// How a family reads its configuration.
struct Reader {
    read: fn(&Keys<'_>, Task) -> Result<Parts, Problem>,
    /// What the names of its classes begin with at Hugging Face: `Bert`.
    class: &'static str,
    /// What it can be trained for, by the ends of those names.
    tasks: &'static [&'static str],
}

const CAUSAL: &str = "ForCausalLM";
const SEQUENCES: &str = "ForSequenceClassification";
const TOKENS: &str = "ForTokenClassification";
const ANSWERS: &str = "ForQuestionAnswering";

impl Reader {
    const fn new(
        read: fn(&Keys<'_>, Task) -> Result<Parts, Problem>,
        class: &'static str,
        tasks: &'static [&'static str],
    ) -> Self {
        Self { read, class, tasks }
    }

    /// It sees all of a sequence at once, and has no next token to predict.
    fn is_encoder(&self) -> bool {
        !self.tasks.contains(&CAUSAL)
    }
}

const ENCODER: &[&str] = &[SEQUENCES, TOKENS, ANSWERS];
const DECODER: &[&str] = &[CAUSAL, SEQUENCES, TOKENS];
const DECODER_OF_SEQUENCES: &[&str] = &[CAUSAL, SEQUENCES];

/// The families that this program knows, by the `model_type` of their configuration.
const FAMILIES: &[(&str, Reader)] = &[
    ("bert", Reader::new(bert::read, "Bert", ENCODER)),
    ("distilbert", Reader::new(distilbert::read, "DistilBert", ENCODER)),
    ("gemma", Reader::new(gemma::read, "Gemma", DECODER)),
    ("gemma2", Reader::new(gemma2::read, "Gemma2", DECODER)),
    ("gemma3_text", Reader::new(gemma3::read, "Gemma3Text", DECODER_OF_SEQUENCES)),
    ("gpt2", Reader::new(gpt2::read, "GPT2", DECODER)),
    ("gpt_neo", Reader::new(gpt_neo::read, "GPTNeo", DECODER)),
    ("gpt_neox", Reader::new(gpt_neox::read, "GPTNeoX", DECODER)),
    ("llama", Reader::new(llama::read, "Llama", DECODER)),
    ("mistral", Reader::new(mistral::read, "Mistral", DECODER)),
    ("olmo2", Reader::new(olmo2::read, "Olmo2", DECODER_OF_SEQUENCES)),
    ("opt", Reader::new(opt::read, "OPT", DECODER_OF_SEQUENCES)),
    ("phi3", Reader::new(phi3::read, "Phi3", DECODER)),
    ("qwen2", Reader::new(qwen2::read, "Qwen2", DECODER)),
    ("qwen3", Reader::new(qwen3::read, "Qwen3", DECODER)),
    ("roberta", Reader::new(roberta::read, "Roberta", ENCODER)),
];

/// The most bytes that a chunk of logits takes, unless a single tile of rows needs more.
const LOGITS_CHUNK: usize = 8 << 20;

/// One tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// As the checkpoint calls it: `model.layers.0.self_attn.q_proj.weight`
    pub name: String,
    /// What a checkpoint may call it instead: of tied matrices it keeps one, under either name; that of a bare trunk leaves
    /// the trunk's name out.
    pub aliases: Vec<String>,
    /// As patterns in a pipeline call it: `block.0.attention.q`
    pub path: String,
    pub shape: Vec<usize>,
    pub init: Init,
    /// A checkpoint need not have it: it is drawn then, as the head of a task that the model has not learned yet.
    pub may_be_missing: bool,
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

/// What a model is trained for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// To predict the next token.
    NextToken,
    /// To give each sequence a class or a number.
    Sequence(Target),
    /// To give each token one of these classes.
    Tokens(Vec<String>),
    /// To find where in a text the answer to a question begins and ends.
    Span,
}

/// A task that a pipeline asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What the configuration says.
    Auto,
    Classes,
    Number,
    TokenClasses,
    Answers,
}

impl Task {
    /// What Hugging Face's names of classes for it end in.
    fn ending(&self) -> &'static str {
        match self {
            Task::NextToken => CAUSAL,
            Task::Sequence(_) => SEQUENCES,
            Task::Tokens(_) => TOKENS,
            Task::Span => ANSWERS,
        }
    }

    /// The classes as a configuration names them; a number has one, which nobody names.
    fn classes(&self) -> Option<Vec<String>> {
        match self {
            Task::Sequence(Target::Classes(classes)) | Task::Tokens(classes) => Some(classes.clone()),
            Task::Sequence(Target::Number) => Some(vec![label(0)]),
            Task::NextToken | Task::Span => None,
        }
    }

    /// Has the configuration ask for it, as Hugging Face writes that.
    fn write(&self, reader: &Reader, config: &mut Map<String, Json>) {
        config.insert("architectures".into(), Json::from(vec![format!("{}{}", reader.class, self.ending())]));
        if let Some(classes) = self.classes() {
            let names = || classes.iter().enumerate();
            config
                .insert("id2label".into(), names().map(|(i, name)| (i.to_string(), name.as_str())).collect());
            config.insert("label2id".into(), names().map(|(i, name)| (name.clone(), i)).collect());
        }
    }
}

/// What a sequence is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// One of these classes, learned by cross entropy.
    Classes(Vec<String>),
    /// A number, learned by squared error.
    Number,
}

impl Target {
    /// How many numbers the head gives.
    fn width(&self) -> usize {
        match self {
            Target::Classes(classes) => classes.len(),
            Target::Number => 1,
        }
    }
}

/// Where a class or number is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Read {
    /// At the first token, which sees all others.
    First,
    /// At the last token, which comes after all others.
    Last,
}

/// What stands on the trunk.
#[derive(Debug, Clone, PartialEq)]
pub enum Head {
    /// Logits of the next token, by a matrix of `[vocab, width]`.
    Tokens { weight: ParamId, softcap: Option<f32> },
    /// Logits of the classes, or a number: `out(f(dense(x)))` of one token.
    Sequence { target: Target, read: Read, dense: Option<(Linear, Activation)>, out: Linear },
    /// Logits of the classes of every token.
    Labels { classes: Vec<String>, out: Linear },
    /// Two numbers for every token: that the answer begins there, and that it ends there.
    Span { out: Linear },
}

impl Head {
    /// Whether it is this matrix.
    fn is(&self, param: ParamId) -> bool {
        matches!(self, Head::Tokens { weight, .. } if *weight == param)
    }
}

/// What a family has to say about itself.
pub trait Family: fmt::Debug + Send + Sync {
    /// How long the longest document of a pass may be before its positions turn otherwise, if they ever do.
    fn near(&self) -> Option<usize> {
        None
    }

    /// From token ids to what the head reads, `[rows, width]`.
    fn trunk(&self, build: &mut Builder<'_>) -> ValueId;
}

/// A model: its parameters, its layers, its forward pass. Holds no tensor.
#[derive(Debug, Clone)]
pub struct Model {
    pub family: &'static str,
    /// The configuration as it was read, for the export.
    pub config: Map<String, Json>,
    pub params: Vec<Param>,
    /// From input to output; norm, pooler and head apart.
    pub layers: Vec<Layer>,
    /// The head is the embedding's matrix.
    pub tied: bool,
    pub hidden: usize,
    pub vocab: usize,
    /// The longest sequence that the model has positions for.
    pub positions: usize,
    pub eos: Vec<u32>,
    /// A token sees those after it, too; padding must be hidden from it.
    pub both_ways: bool,
    pub head: Head,
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
    both_ways: bool,
    head: Head,
    trunk: Arc<dyn Family>,
}

impl Model {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// When it is not JSON, names a family that is not known, or asks for something that the family does not have
    /// here; says which key.
    pub fn from_config(text: &str) -> Result<Model, Problem> {
        Self::for_task(text, Kind::Auto, None)
    }

    /// The same, for a task that the configuration need not have been written for. Without `labels`, the classes are those
    /// of the configuration.
    ///
    /// # Errors
    /// As [`Model::from_config`], and where the family cannot be trained for the task, or its classes are none.
    pub fn for_task(text: &str, kind: Kind, labels: Option<&[String]>) -> Result<Model, Problem> {
        let mut config: Map<String, Json> = serde_json::from_str(text).map_err(|error| {
            Problem::new(
                "hift::model::config",
                format!("the model's config.json is not a JSON object: {error}"),
            )
            .help("take the file that came with the weights, unchanged")
        })?;
        let of_pictures = gemma3::text_part(&config);
        let sees_pictures = of_pictures.is_some();
        if let Some(text) = of_pictures {
            config = text;
        }
        let reader = reader_of(&config)?;
        let classes = |config: &Map<String, Json>| match labels {
            Some(labels) => Ok(labels.to_vec()),
            None => classes_of(&Keys(config)),
        };
        let task = match kind {
            Kind::Auto => task_of(reader, &Keys(&config))?,
            Kind::Classes => Task::Sequence(Target::Classes(told_apart(classes(&config)?)?)),
            Kind::Number => Task::Sequence(Target::Number),
            Kind::TokenClasses => Task::Tokens(told_apart(classes(&config)?)?),
            Kind::Answers => Task::Span,
        };
        if !reader.tasks.contains(&task.ending()) {
            return Err(no_such_task(reader, &task));
        }
        if kind != Kind::Auto {
            // They may say otherwise.
            config.retain(|key, _| !["num_labels", "problem_type"].contains(&key.as_str()));
        }
        // What is exported is what was trained, whatever task the checkpoint was for.
        if task != Task::NextToken {
            task.write(reader, &mut config);
        }
        let mut parts = (reader.read)(&Keys(&config), task)?;
        if sees_pictures {
            for param in &mut parts.params {
                let names = [&param.name].into_iter().chain(&param.aliases);
                let more: Vec<String> = names.flat_map(|name| gemma3::names_beside_pictures(name)).collect();
                param.aliases.extend(more);
            }
        }
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
            both_ways: parts.both_ways,
            head: parts.head,
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

    /// How many parts of a pair it tells apart.
    pub fn parts(&self) -> usize {
        let table = self.params.iter().find(|param| param.path == "embedding.types");
        table.map_or(1, |table| table.shape[0])
    }

    /// How long the longest document of a pass may be before all of the pass's positions turn otherwise.
    pub fn near(&self) -> Option<usize> {
        self.trunk.near()
    }

    /// Whether the longest document of a pass is beyond that.
    pub fn is_far(&self, longest: usize) -> bool {
        self.near().is_some_and(|near| longest > near)
    }

    /// What it is trained for.
    pub fn task(&self) -> Task {
        match &self.head {
            Head::Tokens { .. } => Task::NextToken,
            Head::Sequence { target, .. } => Task::Sequence(target.clone()),
            Head::Labels { classes, .. } => Task::Tokens(classes.clone()),
            Head::Span { .. } => Task::Span,
        }
    }

    /// The layers as a schedule sees them. With `split`, norm, pooler and head are layers of their own; without, they are
    /// one layer `head`, and where the head is the embedding's matrix, the norm joins the last block.
    pub fn tail(&self, split: bool) -> Vec<Layer> {
        let mut layers = self.layers.clone();
        if split {
            return layers;
        }
        let is_tail = |layer: &Layer| ["norm", "pooler", "head"].contains(&layer.name.as_str());
        let from = layers.iter().position(is_tail).unwrap_or(layers.len());
        let tail = layers.split_off(from);
        let has_head = tail.last().is_some_and(|last| last.name == "head");
        let params = tail.into_iter().flat_map(|layer| layer.params).collect();
        if has_head {
            layers.push(Layer { name: "head".into(), params });
        } else {
            layers.last_mut().expect("a model has layers").params.extend(params);
        }
        layers
    }

    /// The forward pass up to the loss: `[2]`, the sum of the cross entropies and the number of right first choices.
    pub fn loss(&self, shape: BatchShape) -> Graph {
        self.losses(shape).0
    }

    /// The same, which also gives what the loss is computed from, for metrics to look at: the logits, or the numbers.
    /// Those of the next token are too many to be kept.
    pub fn evaluation(&self, shape: BatchShape) -> Graph {
        let (mut graph, logits) = self.losses(shape);
        graph.also = logits;
        graph
    }

    fn losses(&self, shape: BatchShape) -> (Graph, Option<ValueId>) {
        let mut build = Builder::new(&self.shapes, shape);
        let x = self.trunk.trunk(&mut build);
        build.at("", None);
        let (loss, logits) = match &self.head {
            Head::Tokens { weight, softcap } => {
                (build.linear_cross_entropy("loss", x, *weight, self.chunk(), *softcap), None)
            }
            Head::Sequence { target, dense, out, .. } => {
                let x = read(&mut build, x, *dense, *out);
                let loss = match target {
                    Target::Classes(_) => build.cross_entropy("loss", x),
                    Target::Number => build.squared_error("loss", x),
                };
                (loss, Some(x))
            }
            Head::Labels { out, .. } => {
                let x = build.linear("logits", x, *out); // [rows, classes]
                (build.token_cross_entropy("loss", x), Some(x))
            }
            Head::Span { out } => {
                let x = build.linear("logits", x, *out); // [rows, 2]
                (build.span_cross_entropy("loss", x), Some(x))
            }
        };
        (build.finish(loss), logits)
    }

    /// The forward pass up to the logits of the rows that `queries` names: `[batch, vocab]`, or `[batch, classes]`; for
    /// classes and ends of tokens, of all rows.
    pub fn logits(&self, shape: BatchShape) -> Graph {
        self.next_of(Builder::new(&self.shapes, shape))
    }

    /// The same for texts that are continued: keys and values are kept in `cache`.
    pub fn continuation(&self, shape: BatchShape, cache: CacheShape) -> Graph {
        self.next_of(Builder::new(&self.shapes, shape).with_cache(cache))
    }

    /// The tensors of keys and values that such a pass keeps.
    pub fn caches(&self, cache: CacheShape) -> Vec<Vec<usize>> {
        let graph = self.continuation(BatchShape { batch: 1, seq: 1, packed: false, far: false }, cache);
        let kept = graph.values.into_iter().filter(|value| matches!(value.role, Role::Cache(_)));
        kept.map(|value| value.shape).collect()
    }

    fn next_of(&self, mut build: Builder<'_>) -> Graph {
        let x = self.trunk.trunk(&mut build);
        build.at("", None);
        let logits = match &self.head {
            Head::Tokens { weight, softcap } => {
                let queries = build.input(Input::Queries);
                let x = build.pick("last", x, queries);
                let logits = build.linear("logits", x, Linear::new(*weight, None));
                match softcap {
                    Some(cap) => build.activate("bent", Activation::Tanh { cap: *cap }, logits),
                    None => logits,
                }
            }
            Head::Sequence { dense, out, .. } => read(&mut build, x, *dense, *out),
            Head::Labels { out, .. } | Head::Span { out } => build.linear("logits", x, *out),
        };
        build.finish(logits)
    }

    /// Rows of logits that exist at a time: as many as fit [`LOGITS_CHUNK`], at least 64, a multiple of 64.
    fn chunk(&self) -> usize {
        (LOGITS_CHUNK / (4 * self.vocab) / 64 * 64).max(64)
    }
}

/// What the head gives for the token that `queries` names in each sequence: `[batch, classes]`, or `[batch, 1]`.
fn read(build: &mut Builder<'_>, x: ValueId, dense: Option<(Linear, Activation)>, out: Linear) -> ValueId {
    let queries = build.input(Input::Queries);
    let mut x = build.pick("read", x, queries); // [batch, hidden]
    if let Some((linear, activation)) = dense {
        x = build.linear("dense", x, linear); // [batch, hidden]
        x = build.activate("pooled", activation, x);
    }
    build.linear("logits", x, out) // [batch, classes]
}

fn reader_of(config: &Map<String, Json>) -> Result<&'static Reader, Problem> {
    let names = || FAMILIES.iter().map(|(name, _)| *name);
    let known = || names().collect::<Vec<_>>().join(", ");
    let Some(model_type) = config.get("model_type").and_then(Json::as_str) else {
        return Err(Problem::new(
            "hift::model::unknown_family",
            "the model's config.json has no `model_type`",
        )
        .help(format!("known families are: {}", known())));
    };
    let found = FAMILIES.iter().find(|(name, _)| *name == model_type);
    found.map(|(_, reader)| reader).ok_or_else(|| {
        let nearest = names()
            .map(|family| {
                (!family.starts_with(model_type), strsim::damerau_levenshtein(family, model_type), family)
            })
            .min()
            .filter(|(other, distance, _)| !other || *distance <= 2)
            .map(|(.., family)| format!("; the nearest is `{family}`"));
        Problem::new(
            "hift::model::unknown_family",
            format!("`{model_type}` is not a model family known here"),
        )
        .help(format!("known families are: {}{}", known(), nearest.unwrap_or_default()))
    })
}

/// The task of a model that may have several: `architectures` names the class that wrote the checkpoint.
fn task_of(reader: &Reader, keys: &Keys<'_>) -> Result<Task, Problem> {
    let name = keys.get("architectures").and_then(|names| names.get(0)).and_then(Json::as_str);
    let name = name.unwrap_or_default();
    let known = reader.tasks.iter().find(|ending| name.ends_with(**ending)).copied();
    match known {
        Some(TOKENS) => Ok(Task::Tokens(classes_of(keys)?)),
        Some(ANSWERS) => Ok(Task::Span),
        Some(SEQUENCES) => Ok(Task::Sequence(target_of(keys)?)),
        // Whatever an encoder's checkpoint was for, masked words as a rule.
        _ if reader.is_encoder() => Ok(Task::Sequence(target_of(keys)?)),
        None if name.contains("For") => {
            let endings: Vec<String> = reader.tasks.iter().map(|ending| format!("`{ending}`")).collect();
            Err(unsupported("architectures", name, &format!("those that end in {}", endings.join(", "))))
        }
        // GPT2LMHeadModel, bare trunks, or nothing.
        _ => Ok(Task::NextToken),
    }
}

/// Classes of which there is more than one, and each once.
fn told_apart(classes: Vec<String>) -> Result<Vec<String>, Problem> {
    let twice = classes.iter().enumerate().find(|(i, name)| classes[..*i].contains(name));
    let fact = match (classes.len(), twice) {
        (0 | 1, _) => format!("{} class is nothing to tell apart", classes.len()),
        (_, Some((_, name))) => format!("the class `{name}` stands there twice"),
        (_, None) => return Ok(classes),
    };
    let problem = Problem::new("hift::model::task", fact);
    Err(problem
        .help("write the names of all classes, in the order of their numbers: `labels = [\"no\", \"yes\"]`"))
}

fn no_such_task(reader: &Reader, task: &Task) -> Problem {
    let class = reader.class;
    let known = FAMILIES.iter().filter(|(_, other)| other.tasks.contains(&task.ending()));
    let known: Vec<&str> = known.map(|(name, _)| *name).collect();
    Problem::new(
        "hift::model::task",
        format!("this model cannot be trained for that: there is no `{class}{}`", task.ending()),
    )
    .help(format!("take a model of another family: {}", known.join(", ")))
}

/// What Hugging Face calls a class that has no name.
fn label(i: usize) -> String {
    format!("LABEL_{i}")
}

/// The names of the classes in `id2label`; without it, `num_labels` of them, two as Hugging Face has it.
fn classes_of(keys: &Keys<'_>) -> Result<Vec<String>, Problem> {
    Ok(match keys.get("id2label") {
        None => (0..keys.optional_size("num_labels")?.unwrap_or(2)).map(label).collect(),
        Some(Json::Object(map)) => {
            let name = |i: usize| map.get(&i.to_string()).and_then(Json::as_str).map(str::to_string);
            let names: Option<Vec<String>> = (0..map.len()).map(name).collect();
            names.ok_or_else(|| wrong("id2label", &keys.0["id2label"], "names for 0, 1, 2 and so on"))?
        }
        Some(other) => return Err(wrong("id2label", other, "an object")),
    })
}

/// What a sequence is given; one class alone is a number.
fn target_of(keys: &Keys<'_>) -> Result<Target, Problem> {
    let classes = classes_of(keys)?;
    match (keys.word("problem_type")?, classes.len()) {
        (_, 0) => Err(unsupported("id2label", "empty", "one number, two classes or more")),
        (None | Some("regression"), 1) => Ok(Target::Number),
        (None | Some("single_label_classification"), 2..) => Ok(Target::Classes(classes)),
        (Some("regression"), n) => Err(unsupported(
            "problem_type",
            &format!("a regression of {n} numbers"),
            "of one: an `id2label` of one entry",
        )),
        (Some(kind), n) => Err(unsupported(
            "problem_type",
            &format!("{kind} of {n}"),
            "regression of one, single_label_classification of two or more",
        )),
    }
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

    /// A size that may be switched off: `null` is none, a key that is not there is the default.
    fn size_or_none(&self, key: &str, default: Option<usize>) -> Result<Option<usize>, Problem> {
        if self.0.contains_key(key) { self.optional_size(key) } else { Ok(default) }
    }

    /// A whole number that may be 0.
    fn whole(&self, key: &str, default: usize) -> Result<usize, Problem> {
        let Some(value) = self.get(key) else { return Ok(default) };
        match value.as_u64() {
            Some(number) if number <= 1 << 22 => Ok(number as usize),
            _ => Err(wrong(key, value, "a whole number up to 4 million")),
        }
    }

    /// How many blocks there are.
    fn blocks(&self, key: &str) -> Result<usize, Problem> {
        self.size(key)?;
        self.blocks_or(key, 1)
    }

    fn blocks_or(&self, key: &str, default: usize) -> Result<usize, Problem> {
        match self.optional_size(key)?.unwrap_or(default) {
            n if n > 1024 => Err(unsupported(key, &n.to_string(), "up to 1024")),
            n => Ok(n),
        }
    }

    /// Which blocks see a window: `layer_types` says it, else `default` by the block's number.
    fn slides(&self, n_blocks: usize, default: impl Fn(usize) -> bool) -> Result<Vec<bool>, Problem> {
        let Some(types) = self.get("layer_types") else { return Ok((0..n_blocks).map(default).collect()) };
        let slides = |kind: &Json| match kind.as_str() {
            Some("sliding_attention") => Some(true),
            Some("full_attention") => Some(false),
            _ => None,
        };
        let known = types.as_array().and_then(|types| types.iter().map(slides).collect::<Option<Vec<_>>>());
        let wanted = format!("`sliding_attention` or `full_attention` for {n_blocks} blocks");
        known.filter(|known| known.len() == n_blocks).ok_or_else(|| wrong("layer_types", types, &wanted))
    }

    /// The width of a head where `heads`, which `key` names, share `hidden` evenly.
    fn head_dim(&self, hidden: usize, heads: usize, key: &str) -> Result<usize, Problem> {
        match hidden.is_multiple_of(heads) {
            true => Ok(hidden / heads),
            false => Err(unsupported(key, &heads.to_string(), &format!("numbers that divide {hidden}"))),
        }
    }

    /// Fails unless the key says `word`, or nothing.
    fn only(&self, key: &str, word: &str) -> Result<(), Problem> {
        match self.word(key)?.filter(|said| *said != word) {
            Some(other) => Err(unsupported(key, other, word)),
            None => Ok(()),
        }
    }

    /// A function by the name that Hugging Face has for it.
    fn activation(&self, key: &str, default: &str) -> Result<Activation, Problem> {
        match self.word(key)?.unwrap_or(default) {
            "silu" | "swish" => Ok(Activation::Silu),
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            "tanh" => Ok(Activation::Tanh { cap: 1.0 }),
            other => Err(unsupported(
                key,
                other,
                "silu, swish, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu, tanh",
            )),
        }
    }

    /// A number that may be switched off.
    fn number_or_none(&self, key: &str, default: Option<f64>) -> Result<Option<f64>, Problem> {
        if !self.0.contains_key(key) {
            return Ok(default);
        }
        self.get(key).map(|_| self.number(key, 0.0)).transpose()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(config: &str) -> String {
        let problem = Model::from_config(config).expect_err(config);
        format!("{}; {}", problem.message, problem.help.unwrap_or_default())
    }

    #[test]
    fn an_unknown_family_is_refused_with_the_list_and_the_nearest() {
        let check = |name: &str, nearest: &str| {
            let said = complaint(&format!(r#"{{"model_type": "{name}"}}"#));
            assert!(
                said.starts_with(&format!("`{name}` is not a model family known here; known families are: "))
            );
            assert!(
                said.contains("bert, distilbert, gemma, ") && said.contains(", qwen3, roberta"),
                "{said}"
            );
            assert!(said.ends_with(nearest), "{said}");
        };
        check("lama", "; the nearest is `llama`");
        check("qwen4", "; the nearest is `qwen2`");
        check("gemma3", "; the nearest is `gemma3_text`");
        check("mamba", "roberta");
        assert!(complaint("{}").starts_with("the model's config.json has no `model_type`"));
    }

    /// The complaint about a small model of a family with one thing that is not computed here.
    fn check(family: &str, entry: &str, expected: &str) {
        let sizes = r#""hidden_size": 8, "intermediate_size": 8, "ffn_dim": 8, "num_hidden_layers": 2, "num_layers": 2,
            "num_attention_heads": 2, "num_heads": 2, "vocab_size": 9, "max_position_embeddings": 16"#;
        let said = complaint(&format!(r#"{{"model_type": "{family}", {sizes}, {entry}}}"#));
        assert!(said.contains(expected), "{said}");
    }

    #[test]
    fn what_a_family_does_not_compute_is_refused_by_its_key() {
        check("llama", r#""hidden_act": "gelu""#, "`hidden_act` in the model's config.json is gelu");
        check(
            "llama",
            r#""rope_scaling": {"rope_type": "proportional"}"#,
            "default, linear, dynamic, llama3, yarn",
        );
        check("llama", r#""rope_scaling": {"rope_type": "yarn", "factor": 0}"#, "`rope_scaling.factor`");
        check("llama", r#""rope_scaling": {"rope_type": "dynamic"}"#, "`rope_scaling.factor`");
        check("llama", r#""architectures": ["LlamaForQuestionAnswering"]"#, "`architectures`");
        check("phi3", r#""rope_scaling": {"type": "longrope"}"#, "not a list of 2 numbers above 0");
        check("phi3", r#""rope_scaling": {"type": "longrope", "short_factor": [1, 0]}"#, "2 numbers above 0");
        check(
            "phi3",
            r#""rope_scaling": {"type": "su", "short_factor": [1, 1]}"#,
            "`rope_scaling.long_factor`",
        );
        check("qwen2", r#""layer_types": ["full_attention"]"#, "for 2 blocks");
        check("gemma3_text", r#""use_bidirectional_attention": true"#, "`use_bidirectional_attention`");
        check("gpt_neo", r#""attention_types": [[["global", "local"], 12]]"#, "for 2 blocks");
        check("gpt_neox", r#""rotary_pct": 0.3"#, "an even part of a head");
        check("opt", r#""layer_norm_elementwise_affine": false"#, "`layer_norm_elementwise_affine`");
        check("bert", r#""position_embedding_type": "relative_key""#, "`position_embedding_type`");
        check("bert", r#""problem_type": "regression""#, "a regression of 2 numbers");
        check("bert", r#""problem_type": "multi_label_classification""#, "`problem_type`");
        check("roberta", r#""id2label": {}"#, "two classes or more");
        check("roberta", r#""id2label": {"1": "one", "2": "two"}"#, "`id2label`");
        check("roberta", r#""num_attention_heads": 3"#, "numbers that divide 8");
    }

    #[test]
    fn an_encoder_is_a_classifier_whatever_its_checkpoint_was_for() {
        let model = Model::from_config(
            r#"{"model_type": "roberta", "architectures": ["RobertaForMaskedLM"], "hidden_size": 8,
                "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9,
                "max_position_embeddings": 18, "id2label": {"0": "good", "1": "bad"}}"#,
        )
        .unwrap();
        assert_eq!(model.task(), Task::Sequence(Target::Classes(vec!["good".into(), "bad".into()])));
        assert_eq!(model.config["architectures"][0], "RobertaForSequenceClassification");
        assert_eq!(model.positions, 16, "two rows of the table are the padding's");
    }

    #[test]
    fn the_tail_is_one_layer_unless_it_is_split() {
        let names = |model: &Model, split| -> Vec<String> {
            model.tail(split).into_iter().map(|layer| layer.name).collect()
        };
        let bert = Model::from_config(
            r#"{"model_type": "bert", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
                "num_attention_heads": 2, "vocab_size": 9}"#,
        )
        .unwrap();
        assert_eq!(names(&bert, true), ["embedding", "block.0", "pooler", "head"]);
        assert_eq!(names(&bert, false), ["embedding", "block.0", "head"]);
        let gpt2 =
            Model::from_config(r#"{"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2}"#).unwrap();
        assert_eq!(names(&gpt2, true), ["embedding", "block.0", "norm"]);
        assert_eq!(names(&gpt2, false), ["embedding", "block.0"]);
        let elements = |model: &Model, split| -> u64 {
            model
                .tail(split)
                .iter()
                .flat_map(|layer| &layer.params)
                .map(|id| model.param(*id).elements())
                .sum()
        };
        for model in [bert, gpt2] {
            assert_eq!([true, false].map(|split| elements(&model, split)), [model.n_elements(); 2]);
        }
    }
}
