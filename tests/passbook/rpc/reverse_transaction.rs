use tonic_types::StatusExt;

use crate::harness::{checker, *};

on_both_databases! {
    a_reversal_is_the_mirror_image_with_the_entries_in_their_order,
    every_kind_of_transaction_can_be_reversed,
    a_reversal_can_be_reversed_and_each_of_them_once,
    a_repeat_answers_the_same_and_reverses_nothing,
    a_request_id_that_was_used_for_another_reversal_is_rejected,
    reversed_transactions_name_their_reversal,
    every_rejection_has_its_reason_and_is_recorded_alone,
    a_transaction_can_be_reversed_after_a_rejected_reversal,
    only_applied_transactions_can_be_reversed,
    parts_are_reversed_up_to_the_whole,
    only_a_transaction_of_one_amount_has_parts,
    a_reversal_is_forced_where_the_money_is_spent,
}

/// Reverses so much of a transaction.
fn part(amount: &str, transaction_id: &str) -> ReverseTransactionRequest {
    ReverseTransactionRequest { amount: money(amount), ..reversal(transaction_id) }
}

async fn transaction(client: &Client, transaction_id: &str) -> Transaction {
    let answer = client.get_transaction(transaction_by_id(transaction_id)).await;
    answer.expect("it exists").transaction.expect("a transaction")
}

async fn a_reversal_is_the_mirror_image_with_the_entries_in_their_order(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open(&client, "bob").await;
    open_with(&client, account_of("yen", "JPY")).await;
    let legs =
        [leg("alice", "-7"), leg("bob", "2.5"), leg_in("yen", "JPY", "300"), leg("alice", "1")];
    let request = PostTransactionRequest { description: "the first".to_owned(), ..post(&legs) };
    let original = posted(&client, request).await;
    let request = ReverseTransactionRequest {
        description: "a mistake".to_owned(),
        labels: labels(&[("ticket", "17'")]),
        ..reversal(&original.transaction_id)
    };

    let answer = client.reverse_transaction(request.clone()).await.expect("it is reversed");
    assert!(!answer.replayed);
    let made = answer.transaction.expect("a transaction");
    let id = uuid::Uuid::parse_str(&made.transaction_id).expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(made.kind(), TransactionKind::Reversal);
    assert_eq!(made.request_id, request.request_id);
    assert_eq!((&made.description, &made.labels), (&request.description, &request.labels));
    assert_eq!(made.reverses_transaction_id, original.transaction_id);
    assert_eq!(made.reversed_by_transaction_id, "");
    assert!(microseconds(&made.create_time) >= microseconds(&original.create_time));
    let entries: Vec<_> = made
        .entries
        .iter()
        .map(|it| {
            (it.account_id.as_str(), it.sequence, it.amount.clone(), it.balance_after.clone())
        })
        .collect();
    let expected = [
        ("alice", 4, money("7.00"), money("11.00")),
        ("bob", 2, money("-2.50"), money("0.00")),
        ("yen", 2, money_of("JPY", "-300"), money_of("JPY", "0")),
        ("alice", 5, money("-1.00"), money("10.00")),
    ];
    assert_eq!(entries, expected);
    for entry in &made.entries {
        assert_eq!(entry.transaction_id, made.transaction_id);
        assert_eq!((entry.create_time, entry.hash.len()), (made.create_time, 32));
    }
    // For each account's version it is one change.
    assert_eq!(standing(&client, "alice").await, ["10.00", "0.00", "10.00", "4"]);
    assert_eq!(standing(&client, "bob").await, ["0.00", "0.00", "0.00", "3"]);
    assert_eq!(transaction(&client, &made.transaction_id).await, made);
    checker::assert_consistent(&database).await;
}

async fn every_kind_of_transaction_can_be_reversed(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open_funded(&client, "bob", "10").await;
    place(&client, hold_named("h", "alice", "6")).await;
    let before = (standing(&client, "alice").await, standing(&client, "bob").await);
    assert_eq!(before.0[..3], ["10.00", "6.00", "4.00"]);
    let transfer = client.transfer(transfer("bob", "alice", "1")).await.expect("applied");
    let made = [
        Some(deposited(&client, "alice", "1").await),
        Some(withdrawn(&client, "alice", "1").await),
        transfer.transaction,
        captured(&client, capture_to("bob", "h", "5")).await.transaction,
    ];

    for original in made {
        let original = original.expect("a transaction");
        let reversal = reversed(&client, reversal(&original.transaction_id)).await;
        assert_eq!(reversal.kind(), TransactionKind::Reversal);
        for (entry, mirrored) in original.entries.iter().zip(&reversal.entries) {
            let opposite = match value(&entry.amount).strip_prefix('-') {
                Some(amount) => amount.to_owned(),
                None => format!("-{}", value(&entry.amount)),
            };
            assert_eq!(mirrored.account_id, entry.account_id);
            assert_eq!(mirrored.amount, money(&opposite));
        }
    }

    // A captured hold stays captured: its money is no longer held.
    assert_eq!(get_hold(&client, "h").await.state(), HoldState::Captured);
    assert_eq!(standing(&client, "alice").await[..3], ["10.00", "0.00", "10.00"]);
    assert_eq!(standing(&client, "bob").await[..3], before.1[..3]);
    checker::assert_consistent(&database).await;
}

async fn a_reversal_can_be_reversed_and_each_of_them_once(kind: Kind) {
    let (database, servers, client) = start_two_servers(kind).await;
    open(&client, "alice").await;
    let mut last = deposited(&client, "alice", "1").await.transaction_id;
    let mut chain = Vec::new();
    for expected in ["0.00", "1.00", "0.00"] {
        let made = reversed(&client, reversal(&last)).await;
        assert_eq!(made.reverses_transaction_id, last);
        assert_eq!(balance(&client, "alice").await, expected);
        chain.push((last, made.transaction_id.clone()));
        last = made.transaction_id;
    }

    for (transaction_id, by) in &chain {
        for server in &servers {
            let request = reversal(&transaction_id.to_uppercase());
            let status =
                rejected_twice(&database, &server.client(), request, Reason::AlreadyReversed).await;
            let names = ["transaction_id", "reversed_by_transaction_id"];
            assert_eq!(names.map(|it| metadata(&status, it)), [transaction_id.as_str(), by]);
            assert!(status.get_details_precondition_failure().is_some());
        }
    }

    assert_eq!(standing(&client, "alice").await, ["0.00", "0.00", "0.00", "5"]);
    checker::assert_consistent(&database).await;
}

async fn a_repeat_answers_the_same_and_reverses_nothing(kind: Kind) {
    let (_database, servers, client) = start_two_servers(kind).await;
    open(&client, "alice").await;
    let original = deposit("alice", "1");
    let deposited = client.deposit(original.clone()).await.expect("applied").transaction;
    let deposited = deposited.expect("a transaction");
    let request = reversal(&deposited.transaction_id);
    let first = reversed(&client, request.clone()).await;
    reversed(&client, reversal(&first.transaction_id)).await;
    let before = get(&client, "alice").await;

    for server in &servers {
        let client = server.client();
        let again = client.reverse_transaction(request.clone()).await.expect("the answer");
        assert!(again.replayed);
        // As in its first answer: without its later reversal.
        assert_eq!(again.transaction.as_ref(), Some(&first));
        let again = client.deposit(original.clone()).await.expect("the answer");
        assert_eq!((again.replayed, again.transaction.as_ref()), (true, Some(&deposited)));
    }

    assert_eq!(get(&client, "alice").await, before);
}

async fn a_request_id_that_was_used_for_another_reversal_is_rejected(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    let transaction_id = deposited(&client, "alice", "1").await.transaction_id;
    let other = deposited(&client, "alice", "2").await.transaction_id;
    let first = reversal(&transaction_id);
    reversed(&client, first.clone()).await;
    let others = [
        ReverseTransactionRequest { transaction_id: other, ..first.clone() },
        ReverseTransactionRequest { description: "d".to_owned(), ..first.clone() },
        ReverseTransactionRequest { labels: labels(&[("a", "b")]), ..first.clone() },
    ];

    assert_request_id_reused(&client, others.map(Change::Reverse)).await;
    // The same id in upper case is the same request.
    let upper = first.transaction_id.to_uppercase();
    let same = ReverseTransactionRequest { transaction_id: upper, ..first };
    assert!(client.reverse_transaction(same).await.expect("the answer").replayed);
    assert_eq!(balance(&client, "alice").await, "2.00");
}

async fn reversed_transactions_name_their_reversal(kind: Kind) {
    let (_database, servers, client) = start_two_servers(kind).await;
    open(&client, "alice").await;
    let transaction_id = deposited(&client, "alice", "1").await.transaction_id;
    let before = transaction(&client, &transaction_id).await;
    assert_eq!(before.reversed_by_transaction_id, "");

    let made = reversed(&client, reversal(&transaction_id)).await;

    let expected =
        Transaction { reversed_by_transaction_id: made.transaction_id.clone(), ..before };
    let other = servers[1].client();
    assert_eq!(transaction(&other, &transaction_id).await, expected);
    let by_request = transaction_by_request_id(&expected.request_id);
    let by_request = other.get_transaction(by_request).await;
    assert_eq!(by_request.expect("it exists").transaction, Some(expected));
}

async fn every_rejection_has_its_reason_and_is_recorded_alone(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_all(&client, &["spent", "frozen", "closed", "held"]).await;
    open_unlimited(&client, "deep").await;
    let spent = deposited(&client, "spent", "5").await.transaction_id;
    withdrawn(&client, "spent", "0.01").await;
    let held = deposited(&client, "held", "5").await.transaction_id;
    place(&client, hold_named("h", "held", "0.01")).await;
    let frozen = deposited(&client, "frozen", "5").await.transaction_id;
    freeze(&client, "frozen").await;
    let closed = deposited(&client, "closed", "5").await.transaction_id;
    withdrawn(&client, "closed", "5").await;
    close(&client, "closed").await.expect("it is empty");
    let deep = deposited(&client, "deep", "5").await.transaction_id;
    withdrawn(&client, "deep", "5").await;
    withdrawn(&client, "deep", LARGEST).await;
    let negative = format!("-{LARGEST}");
    let out_of_range = [
        ("account_id", "deep"),
        ("currency_code", "USD"),
        ("balance", &negative),
        ("amount", "-5.00"),
    ];
    let insufficient = [
        ("account_id", "spent"),
        ("currency_code", "USD"),
        ("available", "4.99"),
        ("required", "5.00"),
        ("version", "3"),
    ];
    let not_found = [("transaction_id", MISSING_TRANSACTION), ("account_id", "")];
    let on_hold = [("account_id", "held"), ("available", "4.99")];
    let cases: [RejectedCase<'_>; 6] = [
        (reversal(MISSING_TRANSACTION).into(), Reason::TransactionNotFound, &not_found),
        (reversal(&closed).into(), Reason::AccountClosed, &[("account_id", "closed")]),
        (reversal(&frozen).into(), Reason::AccountFrozen, &[("account_id", "frozen")]),
        (reversal(&deep).into(), Reason::BalanceOutOfRange, &out_of_range),
        (reversal(&spent).into(), Reason::InsufficientFunds, &insufficient),
        (reversal(&held).into(), Reason::InsufficientFunds, &on_hold),
    ];

    let rejections = all_rejected(&database, &client, &cases).await;

    // The obstacles are gone, but the rejections are final.
    unfreeze(&client, "frozen").await;
    for account_id in ["spent", "deep", "held"] {
        deposited(&client, account_id, "100").await;
    }
    assert_still_rejected(&client, &rejections).await;
    checker::assert_consistent(&database).await;
}

async fn a_transaction_can_be_reversed_after_a_rejected_reversal(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    let transaction_id = deposited(&client, "alice", "5").await.transaction_id;
    withdrawn(&client, "alice", "1").await;
    let answer = client.reverse_transaction(reversal(&transaction_id)).await;
    must_fail(answer, Reason::InsufficientFunds);
    assert_eq!(transaction(&client, &transaction_id).await.reversed_by_transaction_id, "");

    deposited(&client, "alice", "1").await;
    reversed(&client, reversal(&transaction_id)).await;

    assert_eq!(balance(&client, "alice").await, "0.00");
    checker::assert_consistent(&database).await;
}

async fn only_applied_transactions_can_be_reversed(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "1").await;
    must_fail(client.withdraw(withdrawal("alice", "2")).await, Reason::InsufficientFunds);
    place(&client, hold_named("h", "alice", "1")).await;
    released(&client, release("h")).await;
    let dry = DepositRequest { validate_only: true, ..deposit("alice", "1") };
    client.deposit(dry).await.expect("valid");
    // Requests without a transaction also have a transaction id, which is never reported.
    let id = match kind {
        Kind::Sqlite => "lower(hex(transaction_id))",
        Kind::Postgres => "CAST(transaction_id AS text)",
    };
    let sql = format!("SELECT {id} FROM requests WHERE kind <> 'deposit'");
    let ids = database.texts(&sql).await;
    assert_eq!(ids.len(), 3);

    for transaction_id in ids {
        let request = reversal(&transaction_id);
        rejected_twice(&database, &client, request, Reason::TransactionNotFound).await;
    }

    assert_eq!(standing(&client, "alice").await, ["1.00", "0.00", "1.00", "4"]);
}

async fn parts_are_reversed_up_to_the_whole(kind: Kind) {
    let (database, servers, client) = start_two_servers(kind).await;
    let other = servers[1].client();
    open_funded(&client, "alice", "10").await;
    open(&client, "bob").await;
    let made = client.transfer(transfer("alice", "bob", "7")).await.expect("applied");
    let id = made.transaction.expect("a transaction").transaction_id;
    let first = part("1.5", &id);

    let made = reversed(&client, first.clone()).await;

    let amounts: Vec<_> = made.entries.iter().map(|it| value(&it.amount)).collect();
    assert_eq!(amounts, ["1.50", "-1.50"]);
    assert_eq!((made.kind(), &made.reverses_transaction_id), (TransactionKind::Reversal, &id));
    let again = other.reverse_transaction(first.clone()).await.expect("the same");
    assert_eq!((again.transaction, again.replayed), (Some(made.clone()), true));
    let seen = transaction(&other, &id).await;
    assert_eq!(seen.reversed_by_transaction_id, made.transaction_id);
    assert_eq!(seen.reversed_amount, money("1.50"));
    let other_body = ReverseTransactionRequest { amount: money("2"), ..first };
    must_fail(client.reverse_transaction(other_body).await, Reason::RequestIdReused);

    let request = part("5.51", &id);
    let status = rejected_twice(&database, &other, request, Reason::ReversalAmountExceeded).await;
    let names = ["transaction_id", "account_id", "currency_code", "reversible", "required"];
    assert_eq!(names.map(|it| metadata(&status, it)), [&id, "alice", "USD", "5.50", "5.51"]);
    reversed(&other, part("0.5", &id)).await;
    // Without an amount: what is left.
    let last = reversed(&client, reversal(&id)).await;
    assert_eq!(value(&last.entries[0].amount), "5.00");
    let seen = transaction(&other, &id).await;
    assert_eq!(seen.reversed_by_transaction_id, last.transaction_id);
    assert_eq!(seen.reversed_amount, None, "all of it");
    for request in [part("0.01", &id), reversal(&id)] {
        let status = rejected_twice(&database, &client, request, Reason::AlreadyReversed).await;
        assert_eq!(metadata(&status, "reversed_by_transaction_id"), last.transaction_id);
    }
    // A part can be reversed in parts, too.
    reversed(&client, part("1", &made.transaction_id)).await;
    assert_eq!(balance(&client, "alice").await, "9.00");
    checker::assert_consistent(&database).await;
    database.passbook(&["verify"]).await.must_succeed();
}

async fn only_a_transaction_of_one_amount_has_parts(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open(&client, "bob").await;
    let legs = [leg("alice", "-2"), leg("bob", "1")];
    let id = posted(&client, post(&legs)).await.transaction_id;

    let request = part("1", &id);
    let status = rejected_twice(&database, &client, request, Reason::TransactionNotDivisible).await;

    assert_eq!(metadata(&status, "transaction_id"), id);
    let id = deposited(&client, "alice", "5").await.transaction_id;
    let euros = ReverseTransactionRequest { amount: money_of("EUR", "99"), ..reversal(&id) };
    rejected_twice(&database, &client, euros, Reason::CurrencyMismatch).await;
    for (amount, reason) in [
        ("0", Reason::InvalidAmount),
        ("-1", Reason::InvalidAmount),
        ("0.001", Reason::InvalidAmount),
    ] {
        must_fail(client.reverse_transaction(part(amount, &id)).await, reason);
    }
    checker::assert_consistent(&database).await;
}

async fn a_reversal_is_forced_where_the_money_is_spent(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    let id = deposited(&client, "alice", "5").await.transaction_id;
    withdrawn(&client, "alice", "4").await;
    freeze(&client, "alice").await;
    must_fail(client.reverse_transaction(reversal(&id)).await, Reason::AccountFrozen);

    for amount in ["2", "3"] {
        let chargeback = ReverseTransactionRequest { force: true, ..part(amount, &id) };
        assert!(reversed(&client, chargeback).await.forced);
    }

    assert_eq!(balance(&client, "alice").await, "-4.00");
    checker::assert_consistent(&database).await;
    database.passbook(&["verify"]).await.must_succeed();
}
