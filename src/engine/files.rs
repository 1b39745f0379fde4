//! Tensors to safetensors files and back.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::path::Path;

use candle_core::Tensor;
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as FileDtype, SafeTensorError, View};

use crate::units::Dtype;

use super::access::{floats, fresh};

/// A tensor on its way to a file: as it lies if the file wants 32-bit floats, else converted when its turn comes.
struct Outgoing<'a, G> {
    numbers: G,
    shape: &'a [usize],
    dtype: Dtype,
}

impl<G: Deref<Target = [f32]>> View for &Outgoing<'_, G> {
    fn dtype(&self) -> FileDtype {
        match self.dtype {
            Dtype::F32 => FileDtype::F32,
            Dtype::F16 => FileDtype::F16,
            Dtype::Bf16 => FileDtype::BF16,
            Dtype::U32 => unreachable!("weights and states are floats"),
        }
    }

    fn shape(&self) -> &[usize] {
        self.shape
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

    fn data_len(&self) -> usize {
        self.numbers.len() * self.dtype.size() as usize
    }
}

/// Writes named tensors to `path`, in the type asked for, and makes sure that they are on the disk.
pub fn write(path: &Path, tensors: &[(String, Tensor)], dtype: Dtype) -> io::Result<()> {
    let outgoing: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (name, Outgoing { numbers: floats(tensor), shape: tensor.dims(), dtype }))
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

/// A file of 32-bit tensors, mapped: taking a run up must not need more memory than the run did.
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
        let tensor = fresh(view.shape(), |numbers| {
            let words = view.data().as_chunks::<4>().0;
            numbers.par_iter_mut().zip(words.par_iter()).for_each(|(x, word)| *x = f32::from_le_bytes(*word));
        });
        tensor.map(Some).map_err(|error| io::Error::other(error.to_string()))
    }
}
