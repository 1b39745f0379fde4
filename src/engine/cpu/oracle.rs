//! What the kernels' tests share: inputs, comparisons, and candle's autograd over plain operations.

use candle_core::{Device, Tensor, Var};

/// `n` numbers in -1..1 that depend on `seed` alone.
pub fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Runs `f` in pools of one, two and three threads; the results are the same to the bit.
pub fn same_for_any_threads<T: Bits + Send>(f: impl Fn() -> Vec<T> + Sync) -> Vec<T> {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(&f)
    };
    let one = run(1);
    for threads in [2, 3] {
        let other = run(threads);
        assert_eq!(one.len(), other.len());
        for (i, (a, b)) in one.iter().zip(&other).enumerate() {
            assert_eq!(a.bits(), b.bits(), "element {i} differs between 1 and {threads} threads");
        }
    }
    one
}

pub trait Bits {
    fn bits(&self) -> u64;
}

impl Bits for f32 {
    fn bits(&self) -> u64 {
        self.to_bits().into()
    }
}

impl Bits for f64 {
    fn bits(&self) -> u64 {
        self.to_bits()
    }
}

/// `got` differs from `expected` by at most `tolerance` times the largest magnitude in `expected`.
#[track_caller]
pub fn assert_close(got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len());
    let size = expected.iter().fold(1e-2_f32, |size, x| size.max(x.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (got - expected).abs() / size;
        assert!(error <= tolerance, "element {i}: {got}, expected {expected}, error {error:e}");
    }
}

/// candle's variable with these numbers.
pub fn var(data: &[f32], shape: &[usize]) -> Var {
    Var::from_tensor(&Tensor::from_slice(data, shape, &Device::Cpu).unwrap()).unwrap()
}

/// The numbers of a tensor, row-major.
pub fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The gradients of `sum(y * dy)` with respect to `vars`, by candle's autograd.
pub fn gradients(y: &Tensor, dy: &[f32], vars: &[&Var]) -> Vec<Vec<f32>> {
    let dy = Tensor::from_slice(dy, y.shape(), &Device::Cpu).unwrap();
    let grads = (y * dy).unwrap().sum_all().unwrap().backward().unwrap();
    vars.iter().map(|var| numbers(grads.get(var).expect("candle cut this gradient"))).collect()
}

/// `gradient` agrees with central differences of `f` at `x` (every element, steps of 2^-5, f64 sums in `f`).
#[track_caller]
pub fn assert_finite_differences(x: &[f32], gradient: &[f32], tolerance: f32, f: impl Fn(&[f32]) -> f64) {
    let step = 1.0 / 32.0;
    let mut moved = x.to_vec();
    let expected: Vec<f32> = (0..x.len())
        .map(|i| {
            let mut at = |delta: f32| {
                moved[i] = x[i] + delta;
                let value = f(&moved);
                moved[i] = x[i];
                value
            };
            // Fourth order, so that the step can be large enough for f32.
            let near = at(step) - at(-step);
            let far = at(2.0 * step) - at(-2.0 * step);
            ((8.0 * near - far) / (12.0 * f64::from(step))) as f32
        })
        .collect();
    assert_close(gradient, &expected, tolerance);
}

/// The sum of `a * b` in f64.
pub fn inner(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}
