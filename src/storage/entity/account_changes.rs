//! The table `account_changes`: attributes of accounts before and after each change.

use rust_decimal::Decimal;
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    domain::{
        account::{AccountChange, AccountChangeKind, AccountState, Attributes, Labels},
        effective_time::TIMES_US,
        ids::{AccountId, Identity},
        money::Currency,
    },
    storage::error::StorageError,
};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "account_changes")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub account_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub version: i64,
    pub kind: String,
    pub reason: String,
    pub caller: String,
    /// JSON of [`StoredAttributes`].
    pub attributes_before: Json,
    /// JSON of [`StoredAttributes`].
    pub attributes_after: Json,
    pub create_time_us: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// [`Attributes`] as they are stored. A new attribute needs `#[serde(default)]`, or rows of older
/// versions are corrupt.
#[derive(Serialize, Deserialize)]
pub struct StoredAttributes {
    state: String,
    overdraft_limit: Decimal,
    unlimited_overdraft: bool,
    pub labels: Labels,
}

impl From<&Attributes> for StoredAttributes {
    fn from(attributes: &Attributes) -> Self {
        Self {
            state: attributes.state.name().to_owned(),
            overdraft_limit: attributes.overdraft_limit.decimal(),
            unlimited_overdraft: attributes.unlimited_overdraft,
            labels: attributes.labels.clone(),
        }
    }
}

impl StoredAttributes {
    fn into_attributes(self, currency: &Currency) -> Option<Attributes> {
        Some(Attributes {
            state: AccountState::from_name(&self.state)?,
            overdraft_limit: currency.amount_from_zero(self.overdraft_limit)?,
            unlimited_overdraft: self.unlimited_overdraft,
            labels: self.labels,
        })
    }
}

impl Model {
    /// The change, in the currency of its account.
    pub fn into_change(self, currency: &Currency) -> Result<AccountChange, StorageError> {
        let (account_id, version) = (self.account_id, self.version);
        let corrupt = |column: &str| {
            let text = format!("change {version} of account {account_id}: column {column}");
            StorageError::Corrupt(text)
        };
        let attributes = |stored: Json, column| {
            let stored = serde_json::from_value(stored).ok();
            let attributes = stored.and_then(|it: StoredAttributes| it.into_attributes(currency));
            attributes.ok_or_else(|| corrupt(column))
        };
        if !TIMES_US.contains(&self.create_time_us) {
            return Err(corrupt("create_time_us"));
        }
        Ok(AccountChange {
            version,
            kind: AccountChangeKind::from_name(&self.kind).ok_or_else(|| corrupt("kind"))?,
            reason: self.reason,
            created_by: Identity::from_stored(&self.caller),
            before: attributes(self.attributes_before, "attributes_before")?,
            after: attributes(self.attributes_after, "attributes_after")?,
            create_time_us: self.create_time_us,
            currency: currency.clone(),
            account_id: AccountId::from_stored(&account_id),
        })
    }
}
