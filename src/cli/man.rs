//! `passbook man`: prints the manual, as `man` reads it.

use std::path::PathBuf;

use clap::Args;
use passbook_command::{CliError, output};

#[derive(Args)]
pub struct Man {
    /// The folder for a page of each command: passbook.1, passbook-deposit.1 and so on. It is made if
    /// it does not exist. Default: the page of `passbook` goes to standard output.
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
}

impl Man {
    pub fn run(self, command: clap::Command) -> Result<(), CliError> {
        match self.directory {
            Some(folder) => std::fs::create_dir_all(&folder)
                .and_then(|()| clap_mangen::generate_to(command, &folder))
                .map_err(|error| CliError::Run(format!("{}: {error}", folder.display()))),
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(command).render(&mut page).map_err(CliError::run)?;
                output::lines(&String::from_utf8_lossy(&page))
            }
        }
    }
}
