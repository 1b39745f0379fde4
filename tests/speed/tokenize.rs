//! From a file to sequences against what the tokenizers crate does alone on the same text.
//!
//! `cargo bench --bench tokenize -- ROWS.jsonl tokenizer.json`: rows with the columns `instruction`, `input` and
//! `output`. Without arguments it looks for alpaca rows beside the repository, and says so if there are none.
//!
//! Each measurement is made in a process of its own, or one side would find, and clear away, what the other has left
//! in memory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use hift::data::{Batches, Cache, Dataset, Limits, load_through};
use hift::lang::pipeline::{Shuffle, Stage};
use hift::lang::{Options, Pipeline, check};
use serde_json::Value;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // What this program asks of itself: one measurement, and nothing else.
    if let Ok(way) = std::env::var(ONE) {
        let given: Vec<String> = std::env::args().skip(1).collect();
        let [rows, tokenizer, loss_on] = given.as_slice() else { panic!("{given:?}") };
        let measured = measure(&way, Path::new(rows), Path::new(tokenizer), loss_on);
        return println!("{}", serde_json::json!(measured.map(|took| [took.wall, took.own, took.others])));
    }
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

/// Rounds of each measurement; medians are told.
const ROUNDS: usize = 7;

/// Names, to a process of its own, what it is to measure.
const ONE: &str = "HIFT_TOKENIZE_ONE";

/// What a piece of work took.
#[derive(Debug, Clone, Copy)]
struct Took {
    /// By the clock, which others on the machine disturb.
    wall: f64,
    /// Seconds of computing: of the thread that calls, and of all others together, in steps of a hundredth.
    own: f64,
    others: f64,
}

impl Took {
    fn of<T>(work: impl FnOnce() -> T) -> (Self, T) {
        let (start, (own, all)) = (Instant::now(), processor());
        let result = work();
        let (own_then, all_then) = processor();
        let own = own_then - own;
        let wall = start.elapsed().as_secs_f64();
        (Self { wall, own, others: (all_then - all - own).max(0.0) }, result)
    }

    fn less(self, other: Took) -> Self {
        let Took { wall, own, others } = other;
        Self { wall: self.wall - wall, own: self.own - own, others: self.others - others }
    }

    /// What it takes at the most where nobody else computes: threads share their work, and wait for what the calling
    /// thread does. (hift's need not wait for most of that, which is done while they encode.)
    fn undisturbed(self) -> f64 {
        self.own + self.others / rayon::current_num_threads() as f64
    }
}

/// Seconds that the calling thread and all threads of this process have computed for. Not numbers where the system does
/// not say.
fn processor() -> (f64, f64) {
    let own = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let own = own.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).map_or(f64::NAN, |ns| ns / 1e9);
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .split(") ")
        .last()
        .unwrap_or_default()
        .split(' ')
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    let all = fields.get(11).zip(fields.get(12)).map_or(f64::NAN, |(user, system)| (user + system) / 100.0);
    (own, all)
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = of.collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// A pipeline of one stage that is trained on these rows.
fn pipeline(rows: &Path, tokenizer: &Path, loss_on: &str) -> Pipeline {
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
    pipeline.unwrap_or_else(|| panic!("{problems}"))
}

fn load_all(pipeline: &Pipeline, cache: Option<&Cache>) -> Dataset {
    let Stage::Train(stage) = &pipeline.stages[0] else { unreachable!("there is one stage") };
    let limits = Limits::language(1 << 20, 1 << 20);
    load_through(cache, &pipeline.folder, &stage.data, &stage.tokenizer, &limits, &|| false)
        .expect("it loads")
}

/// The text of each row, as the pipeline writes it out.
fn texts(rows: &Path) -> Vec<String> {
    let column = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_string();
    std::fs::read_to_string(rows)
        .expect("it exists")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("rows are JSON"))
        .map(|row| {
            format!("{}\n{}\n{}", column(&row, "instruction"), column(&row, "input"), column(&row, "output"))
        })
        .collect()
}

/// One way, or two where the second needs what the first has made.
fn measure(way: &str, rows: &Path, tokenizer: &Path, loss_on: &str) -> [Took; 2] {
    // Both sides read the tokenizer's file; what that takes is left out of both. The first time memory is new, which takes
    // longer than when hift reads it afterwards.
    let load = || Took::of(|| tokenizers::Tokenizer::from_file(tokenizer).expect("a tokenizer"));
    drop(load());
    let (loading, encoder) = load();
    if way == "alone" {
        let texts = texts(rows);
        let threads = rayon::ThreadPoolBuilder::new().build().expect("threads");
        let (alone, encoded) = Took::of(|| {
            threads.install(|| match loss_on {
                "all" => encoder.encode_batch_fast(texts, true),
                _ => encoder.encode_batch(texts, true),
            })
        });
        drop(encoded.expect("it encodes"));
        return [alone; 2];
    }
    drop(encoder);
    let pipeline = pipeline(rows, tokenizer, loss_on);
    if way == "whole" {
        let (whole, _) = Took::of(|| load_all(&pipeline, None));
        return [whole.less(loading); 2];
    }
    let cache = tempfile::tempdir().expect("a place for a cache");
    let cache = Cache::at(cache.path().to_path_buf());
    let (made, _) = Took::of(|| load_all(&pipeline, Some(&cache)));
    let (read, _) = Took::of(|| load_all(&pipeline, Some(&cache)));
    [made.less(loading), read]
}

/// As [`measure`], in a process of its own.
fn apart(way: &str, rows: &Path, tokenizer: &Path, loss_on: &str) -> [Took; 2] {
    let own = std::env::current_exe().expect("it runs");
    let output =
        Command::new(own).args([rows, tokenizer]).arg(loss_on).env(ONE, way).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let numbers: [[f64; 3]; 2] = serde_json::from_slice(&output.stdout).expect("what `main` writes");
    numbers.map(|[wall, own, others]| Took { wall, own, others })
}

fn compare(rows: &Path, tokenizer: &Path, loss_on: &str) {
    let megabytes = texts(rows).iter().map(String::len).sum::<usize>() as f64 / 1e6;
    let rounds: Vec<[Took; 4]> = (0..ROUNDS)
        .map(|_| {
            let of = |way| apart(way, rows, tokenizer, loss_on);
            let ([alone, _], [whole, _], [made, read]) = (of("alone"), of("whole"), of("made"));
            [alone, whole, made, read]
        })
        .collect();
    let of = |what: usize, number: fn(Took) -> f64| median(rounds.iter().map(|round| number(round[what])));
    println!("{megabytes:.2} MB, loss on {loss_on}, {} threads", rayon::current_num_threads());
    for (what, name) in
        [(0, "the crate alone"), (1, "without a cache"), (2, "made and kept"), (3, "read from the cache")]
    {
        // Of the same round, since others on the machine come and go.
        let ratio = |number: fn(Took) -> f64| {
            median(rounds.iter().map(|round| number(round[0]) / number(round[what])))
        };
        println!(
            "  {name:<20} {:6.2} MB/s by the clock, {:6.2} undisturbed; ratio {:.2} and {:.2}",
            megabytes / of(what, |took| took.wall),
            megabytes / of(what, Took::undisturbed),
            ratio(|took| took.wall),
            ratio(Took::undisturbed),
        );
    }
    let dataset = load_all(&pipeline(rows, tokenizer, loss_on), None);
    let start = Instant::now();
    let mut batches = Batches::new(&dataset.train, 8, 1, Shuffle::Seed(1));
    let tokens: usize = (0..batches.steps_per_epoch()).map(|step| batches.step(step)[0].ids.len()).sum();
    println!("  batches {:.0} M tokens/s", tokens as f64 / start.elapsed().as_secs_f64() / 1e6);
}
