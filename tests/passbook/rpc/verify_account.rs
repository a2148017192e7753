use passbook::proto::VerificationFaultKind as FaultKind;
use tokio::sync::watch;

use crate::harness::{
    ring::{RingLoad, Stop, open_ring},
    *,
};

on_both_databases! {
    a_correct_account_is_verified_to_its_last_entry,
    an_account_without_entries_is_correct,
    each_kind_of_fault_is_found_and_named,
    unrecorded_expired_holds_count_as_open,
    concurrent_changes_are_no_fault,
    an_account_that_does_not_exist_cannot_be_verified,
}

async fn verify(client: &Client, account_id: &str) -> VerifyAccountResponse {
    let request = VerifyAccountRequest { account_id: account_id.to_owned() };
    let answer = client.verify_account(within(PATIENCE, request)).await;
    answer.expect("an answer")
}

/// Opens an account with three entries, of 10, -3 and 5.
async fn open_with_entries(client: &Client, account_id: &str) {
    open_funded(client, account_id, "10").await;
    client.withdraw(withdrawal(account_id, "3")).await.expect("applied");
    client.deposit(deposit(account_id, "5")).await.expect("applied");
}

async fn a_correct_account_is_verified_to_its_last_entry(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    // More entries than the server reads at a time.
    post_many(&client, "alice", 2100).await;

    let answer = verify(&client, "alice").await;

    assert_eq!(answer, VerifyAccountResponse { valid: true, entries_verified: 2100, fault: None });
}

async fn an_account_without_entries_is_correct(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;

    let answer = verify(&client, "alice").await;

    assert_eq!(answer, VerifyAccountResponse { valid: true, entries_verified: 0, fault: None });
}

async fn each_kind_of_fault_is_found_and_named(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_with_entries(&client, "alice").await;
    open_with_entries(&client, "bob").await;
    let tampering = Tampering::begin(&database).await;
    let bytes = if kind == Kind::Sqlite { "x'00'" } else { r"'\x00'" };
    let unreadable = format!("UPDATE entries SET hash = {bytes}");
    let unreadable_account = format!("UPDATE accounts SET last_hash = {bytes}");
    let balance = if kind == Kind::Sqlite { "'much'" } else { "0.001" };
    let unreadable_balance = format!("UPDATE accounts SET balance = {balance}");
    let columns = "create_time_us, transaction_id, amount, balance_after, hash";
    let surplus = format!(
        "INSERT INTO entries (account_key, sequence, {columns}) \
         SELECT account_key, 4, {columns} FROM entries"
    );
    let cases = [
        ("DELETE FROM entries", "sequence = 2", 2, FaultKind::MissingEntry, "next one there is 3"),
        ("DELETE FROM entries", "sequence = 3", 3, FaultKind::MissingEntry, "sequence is 3"),
        ("UPDATE accounts SET sequence = 4", "true", 4, FaultKind::MissingEntry, "sequence is 4"),
        (&surplus, "sequence = 3", 4, FaultKind::SurplusEntry, "sequence is 3"),
        ("UPDATE accounts SET sequence = 2", "true", 3, FaultKind::SurplusEntry, "sequence is 2"),
        ("UPDATE entries SET sequence = 0", "sequence = 1", 0, FaultKind::SurplusEntry, "surplus"),
        ("UPDATE entries SET amount = '-3.01'", "sequence = 2", 2, FaultKind::WrongSum, "-3.01"),
        (
            "UPDATE entries SET balance_after = '7.50'",
            "sequence = 2",
            2,
            FaultKind::WrongSum,
            "7.50",
        ),
        ("UPDATE entries SET create_time_us = 1", "sequence = 3", 3, FaultKind::WrongHash, "moved"),
        ("UPDATE accounts SET balance = '12.01'", "true", 0, FaultKind::WrongBalance, "12.01"),
        ("UPDATE accounts SET held = '1.00'", "true", 0, FaultKind::WrongHeld, "sum to 0.00"),
        (&unreadable, "sequence = 2", 2, FaultKind::Unreadable, "hash"),
        (&unreadable_account, "true", 0, FaultKind::Unreadable, "last_hash"),
        (&unreadable_balance, "true", 0, FaultKind::Unreadable, "column balance"),
    ];

    for (change, which, sequence, kind, words) in cases {
        let sql = format!("{change} WHERE {} AND {which}", of_account("bob"));
        database.execute(&sql).await;

        let answer = verify(&client, "bob").await;

        let fault = answer.fault.clone().unwrap_or_else(|| panic!("found nothing: {sql}"));
        assert!(!answer.valid, "{sql}");
        assert_eq!((fault.kind(), fault.sequence), (kind, sequence), "{sql}: {fault:?}");
        assert_eq!(fault.account_id, "bob");
        assert!(fault.description.contains(words), "{sql}: {fault:?}");
        assert!(answer.entries_verified <= 3, "{answer:?}");
        assert!(verify(&client, "alice").await.valid, "another account: {sql}");
        tampering.undo().await;
        assert!(verify(&client, "bob").await.valid, "after it was undone: {sql}");
    }
}

async fn unrecorded_expired_holds_count_as_open(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_with_entries(&client, "alice").await;
    let hold = |hold_id: &str, amount: &str, state: &str, expire_time_us: &str| {
        format!(
            "INSERT INTO holds (hold_id, account_key, amount, state, expire_time_us, request_id, \
             create_time_us, update_time_us) SELECT '{hold_id}', account_key, '{amount}', \
             '{state}', {expire_time_us}, 'r', 0, 0 FROM accounts"
        )
    };
    database.execute(&hold("one", "1.50", "open", "NULL")).await;
    database.execute(&hold("two", "2.25", "open", "1000")).await;
    database.execute(&hold("three", "9.00", "released", "NULL")).await;

    let wrong = verify(&client, "alice").await.fault.expect("held is still zero");
    database.execute("UPDATE accounts SET held = '3.75'").await;
    let right = verify(&client, "alice").await;

    assert_eq!(wrong.kind(), FaultKind::WrongHeld);
    assert!(wrong.description.contains("sum to 3.75"), "{wrong:?}");
    assert!(right.valid, "{right:?}");
}

async fn concurrent_changes_are_no_fault(kind: Kind) {
    const VERIFIED: usize = 200;
    const CHANGES: i64 = 500;
    let (database, _servers, clients) = start_loaded(kind, 2).await;
    let (accounts, _) = open_ring(&clients[0], 3).await;
    let (stop, stopped) = watch::channel(false);
    let load = RingLoad::on(&accounts, 16, Stop::When(stopped), seed());
    let verifying = async {
        let end = tokio::time::Instant::now() + PATIENCE;
        let mut verified = 0;
        while verified < VERIFIED || database.count("requests").await < CHANGES {
            assert!(tokio::time::Instant::now() < end, "{verified} verified");
            for account_id in &accounts {
                let answer = verify(&clients[1], account_id).await;
                assert!(answer.valid, "{account_id}: {answer:?}");
                verified += 1;
            }
        }
        stop.send(true).expect("the load listens");
        verified
    };

    let (history, verified) = tokio::join!(load.run(&clients), verifying);

    println!("{kind:?}: {verified} verified during {} changes", history.len());
}

async fn an_account_that_does_not_exist_cannot_be_verified(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let request = |account_id: &str| VerifyAccountRequest { account_id: account_id.to_owned() };

    let missing = client.verify_account(request("nobody")).await;
    let malformed = client.verify_account(request("no body")).await;

    must_fail(missing, Reason::AccountNotFound);
    let status = must_fail(malformed, Reason::InvalidAccountId);
    assert_eq!(fields(&status), ["account_id"]);
}
