//! The attributes of accounts at their opening: those before the first change.

use std::collections::{BTreeMap, HashMap};

use sea_orm::{ConnectionTrait, FromQueryResult};

use crate::{
    domain::{
        account::{Account, Attributes},
        ids::AccountId,
    },
    storage::{
        StorageError,
        dialect::{DatabaseKind, Sql},
        entity::account_changes::Model,
        tables::ACCOUNT_CHANGES,
        write::transaction::WriteTransaction,
    },
};

// Columns by name: a prepared `*` fails when a newer server's migration has added one.
/// One search by key an account, however many changes it has.
pub static OPENINGS: Sql = Sql::new(|kind| {
    let columns = ACCOUNT_CHANGES.column_list("opening.");
    let from = match kind {
        DatabaseKind::Sqlite => {
            "json_each(?) AS wanted CROSS JOIN account_changes AS opening \
             WHERE opening.account_id = wanted.value AND opening.version = \
                 (SELECT min(c.version) FROM account_changes c WHERE c.account_id = wanted.value)"
        }
        DatabaseKind::Postgres => {
            "unnest($1::text[]) AS wanted (account_id) CROSS JOIN LATERAL \
                 (SELECT * FROM account_changes c WHERE c.account_id = wanted.account_id \
                  ORDER BY c.version LIMIT 1) AS opening"
        }
    };
    format!("SELECT {columns} FROM {from}")
});

impl WriteTransaction {
    /// The same for accounts that are locked.
    pub async fn opening_attributes(
        &self,
        accounts: impl Iterator<Item = &Account>,
    ) -> Result<HashMap<AccountId, Attributes>, StorageError> {
        opening_attributes(&self.transaction, accounts).await
    }
}

/// The accounts among these whose attributes have changed, with their attributes before the first
/// change.
pub async fn opening_attributes(
    connection: &impl ConnectionTrait,
    accounts: impl Iterator<Item = &Account>,
) -> Result<HashMap<AccountId, Attributes>, StorageError> {
    let accounts: BTreeMap<&str, &Account> =
        accounts.map(|account| (account.account_id.as_str(), account)).collect();
    if accounts.is_empty() {
        return Ok(HashMap::new());
    }
    let kind = DatabaseKind::of(connection);
    let ids = kind.texts(accounts.keys().map(|id| (*id).to_owned()));
    let statement = OPENINGS.statement(kind, [ids]);
    let mut openings = HashMap::new();
    for row in connection.query_all_raw(statement).await? {
        let row = Model::from_query_result(&row, "")?;
        // The statement selects no others.
        let Some(account) = accounts.get(row.account_id.as_str()) else { continue };
        let change = row.into_change(&account.currency)?;
        openings.insert(change.account_id, change.before);
    }
    Ok(openings)
}
