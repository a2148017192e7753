//! Reading the new entries of many accounts at once.

use sea_orm::{ConnectionTrait, FromQueryResult, QueryResult};

use crate::{
    domain::{ids::AccountId, money::Currency, transaction::Entry},
    storage::{
        StorageError, Store,
        dialect::{DatabaseKind, Sql},
        entity::entries::Model,
        tables::ENTRIES,
    },
};

/// An account and the latest of its entries that is known.
#[derive(Clone, Debug)]
pub struct WatchedAccount {
    /// The account.
    pub account_id: AccountId,
    /// Its key in the database.
    pub account_key: i64,
    /// Its currency.
    pub currency: Currency,
    /// The sequence of the latest known entry.
    pub after_sequence: i64,
}

/// The new entries of one account, in order and without a gap; or why they cannot be read.
pub type NewEntries = Result<Vec<Entry>, StorageError>;

pub static NEW_ENTRIES: Sql = Sql::new(|kind| match kind {
    // CROSS JOIN keeps SQLite from changing the order of the loops. Sequences have no gaps, so the
    // upper bound is a limit.
    DatabaseKind::Sqlite => format!(
        "SELECT watched.key AS position, {} FROM json_each(?) watched CROSS JOIN entries e \
         WHERE e.account_key = watched.value->>0 AND e.sequence > watched.value->>1 \
             AND e.sequence <= (watched.value->>1) + ?",
        ENTRIES.column_list("e.")
    ),
    // LATERAL with a LIMIT cannot be turned into a join of any other kind: it is one search of the
    // primary key an account, whatever the planner believes about the tables.
    DatabaseKind::Postgres => format!(
        "SELECT watched.position - 1 AS position, e.* \
         FROM UNNEST($1::bigint[], $2::bigint[]) WITH ORDINALITY \
             AS watched(account_key, after_sequence, position) \
         CROSS JOIN LATERAL ( \
             SELECT {} FROM entries \
             WHERE account_key = watched.account_key \
             AND sequence > watched.after_sequence ORDER BY sequence LIMIT $3) e",
        ENTRIES.column_list("")
    ),
});

impl Store {
    /// The next entries of each of these accounts, at most `limit` of each, in one statement; in
    /// the order of the accounts.
    pub async fn new_entries(
        &self,
        accounts: &[WatchedAccount],
        limit: usize,
    ) -> Result<Vec<NewEntries>, StorageError> {
        let kind = self.kind();
        let pairs = accounts.iter().map(|it| (it.account_key, it.after_sequence));
        let mut values = kind.pairs(pairs);
        // At most a few thousand.
        values.push((limit as i64).into());
        let statement = NEW_ENTRIES.statement(kind, values);
        let mut lists: Vec<NewEntries> = accounts.iter().map(|_| Ok(Vec::new())).collect();
        for row in self.readers.query_all_raw(statement).await? {
            let position = usize::try_from(row.try_get::<i64>("", "position")?).ok();
            let of_row = position.and_then(|it| Some((accounts.get(it)?, lists.get_mut(it)?)));
            let Some((account, list)) = of_row else {
                return Err(StorageError::Corrupt(format!(
                    "new entries of account number {position:?}, which was not asked for"
                )));
            };
            // An unreadable entry is a fault of its account only.
            match (entry(&row, account), list.as_mut()) {
                (Ok(entry), Ok(entries)) => entries.push(entry),
                (Err(error), Ok(_)) => *list = Err(error),
                (_, Err(_)) => {}
            }
        }
        let in_order = |(account, list): (&WatchedAccount, NewEntries)| in_order(account, list?);
        Ok(accounts.iter().zip(lists).map(in_order).collect())
    }
}

fn entry(row: &QueryResult, account: &WatchedAccount) -> Result<Entry, StorageError> {
    Model::from_query_result(row, "")?.into_entry(&account.account_id, &account.currency)
}

/// Sorts the entries. A gap is a fault of the ledger.
fn in_order(account: &WatchedAccount, mut entries: Vec<Entry>) -> NewEntries {
    entries.sort_unstable_by_key(|entry| entry.sequence);
    for (entry, expected) in entries.iter().zip(account.after_sequence + 1..) {
        if entry.sequence != expected {
            let account_id = &account.account_id;
            return Err(StorageError::Corrupt(format!(
                "account {account_id}: no entry {expected}"
            )));
        }
    }
    Ok(entries)
}
