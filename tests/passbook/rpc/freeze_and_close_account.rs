//! FreezeAccount, UnfreezeAccount, CloseAccount, and the changes that each state allows.

use passbook::proto::{
    Account, AccountState, CaptureHoldRequest, CloseAccountRequest, FreezeAccountRequest,
    ListAccountsRequest, UnfreezeAccountRequest, UpdateAccountRequest,
};
use tonic::{Code, Status};
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

async fn set(client: &Client, account_id: &str, state: AccountState) -> Result<Account, Status> {
    let mut client = client.clone();
    let (account_id, reason) = (account_id.to_owned(), "because".to_owned());
    let account = match state {
        AccountState::Frozen => {
            let request = FreezeAccountRequest { account_id, reason, ..Default::default() };
            client.freeze_account(request).await?.into_inner().account
        }
        AccountState::Closed => {
            let request = CloseAccountRequest { account_id, reason, ..Default::default() };
            client.close_account(request).await?.into_inner().account
        }
        AccountState::Open | AccountState::Unspecified => {
            let request = UnfreezeAccountRequest { account_id, reason, ..Default::default() };
            client.unfreeze_account(request).await?.into_inner().account
        }
    };
    Ok(account.expect("an account"))
}

/// The same with an expected version.
async fn set_at(
    client: &Client,
    account_id: &str,
    state: AccountState,
    version: i64,
) -> Result<Account, Status> {
    let mut client = client.clone();
    let (account_id, expected_version) = (account_id.to_owned(), Some(version));
    let reason = String::new();
    let account = match state {
        AccountState::Frozen => {
            let request = FreezeAccountRequest { account_id, reason, expected_version };
            client.freeze_account(request).await?.into_inner().account
        }
        AccountState::Closed => {
            let request = CloseAccountRequest { account_id, reason, expected_version };
            client.close_account(request).await?.into_inner().account
        }
        AccountState::Open | AccountState::Unspecified => {
            let request = UnfreezeAccountRequest { account_id, reason, expected_version };
            client.unfreeze_account(request).await?.into_inner().account
        }
    };
    Ok(account.expect("an account"))
}

/// A late retry does not undo later changes.
async fn a_state_is_changed_only_at_the_version_that_is_expected(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;

    let mut version = 1;
    for state in [AccountState::Frozen, AccountState::Open, AccountState::Closed] {
        for wrong in [version + 1, version + 7, i64::MAX] {
            let status = refused(
                set_at(&client, "alice", state, wrong).await,
                Code::Aborted,
                "VERSION_MISMATCH",
            );
            let names = ["account_id", "expected_version", "version"];
            let expected = ["alice", &wrong.to_string(), &version.to_string()];
            assert_eq!(names.map(|it| metadata(&status, it)), expected);
        }
        let account = set_at(&client, "alice", state, version).await.expect("it is that version");
        version += 1;
        assert_eq!((account.state(), account.version), (state, version));
        // The late retry, also if it would change nothing.
        let again = set_at(&client, "alice", state, version - 1).await;
        refused(again, Code::Aborted, "VERSION_MISMATCH");
        assert_eq!(get(&client, "alice").await, account);
    }
    // A rejection by state comes before the version, a malformed request before everything.
    let closed = set_at(&client, "alice", AccountState::Frozen, 1).await;
    refused(closed, Code::FailedPrecondition, "ACCOUNT_CLOSED");
    open_funded(&client, "bob", "1").await;
    let full = set_at(&client, "bob", AccountState::Closed, 1).await;
    refused(full, Code::FailedPrecondition, "ACCOUNT_NOT_EMPTY");
    for state in STATES {
        let malformed = set_at(&client, "nobody", state, 0).await;
        let status = refused(malformed, Code::InvalidArgument, "INVALID_CONDITION");
        assert_eq!(metadata(&status, "field"), "expected_version");
    }
}

const STATES: [AccountState; 3] = [AccountState::Open, AccountState::Frozen, AccountState::Closed];

async fn an_account_is_frozen_and_works_again(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let servers = Server::start_fleet(&database, 2).await;
    let client = servers[0].client();
    open_funded(&client, "alice", "10").await;
    place(&client, hold("alice", "4")).await;
    let before = get(&client, "alice").await;

    let frozen = set(&client, "alice", AccountState::Frozen).await.expect("it is frozen");

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
    let answer = other.clone().withdraw(withdrawal("alice", "1")).await;
    refused(answer, Code::FailedPrecondition, "ACCOUNT_FROZEN");

    let unfrozen = set(&other, "alice", AccountState::Open).await.expect("it is open");
    let expected = Account { version: 5, update_time: unfrozen.update_time, ..before };
    assert_eq!(unfrozen, expected);
    client.clone().withdraw(withdrawal("alice", "1")).await.expect("it works again");
    checker::assert_consistent(&database).await;
}

async fn setting_the_same_state_again_changes_nothing(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;

    for state in STATES {
        let first = set(&client, "alice", state).await.expect("it is so");
        for _ in 0..2 {
            assert_eq!(set(&client, "alice", state).await.expect("it is so already"), first);
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
    let deposited = client.clone().deposit(deposit("alice", "101")).await.expect("applied");
    let withdrawn = client.clone().withdraw(withdrawal("alice", "1")).await.expect("applied");
    for hold_id in ["to-capture", "to-release"] {
        place(client, hold_named(hold_id, "alice", "10")).await;
    }
    let deposited = deposited.into_inner().transaction.expect("a transaction").transaction_id;
    let withdrawn = withdrawn.into_inner().transaction.expect("a transaction").transaction_id;
    (deposited, withdrawn)
}

#[track_caller]
fn assert_kept_out<T: std::fmt::Debug>(answer: Result<T, Status>, expected: &str) {
    let status = refused(answer, Code::FailedPrecondition, expected);
    assert_eq!(metadata(&status, "account_id"), "alice");
    assert!(status.get_details_precondition_failure().is_some());
}

async fn a_frozen_account_accepts_deposits_and_the_end_of_holds_only(kind: Kind) {
    let (database, _server, mut client) = start_server(kind).await;
    let (deposited, withdrawn) = with_a_past(&client).await;
    place(&client, hold_named("bobs", "bob", "5")).await;
    freeze(&client, "alice").await;
    let before = get(&client, "alice").await;

    let frozen = "ACCOUNT_FROZEN";
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
    let into = CaptureHoldRequest { destination_account_id: "alice".to_owned(), ..capture("bobs") };
    captured(&client, into).await;
    assert_eq!(balance(&client, "alice").await, "112.00");
    captured(&client, capture("to-capture")).await;
    released(&client, release("to-release")).await;
    let request = UpdateAccountRequest {
        account_id: "alice".to_owned(),
        overdraft_limit: money("1"),
        ..Default::default()
    };
    client.update_account(request).await.expect("it is updated");
    assert_eq!(
        standing(&client, "alice").await,
        ["102.00", "0.00", "103.00", &(before.version + 8).to_string()]
    );
    checker::assert_consistent(&database).await;
}

async fn a_closed_account_rejects_every_change(kind: Kind) {
    let (database, _server, mut client) = start_server(kind).await;
    let (deposited, withdrawn) = with_a_past(&client).await;
    for hold_id in ["to-capture", "to-release"] {
        released(&client, release(hold_id)).await;
    }
    place(&client, hold_named("bobs", "bob", "5")).await;
    client.withdraw(withdrawal("alice", "100")).await.expect("all of it");
    close(&client, "alice").await.expect("it is empty");
    let (before, bob) = (get(&client, "alice").await, get(&client, "bob").await);
    assert_eq!((before.state(), before.sequence), (AccountState::Closed, 3), "its entries stay");

    let closed = "ACCOUNT_CLOSED";
    assert_kept_out(client.deposit(deposit("alice", "1")).await, closed);
    assert_kept_out(client.withdraw(withdrawal("alice", "1")).await, closed);
    assert_kept_out(client.transfer(transfer("alice", "bob", "1")).await, closed);
    assert_kept_out(client.transfer(transfer("bob", "alice", "1")).await, closed);
    let both = posting(&[("bob", "1"), ("alice", "1")]);
    assert_kept_out(client.post_transaction(both).await, closed);
    assert_kept_out(client.place_hold(hold("alice", "1")).await, closed);
    assert_kept_out(client.reverse_transaction(reversal(&deposited)).await, closed);
    assert_kept_out(client.reverse_transaction(reversal(&withdrawn)).await, closed);
    let into = CaptureHoldRequest { destination_account_id: "alice".to_owned(), ..capture("bobs") };
    assert_kept_out(client.capture_hold(into).await, closed);
    let request = UpdateAccountRequest {
        account_id: "alice".to_owned(),
        overdraft_limit: money("1"),
        ..Default::default()
    };
    assert_kept_out(client.update_account(request).await, closed);
    // The outcomes of its holds are still reported.
    let answer = client.capture_hold(capture("to-capture")).await;
    refused(answer, Code::FailedPrecondition, "HOLD_NOT_OPEN");

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
    client.clone().withdraw(withdrawal("in-debt", "0.01")).await.expect("applied");
    place(&client, hold_named("h", "held", "0.01")).await;
    let cases = [("rich", "0.01", "0.00"), ("in-debt", "-0.01", "0.00"), ("held", "0.00", "0.01")];

    for (account_id, balance, held) in cases {
        let before = get(&client, account_id).await;
        let answer = close(&client, account_id).await;
        let status = refused(answer, Code::FailedPrecondition, "ACCOUNT_NOT_EMPTY");
        let names = ["account_id", "currency_code", "balance", "held"];
        assert_eq!(names.map(|it| metadata(&status, it)), [account_id, "USD", balance, held]);
        assert!(status.get_details_precondition_failure().is_some());
        assert_eq!(get(&client, account_id).await, before);
    }

    // The rejection is not recorded: there is no request id.
    client.clone().withdraw(withdrawal("rich", "0.01")).await.expect("applied");
    client.clone().deposit(deposit("in-debt", "0.01")).await.expect("applied");
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
        let answer = set(&client, "alice", state).await;
        assert_kept_out(answer, "ACCOUNT_CLOSED");
    }

    // Its id is never reused: creating it again returns the closed account.
    assert_eq!(open(&client, "alice").await, closed);
    assert_eq!(get(&client, "alice").await, closed);
}

async fn changing_the_state_of_a_missing_account_is_not_found(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;

    for state in STATES {
        let answer = set(&client, "nobody", state).await;
        let status = refused(answer, Code::NotFound, "ACCOUNT_NOT_FOUND");
        assert_eq!(metadata(&status, "account_id"), "nobody");
        let info = status.get_details_resource_info().expect("ResourceInfo");
        assert_eq!(info.resource_name, "nobody");
    }
    assert_eq!(database.count("accounts").await, 0);
}

async fn accounts_are_listed_by_their_state(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    for account_id in ["closed", "frozen", "open", "unfrozen"] {
        open(&client, account_id).await;
    }
    for account_id in ["frozen", "unfrozen"] {
        freeze(&client, account_id).await;
    }
    unfreeze(&client, "unfrozen").await;
    close(&client, "closed").await.expect("it is empty");

    for (state, expected) in
        STATES.into_iter().zip([&["open", "unfrozen"][..], &["frozen"], &["closed"]])
    {
        let request = ListAccountsRequest { state: state.into(), ..Default::default() };
        let page = client.clone().list_accounts(request).await.expect("a page").into_inner();
        let ids: Vec<_> = page.accounts.iter().map(|it| it.account_id.as_str()).collect();
        assert_eq!(ids, expected);
    }
}
