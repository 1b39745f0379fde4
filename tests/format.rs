//! `lang::format`: what a person gets, and that it loses nothing, on any text that can be read.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use hift::lang::{self, Options};
use hift::random::Random;

// ------------------------------------------------------------------------------------------ what a person gets

#[track_caller]
fn check(text: &str, expected: Expect) {
    expected.assert_eq(&formatted(text).expect("it can be read"));
}

#[test]
fn keys_stand_one_a_line_or_where_they_share_a_line() {
    check(
        "train sft{\n  data=rows   model=llama # both\nepochs=3\n\n\n\n  micro_batch = 1\nclip=none}",
        expect![[r#"
            train sft {
                data = rows  model = llama  # both
                epochs = 3

                micro_batch = 1
                clip        = none
            }
        "#]],
    );
    // A line that is too long is broken at every key.
    check(
        r#"train sft {
            data = rows tokenizer = bpe model = llama groups = layers schedule = hift optimizer = adamw seed = 1
            micro_batch = 1 }"#,
        expect![[r#"
            train sft {
                data        = rows
                tokenizer   = bpe
                model       = llama
                groups      = layers
                schedule    = hift
                optimizer   = adamw
                seed        = 1
                micro_batch = 1
            }
        "#]],
    );
}

#[test]
fn blocks_on_one_line_stay_so_as_long_as_they_fit() {
    check(
        r#"
train sft { seed=1
evaluate{every=200 steps metrics=[loss]} # often
checkpoint { every = 1 epoch  keep = 2 } }
optimizer adamw {
}
optimizer sgd { momentum = 0.9 } model big = base { recompute = blocks }
model base { weights = "models/a/rather/long/path/to/the/weights" precision = mixed_hi(bf16) recompute = auto }
"#,
        expect![[r#"
            train sft {
                seed = 1
                evaluate   { every = 200 steps  metrics = [loss] }  # often
                checkpoint { every = 1 epoch  keep = 2 }
            }

            optimizer adamw  {}
            optimizer sgd    { momentum = 0.9 }
            model big = base { recompute = blocks }

            model base {
                weights   = "models/a/rather/long/path/to/the/weights"
                precision = mixed_hi(bf16)
                recompute = auto
            }
        "#]],
    );
}

#[test]
fn items_stand_apart_unless_they_are_lines_of_a_kind() {
    check(
        r#"
hift 1 # the version
import "a.hift"
import "b.hift" { peak=1, }
## How fast.
## In what unit?
param peak : number|3 % in 1e-6..1e-3=2e-5
param free
let x=1
# What runs.
train a {
    seed = 1
} # done
train b { seed = 1 }

# The end.
"#,
        expect![[r#"
            hift 1  # the version

            import "a.hift"
            import "b.hift" { peak = 1 }

            ## How fast.
            ## In what unit?
            param peak: number | 3 % in 1e-6 .. 1e-3 = 2e-5
            param free
            let x = 1

            # What runs.
            train a {
                seed = 1
            }  # done

            train b { seed = 1 }

            # The end.
        "#]],
    );
}

#[test]
fn values_have_one_spelling_of_white_space() {
    check(
        r#"
model m {
    a=[1 2,3,] b=f( x=1 y = 2, ) c={d=1 e=[]} g={ }
    h=24GiB+2   %
    i=2*(b+c)/ (d) j=- k l=-(-2 - -x)
    n=1_000.50E-3
    o="a\u{e9} # ${ a+b }"
    p=((((q))))
}
"#,
        expect![[r#"
            model m {
                a = [1, 2, 3]  b = f(x = 1, y = 2)  c = { d = 1, e = [] }  g = {}
                h = 24 GiB + 2 %
                i = 2 * (b + c) / (d)  j = -k  l = -(-2 - -x)
                n = 1_000.50E-3
                o = "a\u{e9} # ${ a+b }"
                p = (q)
            }
        "#]],
    );
}

#[test]
fn long_values_are_broken_and_open_ones_stay_open() {
    check(
        r#"
groups g {
    split = named({
        # The matrices of attention.
        attention = ["block.*.attention.query", "block.*.attention.key", "block.*.attention.value", "block.*.out"]
        rest = ["*"], top = { a = 1

        b = 2, longer = 3 } })
    freeze = [ "one", "two" ]
    order = [
        "one", "two"
    ]
    rate = cosine(peak = 1e-5, warmup = 3 %, "a text that is as long as can be, so that it takes two lines")
    limit = a_word_of_a_length * 512 tokens + another_word_of_a_length - (one_more_word + and_another_word)
    text = "a text that is too long for a line, but there is no place in it where it could be broken in two"
}
"#,
        expect![[r#"
            groups g {
                split  = named({
                    # The matrices of attention.
                    attention = [
                        "block.*.attention.query",
                        "block.*.attention.key",
                        "block.*.attention.value",
                        "block.*.out",
                    ],
                    rest      = ["*"],
                    top       = { a = 1, b = 2, longer = 3 },
                })
                freeze = ["one", "two"]
                order  = [
                    "one",
                    "two",
                ]
                rate   = cosine(
                    peak   = 1e-5,
                    warmup = 3 %,
                    "a text that is as long as can be, so that it takes two lines",
                )
                limit  = a_word_of_a_length * 512 tokens
                    + another_word_of_a_length
                    - (one_more_word + and_another_word)
                text   = "a text that is too long for a line, but there is no place in it where it could be broken in two"
            }
        "#]],
    );
}

#[test]
fn comments_stand_in_columns_and_stay_where_they_are() {
    check(
        r#"
#first
  #second
model a { #behind the brace

# alone
weights = "a" # short
precision = fp32     # longer, and
                     # it goes on
# alone again
recompute = none
pad = 1 # a comment that is so long that in the column of the next one it does not fit
pad_with = ["something that is longer", "b"] # this one
# at the end

}
"#,
        expect![[r##"
            #first
            #second
            model a {  #behind the brace
                # alone
                weights   = "a"   # short
                precision = fp32  # longer, and
                                  # it goes on
                # alone again
                recompute = none
                pad       = 1  # a comment that is so long that in the column of the next one it does not fit
                pad_with  = ["something that is longer", "b"]  # this one
                # at the end
            }
        "##]],
    );
}

#[test]
fn a_comment_in_the_midst_of_a_line_breaks_it_and_stays_between_its_words() {
    check(
        r#"
param a # one
: number # two
= # three
  1 + # four
  # five
  (2 # six
  )
model # seven
  b
  # eight
  { weights = [ # nine
    1 # ten
    , 2, # eleven
    # twelve
  ] recompute # thirteen
  = none }
"#,
        expect![[r#"
            param a  # one
                : number  # two
                =         # three
                1
                +  # four
                # five
                (2  # six
                )

            model  # seven
                b
                # eight
                {
                weights   = [  # nine
                    1,  # ten
                    2,  # eleven
                    # twelve
                ]
                recompute  # thirteen
                    = none
            }
        "#]],
    );
}

#[test]
fn line_ends_and_a_byte_order_mark_become_plain() {
    check(
        "\u{FEFF}hift 1\r\n\r\nparam\u{FEFF}a = 1 # b\r\n",
        expect![[r#"
        hift 1

        param a = 1  # b
    "#]],
    );
    check(
        "## doc\rparam a = 1\r\r\r# end",
        expect![[r#"
        ## doc
        param a = 1

        # end
    "#]],
    );
    // A word in front of `NAME {` begins a block: `train` is no unit.
    check(
        "profile p { a = 4\u{FEFF}train b { c = 1 } }",
        expect![[r#"
        profile p { a = 4  train b { c = 1 } }
    "#]],
    );
    check("\n\n", expect![""]);
    check(
        "# only a comment",
        expect![[r#"
        # only a comment
    "#]],
    );
}

#[test]
fn what_cannot_be_read_is_refused_with_all_its_mistakes() {
    let problems = lang::format("train a { b = }\ntrain c {\n d = [1\n}").unwrap_err();
    let codes: Vec<&str> = problems.0.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, ["hift::lang::syntax", "hift::lang::unclosed_bracket"]);
}

#[test]
fn a_long_file_is_formatted_in_no_time() {
    let block = "data a { source = [1, 2 # c\n, 3] format = f(a = -(1 + 2)) }\n";
    let text = format!("hift 1\n{}", block.repeat(1000));
    let start = Instant::now();
    let formatted = lang::format(&text).unwrap();
    let took = start.elapsed();
    assert!(formatted.lines().count() > 4000);
    // It is a hundredth of a second, most of it for reading; a busy machine may take longer.
    assert!(took < Duration::from_secs(2), "{took:?}");
}

// --------------------------------------------------------------------------------------- what holds for all texts

/// What must hold for every text, formatted. None if the text cannot be read.
#[track_caller]
fn formatted(text: &str) -> Option<String> {
    let (file, problems) = lang::parse(text);
    let formatted = match lang::format(text) {
        Ok(formatted) => formatted,
        Err(refused) => {
            assert!(problems.has_errors() && refused == problems, "{text}\n{refused}");
            return None;
        }
    };
    assert!(!problems.has_errors(), "{text}");
    let (again, problems) = lang::parse(&formatted);
    assert!(!problems.has_errors(), "{text}\n-----\n{formatted}\n{problems}");
    assert_eq!(tree(&again), tree(&file), "{text}\n-----\n{formatted}");
    assert_eq!(comments(&formatted), comments(text), "{text}\n-----\n{formatted}");
    let twice = lang::format(&formatted).unwrap();
    assert_eq!(twice, formatted, "formatted twice:\n{text}\n-----\n{formatted}\n-----\n{twice}");
    for (i, line) in formatted.lines().enumerate() {
        let blank = line.is_empty() && (i == 0 || formatted.lines().nth(i - 1) == Some(""));
        assert!(!blank && !line.ends_with(' '), "line {i}: {text}\n-----\n{formatted}");
    }
    assert!(!formatted.contains('\r') && (formatted.is_empty() || formatted.ends_with('\n')));
    Some(formatted)
}

/// A tree without its places.
fn tree(file: &lang::File) -> String {
    let text = format!("{file:?}");
    let mut parts = text.split("Span { start: ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |tree, part| tree + part.split_once('}').unwrap().1)
}

/// The comments of a text, in its order, found without the language's own scanner.
fn comments(text: &str) -> Vec<&str> {
    let mut comments = Vec::new();
    for line in text.split(['\n', '\r']) {
        let (mut quoted, mut escaped) = (false, false);
        for (at, char) in line.char_indices() {
            match char {
                '#' if !quoted => {
                    comments.push(line[at..].trim_end());
                    break;
                }
                '"' if !escaped => quoted = !quoted,
                _ => {}
            }
            escaped = quoted && char == '\\' && !escaped;
        }
    }
    comments
}

/// The pipelines and the cases of the language, as a name and a text.
fn written() -> Vec<(String, String)> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => collect(&path, found),
                false if path.extension().is_some_and(|e| e == "hift") => found.push(path),
                false => {}
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(&root.join("tests/cases"), &mut paths);
    collect(&root.join("pipelines"), &mut paths);
    paths.sort();
    paths.into_iter().map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn pipelines_and_cases_lose_nothing() {
    let n = written().iter().filter(|(_, text)| formatted(text).is_some()).count();
    assert!(n >= 30, "{n} can be read");
}

#[test]
fn what_is_formatted_means_the_same() {
    let mut n = 0;
    for (name, text) in written() {
        let options = Options { folder: PathBuf::from("/pipelines"), ..Options::default() };
        let meaning = |text: &str| serde_json::to_string(&lang::check(text, &options).0).unwrap();
        if let Some(formatted) = formatted(&text) {
            assert_eq!(meaning(&formatted), meaning(&text), "{name}");
            n += usize::from(lang::check(&text, &options).0.is_some());
        }
    }
    assert!(n >= 6, "{n} have a meaning");
}

#[test]
fn shipped_pipelines_are_in_their_layout() {
    for (name, text) in written() {
        if name.contains("pipelines/") {
            assert_eq!(lang::format(&text).unwrap(), text, "{name}: `hift fmt pipelines` writes it");
        }
    }
}

/// How many random texts are tried; `HIFT_ROUNDS=100` tries a hundred times as many.
fn rounds(n: u64) -> u64 {
    n * std::env::var("HIFT_ROUNDS").map_or(1, |times| times.parse().expect("a number"))
}

/// What may stand between two tokens. `N` is replaced by a number, so that every comment is another one.
const BETWEEN: &[&str] = &[
    " ",
    " ",
    " ",
    "\n",
    "\n",
    "\t",
    "\r\n",
    "\n\n",
    "\n\n\n  \n",
    "\n    ",
    " # N\n",
    "#N\n",
    "\n# N\n",
    "\n\n    ## N\n",
    "\n## N\n## N\r\n",
    "\n  # N\n  # N\n\n",
    "\u{FEFF}",
    "  # N \t\r\n",
    " # N\n     # N\n",
    "\r",
    "  ## N\n  ## N\n",
    "\n                # N\n",
];

/// White space and comments.
fn between(random: &mut Random, needed: bool, n_comments: &mut usize) -> String {
    // Most gaps stay plain, so that rows come about.
    let pick = match random.below(4) {
        0 => BETWEEN[random.below(BETWEEN.len() as u64) as usize],
        1 if !needed => "",
        _ => " ",
    };
    let mut text = String::new();
    for (i, part) in pick.split('N').enumerate() {
        if i > 0 {
            *n_comments += 1;
            write!(text, "{n_comments}").unwrap();
        }
        text.push_str(part);
    }
    text
}

/// The tokens of a text without its comments, and whether a gap is needed behind each.
fn pieces(text: &str) -> Vec<(&str, bool)> {
    let is_letter = |c: char| c.is_alphanumeric() || "_-.%".contains(c);
    let mut pieces: Vec<(&str, bool)> = Vec::new();
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let length = match char {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '"' => {
                let mut escaped = false;
                let end = rest.char_indices().skip(1).find(|(_, c)| {
                    let end = *c == '"' && !escaped || *c == '\n';
                    escaped = *c == '\\' && !escaped;
                    end
                });
                end.map_or(rest.len(), |(at, _)| at + 1)
            }
            _ if is_letter(char) => rest.find(|c| !is_letter(c)).unwrap_or(rest.len()),
            _ => char.len_utf8(),
        };
        if char.is_whitespace() || char == '#' {
            if let Some((_, gap)) = pieces.last_mut() {
                *gap = true;
            }
        } else {
            pieces.push((&rest[..length], false));
        }
        rest = &rest[length..];
    }
    pieces
}

fn scattered(pieces: &[(impl AsRef<str>, bool)], random: &mut Random) -> String {
    let mut n_comments = 0;
    let mut text = between(random, false, &mut n_comments);
    for (piece, gap) in pieces {
        text.push_str(piece.as_ref());
        text.push_str(&between(random, *gap, &mut n_comments));
    }
    text
}

#[test]
fn comments_and_white_space_anywhere_lose_nothing() {
    let mut random = Random::new(3);
    let (mut n_read, mut n) = (0, 0);
    for (_, text) in written() {
        let pieces = pieces(&text);
        for _ in 0..rounds(20) {
            n_read += usize::from(formatted(&scattered(&pieces, &mut random)).is_some());
            n += 1;
        }
    }
    // A line end between a number and its unit, for one, is a mistake.
    assert!(n_read * 20 > n, "{n_read} of {n} can be read");
}

#[test]
fn mistyped_files_lose_nothing_or_are_refused() {
    let mut random = Random::new(7);
    let marks: Vec<char> = "#\"\\{}[]()=,-_.:|%+*/$1ae \n\r\u{FEFF}é".chars().collect();
    let mut n_read = 0;
    for (_, text) in written() {
        for _ in 0..rounds(20) {
            let mut chars: Vec<char> = text.chars().collect();
            for _ in 0..1 + random.below(3) {
                let at = random.below(chars.len() as u64) as usize;
                match random.below(2) {
                    0 => chars.insert(at, marks[random.below(marks.len() as u64) as usize]),
                    _ => drop(chars.remove(at)),
                }
            }
            n_read += u64::from(formatted(&chars.iter().collect::<String>()).is_some());
        }
    }
    assert!(n_read > 100, "{n_read} can be read");
}

/// A file out of the grammar, as tokens; each with a gap behind it that is needed or not.
struct Maker {
    random: Random,
    pieces: Vec<(String, bool)>,
}

impl Maker {
    fn one_of(&mut self, n: u64) -> u64 {
        self.random.below(n)
    }

    fn say_one(&mut self, of: &[&str]) {
        let which = self.one_of(of.len() as u64) as usize;
        self.say(of[which]);
    }

    fn say(&mut self, words: &str) {
        self.pieces.extend(words.split(' ').map(|word| (word.to_owned(), true)));
    }

    /// Behind this, no gap is needed.
    fn sign(&mut self, sign: &str) {
        if let Some((last, gap)) = self.pieces.last_mut() {
            // A name and a sign that begins like more of it would be one word.
            *gap &= sign.starts_with('-') || last.ends_with('-');
        }
        self.pieces.push((sign.to_owned(), sign == "-"));
    }

    fn name(&mut self) {
        self.say_one(&["a", "bc", "peak", "a_longer_name", "d-e", "in_it", "true_", "steps", "_"]);
    }

    fn number(&mut self) {
        self.say_one(&["1", "-2", "0.5", "1e-5", "2_000", "-1.5E+3", "100000000000000000000"]);
    }

    fn factor(&mut self, depth: u64) {
        match self.one_of(if depth > 3 { 5 } else { 11 }) {
            0 => self.number(),
            1 => {
                let amounts = ["3 %", "24GiB", "200  steps", "1.5 epochs"];
                let amount = amounts[self.one_of(amounts.len() as u64) as usize];
                self.pieces.push((amount.to_owned(), true));
            }
            2 => {
                let texts = [
                    r#""""#,
                    r#""a # b""#,
                    r#""\"\\""#,
                    r#""out/${a + 2 * f(b)}/x""#,
                    r#""漢字 {é}""#,
                    r#""a rather long text that takes up most of what there is on a line of its own""#,
                ];
                let text = texts[self.one_of(texts.len() as u64) as usize];
                self.pieces.push((text.to_owned(), true));
            }
            3 => self.say_one(&["true", "false", "none", "auto"]),
            4 => self.name(),
            5 => {
                self.sign("(");
                self.value(depth + 1);
                self.sign(")");
            }
            6 => {
                self.pieces.push(("-".to_owned(), false));
                match self.one_of(2) {
                    0 => self.say("word"),
                    _ => {
                        self.sign("(");
                        self.value(depth + 1);
                        self.sign(")");
                    }
                }
            }
            7 => {
                self.name();
                self.elements("(", ")", depth, 2);
            }
            8 => self.elements("[", "]", depth, 0),
            9 => {
                self.name();
                self.sign("(");
                self.elements("[", "]", depth + 1, 0);
                self.sign(")");
            }
            _ => self.elements("{", "}", depth, 1),
        }
    }

    /// Elements in brackets; `named` of which have names: 0 none, 1 all, 2 some.
    fn elements(&mut self, open: &str, close: &str, depth: u64, named: u64) {
        self.sign(open);
        for _ in 0..self.one_of(5) {
            if named == 1 || named == 2 && self.one_of(2) == 0 {
                self.name();
                self.sign("=");
            }
            self.value(depth + 1);
            if self.one_of(3) > 0 {
                self.sign(",");
            }
        }
        self.sign(close);
    }

    fn value(&mut self, depth: u64) {
        self.factor(depth);
        while self.one_of(5) == 0 {
            let operator = ["+", "-", "*", "/"][self.random.below(4) as usize];
            // A gap in front of it, or it would be part of a name.
            self.pieces.push((operator.to_owned(), true));
            self.factor(depth);
        }
    }

    fn entry(&mut self) {
        self.name();
        self.sign("=");
        self.value(0);
    }

    fn block(&mut self, depth: u64) {
        self.say_one(&["model", "train", "evaluate", "profile"]);
        if depth == 0 || self.one_of(3) == 0 {
            self.name();
        }
        if self.one_of(4) == 0 {
            self.say("= base");
        }
        self.sign("{");
        for _ in 0..self.one_of(6) {
            match self.one_of(4) {
                0 if depth < 3 => self.block(depth + 1),
                _ => self.entry(),
            }
        }
        self.sign("}");
    }

    fn file(mut self) -> Vec<(String, bool)> {
        if self.one_of(4) > 0 {
            self.say("hift 1");
        }
        for _ in 0..self.one_of(7) {
            match self.one_of(6) {
                0 => {
                    self.say("import \"shared.hift\"");
                    if self.one_of(2) == 0 {
                        self.elements("{", "}", 0, 1);
                    }
                }
                1 => {
                    self.say("param");
                    self.name();
                    if self.one_of(2) == 0 {
                        self.sign(":");
                        self.say("number");
                        while self.one_of(2) == 0 {
                            self.sign("|");
                            self.say_one(&["\"text\"", "3 %", "-1", "word"]);
                        }
                    }
                    if self.one_of(2) == 0 {
                        self.say_one(&["in 1 .. 2", "in ..", "in 1 % .. 3 %", "in .. 5"]);
                    }
                    if self.one_of(4) > 0 {
                        self.sign("=");
                        self.value(0);
                    }
                }
                2 => {
                    self.say("let");
                    self.name();
                    self.sign("=");
                    self.value(0);
                }
                _ => self.block(0),
            }
        }
        self.pieces
    }
}

#[test]
fn files_out_of_the_grammar_lose_nothing() {
    let rounds = rounds(1000);
    let mut n_read = 0;
    for round in 0..rounds {
        let mut random = Random::stream(5, round);
        let pieces = Maker { random: random.clone(), pieces: Vec::new() }.file();
        n_read += u64::from(formatted(&scattered(&pieces, &mut random)).is_some());
    }
    assert!(n_read * 4 > rounds, "{n_read} of {rounds} can be read");
}
