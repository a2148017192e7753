//! Reading entries.

use std::collections::HashMap;

use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder,
    QuerySelect,
};

use crate::{
    domain::{
        account::Account,
        money::Amount,
        query::{EntryRange, Order},
        transaction::Entry,
    },
    storage::{
        StorageError, Store,
        dialect::{DatabaseKind, Sql},
        entity::{
            accounts::{OF_ACCOUNT, account_of},
            entries::{Column, Entity, Model},
            requests::EntryKey,
        },
        tables::ENTRIES,
    },
};

impl Store {
    /// At most `limit` entries of an account.
    pub async fn list_entries(
        &self,
        account: &Account,
        range: &EntryRange,
        limit: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let mut after = range.after_sequence;
        let mut before = range.before_sequence.unwrap_or(i64::MAX);
        // Times never go back within an account, so a time is a position in the sequence.
        if let Some(start) = range.start_time_us {
            after = after.max(self.first_at(account, start).await? - 1);
        }
        if let Some(end) = range.end_time_us {
            before = before.min(self.first_at(account, end).await?);
        }
        let query = Entity::find()
            .filter(Column::AccountKey.eq(account.account_key))
            .filter(Column::Sequence.gt(after))
            .filter(Column::Sequence.lt(before))
            .limit(limit);
        let query = match range.order {
            Order::Ascending => query.order_by_asc(Column::Sequence),
            Order::Descending => query.order_by_desc(Column::Sequence),
        };
        let rows = query.all(&self.readers).await?;
        rows.into_iter().map(|row| row.into_entry(&account.account_id, &account.currency)).collect()
    }

    /// The balance of an account after all entries up to this time, inclusive (None: after all
    /// entries), and the sequence of the last of them.
    pub async fn balance_at(
        &self,
        account: &Account,
        time_us: Option<i64>,
    ) -> Result<(Amount, i64), StorageError> {
        let sequence = match time_us {
            None => account.sequence,
            Some(time_us) => self.first_at(account, time_us.saturating_add(1)).await? - 1,
        };
        if sequence == account.sequence {
            return Ok((account.balance, sequence));
        }
        if sequence == 0 {
            return Ok((account.currency.zero(), sequence));
        }
        let entry = self.entry(account, sequence).await?;
        Ok((entry.into_entry(&account.account_id, &account.currency)?.balance_after, sequence))
    }

    /// The sequence of the first entry at this time or later, or the one after the last entry. A
    /// binary search, with one look-up by primary key a step.
    pub(in crate::storage) async fn first_at(
        &self,
        account: &Account,
        time_us: i64,
    ) -> Result<i64, StorageError> {
        let (mut low, mut high) = (1, account.sequence + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(account, middle).await?.create_time_us < time_us {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    pub(super) async fn entry(
        &self,
        account: &Account,
        sequence: i64,
    ) -> Result<Model, StorageError> {
        let row = Entity::find_by_id((account.account_key, sequence)).one(&self.readers).await?;
        row.ok_or_else(|| {
            let account_id = &account.account_id;
            StorageError::Corrupt(format!("account {account_id} has no entry {sequence}"))
        })
    }
}

pub static BY_KEY: Sql = Sql::new(|kind| {
    let columns = ENTRIES.column_list("e.");
    let from = match kind {
        DatabaseKind::Sqlite => {
            "json_each(?) name \
             JOIN entries e ON e.account_key = name.value->>0 AND e.sequence = name.value->>1 \
             JOIN accounts a ON a.account_key = e.account_key"
        }
        DatabaseKind::Postgres => {
            "UNNEST($1::bigint[], $2::bigint[]) AS name(account_key, sequence) \
             CROSS JOIN LATERAL (SELECT * FROM entries e \
                 WHERE e.account_key = name.account_key \
                 AND e.sequence = name.sequence LIMIT 1) e \
             CROSS JOIN LATERAL (SELECT * FROM accounts a \
                 WHERE a.account_key = e.account_key LIMIT 1) a"
        }
    };
    format!("SELECT {columns}, {OF_ACCOUNT} FROM {from}")
});

/// The entries with these keys.
pub async fn by_key(
    connection: &impl ConnectionTrait,
    keys: &[EntryKey],
) -> Result<HashMap<EntryKey, Entry>, StorageError> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let kind = DatabaseKind::of(connection);
    let statement = BY_KEY.statement(kind, kind.pairs(keys.iter().copied()));
    let mut entries = HashMap::with_capacity(keys.len());
    for row in connection.query_all_raw(statement).await? {
        let entry = Model::from_query_result(&row, "")?;
        let (account_id, currency) = account_of(&row)?;
        let key = (entry.account_key, entry.sequence);
        entries.insert(key, entry.into_entry(&account_id, &currency)?);
    }
    Ok(entries)
}
