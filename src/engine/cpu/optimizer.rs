//! Updates of weights in place, one pass over memory each.
//!
//! Rounding follows PyTorch's f32 `_single_tensor` implementations: constants are formed in f64 and rounded once.

use rayon::prelude::*;

use super::simd::{CHUNK, vectorised};

/// Adam with decoupled weight decay.
///
/// Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2; PyTorch's `adamw.py`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    /// How many updates these parameters have had, this one included.
    pub step: u64,
}

/// What [`AdamW`] comes to for one step, in f32.
#[derive(Clone, Copy)]
struct Constants {
    grad_scale: f32,
    keep: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    bias2_sqrt: f32,
    eps: f32,
    minus_step_size: f32,
}

impl AdamW {
    /// Moves `p` against `grad_scale * g`, with moments `m` and `v`.
    pub fn update(&self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], grad_scale: f32) {
        let n = p.len();
        assert!(g.len() == n && m.len() == n && v.len() == n, "AdamW: operands of different lengths");
        assert!(self.step > 0, "AdamW: steps count from 1");
        let constants = Constants {
            grad_scale,
            keep: (1.0 - self.lr * self.weight_decay) as f32,
            one_minus_beta1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            one_minus_beta2: (1.0 - self.beta2) as f32,
            bias2_sqrt: (1.0 - self.beta2.powf(self.step as f64)).sqrt() as f32,
            eps: self.eps as f32,
            minus_step_size: -(self.lr / (1.0 - self.beta1.powf(self.step as f64))) as f32,
        };
        p.par_chunks_mut(CHUNK)
            .zip(g.par_chunks(CHUNK))
            .zip(m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK)))
            .for_each(|((p, g), (m, v))| adamw_chunk(p, g, m, v, constants));
    }
}

vectorised! {
    fn adamw_chunk<'a>(p: &'a mut [f32], g: &'a [f32], m: &'a mut [f32], v: &'a mut [f32], c: Constants) {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = g * c.grad_scale;
            *p *= c.keep;
            *m += c.one_minus_beta1 * (g - *m);
            *v = *v * c.beta2 + c.one_minus_beta2 * g * g;
            let denominator = v.sqrt() / c.bias2_sqrt + c.eps;
            *p += c.minus_step_size * *m / denominator;
        }
    }
}

/// `p -= lr * (grad_scale * g + weight_decay * p)`.
pub fn sgd(p: &mut [f32], g: &[f32], lr: f64, weight_decay: f64, grad_scale: f32) {
    assert_eq!(p.len(), g.len(), "sgd: operands of different lengths");
    let (lr, weight_decay) = (lr as f32, weight_decay as f32);
    p.par_chunks_mut(CHUNK)
        .zip(g.par_chunks(CHUNK))
        .for_each(|(p, g)| sgd_chunk(p, g, lr, weight_decay, grad_scale));
}

vectorised! {
    fn sgd_chunk<'a>(p: &'a mut [f32], g: &'a [f32], lr: f32, weight_decay: f32, grad_scale: f32) {
        for (p, &g) in p.iter_mut().zip(g) {
            let g = g * grad_scale + weight_decay * *p;
            *p -= lr * g;
        }
    }
}

/// With momentum: `g' = grad_scale * g + weight_decay * p`, `buf = g'` at first and `momentum * buf + g'` later,
/// `p -= lr * buf`.
pub fn sgdm(
    p: &mut [f32],
    g: &[f32],
    buf: &mut [f32],
    lr: f64,
    momentum: f64,
    weight_decay: f64,
    grad_scale: f32,
    first: bool,
) {
    assert!(g.len() == p.len() && buf.len() == p.len(), "sgdm: operands of different lengths");
    let (lr, momentum, weight_decay) = (lr as f32, momentum as f32, weight_decay as f32);
    p.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK).zip(buf.par_chunks_mut(CHUNK))).for_each(
        |(p, (g, buf))| match first {
            true => sgdm_first_chunk(p, g, buf, lr, weight_decay, grad_scale),
            false => sgdm_chunk(p, g, buf, lr, momentum, weight_decay, grad_scale),
        },
    );
}

vectorised! {
    fn sgdm_first_chunk<'a>(
        p: &'a mut [f32], g: &'a [f32], buf: &'a mut [f32], lr: f32, weight_decay: f32, grad_scale: f32,
    ) {
        for ((p, &g), buf) in p.iter_mut().zip(g).zip(buf) {
            *buf = g * grad_scale + weight_decay * *p;
            *p -= lr * *buf;
        }
    }
}

vectorised! {
    fn sgdm_chunk<'a>(
        p: &'a mut [f32], g: &'a [f32], buf: &'a mut [f32], lr: f32, momentum: f32, weight_decay: f32, grad_scale: f32,
    ) {
        for ((p, &g), buf) in p.iter_mut().zip(g).zip(buf) {
            *buf = momentum * *buf + (g * grad_scale + weight_decay * *p);
            *p -= lr * *buf;
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_nn::Optimizer;

    use super::super::oracle::{assert_close, numbers, random, same_for_any_threads, var};
    use super::*;

    const N: usize = 1000;

    /// A gradient that candle forms too: of `sum(p * c)`.
    fn gradient(step: usize) -> Vec<f32> {
        random(N, 10 + step as u64)
    }

    #[test]
    fn adamw_agrees_with_candle() {
        let p = random(N, 1);
        let p_var = var(&p, &[N]);
        let params =
            candle_nn::ParamsAdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
        let mut oracle = candle_nn::AdamW::new(vec![p_var.clone()], params).unwrap();
        let run = || {
            let (mut p, mut m, mut v) = (p.clone(), vec![0.0; N], vec![0.0; N]);
            for step in 1..=5 {
                let adamw = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step };
                // The gradient arrives doubled and is halved on the fly.
                let g: Vec<f32> = gradient(step as usize).iter().map(|g| 2.0 * g).collect();
                adamw.update(&mut p, &g, &mut m, &mut v, 0.5);
            }
            p
        };
        for step in 1..=5 {
            let c = var(&gradient(step), &[N]);
            oracle.backward_step(&p_var.mul(&c).unwrap().sum_all().unwrap()).unwrap();
        }
        assert_close(&same_for_any_threads(run), &numbers(&p_var), 1e-6);
    }

    #[test]
    fn adamw_first_step_by_hand() {
        // At step 1 the corrected moments are g and g * g: p * (1 - 0.1 * 0.5) - 0.1 * g / (|g| + eps).
        let adamw = AdamW { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.5, step: 1 };
        let (mut p, mut m, mut v) = ([1.0, -2.0], [0.0; 2], [0.0; 2]);
        adamw.update(&mut p, &[4.0, -0.25], &mut m, &mut v, 1.0);
        assert_close(&p, &[0.95 - 0.1, -1.9 + 0.1], 1e-6);
        assert_close(&m, &[0.4, -0.025], 1e-6);
        assert_close(&v, &[0.016, 0.000_062_5], 1e-6);
    }

    #[test]
    fn sgd_by_hand() {
        let mut p = [1.0, -2.0];
        sgd(&mut p, &[4.0, 8.0], 0.1, 0.5, 0.25);
        assert_close(&p, &[1.0 - 0.1 * 1.5, -2.0 - 0.1 * 1.0], 1e-6);
    }

    #[test]
    fn momentum_by_hand() {
        let (mut p, mut buf) = ([1.0], [f32::NAN]);
        sgdm(&mut p, &[4.0], &mut buf, 0.1, 0.9, 0.5, 0.25, true);
        assert_close(&buf, &[1.5], 1e-6);
        assert_close(&p, &[0.85], 1e-6);
        sgdm(&mut p, &[4.0], &mut buf, 0.1, 0.9, 0.5, 0.25, false);
        assert_close(&buf, &[0.9 * 1.5 + 1.0 + 0.5 * 0.85], 1e-6);
        assert_close(&p, &[0.85 - 0.1 * (1.35 + 1.425)], 1e-6);
    }
}
