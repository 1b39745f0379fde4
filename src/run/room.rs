//! Room on the devices, asked for before anything is loaded.

use crate::lang::pipeline::Device;
use crate::problem::{Fault, Problem};
use crate::units::Bytes;

use super::Order;

/// Makes sure that what the plan foretells has room on each device, as its memory is shared out now.
///
/// # Errors
/// When a device is too small (78), or others have too much of it (75). Where it cannot be asked, the run will tell.
pub fn check(order: &Order<'_>) -> Result<(), Problem> {
    for (number, machine) in order.devices.iter() {
        let Some(room) = machine.room() else { continue };
        let here = order.plan.stages.iter().zip(&order.estimate.stages);
        let here = here.filter(|(stage, _)| stage.device() == Device::Cuda(number));
        let Some((stage, figures)) = here.max_by_key(|(_, figures)| figures.process()) else { continue };
        // What the driver and its libraries have taken for this process already is part of what it needs.
        let own = room.own.unwrap_or(Bytes(0));
        let free = room.free + own;
        // A guess refuses nobody.
        let measured = figures.beside.as_ref().filter(|beside| beside.measured);
        let needs = measured.map_or(figures.peak + own, |beside| beside.process);
        let what = format!("stage `{}` needs {needs} of cuda({number})", stage.name());
        if needs > room.total {
            return Err(Problem::of(
                Fault::Limit,
                "hift::run::device_too_small",
                format!("{what}, which has {}", room.total),
            )
            .help("plan for less: `memory_limit` with `recompute = auto`, `weights = host`, or a smaller `micro_batch`"));
        }
        if needs > free {
            return Err(Problem::of(
                Fault::Again,
                "hift::run::device_taken",
                format!("{what}, where {free} of {} are free: {}", room.total, room.others()),
            )
            .help("end what else is at work there, call the same command again later, or plan for less"));
        }
    }
    Ok(())
}
