//! From a file to sequences against what the tokenizers crate does alone on the same text.
//!
//! `cargo bench --bench tokenize -- ROWS.jsonl tokenizer.json`: rows with the columns `instruction`, `input` and
//! `output`. Without arguments it looks for alpaca rows beside the repository, and says so if there are none.

use std::path::{Path, PathBuf};
use std::time::Instant;

use hift::data::{Batches, Cache, Limits, load, load_through};
use hift::lang::pipeline::{Shuffle, Stage};
use hift::lang::{Options, check};
use serde_json::Value;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let mut given =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).map(PathBuf::from);
    let rows = given.next().unwrap_or_else(|| beside.join("alpaca/alpaca_9k.jsonl"));
    let tokenizer = given.next().unwrap_or_else(|| beside.join("tokenizers/phi-3-mini/tokenizer.json"));
    if !rows.exists() || !tokenizer.exists() {
        println!("skipped: {} or {} is not there", rows.display(), tokenizer.display());
        return;
    }
    let (rows, tokenizer) =
        (rows.canonicalize().expect("it exists"), tokenizer.canonicalize().expect("it exists"));
    // With the loss on the response, offsets are needed, which cost both sides the same.
    for loss_on in ["response", "all"] {
        compare(&rows, &tokenizer, loss_on);
    }
}

/// Seconds that this process has computed for, on all cores together, in steps of a hundredth; it is not disturbed by
/// others on the machine as the clock is. Not a number where the system does not say.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .split(") ")
        .last()
        .unwrap_or_default()
        .split(' ')
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    fields.get(11).zip(fields.get(12)).map_or(f64::NAN, |(user, system)| (user + system) / 100.0)
}

fn compare(rows: &Path, tokenizer: &Path, loss_on: &str) {
    let text = format!(
        r#"hift 1
data rows {{ source = json("{}") format = instruct(prompt = "{{instruction}}\n{{input}}\n", response = "{{output}}") }}
tokenizer t {{ file = "{}" loss_on = {loss_on} }}
model m {{ weights = "none" }}
groups g {{ split = all() }}
schedule s {{ rate = constant(1e-4) }}
optimizer sgd {{ }}
train x {{ data = rows tokenizer = t model = m groups = g schedule = s optimizer = sgd steps = 1 micro_batch = 8 }}
"#,
        rows.display(),
        tokenizer.display()
    );
    let (pipeline, problems) = check(&text, &Options { folder: PathBuf::from("/"), ..Options::default() });
    let pipeline = pipeline.unwrap_or_else(|| panic!("{problems}"));
    let Stage::Train(stage) = &pipeline.stages[0] else { unreachable!("there is one stage") };
    let column = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_string();
    let texts: Vec<String> = std::fs::read_to_string(rows)
        .expect("it exists")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("rows are JSON"))
        .map(|row| {
            format!("{}\n{}\n{}", column(&row, "instruction"), column(&row, "input"), column(&row, "output"))
        })
        .collect();
    let megabytes = texts.iter().map(String::len).sum::<usize>() as f64 / 1e6;
    for _ in 0..5 {
        let start = Instant::now();
        let encoder = tokenizers::Tokenizer::from_file(tokenizer).expect("a tokenizer");
        let loading = start.elapsed().as_secs_f64();
        let (start, busy) = (Instant::now(), processor());
        let encoded = match loss_on {
            "all" => encoder.encode_batch_fast(texts.clone(), true),
            _ => encoder.encode_batch(texts.clone(), true),
        };
        let encoded = encoded.expect("it encodes");
        let alone = start.elapsed().as_secs_f64();
        let alone_busy = processor() - busy;
        drop(encoded);
        let (start, busy) = (Instant::now(), processor());
        let limits = Limits::language(1 << 20, 1 << 20);
        let dataset =
            load(&pipeline.folder, &stage.data, &stage.tokenizer, &limits, &|| false).expect("it loads");
        let whole = start.elapsed().as_secs_f64() - loading;
        let whole_busy = processor() - busy - loading;
        // The same through the cache: made and kept, then read.
        let cache = tempfile::tempdir().expect("a place for a cache");
        let cache = Cache::at(cache.path().to_path_buf());
        let through = || {
            let start = Instant::now();
            let (folder, tokenizer) = (&pipeline.folder, &stage.tokenizer);
            load_through(Some(&cache), folder, &stage.data, tokenizer, &limits, &|| false).expect("it loads");
            start.elapsed().as_secs_f64() - loading
        };
        let (made, read) = (through(), through());
        let start = Instant::now();
        let mut batches = Batches::new(&dataset.train, 8, 1, Shuffle::Seed(1));
        let tokens: usize = (0..batches.steps_per_epoch()).map(|step| batches.step(step)[0].ids.len()).sum();
        let batching = start.elapsed().as_secs_f64();
        println!(
            "{megabytes:.2} MB, loss on {loss_on}: crate alone {:.2} MB/s, all of load {:.2} MB/s, ratio {:.2} (in processor time {:.2}); kept in the cache {:.2}, \
             read from it {:.2}; batches {:.0} M tokens/s",
            megabytes / alone,
            megabytes / whole,
            alone / whole,
            alone_busy / whole_busy,
            alone / made,
            alone / read,
            tokens as f64 / batching / 1e6
        );
    }
}
