//! What readers give, for files that pyarrow and Hugging Face's datasets have written (`tests/python/data_files.py`).

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cases::Case;
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use expect_test::{Expect, expect};
use hift::data::read;
use hift::data::{Column, Kind, Sequences};
use hift::lang::pipeline::{
    Filter, Format, Holdout, Part, Setting, Shuffle, Source, Stop, Test, TooLong, Weigh,
};
use hift::problem::Span;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/files")
}

fn csv(path: &str) -> Source {
    Source::Csv { path: path.into(), separator: None, names: None, quotes: None }
}

fn arrow(path: &str, split: Option<&str>) -> Source {
    Source::Arrow { path: path.into(), split: split.map(str::to_owned) }
}

fn json(path: &str) -> Source {
    Source::Json { path: path.into() }
}

/// The cells of these columns, row by row with its place, `-` where there is none; or the problems.
fn shown(folder: &Path, source: Source, columns: &[(&str, Kind)]) -> String {
    let columns: Vec<Column> =
        columns.iter().map(|(name, kind)| Column { name: (*name).to_owned(), kind: *kind }).collect();
    let source = Setting::written(source, Span::new(1, 2));
    let (table, _) = match read(folder, &source, &columns) {
        Ok(read) => read,
        Err(problems) => {
            let problem = |problem: &hift::problem::Problem| {
                let label = problem.labels.first().map_or("", |label| &label.text);
                let help = problem.help.as_deref().unwrap_or_default();
                format!(
                    "{} {}: {}\n  {label}\n  {help}\n",
                    problem.fault.exit_code(),
                    problem.code,
                    problem.message
                )
            };
            let text: String = problems.0.iter().map(problem).collect();
            return text.replace(&folder.display().to_string(), "FOLDER");
        }
    };
    let mut text = String::new();
    for (row, place) in table.places.iter().enumerate() {
        let cell = |column: usize| table.cell(row, column).map_or("-".to_owned(), |cell| format!("{cell:?}"));
        let cells: Vec<String> = (0..columns.len()).map(cell).collect();
        text += &format!("{}: {}\n", table.at(*place), cells.join(" | "));
    }
    text
}

const COLUMNS: &[(&str, Kind)] =
    &[("text", Kind::Text), ("score", Kind::Any), ("good", Kind::Any), ("note", Kind::Any)];

fn check(source: Source, expected: Expect) {
    expected.assert_eq(&shown(&files(), source, COLUMNS));
}

#[test]
fn the_same_rows_from_every_kind_of_file() {
    let rows = |path: &str, unit: &str, numbers: [u32; 3], empty: &str| {
        let [a, b, c] = numbers;
        format!(
            "`{path}`, {unit} {a}: \"abc\" | \"0.25\" | \"true\" | -\n\
             `{path}`, {unit} {b}: \"d, \\\"e\\\"\\nc\" | \"2.0\" | \"false\" | \"x\"\n\
             `{path}`, {unit} {c}: \"ca b\" | \"1.5\" | \"true\" | {empty}\n"
        )
    };
    let same = |source: Source, expected: String| assert_eq!(shown(&files(), source, COLUMNS), expected);
    for path in ["rows.arrow", "stream.arrow", "lz4.arrow"] {
        same(arrow(path, None), rows(path, "row", [1, 2, 3], "\"\""));
    }
    for path in ["rows.parquet", "rows.zstd.parquet"] {
        same(Source::Parquet { path: path.into() }, rows(path, "row", [1, 2, 3], "\"\""));
    }
    for path in ["rows.jsonl.gz", "rows.jsonl.zst"] {
        same(json(path), rows(path, "line", [1, 2, 3], "\"\""));
    }
    // Python writes its own truth values; an empty cell and none are the same here, and the second row has two lines.
    let own = rows("rows.csv", "line", [2, 3, 5], "-").replace("true", "True").replace("false", "False");
    same(csv("rows.csv"), own);
}

#[test]
fn tabs_separate_without_quotes() {
    check(
        csv("rows.tsv"),
        expect![[r#"
            `rows.tsv`, line 2: "abc" | "0.25" | "True" | -
            `rows.tsv`, line 3: "ca b" | "1.5" | "True" | -
        "#]],
    );
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.tsv"), "\"a\tb\nc \"d\"\te\n").unwrap();
    let named = Source::Csv {
        path: "a.tsv".into(),
        separator: None,
        names: Some(vec!["x".into(), "y".into()]),
        quotes: None,
    };
    expect![[r#"
        `a.tsv`, line 1: "\"a"
        `a.tsv`, line 2: "c \"d\""
    "#]]
    .assert_eq(&shown(folder.path(), named, &[("x", Kind::Text)]));
}

#[test]
fn folders_that_save_to_disk_has_written() {
    check(
        arrow("saved", None),
        expect![[r#"
            `saved/data-00000-of-00002.arrow`, row 1: "abc" | "0.25" | "true" | -
            `saved/data-00000-of-00002.arrow`, row 2: "d, \"e\"\nc" | "2.0" | "false" | "x"
            `saved/data-00001-of-00002.arrow`, row 1: "ca b" | "1.5" | "true" | ""
        "#]],
    );
    check(
        arrow("splits", None),
        expect![[r#"
            65 hift::data::split: `splits` has the splits `train`, `test`
              which one?
              write `split = "..."` with one of `train`, `test`
        "#]],
    );
    check(
        arrow("splits", Some("valid")),
        expect![[r#"
            65 hift::data::split: `splits` has no split `valid`
              not there
              write `split = "..."` with one of `train`, `test`
        "#]],
    );
    check(
        arrow("rows.arrow", Some("train")),
        expect![[r#"
            65 hift::data::split: `rows.arrow` is no folder, so it has no splits
              asks for one
              leave `split` out, or name a folder that `save_to_disk` has written
        "#]],
    );
    let nested = shown(&files(), arrow("splits", Some("test")), &[("messages", Kind::Nested)]);
    let of_parquet =
        shown(&files(), Source::Parquet { path: "chats.parquet".into() }, &[("messages", Kind::Nested)]);
    let json = |text: &str| text.lines().next().unwrap().split_once(": ").unwrap().1.to_owned();
    assert_eq!(json(&nested), json(&of_parquet));
    expect![[r#""[{\"role\":\"user\",\"content\":\"ab\",\"name\":\"z\"},{\"role\":\"assistant\",\"content\":\"c\",\"name\":null}]""#]]
        .assert_eq(&json(&nested));
}

#[test]
fn lists_of_numbers() {
    for source in
        [arrow("rows.arrow", None), Source::Parquet { path: "rows.parquet".into() }, json("rows.jsonl.gz")]
    {
        let text = shown(&files(), source, &[("ids", Kind::Ints)]);
        let cells: Vec<_> = text.lines().map(|line| line.rsplit_once(": ").unwrap().1).collect();
        assert_eq!(cells, ["\"[3, 4]\"", "\"[5]\"", "\"[6, 7, 3]\""]);
    }
}

#[test]
fn patterns_are_read_in_the_order_of_names() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in [x]")).unwrap();
    for (name, text) in [("b.jsonl", "c"), ("a.jsonl", "a"), ("a10.jsonl", "b"), (".hidden.jsonl", "z")] {
        fs::write(folder.path().join("in [x]").join(name), format!("{{\"text\": \"{text}\"}}\n")).unwrap();
    }
    let text = |source| shown(&folder.path().join("in [x]"), source, &[("text", Kind::Text)]);
    expect![[r#"
        `a.jsonl`, line 1: "a"
        `a10.jsonl`, line 1: "b"
        `b.jsonl`, line 1: "c"
    "#]]
    .assert_eq(&text(json("*.jsonl")));
    expect![[r#"
        66 hift::data::missing_file: no file matches `*.json`
          looked in FOLDER
          there is `a.jsonl`
    "#]]
    .assert_eq(&text(json("*.json")));
}

#[test]
fn rows_in_the_middle_of_a_parquet_file_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let texts = |group: u64| {
        (0..5000_u64).map(move |row| format!("{:x}", (row + group).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    };
    let batch = |group| {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts(group)));
        RecordBatch::try_from_iter([("text", texts)]).unwrap()
    };
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_compression(zstd).build();
    let file = fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch(0).schema(), Some(properties)).unwrap();
    for group in 0..4 {
        writer.write(&batch(group)).unwrap();
        writer.flush().unwrap(); // a row group of its own
    }
    writer.close().unwrap();
    let source = || Source::Parquet { path: "rows.parquet".into() };
    assert!(!shown(folder.path(), source(), &[("text", Kind::Text)]).contains("hift::"));
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() * 5 / 8; // in the third group
    bytes[middle..middle + 64].fill(0);
    fs::write(&path, bytes).unwrap();
    let said = shown(folder.path(), source(), &[("text", Kind::Text)]);
    assert!(
        said.starts_with("65 hift::data::arrow: `rows.parquet` is not a whole parquet file: behind row "),
        "{said}"
    );
    let row = said.split("behind row ").nth(1).unwrap().split(':').next().unwrap();
    assert!((10_000 - 4096..15_000).contains(&row.parse().unwrap()), "{row}");
}

#[test]
fn files_that_are_not_what_they_should_be() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let whole = |name: &str| fs::read(files().join(name)).unwrap();
    put("cut.arrow", &whole("rows.arrow")[..700]);
    put("cut.parquet", &whole("rows.parquet")[..700]);
    put("cut.jsonl.gz", &whole("rows.jsonl.gz")[..60]);
    put("uneven.csv", b"a,text\n1,x\n2\n3,y,z\n");
    put("empty.arrow", b"");
    let check = |source, expected: Expect| {
        expected.assert_eq(&shown(folder.path(), source, &[("text", Kind::Text)]));
    };
    check(
        arrow("cut.arrow", None),
        expect![[r#"
        65 hift::data::arrow: `cut.arrow` is not an arrow file: Ipc error: the file was not written to its end
          this file
          look whether it was written to its end, and whether its reader is the right one: `arrow`, `parquet`, `json`, `csv`, `text`
    "#]],
    );
    check(
        Source::Parquet { path: "cut.parquet".into() },
        expect![[r#"
        65 hift::data::arrow: `cut.parquet` is not a parquet file: Parquet error: Invalid Parquet file. Corrupt footer
          this file
          look whether it was written to its end, and whether its reader is the right one: `arrow`, `parquet`, `json`, `csv`, `text`
    "#]],
    );
    check(
        json("cut.jsonl.gz"),
        expect![[r#"
        65 hift::data::packed: `cut.jsonl.gz` cannot be unpacked: incomplete deflate stream
          this file
          it is damaged or was not written to its end: get it again
    "#]],
    );
    check(
        csv("uneven.csv"),
        expect![[r#"
        65 hift::data::csv: `uneven.csv`, line 3: 1 cells, but there are 2 columns (and 1 more row)
          this file
          put cells with a separator or a line break in quotes; if quotes are text here, write `quotes = false`
    "#]],
    );
    check(
        arrow("empty.arrow", None),
        expect![[r#"
        65 hift::data::arrow: `empty.arrow` is not an arrow file: it is empty
          this file
          look whether it was written to its end, and whether its reader is the right one: `arrow`, `parquet`, `json`, `csv`, `text`
    "#]],
    );
    // A byte in the middle of a column of parquet.
    let mut bytes = whole("rows.zstd.parquet");
    bytes[30] ^= 0xff;
    put("flipped.parquet", &bytes);
    let text =
        shown(folder.path(), Source::Parquet { path: "flipped.parquet".into() }, &[("text", Kind::Text)]);
    assert!(
        text.starts_with("65 hift::data::arrow: `flipped.parquet` is not a whole parquet file: behind row 0"),
        "{text}"
    );
}

#[test]
fn columns_that_are_missing_or_hold_something_else() {
    let check = |columns: &[(&str, Kind)], expected: Expect| {
        expected.assert_eq(&shown(&files(), arrow("rows.arrow", None), columns));
    };
    check(
        &[("txt", Kind::Text)],
        expect![[r#"
        65 hift::data::no_column: `rows.arrow` has no column `txt`
          its columns are `text`, `score`, `good`, `ids`, `note`
          did you mean `text`?
    "#]],
    );
    check(
        &[("note", Kind::Text)],
        expect![[r#"
        65 hift::data::absent_cell: `rows.arrow`, row 1: no value for `note`
          its columns are `text`, `score`, `good`, `ids`, `note`
          give every row a value; an empty text "" is one
    "#]],
    );
    check(
        &[("ids", Kind::Text), ("text", Kind::Ints), ("score", Kind::Nested)],
        expect![[r#"
        65 hift::data::cell: `rows.arrow`, row 1: `ids` holds a list; text is needed (and 2 more rows)
          this file
          name another column in `format`, or change the rows
        65 hift::data::cell: `rows.arrow`, row 1: `text` holds text; a list of whole numbers is needed (and 2 more rows)
          this file
          name another column in `format`, or change the rows
        65 hift::data::cell: `rows.arrow`, row 1: `score` holds a number; a list is needed (and 2 more rows)
          this file
          name another column in `format`, or change the rows
    "#]],
    );
    check(
        &[("absent", Kind::Any), ("gone", Kind::Maybe)],
        expect![[r#"
        65 hift::data::no_column: `rows.arrow` has no column `absent`
          its columns are `text`, `score`, `good`, `ids`, `note`
          name one of these columns in `format`
    "#]],
    );
}

/// A filter, written as the language has it.
fn filter(column: &str, test: Test) -> Filter {
    Filter { column: Setting::default(column.into()), test }
}

#[test]
fn filters_test_columns() {
    let rows = r#"{"text": "a", "n": 1, "l": "x"}
{"text": "b", "n": 2.5}
{"text": "c", "n": "3", "l": "y"}"#;
    let check = |filters: Vec<Filter>, expected: &[&str]| {
        let case = Case::new(rows, Format::Text { column: "text".into() })
            .with(|case| case.data.filter = Setting::default(filters));
        assert_eq!(case.shown().lines().map(|line| &line[5..6]).collect::<Vec<_>>(), expected);
        let audit = case.load().unwrap().audit;
        assert_eq!((audit.rows, audit.dropped.filtered), (3, 3 - expected.len() as u64));
    };
    check(vec![filter("l", Test::Is(vec!["x".into(), "y".into()]))], &["a", "c"]);
    check(vec![filter("l", Test::Not(vec!["x".into()]))], &["b", "c"]);
    check(vec![filter("n", Test::AtLeast(2.0))], &["b", "c"]);
    check(vec![filter("n", Test::AtLeast(2.0)), filter("n", Test::AtMost(2.5))], &["b"]);
    check(vec![filter("text", Test::Is(vec!["b".into()]))], &["b"]);
    let none = Case::text(&["a"]).with(|case| {
        case.data.filter =
            Setting::written(vec![filter("lang", Test::Is(vec!["en".into()]))], Span::new(2, 3));
    });
    expect![[r#"
        65 hift::data::no_column: `rows.jsonl` has no column `lang`
          at source: its columns are `text`
          help: name one of these columns in `format`
    "#]]
    .assert_eq(&none.problems());
}

#[test]
fn rows_that_are_too_long_lose_either_end_or_are_split() {
    let check = |too_long, expected: &[&str]| {
        let case =
            Case::text(&["acdea", "c"]).max_length(4).with(|case| case.tokenizer.too_long.value = too_long);
        assert_eq!(case.shown().lines().collect::<Vec<_>>(), expected);
        case.load().unwrap().audit
    };
    check(TooLong::Cut, &["<s>|[a]|[c]|[d]", "<s>|[c]|[</s>]"]);
    check(TooLong::CutLeft, &["<s>|[e]|[a]|[</s>]", "<s>|[c]|[</s>]"]);
    // Every token but the first is predicted exactly once.
    let audit = check(TooLong::Split, &["<s>|[a]|[c]|[d]", "d|[e]|[a]|[</s>]", "<s>|[c]|[</s>]"]);
    assert_eq!((audit.rows, audit.split, audit.pieces, audit.train.rows), (2, 1, 1, 3));
}

#[test]
fn the_same_row_twice_is_learned_once() {
    let case = Case::text(&["a", "b", "a", "c", "a"]);
    assert_eq!(case.load().unwrap().audit.duplicates, 2);
    let case = case.with(|case| case.data.dedup.value = true);
    assert_eq!(case.shown().lines().count(), 3);
    let audit = case.load().unwrap().audit;
    assert_eq!((audit.duplicates, audit.dropped.repeats), (0, 2));
}

#[test]
fn the_holdout_may_have_a_file_of_its_own() {
    let case = Case::text(&["a", "b"])
        .write("valid.jsonl", "{\"text\": \"d\"}\n{\"text\": \"b\"}\n")
        .with(|case| case.data.holdout.value = Holdout::From(Box::new(json("valid.jsonl"))));
    let dataset = case.load().unwrap();
    assert_eq!((dataset.train.len(), dataset.holdout.len(), dataset.audit.leaked), (2, 2, 1));
    assert_eq!(dataset.audit.rows, 4);
    let paths: Vec<&str> = dataset.hashes.iter().map(|hashed| hashed.path.as_str()).collect();
    assert!(paths.contains(&"rows.jsonl") && paths.contains(&"valid.jsonl"), "{paths:?}");
}

#[test]
fn blocks_are_mixed_by_their_weights() {
    let case = |weights: [Option<f64>; 2], stop| {
        let case = Case::text(&["a", "b", "c", "d"]).write("other.jsonl", "{\"p\": \"e\", \"r\": \"a\"}\n");
        let first = case.data.clone();
        let mut second = first.clone();
        second.source.value = json("other.jsonl");
        second.format.value = Format::Instruct { prompt: "{p}".into(), response: "{r}".into() };
        case.with(|case| {
            let part = |data, weight| Part { data, weight };
            let parts = vec![part(first, weights[0]), part(second, weights[1])];
            case.data.source.value = Source::Mix { parts, by: Weigh::Rows, stop };
            case.data.format.value = Format::OfParts;
            case.data.shuffle.value = Shuffle::None;
        })
    };
    let check = |weights, stop, expected: &[&str]| {
        assert_eq!(case(weights, stop).shown().lines().collect::<Vec<_>>(), expected);
    };
    // Each in its own format; only the response of the second is learned.
    let all = ["<s>|[a]|[</s>]", "<s>|[b]|[</s>]", "<s>|[c]|[</s>]", "<s>|[d]|[</s>]", "<s>|e|[a]|[</s>]"];
    check([None, None], Stop::First, &all);
    check([Some(2.0), Some(1.0)], Stop::First, &[all[0], all[1], all[4]]);
    check([Some(2.0), Some(1.0)], Stop::All, &[all[0], all[1], all[2], all[3], all[4], all[4]]);
    let audit = case([Some(2.0), Some(1.0)], Stop::First).load().unwrap().audit;
    assert_eq!((audit.rows, audit.dropped.unmixed, audit.repeated, audit.train.rows), (5, 2, 0, 3));
    let audit = case([Some(2.0), Some(1.0)], Stop::All).load().unwrap().audit;
    assert_eq!((audit.rows, audit.dropped.unmixed, audit.repeated, audit.train.rows), (5, 0, 1, 6));
}

/// The ids of all rows.
fn ids(rows: &Sequences) -> Vec<Vec<u32>> {
    rows.iter().map(|row| row.ids.into_owned()).collect()
}

#[test]
fn a_block_holds_out_the_same_rows_alone_and_in_a_mix() {
    // Rows 5, 10 and 15 of the first block are its row 0; the second block has rows of the first one.
    let row = |n: u32| format!("{{\"input_ids\": [{0}, {1}], \"labels\": [{0}, {1}]}}\n", n / 10, n % 10);
    let repeats = |n: u32| if n > 0 && n.is_multiple_of(5) { 0 } else { n };
    let first = Case::tokens(&(0..20).map(|n| row(repeats(n))).collect::<String>()).with(|case| {
        case.data.holdout.value = Holdout::Rows(12);
        case.data.shuffle.value = Shuffle::Seed(7);
    });
    let second = Case::tokens(&(12..32).map(row).collect::<String>()).with(|case| {
        case.data.holdout.value = Holdout::Share(0.5);
        case.data.shuffle.value = Shuffle::ByLength(0);
    });
    let text = fs::read(second.folder.path().join("rows.jsonl")).unwrap();
    let alone = [&first, &second].map(|case| case.load().unwrap());
    let held: Vec<Vec<u32>> = alone.iter().flat_map(|dataset| ids(&dataset.holdout)).collect();
    assert_eq!(held.len(), 22);
    let parts = [first.data.clone(), second.data.clone()];
    let mut case = first.write("other.jsonl", text);
    let mix = |case: &mut Case, weights: [Option<f64>; 2], shuffle: Shuffle, dedup: bool| {
        let mut parts = parts.clone();
        parts[1].source.value = json("other.jsonl");
        let parts = parts.into_iter().zip(weights).map(|(data, weight)| Part { data, weight }).collect();
        case.data.source.value = Source::Mix { parts, by: Weigh::Rows, stop: Stop::First };
        case.data.format.value = Format::OfParts;
        case.data.holdout.value = Holdout::None;
        case.data.shuffle.value = shuffle;
        case.data.dedup.value = dedup;
        case.load().unwrap()
    };
    for shuffle in [Shuffle::None, Shuffle::Seed(3), Shuffle::ByLength(4)] {
        for weights in [[None, None], [Some(2.0), Some(1.0)]] {
            assert_eq!(ids(&mix(&mut case, weights, shuffle, false).holdout), held, "{shuffle:?}");
        }
        // Each once, and none of them is learned.
        let dataset = mix(&mut case, [None, None], shuffle, true);
        let (mut once, holdout, train) = (held.clone(), ids(&dataset.holdout), ids(&dataset.train));
        let mut seen = HashSet::new();
        once.retain(|row| seen.insert(row.clone()));
        assert!(once.len() < held.len(), "some are held out of both");
        assert_eq!(holdout, once);
        assert!(train.iter().all(|row| seen.insert(row.clone())), "{train:?}");
        let distinct = 32 - 2; // 0 to 31 without 5 and 10
        assert_eq!(seen.len(), distinct);
        assert_eq!((dataset.audit.dropped.repeats, dataset.audit.leaked), (40 - distinct as u64, 0));
    }
}
