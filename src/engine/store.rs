//! The weights, their masters and the optimizer states of a model, by parameter.

use std::path::Path;

use candle_core::{Result, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::lang::pipeline::{Algorithm, Precision, Weights};
use crate::model::{Init, Model, Param};
use crate::plan::optimizer;
use crate::problem::{Fault, Problem, Problems};
use crate::program::ParamId;
use crate::random::Random;
use crate::units::Dtype;
use crate::weights::{Directory, Entry, FileDtype};

use super::access::{Stored, floats, fresh, with_floats, zeros};
use super::cpu::number::Number;
use super::cpu::reduce;

/// The parameters of a model, by [`ParamId`]. Cloning them shares their storage.
#[derive(Clone, Default)]
pub struct Parameters {
    /// What is computed with.
    pub weights: Vec<Tensor>,
    /// In 32 bits what the weights are the nearest half numbers of; empty where weights are all there is.
    pub masters: Vec<Tensor>,
}

impl Parameters {
    /// Weights without masters.
    pub fn plain(weights: Vec<Tensor>) -> Self {
        Self { weights, masters: Vec::new() }
    }

    /// `kept`, in the type that [`Precision::kept`] names, as a precision wants it for training.
    pub fn of(kept: Vec<Tensor>, precision: Precision) -> Result<Self> {
        if !precision.has_masters() {
            return Ok(Self::plain(kept));
        }
        let half = |master: &Tensor| {
            with_floats!(precision.dtype(), T => {
                fresh(master.dims(), |numbers: &mut [T]| reduce::cast(numbers, &floats(master)))
            })
        };
        Ok(Self { weights: kept.iter().map(half).collect::<Result<_>>()?, masters: kept })
    }

    /// What is kept and exported: masters where there are some.
    pub fn kept(&self) -> &[Tensor] {
        if self.masters.is_empty() { &self.weights } else { &self.masters }
    }

    /// In storage of its own.
    pub fn copy(&self) -> Result<Self> {
        let copies = |tensors: &[Tensor]| tensors.iter().map(Tensor::copy).collect::<Result<_>>();
        Ok(Self { weights: copies(&self.weights)?, masters: copies(&self.masters)? })
    }
}

/// Parameters by [`ParamId`], and the states of those that have some.
pub struct Store {
    pub weights: Vec<Tensor>,
    /// Empty where weights are all there is.
    masters: Vec<Tensor>,
    states: Vec<Vec<Tensor>>,
    /// How often each parameter was updated; Adam's bias correction counts these.
    updates: Vec<u64>,
    /// Keys and values that outlive a pass, while texts are continued.
    pub caches: Vec<Tensor>,
}

impl Store {
    /// Weights without masters.
    pub fn new(weights: Vec<Tensor>) -> Self {
        Self::of(Parameters::plain(weights))
    }

    pub fn of(Parameters { weights, masters }: Parameters) -> Self {
        let n = weights.len();
        Self { weights, masters, states: vec![Vec::new(); n], updates: vec![0; n], caches: Vec::new() }
    }

    pub(super) fn master(&self, param: ParamId) -> &Tensor {
        &self.masters[param.0]
    }

    /// Masters of all parameters, or none.
    pub fn masters(&self) -> &[Tensor] {
        &self.masters
    }

    /// What a checkpoint keeps of the parameters: masters where there are some.
    pub fn kept(&self) -> &[Tensor] {
        if self.masters.is_empty() { &self.weights } else { &self.masters }
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
        self.caches = shapes.iter().map(|shape| fresh(shape, |_: &mut [f32]| {})).collect::<Result<_>>()?;
        Ok(())
    }

    /// Forgets the states of `params`, and how often they were updated.
    pub fn discard_states(&mut self, params: &[ParamId]) {
        for param in params {
            self.states[param.0] = Vec::new();
            self.updates[param.0] = 0;
        }
    }

    /// Forgets all states; the parameters stay.
    pub fn into_parameters(self) -> Parameters {
        Parameters { weights: self.weights, masters: self.masters }
    }
}

/// The seed of a head that a checkpoint does not have.
const HEAD_SEED: u64 = 0;

/// The weights that a pipeline asks for, in floats of `dtype`. What a checkpoint may leave out and does is drawn.
///
/// # Errors
/// When the directory has none, or they are not this model's.
pub fn load(
    model: &Model,
    weights: &Weights,
    folder: &Path,
    dtype: Dtype,
) -> std::result::Result<Vec<Tensor>, Problems> {
    let draw = |param, seed| with_floats!(dtype, T => draw::<T>(param, seed));
    let read =
        |param: &Param, entry: &Entry, bytes: &[u8]| with_floats!(dtype, T => read::<T>(param, entry, bytes));
    match weights {
        Weights::Random { seed, .. } => model
            .params
            .iter()
            .map(|param| draw(param, *seed))
            .collect::<Result<_>>()
            .map_err(|e| failed(&e).into()),
        Weights::Directory { .. } | Weights::Hub { .. } => {
            let path = weights.directory().expect("the plan has read its configuration");
            let directory = Directory::require(&folder.join(path))?;
            let problems = directory.check(model);
            if problems.has_errors() {
                return Err(problems);
            }
            model
                .params
                .iter()
                .map(|param| match directory.of(param) {
                    Some(entry) => read(param, entry, &directory.bytes(entry)),
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
fn read<T: Stored + Number>(param: &Param, entry: &Entry, bytes: &[u8]) -> Result<Tensor> {
    const CHUNK: usize = 1 << 16;
    fresh(&param.shape, |numbers: &mut [T]| {
        let width = if entry.dtype == FileDtype::F32 { 4 } else { 2 };
        numbers.par_chunks_mut(CHUNK).zip(bytes.par_chunks(width * CHUNK)).for_each(|(to, from)| {
            let pairs = || to_u16(from);
            match entry.dtype {
                FileDtype::BF16 => to
                    .iter_mut()
                    .zip(pairs())
                    .for_each(|(x, bits)| *x = T::nearest(bf16::from_bits(bits).wide())),
                FileDtype::F16 => to
                    .iter_mut()
                    .zip(pairs())
                    .for_each(|(x, bits)| *x = T::nearest(f16::from_bits(bits).wide())),
                _ => {
                    let words = from.as_chunks::<4>().0.iter();
                    to.iter_mut().zip(words).for_each(|(x, word)| *x = T::nearest(f32::from_le_bytes(*word)));
                }
            }
        });
    })
}

fn to_u16(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair))
}

/// A fresh parameter. Its numbers depend on the seed and its name alone.
fn draw<T: Stored + Number>(param: &Param, seed: u64) -> Result<Tensor> {
    match param.init {
        Init::Ones => fresh(&param.shape, |numbers: &mut [T]| numbers.fill(T::nearest(1.0))),
        Init::Zeros => fresh(&param.shape, |numbers: &mut [T]| numbers.fill(T::nearest(0.0))),
        Init::Normal(std) => fresh(&param.shape, |numbers: &mut [T]| {
            let mut random = Random::named(seed, &param.name);
            for pair in numbers.chunks_mut(2) {
                for (x, normal) in pair.iter_mut().zip(random.normals()) {
                    *x = T::nearest((normal * f64::from(std)) as f32);
                }
            }
        }),
    }
}
