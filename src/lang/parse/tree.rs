//! What the grammar has matched, as nodes of the tree.

use pest::Parser as _;
use pest::error::InputLocation;
use pest::iterators::Pair;

use crate::problem::{Problem, Span};

use super::{Driver, Grammar, Rule};
use crate::lang::scan::{MAX_DEPTH, Token};
use crate::lang::syntax::{Argument, Entry, Factor, Name, Number, Param, Piece, Range, Sign, Term, Value};
use crate::lang::wording;

impl<'t> Driver<'t> {
    pub(super) fn param_parts(&self, pair: Pair<'_, Rule>, start: usize) -> Result<Param, Problem> {
        let span = node_span(&pair, start);
        let mut name = None;
        let (mut types, mut range, mut value) = (Vec::new(), None, None);
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::name => name = Some(node_name(&part, start)),
                Rule::types => {
                    for choice in part.into_inner().filter(|part| part.as_rule() == Rule::choice) {
                        let inner = choice.into_inner().next().expect("a choice has content");
                        types.push(self.factor(inner, start)?);
                    }
                }
                Rule::range => {
                    let span = node_span(&part, start);
                    let (mut low, mut high, mut behind) = (None, None, false);
                    for part in part.into_inner() {
                        match part.as_rule() {
                            Rule::dots => behind = true,
                            Rule::bound => {
                                let inner = part.into_inner().next().expect("a bound has content");
                                let bound = Some(self.factor(inner, start)?);
                                *(if behind { &mut high } else { &mut low }) = bound;
                            }
                            _ => {}
                        }
                    }
                    range = Some(Range { low, high, span });
                }
                Rule::value => value = Some(self.value(part, start)?),
                _ => {}
            }
        }
        let name = name.expect("a param has a name");
        Ok(Param { doc: self.doc(start), name, types, range, value, span })
    }

    /// A byte that what is read at `start` does not go beyond: behind the `=` of the next entry or the bracket
    /// that closes its block, or where the next item of the top level begins.
    fn end_of_rule(&self, rule: Rule, start: usize) -> usize {
        let item = self.scan.item_behind(start);
        // Its own `=` comes first.
        let mut is_own = matches!(rule, Rule::entry | Rule::binding | Rule::param);
        // A value may begin with a bracket, everything else does with a word.
        let mut index = self.scan.index(start);
        loop {
            let (token, span) = (self.scan.token(index), self.scan.span(index));
            if token == Token::End || span.start >= item {
                return item;
            }
            match token {
                Token::Equals if is_own => is_own = false,
                Token::Equals => return span.end,
                Token::Open(_) => match self.scan.closing(span.start) {
                    Some(end) => {
                        index = self.scan.index(end);
                        continue;
                    }
                    // What follows may be meant as a part of it.
                    None => return item,
                },
                // Of the block around it.
                Token::Close(_) => return span.end,
                Token::Word | Token::Number | Token::Text | Token::OpenText => {}
                Token::Comma | Token::Other(_) | Token::End => {}
            }
            index += 1;
        }
    }

    /// Reads one rule at `start` and goes on behind it; or the byte at which the grammar gave up.
    pub(super) fn read(&mut self, rule: Rule, start: usize) -> Result<Pair<'t, Rule>, usize> {
        // pest looks through all the text that it is given: no more than this could take.
        let text = &self.scan.text[start..self.end_of_rule(rule, start)];
        match Grammar::parse(rule, text) {
            Ok(mut pairs) => {
                let pair = pairs.next().expect("a rule that matches has a pair");
                self.at = start + pair.as_span().end();
                Ok(pair)
            }
            Err(error) => {
                let (InputLocation::Pos(at) | InputLocation::Span((at, _))) = error.location;
                // pest looks one token too far at a word that turns out to begin the next entry.
                let index = self.scan.index(start + at);
                let begins_next = matches!(self.scan.token(index), Token::Equals | Token::Open('{'))
                    && index > self.scan.index(start) + 1
                    && self.scan.token(index - 1) == Token::Word;
                Err(if begins_next { self.scan.span(index - 1).start } else { start + at })
            }
        }
    }

    // From the grammar's pairs to our own nodes. `start` is where the text began that the pair was read from.

    /// `hift 1`
    pub(super) fn header(&self, pair: Pair<'_, Rule>, start: usize) -> Result<Value, Problem> {
        let version = pair.into_inner().nth(1).expect("a header has a number");
        Ok(Value { term: Term::Number(number(&version, start)?), span: node_span(&version, start) })
    }

    /// `param NAME = value` and `name = value`.
    pub(super) fn entry(&self, pair: Pair<'_, Rule>, start: usize) -> Result<Entry, Problem> {
        let (mut name, mut value) = (None, None);
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::name => name = Some(node_name(&part, start)),
                Rule::value => value = Some(self.value(part, start)?),
                _ => {}
            }
        }
        let (Some(name), Some(value)) = (name, value) else {
            unreachable!("an entry has a name and a value")
        };
        Ok(Entry { name, value })
    }

    pub(super) fn value(&self, pair: Pair<'_, Rule>, start: usize) -> Result<Value, Problem> {
        let span = node_span(&pair, start);
        let mut terms: Vec<(Sign, Value)> = Vec::new();
        let mut sign = Sign::Plus;
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::plus => sign = Sign::Plus,
                Rule::minus => sign = Sign::Minus,
                _ => terms.push((sign, self.product(part, start)?)),
            }
        }
        Ok(match terms.len() {
            1 => terms.remove(0).1,
            _ => Value { term: Term::Sum(terms), span },
        })
    }

    fn product(&self, pair: Pair<'_, Rule>, start: usize) -> Result<Value, Problem> {
        let span = node_span(&pair, start);
        let mut factors: Vec<(Factor, Value)> = Vec::new();
        let mut factor = Factor::Times;
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::times => factor = Factor::Times,
                Rule::over => factor = Factor::Over,
                _ => {
                    let inner = part.into_inner().next().expect("a factor has content");
                    factors.push((factor, self.factor(inner, start)?));
                }
            }
        }
        Ok(match factors.len() {
            1 => factors.remove(0).1,
            _ => Value { term: Term::Product(factors), span },
        })
    }

    fn factor(&self, inner: Pair<'_, Rule>, start: usize) -> Result<Value, Problem> {
        let span = node_span(&inner, start);
        let term = match inner.as_rule() {
            Rule::number => Term::Number(number(&inner, start)?),
            Rule::amount | Rule::limit => {
                let mut parts = inner.into_inner();
                let (number_part, unit) = (parts.next(), parts.next());
                let (Some(number_part), Some(unit)) = (number_part, unit) else {
                    unreachable!("an amount has a number and a unit")
                };
                Term::Amount(number(&number_part, start)?, node_name(&unit, start))
            }
            Rule::text => self.text(inner.as_str(), span)?,
            Rule::boolean => Term::Boolean(inner.as_str() == "true"),
            Rule::word | Rule::name => Term::Word(inner.as_str().to_owned()),
            Rule::call => {
                let mut parts = inner.into_inner();
                let name = parts.next().expect("a call has a name");
                let arguments = parts
                    .filter(|part| part.as_rule() == Rule::argument)
                    .map(|part| self.argument(part, start))
                    .collect::<Result<_, _>>()?;
                Term::Call(node_name(&name, start), arguments)
            }
            Rule::list => Term::List(
                inner
                    .into_inner()
                    .filter(|part| part.as_rule() == Rule::value)
                    .map(|part| self.value(part, start))
                    .collect::<Result<_, _>>()?,
            ),
            Rule::record => Term::Record(self.entries(inner, start)?),
            Rule::negative => {
                let of = inner.into_inner().next().expect("something is negated");
                Term::Negative(Box::new(self.factor(of, start)?))
            }
            Rule::group => {
                let value = inner.into_inner().find(|part| part.as_rule() == Rule::value);
                return Ok(Value { span, ..self.value(value.expect("a group has a value"), start)? });
            }
            rule => unreachable!("{rule:?} is no value"),
        };
        Ok(Value { term, span })
    }

    pub(super) fn entries(&self, record: Pair<'_, Rule>, start: usize) -> Result<Vec<Entry>, Problem> {
        let entries = record.into_inner().filter(|part| part.as_rule() == Rule::entry);
        entries.map(|part| self.entry(part, start)).collect()
    }

    /// A text with its escapes replaced and its holes read. `span` is the literal with its quotes.
    pub(super) fn text(&self, literal: &str, span: Span) -> Result<Term, Problem> {
        let inner = &literal[1..literal.len() - 1];
        let mut pieces: Vec<Piece> = Vec::new();
        let mut text = String::with_capacity(inner.len());
        let mut at = 0;
        while let Some(char) = inner[at..].chars().next() {
            let (rest, from) = (&inner[at..], span.start + 1 + at);
            if rest.starts_with("${") {
                let Some(end) = rest.find('}') else {
                    return Err(wording::unclosed_hole(Span::new(from, from + 2)));
                };
                let hole = self.hole(&rest[2..end], from + 2)?;
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                }
                pieces.push(Piece::Hole(hole));
                at += end + 1;
            } else if char == '\\' {
                let (char, length) = escape(rest, from)?;
                text.push(char);
                at += length;
            } else {
                text.push(char);
                at += char.len_utf8();
            }
        }
        if pieces.is_empty() {
            return Ok(Term::Text(text));
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Ok(Term::Mixed(pieces))
    }

    /// What stands between `${` and `}`.
    fn hole(&self, text: &str, from: usize) -> Result<Value, Problem> {
        let span = Span::new(from, from + text.len());
        if text.matches(['(', '[']).count() > MAX_DEPTH {
            return Err(wording::too_deep(span, MAX_DEPTH));
        }
        let pair = Grammar::parse(Rule::hole, text).ok().and_then(|mut pairs| pairs.next());
        let value = pair.and_then(|hole| hole.into_inner().find(|part| part.as_rule() == Rule::value));
        match value {
            Some(value) => self.value(value, from),
            None => Err(wording::hole(span)),
        }
    }

    fn argument(&self, pair: Pair<'_, Rule>, start: usize) -> Result<Argument, Problem> {
        let inner = pair.into_inner().next().expect("an argument has content");
        match inner.as_rule() {
            Rule::entry => {
                let Entry { name, value } = self.entry(inner, start)?;
                Ok(Argument { name: Some(name), value })
            }
            _ => Ok(Argument { name: None, value: self.value(inner, start)? }),
        }
    }
}

/// The place of a pair, without the white space and comments that a rule takes in front of something optional.
pub(super) fn node_span(pair: &Pair<'_, Rule>, start: usize) -> Span {
    let mut end = pair.as_span().end();
    let mut last = pair.clone().into_inner().last();
    while let Some(inner) = last {
        end = inner.as_span().end();
        last = inner.into_inner().last();
    }
    Span::new(start + pair.as_span().start(), start + end)
}

fn node_name(pair: &Pair<'_, Rule>, start: usize) -> Name {
    Name { text: pair.as_str().to_owned(), span: node_span(pair, start) }
}

fn number(pair: &Pair<'_, Rule>, start: usize) -> Result<Number, Problem> {
    let text = pair.as_str().replace('_', "");
    let value: f64 = text.parse().unwrap_or(f64::INFINITY);
    if !value.is_finite() {
        return Err(wording::number_too_large(node_span(pair, start)));
    }
    Ok(Number { text, value })
}

/// The character that an escape at the start of `rest` stands for, and the escape's length.
fn escape(rest: &str, from: usize) -> Result<(char, usize), Problem> {
    let simple = match rest[1..].chars().next() {
        Some('n') => '\n',
        Some('t') => '\t',
        Some('r') => '\r',
        Some(same @ ('"' | '\\' | '$')) => same,
        Some('u') => {
            let code =
                rest[2..].strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(code, _)| code);
            let length = 2 + code.map_or(0, |code| code.len() + 2);
            let char = code.and_then(|code| u32::from_str_radix(code, 16).ok()).and_then(char::from_u32);
            return match char {
                Some(char) => Ok((char, length)),
                None => Err(wording::escape(Span::new(from, from + length), 'u')),
            };
        }
        other => {
            let other = other.unwrap_or('\\');
            return Err(wording::escape(Span::new(from, from + 1 + other.len_utf8()), other));
        }
    };
    Ok((simple, 2))
}
