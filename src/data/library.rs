//! Datasets that were loaded once: planning counts their rows, running trains on them.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Cache, Dataset, Limits, load_through};
use crate::lang::pipeline::{Data, Tokenizer};
use crate::problem::Problems;

/// Loads each combination of data, tokenizer and limits once.
pub struct Library<'a> {
    /// Relative paths start here.
    folder: PathBuf,
    cancelled: &'a dyn Fn() -> bool,
    /// Tokens of earlier runs.
    cache: Option<Cache>,
    loaded: Vec<(Data, Tokenizer, Limits, Arc<Dataset>)>,
}

impl<'a> Library<'a> {
    pub fn new(folder: PathBuf, cancelled: &'a dyn Fn() -> bool) -> Self {
        Self { folder, cancelled, cache: None, loaded: Vec::new() }
    }

    /// With the tokens of earlier runs.
    pub fn with_cache(self, cache: Option<Cache>) -> Self {
        Self { cache, ..self }
    }

    /// # Errors
    /// As [`super::load`].
    pub fn get(
        &mut self,
        data: &Data,
        tokenizer: &Tokenizer,
        limits: &Limits,
    ) -> Result<Arc<Dataset>, Problems> {
        let known = self.loaded.iter().find(|(d, t, l, _)| d == data && t == tokenizer && l == limits);
        if let Some((.., dataset)) = known {
            return Ok(dataset.clone());
        }
        let dataset =
            load_through(self.cache.as_ref(), &self.folder, data, tokenizer, limits, self.cancelled)?;
        let dataset = Arc::new(dataset);
        self.loaded.push((data.clone(), tokenizer.clone(), limits.clone(), dataset.clone()));
        Ok(dataset)
    }
}
