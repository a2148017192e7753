//! The program: see [`passbook::cli`].

use std::process::ExitCode;

/// Measured against the C library's: a tenth more requests a second, and less memory kept.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    passbook::cli::main()
}
