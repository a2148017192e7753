//! The table `entries`.

use sea_orm::entity::prelude::*;

use crate::{
    domain::{ids::AccountId, money::Currency, transaction::Entry},
    storage::{entity::number::Number, error::StorageError},
};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "entries")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub account_key: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub sequence: i64,
    pub transaction_id: Uuid,
    pub amount: Number,
    pub balance_after: Number,
    pub create_time_us: i64,
    pub hash: Vec<u8>,
    /// Null if it is `create_time_us`.
    pub effective_time_us: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// The entry of this account, in the account's currency.
    pub fn into_entry(
        self,
        account_id: &AccountId,
        currency: &Currency,
    ) -> Result<Entry, StorageError> {
        let corrupt = |column: &str| {
            StorageError::Corrupt(format!(
                "entry {} of account {account_id}: column {column}",
                self.sequence
            ))
        };
        Ok(Entry {
            account_id: account_id.clone(),
            sequence: self.sequence,
            transaction_id: self.transaction_id,
            amount: currency.amount(self.amount.0).ok_or_else(|| corrupt("amount"))?,
            balance_after: currency
                .amount(self.balance_after.0)
                .ok_or_else(|| corrupt("balance_after"))?,
            currency: currency.clone(),
            create_time_us: self.create_time_us,
            effective_time_us: self.effective_time_us,
            hash: self.hash.as_slice().try_into().map_err(|_| corrupt("hash"))?,
        })
    }
}
