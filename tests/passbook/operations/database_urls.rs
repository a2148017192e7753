//! Database URLs as people write them and providers show them.

use std::fs;

use tokio::net::{TcpListener, TcpStream};

use crate::harness::{certificates::Authority, *};

const ESCAPES: [&str; 5] = ["%23", "%2F", "%3F", "%40", "%25"];

#[tokio::test(flavor = "multi_thread")]
async fn an_unescaped_password_is_in_no_message_and_no_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("passbook.toml");
    let path = file.to_str().expect("a plain path");
    for password in ["2024#Autumn", "2024/Autumn", "2024?Autumn", "2024@Autumn", "2024%Autumn"] {
        let url = format!("postgres://app:{password}@127.0.0.1:1/db");
        fs::write(&file, format!("database_url = {url:?}\n")).expect("written");
        let variable = [("PASSBOOK_DATABASE_URL", url.as_str())];
        for command in [&["config", "check"][..], &["migrate", "status"], &["verify"], &["serve"]] {
            let with = |more: &[&'static str]| [command, more].concat();
            let outcomes = [
                passbook_in(&variable, &with(&["--log", "trace"])).await,
                passbook(&[&with(&[])[..], &["--database-url", &url]].concat()).await,
                passbook(&[&with(&[])[..], &["--config", path]].concat()).await,
            ];
            for Outcome { code, stdout, stderr } in outcomes {
                assert_eq!(code, Some(2), "{url} {command:?}: {stderr}");
                assert!(stderr.contains("database_url"), "{stderr}");
                assert!(ESCAPES.iter().all(|escape| stderr.contains(escape)), "{stderr}");
                let said = stdout + &stderr;
                assert!(!said.contains("2024") && !said.contains("Autumn"), "{url}: {said}");
                assert!(!said.contains("app"), "not even as a host: {said}");
            }
        }
    }
}

/// Forwards connections from this address to the server of a database.
async fn listen_before(database: &TestDatabase, address: &str) -> std::net::SocketAddr {
    let (_, rest) = database.url().split_once('@').expect("a user");
    let server = rest.split(['/', '?']).next().expect("an address").to_owned();
    let listener = TcpListener::bind(address).await.expect("an address of this machine");
    let own = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                let mut to = TcpStream::connect(server).await.expect("the server is there");
                // Ends when either side disconnects.
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_address_connects_alone_and_among_others() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let address = listen_before(&database, "[::1]:0").await;
    let (name, port) = (database.name(), address.port());
    let places = [
        format!("postgres@[::1]:{port}/{name}"),
        format!("postgres@127.0.0.1:1,[::1]:{port}/{name}"),
        format!("postgres@[::1]:1, [::1]:{port}/{name}"),
        format!("/{name}?host=[::1]&port={port}&user=postgres"),
    ];
    for (number, place) in places.into_iter().enumerate() {
        let server = Server::start_at(&format!("postgres://{place}"), &[]).await;
        open(&server.client(), &format!("account-{number}")).await;
    }
    passbook(&["verify", "--database-url", "postgres://postgres@[::1]:1/db"])
        .await
        .must_fail_with(1, "at [::1]:1: connection refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn database_urls_of_common_providers_are_accepted() {
    let database = TestDatabase::create_empty(Kind::Postgres).await;
    let url = format!(
        "{}?sslmode=prefer&channel_binding=require&connect_timeout=10&keepalives=1\
         &target_session_attrs=any&gssencmode=disable&options%5Bgeqo%5D=off",
        database.url().split('?').next().expect("a URL")
    );

    let migrated = passbook(&["migrate", "up", "--database-url", &url]).await.must_succeed();

    assert!(migrated.stderr.contains("channel_binding=require"), "{}", migrated.stderr);
    let unknown = format!("{url}&gssencmode=require");
    let failed = passbook(&["migrate", "up", "--database-url", &unknown]).await;
    assert!(failed.stderr.contains("gssencmode=disable, or leave it out"), "{}", failed.stderr);
}

/// Runs `config check` with this URL, and with an environment if there is one.
async fn check(url: &str, environment: &[(&str, &str)]) -> Outcome {
    let variable = ("PASSBOOK_DATABASE_URL", url);
    passbook_in(&[environment, &[variable]].concat(), &["config", "check"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_that_a_url_names_are_read_before_anything_else() {
    let authority = Authority::new();
    authority.install(&authority.sign(&["client"], &[]));
    fs::write(authority.file("nonsense"), "nonsense").expect("written");
    let file = |name| authority.file(name).to_str().expect("a plain path").to_owned();
    let [ca, nonsense, crt, key] = ["ca.crt", "nonsense", "tls.crt", "tls.key"].map(file);
    let url = |parameters: &str| format!("postgres://u@127.0.0.1:1/db?{parameters}");
    for (parameters, words) in [
        ("sslmode=verify-full&sslrootcert=/nope", "sslrootcert /nope: cannot be read: No such"),
        ("sslmode=verify-ca&sslrootcert=NONSENSE", "sslrootcert NONSENSE: it has no certificate"),
        ("sslmode=verify-ca&sslrootcert=/", "sslrootcert /: cannot be read"),
        ("sslcert=CRT", "sslcert CRT: sslcert and sslkey go together"),
        ("sslcert=CRT&sslkey=/nope", "sslkey /nope: cannot be read"),
        ("sslcert=CRT&sslkey=CRT", "sslkey CRT: it has no private key"),
        ("sslcert=NONSENSE&sslkey=KEY", "sslcert NONSENSE: it has no certificate"),
    ] {
        let paths = |text: &str| {
            text.replace("NONSENSE", &nonsense).replace("CRT", &crt).replace("KEY", &key)
        };
        let checked = check(&url(&paths(parameters)), &[]).await;
        assert!(checked.must_fail(2).contains(&paths(words)), "{parameters}: {}", checked.stderr);
        let served = passbook(&["serve", "--database-url", &url(&paths(parameters))]).await;
        assert!(served.must_fail(2).contains(&paths(words)), "{parameters}: {}", served.stderr);
    }
    check(&url("sslmode=verify-full"), &[("PGSSLROOTCERT", "/nope")])
        .await
        .must_fail_with(2, "sslrootcert /nope");
    for parameters in [
        format!("sslmode=verify-full&sslrootcert={ca}&sslcert={crt}&sslkey={key}"),
        "sslmode=verify-full&sslrootcert=system".to_owned(),
        "sslmode=disable&sslrootcert=/nope&sslcert=/nope".to_owned(),
    ] {
        check(&url(&parameters), &[]).await.must_succeed();
    }
}
