//! The configured currencies, and the decimals they keep for ever.

use sea_orm::{ActiveValue::Set, EntityTrait, QueryOrder, sea_query::OnConflict};

use crate::{
    domain::money::Currency,
    storage::{
        StorageError, Store,
        entity::currencies::{ActiveModel, Column, Entity},
    },
};

/// A currency is configured with other decimals than the database's accounts have.
#[derive(Debug, thiserror::Error)]
#[error("currency {code} has {stored} decimals in this database and cannot be given {configured}")]
pub struct CurrencyConflict {
    /// The currency.
    pub code: String,
    /// Decimals in the database.
    pub stored: i16,
    /// Decimals in the configuration.
    pub configured: u32,
}

impl Store {
    /// Writes down the configured currencies that are new, and compares the others.
    ///
    /// # Errors
    /// The database does not answer; or, inside, the first that has other decimals there.
    pub async fn register_currencies<'a>(
        &self,
        configured: impl Iterator<Item = &'a Currency>,
    ) -> Result<Result<(), CurrencyConflict>, StorageError> {
        let configured: Vec<_> = configured.collect();
        if configured.is_empty() {
            return Ok(Ok(()));
        }
        let rows = configured.iter().map(|currency| ActiveModel {
            currency_code: Set(currency.code().to_owned()),
            // At most 27.
            currency_scale: Set(currency.scale() as i16),
        });
        Entity::insert_many(rows)
            .on_conflict(OnConflict::column(Column::CurrencyCode).do_nothing().to_owned())
            .exec_without_returning(&self.admin().await?)
            .await?;
        let stored = Entity::find().order_by_asc(Column::CurrencyCode).all(&self.readers).await?;
        Ok(stored
            .into_iter()
            .find_map(|row| {
                let currency = configured.iter().find(|it| it.code() == row.currency_code)?;
                (currency.scale() as i16 != row.currency_scale).then(|| CurrencyConflict {
                    code: row.currency_code.clone(),
                    stored: row.currency_scale,
                    configured: currency.scale(),
                })
            })
            .map_or(Ok(()), Err))
    }
}
