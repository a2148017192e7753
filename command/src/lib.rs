//! What the commands share, those of the service's crate and `passbook-bench`.

pub mod client;
pub mod output;

use std::{fmt::Display, time::Duration};

/// Why a command failed, in one line.
#[derive(Debug)]
pub enum CliError {
    /// The settings contradict each other or the database.
    Usage(String),
    /// Something did not work.
    Run(String),
    /// Nobody reads standard output any more; whoever it was does not want to be told.
    OutputClosed,
}

impl CliError {
    /// Something did not work, for this reason.
    pub fn run(error: impl Display) -> Self {
        Self::Run(error.to_string())
    }
}

/// Parses a length of time above zero, such as 500ms or 10s.
///
/// # Errors
/// The text is no duration, or it is zero.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("must be above zero".to_owned()) } else { Ok(duration) }
}
