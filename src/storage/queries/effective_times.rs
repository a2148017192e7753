//! Reading entries by the times at which they take effect.
//!
//! Nearly all entries take effect at their `create_time_us`, and are in that order already. Those with an
//! effective time of their own have an index. A statement by effective time merges both.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use sea_orm::{ConnectionTrait, FromQueryResult};

use crate::{
    domain::{
        account::Account,
        effective_time::EffectivePosition,
        money::Currency,
        query::{EffectiveRange, Order, TransactionFilter},
        transaction::{Entry, Transaction},
    },
    storage::{
        StorageError, Store,
        dialect::{DatabaseKind, Sql},
        entity::{entries, requests::Model},
        queries::{
            page::{EXAMINED_MAX, Examined, ROWS_SIZE_MAX},
            transactions::{cut, filter_values, matches},
        },
        tables::{ENTRIES, REQUESTS},
    },
};

/// The most entries that a balance by effective time examines: a third of a second.
pub const EXAMINED_FOR_BALANCE_MAX: u64 = 250_000;
/// The most entries that a page of transactions examines to find those that match a filter.
const EXAMINED_FOR_FILTER_MAX: u64 = 1000;
/// Entries whose transactions are read at a time: those of a page of the default size.
const ENTRIES_AT_A_TIME: usize = 100;

impl Store {
    /// At most `limit` entries of an account, in the order in which they take effect.
    pub async fn list_entries_by_effective_time(
        &self,
        account: &Account,
        range: &EffectiveRange,
        limit: u64,
    ) -> Result<Examined<Entry, EffectivePosition>, StorageError> {
        let is_ascending = range.order == Order::Ascending;
        let EffectiveRange { after, before, .. } = *range;
        let behind = EffectivePosition { sequence: after.sequence.saturating_add(1), ..after };
        let (first, end) =
            (self.first_from(account, behind).await?, self.first_from(account, before).await?);
        let (from, until) = match is_ascending {
            true => (first, end.min(first.saturating_add(EXAMINED_MAX as i64))),
            false => (first.max(end.saturating_sub(EXAMINED_MAX as i64)), end),
        };
        let values = [
            account.account_key.into(),
            from.into(),
            until.into(),
            after.time_us.into(),
            after.sequence.into(),
            before.time_us.into(),
            before.sequence.into(),
            account.sequence.into(),
            limit.into(),
        ];
        let sql = if is_ascending { &ASCENDING } else { &DESCENDING };
        let rows = self.readers.query_all_raw(sql.statement(self.kind(), values)).await?;
        let entry = |row| {
            let row = entries::Model::from_query_result(row, "")?;
            row.into_entry(&account.account_id, &account.currency)
        };
        let mut rows = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        let last = match is_ascending {
            true => (until < end).then_some(until - 1),
            false => (from > first).then_some(from),
        };
        let mut next = None;
        if let Some(last) = last {
            // Of the entries behind it, some were not examined.
            let time_us = self.entry(account, last).await?.create_time_us;
            let last = EffectivePosition { time_us, sequence: last };
            rows.retain(|entry| match is_ascending {
                true => entry.effective_position() <= last,
                false => entry.effective_position() >= last,
            });
            next = Some(last);
        }
        match is_ascending {
            true => rows.sort_by_key(Entry::effective_position),
            false => rows.sort_by_key(|entry| Reverse(entry.effective_position())),
        }
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(Examined { rows, next })
    }

    /// The sequence of the first entry that would be at this position or behind it if no entry had an
    /// effective time of its own.
    async fn first_from(
        &self,
        account: &Account,
        EffectivePosition { time_us, sequence }: EffectivePosition,
    ) -> Result<i64, StorageError> {
        let first = self.first_at(account, time_us).await?;
        if sequence <= first {
            return Ok(first);
        }
        let end = self.first_at(account, time_us.saturating_add(1)).await?;
        Ok(sequence.min(end))
    }

    /// Lists transactions of an account in the order in which they take effect, latest first.
    pub async fn list_transactions_by_effective_time(
        &self,
        account: &Account,
        filter: &TransactionFilter,
        range: &EffectiveRange,
        limit: u64,
    ) -> Result<Examined<Arc<Transaction>, EffectivePosition>, StorageError> {
        let examined = if filter.is_selective() { EXAMINED_FOR_FILTER_MAX } else { limit };
        let Examined { rows: mut entries, mut next } =
            self.list_entries_by_effective_time(account, range, examined + 1).await?;
        if entries.len() as u64 > examined {
            entries.pop();
            next = entries.last().map(Entry::effective_position);
        }
        let (mut rows, mut positions, mut size) = (Vec::new(), Vec::new(), 0);
        for part in entries.chunks(ENTRIES_AT_A_TIME) {
            if size > ROWS_SIZE_MAX {
                next = positions.last().copied();
                break;
            }
            let ids = self.kind().uuids(part.iter().map(|entry| entry.transaction_id));
            let values = filter_values(filter).into_iter().chain([ids]);
            let mut found = HashMap::new();
            for row in self.readers.query_all_raw(MATCHING.statement(self.kind(), values)).await? {
                let row = Model::from_query_result(&row, "")?;
                found.insert(row.transaction_id, row);
            }
            for entry in part {
                let Some(row) = found.get(&entry.transaction_id) else { continue };
                // A transaction is listed at its last entry on the account, and so once.
                let keys = row.entry_keys()?.into_iter();
                let last = keys.filter(|key| key.0 == account.account_key).map(|key| key.1).max();
                if last == Some(entry.sequence) {
                    size += row.text_bytes();
                    rows.push(row.clone());
                    positions.push(entry.effective_position());
                }
            }
        }
        if cut(&mut rows, limit) {
            next = positions.get(rows.len() - 1).copied();
        }
        Ok(Examined { rows: self.transactions_of(rows).await?, next })
    }

    /// The sum of an account's entries that take effect at this time or before, in the currency's smallest
    /// unit. None if too many entries have an effective time behind it, or were written behind it.
    pub async fn balance_by_effective_time(
        &self,
        account: &Account,
        time_us: i64,
    ) -> Result<Option<i128>, StorageError> {
        let (balance, sequence) = self.balance_at(account, Some(time_us)).await?;
        let values = [
            account.account_key.into(),
            time_us.into(),
            sequence.into(),
            account.sequence.into(),
            (EXAMINED_FOR_BALANCE_MAX + 1).into(),
        ];
        let statement = BALANCE.statement(self.kind(), values);
        let row = self.readers.query_one_raw(statement).await?;
        let row = row.map(|row| Corrections::from_query_result(&row, "")).transpose()?;
        let corrections = row.unwrap_or_default();
        if corrections.examined.unsigned_abs() > EXAMINED_FOR_BALANCE_MAX {
            return Ok(None);
        }
        let sum = corrections.sum(&account.currency).ok_or_else(|| {
            let account_id = &account.account_id;
            StorageError::Corrupt(format!("the entries of account {account_id}: column amount"))
        })?;
        Ok(Some(balance.units() + sum))
    }
}

/// How the balance by effective time differs from that by `create_time_us`.
#[derive(Default, FromQueryResult)]
struct Corrections {
    /// The number of entries that were read.
    examined: i64,
    /// The amounts of entries that were written behind the time, and take effect before.
    added: Option<String>,
    /// The amounts of entries that were written before the time, and take effect behind it.
    taken: Option<String>,
}

impl Corrections {
    fn sum(&self, currency: &Currency) -> Option<i128> {
        let sum = |amounts: &Option<String>| {
            let mut amounts = amounts.iter().flat_map(|amounts| amounts.split(' '));
            amounts.try_fold(0_i128, |sum, text| sum.checked_add(currency.parse_units(text)?))
        };
        sum(&self.added)?.checked_sub(sum(&self.taken)?)
    }
}

pub static ASCENDING: Sql = Sql::new(|_| list(""));
pub static DESCENDING: Sql = Sql::new(|_| list("DESC"));

/// As many entries of both kinds as a page has, each in this direction. The bound of the time alone ends
/// PostgreSQL's scan: by that of time and sequence it reads all entries of the time itself.
fn list(direction: &str) -> String {
    let columns = ENTRIES.column_list("");
    format!(
        "SELECT {columns} FROM (SELECT {columns} FROM entries \
             WHERE account_key = $1 AND sequence >= $2 AND sequence < $3 \
             AND effective_time_us IS NULL ORDER BY sequence {direction} LIMIT $9) undated \
         UNION ALL \
         SELECT {columns} FROM (SELECT {columns} FROM entries \
             WHERE account_key = $1 AND effective_time_us IS NOT NULL \
             AND (effective_time_us, sequence) > ($4, $5) \
             AND (effective_time_us, sequence) < ($6, $7) \
             AND effective_time_us <= $6 - CASE WHEN $7 > 0 THEN 0 ELSE 1 END AND sequence <= $8 \
             ORDER BY effective_time_us {direction}, sequence {direction} LIMIT $9) dated"
    )
}

// The requests of these transactions, as far as they match.
pub static MATCHING: Sql = Sql::new(|kind| {
    let (columns, matches) = (REQUESTS.column_list("r."), matches(kind));
    let from = match kind {
        DatabaseKind::Sqlite => {
            "json_each($5) listed JOIN requests r ON r.transaction_id = unhex(listed.value)"
        }
        DatabaseKind::Postgres => {
            "UNNEST($5::uuid[]) AS listed(transaction_id) \
             CROSS JOIN LATERAL (SELECT * FROM requests r \
                 WHERE r.transaction_id = listed.transaction_id LIMIT 1) r"
        }
    };
    format!("SELECT {columns} FROM {from} WHERE {matches}")
});

// Of the entries with an effective time: those behind the time, and those that were written behind it.
// Each side of the union has what the other lacks; what is in both changes nothing, and counts once. If a
// side ends at its limit, what counts is beyond the limit, too. SQLite has no decimals, so the amounts are
// returned.
pub static BALANCE: Sql = Sql::new(|kind| {
    let amount = kind.text("amount");
    format!(
        "SELECT count(*) FILTER (WHERE is_late OR effective_time_us <= $2) AS examined, \
             string_agg({amount}, ' ') FILTER (WHERE effective_time_us <= $2) AS added, \
             string_agg({amount}, ' ') FILTER (WHERE sequence <= $3) AS taken \
         FROM (SELECT * FROM (SELECT amount, sequence, effective_time_us, true AS is_late \
                 FROM entries WHERE account_key = $1 AND effective_time_us > $2 \
                 ORDER BY effective_time_us LIMIT $5) late \
             UNION ALL \
             SELECT * FROM (SELECT amount, sequence, effective_time_us, false AS is_late \
                 FROM entries WHERE account_key = $1 AND effective_time_us IS NOT NULL \
                 AND sequence > $3 AND sequence <= $4 ORDER BY sequence LIMIT $5) written_later) e"
    )
});

#[cfg(test)]
mod tests {
    use sea_orm::ConnectionTrait;
    use tempfile::TempDir;

    use super::*;
    use crate::storage::connect::session::Role;

    /// Of entries with these effective times, at the time 10: the first entry was written before.
    async fn corrections(times: [i64; 4], limit: u64) -> Corrections {
        let directory = TempDir::new().unwrap();
        let store = Store::for_tests(&directory).await;
        let writer = store.open(Role::Maintenance).await.unwrap();
        for (sequence, time_us) in (1..).zip(times) {
            let insert = format!(
                "INSERT INTO entries (account_key, sequence, transaction_id, amount, balance_after, \
                     create_time_us, hash, effective_time_us) \
                 VALUES (1, {sequence}, randomblob(16), '1.00', '1.00', {sequence}, x'', {time_us})"
            );
            writer.execute_unprepared(&insert).await.unwrap();
        }
        let values: [sea_orm::Value; 5] = [1.into(), 10.into(), 1.into(), 4.into(), limit.into()];
        let statement = BALANCE.statement(DatabaseKind::Sqlite, values);
        let row = writer.query_one_raw(statement).await.unwrap().unwrap();
        Corrections::from_query_result(&row, "").unwrap()
    }

    #[tokio::test]
    async fn an_entry_that_was_written_late_and_takes_effect_late_counts_once() {
        let found = corrections([11, 9, 12, 13], 100).await;
        assert_eq!(found.examined, 4);
        assert_eq!(found.added.as_deref(), Some("1.00"), "the second");
        assert_eq!(found.taken.as_deref(), Some("1.00"), "the first");
        for limit in 1..=3 {
            let found = corrections([11, 9, 12, 13], limit).await;
            assert!(found.examined.unsigned_abs() >= limit, "{limit}: {}", found.examined);
        }
    }
}
