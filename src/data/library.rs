//! Datasets that were loaded once: planning counts their rows, running trains on them.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Dataset, Limits, load};
use crate::lang::pipeline::{Data, Tokenizer};
use crate::problem::Problems;

/// Loads each combination of data, tokenizer and limits once.
pub struct Library<'a> {
    /// Relative paths start here.
    folder: PathBuf,
    cancelled: &'a dyn Fn() -> bool,
    loaded: Vec<(Data, Tokenizer, Limits, Arc<Dataset>)>,
}

impl<'a> Library<'a> {
    pub fn new(folder: PathBuf, cancelled: &'a dyn Fn() -> bool) -> Self {
        Self { folder, cancelled, loaded: Vec::new() }
    }

    /// # Errors
    /// As [`load`].
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
        let dataset = Arc::new(load(&self.folder, data, tokenizer, limits, self.cancelled)?);
        self.loaded.push((data.clone(), tokenizer.clone(), limits.clone(), dataset.clone()));
        Ok(dataset)
    }
}
