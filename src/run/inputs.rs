//! Which files a pipeline reads: its own text and imports, rows, tokenizers, configurations, weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::data;
use crate::lang::pipeline::{Model, Stage, Weights};
use crate::lang::{Pipeline, Sources};
use crate::lock::{Hashed, Listing, Role, Wanted};
use crate::weights;

/// Lists the inputs of a pipeline, without a look into any. `sources` are its own texts, `variables` those of the
/// environment that it asks for.
pub fn list(pipeline: &Pipeline, sources: &Sources, variables: BTreeMap<String, String>) -> Listing {
    let variables = variables.into_iter().map(|(name, value)| (format!("env({name:?})"), value));
    let params = pipeline.params.iter().cloned().chain(variables).collect();
    let repositories = pipeline
        .snapshots
        .iter()
        .map(|snapshot| (PathBuf::from(&snapshot.folder), snapshot.label.clone(), snapshot.commit.clone()));
    let mut listing = Listing { params, files: Vec::new(), repositories: repositories.collect() };
    for source in sources.iter() {
        let name = Path::new(&source.name);
        let path = source.folder.join(name.file_name().unwrap_or(name.as_os_str()));
        let path = path.to_string_lossy().into_owned();
        let hashed = Some(Hashed::of(&path, source.text.as_bytes()));
        let place = name.to_path_buf();
        listing.add(Wanted { role: Role::Pipeline, path, place, span: None, hashed });
    }
    for stage in &pipeline.stages {
        let model = match stage {
            Stage::Train(stage) => &stage.model,
            Stage::Evaluate(stage) => &stage.model,
            Stage::Generate(stage) => &stage.model,
            Stage::Export(stage) => &stage.model,
        };
        for file in of_model(pipeline, model) {
            listing.add(file);
        }
    }
    for file in data::inputs(pipeline) {
        listing.add(file);
    }
    listing
}

fn of_model(pipeline: &Pipeline, model: &Model) -> Vec<Wanted> {
    let wanted = |role, path: &Path| Wanted {
        role,
        path: path.to_string_lossy().into_owned(),
        place: pipeline.folder.join(path),
        span: model.weights.span(),
        hashed: None,
    };
    match &*model.weights {
        Weights::Random { config, .. } => vec![wanted(Role::Config, Path::new(config))],
        Weights::Hub { path: None, .. } => Vec::new(),
        Weights::Directory { path } | Weights::Hub { path: Some(path), .. } => {
            let within = Path::new(path);
            let names = weights::names(&pipeline.folder.join(path));
            let names = names.iter().map(|name| wanted(Role::Weights, &within.join(name)));
            let generation = wanted(Role::Config, &within.join("generation_config.json"));
            [wanted(Role::Config, &within.join("config.json"))]
                .into_iter()
                // An export copies it.
                .chain(Some(generation).filter(|file| file.place.is_file()))
                .chain(names)
                .collect()
        }
    }
}
