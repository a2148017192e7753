//! Filtered lists over more rows than one page scans, with few matches.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::harness::{
    credentials::{Callers, identity},
    *,
};

on_both_databases! {
    a_page_of_accounts_scans_a_bounded_number_of_rows,
    a_list_of_accounts_continues_from_one_prefix_to_the_next,
    a_page_of_holds_scans_a_bounded_number_of_rows,
}

async fn label(database: &TestDatabase, account_id: &str) {
    let update = "UPDATE accounts SET labels = '{\"rare\": \"yes\"}' WHERE account_id =";
    database.execute(&format!("{update} '{account_id}'")).await;
}

fn rare() -> ListAccountsRequest {
    let labels = labels(&[("rare", "yes")]);
    ListAccountsRequest { labels, ..Default::default() }
}

fn ids(pages: Vec<Vec<Account>>) -> Vec<Vec<String>> {
    let of_page = |page: Vec<Account>| page.into_iter().map(|it| it.account_id).collect();
    pages.into_iter().map(of_page).collect()
}

async fn a_page_of_accounts_scans_a_bounded_number_of_rows(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open(&client, "pattern").await;
    database.copy_account("a-", 24_000).await;
    for account_id in ["a-00001", "a-12000", "a-23999"] {
        label(&database, account_id).await;
    }

    let expected = [vec!["a-00001"], vec!["a-12000"], vec!["a-23999"]];
    assert_eq!(
        ids(all_pages!(client.list_accounts(rare()).accounts)),
        expected,
        "10,000 accounts a page"
    );
    let by_one = ListAccountsRequest { page_size: 1, ..rare() };
    let found: Vec<_> = ids(all_pages!(client.list_accounts(by_one).accounts)).concat();
    assert_eq!(found, expected.concat());
    let none = ListAccountsRequest { currency_code: "EUR".to_owned(), ..Default::default() };
    assert_eq!(
        ids(all_pages!(client.list_accounts(none).accounts)),
        [[""; 0]; 3],
        "nothing is no reason to go on"
    );
}

async fn a_list_of_accounts_continues_from_one_prefix_to_the_next(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let policy = identity("clerk", &["admin", "read", "write"], &["c-", "a-", "a-0", "b-", "z-"]);
    let callers = Callers::new(&[("clerk", "clerk-token")], &policy);
    let open_to_all = Server::start(&database).await;
    open(&open_to_all.client(), "pattern").await;
    drop(open_to_all);
    for (prefix, count) in [("a-", 6000), ("b", 12_000), ("c-", 6000), ("d-", 100)] {
        database.copy_account(prefix, count).await;
    }
    for account_id in ["a-00001", "a-06000", "b01000", "c-04000", "c-04001", "d-00001"] {
        label(&database, account_id).await;
    }
    let server = callers.serve(&database, &[]).await;
    let client = server.client_of("clerk-token");

    // Accounts outside the prefixes are not scanned: 6000 of a-, 4000 of c-, then the rest.
    let expected = [vec!["a-00001", "a-06000", "c-04000"], vec!["c-04001"]];
    assert_eq!(ids(all_pages!(client.list_accounts(rare()).accounts)), expected);
    let by_one = ListAccountsRequest { page_size: 1, ..rare() };
    assert_eq!(ids(all_pages!(client.list_accounts(by_one).accounts)).concat(), expected.concat());
    let all = ListAccountsRequest { page_size: 1000, ..Default::default() };
    assert_eq!(ids(all_pages!(client.list_accounts(all).accounts)).concat().len(), 12_000);
}

async fn a_page_of_holds_scans_a_bounded_number_of_rows(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    let amount = if kind == Kind::Sqlite { "'1.00'" } else { "1" };
    let insert = format!(
        "INSERT INTO holds (hold_id, account_key, amount, state, request_id,
             create_time_us, update_time_us)
         SELECT 'h-' || (100000 + n), account_key, {amount},
             CASE WHEN n IN (1, 12000) THEN 'expired' ELSE 'released' END,
             'r-' || n, 1, 1
         FROM {}, (SELECT account_key FROM accounts) alice",
        database.numbers(24_000)
    );
    database.execute(&insert).await;
    place(&client, hold_named("h-999999", "alice", "1")).await;

    let mut pages = Vec::new();
    for state in [HoldState::Expired, HoldState::Open] {
        let request = ListHoldsRequest { state: state.into(), ..holds_of("alice") };
        for page in all_pages!(client.list_holds(request).holds) {
            pages.push(page.into_iter().map(|hold| hold.hold_id).collect::<Vec<_>>());
        }
    }
    let none = Vec::<&str>::new();
    let expired = [vec!["h-100001"], vec!["h-112000"], none.clone()];
    let open = [none.clone(), none, vec!["h-999999"]];
    assert_eq!(pages, [expired, open].concat(), "10,000 holds a page");
}

/// Captures existing holds one after the other. Returns the sorted latencies.
async fn capture_times(client: &Client, holds: std::ops::Range<usize>) -> Vec<Duration> {
    let mut times = Vec::new();
    for number in holds {
        let began = Instant::now();
        captured(client, capture(&format!("h-{number}"))).await;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times
}

/// No call is shed, the server stays ready, and captures, which look up their hold first,
/// continue.
#[tokio::test(flavor = "multi_thread")]
async fn captures_continue_while_forty_callers_list_without_a_match() {
    const CAPTURES: usize = 100;
    let database = TestDatabase::create_for(Kind::Postgres, Load::Heavy).await;
    let server = Server::start_with(&database, &["--admin-listen", "127.0.0.1:0"]).await;
    let (client, admin) = (server.client(), server.admin());
    open(&client, "pattern").await;
    for part in 0..scale() {
        database.copy_account(&format!("a{part}-"), 99_999).await;
    }
    database.execute("ANALYZE accounts").await;
    open_funded(&client, "alice", "1000").await;
    for number in 0..2 * CAPTURES {
        place(&client, hold_named(&format!("h-{number}"), "alice", "1")).await;
    }
    let alone = capture_times(&client, 0..CAPTURES).await;

    let mut lists = JoinSet::new();
    let is_over = Arc::new(AtomicBool::new(false));
    for _ in 0..40 {
        let (client, is_over) = (server.patient(), is_over.clone());
        lists.spawn(async move {
            let (mut pages, mut request) = (0, rare());
            while !is_over.load(Ordering::Relaxed) {
                let page = client.list_accounts(within(PATIENCE, request.clone())).await;
                request.page_token = page.expect("no call is shed").next_page_token;
                pages += 1;
            }
            pages
        });
    }
    let beside = capture_times(&client, CAPTURES..2 * CAPTURES).await;
    assert_eq!(admin.get("/readyz").await, (200, "ready\n".to_owned()));
    is_over.store(true, Ordering::Relaxed);
    let pages: usize = lists.join_all().await.iter().sum();
    assert!(pages > 40, "lists went on, too: {pages} pages");
    assert!(!server.log().contains("not ready"), "{}", server.log());

    let p99 = |times: &[Duration]| times[times.len() * 99 / 100];
    let (alone, beside) = (p99(&alone), p99(&beside));
    let figure = format!("p99 of captures: {alone:?} alone, {beside:?} beside 40 who list");
    times::figure(&figure, beside <= 3 * alone);
}
