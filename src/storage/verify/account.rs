//! Verification of one account, for VerifyAccount, while servers go on changing it.

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

impl Store {
    /// Verifies one account as of the read of its row; None if there is no such account.
    pub async fn verify_account(
        &self,
        account_id: &AccountId,
    ) -> Result<Option<VerifiedAccount>, StorageError> {
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
        let claim = match rows::stored_account(&row) {
            Ok(claim) => claim,
            Err(fault) => {
                return Ok(Some(VerifiedAccount { entries_verified: 0, fault: Some(fault) }));
            }
        };
        let surplus = row.try_get("", "surplus").unwrap_or_default();
        let mut verification = AccountVerifier::new(claim);
        let verified = self.verify_entries(&mut verification, surplus).await?;
        let (entries_verified, fault) = (verification.sequence(), verified.err());
        Ok(Some(VerifiedAccount { entries_verified, fault }))
    }

    /// Entries never change: their pages need no snapshot.
    async fn verify_entries(
        &self,
        verification: &mut AccountVerifier,
        surplus: Option<i64>,
    ) -> Result<Result<(), Fault>, StorageError> {
        let from = format!(
            "FROM entries WHERE account_key = $1 AND sequence > $2 \
                    AND sequence <= $3 ORDER BY sequence LIMIT {PAGE}"
        );
        let columns = entry_columns(self.kind());
        let claim = verification.claim().clone();
        let sequence = claim.sequence;
        // From below the first entry, where there should be none.
        let mut after = i64::MIN;
        loop {
            let values = [claim.account_key.into(), after.into(), sequence.into()];
            let page = read_packed(&self.readers, &columns, &from, values).await?;
            for line in page.rows()?.map(EntryLine::new) {
                let number = line.sequence;
                let verified = match line.entry(&claim.account_id, &claim.currency) {
                    Ok(entry) => verification.push(&entry),
                    Err(column) => Err(verification.unreadable(number, column)),
                };
                if verified.is_err() {
                    return Ok(verified);
                }
            }
            after = verification.sequence();
            if page.count < PAGE {
                break;
            }
        }
        let all = verification.require_through(sequence);
        let none_beyond = surplus.map_or(Ok(()), |it| Err(verification.surplus(it)));
        Ok(all.and(none_beyond).and_then(|()| verification.finish()))
    }
}
