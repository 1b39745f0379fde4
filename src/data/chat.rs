//! Messages to the text that a chat template makes of them, with the parts that carry a loss.
//!
//! Which part a message is, is found by rendering: what the template gives for the messages before it, and for those
//! up to it, must be how the whole begins. Nothing is ever searched for in the text. Where a template does not let
//! itself be taken apart like that, because it writes earlier messages differently once later ones are there, the
//! row is refused.

use std::ops::Range;
use std::path::Path;

use minijinja::value::{Kwargs, Serde, Value as Jinja};
use minijinja::{Environment, ErrorKind, syntax::SyntaxConfig};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::encoder::Encoder;
use super::files;
use super::render::{Rendered, one};
use crate::lang::pipeline::{Format, LossOn, ROLES, Setting};
use crate::lock::Hashed;
use crate::problem::{Problem, Span};

/// A chat template, ready to write out messages.
pub(super) struct Chat {
    environment: Environment<'static>,
    /// What the template may ask for besides messages: `bos_token` and its like.
    tokens: Vec<(String, String)>,
    /// What the template gives for no messages at all; some end every text with it.
    tail: Option<String>,
    /// The file that the template is from.
    path: String,
    span: Option<Span>,
    roles: Vec<(String, String)>,
    /// The files that were read.
    pub hashes: Vec<Hashed>,
}

/// Why a row cannot be written out, and what to do about it.
pub(super) struct Refused {
    pub code: &'static str,
    pub fact: String,
    pub help: String,
}

/// The template's name in its environment, and that of the one for rows with tools.
const PLAIN: &str = "chat_template";
const WITH_TOOLS: &str = "tool_use";

/// Names that other formats give to roles.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("human", "user"),
    ("gpt", "assistant"),
    ("chatgpt", "assistant"),
    ("bot", "assistant"),
    ("model", "assistant"),
    ("observation", "tool"),
    ("function_response", "tool"),
    ("tool_response", "tool"),
    ("function", "tool"),
    // A message of the assistant that is nothing but a call.
    (CALL, "assistant"),
    ("tool_call", "assistant"),
];
const CALL: &str = "function_call";

impl Chat {
    /// Reads the template of a chat: the file that the format names, else the tokenizer's own.
    ///
    /// # Errors
    /// There is none, it is missing (66), or it is not a Jinja template.
    pub fn open(folder: &Path, format: &Setting<Format>, encoder: &Encoder) -> Result<Self, Problem> {
        let Format::Chat { template, roles, .. } = &format.value else {
            unreachable!("only called for chats");
        };
        let (config, mut hashes) = encoder.config(folder);
        let span = format.span();
        let mut templates = Vec::new();
        let path;
        if let Some(file) = template {
            let (bytes, hashed) = files::read(folder, file, span)?;
            templates.push((PLAIN.to_owned(), text(bytes, file, span)?));
            hashes.push(hashed);
            path = file.clone();
        } else if let Ok((bytes, hashed)) = files::read(folder, &encoder.beside("chat_template.jinja"), None)
        {
            path = encoder.beside("chat_template.jinja");
            templates.push((PLAIN.to_owned(), text(bytes, &path, span)?));
            hashes.push(hashed);
        } else {
            path = encoder.beside("tokenizer_config.json");
            match &config["chat_template"] {
                Value::String(own) => templates.push((PLAIN.to_owned(), own.clone())),
                Value::Array(several) => {
                    for one in several {
                        if let (Some(name), Some(own)) = (one["name"].as_str(), one["template"].as_str()) {
                            let name = if name == "default" { PLAIN } else { name };
                            templates.push((name.to_owned(), own.to_owned()));
                        }
                    }
                }
                _ => {}
            }
        }
        if !templates.iter().any(|(name, _)| name == PLAIN) {
            return Err(Problem::new("hift::data::no_template", "the tokenizer has no chat template")
                .label_at(span, "needs one")
                .label_at(encoder.span(), "this tokenizer")
                .help("write `chat(template = \"chat.jinja\")` with a file of your own, or use the tokenizer of a model that was made for chats"));
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the usual delimiters"));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", |what: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, what))
        });
        for (name, source) in templates {
            environment.add_template_owned(name, without_generation_tags(&source)).map_err(|error| {
                Problem::new(
                    "hift::data::chat_template",
                    format!("the chat template in `{path}` cannot be read: {}", said(&error)),
                )
                .label_at(span, "needs it")
                .help("write `chat(template = \"chat.jinja\")` with a file of your own")
            })?;
        }
        let tokens = config
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| name.ends_with("_token"))
            .filter_map(|(name, token)| {
                let token = token.as_str().or_else(|| token["content"].as_str())?;
                Some((name.clone(), token.to_owned()))
            })
            .collect();
        let mut chat = Self { environment, tokens, tail: None, path, span, roles: roles.clone(), hashes };
        chat.tail = chat.render(&[], &Jinja::from(()), false).ok().filter(|tail| !tail.is_empty());
        Ok(chat)
    }

    /// Writes out a row: the messages and, where it has them, the tools, both as JSON text.
    pub fn row(
        &self,
        messages: Option<&str>,
        tools: Option<&str>,
        loss_on: &LossOn,
    ) -> Result<Rendered, Refused> {
        let Some(messages) = messages else {
            return Err(refused("there are no messages", "name the column: `chat(column = \"...\")`"));
        };
        let not_a_list =
            || refused("the messages are not a list of objects", "give each message `role` and `content`");
        let messages: Vec<Map<String, Value>> = serde_json::from_str(messages).map_err(|_| not_a_list())?;
        let messages: Vec<Message> =
            messages.into_iter().map(|message| self.message(message)).collect::<Result<_, _>>()?;
        let tools = match tools.map(str::trim) {
            None | Some("" | "null" | "[]") => Value::Null,
            Some(tools) => match serde_json::from_str(tools) {
                Ok(tools @ Value::Array(_)) => tools,
                Ok(_) | Err(_) => {
                    return Err(refused(
                        "the tools are not a list, nor JSON text of one",
                        "write `chat(tools = none)`, or change the rows",
                    ));
                }
            },
        };
        let tools = Jinja::from(Serde(&tools));
        let given: Vec<Jinja> = messages.iter().map(|message| message.value.clone()).collect();
        if given.is_empty() {
            return Ok(Rendered { empty_response: true, ..Rendered::default() });
        }
        let whole = self.render(&given, &tools, false)?;
        let last = messages.iter().rposition(|message| message.role == "assistant");
        let is_trained = |i: usize| match loss_on {
            LossOn::All => true,
            LossOn::Response => messages[i].role == "assistant",
            LossOn::Last => Some(i) == last,
            LossOn::Roles(roles) => roles.contains(&messages[i].role),
        };
        let chosen: Vec<usize> = (0..messages.len()).filter(|i| is_trained(*i)).collect();
        let trained = match loss_on {
            LossOn::All => one(0..whole.len()),
            LossOn::Response | LossOn::Last | LossOn::Roles(_) => {
                let mut parts: Vec<Range<usize>> = Vec::new();
                for i in chosen.iter().copied() {
                    let part = self.begin(&whole, &messages, &given, &tools, i)?
                        ..self.end(&whole, &given, &tools, i + 1)?;
                    if part.start > part.end {
                        return Err(self.no_prefix(i + 1));
                    }
                    match parts.last_mut() {
                        Some(before) if before.end == part.start => before.end = part.end,
                        Some(_) | None => parts.push(part),
                    }
                }
                parts
            }
        };
        let turns = messages.iter().enumerate().map(|(i, message)| {
            let role = ROLES.into_iter().find(|role| *role == message.role).unwrap_or_default();
            (role, is_trained(i))
        });
        Ok(Rendered {
            turns: turns.collect(),
            text: whole,
            trained,
            empty_response: chosen.iter().all(|i| messages[*i].is_empty || messages[*i].role != "assistant"),
        })
    }

    /// Where message `i` begins to be learned: behind what the model is given when it is its turn to write.
    fn begin(
        &self,
        whole: &str,
        messages: &[Message],
        given: &[Jinja],
        tools: &Jinja,
        i: usize,
    ) -> Result<usize, Refused> {
        if messages[i].role != "assistant" {
            return if i == 0 { Ok(0) } else { self.end(whole, given, tools, i) };
        }
        let before = self.render(&given[..i], tools, true)?;
        if whole.starts_with(&before) { Ok(before.len()) } else { Err(self.no_prefix(i)) }
    }

    /// Where the first `n` messages end.
    fn end(&self, whole: &str, given: &[Jinja], tools: &Jinja, n: usize) -> Result<usize, Refused> {
        if n == given.len() {
            return Ok(whole.len());
        }
        let own = self.render(&given[..n], tools, false)?;
        if whole.starts_with(&own) {
            return Ok(own.len());
        }
        // A text that always ends in the same words has them behind its last message only.
        if let Some(tail) = &self.tail
            && whole.ends_with(tail)
            && let Some(own) = own.strip_suffix(tail.as_str())
            && whole.starts_with(own)
        {
            return Ok(own.len());
        }
        Err(self.no_prefix(n))
    }

    fn no_prefix(&self, n: usize) -> Refused {
        let which = if n == 1 { "message".to_owned() } else { format!("{n} messages") };
        Refused {
            code: "hift::data::no_mask",
            fact: format!(
                "the chat template in `{}` writes the first {which} differently when others follow, so what carries a loss cannot be found",
                self.path
            ),
            help: "write `loss_on = all`, `loss_on = last` if only the last turn counts, or `chat(template = ...)` with a template that writes each message for itself".to_owned(),
        }
    }

    fn render(&self, messages: &[Jinja], tools: &Jinja, prompts: bool) -> Result<String, Refused> {
        let with_tools = !tools.is_none() && self.environment.get_template(WITH_TOOLS).is_ok();
        let name = if with_tools { WITH_TOOLS } else { PLAIN };
        let tokens = self.tokens.iter().map(|(name, token)| (name.as_str(), Jinja::from(token.as_str())));
        let context = Jinja::from_pairs(tokens.chain([
            ("messages", Jinja::from(messages.to_vec())),
            ("tools", tools.clone()),
            ("documents", Jinja::from(())),
            ("add_generation_prompt", Jinja::from(prompts)),
        ]));
        self.environment.get_template(name).and_then(|template| template.render(context)).map_err(|error| {
            Refused {
                code: "hift::data::chat_template",
                fact: format!("the chat template in `{}` refuses it: {}", self.path, said(&error)),
                help: "change the rows, or write `chat(template = \"chat.jinja\")` with a file of your own"
                    .to_owned(),
            }
        })
    }

    /// The message as templates expect it: a role of [`ROLES`], and its content as one text.
    fn message(&self, mut given: Map<String, Value>) -> Result<Message, Refused> {
        let name = match given.remove("role").or_else(|| given.remove("from")) {
            Some(Value::String(name)) => name,
            Some(_) | None => {
                return Err(refused("a message has no role", "give each message `role`, or `from`"));
            }
        };
        let own = self.roles.iter().find(|(own, _)| *own == name).map(|(_, role)| role.as_str());
        let usual = || OTHER_NAMES.iter().find(|(other, _)| *other == name).map(|(_, role)| *role);
        let role = match own.or_else(|| ROLES.into_iter().find(|role| *role == name)).or_else(usual) {
            Some(role) => role.to_owned(),
            None => {
                return Err(refused(
                    format!("there is no role `{name}`"),
                    format!("say what it means: `chat(roles = {{ {name} = \"user\" }})`"),
                ));
            }
        };
        let is_call = own.is_none() && (name == CALL || name == "tool_call");
        let mut content = match given.remove("content").or_else(|| given.remove("value")) {
            Some(Value::Array(parts)) => Value::String(joined(&parts)?),
            Some(content @ (Value::String(_) | Value::Null)) => content,
            None => Value::Null,
            Some(_) => {
                return Err(refused(
                    "the content of a message is neither text nor a list",
                    "change the rows",
                ));
            }
        };
        // Where rows are kept in columns, a message has every key that any message has.
        given.retain(|_, value| !value.is_null());
        if is_call {
            let call: Option<Value> = content.as_str().and_then(|text| serde_json::from_str(text).ok());
            let calls = match call {
                Some(Value::Array(calls)) => calls,
                Some(call @ Value::Object(_)) => vec![call],
                Some(_) | None => {
                    return Err(refused(
                        format!("the content of a `{name}` message is not JSON text of a call"),
                        "write it as {\"name\": ..., \"arguments\": {...}}",
                    ));
                }
            };
            let calls = calls.into_iter().map(|call| json!({ "type": "function", "function": call }));
            given.insert("tool_calls".to_owned(), Value::Array(calls.collect()));
            content = Value::String(String::new());
        }
        if content.is_null() && !given.contains_key("tool_calls") {
            return Err(refused("a message has no content", "give each message `content`, or `value`"));
        }
        let is_empty =
            content.as_str().is_none_or(|text| text.trim().is_empty()) && !given.contains_key("tool_calls");
        let mut message = Map::new();
        message.insert("role".to_owned(), Value::String(role.clone()));
        message.insert("content".to_owned(), content);
        message.extend(given);
        Ok(Message { role, is_empty, value: Jinja::from(Serde(&message)) })
    }

    /// The problem of the first row that was refused for a reason.
    pub fn problem(&self, refused: &Refused, at: &str) -> Problem {
        Problem::new(refused.code, format!("{at}: {}", refused.fact))
            .label_at(self.span, "this format")
            .help(refused.help.clone())
    }
}

/// A message of a row.
struct Message {
    role: String,
    is_empty: bool,
    value: Jinja,
}

fn refused(fact: impl Into<String>, help: impl Into<String>) -> Refused {
    Refused { code: "hift::data::messages", fact: fact.into(), help: help.into() }
}

/// The text of content that is a list of parts, all of which are text.
fn joined(parts: &[Value]) -> Result<String, Refused> {
    let text = |part: &Value| match part {
        Value::String(text) => Some(text.clone()),
        part => part["text"].as_str().or_else(|| part["value"].as_str()).map(str::to_owned),
    };
    let texts: Option<Vec<_>> = parts.iter().map(text).collect();
    texts.map(|texts| texts.concat()).ok_or_else(|| {
        refused(
            "a message holds something other than text",
            "only text can be learned: leave such rows out with `filter`, or change them",
        )
    })
}

fn text(bytes: Vec<u8>, path: &str, span: Option<Span>) -> Result<String, Problem> {
    String::from_utf8(bytes).map_err(|_| {
        Problem::new("hift::data::not_utf8", format!("`{path}` is not UTF-8"))
            .label_at(span, "needs it")
            .help("a chat template is a text file")
    })
}

/// What went wrong in a template, with the line, without the parts that speak of this program.
fn said(error: &minijinja::Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("{what} (line {line} of the template)"),
        None => what,
    }
}

/// `{% generation %}` marks what the assistant writes and changes nothing in the text; here it is a condition that
/// always holds, which keeps the white space control of the tag.
fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        text.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        let word = tag[2..end].trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        match word {
            "generation" => text.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => text.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => text.push_str(tag),
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

/// `tojson` as transformers gives it to chat templates: Python's `json.dumps` without escapes for other alphabets.
fn to_json(value: &Jinja, options: Kwargs) -> Result<Jinja, minijinja::Error> {
    let bad = |what: String| minijinja::Error::new(ErrorKind::BadSerialization, what);
    let indent: Option<usize> = options.get("indent")?;
    let sorted: Option<bool> = options.get("sort_keys")?;
    if options.get::<Option<bool>>("ensure_ascii")? == Some(true) || options.has("separators") {
        return Err(bad("`tojson` knows `indent` and `sort_keys` only".to_owned()));
    }
    options.assert_all_used()?;
    let mut value = serde_json::to_value(value).map_err(|error| bad(error.to_string()))?;
    if sorted == Some(true) {
        value.sort_all_objects();
    }
    let mut bytes = Vec::new();
    let written = match indent {
        Some(indent) => {
            let spaces = " ".repeat(indent);
            let form = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, form))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Spaced)),
    };
    written.map_err(|error| bad(error.to_string()))?;
    Ok(Jinja::from_safe_string(String::from_utf8(bytes).expect("JSON is UTF-8")))
}

/// `{"a": 1, "b": [2, 3]}`, as Python writes it.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        to: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        to: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, to: &mut W) -> std::io::Result<()> {
        to.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_tags_are_conditions() {
        let check = |source: &str, expected: &str| assert_eq!(without_generation_tags(source), expected);
        check("a{%- generation -%}b{% endgeneration %}c", "a{%- if true -%}b{% endif %}c");
        check("{% if x %}{{ '{% generation' }}", "{% if x %}{{ '{% generation' }}");
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let mut environment = Environment::new();
        environment.add_filter("tojson", to_json);
        let check = |template: &str, expected: &str| {
            let value = json!({"b": [1, 2.5, "ä<>"], "a": {}});
            let context = minijinja::context! { value => Jinja::from(Serde(&value)) };
            assert_eq!(environment.render_str(template, context).unwrap(), expected);
        };
        // python -c 'import json; print(json.dumps({"b": [1, 2.5, "ä<>"], "a": {}}, ensure_ascii=False))'
        check("{{ value|tojson }}", r#"{"b": [1, 2.5, "ä<>"], "a": {}}"#);
        check("{{ value|tojson(sort_keys=true) }}", r#"{"a": {}, "b": [1, 2.5, "ä<>"]}"#);
        check("{{ value.b|tojson(indent=2) }}", "[\n  1,\n  2.5,\n  \"ä<>\"\n]");
    }
}
