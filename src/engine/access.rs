//! From candle's tensors to slices and back. Every tensor here is contiguous and owns its storage whole.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Deref;

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Result, Storage, Tensor};

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

struct Edit<F>(RefCell<Option<F>>);

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Edit<F> {
    fn name(&self) -> &'static str {
        "edit"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        let CpuStorage::F32(numbers) = storage else {
            unreachable!("the CPU player makes 32-bit floats only")
        };
        let edit = self.0.borrow_mut().take().expect("candle calls an operation once");
        edit(numbers);
        Ok(())
    }
}

/// Lets `change` write into the tensor's storage.
pub fn edit(tensor: &Tensor, change: impl FnOnce(&mut [f32])) -> Result<()> {
    tensor.inplace_op1(&Edit(RefCell::new(Some(change))))
}

/// A new tensor that `fill` writes whole. Nothing else is allocated.
pub fn fresh(shape: &[usize], fill: impl FnOnce(&mut [f32])) -> Result<Tensor> {
    let mut numbers = super::cpu::buffer(shape.iter().product());
    fill(&mut numbers);
    Tensor::from_vec(numbers, shape, &Device::Cpu)
}
