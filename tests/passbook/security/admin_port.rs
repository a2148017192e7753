//! The admin port with TLS and a token: who reads what.

use std::fs;

use tokio::net::TcpStream;

use crate::harness::{
    admin::{Admin, exchange, status},
    audit_log::{Audit, sha256_hex},
    certificates::{Authority, text},
    credentials::{Callers, identity},
    *,
};

const TOKEN: &str = "hush-hush-0123456789-hush";
const FAILED: &str = "passbook_files_reload_failed{files=\"admin token\"}";

/// A server with a token for its admin port, and with or without TLS.
pub struct Target {
    pub server: Server,
    pub admin: Admin,
    pub authority: Authority,
    has_tls: bool,
    _database: TestDatabase,
}

impl Target {
    pub async fn start(has_tls: bool, arguments: &[&str]) -> Self {
        let database = TestDatabase::create(Kind::Sqlite).await;
        let authority = Authority::new();
        authority.install(&authority.sign(&["localhost"], &[]));
        fs::write(authority.file("admin-token"), format!("{TOKEN}\n")).expect("written");
        let token_file = text(&authority.file("admin-token"));
        let tls = authority.arguments();
        let mut all = vec!["--admin-token-file", &token_file];
        if has_tls {
            all.push("--admin-tls");
            all.extend(tls.iter().map(String::as_str));
        }
        all.extend(arguments);
        let (server, admin) = Server::start_with_admin(&database, &all).await;
        Self { server, admin, authority, has_tls, _database: database }
    }

    /// What the port answers to these bytes on a new connection; empty if there is none.
    pub async fn send(&self, request: &[u8]) -> String {
        let stream = TcpStream::connect(self.admin.0).await.expect("connected");
        if !self.has_tls {
            return exchange(stream, request).await;
        }
        match self.authority.handshake(stream, &["h2", "http/1.1"]).await {
            Ok(stream) => exchange(stream, request).await,
            Err(_) => String::new(),
        }
    }

    /// The response to a GET with this token.
    async fn get(&self, path: &str, token: &str) -> String {
        self.send(request("GET", path, &[&format!("authorization: Bearer {token}")]).as_bytes())
            .await
    }

    fn set_token(&self, content: &str) {
        fs::write(self.authority.file("admin-token"), content).expect("written");
    }
}

/// A request with these headers.
pub fn request(method: &str, target: &str, headers: &[&str]) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("{method} {target} HTTP/1.1\r\nhost: passbook\r\n{headers}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_but_probes_requires_the_token_in_the_one_header() {
    for has_tls in [true, false] {
        let target = Target::start(has_tls, &[]).await;
        let right = &*format!("authorization: Bearer {TOKEN}");
        let longer = &*format!("{right}x");
        let shorter = &right[..right.len() - 1];
        let basic = &*right.replace("Bearer", "Basic");
        let bare = &*right.replace("Bearer ", "");
        let elsewhere = [
            format!("x-authorization: Bearer {TOKEN}"),
            format!("proxy-authorization: Bearer {TOKEN}"),
            format!("cookie: access_token={TOKEN}"),
        ];
        let elsewhere = elsewhere.each_ref().map(String::as_str);
        let in_url = [
            format!("/metrics?access_token={TOKEN}"),
            format!("/metrics?authorization=Bearer%20{TOKEN}"),
            format!("http://x:{TOKEN}@passbook/metrics"),
        ];
        let mut denied = vec![
            ("GET", "/metrics", vec![]),
            ("GET", "/metrics", vec!["authorization: Bearer"]),
            ("GET", "/metrics", vec![longer]),
            ("GET", "/metrics", vec![shorter]),
            ("GET", "/metrics", vec![basic]),
            ("GET", "/metrics", vec![bare]),
            ("GET", "/metrics", vec![right, right]),
            ("GET", "/metrics", vec!["authorization: Bearer other", right]),
            ("GET", "/metrics", elsewhere.to_vec()),
            ("POST", "/metrics", vec![]),
            ("HEAD", "/metrics", vec![]),
            ("OPTIONS", "*", vec![]),
            ("CONNECT", "passbook:9090", vec![]),
            ("GET", "/", vec![]),
            ("GET", "/nothing", vec![]),
        ];
        let paths = ["//livez", "/livez/", "/LIVEZ", "/livez/../metrics", "/%6civez", "/livez%3f"];
        denied.extend(paths.map(|path| ("GET", path, vec![])));
        denied.extend(in_url.iter().map(|url| ("GET", url.as_str(), vec![])));
        denied.push(("GET", "http://passbook/metrics", vec![]));
        for (method, url, headers) in denied {
            let answer = target.send(request(method, url, &headers).as_bytes()).await;
            let what = format!("{method} {url} {headers:?}: {answer}");
            assert_eq!(status(&answer), Some(401), "{what}");
            assert!(answer.contains("www-authenticate: Bearer realm=\"passbook\"\r\n"), "{what}");
            assert!(!answer.contains("passbook_"), "{what}");
        }
        let lower = &*right.replace("Bearer", "bearer");
        for (method, url, headers, code, text) in [
            ("GET", "/metrics", vec![right], 200, "passbook_ready 1"),
            ("GET", "/metrics", vec![lower], 200, "passbook_ready 1"),
            ("GET", "http://passbook/metrics", vec![right], 200, "passbook_ready 1"),
            ("GET", "/nothing", vec![right], 404, "not found"),
            ("POST", "/metrics", vec![right], 405, "must be GET"),
            ("GET", "/livez", vec![], 200, "alive"),
            ("GET", "/readyz", vec![], 200, "ready"),
            ("GET", "/livez?probe", vec!["authorization: Bearer other"], 200, "alive"),
            ("POST", "/livez", vec![], 405, "must be GET"),
        ] {
            let answer = target.send(request(method, url, &headers).as_bytes()).await;
            let what = format!("{method} {url} {headers:?}: {answer}");
            assert_eq!(status(&answer), Some(code), "{what}");
            assert!(answer.contains(text) && !answer.contains("www-authenticate"), "{what}");
        }
    }
}

/// Without TLS, so that all libraries see the token as it is.
#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_in_no_log_whatever_the_level() {
    let target = Target::start(false, &["--log", "trace"]).await;
    for (path, token, code) in [
        ("/metrics", TOKEN, 200),
        ("/metrics", "hush-hush-wrong", 401),
        ("/metrics?access_token=hush-hush-url", "wrong", 401),
    ] {
        assert_eq!(status(&target.get(path, token).await), Some(code), "{path} {token}");
    }
    let malformed = target.get("/metrics", "hush-hush-\0malformed").await;
    assert_eq!(status(&malformed), Some(400), "{malformed}");
    // Content that is no token is not repeated.
    target.set_token("hush-hush hush-hush");
    let log = || target.server.log();
    eventually("it says so", async || log().contains("admin token not reloaded")).await;
    assert!(log().contains("admin connection ended with an error"), "hyper's error is logged");
    for secret in ["hush-hush", "68757368", "104, 117, 115, 104", "aHVzaC"] {
        let log = log();
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_token_counts_and_content_that_is_no_token_changes_nothing() {
    let target = Target::start(true, &[]).await;
    let is_valid = async |token: &str| status(&target.get("/metrics", token).await) == Some(200);
    let has_failed = async |token: &str| {
        let answer = target.get("/metrics", token).await;
        let line = answer.lines().find_map(|line| line.strip_prefix(FAILED));
        line.map(str::trim) == Some("1")
    };
    assert!(is_valid(TOKEN).await && !has_failed(TOKEN).await);
    target.set_token("");
    eventually("it is not reloaded", async || has_failed(TOKEN).await).await;
    assert!(!is_valid("").await);
    target.set_token("another-token");
    eventually("the new one counts", async || is_valid("another-token").await).await;
    assert!(!is_valid(TOKEN).await && !has_failed("another-token").await);
    fs::remove_file(target.authority.file("admin-token")).expect("removed");
    eventually("it is not reloaded", async || has_failed("another-token").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_exactly_one_token_is_one_clear_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = text(&folder.path().join("token"));
    let port = ["--admin-listen", "127.0.0.1:0", "--admin-token-file", &file];
    for content in [None, Some(""), Some(" \n"), Some("two tokens"), Some("1\n2"), Some("\u{e9}")] {
        let why = match content {
            None => format!("{file}: cannot be read: No such file"),
            Some(content) => {
                fs::write(&file, content).expect("written");
                format!("{file}: must contain one token")
            }
        };
        for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["config", "check"]] {
            let outcome = passbook(&[command, &port].concat()).await;
            assert!(outcome.must_fail(2).starts_with(&why), "{content:?}: {}", outcome.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_has_the_certificate_of_the_server_and_requires_none() {
    let callers = Callers::new(&[], &identity("a", &["read"], &[""]));
    let authority = Authority::new();
    let ca = text(&authority.file("ca.crt"));
    let policy = text(&callers.policy_file());
    let mutual = ["--tls-client-ca-file", &ca, "--policy-file", &policy];
    let target = Target::start(true, &mutual).await;
    let livez = request("GET", "/livez", &[]);
    let is_alive = |answer: String| status(&answer) == Some(200) && answer.ends_with("alive\n");
    assert!(is_alive(target.send(livez.as_bytes()).await));
    // The gRPC port requires one. In TLS 1.3 a client learns that only at its first read.
    if let Ok(channel) = target.authority.connect(&target.server, None).await {
        let answer = Client::anonymous(channel).get_account(missing_account()).await;
        assert!(answer.is_err_and(|status| std::error::Error::source(&status).is_some()));
    }

    let connect = async || TcpStream::connect(target.admin.0).await.expect("connected");
    let plain = exchange(connect().await, livez.as_bytes()).await;
    assert_eq!(status(&plain), None, "{plain}");
    authority.handshake(connect().await, &["http/1.1"]).await.expect_err("not trusted");
    target.authority.handshake(connect().await, &["h2"]).await.expect_err("HTTP/1 only");
    for protocols in [&["h2", "http/1.1"][..], &[]] {
        let stream = target.authority.handshake(connect().await, protocols).await;
        let stream = stream.expect("a handshake");
        let chosen = protocols.last().map(|protocol| protocol.as_bytes());
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen, "{protocols:?}");
        assert!(is_alive(exchange(stream, livez.as_bytes()).await), "{protocols:?}");
    }

    target.authority.install(&authority.sign(&["localhost"], &[]));
    eventually("the new one is shown", async || {
        authority.handshake(connect().await, &["http/1.1"]).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_request_has_a_line_in_the_audit_log() {
    let audit = Audit::new();
    let arguments = audit.arguments(&[]);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let target = Target::start(true, &arguments).await;
    let requests = [
        request("GET", "/metrics", &[]),
        request("GET", "/metrics", &["authorization: Bearer guess"]),
        request("GET", "/nothing", &["authorization: Basic guess"]),
        request("GET", "/livez", &["authorization: Bearer guess"]),
        request("GET", "/metrics", &[&format!("authorization: Bearer {TOKEN}")]),
    ];

    for request in requests {
        target.send(request.as_bytes()).await;
    }
    drop(target);

    let denials = audit.events("denial");
    let seen: Vec<_> = denials.iter().map(|line| line["credential"].as_str()).collect();
    assert_eq!(seen, [Some("none"), Some("token"), Some("malformed")], "{}", audit.text());
    for line in &denials {
        let fields = ["method", "identity", "outcome", "reason"].map(|name| line[name].as_str());
        assert_eq!(fields, ["admin_port", "", "denied", "unauthenticated"].map(Some), "{line}");
        assert!(line["peer"].as_str().is_some_and(|it| it.starts_with("127.0.0.1:")), "{line}");
    }
    assert_eq!(denials[1]["credential_sha256"], sha256_hex("guess", 16), "{}", denials[1]);
    assert!(!audit.text().contains("guess") && !audit.text().contains(TOKEN), "{}", audit.text());
}
