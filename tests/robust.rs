//! The language against texts that nobody would write: an answer within a second each, on a small stack, and no panic.
//!
//! What the fuzzer (`tests/fuzz`) has found stands here, too.

#[path = "speed/lines.rs"]
mod lines;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hift::lang::schema::{self, Form, Key};
use hift::lang::{self, Look, Options, Outside, Reading, Source};
use hift::problem::Problems;

const MIB: usize = 1 << 20;

/// How a text is answered, warnings aside.
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
        // It can be shown, in no more words than a person reads.
        let first = Problems(reading.problems.0.iter().take(20).cloned().collect());
        let drawn = lang::render(&first, reading.sources(), Look::default());
        assert!(drawn.len() < 10_000 * (first.0.len() + 1), "{} bytes", drawn.len());
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

/// `cargo bench --bench language` measures it; here, on whatever machine, a few times that is allowed.
#[test]
fn a_thousand_lines_are_read_in_no_time() {
    let text = lines::text(24);
    assert!((1000..1200).contains(&text.lines().count()), "{}", text.lines().count());
    let best = (0..5).map(|_| {
        let (reading, took) = read(text.clone(), Vec::new());
        assert!(reading.pipeline.is_some(), "{}", reading.problems);
        took
    });
    let best = best.min().unwrap();
    println!("{} lines, {} bytes in {best:?}", text.lines().count(), text.len());
    assert!(best < Duration::from_millis(100), "{best:?}");
}

/// As much text as is read.
const FULL: usize = 500 << 10;

#[test]
fn nesting_has_an_end() {
    let n = 100_000;
    for bracket in ["[", "(", "{ a = ", "f(", "-("] {
        check(bracket, format!("hift 1\nlet a = {}", bracket.repeat(n / bracket.len())), Error("nesting"));
    }
    check("calls", format!("hift 1\nlet a = {}", "f(a = ".repeat(n / 2)), Error("nesting"));
    check("all of them", format!("hift 1\nlet a = {}", "[{ a = f(-(".repeat(n / 3)), Error("nesting"));
    check("blocks", format!("hift 1\n{}", "a {".repeat(n)), Error("nesting"));
    check("blocks on lines", format!("hift 1\n{}", "model a {\n".repeat(n / 2)), Wrong);
    check("closing", format!("hift 1\n{}", "}".repeat(n)), Wrong);
    check("minus", format!("hift 1\nlet a = {}1", "-".repeat(n)), Wrong);
    check("minuses", format!("hift 1\nlet a = {}1", "- ".repeat(n)), Wrong);
    check("minus words", format!("hift 1\nlet a = {}b", "-".repeat(n)), Wrong);
    check("hole", with(&format!("let a = \"${{{}\"", "(".repeat(n))), Wrong);
    check(
        "closed hole",
        with(&format!("let a = \"${{{}1{}}}\"", "(".repeat(n), ")".repeat(n))),
        Error("nesting"),
    );
    check("hole of minuses", with(&format!("let a = \"${{{}b}}\"", "-".repeat(n))), Wrong);
    check("holes", with(&format!("let b = 1\nlet a = \"{}\"", "${b}".repeat(n))), Error("too_much"));
    check("hole of calls", with(&format!("let a = \"${{{}1{}}}\"", "f(".repeat(60), ")".repeat(60))), Wrong);
    check("sum", with(&format!("let a = 1{}", " + 1".repeat(n))), Means);
    check("product", with(&format!("let a = 1{}", " * 1".repeat(n))), Means);
    check("groups", with(&format!("let a = {}1{}", "(".repeat(60), ")".repeat(60))), Means);
    check("environment", with("let a = 1 + env(\"LONG\", 1)"), Wrong);
}

/// A first line, and as many as fit that each need the one before.
fn chain(first: &str, next: impl Fn(usize) -> String) -> String {
    let mut text = first.to_owned();
    for i in 1.. {
        let line = next(i);
        if text.len() + line.len() > FULL {
            break;
        }
        text.push_str(&line);
    }
    text
}

#[test]
fn names_of_names_have_an_end() {
    let far: String = (1..100_000).map(|i| format!("param x{i} = x{}\n", i - 1)).collect();
    check("a hundred thousand params", with(&format!("param x0 = 1\n{far}")), Error("too_much"));
    check("lets", with(&chain("let x0 = 1\n", |i| format!("let x{i} = x{}\n", i - 1))), Means);
    check("params", with(&chain("param x0 = 1\n", |i| format!("param x{i} = x{}\n", i - 1))), Means);
    check("backwards", with(&chain("let y = 1\n", |i| format!("let x{i} = x{}\n", i + 1))), Means);
    check("sums", with(&chain("let x0 = 1\n", |i| format!("let x{i} = x{} + 1\n", i - 1))), Means);
    let list = format!("let x0 = [{}]\n", "1, ".repeat(10_000));
    check("a list by name", with(&chain(&list, |i| format!("let x{i} = x{}\n", i - 1))), Error("too_much"));
    check("sums of a list", with(&chain(&list, |i| format!("let x{i} = x0 + 1\n"))), Wrong);
    check(
        "a list as a default",
        with(&chain(&list, |i| format!("let x{i} = env(\"X\", x0)\n"))),
        Error("too_much"),
    );
    let text = format!("let x0 = \"{}\"\n", "a".repeat(50_000));
    check("a text in texts", with(&chain(&text, |i| format!("let x{i} = \"${{x0}}\"\n"))), Error("too_much"));
    let used = |text: &str, value: &str| {
        with(text).replace("split = by_layer(1)", &format!("split = by_layer(1) freeze = {value}"))
    };
    let doubled = |one: &str, two: &dyn Fn(usize) -> String| -> String {
        std::iter::once(one.to_owned()).chain((1..64).map(two)).collect()
    };
    let lists = doubled("let x0 = [\"a\"]\n", &|i| format!("let x{i} = [x{0}, x{0}]\n", i - 1));
    check("doubled lists", used(&lists, "x63"), Wrong);
    let texts = doubled("let x0 = \"a\"\n", &|i| format!("let x{i} = \"${{x{0}}}${{x{0}}}\"\n", i - 1));
    check("doubled texts", used(&texts, "[x63]"), Error("too_much"));
    check("a long list", used(&format!("let a = [{}]", "\"b\", ".repeat(50_000)), "a"), Means);
    check("a long list of a name", used("let a = \"b\"", &format!("[{}]", "a, ".repeat(60_000))), Means);
    let long = format!("let a = \"{}\"", "b".repeat(100_000));
    check("a list of a long name", used(&long, &format!("[{}]", "a, ".repeat(100_000))), Error("too_much"));
    let patterns = "\"b\", ".repeat(30_000);
    let layers =
        with("").replace("split = by_layer(1)", &format!("split = by_layer(1) freeze = [{patterns}]"));
    let again = chain(&layers, |i| format!("groups g{i} = layers {{}}\n"));
    check("a base with a long list", again, Error("too_much"));
    let unknown = chain("hift 1\n", |i| format!("groups g{i} = layers {{}}\n"));
    check("an unknown base of many", unknown, Error("base"));
}

#[test]
fn chains_of_blocks_have_an_end() {
    let bases =
        |last: &str| chain(&format!("model m0 {last}"), |i| format!("model m{i} = m{} {{}}\n", i - 1));
    let n = bases("{ weights = \"a\" }\n").lines().count();
    check("bases", with(&bases("{ weights = \"a\" }\n")), Means);
    check("a circle of bases", with(&bases(&format!("= m{} {{}}\n", n - 2))), Error("circle"));
    let far: String = (1..100_000).map(|i| format!("model m{i} = m{} {{}}\n", i - 1)).collect();
    check(
        "a hundred thousand bases",
        with(&format!("model m0 {{ weights = \"a\" }}\n{far}")),
        Error("too_much"),
    );
    let stages = |last: &str| {
        let first = format!("hift 1\n{}", rest()).replace("model = llama ", &format!("model = {last} "));
        chain(&first, |i| {
            let before = if i == 1 { "sft".to_owned() } else { format!("s{}", i - 1) };
            format!(
                "train s{i} {{ data = rows tokenizer = bpe model = {before} groups = layers schedule = hift \
                 optimizer = adamw steps = 1 micro_batch = 1 }}\n"
            )
        })
    };
    let last = stages("llama").lines().last().unwrap().split(' ').nth(1).unwrap().to_owned();
    check("stages", stages("llama"), Means);
    check("a circle of stages", stages(&last), Error("circle"));
    let lines: Vec<String> = stages("llama").lines().map(|line| format!("{line}\n")).collect();
    let backwards: String = lines[..1].iter().chain(lines[1..].iter().rev()).cloned().collect();
    check("stages backwards", backwards, Means);
    let list = format!("[{}]", "\"a\", ".repeat(30_000));
    let prompts =
        stages("llama").replace("split = by_layer(1)", &format!("split = by_layer(1) freeze = {list}"));
    let cut = prompts[..FULL].rfind('\n').unwrap();
    check("stages of a long list", &prompts[..cut], Error("too_much"));
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
    check_with("doubled", with("import \"f0.part\"\nlet y = x"), double, Means);
    let text = format!("hift 1\n{}", "# a comment\n".repeat(10_000));
    let large = (0..60).map(|i| (format!("f{i}.part"), text.clone())).collect();
    check_with("large", with(&wide), large, Error("too_much"));
    let params: String = (0..10_000).map(|i| format!("param x{i} = 1\n")).collect();
    let again = "import \"f.part\" { x1 = 2 }\n".repeat(9_000);
    check_with("again and again", with(&again), vec![("f.part".into(), format!("hift 1\n{params}"))], Means);
    check_with(
        "itself",
        with("import \"p.hift\""),
        vec![("p.hift".into(), "hift 1".into())],
        Error("circle"),
    );
}

#[test]
fn ten_megabytes_are_answered() {
    let fill = |line: &str| line.repeat(10 * MIB / line.len());
    for text in [
        "let a = 1\n",
        "model m { weights = \"a\" }\n",
        "# a comment\n",
        "\n",
        "{",
        "}",
        "[",
        "\"",
        "\0",
        "é",
        "a",
    ] {
        check(&format!("{text:?}"), fill(text), Error("too_much"));
    }
    check("of one line", format!("hift 1 let a = [{}]", fill("1, ")), Error("too_much"));
    check("of one text", format!("hift 1 let a = \"{}\"", fill("a")), Error("too_much"));
}

#[test]
fn as_much_text_as_is_read_is_answered_within_a_second() {
    let fill = |line: &str| line.repeat(FULL / line.len());
    let many = |line: &dyn Fn(usize) -> String| chain("", line);
    check(
        "blocks",
        with(&many(&|i| format!("model m{i} {{ weights = \"a/b\" recompute = blocks }}\n"))),
        Means,
    );
    check("lets", with(&many(&|i| format!("let x{i} = {i}\n"))), Means);
    check(
        "keys",
        format!("hift 1\nmodel m {{\n{}}}\n", many(&|i| format!("key{i} = {i}\n"))),
        Error("unknown_key"),
    );
    check("same keys", format!("hift 1\nmodel m {{\n{}}}\n", fill("weights = 1\n")), Wrong);
    check("same blocks", with(&fill("model m { weights = \"a\" }\n")), Error("duplicate_block"));
    check("parts", format!("hift 1\ntrain m {{\n{}}}\n", fill("evaluate { every = 1 step }\n")), Wrong);
    check("profiles", with(&fill("profile p { x = 1 }\n")), Wrong);
    let change = many(&|i| format!("model m{i} {{ recompute = none }}\n"));
    check("a profile", with(&format!("profile p {{ {change} }}")), Wrong);
    let profiles: String =
        (0..32).map(|i| format!("profile p{i} {{ train sft {{ seed = {i} }} }}\n")).collect();
    check(
        "profiles of a long file",
        with(&format!("{profiles}{}", &fill("# a comment\n")[..400_000])),
        Error("too_much"),
    );
    check("comments", with(&fill("# a comment\n")), Means);
    check("docs", with(&format!("{}let a = 1", fill("## a comment\n"))), Means);
    check("blank lines", with(&fill("\n")), Means);
    check("blanks", with(&fill(" ")), Means);
    check("tabs", with(&fill("\t")), Means);
    check("one text", with(&format!("let a = \"{}\"", fill("a"))), Means);
    check("one text of escapes", with(&format!("let a = \"{}\"", fill("\\u{41}"))), Means);
    check("one comment", with(&format!("# {}", fill("a"))), Means);
    check("one word", with(&format!("let a = {}", fill("a"))), Means);
    check("one name", with(&format!("let {} = 1", fill("a"))), Means);
    check("one number", with(&format!("let a = {}", fill("1"))), Error("range"));
    check("one list", with(&format!("let a = [{}]", fill("1, "))), Means);
    check("one record", with(&format!("let a = {{ {} }}", fill("a = 1, "))), Means);
    check("one call", with(&format!("let a = f({})", fill("1, "))), Means);
    let used = format!("freeze = [{}]", fill("1, "));
    check(
        "one wrong list",
        with("").replace("split = by_layer(1)", &format!("split = by_layer(1) {used}")),
        Wrong,
    );
    let used = format!("split = {{ {} }}", fill("a = [], "));
    check("one wrong record", with("").replace("split = by_layer(1)", &used), Error("duplicate_key"));
    let used = format!("split = by_layer({})", fill("1, "));
    check("one wrong call", with("").replace("split = by_layer(1)", &used), Error("wrong_type"));
    check("one line of blocks", with(&fill("model m { } ")), Wrong);
    check("one line of keys", format!("hift 1 train m {{ {} }}", fill("a = 1 ")), Wrong);
    let texts = [
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
        "'\\",
        "'a' ",
        "“a” ",
        "/*",
        "// a\n",
        "«",
        "\"é\" '",
        "аa",
    ];
    for text in texts {
        check(&format!("{text:?}"), fill(text), Wrong);
        check(&format!("{text:?} in a block"), format!("hift 1\nmodel m {{\n{}", fill(text)), Wrong);
        check(
            &format!("{text:?} as a value"),
            format!("hift 1\nmodel m {{\nweights = {}", fill(text)),
            Wrong,
        );
    }
}

#[test]
fn strange_bytes_are_answered() {
    let good = with("let a = 1");
    check("a byte order mark", format!("\u{FEFF}{good}"), Means);
    check("line ends of Windows", good.replace('\n', "\r\n"), Means);
    check("line ends of old", good.replace('\n', "\r"), Means);
    check("a NUL", with("\0"), Error("lookalike"));
    check("a NUL in a text", with("let a = \"\0\""), Means);
    check("a NUL in a comment", with("# \0"), Means);
    check("another alphabet", good.replace("adamw {", "аdamw {"), Wrong);
    check("a wide letter", with("let ａ = 1"), Wrong);
    check("a blank that is none", with("let a =\u{A0}1"), Wrong);
    check("a joiner", with("let a\u{200D} = 1"), Wrong);
    check("right to left", with("let \u{202E}a = 1"), Wrong);
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
                Form::Word(word, _) => found.push((*word).into()),
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
