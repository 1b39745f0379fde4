//! Tensors to safetensors files and back.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as FileDtype, SafeTensorError, View};

use crate::units::Dtype;

use super::access::{floats, fresh, ids};

/// A tensor on its way to a file: as it lies if the file wants 32-bit floats, else converted when its turn comes.
enum Outgoing<'a, F, W> {
    Floats(Floats<'a, F>),
    /// Words of codes, as they lie.
    Words {
        words: W,
        shape: &'a [usize],
    },
}

impl<F: Deref<Target = [f32]>, W: Deref<Target = [u32]>> View for &Outgoing<'_, F, W> {
    fn dtype(&self) -> FileDtype {
        match self {
            Outgoing::Floats(floats) => floats.dtype(),
            Outgoing::Words { .. } => FileDtype::U32,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Outgoing::Floats(floats) => floats.shape,
            Outgoing::Words { shape, .. } => shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Outgoing::Floats(floats) => floats.data(),
            // The codes are bytes already: a word is no number whose bytes had an order.
            Outgoing::Words { words, .. } => Cow::Borrowed(bytemuck::cast_slice(words)),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Outgoing::Floats(floats) => floats.numbers.len() * floats.dtype.size() as usize,
            Outgoing::Words { words, .. } => size_of_val::<[u32]>(words),
        }
    }
}

struct Floats<'a, G> {
    numbers: G,
    shape: &'a [usize],
    dtype: Dtype,
}

impl<G: Deref<Target = [f32]>> Floats<'_, G> {
    fn dtype(&self) -> FileDtype {
        match self.dtype {
            Dtype::F32 => FileDtype::F32,
            Dtype::F16 => FileDtype::F16,
            Dtype::Bf16 => FileDtype::BF16,
            Dtype::U32 => unreachable!("weights and states are floats"),
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = Vec::new();
        let mut convert = |two: fn(f32) -> [u8; 2]| {
            bytes.resize(2 * self.numbers.len(), 0);
            bytes
                .par_chunks_exact_mut(2)
                .zip(self.numbers.par_iter())
                .for_each(|(to, x)| to.copy_from_slice(&two(*x)));
        };
        match self.dtype {
            Dtype::F32 if cfg!(target_endian = "little") => {
                return Cow::Borrowed(bytemuck::cast_slice(&self.numbers));
            }
            Dtype::F32 => bytes = self.numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Dtype::F16 => convert(|x| f16::from_f32(x).to_le_bytes()),
            Dtype::Bf16 => convert(|x| bf16::from_f32(x).to_le_bytes()),
            Dtype::U32 => unreachable!("weights and states are floats"),
        }
        Cow::Owned(bytes)
    }
}

/// Writes named tensors to `path`, floats in the type asked for, and makes sure that they are on the disk.
pub fn write(path: &Path, tensors: &[(String, Tensor)], dtype: Dtype) -> io::Result<()> {
    let outgoing: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| {
            let shape = tensor.dims();
            let outgoing = match tensor.dtype() {
                DType::U32 => Outgoing::Words { words: ids(tensor), shape },
                _ => Outgoing::Floats(Floats { numbers: floats(tensor), shape, dtype }),
            };
            (name, outgoing)
        })
        .collect();
    let views = outgoing.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|error| match error {
        SafeTensorError::IoError(error) => error,
        error => io::Error::other(error.to_string()),
    })?;
    // It comes from a temporary file that only its owner may read; a result is as readable as any new file.
    let like = path.with_extension("mode");
    let _ = File::create(&like)
        .and_then(|file| file.metadata())
        .and_then(|new| fs::set_permissions(path, new.permissions()));
    let _ = fs::remove_file(&like);
    File::open(path)?.sync_all()
}

/// A file of 32-bit floats and words, mapped: taking a run up must not need more memory than the run did.
pub struct Incoming {
    map: Mmap,
}

impl Incoming {
    /// Opens and checks the file's header.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        #[allow(
            unsafe_code,
            reason = "a memory map of a file that nobody changes while the run holds the lock"
        )]
        let map = unsafe { Mmap::map(&file) }?;
        SafeTensors::read_metadata(&map).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { map })
    }

    /// The tensor called `name`, if there is one.
    pub fn get(&self, name: &str) -> io::Result<Option<Tensor>> {
        let file =
            SafeTensors::deserialize(&self.map).map_err(|error| io::Error::other(error.to_string()))?;
        let Ok(view) = file.tensor(name) else { return Ok(None) };
        if view.dtype() == FileDtype::U32 {
            let mut words = vec![0_u32; view.data().len() / 4];
            bytemuck::cast_slice_mut(&mut words).copy_from_slice(view.data());
            let tensor = Tensor::from_vec(words, view.shape(), &Device::Cpu);
            return tensor.map(Some).map_err(|error| io::Error::other(error.to_string()));
        }
        let tensor = fresh(view.shape(), |numbers| {
            let words = view.data().as_chunks::<4>().0;
            numbers.par_iter_mut().zip(words.par_iter()).for_each(|(x, word)| *x = f32::from_le_bytes(*word));
        });
        tensor.map(Some).map_err(|error| io::Error::other(error.to_string()))
    }
}
