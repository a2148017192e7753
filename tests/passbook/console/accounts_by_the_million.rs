//! The pages of a ledger with a million accounts.

use std::time::Instant;

use crate::harness::*;

/// The accounts of the ledger.
const ACCOUNTS: usize = 1_000_000;
/// The times that each page is asked for.
const TIMES: usize = 5;

async fn pages_are_fast_with_a_million_accounts(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (server, console) = Server::start_with_console(&database, &[]).await;
    let client = server.client();
    open(&client, "pattern").await;
    database.copy_account("a", ACCOUNTS).await;
    database.execute("ANALYZE accounts").await;
    post_many(&client, "a0500000", 300).await;
    database
        .execute("UPDATE accounts SET labels = '{\"rare\": \"yes\"}' WHERE account_id = 'a0999999'")
        .await;

    let browser = console.browser();
    for path in [
        "/",
        "/?prefix=a05",
        "/?prefix=a0500000",
        "/?label=rare%3Dyes",
        "/?prefix=a0999&label=rare%3Dyes",
        "/account?id=a0500000",
        "/statement?account_id=a0500000",
        "/transactions?account_id=a0500000",
        "/verify?account_id=a0500000",
    ] {
        let mut times = Vec::new();
        for _ in 0..TIMES {
            let started_at = Instant::now();
            browser.page(path).await;
            times.push(started_at.elapsed());
        }
        times.sort();
        let median = times[TIMES / 2];
        times::figure(&format!("{kind:?} {path}: {median:?} at the median"), median < ms(200));
    }
    let found = browser.page("/?prefix=a0999&label=rare%3Dyes").await;
    assert!(found.contains("/account?id=a0999999"), "{found}");
}

on_both_databases!(pages_are_fast_with_a_million_accounts);
