//! The page of all events: what it shows, to whom, and where it goes on.

use tokio::time::Instant;

use super::pages::{has, start_console};
use crate::harness::{
    console::{Browser, encoded},
    credentials::{Callers, identity},
    *,
};

/// The address of what comes next, as the script of the page takes it.
fn next(page: &str) -> String {
    let (_, rest) = page.split_once("data-next=\"").unwrap_or_else(|| panic!("no feed: {page}"));
    let (next, _) = rest.split_once('"').expect("an address");
    next.replace("&#38;", "&").replace("&amp;", "&")
}

/// The texts of the rows, cell by cell.
fn rows(page: &str) -> Vec<Vec<String>> {
    let Some((_, body)) = page.split_once("<tbody>") else { return Vec::new() };
    let body = body.split("</tbody>").next().unwrap_or_default();
    let texts = |row: &str| {
        let cells = row.split("<td").skip(1).map(|cell| {
            let parts = cell.split('<').map(|part| part.split_once('>').map_or("", |it| it.1));
            let first = cell.split_once('>').map_or("", |it| it.1);
            let first = first.split('<').next().unwrap_or_default();
            format!("{first}{}", parts.skip(1).collect::<String>())
        });
        cells.map(|it| it.trim().to_owned()).collect::<Vec<_>>()
    };
    body.split("</tr>").map(texts).filter(|row| !row.is_empty()).collect()
}

/// The rows of this page and of the next ones, until there are so many, with the address that follows.
async fn follow(
    browser: &Browser<'_>,
    mut path: String,
    count: usize,
) -> (Vec<Vec<String>>, String) {
    let mut all = Vec::new();
    while all.len() < count {
        let page = browser.page(&path).await;
        let mut come = rows(&page);
        come.append(&mut all);
        (all, path) = (come, next(&page));
    }
    (all, path)
}

/// The page that begins with the first event behind those that have happened.
async fn begin(client: &Client, events: usize) -> String {
    let mut watching = EventWatching::begin(client, all_events()).await;
    watching.take(events).await;
    format!("/events?after={}", encoded(&watching.token))
}

async fn a_page_shows_what_has_happened_since(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (server, console) = Server::start_with_console(&database, &[]).await;
    let (client, browser) = (server.client(), console.browser());
    let began = Instant::now();
    let first = browser.page("/events").await;
    has(&first, &["No new event.", "data-live", "data-rows-max=\"200\"", "Newer events"]);
    let path = next(&first);
    assert!(path.starts_with("/events?after="), "{path}");
    assert!(rows(&browser.page(&path).await).is_empty());
    // Two heartbeats that are due after 5 s would be late twice.
    times::promise("two pages without an event", began.elapsed(), seconds(2));

    let labels = labels(&[("customer", "4711")]);
    open_with(&client, CreateAccountRequest { labels, ..account_of("alice", "USD") }).await;
    open_with(&client, account_of("bob", "EUR")).await;
    let mut request = deposit("alice", "100.00");
    request.description = "two tickets".to_owned();
    let posted = client.deposit(request).await.expect("applied").transaction.expect("one");
    place(&client, hold_named("booking", "alice", "25.00")).await;
    captured(&client, capture("booking")).await;
    let reason = "chargeback".to_owned();
    let account_id = "alice".to_owned();
    let freeze = FreezeAccountRequest { account_id, reason, ..Default::default() };
    client.freeze_account(freeze).await.expect("frozen");

    let (all, after) = follow(&browser, path.clone(), 6).await;
    let kinds: Vec<_> = all.iter().map(|row| row[1].as_str()).collect();
    let expected = [
        "account frozen",
        "hold captured",
        "hold placed",
        "transaction",
        "account opened",
        "account opened",
    ];
    assert_eq!(kinds, expected, "the latest first");
    assert_eq!(all[0][2..5], ["alice", "state: &#34;open&#34; to &#34;frozen&#34;", "chargeback"]);
    assert_eq!(all[1][3], "alice -25.00 USD");
    assert_eq!(all[2][2..4], ["booking", "alice 25.00 USD"]);
    assert_eq!(all[3][2..5], [&*posted.transaction_id, "alice 100.00 USD", "two tickets"]);
    assert_eq!(all[4][2..4], ["bob", "EUR"]);
    assert_eq!(all[5][5], "customer=4711");

    // The page goes on behind them, and a filter goes with it.
    client.deposit(deposit_in("bob", "EUR", "7.00")).await.expect("applied");
    let (more, _) = follow(&browser, after, 1).await;
    assert_eq!(more.len(), 1, "{more:?}");
    for (filter, count) in [("prefix=al", 5), ("kind=HOLD_PLACED", 1), ("currency=EUR", 2)] {
        let (found, after) = follow(&browser, format!("{path}&{filter}"), count).await;
        assert_eq!(found.len(), count, "{filter}: {found:?}");
        assert!(after.contains(filter), "{after}");
    }
}

on_both_databases!(a_page_shows_what_has_happened_since);

#[tokio::test(flavor = "multi_thread")]
async fn many_events_are_cut_and_the_page_says_so() {
    let (_database, server, console) = start_console(&[]).await;
    let (client, browser) = (server.client(), console.browser());
    open(&client, "alice").await;
    let mut path = begin(&client, 1).await;
    post_many(&client, "alice", 450).await;
    let (mut shown, mut left_out) = (0, 0);
    while shown + left_out < 450 {
        let page = browser.page(&path).await;
        for row in rows(&page) {
            if row[3].starts_with("More happens") {
                return skipped("this machine takes 2 s for 450 events");
            }
            if row[1] == "left out" {
                let count: usize = row[3].split(' ').next().expect("a count").parse().expect("one");
                left_out += count;
            } else {
                shown += 1;
            }
        }
        assert!(rows(&page).len() <= 201, "{}", rows(&page).len());
        path = next(&page);
    }
    assert_eq!(shown + left_out, 450, "{shown} are shown");
}

/// A page reads 2,000 events, or for 2 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_cannot_follow_goes_on_with_what_happens_then() {
    const COUNT: usize = 4000;
    let (_database, server, console) = start_console(&[]).await;
    let (client, browser) = (server.client(), console.browser());
    open(&client, "alice").await;
    let mut path = begin(&client, 1).await;
    post_many(&client, "alice", COUNT).await;
    while path.contains("after=") {
        let page = browser.page(&path).await;
        path = next(&page);
        let rows = rows(&page);
        let Some(newest) = rows.first() else {
            return skipped("what this machine sends has pauses of 100 ms");
        };
        let counts = rows.iter().filter_map(|row| row[3].split_once(" events that happened"));
        let older: usize = counts.map(|it| it.0.parse::<usize>().expect("a count")).sum();
        assert!(rows.len() + older < 3000, "{} and {older}", rows.len());
        let is_behind = newest[3].starts_with("More happens");
        assert_eq!(is_behind, path == "/events", "{newest:?}, then {path}");
    }
    assert_eq!(path, "/events", "without a token");
    has(&browser.page(&path).await, &["No new event."]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_decides_which_events_a_person_sees() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let policy = [
        identity("boss", &["*"], &[""]),
        identity("clerk", &["read"], &["a"]),
        identity("guest", &["ListAccounts"], &["a"]),
    ];
    let tokens = [("boss", "boss-token"), ("clerk", "clerk-token"), ("guest", "guest-token")];
    let callers = Callers::new(&tokens, &policy.concat());
    let (server, console) = callers.serve_with_console(&database, &[]).await;
    let client = server.client_of("boss-token");
    open_all(&client, &["alice", "bob"]).await;
    let path = begin(&client, 2).await;
    deposited(&client, "bob", "666.00").await;
    deposited(&client, "alice", "50.00").await;
    client.transfer(transfer("alice", "bob", "11.00")).await.expect("applied");
    deposited(&client, "bob", "667.00").await;
    deposited(&client, "alice", "1.00").await;

    let clerk = console.signed_in("clerk-token").await;
    let (seen, _) = follow(&clerk, path.clone(), 3).await;
    let legs: Vec<_> = seen.iter().map(|row| row[3].as_str()).collect();
    assert_eq!(legs, ["alice 1.00 USD", "alice -11.00 USD", "alice 50.00 USD"]);
    let boss = console.signed_in("boss-token").await;
    let (seen, _) = follow(&boss, path.clone(), 5).await;
    assert_eq!(seen[2][3], "alice -11.00 USD, bob 11.00 USD");

    let denied = console.signed_in("guest-token").await.get(&path).await;
    assert_eq!(denied.status, 403, "{}", denied.body);
    has(&denied.body, &["PERMISSION_DENIED", "name=\"prefix\""]);
    let outside = console.browser().get(&path).await;
    assert_eq!(outside.status, 401, "{}", outside.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_cannot_show_has_a_reason() {
    let (_database, _server, console) = start_console(&[]).await;
    let browser = console.browser();
    for (query, text) in [
        ("after=nonsense", "INVALID_PAGE_TOKEN"),
        ("prefix=%2F", "INVALID_FILTER"),
        ("kind=NONSENSE", "INVALID_FILTER"),
        ("currency=nonsense", "currency_code"),
    ] {
        let response = browser.get(&format!("/events?{query}")).await;
        assert_eq!(response.status, 400, "{query}: {}", response.body);
        has(&response.body, &[text]);
    }
    // The token of another ledger, as after a restore: the next page begins with what happens then.
    let (_other_database, other, _) = start_console(&[]).await;
    open(&other.client(), "alice").await;
    let path = begin(&other.client(), 1).await;
    let page = browser.page(&format!("{path}&prefix=al")).await;
    has(&page, &["EVENT_TOKEN_UNKNOWN", "No new event."]);
    assert_eq!(next(&page), "/events?prefix=al");
}

/// Texts that would end an attribute, a tag or a script, in every place that an event shows.
#[tokio::test(flavor = "multi_thread")]
async fn texts_of_events_are_never_markup() {
    const MARKUP: &str = "\"><img src=x onerror=alert(1)></td><script>alert(1)</script>";
    let (_database, server, console) = start_console(&[]).await;
    let client = server.client();
    open(&client, "bob").await;
    let path = begin(&client, 1).await;
    let labels = labels(&[("note", MARKUP)]);
    open_with(
        &client,
        CreateAccountRequest { labels: labels.clone(), ..account_of("alice", "USD") },
    )
    .await;
    let mut request = deposit("alice", "5");
    (request.description, request.labels) = (MARKUP.to_owned(), labels.clone());
    client.deposit(request).await.expect("applied");
    let mut request = hold("alice", "1");
    (request.description, request.labels) = (MARKUP.to_owned(), labels);
    place(&client, request).await;
    let (account_id, reason) = ("alice".to_owned(), MARKUP.to_owned());
    let freeze = FreezeAccountRequest { account_id, reason, ..Default::default() };
    client.freeze_account(freeze).await.expect("frozen");

    let browser = console.browser();
    let (seen, _) = follow(&browser, path.clone(), 4).await;
    let texts = seen.iter().flatten().filter(|text| text.contains("&#60;img src=x")).count();
    assert_eq!(texts, 7, "four labels, two descriptions and a reason: {seen:?}");
    let page = browser.page(&path).await;
    assert!(!page.contains("<img") && !page.contains("<script>"), "{page}");
}
