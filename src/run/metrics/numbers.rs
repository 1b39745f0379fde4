//! Correlations of numbers.

use super::share;

/// Pearson's correlation of what was given and what was right; 0 where one of them never changes.
pub fn pearson(pairs: &[[f64; 2]]) -> f64 {
    // A mean is rounded: the distances from it are not all 0 where they should be.
    if [0, 1].iter().any(|side| pairs.iter().all(|pair| pair[*side] == pairs[0][*side])) {
        return 0.0;
    }
    let n = pairs.len() as f64;
    let mean = |side: usize| pairs.iter().map(|pair| pair[side]).sum::<f64>() / n;
    let means = [mean(0), mean(1)];
    let product = |a: usize, b: usize| {
        pairs.iter().map(|pair| (pair[a] - means[a]) * (pair[b] - means[b])).sum::<f64>()
    };
    share(product(0, 1), (product(0, 0) * product(1, 1)).sqrt())
}

/// Pearson's correlation of the ranks; equal numbers share the mean of theirs.
pub fn spearman(pairs: &[[f64; 2]]) -> f64 {
    let [given, right] = [0, 1].map(|side| ranks(&pairs.iter().map(|pair| pair[side]).collect::<Vec<f64>>()));
    let pairs: Vec<[f64; 2]> = given.into_iter().zip(right).map(|(given, right)| [given, right]).collect();
    pearson(&pairs)
}

fn ranks(numbers: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|a, b| numbers[*a].total_cmp(&numbers[*b]));
    let mut ranks = vec![0.0; numbers.len()];
    let mut before = 0;
    for equal in order.chunk_by(|a, b| numbers[*a] == numbers[*b]) {
        let rank = before as f64 + (equal.len() + 1) as f64 / 2.0;
        equal.iter().for_each(|i| ranks[*i] = rank);
        before += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_correlated_as_scipy_does() {
        // scipy 1.17's `pearsonr` and `spearmanr`.
        let pairs = [[1.0, 1.5], [2.0, 1.5], [2.0, 4.0], [4.0, 3.0], [5.5, 9.0], [0.0, 2.0]];
        let close =
            |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
        close(pearson(&pairs), 0.807729194779768);
        close(spearman(&pairs), 0.6617647058823529);
        close(pearson(&[[1.0, 1.0], [2.0, 1.0]]), 0.0);
    }
}
