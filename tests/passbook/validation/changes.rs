//! Malformed fields that several requests have are invalid in each of them, with their reason and
//! field, and change and record nothing.

use crate::harness::{malformed::*, *};

on_both_databases! {
    malformed_request_ids_are_invalid,
    malformed_names_are_invalid,
    malformed_amounts_are_invalid,
    malformed_currencies_are_invalid,
    malformed_texts_are_invalid,
    malformed_labels_are_invalid,
}

async fn all_must_be_invalid(
    client: &Client,
    changes: impl IntoIterator<Item = Change>,
    expected: Reason,
    field: &str,
) {
    for change in changes {
        must_be_invalid(change.send(client, PATIENCE).await, expected, field, &change);
    }
}

async fn malformed_request_ids_are_invalid(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let client = &fixture.client;
    let (expected, field) = (Reason::InvalidRequestId, "request_id");
    let mut ids =
        ["", "\u{0}", "a\n", "ä", "\u{7f}", "a\u{200b}", "\t"].map(str::to_owned).to_vec();
    ids.extend([65, 100_000].map(|length| "x".repeat(length)));

    for id in &ids {
        let request_id = || id.clone();
        let transaction_id = MISSING_TRANSACTION;
        let changes = [
            Change::Deposit(DepositRequest { request_id: request_id(), ..deposit("a", "1") }),
            Change::Withdraw(WithdrawRequest { request_id: request_id(), ..withdrawal("a", "1") }),
            Change::Transfer(TransferRequest {
                request_id: request_id(),
                ..transfer("a", "b", "1")
            }),
            Change::PlaceHold(PlaceHoldRequest { request_id: request_id(), ..hold("a", "1") }),
            Change::UpdateHold(UpdateHoldRequest {
                request_id: request_id(),
                ..hold_update("h", "1")
            }),
            Change::CaptureHold(CaptureHoldRequest { request_id: request_id(), ..capture("h") }),
            Change::ReleaseHold(ReleaseHoldRequest { request_id: request_id(), ..release("h") }),
            Change::Reverse(ReverseTransactionRequest {
                request_id: request_id(),
                ..reversal(transaction_id)
            }),
        ];
        all_must_be_invalid(client, changes, expected, field).await;
        let request = GetRequestOutcomeRequest { request_id: request_id() };
        must_be_invalid(client.get_request_outcome(request).await, expected, field, id);
        let request = FenceRequestRequest { request_id: request_id() };
        must_be_invalid(client.fence_request(request).await, expected, field, id);
    }

    fixture.assert_nothing_changed().await;
}

async fn malformed_names_are_invalid(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let client = &fixture.client;

    // Hold ids have the grammar of account ids.
    for id in &bad_account_ids() {
        let (account, field) = (Reason::InvalidAccountId, "account_id");
        let changes = [
            Change::Deposit(deposit(id, "1")),
            Change::Withdraw(withdrawal(id, "1")),
            Change::PlaceHold(hold(id, "1")),
        ];
        all_must_be_invalid(client, changes, account, field).await;
        let source = Change::Transfer(transfer(id, "b", "1"));
        all_must_be_invalid(client, [source], account, "source_account_id").await;
        let destination = Change::Transfer(transfer("a", id, "1"));
        all_must_be_invalid(client, [destination], account, "destination_account_id").await;
        let named = [
            Change::UpdateHold(hold_update(id, "1")),
            Change::CaptureHold(capture(id)),
            Change::ReleaseHold(release(id)),
        ];
        all_must_be_invalid(client, named, Reason::InvalidHoldId, "hold_id").await;
        must_be_invalid(client.update_account(limit_of(id, "1")).await, account, field, id);
        for state in STATES {
            must_be_invalid(set_state(client, id, state, "", None).await, account, field, id);
        }
        // Empty values count as absent here.
        if !id.is_empty() {
            let answer = client.create_account(account_of(id, "USD")).await;
            must_be_invalid(answer, account, field, id);
            let named = Change::PlaceHold(hold_named(id, "a", "1"));
            all_must_be_invalid(client, [named], Reason::InvalidHoldId, "hold_id").await;
            let into = Change::CaptureHold(capture_to(id, "h", "1"));
            all_must_be_invalid(client, [into], account, "destination_account_id").await;
        }
    }
    let (known, long) = (MISSING_TRANSACTION, "0".repeat(100_000));
    for id in ["", "x", "0197a1b2", "' OR 1=1 --", &known[1..], &format!("{known}0"), "٣", &long] {
        let change = Change::Reverse(reversal(id));
        let (expected, field) = (Reason::InvalidTransactionId, "transaction_id");
        all_must_be_invalid(client, [change], expected, field).await;
    }

    fixture.assert_nothing_changed().await;
}

/// Amounts in USD that violate the grammar or the limits of money.
fn bad_amounts() -> Vec<(String, Reason)> {
    let short = [
        "", " ", "1 ", " 1", "1e2", "1E2", "1e-2", "-1e2", "+1", ".5", "1.", ".", "-", "--1",
        "-.5", "1_000", "1,000", "1,50", "1,00", "1.2.3", "0x10", "NaN", "nan", "Infinity", "inf",
        "one", "$1", "1 USD", "1\n", "\t1", "1\u{0}", "\u{0}1", "\u{0661}", "\u{09e7}", "\u{b2}",
        "−1", "½", "1.001", "0.001",
    ];
    let long = ["1.000.000", "-Infinity", "1;DROP TABLE accounts", "' OR '1'='1", "1.0000000000"];
    let digits = ["\u{0661}\u{0662}", "\u{ff11}\u{ff12}", "\u{1d7d8}", "1\u{a0}000"];
    let invisible = ["1\u{200b}", "\u{202e}1"];
    let malformed =
        [&short[..], &long, &digits, &invisible].concat().into_iter().map(str::to_owned);
    let longest = [format!("0.{}", "1".repeat(40)), format!("1{}", "x".repeat(100_000))];
    let beyond = ["100000000000000000000000000", "100000000000000000000000000.00", &"9".repeat(40)]
        .map(|text| (text.to_owned(), Reason::BalanceOutOfRange));
    let malformed = malformed.chain(longest).map(|text| (text, Reason::InvalidAmount));
    malformed.chain(beyond).collect()
}

/// One change of each kind that has an amount.
fn of_amount(currency_code: &str, value: &str) -> [Change; 7] {
    let amount = || money_of(currency_code, value);
    [
        Change::Deposit(DepositRequest { amount: amount(), ..deposit("a", "") }),
        Change::Withdraw(WithdrawRequest { amount: amount(), ..withdrawal("a", "") }),
        Change::Transfer(TransferRequest { amount: amount(), ..transfer("a", "b", "") }),
        Change::PlaceHold(PlaceHoldRequest { amount: amount(), ..hold("a", "") }),
        Change::UpdateHold(UpdateHoldRequest { amount: amount(), ..hold_update("h", "") }),
        Change::CaptureHold(CaptureHoldRequest { amount: amount(), ..capture("h") }),
        Change::Reverse(ReverseTransactionRequest {
            amount: amount(),
            ..reversal(MISSING_TRANSACTION)
        }),
    ]
}

async fn malformed_amounts_are_invalid(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let client = &fixture.client;
    let invalid = Reason::InvalidAmount;

    for (text, expected) in bad_amounts() {
        all_must_be_invalid(client, of_amount("USD", &text), expected, "amount.value").await;
        let answer = client.update_account(limit_of("a", &text)).await;
        must_be_invalid(answer, expected, "overdraft_limit.value", &text);
    }
    for text in ["0", "0.00", "-0", "-0.00", "-1", "-0.01"] {
        all_must_be_invalid(client, of_amount("USD", text), invalid, "amount.value").await;
    }
    all_must_be_invalid(client, of_amount("JPY", "1.0"), invalid, "amount.value").await;
    for (currency_code, text) in [("USD", "-1"), ("USD", "-0.01"), ("JPY", "1.0")] {
        let overdraft_limit = money_of(currency_code, text);
        let request = UpdateAccountRequest { overdraft_limit, ..update_of("a") };
        let answer = client.update_account(request).await;
        must_be_invalid(answer, invalid, "overdraft_limit.value", text);
    }
    let absent = [
        Change::Deposit(DepositRequest { amount: None, ..deposit("a", "") }),
        Change::PlaceHold(PlaceHoldRequest { amount: None, ..hold("a", "") }),
    ];
    all_must_be_invalid(client, absent, invalid, "amount").await;

    fixture.assert_nothing_changed().await;
}

async fn malformed_currencies_are_invalid(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let client = &fixture.client;
    let expected = Reason::InvalidCurrencyCode;
    let short = [
        "",
        "usd",
        "US",
        "USD ",
        " USD",
        "ABC",
        "XYZ",
        "XXX",
        "1SD",
        "U$D",
        "ＵＳＤ",
        "US\u{0}",
        "840",
        "ETH",
    ];
    let long = "U".repeat(13);

    for code in short.into_iter().chain(["'; DROP TABLE accounts; --", &long]) {
        all_must_be_invalid(client, of_amount(code, "1"), expected, "amount.currency_code").await;
        let answer = client.create_account(account_of("new", code)).await;
        must_be_invalid(answer, expected, "currency_code", code);
        let overdraft_limit = money_of(code, "1");
        let request = UpdateAccountRequest { overdraft_limit, ..update_of("a") };
        let answer = client.update_account(request).await;
        must_be_invalid(answer, expected, "overdraft_limit.currency_code", code);
    }

    fixture.assert_nothing_changed().await;
}

async fn malformed_texts_are_invalid(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let client = &fixture.client;
    let long = "ä".repeat(513);

    let short = ["a\u{0}b", "\n", "tab\there", "\u{1b}[31m", "\u{85}", "\u{7f}"];
    let invisible = ["\u{2028}", "\u{2029}", "\u{200b}", "\u{202e}a"];
    for text in short.into_iter().chain(invisible).chain([long.as_str()]) {
        let description = || text.to_owned();
        let changes = [
            Change::Deposit(DepositRequest { description: description(), ..deposit("a", "1") }),
            Change::PlaceHold(PlaceHoldRequest { description: description(), ..hold("a", "1") }),
            Change::CaptureHold(CaptureHoldRequest { description: description(), ..capture("h") }),
            Change::Reverse(ReverseTransactionRequest {
                description: description(),
                ..reversal(MISSING_TRANSACTION)
            }),
        ];
        all_must_be_invalid(client, changes, Reason::InvalidDescription, "description").await;
        for state in STATES {
            let answer = set_state(client, "a", state, text, None).await;
            must_be_invalid(answer, Reason::InvalidReason, "reason", text);
        }
    }

    fixture.assert_nothing_changed().await;
}

async fn malformed_labels_are_invalid(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let client = &fixture.client;
    let expected = Reason::InvalidLabels;

    for (labels, field) in bad_labels() {
        let of = || labels.clone();
        let changes = [
            Change::Deposit(DepositRequest { labels: of(), ..deposit("a", "1") }),
            Change::PlaceHold(PlaceHoldRequest { labels: of(), ..hold("a", "1") }),
            Change::CaptureHold(CaptureHoldRequest { labels: of(), ..capture("h") }),
            Change::Reverse(ReverseTransactionRequest {
                labels: of(),
                ..reversal(MISSING_TRANSACTION)
            }),
        ];
        all_must_be_invalid(client, changes, expected, field).await;
        let request = CreateAccountRequest { labels: of(), ..account_of("new", "USD") };
        must_be_invalid(client.create_account(request).await, expected, field, &labels);
        // Whether or not labels are in the mask.
        for paths in [&[][..], &["labels"], &["overdraft_limit"]] {
            let update_mask = mask(paths);
            let request = UpdateAccountRequest { update_mask, labels: of(), ..update_of("a") };
            must_be_invalid(client.update_account(request).await, expected, field, &labels);
        }
    }

    fixture.assert_nothing_changed().await;
}
