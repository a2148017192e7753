//! TLS: which certificates are accepted, and files that change while the server runs.

use std::{io::ErrorKind, net::SocketAddr};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyUsagePurpose};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::harness::{
    admin::ADMIN,
    certificates::{Authority, Signed, text},
    credentials::{Callers, bearer, entry, identity, identity_known_by, whole_policy},
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
async fn a_command_says_that_only_one_side_speaks_tls() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let encrypted = serve(&database, &authority.arguments()).await;
    let plain = Server::start(&database).await;
    let ca = text(&authority.file("ca.crt"));
    for (server, scheme, right) in [(&encrypted, "http", "https"), (&plain, "https", "http")] {
        let target = format!("{scheme}://localhost:{}", server.address.port());
        let mut at = vec!["--target", &target, "--timeout", "2s"];
        if scheme == "https" {
            at.extend(["--tls-ca-file", &ca]);
        }
        let advice = format!("begin its address with {right}://)");
        for command in [&["account", "get", "alice"][..], &["healthcheck"]] {
            let outcome = passbook(&[command, &at].concat()).await;
            assert!(outcome.stderr.contains(&advice), "{command:?}: {}", outcome.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_names_the_caller() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let (authority, other_authority) = (Authority::new(), Authority::new());
    authority.install(&authority.sign(&["localhost"], &[]));
    let billing = "spiffe://example.org/billing";
    let policy = [
        identity_known_by("spiffe", billing, &["read"], &[""]),
        identity_known_by("dns", "reports", &["read"], &[""]),
        identity("clerk", &["read"], &[""]),
    ];
    let callers = Callers::new(&[("clerk", "clerk-token")], &policy.concat());
    let mut arguments = authority.mutual_arguments();
    let policy_file = callers.policy_file();
    arguments.extend(["--policy-file".to_owned(), text(&policy_file)]);
    let server = serve(&database, &arguments).await;

    let spiffe = authority.sign(&["reports", "other"], &[billing]);
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
    assert_eq!(with("clerk-token").await, Ok(Code::NotFound));
    assert_eq!(with("no-token").await, Ok(Code::Unauthenticated));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_must_be_one_of_a_caller() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let [billing, admin] = ["spiffe://example.org/billing", "spiffe://example.org/admin"];
    let names = [("spiffe", billing), ("spiffe", admin), ("dns", "reports"), ("dns", "root")];
    let policy = names.map(|(kind, name)| identity_known_by(kind, name, &["read"], &[""]));
    let policy = policy.concat() + &identity("clerk", &["read"], &[""]);
    let callers = Callers::new(&[("clerk", "clerk-token")], &policy);
    let mut arguments = authority.mutual_arguments();
    arguments.extend(callers.arguments());
    let server = serve(&database, &arguments).await;
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, EmailProtection};
    type Change = fn(&mut CertificateParams);
    let valid: [(&str, &[&str], &[&str], Change); 3] = [
        ("a SPIFFE ID", &[], &[billing], |_| {}),
        ("a DNS name", &["reports"], &[], |_| {}),
        ("a key for signatures", &["reports"], &[], |it| {
            it.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        }),
    ];
    let wrong: [(&str, &[&str], &[&str], Change); 12] = [
        ("no extended key usage", &["reports"], &[], |it| it.extended_key_usages.clear()),
        ("the same with a SPIFFE ID", &[], &[billing], |it| it.extended_key_usages.clear()),
        ("any usage", &["reports"], &[], |it| it.extended_key_usages = vec![Any]),
        ("e-mail", &["reports"], &[], |it| it.extended_key_usages = vec![EmailProtection]),
        ("a key for certificates", &["reports"], &[], |it| {
            it.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        }),
        ("a key for agreement", &["reports"], &[], |it| {
            it.key_usages = vec![KeyUsagePurpose::KeyAgreement];
        }),
        ("two SPIFFE IDs", &[], &[billing, admin], |_| {}),
        ("a SPIFFE ID and another URI", &[], &[billing, "https://example.org"], |_| {}),
        ("another URI before a DNS name", &["reports"], &["https://example.org"], |_| {}),
        ("a SPIFFE ID without a path", &["reports"], &["spiffe://example.org"], |_| {}),
        ("two DNS names", &["reports", "root"], &[], |_| {}),
        ("all names of a domain", &["*.reports"], &[], |_| {}),
    ];
    let cases = valid.iter().map(|case| (true, case)).chain(wrong.iter().map(|case| (false, case)));
    for (is_valid, (name, dns_names, uris, change)) in cases {
        let mut params = Authority::params(dns_names, uris);
        params.extended_key_usages = vec![ClientAuth];
        change(&mut params);
        let signed = authority.sign_params(params);
        let answer = ask(&authority, &server, Some(&signed)).await;
        match is_valid {
            true => assert_eq!(answer, Ok(Code::NotFound), "{name}"),
            // rustls denies some in the handshake.
            false => {
                assert!(matches!(answer, Err(_) | Ok(Code::Unauthenticated)), "{name}: {answer:?}");
            }
        }
        let Ok(channel) = authority.connect(&server, Some(&signed)).await else { continue };
        let client = Client::over(channel, bearer("clerk-token"));
        let beside = code(client.get_account(missing_account()).await.map(drop));
        assert_eq!(beside == Ok(Code::NotFound), is_valid, "{name}, beside a token: {beside:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_are_known_in_different_ways_never_meet() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let by_token = identity("root", &["*"], &[""]);
    let callers = Callers::new(&[("root", "root-token")], &by_token);
    let mut arguments = authority.mutual_arguments();
    arguments.extend(callers.arguments());
    let server = serve(&database, &arguments).await;
    let channel = authority.connect(&server, None).await.expect("connected");
    let by_name = Client::over(channel, bearer("root-token"));
    let certificate = authority.sign(&["root"], &[]);
    let channel = authority.connect(&server, Some(&certificate)).await.expect("connected");
    let by_certificate = Client::anonymous(channel);

    let denied = by_certificate.get_account(missing_account()).await.expect_err("not the token's");
    assert_eq!(denied.code(), Code::PermissionDenied);
    let by_dns = identity_known_by("dns", "root", &["*"], &[""]);
    callers.set_policy(&(by_token + &by_dns));
    eventually("the new policy counts", async || {
        let answer = by_certificate.get_account(missing_account()).await;
        answer.is_err_and(|status| status.code() == Code::NotFound)
    })
    .await;
    // Both have request ids of their own, and names of holds.
    open(&by_name, "a").await;
    let request = deposit("a", "5");
    let first = by_name.deposit(request.clone()).await.expect("applied");
    let second = by_certificate.deposit(request).await.expect("applied");
    assert!(!first.replayed && !second.replayed);
    let created_by = [first, second].map(|it| it.transaction.expect("a transaction").created_by);
    assert_eq!(created_by, ["root", "dns:root"]);
    let first = place(&by_name, hold_named("h", "a", "1")).await;
    let second = place(&by_certificate, hold_named("h", "a", "1")).await;
    assert_eq!([first.hold_id, second.hold_id], ["h@root", "h@dns:root"]);
    // A token cannot have the name of another kind.
    callers.set_tokens(&entry("dns:root", "other-token"));
    eventually("it says so", async || server.log().contains("cannot be \\\"dns:root\\\"")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_certificate_from_before_its_kind_was_recorded_are_not_applied_twice() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    // As an older version recorded the request: without the kind.
    let former = identity("reports", &["*"], &[""]);
    let callers = Callers::new(&[("reports", "reports-token")], &former);
    let server = callers.serve(&database, &[]).await;
    let client = server.client_of("reports-token");
    open(&client, "a").await;
    let request = deposit("a", "5");
    client.deposit(request.clone()).await.expect("applied");
    drop(server);

    let by_dns = identity_known_by("dns", "reports", &["*"], &[""]);
    let by_dns = by_dns + &identity("clerk", &["read"], &[""]);
    callers.set_policy(&by_dns);
    callers.set_tokens(&entry("clerk", "clerk-token"));
    let mut arguments = authority.mutual_arguments();
    arguments.extend(callers.arguments());
    let mut command = vec!["serve", "--listen", "127.0.0.1:0", "--database-url", database.url()];
    command.extend(arguments.iter().map(String::as_str));
    let outcome = passbook(&command).await;
    let why = outcome.must_fail(2);
    assert!(why.contains("recorded_as = \"reports\""), "{why}");

    callers.set_policy(&by_dns.replacen("methods", "recorded_as = \"reports\"\nmethods", 1));
    let server = serve(&database, &arguments).await;
    let certificate = authority.sign(&["reports"], &[]);
    let channel = authority.connect(&server, Some(&certificate)).await.expect("connected");
    let again = Client::anonymous(channel).deposit(request).await.expect("found");
    assert!(again.replayed, "it was made before");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_by_certificate_name_the_caller() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let callers =
        Callers::new(&[], &identity_known_by("dns", "billing", &["read", "write"], &["shop:"]));
    let mut arguments = authority.mutual_arguments();
    arguments.extend(["--policy-file".to_owned(), text(&callers.policy_file())]);
    let server = serve(&database, &arguments).await;
    let own = authority.sign(&["billing"], &[]);
    let channel = authority.connect(&server, Some(&own)).await.expect("connected");
    let client = Client::anonymous(channel);

    open(&client, "shop:1").await;
    let made = client.deposit(deposit("shop:1", "1")).await.expect("applied");
    assert_eq!(made.transaction.expect("a transaction").created_by, "dns:billing");
    let error = client.create_account(account_of("other:1", "USD")).await.expect_err("not theirs");
    assert_eq!(error.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_applies_to_new_connections_and_drops_none() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let (old, new) = (Authority::new(), Authority::new());
    old.install(&old.sign(&["localhost"], &[]));
    let server =
        serve(&database, &[old.arguments(), ADMIN.map(str::to_owned).into()].concat()).await;
    let has_failed = async || {
        let metrics = server.admin().metrics().await;
        metrics.value("passbook_files_reload_failed{files=\"certificates\"}")
    };
    let channel = old.connect(&server, None).await.expect("connected");
    let client = Client::anonymous(channel);
    open(&client, "alice").await;
    let mut entries = client.watch_entries(watch("alice", 0)).await.expect("watched");

    // The certificate comes first, as in a slow copy. Its key does not match yet, so the old pair
    // stays.
    let replaced = new.sign(&["localhost"], &[]);
    std::fs::write(old.file("tls.crt"), &replaced.certificate).expect("written");
    eventually("it says so", async || server.log().contains("certificates not reloaded")).await;
    eventually("the gauge says so", async || has_failed().await == 1.0).await;
    assert_eq!(ask(&old, &server, None).await, Ok(Code::NotFound));
    assert!(server.log().contains("is not the key of"), "{}", server.log());

    std::fs::write(old.file("tls.key"), &replaced.key).expect("written");
    eventually("the new one is shown", async || {
        ask(&new, &server, None).await == Ok(Code::NotFound)
    })
    .await;
    assert!(ask(&old, &server, None).await.is_err(), "the old one is no longer shown");
    eventually("the gauge says so", async || has_failed().await == 0.0).await;
    // On the old connection calls and streams continue.
    client.deposit(deposit("alice", "1")).await.expect("applied");
    let message = loop {
        let message = timeout(PATIENCE, entries.message()).await.expect("in time");
        let message = message.expect("no error").expect("a message");
        // The reload may have taken longer than the interval of heartbeats.
        if !message.entries.is_empty() {
            break message;
        }
    };
    assert_eq!(message.entries.len(), 1);
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
    let entries = identity("a", &["read"], &[""]);
    std::fs::write(&policy, whole_policy(&entries)).expect("written");

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
