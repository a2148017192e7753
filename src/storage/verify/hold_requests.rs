//! Verification of every hold against the requests that placed, changed or ended it.
//!
//! A hold can have many requests, and they are read in the order of their keys. So sums are compared, each
//! of one of many buckets of holds. Each capture adds the hash of what was captured after it, and subtracts
//! that of what was captured before it; the hold itself leads back to nothing. A request that placed or
//! ended a hold adds a hash, which the hold subtracts. The hashes have a key that nobody knows. If a sum is
//! not zero, the holds of its bucket are read again, and verified one by one.
//!
//! Of the holds that were changed, the terms are kept, in a hash each, until the request is found that left
//! them.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher, RandomState},
};

use sea_orm::{ConnectionTrait, DatabaseTransaction, FromQueryResult};

use crate::{
    domain::{
        account::Labels,
        hold::Hold,
        ids::HoldId,
        verification::{
            AppliedToHold, CapturedStep, CapturesVerifier, HoldRequest, HoldRequestsVerifier,
            LedgerFault,
        },
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

/// A hold, or a request that names it.
enum Found<'a> {
    Hold(&'a Hold),
    Request(&'a AppliedToHold),
}

impl Found<'_> {
    fn hold(&self) -> &Hold {
        match self {
            Self::Hold(hold) => hold,
            Self::Request(request) => &request.hold,
        }
    }

    /// The step of a capture, or the step back of a hold.
    fn captured(&self) -> Option<CapturedStep> {
        match self {
            Self::Hold(hold) => Some(CapturedStep::back(hold)),
            Self::Request(request) => request.captured(),
        }
    }

    /// What it has of requests, with 1 if it is the request, and with -1 if it is the hold.
    fn requests(&self) -> Vec<(HoldRequest, i64)> {
        match self {
            Self::Hold(hold) => HoldRequest::of_hold(hold).into_iter().map(|it| (it, -1)).collect(),
            Self::Request(request) => request.in_row().map(|it| (it, 1)).into_iter().collect(),
        }
    }
}

/// Decodes all holds and the requests that placed, changed or ended them, and verifies them against each
/// other.
pub async fn verify(connection: &DatabaseTransaction) -> Result<(), VerifyError> {
    let hasher = RandomState::new();
    let bucket_of = |hold_id: &HoldId| (hasher.hash_one(hold_id) % BUCKETS as u64) as usize;
    let hash_of_terms =
        |it: &Hold| hasher.hash_one((&it.hold_id, it.amount.units(), it.expire_time_us));
    let (mut captured, mut requests) = (vec![0_u64; BUCKETS], vec![0_u64; BUCKETS]);
    let mut terms: HashSet<u64> = HashSet::new();
    let mut unlike: Option<(HoldId, String)> = None;
    for_each(connection, |found| {
        let hold_id = &found.hold().hold_id;
        let bucket = bucket_of(hold_id);
        if let Some(CapturedStep { before, after }) = found.captured() {
            let [before, after] = [before, after].map(|it| hasher.hash_one((hold_id, it.units())));
            let sum = &mut captured[bucket];
            *sum = sum.wrapping_add(after).wrapping_sub(before);
        }
        for (request, count) in found.requests() {
            let hash = hasher.hash_one((hold_id, request));
            let sum = &mut requests[bucket];
            *sum = if count > 0 { sum.wrapping_add(hash) } else { sum.wrapping_sub(hash) };
        }
        if let Found::Request(request) = &found
            && !request.fits_fingerprint()
            && unlike.as_ref().is_none_or(|(first, _)| hold_id < first)
        {
            unlike = Some((hold_id.clone(), request.key.request_id.to_string()));
        }
        match &found {
            Found::Hold(hold) if hold.placed.is_some() => {
                terms.insert(hash_of_terms(hold));
            }
            Found::Request(request) if request.has_left_terms() => {
                terms.remove(&hash_of_terms(&request.hold));
            }
            Found::Hold(_) | Found::Request(_) => {}
        }
    })
    .await?;
    let different = |sums: &[u64]| sums.iter().position(|sum| *sum != 0);
    if let Some(bucket) = different(&captured) {
        let mut holds: BTreeMap<HoldId, CapturesVerifier> = BTreeMap::new();
        for_each(connection, |found| {
            let hold_id = &found.hold().hold_id;
            if let Some(step) = found.captured().filter(|_| bucket_of(hold_id) == bucket) {
                holds.entry(hold_id.clone()).or_default().push(step);
            }
        })
        .await?;
        return Err(first_fault(holds.iter().map(|(id, captures)| (id, captures.fault()))));
    }
    if let Some(bucket) = different(&requests) {
        let mut holds: BTreeMap<HoldId, HoldRequestsVerifier> = BTreeMap::new();
        for_each(connection, |found| {
            let hold_id = &found.hold().hold_id;
            if bucket_of(hold_id) == bucket {
                let hold = holds.entry(hold_id.clone()).or_default();
                found.requests().into_iter().for_each(|(request, count)| hold.push(request, count));
            }
        })
        .await?;
        return Err(first_fault(holds.iter().map(|(id, requests)| (id, requests.fault()))));
    }
    if terms.is_empty() {
        let Some((hold_id, request_id)) = &unlike else { return Ok(()) };
        let description = format!(
            "a request with the fingerprint of another account, amount, expire time, description or labels \
             left it so: {request_id}"
        );
        return Err(first_fault([(hold_id, Some(description))].into_iter()));
    }
    let mut changed = Vec::new();
    records::for_each_hold(connection, |hold| {
        if changed.is_empty() && hold.placed.is_some() && terms.contains(&hash_of_terms(hold)) {
            let description = "its amount or expire time is said to have changed since it was placed, \
                but no request left them so";
            changed.push((hold.hold_id.clone(), Some(description.to_owned())));
        }
    })
    .await?;
    Err(first_fault(changed.iter().map(|(id, fault)| (id, fault.clone()))))
}

/// The fault of the first hold that has one.
fn first_fault<'a>(holds: impl Iterator<Item = (&'a HoldId, Option<String>)>) -> VerifyError {
    let mut faults = holds.filter_map(|(hold_id, fault)| Some((hold_id, fault?)));
    match faults.next() {
        Some((hold_id, description)) => {
            LedgerFault::Hold { hold_id: hold_id.to_string(), description }.into()
        }
        None => {
            let reason = "the holds differ from their requests, and no longer do".to_owned();
            VerifyError::Storage(StorageError::Corrupt(reason))
        }
    }
}

/// Reads every hold, and then every applied request that names one.
async fn for_each(
    connection: &DatabaseTransaction,
    mut act: impl FnMut(Found<'_>),
) -> Result<(), VerifyError> {
    records::for_each_hold(connection, |hold| act(Found::Hold(hold))).await?;
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
        if let Some(last) = rows.last() {
            after = (last.caller.clone(), last.request_id.clone());
        }
        let columns = rows.iter().map(Columns::of).collect::<Result<Vec<_>, _>>()?;
        let count = rows.len();
        let records = with_effects(connection, rows).await?;
        for ((key, record), columns) in records.into_iter().zip(columns) {
            let fingerprint = record.fingerprint;
            let effects = record.result.ok();
            let effects = effects.and_then(|effects| Some((effects.transaction, effects.hold?)));
            if let Some((transaction, hold)) = effects {
                let Columns { kind, is_recorded, description, labels } = columns;
                let request = AppliedToHold {
                    key,
                    kind,
                    transaction,
                    hold,
                    is_recorded,
                    fingerprint,
                    description,
                    labels,
                };
                act(Found::Request(&request));
            }
        }
        if count < PAGE {
            return Ok(());
        }
    }
}

/// Columns of a request, as they are in [`AppliedToHold`].
struct Columns {
    kind: String,
    is_recorded: bool,
    description: String,
    labels: Labels,
}

impl Columns {
    fn of(row: &Model) -> Result<Self, StorageError> {
        let hold = row.details.as_ref().and_then(|details| details.get("hold"));
        Ok(Self {
            kind: row.kind.clone(),
            is_recorded: hold.is_some_and(|hold| !hold.is_null()),
            description: row.description.clone().unwrap_or_default(),
            labels: row.labels()?,
        })
    }
}
