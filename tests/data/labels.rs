//! Words with a class each, and questions about a text.

use crate::cases::{Case, tokenizer_json};
use expect_test::{Expect, expect};
use hift::data::{Batch, IGNORE, Labels, Limits};
use hift::lang::pipeline::{Format, TooLong};

const NONE: u32 = IGNORE;

fn limits(labels: Labels) -> Limits {
    Limits { labels: Some(labels), both_ways: true, ..Limits::language(16, 12) }
}

/// Rows of words, for a tokenizer that puts `<s>` in front and `</s>` behind, and knows `ab` as one token.
fn words(lines: &str) -> Case {
    let format = Format::TokenLabels { tokens: "tokens".into(), labels: "tags".into() };
    let classes = ["O", "B-X", "I-X"].map(str::to_string).to_vec();
    Case::new(lines, format)
        .with(move |case| case.limits = limits(Labels::Classes(classes.clone())))
        .write("tokenizer.json", tokenizer_json(&["<s>"], &["</s>"]))
}

/// Questions, `<s> question </s> text </s>`.
fn questions(lines: &str) -> Case {
    let format =
        Format::Question { question: "q".into(), context: "c".into(), answers: "a".into(), stride: Some(1) };
    let mut tokenizer: serde_json::Value =
        serde_json::from_str(&tokenizer_json(&["<s>"], &["</s>"])).unwrap();
    let special = |id: &str, part: u32| serde_json::json!({ "SpecialToken": { "id": id, "type_id": part } });
    let text = |id: &str, part: u32| serde_json::json!({ "Sequence": { "id": id, "type_id": part } });
    tokenizer["post_processor"]["pair"] = serde_json::json!([
        special("<s>", 0),
        text("A", 0),
        special("</s>", 0),
        text("B", 1),
        special("</s>", 1)
    ]);
    Case::new(lines, format)
        .with(|case| case.limits = limits(Labels::Ends))
        .write("tokenizer.json", tokenizer.to_string())
}

/// Ids and labels of all sequences.
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
fn a_word_s_first_token_has_its_class() {
    // <s>=0 ab=10 c=5 d=6 </s>=1: `abc` is two tokens.
    let lines = r#"{"tokens": ["abc", "d"], "tags": [1, 2]}
                   {"tokens": ["d", "ab", "c"], "tags": ["O", -100, "B-X"]}"#;
    check(
        words(lines),
        &[(&[0, 10, 5, 6, 1], &[NONE, 1, NONE, 2, NONE]), (&[0, 6, 10, 5, 1], &[NONE, 0, NONE, 1, NONE])],
    );
}

#[test]
fn long_rows_of_words_are_cut_and_split_between_tokens() {
    let row = r#"{"tokens": ["c", "d", "c", "d", "c"], "tags": [0, 1, 2, 1, 0]}"#;
    let with = |too_long| {
        words(row).with(|case| {
            case.tokenizer.max_length.value = Some(5);
            case.tokenizer.too_long.value = too_long;
        })
    };
    check(with(TooLong::Cut), &[(&[0, 5, 6, 5, 1], &[NONE, 0, 1, 2, NONE])]);
    check(with(TooLong::CutLeft), &[(&[0, 5, 6, 5, 1], &[NONE, 2, 1, 0, NONE])]);
    check(
        with(TooLong::Split),
        &[(&[0, 5, 6, 5, 1], &[NONE, 0, 1, 2, NONE]), (&[0, 6, 5, 1], &[NONE, 1, 0, NONE])],
    );
}

#[test]
fn an_answer_stands_at_its_first_token_and_names_its_last() {
    // `c d c d ab` has a token for each word; the text begins behind `<s> c </s>`.
    let lines = r#"{"q": "c", "c": "cdab", "a": {"text": ["da"], "answer_start": [1]}}
                   {"q": "cd", "c": "dd", "a": {"text": [], "answer_start": []}}"#;
    let train = questions(lines).load().unwrap_or_else(|problems| panic!("{problems}")).train;
    let first = train.get(0);
    assert_eq!(
        (&first.ids[..], &first.labels[..]),
        (&[0, 5, 1, 5, 6, 10, 1][..], &[NONE, NONE, NONE, NONE, 5, NONE, NONE][..])
    );
    let second = train.get(1);
    assert_eq!(second.labels[0], 0, "no answer points at the first token");
    let passage = first.passage.unwrap();
    assert_eq!((passage.first, passage.tokens.clone(), passage.second), (3, 0..3, 3));
    assert_eq!(passage.asked.answers, ["da"]);
    let batch = Batch::new(&train, &[0, 1]);
    assert_eq!(batch.types, [0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1]);
    assert_eq!(batch.lengths, [7, 7]);
    assert_eq!(batch.trained, 2);
}

#[test]
fn a_long_text_is_looked_at_in_pieces_that_overlap() {
    // Room for three tokens of the text beside `<s> c </s> ... </s>`.
    let line = r#"{"q": "c", "c": "cdcdc", "a": {"text": ["dc"], "answer_start": [3]}}"#;
    let with = |too_long| {
        questions(line).with(|case| {
            case.tokenizer.max_length.value = Some(7);
            case.tokenizer.too_long.value = too_long;
        })
    };
    check(
        with(TooLong::Split),
        &[
            (&[0, 5, 1, 5, 6, 5, 1], &[0, NONE, NONE, NONE, NONE, NONE, NONE]),
            (&[0, 5, 1, 5, 6, 5, 1], &[NONE, NONE, NONE, NONE, 5, NONE, NONE]),
        ],
    );
    check(with(TooLong::Cut), &[(&[0, 5, 1, 5, 6, 5, 1], &[0, NONE, NONE, NONE, NONE, NONE, NONE])]);
    assert_eq!(with(TooLong::Cut).load().unwrap().audit.lost_answers, 1);
    assert_eq!(with(TooLong::Split).load().unwrap().audit.lost_answers, 0);
}

#[test]
fn rows_that_do_not_fit_their_labels_are_told() {
    check_problems(
        words(
            r#"{"tokens": ["c", "d"], "tags": [1]}
               {"tokens": ["c"], "tags": [3]}
               {"tokens": ["c"], "tags": ["B-Y"]}
               {"tokens": "c d", "tags": [0]}"#,
        ),
        expect![[r#"
            65 hift::data::words: `rows.jsonl`, line 4: `tokens` is no list of words
              at format: reads this column
              help: give each row a list of words and a list with the class of each
            65 hift::data::lengths_differ: `rows.jsonl`, line 1: `tokens` has 2 words, but `tags` has 1 classes
              at format: these columns
              help: give each word its class, -100 where it is not to be learned
            65 hift::data::class: `rows.jsonl`, line 2: 3 is no class of the model (and 1 more row)
              at format: its classes are 0 to 2: `O`, `B-X`, `I-X`
              help: write the classes in the model block, `task = token_classification(labels = [...])`, in the order of their numbers
        "#]],
    );
    check_problems(
        questions(
            r#"{"q": "c", "c": "cd", "a": {"text": ["d"], "answer_start": [0]}}
               {"q": "c", "c": "cd", "a": "d"}"#,
        ),
        expect![[r#"
            65 hift::data::answer: `rows.jsonl`, line 1: the answer `d` is to begin at character 0 of the text, but there stands `c` (and 1 more row)
              at format: reads this column
              help: count `answer_start` in characters from 0, in the text as it stands in the column
        "#]],
    );
}
