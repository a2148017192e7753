//! Reading history: transactions by filters, and changes of accounts.

use std::sync::Arc;

use sea_orm::{
    ColumnTrait, EntityTrait, FromQueryResult, Order, QueryFilter, QueryOrder, QueryResult,
    QuerySelect, QueryTrait, Statement, TryGetable, Value,
};
use uuid::Uuid;

use crate::{
    domain::{
        account::{Account, AccountChange, label_bytes},
        ids::{ID_TIME_DISTANCE_MAX_US, TransactionId, lowest_id_at},
        query::TransactionFilter,
        transaction::{Transaction, TransactionKind},
    },
    storage::{
        StorageError, Store,
        dialect::{DatabaseKind, Sql},
        entity::{
            account_changes,
            requests::{Column, Entity, Model},
        },
        queries::page::{self, EXAMINED_MAX, Examined, ROWS_SIZE_MAX},
        tables::REQUESTS,
    },
};

/// How far a time range is extended: twice the distance that the time in a transaction's id may
/// have from the transaction's own.
const ID_TIME_SLACK_US: i64 = 2 * ID_TIME_DISTANCE_MAX_US;

/// The most entries in a page of transactions, unless the first one alone has more: a page takes
/// memory before it is cut to the size of a response.
const PAGE_ENTRIES_MAX: usize = 5000;

impl Store {
    /// Lists transactions of all accounts with ids below `before`, latest first.
    pub async fn list_transactions(
        &self,
        filter: &TransactionFilter,
        before: Option<TransactionId>,
        limit: u64,
    ) -> Result<Examined<Arc<Transaction>, TransactionId>, StorageError> {
        let start = filter.start_time_us.map_or(Uuid::nil(), |time_us| id_at(time_us, false));
        let end = filter.end_time_us.map_or(Uuid::max(), |time_us| id_at(time_us, true));
        let before = before.map_or(end, |before| before.min(end));
        let range = Entity::find().filter(Column::TransactionId.lt(before));
        let (examined, last) =
            page::examine(&self.readers, range, Column::TransactionId, Order::Desc, EXAMINED_MAX)
                .await?;
        let is_cut = |last: &TransactionId| examined == EXAMINED_MAX && *last > start;
        let last = last.filter(is_cut);
        let range = [before.into(), last.unwrap_or(start).into(), (limit + 1).into()];
        let values = filter_values(filter).into_iter().chain(range);
        let statement = LIST.statement(self.kind(), values);
        let (rows, more) = self.page(statement, limit, "transaction_id").await?;
        Ok(Examined { rows, next: more.or(last) })
    }

    /// Lists transactions of an account whose last entry is below the sequence `before`, latest
    /// first.
    pub async fn list_transactions_of_account(
        &self,
        account: &Account,
        filter: &TransactionFilter,
        before: Option<i64>,
        limit: u64,
    ) -> Result<Examined<Arc<Transaction>, i64>, StorageError> {
        let (mut first, mut end) = (1, account.sequence + 1);
        if let Some(start_time_us) = filter.start_time_us {
            first = self.first_at(account, start_time_us).await?;
        }
        if let Some(end_time_us) = filter.end_time_us {
            end = self.first_at(account, end_time_us).await?;
        }
        let end = before.map_or(end, |before| before.min(end));
        let last = first.max(end.saturating_sub(EXAMINED_MAX as i64));
        let range = [account.account_key.into(), end.into(), last.into(), (limit + 1).into()];
        let values = filter_values(filter).into_iter().chain(range);
        let statement = LIST_OF_ACCOUNT.statement(self.kind(), values);
        let (rows, more) = self.page(statement, limit, "sequence").await?;
        Ok(Examined { rows, next: more.or((last > first).then_some(last)) })
    }

    /// The transactions in the first rows of a statement, and the cursor in the last of these if
    /// there are more rows.
    async fn page<Cursor: TryGetable>(
        &self,
        statement: Statement,
        limit: u64,
        cursor: &str,
    ) -> Result<(Vec<Arc<Transaction>>, Option<Cursor>), StorageError> {
        let read = |row: &QueryResult| {
            let cursor: Cursor = row.try_get("", cursor)?;
            let row = Model::from_query_result(row, "")?;
            let size = row.text_bytes();
            Ok(((row, cursor), size))
        };
        let (found, is_cut) =
            page::rows_within(&self.readers, statement, ROWS_SIZE_MAX, read).await?;
        let (mut rows, mut cursors): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        let has_more = cut(&mut rows, limit) || is_cut;
        cursors.truncate(rows.len());
        let next = cursors.pop().filter(|_| has_more);
        Ok((self.transactions_of(rows).await?, next))
    }

    /// At most `limit` changes of an account above this version, oldest first. Fewer, if they are more than
    /// fit into a page.
    pub async fn list_account_changes(
        &self,
        account: &Account,
        after_version: i64,
        limit: u64,
    ) -> Result<Vec<AccountChange>, StorageError> {
        use account_changes::{Column, Entity};
        let query = Entity::find()
            .filter(Column::AccountId.eq(account.account_id.as_str()))
            .filter(Column::Version.gt(after_version))
            .order_by_asc(Column::Version)
            .limit(limit)
            .build(self.kind().into());
        let changes = page::rows_within(&self.readers, query, ROWS_SIZE_MAX, |row| {
            let change = account_changes::Model::from_query_result(row, "")?;
            let change = change.into_change(&account.currency)?;
            let size = label_bytes(&change.before.labels) + label_bytes(&change.after.labels);
            Ok((change, size))
        });
        Ok(changes.await?.0)
    }
}

/// Cuts a page after `limit` transactions, or after fewer that have [`PAGE_ENTRIES_MAX`] entries.
/// Returns whether more follow.
pub(super) fn cut(rows: &mut Vec<Model>, limit: u64) -> bool {
    let found = rows.len();
    let fitting = page::fitting(rows.iter().map(Model::entry_count), PAGE_ENTRIES_MAX);
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX).min(fitting));
    rows.len() < found
}

pub static LIST: Sql = Sql::new(|kind| {
    format!(
        "SELECT {} FROM requests r WHERE r.transaction_id < $5 AND r.transaction_id >= $6 \
         AND {} ORDER BY r.transaction_id DESC LIMIT $7",
        REQUESTS.column_list("r."),
        matches(kind)
    )
});

// A transaction is listed at its last entry on the account, and so once, wherever a page ends.
pub static LIST_OF_ACCOUNT: Sql = Sql::new(|kind| {
    format!(
        "SELECT {}, e.sequence FROM entries e \
         JOIN requests r ON r.transaction_id = e.transaction_id \
         WHERE e.account_key = $5 AND e.sequence < $6 AND e.sequence >= $7 \
         AND NOT EXISTS (SELECT 1 FROM entries n WHERE n.account_key = e.account_key \
             AND n.sequence = e.sequence + 1 AND n.transaction_id = e.transaction_id) \
         AND {} ORDER BY e.sequence DESC LIMIT $8",
        REQUESTS.column_list("r."),
        matches(kind)
    )
});

/// The condition for the values of [`filter_values`]. A filter that is not given matches
/// everything, so the text is always the same. PostgreSQL expects few rows of any labels, so it must see
/// that there are none.
pub(super) fn matches(kind: DatabaseKind) -> String {
    let kinds: Vec<_> = TransactionKind::ALL.iter().map(|it| it.name()).collect();
    format!(
        "r.rejection IS NULL AND r.kind IN ('{}') \
         AND (CAST($1 AS text) = '' OR r.kind = CAST($1 AS text)) \
         AND r.create_time_us >= $2 AND r.create_time_us < $3 \
         AND (CAST($4 AS text) = '{{}}' OR {})",
        kinds.join("', '"),
        kind.has_labels("coalesce(r.labels, '{}')", "$4")
    )
}

pub(super) fn filter_values(filter: &TransactionFilter) -> [Value; 4] {
    [
        filter.kind.map_or("", TransactionKind::name).into(),
        filter.start_time_us.unwrap_or(i64::MIN).into(),
        filter.end_time_us.unwrap_or(i64::MAX).into(),
        serde_json::json!(filter.labels).to_string().into(),
    ]
}

/// A lower bound of the ids (UUIDv7) of transactions at this time or later; for the end of a range,
/// an upper bound of the ids before it.
fn id_at(time_us: i64, is_end: bool) -> Uuid {
    let slack = if is_end { ID_TIME_SLACK_US } else { -ID_TIME_SLACK_US };
    lowest_id_at(time_us.saturating_add(slack))
}
