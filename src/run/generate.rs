//! Prompts to texts, of a generate stage or while training evaluates, and the file that holds them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::data::{Dataset, Encoder, Marks, exercises};
use crate::engine::Store;
use crate::lang::pipeline::{Data, Tokenizer};
use crate::model::Model;
use crate::plan::{Decoding, GeneratePlan, ModelPlan, Samples, StagePlan, TrainPlan};
use crate::problem::{Fault, Problem, Problems};

use super::decode::{Ends, Prompt, continue_all};
use super::directory::write_whole;
use super::{Order, export, unwritable};

/// How a prompt was continued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    pub prompt: String,
    pub text: String,
    /// What would have been right, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    pub finish: Finish,
    /// New tokens, without the one that ends them.
    pub tokens: u64,
}

/// Why a text is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// An end mark came.
    End,
    /// A text that ends an answer.
    Stop,
    /// `max_new_tokens`, or the end of the model's positions.
    Length,
}

/// Prompts, ready to be continued, with what would be right, and when an answer is over.
pub struct Asked {
    encoder: Encoder,
    prompts: Vec<Prompt>,
    /// Each prompt as people read it, and its reference where it has one.
    shown: Vec<(String, Option<String>)>,
    /// Tokens that end a text.
    ends: Vec<u64>,
    /// Texts that do.
    stop: Vec<String>,
}

impl Asked {
    /// What a generate stage asks. `dataset` is that of the plan's `data`.
    ///
    /// # Errors
    /// When the tokenizer cannot be read, or no row can be continued.
    pub fn by(plan: &GeneratePlan, folder: &Path, dataset: Option<&Dataset>) -> Result<Self, Problems> {
        let model = &plan.model.model;
        match dataset.zip(plan.data.as_ref()) {
            Some(rows) => Self::of_rows(rows, &plan.tokenizer, folder, plan.at_most, model, &plan.stop),
            None => {
                let (mut asked, marks) = Self::nothing(&plan.tokenizer, folder, model, &plan.stop)?;
                for (at, prompt) in plan.prompts.iter().enumerate() {
                    let ids = asked.encoder.encode(prompt, false)?;
                    let ids = marks.begin.iter().chain(&ids).map(|id| u64::from(*id)).collect();
                    asked.prompts.push(Prompt { ids });
                    asked.shown.push((prompt.clone(), plan.references.get(at).cloned()));
                }
                Ok(asked)
            }
        }
    }

    /// The held-out rows that a train stage answers while it evaluates, if it does.
    ///
    /// # Errors
    /// As [`Asked::by`].
    pub fn while_training(
        plan: &TrainPlan,
        folder: &Path,
        dataset: &Dataset,
    ) -> Result<Option<Self>, Problems> {
        let samples = plan.evaluate.as_ref().and_then(|evaluate| evaluate.samples.as_ref());
        let of = |samples: &Samples| {
            let rows = (dataset, &plan.data);
            Self::of_rows(rows, &plan.tokenizer, folder, Some(samples.rows), &plan.model.model, &[])
        };
        samples.map(of).transpose()
    }

    fn nothing(
        tokenizer: &Tokenizer,
        folder: &Path,
        model: &Model,
        stop: &[String],
    ) -> Result<(Self, Marks), Problems> {
        let encoder = Encoder::open(folder, tokenizer)?;
        let marks = encoder.marks(&tokenizer.begin, &tokenizer.end)?;
        let mut ends: Vec<u64> = model.eos.iter().chain(&marks.end).map(|id| u64::from(*id)).collect();
        ends.sort_unstable();
        ends.dedup();
        let (prompts, shown) = (Vec::new(), Vec::new());
        Ok((Self { encoder, prompts, shown, ends, stop: stop.to_vec() }, marks))
    }

    fn of_rows(
        (dataset, data): (&Dataset, &Data),
        tokenizer: &Tokenizer,
        folder: &Path,
        at_most: Option<u64>,
        model: &Model,
        stop: &[String],
    ) -> Result<Self, Problems> {
        let (mut asked, marks) = Self::nothing(tokenizer, folder, model, stop)?;
        let begin: Vec<u64> = marks.begin.iter().map(|id| u64::from(*id)).collect();
        for exercise in exercises(dataset, data, tokenizer, &marks, model.positions, at_most)? {
            let own = exercise.prompt.strip_prefix(&begin[..]).unwrap_or(&exercise.prompt);
            // As far as a text that is written would go.
            let end = exercise.answer.iter().position(|id| asked.ends.contains(id));
            let mut reference = asked.text(&exercise.answer[..end.unwrap_or(exercise.answer.len())]);
            reference.truncate(asked.first_stop(&reference).unwrap_or(reference.len()));
            asked.shown.push((asked.text(own), Some(reference)));
            asked.prompts.push(Prompt { ids: exercise.prompt });
        }
        Ok(asked)
    }

    fn text(&self, ids: &[u64]) -> String {
        self.encoder.decode(&ids.iter().map(|id| *id as u32).collect::<Vec<_>>())
    }

    /// Where the first text that ends an answer begins.
    fn first_stop(&self, text: &str) -> Option<usize> {
        self.stop.iter().filter_map(|stop| text.find(stop)).min()
    }

    /// Continues each prompt until an end mark, a text that ends it, `max_new_tokens`, or the end of the model's positions.
    /// None when interrupted: a text cut short would pass for the whole.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn answered(
        &self,
        model: &ModelPlan,
        store: &mut Store,
        decoding: &Decoding,
    ) -> Result<Option<Vec<Written>>, Problem> {
        // Each token is a letter at the least, so the end of a text is enough to look at.
        let longest = self.stop.iter().map(String::len).max().unwrap_or(0);
        let stops = |ids: &[u64]| {
            longest > 0 && {
                let end = self.text(&ids[ids.len().saturating_sub(longest + 4)..]);
                self.stop.iter().any(|stop| end.contains(stop))
            }
        };
        let ends = Ends { tokens: &self.ends, stops: &stops };
        let Some(found) = continue_all(model, store, &self.prompts, decoding, &ends)? else {
            return Ok(None);
        };
        let written = found.iter().zip(&self.prompts).zip(&self.shown).map(|((ids, asked), shown)| {
            let (prompt, reference) = shown.clone();
            let mut text = self.text(ids);
            let room = model.model.positions.saturating_sub(asked.ids.len()) as u64;
            let finish = match self.first_stop(&text) {
                Some(at) => {
                    text.truncate(at);
                    Finish::Stop
                }
                None if ids.len() as u64 >= decoding.max_new_tokens.min(room) => Finish::Length,
                None => Finish::End,
            };
            Written { prompt, text, reference, finish, tokens: ids.len() as u64 }
        });
        Ok(Some(written.collect()))
    }
}

/// Writes texts as JSON lines, beside the file and then in its place.
///
/// # Errors
/// When it cannot be written (73).
pub fn write(to: &Path, texts: &[Written]) -> Result<(), Problem> {
    let mut lines = String::new();
    for text in texts {
        lines += &serde_json::to_string(text).expect("texts are JSON");
        lines.push('\n');
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(|error| unwritable(to, &error))?;
    }
    write_whole(to, &lines)
}

/// Where the texts of a stage go, if it says so, with links followed as far as the path exists.
pub fn target(order: &Order<'_>, plan: &GeneratePlan) -> Option<PathBuf> {
    plan.to.as_ref().map(|to| export::resolved(&order.folder.join(to)))
}

/// Makes sure, before anything is trained, that the texts of every stage can be written in the end.
///
/// # Errors
/// A place that cannot be written, or that holds anything but texts of an earlier run (73).
pub fn check_targets(order: &Order<'_>) -> Result<(), Problems> {
    let mut problems = Problems::default();
    for stage in &order.plan.stages {
        let StagePlan::Generate(plan) = stage else { continue };
        let Some(to) = target(order, plan) else { continue };
        if let Err(problem) = check_target(order, &to) {
            problems.push(problem);
        }
    }
    if problems.has_errors() { Err(problems) } else { Ok(()) }
}

fn check_target(order: &Order<'_>, to: &Path) -> Result<(), Problem> {
    let refused = |what: String| {
        Err(Problem::of(Fault::Output, "hift::run::not_texts", what)
            .help("choose another file for `to`, or move away what is there"))
    };
    if order.inputs.files.iter().any(|file| export::resolved(&file.place) == to) {
        return refused(format!(
            "the texts for {} would replace a file that the pipeline reads",
            to.display()
        ));
    }
    if to.exists() && !holds_texts(to) {
        return refused(format!("{} is there already and holds no texts of an earlier run", to.display()));
    }
    let probe = to.with_extension("writing");
    let folder = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&probe, ""))
        .and_then(|()| fs::remove_file(&probe))
        .map_err(|error| unwritable(to, &error))
}

/// Whether a file is empty, or begins with a line as [`write`] writes them.
fn holds_texts(path: &Path) -> bool {
    use std::io::{BufRead, BufReader};
    let Ok(file) = fs::File::open(path) else { return false };
    let mut line = String::new();
    match BufReader::new(file).read_line(&mut line) {
        Ok(0) => true,
        Ok(_) => {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            ["prompt", "text", "finish", "tokens"].iter().all(|key| !line[*key].is_null())
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_texts_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("texts.jsonl");
        let check = |held: &str, expected: bool| {
            fs::write(&path, held).unwrap();
            assert_eq!(holds_texts(&path), expected, "{held}");
        };
        check("", true);
        check("{\"prompt\":\"a\",\"text\":\"b\",\"finish\":\"end\",\"tokens\":1}\n", true);
        check("{\"prompt\":\"a\",\"completion\":\"b\"}\n", false);
        check("anything\n", false);
        check("3\n", false);
        let text = Written {
            prompt: "a".into(),
            text: "b\n".into(),
            reference: None,
            finish: Finish::Length,
            tokens: 2,
        };
        write(&path, &[text]).unwrap();
        assert!(holds_texts(&path));
        let line = "{\"prompt\":\"a\",\"text\":\"b\\n\",\"finish\":\"length\",\"tokens\":2}\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), line);
        assert!(!holds_texts(folder.path()));
    }
}
