//! The file of the audit log.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{OFlags, fcntl_setfl};

/// The path that means standard output.
pub const STDOUT: &str = "-";

/// A file to which whole lines are appended, or standard output.
///
/// Other programs may rename the file (logrotate): the next lines then go into a new file at the
/// same path.
pub struct AuditFile {
    /// None for standard output.
    path: Option<PathBuf>,
    file: File,
    /// False for a pipe or a terminal, which has nothing to write to a disk.
    is_regular: bool,
    /// Whether the file ends within a line, because the disk was full or the machine crashed.
    is_torn: bool,
}

impl AuditFile {
    /// Opens the file, or creates it for its owner alone.
    pub fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new(STDOUT) {
            let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            let is_regular = file.metadata()?.is_file();
            return Ok(Self { path: None, file, is_regular, is_torn: false });
        }
        let mut options = OpenOptions::new();
        // Otherwise opening a pipe waits until somebody reads from it.
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        options.append(true).create(true).mode(0o600).custom_flags(nonblocking);
        let file = options.open(path)?;
        fcntl_setfl(&file, OFlags::APPEND)?;
        let is_regular = file.metadata()?.is_file();
        let is_torn = is_regular && ends_within_a_line(path);
        if let (true, Some(folder)) = (is_regular, fs::canonicalize(path)?.parent()) {
            // A new file is in its folder after a crash of the machine.
            File::open(folder)?.sync_all()?;
        }
        Ok(Self { path: Some(path.to_owned()), file, is_regular, is_torn })
    }

    /// Waits until what was appended is on the disk.
    pub fn sync(&self) -> io::Result<()> {
        if self.is_regular { self.file.sync_data() } else { Ok(()) }
    }

    /// Appends lines, and removes from `text` those that were written as a whole.
    pub fn append(&mut self, text: &mut Vec<u8>) -> io::Result<()> {
        self.follow_path()?;
        if self.is_torn {
            self.file.write_all(b"\n")?;
            self.is_torn = false;
        }
        let mut written = 0;
        let result = loop {
            if written == text.len() {
                break Ok(());
            }
            match self.file.write(&text[written..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        let whole = text[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.is_torn = written > whole;
        text.drain(..whole);
        result
    }

    /// Opens the path again if another file is there now, or none.
    fn follow_path(&mut self) -> io::Result<()> {
        let Some(path) = self.path.as_deref() else { return Ok(()) };
        let current = self.file.metadata()?;
        let is_current =
            |found: &fs::Metadata| (found.dev(), found.ino()) == (current.dev(), current.ino());
        match fs::metadata(path) {
            Ok(found) if is_current(&found) => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                *self = Self::open(path)?;
                Ok(())
            }
        }
    }
}

/// Whether the last byte of a file is no line break. False for a file that may not be read.
fn ends_within_a_line(path: &Path) -> bool {
    let last = || -> io::Result<Option<u8>> {
        let mut file = File::open(path)?;
        if file.seek(SeekFrom::End(0))? == 0 {
            return Ok(None);
        }
        file.seek(SeekFrom::End(-1))?;
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        Ok(Some(byte[0]))
    };
    last().is_ok_and(|byte| byte.is_some_and(|byte| byte != b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(file: &mut AuditFile, text: &str) {
        let mut bytes = text.as_bytes().to_vec();
        file.append(&mut bytes).unwrap();
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_renamed_file_is_followed_by_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("audit"), folder.path().join("audit.1"));
        let mut file = AuditFile::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        append(&mut file, "one\n");
        fs::rename(&path, &old).unwrap();
        append(&mut file, "two\n");
        assert_eq!(fs::read_to_string(old).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(path).unwrap(), "two\n");
    }

    #[test]
    fn a_torn_line_ends_before_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        fs::write(&path, "one\ntw").unwrap();
        append(&mut AuditFile::open(&path).unwrap(), "three\n");
        append(&mut AuditFile::open(&path).unwrap(), "four\n");
        assert_eq!(fs::read_to_string(path).unwrap(), "one\ntw\nthree\nfour\n");
    }

    #[test]
    fn what_was_not_written_is_kept() {
        let mut file = AuditFile::open(Path::new("/dev/full")).unwrap();
        let mut text = b"one\ntwo\n".to_vec();
        assert!(file.append(&mut text).is_err());
        assert_eq!(text, b"one\ntwo\n");
    }
}
