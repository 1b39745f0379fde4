//! What the driver's management library (NVML, what `nvidia-smi` asks) says of a GPU's memory: CUDA knows how much is
//! free, this library who has the rest.

use nvml_wrapper::Nvml;
use nvml_wrapper::enums::device::UsedGpuMemory;

use crate::units::Bytes;

use super::machine::Room;

/// A GPU, asked without opening it.
pub struct Management {
    library: Nvml,
    uuid: String,
}

impl Management {
    /// The GPU with this UUID; None where the library is not there or does not know it, as of a part of a GPU.
    pub fn of(uuid: String) -> Option<Self> {
        // The name without a version belongs to a toolkit, which need not be there.
        let library = Nvml::builder().lib_path("libnvidia-ml.so.1".as_ref()).init().ok()?;
        library.device_by_uuid(uuid.as_str()).ok()?;
        Some(Self { library, uuid })
    }

    /// What is taken of its memory by all processes and the driver.
    pub fn used(&self) -> Option<Bytes> {
        let device = self.library.device_by_uuid(self.uuid.as_str()).ok()?;
        Some(Bytes(device.memory_info().ok()?.used))
    }

    /// How its memory is shared out. `before`: what was taken before this process opened the device; where processes
    /// cannot be told apart, as in a container, what came since then is called its own.
    pub fn room(&self, before: Option<Bytes>) -> Option<Room> {
        let device = self.library.device_by_uuid(self.uuid.as_str()).ok()?;
        let memory = device.memory_info().ok()?;
        let mut own = None;
        let mut others = Vec::new();
        for process in device.running_compute_processes().unwrap_or_default() {
            let UsedGpuMemory::Used(bytes) = process.used_gpu_memory else { continue };
            if process.pid == std::process::id() {
                own = Some(Bytes(bytes));
            } else {
                others.push((name(process.pid), Bytes(bytes)));
            }
        }
        others.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let since = before.map(|before| Bytes(memory.used.saturating_sub(before.0)));
        Some(Room { total: Bytes(memory.total), free: Bytes(memory.free), own: own.or(since), others })
    }
}

/// `python3 (process 4711)`
fn name(pid: u32) -> String {
    let command = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    match command.as_deref().map(str::trim) {
        Ok(command) if !command.is_empty() => format!("{command} (process {pid})"),
        _ => format!("process {pid}"),
    }
}
