//! ListEntries, ListTransactions and GetBalance: by the times at which entries were written, or at which
//! they take effect.

use crate::{
    domain::{effective_time::EffectivePosition, ids::AccountId, transaction::Transaction},
    grpc::{
        decode::{BalanceQuery, EntryList, TransactionList},
        encode,
    },
    ledger::{CallContext, Error, Ledger},
    proto::{GetBalanceResponse, ListEntriesResponse, ListTransactionsResponse},
};

/// A page of an account's entries.
pub async fn entries(
    ledger: &Ledger,
    context: &CallContext,
    list: EntryList,
) -> Result<ListEntriesResponse, Error> {
    let (entries, next_page_token) = match list {
        EntryList::Written(account_id, range, page) => {
            let limit = page.limit + 1;
            let entries = ledger.list_entries(context, &account_id, &range, limit).await?;
            page.encode(entries, None, |last| last.sequence, |it| encode::entry(&it)).await
        }
        EntryList::Effective(account_id, range, page) => {
            let limit = page.limit + 1;
            let found =
                ledger.list_entries_by_effective_time(context, &account_id, &range, limit).await?;
            page.encode(
                found.rows,
                found.next,
                |last| last.effective_position(),
                |it| encode::entry(&it),
            )
            .await
        }
    };
    Ok(ListEntriesResponse { entries, next_page_token })
}

/// A page of transactions.
pub async fn transactions(
    ledger: &Ledger,
    context: &CallContext,
    list: TransactionList,
) -> Result<ListTransactionsResponse, Error> {
    let (transactions, next_page_token) = match list {
        TransactionList::All(filter, page) => {
            let (before, limit) = (page.cursor, page.limit);
            let found = ledger.list_transactions(context, &filter, before, limit).await?;
            page.encode_until(
                found.rows,
                found.next,
                |last| last.transaction_id.unwrap_or_default(),
                |it| encode::transaction(&it),
            )
            .await
        }
        TransactionList::OfAccount(account_id, filter, page) => {
            let (before, limit) = (page.cursor, page.limit);
            let found = ledger
                .list_transactions_of_account(context, &account_id, &filter, before, limit)
                .await?;
            page.encode_until(
                found.rows,
                found.next,
                |last| last.last_sequence_of(&account_id),
                |it| encode::transaction(&it),
            )
            .await
        }
        TransactionList::Effective(account_id, filter, range, page) => {
            let limit = page.limit;
            let found = ledger
                .list_transactions_by_effective_time(context, &account_id, &filter, &range, limit)
                .await?;
            page.encode_until(
                found.rows,
                found.next,
                |last| position_of(last, &account_id),
                |it| encode::transaction(&it),
            )
            .await
        }
    };
    Ok(ListTransactionsResponse { transactions, next_page_token })
}

/// The place of a transaction in a statement of this account by effective time.
fn position_of(transaction: &Transaction, account_id: &AccountId) -> EffectivePosition {
    let time_us = transaction.effective_time_us.unwrap_or(transaction.create_time_us);
    EffectivePosition { time_us, sequence: transaction.last_sequence_of(account_id) }
}

/// The balance of an account at a time.
pub async fn balance(
    ledger: &Ledger,
    context: &CallContext,
    query: BalanceQuery,
) -> Result<GetBalanceResponse, Error> {
    let (balance, sequence) = match query {
        BalanceQuery::Written(account_id, time_us) => {
            let (account, balance, sequence) =
                ledger.balance_at(context, &account_id, time_us).await?;
            (encode::money(&account.currency, balance), sequence)
        }
        BalanceQuery::Effective(account_id, time_us) => {
            let (account, balance) =
                ledger.balance_by_effective_time(context, &account_id, time_us).await?;
            (encode::sum(&account.currency, balance), account.sequence)
        }
    };
    Ok(GetBalanceResponse { balance: Some(balance), sequence })
}
