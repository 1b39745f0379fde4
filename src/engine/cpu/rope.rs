//! Rotary position embedding.
//!
//! Source: Su et al. 2021, "RoFormer", section 3.2; the layout (first half against second half of a head) is that of
//! Hugging Face's `modeling_llama.py`.

use rayon::prelude::*;

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

/// Rotates each head of `x`, `[rows, heads * head_dim]`, by the angles of its row in `table`; backwards if `inverse`,
/// which is the gradient.
pub fn apply(y: &mut [f32], x: &[f32], table: &[f32], heads: usize, head_dim: usize, inverse: bool) {
    assert_eq!(y.len(), x.len(), "apply: x and y differ in length");
    let (rows, width) = rows(x.len(), table, heads, head_dim);
    y.par_chunks_mut(rows * width)
        .zip(x.par_chunks(rows * width).zip(table.par_chunks(rows * head_dim)))
        .for_each(|(y, (x, table))| {
            y.copy_from_slice(x);
            rotate_rows(y, table, heads, head_dim, inverse);
        });
}

/// As [`apply`], on `x` itself.
pub fn apply_in_place(x: &mut [f32], table: &[f32], heads: usize, head_dim: usize, inverse: bool) {
    let (rows, width) = rows(x.len(), table, heads, head_dim);
    x.par_chunks_mut(rows * width)
        .zip(table.par_chunks(rows * head_dim))
        .for_each(|(x, table)| rotate_rows(x, table, heads, head_dim, inverse));
}

/// Rows per task, and the length of a row.
fn rows(len: usize, table: &[f32], heads: usize, head_dim: usize) -> (usize, usize) {
    let width = heads * head_dim;
    assert!(head_dim.is_multiple_of(2), "a head of {head_dim} has no halves");
    assert_eq!(len, table.len() * heads, "x is not [rows, {width}] for this table");
    ((CHUNK / 2 / width).max(1), width)
}

vectorised! {
    fn rotate_rows<'a>(x: &'a mut [f32], table: &'a [f32], heads: usize, head_dim: usize, inverse: bool) {
        let half = head_dim / 2;
        let sign = if inverse { -1.0 } else { 1.0 };
        for (x, table) in x.chunks_exact_mut(heads * head_dim).zip(table.chunks_exact(head_dim)) {
            let (cos, sin) = table.split_at(half);
            for x in x.chunks_exact_mut(head_dim) {
                let (x1, x2) = x.split_at_mut(half);
                for (((x1, x2), &cos), &sin) in x1.iter_mut().zip(x2).zip(cos).zip(sin) {
                    let sin = sign * sin;
                    (*x1, *x2) = (*x1 * cos - *x2 * sin, *x2 * cos + *x1 * sin);
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
                apply(y, &x, &angles, heads, head_dim, false);
                apply(dx, &dy, &angles, heads, head_dim, true);
                out
            });
            assert_close(&got[..x.len()], &numbers(&y_expected), 1e-6);
            assert_close(&got[x.len()..], &expected[0], 1e-6);

            let mut in_place = x.clone();
            apply_in_place(&mut in_place, &angles, heads, head_dim, false);
            assert_eq!(in_place, got[..x.len()]);
            apply_in_place(&mut in_place, &angles, heads, head_dim, true);
            assert_close(&in_place, &x, 1e-6);
        }
    }
}
