//! A [`Format`] applied to a row: the text that the model will see, with the part it learns to write.

use std::ops::Range;

use arrow_array::{Array, LargeStringArray, RecordBatch};

use super::table::{Column, Kind, texts};
use crate::lang::pipeline::{Format, LossOn, Setting, Tools};
use crate::problem::{Problem, Problems};

/// Where messages are looked for, if no column is named.
const MESSAGES: [&str; 2] = ["messages", "conversations"];

/// What a row becomes, before tokenizing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    /// The bytes of `text` that carry a loss, in their order.
    pub trained: Vec<Range<usize>>,
    /// The response holds nothing but white space.
    pub empty_response: bool,
    /// Of a chat: the role of each message, and whether it is learned.
    pub turns: Vec<(&'static str, bool)>,
}

/// One part, in a list.
pub(super) fn one(part: Range<usize>) -> Vec<Range<usize>> {
    std::iter::once(part).collect()
}

/// A text with `{column}` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// An index into the columns of the format.
    Column(usize),
}

/// A format whose templates are read and whose columns are numbered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// What the reader has to find, in the order of the table's columns.
    pub columns: Vec<Column>,
    rows: Rows,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rows {
    Text,
    Instruct {
        prompt: Template,
        response: Template,
    },
    /// The messages are in one of these columns, the tools in the last.
    Chat {
        messages: Vec<usize>,
        tools: Option<usize>,
    },
    /// The class is in this column.
    Classify {
        text: Template,
        label: usize,
    },
    /// Words and their classes are the two columns; or question, text and answers are the three.
    Apart,
    /// The labels, the class and the mask are in these columns.
    Tokens(TokenColumns),
}

/// The columns of rows that were tokenised elsewhere, beside the ids, which come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TokenColumns {
    pub labels: Option<usize>,
    pub class: Option<usize>,
    pub mask: Option<usize>,
}

impl Layout {
    /// Reads the templates of a format.
    ///
    /// # Errors
    /// A brace that is not closed, not opened or has no name in it.
    pub fn new(format: &Setting<Format>) -> Result<Self, Problems> {
        let column = |name: &String, kind| Column { name: name.clone(), kind };
        match &format.value {
            Format::Text { column: name } => {
                Ok(Self { columns: vec![column(name, Kind::Text)], rows: Rows::Text })
            }
            Format::Tokens { input, labels, label, mask } => {
                let mut columns = vec![column(input, Kind::Ints)];
                let mut add = |name: &Option<String>, kind| {
                    name.as_ref().map(|name| {
                        columns.push(column(name, kind));
                        columns.len() - 1
                    })
                };
                let rows = Rows::Tokens(TokenColumns {
                    labels: add(labels, Kind::Ints),
                    class: add(label, Kind::Text),
                    mask: add(mask, Kind::Ints),
                });
                Ok(Self { columns, rows })
            }
            Format::Chat { column: named, tools, .. } => {
                let mut columns = match named {
                    Some(name) => vec![column(name, Kind::Nested)],
                    None => MESSAGES.map(|name| column(&name.to_owned(), Kind::Maybe)).to_vec(),
                };
                let messages = (0..columns.len()).collect();
                let tools = match tools {
                    Tools::Auto => Some(("tools".to_owned(), Kind::Maybe)),
                    Tools::Column(name) => Some((name.clone(), Kind::Any)),
                    Tools::None => None,
                };
                let tools = tools.map(|(name, kind)| {
                    columns.push(Column { name, kind });
                    columns.len() - 1
                });
                Ok(Self { columns, rows: Rows::Chat { messages, tools } })
            }
            Format::TokenLabels { tokens, labels } => {
                let columns = vec![column(tokens, Kind::Nested), column(labels, Kind::Nested)];
                Ok(Self { columns, rows: Rows::Apart })
            }
            Format::Question { question, context, answers, .. } => {
                let columns = vec![
                    column(question, Kind::Text),
                    column(context, Kind::Text),
                    column(answers, Kind::Nested),
                ];
                Ok(Self { columns, rows: Rows::Apart })
            }
            Format::OfParts => unreachable!("a mix is read block by block"),
            Format::Instruct { prompt, response } => {
                let mut columns = Vec::new();
                let mut problems = Problems::default();
                let rows = Rows::Instruct {
                    prompt: part("prompt", prompt, format, &mut columns, &mut problems),
                    response: part("response", response, format, &mut columns, &mut problems),
                };
                if problems.has_errors() { Err(problems) } else { Ok(Self { columns, rows }) }
            }
            Format::Classify { text, label } => {
                let mut columns = Vec::new();
                let mut problems = Problems::default();
                let text = part("text", text, format, &mut columns, &mut problems);
                let known = columns.iter().position(|column| column.name == *label);
                let label = known.unwrap_or_else(|| {
                    columns.push(column(label, Kind::Text));
                    columns.len() - 1
                });
                let rows = Rows::Classify { text, label };
                if problems.has_errors() { Err(problems) } else { Ok(Self { columns, rows }) }
            }
        }
    }

    /// The column of the class, where rows have one.
    pub(super) fn class(&self) -> Option<usize> {
        match &self.rows {
            Rows::Classify { label, .. } => Some(*label),
            Rows::Tokens(columns) => columns.class,
            Rows::Text | Rows::Instruct { .. } | Rows::Chat { .. } | Rows::Apart => None,
        }
    }

    /// The columns of words and classes.
    pub(super) fn pair(&self) -> [usize; 2] {
        [0, 1]
    }

    /// The columns of question, text and answers.
    pub(super) fn triple(&self) -> [usize; 3] {
        [0, 1, 2]
    }

    /// The columns of rows of token ids.
    pub(super) fn tokens(&self) -> TokenColumns {
        match &self.rows {
            Rows::Tokens(columns) => *columns,
            Rows::Text | Rows::Instruct { .. } | Rows::Classify { .. } | Rows::Chat { .. } | Rows::Apart => {
                TokenColumns::default()
            }
        }
    }

    /// The messages of a batch's rows and the tools, both as JSON text; nothing where rows are no chats.
    pub(super) fn messages<'b>(&self, batch: &'b RecordBatch) -> Vec<(Option<&'b str>, Option<&'b str>)> {
        let Rows::Chat { messages, tools } = &self.rows else { return Vec::new() };
        let columns: Vec<_> = messages.iter().map(|column| texts(batch, *column)).collect();
        let tools = tools.map(|column| texts(batch, column));
        let cell = |cells: &'b LargeStringArray, row| cells.is_valid(row).then(|| cells.value(row));
        let row = |row| {
            let messages = columns.iter().find_map(|column| cell(column, row));
            (messages, tools.and_then(|tools| cell(tools, row)))
        };
        (0..batch.num_rows()).map(row).collect()
    }

    /// Renders the rows of a batch whose columns are `self.columns`. Rows of token ids have no text, and messages
    /// need a template.
    pub fn render(&self, batch: &RecordBatch, loss_on: &LossOn) -> Vec<Rendered> {
        let columns: Vec<_> = match self.rows {
            Rows::Text | Rows::Instruct { .. } | Rows::Classify { .. } => {
                (0..self.columns.len()).map(|i| texts(batch, i)).collect()
            }
            Rows::Tokens(_) | Rows::Chat { .. } | Rows::Apart => return Vec::new(),
        };
        let render = |row| match &self.rows {
            Rows::Text => {
                let text = columns[0].value(row).to_owned();
                let trained = one(0..text.len());
                Rendered { trained, empty_response: text.trim().is_empty(), text, turns: Vec::new() }
            }
            Rows::Instruct { prompt, response } => {
                let mut text = String::new();
                prompt.write(&columns, row, &mut text);
                let boundary = text.len();
                response.write(&columns, row, &mut text);
                let start = match loss_on {
                    LossOn::All => 0,
                    LossOn::Response | LossOn::Last | LossOn::Roles(_) => boundary,
                };
                Rendered {
                    trained: one(start..text.len()),
                    empty_response: text[boundary..].trim().is_empty(),
                    text,
                    turns: Vec::new(),
                }
            }
            Rows::Classify { text: template, .. } => {
                let mut text = String::new();
                template.write(&columns, row, &mut text);
                Rendered { trained: one(0..text.len()), empty_response: false, text, turns: Vec::new() }
            }
            Rows::Tokens(_) | Rows::Chat { .. } | Rows::Apart => unreachable!("returned above"),
        };
        (0..batch.num_rows()).map(render).collect()
    }
}

impl Template {
    fn write(&self, columns: &[&LargeStringArray], row: usize, text: &mut String) {
        for piece in &self.0 {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                Piece::Column(column) => text.push_str(columns[*column].value(row)),
            }
        }
    }
}

/// The template of the argument `name`, or a complaint.
fn part(
    name: &str,
    text: &str,
    format: &Setting<Format>,
    columns: &mut Vec<Column>,
    problems: &mut Problems,
) -> Template {
    match template(text, columns) {
        Ok(template) => template,
        Err((at, fact, help)) => {
            problems.push(
                Problem::new("hift::data::template", format!("{fact} in `{name}`"))
                    .label_at(
                        format.span(),
                        format!("at `{}`", text[at..].chars().take(20).collect::<String>()),
                    )
                    .help(help),
            );
            Template(Vec::new())
        }
    }
}

/// Where it went wrong, the fact and what to write instead.
type Flaw = (usize, &'static str, &'static str);

fn template(text: &str, columns: &mut Vec<Column>) -> Result<Template, Flaw> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(offset) = text[at..].find(['{', '}']) {
        literal.push_str(&text[at..at + offset]);
        at += offset;
        let rest = &text[at..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            literal.push_str(&rest[..1]);
            at += 2;
        } else if rest.starts_with('}') {
            return Err((at, "a `}` that no `{` opens", "write `}}` for a brace"));
        } else {
            let Some(end) = rest.find('}') else {
                return Err((at, "a `{` that is not closed", "write `{column}`, or `{{` for a brace"));
            };
            let name = &rest[1..end];
            if name.is_empty() || name.contains(['{', '\n']) {
                return Err((
                    at,
                    "a `{` that no column name follows",
                    "write `{column}`, or `{{` for a brace",
                ));
            }
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            let column = columns.iter().position(|column| column.name == name).unwrap_or_else(|| {
                columns.push(Column { name: name.to_owned(), kind: Kind::Text });
                columns.len() - 1
            });
            pieces.push(Piece::Column(column));
            at += end + 1;
        }
    }
    literal.push_str(&text[at..]);
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal));
    }
    Ok(Template(pieces))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_name_columns_and_double_braces_are_braces() {
        let check = |text: &str, expected: &str| {
            let mut columns = Vec::new();
            let shown = match template(text, &mut columns) {
                Ok(Template(pieces)) => {
                    let show = |piece: &Piece| match piece {
                        Piece::Text(text) => format!("{text:?}"),
                        Piece::Column(column) => columns[*column].name.clone(),
                    };
                    pieces.iter().map(show).collect::<Vec<_>>().join(" + ")
                }
                Err((at, fact, _)) => format!("{at}: {fact}"),
            };
            assert_eq!(shown, expected, "{text}");
        };
        check("{a}\n{b} and {a}", r#"a + "\n" + b + " and " + a"#);
        check("plain", r#""plain""#);
        check("", "");
        check("{{a}} {{{a}}}", r#""{a} {" + a + "}""#);
        check("x {a", "2: a `{` that is not closed");
        check("x } y", "2: a `}` that no `{` opens");
        check("{}", "0: a `{` that no column name follows");
    }
}
