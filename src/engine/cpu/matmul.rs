//! Products of matrices, and the bias that goes with them.
//!
//! A linear layer keeps its weight as `[out, in]`: its forward pass is [`nt`], the gradient of its input [`nn`], the
//! gradient of its weight [`tn`]. Sums are formed in 32 bits whatever the operands are; a half result is rounded once.

use rayon::prelude::*;

use super::number::Number;
use super::product::Product;
use super::reduce;
use super::simd::{CHUNK, vectorised};

/// `y[m, n] = beta * y + x[m, k] w[n, k]^T`; `beta` is 0 (then `y` is not read) or 1.
pub fn nt<Y: Number, L: Number, R: Number>(
    y: &mut [Y],
    beta: f32,
    x: &[L],
    w: &[R],
    m: usize,
    n: usize,
    k: usize,
) {
    product(y, beta, x, [k, 1], w, [1, k], [m, n, k]);
}

/// `y[m, n] = beta * y + x[m, k] w[k, n]`; `beta` is 0 (then `y` is not read) or 1.
pub fn nn<Y: Number, L: Number, R: Number>(
    y: &mut [Y],
    beta: f32,
    x: &[L],
    w: &[R],
    m: usize,
    n: usize,
    k: usize,
) {
    product(y, beta, x, [k, 1], w, [n, 1], [m, n, k]);
}

/// `y[m, n] = beta * y + x[k, m]^T z[k, n]`; `beta` is 0 (then `y` is not read) or 1.
pub fn tn<Y: Number, L: Number, R: Number>(
    y: &mut [Y],
    beta: f32,
    x: &[L],
    z: &[R],
    m: usize,
    n: usize,
    k: usize,
) {
    product(y, beta, x, [1, m], z, [n, 1], [m, n, k]);
}

/// Rows of a half result whose sums are on the stack at a time, and columns.
const ROWS: usize = 64;
const COLUMNS: usize = 192;

/// The common form: strides are `[row, column]` of `lhs[m, k]` and `rhs[k, n]`.
fn product<Y: Number, L: Number, R: Number>(
    y: &mut [Y],
    beta: f32,
    lhs: &[L],
    lhs_strides: [usize; 2],
    rhs: &[R],
    rhs_strides: [usize; 2],
    [m, n, k]: [usize; 3],
) {
    assert!(
        y.len() == m * n && lhs.len() == m * k && rhs.len() == k * n,
        "product: {m} x {k} times {k} x {n} into {} from {} and {}",
        y.len(),
        lhs.len(),
        rhs.len(),
    );
    assert!(k > 0, "product: nothing to sum");
    assert!(beta == 0.0 || beta == 1.0, "product: beta is {beta}");
    let product = Product {
        m,
        n,
        k,
        y: y.as_mut_ptr().cast::<f32>(),
        y_stride: n,
        accumulate: beta == 1.0,
        scale: 1.0,
        lhs: lhs.as_ptr(),
        lhs_strides,
        rhs: rhs.as_ptr(),
        rhs_strides,
    };
    if Y::IS_WIDE {
        // SAFETY: each operand is a slice of just the length that its sizes and strides name; what is wide is an `f32`.
        #[allow(unsafe_code, reason = "the product takes pointers; the assertions above give their extents")]
        unsafe {
            product.run_parallel();
        }
        return;
    }
    // The rows of a task are the same whatever the threads are, and no sum is cut.
    y.par_chunks_mut(ROWS * n).enumerate().for_each(|(i, y)| {
        let mut sums = [0.0; ROWS * COLUMNS];
        let rows = y.len() / n;
        for first in (0..n).step_by(COLUMNS) {
            let columns = COLUMNS.min(n - first);
            let sums = &mut sums[..rows * columns];
            let block = Product {
                m: rows,
                n: columns,
                y: sums.as_mut_ptr(),
                y_stride: columns,
                accumulate: false,
                lhs: lhs[i * ROWS * lhs_strides[0]..].as_ptr(),
                rhs: rhs[first * rhs_strides[1]..].as_ptr(),
                ..product
            };
            // SAFETY: these rows of the left and columns of the right operand lie in their slices, as above; the sums
            // are this task's.
            #[allow(
                unsafe_code,
                reason = "the product takes pointers; the assertions above give their extents"
            )]
            unsafe {
                block.run();
            }
            for (y, sums) in y.chunks_exact_mut(n).zip(sums.chunks_exact(columns)) {
                let y = &mut y[first..first + columns];
                if beta == 1.0 { add_sums(y, sums) } else { round_sums(y, sums) }
            }
        }
    });
}

vectorised! {
    fn round_sums<'a, Y: Number>(y: &'a mut [Y], sums: &'a [f32]) {
        for (y, &sum) in y.iter_mut().zip(sums) {
            *y = Y::nearest(sum);
        }
    }
}

vectorised! {
    fn add_sums<'a, Y: Number>(y: &'a mut [Y], sums: &'a [f32]) {
        for (y, &sum) in y.iter_mut().zip(sums) {
            *y = Y::nearest(y.wide() + sum);
        }
    }
}

/// Adds `bias`, `[n]`, to each row of `y`, `[rows, n]`.
pub fn add_bias<T: Number>(y: &mut [T], bias: &[T], n: usize) {
    assert!(bias.len() == n && y.len().is_multiple_of(n), "add_bias: y is not [rows, {n}]");
    let rows = (CHUNK / n).max(1);
    y.par_chunks_mut(rows * n).for_each(|y| add_bias_rows(y, bias));
}

vectorised! {
    fn add_bias_rows<'a, T: Number>(y: &'a mut [T], bias: &'a [T]) {
        for y in y.chunks_exact_mut(bias.len()) {
            for (y, &bias) in y.iter_mut().zip(bias) {
                *y = T::nearest(y.wide() + bias.wide());
            }
        }
    }
}

/// The gradient of a bias: `db[n] = (db or 0) + column sums of dy[rows, n]`.
pub fn bias_grad<T: Number>(dy: &[T], n: usize, db: &mut [f32], accumulate: bool) {
    assert_eq!(db.len(), n, "bias_grad: db is not [{n}]");
    reduce::column_sums(db, accumulate, dy);
}

#[cfg(test)]
mod tests {
    use super::super::oracle::{assert_close, gradients, numbers, random, same_for_any_threads, var};
    use super::*;

    #[test]
    fn a_linear_layer_agrees_with_autograd() {
        for (m, n, k) in [(1, 1, 1), (1, 17, 5), (7, 3, 64), (65, 130, 33), (130, 65, 257)] {
            let (x, w, dy) = (random(m * k, 1), random(n * k, 2), random(m * n, 3));
            let (x_var, w_var) = (var(&x, &[m, k]), var(&w, &[n, k]));
            let y_expected = x_var.matmul(&w_var.t().unwrap()).unwrap();
            let expected = gradients(&y_expected, &dy, &[&x_var, &w_var]);

            let got = same_for_any_threads(|| {
                let mut out = vec![f32::NAN; m * n + m * k + n * k];
                let (y, rest) = out.split_at_mut(m * n);
                let (dx, dw) = rest.split_at_mut(m * k);
                nt(y, 0.0, &x, &w, m, n, k);
                nn(dx, 0.0, &dy, &w, m, k, n);
                tn(dw, 0.0, &dy, &x, n, k, m);
                out
            });
            let (y, rest) = got.split_at(m * n);
            let (dx, dw) = rest.split_at(m * k);
            assert_close(y, &numbers(&y_expected), 1e-5);
            assert_close(dx, &expected[0], 1e-5);
            assert_close(dw, &expected[1], 1e-5);

            let mut twice = got.clone();
            let (y2, rest) = twice.split_at_mut(m * n);
            let (dx2, dw2) = rest.split_at_mut(m * k);
            nt(y2, 1.0, &x, &w, m, n, k);
            nn(dx2, 1.0, &dy, &w, m, k, n);
            tn(dw2, 1.0, &dy, &x, n, k, m);
            assert_close(&twice, &got.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), 1e-5);
        }
    }

    #[test]
    fn large_products_do_not_depend_on_the_threads() {
        let (m, n, k) = (200, 300, 1100);
        let (x, w, z) = (random(m * k, 1), random(n * k, 2), random(k * n, 3));
        let x_t = random(k * m, 4);
        same_for_any_threads(|| {
            let mut y = vec![0.0; m * n];
            nt(&mut y, 0.0, &x, &w, m, n, k);
            nn(&mut y, 1.0, &x, &z, m, n, k);
            tn(&mut y, 1.0, &x_t, &z, m, n, k);
            y
        });
    }

    #[test]
    fn a_bias_is_added_to_each_row_and_its_gradient_sums_them() {
        let (rows, n) = (5, 70);
        let (x, bias, dy) = (random(rows * n, 1), random(n, 2), random(rows * n, 3));
        let (x_var, bias_var) = (var(&x, &[rows, n]), var(&bias, &[n]));
        let y_expected = x_var.broadcast_add(&bias_var).unwrap();
        let mut y = x.clone();
        add_bias(&mut y, &bias, n);
        assert_eq!(y, numbers(&y_expected));
        let mut db = vec![f32::NAN; n];
        bias_grad(&dy, n, &mut db, false);
        assert_close(&db, &gradients(&y_expected, &dy, &[&bias_var])[0], 1e-6);
    }
}
