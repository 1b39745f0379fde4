//! How a plain loop becomes vector code, and the few functions that such loops share.
//!
//! Multiplications and additions are kept apart (no fused multiply-add), and reductions run over a fixed number of
//! lanes, so a result does not depend on which instruction set was chosen.

use super::number::Number;

/// Partial sums of a reduction: as wide as two AVX-512 registers.
pub const LANES: usize = 32;

/// How many numbers one parallel task of an elementwise kernel covers: 64 KiB per operand.
pub const CHUNK: usize = 16 * 1024;

/// Compiles a function's body for each instruction set that [`pulp`] knows, and picks one at run time.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$lt:lifetime $(, $of:ident: $trait:path)*>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name<$lt $(, $of: $trait)*>($($arg: $ty),*) $(-> $ret)? {
            struct Body<$lt $(, $of: $trait)*> { $($arg: $ty),* }

            impl<$lt $(, $of: $trait)*> pulp::NullaryFnOnce for Body<$lt $(, $of)*> {
                type Output = $crate::engine::cpu::simd::vectorised!(@output $($ret)?);

                #[inline(always)]
                fn call(self) -> Self::Output {
                    // A function of its own, so that the compiler still knows that the slices do not overlap.
                    #[inline(always)]
                    fn body<$lt $(, $of: $trait)*>($($arg: $ty),*) $(-> $ret)? $body
                    body($(self.$arg),*)
                }
            }

            pulp::Arch::new().dispatch(Body { $($arg),* })
        }
    };
    (@output) => { () };
    (@output $ret:ty) => { $ret };
}
pub(crate) use vectorised;

/// e to the `x`, within 2 units in the last place; 0 below the smallest subnormal, infinite above the largest number,
/// NaN for NaN.
///
/// Source: Cody and Waite's reduction by multiples of ln 2, and the polynomial of Cephes `expf`.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;

    // Not `clamp`: a comparison with NaN is false, and NaN goes through.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };

    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW; // |r| <= ln 2 / 2

    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let y = p * (r * r) + r + 1.0;

    // 2^n in two factors, so that neither leaves the range of normal numbers.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    y * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// 2 to the `n`, for -126 <= n <= 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// The hyperbolic tangent, within a few units in the last place.
///
/// Source: the polynomial of Cephes `tanhf` near zero, where the other form would lose its digits.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let z = x * x;
    let p = -5.704_988_5e-3;
    let p = p * z + 2.063_909e-2;
    let p = p * z - 5.373_971_6e-2;
    let p = p * z + 1.333_144_2e-1;
    let p = p * z - 3.333_328e-1;
    let near = p * z * x + x;
    let far = 1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0);
    if x.abs() < 0.625 { near } else { far.copysign(x) }
}

/// The normal distribution's integral from minus infinity to `x`, within a millionth of itself where it is not subnormal.
///
/// Source: Press et al. 1992, "Numerical Recipes", section 6.2: `erfc` by a Chebyshev fit.
#[inline(always)]
pub fn normal_cdf(x: f32) -> f32 {
    let x_abs = x.abs();
    let t = 1.0 / (1.0 + 0.5 * std::f32::consts::FRAC_1_SQRT_2 * x_abs);
    let p = 0.170_872_77;
    let p = p * t - 0.822_152_2;
    let p = p * t + 1.488_515_9;
    let p = p * t - 1.135_204;
    let p = p * t + 0.278_868_07;
    let p = p * t - 0.186_288_06;
    let p = p * t + 0.096_784_18;
    let p = p * t + 0.374_091_96;
    let p = p * t + 1.000_023_7;
    let p = p * t - 1.265_512_2;
    // exp(p - x * x / 2), from the square of a shorter number, which is exact, and what that leaves.
    let short = f32::from_bits(x_abs.to_bits() & 0xffff_f000);
    let rest = 0.5 * (short - x_abs) * (short + x_abs);
    let tail = 0.5 * t * exp(-0.5 * short * short) * exp(p + rest);
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// The sum of the lanes, halves first.
#[inline(always)]
pub fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The sum of `f(x)`.
#[inline(always)]
pub fn sum<T: Number>(x: &[T], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            lanes[i] += f(block[i].wide());
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f(x.wide());
    }
    sum_lanes(lanes)
}

/// The sum of `f(a, b)`; the slices are of one length.
#[inline(always)]
pub fn sum2<T: Number>(a: &[T], b: &[T], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let ((a_blocks, a_rest), (b_blocks, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for i in 0..LANES {
            lanes[i] += f(a[i].wide(), b[i].wide());
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += f(a.wide(), b.wide());
    }
    sum_lanes(lanes)
}

/// The sums of `x * x` and of `x * (offset + w) * dy`, which the gradient of a norm needs together.
#[inline(always)]
pub fn squares_and_product<T: Number>(x: &[T], w: &[T], dy: &[T], offset: f32) -> (f32, f32) {
    let (mut squares, mut products) = ([0.0; LANES], [0.0; LANES]);
    let (x_blocks, x_rest) = x.as_chunks::<LANES>();
    let (w_blocks, w_rest) = w.as_chunks::<LANES>();
    let (dy_blocks, dy_rest) = dy.as_chunks::<LANES>();
    for ((x, w), dy) in x_blocks.iter().zip(w_blocks).zip(dy_blocks) {
        for i in 0..LANES {
            let (x, w, dy) = (x[i].wide(), w[i].wide(), dy[i].wide());
            squares[i] += x * x;
            products[i] += x * (offset + w) * dy;
        }
    }
    for (i, ((&x, &w), &dy)) in x_rest.iter().zip(w_rest).zip(dy_rest).enumerate() {
        let (x, w, dy) = (x.wide(), w.wide(), dy.wide());
        squares[i] += x * x;
        products[i] += x * (offset + w) * dy;
    }
    (sum_lanes(squares), sum_lanes(products))
}

/// The sums of `w * dy` and of `w * dy * (x - mean)`, which the gradient of a layer norm needs together.
#[inline(always)]
pub fn product_and_moment<T: Number>(x: &[T], mean: f32, w: &[T], dy: &[T]) -> (f32, f32) {
    let (mut products, mut moments) = ([0.0; LANES], [0.0; LANES]);
    let (x_blocks, x_rest) = x.as_chunks::<LANES>();
    let (w_blocks, w_rest) = w.as_chunks::<LANES>();
    let (dy_blocks, dy_rest) = dy.as_chunks::<LANES>();
    for ((x, w), dy) in x_blocks.iter().zip(w_blocks).zip(dy_blocks) {
        for i in 0..LANES {
            let product = w[i].wide() * dy[i].wide();
            products[i] += product;
            moments[i] += product * (x[i].wide() - mean);
        }
    }
    for (i, ((&x, &w), &dy)) in x_rest.iter().zip(w_rest).zip(dy_rest).enumerate() {
        let product = w.wide() * dy.wide();
        products[i] += product;
        moments[i] += product * (x.wide() - mean);
    }
    (sum_lanes(products), sum_lanes(moments))
}

/// The largest number; minus infinity for an empty slice. NaN is passed over.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            lanes[i] = larger(lanes[i], block[i]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, x);
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, larger)
}

/// Replaces each `x` by `exp(x - shift)` and returns the sum of the results.
#[inline(always)]
pub fn exp_in_place(x: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (blocks, rest) = x.as_chunks_mut::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            block[i] = exp(block[i] - shift);
            lanes[i] += block[i];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *x = exp(*x - shift);
        *lane += *x;
    }
    sum_lanes(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    vectorised! {
        fn exp_all<'a>(y: &'a mut [f32], x: &'a [f32]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = exp(x);
            }
        }
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let x: Vec<f32> = (0..2_000_000).map(|i| -87.0 + 175.0 * i as f32 / 2e6).collect();
        let mut y = vec![0.0; x.len()];
        exp_all(&mut y, &x);
        let mut worst = 0;
        for (&x, &y) in x.iter().zip(&y) {
            let exact = f64::from(x).exp() as f32;
            worst = worst.max(exact.to_bits().abs_diff(y.to_bits()));
            assert_eq!(exp(x).to_bits(), y.to_bits(), "another instruction set, another result at {x}");
        }
        assert!(worst <= 2, "{worst} units in the last place");
    }

    #[test]
    fn tanh_is_within_four_units_in_the_last_place() {
        let mut worst = 0;
        for i in 0..400_000 {
            let x = -10.0 + 20.0 * i as f32 / 4e5;
            let exact = f64::from(x).tanh() as f32;
            worst = worst.max(exact.to_bits().abs_diff(tanh(x).to_bits()));
        }
        assert!(worst <= 4, "{worst} units in the last place");
        assert_eq!([tanh(f32::INFINITY), tanh(-1e30), tanh(0.0)], [1.0, -1.0, 0.0]);
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn the_normal_integral_is_what_its_series_gives() {
        // Source: Abramowitz and Stegun 1964, 7.1.6, in f64; the upper tail by 7.1.14, a continued fraction.
        let exact = |x: f64| {
            let y = x.abs() / std::f64::consts::SQRT_2;
            let erfc = if y < 2.0 {
                let (mut term, mut sum) = (y, y);
                for n in 1..100 {
                    term *= 2.0 * y * y / f64::from(2 * n + 1);
                    sum += term;
                }
                1.0 - 2.0 / std::f64::consts::PI.sqrt() * (-y * y).exp() * sum
            } else {
                let fraction = (1..200).rev().fold(y, |below, n| y + f64::from(n) / 2.0 / below);
                (-y * y).exp() / std::f64::consts::PI.sqrt() / fraction
            };
            if x < 0.0 { erfc / 2.0 } else { 1.0 - erfc / 2.0 }
        };
        assert!((exact(1.0) - 0.841_344_746_068_543).abs() < 1e-14, "a table's value");
        assert!((exact(-3.0) / 1.349_898_031_630_095e-3 - 1.0).abs() < 1e-12, "another");
        let mut worst: f64 = 0.0;
        for i in 0..20_000 {
            let x = -8.0 + 16.0 * i as f32 / 2e4;
            worst = worst.max((f64::from(normal_cdf(x)) / exact(f64::from(x)) - 1.0).abs());
        }
        assert!(worst < 1e-6, "{worst:e}");
        assert_eq!(
            [normal_cdf(0.0), normal_cdf(20.0), normal_cdf(-20.0)].map(|p| (p * 1e6).round()),
            [5e5, 1e6, 0.0]
        );
        assert!(normal_cdf(f32::NAN).is_nan());
    }

    #[test]
    fn exp_keeps_the_edges() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-104.5), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(88.9), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-100.0) > 0.0, "subnormal results are kept");
    }

    #[test]
    fn reductions_cover_every_element() {
        for n in [0, 1, 31, 32, 33, 100] {
            let x: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            let expected = (n * (n + 1) / 2) as f32;
            assert_eq!(sum(&x, |x| x), expected);
            assert_eq!(sum2(&x, &x, |a, b| a + b), 2.0 * expected);
            assert_eq!(max(&x), if n == 0 { f32::NEG_INFINITY } else { n as f32 });
            let squares = x.iter().map(|x| x * x).sum::<f32>();
            let ones = vec![1.0; x.len()];
            assert_eq!(squares_and_product(&x, &x, &ones, 0.0), (squares, squares));
            assert_eq!(product_and_moment(&x, 1.0, &x, &ones), (expected, squares - expected));
        }
    }
}
