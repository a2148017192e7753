//! Accounts and their changes.

use tonic_types::pb;

use crate::{
    domain::{
        account::{Account, AccountChange, AccountChangeKind, AccountState, Attributes},
        balance_sum::BalanceSum,
    },
    grpc::encode::values::{money, sum, time},
    proto::{self, create_account_result},
};

/// Encodes an account.
pub fn account(account: Account) -> proto::Account {
    let money = |amount| Some(money(&account.currency, amount));
    proto::Account {
        account_id: account.account_id.to_string(),
        currency_code: account.currency.code().to_owned(),
        balance: money(account.balance),
        held: money(account.held),
        available: money(account.available()),
        overdraft_limit: money(account.overdraft_limit),
        unlimited_overdraft: account.unlimited_overdraft,
        state: account_state(account.state).into(),
        sequence: account.sequence,
        version: account.version,
        create_time: Some(time(account.create_time_us)),
        update_time: Some(time(account.update_time_us)),
        created_by: account.created_by.to_string(),
        labels: account.labels,
    }
}

/// Encodes the sum of the accounts of one currency. Only one of the present has more than balances.
pub fn balance_sum(of: &BalanceSum, is_current: bool) -> proto::BalanceSum {
    let current = |units| is_current.then(|| sum(&of.currency, units));
    proto::BalanceSum {
        currency_code: of.currency.code().to_owned(),
        // Far below 2^63.
        account_count: of.accounts as i64,
        balance: Some(sum(&of.currency, of.balance)),
        held: current(of.held),
        available: current(of.available()),
    }
}

/// Encodes the result of one request of a batch.
pub fn created_account(result: Result<Account, pb::Status>) -> proto::CreateAccountResult {
    let result = match result {
        Ok(opened) => create_account_result::Result::Account(account(opened)),
        Err(error) => create_account_result::Result::Error(error),
    };
    proto::CreateAccountResult { result: Some(result) }
}

/// Encodes the state of an account.
pub fn account_state(state: AccountState) -> proto::AccountState {
    match state {
        AccountState::Open => proto::AccountState::Open,
        AccountState::Frozen => proto::AccountState::Frozen,
        AccountState::Closed => proto::AccountState::Closed,
    }
}

/// Encodes one line of an account's change log.
pub fn account_change(change: AccountChange) -> proto::AccountChange {
    let attributes = |attributes: Attributes| proto::AccountAttributes {
        state: account_state(attributes.state).into(),
        overdraft_limit: Some(money(&change.currency, attributes.overdraft_limit)),
        unlimited_overdraft: attributes.unlimited_overdraft,
        labels: attributes.labels,
    };
    proto::AccountChange {
        account_id: change.account_id.to_string(),
        version: change.version,
        kind: match change.kind {
            AccountChangeKind::Updated => proto::AccountChangeKind::Updated,
            AccountChangeKind::Frozen => proto::AccountChangeKind::Frozen,
            AccountChangeKind::Unfrozen => proto::AccountChangeKind::Unfrozen,
            AccountChangeKind::Closed => proto::AccountChangeKind::Closed,
        }
        .into(),
        reason: change.reason,
        before: Some(attributes(change.before)),
        after: Some(attributes(change.after)),
        create_time: Some(time(change.create_time_us)),
        created_by: change.created_by.to_string(),
    }
}
