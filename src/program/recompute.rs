//! Passes that run a part of the forward pass again instead of keeping its result until the reverse pass.
//!
//! [`cheap`] is always right: a norm or an activation whose inputs are kept anyway costs one pass over memory.
//! [`blocks`] keeps only what enters a block and runs the block again when its turn in reverse comes; which blocks, is
//! the plan's choice.
//! Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".

use std::collections::{HashMap, HashSet};

use super::reverse::Draft;
use super::{Instr, Phase, Role, ValueId};

/// Runs an operation again where it is cheap and all of its inputs are needed in reverse anyway, no earlier.
pub fn cheap(draft: &mut Draft) {
    let mut inserts: Vec<(usize, usize)> = Vec::new();
    // From the last to the first: one that is run again may read another that is, which must then come before it.
    for idx in (0..draft.instrs.len()).rev() {
        let instr = &draft.instrs[idx];
        if instr.phase != Phase::Forward || !instr.op.is_cheap() {
            continue;
        }
        let [output] = instr.outputs[..] else { continue };
        let uses = |id: ValueId| {
            let instrs = draft.instrs.iter().enumerate();
            instrs.filter(move |(_, i)| i.phase == Phase::Reverse && i.inputs.contains(&id)).map(|(at, _)| at)
        };
        let reads_it = |(_, reader): &&(usize, usize)| draft.instrs[*reader].inputs.contains(&output);
        let again = inserts.iter().filter(reads_it).map(|(at, _)| *at);
        let Some(first) = uses(output).chain(again).min() else { continue };
        // The recomputed value must not make its inputs live longer than they do.
        let kept_anyway = |id: &ValueId| {
            draft.values[id.0].role.is_resident() || uses(*id).next_back().is_some_and(|last| last >= first)
        };
        if instr.inputs.iter().all(kept_anyway) {
            inserts.push((first, idx));
        }
    }
    again(draft, inserts.into_iter().map(|(at, idx)| (at, vec![idx])).collect());
}

/// Keeps only what enters the blocks that `chosen` names; everything inside is computed again from there.
pub fn blocks(draft: &mut Draft, chosen: &dyn Fn(usize) -> bool) {
    let mut outside: HashSet<ValueId> = HashSet::new();
    let mut producer: HashMap<ValueId, usize> = HashMap::new();
    for (idx, instr) in draft.instrs.iter().enumerate() {
        if instr.phase == Phase::Forward {
            producer.extend(instr.outputs.iter().map(|id| (*id, idx)));
        }
    }
    // What another block, or the end of the model, reads is a border: it is kept, with whatever else its operation
    // gives, so that the operation is not run again for that alone.
    for instr in draft.instrs.iter().filter(|instr| instr.phase == Phase::Forward) {
        for id in &instr.inputs {
            if let Some(from) = producer.get(id)
                && draft.instrs[*from].block != instr.block
            {
                outside.extend(&draft.instrs[*from].outputs);
            }
        }
    }
    let loss_reads = draft.instrs.iter().find(|instr| instr.phase != Phase::Forward);
    for id in loss_reads.iter().flat_map(|instr| &instr.inputs) {
        outside.extend(producer.get(id).iter().flat_map(|from| &draft.instrs[**from].outputs));
    }

    let mut regions: HashMap<usize, (usize, Vec<usize>)> = HashMap::new();
    for (at, instr) in draft.instrs.iter().enumerate() {
        if instr.phase == Phase::Forward {
            continue;
        }
        let mut wanted: Vec<ValueId> = instr.inputs.clone();
        while let Some(id) = wanted.pop() {
            let Some(&from) = producer.get(&id) else { continue };
            let Some(block) = draft.instrs[from].block.filter(|block| chosen(*block)) else { continue };
            if outside.contains(&id) {
                continue;
            }
            let (_, members) = regions.entry(block).or_insert((at, Vec::new()));
            if !members.contains(&from) {
                members.push(from);
                wanted.extend(&draft.instrs[from].inputs);
            }
        }
    }
    let mut regions: Vec<(usize, Vec<usize>)> = regions.into_values().collect();
    for (_, members) in &mut regions {
        members.sort_unstable();
    }
    again(draft, regions);
}

/// Puts copies of forward instructions in front of instruction `at`, and lets everything that is not forward
/// read the copies' results.
fn again(draft: &mut Draft, mut regions: Vec<(usize, Vec<usize>)>) {
    regions.sort();
    let mut renamed: HashMap<ValueId, ValueId> = HashMap::new();
    for (_, members) in &regions {
        for idx in members {
            for id in draft.instrs[*idx].outputs.clone() {
                let value = draft.values[id.0].clone();
                let copy =
                    draft.add_value(format!("{}'", value.name), value.shape, value.dtype, Role::Activation);
                renamed.insert(id, copy);
            }
        }
    }
    let name = |id: &ValueId| renamed.get(id).copied().unwrap_or(*id);
    let mut instrs = Vec::with_capacity(draft.instrs.len());
    let mut regions = regions.into_iter().peekable();
    for (at, instr) in draft.instrs.iter().enumerate() {
        while let Some((_, members)) = regions.next_if(|(first, _)| *first == at) {
            for idx in members {
                let original = &draft.instrs[idx];
                instrs.push(Instr {
                    inputs: original.inputs.iter().map(name).collect(),
                    outputs: original.outputs.iter().map(name).collect(),
                    phase: Phase::Recompute,
                    ..original.clone()
                });
            }
        }
        let mut instr = instr.clone();
        if instr.phase != Phase::Forward {
            instr.inputs = instr.inputs.iter().map(name).collect();
        }
        instrs.push(instr);
    }
    draft.instrs = instrs;
}
