//! Gradient descent, plain, with momentum, and by the sign of it.

use super::super::reduce::sum_of_squares;
use super::super::simd::vectorised;
use super::chunks;

/// `p -= lr * (scale * g + weight_decay * p)`.
pub fn sgd(p: &mut [f32], g: &[f32], lr: f64, weight_decay: f64, scale: f32) {
    let (lr, weight_decay) = (lr as f32, weight_decay as f32);
    chunks(p, g, [], &|p, g, []| {
        sgd_chunk(p, g, lr, weight_decay, scale);
        0.0
    });
}

vectorised! {
    fn sgd_chunk<'a>(p: &'a mut [f32], g: &'a [f32], lr: f32, weight_decay: f32, scale: f32) {
        for (p, &g) in p.iter_mut().zip(g) {
            let g = g * scale + weight_decay * *p;
            *p -= lr * g;
        }
    }
}

/// `g' = scale * g + weight_decay * p`, `buf = momentum * buf + g'`, `p -= lr * buf`, or with `nesterov`
/// `p -= lr * (g' + momentum * buf)`.
///
/// Source: PyTorch's `sgd.py`, without dampening; Sutskever et al. 2013 for Nesterov's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgdm {
    pub lr: f64,
    pub momentum: f64,
    pub weight_decay: f64,
    pub nesterov: bool,
}

#[derive(Clone, Copy)]
struct Constants {
    scale: f32,
    weight_decay: f32,
    /// What the whole gradient is multiplied by, weight decay included.
    trust: f32,
    momentum: f32,
    nesterov: bool,
    lr: f32,
}

impl Sgdm {
    pub fn update(&self, p: &mut [f32], g: &[f32], buf: &mut [f32], scale: f32) {
        self.trusted(p, g, buf, scale, 1.0);
    }

    /// LARS: the gradient is first made `trust |p| / (|g| + weight_decay |p|)` times as long; where a norm is zero, it
    /// is left as it is.
    ///
    /// Source: You et al. 2017, "Large Batch Training of Convolutional Networks", algorithm 1.
    pub fn lars(&self, p: &mut [f32], g: &[f32], buf: &mut [f32], scale: f32, trust: f64) {
        let weights = sum_of_squares(p).sqrt();
        let gradient = sum_of_squares(g).sqrt() * f64::from(scale);
        let trust = match weights > 0.0 && gradient > 0.0 {
            true => trust * weights / (gradient + self.weight_decay * weights),
            false => 1.0,
        };
        self.trusted(p, g, buf, scale, trust);
    }

    fn trusted(&self, p: &mut [f32], g: &[f32], buf: &mut [f32], scale: f32, trust: f64) {
        let c = Constants {
            scale,
            weight_decay: self.weight_decay as f32,
            trust: trust as f32,
            momentum: self.momentum as f32,
            nesterov: self.nesterov,
            lr: self.lr as f32,
        };
        chunks(p, g, [buf], &|p, g, [buf]| {
            sgdm_chunk(p, g, buf, c);
            0.0
        });
    }
}

vectorised! {
    fn sgdm_chunk<'a>(p: &'a mut [f32], g: &'a [f32], buf: &'a mut [f32], c: Constants) {
        for ((p, &g), buf) in p.iter_mut().zip(g).zip(buf) {
            let g = (g * c.scale + c.weight_decay * *p) * c.trust;
            *buf = c.momentum * *buf + g;
            *p -= c.lr * if c.nesterov { g + c.momentum * *buf } else { *buf };
        }
    }
}

/// `p = keep p - lr sign(beta1 m + (1 - beta1) g)`, then `m = beta2 m + (1 - beta2) g`.
///
/// Source: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lion {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub weight_decay: f64,
}

/// What [`Lion`] comes to for one step, in f32.
#[derive(Clone, Copy)]
pub(super) struct LionConstants {
    pub scale: f32,
    pub keep: f32,
    pub beta1: f32,
    pub one_minus_beta1: f32,
    pub beta2: f32,
    pub one_minus_beta2: f32,
    pub lr: f32,
}

impl Lion {
    pub(super) fn constants(&self, scale: f32) -> LionConstants {
        LionConstants {
            scale,
            keep: (1.0 - self.lr * self.weight_decay) as f32,
            beta1: self.beta1 as f32,
            one_minus_beta1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            one_minus_beta2: (1.0 - self.beta2) as f32,
            lr: self.lr as f32,
        }
    }

    pub fn update(&self, p: &mut [f32], g: &[f32], m: &mut [f32], scale: f32) {
        let c = self.constants(scale);
        chunks(p, g, [m], &|p, g, [m]| {
            lion_chunk(p, g, m, c);
            0.0
        });
    }
}

/// One weight and its moment, in place.
#[inline(always)]
pub(super) fn lion_one(p: &mut f32, g: f32, m: &mut f32, c: LionConstants) {
    let g = g * c.scale;
    let direction = c.beta1 * *m + c.one_minus_beta1 * g;
    // Zero has no sign; NaN goes through.
    let sign = if direction == 0.0 { 0.0 } else { direction.signum() };
    *p = *p * c.keep - c.lr * sign;
    *m = c.beta2 * *m + c.one_minus_beta2 * g;
}

vectorised! {
    fn lion_chunk<'a>(p: &'a mut [f32], g: &'a [f32], m: &'a mut [f32], c: LionConstants) {
        for ((p, &g), m) in p.iter_mut().zip(g).zip(m) {
            lion_one(p, g, m, c);
        }
    }
}
