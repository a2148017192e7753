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

/// The text with escapes in place of control characters, of line separators and of invisible characters,
/// such as those that change the direction: they could make a terminal show something else.
#[must_use]
pub fn printable(text: &str) -> String {
    let is_separator = |character: char| matches!(character, '\u{2028}' | '\u{2029}');
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        let is_space =
            character.is_whitespace() && !character.is_control() && !is_separator(character);
        if character.is_ascii_graphic() || is_space {
            printable.push(character);
        } else {
            // Behind another character: only there a combining mark is left as it is.
            printable.extend(format!("a{character}").escape_debug().skip(1));
        }
    }
    printable
}

/// A progress bar. It is drawn only on a terminal.
pub fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn what_a_terminal_does_not_show_as_it_is_is_escaped() {
        for (text, shown) in [
            ("a\n\u{1b}[31m\u{7f}", r"a\n\u{1b}[31m\u{7f}"),
            ("\u{202e}b\u{2066}", r"\u{202e}b\u{2066}"),
            ("a\u{200b}\u{ad}\u{feff}\u{e0041}", r"a\u{200b}\u{ad}\u{feff}\u{e0041}"),
            ("\u{2028}\u{2029}\u{85}", r"\u{2028}\u{2029}\u{85}"),
        ] {
            assert_eq!(printable(text), shown);
        }
        for text in [
            "",
            r#"it's "a\b""#,
            "Zoë zoe\u{308}",
            "1\u{a0}000\u{202f}€",
            "漢字\u{3000}かな",
            "हिन्दी",
            "🙂",
        ] {
            assert_eq!(printable(text), text);
        }
    }
}
