//! Messages of the contract as people read them: rows of tables, and fields.

mod account;
mod event;
mod hold;
mod stats;
mod transaction;

use std::{collections::BTreeMap, time::SystemTime};

use passbook_command::proto::Money;
use prost_types::Timestamp;

pub use crate::view::{
    account::{OPENING_COLUMNS, account_text, opening_cells},
    hold::hold_text,
    stats::distributions,
    transaction::{outcome_text, transaction_text},
};

/// The value of an amount. Empty if there is none.
fn value(money: Option<&Money>) -> String {
    money.map(|money| money.value.clone()).unwrap_or_default()
}

/// An amount with its currency.
pub fn value_and_currency(money: Option<&Money>) -> String {
    money.map(|money| format!("{} {}", money.value, money.currency_code)).unwrap_or_default()
}

fn currency_code(money: Option<&Money>) -> String {
    money.map(|money| money.currency_code.clone()).unwrap_or_default()
}

/// A time in microseconds, as exact as the ledger has it. All have the same width.
fn time(timestamp: Option<&Timestamp>) -> String {
    let time = timestamp.and_then(|timestamp| SystemTime::try_from(*timestamp).ok());
    time.map(|time| humantime::format_rfc3339_micros(time).to_string()).unwrap_or_default()
}

fn labels(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

/// The name of an enum's value in lower case, without the name of the enum.
pub fn enum_name(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}
