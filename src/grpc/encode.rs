//! Domain types into responses.

use prost::Message;

use crate::{
    domain::{
        account::{Account, AccountState},
        money::{Amount, Currency},
        transaction::{Entry, Transaction, TransactionKind},
    },
    grpc::WatchEntriesResponse,
    proto,
};

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
        state: match account.state {
            AccountState::Open => proto::AccountState::Open,
            AccountState::Frozen => proto::AccountState::Frozen,
            AccountState::Closed => proto::AccountState::Closed,
        }
        .into(),
        sequence: account.sequence,
        version: account.version,
        create_time: Some(time(account.create_time_us)),
        update_time: Some(time(account.update_time_us)),
        labels: account.labels,
    }
}

pub fn transaction(transaction: &Transaction) -> proto::Transaction {
    let mut encoded = proto::Transaction {
        transaction_id: transaction.transaction_id.map(|it| it.to_string()).unwrap_or_default(),
        request_id: transaction.request_id.to_string(),
        kind: match transaction.kind {
            TransactionKind::Deposit => proto::TransactionKind::Deposit,
            TransactionKind::Withdrawal => proto::TransactionKind::Withdrawal,
            TransactionKind::Transfer => proto::TransactionKind::Transfer,
            TransactionKind::Posting => proto::TransactionKind::Posting,
        }
        .into(),
        entries: transaction.entries.iter().map(entry).collect(),
        description: transaction.description.clone(),
        labels: transaction.labels.clone(),
        create_time: Some(time(transaction.create_time_us)),
        reverses_transaction_id: String::new(),
        reversed_by_transaction_id: String::new(),
    };
    if transaction.transaction_id.is_none() {
        // Only validated: there is no such transaction, at no time.
        encoded.create_time = None;
        for entry in &mut encoded.entries {
            entry.transaction_id.clear();
            entry.create_time = None;
            entry.hash.clear();
        }
    }
    encoded
}

pub fn entry(entry: &Entry) -> proto::Entry {
    proto::Entry {
        account_id: entry.account_id.to_string(),
        sequence: entry.sequence,
        transaction_id: entry.transaction_id.to_string(),
        amount: Some(money(&entry.currency, entry.amount)),
        balance_after: Some(money(&entry.currency, entry.balance_after)),
        create_time: Some(time(entry.create_time_us)),
        hash: entry.hash.to_vec(),
    }
}

/// The message that tells of these entries, as it travels.
pub fn watched(entries: &[Entry]) -> Vec<u8> {
    let sequence = entries.last().map(|entry| entry.sequence).unwrap_or_default();
    let entries = entries.iter().map(entry).collect();
    WatchEntriesResponse::new(entries, sequence).encode_to_vec()
}

fn money(currency: &Currency, amount: Amount) -> proto::Money {
    proto::Money { currency_code: currency.code().to_owned(), value: amount.to_string() }
}

fn time(microseconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: microseconds.div_euclid(1_000_000),
        // Below 10^9.
        nanos: (microseconds.rem_euclid(1_000_000) * 1000) as i32,
    }
}
