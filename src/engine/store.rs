//! The weights, their masters and the optimizer states of a model, by parameter.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::lang::pipeline::{Algorithm, Precision, Weights};
use crate::model::{Init, Model, Param};
use crate::plan::optimizer;
use crate::problem::{Fault, Problem, Problems};
use crate::program::residency::{Away, Rests};
use crate::program::{Backend, ParamId, Role, State};
use crate::random::Random;
use crate::units::{Bytes, Dtype};
use crate::weights::{Directory, Entry, FileDtype};

use super::access::{Stored, floats, fresh, with_floats, zeros};
use super::cpu::number::Number;
use super::cpu::reduce;
use super::gpu::words::words;
use super::gpu::{Machine, NO_ROOM, Pin};
use super::leaving::Leaving;
use super::resting::{Mapped, NO_DISK, Resting};

/// The parameters of a model, by [`ParamId`]. Cloning them shares their storage.
#[derive(Clone, Default)]
pub struct Parameters {
    /// What is computed with.
    pub weights: Vec<Resting>,
    /// In 32 bits what the weights are the nearest half numbers of; empty where weights are all there is.
    pub masters: Vec<Resting>,
}

impl Parameters {
    /// Weights without masters.
    pub fn plain(weights: Vec<Tensor>) -> Self {
        Self { weights: weights.into_iter().map(Resting::from).collect(), masters: Vec::new() }
    }

    /// `kept`, in the type that [`Precision::kept`] names, as a precision wants it for training.
    pub fn of(kept: Vec<Tensor>, precision: Precision) -> Result<Self> {
        let mut parameters = Self::default();
        for tensor in kept {
            parameters.add(tensor, precision, None)?;
        }
        Ok(parameters)
    }

    /// The next parameter, as [`Parameters::of`] takes it. What is to rest on the disk of `place` goes there.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn add(&mut self, kept: Tensor, precision: Precision, place: Option<&Place>) -> Result<()> {
        let away = place.map_or(Away::default(), |place| place.away);
        let put = |tensor: Tensor, rests: Rests| match (rests, place) {
            (Rests::Disk, Some(place)) => place.put(&tensor),
            (Rests::Disk | Rests::Here | Rests::Host, _) => Ok(tensor.into()),
        };
        if !precision.has_masters() {
            self.weights.push(put(kept, away.weights)?);
            return Ok(());
        }
        let half = with_floats!(precision.dtype(), T => {
            fresh(kept.dims(), |numbers: &mut [T]| reduce::cast(numbers, &floats(&kept)))?
        });
        self.masters.push(put(kept, away.masters)?);
        self.weights.push(put(half, away.weights)?);
        Ok(())
    }

    /// What is kept and exported: masters where there are some.
    pub fn kept(&self) -> &[Resting] {
        if self.masters.is_empty() { &self.weights } else { &self.masters }
    }

    /// In storage of its own.
    pub fn copy(&self) -> Result<Self> {
        let copies = |tensors: &[Resting]| tensors.iter().map(Resting::copy).collect::<Result<_>>();
        Ok(Self { weights: copies(&self.weights)?, masters: copies(&self.masters)? })
    }
}

/// What computes, and what rests away from it.
#[derive(Clone)]
pub struct Place {
    /// None where processors compute.
    pub machine: Option<Arc<dyn Machine>>,
    pub away: Away,
    /// Products of 32-bit numbers may round their operands to 19 bits.
    pub tf32: bool,
    /// The folder whose disk has what rests there.
    pub scratch: Arc<Path>,
}

impl Place {
    /// Moves tensors to where they belong, one at a time.
    fn settle(&self, tensors: &mut [Resting], rests: Rests, pins: &mut Vec<Pin>) -> Result<()> {
        for tensor in tensors {
            match rests {
                Rests::Here => {
                    let device = self.machine.as_ref().map_or(&Device::Cpu, |machine| machine.device());
                    // From one of the disk's files it comes by way of the host.
                    *tensor = match &*tensor {
                        Resting::Memory(tensor) => tensor.to_device(device)?.into(),
                        Resting::Disk(_) => tensor.on_host()?.to_device(device)?.into(),
                    };
                }
                Rests::Host => {
                    let here = tensor.on_host()?;
                    pins.extend(self.machine.as_ref().and_then(|machine| machine.pin(&here)));
                    *tensor = here.into();
                }
                Rests::Disk => {
                    if let Resting::Memory(here) = &*tensor {
                        *tensor = self.put(here)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Where parameters go once training has ended. Where anything rests on disk, the host has no room for what a device had.
    pub fn afterwards(&self) -> Self {
        let disk = self.machine.is_some() && self.away.needs_disk();
        let away = match disk {
            true => Away { weights: Rests::Disk, masters: Rests::Disk, ..Away::default() },
            false => Away { states: Rests::Here, ..self.away },
        };
        Self { away, ..self.clone() }
    }

    /// A state of a checkpoint, where it is to rest if that is the disk; else it is in the host's memory for now.
    ///
    /// # Errors
    /// When the disk has no room.
    pub fn state(&self, state: Tensor) -> Result<Resting> {
        match self.away.states {
            Rests::Disk => self.put(&state),
            Rests::Here | Rests::Host => Ok(state.into()),
        }
    }

    /// A tensor, on disk.
    fn put(&self, tensor: &Tensor) -> Result<Resting> {
        Ok(Resting::Disk(Mapped::of(&self.scratch, tensor)?.into()))
    }
}

/// Parameters by [`ParamId`], and the states of those that have some.
pub struct Store {
    /// Let go before what it copies to.
    pub(super) leaving: Leaving,
    /// Let go before the tensors that they hold in their place.
    pins: Vec<Pin>,
    /// None where a processor computes and all is in its memory.
    place: Option<Place>,
    pub weights: Vec<Resting>,
    /// Empty where weights are all there is.
    masters: Vec<Resting>,
    states: Vec<Vec<Resting>>,
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
        Self {
            leaving: Leaving::default(),
            pins: Vec::new(),
            place: None,
            weights,
            masters,
            states: vec![Vec::new(); n],
            updates: vec![0; n],
            caches: Vec::new(),
        }
    }

    /// Moves everything to where it belongs, a tensor at a time: to the device, to host memory that it reads by itself, or
    /// to the disk.
    ///
    /// # Errors
    /// When one of them has no room.
    pub fn at(mut self, place: Option<&Place>) -> Result<Self> {
        let Some(place) = place else { return Ok(self) };
        self.place = Some(place.clone());
        self.leaving.machine = place.machine.clone();
        place.settle(&mut self.weights, place.away.weights, &mut self.pins)?;
        place.settle(&mut self.masters, place.away.masters, &mut self.pins)?;
        for states in &mut self.states {
            place.settle(states, place.away.states, &mut self.pins)?;
        }
        Ok(self)
    }

    /// The device that computes, if it is none of the processors.
    pub fn machine(&self) -> Option<&Arc<dyn Machine>> {
        self.place.as_ref().and_then(|place| place.machine.as_ref())
    }

    /// What programs for this store are compiled for.
    pub fn backend(&self) -> Backend {
        match self.machine() {
            Some(_) => Backend::Gpu,
            None => Backend::Cpu { threads: rayon::current_num_threads() },
        }
    }

    pub fn away(&self) -> Away {
        self.place.as_ref().map_or_else(Away::default, |place| place.away)
    }

    pub(super) fn tf32(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.tf32)
    }

    /// Waits until the host's memory holds what was brought back to it. To be called before it is read.
    ///
    /// # Errors
    /// When something that the device was asked for has failed.
    pub fn settle(&self) -> Result<()> {
        self.machine().map_or(Ok(()), |machine| machine.settle())
    }

    /// Before a step whose programs take `most` bytes: copies that earlier ones have left on their way home may take what
    /// room is left of that, here beside a `batch` that is being put together.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn make_room(&mut self, most: Bytes, batch: Bytes) -> Result<()> {
        self.leaving.most = most.0;
        self.leaving.shrink(most.0.saturating_sub(batch.0))
    }

    /// Bytes of the device that belong to copies on their way home.
    pub fn leaving(&self) -> Bytes {
        Bytes(self.leaving.bytes())
    }

    /// Makes sure that what rests on disk is there. To be called before a checkpoint says that it was.
    ///
    /// # Errors
    /// When the disk has failed, now or before.
    pub fn sync(&self) -> std::io::Result<()> {
        let all = self.weights.iter().chain(&self.masters).chain(self.states.iter().flatten());
        for resting in all {
            if let Resting::Disk(mapped) = resting {
                mapped.sync()?;
            }
        }
        Ok(())
    }

    /// Bytes of everything that lies on the device.
    pub fn resident(&self) -> Bytes {
        let away = self.away();
        let here = |rests: Rests, tensors: &[Resting]| match rests {
            Rests::Here => tensors.iter().map(Resting::bytes).sum::<u64>(),
            Rests::Host | Rests::Disk => 0,
        };
        let states = self.states.iter().map(|states| here(away.states, states)).sum::<u64>();
        Bytes(here(away.weights, &self.weights) + here(away.masters, &self.masters) + states)
    }

    /// Where what a program fetches is at home.
    pub(super) fn home(&self, role: Role) -> &Resting {
        match role {
            Role::Weight(param) => &self.weights[param.0],
            Role::Master(param) => &self.masters[param.0],
            Role::State(param, slot) => &self.states[param.0][slot],
            Role::Cache(_)
            | Role::Fetched(_)
            | Role::Input(_)
            | Role::Activation
            | Role::Flow
            | Role::Gradient(_)
            | Role::Scalar => unreachable!("only what is resident rests away"),
        }
    }

    /// Masters of all parameters, or none.
    pub fn masters(&self) -> &[Resting] {
        &self.masters
    }

    /// What a checkpoint keeps of the parameters: masters where there are some.
    pub fn kept(&self) -> &[Resting] {
        if self.masters.is_empty() { &self.weights } else { &self.masters }
    }

    /// Counts one more update and gives the count.
    pub(super) fn count_update(&mut self, param: ParamId) -> u64 {
        self.updates[param.0] += 1;
        self.updates[param.0]
    }

    pub fn states_of(&self, param: ParamId) -> &[Resting] {
        &self.states[param.0]
    }

    pub fn updates_of(&self, param: ParamId) -> u64 {
        self.updates[param.0]
    }

    /// How often each of these was updated.
    pub fn updates_of_all(&self, params: &[ParamId]) -> Vec<u64> {
        params.iter().map(|param| self.updates[param.0]).collect()
    }

    /// Takes back the last update of `params`: they turned out not to have changed.
    pub fn uncount_updates(&mut self, params: &[ParamId]) {
        for param in params {
            self.updates[param.0] -= 1;
        }
    }

    /// Puts back what a checkpoint kept.
    pub fn restore(&mut self, param: ParamId, states: Vec<Resting>, updates: u64) {
        self.states[param.0] = states;
        self.updates[param.0] = updates;
    }

    /// Makes sure that each of `params` has its states; new ones are zero.
    pub fn make_states(&mut self, params: &[ParamId], algorithm: &Algorithm, model: &Model) -> Result<()> {
        for param in params {
            if self.states[param.0].is_empty() {
                let on_disk = self.place.as_ref().filter(|place| place.away.states == Rests::Disk);
                let make = |state: &State| -> Result<Resting> {
                    Ok(match on_disk {
                        Some(place) => {
                            Resting::Disk(Mapped::new(&place.scratch, &state.shape, state.dtype)?.into())
                        }
                        None => zeros(&state.shape, state.dtype)?.into(),
                    })
                };
                let mut states: Vec<Resting> =
                    optimizer::states(algorithm, model, *param).iter().map(make).collect::<Result<_>>()?;
                if let Some(place) = &self.place {
                    place.settle(&mut states, place.away.states, &mut self.pins)?;
                }
                self.states[param.0] = states;
            }
        }
        Ok(())
    }

    /// Makes room for keys and values. What it holds is written before it is read.
    pub fn make_caches(&mut self, shapes: &[Vec<usize>]) -> Result<()> {
        self.caches.clear();
        let make = |shape: &Vec<usize>| match self.machine() {
            Some(machine) => machine.fresh(shape, Dtype::F32),
            None => fresh(shape, |_: &mut [f32]| {}),
        };
        self.caches = shapes.iter().map(make).collect::<Result<_>>()?;
        Ok(())
    }

    /// Forgets the states of `params`, and how often they were updated.
    pub fn discard_states(&mut self, params: &[ParamId]) {
        for param in params {
            self.states[param.0] = Vec::new();
            self.updates[param.0] = 0;
        }
    }

    /// Forgets all states; the parameters stay, in the host's memory or on disk: see [`Place::afterwards`].
    ///
    /// # Errors
    /// When the device cannot be read, or the disk has no room.
    pub fn into_parameters(self) -> Result<Parameters> {
        self.settle()?;
        let Self { leaving, place, weights, masters, states, .. } = self;
        drop((leaving, states));
        let place = place.map(|place| place.afterwards());
        let home = |tensors: Vec<Resting>, rests: fn(Away) -> Rests| -> Result<Vec<Resting>> {
            let home = |resting: Resting| match (resting, &place) {
                (Resting::Memory(tensor), Some(place)) if rests(place.away) == Rests::Disk => {
                    place.put(&tensor)
                }
                (Resting::Memory(tensor), _) => Ok(tensor.to_device(&Device::Cpu)?.into()),
                (Resting::Disk(mapped), _) => Ok(Resting::Disk(mapped)),
            };
            tensors.into_iter().map(home).collect()
        };
        Ok(Parameters {
            weights: home(weights, |away| away.weights)?,
            masters: home(masters, |away| away.masters)?,
        })
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
    let mut all = Vec::with_capacity(model.params.len());
    load_each(model, weights, folder, dtype, |tensor| {
        all.push(tensor);
        Ok(())
    })?;
    Ok(all)
}

/// The same, one after the other: `take` has each before the next is read.
///
/// # Errors
/// As [`load`], and where `take` fails.
pub fn load_each(
    model: &Model,
    weights: &Weights,
    folder: &Path,
    dtype: Dtype,
    mut take: impl FnMut(Tensor) -> Result<()>,
) -> std::result::Result<(), Problems> {
    let draw = |param, seed| with_floats!(dtype, T => draw::<T>(param, seed));
    let read =
        |param: &Param, entry: &Entry, bytes: &[u8]| with_floats!(dtype, T => read::<T>(param, entry, bytes));
    match weights {
        Weights::Random { seed, .. } => {
            model.params.iter().try_for_each(|param| take(draw(param, *seed)?)).map_err(|e| failed(&e).into())
        }
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
                .try_for_each(|param| {
                    take(match directory.of(param) {
                        Some(entry) => read(param, entry, &directory.bytes(entry))?,
                        None => draw(param, HEAD_SEED)?,
                    })
                })
                .map_err(|error| failed(&error).into())
        }
    }
}

/// The code of a problem: a device has no room for a tensor.
pub const DEVICE_FULL: &str = "hift::engine::device_full";

/// A failure of the tensor library, as a problem of the run.
pub fn failed(error: &candle_core::Error) -> Problem {
    let told = error.to_string();
    if told.starts_with(NO_DISK) {
        return Problem::of(Fault::Output, "hift::engine::scratch", told).help(
            "free some space there, or name a folder on another disk with `--scratch`; the same command goes on from the \
             last checkpoint",
        );
    }
    // The driver's own words come from copies that the tensor library makes.
    if told.starts_with(NO_ROOM) || told.contains("CUDA_ERROR_OUT_OF_MEMORY") {
        return Problem::of(Fault::Failed, DEVICE_FULL, told).help(
            "end what else takes the device's memory and call the same command again, or plan for less: `memory_limit` \
             with `recompute = auto`, `weights = host`, or a smaller `micro_batch`",
        );
    }
    if let Some(words) = words(&told) {
        let line = told.lines().next().unwrap_or_default();
        let (fault, code) = match words.gone {
            true => (Fault::Device, "hift::engine::device_lost"),
            false => (Fault::Failed, "hift::engine::failed"),
        };
        return Problem::of(fault, code, format!("{} ({line})", words.what)).help(words.help);
    }
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
