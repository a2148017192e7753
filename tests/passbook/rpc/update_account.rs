use tonic_types::StatusExt;

use crate::harness::{checker, *};

on_both_databases! {
    an_update_changes_all_mutable_fields_and_nothing_else,
    a_mask_chooses_what_is_changed,
    without_a_mask_the_fields_that_are_set_are_changed,
    a_field_in_the_mask_that_is_absent_gets_its_default,
    setting_an_overdraft_limit_clears_unlimited_and_vice_versa,
    an_update_that_changes_nothing_leaves_the_account_as_it_was,
    an_overdraft_limit_can_be_lowered_to_the_used_amount,
    an_update_needs_the_expected_version,
    frozen_accounts_are_updated_and_closed_ones_are_not,
    every_rejection_has_its_reason_and_changes_nothing,
}

async fn try_update(client: &Client, request: UpdateAccountRequest) -> Result<Account, Status> {
    let answer = client.update_account(request).await?;
    Ok(answer.account.expect("an account"))
}

async fn update(client: &Client, request: UpdateAccountRequest) -> Account {
    try_update(client, request).await.expect("it is updated")
}

async fn an_update_changes_all_mutable_fields_and_nothing_else(kind: Kind) {
    let (database, servers, client) = start_two_servers(kind).await;
    let request = CreateAccountRequest {
        labels: labels(&[("team", "a"), ("gone", "")]),
        ..account_of("alice", "USD")
    };
    open_with(&client, request).await;
    client.deposit(deposit("alice", "10")).await.expect("applied");
    place(&client, hold("alice", "4")).await;
    let before = get(&client, "alice").await;
    let request = UpdateAccountRequest {
        update_mask: mask(&["labels", "overdraft_limit"]),
        labels: labels(&[("team", "b'; --"), ("new", "{\"ä\": 1}")]),
        expected_version: Some(3),
        ..limit_of("alice", "5.5")
    };

    let after = update(&client, request.clone()).await;

    let expected = Account {
        labels: request.labels,
        overdraft_limit: money("5.50"),
        available: money("11.50"),
        version: 4,
        update_time: after.update_time,
        ..before.clone()
    };
    assert_eq!(after, expected);
    assert!(microseconds(&after.update_time) >= microseconds(&before.update_time));
    assert_eq!(get(&servers[1].client(), "alice").await, after);
    client.withdraw(withdrawal("alice", "11.5")).await.expect("it is available");
    checker::assert_consistent(&database).await;
}

async fn a_mask_chooses_what_is_changed(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_with_overdraft(&client, "alice", "1").await;
    let all = UpdateAccountRequest { labels: labels(&[("a", "b")]), ..limit_of("alice", "2") };

    let with = |paths| UpdateAccountRequest { update_mask: mask(paths), ..all.clone() };
    let account = update(&client, with(&["labels"])).await;
    assert_eq!((value(&account.overdraft_limit), &account.labels), ("1.00", &all.labels));
    // A path may be repeated.
    let account = update(&client, with(&["overdraft_limit", "overdraft_limit"])).await;
    assert_eq!((value(&account.overdraft_limit), account.version), ("2.00", 3));
    // An empty mask is no mask.
    let request = UpdateAccountRequest { labels: labels(&[("c", "d")]), ..limit_of("alice", "3") };
    let request = UpdateAccountRequest { update_mask: mask(&[]), ..request };
    let account = update(&client, request).await;
    assert_eq!((value(&account.overdraft_limit), account.labels), ("3.00", labels(&[("c", "d")])));
}

async fn without_a_mask_the_fields_that_are_set_are_changed(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let request = CreateAccountRequest {
        overdraft_limit: money("1"),
        labels: labels(&[("a", "b")]),
        ..account_of("alice", "USD")
    };
    open_with(&client, request).await;

    let account = update(&client, limit_of("alice", "2")).await;
    assert_eq!((value(&account.overdraft_limit), account.labels), ("2.00", labels(&[("a", "b")])));
    let request = UpdateAccountRequest { labels: labels(&[("c", "d")]), ..update_of("alice") };
    let account = update(&client, request).await;
    assert_eq!((value(&account.overdraft_limit), account.labels), ("2.00", labels(&[("c", "d")])));
    let request = UpdateAccountRequest { unlimited_overdraft: true, ..update_of("alice") };
    let account = update(&client, request).await;
    assert_eq!((value(&account.overdraft_limit), account.labels), ("0.00", labels(&[("c", "d")])));
    assert!(account.unlimited_overdraft);
    // Zero counts as set.
    let account = update(&client, limit_of("alice", "0")).await;
    assert!(account.unlimited_overdraft, "only a limit above zero ends it");
}

async fn a_field_in_the_mask_that_is_absent_gets_its_default(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let request = CreateAccountRequest {
        overdraft_limit: money("1"),
        labels: labels(&[("a", "b")]),
        ..account_of("alice", "USD")
    };
    open_with(&client, request).await;
    open_unlimited(&client, "bank").await;
    let with = |account_id, paths| UpdateAccountRequest {
        update_mask: mask(paths),
        ..update_of(account_id)
    };

    let account = update(&client, with("alice", &["labels"])).await;
    assert_eq!((value(&account.overdraft_limit), account.labels), ("1.00", labels(&[])));
    let account = update(&client, with("alice", &["overdraft_limit"])).await;
    assert_eq!((value(&account.overdraft_limit), account.version), ("0.00", 3));
    let account = update(&client, with("bank", &["unlimited_overdraft"])).await;
    assert!(!account.unlimited_overdraft);
    assert_eq!((value(&account.overdraft_limit), account.version), ("0.00", 2));
}

async fn setting_an_overdraft_limit_clears_unlimited_and_vice_versa(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_with_overdraft(&client, "alice", "5").await;
    let unlimited = UpdateAccountRequest { unlimited_overdraft: true, ..update_of("alice") };

    let account = update(&client, unlimited).await;
    assert!(account.unlimited_overdraft);
    assert_eq!([value(&account.overdraft_limit), value(&account.available)], ["0.00", "0.00"]);
    client.withdraw(withdrawal("alice", "7")).await.expect("there is no limit");

    let account = update(&client, limit_of("alice", "7")).await;
    assert!(!account.unlimited_overdraft);
    assert_eq!([value(&account.overdraft_limit), value(&account.available)], ["7.00", "0.00"]);
    must_fail(client.withdraw(withdrawal("alice", "0.01")).await, Reason::InsufficientFunds);
    // Both in one update, if the limit is zero.
    let request = UpdateAccountRequest {
        update_mask: mask(&["overdraft_limit", "unlimited_overdraft"]),
        unlimited_overdraft: true,
        ..limit_of("alice", "0")
    };
    assert!(update(&client, request).await.unlimited_overdraft);
    checker::assert_consistent(&database).await;
}

async fn an_update_that_changes_nothing_leaves_the_account_as_it_was(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    let request = CreateAccountRequest {
        overdraft_limit: money("5"),
        labels: labels(&[("a", "b"), ("c", "d")]),
        ..account_of("alice", "USD")
    };
    let before = open_with(&client, request).await;

    let same = UpdateAccountRequest {
        labels: labels(&[("c", "d"), ("a", "b")]),
        expected_version: Some(1),
        ..limit_of("alice", "005.0")
    };
    for _ in 0..2 {
        assert_eq!(update(&client, same.clone()).await, before);
    }

    assert_eq!(get(&client, "alice").await, before);
    assert_eq!(database.count("account_changes").await, 0);
}

async fn an_overdraft_limit_can_be_lowered_to_the_used_amount(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_with_overdraft(&client, "alice", "10").await;
    client.withdraw(withdrawal("alice", "3")).await.expect("applied");
    place(&client, hold("alice", "2")).await;
    let before = get(&client, "alice").await;

    let status =
        must_fail(try_update(&client, limit_of("alice", "4.99")).await, Reason::InsufficientFunds);
    let names = ["account_id", "currency_code", "available", "required", "version"];
    assert_eq!(names.map(|it| metadata(&status, it)), ["alice", "USD", "5.00", "5.01", "3"]);
    assert_eq!(get(&client, "alice").await, before);

    let account = update(&client, limit_of("alice", "5")).await;
    assert_eq!([value(&account.overdraft_limit), value(&account.available)], ["5.00", "0.00"]);

    // The use of an unlimited overdraft stays covered as well.
    open_unlimited(&client, "bank").await;
    client.withdraw(withdrawal("bank", "3")).await.expect("applied");
    let finite =
        UpdateAccountRequest { update_mask: mask(&["unlimited_overdraft"]), ..update_of("bank") };
    for request in [finite, limit_of("bank", "2.99")] {
        must_fail(try_update(&client, request).await, Reason::InsufficientFunds);
    }
    assert!(get(&client, "bank").await.unlimited_overdraft);
    // Its labels can still be updated.
    let request = UpdateAccountRequest { labels: labels(&[("a", "b")]), ..update_of("bank") };
    update(&client, request).await;
    update(&client, limit_of("bank", "3")).await;
    assert_eq!(standing(&client, "bank").await, ["-3.00", "0.00", "0.00", "4"]);
    checker::assert_consistent(&database).await;
}

async fn an_update_needs_the_expected_version(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let before = open_funded(&client, "alice", "10").await;
    let expecting = |version| UpdateAccountRequest {
        expected_version: Some(version),
        ..limit_of("alice", "1")
    };

    for version in [1, 3, i64::MAX] {
        let answer = try_update(&client, expecting(version)).await;
        let status = must_fail(answer, Reason::VersionMismatch);
        let names = ["account_id", "expected_version", "version"];
        let expected = ["alice", &version.to_string(), "2"];
        assert_eq!(names.map(|it| metadata(&status, it)), expected);
    }

    assert_eq!(get(&client, "alice").await, before);
    assert_eq!(update(&client, expecting(2)).await.version, 3);
    // Even if nothing would change.
    must_fail(try_update(&client, expecting(2)).await, Reason::VersionMismatch);
    assert_eq!(update(&client, expecting(3)).await.version, 3);
}

async fn frozen_accounts_are_updated_and_closed_ones_are_not(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_all(&client, &["frozen", "closed"]).await;
    freeze(&client, "frozen").await;
    let closed = close(&client, "closed").await.expect("it is closed");

    let account = update(&client, limit_of("frozen", "1")).await;
    assert_eq!(account.state(), AccountState::Frozen);
    assert_eq!((value(&account.overdraft_limit), account.version), ("1.00", 3));
    // Not even to its current value.
    for amount in ["0", "1"] {
        let answer = try_update(&client, limit_of("closed", amount)).await;
        let status = must_fail(answer, Reason::AccountClosed);
        assert_eq!(metadata(&status, "account_id"), "closed");
    }
    assert_eq!(get(&client, "closed").await, closed);
}

async fn every_rejection_has_its_reason_and_changes_nothing(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    let before = open(&client, "alice").await;

    let answer = try_update(&client, limit_of("nobody", "1")).await;
    let status = must_fail(answer, Reason::AccountNotFound);
    assert_eq!(metadata(&status, "account_id"), "nobody");
    let info = status.get_details_resource_info().expect("ResourceInfo");
    assert_eq!(info.resource_name, "nobody");
    let euro = UpdateAccountRequest {
        overdraft_limit: money_of("EUR", "1"),
        labels: labels(&[("a", "b")]),
        ..update_of("alice")
    };
    let status = must_fail(try_update(&client, euro).await, Reason::CurrencyMismatch);
    let names = ["account_id", "currency_code", "account_currency_code"];
    assert_eq!(names.map(|it| metadata(&status, it)), ["alice", "EUR", "USD"]);
    assert!(status.get_details_precondition_failure().is_some());

    assert_eq!(get(&client, "alice").await, before);
    assert_eq!(database.count("account_changes").await, 0);
    assert_eq!(database.count("requests").await, 0, "there is no request id to keep it under");
}
