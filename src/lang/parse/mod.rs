//! Text to [`File`]. The only place that knows pest.
//!
//! The grammar reads one header, param or entry at a time; this driver walks from one to the next. Where the
//! grammar does not match, the driver has `wording` say why, skips to the next entry or block and goes
//! on, so that all mistakes of a file come at once.

mod block;
mod recover;
#[cfg(test)]
mod tests;
mod tree;

use crate::problem::{Problem, Problems, Span};

use super::scan::{MAX_DEPTH, Scan, Starts, Token};
use super::syntax::{Entry, File, Import, Item, Let, Param, Shift, Term, Value};
use super::{lookalike, too_many, wording};
use tree::node_span;

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
}
