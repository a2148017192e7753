//! Verification of transactions that are reversed in parts: never more than the whole.

use std::collections::{HashMap, HashSet};

use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, FromQueryResult, QueryFilter,
};
use uuid::Uuid;

use crate::{
    domain::{
        money::Amount,
        transaction::Transaction,
        verification::{LedgerFault, ReversalVerifier},
    },
    storage::{
        StorageError,
        dialect::DatabaseKind,
        entity::requests::{Column, Entity, Model},
        queries::requests::{reversal_number, with_effects},
        tables::REQUESTS,
        verify::error::VerifyError,
    },
};

/// Reversals in one page.
const PAGE: usize = 1000;

/// Verifies all reversals of parts.
pub async fn verify(connection: &DatabaseTransaction) -> Result<(), VerifyError> {
    let kind = DatabaseKind::of(connection);
    let (columns, number) = (REQUESTS.column_list("r."), reversal_number(kind));
    let page = format!(
        "SELECT {columns} FROM requests r \
         WHERE r.reverses_transaction_id IS NOT NULL AND r.details->'reversed' IS NOT NULL \
             AND (r.reverses_transaction_id, {number}) > ($1, $2) \
         ORDER BY r.reverses_transaction_id, {number} LIMIT {PAGE}"
    );
    let mut after = (Uuid::nil(), 0_i64);
    let mut verifier = ReversalVerifier::new(None);
    loop {
        let statement = kind.statement(page.as_str(), [after.0.into(), after.1.into()]);
        let rows = connection.query_all_raw(statement).await?;
        let rows = rows.iter().map(|row| Model::from_query_result(row, ""));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        let count = rows.len();
        let originals = originals(connection, &rows).await?;
        for reversal in transactions(connection, rows).await? {
            let Some((transaction_id, reversed)) = reversal.reverses else { continue };
            if transaction_id != after.0 {
                verifier = ReversalVerifier::new(originals.get(&transaction_id).copied().flatten());
            }
            after = (transaction_id, reversed.count);
            verifier.push(amount(&reversal), reversed).map_err(|description| {
                let transaction_id = reversal.transaction_id.unwrap_or_default();
                LedgerFault::Transaction { transaction_id, description }
            })?;
        }
        if count < PAGE {
            return Ok(());
        }
    }
}

/// The amounts of the transactions that these requests reverse.
async fn originals(
    connection: &DatabaseTransaction,
    reversals: &[Model],
) -> Result<HashMap<Uuid, Option<Amount>>, StorageError> {
    let ids: HashSet<Uuid> =
        reversals.iter().filter_map(|row| row.reverses_transaction_id).collect();
    let rows = Entity::find().filter(Column::TransactionId.is_in(ids)).all(connection).await?;
    let transactions = transactions(connection, rows).await?;
    Ok(transactions.iter().map(|it| (it.transaction_id.unwrap_or_default(), amount(it))).collect())
}

async fn transactions(
    connection: &DatabaseTransaction,
    rows: Vec<Model>,
) -> Result<Vec<Transaction>, StorageError> {
    let records = with_effects(connection, rows).await?;
    let applied = records.into_iter().filter_map(|(_, record)| record.result.ok()?.transaction);
    Ok(applied.map(|transaction| transaction.as_ref().clone()).collect())
}

fn amount(transaction: &Transaction) -> Option<Amount> {
    transaction.amount().map(|(_, amount)| amount)
}
