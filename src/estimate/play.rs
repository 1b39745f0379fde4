//! Plays a program with byte counters: add what is fresh, note the peak, subtract what dies.

use serde::Serialize;

use crate::program::{Home, Phase, Program, Role};
use crate::units::Bytes;

/// What makes up a peak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Breakdown {
    /// As they are computed with: of the whole model, or those that are there at the time.
    pub weights: Bytes,
    /// 32-bit masters that are there.
    pub masters: Bytes,
    /// Optimizer states that are there.
    pub states: Bytes,
    /// Of parameters.
    pub gradients: Bytes,
    /// Activations of the forward pass that the reverse pass still needs.
    pub kept: Bytes,
    /// Activations and their gradients that are about to go.
    pub passing: Bytes,
    /// Token ids, labels, positions.
    pub batch: Bytes,
    /// Scratch of the operation at the peak.
    pub workspace: Bytes,
}

impl Breakdown {
    pub fn total(&self) -> Bytes {
        let Self { weights, masters, states, gradients, kept, passing, batch, workspace } = *self;
        weights + masters + states + gradients + kept + passing + batch + workspace
    }

    /// The parts with the words that reports use.
    pub fn parts(&self) -> [(&'static str, Bytes); 8] {
        [
            ("weights", self.weights),
            ("masters", self.masters),
            ("states", self.states),
            ("gradients", self.gradients),
            ("kept activations", self.kept),
            ("passing values", self.passing),
            ("batch", self.batch),
            ("workspace", self.workspace),
        ]
    }
}

/// The highest point of one program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Peak {
    pub by: Breakdown,
    /// The instruction at which it occurs.
    pub instruction: usize,
    pub operation: String,
}

/// Every byte that the program itself brings about at its peak; weights, masters and states are the caller's unless the program fetches them.
pub fn play(program: &Program) -> Peak {
    let mut last_reverse_use = vec![false; program.values.len()];
    for instr in program.instrs.iter().filter(|instr| matches!(instr.phase, Phase::Reverse)) {
        for id in &instr.inputs {
            last_reverse_use[id.0] = true;
        }
    }
    let mut now = Breakdown::default();
    let count = |now: &mut Breakdown, id: crate::program::ValueId, alive: bool| {
        let value = program.value(id);
        let slot = match value.role {
            Role::Weight(_) | Role::Master(_) | Role::State(..) | Role::Cache(_) => return,
            Role::Fetched(Home::Weight(_)) => &mut now.weights,
            Role::Fetched(Home::Master(_)) => &mut now.masters,
            Role::Fetched(Home::State(..)) => &mut now.states,
            Role::Gradient(_) => &mut now.gradients,
            Role::Input(_) => &mut now.batch,
            Role::Activation if last_reverse_use[id.0] => &mut now.kept,
            Role::Activation | Role::Flow | Role::Scalar => &mut now.passing,
        };
        if alive {
            *slot += value.bytes();
        } else {
            *slot -= value.bytes();
        }
    };
    for id in &program.inputs {
        count(&mut now, *id, true);
    }
    let mut peak = Peak { by: now, instruction: 0, operation: String::new() };
    for (idx, instr) in program.instrs.iter().enumerate() {
        // A storage that is taken over changes its name, not its size.
        for input in instr.reuses.iter().flatten() {
            count(&mut now, instr.inputs[*input], false);
        }
        for id in &instr.outputs {
            count(&mut now, *id, true);
        }
        now.workspace = program.workspace(instr);
        if now.total() > peak.by.total() {
            let made = instr.outputs.first().or(instr.inputs.first());
            let name = made.map_or("", |id| program.value(*id).name.as_str());
            peak = Peak { by: now, instruction: idx, operation: format!("{} {name}", instr.op.name()) };
        }
        now.workspace = Bytes(0);
        for id in &instr.dies {
            count(&mut now, *id, false);
        }
    }
    peak
}

/// Bytes that the program owns when it has ended.
pub fn left_over(program: &Program) -> Bytes {
    program.outputs.iter().map(|id| program.value(*id).bytes()).sum()
}
