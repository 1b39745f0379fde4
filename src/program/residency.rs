//! What rests elsewhere: it comes to the device for as long as instructions need it, and goes back if they changed it.
//!
//! ```text
//! Program ──bring──▶ Program with fetches and evictions
//! ```
//!
//! A copy travels while the device computes: a [`Op::Fetch`] stands so far ahead of what reads the copy that it will have
//! arrived, by the number of floating-point operations in between. Weights come at most one block ahead, so that two
//! blocks are the most that is there at a time. What an update has changed goes back by an [`Op::Evict`], and is gone
//! from the device once it has arrived.
//!
//! Source: Liu et al. 2024, "HiFT", section 3.2, where optimizer states of resting groups are on the host; Ren et al. 2021,
//! "ZeRO-Offload", for the copies beside the computation.

use super::{Home, Instr, Op, ParamId, Phase, Program, Role, Value, ValueId};

/// What rests away from the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Away {
    pub weights: bool,
    pub masters: bool,
    pub states: bool,
    /// Masters and states of no more than two parameters are there at a time, even if the device then waits for them.
    pub sparing: bool,
}

impl Away {
    /// Where a value is at home, if that is not the device.
    fn home(self, role: Role) -> Option<Home> {
        match role {
            Role::Weight(param) if self.weights => Some(Home::Weight(param)),
            Role::Master(param) if self.masters => Some(Home::Master(param)),
            Role::State(param, slot) if self.states => Some(Home::State(param, slot)),
            Role::Weight(_)
            | Role::Master(_)
            | Role::State(..)
            | Role::Cache(_)
            | Role::Fetched(_)
            | Role::Input(_)
            | Role::Activation
            | Role::Flow
            | Role::Gradient(_)
            | Role::Scalar => None,
        }
    }
}

/// Operations that a device does while a byte crosses between it and the host. 160e12 a second over 20e9 bytes a second
/// and 400e12 over 50e9 are alike in this.
const FLOPS_PER_BYTE: u64 = 8192;

/// What is used together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Weights of a block, or those that stand between blocks.
    Weights(Option<usize>),
    /// Master and states of a parameter.
    Kept(ParamId),
}

/// A copy's time on the device.
struct Stay {
    home: ValueId,
    copy: ValueId,
    /// What comes and goes together.
    unit: Unit,
    /// The first instruction that reads the copy, and the last.
    first: usize,
    last: usize,
    changed: bool,
    /// How long the copy travels, in operations.
    travel: u64,
    /// The instruction before which it sets out.
    sets_out: usize,
    /// The last instruction after which it may still be there.
    limit: usize,
}

/// `program`, with what rests away fetched before it is needed and brought back when it was changed.
pub fn bring(mut program: Program, away: Away) -> Program {
    let mut stays = stays(&mut program, away);
    if stays.is_empty() {
        return program;
    }
    // Operations done before each instruction, and in the end.
    let mut done = vec![0];
    for instr in &program.instrs {
        let shapes: Vec<&[usize]> =
            instr.inputs.iter().map(|id| program.values[id.0].shape.as_slice()).collect();
        done.push(done[done.len() - 1] + instr.op.flops(&shapes));
    }
    schedule(&mut stays, &done, away.sparing);
    let gone = departures(&stays, &done);

    let n = program.instrs.len();
    let mut instrs: Vec<Instr> = Vec::with_capacity(n + 2 * stays.len());
    for (idx, mut instr) in std::mem::take(&mut program.instrs).into_iter().enumerate() {
        for stay in stays.iter().filter(|stay| stay.sets_out == idx) {
            instrs.push(moving(Op::Fetch, vec![stay.home], vec![stay.copy], instr.phase));
        }
        for stay in stays.iter().filter(|stay| (stay.first..=stay.last).contains(&idx)) {
            for input in instr.inputs.iter_mut().filter(|input| **input == stay.home) {
                *input = stay.copy;
            }
        }
        let phase = instr.phase;
        instrs.push(instr);
        for stay in stays.iter().filter(|stay| stay.changed && stay.last == idx) {
            instrs.push(moving(Op::Evict, vec![stay.copy, stay.home], Vec::new(), phase));
        }
        let last = instrs.last_mut().expect("an instruction was put there");
        last.dies
            .extend(stays.iter().zip(&gone).filter(|(_, gone)| **gone == idx).map(|(stay, _)| stay.copy));
    }
    program.instrs = instrs;
    program
}

fn moving(op: Op, inputs: Vec<ValueId>, outputs: Vec<ValueId>, phase: Phase) -> Instr {
    let reuses = vec![None; outputs.len()];
    Instr { op, inputs, outputs, reuses, dies: Vec::new(), phase, block: None }
}

/// When copies are needed, in the order in which they are. Adds the copies to the program's values.
fn stays(program: &mut Program, away: Away) -> Vec<Stay> {
    let homes: Vec<(ValueId, Home)> = (0..program.values.len())
        .map(ValueId)
        .filter_map(|id| Some((id, away.home(program.value(id).role)?)))
        .collect();
    let mut is_weight = vec![false; program.values.len()];
    for (id, home) in &homes {
        is_weight[id.0] = matches!(home, Home::Weight(_));
    }
    // The block that first uses a weight is its own.
    let mut unit: Vec<Option<usize>> = vec![None; program.values.len()];
    let mut seen = vec![false; program.values.len()];
    for instr in &program.instrs {
        for id in instr.inputs.iter().filter(|id| is_weight[id.0]) {
            if !std::mem::replace(&mut seen[id.0], true) {
                unit[id.0] = instr.block;
            }
        }
    }
    // For each instruction, how often the unit in use has changed so far: a weight leaves when another unit's turn comes.
    let mut turn = 0;
    let mut now: Option<Option<usize>> = None;
    let turns: Vec<usize> = program
        .instrs
        .iter()
        .map(|instr| {
            for id in instr.inputs.iter().filter(|id| is_weight[id.0]) {
                if now != Some(unit[id.0]) {
                    (now, turn) = (Some(unit[id.0]), turn + 1);
                }
            }
            turn
        })
        .collect();
    let mut stays = Vec::new();
    for (home, kind) in homes {
        let uses: Vec<usize> =
            (0..program.instrs.len()).filter(|idx| program.instrs[*idx].inputs.contains(&home)).collect();
        for uses in uses.chunk_by(|a, b| !is_weight[home.0] || turns[*a] == turns[*b]) {
            let value = program.value(home);
            let travel = FLOPS_PER_BYTE.saturating_mul(value.bytes().0);
            let copy =
                Value { name: format!("{}.here", value.name), role: Role::Fetched(kind), ..value.clone() };
            program.values.push(copy);
            stays.push(Stay {
                home,
                copy: ValueId(program.values.len() - 1),
                unit: match kind {
                    Home::Weight(_) => Unit::Weights(unit[home.0]),
                    Home::Master(param) | Home::State(param, _) => Unit::Kept(param),
                },
                first: uses[0],
                last: uses[uses.len() - 1],
                changed: uses.iter().any(|idx| matches!(program.instrs[*idx].op, Op::Update { .. })),
                travel,
                sets_out: 0,
                limit: program.instrs.len() - 1,
            });
        }
    }
    stays.sort_by_key(|stay| (stay.first, stay.copy));
    stays
}

/// Decides when each copy sets out: as late as lets it arrive in time, one after the other, and no weight earlier than
/// when the unit before the last one is done with. A changed weight has gone when the unit after its own is done with.
/// With `sparing` that holds for masters and states, too.
fn schedule(stays: &mut [Stay], done: &[u64], sparing: bool) {
    let mut next = u64::MAX;
    for stay in stays.iter_mut().rev() {
        let start = done[stay.first].min(next).saturating_sub(stay.travel);
        // The last instruction that has not begun by then.
        stay.sets_out = done.partition_point(|before| *before <= start).saturating_sub(1).min(stay.first);
        next = start;
    }
    two_at_a_time(stays.iter_mut().filter(|stay| matches!(stay.unit, Unit::Weights(_))));
    if sparing {
        two_at_a_time(stays.iter_mut().filter(|stay| matches!(stay.unit, Unit::Kept(_))));
    }
}

/// Bounds when copies set out, and until when they may stay, so that no more than two units travel or are there.
fn two_at_a_time<'s>(stays: impl Iterator<Item = &'s mut Stay>) {
    // Units in their turns: where each one's last use is.
    let mut ends: Vec<(Unit, usize)> = Vec::new();
    let mut turns: Vec<(&mut Stay, usize)> = Vec::new();
    for stay in stays {
        match ends.last_mut() {
            Some((unit, end)) if *unit == stay.unit => *end = (*end).max(stay.last),
            _ => ends.push((stay.unit, stay.last)),
        }
        turns.push((stay, ends.len() - 1));
    }
    for (stay, turn) in turns {
        if let Some(before) = turn.checked_sub(2) {
            stay.sets_out = stay.sets_out.max(ends[before].1 + 1).min(stay.first);
        }
        if let Some((_, end)) = ends.get(turn + 1) {
            stay.limit = (*end).max(stay.last);
        }
    }
}

/// The instruction after which each copy's storage is free: its last use, or when what was changed has arrived at home.
fn departures(stays: &[Stay], done: &[u64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..stays.len()).filter(|idx| stays[*idx].changed).collect();
    order.sort_by_key(|idx| stays[*idx].last);
    let mut gone: Vec<usize> = stays.iter().map(|stay| stay.last).collect();
    let mut free = 0;
    for idx in order {
        let stay = &stays[idx];
        free = done[stay.last + 1].max(free) + stay.travel;
        let arrived = done.partition_point(|before| *before < free);
        gone[idx] = arrived.saturating_sub(1).clamp(stay.last, stay.limit);
    }
    gone
}
