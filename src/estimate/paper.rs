//! The memory of a model's parameters, gradients and states as the paper counts it: by optimizer and precision, for
//! full fine-tuning and for HiFT.
//!
//! Source: Liu et al. 2024, "HiFT" (arXiv 2401.15207), the table of LLaMA-7B. Its columns are sums over parameters, not
//! a peak: with HiFT, states are away while activations are there. [`super::estimate`] says what a step really needs.

use serde::Serialize;

use crate::lang::pipeline::{Algorithm, Setting};
use crate::plan::{Group, TrainPlan, optimizer};
use crate::program::ParamId;
use crate::units::Bytes;

/// The paper's precisions, by the bytes of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    Fp32,
    /// A half copy beside 32-bit parameters.
    Mixed,
    /// Half parameters, and 32-bit ones of the active group.
    MixedHi,
}

impl Precision {
    /// As the paper writes it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Fp32 => "FP32",
            Precision::Mixed => "Mixed",
            Precision::MixedHi => "Mixed^Hi",
        }
    }
}

/// What trains at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Every parameter: full-parameter fine-tuning.
    Fpft,
    /// A group; the largest one is counted.
    Hift,
}

impl Method {
    /// As the paper writes it.
    pub fn name(self) -> &'static str {
        match self {
            Method::Fpft => "FPFT",
            Method::Hift => "HiFT",
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub optimizer: &'static str,
    pub precision: Precision,
    pub method: Method,
    /// Parameters that train at a time.
    pub trainable: u64,
    pub parameters: Bytes,
    pub gradients: Bytes,
    pub states: Bytes,
}

impl Row {
    /// `#PGS`: parameters, gradients and states.
    pub fn total(&self) -> Bytes {
        self.parameters + self.gradients + self.states
    }
}

/// The paper's optimizers, in its order, with their defaults.
fn optimizers() -> Vec<(&'static str, Algorithm)> {
    let real = Setting::default;
    vec![
        ("AdamW", Algorithm::Adamw { betas: Setting::default([0.9, 0.999]), eps: real(1e-8) }),
        ("SGDM", Algorithm::Sgdm { momentum: real(0.9), nesterov: Setting::default(false) }),
        ("SGD", Algorithm::Sgd),
        (
            "Adafactor",
            Algorithm::Adafactor {
                eps: real(1e-30),
                decay_rate: real(0.8),
                clip_threshold: real(1.0),
                beta1: Setting::default(None),
                scale_parameter: Setting::default(false),
            },
        ),
        ("Adagrad", Algorithm::Adagrad { eps: real(1e-10) }),
    ]
}

/// The table for the model and the groups of a plan.
pub fn table(plan: &TrainPlan) -> Vec<Row> {
    let model = &plan.model.model;
    let largest = plan.groups.iter().max_by_key(|group| group.n_elements).expect("a plan has groups");
    let everything: Vec<ParamId> = (0..model.params.len()).map(ParamId).collect();
    let mut rows = Vec::new();
    for (name, algorithm) in optimizers() {
        let states = |params: &[ParamId]| -> Bytes {
            let states = params.iter().flat_map(|id| optimizer::states(&algorithm, model, *id));
            states.map(|state| state.bytes()).sum()
        };
        let row = |precision, method| {
            let (all, Group { params, n_elements, .. }) = (model.n_elements(), largest);
            let (trainable, params) = match method {
                Method::Fpft => (all, everything.as_slice()),
                Method::Hift => (*n_elements, params.as_slice()),
            };
            let parameters = match precision {
                Precision::Fp32 => 4 * all,
                Precision::Mixed => (4 + 2) * all,
                Precision::MixedHi => 2 * all + 4 * trainable,
            };
            Row {
                optimizer: name,
                precision,
                method,
                trainable,
                parameters: Bytes(parameters),
                // In 32 bits with every precision; half gradients are not counted.
                gradients: Bytes(4 * trainable),
                states: states(params),
            }
        };
        rows.push(row(Precision::Fp32, Method::Fpft));
        rows.push(row(Precision::Fp32, Method::Hift));
        rows.push(row(Precision::Mixed, Method::Fpft));
        rows.push(row(Precision::Mixed, Method::Hift));
        rows.push(row(Precision::MixedHi, Method::Hift));
    }
    rows
}
