//! Lists that are read a page at a time while two servers add to them: nothing that was there when
//! the paging began is skipped or told twice.

use std::collections::BTreeSet;

use passbook::proto::{
    Entry, EntryOrder, ListEntriesRequest, ListHoldsRequest, ListTransactionsRequest,
    PostTransactionRequest, Transaction,
};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    harness::{checker, *},
    post_transaction::leg,
};

on_both_databases! {
    a_statement_in_ascending_order_sees_all_that_is_added_until_it_catches_up,
    a_statement_in_descending_order_skips_and_repeats_nothing,
    transactions_of_an_account_are_neither_skipped_nor_told_twice,
    transactions_of_all_accounts_are_neither_skipped_nor_told_twice,
    holds_are_neither_skipped_nor_told_twice,
}

/// Entries of `busy`, or holds on it, that are there before the paging begins.
const THERE_BEFORE: usize = 60;
const PAGE_SIZE: i32 = 7;
/// How often a list is read from its beginning to its end.
const READINGS: usize = 12;
const WRITERS: usize = 6;
/// What each of them waits for after each addition, so that a reader catches up.
const WRITER_PAUSE: std::time::Duration = ms(20);

/// Two servers, and callers that add to the account `busy` through both until this is dropped.
struct Busy {
    database: TestDatabase,
    clients: Vec<Client>,
    stop: watch::Sender<bool>,
    writers: JoinSet<()>,
    _servers: Vec<Server>,
}

impl Busy {
    async fn start(kind: Kind) -> Self {
        let database = TestDatabase::create_for(kind, Weight::Heavy).await;
        let servers = Server::start_fleet(&database, 2).await;
        let clients: Vec<_> = servers.iter().map(Server::client).collect();
        open_funded(&clients[0], "busy", "1000000").await;
        open_funded(&clients[0], "idle", "1000000").await;
        for number in 1..THERE_BEFORE {
            add(&clients[number % 2], number).await;
        }
        let (stop, stopped) = watch::channel(false);
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (client, stopped) = (clients[writer % 2].clone(), stopped.clone());
            writers.spawn(async move {
                let mut number = writer;
                while !*stopped.borrow() {
                    add(&client, number).await;
                    number += 1;
                    tokio::time::sleep(WRITER_PAUSE).await;
                }
            });
        }
        Self { database, clients, stop, writers, _servers: servers }
    }

    /// The server that answers the next page: now one, now the other.
    fn reader(&self) -> Client {
        self.clients[fastrand::usize(..2)].clone()
    }

    async fn end(self, what: &str, added: usize) {
        println!("{:?}: {what}: {added} added while it was read", self.database.kind);
        assert!(added >= READINGS, "{added}: nothing was added meanwhile");
        self.stop.send_replace(true);
        self.writers.join_all().await;
        checker::assert_consistent(&self.database).await;
    }
}

/// Adds to `busy` a hold with a random name, and a transaction of one entry, or of three that are
/// in two of its places in the statement.
async fn add(client: &Client, number: usize) {
    let hold = hold_named(&format!("{:08x}", fastrand::u32(..)), "busy", "0.01");
    Asked::PlaceHold(hold).settle(client).await.expect("the hold is placed");
    let request = PostTransactionRequest {
        request_id: new_request_id(),
        legs: vec![leg("busy", "1"), leg("idle", "-1"), leg("busy", "2")],
        ..PostTransactionRequest::default()
    };
    let asked = match number % 2 {
        0 => Asked::Deposit(deposit("busy", "1")),
        _ => Asked::Post(request),
    };
    asked.settle(client).await.expect("it is made");
}

fn statement(order: EntryOrder) -> ListEntriesRequest {
    ListEntriesRequest {
        account_id: "busy".to_owned(),
        page_size: PAGE_SIZE,
        order: order.into(),
        ..ListEntriesRequest::default()
    }
}

fn assert_no_gap(entries: &[Entry], first: i64, step: i64) {
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!(entry.sequence, first + step * index as i64, "entry {index} of those listed");
    }
}

async fn a_statement_in_ascending_order_sees_all_that_is_added_until_it_catches_up(kind: Kind) {
    let busy = Busy::start(kind).await;
    let mut added = 0;
    for _ in 0..READINGS {
        let there = get(&busy.clients[0], "busy").await.sequence;
        let mut request = statement(EntryOrder::Ascending);
        let mut entries = Vec::new();
        let seen = loop {
            // What is there now belongs into this page or a later one.
            let seen = get(&busy.clients[1], "busy").await.sequence;
            let answer = busy.reader().list_entries(request.clone()).await.expect("a page");
            let page = answer.into_inner();
            entries.extend(page.entries);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break seen;
            }
        };
        assert_no_gap(&entries, 1, 1);
        assert!(entries.len() as i64 >= seen, "{} entries of {seen}", entries.len());
        added += entries.len() - there as usize;
        // Caught up; later ones are found by the last sequence.
        let last = entries.len() as i64;
        let rest = ListEntriesRequest { after_sequence: last, ..statement(EntryOrder::Ascending) };
        let answer = busy.reader().list_entries(rest).await.expect("a page").into_inner();
        assert_no_gap(&answer.entries, last + 1, 1);
    }
    busy.end("ascending entries", added).await;
}

async fn a_statement_in_descending_order_skips_and_repeats_nothing(kind: Kind) {
    let busy = Busy::start(kind).await;
    let mut added = 0;
    for _ in 0..READINGS {
        let there = get(&busy.clients[0], "busy").await.sequence;
        let mut request = statement(EntryOrder::Descending);
        let mut entries = Vec::new();
        loop {
            let answer = busy.reader().list_entries(request.clone()).await.expect("a page");
            let page = answer.into_inner();
            entries.extend(page.entries);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        assert!(entries.len() as i64 >= there, "{} entries of {there}", entries.len());
        assert_no_gap(&entries, entries.len() as i64, -1);
        added += (get(&busy.clients[0], "busy").await.sequence - there) as usize;
    }
    busy.end("descending entries", added).await;
}

async fn transactions(busy: &Busy, account_id: &str) -> Vec<Transaction> {
    let mut request = ListTransactionsRequest {
        account_id: account_id.to_owned(),
        page_size: PAGE_SIZE,
        ..ListTransactionsRequest::default()
    };
    let mut transactions = Vec::new();
    loop {
        let answer = busy.reader().list_transactions(request.clone()).await.expect("a page");
        let page = answer.into_inner();
        transactions.extend(page.transactions);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return transactions;
        }
    }
}

/// Reads a list again and again: it has no name twice, and all that the database has before.
async fn assert_complete(
    busy: Busy,
    what: &str,
    names: &str,
    list: impl AsyncFn(&Busy) -> Vec<String>,
) {
    let mut added = 0;
    for _ in 0..READINGS {
        let there: BTreeSet<_> = busy.database.texts(names).await.into_iter().collect();
        let listed = list(&busy).await;
        let set: BTreeSet<_> = listed.iter().cloned().collect();
        assert_eq!(set.len(), listed.len(), "told twice");
        let skipped: Vec<_> = there.difference(&set).collect();
        assert!(skipped.is_empty(), "skipped {skipped:?} of {}", there.len());
        added += busy.database.texts(names).await.len() - there.len();
    }
    busy.end(what, added).await;
}

async fn transactions_of_an_account_are_neither_skipped_nor_told_twice(kind: Kind) {
    let busy = Busy::start(kind).await;
    let names = "SELECT request_id FROM requests
        WHERE kind IN ('deposit', 'posting') AND entry_names <> '[[\"idle\", 1]]'
        AND entry_names <> '[[\"idle\",1]]'";
    assert_complete(busy, "transactions of an account", names, async |busy: &Busy| {
        let transactions = transactions(busy, "busy").await;
        let last = |it: &Transaction| {
            let own = it.entries.iter().filter(|entry| entry.account_id == "busy");
            own.map(|entry| entry.sequence).max().expect("an entry of the account")
        };
        assert!(transactions.is_sorted_by(|one, next| last(one) > last(next)));
        transactions.into_iter().map(|it| it.request_id).collect()
    })
    .await;
}

async fn transactions_of_all_accounts_are_neither_skipped_nor_told_twice(kind: Kind) {
    let busy = Busy::start(kind).await;
    let names = "SELECT request_id FROM requests WHERE kind IN ('deposit', 'posting')";
    assert_complete(busy, "transactions", names, async |busy: &Busy| {
        let transactions = transactions(busy, "").await;
        assert!(transactions.is_sorted_by(|one, next| one.transaction_id > next.transaction_id));
        transactions.into_iter().map(|it| it.request_id).collect()
    })
    .await;
}

async fn holds_are_neither_skipped_nor_told_twice(kind: Kind) {
    let busy = Busy::start(kind).await;
    assert_complete(busy, "holds", "SELECT hold_id FROM holds", async |busy: &Busy| {
        let mut request = ListHoldsRequest {
            account_id: "busy".to_owned(),
            page_size: PAGE_SIZE,
            ..ListHoldsRequest::default()
        };
        let mut hold_ids = Vec::new();
        loop {
            let answer = busy.reader().list_holds(request.clone()).await.expect("a page");
            let page = answer.into_inner();
            hold_ids.extend(page.holds.into_iter().map(|hold| hold.hold_id));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                assert!(hold_ids.is_sorted(), "{hold_ids:?}");
                return hold_ids;
            }
        }
    })
    .await;
}
