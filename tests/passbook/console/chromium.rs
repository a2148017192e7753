//! A real browser: the script, the policy of the pages, keyboard, a phone, and light and dark.

use std::{fs, path::Path};

use super::sessions::Desk;
use crate::harness::{chromium::Chromium, credentials::identity, *};

const TOKEN: &str = "clerk-token-0123456789";
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

/// Writes a picture for the documents, if they are to be updated.
async fn picture(browser: &Chromium, name: &str) {
    if std::env::var("PASSBOOK_TEST_UPDATE").is_ok_and(|value| value == "1") {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations");
        fs::write(folder.join(name), browser.screenshot().await).expect("written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_searches_and_watches() {
    let Some(browser) = Chromium::open(&["--window-size=1000,800"]).await else {
        return skipped("chromedriver is not installed: apt-get install chromium-driver");
    };
    let desk = Desk::open(&[]).await;
    let policy = [identity("clerk", &["*"], &["a", "b", "shop"]), identity("owner", &["*"], &[""])];
    desk.callers.set_policy(&policy.concat());
    desk.callers.set_tokens(
        &[("clerk", TOKEN), ("owner", "owner-token")]
            .map(|(name, token)| credentials::entry(name, token))
            .concat(),
    );
    let client = desk.server.client_of("owner-token");
    eventually("the owner is known", async || {
        client.get_account(missing_account()).await.is_err_and(|it| it.code() == Code::NotFound)
    })
    .await;
    open_all(&client, &["bob", "shop", "vault"]).await;
    let hostile = labels(&[("note", "<img src=x onerror=\"document.title='taken'\">")]);
    let honest = labels(&[("customer", "4711")]);
    open_with(&client, CreateAccountRequest { labels: honest, ..account_of("alice", "USD") }).await;
    open_with(&client, CreateAccountRequest { labels: hostile, ..account_of("alicia", "USD") })
        .await;
    for amount in ["1200.00", "35.50", "80.25", "410.00"] {
        deposited(&client, "alice", amount).await;
        let mut request = transfer("alice", "shop", "99.90");
        request.description = "order <b>4711</b>".to_owned();
        client.transfer(request).await.expect("applied");
    }
    place(&client, hold_named("booking", "alice", "250.00")).await;

    // By keyboard alone: the token, the search, the account.
    let url = |path: &str| format!("http://{}{path}", desk.console.0);
    browser.go(&url("/")).await;
    picture(&browser, "console-login.png").await;
    browser.type_into("#token", TOKEN).await;
    browser.press(ENTER).await;
    browser.sees("Search accounts").await;
    browser.type_into("[name=prefix]", "ali").await;
    browser.press(ENTER).await;
    browser.sees("<img src=x").await;
    assert!(!browser.text().await.contains("bob"));
    browser.run("document.querySelector('td a').focus()").await;
    browser.press(ENTER).await;
    browser.sees("Account alice").await;
    picture(&browser, "console-account.png").await;

    // Live, and the focus stays where it is.
    browser.go(&url("/statement?account_id=alice")).await;
    browser.sees("Live").await;
    browser.press(TAB).await;
    let skips = browser.run("return document.activeElement.className").await;
    assert_eq!(skips, "skip", "the first stop of the keyboard");
    deposited(&client, "alice", "77.77").await;
    browser.sees("77.77").await;
    let focused = browser.run("return document.activeElement.className").await;
    assert_eq!(focused, "skip");
    browser.run("document.getElementById('live-switch').click()").await;
    browser.sees("Paused").await;

    // An account of another department.
    browser.go(&url("/account?id=vault")).await;
    browser.sees("PERMISSION_DENIED").await;
    browser.go(&url("/transactions?account_id=alice")).await;
    browser.sees("order <b>4711</b>").await;
    assert_ne!(browser.run("return document.title").await, "taken");
    assert_eq!(browser.run("return document.cookie").await, "", "not for scripts");

    browser.go(&url("/health")).await;
    browser.sees("Requests: ").await;
    picture(&browser, "console-health.png").await;

    // Nothing was blocked or failed, but for the denied page itself.
    let complaints = browser.complaints().await;
    let complaints: Vec<_> = complaints.iter().filter(|line| !line.contains("403")).collect();
    let expected = complaints.iter().filter(|line| line.contains("401")).count();
    assert_eq!(complaints.len(), expected, "{complaints:?}");

    // On a phone nothing but tables is wider than the window.
    browser.resize(400, 800).await;
    for path in ["/", "/account?id=alice", "/statement?account_id=alice", "/health"] {
        browser.go(&url(path)).await;
        let widths = "return [document.documentElement.scrollWidth, window.innerWidth]";
        let widths = browser.run(widths).await;
        assert!(widths[0].as_u64() <= widths[1].as_u64(), "{path}: {widths}");
    }
    // Every control has a name, every picture a text, every table its headings.
    let nameless = "return [...document.querySelectorAll('input:not([type=hidden]), select')] \
        .filter(it => !it.labels.length).length + \
        [...document.querySelectorAll('svg:not([aria-label])')].length + \
        [...document.querySelectorAll('table')].filter(it => !it.querySelector('th[scope]')).length";
    for path in ["/", "/account?id=alice", "/transactions", "/health"] {
        browser.go(&url(path)).await;
        assert_eq!(browser.run(nameless).await, 0, "{path}");
    }
    let background = "return getComputedStyle(document.body).backgroundColor";
    assert_eq!(browser.run(background).await, "rgb(255, 255, 255)");

    browser.run("document.querySelector('header form button').click()").await;
    browser.sees("Sign in").await;
}

/// How many rows of the feed have this text.
async fn rows_with(browser: &Chromium, text: &str) -> u64 {
    let rows = "[...document.querySelectorAll('#events tbody tr')]";
    let script = format!("return {rows}.filter(it => it.innerText.includes({text:?})).length");
    browser.run(&script).await.as_u64().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn events_appear_on_an_open_page() {
    let Some(browser) = Chromium::open(&["--window-size=1200,800"]).await else {
        return skipped("chromedriver is not installed: apt-get install chromium-driver");
    };
    let desk = Desk::open(&[]).await;
    let policy = [identity("clerk", &["read"], &["a"]), identity("owner", &["*"], &[""])];
    let tokens = [("clerk", TOKEN), ("owner", "owner-token")];
    desk.callers.set_policy(&policy.concat());
    desk.callers.set_tokens(&tokens.map(|(name, token)| credentials::entry(name, token)).concat());
    let client = desk.server.client_of("owner-token");
    eventually("the owner is known", async || {
        client.get_account(missing_account()).await.is_err_and(|it| it.code() == Code::NotFound)
    })
    .await;
    open_all(&client, &["alice", "vault"]).await;

    browser.go(&format!("http://{}/events", desk.console.0)).await;
    browser.type_into("#token", TOKEN).await;
    browser.press(ENTER).await;
    browser.sees("No new event.").await;
    browser.run("window.isSamePage = true").await;

    // What may not be read stays away, and comes before what is seen.
    deposited(&client, "vault", "666.66").await;
    let mut request = deposit("alice", "77.77");
    request.labels = labels(&[("note", "<img src=x onerror=\"document.title='taken'\">")]);
    client.deposit(request).await.expect("applied");
    browser.sees("alice 77.77 USD").await;
    browser.sees("note=<img src=x onerror").await;
    assert_ne!(browser.run("return document.title").await, "taken");
    assert!(!browser.text().await.contains("666.66"));

    // Rows stay, the latest is on top, and none comes twice.
    deposited(&client, "alice", "88.88").await;
    browser.sees("alice 88.88 USD").await;
    assert_eq!(rows_with(&browser, "88.88").await, 1);
    assert_eq!(rows_with(&browser, "77.77").await, 1);
    let first = browser.run("return document.querySelector('#events tbody tr').innerText").await;
    assert!(first.as_str().is_some_and(|it| it.contains("88.88")), "{first}");

    // The page keeps 200 rows.
    post_many(&client, "alice", 230).await;
    deposited(&client, "alice", "99.99").await;
    browser.sees("alice 99.99 USD").await;
    let count = browser.run("return document.querySelectorAll('#events tbody tr').length").await;
    assert_eq!(count, 200);
    assert_eq!(rows_with(&browser, "77.77").await, 0, "the oldest are gone");
    assert_eq!(browser.run("return window.isSamePage").await, true, "it was never loaded again");

    // Paused, and then nothing is missing.
    browser.run("document.getElementById('live-switch').click()").await;
    browser.sees("Paused").await;
    deposited(&client, "alice", "11.11").await;
    browser.run("document.getElementById('live-switch').click()").await;
    browser.sees("alice 11.11 USD").await;

    // A right that is taken away is the reason that the page shows, and a token that is revoked ends it.
    desk.callers.set_policy(&policy.concat().replacen("\"read\"", "\"GetAccount\"", 1));
    browser.sees("The page shows what it was. PERMISSION_DENIED").await;
    desk.callers.set_tokens(&credentials::entry("owner", "owner-token"));
    browser.sees("You are signed out").await;
    browser.sees("alice 11.11 USD").await;
}
