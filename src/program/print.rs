//! A program as text: one line an instruction, with the size of what it makes and what is gone afterwards.

use std::fmt;

use super::{Instr, Phase, Program, ValueId};

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |id: &ValueId| self.value(*id).name.as_str();
        let list = |ids: &[ValueId]| ids.iter().map(name).collect::<Vec<_>>().join(", ");
        writeln!(f, "in   {}", list(&self.inputs))?;
        for (idx, instr) in self.instrs.iter().enumerate() {
            writeln!(f, "{}", self.line(idx, instr))?;
        }
        writeln!(f, "out  {}", list(&self.outputs))?;
        match &self.leaving[..] {
            [] => Ok(()),
            leaving => writeln!(f, "still on their way home  {}", list(leaving)),
        }
    }
}

impl Program {
    /// `12 reverse  grad(x) f32[128,64] 32.00 KiB in the place of grad(y) = op(a, b)   dies: a, b`
    pub fn line(&self, idx: usize, instr: &Instr) -> String {
        let name = |id: &ValueId| self.value(*id).name.as_str();
        let outputs: Vec<String> = instr
            .outputs
            .iter()
            .zip(&instr.reuses)
            .map(|(id, reuse)| {
                let value = self.value(*id);
                let shape = value.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
                let place = match reuse {
                    Some(input) => format!("in place of {}", name(&instr.inputs[*input])),
                    None => value.bytes().to_string(),
                };
                format!("{} {}[{shape}] ({place})", value.name, value.dtype)
            })
            .collect();
        let inputs = instr.inputs.iter().map(name).collect::<Vec<_>>().join(", ");
        let phase = match instr.phase {
            Phase::Forward => "forward",
            Phase::Recompute => "again",
            Phase::Reverse => "reverse",
            Phase::Update => "update",
        };
        let mut line = format!("{idx:4} {phase:<8}");
        if !outputs.is_empty() {
            line += &format!("{} = ", outputs.join(", "));
        }
        line += &format!("{}({inputs})", instr.op.name());
        let workspace = self.workspace(instr);
        if workspace.0 > 0 {
            line += &format!("  workspace {workspace}");
        }
        if !instr.dies.is_empty() {
            line += &format!("  dies: {}", instr.dies.iter().map(name).collect::<Vec<_>>().join(", "));
        }
        line
    }
}
