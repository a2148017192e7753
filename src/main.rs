//! The program: see [`passbook::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    passbook::cli::main()
}
