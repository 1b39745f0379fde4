//! Rows that have a class.

use crate::cases::{Case, tokenizer_json};
use expect_test::{Expect, expect};
use hift::data::{Batch, IGNORE, Limits, Target};
use hift::lang::pipeline::{Format, TooLong};

const NONE: u32 = IGNORE;

fn limits(at_first: bool) -> Limits {
    let classes = Some(["no", "perhaps", "yes"].map(str::to_string).to_vec());
    Limits { target: Some(Target { classes, at_first }), both_ways: at_first, ..Limits::language(16, 12) }
}

/// Rows of ids, masks and classes.
fn tokens(lines: &str) -> Case {
    let format = Format::Tokens {
        input: "ids".into(),
        labels: None,
        label: Some("class".into()),
        mask: Some("mask".into()),
    };
    Case::new(lines, format).with(|case| case.limits = limits(true))
}

/// Rows of texts and classes, for a tokenizer that puts `<s>` in front and `</s>` behind.
fn texts(lines: &str) -> Case {
    let format = Format::Classify { text: "{a}{b}".into(), label: "class".into() };
    Case::new(lines, format)
        .with(|case| case.limits = limits(true))
        .write("tokenizer.json", tokenizer_json(&["<s>"], &["</s>"]))
}

fn check(case: Case, expected: &[(&[u32], &[u32])]) {
    let train = case.load().unwrap_or_else(|problems| panic!("{problems}")).train;
    let rows: Vec<_> = train.iter().collect();
    let rows: Vec<(&[u32], &[u32])> = rows.iter().map(|row| (&*row.ids, &*row.labels)).collect();
    assert_eq!(rows, expected);
}

fn check_problems(case: Case, expected: Expect) {
    expected.assert_eq(&case.problems());
}

#[test]
fn a_class_stands_where_it_is_read() {
    let lines = r#"{"ids": [3, 4, 5], "mask": [1, 1, 1], "class": 2}
                   {"ids": [6, 7, 0, 0], "mask": [1, 1, 0, 0], "class": "perhaps"}"#;
    check(tokens(lines), &[(&[3, 4, 5], &[2, NONE, NONE]), (&[6, 7], &[1, NONE])]);
    let last = tokens(lines).with(|case| case.limits = limits(false));
    check(last, &[(&[3, 4, 5], &[NONE, NONE, 2]), (&[6, 7], &[NONE, 1])]);
}

#[test]
fn a_number_stands_there_as_its_bits() {
    let numbers = |case: &mut Case| case.limits.target.as_mut().unwrap().classes = None;
    let lines = r#"{"ids": [3, 4], "mask": [1, 1], "class": -2.5}
                   {"ids": [5], "mask": [1], "class": "3"}"#;
    check(
        tokens(lines).with(numbers),
        &[(&[3, 4], &[(-2.5_f32).to_bits(), NONE]), (&[5], &[3_f32.to_bits()])],
    );
    check_problems(
        tokens(r#"{"ids": [3, 4], "mask": [1, 1], "class": "good"}"#).with(numbers),
        expect![[r#"
            65 hift::data::class: `rows.jsonl`, line 1: `good` is no number
              at format: the model gives each row a number
              help: give each row a number, or the model classes: two entries or more of `id2label` in its config.json
        "#]],
    );
}

#[test]
fn padding_is_hidden_from_those_that_see_it_and_sees_itself() {
    let lines = r#"{"ids": [3, 4, 5], "mask": [1, 1, 1], "class": 2}
                   {"ids": [6], "mask": [1], "class": 0}"#;
    let batch = Batch::new(&tokens(lines).load().unwrap().train, &[0, 1]);
    assert_eq!(batch.starts, Some(vec![0, 0, 0, 0, 1, 2]));
    assert_eq!(batch.labels, [2, NONE, NONE, 0, NONE, NONE]);
    assert_eq!(batch.trained, 2);
    let last = tokens(lines).with(|case| case.limits = limits(false));
    assert_eq!(Batch::new(&last.load().unwrap().train, &[0, 1]).starts, None);
}

#[test]
fn texts_are_written_as_the_template_says_and_keep_their_end_when_cut() {
    // <s>=0 </s>=1 ab=10 c=5
    let lines = r#"{"a": "ab", "b": "c", "class": "yes"}
                   {"a": "cc", "b": "cc", "class": "1"}"#;
    check(
        texts(lines),
        &[
            (&[0, 10, 5, 1], &[2, NONE, NONE, NONE]),
            (&[0, 5, 5, 5, 5, 1], &[1, NONE, NONE, NONE, NONE, NONE]),
        ],
    );
    check(
        texts(lines).max_length(4),
        &[(&[0, 10, 5, 1], &[2, NONE, NONE, NONE]), (&[0, 5, 5, 1], &[1, NONE, NONE, NONE])],
    );
    let dropped = texts(lines).max_length(4).with(|case| case.tokenizer.too_long.value = TooLong::Drop);
    check(dropped, &[(&[0, 10, 5, 1], &[2, NONE, NONE, NONE])]);
}

#[test]
fn long_rows_with_one_class_each_are_no_reason_to_warn() {
    let ids = vec!["3"; 200].join(", ");
    let mask = vec!["1"; 200].join(", ");
    let case = tokens(&format!(r#"{{"ids": [{ids}], "mask": [{mask}], "class": 0}}"#))
        .with(|case| case.limits.positions = 200);
    assert_eq!(case.problems(), "");
}

#[test]
fn classes_that_the_model_does_not_have() {
    check_problems(
        texts(
            r#"{"a": "c", "b": "", "class": "maybe"}
               {"a": "c", "b": "", "class": 0}
               {"a": "c", "b": "", "class": 3}"#,
        ),
        expect![[r#"
            65 hift::data::class: `rows.jsonl`, line 1: `maybe` is no class of the model (and 1 more row)
              at format: its classes are 0 to 2: `no`, `perhaps`, `yes`
              help: give each row the number or the name of a class; `id2label` in the model's config.json says which there are
        "#]],
    );
}

#[test]
fn masks_that_are_none() {
    check_problems(
        tokens(
            r#"{"ids": [3, 4], "mask": [0, 1], "class": 0}
               {"ids": [3, 4], "mask": [1], "class": 0}"#,
        ),
        expect![[r#"
            65 hift::data::mask: `rows.jsonl`, line 1: `mask` is not 1 for the first tokens of `ids` and 0 for the others (and 1 more row)
              at format: the column that marks padding
              help: pad rows on the right, and give each token of a row its 1 or 0
        "#]],
    );
}
