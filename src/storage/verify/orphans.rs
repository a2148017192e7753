//! The search for an entry that no request names, once the counts say that there is one; and for
//! requests that share the id of their transaction.

use sea_orm::{ConnectionTrait, DatabaseTransaction};
use uuid::Uuid;

use crate::{
    domain::{ids::AccountId, verification::LedgerFault},
    storage::{
        dialect::DatabaseKind,
        entity::requests::{EntryKey, parse_entry_keys},
        verify::{error::VerifyError, rows::unknown_account},
    },
};

/// Rows in one page.
const PAGE: usize = 10_000;

/// The first entry that its transaction's request does not name; else the first transaction id of
/// two requests.
pub async fn first(connection: &DatabaseTransaction) -> Result<LedgerFault, VerifyError> {
    let kind = DatabaseKind::of(connection);
    let page = format!(
        "SELECT e.account_key, e.sequence, e.transaction_id, r.entry_keys, a.account_id \
             FROM entries e \
             LEFT JOIN requests r ON r.transaction_id = e.transaction_id AND r.rejection IS NULL \
             LEFT JOIN accounts a ON a.account_key = e.account_key \
             WHERE (e.account_key, e.sequence) > ($1, $2) \
             ORDER BY e.account_key, e.sequence LIMIT {PAGE}"
    );
    let mut after: EntryKey = (i64::MIN, i64::MIN);
    loop {
        let values = [after.0.into(), after.1.into()];
        let statement = kind.statement(page.as_str(), values);
        let rows = connection.query_all_raw(statement).await?;
        for row in &rows {
            after = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            let transaction_id: Uuid = row.try_get_by_index(2)?;
            let keys: Option<String> = row.try_get_by_index(3)?;
            let description = match keys {
                None => format!(
                    "it belongs to transaction {transaction_id}, but no applied request has that \
                     id"
                ),
                Some(keys) if !has(&keys, &after) => {
                    format!(
                        "it belongs to transaction {transaction_id}, whose request does not name it"
                    )
                }
                Some(_) => continue,
            };
            let account_id: Option<String> = row.try_get_by_index(4)?;
            let account_id = account_id.map(|id| AccountId::from_stored(&id));
            let account_id = account_id.unwrap_or_else(|| unknown_account(after.0));
            return Ok(LedgerFault::Entry { account_id, sequence: after.1, description });
        }
        if rows.len() < PAGE {
            let transaction_id = shared_transaction_id(connection).await?.unwrap_or_default();
            let description = "two requests have this id and name the same entries".to_owned();
            return Ok(LedgerFault::Transaction { transaction_id, description });
        }
    }
}

/// Verifies that no two requests have the same transaction: the amounts of two transfers with one id
/// could make up for each other. The unique index keeps such requests out, so they are searched only if
/// it is gone.
pub async fn verify_transaction_ids(connection: &DatabaseTransaction) -> Result<(), VerifyError> {
    let kind = DatabaseKind::of(connection);
    let index = match kind {
        DatabaseKind::Sqlite => {
            "SELECT 1 FROM pragma_index_list('requests') \
                WHERE name = 'requests_transaction_id' AND \"unique\" = 1"
        }
        DatabaseKind::Postgres => {
            "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('requests_transaction_id') \
                AND indisunique AND indisvalid"
        }
    };
    if connection.query_one_raw(kind.statement(index, [])).await?.is_some() {
        return Ok(());
    }
    match shared_transaction_id(connection).await? {
        None => Ok(()),
        Some(transaction_id) => {
            let description = "two requests have this id".to_owned();
            Err(LedgerFault::Transaction { transaction_id, description }.into())
        }
    }
}

/// The first transaction id of two requests.
async fn shared_transaction_id(
    connection: &DatabaseTransaction,
) -> Result<Option<Uuid>, VerifyError> {
    let kind = DatabaseKind::of(connection);
    let sql = "SELECT transaction_id FROM requests GROUP BY transaction_id \
        HAVING count(*) > 1 ORDER BY transaction_id LIMIT 1";
    let row = connection.query_one_raw(kind.statement(sql, [])).await?;
    Ok(row.map(|row| row.try_get_by_index(0)).transpose()?)
}

fn has(keys: &str, key: &EntryKey) -> bool {
    parse_entry_keys(keys).unwrap_or_default().contains(key)
}
