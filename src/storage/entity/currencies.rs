//! The table `currencies`: those that were configured, with the decimals they keep for ever.

use sea_orm::entity::prelude::*;

use crate::{domain::money::Currency, storage::error::StorageError};

/// One row.
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

/// The currency that an account's row names.
pub fn currency(code: &str, scale: i16) -> Result<Currency, StorageError> {
    let corrupt = |_| StorageError::Corrupt(format!("currency {code} with a scale of {scale}"));
    Ok(Currency::from_parts(code, u32::try_from(scale).map_err(corrupt)?))
}
