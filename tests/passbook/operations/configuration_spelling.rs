//! Settings as people, Compose files and orchestrators write them.

use std::fs;

use crate::harness::*;

async fn check(environment: &[(&str, &str)]) -> Outcome {
    passbook_in(environment, &["config", "check"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_accepts_all_spellings_of_true_and_false() {
    let open = ("PASSBOOK_LISTEN", "0.0.0.0:0");
    for on in ["1", "yes", "on", "true", "True", "YES", " On\n"] {
        check(&[open, ("PASSBOOK_INSECURE", on), ("PASSBOOK_MIGRATE", on)]).await.must_succeed();
    }
    for off in ["0", "no", "off", "false", "FALSE", ""] {
        let outcome = check(&[open, ("PASSBOOK_INSECURE", off), ("PASSBOOK_MIGRATE", off)]).await;
        assert!(outcome.must_fail(2).contains("or set insecure"), "{off:?} {}", outcome.stderr);
    }
    let outcome = check(&[("PASSBOOK_MIGRATE", "perhaps")]).await;
    let said = outcome.must_fail(2);
    assert!(said.starts_with("PASSBOOK_MIGRATE: ") && said.contains("yes or no"), "{said}");
}

/// The variables of all switches: the settings whose flag has no value.
async fn switches() -> Vec<String> {
    let help = passbook(&["serve", "--help"]).await.must_succeed().stdout;
    let blocks = help.split("\n      --").skip(1);
    let blocks = blocks.filter(|block| !block.lines().next().unwrap_or_default().contains('<'));
    let variable = |block: &str| {
        let (_, rest) = block.split_once("[env: ")?;
        rest.split(['=', ']']).next().map(str::to_owned)
    };
    blocks.filter_map(variable).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_switch_accepts_every_spelling() {
    let switches = switches().await;
    assert!(switches.len() >= 7, "{switches:?}");
    for switch in &switches {
        for spelling in ["1", "yes", "ON", "true", "0", "no", "Off", "false"] {
            // Some switches are an error without another setting.
            let outcome = check(&[(switch, spelling)]).await;
            let is_spelled = !outcome.stderr.contains("invalid value");
            assert!(is_spelled, "{switch}={spelling}: {}", outcome.stderr);
        }
        let outcome = check(&[(switch, "perhaps")]).await;
        let said = outcome.must_fail(2);
        assert!(said.starts_with(switch.as_str()) && said.contains("yes or no"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_variable_is_not_set() {
    let help = passbook(&["serve", "--help"]).await.must_succeed().stdout;
    let names = help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
    let names: Vec<&str> = names.collect();
    assert!(names.len() >= 35, "{names:?}");
    for value in ["", " "] {
        for name in &names {
            check(&[(name, value)]).await.must_succeed();
        }
    }
    let all: Vec<_> = names.iter().map(|name| (*name, "")).collect();
    check(&all).await.must_succeed();
    // The file's value applies, and the help still names the variables.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("passbook.toml");
    fs::write(&file, "listen = \"0.0.0.0:0\"\n").expect("written");
    let by_file = ["config", "check", "--config", file.to_str().expect("a plain path")];
    passbook_in(&all, &by_file).await.must_fail_with(2, "listen 0.0.0.0:0 can be reached");
    let with_all = passbook_in(&all, &["serve", "--help"]).await.must_succeed().stdout;
    for name in names {
        assert!(with_all.contains(&format!("[env: {name}=]")), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_may_contain_spaces_and_empty_items() {
    for list in ["ETH=18, PTS=2", " ETH=18 ,PTS=2,", "ETH=18,,PTS=2\n"] {
        check(&[("PASSBOOK_CURRENCY", list)]).await.must_succeed();
    }
    let outcome = check(&[("PASSBOOK_CURRENCY", "ETH=18, PTS=x")]).await;
    let said = outcome.must_fail(2);
    assert!(said.starts_with("PASSBOOK_CURRENCY: ") && said.contains("\"PTS=x\""), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_may_name_a_host_or_only_a_port() {
    for listen in ["localhost:0", ":0", "[::1]:0", " 127.0.0.1:0 "] {
        for by in ["--listen", "--admin-listen"] {
            passbook(&["config", "check", "--insecure", by, listen]).await.must_succeed();
        }
    }
    let database = TestDatabase::create(Kind::Sqlite).await;
    let arguments = ["--admin-listen", "localhost:0"];
    let server = Server::start_listening("localhost:0", &database, &arguments).await;
    assert!(server.ready_line.contains("listening on 127.0.0.1:"), "{}", server.ready_line);
    open(&server.client(), "alice").await;
    for (listen, words) in [
        ("50051", "localhost:50051"),
        ("::1:50051", "[::1]:50051"),
        ("localhost", "ADDRESS:PORT"),
        ("http://localhost:50051", "without http://"),
    ] {
        for variable in ["PASSBOOK_LISTEN", "PASSBOOK_ADMIN_LISTEN"] {
            let outcome = check(&[(variable, listen)]).await;
            let said = outcome.must_fail(2);
            assert!(said.starts_with(variable) && said.contains(words), "{listen}: {said}");
        }
    }
    let open = check(&[("PASSBOOK_LISTEN", ":50051")]).await;
    assert!(open.must_fail(2).contains("insecure"), "all addresses: {}", open.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_the_variable_or_the_file_that_the_value_came_from() {
    for (name, value) in [
        ("PASSBOOK_CALLS_MAX", "0"),
        ("PASSBOOK_LOG_FORMAT", "xml"),
        ("PASSBOOK_DEFAULT_DEADLINE", "soon"),
    ] {
        let outcome = check(&[(name, value)]).await;
        assert!(outcome.must_fail(2).starts_with(&format!("{name}: ")), "{}", outcome.stderr);
    }
    let outcome = check(&[("PASSBOOK_LOG_FORMAT", "xml")]).await;
    assert!(outcome.stderr.contains("auto, console, json"), "{}", outcome.stderr);
    // Errors that need all settings.
    for (name, value) in [
        ("PASSBOOK_DATABASE_URL", "mysql://h"),
        ("PASSBOOK_TOKENS_FILE", "/x"),
        ("PASSBOOK_LISTEN", "0.0.0.0:0"),
        ("PASSBOOK_CURRENCY", "USD=6"),
    ] {
        let outcome = check(&[(name, value)]).await;
        assert!(outcome.must_fail(2).contains(&format!(" is {name}")), "{}", outcome.stderr);
    }
    let policy = tempfile::NamedTempFile::new().expect("a file");
    let policy = ("PASSBOOK_POLICY_FILE", policy.path().to_str().expect("a plain path"));
    let outcome = check(&[("PASSBOOK_TOKENS_FILE", "/nope"), policy]).await;
    let said = outcome.must_fail(2);
    assert!(said.starts_with("/nope: cannot be read: "), "{said}");
    assert!(said.ends_with("(tokens_file is PASSBOOK_TOKENS_FILE)"), "{said}");
    let outcome = check(&[("PASSBOOK_CONFIG", "/nope")]).await;
    assert!(outcome.must_fail(2).ends_with("(config is PASSBOOK_CONFIG)"), "{}", outcome.stderr);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("passbook.toml");
    fs::write(&file, "database_url = \"mysql://h\"\n").expect("written");
    let path = file.to_str().expect("a plain path");
    let outcome = passbook(&["config", "check", "--config", path]).await;
    let expected = format!("(database_url is in {path})");
    assert!(outcome.must_fail(2).ends_with(&expected), "{}", outcome.stderr);
    let flag = passbook(&["config", "check", "--database-url", "mysql://h"]).await;
    assert!(flag.must_fail(2).ends_with("sqlite:// or postgres://"), "{}", flag.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_variable_is_warned_of_with_the_nearest_name() {
    let unknown = [
        ("PASSBOOK_DATBASE_URL", "postgres://u:hunter2secret@h/db"),
        ("PASSBOOK_XYZZY", "hunter2secret"),
        ("PASSBOOK_CALL_MAX", "x"),
    ];
    let known = [
        ("PASSBOOK_PORT", "tcp://10.0.0.1:50051"),
        ("PASSBOOK_SERVICE_HOST", "10.0.0.1"),
        ("PASSBOOK_SERVICE_PORT", "50051"),
        ("PASSBOOK_SERVICE_PORT_GRPC", "50051"),
        ("PASSBOOK_PORT_50051_TCP", "tcp://10.0.0.1:50051"),
        ("PASSBOOK_PORT_50051_TCP_ADDR", "10.0.0.1"),
        ("PASSBOOK_TEST_SEED", "1"),
        ("PASSBOOK_BENCH_DATABASE_URL", "x"),
        // A setting of another command.
        ("PASSBOOK_TARGET", "http://127.0.0.1:50051"),
    ];
    let outcome = check(&[&unknown[..], &known].concat()).await.must_succeed();
    for words in [
        "PASSBOOK_DATBASE_URL is no setting: did you mean PASSBOOK_DATABASE_URL?",
        "PASSBOOK_XYZZY is no setting: `passbook serve --help` shows all",
        "PASSBOOK_CALL_MAX is no setting: did you mean PASSBOOK_CALLS_MAX?",
    ] {
        assert!(outcome.stderr.contains(words), "{words}: {}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("hunter2secret"), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.lines().count(), unknown.len(), "{}", outcome.stderr);
}
