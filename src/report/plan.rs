//! A plan and its estimate, as a person reads them.

use std::fmt::Write;

use crate::estimate::{Breakdown, DISK_BYTES_PER_SECOND, Estimate, GroupEstimate, StageEstimate};
use crate::lang::pipeline::{Algorithm, Device, Precision, Residence, Rest, Setting, Weights};
use crate::plan::rate::Shape;
use crate::plan::{
    EvaluatePlan, ExportPlan, GeneratePlan, ModelPlan, Plan, RunAgain, StagePlan, TrainPlan, Visits,
};
use crate::units::{Bytes, Count};

use super::table::table;
use super::{duration, flops, names, rate};

/// The whole plan.
pub fn plan(plan: &Plan, estimate: &Estimate) -> String {
    let mut text = String::new();
    for (stage, figures) in plan.stages.iter().zip(&estimate.stages) {
        match stage {
            StagePlan::Train(stage) => train(&mut text, stage, figures, estimate.threads),
            StagePlan::Evaluate(stage) => evaluate(&mut text, stage, figures),
            StagePlan::Generate(stage) => generate(&mut text, stage, figures),
            StagePlan::Export(stage) => export(&mut text, stage, figures),
        }
        text.push('\n');
    }
    line(&mut text, "", &format!("peak {}, disk {}", estimate.peak, estimate.disk));
    text
}

/// A train stage in a few lines, for the beginning of a run.
pub fn brief(plan: &TrainPlan, figures: &StageEstimate) -> String {
    let steps = plan.steps.map_or("?".into(), |steps| Count(steps).to_string());
    let mut text = String::new();
    let _ = writeln!(text, "train {}: {}", plan.name, model(&plan.model));
    line(
        &mut text,
        "plan",
        &format!(
            "{} groups, {}; {steps} steps in {} cycles, rate {}",
            plan.groups.len(),
            order(plan),
            plan.cycles().map_or("?".into(), |cycles| Count(cycles).to_string()),
            rates(plan),
        ),
    );
    if let Some(peak) = figures.groups.iter().max_by_key(|group| group.peak) {
        line(&mut text, "memory", &format!("peak {} (group {})", peak.peak, names(&peak.names)));
    }
    text
}

fn line(text: &mut String, name: &str, what: &str) {
    // Writing to a String cannot fail.
    let _ = if name.is_empty() { writeln!(text, "{what}") } else { writeln!(text, "  {name:<10} {what}") };
}

fn model(plan: &ModelPlan) -> String {
    let from = match &plan.weights {
        Weights::Directory { path } => path.clone(),
        Weights::Hub { repository, commit, .. } => {
            let at = commit.as_ref().unwrap_or(&repository.revision);
            format!("hub {} at {}", repository.name, at.chars().take(12).collect::<String>())
        }
        Weights::Random { config, seed } => format!("fresh from {config}, seed {seed}"),
    };
    let numbers = match plan.precision {
        Precision::Fp32 => String::new(),
        Precision::Bf16 => " in bf16, rounded at random".to_string(),
        Precision::Mixed(_) => format!(" in {}, beside {} of fp32 masters", plan.precision, plan.masters),
        Precision::MixedHi(_) => {
            format!(" in {}, beside {} of fp32 masters at rest", plan.precision, plan.masters)
        }
    };
    let parameters = Count(plan.n_elements);
    format!("{} of {parameters} parameters, {}{numbers} ({from})", plan.family, plan.bytes)
}

fn order(plan: &TrainPlan) -> String {
    let list: Vec<String> = plan.groups.iter().map(|group| names(&group.names)).collect();
    match list.as_slice() {
        [first, second, .., last] if list.len() > 4 => format!("{first}, {second} ... {last}"),
        _ => list.join(", "),
    }
}

fn rates(plan: &TrainPlan) -> String {
    let ticks = if plan.rate.steps_per_tick > 1 { "cycles" } else { "steps" };
    let mut text = format!("{} {}", plan.rate.shape.name(), rate(plan.rate.peak));
    match plan.rate.shape {
        Shape::CosineWithRestarts { periods } => text += &format!(" in {periods} periods"),
        Shape::Polynomial { power } => text += &format!(" to the power of {power}"),
        Shape::Constant | Shape::Linear | Shape::Cosine | Shape::InverseSqrt { .. } | Shape::Wsd { .. } => {}
    }
    if plan.rate.warmup > 0 && plan.steps.is_none() {
        // A share of a run whose length nobody knows yet.
        text += " after its warm-up";
    } else if plan.rate.warmup > 0 {
        let _ = write!(text, " after {} warm-up {ticks}", plan.rate.warmup);
    }
    if let Some(steps) = plan.steps.filter(|steps| *steps > 0 && plan.rate.shape != Shape::Constant) {
        if let Shape::Wsd { decay, .. } = plan.rate.shape {
            let _ = write!(text, ", falling in the last {decay} {ticks}");
        }
        let _ = write!(text, ", {} at the end", rate(plan.rate.at(steps - 1)));
    }
    if plan.layer_decay < 1.0 {
        let _ = write!(text, "; times {} for each layer above", plan.layer_decay);
    }
    for (name, factor) in &plan.named_factors {
        let _ = write!(text, "; times {factor} for {name}");
    }
    text
}

fn optimizer(plan: &TrainPlan) -> String {
    let algorithm = algorithm(&plan.algorithm);
    let states = match plan.states {
        Rest::Device => "states stay on the device",
        Rest::Host => "states rest on the host",
        Rest::Disk => "states rest on disk",
        Rest::Discard => "states are forgotten after a turn",
    };
    let weights = match plan.weights_rest {
        Residence::Device => "",
        Residence::Host if plan.states == Rest::Host => ", weights too",
        Residence::Host => ", weights rest on the host",
        Residence::Disk if plan.states == Rest::Disk => ", weights too",
        Residence::Disk => ", weights rest on disk",
    };
    let clip = plan.clip.map_or(String::new(), |clip| format!(", clipped at norm {clip}"));
    format!("{algorithm}, weight decay {}{clip}; {states}{weights}", plan.weight_decay)
}

/// `adamw (betas 0.9, 0.999, eps 1e-8)`
fn algorithm(algorithm: &Algorithm) -> String {
    type Pair = Setting<[f64; 2]>;
    let adam = |name: &str, betas: &Pair, eps: &Setting<f64>| {
        format!("{name} (betas {}, {}, eps {})", betas[0], betas[1], rate(**eps))
    };
    let lion = |name: &str, betas: &Pair| format!("{name} (betas {}, {})", betas[0], betas[1]);
    let momentum = |momentum: &Setting<f64>, nesterov: &Setting<bool>| {
        format!("momentum {}{}", **momentum, if **nesterov { ", Nesterov's" } else { "" })
    };
    match algorithm {
        Algorithm::Adamw { betas, eps } => adam("adamw", betas, eps),
        Algorithm::Adam { betas, eps } => adam("adam", betas, eps),
        Algorithm::Sgd => "sgd".to_string(),
        Algorithm::Sgdm { momentum: of, nesterov } => format!("sgdm ({})", momentum(of, nesterov)),
        Algorithm::Adagrad { eps } => format!("adagrad (eps {})", rate(**eps)),
        Algorithm::Rmsprop { alpha, eps, momentum, centered } => format!(
            "rmsprop (alpha {}, eps {}, momentum {}{})",
            **alpha,
            rate(**eps),
            **momentum,
            if **centered { ", centered" } else { "" }
        ),
        Algorithm::Adafactor { eps, decay_rate, clip_threshold, beta1, scale_parameter } => format!(
            "adafactor (decay rate {}, eps {}, updates cut at {}{}{})",
            **decay_rate,
            rate(**eps),
            **clip_threshold,
            beta1.map_or(String::new(), |beta1| format!(", beta1 {beta1}")),
            if **scale_parameter { ", rate in units of the weights" } else { "" }
        ),
        Algorithm::Lion { betas } => lion("lion", betas),
        Algorithm::Lamb { betas, eps } => adam("lamb", betas, eps),
        Algorithm::Lars { momentum: of, nesterov, trust } => {
            format!("lars ({}, trust {})", momentum(of, nesterov), **trust)
        }
        Algorithm::AdamMini { betas, eps } => adam("adam_mini", betas, eps),
        Algorithm::Adamw8bit { betas, eps } => adam("adamw8bit", betas, eps),
        Algorithm::Adam8bit { betas, eps } => adam("adam8bit", betas, eps),
        Algorithm::Lion8bit { betas } => lion("lion8bit", betas),
    }
}

fn sequences(n: u64, packed: &str) -> String {
    format!("{}{packed} sequence{}", Count(n), if n == 1 { "" } else { "s" })
}

fn train(text: &mut String, plan: &TrainPlan, figures: &StageEstimate, threads: usize) {
    line(text, "", &format!("train {}", plan.name));
    let from = plan.from.as_ref().map_or(String::new(), |from| format!(", as stage `{from}` left it"));
    line(text, "model", &format!("{}{from}", model(&plan.model)));
    if let Some(rows) = plan.rows {
        let packed = if *plan.tokenizer.pack { " packed" } else { "" };
        line(
            text,
            "data",
            &format!(
                "{} of {}, {} held out; {} tokens, {} carry a loss",
                plan.data.name,
                sequences(rows.train, packed),
                Count(rows.holdout),
                Count(rows.tokens),
                Count(rows.trained_tokens),
            ),
        );
    }
    let accumulate = match plan.accumulate {
        1 => String::new(),
        n => format!(", {n} micro-batches an update"),
    };
    line(
        text,
        "batch",
        &format!("{} x {} tokens at the most{accumulate}", plan.micro_batch, Count(plan.seq)),
    );
    let steps = match (plan.steps, plan.cycles()) {
        (Some(steps), Some(cycles)) => {
            let s = if cycles == 1 { "" } else { "s" };
            format!("{} steps in {} cycle{s}", Count(steps), Count(cycles))
        }
        _ => "the rows decide how many steps; leave out `--no-data` to count them".to_string(),
    };
    let epoch =
        plan.steps_per_epoch.map_or(String::new(), |steps| format!("; an epoch has {}", Count(steps)));
    line(
        text,
        "steps",
        &format!(
            "{steps}; {} turns a cycle, {} a turn{}{epoch}",
            plan.turns_per_cycle,
            if plan.dwell == 1 { "1 step".to_string() } else { format!("{} steps", plan.dwell) },
            match plan.visits {
                Visits::Fixed => String::new(),
                Visits::Redrawn { .. } => ", each cycle in an order of its own".to_string(),
                Visits::Drawn { units, size, .. } => format!(", each of {size} drawn from {units}"),
                Visits::Importance => ", the longest gradient first".to_string(),
                Visits::Growing => ", each with those before it, the last to the end".to_string(),
            }
        ),
    );
    let advance = match plan.rate.steps_per_tick {
        1 => "moves every step".to_string(),
        steps if steps == plan.steps_per_cycle() => "moves when a cycle ends".to_string(),
        steps => format!("moves every {steps} steps"),
    };
    line(text, "rate", &format!("{}; {advance}", rates(plan)));
    line(text, "optimizer", &optimizer(plan));
    let device = match plan.device {
        Device::Auto | Device::Cpu => format!("cpu, {threads} threads"),
        Device::Cuda(n) => format!("cuda({n})"),
    };
    let recompute = match &plan.run_again {
        RunAgain::None => String::new(),
        RunAgain::All => ", blocks run again in reverse".to_string(),
        RunAgain::Blocks(of_groups) => {
            let most = of_groups.iter().map(Vec::len).max().unwrap_or(0);
            format!(", up to {most} blocks run again in reverse")
        }
    };
    let late = if plan.sparing { ", masters and states come late" } else { "" };
    line(text, "device", &format!("{device}{recompute}{late}"));
    text.push('\n');
    let _ = writeln!(text, "{}", groups(&figures.groups));
    text.push('\n');
    if let Some(peak) = figures.groups.iter().max_by_key(|group| group.peak) {
        line(
            text,
            "peak",
            &format!(
                "{} in the {} of {}, instruction {}: {}",
                peak.peak,
                peak.program,
                names(&peak.names),
                peak.instruction,
                peak.operation
            ),
        );
    }
    phases(text, figures);
    if let Some(samples) = plan.evaluate.as_ref().and_then(|evaluate| evaluate.samples.as_ref()) {
        let rows = if samples.rows == 1 { "row" } else { "rows" };
        line(
            text,
            "samples",
            &format!(
                "{} held-out {rows} answered at each evaluation, up to {} new tokens each",
                Count(samples.rows),
                Count(samples.decoding.max_new_tokens)
            ),
        );
    }
    if let Some(limit) = plan.memory_limit {
        line(text, "limit", &limit.to_string());
    }
    let kept = match &plan.checkpoint {
        Some(checkpoint) => {
            let (steps, keep) = (Count(checkpoint.steps), checkpoint.keep);
            format!("{} a checkpoint, every {steps} steps, {keep} kept", figures.disk)
        }
        None => format!("{} if the run is interrupted", figures.disk),
    };
    let scratch = match figures.scratch {
        Bytes(0) => String::new(),
        scratch => format!("; {scratch} for what rests there, gone with the run"),
    };
    line(text, "disk", &format!("{kept}{scratch}"));
    transfers(text, &figures.groups);
    work(text, figures);
}

fn work(text: &mut String, figures: &StageEstimate) {
    let Some(work) = figures.flops else { return };
    let time = figures.seconds.map_or(String::new(), |seconds| {
        format!(", {} at the {}/s of `hift doctor --calibrate`", duration(seconds), flops(work / seconds))
    });
    line(text, "work", &format!("{}{time}", flops(work)));
}

/// What a step of the group that moves the most brings and takes back, and how long a disk takes for it.
fn transfers(text: &mut String, groups: &[GroupEstimate]) {
    let Some(most) = groups.iter().max_by_key(|group| (group.disk_transfers, group.host_transfers)) else {
        return;
    };
    let host =
        (most.host_transfers > Bytes(0)).then(|| format!("{} from and to the host", most.host_transfers));
    let disk = (most.disk_transfers > Bytes(0)).then(|| {
        let seconds = most.disk_transfers.0 as f64 / DISK_BYTES_PER_SECOND;
        let seconds = if seconds < 0.1 { "less than 0.1".to_string() } else { format!("{seconds:.1}") };
        let gigabytes = DISK_BYTES_PER_SECOND / 1e9;
        format!("{} from and to the disk, {seconds} s at {gigabytes} GB/s", most.disk_transfers)
    });
    let parts: Vec<String> = disk.into_iter().chain(host).collect();
    if !parts.is_empty() {
        line(text, "transfers", &format!("in a step of {}: {}", names(&most.names), parts.join("; ")));
    }
}

/// Groups that are all shown, and those that are where there are more.
const MOST_GROUPS: usize = 48;
const HIGHEST: usize = 10;

/// One line a group: what makes up its peak. Columns that are zero everywhere are left out.
fn groups(groups: &[GroupEstimate]) -> String {
    let parts = |by: &Breakdown| by.parts();
    let shown: Vec<usize> =
        (0..8).filter(|i| groups.iter().any(|group| parts(&group.by)[*i].1 > Bytes(0))).collect();
    let mut header = vec!["group", "parameters", "peak"];
    let titles = parts(&Breakdown::default());
    header.extend(shown.iter().map(|i| match titles[*i].0 {
        "kept activations" => "kept",
        "passing values" => "passing",
        title => title,
    }));
    header.push("at");
    let mut rows = Vec::new();
    // Of many sets, those that need the most.
    let mut highest: Vec<&GroupEstimate> = groups.iter().collect();
    if groups.len() > MOST_GROUPS {
        highest.sort_by_key(|group| std::cmp::Reverse(group.peak));
        highest.truncate(HIGHEST);
    }
    for group in &highest {
        let mut row = vec![names(&group.names), Count(group.n_elements).to_string(), group.peak.to_string()];
        row.extend(shown.iter().map(|i| parts(&group.by)[*i].1.to_string()));
        row.push(group.operation.clone());
        rows.push(row);
    }
    let mut text = table(&header, &rows, 1);
    if highest.len() < groups.len() {
        let more = groups.len() - highest.len();
        let _ = write!(text, "\n  and {more} further sets, none of which needs more");
    }
    text
}

fn phases(text: &mut String, figures: &StageEstimate) {
    let list: Vec<String> =
        figures.phases.iter().map(|phase| format!("{} {}", phase.name, phase.bytes)).collect();
    line(text, "phases", &list.join(" · "));
    if let Some(beside) = &figures.beside {
        let parts: Vec<String> =
            beside.parts().into_iter().map(|(name, bytes)| format!("{name} {bytes}")).collect();
        let source = if beside.measured { "measured" } else { "a guess: `hift doctor --calibrate` measures" };
        line(
            text,
            "process",
            &format!("{} with what stands beside tensors: {} ({source})", beside.process, parts.join(", ")),
        );
    }
    let resting =
        (figures.host > Bytes(0)).then(|| format!("{} of what rests away from the device", figures.host));
    let mapped = figures.mapped.filter(|mapped| mapped.0 > 0);
    let mapped = mapped.map_or(String::new(), |mapped| format!("; {mapped} mapped from the token cache"));
    let making = figures.making.map_or(String::new(), |most| format!("; up to {most} while they are read"));
    let data = figures.data.map(|data| format!("{data} for the rows' ids and labels{mapped}{making}"));
    let staging = (figures.staging > Bytes(0))
        .then(|| format!("{} to copy to and from the disk through", figures.staging));
    let host: Vec<String> = resting.into_iter().chain(staging).chain(data).collect();
    if !host.is_empty() {
        line(text, "host", &host.join(", "));
    }
}

fn evaluate(text: &mut String, plan: &EvaluatePlan, figures: &StageEstimate) {
    line(text, "", &format!("evaluate {}", plan.name));
    line(text, "model", &from(plan.from.as_deref(), &plan.model));
    if let Some(rows) = plan.rows {
        let n = if rows.holdout > 0 { rows.holdout } else { rows.train };
        line(text, "data", &format!("{} of {}", plan.data.name, sequences(n, "")));
    }
    phases(text, figures);
}

fn generate(text: &mut String, plan: &GeneratePlan, figures: &StageEstimate) {
    line(text, "", &format!("generate {}", plan.name));
    line(text, "model", &from(plan.from.as_deref(), &plan.model));
    let prompts = match (&plan.data, plan.n_prompts()) {
        (None, n) => Count(n.unwrap_or(0)).to_string(),
        (Some(data), Some(n)) => format!("{} rows of {}", Count(n), data.name),
        (Some(data), None) => format!("the rows of {}", data.name),
    };
    line(
        text,
        "prompts",
        &format!("{prompts}, up to {} new tokens each", Count(plan.decoding.max_new_tokens)),
    );
    let how = &plan.decoding;
    let cut = [
        how.top_k.map(|k| format!(", the best {}", Count(k))),
        (how.top_p < 1.0).then(|| format!(", {} % of the probability", 100.0 * how.top_p)),
    ];
    let words = match (how.beams, how.temperature) {
        (1, 0.0) => "the most probable token each time".to_string(),
        (1, temperature) => {
            format!("drawn at temperature {temperature}{}", cut.into_iter().flatten().collect::<String>())
        }
        (beams, _) => format!("the best of {beams} beams, length penalty {}", how.length_penalty),
    };
    line(
        text,
        "tokens",
        &format!(
            "{words}; {} prompts at a time",
            how.micro_batch.min(plan.n_prompts().unwrap_or(how.micro_batch))
        ),
    );
    if let Some(to) = &plan.to {
        line(text, "to", to);
    }
    phases(text, figures);
}

fn export(text: &mut String, plan: &ExportPlan, figures: &StageEstimate) {
    line(text, "", &format!("export {}", plan.name));
    line(text, "model", &from(plan.from.as_deref(), &plan.model));
    line(text, "to", &format!("{} in {}, {}", plan.to, plan.dtype, figures.disk));
    phases(text, figures);
}

fn from(from: Option<&str>, plan: &ModelPlan) -> String {
    from.map_or_else(|| model(plan), |stage| format!("as stage `{stage}` leaves it"))
}
