//! What several commands take.

mod posting;
mod time;

use std::collections::BTreeMap;

use clap::Args;
use passbook_command::{CliError, proto::Money};
use uuid::Uuid;

pub use crate::arguments::{
    posting::{Basis, ConditionArguments, EffectiveTime, Force, PostingArguments},
    time::{parse_past, parse_time},
};
use crate::output::Format;

/// An amount and its currency.
#[derive(Args)]
pub struct Amount {
    /// A plain decimal, such as 100.00. It is sent as it is written: nothing is rounded.
    #[arg(allow_negative_numbers = true, value_name = "AMOUNT")]
    amount: String,

    /// The currency of the amount, such as USD.
    #[arg(value_name = "CURRENCY")]
    currency: String,
}

impl Amount {
    pub fn money(&self) -> Money {
        money(&self.amount, &self.currency)
    }

    /// The same currency with another value.
    pub fn with_value(&self, value: &str) -> Money {
        money(value, &self.currency)
    }
}

/// An amount that may be left out, and its currency.
#[derive(Args)]
pub struct OptionalAmount {
    /// A plain decimal, such as 100.00. Default: all that is left.
    #[arg(value_name = "AMOUNT", requires = "currency", allow_negative_numbers = true)]
    amount: Option<String>,

    /// The currency of the amount.
    #[arg(value_name = "CURRENCY")]
    currency: Option<String>,
}

impl OptionalAmount {
    pub fn money(self) -> Option<Money> {
        self.amount.zip(self.currency).map(|(value, currency)| money(&value, &currency))
    }
}

/// An amount as it is written, in this currency.
pub fn money(value: &str, currency_code: &str) -> Money {
    Money { currency_code: currency_code.to_owned(), value: value.to_owned() }
}

/// The labels of something new.
#[derive(Args)]
pub struct Labels {
    /// A label. Can be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
}

impl Labels {
    /// # Errors
    /// A key is given twice.
    pub fn map(self) -> Result<BTreeMap<String, String>, CliError> {
        map_of(self.labels)
    }
}

/// The labels of what a list selects.
#[derive(Args)]
pub struct LabelFilter {
    /// Only those with this label. Can be repeated: only those with all of them.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
}

impl LabelFilter {
    /// # Errors
    /// A key is given twice.
    pub fn map(self) -> Result<BTreeMap<String, String>, CliError> {
        map_of(self.labels)
    }
}

/// Of two values of a key, one would be lost without a word.
fn map_of(labels: Vec<(String, String)>) -> Result<BTreeMap<String, String>, CliError> {
    let mut map = BTreeMap::new();
    for (key, value) in labels {
        if map.contains_key(&key) {
            return Err(CliError::Usage(format!("--label {key} is given twice")));
        }
        map.insert(key, value);
    }
    Ok(map)
}

/// Parses KEY=VALUE.
pub fn parse_label(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The id of a request.
#[derive(Args)]
pub struct RequestId {
    /// The id of the request. With the id of an earlier request, the same command returns that
    /// request's result, and is not applied a second time. Default: a new UUID. The id is printed to
    /// standard error before the request is sent.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

impl RequestId {
    /// The id, printed so that it is known whatever becomes of the call.
    pub fn announce(self, format: Format) -> String {
        let request_id = self.request_id.unwrap_or_else(new_id);
        format.announce("request_id", "requestId", &request_id);
        request_id
    }
}

/// The arguments of a change that creates something.
#[derive(Args)]
pub struct ChangeArguments {
    #[command(flatten)]
    pub request_id: RequestId,

    /// A text about the change, at most 1024 bytes.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub description: String,

    #[command(flatten)]
    pub labels: Labels,
}

/// A new id, of a request or an account.
pub fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// The version that a change expects.
#[derive(Args)]
pub struct ExpectedVersion {
    /// Only if the account has this version, as `passbook account get` prints it.
    #[arg(long = "expected-version", value_name = "N")]
    pub expected_version: Option<i64>,
}
