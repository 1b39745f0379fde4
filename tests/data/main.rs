//! The data room from outside: files in, token batches out.

mod cases;
mod classes;
mod problems;
mod real;
mod rows;
