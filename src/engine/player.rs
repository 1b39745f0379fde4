//! Plays a program with tensors: call, store, drop. The other player is the estimator; both read the same list.

use candle_core::{Device, Result, Tensor};

use crate::lang::pipeline::Algorithm;
use crate::program::{
    Activation, AttentionSpec, CachedSpec, Home, Input, Instr, Op, ParamId, Program, Role, ValueId,
};
use crate::random::Random;
use crate::units::Dtype;

use super::access::{Stored, edit, floats, fresh, ids, numbers, with_floats};
use super::cpu::number::Number;
use super::cpu::{
    activation, attention, cache, columns, embedding, gated, layer_norm, loss, matmul, norm, reduce, rope,
};
use super::gpu;
use super::resting::Resting;
use super::store::Store;
use super::update::{Step, update, update_half};

/// The numbers of a batch. `labels`: the id that each position has to predict; `u32::MAX` does not count.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Inputs {
    pub ids: Vec<u32>,
    /// Where a program wants them and there are none, all are 0.
    pub types: Vec<u32>,
    pub labels: Vec<u32>,
    pub positions: Vec<u32>,
    pub starts: Option<Vec<u32>>,
    pub queries: Vec<u32>,
    pub classes: Vec<u32>,
    /// The bits of floats.
    pub targets: Vec<u32>,
    /// First tokens, last tokens, lengths.
    pub spans: Vec<u32>,
    pub places: Vec<u32>,
    pub seen: Vec<u32>,
    pub lengths: Vec<u32>,
}

/// What changes from step to step without changing the program.
#[derive(Debug, Clone, Copy)]
pub struct Knobs<'a> {
    /// The gradient of the loss is formed for `loss_scale` times the sum over tokens.
    pub loss_scale: f32,
    /// What makes gradients as large again as they would be, had the loss not been scaled against underflow.
    pub unscale: f32,
    /// Where weights are rounded at random, chance comes from here.
    pub noise: u64,
    pub rate: f64,
    /// What the rate is multiplied by for each parameter; empty where all have the rate itself.
    pub factors: &'a [f64],
    pub algorithm: &'a Algorithm,
    pub weight_decay: f64,
}

/// What a program leaves behind.
#[derive(Debug, Default)]
pub struct Played {
    /// Loss, norm or logits, in the order of the program's outputs; in the host's memory.
    pub results: Vec<Tensor>,
    /// Gradients that are not used up, for the next micro-batch or the update.
    pub gradients: Vec<(ParamId, Tensor)>,
}

impl Played {
    /// The numbers of the n-th result.
    pub fn numbers(&self, n: usize) -> Vec<f32> {
        floats(&self.results[n]).to_vec()
    }
}

/// Plays `program` on `inputs` and on the gradients that an earlier program has left, where the store's weights are.
pub fn play(
    program: &Program,
    store: &mut Store,
    mut inputs: Inputs,
    mut carried: Vec<(ParamId, Tensor)>,
    knobs: &Knobs<'_>,
) -> Result<Played> {
    if let Some(machine) = store.machine().cloned() {
        let mut played = gpu::play(&*machine, program, store, inputs, carried, knobs)?;
        for result in &mut played.results {
            // What a launch came to, is told here at the latest.
            *result = result.to_device(&Device::Cpu)?;
        }
        return Ok(played);
    }
    let mut values: Vec<Option<Tensor>> = vec![None; program.values.len()];
    for id in &program.inputs {
        let value = program.value(*id);
        let take = |numbers: Vec<u32>| Tensor::from_vec(numbers, value.shape.as_slice(), &Device::Cpu);
        values[id.0] = Some(match value.role {
            Role::Input(Input::Ids) => take(std::mem::take(&mut inputs.ids))?,
            Role::Input(Input::Types) if inputs.types.is_empty() => take(vec![0; value.elements()])?,
            Role::Input(Input::Types) => take(std::mem::take(&mut inputs.types))?,
            Role::Input(Input::Classes) => take(std::mem::take(&mut inputs.classes))?,
            Role::Input(Input::Targets) => take(std::mem::take(&mut inputs.targets))?,
            Role::Input(Input::Spans) => take(std::mem::take(&mut inputs.spans))?,
            Role::Input(Input::Places) => take(std::mem::take(&mut inputs.places))?,
            Role::Input(Input::Seen) => take(std::mem::take(&mut inputs.seen))?,
            Role::Input(Input::Lengths) => take(std::mem::take(&mut inputs.lengths))?,
            Role::Input(Input::Labels) => take(std::mem::take(&mut inputs.labels))?,
            Role::Input(Input::Positions) => take(std::mem::take(&mut inputs.positions))?,
            Role::Input(Input::Starts) => take(inputs.starts.take().unwrap_or_default())?,
            Role::Input(Input::Queries) => take(std::mem::take(&mut inputs.queries))?,
            Role::Gradient(param) => {
                let at = carried.iter().position(|(known, _)| *known == param);
                carried.swap_remove(at.expect("a gradient is carried for every one that comes in")).1
            }
            Role::Weight(_)
            | Role::Master(_)
            | Role::State(..)
            | Role::Cache(_)
            | Role::Fetched(_)
            | Role::Activation
            | Role::Flow
            | Role::Scalar => {
                unreachable!("only batches and gradients come in")
            }
        });
    }
    // What this program does not read is not kept beside it.
    drop(inputs);
    drop(carried);
    let mut player = Player { program, store, values, knobs };
    for (idx, instr) in program.instrs.iter().enumerate() {
        match instr.op {
            Op::Fetch | Op::Evict => player.travel(instr, &program.instrs[idx + 1..])?,
            _ => player.call(instr)?,
        }
        for id in &instr.dies {
            player.values[id.0] = None;
        }
    }
    let mut played = Played::default();
    for id in &program.outputs {
        let tensor = player.values[id.0].take().expect("an output is alive");
        match program.value(*id).role {
            Role::Gradient(param) => played.gradients.push((param, tensor)),
            Role::Weight(_)
            | Role::Master(_)
            | Role::State(..)
            | Role::Cache(_)
            | Role::Fetched(_)
            | Role::Input(_)
            | Role::Activation
            | Role::Flow
            | Role::Scalar => played.results.push(tensor),
        }
    }
    Ok(played)
}

/// Calls `$body` with the curve that an activation names, as a type: its loops are compiled for each.
macro_rules! with_curve {
    ($activation:expr, $f:ident => $body:expr) => {
        match $activation {
            Activation::Silu => {
                let $f = activation::Silu;
                $body
            }
            Activation::Gelu => {
                let $f = activation::Gelu;
                $body
            }
            Activation::GeluTanh => {
                let $f = activation::GeluTanh;
                $body
            }
            Activation::Relu => {
                let $f = activation::Relu;
                $body
            }
            Activation::Tanh { cap } => {
                let $f = activation::Tanh { cap };
                $body
            }
        }
    };
}

struct Player<'a> {
    program: &'a Program,
    store: &'a mut Store,
    values: Vec<Option<Tensor>>,
    knobs: &'a Knobs<'a>,
}

impl Player<'_> {
    /// The tensor behind a value; cloning a tensor shares its storage.
    fn get(&self, id: ValueId) -> Tensor {
        match self.program.value(id).role {
            Role::Weight(_) | Role::Master(_) | Role::State(..) => {
                self.store.home(self.program.value(id).role).tensor().clone()
            }
            Role::Cache(slot) => self.store.caches[slot].clone(),
            Role::Fetched(_)
            | Role::Input(_)
            | Role::Activation
            | Role::Flow
            | Role::Gradient(_)
            | Role::Scalar => self.values[id.0].clone().expect("a value is read while it lives"),
        }
    }

    /// Writes an output: over the input whose place it takes, or into fresh storage.
    fn write<T: Stored + Number>(
        &mut self,
        instr: &Instr,
        output: usize,
        fill: impl FnOnce(&mut [T]),
    ) -> Result<()> {
        let id = instr.outputs[output];
        let tensor = match instr.reuses[output] {
            Some(input) => {
                let tensor = self.values[instr.inputs[input].0].take().expect("a sum is alive");
                edit(&tensor, fill)?;
                tensor
            }
            None => fresh(&self.program.value(id).shape, fill)?,
        };
        self.values[id.0] = Some(tensor);
        Ok(())
    }

    /// Scratch of the size that the program states.
    fn scratch(&self, instr: &Instr) -> Vec<f32> {
        super::cpu::buffer(self.program.workspace(instr).0 as usize / 4)
    }

    /// Brings what rests on disk into memory, or takes it back. Nothing is done beside: while this program computes, the
    /// system may read what comes `next`.
    fn travel(&mut self, instr: &Instr, next: &[Instr]) -> Result<()> {
        let home = |id: ValueId| self.store.home(self.program.value(id).role);
        if instr.op == Op::Evict {
            let Resting::Disk(home) = home(instr.inputs[1]) else {
                unreachable!("of a processor's, only the disk is elsewhere")
            };
            home.store(&self.get(instr.inputs[0]));
            return Ok(());
        }
        if let Some(next) = next.iter().find(|instr| instr.op == Op::Fetch)
            && let Resting::Disk(next) = home(next.inputs[0])
        {
            next.will_need();
        }
        self.values[instr.outputs[0].0] = Some(home(instr.inputs[0]).on_host()?);
        Ok(())
    }

    fn call(&mut self, instr: &Instr) -> Result<()> {
        with_floats!(self.program.dtype(instr), T => self.call_in::<T>(instr))
    }

    /// `T`: what the instruction computes on, see [`Program::dtype`].
    fn call_in<T: Stored + Number>(&mut self, instr: &Instr) -> Result<()> {
        let input: Vec<Tensor> = instr.inputs.iter().map(|id| self.get(*id)).collect();
        let dims = |i: usize| -> &[usize] { &self.program.value(instr.inputs[i]).shape };
        let in_place = instr.reuses.first().is_some_and(Option::is_some);
        match &instr.op {
            Op::Embed { offset } => {
                let (table, rows, hidden) = (numbers::<T>(&input[0]), ids(&input[1]), dims(0)[1]);
                self.write(instr, 0, |y| embedding::forward(y, &table, &rows, *offset, hidden))
            }
            Op::EmbedGrad { offset, accumulate, .. } => {
                let (dy, rows, hidden) = (numbers::<T>(&input[0]), ids(&input[1]), dims(0)[1]);
                match self.program.value(instr.outputs[0]).dtype {
                    Dtype::F32 => self.write(instr, 0, |dw: &mut [f32]| {
                        embedding::grad(dw, *accumulate, &dy, &rows, *offset, hidden);
                    }),
                    // Of rows that were picked out of activations.
                    Dtype::Bf16 | Dtype::F16 | Dtype::U32 => self.write(instr, 0, |dx: &mut [T]| {
                        embedding::grad(dx, *accumulate, &dy, &rows, *offset, hidden);
                    }),
                }
            }
            Op::Linear { bias, transposed } => {
                let (m, k, n) = (dims(0)[0], dims(0)[1], dims(1)[usize::from(*transposed)]);
                let (x, w) = (numbers::<T>(&input[0]), numbers::<T>(&input[1]));
                self.write(instr, 0, |y: &mut [T]| {
                    match transposed {
                        false => matmul::nt(y, 0.0, &x, &w, m, n, k),
                        true => matmul::nn(y, 0.0, &x, &w, m, n, k),
                    }
                    if *bias {
                        matmul::add_bias(y, &numbers::<T>(&input[2]), n);
                    }
                })
            }
            Op::LinearGradInput { transposed, accumulate } => {
                let (m, k, n) = (dims(0)[0], dims(0)[1], dims(1)[usize::from(!*transposed)]);
                let (dy, w) = (numbers::<T>(&input[0]), numbers::<T>(&input[1]));
                self.write(instr, 0, |dx: &mut [T]| match transposed {
                    false => matmul::nn(dx, beta(*accumulate), &dy, &w, m, n, k),
                    true => matmul::nt(dx, beta(*accumulate), &dy, &w, m, n, k),
                })
            }
            Op::LinearGradWeight { transposed, accumulate } => {
                let (rows, out, inner) = (dims(0)[0], dims(0)[1], dims(1)[1]);
                let (dy, x) = (numbers::<T>(&input[0]), numbers::<T>(&input[1]));
                self.write(instr, 0, |dw: &mut [f32]| match transposed {
                    false => matmul::tn(dw, beta(*accumulate), &dy, &x, out, inner, rows),
                    true => matmul::tn(dw, beta(*accumulate), &x, &dy, inner, out, rows),
                })
            }
            Op::LinearGradBias { accumulate } => {
                let (dy, n) = (numbers::<T>(&input[0]), dims(0)[1]);
                self.write(instr, 0, |db| matmul::bias_grad(&dy, n, db, *accumulate))
            }
            Op::RmsNorm { eps, offset } => {
                let (x, w) = (numbers::<T>(&input[0]), numbers::<T>(&input[1]));
                self.write(instr, 0, |y| norm::rms(y, &x, &w, *eps, *offset))
            }
            Op::RmsNormGradInput { eps, offset, accumulate } => {
                let (x, w) = (numbers::<T>(&input[1]), numbers::<T>(&input[2]));
                if in_place && !accumulate {
                    self.write(instr, 0, |dy| norm::rms_grad_input_in_place(dy, &x, &w, *eps, *offset))
                } else {
                    let dy = numbers::<T>(&input[0]);
                    self.write(instr, 0, |dx| {
                        norm::rms_grad_input(dx, *accumulate, &dy, &x, &w, *eps, *offset);
                    })
                }
            }
            Op::RmsNormGradWeight { eps, accumulate, .. } => {
                let (dy, x) = (numbers::<T>(&input[0]), numbers::<T>(&input[1]));
                self.write(instr, 0, |dw| norm::rms_grad_weight(dw, *accumulate, &dy, &x, *eps))
            }
            Op::LayerNorm { eps } => {
                let (x, w, b) = (numbers::<T>(&input[0]), numbers::<T>(&input[1]), numbers::<T>(&input[2]));
                self.write(instr, 0, |y| layer_norm::forward(y, &x, &w, &b, *eps))
            }
            Op::LayerNormGradInput { eps, accumulate } => {
                let (x, w) = (numbers::<T>(&input[1]), numbers::<T>(&input[2]));
                if in_place && !accumulate {
                    self.write(instr, 0, |dy| layer_norm::grad_input_in_place(dy, &x, &w, *eps))
                } else {
                    let dy = numbers::<T>(&input[0]);
                    self.write(instr, 0, |dx| {
                        layer_norm::grad_input(dx, *accumulate, &dy, &x, &w, *eps);
                    })
                }
            }
            Op::LayerNormGradWeight { eps, accumulate } => {
                let (dy, x) = (numbers::<T>(&input[0]), numbers::<T>(&input[1]));
                self.write(instr, 0, |dw| layer_norm::grad_weight(dw, *accumulate, &dy, &x, *eps))
            }
            Op::RopeTable { inv_freq } => {
                let positions = ids(&input[0]);
                self.write(instr, 0, |table| rope::table(table, &positions, inv_freq))
            }
            Op::Rope { heads, head_dim, inverse } => {
                let table = floats(&input[1]);
                let shape = rope::Shape { heads: *heads, head_dim: *head_dim, turned: dims(1)[1] };
                if in_place {
                    self.write(instr, 0, |x: &mut [T]| rope::apply_in_place(x, &table, shape, *inverse))
                } else {
                    let x = numbers::<T>(&input[0]);
                    self.write(instr, 0, |y| rope::apply(y, &x, &table, shape, *inverse))
                }
            }
            Op::Attention(spec) => {
                let [q, k, v] = [0, 1, 2].map(|i| numbers::<T>(&input[i]));
                let starts = input.get(3).map(ids);
                let mut scratch = self.scratch(instr);
                let lse = fresh(&self.program.value(instr.outputs[1]).shape, |_: &mut [f32]| {})?;
                self.write(instr, 0, |o: &mut [T]| {
                    edit(&lse, |lse: &mut [f32]| {
                        attention::forward(&shape(spec), o, lse, &q, &k, &v, starts.as_deref(), &mut scratch);
                    })
                    .expect("nothing in this edit can fail");
                })?;
                self.values[instr.outputs[1].0] = Some(lse);
                Ok(())
            }
            Op::Fetch | Op::Evict => unreachable!("copies are made by `travel`"),
            Op::CacheWrite => {
                let (x, places, width) = (numbers::<T>(&input[0]), ids(&input[2]), dims(0)[1]);
                edit(&input[1], |kept| cache::write(kept, &x, &places, width))
            }
            Op::CachedAttention(spec) => {
                let (q, keys, values) = (numbers::<T>(&input[0]), floats(&input[1]), floats(&input[2]));
                let (seen, lengths) = (ids(&input[3]), ids(&input[4]));
                let CachedSpec { batch, capacity, heads, kv_heads, head_dim, scale, window, softcap } = *spec;
                let shape =
                    cache::Shape { batch, capacity, heads, kv_heads, head_dim, scale, window, softcap };
                let mut scratch = self.scratch(instr);
                self.write(instr, 0, |o: &mut [T]| {
                    cache::attend(&shape, o, &q, &keys, &values, &seen, &lengths, &mut scratch);
                })
            }
            Op::AttentionGrad(spec) => {
                let [d_o, q, k, v, o] = [0, 1, 2, 3, 4].map(|i| numbers::<T>(&input[i]));
                let lse = floats(&input[5]);
                let starts = input.get(6).map(ids);
                let mut scratch = self.scratch(instr);
                let [mut dq, mut dk, mut dv] = [0, 1, 2]
                    .map(|i| super::cpu::buffer::<T>(self.program.value(instr.outputs[i]).elements()));
                attention::grad(
                    &shape(spec),
                    &mut dq,
                    &mut dk,
                    &mut dv,
                    &d_o,
                    &q,
                    &k,
                    &v,
                    &o,
                    &lse,
                    starts.as_deref(),
                    &mut scratch,
                );
                for (id, numbers) in instr.outputs.iter().zip([dq, dk, dv]) {
                    let shape = self.program.value(*id).shape.as_slice();
                    self.values[id.0] = Some(Tensor::from_vec(numbers, shape, &Device::Cpu)?);
                }
                Ok(())
            }
            Op::Columns { start, width, period } => {
                let columns = columns::Columns { start: *start, width: *width, period: *period };
                let x = numbers::<T>(&input[0]);
                self.write(instr, 0, |y| columns::forward(y, &x, columns))
            }
            Op::ColumnsGrad { start, width, period, accumulate } => {
                let columns = columns::Columns { start: *start, width: *width, period: *period };
                let dy = numbers::<T>(&input[0]);
                self.write(instr, 0, |dx| columns::grad(dx, *accumulate, &dy, columns))
            }
            Op::Activate(activation) => with_curve!(*activation, f => {
                if in_place {
                    self.write(instr, 0, |x: &mut [T]| activation::forward_in_place(f, x))
                } else {
                    let x = numbers::<T>(&input[0]);
                    self.write(instr, 0, |y| activation::forward(f, y, &x))
                }
            }),
            Op::ActivateGrad(activation) => with_curve!(*activation, f => {
                let x = numbers::<T>(&input[1]);
                if in_place {
                    self.write(instr, 0, |dy| activation::grad_in_place(f, dy, &x))
                } else {
                    let dy = numbers::<T>(&input[0]);
                    self.write(instr, 0, |dx| activation::grad(f, dx, &dy, &x))
                }
            }),
            Op::Gated(activation) => with_curve!(*activation, f => {
                let up = numbers::<T>(&input[1]);
                if in_place {
                    self.write(instr, 0, |gate| gated::forward_in_place(f, gate, &up))
                } else {
                    let gate = numbers::<T>(&input[0]);
                    self.write(instr, 0, |y| gated::forward(f, y, &gate, &up))
                }
            }),
            Op::GatedGrad(activation) => {
                with_curve!(*activation, f => self.gated_grad::<_, T>(f, instr, &input, in_place))
            }
            Op::GatedLinear { activation, transposed, chunk } => with_curve!(*activation, f => {
                let (gate, up) = (numbers::<T>(&input[0]), numbers::<T>(&input[1]));
                let (w, k, n) = (numbers::<T>(&input[2]), dims(0)[1], dims(2)[usize::from(*transposed)]);
                let mut mixed = super::cpu::buffer::<T>((*chunk).min(dims(0)[0]) * k);
                self.write(instr, 0, |y: &mut [T]| {
                    for ((gate, up), y) in
                        gate.chunks(chunk * k).zip(up.chunks(chunk * k)).zip(y.chunks_mut(chunk * n))
                    {
                        let mixed = &mut mixed[..gate.len()];
                        gated::forward(f, mixed, gate, up);
                        match transposed {
                            false => matmul::nt(y, 0.0, mixed, &w, gate.len() / k, n, k),
                            true => matmul::nn(y, 0.0, mixed, &w, gate.len() / k, n, k),
                        }
                    }
                })
            }),
            // A device does this by chunks, for the sake of its memory.
            Op::GatedLinearGrad { activation, transposed, .. } => with_curve!(*activation, f => {
                let (m, k, n) = (dims(0)[0], dims(0)[1], dims(1)[1]);
                let (dy, w) = (numbers::<T>(&input[0]), numbers::<T>(&input[3]));
                let d_mixed = fresh(&[m, n], |d: &mut [T]| match transposed {
                    false => matmul::nn(d, 0.0, &dy, &w, m, n, k),
                    true => matmul::nt(d, 0.0, &dy, &w, m, n, k),
                })?;
                let operands = [d_mixed, input[1].clone(), input[2].clone()];
                self.gated_grad::<_, T>(f, instr, &operands, in_place)
            }),
            Op::Scale { factor } => {
                if in_place {
                    self.write(instr, 0, |x: &mut [T]| reduce::scale_in_place(x, *factor))
                } else {
                    let x = numbers::<T>(&input[0]);
                    self.write(instr, 0, |y| reduce::scale(y, &x, *factor))
                }
            }
            Op::Add => match instr.reuses[0] {
                Some(place) => {
                    let other = numbers::<T>(&input[1 - place]);
                    self.write(instr, 0, |a| reduce::add_in_place(a, &other))
                }
                None => {
                    let (a, b) = (numbers::<T>(&input[0]), numbers::<T>(&input[1]));
                    self.write(instr, 0, |y| reduce::add(y, &a, &b))
                }
            },
            Op::Copy => {
                if in_place {
                    return self.write(instr, 0, |_: &mut [T]| {});
                }
                let x = numbers::<T>(&input[0]);
                self.write(instr, 0, |y| y.copy_from_slice(&x))
            }
            Op::Cast { to: Dtype::F32 } => {
                let x = numbers::<T>(&input[0]);
                self.write(instr, 0, |y: &mut [f32]| reduce::cast(y, &x))
            }
            Op::Cast { to: Dtype::Bf16 | Dtype::F16 | Dtype::U32 } => {
                let x = floats(&input[0]);
                self.write(instr, 0, |y: &mut [T]| reduce::cast(y, &x))
            }
            Op::LinearCrossEntropy { chunk, softcap } => {
                let (x, w, labels) = (numbers::<T>(&input[0]), numbers::<T>(&input[1]), ids(&input[2]));
                let (hidden, vocab) = (dims(0)[1], dims(1)[0]);
                let mut logits = self.scratch(instr);
                let mut sums = (0.0, 0);
                for (x, labels) in x.chunks(chunk * hidden).zip(labels.chunks(*chunk)) {
                    let logits = &mut logits[..labels.len() * vocab];
                    matmul::nt(logits, 0.0, x, &w, labels.len(), vocab, hidden);
                    bend(logits, *softcap);
                    let (nll, correct) = loss::cross_entropy(logits, labels, vocab);
                    sums = (sums.0 + nll, sums.1 + correct);
                }
                self.write(instr, 0, |y| y.copy_from_slice(&[sums.0 as f32, sums.1 as f32]))
            }
            Op::LinearCrossEntropyGrad { chunk, softcap, input: dx, weight: dw, accumulate } => {
                self.linear_cross_entropy_grad::<T>(instr, &input, *chunk, *softcap, *dx, *dw, *accumulate)
            }
            // A device does this by chunks, for the sake of its memory.
            Op::NormedLossGrad { eps, offset, chunk, softcap } => {
                let (x, w) = (numbers::<T>(&input[0]), numbers::<T>(&input[1]));
                let normed = fresh(dims(0), |y: &mut [T]| norm::rms(y, &x, &w, *eps, *offset))?;
                let loss = Instr {
                    inputs: vec![instr.inputs[0], instr.inputs[2], instr.inputs[3]],
                    reuses: vec![None; 2],
                    op: Op::LinearCrossEntropyGrad {
                        chunk: *chunk,
                        softcap: *softcap,
                        input: true,
                        weight: false,
                        accumulate: false,
                    },
                    ..instr.clone()
                };
                let operands = [normed, input[2].clone(), input[3].clone()];
                self.linear_cross_entropy_grad::<T>(&loss, &operands, *chunk, *softcap, true, false, false)?;
                let dx = self.values[instr.outputs[1].0].clone().expect("it was written");
                edit(&dx, |dx: &mut [T]| norm::rms_grad_input_in_place(dx, &x, &w, *eps, *offset))?;
                if instr.reuses[1].is_some() {
                    self.values[instr.inputs[0].0] = None;
                }
                Ok(())
            }
            Op::CrossEntropy => {
                let (nll, correct) = loss::cross_entropy(&floats(&input[0]), &ids(&input[1]), dims(0)[1]);
                self.write(instr, 0, |y| y.copy_from_slice(&[nll as f32, correct as f32]))
            }
            Op::CrossEntropyGrad => {
                let (labels, classes, scale) = (ids(&input[1]), dims(0)[1], self.knobs.loss_scale);
                self.loss_grad(instr, &input, |logits| {
                    loss::cross_entropy_grad_in_place(logits, &labels, scale, classes)
                })
            }
            Op::SquaredError => {
                let sum = loss::squared_error(&floats(&input[0]), &ids(&input[1]));
                self.write(instr, 0, |y| y.copy_from_slice(&[sum as f32, 0.0]))
            }
            Op::SquaredErrorGrad => {
                let (targets, scale) = (ids(&input[1]), self.knobs.loss_scale);
                self.loss_grad(instr, &input, |x| (loss::squared_error_grad_in_place(x, &targets, scale), 0))
            }
            Op::SpanCrossEntropy { seq } => {
                let (nll, correct) = loss::span_cross_entropy(&floats(&input[0]), &ids(&input[1]), *seq);
                self.write(instr, 0, |y| y.copy_from_slice(&[nll as f32, correct as f32]))
            }
            Op::SpanCrossEntropyGrad { seq } => {
                let (spans, scale) = (ids(&input[1]), self.knobs.loss_scale);
                self.loss_grad(instr, &input, |logits| {
                    loss::span_cross_entropy_grad_in_place(logits, &spans, scale, *seq)
                })
            }
            Op::SumSquares { accumulate } => {
                let sum = reduce::sum_of_squares(&floats(&input[0]));
                self.write(instr, 0, |y: &mut [f32]| {
                    y[0] = (sum + if *accumulate { f64::from(y[0]) } else { 0.0 }) as f32;
                })
            }
            Op::GradFactor { max_norm } => {
                let sum = floats(&input[0])[0];
                let unscale = self.knobs.unscale;
                let clip = max_norm.map_or(1.0, |max| (max / (sum.sqrt() * unscale + 1e-6)).min(1.0));
                let factor = if sum.is_finite() { clip * unscale } else { 0.0 };
                self.write(instr, 0, |y: &mut [f32]| y[0] = factor)
            }
            Op::Update { master, states, scaled } => {
                let (gradient, rest) = (&input[1], &input[2..]);
                let (masters, rest) = rest.split_at(usize::from(*master));
                let (states, rest) = rest.split_at(*states);
                let scale = if *scaled { floats(&rest[0])[0] } else { 1.0 };
                if scale == 0.0 {
                    return Ok(());
                }
                let (Role::Weight(param) | Role::Fetched(Home::Weight(param))) =
                    self.program.value(instr.inputs[0]).role
                else {
                    unreachable!("an update begins with its weight")
                };
                let Knobs { rate, factors, algorithm, weight_decay, .. } = *self.knobs;
                let step = Step {
                    algorithm,
                    rate: rate * factors.get(param.0).unwrap_or(&1.0),
                    weight_decay,
                    count: self.store.count_update(param),
                    scale,
                };
                let weight = &input[0];
                match masters {
                    [master] => {
                        update(&step, master, gradient, states)?;
                        let master = floats(master);
                        edit(weight, |weight: &mut [T]| reduce::cast(weight, &master))
                    }
                    _ if T::IS_WIDE => update(&step, weight, gradient, states),
                    _ => {
                        let noise = Random::stream(self.knobs.noise, param.0 as u64).next();
                        update_half(&step, weight, &mut self.scratch(instr), gradient, states, noise)
                    }
                }
            }
        }
    }

    fn gated_grad<C: activation::Curve, T: Stored + Number>(
        &mut self,
        f: C,
        instr: &Instr,
        input: &[Tensor],
        in_place: bool,
    ) -> Result<()> {
        let dy = numbers::<T>(&input[0]);
        if in_place {
            edit(&input[1], |gate: &mut [T]| {
                edit(&input[2], |up: &mut [T]| gated::grad_in_place(f, &dy, gate, up))
                    .expect("nothing in this edit can fail");
            })?;
            for (output, place) in [(0, 1), (1, 2)] {
                self.values[instr.outputs[output].0] = self.values[instr.inputs[place].0].take();
            }
            return Ok(());
        }
        let (gate, up) = (numbers::<T>(&input[1]), numbers::<T>(&input[2]));
        let mut d_up = super::cpu::buffer(up.len());
        self.write(instr, 0, |d_gate| gated::grad(f, d_gate, &mut d_up, &dy, &gate, &up))?;
        let id = instr.outputs[1];
        let shape = self.program.value(id).shape.as_slice();
        self.values[id.0] = Some(Tensor::from_vec(d_up, shape, &Device::Cpu)?);
        Ok(())
    }

    /// A loss whose input becomes its gradient: `grad` gives the two numbers.
    fn loss_grad(
        &mut self,
        instr: &Instr,
        input: &[Tensor],
        grad: impl FnOnce(&mut [f32]) -> (f64, u64),
    ) -> Result<()> {
        let mut sums = (0.0, 0);
        if instr.reuses[1].is_some() {
            self.write(instr, 1, |x| sums = grad(x))?;
        } else {
            let x = floats(&input[0]);
            self.write(instr, 1, |dx| {
                dx.copy_from_slice(&x);
                sums = grad(dx);
            })?;
        }
        self.write(instr, 0, |y| y.copy_from_slice(&[sums.0 as f32, sums.1 as f32]))
    }

    /// Loss, `dx` and `dw` in one pass over chunks of logits.
    fn linear_cross_entropy_grad<T: Stored + Number>(
        &mut self,
        instr: &Instr,
        input: &[Tensor],
        chunk: usize,
        softcap: Option<f32>,
        wants_dx: bool,
        wants_dw: bool,
        accumulate: bool,
    ) -> Result<()> {
        let (x, w, labels) = (numbers::<T>(&input[0]), numbers::<T>(&input[1]), ids(&input[2]));
        let hidden = self.program.value(instr.inputs[0]).shape[1];
        let vocab = self.program.value(instr.inputs[1]).shape[0];
        let mut dx = super::cpu::buffer::<T>(if wants_dx { x.len() } else { 0 });
        let scale = self.knobs.loss_scale;
        let mut logits = self.scratch(instr);
        let mut sums = (0.0, 0);
        let mut pass = |mut dw: Option<&mut [f32]>| {
            for (idx, (x, labels)) in x.chunks(chunk * hidden).zip(labels.chunks(chunk)).enumerate() {
                let rows = labels.len();
                let logits = &mut logits[..rows * vocab];
                matmul::nt(logits, 0.0, x, &w, rows, vocab, hidden);
                bend(logits, softcap);
                let (nll, correct) = match softcap {
                    None => loss::cross_entropy_grad_in_place(logits, labels, scale, vocab),
                    Some(cap) => loss::capped_cross_entropy_grad_in_place(logits, labels, scale, vocab, cap),
                };
                sums = (sums.0 + nll, sums.1 + correct);
                if wants_dx {
                    let at = idx * chunk * hidden;
                    matmul::nn(&mut dx[at..at + rows * hidden], 0.0, logits, &w, rows, hidden, vocab);
                }
                if let Some(dw) = &mut dw {
                    matmul::tn(dw, beta(accumulate || idx > 0), logits, x, vocab, hidden, rows);
                }
            }
        };
        if wants_dw {
            self.write(instr, instr.outputs.len() - 1, |dw| pass(Some(dw)))?;
        } else {
            pass(None);
        }
        if wants_dx {
            let shape = self.program.value(instr.inputs[0]).shape.as_slice();
            self.values[instr.outputs[1].0] = Some(Tensor::from_vec(dx, shape, &Device::Cpu)?);
        }
        self.write(instr, 0, |y| y.copy_from_slice(&[sums.0 as f32, sums.1 as f32]))
    }
}

/// Logits that are not to leave a range.
fn bend(logits: &mut [f32], softcap: Option<f32>) {
    if let Some(cap) = softcap {
        activation::forward_in_place(activation::Tanh { cap }, logits);
    }
}

/// What the product's sum so far is multiplied by.
fn beta(accumulate: bool) -> f32 {
    if accumulate { 1.0 } else { 0.0 }
}

fn shape(spec: &AttentionSpec) -> attention::Shape {
    let AttentionSpec { batch, seq, heads, kv_heads, head_dim, scale, causal, packed: _, window, softcap } =
        *spec;
    attention::Shape { batch, seq, heads, kv_heads, head_dim, scale, causal, window, softcap }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn the_program_and_the_kernels_agree_on_scratch() {
        for seq in [1, 7, 64, 200, 512, 513, 4096] {
            let spec = AttentionSpec {
                batch: 2,
                seq,
                heads: 4,
                kv_heads: 2,
                head_dim: 8,
                scale: 1.0,
                causal: true,
                packed: false,
                window: None,
                softcap: None,
            };
            let none: [&[usize]; 0] = [];
            let (forward, grad) = (Op::Attention(spec), Op::AttentionGrad(spec));
            let shape = shape(&spec);
            assert_eq!(
                forward.workspace(&none, Dtype::F32, 3.into()).0,
                4 * attention::scratch_len::<f32>(&shape, 3) as u64
            );
            assert_eq!(
                grad.workspace(&none, Dtype::F32, 3.into()).0,
                4 * attention::grad_scratch_len::<f32>(&shape, 3) as u64
            );
            let (len, grad_len) =
                (attention::scratch_len::<bf16>(&shape, 3), attention::grad_scratch_len::<bf16>(&shape, 3));
            assert_eq!(forward.workspace(&none, Dtype::Bf16, 3.into()).0, 4 * len as u64);
            assert_eq!(grad.workspace(&none, Dtype::Bf16, 3.into()).0, 4 * grad_len as u64);
        }
    }
}
