//! Tensors where they rest: in memory, or in a file that is mapped into it.
//!
//! A file has no name: nobody else reads or writes it, and it goes with the process in whatever way that ends. Its blocks
//! are taken when it is made, so that a disk that fills up later harms nothing. What was copied is let go of: such pages
//! are the system's to keep or to write, and count as nobody's memory.

use std::io::{self, ErrorKind, Write};
use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use candle_core::{Device, Error, Result, Tensor};
use fs4::fs_std::FileExt;
use memmap2::{Advice, MmapMut, UncheckedAdvice};
use rayon::prelude::*;

use crate::program::residency::on_pages;
use crate::units::{Bytes, Dtype};

use super::access::{bytes, dtype, edit, fresh, numbers, with_floats};
use super::cpu::number::Number;

/// A tensor where it rests. Cloning shares it.
#[derive(Clone)]
pub enum Resting {
    /// The host's memory, or the device's.
    Memory(Tensor),
    Disk(Arc<Mapped>),
}

impl From<Tensor> for Resting {
    fn from(tensor: Tensor) -> Self {
        Resting::Memory(tensor)
    }
}

impl Resting {
    /// What rests in memory, to be read where it lies.
    ///
    /// # Panics
    /// When it rests on disk: programs fetch that.
    pub fn tensor(&self) -> &Tensor {
        match self {
            Resting::Memory(tensor) => tensor,
            Resting::Disk(_) => unreachable!("what rests on disk is fetched before it is read"),
        }
    }

    pub fn dims(&self) -> &[usize] {
        match self {
            Resting::Memory(tensor) => tensor.dims(),
            Resting::Disk(mapped) => &mapped.shape,
        }
    }

    pub fn dtype(&self) -> Dtype {
        match self {
            Resting::Memory(tensor) => dtype(tensor),
            Resting::Disk(mapped) => mapped.dtype,
        }
    }

    /// Bytes of its numbers.
    pub fn bytes(&self) -> u64 {
        match self {
            Resting::Memory(tensor) => bytes(tensor),
            Resting::Disk(mapped) => mapped.bytes() as u64,
        }
    }

    /// Bytes that it takes of memory.
    pub fn in_memory(&self) -> u64 {
        match self {
            Resting::Memory(tensor) => bytes(tensor),
            Resting::Disk(_) => 0,
        }
    }

    /// In the host's memory; what lies there already is shared.
    ///
    /// # Errors
    /// When a device cannot be read.
    pub fn on_host(&self) -> Result<Tensor> {
        match self {
            Resting::Memory(tensor) => tensor.to_device(&Device::Cpu),
            Resting::Disk(mapped) => mapped.tensor(),
        }
    }

    /// In storage of its own, of the kind that it has.
    ///
    /// # Errors
    /// When there is no room.
    pub fn copy(&self) -> Result<Self> {
        Ok(match self {
            Resting::Memory(tensor) => tensor.copy()?.into(),
            Resting::Disk(mapped) => {
                let copy = Mapped::new(&mapped.folder, &mapped.shape, mapped.dtype)?;
                copy.write(0, &mapped.read());
                Resting::Disk(copy.into())
            }
        })
    }

    /// Whether all of its numbers are some.
    ///
    /// # Errors
    /// When a device cannot be read.
    pub fn is_finite(&self) -> Result<bool> {
        fn all<T: Number>(numbers: &[T]) -> bool {
            numbers.par_iter().all(|x| x.wide().is_finite())
        }
        match self {
            Resting::Memory(tensor) => {
                let tensor = tensor.to_device(&Device::Cpu)?;
                Ok(with_floats!(dtype(&tensor), T => all(&numbers::<T>(&tensor))))
            }
            Resting::Disk(mapped) => {
                Ok(with_floats!(mapped.dtype, T => all(bytemuck::cast_slice::<u8, T>(&mapped.read()))))
            }
        }
    }
}

/// How the error begins that comes of a disk without room for what is to rest there.
pub const NO_DISK: &str = "what rests on disk has no place";

/// A tensor in a file of its own.
pub struct Mapped {
    map: RwLock<MmapMut>,
    shape: Vec<usize>,
    dtype: Dtype,
    /// Whose disk it is on.
    folder: Arc<Path>,
}

impl Mapped {
    /// A tensor of zeros on the disk of `folder`.
    ///
    /// # Errors
    /// When the disk has no room for all of it ([`NO_DISK`]).
    pub fn new(folder: &Arc<Path>, shape: &[usize], dtype: Dtype) -> Result<Self> {
        let size = on_pages(Bytes(dtype.size() * shape.iter().product::<usize>().max(1) as u64));
        let map = mapped(folder, size.0).map_err(|error| {
            Error::Msg(format!("{NO_DISK}: {size} more in {}: {error}", folder.display()))
        })?;
        Ok(Self { map: RwLock::new(map), shape: shape.to_vec(), dtype, folder: folder.clone() })
    }

    /// What a tensor holds, on the disk of `folder`.
    ///
    /// # Errors
    /// As [`Mapped::new`], and when a device cannot be read.
    pub fn of(folder: &Arc<Path>, tensor: &Tensor) -> Result<Self> {
        let mapped = Self::new(folder, tensor.dims(), dtype(tensor))?;
        mapped.store(&tensor.to_device(&Device::Cpu)?);
        Ok(mapped)
    }

    fn bytes(&self) -> usize {
        self.dtype.size() as usize * self.shape.iter().product::<usize>()
    }

    /// Its bytes, as they lie.
    pub fn read(&self) -> impl Deref<Target = [u8]> + '_ {
        let map = self.map.read().expect("nobody panics with a file in hand");
        Open { map, n: self.bytes() }
    }

    /// Reads bytes from a place of the file, and lets go of them.
    pub fn read_at(&self, at: usize, to: &mut [u8]) {
        let map = self.map.read().expect("nobody panics with a file in hand");
        copy(to, &map[at..at + to.len()]);
        let_go(&map, at, to.len());
    }

    /// Writes bytes at a place of the file, and lets go of them.
    pub fn write(&self, at: usize, from: &[u8]) {
        let mut map = self.map.write().expect("nobody panics with a file in hand");
        copy(&mut map[at..at + from.len()], from);
        let_go(&map, at, from.len());
    }

    /// Takes over the numbers of a tensor of the host, of its shape and type.
    pub fn store(&self, tensor: &Tensor) {
        match self.dtype {
            Dtype::U32 => self.write(0, bytemuck::cast_slice(&numbers::<u32>(tensor))),
            floats => with_floats!(floats, T => self.write(0, bytemuck::cast_slice(&numbers::<T>(tensor)))),
        }
    }

    /// As a tensor of the host.
    fn tensor(&self) -> Result<Tensor> {
        let bytes = self.read();
        match self.dtype {
            Dtype::U32 => {
                let tensor =
                    Tensor::from_vec(vec![0_u32; self.bytes() / 4], self.shape.as_slice(), &Device::Cpu)?;
                edit(&tensor, |words: &mut [u32]| copy(bytemuck::cast_slice_mut(words), &bytes))?;
                Ok(tensor)
            }
            floats => with_floats!(floats, T => {
                fresh(&self.shape, |numbers: &mut [T]| copy(bytemuck::cast_slice_mut(numbers), &bytes))
            }),
        }
    }

    /// Lets the system read it ahead.
    pub fn will_need(&self) {
        let map = self.map.read().expect("nobody panics with a file in hand");
        // Advice: where it is not taken, reading waits.
        let _ = map.advise(Advice::WillNeed);
    }

    /// Makes sure that it is on the disk.
    ///
    /// # Errors
    /// When the disk has failed, now or before.
    pub fn sync(&self) -> io::Result<()> {
        self.map.read().expect("nobody panics with a file in hand").flush()
    }
}

/// A file's bytes while they are read.
struct Open<'a> {
    map: RwLockReadGuard<'a, MmapMut>,
    n: usize,
}

impl Deref for Open<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[..self.n]
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let_go(&self.map, 0, self.n);
    }
}

/// A new file of zeros without a name, mapped.
fn mapped(folder: &Path, bytes: u64) -> io::Result<MmapMut> {
    let mut file = tempfile::tempfile_in(folder)?;
    match FileExt::allocate(&file, bytes) {
        // A file system that cannot promise blocks gives them when they are written.
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file)?;
            file.flush()?;
        }
        known => known?,
    }
    file.set_len(bytes)?;
    #[allow(
        unsafe_code,
        reason = "a memory map of a file without a name, which nobody else can change or cut"
    )]
    // SAFETY: as said; it has all its blocks, so no access asks the disk for room.
    unsafe {
        MmapMut::map_mut(&file)
    }
}

/// The process has no more to do with these bytes: they are in the file, and are read from there.
fn let_go(map: &MmapMut, at: usize, n: usize) {
    #[allow(unsafe_code, reason = "a part of a memory map")]
    // SAFETY: the map is shared with its file, so nothing is lost: what was written stays in the system's memory until it
    // is on the disk, and is read from there. Advice: where it is not taken, more counts as this process's.
    let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, at, n) };
}

/// Copies by several threads: each waits for the disk on its own.
fn copy(to: &mut [u8], from: &[u8]) {
    const CHUNK: usize = 1 << 20;
    to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| to.copy_from_slice(from));
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::access::Stored;
    use super::*;

    fn check<T: Stored + PartialEq + std::fmt::Debug>(folder: &Arc<Path>, written: Vec<T>) {
        let n = written.len();
        let tensor = Tensor::from_vec(written.clone(), n, &Device::Cpu).unwrap();
        let mapped = Arc::new(Mapped::of(folder, &tensor).unwrap());
        mapped.will_need();
        mapped.sync().unwrap();
        let mut part = vec![0; 4000];
        mapped.read_at(4096, &mut part);
        assert_eq!(part, mapped.read()[4096..8096]);
        let resting = Resting::Disk(mapped);
        assert_eq!(resting.bytes(), bytes(&tensor));
        assert_eq!(resting.in_memory(), 0);
        let copy = resting.copy().unwrap();
        drop(resting);
        assert_eq!(*numbers::<T>(&copy.on_host().unwrap()), written);
    }

    #[test]
    fn what_is_put_on_disk_is_there_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<Path> = folder.path().into();
        check(&path, (0..70_001).map(|i| i as f32 / 3.0).collect());
        check(&path, (0..5001_u32).collect());
        check(&path, (0..4097).map(|i| bf16::from_f32(i as f32)).collect());
        let zeros = Mapped::new(&path, &[3, 5], Dtype::F32).unwrap();
        assert!(zeros.read().iter().all(|byte| *byte == 0) && zeros.read().len() == 60);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn numbers_that_are_none_are_found_on_disk_too() {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<Path> = folder.path().into();
        for (number, expected) in [(1.0, true), (f32::NAN, false), (f32::INFINITY, false)] {
            let tensor = Tensor::from_vec(vec![0.0, 1.0, number], 3, &Device::Cpu).unwrap();
            let mapped = Mapped::of(&path, &tensor).unwrap();
            assert_eq!(Resting::Disk(mapped.into()).is_finite().unwrap(), expected);
            assert_eq!(Resting::Memory(tensor).is_finite().unwrap(), expected);
        }
    }

    #[test]
    fn a_disk_without_room_says_how_much_was_asked_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<Path> = folder.path().join("gone").into();
        let said = Mapped::new(&path, &[1000], Dtype::F32).err().unwrap().to_string();
        assert!(said.starts_with(&format!("{NO_DISK}: 4.00 KiB more in ")), "{said}");
    }
}
