//! `force`, on the RPCs that have it.

use crate::harness::{checker, *};

on_both_databases! {
    forced_requests_are_applied_although_funds_lack,
    forced_requests_are_applied_although_an_account_is_frozen,
    every_request_that_can_be_forced_shows_it,
    the_tables_say_who_was_forced,
}

fn forced_withdrawal(account_id: &str, amount: &str) -> WithdrawRequest {
    WithdrawRequest { force: true, ..withdrawal(account_id, amount) }
}

async fn verify(client: &Client, account_id: &str) {
    let request = VerifyAccountRequest { account_id: account_id.to_owned() };
    let answer = client.verify_account(request).await.expect("an answer");
    assert!(answer.valid, "{answer:?}");
}

async fn forced_requests_are_applied_although_funds_lack(kind: Kind) {
    let (database, servers, client) = start_two_servers(kind).await;
    let other = servers[1].client();
    open_funded(&client, "alice", "10").await;
    place(&client, hold_named("h", "alice", "4")).await;
    let request = forced_withdrawal("alice", "12");
    must_fail(client.withdraw(withdrawal("alice", "12")).await, Reason::InsufficientFunds);

    let made = client.withdraw(request.clone()).await.expect("applied").transaction;

    let made = made.expect("a transaction");
    assert!(made.forced);
    let seen = other.get_transaction(transaction_by_id(&made.transaction_id)).await;
    assert_eq!(seen.expect("it exists").transaction, Some(made.clone()));
    let again = other.withdraw(request.clone()).await.expect("the same");
    assert_eq!((again.transaction, again.replayed), (Some(made), true));
    let unforced = WithdrawRequest { force: false, ..request };
    must_fail(client.withdraw(unforced).await, Reason::RequestIdReused);
    assert_eq!(standing(&client, "alice").await, ["-2.00", "4.00", "-6.00", "4"]);
    verify(&client, "alice").await;

    // Nothing else leaves the account but what is held.
    must_fail(other.withdraw(withdrawal("alice", "0.01")).await, Reason::InsufficientFunds);
    must_fail(other.place_hold(hold("alice", "0.01")).await, Reason::InsufficientFunds);
    captured(&other, capture("h")).await;
    deposited(&client, "alice", "5.99").await;
    must_fail(other.withdraw(withdrawal("alice", "0.01")).await, Reason::InsufficientFunds);
    deposited(&client, "alice", "1.01").await;
    withdrawn(&other, "alice", "1").await;
    assert_eq!(standing(&client, "alice").await[..3], ["0.00", "0.00", "0.00"]);
    verify(&client, "alice").await;
    checker::assert_consistent(&database).await;
    database.passbook(&["verify"]).await.must_succeed();
}

async fn forced_requests_are_applied_although_an_account_is_frozen(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "frozen", "10").await;
    freeze(&client, "frozen").await;
    open(&client, "closed").await;
    close(&client, "closed").await.expect("it is empty");
    must_fail(client.withdraw(withdrawal("frozen", "1")).await, Reason::AccountFrozen);

    client.withdraw(forced_withdrawal("frozen", "1")).await.expect("applied");

    must_fail(client.withdraw(forced_withdrawal("closed", "1")).await, Reason::AccountClosed);
    let into_closed = TransferRequest { force: true, ..transfer("frozen", "closed", "1") };
    must_fail(client.transfer(into_closed).await, Reason::AccountClosed);
    let least = Condition { min_balance_after: money("9"), ..Condition::default() };
    let request = WithdrawRequest { condition: Some(least), ..forced_withdrawal("frozen", "1") };
    must_fail(client.withdraw(request).await, Reason::ConditionFailed);
    assert_eq!(balance(&client, "frozen").await, "9.00");
    checker::assert_consistent(&database).await;
}

async fn every_request_that_can_be_forced_shows_it(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_all(&client, &["alice", "bob"]).await;
    let deposit = deposited(&client, "alice", "1").await;
    assert!(!deposit.forced);
    let force = true;
    let posting = PostTransactionRequest { force, ..posting(&[("alice", "-1"), ("bob", "1")]) };
    let changes = [
        Change::Withdraw(forced_withdrawal("alice", "1")),
        Change::Transfer(TransferRequest { force, ..transfer("alice", "bob", "1") }),
        Change::Post(posting.clone()),
        Change::PostInBatch(PostTransactionRequest {
            request_id: new_request_id(),
            ..posting.clone()
        }),
        Change::PostInStream(PostTransactionRequest { request_id: new_request_id(), ..posting }),
        Change::Withdraw(forced_withdrawal("alice", "1")).in_stream(),
        Change::Reverse(ReverseTransactionRequest { force, ..reversal(&deposit.transaction_id) }),
    ];

    for change in &changes {
        let answer = change.send(&client, PATIENCE).await.expect("applied");
        assert!(answer.transaction().forced, "{change:?}");
    }

    assert_eq!(balance(&client, "alice").await, "-6.00");
    let listed = client.list_transactions(transactions_of("alice")).await.expect("a list");
    let forced = listed.transactions.iter().filter(|it| it.forced).count();
    assert_eq!(forced, changes.len());
    checker::assert_consistent(&database).await;
}

async fn the_tables_say_who_was_forced(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "1").await;
    open(&client, "bob").await;
    client.withdraw(forced_withdrawal("alice", "2")).await.expect("applied");
    let below = "SELECT account_id FROM accounts WHERE below_limit";
    assert_eq!(database.texts(below).await, ["alice"]);
    if kind == Kind::Postgres {
        // An error of the program would end here.
        let changes = ["balance = -1", "held = 1", "below_limit = true"];
        let update = |change| format!("UPDATE accounts SET {change} WHERE account_id = 'bob'");
        database.must_refuse(&changes.map(update), "accounts_available_is_not_negative").await;
    }
    deposited(&client, "alice", "1").await;
    assert_eq!(database.texts(below).await, Vec::<String>::new());
}
