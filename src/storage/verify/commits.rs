//! Verification of the commits: every event of the ledger is in one commit, and no other is in any.
//!
//! Each event of the tables adds its hash to a sum, and each event of a commit subtracts its own, in
//! one of many buckets. The hash has a key that nobody knows. If a sum is not zero, its bucket is read
//! again, and its events are counted one by one.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
};

use sea_orm::{ConnectionTrait, DatabaseTransaction, FromQueryResult, QueryResult, Value};

use crate::{
    domain::{
        ids::{AccountId, HoldId},
        unit_of_work::EventKey,
        verification::LedgerFault,
    },
    storage::{
        StorageError, commit_pages::page_of_commits, dialect::DatabaseKind, entity::commits::Model,
        tables::COMMITS, verify::error::VerifyError,
    },
};

/// Rows of other tables in one page.
const PAGE: usize = 10_000;
/// Parts of all events, by their hashes.
const BUCKETS: usize = 4096;

/// An event, and the key of the row that has it.
type EventOfRow = Result<(EventKey, Vec<Value>), StorageError>;

/// Where the events of the tables come from: the rows of a table, in the order of a key.
struct Source {
    columns: &'static str,
    from: &'static str,
    key: &'static [&'static str],
    /// The key before all others.
    first: fn() -> Vec<Value>,
    /// The event of a row, and its key.
    read: fn(&QueryResult) -> EventOfRow,
}

const SOURCES: [Source; 4] = [
    Source {
        columns: "transaction_id",
        from: "requests WHERE rejection IS NULL",
        key: &["transaction_id"],
        first: || vec![uuid::Uuid::nil().into()],
        read: |row| {
            let id: uuid::Uuid = row.try_get("", "transaction_id")?;
            Ok((EventKey::Request(id), vec![id.into()]))
        },
    },
    Source {
        columns: "account_id",
        from: "accounts WHERE true",
        key: &["account_id"],
        first: || vec!["".into()],
        read: |row| {
            let id: String = row.try_get("", "account_id")?;
            Ok((EventKey::AccountOpened(AccountId::from_stored(&id)), vec![id.into()]))
        },
    },
    Source {
        columns: "account_id, version",
        from: "account_changes WHERE true",
        key: &["account_id", "version"],
        first: || vec!["".into(), 0_i64.into()],
        read: |row| {
            let (id, version): (String, i64) =
                (row.try_get("", "account_id")?, row.try_get("", "version")?);
            let key = EventKey::AccountChanged(AccountId::from_stored(&id), version);
            Ok((key, vec![id.into(), version.into()]))
        },
    },
    Source {
        columns: "hold_id",
        from: "holds WHERE state = 'expired'",
        key: &["hold_id"],
        first: || vec!["".into()],
        read: |row| {
            let id: String = row.try_get("", "hold_id")?;
            Ok((EventKey::HoldExpired(HoldId::from_stored(&id)), vec![id.into()]))
        },
    },
];

/// Verifies all commits.
pub async fn verify(connection: &DatabaseTransaction) -> Result<(), VerifyError> {
    let hasher = RandomState::new();
    let bucket_of = |hash: u64| (hash % BUCKETS as u64) as usize;
    let mut sums = vec![0_u64; BUCKETS];
    for_each_event(connection, |event, count| {
        let hash = hasher.hash_one(event);
        let sum = &mut sums[bucket_of(hash)];
        *sum = if count > 0 { sum.wrapping_add(hash) } else { sum.wrapping_sub(hash) };
    })
    .await?;
    let Some(bucket) = sums.iter().position(|sum| *sum != 0) else { return Ok(()) };
    let mut counts = BTreeMap::new();
    for_each_event(connection, |event, count| {
        if bucket_of(hasher.hash_one(event)) == bucket {
            *counts.entry(event.clone()).or_insert(0) += count;
        }
    })
    .await?;
    let fault = counts.into_iter().find(|(_, count)| *count != 0);
    let Some((event, count)) = fault else {
        let reason = "the commits differ from the events, and no longer do".to_owned();
        return Err(VerifyError::Storage(StorageError::Corrupt(reason)));
    };
    let description = match count > 0 {
        true => "it is in no commit",
        false => "it is in a commit more often than it has happened",
    };
    let name = serde_json::json!(event).to_string();
    Err(LedgerFault::Event { name, description: description.to_owned() }.into())
}

/// Reads every event of the tables, with 1, and every event of a commit, with -1.
async fn for_each_event(
    connection: &DatabaseTransaction,
    mut act: impl FnMut(&EventKey, i64),
) -> Result<(), VerifyError> {
    let kind = DatabaseKind::of(connection);
    for Source { columns, from, key, first, read } in SOURCES {
        let key = key.join(", ");
        let after = if key.contains(',') { "($1, $2)" } else { "($1)" };
        let sql = format!(
            "SELECT {columns} FROM {from} AND ({key}) > {after} ORDER BY {key} LIMIT {PAGE}"
        );
        let mut last = first();
        loop {
            let rows = connection.query_all_raw(kind.statement(sql.as_str(), last.clone())).await?;
            for row in &rows {
                let (event, key) = read(row)?;
                act(&event, 1);
                last = key;
            }
            if rows.len() < PAGE {
                break;
            }
        }
    }
    let sql = page_of_commits(&COMMITS.column_list(""), "$1");
    let mut after = 0_i64;
    loop {
        let rows = connection.query_all_raw(kind.statement(sql.as_str(), [after.into()])).await?;
        if rows.is_empty() {
            return Ok(());
        }
        for row in &rows {
            let commit = Model::from_query_result(row, "")?;
            commit.events()?.iter().for_each(|event| act(event, -1));
            after = commit.number;
        }
    }
}
