//! Queries by the times at which entries take effect. Nothing waits for them: an entry that is written
//! later may take effect at any time.

use std::sync::Arc;

use crate::{
    domain::{
        account::Account,
        effective_time::EffectivePosition,
        ids::AccountId,
        query::{EffectiveRange, TransactionFilter},
        transaction::{Entry, Transaction},
    },
    ledger::{CallContext, Error, Ledger, reading::ReadKind},
    storage::{EXAMINED_FOR_BALANCE_MAX, Examined, Store},
};

/// # Errors
/// As of all queries.
impl Ledger {
    /// Reads a page of an account's entries, in the order in which they take effect.
    pub async fn list_entries_by_effective_time(
        &self,
        context: &CallContext,
        account_id: &AccountId,
        range: &EffectiveRange,
        limit: u64,
    ) -> Result<Examined<Entry, EffectivePosition>, Error> {
        context.caller.grant.check_read(account_id)?;
        let account = self.known(context, account_id).await?;
        let range = *range;
        let page = |store: Arc<Store>| async move {
            store.list_entries_by_effective_time(&account, &range, limit).await
        };
        self.read(context, ReadKind::ByKey, page).await
    }

    /// Reads a page of the transactions of one account by the times at which they take effect, latest
    /// first.
    pub async fn list_transactions_by_effective_time(
        &self,
        context: &CallContext,
        account_id: &AccountId,
        filter: &TransactionFilter,
        range: &EffectiveRange,
        limit: u64,
    ) -> Result<Examined<Arc<Transaction>, EffectivePosition>, Error> {
        context.caller.grant.check_read(account_id)?;
        let account = self.known(context, account_id).await?;
        let kind = ReadKind::scan_if(filter.is_selective());
        let (filter, range) = (filter.clone(), *range);
        let page = |store: Arc<Store>| async move {
            store.list_transactions_by_effective_time(&account, &filter, &range, limit).await
        };
        let Examined { rows, next } = self.read(context, kind, page).await?;
        let grant = &context.caller.grant;
        let rows = rows.into_iter().map(|it| grant.visible_transaction(it)).collect();
        Ok(Examined { rows, next })
    }

    /// Reads the sum of an account's entries that take effect at this time or before, in the smallest unit
    /// of its currency.
    ///
    /// # Errors
    /// Also: more entries have an effective time behind this time, or were written behind it, than a
    /// balance may examine.
    pub async fn balance_by_effective_time(
        &self,
        context: &CallContext,
        account_id: &AccountId,
        time_us: i64,
    ) -> Result<(Account, i128), Error> {
        context.caller.grant.check_read(account_id)?;
        let account = self.known(context, account_id).await?;
        let of = account.clone();
        let balance =
            |store: Arc<Store>| async move { store.balance_by_effective_time(&of, time_us).await };
        let balance = self.read(context, ReadKind::Scan, balance).await?;
        let balance = balance.ok_or(Error::TooManyEntries { max: EXAMINED_FOR_BALANCE_MAX })?;
        Ok((account, balance))
    }
}
