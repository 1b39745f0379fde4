//! A block and what stands in it, entry by entry.

use super::{Driver, Rule};
use crate::lang::scan::{Starts, Token};
use crate::lang::syntax::{Block, Entry, Name, Term, Value};
use crate::lang::{schema, too_many, wording};
use crate::problem::Span;

impl<'t> Driver<'t> {
    /// Reads `KIND NAME? {` and everything up to the closing brace.
    pub(super) fn block(&mut self) -> Block {
        let first = self.index();
        let doc = self.doc(self.span().start);
        let kind = self.take_word();
        let behind = self.index() + 1;
        let before_brace = self.scan.token(behind + 1) == Token::Open('{');
        let named = !matches!(self.scan.token(behind), Token::Equals | Token::Other(':'))
            || self.scan.has_base(behind)
            || before_brace;
        let name = match self.token() {
            Token::Word if named => Some(self.take_word()),
            // In quotes, which has been said.
            Token::Text if self.scan.token(behind) == Token::Open('{') => {
                let Name { text, span } = self.take_word();
                Some(Name { text: text.trim_matches('"').to_owned(), span })
            }
            _ => None,
        };
        // `data rows = {`, which has been said.
        if matches!(self.token(), Token::Equals | Token::Other(':'))
            && self.scan.token(self.index() + 1) == Token::Open('{')
        {
            self.step();
        }
        let base = self.scan.has_base(self.index()).then(|| {
            self.step();
            self.take_word()
        });
        let brace = self.span();
        let braced = self.token() == Token::Open('{');
        if braced {
            self.step();
        }
        let block = Block {
            span: kind.span,
            doc,
            kind,
            name,
            base,
            entries: Vec::new(),
            blocks: Vec::new(),
            damaged: !braced,
        };
        self.block_body(block, first, brace)
    }

    /// Reads what stands in a block, up to its closing brace. `first` is the token of its kind, `brace` the place of
    /// the brace that opens it, or of what stands there instead.
    pub(super) fn block_body(&mut self, mut block: Block, first: usize, brace: Span) -> Block {
        let braced = self.scan.token(self.scan.index(brace.start)) == Token::Open('{');
        // Only where braces do not pair up may the layout say which of them is missing.
        let by_layout = braced && !self.scan.unclosed.is_empty() && self.scan.leads(first);
        let is_part = block.name.is_none();
        loop {
            let here = self.span();
            if too_many(&mut self.problems, here) {
                block.damaged = true;
                return block;
            }
            let index = self.index();
            let unclosed = match self.token() {
                Token::End => true,
                Token::Word => {
                    // The indent is asked for last: a line may be long.
                    let outside = || is_part && self.scan.indent(index) <= self.scan.indent(first);
                    self.scan.begins_item(index) || (by_layout && self.scan.leads(index) && outside())
                }
                Token::Close('{') => {
                    by_layout && self.scan.leads(index) && self.scan.indent(index) < self.scan.indent(first)
                }
                _ => false,
            };
            if too_many(&mut self.problems, self.scan.span(index)) {
                block.damaged = true;
                self.at = self.scan.text.len();
                return block;
            }
            if unclosed {
                if braced {
                    self.problems.push(wording::unclosed_block(&self.scan, block.head(), brace, index));
                }
                block.damaged = true;
                block.span = block.span.to(Span::new(brace.start, self.at.max(brace.end)));
                return block;
            }
            match (self.token(), self.scan.token(index + 1)) {
                (Token::Close('{'), _) => {
                    self.step();
                    block.span.end = self.at;
                    return block;
                }
                // `checkpoint = often { ... }`
                (Token::Word, Token::Equals) if self.is_part(index) && self.scan.has_base(index + 1) => {
                    let inner = self.block();
                    block.blocks.push(inner);
                }
                (Token::Word, Token::Equals) if !wording::doubled_equals(&self.scan, index + 1) => {
                    match self.named_value(None) {
                        Some(entry) => block.entries.push(entry),
                        None => block.damaged = true,
                    }
                }
                (Token::Word, Token::Open('{')) => {
                    let inner = self.block();
                    block.blocks.push(inner);
                }
                (Token::Word, Token::Word) if self.scan.item_at(index) == Some(Starts::Block) => {
                    let inner = self.block();
                    block.blocks.push(inner);
                }
                (Token::Comma | Token::Other(';'), _) if self.separates(index) => {
                    self.problems.push(wording::astray(&self.scan, index));
                    self.step();
                }
                (Token::Comma, _)
                    if block
                        .entries
                        .last()
                        .is_some_and(|entry| entry.value.span.end == self.scan.span(index - 1).end) =>
                {
                    let entry = block.entries.pop().expect("there is one");
                    match self.values_in_a_row(entry) {
                        Some(entry) => block.entries.push(entry),
                        None => block.damaged = true,
                    }
                }
                _ => {
                    if let Some((name, value, problem)) = wording::slipped_entry(&self.scan, index) {
                        self.problems.push(problem);
                        match self.loose_value(value) {
                            Some(value) => block.entries.push(Entry { name, value }),
                            None => block.damaged = true,
                        }
                        continue;
                    }
                    block.damaged = true;
                    // What follows a value without a gap is part of it, so the value is not what was meant.
                    block.entries.pop_if(|entry| entry.value.span.end == self.scan.span(index).start);
                    self.problems.push(wording::entry(&self.scan, index));
                    match self.token() {
                        Token::Close('(' | '[') => self.step(),
                        _ => self.skip_entry(index),
                    }
                }
            }
        }
    }

    /// Whether a word is the kind of a block that stands inside another one.
    fn is_part(&self, index: usize) -> bool {
        let word = self.scan.word(index);
        schema::KINDS.iter().flat_map(|kind| kind.parts).any(|part| part.name == word)
    }

    /// Whether a comma or semicolon stands between two entries, or behind the last one.
    fn separates(&self, index: usize) -> bool {
        let next = index + 1;
        self.begins_entry(next)
            || self.scan.leads(next)
            || matches!(self.scan.token(next), Token::Close('{') | Token::End)
            || wording::slipped_entry(&self.scan, next).is_some()
    }

    /// `betas = 0.9, 0.999`: the entry with all its values, as the list that was meant.
    fn values_in_a_row(&mut self, entry: Entry) -> Option<Entry> {
        let comma = self.index();
        let mut values = vec![entry.value];
        while self.token() == Token::Comma && !self.separates(self.index()) {
            let first = self.index() + 1;
            let start = self.scan.span(first).start;
            let read = self.read(Rule::value, start).map(|pair| self.value(pair, start));
            match read {
                Ok(Ok(value)) => values.push(value),
                Ok(Err(problem)) => {
                    self.problems.push(problem);
                    return None;
                }
                Err(_) => {
                    self.problems.push(wording::astray(&self.scan, comma));
                    self.skip_entry(comma);
                    return None;
                }
            }
        }
        let span = values[0].span.to(values[values.len() - 1].span);
        let takes_list = wording::takes_list(&entry.name.text);
        self.problems.push(wording::row_of_values(&self.scan, &entry.name, comma, span, takes_list));
        takes_list.then_some(Entry { name: entry.name, value: Value { term: Term::List(values), span } })
    }

    pub(super) fn take_word(&mut self) -> Name {
        let span = self.span();
        self.step();
        Name { text: self.scan.text[span.start..span.end].to_owned(), span }
    }

    /// Reads `name = value`, with `let` in front where `rule` says so. Where it cannot be read, says why
    /// and skips it.
    pub(super) fn named_value(&mut self, rule: Option<Rule>) -> Option<Entry> {
        let first = self.index();
        let start = self.span().start;
        let result = match self.read(rule.unwrap_or(Rule::entry), start) {
            Ok(pair) => self.entry(pair, start),
            Err(failed_at) => {
                let name = if rule.is_some() { first + 1 } else { first };
                let problem = wording::value(&self.scan, Some(name), start, failed_at);
                self.problems.push(problem);
                self.skip_value(name, start, failed_at);
                return None;
            }
        };
        result.map_err(|problem| self.problems.push(problem)).ok()
    }
}
