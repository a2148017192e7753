//! FreezeAccount, UnfreezeAccount, CloseAccount, and the changes that each state allows.

use tonic_types::StatusExt;

use crate::harness::{checker, *};

on_both_databases! {
    an_account_is_frozen_and_works_again,
    setting_the_same_state_again_changes_nothing,
    a_frozen_account_accepts_deposits_and_the_end_of_holds_only,
    a_closed_account_rejects_every_change,
    an_account_is_closed_only_when_it_is_empty,
    a_closed_account_stays_closed,
    a_state_is_changed_only_at_the_version_that_is_expected,
    changing_the_state_of_a_missing_account_is_not_found,
    accounts_are_listed_by_their_state,
}

/// A late retry does not undo later changes.
async fn a_state_is_changed_only_at_the_version_that_is_expected(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;

    let mut version = 1;
    for state in [AccountState::Frozen, AccountState::Open, AccountState::Closed] {
        for wrong in [version + 1, version + 7, i64::MAX] {
            let status = must_fail(
                set_state(&client, "alice", state, "", Some(wrong)).await,
                Reason::VersionMismatch,
            );
            let names = ["account_id", "expected_version", "version"];
            let expected = ["alice", &wrong.to_string(), &version.to_string()];
            assert_eq!(names.map(|it| metadata(&status, it)), expected);
        }
        let account = set_state(&client, "alice", state, "", Some(version))
            .await
            .expect("it is that version");
        version += 1;
        assert_eq!((account.state(), account.version), (state, version));
        // The late retry, also if it would change nothing.
        must_fail(
            set_state(&client, "alice", state, "", Some(version - 1)).await,
            Reason::VersionMismatch,
        );
        assert_eq!(get(&client, "alice").await, account);
    }
    // A rejection by state comes before the version, a malformed request before everything.
    let closed = set_state(&client, "alice", AccountState::Frozen, "", Some(1)).await;
    must_fail(closed, Reason::AccountClosed);
    open_funded(&client, "bob", "1").await;
    let full = set_state(&client, "bob", AccountState::Closed, "", Some(1)).await;
    must_fail(full, Reason::AccountNotEmpty);
    for state in STATES {
        let malformed = set_state(&client, "nobody", state, "", Some(0)).await;
        let status = must_fail(malformed, Reason::InvalidCondition);
        assert_eq!(metadata(&status, "field"), "expected_version");
    }
}

async fn an_account_is_frozen_and_works_again(kind: Kind) {
    let (database, servers, client) = start_two_servers(kind).await;
    open_funded(&client, "alice", "10").await;
    place(&client, hold("alice", "4")).await;
    let before = get(&client, "alice").await;

    let frozen = set_state(&client, "alice", AccountState::Frozen, "because", None)
        .await
        .expect("it is frozen");

    let expected = Account {
        state: AccountState::Frozen.into(),
        version: 4,
        update_time: frozen.update_time,
        ..before.clone()
    };
    assert_eq!(frozen, expected, "nothing else of it changes");
    assert!(microseconds(&frozen.update_time) >= microseconds(&before.update_time));
    let other = servers[1].client();
    assert_eq!(get(&other, "alice").await, frozen);
    must_fail(other.withdraw(withdrawal("alice", "1")).await, Reason::AccountFrozen);

    let unfrozen =
        set_state(&other, "alice", AccountState::Open, "because", None).await.expect("it is open");
    let expected = Account { version: 5, update_time: unfrozen.update_time, ..before };
    assert_eq!(unfrozen, expected);
    client.withdraw(withdrawal("alice", "1")).await.expect("it works again");
    checker::assert_consistent(&database).await;
}

async fn setting_the_same_state_again_changes_nothing(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;

    for state in STATES {
        let first = set_state(&client, "alice", state, "because", None).await.expect("it is so");
        for _ in 0..2 {
            assert_eq!(
                set_state(&client, "alice", state, "because", None)
                    .await
                    .expect("it is so already"),
                first
            );
        }
        assert_eq!(first.state(), state);
        assert_eq!(get(&client, "alice").await, first);
    }

    // Created, frozen, closed: it was never unfrozen.
    assert_eq!(get(&client, "alice").await.version, 3);
    assert_eq!(database.count("account_changes").await, 2);
}

/// Accounts "alice" and "bob" with 100.00 each. Alice has two holds of 10.00. Returns the ids of a
/// deposit and a withdrawal that could be reversed.
async fn with_a_past(client: &Client) -> (String, String) {
    open_funded(client, "bob", "100").await;
    open(client, "alice").await;
    let deposited = deposited(client, "alice", "101").await.transaction_id;
    let withdrawn = withdrawn(client, "alice", "1").await.transaction_id;
    place_all(client, "alice", "10", &["to-capture", "to-release"]).await;
    (deposited, withdrawn)
}

#[track_caller]
fn assert_kept_out<T: std::fmt::Debug>(answer: Result<T, Status>, expected: Reason) {
    let status = must_fail(answer, expected);
    assert_eq!(metadata(&status, "account_id"), "alice");
    assert!(status.get_details_precondition_failure().is_some());
}

async fn a_frozen_account_accepts_deposits_and_the_end_of_holds_only(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    let (deposited, withdrawn) = with_a_past(&client).await;
    place(&client, hold_named("bobs", "bob", "5")).await;
    freeze(&client, "alice").await;
    let before = get(&client, "alice").await;

    let frozen = Reason::AccountFrozen;
    assert_kept_out(client.withdraw(withdrawal("alice", "1")).await, frozen);
    assert_kept_out(client.transfer(transfer("alice", "bob", "1")).await, frozen);
    assert_kept_out(client.place_hold(hold("alice", "1")).await, frozen);
    assert_kept_out(client.reverse_transaction(reversal(&deposited)).await, frozen);
    // Even if more comes in than goes out.
    let both = posting(&[("alice", "5"), ("alice", "-1")]);
    assert_kept_out(client.post_transaction(both).await, frozen);
    assert_eq!(get(&client, "alice").await, before);

    client.deposit(deposit("alice", "1")).await.expect("a deposit is accepted");
    client.transfer(transfer("bob", "alice", "2")).await.expect("a deposit is accepted");
    client.post_transaction(posting(&[("alice", "3")])).await.expect("a deposit is accepted");
    reversed(&client, reversal(&withdrawn)).await;
    captured(&client, capture_to("alice", "bobs", "5")).await;
    assert_eq!(balance(&client, "alice").await, "112.00");
    captured(&client, capture("to-capture")).await;
    released(&client, release("to-release")).await;
    client.update_account(limit_of("alice", "1")).await.expect("it is updated");
    assert_eq!(
        standing(&client, "alice").await,
        ["102.00", "0.00", "103.00", &(before.version + 8).to_string()]
    );
    checker::assert_consistent(&database).await;
}

async fn a_closed_account_rejects_every_change(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    let (deposited, withdrawn) = with_a_past(&client).await;
    for hold_id in ["to-capture", "to-release"] {
        released(&client, release(hold_id)).await;
    }
    place(&client, hold_named("bobs", "bob", "5")).await;
    client.withdraw(withdrawal("alice", "100")).await.expect("all of it");
    close(&client, "alice").await.expect("it is empty");
    let (before, bob) = (get(&client, "alice").await, get(&client, "bob").await);
    assert_eq!((before.state(), before.sequence), (AccountState::Closed, 3), "its entries stay");

    let closed = Reason::AccountClosed;
    assert_kept_out(client.deposit(deposit("alice", "1")).await, closed);
    assert_kept_out(client.withdraw(withdrawal("alice", "1")).await, closed);
    assert_kept_out(client.transfer(transfer("alice", "bob", "1")).await, closed);
    assert_kept_out(client.transfer(transfer("bob", "alice", "1")).await, closed);
    let both = posting(&[("bob", "1"), ("alice", "1")]);
    assert_kept_out(client.post_transaction(both).await, closed);
    assert_kept_out(client.place_hold(hold("alice", "1")).await, closed);
    assert_kept_out(client.reverse_transaction(reversal(&deposited)).await, closed);
    assert_kept_out(client.reverse_transaction(reversal(&withdrawn)).await, closed);
    assert_kept_out(client.capture_hold(capture_to("alice", "bobs", "5")).await, closed);
    assert_kept_out(client.update_account(limit_of("alice", "1")).await, closed);
    // The outcomes of its holds are still reported.
    must_fail(client.capture_hold(capture("to-capture")).await, Reason::HoldNotOpen);

    assert_eq!(get(&client, "alice").await, before);
    assert_eq!(get(&client, "bob").await, bob, "both or neither");
    checker::assert_consistent(&database).await;
}

async fn an_account_is_closed_only_when_it_is_empty(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "rich", "0.01").await;
    for account_id in ["in-debt", "held"] {
        open_with_overdraft(&client, account_id, "1").await;
    }
    client.withdraw(withdrawal("in-debt", "0.01")).await.expect("applied");
    place(&client, hold_named("h", "held", "0.01")).await;
    let cases = [("rich", "0.01", "0.00"), ("in-debt", "-0.01", "0.00"), ("held", "0.00", "0.01")];

    for (account_id, balance, held) in cases {
        let before = get(&client, account_id).await;
        let status = must_fail(close(&client, account_id).await, Reason::AccountNotEmpty);
        let names = ["account_id", "currency_code", "balance", "held"];
        assert_eq!(names.map(|it| metadata(&status, it)), [account_id, "USD", balance, held]);
        assert!(status.get_details_precondition_failure().is_some());
        assert_eq!(get(&client, account_id).await, before);
    }

    // The rejection is not recorded: there is no request id.
    client.withdraw(withdrawal("rich", "0.01")).await.expect("applied");
    client.deposit(deposit("in-debt", "0.01")).await.expect("applied");
    released(&client, release("h")).await;
    freeze(&client, "rich").await;
    for (account_id, version) in [("rich", 5), ("in-debt", 4), ("held", 4)] {
        let account = close(&client, account_id).await.expect("it is empty");
        assert_eq!((account.state(), account.version), (AccountState::Closed, version));
    }
    checker::assert_consistent(&database).await;
}

async fn a_closed_account_stays_closed(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    let closed = close(&client, "alice").await.expect("it is empty");

    for state in [AccountState::Open, AccountState::Frozen] {
        let answer = set_state(&client, "alice", state, "because", None).await;
        assert_kept_out(answer, Reason::AccountClosed);
    }

    // Its id is never reused: creating it again returns the closed account.
    assert_eq!(open(&client, "alice").await, closed);
    assert_eq!(get(&client, "alice").await, closed);
}

async fn changing_the_state_of_a_missing_account_is_not_found(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;

    for state in STATES {
        let status = must_fail(
            set_state(&client, "nobody", state, "because", None).await,
            Reason::AccountNotFound,
        );
        assert_eq!(metadata(&status, "account_id"), "nobody");
        let info = status.get_details_resource_info().expect("ResourceInfo");
        assert_eq!(info.resource_name, "nobody");
    }
    assert_eq!(database.count("accounts").await, 0);
}

async fn accounts_are_listed_by_their_state(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_all(&client, &["closed", "frozen", "open", "unfrozen"]).await;
    for account_id in ["frozen", "unfrozen"] {
        freeze(&client, account_id).await;
    }
    unfreeze(&client, "unfrozen").await;
    close(&client, "closed").await.expect("it is empty");

    for (state, expected) in
        STATES.into_iter().zip([&["open", "unfrozen"][..], &["frozen"], &["closed"]])
    {
        let request = ListAccountsRequest { state: state.into(), ..Default::default() };
        let page = client.list_accounts(request).await.expect("a page");
        let ids: Vec<_> = page.accounts.iter().map(|it| it.account_id.as_str()).collect();
        assert_eq!(ids, expected);
    }
}
