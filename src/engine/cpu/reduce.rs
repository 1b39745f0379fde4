//! Sums, scalings and norms over whole buffers.

use half::bf16;
use rayon::prelude::*;

use crate::random::Random;

use super::number::Number;
use super::simd::{CHUNK, LANES, vectorised};

/// `y = a + b`.
pub fn add<T: Number>(y: &mut [T], a: &[T], b: &[T]) {
    assert!(y.len() == a.len() && y.len() == b.len(), "add: operands of different lengths");
    y.par_chunks_mut(CHUNK)
        .zip(a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK)))
        .for_each(|(y, (a, b))| add_chunk(y, a, b));
}

vectorised! {
    fn add_chunk<'a, T: Number>(y: &'a mut [T], a: &'a [T], b: &'a [T]) {
        for (y, (&a, &b)) in y.iter_mut().zip(a.iter().zip(b)) {
            *y = T::nearest(a.wide() + b.wide());
        }
    }
}

/// `a += b`.
pub fn add_in_place<T: Number>(a: &mut [T], b: &[T]) {
    assert_eq!(a.len(), b.len(), "add_in_place: operands of different lengths");
    a.par_chunks_mut(CHUNK).zip(b.par_chunks(CHUNK)).for_each(|(a, b)| add_in_place_chunk(a, b));
}

vectorised! {
    fn add_in_place_chunk<'a, T: Number>(a: &'a mut [T], b: &'a [T]) {
        for (a, &b) in a.iter_mut().zip(b) {
            *a = T::nearest(a.wide() + b.wide());
        }
    }
}

/// `y = factor * x`.
pub fn scale<T: Number>(y: &mut [T], x: &[T], factor: f32) {
    assert_eq!(y.len(), x.len(), "scale: operands of different lengths");
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
        y.copy_from_slice(x);
        scale_chunk(y, factor);
    });
}

/// `x *= factor`.
pub fn scale_in_place<T: Number>(x: &mut [T], factor: f32) {
    x.par_chunks_mut(CHUNK).for_each(|x| scale_chunk(x, factor));
}

vectorised! {
    /// `x *= factor`, on the calling thread.
    pub(super) fn scale_chunk<'a, T: Number>(x: &'a mut [T], factor: f32) {
        for x in x {
            *x = T::nearest(x.wide() * factor);
        }
    }
}

/// `y = x`, in another type.
pub fn cast<S: Number, T: Number>(y: &mut [T], x: &[S]) {
    assert_eq!(y.len(), x.len(), "cast: operands of different lengths");
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| cast_chunk(y, x));
}

vectorised! {
    fn cast_chunk<'a, S: Number, T: Number>(y: &'a mut [T], x: &'a [S]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = T::nearest(x.wide());
        }
    }
}

/// `y = x`, each number rounded up or down so that it is `x` in the mean: what a step adds is not lost for being small.
/// The `i`-th number's chance is the `i`-th of the stream that `noise` begins.
///
/// Source: Gupta et al. 2015, "Deep Learning with Limited Numerical Precision", section 3.
pub fn round_at_random(y: &mut [bf16], x: &[f32], noise: u64) {
    assert_eq!(y.len(), x.len(), "round_at_random: operands of different lengths");
    y.par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK))
        .enumerate()
        .for_each(|(i, (y, x))| round_at_random_chunk(y, x, noise, (i * CHUNK) as u64));
}

vectorised! {
    fn round_at_random_chunk<'a>(y: &'a mut [bf16], x: &'a [f32], noise: u64, first: u64) {
        for ((y, &x), n) in y.iter_mut().zip(x).zip(first..) {
            // What lies between two half numbers is the lower 16 bits: adding chance to them carries as often as they are large.
            let up = x.to_bits().wrapping_add((Random::nth(noise, n) >> 48) as u32);
            *y = if x.is_finite() { bf16::from_bits((up >> 16) as u16) } else { bf16::nearest(x) };
        }
    }
}

/// The sum of `x * x`, in f64. The tree of partial sums depends on the length alone.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    if x.len() <= CHUNK {
        return sum_of_squares_chunk(x);
    }
    let (low, high) = x.split_at(half(x.len(), CHUNK));
    let (low, high) = rayon::join(|| sum_of_squares(low), || sum_of_squares(high));
    low + high
}

vectorised! {
    fn sum_of_squares_chunk<'a>(x: &'a [f32]) -> f64 {
        let mut lanes = [0.0_f64; LANES / 2];
        let (blocks, rest) = x.as_chunks::<{ LANES / 2 }>();
        for block in blocks {
            let wide = block.map(f64::from);
            for (lane, wide) in lanes.iter_mut().zip(wide) {
                *lane += wide * wide;
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(rest) {
            *lane += f64::from(x) * f64::from(x);
        }
        lanes.into_iter().sum()
    }
}

/// Where to cut a range of more than `leaf` items in two, so that leaves are full.
pub(super) fn half(len: usize, leaf: usize) -> usize {
    len.div_ceil(leaf).div_ceil(2) * leaf
}

/// Columns that one task of a column sum covers.
pub(super) const COLUMNS: usize = 64;

/// `sums[c] = (sums[c] or 0) + sum over r of dy[r, c]`, with `dy` `[rows, sums.len()]`; rows in order.
pub fn column_sums<T: Number>(sums: &mut [f32], accumulate: bool, dy: &[T]) {
    let n = sums.len();
    assert!(n > 0 && dy.len().is_multiple_of(n), "column_sums: dy is not [rows, {n}]");
    sums.par_chunks_mut(COLUMNS).enumerate().for_each(|(i, sums)| {
        if !accumulate {
            sums.fill(0.0);
        }
        // Partial sums of 256 rows keep the rounding error of tall inputs small.
        for dy in dy.chunks(256 * n) {
            column_sums_block(sums, dy, n, i * COLUMNS);
        }
    });
}

vectorised! {
    fn column_sums_block<'a, T: Number>(sums: &'a mut [f32], dy: &'a [T], n: usize, first: usize) {
        let mut partial = [0.0; COLUMNS];
        let partial = &mut partial[..sums.len()];
        for dy in dy.chunks_exact(n) {
            for (partial, &dy) in partial.iter_mut().zip(&dy[first..]) {
                *partial += dy.wide();
            }
        }
        for (sum, &partial) in sums.iter_mut().zip(&*partial) {
            *sum += partial;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::oracle::{assert_close, random, same_for_any_threads};
    use super::*;

    #[test]
    fn sums_of_squares_agree_with_a_plain_sum() {
        for n in [0, 1, 33, CHUNK, CHUNK + 1, 5 * CHUNK + 7] {
            let x = random(n, 1);
            let expected: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let got = same_for_any_threads(|| vec![sum_of_squares(&x)])[0];
            assert!((got - expected).abs() <= 1e-12 * expected, "{n}: {got} {expected}");
        }
    }

    #[test]
    fn additions_and_scaling_are_elementwise() {
        for n in [1, CHUNK + 3] {
            let (a, b) = (random(n, 1), random(n, 2));
            let mut y = vec![f32::NAN; n];
            add(&mut y, &a, &b);
            let mut in_place = a.clone();
            add_in_place(&mut in_place, &b);
            assert_eq!(y, in_place);
            assert_eq!(y, a.iter().zip(&b).map(|(a, b)| a + b).collect::<Vec<_>>());
            let mut scaled = vec![f32::NAN; n];
            scale(&mut scaled, &y, -2.0);
            scale_in_place(&mut y, -2.0);
            assert_eq!(scaled, y);
            assert_eq!(y, in_place.iter().map(|x| x * -2.0).collect::<Vec<_>>());
        }
    }

    #[test]
    fn chance_rounds_to_a_neighbour_and_to_the_number_in_the_mean() {
        let x: Vec<f32> = random(3 * CHUNK, 7).iter().map(|x| x * 10.0).collect();
        let mut sums = vec![0.0; x.len()];
        let mut y = vec![bf16::ZERO; x.len()];
        const ROUNDS: u64 = 64;
        for noise in 0..ROUNDS {
            round_at_random(&mut y, &x, Random::stream(5, noise).next());
            for ((sum, y), &x) in sums.iter_mut().zip(&y).zip(&x) {
                let gap = f64::from(x.abs()) / 128.0;
                assert!((f64::from(y.to_f32()) - f64::from(x)).abs() < gap, "{y} is no neighbour of {x}");
                *sum += f64::from(y.to_f32());
            }
        }
        // A mean of 64 misses by a 16th of a gap or so, as often up as down; of all of them together by next to nothing.
        let off: f64 = sums.iter().zip(&x).map(|(sum, &x)| sum / ROUNDS as f64 - f64::from(x)).sum();
        assert!((off / x.len() as f64).abs() < 1e-5, "{off}");
        // What is a half number already stays.
        let halves: Vec<f32> = y.iter().map(|y| y.to_f32()).collect();
        let before = y.clone();
        round_at_random(&mut y, &halves, 9);
        assert_eq!(y, before);
        round_at_random(&mut y[..2], &[f32::INFINITY, f32::NAN], 9);
        assert!(y[0] == bf16::INFINITY && y[1].is_nan());
    }

    #[test]
    fn column_sums_agree_with_f64() {
        for (rows, n) in [(1, 1), (7, 65), (700, 130)] {
            let dy = random(rows * n, 3);
            let expected: Vec<f32> =
                (0..n).map(|c| (0..rows).map(|r| f64::from(dy[r * n + c])).sum::<f64>() as f32).collect();
            let got = same_for_any_threads(|| {
                let mut sums = vec![f32::NAN; n];
                column_sums(&mut sums, false, &dy);
                sums
            });
            assert_close(&got, &expected, 1e-5);
            let mut twice = got.clone();
            column_sums(&mut twice, true, &dy);
            assert_close(&twice, &expected.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), 1e-5);
        }
    }
}
