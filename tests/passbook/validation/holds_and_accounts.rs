//! Malformed requests on holds, reversals and accounts are refused with their reason and field, and
//! change and record nothing.

use std::collections::BTreeMap;

use passbook::proto::{
    CaptureHoldRequest, CloseAccountRequest, FenceRequestRequest, FreezeAccountRequest,
    GetRequestOutcomeRequest, PlaceHoldRequest, ReleaseHoldRequest, ReverseTransactionRequest,
    UnfreezeAccountRequest, UpdateAccountRequest,
};
use prost_types::{FieldMask, Timestamp};
use tonic::{Code, Status};

use crate::harness::{malformed::*, *};

on_both_databases! {
    malformed_request_ids_are_refused,
    malformed_names_are_refused,
    malformed_amounts_are_refused,
    malformed_texts_are_refused,
    malformed_labels_are_refused,
    invalid_expire_times_are_refused,
    malformed_updates_are_refused,
    the_longest_and_strangest_valid_values_are_accepted,
}

const UUID: &str = "0197a1b2-0000-7000-8000-000000000000";

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(
    answer: Result<T, Status>,
    expected_reason: &str,
    field: &str,
    input: &str,
) {
    let input: String = input.chars().take(60).collect();
    let status = match answer {
        Ok(answer) => panic!("{input:?} was taken: {answer:?}"),
        Err(status) => status,
    };
    let code = match expected_reason {
        "BALANCE_OUT_OF_RANGE" => Code::OutOfRange,
        _ => Code::InvalidArgument,
    };
    let said = (status.code(), reason(&status));
    assert_eq!(said, (code, expected_reason.to_owned()), "{input:?}: {status:?}");
    let said = fields(&status);
    assert_eq!(said.first().map(String::as_str), Some(field), "{input:?}: {status:?}");
    assert_eq!(metadata(&status, "field"), field);
    assert!(status.message().len() < 500, "an error does not echo its whole input");
}

async fn malformed_request_ids_are_refused(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let mut client = fixture.server.client();
    let (longer, long) = ("x".repeat(65), "x".repeat(100_000));

    for id in ["", "\u{0}", "a\n", "ä", "\u{7f}", "a\u{200b}", "\t", &longer, &long] {
        let (id, request_id) = (|| id.to_owned(), id);
        let refused = |answer: Result<(), Status>| {
            assert_refused(answer, "INVALID_REQUEST_ID", "request_id", request_id);
        };
        let request = PlaceHoldRequest { request_id: id(), ..hold("a", "1") };
        refused(client.place_hold(request).await.map(drop));
        let request = CaptureHoldRequest { request_id: id(), ..capture("h") };
        refused(client.capture_hold(request).await.map(drop));
        let request = ReleaseHoldRequest { request_id: id(), ..release("h") };
        refused(client.release_hold(request).await.map(drop));
        let request = ReverseTransactionRequest { request_id: id(), ..reversal(UUID) };
        refused(client.reverse_transaction(request).await.map(drop));
        let request = GetRequestOutcomeRequest { request_id: id() };
        refused(client.get_request_outcome(request).await.map(drop));
        let request = FenceRequestRequest { request_id: id() };
        refused(client.fence_request(request).await.map(drop));
    }

    fixture.assert_nothing_changed().await;
}

async fn malformed_names_are_refused(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let mut client = fixture.server.client();

    // Hold ids have the grammar of account ids.
    for name in bad_account_ids() {
        let refused = |answer: Result<(), Status>, reason: &str, field: &str| {
            assert_refused(answer, reason, field, &name);
        };
        let (account_id, reason) = (|| name.clone(), String::new);
        refused(client.capture_hold(capture(&name)).await.map(drop), "INVALID_HOLD_ID", "hold_id");
        refused(client.release_hold(release(&name)).await.map(drop), "INVALID_HOLD_ID", "hold_id");
        let answer = client.place_hold(hold(&name, "1")).await.map(drop);
        refused(answer, "INVALID_ACCOUNT_ID", "account_id");
        let update = UpdateAccountRequest { overdraft_limit: money("1"), ..update_of(&name) };
        let answer = client.update_account(update).await.map(drop);
        refused(answer, "INVALID_ACCOUNT_ID", "account_id");
        let request = FreezeAccountRequest {
            account_id: account_id(),
            reason: reason(),
            ..Default::default()
        };
        let answer = client.freeze_account(request).await.map(drop);
        refused(answer, "INVALID_ACCOUNT_ID", "account_id");
        let request = UnfreezeAccountRequest {
            account_id: account_id(),
            reason: reason(),
            ..Default::default()
        };
        let answer = client.unfreeze_account(request).await.map(drop);
        refused(answer, "INVALID_ACCOUNT_ID", "account_id");
        let request = CloseAccountRequest {
            account_id: account_id(),
            reason: reason(),
            ..Default::default()
        };
        let answer = client.close_account(request).await.map(drop);
        refused(answer, "INVALID_ACCOUNT_ID", "account_id");
        // Empty values count as absent here.
        if !name.is_empty() {
            let answer = client.place_hold(hold_named(&name, "a", "1")).await.map(drop);
            refused(answer, "INVALID_HOLD_ID", "hold_id");
            let request =
                CaptureHoldRequest { destination_account_id: account_id(), ..capture("h") };
            let answer = client.capture_hold(request).await.map(drop);
            refused(answer, "INVALID_ACCOUNT_ID", "destination_account_id");
        }
    }
    let long = "0".repeat(100_000);
    for id in ["", "x", "0197a1b2", "' OR 1=1 --", &UUID[1..], &format!("{UUID}0"), "٣", &long] {
        let answer = client.reverse_transaction(reversal(id)).await;
        assert_refused(answer, "INVALID_TRANSACTION_ID", "transaction_id", id);
    }

    fixture.assert_nothing_changed().await;
}

fn update_of(account_id: &str) -> UpdateAccountRequest {
    UpdateAccountRequest { account_id: account_id.to_owned(), ..Default::default() }
}

async fn malformed_amounts_are_refused(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let mut client = fixture.server.client();
    let (long, beyond) = (format!("1{}", "x".repeat(100_000)), "9".repeat(40));
    let (invalid, value, code) = ("INVALID_AMOUNT", "value", "currency_code");
    let malformed = [
        "", " ", "1e2", "+1", ".5", "1.", "--1", "1,00", "NaN", "Infinity", "0x10", "1\n",
        "1\u{0}", "\u{0661}", "−1", "1.001", "0.001", &long,
    ];
    let mut cases: Vec<_> = malformed.iter().map(|text| (("USD", *text), invalid, value)).collect();
    cases.push((("JPY", "1.0"), invalid, value));
    for text in ["100000000000000000000000000", &beyond] {
        cases.push((("USD", text), "BALANCE_OUT_OF_RANGE", value));
    }
    for text in ["", "usd", "US", "ABC", "ETH", "US\u{0}", "ＵＳＤ"] {
        cases.push(((text, "1"), "INVALID_CURRENCY_CODE", code));
    }
    let not_positive = ["0", "0.00", "-0", "-1", "-0.01"];
    let not_positive = not_positive.map(|text| (("USD", text), invalid, value));

    for ((currency_code, text), expected, part) in cases.iter().chain(&not_positive) {
        let amount = || money_of(currency_code, text);
        let field = format!("amount.{part}");
        let request = PlaceHoldRequest { amount: amount(), ..hold("a", "") };
        assert_refused(client.place_hold(request).await, expected, &field, text);
        let request = CaptureHoldRequest { amount: amount(), ..capture("h") };
        assert_refused(client.capture_hold(request).await, expected, &field, text);
    }
    let below_zero = [(("USD", "-1"), invalid, value), (("USD", "-0.01"), invalid, value)];
    for ((currency_code, text), expected, part) in cases.iter().chain(&below_zero) {
        let overdraft_limit = money_of(currency_code, text);
        let request = UpdateAccountRequest { overdraft_limit, ..update_of("a") };
        let field = format!("overdraft_limit.{part}");
        assert_refused(client.update_account(request).await, expected, &field, text);
    }
    let request = PlaceHoldRequest { amount: None, ..hold("a", "") };
    assert_refused(client.place_hold(request).await, invalid, "amount", "no amount");

    fixture.assert_nothing_changed().await;
}

async fn malformed_texts_are_refused(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let mut client = fixture.server.client();
    let long = "ä".repeat(513);

    for text in [
        "a\u{0}b",
        "\n",
        "tab\there",
        "\u{1b}[31m",
        "\u{85}",
        "\u{7f}",
        "\u{2029}",
        "\u{200b}",
        &long,
    ] {
        let (expected, field) = ("INVALID_DESCRIPTION", "description");
        let description = || text.to_owned();
        let request = PlaceHoldRequest { description: description(), ..hold("a", "1") };
        assert_refused(client.place_hold(request).await, expected, field, text);
        let request = CaptureHoldRequest { description: description(), ..capture("h") };
        assert_refused(client.capture_hold(request).await, expected, field, text);
        let request = ReverseTransactionRequest { description: description(), ..reversal(UUID) };
        assert_refused(client.reverse_transaction(request).await, expected, field, text);

        let (expected, field) = ("INVALID_REASON", "reason");
        let (account_id, reason) = (|| "a".to_owned(), || text.to_owned());
        let request = FreezeAccountRequest {
            account_id: account_id(),
            reason: reason(),
            ..Default::default()
        };
        assert_refused(client.freeze_account(request).await, expected, field, text);
        let request = UnfreezeAccountRequest {
            account_id: account_id(),
            reason: reason(),
            ..Default::default()
        };
        assert_refused(client.unfreeze_account(request).await, expected, field, text);
        let request = CloseAccountRequest {
            account_id: account_id(),
            reason: reason(),
            ..Default::default()
        };
        assert_refused(client.close_account(request).await, expected, field, text);
    }

    fixture.assert_nothing_changed().await;
}

async fn malformed_labels_are_refused(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let mut client = fixture.server.client();

    for (labels, field) in bad_labels() {
        let (expected, input) = ("INVALID_LABELS", format!("{labels:?}"));
        let request = PlaceHoldRequest { labels: labels.clone(), ..hold("a", "1") };
        assert_refused(client.place_hold(request).await, expected, field, &input);
        let request = CaptureHoldRequest { labels: labels.clone(), ..capture("h") };
        assert_refused(client.capture_hold(request).await, expected, field, &input);
        let request = ReverseTransactionRequest { labels: labels.clone(), ..reversal(UUID) };
        assert_refused(client.reverse_transaction(request).await, expected, field, &input);
        // Whether or not labels are in the mask.
        for paths in [vec![], vec!["labels".to_owned()], vec!["overdraft_limit".to_owned()]] {
            let update_mask = Some(FieldMask { paths });
            let labels = labels.clone();
            let request = UpdateAccountRequest { update_mask, labels, ..update_of("a") };
            assert_refused(client.update_account(request).await, expected, field, &input);
        }
    }

    fixture.assert_nothing_changed().await;
}

async fn invalid_expire_times_are_refused(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let mut client = fixture.server.client();
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
        let input = format!("{expire_time:?}");
        let answer = client.place_hold(request).await;
        assert_refused(answer, "INVALID_EXPIRE_TIME", "expire_time", &input);
    }

    fixture.assert_nothing_changed().await;
}

async fn malformed_updates_are_refused(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let mut client = fixture.server.client();
    let mask = |paths: &[&str]| {
        Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
    };
    let limit = |amount| UpdateAccountRequest { overdraft_limit: money(amount), ..update_of("a") };
    let (invalid_mask, field) = ("INVALID_UPDATE_MASK", "update_mask");
    let long = "x".repeat(100_000);
    let mut cases = vec![
        (update_of("a"), invalid_mask, field),
        (UpdateAccountRequest { update_mask: mask(&[]), ..update_of("a") }, invalid_mask, field),
    ];
    for path in [
        "",
        "*",
        " labels",
        "Labels",
        "labels.team",
        "overdraft_limit.value",
        "balance",
        "state",
        "account_id",
        "expected_version",
        "labels,overdraft_limit",
        "\u{0}",
        "ä",
        &long,
    ] {
        for paths in [&[path][..], &["overdraft_limit", path]] {
            let request = UpdateAccountRequest { update_mask: mask(paths), ..limit("1") };
            cases.push((request, invalid_mask, field));
        }
    }
    let many = vec!["x"; 10_000];
    cases.push((
        UpdateAccountRequest { update_mask: mask(&many), ..limit("1") },
        invalid_mask,
        field,
    ));
    for version in [0, -1, i64::MIN] {
        let request = UpdateAccountRequest { expected_version: Some(version), ..limit("1") };
        cases.push((request, "INVALID_CONDITION", "expected_version"));
    }
    let both = UpdateAccountRequest { unlimited_overdraft: true, ..limit("1") };
    cases.push((both.clone(), "INVALID_AMOUNT", "overdraft_limit.value"));
    let update_mask = mask(&["unlimited_overdraft", "overdraft_limit"]);
    let request = UpdateAccountRequest { update_mask, ..both };
    cases.push((request, "INVALID_AMOUNT", "overdraft_limit.value"));

    for (request, expected, field) in cases {
        let input = format!("{request:?}");
        assert_refused(client.update_account(request).await, expected, field, &input);
    }

    fixture.assert_nothing_changed().await;
}

async fn the_longest_and_strangest_valid_values_are_accepted(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let mut client = fixture.server.client();
    let account_id = format!("{}._:-", "Z9".repeat(30));
    let largest = "99999999999999999999999999.99";
    open_funded(&client, &account_id, largest).await;
    let request_id = |end: &str| format!("'; DROP TABLE holds; -- \\ \" $1 ?1 %s ~{end:!>26}");
    let labels: BTreeMap<_, _> =
        (0..32).map(|number| (format!("{number:a>63}"), "ü".repeat(128))).collect();
    let description = "ä".repeat(512);
    let hold_id = format!("{}._:-", "h0".repeat(30));
    let request = PlaceHoldRequest {
        request_id: request_id("1"),
        hold_id: hold_id.clone(),
        account_id: account_id.clone(),
        amount: money(&format!("{}{largest}", "0".repeat(40))),
        expire_time: Some(Timestamp { seconds: 253_402_300_799, nanos: 999_999_999 }),
        description: description.clone(),
        labels: labels.clone(),
    };
    assert_eq!((request.request_id.len(), hold_id.len()), (64, 64));

    let placed = place(&client, request.clone()).await;
    assert_eq!((&placed.request_id, &placed.hold_id), (&request.request_id, &hold_id));
    assert_eq!((&placed.description, &placed.labels), (&description, &labels));
    assert_eq!(value(&placed.amount), largest);
    assert_eq!(get_hold(&client, &hold_id).await, placed);

    let request = CaptureHoldRequest {
        request_id: request_id("2"),
        description: description.clone(),
        labels: labels.clone(),
        ..capture(&hold_id)
    };
    let made = captured(&client, request.clone()).await.transaction.expect("a transaction");
    assert_eq!((&made.request_id, &made.labels), (&request.request_id, &labels));
    let request = ReverseTransactionRequest {
        request_id: request_id("3"),
        description: description.clone(),
        labels: labels.clone(),
        // Another spelling of the same UUID.
        transaction_id: made.transaction_id.replace('-', "").to_uppercase(),
    };
    let made = reversed(&client, request.clone()).await;
    assert_eq!((&made.request_id, &made.description), (&request.request_id, &description));
    assert_eq!(balance(&client, &account_id).await, largest);
    let request = UpdateAccountRequest {
        labels: labels.clone(),
        overdraft_limit: money(largest),
        expected_version: Some(5),
        ..update_of(&account_id)
    };
    let account = client.update_account(request).await.expect("it is updated").into_inner().account;
    let account = account.expect("an account");
    assert_eq!((account.labels, value(&account.overdraft_limit)), (labels, largest));
    assert_eq!(value(&account.available), "199999999999999999999999999.98");
    let request = FreezeAccountRequest { account_id, reason: description, ..Default::default() };
    client.freeze_account(request).await.expect("it is frozen");
}
