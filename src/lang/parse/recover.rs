//! Where the text is not what the grammar wants: what was read of it is kept, the rest is skipped up to the next
//! entry or block.

use crate::problem::Span;

use super::{Driver, Rule};
use crate::lang::scan::{Scan, Token};
use crate::lang::syntax::{Block, File, Item, Let, Number, Term, Value};
use crate::lang::{schema, wording};

impl<'t> Driver<'t> {
    /// Something that begins no item: says why, and reads on as it was meant where that is plain.
    pub(super) fn slip(&mut self, file: &mut File) -> Option<Item> {
        if let Some(block) = self.closed_too_early(file) {
            return Some(Item::Block(block));
        }
        let index = self.index();
        let start = self.span().start;
        let token = |i: usize| self.scan.token(index + i);
        let known = token(0) == Token::Word && schema::kind(self.scan.word(index)).is_some();
        // `train sft` without its brace, but with entries below: read on as if it stood there.
        let braceless = known
            && (1..3).all(|i| token(i) == Token::Word)
            && matches!(token(3), Token::Equals | Token::Other(':'));
        let braces = wording::block_with_sign(&self.scan, index);
        let version = wording::misspelt_header(&self.scan, index);
        if let Some(value) = wording::let_without_equals(&self.scan, index) {
            self.problems.push(wording::item(&self.scan, index));
            self.step();
            let name = self.take_word();
            self.at = self.scan.span(value).start;
            let value = self.loose_value(value)?;
            let span = Span::new(start, value.span.end);
            return Some(Item::Let(Let { doc: self.doc(start), name, value, span }));
        }
        self.problems.push(wording::item(&self.scan, index));
        match token(0) {
            Token::Word if braceless || braces => {
                let block = self.block();
                file.damaged |= braceless;
                return Some(Item::Block(block));
            }
            Token::Word if version.is_some() => {
                file.version = file.version.take().or(Some(Value {
                    term: Term::Number(Number { text: "1".into(), value: 1.0 }),
                    span: self.span(),
                }));
                self.at = version.map_or(start, |span| span.end);
            }
            Token::Comma | Token::Other(';') => self.step(),
            // A file of JSON.
            Token::Open('{') if self.scan.closing(start).is_some() => {
                self.at = self.scan.closing(start).unwrap_or(start);
            }
            // A table of TOML: what stands below belongs to it.
            Token::Open('[') => self.skip_table(),
            _ => self.skip_item(),
        }
        None
    }

    /// Entries behind a block, with a brace below that closes nothing: the block goes on here.
    fn closed_too_early(&mut self, file: &mut File) -> Option<Block> {
        let index = self.index();
        let here = self.span().start;
        let behind = index > 0 && self.scan.token(index - 1) == Token::Close('{');
        let entry = self.scan.token(index) == Token::Word && self.scan.token(index + 1) == Token::Equals;
        let end = self.scan.item_behind(here);
        let next = self.scan.strays.partition_point(|at| *at < here);
        let stray = self.scan.strays.get(next).is_some_and(|at| *at < end);
        if !behind || !entry || !stray || !matches!(file.items.last(), Some(Item::Block(_))) {
            return None;
        }
        let Some(Item::Block(block)) = file.items.pop() else { return None };
        self.problems.push(wording::closed_too_early(&self.scan, &block.title(), index));
        let first = self.scan.index(block.span.start);
        let brace = (first..index).find(|i| self.scan.token(*i) == Token::Open('{')).unwrap_or(first);
        Some(self.block_body(block, first, self.scan.span(brace)))
    }

    /// Goes on at the next item that is one, or at the next `[`, behind a table of TOML.
    fn skip_table(&mut self) {
        self.skip_item();
        while self.token() != Token::End
            && self.token() != Token::Open('[')
            && self.scan.item_at(self.index()).is_none()
        {
            self.skip_item();
        }
    }

    /// Reads a value behind something that should have been `=`, which has been said.
    pub(super) fn loose_value(&mut self, first: usize) -> Option<Value> {
        let start = self.scan.span(first).start;
        let problem = match self.read(Rule::value, start) {
            Ok(pair) => match self.value(pair, start) {
                Ok(value) => return Some(value),
                Err(problem) => problem,
            },
            Err(failed_at) => {
                let problem = wording::value(&self.scan, None, start, failed_at);
                self.skip_value(first.saturating_sub(2), start, failed_at);
                problem
            }
        };
        self.problems.push(problem);
        None
    }

    /// Goes on behind a value that could not be read.
    pub(super) fn skip_value(&mut self, name: usize, start: usize, failed_at: usize) {
        // Inside brackets that are closed: behind them. Inside one that is not: at the next entry behind it.
        let mut outer = None;
        let mut around = failed_at;
        while let Some(open) = self.scan.bracket_around(start, around) {
            (outer, around) = (Some(open), open);
        }
        match outer.map(|open| (open, self.scan.closing(open))) {
            Some((_, Some(end))) if end > failed_at => self.at = end,
            Some((open, _)) => self.skip_entry_from(self.scan.index(open) + 1, true),
            None => {
                // Behind `name =`; a value that is missing altogether skips nothing more.
                let behind = name + 2;
                let failed = self.scan.index(failed_at).max(behind);
                let on_line = !self.scan.leads(failed) && self.scan.token(failed + 1) == Token::Open('{');
                match self.begins_entry(failed) {
                    // `split = named { ... }`: the braces were meant as the value.
                    true if on_line => self.skip_entry(failed + 1),
                    true => self.at = self.scan.span(failed).start,
                    false => self.skip_entry(failed),
                }
            }
        }
    }

    /// Goes on at the next entry, block or closing brace behind a token.
    pub(super) fn skip_entry(&mut self, index: usize) {
        match self.scan.token(index) {
            Token::Open(_) => match self.scan.closing(self.scan.span(index).start) {
                Some(end) => self.at = end,
                None => self.skip_entry_from(index + 1, true),
            },
            Token::Close('{') | Token::End => self.at = self.scan.span(index).start,
            _ => self.skip_entry_from(index + 1, false),
        }
    }

    fn skip_entry_from(&mut self, mut index: usize, own_line: bool) {
        loop {
            let token = self.scan.token(index);
            let here = match token {
                Token::End | Token::Close('{') => true,
                Token::Word if own_line => self.begins_entry(index) && self.scan.leads(index),
                Token::Word => self.begins_entry(index) || self.scan.leads(index),
                Token::Text => self.scan.leads(index) && self.scan.token(index + 1) == Token::Equals,
                _ => false,
            };
            if here {
                let span = self.scan.span(index);
                self.at = if token == Token::End { span.end } else { span.start };
                return;
            }
            index = match token {
                Token::Open(_) => match self.scan.closing(self.scan.span(index).start) {
                    Some(end) => self.scan.index(end),
                    None => index + 1,
                },
                _ => index + 1,
            };
        }
    }

    pub(super) fn begins_entry(&self, index: usize) -> bool {
        self.scan.token(index) == Token::Word
            && (matches!(self.scan.token(index + 1), Token::Equals | Token::Open('{'))
                || self.scan.begins_item(index))
    }

    /// Goes on at the first token of the next line, outside of the brackets in between.
    pub(super) fn skip_line(&mut self) {
        self.skip_to(|scan, index| scan.leads(index));
    }

    /// Goes on at the next token that stands at the very left, outside of the brackets in between.
    pub(super) fn skip_item(&mut self) {
        self.skip_to(|scan, index| scan.leads(index) && scan.indent(index) == 0);
    }

    fn skip_to(&mut self, is_it: impl Fn(&Scan<'_>, usize) -> bool) {
        let mut index = self.index() + 1;
        while self.scan.token(index) != Token::End && !is_it(&self.scan, index) {
            index = match self.scan.token(index) {
                Token::Open(_) => match self.scan.closing(self.scan.span(index).start) {
                    Some(end) => self.scan.index(end),
                    None => index + 1,
                },
                _ => index + 1,
            };
        }
        let span = self.scan.span(index);
        self.at = if self.scan.token(index) == Token::End { span.end } else { span.start };
    }
}
