//! The forward pass, written down: a model family calls [`Builder`] once per operation.

use std::sync::Arc;

use crate::units::Dtype;

use super::{AttentionSpec, Input, Op, ParamId, Role, Value, ValueId};

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
}

impl BatchShape {
    pub fn rows(self) -> usize {
        self.batch * self.seq
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
            module: String::new(),
            block: None,
        }
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
            Input::Ids | Input::Labels | Input::Positions | Input::Starts => self.shape.rows(),
            Input::Queries => self.shape.batch,
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
            Op::LinearCrossEntropy { .. } => Role::Scalar,
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

    /// Rows of `table`: `[rows, hidden]`.
    pub fn embed(&mut self, name: &str, table: ParamId, ids: ValueId) -> ValueId {
        let table = self.param(table);
        self.one(name, Op::Embed, vec![table, ids])
    }

    /// Those rows of `x` that `queries` names: `[batch, hidden]`.
    pub fn pick(&mut self, name: &str, x: ValueId, queries: ValueId) -> ValueId {
        self.one(name, Op::Embed, vec![x, queries])
    }

    /// `[rows, in]` to `[rows, out]`.
    pub fn linear(&mut self, name: &str, x: ValueId, weight: ParamId, bias: Option<ParamId>) -> ValueId {
        let mut inputs = vec![x, self.param(weight)];
        inputs.extend(bias.map(|bias| self.param(bias)));
        self.one(name, Op::Linear { bias: bias.is_some() }, inputs)
    }

    /// `[rows, hidden]` to the same.
    pub fn rms_norm(&mut self, name: &str, x: ValueId, weight: ParamId, eps: f32) -> ValueId {
        let weight = self.param(weight);
        self.one(name, Op::RmsNorm { eps }, vec![x, weight])
    }

    /// `[rows, head_dim]`: cosines and sines for every token.
    pub fn rope_table(&mut self, name: &str, inv_freq: Arc<[f32]>) -> ValueId {
        let positions = self.input(Input::Positions);
        self.one(name, Op::RopeTable { inv_freq }, vec![positions])
    }

    /// `[rows, heads x head_dim]` to the same.
    pub fn rope(&mut self, name: &str, x: ValueId, table: ValueId, heads: usize, head_dim: usize) -> ValueId {
        self.one(name, Op::Rope { heads, head_dim, inverse: false }, vec![x, table])
    }

    /// Causal self-attention: `q` `[rows, heads x head_dim]`, `k` and `v` `[rows, kv_heads x head_dim]`, to the shape of `q`.
    pub fn attention(
        &mut self,
        name: &str,
        [q, k, v]: [ValueId; 3],
        heads: usize,
        kv_heads: usize,
        head_dim: usize,
    ) -> ValueId {
        let BatchShape { batch, seq, packed } = self.shape;
        let spec = AttentionSpec {
            batch,
            seq,
            heads,
            kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            causal: true,
            packed,
        };
        let mut inputs = vec![q, k, v];
        if packed {
            inputs.push(self.input(Input::Starts));
        }
        self.push(&[name, "lse"], Op::Attention(spec), inputs)[0]
    }

    pub fn swiglu(&mut self, name: &str, gate: ValueId, up: ValueId) -> ValueId {
        self.one(name, Op::SwiGlu, vec![gate, up])
    }

    pub fn add(&mut self, name: &str, a: ValueId, b: ValueId) -> ValueId {
        self.one(name, Op::Add, vec![a, b])
    }

    /// `[2]`: the sum of the cross entropies and the number of first choices that are right.
    pub fn linear_cross_entropy(&mut self, name: &str, x: ValueId, head: ParamId, chunk: usize) -> ValueId {
        let (head, labels) = (self.param(head), self.input(Input::Labels));
        self.one(name, Op::LinearCrossEntropy { chunk }, vec![x, head, labels])
    }
}
