//! What an attacker tries on the console.

use std::time::Instant;

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{pages::start_console, sessions::Desk};
use crate::harness::{admin::exchange, console::encoded, *};

const TOKEN: &str = "clerk-token-0123456789";
/// Texts that would end an attribute, a tag or a script, or begin one.
const MARKUP: [&str; 4] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'-alert(1)-'",
    "{{ 7*7 }}&lt;b&gt;</title></section>",
];

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_callers_are_never_markup() {
    let desk = Desk::open(&[]).await;
    let client = desk.server.client_of(TOKEN);
    open(&client, "shop").await;
    let mut paths = vec!["/".to_owned(), "/transactions".to_owned()];
    for (index, text) in MARKUP.iter().enumerate() {
        let account_id = format!("mallory-{index}");
        let labels = labels(&[("note", text)]);
        let account =
            CreateAccountRequest { labels: labels.clone(), ..account_of(&account_id, "USD") };
        open_with(&client, account).await;
        let mut request = deposit(&account_id, "5");
        request.request_id = (*text).to_owned();
        request.description = (*text).to_owned();
        request.labels = labels;
        let posted = client.deposit(request).await.expect("applied");
        let transaction_id = posted.transaction.expect("a transaction").transaction_id;
        let mut hold = hold(&account_id, "1");
        hold.description = (*text).to_owned();
        let hold = place(&client, hold).await;
        let reason = (*text).to_owned();
        let freeze = FreezeAccountRequest { account_id, reason, ..Default::default() };
        let account = client.freeze_account(freeze).await.expect("frozen").account;
        let account_id = account.expect("an account").account_id;
        let encoded = encoded(text);
        paths.extend([
            format!("/account?id={account_id}"),
            format!("/changes?account_id={account_id}"),
            format!("/holds?account_id={account_id}"),
            format!("/transactions?account_id={account_id}"),
            format!("/transaction?id={transaction_id}"),
            format!("/hold?id={}", self::encoded(&hold.hold_id)),
            // Reflected.
            format!("/request?id={encoded}"),
            format!("/account?id={encoded}"),
            format!("/transaction?id={encoded}"),
            format!("/?prefix={encoded}&label=note%3D{encoded}&state={encoded}&page={encoded}"),
            format!("/?label=note%3D{encoded}"),
            format!("/statement?account_id={encoded}&from={encoded}"),
            format!("/transactions?kind={encoded}&label={encoded}"),
            format!("/events?prefix={encoded}&kind={encoded}&currency={encoded}&after={encoded}"),
            format!("/{encoded}"),
        ]);
    }
    let browser = desk.console.signed_in(TOKEN).await;
    let outside = desk.console.browser();
    for path in &paths {
        for response in [browser.get(path).await, outside.get(path).await] {
            for markup in ["<script>alert", "<img", "'-alert", "<b>", "</title></section>", "49"] {
                let is_there = response.body.contains(markup) && markup != "49";
                assert!(!is_there, "{markup} at {path}: {}", response.body);
            }
        }
    }
    let page = browser.page("/").await;
    assert!(page.contains("&#60;script&#62;alert(1)"), "the text is there: {page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_response_has_the_headers_that_protect_it() {
    let desk = Desk::open(&[]).await;
    let browser = desk.console.signed_in(TOKEN).await;
    let outside = desk.console.browser();
    let forged = ["sec-fetch-site: cross-site"];
    for response in [
        browser.get("/").await,
        browser.get("/account?id=nobody").await,
        browser.get("/nothing").await,
        browser.get("/console.js").await,
        browser.get("/console.css").await,
        browser.request("PUT", "/", &[], "").await,
        browser.request("POST", "/logout", &forged, "").await,
        outside.get("/").await,
        outside.get("/nothing").await,
        outside.post("/login", "token=wrong").await,
        outside.post("/login", "token").await,
        outside.post("/login", &format!("token={}", "x".repeat(70_000))).await,
    ] {
        for (name, value) in [
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "deny"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(response.header(name), Some(value), "{response:?}");
        }
        let policy = response.header("content-security-policy").expect("a policy");
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.split("; ").any(|it| it == directive), "{directive}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(response.header("server"), None);
        for inline in ["style=", "onclick=", "<script>", "<style", "http://", "https://"] {
            assert!(!response.body.contains(inline), "{inline}: {}", response.body);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_site_signs_nobody_in_or_out() {
    let desk = Desk::open(&[]).await;
    let browser = desk.console.signed_in(TOKEN).await;
    let host = format!("host: {}", desk.console.0);
    let own = format!("origin: http://{}", desk.console.0);
    let form = format!("token={TOKEN}");
    for headers in [
        &[][..],
        &["sec-fetch-site: cross-site"],
        &["sec-fetch-site: same-site"],
        &["sec-fetch-site: none"],
        &["sec-fetch-site: cross-site", &own],
        &["origin: null"],
        &["origin: http://evil.example"],
        &["origin: http://evil.example", "referer: http://evil.example/"],
        &["host: evil.example", &own],
    ] {
        for (path, form) in [("/logout", ""), ("/login", &*form)] {
            let response = browser.request("POST", path, headers, form).await;
            assert_eq!(response.status, 403, "{path} {headers:?}: {response:?}");
            assert_eq!(response.cookie(), None, "{path} {headers:?}");
        }
    }
    assert_eq!(browser.get("/").await.status, 200, "still signed in");
    // A browser without Sec-Fetch-Site says where the form is from.
    let outside = desk.console.browser();
    let response = outside.request("POST", "/login", &[&host, &own], &form).await;
    assert_eq!(response.status, 303, "{response:?}");
    // No other method changes anything.
    for path in ["/logout", "/login", &format!("/login?token={TOKEN}")] {
        assert_eq!(browser.get(path).await.status, 405, "{path}");
    }
    assert_eq!(browser.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_id_of_a_session_is_never_one_that_a_browser_brings() {
    let desk = Desk::open(&[]).await;
    let mut browser = desk.console.browser();
    for fixed in [
        "passbook-session=fixed",
        "passbook-session=",
        &format!("passbook-session={}", "0".repeat(64)),
    ] {
        browser.cookie = Some(fixed.to_owned());
        assert_eq!(browser.get("/").await.status, 401);
        browser.log_in(TOKEN).await;
        assert_ne!(browser.cookie.as_deref(), Some(fixed));
        let other = desk.console.browser();
        let headers = [&*format!("cookie: {fixed}")];
        assert_eq!(other.request("GET", "/", &headers, "").await.status, 401, "{fixed}");
    }
    let first = browser.cookie.clone().expect("a cookie");
    browser.log_in(TOKEN).await;
    let second = browser.cookie.clone().expect("a cookie");
    assert_ne!(first, second);
    assert_eq!(first.len(), "passbook-session=".len() + 64, "256 bits");
    browser.cookie = Some(first.clone());
    assert_eq!(browser.get("/").await.status, 401, "the login has ended the former session");
    // Two cookies of one name, as a neighboring host could set one: neither counts.
    browser.cookie = Some(format!("{second}; {first}"));
    assert_eq!(browser.get("/").await.status, 401);
    browser.cookie = Some(format!("a=b; {second}; c=d"));
    assert_eq!(browser.get("/").await.status, 200);
}

/// Without TLS, so that all libraries see the token as it is.
#[tokio::test(flavor = "multi_thread")]
async fn the_token_counts_in_the_login_form_only_and_is_in_no_log() {
    let desk = Desk::open(&["--log", "trace"]).await;
    let outside = desk.console.browser();
    let bearer = format!("authorization: Bearer {TOKEN}");
    let cookie = format!("cookie: passbook-session={TOKEN}");
    for (path, headers) in [
        (format!("/?token={TOKEN}"), vec![]),
        (format!("/?access_token={TOKEN}"), vec![]),
        ("/".to_owned(), vec![bearer.as_str()]),
        ("/".to_owned(), vec![cookie.as_str()]),
    ] {
        let response = outside.request("GET", &path, &headers, "").await;
        assert_eq!(response.status, 401, "{path} {headers:?}");
    }
    let signed_in = desk.console.signed_in(TOKEN).await;
    signed_in.page("/").await;
    let id = signed_in.cookie.as_ref().and_then(|it| it.split_once('=')).expect("a cookie").1;
    let page = signed_in.get("/account?id=nobody").await.body;
    assert!(!page.contains(id) && !page.contains(TOKEN), "{page}");
    let log = desk.server.log();
    let line = log.lines().find(|line| line.contains(id));
    assert_eq!(line, None, "the id of the session");
    // What a browser puts into the URL is the browser's own doing, and still not logged.
    let line = log.lines().find(|line| line.contains(TOKEN));
    assert_eq!(line, None, "the token");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_requests_have_one_reading() {
    let (_database, _server, console) = start_console(&[]).await;
    let browser = console.browser();
    for path in [
        "/../account",
        "/./health",
        "//health",
        "/health/",
        "/HEALTH",
        "/%68ealth",
        "/health%00",
        "/health;x",
        "/..%2fCargo.toml",
        "/console.js/../../src/lib.rs",
        "/assets/console.js",
        "/passbook.v1.AccountService/GetAccount",
    ] {
        assert_eq!(browser.get(path).await.status, 404, "{path}");
    }
    for (request, allowed) in [
        (
            "GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nhost: evil\r\nconnection: close\r\n\r\n",
            &[400, 200][..],
        ),
        ("GET /\0 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx: a\0b\r\n\r\n", &[400]),
        (
            "POST /login HTTP/1.1\r\nhost: 127.0.0.1\r\nsec-fetch-site: same-origin\r\n\
          content-length: 5\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n",
            &[400, 415],
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[400, 505]),
    ] {
        let answer = browser.send(request.as_bytes()).await;
        let status = admin::status(&answer);
        assert!(status.is_none_or(|it| allowed.contains(&it)), "{request:?}: {answer}");
    }
    let huge = format!("x: {}", "a".repeat(64 * 1024));
    assert_eq!(browser.request("GET", "/", &[&huge], "").await.status, 431);
}

/// Otherwise a page of another site could read the ledger: its name can resolve to 127.0.0.1.
#[tokio::test(flavor = "multi_thread")]
async fn without_authentication_no_other_name_leads_to_the_console() {
    let (_database, _server, console) = start_console(&[]).await;
    let browser = console.browser();
    let port = console.0.port();
    for (host, status) in [
        (format!("127.0.0.1:{port}"), 200),
        (format!("localhost:{port}"), 200),
        ("[::1]:8080".to_owned(), 200),
        ("10.0.0.7".to_owned(), 200),
        ("evil.example".to_owned(), 421),
        (format!("127.0.0.1.evil.example:{port}"), 421),
        ("localhost.evil.example".to_owned(), 421),
        (String::new(), 421),
    ] {
        let response = browser.request("GET", "/", &[&format!("host: {host}")], "").await;
        assert_eq!(response.status, status, "{host:?}: {}", response.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_keep_nobody_from_the_console() {
    let (_database, _server, console) = start_console(&[]).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(console.0).await.expect("connected"));
    }
    let started_at = Instant::now();
    assert_eq!(console.browser().get("/").await.status, 200);
    times::promise("a page beside 300 silent connections", started_at.elapsed(), seconds(1));
    // Headers or a form that never end, end with the connection.
    let mut stream = silent.pop().expect("the newest");
    stream.write_all(b"GET / HTTP/1.1\r\nx: ").await.expect("written");
    assert_eq!(admin::status(&exchange(stream, b"").await).unwrap_or(408), 408);
}
