//! Malformed expire times and updates are invalid, with their reason and field, and change and
//! record nothing.

use std::collections::BTreeMap;

use prost_types::Timestamp;

use crate::harness::{malformed::*, *};

on_both_databases! {
    impossible_expire_times_are_invalid,
    malformed_updates_are_invalid,
    the_longest_and_strangest_valid_values_are_accepted,
}

async fn impossible_expire_times_are_invalid(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let client = &fixture.client;
    let (first, last) = (-62_135_596_800, 253_402_300_799);
    let cases = [
        (4_000_000_000, -1),
        (4_000_000_000, 1_000_000_000),
        (4_000_000_000, i32::MIN),
        (4_000_000_000, i32::MAX),
        (last + 1, 0),
        (i64::MAX / 1_000_000, 0),
        (i64::MAX, 999_999_999),
        (first - 1, 0),
        (i64::MIN, 0),
    ];

    for (seconds, nanos) in cases {
        let expire_time = Some(Timestamp { seconds, nanos });
        let request = PlaceHoldRequest { expire_time, ..hold("a", "1") };
        let answer = client.place_hold(request).await;
        must_be_invalid(answer, Reason::InvalidExpireTime, "expire_time", expire_time);
    }

    fixture.assert_nothing_changed().await;
}

async fn malformed_updates_are_invalid(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let client = &fixture.client;
    let (invalid_mask, field) = (Reason::InvalidUpdateMask, "update_mask");
    let long = "x".repeat(100_000);
    let mut cases = vec![
        (update_of("a"), invalid_mask, field),
        (UpdateAccountRequest { update_mask: mask(&[]), ..update_of("a") }, invalid_mask, field),
    ];
    let fields = ["", "*", "ä", "\u{0}", " labels", "Labels", "balance", "state"];
    let more = ["account_id", "expected_version", "labels.team", "overdraft_limit.value"];
    for path in fields.into_iter().chain(more).chain(["labels,overdraft_limit", &long]) {
        for paths in [&[path][..], &["overdraft_limit", path]] {
            let request = UpdateAccountRequest { update_mask: mask(paths), ..limit_of("a", "1") };
            cases.push((request, invalid_mask, field));
        }
    }
    let many = vec!["x"; 10_000];
    let request = UpdateAccountRequest { update_mask: mask(&many), ..limit_of("a", "1") };
    cases.push((request, invalid_mask, field));
    for version in [0, -1, i64::MIN] {
        let request =
            UpdateAccountRequest { expected_version: Some(version), ..limit_of("a", "1") };
        cases.push((request, Reason::InvalidCondition, "expected_version"));
    }
    let both = UpdateAccountRequest { unlimited_overdraft: true, ..limit_of("a", "1") };
    cases.push((both.clone(), Reason::InvalidAmount, "overdraft_limit.value"));
    let update_mask = mask(&["unlimited_overdraft", "overdraft_limit"]);
    let request = UpdateAccountRequest { update_mask, ..both };
    cases.push((request, Reason::InvalidAmount, "overdraft_limit.value"));

    for (request, expected, field) in cases {
        let input = format!("{request:?}");
        must_be_invalid(client.update_account(request).await, expected, field, input);
    }

    fixture.assert_nothing_changed().await;
}

async fn the_longest_and_strangest_valid_values_are_accepted(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let client = &fixture.client;
    let account_id = format!("{}._:-", "Z9".repeat(30));
    open_funded(client, &account_id, LARGEST).await;
    let request_id = |end: &str| format!("'; DROP TABLE holds; -- \\ \" $1 ?1 %s ~{end:!>26}");
    let labels: BTreeMap<_, _> =
        (0..32).map(|number| (format!("{number:a>63}"), "ü".repeat(128))).collect();
    let description = "ä".repeat(512);
    let hold_id = format!("{}._:-", "h0".repeat(30));
    let request = PlaceHoldRequest {
        request_id: request_id("1"),
        hold_id: hold_id.clone(),
        account_id: account_id.clone(),
        amount: money(&format!("{}{LARGEST}", "0".repeat(40))),
        expire_time: Some(Timestamp { seconds: 253_402_300_799, nanos: 999_999_999 }),
        description: description.clone(),
        labels: labels.clone(),
    };
    assert_eq!((request.request_id.len(), hold_id.len()), (64, 64));

    let placed = place(client, request.clone()).await;
    assert_eq!((&placed.request_id, &placed.hold_id), (&request.request_id, &hold_id));
    assert_eq!((&placed.description, &placed.labels), (&description, &labels));
    assert_eq!(value(&placed.amount), LARGEST);
    assert_eq!(get_hold(client, &hold_id).await, placed);

    let request = CaptureHoldRequest {
        request_id: request_id("2"),
        description: description.clone(),
        labels: labels.clone(),
        ..capture(&hold_id)
    };
    let made = captured(client, request.clone()).await.transaction.expect("a transaction");
    assert_eq!((&made.request_id, &made.labels), (&request.request_id, &labels));
    let request = ReverseTransactionRequest {
        request_id: request_id("3"),
        description: description.clone(),
        labels: labels.clone(),
        // Another spelling of the same UUID.
        transaction_id: made.transaction_id.replace('-', "").to_uppercase(),
        ..reversal("")
    };
    let made = reversed(client, request.clone()).await;
    assert_eq!((&made.request_id, &made.description), (&request.request_id, &description));
    assert_eq!(balance(client, &account_id).await, LARGEST);
    let request = UpdateAccountRequest {
        labels: labels.clone(),
        overdraft_limit: money(LARGEST),
        expected_version: Some(5),
        ..update_of(&account_id)
    };
    let account = client.update_account(request).await.expect("it is updated").account;
    let account = account.expect("an account");
    assert_eq!((account.labels, value(&account.overdraft_limit)), (labels, LARGEST));
    assert_eq!(value(&account.available), "199999999999999999999999999.98");
    let frozen = set_state(client, &account_id, AccountState::Frozen, &description, None).await;
    frozen.expect("it is frozen");
}
