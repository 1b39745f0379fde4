//! From a file to sequences against what the tokenizers crate does alone on the same text.
//!
//! `cargo bench --bench tokenize -- ROWS.jsonl tokenizer.json`: rows with the columns `instruction`, `input` and
//! `output`. Without arguments it looks for alpaca rows beside the repository, and says so if there are none.

use std::path::{Path, PathBuf};
use std::time::Instant;

use hift::data::{Batches, Cache, Limits, load_through};
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

/// Rounds of each measurement; medians are told.
const ROUNDS: usize = 7;

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

    /// What it takes where nobody else computes: threads share their work, and what the calling thread does alone,
    /// the others wait for.
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
    let limits = Limits::language(1 << 20, 1 << 20);
    let load_all = |cache: Option<&Cache>| {
        let (folder, tokenizer) = (&pipeline.folder, &stage.tokenizer);
        load_through(cache, folder, &stage.data, tokenizer, &limits, &|| false).expect("it loads")
    };
    let rounds: Vec<[Took; 4]> = (0..ROUNDS)
        .map(|_| {
            // Both sides read the tokenizer's file; what that takes is left out of both.
            let (loading, encoder) =
                Took::of(|| tokenizers::Tokenizer::from_file(tokenizer).expect("a tokenizer"));
            let own = texts.clone();
            // The crate remembers words for each thread. Neither side begins with what it remembers from before.
            let threads = rayon::ThreadPoolBuilder::new().build().expect("threads");
            let (alone, encoded) = Took::of(|| {
                threads.install(|| match loss_on {
                    "all" => encoder.encode_batch_fast(own, true),
                    _ => encoder.encode_batch(own, true),
                })
            });
            drop((encoded.expect("it encodes"), encoder));
            let (whole, _) = Took::of(|| load_all(None));
            // The same through the cache: made and kept, then read.
            let cache = tempfile::tempdir().expect("a place for a cache");
            let cache = Cache::at(cache.path().to_path_buf());
            let (made, _) = Took::of(|| load_all(Some(&cache)));
            let (read, _) = Took::of(|| load_all(Some(&cache)));
            [alone, whole.less(loading), made.less(loading), read]
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
    let dataset = load_all(None);
    let start = Instant::now();
    let mut batches = Batches::new(&dataset.train, 8, 1, Shuffle::Seed(1));
    let tokens: usize = (0..batches.steps_per_epoch()).map(|step| batches.step(step)[0].ids.len()).sum();
    println!("  batches {:.0} M tokens/s", tokens as f64 / start.elapsed().as_secs_f64() / 1e6);
}
