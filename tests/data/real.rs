//! Real rows and real tokenizers, where a checkout has them beside it; skipped elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use hift::data::{Encoder, IGNORE, Limits, Marks};
use hift::lang::pipeline::{Format, Mark, Setting};
use serde_json::Value;

use crate::cases::Case;

fn shared() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let found = folder.join("alpaca/alpaca_2000.jsonl").is_file().then_some(folder);
    if found.is_none() {
        println!("skipped: there is no real data beside this checkout");
    }
    found
}

/// The first `n` rows of alpaca with the tokenizer of phi-3-mini.
fn alpaca(shared: &Path, n: usize) -> Case {
    let rows = fs::read_to_string(shared.join("alpaca/alpaca_2000.jsonl")).unwrap();
    let rows: Vec<_> = rows.lines().take(n).collect();
    let tokenizer = shared.join("tokenizers/phi-3-mini/tokenizer.json");
    let format = Format::Instruct { prompt: "{instruction}\n{input}\n".into(), response: "{output}".into() };
    Case::new(&rows.join("\n"), format).with(|case| {
        case.tokenizer.file.value = Some(tokenizer.to_str().unwrap().to_owned());
        case.limits = Limits::language(32064, 4096);
    })
}

/// What [`alpaca`] renders, built here by other means.
fn texts(shared: &Path, n: usize) -> Vec<(String, String)> {
    let rows = fs::read_to_string(shared.join("alpaca/alpaca_2000.jsonl")).unwrap();
    let text = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let column = |name: &str| row[name].as_str().unwrap().to_owned();
        (format!("{}\n{}\n", column("instruction"), column("input")), column("output"))
    };
    rows.lines().take(n).map(text).collect()
}

#[test]
fn alpaca_rows_are_what_the_tokenizers_crate_makes_of_them() {
    let Some(shared) = shared() else { return };
    let dataset = alpaca(&shared, 50).load().unwrap();
    let file = shared.join("tokenizers/phi-3-mini/tokenizer.json");
    let tokenizer = tokenizers::Tokenizer::from_file(file).unwrap();
    for (sequence, (prompt, response)) in dataset.train.iter().zip(texts(&shared, 50)) {
        let encoding = tokenizer.encode(format!("{prompt}{response}"), true).unwrap();
        let mut ids = encoding.get_ids().to_vec();
        ids.push(32000); // <|endoftext|>, the eos_token of its tokenizer_config.json
        assert_eq!(*sequence.ids, ids);
        let first = sequence.labels.iter().position(|&label| label != IGNORE).unwrap() + 1;
        assert!(sequence.labels[first - 1..ids.len() - 1].iter().all(|&label| label != IGNORE));
        // What carries the loss is the response, but for a token that straddles its beginning.
        let learnt = tokenizer.decode(&ids[first..], true).unwrap();
        assert!(learnt.trim().ends_with(response.trim()) || response.ends_with(learnt.as_str()), "{learnt}");
    }
}

#[test]
fn the_marks_of_known_tokenizers() {
    let Some(shared) = shared() else { return };
    let auto = Setting::default(Mark::Auto);
    let check = |name: &str, begin: &[u32], end: &[u32]| {
        let file = format!("tokenizers/{name}/tokenizer.json");
        let encoder = Encoder::load(&shared, &file, None).unwrap();
        let expected = Marks { begin: begin.to_vec(), end: end.to_vec() };
        assert_eq!(encoder.marks(&auto, &auto), Ok(expected), "{name}");
    };
    check("bert-base-uncased", &[101], &[102]); // [CLS] ... [SEP]
    check("roberta-base", &[0], &[2]); // <s> ... </s>
    check("phi-3-mini", &[], &[32000]); // <|endoftext|>
    check("gpt2", &[], &[]); // nothing beside its tokenizer.json says how a text ends
}
