//! The file of a SQLite database: whether it can be used at all, and whether the one at the path
//! is still the one that is open.
//!
//! SQLite keeps writing to a file that was moved away or deleted, and takes whatever log lies
//! beside a file for that file's. So a file is known by its device and inode, and so are the log
//! and its index; where one of them is not at the path any more, nothing is opened there, nothing
//! is changed, and the log is folded into the file that it belongs to.
//!
//! The file is never opened but by SQLite: closing it once would give back all of its locks.

use std::{
    ffi::OsString,
    fs, io,
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

use crate::storage::connect::{
    refusal::{ConnectError, cannot_open},
    session::Role,
    target::TargetSession,
};

/// How long SQLite itself waits for the write lock before the worker looks up and tries again.
/// Short, because SQLite polls with growing pauses, and two busy processes are served more
/// evenly by frequent tries.
const WRITER_BUSY_TIMEOUT: Duration = Duration::from_millis(20);
/// Readers and migrations meet a lock only in rare moments (recovery, another migration).
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Pages of 4 KiB in the write-ahead log before they are moved into the database's file. A page
/// that changes often is moved once for many changes; the log takes 64 MiB on the disk.
const CHECKPOINT_PAGES: &str = "16384";
/// To how many bytes the log's file is cut when it begins anew: what it has until a checkpoint.
const LOG_KEPT_BYTES: &str = "67108864";
/// Longer, in bytes, the log is only where readers overlap, so that it never begins anew.
const LOG_BYTES_MAX: u64 = 96 << 20;
/// What the writer keeps in memory of the database, in KiB (SQLite takes a negative number for
/// that): the pages that a batch changes, or they go to the disk before the commit.
const CACHE_SIZE: &str = "-16384";

/// See the module.
#[derive(Clone)]
pub(in crate::storage) struct DatabaseFile {
    options: SqliteConnectOptions,
    /// Known when it is open.
    identity: Arc<OnceLock<[Option<FileIdentity>; 3]>>,
}

/// Device and inode.
type FileIdentity = (u64, u64);

/// How a URL wants a file opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Read,
    Write,
    Create,
}

/// Whether these options are of a file; a database in memory, or one that SQLite makes for a
/// connection and deletes with it, is none.
pub(in crate::storage) fn is_file(options: &SqliteConnectOptions) -> bool {
    let name = options.get_filename().to_string_lossy();
    let is_named = !name.is_empty() && name != ":memory:" && !name.starts_with("file:");
    is_named && !has_parameter(options, "mode", "memory") && !has_parameter(options, "vfs", "memdb")
}

/// What a URL has set; the options do not tell otherwise.
fn has_parameter(options: &SqliteConnectOptions, name: &str, value: &str) -> bool {
    // With a name that any URL can have.
    let url = options.clone().filename("file").to_url_lossy();
    url.query_pairs().any(|pair| pair.0 == name && pair.1 == value)
}

impl DatabaseFile {
    /// Of these options; nothing is opened yet.
    ///
    /// # Errors
    /// It cannot be opened as is wanted, and what is missing.
    pub(in crate::storage) fn new(
        options: SqliteConnectOptions,
        target: TargetSession,
    ) -> Result<Self, ConnectError> {
        let file = Self { options, identity: Arc::default() };
        match file.obstacle(target) {
            Some(reason) => Err(cannot_open(file.path(), reason)),
            None => Ok(file),
        }
    }

    pub(in crate::storage) fn path(&self) -> &Path {
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

    /// Whether it is opened for reading only.
    pub(in crate::storage) fn is_read_only(&self) -> bool {
        self.mode() == Mode::Read
    }

    fn is_immutable(&self) -> bool {
        has_parameter(&self.options, "immutable", "true")
    }

    /// The same, read as a file that nobody changes: that needs no right to write anything beside
    /// it. None if it has a log that would be left out.
    pub(in crate::storage) fn as_immutable(&self) -> Option<Self> {
        let has_log = fs::metadata(self.beside("-wal")).is_ok_and(|log| log.len() > 0);
        let may_be = self.is_read_only() && !self.is_immutable() && !has_log;
        let options = self.options.clone().immutable(true);
        may_be.then(|| Self { options, identity: Arc::default() })
    }

    /// What keeps it from being opened, as far as can be seen from outside.
    fn obstacle(&self, target: TargetSession) -> Option<String> {
        let (path, mode) = (self.path(), self.mode());
        let folder = self.folder();
        if mode == Mode::Read && target == TargetSession::Primary {
            let reason = "mode=ro and immutable=1 are for `verify` and `export`, which only read; \
                 mode=rw is for changes, and mode=rwc makes a file that is not there";
            return Some(reason.to_owned());
        }
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Some("it is a folder".to_owned()),
            Ok(_) => {
                let denied = accessible(path, Access::READ_OK).err();
                denied.map(|why| format!("this user may not read it ({why})"))
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Some(error.to_string()),
            Err(_) if !folder.is_dir() => Some(format!("there is no folder {}", folder.display())),
            Err(_) if mode != Mode::Create => {
                Some("there is no such file (?mode=rwc makes a new one)".to_owned())
            }
            Err(_) => None,
        }
        .or_else(|| {
            (mode != Mode::Read).then(|| self.not_writable()).flatten().map(|reason| {
                if target == TargetSession::Any {
                    format!("{reason}: ?mode=ro only reads it")
                } else {
                    reason
                }
            })
        })
    }

    /// Why it cannot be written to.
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
            format!("this user may not make files in its folder {folder}, as its log ({why})")
        })
    }

    fn folder(&self) -> PathBuf {
        let parent = self.path().parent().filter(|it| !it.as_os_str().is_empty());
        parent.unwrap_or(Path::new(".")).to_owned()
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = OsString::from(self.path());
        name.push(suffix);
        name.into()
    }

    /// What is open now is what has to be there from now on.
    pub(in crate::storage) fn remember(&self) {
        // Once only.
        let _ = self.identity.set(self.identities());
    }

    fn identities(&self) -> [Option<FileIdentity>; 3] {
        ["", "-wal", "-shm"].map(|suffix| {
            let metadata = fs::metadata(self.beside(suffix)).ok()?;
            Some((metadata.dev(), metadata.ino()))
        })
    }

    /// Whether what is open is what is at the path: three looks at the file system, some
    /// microseconds.
    ///
    /// # Errors
    /// Why it is not.
    pub(in crate::storage) fn check(&self) -> Result<(), String> {
        let Some(known) = self.identity.get() else { return Ok(()) };
        let there = self.identities();
        let wrong = known.iter().zip(there).position(|(known, there)| *known != there);
        let Some(wrong) = wrong else { return Ok(()) };
        let (name, fate) = (
            self.beside(["", "-wal", "-shm"][wrong]).display().to_string(),
            if there[wrong].is_some() { "is not the file that is open" } else { "is gone" },
        );
        Err(format!("the database file was moved, replaced or deleted: {name} {fate}"))
    }

    /// Whether changes can be made: it is what is open, and can be written to.
    ///
    /// # Errors
    /// Why they cannot.
    pub(in crate::storage) fn check_writable(&self) -> Result<(), String> {
        self.check()?;
        let reason = self.not_writable().map(|reason| {
            format!("the database file {} cannot be written: {reason}", self.path().display())
        });
        reason.map_or(Ok(()), Err)
    }

    /// Whether the log has become longer than it is by itself.
    pub(in crate::storage) fn has_long_log(&self) -> bool {
        fs::metadata(self.beside("-wal")).is_ok_and(|log| log.len() > LOG_BYTES_MAX)
    }

    /// For a connection of this role.
    pub(in crate::storage) fn options(&self, role: Role) -> SqliteConnectOptions {
        let options = self.options.clone();
        if self.is_read_only() {
            return options.read_only(true).create_if_missing(false).busy_timeout(BUSY_TIMEOUT);
        }
        let busy_timeout = match role {
            Role::Writer => WRITER_BUSY_TIMEOUT,
            Role::Probe => Duration::ZERO,
            Role::Reader | Role::Maintenance | Role::Snapshot => BUSY_TIMEOUT,
        };
        // Readers come after: the file has its log already, and another file is not to get one.
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
