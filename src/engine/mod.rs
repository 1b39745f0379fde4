//! Plays programs with tensors.
pub mod cpu;
