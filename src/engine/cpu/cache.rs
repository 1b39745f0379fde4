//! Attention of one new token a sequence to those before it, whose keys and values are kept.
//!
//! Keys and values lie in rows of a cache in no order; a table says which row holds the token at each place of a sequence,
//! so that sequences with a common beginning share it.

use super::attention::for_each_task;
use super::number::Number;
use super::simd::{exp_in_place, max, sum2, tanh, vectorised};

/// The sizes of one such attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    pub batch: usize,
    /// Places that a sequence can have.
    pub capacity: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub scale: f32,
    pub window: Option<usize>,
    pub softcap: Option<f32>,
}

/// Writes the rows of `x` into the rows of `cache` that `places` names; both are `width` wide.
pub fn write<T: Number>(cache: &mut [f32], x: &[T], places: &[u32], width: usize) {
    assert_eq!(x.len(), places.len() * width, "cache: x is not [{}, {width}]", places.len());
    for (x, &place) in x.chunks_exact(width).zip(places) {
        let row = &mut cache[place as usize * width..][..width];
        row.iter_mut().zip(x).for_each(|(kept, x)| *kept = x.wide());
    }
}

/// `o = softmax(scale * q k^T) v` for one query a sequence, `[batch, heads * head_dim]`.
///
/// Sequence `b` has `lengths[b]` tokens, the last of which asks; the token at place `t` is in row `seen[b * capacity + t]` of
/// `keys` and `values`. `scratch` has `capacity + 2 * head_dim` numbers for each thread.
pub fn attend<T: Number>(
    shape: &Shape,
    o: &mut [T],
    q: &[T],
    keys: &[f32],
    values: &[f32],
    seen: &[u32],
    lengths: &[u32],
    scratch: &mut [f32],
) {
    let &Shape { batch, capacity, heads, kv_heads, head_dim, .. } = shape;
    assert!(
        q.len() == batch * heads * head_dim && o.len() == q.len() && lengths.len() == batch,
        "attend: q or o is not {shape:?}"
    );
    assert_eq!(seen.len(), batch * capacity, "attend: seen is not {shape:?}");
    let stride = kv_heads * head_dim;
    let tasks = std::sync::Mutex::new(o.chunks_exact_mut(head_dim).map(Some).collect::<Vec<_>>());
    for_each_task(batch * heads, scratch, capacity + 2 * head_dim, |i, scratch| {
        let o = tasks.lock().expect("no task panics")[i].take().expect("each task is taken once");
        let (b, head) = (i / heads, i % heads);
        let length = lengths[b] as usize;
        let first = shape.window.map_or(0, |window| length.saturating_sub(window));
        let rows = &seen[b * capacity..][first..length];
        let at = head / (heads / kv_heads) * head_dim;
        let (wide, scores) = scratch.split_at_mut(2 * head_dim);
        let (wide_o, wide_q) = wide.split_at_mut(head_dim);
        wide_q.iter_mut().zip(&q[i * head_dim..]).for_each(|(wide, q)| *wide = q.wide());
        one(shape, wide_o, wide_q, keys, values, rows, [stride, at], &mut scores[..rows.len()]);
        o.iter_mut().zip(wide_o).for_each(|(o, wide)| *o = T::nearest(*wide));
    });
}

vectorised! {
    /// One head of one sequence. `rows`: where the tokens that it sees are; `place`: the length of a row, and where the head is in it.
    fn one<'a>(
        shape: &'a Shape,
        o: &'a mut [f32],
        q: &'a [f32],
        keys: &'a [f32],
        values: &'a [f32],
        rows: &'a [u32],
        place: [usize; 2],
        scores: &'a mut [f32],
    ) {
        let ([stride, at], head_dim) = (place, q.len());
        for (score, &row) in scores.iter_mut().zip(rows) {
            let key = &keys[row as usize * stride + at..][..head_dim];
            *score = shape.scale * sum2(q, key, |q, k| q * k);
        }
        if let Some(cap) = shape.softcap {
            for score in &mut *scores {
                *score = cap * tanh(*score / cap);
            }
        }
        let maximum = max(scores);
        let total = exp_in_place(scores, maximum);
        o.fill(0.0);
        for (&score, &row) in scores.iter().zip(rows) {
            let share = score / total;
            for (o, &value) in o.iter_mut().zip(&values[row as usize * stride + at..][..head_dim]) {
                *o += share * value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::attention;
    use super::super::oracle::{assert_close, random, same_for_any_threads};
    use super::*;

    /// The last query of each of two sequences, one of them shorter, against attention over the whole sequence.
    fn check(heads: usize, kv_heads: usize, window: Option<usize>, softcap: Option<f32>) {
        let (batch, seq, head_dim, capacity) = (2, 9, 8, 12);
        let lengths = [9_u32, 5];
        let (q, k, v) = (
            random(batch * seq * heads * head_dim, 1),
            random(batch * seq * kv_heads * head_dim, 2),
            random(batch * seq * kv_heads * head_dim, 3),
        );
        let scale = 0.3;
        let whole =
            attention::Shape { batch, seq, heads, kv_heads, head_dim, scale, causal: true, window, softcap };
        let mut expected = vec![0.0; q.len()];
        let mut lse = vec![0.0; batch * seq * heads];
        let mut scratch = vec![0.0; attention::scratch_len::<f32>(&whole, 1)];
        attention::forward(&whole, &mut expected, &mut lse, &q, &k, &v, None, &mut scratch);

        // The cache's rows in an order of their own: place t of sequence b is in row 2 t + 1 - b.
        let width = kv_heads * head_dim;
        let (mut keys, mut values) =
            (vec![f32::NAN; 2 * capacity * width], vec![f32::NAN; 2 * capacity * width]);
        let mut seen = vec![0; batch * capacity];
        for b in 0..batch {
            let places: Vec<u32> = (0..lengths[b]).map(|t| 2 * t + 1 - b as u32).collect();
            let own = b * seq * width..(b * seq + places.len()) * width;
            write(&mut keys, &k[own.clone()], &places, width);
            write(&mut values, &v[own], &places, width);
            seen[b * capacity..][..places.len()].copy_from_slice(&places);
        }
        let last = |b: usize| (b * seq + lengths[b] as usize - 1) * heads * head_dim;
        let queries = [0, 1].map(|b| q[last(b)..][..heads * head_dim].to_vec()).concat();
        let shape = Shape { batch, capacity, heads, kv_heads, head_dim, scale, window, softcap };
        let got = same_for_any_threads(|| {
            let mut o = vec![f32::NAN; queries.len()];
            let mut scratch = vec![f32::NAN; 3 * (capacity + 2 * head_dim)];
            attend(&shape, &mut o, &queries, &keys, &values, &seen, &lengths, &mut scratch);
            o
        });
        let expected = [0, 1].map(|b| expected[last(b)..][..heads * head_dim].to_vec()).concat();
        assert_close(&got, &expected, 1e-6);
    }

    #[test]
    fn a_query_alone_sees_what_it_would_see_among_all() {
        check(4, 4, None, None);
        check(4, 2, None, None);
        check(4, 1, Some(3), None);
        check(2, 2, Some(6), Some(2.0));
    }
}
