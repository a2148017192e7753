//! The file of a SQLite database: whether it can be used, and whether the file at the path is still
//! the open one.
//!
//! SQLite goes on writing to a file that was moved or deleted, and takes any log beside a file for
//! that file's own. So the file, the log and its index are identified by device and inode. If one
//! of them is no longer at its path, nothing is opened there and nothing is changed, and the log is
//! moved into the file that it belongs to.
//!
//! Only SQLite opens the file and the index of the log: closing one of them anywhere else in the
//! process would release SQLite's locks.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use sea_orm::sqlx::{
    ConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use crate::{
    regular_file,
    storage::connect::{
        connect_error::{ConnectError, cannot_open},
        file_system::{is_mount_point, shared_file_system},
        session::Role,
        target::TargetSession,
    },
};

/// How long SQLite itself waits for the write lock before the worker checks its jobs and retries.
/// Short, because SQLite polls with growing pauses, and frequent retries serve two busy processes
/// more evenly.
const WRITER_BUSY_TIMEOUT: Duration = Duration::from_millis(20);
/// How long readers and maintenance wait for a lock, which is rare (recovery, another migration).
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Pages of 4 KiB in the write-ahead log before they are moved into the database's file. A page
/// that changes often is moved once for many changes; the log takes 64 MiB on the disk.
const CHECKPOINT_PAGES: &str = "16384";
/// The bytes to which a restarted log is truncated: its usual size until a checkpoint.
const LOG_KEPT_BYTES: &str = "67108864";
/// The bytes from which a log is too long: readers overlap, and SQLite never restarts it.
const LOG_BYTES_MAX: u64 = 96 << 20;
/// The writer's cache in KiB (SQLite's notation is a negative number). It must hold the pages that
/// a batch changes: others are written before the commit.
const CACHE_SIZE: &str = "-16384";

/// SQLite's usual access to files on Unix. The others have no locks between processes, or no shared
/// memory, without which there is no write-ahead log.
const VFS: &str = "unix";
/// What is added to the path of a database for the names of its files: itself, its write-ahead log, and
/// the index of the log.
pub const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// A database file and the options of the URL.
#[derive(Clone)]
pub struct DatabaseFile {
    options: SqliteConnectOptions,
    /// The identities of the file, the log and its index; set when the file is open.
    identity: Arc<OnceLock<[Option<FileIdentity>; 3]>>,
}

/// Device and inode.
type FileIdentity = (u64, u64);

/// The mode of a URL.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Read,
    Write,
    Create,
}

/// Whether the options name a file. A database in memory or a temporary one is none.
pub fn is_file(options: &SqliteConnectOptions) -> bool {
    let name = options.get_filename().to_string_lossy();
    let is_named = !name.is_empty() && name != ":memory:" && !name.starts_with("file:");
    is_named && !has_parameter(options, "mode", "memory") && !has_parameter(options, "vfs", "memdb")
}

/// Whether the URL has a parameter with this value.
fn has_parameter(options: &SqliteConnectOptions, name: &str, value: &str) -> bool {
    parameter(options, name).is_some_and(|it| it == value)
}

/// The value of a parameter of the URL. sqlx's options do not say so directly.
fn parameter(options: &SqliteConnectOptions, name: &str) -> Option<String> {
    // Some file names cannot be written as a URL.
    let url = options.clone().filename("file").to_url_lossy();
    url.query_pairs().find(|pair| pair.0 == name).map(|(_, value)| value.into_owned())
}

/// The path of a file that SQLite makes beside the database's.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

impl DatabaseFile {
    /// Checks that the file can be opened, from outside. Opens nothing yet.
    ///
    /// The file is named without symbolic links from here on: SQLite follows them too, and makes the log
    /// beside the file that they lead to.
    pub fn new(options: SqliteConnectOptions, target: TargetSession) -> Result<Self, ConnectError> {
        let named = options.get_filename().to_owned();
        let options = options.filename(regular_file::real_path(&named));
        let file = Self { options, identity: Arc::default() };
        match file.obstacle(target) {
            Some(reason) => Err(cannot_open(&named, reason)),
            None => Ok(file),
        }
    }

    pub fn path(&self) -> &Path {
        self.options.get_filename()
    }

    fn mode(&self) -> Mode {
        if has_parameter(&self.options, "mode", "rwc") {
            Mode::Create
        } else if has_parameter(&self.options, "mode", "ro") || self.is_immutable() {
            Mode::Read
        } else {
            Mode::Write
        }
    }

    /// Whether the URL opens the file for reading only.
    pub fn is_read_only(&self) -> bool {
        self.mode() == Mode::Read
    }

    fn is_immutable(&self) -> bool {
        has_parameter(&self.options, "immutable", "true")
    }

    /// The same file, opened as immutable, which needs no right to write beside it. None if the
    /// file has a log, which would be ignored.
    pub fn as_immutable(&self) -> Option<Self> {
        let may_be = self.is_read_only() && !self.is_immutable() && !self.has_log();
        let options = self.options.clone().immutable(true);
        may_be.then(|| Self { options, identity: Arc::default() })
    }

    /// The same file, to be opened again after all connections were closed: with the last one SQLite has
    /// removed the log, or is about to.
    pub fn reopened(&self) -> Self {
        Self { options: self.options.clone(), identity: Arc::default() }
    }

    /// Why the file cannot be opened, as far as can be seen from outside.
    fn obstacle(&self, target: TargetSession) -> Option<String> {
        let (path, mode) = (self.path(), self.mode());
        let folder = self.folder();
        if mode == Mode::Read && target == TargetSession::Primary {
            let reason = "mode=ro and immutable=1 are for `verify` and `export`, which only read; \
                 use mode=rw for changes, or mode=rwc to create a missing file also";
            return Some(reason.to_owned());
        }
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Some("it is a folder".to_owned()),
            Ok(_) => {
                let denied = accessible(path, Access::READ_OK).err();
                denied.map(|why| format!("this user may not read it ({why})"))
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Some(error.to_string()),
            Err(_) if !folder.is_dir() => {
                Some(format!("its folder {} does not exist", folder.display()))
            }
            Err(_) if mode != Mode::Create => {
                Some(
                    "the file does not exist: `serve`, `import` and `migrate up` create it, with ?mode=rwc as in \
                     the default URL"
                        .to_owned(),
                )
            }
            Err(_) => None,
        }
        .or_else(|| self.shared_place())
        .or_else(|| {
            (mode != Mode::Read).then(|| self.not_writable()).flatten().map(|reason| {
                if target == TargetSession::PreferPrimary {
                    format!("{reason}: use ?mode=ro to only read it")
                } else {
                    reason
                }
            })
        })
    }

    /// Why the file cannot be used where it is. An immutable file needs no locks.
    fn shared_place(&self) -> Option<String> {
        if let Some(vfs) = parameter(&self.options, "vfs").filter(|vfs| vfs != VFS) {
            return Some(format!(
                "vfs={vfs} is not supported: only {VFS}, the default, has the locks and the log that \
                 several processes need"
            ));
        }
        if self.is_immutable() {
            return None;
        }
        if let Some(why) = self.other_name() {
            return Some(why);
        }
        let place = if self.path().exists() { self.path().to_owned() } else { self.folder() };
        shared_file_system(&place).map(|name| {
            format!(
                "it is on a network file system ({name}), where SQLite's locks and shared memory \
                 do not work between machines: use a disk of this machine, or PostgreSQL"
            )
        })
    }

    /// Why the file may be open under another name. SQLite looks for the log and the locks beside the name
    /// under which it opened the file, so servers under two names overwrite each other's changes.
    fn other_name(&self) -> Option<String> {
        let links = fs::metadata(self.path()).map_or(1, |metadata| metadata.nlink());
        if links > 1 {
            return Some(format!(
                "it has {links} names (hard links), and its write-ahead log can be beside one only: \
                 keep one name"
            ));
        }
        is_mount_point(self.path()).then(|| {
            "it is mounted by itself, and its write-ahead log would be outside of what is mounted: \
             mount its folder"
                .to_owned()
        })
    }

    /// Why the file cannot be written.
    fn not_writable(&self) -> Option<String> {
        let path = self.path();
        if path.exists()
            && let Err(why) = accessible(path, Access::WRITE_OK)
        {
            return Some(format!("this user may not write it ({why})"));
        }
        let folder = self.folder();
        let denied = accessible(&folder, Access::WRITE_OK | Access::EXEC_OK).err();
        denied.map(|why| {
            let folder = folder.display();
            format!("this user may not create files in its folder {folder}, where its log must be ({why})")
        })
    }

    fn folder(&self) -> PathBuf {
        regular_file::folder(self.path()).to_owned()
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        beside(self.path(), suffix)
    }

    /// Remembers the identities of the open file.
    pub fn remember(&self) {
        // Once only.
        let _ = self.identity.set(self.identities());
    }

    fn identities(&self) -> [Option<FileIdentity>; 3] {
        SUFFIXES.map(|suffix| {
            let metadata = fs::metadata(self.beside(suffix)).ok()?;
            Some((metadata.dev(), metadata.ino()))
        })
    }

    /// Checks that the open file is still at its path: three `stat` calls, some microseconds.
    pub fn check(&self) -> Result<(), String> {
        let Some(known) = self.identity.get() else { return Ok(()) };
        let there = self.identities();
        let wrong = known.iter().zip(there).position(|(known, there)| *known != there);
        let Some(wrong) = wrong else { return Ok(()) };
        let (name, fate) = (
            self.beside(SUFFIXES[wrong]).display().to_string(),
            if there[wrong].is_some() { "is not the file that is open" } else { "is gone" },
        );
        Err(format!("the database file was moved, replaced or deleted: {name} {fate}"))
    }

    /// Checks that the open file itself is still at its path, whatever has become of its log.
    pub fn check_alone(&self) -> Result<(), String> {
        match self.identity.get() {
            Some([known, ..]) if *known != self.identities()[0] => self.check(),
            _ => Ok(()),
        }
    }

    /// Checks that changes can be made: the open file is at its path and writable.
    pub fn check_writable(&self) -> Result<(), String> {
        self.check()?;
        let reason = self.not_writable().map(|reason| {
            format!("the database file {} cannot be written: {reason}", self.path().display())
        });
        reason.map_or(Ok(()), Err)
    }

    /// Opens the write-ahead log, for locks on it. None if there is none, or if it cannot be read. SQLite
    /// has no locks on the log, so that closing it releases none.
    pub fn open_log(&self) -> Option<File> {
        File::open(self.beside("-wal")).ok()
    }

    /// Whether the write-ahead log has anything. The last connection to be closed removes it.
    pub fn has_log(&self) -> bool {
        fs::metadata(self.beside("-wal")).is_ok_and(|log| log.len() > 0)
    }

    /// Whether the log is longer than SQLite would leave it.
    pub fn has_long_log(&self) -> bool {
        fs::metadata(self.beside("-wal")).is_ok_and(|log| log.len() > LOG_BYTES_MAX)
    }

    /// The options of a connection for a role.
    pub fn options(&self, role: Role) -> SqliteConnectOptions {
        let options = self.options.clone();
        if self.is_read_only() {
            return options.read_only(true).create_if_missing(false).busy_timeout(BUSY_TIMEOUT);
        }
        let busy_timeout = match role {
            Role::Writer => WRITER_BUSY_TIMEOUT,
            Role::Probe => Duration::ZERO,
            Role::Reader | Role::Maintenance | Role::Snapshot => BUSY_TIMEOUT,
        };
        // The file has its log when readers are opened, and another file must not get one.
        let options = match role {
            Role::Reader => options,
            _ => options.journal_mode(SqliteJournalMode::Wal),
        };
        let options = options
            // NORMAL would lose acknowledged changes when the power fails.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(busy_timeout);
        match role {
            Role::Reader => options.pragma("query_only", "on"),
            Role::Writer => options
                .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
                .pragma("journal_size_limit", LOG_KEPT_BYTES)
                .pragma("cache_size", CACHE_SIZE),
            Role::Probe | Role::Maintenance | Role::Snapshot => options,
        }
    }
}

fn accessible(path: &Path, access: Access) -> io::Result<()> {
    Ok(accessat(CWD, path, access, AtFlags::EACCESS)?)
}

#[cfg(test)]
mod tests {
    use sea_orm::ConnectionTrait;
    use tempfile::TempDir;

    use crate::storage::{Store, connect::session::Role, dialect::DatabaseKind};

    /// The number of `PRAGMA synchronous = FULL`.
    const FULL: i32 = 2;

    /// With NORMAL, the write-ahead log is not on the disk when a commit is confirmed.
    #[tokio::test]
    async fn a_commit_waits_for_the_disk() {
        let folder = TempDir::new().unwrap();
        let store = Store::for_tests(&folder).await;
        for role in [Role::Writer, Role::Maintenance] {
            let connection = store.open(role).await.unwrap();
            let question = DatabaseKind::Sqlite.statement("PRAGMA synchronous", []);
            let row = connection.query_one_raw(question).await.unwrap().unwrap();
            let synchronous: i32 = row.try_get_by_index(0).unwrap();
            assert_eq!(synchronous, FULL, "{role:?}");
        }
    }
}
