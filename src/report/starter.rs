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

/// The column in which comments stand, without the indentation.
const COMMENTS: usize = 44;

/// An entry with a comment behind it or, where the entry is long, above it.
fn entry(text: &mut String, written: &str, comment: &str) {
    let _ = match written.chars().count() < COMMENTS {
        true => writeln!(text, "    {written:<COMMENTS$}# {comment}"),
        false => writeln!(text, "    # {comment}\n    {written}"),
    };
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

    text += "data rows {\n";
    match rows {
        Rows::Lines => entry(&mut text, &format!("source  = text({})", quoted(data)), "a row a line"),
        Rows::Instruct { .. } | Rows::Column(_) | Rows::Tokens { .. } => {
            entry(&mut text, &format!("source  = json({})", quoted(data)), "an object a line, or an array");
        }
    }
    match rows {
        Rows::Lines => text += "    format  = text\n",
        Rows::Column(column) => {
            entry(&mut text, &format!("format  = text(column = {})", quoted(column)), "what is read");
        }
        Rows::Instruct { prompt, response } => {
            text += "    # {name} is a column; only what the response holds is learned.\n";
            let _ = writeln!(
                text,
                "    format  = instruct(prompt = {}, response = {})",
                quoted(prompt),
                quoted(response)
            );
        }
        Rows::Tokens { labels: true } => text += "    format  = tokens(labels = \"labels\")\n",
        Rows::Tokens { labels: false } => text += "    format  = tokens\n",
    }
    entry(&mut text, "holdout = 2 %", "never trained on, only measured");
    entry(&mut text, "shuffle = seed(17)", "another order in every epoch, the same in every run");
    text += "}\n\n";

    if !of_tokens {
        text += "tokenizer words {\n";
        let _ = writeln!(text, "    file       = {}", quoted(tokenizer));
        entry(&mut text, &format!("max_length = {max_length} tokens"), "longer rows lose their end");
        entry(&mut text, "pack       = false", "true: short rows share a sequence, unseen by each other");
        text += "}\n\n";
    }

    text += "model base {\n";
    match weights {
        Weights::Directory(path) => {
            let _ = writeln!(text, "    weights   = {}", quoted(path));
        }
        Weights::Random(config) => {
            let written = format!("weights   = random({}, seed = 1)", quoted(config));
            entry(&mut text, &written, "a fresh start");
        }
    }
    match memory {
        Some(_) => {
            entry(&mut text, "recompute = auto", "computes blocks twice where memory_limit asks for it")
        }
        None => entry(&mut text, "recompute = none", "blocks: less memory, for about a third more work"),
    }
    text += "}\n\n";

    text += "# Layers are embedding, block.0, block.1 ... and head. A step trains one group; the others are frozen.\n";
    text += "groups layers {\n";
    entry(&mut text, "split = by_layer(1)", "more layers a group: fewer steps a cycle, more memory");
    text += "}\n\n";

    text += "schedule hift {\n";
    entry(&mut text, "order  = bottom_up", "or top_down, random(seed = 7), or a list of names");
    entry(&mut text, "states = host", "where optimizer states rest between a group's turns");
    entry(&mut text, "rate   = cosine(peak = peak, warmup = 3 %)", "moves on when all groups had their turn");
    text += "}\n\n";

    text += "optimizer adamw {\n    betas        = [0.9, 0.999]\n    weight_decay = 0.01\n}\n\n";

    text += "train sft {\n";
    let mut stage = vec![("data", "rows", ""), ("model", "base", ""), ("groups", "layers", "")];
    if !of_tokens {
        stage.insert(1, ("tokenizer", "words", ""));
    }
    stage.extend([
        ("schedule", "hift", ""),
        ("optimizer", "adamw", ""),
        ("epochs", "3", "or `steps = 500`; a step trains one group"),
        ("micro_batch", "4", "rows in one forward pass: memory grows with it"),
        ("accumulate", "4", "forward passes for one update: memory does not"),
        ("clip", "1.0", "the largest norm of the active group's gradient"),
        ("seed", "1", "what is random is the same in every run"),
    ]);
    if let Some(memory) = memory {
        stage.push(("memory_limit", memory, "a plan that needs more is refused"));
    }
    let width = stage.iter().map(|(key, ..)| key.len()).max().unwrap_or(0);
    for (key, value, comment) in stage {
        let written = format!("{key:<width$} = {value}");
        match comment {
            "" => _ = writeln!(text, "    {written}"),
            comment => entry(&mut text, &written, comment),
        }
    }
    text += "    evaluate   { every = 200 steps  metrics = [loss, perplexity, accuracy] }\n";
    text += "    checkpoint { every = 200 steps  keep = 2 }\n}\n\n";

    if let (Some(sample), false) = (sample, of_tokens) {
        let _ = writeln!(
            text,
            "# How the result continues a text.\ngenerate show {{\n    from           = sft\n    \
             prompts        = [{}]\n    max_new_tokens = 64 tokens\n}}\n",
            quoted(sample)
        );
    }
    let _ = write!(
        text,
        "# A Hugging Face directory, which transformers loads.\nexport final {{\n    from  = sft\n    \
         to    = {}\n    dtype = fp32\n}}\n",
        quoted(&format!("out/{name}"))
    );
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
