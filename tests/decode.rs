//! Texts that are continued over a cache of keys and values, against passes over the whole text.

mod common;

use std::fs;

use hift::engine::{Inputs, Knobs, Store, play, store};
use hift::lang::pipeline::{Algorithm, Weights};
use hift::model::{Model, Task};
use hift::program::precision::lower;
use hift::program::{BatchShape, CacheShape, forward_only};
use hift::units::Dtype;
use serde_json::json;

use common::families::FAMILIES;

const STILL: Knobs<'static> = Knobs {
    loss_scale: 0.0,
    unscale: 1.0,
    noise: 0,
    rate: 0.0,
    factors: &[],
    algorithm: &Algorithm::Sgd,
    weight_decay: 0.0,
};

/// The logits behind the first `n` of `ids`, by a pass over all of them, computed in `dtype`.
fn whole(model: &Model, dtype: Dtype, store: &mut Store, ids: &[u32], n: usize) -> Vec<f32> {
    let shape = BatchShape { batch: 1, seq: n, packed: false, far: model.is_far(n) };
    let inputs = Inputs {
        ids: ids[..n].to_vec(),
        positions: (0..n as u32).collect(),
        queries: vec![n as u32 - 1],
        ..Inputs::default()
    };
    let program = forward_only(&lower(model.logits(shape), dtype), 2);
    play(&program, store, inputs, Vec::new(), &STILL).unwrap().numbers(0)
}

/// Two texts, the second with a shorter prompt, whose rows lie in the cache behind each other's. Logits may be apart by
/// `noise` of the largest.
fn check(name: &str, config: &str, dtype: Dtype, noise: f32) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config).unwrap();
    let model = Model::from_config(config).unwrap();
    // Texts that become long are read again, which is another test.
    if model.task() != Task::NextToken || model.near().is_some() {
        return;
    }
    let weights = Weights::Random { config: "config.json".into(), seed: 1 };
    let mut store = Store::new(store::load(&model, &weights, folder.path(), dtype).unwrap());
    let texts: [Vec<u32>; 2] =
        [(0..12).map(|i| (7 * i + 3) % 40).collect(), (0..12).map(|i| (11 * i + 5) % 40).collect()];
    let (prompts, capacity) = ([5, 2], 14);
    let cache = CacheShape { sequences: 2, capacity };
    store.make_caches(&model.caches(cache)).unwrap();
    let row = |text: usize, place: usize| (text * capacity + place) as u32;
    let close = |got: &[f32], expected: &[f32], what: &str| {
        let largest = expected.iter().fold(0_f32, |a, b| a.max(b.abs())).max(1e-3);
        for (got, expected) in got.iter().zip(expected) {
            assert!(
                (got - expected).abs() < noise * largest,
                "{name}, {dtype}, {what}: {got} is not {expected}"
            );
        }
    };
    for (text, n) in prompts.into_iter().enumerate() {
        let shape = BatchShape { batch: 1, seq: n, packed: false, far: false };
        let inputs = Inputs {
            ids: texts[text][..n].to_vec(),
            positions: (0..n as u32).collect(),
            queries: vec![n as u32 - 1],
            places: (0..n).map(|place| row(text, place)).collect(),
            ..Inputs::default()
        };
        let program = forward_only(&lower(model.continuation(shape, cache), dtype), 2);
        let got = play(&program, &mut store, inputs, Vec::new(), &STILL).unwrap().numbers(0);
        close(&got, &whole(&model, dtype, &mut store, &texts[text], n), "a prompt");
    }
    for step in 0..7 {
        let lengths = prompts.map(|n| n + step);
        let mut seen = vec![0; 2 * capacity];
        for text in 0..2 {
            (0..=lengths[text]).for_each(|place| seen[text * capacity + place] = row(text, place));
        }
        let inputs = Inputs {
            ids: (0..2).map(|text| texts[text][lengths[text]]).collect(),
            positions: lengths.map(|n| n as u32).to_vec(),
            queries: vec![0, 1],
            places: (0..2).map(|text| row(text, lengths[text])).collect(),
            lengths: lengths.map(|n| n as u32 + 1).to_vec(),
            seen,
            ..Inputs::default()
        };
        let shape = BatchShape { batch: 2, seq: 1, packed: false, far: false };
        let program = forward_only(&lower(model.continuation(shape, cache), dtype), 2);
        let got = play(&program, &mut store, inputs, Vec::new(), &STILL).unwrap().numbers(0);
        for text in 0..2 {
            let expected = whole(&model, dtype, &mut store, &texts[text], lengths[text] + 1);
            close(
                &got[text * model.vocab..][..model.vocab],
                &expected,
                &format!("step {step} of text {text}"),
            );
        }
    }
}

#[test]
fn a_token_more_is_what_a_pass_over_the_whole_text_gives() {
    FAMILIES.iter().for_each(|(name, config)| check(name, config, Dtype::F32, 2e-5));
}

/// Keys and values are kept in 32 bits, so nothing is rounded that a pass over the whole text does not round. What is left
/// is the order of the sums, which may move a result to its other neighbour: one step of the largest number.
#[test]
fn in_half_precision_a_token_more_is_as_near_as_the_numbers_are() {
    for (dtype, noise) in [(Dtype::Bf16, 1.0 / 128.0), (Dtype::F16, 1.0 / 1024.0)] {
        FAMILIES.iter().for_each(|(name, config)| check(name, config, dtype, noise));
    }
}

/// The texts that a small random model writes.
fn texts(search: &str) -> Vec<String> {
    texts_of(FAMILIES[0].1, search)
}

fn texts_of(config: &str, search: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config).unwrap();
    fs::write(folder.path().join("tokenizer.json"), common::word_tokenizer(40)).unwrap();
    let text = format!(
        r#"hift 1
tokenizer words {{ file = "tokenizer.json" end = none }}
model tiny {{ weights = random("config.json", seed = 1) }}
generate texts {{
    model = tiny tokenizer = words prompts = ["w5 w6 w7", "w9", "w30 w20 w10 w11", "w5"]
    max_new_tokens = 12 tokens {search}
}}
"#
    );
    let (seen, ..) = common::run(folder.path(), &text).unwrap_or_else(|problems| panic!("{problems}"));
    seen.texts.into_iter().map(|(_, text)| text).collect()
}

#[test]
fn how_many_prompts_are_continued_at_once_changes_no_text() {
    for search in ["", "temperature = 1.3 seed = 4", "beams = 3"] {
        let all = texts(search);
        assert_eq!(all.len(), 4);
        assert_eq!(all, texts(&format!("{search} micro_batch = 1")), "{search}");
        assert_eq!(all, texts(&format!("{search} micro_batch = 3")), "{search}");
    }
}

/// Positions turn otherwise beyond the eighth: the four prompts, with the mark before them, become long after three to six
/// new tokens.
#[test]
fn a_text_that_becomes_long_goes_on_as_if_it_had_been_read_as_a_long_one() {
    let (_, config) = FAMILIES.iter().find(|(name, _)| *name == "phi3, longrope").unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config).unwrap();
    let model = Model::from_config(config).unwrap();
    assert_eq!(model.near(), Some(8));
    let weights = Weights::Random { config: "config.json".into(), seed: 1 };
    let mut store = Store::new(store::load(&model, &weights, folder.path(), Dtype::F32).unwrap());
    let greedy = texts_of(config, "");
    let prompts: [&[u32]; 4] = [&[2, 5, 6, 7], &[2, 9], &[2, 30, 20, 10, 11], &[2, 5]];
    let word = |id: &u32| match id {
        0..5 => ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"][*id as usize].to_string(),
        _ => format!("w{id}"),
    };
    for (prompt, text) in prompts.iter().zip(&greedy) {
        let mut ids = prompt.to_vec();
        for _ in 0..12 {
            let logits = whole(&model, Dtype::F32, &mut store, &ids, ids.len());
            let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
            ids.push(best as u32);
        }
        let words: Vec<String> = ids[prompt.len()..].iter().map(word).collect();
        assert_eq!(text, &words.join(" "));
    }
    for search in ["", "temperature = 1.3 seed = 4", "beams = 3"] {
        let all = texts_of(config, search);
        assert_eq!(all, texts_of(config, &format!("{search} micro_batch = 1")), "{search}");
        assert_eq!(all, texts_of(config, &format!("{search} micro_batch = 3")), "{search}");
    }
}

#[test]
fn the_best_one_alone_is_the_greedy_choice() {
    let greedy = texts("");
    assert_eq!(texts("temperature = 2 top_k = 1"), greedy);
    assert_eq!(texts("temperature = 2 top_p = 0.000001"), greedy);
    assert_ne!(texts("temperature = 5 seed = 1"), greedy);
    assert_ne!(texts("temperature = 5 seed = 1"), texts("temperature = 5 seed = 2"));
    assert_eq!(texts("temperature = 5 seed = 1"), texts("temperature = 5 seed = 1"));
}

#[test]
fn a_text_ends_before_what_stops_it() {
    let greedy = texts("");
    let third = greedy[0].split(' ').nth(2).unwrap();
    let cut = texts(&format!("stop = [\"{third}\"]"));
    let expected = &greedy[0][..greedy[0].find(third).unwrap()];
    assert_eq!(cut[0], expected);
}

#[test]
fn texts_are_measured_against_references() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), FAMILIES[0].1).unwrap();
    fs::write(folder.path().join("tokenizer.json"), common::word_tokenizer(40)).unwrap();
    let greedy = texts("");
    let text = format!(
        r#"hift 1
tokenizer words {{ file = "tokenizer.json" end = none }}
model tiny {{ weights = random("config.json", seed = 1) }}
generate texts {{
    model = tiny tokenizer = words prompts = ["w5 w6 w7", "w9"] references = ["{}", "nothing like it"]
    max_new_tokens = 12 tokens metrics = [exact_match, rouge_l]
}}
"#,
        greedy[0]
    );
    let (seen, ..) = common::run(folder.path(), &text).unwrap_or_else(|problems| panic!("{problems}"));
    let metrics: Vec<f64> = seen.evaluations[0].1.iter().map(|(_, value)| *value).collect();
    assert_eq!(metrics, [0.5, 0.5]);
}

/// A data block whose rows have a prompt and a response, and a stage that continues them.
fn of_rows(rows: &[(&str, &str)], data: &str, tokenizer: &str, stage: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), FAMILIES[0].1).unwrap();
    fs::write(folder.path().join("tokenizer.json"), common::word_tokenizer(40)).unwrap();
    let lines: String =
        rows.iter().map(|(ask, say)| json!({ "ask": ask, "say": say }).to_string() + "\n").collect();
    fs::write(folder.path().join("rows.jsonl"), lines).unwrap();
    let text = format!(
        r#"hift 1
data rows {{ source = json("rows.jsonl") format = instruct(prompt = "{{ask}}", response = " {{say}}") {data} }}
tokenizer words {{ file = "tokenizer.json" {tokenizer} }}
model tiny {{ weights = random("config.json", seed = 1) }}
generate texts {{ model = tiny tokenizer = words data = rows max_new_tokens = 12 tokens {stage} }}
"#
    );
    (folder, text)
}

const ROWS: &[(&str, &str)] =
    &[("w5 w6 w7", "w8"), ("w9", "w10 w11 w12"), ("w30 w20 w10 w11", "w12"), ("w5", "w6 w7")];

#[test]
fn rows_are_continued_from_where_their_response_begins() {
    let greedy = texts("");
    let check = |data: &str, tokenizer: &str, stage: &str, expected: &[usize]| {
        let (folder, text) = of_rows(ROWS, data, tokenizer, stage);
        let (seen, ..) = common::run(folder.path(), &text).unwrap_or_else(|problems| panic!("{problems}"));
        let own: Vec<(String, String)> =
            expected.iter().map(|row| (ROWS[*row].0.to_owned(), greedy[*row].clone())).collect();
        assert_eq!(seen.texts, own, "{data} {tokenizer} {stage}");
    };
    check("", "end = none", "", &[0, 1, 2, 3]);
    check("", "end = none", "rows = 2", &[0, 1]);
    check("", "end = none", "rows = 100 rows", &[0, 1, 2, 3]);
    // What is held out, in the order of the file, packed or not.
    check("holdout = 50 % shuffle = none", "end = none", "", &[2, 3]);
    check("holdout = 50 % shuffle = none", "end = none pack = true", "rows = 1 row", &[2]);
    // The third row has six tokens. Where rows are cut, those of five may have been longer.
    check("", "end = none max_length = 5 tokens too_long = cut", "", &[3]);
    check("", "end = none max_length = 6 tokens too_long = cut", "", &[0, 1, 2, 3]);
    check("", "end = none max_length = 5 tokens too_long = drop", "", &[0, 1, 3]);
}

#[test]
fn the_texts_of_rows_stand_in_a_file_beside_their_references() {
    let greedy = texts("");
    let third = greedy[0].split(' ').nth(2).unwrap();
    let rows = [(ROWS[0].0, greedy[0].as_str()), ROWS[1]];
    let (folder, text) = of_rows(
        &rows,
        "",
        "end = none",
        &format!("to = \"out/texts.jsonl\" metrics = [exact_match] stop = [\"{third}\"]"),
    );
    let (seen, ..) = common::run(folder.path(), &text).unwrap_or_else(|problems| panic!("{problems}"));
    let lines = fs::read_to_string(folder.path().join("out/texts.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let cut = &greedy[0][..greedy[0].find(third).unwrap()];
    let first = json!({
        "prompt": "w5 w6 w7", "text": cut, "reference": cut, "finish": "stop", "tokens": 3,
    });
    assert_eq!(lines[0], first);
    assert_eq!(lines[1]["reference"], "w10 w11 w12");
    assert_eq!(lines.len(), 2);
    let metrics: Vec<f64> = seen.evaluations[0].1.iter().map(|(_, value)| *value).collect();
    assert_eq!(metrics, [0.5]);
    assert_eq!(fs::read_dir(folder.path().join("out")).unwrap().count(), 1, "nothing stays beside it");
}

#[test]
fn a_file_that_holds_something_else_is_not_replaced() {
    let check = |to: &str, held: &str, expected: &str| {
        let (folder, text) = of_rows(ROWS, "", "end = none", &format!("to = \"{to}\""));
        if !held.is_empty() {
            fs::write(folder.path().join(to), held).unwrap();
        }
        let before = fs::read(folder.path().join(to)).unwrap_or_default();
        let problems = common::run(folder.path(), &text).expect_err("refused");
        assert_eq!((problems.0[0].code, problems.0[0].fault.exit_code()), (expected, 73), "{to}");
        assert_eq!(fs::read(folder.path().join(to)).unwrap_or_default(), before);
    };
    check("rows.jsonl", "", "hift::run::not_texts");
    check("notes.txt", "mine\n", "hift::run::not_texts");
    check(".", "", "hift::run::not_texts");
    check("rows.jsonl/texts.jsonl", "", "hift::run::unwritable");
}

#[test]
fn rows_that_cannot_be_continued_are_refused() {
    let check = |rows: &[(&str, &str)], tokenizer: &str, expected: &str| {
        let (folder, text) = of_rows(rows, "", tokenizer, "");
        let problems = common::run(folder.path(), &text).expect_err("refused");
        assert_eq!(problems.0[0].code, expected, "{tokenizer}: {problems}");
    };
    check(ROWS, "loss_on = all", "hift::plan::no_response");
    check(ROWS, "max_length = 5 tokens too_long = split", "hift::data::no_response");
    check(&[("", "w7 w8")], "", "hift::data::no_response");
}

#[test]
fn of_a_chat_the_last_answer_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), FAMILIES[0].1).unwrap();
    fs::write(folder.path().join("tokenizer.json"), common::word_tokenizer(40)).unwrap();
    let template = "{% for m in messages %}{% if m.role == 'user' %} w30 {{ m.content }} w31{% else %} {{ m.content }}\
                    {% endif %}{% endfor %}";
    fs::write(folder.path().join("chat.jinja"), template).unwrap();
    let turn = |role: &str, content: &str| json!({ "role": role, "content": content });
    let talk =
        [turn("user", "w5"), turn("assistant", "w6 w7"), turn("user", "w8"), turn("assistant", "w9 w10")];
    fs::write(folder.path().join("talks.jsonl"), json!({ "messages": talk }).to_string()).unwrap();
    let texts = |what: &str| {
        let text = format!(
            r#"hift 1
data talks {{ source = json("talks.jsonl") format = chat(template = "chat.jinja") }}
tokenizer words {{ file = "tokenizer.json" begin = none end = none }}
model tiny {{ weights = random("config.json", seed = 1) }}
generate texts {{ model = tiny tokenizer = words {what} max_new_tokens = 6 tokens to = "texts.jsonl" }}
"#
        );
        let run = common::run(folder.path(), &text);
        run.unwrap_or_else(|problems| panic!("{problems}"));
        fs::remove_dir_all(folder.path().join("run")).unwrap();
        let line = fs::read_to_string(folder.path().join("texts.jsonl")).unwrap();
        serde_json::from_str::<serde_json::Value>(line.trim()).unwrap()
    };
    let prompt = "w30 w5 w31 w6 w7 w30 w8 w31";
    let own = texts(&format!("prompts = [\"{prompt}\"]"));
    let of_rows = texts("data = talks");
    assert_eq!((&of_rows["prompt"], &of_rows["reference"]), (&json!(prompt), &json!("w9 w10")));
    assert_eq!(of_rows["text"], own["text"]);
    assert!(own["reference"].is_null());
}
