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
/// One does not. The message names the command that helps.
pub async fn check(store: &Store, accounts: &ContraAccounts) -> Result<(), CliError> {
    for (code, account_id) in &accounts.0 {
        let found = store.account(account_id, i64::MIN).await.map_err(CliError::run)?.value;
        let (wrong, command) = match &found {
            None => (
                "does not exist",
                format!("account open {account_id} --currency {code} --unlimited-overdraft"),
            ),
            Some(account) if account.currency.code() != code => (
                "has another currency",
                format!("account open ANOTHER_ID --currency {code} --unlimited-overdraft"),
            ),
            Some(account) if account.state == AccountState::Closed => (
                "is closed",
                format!("account open ANOTHER_ID --currency {code} --unlimited-overdraft"),
            ),
            Some(account) if account.state == AccountState::Frozen => {
                ("is frozen", format!("account unfreeze {account_id}"))
            }
            Some(account) if !account.unlimited_overdraft => (
                "has no unlimited overdraft",
                format!("account update {account_id} --unlimited-overdraft true"),
            ),
            Some(_) => continue,
        };
        return Err(CliError::Usage(format!(
            "contra_account {code}={account_id}: the account {wrong}. Start the server without this \
             setting, and then: passbook {command}"
        )));
    }
    Ok(())
}
