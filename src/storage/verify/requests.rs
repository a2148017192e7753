//! Every request against the entries that it names.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, QueryResult, Statement};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{LAST, VerifyError, VerifyProgress, pieces, rows::get, sql};
use crate::{
    domain::{
        books::{Books, BooksFault, Movement},
        ids::AccountId,
        money::{Amount, Currency},
    },
    storage::entity::{currencies::currency, number::Number, requests::EntryName},
};

/// Requests read at a time: with a hundred entries each, still some tens of megabytes.
const PIECE: usize = 5000;

/// The place of a request: its caller and its id.
type Key = (String, String);

/// A request that was applied and moves money.
struct Applied {
    transaction_id: Uuid,
    movement: Movement,
    names: Vec<EntryName>,
}

/// What an entry that was found by its name says.
struct Found {
    transaction_id: Uuid,
    amount: Number,
}

/// Looks up what every request names.
pub async fn verify(
    connections: &[Arc<DatabaseTransaction>],
    progress: &Arc<VerifyProgress>,
) -> Result<Books, VerifyError> {
    let progress = progress.clone();
    let work = move |connection, piece| look_up(connection, piece, progress.clone());
    pieces::share(connections, cut, work).await
}

/// Pieces are from one key, exclusive, to another, inclusive.
async fn cut(
    connection: Arc<DatabaseTransaction>,
    pieces: mpsc::Sender<(Key, Key)>,
) -> Result<(), VerifyError> {
    let backend = connection.get_database_backend();
    let offset = PIECE - 1;
    let end_sql = sql(
        backend,
        &format!(
            "SELECT caller, request_id FROM requests WHERE (caller, request_id) > ({{1}}, {{2}}) \
             ORDER BY caller, request_id LIMIT 1 OFFSET {offset}"
        ),
    );
    let mut after: Key = Key::default();
    loop {
        let values = [after.0.as_str().into(), after.1.as_str().into()];
        let statement = Statement::from_sql_and_values(backend, end_sql.as_str(), values);
        let end = connection.query_one_raw(statement).await?;
        let is_last = end.is_none();
        let until = match end {
            Some(row) => (row.try_get_by_index(0)?, row.try_get_by_index(1)?),
            None => (LAST.to_owned(), String::new()),
        };
        if pieces.send((after, until.clone())).await.is_err() || is_last {
            return Ok(());
        }
        after = until;
    }
}

async fn look_up(
    connection: Arc<DatabaseTransaction>,
    (after, until): (Key, Key),
    progress: Arc<VerifyProgress>,
) -> Result<Books, VerifyError> {
    let backend = connection.get_database_backend();
    let names = match backend {
        DbBackend::Sqlite => "entry_names",
        _ => "entry_names::text",
    };
    let sql = sql(
        backend,
        &format!(
            "SELECT transaction_id, kind, rejection IS NULL, {names}, request_id FROM requests \
             WHERE (caller, request_id) > ({{1}}, {{2}}) AND (caller, request_id) <= ({{3}}, {{4}}) \
             ORDER BY caller, request_id"
        ),
    );
    let values = [&after.0, &after.1, &until.0, &until.1].map(|it| it.as_str().into());
    let statement = Statement::from_sql_and_values(backend, sql, values);
    let rows = connection.query_all_raw(statement).await?;
    let mut applied = Vec::with_capacity(rows.len());
    for row in &rows {
        applied.extend(read(row)?);
    }
    let named = applied.iter().flat_map(|it| &it.names).collect::<Vec<_>>();
    let found = entries(&connection, &named).await?;
    let currencies = currencies(&connection, &named).await?;
    progress.looked_at.fetch_add(found.len() as u64, Ordering::Relaxed);
    let mut books = Books { requests: rows.len() as u64, ..Books::default() };
    let mut place = 0;
    for request in &applied {
        check(request, &found, place, &currencies, &mut books)?;
        place += request.names.len();
    }
    Ok(books)
}

/// The request of a row; None if it has no entries and should have none.
fn read(row: &QueryResult) -> Result<Option<Applied>, VerifyError> {
    let transaction_id: Uuid = row.try_get_by_index(0)?;
    let fault = |description: String| BooksFault::Transaction { transaction_id, description };
    let unreadable = |column: &str| fault(format!("its column {column} cannot be read"));
    let kind: String = get(row, 1, "kind").map_err(unreadable)?;
    let is_applied: bool = get(row, 2, "rejection").map_err(unreadable)?;
    let names: String = get(row, 3, "entry_names").map_err(unreadable)?;
    let names: Vec<EntryName> =
        serde_json::from_str(&names).map_err(|_| unreadable("entry_names"))?;
    let movement = Movement::of_kind(&kind).map_err(fault)?;
    match movement.filter(|_| is_applied) {
        Some(movement) => Ok(Some(Applied { transaction_id, movement, names })),
        None if names.is_empty() => Ok(None),
        None => {
            let why = if is_applied { kind.as_str() } else { "refused" };
            let count = names.len();
            Err(fault(format!("it is {why}, and names {count} entries; it should have none"))
                .into())
        }
    }
}

fn check(
    request: &Applied,
    found: &HashMap<usize, Found>,
    place: usize,
    currencies: &HashMap<AccountId, Currency>,
    books: &mut Books,
) -> Result<(), VerifyError> {
    let transaction_id = request.transaction_id;
    let mut amounts: Vec<(&Currency, Amount)> = Vec::with_capacity(request.names.len());
    for (index, (account_id, sequence)) in request.names.iter().enumerate() {
        let fault = |description: String| BooksFault::Entry {
            account_id: account_id.clone(),
            sequence: *sequence,
            description,
        };
        let entry = found.get(&(place + index));
        let (Some(entry), Some(currency)) = (entry, currencies.get(account_id)) else {
            return Err(
                fault(format!("it is missing: transaction {transaction_id} names it")).into()
            );
        };
        if entry.transaction_id != transaction_id {
            let other = entry.transaction_id;
            return Err(fault(format!(
                "it is of transaction {other}; transaction {transaction_id} names it"
            ))
            .into());
        }
        let unreadable = || fault("its column amount cannot be read".to_owned());
        amounts.push((currency, currency.amount(entry.amount.0).ok_or_else(unreadable)?));
    }
    let fault = |description| BooksFault::Transaction { transaction_id, description };
    let distinct: HashSet<&EntryName> = request.names.iter().collect();
    if distinct.len() != request.names.len() {
        return Err(fault("it names an entry twice".to_owned()).into());
    }
    request.movement.check(&amounts).map_err(fault)?;
    for (currency, amount) in amounts {
        let totals = books.totals(currency);
        totals.entries += 1;
        // A piece has far too few entries to overflow.
        totals.movements[request.movement as usize] += amount.decimal().mantissa();
    }
    Ok(())
}

/// The entries with these names, by their places in the list.
async fn entries(
    connection: &DatabaseTransaction,
    names: &[&EntryName],
) -> Result<HashMap<usize, Found>, VerifyError> {
    let backend = connection.get_database_backend();
    let statement = match backend {
        DbBackend::Sqlite => {
            let sql = "SELECT n.key, e.transaction_id, e.amount FROM json_each(?1) n \
                JOIN entries e ON e.account_id = n.value->>0 AND e.sequence = n.value->>1";
            let names = serde_json::json!(names).to_string();
            Statement::from_sql_and_values(backend, sql, [names.into()])
        }
        _ => {
            let sql = "SELECT n.place - 1, e.transaction_id, e.amount \
                FROM UNNEST($1::text[], $2::bigint[]) WITH ORDINALITY \
                    AS n(account_id, sequence, place) \
                JOIN entries e ON e.account_id = n.account_id COLLATE \"C\" \
                    AND e.sequence = n.sequence";
            let accounts: Vec<String> = names.iter().map(|(id, _)| id.to_string()).collect();
            let sequences: Vec<i64> = names.iter().map(|(_, sequence)| *sequence).collect();
            Statement::from_sql_and_values(backend, sql, [accounts.into(), sequences.into()])
        }
    };
    let mut found = HashMap::with_capacity(names.len());
    for row in connection.query_all_raw(statement).await? {
        let place: i64 = row.try_get_by_index(0)?;
        let entry =
            Found { transaction_id: row.try_get_by_index(1)?, amount: row.try_get_by_index(2)? };
        found.insert(usize::try_from(place).unwrap_or(usize::MAX), entry);
    }
    Ok(found)
}

/// The currencies of the accounts in these names.
async fn currencies(
    connection: &DatabaseTransaction,
    names: &[&EntryName],
) -> Result<HashMap<AccountId, Currency>, VerifyError> {
    let backend = connection.get_database_backend();
    let account_ids: BTreeSet<&str> = names.iter().map(|(id, _)| id.as_str()).collect();
    let columns = "a.account_id, a.currency_code, a.currency_scale";
    let statement = match backend {
        DbBackend::Sqlite => {
            let sql = format!(
                "SELECT {columns} FROM json_each(?1) n JOIN accounts a ON a.account_id = n.value"
            );
            let account_ids = serde_json::json!(account_ids).to_string();
            Statement::from_sql_and_values(backend, sql, [account_ids.into()])
        }
        _ => {
            let sql = format!(
                "SELECT {columns} FROM UNNEST($1::text[]) AS n(account_id) \
                 JOIN accounts a ON a.account_id = n.account_id COLLATE \"C\""
            );
            let account_ids: Vec<String> = account_ids.into_iter().map(str::to_owned).collect();
            Statement::from_sql_and_values(backend, sql, [account_ids.into()])
        }
    };
    let mut currencies = HashMap::new();
    for row in connection.query_all_raw(statement).await? {
        let account_id: String = row.try_get_by_index(0)?;
        let code: String = row.try_get_by_index(1)?;
        let currency = currency(&code, row.try_get_by_index(2)?)?;
        currencies.insert(AccountId::from_stored(&account_id), currency);
    }
    Ok(currencies)
}
