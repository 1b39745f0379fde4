//! What is said where a text is not a `.hift` file: by what stands there, in a user's words.

use crate::problem::{Problem, Span};

use super::names::{nearest, quoted};
use super::scan::{Scan, Token};
use super::schema;

const SYNTAX: &str = "hift::lang::syntax";

/// Something at the top level that begins no header, param or block.
pub(super) fn item(scan: &Scan, index: usize) -> Problem {
    let span = scan.span(index);
    let word = scan.word(index);
    let known = schema::kind(word).is_some();
    match (scan.token(index), scan.token(index + 1), scan.token(index + 2)) {
        (Token::Close('{'), ..) => Problem::new("hift::lang::stray_bracket", "this brace closes nothing")
            .label(span, "no block is open here")
            .help("remove it, or look above for a block that was closed too early"),
        (Token::Word, ..) if word == "param" => Problem::new(SYNTAX, "this param is incomplete")
            .label(span, "a name, `=` and a value must follow")
            .help("write `param peak = 2e-5`"),
        (Token::Word, ..) if word == "hift" => Problem::new(SYNTAX, "the language version is missing")
            .label(span, "a number must follow")
            .help("write `hift 1`"),
        (Token::Word, ..) if word == "let" => Problem::new(SYNTAX, "this let is incomplete")
            .label(span, "a name, `=` and a value must follow")
            .help("write `let length = 2 * 512 tokens`"),
        (Token::Word, ..) if word == "import" => Problem::new(SYNTAX, "this import is incomplete")
            .label(span, "a path in quotes must follow")
            .help("write `import \"shared.hift\"`"),
        (Token::Word, Token::Equals, _) => {
            Problem::new(SYNTAX, format!("`{word} = ...` stands outside of every block"))
                .label(span, "belongs to no block")
                .help(format!("move it into a block; or, to give a value a name, write `param {word} = ...`"))
        }
        (Token::Word, Token::Text, _) => {
            Problem::new(SYNTAX, "the name of a block is written without quotes")
                .label(scan.span(index + 1), "in quotes")
                .help(format!("write `{word} {} {{ ... }}`", scan.word(index + 1).trim_matches('"')))
        }
        (Token::Word, Token::Word, _) if known => {
            let name = scan.word(index + 1);
            Problem::new(SYNTAX, format!("the opening brace of `{word} {name}` is missing"))
                .label(span.to(scan.span(index + 1)), "`{` must follow")
                .help(format!("write `{word} {name} {{ ... }}`"))
        }
        (Token::Word, ..) if known => Problem::new(SYNTAX, format!("this {word} block is incomplete"))
            .label(span, "a name and `{` must follow")
            .help(format!("write `{word} NAME {{ ... }}` with a name of your choice")),
        (Token::OpenText, ..) => unclosed_text(span),
        _ => Problem::new(SYNTAX, format!("{} begins neither a block nor a param", found(scan, index)))
            .label(span, "not expected here")
            .help(match nearest(word, schema::KINDS.iter().map(|kind| kind.name)) {
                Some(kind) => format!("did you mean `{kind} NAME {{ ... }}`?"),
                None => format!("what stands here is one of {}", kinds()),
            }),
    }
}

/// A param whose types or range could not be read; `failed` is the token at which that shows.
pub(super) fn param(scan: &Scan, name: usize, failed: usize) -> Problem {
    let word = scan.word(name);
    let behind = (failed > name + 1).then(|| scan.word(failed - 1));
    match (scan.token(failed), behind) {
        (Token::OpenText, _) => unclosed_text(scan.span(failed)),
        (Token::Other(':'), None) => Problem::new(SYNTAX, "a type must follow the colon")
            .label(scan.span(failed), "no type follows")
            .help(format!(
                "write `param {word}: number = ...`; words to choose from are `param {word}: small | large = small`"
            )),
        (Token::Word, _) if scan.word(failed) == "in" => Problem::new(SYNTAX, "a range must follow `in`")
            .label(scan.span(failed), "no range follows")
            .help(format!("write `param {word} in 0 .. 1 = 0.5`; either end may be left out")),
        _ => Problem::new(SYNTAX, format!("{} cannot stand here", found(scan, failed)))
            .label(scan.span(failed), "not expected here")
            .help(format!("write `param {word} = ...`, or with a type and a range `param {word}: number in 0 .. 1 = 0.5`")),
    }
}

pub(super) fn calculated_import(span: Span) -> Problem {
    Problem::new("hift::lang::import", "the path of an import holds no `${...}`")
        .label(span, "what is imported must be known before anything is calculated")
        .help("write the path as it is")
}

pub(super) fn unclosed_hole(span: Span) -> Problem {
    Problem::new("hift::lang::hole", "this `${` is never closed")
        .label(span, "`}` is missing before the text ends")
        .help("write `${name}`; for the characters themselves write `\\${`")
}

pub(super) fn hole(span: Span) -> Problem {
    Problem::new("hift::lang::hole", "what stands in `${...}` is no value")
        .label(span, "cannot be read")
        .help("write the name of a param or let, or a calculation without texts, such as `${2 * size}`; for the characters themselves write `\\${`")
}

/// Something inside a block that begins no entry.
pub(super) fn entry(scan: &Scan, index: usize) -> Problem {
    let span = scan.span(index);
    let word = scan.word(index);
    match (scan.token(index), scan.token(index + 1)) {
        (Token::Word, Token::Other(':')) => {
            Problem::new(SYNTAX, format!("`{word}` is followed by a colon instead of `=`"))
                .label(scan.span(index + 1), "write `=`")
                .help(format!("write `{word} = ...`"))
        }
        (Token::Word, Token::Number | Token::Text | Token::Open('[')) => {
            Problem::new(SYNTAX, format!("`=` is missing behind `{word}`"))
                .label(span, "a key, but no `=` follows")
                .help(format!("write `{word} = {}`", clip(scan.word(index + 1))))
        }
        (Token::Word, _) => Problem::new(SYNTAX, format!("`{word}` stands alone"))
            .label(span, "neither `=` nor `{` follows")
            .help(format!("give it a value, `{word} = ...`; or, if it belongs to the value before it, see whether that needs quotes")),
        (Token::Text, Token::Equals) => Problem::new(SYNTAX, "a key is written without quotes")
            .label(span, "in quotes")
            .help(format!("write `{} = ...`", word.trim_matches('"'))),
        _ => astray(scan, index),
    }
}

/// A token that fits nothing before it.
pub(super) fn astray(scan: &Scan, index: usize) -> Problem {
    let span = scan.span(index);
    let problem = |message: String| Problem::new(SYNTAX, message).label(span, "not expected here");
    match scan.token(index) {
        Token::Comma => problem("entries of a block are not separated by commas".into())
            .help("remove the comma; white space or a new line is enough"),
        Token::Other(';') => {
            problem("there are no semicolons".into()).help("remove it; white space or a new line is enough")
        }
        Token::Other('.') if beside_number(scan, index) => {
            problem("this is no number".into()).help("write digits on both sides of one point: `0.5`")
        }
        Token::Other('/' | '.' | '~' | '\\') => {
            problem(format!("{} cannot stand in a value without quotes", found(scan, index)))
                .help("put paths, patterns and layer names in quotes: `\"models/llama\"`, `\"block.0\"`")
        }
        Token::Other('-') => problem("this minus stands between nothing".into())
            .help("write `a - b`, with white space around the minus, or `-2` for a negative number"),
        Token::Other('+' | '*') => problem(format!("a value is missing beside {}", found(scan, index)))
            .help("write `a + b` or `a * b`; patterns stand in quotes, such as `\"block.*\"`"),
        Token::Other('^') => problem("there is no `^`".into()).help("write the result, such as `2e-5`"),
        Token::Other('\'' | '`' | '“' | '”') => {
            problem("a text stands in double quotes".into()).help("write `\"...\"`")
        }
        Token::Other('$') => problem("variables have no `$`".into())
            .help("a param is used by its name alone, as in `rate = constant(peak)`"),
        Token::Close(open) => {
            Problem::new("hift::lang::stray_bracket", format!("this `{}` closes nothing", scan.word(index)))
                .label(span, format!("no `{open}` is open here"))
                .help("remove it, or look before it for a bracket that was closed too early")
        }
        Token::OpenText => unclosed_text(span),
        Token::Equals => problem("`=` has no key in front of it".into()).help("write `key = value`"),
        Token::Word | Token::Number | Token::Text | Token::Open(_) | Token::Other(_) | Token::End => {
            problem(format!("{} does not belong here", found(scan, index)))
                .help("each entry is `key = value`; see whether a key, `=` or a bracket is missing before it")
        }
    }
}

/// A value that could not be read. `name` is the token of its key, `start` where the entry begins and
/// `failed_at` where the grammar gave up.
pub(super) fn value(scan: &Scan, name: Option<usize>, start: usize, failed_at: usize) -> Problem {
    let index = scan.index(failed_at);
    let token = scan.token(index);
    if token == Token::OpenText {
        return unclosed_text(scan.span(index));
    }
    let begins_next =
        token == Token::Word && matches!(scan.token(index + 1), Token::Equals | Token::Open('{'));
    if let Some(open) = scan.bracket_around(start, failed_at) {
        let ends = begins_next
            || scan.begins_item(index)
            || matches!(token, Token::Close(_) | Token::End | Token::Equals);
        if ends && (scan.unclosed.contains(&open) || scan.closing(open).is_none()) {
            return unclosed_bracket(scan, open, index);
        }
        if token == Token::Comma {
            return Problem::new(SYNTAX, "there is nothing in front of this comma")
                .label(scan.span(index), "one comma too many, or a value too few")
                .help("remove the comma or write the value that is missing");
        }
        if let Token::Other(sign @ (':' | ';')) = token {
            return Problem::new(SYNTAX, format!("`{sign}` cannot stand here"))
                .label(scan.span(index), "not expected here")
                .help("write `=` between a name and its value, and a comma between values");
        }
        if token == Token::Word && scan.token(index + 1) == Token::Equals {
            let word = scan.word(index);
            return Problem::new(SYNTAX, format!("`{word} = ...` cannot stand here"))
                .label(scan.span(index), "not a value")
                .help("list plain values, `[a, b]`; names with values stand in braces, `{ a = 1, b = 2 }`");
        }
        return match token {
            Token::End => unclosed_bracket(scan, open, index),
            _ => astray(scan, index),
        };
    }
    let Some(name) = name else {
        return match token {
            Token::End => Problem::new(SYNTAX, "there is no value").help("write a value"),
            _ => astray(scan, index),
        };
    };
    let key = scan.word(name);
    let missing = begins_next || matches!(token, Token::Close('{') | Token::End);
    if missing && index == name + 2 {
        let problem = Problem::new(SYNTAX, format!("`{key}` has no value"))
            .label(scan.span(name).to(scan.span(name + 1)), "a value must follow");
        return match (scan.token(index + 1), example(key)) {
            (Token::Open('{'), _) if begins_next => {
                let word = scan.word(index);
                problem
                    .help(format!("write the value; braces as a value's part stand in `{word}({{ ... }})`"))
            }
            (_, Some(example)) => problem.help(format!("write, for example, `{key} = {example}`")),
            (_, None) => problem.help(format!("write `{key} = ...`, or remove `{key} =`")),
        };
    }
    astray(scan, index)
}

/// A block whose closing brace is missing; `found_at` is the token at which that shows.
pub(super) fn unclosed_block(scan: &Scan, head: Span, brace: Span, found_at: usize) -> Problem {
    let head = &scan.text[head.start..head.end];
    let problem =
        Problem::new("hift::lang::unclosed_bracket", format!("the brace of `{head}` is never closed"))
            .label(brace, "opens here");
    let problem = match scan.token(found_at) {
        Token::End => problem.label(scan.span(found_at), "the file ends here"),
        Token::Close(_) => {
            problem.label(scan.span(found_at), "by its indentation, this brace closes an outer block")
        }
        _ if scan.begins_item(found_at) => problem.label(scan.span(found_at), "the next block begins here"),
        _ => problem.label(scan.span(found_at), "by its indentation, this stands outside of it"),
    };
    problem.help(format!("write `}}` where `{head}` ends"))
}

fn unclosed_bracket(scan: &Scan, open: usize, found_at: usize) -> Problem {
    let (bracket, closing, thing) = match scan.text[open..].chars().next() {
        Some('(') => ('(', ')', "parenthesis"),
        Some('[') => ('[', ']', "list"),
        _ => ('{', '}', "brace"),
    };
    let problem = Problem::new("hift::lang::unclosed_bracket", format!("this {thing} is never closed"))
        .label(Span::new(open, open + 1), format!("`{bracket}` opens here"));
    match scan.token(found_at) {
        Token::End => problem.label(scan.span(found_at), "the text ends here"),
        _ => problem.label(scan.span(found_at), format!("`{closing}` is missing before this")),
    }
    .help(format!("write `{closing}` where it ends"))
}

fn unclosed_text(span: Span) -> Problem {
    Problem::new("hift::lang::unclosed_text", "this text has no closing quote")
        .label(span, "`\"` is missing before the end of the line")
        .help("close it with `\"`; a line break inside a text is written `\\n`")
}

pub(super) fn escape(span: Span, escape: char) -> Problem {
    let problem =
        Problem::new("hift::lang::escape", format!("`\\{escape}` is no escape that this language knows"))
            .label(span, "not known");
    match escape {
        'u' => problem.help("write the character's number in hexadecimal digits and braces: `\\u{1F600}`"),
        _ => problem.help(
            "write `\\\\` for a backslash; there are `\\n`, `\\t`, `\\r`, `\\\"`, `\\\\`, `\\$` and `\\u{...}`",
        ),
    }
}

pub(super) fn number_too_large(span: Span) -> Problem {
    Problem::new("hift::lang::range", "this number is too large")
        .label(span, "beyond 1.8e308")
        .help("write a smaller number")
}

pub(super) fn too_deep(span: Span, most: usize) -> Problem {
    Problem::new("hift::lang::nesting", format!("brackets are nested more than {most} deep"))
        .label(span, "one too many")
        .help("no value needs so many; close the brackets before this one")
}

pub(super) fn late_header(span: Span) -> Problem {
    Problem::new("hift::lang::version", "the language version stands once, before everything else")
        .label(span, "not the first line")
        .help("remove it here and begin the file with `hift 1`")
}

/// Whether a number stands right before or behind a token.
fn beside_number(scan: &Scan, index: usize) -> bool {
    let span = scan.span(index);
    let behind =
        |token| index > 0 && scan.token(index - 1) == token && scan.span(index - 1).end == span.start;
    let ahead = scan.token(index + 1) == Token::Number && scan.span(index + 1).start == span.end;
    behind(Token::Number) || (ahead && !behind(Token::Word))
}

/// A token, as it is called in a sentence.
fn found(scan: &Scan, index: usize) -> String {
    match scan.token(index) {
        Token::End => "the end of the file".into(),
        Token::Text | Token::OpenText => "a text".into(),
        _ => format!("`{}`", clip(scan.word(index))),
    }
}

fn clip(text: &str) -> String {
    if text.chars().count() > 24 {
        format!("{}...", text.chars().take(20).collect::<String>())
    } else {
        text.into()
    }
}

fn example(key: &str) -> Option<&'static str> {
    schema::KINDS
        .iter()
        .flat_map(|kind| kind.keys.iter().chain(kind.parts.iter().flat_map(|part| part.keys)))
        .find(|known| known.name == key)
        .map(|known| known.example)
}

/// Every kind of block, for a sentence.
pub(super) fn kinds() -> String {
    quoted(schema::KINDS.iter().map(|kind| kind.name), "and")
}
