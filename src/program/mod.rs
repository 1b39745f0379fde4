//! A training step as data.
