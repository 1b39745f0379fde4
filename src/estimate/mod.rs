//! How much memory every part of a plan needs, before anything is loaded.
//!
//! ```text
//! Plan ──settle──▶ Plan ──estimate──▶ Estimate { stages: [{ phases, groups, peak }] }
//! ```
//!
//! Reading order: [`mod@play`] (one program with byte counters), [`budget`] (what runs again so that a step fits), then [`estimate`] (all programs of a plan, with what
//! is resident around them), [`paper`] (the paper's own sums).
//!
//! A peak is that of the device. On the CPU the device's memory is the host's: masters and states that rest between
//! turns are in it, whatever group trains, and the figures are exact: the engine allocates what the programs say and
//! nothing else. On a device with memory of its own what rests on the host is
//! there for as long as a step's programs say, and the host's memory of it is a figure of its own. Left out are the
//! program itself, its libraries' scratch, and what an allocator rounds up; what a GPU takes for these is told
//! by [`beside`].
//!
//! This room must not know tensors or files.

pub mod beside;
pub mod budget;
pub mod paper;
pub mod play;

use serde::Serialize;

use crate::lang::pipeline::{Device, Rest};
use crate::plan::{
    Decoding, EvaluatePlan, ExportPlan, GeneratePlan, Group, ModelPlan, Plan, StagePlan, TrainPlan, backend,
};
use crate::program::builder::BatchShape;
use crate::program::residency::{Away, Moved, Rests, STAGING, bring, moved};
use crate::program::{Backend, StepPrograms, forward_only};
use crate::units::Bytes;

pub use crate::program::residency::DISK_BYTES_PER_SECOND;
pub use beside::{Beside, Profile};
pub use budget::settle;
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
    /// Written to disk in all, at the most: checkpoints that are kept, exports, what rests there.
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
    /// On a GPU, what its memory holds beside the tensors.
    pub beside: Option<Beside>,
    /// Masters and states that rest in the host's memory between turns, where that is not the device's.
    pub host: Bytes,
    /// Page-locked host memory through which a device copies what rests on disk.
    pub staging: Bytes,
    /// What rests on disk, in files of its own that go with the stage.
    pub scratch: Bytes,
    /// Host memory beside the tensors: token ids and labels of all rows, their order, and of questions the texts with
    /// their answers. None if nobody has looked at the rows.
    pub data: Option<Bytes>,
    /// What of them lies in a file of the token cache instead, which the system holds in memory as far as there is room.
    pub mapped: Option<Bytes>,
    /// Host memory at the most while the rows are read and made into tokens, `data` included: before the model is there.
    pub making: Option<Bytes>,
    /// One checkpoint, or the export.
    pub disk: Bytes,
    /// Floating-point operations of the whole stage, where its length is known.
    pub flops: Option<f64>,
    /// What they take about, where the device's speed has been measured.
    pub seconds: Option<f64>,
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
    /// Bytes that one step moves between the device and the host's memory, both ways.
    pub host_transfers: Bytes,
    /// Bytes that one step reads from the disk and writes to it.
    pub disk_transfers: Bytes,
}

/// Plays every program of the plan with byte counters.
pub fn estimate(plan: &Plan, threads: usize) -> Estimate {
    let stages: Vec<StageEstimate> = plan
        .stages
        .iter()
        .map(|stage| match stage {
            StagePlan::Train(stage) => train(stage, threads),
            StagePlan::Evaluate(stage) => evaluate(stage, left(plan, stage.from.as_deref()), threads),
            StagePlan::Generate(stage) => generate(stage, left(plan, stage.from.as_deref()), threads),
            StagePlan::Export(stage) => export(stage, left(plan, stage.from.as_deref())),
        })
        .collect();
    let kept = |stage: &StagePlan, disk: Bytes| match stage {
        StagePlan::Train(train) => disk * train.checkpoints_at_once(),
        StagePlan::Export(_) => disk,
        StagePlan::Evaluate(_) | StagePlan::Generate(_) => Bytes(0),
    };
    let written =
        |(stage, estimate): (&StagePlan, &StageEstimate)| kept(stage, estimate.disk) + estimate.scratch;
    let disk = plan.stages.iter().zip(&stages).map(written).sum();
    let peak = stages.iter().map(|stage| stage.peak).max().unwrap_or_default();
    Estimate { schema: SCHEMA, threads, stages, peak, disk }
}

/// The highest point of a train stage's steps.
pub fn peak(plan: &TrainPlan, threads: usize) -> Bytes {
    (0..plan.groups.len()).map(|group| step(plan, group, threads).peak).max().unwrap_or_default()
}

/// What is on the device during the whole step of a group, beside what its programs bring about.
#[derive(Debug, Clone, Copy, Default)]
struct Resident {
    weights: Bytes,
    masters: Bytes,
    states: Bytes,
}

impl Resident {
    fn of(plan: &TrainPlan, group: &Group) -> Self {
        let away = plan.away();
        let here = |rests: Rests, bytes: Bytes| if rests.is_away() { Bytes(0) } else { bytes };
        let states = match plan.states {
            Rest::Device | Rest::Host | Rest::Disk => plan.all_state_bytes(),
            Rest::Discard => plan.state_bytes(group),
        };
        Self {
            weights: here(away.weights, plan.model.bytes),
            masters: here(away.masters, plan.model.masters),
            states: here(away.states, states),
        }
    }

    fn total(self) -> Bytes {
        self.weights + self.masters + self.states
    }
}

/// What rests in the host's memory.
fn host(plan: &TrainPlan) -> Bytes {
    let away = plan.away();
    let there = |rests: Rests, bytes: Bytes| if rests == Rests::Host { bytes } else { Bytes(0) };
    there(away.weights, plan.model.bytes)
        + there(away.masters, plan.model.masters)
        + there(away.states, plan.all_state_bytes())
}

/// The highest point of one step of a group on the largest batch.
pub fn step(plan: &TrainPlan, group: usize, threads: usize) -> GroupEstimate {
    step_of(plan, group, &plan.programs(group, plan.largest_batch(), threads))
}

fn step_of(plan: &TrainPlan, group: usize, programs: &StepPrograms) -> GroupEstimate {
    let resident = Resident::of(plan, &plan.groups[group]);
    let times = |name: &str| match name {
        "further micro-batches" => plan.accumulate - 1,
        _ => 1,
    };
    let flops = programs.each().iter().map(|(name, program)| times(name) * program.flops()).sum();
    let mut transfers = Moved::default();
    for (name, program) in programs.each() {
        let moved = moved(program, plan.away());
        transfers.host += moved.host * times(name);
        transfers.disk += moved.disk * times(name);
    }
    let (program, mut highest) = programs
        .each()
        .into_iter()
        .map(|(name, program)| (name, play(program)))
        .max_by_key(|(_, peak)| peak.by.total())
        .expect("a step has a program");
    highest.by.weights += resident.weights;
    highest.by.masters += resident.masters;
    highest.by.states += resident.states;
    GroupEstimate {
        names: plan.groups[group].names.clone(),
        n_elements: plan.groups[group].n_elements,
        peak: highest.by.total(),
        by: highest.by,
        program,
        instruction: highest.instruction,
        operation: highest.operation,
        flops,
        host_transfers: transfers.host,
        disk_transfers: transfers.disk,
    }
}

fn train(plan: &TrainPlan, threads: usize) -> StageEstimate {
    let groups: Vec<GroupEstimate> = (0..plan.groups.len()).map(|group| step(plan, group, threads)).collect();
    let all: Vec<Resident> = plan.groups.iter().map(|group| Resident::of(plan, group)).collect();
    let most = |of: &dyn Fn(&Resident) -> Bytes| all.iter().map(of).max().unwrap_or_default();
    // Between steps the last group's are still there.
    let resting = most(&|resident| resident.total());
    let steps = groups.iter().map(|group| group.peak).max().unwrap_or_default();
    let loaded = most(&|resident| resident.weights + resident.masters);
    let loaded = loaded + passing_through(plan);
    let mut phases = vec![Phase { name: "load", bytes: loaded }, Phase { name: "train", bytes: steps }];
    if plan.evaluate.is_some() {
        let seq = plan.rows.map_or(plan.seq, |rows| rows.longest_holdout.max(1));
        let (seq, model) = (seq as usize, &plan.model.model);
        let shape = BatchShape { seq, far: model.is_far(seq), ..plan.largest_batch() };
        let program = plan.evaluation(shape, threads);
        phases.push(Phase { name: "evaluate", bytes: resting + play(&program).by.total() });
    }
    if let Some(samples) = plan.evaluate.as_ref().and_then(|evaluate| evaluate.samples.as_ref()) {
        let (decoding, backend) = (&samples.decoding, backend(plan.device, threads));
        let (cache, pass) = continuing(
            &plan.model,
            decoding,
            samples.prompt_tokens,
            Some(samples.rows),
            (backend, plan.away()),
        );
        phases.push(Phase { name: "sample", bytes: resting + cache + pass });
    }
    // Tensors are written from where they lie.
    phases.push(Phase { name: "save", bytes: resting });
    let flops = plan.steps.map(|steps| {
        let shares = plan.visits.shares(steps, plan.dwell, groups.len());
        shares.iter().zip(&groups).map(|(steps, group)| steps * group.flops as f64).sum()
    });
    let states = match plan.states {
        Rest::Device | Rest::Host | Rest::Disk => plan.all_state_bytes(),
        Rest::Discard => plan.groups.iter().map(|group| plan.state_bytes(group)).max().unwrap_or_default(),
    };
    StageEstimate {
        name: plan.name.clone(),
        peak: phases.iter().map(|phase| phase.bytes).max().unwrap_or_default(),
        phases,
        groups,
        beside: None,
        host: host(plan),
        staging: match plan.device {
            Device::Cuda(_) if plan.away().needs_disk() => STAGING * 2,
            Device::Auto | Device::Cpu | Device::Cuda(_) => Bytes(0),
        },
        scratch: plan.scratch(),
        data: plan.rows.map(|rows| rows.memory),
        mapped: plan.rows.map(|rows| rows.mapped),
        making: plan.rows.map(|rows| rows.making),
        // Masters say what their weights are.
        disk: Bytes(plan.model.precision.kept().size() * plan.model.n_elements) + states,
        flops,
        seconds: None,
    }
}

/// What is in memory of a parameter that is on its way from its file to the disk, where the device's memory is the host's.
fn passing_through(plan: &TrainPlan) -> Bytes {
    let (away, precision) = (plan.away(), plan.model.precision);
    let is_written = [away.weights, away.masters].contains(&Rests::Disk);
    match plan.device {
        Device::Auto | Device::Cpu if is_written => {
            let largest = plan.model.model.params.iter().map(|param| param.elements()).max().unwrap_or(0);
            let half = if precision.has_masters() { precision.dtype().size() } else { 0 };
            Bytes((precision.kept().size() + half) * largest)
        }
        Device::Auto | Device::Cpu | Device::Cuda(_) => Bytes(0),
    }
}

fn evaluate(plan: &EvaluatePlan, left: Left, threads: usize) -> StageEstimate {
    let (batch, seq) = (plan.micro_batch as usize, plan.seq as usize);
    let far = plan.model.model.is_far(seq);
    let shape = BatchShape { batch, seq, packed: plan.packed, far };
    let program = forward_only(&plan.model.evaluation(shape), backend(plan.device, threads));
    let weights = loaded(&plan.model, left, plan.device);
    let bytes = weights + play(&program).by.total();
    let batches = plan.rows.map(|rows| {
        let rows = if rows.holdout > 0 { rows.holdout } else { rows.train };
        rows.div_ceil(plan.micro_batch)
    });
    StageEstimate {
        name: plan.name.clone(),
        phases: vec![Phase { name: "load", bytes: weights }, Phase { name: "evaluate", bytes }],
        groups: Vec::new(),
        beside: None,
        peak: bytes,
        host: Bytes(0),
        staging: Bytes(0),
        scratch: Bytes(0),
        data: plan.rows.map(|rows| rows.memory),
        mapped: plan.rows.map(|rows| rows.mapped),
        making: plan.rows.map(|rows| rows.making),
        disk: Bytes(0),
        flops: batches.map(|batches| batches as f64 * program.flops() as f64),
        seconds: None,
    }
}

fn generate(plan: &GeneratePlan, left: Left, threads: usize) -> StageEstimate {
    let weights = loaded(&plan.model, left, plan.device);
    let (cache, pass) = continuing(
        &plan.model,
        &plan.decoding,
        plan.prompt_tokens,
        plan.n_prompts(),
        (backend(plan.device, threads), Away::default()),
    );
    let bytes = weights + cache + pass;
    StageEstimate {
        name: plan.name.clone(),
        phases: vec![
            Phase { name: "load", bytes: weights },
            Phase { name: "cache", bytes: weights + cache },
            Phase { name: "generate", bytes },
        ],
        groups: Vec::new(),
        beside: None,
        peak: bytes,
        host: Bytes(0),
        staging: Bytes(0),
        scratch: Bytes(0),
        data: plan.rows.map(|rows| rows.memory),
        mapped: plan.rows.map(|rows| rows.mapped),
        making: plan.rows.map(|rows| rows.making),
        disk: Bytes(0),
        flops: None,
        seconds: None,
    }
}

/// What continuing texts takes beside what rests on the device: the keys and values that are kept, and the higher of the longest prompt's
/// pass and a pass of one token for each text. Without a look at the prompts, one may be as long as the model has positions.
///
/// A text that grows so long that its positions turn otherwise is read once more; that pass counts as a prompt's.
fn continuing(
    model: &ModelPlan,
    decoding: &Decoding,
    prompt_tokens: Option<u64>,
    prompts: Option<u64>,
    (backend, away): (Backend, Away),
) -> (Bytes, Bytes) {
    let positions = model.model.positions as u64;
    let longest = prompt_tokens.unwrap_or(positions).max(1);
    let cache = decoding.cache(longest, positions, prompts.unwrap_or(decoding.micro_batch));
    let shapes = model.model.caches(cache);
    let kept = shapes.iter().map(|shape| Bytes(4 * shape.iter().product::<usize>() as u64)).sum();
    // The last new token is not taken in.
    let grown = cache.capacity.max(2) - 1;
    let again = model.model.near().filter(|near| grown > *near).unwrap_or(0);
    let longest = (longest as usize).max(again);
    let pass = |batch, seq| {
        let shape = BatchShape { batch, seq, packed: false, far: model.model.is_far(seq) };
        play(&bring(forward_only(&model.continuation(shape, cache), backend), away)).by.total()
    };
    (kept, pass(1, longest).max(pass(cache.sequences, 1)))
}

/// What a train stage has left in the host's memory, of what a later stage begins with.
#[derive(Debug, Clone, Copy)]
struct Left {
    /// Whether the weights are in memory, or rest on disk; None where there was no such stage.
    weights: Option<bool>,
    masters: bool,
}

/// What the stage `from` leaves.
fn left(plan: &Plan, from: Option<&str>) -> Left {
    let of = plan.stages.iter().find_map(|stage| match stage {
        StagePlan::Train(train) if Some(train.name.as_str()) == from => Some(train),
        StagePlan::Train(_) | StagePlan::Evaluate(_) | StagePlan::Generate(_) | StagePlan::Export(_) => None,
    });
    let Some(train) = of else { return Left { weights: None, masters: false } };
    let away = train.away();
    match train.device {
        // What comes from the device goes where there is room.
        Device::Cuda(_) if away.needs_disk() => Left { weights: Some(false), masters: false },
        Device::Auto | Device::Cpu | Device::Cuda(_) => {
            Left { weights: Some(away.weights != Rests::Disk), masters: away.masters != Rests::Disk }
        }
    }
}

/// The weights of a stage that trains nothing. Masters that training has left are kept for an export.
fn loaded(model: &ModelPlan, left: Left, device: Device) -> Bytes {
    match device {
        Device::Auto | Device::Cpu if left.masters => model.bytes + model.masters,
        Device::Auto | Device::Cpu | Device::Cuda(_) => model.bytes,
    }
}

fn export(plan: &ExportPlan, left: Left) -> StageEstimate {
    let kept = plan.model.precision.kept();
    let masters = if left.masters { plan.model.masters } else { Bytes(0) };
    let weights = match left.weights {
        Some(true) => plan.model.bytes + masters,
        Some(false) => masters,
        None => Bytes(kept.size() * plan.model.n_elements),
    };
    // One tensor at a time is converted; what has the type already is written from where it lies.
    let largest = plan.model.model.params.iter().map(|param| param.elements()).max().unwrap_or(0);
    let staged = if plan.dtype == kept { Bytes(0) } else { Bytes(plan.dtype.size() * largest) };
    StageEstimate {
        name: plan.name.clone(),
        phases: vec![
            Phase { name: "load", bytes: weights },
            Phase { name: "export", bytes: weights + staged },
        ],
        groups: Vec::new(),
        beside: None,
        peak: weights + staged,
        host: Bytes(0),
        staging: Bytes(0),
        scratch: Bytes(0),
        data: None,
        mapped: None,
        making: None,
        disk: Bytes(plan.dtype.size() * plan.model.n_elements),
        flops: None,
        seconds: None,
    }
}
