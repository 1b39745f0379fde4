//! Applies the changes that problems carry, where they leave no doubt.
//!
//! Each change is tried before it is kept: afterwards less is wrong than before. A text that can be read better may
//! show mistakes that nobody could see, so what cannot be read counts first, then errors, then warnings.

use crate::problem::{Edit, Problem, Problems, Severity, Span};

use super::resolve::Options;
use super::source::{Source, Sources};
use super::{Reading, parse, read};

/// Changes make room for others: after so many rounds there is an end.
const MAX_ROUNDS: usize = 16;

/// Changes of one round.
const MAX_AT_ONCE: usize = 1000;

/// Changes that are tried one by one, each of which reads the whole file.
const MAX_TRIALS: usize = 256;

/// A file after its fixes, and what was changed.
#[derive(Debug, Clone)]
pub struct Fixed {
    pub text: String,
    pub changes: Vec<Change>,
    /// What the fixed text means, and what is still wrong with it.
    pub reading: Reading,
}

/// A problem that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where it stood, from 1, in the text as it was when this was changed.
    pub line: usize,
    pub code: &'static str,
    pub message: String,
}

/// How much is wrong: what cannot be read, errors, warnings.
type Score = (usize, usize, usize);

/// The file with all fixes that its problems carry; files that it imports are left alone.
pub fn fix(source: Source, options: &Options) -> Fixed {
    let mut reading = read(source.clone(), options);
    let mut fixed = Fixed { text: source.text.clone(), changes: Vec::new(), reading: reading.clone() };
    for _ in 0..MAX_ROUNDS {
        let candidates = candidates(&reading);
        if candidates.is_empty() {
            break;
        }
        let with = |text: &str| Source { text: text.to_owned(), ..source.clone() };
        let before = score(&fixed.text, &reading);
        let mut text = apply(&fixed.text, candidates.iter().flat_map(|candidate| &candidate.edits));
        let mut done: Vec<&Candidate> = candidates.iter().collect();
        let mut after = read(with(&text), options);
        // All at once where that takes away as much as it should; else one by one.
        let (unread, errors, warnings) = score(&text, &after);
        if unread > before.0 || errors + warnings + candidates.len() > before.1 + before.2 {
            (text, done, after) = (fixed.text.clone(), Vec::new(), reading.clone());
            let mut best = before;
            for candidate in candidates.iter().take(MAX_TRIALS) {
                let edits = done.iter().chain([&candidate]).flat_map(|candidate| &candidate.edits);
                let trial = apply(&fixed.text, edits);
                let trial_reading = read(with(&trial), options);
                let found = score(&trial, &trial_reading);
                if found < best {
                    (text, best, after) = (trial, found, trial_reading);
                    done.push(candidate);
                }
            }
        }
        if done.is_empty() {
            break;
        }
        fixed.changes.extend(done.iter().map(|candidate| candidate.change.clone()));
        (fixed.text, reading) = (text, after);
    }
    fixed.reading = reading;
    fixed
}

struct Candidate {
    change: Change,
    /// In the text of the file itself.
    edits: Vec<Edit>,
}

/// What can be changed at once, in the order of the file.
fn candidates(reading: &Reading) -> Vec<Candidate> {
    let sources: &Sources = reading.sources();
    let mut candidates: Vec<Candidate> = Vec::new();
    let fixable = reading.problems.0.iter().filter(|problem| !problem.fix.is_empty());
    for Problem { fix, labels, code, message, .. } in fixable {
        let own = fix.iter().map(|edit| match sources.locate(edit.span) {
            (0, span) => Some(Edit { span, text: edit.text.clone() }),
            _ => None,
        });
        let Some(edits) = own.collect::<Option<Vec<Edit>>>() else { continue };
        let taken = candidates.iter().flat_map(|candidate| &candidate.edits);
        if taken.into_iter().any(|taken| edits.iter().any(|edit| collide(taken, edit))) {
            continue;
        }
        if candidates.len() >= MAX_AT_ONCE {
            break;
        }
        let place = labels.first().map_or(edits[0].span, |label| sources.locate(label.span).1);
        let text = sources.first().map_or("", |source| source.text.as_str());
        let line = text[..place.start].matches('\n').count() + 1;
        candidates.push(Candidate { change: Change { line, code, message: message.clone() }, edits });
    }
    candidates.sort_by_key(|candidate| candidate.edits.iter().map(|edit| edit.span).min());
    candidates
}

/// Whether two edits cannot both be made. Two insertions at one place can, one behind the other.
fn collide(one: &Edit, other: &Edit) -> bool {
    let (a, b) = (one.span, other.span);
    let overlap = a.start < b.end && b.start < a.end;
    overlap || (one == other)
}

/// The text with edits that do not overlap.
pub fn apply<'e>(text: &str, edits: impl IntoIterator<Item = &'e Edit>) -> String {
    let mut edits: Vec<&Edit> = edits.into_iter().collect();
    edits.sort_by_key(|edit| edit.span);
    let mut result = String::with_capacity(text.len());
    let mut from = 0;
    for Edit { span: Span { start, end }, text: instead } in edits {
        result.push_str(&text[from..*start]);
        result.push_str(instead);
        from = *end;
    }
    result.push_str(&text[from..]);
    result
}

fn score(text: &str, reading: &Reading) -> Score {
    let count = |problems: &Problems, severity| {
        problems.0.iter().filter(|problem| problem.severity == severity).count()
    };
    let (_, unread) = parse(text);
    (unread.0.len(), count(&reading.problems, Severity::Error), count(&reading.problems, Severity::Warning))
}
