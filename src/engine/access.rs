//! From candle's tensors to slices and back. Every tensor here is contiguous and owns its storage whole.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Deref;

use bytemuck::Pod;
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Storage, Tensor, WithDType};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::units::Dtype;

use super::cpu::buffer;
use super::cpu::number::Number;

/// A type that tensors are made of, as candle stores it.
pub trait Stored: WithDType + Pod {
    fn slice(storage: &CpuStorage) -> Option<&[Self]>;
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

macro_rules! stored {
    ($($of:ty: $storage:ident),*) => {
        $(impl Stored for $of {
            fn slice(storage: &CpuStorage) -> Option<&[Self]> {
                match storage {
                    CpuStorage::$storage(numbers) => Some(numbers),
                    _ => None,
                }
            }

            fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
                match storage {
                    CpuStorage::$storage(numbers) => Some(numbers),
                    _ => None,
                }
            }
        })*
    };
}
stored!(f32: F32, bf16: BF16, f16: F16, u32: U32);

/// A tensor's storage, locked against writing, as the slice that it is.
struct View<G, T>(G, PhantomData<T>);

impl<G: Deref<Target = Storage>, T: Stored> Deref for View<G, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let numbers = match &*self.0 {
            Storage::Cpu(storage) => T::slice(storage),
            _ => None,
        };
        numbers.expect("the program says what a tensor is made of")
    }
}

/// A tensor's numbers, to read. The tensor must not be edited while they are held.
pub fn numbers<T: Stored>(tensor: &Tensor) -> impl Deref<Target = [T]> + use<'_, T> {
    View(tensor.storage_and_layout().0, PhantomData::<T>)
}

/// Numbers of 32 bits, to read.
pub fn floats(tensor: &Tensor) -> impl Deref<Target = [f32]> + '_ {
    numbers(tensor)
}

/// Ids, to read.
pub fn ids(tensor: &Tensor) -> impl Deref<Target = [u32]> + '_ {
    numbers(tensor)
}

/// What a tensor is made of.
pub fn dtype(tensor: &Tensor) -> Dtype {
    match tensor.dtype() {
        DType::F32 => Dtype::F32,
        DType::BF16 => Dtype::Bf16,
        DType::F16 => Dtype::F16,
        DType::U32 => Dtype::U32,
        _ => unreachable!("a program has no other types"),
    }
}

/// Bytes that a tensor takes.
pub fn bytes(tensor: &Tensor) -> u64 {
    dtype(tensor).size() * tensor.elem_count() as u64
}

/// Calls `$body` with the type that a [`Dtype`] of floats names.
macro_rules! with_floats {
    ($dtype:expr, $of:ident => $body:expr) => {
        match $dtype {
            $crate::units::Dtype::F32 => {
                type $of = f32;
                $body
            }
            $crate::units::Dtype::Bf16 => {
                type $of = half::bf16;
                $body
            }
            $crate::units::Dtype::F16 => {
                type $of = half::f16;
                $body
            }
            $crate::units::Dtype::U32 => unreachable!("words are no floats"),
        }
    };
}
pub(crate) use with_floats;

/// A tensor's storage, to be written into.
#[derive(Debug)]
pub enum Slot<'a> {
    Floats(&'a mut [f32]),
    /// Bytes, which lie four to a word of `u32`.
    Codes(&'a mut [u8]),
}

impl<'a> Slot<'a> {
    pub fn floats(self) -> &'a mut [f32] {
        match self {
            Slot::Floats(numbers) => numbers,
            Slot::Codes(_) => unreachable!("floats were asked for"),
        }
    }

    pub fn codes(self) -> &'a mut [u8] {
        match self {
            Slot::Codes(codes) => codes,
            Slot::Floats(_) => unreachable!("codes were asked for"),
        }
    }
}

struct Edit<F>(RefCell<Option<F>>);

impl<F: FnOnce(&mut CpuStorage)> InplaceOp1 for Edit<F> {
    fn name(&self) -> &'static str {
        "edit"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        let edit = self.0.borrow_mut().take().expect("candle calls an operation once");
        edit(storage);
        Ok(())
    }
}

fn edit_storage(tensor: &Tensor, change: impl FnOnce(&mut CpuStorage)) -> Result<()> {
    tensor.inplace_op1(&Edit(RefCell::new(Some(change))))
}

/// Lets `change` write into the tensor's storage.
pub fn edit<T: Stored>(tensor: &Tensor, change: impl FnOnce(&mut [T])) -> Result<()> {
    edit_storage(tensor, |storage| {
        change(T::slice_mut(storage).expect("the program says what a tensor is made of"));
    })
}

/// Lets `change` write into several tensors of 32-bit floats or words at once.
pub fn edit_all(tensors: &[Tensor], change: impl FnOnce(Vec<Slot<'_>>)) -> Result<()> {
    fn further<'a>(
        tensors: &[Tensor],
        held: Vec<Slot<'a>>,
        change: &mut dyn FnMut(Vec<Slot<'_>>),
    ) -> Result<()> {
        let Some((tensor, rest)) = tensors.split_first() else {
            change(held);
            return Ok(());
        };
        let mut done = Ok(());
        edit_storage(tensor, |storage| {
            let slot = match storage {
                CpuStorage::F32(numbers) => Slot::Floats(numbers),
                CpuStorage::U32(words) => Slot::Codes(bytemuck::cast_slice_mut(words)),
                _ => unreachable!("optimizers keep 32-bit floats and words only"),
            };
            // All of them live as long as this call.
            let mut held: Vec<Slot<'_>> = held;
            held.push(slot);
            done = further(rest, held, change);
        })?;
        done
    }
    let mut change = Some(change);
    further(tensors, Vec::with_capacity(tensors.len()), &mut |slots| {
        change.take().expect("all tensors are held once")(slots);
    })
}

/// Where a tensor of the host lies, and its bytes; for a device to copy from and to.
pub fn place(tensor: &Tensor) -> Result<(u64, usize)> {
    let mut at = 0;
    edit_storage(tensor, |storage| {
        at = match storage {
            CpuStorage::F32(numbers) => numbers.as_mut_ptr() as u64,
            CpuStorage::BF16(numbers) => numbers.as_mut_ptr() as u64,
            CpuStorage::F16(numbers) => numbers.as_mut_ptr() as u64,
            CpuStorage::U32(words) => words.as_mut_ptr() as u64,
            _ => unreachable!("a program has no other types"),
        }
    })?;
    Ok((at, bytes(tensor) as usize))
}

/// A new tensor of zeros.
pub fn zeros(shape: &[usize], dtype: Dtype) -> Result<Tensor> {
    match dtype {
        Dtype::U32 => Tensor::from_vec(vec![0_u32; shape.iter().product()], shape, &Device::Cpu),
        floats => with_floats!(floats, T => {
            fresh(shape, |numbers: &mut [T]| numbers.par_iter_mut().for_each(|x| *x = T::nearest(0.0)))
        }),
    }
}

/// A new tensor that `fill` writes whole. Nothing else is allocated.
pub fn fresh<T: Stored + Number>(shape: &[usize], fill: impl FnOnce(&mut [T])) -> Result<Tensor> {
    let mut numbers = buffer(shape.iter().product());
    fill(&mut numbers);
    Tensor::from_vec(numbers, shape, &Device::Cpu)
}
