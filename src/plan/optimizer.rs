//! What an optimizer keeps for each parameter: the engine allocates it, the estimate counts it.

use crate::lang::pipeline::Algorithm;

/// The shapes of the states of a parameter of shape `shape`, in the order in which the update takes them.
pub fn states(algorithm: &Algorithm, shape: &[usize]) -> Vec<Vec<usize>> {
    match algorithm {
        // First and second moment.
        Algorithm::Adamw { .. } => vec![shape.to_vec(), shape.to_vec()],
        Algorithm::Sgd => vec![],
        // The momentum buffer.
        Algorithm::Sgdm { .. } => vec![shape.to_vec()],
    }
}
