//! The plan's [`World`], on the disk.

use std::path::Path;

use crate::lang::Pipeline;
#[cfg(feature = "run")]
use crate::lang::pipeline::Generate;
use crate::lang::pipeline::{Data, Tokenizer};
use crate::model::Model;
#[cfg(feature = "run")]
use crate::plan::Prompts;
use crate::plan::{Rows, World};
use crate::problem::{Fault, Problem, Problems};
use crate::weights::Directory;

/// Looks at files. Rows are read and tokenised through the library, unless there is none.
pub struct Disk<'a, 'b> {
    #[cfg(feature = "run")]
    pub library: Option<&'a mut crate::data::Library<'b>>,
    #[cfg(not(feature = "run"))]
    pub library: Option<std::marker::PhantomData<&'a mut &'b ()>>,
}

impl World for Disk<'_, '_> {
    fn read(&mut self, path: &Path) -> Result<String, Problem> {
        std::fs::read_to_string(path).map_err(|error| {
            Problem::of(
                Fault::Missing,
                "hift::plan::no_config",
                format!("the model's configuration cannot be read: {}: {error}", path.display()),
            )
            .help("paths start from the pipeline file's folder; a model is a Hugging Face directory with a config.json")
        })
    }

    fn check_weights(&mut self, folder: &Path, model: &Model) -> Result<(), Problems> {
        let Some(directory) = Directory::open(folder)? else { return Ok(()) };
        let problems = directory.check(model);
        if problems.has_errors() { Err(problems) } else { Ok(()) }
    }

    #[cfg(feature = "run")]
    fn rows(
        &mut self,
        _: &Pipeline,
        data: &Data,
        tokenizer: &Tokenizer,
        model: &Model,
    ) -> Result<Option<Rows>, Problems> {
        let Some(library) = &mut self.library else { return Ok(None) };
        let dataset = library.get(data, tokenizer, &crate::run::limits(model))?;
        let (train, holdout) = (&dataset.audit.train, &dataset.audit.holdout);
        Ok(Some(Rows {
            train: train.sequences,
            holdout: holdout.sequences,
            tokens: train.tokens + holdout.tokens,
            trained_tokens: train.trained_tokens + holdout.trained_tokens,
            longest: train.longest,
            longest_holdout: holdout.longest,
            memory: dataset.host.rows,
            mapped: dataset.host.mapped,
            making: dataset.host.making,
        }))
    }

    #[cfg(feature = "run")]
    fn check_prompts(
        &mut self,
        pipeline: &Pipeline,
        stage: &Generate,
        model: &Model,
    ) -> Result<Option<Prompts>, Problems> {
        if let Some(data) = &stage.data {
            return self.check_rows(pipeline, (data, &stage.tokenizer), *stage.rows, model);
        }
        if self.library.is_none() {
            return Ok(None);
        }
        let limits = crate::run::limits(model);
        let (n, longest) =
            crate::data::check_prompts(&pipeline.folder, &stage.tokenizer, &stage.prompts, &limits)?;
        Ok(Some(Prompts { n, longest }))
    }

    #[cfg(feature = "run")]
    fn check_rows(
        &mut self,
        pipeline: &Pipeline,
        (data, tokenizer): (&Data, &Tokenizer),
        at_most: Option<u64>,
        model: &Model,
    ) -> Result<Option<Prompts>, Problems> {
        let Some(library) = &mut self.library else { return Ok(None) };
        let limits = crate::run::limits(model);
        let dataset = library.get(data, tokenizer, &limits)?;
        let (n, longest) =
            crate::data::check_exercises(&pipeline.folder, (&dataset, data), tokenizer, at_most, &limits)?;
        Ok(Some(Prompts { n, longest }))
    }

    #[cfg(not(feature = "run"))]
    fn rows(&mut self, _: &Pipeline, _: &Data, _: &Tokenizer, _: &Model) -> Result<Option<Rows>, Problems> {
        Ok(None)
    }
}
