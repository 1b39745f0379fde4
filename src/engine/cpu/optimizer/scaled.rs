//! Gradients divided by what they were before.

use super::super::simd::vectorised;
use super::chunks;

/// `g' = scale * g + weight_decay * p`, `sum += g'^2`, `p -= lr g' / (sqrt(sum) + eps)`.
///
/// Source: Duchi et al. 2011, "Adaptive Subgradient Methods"; PyTorch's `adagrad.py` without decay of the rate.
pub fn adagrad(p: &mut [f32], g: &[f32], sum: &mut [f32], lr: f64, eps: f64, weight_decay: f64, scale: f32) {
    let (lr, eps, weight_decay) = (lr as f32, eps as f32, weight_decay as f32);
    chunks(p, g, [sum], &|p, g, [sum]| {
        adagrad_chunk(p, g, sum, lr, eps, weight_decay, scale);
        0.0
    });
}

vectorised! {
    fn adagrad_chunk<'a>(
        p: &'a mut [f32], g: &'a [f32], sum: &'a mut [f32], lr: f32, eps: f32, weight_decay: f32, scale: f32,
    ) {
        for ((p, &g), sum) in p.iter_mut().zip(g).zip(sum) {
            let g = g * scale + weight_decay * *p;
            *sum += g * g;
            *p -= lr * g / (sum.sqrt() + eps);
        }
    }
}

/// `g' = scale * g + weight_decay * p`, `square` its average square, the step `g' / (sqrt(square) + eps)`. With
/// `mean`, its average, the variance takes the place of the square; with `buf`, `buf = momentum * buf + step` takes the
/// place of the step.
///
/// Source: Tieleman and Hinton 2012, lecture 6.5; Graves 2013 for the centred form; PyTorch's `rmsprop.py`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rmsprop {
    pub lr: f64,
    pub alpha: f64,
    pub eps: f64,
    pub momentum: f64,
    pub weight_decay: f64,
}

#[derive(Clone, Copy)]
struct Constants {
    scale: f32,
    weight_decay: f32,
    alpha: f32,
    one_minus_alpha: f32,
    eps: f32,
    momentum: f32,
    lr: f32,
}

impl Rmsprop {
    /// `mean` and `buf` may be empty.
    pub fn update(
        &self,
        p: &mut [f32],
        g: &[f32],
        square: &mut [f32],
        mean: &mut [f32],
        buf: &mut [f32],
        scale: f32,
    ) {
        let c = Constants {
            scale,
            weight_decay: self.weight_decay as f32,
            alpha: self.alpha as f32,
            one_minus_alpha: (1.0 - self.alpha) as f32,
            eps: self.eps as f32,
            momentum: self.momentum as f32,
            lr: self.lr as f32,
        };
        chunks(p, g, [square, mean, buf], &|p, g, [square, mean, buf]| {
            match (mean.is_empty(), buf.is_empty()) {
                (true, true) => rmsprop_chunk(p, g, square, c),
                _ => rmsprop_full_chunk(p, g, square, mean, buf, c),
            }
            0.0
        });
    }
}

vectorised! {
    fn rmsprop_chunk<'a>(p: &'a mut [f32], g: &'a [f32], square: &'a mut [f32], c: Constants) {
        for ((p, &g), square) in p.iter_mut().zip(g).zip(square) {
            let g = g * c.scale + c.weight_decay * *p;
            *square = *square * c.alpha + c.one_minus_alpha * g * g;
            *p -= c.lr * g / (square.sqrt() + c.eps);
        }
    }
}

vectorised! {
    fn rmsprop_full_chunk<'a>(
        p: &'a mut [f32], g: &'a [f32], square: &'a mut [f32], mean: &'a mut [f32], buf: &'a mut [f32], c: Constants,
    ) {
        for (i, ((p, &g), square)) in p.iter_mut().zip(g).zip(square).enumerate() {
            let g = g * c.scale + c.weight_decay * *p;
            *square = *square * c.alpha + c.one_minus_alpha * g * g;
            let variance = match mean.get_mut(i) {
                Some(mean) => {
                    *mean += c.one_minus_alpha * (g - *mean);
                    // Never below zero but for rounding.
                    (*square - *mean * *mean).max(0.0)
                }
                None => *square,
            };
            let step = g / (variance.sqrt() + c.eps);
            let step = match buf.get_mut(i) {
                Some(buf) => {
                    *buf = c.momentum * *buf + step;
                    *buf
                }
                None => step,
            };
            *p -= c.lr * step;
        }
    }
}
