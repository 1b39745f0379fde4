//! Problems as an editor shows them, and their fixes as actions.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use lsp_types::{
    Code, CodeAction, CodeActionKind, Diagnostic, DiagnosticRelatedInformation, DiagnosticSeverity,
    DiagnosticTag, Message, Range, TextEdit, Uri, WorkspaceEdit,
};

use crate::problem::{Edit, Problem, Severity};

use super::workspace::{Analysis, Workspace};

/// The problems of a reading by file.
pub fn by_file(
    workspace: &Workspace,
    analysis: &Analysis,
    problems: &[Problem],
) -> BTreeMap<PathBuf, Vec<Diagnostic>> {
    let mut files: BTreeMap<PathBuf, Vec<Diagnostic>> = BTreeMap::new();
    for problem in problems {
        let source = problem.labels.first().map_or(0, |label| analysis.range(label.span).0);
        let Some(path) = analysis.paths.get(source) else { continue };
        files.entry(path.clone()).or_default().push(diagnostic(workspace, analysis, problem));
    }
    files
}

/// One problem at its first place. The others stand beside it, the way out below the message.
pub fn diagnostic(workspace: &Workspace, analysis: &Analysis, problem: &Problem) -> Diagnostic {
    let range = problem.labels.first().map_or_else(Range::default, |label| analysis.range(label.span).1);
    let related: Vec<DiagnosticRelatedInformation> = problem
        .labels
        .iter()
        .skip(1)
        .map(|label| DiagnosticRelatedInformation {
            location: workspace.location(analysis, label.span),
            message: label.text.clone(),
        })
        .collect();
    let message = match &problem.help {
        Some(help) => format!("{}\nhelp: {help}", problem.message),
        None => problem.message.clone(),
    };
    Diagnostic {
        range,
        severity: Some(match problem.severity {
            Severity::Error => DiagnosticSeverity::Error,
            Severity::Warning => DiagnosticSeverity::Warning,
        }),
        code: Some(Code::String(problem.code.to_owned())),
        source: Some("hift".to_owned()),
        message: Message::String(message),
        tags: (problem.code == "hift::lang::unused").then(|| vec![DiagnosticTag::Unnecessary]),
        related_information: (!related.is_empty()).then_some(related),
        code_description: None,
        data: None,
    }
}

/// The fixes of problems that a range touches; and, where the file has more than one, all of them at once.
pub fn actions(
    workspace: &Workspace,
    analysis: &Analysis,
    source: usize,
    problems: &[Problem],
    range: Range,
) -> Vec<CodeAction> {
    let own: Vec<&Problem> = problems
        .iter()
        .filter(|problem| !problem.fix.is_empty())
        .filter(|problem| problem.labels.first().is_some_and(|label| analysis.range(label.span).0 == source))
        .collect();
    let touched = |problem: &&&Problem| {
        let place = analysis.range(problem.labels[0].span).1;
        place.start <= range.end && range.start <= place.end
    };
    let mut actions: Vec<CodeAction> = own
        .iter()
        .filter(touched)
        .map(|problem| CodeAction {
            title: problem.help.clone().unwrap_or_else(|| problem.message.clone()),
            kind: Some(CodeActionKind::QuickFix),
            diagnostics: Some(vec![diagnostic(workspace, analysis, problem)]),
            is_preferred: Some(true),
            edit: Some(edit(workspace, analysis, &problem.fix)),
            ..CodeAction::default()
        })
        .collect();
    let mut all: Vec<Edit> = Vec::new();
    for problem in &own {
        let apart = |edit: &Edit| {
            all.iter().all(|other| edit.span.end < other.span.start || other.span.end < edit.span.start)
        };
        if problem.fix.iter().all(apart) {
            all.extend(problem.fix.iter().cloned());
        }
    }
    if own.len() > 1 {
        actions.push(CodeAction {
            title: "apply all fixes of this file".to_owned(),
            kind: Some(CodeActionKind::SourceFixAll),
            edit: Some(edit(workspace, analysis, &all)),
            ..CodeAction::default()
        });
    }
    actions
}

fn edit(workspace: &Workspace, analysis: &Analysis, edits: &[Edit]) -> WorkspaceEdit {
    let mut changes: HashMap<Uri, Vec<TextEdit>> = HashMap::new();
    for edit in edits {
        let place = workspace.location(analysis, edit.span);
        let edit = TextEdit { range: place.range, new_text: edit.text.clone() };
        changes.entry(place.uri).or_default().push(edit);
    }
    WorkspaceEdit { changes: Some(changes), ..WorkspaceEdit::default() }
}
