//! From candle's tensors to slices and back. Every tensor here is contiguous and owns its storage whole.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Deref;

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Result, Storage, Tensor};
use rayon::prelude::*;

use crate::units::Dtype;

/// A tensor's storage, locked against writing, as the slice that it is.
struct View<G>(G);

impl<G: Deref<Target = Storage>> Deref for View<(G, PhantomData<f32>)> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match &*self.0.0 {
            Storage::Cpu(CpuStorage::F32(numbers)) => numbers,
            _ => unreachable!("the CPU player makes 32-bit floats only"),
        }
    }
}

impl<G: Deref<Target = Storage>> Deref for View<(G, PhantomData<u32>)> {
    type Target = [u32];
    fn deref(&self) -> &[u32] {
        match &*self.0.0 {
            Storage::Cpu(CpuStorage::U32(ids)) => ids,
            _ => unreachable!("what a batch brings is u32"),
        }
    }
}

/// A tensor's numbers, to read. The tensor must not be edited while they are held.
pub fn floats(tensor: &Tensor) -> impl Deref<Target = [f32]> + '_ {
    View((tensor.storage_and_layout().0, PhantomData::<f32>))
}

/// Ids, to read.
pub fn ids(tensor: &Tensor) -> impl Deref<Target = [u32]> + '_ {
    View((tensor.storage_and_layout().0, PhantomData::<u32>))
}

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

impl<F: FnOnce(Slot<'_>)> InplaceOp1 for Edit<F> {
    fn name(&self) -> &'static str {
        "edit"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        let slot = match storage {
            CpuStorage::F32(numbers) => Slot::Floats(numbers),
            CpuStorage::U32(words) => Slot::Codes(bytemuck::cast_slice_mut(words)),
            _ => unreachable!("the CPU player makes 32-bit floats and words only"),
        };
        let edit = self.0.borrow_mut().take().expect("candle calls an operation once");
        edit(slot);
        Ok(())
    }
}

/// Lets `change` write into the tensor's storage.
pub fn edit(tensor: &Tensor, change: impl FnOnce(&mut [f32])) -> Result<()> {
    edit_slot(tensor, |slot| change(slot.floats()))
}

fn edit_slot(tensor: &Tensor, change: impl FnOnce(Slot<'_>)) -> Result<()> {
    tensor.inplace_op1(&Edit(RefCell::new(Some(change))))
}

/// Lets `change` write into several tensors at once.
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
        edit_slot(tensor, |slot| {
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

/// A new tensor of zeros.
pub fn zeros(shape: &[usize], dtype: Dtype) -> Result<Tensor> {
    let n = shape.iter().product();
    match dtype {
        Dtype::F32 => fresh(shape, |numbers| numbers.par_iter_mut().for_each(|x| *x = 0.0)),
        Dtype::U32 => Tensor::from_vec(vec![0_u32; n], shape, &Device::Cpu),
        Dtype::F16 | Dtype::Bf16 => unreachable!("the CPU player makes 32-bit floats and words only"),
    }
}

/// A new tensor that `fill` writes whole. Nothing else is allocated.
pub fn fresh(shape: &[usize], fill: impl FnOnce(&mut [f32])) -> Result<Tensor> {
    let mut numbers = super::cpu::buffer(shape.iter().product());
    fill(&mut numbers);
    Tensor::from_vec(numbers, shape, &Device::Cpu)
}
