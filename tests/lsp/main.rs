//! The language server from outside: an editor starts the binary, speaks the protocol with it and looks at every
//! answer, on right files, broken ones, and ones made of several.
//!
//! `§` is the cursor.

mod editor;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hift::lang::Outside;
use hift::lsp::complete::complete;
use hift::lsp::hover::hover;
use hift::lsp::navigate::{definition, renameable};
use hift::lsp::workspace::Workspace;
use serde_json::{Value as Json, json};

use editor::{Editor, codes, config, edited, file, marked, position, within};

/// A pipeline that works, on the files of [`Editor`].
const PIPELINE: &str = r#"hift 1
## The highest rate.
param peak: number in 1e-6 .. 1 = 1e-2
let length = 2 * 8 tokens

data rows {
    source = json("rows.jsonl")
    format = tokens(input = "input_ids", labels = "labels")
    holdout = 2 rows
}

## Small enough to look at.
model tiny { weights = random("config.json", seed = 1) }
model again = tiny { recompute = blocks }
groups layers { split = by_layer(1) }
schedule turns { rate = constant(peak) }
optimizer adamw {}
tokenizer plain { max_length = length }

train sft {
    data = rows tokenizer = plain model = again groups = layers schedule = turns optimizer = adamw
    steps = 8 micro_batch = 2
}
export final { from = sft to = "out/final" }
"#;

/// A pipeline in two files.
const SHARED: &str = r#"hift 1
param peak = 1e-2
model tiny { weights = random("../config.json", seed = 1) }
groups layers { split = by_layer(1) }
schedule turns { rate = constant(peak) }
optimizer adamw {}
"#;

const MAIN: &str = r#"hift 1
import "parts/shared.hift" { peak = 5e-3 }
data rows { source = json("rows.jsonl") format = tokens }
train sft {
    data = rows model = tiny groups = layers schedule = turns optimizer = adamw
    steps = 8 micro_batch = 2
}
"#;

#[test]
fn it_greets_and_says_goodbye() {
    let editor = Editor::new();
    assert_eq!(editor.hello["serverInfo"]["name"], "hift");
    let can = &editor.hello["capabilities"];
    assert_eq!(can["positionEncoding"], "utf-16");
    for provider in ["hover", "definition", "references", "documentSymbol", "foldingRange", "inlayHint"] {
        assert_eq!(can[format!("{provider}Provider")], true, "{provider}");
    }
    assert_eq!(can["renameProvider"]["prepareProvider"], true);
    let (status, said) = editor.close();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}

#[test]
fn an_editor_that_goes_without_a_goodbye_is_a_failure() {
    let (status, said) = Editor::new().end();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("without a goodbye"), "{said}");
}

#[test]
fn a_request_that_is_not_known_is_refused_and_the_conversation_goes_on() {
    let mut editor = Editor::new();
    assert_eq!(editor.request("textDocument/moniker", json!({})).unwrap_err()["code"], -32601);
    assert_eq!(editor.request("textDocument/hover", json!({ "x": 1 })).unwrap_err()["code"], -32602);
    editor.notify("hift/nothing", json!({}));
    let gone = json!({ "textDocument": { "uri": "file:///gone.hift" }, "position": position("", 0) });
    assert_eq!(editor.request("textDocument/hover", gone.clone()), Ok(Json::Null));
    assert_eq!(editor.request("textDocument/completion", gone), Ok(json!([])));
    assert!(editor.hover("hift 1\ntr§ain t {}").contains("Trains a model"));
    assert_eq!(editor.close().0.code(), Some(0));
}

#[test]
fn a_right_file_has_no_problems() {
    let mut editor = Editor::new();
    editor.open("p.hift", PIPELINE);
    assert_eq!(editor.diagnostics("p.hift", 1), Vec::<Json>::new());
}

#[test]
fn problems_have_code_severity_place_and_a_way_out() {
    let mut editor = Editor::new();
    let text = PIPELINE
        .replace("by_layer(1)", "by_layr(1)")
        .replace("steps = 8", "checkpoint { every = 3 } steps = 8");
    editor.open("p.hift", &text);
    let found = editor.diagnostics("p.hift", 1);
    assert_eq!(codes(&found), ["hift::lang::unknown_word", "hift::lang::missing_unit"]);
    assert_eq!(found[0]["severity"], 1);
    assert_eq!(found[0]["source"], "hift");
    assert_eq!(within(&text, &found[0]["range"]), "by_layr");
    assert_eq!(within(&text, &found[1]["range"]), "3");
    let message = found[0]["message"].as_str().unwrap();
    assert!(message.ends_with("\nhelp: did you mean `by_layer(...)`?"), "{message}");
}

#[test]
fn problems_follow_the_typing_and_go_with_it() {
    let mut editor = Editor::new();
    editor.open("p.hift", "hift 1\nexport a { from = b to = \"x\" }\n");
    assert_eq!(codes(&editor.diagnostics("p.hift", 1)), ["hift::lang::unknown_name"]);
    editor.change("p.hift", 2, PIPELINE);
    assert_eq!(editor.diagnostics("p.hift", 2), Vec::<Json>::new());
    editor.change("p.hift", 3, &format!("{PIPELINE}\ntrain x {{"));
    assert!(codes(&editor.diagnostics("p.hift", 3)).contains(&"hift::lang::unclosed_bracket"));
    editor.notify("textDocument/didClose", json!({ "textDocument": { "uri": editor.uri("p.hift") } }));
    assert_eq!(editor.diagnostics_when("p.hift", &|found| found.is_empty()), Vec::<Json>::new());
}

#[test]
fn further_places_stand_beside_a_problem() {
    let mut editor = Editor::new();
    let text = format!("{PIPELINE}model tiny {{ weights = \"x\" }}\n");
    editor.open("p.hift", &text);
    let found = editor.diagnostics("p.hift", 1);
    let twice = found.iter().find(|problem| problem["code"] == "hift::lang::duplicate_block").unwrap();
    let related = &twice["relatedInformation"][0];
    assert_eq!(related["message"], "the first one");
    assert_eq!(related["location"]["uri"], editor.uri("p.hift"));
    assert_eq!(within(&text, &related["location"]["range"]), "model tiny");
    assert_eq!(related["location"]["range"]["start"]["line"], 12);
}

#[test]
fn what_nothing_uses_fades() {
    let mut editor = Editor::new();
    editor.open("p.hift", &format!("{PIPELINE}let spare = 1\n"));
    let found = editor.diagnostics("p.hift", 1);
    assert_eq!(codes(&found), ["hift::lang::unused"]);
    assert_eq!((&found[0]["severity"], &found[0]["tags"]), (&json!(2), &json!([1])));
}

#[test]
fn what_only_the_model_knows_is_a_problem_too() {
    let mut editor = Editor::new();
    let text =
        PIPELINE.replace("rate = constant(peak)", "rate = constant(peak) order = [\"embedding\", \"hed\"]");
    editor.open("p.hift", &text);
    let found = editor.diagnostics_when("p.hift", &|found| !found.is_empty());
    assert_eq!(codes(&found), ["hift::plan::unknown_layer"]);
    assert_eq!(within(&text, &found[0]["range"]), "\"hed\"");
    assert!(found[0]["message"].as_str().unwrap().contains("did you mean `head`?"));
    // The model's configuration changes on the disk.
    editor.change("p.hift", 2, &PIPELINE.replace("config.json", "later.json"));
    let found = editor.diagnostics_when("p.hift", &|found| {
        found.iter().any(|problem| problem["code"] == "hift::plan::no_config")
    });
    assert_eq!(found[0]["severity"], 1);
    editor.write("later.json", std::fs::read(editor.path("config.json")).unwrap());
    editor.notify("workspace/didChangeWatchedFiles", json!({ "changes": [] }));
    editor.diagnostics_when("p.hift", &|found| found.is_empty());
}

#[test]
fn a_plan_above_its_limit_is_a_warning_as_long_as_no_rows_were_read() {
    let mut editor = Editor::new();
    editor.open("p.hift", &PIPELINE.replace("micro_batch = 2", "micro_batch = 2 memory_limit = 4 KiB"));
    let found = editor.diagnostics_when("p.hift", &|found| !found.is_empty());
    assert_eq!(codes(&found), ["hift::estimate::over_limit"]);
    assert_eq!(found[0]["severity"], 2);
}

#[test]
fn columns_are_counted_in_utf_16_unless_the_editor_counts_bytes() {
    let text = "hift 1\nexport a { from = b to = \"é😀\" x = 1 }\n";
    let column = |capabilities: Json| {
        let mut editor = Editor::with(capabilities);
        editor.open("p.hift", text);
        let found = editor.diagnostics("p.hift", 1);
        let key = found.iter().find(|problem| problem["code"] == "hift::lang::unknown_key").unwrap();
        (editor.hello["capabilities"]["positionEncoding"].clone(), key["range"]["start"]["character"].clone())
    };
    // In front of `x` are 26 units, a quote behind `é` (2 bytes, 1 unit) and `😀` (4 bytes, 2 units), and a blank.
    assert_eq!(column(json!({})), (json!("utf-16"), json!(31)));
    let bytes = json!({ "general": { "positionEncodings": ["utf-16", "utf-8"] } });
    assert_eq!(column(bytes), (json!("utf-8"), json!(34)));
}

#[test]
fn edits_of_parts_are_counted_in_utf_16() {
    let mut editor = Editor::new();
    editor.open("p.hift", "hift 1\nparam é😀 = 1\n");
    assert!(!editor.diagnostics("p.hift", 1).is_empty());
    let edit = |line: u64, from: u64, to: u64, text: &str| {
        let at = |character| json!({ "line": line, "character": character });
        json!({ "range": { "start": at(from), "end": at(to) }, "text": text })
    };
    let document = json!({ "uri": editor.uri("p.hift"), "version": 2 });
    let changes = json!([edit(1, 6, 9, "name"), edit(1, 14, 14, "23\nlet other = name")]);
    editor.notify("textDocument/didChange", json!({ "textDocument": document, "contentChanges": changes }));
    editor.diagnostics("p.hift", 2);
    let hover = editor.at("hover", "p.hift", &json!({ "line": 2, "character": 13 }));
    assert!(hover["contents"]["value"].as_str().unwrap().contains("param name = 123"), "{hover}");
}

#[test]
fn an_open_document_stands_for_its_file() {
    let mut editor = Editor::new();
    editor.write("parts/shared.hift", "hift 1\n");
    editor.open("main.hift", MAIN);
    assert!(codes(&editor.diagnostics("main.hift", 1)).contains(&"hift::lang::unknown_name"));
    // Unsaved, and the file that imports it is looked at again.
    editor.open("parts/shared.hift", SHARED);
    editor.diagnostics_when("main.hift", &|found| found.is_empty());
    editor.change("parts/shared.hift", 2, &SHARED.replace("by_layer(1)", "by_layer(0)"));
    let found = editor.diagnostics("parts/shared.hift", 2);
    assert_eq!(codes(&found), ["hift::lang::range"]);
    // Closed, the disk counts again.
    editor.notify(
        "textDocument/didClose",
        json!({ "textDocument": { "uri": editor.uri("parts/shared.hift") } }),
    );
    let found = editor.diagnostics_when("main.hift", &|found| !found.is_empty());
    assert!(codes(&found).contains(&"hift::lang::import"), "{found:?}");
}

#[test]
fn problems_in_an_import_are_shown_in_its_file() {
    let mut editor = Editor::new();
    editor.write("parts/shared.hift", SHARED.replace("constant(peak)", "constant(pek)"));
    editor.open("main.hift", MAIN);
    let found = editor.diagnostics_when("parts/shared.hift", &|found| !found.is_empty());
    assert_eq!(codes(&found), ["hift::lang::unknown_word"]);
    editor.change("main.hift", 2, "hift 1\n");
    editor.diagnostics_when("parts/shared.hift", &|found| found.is_empty());
}

#[test]
fn the_top_level_offers_kinds_with_what_they_need() {
    let mut editor = Editor::new();
    let labels = editor.labels("§");
    assert_eq!(labels[0], "hift");
    for kind in ["data", "train", "export", "param", "let", "import", "profile"] {
        assert!(labels.iter().any(|label| label == kind), "{kind}");
    }
    let items = editor.complete("hift 1\ndata rows { }\nex§");
    let export = items.iter().find(|item| item["label"] == "export").unwrap();
    assert_eq!(export["insertTextFormat"], 2);
    assert_eq!(
        export["textEdit"]["newText"],
        "export ${1:NAME} {\n    from = ${2:NAME}\n    to   = ${3:\"out/model\"}\n}$0"
    );
    // The one data block is the one that is meant.
    let train = items.iter().find(|item| item["label"] == "train").unwrap();
    assert!(train["textEdit"]["newText"].as_str().unwrap().contains("    data        = rows\n"));
    // Where the block is there already, only its kind is written.
    let items = editor.complete("hift 1\nexp§ a { }\n");
    let export = items.iter().find(|item| item["label"] == "export").unwrap();
    assert_eq!(export["textEdit"]["newText"], "export");
}

#[test]
fn without_snippets_plain_text_is_written() {
    let mut editor = Editor::with(json!({}));
    let items = editor.complete("hift 1\nex§");
    let export = items.iter().find(|item| item["label"] == "export").unwrap();
    assert_eq!(export["textEdit"]["newText"], "export NAME {\n    from = NAME\n    to   = \"out/model\"\n}");
    assert_eq!(export["insertTextFormat"], 1);
}

#[test]
fn a_block_offers_the_keys_that_are_not_written_what_is_needed_first() {
    let mut editor = Editor::new();
    let labels = editor.labels("hift 1\ntrain t {\n    data = x\n    §\n    model = y\n    steps = 3\n}\n");
    assert_eq!(labels[..4], ["groups", "schedule", "optimizer", "micro_batch"]);
    assert!(labels.contains(&"evaluate".into()) && labels.contains(&"clip".into()), "{labels:?}");
    for there in ["data", "model", "steps"] {
        assert!(!labels.contains(&there.into()), "{there}");
    }
    // In a block inside, in a broken file, with half a word.
    let labels = editor.labels("hift 1\nmodel m {\ntrain t {\n    steps = \n    checkpoint { ke§\n");
    assert_eq!(labels, ["every", "best", "keep", "result"]);
    let items = editor.complete("hift 1\ntokenizer t { too§ }");
    let cut = items.iter().find(|item| item["label"] == "too_long").unwrap();
    assert_eq!(cut["textEdit"]["newText"], "too_long = ${1|cut,cut_left,split,drop,fail|}");
    assert!(cut["documentation"]["value"].as_str().unwrap().contains("Longer rows lose their end."));
    assert_eq!(cut["detail"], "default cut");
    // Other tools' names find it.
    let items = editor.complete("hift 1\nschedule s { lr§ }");
    let rate = items.iter().find(|item| item["label"] == "rate").unwrap();
    assert!(rate["filterText"].as_str().unwrap().contains(" lr "), "{rate}");
    assert!(editor.labels("hift 1\nmodel m { precision = § }").contains(&"bf16".into()));
    assert!(editor.labels("hift 1\nschedule s { states = § }").contains(&"disk".into()));
}

#[test]
fn a_value_offers_what_the_key_takes() {
    let mut editor = Editor::new();
    let check = |editor: &mut Editor, text: &str, first: &[&str]| {
        let labels = editor.labels(&format!("hift 1\nparam size = 2\nparam most = 9 tokens\n{text}"));
        assert_eq!(labels[..first.len().min(labels.len())], *first, "{text}");
    };
    let editor = &mut editor;
    check(editor, "schedule s { order = § }", &["bottom_up", "top_down", "random"]);
    check(editor, "schedule s { order = bot§ }", &["bottom_up", "top_down", "random"]);
    check(
        editor,
        "schedule s {\n    order = §\n    rate = constant(1)\n}",
        &["bottom_up", "top_down", "random"],
    );
    check(editor, "tokenizer t { pack = § }", &["true", "false"]);
    check(editor, "tokenizer t { max_length = § }", &["none", "most", "512 tokens"]);
    check(editor, "tokenizer t { max_length = 512 § }", &["tokens", "token"]);
    check(editor, "tokenizer t { max_length = 2 * § }", &["size", "most"]);
    check(editor, "train t { metrics = 1 evaluate { metrics = [loss, §", &["loss", "perplexity", "accuracy"]);
    check(editor, "model a {}\nmodel b {}\ntrain t { model = § }", &["a", "b"]);
    check(editor, "model a {}\nmodel b = §", &["a"]);
    check(editor, "train a {}\nexport e { from = §", &["a"]);
    check(editor, "groups g { split = by_layer(§) }", &["size", "tail", "size"]);
    check(editor, "groups g { split = by_layer(1, tail = §) }", &["joined", "split"]);
    check(editor, "schedule s { rate = cosine(peak = 1, §) }", &["warmup", "end", "none"]);
    check(editor, "schedule s { rate = cosine(peak = 1, warmup = 3 §) }", &["%", "steps", "cycles"]);
    check(editor, "param x: §", &["number", "whole", "text"]);
    check(editor, "let x = §", &["size", "most"]);
    check(editor, "export e { to = \"out/${§", &["size", "most"]);
    check(editor, "profile p { § }\ntrain t {}", &["size", "most", "train t"]);
    check(editor, "profile p { train §\n}\ntrain t {}", &["t"]);
    check(editor, "profile p { train t { § } }\ntrain t {}", &["data", "tokenizer", "model"]);
    check(editor, "# a comment §", &[]);
    check(editor, "train §", &[]);
    // What is no snippet is written as it is.
    let items = editor.complete("hift 1\ngroups g { split = named(§) }");
    let groups = items.iter().find(|item| item["kind"] == 12).unwrap();
    assert_eq!(groups["textEdit"]["newText"], groups["label"]);
    let items = editor.complete("hift 1\nschedule s { rate = cos§ }");
    let cosine = items.iter().find(|item| item["label"] == "cosine").unwrap();
    assert_eq!(cosine["textEdit"]["newText"], "cosine(${1:2e-5})");
}

#[test]
fn paths_are_offered_from_the_folder_of_the_file() {
    let mut editor = Editor::new();
    editor.write("parts/shared.hift", SHARED);
    editor.write("parts/deep/more.hift", "hift 1\n");
    let check = |editor: &mut Editor, text: &str, labels: &[&str]| {
        assert_eq!(editor.labels(&format!("hift 1\n{text}")), labels, "{text}");
    };
    let editor = &mut editor;
    check(editor, "import \"§", &["models/", "parts/"]);
    check(editor, "import \"parts/§\"", &["shared.hift", "deep/"]);
    check(editor, "model m { weights = \"§\" }", &["models/", "parts/"]);
    check(editor, "data d { source = json(\"r§\") }", &["config.json", "rows.jsonl", "models/", "parts/"]);
    check(
        editor,
        "model m { weights = random(config = \"./§\") }",
        &["config.json", "rows.jsonl", "models/", "parts/"],
    );
    check(editor, "import \"parts/shared.hift\" { § }", &["peak"]);
}

#[test]
fn layers_are_those_of_the_model_that_is_trained() {
    let mut editor = Editor::new();
    let layers = ["\"embedding\"", "\"block.0\"", "\"block.1\"", "\"head\"", "\"norm\""];
    let text = PIPELINE.replace("rate = constant(peak)", "order = [§");
    assert_eq!(editor.labels(&text)[..5], layers);
    let text = PIPELINE.replace("split = by_layer(1)", "split = all freeze = [\"§\"]");
    let labels = editor.labels(&text);
    assert_eq!(labels[..5], ["embedding", "block.0", "block.1", "head", "norm"]);
    assert!(
        labels.contains(&"block.*".into()) && labels.contains(&"block.*.attention.q".into()),
        "{labels:?}"
    );
    let text = PIPELINE.replace("split = by_layer(1)", "split = named({ a = [\"embedding\", \"§");
    assert_eq!(editor.labels(&text)[0], "embedding");
    // With groups of the user's, an order is one of groups.
    let named = PIPELINE.replace("by_layer(1)", "{ low = [\"embedding\"], high = [\"block.*\", \"head\"] }");
    let text = named.replace("rate = constant(peak)", "order = [\"§\"]");
    assert_eq!(editor.labels(&text), ["low", "high"]);
}

#[test]
fn hovering_says_what_the_manual_says() {
    let mut editor = Editor::new();
    let check = |editor: &mut Editor, text: &str, parts: &[&str]| {
        let said = editor.hover(&format!("hift 1\n{text}"));
        for part in parts {
            assert!(said.contains(part), "{text}\nsays\n{said}\nwithout\n{part}");
        }
        assert!(!parts.is_empty() || said.is_empty(), "{text}\nsays\n{said}");
    };
    let editor = &mut editor;
    check(editor, "dat§a d { }", &["data NAME { ... }", "Rows to learn from", "`source`"]);
    check(editor, "tokenizer t { §max_length = 5 }", &["The most tokens of a row", "`none`", "512 tokens"]);
    check(editor, "tokenizer t { too_long = d§rop }", &["too_long = drop", "Longer rows are left out."]);
    check(editor, "schedule s { rate = cos§ine(1) }", &["`cosine(peak, warmup, end)`", "half a cosine"]);
    check(editor, "schedule s { rate = cosine(peak = 1, war§mup = 3 %) }", &["How long the rate rises"]);
    check(editor, "schedule s { rate = cosine(1, 3 §%) }", &["Percent"]);
    check(editor, "train t { memory_limit = 22 Gi§B }", &["1,073,741,824 bytes"]);
    check(editor, "train t { steps = 3 se§ed = 1 }", &["What is drawn at random in this stage"]);
    check(editor, "train t { evalu§ate { } }", &["Measures the rows that are held out"]);
    check(editor, "train t { chec§kpoint {", &["Saves what is needed"]);
    check(editor, "let §x = 1", &["let x = 1"]);
    check(editor, "l§et x = 1", &["A name for a value"]);
    check(editor, "model m { weights = \"conf§ig.json\" }", &["config.json`: a file of "]);
    check(editor, "model m { weights = \"no§where\" }", &["nowhere`: not there"]);
    check(editor, "# trai§n", &[]);
    check(editor, "train t { nothing§ = 1 }", &[]);
}

#[test]
fn hovering_over_a_name_says_what_it_stands_for() {
    let mut editor = Editor::new();
    let at = |word: &str, mark: &str| PIPELINE.replacen(word, mark, 1);
    let said = editor.hover(&at("constant(peak)", "constant(pe§ak)"));
    assert!(said.contains("param peak: number in 1e-6 .. 1 = 1e-2"), "{said}");
    assert!(said.contains("The highest rate.") && said.contains("Defined in hover.hift:3"), "{said}");
    let said = editor.hover(&at("max_length = length", "max_length = len§gth"));
    assert!(said.contains("let length = 2 * 8 tokens") && said.contains("Comes to `16 tokens`"), "{said}");
    let said = editor.hover(&at("max_length = length", "max§_length = length"));
    assert!(said.contains("Here: `16 tokens`"), "{said}");
    let said = editor.hover(&at("2 * 8 tokens", "2 * 8 tok§ens"));
    assert!(said.contains("tokens"), "{said}");
    let said = editor.hover(&at("model = again", "model = ag§ain"));
    assert!(said.contains("model again = tiny { ... }"), "{said}");
    assert!(
        said.contains("Takes over `model tiny`, hover.hift:13") && said.contains("hover.hift:14"),
        "{said}"
    );
    let said = editor.hover(&at("again = tiny", "again = ti§ny"));
    assert!(said.contains("Small enough to look at."), "{said}");
    let text = "hift 1\nlet name = env(\"HIFT_TEST_NAME\")\nexport e { to = \"out/${na§me}\" }";
    assert!(editor.hover(text).contains("Comes to `\"from-outside\"`"));
    let said = editor.hover(&text.replace("na§me", "name").replace("out/", "o§ut/"));
    assert!(said.contains("out"), "{said}");
}

/// The definition of what is at `§`: file and text.
fn defined(editor: &mut Editor, name: &str, text: &str) -> (String, String) {
    let at = editor.open_at(name, text);
    let found = editor.at("definition", name, &at);
    if found.is_null() {
        return Default::default();
    }
    let uri = found["uri"].as_str().unwrap().to_owned();
    let (plain, _) = marked(text);
    let there = match uri == editor.uri(name) {
        true => plain,
        false => std::fs::read_to_string(uri.strip_prefix("file://").unwrap()).unwrap(),
    };
    let line = found["range"]["start"]["line"].as_u64().unwrap() as usize;
    let file = uri.rsplit('/').next().unwrap().to_owned();
    (file, there.lines().nth(line).unwrap().trim().to_owned())
}

#[test]
fn names_lead_to_where_they_are_defined() {
    let mut editor = Editor::new();
    editor.write("parts/shared.hift", SHARED);
    let editor = &mut editor;
    let mut check = |text: String, file: &str, line: &str| {
        assert_eq!(defined(editor, "main.hift", &text), (file.to_owned(), line.to_owned()), "{text}");
    };
    let at = |text: &str, word: &str, mark: &str| text.replacen(word, mark, 1);
    check(
        at(PIPELINE, "constant(peak)", "constant(§peak)"),
        "main.hift",
        "param peak: number in 1e-6 .. 1 = 1e-2",
    );
    check(at(PIPELINE, "= length }", "= leng§th }"), "main.hift", "let length = 2 * 8 tokens");
    check(at(PIPELINE, "from = sft", "from = sft§"), "main.hift", "train sft {");
    check(
        at(PIPELINE, "again = tiny", "again = t§iny"),
        "main.hift",
        "model tiny { weights = random(\"config.json\", seed = 1) }",
    );
    check(
        at(MAIN, "model = tiny", "model = tin§y"),
        "shared.hift",
        "model tiny { weights = random(\"../config.json\", seed = 1) }",
    );
    check(at(MAIN, "{ peak", "{ pe§ak"), "shared.hift", "param peak = 1e-2");
    check(at(MAIN, "shared.hift", "sha§red.hift"), "shared.hift", "hift 1");
    check(at(PIPELINE, "config.json", "con§fig.json"), "config.json", &config().to_string());
    check(at(PIPELINE, "by_layer", "by§_layer"), "", "");
    check("hift 1\nexport e { from = no§body }".into(), "", "");
    // A broken file: the rest of it still leads somewhere.
    check(at(PIPELINE, "from = sft to", "from = s§ft to = = ="), "main.hift", "train sft {");
}

#[test]
fn references_are_found_across_files_that_are_not_open() {
    let mut editor = Editor::new();
    editor.write("main.hift", MAIN);
    editor.write("other.hift", "hift 1\nmodel tiny {}\nexport e { model = tiny to = \"x\" }\n");
    let at = editor.open_at("parts/shared.hift", &SHARED.replacen("model tiny", "model ti§ny", 1));
    let params = json!({
        "textDocument": { "uri": editor.uri("parts/shared.hift") }, "position": at,
        "context": { "includeDeclaration": true },
    });
    let found = editor.request("textDocument/references", params.clone()).unwrap();
    let files: Vec<&str> =
        found.as_array().unwrap().iter().map(|place| place["uri"].as_str().unwrap()).collect();
    // The model of the same name in a file of its own is another one.
    assert_eq!(files, [editor.uri("main.hift"), editor.uri("parts/shared.hift")]);
    let range = &found[0]["range"];
    assert_eq!(within(MAIN, range), "tiny");
    let mut uses = params;
    uses["context"]["includeDeclaration"] = json!(false);
    assert_eq!(editor.request("textDocument/references", uses).unwrap().as_array().unwrap().len(), 1);
    let marks = editor.at("documentHighlight", "parts/shared.hift", &at);
    assert_eq!(marks[0]["kind"], 3);
}

/// The text after a name at `§` was changed, or why not.
fn renamed(editor: &mut Editor, text: &str, new: &str) -> Result<String, String> {
    let at = editor.open_at("p.hift", text);
    let (plain, _) = marked(text);
    let uri = editor.uri("p.hift");
    let params = json!({ "textDocument": { "uri": uri }, "position": at, "newName": new });
    match editor.request("textDocument/rename", params) {
        Ok(edit) => Ok(edited(&plain, &edit["changes"][&uri])),
        Err(error) => Err(error["message"].as_str().unwrap().to_owned()),
    }
}

#[test]
fn a_name_changes_everywhere() {
    let mut editor = Editor::new();
    let editor = &mut editor;
    let everywhere = |editor: &mut Editor, mark: &str, old: &str, new: &str| {
        let text =
            renamed(editor, &PIPELINE.replacen(mark, &mark.replacen(old, &format!("§{old}"), 1), 1), new);
        let text = text.unwrap();
        editor.open("q.hift", &text);
        assert_eq!(editor.diagnostics("q.hift", 1), Vec::<Json>::new(), "{text}");
        editor.notify("textDocument/didClose", json!({ "textDocument": { "uri": editor.uri("q.hift") } }));
        text
    };
    let text = everywhere(editor, "constant(peak)", "peak", "highest");
    assert!(text.contains("param highest: number") && text.contains("constant(highest)"), "{text}");
    let text = everywhere(editor, "train sft", "sft", "first");
    assert!(text.contains("train first {") && text.contains("from = first"), "{text}");
    let text = everywhere(editor, "model tiny", "tiny", "small");
    assert!(text.contains("model small {") && text.contains("model again = small {"), "{text}");
    // The optimizer's name was its algorithm, which it says from now on.
    let text = everywhere(editor, "optimizer adamw", "adamw", "usual");
    assert!(
        text.contains("optimizer usual { algorithm = adamw }") && text.contains("optimizer = usual"),
        "{text}"
    );
    let text = "hift 1\nlet name = \"é😀\"\nlet other = \"${na§me}, ${name}\"\nexport e { to = \"${name}${other}\" }";
    assert_eq!(
        renamed(editor, text, "label").unwrap(),
        "hift 1\nlet label = \"é😀\"\nlet other = \"${label}, ${label}\"\nexport e { to = \"${label}${other}\" }"
    );
    // A let that stands for a block, and a profile.
    let text = "hift 1\nmodel a§ {}\nlet which = a\ntrain t { model = which }\nprofile p { model a { recompute = blocks } }";
    assert_eq!(
        renamed(editor, text, "b").unwrap(),
        "hift 1\nmodel b {}\nlet which = b\ntrain t { model = which }\nprofile p { model b { recompute = blocks } }"
    );
}

#[test]
fn a_name_that_would_mean_something_else_is_refused() {
    let mut editor = Editor::new();
    let mut check = |text: &str, new: &str, why: &str| {
        assert_eq!(renamed(&mut editor, text, new), Err(why.to_owned()));
    };
    check("hift 1\nparam §a = 1\nparam b = 2", "b", "there is already a param or let called `b`");
    check("hift 1\nmodel §a {}\nmodel b {}", "b", "there is already a model block called `b`");
    check("hift 1\ntrain §a {}\nexport b {}", "b", "there is already a export block called `b`");
    check(
        "hift 1\nparam §a = 1\ntrain t { clip = a }",
        "none",
        "`none` is a word of the language where the name is used",
    );
    check("hift 1\nparam §a = 1", "true", "`true` is a word of the language");
    check(
        "hift 1\nparam §a = 1",
        "1a",
        "`1a` is no name: write letters, digits, `_` and `-`, beginning with a letter",
    );
    check("hift 1\nparam a = §1", "b", "there is no name that can be changed here");
    check(
        "hift 1\noptimizer §adamw {}",
        "sgd",
        "the name is the algorithm: as `sgd` it would be another one",
    );
}

#[test]
fn a_name_changes_in_files_that_import_it() {
    let mut editor = Editor::new();
    editor.write("parts/shared.hift", SHARED);
    let at = editor.open_at("main.hift", &MAIN.replacen("{ peak", "{ §peak", 1));
    let prepared = editor.at("prepareRename", "main.hift", &at);
    assert_eq!((prepared["placeholder"].as_str(), within(MAIN, &prepared["range"])), (Some("peak"), "peak"));
    let uri = editor.uri("main.hift");
    let params = json!({ "textDocument": { "uri": uri }, "position": at, "newName": "highest" });
    let edit = editor.request("textDocument/rename", params).unwrap();
    assert!(edited(MAIN, &edit["changes"][&uri]).contains("{ highest = 5e-3 }"));
    let shared = edited(SHARED, &edit["changes"][editor.uri("parts/shared.hift")]);
    assert!(shared.contains("param highest = 1e-2") && shared.contains("constant(highest)"), "{shared}");
    let at = editor.open_at("main.hift", &MAIN.replacen("steps", "st§eps", 1));
    assert!(editor.at("prepareRename", "main.hift", &at).is_null());
}

#[test]
fn a_document_has_an_outline_and_folds() {
    let mut editor = Editor::new();
    let text = format!("# One.\n# Two.\n# Three.\n{PIPELINE}train broken {{\n    steps = \n");
    editor.open("p.hift", &text);
    let document = json!({ "textDocument": { "uri": editor.uri("p.hift") } });
    let symbols = editor.request("textDocument/documentSymbol", document.clone()).unwrap();
    let names: Vec<&str> =
        symbols.as_array().unwrap().iter().map(|symbol| symbol["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "peak", "length", "rows", "tiny", "again", "layers", "turns", "adamw", "plain", "sft", "final",
            "broken"
        ]
    );
    let rows = &symbols[2];
    assert_eq!(rows["detail"], "data");
    assert_eq!(rows["children"][2]["name"], "holdout");
    assert_eq!(rows["children"][2]["detail"], "2 rows");
    assert_eq!(within(&text, &rows["selectionRange"]), "rows");
    let folds = editor.request("textDocument/foldingRange", document).unwrap();
    let lines: Vec<(u64, u64)> = folds
        .as_array()
        .unwrap()
        .iter()
        .map(|fold| (fold["startLine"].as_u64().unwrap(), fold["endLine"].as_u64().unwrap()))
        .collect();
    assert!(lines.contains(&(0, 2)) && lines.contains(&(8, 12)), "{lines:?}");
}

#[test]
fn a_document_is_brought_into_its_layout() {
    let mut editor = Editor::new();
    assert_eq!(editor.hello["capabilities"]["documentFormattingProvider"], true);
    let mut format = |text: &str| {
        editor.open("p.hift", text);
        let document = json!({ "uri": editor.uri("p.hift") });
        let options = json!({ "tabSize": 8, "insertSpaces": false });
        let params = json!({ "textDocument": document, "options": options });
        editor.request("textDocument/formatting", params).unwrap()
    };
    let wrong = "hift 1\n\n# é😀\nlet a=1\n\nmodel m {\nweights=\"x\"\n}\n# The end.\n";
    let right = "hift 1\n\n# é😀\nlet a = 1\n\nmodel m {\n    weights = \"x\"\n}\n# The end.\n";
    let edits = format(wrong);
    assert_eq!(edited(wrong, &edits), right);
    // What is right already is left alone, up to and behind it.
    assert_eq!(within(wrong, &edits[0]["range"]), "let a=1\n\nmodel m {\nweights=\"x\"\n");
    assert_eq!(format(right), json!([]));
    assert_eq!(edited("hift 1   ", &format("hift 1   ")), "hift 1\n");
    assert_eq!(format("hift 1\nmodel m {\nweights=\n"), Json::Null);
}

#[test]
fn a_mechanical_mistake_has_an_action() {
    let mut editor = Editor::new();
    let text = PIPELINE.replace("\"out/final\"", "out/final");
    editor.open("p.hift", &text);
    let found = editor.diagnostics("p.hift", 1);
    assert_eq!(codes(&found), ["hift::lang::no_quotes"]);
    let uri = editor.uri("p.hift");
    let params = |range: &Json| {
        json!({
            "textDocument": { "uri": uri }, "range": range, "context": { "diagnostics": [found[0]] },
        })
    };
    let actions = editor.request("textDocument/codeAction", params(&found[0]["range"])).unwrap();
    assert_eq!(actions[0]["title"], "write `\"out/final\"`");
    assert_eq!(actions[0]["kind"], "quickfix");
    assert_eq!(actions[0]["diagnostics"][0]["code"], "hift::lang::no_quotes");
    assert_eq!(edited(&text, &actions[0]["edit"]["changes"][&uri]), PIPELINE);
    let start = json!({ "start": position("", 0), "end": position("", 0) });
    assert_eq!(editor.request("textDocument/codeAction", params(&start)).unwrap(), json!([]));
}

#[test]
fn several_mechanical_mistakes_have_an_action_for_all() {
    let mut editor = Editor::new();
    let wrong =
        PIPELINE.replace("\"out/final\"", "out/final").replace("json(\"rows.jsonl\")", "json(data/rows)");
    let right = PIPELINE.replace("json(\"rows.jsonl\")", "json(\"data/rows\")");
    editor.open("p.hift", &wrong);
    let uri = editor.uri("p.hift");
    let range = json!({ "start": position("", 0), "end": { "line": 99, "character": 0 } });
    let context = json!({ "diagnostics": [], "only": ["source.fixAll"] });
    let params = json!({ "textDocument": { "uri": uri }, "range": range, "context": context });
    let actions = editor.request("textDocument/codeAction", params).unwrap();
    assert_eq!(actions.as_array().unwrap().len(), 1, "{actions}");
    assert_eq!(edited(&wrong, &actions[0]["edit"]["changes"][&uri]), right);
}

/// The inlay hints of a document: the line in front of each, and what it says.
fn hinted(editor: &mut Editor, name: &str, text: &str) -> Vec<(String, String)> {
    let range = json!({ "start": position("", 0), "end": { "line": 999, "character": 0 } });
    let params = json!({ "textDocument": { "uri": editor.uri(name) }, "range": range });
    let hints = editor.request("textDocument/inlayHint", params).unwrap();
    let hints = hints.as_array().unwrap().iter().map(|hint| {
        let line = hint["position"]["line"].as_u64().unwrap() as usize;
        let column = hint["position"]["character"].as_u64().unwrap() as usize;
        assert!(!hint["tooltip"]["value"].as_str().unwrap().is_empty());
        (text.lines().nth(line).unwrap()[..column].to_owned(), hint["label"].as_str().unwrap().to_owned())
    });
    hints.collect()
}

#[test]
fn hints_say_the_peak_of_a_stage_and_the_sizes_of_its_groups() {
    let mut editor = Editor::new();
    editor.open("p.hift", PIPELINE);
    // By hand: the embedding and the head have 64 x 16 weights, the head's norm 16; a block has 16 x 16 for each of q
    // and o, 16 x 8 for each of k and v, 16 x 32 three times and two norms of 16: 2,336.
    let hints = hinted(&mut editor, "p.hift", PIPELINE);
    assert_eq!(hints.len(), 2, "{hints:?}");
    assert_eq!(hints[0].0, "train sft {");
    assert!(hints[0].1.starts_with("peak at most ") && hints[0].1.ends_with(')'), "{}", hints[0].1);
    let sizes =
        ("groups layers { split = by_layer(1)".to_owned(), "4 groups, 1,024 to 2,336 weights".to_owned());
    assert_eq!(hints[1], sizes);
    // They follow what is typed, and do not outlive what they are about.
    let text = PIPELINE.replace("by_layer(1)", "all()");
    editor.change("p.hift", 2, &text);
    let hints = hinted(&mut editor, "p.hift", &text);
    assert_eq!(hints[1].1, "1 group, 6,736 weights");
    let text = PIPELINE.replace("by_layer(1)", "by_layer(");
    editor.change("p.hift", 3, &text);
    assert_eq!(hinted(&mut editor, "p.hift", &text), []);
}

#[test]
fn the_peak_is_that_of_hift_plan() {
    let quickstart = file("pipelines/quickstart.hift");
    let plan = |arguments: &[&str]| -> Json {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_hift"))
            .args(["plan", "--json", "pipelines/quickstart.hift"])
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        serde_json::from_slice::<Json>(&output.stdout).unwrap()["estimate"]["stages"][0]["peak"].clone()
    };
    let mib = |bytes: Json| format!("{:.2} MiB", bytes.as_f64().unwrap() / 1048576.0);
    let hint = |options: Json| {
        let mut editor = Editor::start(json!({}), options);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/quickstart.hift");
        let uri = format!("file://{}", path.display());
        let document = json!({ "uri": uri, "languageId": "hift", "version": 1, "text": quickstart });
        editor.notify("textDocument/didOpen", json!({ "textDocument": document }));
        let range = json!({ "start": position("", 0), "end": { "line": 999, "character": 0 } });
        let params = json!({ "textDocument": { "uri": uri }, "range": range });
        let hints = editor.request("textDocument/inlayHint", params).unwrap();
        hints[0]["label"].as_str().unwrap().to_owned()
    };
    let at_most = mib(plan(&["--no-data"]));
    assert_eq!(hint(Json::Null), format!("peak at most {at_most} (embedding)"));
    if cfg!(feature = "run") {
        assert_eq!(hint(json!({ "rows": true })), format!("peak {} (embedding)", mib(plan(&[]))));
    }
}

#[test]
fn an_editor_that_can_is_asked_to_fetch_hints_again() {
    let mut editor = Editor::with(json!({ "workspace": {
        "inlayHint": { "refreshSupport": true },
        "didChangeWatchedFiles": { "dynamicRegistration": true },
    } }));
    let watch = editor.wait(&|message| message["method"] == "client/registerCapability");
    assert_eq!(watch["params"]["registrations"][0]["method"], "workspace/didChangeWatchedFiles");
    editor.open("p.hift", PIPELINE);
    editor.wait(&|message| message["method"] == "workspace/inlayHint/refresh");
}

#[test]
fn a_request_for_hints_can_be_taken_back() {
    let mut editor = Editor::new();
    editor.open("p.hift", PIPELINE);
    let range = json!({ "start": position("", 0), "end": { "line": 999, "character": 0 } });
    let params = json!({ "textDocument": { "uri": editor.uri("p.hift") }, "range": range });
    let id = editor.ask("textDocument/inlayHint", params);
    editor.notify("$/cancelRequest", json!({ "id": id }));
    assert_eq!(editor.answer(id).unwrap_err()["code"], -32800);
}

#[test]
fn documents_that_import_each_other_are_told_so() {
    let mut editor = Editor::new();
    editor.open("a.hift", "hift 1\nimport \"b.hift\"\n");
    editor.open("b.hift", "hift 1\nimport \"a.hift\"\n");
    editor.diagnostics_when("b.hift", &|found| {
        found.iter().any(|problem| problem["code"] == "hift::lang::circle")
    });
    assert!(editor.at("hover", "b.hift", &position("", 0))["contents"]["value"].is_string());
}

#[test]
fn a_document_that_was_never_saved_is_a_pipeline_too() {
    let mut editor = Editor::new();
    let document = json!({ "uri": "untitled:Untitled-1", "languageId": "hift", "version": 1, "text": "hift 1\nmodel m { wights = 1 }" });
    editor.notify("textDocument/didOpen", json!({ "textDocument": document }));
    let message = editor.wait(&|message| message["params"]["uri"] == "untitled:Untitled-1");
    assert!(message.to_string().contains("did you mean `weights`?"), "{message}");
}

#[test]
fn names_of_files_may_have_blanks_and_letters_of_all_kinds() {
    let mut editor = Editor::new();
    editor.write("ein é/teil.hift", SHARED);
    editor.open(
        "ein é/main.hift",
        &MAIN.replace("parts/shared.hift", "teil.hift").replace("rows.jsonl", "../rows.jsonl"),
    );
    assert_eq!(editor.diagnostics("ein é/main.hift", 1), Vec::<Json>::new());
}

/// Every beginning of a text, typed letter by letter: an answer to everything at its end, and never a failure.
fn type_out(text: &str) {
    let mut editor = Editor::new();
    editor.open("typed.hift", "");
    let mut asked = Vec::new();
    let ends = text.char_indices().map(|(at, char)| at + char.len_utf8());
    for (version, end) in (2..).zip(ends) {
        let typed = &text[..end];
        editor.change("typed.hift", version, typed);
        let at = position(typed, end);
        let params = json!({ "textDocument": { "uri": editor.uri("typed.hift") }, "position": at });
        for method in ["completion", "hover", "definition", "prepareRename", "documentSymbol", "foldingRange"]
        {
            asked.push(editor.ask(&format!("textDocument/{method}"), params.clone()));
        }
    }
    for id in asked {
        if let Err(error) = editor.answer(id) {
            panic!("{error}");
        }
    }
    let (status, said) = editor.close();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}

#[test]
fn every_beginning_of_a_pipeline_is_answered() {
    type_out(&PIPELINE.replace("Small enough", "Klein é😀 enough"));
    type_out(
        "hift 1\r\nimport \"x.hift\" { a = \"${b}\" }\r\nprofile p { a = 1 train t { evaluate { every = 3 steps } } }\r\n",
    );
    type_out(
        "model a = b { weights = \"😀/${x\" } groups g { split = named({ é = [\"block.*\"] }) } } ) ] { [ (",
    );
}

/// The disk of this machine.
struct Disk;

impl Outside for Disk {
    fn read(&self, path: &Path) -> Result<String, String> {
        std::fs::read_to_string(path).map_err(|error| error.to_string())
    }

    fn env(&self, _: &str) -> Option<String> {
        None
    }
}

/// All `.hift` files of the repository's own folders.
fn pipelines() -> Vec<PathBuf> {
    let mut waiting =
        ["tests/cases", "pipelines"].map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).to_vec();
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "hift") {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_place_of_every_case_is_answered() {
    let mut n_items = 0;
    for path in pipelines() {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let mut workspace = Workspace::new(Arc::new(Disk));
        let uri = hift::lsp::text::uri(&path);
        workspace.open(uri.clone(), 1, text.clone());
        let (analysis, source) = workspace.view(&uri).unwrap();
        let lines = hift::lsp::text::Lines::new(&text);
        // Long files are looked at here and there.
        let step = 1 + text.len() / 300;
        for at in (0..=text.len()).step_by(step) {
            let place = lines.position(&text, at, workspace.encoding);
            n_items += complete(&workspace, &analysis, source, place, at % 2 == 0).len();
            let hover = hover(&analysis, source, place);
            let named = renameable(&analysis, source, place);
            if named.is_some() {
                let defined = definition(&workspace, &analysis, source, place);
                assert!(hover.is_some() && defined.is_some(), "{} at {place:?}:\n{text}", path.display());
            }
        }
    }
    assert!(n_items > 10_000, "{n_items}");
}

#[test]
fn a_large_file_is_answered_at_once() {
    let mut text = PIPELINE.to_owned();
    for i in 0..1_000 {
        text += &format!("model m{i} = tiny {{ recompute = blocks }}\n");
    }
    let mut editor = Editor::new();
    editor.open("p.hift", &text);
    editor.diagnostics("p.hift", 1);
    let start = std::time::Instant::now();
    for version in 2..12 {
        editor.change("p.hift", version, &format!("{text}# {version}\n"));
    }
    editor.diagnostics("p.hift", 11);
    // What comes together is looked at together.
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}
