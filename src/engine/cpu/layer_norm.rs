//! Layer norm.
//!
//! Source: Ba, Kiros and Hinton 2016, "Layer Normalization", equation 3; the variance is that of all numbers of a row
//! (not of a sample), as PyTorch's `layer_norm` has it.

use rayon::prelude::*;

use super::norm::chunk;
use super::number::Number;
use super::reduce::COLUMNS;
use super::simd::{product_and_moment, sum, vectorised};

/// The mean of a row, and `1 / sqrt(var + eps)`.
#[inline(always)]
fn statistics<T: Number>(x: &[T], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum(x, |x| x) / n;
    (mean, 1.0 / (sum(x, |x| (x - mean) * (x - mean)) / n + eps).sqrt())
}

/// `y = w * (x - mean(x)) / sqrt(var(x) + eps) + b`, row by row; `w` and `b` are `[n]`, `x` and `y` are `[rows, n]`.
pub fn forward<T: Number>(y: &mut [T], x: &[T], w: &[T], b: &[T], eps: f32) {
    let n = w.len();
    assert!(
        y.len() == x.len() && x.len().is_multiple_of(n) && b.len() == n,
        "layer_norm: x is not [rows, {n}]"
    );
    y.par_chunks_mut(chunk(n)).zip(x.par_chunks(chunk(n))).for_each(|(y, x)| forward_rows(y, x, w, b, eps));
}

vectorised! {
    fn forward_rows<'a, T: Number>(y: &'a mut [T], x: &'a [T], w: &'a [T], b: &'a [T], eps: f32) {
        for (y, x) in y.chunks_exact_mut(w.len()).zip(x.chunks_exact(w.len())) {
            let (mean, r) = statistics(x, eps);
            for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(w).zip(b) {
                *y = T::nearest(w.wide() * ((x.wide() - mean) * r) + b.wide());
            }
        }
    }
}

/// The gradient with respect to `x`: with `z = (x - mean) r` and `g = w dy`,
/// `dx = (dx or 0) + r * (g - mean(g) - z * mean(g z))`.
pub fn grad_input<T: Number>(dx: &mut [T], accumulate: bool, dy: &[T], x: &[T], w: &[T], eps: f32) {
    let n = w.len();
    assert!(
        dx.len() == x.len() && dy.len() == x.len() && x.len().is_multiple_of(n),
        "layer_norm: x is not [rows, {n}]"
    );
    dx.par_chunks_mut(chunk(n)).zip(dy.par_chunks(chunk(n)).zip(x.par_chunks(chunk(n)))).for_each(
        |(dx, (dy, x))| match accumulate {
            true => grad_input_add_rows(dx, dy, x, w, eps),
            false => grad_input_rows(dx, dy, x, w, eps),
        },
    );
}

/// As [`grad_input`], without accumulation: `dy` becomes `dx`.
pub fn grad_input_in_place<T: Number>(dy_to_dx: &mut [T], x: &[T], w: &[T], eps: f32) {
    let n = w.len();
    assert!(dy_to_dx.len() == x.len() && x.len().is_multiple_of(n), "layer_norm: x is not [rows, {n}]");
    dy_to_dx
        .par_chunks_mut(chunk(n))
        .zip(x.par_chunks(chunk(n)))
        .for_each(|(dx, x)| grad_input_in_place_rows(dx, x, w, eps));
}

/// What a row's gradient is made of: `dx = w * dy * r - shift - (x - mean) * slope`.
struct Factors {
    mean: f32,
    r: f32,
    shift: f32,
    slope: f32,
}

#[inline(always)]
fn factors<T: Number>(dy: &[T], x: &[T], w: &[T], eps: f32) -> Factors {
    let n = w.len() as f32;
    let (mean, r) = statistics(x, eps);
    let (product, moment) = product_and_moment(x, mean, w, dy);
    Factors { mean, r, shift: product / n * r, slope: moment / n * r * r * r }
}

vectorised! {
    fn grad_input_rows<'a, T: Number>(dx: &'a mut [T], dy: &'a [T], x: &'a [T], w: &'a [T], eps: f32) {
        let n = w.len();
        for ((dx, dy), x) in dx.chunks_exact_mut(n).zip(dy.chunks_exact(n)).zip(x.chunks_exact(n)) {
            let Factors { mean, r, shift, slope } = factors(dy, x, w, eps);
            for (((dx, &dy), &x), &w) in dx.iter_mut().zip(dy).zip(x).zip(w) {
                *dx = T::nearest(w.wide() * dy.wide() * r - shift - (x.wide() - mean) * slope);
            }
        }
    }
}

vectorised! {
    fn grad_input_add_rows<'a, T: Number>(dx: &'a mut [T], dy: &'a [T], x: &'a [T], w: &'a [T], eps: f32) {
        let n = w.len();
        for ((dx, dy), x) in dx.chunks_exact_mut(n).zip(dy.chunks_exact(n)).zip(x.chunks_exact(n)) {
            let Factors { mean, r, shift, slope } = factors(dy, x, w, eps);
            for (((dx, &dy), &x), &w) in dx.iter_mut().zip(dy).zip(x).zip(w) {
                let more = w.wide() * dy.wide() * r - shift - (x.wide() - mean) * slope;
                *dx = T::nearest(dx.wide() + more);
            }
        }
    }
}

vectorised! {
    fn grad_input_in_place_rows<'a, T: Number>(dx: &'a mut [T], x: &'a [T], w: &'a [T], eps: f32) {
        let n = w.len();
        for (dx, x) in dx.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
            let Factors { mean, r, shift, slope } = factors(dx, x, w, eps);
            for ((dx, &x), &w) in dx.iter_mut().zip(x).zip(w) {
                *dx = T::nearest(w.wide() * dx.wide() * r - shift - (x.wide() - mean) * slope);
            }
        }
    }
}

/// Rows whose statistics are held on the stack at a time.
const ROWS: usize = 512;

/// The gradient with respect to `w`: `dw = (dw or 0) + column sums of dy * (x - mean) * r`; rows in order.
pub fn grad_weight<T: Number>(dw: &mut [f32], accumulate: bool, dy: &[T], x: &[T], eps: f32) {
    let n = dw.len();
    assert!(n > 0 && dy.len() == x.len() && x.len().is_multiple_of(n), "layer_norm: x is not [rows, {n}]");
    if !accumulate {
        dw.fill(0.0);
    }
    for (dy, x) in dy.chunks(ROWS * n).zip(x.chunks(ROWS * n)) {
        let mut known = [(0.0, 0.0); ROWS];
        let known = &mut known[..x.len() / n];
        let rows = chunk(n) / n;
        known
            .par_chunks_mut(rows)
            .zip(x.par_chunks(rows * n))
            .for_each(|(known, x)| statistics_rows(known, x, eps));
        let known = &*known;
        dw.par_chunks_mut(COLUMNS)
            .enumerate()
            .for_each(|(i, dw)| grad_weight_columns(dw, dy, x, known, i * COLUMNS));
    }
}

vectorised! {
    fn statistics_rows<'a, T: Number>(known: &'a mut [(f32, f32)], x: &'a [T], eps: f32) {
        let n = x.len() / known.len();
        for (known, x) in known.iter_mut().zip(x.chunks_exact(n)) {
            *known = statistics(x, eps);
        }
    }
}

vectorised! {
    fn grad_weight_columns<'a, T: Number>(
        dw: &'a mut [f32],
        dy: &'a [T],
        x: &'a [T],
        known: &'a [(f32, f32)],
        first: usize,
    ) {
        let n = x.len() / known.len();
        let mut partial = [0.0; COLUMNS];
        let partial = &mut partial[..dw.len()];
        for ((dy, x), &(mean, r)) in dy.chunks_exact(n).zip(x.chunks_exact(n)).zip(known) {
            for ((partial, &dy), &x) in partial.iter_mut().zip(&dy[first..]).zip(&x[first..]) {
                *partial += dy.wide() * ((x.wide() - mean) * r);
            }
        }
        for (dw, &partial) in dw.iter_mut().zip(&*partial) {
            *dw += partial;
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::D;

    use super::super::oracle::{
        assert_close, assert_finite_differences, gradients, inner, numbers, random, same_for_any_threads, var,
    };
    use super::*;

    const EPS: f32 = 1e-5;

    #[test]
    fn layer_norm_agrees_with_autograd() {
        for (rows, n) in [(1, 8), (7, 33), (65, 64), (1030, 130)] {
            // Far from zero, so that the mean matters.
            let x: Vec<f32> = random(rows * n, 1).iter().map(|x| x + 3.0).collect();
            let (w, b, dy) = (random(n, 2), random(n, 3), random(rows * n, 4));
            let (x_var, w_var, b_var) = (var(&x, &[rows, n]), var(&w, &[n]), var(&b, &[n]));
            let centred = x_var.broadcast_sub(&x_var.mean_keepdim(D::Minus1).unwrap()).unwrap();
            let variance = centred.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
            let root = (variance + f64::from(EPS)).unwrap().sqrt().unwrap();
            let normed = centred.broadcast_div(&root).unwrap();
            let y_expected = normed.broadcast_mul(&w_var).unwrap().broadcast_add(&b_var).unwrap();
            let expected = gradients(&y_expected, &dy, &[&x_var, &w_var]);

            let got = same_for_any_threads(|| {
                let mut out = vec![f32::NAN; 2 * rows * n + n];
                let (y, rest) = out.split_at_mut(rows * n);
                let (dx, dw) = rest.split_at_mut(rows * n);
                forward(y, &x, &w, &b, EPS);
                grad_input(dx, false, &dy, &x, &w, EPS);
                grad_weight(dw, false, &dy, &x, EPS);
                out
            });
            let (y, rest) = got.split_at(rows * n);
            let (dx, dw) = rest.split_at(rows * n);
            assert_close(y, &numbers(&y_expected), 2e-6);
            assert_close(dx, &expected[0], 5e-6);
            assert_close(dw, &expected[1], 1e-5);

            let mut in_place = dy.clone();
            grad_input_in_place(&mut in_place, &x, &w, EPS);
            assert_eq!(in_place, dx);

            let (mut dx2, mut dw2) = (dx.to_vec(), dw.to_vec());
            grad_input(&mut dx2, true, &dy, &x, &w, EPS);
            grad_weight(&mut dw2, true, &dy, &x, EPS);
            assert_close(&dx2, &dx.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), 1e-6);
            assert_close(&dw2, &dw.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), 1e-5);
        }
    }

    #[test]
    fn layer_norm_agrees_with_finite_differences() {
        let (rows, n) = (3, 9);
        let (x, w, b, dy) = (random(rows * n, 5), random(n, 6), random(n, 7), random(rows * n, 8));
        let value = |x: &[f32], w: &[f32]| {
            let mut y = vec![0.0; rows * n];
            forward(&mut y, x, w, &b, EPS);
            inner(&y, &dy)
        };
        let (mut dx, mut dw) = (vec![0.0; rows * n], vec![0.0; n]);
        grad_input(&mut dx, false, &dy, &x, &w, EPS);
        grad_weight(&mut dw, false, &dy, &x, EPS);
        assert_finite_differences(&x, &dx, 2e-4, |x| value(x, &w));
        assert_finite_differences(&w, &dw, 1e-4, |w| value(&x, w));
    }
}
