//! Login, logout, and what ends a session.

use crate::harness::{
    certificates::{Authority, text},
    console::{Browser, Console},
    credentials::{Callers, entry, identity},
    *,
};

const TOKEN: &str = "clerk-token-0123456789";

/// A server with one clerk, who may do everything.
pub struct Desk {
    pub callers: Callers,
    pub server: Server,
    pub console: Console,
    _database: TestDatabase,
}

impl Desk {
    pub async fn open(more: &[&str]) -> Self {
        let database = TestDatabase::create(Kind::Sqlite).await;
        let callers = Callers::new(&[("clerk", TOKEN)], &identity("clerk", &["*"], &[""]));
        let (server, console) = callers.serve_with_console(&database, more).await;
        Self { callers, server, console, _database: database }
    }
}

/// Whether the browser sees pages, and not the login form.
async fn is_signed_in(browser: &Browser<'_>) -> bool {
    let response = browser.get("/").await;
    match response.status {
        200 => true,
        401 => {
            assert!(response.body.contains("name=\"token\""), "{}", response.body);
            false
        }
        status => panic!("{status}: {}", response.body),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_begins_with_a_token_and_ends_with_the_logout() {
    let desk = Desk::open(&[]).await;
    let mut browser = desk.console.browser();
    assert!(!is_signed_in(&browser).await);
    for path in
        ["/account?id=a", "/events", "/health", "/request", "/transactions", "/login", "/logout"]
    {
        let status = browser.get(path).await.status;
        let expected = if path.starts_with("/log") { 405 } else { 401 };
        assert_eq!(status, expected, "{path}");
    }
    for wrong in ["", "other", "Bearer", "é", "two tokens", &TOKEN[1..], &format!("{TOKEN}x")] {
        let response = browser.log_in(wrong).await;
        assert_eq!((response.status, response.cookie()), (401, None), "{wrong:?}");
        assert!(!is_signed_in(&browser).await, "{wrong:?}");
    }
    let response = browser.log_in(&format!(" {TOKEN}\r\n")).await;
    let cookie = response.cookie().expect("a cookie");
    assert_eq!(response.status, 303, "{response:?}");
    for attribute in ["httponly", "samesite=strict", "path=/", "max-age=28800"] {
        assert!(cookie.split("; ").any(|it| it == attribute), "{attribute} is not in {cookie}");
    }
    assert!(!cookie.contains(TOKEN), "{cookie}");
    assert!(is_signed_in(&browser).await);
    assert!(browser.page("/").await.contains("Sign out"));

    let response = browser.post("/logout", "").await;
    assert_eq!(response.status, 303, "{response:?}");
    assert!(response.cookie().expect("removed").contains("max-age=0"), "{response:?}");
    assert!(!is_signed_in(&browser).await, "the server has forgotten it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_ends_its_sessions_at_once() {
    let desk = Desk::open(&[]).await;
    let browser = desk.console.signed_in(TOKEN).await;
    assert!(is_signed_in(&browser).await);
    desk.callers.set_tokens(&entry("clerk", "another-token"));
    eventually("the token is revoked", async || !is_signed_in(&browser).await).await;
    let response = browser.get("/account?id=alice").await;
    assert!(response.body.contains("no longer valid"), "{}", response.body);
    assert!(response.body.contains("value=\"/account?id=alice\""), "{}", response.body);
    assert!(is_signed_in(&desk.console.signed_in("another-token").await).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_page_is_one_of_the_console() {
    let desk = Desk::open(&[]).await;
    let browser = desk.console.browser();
    for (next, location) in [
        ("%2Faccount%3Fid%3Dalice", "/account?id=alice"),
        ("", "/"),
        ("https%3A%2F%2Fevil.example", "/"),
        ("%2F%2Fevil.example", "/"),
        ("%2F%5Cevil.example", "/"),
        ("evil", "/"),
        ("%2F%0D%0Aset-cookie%3A%20a%3Db", "/"),
        ("%2F%09%2Fevil.example", "/"),
        ("javascript%3Aalert(1)", "/"),
    ] {
        let response = browser.post("/login", &format!("token={TOKEN}&next={next}")).await;
        assert_eq!(response.header("location"), Some(location), "{next}: {response:?}");
        assert_eq!(response.head.matches("set-cookie").count(), 1, "{next}: {response:?}");
        let wrong = browser.post("/login", &format!("token=wrong&next={next}")).await;
        assert!(!wrong.body.contains("evil") && !wrong.body.contains("alert(1)"), "{}", wrong.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_tls_the_cookie_is_for_this_host_only() {
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let tls = authority.arguments();
    let tls: Vec<_> = tls.iter().map(String::as_str).collect();
    let desk = Desk::open(&tls).await;
    let mut browser = desk.console.tls_browser(&authority);
    let response = browser.log_in(TOKEN).await;
    let cookie = response.cookie().expect("a cookie");
    assert!(cookie.starts_with("__host-passbook-session="), "{cookie}");
    assert!(cookie.ends_with("; secure"), "{cookie}");
    browser.cookie = browser.cookie.map(|cookie| cookie.replace("__host-", "__Host-"));
    assert!(is_signed_in(&browser).await);
    let plain = desk.console.browser().send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(!plain.starts_with("HTTP"), "{plain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_that_nobody_could_use_safely_is_an_error() {
    let (everywhere, here) = (["--console-listen", "0.0.0.0:0"], ["--console-listen", "[::1]:0"]);
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let callers = Callers::new(&[("clerk", TOKEN)], &identity("clerk", &["*"], &[""]));
    let (tls, mutual, files) =
        (authority.arguments(), authority.mutual_arguments(), callers.arguments());
    let (tls, mutual, files) = (strs(&tls), strs(&mutual), strs(&files));
    let policy = text(&callers.policy_file());
    let by_certificate = [&mutual[..], &["--policy-file", &policy]].concat();
    let check = async |parts: &[&[&str]]| {
        passbook(&[&["config", "check"], &parts.concat()[..]].concat()).await
    };
    for (parts, names) in [
        (&[&everywhere[..]][..], ["console_listen", "insecure"]),
        (&[&everywhere, &tls], ["console_listen", "authentication"]),
        (&[&everywhere, &files], ["console_listen", "TLS"]),
        (&[&here, &by_certificate], ["console_listen", "tokens_file"]),
    ] {
        let outcome = check(parts).await;
        let why = outcome.must_fail(2);
        assert!(names.iter().all(|name| why.contains(name)), "{names:?} in {why}");
    }
    for parts in [
        &[&everywhere[..], &tls, &files][..],
        &[&everywhere, &["--insecure"]],
        &[&here, &by_certificate, &files[..2]],
        &[&here],
    ] {
        check(parts).await.must_succeed();
    }
}

fn strs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}
