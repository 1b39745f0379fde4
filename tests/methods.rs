//! The pipelines under `pipelines/methods`: each plan says what the paper says, and a run does what the plan says.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hift::data::Library;
use hift::lang::pipeline::Rest;
use hift::plan::{StagePlan, TrainPlan};
use hift::run::train::Stepper;

use common::{Seen, pipeline, planned, run};

fn methods() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/methods")
}

fn plan_of(text: &str) -> TrainPlan {
    plan_in(&methods(), text)
}

fn plan_in(folder: &Path, text: &str) -> TrainPlan {
    let pipeline = pipeline(folder, text);
    let mut library = Library::new(folder.to_path_buf(), &|| false);
    let plan = planned(&pipeline, &mut library).unwrap();
    match plan.stages.into_iter().next() {
        Some(StagePlan::Train(train)) => *train,
        other => panic!("{other:?}"),
    }
}

fn text(name: &str) -> String {
    fs::read_to_string(methods().join(name)).unwrap()
}

/// A pipeline with some of its text changed, each of which must be there.
fn changed(name: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text(name), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

/// Runs a pipeline in a folder of its own, on a few of the rows.
fn run_in(place: &Path, text: &str) -> Seen {
    for folder in ["quickstart", "methods"] {
        fs::create_dir_all(place.join(folder)).unwrap();
        for entry in fs::read_dir(methods().join("..").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, place.join(folder).join(path.file_name().unwrap())).unwrap();
        }
    }
    let numbers = place.join("quickstart/numbers.jsonl");
    let rows = fs::read_to_string(&numbers).unwrap();
    let few: Vec<&str> = rows.lines().take(400).collect();
    fs::write(&numbers, few.join("\n")).unwrap();
    run(&place.join("methods"), text).unwrap_or_else(|error| panic!("{error}")).0
}

/// Paths of what a group trains, its blocks' numbers left out.
fn paths(plan: &TrainPlan, group: usize) -> BTreeSet<String> {
    let params = plan.groups[group].params.iter();
    params.map(|id| plan.model.model.param(*id).path.clone()).collect()
}

#[test]
fn lisa_trains_the_ends_and_two_blocks_drawn_every_twenty_steps() {
    let plan = plan_of(&text("lisa.hift"));
    // Two of six blocks: 15 pairs.
    assert_eq!(plan.groups.len(), 15);
    let mut seen = [0; 6];
    for turn in 0..3000 {
        let group = plan.group_at(20 * turn);
        assert_eq!(plan.group_at(20 * turn + 19), group, "a turn is twenty steps");
        let names = &plan.groups[group].names;
        assert_eq!((&names[0][..], &names[1][..], names.len()), ("embedding", "head", 4));
        for (block, seen) in seen.iter_mut().enumerate() {
            *seen += usize::from(names.contains(&format!("block.{block}")));
        }
        let trained = paths(&plan, group);
        assert!(["embedding.tokens", "norm", "head.logits"].iter().all(|path| trained.contains(*path)));
        // Nine tensors a block, and three beside them.
        assert_eq!(trained.len(), 2 * 9 + 3);
    }
    // Each block is drawn with a probability of 2/6; the deviation is 26.
    assert!(seen.iter().all(|n| (890..1110).contains(n)), "{seen:?}");
    assert_eq!(plan.rate.steps_per_tick, 1);
}

#[test]
fn badam_visits_each_block_once_a_round_with_fresh_moments() {
    let plan = plan_of(&text("badam.hift"));
    assert_eq!((plan.groups.len(), plan.dwell, plan.states), (6, 100, Rest::Discard));
    assert!(plan.groups.iter().all(|group| group.names.len() == 1 && group.names[0].starts_with("block.")));
    let rounds: Vec<Vec<usize>> = (0..5)
        .map(|round| (0..6).map(|turn| plan.group_at(100 * (6 * round + turn) + 99)).collect())
        .collect();
    for round in &rounds {
        assert_eq!(round.iter().collect::<BTreeSet<_>>().len(), 6, "{rounds:?}");
    }
    assert!(rounds.windows(2).any(|pair| pair[0] != pair[1]), "{rounds:?}");
    assert_eq!((plan.rate.steps_per_tick, plan.clip), (1, Some(1.0)));
    // Two moments of a block are all that is ever kept.
    assert_eq!(plan.state_bytes(&plan.groups[0]).0, 8 * plan.groups[0].n_elements);
    let step = hift::estimate::step(&plan, 0, 2);
    assert_eq!(step.by.states.0, 8 * plan.groups[0].n_elements);
}

#[test]
fn unfreezing_adds_one_layer_a_turn_from_the_top_and_keeps_them_all() {
    let plan = plan_of(&text("unfreezing.hift"));
    let at = |step| &plan.groups[plan.group_at(step)].names;
    assert_eq!(at(0), &["head"]);
    assert_eq!(at(479), &["head"]);
    assert_eq!(at(480), &["head", "block.5"]);
    assert_eq!(at(960), &["head", "block.5", "block.4"]);
    assert_eq!(at(7 * 480).len(), 8);
    assert_eq!(at(4799), at(7 * 480), "to the end");
    // Each layer down has 1 / 2.6 of the rate; the embedding is seven below the head.
    let factor = |path: &str| {
        plan.factors[plan.model.model.params.iter().position(|param| param.path == path).unwrap()]
    };
    assert_eq!(factor("head.logits"), 1.0);
    assert!((factor("block.5.mlp.up") - 1.0 / 2.6).abs() < 1e-3);
    assert!((factor("embedding.tokens") - 2.6_f64.powi(-7)).abs() < 1e-5);
}

#[test]
fn groups_and_layers_have_rates_of_their_own() {
    let rate = "order = [[\"attention\", \"norms\"]";
    let text =
        changed("inside_blocks.hift", &[(rate, &format!("factors = {{ mlp = 0.5, head = 10 }} {rate}"))]);
    let plan = plan_of(&text);
    for (param, factor) in plan.model.model.params.iter().zip(&plan.factors) {
        let expected = match param.path.as_str() {
            path if path.contains(".mlp.") && !path.contains("norm") => 0.5,
            // The last norm and the head are one layer.
            "head.logits" | "norm" => 10.0,
            _ => 1.0,
        };
        assert_eq!(*factor, expected, "{}", param.path);
    }
    assert_eq!(plan.factors.len(), plan.model.model.params.len());
}

#[test]
fn patterns_cut_through_the_blocks_and_a_turn_has_several() {
    let plan = plan_of(&text("inside_blocks.hift"));
    let names: Vec<&Vec<String>> = plan.groups.iter().map(|group| &group.names).collect();
    assert_eq!(names, [&vec!["attention", "norms"], &vec!["mlp", "norms"], &vec!["ends"]]);
    let first = paths(&plan, 0);
    // Four matrices and two norms in each of six blocks, and the last norm.
    assert_eq!(first.len(), 6 * (4 + 2) + 1);
    assert!(first.iter().all(|path| path.contains(".attention.") || path.contains("norm")), "{first:?}");
    assert_eq!(paths(&plan, 2), ["embedding.tokens", "head.logits"].map(String::from).into());
    // States of what is in two turns are there once.
    assert_eq!(plan.all_state_bytes().0, 8 * plan.model.n_elements);
}

#[test]
fn groups_by_size_are_even_and_cut_no_layer() {
    let check = |size: &str, expected: &[&str]| {
        let plan = plan_of(&changed("by_size.hift", &[("400 KiB", size)]));
        let names: Vec<String> = plan.groups.iter().map(|group| group.names.join(" ")).collect();
        assert_eq!(names, expected, "{size}");
    };
    // A block has 184.5 KiB, the embedding 27.25, the head 27.5.
    check("400 KiB", &["embedding block.0 block.1", "block.2 block.3", "block.4 block.5 head"]);
    check("600 KiB", &["embedding block.0 block.1 block.2", "block.3 block.4 block.5 head"]);
    check("1 KiB", &["embedding", "block.0", "block.1", "block.2", "block.3", "block.4", "block.5", "head"]);
    check("2 MiB", &["embedding block.0 block.1 block.2 block.3 block.4 block.5 head"]);
}

#[test]
fn the_reference_implementation_rotates() {
    let plan = plan_of(&text("reference.hift"));
    // Nine layers in twos: the fifth turn wraps round, and the tenth is the first again.
    assert_eq!((plan.groups.len(), plan.turns_per_cycle), (9, 5));
    assert_eq!(plan.groups[4].names, ["head", "embedding"]);
    assert_eq!(plan.group_at(9), 0);
    // The rate moves every four steps, but is drawn over 3,000: a quarter of its course is seen.
    assert_eq!(plan.rate.steps_per_tick, 4);
    assert!((plan.rate.at(2999) - 1e-3 * (1.0 - 749.0 / 3000.0)).abs() < 1e-12);
}

#[test]
fn the_longest_gradient_comes_first() {
    let place = tempfile::tempdir().unwrap();
    let short =
        changed("importance.hift", &[("steps       = 3000", "steps       = 40"), ("600 steps", "40 steps")]);
    let seen = run_in(place.path(), &short);
    let names: Vec<&str> = seen.groups.iter().map(|group| group[0].as_str()).collect();
    assert_eq!(
        names[..8],
        ["embedding", "block.0", "block.1", "block.2", "block.3", "block.4", "block.5", "head"]
    );
    let mut orders = BTreeSet::new();
    for (cycle, next) in (1..5).enumerate() {
        let mut measured: Vec<(f64, &str)> =
            (8 * cycle..8 * next).map(|step| (seen.grad_norms[step], names[step])).collect();
        measured.sort_by(|a, b| b.0.total_cmp(&a.0));
        let expected: Vec<&str> = measured.iter().map(|(_, name)| *name).collect();
        assert_eq!(names[8 * next..8 * next + 8], expected, "cycle {next}");
        orders.insert(expected);
    }
    assert!(orders.len() > 1, "the order changes with the gradients: {orders:?}");
}

/// Runs `steps` of a pipeline and holds every step against the plan: who trains, at which rate, in how much memory.
fn follows(name: &str, changes: &[(&str, &str)]) {
    let text = changed(name, changes);
    let place = tempfile::tempdir().unwrap();
    let seen = run_in(place.path(), &text);
    let plan = plan_in(&place.path().join("methods"), &text);
    assert_eq!(seen.groups.len() as u64, plan.steps.unwrap(), "{name}");
    let stepper = Stepper::new(&plan);
    let most = hift::estimate::peak(&plan, rayon::current_num_threads());
    for (step, names) in seen.groups.iter().enumerate() {
        let step = step as u64;
        assert_eq!(names, &plan.groups[stepper.group_at(step)].names, "{name}, step {step}");
        assert_eq!(seen.rates[step as usize], plan.rate.at(step), "{name}, step {step}");
    }
    assert!(seen.peaks.iter().all(|peak| *peak <= most.0), "{name}: above {most}");
    let (first, last) = (seen.losses[0], seen.losses[seen.losses.len() - 1]);
    assert!(last < first, "{name}: {first} to {last}");
}

#[test]
fn runs_follow_their_plans() {
    let steps = ("steps       = 3000", "steps       = 60");
    let every = ("600 steps", "60 steps");
    follows("lisa.hift", &[steps, every, ("20 steps", "4 steps")]);
    follows("badam.hift", &[steps, every, ("100 steps", "5 steps"), ("\"embedding\", \"head\"", "")]);
    follows(
        "unfreezing.hift",
        &[("steps       = 4800", "steps       = 60"), every, ("480 steps", "6 steps")],
    );
    follows("inside_blocks.hift", &[steps, every]);
    follows("by_size.hift", &[steps, every]);
    follows("reference.hift", &[steps, every]);
}

#[test]
fn what_the_model_or_the_order_cannot_do_is_refused() {
    let check = |name: &str, from: &str, to: &str, code: &str, says: &str| {
        let pipeline = pipeline(&methods(), &changed(name, &[(from, to)]));
        let mut library = Library::new(methods(), &|| false);
        let Err(problems) = planned(&pipeline, &mut library) else { panic!("{to}: was planned") };
        assert_eq!(problems.0.len(), 1, "{to}: {problems}");
        let problem = &problems.0[0];
        assert_eq!(problem.code, format!("hift::plan::{code}"), "{to}");
        let labels: Vec<&str> = problem.labels.iter().map(|label| label.text.as_str()).collect();
        let told =
            format!("{} / {} / {}", problem.message, labels.join(" / "), problem.help.as_ref().unwrap());
        assert!(told.contains(says), "{to}: {told}");
    };
    let order = "= bottom_up";
    check("lisa.hift", "size = 2", "size = 7", "sample_too_large", "write a `size` from 1 to 6");
    check("lisa.hift", "\"head\"]", "\"haed\"]", "unknown_layer", "did you mean `head`?");
    check("lisa.hift", "[\"embedding\", \"head\"]", "[\"**\"]", "nothing_to_train", "write `split = all()`");
    check("reference.hift", order, "= importance", "no_fixed_order", "remove `rotate`");
    check("unfreezing.hift", "top_down", "random(1, redraw = per_cycle)", "no_fixed_order", "remove `grow`");
    check(
        "reference.hift",
        "horizon = steps",
        "factors = { haed = 2 }",
        "unknown_layer",
        "did you mean `head`?",
    );
    let pairs = "= [[\"embedding\", \"head\"], \"norm\"]";
    check("reference.hift", order, pairs, "missing_in_order", "leaves out `block.0`, `block.1`");
    let whole = r#"= [["embedding", "head"], ["norm", "block.0", "block.1", "block.2"], "block.3", "block.4", "block.5"]"#;
    check("reference.hift", order, whole, "turns_of_groups", "write `split = by_layer(1)`");
    check(
        "inside_blocks.hift",
        "\"ends\"]",
        "\"ends\", []]",
        "empty_turn",
        "name the groups that train in it",
    );
    check(
        "inside_blocks.hift",
        "[\"mlp\", \"norms\"]",
        "[\"mlp\", \"mlp\"]",
        "twice_in_order",
        "`mlp` stands twice",
    );
}
