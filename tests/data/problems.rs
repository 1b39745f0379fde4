//! What is said about data that cannot be used: the exit code, the fact, the places, the way out.

use crate::cases::{Case, tokenizer_json};
use expect_test::{Expect, expect};
use hift::data::Limits;
use hift::lang::pipeline::{Format, Holdout, Mark, Source, TooLong};

fn check(case: Case, expected: Expect) {
    expected.assert_eq(&case.problems());
}

fn file(text: impl AsRef<[u8]>) -> Case {
    Case::text(&["c"]).write("rows.jsonl", text)
}

#[test]
fn a_file_that_is_missing() {
    check(
        Case::text(&["c"]).remove("rows.jsonl"),
        expect![[r#"
        66 hift::data::missing_file: there is no file `rows.jsonl`
          at source: looked for FOLDER/rows.jsonl
          help: paths start at the folder of the pipeline file
    "#]],
    );
    check(
        Case::text(&["c"]).remove("tokenizer.json"),
        expect![[r#"
        66 hift::data::missing_file: there is no file `tokenizer.json`
          at file: looked for FOLDER/tokenizer.json
          help: paths start at the folder of the pipeline file
    "#]],
    );
    check(
        Case::text(&["c"]).with(|case| case.data.source.value = Source::Json { path: ".".into() }),
        expect![[r#"
            66 hift::data::unreadable: `.` is a folder, not a file
              at source: looked for FOLDER
              help: name the file itself
        "#]],
    );
    check(
        Case::text(&["c"]).with(|case| case.tokenizer.file.value = None),
        expect![[r#"
        65 hift::data::no_tokenizer: text needs a tokenizer
          at tokenizer: no `file` here
          help: write `file = "path/to/tokenizer.json"`
    "#]],
    );
}

#[test]
fn a_file_that_is_not_what_it_should_be() {
    check(
        file(b"{\"text\": \"c\"}\n{\"text\": \"\xe9\"}\n"),
        expect![[r#"
        65 hift::data::not_utf8: `rows.jsonl` is not UTF-8: byte 24, in line 2, is 0xe9
          at source: this file
          help: convert it first, for example with `iconv -f LATIN1 -t UTF-8`
    "#]],
    );
    check(
        file("\n\n"),
        expect![[r#"
        65 hift::data::no_rows: `rows.jsonl` holds no rows
          at source: nothing to train on
          help: a row is a line that is not blank, or an element of the array
    "#]],
    );
    check(
        file("[]"),
        expect![[r#"
        65 hift::data::no_rows: `rows.jsonl` holds no rows
          at source: nothing to train on
          help: a row is a line that is not blank, or an element of the array
    "#]],
    );
    check(
        Case::text(&["c"]).write("tokenizer.json", "{}"),
        expect![[r#"
        65 hift::data::tokenizer_file: `tokenizer.json` is not a tokenizer: Model missing. at line 1 column 2
          at file: this file
          help: a `tokenizer.json` as Hugging Face's fast tokenizers save it is needed
    "#]],
    );
}

#[test]
fn a_line_that_is_not_an_object() {
    check(
        file("{\"text\": \"c\"}\n\n  [1, 2]\n{\"text\": \"c\n{\"text\": c}"),
        expect![[r#"
            65 hift::data::json: `rows.jsonl`, line 3, column 3: expected an object
              at source: the text begins with `[1, 2]`
              help: write one JSON object a line, or one array of objects
            65 hift::data::json: `rows.jsonl`, line 4, column 11: EOF while parsing a string
              at source: the text begins with `{"text": "c`
              help: write one JSON object a line, or one array of objects
            65 hift::data::json: `rows.jsonl`, line 5, column 10: expected value
              at source: the text begins with `{"text": c}`
              help: write one JSON object a line, or one array of objects
        "#]],
    );
    check(
        file("x\n".repeat(7)),
        expect![[r#"
            65 hift::data::json: `rows.jsonl`, line 1, column 1: expected an object
              at source: the text begins with `x`
              help: write one JSON object a line, or one array of objects
            65 hift::data::json: `rows.jsonl`, line 2, column 1: expected an object
              at source: the text begins with `x`
              help: write one JSON object a line, or one array of objects
            65 hift::data::json: `rows.jsonl`, line 3, column 1: expected an object
              at source: the text begins with `x`
              help: write one JSON object a line, or one array of objects
            65 hift::data::json: `rows.jsonl`, line 4, column 1: expected an object
              at source: the text begins with `x`
              help: write one JSON object a line, or one array of objects
            65 hift::data::json: `rows.jsonl`, line 5, column 1: expected an object
              at source: the text begins with `x`
              help: write one JSON object a line, or one array of objects
            65 hift::data::json: 2 more lines of `rows.jsonl` are broken
              at source: this file
        "#]],
    );
    check(
        file("{\"text\": \"c\"} {\"text\": \"d\"}"),
        expect![[r#"
        65 hift::data::json: `rows.jsonl`, line 1, column 15: trailing characters
          at source: the text begins with `{"text": "c"} {"text": "d"}`
          help: write one JSON object a line, or one array of objects
    "#]],
    );
}

#[test]
fn an_array_that_is_broken() {
    check(
        file("[{\"text\": \"c\"},\n 5]"),
        expect![[r#"
        65 hift::data::json: `rows.jsonl`, line 2, column 2: expected an object
          at source: the text begins with `5]`
          help: write one JSON object a line, or one array of objects
    "#]],
    );
    check(
        file("[{\"text\": \"c\"}\n {\"text\": \"d\"}]"),
        expect![[r#"
        65 hift::data::json: `rows.jsonl`, line 2, column 2: expected `,` or `]`
          at source: the text begins with `{"text": "d"}]`
          help: write one JSON object a line, or one array of objects
    "#]],
    );
    check(
        file("[{\"text\": \"c\"},\n {\"text\" \"d\"}]"),
        expect![[r#"
        65 hift::data::json: `rows.jsonl`, line 2, column 10: expected `:`
          at source: the text begins with `{"text" "d"}]`
          help: write one JSON object a line, or one array of objects
    "#]],
    );
    check(
        file("[{\"text\": \"c\"},"),
        expect![[r#"
            65 hift::data::json: `rows.jsonl`, line 1, column 16: the array is not closed
              at source: this file
              help: write one JSON object a line, or one array of objects
        "#]],
    );
    check(
        file("[{\"text\": \"c\"}] x"),
        expect![[r#"
            65 hift::data::json: `rows.jsonl`, line 1, column 17: there is something after the array
              at source: the text begins with `x`
              help: write one JSON object a line, or one array of objects
        "#]],
    );
}

#[test]
fn a_column_that_is_missing() {
    check(
        file("{\"txt\": \"c\", \"other\": 1}"),
        expect![[r#"
        65 hift::data::no_column: `rows.jsonl` has no column `text`
          at source: its columns are `txt`, `other`
          help: did you mean `txt`?
    "#]],
    );
    check(
        file("{\"text\": \"c\"}\n{\"other\": \"c\"}\n{\"text\": null}"),
        expect![[r#"
        65 hift::data::absent_cell: `rows.jsonl`, line 2: no value for `text` (and 1 more row)
          at source: its columns are `text`, `other`
          help: give every row a value; an empty text "" is one
    "#]],
    );
    check(
        file("{\"text\": \"c\"}\n{\"text\": [1]}\n{\"text\": {}}\n{\"text\": []}"),
        expect![[r#"
            65 hift::data::cell: `rows.jsonl`, line 2: `text` holds a list; text is needed (and 2 more rows)
              at source: this file
              help: name another column in `format`, or change the rows
        "#]],
    );
    let source = Source::Text { path: "rows.jsonl".into(), separator: Some(String::new()) };
    check(
        file("c").with(|case| case.data.source.value = source),
        expect![[r#"
        65 hift::data::separator: the separator is empty
          at source: nothing separates the rows
          help: leave `separator` out for one row a line
    "#]],
    );
    let source = || Source::Text { path: "rows.jsonl".into(), separator: None };
    check(
        file("c").with(|case| {
            case.data.source.value = source();
            case.data.format.value = Format::Text { column: "story".into() };
        }),
        expect![[r#"
            65 hift::data::no_column: `rows.jsonl` has no column `story`
              at source: its columns are `text`
              help: name one of these columns in `format`
        "#]],
    );
    check(
        Case::tokens("c").with(|case| case.data.source.value = source()),
        expect![[r#"
        65 hift::data::no_column: `rows.jsonl` has no column `input_ids`
          at source: its columns are `text`
          help: name one of these columns in `format`
        65 hift::data::no_column: `rows.jsonl` has no column `labels`
          at source: its columns are `text`
          help: name one of these columns in `format`
    "#]],
    );
}

#[test]
fn a_template_that_is_broken() {
    let case = Case::instruct(&[("c", "d")]).with(|case| {
        case.data.format.value = Format::Instruct { prompt: "Q: {p".into(), response: "{r} }".into() };
    });
    check(
        case,
        expect![[r#"
        65 hift::data::template: a `{` that is not closed in `prompt`
          at format: at `{p`
          help: write `{column}`, or `{{` for a brace
        65 hift::data::template: a `}` that no `{` opens in `response`
          at format: at `}`
          help: write `}}` for a brace
    "#]],
    );
}

#[test]
fn token_rows_that_do_not_fit_the_model() {
    check(
        Case::tokens(
            r#"{"input_ids": [3, 4], "labels": [3]}
               {"input_ids": [3, 4], "labels": [3, 4]}
               {"input_ids": [3], "labels": [3, 4]}"#,
        ),
        expect![[r#"
            65 hift::data::lengths_differ: `rows.jsonl`, line 1: `input_ids` has 2 tokens, but `labels` has 1 (and 1 more row)
              at format: these columns
              help: give each token its label, -100 where it carries no loss
        "#]],
    );
    check(
        Case::tokens(r#"{"input_ids": [3, -1], "labels": [3, 4]}"#),
        expect![[r#"
            65 hift::data::vocabulary: `rows.jsonl`, line 1: `input_ids[1]` is -1, but the model's ids are 0 to 15
              at format: the model's vocabulary has 16
              help: the rows must be tokenised with the model's own tokenizer; -100 is allowed in labels only
        "#]],
    );
    check(
        Case::tokens(r#"{"input_ids": [3, 4, 16], "labels": [3, 4, 5]}"#),
        expect![[r#"
            65 hift::data::vocabulary: `rows.jsonl`, line 1: `input_ids[2]` is 16, but the model's ids are 0 to 15
              at format: the model's vocabulary has 16
              help: the rows must be tokenised with the model's own tokenizer; -100 is allowed in labels only
        "#]],
    );
    check(
        Case::tokens(r#"{"input_ids": [3, 4], "labels": [-100, 99]}"#),
        expect![[r#"
            65 hift::data::vocabulary: `rows.jsonl`, line 1: `labels[1]` is 99, but the model's ids are 0 to 15
              at format: the model's vocabulary has 16
              help: the rows must be tokenised with the model's own tokenizer; -100 is allowed in labels only
        "#]],
    );
    check(
        Case::tokens(r#"{"input_ids": [3, 4.5], "labels": "x"}"#),
        expect![[r#"
            65 hift::data::cell: `rows.jsonl`, line 1: `input_ids` holds a list with something else in it; a list of whole numbers is needed
              at source: this file
              help: name another column in `format`, or change the rows
            65 hift::data::cell: `rows.jsonl`, line 1: `labels` holds text; a list of whole numbers is needed
              at source: this file
              help: name another column in `format`, or change the rows
        "#]],
    );
}

#[test]
fn a_tokenizer_that_does_not_fit_the_model() {
    let limits = Limits::language(10, 12);
    check(
        Case::text(&["c", "abab", "ab"]).with(|case| case.limits = limits),
        expect![[r#"
        65 hift::data::vocabulary: the token `ab` has id 10, but the vocabulary of the model ends at 9 (and 1 more row)
          at file: 11 ids here, 10 in the model
          help: use the tokenizer that belongs to the model, or keep `ab` out of the rows: it is in `rows.jsonl`, line 2
    "#]],
    );
}

#[test]
fn text_that_the_tokenizer_refuses() {
    let wordlevel = tokenizer_json(&[], &[]).replace("\"unk_token\":null", "\"unk_token\":\"<unk>\"");
    check(
        Case::text(&["czd"]).write("tokenizer.json", wordlevel),
        expect![[r#"
        65 hift::data::encode: `tokenizer.json` cannot encode "czd": Unk token `<unk>` not found in the vocabulary
          at file: this tokenizer
    "#]],
    );
}

#[test]
fn a_mark_that_the_tokenizer_does_not_have() {
    let marks = Case::text(&["c"]).with(|case| {
        case.tokenizer.begin.value = Mark::Token("<S>".into());
        case.tokenizer.end.value = Mark::Token("<|endoftext|>".into());
    });
    check(
        marks,
        expect![[r#"
        65 hift::data::token: `tokenizer.json` has no token `<S>`
          at begin: not in the vocabulary
          help: did you mean `<s>`?
        65 hift::data::token: `tokenizer.json` has no token `<|endoftext|>`
          at end: not in the vocabulary
          help: write a token of the tokenizer's vocabulary, or `none`
    "#]],
    );
    check(
        Case::text(&["c"]).write("tokenizer_config.json", r#"{"eos_token": "<|im_end|>"}"#),
        expect![[r#"
        65 hift::data::token: `tokenizer_config.json` names `<|im_end|>` as the end mark, but `tokenizer.json` has no such token
          at file: this tokenizer
          help: write `end = "..."` with a token of the tokenizer, or `end = none`
    "#]],
    );
}

#[test]
fn a_length_that_does_not_fit() {
    check(
        Case::text(&["c"]).max_length(4096),
        expect![[r#"
        65 hift::data::max_length: max_length is 4,096 tokens, but the model has 12 positions
          at max_length: beyond the model's positions
          help: write at most `12 tokens`, or leave `max_length` out
    "#]],
    );
    check(
        Case::text(&["c"]).max_length(1),
        expect![[r#"
        65 hift::data::max_length: max_length is 1, which leaves nothing to predict
          at max_length: a token and its successor are needed
          help: write at least `2 tokens`
    "#]],
    );
    let fails = Case::text(&["c", "cccc", "cccccc"])
        .max_length(4)
        .with(|case| case.tokenizer.too_long.value = TooLong::Fail);
    check(
        fails,
        expect![[r#"
        65 hift::data::too_long: `rows.jsonl`, line 2: the row has 6 tokens, more than the 4 allowed (and 1 more row)
          at max_length: the length allowed
          at too_long: makes it an error
          help: the longest row has 8 tokens; write `too_long = cut` or `drop`, or a larger `max_length`
    "#]],
    );
}

#[test]
fn a_holdout_that_leaves_nothing() {
    check(
        Case::text(&["c", "d"]).with(|case| case.data.holdout.value = Holdout::Rows(2)),
        expect![[r#"
            65 hift::data::holdout: holding out 2 rows leaves nothing to train on: only 2 rows can be used
              at holdout: too much
              help: write at most `1 row`
        "#]],
    );
    check(
        Case::text(&["c"]).with(|case| case.data.holdout.value = Holdout::Share(0.02)),
        expect![[r#"
            65 hift::data::holdout: holding out 2 % leaves nothing to train on: only 1 row can be used
              at holdout: too much
              help: write `holdout = none`
        "#]],
    );
}

#[test]
fn nothing_that_carries_a_loss() {
    check(
        Case::instruct(&[("cccc", "d"), ("ccccc", "d")]).max_length(4),
        expect![[r#"
        65 hift::data::nothing_trained: no token of `rows.jsonl` carries a loss (2 of 2 rows: what carries a loss begins after the first 4 tokens and is cut away)
          at max_length: leaves nothing to train on
          help: write a larger `max_length`, shorten the prompt, or write `loss_on = all`
    "#]],
    );
    check(
        Case::text(&["cccc"]).max_length(4).with(|case| case.tokenizer.too_long.value = TooLong::Drop),
        expect![[r#"
            65 hift::data::nothing_trained: no token of `rows.jsonl` carries a loss (1 of 1 rows: longer than 4 tokens)
              at max_length: leaves nothing to train on
              help: write a larger `max_length`
        "#]],
    );
    check(
        Case::tokens(r#"{"input_ids": [3, 4], "labels": [-100, -100]}"#),
        expect![[r#"
        65 hift::data::nothing_trained: no token of `rows.jsonl` carries a loss (1 of 1 rows: all labels are -100)
          at format: leaves nothing to train on
          help: look at the column that `labels` names
    "#]],
    );
    check(
        Case::instruct(&[("c", ""), ("d", "")]).with(|case| case.tokenizer.end.value = Mark::None),
        expect![[r#"
            65 hift::data::nothing_trained: no token of `rows.jsonl` carries a loss (2 of 2 rows: the response is empty, and no end mark follows it)
              at format: leaves nothing to train on
              help: look at the template of `response`, or write `loss_on = all`
        "#]],
    );
    check(
        Case::text(&["", " "]),
        expect![[r#"
        65 hift::data::nothing_trained: no token of `rows.jsonl` carries a loss (2 of 2 rows: no text)
          at format: leaves nothing to train on
          help: look at the columns that `format` names
    "#]],
    );
}

#[test]
fn hardly_anything_that_carries_a_loss() {
    let case = Case::instruct(&[(&"c".repeat(150), "d")])
        .with(|case| case.limits.positions = 1000)
        .with(|case| case.tokenizer.end.value = Mark::None);
    check(
        case,
        expect![[r#"
        65 hift::data::little_trained: only 1 of 152 tokens of `rows.jsonl` carry a loss (0.66 %)
          at loss_on: says which tokens carry a loss
          help: `hift inspect` shows the rows with their loss mask
    "#]],
    );
}

#[test]
fn marks_that_stand_in_the_text_already() {
    check(
        Case::instruct(&[("<s>c", "d</s>"), ("<s>c", "d")]),
        expect![[r#"
            65 hift::data::double_mark: the text of 2 rows of `rows.jsonl` begins with the begin mark already, so it stands there twice
              at begin: adds the second one
              help: write `begin = none`, or take the mark out of the text
            65 hift::data::double_mark: the text of 1 row of `rows.jsonl` ends with the end mark already, so it stands there twice
              at end: adds the second one
              help: write `end = none`, or take the mark out of the text
        "#]],
    );
}

#[test]
fn all_mistakes_come_at_once() {
    let case = Case::text(&["c"])
        .remove("rows.jsonl")
        .max_length(13)
        .with(|case| case.tokenizer.end.value = Mark::Token("</S>".into()));
    check(
        case,
        expect![[r#"
        66 hift::data::missing_file: there is no file `rows.jsonl`
          at source: looked for FOLDER/rows.jsonl
          help: paths start at the folder of the pipeline file
        65 hift::data::max_length: max_length is 13 tokens, but the model has 12 positions
          at max_length: beyond the model's positions
          help: write at most `12 tokens`, or leave `max_length` out
        65 hift::data::token: `tokenizer.json` has no token `</S>`
          at end: not in the vocabulary
          help: did you mean `</s>`?
    "#]],
    );
}

#[test]
fn an_interruption_ends_the_work() {
    let case = Case::text(&["c"]);
    let load = || hift::data::load(case.folder.path(), &case.data, &case.tokenizer, &case.limits, &|| true);
    assert_eq!(load().unwrap_err().fault().exit_code(), 75);
}
