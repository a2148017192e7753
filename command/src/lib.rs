//! Shared parts of the commands of the service's crate, of `passbook-bench` and of
//! `passbook-terminal`.

pub mod client;
pub mod output;
pub mod proto;
pub mod table;

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    time::Duration,
};

/// The error of a command. The messages are one line.
#[derive(Debug)]
pub enum CliError {
    /// Wrong usage: a setting is invalid, or contradicts another setting or the database. Exit code 2.
    Usage(String),
    /// The command did not succeed. Exit code 1.
    Run(String),
    /// The reader of standard output has closed it. Exit code 1, without a message.
    OutputClosed,
    /// The error is on standard error already. The exit code.
    Reported(u8),
}

impl CliError {
    /// A [`Self::Run`] with the text of this error.
    pub fn run(error: impl Display) -> Self {
        Self::Run(error.to_string())
    }
}

/// Whether a file can be written at this path: its folder exists, and it is no folder itself.
#[must_use]
pub fn can_be_file(path: &Path) -> bool {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    folder.unwrap_or(Path::new(".")).is_dir() && !path.is_dir()
}

/// Parses the path of a file to write.
///
/// # Errors
/// No file can be there.
pub fn parse_output_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match can_be_file(&path) {
        true => Ok(path),
        false => Err("must be a file in a folder that exists".to_owned()),
    }
}

/// The longest duration: longer ones could overflow when they are added to a time.
const DURATION_MAX: Duration = Duration::from_secs(10_000 * 365 * 24 * 60 * 60);

/// Parses a duration above zero, such as 500ms or 10s.
///
/// # Errors
/// The text is no duration, or the duration is zero or has more than 10,000 years.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration_or_zero(text)?;
    if duration.is_zero() { Err("must be above zero".to_owned()) } else { Ok(duration) }
}

/// Parses a duration, such as 0s, 500ms or 10s.
///
/// # Errors
/// The text is no duration, or the duration has more than 10,000 years.
pub fn parse_duration_or_zero(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration <= DURATION_MAX { Ok(duration) } else { Err("must be at most 10000 years".into()) }
}
