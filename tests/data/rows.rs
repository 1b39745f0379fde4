//! Rows of files to rows of tokens.

use crate::cases::{Case, show, tokenizer_json};
use hift::data::IGNORE;
use hift::lang::pipeline::{Format, Holdout, LossOn, Mark, Shuffle, Source, TooLong};

fn check(case: Case, expected: &[&str]) {
    assert_eq!(case.shown().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn labels_are_what_the_next_position_holds() {
    let train = Case::text(&["abc"]).load().unwrap().train;
    // <s>=0 ab=10 c=5 </s>=1
    assert_eq!(*train.get(0).ids, [0, 10, 5, 1]);
    assert_eq!(*train.get(0).labels, [10, 5, 1, IGNORE]);
}

#[test]
fn labels_of_token_rows_are_shifted_inside() {
    let case = Case::tokens(
        r#"{"input_ids": [3, 4, 5, 6], "labels": [-100, -100, 5, 6]}
           {"input_ids": [7, 8], "labels": [7, 9]}"#,
    );
    let train = case.load().unwrap().train;
    assert_eq!(*train.get(0).labels, [IGNORE, 5, 6, IGNORE]);
    assert_eq!(*train.get(1).labels, [9, IGNORE]);
}

#[test]
fn without_labels_every_token_is_its_own() {
    let case = Case::tokens(r#"{"input_ids": [3, 4, 5]}"#)
        .with(|case| {
            case.data.format.value =
                Format::Tokens { input: "input_ids".into(), labels: None, label: None, mask: None }
        })
        .remove("tokenizer.json")
        .with(|case| case.tokenizer.file.value = None);
    assert_eq!(*case.load().unwrap().train.get(0).labels, [4, 5, IGNORE]);
    check(case, &["3|[4]|[5]"]);
}

#[test]
fn the_response_and_its_end_carry_the_loss() {
    check(Case::instruct(&[("cd", "de"), ("c", "a")]), &["<s>|c|d|[d]|[e]|[</s>]", "<s>|c|[a]|[</s>]"]);
    check(
        Case::instruct(&[("cd", "de")]).with(|case| case.tokenizer.loss_on.value = LossOn::All),
        &["<s>|[c]|[d]|[d]|[e]|[</s>]"],
    );
}

#[test]
fn a_token_that_straddles_the_boundary_belongs_to_the_response() {
    check(Case::instruct(&[("ca", "bd")]), &["<s>|c|[ab]|[d]|[</s>]"]);
    check(Case::instruct(&[("cab", "d")]), &["<s>|c|ab|[d]|[</s>]"]);
}

#[test]
fn templates_render_literally() {
    let case = Case::new(
        r#"{"a": "c", "b": "", "n": 7, "extra": {"x": []}}"#,
        Format::Instruct { prompt: "{a}\n{b}".into(), response: "d".into() },
    );
    check(case, &[r"<s>|c|\n|[d]|[</s>]"]);
}

#[test]
fn marks_are_what_the_tokenizer_says_or_the_pipeline() {
    let token = |name: &str| Mark::Token(name.to_owned());
    let marks = |begin: Mark, end: Mark| {
        Case::text(&["cd"]).with(|case| {
            case.tokenizer.begin.value = begin;
            case.tokenizer.end.value = end;
        })
    };
    check(marks(Mark::Auto, Mark::Auto), &["<s>|[c]|[d]|[</s>]"]);
    check(marks(Mark::None, Mark::None), &["c|[d]"]);
    check(marks(token("<pad>"), token("e")), &["<pad>|[c]|[d]|[e]"]);

    let auto = || marks(Mark::Auto, Mark::Auto);
    // A post-processor that ends the text already: no second mark.
    check(auto().write("tokenizer.json", tokenizer_json(&["<s>"], &["<pad>"])), &["<s>|[c]|[d]|[<pad>]"]);
    check(auto().write("tokenizer.json", tokenizer_json(&[], &[])), &["c|[d]|[</s>]"]);
    check(auto().write("tokenizer_config.json", r#"{"eos_token": "<pad>"}"#), &["<s>|[c]|[d]|[<pad>]"]);

    let bare = || auto().remove("tokenizer_config.json");
    check(bare(), &["<s>|[c]|[d]"]);
    check(bare().write("special_tokens_map.json", r#"{"eos_token": "</s>"}"#), &["<s>|[c]|[d]|[</s>]"]);
    check(bare().write("generation_config.json", r#"{"eos_token_id": [2, 1]}"#), &["<s>|[c]|[d]|[<pad>]"]);
    check(bare().write("config.json", r#"{"eos_token_id": 1}"#), &["<s>|[c]|[d]|[</s>]"]);
}

#[test]
fn a_row_that_is_too_long_is_cut_on_the_right_or_dropped() {
    let rows = [("c", "ddd"), ("c", "d")];
    check(Case::instruct(&rows).max_length(4), &["<s>|c|[d]|[d]", "<s>|c|[d]|[</s>]"]);
    let dropped =
        Case::instruct(&rows).max_length(4).with(|case| case.tokenizer.too_long.value = TooLong::Drop);
    check(dropped, &["<s>|c|[d]|[</s>]"]);
    // Without max_length the model's 12 positions are the limit.
    check(Case::text(&["ccccccccccccccc"]), &["<s>|[c]|[c]|[c]|[c]|[c]|[c]|[c]|[c]|[c]|[c]|[c]"]);
}

#[test]
fn packed_rows_keep_their_own_marks_and_losses() {
    // 5, 4 and 3 tokens into 8: the longest and the shortest together.
    let case = Case::text(&["ccc", "dd", "e"]).max_length(8).with(|case| case.tokenizer.pack.value = true);
    let dataset = case.load().unwrap();
    assert_eq!(dataset.audit.train.fill, Some(12.0 / 16.0));
    check(case, &["<s>|[c]|[c]|[c]|[</s>]  <s>|[e]|[</s>]", "<s>|[d]|[d]|[</s>]"]);
}

#[test]
fn json_is_lines_or_an_array() {
    let rows = ["<s>|[c]|[</s>]", "<s>|[d]|[</s>]"];
    let file = |text: &str| Case::text(&[]).write("rows.jsonl", text);
    check(file("{\"text\": \"c\"}\n\n  \r\n{\"text\": \"d\"}\r\n"), &rows);
    check(file("\u{feff}{\"text\": \"c\"}\n{\"text\": \"d\"}"), &rows);
    check(file(" [\n {\"text\": \"c\"},\n {\"x\": [1, {}],\n \"text\": \"d\"} ]\n"), &rows);
    check(file("[{\"text\": \"c\"},{\"text\": \"d\"}]"), &rows);
}

#[test]
fn text_is_lines_or_pieces() {
    let file = |text: &str, separator: Option<&str>| {
        let source = Source::Text { path: "rows.txt".into(), separator: separator.map(str::to_owned) };
        Case::text(&[]).write("rows.txt", text).with(|case| case.data.source.value = source)
    };
    check(file("c\r\n\n  d\n", None), &["<s>|[c]|[</s>]", "<s>|[ ]|[ ]|[d]|[</s>]"]);
    check(file("c\nd\n<|e|>\n<|e|> \ne\n", Some("<|e|>")), &[r"<s>|[c]|[\n]|[d]|[</s>]", "<s>|[e]|[</s>]"]);
}

#[test]
fn the_holdout_is_the_end_of_the_file_or_of_the_shuffled_rows() {
    let held = |shuffle| {
        let case = Case::text(&["c", "cc", "ccc", "cccc", "d", "dd", "ddd", "dddd"]).with(|case| {
            case.data.holdout.value = Holdout::Share(0.25);
            case.data.shuffle.value = shuffle;
        });
        let dataset = case.load().unwrap();
        assert_eq!(dataset.train.len(), 6);
        show(&dataset.holdout, None)
    };
    assert_eq!(held(Shuffle::None), "0|[6]|[6]|[6]|[1]\n0|[6]|[6]|[6]|[6]|[1]");
    assert_eq!(held(Shuffle::Seed(1)), held(Shuffle::Seed(1)));
    assert_ne!(held(Shuffle::Seed(1)), held(Shuffle::Seed(2)));
}

#[test]
fn the_audit_accounts_for_every_row() {
    let case = Case::instruct(&[
        ("c", "d"),      // 4 tokens, 2 trained
        ("c", "d"),      // the same again, held out below
        ("", ""),        // empty
        ("c", ""),       // an empty response: 3 tokens, the end mark trained
        ("ccccc", "d"),  // 6 of 8 tokens kept, none trained
        ("cc", "deded"), // cut to 6, 3 trained
        ("c", "d"),      // the same again
    ])
    .max_length(6)
    .with(|case| case.data.holdout.value = Holdout::Rows(1));
    let audit = serde_json::to_value(case.load().unwrap().audit).unwrap();
    let expected = serde_json::json!({
        "rows": 7,
        "dropped": {
            "too_long": 0, "empty": 1, "untrained": 1, "filtered": 0, "repeats": 0, "unmixed": 0,
        },
        "cut": 2,
        "split": 0,
        "pieces": 0,
        "repeated": 0,
        "longest_row": 9,
        "empty_responses": 1, "lost_answers": 0,
        "duplicates": 2,
        "leaked": 1,
        "train": {
            "rows": 4, "sequences": 4, "tokens": 17, "trained_tokens": 8, "longest": 6, "fill": null,
            "lengths": {"min": 3, "median": 4, "max": 6,
                        "histogram": [{"up_to": 4, "rows": 3}, {"up_to": 8, "rows": 1}]},
        },
        "holdout": {
            "rows": 1, "sequences": 1, "tokens": 4, "trained_tokens": 2, "longest": 4, "fill": null,
            "lengths": {"min": 4, "median": 4, "max": 4, "histogram": [{"up_to": 4, "rows": 1}]},
        },
        "warnings": [],
    });
    assert_eq!(audit, expected);
}

#[test]
fn every_file_that_was_read_has_its_hash() {
    let case = Case::text(&[]).write("rows.jsonl", "{\"text\":\"c\"}\n");
    let hashes = case.load().unwrap().hashes;
    let names: Vec<_> = hashes.iter().map(|hashed| hashed.path.as_str()).collect();
    assert_eq!(names, ["rows.jsonl", "tokenizer.json", "tokenizer_config.json"]);
    assert_eq!(hashes[0].bytes, 13);
    // printf '{"text":"c"}\n' | sha256sum
    assert_eq!(hashes[0].sha256, "1b22a52b5d6cfe8e151a98543aa21c93d9d59b96d077b0a98a0e643718c04ada");
}

#[test]
fn decoding_gives_the_text_back() {
    let case = Case::text(&["abc d"]);
    let encoder = hift::data::Encoder::open(case.folder.path(), &case.tokenizer).unwrap();
    let dataset = case.load().unwrap();
    let preview = hift::data::preview(&dataset.train, Some(&encoder), None, 1);
    assert_eq!(preview[0].segments[0].text, "<s>abc d</s>");
    assert_eq!(encoder.encode("abc", true).unwrap(), [0, 10, 5]);
    assert_eq!(encoder.token_id("ab"), Some(10));
    assert_eq!(encoder.vocab(), 11);
}

#[test]
fn the_same_input_gives_the_same_dataset() {
    let rows: Vec<String> = (1..3000).map(|n| "abcde".repeat(n % 3) + &"c".repeat(n % 7 + 1)).collect();
    let rows: Vec<_> = rows.iter().map(String::as_str).collect();
    let case = Case::text(&rows).with(|case| {
        case.tokenizer.pack.value = true;
        case.data.holdout.value = Holdout::Share(0.1);
        case.data.shuffle.value = Shuffle::Seed(5);
    });
    assert_eq!(case.load().unwrap(), case.load().unwrap());
}
