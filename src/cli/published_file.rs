//! Files that appear under their names once they are complete.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use passbook_command::CliError;
use uuid::Uuid;

/// A file that has another name until it is complete. If it is dropped before, it is removed.
pub struct PublishedFile<'a> {
    output: BufWriter<File>,
    partial: PathBuf,
    path: &'a Path,
    is_published: bool,
}

impl<'a> PublishedFile<'a> {
    pub fn create(path: &'a Path) -> Result<Self, CliError> {
        // In the folder of the final file: a rename works within one file system only. Under a name of
        // its own: a slower process with the same file would write on into what this one has published.
        let mut partial = path.as_os_str().to_owned();
        partial.push(format!(".{}.partial", Uuid::now_v7()));
        let partial = PathBuf::from(partial);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
        let file = file.map_err(|error| cannot(&partial, &error))?;
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn create(path: &Path) -> PublishedFile<'_> {
        PublishedFile::create(path).unwrap_or_else(|error| panic!("{error:?}"))
    }

    #[test]
    fn a_file_that_is_published_is_not_written_by_another_process_with_the_same_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("export.jsonl");
        let mut slow = create(&path);
        slow.output().write_all(b"the first half, ").unwrap();
        slow.output().flush().unwrap();
        let mut fast = create(&path);
        fast.output().write_all(b"whole").unwrap();
        fast.publish().unwrap_or_else(|error| panic!("{error:?}"));

        slow.output().write_all(b"the second half").unwrap();
        slow.output().flush().unwrap();

        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(slow);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no partial file is left");
    }
}
