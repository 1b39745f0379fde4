//! Cross entropy of logits against labels, and its gradient in place of the logits.

use super::reduce::half;
use super::simd::{CHUNK, exp, exp_in_place, max, sum, vectorised};

/// The label of a row that carries no loss.
pub const IGNORED: u32 = u32::MAX;

/// The sum of the rows' negative log-likelihoods, and how many rows have their label as the largest logit.
///
/// `logits` is `[rows, vocab]`. Rows labelled [`IGNORED`] do not count.
pub fn cross_entropy(logits: &[f32], labels: &[u32], vocab: usize) -> (f64, u64) {
    assert_eq!(logits.len(), labels.len() * vocab, "cross_entropy: logits are not [rows, {vocab}]");
    let leaf = (CHUNK / vocab).max(1);
    if labels.len() > leaf {
        let row = half(labels.len(), leaf);
        let (logits, labels) = (logits.split_at(row * vocab), labels.split_at(row));
        return both(rayon::join(
            || cross_entropy(logits.0, labels.0, vocab),
            || cross_entropy(logits.1, labels.1, vocab),
        ));
    }
    let mut total = (0.0, 0);
    for (logits, &label) in logits.chunks_exact(vocab).zip(labels) {
        if let Some(label) = checked(label, vocab) {
            total = both((total, row(logits, label)));
        }
    }
    total
}

/// As [`cross_entropy`]; the logits become `scale * (softmax(logits) - onehot(label))`, and 0 in ignored rows.
pub fn cross_entropy_grad_in_place(
    logits_to_grad: &mut [f32],
    labels: &[u32],
    scale: f32,
    vocab: usize,
) -> (f64, u64) {
    assert_eq!(logits_to_grad.len(), labels.len() * vocab, "cross_entropy: logits are not [rows, {vocab}]");
    let leaf = (CHUNK / vocab).max(1);
    if labels.len() > leaf {
        let row = half(labels.len(), leaf);
        let (logits, labels) = (logits_to_grad.split_at_mut(row * vocab), labels.split_at(row));
        return both(rayon::join(
            || cross_entropy_grad_in_place(logits.0, labels.0, scale, vocab),
            || cross_entropy_grad_in_place(logits.1, labels.1, scale, vocab),
        ));
    }
    let mut total = (0.0, 0);
    for (logits, &label) in logits_to_grad.chunks_exact_mut(vocab).zip(labels) {
        match checked(label, vocab) {
            Some(label) => total = both((total, row_grad(logits, label, scale))),
            None => logits.fill(0.0),
        }
    }
    total
}

/// As [`cross_entropy_grad_in_place`], of logits that were bent by `cap tanh(logit / cap)`: the result is the gradient of
/// what they were before.
pub fn capped_cross_entropy_grad_in_place(
    logits_to_grad: &mut [f32],
    labels: &[u32],
    scale: f32,
    vocab: usize,
    cap: f32,
) -> (f64, u64) {
    assert_eq!(logits_to_grad.len(), labels.len() * vocab, "cross_entropy: logits are not [rows, {vocab}]");
    let leaf = (CHUNK / vocab).max(1);
    if labels.len() > leaf {
        let row = half(labels.len(), leaf);
        let (logits, labels) = (logits_to_grad.split_at_mut(row * vocab), labels.split_at(row));
        return both(rayon::join(
            || capped_cross_entropy_grad_in_place(logits.0, labels.0, scale, vocab, cap),
            || capped_cross_entropy_grad_in_place(logits.1, labels.1, scale, vocab, cap),
        ));
    }
    let mut total = (0.0, 0);
    for (logits, &label) in logits_to_grad.chunks_exact_mut(vocab).zip(labels) {
        match checked(label, vocab) {
            Some(label) => total = both((total, capped_row_grad(logits, label, scale, cap))),
            None => logits.fill(0.0),
        }
    }
    total
}

/// The sum of `(x - target)^2`; targets are the bits of floats.
pub fn squared_error(x: &[f32], targets: &[u32]) -> f64 {
    assert_eq!(x.len(), targets.len(), "squared_error: not a target for each number");
    x.iter().zip(targets).map(|(&x, &target)| f64::from(x - f32::from_bits(target)).powi(2)).sum()
}

/// As [`squared_error`]; each `x` becomes `2 * scale * (x - target)`.
pub fn squared_error_grad_in_place(x_to_grad: &mut [f32], targets: &[u32], scale: f32) -> f64 {
    let sum = squared_error(x_to_grad, targets);
    for (x, &target) in x_to_grad.iter_mut().zip(targets) {
        *x = 2.0 * scale * (*x - f32::from_bits(target));
    }
    sum
}

/// The sum over sequences of the mean of two cross entropies, and in how many both ends are the first choice.
///
/// `logits` is `[batch, seq, 2]`: that an answer begins at a token, and that it ends there. `spans` are its first tokens,
/// its last tokens and the sequences' lengths, `[3, batch]`; what lies beyond a length does not count.
pub fn span_cross_entropy(logits: &[f32], spans: &[u32], seq: usize) -> (f64, u64) {
    let batch = spans.len() / 3;
    assert_eq!(logits.len(), batch * seq * 2, "span_cross_entropy: logits are not [{batch}, {seq}, 2]");
    let mut total = (0.0, 0);
    for (i, logits) in logits.chunks_exact(2 * seq).enumerate() {
        let [begin, end] = [0, 1].map(|side| of_end(logits, side, spans, batch, i));
        total = both((total, ((begin.nll() + end.nll()) / 2.0, u64::from(begin.is_choice && end.is_choice))));
    }
    total
}

/// As [`span_cross_entropy`]; the logits become their gradient, times `scale`.
pub fn span_cross_entropy_grad_in_place(
    logits_to_grad: &mut [f32],
    spans: &[u32],
    scale: f32,
    seq: usize,
) -> (f64, u64) {
    let total = span_cross_entropy(logits_to_grad, spans, seq);
    let batch = spans.len() / 3;
    let half = f64::from(scale) / 2.0;
    for (i, logits) in logits_to_grad.chunks_exact_mut(2 * seq).enumerate() {
        let length = spans[2 * batch + i] as usize;
        for side in [0, 1] {
            let End { label, max, total, .. } = of_end(logits, side, spans, batch, i);
            for (at, logit) in logits.iter_mut().skip(side).step_by(2).enumerate() {
                let probability = (f64::from(*logit) - f64::from(max)).exp() / total;
                let hit = if at == label { 1.0 } else { 0.0 };
                *logit = if at < length { (half * (probability - hit)) as f32 } else { 0.0 };
            }
        }
    }
    total
}

/// One end of one answer, among the tokens of its sequence.
struct End {
    label: usize,
    /// The label's logit, and the largest.
    of_label: f32,
    max: f32,
    /// The sum of exponentials, with the largest taken off.
    total: f64,
    is_choice: bool,
}

impl End {
    fn nll(&self) -> f64 {
        self.total.ln() + (f64::from(self.max) - f64::from(self.of_label))
    }
}

fn of_end(logits: &[f32], side: usize, spans: &[u32], batch: usize, i: usize) -> End {
    let (label, length) = (spans[side * batch + i] as usize, spans[2 * batch + i] as usize);
    assert!(
        label < length && 2 * length <= logits.len(),
        "token {label} of {length} begins or ends no answer"
    );
    let own = || logits.iter().skip(side).step_by(2).take(length).copied();
    let max = own().fold(f32::NEG_INFINITY, f32::max);
    let total = own().map(|x| (f64::from(x) - f64::from(max)).exp()).sum();
    let of_label = logits[2 * label + side];
    let is_choice = own().position(|x| x == max) == Some(label);
    End { label, of_label, max, total, is_choice }
}

fn both((a, b): ((f64, u64), (f64, u64))) -> (f64, u64) {
    (a.0 + b.0, a.1 + b.1)
}

/// The label as an index, unless its row is ignored.
fn checked(label: u32, vocab: usize) -> Option<usize> {
    debug_assert!(label == IGNORED || (label as usize) < vocab, "label {label} in a vocabulary of {vocab}");
    Some(label as usize).filter(|&label| label < vocab)
}

/// Of equal logits the first is the model's choice.
#[inline(always)]
fn is_choice(logits: &[f32], label: usize, max: f32) -> bool {
    logits[label] == max && !logits[..label].contains(&max)
}

vectorised! {
    fn row<'a>(logits: &'a [f32], label: usize) -> (f64, u64) {
        let max = max(logits);
        let correct = is_choice(logits, label, max);
        let total = sum(logits, |x| exp(x - max));
        (f64::from(total).ln() + (f64::from(max) - f64::from(logits[label])), correct.into())
    }
}

vectorised! {
    fn row_grad<'a>(logits: &'a mut [f32], label: usize, scale: f32) -> (f64, u64) {
        let max = max(logits);
        let correct = is_choice(logits, label, max);
        let margin = f64::from(max) - f64::from(logits[label]);
        let total = exp_in_place(logits, max);
        let factor = scale / total;
        for logit in &mut *logits {
            *logit *= factor;
        }
        logits[label] -= scale;
        (f64::from(total).ln() + margin, correct.into())
    }
}

vectorised! {
    fn capped_row_grad<'a>(logits: &'a mut [f32], label: usize, scale: f32, cap: f32) -> (f64, u64) {
        let max = max(logits);
        let correct = is_choice(logits, label, max);
        let bent = logits[label];
        let total = sum(logits, |x| exp(x - max));
        let factor = scale / total;
        // The tangent's slope is one less its square.
        for logit in &mut *logits {
            let tangent = *logit / cap;
            *logit = factor * exp(*logit - max) * (1.0 - tangent * tangent);
        }
        let tangent = bent / cap;
        logits[label] -= scale * (1.0 - tangent * tangent);
        (f64::from(total).ln() + (f64::from(max) - f64::from(bent)), correct.into())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::super::oracle::{assert_close, gradients, random, same_for_any_threads, var};
    use super::*;

    #[test]
    fn cross_entropy_agrees_with_autograd() {
        for (rows, vocab) in [(1, 1), (7, 65), (130, 1000)] {
            let logits: Vec<f32> = random(rows * vocab, 1).iter().map(|x| 10.0 * x).collect();
            let labels: Vec<u32> =
                random(rows, 2).iter().map(|x| (x.abs() * vocab as f32 * 0.99) as u32).collect();
            let logits_var = var(&logits, &[rows, vocab]);
            let targets = Tensor::from_slice(&labels, rows, &Device::Cpu).unwrap();
            let mean = candle_nn::loss::cross_entropy(&logits_var, &targets).unwrap();
            let expected = &gradients(&mean, &[1.0], &[&logits_var])[0];
            let argmax: Vec<u32> = logits_var.argmax(1).unwrap().to_vec1().unwrap();
            let hits = argmax.iter().zip(&labels).filter(|(a, b)| a == b).count() as u64;

            let grad = same_for_any_threads(|| {
                let mut grad = logits.clone();
                let (nll, correct) =
                    cross_entropy_grad_in_place(&mut grad, &labels, 1.0 / rows as f32, vocab);
                assert_eq!((nll, correct), cross_entropy(&logits, &labels, vocab));
                assert_close(&[(nll / rows as f64) as f32], &[mean.to_scalar().unwrap()], 1e-6);
                assert_eq!(correct, hits);
                grad
            });
            assert_close(&grad, expected, 1e-6);
        }
    }

    #[test]
    fn squared_errors_agree_with_autograd() {
        let (x, targets) = (random(33, 1), random(33, 2));
        let bits: Vec<u32> = targets.iter().map(|target| target.to_bits()).collect();
        let x_var = var(&x, &[33]);
        let targets = Tensor::from_slice(&targets, 33, &Device::Cpu).unwrap();
        let mean = x_var.sub(&targets).unwrap().sqr().unwrap().mean_all().unwrap();
        let expected = &gradients(&mean, &[1.0], &[&x_var])[0];
        let mut grad = x.clone();
        let sum = squared_error_grad_in_place(&mut grad, &bits, 1.0 / 33.0);
        assert_eq!(sum, squared_error(&x, &bits));
        assert_close(&[(sum / 33.0) as f32], &[mean.to_scalar().unwrap()], 1e-6);
        assert_close(&grad, expected, 1e-6);
    }

    #[test]
    fn ends_of_answers_agree_with_autograd() {
        let seq = 7;
        // Two sequences of 7 and of 5 tokens; the last two numbers of the second are padding.
        let spans = [2, 0, 4, 3, 7, 5];
        let logits: Vec<f32> = random(2 * seq * 2, 5).iter().map(|x| 3.0 * x).collect();
        let mut grad = logits.clone();
        let (nll, _) = span_cross_entropy_grad_in_place(&mut grad, &spans, 0.5, seq);
        assert_eq!(nll, span_cross_entropy(&logits, &spans, seq).0);
        let mut expected = (0.0, vec![0.0; grad.len()]);
        for (i, length) in [(0, 7), (1, 5)] {
            for side in [0, 1] {
                let of: Vec<usize> = (0..length).map(|at| (i * seq + at) * 2 + side).collect();
                let own: Vec<f32> = of.iter().map(|at| logits[*at]).collect();
                let own_var = var(&own, &[1, length]);
                let label = Tensor::from_slice(&[spans[side * 2 + i]], 1, &Device::Cpu).unwrap();
                let one = candle_nn::loss::cross_entropy(&own_var, &label).unwrap();
                expected.0 += one.to_scalar::<f32>().unwrap() / 2.0;
                for (at, g) in of.iter().zip(&gradients(&one, &[1.0], &[&own_var])[0]) {
                    expected.1[*at] = 0.5 * 0.5 * g;
                }
            }
        }
        assert_close(&[nll as f32], &[expected.0], 1e-6);
        assert_close(&grad, &expected.1, 1e-6);
        // Both ends have to be the first choice.
        let sure = [9.0, 0.0, 0.0, 9.0];
        assert_eq!(span_cross_entropy(&sure, &[0, 1, 2], 2).1, 1);
        assert_eq!(span_cross_entropy(&sure, &[0, 0, 2], 2).1, 0);
    }

    #[test]
    fn bent_logits_agree_with_autograd() {
        for (rows, vocab) in [(1, 1), (7, 65), (130, 1000)] {
            let logits: Vec<f32> = random(rows * vocab, 1).iter().map(|x| 10.0 * x).collect();
            let mut labels: Vec<u32> =
                random(rows, 2).iter().map(|x| (x.abs() * vocab as f32 * 0.99) as u32).collect();
            let logits_var = var(&logits, &[rows, vocab]);
            let bent = ((logits_var.as_tensor() / 4.0).unwrap().tanh().unwrap() * 4.0).unwrap();
            let targets = Tensor::from_slice(&labels, rows, &Device::Cpu).unwrap();
            let mean = candle_nn::loss::cross_entropy(&bent, &targets).unwrap();
            let mut expected = gradients(&mean, &[1.0], &[&logits_var])[0].clone();
            let bent: Vec<f32> = bent.flatten_all().unwrap().to_vec1().unwrap();
            let grad = same_for_any_threads(|| {
                let mut grad = bent.clone();
                let (nll, _) =
                    capped_cross_entropy_grad_in_place(&mut grad, &labels, 1.0 / rows as f32, vocab, 4.0);
                assert_close(&[(nll / rows as f64) as f32], &[mean.to_scalar().unwrap()], 1e-6);
                grad
            });
            assert_close(&grad, &expected, 1e-6);
            labels[0] = IGNORED;
            expected[..vocab].fill(0.0);
            let mut grad = bent.clone();
            capped_cross_entropy_grad_in_place(&mut grad, &labels, 1.0 / rows as f32, vocab, 4.0);
            assert_close(&grad, &expected, 1e-6);
        }
    }

    #[test]
    fn ignored_rows_have_no_loss_and_no_gradient() {
        let logits = [1.0, 2.0, 3.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0];
        let labels = [IGNORED, 0, 1];
        let mut grad = logits;
        let (nll, correct) = cross_entropy_grad_in_place(&mut grad, &labels, 2.0, 3);
        // ln(1 + 1/e + 1/e^2) of the second row, ln 3 of the third.
        assert!((nll - (0.407_605_964_444_38 + 3_f64.ln())).abs() < 1e-6);
        assert_eq!(correct, 1, "the first of equal logits is the choice");
        assert_eq!(grad[..3], [0.0; 3]);
        assert_close(&grad[6..], &[2.0 / 3.0, -4.0 / 3.0, 2.0 / 3.0], 1e-6);
    }

    #[test]
    fn all_equal_large_logits_do_not_overflow() {
        let (nll, _) = cross_entropy(&[1e30; 4], &[2], 4);
        assert!((nll - 4_f64.ln()).abs() < 1e-6);
    }
}
