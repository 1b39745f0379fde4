//! What reading a pipeline takes: `cargo bench --bench language`. A file of a thousand lines, in less than 10 ms.

mod lines;

use divan::Bencher;
use hift::lang::{self, Options, Source};

use lines::text;

fn main() {
    divan::main();
}

/// 1, 1,057 and 4,401 lines: the time grows with the length.
#[divan::bench(args = [1, 24, 100])]
fn parse(bencher: Bencher, n_pipelines: usize) {
    let text = text(n_pipelines);
    bencher.bench(|| lang::parse(&text));
}

/// Parsed, checked and resolved, with the origin of every value.
#[divan::bench(args = [1, 24, 100])]
fn read(bencher: Bencher, n_pipelines: usize) {
    let text = text(n_pipelines);
    bencher.with_inputs(|| Source::new("p.hift", text.clone())).bench_values(|source| {
        let reading = lang::read(source, &Options::default());
        assert!(reading.pipeline.is_some(), "{}", reading.problems);
        reading
    });
}

/// The text of `hift render`.
#[divan::bench(args = [24])]
fn render(bencher: Bencher, n_pipelines: usize) {
    let reading = lang::read(Source::new("p.hift", text(n_pipelines)), &Options::default());
    bencher.bench(|| reading.resolved.text(reading.sources(), false));
}
