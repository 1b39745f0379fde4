//! `hift render`

use std::path::PathBuf;

use super::{Failure, Sets, options, print, read, show};
use crate::lang;

#[derive(Debug, clap::Args)]
pub struct Render {
    /// The pipeline file
    file: PathBuf,
    /// Leave out where values come from
    #[arg(long, conflicts_with = "json")]
    plain: bool,
    /// Print blocks, keys, values and their origins as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sets: Sets,
}

impl Render {
    pub fn run(self) -> Result<(), Failure> {
        let reading = lang::read(read(&self.file)?, &options(&self.file, &self.sets));
        let (sources, problems) = (&reading.loaded.sources, &reading.problems);
        if reading.pipeline.is_none() {
            return Err(Failure::of(reading.problems, sources));
        }
        if !problems.0.is_empty() {
            show(problems, sources);
        }
        match self.json {
            true => {
                let json = reading.resolved.json(sources);
                print(&format!("{}\n", serde_json::to_string_pretty(&json).expect("blocks are JSON")))?;
            }
            false => print(&reading.resolved.text(sources, self.plain))?,
        }
        Ok(())
    }
}
