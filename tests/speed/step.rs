//! Training steps on the `small` shape: hidden 512, 8 blocks, 8 heads, ffn 1376, vocabulary 8192, 4 x 256 tokens.
//!
//! `cargo bench --bench step -- hift` times a whole cycle of HiFT with one layer a group, `-- full` as many steps of
//! plain full fine-tuning; both with AdamW. The peak of resident memory is that of the process, so run them one by
//! one. `tests/speed/torch_baseline.py` is the same in PyTorch; only the ratio of two runs in the same minute counts.

use std::fs;
use std::path::Path;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use hift::data::{Batches, Dataset, Library};
use hift::engine::{Parameters, Store, memory, store};
use hift::estimate::peak;
use hift::lang::{Options, check};
use hift::plan::{Plan, StagePlan, TrainPlan, compile};
use hift::run::train::Stepper;

#[global_allocator]
static ALLOCATOR: memory::Counting<mimalloc::MiMalloc> = memory::Counting(mimalloc::MiMalloc);

const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 512, "intermediate_size": 1376,
    "num_hidden_layers": 8, "num_attention_heads": 8, "vocab_size": 8192, "max_position_embeddings": 256}"#;
const ROWS: u64 = 4;
const TOKENS: u64 = 256;

fn main() {
    let threads = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("the first pool");
    divan::main();
    eprintln!("threads {threads}, peak resident {} MiB", memory::peak_resident() >> 20);
}

fn plan(folder: &Path, split: &str) -> (Plan, std::sync::Arc<Dataset>) {
    let row = |i: u64| {
        (0..TOKENS).map(|t| ((i * 7919 + t * 104_729) % 8192).to_string()).collect::<Vec<_>>().join(",")
    };
    let rows: String = (0..ROWS).map(|i| format!("{{\"ids\": [{}]}}\n", row(i))).collect();
    fs::write(folder.join("rows.jsonl"), rows).expect("a temporary folder can be written");
    fs::write(folder.join("config.json"), CONFIG).expect("a temporary folder can be written");
    let text = format!(
        r#"hift 1
data rows {{ source = json("rows.jsonl") format = tokens(input = "ids") shuffle = none }}
model small {{ weights = random("config.json", seed = 1) }}
groups layers {{ split = {split} }}
schedule turns {{ rate = constant(1e-4) }}
optimizer adamw {{ }}
train t {{ data = rows model = small groups = layers schedule = turns optimizer = adamw steps = 10 micro_batch = {ROWS} }}
"#
    );
    let (pipeline, problems) = check(&text, &Options { folder: folder.to_path_buf(), ..Options::default() });
    let pipeline = pipeline.unwrap_or_else(|| panic!("{problems}"));
    let mut library = Library::new(folder.to_path_buf(), &|| false);
    let plan =
        compile(&pipeline, &mut hift::cli::disk::Disk { library: Some(&mut library) }).expect("it compiles");
    let StagePlan::Train(train) = &plan.stages[0] else { unreachable!("there is one stage") };
    let limits = hift::run::limits(&train.model.model);
    let dataset = library.get(&train.data, &train.tokenizer, &limits).expect("the rows are there");
    (plan, dataset)
}

/// Ten steps: a cycle of HiFT, or as many of full fine-tuning.
fn cycle(bencher: Bencher<'_, '_>, split: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (plan, dataset) = plan(folder.path(), split);
    let StagePlan::Train(train) = &plan.stages[0] else { unreachable!("there is one stage") };
    let train: &TrainPlan = train;
    let (model, precision) = (&train.model.model, train.model.precision);
    let kept = store::load(model, &train.model.weights, folder.path(), precision.kept()).expect("drawn");
    let mut store = Store::of(Parameters::of(kept, precision).expect("tensors are made"));
    let mut batches = Batches::new(&dataset.train, ROWS, 1, train.shuffle);
    let mut stepper = Stepper::new(train);
    stepper.prepare(&mut store, 0).expect("states are made");
    let mut step = 0;
    bencher.counter(ItemsCount::new(10 * ROWS * TOKENS)).bench_local(|| {
        for _ in 0..10 {
            let done = stepper
                .step(&mut store, &mut batches, &dataset, step, 1e-4)
                .expect("a step")
                .expect("nobody interrupts");
            step += 1;
            black_box(done);
        }
    });
    let threads = rayon::current_num_threads();
    eprintln!("{split}: tensors, foretold peak {}", peak(train, threads));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn hift(bencher: Bencher<'_, '_>) {
    cycle(bencher, "by_layer(1)");
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn full(bencher: Bencher<'_, '_>) {
    cycle(bencher, "all()");
}
