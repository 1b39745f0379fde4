//! Plays a program on a device: allocate, launch, drop.
//!
//! It allocates what the program says, and scratch as [`Op::workspace`] counts it.

use std::collections::HashMap;

use candle_core::{Result, Tensor};

use crate::program::workspace::gpu_blocks as blocks;
use crate::program::{Activation, AttentionSpec, CachedSpec, Home, Input, Instr, Op, Program, Role, ValueId};
use crate::random::Random;
use crate::units::Dtype;

use super::super::leaving::Leaving;
use super::super::player::{Inputs, Knobs, Played};
use super::super::store::Store;
use super::kernels::Module;
use super::machine::{Arg, Launch, Machine, Product, Ticket};
use super::update::{Step, update};

/// Plays `program` on `inputs` and on the gradients that an earlier program has left; weights and states lie on the
/// device.
///
/// # Errors
/// When the device has no room or refuses.
pub fn play(
    machine: &dyn Machine,
    program: &Program,
    store: &mut Store,
    inputs: Inputs,
    mut carried: Vec<(crate::program::ParamId, Tensor)>,
    knobs: &Knobs<'_>,
) -> Result<Played> {
    let usage = match store.leaving.is_empty() {
        true => Vec::new(),
        false => program.usage(),
    };
    let room = Room { most: usage.iter().copied().fold(store.leaving.most, u64::max), usage };
    room.make(&mut store.leaving, 0)?;
    let mut values: Vec<Option<Tensor>> = vec![None; program.values.len()];
    let mut inputs = inputs;
    for id in &program.inputs {
        let value = program.value(*id);
        values[id.0] = Some(match value.role {
            Role::Input(input) => {
                let words = inputs.take(input, value.elements());
                machine.upload(words, &value.shape)?
            }
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
    drop(inputs);
    drop(carried);
    let desk = Desk { machine, module: Module::of(program) };
    let mut player =
        Player { desk, program, store, values, room, biases: Vec::new(), under_way: HashMap::new(), knobs };
    if let Err(error) = player.run() {
        // Storage that is being copied to or from does not go before that is done.
        for (_, copy) in player.under_way.drain() {
            let _ = machine.wait(copy);
        }
        return Err(error);
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

/// A machine with the module that the program runs in.
pub(super) struct Desk<'m> {
    pub machine: &'m dyn Machine,
    pub module: Module,
}

impl Desk<'_> {
    pub fn at(&self, tensor: &Tensor) -> Result<Arg> {
        Ok(Arg::Pointer(self.machine.address(tensor)?))
    }

    /// A kernel whose threads go through a buffer of `n` numbers.
    pub fn each(&self, kernel: &'static str, n: usize, args: &[Arg]) -> Result<()> {
        self.blocks(kernel, blocks(n), 256, args)
    }

    /// A kernel of so many blocks of so many threads.
    pub fn blocks(&self, kernel: &'static str, blocks: usize, threads: u32, args: &[Arg]) -> Result<()> {
        self.grid(kernel, [blocks as u32, 1, 1], [threads, 1, 1], 0, args)
    }

    pub fn grid(
        &self,
        kernel: &'static str,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        args: &[Arg],
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        self.machine.launch(&Launch { module: self.module, kernel, grid, block, shared_bytes, args })
    }

    pub fn floats(&self, n: usize) -> Result<Tensor> {
        self.machine.fresh(&[n], Dtype::F32)
    }

    /// `out[0] = (that or 0) + sum of x x` over `n` numbers; `parts` has room for a double of each block.
    pub fn sum_of_squares(&self, out: u64, accumulate: bool, x: Arg, n: usize, parts: Arg) -> Result<()> {
        if n <= FEW {
            let args = [Arg::Pointer(out), x, flag(accumulate), word(n)];
            return self.blocks("sum_squares", 1, 256, &args);
        }
        self.each("square_parts", n, &[parts, x, count(n)])?;
        self.sum_parts(out, accumulate, parts, blocks(n))
    }

    pub fn sum_parts(&self, out: u64, accumulate: bool, parts: Arg, n: usize) -> Result<()> {
        self.blocks("sum_parts", 1, 256, &[Arg::Pointer(out), parts, flag(accumulate), word(n)])
    }
}

/// So many numbers one block adds up as fast as another launch begins.
const FEW: usize = 8192;

pub(super) fn word(n: usize) -> Arg {
    Arg::U32(u32::try_from(n).expect("a size of fewer than 2^32"))
}

pub(super) fn count(n: usize) -> Arg {
    Arg::U64(n as u64)
}

pub(super) fn flag(on: bool) -> Arg {
    Arg::I32(on.into())
}

/// Threads for a row of `n` numbers: whole warps.
fn row_threads(n: usize) -> u32 {
    (n.div_ceil(4).next_multiple_of(32) as u32).clamp(32, 512)
}

/// An activation as the kernels number it, and its bound.
fn curve(activation: Activation) -> [Arg; 2] {
    let (number, cap) = match activation {
        Activation::Silu => (0, 0.0),
        Activation::Gelu => (1, 0.0),
        Activation::GeluTanh => (2, 0.0),
        Activation::Relu => (3, 0.0),
        Activation::Tanh { cap } => (4, cap),
    };
    [Arg::I32(number), Arg::F32(cap)]
}

/// What the product's sum so far is multiplied by.
fn beta(accumulate: bool) -> f32 {
    if accumulate { 1.0 } else { 0.0 }
}

/// What the program takes, and what it may take together with what is still on its way home.
struct Room {
    most: u64,
    /// Before the first instruction and at each. Empty where nothing is on its way.
    usage: Vec<u64>,
}

impl Room {
    /// Makes room for what the program has before its first instruction (0) or at the one before `at`.
    fn make(&self, leaving: &mut Leaving, at: usize) -> Result<()> {
        match self.usage.get(at) {
            Some(usage) if !leaving.is_empty() => leaving.shrink(self.most - usage),
            Some(_) | None => Ok(()),
        }
    }
}

/// A bias that is still to be added to the rows of a product.
struct Bias {
    y: Arg,
    bias: Arg,
    n: usize,
    all: usize,
    /// Of the rows, and of the bias.
    ids: [ValueId; 2],
}

struct Player<'a> {
    desk: Desk<'a>,
    program: &'a Program,
    store: &'a mut Store,
    values: Vec<Option<Tensor>>,
    room: Room,
    /// At most three.
    biases: Vec<Bias>,
    /// Copies that have set out, to the device or from it.
    under_way: HashMap<ValueId, Ticket>,
    knobs: &'a Knobs<'a>,
}

impl Player<'_> {
    fn run(&mut self) -> Result<()> {
        let program = self.program;
        let mut idx = 0;
        while let Some(instr) = program.instrs.get(idx) {
            self.room.make(&mut self.store.leaving, idx + 1)?;
            let next = program.instrs.get(idx + 1);
            let both = match next {
                Some(next) => self.fused(instr, next, idx)?,
                None => false,
            };
            if both {
                idx += 2;
                continue;
            }
            if !matches!(instr.op, Op::Linear { bias: true, .. }) {
                self.add_biases()?;
            }
            self.call(instr)?;
            self.let_go(instr)?;
            idx += 1;
        }
        self.add_biases()?;
        // What an earlier program has left has long arrived.
        self.store.leaving.shrink(0)?;
        for id in &self.program.leaving {
            let Role::Fetched(home) = self.program.value(*id).role else {
                unreachable!("what goes home has come from there")
            };
            let tensor = self.values[id.0].take().expect("it has not died");
            let copy = self.under_way.remove(id).expect("it has set out");
            self.store.leaving.add(home, tensor, copy);
        }
        Ok(())
    }

    /// Lets go of what dies with an instruction.
    fn let_go(&mut self, instr: &Instr) -> Result<()> {
        if self.biases.iter().any(|bias| instr.dies.iter().any(|id| bias.ids.contains(id))) {
            self.add_biases()?;
        }
        for id in &instr.dies {
            self.arrive(*id)?;
            self.values[id.0] = None;
        }
        Ok(())
    }

    /// Plays two neighbours by one launch, where there is a kernel for both. What they take and give back is the same as
    /// one after the other.
    fn fused(&mut self, first: &Instr, next: &Instr, idx: usize) -> Result<bool> {
        let program = self.program;
        let value = |id: ValueId| program.value(id);
        match (&first.op, &next.op) {
            (Op::Add, Op::RmsNorm { .. } | Op::LayerNorm { .. })
                if next.inputs[0] == first.outputs[0]
                    && next.reuses[0].is_none()
                    && value(first.outputs[0]).dtype == self.desk.module.real =>
            {
                // Nothing is known of what else the norm reads before the sum is there.
                self.room.make(&mut self.store.leaving, idx + 2)?;
                self.add_biases()?;
                for id in first.inputs.iter().chain(&next.inputs[1..]) {
                    self.arrive(*id)?;
                }
                let [a, b] = [0, 1].map(|i| self.get(first.inputs[i]));
                let [a_at, b_at] = [self.desk.at(&a)?, self.desk.at(&b)?];
                let weights: Vec<Tensor> = next.inputs[1..].iter().map(|id| self.get(*id)).collect();
                let weights: Vec<Arg> = weights.iter().map(|w| self.desk.at(w)).collect::<Result<_>>()?;
                drop((a, b));
                let sum = self.output(first, 0)?;
                // The place of what would be given back between the two is the norm's.
                let given = first.inputs.iter().find(|id| {
                    let same = value(**id).bytes() == value(next.outputs[0]).bytes();
                    same && first.dies.contains(id) && self.values[id.0].is_some()
                });
                let y = match given {
                    Some(id) => {
                        let tensor = self.values[id.0].take().expect("it is there");
                        let at = self.desk.at(&tensor)?;
                        self.values[next.outputs[0].0] = Some(tensor);
                        at
                    }
                    None => self.output(next, 0)?,
                };
                let n = value(next.inputs[1]).elements();
                let rows = value(first.outputs[0]).elements() / n;
                let (kernel, eps, rest) = match next.op {
                    Op::RmsNorm { eps, offset } => ("add_rms_norm", eps, Some(Arg::F32(offset))),
                    Op::LayerNorm { eps } => ("add_layer_norm", eps, None),
                    _ => unreachable!("one of the two"),
                };
                let args: Vec<Arg> = [y, sum, a_at, b_at]
                    .into_iter()
                    .chain(weights)
                    .chain([Arg::F32(eps)])
                    .chain(rest)
                    .chain([word(n)])
                    .collect();
                self.desk.blocks(kernel, rows, row_threads(n), &args)?;
            }
            (
                Op::Rope { heads, head_dim, inverse },
                Op::Rope { heads: other_heads, head_dim: other_dim, inverse: other_way },
            ) if first.inputs[1] == next.inputs[1]
                && (head_dim, inverse) == (other_dim, other_way)
                && next.inputs[0] != first.outputs[0]
                && first.dies.is_empty() =>
            {
                self.room.make(&mut self.store.leaving, idx + 2)?;
                self.add_biases()?;
                let [a, b] = [first, next].map(|instr| self.get(instr.inputs[0]));
                let table = self.get(first.inputs[1]);
                let [a, b, table] = [self.desk.at(&a)?, self.desk.at(&b)?, self.desk.at(&table)?];
                let ys = [self.output(first, 0)?, self.output(next, 0)?];
                let [n, m] = [first, next].map(|instr| value(instr.inputs[0]).elements() / 2);
                let sign = Arg::F32(if *inverse { -1.0 } else { 1.0 });
                let turned = value(first.inputs[1]).shape[1];
                let of_each = [[ys[0], a, word(*heads), count(n)], [ys[1], b, word(*other_heads), count(m)]];
                let args = [&of_each.concat()[..], &[table, word(*head_dim), word(turned), sign]].concat();
                self.desk.grid("rope_two", [blocks(n.max(m)) as u32, 2, 1], [256, 1, 1], 0, &args)?;
            }
            _ => return Ok(false),
        }
        self.let_go(first)?;
        self.let_go(next)?;
        Ok(true)
    }

    /// Adds biases that wait for their neighbours'.
    fn add_biases(&mut self) -> Result<()> {
        let biases = std::mem::take(&mut self.biases);
        match &biases[..] {
            [] => Ok(()),
            [Bias { y, bias, n, all, .. }] => {
                self.desk.each("add_bias", *all, &[*y, *bias, word(*n), count(*all)])
            }
            some => {
                let most = some.iter().map(|bias| bias.all).max().expect("there are some");
                let none = [Arg::Pointer(0), Arg::Pointer(0), word(1), count(0)];
                let of = |i: usize| some.get(i).map_or(none, |b| [b.y, b.bias, word(b.n), count(b.all)]);
                let grid = [blocks(most) as u32, some.len() as u32, 1];
                self.desk.grid("add_three_biases", grid, [256, 1, 1], 0, &[of(0), of(1), of(2)].concat())
            }
        }
    }

    /// Makes what follows wait for a copy that is under way.
    fn arrive(&mut self, id: ValueId) -> Result<()> {
        match self.under_way.remove(&id) {
            Some(copy) => self.desk.machine.wait(copy),
            None => Ok(()),
        }
    }

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

    /// Where an output lies: over the input whose place it takes, or in fresh storage.
    fn output(&mut self, instr: &Instr, output: usize) -> Result<Arg> {
        let id = instr.outputs[output];
        let value = self.program.value(id);
        let tensor = match instr.reuses[output] {
            Some(input) => self.values[instr.inputs[input].0].take().expect("a sum is alive"),
            None => self.desk.machine.fresh(&value.shape, value.dtype)?,
        };
        let at = self.desk.at(&tensor)?;
        self.values[id.0] = Some(tensor);
        Ok(at)
    }

    fn call(&mut self, instr: &Instr) -> Result<()> {
        let home = |input: usize| self.store.home(self.program.value(instr.inputs[input]).role);
        match instr.op {
            Op::Fetch => {
                let (id, value) = (instr.outputs[0], self.program.value(instr.outputs[0]));
                let here = self.desk.machine.fresh(&value.shape, value.dtype)?;
                if let Role::Fetched(home) = value.role {
                    self.store.leaving.precede(home)?;
                }
                let copy = self.desk.machine.fetch(home(0), &here)?;
                self.under_way.insert(id, copy);
                self.values[id.0] = Some(here);
                return Ok(());
            }
            Op::Evict => {
                let copy = self.desk.machine.evict(&self.get(instr.inputs[0]), home(1))?;
                self.under_way.insert(instr.inputs[0], copy);
                return Ok(());
            }
            _ => {}
        }
        let tensors: Vec<Tensor> = instr.inputs.iter().map(|id| self.get(*id)).collect();
        for id in &instr.inputs {
            self.arrive(*id)?;
        }
        let input: Vec<Arg> = tensors.iter().map(|tensor| self.desk.at(tensor)).collect::<Result<_>>()?;
        let program = self.program;
        let dims = |i: usize| -> &[usize] { &program.value(instr.inputs[i]).shape };
        let size = |i: usize| program.value(instr.inputs[i]).elements();
        let dtype = |id: ValueId| program.value(id).dtype;
        match &instr.op {
            Op::Embed { offset } => {
                let (rows, hidden) = (dims(1)[0], dims(0)[1]);
                let y = self.output(instr, 0)?;
                let args = [y, input[0], input[1], word(*offset), word(hidden)];
                self.desk.blocks("embed", rows, row_threads(hidden), &args)
            }
            Op::EmbedGrad { n, offset, accumulate } => {
                let (rows, hidden) = (dims(0)[0], dims(0)[1]);
                let kernel = if dtype(instr.outputs[0]) == Dtype::F32 { "embed_grad" } else { "pick_grad" };
                let dw = self.output(instr, 0)?;
                match (accumulate, kernel) {
                    (true, _) => {}
                    (false, "embed_grad") => {
                        self.desk.each("fill_words", n * hidden, &[dw, Arg::U32(0), count(n * hidden)])?;
                    }
                    (false, _) => self.desk.each("clear_reals", n * hidden, &[dw, count(n * hidden)])?,
                }
                let args = [dw, input[0], input[1], word(*offset), word(hidden), word(rows)];
                self.desk.blocks(kernel, rows, row_threads(hidden), &args)
            }
            Op::Linear { bias, transposed } => {
                if self.biases.iter().any(|bias| instr.inputs.contains(&bias.ids[0])) {
                    self.add_biases()?;
                }
                let (m, k, n) = (dims(0)[0], dims(0)[1], dims(1)[usize::from(*transposed)]);
                let y = self.output(instr, 0)?;
                let rows = Matrix { at: input[0], ld: k, turned: false };
                let weight =
                    Matrix { at: input[1], ld: if *transposed { n } else { k }, turned: !transposed };
                self.multiply(
                    [m, n, k],
                    rows,
                    weight,
                    dtype(instr.inputs[0]),
                    (y, dtype(instr.outputs[0])),
                    0.0,
                )?;
                if *bias {
                    self.biases.push(Bias {
                        y,
                        bias: input[2],
                        n,
                        all: m * n,
                        ids: [instr.outputs[0], instr.inputs[2]],
                    });
                    if self.biases.len() == 3 {
                        self.add_biases()?;
                    }
                }
                Ok(())
            }
            Op::LinearGradInput { transposed, accumulate } => {
                let (m, k, n) = (dims(0)[0], dims(0)[1], dims(1)[usize::from(!*transposed)]);
                let dx = self.output(instr, 0)?;
                let rows = Matrix { at: input[0], ld: k, turned: false };
                let weight =
                    Matrix { at: input[1], ld: if *transposed { k } else { n }, turned: *transposed };
                let to = (dx, dtype(instr.outputs[0]));
                self.multiply([m, n, k], rows, weight, dtype(instr.inputs[0]), to, beta(*accumulate))
            }
            Op::LinearGradWeight { transposed, accumulate } => {
                let (rows, out, inner) = (dims(0)[0], dims(0)[1], dims(1)[1]);
                let dw = self.output(instr, 0)?;
                let dy = Matrix { at: input[0], ld: out, turned: true };
                let x = Matrix { at: input[1], ld: inner, turned: true };
                let to = (dw, dtype(instr.outputs[0]));
                let half = dtype(instr.inputs[0]);
                match transposed {
                    false => {
                        let x = Matrix { turned: false, ..x };
                        self.multiply([out, inner, rows], dy, x, half, to, beta(*accumulate))
                    }
                    true => {
                        let dy = Matrix { turned: false, ..dy };
                        self.multiply([inner, out, rows], x, dy, half, to, beta(*accumulate))
                    }
                }
            }
            Op::LinearGradBias { accumulate } => {
                let (rows, n) = (dims(0)[0], dims(0)[1]);
                let db = self.output(instr, 0)?;
                self.column_sums(db, input[0], None, *accumulate, n, rows)
            }
            Op::RmsNorm { eps, offset } => {
                let (n, y) = (size(1), self.output(instr, 0)?);
                let args = [y, input[0], input[1], Arg::F32(*eps), Arg::F32(*offset), word(n)];
                self.desk.blocks("rms_norm", size(0) / n, row_threads(n), &args)
            }
            Op::RmsNormGradInput { eps, offset, accumulate } => {
                let (n, dx) = (size(2), self.output(instr, 0)?);
                let [eps, offset] = [*eps, *offset].map(Arg::F32);
                let args = [dx, input[0], input[1], input[2], eps, offset, flag(*accumulate), word(n)];
                self.desk.blocks("rms_norm_grad_input", size(0) / n, row_threads(n), &args)
            }
            Op::RmsNormGradWeight { eps, width, accumulate } => {
                self.norm_grad_weight(instr, &input, *eps, false, *width, *accumulate)
            }
            Op::LayerNorm { eps } => {
                let (n, y) = (size(1), self.output(instr, 0)?);
                let args = [y, input[0], input[1], input[2], Arg::F32(*eps), word(n)];
                self.desk.blocks("layer_norm", size(0) / n, row_threads(n), &args)
            }
            Op::LayerNormGradInput { eps, accumulate } => {
                let (n, dx) = (size(2), self.output(instr, 0)?);
                let args = [dx, input[0], input[1], input[2], Arg::F32(*eps), flag(*accumulate), word(n)];
                self.desk.blocks("layer_norm_grad_input", size(0) / n, row_threads(n), &args)
            }
            Op::LayerNormGradWeight { eps, accumulate } => {
                self.norm_grad_weight(instr, &input, *eps, true, dims(0)[1], *accumulate)
            }
            Op::RopeTable { inv_freq } => {
                let (rows, half) = (dims(0)[0], inv_freq.len());
                let words = inv_freq.iter().map(|x| x.to_bits()).collect();
                let frequencies = self.desk.machine.upload(words, &[half])?;
                let table = self.output(instr, 0)?;
                let args = [table, input[0], self.desk.at(&frequencies)?, word(half), count(rows * half)];
                self.desk.each("rope_table", rows * half, &args)
            }
            Op::Rope { heads, head_dim, inverse } => {
                let (n, turned) = (size(0) / 2, dims(1)[1]);
                let y = self.output(instr, 0)?;
                let sign = Arg::F32(if *inverse { -1.0 } else { 1.0 });
                let args =
                    [y, input[0], input[1], word(*heads), word(*head_dim), word(turned), sign, count(n)];
                self.desk.each("rope", n, &args)
            }
            Op::Attention(spec) => {
                let (o, lse) = (self.output(instr, 0)?, self.output(instr, 1)?);
                let starts = input.get(3).copied().unwrap_or(Arg::Pointer(0));
                let args = [&[o, lse, input[0], input[1], input[2], starts][..], &sizes(spec)].concat();
                self.tiles("attention", spec, spec.heads, self.desk.module.shared_bytes(1, 2), &args)
            }
            Op::AttentionGrad(spec) => self.attention_grad(instr, &input, spec),
            Op::Columns { start, width, period } => {
                let n = size(0) / period * width;
                let y = self.output(instr, 0)?;
                let args = [y, input[0], word(*start), word(*width), word(*period), count(n)];
                self.desk.each("columns", n, &args)
            }
            Op::ColumnsGrad { start, width, period, accumulate } => {
                let n = size(0) / width * period;
                let dx = self.output(instr, 0)?;
                let sizes = [word(*start), word(*width), word(*period), flag(*accumulate), count(n)];
                self.desk.each("columns_grad", n, &[&[dx, input[0]][..], &sizes].concat())
            }
            Op::Activate(activation) => {
                let ([f, cap], y) = (curve(*activation), self.output(instr, 0)?);
                self.desk.each("activate", size(0), &[y, input[0], f, cap, count(size(0))])
            }
            Op::ActivateGrad(activation) => {
                let ([f, cap], dx) = (curve(*activation), self.output(instr, 0)?);
                self.desk.each("activate_grad", size(0), &[dx, input[0], input[1], f, cap, count(size(0))])
            }
            Op::Gated(activation) => {
                let ([f, cap], y) = (curve(*activation), self.output(instr, 0)?);
                self.desk.each("gated", size(0), &[y, input[0], input[1], f, cap, count(size(0))])
            }
            Op::GatedGrad(activation) => {
                let [f, cap] = curve(*activation);
                let (d_gate, d_up) = (self.output(instr, 0)?, self.output(instr, 1)?);
                let args = [d_gate, d_up, input[0], input[1], input[2], f, cap, count(size(0))];
                self.desk.each("gated_grad", size(0), &args)
            }
            Op::GatedLinear { activation, transposed, chunk } => {
                let ([f, cap], y) = (curve(*activation), self.output(instr, 0)?);
                let (rows, k, n) = (dims(0)[0], dims(0)[1], dims(2)[usize::from(*transposed)]);
                let (real, chunk) = (dtype(instr.inputs[0]), (*chunk).min(rows));
                let mixed = self.desk.machine.fresh(&[chunk * k], real)?;
                let mixed = self.desk.at(&mixed)?;
                let row =
                    |at: Arg, first: usize, width: usize| offset(at, first * width * real.size() as usize);
                let weight =
                    Matrix { at: input[2], ld: if *transposed { n } else { k }, turned: !transposed };
                for first in (0..rows).step_by(chunk) {
                    let m = chunk.min(rows - first);
                    let [gate, up] = [input[0], input[1]].map(|at| row(at, first, k));
                    self.desk.each("gated", m * k, &[mixed, gate, up, f, cap, count(m * k)])?;
                    let some = Matrix { at: mixed, ld: k, turned: false };
                    self.multiply([m, n, k], some, weight, real, (row(y, first, n), real), 0.0)?;
                }
                Ok(())
            }
            Op::GatedLinearGrad { activation, transposed, chunk } => {
                let [f, cap] = curve(*activation);
                let (d_gate, d_up) = (self.output(instr, 0)?, self.output(instr, 1)?);
                let (rows, k, n) = (dims(0)[0], dims(0)[1], dims(1)[1]);
                let (real, chunk) = (dtype(instr.inputs[0]), (*chunk).min(rows));
                let d_mixed = self.desk.machine.fresh(&[chunk * n], real)?;
                let d_mixed = self.desk.at(&d_mixed)?;
                let row =
                    |at: Arg, first: usize, width: usize| offset(at, first * width * real.size() as usize);
                let weight =
                    Matrix { at: input[3], ld: if *transposed { k } else { n }, turned: *transposed };
                for first in (0..rows).step_by(chunk) {
                    let m = chunk.min(rows - first);
                    let some = Matrix { at: row(input[0], first, k), ld: k, turned: false };
                    self.multiply([m, n, k], some, weight, real, (d_mixed, real), 0.0)?;
                    let [dg, du, gate, up] = [d_gate, d_up, input[1], input[2]].map(|at| row(at, first, n));
                    let args = [dg, du, d_mixed, gate, up, f, cap, count(m * n)];
                    self.desk.each("gated_grad", m * n, &args)?;
                }
                Ok(())
            }
            Op::Scale { factor } => {
                let y = self.output(instr, 0)?;
                self.desk.each("scale", size(0), &[y, input[0], Arg::F32(*factor), count(size(0))])
            }
            Op::Cast { to } => {
                let kernel = if *to == Dtype::F32 { "widen" } else { "narrow_to_real" };
                let y = self.output(instr, 0)?;
                self.desk.each(kernel, size(0), &[y, input[0], count(size(0))])
            }
            Op::Add => {
                let kernel = if dtype(instr.outputs[0]) == Dtype::F32 { "add_floats" } else { "add" };
                let y = self.output(instr, 0)?;
                self.desk.each(kernel, size(0), &[y, input[0], input[1], count(size(0))])
            }
            Op::Copy => {
                let in_place = instr.reuses[0].is_some();
                let y = self.output(instr, 0)?;
                if in_place {
                    return Ok(());
                }
                let kernel = match dtype(instr.outputs[0]) {
                    Dtype::F32 | Dtype::U32 => "copy_words",
                    Dtype::F16 | Dtype::Bf16 => "copy_reals",
                };
                self.desk.each(kernel, size(0), &[y, input[0], count(size(0))])
            }
            Op::LinearCrossEntropy { chunk, softcap } => {
                self.linear_cross_entropy(instr, &input, *chunk, *softcap, None, None)
            }
            Op::LinearCrossEntropyGrad { chunk, softcap, input: wants_dx, weight, accumulate } => {
                let dx = if *wants_dx { Some(self.output(instr, 1)?) } else { None };
                let last = instr.outputs.len() - 1;
                let dw = if *weight { Some((self.output(instr, last)?, *accumulate)) } else { None };
                self.linear_cross_entropy(instr, &input, *chunk, *softcap, Some(dx), dw)
            }
            Op::NormedLossGrad { eps, offset, chunk, softcap } => {
                self.normed_loss_grad(instr, &input, [*eps, *offset], *chunk, *softcap)
            }
            Op::CrossEntropy => self.class_loss("class_entropy", instr, &input, false),
            Op::CrossEntropyGrad => self.class_loss("class_entropy", instr, &input, true),
            Op::SquaredError => self.class_loss("squared_error", instr, &input, false),
            Op::SquaredErrorGrad => self.class_loss("squared_error", instr, &input, true),
            Op::Fetch | Op::Evict => unreachable!("copies are not launched"),
            Op::SpanCrossEntropy { seq } => self.span_loss(instr, &input, *seq, false),
            Op::SpanCrossEntropyGrad { seq } => self.span_loss(instr, &input, *seq, true),
            Op::CacheWrite => {
                let args = [input[1], input[0], input[2], word(dims(0)[1]), count(size(0))];
                self.desk.each("cache_write", size(0), &args)
            }
            Op::CachedAttention(spec) => {
                let CachedSpec { batch, capacity, heads, kv_heads, head_dim, scale, window, softcap } = *spec;
                let y = self.output(instr, 0)?;
                let numbers = [scale, softcap.unwrap_or(0.0)].map(Arg::F32);
                let sizes = [window.unwrap_or(0), capacity, heads, kv_heads, head_dim].map(word);
                let args = [&[y][..], &input, &numbers, &sizes].concat();
                self.desk.blocks("cached_attention", batch * heads, 256, &args)
            }
            Op::SumSquares { accumulate } => {
                let Arg::Pointer(out) = self.output(instr, 0)? else { unreachable!("an output has a place") };
                let parts = self.desk.floats(2 * blocks(size(0)))?;
                self.desk.sum_of_squares(out, *accumulate, input[0], size(0), self.desk.at(&parts)?)
            }
            Op::GradFactor { max_norm } => {
                let out = self.output(instr, 0)?;
                let numbers = [max_norm.unwrap_or(0.0), self.knobs.unscale].map(Arg::F32);
                self.desk.blocks("grad_factor", 1, 32, &[out, input[0], numbers[0], numbers[1]])
            }
            Op::Update { master, states, scaled } => {
                let value = program.value(instr.inputs[0]);
                let (Role::Weight(param) | Role::Fetched(Home::Weight(param))) = value.role else {
                    unreachable!("an update begins with its weight")
                };
                let (first, n) = (2 + usize::from(*master), value.elements());
                let Knobs { rate, factors, algorithm, weight_decay, .. } = *self.knobs;
                let step = Step {
                    algorithm,
                    rate: rate * factors.get(param.0).unwrap_or(&1.0),
                    weight_decay,
                    count: self.store.count_update(param),
                    clip: if *scaled { input[first + states] } else { Arg::Pointer(0) },
                };
                let states = &tensors[first..first + states];
                if *master {
                    return update(&self.desk, &step, &value.shape, [input[2], input[0]], input[1], states);
                }
                if value.dtype == Dtype::F32 {
                    let weights = [input[0], Arg::Pointer(0)];
                    return update(&self.desk, &step, &value.shape, weights, input[1], states);
                }
                let wide = self.desk.floats(n)?;
                let wide = self.desk.at(&wide)?;
                self.desk.each("widen", n, &[wide, input[0], count(n)])?;
                update(&self.desk, &step, &value.shape, [wide, Arg::Pointer(0)], input[1], states)?;
                let noise = Random::stream(self.knobs.noise, param.0 as u64).next();
                self.desk.each("round_at_random", n, &[input[0], wide, Arg::U64(noise), count(n)])
            }
        }
    }

    fn multiply(
        &self,
        [m, n, k]: [usize; 3],
        a: Matrix,
        b: Matrix,
        dtype: Dtype,
        (c, c_dtype): (Arg, Dtype),
        beta: f32,
    ) -> Result<()> {
        let [Arg::Pointer(a_at), Arg::Pointer(b_at), Arg::Pointer(c)] = [a.at, b.at, c] else {
            unreachable!("matrices have places")
        };
        self.desk.machine.multiply(&Product {
            m,
            n,
            k,
            a: a_at,
            lda: a.ld,
            a_turned: a.turned,
            b: b_at,
            ldb: b.ld,
            b_turned: b.turned,
            dtype,
            tf32: self.store.tf32(),
            c,
            ldc: n,
            c_dtype,
            beta,
        })
    }

    /// Sums over rows, of `dy` or of `dy` times the normed `x`.
    fn column_sums(
        &self,
        sums: Arg,
        dy: Arg,
        normed: Option<(Arg, Arg)>,
        accumulate: bool,
        n: usize,
        rows: usize,
    ) -> Result<()> {
        let (x, statistics) = normed.unwrap_or((Arg::Pointer(0), Arg::Pointer(0)));
        let args = [sums, dy, x, statistics, flag(accumulate), word(n), word(rows)];
        self.desk.grid("column_sums", [n.div_ceil(32) as u32, 1, 1], [32, 16, 1], 0, &args)
    }

    fn norm_grad_weight(
        &mut self,
        instr: &Instr,
        input: &[Arg],
        eps: f32,
        centered: bool,
        n: usize,
        accumulate: bool,
    ) -> Result<()> {
        let rows = self.program.value(instr.inputs[0]).elements() / n;
        let dw = self.output(instr, 0)?;
        let statistics = self.desk.floats(2 * rows)?;
        let at = self.desk.at(&statistics)?;
        let args = [at, input[1], Arg::F32(eps), flag(centered), word(n)];
        self.desk.blocks("row_statistics", rows, row_threads(n), &args)?;
        self.column_sums(dw, input[0], Some((input[1], at)), accumulate, n, rows)
    }

    /// An attention kernel: a block for each tile of rows, head and row of the batch.
    fn tiles(
        &self,
        kernel: &'static str,
        spec: &AttentionSpec,
        heads: usize,
        shared_bytes: u32,
        args: &[Arg],
    ) -> Result<()> {
        let own = self.desk.module.own();
        let grid = [spec.seq.div_ceil(own) as u32, heads as u32, spec.batch as u32];
        self.desk.grid(kernel, grid, [2 * own as u32, 1, 1], shared_bytes, args)
    }

    fn attention_grad(&mut self, instr: &Instr, input: &[Arg], spec: &AttentionSpec) -> Result<()> {
        let [d_o, q, k, v, o, lse] = [0, 1, 2, 3, 4, 5].map(|i| input[i]);
        let starts = input.get(6).copied().unwrap_or(Arg::Pointer(0));
        let n = spec.batch * spec.seq * spec.heads;
        let delta = self.desk.floats(n)?;
        let delta_at = self.desk.at(&delta)?;
        let args = [delta_at, d_o, o, word(spec.seq), word(spec.heads), word(spec.head_dim), count(n)];
        // A warp for each row and head.
        self.desk.blocks("attention_delta", n.div_ceil(8), 256, &args)?;
        let [dq, dk, dv] = [self.output(instr, 0)?, self.output(instr, 1)?, self.output(instr, 2)?];
        let operands = [d_o, q, k, v, lse, delta_at, starts];
        let args = [&[dq][..], &operands, &sizes(spec)].concat();
        let shared_bytes = self.desk.module.shared_bytes(2, 2);
        self.tiles("attention_grad_queries", spec, spec.heads, shared_bytes, &args)?;
        let args = [&[dk, dv][..], &operands, &sizes(spec)].concat();
        self.tiles("attention_grad_keys", spec, spec.kv_heads, shared_bytes, &args)
    }

    /// The loss over chunks of logits. `dx`: whether the gradients are wanted, and where `dx` goes if it is one of them.
    fn linear_cross_entropy(
        &mut self,
        instr: &Instr,
        input: &[Arg],
        chunk: usize,
        softcap: Option<f32>,
        dx: Option<Option<Arg>>,
        dw: Option<(Arg, bool)>,
    ) -> Result<()> {
        let (x, w) = (self.program.value(instr.inputs[0]), self.program.value(instr.inputs[1]));
        let (rows, hidden, vocab) = (x.shape[0], x.shape[1], w.shape[0]);
        let half = x.dtype;
        let chunk = chunk.min(rows);
        let out = self.output(instr, 0)?;
        let logits = self.desk.floats(chunk * vocab)?;
        let pairs = self.desk.floats(2 * rows)?;
        let (logits, pairs) = (self.desk.at(&logits)?, self.desk.at(&pairs)?);
        let scale = if dx.is_some() { self.knobs.loss_scale } else { 0.0 };
        let bend = Arg::F32(softcap.unwrap_or(0.0));
        // Gradients of logits lie where the logits were, at the start of each row.
        let ld = vocab * 4 / half.size() as usize;
        let row_bytes = hidden * half.size() as usize;
        for first in (0..rows).step_by(chunk) {
            let n = chunk.min(rows - first);
            let x = Matrix { at: offset(input[0], first * row_bytes), ld: hidden, turned: false };
            let weight = Matrix { at: input[1], ld: hidden, turned: true };
            self.multiply([n, vocab, hidden], x, weight, half, (logits, Dtype::F32), 0.0)?;
            let args = [
                offset(pairs, first * 8),
                logits,
                offset(input[2], first * 4),
                bend,
                Arg::F32(scale),
                word(vocab),
            ];
            self.desk.blocks("cross_entropy", n, 256, &args)?;
            let d_logits = Matrix { at: logits, ld, turned: false };
            if let Some(Some(dx)) = dx {
                let weight = Matrix { turned: false, ..weight };
                let to = (offset(dx, first * row_bytes), half);
                self.multiply([n, hidden, vocab], d_logits, weight, half, to, 0.0)?;
            }
            if let Some((dw, accumulate)) = dw {
                let d_logits = Matrix { turned: true, ..d_logits };
                let to = (dw, self.program.value(instr.outputs[instr.outputs.len() - 1]).dtype);
                self.multiply([vocab, hidden, n], d_logits, x, half, to, beta(accumulate || first > 0))?;
            }
        }
        self.desk.blocks("pair_sums", 1, 256, &[out, pairs, word(rows)])
    }

    /// The loss of normed rows, and the gradient of what they were before, over chunks of rows.
    fn normed_loss_grad(
        &mut self,
        instr: &Instr,
        input: &[Arg],
        [eps, norm_offset]: [f32; 2],
        chunk: usize,
        softcap: Option<f32>,
    ) -> Result<()> {
        let (x, w) = (self.program.value(instr.inputs[0]), self.program.value(instr.inputs[2]));
        let (rows, hidden, vocab, half) = (x.shape[0], x.shape[1], w.shape[0], x.dtype);
        let chunk = chunk.min(rows);
        let (out, dx) = (self.output(instr, 0)?, self.output(instr, 1)?);
        let logits = self.desk.floats(chunk * vocab)?;
        let pairs = self.desk.floats(2 * rows)?;
        let normed = self.desk.machine.fresh(&[chunk * hidden], half)?;
        let [logits, pairs, normed] = [self.desk.at(&logits)?, self.desk.at(&pairs)?, self.desk.at(&normed)?];
        let [eps, norm_offset] = [eps, norm_offset].map(Arg::F32);
        let [bend, scale] = [softcap.unwrap_or(0.0), self.knobs.loss_scale].map(Arg::F32);
        // As in `linear_cross_entropy`.
        let ld = vocab * 4 / half.size() as usize;
        let row_bytes = hidden * half.size() as usize;
        for first in (0..rows).step_by(chunk) {
            let n = chunk.min(rows - first);
            let [x, dx] = [input[0], dx].map(|at| offset(at, first * row_bytes));
            let args = [normed, x, input[1], eps, norm_offset, word(hidden)];
            self.desk.blocks("rms_norm", n, row_threads(hidden), &args)?;
            let some = Matrix { at: normed, ld: hidden, turned: false };
            let weight = Matrix { at: input[2], ld: hidden, turned: true };
            self.multiply([n, vocab, hidden], some, weight, half, (logits, Dtype::F32), 0.0)?;
            let labels = offset(input[3], first * 4);
            let args = [offset(pairs, first * 8), logits, labels, bend, scale, word(vocab)];
            self.desk.blocks("cross_entropy", n, 256, &args)?;
            // Nobody reads the normed rows any more: their gradient takes their place, and that of `x` the place of `x`.
            let d_logits = Matrix { at: logits, ld, turned: false };
            let weight = Matrix { turned: false, ..weight };
            self.multiply([n, hidden, vocab], d_logits, weight, half, (normed, half), 0.0)?;
            let args = [dx, normed, x, input[1], eps, norm_offset, flag(false), word(hidden)];
            self.desk.blocks("rms_norm_grad_input", n, row_threads(hidden), &args)?;
        }
        self.desk.blocks("pair_sums", 1, 256, &[out, pairs, word(rows)])
    }

    /// The loss of answers in texts, and with `grad` what the logits become.
    fn span_loss(&mut self, instr: &Instr, input: &[Arg], seq: usize, grad: bool) -> Result<()> {
        let batch = self.program.value(instr.inputs[1]).elements() / 3;
        let out = self.output(instr, 0)?;
        let dx = if grad { self.output(instr, 1)? } else { Arg::Pointer(0) };
        let scale = Arg::F32(if grad { self.knobs.loss_scale } else { 0.0 });
        let pairs = self.desk.floats(2 * batch)?;
        let pairs = self.desk.at(&pairs)?;
        let args = [pairs, dx, input[0], input[1], scale, word(seq), word(batch)];
        self.desk.blocks("span_entropy", batch, 256, &args)?;
        self.desk.blocks("pair_sums", 1, 256, &[out, pairs, word(batch)])
    }

    /// A loss of a few numbers a row, and with `grad` what they become.
    fn class_loss(&mut self, kernel: &'static str, instr: &Instr, input: &[Arg], grad: bool) -> Result<()> {
        let x = self.program.value(instr.inputs[0]);
        let (rows, classes) = (x.shape[0], x.shape[1]);
        let out = self.output(instr, 0)?;
        let dx = if grad { self.output(instr, 1)? } else { Arg::Pointer(0) };
        let scale = Arg::F32(if grad { self.knobs.loss_scale } else { 0.0 });
        let pairs = self.desk.floats(2 * rows)?;
        let pairs = self.desk.at(&pairs)?;
        let mut args = vec![pairs, dx, input[0], input[1], scale];
        if kernel == "class_entropy" {
            args.push(word(classes));
        }
        args.push(word(rows));
        self.desk.each(kernel, rows, &args)?;
        self.desk.blocks("pair_sums", 1, 256, &[out, pairs, word(rows)])
    }
}

/// A matrix as it lies on the device.
#[derive(Clone, Copy)]
struct Matrix {
    at: Arg,
    ld: usize,
    turned: bool,
}

fn offset(at: Arg, bytes: usize) -> Arg {
    match at {
        Arg::Pointer(at) => Arg::Pointer(at + bytes as u64),
        Arg::U32(_) | Arg::U64(_) | Arg::I32(_) | Arg::F32(_) => unreachable!("only places are moved"),
    }
}

/// What all attention kernels are told of an attention.
fn sizes(spec: &AttentionSpec) -> [Arg; 8] {
    let AttentionSpec { batch: _, seq, heads, kv_heads, head_dim, scale, causal, packed: _, window, softcap } =
        *spec;
    [
        word(seq),
        word(heads),
        word(kv_heads),
        word(head_dim),
        Arg::F32(scale),
        Arg::F32(softcap.unwrap_or(0.0)),
        flag(causal),
        word(window.unwrap_or(0)),
    ]
}

impl Inputs {
    /// The words of one input; those that a program wants and the batch does not have are 0.
    fn take(&mut self, input: Input, n: usize) -> Vec<u32> {
        let words = match input {
            Input::Ids => &mut self.ids,
            Input::Types => &mut self.types,
            Input::Labels => &mut self.labels,
            Input::Positions => &mut self.positions,
            Input::Starts => return self.starts.take().unwrap_or_default(),
            Input::Queries => &mut self.queries,
            Input::Classes => &mut self.classes,
            Input::Targets => &mut self.targets,
            Input::Spans => &mut self.spans,
            Input::Places => &mut self.places,
            Input::Seen => &mut self.seen,
            Input::Lengths => &mut self.lengths,
        };
        let words = std::mem::take(words);
        if matches!(input, Input::Types) && words.is_empty() { vec![0; n] } else { words }
    }
}
