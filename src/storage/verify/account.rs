//! Verification of one account, for VerifyAccount, while servers go on changing it.
//!
//! The row of the account and the pages of its entries share no snapshot. They need none:
//!
//! - The row is read first, in one statement with the sums of its open holds and the search for entries
//!   that it does not count. What is verified is the account of that moment, up to its sequence.
//! - An entry is committed together with the row that counts it, so every later statement sees all entries
//!   up to that sequence. Entries never change.
//! - Entries that are written later have higher sequences, and no page reads these.
//!
//! So any time may pass between two pages, and others read meanwhile.

use std::ops::ControlFlow;

use sea_orm::ConnectionTrait;

use crate::{
    domain::{
        ids::AccountId,
        verification::{AccountVerifier, Fault, VerifiedAccount},
    },
    storage::{
        StorageError, Store,
        verify::rows::{self, EntryLine, account_columns, entry_columns, read_packed},
    },
};

/// Entries in one page: enough that round trips do not count, few enough that hashing them delays
/// no other call for more than about a millisecond.
const PAGE: usize = 1000;

/// An account of which the first pages of entries are verified.
pub struct AccountVerification {
    verifier: AccountVerifier,
    /// The first entry beyond the account's sequence, when its row was read.
    surplus: Option<i64>,
    /// The next page begins after this sequence.
    after: i64,
}

/// What is left to verify, or the result.
type Verified = ControlFlow<VerifiedAccount, AccountVerification>;

impl Store {
    /// Verifies one account as of the read of its row, up to the first page of its entries. None if
    /// there is no such account.
    pub async fn verify_account(
        &self,
        account_id: &AccountId,
    ) -> Result<Option<Verified>, StorageError> {
        let kind = self.kind();
        // The search for an entry beyond the sequence shares the row's snapshot: a later one might
        // see an entry that was committed in between, together with the row.
        let sql = format!(
            "SELECT {}, (SELECT min(e.sequence) FROM entries e \
                WHERE e.account_key = a.account_key AND e.sequence > a.sequence) AS surplus \
             FROM accounts a WHERE a.account_id = $1",
            account_columns(kind)
        );
        let statement = kind.statement(sql, [account_id.as_str().into()]);
        let Some(row) = self.readers.query_one_raw(statement).await? else { return Ok(None) };
        let stored = match rows::stored_account(&row) {
            Ok(stored) => stored,
            Err(fault) => {
                let verified = VerifiedAccount { entries_verified: 0, fault: Some(fault) };
                return Ok(Some(ControlFlow::Break(verified)));
            }
        };
        let surplus = row.try_get("", "surplus").unwrap_or_default();
        let verifier = AccountVerifier::new(stored);
        // From below the first entry, where there should be none.
        let verification = AccountVerification { verifier, surplus, after: i64::MIN };
        Ok(Some(self.verify_page(verification).await?))
    }

    /// Verifies the next page of entries, and after the last one that nothing is missing.
    pub async fn verify_page(
        &self,
        mut verification: AccountVerification,
    ) -> Result<Verified, StorageError> {
        let from = format!(
            "FROM entries WHERE account_key = $1 AND sequence > $2 \
                    AND sequence <= $3 ORDER BY sequence LIMIT {PAGE}"
        );
        let columns = entry_columns(self.kind());
        let stored = verification.verifier.stored().clone();
        let values = [stored.account_key.into(), verification.after.into(), stored.sequence.into()];
        let page = read_packed(&self.readers, &columns, &from, values).await?;
        let verifier = &mut verification.verifier;
        for line in page.rows()?.map(EntryLine::new) {
            let number = line.sequence;
            let verified = match line.entry(&stored.account_id, &stored.currency) {
                Ok(entry) => verifier.push(&entry),
                Err(column) => Err(verifier.unreadable(number, column)),
            };
            if let Err(fault) = verified {
                return Ok(verification.end(Some(fault)));
            }
        }
        if page.count == PAGE {
            verification.after = verification.verifier.sequence();
            return Ok(ControlFlow::Continue(verification));
        }
        let all = verifier.require_through(stored.sequence);
        let none_beyond = verification.surplus.map_or(Ok(()), |it| Err(verifier.surplus(it)));
        let fault = all.and(none_beyond).and_then(|()| verifier.finish()).err();
        Ok(verification.end(fault))
    }
}

impl AccountVerification {
    fn end(&self, fault: Option<Fault>) -> Verified {
        ControlFlow::Break(VerifiedAccount { entries_verified: self.verifier.sequence(), fault })
    }
}
