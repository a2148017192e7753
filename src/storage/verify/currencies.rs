//! Verification of the currencies that the database keeps. A server reads them when it starts.

use sea_orm::{ConnectionTrait, DatabaseTransaction};

use crate::{
    domain::verification::LedgerFault,
    storage::{
        dialect::DatabaseKind,
        entity::currencies::{Model, currency},
        tables::CURRENCIES,
        verify::{
            error::VerifyError,
            records::{decode, key},
        },
    },
};

/// Decodes all currencies, which are few.
pub async fn verify(connection: &DatabaseTransaction) -> Result<(), VerifyError> {
    let columns = CURRENCIES.column_list("");
    let sql = format!("SELECT {columns} FROM currencies ORDER BY currency_code");
    let statement = DatabaseKind::of(connection).statement(sql, []);
    for row in connection.query_all_raw(statement).await? {
        decode(&row, |row: Model| currency(&row.currency_code, row.currency_scale)).map_err(
            |description| LedgerFault::Currency {
                currency_code: key(&row, "currency_code"),
                description,
            },
        )?;
    }
    Ok(())
}
