//! A starting file: a pipeline for a task, with a comment for every choice in it.

use std::fmt::Write as _;

use crate::lang::syntax::{Term, Value};
use crate::problem::Span;

/// What a starting file is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Starter {
    /// The file's name without its ending.
    pub name: String,
    pub rows: Rows,
    /// The data file, as it is called from the pipeline's folder. All paths are.
    pub data: String,
    pub weights: Weights,
    /// Not needed for rows of tokens.
    pub tokenizer: String,
    /// In tokens.
    pub max_length: u64,
    /// An amount of memory in the language, such as `24 GiB`.
    pub memory: Option<String>,
    /// A text to show how the result continues it.
    pub sample: Option<String>,
}

/// How a row becomes what the model reads.
#[derive(Debug, Clone, PartialEq)]
pub enum Rows {
    /// JSON rows, made into a prompt and a response by templates.
    Instruct { prompt: String, response: String },
    /// JSON rows with a column of text.
    Column(String),
    /// Lines of a plain text.
    Lines,
    /// JSON rows of token ids; with labels in the column `labels`, or without.
    Tokens { labels: bool },
}

/// Where the model comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Weights {
    Directory(String),
    /// A fresh start from a `config.json`.
    Random(String),
}

/// The prompt and response templates for rows with such columns, by what columns are mostly called.
pub fn templates(columns: &[String]) -> Option<(String, String)> {
    const PAIRS: &[(&str, &str)] = &[
        ("instruction", "output"),
        ("instruction", "response"),
        ("prompt", "completion"),
        ("prompt", "response"),
        ("question", "answer"),
        ("query", "response"),
        ("input", "output"),
        ("source", "target"),
    ];
    let has = |name: &str| columns.iter().any(|column| column == name);
    let (prompt, response) = PAIRS.iter().find(|(prompt, response)| has(prompt) && has(response))?;
    let input = if *prompt == "instruction" && has("input") { "{input}\n" } else { "" };
    Some((format!("{{{prompt}}}\n{input}"), format!("{{{response}}}")))
}

/// A text as the language writes it.
fn quoted(text: &str) -> String {
    Value { term: Term::Text(text.to_owned()), span: Span::default() }.to_string()
}

/// Columns of a line; a comment may need more.
const WIDTH: usize = 100;

/// The entries of a block, each with a comment behind it or, where that is empty, without. Their `=` stand in a
/// column, and so do the comments of entries that follow one another, as far as lines do not become too long.
fn block(text: &mut String, head: &str, entries: &[(&str, String, &str)], end: &str) {
    let width = entries.iter().map(|(key, ..)| key.len()).max().unwrap_or(0);
    let rows: Vec<(String, &str)> = entries
        .iter()
        .map(|(key, value, comment)| (format!("    {key:<width$} = {value}"), *comment))
        .collect();
    let _ = writeln!(text, "{head} {{");
    let mut rest = rows.as_slice();
    while let [(row, comment), ..] = rest {
        if comment.is_empty() {
            let _ = writeln!(text, "{row}");
            rest = &rest[1..];
            continue;
        }
        let (mut column, mut longest, mut n) = (0, 0, 0);
        for (row, comment) in rest.iter().take_while(|(_, comment)| !comment.is_empty()) {
            // `  # ` and the comment; one that is too long by itself moves no other.
            let end = row.chars().count();
            let own = 4 + comment.chars().count();
            let own = if end + own > WIDTH { 0 } else { own };
            if n > 0 && column.max(end) + longest.max(own) > WIDTH {
                break;
            }
            (column, longest, n) = (column.max(end), longest.max(own), n + 1);
        }
        for (row, comment) in &rest[..n] {
            let _ = writeln!(text, "{row:<column$}  # {comment}");
        }
        rest = &rest[n..];
    }
    let _ = writeln!(text, "{end}}}\n");
}

/// The whole file.
pub fn starter(starter: &Starter) -> String {
    let Starter { name, rows, data, weights, tokenizer, max_length, memory, sample } = starter;
    let model = match weights {
        Weights::Directory(path) => format!("every weight of the model in {path}"),
        Weights::Random(config) => format!("a fresh model of the shapes in {config}"),
    };
    let of_tokens = matches!(rows, Rows::Tokens { .. });
    let mut text = format!(
        "\
# Trains {model} on {data}, one layer at a time.
#
#     hift check {name}.hift      is anything wrong with it? with --data, what becomes of the rows?
#     hift plan  {name}.hift      what will happen, and how much memory will it need?
#     hift run   {name}.hift
#
# Paths start from the folder of this file. hift's manual, grammar/language.md, explains every word.

hift 1

## The highest learning rate; `hift run {name}.hift --set peak=1e-5` tries another one.
param peak: number in 1e-7 .. 1e-2 = {}

",
        match weights {
            Weights::Directory(_) => "2e-5",
            Weights::Random(_) => "1e-3",
        }
    );

    let source = match rows {
        Rows::Lines => ("source", format!("text({})", quoted(data)), "a row a line"),
        Rows::Instruct { .. } | Rows::Column(_) | Rows::Tokens { .. } => {
            ("source", format!("json({})", quoted(data)), "an object a line, or an array of objects")
        }
    };
    let format = match rows {
        Rows::Lines => ("text".to_owned(), ""),
        Rows::Column(column) => (format!("text(column = {})", quoted(column)), "the column that is read"),
        Rows::Instruct { prompt, response } => (
            format!("instruct(prompt = {}, response = {})", quoted(prompt), quoted(response)),
            "{name} is a column",
        ),
        Rows::Tokens { labels: true } => ("tokens(labels = \"labels\")".to_owned(), ""),
        Rows::Tokens { labels: false } => ("tokens".to_owned(), ""),
    };
    block(
        &mut text,
        "data rows",
        &[
            source,
            ("format", format.0, format.1),
            ("holdout", "2 %".into(), "never trained on, only measured"),
            ("shuffle", "seed(17)".into(), "another order in every epoch, the same in every run"),
        ],
        "",
    );

    if !of_tokens {
        let learned = match rows {
            Rows::Instruct { .. } => ("response", "the prompt is read, and not learned"),
            Rows::Column(_) | Rows::Lines | Rows::Tokens { .. } => ("all", ""),
        };
        block(
            &mut text,
            "tokenizer words",
            &[
                ("file", quoted(tokenizer), ""),
                ("max_length", format!("{max_length} tokens"), "longer rows lose their end"),
                ("pack", "false".into(), "true: short rows share a sequence, unseen by each other"),
                ("loss_on", learned.0.into(), learned.1),
            ],
            "",
        );
    }

    let from = match weights {
        Weights::Directory(path) => (quoted(path), ""),
        Weights::Random(config) => (format!("random({}, seed = 1)", quoted(config)), "a fresh start"),
    };
    let recompute = match memory {
        Some(_) => ("auto", "computes blocks twice where memory_limit asks for it"),
        None => ("none", "blocks: less memory, for about a third more work"),
    };
    block(
        &mut text,
        "model base",
        &[("weights", from.0, from.1), ("recompute", recompute.0.into(), recompute.1)],
        "",
    );

    text += "# Layers are embedding, block.0, block.1 ... and head. A step trains one group; the others are frozen.\n";
    block(
        &mut text,
        "groups layers",
        &[("split", "by_layer(1)".into(), "more layers a group: fewer steps a cycle, more memory")],
        "",
    );
    block(
        &mut text,
        "schedule hift",
        &[
            ("order", "bottom_up".into(), "or top_down, random(seed = 7), a list"),
            ("states", "host".into(), "where states rest between a group's turns"),
            ("rate", "cosine(peak = peak, warmup = 3 %)".into(), "moves on when a cycle ends"),
        ],
        "",
    );
    block(
        &mut text,
        "optimizer adamw",
        &[("betas", "[0.9, 0.999]".into(), ""), ("weight_decay", "0.01".into(), "")],
        "",
    );

    let mut stage = vec![("data", "rows".into(), "")];
    if !of_tokens {
        stage.push(("tokenizer", "words".into(), ""));
    }
    stage.extend([
        ("model", "base".into(), ""),
        ("groups", "layers".into(), ""),
        ("schedule", "hift".into(), ""),
        ("optimizer", "adamw".into(), ""),
        ("epochs", "3".into(), "or `steps = 500`; a step trains one group"),
        ("micro_batch", "4".into(), "rows in one forward pass: memory grows with it"),
        ("accumulate", "4".into(), "forward passes for one update: memory does not"),
        ("clip", "1.0".into(), "the largest norm of the active group's gradient"),
        ("seed", "1".into(), "what is random is the same in every run"),
    ]);
    if let Some(memory) = memory {
        stage.push(("memory_limit", memory.clone(), "a plan that needs more is refused"));
    }
    let parts = "    evaluate   { every = 200 steps  metrics = [loss, perplexity, accuracy] }\n    \
                 checkpoint { every = 200 steps  keep = 2 }\n";
    block(&mut text, "train sft", &stage, parts);

    if let (Some(sample), false) = (sample, of_tokens) {
        text += "# How the result continues a text.\n";
        block(
            &mut text,
            "generate show",
            &[
                ("from", "sft".into(), ""),
                ("prompts", format!("[{}]", quoted(sample)), ""),
                ("max_new_tokens", "64 tokens".into(), ""),
            ],
            "",
        );
    }
    text += "# A Hugging Face directory, which transformers loads.\n";
    block(
        &mut text,
        "export final",
        &[
            ("from", "sft".into(), ""),
            ("to", quoted(&format!("out/{name}")), ""),
            ("dtype", "fp32".into(), ""),
        ],
        "",
    );
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lang;

    #[test]
    fn every_starting_file_is_right() {
        let all_rows = [
            Rows::Instruct { prompt: "{a \"b\"}\n${c}".into(), response: "{d}".into() },
            Rows::Column("text".into()),
            Rows::Lines,
            Rows::Tokens { labels: true },
            Rows::Tokens { labels: false },
        ];
        for rows in all_rows {
            for weights in [Weights::Directory("models/a".into()), Weights::Random("config.json".into())] {
                for (memory, sample) in [(None, None), (Some("24 GiB"), Some("Say \"so\"\n"))] {
                    let text = starter(&Starter {
                        name: "chat".into(),
                        rows: rows.clone(),
                        data: "a \\ b.json".into(),
                        weights: weights.clone(),
                        tokenizer: "models/a/tokenizer.json".into(),
                        max_length: 512,
                        memory: memory.map(str::to_owned),
                        sample: sample.map(str::to_owned),
                    });
                    let (_, problems) = lang::check(&text, &lang::Options::default());
                    assert!(problems.0.is_empty(), "{problems}\n{text}");
                    assert!(text.lines().all(|line| line.trim_end() == line), "{text}");
                }
            }
        }
    }

    #[test]
    fn columns_that_are_called_as_usual_need_no_templates() {
        let check = |columns: &[&str], expected: Option<(&str, &str)>| {
            let columns: Vec<String> = columns.iter().map(|name| (*name).into()).collect();
            assert_eq!(templates(&columns), expected.map(|(a, b)| (a.into(), b.into())));
        };
        check(&["instruction", "input", "output"], Some(("{instruction}\n{input}\n", "{output}")));
        check(&["question", "answer"], Some(("{question}\n", "{answer}")));
        check(&["completion", "prompt"], Some(("{prompt}\n", "{completion}")));
        check(&["number", "words"], None);
    }
}
