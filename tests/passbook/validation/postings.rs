//! Malformed postings are refused with their reason and field, and change and record nothing.

use passbook::proto::{
    Condition, CreateAccountRequest, DepositRequest, Money, TransferRequest, WithdrawRequest,
};
use tonic::{Code, Status};

use crate::harness::{malformed::*, *};

on_both_databases! {
    malformed_amounts_are_refused,
    malformed_currencies_are_refused,
    malformed_ids_are_refused,
    malformed_texts_and_labels_are_refused,
    conditions_that_contradict_themselves_are_refused,
    malformed_new_accounts_are_refused,
    the_longest_and_strangest_valid_values_are_accepted,
}

/// Amounts in USD that violate the grammar or the limits.
fn bad_amounts() -> Vec<(String, Code, &'static str)> {
    let malformed = [
        "",
        " ",
        "1 ",
        " 1",
        "1e2",
        "1E2",
        "1e-2",
        "+1",
        ".5",
        "1.",
        ".",
        "-",
        "--1",
        "-.5",
        "1_000",
        "1,000",
        "1,50",
        "1.000.000",
        "1.2.3",
        "0x10",
        "NaN",
        "nan",
        "Infinity",
        "-Infinity",
        "inf",
        "one",
        "$1",
        "1 USD",
        "1\n",
        "\t1",
        "1\u{0}",
        "\u{0}1",
        "1;DROP TABLE accounts",
        "' OR '1'='1",
        "\u{0661}\u{0662}",
        "\u{ff11}\u{ff12}",
        "\u{09e7}",
        "\u{1d7d8}",
        "\u{b2}",
        "1\u{a0}000",
        "−1",
        "½",
        "1\u{200b}",
        "\u{202e}1",
    ];
    let out_of_form =
        ["1.001", "0.001", "1.0000000000", "0", "0.00", "-0", "-0.00", "-1", "-0.01", "-1e2"];
    let beyond = ["100000000000000000000000000", "100000000000000000000000000.00", &"9".repeat(40)];
    let invalid = malformed.iter().chain(&out_of_form);
    let mut cases: Vec<_> =
        invalid.map(|text| ((*text).to_owned(), Code::InvalidArgument, "INVALID_AMOUNT")).collect();
    cases.extend(beyond.map(|text| (text.to_owned(), Code::OutOfRange, "BALANCE_OUT_OF_RANGE")));
    cases.push((format!("0.{}", "1".repeat(40)), Code::InvalidArgument, "INVALID_AMOUNT"));
    cases.push((format!("1{}", "x".repeat(100_000)), Code::InvalidArgument, "INVALID_AMOUNT"));
    cases
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(
    answer: Result<T, Status>,
    (code, expected_reason): (Code, &str),
    field: &str,
    input: &str,
) {
    let input: String = input.chars().take(60).collect();
    let status = match answer {
        Ok(answer) => panic!("{input:?} was taken: {answer:?}"),
        Err(status) => status,
    };
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (code, expected_reason),
        "{input:?}: {status:?}"
    );
    let said = fields(&status);
    assert_eq!(said.first().map(String::as_str), Some(field), "{input:?}: {status:?}");
    assert!(status.message().len() < 500, "an error does not echo its whole input");
}

async fn malformed_amounts_are_refused(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let mut client = fixture.server.client();

    for (text, code, expected_reason) in bad_amounts() {
        let expected = (code, expected_reason);
        let amount = || money(&text);
        let request = DepositRequest { amount: amount(), ..deposit("a", "") };
        assert_refused(client.deposit(request).await, expected, "amount.value", &text);
        let request = WithdrawRequest { amount: amount(), ..withdrawal("a", "") };
        assert_refused(client.withdraw(request).await, expected, "amount.value", &text);
        let request = TransferRequest { amount: amount(), ..transfer("a", "b", "") };
        assert_refused(client.transfer(request).await, expected, "amount.value", &text);
    }
    let invalid = (Code::InvalidArgument, "INVALID_AMOUNT");
    let request = DepositRequest { amount: None, ..deposit("a", "") };
    assert_refused(client.deposit(request).await, invalid, "amount", "no amount");
    let request = DepositRequest { amount: money_of("JPY", "1.0"), ..deposit("a", "") };
    assert_refused(client.deposit(request).await, invalid, "amount.value", "a decimal of a yen");

    fixture.assert_nothing_changed().await;
}

async fn malformed_currencies_are_refused(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let mut client = fixture.server.client();
    let long = "U".repeat(13);
    let codes = [
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
        "'; DROP TABLE accounts; --",
        &long,
    ];

    for code in codes {
        let expected = (Code::InvalidArgument, "INVALID_CURRENCY_CODE");
        let request = DepositRequest { amount: money_of(code, "1"), ..deposit("a", "") };
        assert_refused(client.deposit(request).await, expected, "amount.currency_code", code);
        let request = account_of("new", code);
        assert_refused(client.create_account(request).await, expected, "currency_code", code);
    }

    fixture.assert_nothing_changed().await;
}

async fn malformed_ids_are_refused(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let mut client = fixture.server.client();

    let expected = (Code::InvalidArgument, "INVALID_ACCOUNT_ID");
    for id in bad_account_ids() {
        assert_refused(client.deposit(deposit(&id, "1")).await, expected, "account_id", &id);
        assert_refused(client.withdraw(withdrawal(&id, "1")).await, expected, "account_id", &id);
        let source = client.transfer(transfer(&id, "b", "1")).await;
        assert_refused(source, expected, "source_account_id", &id);
        let destination = client.transfer(transfer("a", &id, "1")).await;
        assert_refused(destination, expected, "destination_account_id", &id);
        if !id.is_empty() {
            let request = account_of(&id, "USD");
            assert_refused(client.create_account(request).await, expected, "account_id", &id);
        }
    }
    let expected = (Code::InvalidArgument, "INVALID_REQUEST_ID");
    for id in [
        "",
        "\u{0}",
        "a\n",
        "ä",
        "\u{7f}",
        "a\u{200b}",
        "\t",
        &"x".repeat(65),
        &"x".repeat(100_000),
    ] {
        let request_id = || id.to_owned();
        let request = DepositRequest { request_id: request_id(), ..deposit("a", "1") };
        assert_refused(client.deposit(request).await, expected, "request_id", id);
        let request = WithdrawRequest { request_id: request_id(), ..withdrawal("a", "1") };
        assert_refused(client.withdraw(request).await, expected, "request_id", id);
        let request = TransferRequest { request_id: request_id(), ..transfer("a", "b", "1") };
        assert_refused(client.transfer(request).await, expected, "request_id", id);
    }

    fixture.assert_nothing_changed().await;
}

async fn malformed_texts_and_labels_are_refused(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let mut client = fixture.server.client();

    let expected = (Code::InvalidArgument, "INVALID_DESCRIPTION");
    for text in [
        "a\u{0}b",
        "\n",
        "tab\there",
        "\u{1b}[31m",
        "\u{85}",
        "\u{7f}",
        "\u{2028}",
        "\u{202e}a",
        &"ä".repeat(513),
    ] {
        let request = DepositRequest { description: text.to_owned(), ..deposit("a", "1") };
        assert_refused(client.deposit(request).await, expected, "description", text);
    }
    let expected = (Code::InvalidArgument, "INVALID_LABELS");
    for (labels, field) in bad_labels() {
        let input = format!("{labels:?}");
        let request = DepositRequest { labels: labels.clone(), ..deposit("a", "1") };
        assert_refused(client.deposit(request).await, expected, field, &input);
        let request = CreateAccountRequest { labels, ..account_of("new", "USD") };
        assert_refused(client.create_account(request).await, expected, field, &input);
    }

    fixture.assert_nothing_changed().await;
}

async fn conditions_that_contradict_themselves_are_refused(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let mut client = fixture.server.client();
    let (invalid, none) = (Code::InvalidArgument, Condition::default);
    let min = |amount: Option<Money>| Condition { min_balance_after: amount, ..none() };
    let expected_version = |version| Condition { expected_version: Some(version), ..none() };
    let crossed = Condition { max_balance_after: money("0.99"), ..min(money("1")) };
    let cases = [
        (expected_version(0), "INVALID_CONDITION", "condition.expected_version"),
        (expected_version(-1), "INVALID_CONDITION", "condition.expected_version"),
        (crossed, "INVALID_CONDITION", "condition.max_balance_after"),
        (
            min(money_of("EUR", "1")),
            "INVALID_CURRENCY_CODE",
            "condition.min_balance_after.currency_code",
        ),
        (min(money("1e2")), "INVALID_AMOUNT", "condition.min_balance_after.value"),
        (min(money("1.001")), "INVALID_AMOUNT", "condition.min_balance_after.value"),
    ];

    for (condition, expected_reason, field) in cases {
        let input = format!("{condition:?}");
        let condition = Some(condition);
        let request = TransferRequest { condition: condition.clone(), ..transfer("a", "b", "1") };
        assert_refused(client.transfer(request).await, (invalid, expected_reason), field, &input);
        let request = WithdrawRequest { condition, ..withdrawal("a", "1") };
        assert_refused(client.withdraw(request).await, (invalid, expected_reason), field, &input);
    }

    fixture.assert_nothing_changed().await;
}

async fn malformed_new_accounts_are_refused(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let mut client = fixture.server.client();
    let with = |overdraft_limit, unlimited_overdraft| CreateAccountRequest {
        overdraft_limit,
        unlimited_overdraft,
        ..account_of("new", "USD")
    };
    let (value, code) = ("overdraft_limit.value", "overdraft_limit.currency_code");
    let (invalid, range) = (Code::InvalidArgument, Code::OutOfRange);
    let cases = [
        (with(money("-1"), false), (invalid, "INVALID_AMOUNT"), value),
        (with(money("1e2"), false), (invalid, "INVALID_AMOUNT"), value),
        (with(money("0.001"), false), (invalid, "INVALID_AMOUNT"), value),
        (with(money("1"), true), (invalid, "INVALID_AMOUNT"), value),
        (with(money_of("EUR", "1"), false), (invalid, "INVALID_CURRENCY_CODE"), code),
        (with(money(&"9".repeat(40)), false), (range, "BALANCE_OUT_OF_RANGE"), value),
    ];

    for (request, expected, field) in cases {
        let input = format!("{request:?}");
        assert_refused(client.create_account(request).await, expected, field, &input);
    }

    fixture.assert_nothing_changed().await;
}

async fn the_longest_and_strangest_valid_values_are_accepted(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let mut client = fixture.server.client();
    let account_id = format!("{}._:-", "Z9".repeat(30));
    open(&client, &account_id).await;
    let request = DepositRequest {
        request_id: "'; DROP TABLE requests; -- \\ \" $1 ?1 %s ~".to_owned() + &"!".repeat(19),
        account_id: account_id.clone(),
        amount: money("000000000000000000000000000000000000000099999999999999999999999999.99"),
        description: "ä".repeat(512),
        labels: (0..32).map(|number| (format!("{number:a>63}",), "ü".repeat(128))).collect(),
        condition: Some(Condition {
            max_balance_after: money("99999999999999999999999999.99"),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert!(request.request_id.len() <= 64 && account_id.len() == 64);

    let answer = client.deposit(request.clone()).await.expect("it is all within the limits");

    let transaction = answer.into_inner().transaction.expect("a transaction");
    assert_eq!(transaction.request_id, request.request_id);
    assert_eq!(
        (&transaction.description, &transaction.labels),
        (&request.description, &request.labels)
    );
    assert_eq!(balance(&client, &account_id).await, "99999999999999999999999999.99");
}
