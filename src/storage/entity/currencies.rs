//! The table `currencies`: the configured ones, with decimals that never change.

use sea_orm::entity::prelude::*;

use crate::{domain::money::Currency, storage::error::StorageError};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "currencies")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub currency_code: String,
    pub currency_scale: i16,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The currency of an account's row.
pub fn currency(code: &str, scale: i16) -> Result<Currency, StorageError> {
    let corrupt = |_| StorageError::Corrupt(format!("currency {code} with a scale of {scale}"));
    Ok(Currency::from_parts(code, u32::try_from(scale).map_err(corrupt)?))
}
