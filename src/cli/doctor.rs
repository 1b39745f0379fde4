//! `hift doctor`

use serde_json::{Value as Json, json};

use super::calibrate::{Shape, rehearse};
use super::processor::Processor;
use super::{Failure, print, profile};
use crate::engine::Devices;
use crate::engine::gpu::check::Compared;
use crate::estimate::Profile;
use crate::lang::pipeline::Device;
use crate::problem::{Fault, Problem};
use crate::report;

#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Train a small model for a few steps on each device, and keep for plans how fast it was and what a GPU takes beside
    /// tensors. Nobody else should be at work there
    #[arg(long)]
    calibrate: bool,
}

/// What the kernels of a device came to, against those of the CPU.
#[derive(Debug, Default)]
struct Kernels {
    /// Per type of numbers: how many agree, of how many.
    counts: Vec<(String, usize, usize)>,
    /// Those that do not.
    apart: Vec<Compared>,
}

/// A GPU, as far as it can be asked.
struct Gpu {
    ordinal: usize,
    /// Lines for people.
    about: Vec<String>,
    json: Json,
    kernels: Result<Kernels, String>,
    /// What it takes beside tensors, where that was measured now.
    profile: Option<Result<Profile, String>>,
}

impl Doctor {
    pub fn run(self) -> Result<(), Failure> {
        let processor = Processor::here();
        let own = self.calibrate.then(speed_of_processors);
        let (gpus, notice) = gpus(self.calibrate);
        if self.json {
            let gpus: Vec<Json> = gpus.iter().map(Gpu::json).collect();
            let own = own.as_ref().and_then(|own| own.as_ref().ok());
            let all = json!({ "cpu": processor.json(), "profile": own, "gpus": gpus, "cuda": notice });
            print(&format!("{all:#}\n"))?;
        } else {
            let mut text = processor.text();
            match &own {
                None => {}
                Some(Ok(profile)) => text += &format!("training   {}; kept for plans\n", speed(profile)),
                Some(Err(error)) => text += &format!("training   {error}\n"),
            }
            if let Some(notice) = &notice {
                text += &format!("cuda       {notice}\n");
            }
            for gpu in &gpus {
                text += &gpu.text();
            }
            print(&text)?;
        }
        let broken =
            gpus.iter().find(|gpu| gpu.kernels.as_ref().map_or(true, |kernels| !kernels.apart.is_empty()));
        match broken {
            None => measured(own.iter().chain(gpus.iter().filter_map(|gpu| gpu.profile.as_ref()))),
            Some(gpu) => Err(Problem::of(
                Fault::Failed,
                "hift::cli::unsound_device",
                format!("cuda({}) does not compute what the CPU does", gpu.ordinal),
            )
            .help("train on another device, and report what stands above")
            .into()),
        }
    }
}

/// Whether what was asked for has been measured.
fn measured<'a>(mut profiles: impl Iterator<Item = &'a Result<Profile, String>>) -> Result<(), Failure> {
    match profiles.find_map(|profile| profile.as_ref().err()) {
        None => Ok(()),
        Some(why) => Err(Problem::of(
            Fault::Failed,
            "hift::cli::not_calibrated",
            format!("a device was not measured: {why}"),
        )
        .help("end what else is at work on the device, and call it again")
        .into()),
    }
}

/// How fast the processors train, kept where plans find it.
fn speed_of_processors() -> Result<Profile, String> {
    let rehearsed = rehearse(Device::Cpu, &Devices::default(), &Shape::of(Device::Cpu));
    let speed = Some(rehearsed.map_err(|problems| problems.to_string())?.speed);
    let known = Profile { device: profile::name(Device::Cpu), speed, ..Profile::of_processors() };
    profile::keep(&known)?;
    Ok(known)
}

fn speed(profile: &Profile) -> String {
    profile
        .speed
        .map_or("nothing is known of its speed".to_owned(), |speed| format!("{}/s", report::flops(speed)))
}

impl Gpu {
    fn text(&self) -> String {
        let mut text = format!("\ncuda({})    {}\n", self.ordinal, self.about.join("\n           "));
        match &self.kernels {
            Err(error) => text += &format!("kernels    {error}\n"),
            Ok(kernels) => {
                let counts: Vec<String> = kernels
                    .counts
                    .iter()
                    .map(|(dtype, agree, all)| format!("{dtype} {agree} of {all} agree"))
                    .collect();
                text += &format!("kernels    against the CPU: {}\n", counts.join(" · "));
                for compared in &kernels.apart {
                    let Compared { name, dtype, apart, allowed } = compared;
                    text +=
                        &format!("           {name} in {dtype}: {apart:.1e} apart, {allowed:.0e} allowed\n");
                }
            }
        }
        match &self.profile {
            None => {}
            Some(Err(error)) => text += &format!("profile    {error}\n"),
            Some(Ok(profile)) => {
                let Profile { context, libraries, kernels, rounding, .. } = profile;
                text += &format!(
                    "profile    beside tensors: context {context}, libraries {libraries}, kernels {kernels}, rounding \
                     {:.1} %; training at {}; kept for plans\n",
                    100.0 * rounding,
                    speed(profile)
                );
            }
        }
        text
    }

    fn json(&self) -> Json {
        let profile = self.profile.as_ref().and_then(|profile| profile.as_ref().ok());
        let kernels = match &self.kernels {
            Err(error) => json!({ "error": error }),
            Ok(kernels) => {
                let counts: Vec<Json> = kernels
                    .counts
                    .iter()
                    .map(|(dtype, agree, all)| json!({ "dtype": dtype, "agree": agree, "of": all }))
                    .collect();
                let apart: Vec<Json> = kernels
                    .apart
                    .iter()
                    .map(|one| json!({ "operation": one.name, "dtype": one.dtype.to_string(), "apart": one.apart }))
                    .collect();
                json!({ "counts": counts, "apart": apart })
            }
        };
        json!({ "ordinal": self.ordinal, "device": self.json, "kernels": kernels, "profile": profile })
    }
}

/// The GPUs, or why there are none.
#[cfg(not(feature = "cuda"))]
fn gpus(_: bool) -> (Vec<Gpu>, Option<String>) {
    (Vec::new(), Some("this program was built without it (`--features cuda`, see the README)".to_owned()))
}

/// The GPUs, or why there are none.
#[cfg(feature = "cuda")]
fn gpus(calibrate: bool) -> (Vec<Gpu>, Option<String>) {
    use std::sync::Arc;

    use crate::engine::gpu::cuda::Cuda;

    let mut gpus = Vec::new();
    for ordinal in 0.. {
        match Cuda::new(ordinal, None).map(Arc::new) {
            Ok(machine) => {
                // Before the kernels are there: what they take is part of it.
                let profile = calibrate.then(|| measure(ordinal as u32, &machine));
                gpus.push(Gpu { profile, ..look(ordinal, &machine) });
            }
            Err(error) if gpus.is_empty() => {
                return (gpus, Some(super::device::absent(&error.to_string())));
            }
            Err(_) => break,
        }
    }
    (gpus, None)
}

#[cfg(feature = "cuda")]
fn look(ordinal: usize, machine: &crate::engine::gpu::cuda::Cuda) -> Gpu {
    use crate::engine::gpu::check::compare;
    use crate::units::Dtype;

    let (about, json) = match machine.about() {
        Err(error) => {
            let error = error.to_string();
            (vec![error.lines().next().unwrap_or_default().to_owned()], Json::Null)
        }
        Ok(about) => {
            let (major, minor) = about.capability;
            let lines = vec![
                format!("{}, compute capability {major}.{minor}, {}", about.name, about.uuid),
                format!("driver for CUDA {}.{}", about.driver / 1000, about.driver % 1000 / 10),
                format!("{} of {} free", about.free, about.total),
            ];
            let json = json!({
                "name": about.name, "uuid": about.uuid, "compute_capability": format!("{major}.{minor}"),
                "cuda": about.driver, "free": about.free.0, "total": about.total.0,
            });
            (lines, json)
        }
    };
    let mut kernels = Kernels::default();
    let mut result = Ok(());
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
        let (mut agree, mut all) = (0, 0);
        let done = compare(machine, dtype, &mut |compared| {
            all += 1;
            if compared.agrees() {
                agree += 1;
            } else {
                kernels.apart.push(compared);
            }
        });
        kernels.counts.push((dtype.to_string(), agree, all));
        result = result.and(done.map_err(|error| {
            let error = error.to_string();
            format!("{dtype}: {}", error.lines().next().unwrap_or_default())
        }));
    }
    Gpu { ordinal, about, json, kernels: result.map(|()| kernels), profile: None }
}

/// What a GPU takes beside tensors: of its memory before it was opened, with the driver's context, with the libraries,
/// and after a few steps of training. Kept where plans find it.
#[cfg(feature = "cuda")]
fn measure(number: u32, machine: &std::sync::Arc<crate::engine::gpu::cuda::Cuda>) -> Result<Profile, String> {
    use crate::units::Bytes;

    let words = |error: candle_core::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
    let silent = "the driver's management library (libnvidia-ml.so.1) does not say what is taken";
    let taken = machine.taken();
    let (before, context) = taken.before.zip(taken.context).ok_or(silent)?;
    machine.warm_up().map_err(words)?;
    let warm = machine.beside_tensors().map_err(words)?.ok_or(silent)?;
    let devices = Devices::default().with(number, machine.clone());
    let device = Device::Cuda(number);
    let rehearsed =
        rehearse(device, &devices, &Shape::of(device)).map_err(|problems| problems.to_string())?;
    let all = machine.beside_tensors().map_err(words)?.ok_or(silent)?;
    // Others may let go of some meanwhile.
    let less = |after: Bytes, before: Bytes| Bytes(after.0.saturating_sub(before.0));
    let most = rehearsed.most;
    let known = Profile {
        device: Some(machine.about().map_err(words)?.name),
        context: less(context, before),
        libraries: less(warm, context),
        kernels: less(all, warm),
        rounding: (most.reserved.0 as f64 / most.peak.0.max(1) as f64 - 1.0).max(0.0),
        speed: Some(rehearsed.speed),
    };
    profile::keep(&known)?;
    Ok(known)
}
