//! Of two faults in a request on holds, reversals or accounts the lower number of `ErrorReason` is
//! always reported.

use prost_types::Timestamp;

use crate::harness::{malformed::*, *};

on_both_databases! {
    the_lower_numbered_reason_of_two_malformed_fields_wins,
    the_lower_numbered_reason_of_a_malformed_new_account_wins,
    the_first_declared_of_two_equally_wrong_fields_is_named,
    the_lower_numbered_rejection_of_a_hold_wins,
    the_lower_numbered_rejection_of_a_capture_wins,
    the_lower_numbered_rejection_of_a_reversal_wins,
    the_lower_numbered_rejection_of_an_update_wins,
    a_reused_request_id_comes_before_rejections_by_state,
    shape_is_checked_before_any_lookup,
}

// Each in the order of `ErrorReason`.
const OF_A_HOLD: [Flaw<PlaceHoldRequest>; 8] = [
    (Reason::InvalidRequestId, |it| it.request_id.clear()),
    (Reason::InvalidAccountId, |it| it.account_id.clear()),
    (Reason::InvalidAmount, |it| break_amount(&mut it.amount, "-1")),
    (Reason::InvalidDescription, |it| it.description = "\n".to_owned()),
    (Reason::InvalidLabels, |it| it.labels = labels(&[("", "")])),
    (Reason::InvalidHoldId, |it| it.hold_id = "?".to_owned()),
    (Reason::InvalidExpireTime, |it| it.expire_time = Some(Timestamp { seconds: 0, nanos: -1 })),
    (Reason::BalanceOutOfRange, |it| break_amount(&mut it.amount, &"9".repeat(40))),
];
const OF_A_CAPTURE: [Flaw<CaptureHoldRequest>; 7] = [
    (Reason::InvalidRequestId, |it| it.request_id.clear()),
    (Reason::InvalidAccountId, |it| it.destination_account_id = "?".to_owned()),
    (Reason::InvalidCurrencyCode, |it| it.amount = money_of("nope", "1")),
    (Reason::InvalidDescription, |it| it.description = "\n".to_owned()),
    (Reason::InvalidLabels, |it| it.labels = labels(&[("", "")])),
    (Reason::InvalidHoldId, |it| it.hold_id.clear()),
    (Reason::BalanceOutOfRange, |it| it.amount = money(&"9".repeat(40))),
];
const OF_A_RELEASE: [Flaw<ReleaseHoldRequest>; 2] = [
    (Reason::InvalidRequestId, |it| it.request_id.clear()),
    (Reason::InvalidHoldId, |it| it.hold_id.clear()),
];
const OF_A_REVERSAL: [Flaw<ReverseTransactionRequest>; 4] = [
    (Reason::InvalidRequestId, |it| it.request_id.clear()),
    (Reason::InvalidTransactionId, |it| it.transaction_id.clear()),
    (Reason::InvalidDescription, |it| it.description = "\n".to_owned()),
    (Reason::InvalidLabels, |it| it.labels = labels(&[("", "")])),
];
const OF_AN_UPDATE: [Flaw<UpdateAccountRequest>; 7] = [
    (Reason::InvalidAccountId, |it| it.account_id.clear()),
    (Reason::InvalidCurrencyCode, |it| it.overdraft_limit = money_of("nope", "1")),
    (Reason::InvalidAmount, |it| it.overdraft_limit = money("-1")),
    (Reason::InvalidCondition, |it| it.expected_version = Some(0)),
    (Reason::InvalidLabels, |it| it.labels = labels(&[("", "")])),
    (Reason::InvalidUpdateMask, |it| {
        it.update_mask = mask(&["overdraft_limit", "x"]);
    }),
    (Reason::BalanceOutOfRange, |it| it.overdraft_limit = money(&"9".repeat(40))),
];
const OF_A_NEW_ACCOUNT: [Flaw<CreateAccountRequest>; 5] = [
    (Reason::InvalidAccountId, |it| it.account_id = "?".to_owned()),
    // Withdrawn from ISO 4217: accounts of this currency may exist, but no new ones are opened.
    (Reason::InvalidCurrencyCode, |it| {
        it.currency_code = "ZWL".to_owned();
        if let Some(limit) = &mut it.overdraft_limit {
            limit.currency_code = "ZWL".to_owned();
        }
    }),
    (Reason::InvalidAmount, |it| break_amount(&mut it.overdraft_limit, "-1")),
    (Reason::InvalidLabels, |it| it.labels = labels(&[("", "")])),
    (Reason::BalanceOutOfRange, |it| break_amount(&mut it.overdraft_limit, &"9".repeat(40))),
];
const OF_A_STATE: [Flaw<FreezeAccountRequest>; 2] = [
    (Reason::InvalidAccountId, |it| it.account_id.clear()),
    (Reason::InvalidReason, |it| it.reason = "\n".to_owned()),
];

/// Whether both faults are of the amount, which can have only one.
fn are_of_the_amount(first: Reason, second: Reason) -> bool {
    let is_amount = |it| {
        matches!(
            it,
            Reason::InvalidCurrencyCode | Reason::InvalidAmount | Reason::BalanceOutOfRange
        )
    };
    first != second && is_amount(first) && is_amount(second)
}

async fn the_lower_numbered_reason_of_two_malformed_fields_wins(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "10").await;
    place(&client, hold_named("h", "a", "1")).await;

    for (request, expected) in pairs(&hold("a", "1"), &OF_A_HOLD, are_of_the_amount) {
        must_fail(client.place_hold(request).await, expected);
    }
    for (request, expected) in pairs(&capture("h"), &OF_A_CAPTURE, are_of_the_amount) {
        must_fail(client.capture_hold(request).await, expected);
    }
    for (request, expected) in pairs(&release("h"), &OF_A_RELEASE, are_of_the_amount) {
        must_fail(client.release_hold(request).await, expected);
    }
    for (request, expected) in
        pairs(&reversal(&new_request_id()), &OF_A_REVERSAL, are_of_the_amount)
    {
        must_fail(client.reverse_transaction(request).await, expected);
    }
    let update = limit_of("a", "1");
    for (request, expected) in pairs(&update, &OF_AN_UPDATE, are_of_the_amount) {
        must_fail(client.update_account(request).await, expected);
    }
    let good = FreezeAccountRequest {
        account_id: "a".to_owned(),
        reason: String::new(),
        ..Default::default()
    };
    for (request, expected) in pairs(&good, &OF_A_STATE, are_of_the_amount) {
        must_fail(client.freeze_account(request).await, expected);
    }

    assert_eq!(database.count("requests").await, 2, "nothing malformed was kept");
    assert_eq!(get(&client, "a").await.version, 3);
}

async fn the_lower_numbered_reason_of_a_malformed_new_account_wins(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    let good = CreateAccountRequest { overdraft_limit: money("1"), ..account_of("new", "USD") };
    let are_of_the_limit = |first: Reason, second: Reason| {
        (first, second) == (Reason::InvalidAmount, Reason::BalanceOutOfRange)
    };

    for (request, expected) in pairs(&good, &OF_A_NEW_ACCOUNT, are_of_the_limit) {
        must_fail(client.create_account(request).await, expected);
    }

    assert_eq!(database.count("accounts").await, 0, "no account was opened");
}

async fn the_first_declared_of_two_equally_wrong_fields_is_named(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let time = Some(Timestamp { seconds: 0, nanos: -1 });

    let request = ListTransactionsRequest {
        kind: -1,
        start_time: time,
        end_time: time,
        page_size: -1,
        page_token: "x".to_owned(),
        ..Default::default()
    };
    let status = must_fail(client.list_transactions(request.clone()).await, Reason::InvalidFilter);
    assert_eq!(
        fields(&status),
        ["kind", "start_time", "end_time", "page_size", "page_token"],
        "all that is wrong is said, the decisive one first"
    );
    let request = ListTransactionsRequest { kind: 0, ..request };
    let status = must_fail(client.list_transactions(request.clone()).await, Reason::InvalidFilter);
    assert_eq!(metadata(&status, "field"), "start_time");
    let time_basis = TimeBasis::EffectiveTime.into();
    let request = ListTransactionsRequest { time_basis, ..request };
    let status = must_fail(client.list_transactions(request).await, Reason::InvalidFilter);
    assert_eq!(
        fields(&status),
        ["account_id", "start_time", "end_time", "page_size", "page_token"]
    );
    let request =
        ListEntriesRequest { after_sequence: 1, start_time: time, time_basis, ..entries_of("a") };
    let status = must_fail(client.list_entries(request).await, Reason::InvalidFilter);
    assert_eq!(fields(&status), ["after_sequence", "start_time"]);
    let account_id_prefix = "?".to_owned();
    let request = ListAccountsRequest { state: -1, account_id_prefix, ..Default::default() };
    let status = must_fail(client.list_accounts(request).await, Reason::InvalidFilter);
    assert_eq!(fields(&status), ["state", "account_id_prefix"]);
}

async fn the_lower_numbered_rejection_of_a_hold_wins(kind: Kind) {
    let (_database, _server, client) = prepare(kind).await;
    open_unlimited(&client, "unlimited").await;
    place(&client, hold("unlimited", "5")).await;
    let passed = Some(Timestamp { seconds: 0, nanos: 0 });
    let with = |hold_id: &str, account_id: &str, (code, amount): (&str, &str), expire_time| {
        let amount = money_of(code, amount);
        PlaceHoldRequest { amount, expire_time, ..hold_named(hold_id, account_id, "") }
    };
    // The request also has every fault of a higher number.
    let cases = [
        (with("taken", "nobody", ("EUR", "5"), passed), Reason::HoldExists),
        (with("", "nobody", ("EUR", "5"), passed), Reason::ExpireTimePassed),
        (with("", "closed", ("EUR", "5"), passed), Reason::ExpireTimePassed),
        (with("", "nobody", ("EUR", "5"), None), Reason::AccountNotFound),
        (with("", "closed", ("EUR", LARGEST), None), Reason::AccountClosed),
        (with("", "frozen", ("EUR", LARGEST), None), Reason::AccountFrozen),
        (with("", "open", ("EUR", "5"), None), Reason::CurrencyMismatch),
        (with("", "full", ("USD", LARGEST), None), Reason::InsufficientFunds),
        (with("", "unlimited", ("USD", LARGEST), None), Reason::BalanceOutOfRange),
    ];

    for (request, expected) in cases {
        must_fail(client.place_hold(request).await, expected);
    }
}

/// Empty accounts in every state, and "full", which has nearly the largest amount available besides
/// the hold "taken" of 5.00.
async fn prepare(kind: Kind) -> (TestDatabase, Server, Client) {
    let (database, server, client) = start_server(kind).await;
    open_all(&client, &["open", "frozen", "closed"]).await;
    freeze(&client, "frozen").await;
    close(&client, "closed").await.expect("it is empty");
    open_with(&client, account_of("euro", "EUR")).await;
    open_funded(&client, "full", LARGEST).await;
    place(&client, hold_named("taken", "full", "5")).await;
    (database, server, client)
}

async fn the_lower_numbered_rejection_of_a_capture_wins(kind: Kind) {
    let (_database, _server, client) = prepare(kind).await;
    open_funded(&client, "payer", "10").await;
    place_all(&client, "payer", "2", &["h", "released"]).await;
    released(&client, release("released")).await;
    let with = |hold_id: &str, (code, amount): (&str, &str), destination: &str| {
        let destination_account_id = destination.to_owned();
        let amount = money_of(code, amount);
        CaptureHoldRequest { amount, destination_account_id, ..capture(hold_id) }
    };
    let cases = [
        (with("missing", ("EUR", "5"), "nobody"), Reason::HoldNotFound),
        (with("released", ("USD", "5"), "nobody"), Reason::HoldNotOpen),
        (with("h", ("USD", "5"), "nobody"), Reason::HoldAmountExceeded),
        (with("h", ("USD", "2.01"), "closed"), Reason::HoldAmountExceeded),
        (with("h", ("EUR", "5"), "nobody"), Reason::AccountNotFound),
        (with("h", ("EUR", "5"), "closed"), Reason::AccountClosed),
        (with("h", ("EUR", "5"), "full"), Reason::CurrencyMismatch),
        (with("h", ("USD", "1"), "euro"), Reason::CurrencyMismatch),
        (with("h", ("USD", "1"), "full"), Reason::BalanceOutOfRange),
    ];

    for (request, expected) in cases {
        must_fail(client.capture_hold(request).await, expected);
    }
    // With equal reasons the paying account is named.
    let status = must_fail(
        client.capture_hold(with("h", ("JPY", "1"), "euro")).await,
        Reason::CurrencyMismatch,
    );
    assert_eq!(metadata(&status, "account_id"), "payer");
}

async fn the_lower_numbered_rejection_of_a_reversal_wins(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_all(&client, &["p", "q", "r", "other"]).await;
    open_unlimited(&client, "deep").await;
    // The later an account stands in the transaction, the lower the number of its rejection.
    let mut ids = Vec::new();
    for account_ids in
        [&["deep", "q", "p"][..], &["deep", "q", "r"], &["deep", "q"], &["deep"], &["r", "p"]]
    {
        let legs: Vec<_> = account_ids.iter().map(|account_id| leg(account_id, "5")).collect();
        ids.push(posted(&client, post(&legs)).await.transaction_id);
    }
    let reversal_of_the_last = reversed(&client, reversal(&ids[4])).await;
    // "q" is emptied, "deep" is at the lower limit of money, "r" is frozen and emptied, "p" is
    // closed.
    for (account_id, amount) in
        [("q", "15"), ("deep", "20"), ("deep", LARGEST), ("p", "5"), ("r", "5")]
    {
        client.withdraw(withdrawal(account_id, amount)).await.expect("applied");
    }
    freeze(&client, "r").await;
    close(&client, "p").await.expect("it is empty");

    let expected = [
        (Reason::AccountClosed, "p"),
        (Reason::AccountFrozen, "r"),
        (Reason::InsufficientFunds, "q"),
        (Reason::BalanceOutOfRange, "deep"),
    ];
    for (id, (expected, account_id)) in ids.iter().zip(expected) {
        let answer = client.reverse_transaction(reversal(id)).await;
        let status = must_fail(answer, expected);
        assert_eq!(metadata(&status, "account_id"), account_id);
    }
    let answer = client.reverse_transaction(reversal(&ids[4])).await;
    let status = must_fail(answer, Reason::AlreadyReversed);
    let by = &reversal_of_the_last.transaction_id;
    assert_eq!(metadata(&status, "reversed_by_transaction_id"), *by);
}

async fn the_lower_numbered_rejection_of_an_update_wins(kind: Kind) {
    let (_database, _server, client) = prepare(kind).await;
    open_with_overdraft(&client, "used", "5").await;
    client.withdraw(withdrawal("used", "5")).await.expect("applied");
    let with = |account_id: &str, currency_code: &str| UpdateAccountRequest {
        overdraft_limit: money_of(currency_code, "1"),
        expected_version: Some(99),
        ..update_of(account_id)
    };
    let cases = [
        (with("nobody", "EUR"), Reason::AccountNotFound),
        (with("closed", "EUR"), Reason::AccountClosed),
        (with("used", "EUR"), Reason::CurrencyMismatch),
        (with("used", "USD"), Reason::InsufficientFunds),
        (with("open", "USD"), Reason::VersionMismatch),
    ];

    for (request, expected) in cases {
        must_fail(client.update_account(request).await, expected);
    }
}

async fn a_reused_request_id_comes_before_rejections_by_state(kind: Kind) {
    let (_database, _server, client) = prepare(kind).await;
    let taken = deposit("open", "1");
    client.deposit(taken.clone()).await.expect("applied");
    // A fence as well, whatever the body is.
    fence(&client, "no").await;

    for (id, expected) in
        [(taken.request_id, Reason::RequestIdReused), ("no".to_owned(), Reason::RequestFenced)]
    {
        let id = || id.clone();
        let changes: [Change; 5] = [
            PlaceHoldRequest { request_id: id(), ..hold_named("taken", "nobody", "1") }.into(),
            CaptureHoldRequest { request_id: id(), ..capture("missing") }.into(),
            ReleaseHoldRequest { request_id: id(), ..release("missing") }.into(),
            ReleaseHoldRequest { request_id: id(), ..release("taken") }.into(),
            ReverseTransactionRequest { request_id: id(), ..reversal(MISSING_TRANSACTION) }.into(),
        ];
        for change in changes {
            let status = must_fail(change.send(&client, PATIENCE).await, expected);
            assert_eq!(metadata(&status, "request_id"), id(), "{change:?}");
        }
    }
}

async fn shape_is_checked_before_any_lookup(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    let text = || "\n".to_owned();

    let request = PlaceHoldRequest { description: text(), ..hold("nobody", "1") };
    must_fail(client.place_hold(request).await, Reason::InvalidDescription);
    let request = CaptureHoldRequest { description: text(), ..capture("missing") };
    must_fail(client.capture_hold(request).await, Reason::InvalidDescription);
    let request = ReverseTransactionRequest { description: text(), ..reversal(&new_request_id()) };
    must_fail(client.reverse_transaction(request).await, Reason::InvalidDescription);
    let answer = set_state(&client, "nobody", AccountState::Frozen, "\n", None).await;
    must_fail(answer, Reason::InvalidReason);
    assert_eq!(database.count("requests").await, 0);
}
