//! Transactions and their entries.

use crate::{
    domain::transaction::{Entry, Transaction, TransactionKind},
    grpc::encode::values::{id, money, time},
    proto,
};

/// Encodes a transaction. One that was only validated has no id, times or hashes.
pub fn transaction(transaction: &Transaction) -> proto::Transaction {
    let mut encoded = proto::Transaction {
        transaction_id: id(transaction.transaction_id),
        request_id: transaction.request_id.to_string(),
        kind: transaction_kind(transaction.kind).into(),
        entries: transaction.entries.iter().map(entry).collect(),
        description: transaction.description.clone(),
        labels: transaction.labels.clone(),
        create_time: Some(time(transaction.create_time_us)),
        reverses_transaction_id: id(transaction.reverses.map(|(reversed, _)| reversed)),
        reversed_by_transaction_id: id(transaction.reversed_by.map(|(reversal, _)| reversal)),
        created_by: transaction.created_by.to_string(),
        reversed_amount: reversed_amount(transaction),
        forced: transaction.forced,
        effective_time: transaction.effective_time_us.map(time),
    };
    if transaction.transaction_id.is_none() {
        // The request was only validated: no such transaction exists.
        encoded.create_time = None;
        for entry in &mut encoded.entries {
            entry.transaction_id.clear();
            entry.create_time = None;
            entry.hash.clear();
        }
    }
    encoded
}

/// What is reversed of a transaction, if that is a part. None if no entry of it is visible.
fn reversed_amount(transaction: &Transaction) -> Option<proto::Money> {
    let (_, reversed) = transaction.reversed_by?;
    let entry = transaction.entries.first()?;
    Some(money(&entry.currency, reversed.amount?))
}

/// Encodes the kind of a transaction.
pub fn transaction_kind(kind: TransactionKind) -> proto::TransactionKind {
    match kind {
        TransactionKind::Deposit => proto::TransactionKind::Deposit,
        TransactionKind::Withdrawal => proto::TransactionKind::Withdrawal,
        TransactionKind::Transfer => proto::TransactionKind::Transfer,
        TransactionKind::Posting => proto::TransactionKind::Posting,
        TransactionKind::Capture => proto::TransactionKind::Capture,
        TransactionKind::Reversal => proto::TransactionKind::Reversal,
    }
}

/// Encodes an entry.
pub fn entry(entry: &Entry) -> proto::Entry {
    proto::Entry {
        account_id: entry.account_id.to_string(),
        sequence: entry.sequence,
        transaction_id: entry.transaction_id.to_string(),
        amount: Some(money(&entry.currency, entry.amount)),
        balance_after: Some(money(&entry.currency, entry.balance_after)),
        create_time: Some(time(entry.create_time_us)),
        hash: entry.hash.to_vec(),
        effective_time: entry.effective_time_us.map(time),
    }
}

/// Encodes an entry into the bytes with which WatchEntries sends it.
pub fn watched_entry(watched: &Entry, buffer: &mut Vec<u8>) {
    proto::WatchEntriesResponse::encode_entry(&entry(watched), buffer);
}
