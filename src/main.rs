//! The `hift` program.

use std::process::ExitCode;

// Tensors come and go by the megabyte: mimalloc keeps their pages, and the counter around it is the judge of the
// estimate.
#[cfg(feature = "run")]
#[global_allocator]
static ALLOCATOR: hift::engine::memory::Counting<mimalloc::MiMalloc> =
    hift::engine::memory::Counting(mimalloc::MiMalloc);

fn main() -> ExitCode {
    hift::cli::main()
}
