//! Effective times of all kinds of transactions, and statements and balances by them.

use prost_types::Timestamp;

use crate::harness::{checker::assert_consistent, malformed::must_be_invalid, *};

on_both_databases! {
    every_kind_of_transaction_takes_effect_when_it_says,
    a_time_too_far_away_is_rejected_for_good,
    another_effective_time_is_another_request,
    statements_by_effective_time_have_every_entry_once_in_order,
    transactions_by_effective_time_are_listed_at_their_last_entries,
    a_balance_by_effective_time_is_the_sum_of_what_has_taken_effect,
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

async fn every_kind_of_transaction_takes_effect_when_it_says(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "100").await;
    open(&client, "b").await;
    let placed = place(&client, hold("a", "5")).await;
    let undone = deposited(&client, "b", "1").await;
    assert_eq!((undone.effective_time, undone.entries[0].effective_time), (None, None));
    let (past, future) = (in_days(-40), in_days(40));
    let effective_time = past;
    let legs = posting(&[("a", "-1"), ("b", "2"), ("a", "3")]);
    let changes: [Change; 6] = [
        DepositRequest { effective_time, ..deposit("a", "1") }.into(),
        WithdrawRequest { effective_time: future, ..withdrawal("a", "2") }.into(),
        TransferRequest { effective_time, ..transfer("a", "b", "3") }.into(),
        PostTransactionRequest { effective_time, ..legs }.into(),
        CaptureHoldRequest { effective_time: future, ..capture(&placed.hold_id) }.into(),
        ReverseTransactionRequest { effective_time, ..reversal(&undone.transaction_id) }.into(),
    ];
    for change in changes {
        let expected = match &change {
            Change::Withdraw(_) | Change::CaptureHold(_) => future,
            _ => past,
        };
        let answer = change.clone().send(&client, PATIENCE).await.expect("applied");
        let transaction = answer.transaction.expect("a transaction");
        assert_eq!(transaction.effective_time, expected, "{change:?}");
        for entry in &transaction.entries {
            assert_eq!(entry.effective_time, expected, "{change:?}");
            assert_ne!(entry.create_time, expected, "{change:?}");
        }
        let found = client.get_transaction(transaction_by_id(&transaction.transaction_id)).await;
        let found = found.expect("it exists").transaction.expect("a transaction");
        assert_eq!(found.entries, transaction.entries);
        let again = change.in_stream().send(&client, PATIENCE).await.expect("its result");
        assert_eq!((again.transaction, again.replayed), (Some(transaction), true));
    }
    let now = client.get_account(account_named("a")).await.expect("an account").account;
    assert_eq!(value(&now.expect("an account").balance), "93.00", "the time does not count here");
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

async fn all_pages(client: &Client, mut request: ListEntriesRequest) -> Vec<Entry> {
    let mut entries = Vec::new();
    loop {
        let page = client.list_entries(request.clone()).await.expect("a page");
        entries.extend(page.entries);
        if page.next_page_token.is_empty() {
            return entries;
        }
        request.page_token = page.next_page_token;
    }
}

async fn statements_by_effective_time_have_every_entry_once_in_order(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let mut expected = history(&client, "a").await;
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
            let listed = all_pages(&client, by_effective_time(request)).await;
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
        let mut listed = all_pages(&client, by_effective_time(request)).await;
        listed.reverse();
        assert_eq!(listed, expected, "pages of {page_size}");
    }
}

async fn transactions_by_effective_time_are_listed_at_their_last_entries(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let mut expected = history(&client, "a").await;
    let effective_time = in_days(-1);
    let legs =
        PostTransactionRequest { effective_time, ..posting(&[("a", "1"), ("a", "2"), ("a", "3")]) };
    let posted = client.post_transaction(legs).await.expect("applied").transaction;
    expected.extend(posted.expect("a transaction").entries.pop());
    expected.sort_by_key(position);
    expected.reverse();
    let expected: Vec<_> = expected.into_iter().map(|entry| entry.transaction_id).collect();
    for page_size in [2, 1000] {
        let mut request = ListTransactionsRequest {
            time_basis: TimeBasis::EffectiveTime.into(),
            page_size,
            ..transactions_of("a")
        };
        let mut listed = Vec::new();
        loop {
            let page = client.list_transactions(request.clone()).await.expect("a page");
            listed.extend(page.transactions.into_iter().map(|it| it.transaction_id));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert_eq!(listed, expected, "pages of {page_size}");
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
