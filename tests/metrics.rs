//! Metrics against other people's programs (`python/metrics.py` says which).

use std::fs;

use serde_json::Value as Json;

use hift::run::metrics::answers::against;
use hift::run::metrics::classes::Confusion;
use hift::run::metrics::entities::Entities;
use hift::run::metrics::numbers::{pearson, spearman};
use hift::run::metrics::texts::{bleu, nist, rouge_l, rouge_n};

/// Each case of a kind gives what the other program gave, but for `noise`.
fn check<const N: usize>(kind: &str, noise: f64, found: impl Fn(&Json) -> [f64; N]) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/metrics.json");
    let golden: Json = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let cases = golden[kind].as_array().unwrap();
    assert!(cases.len() > 10, "{kind}: {} cases", cases.len());
    for case in cases {
        let expected: Vec<f64> = of(&case["expected"]);
        let found = found(case);
        let is_close =
            found.len() == expected.len() && found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < noise);
        assert!(is_close, "{kind}: {found:?}, not {expected:?}: {case}");
    }
}

fn of<T: serde::de::DeserializeOwned>(value: &Json) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn classes_are_measured_as_scikit_learn_does() {
    check("classes", 1e-12, |case| {
        let (right, given): (Vec<usize>, Vec<usize>) = (of(&case["right"]), of(&case["given"]));
        let mut confusion = Confusion::new(of(&case["classes"]));
        right.iter().zip(&given).for_each(|(right, given)| confusion.add(*right, *given));
        let hits = right.iter().zip(&given).filter(|(right, given)| right == given).count();
        let accuracy = hits as f64 / right.len() as f64;
        [accuracy, confusion.f1(1), confusion.macro_f1(), confusion.matthews()]
    });
}

#[test]
fn numbers_are_correlated_as_scipy_does() {
    check("numbers", 1e-12, |case| {
        let (given, right): (Vec<f64>, Vec<f64>) = (of(&case["given"]), of(&case["right"]));
        let pairs: Vec<[f64; 2]> =
            given.into_iter().zip(right).map(|(given, right)| [given, right]).collect();
        [pearson(&pairs), spearman(&pairs)]
    });
}

/// torchmetrics counts in 32 bits.
#[test]
fn answers_count_as_squad_counts_them() {
    check("answers", 1e-6, |case| {
        against(case["given"].as_str().unwrap(), &of::<Vec<String>>(&case["right"]))
    });
}

#[test]
fn entities_are_counted_as_seqeval_does() {
    check("entities", 1e-12, |case| {
        let (right, given): (Vec<Vec<usize>>, Vec<Vec<usize>>) = (of(&case["right"]), of(&case["given"]));
        let mut entities = Entities::new(&of::<Vec<String>>(&case["tags"]));
        for (right, given) in right.iter().zip(&given) {
            let row: Vec<[usize; 2]> =
                right.iter().zip(given).map(|(right, given)| [*right, *given]).collect();
            entities.add(&row);
        }
        [entities.precision(), entities.recall(), entities.f1()]
    });
}

#[test]
fn texts_are_measured_as_sacrebleu_nltk_and_rouge_score_do() {
    check("texts", 1e-9, |case| {
        let texts: Vec<(String, Vec<String>)> = of(&case["texts"]);
        [bleu(&texts), nist(&texts), rouge_n(&texts, 1), rouge_n(&texts, 2), rouge_l(&texts)]
    });
}
