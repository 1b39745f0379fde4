//! Characters that look like those of the language and are not: letters of other alphabets, full-width signs, spaces
//! that are none, quotes of word processors; and comments of other languages.
//!
//! They are told one by one and then read as what they look like, so that they lead to no other mistakes.

use crate::problem::{Edit, Problem, Span};

use super::MAX_PROBLEMS;
use super::names::joined;

/// Characters of a text in wrong quotes, at most.
const MAX_TEXT: usize = 1000;

/// A text in which everything is written as the language wants it.
pub(super) struct Plain {
    pub text: String,
    pub problems: Vec<Problem>,
    /// What stands there instead of what, in the order of the text.
    replaced: Vec<Replaced>,
}

struct Replaced {
    /// Where it stands in the original.
    old: Span,
    /// Where its replacement stands in the plain text.
    new: Span,
}

impl Plain {
    /// The place in the original of a place in the plain text.
    pub fn place(&self, at: usize) -> usize {
        let behind = self.replaced.partition_point(|replaced| replaced.new.end <= at);
        if let Some(inside) = self.replaced.get(behind)
            && inside.new.start < at
        {
            return inside.old.start;
        }
        match behind.checked_sub(1).map(|last| &self.replaced[last]) {
            Some(last) => last.old.end + (at - last.new.end),
            None => at,
        }
    }
}

/// The text as it was meant, with what is wrong in it; nothing where there is nothing of the kind.
pub(super) fn plain(text: &str) -> Option<Plain> {
    let is_suspect =
        |byte: u8| !byte.is_ascii() || matches!(byte, b'\'' | b'`' | b'/') || is_control(byte as char);
    if !text.bytes().any(is_suspect) {
        return None;
    }
    let mut reader = Reader {
        text,
        at: 0,
        line: Span::default(),
        last_quote: 0,
        changes: Vec::new(),
        problems: Vec::new(),
        never_closed: false,
    };
    reader.read();
    if reader.problems.is_empty() {
        return None;
    }
    reader.problems.truncate(MAX_PROBLEMS + 1);
    let mut plain =
        Plain { text: String::with_capacity(text.len()), problems: reader.problems, replaced: Vec::new() };
    let mut from = 0;
    for Edit { span, text: instead } in reader.changes {
        plain.text.push_str(&text[from..span.start]);
        let start = plain.text.len();
        plain.text.push_str(&instead);
        plain.replaced.push(Replaced { old: span, new: Span::new(start, plain.text.len()) });
        from = span.end;
    }
    plain.text.push_str(&text[from..]);
    Some(plain)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    /// The line that was looked at last, and where the last `"` on it is.
    line: Span,
    last_quote: usize,
    /// What is read instead of what, in the order of the text.
    changes: Vec<Edit>,
    problems: Vec<Problem>,
    /// No `*/` follows any more.
    never_closed: bool,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn read(&mut self) {
        while let Some(char) = self.rest().chars().next() {
            if self.problems.len() > MAX_PROBLEMS {
                return;
            }
            match char {
                '#' => self.at += line_length(self.rest()),
                '"' | '\'' | '`' | '“' | '”' | '„' | '‟' | '«' | '»' | '‘' | '’' => {
                    self.text(char)
                }
                '/' if self.begins_comment() => self.comment(),
                c if c.is_ascii_alphabetic() || c == '_' || letter(c).is_some() => self.word(),
                c if c.is_ascii() && !is_control(c) => self.at += 1,
                c => self.sign(c),
            }
        }
    }

    /// A text in any quotes. What it holds is the user's.
    fn text(&mut self, quote: char) {
        if self.at >= self.line.end {
            self.line = Span::new(self.at, self.at + line_length(self.rest()));
            self.last_quote = self.text[self.at..self.line.end].rfind('"').map_or(0, |i| self.at + i);
        }
        let line = &self.text[self.at..self.line.end];
        let closing: &[char] = match quote {
            '"' => &['"', '”'],
            '\'' => &['\''],
            '`' => &['`'],
            '‘' | '’' => &['’', '‘', '\''],
            '«' | '»' => &['»', '«'],
            _ => &['”', '“', '„', '‟', '"'],
        };
        let last_plain = self.last_quote.saturating_sub(self.at);
        // In wrong quotes, nobody writes a long text.
        let most = if quote == '"' { usize::MAX } else { MAX_TEXT };
        let mut escaped = false;
        let mut end = None;
        for (i, char) in line.char_indices().skip(1).take(most) {
            match char {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                // A text in the quotes of the language may hold any others.
                '”' if quote == '"' && i < last_plain => {}
                _ if closing.contains(&char) => {
                    end = Some((i, char));
                    break;
                }
                _ => {}
            }
        }
        let Some((end, last)) = end else {
            // What is left of the line is the text that is not closed; the scan tells it.
            self.at += if quote == '"' { line.len() } else { quote.len_utf8() };
            return;
        };
        let start = self.at;
        let whole = Span::new(start, start + end + last.len_utf8());
        self.at = whole.end;
        let inner = &line[quote.len_utf8()..end];
        if (quote, last) == ('"', '"') {
            return;
        }
        let quotes = [(start, quote), (start + end, last)].into_iter().filter(|(_, quote)| *quote != '"');
        let edit = |at: usize, char: char, text: &str| Edit {
            span: Span::new(at, at + char.len_utf8()),
            text: text.to_owned(),
        };
        let mut edits: Vec<Edit> = quotes.map(|(at, quote)| edit(at, quote, "\"")).collect();
        // Quotes inside of it are the text's own.
        let from = start + quote.len_utf8();
        let own = inner.match_indices('"').filter(|(i, _)| !inner[..*i].ends_with('\\'));
        edits.extend(own.map(|(i, _)| edit(from + i, '"', "\\\"")));
        edits.sort_by_key(|edit| edit.span);
        let called = match quote {
            '\'' => "single quotes",
            '`' => "backticks",
            _ => "the quotes of a word processor",
        };
        self.problems.push(
            Problem::new("hift::lang::quotes", format!("this text stands in {called}"))
                .label(whole, "a text stands in `\"`")
                .help(format!("write `\"{}\"`", inner.replace("\\\"", "\"").replace('"', "\\\"")))
                .fix_with(edits.clone()),
        );
        self.changes.extend(edits);
    }

    /// Whether `//` or `/*` stands here and divides nothing.
    fn begins_comment(&self) -> bool {
        let before = self.text[..self.at].chars().next_back();
        (self.rest().starts_with("//") || self.rest().starts_with("/*"))
            && before.is_none_or(|before| before.is_whitespace() || matches!(before, '{' | '}' | ',' | ';'))
    }

    fn comment(&mut self) {
        let rest = self.rest();
        let start = self.at;
        let problem = |span: Span, sign: &str| {
            Problem::new("hift::lang::comment", format!("`{sign}` begins no comment"))
                .label(span, "a comment begins with `#`")
        };
        let closes = rest.starts_with("/*") && !self.never_closed;
        let closed = closes.then(|| rest.find("*/")).flatten();
        self.never_closed |= closes && closed.is_none();
        let Some(length) = closed.map(|end| end + 2) else {
            // To the end of its line, as is one that is never closed.
            let sign = match rest.trim_start_matches('/') {
                star if star.starts_with('*') => 2,
                comment => rest.len() - comment.len(),
            };
            let edit = Edit { span: Span::new(start, start + sign), text: "#".into() };
            let comment = rest[sign..line_length(rest)].trim();
            self.problems.push(
                problem(edit.span, &rest[..2])
                    .help(format!("write `{}`", format!("# {comment}").trim_end()))
                    .fix_with([edit.clone()]),
            );
            self.changes.push(edit);
            self.at += line_length(rest);
            return;
        };
        let span = Span::new(start, start + length);
        let inner = rest[2..length].strip_suffix("*/").unwrap_or(&rest[2..length]);
        let lines: Vec<&str> = inner.lines().map(|line| line.trim().trim_start_matches('*').trim()).collect();
        let full = |line: &&str| !line.is_empty();
        let first = lines.iter().position(full).unwrap_or(0);
        let last = lines.iter().rposition(full).map_or(first, |last| last + 1);
        let lines = lines[first..last].iter().map(|line| format!("# {line}").trim_end().to_owned());
        let mut text = lines.collect::<Vec<_>>().join("\n");
        let behind = &rest[length..];
        if !behind[..line_length(behind)].trim().is_empty() {
            text.push('\n');
        }
        self.problems.push(
            problem(Span::new(start, start + 2), "/*").help("begin each line of it with `#`").fix(span, text),
        );
        self.changes.push(Edit { span, text: format!(" {}", "\n".repeat(inner.matches('\n').count())) });
        self.at += length;
    }

    /// A word, perhaps with letters of other alphabets.
    fn word(&mut self) {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-') || letter(c).is_some();
        let length = self.rest().find(|c| !is_part(c)).unwrap_or(self.rest().len());
        let (word, start) = (&self.rest()[..length], self.at);
        self.at += length;
        let mut edits = Vec::new();
        let mut names = Vec::new();
        let mut meant = String::new();
        for (i, char) in word.char_indices() {
            let Some((plain, script)) = letter(char) else {
                meant.push(char);
                continue;
            };
            let span = Span::new(start + i, start + i + char.len_utf8());
            edits.push(Edit { span, text: plain.to_string() });
            let name = format!("the {script} `{char}` ({})", code_point(char));
            if !names.contains(&name) {
                names.push(name);
            }
            meant.push(plain);
        }
        if edits.is_empty() {
            return;
        }
        let message = match names.len() {
            1..4 => format!("`{word}` only looks like `{meant}`: it holds {}", joined(&names, "and")),
            _ => format!("`{word}` only looks like `{meant}`: it holds {} and others", names[0]),
        };
        self.problems.push(
            Problem::new("hift::lang::lookalike", message)
                .label(Span::new(start, self.at), "letters of another alphabet")
                .help(format!("write `{meant}`"))
                .fix_with(edits.clone()),
        );
        self.changes.extend(edits);
    }

    /// Signs that are none of the language. Several of a kind in a row are one mistake.
    fn sign(&mut self, char: char) {
        let Some((_, name)) = sign(char) else {
            self.at += char.len_utf8();
            return;
        };
        let start = self.at;
        let mut plain = String::new();
        let mut edits = Vec::new();
        for char in self.rest().chars() {
            let Some((instead, _)) = sign(char).filter(|(_, own)| *own == name) else { break };
            let end = self.at + char.len_utf8();
            edits.push(Edit { span: Span::new(self.at, end), text: instead.into() });
            plain.push_str(instead);
            self.at = end;
        }
        let span = Span::new(start, self.at);
        let written = &self.text[start..self.at];
        let code = code_point(char);
        let is_space = plain.chars().all(|c| c == ' ');
        let (message, label, help) = match plain.as_str() {
            "" => {
                (format!("here stands {name} ({code})"), "cannot be seen".to_owned(), "remove it".to_owned())
            }
            "\n" => (
                format!("here stands {name} ({code})"),
                "looks like the end of a line".into(),
                "end the line with the Enter key".into(),
            ),
            _ if is_space => (
                format!("here stands {name} ({code})"),
                "looks like a space".into(),
                "write an ordinary space".into(),
            ),
            _ => (
                format!("`{written}` ({code}) is {name}, not `{plain}`"),
                format!("looks like `{plain}`"),
                format!("write `{plain}`"),
            ),
        };
        self.problems.push(
            Problem::new("hift::lang::lookalike", message)
                .label(span, label)
                .help(help)
                .fix_with(edits.clone()),
        );
        self.changes.extend(edits);
    }
}

fn line_length(rest: &str) -> usize {
    rest.find(['\n', '\r']).unwrap_or(rest.len())
}

fn code_point(char: char) -> String {
    format!("U+{:04X}", u32::from(char))
}

fn is_control(char: char) -> bool {
    char.is_control() && !matches!(char, '\t' | '\n' | '\r')
}

/// The letter that a letter of another alphabet looks like, and that alphabet.
fn letter(char: char) -> Option<(char, &'static str)> {
    const CYRILLIC: &str = "аaеeоoрpсcуyхxіiјjѕsһhԁdԛqԝwкkмmтtвbнhАAВBЕEКKМMНHОOРPСCТTУYХXІIЈJЅSԚQԜW";
    const GREEK: &str = "οoαaρpνvυuτtκkιiεeΑAΒBΕEΖZΗHΙIΚKΜMΝNΟOΡPΤTΥYΧX";
    const LATIN: &str = "ıiɑaɡgℓlⅼlⅰi";
    let find = |table: &str| {
        let mut chars = table.chars();
        while let (Some(other), Some(plain)) = (chars.next(), chars.next()) {
            if other == char {
                return Some(plain);
            }
        }
        None
    };
    if char.is_ascii() {
        return None;
    }
    if ('\u{FF21}'..='\u{FF3A}').contains(&char) || ('\u{FF41}'..='\u{FF5A}').contains(&char) {
        return char::from_u32(u32::from(char) - 0xFEE0).map(|plain| (plain, "full-width"));
    }
    if let Some(plain) = find(CYRILLIC) {
        return Some((plain, "Cyrillic"));
    }
    find(GREEK).map(|plain| (plain, "Greek")).or_else(|| find(LATIN).map(|plain| (plain, "Latin")))
}

/// What a sign looks like, and what it is called.
fn sign(char: char) -> Option<(&'static str, &'static str)> {
    Some(match char {
        '\u{A0}' | '\u{202F}' => (" ", "a no-break space"),
        '\u{3000}' => (" ", "an ideographic space"),
        '\u{1680}' | '\u{2000}'..='\u{200A}' | '\u{205F}' => (" ", "a space of another width"),
        '\u{B}' | '\u{C}' => (" ", "a control character"),
        '\u{2028}' | '\u{2029}' | '\u{85}' => ("\n", "a line separator"),
        '\u{200B}' => ("", "a zero-width space"),
        '\u{200C}' | '\u{200D}' | '\u{2060}' => ("", "a character of no width"),
        '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => {
            ("", "a mark that turns the direction of writing")
        }
        '\u{AD}' => ("", "a soft hyphen"),
        _ if is_control(char) => ("", "a control character"),
        '–' | '—' | '−' | '‐' | '‑' | '‒' | '－' | '﹣' => ("-", "a dash"),
        '×' | '✕' | '∗' | '⋅' => ("*", "a sign for times"),
        '÷' | '∕' | '⁄' => ("/", "a sign for division"),
        '…' | '‥' => ("..", "an ellipsis"),
        '٪' | '﹪' => ("%", "another percent sign"),
        '、' | '،' => (",", "a comma of another script"),
        '｛' | '❴' => ("{", "another brace"),
        '｝' | '❵' => ("}", "another brace"),
        '【' | '［' | '〔' => ("[", "another bracket"),
        '】' | '］' | '〕' => ("]", "another bracket"),
        '\u{FF01}'..='\u{FF5E}' => {
            const ASCII: &str = "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~";
            let i = (u32::from(char) - 0xFF01) as usize;
            (&ASCII[i..=i], "a full-width character")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn a_place_in_the_plain_text_is_found_in_the_original() {
        let text = "mоdel\u{200B} x\u{A0}{ a＝‘b’ }";
        let plain = plain(text).expect("there is something to find");
        assert_eq!(plain.text, "model x { a=\"b\" }");
        for (plain_part, part) in [("model", "mоdel"), ("{", "{"), ("a", "a"), ("\"b\"", "‘b’"), ("}", "}")]
        {
            // From the end, since `model` holds no second `a`.
            let start = plain.text.find(plain_part).unwrap_or_else(|| panic!("{plain_part} is there"));
            let (from, to) = (plain.place(start), plain.place(start + plain_part.len()));
            assert_eq!(text[from..to].trim_end_matches('\u{200B}'), part);
        }
    }

    #[test]
    fn what_a_text_or_a_comment_holds_is_left_alone() {
        let check = |text: &str| assert!(plain(text).is_none(), "{text}");
        check("a = \"“е”, 'b' // c\" # “е” 'd'");
        check("a = 4 / 2");
        check("a = models/llama");
        check("a = \"it is not closed “");
    }
}
