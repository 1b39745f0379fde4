//! Tensors to safetensors files and back.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::Path;

use candle_core::{Device, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as FileDtype, Metadata, SafeTensorError, TensorInfo, View};

use crate::units::Dtype;

use super::access::{Stored, dtype, fresh, numbers, with_floats};
use super::cpu::number::Number;
use super::resting::Resting;

/// A tensor on its way to a file: as it lies if that is what the file wants, else converted when its turn comes.
struct Outgoing<'a> {
    numbers: Numbers<'a>,
    shape: &'a [usize],
    /// What floats are written as.
    dtype: Dtype,
}

/// What lies in a tensor, held against changes.
type Lying<'a, T> = Box<dyn Deref<Target = [T]> + 'a>;

enum Numbers<'a> {
    F32(Lying<'a, f32>),
    Bf16(Lying<'a, bf16>),
    F16(Lying<'a, f16>),
    /// Words of codes, as they lie.
    U32(Lying<'a, u32>),
    /// In a file, as they lie.
    Mapped(Lying<'a, u8>, Dtype),
    /// On a device; brought here when its turn comes.
    Elsewhere(&'a Tensor),
}

impl<'a> Outgoing<'a> {
    /// Floats become `floats`, if that is said.
    fn new(resting: &'a Resting, floats: Option<Dtype>) -> Self {
        match resting {
            Resting::Memory(tensor) => Self::of(tensor, floats),
            Resting::Disk(mapped) => {
                let own = resting.dtype();
                let dtype = floats.filter(|_| own != Dtype::U32).unwrap_or(own);
                Self { numbers: Numbers::Mapped(Box::new(mapped.read()), own), shape: resting.dims(), dtype }
            }
        }
    }

    fn of(tensor: &'a Tensor, floats: Option<Dtype>) -> Self {
        let own = dtype(tensor);
        if !tensor.device().is_cpu() {
            let dtype = floats.filter(|_| own != Dtype::U32).unwrap_or(own);
            return Self { numbers: Numbers::Elsewhere(tensor), shape: tensor.dims(), dtype };
        }
        let (numbers, dtype) = match own {
            Dtype::F32 => (Numbers::F32(Box::new(numbers(tensor))), floats.unwrap_or(own)),
            Dtype::Bf16 => (Numbers::Bf16(Box::new(numbers(tensor))), floats.unwrap_or(own)),
            Dtype::F16 => (Numbers::F16(Box::new(numbers(tensor))), floats.unwrap_or(own)),
            Dtype::U32 => (Numbers::U32(Box::new(numbers(tensor))), own),
        };
        Self { numbers, shape: tensor.dims(), dtype }
    }

    fn converted<T: Number>(&self, numbers: &[T]) -> Cow<'static, [u8]> {
        fn convert<T: Number, const N: usize>(numbers: &[T], to: fn(f32) -> [u8; N]) -> Cow<'static, [u8]> {
            let mut bytes = vec![0; N * numbers.len()];
            let (all, _) = bytes.as_chunks_mut::<N>();
            all.par_iter_mut().zip(numbers.par_iter()).for_each(|(bytes, x)| *bytes = to(x.wide()));
            Cow::Owned(bytes)
        }
        match self.dtype {
            Dtype::F32 => convert(numbers, |x| x.to_le_bytes()),
            Dtype::F16 => convert(numbers, |x| f16::nearest(x).to_le_bytes()),
            Dtype::Bf16 => convert(numbers, |x| bf16::nearest(x).to_le_bytes()),
            Dtype::U32 => unreachable!("weights and states are floats"),
        }
    }
}

/// Whether numbers lie as a file has them.
const AS_IN_FILES: bool = cfg!(target_endian = "little");

impl View for &Outgoing<'_> {
    fn dtype(&self) -> FileDtype {
        match self.dtype {
            Dtype::F32 => FileDtype::F32,
            Dtype::F16 => FileDtype::F16,
            Dtype::Bf16 => FileDtype::BF16,
            Dtype::U32 => FileDtype::U32,
        }
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match (&self.numbers, self.dtype) {
            (Numbers::F32(x), Dtype::F32) if AS_IN_FILES => Cow::Borrowed(bytemuck::cast_slice(x)),
            (Numbers::Bf16(x), Dtype::Bf16) if AS_IN_FILES => {
                Cow::Borrowed(bytemuck::cast_slice(x.reinterpret_cast()))
            }
            (Numbers::F16(x), Dtype::F16) if AS_IN_FILES => {
                Cow::Borrowed(bytemuck::cast_slice(x.reinterpret_cast()))
            }
            // The codes are bytes already: a word is no number whose bytes had an order.
            (Numbers::U32(words), _) => Cow::Borrowed(bytemuck::cast_slice(words)),
            (Numbers::Mapped(bytes, own), dtype) if *own == dtype && (AS_IN_FILES || dtype == Dtype::U32) => {
                Cow::Borrowed(bytes)
            }
            (Numbers::Mapped(bytes, own), _) => {
                with_floats!(*own, T => self.converted(bytemuck::cast_slice::<u8, T>(bytes)))
            }
            (Numbers::Elsewhere(tensor), _) => {
                let here =
                    tensor.to_device(&Device::Cpu).expect("what was asked of the device was waited for");
                Cow::Owned((&Outgoing::of(&here, Some(self.dtype))).data().into_owned())
            }
            (Numbers::F32(x), _) => self.converted(x),
            (Numbers::Bf16(x), _) => self.converted(x),
            (Numbers::F16(x), _) => self.converted(x),
        }
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size() as usize
    }
}

/// Writes named tensors to `path`, floats in the type asked for or as they are, and makes sure that they are on the disk.
pub fn write(path: &Path, tensors: &[(String, Resting)], floats: Option<Dtype>) -> io::Result<()> {
    let outgoing: Vec<_> =
        tensors.iter().map(|(name, tensor)| (name, Outgoing::new(tensor, floats))).collect();
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

/// So many bytes of a file are looked at at a time: a file is never in memory beside its tensors. (Mapped, it would be:
/// what the system could take back at any time counts as the process's own wherever memory is limited.)
const PIECE: usize = 1 << 20;

/// The header of an open safetensors file, and where the numbers begin.
fn header(file: &File) -> io::Result<(u64, Metadata)> {
    #[allow(
        unsafe_code,
        reason = "a memory map of a file that nobody changes while the run holds the lock; only its header is read"
    )]
    let map = unsafe { Mmap::map(file) }?;
    let (length, metadata) =
        SafeTensors::read_metadata(&map).map_err(|error| io::Error::other(error.to_string()))?;
    Ok((length as u64 + 8, metadata))
}

/// Whether `path` holds these tensors and no others: reads back what [`write()`] wrote, from the disk where the system
/// lets go of what it remembers.
pub fn holds(path: &Path, tensors: &[(String, Resting)], floats: Option<Dtype>) -> io::Result<bool> {
    let file = File::open(path)?;
    // Advice: where it is not taken, the system's memory is read.
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    let Ok((begin, metadata)) = header(&file) else { return Ok(false) };
    let mut piece = vec![0; PIECE];
    for (name, tensor) in tensors {
        let outgoing = &Outgoing::new(tensor, floats);
        let Some(info) = metadata.info(name) else { return Ok(false) };
        let length = info.data_offsets.1 - info.data_offsets.0;
        if info.dtype != outgoing.dtype() || info.shape != outgoing.shape() || length != outgoing.data_len() {
            return Ok(false);
        }
        let mut at = begin + info.data_offsets.0 as u64;
        for written in outgoing.data().chunks(PIECE) {
            let read = &mut piece[..written.len()];
            file.read_exact_at(read, at)?;
            if read != written {
                return Ok(false);
            }
            at += written.len() as u64;
        }
    }
    Ok(metadata.tensors().len() == tensors.len())
}

/// A file of floats and words, read tensor by tensor: taking a run up must not need more memory than the run did.
pub struct Incoming {
    file: File,
    metadata: Metadata,
    /// Where the numbers begin.
    begin: u64,
}

impl Incoming {
    /// Opens and checks the file's header.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let (begin, metadata) = header(&file)?;
        Ok(Self { file, metadata, begin })
    }

    /// The tensor called `name`, if there is one.
    pub fn get(&self, name: &str) -> io::Result<Option<Tensor>> {
        let Some(info) = self.metadata.info(name) else { return Ok(None) };
        let tensor = match info.dtype {
            FileDtype::U32 => {
                let mut words = vec![0_u32; info.shape.iter().product()];
                self.read(info, &mut words, u32::from_le_bytes)?;
                Tensor::from_vec(words, info.shape.as_slice(), &Device::Cpu)
            }
            FileDtype::F32 => self.lying(info, f32::from_le_bytes)?,
            FileDtype::BF16 => self.lying(info, bf16::from_le_bytes)?,
            FileDtype::F16 => self.lying(info, f16::from_le_bytes)?,
            other => return Err(io::Error::other(format!("`{name}` is made of {other:?}"))),
        };
        tensor.map(Some).map_err(|error| io::Error::other(error.to_string()))
    }

    /// A tensor of numbers as they lie in the file.
    fn lying<T: Stored + Number, const N: usize>(
        &self,
        info: &TensorInfo,
        number: impl Fn([u8; N]) -> T + Sync,
    ) -> io::Result<candle_core::Result<Tensor>> {
        let mut read = Ok(());
        let tensor = fresh(&info.shape, |numbers: &mut [T]| read = self.read(info, numbers, number));
        read.map(|()| tensor)
    }

    /// Reads all numbers of a tensor, piece by piece.
    fn read<T: Send, const N: usize>(
        &self,
        info: &TensorInfo,
        numbers: &mut [T],
        number: impl Fn([u8; N]) -> T + Sync,
    ) -> io::Result<()> {
        let mut at = self.begin + info.data_offsets.0 as u64;
        let mut piece = vec![0; PIECE.min(N * numbers.len())];
        for part in numbers.chunks_mut(PIECE / N) {
            let bytes = &mut piece[..N * part.len()];
            self.file.read_exact_at(bytes, at)?;
            at += bytes.len() as u64;
            let words = bytes.as_chunks::<N>().0;
            part.par_iter_mut().zip(words.par_iter()).for_each(|(x, word)| *x = number(*word));
        }
        Ok(())
    }
}
