//! Malformed input, and a ledger that it must leave alone.

use std::{collections::BTreeMap, fmt::Debug};

use super::*;

/// A server with two funded accounts and a hold, and the rows that bad input must leave alone.
pub struct Fixture {
    database: TestDatabase,
    pub server: Server,
    pub client: Client,
    before: Vec<String>,
}

impl Fixture {
    pub async fn start(kind: Kind) -> Self {
        let (database, server, client) = start_server(kind).await;
        open_funded(&client, "a", "100").await;
        open_funded(&client, "b", "100").await;
        place(&client, hold_named("h", "a", "10")).await;
        let before = picture(&database).await;
        Self { database, server, client, before }
    }

    pub async fn assert_nothing_changed(&self) {
        assert_eq!(picture(&self.database).await, self.before);
        assert!(!self.server.log().contains("panicked"), "{}", self.server.log());
        // The service still works.
        self.client.deposit(deposit("a", "1")).await.expect("good input is accepted");
        captured(&self.client, capture("h")).await;
    }
}

async fn picture(database: &TestDatabase) -> Vec<String> {
    let mut rows = Vec::new();
    for table in ["requests", "entries", "account_changes", "holds"] {
        rows.push(format!("{table}: {}", database.count(table).await));
    }
    rows.extend(database.accounts().await);
    rows.extend(database.holds().await);
    rows
}

/// Asserts that a request was invalid for this reason, and that the error names this field first.
#[track_caller]
pub fn must_be_invalid<Answer: Debug>(
    answer: Result<Answer, Status>,
    expected: Reason,
    field: &str,
    input: impl Debug,
) {
    let input: String = format!("{input:?}").chars().take(400).collect();
    let status = answer.expect_err(&input);
    assert_eq!(
        reason_and_code(&status),
        (Some(expected), code_of(expected)),
        "{input}: {status:?}"
    );
    assert_eq!(fields(&status).first().map(String::as_str), Some(field), "{input}: {status:?}");
    assert_eq!(metadata(&status, "field"), field, "{input}: {status:?}");
    assert!(status.message().len() < 500, "an error does not echo its whole input");
}

/// Invalid account ids.
pub fn bad_account_ids() -> Vec<String> {
    let short = [
        "", " ", "a b", "a\u{0}", "\u{0}", "ä", "a/b", "a'b", "a\n", "a\"", "ａ", "a%", "*", "a\\",
        "a\u{7f}", "a;b", "{a}",
    ];
    let long = ["'; DROP TABLE accounts; --", "\u{202e}a"];
    let short = short.into_iter().chain(long).map(str::to_owned);
    short.chain([65, 10_000].map(|length| "x".repeat(length))).collect()
}

/// Invalid labels, with the field that the error names.
pub fn bad_labels() -> [(BTreeMap<String, String>, &'static str); 10] {
    let label = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    [
        (label("", "x"), "labels"),
        (label("a b", "x"), "labels"),
        (label("ä", "x"), "labels"),
        (label("a\u{0}", "x"), "labels"),
        (label(&"k".repeat(64), "x"), "labels"),
        (label("key", "a\u{0}"), "labels[key]"),
        (label("key", "line\nbreak"), "labels[key]"),
        (label("key", "\u{202e}a"), "labels[key]"),
        (label("key", &"v".repeat(257)), "labels[key]"),
        ((0..33).map(|number| (format!("key-{number}"), String::new())).collect(), "labels"),
    ]
}

/// A fault of shape, with its reason.
pub type Flaw<Request> = (Reason, fn(&mut Request));

/// Every pair of faults that do not exclude each other, with the reason that must be reported. The
/// faults are in the order of `ErrorReason`.
pub fn pairs<Request: Clone>(
    good: &Request,
    flaws: &[Flaw<Request>],
    exclude_each_other: fn(Reason, Reason) -> bool,
) -> Vec<(Request, Reason)> {
    let mut pairs = Vec::new();
    for (index, (first_reason, first_flaw)) in flaws.iter().enumerate() {
        for (second_reason, second_flaw) in &flaws[index..] {
            if exclude_each_other(*first_reason, *second_reason) {
                continue;
            }
            let mut request = good.clone();
            second_flaw(&mut request);
            first_flaw(&mut request);
            pairs.push((request, *first_reason));
        }
    }
    pairs
}

pub fn break_amount(amount: &mut Option<Money>, value: &str) {
    if let Some(amount) = amount {
        value.clone_into(&mut amount.value);
    }
}
