//! `condition` on Deposit, Withdraw and Transfer.

use crate::harness::{checker, *};

on_both_databases! {
    an_expected_version_lets_one_of_two_changes_through,
    balance_after_bounds_are_inclusive,
    a_failed_condition_says_what_was_required_and_what_is,
    a_transfer_s_condition_is_about_its_source,
    a_rejection_by_condition_is_recorded,
}

fn version(expected_version: i64) -> Option<Condition> {
    Some(Condition { expected_version: Some(expected_version), ..Default::default() })
}

fn bounds(min: Option<&str>, max: Option<&str>) -> Option<Condition> {
    let (min_balance_after, max_balance_after) = (min.and_then(money), max.and_then(money));
    Some(Condition { expected_version: None, min_balance_after, max_balance_after })
}

async fn an_expected_version_lets_one_of_two_changes_through(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let servers = Server::start_fleet(&database, 2).await;
    let account = open_funded(&servers[0].client(), "alice", "10").await;
    let clients = [servers[0].client(), servers[1].client()];
    let calls = (0..10).map(|call| {
        let condition = version(account.version);
        clients[call % 2].deposit(DepositRequest { condition, ..deposit("alice", "1") })
    });

    let made = join_all(calls).await.into_iter().filter(Result::is_ok).count();

    assert_eq!(made, 1, "all others saw another version");
    assert_eq!(balance(&servers[0].client(), "alice").await, "11.00");
    checker::assert_consistent(&database).await;
}

async fn balance_after_bounds_are_inclusive(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    let dry = async |amount: &str, condition| {
        let request = DepositRequest { condition, validate_only: true, ..deposit("alice", amount) };
        client.deposit(request).await.is_ok()
    };

    assert!(dry("5", bounds(Some("15"), Some("15.00"))).await);
    assert!(dry("5", bounds(Some("-3"), None)).await);
    assert!(!dry("5", bounds(Some("15.01"), None)).await);
    assert!(!dry("5", bounds(None, Some("14.99"))).await);
}

async fn a_failed_condition_says_what_was_required_and_what_is(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    let cases = [
        (version(7), ["alice", "expected_version", "7", "2", "2"]),
        (bounds(Some("9.5"), None), ["alice", "min_balance_after", "9.50", "9.00", "2"]),
        (bounds(None, Some("8.99")), ["alice", "max_balance_after", "8.99", "9.00", "2"]),
        // The first declared of several failed conditions.
        (
            Some(Condition {
                expected_version: Some(1),
                ..bounds(Some("99"), None).unwrap_or_default()
            }),
            ["alice", "expected_version", "1", "2", "2"],
        ),
    ];

    for (condition, expected) in cases {
        let request = WithdrawRequest { condition, ..withdrawal("alice", "1") };
        let status = must_fail(client.withdraw(request).await, Reason::ConditionFailed);
        let names = ["account_id", "condition", "required", "actual", "version"];
        assert_eq!(names.map(|name| metadata(&status, name)), expected);
    }

    assert_eq!(balance(&client, "alice").await, "10.00");
}

async fn a_transfer_s_condition_is_about_its_source(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "10").await;
    open_funded(&client, "b", "1000").await;
    let keep = |amount| TransferRequest {
        condition: bounds(Some("5"), None),
        ..transfer("a", "b", amount)
    };

    let rejection = client.transfer(keep("5.01")).await;
    client.transfer(keep("5")).await.expect("exactly 5.00 stay");

    let status = must_fail(rejection, Reason::ConditionFailed);
    assert_eq!(metadata(&status, "account_id"), "a");
    assert_eq!(
        (balance(&client, "a").await.as_str(), balance(&client, "b").await.as_str()),
        ("5.00", "1005.00")
    );
}

async fn a_rejection_by_condition_is_recorded(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    let request = DepositRequest { condition: version(3), ..deposit("alice", "1") };

    let first = client.deposit(request.clone()).await;
    client.deposit(deposit("alice", "1")).await.expect("now the version is 3");
    let second = client.deposit(request).await;

    let first = must_fail(first, Reason::ConditionFailed);
    let second = must_fail(second, Reason::ConditionFailed);
    assert_eq!((first.message(), first.details()), (second.message(), second.details()));
    assert_eq!(balance(&client, "alice").await, "11.00");
}
