//! Standard output and standard error of a command.
//!
//! The reader of standard output may have closed it, as in `passbook export | head -1`. `println!`
//! would panic then. The functions here ignore that error, because the exit code has the result, too.

use std::{
    fmt::Display,
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::CliError;

/// Writes a line to standard output. A closed standard output is no error.
///
/// # Errors
/// Standard output cannot be written for another reason, such as a full disk.
pub fn line(text: impl Display) -> Result<(), CliError> {
    write(&format!("{text}\n"))
}

/// Writes lines to standard output. The text ends with a line break.
///
/// # Errors
/// The same as those of [`line()`].
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

/// Writes the next part of an output of any length. The text ends with a line break.
///
/// # Errors
/// Standard output cannot be written, or its reader has closed it: nothing more is to be read.
pub fn part(text: &str) -> Result<(), CliError> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(|error| {
        match error.kind() {
            io::ErrorKind::BrokenPipe => CliError::OutputClosed,
            _ => CliError::Run(format!("standard output: {error}")),
        }
    })
}

/// Waits until the output is on the disk, if it goes to a file.
///
/// # Errors
/// The disk cannot be written.
pub fn sync() -> Result<(), CliError> {
    let descriptor = io::stdout().as_fd().try_clone_to_owned();
    match descriptor.map(File::from).and_then(|output| output.sync_data()) {
        // It goes to a pipe or a terminal.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result.map_err(|error| CliError::Run(format!("standard output: {error}"))),
    }
}

/// Writes a line to standard error. Errors are ignored: no output is left to report them.
pub fn error_line(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The text without control characters: they could make a terminal show something else.
#[must_use]
pub fn printable(text: &str) -> String {
    let escape = |character: char| match character.is_control() {
        true => character.escape_default().to_string(),
        false => character.to_string(),
    };
    text.chars().map(escape).collect()
}

/// A progress bar. It is drawn only on a terminal.
pub fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
