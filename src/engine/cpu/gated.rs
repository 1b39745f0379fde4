//! Gated feed-forward's middle: `f(gate) * up`.
//!
//! Source: Shazeer 2020, "GLU Variants Improve Transformer", section 2.

use rayon::prelude::*;

use super::activation::Curve;
use super::number::Number;
use super::simd::{CHUNK, vectorised};

/// `y = f(gate) * up`.
pub fn forward<C: Curve, T: Number>(f: C, y: &mut [T], gate: &[T], up: &[T]) {
    assert!(y.len() == gate.len() && y.len() == up.len(), "gated: operands of different lengths");
    y.par_chunks_mut(CHUNK)
        .zip(gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK)))
        .for_each(|(y, (gate, up))| forward_chunk(f, y, gate, up));
}

/// As [`forward`]: `gate` becomes `y`.
pub fn forward_in_place<C: Curve, T: Number>(f: C, gate_to_y: &mut [T], up: &[T]) {
    assert_eq!(gate_to_y.len(), up.len(), "gated: operands of different lengths");
    gate_to_y
        .par_chunks_mut(CHUNK)
        .zip(up.par_chunks(CHUNK))
        .for_each(|(gate, up)| forward_in_place_chunk(f, gate, up));
}

vectorised! {
    fn forward_chunk<'a, C: Curve, T: Number>(f: C, y: &'a mut [T], gate: &'a [T], up: &'a [T]) {
        for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
            *y = T::nearest(f.value(gate.wide()) * up.wide());
        }
    }
}

vectorised! {
    fn forward_in_place_chunk<'a, C: Curve, T: Number>(f: C, gate: &'a mut [T], up: &'a [T]) {
        for (gate, &up) in gate.iter_mut().zip(up) {
            *gate = T::nearest(f.value(gate.wide()) * up.wide());
        }
    }
}

/// The gradients with respect to `gate` and `up`.
pub fn grad<C: Curve, T: Number>(f: C, dgate: &mut [T], dup: &mut [T], dy: &[T], gate: &[T], up: &[T]) {
    let n = dy.len();
    assert!(
        dgate.len() == n && dup.len() == n && gate.len() == n && up.len() == n,
        "gated: operands of different lengths"
    );
    dgate
        .par_chunks_mut(CHUNK)
        .zip(dup.par_chunks_mut(CHUNK))
        .zip(dy.par_chunks(CHUNK).zip(gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK))))
        .for_each(|((dgate, dup), (dy, (gate, up)))| grad_chunk(f, dgate, dup, dy, gate, up));
}

/// As [`grad`]: `gate` becomes its gradient, and `up` its own.
pub fn grad_in_place<C: Curve, T: Number>(f: C, dy: &[T], gate_to_dgate: &mut [T], up_to_dup: &mut [T]) {
    let n = dy.len();
    assert!(gate_to_dgate.len() == n && up_to_dup.len() == n, "gated: operands of different lengths");
    gate_to_dgate
        .par_chunks_mut(CHUNK)
        .zip(up_to_dup.par_chunks_mut(CHUNK))
        .zip(dy.par_chunks(CHUNK))
        .for_each(|((gate, up), dy)| grad_in_place_chunk(f, dy, gate, up));
}

/// `(dgate, dup)` of one element.
#[inline(always)]
fn unmix<C: Curve, T: Number>(f: C, dy: T, gate: T, up: T) -> (T, T) {
    let (dy, up) = (dy.wide(), up.wide());
    let (value, slope) = f.value_and_slope(gate.wide());
    (T::nearest(dy * up * slope), T::nearest(dy * value))
}

vectorised! {
    fn grad_chunk<'a, C: Curve, T: Number>(
        f: C,
        dgate: &'a mut [T],
        dup: &'a mut [T],
        dy: &'a [T],
        gate: &'a [T],
        up: &'a [T],
    ) {
        let each = dy.iter().zip(gate).zip(up);
        for ((dgate, dup), ((&dy, &gate), &up)) in dgate.iter_mut().zip(dup).zip(each) {
            (*dgate, *dup) = unmix(f, dy, gate, up);
        }
    }
}

vectorised! {
    fn grad_in_place_chunk<'a, C: Curve, T: Number>(f: C, dy: &'a [T], gate: &'a mut [T], up: &'a mut [T]) {
        for ((gate, up), &dy) in gate.iter_mut().zip(up).zip(dy) {
            (*gate, *up) = unmix(f, dy, *gate, *up);
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;

    use super::super::activation::{Gelu, GeluTanh, Silu};
    use super::super::oracle::{
        assert_close, assert_finite_differences, gradients, inner, numbers, random, same_for_any_threads, var,
    };
    use super::*;

    #[test]
    fn a_gate_agrees_with_autograd() {
        check(Silu, Tensor::silu);
        check(Gelu, Tensor::gelu_erf);
        check(GeluTanh, Tensor::gelu);
    }

    fn check<C: Curve>(f: C, oracle: impl Fn(&Tensor) -> candle_core::Result<Tensor>) {
        for n in [1, 33, 1000, CHUNK + 5] {
            let gate: Vec<f32> = random(n, 1).iter().map(|x| 8.0 * x).collect();
            let (up, dy) = (random(n, 2), random(n, 3));
            let (gate_var, up_var) = (var(&gate, &[n]), var(&up, &[n]));
            let y_expected = oracle(&gate_var).unwrap().mul(&up_var).unwrap();
            let expected = gradients(&y_expected, &dy, &[&gate_var, &up_var]);

            let got = same_for_any_threads(|| {
                let mut out = vec![f32::NAN; 3 * n];
                let (y, rest) = out.split_at_mut(n);
                let (dgate, dup) = rest.split_at_mut(n);
                forward(f, y, &gate, &up);
                grad(f, dgate, dup, &dy, &gate, &up);
                out
            });
            // Where the true value is next to nothing, candle's is nothing.
            assert_close(&got[..n], &numbers(&y_expected), 2e-6);
            assert_close(&got[n..2 * n], &expected[0], 2e-6);
            assert_close(&got[2 * n..], &expected[1], 2e-6);

            let mut y = gate.clone();
            forward_in_place(f, &mut y, &up);
            assert_eq!(y, got[..n]);
            let (mut dgate, mut dup) = (gate.clone(), up.clone());
            grad_in_place(f, &dy, &mut dgate, &mut dup);
            assert_eq!(dgate, got[n..2 * n]);
            assert_eq!(dup, got[2 * n..]);
        }
    }

    #[test]
    fn swiglu_agrees_with_finite_differences() {
        let n = 40;
        let (gate, up, dy) = (random(n, 4), random(n, 5), random(n, 6));
        let value = |gate: &[f32], up: &[f32]| {
            let mut y = vec![0.0; n];
            forward(Silu, &mut y, gate, up);
            inner(&y, &dy)
        };
        let (mut dgate, mut dup) = (vec![0.0; n], vec![0.0; n]);
        grad(Silu, &mut dgate, &mut dup, &dy, &gate, &up);
        assert_finite_differences(&gate, &dgate, 1e-4, |gate| value(gate, &up));
        assert_finite_differences(&up, &dup, 1e-4, |up| value(&gate, up));
    }

    #[test]
    fn extreme_gates_saturate() {
        let gate = [-200.0, -90.0, 0.0, 90.0, 200.0];
        let (up, dy) = ([1.0; 5], [1.0; 5]);
        let (mut y, mut dgate, mut dup) = ([0.0; 5], [0.0; 5], [0.0; 5]);
        forward(Silu, &mut y, &gate, &up);
        grad(Silu, &mut dgate, &mut dup, &dy, &gate, &up);
        assert_eq!(y, [0.0, 0.0, 0.0, 90.0, 200.0]);
        assert_eq!(dgate, [0.0, 0.0, 0.5, 1.0, 1.0]);
        assert_eq!(dup, y);
    }
}
