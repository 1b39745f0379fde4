//! The paper's own figures, from the pipelines under `pipelines/paper`.

use std::fs;
use std::path::{Path, PathBuf};

use hift::cli::disk::Disk;
use hift::estimate::paper::{Row, table};
use hift::plan::{Plan, StagePlan, TrainPlan, compile};
use hift::report::paper::paper;

mod common;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/paper")
}

fn plan(name: &str) -> Plan {
    let text = fs::read_to_string(folder().join(name)).unwrap();
    compile(&common::pipeline(&folder(), &text), &mut Disk { library: None }).unwrap()
}

fn train(plan: &Plan) -> &TrainPlan {
    match &plan.stages[0] {
        StagePlan::Train(train) => train,
        other => panic!("{other:?}"),
    }
}

/// Liu et al. 2024, the table of LLaMA (7B) on E2E: optimizer, dtype, method; trainable parameters in millions;
/// parameters, gradients and states in MB of 2^20 bytes; their sum in GB of 2^30.
const LLAMA: &str = "
AdamW     FP32     FPFT 6738.42 25705.04 25705.04 51410.08 100.41
AdamW     FP32     HiFT  202.38 25705.04   772.03  1544.06  27.36
AdamW     Mixed    FPFT 6738.42 38557.56 25705.04 51410.08 112.96
AdamW     Mixed    HiFT  202.38 38557.56   772.03  1544.06  39.92
AdamW     Mixed^Hi HiFT  202.38 13624.53   772.03  1544.06  15.57
SGDM      FP32     FPFT 6738.42 25705.04 25705.04 25705.04  75.31
SGDM      FP32     HiFT  202.38 25705.04   772.03   772.03  26.61
SGDM      Mixed    FPFT 6738.42 38557.56 25705.04 25705.04  87.86
SGDM      Mixed    HiFT  202.38 38557.56   772.03   772.03  39.16
SGDM      Mixed^Hi HiFT  202.38 13624.53   772.03   772.03  14.81
SGD       FP32     FPFT 6738.42 25705.04 25705.04     0.00  50.21
SGD       FP32     HiFT  202.38 25705.04   772.03     0.00  25.86
SGD       Mixed    FPFT 6738.42 38557.56 25705.04     0.00  62.76
SGD       Mixed    HiFT  202.38 38557.56   772.03     0.00  38.41
SGD       Mixed^Hi HiFT  202.38 13624.53   772.03     0.00  14.06
Adafactor FP32     FPFT 6738.42 25705.04 25705.04    10.82  50.22
Adafactor FP32     HiFT  202.38 25705.04   772.03     0.33  25.86
Adafactor Mixed    FPFT 6738.42 38557.56 25705.04    10.82  62.77
Adafactor Mixed    HiFT  202.38 38557.56   772.03     0.33  38.41
Adafactor Mixed^Hi HiFT  202.38 13624.53   772.03     0.33  14.06
Adagrad   FP32     FPFT 6738.42 25705.04 25705.04 25705.04  75.31
Adagrad   FP32     HiFT  202.38 25705.04   772.03   772.03  26.61
Adagrad   Mixed    FPFT 6738.42 38557.56 25705.04 25705.04  87.86
Adagrad   Mixed    HiFT  202.38 38557.56   772.03   772.03  39.16
Adagrad   Mixed^Hi HiFT  202.38 13624.53   772.03   772.03  14.81
";

#[test]
fn the_table_of_llama_7b_is_the_papers() {
    let plan = plan("llama-7b.hift");
    // Embedding, 32 blocks, norm, head.
    assert_eq!(train(&plan).groups.len(), 35);
    assert_eq!(train(&plan).model.n_elements, 6_738_415_616);
    let rows = table(train(&plan));
    let expected: Vec<&str> = LLAMA.trim().lines().collect();
    assert_eq!((rows.len(), expected.len()), (25, 25));
    for (row, expected) in rows.iter().zip(expected) {
        let cells: Vec<&str> = expected.split_whitespace().collect();
        assert_eq!([row.optimizer, row.precision.name(), row.method.name()], cells[..3], "{expected}");
        let Row { trainable, parameters, gradients, states, .. } = row;
        let mb = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let close = |what: &str, got: f64, cell: &str, tolerance: f64| {
            let off = (got - cell.parse::<f64>().unwrap()).abs();
            assert!(off <= tolerance, "{expected}: {what} is {got}");
        };
        close("#Trainable", *trainable as f64 / 1e6, cells[3], 0.005);
        close("#Para", mb(parameters.0), cells[4], 0.05);
        close("#Gra", mb(gradients.0), cells[5], 0.05);
        close("#Sta", mb(states.0), cells[6], 0.05);
        close("#PGS", mb(row.total().0) / 1024.0, cells[7], 0.01);
    }
}

#[test]
fn the_table_is_shown_in_the_papers_columns() {
    let text = paper(&plan("llama-7b.hift"));
    let lines: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        lines[0],
        "train sft: llama of 6,738,415,616 parameters in 35 groups; the largest, block.31, has 202,383,360"
    );
    assert_eq!(lines[2], "optimizer #Dtype #FType #Trainable #Para(MB) #Gra(MB) #Sta(MB) #PGS(GB)");
    assert_eq!(lines[4], "AdamW FP32 HiFT 202.38M 25705.02 772.03 1544.06 27.36");
    assert_eq!(lines.iter().filter(|line| line.contains("HiFT")).count(), 15);
}

/// Liu et al. 2024 on six models: pipeline, layers, and by how much the largest group is smaller than the model, in
/// percent; their mean, 89.18, is in the abstract. Parameters and the largest group in millions are worked out from the
/// models' shapes.
const MODELS: &[(&str, usize, f64, f64, f64)] = &[
    ("roberta-base.hift", 14, 124.65, 39.00, 68.71),
    ("roberta-large.hift", 26, 355.36, 52.00, 85.37),
    ("gpt2-medium.hift", 26, 354.82, 52.51, 85.20),
    ("gpt2-large.hift", 38, 774.03, 65.64, 91.52),
    ("gpt-neo-2.7b.hift", 34, 2651.31, 133.90, 94.95),
    ("llama-7b.hift", 35, 6738.42, 202.38, 97.00),
    ("opt-13b.hift", 42, 12853.47, 314.64, 97.55),
];

#[test]
fn the_largest_group_is_as_small_as_the_paper_says() {
    let mut saved = Vec::new();
    for (name, n_groups, millions, largest, percent) in MODELS {
        let plan = plan(name);
        let train = train(&plan);
        assert_eq!(train.groups.len(), *n_groups, "{name}");
        let all = train.model.n_elements as f64 / 1e6;
        let group = train.groups.iter().map(|group| group.n_elements).max().unwrap() as f64 / 1e6;
        assert!((all - millions).abs() < 0.006, "{name}: {all}");
        assert!((group - largest).abs() < 0.006, "{name}: {group}");
        let share = 100.0 * (1.0 - group / all);
        assert!((share - percent).abs() < 0.006, "{name}: {share}");
        if *name != "gpt2-medium.hift" {
            saved.push(share);
        }
    }
    let mean = saved.iter().sum::<f64>() / saved.len() as f64;
    assert!((mean - 89.18).abs() < 0.01, "{mean}");
}
