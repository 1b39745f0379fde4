//! Which kernel changes a weight: the other half of [`crate::plan::optimizer`], which says what each algorithm keeps.

use candle_core::{Result, Tensor};
use half::bf16;

use crate::lang::pipeline::{Algorithm, Setting};
use crate::plan::optimizer::BLOCK;

use super::access::{Slot, edit, edit_all, floats, numbers};
use super::cpu::optimizer::adafactor::{Adafactor, Square};
use super::cpu::optimizer::adam::Adam;
use super::cpu::optimizer::eight_bit::{self, Moment};
use super::cpu::optimizer::momentum::{Lion, Sgdm, sgd};
use super::cpu::optimizer::scaled::{Rmsprop, adagrad};
use super::cpu::reduce;

const _: () = assert!(BLOCK == eight_bit::BLOCK, "the plan and the kernels cut 8-bit states alike");

/// What an update is told beside its tensors.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    pub algorithm: &'a Algorithm,
    pub rate: f64,
    pub weight_decay: f64,
    /// How many updates this parameter has had, this one included.
    pub count: u64,
    /// What the gradient is multiplied by: the clip factor.
    pub scale: f32,
}

/// Changes a weight and its states in place.
pub fn update(step: &Step<'_>, weight: &Tensor, gradient: &Tensor, states: &[Tensor]) -> Result<()> {
    let g = floats(gradient);
    let shape = weight.dims();
    let mut change = Ok(());
    edit(weight, |p| change = edit_all(states, |slots| apply(step, shape, p, &g, slots)))?;
    change
}

/// Changes a half weight that has no master, and its states in place: in `wide`, which holds it in 32 bits meanwhile.
/// `noise` says which way each number is rounded.
pub fn update_half(
    step: &Step<'_>,
    weight: &Tensor,
    wide: &mut [f32],
    gradient: &Tensor,
    states: &[Tensor],
    noise: u64,
) -> Result<()> {
    reduce::cast(wide, &numbers::<bf16>(weight));
    let g = floats(gradient);
    edit_all(states, |slots| apply(step, weight.dims(), wide, &g, slots))?;
    edit(weight, |weight: &mut [bf16]| reduce::round_at_random(weight, wide, noise))
}

fn apply(step: &Step<'_>, shape: &[usize], p: &mut [f32], g: &[f32], slots: Vec<Slot<'_>>) {
    let Step { algorithm, rate: lr, count, scale, .. } = *step;
    // Norms and biases do not decay.
    let weight_decay = if shape.len() >= 2 { step.weight_decay } else { 0.0 };
    let adam = |betas: &Setting<[f64; 2]>, eps: &Setting<f64>, decoupled: bool| Adam {
        lr,
        beta1: betas[0],
        beta2: betas[1],
        eps: **eps,
        decay: if decoupled { weight_decay } else { 0.0 },
        l2: if decoupled { 0.0 } else { weight_decay },
        step: count,
    };
    let lion = |betas: &Setting<[f64; 2]>| Lion { lr, beta1: betas[0], beta2: betas[1], weight_decay };
    let mut slots = slots.into_iter();
    let mut slot = || slots.next().expect("the plan gives an algorithm the states that it takes");
    match algorithm {
        Algorithm::Adamw { betas, eps } => {
            adam(betas, eps, true).update(p, g, slot().floats(), slot().floats(), scale)
        }
        Algorithm::Adam { betas, eps } => {
            adam(betas, eps, false).update(p, g, slot().floats(), slot().floats(), scale)
        }
        Algorithm::Lamb { betas, eps } => {
            adam(betas, eps, true).lamb(p, g, slot().floats(), slot().floats(), scale)
        }
        Algorithm::AdamMini { betas, eps } => {
            adam(betas, eps, true).mini(p, g, slot().floats(), slot().floats(), scale)
        }
        Algorithm::Sgd => sgd(p, g, lr, weight_decay, scale),
        Algorithm::Sgdm { momentum, nesterov } => {
            let sgdm = Sgdm { lr, momentum: **momentum, weight_decay, nesterov: **nesterov };
            sgdm.update(p, g, slot().floats(), scale)
        }
        Algorithm::Lars { momentum, nesterov, trust } => {
            let sgdm = Sgdm { lr, momentum: **momentum, weight_decay, nesterov: **nesterov };
            match shape.len() {
                // Norms and biases are not measured, as they do not decay.
                0 | 1 => sgdm.update(p, g, slot().floats(), scale),
                _ => sgdm.lars(p, g, slot().floats(), scale, **trust),
            }
        }
        Algorithm::Adagrad { eps } => adagrad(p, g, slot().floats(), lr, **eps, weight_decay, scale),
        Algorithm::Rmsprop { alpha, eps, momentum, centered } => {
            let rmsprop = Rmsprop { lr, alpha: **alpha, eps: **eps, momentum: **momentum, weight_decay };
            let square = slot().floats();
            let mean = if **centered { slot().floats() } else { &mut [] };
            let buffer = if **momentum > 0.0 { slot().floats() } else { &mut [] };
            rmsprop.update(p, g, square, mean, buffer, scale)
        }
        Algorithm::Adafactor { eps, decay_rate, clip_threshold, beta1, scale_parameter } => {
            let adafactor = Adafactor {
                lr,
                eps: **eps,
                decay_rate: **decay_rate,
                clip_threshold: **clip_threshold,
                beta1: beta1.unwrap_or(0.0),
                scale_parameter: **scale_parameter,
                weight_decay,
                step: count,
            };
            let square = match *shape {
                [.., n_rows, n_columns] => {
                    Square::Factored { rows: slot().floats(), columns: slot().floats(), n_rows, n_columns }
                }
                _ => Square::Full(slot().floats()),
            };
            let m = if beta1.is_some() { slot().floats() } else { &mut [] };
            adafactor.update(p, g, square, m, scale)
        }
        Algorithm::Lion { betas } => lion(betas).update(p, g, slot().floats(), scale),
        Algorithm::Adamw8bit { betas, eps } | Algorithm::Adam8bit { betas, eps } => {
            let adam = adam(betas, eps, matches!(algorithm, Algorithm::Adamw8bit { .. }));
            match slot() {
                // A small tensor.
                Slot::Floats(m) => adam.update(p, g, m, slot().floats(), scale),
                Slot::Codes(codes) => {
                    let m = Moment { codes, scales: slot().floats() };
                    let v = Moment { codes: slot().codes(), scales: slot().floats() };
                    eight_bit::adam(&adam, p, g, m, v, scale)
                }
            }
        }
        Algorithm::Lion8bit { betas } => match slot() {
            Slot::Floats(m) => lion(betas).update(p, g, m, scale),
            Slot::Codes(codes) => {
                eight_bit::lion(&lion(betas), p, g, Moment { codes, scales: slot().floats() }, scale)
            }
        },
    }
}
