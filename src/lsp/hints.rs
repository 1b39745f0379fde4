//! What a plan says, in a few words beside the blocks: each train stage's peak, and the sizes of its groups.

use lsp_types::{InlayHint, Label, MarkupContent, MarkupKind, Position, Range, Tooltip};

use crate::estimate::{Estimate, StageEstimate};
use crate::lang::Pipeline;
use crate::lang::pipeline::Stage;
use crate::lang::scan::{Scan, Token};
use crate::plan::{Plan, StagePlan, TrainPlan};
use crate::report;
use crate::units::Count;

use super::workspace::Analysis;

/// What is said beside a train stage, and beside the groups that it trains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageHint {
    pub name: String,
    /// The name of its groups block.
    pub groups: String,
    pub peak: String,
    pub peak_more: String,
    pub sizes: String,
    pub sizes_more: String,
}

/// What is to be said about the train stages of a plan.
pub fn summary(pipeline: &Pipeline, plan: &Plan, estimate: &Estimate) -> Vec<StageHint> {
    let stages = plan.stages.iter().zip(&estimate.stages);
    stages
        .filter_map(|(stage, figures)| {
            let StagePlan::Train(train) = stage else { return None };
            let groups = pipeline.stages.iter().find_map(|stage| match stage {
                Stage::Train(written) if written.name == train.name => Some(written.groups.name.clone()),
                Stage::Train(_) | Stage::Evaluate(_) | Stage::Generate(_) | Stage::Export(_) => None,
            })?;
            let (sizes, sizes_more) = sizes(train);
            Some(StageHint {
                name: train.name.clone(),
                groups,
                peak: peak(train, figures),
                peak_more: format!("```text\n{}```", report::plan::brief(train, figures)),
                sizes,
                sizes_more,
            })
        })
        .collect()
}

/// `peak 6.44 MiB (embedding)`. Without a look at the rows it is that of the longest that are allowed.
fn peak(train: &TrainPlan, figures: &StageEstimate) -> String {
    let most = if train.rows.is_some() { "" } else { "at most " };
    let highest = figures.groups.iter().rev().max_by_key(|group| group.peak);
    match highest.filter(|group| group.peak == figures.peak) {
        Some(group) => format!("peak {most}{} ({})", figures.peak, report::names(&group.names)),
        // Evaluating or saving may need more than any step.
        None => match figures.phases.iter().max_by_key(|phase| phase.bytes) {
            Some(phase) => format!("peak {most}{} ({})", figures.peak, phase.name),
            None => format!("peak {most}{}", figures.peak),
        },
    }
}

/// Groups that are listed by name and size.
const LISTED: usize = 40;

/// `4 groups, 10,464 to 110,784 weights`, and every group with its size.
fn sizes(train: &TrainPlan) -> (String, String) {
    let sizes = || train.groups.iter().map(|group| group.n_elements);
    let (low, high) = (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
    let n = train.groups.len();
    let short = match (n, low == high) {
        (1, _) => format!("1 group, {} weights", Count(high)),
        (_, true) => format!("{n} groups, {} weights each", Count(high)),
        (_, false) => format!("{n} groups, {} to {} weights", Count(low), Count(high)),
    };
    let mut lines: Vec<String> = train
        .groups
        .iter()
        .take(LISTED)
        .map(|group| format!("{}: {} weights", report::names(&group.names), Count(group.n_elements)))
        .collect();
    if n > LISTED {
        lines.push(format!("and {} more", n - LISTED));
    }
    (short, format!("```text\n{}\n```", lines.join("\n")))
}

/// The hints in a part of a document.
pub fn hints(analysis: &Analysis, source: usize, wanted: Range, stages: &[StageHint]) -> Vec<InlayHint> {
    let mut hints = Vec::new();
    let mut put = |position: Position, label: String, more: String| {
        if wanted.start <= position && position <= wanted.end {
            hints.push(InlayHint {
                position,
                label: Label::String(label),
                kind: None,
                text_edits: None,
                tooltip: Some(Tooltip::MarkupContent(MarkupContent {
                    kind: MarkupKind::Markdown,
                    value: more,
                })),
                padding_left: Some(true),
                padding_right: None,
                data: None,
            });
        }
    };
    let scan = Scan::new(analysis.text(source));
    for stage in stages {
        let Some(block) = analysis.block("train", &stage.name) else { continue };
        let (own, head) = analysis.reading.sources().locate(block.head());
        if own != source {
            continue;
        }
        let mut index = scan.index(head.end);
        while !matches!(scan.token(index), Token::Open('{') | Token::End) {
            index += 1;
        }
        let brace = scan.span(index);
        put(analysis.local(source, brace).end, stage.peak.clone(), stage.peak_more.clone());
    }
    let mut said: Vec<(&str, &str)> = Vec::new();
    for stage in stages {
        if said.contains(&(&stage.groups, &stage.sizes)) {
            continue;
        }
        said.push((&stage.groups, &stage.sizes));
        let block = analysis.block("groups", &stage.groups);
        let Some(split) = block.and_then(|block| analysis.entry(block, "split")) else { continue };
        let (own, range) = analysis.range(split.value.span);
        if own == source {
            put(range.end, stage.sizes.clone(), stage.sizes_more.clone());
        }
    }
    hints
}
