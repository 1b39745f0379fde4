//! What the tests of the data room share: a small tokenizer, and blocks as a pipeline would give them.

use std::fs;
use std::path::Path;

use hift::data::{self, Dataset, Limits, Sequences};
use hift::lang::pipeline::{
    Data, Format, Holdout, LossOn, Mark, Setting, Shuffle, Source, Tokenizer, TooLong,
};
use hift::problem::{Problems, Span};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const LIMITS: Limits = Limits::language(16, 12);

/// A BPE over a, b, c, d, e, space and newline that joins `ab`, and does not split the text before that. `before`
/// and `after` are what its post-processor adds. The file asks for cutting and padding, which must be ignored.
pub fn tokenizer_json(before: &[&str], after: &[&str]) -> String {
    let special = ["<s>", "</s>", "<pad>"];
    let added = |(id, token): (usize, &&str)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let mark = |token: &&str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let single: Vec<Value> =
        before.iter().map(mark).chain([text.clone()]).chain(after.iter().map(mark)).collect();
    let known = |(id, token): (usize, &&str)| {
        ((*token).to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}))
    };
    let known: serde_json::Map<_, _> = special.iter().enumerate().map(known).collect();
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": null, "pad_id": 2,
                    "pad_type_id": 0, "pad_token": "<pad>"},
        "added_tokens": special.iter().enumerate().map(added).collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": [text.clone(), text],
                           "special_tokens": known},
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": {"<s>": 0, "</s>": 1, "<pad>": 2, "a": 3, "b": 4, "c": 5, "d": 6, "e": 7,
                            " ": 8, "\n": 9, "ab": 10},
                  "merges": [["a", "b"]]},
    })
    .to_string()
}

/// One case: the files of a folder, the blocks and the model's limits. The spans of settings are made up, but
/// each has its own.
pub struct Case {
    pub folder: TempDir,
    pub data: Data,
    pub tokenizer: Tokenizer,
    pub limits: Limits,
}

impl Case {
    /// `rows.jsonl` with these lines, in a folder with a tokenizer that puts `<s>` in front and has `</s>` as `eos_token`.
    pub fn new(rows: &str, format: Format) -> Self {
        let case = Self {
            folder: tempfile::tempdir().unwrap(),
            data: Data {
                name: "rows".to_owned(),
                span: Span::new(0, 1),
                source: Setting::written(Source::Json { path: "rows.jsonl".to_owned() }, Span::new(1, 2)),
                format: Setting::written(format, Span::new(2, 3)),
                filter: Setting::default(Vec::new()),
                dedup: Setting::default(false),
                holdout: Setting::written(Holdout::None, Span::new(3, 4)),
                shuffle: Setting::default(Shuffle::None),
            },
            tokenizer: Tokenizer {
                name: "small".to_owned(),
                span: Span::new(4, 5),
                file: Setting::written(Some("tokenizer.json".to_owned()), Span::new(5, 6)),
                hub: None,
                max_length: Setting::written(None, Span::new(6, 7)),
                too_long: Setting::written(TooLong::Cut, Span::new(7, 8)),
                pack: Setting::default(false),
                loss_on: Setting::written(LossOn::Response, Span::new(8, 9)),
                begin: Setting::written(Mark::Auto, Span::new(9, 10)),
                end: Setting::written(Mark::Auto, Span::new(10, 11)),
            },
            limits: LIMITS,
        };
        case.write("rows.jsonl", rows)
            .write("tokenizer.json", tokenizer_json(&["<s>"], &[]))
            .write("tokenizer_config.json", r#"{"eos_token": {"content": "</s>"}}"#)
    }

    /// Rows of one text each.
    pub fn text(rows: &[&str]) -> Self {
        let lines: Vec<String> = rows.iter().map(|text| json!({"text": text}).to_string()).collect();
        Self::new(&lines.join("\n"), Format::Text { column: "text".to_owned() })
    }

    /// Rows of a prompt and a response.
    pub fn instruct(rows: &[(&str, &str)]) -> Self {
        let line = |(p, r): &(&str, &str)| json!({"p": p, "r": r}).to_string();
        let lines: Vec<String> = rows.iter().map(line).collect();
        Self::new(
            &lines.join("\n"),
            Format::Instruct { prompt: "{p}".to_owned(), response: "{r}".to_owned() },
        )
    }

    /// Rows of ids and labels.
    pub fn tokens(lines: &str) -> Self {
        Self::new(
            lines,
            Format::Tokens {
                input: "input_ids".to_owned(),
                labels: Some("labels".to_owned()),
                label: None,
                mask: None,
            },
        )
    }

    pub fn write(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        fs::write(self.folder.path().join(name), text).unwrap();
        self
    }

    pub fn remove(self, name: &str) -> Self {
        fs::remove_file(self.folder.path().join(name)).unwrap();
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut Case)) -> Self {
        change(&mut self);
        self
    }

    pub fn max_length(self, tokens: u64) -> Self {
        self.with(|case| case.tokenizer.max_length.value = Some(tokens))
    }

    pub fn load(&self) -> Result<Dataset, Problems> {
        data::load(self.folder.path(), &self.data, &self.tokenizer, &self.limits, &|| false)
    }

    /// The training rows: a line a sequence, packed rows apart, `[...]` around what carries a loss.
    pub fn shown(&self) -> String {
        let dataset = self.load().unwrap_or_else(|problems| panic!("{problems}"));
        let encoder = data::Encoder::open(self.folder.path(), &self.tokenizer).ok();
        show(&dataset.train, encoder.as_ref())
    }

    /// Every problem: its exit code, code and message, what its labels point at and say, and its help.
    pub fn problems(&self) -> String {
        let problems = match self.load() {
            Ok(dataset) => Problems(dataset.audit.warnings),
            Err(problems) => problems,
        };
        self.describe(&problems)
    }

    fn describe(&self, problems: &Problems) -> String {
        let places = [
            "data",
            "source",
            "format",
            "holdout",
            "tokenizer",
            "file",
            "max_length",
            "too_long",
            "loss_on",
            "begin",
            "end",
        ];
        let mut text = String::new();
        for problem in &problems.0 {
            text += &format!("{} {}: {}\n", problem.fault.exit_code(), problem.code, problem.message);
            for label in &problem.labels {
                text += &format!("  at {}: {}\n", places[label.span.start], label.text);
            }
            if let Some(help) = &problem.help {
                text += &format!("  help: {help}\n");
            }
        }
        hide(&text, self.folder.path())
    }
}

fn hide(text: &str, folder: &Path) -> String {
    text.replace(&folder.display().to_string(), "FOLDER")
}

/// See [`Case::shown`].
pub fn show(sequences: &Sequences, encoder: Option<&data::Encoder>) -> String {
    let mut lines = Vec::new();
    for preview in data::preview(sequences, encoder, None, usize::MAX) {
        let segment = |segment: &data::Segment| {
            let token = |seen: &data::Seen| {
                let text = seen.token.replace('\n', "\\n");
                if seen.trained { format!("[{text}]") } else { text }
            };
            segment.tokens.iter().map(token).collect::<Vec<_>>().join("|")
        };
        lines.push(preview.segments.iter().map(segment).collect::<Vec<_>>().join("  "));
    }
    lines.join("\n")
}
