//! `hift check`

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::hub::{self, Purpose};
use super::{Failure, Sets, disk::Disk, options, print, read, replace, show};
use crate::lang::{self, Fixed, Source};
use crate::plan;
use crate::problem::{Problem, Problems};
use crate::report::problems::{self, Checked};

#[derive(Debug, clap::Args)]
pub struct Check {
    /// Pipeline files
    #[arg(required = true, value_hint = clap::ValueHint::FilePath)]
    files: Vec<PathBuf>,
    /// Read and tokenise the data too, and say what becomes of its rows
    #[arg(long)]
    data: bool,
    /// Change what leaves no doubt about what was meant; of imported files, nothing
    #[arg(long)]
    fix: bool,
    /// With `--fix`, show what would change and write nothing
    #[arg(long, requires = "fix")]
    dry_run: bool,
    /// For people, or for machines: all problems on standard output, in one of these forms
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    #[command(flatten)]
    sets: Sets,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Drawn into the text, on standard error
    Human,
    /// One object with every problem, its places and its fix
    Json,
    /// SARIF 2.1.0, for code scanners
    Sarif,
    /// Commands for GitHub's workflows, a line each
    Github,
}

impl Check {
    pub fn run(self) -> Result<(), Failure> {
        let mut checked = Vec::new();
        for file in &self.files {
            let found = self.file(file);
            if self.format == Format::Human {
                self.tell(&found)?;
            }
            checked.push(found);
        }
        match self.format {
            Format::Human => {}
            Format::Json => print(&pretty(&problems::json(&checked)))?,
            Format::Sarif => print(&pretty(&problems::sarif(&checked)))?,
            Format::Github => print(&problems::github(&checked))?,
        }
        let Some(fault) = problems::fault(&checked) else { return Ok(()) };
        if self.format != Format::Human {
            return Err(Failure::told(fault));
        }
        let n = checked.iter().filter(|file| file.problems.has_errors()).count();
        let (n_files, has) = (self.files.len(), if n == 1 { "has" } else { "have" });
        let files = if n_files == 1 { "pipeline" } else { "pipelines" };
        let text = format!("{n} of {n_files} {files} {has} mistakes");
        let problem = Problem::of(fault, "hift::cli::check", text);
        let wrong = checked.iter().flat_map(|file| &file.problems.0);
        let n_fixes = wrong.filter(|problem| !problem.fix.is_empty()).count();
        Err(match n_fixes {
            n if n > 0 && !self.fix => problem.help(format!("`hift check --fix` can mend {n} of them")),
            _ => problem,
        }
        .into())
    }

    /// Everything that can be said about one file, once it is fixed where that is asked for.
    fn file(&self, file: &Path) -> Checked {
        let name = file.display().to_string();
        let nothing =
            |failure: Failure| Checked::new(name.clone(), failure.problems, failure.sources, Vec::new());
        let source = match read(file) {
            Ok(source) => source,
            Err(failure) => return nothing(failure),
        };
        let (reading, fixed) = match self.fixed(file, &source) {
            Ok(Some(Fixed { changes, reading, .. })) if !self.dry_run => (reading, changes),
            Ok(fixed) => {
                let changes = fixed.map_or(Vec::new(), |fixed| fixed.changes);
                (lang::read(source, &options(file, &self.sets)), changes)
            }
            Err(problem) => return nothing(problem.into()),
        };
        let (sources, mut problems) = (reading.loaded.sources, reading.problems);
        let (mut audits, mut hooks) = (Vec::new(), Vec::new());
        if let Some(mut pipeline) = reading.pipeline {
            hooks.clone_from(&pipeline.hooks);
            let settled = hub::settle(&mut pipeline, file, Purpose::Plan { rows: self.data });
            let (planned, seen) = match settled {
                Ok(()) => self.plan(&pipeline),
                Err(problems) => (problems, Vec::new()),
            };
            audits = seen;
            #[cfg(feature = "run")]
            let planned = Problems([planned.0, crate::data::check_files(&pipeline).0].concat());
            for problem in planned.0 {
                if !problems.0.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
        let mut checked = Checked::new(name, problems, sources, fixed);
        checked.audits = audits;
        checked.hooks = hooks;
        checked
    }

    /// Fixes a file, where that is asked for and changes anything.
    fn fixed(&self, file: &Path, source: &Source) -> Result<Option<Fixed>, Problem> {
        if !self.fix {
            return Ok(None);
        }
        let fixed = lang::fix(source.clone(), &options(file, &self.sets));
        if fixed.text == source.text {
            return Ok(None);
        }
        if !self.dry_run {
            replace(file, fixed.text.as_bytes())?;
        }
        Ok(Some(fixed))
    }

    /// Says to people what was changed, and what is wrong.
    fn tell(&self, checked: &Checked) -> Result<(), Problem> {
        let Checked { name, problems, sources, fixed, hooks, .. } = checked;
        if !fixed.is_empty() {
            let (n, would) = (fixed.len(), if self.dry_run { "would be " } else { "" });
            let mistakes = if n == 1 { "mistake" } else { "mistakes" };
            let mut text = format!("{name}: {n} {mistakes} {would}fixed\n");
            for change in fixed {
                text += &format!("  line {}: {}\n", change.line, change.message);
            }
            print(&text)?;
        }
        if !problems.0.is_empty() {
            show(problems, sources);
        }
        for (text, _) in &checked.audits {
            print(text)?;
        }
        if !problems.has_errors() {
            print(&format!("{name}: no mistakes\n"))?;
            for hook in hooks {
                let on: Vec<&str> = hook.on.iter().map(|outcome| outcome.word()).collect();
                print(&format!("{name}: on {} runs: {}\n", on.join(", "), hook.run.value))?;
            }
        }
        Ok(())
    }

    /// What only the model, its weights' headers and, if asked for, the rows can tell; and what became of the rows.
    fn plan(&self, pipeline: &lang::Pipeline) -> (Problems, Vec<(String, Json)>) {
        #[cfg(feature = "run")]
        {
            let mut library = crate::data::Library::new(pipeline.folder.clone(), &|| false);
            library = library.with_cache(super::cache::cache());
            let mut disk = Disk { library: self.data.then_some(&mut library) };
            match plan::compile(pipeline, &mut disk) {
                Ok(plan) => {
                    let (mut warnings, mut audits) = (plan.warnings.clone(), Vec::new());
                    if self.data {
                        warnings.extend(super::plan::row_warnings(&plan, &mut library));
                        audits = super::plan::audits(&plan, &mut library);
                    }
                    (Problems(warnings), audits)
                }
                Err(problems) => (problems, Vec::new()),
            }
        }
        #[cfg(not(feature = "run"))]
        match plan::compile(pipeline, &mut Disk { library: None }) {
            Ok(plan) => (Problems(plan.warnings), Vec::new()),
            Err(problems) => (problems, Vec::new()),
        }
    }
}

fn pretty(json: &serde_json::Value) -> String {
    format!("{}\n", serde_json::to_string_pretty(json).expect("a value is JSON"))
}
