//! Text to [`File`]. The only place that knows pest.
//!
//! The grammar reads one header, param or entry at a time; this driver walks from one to the next. Where the
//! grammar does not match, the driver has `wording` say why, skips to the next entry or block and goes
//! on, so that all mistakes of a file come at once.

use pest::Parser as _;
use pest::error::InputLocation;
use pest::iterators::Pair;

use crate::problem::{Problem, Problems, Span};

use super::scan::{MAX_DEPTH, Scan, Starts, Token};
use super::syntax::{
    Argument, Block, Entry, Factor, File, Import, Item, Let, Name, Number, Param, Piece, Range, Shift, Sign,
    Term, Value,
};
use super::{lookalike, schema, too_many, wording};

#[derive(pest_derive::Parser)]
#[grammar = "../grammar/hift.pest"]
struct Grammar;

/// Reads a file. What could be read is in the tree even where something else could not.
pub fn parse(text: &str) -> (File, Problems) {
    let Some(plain) = lookalike::plain(text) else { return parse_plain(text) };
    let (mut file, mut problems) = parse_plain(&plain.text);
    let place = |at| plain.place(at);
    file.relocate(&place);
    problems.0.iter_mut().for_each(|problem| problem.relocate(&place));
    problems.0.extend(plain.problems);
    (file, problems)
}

fn parse_plain(text: &str) -> (File, Problems) {
    let scan = Scan::new(text);
    let mut problems = Problems::default();
    if let Some(at) = scan.too_deep {
        problems.push(wording::too_deep(Span::new(at, at + 1), MAX_DEPTH));
        return (File { damaged: true, ..File::default() }, problems);
    }
    let mut driver = Driver { scan, at: 0, problems };
    let file = driver.file();
    (file, driver.problems)
}

/// Reads one value that is a text of its own, such as that of `--set`. Spans are places in `text`.
///
/// # Errors
/// When the text is not exactly one value.
pub fn parse_value(text: &str) -> Result<Value, Problem> {
    let scan = Scan::new(text);
    if let Some(at) = scan.too_deep {
        return Err(wording::too_deep(Span::new(at, at + 1), MAX_DEPTH));
    }
    let mut driver = Driver { scan, at: 0, problems: Problems::default() };
    let start = driver.scan.span(0).start;
    let value = match driver.read(Rule::value, start) {
        Ok(pair) => driver.value(pair, start),
        Err(failed_at) => Err(wording::value(&driver.scan, None, start, failed_at)),
    }?;
    match driver.token() {
        Token::End => Ok(value),
        _ => Err(wording::astray(&driver.scan, driver.index())),
    }
}

struct Driver<'t> {
    scan: Scan<'t>,
    /// The byte up to which the text is read.
    at: usize,
    problems: Problems,
}

impl<'t> Driver<'t> {
    /// The first token that is not yet read.
    fn index(&self) -> usize {
        self.scan.index(self.at)
    }

    fn token(&self) -> Token {
        self.scan.token(self.index())
    }

    /// The place of the first token that is not yet read.
    fn span(&self) -> Span {
        self.scan.span(self.index())
    }

    fn step(&mut self) {
        self.at = self.span().end;
    }

    fn file(&mut self) -> File {
        let mut file = File::default();
        loop {
            let index = self.index();
            let start = self.span().start;
            let is_header = self.token() == Token::Word
                && self.scan.word(index) == "hift"
                && self.scan.token(index + 1) == Token::Number;
            if self.token() == Token::End {
                return file;
            }
            if too_many(&mut self.problems, self.scan.span(index)) {
                file.damaged = true;
                return file;
            }
            if is_header {
                if file.version.is_some() || !file.items.is_empty() {
                    let span = self.span().to(self.scan.span(index + 1));
                    self.problems.push(wording::late_header(&self.scan, span, file.version.is_none()));
                }
                match self.read(Rule::header, start).map(|pair| self.header(pair, start)) {
                    Ok(Ok(version)) => file.version = file.version.or(Some(version)),
                    Ok(Err(problem)) => self.problems.push(problem),
                    Err(_) => self.step(),
                }
                continue;
            }
            let item = match self.scan.item_at(index) {
                Some(Starts::Import) => self.import().map(Item::Import),
                Some(Starts::Param) => self.param().map(Item::Param),
                Some(Starts::Let) => self.named_value(Some(Rule::binding)).map(|Entry { name, value }| {
                    let span = Span::new(start, value.span.end);
                    Item::Let(Let { doc: self.doc(start), name, value, span })
                }),
                Some(Starts::Block) => Some(Item::Block(self.block())),
                None => match self.slip(&mut file) {
                    Some(item) => Some(item),
                    None => {
                        file.damaged = true;
                        continue;
                    }
                },
            };
            match item {
                Some(item) => file.items.push(item),
                None => file.damaged = true,
            }
        }
    }

    /// Something that begins no item: says why, and reads on as it was meant where that is plain.
    fn slip(&mut self, file: &mut File) -> Option<Item> {
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
    fn loose_value(&mut self, first: usize) -> Option<Value> {
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

    /// The `##` comments right above an item.
    fn doc(&self, start: usize) -> String {
        let mut lines: Vec<&str> = Vec::new();
        let above = &self.scan.text[..start];
        // The item's own line, up to the item, holds nothing but white space.
        let space = [' ', '\t', '\u{FEFF}'];
        let mut above = above.trim_end_matches(space);
        while let Some(rest) = above.strip_suffix("\r\n").or_else(|| above.strip_suffix(['\n', '\r'])) {
            let line_start = rest.rfind(['\n', '\r']).map_or(0, |at| at + 1);
            match rest[line_start..].trim_start_matches(space).strip_prefix("##") {
                Some(line) => lines.push(line.strip_prefix(' ').unwrap_or(line).trim_end()),
                None => break,
            }
            above = &rest[..line_start];
        }
        lines.reverse();
        lines.join("\n")
    }

    /// Reads `import "..."`, with values for params where some follow.
    fn import(&mut self) -> Option<Import> {
        let start = self.span().start;
        let pair = match self.read(Rule::import, start) {
            Ok(pair) => pair,
            Err(failed_at) => {
                let problem = wording::value(&self.scan, None, start, failed_at);
                self.problems.push(problem);
                self.skip_item();
                return None;
            }
        };
        let mut import = Import {
            path: String::new(),
            path_span: Span::default(),
            entries: Vec::new(),
            span: node_span(&pair, start),
        };
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::text => {
                    import.path_span = node_span(&part, start);
                    match self.text(part.as_str(), import.path_span) {
                        Ok(Term::Text(path)) => import.path = path,
                        Ok(_) => self.problems.push(wording::calculated_import(import.path_span)),
                        Err(problem) => self.problems.push(problem),
                    }
                }
                Rule::record => match self.entries(part, start) {
                    Ok(entries) => import.entries = entries,
                    Err(problem) => self.problems.push(problem),
                },
                _ => {}
            }
        }
        (!import.path.is_empty()).then_some(import)
    }

    /// Reads `param NAME`, its types, its range and its value.
    fn param(&mut self) -> Option<Param> {
        let first = self.index();
        let start = self.span().start;
        let pair = match self.read(Rule::param, start) {
            Ok(pair) => pair,
            Err(failed_at) => {
                let failed = self.scan.index(failed_at);
                let equals = (first..failed).any(|i| self.scan.token(i) == Token::Equals);
                let problem = match equals {
                    true => wording::value(&self.scan, Some(first + 1), start, failed_at),
                    false => wording::param(&self.scan, first + 1, failed),
                };
                self.problems.push(problem);
                self.skip_value(first + 1, start, failed_at);
                return None;
            }
        };
        let mut param = self.param_parts(pair, start).map_err(|problem| self.problems.push(problem)).ok()?;
        // `param peak: 2e-5`
        if let (None, None, [Value { term: Term::Number(_) | Term::Amount(..) | Term::Text(_), .. }]) =
            (&param.value, &param.range, param.types.as_slice())
        {
            self.problems.push(wording::param_colon(&self.scan, first + 1));
            param.value = param.types.pop();
        }
        let next = self.index();
        // `param peak 2e-5`
        if param.value.is_none()
            && param.types.is_empty()
            && param.range.is_none()
            && let Some((value, problem)) = wording::without_equals(&self.scan, first + 1)
        {
            self.problems.push(problem);
            param.value = Some(self.loose_value(value)?);
            return Some(param);
        }
        // What follows on the line was meant to say something about it.
        if param.value.is_none() && self.token() != Token::End && !self.scan.leads(next) {
            let behind = self.scan.span(next + 1).start;
            if self.token() == Token::Equals
                && let Err(failed_at) = self.read(Rule::value, behind)
            {
                let name = (next == first + 2).then_some(first + 1);
                self.problems.push(wording::value(&self.scan, name, behind, failed_at));
                self.skip_value(next - 1, behind, failed_at);
                return None;
            }
            self.problems.push(wording::param(&self.scan, first + 1, next));
            self.skip_line();
            return None;
        }
        Some(param)
    }

    fn param_parts(&self, pair: Pair<'_, Rule>, start: usize) -> Result<Param, Problem> {
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

    /// Reads `KIND NAME? {` and everything up to the closing brace.
    fn block(&mut self) -> Block {
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
    fn block_body(&mut self, mut block: Block, first: usize, brace: Span) -> Block {
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

    fn take_word(&mut self) -> Name {
        let span = self.span();
        self.step();
        Name { text: self.scan.text[span.start..span.end].to_owned(), span }
    }

    /// Reads `name = value`, with `let` in front where `rule` says so. Where it cannot be read, says why
    /// and skips it.
    fn named_value(&mut self, rule: Option<Rule>) -> Option<Entry> {
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

    /// Goes on behind a value that could not be read.
    fn skip_value(&mut self, name: usize, start: usize, failed_at: usize) {
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
    fn skip_entry(&mut self, index: usize) {
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

    fn begins_entry(&self, index: usize) -> bool {
        self.scan.token(index) == Token::Word
            && (matches!(self.scan.token(index + 1), Token::Equals | Token::Open('{'))
                || self.scan.begins_item(index))
    }

    /// Goes on at the first token of the next line, outside of the brackets in between.
    fn skip_line(&mut self) {
        let mut index = self.index() + 1;
        while self.scan.token(index) != Token::End && !self.scan.leads(index) {
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

    /// Goes on at the next token that stands at the very left, outside of the brackets in between.
    fn skip_item(&mut self) {
        let mut index = self.index() + 1;
        while self.scan.token(index) != Token::End {
            if self.scan.leads(index) && self.scan.indent(index) == 0 {
                break;
            }
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
    fn read(&mut self, rule: Rule, start: usize) -> Result<Pair<'t, Rule>, usize> {
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
    fn header(&self, pair: Pair<'_, Rule>, start: usize) -> Result<Value, Problem> {
        let version = pair.into_inner().nth(1).expect("a header has a number");
        Ok(Value { term: Term::Number(number(&version, start)?), span: node_span(&version, start) })
    }

    /// `param NAME = value` and `name = value`.
    fn entry(&self, pair: Pair<'_, Rule>, start: usize) -> Result<Entry, Problem> {
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

    fn value(&self, pair: Pair<'_, Rule>, start: usize) -> Result<Value, Problem> {
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

    fn entries(&self, record: Pair<'_, Rule>, start: usize) -> Result<Vec<Entry>, Problem> {
        let entries = record.into_inner().filter(|part| part.as_rule() == Rule::entry);
        entries.map(|part| self.entry(part, start)).collect()
    }

    /// A text with its escapes replaced and its holes read. `span` is the literal with its quotes.
    fn text(&self, literal: &str, span: Span) -> Result<Term, Problem> {
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
fn node_span(pair: &Pair<'_, Rule>, start: usize) -> Span {
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

#[cfg(test)]
mod tests {
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
        let text = "hift 1\nparam a = 1e-5\ntrain t {\n    b = f(1, c = \"x\")\n    d {\n        e = 3 %\n    }\n}\n";
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
}
