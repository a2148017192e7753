//! The configured currencies and their decimals, which never change.

use sea_orm::{ActiveValue::Set, EntityTrait, QueryOrder, sea_query::OnConflict};

use crate::{
    domain::money::Currency,
    storage::{
        StorageError, Store,
        connect::session::Role,
        entity::currencies::{ActiveModel, Column, Entity, currency},
    },
};

/// A currency is configured with other decimals than the database has.
#[derive(Debug, thiserror::Error)]
#[error("currency {code} has {stored} decimals in this database and cannot be given {configured}")]
pub struct CurrencyConflict {
    /// The code of the currency.
    pub code: String,
    /// Decimals in the database.
    pub stored: i16,
    /// Decimals in the configuration.
    pub configured: u32,
}

impl Store {
    /// Records the configured currencies that are new and compares the others. Returns all recorded
    /// ones, which include those of all accounts.
    ///
    /// # Errors
    /// The database does not answer; or, inside, the first that has other decimals there.
    pub async fn register_currencies<'a>(
        &self,
        configured: impl Iterator<Item = &'a Currency>,
    ) -> Result<Result<Vec<Currency>, CurrencyConflict>, StorageError> {
        let configured: Vec<_> = configured.collect();
        if !configured.is_empty() {
            self.insert_currencies(&configured).await?;
        }
        let stored = Entity::find().order_by_asc(Column::CurrencyCode).all(&self.readers).await?;
        let conflict = stored.iter().find_map(|row| {
            let currency = configured.iter().find(|it| it.code() == row.currency_code)?;
            (currency.scale() as i16 != row.currency_scale).then(|| CurrencyConflict {
                code: row.currency_code.clone(),
                stored: row.currency_scale,
                configured: currency.scale(),
            })
        });
        if let Some(conflict) = conflict {
            return Ok(Err(conflict));
        }
        let kept = stored.iter().map(|row| currency(&row.currency_code, row.currency_scale));
        Ok(Ok(kept.collect::<Result<_, _>>()?))
    }

    async fn insert_currencies(&self, configured: &[&Currency]) -> Result<(), StorageError> {
        let rows = configured.iter().map(|currency| ActiveModel {
            currency_code: Set(currency.code().to_owned()),
            // At most 27.
            currency_scale: Set(currency.scale() as i16),
        });
        Entity::insert_many(rows)
            .on_conflict(OnConflict::column(Column::CurrencyCode).do_nothing().to_owned())
            .exec_without_returning(&self.open(Role::Maintenance).await?)
            .await?;
        Ok(())
    }
}
