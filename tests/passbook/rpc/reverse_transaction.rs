use passbook::proto::{
    CaptureHoldRequest, CreateAccountRequest, DepositRequest, GetTransactionRequest, HoldState,
    Leg, PostTransactionRequest, ReverseTransactionRequest, Transaction, TransactionKind,
    get_transaction_request::Lookup,
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{checker, *};

on_both_databases! {
    a_reversal_is_the_mirror_image_with_the_entries_in_their_order,
    every_kind_of_transaction_can_be_reversed,
    a_reversal_can_be_reversed_and_each_of_them_once,
    a_repeat_answers_the_same_and_reverses_nothing,
    a_request_id_that_was_used_for_another_reversal_is_refused,
    reversed_transactions_name_their_reversal,
    every_rejection_has_its_reason_and_is_recorded_alone,
    a_transaction_can_be_reversed_after_a_rejected_reversal,
    only_applied_transactions_can_be_reversed,
}

async fn transaction(client: &Client, transaction_id: &str) -> Transaction {
    let lookup = Some(Lookup::TransactionId(transaction_id.to_owned()));
    let answer = client.clone().get_transaction(GetTransactionRequest { lookup }).await;
    answer.expect("it exists").into_inner().transaction.expect("a transaction")
}

async fn deposited(client: &Client, account_id: &str, amount: &str) -> String {
    let answer = client.clone().deposit(deposit(account_id, amount)).await.expect("applied");
    answer.into_inner().transaction.expect("a transaction").transaction_id
}

/// A transaction, the error of its reversal, the account in the error, and further metadata.
type Case<'a> = (&'a str, (Code, &'static str), &'static str, Vec<(&'a str, &'a str)>);

async fn a_reversal_is_the_mirror_image_with_the_entries_in_their_order(kind: Kind) {
    let (database, _server, mut client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open(&client, "bob").await;
    open_with(&client, account_of("yen", "JPY")).await;
    let legs = [
        ("alice", money("-7")),
        ("bob", money("2.5")),
        ("yen", money_of("JPY", "300")),
        ("alice", money("1")),
    ];
    let leg = |(account_id, amount): (&str, _)| Leg {
        account_id: account_id.to_owned(),
        amount,
        condition: None,
    };
    let request = PostTransactionRequest {
        request_id: new_request_id(),
        legs: legs.map(leg).into(),
        description: "the first".to_owned(),
        ..Default::default()
    };
    let original = client.post_transaction(request).await.expect("applied").into_inner();
    let original = original.transaction.expect("a transaction");
    let request = ReverseTransactionRequest {
        description: "a mistake".to_owned(),
        labels: [("ticket".to_owned(), "17'".to_owned())].into(),
        ..reversal(&original.transaction_id)
    };

    let answer = client.reverse_transaction(request.clone()).await.expect("it is reversed");

    let answer = answer.into_inner();
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
    let (database, _server, mut client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open_funded(&client, "bob", "10").await;
    place(&client, hold_named("h", "alice", "6")).await;
    let before = (standing(&client, "alice").await, standing(&client, "bob").await);
    assert_eq!(before.0[..3], ["10.00", "6.00", "4.00"]);
    let deposit = client.deposit(deposit("alice", "1")).await.expect("applied");
    let withdrawal = client.withdraw(withdrawal("alice", "1")).await.expect("applied");
    let transfer = client.transfer(transfer("bob", "alice", "1")).await.expect("applied");
    let to_bob = CaptureHoldRequest {
        amount: money("5"),
        destination_account_id: "bob".to_owned(),
        ..capture("h")
    };
    let capture = captured(&client, to_bob).await;
    let made = [
        deposit.into_inner().transaction,
        withdrawal.into_inner().transaction,
        transfer.into_inner().transaction,
        capture.transaction,
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
    let database = TestDatabase::create(kind).await;
    let servers = Server::start_fleet(&database, 2).await;
    let client = servers[0].client();
    open(&client, "alice").await;
    let mut last = deposited(&client, "alice", "1").await;
    let mut chain = Vec::new();
    for expected in ["0.00", "1.00", "0.00"] {
        let made = reversed(&client, reversal(&last)).await;
        assert_eq!(made.reverses_transaction_id, last);
        assert_eq!(balance(&client, "alice").await, expected);
        chain.push((last, made.transaction_id.clone()));
        last = made.transaction_id;
    }

    for (transaction_id, by) in &chain {
        let rejection = (Code::FailedPrecondition, "ALREADY_REVERSED");
        for server in &servers {
            let request = reversal(&transaction_id.to_uppercase());
            let status = rejected_twice(&database, &server.client(), request, rejection).await;
            let names = ["transaction_id", "reversed_by_transaction_id"];
            assert_eq!(names.map(|it| metadata(&status, it)), [transaction_id.as_str(), by]);
            assert!(status.get_details_precondition_failure().is_some());
        }
    }

    assert_eq!(standing(&client, "alice").await, ["0.00", "0.00", "0.00", "5"]);
    checker::assert_consistent(&database).await;
}

async fn a_repeat_answers_the_same_and_reverses_nothing(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let servers = Server::start_fleet(&database, 2).await;
    let client = servers[0].client();
    open(&client, "alice").await;
    let original = deposit("alice", "1");
    let deposited = client.clone().deposit(original.clone()).await.expect("applied");
    let deposited = deposited.into_inner().transaction.expect("a transaction");
    let request = reversal(&deposited.transaction_id);
    let first = reversed(&client, request.clone()).await;
    reversed(&client, reversal(&first.transaction_id)).await;
    let before = get(&client, "alice").await;

    for server in &servers {
        let mut client = server.client();
        let again = client.reverse_transaction(request.clone()).await.expect("the answer");
        let again = again.into_inner();
        assert!(again.replayed);
        // As in its first answer: without its later reversal.
        assert_eq!(again.transaction.as_ref(), Some(&first));
        let again = client.deposit(original.clone()).await.expect("the answer").into_inner();
        assert_eq!((again.replayed, again.transaction.as_ref()), (true, Some(&deposited)));
    }

    assert_eq!(get(&client, "alice").await, before);
}

async fn a_request_id_that_was_used_for_another_reversal_is_refused(kind: Kind) {
    let (_database, _server, mut client) = start_server(kind).await;
    open(&client, "alice").await;
    let transaction_id = deposited(&client, "alice", "1").await;
    let other = deposited(&client, "alice", "2").await;
    let first = reversal(&transaction_id);
    reversed(&client, first.clone()).await;
    let others = [
        ReverseTransactionRequest { transaction_id: other, ..first.clone() },
        ReverseTransactionRequest { description: "d".to_owned(), ..first.clone() },
        ReverseTransactionRequest {
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..first.clone()
        },
    ];

    for other in others {
        let answer = client.reverse_transaction(other).await;
        let status = refused(answer, Code::InvalidArgument, "REQUEST_ID_REUSED");
        assert_eq!(metadata(&status, "request_id"), first.request_id);
    }
    // The same id in upper case is the same request.
    let upper = first.transaction_id.to_uppercase();
    let same = ReverseTransactionRequest { transaction_id: upper, ..first };
    assert!(client.reverse_transaction(same).await.expect("the answer").into_inner().replayed);
    assert_eq!(balance(&client, "alice").await, "2.00");
}

async fn reversed_transactions_name_their_reversal(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let servers = Server::start_fleet(&database, 2).await;
    let client = servers[0].client();
    open(&client, "alice").await;
    let transaction_id = deposited(&client, "alice", "1").await;
    let before = transaction(&client, &transaction_id).await;
    assert_eq!(before.reversed_by_transaction_id, "");

    let made = reversed(&client, reversal(&transaction_id)).await;

    let expected =
        Transaction { reversed_by_transaction_id: made.transaction_id.clone(), ..before };
    let other = servers[1].client();
    assert_eq!(transaction(&other, &transaction_id).await, expected);
    let lookup = Some(Lookup::RequestId(expected.request_id.clone()));
    let by_request = other.clone().get_transaction(GetTransactionRequest { lookup }).await;
    assert_eq!(by_request.expect("it exists").into_inner().transaction, Some(expected));
}

async fn every_rejection_has_its_reason_and_is_recorded_alone(kind: Kind) {
    let (database, _server, mut client) = start_server(kind).await;
    for account_id in ["spent", "frozen", "closed", "held"] {
        open(&client, account_id).await;
    }
    let request = CreateAccountRequest { unlimited_overdraft: true, ..account_of("deep", "USD") };
    open_with(&client, request).await;
    let largest = "99999999999999999999999999.99";
    let spent = deposited(&client, "spent", "5").await;
    client.withdraw(withdrawal("spent", "0.01")).await.expect("applied");
    let held = deposited(&client, "held", "5").await;
    place(&client, hold_named("h", "held", "0.01")).await;
    let frozen = deposited(&client, "frozen", "5").await;
    freeze(&client, "frozen").await;
    let closed = deposited(&client, "closed", "5").await;
    client.withdraw(withdrawal("closed", "5")).await.expect("applied");
    close(&client, "closed").await.expect("it is empty");
    let deep = deposited(&client, "deep", "5").await;
    client.withdraw(withdrawal("deep", "5")).await.expect("applied");
    client.withdraw(withdrawal("deep", largest)).await.expect("applied");
    let missing = "0197a1b2-0000-7000-8000-000000000000";
    let failed = Code::FailedPrecondition;
    let negative = format!("-{largest}");
    let cases: [Case<'_>; 6] = [
        (missing, (Code::NotFound, "TRANSACTION_NOT_FOUND"), "", vec![("transaction_id", missing)]),
        (&closed, (failed, "ACCOUNT_CLOSED"), "closed", vec![]),
        (&frozen, (failed, "ACCOUNT_FROZEN"), "frozen", vec![]),
        (
            &deep,
            (Code::OutOfRange, "BALANCE_OUT_OF_RANGE"),
            "deep",
            vec![("currency_code", "USD"), ("balance", &negative), ("amount", "-5.00")],
        ),
        (
            &spent,
            (failed, "INSUFFICIENT_FUNDS"),
            "spent",
            vec![
                ("currency_code", "USD"),
                ("available", "4.99"),
                ("required", "5.00"),
                ("version", "3"),
            ],
        ),
        (&held, (failed, "INSUFFICIENT_FUNDS"), "held", vec![("available", "4.99")]),
    ];

    let mut sent = Vec::new();
    for (transaction_id, rejection, account_id, said) in cases {
        let mut before = None;
        if !account_id.is_empty() {
            before = Some(get(&client, account_id).await);
        }
        let request = reversal(transaction_id);
        let status = rejected_twice(&database, &client, request.clone(), rejection).await;
        assert_eq!(metadata(&status, "account_id"), account_id);
        for (name, text) in said {
            assert_eq!(metadata(&status, name), text, "{status:?}");
        }
        if let Some(before) = before {
            assert_eq!(get(&client, account_id).await, before);
        }
        sent.push((request, rejection, status));
    }

    // The obstacles are gone, but the rejections are final.
    unfreeze(&client, "frozen").await;
    for account_id in ["spent", "deep", "held"] {
        client.deposit(deposit(account_id, "100")).await.expect("applied");
    }
    for (request, (code, expected_reason), first) in sent {
        let again = client.reverse_transaction(request).await;
        assert_repeated(&first, &refused(again, code, expected_reason));
    }
    checker::assert_consistent(&database).await;
}

async fn a_transaction_can_be_reversed_after_a_rejected_reversal(kind: Kind) {
    let (database, _server, mut client) = start_server(kind).await;
    open(&client, "alice").await;
    let transaction_id = deposited(&client, "alice", "5").await;
    client.withdraw(withdrawal("alice", "1")).await.expect("applied");
    let answer = client.reverse_transaction(reversal(&transaction_id)).await;
    refused(answer, Code::FailedPrecondition, "INSUFFICIENT_FUNDS");
    assert_eq!(transaction(&client, &transaction_id).await.reversed_by_transaction_id, "");

    client.deposit(deposit("alice", "1")).await.expect("applied");
    reversed(&client, reversal(&transaction_id)).await;

    assert_eq!(balance(&client, "alice").await, "0.00");
    checker::assert_consistent(&database).await;
}

async fn only_applied_transactions_can_be_reversed(kind: Kind) {
    let (database, _server, mut client) = start_server(kind).await;
    open_funded(&client, "alice", "1").await;
    let answer = client.withdraw(withdrawal("alice", "2")).await;
    refused(answer, Code::FailedPrecondition, "INSUFFICIENT_FUNDS");
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
        let rejection = (Code::NotFound, "TRANSACTION_NOT_FOUND");
        rejected_twice(&database, &client, reversal(&transaction_id), rejection).await;
    }

    assert_eq!(standing(&client, "alice").await, ["1.00", "0.00", "1.00", "4"]);
}
