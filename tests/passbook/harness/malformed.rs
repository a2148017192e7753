//! Malformed input, and a ledger that it must leave alone.

use std::collections::BTreeMap;

use tonic::{Code, Status};

use super::{
    Kind, Server, TestDatabase, capture, captured, deposit, fields, hold_named, open_funded, place,
    refused,
};

/// A server with two funded accounts and a hold, and the rows that bad input must leave alone.
pub struct Fixture {
    database: TestDatabase,
    pub server: Server,
    before: Vec<String>,
}

impl Fixture {
    pub async fn start(kind: Kind) -> Self {
        let database = TestDatabase::create(kind).await;
        let server = Server::start(&database).await;
        let client = server.client();
        open_funded(&client, "a", "100").await;
        open_funded(&client, "b", "100").await;
        place(&client, hold_named("h", "a", "10")).await;
        let before = picture(&database).await;
        Self { database, server, before }
    }

    pub async fn assert_nothing_changed(&self) {
        assert_eq!(picture(&self.database).await, self.before);
        assert!(!self.server.log().contains("panicked"), "{}", self.server.log());
        // The service still works.
        self.server.client().deposit(deposit("a", "1")).await.expect("good input is accepted");
        captured(&self.server.client(), capture("h")).await;
    }
}

async fn picture(database: &TestDatabase) -> Vec<String> {
    let mut rows = Vec::new();
    for table in ["requests", "entries", "account_changes", "holds"] {
        rows.push(format!("{table}: {}", database.count(table).await));
    }
    let accounts = "SELECT account_id || ' ' || balance || ' ' || held || ' ' || overdraft_limit \
                    || ' ' || state || ' ' || version || ' ' || labels FROM accounts \
                    ORDER BY account_id";
    rows.extend(database.texts(accounts).await);
    rows.extend(database.texts("SELECT hold_id || ' ' || state FROM holds").await);
    rows
}

#[track_caller]
pub fn assert_field_refused<T: std::fmt::Debug>(
    answer: Result<T, Status>,
    expected_reason: &str,
    field: &str,
) {
    let status = refused(answer, Code::InvalidArgument, expected_reason);
    assert_eq!(fields(&status).first().map(String::as_str), Some(field), "{status:?}");
    assert!(status.message().len() < 500, "an error does not echo its whole input");
}

/// Invalid account ids.
pub fn bad_account_ids() -> Vec<String> {
    let bad = [
        "",
        " ",
        "a b",
        "a\u{0}",
        "\u{0}",
        "ä",
        "a/b",
        "a'b",
        "'; DROP TABLE accounts; --",
        "a\n",
        "a\"",
        "\u{202e}a",
        "ａ",
        "a%",
        "*",
        "a\\",
        "a\u{7f}",
        "a;b",
        "{a}",
    ];
    bad.iter()
        .map(|id| (*id).to_owned())
        .chain([65, 10_000].map(|length| "x".repeat(length)))
        .collect()
}

/// Labels that are refused, with the field that the error names.
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
