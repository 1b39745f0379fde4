//! Greedy decoding on the `small` shape (hidden 512, 8 blocks, 8 heads, ffn 1376, vocabulary 8192): 128 new tokens behind
//! a prompt of 128, one text at a time.
//!
//! `cargo bench --bench decode` times it over the cache of keys and values, and with a pass over the whole text for
//! each token, which is what there is to do without one. Both write the same tokens; only their ratio counts.

use std::fs;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use hift::engine::{Inputs, Knobs, Store, play, store};
use hift::lang::pipeline::Algorithm;
use hift::lang::{Options, check};
use hift::plan::{GeneratePlan, StagePlan, compile};
use hift::program::{BatchShape, forward_only};
use hift::run::decode::{Ends, Prompt, continue_all};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 512, "intermediate_size": 1376,
    "num_hidden_layers": 8, "num_attention_heads": 8, "vocab_size": 8192, "max_position_embeddings": 256}"#;
const PROMPT: u64 = 128;
const NEW: u64 = 128;

fn main() {
    let threads = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("the first pool");
    divan::main();
    eprintln!("threads {threads}");
}

/// Times what writes the tokens behind a prompt, and shows that it writes what both must.
fn texts(bencher: Bencher<'_, '_>, write: fn(&GeneratePlan, &mut Store, &[u64]) -> Vec<u64>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("config.json"), CONFIG).expect("a temporary folder can be written");
    let text = format!(
        r#"hift 1
tokenizer none {{ file = "none.json" }}
model small {{ weights = random("config.json", seed = 1) }}
generate texts {{ model = small tokenizer = none prompts = ["one"] max_new_tokens = {NEW} tokens }}
"#
    );
    let options = Options { folder: folder.path().to_path_buf(), ..Options::default() };
    let (pipeline, problems) = check(&text, &options);
    let pipeline = pipeline.unwrap_or_else(|| panic!("{problems}"));
    let plan = compile(&pipeline, &mut hift::cli::disk::Disk { library: None }).expect("it compiles");
    let [StagePlan::Generate(plan)] = &plan.stages[..] else { unreachable!("there is one stage") };
    let model = &plan.model;
    let weights = store::load(&model.model, &model.weights, folder.path(), model.precision.dtype());
    let mut store = Store::new(weights.expect("drawn"));
    let prompt: Vec<u64> = (0..PROMPT).map(|at| (at * 104_729) % 8192).collect();
    let tokens = write(plan, &mut store, &prompt);
    eprintln!("{} tokens, {:?} ...", tokens.len(), &tokens[..6]);
    bencher
        .counter(ItemsCount::new(NEW))
        .bench_local(|| black_box(write(plan, &mut store, black_box(&prompt))));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn with_the_cache(bencher: Bencher<'_, '_>) {
    texts(bencher, |plan, store, prompt| {
        let prompts = [Prompt { ids: prompt.to_vec() }];
        let ends = Ends { tokens: &[], stops: &|_| false };
        let texts = continue_all(&plan.model, store, &prompts, &plan.decoding, &ends);
        texts.expect("it decodes").expect("nobody interrupts").swap_remove(0)
    });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn without_it(bencher: Bencher<'_, '_>) {
    const STILL: Knobs<'static> = Knobs {
        loss_scale: 0.0,
        unscale: 1.0,
        noise: 0,
        rate: 0.0,
        factors: &[],
        algorithm: &Algorithm::Sgd,
        weight_decay: 0.0,
    };
    texts(bencher, |plan, store, prompt| {
        let mut ids: Vec<u32> = prompt.iter().map(|id| *id as u32).collect();
        for _ in 0..NEW {
            let n = ids.len();
            let shape = BatchShape { batch: 1, seq: n, packed: false, far: false };
            let program = forward_only(&plan.model.logits(shape), store.backend());
            let inputs = Inputs {
                ids: ids.clone(),
                positions: (0..n as u32).collect(),
                queries: vec![n as u32 - 1],
                ..Inputs::default()
            };
            let played = play(&program, store, inputs, Vec::new(), &STILL).expect("it plays");
            let logits = played.numbers(0);
            let best = (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
            ids.push(best.expect("a vocabulary has tokens") as u32);
        }
        ids[prompt.len()..].iter().map(|id| u64::from(*id)).collect()
    });
}
