//! A training step as data: a straight list of instructions, `out = op(inputs)`, with the values that die after each.
//!
//! ```text
//! model ──Builder──▶ Graph ──precision──▶ Graph ──reverse──▶ Draft ──recompute, update, liveness──▶ Program ──▶
//! estimate, engine
//! ```
//!
//! Reading order: [`op`] (what an operation is: shapes, storage, cost, what may be written in place), [`builder`]
//! (the forward pass), [`precision`] (the pass in half numbers), [`reverse`] (a rule per operation), [`recompute`] (what is run again instead of kept), [`residency`] (what comes to the device only while it is needed),
//! [`chunks`] (what a GPU does a part of the rows at a time), [`compile`] (the order of the passes, where weights are updated), [`liveness`] (what dies when), [`mod@print`].
//!
//! That HiFT saves memory is coded nowhere here. A gradient is formed only where an active parameter asks for
//! it, and a value lives until its last use: that a frozen layer keeps no input, and that nothing is kept
//! below the lowest active layer, falls out.
//!
//! This room must not know any model, and no device beyond what scratch its operations need there ([`workspace`]).

pub mod builder;
pub mod chunks;
pub mod compile;
pub mod liveness;
pub mod op;
pub mod precision;
pub mod print;
pub mod recompute;
pub mod residency;
pub mod reverse;
pub mod workspace;

#[cfg(test)]
mod tests;

use crate::units::{Bytes, Dtype};

pub use builder::{BatchShape, Builder, CacheShape, Graph, Heads, LayerNorm, Linear, RmsNorm};
pub use compile::{Parts, Settings, StepPrograms, forward_only, step_programs};
pub use op::{Activation, AttentionSpec, CachedSpec, Op};
pub use workspace::Backend;

/// A parameter of the model, by its place in the model's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(pub usize);

/// A value of a program, by its place in the program's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// What a batch brings. All are `u32`, with one entry per token, `[rows]`, or per sequence, `[batch]`, or three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    /// Token ids.
    Ids,
    /// Which part of a pair each token belongs to; 0 is the first, or all.
    Types,
    /// The id that each position has to predict; `u32::MAX` does not count.
    Labels,
    /// Where each token stands in its document.
    Positions,
    /// Packed rows: where in its row each token's document begins.
    Starts,
    /// Rows whose next token or class is asked for, one a sequence.
    Queries,
    /// The class that each sequence has.
    Classes,
    /// The number that each sequence has, as the bits of a 32-bit float.
    Targets,
    /// The first and the last token of each sequence's answer and the sequence's length, one after the other: `[3 x batch]`.
    Spans,
    /// The row of the cache that each token's keys and values go to.
    Places,
    /// The rows of the cache that hold the tokens of each sequence, in their order: `[batch x capacity]`.
    Seen,
    /// How many tokens each sequence has, the new one among them.
    Lengths,
}

impl Input {
    pub fn name(self) -> &'static str {
        match self {
            Input::Ids => "ids",
            Input::Types => "types",
            Input::Labels => "labels",
            Input::Positions => "positions",
            Input::Starts => "starts",
            Input::Queries => "queries",
            Input::Classes => "classes",
            Input::Targets => "targets",
            Input::Spans => "spans",
            Input::Places => "places",
            Input::Seen => "seen",
            Input::Lengths => "lengths",
        }
    }
}

/// Something resident that rests in the host's memory or on disk while no instruction needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Home {
    Weight(ParamId),
    Master(ParamId),
    State(ParamId, usize),
}

/// What a value is for, which decides who owns it and where the report counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Resident: the caller owns it.
    Weight(ParamId),
    /// The weight in 32 bits, where what is computed with is half of that. Resident: the caller owns it.
    Master(ParamId),
    /// Optimizer state, the n-th of its parameter. Resident: the caller owns it.
    State(ParamId, usize),
    /// The n-th tensor of keys or values that outlive the pass. Resident: the caller owns it.
    Cache(usize),
    /// The device's copy of something resident that rests elsewhere; the program owns it.
    Fetched(Home),
    /// Brought by the batch; the program owns it and lets it go after its last use.
    Input(Input),
    /// Computed from the inputs.
    Activation,
    /// The gradient of an activation.
    Flow,
    /// The gradient of a parameter.
    Gradient(ParamId),
    /// A number that the caller reads: loss, norm.
    Scalar,
}

impl Role {
    /// Whether the value outlives the program and belongs to the caller.
    pub fn is_resident(self) -> bool {
        match self {
            Role::Weight(_) | Role::Master(_) | Role::State(..) | Role::Cache(_) => true,
            Role::Fetched(_)
            | Role::Input(_)
            | Role::Activation
            | Role::Flow
            | Role::Gradient(_)
            | Role::Scalar => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    pub name: String,
    pub shape: Vec<usize>,
    pub dtype: Dtype,
    pub role: Role,
}

impl Value {
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn bytes(&self) -> Bytes {
        Bytes(self.elements() as u64 * self.dtype.size())
    }
}

/// What an optimizer keeps for a parameter, one of perhaps several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub name: &'static str,
    pub shape: Vec<usize>,
    /// 32-bit floats, or words of four 8-bit codes.
    pub dtype: Dtype,
}

impl State {
    pub fn bytes(&self) -> Bytes {
        Bytes(self.shape.iter().product::<usize>() as u64 * self.dtype.size())
    }
}

/// `outputs = op(inputs)`, and what is gone afterwards.
#[derive(Debug, Clone, PartialEq)]
pub struct Instr {
    pub op: Op,
    pub inputs: Vec<ValueId>,
    pub outputs: Vec<ValueId>,
    /// For each output, the input (by position) whose storage it takes over; that input dies here.
    pub reuses: Vec<Option<usize>>,
    /// Values whose storage is given back after this instruction.
    pub dies: Vec<ValueId>,
    pub phase: Phase,
    /// The block that a forward operation belongs to.
    pub block: Option<usize>,
}

impl Instr {
    /// An instruction whose lifetimes are not worked out yet.
    fn draft(op: Op, inputs: Vec<ValueId>, outputs: Vec<ValueId>, phase: Phase) -> Self {
        Self { op, inputs, outputs, reuses: Vec::new(), dies: Vec::new(), phase, block: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Forward,
    /// A part of the forward pass, run again.
    Recompute,
    Reverse,
    Update,
}

/// A program, ready to be estimated and played.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    pub values: Vec<Value>,
    /// Owned values that are there at the start: the batch, and gradients carried over from a micro-batch before.
    pub inputs: Vec<ValueId>,
    pub instrs: Vec<Instr>,
    /// Owned values that are there at the end.
    pub outputs: Vec<ValueId>,
    /// Copies that are on their way home at the end, in the order in which they set out. Whoever plays the next program lets
    /// go of them.
    pub leaving: Vec<ValueId>,
    /// Bytes of scratch that each instruction needs while it runs depend on this.
    pub backend: Backend,
}

impl Program {
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    /// Scratch that `instr` holds while it runs and gives back before the next.
    pub fn workspace(&self, instr: &Instr) -> Bytes {
        let shapes: Vec<&[usize]> = instr.inputs.iter().map(|id| self.value(*id).shape.as_slice()).collect();
        instr.op.workspace(&shapes, self.dtype(instr), self.backend)
    }

    /// What `instr` computes on: the half numbers among its operands, if there are any. Others are then in 32 bits:
    /// gradients of weights, notes of a softmax, what a loss gives.
    pub fn dtype(&self, instr: &Instr) -> Dtype {
        let operands = instr.inputs.iter().chain(&instr.outputs);
        let half = operands.map(|id| self.value(*id).dtype).find(|dtype| dtype.size() < 4);
        half.unwrap_or(Dtype::F32)
    }

    /// Bytes that the program owns before its first instruction, and while each of them runs, scratch included.
    pub fn usage(&self) -> Vec<u64> {
        let bytes = |id: &ValueId| self.value(*id).bytes().0;
        let mut now: u64 = self.inputs.iter().map(bytes).sum();
        let mut usage = vec![now];
        for instr in &self.instrs {
            let fresh = instr.outputs.iter().zip(&instr.reuses).filter(|(_, reused)| reused.is_none());
            now += fresh.map(|(id, _)| bytes(id)).sum::<u64>();
            usage.push(now + self.workspace(instr).0);
            now -= instr.dies.iter().map(bytes).sum::<u64>();
        }
        usage
    }

    /// Floating-point operations of the whole program.
    pub fn flops(&self) -> u64 {
        self.instrs
            .iter()
            .map(|instr| {
                let shapes: Vec<&[usize]> =
                    instr.inputs.iter().map(|id| self.value(*id).shape.as_slice()).collect();
                instr.op.flops(&shapes)
            })
            .sum()
    }

    /// Parameters that the program reads or writes.
    pub fn params(&self) -> impl Iterator<Item = ParamId> + '_ {
        self.values.iter().filter_map(|value| match value.role {
            Role::Weight(param) => Some(param),
            Role::Master(_)
            | Role::State(..)
            | Role::Cache(_)
            | Role::Fetched(_)
            | Role::Input(_)
            | Role::Activation
            | Role::Flow
            | Role::Gradient(_)
            | Role::Scalar => None,
        })
    }
}
