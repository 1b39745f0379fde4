//! Texts that are continued over a cache of keys and values, against passes over the whole text.

mod common;

use std::fs;

use hift::engine::{Inputs, Knobs, Store, play, store};
use hift::lang::pipeline::{Algorithm, Weights};
use hift::model::{Model, Task};
use hift::program::{BatchShape, CacheShape, forward_only};
use hift::units::Dtype;

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

/// The logits behind the first `n` of `ids`, by a pass over all of them.
fn whole(model: &Model, store: &mut Store, ids: &[u32], n: usize) -> Vec<f32> {
    let shape = BatchShape { batch: 1, seq: n, packed: false };
    let inputs = Inputs {
        ids: ids[..n].to_vec(),
        positions: (0..n as u32).collect(),
        queries: vec![n as u32 - 1],
        ..Inputs::default()
    };
    play(&forward_only(&model.logits(shape), 2), store, inputs, Vec::new(), &STILL).unwrap().numbers(0)
}

/// Two texts, the second with a shorter prompt, whose rows lie in the cache behind each other's.
fn check(name: &str, config: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config).unwrap();
    let model = Model::from_config(config).unwrap();
    if model.task() != Task::NextToken {
        return;
    }
    let weights = Weights::Random { config: "config.json".into(), seed: 1 };
    let mut store = Store::new(store::load(&model, &weights, folder.path(), Dtype::F32).unwrap());
    let texts: [Vec<u32>; 2] =
        [(0..12).map(|i| (7 * i + 3) % 40).collect(), (0..12).map(|i| (11 * i + 5) % 40).collect()];
    let (prompts, capacity) = ([5, 2], 14);
    let cache = CacheShape { sequences: 2, capacity };
    store.make_caches(&model.caches(cache)).unwrap();
    let row = |text: usize, place: usize| (text * capacity + place) as u32;
    let close = |got: &[f32], expected: &[f32], what: &str| {
        let largest = expected.iter().fold(0_f32, |a, b| a.max(b.abs())).max(1e-3);
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 2e-5 * largest, "{name}, {what}: {got} is not {expected}");
        }
    };
    for (text, n) in prompts.into_iter().enumerate() {
        let shape = BatchShape { batch: 1, seq: n, packed: false };
        let inputs = Inputs {
            ids: texts[text][..n].to_vec(),
            positions: (0..n as u32).collect(),
            queries: vec![n as u32 - 1],
            places: (0..n).map(|place| row(text, place)).collect(),
            ..Inputs::default()
        };
        let program = forward_only(&model.continuation(shape, cache), 2);
        let got = play(&program, &mut store, inputs, Vec::new(), &STILL).unwrap().numbers(0);
        close(&got, &whole(&model, &mut store, &texts[text], n), "a prompt");
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
        let shape = BatchShape { batch: 2, seq: 1, packed: false };
        let program = forward_only(&model.continuation(shape, cache), 2);
        let got = play(&program, &mut store, inputs, Vec::new(), &STILL).unwrap().numbers(0);
        for text in 0..2 {
            let expected = whole(&model, &mut store, &texts[text], lengths[text] + 1);
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
    FAMILIES.iter().for_each(|(name, config)| check(name, config));
}

/// The texts that a small random model writes.
fn texts(search: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), FAMILIES[0].1).unwrap();
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
