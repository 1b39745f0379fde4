//! Functions of single numbers: the curves between two products.

use rayon::prelude::*;

use super::number::Number;
use super::simd::{CHUNK, exp, normal_cdf, tanh, vectorised};

/// A function of one number, and how steep it is.
pub trait Curve: Copy + Send + Sync {
    fn value(self, x: f32) -> f32;
    /// The value, and its derivative.
    fn value_and_slope(self, x: f32) -> (f32, f32);
}

/// `x / (1 + exp(-x))`
#[derive(Clone, Copy)]
pub struct Silu;

/// `x` times the normal distribution's integral up to `x`.
/// Source: Hendrycks and Gimpel 2016, "Gaussian Error Linear Units".
#[derive(Clone, Copy)]
pub struct Gelu;

/// The same source's approximation: `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`.
#[derive(Clone, Copy)]
pub struct GeluTanh;

/// `max(x, 0)`
#[derive(Clone, Copy)]
pub struct Relu;

/// `cap tanh(x / cap)`: a line near zero, that never leaves -cap to cap.
#[derive(Clone, Copy)]
pub struct Tanh {
    pub cap: f32,
}

impl Curve for Silu {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        x / (1.0 + exp(-x))
    }

    #[inline(always)]
    fn value_and_slope(self, x: f32) -> (f32, f32) {
        let sigmoid = 1.0 / (1.0 + exp(-x));
        (x * sigmoid, sigmoid * (1.0 + x * (1.0 - sigmoid)))
    }
}

impl Curve for Gelu {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        x * normal_cdf(x)
    }

    #[inline(always)]
    fn value_and_slope(self, x: f32) -> (f32, f32) {
        /// 1 / sqrt(2 pi)
        const DENSITY: f32 = 0.398_942_3;
        let cdf = normal_cdf(x);
        (x * cdf, cdf + x * DENSITY * exp(-0.5 * x * x))
    }
}

impl GeluTanh {
    /// `2 sqrt(2 / pi)`: half of one plus a tangent is a sigmoid of twice its argument.
    const RATE: f32 = 1.595_769;
    const CUBE: f32 = 0.044_715;

    #[inline(always)]
    fn sigmoid(x: f32) -> f32 {
        1.0 / (1.0 + exp(-Self::RATE * x * (1.0 + Self::CUBE * x * x)))
    }
}

impl Curve for GeluTanh {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        x * Self::sigmoid(x)
    }

    #[inline(always)]
    fn value_and_slope(self, x: f32) -> (f32, f32) {
        let sigmoid = Self::sigmoid(x);
        let inner = Self::RATE * (1.0 + 3.0 * Self::CUBE * x * x);
        (x * sigmoid, sigmoid * (1.0 + x * (1.0 - sigmoid) * inner))
    }
}

impl Curve for Relu {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        // NaN goes through, as it does everywhere else.
        if x < 0.0 { 0.0 } else { x }
    }

    #[inline(always)]
    fn value_and_slope(self, x: f32) -> (f32, f32) {
        (self.value(x), if x > 0.0 { 1.0 } else { 0.0 })
    }
}

impl Curve for Tanh {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        self.cap * tanh(x / self.cap)
    }

    #[inline(always)]
    fn value_and_slope(self, x: f32) -> (f32, f32) {
        let y = tanh(x / self.cap);
        (self.cap * y, 1.0 - y * y)
    }
}

/// `y = f(x)`.
pub fn forward<C: Curve, T: Number>(f: C, y: &mut [T], x: &[T]) {
    assert_eq!(y.len(), x.len(), "activation: operands of different lengths");
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| forward_chunk(f, y, x));
}

/// As [`forward`]: `x` becomes `y`.
pub fn forward_in_place<C: Curve, T: Number>(f: C, x_to_y: &mut [T]) {
    x_to_y.par_chunks_mut(CHUNK).for_each(|x| forward_in_place_chunk(f, x));
}

/// `dx = dy * f'(x)`.
pub fn grad<C: Curve, T: Number>(f: C, dx: &mut [T], dy: &[T], x: &[T]) {
    assert!(dx.len() == dy.len() && dy.len() == x.len(), "activation: operands of different lengths");
    dx.par_chunks_mut(CHUNK)
        .zip(dy.par_chunks(CHUNK).zip(x.par_chunks(CHUNK)))
        .for_each(|(dx, (dy, x))| grad_chunk(f, dx, dy, x));
}

/// As [`grad`]: `dy` becomes `dx`.
pub fn grad_in_place<C: Curve, T: Number>(f: C, dy_to_dx: &mut [T], x: &[T]) {
    assert_eq!(dy_to_dx.len(), x.len(), "activation: operands of different lengths");
    dy_to_dx.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(dy, x)| grad_in_place_chunk(f, dy, x));
}

vectorised! {
    fn forward_chunk<'a, C: Curve, T: Number>(f: C, y: &'a mut [T], x: &'a [T]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = T::nearest(f.value(x.wide()));
        }
    }
}

vectorised! {
    fn forward_in_place_chunk<'a, C: Curve, T: Number>(f: C, x: &'a mut [T]) {
        for x in x {
            *x = T::nearest(f.value(x.wide()));
        }
    }
}

vectorised! {
    fn grad_chunk<'a, C: Curve, T: Number>(f: C, dx: &'a mut [T], dy: &'a [T], x: &'a [T]) {
        for ((dx, &dy), &x) in dx.iter_mut().zip(dy).zip(x) {
            *dx = T::nearest(dy.wide() * f.value_and_slope(x.wide()).1);
        }
    }
}

vectorised! {
    fn grad_in_place_chunk<'a, C: Curve, T: Number>(f: C, dy: &'a mut [T], x: &'a [T]) {
        for (dy, &x) in dy.iter_mut().zip(x) {
            *dy = T::nearest(dy.wide() * f.value_and_slope(x.wide()).1);
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Result, Tensor};

    use super::super::oracle::{
        assert_close, assert_finite_differences, gradients, inner, numbers, random, same_for_any_threads, var,
    };
    use super::*;

    fn check<C: Curve>(f: C, oracle: impl Fn(&Tensor) -> Result<Tensor>) {
        for n in [1, 33, CHUNK + 5] {
            let x: Vec<f32> = random(n, 1).iter().map(|x| 6.0 * x).collect();
            let dy = random(n, 2);
            let x_var = var(&x, &[n]);
            let y_expected = oracle(&x_var).unwrap();
            let expected = gradients(&y_expected, &dy, &[&x_var]);
            let got = same_for_any_threads(|| {
                let mut out = vec![f32::NAN; 2 * n];
                let (y, dx) = out.split_at_mut(n);
                forward(f, y, &x);
                grad(f, dx, &dy, &x);
                out
            });
            assert_close(&got[..n], &numbers(&y_expected), 2e-6);
            assert_close(&got[n..], &expected[0], 2e-6);
            let (mut y, mut dx) = (x.clone(), dy.clone());
            forward_in_place(f, &mut y);
            grad_in_place(f, &mut dx, &x);
            assert_eq!([y, dx].concat(), got);
        }
        let (x, dy) = (random(40, 4), random(40, 5));
        let value = |x: &[f32]| {
            let mut y = vec![0.0; 40];
            forward(f, &mut y, x);
            inner(&y, &dy)
        };
        let mut dx = vec![0.0; 40];
        grad(f, &mut dx, &dy, &x);
        assert_finite_differences(&x, &dx, 2e-4, value);
    }

    #[test]
    fn curves_agree_with_autograd_and_finite_differences() {
        check(Silu, Tensor::silu);
        check(Gelu, Tensor::gelu_erf);
        check(GeluTanh, Tensor::gelu);
        check(Tanh { cap: 1.0 }, Tensor::tanh);
        check(Tanh { cap: 2.5 }, |x| (x / 2.5)?.tanh()? * 2.5);
    }

    #[test]
    fn relu_agrees_with_autograd() {
        let (x, dy) = (random(1000, 1), random(1000, 2));
        let x_var = var(&x, &[1000]);
        let y_expected = x_var.relu().unwrap();
        let (mut y, mut dx) = (vec![f32::NAN; 1000], vec![f32::NAN; 1000]);
        forward(Relu, &mut y, &x);
        grad(Relu, &mut dx, &dy, &x);
        assert_eq!(y, numbers(&y_expected));
        assert_eq!(dx, gradients(&y_expected, &dy, &[&x_var])[0]);
        assert!(Relu.value(f32::NAN).is_nan());
    }

    #[test]
    fn far_from_zero_curves_are_lines_or_flat() {
        let far = [-200.0, 200.0];
        assert_eq!(far.map(|x| Silu.value(x)), [0.0, 200.0]);
        assert_eq!(far.map(|x| Gelu.value(x)), [0.0, 200.0]);
        assert_eq!(far.map(|x| GeluTanh.value(x)), [0.0, 200.0]);
        assert_eq!(far.map(|x| Tanh { cap: 3.0 }.value(x)), [-3.0, 3.0]);
        assert_eq!(far.map(|x| Gelu.value_and_slope(x).1), [0.0, 1.0]);
        assert_eq!(far.map(|x| GeluTanh.value_and_slope(x).1), [0.0, 1.0]);
    }
}
