//! Verification of every request, and of the entries that it names.

use std::{
    borrow::Cow,
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use sea_orm::{ConnectionTrait, DatabaseTransaction, Value};
use serde::Deserialize;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::storage::verify::{
    error::VerifyError,
    partitions::{self, LAST},
    progress::VerifyProgress,
    records,
    rows::{amount_of, columns, read_packed},
};
use crate::{
    domain::{
        ids::AccountId,
        money::{Amount, Currency},
        transaction::TransactionKind,
        verification::{Comparison, LedgerFault, LedgerTotals},
    },
    storage::dialect::DatabaseKind,
};

/// Requests in a partition: some tens of megabytes even with a hundred entries each, and usually half a
/// megabyte, so that memory is used again without a call of the system.
const PARTITION_REQUESTS: usize = 2500;

/// The requests with keys from `$1, $2`, exclusive, to `$3, $4`, inclusive.
const PARTITION: &str = "FROM requests r WHERE (r.caller, r.request_id) > ($1, $2) \
    AND (r.caller, r.request_id) <= ($3, $4) ORDER BY r.caller, r.request_id";

/// The key of a request: its caller and its id.
type Key = (String, String);

/// The name of an entry in a request: its account and its sequence.
#[derive(PartialEq, Eq, Hash, Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>, i64);

/// An applied request that moves money.
struct Applied<'a> {
    transaction_id: Uuid,
    kind: TransactionKind,
    names: Vec<Name<'a>>,
}

/// An entry that a request names; without an amount if that cannot be read.
struct NamedEntry {
    transaction_id: Uuid,
    amount: Option<(Currency, Amount)>,
}

/// Verifies all requests, and adds the names of their entries to the comparison.
pub async fn verify(
    connections: &[Arc<DatabaseTransaction>],
    progress: &Arc<VerifyProgress>,
    comparison: &Arc<Comparison>,
) -> Result<LedgerTotals, VerifyError> {
    let (progress, comparison) = (progress.clone(), comparison.clone());
    let work = move |connection, partition| {
        read_partition(connection, partition, progress.clone(), comparison.clone())
    };
    partitions::for_each(connections, partition_all, work).await
}

/// Looks up the entries of all requests that the comparison leaves undecided.
pub async fn look_up(
    connections: &[Arc<DatabaseTransaction>],
    progress: &Arc<VerifyProgress>,
    comparison: &Arc<Comparison>,
) -> Result<LedgerTotals, VerifyError> {
    let (progress, comparison) = (progress.clone(), comparison.clone());
    let work = move |connection, partition| {
        look_up_partition(connection, partition, progress.clone(), comparison.clone())
    };
    partitions::for_each(connections, partition_all, work).await
}

/// Partitions reach from one key, exclusive, to another, inclusive.
async fn partition_all(
    connection: Arc<DatabaseTransaction>,
    partitions: mpsc::Sender<(Key, Key)>,
) -> Result<(), VerifyError> {
    let kind = DatabaseKind::of(&*connection);
    let offset = PARTITION_REQUESTS - 1;
    let end_sql = format!(
        "SELECT caller, request_id FROM requests WHERE (caller, request_id) > ($1, $2) \
             ORDER BY caller, request_id LIMIT 1 OFFSET {offset}"
    );
    let mut after: Key = Key::default();
    loop {
        let values = [after.0.as_str().into(), after.1.as_str().into()];
        let statement = kind.statement(end_sql.as_str(), values);
        let end = connection.query_one_raw(statement).await?;
        let is_last = end.is_none();
        let until = match end {
            Some(row) => (row.try_get_by_index(0)?, row.try_get_by_index(1)?),
            None => (LAST.to_owned(), String::new()),
        };
        if partitions.send((after, until.clone())).await.is_err() || is_last {
            return Ok(());
        }
        after = until;
    }
}

async fn read_partition(
    connection: Arc<DatabaseTransaction>,
    partition: (Key, Key),
    progress: Arc<VerifyProgress>,
    comparison: Arc<Comparison>,
) -> Result<LedgerTotals, VerifyError> {
    let kind = DatabaseKind::of(&*connection);
    let values = key_values(&partition);
    let columns = records::request_columns(kind);
    let mut page = read_packed(&*connection, &columns, PARTITION, values.clone()).await?;
    let are_requests = page.rows().is_ok_and(|rows| {
        let mut rows = rows.map(records::is_request);
        rows.by_ref().take(page.count).all(|is_request| is_request) && rows.next().is_none()
    });
    if !are_requests {
        page =
            read_packed(&*connection, &records::applied_columns(kind), PARTITION, values.clone())
                .await?;
    }
    let mut names_read = 0;
    for row in page.rows()? {
        if let Some(Applied { transaction_id, kind, names }) = read(row)? {
            names_read += names.len();
            let names = names.iter().map(|Name(account_id, sequence)| (&**account_id, *sequence));
            comparison.add_request(transaction_id, kind, names);
        }
    }
    progress.read.fetch_add(names_read as u64, Ordering::Relaxed);
    if !are_requests {
        records::verify_requests(&connection, values).await?;
    }
    Ok(LedgerTotals { requests: page.count as u64, ..LedgerTotals::default() })
}

async fn look_up_partition(
    connection: Arc<DatabaseTransaction>,
    partition: (Key, Key),
    progress: Arc<VerifyProgress>,
    comparison: Arc<Comparison>,
) -> Result<LedgerTotals, VerifyError> {
    let columns = records::applied_columns(DatabaseKind::of(&*connection));
    let page = read_packed(&*connection, &columns, PARTITION, key_values(&partition)).await?;
    let mut undecided = Vec::new();
    for row in page.rows()? {
        let applied = read(row)?;
        undecided.extend(applied.filter(|it| comparison.is_undecided(it.transaction_id)));
    }
    let names: Vec<&Name<'_>> = undecided.iter().flat_map(|it| &it.names).collect();
    let found = find(&connection, &names).await?;
    progress.read.fetch_add(names.len() as u64, Ordering::Relaxed);
    let mut totals = LedgerTotals::default();
    let mut found = found.iter();
    for request in &undecided {
        check(request, &mut found, &mut totals)?;
    }
    Ok(totals)
}

fn key_values((after, until): &(Key, Key)) -> [Value; 4] {
    [&after.0, &after.1, &until.0, &until.1].map(|it| it.as_str().into())
}

/// The request of a row of [`records::applied_columns`]; None for one without entries that should have none.
fn read(row: &str) -> Result<Option<Applied<'_>>, VerifyError> {
    let mut columns = columns(row);
    let mut next = || columns.next().unwrap_or_default();
    let transaction_id = Uuid::try_parse(next()).unwrap_or_default();
    let fault = |description: String| LedgerFault::Transaction { transaction_id, description };
    let (kind, is_applied, names) = (next(), next() == "1", next());
    let names: Vec<Name<'_>> = serde_json::from_str(names)
        .map_err(|_| fault("its column entry_names cannot be read".to_owned()))?;
    let transaction_kind = TransactionKind::of_kind(kind).map_err(fault)?;
    match transaction_kind.filter(|_| is_applied) {
        Some(kind) => Ok(Some(Applied { transaction_id, kind, names })),
        None if names.is_empty() => Ok(None),
        None => {
            let why = if is_applied { kind } else { "rejected" };
            let count = names.len();
            Err(fault(format!("it is {why} but names {count} entries")).into())
        }
    }
}

/// Verifies a request against its entries, which are the next ones of `found`.
fn check<'a>(
    request: &Applied<'_>,
    found: &mut impl Iterator<Item = &'a Option<NamedEntry>>,
    totals: &mut LedgerTotals,
) -> Result<(), VerifyError> {
    let transaction_id = request.transaction_id;
    let mut amounts: Vec<(&Currency, Amount)> = Vec::with_capacity(request.names.len());
    for Name(account_id, sequence) in &request.names {
        let fault = |description: String| LedgerFault::Entry {
            account_id: AccountId::from_stored(account_id),
            sequence: *sequence,
            description,
        };
        let Some(entry) = found.next().and_then(Option::as_ref) else {
            let description = format!("it is missing, but transaction {transaction_id} names it");
            return Err(fault(description).into());
        };
        if entry.transaction_id != transaction_id {
            let other = entry.transaction_id;
            return Err(fault(format!(
                "it belongs to transaction {other}, but transaction {transaction_id} names it"
            ))
            .into());
        }
        let unreadable = || fault("its column amount cannot be read".to_owned());
        let (currency, amount) = entry.amount.as_ref().ok_or_else(unreadable)?;
        amounts.push((currency, *amount));
    }
    let fault = |description| LedgerFault::Transaction { transaction_id, description };
    let distinct: HashSet<&Name<'_>> = request.names.iter().collect();
    if distinct.len() != request.names.len() {
        return Err(fault("it names an entry twice".to_owned()).into());
    }
    request.kind.check(&amounts).map_err(fault)?;
    for (currency, amount) in amounts {
        let totals = totals.totals(currency);
        totals.entries += 1;
        // A partition has far too few entries to overflow.
        totals.by_kind[request.kind as usize] += amount.units();
    }
    Ok(())
}

/// The entries with these names, in their order; None for a missing one.
async fn find(
    connection: &DatabaseTransaction,
    names: &[&Name<'_>],
) -> Result<Vec<Option<NamedEntry>>, VerifyError> {
    let kind = DatabaseKind::of(connection);
    let (from, position) = match kind {
        DatabaseKind::Sqlite => (
            "FROM json_each($1) n \
                JOIN entries e ON e.account_id = n.value->>0 AND e.sequence = n.value->>1 \
                JOIN accounts a ON a.account_id = e.account_id",
            "n.key",
        ),
        DatabaseKind::Postgres => (
            "FROM UNNEST($1::text[], $2::bigint[]) WITH ORDINALITY \
                    AS n(account_id, sequence, position) \
                JOIN entries e ON e.account_id = n.account_id COLLATE \"C\" \
                    AND e.sequence = n.sequence \
                JOIN accounts a ON a.account_id = e.account_id",
            "n.position - 1",
        ),
    };
    let values = kind
        .pairs(names.iter().map(|Name(account_id, sequence)| (account_id.to_string(), *sequence)));
    let id = kind.uuid_text("e.transaction_id");
    let found_columns = format!("{position}, {id}, a.currency_code, a.currency_scale, e.amount");
    let page = read_packed(connection, &found_columns, from, values).await?;
    let mut found: Vec<Option<NamedEntry>> = Vec::with_capacity(names.len());
    found.resize_with(names.len(), || None);
    // Few currencies, each with many entries.
    let mut currencies: Vec<Currency> = Vec::new();
    for row in page.rows()? {
        let mut columns = columns(row);
        let mut next = || columns.next().unwrap_or_default();
        let position: usize = next().parse().unwrap_or(usize::MAX);
        let transaction_id = Uuid::try_parse(next()).unwrap_or_default();
        let (code, scale) = (next(), next().parse().unwrap_or(u32::MAX));
        let known = currencies.iter().find(|it| it.code() == code && it.scale() == scale);
        let currency = known.cloned().unwrap_or_else(|| Currency::from_parts(code, scale));
        if known.is_none() {
            currencies.push(currency.clone());
        }
        let amount = amount_of(next(), &currency).map(|amount| (currency, amount));
        if let Some(entry) = found.get_mut(position) {
            *entry = Some(NamedEntry { transaction_id, amount });
        }
    }
    Ok(found)
}
