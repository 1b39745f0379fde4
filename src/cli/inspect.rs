//! `hift inspect`

use std::path::{Path, PathBuf};

use serde_json::json;

use super::disk::Disk;
use super::hub::{self, Purpose};
use super::{Failure, Sets, colour, open, print};
use crate::data::{Encoder, Library, preview};
use crate::lang::pipeline::{Format, Stage};
use crate::model::{Model, Param};
use crate::plan;
use crate::problem::{Fault, Problem};
use crate::report;
use crate::run;
use crate::weights::Directory;

#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// A model (a directory, or a config.json), or a pipeline file whose rows are shown
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    target: PathBuf,
    /// Which data block of the pipeline
    data: Option<String>,
    /// How many rows
    #[arg(long, default_value_t = 3)]
    rows: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sets: Sets,
}

/// How files end that a data block reads, `config.json` being no such name.
const DATA: [&str; 6] = [".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".txt"];

impl Inspect {
    pub fn run(self) -> Result<(), Failure> {
        if self.target.extension().is_some_and(|extension| extension == "hift") {
            self.rows()
        } else {
            Ok(self.model()?)
        }
    }

    fn model(&self) -> Result<(), Problem> {
        if let Some(name) = self.target.file_name().and_then(|name| name.to_str())
            && DATA
                .iter()
                .any(|ending| name.trim_end_matches(".gz").trim_end_matches(".zst").ends_with(ending))
        {
            return Err(Problem::of(
                Fault::Usage,
                "hift::cli::not_a_model",
                format!("{} holds rows; how a model sees them is for a pipeline to say", self.target.display()),
            )
            .help(
                "name the pipeline that reads it, as in `hift inspect FILE.hift --rows 3`; `hift new` writes one",
            ));
        }
        let config = if self.target.is_dir() { self.target.join("config.json") } else { self.target.clone() };
        let text = std::fs::read_to_string(&config).map_err(|error| {
            Problem::of(
                Fault::Missing,
                "hift::cli::no_model",
                format!("{} cannot be read: {error}", config.display()),
            )
            .help("name a Hugging Face directory, a config.json, or a pipeline file")
        })?;
        let model = Model::from_config(&text).map_err(|mut problem| {
            problem.message = format!("{}: {}", config.display(), problem.message);
            problem
        })?;
        let directory = Directory::open(config.parent().unwrap_or(Path::new(".")))?;
        let stored = |param: &Param| {
            let entry = directory.as_ref()?.of(param)?;
            Some(format!("{:?}", entry.dtype).to_lowercase())
        };
        if self.json {
            let layers = model.layers.iter().map(|layer| {
                let tensors = layer.params.iter().map(|id| {
                    let param = model.param(*id);
                    json!({
                        "name": param.name, "path": param.path, "shape": param.shape,
                        "elements": param.elements(), "stored": stored(param),
                    })
                });
                json!({ "layer": layer.name, "tensors": tensors.collect::<Vec<_>>() })
            });
            let json = json!({
                "family": model.family, "parameters": model.n_elements(), "vocabulary": model.vocab,
                "positions": model.positions, "tied": model.tied, "layers": layers.collect::<Vec<_>>(),
            });
            print(&format!("{}\n", serde_json::to_string_pretty(&json).expect("a model is JSON")))?;
        } else {
            print(&report::model::model(&model, stored))?;
        }
        if let Some(directory) = &directory
            && let Some(problem) = directory.check(&model).0.into_iter().next()
        {
            return Err(problem);
        }
        Ok(())
    }

    fn rows(&self) -> Result<(), Failure> {
        let (sources, mut pipeline) = open(&self.target, &self.sets)?;
        hub::settle(&mut pipeline, &self.target, Purpose::Plan { rows: true })
            .map_err(|problems| Failure::of(problems, &sources))?;
        let of_stages = || {
            pipeline.stages.iter().filter_map(|stage| match stage {
                Stage::Train(stage) => Some((&stage.data, &stage.tokenizer, &stage.model)),
                Stage::Evaluate(stage) => Some((&stage.data, &stage.tokenizer, &stage.model)),
                Stage::Generate(stage) => {
                    stage.data.as_ref().map(|data| (data, &stage.tokenizer, &stage.model))
                }
                Stage::Export(_) => None,
            })
        };
        // The blocks of a mix can be looked at by themselves, too.
        let of_mixes = || {
            of_stages().flat_map(|(data, tokenizer, model)| {
                data.parts().into_iter().map(move |part| (part, tokenizer, model))
            })
        };
        let blocks = || of_stages().chain(of_mixes());
        let found = blocks().find(|(data, ..)| self.data.as_ref().is_none_or(|name| data.name == *name));
        let Some((data, tokenizer, model)) = found else {
            let mut names: Vec<&str> = blocks().map(|(data, ..)| data.name.as_str()).collect();
            let mut said = std::collections::HashSet::new();
            names.retain(|name| said.insert(*name));
            let help = match names.as_slice() {
                [] => "`hift plan` shows what the stages of this pipeline do".to_string(),
                names => format!("the stages read: {}", names.join(", ")),
            };
            return Err(Problem::of(Fault::Usage, "hift::cli::no_data", "no stage reads such a data block")
                .help(help)
                .into());
        };
        let model = plan::read_model(&pipeline, model, &mut Disk { library: None })
            .map_err(|problems| Failure::of(problems, &sources))?
            .model;
        let mut library = Library::new(pipeline.folder.clone(), &|| false).with_cache(super::cache::cache());
        plan::check_task(data, tokenizer, &model).map_err(|problem| Failure::of(problem, &sources))?;
        let limits = run::limits(&model);
        let dataset =
            library.get(data, tokenizer, &limits).map_err(|problems| Failure::of(problems, &sources))?;
        let has_text = |format: &Format| match format {
            Format::Text { .. }
            | Format::Instruct { .. }
            | Format::Classify { .. }
            | Format::TokenLabels { .. }
            | Format::Question { .. }
            | Format::Chat { .. } => true,
            Format::Tokens { .. } | Format::OfParts => false,
        };
        let encoder = match data.parts().iter().any(|part| has_text(&part.format)) {
            false => None,
            true => Some(
                Encoder::open(&pipeline.folder, tokenizer)
                    .map_err(|problem| Failure::of(problem, &sources))?,
            ),
        };
        let previews = preview(&dataset.train, encoder.as_ref(), Some(&limits), self.rows);
        if self.json {
            let json = json!({
                "data": data.name, "rows": previews, "audit": dataset.audit, "cache": dataset.cached,
            });
            print(&format!("{}\n", serde_json::to_string_pretty(&json).expect("rows are JSON")))?;
        } else {
            print(&report::rows::rows(&previews, colour()))?;
            print(&report::audit::text(&data.name, &json!(dataset.audit)))?;
            print(&report::rows::cached(&dataset.cached))?;
        }
        Ok(())
    }
}
