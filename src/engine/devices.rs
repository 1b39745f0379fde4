//! Which devices compute: those that stages ask for, opened once.

use std::sync::Arc;

use crate::lang::pipeline::Device;

use super::gpu::Machine;

/// Devices by their numbers; a stage whose device is none of them is computed by the processors.
#[derive(Clone, Default)]
pub struct Devices(Vec<(u32, Arc<dyn Machine>)>);

impl Devices {
    /// With one more.
    pub fn with(mut self, number: u32, machine: Arc<dyn Machine>) -> Self {
        self.0.push((number, machine));
        self
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Arc<dyn Machine>)> {
        self.0.iter().map(|(number, machine)| (*number, machine))
    }

    /// What computes a stage that asks for `device`; None for the processors.
    pub fn get(&self, device: Device) -> Option<&Arc<dyn Machine>> {
        match device {
            Device::Auto | Device::Cpu => None,
            Device::Cuda(number) => {
                self.0.iter().find(|(known, _)| *known == number).map(|(_, machine)| machine)
            }
        }
    }
}
