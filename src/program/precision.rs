//! The forward pass in half numbers: weights and what is computed from them take 16 bits each.
//!
//! A family writes its pass in 32 bits; this pass gives the values their types by the rule of each operation, and puts a
//! cast where a type changes for any other reason: before a loss that reads its numbers from memory, and behind logits
//! that a caller reads. Keys and values that
//! outlive the pass are kept in 32 bits. Inside an operation, products and sums are formed in 32 bits whatever its operands are.

use crate::units::Dtype;

use super::builder::Node;
use super::{Graph, Op, Role, Value, ValueId};

/// `graph` with weights of `dtype`.
pub fn lower(graph: Graph, dtype: Dtype) -> Graph {
    if dtype == Dtype::F32 {
        return graph;
    }
    let Graph { mut values, nodes, result, also } = graph;
    for value in values.iter_mut().filter(|value| matches!(value.role, Role::Weight(_))) {
        value.dtype = dtype;
    }
    let mut lowered: Graph = Graph { values, nodes: Vec::with_capacity(nodes.len() + 2), result, also };
    for mut node in nodes {
        if node.op.reads_wide() && lowered.value(node.inputs[0]).dtype != Dtype::F32 {
            node.inputs[0] = cast(&mut lowered, node.inputs[0], node.block);
        }
        let inputs: Vec<Dtype> = node.inputs.iter().map(|id| lowered.value(*id).dtype).collect();
        for (id, dtype) in node.outputs.iter().zip(node.op.dtypes(&inputs)) {
            lowered.values[id.0].dtype = dtype;
        }
        lowered.nodes.push(node);
    }
    let mut wide = |read: ValueId| match lowered.value(read).dtype {
        Dtype::F32 => read,
        Dtype::Bf16 | Dtype::F16 | Dtype::U32 => cast(&mut lowered, read, None),
    };
    let (result, also) = (result.map(&mut wide), also.map(&mut wide));
    (lowered.result, lowered.also) = (result, also);
    lowered
}

/// The value in 32 bits.
fn cast(graph: &mut Graph, from: ValueId, block: Option<usize>) -> ValueId {
    let Value { name, shape, role, .. } = graph.value(from).clone();
    let to = graph.add_value(format!("{name}.wide"), shape, Dtype::F32, role);
    graph.nodes.push(Node { op: Op::Cast { to: Dtype::F32 }, inputs: vec![from], outputs: vec![to], block });
    to
}
