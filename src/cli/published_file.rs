//! Files that appear under their names once they are complete.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use passbook_command::CliError;

/// A file that has another name until it is complete. If it is dropped before, it is removed.
pub struct PublishedFile<'a> {
    output: BufWriter<File>,
    partial: PathBuf,
    path: &'a Path,
    is_published: bool,
}

impl<'a> PublishedFile<'a> {
    pub fn create(path: &'a Path) -> Result<Self, CliError> {
        // In the folder of the final file: a rename works within one file system only.
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(|error| cannot(&partial, &error))?;
        Ok(Self { output: BufWriter::new(file), partial, path, is_published: false })
    }

    pub fn output(&mut self) -> &mut BufWriter<File> {
        &mut self.output
    }

    /// Syncs the file to the disk, then gives it its final name.
    pub fn publish(mut self) -> Result<(), CliError> {
        let mut publish = || {
            self.output.flush()?;
            self.output.get_ref().sync_all()?;
            fs::rename(&self.partial, self.path)?;
            // The new name is durable once the folder is synced.
            let folder = self.path.parent().filter(|it| !it.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        publish().map_err(|error| cannot(&self.partial, &error))?;
        self.is_published = true;
        Ok(())
    }
}

impl Drop for PublishedFile<'_> {
    fn drop(&mut self) {
        if !self.is_published {
            // The caller gets the first error. A file that cannot be removed adds nothing.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

fn cannot(path: &Path, error: &io::Error) -> CliError {
    CliError::Run(format!("{}: {error}", path.display()))
}
