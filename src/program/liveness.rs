//! What dies when: computed from last uses, never written by hand.

use std::collections::HashSet;

use super::{Backend, Instr, Op, Phase, Program, Role, Value, ValueId};

/// Removes what nobody reads, and works out what each instruction takes over and gives back.
pub fn finish(
    mut values: Vec<Value>,
    instrs: Vec<Instr>,
    outputs: Vec<ValueId>,
    backend: Backend,
) -> Program {
    let instrs = remove_unread(instrs, &outputs);
    let mut instrs = protect_sums(&mut values, instrs, &outputs);
    let last_use = last_uses(values.len(), &instrs, &outputs);

    for (idx, instr) in instrs.iter_mut().enumerate() {
        let dies_here = |id: ValueId| !values[id.0].role.is_resident() && last_use[id.0] == Some(idx);
        instr.reuses = vec![None; instr.outputs.len()];
        if instr.op.accumulates() {
            *instr.reuses.last_mut().expect("a sum is an output") = Some(instr.inputs.len() - 1);
        } else {
            let fits = |(output, input): &(usize, usize)| {
                let (from, to) = (instr.inputs[*input], instr.outputs[*output]);
                let once = instr.inputs.iter().filter(|id| **id == from).count() == 1;
                let (from_value, to_value) = (&values[from.0], &values[to.0]);
                let alike =
                    from_value.dtype == to_value.dtype && from_value.elements() == to_value.elements();
                once && dies_here(from) && alike
            };
            if let Some(way) = instr.op.in_place().iter().find(|way| way.iter().all(fits)) {
                for (output, input) in *way {
                    instr.reuses[*output] = Some(*input);
                }
            }
        }
        let taken: Vec<ValueId> = instr.reuses.iter().flatten().map(|input| instr.inputs[*input]).collect();
        let mut dies: Vec<ValueId> = Vec::new();
        for id in instr.inputs.iter().filter(|id| dies_here(**id) && !taken.contains(id)) {
            if !dies.contains(id) {
                dies.push(*id);
            }
        }
        // An output that nobody reads dies at once.
        dies.extend(instr.outputs.iter().filter(|id| last_use[id.0].is_none() && !outputs.contains(id)));
        instr.dies = dies;
    }

    let made: HashSet<ValueId> = instrs.iter().flat_map(|instr| &instr.outputs).copied().collect();
    let mut inputs = Vec::new();
    for id in instrs.iter().flat_map(|instr| &instr.inputs).chain(&outputs) {
        if !values[id.0].role.is_resident() && !made.contains(id) && !inputs.contains(id) {
            inputs.push(*id);
        }
    }
    let (values, renumber) = compact(values, &instrs, &inputs, &outputs);
    let ids = |ids: &[ValueId]| ids.iter().map(|id| renumber[id.0].expect("a used value is kept")).collect();
    for instr in &mut instrs {
        instr.inputs = ids(&instr.inputs);
        instr.outputs = ids(&instr.outputs);
        instr.dies = ids(&instr.dies);
    }
    Program { values, inputs: ids(&inputs), instrs, outputs: ids(&outputs), leaving: Vec::new(), backend }
}

/// Keeps the instructions whose results are read in the end.
fn remove_unread(instrs: Vec<Instr>, outputs: &[ValueId]) -> Vec<Instr> {
    let mut read: HashSet<ValueId> = outputs.iter().copied().collect();
    let mut kept: Vec<Instr> = Vec::with_capacity(instrs.len());
    for instr in instrs.into_iter().rev() {
        let acts = matches!(instr.op, Op::Update { .. } | Op::CacheWrite | Op::Evict);
        if acts || instr.outputs.iter().any(|id| read.contains(id)) {
            read.extend(&instr.inputs);
            kept.push(instr);
        }
    }
    kept.reverse();
    kept
}

/// A sum that is read again after something was added to it gets a copy to add to.
fn protect_sums(values: &mut Vec<Value>, instrs: Vec<Instr>, outputs: &[ValueId]) -> Vec<Instr> {
    let last_use = last_uses(values.len(), &instrs, outputs);
    let mut protected = Vec::with_capacity(instrs.len());
    for (idx, mut instr) in instrs.into_iter().enumerate() {
        if instr.op.accumulates() {
            let sum = instr.inputs.len() - 1;
            let id = instr.inputs[sum];
            if last_use[id.0] != Some(idx) || instr.inputs[..sum].contains(&id) {
                let value = Value { role: Role::Flow, ..values[id.0].clone() };
                values.push(value);
                let copy = ValueId(values.len() - 1);
                protected.push(Instr::draft(Op::Copy, vec![id], vec![copy], Phase::Reverse));
                instr.inputs[sum] = copy;
            }
        }
        protected.push(instr);
    }
    protected
}

/// The last instruction that reads each value; None if none does, or if the value outlives the program.
fn last_uses(n_values: usize, instrs: &[Instr], outputs: &[ValueId]) -> Vec<Option<usize>> {
    let mut last = vec![None; n_values];
    for (idx, instr) in instrs.iter().enumerate() {
        for id in &instr.inputs {
            last[id.0] = Some(idx);
        }
    }
    for id in outputs {
        last[id.0] = None;
    }
    last
}

/// Drops values that no instruction mentions any more.
fn compact(
    values: Vec<Value>,
    instrs: &[Instr],
    inputs: &[ValueId],
    outputs: &[ValueId],
) -> (Vec<Value>, Vec<Option<ValueId>>) {
    let mut used = vec![false; values.len()];
    let all = instrs.iter().flat_map(|instr| instr.inputs.iter().chain(&instr.outputs));
    for id in all.chain(inputs).chain(outputs) {
        used[id.0] = true;
    }
    let mut renumber = vec![None; values.len()];
    let mut kept = Vec::new();
    for (idx, value) in values.into_iter().enumerate() {
        if used[idx] {
            renumber[idx] = Some(ValueId(kept.len()));
            kept.push(value);
        }
    }
    (kept, renumber)
}
