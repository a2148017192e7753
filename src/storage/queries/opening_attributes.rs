//! The first changes of accounts. Before the very first one, an account has the attributes of its
//! opening.

use std::collections::{BTreeMap, BTreeSet, HashMap};

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
/// The first change of each account after a version. One search by key an account, however many changes
/// it has.
pub static FIRST_CHANGES: Sql = Sql::new(|kind| {
    let columns = ACCOUNT_CHANGES.column_list("change.");
    let from = match kind {
        DatabaseKind::Sqlite => {
            "json_each(?) AS wanted CROSS JOIN account_changes AS change \
             WHERE change.account_id = wanted.value->>0 AND change.version = \
                 (SELECT min(c.version) FROM account_changes c \
                  WHERE c.account_id = wanted.value->>0 AND c.version > wanted.value->>1)"
        }
        DatabaseKind::Postgres => {
            "unnest($1::text[], $2::bigint[]) AS wanted (account_id, version) CROSS JOIN LATERAL \
                 (SELECT * FROM account_changes c \
                  WHERE c.account_id = wanted.account_id AND c.version > wanted.version \
                  ORDER BY c.version LIMIT 1) AS change"
        }
    };
    format!("SELECT {columns} FROM {from}")
});

impl WriteTransaction {
    /// Those of these locked accounts whose attributes have changed after this version, each with the
    /// version of such a change. An account can be there with several versions: it has the change after
    /// the highest of these that has one.
    pub async fn changed_after(
        &self,
        accounts: &BTreeSet<(AccountId, i64)>,
    ) -> Result<HashMap<AccountId, i64>, StorageError> {
        let accounts = accounts.iter().map(|(id, version)| (id.to_string(), *version)).collect();
        let mut changed = HashMap::new();
        for row in first_changes(&self.transaction, accounts).await? {
            let version = changed.entry(AccountId::from_stored(&row.account_id)).or_insert(0);
            *version = row.version.max(*version);
        }
        Ok(changed)
    }

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
    let first = accounts.keys().map(|account_id| ((*account_id).to_owned(), 0)).collect();
    let mut openings = HashMap::new();
    for row in first_changes(connection, first).await? {
        // The statement selects no others.
        let Some(account) = accounts.get(row.account_id.as_str()) else { continue };
        let change = row.into_change(&account.currency)?;
        openings.insert(change.account_id, change.before);
    }
    Ok(openings)
}

/// The first change of each of these accounts after this version, if there is one.
async fn first_changes(
    connection: &impl ConnectionTrait,
    accounts: Vec<(String, i64)>,
) -> Result<Vec<Model>, StorageError> {
    if accounts.is_empty() {
        return Ok(Vec::new());
    }
    let kind = DatabaseKind::of(connection);
    let statement = FIRST_CHANGES.statement(kind, kind.pairs(accounts.into_iter()));
    let rows = connection.query_all_raw(statement).await?;
    rows.iter().map(|row| Ok(Model::from_query_result(row, "")?)).collect()
}
