//! Queries: reads that take no lock and no transaction, and leak nothing when their future is
//! dropped. A read that the caller has no right to is denied before anything is looked up, or, where
//! the right depends on what is found, with the same error whether or not it exists.
//!
//! The reads of all callers share some connections, first come, first served. A read whose caller
//! has gone keeps its connection until the database has finished it, so abandoned reads cannot pile
//! up in the database. Each read examines a bounded number of rows, except for the expired holds of
//! an account that no change has recorded yet: it adds up all of these. If they are many, a read of the account
//! has them recorded (`expiry`), and counts as a scan until that is done.
//!
//! What a read says of a time in the past stays true: while a change with such a time may still be
//! uncommitted, the read waits for it (`storage::queries::settled_time`). No read waits for a lock of
//! another program.

use std::{
    collections::{BTreeSet, HashMap},
    ops::ControlFlow,
    sync::Arc,
};

use tokio::time::timeout_at;

use crate::{
    budget::Share,
    domain::{
        account::{Account, AccountChange, NewAccount},
        balance_sum::BalanceSum,
        command::Command,
        hold::Hold,
        ids::{AccountId, HoldId, RequestId, TransactionId},
        money::Amount,
        query::{AccountFilter, AccountRange, EntryRange, HoldFilter, TransactionFilter},
        rejection::{Rejection, TransactionName},
        transaction::{Entry, Transaction},
        unit_of_work::RequestRecord,
        verification::VerifiedAccount,
    },
    ledger::{CallContext, Error, EventStart, EventWatcher, Ledger, Watcher, reading::ReadKind},
    storage::{Examined, Store},
};

/// How many watchers of one account a watcher of all events counts for: it keeps events of all accounts,
/// of 64 KiB, or more if there is room.
const EVENT_WATCHER_SHARE: usize = 20;

/// # Errors
/// Every query fails if the caller lacks the right, if what it names does not exist, or if the database
/// does not answer before the deadline.
impl Ledger {
    /// Reads one account.
    pub async fn account(
        &self,
        context: &CallContext,
        account_id: &AccountId,
    ) -> Result<Account, Error> {
        context.caller.grant.check_read(account_id)?;
        let query = |store: Arc<Store>, until_us| {
            let id = account_id.clone();
            async move { store.account(&id, until_us).await }
        };
        let kind = ReadKind::scan_if(self.expiry.is_due(|id| id == account_id));
        let found = self.with_expiry(context, kind, query).await?;
        found.ok_or_else(|| not_found(account_id))
    }

    /// Those of the accounts to open that exist. One that the caller may not open counts as existing,
    /// and is not looked up.
    pub async fn existing_accounts(
        &self,
        context: &CallContext,
        new: Vec<&NewAccount>,
    ) -> Result<BTreeSet<AccountId>, Error> {
        let may_open = |new: &NewAccount| {
            context.caller.grant.check(&Command::CreateAccount(new.clone())).is_ok()
        };
        let mut wanted = BTreeSet::new();
        let mut existing = BTreeSet::new();
        for new in new {
            let ids = if may_open(new) { &mut wanted } else { &mut existing };
            ids.insert(new.account_id.clone());
        }
        if !wanted.is_empty() {
            let read = |store: Arc<Store>| async move { store.existing_accounts(&wanted).await };
            existing.extend(self.read(context, ReadKind::ByKey, read).await?);
        }
        Ok(existing)
    }

    /// Reads an account as recorded, without the holds that have expired since.
    pub(super) async fn known(
        &self,
        context: &CallContext,
        account_id: &AccountId,
    ) -> Result<Account, Error> {
        let id = account_id.clone();
        let read = self.read(context, ReadKind::ByKey, |store| async move {
            store.account(&id, i64::MIN).await
        });
        read.await?.value.ok_or_else(|| not_found(account_id))
    }

    /// Reads an account after all its changes with this time or an earlier one are committed.
    async fn settled(
        &self,
        context: &CallContext,
        account_id: &AccountId,
        time_us: Option<i64>,
    ) -> Result<Account, Error> {
        let account = self.known(context, account_id).await?;
        match time_us {
            // The times of an account never go back.
            Some(time_us) if time_us >= account.update_time_us => {
                self.settle(time_us, context.deadline).await?;
                self.known(context, account_id).await
            }
            _ => Ok(account),
        }
    }

    /// Reads several accounts as of one instant, in the order of their ids in the request. None if their
    /// labels exceed any response.
    pub async fn accounts(
        &self,
        context: &CallContext,
        account_ids: &[AccountId],
    ) -> Result<Option<Vec<Account>>, Error> {
        account_ids.iter().try_for_each(|id| context.caller.grant.check_read(id))?;
        let query = |store: Arc<Store>, until_us| {
            let wanted: BTreeSet<_> = account_ids.iter().cloned().collect();
            async move { store.accounts(&wanted, until_us).await }
        };
        let kind = ReadKind::scan_if(self.expiry.is_due(|id| account_ids.contains(id)));
        let Some(found) = self.with_expiry(context, kind, query).await? else { return Ok(None) };
        let mut found: HashMap<_, _> =
            found.into_iter().map(|account| (account.account_id.clone(), account)).collect();
        let take = |id| found.remove(id).ok_or_else(|| not_found(id));
        account_ids.iter().map(take).collect::<Result<_, _>>().map(Some)
    }

    /// Reads a page of the accounts whose ids begin with `prefix`, in order of their ids.
    pub async fn list_accounts(
        &self,
        context: &CallContext,
        prefix: &str,
        filter: &AccountFilter,
        after: Option<&AccountId>,
        limit: u64,
    ) -> Result<Examined<Account, AccountId>, Error> {
        let ranges = readable(context, prefix);
        let page = |store: Arc<Store>, until_us| {
            let (ranges, filter, after) = (ranges.clone(), filter.clone(), after.cloned());
            async move { store.list_accounts(&filter, &ranges, after.as_ref(), limit, until_us).await }
        };
        let is_listed =
            |id: &AccountId| after < Some(id) && ranges.iter().any(|range| range.contains(id));
        let kind = ReadKind::scan_if(!filter.is_empty() || self.expiry.is_due(is_listed));
        self.with_expiry(context, kind, page).await
    }

    /// Sums the balances of the accounts whose ids begin with `prefix` and that the caller may read, in
    /// order of their currencies. With a time: the balances after all entries of this time or before,
    /// without holds and limits.
    ///
    /// # Errors
    /// Also: there are more accounts than one sum may examine.
    pub async fn sum_balances(
        &self,
        context: &CallContext,
        prefix: &str,
        filter: &AccountFilter,
        time_us: Option<i64>,
    ) -> Result<Vec<BalanceSum>, Error> {
        if let Some(time_us) = time_us {
            self.settle(time_us, context.deadline).await?;
        }
        let ranges = readable(context, prefix);
        let max = self.store.summed_accounts_max(filter, time_us);
        let sums = |store: Arc<Store>, until_us| {
            let (filter, ranges) = (filter.clone(), ranges.clone());
            async move { store.sum_balances(&filter, &ranges, time_us, max, until_us).await }
        };
        let sums = self.with_expiry(context, ReadKind::Scan, sums).await?;
        sums.ok_or(Error::TooManyAccounts { max })
    }

    /// Reads one transaction.
    pub async fn transaction(
        &self,
        context: &CallContext,
        name: TransactionName,
    ) -> Result<Arc<Transaction>, Error> {
        let grant = context.caller.grant.clone();
        let is_visible = move |ids: &[AccountId]| ids.iter().any(|id| grant.may_read(id));
        let found = match name.clone() {
            TransactionName::TransactionId(id) => {
                let read =
                    |store: Arc<Store>| async move { store.transaction(id, is_visible).await };
                self.read(context, ReadKind::ByKey, read).await?
            }
            TransactionName::RequestId(request_id) => {
                let key = context.request_key(request_id);
                let read = |store: Arc<Store>| async move {
                    store.transaction_of_request(&key, is_visible).await
                };
                self.read(context, ReadKind::ByKey, read).await?
            }
        };
        let grant = &context.caller.grant;
        match (found, grant.hidden("transaction")) {
            (Some(transaction), _) => Ok(grant.visible_transaction(transaction)),
            (None, Some(denied)) => Err(denied.into()),
            (None, None) => Err(Error::Rejected(Rejection::TransactionNotFound(name))),
        }
    }

    /// Reads a page of an account's entries.
    pub async fn list_entries(
        &self,
        context: &CallContext,
        account_id: &AccountId,
        range: &EntryRange,
        limit: u64,
    ) -> Result<Vec<Entry>, Error> {
        context.caller.grant.check_read(account_id)?;
        let account = self.settled(context, account_id, last_us(range.end_time_us)).await?;
        let range = *range;
        let page =
            |store: Arc<Store>| async move { store.list_entries(&account, &range, limit).await };
        self.read(context, ReadKind::ByKey, page).await
    }

    /// Reads a page of the transactions of all accounts, latest first.
    pub async fn list_transactions(
        &self,
        context: &CallContext,
        filter: &TransactionFilter,
        before: Option<TransactionId>,
        limit: u64,
    ) -> Result<Examined<Arc<Transaction>, TransactionId>, Error> {
        context.caller.grant.check_read_of_all()?;
        if let Some(time_us) = last_us(filter.end_time_us) {
            self.settle(time_us, context.deadline).await?;
        }
        let (kind, filter) = (ReadKind::scan_if(filter.is_selective()), filter.clone());
        let page = |store: Arc<Store>| async move {
            store.list_transactions(&filter, before, limit).await
        };
        self.read(context, kind, page).await
    }

    /// Reads a page of the transactions of one account, latest first.
    pub async fn list_transactions_of_account(
        &self,
        context: &CallContext,
        account_id: &AccountId,
        filter: &TransactionFilter,
        before: Option<i64>,
        limit: u64,
    ) -> Result<Examined<Arc<Transaction>, i64>, Error> {
        context.caller.grant.check_read(account_id)?;
        let account = self.settled(context, account_id, last_us(filter.end_time_us)).await?;
        let (kind, filter) = (ReadKind::scan_if(filter.is_selective()), filter.clone());
        let page = |store: Arc<Store>| async move {
            store.list_transactions_of_account(&account, &filter, before, limit).await
        };
        let Examined { rows, next } = self.read(context, kind, page).await?;
        let grant = &context.caller.grant;
        let rows = rows.into_iter().map(|it| grant.visible_transaction(it)).collect();
        Ok(Examined { rows, next })
    }

    /// Reads the balance of an account after all entries of this time or before (None: now), and the
    /// sequence of the last of them.
    pub async fn balance_at(
        &self,
        context: &CallContext,
        account_id: &AccountId,
        time_us: Option<i64>,
    ) -> Result<(Account, Amount, i64), Error> {
        context.caller.grant.check_read(account_id)?;
        let account = self.settled(context, account_id, time_us).await?;
        let of = account.clone();
        let balance = |store: Arc<Store>| async move { store.balance_at(&of, time_us).await };
        let (balance, sequence) = self.read(context, ReadKind::ByKey, balance).await?;
        Ok((account, balance, sequence))
    }

    /// Reads a page of the changes of an account, oldest first.
    pub async fn list_account_changes(
        &self,
        context: &CallContext,
        account_id: &AccountId,
        after_version: i64,
        limit: u64,
    ) -> Result<Vec<AccountChange>, Error> {
        context.caller.grant.check_read(account_id)?;
        let account = self.known(context, account_id).await?;
        let page = |store: Arc<Store>| async move {
            store.list_account_changes(&account, after_version, limit).await
        };
        self.read(context, ReadKind::ByKey, page).await
    }

    /// Watches the entries of an account after `after_sequence`, existing and new ones. The share must
    /// be kept as long as the stream.
    ///
    /// # Errors
    /// Also: the account has fewer entries, or there are too many watchers.
    pub async fn watch(
        &self,
        context: &CallContext,
        account_id: &AccountId,
        after_sequence: i64,
    ) -> Result<(Watcher, Share), Error> {
        context.caller.grant.check_read(account_id)?;
        let share = self.budgets.watchers.take_one(&context.caller.identity)?;
        let failovers = self.feed.failovers();
        let account = self.known(context, account_id).await?;
        if after_sequence > account.sequence {
            return Err(Error::SequenceNotReached { sequence: account.sequence });
        }
        let (feed, identity) = (self.feed.clone(), context.caller.identity.clone());
        Ok((Watcher::new(feed, account, failovers, after_sequence, identity), share))
    }

    /// Watches all events of the ledger. It yields also those that the caller may not read.
    /// The share must be kept as long as the stream.
    ///
    /// # Errors
    /// Also: the caller may read no account at all, the ledger does not have the position, or there are
    /// too many watchers.
    pub async fn watch_events(
        &self,
        context: &CallContext,
        start: EventStart,
    ) -> Result<(EventWatcher, Share), Error> {
        // Positions and heartbeats show how busy the ledger is.
        context.caller.grant.check_read_of_some()?;
        let identity = &context.caller.identity;
        let mut share = self.budgets.watchers.share(identity.clone(), None);
        share.resize(EVENT_WATCHER_SHARE)?;
        let watcher = EventWatcher::new(self.event_feed.clone(), start, identity.clone());
        let watcher = timeout_at(context.deadline, watcher).await;
        Ok((watcher.map_err(|_| Error::DeadlineExceeded(None))??, share))
    }

    /// Recomputes an account from its entries and holds. Each page of entries is a scan of its own: others
    /// read between two of them, and it ends there when the caller goes.
    pub async fn verify_account(
        &self,
        context: &CallContext,
        account_id: &AccountId,
    ) -> Result<VerifiedAccount, Error> {
        context.caller.grant.check_read(account_id)?;
        let id = account_id.clone();
        let first = |store: Arc<Store>| async move { store.verify_account(&id).await };
        let first = self.read(context, ReadKind::Scan, first).await?;
        let mut verified = first.ok_or_else(|| not_found(account_id))?;
        loop {
            let verification = match verified {
                ControlFlow::Break(verified) => return Ok(verified),
                ControlFlow::Continue(verification) => verification,
            };
            let next = |store: Arc<Store>| async move { store.verify_page(verification).await };
            verified = self.read(context, ReadKind::Scan, next).await?;
        }
    }

    /// Reads one hold.
    pub async fn hold(&self, context: &CallContext, hold_id: &HoldId) -> Result<Hold, Error> {
        // A hold that the caller may not read causes no wait for its expiry.
        let query = |store: Arc<Store>, until_us| {
            let (hold_ids, grant) =
                (hold_id.candidates(&context.caller.recorded_as), context.caller.grant.clone());
            let is_visible = move |account_id: &AccountId| grant.may_read(account_id);
            async move { store.hold(&hold_ids, until_us, is_visible).await }
        };
        let found = self.with_expiry(context, ReadKind::ByKey, query).await?;
        match (found, context.caller.grant.hidden("hold")) {
            (Some(hold), _) => Ok(hold),
            (None, Some(denied)) => Err(denied.into()),
            (None, None) => {
                Err(Error::Rejected(Rejection::HoldNotFound { hold_id: hold_id.clone() }))
            }
        }
    }

    /// Reads a page of an account's holds, in order of their ids.
    pub async fn list_holds(
        &self,
        context: &CallContext,
        account_id: &AccountId,
        filter: &HoldFilter,
        limit: u64,
    ) -> Result<Examined<Hold, HoldId>, Error> {
        context.caller.grant.check_read(account_id)?;
        let account = self.known(context, account_id).await?;
        let page = |store: Arc<Store>, until_us| {
            let (account, filter) = (account.clone(), filter.clone());
            async move { store.list_holds(&account, &filter, limit, until_us).await }
        };
        self.with_expiry(context, ReadKind::scan_if(filter.state.is_some()), page).await
    }

    /// Reads the record of a request, if there is one.
    pub async fn request_record(
        &self,
        context: &CallContext,
        request_id: RequestId,
    ) -> Result<Option<RequestRecord>, Error> {
        let key = context.request_key(request_id);
        let record =
            self.read(context, ReadKind::ByKey, |store| async move { store.record(&key).await });
        Ok(record.await?.map(|record| context.caller.grant.visible_record(record)))
    }
}

/// The accounts that the caller may read, among those whose ids begin with `prefix`.
fn readable(context: &CallContext, prefix: &str) -> Vec<AccountRange> {
    let wanted = AccountRange::of_prefix(prefix);
    let readable = context.caller.grant.readable().into_iter();
    readable.filter_map(|range| range.and(&wanted)).collect()
}

/// The last time that lies before this one.
fn last_us(end_time_us: Option<i64>) -> Option<i64> {
    end_time_us.map(|end_time_us| end_time_us.saturating_sub(1))
}

fn not_found(account_id: &AccountId) -> Error {
    Error::Rejected(Rejection::AccountNotFound { account_id: account_id.clone() })
}
