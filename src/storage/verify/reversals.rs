//! Verification of reversals: each undoes what its transaction did, and all together not more than that.

use std::collections::{HashMap, HashSet};

use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, FromQueryResult, QueryFilter,
};
use uuid::Uuid;

use crate::{
    domain::{
        transaction::{Transaction, TransactionKind},
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

/// The first reversal that reverses nothing.
const FIRST_WITHOUT: &str = "\
    SELECT transaction_id FROM requests \
    WHERE kind = 'reversal' AND rejection IS NULL AND reverses_transaction_id IS NULL \
    ORDER BY transaction_id LIMIT 1";

/// Verifies all reversals.
pub async fn verify(connection: &DatabaseTransaction) -> Result<(), VerifyError> {
    let kind = DatabaseKind::of(connection);
    if let Some(row) = connection.query_one_raw(kind.statement(FIRST_WITHOUT, [])).await? {
        let (transaction_id, description) =
            (row.try_get_by_index(0)?, "it is a reversal, but reverses no transaction".to_owned());
        return Err(LedgerFault::Transaction { transaction_id, description }.into());
    }
    let (columns, number) = (REQUESTS.column_list("r."), reversal_number(kind));
    let page = format!(
        "SELECT {columns} FROM requests r \
         WHERE r.reverses_transaction_id IS NOT NULL \
             AND (r.reverses_transaction_id, {number}) > ($1, $2) \
         ORDER BY r.reverses_transaction_id, {number} LIMIT {PAGE}"
    );
    let mut after = (Uuid::nil(), i64::MIN);
    let mut verifier = None;
    loop {
        let statement = kind.statement(page.as_str(), [after.0.into(), after.1.into()]);
        let rows = connection.query_all_raw(statement).await?;
        let rows = rows.iter().map(|row| Model::from_query_result(row, ""));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        if let Some(fault) = rows.iter().find_map(no_reversal) {
            return Err(fault.into());
        }
        let count = rows.len();
        let mut originals = originals(connection, &rows).await?;
        for reversal in transactions(connection, rows).await? {
            let Some((transaction_id, reversed)) = reversal.reverses else { continue };
            if transaction_id != after.0 {
                verifier = originals.remove(&transaction_id).map(ReversalVerifier::new);
            }
            after = (transaction_id, reversed.count);
            let verified = match &mut verifier {
                Some(verifier) => verifier.push(&reversal, reversed),
                None => Err(format!("it reverses {transaction_id}, which does not exist")),
            };
            verified.map_err(|description| {
                let transaction_id = reversal.transaction_id.unwrap_or_default();
                LedgerFault::Transaction { transaction_id, description }
            })?;
        }
        if count < PAGE {
            return Ok(());
        }
    }
}

/// The fault of a request that reverses a transaction, but is no reversal that was applied.
fn no_reversal(row: &Model) -> Option<LedgerFault> {
    let transaction_id = row.transaction_id;
    let description = if row.rejection.is_some() {
        "it is rejected, but reverses a transaction"
    } else if row.kind != TransactionKind::Reversal.name() {
        "it reverses a transaction, but is no reversal"
    } else {
        return None;
    };
    Some(LedgerFault::Transaction { transaction_id, description: description.to_owned() })
}

/// The transactions that these requests reverse.
async fn originals(
    connection: &DatabaseTransaction,
    reversals: &[Model],
) -> Result<HashMap<Uuid, Transaction>, StorageError> {
    let ids: HashSet<Uuid> =
        reversals.iter().filter_map(|row| row.reverses_transaction_id).collect();
    let rows = Entity::find().filter(Column::TransactionId.is_in(ids)).all(connection).await?;
    let transactions = transactions(connection, rows).await?;
    Ok(transactions.into_iter().map(|it| (it.transaction_id.unwrap_or_default(), it)).collect())
}

async fn transactions(
    connection: &DatabaseTransaction,
    rows: Vec<Model>,
) -> Result<Vec<Transaction>, StorageError> {
    let records = with_effects(connection, rows).await?;
    let applied = records.into_iter().filter_map(|(_, record)| record.result.ok()?.transaction);
    Ok(applied.map(|transaction| transaction.as_ref().clone()).collect())
}
