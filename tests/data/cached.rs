//! Tokens that are kept: what they follow from, and what may go wrong around them.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::cases::Case;
use hift::data::{Cache, Cached, Dataset, load_through};
use hift::lang::pipeline::{Holdout, Shuffle, Source, TooLong};

fn load(case: &Case, cache: &Cache) -> Dataset {
    let folder = case.folder.path();
    load_through(Some(cache), folder, &case.data, &case.tokenizer, &case.limits, &|| false).unwrap()
}

/// Loads through a cache, and checks that it gives what comes without one.
fn check(case: &Case, cache: &Cache, expected: &Cached) -> Dataset {
    let dataset = load(case, cache);
    assert_eq!(dataset.cached, *expected);
    let plain = case.load().unwrap();
    assert_eq!((&dataset.train, &dataset.holdout), (&plain.train, &plain.holdout));
    assert_eq!((&dataset.audit, &dataset.hashes), (&plain.audit, &plain.hashes));
    dataset
}

fn cache(case: &Case) -> Cache {
    Cache::at(case.folder.path().join("cache"))
}

fn made(changes: &[&str]) -> Cached {
    Cached::Made(changes.iter().map(|change| (*change).to_owned()).collect())
}

fn files(cache: &Cache) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(cache.folder()).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn what_was_made_once_is_read() {
    let case = Case::text(&["abc", "c", "de", "e", "abab"]).max_length(3);
    let cache = cache(&case);
    check(&case, &cache, &made(&[]));
    check(&case, &cache, &Cached::Read);
    // What rows become of the tokens, and where the files lie, is no part of the key.
    let case = case.with(|case| {
        case.data.holdout.value = Holdout::Rows(2);
        case.data.shuffle.value = Shuffle::Seed(3);
        case.data.dedup.value = true;
        case.tokenizer.pack.value = true;
    });
    check(&case, &cache, &Cached::Read);
    fs::rename(case.folder.path().join("rows.jsonl"), case.folder.path().join("moved.jsonl")).unwrap();
    let case = case.with(|case| case.data.source.value = Source::Json { path: "moved.jsonl".into() });
    check(&case, &cache, &Cached::Read);
    assert_eq!(files(&cache).len(), 2, "one pair of files, and no lock");
}

#[test]
fn what_has_changed_is_said() {
    let case = Case::text(&["abc", "c"]);
    let cache = cache(&case);
    check(&case, &cache, &made(&[]));
    let case = case.max_length(3);
    check(&case, &cache, &made(&["`max_length` was 12, is 3"]));
    let case = case.with(|case| case.tokenizer.too_long.value = TooLong::CutLeft);
    check(&case, &cache, &made(&["`too_long` was \"cut\", is \"cut_left\""]));
    let case = case.write("rows.jsonl", "{\"text\": \"d\"}\n");
    let Cached::Made(changes) = load(&case, &cache).cached else { panic!("made anew") };
    assert!(
        matches!(changes.as_slice(), [one] if one.starts_with("`rows.jsonl` was sha256 ")),
        "{changes:?}"
    );
    let case = case.write("tokenizer_config.json", r#"{"eos_token": "<pad>"}"#);
    let Cached::Made(changes) = load(&case, &cache).cached else { panic!("made anew") };
    assert!(
        matches!(changes.as_slice(), [one] if one.starts_with("`tokenizer_config.json` was ")),
        "{changes:?}"
    );
}

#[test]
fn damage_is_noticed() {
    let case = Case::text(&["abc", "c", "de"]);
    let cache = cache(&case);
    check(&case, &cache, &made(&[]));
    let tokens =
        files(&cache).into_iter().find(|path| path.extension().is_some_and(|e| e == "arrow")).unwrap();
    let length = fs::metadata(&tokens).unwrap().len();
    for at in [length / 2, length - 1, 8] {
        let mut file = fs::File::options().read(true).write(true).open(&tokens).unwrap();
        let byte = [fs::read(&tokens).unwrap()[at as usize] ^ 1];
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&byte).unwrap();
        check(&case, &cache, &made(&[]));
        check(&case, &cache, &Cached::Read);
    }
    fs::write(&tokens, &fs::read(&tokens).unwrap()[..length as usize / 2]).unwrap();
    check(&case, &cache, &made(&[]));
    // The card is written last: without it there is nothing.
    let card = tokens.with_extension("json");
    fs::write(&card, "{").unwrap();
    check(&case, &cache, &made(&[]));
    fs::remove_file(&card).unwrap();
    check(&case, &cache, &made(&[]));
    check(&case, &cache, &Cached::Read);
}

#[test]
fn those_who_come_at_once_make_it_once() {
    let case = Case::text(&["abc", "c", "de"]);
    let cache = cache(&case);
    let n_made = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| match load(&case, &cache).cached {
                Cached::Made(_) => drop(n_made.fetch_add(1, Ordering::SeqCst)),
                Cached::Read => {}
                Cached::Off => panic!("there is a cache"),
            });
        }
    });
    assert_eq!(n_made.into_inner(), 1);
}

#[test]
fn a_cache_that_cannot_be_written_is_no_reason_to_fail() {
    let case = Case::text(&["abc", "c"]).write("file", "");
    check(&case, &Cache::at(case.folder.path().join("file/cache")), &Cached::Off);
    // Rows that are wrong are not kept, and said to be wrong each time.
    let case = Case::text(&["abc"]).write("rows.jsonl", "{\"text\": 5}\n{");
    let cache = cache(&case);
    for _ in 0..2 {
        let folder = case.folder.path();
        let problems =
            load_through(Some(&cache), folder, &case.data, &case.tokenizer, &case.limits, &|| false)
                .unwrap_err();
        assert_eq!(problems.0[0].code, "hift::data::json");
    }
    assert!(cache.list().is_empty());
}

#[test]
fn old_tokens_and_what_killed_runs_left_are_pruned() {
    let case = Case::text(&["abc", "c"]);
    let cache = cache(&case);
    check(&case, &cache, &made(&[]));
    let key = cache.list()[0].key.clone();
    assert_eq!(cache.list()[0].files, ["rows.jsonl", "tokenizer.json", "tokenizer_config.json"]);
    let put = |name: String| fs::write(cache.folder().join(name), "x").unwrap();
    put(format!("{key}.arrow.1.part"));
    put(format!("{}.arrow", "0".repeat(64)));
    put(format!("{}.lock", "1".repeat(64)));
    put("mine.txt".to_owned());
    assert_eq!(cache.prune(Duration::from_secs(3600)).unwrap().0, 0);
    let names: Vec<_> =
        files(&cache).iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names, [format!("{key}.arrow"), format!("{key}.json"), "mine.txt".to_owned()]);
    assert_eq!(cache.prune(Duration::ZERO).unwrap().0, 1);
    assert_eq!(files(&cache).len(), 1);
}

#[test]
fn the_environment_says_where_it_is() {
    let check = |variables: &[(&str, &str)], expected: Option<&str>| {
        let value =
            |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| value.into());
        let cache = Cache::of_environment(value);
        assert_eq!(cache.as_ref().map(|cache| cache.folder().to_str().unwrap()), expected, "{variables:?}");
    };
    check(&[], None);
    check(&[("HOME", "/h")], Some("/h/.cache/hift"));
    check(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], Some("/x/hift"));
    check(&[("HOME", "/h"), ("XDG_CACHE_HOME", "x")], Some("/h/.cache/hift"));
    check(&[("HOME", "/h"), ("HIFT_CACHE", "/c")], Some("/c"));
    check(&[("HOME", "/h"), ("HIFT_CACHE", "")], None);
}
