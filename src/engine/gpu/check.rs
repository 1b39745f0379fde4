//! Every kernel against the CPU's, over odd shapes and all types of numbers: what `hift doctor` shows, and the tests.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};

use crate::lang::pipeline::Algorithm;
use crate::program::{
    Activation, AttentionSpec, Backend, CachedSpec, Input, Instr, Op, ParamId, Phase, Program, Role, Value,
    ValueId,
};
use crate::random::Random;
use crate::units::Dtype;

use super::super::access::{Stored, fresh, with_floats};
use super::super::cpu::number::Number;
use super::super::player::{Inputs, Knobs};
use super::super::{Store, play as play_on_cpu};
use super::machine::Machine;
use super::player::play;

/// What came of one comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// The operation and its shapes.
    pub name: String,
    pub dtype: Dtype,
    /// The largest distance of an output, as a part of its norm.
    pub apart: f64,
    pub allowed: f64,
}

impl Compared {
    pub fn agrees(&self) -> bool {
        // NaN does not.
        self.apart <= self.allowed
    }
}

/// What an operation is given.
#[derive(Debug, Clone)]
enum Operand {
    /// Numbers from -1 to 1, in the type that is tried.
    Real(Vec<usize>),
    /// The same in 32 bits.
    Wide(Vec<usize>),
    /// 32-bit numbers from 0 to 1.
    Positive(Vec<usize>),
    /// Words below a bound, and with `holes` a few that do not count.
    Words(Input, usize, u32, bool),
    /// Where each position's document begins, in rows of so many positions.
    Starts(usize, usize),
    /// A sum so far, in 32 bits or not, which the output takes over.
    Sum(Vec<usize>, bool),
    /// First tokens, last tokens and lengths of so many answers, in texts of at most so many tokens.
    Spans(usize, usize),
    /// So many lengths from 1 to a bound.
    Lengths(usize, usize),
    /// An output of the attention over the second to fourth operand.
    Attended(usize),
}

/// An operation and what it is given.
struct Case {
    op: Op,
    operands: Vec<Operand>,
    algorithm: Algorithm,
}

impl Case {
    fn new(op: Op, operands: Vec<Operand>) -> Self {
        Self { op, operands, algorithm: Algorithm::Sgd }
    }
}

/// Compares every operation, in numbers of `dtype`; tells `said` each as it is done.
///
/// # Errors
/// When the device fails; a difference is no error.
pub fn compare(machine: &dyn Machine, dtype: Dtype, said: &mut dyn FnMut(Compared)) -> Result<()> {
    for case in cases() {
        if let Some(compared) = with_floats!(dtype, T => one::<T>(machine, &case, dtype))? {
            said(compared);
        }
    }
    for neighbours in neighbours() {
        said(with_floats!(dtype, T => together::<T>(machine, &neighbours, dtype))?);
    }
    Ok(())
}

/// Operations one after the other, for which a device has one kernel, and what they are given.
struct Neighbours {
    /// With the places of what each reads: operands, then what the ones before have given.
    ops: Vec<(Op, Vec<usize>)>,
    operands: Vec<Vec<usize>>,
}

fn neighbours() -> Vec<Neighbours> {
    let mut all = Vec::new();
    for (rows, n) in [(1, 1), (7, 33), (70, 640)] {
        let x = || vec![rows, n];
        all.push(Neighbours {
            ops: vec![(Op::Add, vec![0, 1]), (Op::RmsNorm { eps: 1e-5, offset: 1.0 }, vec![3, 2])],
            operands: vec![x(), x(), vec![n]],
        });
        all.push(Neighbours {
            ops: vec![(Op::Add, vec![0, 1]), (Op::LayerNorm { eps: 1e-5 }, vec![4, 2, 3])],
            operands: vec![x(), x(), vec![n], vec![n]],
        });
        let linear = || Op::Linear { bias: true, transposed: false };
        all.push(Neighbours {
            ops: vec![(linear(), vec![0, 1, 2]), (linear(), vec![0, 3, 4]), (linear(), vec![0, 5, 6])],
            operands: vec![x(), vec![9, n], vec![9], vec![1, n], vec![1], vec![30, n], vec![30]],
        });
    }
    for (rows, heads, kv_heads, head_dim) in [(1, 1, 1, 2), (9, 4, 2, 8), (70, 3, 1, 64)] {
        for inverse in [false, true] {
            let rope = |heads| Op::Rope { heads, head_dim, inverse };
            all.push(Neighbours {
                ops: vec![(rope(heads), vec![0, 2]), (rope(kv_heads), vec![1, 2])],
                operands: vec![
                    vec![rows, heads * head_dim],
                    vec![rows, kv_heads * head_dim],
                    vec![rows, head_dim],
                ],
            });
        }
    }
    all
}

/// Neighbours on both sides.
fn together<T: Stored + Number>(
    machine: &dyn Machine,
    neighbours: &Neighbours,
    dtype: Dtype,
) -> Result<Compared> {
    let mut made = Made::default();
    for (idx, shape) in neighbours.operands.iter().enumerate() {
        // Angles are in 32 bits.
        let wide = idx == 2 && matches!(neighbours.ops[0].0, Op::Rope { .. });
        match wide {
            true => made.weight(numbers::<f32>(shape, idx as u64, -1.0)?, Dtype::F32),
            false => made.weight(numbers::<T>(shape, idx as u64, -1.0)?, dtype),
        }
    }
    let mut instrs = Vec::new();
    let mut outputs = Vec::new();
    for (op, reads) in &neighbours.ops {
        let inputs: Vec<ValueId> = reads.iter().map(|at| ValueId(*at)).collect();
        let shapes: Vec<&[usize]> = inputs.iter().map(|id| made.values[id.0].shape.as_slice()).collect();
        let [shape] = &op.shapes(&shapes)[..] else { unreachable!("each gives one") };
        let output = made.value(shape, dtype, Role::Activation);
        outputs.push(output);
        instrs.push(Instr {
            op: op.clone(),
            inputs,
            outputs: vec![output],
            reuses: vec![None],
            dies: Vec::new(),
            phase: Phase::Forward,
            block: None,
        });
    }
    let values = std::mem::take(&mut made.values);
    let program =
        Program { values, inputs: Vec::new(), instrs, outputs, leaving: Vec::new(), backend: Backend::Gpu };
    let names: Vec<&str> = neighbours.ops.iter().map(|(op, _)| op.name()).collect();
    let name = format!("{} {}", names.join(" + "), shapes_of(&program));
    Ok(Compared {
        name,
        dtype,
        apart: apart(machine, made, program, &Algorithm::Sgd)?,
        allowed: allowed(dtype, false),
    })
}

fn real(shape: &[usize]) -> Operand {
    Operand::Real(shape.to_vec())
}

fn cases() -> Vec<Case> {
    use Operand::{Positive, Starts, Sum, Wide, Words};
    let mut cases = Vec::new();
    let mut case = |op: Op, operands: Vec<Operand>| cases.push(Case::new(op, operands));
    let sum = |shape: &[usize], wide: bool, on: bool| on.then(|| Sum(shape.to_vec(), wide));
    let with = |mut operands: Vec<Operand>, more: Option<Operand>| {
        operands.extend(more);
        operands
    };
    for (rows, n, hidden) in [(1, 1, 1), (7, 50, 33), (300, 20, 64)] {
        let ids = || Words(Input::Ids, rows, n as u32 - (n > 2) as u32 * 2, false);
        let offset = if n > 2 { 2 } else { 0 };
        case(Op::Embed { offset }, vec![real(&[n, hidden]), ids()]);
        for accumulate in [false, true] {
            let operands = with(vec![real(&[rows, hidden]), ids()], sum(&[n, hidden], true, accumulate));
            case(Op::EmbedGrad { n, offset, accumulate }, operands);
        }
    }
    for (rows, inner, out) in [(1, 1, 1), (5, 17, 9), (70, 64, 130)] {
        for transposed in [false, true] {
            let weight = if transposed { [inner, out] } else { [out, inner] };
            for bias in [false, true] {
                let operands = with(vec![real(&[rows, inner]), real(&weight)], bias.then(|| real(&[out])));
                case(Op::Linear { bias, transposed }, operands);
            }
            for accumulate in [false, true] {
                let more = sum(&[rows, inner], false, accumulate);
                let operands = with(vec![real(&[rows, out]), real(&weight)], more);
                case(Op::LinearGradInput { transposed, accumulate }, operands);
                let more = sum(&weight, true, accumulate);
                let operands = with(vec![real(&[rows, out]), real(&[rows, inner])], more);
                case(Op::LinearGradWeight { transposed, accumulate }, operands);
            }
        }
        for accumulate in [false, true] {
            let operands = with(vec![real(&[rows, out])], sum(&[out], true, accumulate));
            case(Op::LinearGradBias { accumulate }, operands);
        }
    }
    for (rows, n, width) in [(1, 3, 3), (9, 48, 16), (5, 1030, 1030)] {
        for offset in [0.0, 1.0] {
            let eps = 1e-5;
            case(Op::RmsNorm { eps, offset }, vec![real(&[rows, n]), real(&[width])]);
            for accumulate in [false, true] {
                let operands = vec![real(&[rows, n]), real(&[rows, n]), real(&[width])];
                let operands = with(operands, sum(&[rows, n], false, accumulate));
                case(Op::RmsNormGradInput { eps, offset, accumulate }, operands);
                let operands = vec![real(&[rows, n]), real(&[rows, n])];
                let operands = with(operands, sum(&[width], true, accumulate));
                case(Op::RmsNormGradWeight { eps, width, accumulate }, operands);
            }
        }
    }
    for (rows, n) in [(1, 3), (9, 48), (5, 1030)] {
        let eps = 1e-5;
        case(Op::LayerNorm { eps }, vec![real(&[rows, n]), real(&[n]), real(&[n])]);
        for accumulate in [false, true] {
            let operands = vec![real(&[rows, n]), real(&[rows, n]), real(&[n])];
            case(
                Op::LayerNormGradInput { eps, accumulate },
                with(operands, sum(&[rows, n], false, accumulate)),
            );
            let operands = vec![real(&[rows, n]), real(&[rows, n])];
            case(Op::LayerNormGradWeight { eps, accumulate }, with(operands, sum(&[n], true, accumulate)));
        }
    }
    for (rows, heads, head_dim, turned) in [(3, 1, 2, 2), (11, 3, 10, 6), (40, 2, 64, 64)] {
        let inv_freq: Arc<[f32]> = (0..turned / 2).map(|i| 0.5_f32.powi(i as i32)).collect();
        case(Op::RopeTable { inv_freq }, vec![Words(Input::Positions, rows, 5000, false)]);
        for inverse in [false, true] {
            let operands = vec![real(&[rows, heads * head_dim]), Wide(vec![rows, turned])];
            case(Op::Rope { heads, head_dim, inverse }, operands);
        }
    }
    for (start, width, period) in [(0, 1, 1), (2, 3, 8), (5, 3, 8)] {
        case(Op::Columns { start, width, period }, vec![real(&[7, 2 * period])]);
        for accumulate in [false, true] {
            let more = sum(&[7, 2 * period], false, accumulate);
            case(
                Op::ColumnsGrad { start, width, period, accumulate },
                with(vec![real(&[7, 2 * width])], more),
            );
        }
    }
    let curves = [
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::Tanh { cap: 0.7 },
    ];
    let shape = [3, 701];
    for activation in curves {
        case(Op::Activate(activation), vec![real(&shape)]);
        case(Op::ActivateGrad(activation), vec![real(&shape), real(&shape)]);
        case(Op::Gated(activation), vec![real(&shape), real(&shape)]);
        case(Op::GatedGrad(activation), vec![real(&shape), real(&shape), real(&shape)]);
    }
    for (rows, ffn, hidden, chunk) in [(1, 1, 1, 1), (7, 33, 18, 3), (70, 24, 64, 64)] {
        for transposed in [false, true] {
            let (activation, gate) = (Activation::Silu, [rows, ffn]);
            let weight = real(&if transposed { [ffn, hidden] } else { [hidden, ffn] });
            let operands = vec![real(&gate), real(&gate), weight.clone()];
            case(Op::GatedLinear { activation, transposed, chunk }, operands);
            let operands = vec![real(&[rows, hidden]), real(&gate), real(&gate), weight];
            case(Op::GatedLinearGrad { activation, transposed, chunk }, operands);
        }
    }
    case(Op::Scale { factor: -1.75 }, vec![real(&shape)]);
    case(Op::Add, vec![real(&shape), real(&shape)]);
    case(Op::Copy, vec![real(&shape)]);
    for (rows, hidden, vocab, chunk) in [(1, 2, 3, 1), (11, 24, 67, 4), (6, 16, 700, 100)] {
        for softcap in [None, Some(1.5)] {
            let operands = || {
                vec![
                    real(&[rows, hidden]),
                    real(&[vocab, hidden]),
                    Words(Input::Labels, rows, vocab as u32, rows > 1),
                ]
            };
            case(Op::LinearCrossEntropy { chunk, softcap }, operands());
            let [x, head, labels] = &operands()[..] else { unreachable!("three") };
            let normed = vec![x.clone(), real(&[hidden]), head.clone(), labels.clone()];
            case(Op::NormedLossGrad { eps: 1e-5, offset: 1.0, chunk, softcap }, normed);
            for (input, weight, accumulate) in
                [(true, true, false), (true, false, false), (false, true, true), (false, true, false)]
            {
                let operands = with(operands(), sum(&[vocab, hidden], true, accumulate));
                case(Op::LinearCrossEntropyGrad { chunk, softcap, input, weight, accumulate }, operands);
            }
        }
        let operands = || {
            let role = Input::Classes;
            vec![Wide(vec![rows, vocab.min(9)]), Words(role, rows, vocab.min(9) as u32, rows > 1)]
        };
        case(Op::CrossEntropy, operands());
        case(Op::CrossEntropyGrad, operands());
        let operands = || vec![Wide(vec![rows, 1]), Words(Input::Targets, rows, 1.5_f32.to_bits(), false)];
        case(Op::SquaredError, operands());
        case(Op::SquaredErrorGrad, operands());
    }
    for (batch, seq) in [(1, 1), (3, 7), (2, 300)] {
        let operands = || vec![Wide(vec![batch * seq, 2]), Operand::Spans(batch, seq)];
        case(Op::SpanCrossEntropy { seq }, operands());
        case(Op::SpanCrossEntropyGrad { seq }, operands());
    }
    let spec = CachedSpec {
        batch: 1,
        capacity: 1,
        heads: 1,
        kv_heads: 1,
        head_dim: 2,
        scale: 0.3,
        window: None,
        softcap: None,
    };
    let continuations = [
        spec,
        CachedSpec { batch: 3, capacity: 70, heads: 4, kv_heads: 2, head_dim: 10, ..spec },
        CachedSpec { batch: 2, capacity: 40, window: Some(9), softcap: Some(0.8), head_dim: 64, ..spec },
    ];
    for spec in continuations {
        let CachedSpec { batch, capacity, heads, kv_heads, head_dim, .. } = spec;
        let kept = || Wide(vec![50, kv_heads * head_dim]);
        let seen = Words(Input::Seen, batch * capacity, 50, false);
        let q = real(&[batch, heads * head_dim]);
        case(Op::CachedAttention(spec), vec![q, kept(), kept(), seen, Operand::Lengths(batch, capacity)]);
    }
    for n in [1, 255, 3001] {
        for accumulate in [false, true] {
            let more = sum(&[1], true, accumulate);
            case(Op::SumSquares { accumulate }, with(vec![Wide(vec![n])], more));
        }
    }
    for max_norm in [None, Some(0.25)] {
        case(Op::GradFactor { max_norm }, vec![Positive(vec![1])]);
    }
    // Rows of one tile and of several, short heads and long ones, shared and not, windows, packed rows, a bound.
    let spec = AttentionSpec {
        batch: 2,
        seq: 5,
        heads: 2,
        kv_heads: 2,
        head_dim: 8,
        scale: 0.3,
        causal: true,
        packed: false,
        window: None,
        softcap: None,
    };
    let attentions = [
        spec,
        AttentionSpec { causal: false, seq: 70, ..spec },
        AttentionSpec { seq: 130, heads: 4, kv_heads: 1, head_dim: 10, batch: 1, ..spec },
        AttentionSpec { seq: 97, packed: true, head_dim: 16, ..spec },
        AttentionSpec { seq: 65, packed: true, causal: false, head_dim: 24, batch: 1, ..spec },
        AttentionSpec { seq: 140, window: Some(9), softcap: Some(0.8), batch: 1, ..spec },
        AttentionSpec { seq: 33, head_dim: 64, heads: 4, batch: 1, ..spec },
        AttentionSpec { seq: 66, head_dim: 128, heads: 1, kv_heads: 1, batch: 1, ..spec },
        AttentionSpec { seq: 40, head_dim: 200, heads: 1, kv_heads: 1, batch: 1, ..spec },
    ];
    for spec in attentions {
        let rows = spec.batch * spec.seq;
        let (q, kv) = ([rows, spec.heads * spec.head_dim], [rows, spec.kv_heads * spec.head_dim]);
        let starts = || spec.packed.then_some(Starts(rows, spec.seq));
        cases.push(Case::new(Op::Attention(spec), with(vec![real(&q), real(&kv), real(&kv)], starts())));
        let operands =
            vec![real(&q), real(&q), real(&kv), real(&kv), Operand::Attended(0), Operand::Attended(1)];
        cases.push(Case::new(Op::AttentionGrad(spec), with(operands, starts())));
    }
    cases
}

/// One case on both sides; None where it says nothing about this type of numbers.
fn one<T: Stored + Number>(machine: &dyn Machine, case: &Case, dtype: Dtype) -> Result<Option<Compared>> {
    let mut made = Made::default();
    for (idx, operand) in case.operands.iter().enumerate() {
        made.operand::<T>(operand, idx as u64, dtype, case)?;
    }
    let shapes: Vec<&[usize]> = made.ids.iter().map(|id| made.values[id.0].shape.as_slice()).collect();
    let outputs = case.op.shapes(&shapes);
    let dtypes = output_dtypes(&case.op, dtype);
    // An operation of 32-bit numbers alone is tried once.
    let has_half = made.ids.iter().any(|id| made.values[id.0].dtype == dtype) || dtypes.contains(&dtype);
    if dtype != Dtype::F32 && !has_half {
        return Ok(None);
    }
    let n_inputs = made.ids.len();
    let mut results = Vec::new();
    for (shape, dtype) in outputs.iter().zip(dtypes) {
        results.push(made.value(shape, dtype, Role::Activation));
    }
    let mut reuses = vec![None; results.len()];
    if case.op.accumulates() {
        // The last output takes over the last input; of one that has several, it is the weight's gradient.
        *reuses.last_mut().expect("a sum is an output") = Some(n_inputs - 1);
    }
    let program = made.program(case.op.clone(), results, reuses);
    let attends = matches!(case.op, Op::Attention(_) | Op::AttentionGrad(_));
    let name = format!("{} {}", case.op.name(), shapes_of(&program));
    let apart = apart(machine, made, program, &case.algorithm)?;
    Ok(Some(Compared { name, dtype, apart, allowed: allowed(dtype, attends) }))
}

/// The largest distance of a result of the device's to that of the CPU.
fn apart(machine: &dyn Machine, made: Made, program: Program, algorithm: &Algorithm) -> Result<f64> {
    let knobs = knobs(algorithm);
    let on = |tensor: &Tensor| tensor.to_device(machine.device()).and_then(|tensor| tensor.copy());
    let carried = made.carried.iter().map(|(id, tensor)| Ok((*id, on(tensor)?))).collect::<Result<_>>()?;
    let mut there = Store::new(made.weights.iter().map(on).collect::<Result<_>>()?);
    let mut here = Store::new(made.weights);
    let got = play(machine, &program, &mut there, made.inputs.clone(), carried, &knobs)?;
    let program = Program { backend: rayon::current_num_threads().into(), ..program };
    let expected = play_on_cpu(&program, &mut here, made.inputs, made.carried, &knobs)?;
    let mut apart: f64 = 0.0;
    for (got, expected) in got.results.iter().zip(&expected.results) {
        let distance = distance(&wide(got)?, &wide(expected)?);
        // The largest, and NaN above all.
        apart = if distance.is_nan() { f64::NAN } else { apart.max(distance) };
    }
    Ok(apart)
}

fn allowed(dtype: Dtype, attends: bool) -> f64 {
    match (dtype, attends) {
        (Dtype::F32 | Dtype::U32, _) => 1e-5,
        // Results are rounded once, and here and there to the other neighbour: of a single number that is all of it.
        (Dtype::Bf16, false) => 8e-3,
        (Dtype::F16, false) => 1e-3,
        // Probabilities and their gradients are rounded before a product.
        (Dtype::Bf16, true) => 1e-2,
        (Dtype::F16, true) => 2e-3,
    }
}

fn knobs(algorithm: &Algorithm) -> Knobs<'_> {
    Knobs { loss_scale: 0.5, unscale: 0.5, rate: 1e-2, factors: &[], algorithm, weight_decay: 0.1, noise: 7 }
}

fn shapes_of(program: &Program) -> String {
    let shapes: Vec<String> =
        program.instrs[0].inputs.iter().map(|id| format!("{:?}", program.value(*id).shape)).collect();
    shapes.join(" ")
}

/// The types of an operation's outputs where its real operands are of `dtype`.
fn output_dtypes(op: &Op, dtype: Dtype) -> Vec<Dtype> {
    match op {
        Op::EmbedGrad { .. }
        | Op::LinearGradWeight { .. }
        | Op::LinearGradBias { .. }
        | Op::RmsNormGradWeight { .. }
        | Op::LayerNormGradWeight { .. }
        | Op::SumSquares { .. }
        | Op::GradFactor { .. } => vec![Dtype::F32],
        Op::LinearGradInput { .. }
        | Op::RmsNormGradInput { .. }
        | Op::LayerNormGradInput { .. }
        | Op::ColumnsGrad { .. }
        | Op::ActivateGrad(_) => vec![dtype],
        Op::AttentionGrad(_) => vec![dtype; 3],
        Op::GatedGrad(_) | Op::GatedLinearGrad { .. } => vec![dtype; 2],
        Op::GatedLinear { .. } => vec![dtype],
        Op::NormedLossGrad { .. } => vec![Dtype::F32, dtype],
        Op::LinearCrossEntropyGrad { input, weight, .. } => {
            let mut dtypes = vec![Dtype::F32];
            dtypes.extend(input.then_some(dtype));
            dtypes.extend(weight.then_some(Dtype::F32));
            dtypes
        }
        Op::CrossEntropyGrad | Op::SquaredErrorGrad | Op::SpanCrossEntropyGrad { .. } => vec![Dtype::F32; 2],
        Op::Update { .. } => Vec::new(),
        other => other.dtypes(&[dtype; 4]),
    }
}

/// The operands of a case, as values of a program.
#[derive(Default)]
struct Made {
    values: Vec<Value>,
    /// What the operation reads.
    ids: Vec<ValueId>,
    weights: Vec<Tensor>,
    /// What the program is given: words, sums so far.
    given: Vec<ValueId>,
    inputs: Inputs,
    carried: Vec<(ParamId, Tensor)>,
    /// What the attention before has given.
    attended: Vec<Tensor>,
}

impl Made {
    fn value(&mut self, shape: &[usize], dtype: Dtype, role: Role) -> ValueId {
        let name = format!("v{}", self.values.len());
        self.values.push(Value { name, shape: shape.to_vec(), dtype, role });
        ValueId(self.values.len() - 1)
    }

    fn weight(&mut self, tensor: Tensor, dtype: Dtype) {
        let role = Role::Weight(ParamId(self.weights.len()));
        let id = self.value(tensor.dims(), dtype, role);
        self.ids.push(id);
        self.weights.push(tensor);
    }

    fn operand<T: Stored + Number>(
        &mut self,
        operand: &Operand,
        seed: u64,
        dtype: Dtype,
        case: &Case,
    ) -> Result<()> {
        match operand {
            Operand::Real(shape) => self.weight(numbers::<T>(shape, seed, -1.0)?, dtype),
            Operand::Wide(shape) => self.weight(numbers::<f32>(shape, seed, -1.0)?, Dtype::F32),
            Operand::Positive(shape) => self.weight(numbers::<f32>(shape, seed, 0.0)?, Dtype::F32),
            Operand::Sum(shape, wide) => {
                let param = ParamId(1000);
                let (tensor, dtype) = match wide {
                    true => (numbers::<f32>(shape, seed, -1.0)?, Dtype::F32),
                    false => (numbers::<T>(shape, seed, -1.0)?, dtype),
                };
                let id = self.value(shape, dtype, Role::Gradient(param));
                self.ids.push(id);
                self.given.push(id);
                self.carried.push((param, tensor));
            }
            Operand::Words(input, n, below, holes) => {
                let mut random = Random::new(seed);
                let mut words: Vec<u32> = (0..*n).map(|_| random.below((*below).into()) as u32).collect();
                if *holes {
                    words[n / 2] = u32::MAX;
                }
                self.words(*input, words);
            }
            Operand::Starts(rows, seq) => {
                self.words(Input::Starts, starts(*rows, *seq));
            }
            Operand::Spans(batch, seq) => {
                let mut random = Random::new(seed);
                let lengths: Vec<u32> = (0..*batch).map(|_| 1 + random.below(*seq as u64) as u32).collect();
                let mut label = |length: &u32| random.below((*length).into()) as u32;
                let labels: Vec<u32> = [&lengths, &lengths].into_iter().flatten().map(&mut label).collect();
                self.words(Input::Spans, [labels, lengths].concat());
            }
            Operand::Lengths(n, most) => {
                let mut random = Random::new(seed);
                let lengths = (0..*n).map(|_| 1 + random.below(*most as u64) as u32).collect();
                self.words(Input::Lengths, lengths);
            }
            Operand::Attended(output) => {
                let Op::AttentionGrad(spec) = &case.op else { unreachable!("only attention has a before") };
                if self.attended.is_empty() {
                    self.attended = attended(spec, &self.weights[1..], dtype)?;
                }
                let dtype = if *output == 0 { dtype } else { Dtype::F32 };
                self.weight(self.attended[*output].clone(), dtype);
            }
        }
        Ok(())
    }

    /// The operation over all operands.
    fn program(&mut self, op: Op, outputs: Vec<ValueId>, reuses: Vec<Option<usize>>) -> Program {
        let inputs = std::mem::take(&mut self.ids);
        let instr = Instr {
            op,
            inputs,
            outputs: outputs.clone(),
            reuses,
            dies: Vec::new(),
            phase: Phase::Forward,
            block: None,
        };
        let (values, given) = (std::mem::take(&mut self.values), std::mem::take(&mut self.given));
        Program {
            values,
            inputs: given,
            instrs: vec![instr],
            outputs,
            leaving: Vec::new(),
            backend: Backend::Gpu,
        }
    }

    fn words(&mut self, input: Input, words: Vec<u32>) {
        let id = self.value(&[words.len()], Dtype::U32, Role::Input(input));
        self.ids.push(id);
        self.given.push(id);
        match input {
            Input::Ids => self.inputs.ids = words,
            Input::Types => self.inputs.types = words,
            Input::Labels => self.inputs.labels = words,
            Input::Positions => self.inputs.positions = words,
            Input::Starts => self.inputs.starts = Some(words),
            Input::Queries => self.inputs.queries = words,
            Input::Classes => self.inputs.classes = words,
            Input::Targets => self.inputs.targets = words,
            Input::Spans => self.inputs.spans = words,
            Input::Places => self.inputs.places = words,
            Input::Seen => self.inputs.seen = words,
            Input::Lengths => self.inputs.lengths = words,
        }
    }
}

/// Documents of a third of each row, of one token, and of the rest.
fn starts(rows: usize, seq: usize) -> Vec<u32> {
    let cuts = [0, seq / 3, seq / 3 + 1];
    let start = |at| *cuts.iter().rfind(|cut| **cut <= at).expect("a row begins") as u32;
    (0..rows).map(|i| start(i % seq)).collect()
}

/// Numbers from `low` to 1.
fn numbers<T: Stored + Number>(shape: &[usize], seed: u64, low: f32) -> Result<Tensor> {
    let mut random = Random::new(seed);
    fresh(shape, |numbers: &mut [T]| {
        for x in numbers {
            *x = T::nearest(low + (1.0 - low) * (random.below(1 << 20) as f32 / (1 << 20) as f32));
        }
    })
}

/// What attention over q, k and v gives on the CPU.
fn attended(spec: &AttentionSpec, qkv: &[Tensor], dtype: Dtype) -> Result<Vec<Tensor>> {
    let mut made = Made::default();
    for tensor in qkv {
        made.weight(tensor.clone(), dtype);
    }
    if spec.packed {
        made.words(Input::Starts, starts(spec.batch * spec.seq, spec.seq));
    }
    let outputs = vec![
        made.value(qkv[0].dims(), dtype, Role::Activation),
        made.value(&[spec.batch * spec.heads, spec.seq], Dtype::F32, Role::Activation),
    ];
    let program = made.program(Op::Attention(*spec), outputs, vec![None; 2]);
    let mut store = Store::new(made.weights);
    let program = Program { backend: rayon::current_num_threads().into(), ..program };
    Ok(play_on_cpu(&program, &mut store, made.inputs, Vec::new(), &knobs(&Algorithm::Sgd))?.results)
}

fn wide(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_device(&Device::Cpu)?.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()
}

/// How far two lists are apart, as a part of the length of the second.
fn distance(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let length = |all: &mut dyn Iterator<Item = f64>| all.map(|x| x * x).sum::<f64>().sqrt();
    let apart = length(&mut got.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    if apart == 0.0 { 0.0 } else { apart / length(&mut expected.iter().map(|x| f64::from(*x))).max(1e-9) }
}
