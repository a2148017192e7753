//! Effective times of all kinds of transactions, and statements and balances by them.

use std::collections::BTreeMap;

use prost_types::Timestamp;

use crate::harness::{checker::assert_consistent, malformed::must_be_invalid, *};

on_both_databases! {
    every_kind_of_transaction_takes_effect_when_it_says,
    a_time_too_far_away_is_rejected_for_good,
    no_kind_of_transaction_takes_effect_too_far_away,
    a_time_is_stored_in_whole_microseconds,
    impossible_times_are_invalid,
    another_effective_time_is_another_request,
    statements_by_effective_time_have_every_entry_once_in_order,
    a_page_token_is_of_one_basis,
    transactions_by_effective_time_are_listed_at_their_last_entries,
    few_transactions_are_found_among_many,
    a_page_of_large_transactions_ends_early_and_continues,
    a_balance_by_effective_time_is_the_sum_of_what_has_taken_effect,
    a_balance_is_that_of_its_sequence_while_others_write,
    queries_by_effective_time_have_what_they_need,
}

const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;

/// So many days after now; before, if it is negative.
fn in_days(days: i64) -> Option<Timestamp> {
    Some(timestamp(microseconds(&Some(from_now(seconds(0)))) + days * DAY_US))
}

/// The time of an entry in a statement by effective time, and its sequence.
fn position(entry: &Entry) -> (i64, i64) {
    let time = entry.effective_time.or(entry.create_time);
    (microseconds(&time), entry.sequence)
}

fn by_effective_time(request: ListEntriesRequest) -> ListEntriesRequest {
    ListEntriesRequest { time_basis: TimeBasis::EffectiveTime.into(), ..request }
}

/// One change of every kind that moves money, with this effective time.
async fn changes_at(client: &Client, effective_time: Option<Timestamp>) -> Vec<Change> {
    let placed = place(client, hold("a", "1")).await;
    let undone = deposited(client, "b", "1").await;
    let legs = posting(&[("a", "-2"), ("b", "1"), ("a", "1")]);
    vec![
        DepositRequest { effective_time, ..deposit("a", "1") }.into(),
        WithdrawRequest { effective_time, ..withdrawal("a", "1") }.into(),
        TransferRequest { effective_time, ..transfer("a", "b", "1") }.into(),
        PostTransactionRequest { effective_time, ..legs }.into(),
        CaptureHoldRequest { effective_time, ..capture(&placed.hold_id) }.into(),
        ReverseTransactionRequest { effective_time, ..reversal(&undone.transaction_id) }.into(),
    ]
}

async fn every_kind_of_transaction_takes_effect_when_it_says(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "100").await;
    open(&client, "b").await;
    let plain = deposited(&client, "b", "1").await;
    assert_eq!((plain.effective_time, plain.entries[0].effective_time), (None, None));
    for expected in [in_days(-40), in_days(40)] {
        for change in changes_at(&client, expected).await {
            let answer = change.send(&client, PATIENCE).await.expect("applied");
            let transaction = answer.transaction.expect("a transaction");
            assert_eq!(transaction.effective_time, expected, "{change:?}");
            for entry in &transaction.entries {
                assert_eq!(entry.effective_time, expected, "{change:?}");
                assert_ne!(entry.create_time, expected, "{change:?}");
            }
            let id = &transaction.transaction_id;
            let found = client.get_transaction(transaction_by_id(id)).await.expect("it exists");
            assert_eq!(found.transaction.expect("a transaction").entries, transaction.entries);
            let again = change.in_stream().send(&client, PATIENCE).await.expect("its result");
            assert_eq!((again.transaction, again.replayed), (Some(transaction), true));
        }
    }
    let listed = client.list_entries(entries_of("a")).await.expect("a page").entries;
    let watched = Watching::begin(&client, "a", 0).await.until(listed.len() as i64).await;
    assert_eq!(watched, listed, "a watch shows effective times");
    assert_eq!(balance(&client, "a").await, "94.00", "the time does not count here");
    let account_id = "a".to_owned();
    let verified = client.verify_account(VerifyAccountRequest { account_id }).await;
    assert!(verified.expect("an answer").valid);
    assert_consistent(&database).await;
    database.passbook(&["verify"]).await.must_succeed();
}

async fn a_time_too_far_away_is_rejected_for_good(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "a").await;
    for days in [-3661, 367] {
        let request = DepositRequest { effective_time: in_days(days), ..deposit("a", "1") };
        for _ in 0..2 {
            let answer = client.deposit(request.clone()).await;
            let status = must_fail(answer, Reason::EffectiveTimeOutOfRange);
            let given = microseconds(&request.effective_time).to_string();
            assert_eq!(metadata(&status, "effective_time_us"), given);
        }
        let outcome = request_outcome(&client, &request.request_id).await;
        assert_eq!(outcome.outcome(), RequestOutcome::Rejected);
        let tried = DepositRequest { validate_only: true, ..request };
        let tried = DepositRequest { request_id: new_request_id(), ..tried };
        must_fail(client.deposit(tried).await, Reason::EffectiveTimeOutOfRange);
        // Of two reasons, the one with the lower number.
        let missing = DepositRequest { effective_time: in_days(days), ..deposit("nobody", "1") };
        must_fail(client.deposit(missing).await, Reason::AccountNotFound);
    }
    for days in [-3659, 365] {
        let request = DepositRequest { effective_time: in_days(days), ..deposit("a", "1") };
        client.deposit(request).await.expect("it is not too far");
    }
}

async fn no_kind_of_transaction_takes_effect_too_far_away(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "10").await;
    open(&client, "b").await;
    for days in [-3661, 367] {
        let changes = changes_at(&client, in_days(days)).await;
        let before = (database.accounts().await, database.holds().await);
        for change in changes {
            let answer = change.send(&client, PATIENCE).await;
            must_fail(answer, Reason::EffectiveTimeOutOfRange);
            let again = change.in_stream().send(&client, PATIENCE).await;
            must_fail(again, Reason::EffectiveTimeOutOfRange);
        }
        assert_eq!((database.accounts().await, database.holds().await), before);
    }
}

async fn a_time_is_stored_in_whole_microseconds(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "a").await;
    for (nanos, stored) in
        [(0, 0), (1, 1000), (999, 1000), (1000, 1000), (999_999_000, 999_999_000)]
    {
        let seconds = in_days(-1).map_or(0, |it| it.seconds);
        let effective_time = Some(Timestamp { seconds, nanos });
        let request = DepositRequest { effective_time, ..deposit("a", "1") };
        let answer = client.deposit(request).await.expect("applied");
        let expected = Some(Timestamp { seconds, nanos: stored });
        assert_eq!(answer.transaction.expect("a transaction").effective_time, expected, "{nanos}");
    }
}

async fn impossible_times_are_invalid(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "10").await;
    open(&client, "b").await;
    let times = [(0, -1), (0, 1_000_000_000), (253_402_300_800, 0), (-62_135_596_801, 0)];
    for (seconds, nanos) in times {
        let time = Some(Timestamp { seconds, nanos });
        let changes = changes_at(&client, time).await;
        let records = database.count("requests").await;
        for change in changes {
            let answer = change.send(&client, PATIENCE).await;
            let (reason, field) = (Reason::EffectiveTimeOutOfRange, "effective_time");
            must_be_invalid(answer, reason, field, change);
        }
        assert_eq!(database.count("requests").await, records, "nothing is stored");
    }
}

async fn another_effective_time_is_another_request(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "a").await;
    let request = DepositRequest { effective_time: in_days(-1), ..deposit("a", "1") };
    client.deposit(request.clone()).await.expect("applied");
    for effective_time in [None, in_days(-2)] {
        let other = DepositRequest { effective_time, ..request.clone() };
        must_fail(client.deposit(other).await, Reason::RequestIdReused);
    }
}

/// Deposits, some of them with an effective time, of which several are equal. Returns the entries.
async fn history(client: &Client, account_id: &str) -> Vec<Entry> {
    open(client, account_id).await;
    let days = [in_days(-400), in_days(-2), in_days(3)];
    let mut entries = Vec::new();
    for number in 0..40_usize {
        let effective_time = match number % 5 {
            0 => days[number % 3],
            3 => days[1],
            _ => None,
        };
        let amount = format!("{}.0{}", number + 1, number % 10);
        let request = DepositRequest { effective_time, ..deposit(account_id, &amount) };
        let answer = client.deposit(request).await.expect("applied");
        entries.extend(answer.transaction.expect("a transaction").entries);
    }
    entries
}

async fn statements_by_effective_time_have_every_entry_once_in_order(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let mut expected = history(&client, "a").await;
    history(&client, "b").await;
    expected.sort_by_key(position);
    let times: Vec<i64> = expected.iter().map(|entry| position(entry).0).collect();
    let bounds = [None, Some(times[0]), Some(times[10]), Some(times[10] + 1), Some(times[30])];
    for (start, end) in bounds.iter().flat_map(|start| bounds.map(|end| (*start, end))) {
        for (order, page_size) in [(EntryOrder::Ascending, 7), (EntryOrder::Descending, 1000)] {
            let request = ListEntriesRequest {
                start_time: start.map(timestamp),
                end_time: end.map(timestamp),
                order: order.into(),
                page_size,
                ..entries_of("a")
            };
            let listed = all_pages!(client.list_entries(by_effective_time(request)).entries);
            let listed = listed.concat();
            let within = |entry: &&Entry| {
                let time = position(entry).0;
                start.is_none_or(|start| time >= start) && end.is_none_or(|end| time < end)
            };
            let mut expected: Vec<_> = expected.iter().filter(within).cloned().collect();
            if order == EntryOrder::Descending {
                expected.reverse();
            }
            assert_eq!(listed, expected, "{start:?} {end:?} {order:?}");
        }
    }
    for page_size in [1, 3] {
        let order = EntryOrder::Descending.into();
        let request = ListEntriesRequest { order, page_size, ..entries_of("a") };
        let listed = all_pages!(client.list_entries(by_effective_time(request)).entries);
        let mut listed = listed.concat();
        listed.reverse();
        assert_eq!(listed, expected, "pages of {page_size}");
    }
}

async fn a_page_token_is_of_one_basis(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let mut expected = history(&client, "a").await;
    expected.sort_by_key(position);
    let (page_size, time_basis) = (31, TimeBasis::EffectiveTime.into());
    let first = ListEntriesRequest { page_size, time_basis, ..entries_of("a") };
    let written = |same: ListEntriesRequest| [ListEntriesRequest { time_basis: 0, ..same }];
    let rest = rest_of_the_only_query!(client.list_entries(first).entries, written);
    assert_eq!(rest, expected[31..]);
    let first = ListEntriesRequest { page_size, ..entries_of("a") };
    let effective = |same: ListEntriesRequest| [by_effective_time(same)];
    let rest = rest_of_the_only_query!(client.list_entries(first).entries, effective);
    assert_eq!(rest.len(), 9);
    let first = ListTransactionsRequest { page_size, time_basis, ..transactions_of("a") };
    let written =
        |same: ListTransactionsRequest| [ListTransactionsRequest { time_basis: 0, ..same }];
    let rest = rest_of_the_only_query!(client.list_transactions(first).transactions, written);
    assert_eq!(rest.len(), 9);
}

async fn transactions_by_effective_time_are_listed_at_their_last_entries(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let mut expected = history(&client, "a").await;
    let effective_time = in_days(-1);
    let legs =
        PostTransactionRequest { effective_time, ..posting(&[("a", "1"), ("a", "2"), ("a", "3")]) };
    let posting = posted(&client, legs).await;
    expected.extend(posting.entries.last().cloned());
    expected.sort_by_key(position);
    expected.reverse();
    let expected: Vec<_> = expected.into_iter().map(|entry| entry.transaction_id).collect();
    let any = TransactionKind::Unspecified;
    // A page with a filter examines more transactions than it returns.
    for (kind, page_size) in [(any, 2), (any, 1000), (TransactionKind::Deposit, 3)] {
        let request = ListTransactionsRequest {
            time_basis: TimeBasis::EffectiveTime.into(),
            kind: kind.into(),
            page_size,
            ..transactions_of("a")
        };
        let pages = all_pages!(client.list_transactions(request).transactions);
        let listed: Vec<_> = pages.into_iter().flatten().map(|it| it.transaction_id).collect();
        let matches = |id: &&String| kind == any || **id != posting.transaction_id;
        let expected: Vec<_> = expected.iter().filter(matches).cloned().collect();
        assert_eq!(listed, expected, "{kind:?}, pages of {page_size}");
    }
    let postings = ListTransactionsRequest {
        time_basis: TimeBasis::EffectiveTime.into(),
        kind: TransactionKind::Posting.into(),
        start_time: effective_time,
        ..transactions_of("a")
    };
    let found = client.list_transactions(postings).await.expect("a page").transactions;
    assert_eq!(found.len(), 1, "{found:?}");
}

/// A page with a filter examines a thousand entries, and goes on behind them.
async fn few_transactions_are_found_among_many(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "a").await;
    let (effective_time, labels) = (in_days(-3), labels(&[("which", "first")]));
    let dated = DepositRequest { effective_time, labels: labels.clone(), ..deposit("a", "1") };
    let mut expected = vec![client.deposit(dated).await.expect("applied").transaction];
    let undated = DepositRequest { labels: labels.clone(), ..deposit("a", "1") };
    expected.insert(0, client.deposit(undated).await.expect("applied").transaction);
    for effective_time in [in_days(-2), None, in_days(2)] {
        let one = || PostTransactionRequest { effective_time, ..posting(&[("a", "1")]) };
        let batch = BatchPostTransactionsRequest { requests: (0..700).map(|_| one()).collect() };
        let results = client.batch_post_transactions(batch).await.expect("results").results;
        for result in &results {
            made(result);
        }
    }
    let time_basis = TimeBasis::EffectiveTime.into();
    let of_kind = ListTransactionsRequest {
        kind: TransactionKind::Deposit.into(),
        time_basis,
        ..transactions_of("a")
    };
    let labeled = ListTransactionsRequest { labels, time_basis, ..transactions_of("a") };
    for request in [of_kind, labeled] {
        let pages = all_pages!(client.list_transactions(request).transactions);
        assert!(pages.len() > 1, "{} pages", pages.len());
        let found: Vec<_> = pages.into_iter().flatten().map(Some).collect();
        assert_eq!(found, expected);
    }
}

/// A page ends before a MiB.
async fn a_page_of_large_transactions_ends_early_and_continues(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "a").await;
    let labels: BTreeMap<_, _> =
        (0..32).map(|number| (format!("{number:a>63}"), "ü".repeat(128))).collect();
    let mut expected = Vec::new();
    for effective_time in [in_days(-1), None] {
        let one = |_| {
            let labels = labels.clone();
            PostTransactionRequest { effective_time, labels, ..posting(&[("a", "1")]) }
        };
        let batch = BatchPostTransactionsRequest { requests: (0..80).map(one).collect() };
        let results = client.batch_post_transactions(batch).await.expect("results").results;
        expected.extend(results.iter().map(|it| made(it).transaction_id.clone()));
    }
    expected.reverse();
    let request = ListTransactionsRequest {
        time_basis: TimeBasis::EffectiveTime.into(),
        page_size: 1000,
        ..transactions_of("a")
    };
    let pages = all_pages!(client.list_transactions(request).transactions);
    assert!(pages.len() > 1 && pages[0].len() > 80, "the first ends among those with equal times");
    let listed: Vec<_> = pages.into_iter().flatten().map(|it| it.transaction_id).collect();
    assert_eq!(listed, expected);
}

async fn a_balance_by_effective_time_is_the_sum_of_what_has_taken_effect(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let entries = history(&client, "a").await;
    history(&client, "b").await;
    let times = entries.iter().map(|entry| position(entry).0);
    for time in times.flat_map(|time| [time - 1, time, time + 1]) {
        let request = GetBalanceRequest {
            account_id: "a".to_owned(),
            at_time: Some(timestamp(time)),
            time_basis: TimeBasis::EffectiveTime.into(),
        };
        let answer = client.get_balance(request).await.expect("a balance");
        let mut expected = decimal::Decimal::ZERO;
        for entry in entries.iter().filter(|entry| position(entry).0 <= time) {
            expected += decimal::Decimal::parse(value(&entry.amount));
        }
        let balance = decimal::Decimal::parse(value(&answer.balance));
        assert_eq!((balance, answer.sequence), (expected, 40), "at {time}");
    }
}

async fn a_balance_is_that_of_its_sequence_while_others_write(kind: Kind) {
    let (_database, server, client) = start_server(kind).await;
    open(&client, "a").await;
    let (writer, effective_time) = (server.client(), in_days(-2));
    let writing = tokio::spawn(async move {
        for _ in 0..300 {
            let dated = DepositRequest { effective_time, ..deposit("a", "1") };
            writer.deposit(dated).await.expect("applied");
        }
    });
    let request = GetBalanceRequest {
        account_id: "a".to_owned(),
        at_time: in_days(-1),
        time_basis: TimeBasis::EffectiveTime.into(),
    };
    while !writing.is_finished() {
        let answer = client.get_balance(request.clone()).await.expect("a balance");
        assert_eq!(value(&answer.balance), format!("{}.00", answer.sequence));
    }
    writing.await.expect("all are applied");
}

async fn queries_by_effective_time_have_what_they_need(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "a").await;
    let (time_basis, filter) = (TimeBasis::EffectiveTime.into(), Reason::InvalidFilter);
    let request = by_effective_time(ListEntriesRequest { after_sequence: 1, ..entries_of("a") });
    must_be_invalid(client.list_entries(request).await, filter, "after_sequence", "");
    let request = ListTransactionsRequest { time_basis, ..transactions_of("") };
    must_be_invalid(client.list_transactions(request).await, filter, "account_id", "");
    let account_id = "a".to_owned();
    let request = GetBalanceRequest { account_id, time_basis, ..Default::default() };
    must_be_invalid(client.get_balance(request).await, filter, "at_time", "");
    let request = ListEntriesRequest { time_basis: 3, ..entries_of("a") };
    must_be_invalid(client.list_entries(request).await, filter, "time_basis", "");
}
