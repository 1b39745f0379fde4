//! Adam, and what was made of it.

use super::super::reduce::sum_of_squares;
use super::super::simd::{CHUNK, sum, vectorised};
use super::chunks;

use rayon::prelude::*;

/// One step of Adam.
///
/// Source: Kingma and Ba 2015, "Adam"; Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization",
/// algorithm 2; PyTorch's `adam.py` and `adamw.py`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Decoupled weight decay (AdamW).
    pub decay: f64,
    /// Weight decay as a part of the gradient (Adam).
    pub l2: f64,
    /// How many updates these parameters have had, this one included.
    pub step: u64,
}

/// What [`Adam`] comes to for one step, in f32.
#[derive(Clone, Copy)]
pub(super) struct Constants {
    pub scale: f32,
    pub keep: f32,
    pub l2: f32,
    pub one_minus_beta1: f32,
    pub beta2: f32,
    pub one_minus_beta2: f32,
    pub bias1: f32,
    pub bias2_sqrt: f32,
    pub eps: f32,
    pub minus_step_size: f32,
}

impl Adam {
    pub(super) fn constants(&self, scale: f32) -> Constants {
        assert!(self.step > 0, "Adam: steps count from 1");
        let bias1 = 1.0 - self.beta1.powf(self.step as f64);
        Constants {
            scale,
            keep: (1.0 - self.lr * self.decay) as f32,
            l2: self.l2 as f32,
            one_minus_beta1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            one_minus_beta2: (1.0 - self.beta2) as f32,
            bias1: bias1 as f32,
            bias2_sqrt: (1.0 - self.beta2.powf(self.step as f64)).sqrt() as f32,
            eps: self.eps as f32,
            minus_step_size: -(self.lr / bias1) as f32,
        }
    }

    /// Moves `p` against `scale * g`, with moments `m` and `v`.
    pub fn update(&self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], scale: f32) {
        let c = self.constants(scale);
        chunks(p, g, [m, v], &|p, g, [m, v]| {
            adam_chunk(p, g, m, v, c);
            0.0
        });
    }

    /// A block whose moments are unpacked.
    pub(super) fn block(&self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], c: Constants) {
        adam_chunk(p, g, m, v, c);
    }

    /// LAMB: the step is as long as the weights, `p -= lr |p| / |u| u` with `u = m' / (sqrt(v') + eps) + decay p`.
    ///
    /// Source: You et al. 2020, "Large Batch Optimization for Deep Learning", algorithm 2, with `phi(x) = x`; where a
    /// norm is zero, their ratio counts as one.
    pub fn lamb(&self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], scale: f32) {
        let c = self.constants(scale);
        let decay = self.decay as f32;
        let squares =
            chunks(p, g, [m, v], &|p, g, [m, v]| f64::from(lamb_moments_chunk(p, g, m, v, c, decay)));
        let (weights, step) = (sum_of_squares(p).sqrt(), squares.sqrt());
        let trust = if weights > 0.0 && step > 0.0 { weights / step } else { 1.0 };
        let minus_lr = -(self.lr * trust) as f32;
        chunks(p, g, [m, v], &|p, _, [m, v]| {
            lamb_step_chunk(p, m, v, c, decay, minus_lr);
            0.0
        });
    }

    /// Adam-mini: `v` has one number for each of its `v.len()` equal parts of `p`, the mean of the squared gradients.
    ///
    /// Source: Zhang et al. 2024, "Adam-mini: Use Fewer Learning Rates To Gain More", algorithm 1.
    pub fn mini(&self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], scale: f32) {
        let n = p.len() / v.len();
        assert!(
            p.len() == n * v.len() && g.len() == p.len() && m.len() == p.len(),
            "adam-mini: uneven parts"
        );
        let c = self.constants(scale);
        let parts = p.par_chunks_mut(n).zip(g.par_chunks(n)).zip(m.par_chunks_mut(n)).zip(v.par_iter_mut());
        parts.for_each(|(((p, g), m), v)| {
            let squares = sum_of_squares(g) * f64::from(scale) * f64::from(scale);
            *v = *v * c.beta2 + c.one_minus_beta2 * (squares / n as f64) as f32;
            let denominator = v.sqrt() / c.bias2_sqrt + c.eps;
            let parts = p.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).zip(m.par_chunks_mut(CHUNK));
            parts.for_each(|((p, g), m)| mini_chunk(p, g, m, denominator, c));
        });
    }
}

vectorised! {
    fn adam_chunk<'a>(p: &'a mut [f32], g: &'a [f32], m: &'a mut [f32], v: &'a mut [f32], c: Constants) {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = g * c.scale + c.l2 * *p;
            *p *= c.keep;
            *m += c.one_minus_beta1 * (g - *m);
            *v = *v * c.beta2 + c.one_minus_beta2 * g * g;
            let denominator = v.sqrt() / c.bias2_sqrt + c.eps;
            *p += c.minus_step_size * *m / denominator;
        }
    }
}

/// LAMB's step before its length is known.
#[inline(always)]
fn lamb_direction(p: f32, m: f32, v: f32, c: Constants, decay: f32) -> f32 {
    (m / c.bias1) / (v.sqrt() / c.bias2_sqrt + c.eps) + decay * p
}

vectorised! {
    /// Moves the moments; gives the sum of the step's squares.
    fn lamb_moments_chunk<'a>(
        p: &'a mut [f32], g: &'a [f32], m: &'a mut [f32], v: &'a mut [f32], c: Constants, decay: f32,
    ) -> f32 {
        for ((&g, m), v) in g.iter().zip(m.iter_mut()).zip(v.iter_mut()) {
            let g = g * c.scale;
            *m += c.one_minus_beta1 * (g - *m);
            *v = *v * c.beta2 + c.one_minus_beta2 * g * g;
        }
        // In short runs, so that the sum of single precision stays exact enough.
        let mut total = 0.0;
        for ((p, m), v) in p.chunks(64).zip(m.chunks(64)).zip(v.chunks(64)) {
            let mut steps = [0.0; 64];
            for (((step, &p), &m), &v) in steps.iter_mut().zip(p).zip(m).zip(v) {
                *step = lamb_direction(p, m, v, c, decay);
            }
            total += sum(&steps, |x| x * x);
        }
        total
    }
}

vectorised! {
    fn lamb_step_chunk<'a>(
        p: &'a mut [f32], m: &'a [f32], v: &'a [f32], c: Constants, decay: f32, minus_lr: f32,
    ) {
        for ((p, &m), &v) in p.iter_mut().zip(m).zip(v) {
            *p += minus_lr * lamb_direction(*p, m, v, c, decay);
        }
    }
}

vectorised! {
    fn mini_chunk<'a>(p: &'a mut [f32], g: &'a [f32], m: &'a mut [f32], denominator: f32, c: Constants) {
        for ((p, &g), m) in p.iter_mut().zip(g).zip(m) {
            let g = g * c.scale;
            *p *= c.keep;
            *m += c.one_minus_beta1 * (g - *m);
            *p += c.minus_step_size * *m / denominator;
        }
    }
}
