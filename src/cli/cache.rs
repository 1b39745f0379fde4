//! `hift cache`

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::{Failure, print};
use crate::data;
use crate::problem::{Fault, Problem};
use crate::report;

#[derive(Debug, clap::Args)]
pub struct Cache {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show what was tokenised and kept: size, last use, files
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove what was not used for a while, and what killed runs have left
    Prune {
        /// How long it was not used, such as `12h` or `30days`; `0s` removes all
        #[arg(long, value_name = "TIME", default_value = "30days", value_parser = humantime::parse_duration)]
        unused: Duration,
    },
}

impl Cache {
    pub fn run(self) -> Result<(), Failure> {
        let cache = cache().ok_or_else(|| {
            Problem::of(Fault::Usage, "hift::cli::no_cache", "there is no cache here")
                .help("set HIFT_CACHE to a folder, or XDG_CACHE_HOME, or HOME")
        })?;
        match self.what {
            What::List { json } => {
                let entries = cache.list();
                let text = match json {
                    true => {
                        let json = json!({ "folder": cache.folder(), "entries": entries });
                        serde_json::to_string_pretty(&json).expect("a list is JSON") + "\n"
                    }
                    false => report::rows::cache(cache.folder(), &entries),
                };
                print(&text)?;
            }
            What::Prune { unused } => {
                let (n, bytes) = cache.prune(unused).map_err(|error| {
                    Problem::of(
                        Fault::Output,
                        "hift::cli::cache",
                        format!("{} cannot be pruned: {error}", cache.folder().display()),
                    )
                })?;
                let datasets = if n == 1 { "dataset" } else { "datasets" };
                print(&format!("{n} {datasets} removed from {}, {bytes}\n", cache.folder().display()))?;
            }
        }
        Ok(())
    }
}

/// The cache that this process's environment asks for.
pub(crate) fn cache() -> Option<data::Cache> {
    data::Cache::of_environment(|name| std::env::var_os(name))
}
