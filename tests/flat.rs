//! Data larger than memory: what is held does not grow with it, save for a few bytes a row.
#![cfg(feature = "run")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hift::data::{Batches, Cache, Cached, Labels, Limits, load_through};
use hift::lang::pipeline::{Shuffle, Stage};
use hift::lang::{Options, check};

/// Counts what is allocated, in all threads.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it is.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(held, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that `work` holds beyond what was there before.
fn peak<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = work();
    (PEAK.load(Relaxed) - before, result)
}

/// Rows of 400 tokens.
fn write_rows(path: &Path, rows: usize) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    for row in 0..rows {
        let ids: Vec<String> = (0..400).map(|t| ((row * 31 + t * 7) % 4000 + 10).to_string()).collect();
        writeln!(file, "{{\"input_ids\": [{}]}}", ids.join(",")).unwrap();
    }
    file.flush().unwrap();
}

/// What is counted is that of one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn memory_does_not_grow_with_the_data() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let text = "hift 1\ndata rows { source = json(\"rows.jsonl\") format = tokens holdout = 1 % }\n\
        model m { weights = \"none\" }\ngroups g { split = all() }\nschedule s { rate = constant(1e-4) }\n\
        optimizer sgd { }\ntokenizer t { pack = true max_length = 1000 tokens }\n\
        train x { data = rows tokenizer = t model = m groups = g schedule = s optimizer = sgd steps = 1 micro_batch = 8 }";
    let options = Options { folder: folder.path().to_path_buf(), ..Options::default() };
    let (pipeline, problems) = check(text, &options);
    let pipeline = pipeline.unwrap_or_else(|| panic!("{problems}"));
    let Stage::Train(stage) = &pipeline.stages[0] else { unreachable!("there is one stage") };
    let cache = Cache::at(folder.path().join("cache"));
    let load = || {
        let limits = Limits::language(5000, 1000);
        let tokenizer = &stage.tokenizer;
        load_through(Some(&cache), folder.path(), &stage.data, tokenizer, &limits, &|| false).unwrap()
    };
    let figures = [4_000, 16_000].map(|rows| {
        write_rows(&folder.path().join("rows.jsonl"), rows);
        let (made, dataset) = peak(load);
        assert!(matches!(dataset.cached, Cached::Made(_)));
        drop(dataset);
        let (read, dataset) = peak(load);
        assert_eq!(dataset.cached, Cached::Read);
        let memory = dataset.host.rows;
        assert!(dataset.host.mapped.0 as usize >= rows * 400 * 8, "{}", dataset.host.mapped);
        let (epoch, tokens) = peak(|| {
            let mut batches = Batches::new(&dataset.train, 8, 1, Shuffle::Seed(1));
            let steps = batches.steps_per_epoch();
            (0..steps).flat_map(|step| batches.step(step)).map(|batch| batch.ids.len()).sum::<usize>()
        });
        assert!(tokens >= rows * 390);
        eprintln!("{rows} rows: made in {made} B, read in {read} B, an epoch {epoch} B, estimated {memory}");
        (rows, made, read, epoch, memory.0 as usize)
    });
    let [(few, made, read, epoch, memory), (many, large_made, large_read, large_epoch, large_memory)] =
        figures;
    // 3,200 B a row lie in the file; these are what says which rows are meant, how they are packed and in which order.
    let a_row = |small: usize, large: usize| large.saturating_sub(small) / (many - few);
    assert!(a_row(made, large_made) < 120, "{} B a row while tokens are made", a_row(made, large_made));
    assert!(a_row(read, large_read) < 120, "{} B a row while they are read", a_row(read, large_read));
    assert!(a_row(epoch, large_epoch) <= 4, "{} B a row in an epoch", a_row(epoch, large_epoch));
    assert!(a_row(memory, large_memory) <= 12, "{} B a row in the estimate", a_row(memory, large_memory));
    assert!(large_made < 64 << 20, "{large_made} B while tokens are made");
}

/// What is held once that changes no more: threads that have encoded forget their words when they end, which is soon.
fn at_rest() -> usize {
    let patience = Instant::now() + Duration::from_secs(10);
    let (mut held, mut since) = (HELD.load(Relaxed), Instant::now());
    while since.elapsed() < Duration::from_millis(200) && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(5));
        let now = HELD.load(Relaxed);
        if now != held {
            (held, since) = (now, Instant::now());
        }
    }
    held
}

/// Blocks of a dataset that is loaded three times: without a cache, into an empty one, and out of it.
fn check_host(name: &str, folder: &Path, data: &str, tokenizer: &str, limits: &Limits) {
    let text = format!(
        "hift 1\ndata rows {{ {data} }}\ntokenizer t {{ {tokenizer} }}\nmodel m {{ weights = \"none\" }}\n\
         groups g {{ split = all() }}\nschedule s {{ rate = constant(1e-4) }}\noptimizer sgd {{ }}\n\
         train x {{ data = rows tokenizer = t model = m groups = g schedule = s optimizer = sgd steps = 1 micro_batch = 8 }}"
    );
    let (pipeline, problems) = check(&text, &Options { folder: folder.to_path_buf(), ..Options::default() });
    let pipeline = pipeline.unwrap_or_else(|| panic!("{problems}"));
    let Stage::Train(stage) = &pipeline.stages[0] else { unreachable!("there is one stage") };
    let cache = Cache::at(folder.join("cache"));
    let load = |cache: Option<&Cache>| {
        load_through(cache, folder, &stage.data, &stage.tokenizer, limits, &|| false).unwrap()
    };
    // Some tables are made once in a process.
    drop(load(None));
    for (way, cache) in [("no cache", None), ("made", Some(&cache)), ("read", Some(&cache))] {
        let before = at_rest();
        let (most, dataset) = peak(|| load(cache));
        let host = dataset.host;
        // What threads leave behind and what the account of the rows takes; and the order of an epoch, which is drawn later.
        let beside = 256 * 1024 + 4 * dataset.train.len();
        let held = at_rest().saturating_sub(before);
        eprintln!(
            "{name}, {way}: {most} B at the most, {} foretold; {held} B stay, {} foretold, {} mapped",
            host.making, host.rows, host.mapped
        );
        assert!(
            most as u64 <= host.making.0,
            "{name}, {way}: {most} B at the most, {} foretold",
            host.making
        );
        let difference = held.abs_diff(host.rows.0 as usize);
        // Bounds are known, and not far off: the parts that pass, and the words that each thread remembers.
        let bounds = (64 << 20) + (6 << 20) * rayon::current_num_threads();
        assert!(
            host.making.0 as usize <= 2 * most + bounds,
            "{name}, {way}: {most} B at the most, {} foretold",
            host.making
        );
        assert!(difference <= beside, "{name}, {way}: {held} B stay, {} foretold", host.rows);
    }
}

#[test]
fn the_estimate_says_how_much_of_the_host_is_needed() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let at = |path: &str| own.join(path).canonicalize().unwrap().display().to_string();
    // Threads of the pool have memory, too.
    rayon::broadcast(|_| ());

    write_rows(&folder.path().join("rows.jsonl"), 4_000);
    let data = "source = json(\"rows.jsonl\") format = tokens holdout = 1 %";
    check_host(
        "ids",
        folder.path(),
        data,
        "pack = true max_length = 1000 tokens",
        &Limits::language(5000, 1000),
    );

    let mut file = BufWriter::new(File::create(folder.path().join("questions.jsonl")).unwrap());
    for row in 0..300 {
        let context = format!("row {row}: {} the end", "a cat sat on the mat . ".repeat(40));
        let answers = serde_json::json!({"text": ["the end"], "answer_start": [context.len() - 7]});
        let line =
            serde_json::json!({"question": "what comes last ?", "context": context, "answers": answers});
        writeln!(file, "{line}").unwrap();
    }
    file.flush().unwrap();
    let bert =
        format!("file = \"{}\" too_long = split", at("tests/golden/models/bert-cls-tiny/tokenizer.json"));
    let ends = Limits { labels: Some(Labels::Ends), both_ways: true, ..Limits::language(1 << 20, 128) };
    let data = "source = json(\"questions.jsonl\") format = question holdout = 1 %";
    check_host("questions", folder.path(), data, &bert, &ends);

    let shared = own.join("../shared/data");
    if !shared.exists() {
        eprintln!("rows of a real dataset left out: {} is not there", shared.display());
        return;
    }
    let data = format!(
        "source = json(\"{}\") format = instruct(prompt = \"{{instruction}}\", response = \"{{output}}\")",
        at("../shared/data/alpaca/alpaca_2000.jsonl")
    );
    let file = format!("file = \"{}\"", at("../shared/data/tokenizers/gpt2/tokenizer.json"));
    check_host("text", folder.path(), &data, &file, &Limits::language(1 << 20, 1024));
}
