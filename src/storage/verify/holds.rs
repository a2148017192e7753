//! Verification of every hold against its account and its transaction. The sum of open holds is
//! verified with the account.

use sea_orm::{ConnectionTrait, DatabaseTransaction};

use crate::{
    domain::verification::LedgerFault,
    storage::{dialect::DatabaseKind, verify::error::VerifyError},
};

/// The first hold without an account, or captured without a request that says so. PostgreSQL and SQLite
/// refuse a captured hold without a transaction, if their checks are there.
const FIRST_WRONG: &str = "\
    SELECT h.hold_id, a.account_id IS NOT NULL FROM holds h \
        LEFT JOIN accounts a ON a.account_key = h.account_key \
        LEFT JOIN requests r ON r.transaction_id = h.transaction_id \
    WHERE a.account_id IS NULL OR h.state = 'captured' AND h.transaction_id IS NULL \
        OR h.transaction_id IS NOT NULL AND (r.transaction_id IS NULL OR r.rejection IS NOT NULL \
            OR r.kind <> 'capture' OR r.hold_id IS DISTINCT FROM h.hold_id) \
    ORDER BY h.hold_id LIMIT 1";

/// Verifies all holds.
pub async fn verify(connection: &DatabaseTransaction) -> Result<(), VerifyError> {
    let statement = DatabaseKind::of(connection).statement(FIRST_WRONG, []);
    let Some(row) = connection.query_one_raw(statement).await? else { return Ok(()) };
    let hold_id = row.try_get_by_index(0)?;
    let description = match row.try_get_by_index(1)? {
        true => "it is captured, but its transaction belongs to no request that captured it",
        false => "its account does not exist",
    };
    Err(LedgerFault::Hold { hold_id, description: description.to_owned() }.into())
}
