//! Updates of weights in place.
//!
//! Rounding follows PyTorch's f32 `_single_tensor` implementations: constants are formed in f64 and rounded once.
//! `scale` is what every gradient is multiplied by first (clipping). States are zero before the first update.
//!
//! Reading order: [`adam`] (AdamW, Adam, LAMB, Adam-mini), [`momentum`] (SGD, LARS, Lion), [`scaled`] (Adagrad,
//! RMSprop), [`adafactor`], [`eight_bit`] (block-wise 8-bit moments). What each keeps is in [`crate::plan::optimizer`].

pub mod adafactor;
pub mod adam;
pub mod eight_bit;
pub mod momentum;
pub mod scaled;

use super::reduce::half;
use super::simd::CHUNK;

/// Calls `change` for each chunk of weights, gradients and states, in parallel; a state may be empty. Gives the sum
/// of what the calls give; the tree of partial sums depends on the length alone.
fn chunks<const N: usize>(
    p: &mut [f32],
    g: &[f32],
    states: [&mut [f32]; N],
    change: &(impl Fn(&mut [f32], &[f32], [&mut [f32]; N]) -> f64 + Sync),
) -> f64 {
    let n = p.len();
    assert!(
        g.len() == n && states.iter().all(|state| state.is_empty() || state.len() == n),
        "an update of operands of different lengths"
    );
    if n <= CHUNK {
        return change(p, g, states);
    }
    let at = half(n, CHUNK);
    let ((p_low, p_high), (g_low, g_high)) = (p.split_at_mut(at), g.split_at(at));
    let mut high: [&mut [f32]; N] = std::array::from_fn(|_| Default::default());
    let mut slots = high.iter_mut();
    let low = states.map(|state| {
        let at = at.min(state.len());
        let (low, high) = state.split_at_mut(at);
        *slots.next().expect("as many as there are") = high;
        low
    });
    let (low, high) =
        rayon::join(|| chunks(p_low, g_low, low, change), || chunks(p_high, g_high, high, change));
    low + high
}

#[cfg(test)]
mod tests {
    use candle_nn::Optimizer;

    use super::super::oracle::{assert_close, numbers, random, same_for_any_threads, var};
    use super::adafactor::{Adafactor, Square};
    use super::adam::Adam;
    use super::eight_bit::{self, BLOCK, Moment};
    use super::momentum::{Lion, Sgdm, sgd};

    fn adam(step: u64) -> Adam {
        Adam { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, decay: 0.1, l2: 0.0, step }
    }

    #[test]
    fn adamw_agrees_with_candle() {
        const N: usize = 1000;
        // A gradient that candle forms too: of `sum(p * c)`.
        let gradient = |step: u64| random(N, 10 + step);
        let p = random(N, 1);
        let p_var = var(&p, &[N]);
        let params =
            candle_nn::ParamsAdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
        let mut oracle = candle_nn::AdamW::new(vec![p_var.clone()], params).unwrap();
        let (mut p, mut m, mut v) = (p, vec![0.0; N], vec![0.0; N]);
        for step in 1..=5 {
            // The gradient arrives doubled and is halved on the fly.
            let g: Vec<f32> = gradient(step).iter().map(|g| 2.0 * g).collect();
            adam(step).update(&mut p, &g, &mut m, &mut v, 0.5);
            let c = var(&gradient(step), &[N]);
            oracle.backward_step(&p_var.mul(&c).unwrap().sum_all().unwrap()).unwrap();
        }
        assert_close(&p, &numbers(&p_var), 1e-6);
    }

    #[test]
    fn adamw_first_step_by_hand() {
        // At step 1 the corrected moments are g and g * g: p * (1 - 0.1 * 0.5) - 0.1 * g / (|g| + eps).
        let adam = Adam { lr: 0.1, decay: 0.5, ..adam(1) };
        let (mut p, mut m, mut v) = ([1.0, -2.0], [0.0; 2], [0.0; 2]);
        adam.update(&mut p, &[4.0, -0.25], &mut m, &mut v, 1.0);
        assert_close(&p, &[0.95 - 0.1, -1.9 + 0.1], 1e-6);
        assert_close(&m, &[0.4, -0.025], 1e-6);
        assert_close(&v, &[0.016, 0.000_062_5], 1e-6);
    }

    #[test]
    fn momentum_by_hand() {
        let mut p = [1.0, -2.0];
        sgd(&mut p, &[4.0, 8.0], 0.1, 0.5, 0.25);
        assert_close(&p, &[1.0 - 0.1 * 1.5, -2.0 - 0.1 * 1.0], 1e-6);

        let sgdm = Sgdm { lr: 0.1, momentum: 0.9, weight_decay: 0.5, nesterov: false };
        let (mut p, mut buf) = ([1.0], [0.0]);
        sgdm.update(&mut p, &[4.0], &mut buf, 0.25);
        assert_close(&buf, &[1.5], 1e-6);
        assert_close(&p, &[0.85], 1e-6);
        sgdm.update(&mut p, &[4.0], &mut buf, 0.25);
        assert_close(&buf, &[0.9 * 1.5 + 1.0 + 0.5 * 0.85], 1e-6);
        assert_close(&p, &[0.85 - 0.1 * (1.35 + 1.425)], 1e-6);
    }

    #[test]
    fn a_lion_that_feels_nothing_only_forgets() {
        // No gradient and no memory: no sign, so only the decay moves the weight.
        let lion = Lion { lr: 0.1, beta1: 0.9, beta2: 0.99, weight_decay: 0.5 };
        let (mut p, mut m) = ([2.0, 2.0], [0.0, -1.0]);
        lion.update(&mut p, &[0.0, 0.0], &mut m, 1.0);
        assert_close(&p, &[1.9, 2.0], 1e-6);
        assert_close(&m, &[0.0, -0.99], 1e-6);
    }

    /// Updates of a tensor that is cut into several tasks: the same bits whatever the number of threads.
    #[test]
    fn the_number_of_threads_changes_nothing() {
        const ROWS: usize = 301;
        const N: usize = ROWS * 173;
        let (start, g) = (random(N, 1), random(N, 2));
        let moments = || (vec![0.0; N], vec![0.0; N]);
        let check = |change: &(dyn Fn(&mut [f32]) + Sync)| {
            same_for_any_threads(|| {
                let mut p = start.clone();
                change(&mut p);
                p
            });
        };
        check(&|p| {
            let (mut m, mut v) = moments();
            adam(1).update(p, &g, &mut m, &mut v, 1.0);
            adam(2).lamb(p, &g, &mut m, &mut v, 1.0);
        });
        check(&|p| adam(1).mini(p, &g, &mut moments().0, &mut [0.0; ROWS], 1.0));
        check(&|p| {
            let sgdm = Sgdm { lr: 0.1, momentum: 0.9, weight_decay: 0.5, nesterov: true };
            sgdm.lars(p, &g, &mut moments().0, 1.0, 0.01);
        });
        check(&|p| {
            let adafactor = Adafactor {
                lr: 0.1,
                eps: 1e-30,
                decay_rate: 0.8,
                clip_threshold: 1.0,
                beta1: 0.9,
                scale_parameter: true,
                weight_decay: 0.1,
                step: 2,
            };
            let (mut rows, mut columns) = (vec![0.5; ROWS], vec![0.5; N / ROWS]);
            let square = Square::Factored {
                rows: &mut rows,
                columns: &mut columns,
                n_rows: ROWS,
                n_columns: N / ROWS,
            };
            adafactor.update(p, &g, square, &mut moments().0, 1.0);
        });
        check(&|p| {
            let blocks = N.div_ceil(BLOCK);
            let mut codes = [vec![0; 4 * N.div_ceil(4)], vec![0; 4 * N.div_ceil(4)]];
            let mut scales = [vec![0.0; blocks], vec![0.0; blocks]];
            for step in 1..3 {
                let [m, v] = &mut codes;
                let [m_scales, v_scales] = &mut scales;
                let (m, v) = (Moment { codes: m, scales: m_scales }, Moment { codes: v, scales: v_scales });
                eight_bit::adam(&adam(step), p, &g, m, v, 1.0);
            }
        });
    }
}
