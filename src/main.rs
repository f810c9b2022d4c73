//! The `lastword` program.

use std::process::ExitCode;

/// What one thread allocates another frees, all the time: rows go from the network's threads to the
/// writer's and the mover's. The C library's allocator spends a quarter more on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lastword::cli::main()
}
