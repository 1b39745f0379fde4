//! What no program says: what a GPU's memory holds beside tensors, in named terms, and how fast a device is.
//!
//! A program counts the bytes of its tensors. On a GPU the process has more: the driver's context, libraries and their
//! workspace, the code of the kernels, and what the pool has taken from the device beyond what tensors use. What these
//! come to depends on the GPU, its driver and the libraries; a [`Profile`] says it. `hift doctor --calibrate` measures
//! one; without it, a careful guess stands in.

use serde::{Deserialize, Serialize};

use crate::lang::pipeline::Device;
use crate::plan::Plan;
use crate::units::Bytes;

use super::{Estimate, StageEstimate};

/// What a device takes beside tensors, and how fast it trains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Its name; none of a guess.
    pub device: Option<String>,
    /// What the driver takes for a process.
    pub context: Bytes,
    /// cuBLAS with its workspace, the generator of random numbers.
    pub libraries: Bytes,
    /// The code of the kernels.
    pub kernels: Bytes,
    /// What the pool takes from the device beyond what tensors use, as a share of that.
    pub rounding: f64,
    /// Floating-point operations a second when a small model was trained.
    pub speed: Option<f64>,
}

impl Profile {
    /// Of processors that nobody has measured: they take nothing that no program says.
    pub fn of_processors() -> Self {
        Self {
            device: None,
            context: Bytes(0),
            libraries: Bytes(0),
            kernels: Bytes(0),
            rounding: 0.0,
            speed: None,
        }
    }

    /// Of a GPU that nobody has measured: round numbers, meant to be rather too large than too small. They refuse nobody.
    pub fn guess() -> Self {
        Self {
            device: None,
            context: Bytes(512 << 20),
            libraries: Bytes(96 << 20),
            kernels: Bytes(32 << 20),
            rounding: 0.02,
            speed: None,
        }
    }

    /// With tensors of so many bytes at the most.
    pub fn with(&self, tensors: Bytes) -> Beside {
        let rounding = Bytes((tensors.0 as f64 * self.rounding).ceil() as u64);
        let Self { device, context, libraries, kernels, .. } = self.clone();
        Beside {
            context,
            libraries,
            kernels,
            rounding,
            process: tensors + context + libraries + kernels + rounding,
            measured: device.is_some(),
        }
    }
}

/// What a stage's process has of a GPU beside its tensors.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Beside {
    pub context: Bytes,
    pub libraries: Bytes,
    pub kernels: Bytes,
    pub rounding: Bytes,
    /// With the tensors: what `nvidia-smi` shows of the process at the most.
    pub process: Bytes,
    /// On this GPU; otherwise a guess.
    pub measured: bool,
}

impl Beside {
    /// What is left for tensors.
    pub fn tensors(&self) -> Bytes {
        Bytes(self.process.0 - self.parts().iter().map(|(_, bytes)| bytes.0).sum::<u64>())
    }

    pub fn parts(&self) -> [(&'static str, Bytes); 4] {
        [
            ("context", self.context),
            ("libraries", self.libraries),
            ("kernels", self.kernels),
            ("rounding", self.rounding),
        ]
    }
}

impl Estimate {
    /// With what the GPUs take beside tensors, and the time that stages take. Memory that a pool has taken stays there
    /// until the run ends, so a stage has what the highest before it had.
    pub fn on_devices(mut self, plan: &Plan, profile: &dyn Fn(Device) -> Profile) -> Self {
        let mut highest: Vec<(u32, Bytes)> = Vec::new();
        for (stage, figures) in plan.stages.iter().zip(&mut self.stages) {
            let profile = profile(stage.device());
            figures.seconds = figures.flops.zip(profile.speed).map(|(flops, speed)| flops / speed);
            let Device::Cuda(number) = stage.device() else { continue };
            let before = highest.iter().find(|(known, _)| *known == number).map(|(_, bytes)| *bytes);
            let tensors = before.unwrap_or_default().max(figures.peak);
            highest.retain(|(known, _)| *known != number);
            highest.push((number, tensors));
            figures.beside = Some(profile.with(tensors));
        }
        self
    }
}

impl StageEstimate {
    /// What the process has of the device at the most, as far as the figures say.
    pub fn process(&self) -> Bytes {
        self.beside.as_ref().map_or(self.peak, |beside| beside.process)
    }
}
