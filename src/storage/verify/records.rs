//! Decodes every column of requests and holds as a server does when it answers from them.

use std::fmt::Display;

use sea_orm::{
    ConnectionTrait, DatabaseTransaction, FromQueryResult, QueryResult, TryGetable, Value,
};

use crate::{
    domain::{
        effective_time::TIMES_US,
        fingerprint::FINGERPRINT_LENGTH,
        hold::Hold,
        ids::{Identity, RequestId},
        rejection::Rejection,
        text::{are_stored_labels, is_stored_text},
        verification::LedgerFault,
    },
    storage::{
        StorageError,
        dialect::DatabaseKind,
        entity::{
            accounts::{OF_ACCOUNT, account_of},
            details::StoredDetails,
            holds,
            requests::{self, ColumnsOfKind},
        },
        error::undecodable_column,
        tables::{Column, ColumnType, HOLDS, REQUESTS},
        verify::{error::VerifyError, rows::columns},
    },
};

/// Rows of `holds` in one page.
const HOLD_PAGE: usize = 1000;

/// The columns of `requests r` that say which entries a request has, and their time.
pub fn applied_columns(kind: DatabaseKind) -> String {
    let id = kind.uuid_text("r.transaction_id");
    format!(
        "{id}, r.kind, CASE WHEN r.rejection IS NULL THEN 1 ELSE 0 END, r.entry_keys, \
         r.create_time_us"
    )
}

/// Those columns, and the others that [`is_request`] reads. An empty text stands for null.
pub fn request_columns(kind: DatabaseKind) -> String {
    let (applied, has_values) = (applied_columns(kind), has_values(kind));
    let (labels, details) = (kind.text("r.labels"), kind.text("r.details"));
    format!(
        "{applied}, CASE WHEN {has_values} AND octet_length(r.fingerprint) = {FINGERPRINT_LENGTH} THEN 1 ELSE 0 END, \
         r.request_id, COALESCE({labels}, ''), COALESCE(r.rejection, ''), \
         CASE WHEN r.hold_id IS NULL THEN 'none' \
             WHEN EXISTS (SELECT 1 FROM holds h WHERE h.hold_id = r.hold_id) THEN 'found' \
             ELSE 'missing' END, \
         r.caller, COALESCE({details}, ''), COALESCE(r.description, '')"
    )
}

/// The condition that the columns of `requests r` have values of their types, and that no text is empty
/// where it can be null. SQLite stores any value in any column.
fn has_values(kind: DatabaseKind) -> String {
    let has_value = |column: &Column| {
        let name = column.name;
        let has_type = match column.kind {
            _ if kind == DatabaseKind::Postgres => "true".to_owned(),
            ColumnType::Text | ColumnType::Json | ColumnType::Amount | ColumnType::AmountAsText => {
                format!("typeof(r.{name}) = 'text'")
            }
            ColumnType::SmallInteger | ColumnType::Integer | ColumnType::Flag => {
                format!("typeof(r.{name}) = 'integer'")
            }
            ColumnType::Bytes => format!("typeof(r.{name}) = 'blob'"),
            ColumnType::Uuid => {
                format!("typeof(r.{name}) = 'blob' AND octet_length(r.{name}) = 16")
            }
        };
        let text = kind.text(&format!("r.{name}"));
        match column.is_nullable {
            true => format!("(r.{name} IS NULL OR {has_type} AND {text} <> '')"),
            false => has_type,
        }
    };
    REQUESTS.columns.iter().map(has_value).collect::<Vec<_>>().join(" AND ")
}

/// Whether a row of [`request_columns`] is certainly one that a server can decode. If not,
/// [`verify_requests`] finds out.
pub fn is_request(row: &str) -> bool {
    let mut columns = columns(row);
    let mut next = || columns.next().unwrap_or_default();
    let (_, kind, is_applied, _, create_time_us) =
        (next(), next(), next() == "1", next(), next().parse());
    let (has_values, request_id, labels) = (next() == "1", next(), next());
    let (rejection, hold, caller, details, description) = (next(), next(), next(), next(), next());
    let of_kind = ColumnsOfKind::of(kind, is_applied);
    let details = match details {
        "" => Ok(StoredDetails::default()),
        json => serde_json::from_str(json),
    };
    has_values
        && hold == if of_kind.hold_id { "found" } else { "none" }
        && (is_applied || serde_json::from_str::<Rejection>(rejection).is_ok())
        && create_time_us.is_ok_and(|it| TIMES_US.contains(&it))
        && RequestId::parse(request_id).is_ok()
        && (labels.is_empty()
            || serde_json::from_str(labels).is_ok_and(|labels| are_stored_labels(&labels)))
        && is_stored_text(description)
        && Identity::is_stored(caller)
        && details.is_ok_and(|details| of_kind.fit(&details))
        && columns.next().is_none()
}

/// Decodes the first `$3` requests whose `(caller, request_id)` is above `$1, $2`.
pub async fn verify_requests(
    connection: &DatabaseTransaction,
    values: impl IntoIterator<Item = Value>,
) -> Result<(), VerifyError> {
    let columns = REQUESTS.column_list("r.");
    let sql = format!(
        "SELECT {columns}, h.hold_id IS NOT NULL AS has_hold FROM requests r \
             LEFT JOIN holds h ON h.hold_id = r.hold_id \
         WHERE (r.caller, r.request_id) > ($1, $2) ORDER BY r.caller, r.request_id LIMIT $3"
    );
    let statement = DatabaseKind::of(connection).statement(sql, values);
    for row in connection.query_all_raw(statement).await? {
        let has_hold: bool = row.try_get("", "has_hold")?;
        decode(&row, |row: requests::Model| row.check(has_hold)).map_err(|description| {
            LedgerFault::Transaction { transaction_id: key(&row, "transaction_id"), description }
        })?;
    }
    Ok(())
}

/// Decodes all holds, each of which has its account, and passes them on.
pub async fn for_each_hold(
    connection: &DatabaseTransaction,
    mut act: impl FnMut(&Hold),
) -> Result<(), VerifyError> {
    let kind = DatabaseKind::of(connection);
    let columns = HOLDS.column_list("h.");
    let page = format!(
        "SELECT {columns}, {OF_ACCOUNT} FROM holds h \
             JOIN accounts a ON a.account_key = h.account_key \
         WHERE h.hold_id > $1 ORDER BY h.hold_id LIMIT {HOLD_PAGE}"
    );
    let mut after = String::new();
    loop {
        let statement = kind.statement(page.as_str(), [after.as_str().into()]);
        let rows = connection.query_all_raw(statement).await?;
        for row in &rows {
            after = key(row, "hold_id");
            let (account_id, currency) = account_of(row)?;
            let hold = decode(row, |row: holds::Model| {
                let hold = row.into_hold(&account_id, &currency)?;
                let columns = [
                    ("description", is_stored_text(&hold.description)),
                    ("labels", are_stored_labels(&hold.labels)),
                    ("caller", Identity::is_stored(hold.created_by.as_str())),
                    ("end_caller", Identity::is_stored(hold.ended_by.as_str())),
                ];
                require(format_args!("hold {}", hold.hold_id), &columns)?;
                Ok(hold)
            });
            act(&hold.map_err(|description| {
                let hold_id = after.clone();
                LedgerFault::Hold { hold_id, description }
            })?);
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

/// Checks of each of these columns that some version can have written its text.
pub fn require(what: impl Display, columns: &[(&str, bool)]) -> Result<(), StorageError> {
    match columns.iter().find(|(_, is_written)| !is_written) {
        Some((column, _)) => Err(StorageError::Corrupt(format!("{what}: column {column}"))),
        None => Ok(()),
    }
}

/// A column of the row's key, with a default in place of a value that cannot be read.
pub fn key<T: TryGetable + Default>(row: &QueryResult, column: &str) -> T {
    row.try_get("", column).unwrap_or_default()
}
