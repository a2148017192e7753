//! Verification of the attributes of every account against the changes in its history.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DatabaseTransaction};

use crate::{
    domain::{
        account::{Account, AccountChange, Attributes},
        ids::{AccountId, Identity},
        money::Currency,
        text::{are_stored_labels, is_stored_text},
        verification::{AttributesVerifier, LedgerFault},
    },
    storage::{
        StorageError,
        dialect::DatabaseKind,
        entity::{account_changes, accounts},
        tables::{ACCOUNT_CHANGES, ACCOUNTS},
        verify::{
            error::VerifyError,
            partitions::LAST,
            records::{decode, key, require},
        },
    },
};

/// Rows of `accounts` or `account_changes` in one page.
const PAGE: usize = 1000;

const NO_ACCOUNT: &str = "its account does not exist";

/// Verifies all accounts, and all rows of their history. Returns how many accounts have no attributes of
/// their opening.
pub async fn verify(connection: &DatabaseTransaction) -> Result<u64, VerifyError> {
    let kind = DatabaseKind::of(connection);
    let columns = ACCOUNTS.column_list("");
    let page = format!(
        "SELECT {columns} FROM accounts WHERE account_id > $1 ORDER BY account_id LIMIT {PAGE}"
    );
    let (mut after, mut unknown) = (String::new(), 0);
    loop {
        let statement = kind.statement(page.as_str(), [after.as_str().into()]);
        let rows = connection.query_all_raw(statement).await?;
        let mut accounts = BTreeMap::new();
        for row in &rows {
            let account_id: String = key(row, "account_id");
            let (account, opening) = decode(row, read_account)
                .map_err(|description| fault(&account_id, 0, description))?;
            unknown += u64::from(opening.is_none());
            accounts.insert(account_id, AttributesVerifier::new(account, opening));
        }
        let is_last = rows.len() < PAGE;
        // The last page reaches beyond the last account, where there should be no change.
        let last = accounts.keys().next_back().filter(|_| !is_last).cloned();
        let until = last.unwrap_or_else(|| LAST.to_owned());
        push_changes(connection, &after, &until, &mut accounts).await?;
        after = until;
        for account in accounts.into_values() {
            account.finish()?;
        }
        if is_last {
            return Ok(unknown);
        }
    }
}

/// Pushes the changes of the accounts above `after`, up to `until`.
async fn push_changes(
    connection: &DatabaseTransaction,
    after: &str,
    until: &str,
    accounts: &mut BTreeMap<String, AttributesVerifier>,
) -> Result<(), VerifyError> {
    let kind = DatabaseKind::of(connection);
    let columns = ACCOUNT_CHANGES.column_list("");
    let page = format!(
        "SELECT {columns} FROM account_changes \
         WHERE (account_id, version) > ($1, $2) AND account_id <= $3 \
         ORDER BY account_id, version LIMIT {PAGE}"
    );
    let mut after = (after.to_owned(), i64::MAX);
    loop {
        let values = [after.0.as_str().into(), after.1.into(), until.into()];
        let rows = connection.query_all_raw(kind.statement(page.as_str(), values)).await?;
        for row in &rows {
            after = (key(row, "account_id"), key(row, "version"));
            let (account_id, version) = &after;
            let Some(account) = accounts.get_mut(account_id) else {
                return Err(fault(account_id, *version, NO_ACCOUNT.to_owned()).into());
            };
            let currency = &account.account().currency;
            let change = decode(row, |row| read_change(row, currency))
                .map_err(|description| fault(account_id, *version, description))?;
            account.push(change)?;
        }
        if rows.len() < PAGE {
            return Ok(());
        }
    }
}

fn read_account(row: accounts::Model) -> Result<(Account, Option<Attributes>), StorageError> {
    let (account, opening) = row.into_account_and_opening()?;
    let of_opening = opening.as_ref().is_none_or(|it| are_stored_labels(&it.labels));
    let columns = [
        ("labels", are_stored_labels(&account.labels)),
        ("caller", Identity::is_stored(account.created_by.as_str())),
        ("opening_attributes", of_opening),
    ];
    require(format_args!("account {}", account.account_id), &columns)?;
    Ok((account, opening))
}

fn read_change(
    row: account_changes::Model,
    currency: &Currency,
) -> Result<AccountChange, StorageError> {
    let change = row.into_change(currency)?;
    let columns = [
        ("reason", is_stored_text(&change.reason)),
        ("caller", Identity::is_stored(change.created_by.as_str())),
        ("attributes_before", are_stored_labels(&change.before.labels)),
        ("attributes_after", are_stored_labels(&change.after.labels)),
    ];
    let (version, account_id) = (change.version, &change.account_id);
    require(format_args!("change {version} of account {account_id}"), &columns)?;
    Ok(change)
}

fn fault(account_id: &str, version: i64, description: String) -> LedgerFault {
    LedgerFault::Attributes { account_id: AccountId::from_stored(account_id), version, description }
}
