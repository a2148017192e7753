//! The rows of a write: columns and values of each kind, the same for both databases.

use std::sync::OnceLock;

use rust_decimal::Decimal;
use sea_orm::Value;

use crate::{
    domain::{
        account::{Account, AccountChange, Labels},
        hold::Hold,
        ids::TransactionId,
        money::Amount,
        transaction::Entry,
        unit_of_work::NewRequestRecord,
    },
    storage::{
        dialect::DatabaseKind,
        tables::{ACCOUNT_CHANGES, ACCOUNTS, Column, ENTRIES, HOLDS, REQUESTS, Table},
        write::changes::{
            attributes_json, entry_names_json, hold_id, labels_json, rejection_json, reverses,
        },
    },
};

/// The columns that are written of a kind of row, and their values.
pub struct Rows<R: 'static, const N: usize> {
    pub table: &'static Table,
    /// The columns of an update in the order of the values, with the keys first; None for an insert,
    /// which writes all columns.
    updated: Option<[&'static str; N]>,
    /// The number of key columns of an update.
    pub keys: usize,
    pub values: fn(DatabaseKind, &R) -> [Value; N],
    /// What a missing row has in common with another one, for the error.
    pub what: &'static str,
    /// The statement for SQLite, up to its rows and from there on.
    pub sqlite: OnceLock<[String; 2]>,
    columns: OnceLock<Vec<&'static Column>>,
}

impl<R: 'static, const N: usize> Rows<R, N> {
    const fn new(
        table: &'static Table,
        what: &'static str,
        updated: Option<[&'static str; N]>,
        values: fn(DatabaseKind, &R) -> [Value; N],
    ) -> Self {
        let sqlite = OnceLock::new();
        Self { table, updated, keys: 1, values, what, sqlite, columns: OnceLock::new() }
    }

    const fn with_two_keys(mut self) -> Self {
        self.keys = 2;
        self
    }

    pub fn is_update(&self) -> bool {
        self.updated.is_some()
    }

    /// The columns in the order of the values.
    pub fn columns(&self) -> &[&'static Column] {
        self.columns.get_or_init(|| {
            let all = self.table.columns.iter();
            match &self.updated {
                None => all.collect(),
                Some(names) => {
                    let column = |name: &&str| all.clone().find(|column| column.name == *name);
                    names.iter().filter_map(column).collect()
                }
            }
        })
    }
}

pub static NEW_ACCOUNTS: Rows<Account, 15> =
    Rows::new(&ACCOUNTS, "account id", None, |kind, it| {
        [
            it.account_id.as_str().into(),
            it.currency.code().into(),
            // At most 27.
            (it.currency.scale() as i16).into(),
            amount(kind, it.balance),
            amount(kind, it.held),
            amount(kind, it.overdraft_limit),
            it.unlimited_overdraft.into(),
            it.state.name().into(),
            it.sequence.into(),
            it.version.into(),
            it.last_hash.to_vec().into(),
            labels_json(&it.labels).into(),
            it.create_time_us.into(),
            it.update_time_us.into(),
            it.created_by.as_str().into(),
        ]
    });

pub static NEW_REQUESTS: Rows<NewRequestRecord, 12> =
    Rows::new(&REQUESTS, "request id", None, |kind, it| {
        // What a rejected request would have written down is of no use, and would be kept for good.
        let no_labels = Labels::new();
        let (description, labels) = match it.record.result {
            Ok(_) => (it.request.description.as_str(), &it.request.labels),
            Err(_) => ("", &no_labels),
        };
        [
            it.request.key.caller.as_str().into(),
            it.request.key.request_id.as_str().into(),
            it.record.fingerprint.to_vec().into(),
            uuid(kind, it.record.transaction_id),
            it.request.action.name().into(),
            nullable(kind, rejection_json(it).map(Value::from), ""),
            description.into(),
            labels_json(labels).into(),
            entry_names_json(it).into(),
            it.create_time_us.into(),
            nullable(kind, hold_id(it).map(Value::from), ""),
            nullable_uuid(kind, reverses(it)),
        ]
    });

pub static NEW_ENTRIES: Rows<Entry, 7> = Rows::new(&ENTRIES, "entry", None, |kind, it| {
    [
        it.account_id.as_str().into(),
        it.sequence.into(),
        uuid(kind, it.transaction_id),
        amount(kind, it.amount),
        amount(kind, it.balance_after),
        it.create_time_us.into(),
        it.hash.to_vec().into(),
    ]
});

/// The columns of an account that an entry changes.
pub static BALANCE_UPDATES: Rows<Account, 7> = Rows::new(
    &ACCOUNTS,
    "account",
    Some(["account_id", "balance", "held", "sequence", "version", "last_hash", "update_time_us"]),
    balance_values,
);

/// The columns of an account that any command may change.
pub static ACCOUNT_UPDATES: Rows<Account, 11> = Rows::new(
    &ACCOUNTS,
    "account",
    Some([
        "account_id",
        "balance",
        "held",
        "sequence",
        "version",
        "last_hash",
        "update_time_us",
        "state",
        "overdraft_limit",
        "unlimited_overdraft",
        "labels",
    ]),
    |kind, it| {
        let [id, balance, held, sequence, version, hash, time] = balance_values(kind, it);
        let state = it.state.name().into();
        let limit = amount(kind, it.overdraft_limit);
        let unlimited = it.unlimited_overdraft.into();
        let labels = labels_json(&it.labels).into();
        [id, balance, held, sequence, version, hash, time, state, limit, unlimited, labels]
    },
);

pub static NEW_ACCOUNT_CHANGES: Rows<AccountChange, 8> =
    Rows::new(&ACCOUNT_CHANGES, "change", None, |_, it| {
        [
            it.account_id.as_str().into(),
            it.version.into(),
            it.kind.name().into(),
            it.reason.as_str().into(),
            it.created_by.as_str().into(),
            attributes_json(&it.before).into(),
            attributes_json(&it.after).into(),
            it.create_time_us.into(),
        ]
    });

pub static NEW_HOLDS: Rows<Hold, 14> = Rows::new(&HOLDS, "hold id", None, |kind, it| {
    [
        it.hold_id.as_str().into(),
        it.account_id.as_str().into(),
        amount(kind, it.amount),
        it.state.name().into(),
        nullable(kind, it.expire_time_us.map(Value::from), 0_i64),
        nullable_amount(kind, it.captured.map(|captured| captured.amount)),
        nullable_uuid(kind, it.captured.map(|captured| captured.transaction_id)),
        it.request_id.as_str().into(),
        it.description.as_str().into(),
        labels_json(&it.labels).into(),
        it.create_time_us.into(),
        it.update_time_us.into(),
        it.created_by.as_str().into(),
        it.ended_by.as_str().into(),
    ]
});

/// Named by account, too, so that it does not matter which index PostgreSQL searches: while the table
/// has one row or none, `holds_of_account` costs the same as the primary key, and by the hold's id
/// alone all of it is read.
pub static CLOSED_HOLDS: Rows<Hold, 7> = Rows::new(
    &HOLDS,
    "hold",
    Some([
        "account_id",
        "hold_id",
        "state",
        "captured_amount",
        "transaction_id",
        "update_time_us",
        "end_caller",
    ]),
    |kind, it: &Hold| {
        [
            it.account_id.as_str().into(),
            it.hold_id.as_str().into(),
            it.state.name().into(),
            nullable_amount(kind, it.captured.map(|captured| captured.amount)),
            nullable_uuid(kind, it.captured.map(|captured| captured.transaction_id)),
            it.update_time_us.into(),
            it.ended_by.as_str().into(),
        ]
    },
)
.with_two_keys();

fn balance_values(kind: DatabaseKind, account: &Account) -> [Value; 7] {
    [
        account.account_id.as_str().into(),
        amount(kind, account.balance),
        amount(kind, account.held),
        account.sequence.into(),
        account.version.into(),
        account.last_hash.to_vec().into(),
        account.update_time_us.into(),
    ]
}

fn amount(kind: DatabaseKind, amount: Amount) -> Value {
    match kind {
        DatabaseKind::Sqlite => amount.to_string().into(),
        DatabaseKind::Postgres => amount.decimal().into(),
    }
}

fn uuid(kind: DatabaseKind, id: TransactionId) -> Value {
    match kind {
        DatabaseKind::Sqlite => id.as_bytes().to_vec().into(),
        DatabaseKind::Postgres => id.into(),
    }
}

/// The value of a nullable column. PostgreSQL gets `none` for null: see `Column::element_value`.
fn nullable(kind: DatabaseKind, value: Option<Value>, none: impl Into<Value>) -> Value {
    value.unwrap_or_else(|| match kind {
        DatabaseKind::Sqlite => Value::String(None),
        DatabaseKind::Postgres => none.into(),
    })
}

fn nullable_amount(kind: DatabaseKind, value: Option<Amount>) -> Value {
    nullable(kind, value.map(|value| amount(kind, value)), Decimal::ZERO)
}

fn nullable_uuid(kind: DatabaseKind, id: Option<TransactionId>) -> Value {
    let value = id.map(|id| match kind {
        DatabaseKind::Sqlite => uuid(kind, id),
        DatabaseKind::Postgres => id.to_string().into(),
    });
    nullable(kind, value, "")
}
