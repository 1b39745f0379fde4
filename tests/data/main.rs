//! The data room from outside: files in, token batches out.

mod cases;
mod problems;
mod real;
mod rows;
