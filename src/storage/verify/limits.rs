//! Verification of accounts that are below their limits: a forced transaction has taken money from each.
//! That the mark is right is verified with the account.

use sea_orm::{ConnectionTrait, DatabaseTransaction};

use crate::{
    domain::{
        ids::AccountId,
        verification::{Fault, FaultKind},
    },
    storage::{dialect::DatabaseKind, verify::error::VerifyError},
};

/// Verifies all accounts with the mark, which are few.
pub async fn verify(connection: &DatabaseTransaction) -> Result<(), VerifyError> {
    let kind = DatabaseKind::of(connection);
    let sql = format!(
        "SELECT a.account_id FROM accounts a WHERE a.below_limit AND NOT EXISTS (\
             SELECT 1 FROM entries e JOIN requests r ON r.transaction_id = e.transaction_id \
             WHERE e.account_key = a.account_key AND {} LIKE '-%' AND r.details->'forced' = 'true') \
         ORDER BY a.account_id LIMIT 1",
        kind.text("e.amount")
    );
    let Some(row) = connection.query_one_raw(kind.statement(sql, [])).await? else { return Ok(()) };
    let account_id: String = row.try_get_by_index(0)?;
    Err(Fault {
        account_id: AccountId::from_stored(&account_id),
        sequence: 0,
        kind: FaultKind::WrongLimit,
        description: "it is below its limit, but no forced transaction has taken money from it"
            .to_owned(),
    }
    .into())
}
