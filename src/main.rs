//! Runs the command that the arguments name, and exits with its exit code.

use std::process::ExitCode;

/// mimalloc, because a request makes many small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tollgate::cli::main()
}
