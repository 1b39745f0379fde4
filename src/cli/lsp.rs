//! `hift lsp`

use std::sync::Arc;

use lsp_server::Connection;

use super::hub::{self, Purpose};
use super::{Failure, Machine, disk::Disk, plan::check_limits, profile};
use crate::estimate::Estimate;
use crate::lang::Pipeline;
use crate::lsp;
use crate::plan::{self, Plan};
use crate::problem::{Problems, Severity};

#[derive(Debug, clap::Args)]
pub struct Lsp {
    /// Speak over standard input and output, as it does anyway; some editors say so
    #[arg(long)]
    stdio: bool,
}

impl Lsp {
    pub fn run(self) -> Result<(), Failure> {
        let Self { stdio: _ } = self;
        let (connection, threads) = Connection::stdio();
        let machine = lsp::Machine { outside: Arc::new(Machine::default()), plan };
        lsp::serve(&connection, machine)?;
        // What is still to be written is written when the connection is dropped.
        drop(connection);
        Ok(threads.join().map_err(lsp::server::ended)?)
    }
}

fn plan(pipeline: &Pipeline, rows: bool, stop: &dyn Fn() -> bool) -> (Problems, Option<(Plan, Estimate)>) {
    // An editor never waits for the network: what is not in the Hub's cache is a problem like a missing file.
    let mut pipeline = pipeline.clone();
    let file = pipeline.folder.join("pipeline.hift");
    let settled = hub::settle(&mut pipeline, &file, Purpose::Look { rows });
    if let Err(problems) = settled {
        return (problems, None);
    }
    let pipeline = &pipeline;
    #[cfg(feature = "run")]
    let (compiled, mut problems) = {
        let mut library = crate::data::Library::new(pipeline.folder.clone(), stop);
        let mut disk = Disk { library: rows.then_some(&mut library) };
        (plan::compile(pipeline, &mut disk), crate::data::check_files(pipeline))
    };
    #[cfg(not(feature = "run"))]
    let (compiled, mut problems) = {
        let (_, _) = (rows, stop);
        (plan::compile(pipeline, &mut Disk { library: None }), Problems::default())
    };
    if stop() {
        return Default::default();
    }
    let plan = match compiled {
        Ok(plan) => super::plan::settled(plan).0,
        Err(found) => {
            problems.0.splice(0..0, found.0);
            return (problems, None);
        }
    };
    let estimate = profile::estimated(&plan);
    for mut problem in check_limits(pipeline, &plan, &estimate).err().unwrap_or_default().0 {
        if !rows {
            // Rows may turn out to be shorter.
            problem.severity = Severity::Warning;
            problem.message = format!("with rows as long as they may be, {}", problem.message);
        }
        problems.push(problem);
    }
    (problems, Some((plan, estimate)))
}
