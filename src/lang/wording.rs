//! What is said where a text is not a `.hift` file: by what stands there, in a user's words.

use crate::problem::{Edit, Problem, Span};

use super::edit::removal;
use super::names::{nearest, quoted};
use super::scan::{Scan, Token};
use super::schema::{self, Form};
use super::syntax::Name;

const SYNTAX: &str = "hift::lang::syntax";

/// Something at the top level that begins no header, param or block.
pub(super) fn item(scan: &Scan, index: usize) -> Problem {
    let span = scan.span(index);
    let word = scan.word(index);
    let known = schema::kind(word).is_some();
    let token = |i: usize| scan.token(index + i);
    if let Some(header) = misspelt_header(scan, index) {
        return Problem::new("hift::lang::version", "this is not how the language version is written")
            .label(header, "begins the file")
            .help("write `hift 1`")
            .fix(header, "hift 1");
    }
    if let Some(value) = let_without_equals(scan, index) {
        let name = scan.word(index + 1);
        return Problem::new(SYNTAX, format!("`=` is missing behind `let {name}`"))
            .label(span.to(scan.span(index + 1)), "no `=` follows")
            .help(format!("write `let {name} = {}`", clip(scan.word(value))))
            .fix(behind(scan, index + 1, value), " = ");
    }
    match (token(0), token(1), token(2)) {
        (Token::Close('{'), ..) => {
            let problem = Problem::new("hift::lang::stray_bracket", "this brace closes nothing")
                .label(span, "no block is open here")
                .help("remove it, or look above for a block that was closed too early");
            // Behind a block that ends in a brace of its own it is surely one too many.
            let alone = index == 0 || scan.token(index - 1) == Token::Close('{');
            problem.fix_with(alone.then(|| removal(scan.text, span)))
        }
        (Token::Comma | Token::Other(';'), ..) => {
            Problem::new(SYNTAX, format!("blocks are not separated by `{word}`"))
                .label(span, "not expected here")
                .help("remove it; white space or a new line is enough")
                .fix(span, "")
        }
        (Token::Other('-'), Token::Other('-'), Token::Other('-')) if scan.leads(index) => {
            let line = span.to(scan.span(index + 2));
            Problem::new(SYNTAX, "there are no lines of dashes")
                .label(line, "not expected here")
                .help("remove it")
                .fix_with([removal(scan.text, line)])
        }
        // What stands behind something on its line belongs to that.
        (Token::Other(_), ..) if !scan.leads(index) => astray(scan, index),
        (Token::Word, Token::Other(char), _)
            if !char.is_ascii() && scan.span(index + 1).start == span.end =>
        {
            foreign(scan, index + 1, char)
        }
        (Token::Word, Token::Word, Token::Word)
            if known && token(3) == Token::Word && token(4) == Token::Open('{') =>
        {
            let (name, sign, base) = (scan.word(index + 1), scan.word(index + 2), scan.word(index + 3));
            let problem = Problem::new(SYNTAX, format!("`{sign}` is no word of the language"))
                .label(scan.span(index + 2), "not expected here")
                .help(format!("a block takes over another one as in `{word} {name} = {base} {{ ... }}`"));
            let sure = matches!(sign, "extends" | "from" | "inherits" | "is" | "like" | "as");
            problem.fix_with(sure.then(|| Edit { span: scan.span(index + 2), text: "=".into() }))
        }
        (Token::Word, Token::Text, Token::Text) if known => {
            let name = scan.word(index + 2).trim_matches('"');
            let name = if is_name(name) { name } else { "NAME" };
            Problem::new(SYNTAX, "a block has one name, without quotes")
                .label(scan.span(index + 1).to(scan.span(index + 2)), "two names in quotes")
                .help(format!("write `{word} {name} {{ ... }}`"))
        }
        (Token::Word, Token::Text, _) if word == "include" => Problem::new(SYNTAX, "there is no `include`")
            .label(span, "not a word of this language")
            .help(format!("write `import {}`", clip(scan.word(index + 1))))
            .fix(span, "import"),
        (Token::Open('{'), ..) => Problem::new(SYNTAX, "a file is not put in braces")
            .label(span, "opens nothing that has a name")
            .help("begin the file with `hift 1`, then write blocks such as `data NAME { ... }`"),
        (Token::Open('['), Token::Word, _) => {
            let kind = scan.word(index + 1);
            let kind = schema::kind(kind).map_or("data", |kind| kind.name);
            Problem::new(SYNTAX, "a block does not begin with a name in brackets")
                .label(span.to(scan.span(index + 1)), "not the head of a block")
                .help(format!("write `{kind} NAME {{ ... }}`, with what belongs to it between the braces"))
        }
        (Token::Word, ..) if word == "param" => Problem::new(SYNTAX, "this param is incomplete")
            .label(span, "a name, `=` and a value must follow")
            .help("write `param peak = 2e-5`"),
        (Token::Word, ..) if word == "let" => Problem::new(SYNTAX, "this let is incomplete")
            .label(span, "a name, `=` and a value must follow")
            .help("write `let length = 2 * 512 tokens`"),
        (Token::Word, ..) if word == "import" || word == "include" => {
            let problem =
                Problem::new(SYNTAX, "this import is incomplete").label(span, "a path in quotes must follow");
            let path = (!scan.leads(index + 1)).then(|| bare(scan, index + 1)).flatten();
            match path {
                Some(path) => {
                    let text = quote(&scan.text[path.start..path.end]);
                    problem.help(format!("write `import {text}`")).fix(path, text)
                }
                None => problem.help("write `import \"shared.hift\"`"),
            }
        }
        (Token::Word, Token::Word, _)
            if matches!(word, "for" | "while" | "if" | "def" | "fn" | "function") =>
        {
            Problem::new(SYNTAX, format!("there is no `{word}`: nothing runs while a file is read"))
                .label(span, "not a word of this language")
                .help("write what is to be, block by block; `param`, `let` and profiles give values names")
        }
        (Token::Word, Token::Word, Token::Equals) if !known => {
            let name = scan.word(index + 1);
            Problem::new(SYNTAX, format!("`{word}` gives no value a name"))
                .label(span, "not a word of this language")
                .help(format!("write `let {name} = ...`, or `param {name} = ...` if `--set` may change it"))
        }
        (Token::Word, Token::Equals, _) => {
            Problem::new(SYNTAX, format!("`{word} = ...` stands outside of every block"))
                .label(span, "belongs to no block")
                .help(format!("move it into a block; or, to give a value a name, write `param {word} = ...`"))
        }
        (Token::Word, Token::Other(':'), _) if !known => {
            Problem::new(SYNTAX, format!("`{word}: ...` stands outside of every block"))
                .label(span, "belongs to no block")
                .help(format!("move it into a block as `{word} = ...`"))
        }
        (Token::Word, Token::Other(':'), _) => {
            Problem::new(SYNTAX, "what belongs to a block stands in braces, not behind a colon")
                .label(span.to(scan.span(index + 1)), "not the head of a block")
                .help(format!("write `{word} NAME {{ ... }}` with a name of your choice"))
        }
        (Token::Word, Token::Text, _) => {
            let literal = scan.word(index + 1);
            let name = literal.trim_matches('"');
            let problem = Problem::new(SYNTAX, "the name of a block is written without quotes")
                .label(scan.span(index + 1), "in quotes");
            match is_name(name) {
                true => problem.help(format!("write `{word} {name} {{ ... }}`")).fix_with(
                    (token(2) == Token::Open('{'))
                        .then(|| Edit { span: scan.span(index + 1), text: name.to_owned() }),
                ),
                false => problem
                    .help(format!("write `{word} NAME {{ ... }}`; a name has letters, digits, `_` and `-`")),
            }
        }
        (Token::Word, Token::Word, sign @ (Token::Equals | Token::Other(':')))
            if token(3) == Token::Open('{') =>
        {
            let (name, sign) = (scan.word(index + 1), if sign == Token::Equals { '=' } else { ':' });
            Problem::new(SYNTAX, format!("there is no `{sign}` in front of a block's brace"))
                .label(scan.span(index + 2), "not expected here")
                .help(format!("write `{word} {name} {{ ... }}`"))
                .fix(Span::new(scan.span(index + 1).end, scan.span(index + 3).start), " ")
        }
        (Token::Word, Token::Word, _) if known => {
            let name = scan.word(index + 1);
            let problem = Problem::new(SYNTAX, format!("the opening brace of `{word} {name}` is missing"))
                .label(span.to(scan.span(index + 1)), "`{` must follow")
                .help(format!("write `{word} {name} {{ ... }}`"));
            let entries = token(2) == Token::Word && matches!(token(3), Token::Equals | Token::Other(':'));
            let at = scan.span(index + 1).end;
            problem.fix_with(entries.then(|| Edit { span: Span::new(at, at), text: " {".into() }))
        }
        (Token::Word, ..) if known => Problem::new(SYNTAX, format!("this {word} block is incomplete"))
            .label(span, "a name and `{` must follow")
            .help(format!("write `{word} NAME {{ ... }}` with a name of your choice")),
        (Token::OpenText, ..) => unclosed_text(scan, index),
        (Token::Other(char), ..) if !char.is_ascii() => foreign(scan, index, char),
        _ => Problem::new(SYNTAX, format!("{} begins neither a block nor a param", found(scan, index)))
            .label(span, "not expected here")
            .help(match nearest(word, schema::KINDS.iter().map(|kind| kind.name)) {
                Some(kind) => format!("did you mean `{kind} NAME {{ ... }}`?"),
                None => format!("what stands here is one of {}", kinds()),
            }),
    }
}

/// A brace in front of a token that closes its block before all entries have come.
pub(super) fn closed_too_early(scan: &Scan, title: &str, index: usize) -> Problem {
    let brace = scan.span(index - 1);
    let key = scan.word(index);
    Problem::new("hift::lang::stray_bracket", format!("this brace closes `{title}` too early"))
        .label(brace, "one brace too many")
        .label(scan.span(index), format!("`{key}` still belongs to it"))
        .help("remove the brace: another one follows below")
        .fix_with([removal(scan.text, brace)])
}

/// The place of what was meant as the header: `hift = 1`, `hift: 1`, `hift v1`, `hift` alone.
pub(super) fn misspelt_header(scan: &Scan, index: usize) -> Option<Span> {
    let word = scan.word(index).to_lowercase();
    if index != 0 || scan.token(0) != Token::Word {
        return None;
    }
    let span = scan.span(0);
    if word == "hift1" {
        return Some(span);
    }
    let sign = matches!(scan.token(1), Token::Equals | Token::Other(':'));
    let value = if sign { 2 } else { 1 };
    let is_one = !scan.leads(value) && matches!(scan.word(value), "1" | "1.0" | "v1" | "\"1\"" | "\"1.0\"");
    match word.as_str() {
        "hift" if is_one => Some(span.to(scan.span(value))),
        "hift" if scan.leads(1) || scan.token(1) == Token::End => Some(span),
        "version" if is_one && sign => Some(span.to(scan.span(value))),
        _ => None,
    }
}

/// Whether a block's head is followed by a sign in front of its brace, or its name stands in quotes.
pub(super) fn block_with_sign(scan: &Scan, index: usize) -> bool {
    let token = |i: usize| scan.token(index + i);
    let brace = Token::Open('{');
    match (token(0), token(1), token(2)) {
        (Token::Word, Token::Text, open) if open == brace => is_name(scan.word(index + 1).trim_matches('"')),
        (Token::Word, Token::Word, Token::Equals | Token::Other(':')) => token(3) == brace,
        _ => false,
    }
}

/// Where the value of `let NAME value` or `let NAME: value` begins.
pub(super) fn let_without_equals(scan: &Scan, index: usize) -> Option<usize> {
    let names = scan.token(index) == Token::Word
        && scan.word(index) == "let"
        && scan.token(index + 1) == Token::Word
        && !scan.leads(index + 1);
    names.then(|| without_equals(scan, index + 1)).flatten().map(|(value, _)| value)
}

/// Where the value begins that stands behind a name without `=`, and what is said about that.
pub(super) fn without_equals(scan: &Scan, name: usize) -> Option<(usize, Problem)> {
    let word = scan.word(name);
    let sign = match (scan.token(name + 1), scan.token(name + 2)) {
        (Token::Equals, Token::Equals) => "==",
        (Token::Equals, Token::Other('>')) => "=>",
        (Token::Other(':'), Token::Equals) => ":=",
        (Token::Other(':'), _) => ":",
        (Token::Other('-'), Token::Other('>')) => "->",
        _ => "",
    };
    let value = name + 1 + sign.len();
    let begins_value = match scan.token(value) {
        Token::Number | Token::Text | Token::OpenText | Token::Open('[' | '(') => true,
        Token::Open(_) => sign == ":" || sign == "=>",
        // A word in front of `=` or on a line of its own is the next key.
        Token::Word => {
            let next = scan.token(value + 1);
            let is_key = matches!(next, Token::Equals | Token::Open('{') | Token::Other(':'));
            !is_key && (!sign.is_empty() || is_key_of_the_language(word) || word_begins_call(scan, value))
        }
        Token::Other('.' | '~' | '/' | '-' | '+' | '$') => !sign.is_empty(),
        Token::Close(_) | Token::Equals | Token::Comma | Token::Other(_) | Token::End => false,
    };
    let touches = sign.is_empty() && scan.span(name).end == scan.span(value).start;
    if !begins_value || touches || (scan.leads(value) && scan.token(value) != Token::Open('[')) {
        return None;
    }
    let written = match (scan.token(value), scan.token(value + 1)) {
        (Token::Open('['), _) => "[...]".to_owned(),
        (Token::Open(_), _) => "...".to_owned(),
        (Token::Word, Token::Open('(')) => format!("{}(...)", scan.word(value)),
        (Token::Number, Token::Word | Token::Other('%'))
            if !scan.leads(value + 1)
                && !matches!(scan.token(value + 2), Token::Equals | Token::Open(_) | Token::Other(':')) =>
        {
            format!("{} {}", scan.word(value), scan.word(value + 1))
        }
        _ => clip(scan.word(value)),
    };
    let edit = behind(scan, name, value);
    Some((
        value,
        match sign {
            "" => Problem::new(SYNTAX, format!("`=` is missing behind `{word}`"))
                .label(scan.span(name), "no `=` follows")
                .help(format!("write `{word} = {written}`"))
                .fix(edit, " = "),
            _ => Problem::new(SYNTAX, format!("`{word}` is followed by `{sign}` instead of `=`"))
                .label(scan.span(name + 1).to(scan.span(value - 1)), "write `=`")
                .help(format!("write `{word} = {written}`"))
                .fix(edit, " = "),
        },
    ))
}

fn word_begins_call(scan: &Scan, index: usize) -> bool {
    scan.token(index + 1) == Token::Open('(')
}

fn is_key_of_the_language(word: &str) -> bool {
    keys().any(|key| key.name == word)
}

fn keys() -> impl Iterator<Item = &'static schema::Key> {
    schema::KINDS.iter().flat_map(|kind| kind.keys.iter().chain(kind.parts.iter().flat_map(|part| part.keys)))
}

/// Whether a key of that name takes a list.
pub(super) fn takes_list(word: &str) -> bool {
    keys().any(|key| key.name == word && key.takes.iter().any(|form| matches!(form, Form::List(..))))
}

/// What lies between two tokens.
fn behind(scan: &Scan, index: usize, next: usize) -> Span {
    Span::new(scan.span(index).end, scan.span(next).start)
}

/// Whether `==` or `=>` stands here.
pub(super) fn doubled_equals(scan: &Scan, index: usize) -> bool {
    scan.token(index) == Token::Equals && matches!(scan.token(index + 1), Token::Equals | Token::Other('>'))
}

/// An entry whose `=` is missing or something else, or whose key stands in quotes: its name, the token at which its
/// value begins, and what is wrong.
pub(super) fn slipped_entry(scan: &Scan, index: usize) -> Option<(Name, usize, Problem)> {
    let span = scan.span(index);
    let word = scan.word(index);
    match scan.token(index) {
        Token::Word => {
            let (value, problem) = without_equals(scan, index)?;
            Some((Name { text: word.to_owned(), span }, value, problem))
        }
        Token::Text => {
            let bare = word.trim_matches('"');
            let value = index + 2;
            let signed = matches!(scan.token(index + 1), Token::Equals | Token::Other(':'));
            let is_value = !matches!(scan.token(value), Token::Close(_) | Token::End | Token::Comma);
            if !is_name(bare) || !signed || !is_value {
                return None;
            }
            let problem = match scan.token(index + 1) {
                Token::Equals => {
                    Problem::new(SYNTAX, "a key is written without quotes").label(span, "in quotes")
                }
                _ => Problem::new(SYNTAX, "a key is written without quotes, and with `=` behind it")
                    .label(span.to(scan.span(index + 1)), "not a key"),
            };
            let problem = problem
                .help(format!("write `{bare} = ...`"))
                .fix(Span::new(span.start, scan.span(value).start), format!("{bare} = "));
            Some((Name { text: bare.to_owned(), span }, value, problem))
        }
        _ => None,
    }
}

/// `betas = 0.9, 0.999`
pub(super) fn row_of_values(
    scan: &Scan,
    name: &Name,
    comma: usize,
    values: Span,
    takes_list: bool,
) -> Problem {
    let word = &name.text;
    let problem = Problem::new(SYNTAX, format!("`{word}` has several values"))
        .label(scan.span(comma), "the first value ends here");
    match takes_list {
        true => problem
            .help(format!("write `{word} = [{}]`", clip(&scan.text[values.start..values.end])))
            .fix(Span::new(values.start, values.start), "[")
            .fix(Span::new(values.end, values.end), "]"),
        false if is_grouped(scan, comma) => {
            let digits = format!("{}_{}", scan.word(comma - 1), scan.word(comma + 1));
            Problem::new(SYNTAX, "the digits of a number are not grouped by commas")
                .label(scan.span(comma), "not part of a number")
                .help(format!("write `{digits}`"))
                .fix(scan.span(comma), "_")
        }
        false => problem.help(format!("`{word}` takes one value: remove the others")),
    }
}

/// Whether a comma stands between digits as in `1,000`.
fn is_grouped(scan: &Scan, comma: usize) -> bool {
    let is_digits = |i: usize| scan.word(i).bytes().all(|byte| byte.is_ascii_digit());
    let (before, behind) = (comma - 1, comma + 1);
    scan.token(before) == Token::Number
        && scan.token(behind) == Token::Number
        && scan.span(before).end == scan.span(comma).start
        && scan.span(comma).end == scan.span(behind).start
        && is_digits(before)
        && is_digits(behind)
        && scan.word(before).len() <= 3
        && scan.word(behind).len() == 3
}

/// A param whose value stands where a type would.
pub(super) fn param_colon(scan: &Scan, name: usize) -> Problem {
    let word = scan.word(name);
    let value = scan.word(name + 2);
    Problem::new(SYNTAX, format!("behind the colon stands the type of `{word}`, and `{value}` is none"))
        .label(scan.span(name + 1), "write `=`")
        .help(format!("write `param {word} = {value}`"))
        .fix(behind(scan, name, name + 2), " = ")
}

/// A character that has no place outside of texts.
fn foreign(scan: &Scan, index: usize, char: char) -> Problem {
    let problem = Problem::new(SYNTAX, format!("`{char}` (U+{:04X}) cannot stand here", u32::from(char)))
        .label(scan.span(index), "not expected here");
    match char.is_alphabetic() {
        true => problem.help("names have the letters a to z, digits, `_` and `-`; texts stand in quotes"),
        false => problem.help("remove it, or put the text that it belongs to in quotes"),
    }
}

/// What is written without a gap around a token and reads like a path or the name of a layer.
fn bare(scan: &Scan, index: usize) -> Option<Span> {
    let fits = |i: usize| match scan.token(i) {
        Token::Word | Token::Number => true,
        Token::Other(char) => {
            matches!(char, '/' | '.' | '~' | '\\' | '*' | '@' | '-')
                || (char == ':' && scan.token(i + 1) == Token::Other('\\'))
        }
        _ => false,
    };
    if !fits(index) {
        return None;
    }
    let (mut first, mut last) = (index, index);
    while first > 0 && fits(first - 1) && scan.span(first - 1).end == scan.span(first).start {
        first -= 1;
    }
    while fits(last + 1) && scan.span(last).end == scan.span(last + 1).start {
        last += 1;
    }
    let has_word = (first..=last).any(|i| scan.token(i) == Token::Word);
    has_word.then(|| scan.span(first).to(scan.span(last)))
}

/// As a text of the language.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${"))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// A param whose types or range could not be read; `failed` is the token at which that shows.
pub(super) fn param(scan: &Scan, name: usize, failed: usize) -> Problem {
    let word = scan.word(name);
    let behind = (failed > name + 1).then(|| scan.word(failed - 1));
    match (scan.token(failed), behind) {
        (Token::OpenText, _) => unclosed_text(scan, failed),
        (Token::Other(':'), None) => Problem::new(SYNTAX, "a type must follow the colon")
            .label(scan.span(failed), "no type follows")
            .help(format!(
                "write `param {word}: number = ...`; words to choose from are `param {word}: small | large = small`"
            )),
        (Token::Other(':'), Some(_)) | (Token::Equals, Some(":")) if scan.word(failed - 1) == ":" => {
            Problem::new(SYNTAX, "a type must follow the colon")
                .label(scan.span(failed - 1).to(scan.span(failed)), "no type follows")
                .help(format!("write `param {word} = ...`"))
        }
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
        (Token::Word, Token::Other('.')) if scan.token(index + 2) == Token::Word => {
            let key = scan.word(index + 2);
            Problem::new(SYNTAX, "a key has no point in it")
                .label(span.to(scan.span(index + 2)), "not a key")
                .help(format!("write `{key} = ...` in the block that it belongs to"))
        }
        (Token::Word, _) => Problem::new(SYNTAX, format!("`{word}` stands alone"))
            .label(span, "neither `=` nor `{` follows")
            .help(format!("give it a value, `{word} = ...`; or, if it belongs to the value before it, see whether that needs quotes")),
        _ => astray(scan, index),
    }
}

/// A token that fits nothing before it.
pub(super) fn astray(scan: &Scan, index: usize) -> Problem {
    let span = scan.span(index);
    let problem = |message: String| Problem::new(SYNTAX, message).label(span, "not expected here");
    let before = index.checked_sub(1).map(|before| scan.token(before));
    match scan.token(index) {
        Token::Comma => problem("entries of a block are not separated by commas".into())
            .help("remove the comma; white space or a new line is enough")
            .fix(span, ""),
        Token::Other(';') => problem("there are no semicolons".into())
            .help("remove it; white space or a new line is enough")
            .fix(span, ""),
        Token::Other('.') if beside_number(scan, index) => {
            let problem =
                problem("this is no number".into()).help("write digits on both sides of one point: `0.5`");
            let touches = |other: usize, token: Token| scan.token(other) == token;
            let ahead = touches(index + 1, Token::Number) && scan.span(index + 1).start == span.end;
            let follows =
                index > 0 && touches(index - 1, Token::Number) && scan.span(index - 1).end == span.start;
            match (follows, ahead) {
                (false, true) => problem.fix(Span::new(span.start, span.start), "0"),
                (true, false) => problem.fix(span, ".0"),
                _ => problem,
            }
        }
        Token::Other('/' | '.' | '~' | '\\') => without_quotes(scan, index, span),
        // `C:\models`
        Token::Other(':') if scan.token(index + 1) == Token::Other('\\') => without_quotes(scan, index, span),
        Token::Other('-') => problem("this minus stands between nothing".into())
            .help("write `a - b`, with white space around the minus, or `-2` for a negative number"),
        Token::Other('+') if scan.token(index + 1) == Token::Number && before == Some(Token::Equals) => {
            problem("a number has no plus in front of it".into())
                .help(format!("write `{}`", scan.word(index + 1)))
                .fix(Span::new(span.start, scan.span(index + 1).start), "")
        }
        Token::Other('+' | '*') => problem(format!("a value is missing beside {}", found(scan, index)))
            .help("write `a + b` or `a * b`; patterns stand in quotes, such as `\"block.*\"`"),
        Token::Other('<') => problem("`<` cannot stand in a value without quotes".into())
            .help("put tokens and other texts in quotes: `\"<s>\"`"),
        Token::Other('^') => problem("there is no `^`".into()).help("write the result, such as `2e-5`"),
        Token::Other('\'' | '`' | '“' | '”' | '‘' | '’') => {
            problem("a text stands in double quotes".into()).help("write `\"...\"`")
        }
        Token::Other('$') => {
            let problem = problem("variables have no `$`".into());
            match (scan.token(index + 1), scan.token(index + 2), scan.token(index + 3)) {
                (Token::Word, ..) => {
                    problem.help(format!("write `{}`, the name alone", scan.word(index + 1))).fix(span, "")
                }
                (Token::Open('{'), Token::Word, Token::Close('{')) => {
                    let name = scan.word(index + 2);
                    problem
                        .help(format!("write `{name}`; `${{...}}` stands inside of texts"))
                        .fix(span.to(scan.span(index + 3)), name)
                }
                _ => problem.help("a param is used by its name alone, as in `rate = constant(peak)`"),
            }
        }
        Token::Close(open) => {
            Problem::new("hift::lang::stray_bracket", format!("this `{}` closes nothing", scan.word(index)))
                .label(span, format!("no `{open}` is open here"))
                .help("remove it, or look before it for a bracket that was closed too early")
                .fix(span, "")
        }
        Token::OpenText => unclosed_text(scan, index),
        Token::Equals => problem("`=` has no key in front of it".into()).help("write `key = value`"),
        Token::Other(char) if !char.is_ascii() => foreign(scan, index, char),
        Token::Word | Token::Number | Token::Text | Token::Open(_) | Token::Other(_) | Token::End => {
            problem(format!("{} does not belong here", found(scan, index)))
                .help("each entry is `key = value`; see whether a key, `=` or a bracket is missing before it")
        }
    }
}

/// A path, a pattern or the name of a layer that should stand in quotes.
fn without_quotes(scan: &Scan, index: usize, span: Span) -> Problem {
    let Some(run) = bare(scan, index) else {
        return Problem::new(
            SYNTAX,
            format!("{} cannot stand in a value without quotes", found(scan, index)),
        )
        .label(span, "not expected here")
        .help("put paths, patterns and layer names in quotes: `\"models/llama\"`, `\"block.0\"`");
    };
    let written = &scan.text[run.start..run.end];
    let text = quote(written);
    let problem =
        Problem::new("hift::lang::no_quotes", format!("`{}` is written without quotes", clip(written)))
            .label(run, "a text stands in quotes");
    match written.starts_with('~') {
        true => problem.help("write the whole path in quotes; `~` stands for nothing here"),
        false => problem.help(format!("write `{text}`")).fix(run, text),
    }
}

/// A value that could not be read. `name` is the token of its key, `start` where the entry begins and
/// `failed_at` where the grammar gave up.
pub(super) fn value(scan: &Scan, name: Option<usize>, start: usize, failed_at: usize) -> Problem {
    let index = scan.index(failed_at);
    let token = scan.token(index);
    if token == Token::OpenText {
        return unclosed_text(scan, index);
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
                .help("remove the comma or write the value that is missing")
                .fix(scan.span(index), "");
        }
        if let Token::Other(sign @ (':' | ';')) = token {
            let problem = Problem::new(SYNTAX, format!("`{sign}` cannot stand here"))
                .label(scan.span(index), "not expected here")
                .help("write `=` between a name and its value, and a comma between values");
            let name = index.checked_sub(1).filter(|name| scan.token(*name) == Token::Word);
            return match (sign, name) {
                (':', Some(name)) => problem.fix(behind(scan, name, index + 1), " = "),
                (';', _) => problem.fix(scan.span(index), ","),
                _ => problem,
            };
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
    if index > 1 && scan.token(index - 1) == Token::Other('-') && scan.leads(index - 1) {
        return Problem::new(SYNTAX, "a list is not written with dashes")
            .label(scan.span(index - 1), "not a list")
            .help(format!("write `[{}, ...]`", scan.word(index)));
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
    let head_start = head.start;
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
    problem
        .help(format!("write `}}` where `{head}` ends"))
        .fix_with([closing_brace(scan, head_start, found_at)])
}

/// The brace that is missing before a token: on a line of its own, as far in as the block's head.
fn closing_brace(scan: &Scan, head: usize, found_at: usize) -> Edit {
    let last = scan.span(found_at.saturating_sub(1)).end;
    let at_end = scan.token(found_at) == Token::End;
    if !at_end && !scan.leads(found_at) {
        return Edit { span: Span::new(last, last), text: " }".into() };
    }
    // Behind a comment on the line.
    let line_end = scan.text[last..].find(['\n', '\r']).map_or(scan.text.len(), |length| last + length);
    let indent = " ".repeat(scan.indent(scan.index(head)));
    Edit { span: Span::new(line_end, line_end), text: format!("\n{indent}}}") }
}

fn unclosed_bracket(scan: &Scan, open: usize, found_at: usize) -> Problem {
    // Where an argument begins a line and no comma stands before it, it was meant as the next key.
    let next_key = (scan.index(open) + 2..found_at).find(|i| {
        scan.token(*i) == Token::Word
            && scan.token(i + 1) == Token::Equals
            && scan.leads(*i)
            && !matches!(scan.token(i - 1), Token::Comma | Token::Open(_))
    });
    let found_at = next_key.unwrap_or(found_at);
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
    .fix_with(closing_bracket(scan, closing, found_at))
}

/// The bracket that is missing before a token, where that is surely the place.
fn closing_bracket(scan: &Scan, closing: char, found_at: usize) -> Option<Edit> {
    let at = scan.span(found_at.checked_sub(1)?).end;
    let behind = matches!(scan.token(found_at), Token::End) || scan.leads(found_at);
    match scan.token(found_at) {
        // `[1, 2)`
        Token::Close('(' | '[') if scan.strays.binary_search(&scan.span(found_at).start).is_ok() => {
            Some(Edit { span: scan.span(found_at), text: closing.into() })
        }
        Token::Close(_) => Some(Edit {
            span: Span::new(at, at),
            text: if closing == '}' { " }".into() } else { closing.into() },
        }),
        _ => behind.then(|| Edit { span: Span::new(at, at), text: closing.into() }),
    }
}

fn unclosed_text(scan: &Scan, index: usize) -> Problem {
    let span = scan.span(index);
    let text = scan.word(index).trim_end();
    let problem = Problem::new("hift::lang::unclosed_text", "this text has no closing quote")
        .label(span, "`\"` is missing before the end of the line")
        .help("close it with `\"`; a line break inside a text is written `\\n`");
    // Where nothing on the line can be meant as anything else, the text ends with the line, or before the
    // parenthesis that it stands in.
    let inner = match text.strip_suffix(')') {
        Some(inner) if index > 0 && scan.token(index - 1) == Token::Open('(') => inner,
        _ => text,
    };
    let certain = inner.len() > 1 && !inner.contains([',', '(', ')', '[', ']', '{', '}', '#', '=', '\\']);
    let at = span.start + inner.len();
    problem.fix_with(certain.then(|| Edit { span: Span::new(at, at), text: "\"".into() }))
}

pub(super) fn escape(span: Span, escape: char) -> Problem {
    let problem =
        Problem::new("hift::lang::escape", format!("`\\{escape}` is no escape that this language knows"))
            .label(span, "not known");
    match escape {
        'u' => problem.help("write the character's number in hexadecimal digits and braces: `\\u{1F600}`"),
        _ => problem.fix(Span::new(span.start, span.start), "\\").help(
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

/// A header behind other things; `missing` where there is none at the top.
pub(super) fn late_header(scan: &Scan, span: Span, missing: bool) -> Problem {
    let begin = scan.text.len() - scan.text.trim_start_matches('\u{FEFF}').len();
    let top = Edit { span: Span::new(begin, begin), text: format!("{}\n", &scan.text[span.start..span.end]) };
    Problem::new("hift::lang::version", "the language version stands once, before everything else")
        .label(span, "not the first line")
        .help("remove it here and begin the file with `hift 1`")
        .fix_with(missing.then_some(top))
        .fix_with([removal(scan.text, span)])
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
    keys().find(|known| known.name == key).map(|known| known.example)
}

/// Every kind of block, for a sentence.
pub(super) fn kinds() -> String {
    quoted(schema::KINDS.iter().map(|kind| kind.name), "and")
}
