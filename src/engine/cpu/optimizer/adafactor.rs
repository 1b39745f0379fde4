//! Adafactor: the second moment of a matrix from one number a row and one a column.

use rayon::prelude::*;

use super::super::reduce::{COLUMNS, sum_of_squares};
use super::super::simd::{sum, vectorised};

/// `u = g / sqrt(rows / mean(rows) * columns)`, made no longer than `clip_threshold` in root mean square,
/// `p -= lr (weight_decay p + u)`. At a tensor's t-th update a mean keeps the share `1 - t^-decay_rate`.
///
/// Source: Shazeer and Stern 2018, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", algorithms 4 and 5,
/// with the rate given from outside; transformers' `Adafactor`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adafactor {
    pub lr: f64,
    pub eps: f64,
    pub decay_rate: f64,
    pub clip_threshold: f64,
    /// For the average of the updates, where there is one.
    pub beta1: f64,
    /// The rate is in units of the weights' root mean square, or of `SMALLEST` where that is more.
    pub scale_parameter: bool,
    pub weight_decay: f64,
    /// How many updates these parameters have had, this one included.
    pub step: u64,
}

/// The paper's second epsilon: weights count as no smaller than this.
const SMALLEST: f64 = 1e-3;

/// The second moment.
pub enum Square<'a> {
    /// Of matrices `[outer, rows, columns]`: `[outer, rows]` and `[outer, columns]`.
    Factored { rows: &'a mut [f32], columns: &'a mut [f32], n_rows: usize, n_columns: usize },
    /// Of a vector.
    Full(&'a mut [f32]),
}

#[derive(Clone, Copy)]
struct Constants {
    scale: f32,
    eps: f32,
    keep: f32,
    beta: f32,
    one_minus_beta: f32,
}

impl Adafactor {
    /// `m`: the average of the updates, or empty.
    pub fn update(&self, p: &mut [f32], g: &[f32], mut square: Square<'_>, m: &mut [f32], scale: f32) {
        assert!(self.step > 0, "Adafactor: steps count from 1");
        assert!(p.len() == g.len() && (m.is_empty() || m.len() == p.len()), "Adafactor: different lengths");
        let beta = 1.0 - (self.step as f64).powf(-self.decay_rate);
        let lr = match self.scale_parameter {
            true => self.lr * (sum_of_squares(p) / p.len() as f64).sqrt().max(SMALLEST),
            false => self.lr,
        };
        let c = Constants {
            scale,
            eps: self.eps as f32,
            keep: (1.0 - lr * self.weight_decay) as f32,
            beta: beta as f32,
            one_minus_beta: (1.0 - beta) as f32,
        };
        let squares = match &mut square {
            Square::Full(v) => full(g, v, c),
            Square::Factored { rows, columns, n_rows, n_columns } => {
                factored(g, rows, columns, *n_rows, *n_columns, c)
            }
        };
        let rms = (squares / p.len() as f64).sqrt();
        let step = lr / (rms / self.clip_threshold).max(1.0);
        let a = Apply {
            c,
            step: step as f32,
            beta1: self.beta1 as f32,
            one_minus_beta1: (1.0 - self.beta1) as f32,
        };
        match square {
            Square::Full(v) => {
                apply_chunk(p, g, m, v, 1.0, a);
            }
            Square::Factored { rows, columns, n_rows, n_columns } => {
                let matrix = n_rows * n_columns;
                for (outer, p) in p.chunks_mut(matrix).enumerate() {
                    let g = &g[outer * matrix..][..matrix];
                    let columns = &columns[outer * n_columns..][..n_columns];
                    let rows = &rows[outer * n_rows..][..n_rows];
                    let mean = mean(rows);
                    // Rows of `m` where there is one; as many empty slices where there is none.
                    let m = if m.is_empty() { &mut m[..] } else { &mut m[outer * matrix..][..matrix] };
                    apply_rows(p, g, m, rows, columns, mean, a);
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Apply {
    c: Constants,
    step: f32,
    beta1: f32,
    one_minus_beta1: f32,
}

fn mean(rows: &[f32]) -> f32 {
    (rows.iter().map(|row| f64::from(*row)).sum::<f64>() / rows.len() as f64) as f32
}

/// Moves the second moment of a vector; gives the sum of the update's squares.
fn full(g: &[f32], v: &mut [f32], c: Constants) -> f64 {
    assert_eq!(g.len(), v.len(), "Adafactor: a moment of another length");
    let mut total = 0.0;
    for (v, &g) in v.iter_mut().zip(g) {
        let g = g * c.scale;
        *v = c.beta * *v + c.one_minus_beta * (g * g + c.eps);
        let u = f64::from(g / v.sqrt());
        total += u * u;
    }
    total
}

/// Moves rows and columns; gives the sum of the update's squares.
fn factored(
    g: &[f32],
    rows: &mut [f32],
    columns: &mut [f32],
    n_rows: usize,
    n_columns: usize,
    c: Constants,
) -> f64 {
    let matrix = n_rows * n_columns;
    assert!(
        g.len() == rows.len() * n_columns && columns.len() * n_rows == g.len(),
        "Adafactor: moments of other shapes"
    );
    rows.par_iter_mut().zip(g.par_chunks(n_columns)).for_each(|(row, g)| row_chunk(row, g, c));
    for ((g, rows), columns) in g.chunks(matrix).zip(rows.chunks(n_rows)).zip(columns.chunks_mut(n_columns)) {
        debug_assert_eq!(rows.len(), n_rows);
        columns
            .par_chunks_mut(COLUMNS)
            .enumerate()
            .for_each(|(i, columns)| columns_chunk(columns, g, n_columns, i * COLUMNS, c));
    }
    let mut total = 0.0;
    for ((g, rows), columns) in g.chunks(matrix).zip(rows.chunks(n_rows)).zip(columns.chunks(n_columns)) {
        total += squares(g, rows, columns, mean(rows), c);
    }
    total
}

vectorised! {
    fn row_chunk<'a>(row: &'a mut f32, g: &'a [f32], c: Constants) {
        // In short runs, so that single precision is exact enough.
        let mut total = 0.0;
        for g in g.chunks(4096) {
            total += f64::from(sum(g, |g| (g * c.scale) * (g * c.scale)));
        }
        let mean = (total / g.len() as f64) as f32 + c.eps;
        *row = c.beta * *row + c.one_minus_beta * mean;
    }
}

vectorised! {
    /// `columns` are those from `first` on.
    fn columns_chunk<'a>(columns: &'a mut [f32], g: &'a [f32], n: usize, first: usize, c: Constants) {
        let n_rows = g.len() / n;
        let mut total = [0.0_f64; COLUMNS];
        for g in g.chunks(256 * n) {
            let mut partial = [0.0; COLUMNS];
            for g in g.chunks_exact(n) {
                for (partial, &g) in partial[..columns.len()].iter_mut().zip(&g[first..]) {
                    *partial += (g * c.scale) * (g * c.scale);
                }
            }
            for (total, partial) in total.iter_mut().zip(partial) {
                *total += f64::from(partial);
            }
        }
        for (column, total) in columns.iter_mut().zip(total) {
            let mean = (total / n_rows as f64) as f32 + c.eps;
            *column = c.beta * *column + c.one_minus_beta * mean;
        }
    }
}

/// The sum of the squares of a matrix's update; the tree of partial sums depends on the shape alone.
fn squares(g: &[f32], rows: &[f32], columns: &[f32], mean: f32, c: Constants) -> f64 {
    if let [row] = rows {
        return f64::from(squares_chunk(g, columns, row_factor(*row, mean), c));
    }
    let at = rows.len() / 2;
    let ((g_low, g_high), (low, high)) = (g.split_at(at * columns.len()), rows.split_at(at));
    let (low, high) =
        rayon::join(|| squares(g_low, low, columns, mean, c), || squares(g_high, high, columns, mean, c));
    low + high
}

/// `1 / sqrt(row / mean)`
#[inline(always)]
fn row_factor(row: f32, mean: f32) -> f32 {
    1.0 / (row / mean).sqrt()
}

vectorised! {
    fn squares_chunk<'a>(g: &'a [f32], columns: &'a [f32], row: f32, c: Constants) -> f32 {
        let mut total = 0.0;
        for (g, columns) in g.chunks(64).zip(columns.chunks(64)) {
            let mut updates = [0.0; 64];
            for ((u, &g), &column) in updates.iter_mut().zip(g).zip(columns) {
                *u = (g * c.scale) * (row / column.sqrt());
            }
            total += sum(&updates, |u| u * u);
        }
        total
    }
}

fn apply_rows(p: &mut [f32], g: &[f32], m: &mut [f32], rows: &[f32], columns: &[f32], mean: f32, a: Apply) {
    if let [row] = rows {
        return apply_chunk(p, g, m, columns, row_factor(*row, mean), a);
    }
    let at = rows.len() / 2;
    let cut = at * columns.len();
    let ((p_low, p_high), (g_low, g_high)) = (p.split_at_mut(cut), g.split_at(cut));
    let cut = cut.min(m.len());
    let ((m_low, m_high), (low, high)) = (m.split_at_mut(cut), rows.split_at(at));
    rayon::join(
        || apply_rows(p_low, g_low, m_low, low, columns, mean, a),
        || apply_rows(p_high, g_high, m_high, high, columns, mean, a),
    );
}

/// `squares`: of each number, or of each column and then with a factor for the row.
fn apply_chunk(p: &mut [f32], g: &[f32], m: &mut [f32], squares: &[f32], row: f32, a: Apply) {
    match m.is_empty() {
        true => step_chunk(p, g, squares, row, a),
        false => averaged_chunk(p, g, m, squares, row, a),
    }
}

vectorised! {
    fn step_chunk<'a>(p: &'a mut [f32], g: &'a [f32], squares: &'a [f32], row: f32, a: Apply) {
        for ((p, &g), &square) in p.iter_mut().zip(g).zip(squares) {
            let u = (g * a.c.scale) * (row / square.sqrt());
            *p = *p * a.c.keep - a.step * u;
        }
    }
}

vectorised! {
    fn averaged_chunk<'a>(
        p: &'a mut [f32], g: &'a [f32], m: &'a mut [f32], squares: &'a [f32], row: f32, a: Apply,
    ) {
        for (((p, &g), m), &square) in p.iter_mut().zip(g).zip(m).zip(squares) {
            let u = (g * a.c.scale) * (row / square.sqrt());
            *m = a.beta1 * *m + a.one_minus_beta1 * (a.step * u);
            *p = *p * a.c.keep - *m;
        }
    }
}
