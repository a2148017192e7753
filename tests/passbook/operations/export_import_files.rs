//! Exports that other programs have rewritten, and files that are no exports.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::harness::*;

on_both_databases! {
    an_export_survives_what_editors_do_to_text,
    a_file_that_is_no_export_is_an_error_with_advice,
}

async fn import(database: &TestDatabase, content: &[u8]) -> Outcome {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), content).expect("it is written");
    let path = file.path().to_string_lossy().into_owned();
    database.passbook(&["import", "--input", &path]).await
}

async fn export_of_two_accounts(database: &TestDatabase) -> String {
    let server = Server::start(database).await;
    open_funded(&server.client(), "alice", "5").await;
    open(&server.client(), "bob").await;
    database.passbook(&["export"]).await.must_succeed().stdout
}

async fn an_export_survives_what_editors_do_to_text(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let text = export_of_two_accounts(&database).await;
    for changed in [
        format!("\u{feff}{text}"),
        text.replace('\n', "\r\n"),
        format!("\u{feff}{}\r\n\r\n", text.replace('\n', "\r\n")),
        format!("{text}\n \n"),
        text.trim_end().to_owned(),
    ] {
        let other = database.create_beside(kind).await;
        import(&other, changed.as_bytes()).await.must_succeed();
        assert_eq!((other.count("accounts").await, other.count("entries").await), (2, 1));
    }
    let other = database.create_beside(kind).await;
    let blank = text.replacen('\n', "\n\n", 1);
    import(&other, blank.as_bytes()).await.must_fail_with(1, "line 2: is empty");
    import(&other, &text.as_bytes()[..text.len() - 20]).await.must_fail_with(1, "was cut off");
    assert_eq!(other.count("accounts").await, 0);
}

async fn a_file_that_is_no_export_is_an_error_with_advice(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let utf_16 = |mark: &[u8], bytes: fn(u16) -> [u8; 2]| {
        let units = "{\"type\":\"header\"}\n".encode_utf16().flat_map(bytes);
        [mark.to_vec(), units.collect()].concat()
    };
    for (content, words) in [
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00".to_vec(), "gzip -dc FILE | passbook import"),
        (b"\x28\xb5\x2f\xfd\x04".to_vec(), "zstd"),
        (b"\xfd7zXZ\0\x00".to_vec(), "xz"),
        (b"PK\x03\x04\x14".to_vec(), "zip"),
        (utf_16(b"\xff\xfe", u16::to_le_bytes), "UTF-16: iconv"),
        (utf_16(b"\xfe\xff", u16::to_be_bytes), "UTF-16: iconv"),
        (utf_16(b"", u16::to_le_bytes), "UTF-16: iconv"),
        (
            b"SQLite format 3\0\x10\x00".to_vec(),
            "SQLite database, not an export: make one with passbook export",
        ),
        (b"PGDMP\x01\x0e".to_vec(), "pg_restore"),
        (b"".to_vec(), "the input is empty"),
        (b"\n\n".to_vec(), "the input is empty"),
    ] {
        import(&database, &content).await.must_fail_with(1, words);
    }
    assert_eq!(database.count("accounts").await, 0);
}

/// The path of a SQLite database.
fn path_of(database: &TestDatabase) -> PathBuf {
    let path = database.url().strip_prefix("sqlite://").and_then(|it| it.split('?').next());
    path.expect("the URL of a file").into()
}

/// The bytes in the write-ahead log beside the file.
fn log_bytes(path: &Path) -> u64 {
    fs::metadata(format!("{}-wal", path.display())).map_or(0, |log| log.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_command_the_file_alone_is_the_whole_ledger() {
    let source = TestDatabase::create(Kind::Sqlite).await;
    let text = export_of_two_accounts(&source).await;
    let target = source.create_empty_beside(Kind::Sqlite).await;
    let path = path_of(&target);
    for arguments in [["migrate", "up"], ["migrate", "down"], ["migrate", "up"]] {
        target.passbook(&arguments).await.must_succeed();
        assert!(path.exists() && log_bytes(&path) == 0, "{arguments:?}");
    }
    import(&target, &text.as_bytes()[..text.len() - 20]).await.must_fail_with(1, "was cut off");
    assert_eq!(log_bytes(&path), 0, "after an import with an error");

    let imported = import(&target, text.as_bytes()).await.must_succeed();

    assert_eq!(log_bytes(&path), 0, "after an import");
    assert!(imported.stdout.contains("restart the servers"), "{}", imported.stdout);
    let folder = tempfile::tempdir().expect("a folder");
    let moved = folder.path().join("moved.db");
    fs::rename(&path, &moved).expect("moved");
    let url = format!("sqlite://{}", moved.display());
    let verified = passbook(&["verify", "--database-url", &url]).await.must_succeed();
    assert!(verified.stdout.contains("verified: 2 accounts, 1 entries"), "{}", verified.stdout);
}
