//! Verification of every request against the entries that it names.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use sea_orm::{ConnectionTrait, DatabaseTransaction};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::storage::verify::{
    error::VerifyError,
    partitions::{self, LAST},
    progress::VerifyProgress,
    records,
    rows::{amount_of, read_packed, unknown_account},
};
use crate::{
    domain::{
        money::{Amount, Currency},
        transaction::TransactionKind,
        verification::{LedgerFault, LedgerTotals},
    },
    storage::{
        dialect::DatabaseKind,
        entity::requests::{EntryKey, parse_entry_keys},
        queries::accounts,
    },
};

/// Requests in a partition: some tens of megabytes even with a hundred entries each.
const PARTITION_REQUESTS: usize = 5000;

/// The key of a request: its caller and its id.
type Key = (String, String);

/// An applied request that moves money.
struct Applied {
    transaction_id: Uuid,
    movement: TransactionKind,
    names: Vec<EntryKey>,
}

/// An entry that a request names; without an amount if that cannot be read.
struct NamedEntry {
    transaction_id: Uuid,
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

/// Verifies all requests.
pub async fn verify(
    connections: &[Arc<DatabaseTransaction>],
    progress: &Arc<VerifyProgress>,
) -> Result<LedgerTotals, VerifyError> {
    let progress = progress.clone();
    let work = move |connection, partition| look_up(connection, partition, progress.clone());
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

async fn look_up(
    connection: Arc<DatabaseTransaction>,
    (after, until): (Key, Key),
    progress: Arc<VerifyProgress>,
) -> Result<LedgerTotals, VerifyError> {
    let kind = DatabaseKind::of(&*connection);
    let id = kind.uuid_text("transaction_id");
    let is_applied = "CASE WHEN rejection IS NULL THEN 1 ELSE 0 END";
    let from = "FROM requests WHERE (caller, request_id) > ($1, $2) \
        AND (caller, request_id) <= ($3, $4) ORDER BY caller, request_id";
    let columns = format!("{id}, kind, {is_applied}, entry_keys");
    let values = [&after.0, &after.1, &until.0, &until.1].map(|it| it.as_str().into());
    let page = read_packed(&*connection, &columns, from, values.clone()).await?;
    let mut applied = Vec::with_capacity(page.count);
    for line in page.text.lines() {
        applied.extend(read(line)?);
    }
    let named: Vec<EntryKey> = applied.iter().flat_map(|it| &it.names).copied().collect();
    let found = find(&connection, &named).await?;
    progress.looked_at.fetch_add(named.len() as u64, Ordering::Relaxed);
    let mut totals = LedgerTotals { requests: page.count as u64, ..LedgerTotals::default() };
    let mut found = found.iter();
    for request in &applied {
        if let Err(fault) = check(request, &mut found, &mut totals) {
            return Err(fault.of_ledger(&connection).await?.into());
        }
    }
    records::verify_requests(&connection, values).await?;
    Ok(totals)
}

/// The request of a line; None for one without entries that should have none.
fn read(line: &str) -> Result<Option<Applied>, VerifyError> {
    let mut columns = line.splitn(4, ' ');
    let mut next = || columns.next().unwrap_or_default();
    let transaction_id = Uuid::try_parse(next()).unwrap_or_default();
    let fault = |description: String| LedgerFault::Transaction { transaction_id, description };
    let (kind, is_applied, names) = (next(), next() == "1", next());
    let names = parse_entry_keys(names)
        .ok_or_else(|| fault("its column entry_keys cannot be read".to_owned()))?;
    let movement = TransactionKind::of_kind(kind).map_err(fault)?;
    match movement.filter(|_| is_applied) {
        Some(movement) => Ok(Some(Applied { transaction_id, movement, names })),
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
    request: &Applied,
    found: &mut impl Iterator<Item = &'a Option<NamedEntry>>,
    totals: &mut LedgerTotals,
) -> Result<(), RequestFault> {
    let transaction_id = request.transaction_id;
    let mut amounts: Vec<(&Currency, Amount)> = Vec::with_capacity(request.names.len());
    for key in &request.names {
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
        let unreadable = || fault("its column amount cannot be read".to_owned());
        let (currency, amount) = entry.amount.as_ref().ok_or_else(unreadable)?;
        amounts.push((currency, *amount));
    }
    let fault = |description| RequestFault::Transaction(transaction_id, description);
    let distinct: HashSet<&EntryKey> = request.names.iter().collect();
    if distinct.len() != request.names.len() {
        return Err(fault("it names an entry twice".to_owned()));
    }
    request.movement.check(&amounts).map_err(fault)?;
    for (currency, amount) in amounts {
        let totals = totals.totals(currency);
        totals.entries += 1;
        // A partition has far too few entries to overflow.
        totals.by_kind[request.movement as usize] += amount.decimal().mantissa();
    }
    Ok(())
}

/// The entries with these names, in their order; None for a missing one.
async fn find(
    connection: &DatabaseTransaction,
    names: &[EntryKey],
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
    let values = kind.pairs(names.iter().copied());
    let id = kind.uuid_text("e.transaction_id");
    let columns = format!("{position}, {id}, a.currency_code, a.currency_scale, e.amount");
    let page = read_packed(connection, &columns, from, values).await?;
    let mut found: Vec<Option<NamedEntry>> = Vec::with_capacity(names.len());
    found.resize_with(names.len(), || None);
    // Few currencies, each with many entries.
    let mut currencies: Vec<Currency> = Vec::new();
    for line in page.text.lines() {
        let mut columns = line.splitn(5, ' ');
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
