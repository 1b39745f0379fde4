//! The forward pass, written down: a model family calls [`Builder`] once per operation.

use std::sync::Arc;

use crate::units::Dtype;

use super::{Activation, AttentionSpec, CachedSpec, Input, Op, ParamId, Role, Value, ValueId};

/// One operation of the forward pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub op: Op,
    pub inputs: Vec<ValueId>,
    pub outputs: Vec<ValueId>,
    /// The block that the operation belongs to, if it may be run again as a part of it.
    pub block: Option<usize>,
}

/// A forward pass.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graph {
    pub values: Vec<Value>,
    pub nodes: Vec<Node>,
    /// What the pass is for: the loss, or the logits when generating.
    pub result: Option<ValueId>,
    /// What is given beside it, in a pass that trains nothing.
    pub also: Option<ValueId>,
}

impl Graph {
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    pub fn add_value(
        &mut self,
        name: impl Into<String>,
        shape: Vec<usize>,
        dtype: Dtype,
        role: Role,
    ) -> ValueId {
        self.values.push(Value { name: name.into(), shape, dtype, role });
        ValueId(self.values.len() - 1)
    }
}

/// The shape of a batch: `rows = batch x seq` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchShape {
    pub batch: usize,
    pub seq: usize,
    /// Rows hold several documents that do not see each other.
    pub packed: bool,
    /// The longest document goes beyond the positions that a model was first trained for, which some models turn otherwise.
    pub far: bool,
}

impl BatchShape {
    pub fn rows(self) -> usize {
        self.batch * self.seq
    }
}

/// Keys and values that outlive a pass: so many sequences, of so many tokens each at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheShape {
    pub sequences: usize,
    pub capacity: usize,
}

/// The parameters of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linear {
    pub weight: ParamId,
    pub bias: Option<ParamId>,
    /// The weight is `[in, out]`, not `[out, in]`.
    pub transposed: bool,
}

impl Linear {
    /// As most checkpoints hold it: the weight is `[out, in]`.
    pub fn new(weight: ParamId, bias: Option<ParamId>) -> Self {
        Self { weight, bias, transposed: false }
    }
}

/// A root-mean-square norm: the normed numbers times `offset + weight`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsNorm {
    pub weight: ParamId,
    pub eps: f32,
    pub offset: f32,
}

/// A layer norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerNorm {
    pub weight: ParamId,
    pub bias: ParamId,
    pub eps: f32,
}

/// Who sees whom in self-attention, and how: see [`AttentionSpec`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub scale: f32,
    pub causal: bool,
    pub window: Option<usize>,
    pub softcap: Option<f32>,
}

impl Heads {
    /// Causal attention as in Vaswani et al. 2017: scores are divided by the root of `head_dim`.
    pub fn causal(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        let scale = 1.0 / (head_dim as f32).sqrt();
        Self { heads, kv_heads, head_dim, scale, causal: true, window: None, softcap: None }
    }
}

/// Builds a [`Graph`]. Values are named after the module that makes them, which is set with [`Builder::at`].
pub struct Builder<'a> {
    graph: Graph,
    /// Name and shape of each parameter.
    params: &'a [(String, Vec<usize>)],
    param_values: Vec<Option<ValueId>>,
    inputs: Vec<(Input, ValueId)>,
    shape: BatchShape,
    /// Keys and values are kept.
    cache: Option<CacheShape>,
    n_caches: usize,
    module: String,
    block: Option<usize>,
}

impl<'a> Builder<'a> {
    /// `params`: name and shape of each parameter, in the order of their [`ParamId`]s.
    pub fn new(params: &'a [(String, Vec<usize>)], shape: BatchShape) -> Self {
        Self {
            graph: Graph::default(),
            params,
            param_values: vec![None; params.len()],
            inputs: Vec::new(),
            shape,
            cache: None,
            n_caches: 0,
            module: String::new(),
            block: None,
        }
    }

    /// The same, for a pass that keeps its keys and values. Where sequences have one token, that one sees what was kept; where
    /// they have more, the cache has nothing of them yet.
    pub fn with_cache(mut self, cache: CacheShape) -> Self {
        self.cache = Some(cache);
        self
    }

    pub fn shape(&self) -> BatchShape {
        self.shape
    }

    /// What follows belongs to `module`, and to block `block` if it is a part of one.
    pub fn at(&mut self, module: impl Into<String>, block: Option<usize>) {
        (self.module, self.block) = (module.into(), block);
    }

    pub fn finish(mut self, result: ValueId) -> Graph {
        self.graph.result = Some(result);
        self.graph
    }

    pub fn input(&mut self, input: Input) -> ValueId {
        if let Some((_, id)) = self.inputs.iter().find(|(known, _)| *known == input) {
            return *id;
        }
        let rows = match input {
            Input::Ids | Input::Types | Input::Labels | Input::Positions | Input::Starts | Input::Places => {
                self.shape.rows()
            }
            Input::Queries | Input::Classes | Input::Targets | Input::Lengths => self.shape.batch,
            Input::Seen => self.shape.batch * self.cache.map_or(0, |cache| cache.capacity),
            Input::Spans => 3 * self.shape.batch,
        };
        let id = self.graph.add_value(input.name(), vec![rows], Dtype::U32, Role::Input(input));
        self.inputs.push((input, id));
        id
    }

    fn param(&mut self, param: ParamId) -> ValueId {
        if let Some(id) = self.param_values[param.0] {
            return id;
        }
        let (name, shape) = &self.params[param.0];
        let id = self.graph.add_value(name.clone(), shape.clone(), Dtype::F32, Role::Weight(param));
        self.param_values[param.0] = Some(id);
        id
    }

    fn push(&mut self, names: &[&str], op: Op, inputs: Vec<ValueId>) -> Vec<ValueId> {
        let shapes = {
            let inputs: Vec<&[usize]> =
                inputs.iter().map(|id| self.graph.value(*id).shape.as_slice()).collect();
            op.shapes(&inputs)
        };
        let role = match op {
            Op::LinearCrossEntropy { .. }
            | Op::CrossEntropy
            | Op::SquaredError
            | Op::SpanCrossEntropy { .. } => Role::Scalar,
            _ => Role::Activation,
        };
        let outputs: Vec<ValueId> = shapes
            .into_iter()
            .zip(names)
            .map(|(shape, name)| {
                let name = match self.module.as_str() {
                    "" => (*name).to_string(),
                    module => format!("{module}.{name}"),
                };
                self.graph.add_value(name, shape, Dtype::F32, role)
            })
            .collect();
        self.graph.nodes.push(Node { op, inputs, outputs: outputs.clone(), block: self.block });
        outputs
    }

    fn one(&mut self, name: &str, op: Op, inputs: Vec<ValueId>) -> ValueId {
        self.push(&[name], op, inputs)[0]
    }

    /// The rows `ids + offset` of `table`: `[rows, hidden]`.
    pub fn embed(&mut self, name: &str, table: ParamId, ids: ValueId, offset: usize) -> ValueId {
        let table = self.param(table);
        self.one(name, Op::Embed { offset }, vec![table, ids])
    }

    /// Those rows of `x` that `queries` names: `[batch, hidden]`.
    pub fn pick(&mut self, name: &str, x: ValueId, queries: ValueId) -> ValueId {
        self.one(name, Op::Embed { offset: 0 }, vec![x, queries])
    }

    /// `[rows, in]` to `[rows, out]`.
    pub fn linear(&mut self, name: &str, x: ValueId, linear: Linear) -> ValueId {
        let Linear { weight, bias, transposed } = linear;
        let mut inputs = vec![x, self.param(weight)];
        inputs.extend(bias.map(|bias| self.param(bias)));
        self.one(name, Op::Linear { bias: bias.is_some(), transposed }, inputs)
    }

    /// `[rows, n x width]` to the same, with a weight of `[width]`.
    pub fn rms_norm(&mut self, name: &str, x: ValueId, norm: RmsNorm) -> ValueId {
        let RmsNorm { weight, eps, offset } = norm;
        let weight = self.param(weight);
        self.one(name, Op::RmsNorm { eps, offset }, vec![x, weight])
    }

    /// `[rows, hidden]` to the same.
    pub fn layer_norm(&mut self, name: &str, x: ValueId, norm: LayerNorm) -> ValueId {
        let LayerNorm { weight, bias, eps } = norm;
        let (weight, bias) = (self.param(weight), self.param(bias));
        self.one(name, Op::LayerNorm { eps }, vec![x, weight, bias])
    }

    /// `[rows, 2 x inv_freq]`: cosines and sines for every token.
    pub fn rope_table(&mut self, name: &str, inv_freq: Arc<[f32]>) -> ValueId {
        let positions = self.input(Input::Positions);
        self.one(name, Op::RopeTable { inv_freq }, vec![positions])
    }

    /// `[rows, heads x head_dim]` to the same. The table may be narrower than a head: then a part of each head is turned.
    pub fn rope(&mut self, name: &str, x: ValueId, table: ValueId, heads: usize, head_dim: usize) -> ValueId {
        self.one(name, Op::Rope { heads, head_dim, inverse: false }, vec![x, table])
    }

    /// Self-attention: `q` `[rows, heads x head_dim]`, `k` and `v` `[rows, kv_heads x head_dim]`, to the shape of `q`.
    ///
    /// Padding needs no mask where it comes last and nothing looks ahead; where all see all, `starts` is the mask.
    pub fn attention(&mut self, name: &str, [q, k, v]: [ValueId; 3], heads: Heads) -> ValueId {
        let BatchShape { batch, seq, packed, .. } = self.shape;
        let Heads { heads, kv_heads, head_dim, scale, causal, window, softcap } = heads;
        if let Some(CacheShape { sequences, capacity }) = self.cache {
            let rows = sequences * capacity;
            let kept = [("keys", k), ("values", v)].map(|(kind, x)| {
                let width = self.graph.value(x).shape[1];
                let role = Role::Cache(self.n_caches);
                self.n_caches += 1;
                let cache = self.graph.add_value(
                    format!("{}.{kind}", self.module),
                    vec![rows, width],
                    Dtype::F32,
                    role,
                );
                let places = self.input(Input::Places);
                self.push(&[], Op::CacheWrite, vec![x, cache, places]);
                cache
            });
            if seq == 1 {
                let spec = CachedSpec { batch, capacity, heads, kv_heads, head_dim, scale, window, softcap };
                let (seen, lengths) = (self.input(Input::Seen), self.input(Input::Lengths));
                return self.one(name, Op::CachedAttention(spec), vec![q, kept[0], kept[1], seen, lengths]);
            }
        }
        let packed = packed || !causal;
        let window = window.filter(|window| *window < seq);
        let spec =
            AttentionSpec { batch, seq, heads, kv_heads, head_dim, scale, causal, packed, window, softcap };
        let mut inputs = vec![q, k, v];
        if packed {
            inputs.push(self.input(Input::Starts));
        }
        self.push(&[name, "lse"], Op::Attention(spec), inputs)[0]
    }

    /// Of each `period` numbers of a row the `width` from `start` on.
    pub fn columns(&mut self, name: &str, x: ValueId, start: usize, width: usize, period: usize) -> ValueId {
        self.one(name, Op::Columns { start, width, period }, vec![x])
    }

    /// The function of every number.
    pub fn activate(&mut self, name: &str, activation: Activation, x: ValueId) -> ValueId {
        self.one(name, Op::Activate(activation), vec![x])
    }

    /// The function of the gate, times `up`.
    pub fn gated(&mut self, name: &str, activation: Activation, gate: ValueId, up: ValueId) -> ValueId {
        self.one(name, Op::Gated(activation), vec![gate, up])
    }

    pub fn scale(&mut self, name: &str, x: ValueId, factor: f32) -> ValueId {
        self.one(name, Op::Scale { factor }, vec![x])
    }

    pub fn add(&mut self, name: &str, a: ValueId, b: ValueId) -> ValueId {
        self.one(name, Op::Add, vec![a, b])
    }

    /// `[2]`: the sum of the cross entropies and the number of first choices that are right.
    pub fn linear_cross_entropy(
        &mut self,
        name: &str,
        x: ValueId,
        head: ParamId,
        chunk: usize,
        softcap: Option<f32>,
    ) -> ValueId {
        let (head, labels) = (self.param(head), self.input(Input::Labels));
        self.one(name, Op::LinearCrossEntropy { chunk, softcap }, vec![x, head, labels])
    }

    /// The same, of logits `[batch, classes]`.
    pub fn cross_entropy(&mut self, name: &str, logits: ValueId) -> ValueId {
        let labels = self.input(Input::Classes);
        self.one(name, Op::CrossEntropy, vec![logits, labels])
    }

    /// The same, of logits for every token, `[rows, classes]`.
    pub fn token_cross_entropy(&mut self, name: &str, logits: ValueId) -> ValueId {
        let labels = self.input(Input::Labels);
        self.one(name, Op::CrossEntropy, vec![logits, labels])
    }

    /// `[2]`: the sum over sequences of the mean of both ends' cross entropies, of logits `[rows, 2]`, and in how many both
    /// are the first choice.
    pub fn span_cross_entropy(&mut self, name: &str, logits: ValueId) -> ValueId {
        let (spans, seq) = (self.input(Input::Spans), self.shape.seq);
        self.one(name, Op::SpanCrossEntropy { seq }, vec![logits, spans])
    }

    /// `[2]`: the sum of the squared errors of `x`, `[batch, 1]`, and 0.
    pub fn squared_error(&mut self, name: &str, x: ValueId) -> ValueId {
        let targets = self.input(Input::Targets);
        self.one(name, Op::SquaredError, vec![x, targets])
    }
}
