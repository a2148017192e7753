//! The values that many messages have: money, times and ids.

use crate::{
    domain::{
        ids::TransactionId,
        money::{Amount, Currency},
    },
    proto,
};

/// Encodes an amount with its currency.
pub fn money(currency: &Currency, amount: Amount) -> proto::Money {
    proto::Money { currency_code: currency.code().to_owned(), value: amount.to_string() }
}

/// Encodes a sum of amounts, given in the currency's smallest unit.
pub fn sum(currency: &Currency, units: i128) -> proto::Money {
    proto::Money { currency_code: currency.code().to_owned(), value: currency.format_units(units) }
}

/// Encodes a time, in microseconds since the Unix epoch.
pub fn time(microseconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: microseconds.div_euclid(1_000_000),
        // The product is below 10^9.
        nanos: (microseconds.rem_euclid(1_000_000) * 1000) as i32,
    }
}

/// Encodes an id. Empty for None.
pub fn id(id: Option<TransactionId>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}
