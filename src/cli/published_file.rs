//! Files that appear under their names once they are complete.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use passbook_command::CliError;
use uuid::Uuid;

use crate::regular_file;

/// A file that has another name until it is complete. If it is dropped before, it is removed.
pub struct PublishedFile {
    output: BufWriter<File>,
    folder: File,
    partial: PathBuf,
    path: PathBuf,
    is_published: bool,
}

impl PublishedFile {
    /// Creates the file under its other name. `inputs` are files that the command reads, such as the
    /// database, and which it must not replace.
    ///
    /// # Errors
    /// The file would replace an input, or what is no regular file, or cannot be created.
    pub fn create(path: &Path, inputs: &[PathBuf]) -> Result<Self, CliError> {
        if let Some(input) = inputs.iter().find(|input| regular_file::is_same(path, input)) {
            let (path, input) = (path.display(), input.display());
            return Err(CliError::Usage(format!("{path} would replace {input}, which is read")));
        }
        // The file that a symbolic link leads to is replaced, not the link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Err(CliError::Usage(format!(
                "{} is not a regular file: leave it out to write to standard output",
                path.display()
            )));
        }
        // In the folder of the final file: a rename works within one file system only. Under a name of
        // its own: a slower process with the same file would write on into what this one has published.
        let mut partial = path.as_os_str().to_owned();
        partial.push(format!(".{}.partial", Uuid::now_v7()));
        let partial = PathBuf::from(partial);
        let folder = File::open(regular_file::folder(&path));
        let folder = folder.map_err(|error| cannot(&path, &error))?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
        let file = file.map_err(|error| cannot(&partial, &error))?;
        let output = BufWriter::new(file);
        Ok(Self { output, folder, partial, path, is_published: false })
    }

    pub fn output(&mut self) -> &mut BufWriter<File> {
        &mut self.output
    }

    /// Syncs the file to the disk, then gives it its final name.
    pub fn publish(mut self) -> Result<(), CliError> {
        let mut publish = || {
            self.output.flush()?;
            self.output.get_ref().sync_all()?;
            fs::rename(&self.partial, &self.path)
        };
        publish().map_err(|error| cannot(&self.partial, &error))?;
        self.is_published = true;
        // The new name is durable once the folder is synced.
        self.folder.sync_all().map_err(|error| cannot(&self.path, &error))
    }
}

impl Drop for PublishedFile {
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
    use std::{os::unix::fs::PermissionsExt, process::Command};

    use super::*;

    fn create(path: &Path) -> PublishedFile {
        PublishedFile::create(path, &[]).unwrap_or_else(|error| panic!("{error:?}"))
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

    #[test]
    fn neither_what_is_read_nor_a_pipe_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let [ledger, link, other] = ["ledger.db", "link", "other"].map(|it| folder.path().join(it));
        fs::write(&ledger, "a ledger").unwrap();
        std::os::unix::fs::symlink(&ledger, &link).unwrap();
        let inputs = [ledger.clone()];
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [&ledger, &link, &pipe, folder.path()] {
            let created = PublishedFile::create(path, &inputs);
            assert!(matches!(created, Err(CliError::Usage(_))), "{path:?}");
        }
        fs::write(&other, "an older export").unwrap();
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&other, &link).unwrap();
        let created = PublishedFile::create(&link, &inputs);
        let mut file = created.unwrap_or_else(|error| panic!("{error:?}"));
        file.output().write_all(b"an export").unwrap();
        file.publish().unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(fs::read_to_string(&other).unwrap(), "an export");
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&ledger).unwrap(), "a ledger");
    }
}
