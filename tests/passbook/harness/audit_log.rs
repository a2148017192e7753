//! Servers with an audit log, and its lines.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::harness::{
    PATIENCE, Server, TestDatabase,
    credentials::{Callers, identity},
    make_pipe,
};

/// The file of an audit log.
pub struct Audit {
    pub folder: TempDir,
}

impl Audit {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("audit.jsonl")
    }

    pub fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap_or_default()
    }

    /// All lines. Each is an object, with a time.
    pub fn lines(&self) -> Vec<Value> {
        let text = self.text();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect();
        assert!(lines.iter().all(|line| line["time"].is_string()), "{text}");
        lines
    }

    pub fn events(&self, event: &str) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line["event"] == event).collect()
    }

    /// The arguments of a server with this log.
    pub fn arguments(&self, more: &[&str]) -> Vec<String> {
        let path = self.path().to_str().expect("a plain path").to_owned();
        let arguments = ["--audit-file".to_owned(), path].into_iter();
        arguments.chain(more.iter().map(|it| (*it).to_owned())).collect()
    }

    /// A server with this log that authenticates its callers.
    pub async fn serve(&self, database: &TestDatabase, callers: &Callers, more: &[&str]) -> Server {
        let arguments = self.arguments(more);
        callers.serve(database, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    /// The log is this file from now on: the path is a link.
    pub fn link_to(&self, file: impl AsRef<Path>) {
        let next = self.folder.path().join("next");
        symlink(file, &next).expect("a link");
        fs::rename(next, self.path()).expect("the link replaces the other one");
    }
}

/// An audit log in a pipe that is full: a write hangs, as on a network file system.
pub struct FullPipe {
    pub file: fs::File,
}

impl FullPipe {
    const SIZE: usize = 64 * 1024;

    pub fn new(path: &Path) -> Self {
        make_pipe(path);
        let file = fs::OpenOptions::new().read(true).write(true).open(path);
        let mut file = file.expect("the pipe");
        file.write_all(&vec![b'\n'; Self::SIZE]).expect("it is full now");
        Self { file }
    }

    /// Makes room, so that the lines that follow are written.
    pub fn drain(&mut self) {
        self.file.read_exact(&mut vec![0; Self::SIZE]).expect("all of it");
    }
}

pub fn callers() -> Callers {
    let policy = [
        identity("all", &["*"], &[""]),
        identity("east", &["read", "write"], &["east:"]),
        identity("a", &["read"], &[""]),
    ];
    let tokens = [("all", "all-token"), ("east", "east-token"), ("a", "a-token")];
    Callers::new(&tokens, &policy.concat())
}

/// Ends the server, so that all lines are written.
pub async fn end(mut server: Server) {
    server.terminate();
    assert!(server.wait(PATIENCE).await.expect("it ends").success(), "{}", server.log());
}

pub fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    line[field].as_str().unwrap_or_default()
}

pub fn sha256_hex(text: &str, digits: usize) -> String {
    let hex: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    hex[..digits].to_owned()
}
