//! Reading verdicts, and the transactions among them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, FromQueryResult,
    QueryFilter, QueryResult, Statement,
};

use crate::{
    domain::{
        book::Decided,
        ids::{RequestId, RequestKey, TransactionId},
        transaction::Transaction,
    },
    storage::{
        StorageError, Store,
        entity::requests::{Column, Entity, Model},
        entries,
    },
};

impl Store {
    /// The transaction with this id.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn transaction(
        &self,
        transaction_id: TransactionId,
    ) -> Result<Option<Arc<Transaction>>, StorageError> {
        let query = Entity::find().filter(Column::TransactionId.eq(transaction_id));
        self.applied(query.one(&self.readers).await?).await
    }

    /// The transaction that was made under this request id.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn transaction_of_request(
        &self,
        key: &RequestKey,
    ) -> Result<Option<Arc<Transaction>>, StorageError> {
        let key = (key.caller.to_string(), key.request_id.to_string());
        self.applied(Entity::find_by_id(key).one(&self.readers).await?).await
    }

    /// Entries are written with their request and never change: two statements, one truth.
    async fn applied(&self, row: Option<Model>) -> Result<Option<Arc<Transaction>>, StorageError> {
        let Some(row) = row else { return Ok(None) };
        let entries = entries::by_name(&self.readers, &row.entry_names()?).await?;
        Ok(row.into_decided(&entries)?.verdict.ok())
    }
}

// Columns by name: a prepared `*` fails when a newer server's migration has added one.
// One statement for the clock and the look-up. The join from the list of keys to the table by
// its primary key stays a look-up by index however the table grows.
const FOUND_POSTGRES: &str = "\
    SELECT r.* FROM UNNEST($1::text[], $2::text[]) AS key(caller, request_id) \
        JOIN requests r ON r.caller = key.caller COLLATE \"C\" \
        AND r.request_id = key.request_id COLLATE \"C\"";

const FOUND_SQLITE: &str = "\
    SELECT r.* FROM json_each(?) key \
        JOIN requests r ON r.caller = key.value->>0 AND r.request_id = key.value->>1";

fn decided_sql(backend: DbBackend) -> String {
    let clock = clock(backend);
    let found = if backend == DbBackend::Sqlite { FOUND_SQLITE } else { FOUND_POSTGRES };
    format!(
        "SELECT clock.now_us, r.caller, r.request_id, r.fingerprint, r.transaction_id, r.kind, \
             r.rejection, r.description, r.labels, r.entry_names, r.create_time_us \
         FROM (SELECT {clock} AS now_us) clock LEFT JOIN ({found}) r ON true"
    )
}

/// The database's clock, as an expression in microseconds since the Unix epoch.
pub fn clock(backend: DbBackend) -> &'static str {
    match backend {
        DbBackend::Sqlite => "CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000",
        _ => "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)",
    }
}

/// The database's clock, and the verdicts stored under these keys.
pub async fn decided(
    transaction: &DatabaseTransaction,
    keys: &BTreeSet<RequestKey>,
) -> Result<(i64, HashMap<RequestKey, Decided>), StorageError> {
    let backend = transaction.get_database_backend();
    let callers = || keys.iter().map(|key| key.caller.to_string());
    let request_ids = || keys.iter().map(|key| key.request_id.to_string());
    let statement = match backend {
        DbBackend::Sqlite => {
            let keys: Vec<_> = callers().zip(request_ids()).collect();
            let keys = serde_json::json!(keys).to_string();
            Statement::from_sql_and_values(backend, decided_sql(backend), [keys.into()])
        }
        _ => {
            let callers: Vec<String> = callers().collect();
            let request_ids: Vec<String> = request_ids().collect();
            let values = [callers.into(), request_ids.into()];
            Statement::from_sql_and_values(backend, decided_sql(backend), values)
        }
    };
    let rows = transaction.query_all_raw(statement).await?;
    let now_us = match rows.first() {
        Some(row) => row.try_get("", "now_us")?,
        None => return Err(StorageError::Corrupt("the clock did not answer".to_owned())),
    };
    let models =
        rows.iter().filter_map(|row| found(row).transpose()).collect::<Result<Vec<_>, _>>()?;
    let mut names = Vec::new();
    for model in &models {
        names.extend(model.entry_names()?);
    }
    let entries = entries::by_name(transaction, &names).await?;
    let mut decided = HashMap::with_capacity(models.len());
    for model in models {
        let key = RequestKey {
            caller: model.caller.as_str().into(),
            request_id: RequestId::from_stored(&model.request_id),
        };
        decided.insert(key, model.into_decided(&entries)?);
    }
    Ok((now_us, decided))
}

/// The row of a request; None where the outer join found none.
fn found(row: &QueryResult) -> Result<Option<Model>, StorageError> {
    let request_id: Option<String> = row.try_get("", "request_id")?;
    match request_id {
        Some(_) => Ok(Some(Model::from_query_result(row, "")?)),
        None => Ok(None),
    }
}
