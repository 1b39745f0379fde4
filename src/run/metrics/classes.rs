//! F1 and Matthews' correlation of classes.

use super::{f1, share};

/// How often each class was given where each class was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// `[right, given]`
    counts: Vec<u64>,
}

impl Confusion {
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    pub fn classes(&self) -> usize {
        self.classes
    }

    pub fn add(&mut self, right: usize, given: usize) {
        self.counts[right * self.classes + given] += 1;
    }

    fn count(&self, right: usize, given: usize) -> f64 {
        self.counts[right * self.classes + given] as f64
    }

    /// How often a class was right, and how often it was given.
    fn sums(&self, class: usize) -> [f64; 2] {
        let all = || 0..self.classes;
        [all().map(|given| self.count(class, given)).sum(), all().map(|right| self.count(right, class)).sum()]
    }

    /// The harmonic mean of a class's precision and recall; 0 where it was never right.
    pub fn f1(&self, class: usize) -> f64 {
        let [right, given] = self.sums(class);
        f1(self.count(class, class), given, right)
    }

    /// The mean over all classes that were right or given at all.
    pub fn macro_f1(&self) -> f64 {
        let occurring: Vec<usize> =
            (0..self.classes).filter(|class| self.sums(*class).iter().sum::<f64>() > 0.0).collect();
        let sum: f64 = occurring.iter().map(|class| self.f1(*class)).sum();
        share(sum, occurring.len() as f64)
    }

    /// Source: Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
    pub fn matthews(&self) -> f64 {
        let total: f64 = self.counts.iter().sum::<u64>() as f64;
        let correct: f64 = (0..self.classes).map(|class| self.count(class, class)).sum();
        let sums: Vec<[f64; 2]> = (0..self.classes).map(|class| self.sums(class)).collect();
        let product = |a: usize, b: usize| sums.iter().map(|sums| sums[a] * sums[b]).sum::<f64>();
        let spread = |side: usize| total * total - product(side, side);
        share(correct * total - product(0, 1), (spread(0) * spread(1)).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F1 of class 1, the mean of all, and Matthews' correlation; numbers from scikit-learn 1.9's `f1_score`,
    /// `f1_score(average="macro")` and `matthews_corrcoef`.
    fn check(classes: usize, right: &[usize], given: &[usize], expected: [f64; 3]) {
        let mut confusion = Confusion::new(classes);
        right.iter().zip(given).for_each(|(right, given)| confusion.add(*right, *given));
        let found = [confusion.f1(1), confusion.macro_f1(), confusion.matthews()];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
        }
    }

    #[test]
    fn classes_are_measured_as_scikit_learn_does() {
        check(
            2,
            &[0, 1, 1, 0, 1, 0, 1, 1],
            &[0, 1, 0, 0, 1, 1, 1, 1],
            [0.8, 0.7333333333333334, 0.4666666666666667],
        );
        check(
            4,
            &[0, 1, 2, 2, 1, 0, 2, 1, 0, 2],
            &[0, 2, 2, 1, 1, 0, 2, 1, 2, 2],
            [0.6666666666666666, 0.7111111111111111, 0.5471422245456321],
        );
        // One class throughout: nothing to correlate.
        check(2, &[0, 0, 0], &[0, 0, 0], [0.0, 1.0, 0.0]);
    }
}
