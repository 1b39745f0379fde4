//! `hift man`

use std::path::PathBuf;

use clap::ValueHint;

use super::{Failure, print};
use crate::problem::{Fault, Problem};

#[derive(Debug, clap::Args)]
#[command(after_help = "`hift man | man -l -` shows the page of the program.")]
pub struct Man {
    /// Write a page for each command into this folder: `hift man --dir ~/.local/share/man/man1`
    #[arg(long, value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

impl Man {
    pub fn run(self) -> Result<(), Failure> {
        let Some(folder) = self.dir else {
            let mut page = Vec::new();
            // Writing into memory does not fail.
            let _ = clap_mangen::Man::new(super::command()).render(&mut page);
            return Ok(print(&String::from_utf8_lossy(&page))?);
        };
        let written = std::fs::create_dir_all(&folder)
            .and_then(|()| clap_mangen::generate_to(super::command(), &folder));
        written.map_err(|error| {
            Problem::of(
                Fault::Output,
                "hift::cli::man",
                format!("the pages cannot be written to {}: {error}", folder.display()),
            )
            .help("name a folder that can be written to")
        })?;
        Ok(())
    }
}
