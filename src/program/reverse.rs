//! From a forward pass to forward and reverse, for a given set of active parameters: one rule per operation.
//!
//! A value *wants* a gradient if it depends on an active parameter. Only such values get one, so nothing is
//! computed below the lowest active layer and no gradient of a frozen weight is ever formed.

use crate::units::Dtype;

use super::builder::Node;
use super::{Graph, Instr, Op, ParamId, Phase, Role, Value, ValueId};

/// Forward and reverse in one list, before lifetimes are known.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub values: Vec<Value>,
    pub instrs: Vec<Instr>,
    /// The loss.
    pub result: ValueId,
    /// The complete gradient of each active parameter that has one.
    pub gradients: Vec<(ParamId, ValueId)>,
}

impl Draft {
    pub(super) fn add_value(&mut self, name: String, shape: Vec<usize>, dtype: Dtype, role: Role) -> ValueId {
        self.values.push(Value { name, shape, dtype, role });
        ValueId(self.values.len() - 1)
    }

    /// Only the forward pass.
    pub fn forward(graph: &Graph) -> Self {
        let result = graph.result.expect("a finished graph has a result");
        let instrs = graph
            .nodes
            .iter()
            .map(|node| Instr {
                block: node.block,
                ..Instr::draft(node.op.clone(), node.inputs.clone(), node.outputs.clone(), Phase::Forward)
            })
            .collect();
        Self { values: graph.values.clone(), instrs, result, gradients: Vec::new() }
    }
}

/// Forward and reverse. With `carried`, the gradients of an earlier micro-batch come in and are added to.
pub fn reverse(graph: &Graph, active: &[bool], carried: bool) -> Draft {
    let mut pass = Pass {
        wants: wants(graph, active),
        gradient: vec![None; graph.values.len()],
        draft: Draft::forward(graph),
    };
    if carried {
        for id in (0..graph.values.len()).map(ValueId) {
            if let Role::Weight(param) = graph.value(id).role
                && active[param.0]
            {
                pass.gradient[id.0] = Some(pass.fresh(id));
            }
        }
    }
    // The loss is replaced by the operation that gives its gradient in the same pass.
    let loss = pass.draft.instrs.pop().expect("a graph ends with its loss");
    assert_eq!(loss.outputs, [pass.draft.result], "the loss is the last operation");
    pass.loss(&loss);
    for node in graph.nodes.iter().rev().skip(1) {
        pass.node(node);
    }
    pass.draft.gradients = (0..graph.values.len())
        .filter_map(|i| match graph.values[i].role {
            Role::Weight(param) if active[param.0] => pass.gradient[i].map(|gradient| (param, gradient)),
            _ => None,
        })
        .collect();
    pass.draft
}

/// Which values depend on an active parameter.
fn wants(graph: &Graph, active: &[bool]) -> Vec<bool> {
    let mut wants: Vec<bool> = graph
        .values
        .iter()
        .map(|value| match value.role {
            Role::Weight(param) => active[param.0],
            Role::Master(_)
            | Role::State(..)
            | Role::Cache(_)
            | Role::Fetched(_)
            | Role::Input(_)
            | Role::Activation
            | Role::Flow
            | Role::Gradient(_)
            | Role::Scalar => false,
        })
        .collect();
    for node in &graph.nodes {
        if node.inputs.iter().any(|id| wants[id.0]) {
            for id in &node.outputs {
                wants[id.0] = true;
            }
        }
    }
    wants
}

struct Pass {
    wants: Vec<bool>,
    /// The gradient so far of each value of the graph.
    gradient: Vec<Option<ValueId>>,
    draft: Draft,
}

impl Pass {
    fn wants(&self, id: ValueId) -> bool {
        self.wants[id.0]
    }

    /// A new value to hold a gradient of `target`.
    fn fresh(&mut self, target: ValueId) -> ValueId {
        let Value { name, shape, dtype, role } = self.draft.values[target.0].clone();
        let (role, dtype) = match role {
            // Half numbers would lose what many rows and micro-batches add up to.
            Role::Weight(param) => (Role::Gradient(param), Dtype::F32),
            Role::Master(_)
            | Role::State(..)
            | Role::Cache(_)
            | Role::Fetched(_)
            | Role::Input(_)
            | Role::Activation
            | Role::Flow
            | Role::Gradient(_)
            | Role::Scalar => (Role::Flow, dtype),
        };
        self.draft.add_value(format!("grad({name})"), shape, dtype, role)
    }

    fn push(&mut self, op: Op, inputs: Vec<ValueId>, outputs: Vec<ValueId>) {
        self.draft.instrs.push(Instr::draft(op, inputs, outputs, Phase::Reverse));
    }

    /// Adds to the gradient of `target` by an operation that can add to a sum.
    fn give(&mut self, target: ValueId, op: impl FnOnce(bool) -> Op, mut inputs: Vec<ValueId>) {
        if !self.wants(target) {
            return;
        }
        let sum = self.gradient[target.0];
        inputs.extend(sum);
        let output = self.fresh(target);
        self.push(op(sum.is_some()), inputs, vec![output]);
        self.gradient[target.0] = Some(output);
    }

    /// Adds a gradient that exists to the gradient of `target`; the first is taken as it is, without a copy.
    fn pass(&mut self, target: ValueId, gradient: ValueId) {
        if !self.wants(target) {
            return;
        }
        self.gradient[target.0] = Some(match self.gradient[target.0] {
            None => gradient,
            Some(sum) => {
                let output = self.fresh(target);
                self.push(Op::Add, vec![sum, gradient], vec![output]);
                output
            }
        });
    }

    /// The last operation, whose gradient is one.
    fn loss(&mut self, loss: &Instr) {
        let (chunk, softcap) = match loss.op {
            Op::LinearCrossEntropy { chunk, softcap } => (chunk, softcap),
            Op::CrossEntropy => return self.loss_alone(loss, Op::CrossEntropyGrad),
            Op::SquaredError => return self.loss_alone(loss, Op::SquaredErrorGrad),
            Op::SpanCrossEntropy { seq } => return self.loss_alone(loss, Op::SpanCrossEntropyGrad { seq }),
            _ => panic!("{} is not a loss", loss.op.name()),
        };
        let [x, weight, labels] = loss.inputs[..] else { panic!("a loss has x, w and labels") };
        let mut inputs = vec![x, weight, labels];
        let mut outputs = vec![self.draft.result];
        let sum = self.gradient[weight.0];
        if self.wants(x) {
            let dx = self.fresh(x);
            self.gradient[x.0] = Some(dx);
            outputs.push(dx);
        }
        if self.wants(weight) {
            let dw = self.fresh(weight);
            self.gradient[weight.0] = Some(dw);
            outputs.push(dw);
            inputs.extend(sum);
        }
        let op = Op::LinearCrossEntropyGrad {
            chunk,
            softcap,
            input: self.wants(x),
            weight: self.wants(weight),
            accumulate: self.wants(weight) && sum.is_some(),
        };
        self.push(op, inputs, outputs);
    }

    /// A loss of values that are there anyway; `grad` gives their gradient in the same pass.
    fn loss_alone(&mut self, loss: &Instr, grad: Op) {
        let x = loss.inputs[0];
        if self.wants(x) {
            let gradient = self.fresh(x);
            self.gradient[x.0] = Some(gradient);
            self.push(grad, loss.inputs.clone(), vec![self.draft.result, gradient]);
        } else {
            self.push(loss.op.clone(), loss.inputs.clone(), vec![self.draft.result]);
        }
    }

    fn node(&mut self, node: &Node) {
        let inputs = &node.inputs;
        // The first output is the one that carries a gradient; the others are notes for the reverse pass.
        let Some(dy) = self.gradient[node.outputs[0].0] else { return };
        match &node.op {
            Op::Embed { offset } => {
                let (n, offset) = (self.draft.values[inputs[0].0].shape[0], *offset);
                let op = |accumulate| Op::EmbedGrad { n, offset, accumulate };
                self.give(inputs[0], op, vec![dy, inputs[1]]);
            }
            Op::Linear { bias, transposed } => {
                let (x, weight, transposed) = (inputs[0], inputs[1], *transposed);
                let op = |accumulate| Op::LinearGradWeight { transposed, accumulate };
                self.give(weight, op, vec![dy, x]);
                if *bias {
                    self.give(inputs[2], |accumulate| Op::LinearGradBias { accumulate }, vec![dy]);
                }
                let op = |accumulate| Op::LinearGradInput { transposed, accumulate };
                self.give(x, op, vec![dy, weight]);
            }
            Op::RmsNorm { eps, offset } => {
                let (x, weight, eps, offset) = (inputs[0], inputs[1], *eps, *offset);
                let width = self.draft.values[weight.0].shape[0];
                let op = |accumulate| Op::RmsNormGradWeight { eps, width, accumulate };
                self.give(weight, op, vec![dy, x]);
                let op = |accumulate| Op::RmsNormGradInput { eps, offset, accumulate };
                self.give(x, op, vec![dy, x, weight]);
            }
            Op::LayerNorm { eps } => {
                let (x, weight, bias, eps) = (inputs[0], inputs[1], inputs[2], *eps);
                self.give(weight, |accumulate| Op::LayerNormGradWeight { eps, accumulate }, vec![dy, x]);
                self.give(bias, |accumulate| Op::LinearGradBias { accumulate }, vec![dy]);
                self.give(x, |accumulate| Op::LayerNormGradInput { eps, accumulate }, vec![dy, x, weight]);
            }
            Op::Rope { heads, head_dim, inverse } => {
                if self.wants(inputs[0]) {
                    let dx = self.fresh(inputs[0]);
                    let op = Op::Rope { heads: *heads, head_dim: *head_dim, inverse: !inverse };
                    self.push(op, vec![dy, inputs[1]], vec![dx]);
                    self.pass(inputs[0], dx);
                }
            }
            Op::Attention(spec) => {
                let mut all = vec![dy];
                all.extend(&inputs[..3]);
                all.extend(&node.outputs);
                all.extend(&inputs[3..]);
                let outputs: Vec<ValueId> = inputs[..3].iter().map(|id| self.fresh(*id)).collect();
                self.push(Op::AttentionGrad(*spec), all, outputs.clone());
                for (target, gradient) in inputs[..3].iter().zip(outputs) {
                    self.pass(*target, gradient);
                }
            }
            Op::Columns { start, width, period } => {
                let (start, width, period) = (*start, *width, *period);
                let op = |accumulate| Op::ColumnsGrad { start, width, period, accumulate };
                self.give(inputs[0], op, vec![dy]);
            }
            Op::Activate(activation) => {
                if self.wants(inputs[0]) {
                    let dx = self.fresh(inputs[0]);
                    self.push(Op::ActivateGrad(*activation), vec![dy, inputs[0]], vec![dx]);
                    self.pass(inputs[0], dx);
                }
            }
            Op::Gated(activation) => {
                let outputs: Vec<ValueId> = inputs.iter().map(|id| self.fresh(*id)).collect();
                self.push(Op::GatedGrad(*activation), vec![dy, inputs[0], inputs[1]], outputs.clone());
                for (target, gradient) in inputs.iter().zip(outputs) {
                    self.pass(*target, gradient);
                }
            }
            Op::Scale { factor } => {
                if self.wants(inputs[0]) {
                    let dx = self.fresh(inputs[0]);
                    self.push(Op::Scale { factor: *factor }, vec![dy], vec![dx]);
                    self.pass(inputs[0], dx);
                }
            }
            Op::Add => {
                self.pass(inputs[0], dy);
                self.pass(inputs[1], dy);
            }
            Op::Copy => self.pass(inputs[0], dy),
            Op::Cast { .. } => {
                if self.wants(inputs[0]) {
                    let dx = self.fresh(inputs[0]);
                    let to = self.draft.values[dx.0].dtype;
                    self.push(Op::Cast { to }, vec![dy], vec![dx]);
                    self.pass(inputs[0], dx);
                }
            }
            // Positions have no gradient.
            Op::RopeTable { .. } => {}
            op @ (Op::EmbedGrad { .. }
            | Op::LinearGradInput { .. }
            | Op::LinearGradWeight { .. }
            | Op::LinearGradBias { .. }
            | Op::RmsNormGradInput { .. }
            | Op::RmsNormGradWeight { .. }
            | Op::LayerNormGradInput { .. }
            | Op::LayerNormGradWeight { .. }
            | Op::AttentionGrad(_)
            | Op::ColumnsGrad { .. }
            | Op::ActivateGrad(_)
            | Op::GatedGrad(_)
            | Op::GatedLinear { .. }
            | Op::GatedLinearGrad { .. }
            | Op::LinearCrossEntropy { .. }
            | Op::LinearCrossEntropyGrad { .. }
            | Op::NormedLossGrad { .. }
            | Op::CrossEntropy
            | Op::CrossEntropyGrad
            | Op::SquaredError
            | Op::SquaredErrorGrad
            | Op::SpanCrossEntropy { .. }
            | Op::SpanCrossEntropyGrad { .. }
            | Op::Fetch
            | Op::Evict
            | Op::CacheWrite
            | Op::CachedAttention(_)
            | Op::SumSquares { .. }
            | Op::GradFactor { .. }
            | Op::Update { .. }) => panic!("{} does not stand inside a forward pass", op.name()),
        }
    }
}
