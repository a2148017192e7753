//! The table `currencies`: the configured ones, with decimals that never change.

use sea_orm::entity::prelude::*;

use crate::{
    domain::money::{Currency, SCALE_MAX, is_currency_code},
    storage::error::StorageError,
};

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

/// The currency of a row. An amount with more decimals than a currency can have is beyond what numbers
/// here can hold.
pub fn currency(code: &str, scale: i16) -> Result<Currency, StorageError> {
    let decimals = u32::try_from(scale).ok().filter(|decimals| *decimals <= SCALE_MAX);
    match decimals {
        Some(decimals) if is_currency_code(code) => Ok(Currency::from_parts(code, decimals)),
        _ => Err(StorageError::Corrupt(format!("currency {code} with a scale of {scale}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::currency;

    #[test]
    fn only_currencies_that_can_be_configured_are_read() {
        for (code, scale) in [("USD", 2), ("JPY", 0), ("ETH", 18), ("A1234567890B", 27)] {
            let read = currency(code, scale).expect("a currency");
            assert_eq!((read.code(), read.scale()), (code, scale as u32));
        }
        for scale in [-5, 28, i16::MAX] {
            assert!(currency("USD", scale).is_err(), "{scale}");
        }
        for code in ["usd", "US", "", "1US", "A1234567890BC"] {
            assert!(currency(code, 2).is_err(), "{code}");
        }
    }
}
