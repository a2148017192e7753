//! What accounts were when they were opened: what they were before the first change.

use std::collections::{BTreeMap, HashMap};

use sea_orm::{ConnectionTrait, DatabaseTransaction, FromQueryResult, Value};

use crate::{
    domain::{
        account::{Account, Attributes},
        ids::AccountId,
    },
    storage::{StorageError, dialect::DatabaseKind, entity::account_changes::Model},
};

// Columns by name: a prepared `*` fails when a newer server's migration has added one.
/// One search by key an account, however many changes it has.
const POSTGRES: &str = "\
    SELECT opening.account_id, opening.version, opening.kind, opening.reason, opening.caller, \
        opening.attributes_before, opening.attributes_after, opening.create_time_us \
    FROM unnest($1::text[]) AS wanted (account_id) CROSS JOIN LATERAL \
        (SELECT * FROM account_changes c WHERE c.account_id = wanted.account_id \
         ORDER BY c.version LIMIT 1) AS opening";
const SQLITE: &str = "\
    SELECT opening.account_id, opening.version, opening.kind, opening.reason, opening.caller, \
        opening.attributes_before, opening.attributes_after, opening.create_time_us \
    FROM json_each(?) AS wanted CROSS JOIN account_changes AS opening \
    WHERE opening.account_id = wanted.value AND opening.version = \
        (SELECT min(c.version) FROM account_changes c WHERE c.account_id = wanted.value)";

/// Of these accounts, those whose attributes have changed, with what these were when they were opened.
pub async fn openings(
    transaction: &DatabaseTransaction,
    accounts: impl Iterator<Item = &Account>,
) -> Result<HashMap<AccountId, Attributes>, StorageError> {
    let accounts: BTreeMap<&str, &Account> =
        accounts.map(|account| (account.account_id.as_str(), account)).collect();
    if accounts.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<String> = accounts.keys().map(|id| (*id).to_owned()).collect();
    let (sql, ids): (_, Value) = match DatabaseKind::of(transaction) {
        DatabaseKind::Sqlite => (SQLITE, serde_json::json!(ids).to_string().into()),
        DatabaseKind::Postgres => (POSTGRES, ids.into()),
    };
    let statement = DatabaseKind::of(transaction).statement(sql, [ids]);
    let mut openings = HashMap::new();
    for row in transaction.query_all_raw(statement).await? {
        let row = Model::from_query_result(&row, "")?;
        // The statement names no others.
        let Some(account) = accounts.get(row.account_id.as_str()) else { continue };
        let change = row.into_change(&account.currency)?;
        openings.insert(change.account_id, change.before);
    }
    Ok(openings)
}
