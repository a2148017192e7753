//! Values of the contract as people read them.

use std::{collections::BTreeMap, time::SystemTime};

use passbook_command::proto::{Account, AccountAttributes, Money};
use prost_types::Timestamp;

use crate::page::{Cell, href};

/// An amount without its currency. Empty if there is none.
pub fn value(money: Option<&Money>) -> String {
    money.map(|money| money.value.clone()).unwrap_or_default()
}

/// An amount with its currency. Empty if there is none.
pub fn money(money: Option<&Money>) -> String {
    money.map(|money| format!("{} {}", money.value, money.currency_code)).unwrap_or_default()
}

/// A time in UTC, as exact as the ledger has it: `2026-11-26 12:00:00.000001`.
pub fn time(timestamp: Option<&Timestamp>) -> String {
    let time = timestamp.and_then(|timestamp| SystemTime::try_from(*timestamp).ok());
    let text = time.map(|time| humantime::format_rfc3339_micros(time).to_string());
    text.unwrap_or_default().replace('T', " ").replace('Z', "")
}

/// The time that a browser sends for an input of a time: `2026-11-26T12:00`, with or without
/// seconds, in UTC. None if there is none.
///
/// # Errors
/// The text is no such time.
pub fn parse_time(text: &str) -> Result<Option<Timestamp>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let with_seconds = match text.len() {
        16 => format!("{text}:00Z"),
        19 => format!("{text}Z"),
        _ => return Err(format!("{text:?} is no time")),
    };
    let time = humantime::parse_rfc3339(&with_seconds);
    time.map(|time| Some(time.into())).map_err(|_| format!("{text:?} is no time"))
}

/// Labels as `key=value, key=value`.
pub fn labels(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(", ")
}

/// The label in a text of the form `key=value`. None if the text is empty.
///
/// # Errors
/// The text has no `=`.
pub fn parse_label(text: &str) -> Result<BTreeMap<String, String>, String> {
    if text.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    match text.trim().split_once('=') {
        Some((key, value)) => Ok(BTreeMap::from([(key.to_owned(), value.to_owned())])),
        None => Err(format!("{text:?} is no label: write key=value")),
    }
}

/// The name of a value of an enum without its prefix, in words: `not seen`.
pub fn name(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', " ")
}

/// The overdraft limit of an account or of its attributes.
pub fn overdraft_limit(is_unlimited: bool, limit: Option<&Money>) -> String {
    if is_unlimited { "unlimited".to_owned() } else { value(limit) }
}

/// The state of an account.
pub fn account_state(account: &Account) -> String {
    name(account.state().as_str_name(), "ACCOUNT_STATE_")
}

/// The attributes that differ, with both values.
pub fn difference(before: Option<&AccountAttributes>, after: Option<&AccountAttributes>) -> String {
    let attributes = |it: Option<&AccountAttributes>| {
        let it = it.cloned().unwrap_or_default();
        let limit = overdraft_limit(it.unlimited_overdraft, it.overdraft_limit.as_ref());
        let state = name(it.state().as_str_name(), "ACCOUNT_STATE_");
        [("state", state), ("overdraft limit", limit), ("labels", labels(&it.labels))]
    };
    let pairs = attributes(before).into_iter().zip(attributes(after));
    let changed = pairs.filter(|(before, after)| before != after);
    let texts =
        changed.map(|((name, before), (_, after))| format!("{name}: \"{before}\" to \"{after}\""));
    texts.collect::<Vec<_>>().join(", ")
}

/// An account's id, which leads to the account.
pub fn account(account_id: &str) -> Cell {
    Cell::link(account_id, href("/account", &[("id", account_id)]))
}

/// A transaction's id, which leads to the transaction.
pub fn transaction(transaction_id: &str) -> Cell {
    Cell::link(transaction_id, href("/transaction", &[("id", transaction_id)]))
}

/// A hold's id, which leads to the hold.
pub fn hold(hold_id: &str) -> Cell {
    Cell::link(hold_id, href("/hold", &[("id", hold_id)]))
}

/// The id of a request. It leads nowhere: an id is unique for its identity only, and that need not be
/// the identity of the session.
pub fn request(request_id: &str) -> Cell {
    request_id.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_browser_in_utc() {
        let time = |text| parse_time(text).map(|it| time(it.as_ref()));
        assert_eq!(time("2026-11-26T12:00").unwrap(), "2026-11-26 12:00:00.000000");
        assert_eq!(time("2026-11-26T12:00:01").unwrap(), "2026-11-26 12:00:01.000000");
        assert_eq!(time("").unwrap(), "");
        for text in ["2026-11-26", "now", "2026-11-26T12:00:00Z", "<script>", "é"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_label_is_one_pair() {
        let pair = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert_eq!(parse_label(" "), Ok(BTreeMap::new()));
        assert_eq!(parse_label("team=a=b"), Ok(pair("team", "a=b")));
        assert!(parse_label("team").is_err());
    }
}
