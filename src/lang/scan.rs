//! A file as a row of tokens, and which bracket belongs to which: what the parser steers by when the
//! grammar does not match. It never fails.

use std::collections::HashMap;

use crate::problem::Span;

use super::schema;

/// Brackets inside brackets, at most. Deeper nesting is refused before the grammar sees it.
pub(super) const MAX_DEPTH: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    Word,
    Number,
    Text,
    /// A text whose closing quote is missing on its line.
    OpenText,
    Open(char),
    Close(char),
    Equals,
    Comma,
    Other(char),
    End,
}

/// What stands at the top level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starts {
    Import,
    Param,
    Let,
    Block,
}

/// The tokens of a text; positions are bytes.
pub struct Scan<'t> {
    pub text: &'t str,
    tokens: Vec<(Token, Span)>,
    /// From `#` to the end of the line, which is not part of it.
    pub comments: Vec<Span>,
    /// For each opening bracket that is closed, the byte behind its closing one.
    closed: HashMap<usize, usize>,
    /// Opening brackets that are never closed.
    pub unclosed: Vec<usize>,
    /// Closing brackets that close nothing, in the order of the text.
    pub strays: Vec<usize>,
    /// Where items of the top level begin at the very left.
    items: Vec<usize>,
    /// The first bracket beyond [`MAX_DEPTH`].
    pub too_deep: Option<usize>,
}

impl<'t> Scan<'t> {
    pub fn new(text: &'t str) -> Self {
        let (tokens, comments) = tokens(text);
        let mut scan = Self {
            text,
            tokens,
            comments,
            closed: HashMap::new(),
            unclosed: Vec::new(),
            strays: Vec::new(),
            items: Vec::new(),
            too_deep: None,
        };
        scan.match_brackets();
        scan
    }

    /// The index of the first token at or behind `at`.
    pub fn index(&self, at: usize) -> usize {
        self.tokens.partition_point(|(_, span)| span.start < at)
    }

    pub fn token(&self, index: usize) -> Token {
        self.tokens.get(index).map_or(Token::End, |(token, _)| *token)
    }

    /// The place of a token; behind the last one, the place of the last one's end.
    pub fn span(&self, index: usize) -> Span {
        match self.tokens.get(index) {
            Some((_, span)) => *span,
            None => self.tokens.last().map_or(Span::new(0, 0), |(_, last)| Span::new(last.end, last.end)),
        }
    }

    pub fn word(&self, index: usize) -> &'t str {
        let span = self.span(index);
        &self.text[span.start..span.end]
    }

    /// Whether the token is the first on its line.
    pub fn leads(&self, index: usize) -> bool {
        self.text[..self.span(index).start]
            .chars()
            .rev()
            .take_while(|c| !matches!(c, '\n' | '\r'))
            .all(is_space)
    }

    /// The column of the first token on the token's line.
    pub fn indent(&self, index: usize) -> usize {
        let start = self.text[..self.span(index).start].rfind(['\n', '\r']).map_or(0, |at| at + 1);
        self.text[start..].chars().take_while(|c| is_space(*c)).count()
    }

    /// What the tokens from here on begin at the top level.
    pub fn item_at(&self, index: usize) -> Option<Starts> {
        if self.token(index) != Token::Word {
            return None;
        }
        match (self.word(index), self.token(index + 1), self.token(index + 2)) {
            ("import", Token::Text | Token::OpenText, _) => Some(Starts::Import),
            ("let", Token::Word, Token::Equals) => Some(Starts::Let),
            (_, Token::Open('{'), _) | (_, Token::Word, Token::Open('{')) => Some(Starts::Block),
            ("param", Token::Word, _) if !self.leads(index + 1) => Some(Starts::Param),
            (_, Token::Word, Token::Equals) if self.has_base(index + 2) => Some(Starts::Block),
            _ => None,
        }
    }

    /// Whether `= BASE {` stands here.
    pub fn has_base(&self, index: usize) -> bool {
        (self.token(index), self.token(index + 1), self.token(index + 2))
            == (Token::Equals, Token::Word, Token::Open('{'))
    }

    /// Whether an item of the top level begins here, at the very left.
    pub fn begins_item(&self, index: usize) -> bool {
        self.leads(index)
            && self.indent(index) == 0
            && match self.item_at(index) {
                Some(Starts::Block) => {
                    let named = self.token(index + 1) == Token::Word;
                    let word = self.word(index);
                    named && (schema::kind(word).is_some() || word == schema::PROFILE)
                }
                Some(Starts::Import | Starts::Param | Starts::Let) => true,
                None => false,
            }
    }

    /// Where the next item of the top level begins at the very left, or the text ends.
    pub fn item_behind(&self, at: usize) -> usize {
        let next = self.items.partition_point(|item| *item <= at);
        self.items.get(next).copied().unwrap_or(self.text.len())
    }

    /// The innermost bracket that is open at `at`, of those that open at or behind `from`.
    pub fn bracket_around(&self, from: usize, at: usize) -> Option<usize> {
        let mut open = Vec::new();
        for (token, span) in &self.tokens[self.index(from)..self.index(at)] {
            match token {
                Token::Open(_) => open.push(span.start),
                Token::Close(_) => {
                    open.pop();
                }
                _ => {}
            }
        }
        open.pop()
    }

    /// The byte behind the bracket that closes the one at `open`.
    pub fn closing(&self, open: usize) -> Option<usize> {
        self.closed.get(&open).copied()
    }

    fn match_brackets(&mut self) {
        let mut open: Vec<(usize, char)> = Vec::new();
        for index in 0..self.tokens.len() {
            if self.token(index) == Token::Word && self.begins_item(index) {
                self.unclosed.extend(open.drain(..).map(|(at, _)| at));
                self.items.push(self.tokens[index].1.start);
            }
            let (token, span) = self.tokens[index];
            match token {
                Token::Open(bracket) => {
                    open.push((span.start, bracket));
                    if open.len() > MAX_DEPTH {
                        // Nobody looks at the rest.
                        self.too_deep = Some(span.start);
                        break;
                    }
                }
                Token::Close(bracket) => {
                    // A brace closes lists that were forgotten; a list never closes a block.
                    let partner = open
                        .iter()
                        .rposition(|(_, other)| *other == bracket || *other == '{')
                        .filter(|i| open[*i].1 == bracket);
                    match partner {
                        Some(partner) => {
                            self.unclosed.extend(open.drain(partner + 1..).map(|(at, _)| at));
                            self.closed.insert(open[partner].0, span.end);
                            open.pop();
                        }
                        None => self.strays.push(span.start),
                    }
                }
                _ => {}
            }
        }
        self.unclosed.extend(open.drain(..).map(|(at, _)| at));
    }
}

fn is_space(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\u{FEFF}')
}

/// The tokens and the comments.
fn tokens(text: &str) -> (Vec<(Token, Span)>, Vec<Span>) {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let (mut tokens, mut comments) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(char) = text[at..].chars().next() {
        let rest = &text[at..];
        let run = |wanted: &dyn Fn(char) -> bool| rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        let (token, length) = match char {
            ' ' | '\t' | '\n' | '\r' | '\u{FEFF}' => {
                at += char.len_utf8();
                continue;
            }
            '#' => {
                let length = run(&|c| !matches!(c, '\n' | '\r'));
                comments.push(Span::new(at, at + length));
                at += length;
                continue;
            }
            '"' => match text_length(rest) {
                Ok(length) => (Token::Text, length),
                Err(length) => (Token::OpenText, length),
            },
            'a'..='z' | 'A'..='Z' | '_' => (Token::Word, run(&is_letter)),
            '0'..='9' => (Token::Number, number_length(rest)),
            '-' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                (Token::Number, 1 + number_length(&rest[1..]))
            }
            // A closing bracket is known by the one that opens it.
            '(' | '[' | '{' => (Token::Open(char), 1),
            ')' => (Token::Close('('), 1),
            ']' => (Token::Close('['), 1),
            '}' => (Token::Close('{'), 1),
            '=' => (Token::Equals, 1),
            ',' => (Token::Comma, 1),
            other => (Token::Other(other), other.len_utf8()),
        };
        tokens.push((token, Span::new(at, at + length)));
        at += length;
    }
    (tokens, comments)
}

/// The length of the text that begins here, or, where it does not end on its line, of the rest of the line.
fn text_length(rest: &str) -> Result<usize, usize> {
    let mut escaped = false;
    for (i, char) in rest.char_indices().skip(1) {
        match char {
            '\n' | '\r' => return Err(i),
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Ok(i + 1),
            _ => {}
        }
    }
    Err(rest.len())
}

fn number_length(rest: &str) -> usize {
    let digits = |from: usize| {
        let count = rest[from..].bytes().take_while(|b| b.is_ascii_digit() || *b == b'_').count();
        let starts = rest[from..].starts_with(|c: char| c.is_ascii_digit());
        if starts { count } else { 0 }
    };
    let mut end = digits(0);
    if rest[end..].starts_with('.') && digits(end + 1) > 0 {
        end += 1 + digits(end + 1);
    }
    if rest[end..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
        let exponent = digits(end + 1 + sign);
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    end
}
