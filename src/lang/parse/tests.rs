use pest::Parser as _;

use crate::lang::{schema, syntax::Term};

use super::*;

/// The driver reads piece by piece; what it accepts must be what the grammar calls a file.
#[test]
fn the_driver_and_the_grammar_agree() {
    let check = |text: &str| {
        let (_, problems) = parse(text);
        let whole = Grammar::parse(Rule::file, text).is_ok();
        assert_eq!(problems.0.is_empty(), whole, "{text}\n{problems}");
    };
    check("");
    check("hift 1 param a = 1 param b = [1 2, 3,] train t { a = 1 b = c d { e = 3 % } }");
    check("\u{FEFF}hift 1\r\n# comment\r\ntrain t {\r\n}\r\n");
    check("train t { a = 1");
    check("train t { a = }");
    check("train t { a = b = 2 }");
    check("train t { a = f(x = 1, 2) g = {} h = { a = 1, b = 2 } }");
    check("train t { a = 1, b = 2 }");
    check("train t { a = [1,,2] }");
    check("train t { a = 3 steps b = 4 epochs = 3 }");
    check("train t { a = 3 seed = 4 x { } }");
    check("train t { a = \"x } \\\" {\" }");
    check("param x = \"abc\nparam y = 2");
}

#[test]
fn the_grammar_knows_every_unit() {
    for (unit, ..) in schema::UNITS {
        let (file, problems) = parse(&format!("hift 1\na b {{ c = 3 {unit} d e {{ }} }}"));
        assert!(problems.0.is_empty(), "{unit}: {problems}");
        let Item::Block(block) = &file.items[0] else { panic!("a block") };
        assert!(matches!(block.entries[0].value.term, Term::Amount(..)), "{unit}");
    }
    let (file, problems) = parse("hift 1\nprofile a { peak = 1e-5 train sft { } }");
    assert!(problems.0.is_empty(), "{problems}");
    assert_eq!(file.blocks().next().unwrap().blocks[0].title(), "train sft");
}

#[test]
fn a_place_ends_where_its_last_word_ends() {
    let check = |text: &str, written: &str| {
        let (file, _) = parse(text);
        let span = match &file.items[0] {
            Item::Import(import) => import.span,
            Item::Param(param) => param.span,
            Item::Let(binding) => binding.value.span,
            Item::Block(block) => block.entries[0].value.span,
        };
        assert_eq!(&text[span.start..span.end], written);
    };
    check("import \"a\" # b\n", "import \"a\"");
    check("param a: number in 1 .. 2 # b\n", "param a: number in 1 .. 2");
    check("let a = 1 + 2 * b # c\n", "1 + 2 * b");
    check("a b { c = 2 * [1 2] # d\n }", "2 * [1 2]");
}

#[test]
fn values_print_as_they_read() {
    let check = |text: &str, printed: &str| assert_eq!(parse_value(text).unwrap().to_string(), printed);
    check("1e-5", "1e-5");
    check("2_000", "2000");
    check("24GiB", "24 GiB");
    check("3  %", "3 %");
    check("[a b,]", "[a, b]");
    check("cosine( peak=peak warmup = 3 % )", "cosine(peak = peak, warmup = 3 %)");
    check("{a=[\"x\"] b = true}", "{ a = [\"x\"], b = true }");
    check(r#""a\n\t\"\\\u{41}""#, r#""a\n\t\"\\A""#);
}

#[test]
fn a_printed_file_reads_as_itself() {
    let text =
        "hift 1\nparam a = 1e-5\ntrain t {\n    b = f(1, c = \"x\")\n    d {\n        e = 3 %\n    }\n}\n";
    assert_eq!(parse(text).0.to_string(), text);
}

#[test]
fn deep_nesting_is_refused_and_does_not_overflow() {
    for bracket in ["[", "{ a = ", "f("] {
        let (_, problems) = parse(&format!("param a = {}", bracket.repeat(100_000)));
        assert_eq!(problems.0[0].code, "hift::lang::nesting");
    }
    let (_, problems) = parse(&"a {".repeat(100_000));
    assert_eq!(problems.0[0].code, "hift::lang::nesting");
    assert!(parse_value(&"[".repeat(100_000)).is_err());
}
