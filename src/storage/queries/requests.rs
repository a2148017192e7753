//! Reading requests: their records, and the transactions among them.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, QueryResult, Select,
};

use crate::{
    domain::{
        ids::{AccountId, Identity, RequestId, RequestKey, TransactionId},
        transaction::{Reversed, Transaction},
        unit_of_work::RequestRecord,
    },
    storage::{
        StorageError, Store,
        dialect::{DatabaseKind, Sql},
        entity::requests::{Column, Entity, Model},
        queries::{accounts, entries, holds, page::now_us},
        tables::REQUESTS,
        write::transaction::WriteTransaction,
    },
};

impl Store {
    /// The transaction with this id, and its reversal if there is one. None if `is_visible` hides a
    /// transaction on these accounts: its entries are not read, so that it takes as long as one that
    /// does not exist.
    pub async fn transaction(
        &self,
        transaction_id: TransactionId,
        is_visible: impl Fn(&[AccountId]) -> bool,
    ) -> Result<Option<Arc<Transaction>>, StorageError> {
        let query = Entity::find().filter(Column::TransactionId.eq(transaction_id));
        self.visible_transaction(query, is_visible).await
    }

    /// The transaction of this request, like [`Store::transaction`].
    pub async fn transaction_of_request(
        &self,
        key: &RequestKey,
        is_visible: impl Fn(&[AccountId]) -> bool,
    ) -> Result<Option<Arc<Transaction>>, StorageError> {
        let key = (key.caller.to_string(), key.request_id.to_string());
        self.visible_transaction(Entity::find_by_id(key), is_visible).await
    }

    async fn visible_transaction(
        &self,
        query: Select<Entity>,
        is_visible: impl Fn(&[AccountId]) -> bool,
    ) -> Result<Option<Arc<Transaction>>, StorageError> {
        let row = query.one(&self.readers).await?;
        let keys = row.as_ref().map_or(Ok(Vec::new()), Model::entry_keys)?;
        // Also if there is no transaction, so that it takes as long as one that is hidden.
        let account_ids = accounts::ids(&self.readers, keys.iter().map(|key| key.0)).await?;
        let account_ids: Vec<_> = account_ids.into_values().collect();
        match row.filter(|_| is_visible(&account_ids)) {
            Some(row) => Ok(self.transactions_of(vec![row]).await?.pop()),
            None => Ok(None),
        }
    }

    /// The record of this request, if there is one.
    pub async fn record(&self, key: &RequestKey) -> Result<Option<RequestRecord>, StorageError> {
        let key = (key.caller.to_string(), key.request_id.to_string());
        let rows = Entity::find_by_id(key).one(&self.readers).await?.into_iter().collect();
        Ok(with_effects(&self.readers, rows).await?.pop().map(|(_, record)| record))
    }

    /// The transactions among these requests, in their order, with their reversals. Entries are
    /// written with their request and never change, so several statements read the same state.
    pub(in crate::storage) async fn transactions_of(
        &self,
        rows: Vec<Model>,
    ) -> Result<Vec<Arc<Transaction>>, StorageError> {
        let records = with_effects(&self.readers, rows).await?;
        let made = records.into_iter().filter_map(|(_, record)| record.result.ok());
        let mut transactions: Vec<_> = made.filter_map(|made| made.transaction).collect();
        let ids = transactions.iter().filter_map(|it| it.transaction_id).collect();
        let reversed_by = reversed_by(&self.readers, &ids).await?;
        for transaction in &mut transactions {
            let id = transaction.transaction_id.unwrap_or_default();
            Arc::make_mut(transaction).reversed_by = reversed_by.get(&id).copied();
        }
        Ok(transactions)
    }
}

/// The number of the reversal `r` among those of its transaction, as the unique index has it.
pub fn reversal_number(kind: DatabaseKind) -> &'static str {
    match kind {
        DatabaseKind::Sqlite => "COALESCE(r.details->'reversed'->>'count', 1)",
        DatabaseKind::Postgres => "COALESCE((r.details->'reversed'->>'count')::bigint, 1)",
    }
}

// LATERAL with a LIMIT: see `write::transaction`.
pub static BY_ID: Sql = Sql::new(|kind| {
    let columns = REQUESTS.column_list("r.");
    let from = match kind {
        DatabaseKind::Sqlite => {
            "json_each(?) name JOIN requests r ON r.transaction_id = unhex(name.value)"
        }
        DatabaseKind::Postgres => {
            "UNNEST($1::uuid[]) AS name(transaction_id) CROSS JOIN LATERAL (\
                 SELECT * FROM requests r WHERE r.transaction_id = name.transaction_id LIMIT 1) r"
        }
    };
    format!("SELECT {columns} FROM {from}")
});

// The latest reversal of each transaction.
pub static REVERSALS: Sql = Sql::new(|kind| {
    let (columns, number) = (REQUESTS.column_list("r."), reversal_number(kind));
    match kind {
        DatabaseKind::Sqlite => format!(
            "SELECT {columns} FROM json_each(?) reversed \
             JOIN requests r ON r.transaction_id = (SELECT r.transaction_id FROM requests r \
                 WHERE r.reverses_transaction_id = unhex(reversed.value) \
                 ORDER BY {number} DESC LIMIT 1)"
        ),
        DatabaseKind::Postgres => format!(
            "SELECT {columns} FROM UNNEST($1::uuid[]) AS reversed(transaction_id) \
             CROSS JOIN LATERAL (SELECT * FROM requests r \
                 WHERE r.reverses_transaction_id = reversed.transaction_id \
                 ORDER BY {number} DESC LIMIT 1) r"
        ),
    }
});

async fn reversed_by(
    connection: &impl ConnectionTrait,
    transaction_ids: &BTreeSet<TransactionId>,
) -> Result<HashMap<TransactionId, (TransactionId, Reversed)>, StorageError> {
    if transaction_ids.is_empty() {
        return Ok(HashMap::new());
    }
    let kind = DatabaseKind::of(connection);
    let ids = kind.uuids(transaction_ids.iter().copied());
    let (mut reversed_by, mut of_parts) = (HashMap::new(), Vec::new());
    for row in connection.query_all_raw(REVERSALS.statement(kind, [ids])).await? {
        let row = Model::from_query_result(&row, "")?;
        let reversed_id = row.reverses_transaction_id.unwrap_or_default();
        match row.details()?.reversed_whole() {
            Some(reversed) => {
                reversed_by.insert(reversed_id, (row.transaction_id, reversed));
            }
            None => of_parts.push(row),
        }
    }
    // An amount is read in the currency of the entries.
    let of_parts = match of_parts.is_empty() {
        true => Vec::new(),
        false => with_effects(connection, of_parts).await?,
    };
    reversed_by.extend(of_parts.into_iter().filter_map(|(_, record)| {
        let transaction = record.result.ok()?.transaction?;
        let (reversed_id, reversed) = transaction.reverses?;
        Some((reversed_id, (transaction.transaction_id?, reversed)))
    }));
    Ok(reversed_by)
}

// The clock and the rows in one statement. Columns by name: a prepared `*` fails when a newer
// server's migration has added one. LATERAL with a LIMIT: see `write::transaction`.
pub static RECORDS: Sql = Sql::new(|kind| {
    let rows = match kind {
        DatabaseKind::Sqlite => {
            "SELECT r.* FROM json_each(?) key \
                 JOIN requests r ON r.caller = key.value->>0 AND r.request_id = key.value->>1"
        }
        DatabaseKind::Postgres => {
            "SELECT r.* FROM UNNEST($1::text[], $2::text[]) AS key(caller, request_id) \
                 CROSS JOIN LATERAL (SELECT * FROM requests r \
                     WHERE r.caller = key.caller COLLATE \"C\" \
                     AND r.request_id = key.request_id COLLATE \"C\" LIMIT 1) r"
        }
    };
    // Where no row is locked, this gives the database transaction its id. It must have the id before it
    // has its time: a read about that time waits for those that have an id. CASE keeps this order.
    let clock = match kind {
        DatabaseKind::Sqlite => kind.clock().to_owned(),
        DatabaseKind::Postgres => {
            format!("CASE WHEN pg_current_xact_id() IS NOT NULL THEN {} END", kind.clock())
        }
    };
    let columns = REQUESTS.column_list("r.");
    format!(
        "SELECT clock.now_us, {columns} \
         FROM (SELECT {clock} AS now_us) clock LEFT JOIN ({rows}) r ON true"
    )
});

impl WriteTransaction {
    /// The time in microseconds since the Unix epoch by the database's clock, and the records of
    /// these requests. A statement after the lock: it sees what was committed during the wait.
    pub async fn records(
        &self,
        keys: &BTreeSet<RequestKey>,
    ) -> Result<(i64, HashMap<RequestKey, RequestRecord>), StorageError> {
        let kind = DatabaseKind::of(&self.transaction);
        let pairs = keys.iter().map(|key| (key.caller.to_string(), key.request_id.to_string()));
        let statement = RECORDS.statement(kind, kind.pairs(pairs));
        let rows = self.transaction.query_all_raw(statement).await?;
        let models = rows.iter().filter_map(|row| model_of(row).transpose());
        let models = models.collect::<Result<Vec<_>, _>>()?;
        let records = with_effects(&self.transaction, models).await?;
        Ok((now_us(&rows)?, records.into_iter().collect()))
    }

    /// Those of these ids that are of transactions.
    pub async fn transactions(
        &self,
        transaction_ids: &BTreeSet<TransactionId>,
    ) -> Result<HashSet<TransactionId>, StorageError> {
        if transaction_ids.is_empty() {
            return Ok(HashSet::new());
        }
        let kind = DatabaseKind::of(&self.transaction);
        let ids = kind.uuids(transaction_ids.iter().copied());
        let mut transactions = HashSet::new();
        for row in self.transaction.query_all_raw(BY_ID.statement(kind, [ids])).await? {
            let row = Model::from_query_result(&row, "")?;
            if row.is_transaction() {
                transactions.insert(row.transaction_id);
            }
        }
        Ok(transactions)
    }

    /// The reversed ones among these transactions, with their latest reversals. A reversal locks the
    /// transaction's accounts, so a statement after the lock sees it.
    pub async fn reversed_by(
        &self,
        transaction_ids: &BTreeSet<TransactionId>,
    ) -> Result<HashMap<TransactionId, (TransactionId, Reversed)>, StorageError> {
        reversed_by(&self.transaction, transaction_ids).await
    }
}

/// The records in these rows, in their order, each with its effects.
pub async fn with_effects(
    connection: &impl ConnectionTrait,
    rows: Vec<Model>,
) -> Result<Vec<(RequestKey, RequestRecord)>, StorageError> {
    let mut keys = Vec::new();
    for row in &rows {
        keys.extend(row.entry_keys()?);
    }
    let entries = entries::by_key(connection, &keys).await?;
    let hold_ids: BTreeSet<_> = rows.iter().filter_map(Model::hold_id).collect();
    let holds = match hold_ids.is_empty() {
        true => Vec::new(),
        false => holds::by_key(connection, &hold_ids, &BTreeSet::new(), 0).await?.1,
    };
    let holds = holds.into_iter().map(|hold| (hold.hold_id.clone(), hold)).collect();
    let mut records = Vec::with_capacity(rows.len());
    for row in rows {
        let key = RequestKey {
            caller: Identity::from_stored(&row.caller),
            request_id: RequestId::from_stored(&row.request_id),
        };
        records.push((key, row.into_record(&entries, &holds)?));
    }
    Ok(records)
}

/// The row of a request; None for the row of the clock alone.
fn model_of(row: &QueryResult) -> Result<Option<Model>, StorageError> {
    let request_id: Option<String> = row.try_get("", "request_id")?;
    match request_id {
        Some(_) => Ok(Some(Model::from_query_result(row, "")?)),
        None => Ok(None),
    }
}
