//! What runs again so that a step fits: of all blocks the cheapest, by the program's own costs.

use crate::lang::pipeline::Recompute;
use crate::plan::{Plan, RunAgain, StagePlan, TrainPlan};
use crate::program::{Phase, Program, Role, StepPrograms};
use crate::units::Bytes;

use super::step_of;

/// Decides what the plan leaves to the budget: with `recompute = auto` a step that would be above the stage's
/// `memory_limit` runs blocks again, as few as that takes; where that is not enough, masters and states come late.
pub fn settle(mut plan: Plan, threads: usize) -> Plan {
    for stage in &mut plan.stages {
        if let StagePlan::Train(train) = stage
            && train.recompute == Recompute::Auto
            && let Some(limit) = train.memory_limit
        {
            train.run_again = run_again(train, limit, threads);
            if super::peak(train, threads) > limit {
                let lavish = (train.run_again.clone(), train.sparing);
                train.sparing = true;
                train.run_again = run_again(train, limit, threads);
                // To wait for what does not help would be for nothing.
                if super::peak(train, threads) > limit {
                    (train.run_again, train.sparing) = lavish;
                }
            }
        }
    }
    plan
}

fn run_again(plan: &TrainPlan, limit: Bytes, threads: usize) -> RunAgain {
    // Neighbours need about as many.
    let mut guess = 0;
    let of_groups: Vec<Vec<usize>> = (0..plan.groups.len())
        .map(|group| {
            let blocks = fewest(plan, group, limit, threads, guess);
            guess = blocks.len();
            blocks
        })
        .collect();
    if of_groups.iter().all(Vec::is_empty) { RunAgain::None } else { RunAgain::Blocks(of_groups) }
}

/// The cheapest blocks without whose numbers the group's step fits; all that help if none are enough.
fn fewest(plan: &TrainPlan, group: usize, limit: Bytes, threads: usize, guess: usize) -> Vec<usize> {
    let programs =
        |chosen: &[usize]| plan.programs_with(group, plan.largest_batch(), threads, &|b| chosen.contains(&b));
    let fits = |programs: &StepPrograms| step_of(plan, group, programs).peak <= limit;
    let keeping = programs(&[]);
    if fits(&keeping) {
        return Vec::new();
    }
    let order = match &keeping {
        StepPrograms::Whole(program) => cheapest_first(program),
        StepPrograms::Parts(parts) => cheapest_first(&parts.first),
    };
    let enough = |n: usize| fits(&programs(&order[..n]));
    let mut n = guess.clamp(1, order.len().max(1)).min(order.len());
    // More blocks never need more memory, but for the block that is running again.
    if enough(n) {
        while n > 1 && enough(n - 1) {
            n -= 1;
        }
    } else if enough(order.len()) {
        while !enough(n) {
            n += 1;
        }
    } else {
        n = order.len();
    }
    let mut chosen = order[..n].to_vec();
    chosen.sort_unstable();
    chosen
}

/// Blocks that keep numbers for the reverse pass, by what running them again costs for each byte that it saves. Of
/// equals the lowest first: when its turn comes, what those above it kept is gone.
fn cheapest_first(program: &Program) -> Vec<usize> {
    // For each block the floating-point operations of its forward pass, and the bytes that it keeps.
    let mut costs: Vec<(u64, u64)> = Vec::new();
    let read_in_reverse = |id| {
        let later = program.instrs.iter().filter(|instr| instr.phase != Phase::Forward);
        later.flat_map(|instr| &instr.inputs).any(|input| *input == id)
    };
    for instr in program.instrs.iter().filter(|instr| instr.phase == Phase::Forward) {
        let Some(block) = instr.block else { continue };
        if costs.len() <= block {
            costs.resize(block + 1, (0, 0));
        }
        let shapes: Vec<&[usize]> =
            instr.inputs.iter().map(|id| program.value(*id).shape.as_slice()).collect();
        costs[block].0 += instr.op.flops(&shapes);
        let kept = instr.outputs.iter().filter(|id| program.value(**id).role == Role::Activation);
        costs[block].1 +=
            kept.filter(|id| read_in_reverse(**id)).map(|id| program.value(*id).bytes().0).sum::<u64>();
    }
    let mut blocks: Vec<usize> = (0..costs.len()).filter(|block| costs[*block].1 > 0).collect();
    let price = |block: &usize| costs[*block].0 as f64 / costs[*block].1 as f64;
    blocks.sort_by(|a, b| price(a).total_cmp(&price(b)));
    blocks
}
