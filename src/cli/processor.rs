//! What a plan's time on the CPU and `hift doctor` want to know of the machine.

use serde_json::{Value as Json, json};

use crate::units::Bytes;

/// The processors of this machine, and their memory.
pub(super) struct Processor {
    pub(super) name: String,
    threads: usize,
    vectors: &'static str,
    /// Available, and in all.
    memory: Option<(Bytes, Bytes)>,
}

impl Processor {
    pub(super) fn here() -> Self {
        let field = |file: &str, name: &str| -> Option<String> {
            let text = std::fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kib = |name| -> Option<Bytes> {
            let kib = field("/proc/meminfo", name)?;
            kib.strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| Bytes(kib * 1024))
        };
        Self {
            name: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            threads: super::threads(),
            vectors: vectors(),
            memory: kib("MemAvailable").zip(kib("MemTotal")),
        }
    }

    pub(super) fn text(&self) -> String {
        let memory = self
            .memory
            .map_or(String::new(), |(free, total)| format!("memory     {free} of {total} available\n"));
        format!("cpu        {}, {} threads, vectors {}\n{memory}", self.name, self.threads, self.vectors)
    }

    pub(super) fn json(&self) -> Json {
        json!({
            "name": self.name,
            "threads": self.threads,
            "vectors": self.vectors,
            "memory_available": self.memory.map(|(free, _)| free.0),
            "memory": self.memory.map(|(_, total)| total.0),
        })
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
