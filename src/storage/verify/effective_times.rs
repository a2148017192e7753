//! Verification that a transaction takes effect at one time: all of its entries have the same effective
//! time, or none. That the time is a possible one is verified with each entry.

use sea_orm::{ConnectionTrait, DatabaseTransaction};

use crate::{
    domain::verification::LedgerFault,
    storage::{dialect::DatabaseKind, verify::error::VerifyError},
};

/// The first transaction of which some entries have another effective time than others, or none. The keys
/// of entries have a space between them.
const FIRST_MIXED: &str = "\
    SELECT r.transaction_id FROM (\
        SELECT transaction_id, count(*) AS entries, min(effective_time_us) AS first_us, \
            max(effective_time_us) AS last_us \
        FROM entries WHERE effective_time_us IS NOT NULL GROUP BY transaction_id) e \
    JOIN requests r ON r.transaction_id = e.transaction_id \
    WHERE e.first_us <> e.last_us \
        OR e.entries <> length(r.entry_keys) - length(replace(r.entry_keys, ' ', '')) + 1 \
    ORDER BY r.transaction_id LIMIT 1";

/// Verifies the transactions that have effective times.
pub async fn verify(connection: &DatabaseTransaction) -> Result<(), VerifyError> {
    let statement = DatabaseKind::of(connection).statement(FIRST_MIXED, []);
    let Some(row) = connection.query_one_raw(statement).await? else { return Ok(()) };
    let (transaction_id, description) =
        (row.try_get_by_index(0)?, "its entries have different effective times".to_owned());
    Err(LedgerFault::Transaction { transaction_id, description }.into())
}
