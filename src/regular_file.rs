//! Files of settings and secrets: how they are read, which are the same, and which others can read. A pipe
//! or a device at the path of one would be waited for, or have no end.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// The most bytes of such a file: far more than any has.
const SIZE_MAX: u64 = 64 << 20;

/// The content of a regular file, or of the one that a symbolic link leads to.
///
/// # Errors
/// It cannot be read, is a folder, a pipe or a device, or has more than 64 MiB.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    // Otherwise opening a pipe waits until somebody writes to it.
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = options.read(true).custom_flags(nonblocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    whole(file)
}

/// The same as text.
///
/// # Errors
/// As [`read`], and if it is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    text(read(path)?)
}

/// The text of a file that is read at the start only. It may be a pipe, as in `--config <(decrypt ...)`.
///
/// # Errors
/// It cannot be read, has more than 64 MiB, or is not UTF-8.
pub fn read_text_once(path: &Path) -> io::Result<String> {
    text(whole(File::open(path)?)?)
}

fn whole(file: File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(SIZE_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > SIZE_MAX {
        return Err(io::Error::other("it has more than 64 MiB"));
    }
    Ok(content)
}

fn text(content: Vec<u8>) -> io::Result<String> {
    String::from_utf8(content).map_err(|_| io::Error::other("it is not UTF-8"))
}

/// The folder of a file. A name alone is in the working directory.
pub fn folder(path: &Path) -> &Path {
    path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path of a file without symbolic links: of the file that they lead to, which need not exist yet. The
/// path itself if it leads nowhere.
pub fn real_path(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    loop {
        match path.canonicalize() {
            Ok(real) => return real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return path,
        }
        // Each link is followed once: those that lead in a circle are another error.
        let Ok(target) = path.read_link() else { break };
        path = folder(&path).join(target);
    }
    match (folder(&path).canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path,
    }
}

/// Whether two paths lead to one file, also if it does not exist yet.
pub fn is_same(left: &Path, right: &Path) -> bool {
    match (left.metadata(), right.metadata()) {
        (Ok(left), Ok(right)) => (left.dev(), left.ino()) == (right.dev(), right.ino()),
        (Err(_), Err(_)) => real_path(left) == real_path(right),
        _ => false,
    }
}

/// A warning of a file with a secret, which has this name in the settings, if users of the machine who are
/// neither its owner nor in its group may read or change it.
pub fn exposure(name: &str, path: &Path) -> Option<String> {
    warning_of_others(0o007, format_args!("{name} {} is open to", path.display()), path)
}

/// A warning of a file that gives rights, if such users may change it.
pub fn writability(name: &str, path: &Path) -> Option<String> {
    warning_of_others(0o002, format_args!("{name} {} can be changed by", path.display()), path)
}

fn warning_of_others(modes: u32, what: fmt::Arguments<'_>, path: &Path) -> Option<String> {
    let mode = path.metadata().ok()?.permissions().mode();
    (mode & modes != 0).then(|| format!("{what} all users of this machine"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, process::Command};

    use super::*;

    #[test]
    fn only_a_regular_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "text").unwrap();
        symlink(path("file"), path("link")).unwrap();
        assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());

        assert_eq!(read_text(&path("link")).unwrap(), "text");
        for other in [path("pipe"), "/dev/zero".into(), folder.path().to_owned()] {
            let error = read(&other).unwrap_err().to_string();
            assert!(error.contains("not a regular file"), "{other:?}: {error}");
        }
        fs::write(path("file"), b"\xff").unwrap();
        assert!(read_text(&path("file")).unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn links_are_followed_also_to_a_file_that_does_not_exist_yet() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let path = |name: &str| base.join(name);
        for name in ["real", "links"] {
            fs::create_dir(path(name)).unwrap();
        }
        for (target, link) in [
            ("../real/file", "links/one"),
            ("one", "links/two"),
            ("links", "folder"),
            ("circle", "circle"),
            ("none/file", "nowhere"),
        ] {
            symlink(target, path(link)).unwrap();
        }
        for _ in 0..2 {
            for name in ["real/file", "links/one", "links/two", "folder/two", "links/../folder/one"]
            {
                assert_eq!(real_path(&path(name)), path("real/file"), "{name}");
                assert!(is_same(&path(name), &path("real/file")), "{name}");
            }
            // The second time, the file exists.
            fs::write(path("real/file"), "").unwrap();
        }
        assert_eq!(real_path(&path("circle")), path("circle"));
        assert_eq!(real_path(&path("nowhere")), path("none/file"));

        let relative = Path::new("a-name-alone");
        assert_eq!(real_path(relative), std::env::current_dir().unwrap().join(relative));
    }
}
