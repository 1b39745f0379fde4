//! The kernels of the GPU, on a CPU that acts like one: every program must leave what the CPU's own kernels leave.
//!
//! The sources are compiled by the system's C++ compiler against `tests/gpu/emulate.hpp`, which has what they use of
//! CUDA: threads that wait for each other, warps that exchange values, shared memory, tensor cores. What is not
//! emulated is the driver, and cuBLAS: a GPU has to show those (`tests/gpu/run.sh`).

mod common;
#[path = "gpu/emulator.rs"]
mod emulator;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use candle_core::{Result, Tensor};
use hift::engine::gpu::{Launch, Machine, Pin, Product, Room, Ticket, Usage};
use hift::engine::{Inputs, Knobs, Parameters, Place, Resting, Store, gpu, play, store};
use hift::lang::pipeline::{Algorithm, Half, Precision, Setting, Weights};
use hift::model::{Head, Model};
use hift::program::precision::lower;
use hift::program::residency::{Away, Rests};
use hift::program::{
    Backend, BatchShape, Op, ParamId, Program, Settings, State, StepPrograms, forward_only, step_programs,
};
use hift::random::Random;
use hift::units::Dtype;

use common::families::FAMILIES;
use emulator::Emulator;

/// Largest difference of a tensor, as a part of its norm.
const TENSOR: f64 = 2e-5;
/// Numbers that are nothing but rounding: the gradient of a key's bias is zero.
const NOTHING: f64 = 2e-8;

/// Numbers from -1 to 1.
fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::named(seed, "numbers");
    (0..n).map(|_| (random.below(2_000_001) as f32) / 1e6 - 1.0).collect()
}

fn copy(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(|tensor| tensor.force_contiguous().and_then(|t| t.copy()).unwrap()).collect()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    match tensor.dtype() {
        candle_core::DType::U32 => {
            // Codes of 8 bits, compared byte by byte.
            let words = tensor.flatten_all().unwrap().to_vec1::<u32>().unwrap();
            words.into_iter().flat_map(u32::to_le_bytes).map(f32::from).collect()
        }
        _ => {
            let wide = tensor.to_dtype(candle_core::DType::F32).unwrap();
            wide.flatten_all().unwrap().to_vec1().unwrap()
        }
    }
}

fn assert_near(got: &Tensor, expected: &Tensor, part: f64, what: &str) {
    let (got, expected) = (numbers(got), numbers(expected));
    assert_eq!(got.len(), expected.len());
    let norm = |all: &mut dyn Iterator<Item = f64>| all.map(|x| x * x).sum::<f64>().sqrt();
    let apart = norm(&mut got.iter().zip(&expected).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let length = norm(&mut expected.iter().map(|x| f64::from(*x)));
    let nothing = NOTHING * (part / TENSOR) * (got.len() as f64).sqrt();
    let allowed = part * length + nothing;
    // NaN is never near.
    assert!(apart <= allowed, "{what}: {apart:e} apart of {length:e}\n{got:?}\n{expected:?}");
}

/// A batch for a graph of `shape`; the last row is padded, one token has no label.
fn batch(model: &Model, shape: BatchShape, seed: u64) -> Inputs {
    let rows = shape.batch * shape.seq;
    let mut random = Random::named(seed, "batch");
    let ids: Vec<u32> = (0..rows).map(|_| random.below(model.vocab as u64) as u32).collect();
    let mut labels: Vec<u32> = (0..rows).map(|_| random.below(model.vocab as u64) as u32).collect();
    labels[1] = u32::MAX;
    let mut starts = vec![0; rows];
    let mut positions: Vec<u32> = (0..rows).map(|i| (i % shape.seq) as u32).collect();
    if shape.packed {
        for (i, start) in starts.iter_mut().enumerate() {
            // Three documents in each row.
            let at = (i % shape.seq) as u32;
            let cuts = [0, shape.seq as u32 / 3, shape.seq as u32 * 2 / 3];
            *start = *cuts.iter().rfind(|cut| **cut <= at).unwrap();
            positions[i] = at - *start;
        }
    }
    let n_classes = match model.head {
        Head::Tokens { .. } | Head::Span { .. } => 1,
        Head::Sequence { .. } => 2,
        Head::Labels { ref classes, .. } => {
            // The classes of tokens are their labels.
            let classes = classes.len() as u32;
            labels.iter_mut().filter(|label| **label != u32::MAX).for_each(|label| *label %= classes);
            1
        }
    };
    Inputs {
        ids,
        types: Vec::new(),
        labels,
        positions,
        starts: Some(starts),
        queries: (0..shape.batch).map(|i| ((i + 1) * shape.seq - 1) as u32).collect(),
        classes: (0..shape.batch).map(|_| random.below(n_classes) as u32).collect(),
        // Answers of up to three tokens, in texts without the last token.
        spans: [0, 2, shape.seq as u32 - 1].iter().flat_map(|at| vec![*at; shape.batch]).collect(),
        targets: (0..shape.batch).map(|i| (i as f32 - 0.5).to_bits()).collect(),
        ..Inputs::default()
    }
}

struct Sides {
    cpu: Store,
    gpu: Store,
    /// Largest difference of a tensor, as a part of its norm.
    apart: f64,
}

impl Sides {
    fn new(model: &Model) -> Self {
        Self::of(model, Precision::Fp32, TENSOR)
    }

    fn of(model: &Model, precision: Precision, apart: f64) -> Self {
        let weights = Weights::Random { config: "".into(), seed: 3 };
        let mut weights = store::load(model, &weights, std::path::Path::new(""), Dtype::F32).unwrap();
        // Norms and biases are drawn as ones and zeros: here they are anything.
        for (idx, (weight, param)) in weights.iter_mut().zip(&model.params).enumerate() {
            let noise = random(weight.elem_count(), idx as u64);
            let noise = Tensor::from_vec(noise, param.shape.as_slice(), &candle_core::Device::Cpu).unwrap();
            *weight = (&*weight + noise * 0.2).unwrap();
        }
        let kept = match precision.kept() {
            Dtype::Bf16 => weights.iter().map(|w| w.to_dtype(candle_core::DType::BF16).unwrap()).collect(),
            _ => weights,
        };
        let store = || Store::of(Parameters::of(copy(&kept), precision).unwrap());
        Self { cpu: store(), gpu: store(), apart }
    }
}

type Gradients = Vec<(ParamId, Tensor)>;

/// Plays a program on both sides and compares what it gives.
fn both(
    machine: &Emulator,
    name: &str,
    model: &Model,
    program: &Program,
    sides: &mut Sides,
    knobs: &Knobs<'_>,
    inputs: &Inputs,
    carried: (Gradients, Gradients),
) -> (Gradients, Gradients) {
    let on_cpu = Program { backend: 2.into(), ..program.clone() };
    let cpu = play(&on_cpu, &mut sides.cpu, inputs.clone(), carried.0, knobs).unwrap();
    let gpu = gpu::play(machine, program, &mut sides.gpu, inputs.clone(), carried.1, knobs)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(gpu.results.len(), cpu.results.len());
    for (n, (got, expected)) in gpu.results.iter().zip(&cpu.results).enumerate() {
        assert_near(got, expected, sides.apart, &format!("{name}: result {n}"));
    }
    assert_eq!(gpu.gradients.len(), cpu.gradients.len());
    for ((id, got), (other, expected)) in gpu.gradients.iter().zip(&cpu.gradients) {
        assert_eq!(id, other);
        let param = &model.param(*id).name;
        // Without rotary positions, a softmax does not see what all of its scores have in common: both are rounding.
        let is_key = ["k_proj.bias", "key.bias", "k_lin.bias"].iter().any(|end| param.ends_with(end));
        let largest = |tensor| numbers(tensor).into_iter().fold(0.0, |a: f32, b| a.max(b.abs()));
        if is_key && largest(got) < 1e-3 && largest(expected) < 1e-3 {
            continue;
        }
        assert_near(got, expected, sides.apart, &format!("{name}: gradient of {param}"));
    }
    (cpu.gradients, gpu.gradients)
}

/// Weights and states of both sides.
fn compare(name: &str, model: &Model, sides: &Sides) {
    for (idx, param) in model.params.iter().enumerate() {
        let id = ParamId(idx);
        let (got, expected) = (sides.gpu.weights[idx].tensor(), sides.cpu.weights[idx].tensor());
        assert_near(got, expected, sides.apart, &format!("{name}: {}", param.name));
        for (got, expected) in sides.gpu.states_of(id).iter().zip(sides.cpu.states_of(id)) {
            let (got, expected) = (got.tensor(), expected.tensor());
            assert_near(got, expected, sides.apart, &format!("{name}: a state of {}", param.name));
        }
    }
}

/// Plays the programs of a step on both sides and compares all that they leave.
fn check(
    machine: &Emulator,
    name: &str,
    model: &Model,
    programs: &StepPrograms,
    sides: &mut Sides,
    knobs: &Knobs<'_>,
    batches: &[Inputs],
) {
    let none = (Vec::new(), Vec::new());
    match programs {
        StepPrograms::Whole(program) => {
            both(machine, name, model, program, sides, knobs, &batches[0], none);
        }
        StepPrograms::Parts(parts) => {
            let carried = both(machine, name, model, &parts.first, sides, knobs, &batches[0], none);
            let carried = both(machine, name, model, &parts.next, sides, knobs, &batches[1], carried);
            both(machine, name, model, &parts.update, sides, knobs, &Inputs::default(), carried);
        }
    }
    compare(name, model, sides);
}

fn real(x: f64) -> Setting<f64> {
    Setting::default(x)
}

const STILL: Algorithm = Algorithm::Sgd;

fn step(
    model: &Model,
    shape: BatchShape,
    algorithm: &Algorithm,
    clip: Option<f32>,
    accumulate: bool,
) -> StepPrograms {
    let states = |id: ParamId| -> Vec<State> { hift::plan::optimizer::states(algorithm, model, id) };
    let active = vec![true; model.params.len()];
    let settings = Settings {
        active: &active,
        states: &states,
        clip,
        masters: false,
        scaled: false,
        accumulate,
        recompute: &|_| false,
        backend: Backend::Gpu,
        away: Away::default(),
    };
    step_programs(&model.loss(shape), &settings)
}

#[test]
fn every_family_trains_as_on_the_cpu() {
    let Some(mut machine) = Emulator::new() else { return };
    for (at, (name, config)) in FAMILIES.iter().enumerate() {
        let model = Model::from_config(config).unwrap();
        // Rows longer than a tile of the attention kernels where it is cheap; packed rows where a family takes them.
        let packed = at % 2 == 1 && matches!(model.head, Head::Tokens { .. });
        let shape = BatchShape { batch: 2, seq: [9, 40][at % 2], packed, far: false };
        machine.backwards = at % 3 == 1;
        let (clip, accumulate) = (if at % 3 == 0 { Some(0.5) } else { None }, at % 4 == 3);
        let programs = step(&model, shape, &STILL, clip, accumulate);
        let knobs = Knobs {
            loss_scale: 0.1,
            unscale: 1.0,
            noise: 0,
            rate: 0.5,
            factors: &[],
            algorithm: &STILL,
            weight_decay: 0.1,
        };
        let batches = [batch(&model, shape, 1), batch(&model, shape, 2)];
        let mut sides = Sides::new(&model);
        check(&machine, name, &model, &programs, &mut sides, &knobs, &batches);
        let forward = forward_only(&model.loss(shape), Backend::Gpu);
        check(&machine, name, &model, &StepPrograms::Whole(forward), &mut sides, &knobs, &batches);
        let logits = forward_only(&model.logits(shape), Backend::Gpu);
        check(&machine, name, &model, &StepPrograms::Whole(logits), &mut sides, &knobs, &batches);
    }
}

#[test]
fn every_family_trains_in_half_numbers_as_on_the_cpu() {
    let Some(machine) = Emulator::new() else { return };
    // A rounding is up to 2^-8 of a number in bf16 and 2^-11 in fp16; a dozen of them lie one behind the other, and here
    // and there the two sides round to different neighbours.
    let precisions = [
        (Precision::MixedHi(Half::Bf16), 12.0 / 256.0),
        (Precision::Mixed(Half::Fp16), 12.0 / 2048.0),
        (Precision::Bf16, 12.0 / 256.0),
    ];
    for (at, (name, config)) in FAMILIES.iter().enumerate() {
        let (precision, apart) = precisions[at % precisions.len()];
        let apart = match *name {
            // OPT's ReLU is all or nothing: a number that rounding takes across zero counts whole.
            opt if opt.starts_with("opt") => 3.0 * apart,
            // From 8 to 64 positions, longrope's factor on queries and on keys is the root of 2: scores are twice as large, and
            // so is what their rounding does to probabilities.
            "phi3, longrope" => 2.0 * apart,
            _ => apart,
        };
        let name = format!("{name} in {precision}");
        let model = Model::from_config(config).unwrap();
        let packed = at % 2 == 0 && matches!(model.head, Head::Tokens { .. });
        let shape = BatchShape { batch: 2, seq: 11, packed, far: false };
        let graph = lower(model.loss(shape), precision.dtype());
        let states = |_: ParamId| -> Vec<State> { Vec::new() };
        let settings = Settings {
            active: &vec![true; model.params.len()],
            states: &states,
            clip: if at % 4 == 1 { Some(0.5) } else { None },
            masters: precision.has_masters(),
            scaled: precision.is_scaled(),
            accumulate: at % 4 == 3,
            recompute: &|_| false,
            backend: Backend::Gpu,
            away: Away::default(),
        };
        let programs = step_programs(&graph, &settings);
        let scale: f32 = if precision.is_scaled() { 64.0 } else { 1.0 };
        let knobs = Knobs {
            loss_scale: 0.1 * scale,
            unscale: 1.0 / scale,
            noise: 5,
            rate: 0.5,
            factors: &[],
            algorithm: &STILL,
            weight_decay: 0.1,
        };
        let batches = [batch(&model, shape, 1), batch(&model, shape, 2)];
        let mut sides = Sides::of(&model, precision, apart);
        check(&machine, &name, &model, &programs, &mut sides, &knobs, &batches);
        for (got, expected) in sides.gpu.masters().iter().zip(sides.cpu.masters()) {
            assert_near(got.tensor(), expected.tensor(), apart, &format!("{name}: a master"));
        }
    }
}

#[test]
fn every_optimizer_moves_weights_as_on_the_cpu() {
    let Some(machine) = Emulator::new() else { return };
    // Wide enough for 8-bit states; a table whose size fills no block; vectors.
    let config = r#"{"model_type": "llama", "vocab_size": 67, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}"#;
    let model = Model::from_config(config).unwrap();
    let shape = BatchShape { batch: 1, seq: 5, packed: false, far: false };
    let (betas, eps) = (|| Setting::default([0.9, 0.99]), || real(1e-8));
    let adafactor = |beta1, scale_parameter| Algorithm::Adafactor {
        eps: real(1e-30),
        decay_rate: real(0.8),
        clip_threshold: real(1.0),
        beta1,
        scale_parameter: Setting::default(scale_parameter),
    };
    let rmsprop = |momentum, centered| Algorithm::Rmsprop {
        alpha: real(0.99),
        eps: eps(),
        momentum: real(momentum),
        centered: Setting::default(centered),
    };
    let algorithms = [
        Algorithm::Adamw { betas: betas(), eps: eps() },
        Algorithm::Adam { betas: betas(), eps: eps() },
        Algorithm::Sgd,
        Algorithm::Sgdm { momentum: real(0.9), nesterov: Setting::default(false) },
        Algorithm::Sgdm { momentum: real(0.9), nesterov: Setting::default(true) },
        Algorithm::Adagrad { eps: eps() },
        rmsprop(0.0, false),
        rmsprop(0.9, true),
        adafactor(Setting::default(None), false),
        adafactor(Setting::default(Some(0.9)), true),
        Algorithm::Lion { betas: betas() },
        Algorithm::Lamb { betas: betas(), eps: eps() },
        Algorithm::Lars { momentum: real(0.9), nesterov: Setting::default(false), trust: real(0.01) },
        Algorithm::AdamMini { betas: betas(), eps: eps() },
        Algorithm::Adamw8bit { betas: betas(), eps: eps() },
        Algorithm::Adam8bit { betas: betas(), eps: eps() },
        Algorithm::Lion8bit { betas: betas() },
    ];
    for (at, algorithm) in algorithms.iter().enumerate() {
        let clip = if at % 2 == 0 { Some(0.3) } else { None };
        let StepPrograms::Parts(parts) = step(&model, shape, algorithm, clip, true) else { panic!("parts") };
        let mut sides = Sides::new(&model);
        let params: Vec<ParamId> = (0..model.params.len()).map(ParamId).collect();
        for store in [&mut sides.cpu, &mut sides.gpu] {
            store.make_states(&params, algorithm, &model).unwrap();
        }
        // Twice: the second step finds states.
        for seed in 1..3 {
            let knobs = Knobs {
                loss_scale: 0.2,
                unscale: 1.0,
                noise: 0,
                rate: 1e-2,
                factors: &[],
                algorithm,
                weight_decay: 0.1,
            };
            let gradients = |store: &mut Store| {
                let batch = batch(&model, shape, seed);
                let first = Program { backend: 2.into(), ..parts.first.clone() };
                play(&first, store, batch, Vec::new(), &knobs).unwrap().gradients
            };
            // The same gradients on both sides: what is rounded differently in small ones would grow.
            let gradients = gradients(&mut sides.cpu);
            let copies = gradients.iter().map(|(id, g)| (*id, g.copy().unwrap())).collect();
            let name = format!("{algorithm:?}");
            both(
                &machine,
                &name,
                &model,
                &parts.update,
                &mut sides,
                &knobs,
                &Inputs::default(),
                (gradients, copies),
            );
            compare(&name, &model, &sides);
        }
    }
}

#[test]
fn every_kernel_agrees_with_the_cpu_over_odd_shapes() {
    let Some(mut machine) = Emulator::new() else { return };
    for (dtype, backwards) in [(Dtype::F32, false), (Dtype::Bf16, true), (Dtype::F16, false)] {
        machine.backwards = backwards;
        let mut n = 0;
        gpu::check::compare(&machine, dtype, &mut |compared| {
            n += 1;
            assert!(compared.agrees(), "{compared:?}");
        })
        .unwrap();
        assert!(n > 60, "{n} of {dtype}");
    }
}

/// Where the loss is a step's highest point, it works by chunks from before the last norm, and writes over what that reads.
#[test]
fn a_loss_takes_the_place_of_what_its_norm_has_read() {
    let Some(machine) = Emulator::new() else { return };
    let config = r#"{"model_type": "llama", "vocab_size": 33000, "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}"#;
    let model = Model::from_config(config).unwrap();
    let shape = BatchShape { batch: 2, seq: 40, packed: false, far: false };
    let active: Vec<bool> = model.params.iter().map(|param| param.name.contains("layers.0")).collect();
    let settings = Settings {
        active: &active,
        states: &|_| Vec::new(),
        clip: None,
        masters: false,
        scaled: false,
        accumulate: false,
        recompute: &|_| false,
        backend: Backend::Gpu,
        away: Away::default(),
    };
    let programs = step_programs(&model.loss(shape), &settings);
    let StepPrograms::Whole(program) = &programs else { panic!("one program") };
    let loss = program.instrs.iter().find(|instr| matches!(instr.op, Op::NormedLossGrad { .. }));
    assert_eq!(loss.map(|loss| loss.reuses.clone()), Some(vec![None, Some(0)]), "{program}");
    let knobs = Knobs {
        loss_scale: 0.1,
        unscale: 1.0,
        noise: 0,
        rate: 0.5,
        factors: &[],
        algorithm: &STILL,
        weight_decay: 0.1,
    };
    let batches = [batch(&model, shape, 1)];
    let mut sides = Sides::new(&model);
    check(&machine, "a large vocabulary", &model, &programs, &mut sides, &knobs, &batches);
}

/// A machine that does nothing but count what it is asked for: tensors are a number each, wherever they lie.
#[derive(Default)]
struct Counter {
    launches: Mutex<BTreeMap<&'static str, usize>>,
    products: AtomicUsize,
    copies: AtomicUsize,
    tensors: AtomicUsize,
}

impl Machine for Counter {
    fn device(&self) -> &candle_core::Device {
        &candle_core::Device::Cpu
    }

    fn uuid(&self) -> Option<String> {
        None
    }

    fn fresh(&self, _: &[usize], dtype: Dtype) -> Result<Tensor> {
        self.tensors.fetch_add(1, Ordering::Relaxed);
        one(dtype)
    }

    fn upload(&self, words: Vec<u32>, shape: &[usize]) -> Result<Tensor> {
        Tensor::from_vec(words, shape, &candle_core::Device::Cpu)
    }

    fn address(&self, _: &Tensor) -> Result<u64> {
        Ok(0)
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        *self.launches.lock().unwrap().entry(launch.kernel).or_default() += 1;
        Ok(())
    }

    fn multiply(&self, _: &Product) -> Result<()> {
        self.products.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn fetch(&self, _: &Resting, _: &Tensor) -> Result<Ticket> {
        self.copies.fetch_add(1, Ordering::Relaxed);
        Ok(Ticket(0))
    }

    fn evict(&self, _: &Tensor, _: &Resting) -> Result<Ticket> {
        self.copies.fetch_add(1, Ordering::Relaxed);
        Ok(Ticket(0))
    }

    fn wait(&self, _: Ticket) -> Result<()> {
        Ok(())
    }

    fn precede(&self, _: &Ticket) -> Result<()> {
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn pin(&self, _: &Tensor) -> Option<Pin> {
        None
    }

    fn peak(&self) -> Result<Option<Usage>> {
        Ok(None)
    }

    fn room(&self) -> Option<Room> {
        None
    }

    fn reset_peak(&self) -> Result<()> {
        Ok(())
    }
}

fn one(dtype: Dtype) -> Result<Tensor> {
    let numbers = Tensor::from_vec(vec![1_u32], &[1], &candle_core::Device::Cpu)?;
    numbers.to_dtype(match dtype {
        Dtype::F32 => candle_core::DType::F32,
        Dtype::U32 => candle_core::DType::U32,
        Dtype::F16 => candle_core::DType::F16,
        Dtype::Bf16 => candle_core::DType::BF16,
    })
}

/// Where a model is small, the time that a launch takes is what counts. Qwen2.5-0.5B, 8 x 512 tokens, a block at a time, in
/// bf16 with masters and states on the host.
#[test]
fn launches_of_a_step_are_few() {
    let config = r#"{"model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": true,
        "max_position_embeddings": 2048, "rope_theta": 1e6, "rms_norm_eps": 1e-6}"#;
    let model = Model::from_config(config).unwrap();
    let algorithm = Algorithm::Adamw { betas: Setting::default([0.9, 0.999]), eps: real(1e-8) };
    let states = |id: ParamId| -> Vec<State> { hift::plan::optimizer::states(&algorithm, &model, id) };
    let away = Away { weights: Rests::Here, masters: Rests::Host, states: Rests::Host, sparing: false };
    let mut all = [0; 4];
    let layers = model.tail(false);
    for layer in &layers {
        let mut active = vec![false; model.params.len()];
        layer.params.iter().for_each(|id| active[id.0] = true);
        let settings = Settings {
            active: &active,
            states: &states,
            clip: Some(1.0),
            masters: true,
            scaled: false,
            accumulate: false,
            recompute: &|_| false,
            backend: Backend::Gpu,
            away,
        };
        let shape = BatchShape { batch: 8, seq: 512, packed: false, far: false };
        let StepPrograms::Whole(program) = step_programs(&lower(model.loss(shape), Dtype::Bf16), &settings)
        else {
            panic!("one program")
        };
        let n = model.params.len();
        let ones = |dtype| (0..n).map(|_| Resting::from(one(dtype).unwrap())).collect::<Vec<_>>();
        let counter = Arc::new(Counter::default());
        let place = Place {
            machine: Some(counter.clone() as Arc<dyn Machine>),
            away,
            tf32: false,
            scratch: std::path::Path::new("").into(),
        };
        let parameters = Parameters { weights: ones(Dtype::Bf16), masters: ones(Dtype::F32) };
        let mut store = Store::of(parameters).at(Some(&place)).unwrap();
        for id in &layer.params {
            store.restore(*id, vec![one(Dtype::F32).unwrap().into(), one(Dtype::F32).unwrap().into()], 0);
        }
        let knobs = Knobs {
            loss_scale: 1.0,
            unscale: 1.0,
            noise: 0,
            rate: 0.1,
            factors: &[],
            algorithm: &algorithm,
            weight_decay: 0.0,
        };
        gpu::play(&*counter, &program, &mut store, batch(&model, shape, 1), Vec::new(), &knobs).unwrap();
        let launches = counter.launches.lock().unwrap();
        let of = |counted: &AtomicUsize| counted.load(Ordering::Relaxed);
        let counts = [
            launches.values().sum::<usize>(),
            of(&counter.products),
            of(&counter.copies),
            of(&counter.tensors),
        ];
        all.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
        println!("{:12} launches, products, copies, tensors: {counts:?} {launches:?}", layer.name);
    }
    let mean = all.map(|n| n / layers.len());
    println!("a step of {}: {mean:?}", layers.len());
    // One by one, with chunks of 64 rows of logits, they were 481 launches and 396 products.
    assert!(mean[0] <= 323 && mean[1] <= 298, "{mean:?}");
}
