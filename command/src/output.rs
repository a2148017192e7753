//! Standard output, which nobody may be reading any more: `passbook export | head -1`.
//!
//! `println!` would panic then. What a command has found out it tells by its exit code, too.

use std::{
    fmt::Display,
    io::{self, Write},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::CliError;

/// Writes a line. That nobody reads it is no failure.
///
/// # Errors
/// It cannot be written for another reason: the disk is full.
pub fn line(text: impl Display) -> Result<(), CliError> {
    write(&format!("{text}\n"))
}

/// Writes whole lines.
///
/// # Errors
/// As [`line()`].
pub fn lines(text: &str) -> Result<(), CliError> {
    write(text)
}

fn write(text: &str) -> Result<(), CliError> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::Run(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error; if that cannot be done, there is nobody to tell.
pub fn error_line(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A progress bar, which is drawn only on a terminal.
pub fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
