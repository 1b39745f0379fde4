//! Rotary position embedding.
//!
//! Source: Su et al. 2021, "RoFormer", section 3.2; the layout (first half against second half of a head) is that of
//! Hugging Face's `modeling_llama.py`.

use rayon::prelude::*;

use super::number::Number;
use super::simd::{CHUNK, vectorised};

/// Cosines, then sines, of `positions[row] * inv_freq`: `out` is `[rows, 2 * inv_freq.len()]`.
pub fn table(out: &mut [f32], positions: &[u32], inv_freq: &[f32]) {
    let half = inv_freq.len();
    assert_eq!(out.len(), positions.len() * 2 * half, "table: out is not [rows, {}]", 2 * half);
    let rows = (1024 / half).max(1);
    out.par_chunks_mut(rows * 2 * half).zip(positions.par_chunks(rows)).for_each(|(out, positions)| {
        for (out, &position) in out.chunks_exact_mut(2 * half).zip(positions) {
            let (cos, sin) = out.split_at_mut(half);
            for ((cos, sin), &inv_freq) in cos.iter_mut().zip(sin).zip(inv_freq) {
                (*sin, *cos) = (position as f32 * inv_freq).sin_cos();
            }
        }
    });
}

/// Rotates the first `turned` numbers of each head of `x`, `[rows, heads * head_dim]`, by the angles of its row in `table`,
/// `[rows, turned]`; backwards if `inverse`, which is the gradient.
pub fn apply<T: Number>(y: &mut [T], x: &[T], table: &[f32], shape: Shape, inverse: bool) {
    assert_eq!(y.len(), x.len(), "apply: x and y differ in length");
    let (rows, width) = shape.rows(x.len(), table.len());
    y.par_chunks_mut(rows * width)
        .zip(x.par_chunks(rows * width).zip(table.par_chunks(rows * shape.turned)))
        .for_each(|(y, (x, table))| {
            y.copy_from_slice(x);
            rotate_rows(y, table, shape, inverse);
        });
}

/// As [`apply`], on `x` itself.
pub fn apply_in_place<T: Number>(x: &mut [T], table: &[f32], shape: Shape, inverse: bool) {
    let (rows, width) = shape.rows(x.len(), table.len());
    x.par_chunks_mut(rows * width)
        .zip(table.par_chunks(rows * shape.turned))
        .for_each(|(x, table)| rotate_rows(x, table, shape, inverse));
}

/// What is turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub heads: usize,
    pub head_dim: usize,
    /// At most `head_dim`.
    pub turned: usize,
}

impl Shape {
    /// Rows per task, and the length of a row.
    fn rows(self, len: usize, table: usize) -> (usize, usize) {
        let Self { heads, head_dim, turned } = self;
        let width = heads * head_dim;
        assert!(
            turned.is_multiple_of(2) && turned <= head_dim,
            "{turned} of a head of {head_dim} have no halves"
        );
        assert_eq!(len * turned, table * width, "x is not [rows, {width}] for this table");
        ((CHUNK / 2 / width).max(1), width)
    }
}

vectorised! {
    fn rotate_rows<'a, T: Number>(x: &'a mut [T], table: &'a [f32], shape: Shape, inverse: bool) {
        let Shape { heads, head_dim, turned } = shape;
        let half = turned / 2;
        let sign = if inverse { -1.0 } else { 1.0 };
        for (x, table) in x.chunks_exact_mut(heads * head_dim).zip(table.chunks_exact(turned)) {
            let (cos, sin) = table.split_at(half);
            for x in x.chunks_exact_mut(head_dim) {
                let (x1, x2) = x[..turned].split_at_mut(half);
                for (((x1, x2), &cos), &sin) in x1.iter_mut().zip(x2).zip(cos).zip(sin) {
                    let sin = sign * sin;
                    let (a, b) = (x1.wide(), x2.wide());
                    (*x1, *x2) = (T::nearest(a * cos - b * sin), T::nearest(b * cos + a * sin));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::super::oracle::{assert_close, gradients, numbers, random, same_for_any_threads, var};
    use super::*;

    fn inv_freq(head_dim: usize) -> Vec<f32> {
        (0..head_dim / 2).map(|i| 1.0 / 10_000_f32.powf(2.0 * i as f32 / head_dim as f32)).collect()
    }

    #[test]
    fn rotation_agrees_with_autograd() {
        for (seq, heads, head_dim) in [(1, 1, 8), (7, 2, 16), (65, 3, 64), (130, 4, 80)] {
            let shape = Shape { heads, head_dim, turned: head_dim };
            let (batch, rows) = (2, 2 * seq);
            let (x, dy) = (random(rows * heads * head_dim, 1), random(rows * heads * head_dim, 2));
            let positions: Vec<u32> = (0..rows as u32).map(|row| row % seq as u32).collect();
            let mut angles = vec![f32::NAN; rows * head_dim];
            table(&mut angles, &positions, &inv_freq(head_dim));

            let freqs = inv_freq(head_dim);
            let freqs = Tensor::from_slice(&freqs, (1, head_dim / 2), &Device::Cpu).unwrap();
            let steps: Vec<f32> = (0..seq).map(|i| i as f32).collect();
            let steps = Tensor::from_slice(&steps, (seq, 1), &Device::Cpu).unwrap();
            let freqs = steps.matmul(&freqs).unwrap();
            let x_var = var(&x, &[batch, seq, heads, head_dim]);
            let y_expected = candle_nn::rotary_emb::rope_slow(
                &x_var.transpose(1, 2).unwrap().contiguous().unwrap(),
                &freqs.cos().unwrap(),
                &freqs.sin().unwrap(),
            )
            .unwrap()
            .transpose(1, 2)
            .unwrap();
            let expected = gradients(&y_expected, &dy, &[&x_var]);

            let got = same_for_any_threads(|| {
                let mut out = vec![f32::NAN; 2 * x.len()];
                let (y, dx) = out.split_at_mut(x.len());
                apply(y, &x, &angles, shape, false);
                apply(dx, &dy, &angles, shape, true);
                out
            });
            assert_close(&got[..x.len()], &numbers(&y_expected), 1e-6);
            assert_close(&got[x.len()..], &expected[0], 1e-6);

            let mut in_place = x.clone();
            apply_in_place(&mut in_place, &angles, shape, false);
            assert_eq!(in_place, got[..x.len()]);
            apply_in_place(&mut in_place, &angles, shape, true);
            assert_close(&in_place, &x, 1e-6);
        }
    }

    #[test]
    fn a_part_of_a_head_is_turned_and_the_rest_stays() {
        let (rows, heads, head_dim, turned) = (5, 2, 12, 8);
        let x = random(rows * heads * head_dim, 3);
        let positions: Vec<u32> = (0..rows as u32).collect();
        let mut angles = vec![f32::NAN; rows * turned];
        table(&mut angles, &positions, &inv_freq(turned));
        let mut y = vec![f32::NAN; x.len()];
        apply(&mut y, &x, &angles, Shape { heads, head_dim, turned }, false);
        // The same as heads of 8 alone, with the last 4 of each left out.
        let heads_of = |x: &[f32], range: std::ops::Range<usize>| -> Vec<f32> {
            x.chunks(head_dim).flat_map(|head| head[range.clone()].to_vec()).collect()
        };
        let mut expected = heads_of(&x, 0..turned);
        apply_in_place(&mut expected, &angles, Shape { heads, head_dim: turned, turned }, false);
        assert_eq!(heads_of(&y, 0..turned), expected);
        assert_eq!(heads_of(&y, turned..head_dim), heads_of(&x, turned..head_dim));
    }
}
