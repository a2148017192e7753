//! What may be asked of the ledger.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::domain::{
    account::{Labels, NewAccount},
    ids::{AccountId, RequestKey, TransactionId},
    money::{Amount, Currency},
    transaction::TransactionKind,
};

/// A change that goes through the write path.
#[derive(Clone, Debug)]
pub enum Command {
    /// Open an account.
    CreateAccount(NewAccount),
    /// Change balances.
    Post(Arc<Posting>),
}

/// A change of balances: all of its legs or none.
#[derive(Clone, Debug)]
pub struct Posting {
    /// Makes it exactly-once.
    pub key: RequestKey,
    /// The id that the transaction gets, if it is this very request that makes it. A stored
    /// request with this id was therefore decided by an earlier attempt at this request, and
    /// is not a replay to its caller.
    pub transaction_id: TransactionId,
    /// Which RPC.
    pub kind: TransactionKind,
    /// One or more; several may be of one account.
    pub legs: Vec<Leg>,
    /// Kept with the transaction.
    pub description: String,
    /// Kept with the transaction.
    pub labels: Labels,
    /// Judge it, keep nothing.
    pub validate_only: bool,
}

/// One change of one account.
#[derive(Clone, Debug)]
pub struct Leg {
    /// Whose balance.
    pub account_id: AccountId,
    /// Of the amount, and of those in the condition.
    pub currency: Currency,
    /// Signed, never zero.
    pub amount: Amount,
    /// What must hold of the account.
    pub condition: Condition,
}

/// What must hold of an account for a change to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The version before the change.
    pub expected_version: Option<i64>,
    /// The balance after all legs is at least this.
    pub min_balance_after: Option<Amount>,
    /// The balance after all legs is at most this.
    pub max_balance_after: Option<Amount>,
}

impl Command {
    /// The accounts whose rows must be locked.
    pub fn account_ids(&self) -> impl Iterator<Item = &AccountId> {
        let (new, legs) = match self {
            Self::CreateAccount(new) => (Some(&new.account_id), &[][..]),
            Self::Post(posting) => (None, &posting.legs[..]),
        };
        new.into_iter().chain(legs.iter().map(|leg| &leg.account_id))
    }

    /// Whether it touches one account only, with however many legs.
    #[must_use]
    pub fn has_one_account(&self) -> bool {
        let mut account_ids = self.account_ids();
        let first = account_ids.next();
        account_ids.all(|account_id| Some(account_id) == first)
    }

    /// How much of a database transaction it takes up: its changes of accounts.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::CreateAccount(_) => 1,
            Self::Post(posting) => posting.legs.len(),
        }
    }

    /// Whether its verdict is stored under a request id.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        match self {
            Self::CreateAccount(_) => false,
            Self::Post(posting) => !posting.validate_only,
        }
    }

    /// The request id to look up, where there is one.
    #[must_use]
    pub fn key(&self) -> Option<&RequestKey> {
        match self {
            Self::CreateAccount(_) => None,
            Self::Post(posting) => Some(&posting.key),
        }
    }
}

impl Posting {
    /// SHA-256 over the body of the request, to tell a retry from another request under the
    /// same id. Fields are length-prefixed and named, and those at their default are left
    /// out, so that a field added later does not change the fingerprints of old requests.
    /// `validate_only` is not part of it: a dry run and the real one are the same request.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut body = Fingerprint(Sha256::new());
        body.field("kind", self.kind.name());
        for leg in &self.legs {
            body.field("account_id", leg.account_id.as_str());
            body.field("currency_code", leg.currency.code());
            body.field("amount", &leg.amount.shortest().to_string());
            if let Some(version) = leg.condition.expected_version {
                body.field("expected_version", &version.to_string());
            }
            if let Some(amount) = leg.condition.min_balance_after {
                body.field("min_balance_after", &amount.shortest().to_string());
            }
            if let Some(amount) = leg.condition.max_balance_after {
                body.field("max_balance_after", &amount.shortest().to_string());
            }
        }
        if !self.description.is_empty() {
            body.field("description", &self.description);
        }
        for (key, value) in &self.labels {
            body.field("label", key);
            body.field("value", value);
        }
        body.0.finalize().into()
    }
}

struct Fingerprint(Sha256);

impl Fingerprint {
    fn field(&mut self, name: &str, value: &str) {
        for part in [name, value] {
            self.0.update((part.len() as u64).to_be_bytes());
            self.0.update(part.as_bytes());
        }
    }
}
