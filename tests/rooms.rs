//! The map in `src/lib.rs` against the code: every room is there, and knows only whom the table names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Words that every room speaks.
const SHARED: &[&str] = &["problem", "units", "random"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Room and whom it may know, from the table; None for `all`.
fn table() -> BTreeMap<String, Option<BTreeSet<String>>> {
    let text = fs::read_to_string(source().join("lib.rs")).unwrap();
    let names = |cell: &str| -> Vec<String> {
        cell.split('`').skip(1).step_by(2).filter(|name| !name.contains(':')).map(str::to_string).collect()
    };
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | `"));
    rows.map(|row| {
        let row = format!("`{row}");
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let room = names(cells[0]).remove(0);
        (room, (cells[2] != "all").then(|| names(cells[2]).into_iter().collect()))
    })
    .collect()
}

/// All `.rs` files of a room, without its tests.
fn files(room: &str) -> Vec<PathBuf> {
    let mut waiting = vec![source().join(room), source().join(format!("{room}.rs"))];
    let mut files = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs")
            && path.file_stem().unwrap() != "tests"
            && path.exists()
        {
            files.push(path);
        }
    }
    files
}

#[test]
fn every_room_knows_only_whom_the_map_names() {
    let table = table();
    assert!(table.len() > 8, "the table was found: {table:?}");
    let mut wrong = Vec::new();
    for (room, allowed) in &table {
        let Some(allowed) = allowed else { continue };
        for file in files(room) {
            let text = fs::read_to_string(&file).unwrap();
            // What stands under `#[cfg(test)]` at the end of a file may look further, and so may links in comments.
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                for (at, _) in line.match_indices("crate::") {
                    let rest = &line[at + "crate::".len()..];
                    let known: String =
                        rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    let fine = known == *room || SHARED.contains(&known.as_str()) || allowed.contains(&known);
                    if !fine {
                        wrong.push(format!("{}: {}", file.display(), line.trim()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "the map in lib.rs does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn every_folder_and_file_of_the_source_is_on_the_map() {
    let mut there: BTreeSet<String> = fs::read_dir(source())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|name| !["lib", "main"].contains(&name.as_str()) && !SHARED.contains(&name.as_str()))
        .collect();
    for room in table().keys() {
        assert!(there.remove(room), "{room} is on the map, but not there");
    }
    assert!(there.is_empty(), "not on the map: {there:?}");
}
