//! What a GPU does a part of the rows at a time, so that a program's highest point is lower or its products are larger.
//!
//! [`gated`]: between a gate and the projection behind it stands a tensor as wide as both are, in either direction. Where that
//! makes the highest point, it is formed and used up by chunks. So is what stands between the last norm and the loss.
//! [`loss`]: how many rows of logits there are at a time.
//!
//! A processor has its caches to think of, and other places in which to save.

use super::{Backend, Instr, Op, Program};

/// Bytes of a chunk between a gate and its projection: enough rows for a product that fills a large GPU.
const GATED: usize = 48 << 20;

/// Chunks are of so many rows, or a multiple of that.
const ROWS: usize = 256;

/// Forms by chunks what stands between gates and projections, and between the last norm and the loss: as few of them as make
/// the program's highest point as low as all of them would.
pub fn gated(program: Program) -> Program {
    if program.backend != Backend::Gpu {
        return program;
    }
    let all = by_chunks(&program, &|_| true);
    let (usage, lowest) = (program.usage(), all.usage().into_iter().max().unwrap_or_default());
    by_chunks(&program, &|idx| usage[idx + 1].max(usage[idx + 2]) > lowest)
}

/// With those neighbours made one whose first `is_chosen`.
fn by_chunks(program: &Program, is_chosen: &dyn Fn(usize) -> bool) -> Program {
    let mut instrs: Vec<Instr> = Vec::with_capacity(program.instrs.len());
    let mut idx = 0;
    while let Some(instr) = program.instrs.get(idx) {
        let next = program.instrs.get(idx + 1);
        if let Some(all) = normed_loss(program, &program.instrs[idx..]).filter(|_| is_chosen(idx + 1)) {
            instrs.push(all);
            idx += 3;
            continue;
        }
        match next.and_then(|next| together(program, instr, next)).filter(|_| is_chosen(idx)) {
            Some(both) => {
                instrs.push(both);
                idx += 2;
            }
            None => {
                instrs.push(instr.clone());
                idx += 1;
            }
        }
    }
    Program { instrs, ..program.clone() }
}

/// Two neighbours as one that works by chunks, if the first makes what only the second reads, in storage of its own, and that
/// is larger than a chunk.
fn together(program: &Program, first: &Instr, next: &Instr) -> Option<Instr> {
    let [between] = first.outputs[..] else { return None };
    let value = program.value(between);
    if first.reuses != [None] || next.inputs[0] != between || !next.dies.contains(&between) {
        return None;
    }
    let row = value.bytes().0 as usize / value.shape[0];
    let chunk = (GATED / row / ROWS * ROWS).max(ROWS);
    if chunk >= value.shape[0] {
        return None;
    }
    let (op, inputs) = match (&first.op, &next.op) {
        (Op::Gated(activation), Op::Linear { bias: false, transposed }) => (
            Op::GatedLinear { activation: *activation, transposed: *transposed, chunk },
            vec![first.inputs[0], first.inputs[1], next.inputs[1]],
        ),
        (Op::LinearGradInput { transposed, accumulate: false }, Op::GatedGrad(activation)) => (
            Op::GatedLinearGrad { activation: *activation, transposed: *transposed, chunk },
            vec![first.inputs[0], next.inputs[1], next.inputs[2], first.inputs[1]],
        ),
        _ => return None,
    };
    let dies = first.dies.iter().chain(&next.dies).copied().filter(|id| *id != between).collect();
    Some(Instr { op, inputs, dies, ..next.clone() })
}

/// The last norm, the loss and the way back through the norm as one, if nobody else reads what stands between.
fn normed_loss(program: &Program, instrs: &[Instr]) -> Option<Instr> {
    let [norm, loss, back, ..] = instrs else { return None };
    let (&Op::RmsNorm { eps, offset }, &Op::RmsNormGradInput { accumulate: false, .. }) =
        (&norm.op, &back.op)
    else {
        return None;
    };
    let Op::LinearCrossEntropyGrad { chunk, softcap, input: true, weight: false, .. } = loss.op else {
        return None;
    };
    let (normed, grad, x) = (norm.outputs[0], loss.outputs[1], norm.inputs[0]);
    let passes = loss.inputs[0] == normed && back.inputs[..] == [grad, x, norm.inputs[1]];
    let alone = loss.dies.contains(&normed) && back.reuses == [Some(0)] && norm.reuses == [None];
    let rows = program.value(x).shape[0];
    if !passes || !alone || loss.reuses != [None, None] || chunk >= rows {
        return None;
    }
    // The gradient takes the place of what the norm has read, which each chunk has done with by then.
    let takes = back.dies.contains(&x);
    let dies = [&norm.dies[..], &loss.dies, &back.dies].concat();
    Some(Instr {
        op: Op::NormedLossGrad { eps, offset, chunk, softcap },
        inputs: vec![x, norm.inputs[1], loss.inputs[1], loss.inputs[2]],
        outputs: vec![loss.outputs[0], back.outputs[0]],
        reuses: vec![None, takes.then_some(0)],
        dies: dies.into_iter().filter(|id| *id != normed && !(takes && *id == x)).collect(),
        ..loss.clone()
    })
}

/// Rows of logits for which reading the head's matrix from a GPU's memory takes as long as the product: a large GPU does 250
/// to 300 operations while a byte comes, and a row is one for each byte of 16-bit weights.
const FEW_ROWS: usize = 256;

/// Rows beyond which the product becomes no faster.
const ENOUGH_ROWS: usize = 1024;

/// On a GPU every chunk of logits reads the head's whole matrix: chunks have [`FEW_ROWS`], and more where the program's
/// highest point leaves room. A processor has the matrix near, and its caches like small chunks.
pub fn loss(mut program: Program) -> Program {
    if program.backend != Backend::Gpu {
        return program;
    }
    let usage = program.usage();
    let most = usage.iter().copied().max().unwrap_or_default();
    for (idx, used) in usage[1..].iter().enumerate() {
        let instr = &program.instrs[idx];
        // Which operand the logits' matrix is, and what a row takes beside its logits.
        let (chunk, head, beside) = match instr.op {
            Op::LinearCrossEntropy { chunk, .. } | Op::LinearCrossEntropyGrad { chunk, .. } => (chunk, 1, 0),
            Op::NormedLossGrad { chunk, .. } => {
                let x = program.value(instr.inputs[0]);
                (chunk, 2, x.bytes().0 / x.shape[0] as u64)
            }
            _ => continue,
        };
        let (rows, vocab) =
            (program.value(instr.inputs[0]).shape[0], program.value(instr.inputs[head]).shape[0]);
        let more = ((most - used) / (4 * vocab as u64 + beside)) as usize;
        let large = ((chunk + more) / 64 * 64).clamp(FEW_ROWS, ENOUGH_ROWS).min(rows).max(chunk);
        match &mut program.instrs[idx].op {
            Op::LinearCrossEntropy { chunk, .. }
            | Op::LinearCrossEntropyGrad { chunk, .. }
            | Op::NormedLossGrad { chunk, .. } => *chunk = large,
            _ => unreachable!("it is a loss"),
        }
    }
    program
}
