//! Rows to batches.
