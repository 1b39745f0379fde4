//! Any text is answered: with a meaning or with problems, and neither panics, points outside of the text or takes
//! long. What has a meaning keeps it when it is printed.
//!
//! ```console
//! $ cargo install cargo-fuzz
//! $ mkdir -p tests/fuzz/corpus/language
//! $ cargo +nightly fuzz run --fuzz-dir tests/fuzz language tests/fuzz/corpus/language tests/cases -- \
//!       -dict=tests/fuzz/hift.dict -max_len=8192 -timeout=5 -max_total_time=600
//! ```
//!
//! A text is a file and what it may import: lines `#! file NAME` begin the others.

#![no_main]

use std::path::Path;
use std::sync::Arc;

use hift::lang::{self, Look, Options, Outside, Pipeline, Source};
use libfuzzer_sys::fuzz_target;

/// The other files of a text, and a few environment variables.
struct World(Vec<(String, String)>);

impl Outside for World {
    fn read(&self, path: &Path) -> Result<String, String> {
        let known = self.0.iter().find(|(name, _)| Path::new(name) == path);
        known.map(|(_, text)| text.clone()).ok_or_else(|| "there is no such file".into())
    }

    fn env(&self, name: &str) -> Option<String> {
        match name {
            "N" => Some("4".into()),
            "SIZE" => Some("2 GiB".into()),
            "WORD" => Some("blocks".into()),
            "WRONG" => Some("4 [".into()),
            _ => None,
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut files = text.split("#! file ");
    let first = files.next().unwrap_or("");
    let others = files.filter_map(|file| file.split_once('\n')).map(|(name, text)| (name.into(), text.into()));
    let profiles = if text.contains("profile laptop") { vec!["laptop".into()] } else { Vec::new() };
    let set = if text.contains("param peak") { vec![("peak".into(), "1e-4".into())] } else { Vec::new() };
    let options = Options { profiles, set, outside: Arc::new(World(others.collect())), ..Options::default() };

    let reading = lang::read(Source::new("p.hift", first), &options);
    let sources = reading.sources();
    for label in reading.problems.0.iter().flat_map(|problem| &problem.labels) {
        let (i, span) = sources.locate(label.span);
        let source = &sources.get(i).expect("a label is in a file").text;
        assert!(source.get(span.start..span.end).is_some(), "{label:?}");
        assert_eq!(sources.place(i, span), label.span, "{label:?}");
    }
    lang::render(&reading.problems, sources, Look::default());
    assert_eq!(reading.pipeline.is_none(), reading.problems.has_errors(), "{}", reading.problems);

    // The layout of a layout is itself, and loses nothing that is read.
    if let Ok(once) = lang::format(first) {
        assert_eq!(lang::format(&once).as_ref(), Ok(&once));
        assert_eq!(lang::parse(&once).0.to_string(), lang::parse(first).0.to_string(), "{once}");
    }

    // The resolved values of a broken file print, too.
    let rendered = reading.resolved.text(sources, false);
    reading.resolved.json(sources);
    if let Some(pipeline) = reading.pipeline {
        let again = lang::read(Source::new("p.hift", rendered.as_str()), &Options::default());
        let meaning = |pipeline: Pipeline| {
            serde_json::to_string(&Pipeline { params: Vec::new(), ..pipeline }).expect("a pipeline is JSON")
        };
        let Some(same) = again.pipeline else { panic!("{rendered}\n{}", again.problems) };
        assert_eq!(meaning(same), meaning(pipeline), "{rendered}");
        assert_eq!(again.resolved.text(again.sources(), true), reading.resolved.text(sources, true));
    }
});
