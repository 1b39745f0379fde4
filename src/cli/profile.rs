//! What GPUs take beside tensors, and how fast devices are, as `hift doctor --calibrate` has measured it: a file for each
//! kind of device, in the cache.

use crate::estimate::{self, Estimate, Profile};
use crate::lang::pipeline::Device;
use crate::plan::Plan;

use super::threads;

/// A settled plan's estimate, with what is known of the devices here.
pub(crate) fn estimated(plan: &Plan) -> Estimate {
    estimate::estimate(plan, threads()).on_devices(plan, &of)
}

/// Of a device, or a guess where it is not here or nobody has measured it.
fn of(device: Device) -> Profile {
    #[cfg(feature = "run")]
    if let Some(name) = name(device)
        && let Some(known) = file(&name).and_then(|file| read(&file))
        && known.device == Some(name)
    {
        return known;
    }
    match device {
        Device::Auto | Device::Cpu => Profile::of_processors(),
        Device::Cuda(_) => Profile::guess(),
    }
}

/// What a device is called, so that its profile is found again. Opens none.
#[cfg(feature = "run")]
pub(crate) fn name(device: Device) -> Option<String> {
    match device {
        Device::Auto | Device::Cpu => {
            Some(format!("{}, {} threads", super::processor::Processor::here().name, threads()))
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(number) => crate::engine::gpu::cuda::name(number as usize).ok(),
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(_) => None,
    }
}

/// Where the profile of a kind of device is kept.
#[cfg(feature = "run")]
pub(crate) fn file(name: &str) -> Option<std::path::PathBuf> {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    super::cache::cache().map(|cache| cache.folder().join("devices").join(format!("{name}.json")))
}

#[cfg(feature = "run")]
fn read(file: &std::path::Path) -> Option<Profile> {
    let profile: Profile = serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
    // What is no share or no speed was not written by this program.
    let sound = (0.0..1.0).contains(&profile.rounding) && profile.speed.is_none_or(|speed| speed > 0.0);
    sound.then_some(profile)
}

/// Keeps what was measured of a device.
///
/// # Errors
/// Why not, in words.
#[cfg(feature = "run")]
pub(crate) fn keep(profile: &Profile) -> Result<(), String> {
    let name = profile.device.as_deref().expect("what was measured has a name");
    let file = file(name).ok_or("there is no cache to keep it in: set HIFT_CACHE to a folder")?;
    let text = serde_json::to_string_pretty(profile).expect("a profile is JSON") + "\n";
    let folder = file.parent().expect("a file in a folder");
    std::fs::create_dir_all(folder)
        .map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
    crate::run::write_whole(&file, &text).map_err(|problem| problem.to_string())
}
