//! What stands at a place of a text, or could be written there.
//!
//! It goes by tokens, not by the tree: where someone is writing, the tree has a hole.

use crate::lang::scan::{Scan, Token};
use crate::lang::schema::{self, Form, Function, Key, Kind};
use crate::problem::Span;

/// A place in a text.
#[derive(Debug, Clone)]
pub struct Place<'t> {
    /// The word that it is in; empty where there is none.
    pub word: Span,
    pub slot: Slot<'t>,
}

/// What belongs at a place.
#[derive(Debug, Clone)]
pub enum Slot<'t> {
    /// Nothing that is known beforehand: a comment, a new name.
    Free,
    /// A header, import, param, let or block.
    Item,
    /// Behind a kind at the top level: the block's own name.
    BlockName(&'t str),
    /// Behind `KIND NAME =`: the block that is taken over, of that kind, and not of that name.
    Base(&'t str, &'t str),
    ParamType,
    /// A key or part of a block; or, behind a number on its line, the number's unit.
    Key(Outer<'t>, Option<Asked<'t>>),
    /// A param or a kind of block, in a profile; with the token of its brace.
    Profiled(usize),
    /// Behind a kind in a profile: the name of a block that is there.
    ProfiledName(&'t str),
    Value(Asked<'t>),
    /// The name of an argument, or the value of one by position; with the token of its parenthesis.
    Argument(&'static Function, usize, Asked<'t>),
    /// A param of the file at that path, which an import gives a value.
    Given(&'t str),
    /// The path of an import, with the byte of its quote.
    Import(usize),
    /// Inside a text that answers a key, with the byte of its quote.
    Text(usize, Asked<'t>),
}

/// The block around a place.
#[derive(Debug, Clone, Copy)]
pub struct Outer<'t> {
    pub kind: Option<&'static Kind>,
    pub name: Option<&'t str>,
    /// The token of its opening brace.
    pub open: usize,
    /// It changes another block that says the rest: it has a base, or stands in a profile.
    pub changes: bool,
}

/// The question that a value at a place answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'t> {
    /// None for params and lets: anything.
    pub forms: Option<&'static [Form]>,
    pub key: Option<&'static Key>,
    /// The function whose argument it is.
    pub of: Option<&'static Function>,
    /// The key of the block, where `key` is an argument.
    pub entry: Option<&'static Key>,
    pub block: Option<Outer<'t>>,
    /// It is part of a calculation.
    pub calculated: bool,
    /// A number stands before it on the line: it is the unit.
    pub unit: bool,
}

impl<'t> Asked<'t> {
    fn within(self, forms: Option<&'static [Form]>) -> Self {
        Self { forms, calculated: false, unit: false, ..self }
    }

    fn list(self) -> Self {
        let inner = self.forms.map(|forms| {
            let inner = forms.iter().find_map(|form| match form {
                Form::List(inner, _) => Some(*inner),
                _ => None,
            });
            inner.unwrap_or(&[])
        });
        self.within(inner)
    }

    fn record(self) -> Self {
        let inner = self.forms.map(|forms| {
            let inner = forms.iter().find_map(|form| match form {
                Form::Record(inner, _) => Some(*inner),
                _ => None,
            });
            inner.unwrap_or(&[])
        });
        self.within(inner)
    }

    fn argument(self, function: &'static Function, key: Option<&'static Key>) -> Self {
        let forms = Some(key.map_or(&[][..], |key| key.takes));
        Self { key, of: Some(function), entry: self.entry.or(self.key), ..self.within(forms) }
    }

    /// The function of that name that may stand here.
    fn function(self, name: &str) -> Option<&'static Function> {
        match self.forms {
            Some(forms) => function_in(forms, name),
            None => function(name),
        }
    }
}

fn function_in(forms: &'static [Form], name: &str) -> Option<&'static Function> {
    forms.iter().find_map(|form| match form {
        Form::Function(function) if function.name == name => Some(*function),
        _ => None,
    })
}

/// Every key of the language.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    schema::KINDS.iter().flat_map(|kind| kind.keys.iter().chain(kind.parts.iter().flat_map(|part| part.keys)))
}

/// The first function of that name, where the key is not known.
pub fn function(name: &str) -> Option<&'static Function> {
    keys().find_map(|key| function_in(key.takes, name))
}

/// Something that is open at a place.
#[derive(Debug, Clone)]
enum Frame<'t> {
    Top,
    Block(Outer<'t>),
    Profile(usize),
    /// With the number of commas so far.
    Call(Option<&'static Function>, usize, usize),
    List,
    Record,
    Given(&'t str),
    Group,
}

impl Frame<'_> {
    fn bracket(&self) -> Option<char> {
        match self {
            Frame::Top => None,
            Frame::Block(_) | Frame::Profile(_) | Frame::Record | Frame::Given(_) => Some('{'),
            Frame::Call(..) | Frame::Group => Some('('),
            Frame::List => Some('['),
        }
    }
}

/// What is open, and what its next value answers: behind `=`, or anywhere in a list.
type Stack<'t> = Vec<(Frame<'t>, Option<Asked<'t>>)>;

/// The place at a byte. With `inside`, a word that begins there counts as the one that the place is in.
pub fn place<'t>(scan: &Scan<'t>, at: usize, inside: bool) -> Place<'t> {
    let text = scan.text;
    let mut index = scan.index(at);
    // The word that begins here, or the token that the place is in or right behind.
    let begins = matches!(scan.token(index), Token::Word | Token::Other('%')) && scan.span(index).start == at;
    if !(inside && begins) {
        index = index.saturating_sub(1);
    }
    let span = scan.span(index);
    let touches = span.start <= at && at <= span.end && (inside || span.start < at);
    let (word, before) = match scan.token(index) {
        Token::Word if touches => (span, index),
        Token::Other('%') if inside && touches && at < span.end => (span, index),
        Token::Text if span.start < at && at < span.end => {
            return in_text(scan, index, at);
        }
        Token::OpenText if span.start < at && at <= span.end => {
            return in_text(scan, index, at);
        }
        _ => (Span::new(at, at), scan.index(at)),
    };
    let gap = if before > 0 { scan.span(before - 1).end } else { 0 };
    let line = text.get(gap.min(word.start)..word.start).unwrap_or("");
    let is_comment = line.rsplit(['\n', '\r']).next().is_some_and(|line| line.contains('#'));
    if is_comment {
        return Place { word: Span::new(at, at), slot: Slot::Free };
    }
    Place { word, slot: slot(scan, before, word) }
}

fn in_text<'t>(scan: &Scan<'t>, index: usize, at: usize) -> Place<'t> {
    let start = scan.span(index).start;
    let written = &scan.text[start..at];
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let (asked, import) = asked(scan, index);
    let hole = written.rfind("${").filter(|hole| !written[*hole..].contains('}'));
    if hole.is_some() {
        let from = start + written.rfind(|c| !is_letter(c)).map_or(0, |at| at + 1);
        let rest = &scan.text[at..scan.span(index).end];
        let end = at + rest.find(|c| !is_letter(c)).unwrap_or(rest.len());
        let asked = Asked { forms: None, calculated: true, ..Asked::default() };
        return Place { word: Span::new(from, end), slot: Slot::Value(asked) };
    }
    let word = Span::new(at, at);
    if import {
        return Place { word, slot: Slot::Import(start) };
    }
    Place { word, slot: Slot::Text(start, asked.unwrap_or_default()) }
}

fn asked_by_position<'t>(
    function: &'static Function,
    position: usize,
    outer: Option<Asked<'t>>,
) -> Asked<'t> {
    let key = function.arguments.get(position);
    outer.unwrap_or_default().argument(function, key)
}

/// What a value in front of a token answers, and whether it is the path of an import.
fn asked<'t>(scan: &Scan<'t>, before: usize) -> (Option<Asked<'t>>, bool) {
    let mut stack = open(scan, before);
    let (frame, asked) = stack.pop().unwrap_or((Frame::Top, None));
    let behind = before.checked_sub(1);
    let import = matches!(frame, Frame::Top)
        && behind.is_some_and(|i| scan.token(i) == Token::Word && scan.word(i) == "import");
    let outer = stack.pop().and_then(|(_, asked)| asked);
    let asked = match (&frame, asked) {
        (Frame::Call(Some(function), _, position), None) => {
            Some(asked_by_position(function, *position, outer))
        }
        (_, asked) => asked,
    };
    (asked, import)
}

/// What is open in front of a token.
fn open<'t>(scan: &Scan<'t>, before: usize) -> Stack<'t> {
    let mut stack: Stack = vec![(Frame::Top, None)];
    for i in 0..before {
        let token = scan.token(i);
        if token == Token::Word && scan.begins_item(i) {
            stack.truncate(1);
            stack[0].1 = None;
        }
        let Some((frame, value)) = stack.last_mut() else { break };
        match token {
            Token::Word => {
                let begins = matches!(scan.token(i + 1), Token::Equals | Token::Open('{'));
                let item = matches!(frame, Frame::Top) && scan.leads(i);
                let entry = !matches!(frame, Frame::Top | Frame::List | Frame::Group);
                if item || (begins && entry) {
                    *value = None;
                }
            }
            Token::Equals => {
                let asked = match frame {
                    Frame::Record => Some(inner_of_record(&stack)),
                    _ => behind_equals(scan, i, &frame.clone(), stack_block(&stack)),
                };
                if let Some((_, value)) = stack.last_mut() {
                    *value = asked;
                }
            }
            Token::Comma => match frame {
                Frame::Call(_, _, commas) => {
                    *commas += 1;
                    *value = None;
                }
                Frame::Record | Frame::Given(_) => *value = None,
                Frame::Top | Frame::Block(_) | Frame::Profile(_) | Frame::List | Frame::Group => {}
            },
            Token::Open(bracket) => {
                let pushed = opened(scan, i, bracket, &stack);
                stack.push(pushed);
            }
            Token::Close(bracket) => {
                let partner = stack.iter().rposition(|(frame, _)| match frame.bracket() {
                    Some(own) => own == bracket || own == '{',
                    None => false,
                });
                if let Some(partner) = partner.filter(|i| stack[*i].0.bracket() == Some(bracket)) {
                    stack.truncate(partner);
                }
            }
            Token::Number | Token::Text | Token::OpenText | Token::Other(_) | Token::End => {}
        }
    }
    stack
}

fn stack_block<'t>(stack: &Stack<'t>) -> Option<Outer<'t>> {
    stack.iter().rev().find_map(|(frame, _)| match frame {
        Frame::Block(outer) => Some(*outer),
        _ => None,
    })
}

/// What the value behind the `=` at token `i` answers.
fn behind_equals<'t>(
    scan: &Scan<'t>,
    i: usize,
    frame: &Frame<'t>,
    block: Option<Outer<'t>>,
) -> Option<Asked<'t>> {
    let name = i.checked_sub(1).map_or("", |name| scan.word(name));
    let anything = Asked { forms: None, block, ..Asked::default() };
    Some(match frame {
        Frame::Block(outer) => {
            let key = outer.kind.and_then(|kind| kind.keys.iter().find(|key| key.name == name));
            Asked { forms: Some(key.map_or(&[], |key| key.takes)), key, ..anything }
        }
        Frame::Call(Some(function), ..) => {
            let key = function.arguments.iter().find(|key| key.name == name);
            anything.argument(function, key)
        }
        Frame::Call(None, ..) => Asked { forms: Some(&[]), ..anything },
        Frame::Top | Frame::Profile(_) | Frame::Given(_) => anything,
        Frame::Record | Frame::List | Frame::Group => return None,
    })
}

/// What the bracket at token `i` opens, and what a value right behind it answers.
fn opened<'t>(scan: &Scan<'t>, i: usize, bracket: char, stack: &Stack<'t>) -> (Frame<'t>, Option<Asked<'t>>) {
    let is = |back: usize, token: Token| i.checked_sub(back).is_some_and(|i| scan.token(i) == token);
    let word = |back: usize| i.checked_sub(back).map_or("", |i| scan.word(i));
    let (frame, value) = stack.last().cloned().unwrap_or((Frame::Top, None));
    // A value by position, or the one of the frame.
    let asked = match (&frame, value) {
        (Frame::Call(Some(function), _, position), None) => {
            asked_by_position(function, *position, stack.iter().rev().nth(1).and_then(|(_, asked)| *asked))
        }
        (_, value) => value.unwrap_or_default(),
    };
    let asked = Asked { block: asked.block.or(stack_block(stack)), ..asked };
    match bracket {
        '(' if is(1, Token::Word) => {
            let called = asked.function(word(1)).or_else(|| match value {
                None if matches!(frame, Frame::Block(_) | Frame::Top) => function(word(1)),
                _ => None,
            });
            // What the call answers stands in the frame around it.
            (Frame::Call(called, i, 0), None)
        }
        '(' => (Frame::Group, Some(Asked { calculated: true, ..asked })),
        '[' => (Frame::List, Some(asked.list())),
        _ => {
            let names = is(1, Token::Word);
            match frame {
                Frame::Top if is(1, Token::Text) => (Frame::Given(scan.word(i - 1)), None),
                Frame::Top if names => {
                    let has_base = is(2, Token::Equals) && is(3, Token::Word) && is(4, Token::Word);
                    let named = has_base || is(2, Token::Word);
                    let (kind, name) = match (has_base, named) {
                        (true, _) => (word(4), Some(word(3))),
                        (false, true) => (word(2), Some(word(1))),
                        (false, false) => (word(1), None),
                    };
                    if kind == schema::PROFILE {
                        return (Frame::Profile(i), None);
                    }
                    let kind = schema::kind(kind);
                    (Frame::Block(Outer { kind, name, open: i, changes: has_base }), None)
                }
                Frame::Block(outer) if names => {
                    let part =
                        outer.kind.and_then(|kind| kind.parts.iter().find(|part| part.name == word(1)));
                    let (kind, name) = match part {
                        Some(part) => (Some(part), None),
                        None if is(2, Token::Word) => (schema::kind(word(2)), Some(word(1))),
                        None => (None, None),
                    };
                    (Frame::Block(Outer { kind, name, open: i, changes: outer.changes }), None)
                }
                Frame::Profile(_) if names => {
                    let named = is(2, Token::Word);
                    let (kind, name) = if named { (word(2), Some(word(1))) } else { (word(1), None) };
                    let kind = schema::kind(kind);
                    (Frame::Block(Outer { kind, name, open: i, changes: true }), None)
                }
                _ => (Frame::Record, None),
            }
        }
    }
}

/// What a value of the innermost record answers: of the key around it, or of the argument by position.
fn inner_of_record<'t>(stack: &Stack<'t>) -> Asked<'t> {
    let mut outer = stack.iter().rev().skip(1);
    match outer.next() {
        Some((_, Some(value))) => value.record(),
        Some((Frame::Call(Some(function), _, position), None)) => {
            asked_by_position(function, *position, outer.next().and_then(|(_, asked)| *asked)).record()
        }
        Some((_, None)) | None => Asked { forms: Some(&[]), ..Asked::default() },
    }
}

fn slot<'t>(scan: &Scan<'t>, before: usize, word: Span) -> Slot<'t> {
    let mut stack = open(scan, before);
    let block = stack_block(&stack);
    let behind = before.checked_sub(1);
    let token = behind.map_or(Token::End, |i| scan.token(i));
    let end = behind.map_or(0, |i| scan.span(i).end);
    let same_line = behind.is_some() && !scan.text.get(end..word.start).unwrap_or("").contains(['\n', '\r']);
    let is_operator = matches!(token, Token::Other('+' | '-' | '*' | '/'));
    let is_unit = token == Token::Number && same_line;
    let outer = stack.iter().rev().nth(1).and_then(|(_, asked)| *asked);
    let Some((frame, value)) = stack.pop() else { return Slot::Item };
    let wanted = |asked: Asked<'t>| {
        let block = asked.block.or(block);
        Slot::Value(Asked { calculated: asked.calculated || is_operator, unit: is_unit, block, ..asked })
    };
    match (frame, value) {
        (Frame::Top, value) => at_top(scan, before, same_line, value.map(wanted)),
        (Frame::Block(_), Some(asked)) if token == Token::Equals || is_operator => wanted(asked),
        (Frame::Block(outer), value) => {
            Slot::Key(outer, value.filter(|_| is_unit).map(|asked| Asked { unit: true, ..asked }))
        }
        (Frame::Profile(_), Some(asked)) if token == Token::Equals || is_operator || is_unit => wanted(asked),
        (Frame::Profile(open), _) => match behind.map(|i| scan.word(i)) {
            Some(kind) if token == Token::Word && same_line && schema::kind(kind).is_some() => {
                Slot::ProfiledName(kind)
            }
            _ => Slot::Profiled(open),
        },
        (Frame::Call(..), Some(asked)) if token != Token::Comma => wanted(asked),
        (Frame::Call(Some(function), open, position), _) => {
            let asked = asked_by_position(function, position, outer);
            match is_operator || is_unit {
                true => wanted(asked),
                false => Slot::Argument(function, open, Asked { block: asked.block.or(block), ..asked }),
            }
        }
        (Frame::Call(None, ..), _) => wanted(Asked { forms: Some(&[]), ..Asked::default() }),
        (Frame::List | Frame::Group, value) => wanted(value.unwrap_or_default()),
        (Frame::Record, Some(asked)) if token == Token::Equals || is_operator => wanted(asked),
        (Frame::Record, _) => Slot::Free,
        (Frame::Given(_), Some(asked)) if token == Token::Equals || is_operator => wanted(asked),
        (Frame::Given(path), _) => Slot::Given(path),
    }
}

/// The slot outside of all brackets. `value` is that of a param or let whose value this may be.
fn at_top<'t>(scan: &Scan<'t>, before: usize, same_line: bool, value: Option<Slot<'t>>) -> Slot<'t> {
    let Some(behind) = before.checked_sub(1) else { return Slot::Item };
    let word = |back: usize| before.checked_sub(back).map_or("", |i| scan.word(i));
    let is = |back: usize, token: Token| before.checked_sub(back).is_some_and(|i| scan.token(i) == token);
    // The word that the line begins with says what it is.
    let first = (0..=behind).rev().find(|i| scan.leads(*i)).unwrap_or(0);
    let binds = matches!(scan.word(first), "param" | "let");
    match scan.token(behind) {
        Token::Equals if !binds && is(2, Token::Word) && is(3, Token::Word) => Slot::Base(word(3), word(2)),
        Token::Equals => value.unwrap_or(Slot::Free),
        Token::Other('+' | '-' | '*' | '/') => value.unwrap_or(Slot::Free),
        Token::Other(':' | '|') if binds => Slot::ParamType,
        _ if !same_line => Slot::Item,
        Token::Word if behind == first => match scan.word(behind) {
            "param" | "let" | "import" | "hift" => Slot::Free,
            kind => Slot::BlockName(kind),
        },
        Token::Number if binds => value.unwrap_or(Slot::Free),
        Token::Word if binds => Slot::Free,
        Token::Word => Slot::Free,
        _ => Slot::Item,
    }
}

/// The keys and parts of the block whose brace is token `open`, or the named arguments of the call whose parenthesis
/// it is, with their places, as far as they can be read.
pub fn written<'t>(scan: &Scan<'t>, open: usize) -> Vec<(&'t str, Span)> {
    let mut found = Vec::new();
    let mut depth = 0usize;
    let mut i = open + 1;
    loop {
        match scan.token(i) {
            Token::End => return found,
            Token::Word if scan.begins_item(i) => return found,
            Token::Word if depth == 0 && matches!(scan.token(i + 1), Token::Equals | Token::Open('{')) => {
                found.push((scan.word(i), scan.span(i)));
            }
            Token::Open(_) => depth += 1,
            Token::Close(_) if depth == 0 => return found,
            Token::Close(_) => depth -= 1,
            Token::Word | Token::Number | Token::Text | Token::OpenText => {}
            Token::Equals | Token::Comma | Token::Other(_) => {}
        }
        i += 1;
    }
}
