//! Parameters, gradients and states in the columns of the paper's table.

use crate::estimate::paper::{Row, table as rows};
use crate::plan::{Plan, StagePlan};
use crate::units::{Bytes, Count};

use super::names;
use super::table::table;

/// The table of each train stage. MB are 2^20 bytes and GB 2^30, as in the paper.
pub fn paper(plan: &Plan) -> String {
    let mut text = String::new();
    for stage in &plan.stages {
        let StagePlan::Train(train) = stage else { continue };
        let largest = train.groups.iter().max_by_key(|group| group.n_elements).expect("a plan has groups");
        text += &format!(
            "train {}: {} of {} parameters in {} groups; the largest, {}, has {}\n\n",
            train.name,
            train.model.family,
            Count(train.model.n_elements),
            train.groups.len(),
            names(&largest.names),
            Count(largest.n_elements),
        );
        let header =
            ["optimizer", "#Dtype", "#FType", "#Trainable", "#Para(MB)", "#Gra(MB)", "#Sta(MB)", "#PGS(GB)"];
        let rows: Vec<Vec<String>> = rows(train).iter().map(line).collect();
        text += &table(&header, &rows, 0);
        text += "\n\n";
    }
    text
}

fn line(row: &Row) -> Vec<String> {
    let mb = |bytes: Bytes| format!("{:.2}", bytes.0 as f64 / f64::from(1 << 20));
    vec![
        row.optimizer.to_string(),
        row.precision.name().to_string(),
        row.method.name().to_string(),
        format!("{:.2}M", row.trainable as f64 / 1e6),
        mb(row.parameters),
        mb(row.gradients),
        mb(row.states),
        format!("{:.2}", row.total().0 as f64 / f64::from(1 << 30)),
    ]
}
