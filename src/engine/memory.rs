//! A global allocator that counts: the judge of the estimate.
//!
//! Tensors are buffers of numbers with an alignment of 2 or 4 bytes; what the rest of the program allocates (maps,
//! vectors of pointers, task queues: 8 bytes or more; text: 1) is counted apart. So the bytes of all tensors
//! that exist, and their highest point, are known exactly at no cost worth mentioning.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static NUMBERS: AtomicU64 = AtomicU64::new(0);
static NUMBERS_PEAK: AtomicU64 = AtomicU64::new(0);
static REST: AtomicU64 = AtomicU64::new(0);
static REST_PEAK: AtomicU64 = AtomicU64::new(0);

/// Wraps an allocator and counts what it gives out.
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
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (live, peak) = counters(&layout);
        grow(live, peak, layout.size());
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        counters(&layout).0.fetch_sub(layout.size() as u64, Relaxed);
        unsafe { self.0.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (live, peak) = counters(&layout);
        grow(live, peak, size);
        live.fetch_sub(layout.size() as u64, Relaxed);
        unsafe { self.0.realloc(pointer, layout, size) }
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
