//! The SQLite file: the server uses the file at its path, reports why it cannot write, and bounds
//! the WAL.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use sea_orm::ConnectionTrait;
use tempfile::TempDir;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::harness::*;

/// The bound of `storage::file`, plus the pages that one commit may add after a check.
const LOG_BYTES_MAX: u64 = (96 + 32) << 20;

/// A server with a file in its own folder, and an account with an acknowledged balance of 3.00.
struct Served {
    folder: TempDir,
    server: Server,
    _slot: slots::Slot,
}

impl Served {
    async fn start() -> Self {
        Self::start_at("ledger/a.db").await
    }

    /// The file is `ledger/a.db`, also if a link leads to it.
    async fn start_at(name: &str) -> Self {
        let slot = slots::take(Load::Light).await;
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("ledger")).expect("a folder");
        for (target, link) in [("ledger/a.db", "link.db"), ("link.db", "link-to-link.db")] {
            symlink(target, folder.path().join(link)).expect("a link");
        }
        let server = Server::start_at(&url(&folder.path().join(name)), &[]).await;
        open_funded(&server.client(), "alice", "3").await;
        Self { folder, server, _slot: slot }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("ledger").join(name)
    }

    /// Waits until the server is not ready and rejects changes as not applied.
    async fn applies_no_change(&self) {
        becomes(&self.server, "", ServingStatus::NotServing).await;
        let mut status = Status::ok("not called yet");
        eventually("the server answers before tonic's own timer", async || {
            let request = within(seconds(2), deposit("alice", "1"));
            let answer = self.server.client().deposit(request).await;
            status = answer.expect_err("not into this file");
            !reason_if_any(&status).is_empty()
        })
        .await;
        let codes = [Code::Unavailable, Code::DeadlineExceeded];
        assert!(codes.contains(&status.code()), "{status:?}");
        assert_eq!(outcome(&status), "not_applied", "{status:?}");
        let log = self.server.log();
        assert!(log.contains("was moved, replaced or deleted"), "{log}");
    }

    async fn end(&mut self) {
        self.server.terminate();
        let ended = self.server.wait(seconds(20)).await;
        assert!(ended.is_some_and(|status| status.success()), "{}", self.server.log());
    }
}

fn url(path: &Path) -> String {
    format!("sqlite://{}?mode=rwc", path.display())
}

/// The balance of an account in this file, from another server.
async fn balance_in(path: &Path, account_id: &str) -> String {
    let server = Server::start_at(&url(path), &[]).await;
    balance(&server.client(), account_id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_replaces_the_open_database_file_is_not_touched() {
    let mut served = Served::start().await;
    let backup = served.folder.path().join("backup.db");
    let mut other = Server::start_at(&url(&backup), &[]).await;
    open_funded(&other.client(), "restored", "7").await;
    other.terminate();
    other.wait(seconds(20)).await.expect("it ends");

    fs::rename(&backup, served.path("a.db")).expect("it is moved");
    served.applies_no_change().await;
    served.end().await;

    let path = served.path("a.db");
    let url = format!("sqlite://{}", path.display());
    let verified = passbook(&["verify", "--database-url", &url]).await.must_succeed();
    assert!(verified.stdout.contains("verified: 1 accounts, 1 entries"), "{}", verified.stdout);
    assert_eq!(balance_in(&path, "restored").await, "7.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_once_the_file_is_deleted() {
    let mut served = Served::start().await;
    for name in ["a.db", "a.db-wal", "a.db-shm"] {
        fs::remove_file(served.path(name)).expect("it is removed");
    }
    served.applies_no_change().await;
    served.end().await;
    assert!(!served.path("a.db").exists(), "no new one was requested");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_moved_has_all_that_was_acknowledged() {
    let mut served = Served::start().await;
    let moved = served.folder.path().join("moved");
    fs::rename(served.folder.path().join("ledger"), &moved).expect("it is moved");
    served.applies_no_change().await;
    served.end().await;
    assert!(!served.folder.path().join("ledger").exists());
    fs::remove_file(moved.join("a.db-wal")).ok();
    assert_eq!(balance_in(&moved.join("a.db"), "alice").await, "3.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_database_file_is_complete_and_served_again_when_back() {
    let mut served = Served::start().await;
    let moved = served.folder.path().join("moved.db");
    fs::rename(served.path("a.db"), &moved).expect("it is moved");
    served.applies_no_change().await;

    fs::rename(&moved, served.path("a.db")).expect("it is moved back");
    becomes(&served.server, "", ServingStatus::Serving).await;
    served.server.client().deposit(deposit("alice", "1")).await.expect("applied");

    fs::rename(served.path("a.db"), &moved).expect("it is moved");
    served.applies_no_change().await;
    served.end().await;
    assert_eq!(balance_in(&moved, "alice").await, "4.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_wal_is_already_in_the_database_file() {
    let mut served = Served::start().await;
    fs::remove_file(served.path("a.db-wal")).expect("it is removed");
    served.applies_no_change().await;
    served.end().await;
    assert_eq!(balance_in(&served.path("a.db"), "alice").await, "3.00");
}

/// SQLite makes the log beside the file that a link leads to.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_wal_is_noticed_also_behind_links() {
    let mut served = Served::start_at("link-to-link.db").await;
    for name in ["a.db-wal", "a.db-shm"] {
        fs::remove_file(served.path(name)).expect("it is removed");
    }
    served.applies_no_change().await;
    served.end().await;
    assert_eq!(balance_in(&served.path("a.db"), "alice").await, "3.00");
}

/// A wrapper that runs passbook as a user other than root. None if that is impossible.
fn as_somebody(folder: &Path) -> Option<PathBuf> {
    let copy = folder.join("passbook");
    fs::copy(program(), &copy).expect("a copy");
    if Command::new("id").arg("-u").output().ok()?.stdout != b"0\n" {
        return Some(copy);
    }
    let script = folder.join("as-nobody");
    let text = format!(
        "#!/bin/sh\nexec setpriv --reuid=65534 --regid=65534 --clear-groups {} \"$@\"\n",
        copy.display()
    );
    fs::write(&script, text).expect("a script");
    set_mode(&script, 0o755);
    set_mode(folder, 0o755);
    Command::new(&script).arg("--version").output().ok()?.status.success().then_some(script)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its rights are set");
}

fn give(path: &Path) {
    // Without root the file already belongs to this user.
    let _ = std::os::unix::fs::chown(path, Some(65534), Some(65534));
}

/// A complete ledger without a WAL, in a folder of this owner.
async fn stopped_ledger(folder: &Path) -> PathBuf {
    let ledger = folder.join("ledger");
    fs::create_dir(&ledger).expect("a folder");
    let path = ledger.join("a.db");
    let mut server = Server::start_at(&url(&path), &[]).await;
    open_funded(&server.client(), "alice", "3").await;
    server.terminate();
    server.wait(seconds(20)).await.expect("it ends");
    give(&ledger);
    // Its WAL, too, if the process ended before its last connection was closed.
    for file in fs::read_dir(&ledger).expect("the folder") {
        give(&file.expect("a file").path());
    }
    path
}

const NO_SETPRIV: &str = "this is root, and setpriv cannot make it somebody else";

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_file_is_readable_with_mode_ro_and_not_served() {
    let _slot = slots::take(Load::Light).await;
    let folder = tempfile::tempdir().expect("a folder");
    let Some(program) = as_somebody(folder.path()) else { return skipped(NO_SETPRIV) };
    let path = stopped_ledger(folder.path()).await;
    let ledger = path.parent().expect("a folder").to_owned();
    let (rwc, ro) = (url(&path), format!("sqlite://{}?mode=ro", path.display()));
    let run = async |command: &[&str], url: &str| {
        passbook_of(&program, &[command, &["--database-url", url]].concat()).await
    };
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let begin = format!("cannot open the database file {}: ", path.display());

    for (file_mode, folder_mode, why) in [
        (0o444, 0o755, "this user may not write it".to_owned()),
        (
            0o644,
            0o555,
            format!("this user may not create files in its folder {}", ledger.display()),
        ),
        (0o444, 0o555, "this user may not write it".to_owned()),
    ] {
        set_mode(&path, file_mode);
        set_mode(&ledger, folder_mode);
        let outcome = run(&serve, &rwc).await;
        assert!(outcome.must_fail(1).starts_with(&(begin.clone() + &why)), "{}", outcome.stderr);
        let outcome = run(&["verify"], &rwc).await;
        assert!(
            outcome.must_fail(1).ends_with("use ?mode=ro to only read it"),
            "{}",
            outcome.stderr
        );

        for command in ["verify", "export"] {
            run(&[command], &ro).await.must_succeed();
        }
        let status = run(&["migrate", "status"], &ro).await.must_succeed();
        assert!(status.stdout.contains("applied"), "{}", status.stdout);
        for command in [&serve[..], &["migrate", "up"], &["import"]] {
            run(command, &ro).await.must_fail_with(1, "use mode=rw for changes");
        }
    }
    set_mode(&ledger, 0o755);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_not_ready_when_its_file_becomes_read_only() {
    let slot = slots::take(Load::Light).await;
    let folder = tempfile::tempdir().expect("a folder");
    let Some(program) = as_somebody(folder.path()) else { return skipped(NO_SETPRIV) };
    let path = stopped_ledger(folder.path()).await;
    let server = Server::start_of(&program, &TestDatabase::outside(&url(&path), slot)).await;
    assert_eq!(serving_status(&server, "").await, ServingStatus::Serving);

    set_mode(&path, 0o444);
    let is = async |wanted| {
        eventually("it is as it should be", async || serving_status(&server, "").await == wanted)
            .await;
    };
    is(ServingStatus::NotServing).await;
    assert!(server.log().contains("this user may not write it"), "{}", server.log());
    set_mode(&path, 0o644);
    is(ServingStatus::Serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_or_folder_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    for (path, parameters, why) in [
        (
            at("a.db"),
            "",
            "the file does not exist: `serve`, `import` and `migrate up` create it".to_owned(),
        ),
        (at("a.db"), "?mode=ro", "the file does not exist".to_owned()),
        (at("none/a.db"), "?mode=rwc", format!("its folder {} does not exist", at("none"))),
        (at(""), "?mode=rwc", "it is a folder".to_owned()),
    ] {
        let url = format!("sqlite://{path}{parameters}");
        let outcome = passbook(&["verify", "--database-url", &url]).await;
        let line = format!("cannot open the database file {path}: {why}");
        assert!(outcome.must_fail(1).starts_with(&line), "{url}: {}", outcome.stderr);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "{url}");
    }
    // Only `serve`, `migrate up` and `import` begin a ledger.
    let url = format!("sqlite://{}?mode=rwc", at("a.db"));
    for command in [&["verify"][..], &["export"], &["migrate", "status"]] {
        let outcome = passbook(&[command, &["--database-url", &url]].concat()).await;
        assert!(outcome.must_fail(1).contains("does not exist"), "{}", outcome.stderr);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "{command:?}");
    }
    for url in ["sqlite://", "sqlite://%3Amemory%3A", "sqlite:?mode=rwc", "sqlite://x?vfs=memdb"] {
        let outcome = passbook(&["serve", "--listen", "127.0.0.1:0", "--database-url", url]).await;
        assert!(outcome.must_fail(2).contains("must name a file"), "{url}: {}", outcome.stderr);
    }
}

/// Overlapping reads: each begins before the last one has ended.
#[tokio::test(flavor = "multi_thread")]
async fn the_wal_stays_bounded_while_reads_overlap() {
    let database = TestDatabase::create_for(Kind::Sqlite, Load::Heavy).await;
    let path = database.url().strip_prefix("sqlite://").and_then(|it| it.strip_suffix("?mode=rwc"));
    let log = PathBuf::from(format!("{}-wal", path.expect("a file")));
    let server = Server::start(&database).await;
    open_funded(&server.client(), "alice", "1").await;
    database.execute("CREATE TABLE ballast (bytes blob); PRAGMA synchronous = off").await;
    let mut readers = tokio::task::JoinSet::new();
    for number in 0..8 {
        let reader = database.connect().await;
        readers.spawn(async move {
            tokio::time::sleep(ms(10 * number)).await;
            loop {
                for sql in ["BEGIN", "SELECT count(*) FROM accounts"] {
                    reader.execute_unprepared(sql).await.expect("a read");
                }
                tokio::time::sleep(ms(80)).await;
                reader.execute_unprepared("COMMIT").await.expect("a read");
            }
        });
    }
    let length = || fs::metadata(&log).map_or(0, |it| it.len());

    for _ in 0..2 {
        let end = tokio::time::Instant::now() + PATIENCE;
        // Unlike a server, this writes without a pause, and so beyond the bound.
        while length() < LOG_BYTES_MAX {
            assert!(readers.try_join_next().is_none(), "a reader has failed");
            assert!(tokio::time::Instant::now() < end, "{} bytes in {PATIENCE:?}", length());
            database.execute("INSERT INTO ballast VALUES (zeroblob(4000000))").await;
            database.execute("DELETE FROM ballast").await;
        }
        eventually("the log begins anew", async || length() < LOG_BYTES_MAX / 2).await;
    }
    server.client().deposit(deposit("alice", "1")).await.expect("applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_read_does_not_block_changes() {
    let (database, _server, client) = start_loaded_server(Kind::Sqlite).await;
    open_funded(&client, "alice", "1").await;
    let reader = database.connect().await;
    for sql in ["BEGIN", "SELECT count(*) FROM accounts"] {
        reader.execute_unprepared(sql).await.expect("a read");
    }
    database.execute("CREATE TABLE ballast (bytes blob); PRAGMA synchronous = off").await;
    for _ in 0..40 {
        database.execute("INSERT INTO ballast VALUES (zeroblob(4000000))").await;
    }

    // Past the next checkpoint.
    let end = tokio::time::Instant::now() + seconds(12);
    while tokio::time::Instant::now() < end {
        let request = within(seconds(2), deposit("alice", "1"));
        client.deposit(request).await.expect("it is made in time");
        tokio::time::sleep(ms(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_two_names_or_without_locks_is_not_served() {
    let _slot = slots::take(Load::Light).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = stopped_ledger(folder.path()).await;
    let url = url(&path);
    for vfs in ["unix-none", "unix-dotfile", "unix-excl", "nope"] {
        let url = format!("{url}&vfs={vfs}");
        for command in
            [&["serve", "--listen", "127.0.0.1:0"][..], &["config", "check"], &["verify"]]
        {
            let outcome = passbook(&[command, &["--database-url", &url]].concat()).await;
            assert!(matches!(outcome.code, Some(1 | 2)), "{command:?}: {}", outcome.stderr);
            assert!(outcome.stderr.contains("vfs="), "{command:?}: {}", outcome.stderr);
        }
    }
    drop(Server::start_at(&format!("{url}&vfs=unix"), &[]).await);

    std::fs::hard_link(&path, folder.path().join("other.db")).expect("a second name");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--database-url", &url];
    passbook(&serve).await.must_fail_with(1, "hard links");
    passbook(&["config", "check", "--database-url", &url]).await.must_fail_with(2, "hard links");
}
