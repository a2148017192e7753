//! `passbook completions`: prints what a shell needs to complete commands and flags.

use clap::Args;
use clap_complete::Shell;
use passbook_command::{CliError, output};

#[derive(Args)]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub fn run(self, mut command: clap::Command) -> Result<(), CliError> {
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        output::lines(&String::from_utf8_lossy(&script))
    }
}
