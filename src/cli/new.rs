//! `hift new`

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, IsTerminal, Read, Write};
use std::path::{Component, Path, PathBuf};

use clap::{ValueEnum, ValueHint};
use dialoguer::{Input, Select};
use serde_json::{Map, Value as Json};

use super::{Failure, folder_of, print};
use crate::lang::schema::{UNITS, Unit};
use crate::lang::syntax::Term;
use crate::lang::{self, Options, Source, Sources};
use crate::problem::{Fault, Problem};
use crate::report::starter::{Rows, Starter, Weights, starter, templates};

#[derive(Debug, clap::Args)]
#[command(after_help = "On a terminal it asks for what is not given; elsewhere that is guessed.")]
pub struct New {
    /// The pipeline file to write; one that is there is left alone
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// What is to be learned; guessed from the data's columns where it is not given
    #[arg(long, value_enum)]
    task: Option<Task>,
    /// The model: a Hugging Face directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    model: Option<PathBuf>,
    /// Instead of a model: a `config.json`, for a fresh start
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "model")]
    config: Option<PathBuf>,
    /// The tokenizer; `tokenizer.json` beside the model by default
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    tokenizer: Option<PathBuf>,
    /// The data: JSON lines, a JSON array, or, for the task `text`, plain text
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    data: Option<PathBuf>,
    /// The prompt of a row, with columns in braces: `{question}\n`
    #[arg(long, value_name = "TEMPLATE", requires = "response")]
    prompt: Option<String>,
    /// The response of a row: `{answer}`
    #[arg(long, value_name = "TEMPLATE", requires = "prompt")]
    response: Option<String>,
    /// The column of text, for the task `text`
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// The memory that the training may take: `24GiB`
    #[arg(long, value_name = "AMOUNT", value_parser = memory)]
    memory: Option<String>,
}

/// What this version can train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Task {
    /// Prompts and responses; only responses are learned
    Instruct,
    /// Running text; all of it is learned
    Text,
    /// Rows tokenised elsewhere
    Tokens,
}

/// The first row of a data file that is there and holds JSON objects.
type FirstRow = Option<Map<String, Json>>;

impl New {
    pub fn run(self) -> Result<(), Failure> {
        if self.file.exists() {
            return Err(there(&self.file).into());
        }
        let asks = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        let chosen = self.choose(asks)?;
        let folder = folder_of(&self.file);
        let name = self.file.file_stem().unwrap_or(self.file.as_os_str()).to_string_lossy().into_owned();
        let seen = |path: &Path| seen_from(&folder, path);
        let text = starter(&Starter {
            name,
            rows: chosen.rows.clone(),
            data: seen(&chosen.data),
            weights: match &chosen.weights {
                Start::Model(path) => Weights::Directory(seen(path)),
                Start::Config(path) => Weights::Random(seen(path)),
            },
            tokenizer: seen(&chosen.tokenizer),
            max_length: chosen.max_length,
            memory: chosen.memory.clone(),
            sample: chosen.sample.clone(),
        });
        let (_, problems) = lang::check(&text, &Options::default());
        if problems.has_errors() {
            // A template or a column that is no text of the language.
            let source = Source::new(self.file.display().to_string(), text);
            let mut sources = Sources::default();
            sources.push(source);
            return Err(Failure::of(problems, &sources));
        }
        write(&self.file, &text)?;
        let mut said = format!("{} is written\n", self.file.display());
        for path in chosen.paths().into_iter().filter(|path| !path.exists()) {
            said += &format!("  {} is not there yet\n", path.display());
        }
        said += &format!("  next: hift plan {}\n", self.file.display());
        print(&said)?;
        Ok(())
    }

    /// Everything that the file depends on: what is given, what the answers are, what the data looks like.
    fn choose(&self, asks: bool) -> Result<Chosen, Problem> {
        let data = match (&self.data, asks) {
            (Some(data), _) => data.clone(),
            (None, true) => ask_path("Data (JSON lines, a JSON array, or plain text)", "data/train.jsonl")?,
            (None, false) => "data/train.jsonl".into(),
        };
        let is_json =
            data.extension().is_some_and(|end| ["json", "jsonl", "ndjson"].iter().any(|e| *e == end));
        let row = if is_json { first_row(&data) } else { None };
        let columns: Vec<String> = row.iter().flat_map(|row| row.keys().cloned()).collect();
        let has = |name: &str| columns.iter().any(|column| column == name);

        let guess = if self.prompt.is_some() {
            Task::Instruct
        } else if self.column.is_some() || !is_json {
            Task::Text
        } else if has("input_ids") {
            Task::Tokens
        } else if templates(&columns).is_none() && has("text") {
            Task::Text
        } else {
            Task::Instruct
        };
        let task = match (self.task, asks) {
            (Some(task), _) => task,
            (None, true) => ask_task(guess)?,
            (None, false) => guess,
        };
        if !is_json && task != Task::Text {
            return Err(Problem::of(
                Fault::Usage,
                "hift::cli::new",
                format!("plain text has no columns, which the task `{}` needs", word(task)),
            )
            .help("name a .json or .jsonl file with `--data`, or write `--task text`"));
        }
        let rows = match task {
            Task::Text if !is_json => Rows::Lines,
            Task::Text => Rows::Column(match &self.column {
                Some(column) => column.clone(),
                None => self.column(&columns, asks)?,
            }),
            Task::Tokens => Rows::Tokens { labels: has("labels") },
            Task::Instruct => {
                let (prompt, response) = self.templates(&columns, asks)?;
                Rows::Instruct { prompt, response }
            }
        };

        let weights = match (&self.model, &self.config, asks) {
            (Some(model), ..) => Start::Model(model.clone()),
            (None, Some(config), _) => Start::Config(config.clone()),
            (None, None, true) => Start::Model(ask_path("Model (a Hugging Face directory)", "models/llama")?),
            (None, None, false) => Start::Model("models/llama".into()),
        };
        let (beside, config) = match &weights {
            Start::Model(path) => (path.clone(), path.join("config.json")),
            Start::Config(path) => (folder_of(path), path.clone()),
        };
        let tokenizer = match &self.tokenizer {
            Some(tokenizer) => tokenizer.clone(),
            None if beside == Path::new(".") => "tokenizer.json".into(),
            None => beside.join("tokenizer.json"),
        };
        let memory = match (&self.memory, asks) {
            (Some(memory), _) => Some(memory.clone()),
            (None, true) => ask_memory()?,
            (None, false) => None,
        };
        let sample = match (&rows, &row) {
            (Rows::Instruct { prompt, .. }, Some(row)) => rendered(prompt, row),
            (Rows::Instruct { .. } | Rows::Tokens { .. }, _) => None,
            (Rows::Column(_) | Rows::Lines, _) => Some("Once upon a time".into()),
        };
        let max_length = positions(&config).map_or(512, |positions| positions.min(512));
        Ok(Chosen { rows, data, weights, tokenizer, max_length, memory, sample })
    }

    /// The column of running text.
    fn column(&self, columns: &[String], asks: bool) -> Result<String, Problem> {
        match columns {
            [] => Ok("text".into()),
            _ if columns.iter().any(|column| column == "text") => Ok("text".into()),
            [one] => Ok(one.clone()),
            _ if asks => {
                let choice = Select::new().with_prompt("Which column is the text").items(columns).default(0);
                Ok(columns[choice.interact().map_err(unanswered)?].clone())
            }
            _ => Err(Problem::of(
                Fault::Usage,
                "hift::cli::new",
                format!("which column is the text? the data has {}", columns.join(", ")),
            )
            .help("name it: `--column NAME`")),
        }
    }

    fn templates(&self, columns: &[String], asks: bool) -> Result<(String, String), Problem> {
        if let (Some(prompt), Some(response)) = (&self.prompt, &self.response) {
            let broken = |text: &str| text.replace("\\n", "\n").replace("\\t", "\t");
            return Ok((broken(prompt), broken(response)));
        }
        let usual = || ("{instruction}\n".to_owned(), "{output}".to_owned());
        match templates(columns) {
            Some(templates) => Ok(templates),
            None if columns.is_empty() => Ok(usual()),
            None if asks => {
                let ask = |what: &str| -> Result<String, Problem> {
                    let choice = Select::new().with_prompt(what).items(columns).default(0);
                    Ok(columns[choice.interact().map_err(unanswered)?].clone())
                };
                let prompt = ask("Which column is the prompt")?;
                let response = ask("Which column is the response")?;
                Ok((format!("{{{prompt}}}\n"), format!("{{{response}}}")))
            }
            None => {
                let first = columns.first().map_or("question", String::as_str);
                let last = columns.last().map_or("answer", String::as_str);
                Err(Problem::of(
                    Fault::Usage,
                    "hift::cli::new",
                    format!("which columns are prompt and response? the data has {}", columns.join(", ")),
                )
                .help(format!(
                    "write them with columns in braces: `--prompt '{{{first}}}\\n' --response '{{{last}}}'`"
                )))
            }
        }
    }
}

/// Where the model comes from, as seen from here.
#[derive(Debug)]
enum Start {
    Model(PathBuf),
    Config(PathBuf),
}

/// All choices; paths as seen from here.
#[derive(Debug)]
struct Chosen {
    rows: Rows,
    data: PathBuf,
    weights: Start,
    tokenizer: PathBuf,
    max_length: u64,
    memory: Option<String>,
    sample: Option<String>,
}

impl Chosen {
    /// What must be there before the pipeline can run.
    fn paths(&self) -> Vec<&Path> {
        let (Start::Model(weights) | Start::Config(weights)) = &self.weights;
        let mut paths = vec![self.data.as_path(), weights.as_path()];
        if !matches!(self.rows, Rows::Tokens { .. }) {
            paths.push(&self.tokenizer);
        }
        paths
    }
}

fn word(task: Task) -> String {
    task.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
}

/// `24GiB`, as the language writes it: `24 GiB`.
fn memory(text: &str) -> Result<String, String> {
    let value = lang::parse_value(text).ok();
    match value.as_ref().map(|value| &value.term) {
        Some(Term::Amount(_, unit))
            if UNITS.iter().any(|(name, of, _)| *name == unit.text && *of == Unit::Bytes) =>
        {
            Ok(value.map_or(String::new(), |value| value.to_string()))
        }
        _ => Err("write an amount of memory, such as 24GiB".into()),
    }
}

fn ask_path(what: &str, default: &str) -> Result<PathBuf, Problem> {
    let answer: String =
        Input::new().with_prompt(what).default(default.to_owned()).interact_text().map_err(unanswered)?;
    Ok(answer.into())
}

fn ask_task(guess: Task) -> Result<Task, Problem> {
    let tasks = Task::value_variants();
    let items = tasks.iter().map(|task| {
        let value = task.to_possible_value().expect("every task can be chosen");
        format!("{}: {}", value.get_name(), value.get_help().map_or(String::new(), ToString::to_string))
    });
    let default = tasks.iter().position(|task| *task == guess).unwrap_or(0);
    let choice = Select::new().with_prompt("What is to be learned").items(items).default(default);
    Ok(tasks[choice.interact().map_err(unanswered)?])
}

fn ask_memory() -> Result<Option<String>, Problem> {
    let answer: String = Input::new()
        .with_prompt("Memory that the training may take, such as 24GiB (empty: no limit)")
        .allow_empty(true)
        .validate_with(|text: &String| if text.is_empty() { Ok(()) } else { memory(text).map(drop) })
        .interact_text()
        .map_err(unanswered)?;
    Ok(memory(&answer).ok())
}

fn unanswered(error: dialoguer::Error) -> Problem {
    Problem::of(Fault::Usage, "hift::cli::new", format!("the question was not answered: {error}"))
        .help("give what is asked for on the command line; see `hift new --help`")
}

/// The first object of JSON lines or of a JSON array. None where the file is not there or is something else: the
/// check says what is wrong with it.
fn first_row(path: &Path) -> FirstRow {
    // No row that is worth a look is longer.
    let mut reader = BufReader::new(File::open(path).ok()?.take(1 << 20));
    while let Some(byte) = reader.fill_buf().ok()?.first() {
        match byte {
            b'[' | b' ' | b'\t' | b'\r' | b'\n' => reader.consume(1),
            _ => break,
        }
    }
    serde_json::Deserializer::from_reader(reader).into_iter().next()?.ok()
}

/// A template with the columns of a row in it; None where it is too long to be shown or a column is no text.
fn rendered(template: &str, row: &Map<String, Json>) -> Option<String> {
    let mut text = template.to_owned();
    for (name, value) in row {
        let hole = format!("{{{name}}}");
        if text.contains(&hole) {
            text = text.replace(&hole, value.as_str()?);
        }
    }
    (text.chars().count() <= 200).then_some(text)
}

/// How many positions a model has, if its configuration is there.
fn positions(config: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(config).ok()?;
    Some(crate::model::Model::from_config(&text).ok()?.positions as u64)
}

/// A path from here, as it is called from `folder`.
fn seen_from(folder: &Path, path: &Path) -> String {
    let without_dots =
        |path: &Path| -> PathBuf { path.components().filter(|part| *part != Component::CurDir).collect() };
    let is_plain = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
    let (folder, path) = (without_dots(folder), without_dots(path));
    let seen = if path.is_absolute() {
        path
    } else if is_plain(&folder) {
        match path.strip_prefix(&folder) {
            Ok(inside) if is_plain(&path) => inside.to_path_buf(),
            _ => folder.components().map(|_| Component::ParentDir).collect::<PathBuf>().join(path),
        }
    } else {
        std::path::absolute(&path).unwrap_or(path)
    };
    seen.display().to_string()
}

fn there(file: &Path) -> Problem {
    Problem::of(Fault::Output, "hift::cli::new", format!("{} is there already", file.display()))
        .help("name another file, or remove this one")
}

fn write(file: &Path, text: &str) -> Result<(), Problem> {
    let wrong = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => there(file),
        _ => Problem::of(
            Fault::Output,
            "hift::cli::new",
            format!("{} cannot be written: {error}", file.display()),
        )
        .help("name a file in a folder that is there and can be written to"),
    };
    let mut opened = OpenOptions::new().write(true).create_new(true).open(file).map_err(wrong)?;
    opened.write_all(text.as_bytes()).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_called_as_the_pipeline_sees_them() {
        let check = |folder: &str, path: &str, seen: &str| {
            assert_eq!(seen_from(Path::new(folder), Path::new(path)), seen, "{path} from {folder}");
        };
        check(".", "data/a.jsonl", "data/a.jsonl");
        check("pipelines", "data/a.jsonl", "../data/a.jsonl");
        check("pipelines", "pipelines/data/a.jsonl", "data/a.jsonl");
        check("./pipelines/x", "./models/a", "../../models/a");
        check("pipelines", "../models/a", "../../models/a");
        check("pipelines", "/models/a", "/models/a");
    }

    #[test]
    fn memory_is_an_amount_with_its_unit() {
        let check = |text: &str, written: Option<&str>| assert_eq!(memory(text).ok().as_deref(), written);
        check("24GiB", Some("24 GiB"));
        check("1.5 TB", Some("1.5 TB"));
        check("24", None);
        check("24 steps", None);
        check("much", None);
    }
}
