//! The command line as an operator or orchestrator sees it.

use std::{fs::Permissions, os::unix::fs::PermissionsExt};

use crate::harness::{
    credentials::{Callers, identity},
    *,
};

on_both_databases! {
    serve_prints_one_line_when_ready,
    healthcheck_reports_serving_or_not_by_its_exit_code,
    migrate_status_lists_what_is_applied,
}

async fn serve_prints_one_line_when_ready(kind: Kind) {
    let (_database, server, client) = start_server(kind).await;
    open(&client, "alice").await;

    let database_name = match kind {
        Kind::Sqlite => "sqlite",
        Kind::Postgres => "postgres",
    };
    let expected = format!(
        "ready: listening on {}, database {database_name}, schema {}",
        server.address,
        passbook::storage::schema_version()
    );
    assert_eq!(server.stdout(), [expected]);
}

async fn healthcheck_reports_serving_or_not_by_its_exit_code(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let mut server = Server::start(&database).await;
    let target = server.address.to_string();

    let up = passbook(&["healthcheck", "--target", &target]).await;
    server.kill9();
    let down = passbook(&["healthcheck", "--target", &target]).await;

    assert_eq!(up.code, Some(0), "{}", up.stderr);
    assert_eq!(down.code, Some(1), "{}", down.stderr);
    assert!(!down.stderr.is_empty());
}

async fn migrate_status_lists_what_is_applied(kind: Kind) {
    let database = TestDatabase::create_empty(kind).await;
    let status = async || database.passbook(&["migrate", "status"]).await;

    let before = status().await;
    database.passbook(&["migrate", "up"]).await.must_succeed();
    let after = status().await.must_succeed();

    assert_ne!(before.stdout, after.stdout);
    assert!(after.stdout.contains("m20261123_000001_create_ledger"), "{}", after.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_exits_with_2() {
    let cases: [&[&str]; 8] = [
        &["no-such-command"],
        &["serve", "--no-such-flag"],
        &["serve", "--listen", "nowhere"],
        &["serve", "--default-deadline", "soon"],
        &["serve", "--currency", "ETH"],
        &["serve", "--admin-listen", "127.0.0.1:50051"],
        &["bench", "--json", "no-such-folder/report.json"],
        &["migrate", "sideways"],
    ];
    for arguments in cases {
        let outcome = passbook(arguments).await;
        assert_eq!(outcome.code, Some(2), "{arguments:?}: {}", outcome.stderr);
        assert!(!outcome.stderr.is_empty() && outcome.stdout.is_empty(), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_commands_exit_with_1_and_never_show_a_password() {
    let url = "postgres://someone:hunter2secret@127.0.0.1:1/nothing";
    let cases: [&[&str]; 3] = [
        &["serve", "--listen", "127.0.0.1:0", "--database-url", url],
        &["migrate", "up", "--database-url", url],
        &["migrate", "status", "--database-url", url],
    ];
    for arguments in cases {
        let outcome = passbook(arguments).await;
        assert_eq!(outcome.code, Some(1), "{arguments:?}: {}", outcome.stderr);
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(!said.contains("hunter2secret"), "{said}");
        assert!(!outcome.stderr.is_empty(), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn help_and_version_are_there() {
    for arguments in [&["--help"][..], &["serve", "--help"], &["migrate", "--help"], &["--version"]]
    {
        let outcome = passbook(arguments).await.must_succeed();
        assert!(!outcome.stdout.is_empty(), "{arguments:?}");
    }
    let help = passbook(&["serve", "--help"]).await.stdout;
    for setting in [
        "--listen",
        "PASSBOOK_LISTEN",
        "--database-url",
        "PASSBOOK_DATABASE_URL",
        "127.0.0.1:50051",
    ] {
        assert!(help.contains(setting), "{setting} is not in the help");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_does_not_start_on_an_address_that_is_taken() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let server = Server::start(&database).await;
    let taken = server.address.to_string();

    let outcome = database.passbook(&["serve", "--listen", &taken]).await;

    let why = outcome.must_fail(1);
    assert!(why.starts_with(&format!("cannot listen on {taken}: ")), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_their_owner_may_read_the_files_that_commands_create() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a plain path").to_owned();
    let url = format!("sqlite://{}?mode=rwc", path("ledger.db"));
    let server = Server::start_by(&["--database-url", &url]).await;
    open(&server.client(), "a").await;
    // With a umask that takes no right from anybody.
    let without_umask = tempfile::tempdir().expect("a folder");
    let script = without_umask.path().join("passbook");
    let text = format!("#!/bin/sh\numask 0\nexec '{}' \"$@\"\n", program().display());
    std::fs::write(&script, text).expect("written");
    std::fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("set");
    let (other, key) = (format!("sqlite://{}?mode=rwc", path("other.db")), path("witness.pem"));
    for arguments in [
        &["migrate", "up", "--database-url", &other][..],
        &["export", "--database-url", &url, "--output", &path("export")],
        &["token", "create", "--identity", "a", "--append", &path("tokens.toml")],
        &["heads", "create-key", "--key", &key],
        &["heads", "sign", "--database-url", &url, "--key", &key, "--output", &path("heads")],
    ] {
        passbook_of(&script, arguments).await.must_succeed();
    }
    let mut names = Vec::new();
    for file in std::fs::read_dir(folder.path()).expect("the folder") {
        let file = file.expect("a file");
        let mode = file.metadata().expect("its mode").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file:?}");
        names.push(file.file_name());
    }
    assert!(names.len() >= 7, "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_replaces_or_appends_to_what_it_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a plain path").to_owned();
    let [ledger, key] = ["ledger.db", "witness.pem"].map(path);
    let url = format!("sqlite://{ledger}?mode=rwc");
    passbook(&["migrate", "up", "--database-url", &url]).await.must_succeed();
    passbook(&["heads", "create-key", "--key", &key]).await.must_succeed();
    let content = |path: &str| std::fs::read(path).expect("it is there");
    let before = [&ledger, &key].map(|path| content(path));
    let pipe = path("pipe");
    make_pipe(std::path::Path::new(&pipe));
    std::os::unix::fs::symlink(&ledger, path("link")).expect("a link");
    let sign = ["heads", "sign", "--database-url", &url, "--key", &key, "--output"];
    for (command, outputs) in [
        (&["export", "--database-url", &url, "--output"][..], [&ledger, &path("link")]),
        (&sign[..], [&ledger, &key]),
    ] {
        for output in outputs {
            let outcome = passbook(&[command, &[output.as_str()]].concat()).await;
            outcome.must_fail_with(2, "would replace");
        }
        passbook(&[command, &[&pipe]].concat()).await.must_fail_with(2, "not a regular file");
    }

    let callers = Callers::new(&[("a", "token")], &identity("a", &["read"], &[""]));
    let arguments = callers.arguments();
    let tokens = callers.tokens_file().to_str().expect("a plain path").to_owned();
    for file in [&ledger, &format!("{ledger}-wal"), &tokens] {
        let mut check = vec!["config", "check", "--database-url", &url, "--audit-file", file];
        check.extend(arguments.iter().map(String::as_str));
        passbook(&check).await.must_fail_with(2, "would be appended to");
    }
    assert!([&ledger, &key].map(|path| content(path)) == before, "nothing changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_before_the_year_10000() {
    let create = ["token", "create", "--identity", "a", "--expires-in"];
    for lifetime in ["9000years", "99999999999years"] {
        let outcome = passbook(&[&create[..], &[lifetime]].concat()).await;
        assert_eq!(outcome.code, Some(2), "{lifetime}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("expires-in"), "{lifetime}: {}", outcome.stderr);
    }
    let outcome = passbook(&[&create[..], &["7000years"]].concat()).await;
    assert!(outcome.must_succeed().stderr.contains("expire_time = 9"), "it is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_all_users_can_read_are_warned_of() {
    let callers = Callers::new(&[("a", "token")], &identity("a", &["read"], &[""]));
    let arguments = callers.arguments();
    let mut check = vec!["config", "check"];
    check.extend(arguments.iter().map(String::as_str));
    let warning = format!("tokens_file {}", callers.tokens_file().display());
    for (mode, is_warned_of) in [(0o644, true), (0o640, false), (0o600, false)] {
        std::fs::set_permissions(callers.tokens_file(), Permissions::from_mode(mode)).expect("set");
        let outcome = passbook(&check).await.must_succeed();
        assert_eq!(outcome.stderr.contains(&warning), is_warned_of, "{mode:o}: {}", outcome.stderr);
    }
}
