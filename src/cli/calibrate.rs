//! `hift doctor --calibrate`: a small training run of its own, and what it took of the device.

use std::fs;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{Sets, disk::Disk, open, profile};
use crate::data::Library;
use crate::engine::Devices;
use crate::lang::pipeline::{Device, Metric};
use crate::lock::Listing;
use crate::plan::{self, StagePlan};
use crate::problem::Problems;
use crate::random::Random;
use crate::run::generate::Written;
use crate::run::{self, Measured, Order, Resume, StepReport, Watch};

/// What the run trains: a model large enough that its tensors are of the sizes that training has.
pub(crate) struct Shape {
    pub hidden: u64,
    pub blocks: u64,
    pub vocab: u64,
    pub seq: u64,
}

impl Shape {
    /// A few seconds of work for a device.
    pub fn of(device: Device) -> Self {
        match device {
            Device::Auto | Device::Cpu => Self { hidden: 512, blocks: 4, vocab: 8192, seq: 256 },
            Device::Cuda(_) => Self { hidden: 1024, blocks: 8, vocab: 16384, seq: 512 },
        }
    }
}

/// What training took.
#[derive(Debug, Default)]
pub(crate) struct Rehearsed {
    /// Of the step that took the most memory.
    pub most: Measured,
    /// Floating-point operations a second.
    pub speed: f64,
    seconds: f64,
}

impl Watch for Rehearsed {
    fn stage(&mut self, _: &StagePlan, _: usize, _: usize) {}

    fn audited(&mut self, _: &Json) {}

    fn step(&mut self, report: &StepReport<'_>) {
        if report.memory.peak > self.most.peak {
            self.most = report.memory;
        }
        // In the first cycle kernels are compiled and pages touched.
        if report.cycle > 0 {
            self.seconds += report.seconds;
        }
    }

    fn evaluated(&mut self, _: &str, _: Option<u64>, _: &[(Metric, f64)]) {}

    fn generated(&mut self, _: &str, _: &str, _: &str) {}

    fn sampled(&mut self, _: &str, _: u64, _: &[Written]) {}

    fn note(&mut self, _: &str) {}
}

/// Trains each group of a fresh model twice, on a GPU in bf16 with states that rest on the host, and says what that took.
pub(crate) fn rehearse(device: Device, devices: &Devices, shape: &Shape) -> Result<Rehearsed, Problems> {
    let folder = tempfile::tempdir().map_err(|error| run::unwritable(&std::env::temp_dir(), &error))?;
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::write(&path, text).map_err(|error| run::unwritable(&path, &error))
    };
    let Shape { hidden, blocks, vocab, seq } = *shape;
    let config = json!({
        "model_type": "llama", "hidden_size": hidden, "num_hidden_layers": blocks,
        "num_attention_heads": hidden / 64, "num_key_value_heads": hidden / 64,
        "intermediate_size": hidden * 11 / 4, "vocab_size": vocab, "max_position_embeddings": seq,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
    });
    write("config.json", config.to_string())?;
    let mut random = Random::named(1, "calibrate");
    let mut row = || {
        let ids: Vec<u64> = (0..seq).map(|_| random.next() % vocab).collect();
        format!("{}\n", json!({ "ids": ids }))
    };
    write("rows.jsonl", (0..8).map(|_| row()).collect())?;
    let (device, precision) = match device {
        Device::Auto | Device::Cpu => ("cpu".to_owned(), "fp32"),
        Device::Cuda(number) => (format!("cuda({number})"), "mixed_hi(bf16)"),
    };
    let text = format!(
        "hift 1
data rows {{ source = json(\"rows.jsonl\")  format = tokens(input = \"ids\") }}
model fresh {{ weights = random(\"config.json\", seed = 1)  precision = {precision} }}
groups layers {{ split = by_layer(1) }}
schedule turns {{ rate = constant(1e-5)  states = host }}
optimizer adamw {{}}
train rehearsal {{
    data = rows  model = fresh  groups = layers  schedule = turns  optimizer = adamw
    steps = {}  micro_batch = 4  device = {device}
}}
",
        2 * (blocks + 2)
    );
    write("rehearsal.hift", text.clone())?;
    let (_, pipeline) =
        open(&folder.path().join("rehearsal.hift"), &Sets::default()).map_err(|failure| failure.problems)?;
    let mut library = Library::new(folder.path().to_path_buf(), &|| false);
    let plan = plan::compile(&pipeline, &mut Disk { library: Some(&mut library) })?;
    let estimate = profile::estimated(&plan);
    let order = Order {
        plan: &plan,
        estimate: &estimate,
        text,
        folder: folder.path().to_path_buf(),
        directory: folder.path().join("run"),
        resume: Resume::Auto,
        scratch: None,
        devices,
        wait: Duration::ZERO,
        inputs: Listing::default(),
        locked: None,
        tensorboard: false,
    };
    let mut rehearsed = Rehearsed::default();
    run::execute(&order, &mut library, &mut rehearsed)?;
    rehearsed.speed = estimate.stages[0].flops.expect("the steps are counted") / 2.0 / rehearsed.seconds;
    Ok(rehearsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rehearsal_is_a_run_as_it_was_foretold() {
        let shape = Shape { hidden: 64, blocks: 2, vocab: 128, seq: 16 };
        let rehearsed = rehearse(Device::Cpu, &Devices::default(), &shape).unwrap();
        assert!(rehearsed.speed > 1e5 && rehearsed.speed.is_finite(), "{rehearsed:?}");
    }
}
