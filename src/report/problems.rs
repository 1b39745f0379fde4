//! Problems for machines: JSON of our own, SARIF for code scanners, and the commands of GitHub's workflows.
//!
//! Lines and columns count from 1, columns in characters; spans are bytes of the file, from 0.

use std::cell::OnceCell;

use serde_json::{Value as Json, json};

use crate::explain;
use crate::lang::pipeline::Hook;
use crate::lang::{Change, Sources};
use crate::problem::{Edit, Fault, Label, Problem, Problems, Severity, Span};

/// The version of the JSON that [`json`] gives.
pub const SCHEMA: u32 = 1;

/// A file that was checked.
#[derive(Debug, Clone)]
pub struct Checked {
    /// As it was named on the command line.
    pub name: String,
    pub problems: Problems,
    /// What the problems point into.
    pub sources: Sources,
    /// The problems that `--fix` has taken away.
    pub fixed: Vec<Change>,
    /// What became of the rows, in text for people and in JSON, if they were looked at.
    pub audits: Vec<(String, Json)>,
    /// The commands that a run of it calls.
    pub hooks: Vec<Hook>,
    /// Where the lines of each source begin, once somebody asks.
    lines: OnceCell<Vec<Vec<usize>>>,
}

impl Checked {
    pub fn new(name: String, problems: Problems, sources: Sources, fixed: Vec<Change>) -> Self {
        Self { name, problems, sources, fixed, audits: Vec::new(), hooks: Vec::new(), lines: OnceCell::new() }
    }

    fn count(&self, severity: Severity) -> usize {
        self.problems.0.iter().filter(|problem| problem.severity == severity).count()
    }

    /// A place as people and machines call it; nothing where there is no text to point into.
    fn place(&self, span: Span) -> Option<Place<'_>> {
        let (i, span) = self.sources.locate(span);
        let source = self.sources.get(i)?;
        let begins = |text: &str| {
            let behind = text.match_indices('\n').map(|(at, _)| at + 1);
            std::iter::once(0).chain(behind).collect::<Vec<usize>>()
        };
        let lines = self.lines.get_or_init(|| self.sources.iter().map(|one| begins(&one.text)).collect());
        let position = |at: usize| {
            let line = lines[i].partition_point(|start| *start <= at);
            (line, source.text[lines[i][line - 1]..at].chars().count() + 1)
        };
        Some(Place { file: &source.name, span, start: position(span.start), end: position(span.end) })
    }

    fn first_place(&self, problem: &Problem) -> Option<Place<'_>> {
        problem.labels.first().and_then(|label| self.place(label.span))
    }
}

struct Place<'c> {
    file: &'c str,
    /// In the file's own bytes.
    span: Span,
    /// Line and column.
    start: (usize, usize),
    /// Of the first character behind it.
    end: (usize, usize),
}

impl Place<'_> {
    fn json(&self) -> Json {
        json!({
            "file": self.file,
            "line": self.start.0,
            "column": self.start.1,
            "end_line": self.end.0,
            "end_column": self.end.1,
            "span": { "start": self.span.start, "end": self.span.end },
        })
    }

    /// A region of SARIF 2.1.0, section 3.30.
    fn region(&self) -> Json {
        json!({
            "startLine": self.start.0,
            "startColumn": self.start.1,
            "endLine": self.end.0,
            "endColumn": self.end.1,
            "byteOffset": self.span.start,
            "byteLength": self.span.end - self.span.start,
        })
    }

    fn location(&self) -> Json {
        json!({ "artifactLocation": { "uri": uri(self.file) }, "region": self.region() })
    }
}

/// The first error on one line, for a log: `FILE:LINE:COLUMN: what is so (what is there); what to do; 2 more`.
pub fn line(checked: &Checked) -> String {
    let errors: Vec<&Problem> = checked.problems.0.iter().filter(|problem| problem.is_error()).collect();
    let Some(first) = errors.first() else { return String::new() };
    let mut line = match checked.first_place(first) {
        Some(Place { file, start: (line, column), .. }) => format!("{file}:{line}:{column}: "),
        None => String::new(),
    };
    line += &first.message;
    if let Some(label) = first.labels.first().filter(|label| !label.text.is_empty()) {
        line += &format!(" ({})", label.text);
    }
    line.extend(first.help.iter().map(|help| format!("; help: {help}")));
    if errors.len() > 1 {
        line += &format!("; and {} more", errors.len() - 1);
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn severity(problem: &Problem) -> &'static str {
    match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// One object with every problem, in the order of the files.
pub fn json(checked: &[Checked]) -> Json {
    let files: Vec<Json> = checked
        .iter()
        .map(|file| {
            let fixed = file.fixed.iter();
            let fixed = fixed
                .map(|change| json!({ "line": change.line, "code": change.code, "message": change.message }));
            let mut object = json!({
                "file": file.name,
                "errors": file.count(Severity::Error),
                "warnings": file.count(Severity::Warning),
                "fixed": fixed.collect::<Vec<_>>(),
            });
            if !file.audits.is_empty() {
                object["audits"] = file.audits.iter().map(|(_, audit)| audit.clone()).collect();
            }
            object
        })
        .collect();
    let problems = checked.iter().flat_map(|file| file.problems.0.iter().map(|problem| one(file, problem)));
    json!({ "schema": SCHEMA, "files": files, "problems": problems.collect::<Vec<_>>() })
}

fn one(file: &Checked, problem: &Problem) -> Json {
    let with = |place: Option<Place<'_>>, text: &str| {
        let mut object = place.map_or(json!({}), |place| place.json());
        object["text"] = text.into();
        object
    };
    let labels = problem.labels.iter().map(|Label { span, text }| with(file.place(*span), text));
    let fix = problem.fix.iter().map(|Edit { span, text }| with(file.place(*span), text));
    let mut object = json!({
        "code": problem.code,
        "severity": severity(problem),
        "exit_code": problem.is_error().then(|| problem.fault.exit_code()),
        "message": problem.message,
        "help": problem.help,
    });
    let nowhere = json!({
        "file": file.name, "line": null, "column": null, "end_line": null, "end_column": null, "span": null,
    });
    let place = file.first_place(problem).map_or(nowhere, |place| place.json());
    if let (Some(object), Json::Object(place)) = (object.as_object_mut(), place) {
        object.extend(place);
    }
    object["labels"] = labels.collect();
    object["fix"] = fix.collect();
    object
}

/// A log of SARIF 2.1.0: <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>.
pub fn sarif(checked: &[Checked]) -> Json {
    let mut codes: Vec<&str> =
        checked.iter().flat_map(|file| &file.problems.0).map(|problem| problem.code).collect();
    codes.sort_unstable();
    codes.dedup();
    let rules: Vec<Json> = codes.iter().map(|code| rule(code)).collect();
    let results = checked.iter().flat_map(|file| {
        file.problems.0.iter().map(|problem| {
            let rule = codes.binary_search(&problem.code).unwrap_or_default();
            result(file, problem, rule)
        })
    });
    let results: Vec<Json> = results.collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {
                "driver": { "name": "hift", "version": env!("CARGO_PKG_VERSION"), "rules": rules },
            },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn rule(code: &str) -> Json {
    let mut rule = json!({ "id": code });
    if let Some(found) = explain::find(code) {
        rule["shortDescription"] = json!({ "text": found.line });
        rule["fullDescription"] = json!({ "text": found.text });
        rule["help"] = json!({ "text": format!("hift explain {}", found.code) });
    }
    rule
}

fn result(file: &Checked, problem: &Problem, rule: usize) -> Json {
    let text = match &problem.help {
        Some(help) => format!("{}\n{help}", problem.message),
        None => problem.message.clone(),
    };
    let placed = |label: &Label| {
        let location = file.place(label.span)?.location();
        Some(json!({ "physicalLocation": location, "message": { "text": label.text } }))
    };
    let first = problem.labels.first().and_then(placed);
    let place = first
        .unwrap_or_else(|| json!({ "physicalLocation": { "artifactLocation": { "uri": uri(&file.name) } } }));
    let mut result = json!({
        "ruleId": problem.code,
        "ruleIndex": rule,
        "level": severity(problem),
        "message": { "text": text },
        "locations": [place],
    });
    let related: Vec<Json> = problem.labels.iter().skip(1).filter_map(placed).collect();
    if !related.is_empty() {
        result["relatedLocations"] = related.into();
    }
    if let Some(fix) = sarif_fix(file, problem) {
        result["fixes"] = json!([fix]);
    }
    result
}

/// Replacements by file; nothing where there is no fix.
fn sarif_fix(file: &Checked, problem: &Problem) -> Option<Json> {
    let mut changes: Vec<(&str, Vec<Json>)> = Vec::new();
    for Edit { span, text } in &problem.fix {
        let place = file.place(*span)?;
        let replacement = json!({ "deletedRegion": place.region(), "insertedContent": { "text": text } });
        match changes.iter_mut().find(|(name, _)| *name == place.file) {
            Some((_, replacements)) => replacements.push(replacement),
            None => changes.push((place.file, vec![replacement])),
        }
    }
    let changes: Vec<Json> = changes
        .into_iter()
        .map(|(name, replacements)| {
            json!({ "artifactLocation": { "uri": uri(name) }, "replacements": replacements })
        })
        .collect();
    let help = problem.help.as_deref().unwrap_or("fix it");
    (!changes.is_empty()).then(|| json!({ "description": { "text": help }, "artifactChanges": changes }))
}

/// A path as a URI reference, RFC 3986.
fn uri(path: &str) -> String {
    let path = path.replace('\\', "/");
    let mut uri = if path.starts_with('/') { "file://".to_owned() } else { String::new() };
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(byte as char)
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri
}

/// A workflow command of GitHub a line, which its runner shows beside the changed lines.
pub fn github(checked: &[Checked]) -> String {
    let mut text = String::new();
    for file in checked {
        for problem in &file.problems.0 {
            let place = file.first_place(problem);
            let name = place.as_ref().map_or(file.name.as_str(), |place| place.file);
            text += &format!("::{} file={}", severity(problem), property(name));
            if let Some(Place { start, end, .. }) = place {
                text += &format!(",line={},col={},endLine={}", start.0, start.1, end.0);
                // A column behind the last one is one only on the same line.
                if end.0 == start.0 && end.1 > start.1 {
                    text += &format!(",endColumn={}", end.1 - 1);
                }
            }
            let help = problem.help.as_ref().map_or(String::new(), |help| format!("\nhelp: {help}"));
            let message = format!("{}{help}", problem.message);
            text += &format!(",title={}::{}\n", property(problem.code), data(&message));
        }
    }
    text
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// The fault that decides the exit code over all files: that of the first one that has errors.
pub fn fault(checked: &[Checked]) -> Option<Fault> {
    checked.iter().find(|file| file.problems.has_errors()).map(|file| file.problems.fault())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lang::{Options, Source, read};

    fn checked(text: &str) -> Checked {
        let reading = read(Source::new("a b.hift", text), &Options::default());
        Checked::new("a b.hift".into(), reading.problems, reading.loaded.sources, Vec::new())
    }

    #[test]
    fn a_place_is_counted_in_lines_and_characters() {
        let checked = checked("hift 1\n# é\nmodel llama { weights = \"é\" recompute = nome }");
        let json = json(&[checked]);
        let problem = json["problems"]
            .as_array()
            .unwrap()
            .iter()
            .find(|problem| problem["code"] == "hift::lang::unknown_word");
        let problem = problem.expect("the word is not known");
        assert_eq!((&problem["line"], &problem["column"]), (&json!(3), &json!(41)));
        assert_eq!((&problem["end_line"], &problem["end_column"]), (&json!(3), &json!(45)));
        assert_eq!(problem["span"], json!({ "start": 53, "end": 57 }));
        assert_eq!(problem["fix"][0]["text"], "none");
        assert_eq!(problem["labels"][0]["text"], "not known here");
    }

    #[test]
    fn what_a_workflow_command_cannot_hold_is_escaped() {
        let text = github(&[checked("hift 1\ndata rows { holdout = 150 % }")]);
        let line = text.lines().find(|line| line.contains("range")).expect("150 % is out of range");
        assert!(line.starts_with("::error file=a b.hift,line=2,col=23,endLine=2,endColumn=27,"), "{line}");
        assert!(line.contains("title=hift%3A%3Alang%3A%3Arange::`holdout` is 150 %25"), "{line}");
        assert!(line.contains("%0Ahelp: "), "{line}");
    }

    #[test]
    fn a_path_is_a_uri() {
        let check = |path: &str, expected: &str| assert_eq!(uri(path), expected);
        check("a/b c.hift", "a/b%20c.hift");
        check("/a/é", "file:///a/%C3%A9");
        check("a\\b", "a/b");
    }
}
