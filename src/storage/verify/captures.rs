//! Verification of what was captured of every hold against its captures.
//!
//! A hold can have many captures, and they are read in the order of their requests. So each capture
//! adds the hash of what was captured after it to a sum, and subtracts that of what was captured before
//! it, in one of many buckets. The hold itself leads back to nothing. The hash has a key that nobody
//! knows. If a sum is not zero, the holds of its bucket are read again, and verified one by one.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
};

use sea_orm::{ConnectionTrait, DatabaseTransaction, FromQueryResult};

use crate::{
    domain::{
        ids::HoldId,
        verification::{CapturedStep, CapturesVerifier, LedgerFault},
    },
    storage::{
        StorageError,
        dialect::DatabaseKind,
        entity::requests::Model,
        queries::requests::with_effects,
        tables::REQUESTS,
        verify::{error::VerifyError, records},
    },
};

/// Requests in one page.
const PAGE: usize = 1000;
/// Parts of all holds, by the hashes of their ids.
const BUCKETS: usize = 4096;

/// Decodes all holds and the requests that placed, changed or ended them, and verifies them against each
/// other.
pub async fn verify(connection: &DatabaseTransaction) -> Result<(), VerifyError> {
    let hasher = RandomState::new();
    let bucket_of = |hold_id: &HoldId| (hasher.hash_one(hold_id) % BUCKETS as u64) as usize;
    let mut sums = vec![0_u64; BUCKETS];
    for_each_step(connection, |hold_id, CapturedStep { before, after }| {
        let [before, after] = [before, after].map(|it| hasher.hash_one((hold_id, it.units())));
        let sum = &mut sums[bucket_of(hold_id)];
        *sum = sum.wrapping_add(after).wrapping_sub(before);
    })
    .await?;
    let Some(bucket) = sums.iter().position(|sum| *sum != 0) else { return Ok(()) };
    let mut holds: BTreeMap<HoldId, CapturesVerifier> = BTreeMap::new();
    for_each_step(connection, |hold_id, step| {
        if bucket_of(hold_id) == bucket {
            holds.entry(hold_id.clone()).or_default().push(step);
        }
    })
    .await?;
    let fault = holds.iter().find_map(|(hold_id, captures)| Some((hold_id, captures.fault()?)));
    Err(match fault {
        Some((hold_id, description)) => {
            LedgerFault::Hold { hold_id: hold_id.to_string(), description }.into()
        }
        None => {
            let reason = "the holds differ from their captures, and no longer do".to_owned();
            VerifyError::Storage(StorageError::Corrupt(reason))
        }
    })
}

/// Reads the step of every capture, and the step back of every hold.
async fn for_each_step(
    connection: &DatabaseTransaction,
    mut act: impl FnMut(&HoldId, CapturedStep),
) -> Result<(), VerifyError> {
    records::for_each_hold(connection, |hold| act(&hold.hold_id, CapturedStep::back(hold))).await?;
    let kind = DatabaseKind::of(connection);
    let columns = REQUESTS.column_list("r.");
    let page = format!(
        "SELECT {columns} FROM requests r \
         WHERE r.hold_id IS NOT NULL AND r.rejection IS NULL \
             AND (r.caller, r.request_id) > ($1, $2) \
         ORDER BY r.caller, r.request_id LIMIT {PAGE}"
    );
    let mut after = (String::new(), String::new());
    loop {
        let key = [after.0.as_str().into(), after.1.as_str().into()];
        let rows = connection.query_all_raw(kind.statement(page.as_str(), key)).await?;
        let rows = rows.iter().map(|row| Model::from_query_result(row, ""));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        let count = rows.len();
        if let Some(last) = rows.last() {
            after = (last.caller.clone(), last.request_id.clone());
        }
        for (_, record) in with_effects(connection, rows).await? {
            let effects = record.result.ok();
            let effects = effects.and_then(|effects| effects.transaction.zip(effects.hold));
            if let Some((transaction, hold)) = effects {
                act(&hold.hold_id, CapturedStep::of_capture(&transaction, &hold));
            }
        }
        if count < PAGE {
            return Ok(());
        }
    }
}
