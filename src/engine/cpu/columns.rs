//! Some columns of a matrix, and the gradient that puts them back: what takes a fused projection apart.

use rayon::prelude::*;

use super::number::Number;
use super::simd::{CHUNK, vectorised};

/// Which columns: of each `period` numbers those from `start` on, `width` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    pub start: usize,
    pub width: usize,
    pub period: usize,
}

impl Columns {
    /// Periods per task.
    fn periods(self) -> usize {
        (CHUNK / self.period).max(1)
    }

    fn check(self, narrow: usize, wide: usize) {
        let Self { start, width, period } = self;
        assert!(
            width > 0
                && start + width <= period
                && narrow / width * period == wide
                && narrow.is_multiple_of(width),
            "columns: {narrow} and {wide} numbers do not fit {self:?}"
        );
    }
}

/// `y[i] = x[i][start..start + width]`, with `x` in pieces of `period`.
pub fn forward<T: Number>(y: &mut [T], x: &[T], columns: Columns) {
    let Columns { start, width, period } = columns;
    columns.check(y.len(), x.len());
    let n = columns.periods();
    y.par_chunks_mut(n * width).zip(x.par_chunks(n * period)).for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(period)) {
            y.copy_from_slice(&x[start..start + width]);
        }
    });
}

/// `dx[i][start..start + width] = (that or 0) + dy[i]`; the other columns keep their sum, or become 0.
pub fn grad<T: Number>(dx: &mut [T], accumulate: bool, dy: &[T], columns: Columns) {
    let Columns { start, width, period } = columns;
    columns.check(dy.len(), dx.len());
    let n = columns.periods();
    dx.par_chunks_mut(n * period).zip(dy.par_chunks(n * width)).for_each(|(dx, dy)| {
        for (dx, dy) in dx.chunks_exact_mut(period).zip(dy.chunks_exact(width)) {
            if accumulate {
                add(&mut dx[start..start + width], dy);
            } else {
                dx[..start].fill(T::nearest(0.0));
                dx[start..start + width].copy_from_slice(dy);
                dx[start + width..].fill(T::nearest(0.0));
            }
        }
    });
}

vectorised! {
    fn add<'a, T: Number>(sum: &'a mut [T], x: &'a [T]) {
        for (sum, &x) in sum.iter_mut().zip(x) {
            *sum = T::nearest(sum.wide() + x.wide());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::oracle::{random, same_for_any_threads};
    use super::*;

    #[test]
    fn columns_are_taken_and_put_back() {
        for (periods, start, width, period) in
            [(1, 0, 1, 1), (7, 2, 3, 9), (900, 0, 40, 65), (900, 25, 40, 65)]
        {
            let columns = Columns { start, width, period };
            let (x, dy) = (random(periods * period, 1), random(periods * width, 2));
            let inside = |at: &usize| (start..start + width).contains(&(at % period));
            let mut y = vec![f32::NAN; periods * width];
            forward(&mut y, &x, columns);
            let expected: Vec<f32> = (0..x.len()).filter(inside).map(|at| x[at]).collect();
            assert_eq!(y, expected);

            let dx = same_for_any_threads(|| {
                let mut dx = vec![f32::NAN; x.len()];
                grad(&mut dx, false, &dy, columns);
                dx
            });
            assert_eq!((0..x.len()).filter(inside).map(|at| dx[at]).collect::<Vec<_>>(), dy);
            assert!((0..x.len()).filter(|at| !inside(at)).all(|at| dx[at] == 0.0));
            let mut sum = x.clone();
            grad(&mut sum, true, &dy, columns);
            assert_eq!(sum, x.iter().zip(&dx).map(|(x, dx)| x + dx).collect::<Vec<_>>());
        }
    }
}
