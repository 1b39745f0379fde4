//! The data room from outside: files in, token batches out.

mod cached;
mod cases;
mod chats;
mod classes;
mod labels;
mod problems;
mod real;
mod rows;
mod sources;
