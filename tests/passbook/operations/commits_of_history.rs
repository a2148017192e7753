//! The commits that a migration makes of all changes from before it.

use std::collections::BTreeMap;

use crate::harness::{
    ring::{RingLoad, Stop, open_ring},
    *,
};

on_both_databases! {
    old_events_of_one_time_come_in_the_order_of_each_account,
}

/// What happened to each account, in order.
fn by_account(events: &[Event]) -> BTreeMap<String, Vec<String>> {
    let mut accounts = BTreeMap::<String, Vec<String>>::new();
    for event in events {
        let opened = event.account.iter().map(|it| (&it.account_id, "opened".to_owned()));
        let changed = event.account_change.iter();
        let changed = changed.map(|it| (&it.account_id, format!("version {}", it.version)));
        let entries = event.transaction.iter().flat_map(|it| &it.entries);
        let entries = entries.map(|it| (&it.account_id, format!("entry {}", it.sequence)));
        for (account_id, what) in opened.chain(changed).chain(entries) {
            accounts.entry(account_id.clone()).or_default().push(what);
        }
    }
    accounts
}

/// Gives all changes the same time, and their transactions ids in another order.
async fn forget_order(database: &TestDatabase) {
    let (digits, id) = match database.kind {
        Kind::Sqlite => ("hex(transaction_id)", "unhex(ID)"),
        Kind::Postgres => ("replace(transaction_id::text, '-', '')", "(ID)::uuid"),
    };
    // What is random comes first.
    let swapped =
        format!("substr({digits}, 21) || substr({digits}, 13, 8) || substr({digits}, 1, 12)");
    let id = id.replace("ID", &swapped);
    for table in ["accounts", "account_changes", "requests", "entries"] {
        database.execute(&format!("UPDATE {table} SET create_time_us = 1700000000000000")).await;
    }
    for table in ["requests", "entries"] {
        database.execute(&format!("UPDATE {table} SET transaction_id = {id}")).await;
    }
}

async fn old_events_of_one_time_come_in_the_order_of_each_account(kind: Kind) {
    let (database, server, client) = start_server(kind).await;
    let (accounts, _) = open_ring(&client, 4).await;
    let load = RingLoad::on(&accounts, 8, Stop::After(30), seed());
    let updates = async {
        for number in 0..40 {
            let labels = labels(&[("number", &number.to_string())]);
            let update_mask = mask(&["labels"]);
            let update = update_of(&accounts[number % accounts.len()]);
            let update = UpdateAccountRequest { labels, update_mask, ..update };
            client.update_account(update).await.expect("updated");
        }
    };
    tokio::join!(load.run(std::slice::from_ref(&client)), updates);
    let mut count = 0;
    for table in ["requests WHERE rejection IS NULL", "accounts", "account_changes"] {
        count += database.count(table).await as usize;
    }
    let events = EventWatching::begin(&client, all_events()).await.take(count).await;
    drop(server);

    let tampering = Tampering::begin(&database).await;
    forget_order(&database).await;
    tampering.end().await;
    database.migrate_down_before("commits").await;
    database.passbook(&["migrate", "up"]).await.must_succeed();

    let server = Server::start(&database).await;
    let again = EventWatching::begin(&server.client(), all_events()).await.take(count).await;
    assert_eq!(by_account(&again), by_account(&events));
}
