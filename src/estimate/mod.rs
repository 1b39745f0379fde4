//! How much memory every part of a plan needs, before anything is loaded.
//!
//! ```text
//! Plan ──settle──▶ Plan ──estimate──▶ Estimate { stages: [{ phases, groups, peak }] }
//! ```
//!
//! Reading order: [`mod@play`] (one program with byte counters), then [`estimate`] (all programs of a plan, with what
//! is resident around them), [`paper`] (the paper's own sums).
//!
//! On the CPU the device's memory is the host's, and the figures are exact: the engine allocates what the programs
//! say and nothing else. Left out are the program itself, its libraries' scratch, and what an allocator rounds up.
//!
//! This room must not know tensors or files.

pub mod paper;
pub mod play;

use serde::Serialize;

use crate::lang::pipeline::{Recompute, Rest};
use crate::plan::{Decoding, EvaluatePlan, ExportPlan, GeneratePlan, ModelPlan, Plan, StagePlan, TrainPlan};
use crate::program::builder::BatchShape;
use crate::program::forward_only;
use crate::units::{Bytes, Dtype};

pub use play::{Breakdown, Peak, left_over, play};

/// The version of the estimate in `plan.json`.
pub const SCHEMA: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    pub schema: u32,
    /// Threads that the figures hold for; scratch depends on it.
    pub threads: usize,
    pub stages: Vec<StageEstimate>,
    /// The highest point of all stages.
    pub peak: Bytes,
    /// Written to disk in all: checkpoints that are kept, exports.
    pub disk: Bytes,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageEstimate {
    pub name: String,
    /// What the stage goes through, with the memory that each needs.
    pub phases: Vec<Phase>,
    /// For a train stage: one entry per group, in the order of their turns.
    pub groups: Vec<GroupEstimate>,
    pub peak: Bytes,
    /// Host memory beside the tensors: token ids and labels of all rows. None if nobody has looked at the rows.
    pub data: Option<Bytes>,
    /// One checkpoint, or the export.
    pub disk: Bytes,
    /// Floating-point operations of the whole stage, where its length is known.
    pub flops: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Phase {
    pub name: &'static str,
    pub bytes: Bytes,
}

/// The highest point of a group's step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupEstimate {
    pub names: Vec<String>,
    pub n_elements: u64,
    pub peak: Bytes,
    pub by: Breakdown,
    /// Which of the step's programs: `step`, or with accumulation `first micro-batch`, `further micro-batches`, `update`.
    pub program: &'static str,
    pub instruction: usize,
    pub operation: String,
    /// Floating-point operations of one step on the largest batch.
    pub flops: u64,
}

/// Decides what the plan leaves to the budget: a stage with `recompute = auto` runs its blocks again if it would be
/// above its `memory_limit` otherwise.
pub fn settle(mut plan: Plan, threads: usize) -> Plan {
    for stage in &mut plan.stages {
        if let StagePlan::Train(train) = stage
            && train.recompute == Recompute::Auto
        {
            train.recompute_blocks = train.memory_limit.is_some_and(|limit| peak(train, threads) > limit);
        }
    }
    plan
}

/// Plays every program of the plan with byte counters.
pub fn estimate(plan: &Plan, threads: usize) -> Estimate {
    let stages: Vec<StageEstimate> = plan
        .stages
        .iter()
        .map(|stage| match stage {
            StagePlan::Train(stage) => train(stage, threads),
            StagePlan::Evaluate(stage) => evaluate(stage, threads),
            StagePlan::Generate(stage) => generate(stage, threads),
            StagePlan::Export(stage) => export(stage),
        })
        .collect();
    let kept = |stage: &StagePlan, disk: Bytes| match stage {
        // While a checkpoint is written, the ones before it are still there; the last one is the result.
        StagePlan::Train(train) => disk * (1 + train.checkpoint.as_ref().map_or(0, |c| c.keep)),
        StagePlan::Export(_) => disk,
        StagePlan::Evaluate(_) | StagePlan::Generate(_) => Bytes(0),
    };
    let disk = plan.stages.iter().zip(&stages).map(|(stage, estimate)| kept(stage, estimate.disk)).sum();
    let peak = stages.iter().map(|stage| stage.peak).max().unwrap_or_default();
    Estimate { schema: SCHEMA, threads, stages, peak, disk }
}

/// The highest point of a train stage's steps.
pub fn peak(plan: &TrainPlan, threads: usize) -> Bytes {
    (0..plan.groups.len()).map(|group| step(plan, group, threads).peak).max().unwrap_or_default()
}

/// The highest point of one step of a group on the largest batch.
pub fn step(plan: &TrainPlan, group: usize, threads: usize) -> GroupEstimate {
    let programs = plan.programs(group, plan.largest_batch(), threads);
    let states = match plan.states {
        Rest::Device | Rest::Host => plan.all_state_bytes(),
        Rest::Discard => plan.state_bytes(&plan.groups[group]),
    };
    let times = |name: &str| match name {
        "further micro-batches" => plan.accumulate - 1,
        _ => 1,
    };
    let flops = programs.each().iter().map(|(name, program)| times(name) * program.flops()).sum();
    let (program, mut highest) = programs
        .each()
        .into_iter()
        .map(|(name, program)| (name, play(program)))
        .max_by_key(|(_, peak)| peak.by.total())
        .expect("a step has a program");
    highest.by.weights = plan.model.bytes;
    highest.by.states = states;
    GroupEstimate {
        names: plan.groups[group].names.clone(),
        n_elements: plan.groups[group].n_elements,
        peak: highest.by.total(),
        by: highest.by,
        program,
        instruction: highest.instruction,
        operation: highest.operation,
        flops,
    }
}

fn train(plan: &TrainPlan, threads: usize) -> StageEstimate {
    let groups: Vec<GroupEstimate> = (0..plan.groups.len()).map(|group| step(plan, group, threads)).collect();
    let weights = plan.model.bytes;
    let resting = match plan.states {
        Rest::Device | Rest::Host => plan.all_state_bytes(),
        Rest::Discard => Bytes(0),
    };
    let steps = groups.iter().map(|group| group.peak).max().unwrap_or_default();
    let mut phases = vec![Phase { name: "load", bytes: weights }, Phase { name: "train", bytes: steps }];
    if plan.evaluate.is_some() {
        let seq = plan.rows.map_or(plan.seq, |rows| rows.longest_holdout.max(1));
        let shape = BatchShape { seq: seq as usize, ..plan.largest_batch() };
        let program = plan.evaluation(shape, threads);
        phases.push(Phase { name: "evaluate", bytes: weights + resting + play(&program).by.total() });
    }
    // Tensors are written from where they lie.
    phases.push(Phase { name: "save", bytes: weights + resting });
    let flops = plan.steps.map(|steps| {
        let shares = plan.visits.shares(steps, plan.dwell, groups.len());
        shares.iter().zip(&groups).map(|(steps, group)| steps * group.flops as f64).sum()
    });
    let states = match plan.states {
        Rest::Device | Rest::Host => plan.all_state_bytes(),
        Rest::Discard => groups.iter().map(|group| group.by.states).max().unwrap_or_default(),
    };
    StageEstimate {
        name: plan.name.clone(),
        peak: phases.iter().map(|phase| phase.bytes).max().unwrap_or_default(),
        phases,
        groups,
        // An id and a label for each token.
        data: plan.rows.map(|rows| Bytes(8 * rows.tokens)),
        disk: weights + states,
        flops,
    }
}

fn evaluate(plan: &EvaluatePlan, threads: usize) -> StageEstimate {
    let shape = BatchShape { batch: plan.micro_batch as usize, seq: plan.seq as usize, packed: plan.packed };
    let program = forward_only(&plan.model.model.evaluation(shape), threads);
    let weights = plan.model.bytes;
    let bytes = weights + play(&program).by.total();
    let batches = plan.rows.map(|rows| {
        let rows = if rows.holdout > 0 { rows.holdout } else { rows.train };
        rows.div_ceil(plan.micro_batch)
    });
    StageEstimate {
        name: plan.name.clone(),
        phases: vec![Phase { name: "load", bytes: weights }, Phase { name: "evaluate", bytes }],
        groups: Vec::new(),
        peak: bytes,
        data: plan.rows.map(|rows| Bytes(8 * rows.tokens)),
        disk: Bytes(0),
        flops: batches.map(|batches| batches as f64 * program.flops() as f64),
    }
}

fn generate(plan: &GeneratePlan, threads: usize) -> StageEstimate {
    let (weights, cache, pass) =
        continuing(&plan.model, &plan.decoding, plan.prompt_tokens, plan.prompts.len(), threads);
    let bytes = weights + cache + pass;
    StageEstimate {
        name: plan.name.clone(),
        phases: vec![
            Phase { name: "load", bytes: weights },
            Phase { name: "cache", bytes: weights + cache },
            Phase { name: "generate", bytes },
        ],
        groups: Vec::new(),
        peak: bytes,
        data: None,
        disk: Bytes(0),
        flops: None,
    }
}

/// What continuing texts takes: the weights, the keys and values that are kept, and the higher of the longest prompt's pass
/// and a pass of one token for each text. Without a look at the prompts, one may be as long as the model has positions.
fn continuing(
    model: &ModelPlan,
    decoding: &Decoding,
    prompt_tokens: Option<u64>,
    prompts: usize,
    threads: usize,
) -> (Bytes, Bytes, Bytes) {
    let positions = model.model.positions as u64;
    let longest = prompt_tokens.unwrap_or(positions).max(1);
    let cache = decoding.cache(longest, positions, prompts as u64);
    let shapes = model.model.caches(cache);
    let kept = shapes.iter().map(|shape| Bytes(4 * shape.iter().product::<usize>() as u64)).sum();
    let pass = |batch, seq| {
        let shape = BatchShape { batch, seq, packed: false };
        play(&forward_only(&model.model.continuation(shape, cache), threads)).by.total()
    };
    (model.bytes, kept, pass(1, longest as usize).max(pass(cache.sequences, 1)))
}

fn export(plan: &ExportPlan) -> StageEstimate {
    let weights = plan.model.bytes;
    // One tensor at a time is converted; 32-bit tensors are written from where they lie.
    let largest = plan.model.model.params.iter().map(|param| param.elements()).max().unwrap_or(0);
    let staged = match plan.dtype {
        Dtype::F32 | Dtype::U32 => Bytes(0),
        Dtype::F16 | Dtype::Bf16 => Bytes(plan.dtype.size() * largest),
    };
    StageEstimate {
        name: plan.name.clone(),
        phases: vec![
            Phase { name: "load", bytes: weights },
            Phase { name: "export", bytes: weights + staged },
        ],
        groups: Vec::new(),
        peak: weights + staged,
        data: None,
        disk: Bytes(plan.dtype.size() * plan.model.n_elements),
        flops: None,
    }
}
