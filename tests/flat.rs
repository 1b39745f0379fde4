//! Data larger than memory: what is held does not grow with it, save for a few bytes a row.
#![cfg(feature = "run")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hift::data::{Batches, Cache, Cached, Limits, load_through};
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

#[test]
fn memory_does_not_grow_with_the_data() {
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
        let (memory, mapped) = dataset.host();
        assert!(mapped.0 as usize >= rows * 400 * 8, "{mapped}");
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
