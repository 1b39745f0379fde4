//! A global allocator that counts: the judge of the estimate.
//!
//! Tensors are buffers of numbers with an alignment of 2 or 4 bytes; what the rest of the program allocates (maps,
//! vectors of pointers, task queues: 8 bytes or more; text: 1) is counted apart. So the bytes of all tensors
//! that exist, and their highest point, are known exactly at no cost worth mentioning.

use std::alloc::{GlobalAlloc, Layout};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::problem::Fault;

static NUMBERS: AtomicU64 = AtomicU64::new(0);
static NUMBERS_PEAK: AtomicU64 = AtomicU64::new(0);
static REST: AtomicU64 = AtomicU64::new(0);
static REST_PEAK: AtomicU64 = AtomicU64::new(0);

/// Wraps an allocator and counts what it gives out. Where it has nothing to give, the process ends and says so: see
/// [`ran_out`].
pub struct Counting<A>(pub A);

fn grow(live: &AtomicU64, peak: &AtomicU64, bytes: usize) {
    let now = live.fetch_add(bytes as u64, Relaxed) + bytes as u64;
    peak.fetch_max(now, Relaxed);
}

fn counters(layout: &Layout) -> (&'static AtomicU64, &'static AtomicU64) {
    match layout.align() {
        2 | 4 => (&NUMBERS, &NUMBERS_PEAK),
        _ => (&REST, &REST_PEAK),
    }
}

#[allow(unsafe_code, reason = "a global allocator is unsafe by its trait; every call is passed on unchanged")]
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (live, peak) = counters(&layout);
        grow(live, peak, layout.size());
        given(unsafe { self.0.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (live, peak) = counters(&layout);
        grow(live, peak, layout.size());
        given(unsafe { self.0.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        counters(&layout).0.fetch_sub(layout.size() as u64, Relaxed);
        unsafe { self.0.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (live, peak) = counters(&layout);
        grow(live, peak, size);
        live.fetch_sub(layout.size() as u64, Relaxed);
        given(unsafe { self.0.realloc(pointer, layout, size) }, size)
    }
}

fn given(pointer: *mut u8, bytes: usize) -> *mut u8 {
    if pointer.is_null() {
        ran_out(bytes);
    }
    pointer
}

const OUT_OF_MEMORY: &str = "hift::engine::out_of_memory";

/// What the program is doing, as far as its memory is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Work {
    Other,
    /// Rows are read and tokenised.
    Rows,
    /// Stages are run.
    Stages,
}

static WORK: AtomicU8 = AtomicU8::new(Work::Other as u8);

/// Says what is being done from now on.
pub fn doing(work: Work) {
    WORK.store(work as u8, Relaxed);
}

/// Ends the process where the system refuses memory: says so on one line, and exits as a run that failed does. The
/// standard library would abort, with a signal for a status that tells cron nothing. What is on the disk is as after
/// a kill: whole, and taken up by the next call. Nothing is allocated here, and no destructor runs.
#[cold]
fn ran_out(wanted: usize) -> ! {
    static SAID: AtomicBool = AtomicBool::new(false);
    if SAID.swap(true, Relaxed) {
        // Another thread is saying it, and ends this one, too.
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    let mut line = Line { text: [0; 600], length: 0 };
    // What was counted for the buffer that is not there is taken off. (`Bytes` would allocate to print itself.)
    let held = (live() + live_of_the_rest()).saturating_sub(wanted as u64);
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    let (during, help) = match WORK.load(Relaxed) {
        work if work == Work::Rows as u8 => (
            " while rows were read and tokenised",
            "what this needs grows with the threads, not with the rows: set RAYON_NUM_THREADS to less, or allow more memory",
        ),
        work if work == Work::Stages as u8 => (
            " while a stage ran",
            "lower `micro_batch` or `max_length` (`hift plan` says what each part needs), or allow more memory; the same \
             command goes on from the last checkpoint",
        ),
        _ => ("", "allow the process more memory"),
    };
    let _ = writeln!(
        line,
        "hift: out of memory{during}: {} MiB more were refused beside {} MiB in use; what was written before is \
         untouched ({OUT_OF_MEMORY}); help: {help}",
        mebibytes(wanted as u64),
        mebibytes(held),
    );
    let _ = rustix::io::write(std::io::stderr(), &line.text[..line.length]);
    signal_hook::low_level::exit(i32::from(Fault::Failed.exit_code()))
}

/// A line of text that needs no memory; what does not fit is cut off.
struct Line {
    text: [u8; 600],
    length: usize,
}

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = self.text.len() - self.length;
        let bytes = &text.as_bytes()[..text.len().min(room)];
        self.text[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
        Ok(())
    }
}

/// Bytes of number buffers that exist now. 0 where the program does not use [`Counting`].
pub fn live() -> u64 {
    NUMBERS.load(Relaxed)
}

/// The highest point of [`live`] since [`reset_peak`].
pub fn peak() -> u64 {
    NUMBERS_PEAK.load(Relaxed)
}

/// The highest point, since [`reset_peak`], of everything that is not a number buffer.
pub fn peak_of_the_rest() -> u64 {
    REST_PEAK.load(Relaxed)
}

/// Everything that is not a number buffer and exists now.
pub fn live_of_the_rest() -> u64 {
    REST.load(Relaxed)
}

pub fn reset_peak() {
    NUMBERS_PEAK.store(NUMBERS.load(Relaxed), Relaxed);
    REST_PEAK.store(REST.load(Relaxed), Relaxed);
}

/// The highest resident memory of the process, as the kernel counts it. 0 where the system does not say.
pub fn peak_resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    kib.map_or(0, |kib| kib * 1024)
}
