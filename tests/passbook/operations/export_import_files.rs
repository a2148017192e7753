//! Exports that other programs have rewritten, and files that are no exports.

use crate::harness::*;

on_both_databases! {
    an_export_survives_what_editors_do_to_text,
    a_file_that_is_no_export_is_an_error_with_advice,
}

async fn import(database: &TestDatabase, content: &[u8]) -> Outcome {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), content).expect("it is written");
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
