//! TLS: which certificates are accepted, and files that change while the server runs.

use std::{io::ErrorKind, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::harness::{
    certificates::{Authority, Signed, text},
    credentials::{Callers, bearer, identity},
    *,
};

async fn serve(database: &TestDatabase, arguments: &[String]) -> Server {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Server::start_with(database, &arguments).await
}

/// The result of a call on a new connection.
async fn ask(authority: &Authority, server: &Server, own: Option<&Signed>) -> Result<Code, String> {
    let channel = authority.connect(server, own).await.map_err(|error| format!("{error:?}"))?;
    code(Client::anonymous(channel).get_account(missing_account()).await.map(drop))
}

/// Reads the server's answer. In TLS 1.3 a client learns only at its first read that it was
/// refused.
fn code(result: Result<(), tonic::Status>) -> Result<Code, String> {
    match result {
        Ok(()) => Ok(Code::Ok),
        Err(status) if std::error::Error::source(&status).is_some() => Err(format!("{status:?}")),
        Err(status) => Ok(status.code()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_clients_that_trust_the_authority_connect() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let server = serve(&database, &authority.arguments()).await;

    assert_eq!(ask(&authority, &server, None).await, Ok(Code::NotFound));
    let other = Authority::new();
    let error = ask(&other, &server, None).await.expect_err("not trusted");
    assert!(error.contains("InvalidCertificate"), "{error}");
    let error = server.client().get_account(missing_account()).await.expect_err("not encrypted");
    assert_eq!(code(Err(error.clone())).ok(), None, "{error:?}");

    let ca = text(&authority.file("ca.crt"));
    let target = format!("https://localhost:{}", server.address.port());
    let arguments = ["healthcheck", "--target", &target, "--tls-ca-file", &ca];
    assert_eq!(passbook(&arguments).await.must_succeed().stdout, "serving\n");
    let untrusted = passbook(&arguments[..3]).await;
    assert_eq!(untrusted.code, Some(1));
    assert!(untrusted.stderr.contains("invalid peer certificate"), "{}", untrusted.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_names_the_caller() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let (authority, other_authority) = (Authority::new(), Authority::new());
    authority.install(&authority.sign(&["localhost"], &[]));
    let billing = "spiffe://example.org/billing";
    let policy = [identity(billing, &["read"], &[""]), identity("reports", &["read"], &[""])];
    let callers = Callers::new(&[("reports", "reports-token")], &policy.concat());
    let mut arguments = authority.mutual_arguments();
    let policy_file = callers.policy_file();
    arguments.extend(["--policy-file".to_owned(), text(&policy_file)]);
    let server = serve(&database, &arguments).await;

    let spiffe = authority.sign(&["other"], &["https://example.org", billing]);
    let dns = authority.sign(&["reports"], &[]);
    let unknown = authority.sign(&["unknown"], &[]);
    let nameless = authority.sign(&[], &[]);
    let expired = authority.sign_until(2020, &["reports"], &[]);
    let foreign = other_authority.sign(&["reports"], &[]);
    for (name, certificate, expected) in [
        ("SPIFFE URI before DNS name", Some(&spiffe), Some(Code::NotFound)),
        ("DNS name", Some(&dns), Some(Code::NotFound)),
        ("not in the policy", Some(&unknown), Some(Code::PermissionDenied)),
        ("without a name", Some(&nameless), Some(Code::Unauthenticated)),
        ("expired", Some(&expired), None),
        ("of another authority", Some(&foreign), None),
        ("none", None, None),
    ] {
        let answer = ask(&authority, &server, certificate).await;
        assert_eq!(answer.clone().ok(), expected, "{name}: {answer:?}");
    }

    // With tokens configured as well, a caller needs either.
    let tokens_file = callers.tokens_file();
    arguments.extend(["--tokens-file".to_owned(), text(&tokens_file)]);
    let server = serve(&database, &arguments).await;
    assert_eq!(ask(&authority, &server, Some(&dns)).await, Ok(Code::NotFound));
    assert_eq!(ask(&authority, &server, None).await, Ok(Code::Unauthenticated));
    let foreign = ask(&authority, &server, Some(&foreign)).await;
    assert!(foreign.is_err(), "one that is shown must be right: {foreign:?}");
    let channel = authority.connect(&server, None).await.expect("connected");
    let with = |token| {
        let client = Client::over(channel.clone(), bearer(token));
        async move { code(client.get_account(missing_account()).await.map(drop)) }
    };
    assert_eq!(with("reports-token").await, Ok(Code::NotFound));
    assert_eq!(with("no-token").await, Ok(Code::Unauthenticated));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_by_certificate_name_the_caller() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let callers = Callers::new(&[], &identity("billing", &["read", "write"], &["shop:"]));
    let mut arguments = authority.mutual_arguments();
    arguments.extend(["--policy-file".to_owned(), text(&callers.policy_file())]);
    let server = serve(&database, &arguments).await;
    let own = authority.sign(&["billing"], &[]);
    let channel = authority.connect(&server, Some(&own)).await.expect("connected");
    let client = Client::anonymous(channel);

    open(&client, "shop:1").await;
    let made = client.deposit(deposit("shop:1", "1")).await.expect("applied");
    assert_eq!(made.transaction.expect("a transaction").created_by, "billing");
    let error = client.create_account(account_of("other:1", "USD")).await.expect_err("not theirs");
    assert_eq!(error.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_applies_to_new_connections_and_drops_none() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let (old, new) = (Authority::new(), Authority::new());
    old.install(&old.sign(&["localhost"], &[]));
    let server = serve(&database, &old.arguments()).await;
    let channel = old.connect(&server, None).await.expect("connected");
    let client = Client::anonymous(channel);
    open(&client, "alice").await;
    let mut entries = client.watch_entries(watch("alice", 0)).await.expect("watched");

    // The certificate comes first, as in a slow copy. Its key does not match yet, so the old pair
    // stays.
    let replaced = new.sign(&["localhost"], &[]);
    std::fs::write(old.file("tls.crt"), &replaced.certificate).expect("written");
    eventually("it says so", async || server.log().contains("certificates not reloaded")).await;
    assert_eq!(ask(&old, &server, None).await, Ok(Code::NotFound));
    assert!(server.log().contains("is not the key of"), "{}", server.log());

    std::fs::write(old.file("tls.key"), &replaced.key).expect("written");
    eventually("the new one is shown", async || {
        ask(&new, &server, None).await == Ok(Code::NotFound)
    })
    .await;
    assert!(ask(&old, &server, None).await.is_err(), "the old one is no longer shown");
    // On the old connection calls and streams continue.
    client.deposit(deposit("alice", "1")).await.expect("applied");
    let message = timeout(PATIENCE, entries.message()).await.expect("in time").expect("no error");
    assert_eq!(message.expect("a message").entries.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn mismatched_certificate_files_are_one_clear_line() {
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let (certificate, key) = (text(&authority.file("tls.crt")), text(&authority.file("tls.key")));
    let other_key = text(&authority.file("other.key"));
    std::fs::write(&other_key, authority.sign(&["other"], &[]).key).expect("written");
    let empty = text(&authority.file("empty"));
    std::fs::write(&empty, "").expect("written");
    let missing = text(&authority.file("missing"));
    let policy = text(&authority.file("policy.toml"));
    std::fs::write(&policy, "").expect("written");

    for (files, expected) in [
        ([&missing, &key, &certificate], format!("{missing}: cannot be read: No such file")),
        ([&empty, &key, &certificate], format!("{empty}: has no certificate in PEM")),
        ([&certificate, &certificate, &certificate], format!("{certificate}: has no private key")),
        (
            [&certificate, &other_key, &certificate],
            format!("{other_key}: is not the key of {certificate}"),
        ),
        ([&certificate, &key, &key], format!("{key}: has no certificate in PEM")),
    ] {
        for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["config", "check"]] {
            let mut arguments = command.to_vec();
            let flags = ["--tls-certificate-file", "--tls-key-file", "--tls-client-ca-file"];
            arguments.extend(flags.iter().zip(files).flat_map(|(flag, file)| [*flag, file]));
            arguments.extend(["--policy-file", &policy]);
            let outcome = passbook(&arguments).await;
            let why = outcome.must_fail(2);
            assert!(why.starts_with(&expected), "{why}");
        }
    }
}

/// How long the server keeps a connection that sends only this.
async fn patience(address: SocketAddr, words: &[u8]) -> std::time::Duration {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(words).await.expect("written");
    let start = Instant::now();
    let mut buffer = [0; 1024];
    loop {
        match timeout(PATIENCE, stream.read(&mut buffer)).await.expect("closed in time") {
            Ok(0) => return start.elapsed(),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return start.elapsed(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_handshake_are_closed() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let mut arguments = authority.arguments();
    let limit = ["--handshake-timeout", "700ms"];
    arguments.extend(limit.map(str::to_owned));
    let encrypted = serve(&database, &arguments).await;
    let plain = Server::start_with(&database, &limit).await;

    for (server, words) in [
        (&encrypted, &b""[..]),
        (&encrypted, b"\x16\x03\x01"),
        (&plain, b""),
        (&plain, b"PRI * HTTP/2.0"),
    ] {
        let patience = patience(server.address, words).await;
        assert!(patience >= ms(600), "{words:?}: {patience:?}");
        times::promise(&format!("the end after {words:?}"), patience, seconds(2));
    }
    // A connection may be idle after its preface.
    let client = plain.client();
    open(&client, "alice").await;
    tokio::time::sleep(seconds(2)).await;
    client.deposit(deposit("alice", "1")).await.expect("applied");
    assert_eq!(ask(&authority, &encrypted, None).await, Ok(Code::NotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_wait() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let server = Server::start_with(&database, &["--connections-max", "2"]).await;
    let first = server.client();
    open(&first, "alice").await;
    let second = server.client();
    second.get_account(missing_account()).await.expect_err("not found");

    let third = server.client();
    let waiting = tokio::spawn(async move { third.get_account(missing_account()).await.map(drop) });
    tokio::time::sleep(seconds(1)).await;
    assert!(!waiting.is_finished(), "there is no place");
    first.deposit(deposit("alice", "1")).await.expect("who is in is served");
    drop(second);

    let answer = timeout(PATIENCE, waiting).await.expect("a place is free").expect("no panic");
    assert_eq!(code(answer), Ok(Code::NotFound));
}
