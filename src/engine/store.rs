//! The weights and optimizer states of a model, by parameter.

use std::path::Path;

use candle_core::{Result, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::lang::pipeline::{Algorithm, Weights};
use crate::model::{Init, Model, Param};
use crate::plan::optimizer;
use crate::problem::{Fault, Problem, Problems};
use crate::program::ParamId;
use crate::random::Random;
use crate::weights::{Directory, Entry, FileDtype};

use super::access::{fresh, zeros};

/// Weights by [`ParamId`], and the states of those that have some.
pub struct Store {
    pub weights: Vec<Tensor>,
    states: Vec<Vec<Tensor>>,
    /// How often each parameter was updated; Adam's bias correction counts these.
    updates: Vec<u64>,
    /// Keys and values that outlive a pass, while texts are continued.
    pub caches: Vec<Tensor>,
}

impl Store {
    pub fn new(weights: Vec<Tensor>) -> Self {
        let n = weights.len();
        Self { weights, states: vec![Vec::new(); n], updates: vec![0; n], caches: Vec::new() }
    }

    /// The n-th state of a parameter.
    pub(super) fn state(&self, param: ParamId, slot: usize) -> &Tensor {
        &self.states[param.0][slot]
    }

    /// Counts one more update and gives the count.
    pub(super) fn count_update(&mut self, param: ParamId) -> u64 {
        self.updates[param.0] += 1;
        self.updates[param.0]
    }

    pub fn states_of(&self, param: ParamId) -> &[Tensor] {
        &self.states[param.0]
    }

    pub fn updates_of(&self, param: ParamId) -> u64 {
        self.updates[param.0]
    }

    /// Puts back what a checkpoint kept.
    pub fn restore(&mut self, param: ParamId, states: Vec<Tensor>, updates: u64) {
        self.states[param.0] = states;
        self.updates[param.0] = updates;
    }

    /// Makes sure that each of `params` has its states; new ones are zero.
    pub fn make_states(&mut self, params: &[ParamId], algorithm: &Algorithm, model: &Model) -> Result<()> {
        for param in params {
            if self.states[param.0].is_empty() {
                let states = optimizer::states(algorithm, model, *param);
                self.states[param.0] =
                    states.iter().map(|state| zeros(&state.shape, state.dtype)).collect::<Result<_>>()?;
            }
        }
        Ok(())
    }

    /// Makes room for keys and values. What it holds is written before it is read.
    pub fn make_caches(&mut self, shapes: &[Vec<usize>]) -> Result<()> {
        self.caches.clear();
        self.caches = shapes.iter().map(|shape| fresh(shape, |_| {})).collect::<Result<_>>()?;
        Ok(())
    }

    /// Forgets the states of `params`, and how often they were updated.
    pub fn discard_states(&mut self, params: &[ParamId]) {
        for param in params {
            self.states[param.0] = Vec::new();
            self.updates[param.0] = 0;
        }
    }

    /// Forgets all states; the weights stay.
    pub fn into_weights(self) -> Vec<Tensor> {
        self.weights
    }
}

/// The seed of a head that a checkpoint does not have.
const HEAD_SEED: u64 = 0;

/// The weights that a pipeline asks for. What a checkpoint may leave out and does is drawn.
///
/// # Errors
/// When the directory has none, or they are not this model's.
pub fn load(model: &Model, weights: &Weights, folder: &Path) -> std::result::Result<Vec<Tensor>, Problems> {
    match weights {
        Weights::Random { seed, .. } => model
            .params
            .iter()
            .map(|param| draw(param, *seed))
            .collect::<Result<_>>()
            .map_err(|e| failed(&e).into()),
        Weights::Directory { path } => {
            let directory = Directory::require(&folder.join(path))?;
            let problems = directory.check(model);
            if problems.has_errors() {
                return Err(problems);
            }
            model
                .params
                .iter()
                .map(|param| match directory.of(param) {
                    Some((entry, bytes)) => read(param, entry, bytes),
                    None => draw(param, HEAD_SEED),
                })
                .collect::<Result<_>>()
                .map_err(|error| failed(&error).into())
        }
    }
}

/// A failure of the tensor library, as a problem of the run.
pub fn failed(error: &candle_core::Error) -> Problem {
    Problem::of(Fault::Failed, "hift::engine::failed", format!("an operation failed: {error}"))
}

/// One tensor, converted while it is copied out of the map.
fn read(param: &Param, entry: &Entry, bytes: &[u8]) -> Result<Tensor> {
    const CHUNK: usize = 1 << 16;
    fresh(&param.shape, |numbers| {
        let width = if entry.dtype == FileDtype::F32 { 4 } else { 2 };
        numbers.par_chunks_mut(CHUNK).zip(bytes.par_chunks(width * CHUNK)).for_each(|(to, from)| {
            let pairs = || to_u16(from);
            match entry.dtype {
                FileDtype::BF16 => {
                    to.iter_mut().zip(pairs()).for_each(|(x, bits)| *x = bf16::from_bits(bits).to_f32())
                }
                FileDtype::F16 => {
                    to.iter_mut().zip(pairs()).for_each(|(x, bits)| *x = f16::from_bits(bits).to_f32())
                }
                _ => {
                    let words = from.as_chunks::<4>().0.iter();
                    to.iter_mut().zip(words).for_each(|(x, word)| *x = f32::from_le_bytes(*word));
                }
            }
        });
    })
}

fn to_u16(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair))
}

/// A fresh parameter. Its numbers depend on the seed and its name alone.
fn draw(param: &Param, seed: u64) -> Result<Tensor> {
    match param.init {
        Init::Ones => fresh(&param.shape, |numbers| numbers.fill(1.0)),
        Init::Zeros => fresh(&param.shape, |numbers| numbers.fill(0.0)),
        Init::Normal(std) => fresh(&param.shape, |numbers| {
            let mut random = Random::named(seed, &param.name);
            for pair in numbers.chunks_mut(2) {
                for (x, normal) in pair.iter_mut().zip(random.normals()) {
                    *x = (normal * f64::from(std)) as f32;
                }
            }
        }),
    }
}
