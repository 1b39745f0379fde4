//! What can be done but is surely unwanted, once the model and, perhaps, the rows are known. What the file alone can
//! tell is told by the language.

use crate::lang::pipeline::{Generate, Interval, Length, Setting, Stage, Train, Warmup};
use crate::problem::{Problem, Span};
use crate::units::{Bytes, Count};

use super::rate::Shape;
use super::{GeneratePlan, ModelPlan, StagePlan, TrainPlan};

/// What is odd about a stage, as it is written and as it is planned.
pub(super) fn stage(written: &Stage, planned: &StagePlan) -> Vec<Problem> {
    match (written, planned) {
        (Stage::Train(written), StagePlan::Train(planned)) => train(written, planned),
        (Stage::Generate(written), StagePlan::Generate(planned)) => generate(written, planned),
        (Stage::Train(_) | Stage::Evaluate(_) | Stage::Generate(_) | Stage::Export(_), _) => Vec::new(),
    }
}

fn train(written: &Train, plan: &TrainPlan) -> Vec<Problem> {
    let mut warnings = Vec::new();
    let length = written.length.span();
    let weights = if plan.away().weights.is_away() { Bytes(0) } else { plan.model.bytes };
    if let Some(limit) = plan.memory_limit.filter(|limit| *limit < weights) {
        warnings.push(
            Problem::warning(
                "hift::plan::limit_below_weights",
                format!("the weights alone take {}, more than the limit of {limit}", plan.model.bytes),
            )
            .label_at(written.memory_limit.span(), "too little for the weights")
            .label_at(plan.model.span, "this model")
            .help(format!("write more than {}; `hift plan` says how much", at_least(plan.model.bytes))),
        );
    }
    if let Some(rows) = plan.rows {
        let asked = (*written.micro_batch).saturating_mul(plan.accumulate);
        if asked > rows.train {
            warnings.push(
                Problem::warning(
                    "hift::plan::few_rows",
                    format!(
                        "a step asks for {} sequences, and there are only {} to train on",
                        Count(asked),
                        Count(rows.train)
                    ),
                )
                .label_at(written.micro_batch.span(), "sequences in one forward pass")
                .label_at(written.accumulate.span(), "so many times")
                .help("write a smaller `micro_batch` or `accumulate`"),
            );
        }
        if rows.holdout > rows.train {
            warnings.push(
                Problem::warning(
                    "hift::plan::large_holdout",
                    format!(
                        "{} sequences are held out, and only {} are left to train on",
                        Count(rows.holdout),
                        Count(rows.train)
                    ),
                )
                .label_at(written.data.holdout.span(), "kept away from training")
                .help("a few percent are enough to measure on, for example `holdout = 2 %`"),
            );
        }
    }
    if let Some(part) = &written.evaluate
        && let Some(samples) = &part.samples
    {
        let span = samples.max_new_tokens.span().unwrap_or(part.span);
        warnings.extend(long_answer(*samples.max_new_tokens, span, &plan.model));
    }
    let Some(steps) = plan.steps else { return warnings };
    let cycle = plan.steps_per_cycle();
    let turns = steps.div_ceil(plan.dwell.max(1));
    // That only the first group is trained is told by the language where it can be seen there.
    let is_told = matches!(*written.length, Length::Steps(steps) if plan.dwell >= steps);
    if plan.groups.len() > 1 && turns < plan.turns_per_cycle && !is_told {
        warnings.push(
            Problem::warning(
                "hift::plan::untrained_groups",
                format!(
                    "the run ends after {} of {} turns of its first cycle: the other groups are never trained",
                    Count(turns),
                    Count(plan.turns_per_cycle)
                ),
            )
            .label_at(length, format!("{} steps", Count(steps)))
            .label_at(written.groups.split.span(), format!("{} groups", plan.groups.len()))
            .help(format!("a cycle takes {} steps: train for more, or make larger groups", Count(cycle))),
        );
    }
    let (peak, warmup) = written.schedule.rate.parts();
    let by_file = matches!((**warmup, *written.length), (Warmup::Steps(rising), Length::Steps(n)) if rising >= n)
        || matches!(**warmup, Warmup::Share(_) | Warmup::None);
    if plan.rate.warmup >= plan.rate.ticks && !by_file {
        let ends = if plan.rate.shape == Shape::Constant { "" } else { ", let alone its decay" };
        warnings.push(
            Problem::warning(
                "hift::plan::long_warmup",
                format!(
                    "the warm-up is longer than the run: the rate never reaches its peak of {:e}{ends}",
                    **peak
                ),
            )
            .label_at(warmup.span(), "the warm-up")
            .label_at(
                length,
                format!("{} steps, {} cycles", Count(steps), Count(steps.div_ceil(cycle.max(1)))),
            )
            .help("shorten the warm-up, for example `warmup = 3 %`"),
        );
    }
    let rare = |every: &Setting<Interval>, in_steps: u64, what: &str| {
        let in_steps_both = matches!((**every, *written.length), (Interval::Steps(_), Length::Steps(_)));
        (in_steps > steps && !in_steps_both).then(|| {
            Problem::warning(
                "hift::plan::too_rare",
                format!("`{what}` every {} steps, but the run ends after {}", Count(in_steps), Count(steps)),
            )
            .label_at(every.span(), format!("{} steps", Count(in_steps)))
            .label_at(length, format!("{} steps", Count(steps)))
            .help(format!("write a smaller `every`, or remove `{what}`"))
        })
    };
    if let (Some(part), Some(planned)) = (&written.evaluate, &plan.evaluate) {
        warnings.extend(rare(&part.every, planned.steps, "evaluate"));
    }
    if let (Some(part), Some(planned)) = (&written.checkpoint, &plan.checkpoint) {
        warnings.extend(rare(&part.every, planned.steps, "checkpoint"));
    }
    warnings
}

fn generate(written: &Generate, plan: &GeneratePlan) -> Vec<Problem> {
    let span = written.max_new_tokens.span().unwrap_or(written.span);
    long_answer(plan.decoding.max_new_tokens, span, &plan.model).into_iter().collect()
}

/// Answers that are to be longer than the model has positions.
fn long_answer(max_new_tokens: u64, span: Span, model: &ModelPlan) -> Option<Problem> {
    let positions = model.model.positions as u64;
    (max_new_tokens > positions).then(|| {
        Problem::warning(
            "hift::plan::long_answer",
            format!(
                "{} new tokens are more than fit a model with {} positions: an answer ends before",
                Count(max_new_tokens),
                Count(positions)
            ),
        )
        .label(span, "never so many")
        .help(format!("write less than {} tokens, the prompt's own included", Count(positions)))
    })
}

/// An amount in the largest unit that the language has for it, rounded up.
fn at_least(bytes: Bytes) -> String {
    let (size, unit) = if bytes.0 >= 1 << 30 { (1 << 30, "GiB") } else { (1 << 20, "MiB") };
    format!("{} {unit}", bytes.0.div_ceil(size))
}
