//! ListTransactions: the transactions of one account, or of all.

use crate::{
    grpc::{decode::TransactionList, encode},
    ledger::{CallContext, Error, Ledger},
    proto,
};

/// Reads and encodes one page. Returns its transactions, and the token of the next page.
pub async fn page(
    ledger: &Ledger,
    context: &CallContext,
    list: TransactionList,
) -> Result<(Vec<proto::Transaction>, String), Error> {
    Ok(match list {
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
    })
}
