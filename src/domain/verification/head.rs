//! Heads: where the chain of each account's entries ended at some time. A later ledger must continue
//! from there.

use serde::{Deserialize, Serialize};

use crate::domain::{
    account::Account,
    hex::to_hex,
    ids::AccountId,
    verification::{Fault, FaultKind},
};

/// Where the chain of an account's entries ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The account.
    pub account_id: AccountId,
    /// The number of entries.
    pub sequence: i64,
    /// The hash of the last entry, in lower-case hexadecimal; zeros if there is none.
    pub hash: String,
    /// The balance in its shortest form.
    pub balance: String,
    /// The currency of the balance.
    pub currency_code: String,
}

/// What the ledger has today for a head.
#[derive(Clone, Debug)]
pub struct AccountToday {
    /// The number of entries of the account.
    pub sequence: i64,
    /// The hash of the entry with the head's sequence, in lower-case hexadecimal; None if there is no
    /// such entry.
    pub hash: Option<String>,
}

impl Head {
    /// The head of an account as it is.
    #[must_use]
    pub fn of(account: &Account) -> Self {
        Self {
            account_id: account.account_id.clone(),
            sequence: account.sequence,
            hash: to_hex(&account.last_hash),
            balance: account.balance.shortest().to_string(),
            currency_code: account.currency.code().to_owned(),
        }
    }

    /// Checks that the account continues from this head.
    ///
    /// # Errors
    /// The account or the entry is missing, or the entry has another hash.
    pub fn check(&self, today: Option<&AccountToday>) -> Result<(), Fault> {
        let Self { sequence, hash, .. } = self;
        let Some(today) = today else {
            let description = format!("it is missing; its signed head has the sequence {sequence}");
            return Err(self.fault(0, FaultKind::MissingEntry, description));
        };
        let missing = |number, why| self.fault(number, FaultKind::MissingEntry, why);
        if today.sequence < *sequence {
            let description = format!(
                "it is missing: the account's sequence is {}; its signed head has {sequence}",
                today.sequence
            );
            return Err(missing(today.sequence + 1, description));
        }
        match &today.hash {
            _ if *sequence == 0 => Ok(()),
            None => {
                Err(missing(*sequence, "it is missing; the signed head ends with it".to_owned()))
            }
            Some(found) if found == hash => Ok(()),
            Some(found) => {
                let description = format!(
                    "its hash is {found}; the signed head has {hash}: this entry or one before it \
                     was rewritten"
                );
                Err(self.fault(*sequence, FaultKind::WrongHash, description))
            }
        }
    }

    fn fault(&self, sequence: i64, kind: FaultKind, description: String) -> Fault {
        Fault { account_id: self.account_id.clone(), sequence, kind, description }
    }
}
