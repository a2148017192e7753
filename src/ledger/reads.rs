//! The reads beside the write path: no lock, no transaction, nothing that a dropped future could
//! leak. What their caller may not see is refused before it is looked up, or, where only its name
//! is known, in the same words whether or not it exists.
//!
//! What a read says of a time that has passed stays true: where a change that was made by then may
//! still be under way, the read waits for it (`storage::settled`). No read waits for a lock.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use tokio::time::Instant;

use crate::{
    domain::{
        access::{Caller, Denied},
        account::{Account, AccountChange},
        book::Decided,
        hold::Hold,
        ids::{AccountId, HoldId, RequestKey, TransactionId},
        money::Amount,
        rejection::{Rejection, TransactionName},
        transaction::{Entry, Transaction},
    },
    ledger::{Failure, Ledger, Watcher},
    storage::{
        AccountFilter, EntryRange, HoldFilter, Lapsing, StorageError, TransactionFilter,
        TransactionPage, VerifiedAccount,
    },
};

impl Ledger {
    /// One account.
    ///
    /// # Errors
    /// It is not theirs to see, does not exist, or the database does not answer in time.
    pub async fn account(
        &self,
        caller: &Caller,
        account_id: &AccountId,
        deadline: Instant,
    ) -> Result<Account, Failure> {
        caller.grant.check_account(account_id)?;
        let found =
            self.with_lapsed(deadline, |until_us| self.store.account(account_id, until_us)).await?;
        found.ok_or_else(|| not_found(account_id))
    }

    /// The same for those who do not ask what is held, in which no hold has expired that is not
    /// recorded so.
    async fn known(&self, account_id: &AccountId, deadline: Instant) -> Result<Account, Failure> {
        let found = read(deadline, self.store.account(account_id, i64::MIN)).await?.value;
        found.ok_or_else(|| not_found(account_id))
    }

    /// The account, with all entries that it will ever have of this time or before.
    async fn settled(
        &self,
        account_id: &AccountId,
        time_us: Option<i64>,
        deadline: Instant,
    ) -> Result<Account, Failure> {
        let account = self.known(account_id, deadline).await?;
        match time_us {
            // Its times never go back.
            Some(time_us) if time_us >= account.update_time_us => {
                read(deadline, self.store.settle(time_us)).await?;
                self.known(account_id, deadline).await
            }
            _ => Ok(account),
        }
    }

    /// Reads what depends on holds, some of which may have expired without that anybody has
    /// recorded it. Whoever is told that a hold has expired must never see it captured: so a
    /// capture that was judged in time, and may be under way, is waited for.
    async fn with_lapsed<T, Query>(
        &self,
        deadline: Instant,
        query: impl Fn(i64) -> Query,
    ) -> Result<T, Failure>
    where
        Query: Future<Output = Result<Lapsing<T>, StorageError>>,
    {
        let Lapsing { value, lapsed_us } = read(deadline, query(i64::MAX)).await?;
        let Some(lapsed_us) = lapsed_us else { return Ok(value) };
        read(deadline, self.store.settle(lapsed_us)).await?;
        Ok(read(deadline, query(lapsed_us)).await?.value)
    }

    /// Several accounts as of one instant, in the order asked for.
    ///
    /// # Errors
    /// One is not theirs to see, one does not exist, or the database does not answer in time.
    pub async fn accounts(
        &self,
        caller: &Caller,
        account_ids: &[AccountId],
        deadline: Instant,
    ) -> Result<Vec<Account>, Failure> {
        account_ids.iter().try_for_each(|id| caller.grant.check_account(id))?;
        let wanted: BTreeSet<_> = account_ids.iter().cloned().collect();
        let found =
            self.with_lapsed(deadline, |until_us| self.store.accounts(&wanted, until_us)).await?;
        let mut found: HashMap<_, _> =
            found.into_iter().map(|account| (account.account_id.clone(), account)).collect();
        let take = |id| found.remove(id).ok_or_else(|| not_found(id));
        account_ids.iter().map(take).collect()
    }

    /// A page of accounts, in order of their ids.
    ///
    /// # Errors
    /// The database does not answer in time.
    pub async fn list_accounts(
        &self,
        caller: &Caller,
        filter: &AccountFilter,
        after: Option<&AccountId>,
        limit: u64,
        deadline: Instant,
    ) -> Result<Vec<Account>, Failure> {
        let prefixes = &caller.grant.account_prefixes;
        let page = |until_us| self.store.list_accounts(filter, prefixes, after, limit, until_us);
        self.with_lapsed(deadline, page).await
    }

    /// One transaction.
    ///
    /// # Errors
    /// It is not theirs to see, does not exist, or the database does not answer in time.
    pub async fn transaction(
        &self,
        caller: &Caller,
        name: TransactionName,
        deadline: Instant,
    ) -> Result<Arc<Transaction>, Failure> {
        let found = match &name {
            TransactionName::TransactionId(id) => self.transaction_if_any(*id, deadline).await?,
            TransactionName::RequestId(request_id) => {
                let caller = caller.identity.clone();
                let key = RequestKey { caller, request_id: request_id.clone() };
                read(deadline, self.store.transaction_of_request(&key)).await?
            }
        };
        let found = caller.grant.visible(found)?;
        found.ok_or(Failure::Rejected(Rejection::TransactionNotFound(name)))
    }

    /// A page of an account's entries.
    ///
    /// # Errors
    /// It is not theirs to see, does not exist, or the database does not answer in time.
    pub async fn list_entries(
        &self,
        caller: &Caller,
        account_id: &AccountId,
        range: &EntryRange,
        limit: u64,
        deadline: Instant,
    ) -> Result<Vec<Entry>, Failure> {
        caller.grant.check_account(account_id)?;
        let account = self.settled(account_id, last_us(range.end_time_us), deadline).await?;
        read(deadline, self.store.list_entries(&account, range, limit)).await
    }

    /// The transaction of this id, if there is one.
    pub(super) async fn transaction_if_any(
        &self,
        transaction_id: TransactionId,
        deadline: Instant,
    ) -> Result<Option<Arc<Transaction>>, Failure> {
        read(deadline, self.store.transaction(transaction_id)).await
    }

    /// A page of the transactions of all accounts, latest first.
    ///
    /// # Errors
    /// The database does not answer in time.
    pub async fn list_transactions(
        &self,
        caller: &Caller,
        filter: &TransactionFilter,
        before: Option<TransactionId>,
        limit: u64,
        deadline: Instant,
    ) -> Result<TransactionPage<TransactionId>, Failure> {
        caller.grant.check_every_account()?;
        if let Some(time_us) = last_us(filter.end_time_us) {
            read(deadline, self.store.settle(time_us)).await?;
        }
        read(deadline, self.store.list_transactions(filter, before, limit)).await
    }

    /// A page of the transactions of one account, latest first.
    ///
    /// # Errors
    /// It is not theirs to see, does not exist, or the database does not answer in time.
    pub async fn list_transactions_of_account(
        &self,
        caller: &Caller,
        account_id: &AccountId,
        filter: &TransactionFilter,
        before: Option<i64>,
        limit: u64,
        deadline: Instant,
    ) -> Result<TransactionPage<i64>, Failure> {
        caller.grant.check_account(account_id)?;
        let account = self.settled(account_id, last_us(filter.end_time_us), deadline).await?;
        let store = &self.store;
        let page = store.list_transactions_of_account(&account, filter, before, limit);
        let TransactionPage { transactions, next } = read(deadline, page).await?;
        let seen = transactions.into_iter().map(|it| caller.grant.visible(Some(it)));
        let transactions = seen.filter_map(Result::transpose).collect::<Result<_, Denied>>()?;
        Ok(TransactionPage { transactions, next })
    }

    /// The balance of an account after all entries made at this time or before (None: now), and
    /// the sequence of the last of them.
    ///
    /// # Errors
    /// It is not theirs to see, does not exist, or the database does not answer in time.
    pub async fn balance_at(
        &self,
        caller: &Caller,
        account_id: &AccountId,
        time_us: Option<i64>,
        deadline: Instant,
    ) -> Result<(Account, Amount, i64), Failure> {
        caller.grant.check_account(account_id)?;
        let account = self.settled(account_id, time_us, deadline).await?;
        let (balance, sequence) = read(deadline, self.store.balance_at(&account, time_us)).await?;
        Ok((account, balance, sequence))
    }

    /// A page of the changes of an account, oldest first.
    ///
    /// # Errors
    /// It is not theirs to see, does not exist, or the database does not answer in time.
    pub async fn list_account_changes(
        &self,
        caller: &Caller,
        account_id: &AccountId,
        after_version: i64,
        limit: u64,
        deadline: Instant,
    ) -> Result<Vec<AccountChange>, Failure> {
        caller.grant.check_account(account_id)?;
        let account = self.known(account_id, deadline).await?;
        read(deadline, self.store.list_account_changes(&account, after_version, limit)).await
    }

    /// The entries of an account from the one after this on, and all that will come.
    ///
    /// # Errors
    /// The account does not exist or has not come so far, too many watch already, or the database
    /// does not answer in time.
    pub async fn watch(
        &self,
        caller: &Caller,
        account_id: &AccountId,
        after_sequence: i64,
        deadline: Instant,
    ) -> Result<Watcher, Failure> {
        caller.grant.check_account(account_id)?;
        let place = self.hub.place()?;
        let account = self.known(account_id, deadline).await?;
        if after_sequence > account.sequence {
            return Err(Failure::SequenceNotReached { sequence: account.sequence });
        }
        Ok(self.hub.watch(account, after_sequence, place))
    }

    /// Recomputes an account from its entries and holds.
    ///
    /// # Errors
    /// It is not theirs to see, does not exist, or the database does not answer in time.
    pub async fn verify_account(
        &self,
        caller: &Caller,
        account_id: &AccountId,
        deadline: Instant,
    ) -> Result<VerifiedAccount, Failure> {
        caller.grant.check_account(account_id)?;
        let verified = read(deadline, self.store.verify_account(account_id)).await?;
        verified.ok_or_else(|| not_found(account_id))
    }

    /// One hold.
    ///
    /// # Errors
    /// It is not theirs to see, does not exist, or the database does not answer in time.
    pub async fn hold(
        &self,
        caller: &Caller,
        hold_id: &HoldId,
        deadline: Instant,
    ) -> Result<Hold, Failure> {
        let missing = || Failure::Rejected(Rejection::HoldNotFound { hold_id: hold_id.clone() });
        let found =
            self.with_lapsed(deadline, |until_us| self.store.hold(hold_id, until_us)).await?;
        let account_id = found.as_ref().map(|it| std::slice::from_ref(&it.account_id));
        caller.grant.check_named("hold", account_id)?;
        found.ok_or_else(missing)
    }

    /// The hold of this id, if there is one, for those who do not ask whether it is open.
    pub(super) async fn hold_if_any(
        &self,
        hold_id: &HoldId,
        deadline: Instant,
    ) -> Result<Option<Hold>, Failure> {
        Ok(read(deadline, self.store.hold(hold_id, i64::MIN)).await?.value)
    }

    /// A page of an account's holds, in order of their ids.
    ///
    /// # Errors
    /// It is not theirs to see, does not exist, or the database does not answer in time.
    pub async fn list_holds(
        &self,
        caller: &Caller,
        account_id: &AccountId,
        filter: &HoldFilter,
        limit: u64,
        deadline: Instant,
    ) -> Result<Vec<Hold>, Failure> {
        caller.grant.check_account(account_id)?;
        let account = self.known(account_id, deadline).await?;
        let page = |until_us| self.store.list_holds(&account, filter, limit, until_us);
        self.with_lapsed(deadline, page).await
    }

    /// The verdict under a request id, if there is one.
    pub(super) async fn decided(
        &self,
        key: &RequestKey,
        deadline: Instant,
    ) -> Result<Option<Decided>, Failure> {
        read(deadline, self.store.decided(key)).await
    }
}

/// The last time that lies before this one.
fn last_us(end_time_us: Option<i64>) -> Option<i64> {
    end_time_us.map(|end_time_us| end_time_us.saturating_sub(1))
}

fn not_found(account_id: &AccountId) -> Failure {
    Failure::Rejected(Rejection::AccountNotFound { account_id: account_id.clone() })
}

/// A read, for as long as its caller waits.
async fn read<T>(
    deadline: Instant,
    query: impl Future<Output = Result<T, StorageError>>,
) -> Result<T, Failure> {
    match tokio::time::timeout_at(deadline, query).await {
        Ok(result) => result.map_err(Failure::of_read),
        Err(_) => Err(Failure::DeadlineExceeded(None)),
    }
}
