//! Which devices there are, and which of them stages get.

use std::sync::Arc;

use crate::engine::Devices;
use crate::engine::gpu::Machine;
use crate::lang::pipeline::Device;
use crate::plan::Plan;
use crate::problem::{Fault, Problem};

/// Gives the stages whose device is `auto` the first GPU, if there is one. Otherwise they stay with the processors; the
/// reason is said where this program could have used a GPU. Opens no device: a plan takes no memory there.
pub(crate) fn choose(plan: &mut Plan) -> Option<String> {
    let mut open = plan.stages.iter_mut().filter_map(|stage| stage.device_mut());
    let mut auto = open.by_ref().filter(|device| **device == Device::Auto).peekable();
    auto.peek()?;
    match is_there() {
        Ok(()) => {
            auto.for_each(|device| *device = Device::Cuda(0));
            None
        }
        Err(why) => cfg!(feature = "cuda").then(|| format!("computing on the CPU: {why}")),
    }
}

/// Opens the devices that stages ask for.
///
/// # Errors
/// When one of them is not there (69).
pub(crate) fn open(plan: &Plan) -> Result<Devices, Problem> {
    let mut devices = Devices::default();
    for stage in &plan.stages {
        let device = stage.device();
        if let Device::Cuda(number) = device
            && devices.get(device).is_none()
        {
            let machine = cuda(number).map_err(|why| {
                let what = format!("stage `{}` asks for cuda({number}), but {why}", stage.name());
                Problem::of(Fault::Device, "hift::run::no_device", what).help(
                    "write `device = auto` or `device = cpu`; `hift doctor` says more about this machine",
                )
            })?;
            devices = devices.with(number, machine);
        }
    }
    Ok(devices)
}

/// Whether there is a GPU, or why there is none.
#[cfg(not(feature = "cuda"))]
fn is_there() -> Result<(), String> {
    cuda(0).map(drop)
}

/// Whether there is a GPU, or why there is none.
#[cfg(feature = "cuda")]
fn is_there() -> Result<(), String> {
    crate::engine::gpu::cuda::is_there().map_err(|error| absent(&error.to_string()))
}

/// The GPU with this number, or why there is none.
#[cfg(not(feature = "cuda"))]
fn cuda(_: u32) -> Result<Arc<dyn Machine>, String> {
    Err("this program was built without CUDA (`--features cuda`, see the README)".to_owned())
}

/// The GPU with this number, or why there is none.
#[cfg(feature = "cuda")]
fn cuda(number: u32) -> Result<Arc<dyn Machine>, String> {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use crate::engine::gpu::cuda::Cuda;

    // A device is opened once in a program's life.
    static OPEN: Mutex<Option<HashMap<u32, Result<Arc<Cuda>, String>>>> = Mutex::new(None);
    let mut open = OPEN.lock().expect("nobody panics with the devices in hand");
    let known = open.get_or_insert_default().entry(number);
    let machine = known.or_insert_with(|| {
        let kernels = super::cache::cache().map(|cache| cache.folder().join("kernels"));
        Cuda::new(number as usize, kernels).map(Arc::new).map_err(|error| absent(&error.to_string()))
    });
    machine.clone().map(|machine| machine as Arc<dyn Machine>)
}

/// Why there is no device, in a line.
#[cfg(feature = "cuda")]
pub(crate) fn absent(error: &str) -> String {
    let known = crate::engine::gpu::words::words(error).map(|words| words.what);
    known.unwrap_or_else(|| error.lines().next().unwrap_or_default()).to_owned()
}
