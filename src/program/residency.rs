//! What rests elsewhere: it comes to the device for as long as instructions need it, and goes back if they changed it.
//!
//! ```text
//! Program ──bring──▶ Program with fetches and evictions
//! ```
//!
//! A copy travels while the device computes: a [`Op::Fetch`] stands so far ahead of what reads the copy that it will have
//! arrived, by the number of floating-point operations in between. Weights come at most one block ahead, so that two
//! blocks are the most that is there at a time. What an update has changed goes back by an [`Op::Evict`], and is gone
//! from the device once it has arrived. Updates come last in a step, so most of that is under way when the program ends:
//! such copies travel on beside the next program ([`Program::leaving`]), in the room that it has below its highest point.
//!
//! Source: Liu et al. 2024, "HiFT", section 3.2, where optimizer states of resting groups are on the host; Ren et al. 2021,
//! "ZeRO-Offload", for the copies beside the computation.

use crate::units::Bytes;

use super::{Backend, Home, Instr, Op, ParamId, Phase, Program, Role, Value, ValueId};

/// Where something resident rests while no instruction needs it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rests {
    /// In the memory of what computes.
    #[default]
    Here,
    /// In the host's memory.
    Host,
    /// In a file that is mapped into memory.
    Disk,
}

impl Rests {
    /// Whether it has to come before it is read.
    pub fn is_away(self) -> bool {
        match self {
            Rests::Here => false,
            Rests::Host | Rests::Disk => true,
        }
    }
}

/// What rests away from the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Away {
    pub weights: Rests,
    pub masters: Rests,
    pub states: Rests,
    /// Masters and states of no more than two parameters are there at a time, even if the device then waits for them.
    pub sparing: bool,
}

impl Away {
    /// Whether anything rests on disk.
    pub fn needs_disk(self) -> bool {
        [self.weights, self.masters, self.states].contains(&Rests::Disk)
    }

    /// Where a home is.
    fn place(self, home: Home) -> Rests {
        match home {
            Home::Weight(_) => self.weights,
            Home::Master(_) => self.masters,
            Home::State(..) => self.states,
        }
    }

    /// What a value is at home, if that is not the device.
    fn home(self, role: Role) -> Option<Home> {
        let home = match role {
            Role::Weight(param) => Home::Weight(param),
            Role::Master(param) => Home::Master(param),
            Role::State(param, slot) => Home::State(param, slot),
            Role::Cache(_)
            | Role::Fetched(_)
            | Role::Input(_)
            | Role::Activation
            | Role::Flow
            | Role::Gradient(_)
            | Role::Scalar => return None,
        };
        self.place(home).is_away().then_some(home)
    }
}

/// Operations that a device does while a byte crosses between it and the host. 160e12 a second over 20e9 bytes a second
/// and 400e12 over 50e9 are alike in this.
const FLOPS_PER_BYTE: u64 = 8192;

/// What a disk is taken to read and write: a usual NVMe drive, below what its maker says. Where there is room in memory the
/// system keeps files there, and is faster.
pub const DISK_BYTES_PER_SECOND: f64 = 2.5e9;

/// The same for a disk, which is to the link as 2.5e9 bytes a second to 20e9.
const FLOPS_PER_DISK_BYTE: u64 = 8 * FLOPS_PER_BYTE;

/// Operations that are done while `bytes` travel. A processor makes its copies itself and does nothing meanwhile: there is
/// no use in an early one.
fn travel(bytes: u64, from: Rests, backend: Backend) -> u64 {
    let rate = match (backend, from) {
        (Backend::Cpu { .. }, _) | (Backend::Gpu, Rests::Here) => 0,
        (Backend::Gpu, Rests::Host) => FLOPS_PER_BYTE,
        (Backend::Gpu, Rests::Disk) => FLOPS_PER_DISK_BYTE,
    };
    rate.saturating_mul(bytes)
}

/// What a device copies from and to a disk goes through page-locked memory of the host: so many bytes each way, since
/// pages of a file are not to be locked.
pub const STAGING: Bytes = Bytes(32 << 20);

/// What a tensor of so many bytes takes of a disk: a file of its own.
pub fn on_pages(bytes: Bytes) -> Bytes {
    Bytes(bytes.0.next_multiple_of(4096))
}

/// Bytes that a program moves, both ways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Between the device and the host's memory.
    pub host: Bytes,
    /// From and to the disk.
    pub disk: Bytes,
}

/// What fetches and evictions of `program` move.
pub fn moved(program: &Program, away: Away) -> Moved {
    let mut moved = Moved::default();
    for instr in &program.instrs {
        let home = match instr.op {
            Op::Fetch => instr.inputs[0],
            Op::Evict => instr.inputs[1],
            _ => continue,
        };
        let value = program.value(home);
        match away.home(value.role).map(|home| away.place(home)) {
            Some(Rests::Host) => moved.host += value.bytes(),
            Some(Rests::Disk) => moved.disk += value.bytes(),
            Some(Rests::Here) | None => unreachable!("only what rests away travels"),
        }
    }
    moved
}

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
        last.dies.extend(
            stays.iter().zip(&gone).filter(|(_, gone)| **gone == Some(idx)).map(|(stay, _)| stay.copy),
        );
    }
    let sets_out = |copy: &ValueId| {
        instrs.iter().position(|instr: &Instr| instr.op == Op::Evict && instr.inputs[0] == *copy)
    };
    let leaving = stays.iter().zip(&gone).filter(|(_, gone)| gone.is_none());
    program.leaving = leaving.map(|(stay, _)| stay.copy).collect();
    program.leaving.sort_by_key(sets_out);
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
            let travel = travel(value.bytes().0, away.place(kind), program.backend);
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
/// None where it has not when the program ends.
fn departures(stays: &[Stay], done: &[u64]) -> Vec<Option<usize>> {
    let n = done.len() - 1;
    let mut order: Vec<usize> = (0..stays.len()).filter(|idx| stays[*idx].changed).collect();
    order.sort_by_key(|idx| stays[*idx].last);
    let mut gone: Vec<Option<usize>> = stays.iter().map(|stay| Some(stay.last)).collect();
    let mut free = 0;
    for idx in order {
        let stay = &stays[idx];
        free = done[stay.last + 1].max(free) + stay.travel;
        let arrived = done.partition_point(|before| *before < free);
        gone[idx] = match arrived > n && stay.limit + 1 == n {
            true => None,
            false => Some(arrived.saturating_sub(1).clamp(stay.last, stay.limit)),
        };
    }
    gone
}
