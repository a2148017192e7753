//! Decodes every column of requests and holds as a server does when it answers from them.

use sea_orm::{
    ConnectionTrait, DatabaseTransaction, FromQueryResult, QueryResult, TryGetable, Value,
};

use crate::{
    domain::verification::LedgerFault,
    storage::{
        StorageError,
        dialect::DatabaseKind,
        entity::{currencies::currency, holds, requests},
        error::undecodable_column,
        tables::{HOLDS, REQUESTS},
        verify::error::VerifyError,
    },
};

/// Rows of `holds` in one page.
const HOLD_PAGE: usize = 1000;

/// Decodes the requests in a range of keys: `(caller, request_id)` from `$1, $2`, exclusive, to
/// `$3, $4`, inclusive.
pub async fn verify_requests(
    connection: &DatabaseTransaction,
    range: impl IntoIterator<Item = Value>,
) -> Result<(), VerifyError> {
    let columns = REQUESTS.column_list("r.");
    let sql = format!(
        "SELECT {columns}, h.hold_id IS NOT NULL AS has_hold FROM requests r \
             LEFT JOIN holds h ON h.hold_id = r.hold_id \
         WHERE (r.caller, r.request_id) > ($1, $2) AND (r.caller, r.request_id) <= ($3, $4) \
         ORDER BY r.caller, r.request_id"
    );
    let statement = DatabaseKind::of(connection).statement(sql, range);
    for row in connection.query_all_raw(statement).await? {
        let has_hold: bool = row.try_get("", "has_hold")?;
        decode(&row, |row: requests::Model| row.check(has_hold)).map_err(|description| {
            LedgerFault::Transaction { transaction_id: key(&row, "transaction_id"), description }
        })?;
    }
    Ok(())
}

/// Decodes all holds. Each has its account.
pub async fn verify_holds(connection: &DatabaseTransaction) -> Result<(), VerifyError> {
    let kind = DatabaseKind::of(connection);
    let columns = HOLDS.column_list("h.");
    let page = format!(
        "SELECT {columns}, a.currency_code, a.currency_scale FROM holds h \
             JOIN accounts a ON a.account_id = h.account_id \
         WHERE h.hold_id > $1 ORDER BY h.hold_id LIMIT {HOLD_PAGE}"
    );
    let mut after = String::new();
    loop {
        let statement = kind.statement(page.as_str(), [after.as_str().into()]);
        let rows = connection.query_all_raw(statement).await?;
        for row in &rows {
            after = key(row, "hold_id");
            let code: String = row.try_get("", "currency_code")?;
            let currency = currency(&code, row.try_get("", "currency_scale")?)?;
            decode(row, |row: holds::Model| row.into_hold(&currency))
                .map_err(|description| LedgerFault::Hold { hold_id: after.clone(), description })?;
        }
        if rows.len() < HOLD_PAGE {
            return Ok(());
        }
    }
}

/// Decodes a row, or says why it cannot be decoded.
pub fn decode<Model: FromQueryResult, T>(
    row: &QueryResult,
    decode: impl FnOnce(Model) -> Result<T, StorageError>,
) -> Result<T, String> {
    let model = Model::from_query_result(row, "").map_err(|error| {
        let column = undecodable_column(&error).unwrap_or("of unknown name");
        format!("its column {column} cannot be read")
    })?;
    decode(model).map_err(|error| error.to_string())
}

/// A column of the row's key, with a default in place of a value that cannot be read.
pub fn key<T: TryGetable + Default>(row: &QueryResult, column: &str) -> T {
    row.try_get("", column).unwrap_or_default()
}
