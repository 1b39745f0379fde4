//! Which kernels change a weight: the twin of [`crate::engine::update`] on a device.

use candle_core::{Result, Tensor};

use crate::lang::pipeline::{Algorithm, Setting};
use crate::program::workspace::{GPU_BLOCKS as BLOCKS, GPU_UPDATE as SCRATCH, gpu_blocks as blocks};

use super::machine::Arg;
use super::player::{Desk, count, flag, word};

/// What an update is told beside its tensors.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    pub algorithm: &'a Algorithm,
    pub rate: f64,
    pub weight_decay: f64,
    /// How many updates this parameter has had, this one included.
    pub count: u64,
    /// Where what the gradient is multiplied by lies, if it is not 1.
    pub clip: Arg,
}

const NONE: Arg = Arg::Pointer(0);

/// What an update may use beside its operands: the parts of two sums, the sums, the means of a factored moment's rows.
struct Scratch(u64);

impl Scratch {
    /// The parts of the first sum, or of the second.
    fn parts(&self, n: u64) -> Arg {
        Arg::Pointer(self.0 + n * 8 * BLOCKS as u64)
    }

    /// Where the first sum lies, or the second.
    fn sum(&self, n: u64) -> u64 {
        self.0 + 2 * 8 * BLOCKS as u64 + 4 * n
    }

    /// Both sums.
    fn sums(&self) -> Arg {
        Arg::Pointer(self.sum(0))
    }

    /// At most 64 means.
    fn means(&self) -> Arg {
        Arg::Pointer(self.sum(64))
    }
}

/// The constants of Adam's kin, formed as on the CPU.
struct Adam {
    bias1: f64,
    bias2_sqrt: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
}

impl Adam {
    fn new(betas: &Setting<[f64; 2]>, eps: &Setting<f64>, count: u64) -> Self {
        let [beta1, beta2] = **betas;
        Self {
            bias1: 1.0 - beta1.powf(count as f64),
            bias2_sqrt: (1.0 - beta2.powf(count as f64)).sqrt(),
            beta1,
            beta2,
            eps: **eps,
        }
    }
}

fn float(x: f64) -> Arg {
    Arg::F32(x as f32)
}

/// Changes a weight of `shape` at `p` and its states in place; `low`: the half numbers that follow it, if there are any.
pub(super) fn update(
    desk: &Desk<'_>,
    step: &Step<'_>,
    shape: &[usize],
    [p, low]: [Arg; 2],
    g: Arg,
    states: &[Tensor],
) -> Result<()> {
    let Step { algorithm, rate: lr, count: t, clip, .. } = *step;
    let n: usize = shape.iter().product();
    let room = desk.floats(SCRATCH / 4)?;
    let scratch = Scratch(desk.machine.address(&room)?);
    // Norms and biases do not decay.
    let decay = if shape.len() >= 2 { step.weight_decay } else { 0.0 };
    let state: Vec<Arg> = states.iter().map(|state| desk.at(state)).collect::<Result<_>>()?;
    let adam = |betas: &Setting<[f64; 2]>, eps: &Setting<f64>, decoupled: bool| {
        let Adam { bias1, bias2_sqrt, beta1, beta2, eps } = Adam::new(betas, eps, t);
        let keep = if decoupled { 1.0 - lr * decay } else { 1.0 };
        let l2 = if decoupled { 0.0 } else { decay };
        [keep, l2, 1.0 - beta1, beta2, 1.0 - beta2, bias2_sqrt, eps, -(lr / bias1)].map(float)
    };
    let plain_adam = |constants: [Arg; 8]| {
        let args = [&[p, low, g, state[0], state[1], clip][..], &constants, &[count(n)]].concat();
        desk.each("adam", n, &args)
    };
    let lion = |betas: &Setting<[f64; 2]>| {
        let [beta1, beta2] = **betas;
        [1.0 - lr * decay, beta1, 1.0 - beta1, beta2, 1.0 - beta2, lr].map(float)
    };
    let plain_lion = |constants: [Arg; 6]| {
        let args = [&[p, low, g, state[0], clip][..], &constants, &[count(n)]].concat();
        desk.each("lion", n, &args)
    };
    match algorithm {
        Algorithm::Adamw { betas, eps } => plain_adam(adam(betas, eps, true)),
        Algorithm::Adam { betas, eps } => plain_adam(adam(betas, eps, false)),
        Algorithm::Lamb { betas, eps } => {
            let Adam { bias1, bias2_sqrt, beta1, beta2, eps } = Adam::new(betas, eps, t);
            let tail = [bias1, bias2_sqrt, eps, decay].map(float);
            let [weights, steps] = [scratch.parts(0), scratch.parts(1)];
            let constants = [1.0 - beta1, beta2, 1.0 - beta2].map(float);
            let head = [weights, steps, p, g, state[0], state[1], clip];
            desk.each("lamb_moments", n, &[&head[..], &constants, &tail, &[count(n)]].concat())?;
            desk.sum_parts(scratch.sum(0), false, weights, blocks(n))?;
            desk.sum_parts(scratch.sum(1), false, steps, blocks(n))?;
            let head = [p, low, state[0], state[1], scratch.sums(), clip, float(lr)];
            desk.each("lamb_step", n, &[&head[..], &tail, &[count(n)]].concat())
        }
        Algorithm::AdamMini { betas, eps } => {
            let parts = states[1].elem_count();
            let [keep, _, rest @ ..] = adam(betas, eps, true);
            let head = [p, low, g, state[0], state[1], clip, keep];
            desk.blocks("adam_mini", parts, 256, &[&head[..], &rest, &[count(n / parts)]].concat())
        }
        Algorithm::Sgd => desk.each("sgd", n, &[p, low, g, clip, float(lr), float(decay), count(n)]),
        Algorithm::Sgdm { momentum, nesterov } => {
            let constants = [float(lr), float(**momentum), float(decay), flag(**nesterov), float(1.0)];
            let head = [p, low, g, state[0], NONE, clip];
            desk.each("sgdm", n, &[&head[..], &constants, &[count(n)]].concat())
        }
        Algorithm::Lars { momentum, nesterov, trust } => {
            // Norms and biases are not measured, as they do not decay.
            let sums = if shape.len() < 2 { NONE } else { scratch.sums() };
            if shape.len() >= 2 {
                desk.sum_of_squares(scratch.sum(0), false, p, n, scratch.parts(0))?;
                desk.sum_of_squares(scratch.sum(1), false, g, n, scratch.parts(0))?;
            }
            let constants = [float(lr), float(**momentum), float(decay), flag(**nesterov), float(**trust)];
            let head = [p, low, g, state[0], sums, clip];
            desk.each("sgdm", n, &[&head[..], &constants, &[count(n)]].concat())
        }
        Algorithm::Adagrad { eps } => {
            let constants = [lr, **eps, decay].map(float);
            let head = [p, low, g, state[0], clip];
            desk.each("adagrad", n, &[&head[..], &constants, &[count(n)]].concat())
        }
        Algorithm::Rmsprop { alpha, eps, momentum, centered } => {
            let mut rest = state[1..].iter().copied();
            let mean = if **centered { rest.next() } else { None };
            let buffer = if **momentum > 0.0 { rest.next() } else { None };
            let constants = [lr, **alpha, 1.0 - **alpha, **eps, **momentum, decay].map(float);
            let head = [p, low, g, state[0], mean.unwrap_or(NONE), buffer.unwrap_or(NONE), clip];
            desk.each("rmsprop", n, &[&head[..], &constants, &[count(n)]].concat())
        }
        Algorithm::Adafactor { eps, decay_rate, clip_threshold, beta1, scale_parameter } => {
            let adafactor = Adafactor {
                p,
                low,
                g,
                clip,
                n,
                constants: {
                    let beta = 1.0 - (t as f64).powf(-**decay_rate);
                    [**eps, beta, 1.0 - beta].map(float)
                },
                lr,
                clip_threshold: **clip_threshold,
                decay,
                beta1: beta1.unwrap_or(0.0),
                smallest: if **scale_parameter { 1e-3 } else { 0.0 },
            };
            adafactor.update(desk, &scratch, shape, &state, beta1.is_some())
        }
        Algorithm::Lion { betas } => plain_lion(lion(betas)),
        Algorithm::Adamw8bit { betas, eps } | Algorithm::Adam8bit { betas, eps } => {
            let constants = adam(betas, eps, matches!(algorithm, Algorithm::Adamw8bit { .. }));
            if state.len() == 2 {
                // A small tensor.
                return plain_adam(constants);
            }
            let head = [p, low, g, state[0], state[1], state[2], state[3], clip];
            let blocks = n.div_ceil(crate::plan::optimizer::BLOCK);
            desk.blocks("adam_8bit", blocks, 256, &[&head[..], &constants, &[count(n)]].concat())
        }
        Algorithm::Lion8bit { betas } => {
            if state.len() == 1 {
                return plain_lion(lion(betas));
            }
            let head = [p, low, g, state[0], state[1], clip];
            let blocks = n.div_ceil(crate::plan::optimizer::BLOCK);
            desk.blocks("lion_8bit", blocks, 256, &[&head[..], &lion(betas), &[count(n)]].concat())
        }
    }
}

struct Adafactor {
    p: Arg,
    low: Arg,
    g: Arg,
    clip: Arg,
    n: usize,
    constants: [Arg; 3],
    lr: f64,
    clip_threshold: f64,
    decay: f64,
    beta1: f64,
    smallest: f64,
}

impl Adafactor {
    fn update(
        &self,
        desk: &Desk<'_>,
        scratch: &Scratch,
        shape: &[usize],
        state: &[Arg],
        averaged: bool,
    ) -> Result<()> {
        let Self { p, low, g, clip, n, constants, .. } = *self;
        let (rows, columns, n_rows, n_columns, m);
        let means_at = match *shape {
            [.., r, c] => {
                (rows, columns, n_rows, n_columns) = (state[0], state[1], r, c);
                m = if averaged { state[2] } else { NONE };
                let outer = n / (r * c);
                let args = [&[rows, g, clip][..], &constants, &[word(c)]].concat();
                desk.blocks("adafactor_rows", outer * r, 256, &args)?;
                let args = [&[columns, g, clip][..], &constants, &[word(r), word(c)]].concat();
                let grid = [c.div_ceil(32) as u32, outer as u32, 1];
                desk.grid("adafactor_columns", grid, [32, 16, 1], 0, &args)?;
                assert!(outer <= 64, "adafactor: matrices of more than 64 sheets");
                let at = scratch.means();
                desk.blocks("adafactor_mean", outer, 256, &[at, rows, word(r)])?;
                at
            }
            _ => {
                (rows, columns, n_rows, n_columns) = (NONE, state[0], 1, n);
                m = if averaged { state[1] } else { NONE };
                desk.each(
                    "adafactor_vector",
                    n,
                    &[&[columns, g, clip][..], &constants, &[count(n)]].concat(),
                )?;
                NONE
            }
        };
        let parts = scratch.parts(0);
        let sizes = [word(n_rows), word(n_columns), count(n)];
        let args = [&[parts, g, rows, columns, means_at, clip][..], &sizes].concat();
        desk.each("adafactor_squares", n, &args)?;
        desk.sum_parts(scratch.sum(0), false, parts, blocks(n))?;
        if self.smallest > 0.0 {
            desk.sum_of_squares(scratch.sum(1), false, p, n, parts)?;
        }
        let numbers = [self.lr, self.smallest, self.clip_threshold, self.decay, self.beta1, 1.0 - self.beta1];
        let head = [p, low, g, m, rows, columns, means_at, scratch.sums(), clip];
        desk.each("adafactor_step", n, &[&head[..], &numbers.map(float), &sizes].concat())
    }
}
