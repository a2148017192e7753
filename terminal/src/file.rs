//! Files of the commands.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use passbook_command::CliError;
use tempfile::NamedTempFile;

/// Replaces a file at once. The new file belongs to its owner alone.
pub fn replace(path: &Path, text: &str) -> Result<(), CliError> {
    write_and_rename(path, text)
        .map_err(|error| CliError::Run(format!("{}: cannot be written: {error}", path.display())))
}

fn write_and_rename(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // Has the mode 0600.
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
