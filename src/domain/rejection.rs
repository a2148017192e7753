//! Reasons for which the state of the ledger rejects a request.

use std::{
    fmt::{self, Write},
    time::{Duration, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::domain::{
    account::Account,
    ids::{AccountId, HoldId, RequestId, TransactionId},
    money::{Amount, Currency},
};

/// Why a well-formed request is rejected. The serialized form is stored under the request id, and
/// the caller gets it as `ErrorInfo.metadata`: names of fields are part of the contract. A server of
/// an older version cannot read a variant that it does not know, so a new variant is rolled out before
/// requests can meet it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum Rejection {
    #[error("request_id \"{request_id}\" was used before for another request")]
    RequestIdReused { request_id: RequestId },
    #[error("request_id \"{request_id}\" is fenced: no request with this id is applied")]
    RequestFenced { request_id: RequestId },
    #[error("hold {hold_id} does not exist")]
    HoldNotFound { hold_id: HoldId },
    #[error("hold {hold_id} exists already")]
    HoldExists { hold_id: HoldId },
    #[error("hold {hold_id} is {state}, not open")]
    HoldNotOpen { hold_id: HoldId, state: String },
    #[error(
        "the hold would be expired already: expire_time is {}, the time {}",
        time(*expire_time_us),
        time(*now_us)
    )]
    ExpireTimePassed { expire_time_us: i64, now_us: i64 },
    #[error(
        "transaction {transaction_id} has more than one amount: it can be reversed as a whole only"
    )]
    TransactionNotDivisible { transaction_id: TransactionId },
    #[error(
        "{} {currency_code} of transaction {transaction_id} can still be reversed; {required} are \
         required",
        figure(reversible)
    )]
    ReversalAmountExceeded {
        transaction_id: TransactionId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        account_id: Option<AccountId>,
        currency_code: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reversible: Option<Amount>,
        required: Amount,
    },
    #[error("transaction {transaction_id} was reversed by {reversed_by_transaction_id}")]
    AlreadyReversed { transaction_id: TransactionId, reversed_by_transaction_id: TransactionId },
    #[error("account {account_id} does not exist")]
    AccountNotFound { account_id: AccountId },
    #[error("there is no transaction with {0}")]
    TransactionNotFound(TransactionName),
    #[error("account {account_id} exists with other attributes")]
    AccountExists { account_id: AccountId },
    #[error("account {account_id} is closed")]
    AccountClosed { account_id: AccountId },
    #[error("account {account_id} is frozen: no money may leave it or be held")]
    AccountFrozen { account_id: AccountId },
    #[error(
        "account {account_id} is in {}, the amount in {currency_code}",
        figure(account_currency_code)
    )]
    CurrencyMismatch {
        account_id: AccountId,
        currency_code: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        account_currency_code: Option<String>,
    },
    #[error(
        "{} {currency_code} of hold {hold_id} are captured: its amount cannot be {required}",
        figure(captured)
    )]
    HoldAmountTooLow {
        hold_id: HoldId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        account_id: Option<AccountId>,
        currency_code: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        captured: Option<Amount>,
        required: Amount,
    },
    #[error(
        "account {account_id} has a balance of {} {currency_code}; \
         a change by {} would take it beyond the limit of an amount",
        figure(balance),
        figure(amount)
    )]
    BalanceOutOfRange {
        account_id: AccountId,
        currency_code: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        balance: Option<Amount>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        amount: Option<Amount>,
    },
    #[error(
        "condition {condition} does not hold for account {account_id}: required {required}, \
         actual {}",
        figure(actual)
    )]
    ConditionFailed {
        account_id: AccountId,
        condition: String,
        required: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        actual: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<i64>,
    },
    #[error(
        "account {account_id} has {} {currency_code} available; {} are required",
        figure(available),
        figure(required)
    )]
    InsufficientFunds {
        account_id: AccountId,
        currency_code: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        available: Option<Amount>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        required: Option<Amount>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<i64>,
    },
    #[error("hold {hold_id} is over {} {currency_code}; {required} are required", figure(held))]
    HoldAmountExceeded {
        hold_id: HoldId,
        // Older versions stored none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        account_id: Option<AccountId>,
        currency_code: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        held: Option<Amount>,
        required: Amount,
    },
    #[error(
        "account {account_id} cannot be closed: its balance is {balance} {currency_code}, \
         and {held} are held"
    )]
    AccountNotEmpty { account_id: AccountId, currency_code: String, balance: Amount, held: Amount },
    #[error(
        "effective_time is {}; it must be from {} to {}",
        time(*effective_time_us),
        time(*earliest_us),
        time(*latest_us)
    )]
    EffectiveTimeOutOfRange { effective_time_us: i64, earliest_us: i64, latest_us: i64 },
    #[error(
        "the amounts in {currency_code} sum to {}, not to zero, and no contra account takes the rest",
        figure(sum)
    )]
    Unbalanced {
        currency_code: String,
        /// Only if the caller has named all amounts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sum: Option<String>,
    },
    #[error("account {account_id} has version {version}, not {expected_version}")]
    VersionMismatch { account_id: AccountId, expected_version: i64, version: i64 },
}

impl Rejection {
    /// An amount in `currency` is not one of the account's currency.
    pub(super) fn currency_mismatch(account: &Account, currency: &Currency) -> Self {
        Self::CurrencyMismatch {
            account_id: account.account_id.clone(),
            currency_code: currency.code().to_owned(),
            account_currency_code: Some(account.currency.code().to_owned()),
        }
    }

    /// A change by this amount goes beyond the limit of an amount.
    pub(super) fn out_of_range(account: &Account, amount: Amount) -> Self {
        Self::BalanceOutOfRange {
            account_id: account.account_id.clone(),
            currency_code: account.currency.code().to_owned(),
            balance: Some(account.balance),
            amount: Some(amount),
        }
    }

    /// The account has less than this amount available.
    pub(super) fn insufficient_funds(account: &Account, required: Amount) -> Self {
        Self::InsufficientFunds {
            account_id: account.account_id.clone(),
            currency_code: account.currency.code().to_owned(),
            available: Some(account.available()),
            required: Some(required),
            version: Some(account.version),
        }
    }

    /// The rejection without what only readers of its account may know: balance, version, currency,
    /// the amount and the account of a hold or a transaction, and the amount of the change unless the
    /// caller named it. `may_read` says whether the caller is a reader; None is an account that is not
    /// recorded.
    pub(super) fn visible(
        mut self,
        has_named_amounts: bool,
        may_read: impl Fn(Option<&AccountId>) -> bool,
    ) -> Self {
        match &mut self {
            Self::CurrencyMismatch { account_id, account_currency_code, .. }
                if !may_read(Some(account_id)) =>
            {
                *account_currency_code = None;
            }
            Self::BalanceOutOfRange { account_id, balance, amount, .. }
                if !may_read(Some(account_id)) =>
            {
                *balance = None;
                *amount = amount.filter(|_| has_named_amounts);
            }
            Self::ConditionFailed { account_id, actual, version, .. }
                if !may_read(Some(account_id)) =>
            {
                (*actual, *version) = (None, None);
            }
            Self::InsufficientFunds { account_id, available, required, version, .. }
                if !may_read(Some(account_id)) =>
            {
                (*available, *version) = (None, None);
                *required = required.filter(|_| has_named_amounts);
            }
            Self::HoldAmountExceeded { account_id, held, .. } if !may_read(account_id.as_ref()) => {
                (*account_id, *held) = (None, None);
            }
            Self::HoldAmountTooLow { account_id, captured, .. }
                if !may_read(account_id.as_ref()) =>
            {
                (*account_id, *captured) = (None, None);
            }
            Self::ReversalAmountExceeded { account_id, reversible, .. }
                if !may_read(account_id.as_ref()) =>
            {
                (*account_id, *reversible) = (None, None);
            }
            _ => {}
        }
        self
    }
}

/// A time in microseconds since the Unix epoch, as RFC 3339 has it.
fn time(us: i64) -> String {
    let Ok(us) = u64::try_from(us) else { return "before 1970".to_owned() };
    let time = humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_micros(us));
    let mut text = String::new();
    match write!(text, "{time}") {
        Ok(()) => text,
        Err(fmt::Error) => "after 9999".to_owned(),
    }
}

/// A figure, unless the caller may not know it.
fn figure(value: &Option<impl fmt::Display>) -> String {
    value.as_ref().map_or_else(|| "(hidden)".to_owned(), ToString::to_string)
}

/// One of the two names of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionName {
    /// The id that the ledger gave it.
    TransactionId(TransactionId),
    /// The id of its request, which its caller chose.
    RequestId(RequestId),
}

impl fmt::Display for TransactionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TransactionId(id) => write!(formatter, "transaction_id {id}"),
            Self::RequestId(id) => write!(formatter, "request_id \"{id}\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_people_write_them() {
        let rejection = Rejection::EffectiveTimeOutOfRange {
            effective_time_us: -1,
            earliest_us: 1_700_000_000_000_001,
            latest_us: 253_402_300_799_999_999,
        };
        let text = "effective_time is before 1970; it must be from 2023-11-14T22:13:20.000001Z to \
                    9999-12-31T23:59:59.999999Z";
        assert_eq!(rejection.to_string(), text);
        assert_eq!(time(i64::MAX), "after 9999");
    }
}
