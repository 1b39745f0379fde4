//! Scaled dot-product attention over packed rows, forward and backward, a tile of queries and keys at a time.
//!
//! Only the log-sum-exp of each query row is kept: backward forms the probabilities of a tile again. A whole
//! `seq x seq` matrix never exists, and keys that no query of a tile sees are skipped. Half numbers are summed in 32 bits,
//! in scratch, and rounded once.
//!
//! Source: Dao 2023, "FlashAttention-2", algorithms 1 and 2.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::number::Number;
use super::product::Product;
use super::simd::{exp, exp_in_place, max, sum2, tanh, vectorised};

/// Queries and keys of a tile, at most.
const QUERIES: usize = 128;
const KEYS: usize = 256;

/// The sizes of one attention, and what a query may see.
///
/// `q` and `o` are `[batch * seq, heads * head_dim]`, `k` and `v` are `[batch * seq, kv_heads * head_dim]`; query head
/// `h` reads key head `h / (heads / kv_heads)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    pub batch: usize,
    pub seq: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// What the products of queries and keys are multiplied with.
    pub scale: f32,
    /// Whether a query sees only itself and what comes before it.
    pub causal: bool,
    /// A query sees no key that lies so far before it, or farther.
    pub window: Option<usize>,
    /// Scores are bent to `cap tanh(score / cap)`. Source: Gemma Team 2024, "Gemma 2", section 2.
    pub softcap: Option<f32>,
}

impl Shape {
    /// Queries of a tile. Fewer in short rows: what lies above the diagonal is wasted.
    fn queries(&self) -> usize {
        if self.seq <= 512 { self.seq.min(QUERIES / 2) } else { QUERIES }
    }

    /// Numbers in a tile of scores.
    fn tile_len(&self) -> usize {
        self.queries() * self.seq.min(KEYS)
    }

    /// Numbers of scratch that a task of [`forward`] needs.
    fn part_len<T: Number>(&self) -> usize {
        self.tile_len() + if T::IS_WIDE { 0 } else { self.queries() * self.head_dim }
    }

    /// Numbers of scratch that a task of [`grad`] needs.
    fn grad_part_len<T: Number>(&self) -> usize {
        2 * self.tile_len() + if T::IS_WIDE { 0 } else { (self.queries() + 2 * self.seq) * self.head_dim }
    }

    fn check<T>(&self, q: &[T], k: &[T], v: &[T], lse: &[f32], starts: Option<&[u32]>) {
        let rows = self.batch * self.seq;
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            "{} heads do not share {} key heads evenly",
            self.heads,
            self.kv_heads,
        );
        let kv_len = rows * self.kv_heads * self.head_dim;
        assert!(
            q.len() == rows * self.heads * self.head_dim && k.len() == kv_len && v.len() == kv_len,
            "attention: q, k or v is not {self:?}"
        );
        assert_eq!(lse.len(), rows * self.heads, "attention: lse is not {self:?}");
        assert!(starts.is_none_or(|starts| starts.len() == rows), "attention: starts is not [{rows}]");
    }
}

/// Scratch that [`forward`] needs to keep `threads` threads busy, in numbers.
pub fn scratch_len<T: Number>(shape: &Shape, threads: usize) -> usize {
    threads * shape.part_len::<T>()
}

/// Scratch that [`grad`] needs to keep `threads` threads busy, in numbers.
pub fn grad_scratch_len<T: Number>(shape: &Shape, threads: usize) -> usize {
    threads * shape.grad_part_len::<T>()
}

/// Some adjacent queries of one row of the batch, and the keys they see.
struct Queries {
    first: usize,
    n: usize,
    /// For each query the range of keys it sees.
    seen: [(usize, usize); QUERIES],
    /// The range of keys that any of them sees.
    keys: (usize, usize),
}

impl Queries {
    /// `starts` are those of one row of the batch. A start beyond its own position counts as that position.
    fn new(shape: &Shape, first: usize, starts: Option<&[u32]>) -> Self {
        let n = shape.queries().min(shape.seq - first);
        let start = |i: usize| starts.map_or(0, |starts| (starts[i] as usize).min(i));
        let reach = |i: usize| shape.window.map_or(0, |window| (i + 1).saturating_sub(window));
        let mut seen = [(0, 0); QUERIES];
        for (i, seen) in (first..).zip(&mut seen[..n]) {
            let end = match (shape.causal, starts) {
                (true, _) => i + 1,
                (false, None) => shape.seq,
                // The segment ends where another begins.
                (false, Some(_)) => (i + 1..shape.seq).find(|&j| start(j) > i).unwrap_or(shape.seq),
            };
            *seen = (start(i).max(reach(i)), end);
        }
        let low = seen[..n].iter().map(|seen| seen.0).min().unwrap_or(0);
        let high = seen[..n].iter().map(|seen| seen.1).max().unwrap_or(0);
        Self { first, n, seen, keys: (low, high) }
    }

    /// First key and number of keys of each tile.
    fn tiles(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (low, high) = self.keys;
        (low..high).step_by(KEYS).map(move |key| (key, KEYS.min(high - key)))
    }

    /// What query `row` sees of the keys of a tile, counted from the tile's first.
    #[inline(always)]
    fn seen_in(&self, row: usize, (key, width): (usize, usize)) -> (usize, usize) {
        let (start, end) = self.seen[row];
        let start = start.saturating_sub(key).min(width);
        (start, end.saturating_sub(key).clamp(start, width))
    }
}

/// A buffer whose disjoint blocks are written by several tasks.
struct Shared<T>(*mut T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

#[allow(unsafe_code, reason = "each task writes blocks of its own: see the calls")]
unsafe impl<T: Number> Send for Shared<T> {}
#[allow(unsafe_code, reason = "each task writes blocks of its own: see the calls")]
unsafe impl<T: Number> Sync for Shared<T> {}

impl<T: Number> Shared<T> {
    /// `len` numbers from `offset`.
    ///
    /// # Safety
    /// They lie in the buffer, and no other task uses them meanwhile.
    #[allow(unsafe_code, reason = "each task writes blocks of its own: see the calls")]
    unsafe fn slice<'a>(self, offset: usize, len: usize) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(offset), len) }
    }
}

/// Rows of one head, `stride` apart, in which sums grow: those of the result itself if it is wide, else of scratch.
#[derive(Clone, Copy)]
struct Sums {
    first: Shared<f32>,
    stride: usize,
}

impl Sums {
    /// For the head of `to` that begins at `at`; `room` holds it as `[rows, head_dim]` where `to` is half numbers.
    fn new<T: Number>(to: Shared<T>, at: usize, stride: usize, room: &mut [f32], head_dim: usize) -> Self {
        match T::IS_WIDE {
            true => Self { first: Shared(to.0.wrapping_add(at).cast()), stride },
            false => Self { first: Shared(room.as_mut_ptr()), stride: head_dim },
        }
    }

    fn at(self, row: usize) -> *mut f32 {
        self.first.0.wrapping_add(row * self.stride)
    }

    /// Multiplies each row by its factor.
    ///
    /// # Safety
    /// There are so many rows, and no other task uses them.
    #[allow(unsafe_code, reason = "blocks of heads inside rows")]
    unsafe fn scale(self, factors: &[f32], head_dim: usize) {
        for (row, &factor) in factors.iter().enumerate() {
            // SAFETY: the caller's promise.
            let row = unsafe { self.first.slice(row * self.stride, head_dim) };
            for x in row {
                *x *= factor;
            }
        }
    }

    /// Rounds `rows` of half numbers to their place.
    ///
    /// # Safety
    /// As [`Self::scale`]; and the rows of `to` from `at` on are this task's.
    #[allow(unsafe_code, reason = "blocks of heads inside rows")]
    unsafe fn store<T: Number>(self, to: Shared<T>, at: usize, stride: usize, rows: usize, head_dim: usize) {
        if T::IS_WIDE {
            return;
        }
        for row in 0..rows {
            // SAFETY: the caller's promise.
            let (to, from) = unsafe {
                (to.slice(at + row * stride, head_dim), self.first.slice(row * self.stride, head_dim))
            };
            for (to, &mut from) in to.iter_mut().zip(from) {
                *to = T::nearest(from);
            }
        }
    }
}

/// Runs `task(i, scratch)` for each `i` below `n`, as many at a time as `scratch` has parts of `part` numbers.
pub(super) fn for_each_task(
    n: usize,
    scratch: &mut [f32],
    part: usize,
    task: impl Fn(usize, &mut [f32]) + Sync,
) {
    assert!(scratch.len() >= part && part > 0, "attention: scratch for no thread");
    let next = AtomicUsize::new(0);
    scratch.par_chunks_exact_mut(part).for_each(|scratch| {
        // Which thread takes which task does not matter to the result: tasks share no output.
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= n {
                break;
            }
            task(i, scratch);
        }
    });
}

/// `o = softmax(scale * q k^T) v` for each head; `lse`, `[batch * heads * seq]`, is the log-sum-exp of the scores.
///
/// `starts[b * seq + i]` is the first position of the segment that position `i` of row `b` belongs to: a query sees
/// only keys of its segment. `scratch` is [`scratch_len`] long.
pub fn forward<T: Number>(
    shape: &Shape,
    o: &mut [T],
    lse: &mut [f32],
    q: &[T],
    k: &[T],
    v: &[T],
    starts: Option<&[u32]>,
    scratch: &mut [f32],
) {
    let &Shape { batch, seq, heads, kv_heads, head_dim, scale, .. } = shape;
    shape.check(q, k, v, lse, starts);
    assert_eq!(o.len(), q.len(), "attention: o is not {shape:?}");
    if q.is_empty() {
        return;
    }
    let (q_stride, kv_stride) = (heads * head_dim, kv_heads * head_dim);
    let parts = seq.div_ceil(shape.queries());
    let (o, lse) = (Shared(o.as_mut_ptr()), Shared(lse.as_mut_ptr()));

    for_each_task(batch * heads * parts, scratch, shape.part_len::<T>(), |i, scratch| {
        let (scratch, room) = scratch.split_at_mut(shape.tile_len());
        // The last queries see the most keys: they go first.
        let (b, head, part) = (i % (batch * heads) / heads, i % heads, parts - 1 - i / (batch * heads));
        let queries =
            Queries::new(shape, part * shape.queries(), starts.map(|starts| &starts[b * seq..][..seq]));
        let n = queries.n;
        let q_at = (b * seq + queries.first) * q_stride + head * head_dim;
        let sums = Sums::new(o, q_at, q_stride, room, head_dim);
        let mut maxima = [f32::NEG_INFINITY; QUERIES];
        let mut totals = [0.0; QUERIES];
        for (key, width) in queries.tiles() {
            let kv_at = (b * seq + key) * kv_stride + head / (heads / kv_heads) * head_dim;
            let scores = &mut scratch[..n * width];
            let products = Product {
                m: n,
                n: width,
                k: head_dim,
                y: scores.as_mut_ptr(),
                y_stride: width,
                accumulate: false,
                scale,
                lhs: q[q_at..].as_ptr(),
                lhs_strides: [q_stride, 1],
                rhs: k[kv_at..].as_ptr(),
                rhs_strides: [1, kv_stride],
            };
            // SAFETY: `check` gave the extents of q and k; the scores are this task's.
            #[allow(unsafe_code, reason = "blocks of heads inside rows")]
            unsafe {
                products.run();
            }
            if let Some(cap) = shape.softcap {
                bend(scores, cap);
            }
            let mut shrink = [1.0; QUERIES];
            softmax_rows(scores, &queries, (key, width), &mut maxima, &mut totals, &mut shrink);
            let later = key > queries.keys.0;
            let mixed = Product {
                m: n,
                n: head_dim,
                k: width,
                y: sums.at(0),
                y_stride: sums.stride,
                accumulate: later,
                scale: 1.0,
                lhs: scores.as_ptr(),
                lhs_strides: [width, 1],
                rhs: v[kv_at..].as_ptr(),
                rhs_strides: [kv_stride, 1],
            };
            // SAFETY: `check` gave the extents of o and v; these rows of this head of o, or the room, are this task's.
            #[allow(unsafe_code, reason = "blocks of heads inside rows")]
            unsafe {
                if later {
                    sums.scale(&shrink[..n], head_dim);
                }
                mixed.run();
            }
        }
        // SAFETY: as above; and these numbers of lse are this task's.
        #[allow(unsafe_code, reason = "blocks of heads inside rows")]
        unsafe {
            sums.scale(&totals.map(|total| 1.0 / total)[..n], head_dim);
            sums.store(o, q_at, q_stride, n, head_dim);
            let lse = lse.slice((b * heads + head) * seq + queries.first, n);
            for ((lse, max), total) in lse.iter_mut().zip(maxima).zip(totals) {
                *lse = max + total.ln();
            }
        }
    });
}

vectorised! {
    /// Scores of a tile become `exp(score - maximum)`, and 0 where a query does not see the key.
    ///
    /// `maxima` and `totals` run along the tiles; `shrink` is what the earlier tiles are to be multiplied with.
    fn softmax_rows<'a>(
        scores: &'a mut [f32],
        queries: &'a Queries,
        tile: (usize, usize),
        maxima: &'a mut [f32; QUERIES],
        totals: &'a mut [f32; QUERIES],
        shrink: &'a mut [f32; QUERIES],
    ) {
        for (row, scores) in scores.chunks_exact_mut(tile.1).enumerate() {
            let (start, end) = queries.seen_in(row, tile);
            scores[..start].fill(0.0);
            scores[end..].fill(0.0);
            let seen = &mut scores[start..end];
            if seen.is_empty() {
                continue;
            }
            let before = maxima[row];
            let here = max(seen);
            let maximum = if here > before { here } else { before };
            shrink[row] = exp(before - maximum);
            maxima[row] = maximum;
            totals[row] = totals[row] * shrink[row] + exp_in_place(seen, maximum);
        }
    }
}

/// The gradients of `q`, `k` and `v`, from `dout`, the gradient of `o`, and what [`forward`] gave.
///
/// `scratch` is [`grad_scratch_len`] long.
pub fn grad<T: Number>(
    shape: &Shape,
    dq: &mut [T],
    dk: &mut [T],
    dv: &mut [T],
    dout: &[T],
    q: &[T],
    k: &[T],
    v: &[T],
    o: &[T],
    lse: &[f32],
    starts: Option<&[u32]>,
    scratch: &mut [f32],
) {
    let &Shape { batch, seq, heads, kv_heads, head_dim, scale, .. } = shape;
    shape.check(q, k, v, lse, starts);
    assert!(
        dq.len() == q.len()
            && dk.len() == k.len()
            && dv.len() == v.len()
            && dout.len() == q.len()
            && o.len() == q.len(),
        "attention: a gradient is not {shape:?}"
    );
    if q.is_empty() {
        return;
    }
    let (q_stride, kv_stride) = (heads * head_dim, kv_heads * head_dim);
    let group = heads / kv_heads;
    let (dq, dk, dv) = (Shared(dq.as_mut_ptr()), Shared(dk.as_mut_ptr()), Shared(dv.as_mut_ptr()));

    // One task holds all the queries that a key head has, so that dk and dv are summed in a fixed order.
    for_each_task(batch * kv_heads, scratch, shape.grad_part_len::<T>(), |i, scratch| {
        let (b, kv_head) = (i / kv_heads, i % kv_heads);
        let starts = starts.map(|starts| &starts[b * seq..][..seq]);
        let (p, scratch) = scratch.split_at_mut(shape.tile_len());
        let (ds, scratch) = scratch.split_at_mut(shape.tile_len());
        let (dq_room, scratch) =
            scratch.split_at_mut(if T::IS_WIDE { 0 } else { shape.queries() * head_dim });
        let (dk_room, dv_room) = scratch.split_at_mut(scratch.len() / 2);
        let kv_first = b * seq * kv_stride + kv_head * head_dim;
        let dk_sums = Sums::new(dk, kv_first, kv_stride, dk_room, head_dim);
        let dv_sums = Sums::new(dv, kv_first, kv_stride, dv_room, head_dim);
        for row in 0..seq {
            // SAFETY: `check` gave the extents; this head of dk and dv, or the room, is this task's in batch row b.
            #[allow(unsafe_code, reason = "blocks of heads inside rows")]
            unsafe {
                dk_sums.first.slice(row * dk_sums.stride, head_dim).fill(0.0);
                dv_sums.first.slice(row * dv_sums.stride, head_dim).fill(0.0);
            }
        }
        for first in (0..seq).step_by(shape.queries()) {
            let queries = Queries::new(shape, first, starts);
            let n = queries.n;
            for head in kv_head * group..(kv_head + 1) * group {
                let q_at = (b * seq + first) * q_stride + head * head_dim;
                let lse = &lse[(b * heads + head) * seq + first..][..n];
                let dq_sums = Sums::new(dq, q_at, q_stride, dq_room, head_dim);
                // sum(p * dp) over the keys is sum(o * dout) over the head.
                let mut means = [0.0; QUERIES];
                dot_rows(&mut means[..n], &dout[q_at..], &o[q_at..], q_stride, head_dim);
                for (key, width) in queries.tiles() {
                    let kv_at = (b * seq + key) * kv_stride + kv_head * head_dim;
                    let (p, ds) = (&mut p[..n * width], &mut ds[..n * width]);
                    let scores = Product {
                        m: n,
                        n: width,
                        k: head_dim,
                        y: p.as_mut_ptr(),
                        y_stride: width,
                        accumulate: false,
                        scale,
                        lhs: q[q_at..].as_ptr(),
                        lhs_strides: [q_stride, 1],
                        rhs: k[kv_at..].as_ptr(),
                        rhs_strides: [1, kv_stride],
                    };
                    let dp = Product {
                        y: ds.as_mut_ptr(),
                        scale: 1.0,
                        lhs: dout[q_at..].as_ptr(),
                        rhs: v[kv_at..].as_ptr(),
                        ..scores
                    };
                    // SAFETY: `check` gave the extents of q, k, v and dout; p and ds are this task's.
                    #[allow(unsafe_code, reason = "blocks of heads inside rows")]
                    unsafe {
                        scores.run();
                        dp.run();
                    }
                    match shape.softcap {
                        None => softmax_grad_rows(p, ds, &queries, (key, width), lse, &means, scale),
                        Some(cap) => {
                            bend(p, cap);
                            capped_softmax_grad_rows(p, ds, &queries, (key, width), lse, &means, scale, cap);
                        }
                    }
                    // dv += p^T dout, dk += ds^T q, dq = (dq or 0) + ds k.
                    let dv = Product {
                        m: width,
                        n: head_dim,
                        k: n,
                        y: dv_sums.at(key),
                        y_stride: dv_sums.stride,
                        accumulate: true,
                        scale: 1.0,
                        lhs: p.as_ptr(),
                        lhs_strides: [1, width],
                        rhs: dout[q_at..].as_ptr(),
                        rhs_strides: [q_stride, 1],
                    };
                    let dk = Product {
                        y: dk_sums.at(key),
                        y_stride: dk_sums.stride,
                        lhs: ds.as_ptr(),
                        rhs: q[q_at..].as_ptr(),
                        ..dv
                    };
                    let dq = Product {
                        m: n,
                        n: head_dim,
                        k: width,
                        y: dq_sums.at(0),
                        y_stride: dq_sums.stride,
                        accumulate: key > queries.keys.0,
                        scale: 1.0,
                        lhs: ds.as_ptr(),
                        lhs_strides: [width, 1],
                        rhs: k[kv_at..].as_ptr(),
                        rhs_strides: [kv_stride, 1],
                    };
                    // SAFETY: `check` gave the extents; this head of dk and dv, and its query heads of dq, are this
                    // task's in batch row b.
                    #[allow(unsafe_code, reason = "blocks of heads inside rows")]
                    unsafe {
                        dv.run();
                        dk.run();
                        dq.run();
                    }
                }
                // SAFETY: as above.
                #[allow(unsafe_code, reason = "blocks of heads inside rows")]
                unsafe {
                    dq_sums.store(dq, q_at, q_stride, n, head_dim);
                }
            }
        }
        // SAFETY: as above.
        #[allow(unsafe_code, reason = "blocks of heads inside rows")]
        unsafe {
            dk_sums.store(dk, kv_first, kv_stride, seq, head_dim);
            dv_sums.store(dv, kv_first, kv_stride, seq, head_dim);
        }
    });
}

vectorised! {
    /// `sums[row] = sum(a * b)` over one head of rows that are `stride` apart.
    fn dot_rows<'a, T: Number>(sums: &'a mut [f32], a: &'a [T], b: &'a [T], stride: usize, head_dim: usize) {
        for (row, sum) in sums.iter_mut().enumerate() {
            *sum = sum2(&a[row * stride..][..head_dim], &b[row * stride..][..head_dim], |a, b| a * b);
        }
    }
}

vectorised! {
    /// Scores in `p` become probabilities; in `ds`, their gradients become those of the unscaled scores.
    fn softmax_grad_rows<'a>(
        p: &'a mut [f32],
        ds: &'a mut [f32],
        queries: &'a Queries,
        tile: (usize, usize),
        lse: &'a [f32],
        means: &'a [f32; QUERIES],
        scale: f32,
    ) {
        for (row, (p, ds)) in p.chunks_exact_mut(tile.1).zip(ds.chunks_exact_mut(tile.1)).enumerate() {
            let (start, end) = queries.seen_in(row, tile);
            for tile in [&mut *p, &mut *ds] {
                tile[..start].fill(0.0);
                tile[end..].fill(0.0);
            }
            let (lse, mean) = (lse[row], means[row]);
            for (p, ds) in p[start..end].iter_mut().zip(&mut ds[start..end]) {
                *p = exp(*p - lse);
                *ds = *p * (*ds - mean) * scale;
            }
        }
    }
}

vectorised! {
    /// As [`softmax_grad_rows`], of scores in `p` that are bent.
    fn capped_softmax_grad_rows<'a>(
        p: &'a mut [f32],
        ds: &'a mut [f32],
        queries: &'a Queries,
        tile: (usize, usize),
        lse: &'a [f32],
        means: &'a [f32; QUERIES],
        scale: f32,
        cap: f32,
    ) {
        for (row, (p, ds)) in p.chunks_exact_mut(tile.1).zip(ds.chunks_exact_mut(tile.1)).enumerate() {
            let (start, end) = queries.seen_in(row, tile);
            for tile in [&mut *p, &mut *ds] {
                tile[..start].fill(0.0);
                tile[end..].fill(0.0);
            }
            let (lse, mean) = (lse[row], means[row]);
            for (p, ds) in p[start..end].iter_mut().zip(&mut ds[start..end]) {
                let tangent = *p / cap;
                *p = exp(*p - lse);
                *ds = *p * (*ds - mean) * scale * (1.0 - tangent * tangent);
            }
        }
    }
}

vectorised! {
    /// `scores = cap tanh(scores / cap)`.
    fn bend<'a>(scores: &'a mut [f32], cap: f32) {
        for score in scores {
            *score = cap * tanh(*score / cap);
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{D, Device, Tensor};

    use super::super::oracle::{
        assert_close, assert_finite_differences, gradients, inner, numbers, random, same_for_any_threads, var,
    };
    use super::*;

    struct Case {
        shape: Shape,
        q: Vec<f32>,
        k: Vec<f32>,
        v: Vec<f32>,
        dout: Vec<f32>,
        starts: Option<Vec<u32>>,
    }

    /// `segments` are lengths; the last one runs to the end of the row, and each row of the batch is cut one later.
    fn case(
        batch: usize,
        seq: usize,
        heads: usize,
        kv_heads: usize,
        head_dim: usize,
        causal: bool,
        segments: &[usize],
    ) -> Case {
        let (q_len, kv_len) = (batch * seq * heads * head_dim, batch * seq * kv_heads * head_dim);
        let mut starts = vec![0; batch * seq];
        for b in 0..batch {
            let mut start = 0;
            for length in segments {
                start += length + b;
                for slot in starts[b * seq..][..seq].iter_mut().skip(start) {
                    *slot = start as u32;
                }
            }
        }
        Case {
            shape: Shape {
                batch,
                seq,
                heads,
                kv_heads,
                head_dim,
                scale: 1.0 / (head_dim as f32).sqrt(),
                causal,
                window: None,
                softcap: None,
            },
            q: random(q_len, 1).iter().map(|x| 2.0 * x).collect(),
            k: random(kv_len, 2).iter().map(|x| 2.0 * x).collect(),
            v: random(kv_len, 3),
            dout: random(q_len, 4),
            starts: (!segments.is_empty()).then_some(starts),
        }
    }

    impl Case {
        fn forward(&self, q: &[f32], k: &[f32], v: &[f32]) -> (Vec<f32>, Vec<f32>) {
            let shape = &self.shape;
            let mut o = vec![f32::NAN; q.len()];
            let mut lse = vec![f32::NAN; shape.batch * shape.heads * shape.seq];
            let mut scratch = vec![f32::NAN; scratch_len::<f32>(shape, rayon::current_num_threads())];
            forward(shape, &mut o, &mut lse, q, k, v, self.starts.as_deref(), &mut scratch);
            (o, lse)
        }

        /// o, lse, dq, dk, dv.
        fn run(&self) -> [Vec<f32>; 5] {
            let shape = &self.shape;
            let (o, lse) = self.forward(&self.q, &self.k, &self.v);
            let nan = |like: &[f32]| vec![f32::NAN; like.len()];
            let (mut dq, mut dk, mut dv) = (nan(&self.q), nan(&self.k), nan(&self.v));
            let mut scratch = vec![f32::NAN; grad_scratch_len::<f32>(shape, rayon::current_num_threads())];
            grad(
                shape,
                &mut dq,
                &mut dk,
                &mut dv,
                &self.dout,
                &self.q,
                &self.k,
                &self.v,
                &o,
                &lse,
                self.starts.as_deref(),
                &mut scratch,
            );
            [o, lse, dq, dk, dv]
        }

        /// The same by candle: a whole matrix of scores with a mask.
        fn oracle(&self) -> [Vec<f32>; 5] {
            let Shape { batch, seq, heads, kv_heads, head_dim, scale, causal, window, softcap } = self.shape;
            let (q, k, v) = (
                var(&self.q, &[batch, seq, heads, head_dim]),
                var(&self.k, &[batch, seq, kv_heads, head_dim]),
                var(&self.v, &[batch, seq, kv_heads, head_dim]),
            );
            let start = |b: usize, i: usize| self.starts.as_ref().map_or(0, |starts| starts[b * seq + i]);
            let mut mask = Vec::new();
            for b in 0..batch {
                for i in 0..seq {
                    mask.extend((0..seq).map(|j| {
                        let near = window.is_none_or(|window| i < j + window);
                        let seen = near && start(b, j) == start(b, i) && (!causal || j <= i);
                        if seen { 0.0 } else { -1e30_f32 }
                    }));
                }
            }
            let mask = Tensor::from_slice(&mask, (batch, 1, seq, seq), &Device::Cpu).unwrap();
            let repeated = |x: &Tensor| {
                x.transpose(1, 2)
                    .unwrap()
                    .unsqueeze(2)
                    .unwrap()
                    .expand((batch, kv_heads, heads / kv_heads, seq, head_dim))
                    .unwrap()
                    .contiguous()
                    .unwrap()
                    .reshape((batch, heads, seq, head_dim))
                    .unwrap()
            };
            let rows = q.transpose(1, 2).unwrap().contiguous().unwrap();
            let scores = rows.matmul(&repeated(&k).t().unwrap().contiguous().unwrap()).unwrap();
            let mut scores = (scores * f64::from(scale)).unwrap();
            if let Some(cap) = softcap.map(f64::from) {
                scores = ((scores / cap).unwrap().tanh().unwrap() * cap).unwrap();
            }
            let scores = scores.broadcast_add(&mask).unwrap();
            let lse = scores.log_sum_exp(D::Minus1).unwrap();
            let o = candle_nn::ops::softmax(&scores, D::Minus1).unwrap().matmul(&repeated(&v)).unwrap();
            let o = o.transpose(1, 2).unwrap().contiguous().unwrap();
            let mut grads = gradients(&o, &self.dout, &[&q, &k, &v]).into_iter();
            [numbers(&o), numbers(&lse), grads.next().unwrap(), grads.next().unwrap(), grads.next().unwrap()]
        }
    }

    #[track_caller]
    fn check(case: &Case) {
        let lengths =
            [case.q.len(), case.shape.batch * case.shape.heads * case.shape.seq, case.q.len(), case.k.len()];
        let got = same_for_any_threads(|| case.run().concat());
        let mut rest = &got[..];
        for (name, expected) in ["o", "lse", "dq", "dk", "dv"].iter().zip(case.oracle()) {
            let (part, tail) = rest.split_at(expected.len());
            println!("{name} of {:?} {lengths:?}", case.shape);
            assert_close(part, &expected, 2e-5);
            rest = tail;
        }
    }

    #[test]
    fn causal_attention_agrees_with_autograd() {
        for (batch, seq, heads, kv_heads, head_dim) in
            [(1, 1, 1, 1, 8), (2, 7, 2, 2, 16), (2, 65, 4, 2, 64), (1, 130, 4, 1, 80), (1, 130, 2, 1, 8)]
        {
            check(&case(batch, seq, heads, kv_heads, head_dim, true, &[]));
        }
    }

    #[test]
    fn full_attention_agrees_with_autograd() {
        for (batch, seq, heads, kv_heads, head_dim) in
            [(2, 7, 2, 1, 8), (1, 65, 4, 4, 16), (2, 130, 2, 1, 64)]
        {
            check(&case(batch, seq, heads, kv_heads, head_dim, false, &[]));
        }
    }

    #[test]
    fn packed_segments_do_not_see_each_other() {
        for causal in [true, false] {
            check(&case(2, 7, 2, 1, 8, causal, &[3]));
            check(&case(2, 130, 2, 2, 16, causal, &[1, 64, 20, 30]));
            check(&case(3, 200, 4, 1, 16, causal, &[100, 5]));
            check(&case(2, 600, 2, 1, 8, causal, &[290, 250]));
        }
    }

    #[test]
    fn a_window_hides_what_is_far_behind() {
        for (seq, window) in [(7, 1), (7, 3), (65, 64), (130, 20), (600, 33), (600, 300)] {
            for segments in [&[][..], &[seq / 3]] {
                let mut case = case(2, seq, 2, 1, 8, true, segments);
                case.shape.window = Some(window);
                check(&case);
            }
        }
    }

    #[test]
    fn bent_scores_agree_with_autograd() {
        for (seq, causal, window) in [(7, true, None), (130, false, None), (300, true, Some(40))] {
            let mut case = case(2, seq, 4, 2, 16, causal, &[]);
            (case.shape.softcap, case.shape.window) = (Some(1.5), window);
            check(&case);
        }
    }

    #[test]
    fn attention_agrees_with_finite_differences() {
        let mut case = case(1, 6, 2, 1, 4, true, &[2]);
        finite_differences(&case);
        (case.shape.softcap, case.shape.window) = (Some(2.0), Some(2));
        finite_differences(&case);
    }

    fn finite_differences(case: &Case) {
        let [_, _, dq, dk, dv] = case.run();
        let value = |q: &[f32], k: &[f32], v: &[f32]| inner(&case.forward(q, k, v).0, &case.dout);
        assert_finite_differences(&case.q, &dq, 3e-4, |q| value(q, &case.k, &case.v));
        assert_finite_differences(&case.k, &dk, 3e-4, |k| value(&case.q, k, &case.v));
        assert_finite_differences(&case.v, &dv, 3e-4, |v| value(&case.q, &case.k, v));
    }

    /// In 32 bits, the half numbers' own attention is the oracle: what is left is one rounding of each result.
    fn check_half<T: Number>(case: &Case, rounding: f32) {
        let half = |x: &[f32]| x.iter().map(|x| T::nearest(*x)).collect::<Vec<T>>();
        let wide = |x: &[T]| x.iter().map(|x| x.wide()).collect::<Vec<f32>>();
        let [q, k, v, dout] = [&case.q, &case.k, &case.v, &case.dout].map(|x| half(x));
        let shape = &case.shape;
        let threads = rayon::current_num_threads();
        let zeros = |n: usize| vec![T::nearest(f32::NAN); n];
        let (mut o, mut lse) = (zeros(q.len()), vec![f32::NAN; shape.batch * shape.heads * shape.seq]);
        let mut scratch = vec![f32::NAN; scratch_len::<T>(shape, threads)];
        let starts = case.starts.as_deref();
        forward(shape, &mut o, &mut lse, &q, &k, &v, starts, &mut scratch);
        let (mut dq, mut dk, mut dv) = (zeros(q.len()), zeros(k.len()), zeros(k.len()));
        let mut scratch = vec![f32::NAN; grad_scratch_len::<T>(shape, threads)];
        let all = [&mut dq, &mut dk, &mut dv];
        let [to_q, to_k, to_v] = all;
        grad(shape, to_q, to_k, to_v, &dout, &q, &k, &v, &o, &lse, starts, &mut scratch);

        let rounded = Case {
            shape: *shape,
            q: wide(&q),
            k: wide(&k),
            v: wide(&v),
            dout: wide(&dout),
            starts: case.starts.clone(),
        };
        let [o_wide, lse_wide, dq_wide, dk_wide, dv_wide] = rounded.run();
        assert_close(&lse, &lse_wide, 1e-6);
        assert_close(&wide(&o), &o_wide, rounding);
        assert_close(&wide(&dv), &dv_wide, rounding);
        // These read `o`, which has been rounded already.
        assert_close(&wide(&dq), &dq_wide, 4.0 * rounding);
        assert_close(&wide(&dk), &dk_wide, 4.0 * rounding);
    }

    #[test]
    fn half_numbers_are_rounded_once() {
        use half::{bf16, f16};
        for (seq, causal, segments) in
            [(7, true, &[][..]), (130, false, &[64]), (300, true, &[]), (600, true, &[290, 250])]
        {
            let case = case(2, seq, 4, 2, 16, causal, segments);
            // Half a unit in the last place: 8 bits and 11 bits.
            check_half::<bf16>(&case, 1.0 / 256.0);
            check_half::<f16>(&case, 1.0 / 2048.0);
        }
    }
}
