//! ListContendedAccounts: the requests that wait for an account, and for how long.

use passbook::proto::admin_service_client::AdminServiceClient;
use tokio::time::Instant;

use crate::harness::*;

on_both_databases! {
    only_accounts_that_requests_wait_for_are_contended,
    a_page_has_the_requested_size,
}

async fn contended(server: &Server, page_size: i32) -> Vec<ContendedAccount> {
    let mut client = AdminServiceClient::new(server.channel());
    let request = ListContendedAccountsRequest { page_size };
    client.list_contended_accounts(request).await.expect("an answer").into_inner().accounts
}

async fn only_accounts_that_requests_wait_for_are_contended(kind: Kind) {
    let (_database, server, client) = start_server(kind).await;
    open_all(&client, &["hot", "cold"]).await;
    client.deposit(deposit("cold", "1")).await.expect("applied");
    assert_eq!(contended(&server, 0).await, []);

    // All 200 wait for nothing if they come in one batch.
    let mut requests = 0.0;
    while contended(&server, 0).await.is_empty() {
        assert!(requests < 10_000.0, "none of them has waited");
        deposit_at_once(&client, "hot", 200).await;
        requests += 200.0;
    }
    client.deposit(deposit("cold", "1")).await.expect("applied");
    let accounts = contended(&server, 0).await;
    let [hot] = accounts.as_slice() else { panic!("one: {accounts:?}") };
    assert_eq!((hot.account_id.as_str(), hot.waits_error), ("hot", 0.0));
    assert!((1.0..=requests).contains(&hot.waits), "{hot:?}");
    assert!(0.0 < hot.seconds_waited && hot.seconds_waited < hot.waits * 10.0, "{hot:?}");
}

/// Each of them waits once, from its arrival until the row was free.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_behind_a_foreign_lock_counts_as_waiting_once() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let (server, admin) = Server::start_with_admin(&database, &[]).await;
    let client = server.client();
    open_all(&client, &["locked", "free"]).await;
    database.execute("BEGIN; SELECT * FROM accounts WHERE account_id = 'locked' FOR UPDATE").await;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { deposit_at_once(&client, "locked", 5).await }
    });
    let began = Instant::now();
    let wait = async || admin.metrics().await.value("passbook_queue_length") == 5.0;
    eventually("all of them wait", wait).await;
    tokio::time::sleep(ms(600)).await;
    client.deposit(deposit("free", "1")).await.expect("applied");
    let late = server.patient().deposit(within(ms(200), deposit("locked", "1"))).await;
    let code = late.expect_err("it is locked").code();
    assert!([Code::Aborted, Code::DeadlineExceeded].contains(&code), "{code:?}");
    database.execute("COMMIT").await;
    waiting.await.expect("all are applied");
    let longest = began.elapsed().as_secs_f64();

    let accounts = contended(&server, 0).await;
    let [locked] = accounts.as_slice() else { panic!("one: {accounts:?}") };
    assert_eq!(locked.account_id, "locked");
    // The first few may have waited for this server's transaction that found the lock.
    assert!((6.0..=12.0).contains(&locked.waits), "{locked:?}");
    let waited = 5.0 * 0.6..locked.waits * longest;
    assert!(waited.contains(&locked.seconds_waited), "not {waited:?}: {locked:?}");
}

async fn a_page_has_the_requested_size(kind: Kind) {
    let (_database, server, client) = start_server(kind).await;
    let account_ids = ["a", "b", "c"];
    for account_id in account_ids {
        open(&client, account_id).await;
    }
    for account_id in account_ids {
        // Requests in the same transaction do not wait for each other.
        let made_wait = async || {
            deposit_at_once(&client, account_id, 50).await;
            contended(&server, 0).await.iter().any(|it| it.account_id == account_id)
        };
        eventually("one waits for another", made_wait).await;
    }
    let all = contended(&server, 1_000_000).await;
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all.is_sorted_by(|left, right| left.waits >= right.waits), "{all:?}");
    assert_eq!(contended(&server, 2).await.len(), 2);
    let mut client = AdminServiceClient::new(server.channel());
    let negative = ListContendedAccountsRequest { page_size: -1 };
    must_fail(client.list_contended_accounts(negative).await, Reason::InvalidPageSize);
}
