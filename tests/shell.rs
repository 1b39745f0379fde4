//! What hift does for someone at a shell, from outside: `hift new`, `hift completions`, `hift man`.

use std::fs;
use std::path::Path;
use std::process::Command;

const HIFT: &str = env!("CARGO_BIN_EXE_hift");

/// Exit code, stdout, stderr.
fn hift(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(HIFT).current_dir(folder).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// A folder with the quickstart's model, tokenizer and data, and data of other kinds.
fn folder() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/quickstart");
    fs::create_dir(place.path().join("model")).unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(quickstart.join(file), place.path().join("model").join(file)).unwrap();
    }
    fs::copy(quickstart.join("numbers.jsonl"), place.path().join("numbers.jsonl")).unwrap();
    let write = |name: &str, text: String| fs::write(place.path().join(name), text).unwrap();
    write(
        "pairs.json",
        r#"[{"question": "12", "answer": "twelve"}, {"question": "1", "answer": "one"}]"#.into(),
    );
    write("lines.txt", "one\ntwo\nthree\n".repeat(50));
    write("tokens.jsonl", "{\"input_ids\": [1, 2, 3], \"labels\": [-100, 2, 3]}\n".repeat(100));
    place
}

#[test]
fn a_new_file_is_right_once_its_files_are_there() {
    let place = folder();
    let check = |file: &str, arguments: &[&str], holds: &[&str]| {
        let config = ["new", file, "--config", "model/config.json"];
        let (code, said, error) = hift(place.path(), &[&config, arguments].concat());
        assert_eq!((code, error.as_str()), (0, ""), "{arguments:?}: {said}");
        assert!(!said.contains("not there yet"), "{said}");
        let text = fs::read_to_string(place.path().join(file)).unwrap();
        for part in holds {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let (code, _, error) = hift(place.path(), &["check", file]);
        assert_eq!((code, error.as_str()), (0, ""), "{text}");
    };
    check(
        "numbers.hift",
        &["--data", "numbers.jsonl", "--prompt", "{number} = ", "--response", "{words}", "--memory", "2GiB"],
        &["memory_limit = 2 GiB", "recompute = auto", "prompt = \"{number} = \"", "max_length = "],
    );
    check(
        "pairs.hift",
        &["--data", "pairs.json"],
        &["{question}\\n", "{answer}", "prompts        = [\"12\\n\"]"],
    );
    check("lines.hift", &["--data", "lines.txt"], &["text(\"lines.txt\")", "Once upon a time"]);
    check("words.hift", &["--data", "numbers.jsonl", "--column", "words"], &["text(column = \"words\")"]);
    check("tokens.hift", &["--data", "tokens.jsonl"], &["tokens(labels = \"labels\")"]);
    // Paths start from the pipeline's folder.
    fs::create_dir(place.path().join("inside")).unwrap();
    check(
        "inside/pairs.hift",
        &["--data", "pairs.json"],
        &["json(\"../pairs.json\")", "../model/config.json"],
    );
}

#[test]
fn a_new_file_needs_nothing_to_be_there() {
    let place = tempfile::tempdir().unwrap();
    let (code, said, error) = hift(place.path(), &["new", "p.hift"]);
    assert_eq!((code, error.as_str()), (0, ""));
    for path in ["data/train.jsonl", "models/llama", "models/llama/tokenizer.json"] {
        assert!(said.contains(&format!("{path} is not there yet")), "{said}");
    }
    let (code, ..) = hift(place.path(), &["check", "p.hift"]);
    assert_eq!(code, 66, "an input is missing, and nothing else is wrong");
}

#[test]
fn nothing_is_overwritten_and_nothing_is_guessed_in_the_dark() {
    let place = folder();
    let check = |arguments: &[&str], code: i32, part: &str| {
        let (exit, _, error) = hift(place.path(), &[&["new"], arguments].concat());
        assert_eq!(exit, code, "{arguments:?}: {error}");
        assert!(error.contains(part), "{error}");
    };
    check(&["lines.txt"], 73, "lines.txt is there already");
    assert!(fs::read_to_string(place.path().join("lines.txt")).unwrap().starts_with("one\n"));
    check(&["there/p.hift", "--data", "pairs.json"], 73, "cannot be written");
    check(&["p.hift", "--data", "numbers.jsonl"], 2, "the data has number, words");
    check(&["p.hift", "--data", "numbers.jsonl", "--task", "text"], 2, "--column NAME");
    check(&["p.hift", "--data", "lines.txt", "--task", "instruct"], 2, "plain text has no columns");
    check(&["p.hift", "--memory", "24"], 2, "24GiB");
    check(&["p.hift", "--task", "poetry"], 2, "possible values: instruct, text, tokens");
    check(
        &["p.hift", "--data", "pairs.json", "--prompt", "{question", "--response", "{answer}"],
        65,
        "hift::lang::template",
    );
    assert!(!place.path().join("p.hift").exists(), "a file that would be wrong is not written");
}

#[test]
fn shells_know_every_command() {
    let place = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, script, _) = hift(place.path(), &["completions", shell]);
        assert_eq!(code, 0);
        for word in ["check", "plan", "completions", "memory"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let (code, ..) = hift(place.path(), &["completions", "tcsh"]);
    assert_eq!(code, 2);
}

#[test]
fn every_command_has_a_page() {
    let place = tempfile::tempdir().unwrap();
    let (code, page, _) = hift(place.path(), &["man"]);
    assert_eq!(code, 0);
    assert!(page.contains(".TH hift 1") && page.contains("Exit codes"), "{page}");
    let (code, ..) = hift(place.path(), &["man", "--dir", "man/man1"]);
    assert_eq!(code, 0);
    for command in ["hift", "hift-check", "hift-plan", "hift-new", "hift-man", "hift-completions"] {
        let page = fs::read_to_string(place.path().join(format!("man/man1/{command}.1"))).unwrap();
        assert!(page.contains(".SH NAME"), "{command}");
    }
    fs::write(place.path().join("file"), "").unwrap();
    let (code, _, error) = hift(place.path(), &["man", "--dir", "file"]);
    assert_eq!(code, 73, "{error}");
}
