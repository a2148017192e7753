//! The program: see [`passbook::cli`].

use std::process::ExitCode;

/// Measured against the C library's: about a tenth more requests a second, for 20 MiB more.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    passbook::cli::main()
}
