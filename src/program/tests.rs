//! What falls out of the passes, counted by hand.

use std::collections::HashMap;

use super::builder::BatchShape;
use super::residency::{Away, Rests, moved};
use super::*;
use crate::estimate::play;
use crate::model::Model;

/// hidden 8, 2 heads of 4, ffn 24, vocabulary 32, 3 blocks.
fn model(tied: bool) -> Model {
    let config = format!(
        r#"{{"model_type": "llama", "hidden_size": 8, "intermediate_size": 24, "num_hidden_layers": 3,
            "num_attention_heads": 2, "vocab_size": 32, "max_position_embeddings": 64,
            "tie_word_embeddings": {tied}}}"#
    );
    Model::from_config(&config).unwrap()
}

const SHAPE: BatchShape = BatchShape { batch: 2, seq: 5, packed: false, far: false };

fn active(model: &Model, layers: &[&str]) -> Vec<bool> {
    let mut active = vec![false; model.params.len()];
    for layer in model.tail(false).iter().filter(|layer| layers.contains(&layer.name.as_str())) {
        for id in &layer.params {
            active[id.0] = true;
        }
    }
    active
}

fn programs(model: &Model, layers: &[&str], change: impl FnOnce(&mut Settings<'_>)) -> StepPrograms {
    let active = active(model, layers);
    let mut settings = Settings {
        active: &active,
        states: &|id| {
            let shape = &model.param(id).shape;
            ["m", "v"].map(|name| State { name, shape: shape.clone(), dtype: Dtype::F32 }).into()
        },
        clip: None,
        masters: false,
        scaled: false,
        accumulate: false,
        recompute: &|_| false,
        backend: Backend::Cpu { threads: 2 },
        away: Away::default(),
    };
    change(&mut settings);
    step_programs(&model.loss(SHAPE), &settings)
}

fn whole(model: &Model, layers: &[&str]) -> Program {
    match programs(model, layers, |_| {}) {
        StepPrograms::Whole(program) => program,
        StepPrograms::Parts(_) => unreachable!("nothing accumulates"),
    }
}

/// Elements of forward values that are alive when the loss is computed, by their names.
fn kept(program: &Program) -> Vec<String> {
    let loss =
        program.instrs.iter().position(|instr| instr.op.name() == "linear_cross_entropy_grad").unwrap();
    let mut alive: Vec<ValueId> = Vec::new();
    for instr in &program.instrs[..loss] {
        for reuse in instr.reuses.iter().flatten() {
            alive.retain(|id| *id != instr.inputs[*reuse]);
        }
        alive.extend(&instr.outputs);
        alive.retain(|id| !instr.dies.contains(id));
    }
    let x = program.instrs[loss].inputs[0];
    alive.iter().filter(|id| **id != x).map(|id| program.value(*id).name.clone()).collect()
}

#[test]
fn nothing_is_kept_below_the_lowest_active_layer_and_no_input_of_a_frozen_linear_above_it() {
    let model = model(false);
    assert_eq!(kept(&whole(&model, &["head"])), ["block.2.mlp.x"], "what the head's norm reads");
    let top = kept(&whole(&model, &["block.2"]));
    // Six of hidden, two of ffn, the log-sum-exp, and the table of positions.
    assert_eq!(
        top,
        [
            "embedding.rope",
            "block.1.mlp.x",
            "block.2.attention.v",
            "block.2.attention.q_turned",
            "block.2.attention.k_turned",
            "block.2.attention.mixed",
            "block.2.attention.lse",
            "block.2.attention.x",
            "block.2.mlp.gate",
            "block.2.mlp.up",
            "block.2.mlp.x",
        ]
    );
    let bottom = kept(&whole(&model, &["block.0"]));
    assert!(bottom.iter().all(|name| !name.ends_with("norm")), "norms are computed again: {bottom:?}");
    assert!(bottom.iter().all(|name| !name.ends_with("mlp.mixed")), "so is swiglu: {bottom:?}");
}

#[test]
fn no_gradient_of_a_frozen_weight_is_formed() {
    let model = model(false);
    for layer in ["embedding", "block.0", "block.2", "head"] {
        let program = whole(&model, &[layer]);
        let active = active(&model, &[layer]);
        let mut formed = 0;
        for value in &program.values {
            if let Role::Gradient(param) = value.role {
                assert!(active[param.0], "{layer}: {}", value.name);
                formed += 1;
            }
        }
        let updates = program.instrs.iter().filter(|instr| matches!(instr.op, Op::Update { .. })).count();
        assert_eq!(updates, active.iter().filter(|a| **a).count(), "{layer}");
        assert!(formed >= updates, "{layer}");
    }
}

#[test]
fn a_weight_is_updated_as_soon_as_nothing_reads_it_any_more() {
    let model = model(false);
    let program = whole(&model, &["embedding", "block.0", "block.1", "block.2", "head"]);
    // One gradient of a matrix at a time: the largest is the head's, 32 x 8 floats, in two places at the most
    // when the embedding's is formed; all together would be 2 * 32 * 8 + 3 * (4 * 64 + 3 * 192 + 16) + 8 floats.
    let peak = play(&program);
    assert!(peak.by.gradients.0 <= 2 * 4 * 32 * 8, "{:?}", peak.by);
    for (idx, instr) in program.instrs.iter().enumerate() {
        if let Op::Update { .. } = instr.op {
            let weight = instr.inputs[0];
            let later = program.instrs[idx + 1..].iter().any(|instr| instr.inputs.contains(&weight));
            assert!(!later, "{} is read after its update", program.value(weight).name);
        }
    }
}

#[test]
fn clipping_makes_all_gradients_wait() {
    let model = model(false);
    let StepPrograms::Whole(program) = programs(&model, &["block.1"], |settings| settings.clip = Some(1.0))
    else {
        unreachable!("nothing accumulates")
    };
    let first = program.instrs.iter().position(|instr| matches!(instr.op, Op::Update { .. })).unwrap();
    let factor = program.instrs.iter().position(|instr| matches!(instr.op, Op::GradFactor { .. })).unwrap();
    assert_eq!(first, factor + 1);
    assert!(program.instrs[first..].iter().all(|instr| matches!(instr.op, Op::Update { .. })));
}

#[test]
fn accumulation_carries_gradients_from_program_to_program() {
    let model = model(true);
    let StepPrograms::Parts(parts) = programs(&model, &["embedding"], |settings| settings.accumulate = true)
    else {
        unreachable!("it accumulates")
    };
    let gradients = |program: &Program, ids: &[ValueId]| {
        let role = |id: &&ValueId| matches!(program.value(**id).role, Role::Gradient(_));
        ids.iter().filter(role).count()
    };
    assert_eq!(gradients(&parts.first, &parts.first.inputs), 0);
    assert_eq!(gradients(&parts.first, &parts.first.outputs), 1);
    assert_eq!(gradients(&parts.next, &parts.next.inputs), 1);
    assert_eq!(gradients(&parts.next, &parts.next.outputs), 1);
    assert_eq!(gradients(&parts.update, &parts.update.inputs), 1);
    assert_eq!(gradients(&parts.update, &parts.update.outputs), 0);
}

#[test]
fn recomputed_blocks_keep_only_what_enters_them() {
    let model = model(false);
    let StepPrograms::Whole(program) =
        programs(&model, &["block.0"], |settings| settings.recompute = &|_| true)
    else {
        unreachable!("nothing accumulates")
    };
    assert_eq!(
        kept(&program),
        ["embedding.x", "embedding.rope", "block.0.mlp.x", "block.1.mlp.x", "block.2.mlp.x"]
    );
}

/// Plays the lifetimes: what is read must be alive, what is taken over must not be read again, and nothing that the
/// program owns is left over beside its outputs.
fn check_lifetimes(program: &Program) {
    let mut alive: HashMap<ValueId, ()> = program.inputs.iter().map(|id| (*id, ())).collect();
    for (idx, instr) in program.instrs.iter().enumerate() {
        for id in &instr.inputs {
            let there = program.value(*id).role.is_resident() || alive.contains_key(id);
            assert!(there, "{}: {} is dead", program.line(idx, instr), program.value(*id).name);
        }
        for (output, reuse) in instr.outputs.iter().zip(&instr.reuses) {
            if let Some(input) = reuse {
                let from = instr.inputs[*input];
                assert_eq!(program.value(from).bytes(), program.value(*output).bytes());
                assert!(alive.remove(&from).is_some(), "{}", program.line(idx, instr));
            }
        }
        alive.extend(instr.outputs.iter().map(|id| (*id, ())));
        for id in &instr.dies {
            assert!(alive.remove(id).is_some(), "{}", program.line(idx, instr));
        }
    }
    let mut left: Vec<ValueId> = alive.into_keys().collect();
    let mut outputs = [&program.outputs[..], &program.leaving].concat();
    left.sort();
    outputs.sort();
    assert_eq!(left, outputs);
    // Counted twice, by what it is and in all.
    assert_eq!(program.usage().into_iter().max(), Some(play(program).by.total().0));
    for id in &program.leaving {
        let evicts = |instr: &&Instr| instr.op == Op::Evict && instr.inputs[0] == *id;
        assert_eq!(program.instrs.iter().filter(evicts).count(), 1, "{program}");
    }
}

#[test]
fn lifetimes_hold_for_every_group_and_setting() {
    for tied in [false, true] {
        let model = model(tied);
        let layers: Vec<String> = model.tail(false).into_iter().map(|layer| layer.name).collect();
        for first in 0..layers.len() {
            for last in first..layers.len() {
                let names: Vec<&str> = layers[first..=last].iter().map(String::as_str).collect();
                for bits in 0..12 {
                    let programs = programs(&model, &names, |settings| {
                        settings.clip = (bits & 1 > 0).then_some(1.0);
                        settings.accumulate = bits & 2 > 0;
                        // All blocks, or some of them.
                        settings.recompute = match bits >> 2 {
                            0 => &|_| false,
                            1 => &|_| true,
                            _ => &|block| block == 1,
                        };
                    });
                    for (_, program) in programs.each() {
                        check_lifetimes(program);
                    }
                }
            }
        }
        check_lifetimes(&forward_only(&model.loss(SHAPE), 2));
        check_lifetimes(&forward_only(&model.logits(SHAPE), 2));
    }
}

#[test]
fn half_numbers_are_where_the_rules_say_and_nowhere_else() {
    let model = model(true);
    let active = active(&model, &["embedding"]);
    let settings = Settings {
        active: &active,
        states: &|id| vec![State { name: "m", shape: model.param(id).shape.clone(), dtype: Dtype::F32 }],
        clip: None,
        masters: true,
        scaled: true,
        accumulate: false,
        recompute: &|_| false,
        backend: Backend::Cpu { threads: 2 },
        away: Away::default(),
    };
    let graph = precision::lower(model.loss(SHAPE), Dtype::Bf16);
    let StepPrograms::Whole(program) = step_programs(&graph, &settings) else {
        unreachable!("nothing accumulates")
    };
    check_lifetimes(&program);
    for value in &program.values {
        let wide = match value.role {
            Role::Master(_)
            | Role::State(..)
            | Role::Cache(_)
            | Role::Fetched(_)
            | Role::Gradient(_)
            | Role::Scalar => Dtype::F32,
            Role::Input(_) => Dtype::U32,
            Role::Weight(_) | Role::Flow => Dtype::Bf16,
            // The sums behind a softmax, and angles.
            Role::Activation if value.name.ends_with("lse") || value.name.ends_with("rope") => Dtype::F32,
            Role::Activation => Dtype::Bf16,
        };
        assert_eq!(value.dtype, wide, "{}", value.name);
    }
    // Scaled gradients are all seen before a weight changes.
    let names: Vec<&str> = program.instrs.iter().map(|instr| instr.op.name()).collect();
    assert_eq!(names[names.len() - 2..], ["grad_factor", "update"]);

    // What a caller reads is in 32 bits, by a cast.
    let logits = forward_only(&precision::lower(model.logits(SHAPE), Dtype::F16), 2);
    assert_eq!(logits.value(logits.outputs[0]).dtype, Dtype::F32);
    assert_eq!(logits.instrs.last().map(|instr| instr.op.name()), Some("cast"));
}

#[test]
fn what_rests_away_is_there_from_its_fetch_to_its_last_use_and_no_longer() {
    for layers in [&["embedding"][..], &["block.1"], &["head"], &["embedding", "block.0", "block.2", "head"]]
    {
        for tied in [false, true] {
            // A head that is the embedding's is no layer.
            if tied && layers.contains(&"head") {
                continue;
            }
            let model = model(tied);
            let StepPrograms::Whole(program) = programs(&model, layers, |settings| {
                settings.backend = Backend::Gpu;
                settings.away =
                    Away { weights: Rests::Host, masters: Rests::Host, states: Rests::Host, sparing: tied };
            }) else {
                unreachable!("nothing accumulates")
            };
            check_lifetimes(&program);
            let trained = active(&model, layers);
            let mut blocks_at_once = 0;
            let mut here: Vec<ValueId> = Vec::new();
            for instr in &program.instrs {
                for id in &instr.inputs {
                    let is_home = matches!(instr.op, Op::Fetch | Op::Evict);
                    assert!(is_home || !program.value(*id).role.is_resident(), "{}", program);
                }
                if instr.op == Op::Fetch {
                    here.push(instr.outputs[0]);
                }
                let mut blocks: Vec<&str> = here
                    .iter()
                    .filter(|id| match program.value(**id).role {
                        Role::Fetched(Home::Weight(param)) => !trained[param.0],
                        _ => false,
                    })
                    .filter_map(|id| program.value(*id).name.split('.').nth(2))
                    .filter(|block| block.parse::<usize>().is_ok())
                    .collect();
                blocks.sort_unstable();
                blocks.dedup();
                blocks_at_once = blocks_at_once.max(blocks.len());
                here.retain(|id| !instr.dies.contains(id));
            }
            // What the update changed last is on its way home when the program ends; of that nothing else is left.
            assert!(!program.leaving.is_empty());
            here.retain(|id| !program.leaving.contains(id));
            assert!(here.is_empty());
            assert!(blocks_at_once <= 2, "{blocks_at_once} of 3 blocks at once\n{program}");
            // All that a trained parameter has goes home, and nothing of the others does.
            let mut home: Vec<ParamId> = Vec::new();
            for instr in program.instrs.iter().filter(|instr| instr.op == Op::Evict) {
                match program.value(instr.inputs[1]).role {
                    Role::Weight(param) => home.push(param),
                    Role::State(param, _) => assert!(trained[param.0]),
                    other => panic!("{other:?}"),
                }
            }
            home.sort_unstable();
            let expected: Vec<ParamId> = (0..trained.len()).map(ParamId).filter(|id| trained[id.0]).collect();
            assert_eq!(home, expected);
        }
    }
}

#[test]
fn a_processor_has_what_rests_on_disk_for_as_long_as_it_reads_it() {
    let model = model(false);
    let StepPrograms::Whole(program) = programs(&model, &["block.1"], |settings| {
        settings.away =
            Away { weights: Rests::Disk, masters: Rests::Disk, states: Rests::Disk, sparing: false };
    }) else {
        unreachable!("nothing accumulates")
    };
    check_lifetimes(&program);
    assert!(program.leaving.is_empty(), "a processor waits for its copies");
    // A copy travels at no other time than its own, so it is fetched where it is read.
    let reads = |id: &ValueId, instr: &Instr| instr.inputs.contains(id) && instr.op != Op::Evict;
    for (idx, instr) in program.instrs.iter().enumerate().filter(|(_, instr)| instr.op == Op::Fetch) {
        let next = program.instrs[idx..].iter().find(|instr| instr.op != Op::Fetch).unwrap();
        assert!(reads(&instr.outputs[0], next), "{program}");
    }
    let moved = moved(&program, Away { weights: Rests::Disk, states: Rests::Disk, ..Away::default() });
    assert_eq!(moved.host.0, 0);
    // Weights of blocks come forward and in reverse; those of the trained one and its states go home.
    let trained = active(&model, &["block.1"]);
    let weights: u64 =
        model.params.iter().zip(&trained).filter(|(_, is)| **is).map(|(p, _)| p.elements()).sum();
    assert!(moved.disk.0 > 4 * model.params.iter().map(|p| p.elements()).sum::<u64>() + 4 * weights);
}

#[test]
fn device_memory_does_not_grow_with_the_layers_whose_weights_rest_away() {
    let peak = |n: usize| {
        let config = format!(
            r#"{{"model_type": "llama", "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": {n},
                "num_attention_heads": 4, "vocab_size": 32, "max_position_embeddings": 64}}"#
        );
        let model = Model::from_config(&config).unwrap();
        let StepPrograms::Whole(program) = programs(&model, &["head"], |settings| {
            settings.backend = Backend::Gpu;
            settings.away = Away { weights: Rests::Host, ..Away::default() };
        }) else {
            unreachable!("nothing accumulates")
        };
        play(&program).by.total()
    };
    assert_eq!(peak(4), peak(16));
}

/// A step that trains one layer, without states.
fn step(model: &Model, layer: &str, shape: BatchShape, backend: Backend) -> Program {
    let settings = Settings {
        active: &active(model, &[layer]),
        states: &|_| Vec::new(),
        clip: None,
        masters: false,
        scaled: false,
        accumulate: false,
        recompute: &|_| false,
        backend,
        away: Away::default(),
    };
    let StepPrograms::Whole(program) = step_programs(&model.loss(shape), &settings) else {
        unreachable!("nothing accumulates")
    };
    program
}

#[test]
fn a_gpu_has_large_chunks_of_logits_and_larger_ones_where_that_takes_no_more() {
    let config = r#"{"model_type": "llama", "hidden_size": 8, "intermediate_size": 16384, "num_hidden_layers": 2,
        "num_attention_heads": 2, "vocab_size": 50000, "max_position_embeddings": 64}"#;
    let model = Model::from_config(config).unwrap();
    let shape = BatchShape { batch: 8, seq: 64, packed: false, far: false };
    for (layer, backend, expected) in [
        ("embedding", Backend::Gpu, 256),
        ("head", Backend::Gpu, 320),
        ("head", Backend::Cpu { threads: 1 }, 64),
    ] {
        let program = step(&model, layer, shape, backend);
        let chunks = program.instrs.iter().enumerate().filter_map(|(idx, instr)| match instr.op {
            Op::LinearCrossEntropyGrad { chunk, .. } => Some((idx, chunk)),
            _ => None,
        });
        let [(idx, chunk)] = chunks.collect::<Vec<_>>()[..] else { panic!("one loss") };
        assert_eq!(chunk, expected, "{layer}\n{program}");
        // Another tile of rows would be the highest point.
        let usage = program.usage();
        let most = usage.iter().max().unwrap();
        assert!(usage[idx + 1] + 64 * 4 * 50_000 > *most || chunk == 64, "{layer}");
    }
}

#[test]
fn what_stands_between_a_gate_and_its_projection_is_there_by_chunks_where_that_lowers_the_highest_point() {
    // 512 rows of 65,536 numbers are 128 MiB; half of them are a chunk.
    let config = r#"{"model_type": "llama", "hidden_size": 8, "intermediate_size": 65536, "num_hidden_layers": 3,
        "num_attention_heads": 2, "vocab_size": 32, "max_position_embeddings": 64}"#;
    let model = Model::from_config(config).unwrap();
    let shape = BatchShape { batch: 8, seq: 64, packed: false, far: false };
    let compiled = |backend| {
        let program = step(&model, "embedding", shape, backend);
        check_lifetimes(&program);
        program
    };
    let (on_gpu, on_cpu) = (compiled(Backend::Gpu), compiled(Backend::Cpu { threads: 1 }));
    let count = |is: &dyn Fn(&Op) -> bool| on_gpu.instrs.iter().filter(|instr| is(&instr.op)).count();
    // Of three blocks only the last one is at the highest point, on the way there and back.
    assert_eq!(count(&|op| matches!(op, Op::GatedLinear { chunk: 256, .. })), 1, "{on_gpu}");
    assert_eq!(count(&|op| matches!(op, Op::GatedLinearGrad { chunk: 256, .. })), 1, "{on_gpu}");
    assert_eq!(count(&|op| matches!(op, Op::Gated(_))), 2);
    assert_eq!(on_gpu.flops(), on_cpu.flops());
    let [gpu, cpu] = [&on_gpu, &on_cpu].map(|program| play(program).by.total().0);
    assert_eq!(cpu - gpu, 64 << 20);
}
