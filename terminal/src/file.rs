//! Files of the commands.

use std::{
    fmt::Display,
    fs,
    io::{self, Write},
    path::Path,
};

use passbook_command::CliError;
use tempfile::NamedTempFile;

/// Checks that the folder of a file exists: a misspelled one is not created.
pub fn check_folder(path: &Path) -> Result<(), CliError> {
    let folder = folder(path);
    if folder.is_dir() {
        return Ok(());
    }
    Err(cannot_write(path, &format!("there is no folder {}", folder.display())))
}

/// Creates the folder of a file.
pub fn create_folder(path: &Path) -> Result<(), CliError> {
    fs::create_dir_all(folder(path)).map_err(|error| cannot_write(path, &error))
}

/// Replaces a file at once. The new file belongs to its owner alone.
pub fn replace(path: &Path, text: &str) -> Result<(), CliError> {
    write_and_rename(path, text).map_err(|error| cannot_write(path, &error))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn cannot_write(path: &Path, why: &dyn Display) -> CliError {
    CliError::Run(format!("{}: cannot be written: {why}", path.display()))
}

fn write_and_rename(path: &Path, text: &str) -> io::Result<()> {
    // Has the mode 0600.
    let mut file = NamedTempFile::new_in(folder(path))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
