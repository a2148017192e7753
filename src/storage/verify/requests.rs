//! Verification of every request, and of the entries that it names.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use sea_orm::{ConnectionTrait, DatabaseTransaction, Value};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::storage::verify::{
    error::VerifyError,
    partitions,
    progress::VerifyProgress,
    records,
    rows::{amount_of, columns, read_packed, unknown_account},
};
use crate::{
    domain::{
        money::{Amount, Currency},
        transaction::TransactionKind,
        verification::{Comparison, LedgerFault, LedgerTotals},
    },
    storage::{
        dialect::DatabaseKind,
        entity::requests::{EntryKey, parse_entry_keys},
        queries::accounts,
    },
};

/// Requests in a partition: some tens of megabytes even with a hundred entries each, and usually half a
/// megabyte, so that memory is used again without a call of the system.
const PARTITION_REQUESTS: usize = 2500;

/// The first `$3` requests with keys above `$1, $2`. A limit ends the scan: with the condition
/// `(caller, request_id) <= (..)`, PostgreSQL 15 reads the index on to the end of the caller.
const PARTITION: &str = "FROM requests r WHERE (r.caller, r.request_id) > ($1, $2) \
    ORDER BY r.caller, r.request_id LIMIT $3";

/// The key of a request: its caller and its id.
type Key = (String, String);

/// An applied request that moves money.
struct Applied {
    transaction_id: Uuid,
    kind: TransactionKind,
    create_time_us: i64,
    entry_keys: Vec<EntryKey>,
}

/// An entry that a request names; without an amount if that cannot be read.
struct NamedEntry {
    transaction_id: Uuid,
    create_time_us: i64,
    amount: Option<(Currency, Amount)>,
}

/// A fault of a request, or of an entry that it names.
enum RequestFault {
    Entry(EntryKey, String),
    Transaction(Uuid, String),
}

impl RequestFault {
    /// The same with the id of the entry's account.
    async fn of_ledger(self, connection: &DatabaseTransaction) -> Result<LedgerFault, VerifyError> {
        Ok(match self {
            Self::Entry((account_key, sequence), description) => {
                let ids = accounts::ids(connection, [account_key].into_iter()).await?;
                let account_id = ids.get(&account_key).cloned();
                let account_id = account_id.unwrap_or_else(|| unknown_account(account_key));
                LedgerFault::Entry { account_id, sequence, description }
            }
            Self::Transaction(transaction_id, description) => {
                LedgerFault::Transaction { transaction_id, description }
            }
        })
    }
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

/// A partition begins behind a key. Each has `PARTITION_REQUESTS` requests, the last one fewer.
async fn partition_all(
    connection: Arc<DatabaseTransaction>,
    partitions: mpsc::Sender<Key>,
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
        if partitions.send(after).await.is_err() {
            return Ok(());
        }
        let Some(end) = end else { return Ok(()) };
        after = (end.try_get_by_index(0)?, end.try_get_by_index(1)?);
    }
}

async fn read_partition(
    connection: Arc<DatabaseTransaction>,
    partition: Key,
    progress: Arc<VerifyProgress>,
    comparison: Arc<Comparison>,
) -> Result<LedgerTotals, VerifyError> {
    let kind = DatabaseKind::of(&*connection);
    let values = values(&partition);
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
        if let Some(Applied { transaction_id, kind, create_time_us, entry_keys }) = read(row)? {
            names_read += entry_keys.len();
            comparison.add_request(transaction_id, kind, create_time_us, &entry_keys);
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
    partition: Key,
    progress: Arc<VerifyProgress>,
    comparison: Arc<Comparison>,
) -> Result<LedgerTotals, VerifyError> {
    let columns = records::applied_columns(DatabaseKind::of(&*connection));
    let page = read_packed(&*connection, &columns, PARTITION, values(&partition)).await?;
    let mut undecided = Vec::new();
    for row in page.rows()? {
        let applied = read(row)?;
        undecided.extend(applied.filter(|it| comparison.is_undecided(it.transaction_id)));
    }
    let named: Vec<EntryKey> = undecided.iter().flat_map(|it| &it.entry_keys).copied().collect();
    let found = find(&connection, &named).await?;
    progress.read.fetch_add(named.len() as u64, Ordering::Relaxed);
    let mut totals = LedgerTotals::default();
    let mut found = found.iter();
    for request in &undecided {
        if let Err(fault) = check(request, &mut found, &mut totals) {
            return Err(fault.of_ledger(&connection).await?.into());
        }
    }
    Ok(totals)
}

fn values((caller, request_id): &Key) -> [Value; 3] {
    [caller.as_str().into(), request_id.as_str().into(), (PARTITION_REQUESTS as i64).into()]
}

/// The request of a row of [`records::applied_columns`]; None for one without entries that should have none.
fn read(row: &str) -> Result<Option<Applied>, VerifyError> {
    let mut columns = columns(row);
    let mut next = || columns.next().unwrap_or_default();
    let transaction_id = Uuid::try_parse(next()).unwrap_or_default();
    let fault = |description: String| LedgerFault::Transaction { transaction_id, description };
    let (kind, is_applied, entry_keys) = (next(), next() == "1", next());
    // A time that cannot be read is found where every column is decoded.
    let create_time_us: i64 = next().parse().unwrap_or_default();
    let entry_keys = parse_entry_keys(entry_keys)
        .ok_or_else(|| fault("its column entry_keys cannot be read".to_owned()))?;
    let transaction_kind = TransactionKind::of_kind(kind).map_err(fault)?;
    match transaction_kind.filter(|_| is_applied) {
        Some(kind) => Ok(Some(Applied { transaction_id, kind, create_time_us, entry_keys })),
        None if entry_keys.is_empty() => Ok(None),
        None => {
            let why = if is_applied { kind } else { "rejected" };
            let count = entry_keys.len();
            Err(fault(format!("it is {why} but names {count} entries")).into())
        }
    }
}

/// Verifies a request against its entries, which are the next ones of `found`.
fn check<'a>(
    request: &Applied,
    found: &mut impl Iterator<Item = &'a Option<NamedEntry>>,
    totals: &mut LedgerTotals,
) -> Result<(), RequestFault> {
    let transaction_id = request.transaction_id;
    let mut amounts: Vec<(&Currency, Amount)> = Vec::with_capacity(request.entry_keys.len());
    for key in &request.entry_keys {
        let fault = |description: String| RequestFault::Entry(*key, description);
        let Some(entry) = found.next().and_then(Option::as_ref) else {
            let description = format!("it is missing, but transaction {transaction_id} names it");
            return Err(fault(description));
        };
        if entry.transaction_id != transaction_id {
            let other = entry.transaction_id;
            return Err(fault(format!(
                "it belongs to transaction {other}, but transaction {transaction_id} names it"
            )));
        }
        if entry.create_time_us != request.create_time_us {
            let (own, expected) = (entry.create_time_us, request.create_time_us);
            return Err(fault(format!(
                "its create_time is {own} microseconds since 1970, but that of the request of transaction \
                 {transaction_id} is {expected}"
            )));
        }
        let unreadable = || fault("its column amount cannot be read".to_owned());
        let (currency, amount) = entry.amount.as_ref().ok_or_else(unreadable)?;
        amounts.push((currency, *amount));
    }
    let fault = |description| RequestFault::Transaction(transaction_id, description);
    let distinct: HashSet<&EntryKey> = request.entry_keys.iter().collect();
    if distinct.len() != request.entry_keys.len() {
        return Err(fault("it names an entry twice".to_owned()));
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

/// The entries with these keys, in their order; None for a missing one.
async fn find(
    connection: &DatabaseTransaction,
    keys: &[EntryKey],
) -> Result<Vec<Option<NamedEntry>>, VerifyError> {
    let kind = DatabaseKind::of(connection);
    let (from, position) = match kind {
        DatabaseKind::Sqlite => (
            "FROM json_each($1) n \
                JOIN entries e ON e.account_key = n.value->>0 AND e.sequence = n.value->>1 \
                JOIN accounts a ON a.account_key = e.account_key",
            "n.key",
        ),
        DatabaseKind::Postgres => (
            "FROM UNNEST($1::bigint[], $2::bigint[]) WITH ORDINALITY \
                    AS n(account_key, sequence, position) \
                JOIN entries e ON e.account_key = n.account_key AND e.sequence = n.sequence \
                JOIN accounts a ON a.account_key = e.account_key",
            "n.position - 1",
        ),
    };
    let values = kind.pairs(keys.iter().copied());
    let id = kind.uuid_text("e.transaction_id");
    let found_columns =
        format!("{position}, {id}, e.create_time_us, a.currency_code, a.currency_scale, e.amount");
    let page = read_packed(connection, &found_columns, from, values).await?;
    let mut found: Vec<Option<NamedEntry>> = Vec::with_capacity(keys.len());
    found.resize_with(keys.len(), || None);
    // Few currencies, each with many entries.
    let mut currencies: Vec<Currency> = Vec::new();
    for row in page.rows()? {
        let mut columns = columns(row);
        let mut next = || columns.next().unwrap_or_default();
        let position: usize = next().parse().unwrap_or(usize::MAX);
        let transaction_id = Uuid::try_parse(next()).unwrap_or_default();
        let create_time_us: i64 = next().parse().unwrap_or_default();
        let (code, scale) = (next(), next().parse().unwrap_or(u32::MAX));
        let known = currencies.iter().find(|it| it.code() == code && it.scale() == scale);
        let currency = known.cloned().unwrap_or_else(|| Currency::from_parts(code, scale));
        if known.is_none() {
            currencies.push(currency.clone());
        }
        let amount = amount_of(next(), &currency).map(|amount| (currency, amount));
        if let Some(entry) = found.get_mut(position) {
            *entry = Some(NamedEntry { transaction_id, create_time_us, amount });
        }
    }
    Ok(found)
}
