//! The language against texts that nobody would write: an answer within a second each, on a small stack, and no panic.
//!
//! What the fuzzer (`tests/fuzz`) has found stands here, too.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hift::lang::schema::{self, Form, Key};
use hift::lang::{self, Look, Options, Outside, Reading, Source};

const MIB: usize = 1 << 20;

/// How a text is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Means,
    /// With an error of this code first.
    Error(&'static str),
    /// With any error.
    Wrong,
}
use Answer::{Error, Means, Wrong};

/// Files that can be imported, by name, and no environment.
struct Beside(Vec<(String, String)>);

impl Outside for Beside {
    fn read(&self, path: &Path) -> Result<String, String> {
        let known = self.0.iter().find(|(name, _)| Path::new(name) == path);
        known.map(|(_, text)| text.clone()).ok_or_else(|| "there is no such file".into())
    }

    fn env(&self, name: &str) -> Option<String> {
        (name == "LONG").then(|| "[".repeat(100_000))
    }
}

/// What a thread has computed: on a busy machine, a clock on the wall tells something else.
struct Clock {
    wall: Instant,
    computed: Option<Duration>,
}

impl Clock {
    fn now() -> Self {
        Self { wall: Instant::now(), computed: Self::computed() }
    }

    fn elapsed(&self) -> Duration {
        match (self.computed, Self::computed()) {
            (Some(then), Some(now)) => now - then,
            _ => self.wall.elapsed(),
        }
    }

    /// Linux tells it in nanoseconds.
    fn computed() -> Option<Duration> {
        let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    }
}

/// Reads on a stack of 2 MiB.
fn read(text: String, beside: Vec<(String, String)>) -> (Reading, Duration) {
    let reader = thread::Builder::new().stack_size(2 * MIB).spawn(move || {
        let options = Options { outside: Arc::new(Beside(beside)), ..Options::default() };
        let began = Clock::now();
        let reading = lang::read(Source::new("p.hift", text), &options);
        let took = began.elapsed();
        // All of it can be shown.
        let drawn = lang::render(&reading.problems, reading.sources(), Look::default());
        assert!(drawn.len() < 10_000 * (reading.problems.0.len() + 1), "{} bytes", drawn.len());
        reading.resolved.text(reading.sources(), false);
        (reading, took)
    });
    reader.unwrap().join().expect("no panic")
}

#[track_caller]
fn check_with(name: &str, text: String, beside: Vec<(String, String)>, answer: Answer) {
    let n_bytes = text.len();
    let (reading, took) = read(text, beside);
    println!("{name}: {n_bytes} bytes in {took:?}, {} problems", reading.problems.0.len());
    let first = reading.problems.0.iter().find(|problem| problem.is_error());
    match (answer, first) {
        (Means, None) | (Wrong, Some(_)) => {}
        (Error(code), Some(problem)) => {
            assert_eq!(problem.code, format!("hift::lang::{code}"), "{name}: {problem}")
        }
        (Means, Some(problem)) => panic!("{name}: {problem} ({})", problem.code),
        (Error(_) | Wrong, None) => panic!("{name}: no error"),
    }
    assert_eq!(reading.pipeline.is_none(), first.is_some(), "{name}");
    assert!(took < Duration::from_secs(1), "{name} took {took:?}");
}

#[track_caller]
fn check(name: &str, text: impl Into<String>, answer: Answer) {
    check_with(name, text.into(), Vec::new(), answer);
}

/// A whole pipeline, without its train block's last brace; `rest.hift` has every definition.
fn rest() -> &'static str {
    include_str!("cases/rest.hift")
}

fn with(text: &str) -> String {
    format!("hift 1\n{text}\n{}", rest())
}

#[test]
fn nesting_has_an_end() {
    let n = 100_000;
    for bracket in ["[", "(", "{ a = ", "f(", "f(a = ", "-(", "[{ a = f(-("] {
        check(bracket, format!("hift 1\nlet a = {}", bracket.repeat(n)), Error("nesting"));
    }
    check("blocks", format!("hift 1\n{}", "a {".repeat(n)), Error("nesting"));
    check("named blocks", format!("hift 1\n{}", "model a {\n".repeat(n)), Wrong);
    check("closing", format!("hift 1\n{}", "}".repeat(n)), Wrong);
    check("minus", format!("hift 1\nlet a = {}1", "-".repeat(n)), Wrong);
    check("minuses", format!("hift 1\nlet a = {}1", "- ".repeat(n)), Wrong);
    check("minus words", format!("hift 1\nlet a = {}b", "-".repeat(n)), Wrong);
    check("hole", with(&format!("let a = \"${{{}\"", "(".repeat(n))), Wrong);
    check("hole of minuses", with(&format!("let a = \"${{{}b}}\"", "-".repeat(n))), Wrong);
    check("holes", with(&format!("let b = 1\nlet a = \"{}\"", "${b}".repeat(n))), Error("too_much"));
    check("hole of calls", with(&format!("let a = \"${{{}1{}}}\"", "f(".repeat(60), ")".repeat(60))), Wrong);
    check("sum", with(&format!("let a = 1{}", " + 1".repeat(n))), Means);
    check("product", with(&format!("let a = 1{}", " * 1".repeat(n))), Means);
    check("groups", with(&format!("let a = {}1{}", "(".repeat(60), ")".repeat(60))), Means);
    check("environment", with("let a = env(\"LONG\", 1)"), Wrong);
}

#[test]
fn names_of_names_have_an_end() {
    let n = 100_000;
    let chain = |first: &str, next: &dyn Fn(usize) -> String| -> String {
        (1..n).fold(first.to_owned(), |mut text, i| {
            text.push_str(&next(i));
            text
        })
    };
    let lets = chain("let x0 = 1\n", &|i| format!("let x{i} = x{}\n", i - 1));
    check("lets", with(&lets), Means);
    let params = chain("param x0 = 1\n", &|i| format!("param x{i} = x{}\n", i - 1));
    check("params", with(&params), Means);
    check("sums", with(&chain("let x0 = 1\n", &|i| format!("let x{i} = x{} + 1\n", i - 1))), Means);
    let list = format!("let x0 = [{}]\n", "1, ".repeat(10_000));
    check("lets of a list", with(&chain(&list, &|i| format!("let x{i} = x{}\n", i - 1))), Means);
    check("sums of a list", with(&chain(&list, &|i| format!("let x{i} = x0 + 1\n"))), Wrong);
    let used = |text: &str, value: &str| {
        with(text).replace("split = by_layer(1)", &format!("split = by_layer(1) freeze = {value}"))
    };
    let doubled = (1..64)
        .fold("let x0 = [\"a\"]\n".to_owned(), |text, i| format!("{text}let x{i} = [x{0}, x{0}]\n", i - 1));
    check("doubled lists", used(&doubled, "x63"), Wrong);
    let texts = (1..64).fold("let x0 = \"a\"\n".to_owned(), |text, i| {
        format!("{text}let x{i} = \"${{x{0}}}${{x{0}}}\"\n", i - 1)
    });
    check("doubled texts", used(&texts, "[x63]"), Error("too_much"));
    let bases = chain("model m0 { weights = \"a\" }\n", &|i| format!("model m{i} = m{} {{}}\n", i - 1));
    check("bases", with(&bases), Error("too_much"));
    let circle =
        chain(&format!("model m0 = m{} {{}}\n", n - 1), &|i| format!("model m{i} = m{} {{}}\n", i - 1));
    check("a circle of bases", with(&circle), Error("circle"));
    let stages = |last: &str| {
        (1..5_000).fold(format!("hift 1\n{}", rest()).replace("model = llama ", &format!("model = {last} ")), |text, i| {
            let before = if i == 1 { "sft".to_owned() } else { format!("s{}", i - 1) };
            format!(
                "{text}train s{i} {{ data = rows tokenizer = bpe model = {before} groups = layers schedule = hift \
                 optimizer = adamw steps = 1 micro_batch = 1 }}\n"
            )
        })
    };
    check("stages", stages("llama"), Means);
    check("a circle of stages", stages("s4999"), Error("circle"));
    check("needed by a list", used(&format!("let a = [{}]", "\"b\", ".repeat(n)), "a"), Means);
}

#[test]
fn imports_have_an_end() {
    let chain: Vec<(String, String)> =
        (0..1000).map(|i| (format!("f{i}.part"), format!("hift 1\nimport \"f{}.part\"\n", i + 1))).collect();
    check_with("a chain", with("import \"f0.part\""), chain, Error("import"));
    let wide: String = (0..1000).map(|i| format!("import \"f{i}.part\"\n")).collect();
    let files = (0..1000).map(|i| (format!("f{i}.part"), "hift 1\n".to_owned())).collect();
    check_with("many", with(&wide), files, Error("import"));
    let double: Vec<(String, String)> = (0..60)
        .map(|i| {
            (format!("f{i}.part"), format!("hift 1\nimport \"f{0}.part\"\nimport \"./f{0}.part\"\n", i + 1))
        })
        .chain([("f60.part".to_owned(), "hift 1\nparam x = 1\n".to_owned())])
        .collect();
    check_with("doubled", with("import \"f0.part\""), double, Means);
    let text = format!("hift 1\n{}", "let a = 1\n".repeat(MIB / 10));
    let large = (0..60).map(|i| (format!("f{i}.part"), text.clone())).collect();
    check_with("large", with(&wide), large, Wrong);
}

#[test]
fn ten_megabytes_are_answered() {
    let fill = |line: &str| line.repeat(10 * MIB / line.len());
    let blocks: String = (0..)
        .map(|i| format!("model m{i} {{ weights = \"a/b\" recompute = blocks }}\n"))
        .scan(0, |n, line| {
            *n += line.len();
            (*n < 10 * MIB).then_some(line)
        })
        .collect();
    check("valid blocks", with(&blocks), Wrong);
    let lets: String = (0..500_000).map(|i| format!("let x{i} = {i}\n")).collect();
    check("valid lets", with(&lets), Means);
    let entries: String = (0..400_000).map(|i| format!("key{i} = {i}\n")).collect();
    check("keys", format!("hift 1\nmodel m {{\n{entries}}}\n"), Wrong);
    check("same keys", format!("hift 1\nmodel m {{\n{}}}\n", fill("weights = 1\n")), Wrong);
    check("same blocks", with(&fill("model m { weights = \"a\" }\n")), Wrong);
    check("parts", format!("hift 1\ntrain m {{\n{}}}\n", fill("evaluate { every = 1 step }\n")), Wrong);
    check("profiles", with(&fill("profile p { x = 1 }\n")), Wrong);
    check("comments", with(&fill("# a comment\n")), Means);
    check("docs", with(&format!("{}let a = 1", fill("## a comment\n"))), Means);
    check("blank lines", with(&fill("\n")), Means);
    check("blanks", with(&fill(" ")), Means);
    check("tabs", with(&fill("\t")), Means);
    check("one text", with(&format!("let a = \"{}\"", fill("a"))), Means);
    check("one comment", with(&format!("# {}", fill("a"))), Means);
    check("one word", with(&format!("let a = {}", fill("a"))), Means);
    check("one number", with(&format!("let a = {}", fill("1"))), Wrong);
    check("one list", with(&format!("let a = [{}]", fill("1, "))), Means);
    check("one record", with(&format!("let a = {{ {} }}", fill("a = 1, "))), Means);
    check("one call", with(&format!("let a = f({})", fill("1, "))), Means);
    check("one line of blocks", with(&fill("model m { } ")), Wrong);
    check("one line of keys", format!("hift 1 train m {{ {} }}", fill("a = 1 ")), Wrong);
    for garbage in [
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "\"",
        "'",
        "=",
        ",",
        ".",
        ":",
        ";",
        "\\",
        "\0",
        "\u{FEFF}",
        "é",
        "а",
        "%",
        "$",
        "${",
        "a",
        "a ",
        "1",
        "1 ",
        "a = ",
        "a = 1,",
        "a {",
        "a {\n",
        "} a",
        "\"\n",
        "\"a\" ",
        "model ",
        "model m ",
        "model m {\n",
        "let ",
        "let a = ",
        "let a = [\n",
        "param ",
        "param a: ",
        "import ",
        "import \"a\"\n",
        "hift 1 ",
        "train t = u {",
        "= 1 ",
        "a.b ",
        "]\n",
        "}\n",
        "[}",
        "(]",
        "{)",
        "a = [ }\n",
        "\t=\r",
        "\r",
        "x\r",
        "\u{2028}",
        "\u{1F600}",
        "-",
        "- ",
        "1e",
        "1_",
        "0x",
        "\\u{",
    ] {
        check(&format!("{garbage:?}"), fill(garbage), Wrong);
        check(&format!("{garbage:?} in a block"), format!("hift 1\nmodel m {{\n{}", fill(garbage)), Wrong);
    }
}

#[test]
fn the_words_of_the_fuzzer_are_those_of_the_schema() {
    fn words(keys: &[Key], found: &mut Vec<String>) {
        for key in keys {
            found.push(key.name.into());
            forms(key.takes, found);
        }
    }
    fn forms(all: &[Form], found: &mut Vec<String>) {
        for form in all {
            match form {
                Form::Word(word, _) | Form::Soon(word) => found.push((*word).into()),
                Form::Function(function) => {
                    found.push(function.name.into());
                    words(function.arguments, found);
                }
                Form::List(inner, _) | Form::Record(inner, _) => forms(inner, found),
                Form::Whole(_) | Form::Real(_) | Form::Amount(_) | Form::Boolean => {}
                Form::Text | Form::Path | Form::Template | Form::Block(_) => {}
            }
        }
    }
    let mut found: Vec<String> =
        ["hift 1", "import", "param", "let", "in", "profile laptop", "env(", "true", "false"]
            .map(String::from)
            .to_vec();
    for kind in schema::KINDS {
        found.push(kind.name.into());
        words(kind.keys, &mut found);
        for part in kind.parts {
            found.push(part.name.into());
            words(part.keys, &mut found);
        }
    }
    found.extend(schema::UNITS.iter().map(|(name, ..)| (*name).into()));
    found.extend(lang::resolve::type_names().map(String::from));
    let marks =
        r#"${ } { [ ] ( ) = , .. # ## \" \\u{41} \\ - + * / : | 1e-5 9e999 \x0d\x0a \x00 \xef\xbb\xbf"#;
    found.sort();
    found.dedup();
    let mut text =
        "# What the fuzzer puts into texts; the test `robust` writes it from the schema.\n".to_owned();
    for word in found.iter().map(String::as_str).chain(marks.split(' ')).chain(["#! file "]) {
        writeln!(text, "\"{word}\"").unwrap();
    }
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/hift.dict");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let known = fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    assert_eq!(known, text, "UPDATE_EXPECT=1 accepts");
}
