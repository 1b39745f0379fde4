//! Rows of a table by number, and the gradient that gathers them again.

use rayon::prelude::*;

use super::number::Number;
use super::simd::{CHUNK, vectorised};

/// `y[row] = table[ids[row] + offset]`; `table` is `[vocab, hidden]`, `y` is `[rows, hidden]`.
pub fn forward<T: Number>(y: &mut [T], table: &[T], ids: &[u32], offset: usize, hidden: usize) {
    assert!(
        y.len() == ids.len() * hidden && table.len().is_multiple_of(hidden),
        "embedding: y is not [rows, {hidden}]"
    );
    let rows = (CHUNK / hidden).max(1);
    y.par_chunks_mut(rows * hidden).zip(ids.par_chunks(rows)).for_each(|(y, ids)| {
        for (y, &id) in y.chunks_exact_mut(hidden).zip(ids) {
            y.copy_from_slice(&table[(id as usize + offset) * hidden..][..hidden]);
        }
    });
}

/// The gradient of the table: `dtable[id + offset] = (that or 0) + sum of dy's rows with that id`, in their order.
pub fn grad<S: Number, T: Number>(
    dtable: &mut [S],
    accumulate: bool,
    dy: &[T],
    ids: &[u32],
    offset: usize,
    hidden: usize,
) {
    assert!(
        dy.len() == ids.len() * hidden && dtable.len().is_multiple_of(hidden),
        "embedding: dy is not [rows, {hidden}]"
    );
    let vocab = dtable.len() / hidden;
    assert!(ids.iter().all(|&id| id as usize + offset < vocab), "embedding: an id is not below {vocab}");
    // Each task owns a range of ids and looks for them in all rows. At most 64 tasks, so that looking stays cheap.
    let range = vocab.div_ceil(64).max(16);
    dtable.par_chunks_mut(range * hidden).enumerate().for_each(|(i, dtable)| {
        if !accumulate {
            dtable.fill(S::nearest(0.0));
        }
        let first = i * range;
        let own = first..first + dtable.len() / hidden;
        for (dy, &id) in dy.chunks_exact(hidden).zip(ids) {
            let row = id as usize + offset;
            if own.contains(&row) {
                add_row(&mut dtable[(row - first) * hidden..][..hidden], dy);
            }
        }
    });
}

vectorised! {
    fn add_row<'a, S: Number, T: Number>(sum: &'a mut [S], row: &'a [T]) {
        for (sum, &row) in sum.iter_mut().zip(row) {
            *sum = S::nearest(sum.wide() + row.wide());
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::super::oracle::{assert_close, gradients, numbers, random, same_for_any_threads, var};
    use super::*;

    #[test]
    fn embedding_agrees_with_autograd() {
        for (vocab, hidden, rows, offset) in [(1, 1, 3, 0), (50, 8, 7, 2), (1000, 33, 200, 0)] {
            let (table, dy) = (random(vocab * hidden, 1), random(rows * hidden, 2));
            let ids: Vec<u32> =
                random(rows, 3).iter().map(|x| (x.abs() * (vocab - offset) as f32 * 0.99) as u32).collect();
            let table_var = var(&table, &[vocab, hidden]);
            let ids_tensor =
                Tensor::from_iter(ids.iter().map(|id| id + offset as u32), &Device::Cpu).unwrap();
            let y_expected = table_var.index_select(&ids_tensor, 0).unwrap();
            let expected = &gradients(&y_expected, &dy, &[&table_var])[0];

            let mut y = vec![f32::NAN; rows * hidden];
            forward(&mut y, &table, &ids, offset, hidden);
            assert_eq!(y, numbers(&y_expected));
            let got = same_for_any_threads(|| {
                let mut dtable = vec![f32::NAN; vocab * hidden];
                grad(&mut dtable, false, &dy, &ids, offset, hidden);
                dtable
            });
            assert_close(&got, expected, 1e-6);
            let mut twice = got.clone();
            grad(&mut twice, true, &dy, &ids, offset, hidden);
            assert_close(&twice, &got.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), 1e-6);
        }
    }
}
