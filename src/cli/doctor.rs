//! `hift doctor`

use serde_json::{Value as Json, json};

use super::{Failure, print};
use crate::engine::gpu::check::Compared;
use crate::problem::{Fault, Problem};
use crate::units::Bytes;

#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// As JSON
    #[arg(long)]
    json: bool,
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
}

impl Doctor {
    pub fn run(self) -> Result<(), Failure> {
        let processor = processor();
        let (gpus, notice) = gpus();
        if self.json {
            let gpus: Vec<Json> = gpus.iter().map(Gpu::json).collect();
            let all = json!({ "cpu": processor.json(), "gpus": gpus, "cuda": notice });
            print(&format!("{all:#}\n"))?;
        } else {
            let mut text = processor.text();
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
            None => Ok(()),
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

struct Processor {
    name: String,
    threads: usize,
    vectors: &'static str,
    memory: Option<(Bytes, Bytes)>,
}

fn processor() -> Processor {
    let field = |file: &str, name: &str| -> Option<String> {
        let text = std::fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let kib = |name| -> Option<Bytes> {
        let kib = field("/proc/meminfo", name)?;
        kib.strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| Bytes(kib * 1024))
    };
    Processor {
        name: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        threads: super::threads(),
        vectors: vectors(),
        memory: kib("MemAvailable").zip(kib("MemTotal")),
    }
}

/// The widest vectors that the kernels of the CPU find.
fn vectors() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return "AVX-512";
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            return "AVX2";
        }
        "SSE2"
    }
    #[cfg(not(target_arch = "x86_64"))]
    "those of the architecture"
}

impl Processor {
    fn text(&self) -> String {
        let memory = self
            .memory
            .map_or(String::new(), |(free, total)| format!("memory     {free} of {total} available\n"));
        format!("cpu        {}, {} threads, vectors {}\n{memory}", self.name, self.threads, self.vectors)
    }

    fn json(&self) -> Json {
        json!({
            "name": self.name,
            "threads": self.threads,
            "vectors": self.vectors,
            "memory_available": self.memory.map(|(free, _)| free.0),
            "memory": self.memory.map(|(_, total)| total.0),
        })
    }
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
        text
    }

    fn json(&self) -> Json {
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
        json!({ "ordinal": self.ordinal, "device": self.json, "kernels": kernels })
    }
}

/// The GPUs, or why there are none.
#[cfg(not(feature = "cuda"))]
fn gpus() -> (Vec<Gpu>, Option<String>) {
    (Vec::new(), Some("this program was built without it (`--features cuda`, see the README)".to_owned()))
}

/// The GPUs, or why there are none.
#[cfg(feature = "cuda")]
fn gpus() -> (Vec<Gpu>, Option<String>) {
    use crate::engine::gpu::cuda::Cuda;

    let mut gpus = Vec::new();
    for ordinal in 0.. {
        match Cuda::new(ordinal, None) {
            Ok(machine) => gpus.push(look(ordinal, &machine)),
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
    Gpu { ordinal, about, json, kernels: result.map(|()| kernels) }
}
