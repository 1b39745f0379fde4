//! Whether what lies in a run directory is a run of this very plan.
//!
//! Paths in a plan start from the folder of its pipeline. Two that lead to the same file are the same, however they
//! are written: `pipeline.hift` in a run directory means what the file meant that it was made from. And some settings
//! change no weight, so a run may go on under other ones.

use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value as Json};

use crate::lock::Lock;

use super::export;

/// How a plan stands to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kinship {
    Same,
    /// Another in what changes no weight: these settings.
    Harmless(Vec<String>),
    Another,
}

/// A plan and the folder that its paths start from.
pub struct Placed<'a> {
    pub plan: &'a Json,
    pub folder: &'a Path,
}

/// Compares two plans.
pub fn compare(old: &Placed<'_>, new: &Placed<'_>) -> Kinship {
    let same = |a: &Json, b: &Json| is_same(a, b, old.folder, new.folder);
    if same(old.plan, new.plan) {
        return Kinship::Same;
    }
    let (bare_old, bare_new) = (bare(old.plan), bare(new.plan));
    if !same(&bare_old, &bare_new) {
        return Kinship::Another;
    }
    let stages = |plan: &Json| plan["stages"].as_array().cloned().unwrap_or_default();
    let mut changed = Vec::new();
    if old.plan["hooks"] != new.plan["hooks"] {
        changed.push("the hooks".to_string());
    }
    for (old, new) in stages(old.plan).iter().zip(&stages(new.plan)) {
        let keys = HARMLESS.iter().filter(|key| !same(&old[**key], &new[**key]));
        changed.extend(keys.map(|key| format!("`{key}` of {}", new["name"].as_str().unwrap_or_default())));
    }
    Kinship::Harmless(changed)
}

/// Parts of a train stage that change no weight.
const HARMLESS: [&str; 3] = ["evaluate", "checkpoint", "memory_limit"];

/// The plan without what changes no weight.
fn bare(plan: &Json) -> Json {
    let mut plan = plan.clone();
    plan.as_object_mut().map(|plan| plan.shift_remove("hooks"));
    for stage in plan["stages"].as_array_mut().into_iter().flatten().filter_map(Json::as_object_mut) {
        // Where evaluations decide when training ends, or with which weights, they are no longer harmless.
        let patience = stage.get("evaluate").is_some_and(|part| !part["patience"].is_null());
        let with_best = stage.get("checkpoint").is_some_and(|part| part["ends_with_best"] == true);
        if stage.get("kind").is_none_or(|kind| kind != "train") {
            continue;
        }
        match stage.get_mut("evaluate").and_then(Json::as_object_mut) {
            Some(evaluate) if patience || with_best => drop(evaluate.shift_remove("samples")),
            Some(_) | None => drop(stage.shift_remove("evaluate")),
        }
        match stage.get_mut("checkpoint").and_then(Json::as_object_mut) {
            Some(checkpoint) if patience || with_best => keep_only(checkpoint, &["best", "ends_with_best"]),
            Some(_) | None => drop(stage.shift_remove("checkpoint")),
        }
        stage.shift_remove("memory_limit");
    }
    plan
}

fn keep_only(entries: &mut Map<String, Json>, keys: &[&str]) {
    entries.retain(|key, _| keys.contains(&key.as_str()));
}

/// Whether two values are equal, or paths that lead to the same place.
fn is_same(a: &Json, b: &Json, from_a: &Path, from_b: &Path) -> bool {
    match (a, b) {
        (Json::String(a), Json::String(b)) => a == b || leads(from_a, a) == leads(from_b, b),
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b, from_a, from_b))
        }
        (Json::Object(a), Json::Object(b)) => {
            let keys = a.keys().chain(b.keys());
            let of = |map: &Map<String, Json>, key: &str| map.get(key).cloned().unwrap_or_default();
            keys.into_iter().all(|key| is_same(&of(a, key), &of(b, key), from_a, from_b))
        }
        (a, b) => a == b,
    }
}

/// Where a path leads; what is not there yet is taken as it is written.
fn leads(folder: &Path, path: &str) -> PathBuf {
    let mut place = PathBuf::new();
    for part in export::resolved(&folder.join(path)).components() {
        match part {
            Component::ParentDir => drop(place.pop()),
            part => place.push(part),
        }
    }
    place
}

/// A lock whose paths start from another folder, with those that lead to what `now` reads called as it calls them.
pub fn renamed(mut lock: Lock, folder: &Path, now: &Lock, now_from: &Path) -> Lock {
    let places: Vec<_> = now.inputs.iter().map(|input| (leads(now_from, &input.path), &input.path)).collect();
    for input in &mut lock.inputs {
        let place = leads(folder, &input.path);
        if let Some((_, path)) = places.iter().find(|(known, _)| *known == place) {
            input.path = (*path).clone();
        }
    }
    lock
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(evaluate: Json, checkpoint: Json, path: &str) -> Json {
        json!({ "stages": [{
            "kind": "train", "name": "sft", "data": { "source": { "path": path } }, "steps": 9,
            "evaluate": evaluate, "checkpoint": checkpoint, "memory_limit": null,
        }] })
    }

    #[track_caller]
    fn check(old: &Json, new: &Json, folder: &str, kinship: Kinship) {
        let (old, new) = (
            Placed { plan: old, folder: Path::new("/x/runs/a") },
            Placed { plan: new, folder: Path::new(folder) },
        );
        assert_eq!(compare(&old, &new), kinship);
    }

    #[test]
    fn paths_are_compared_by_where_they_lead() {
        let (none, old) = (|| Json::Null, plan(Json::Null, Json::Null, "../../rows"));
        check(&old, &plan(none(), none(), "rows"), "/x", Kinship::Same);
        check(&old, &plan(none(), none(), "rows"), "/y", Kinship::Another);
    }

    #[test]
    fn what_changes_no_weight_may_change() {
        let evaluate = |steps: u64, patience: Json| json!({ "steps": steps, "patience": patience });
        let keep = |keep: u64| json!({ "steps": 3, "keep": keep, "best": null, "ends_with_best": false });
        let old = plan(evaluate(3, Json::Null), keep(1), "rows");
        let harmless =
            |what: &[&str]| Kinship::Harmless(what.iter().map(|what| (*what).to_string()).collect());
        let new = |every: u64, kept: u64| plan(evaluate(every, Json::Null), keep(kept), "rows");
        check(&old, &new(3, 1), "/x/runs/a", Kinship::Same);
        check(&old, &new(5, 1), "/x/runs/a", harmless(&["`evaluate` of sft"]));
        check(&old, &new(3, 2), "/x/runs/a", harmless(&["`checkpoint` of sft"]));
        // Patience says when training ends.
        let patient = |every: u64, kept: u64| plan(evaluate(every, json!(2)), keep(kept), "rows");
        check(&old, &patient(3, 1), "/x/runs/a", Kinship::Another);
        check(&patient(3, 1), &patient(5, 1), "/x/runs/a", Kinship::Another);
        check(&patient(3, 1), &patient(3, 2), "/x/runs/a", harmless(&["`checkpoint` of sft"]));
    }
}
