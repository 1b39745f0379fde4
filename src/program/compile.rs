//! The order of the passes: reverse, recompute, where weights are updated, liveness, what a GPU does by chunks, what rests away.

use crate::units::Dtype;

use super::residency::{Away, bring};
use super::reverse::{Draft, reverse};
use super::{
    Backend, Graph, Instr, Op, ParamId, Phase, Program, Role, State, ValueId, chunks, liveness, recompute,
};

/// What a step is compiled for.
pub struct Settings<'a> {
    /// Which parameters are trained, by [`ParamId`].
    pub active: &'a [bool],
    /// What the optimizer keeps for a parameter.
    pub states: &'a dyn Fn(ParamId) -> Vec<State>,
    /// The largest norm of the active group's gradient.
    pub clip: Option<f32>,
    /// A weight is half of a 32-bit master.
    pub masters: bool,
    /// Gradients come scaled, and may have overflowed: no weight changes before all of them are seen.
    pub scaled: bool,
    /// Several forward passes per update.
    pub accumulate: bool,
    /// Of which blocks only what enters them is kept: they run again in reverse.
    pub recompute: &'a dyn Fn(usize) -> bool,
    pub backend: Backend,
    pub away: Away,
}

/// The programs of one optimizer step.
#[derive(Debug, Clone, PartialEq)]
pub enum StepPrograms {
    /// Forward, reverse and update.
    Whole(Program),
    /// With accumulation.
    Parts(Box<Parts>),
}

/// The programs of a step that accumulates.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// The first micro-batch, which makes the gradients.
    pub first: Program,
    /// Each further micro-batch, which adds to them.
    pub next: Program,
    pub update: Program,
}

impl StepPrograms {
    /// The programs with a word for each.
    pub fn each(&self) -> Vec<(&'static str, &Program)> {
        match self {
            StepPrograms::Whole(program) => vec![("step", program)],
            StepPrograms::Parts(parts) => vec![
                ("first micro-batch", &parts.first),
                ("further micro-batches", &parts.next),
                ("update", &parts.update),
            ],
        }
    }
}

/// The forward pass alone, for evaluating and generating.
pub fn forward_only(graph: &Graph, backend: impl Into<Backend>) -> Program {
    let draft = Draft::forward(graph);
    let outputs = [draft.result].into_iter().chain(graph.also).collect();
    liveness::finish(draft.values, draft.instrs, outputs, backend.into())
}

/// One step of training.
pub fn step_programs(graph: &Graph, settings: &Settings<'_>) -> StepPrograms {
    let finish = |values, instrs, outputs| {
        let program = chunks::gated(liveness::finish(values, instrs, outputs, settings.backend));
        chunks::loss(bring(program, settings.away))
    };
    let pass = |carried| {
        let mut draft = reverse(graph, settings.active, carried);
        recompute::cheap(&mut draft);
        recompute::blocks(&mut draft, settings.recompute);
        draft
    };
    let micro_batch = |draft: Draft| {
        let outputs =
            [draft.result].into_iter().chain(draft.gradients.iter().map(|(_, gradient)| *gradient)).collect();
        finish(draft.values, draft.instrs, outputs)
    };
    if !settings.accumulate {
        let mut draft = pass(false);
        let norm = update(&mut draft, settings);
        let outputs = vec![draft.result, norm];
        return StepPrograms::Whole(finish(draft.values, draft.instrs, outputs));
    }
    let first = pass(false);
    let mut last = Draft { instrs: Vec::new(), ..first.clone() };
    let norm = update(&mut last, settings);
    StepPrograms::Parts(Box::new(Parts {
        first: micro_batch(first),
        next: micro_batch(pass(true)),
        update: finish(last.values, last.instrs, vec![norm]),
    }))
}

/// Adds the norm of the gradient, clipping if asked for, and the updates. Gives the sum of the gradient's squares.
///
/// Without clipping a weight is updated as soon as its gradient is complete and nothing later reads the weight, so
/// its gradient does not wait for the others. Clipped or scaled gradients all wait for the norm.
fn update(draft: &mut Draft, settings: &Settings<'_>) -> ValueId {
    let end = draft.instrs.len();
    let mut after: Vec<(usize, Instr)> = Vec::new();
    // In the order in which the gradients are complete.
    let mut gradients: Vec<(usize, ParamId, ValueId)> = draft
        .gradients
        .iter()
        .map(|(param, gradient)| {
            let made = draft.instrs.iter().rposition(|instr| instr.outputs.contains(gradient));
            (made.unwrap_or(end), *param, *gradient)
        })
        .collect();
    gradients.sort();

    let scalar =
        |draft: &mut Draft, name: &str| draft.add_value(name.to_string(), vec![1], Dtype::F32, Role::Scalar);
    let mut norm: Option<ValueId> = None;
    for (made, _, gradient) in &gradients {
        let inputs = [Some(*gradient), norm].into_iter().flatten().collect();
        let sum = scalar(draft, "sum_squares");
        let op = Op::SumSquares { accumulate: norm.is_some() };
        after.push((*made, Instr::draft(op, inputs, vec![sum], Phase::Update)));
        norm = Some(sum);
    }
    let norm = norm.expect("a step trains at least one parameter");

    let factor = (settings.clip.is_some() || settings.scaled).then(|| {
        let factor = scalar(draft, "factor");
        let op = Op::GradFactor { max_norm: settings.clip };
        after.push((end, Instr::draft(op, vec![norm], vec![factor], Phase::Update)));
        factor
    });
    for (made, param, gradient) in gradients {
        let weight = draft.values.iter().position(|value| value.role == Role::Weight(param));
        let weight = ValueId(weight.expect("a gradient has its weight"));
        let name = draft.values[weight.0].name.clone();
        let mut inputs = vec![weight, gradient];
        if settings.masters {
            let shape = draft.values[weight.0].shape.clone();
            inputs.push(draft.add_value(format!("master({name})"), shape, Dtype::F32, Role::Master(param)));
        }
        let states = (settings.states)(param);
        for (slot, state) in states.iter().enumerate() {
            let name = format!("{}({name})", state.name);
            inputs.push(draft.add_value(name, state.shape.clone(), state.dtype, Role::State(param, slot)));
        }
        inputs.extend(factor);
        let last_read = draft.instrs.iter().rposition(|instr| instr.inputs.contains(&weight)).unwrap_or(0);
        let at = if factor.is_some() { end } else { made.max(last_read) };
        let op = Op::Update { master: settings.masters, states: states.len(), scaled: factor.is_some() };
        after.push((at, Instr::draft(op, inputs, Vec::new(), Phase::Update)));
    }

    // A stable sort keeps sum, factor and update of one place in this order.
    after.sort_by_key(|(at, _)| *at);
    let mut after = after.into_iter().peekable();
    let mut instrs = Vec::with_capacity(draft.instrs.len() + after.len());
    for (idx, instr) in std::mem::take(&mut draft.instrs).into_iter().enumerate() {
        instrs.push(instr);
        while let Some((_, instr)) = after.next_if(|(at, _)| *at == idx) {
            instrs.push(instr);
        }
    }
    instrs.extend(after.map(|(_, instr)| instr));
    draft.instrs = instrs;
    norm
}
