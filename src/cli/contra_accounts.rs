//! The contra accounts of a server, and the accounts of its ledger.

use passbook_command::CliError;

use crate::{
    domain::{account::AccountState, balancing::ContraAccounts},
    storage::Store,
};

/// Checks that the contra accounts take money in and out: they exist in their currencies, are open, and
/// may be overdrawn without a limit. With others, the server would reject deposits or withdrawals.
///
/// # Errors
/// One does not. The message says how to open it.
pub async fn check(store: &Store, accounts: &ContraAccounts) -> Result<(), CliError> {
    for (code, account_id) in &accounts.0 {
        let found = store.account(account_id, i64::MIN).await.map_err(CliError::run)?.value;
        let wrong = match &found {
            None => "does not exist",
            Some(account) if account.currency.code() != code => "has another currency",
            Some(account) if account.state != AccountState::Open => "is not open",
            Some(account) if !account.unlimited_overdraft => "has no unlimited overdraft",
            Some(_) => continue,
        };
        return Err(CliError::Usage(format!(
            "contra_account {code}={account_id}: the account {wrong}. Start the server without this \
             setting and open the account: passbook account open {account_id} --currency {code} \
             --unlimited-overdraft"
        )));
    }
    Ok(())
}
