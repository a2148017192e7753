//! Requests into domain types: shape errors only.
//!
//! All fields are looked at before the call is refused. `BadRequest` lists everything that is
//! wrong; the reason is that of the lowest number in `ErrorReason`, and of two with one number
//! that of the field declared first.

use std::{fmt, ops::RangeInclusive};

use uuid::Uuid;

use crate::{
    domain::{
        account::{AccountState, Labels},
        command::Condition,
        ids::{AccountId, HoldId, IdError, RequestId, TransactionId},
        money::{Amount, AmountError, Currencies, Currency},
        rejection::TransactionName,
    },
    proto::{self, ErrorReason},
};

/// The longest description, in bytes.
pub const DESCRIPTION_LENGTH_MAX: usize = 1024;
/// The most labels on one account or transaction.
pub const LABELS_MAX: usize = 32;
/// The longest key of a label, in bytes.
pub const LABEL_KEY_LENGTH_MAX: usize = 63;
/// The longest value of a label, in bytes.
pub const LABEL_VALUE_LENGTH_MAX: usize = 256;
/// The most legs of one transaction.
pub const LEGS_MAX: usize = 100;
/// The most transactions in one BatchPostTransactions.
pub const BATCH_POST_MAX: usize = 1000;
/// The most legs in one BatchPostTransactions: what was made must fit into an answer that
/// clients take by default, 4 MiB.
pub const BATCH_LEGS_MAX: usize = 5000;
/// The seconds of a timestamp that is valid: from the year 1 to the end of the year 9999. What is
/// beyond them cannot be written in the JSON of most clients, and holds are given back.
const TIMESTAMP_SECONDS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// The most accounts in one BatchGetAccounts.
pub const BATCH_GET_MAX: usize = 1000;

mod accounts;
mod holds;
mod page_token;
mod postings;
mod queries;

pub use accounts::{
    StateChange, account_update, check_currency_of_new_account, new_account, state_change,
};
pub use holds::{capture, new_hold, release, request_id, reversal};
pub use postings::{batch, deposit, transaction, transfer, withdraw};
pub use queries::{
    TransactionList, account_change_list, account_id, account_ids, account_list, balance,
    entry_list, hold_id, hold_list, transaction_list, transaction_name, watch,
};

/// Which amounts are allowed.
#[derive(Clone, Copy)]
enum Sign {
    Positive,
    NotZero,
}

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What kind of wrong.
    pub reason: ErrorReason,
    /// The field's path in the request.
    pub field: String,
    /// What it must be.
    pub description: String,
    /// The limit that was crossed, where it is a size.
    pub limit: Option<String>,
}

/// A request that is refused for its shape: at least one violation, the decisive one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(pub Vec<Violation>);

impl Violation {
    fn new(reason: ErrorReason, field: impl fmt::Display, description: impl ToString) -> Self {
        let description = description.to_string();
        Self { reason, field: field.to_string(), description, limit: None }
    }
}

impl Invalid {
    /// A request with one thing wrong, beside which nothing else matters.
    pub fn new(reason: ErrorReason, field: impl fmt::Display, description: impl ToString) -> Self {
        Self(vec![Violation::new(reason, field, description)])
    }
}

/// Reads the fields of one request and collects what is wrong with them.
pub struct Decoder<'a> {
    currencies: &'a Currencies,
    violations: Vec<Violation>,
}

impl<'a> Decoder<'a> {
    /// A decoder for one request.
    pub fn new(currencies: &'a Currencies) -> Self {
        Self { currencies, violations: Vec::new() }
    }

    /// The result, if nothing is wrong. `decoded` is None only if something is.
    pub fn finish<T>(mut self, decoded: Option<T>) -> Result<T, Invalid> {
        // Stable: fields stay in the order in which they were read.
        self.violations.sort_by_key(|violation| violation.reason as i32);
        match decoded {
            Some(decoded) if self.violations.is_empty() => Ok(decoded),
            _ => Err(Invalid(self.violations)),
        }
    }

    /// Notes that a field is wrong. Paths are given as `format_args!`: they are written out only
    /// if something is wrong.
    pub fn refuse(
        &mut self,
        reason: ErrorReason,
        field: impl fmt::Display,
        description: impl ToString,
    ) {
        self.violations.push(Violation::new(reason, field, description));
    }

    pub fn account_id(&mut self, field: impl fmt::Display, text: &str) -> Option<AccountId> {
        self.id(ErrorReason::InvalidAccountId, field, AccountId::parse(text))
    }

    pub fn request_id(&mut self, field: impl fmt::Display, text: &str) -> Option<RequestId> {
        self.id(ErrorReason::InvalidRequestId, field, RequestId::parse(text))
    }

    pub fn hold_id(&mut self, field: impl fmt::Display, text: &str) -> Option<HoldId> {
        self.id(ErrorReason::InvalidHoldId, field, HoldId::parse(text))
    }

    fn id<T>(
        &mut self,
        reason: ErrorReason,
        field: impl fmt::Display,
        id: Result<T, IdError>,
    ) -> Option<T> {
        id.map_err(|error| self.refuse(reason, field, error)).ok()
    }

    pub fn transaction_name(
        &mut self,
        lookup: Option<&proto::get_transaction_request::Lookup>,
    ) -> Option<TransactionName> {
        use proto::get_transaction_request::Lookup;
        match lookup {
            Some(Lookup::RequestId(text)) => {
                self.request_id("request_id", text).map(TransactionName::RequestId)
            }
            Some(Lookup::TransactionId(text)) => {
                self.transaction_id("transaction_id", text).map(TransactionName::TransactionId)
            }
            None => {
                let reason = ErrorReason::InvalidTransactionId;
                self.refuse(reason, "transaction_id", "or request_id is required");
                None
            }
        }
    }

    pub fn transaction_id(
        &mut self,
        field: impl fmt::Display,
        text: &str,
    ) -> Option<TransactionId> {
        let refuse = |_| {
            self.refuse(ErrorReason::InvalidTransactionId, field, "must be a UUID");
        };
        Uuid::try_parse(text).map_err(refuse).ok()
    }

    pub fn currency(&mut self, field: impl fmt::Display, code: &str) -> Option<Currency> {
        self.currencies
            .get(code)
            .map_err(|error| self.refuse(ErrorReason::InvalidCurrencyCode, field, error))
            .ok()
    }

    pub fn currency_of_new_account(
        &mut self,
        field: impl fmt::Display,
        code: &str,
    ) -> Option<Currency> {
        self.currencies
            .get_for_new_account(code)
            .map_err(|error| self.refuse(ErrorReason::InvalidCurrencyCode, field, error))
            .ok()
    }

    /// An amount of any sign, in a currency that may be prescribed.
    pub fn money(
        &mut self,
        field: impl fmt::Display,
        money: &proto::Money,
        prescribed: Option<&Currency>,
    ) -> Option<(Currency, Amount)> {
        let currency =
            self.currency(format_args!("{field}.currency_code"), &money.currency_code)?;
        if let Some(other) = prescribed.filter(|prescribed| **prescribed != currency) {
            let description = format!("must be {}, as in the rest of the request", other.code());
            let field = format_args!("{field}.currency_code");
            self.refuse(ErrorReason::InvalidCurrencyCode, field, description);
            return None;
        }
        match currency.parse(&money.value) {
            Ok(amount) => Some((currency, amount)),
            Err(error) => {
                let description = error.to_string();
                let (reason, limit) = match error {
                    AmountError::Malformed | AmountError::TooManyDecimals { .. } => {
                        (ErrorReason::InvalidAmount, None)
                    }
                    AmountError::OutOfRange { limit } => {
                        (ErrorReason::BalanceOutOfRange, Some(limit))
                    }
                };
                let field = format!("{field}.value");
                self.violations.push(Violation { reason, field, description, limit });
                None
            }
        }
    }

    /// An amount that is there, and of the right sign.
    fn amount(
        &mut self,
        field: impl fmt::Display,
        money: Option<&proto::Money>,
        sign: Sign,
    ) -> Option<(Currency, Amount)> {
        let reason = ErrorReason::InvalidAmount;
        let Some(money) = money else {
            self.refuse(reason, field, "is required");
            return None;
        };
        let (currency, amount) = self.money(&field, money, None)?;
        let (allowed, rule) = match sign {
            Sign::Positive => (amount.is_positive(), "must be above zero"),
            Sign::NotZero => (amount.is_positive() || amount.is_negative(), "must not be zero"),
        };
        if !allowed {
            self.refuse(reason, format_args!("{field}.value"), rule);
            return None;
        }
        Some((currency, amount))
    }

    pub fn description(&mut self, text: &str) {
        self.text(ErrorReason::InvalidDescription, "description", text);
    }

    /// A text for people.
    fn text(&mut self, reason: ErrorReason, field: &str, text: &str) {
        if text.len() > DESCRIPTION_LENGTH_MAX {
            let description =
                format!("has {} bytes; at most {DESCRIPTION_LENGTH_MAX} are allowed", text.len());
            self.refuse(reason, field, description);
        } else if text.chars().any(char::is_control) {
            self.refuse(
                reason,
                field,
                "has a control character: write spaces for line feeds and tabs",
            );
        }
    }

    pub fn labels(&mut self, labels: &Labels) {
        let reason = ErrorReason::InvalidLabels;
        if labels.len() > LABELS_MAX {
            let description =
                format!("has {} labels; at most {LABELS_MAX} are allowed", labels.len());
            self.refuse(reason, "labels", description);
            return;
        }
        for (key, value) in labels {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
            if key.is_empty() || key.len() > LABEL_KEY_LENGTH_MAX || !key.bytes().all(allowed) {
                let description =
                    format!("a key must be 1-{LABEL_KEY_LENGTH_MAX} characters of [A-Za-z0-9._/-]");
                self.refuse(reason, "labels", description);
            } else if value.len() > LABEL_VALUE_LENGTH_MAX || value.chars().any(char::is_control) {
                let description = format!(
                    "the value must be at most {LABEL_VALUE_LENGTH_MAX} bytes without control characters"
                );
                self.refuse(reason, format_args!("labels[{key}]"), description);
            }
        }
    }

    /// The condition on an account of this currency; None if it is wrong.
    fn condition(
        &mut self,
        field: impl fmt::Display,
        condition: Option<&proto::Condition>,
        currency: Option<&Currency>,
    ) -> Option<Condition> {
        let Some(condition) = condition else { return Some(Condition::default()) };
        let reason = ErrorReason::InvalidCondition;
        if condition.expected_version.is_some_and(|version| version < 1) {
            self.refuse(reason, format_args!("{field}.expected_version"), "must be at least 1");
            return None;
        }
        let mut bound = |name: &str, money: &Option<proto::Money>| match money {
            None => Some(None),
            Some(money) => {
                self.money(format_args!("{field}.{name}"), money, currency).map(|it| Some(it.1))
            }
        };
        let min = bound("min_balance_after", &condition.min_balance_after);
        let max = bound("max_balance_after", &condition.max_balance_after);
        let (min_balance_after, max_balance_after) = (min?, max?);
        if let (Some(min), Some(max)) = (min_balance_after, max_balance_after)
            && min > max
        {
            let description = "must not be below min_balance_after";
            self.refuse(reason, format_args!("{field}.max_balance_after"), description);
            return None;
        }
        let expected_version = condition.expected_version;
        Some(Condition { expected_version, min_balance_after, max_balance_after })
    }

    /// Microseconds since the Unix epoch, rounded up: entries have whole microseconds, and
    /// "at this time or later" and "before this time" both turn on the next whole one.
    pub fn time(
        &mut self,
        field: impl fmt::Display,
        time: Option<&prost_types::Timestamp>,
    ) -> Option<i64> {
        self.time_or(field, time, ErrorReason::InvalidFilter)
    }

    /// The same, refused for this reason.
    fn time_or(
        &mut self,
        field: impl fmt::Display,
        time: Option<&prost_types::Timestamp>,
        reason: ErrorReason,
    ) -> Option<i64> {
        let time = time?;
        let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
        let Some(nanos) = nanos.filter(|_| TIMESTAMP_SECONDS.contains(&time.seconds)) else {
            self.refuse(reason, field, "is not a valid timestamp");
            return None;
        };
        // Above the last microsecond that can be told there is none to round up to.
        let last = (TIMESTAMP_SECONDS.end() + 1) * 1_000_000 - 1;
        Some((time.seconds * 1_000_000 + i64::from(nanos.div_ceil(1000))).min(last))
    }
}

/// The state to filter by; unspecified is none.
pub fn account_state(decoder: &mut Decoder<'_>, state: i32) -> Option<AccountState> {
    match proto::AccountState::try_from(state) {
        Ok(proto::AccountState::Unspecified) => None,
        Ok(proto::AccountState::Open) => Some(AccountState::Open),
        Ok(proto::AccountState::Frozen) => Some(AccountState::Frozen),
        Ok(proto::AccountState::Closed) => Some(AccountState::Closed),
        Err(_) => {
            decoder.refuse(ErrorReason::InvalidFilter, "state", "is not a known state");
            None
        }
    }
}
