//! Root-mean-square norm.
//!
//! Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", equation 4; the order of roundings is that
//! of Hugging Face's `LlamaRMSNorm`; with an offset of 1, of its `GemmaRMSNorm`.

use rayon::prelude::*;

use super::number::Number;
use super::reduce::COLUMNS;
use super::simd::{CHUNK, squares_and_product, sum, vectorised};

/// `1 / sqrt(mean(x * x) + eps)` of one row.
#[inline(always)]
fn inverse_rms<T: Number>(x: &[T], eps: f32) -> f32 {
    1.0 / (sum(x, |x| x * x) / x.len() as f32 + eps).sqrt()
}

/// Numbers in a task's share of `[rows, n]`: whole rows.
pub(super) fn chunk(n: usize) -> usize {
    (CHUNK / n).max(1) * n
}

/// `y = (offset + w) * (x / rms(x))`, row by row; `w` is `[n]`, `x` and `y` are `[rows, n]`. (A norm of each head by itself is one
/// of more and shorter rows.)
pub fn rms<T: Number>(y: &mut [T], x: &[T], w: &[T], eps: f32, offset: f32) {
    let n = w.len();
    assert!(y.len() == x.len() && x.len().is_multiple_of(n), "rms: x is not [rows, {n}]");
    y.par_chunks_mut(chunk(n)).zip(x.par_chunks(chunk(n))).for_each(|(y, x)| rms_rows(y, x, w, eps, offset));
}

vectorised! {
    fn rms_rows<'a, T: Number>(y: &'a mut [T], x: &'a [T], w: &'a [T], eps: f32, offset: f32) {
        for (y, x) in y.chunks_exact_mut(w.len()).zip(x.chunks_exact(w.len())) {
            let r = inverse_rms(x, eps);
            for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
                *y = T::nearest((offset + w.wide()) * (x.wide() * r));
            }
        }
    }
}

/// The gradient with respect to `x`: `dx = (dx or 0) + r * (v * dy - x * mean(x * v * dy) * r * r)`, `r = 1 / rms(x)`,
/// `v = offset + w`.
pub fn rms_grad_input<T: Number>(
    dx: &mut [T],
    accumulate: bool,
    dy: &[T],
    x: &[T],
    w: &[T],
    eps: f32,
    offset: f32,
) {
    let n = w.len();
    assert!(
        dx.len() == x.len() && dy.len() == x.len() && x.len().is_multiple_of(n),
        "rms_grad_input: x is not [rows, {n}]"
    );
    dx.par_chunks_mut(chunk(n)).zip(dy.par_chunks(chunk(n)).zip(x.par_chunks(chunk(n)))).for_each(
        |(dx, (dy, x))| match accumulate {
            true => grad_input_add_rows(dx, dy, x, w, eps, offset),
            false => grad_input_rows(dx, dy, x, w, eps, offset),
        },
    );
}

/// As [`rms_grad_input`], without accumulation: `dy` becomes `dx`.
pub fn rms_grad_input_in_place<T: Number>(dy_to_dx: &mut [T], x: &[T], w: &[T], eps: f32, offset: f32) {
    let n = w.len();
    assert!(
        dy_to_dx.len() == x.len() && x.len().is_multiple_of(n),
        "rms_grad_input_in_place: x is not [rows, {n}]"
    );
    dy_to_dx
        .par_chunks_mut(chunk(n))
        .zip(x.par_chunks(chunk(n)))
        .for_each(|(dx, x)| grad_input_in_place_rows(dx, x, w, eps, offset));
}

/// The two factors of a row's gradient: `dx = (offset + w) * dy * r - x * c`.
#[inline(always)]
fn factors<T: Number>(dy: &[T], x: &[T], w: &[T], eps: f32, offset: f32) -> (f32, f32) {
    let n = w.len() as f32;
    let (squares, product) = squares_and_product(x, w, dy, offset);
    let r = 1.0 / (squares / n + eps).sqrt();
    (r, product / n * r * r * r)
}

vectorised! {
    fn grad_input_rows<'a, T: Number>(
        dx: &'a mut [T], dy: &'a [T], x: &'a [T], w: &'a [T], eps: f32, offset: f32,
    ) {
        let n = w.len();
        for ((dx, dy), x) in dx.chunks_exact_mut(n).zip(dy.chunks_exact(n)).zip(x.chunks_exact(n)) {
            let (r, c) = factors(dy, x, w, eps, offset);
            for (((dx, &dy), &x), &w) in dx.iter_mut().zip(dy).zip(x).zip(w) {
                *dx = T::nearest((offset + w.wide()) * dy.wide() * r - x.wide() * c);
            }
        }
    }
}

vectorised! {
    fn grad_input_add_rows<'a, T: Number>(
        dx: &'a mut [T], dy: &'a [T], x: &'a [T], w: &'a [T], eps: f32, offset: f32,
    ) {
        let n = w.len();
        for ((dx, dy), x) in dx.chunks_exact_mut(n).zip(dy.chunks_exact(n)).zip(x.chunks_exact(n)) {
            let (r, c) = factors(dy, x, w, eps, offset);
            for (((dx, &dy), &x), &w) in dx.iter_mut().zip(dy).zip(x).zip(w) {
                *dx = T::nearest(dx.wide() + ((offset + w.wide()) * dy.wide() * r - x.wide() * c));
            }
        }
    }
}

vectorised! {
    fn grad_input_in_place_rows<'a, T: Number>(dx: &'a mut [T], x: &'a [T], w: &'a [T], eps: f32, offset: f32) {
        let n = w.len();
        for (dx, x) in dx.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
            let (r, c) = factors(dx, x, w, eps, offset);
            for ((dx, &x), &w) in dx.iter_mut().zip(x).zip(w) {
                *dx = T::nearest((offset + w.wide()) * dx.wide() * r - x.wide() * c);
            }
        }
    }
}

/// Rows whose `1 / rms` are held on the stack at a time.
const ROWS: usize = 1024;

/// The gradient with respect to `w`, whatever the offset: `dw = (dw or 0) + column sums of dy * x / rms(x)`; rows in order.
pub fn rms_grad_weight<T: Number>(dw: &mut [f32], accumulate: bool, dy: &[T], x: &[T], eps: f32) {
    let n = dw.len();
    assert!(
        n > 0 && dy.len() == x.len() && x.len().is_multiple_of(n),
        "rms_grad_weight: x is not [rows, {n}]"
    );
    if !accumulate {
        dw.fill(0.0);
    }
    for (dy, x) in dy.chunks(ROWS * n).zip(x.chunks(ROWS * n)) {
        let mut r = [0.0; ROWS];
        let r = &mut r[..x.len() / n];
        let rows = chunk(n) / n;
        r.par_chunks_mut(rows).zip(x.par_chunks(rows * n)).for_each(|(r, x)| inverse_rms_rows(r, x, eps));
        let r = &*r;
        dw.par_chunks_mut(COLUMNS)
            .enumerate()
            .for_each(|(i, dw)| grad_weight_columns(dw, dy, x, r, i * COLUMNS));
    }
}

vectorised! {
    fn inverse_rms_rows<'a, T: Number>(r: &'a mut [f32], x: &'a [T], eps: f32) {
        let n = x.len() / r.len();
        for (r, x) in r.iter_mut().zip(x.chunks_exact(n)) {
            *r = inverse_rms(x, eps);
        }
    }
}

vectorised! {
    fn grad_weight_columns<'a, T: Number>(
        dw: &'a mut [f32], dy: &'a [T], x: &'a [T], r: &'a [f32], first: usize,
    ) {
        let n = x.len() / r.len();
        let mut partial = [0.0; COLUMNS];
        let partial = &mut partial[..dw.len()];
        for ((dy, x), &r) in dy.chunks_exact(n).zip(x.chunks_exact(n)).zip(r) {
            for ((partial, &dy), &x) in partial.iter_mut().zip(&dy[first..]).zip(&x[first..]) {
                *partial += dy.wide() * (x.wide() * r);
            }
        }
        for (dw, &partial) in dw.iter_mut().zip(&*partial) {
            *dw += partial;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::oracle::{
        assert_close, assert_finite_differences, gradients, inner, numbers, random, same_for_any_threads, var,
    };
    use super::*;

    const EPS: f32 = 1e-5;

    #[test]
    fn rms_agrees_with_autograd() {
        for (rows, n, offset) in [(1, 8, 0.0), (7, 33, 1.0), (65, 64, 0.0), (1030, 130, 1.0)] {
            let (x, w, dy) = (random(rows * n, 1), random(n, 2), random(rows * n, 3));
            let (x_var, w_var) = (var(&x, &[rows, n]), var(&w, &[n]));
            let y_expected =
                candle_nn::ops::rms_norm_slow(&x_var, &(w_var.as_tensor() + f64::from(offset)).unwrap(), EPS)
                    .unwrap();
            let expected = gradients(&y_expected, &dy, &[&x_var, &w_var]);

            let got = same_for_any_threads(|| {
                let mut out = vec![f32::NAN; 2 * rows * n + n];
                let (y, rest) = out.split_at_mut(rows * n);
                let (dx, dw) = rest.split_at_mut(rows * n);
                rms(y, &x, &w, EPS, offset);
                rms_grad_input(dx, false, &dy, &x, &w, EPS, offset);
                rms_grad_weight(dw, false, &dy, &x, EPS);
                out
            });
            let (y, rest) = got.split_at(rows * n);
            let (dx, dw) = rest.split_at(rows * n);
            assert_close(y, &numbers(&y_expected), 1e-6);
            assert_close(dx, &expected[0], 2e-6);
            assert_close(dw, &expected[1], 1e-5);

            let mut in_place = dy.clone();
            rms_grad_input_in_place(&mut in_place, &x, &w, EPS, offset);
            assert_eq!(in_place, dx);

            let (mut dx2, mut dw2) = (dx.to_vec(), dw.to_vec());
            rms_grad_input(&mut dx2, true, &dy, &x, &w, EPS, offset);
            rms_grad_weight(&mut dw2, true, &dy, &x, EPS);
            assert_close(&dx2, &dx.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), 1e-6);
            assert_close(&dw2, &dw.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), 1e-5);
        }
    }

    #[test]
    fn rms_agrees_with_finite_differences() {
        let (rows, n) = (3, 9);
        let (x, w, dy) = (random(rows * n, 4), random(n, 5), random(rows * n, 6));
        let value = |x: &[f32], w: &[f32]| {
            let mut y = vec![0.0; rows * n];
            rms(&mut y, x, w, EPS, 0.0);
            inner(&y, &dy)
        };
        let (mut dx, mut dw) = (vec![0.0; rows * n], vec![0.0; n]);
        rms_grad_input(&mut dx, false, &dy, &x, &w, EPS, 0.0);
        rms_grad_weight(&mut dw, false, &dy, &x, EPS);
        assert_finite_differences(&x, &dx, 1e-4, |x| value(x, &w));
        assert_finite_differences(&w, &dw, 1e-4, |w| value(&x, w));
    }
}
