//! `hift check`

use std::path::PathBuf;

use super::{Failure, Sets, disk::Disk, options, read, show};
use crate::lang;
use crate::plan;
use crate::problem::{Fault, Problem, Problems};

#[derive(Debug, clap::Args)]
pub struct Check {
    /// Pipeline files
    #[arg(required = true, value_hint = clap::ValueHint::FilePath)]
    files: Vec<PathBuf>,
    /// Read and tokenise the data too, and say what becomes of its rows
    #[arg(long)]
    data: bool,
    #[command(flatten)]
    sets: Sets,
}

impl Check {
    pub fn run(self) -> Result<(), Failure> {
        let mut faults: Vec<Fault> = Vec::new();
        for file in &self.files {
            let source = match read(file) {
                Ok(source) => source,
                Err(failure) => {
                    failure.print();
                    faults.push(failure.problems.fault());
                    continue;
                }
            };
            let reading = lang::read(source, &options(file, &self.sets));
            let (sources, mut problems) = (reading.loaded.sources, reading.problems);
            if let Some(pipeline) = reading.pipeline {
                let planned = self.plan(&pipeline).err().unwrap_or_default();
                #[cfg(feature = "run")]
                let planned = Problems([planned.0, crate::data::check_files(&pipeline).0].concat());
                for problem in planned.0 {
                    if !problems.0.contains(&problem) {
                        problems.push(problem);
                    }
                }
            }
            if !problems.0.is_empty() {
                show(&problems, &sources);
            }
            if problems.has_errors() {
                faults.push(problems.fault());
            } else {
                super::print(&format!("{}: no mistakes\n", file.display()))?;
            }
        }
        match faults.first() {
            None => Ok(()),
            Some(fault) => {
                let n = faults.len();
                let (n_files, has) = (self.files.len(), if n == 1 { "has" } else { "have" });
                let files = if n_files == 1 { "pipeline" } else { "pipelines" };
                let text = format!("{n} of {n_files} {files} {has} mistakes");
                Err(Problem::of(*fault, "hift::cli::check", text).into())
            }
        }
    }

    /// What only the model, its weights' headers and, if asked for, the rows can tell.
    fn plan(&self, pipeline: &lang::Pipeline) -> Result<(), Problems> {
        #[cfg(feature = "run")]
        {
            let mut library = crate::data::Library::new(pipeline.folder.clone(), &|| false);
            let mut disk = Disk { library: self.data.then_some(&mut library) };
            plan::compile(pipeline, &mut disk).map(|_| ())
        }
        #[cfg(not(feature = "run"))]
        plan::compile(pipeline, &mut Disk { library: None }).map(|_| ())
    }
}
