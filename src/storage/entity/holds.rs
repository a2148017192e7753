//! The table `holds`.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    domain::{
        account::Labels,
        hold::{Captured, Hold, HoldState, Terms},
        ids::{AccountId, HoldId, Identity, RequestId},
        money::{Amount, Currency},
    },
    storage::{entity::number::Number, error::StorageError},
};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "holds")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub hold_id: String,
    pub account_key: i64,
    pub amount: Number,
    pub state: String,
    pub expire_time_us: Option<i64>,
    pub captured_amount: Option<Number>,
    pub transaction_id: Option<Uuid>,
    pub request_id: String,
    /// Null if it is empty.
    pub description: Option<String>,
    /// Null if there are none.
    pub labels: Option<Json>,
    pub create_time_us: i64,
    pub update_time_us: i64,
    pub caller: String,
    pub end_caller: String,
    /// JSON of [`StoredTerms`]: how the hold was placed; null if that has not changed.
    pub placed: Option<Json>,
}

/// [`Terms`], as they are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredTerms {
    amount: Amount,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expire_time_us: Option<i64>,
}

impl From<Terms> for StoredTerms {
    fn from(Terms { amount, expire_time_us }: Terms) -> Self {
        Self { amount, expire_time_us }
    }
}

impl StoredTerms {
    /// The terms of a hold in this currency. None if the amount is none of it.
    pub fn terms(&self, currency: &Currency) -> Option<Terms> {
        let amount = currency.amount(self.amount.decimal())?;
        Some(Terms { amount, expire_time_us: self.expire_time_us })
    }
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// The hold on this account, in the account's currency.
    pub fn into_hold(
        self,
        account_id: &AccountId,
        currency: &Currency,
    ) -> Result<Hold, StorageError> {
        let hold_id = self.hold_id;
        let corrupt =
            |column: &str| StorageError::Corrupt(format!("hold {hold_id}: column {column}"));
        let amount =
            |number: Number, column| currency.amount(number.0).ok_or_else(|| corrupt(column));
        let captured = match (self.captured_amount, self.transaction_id) {
            (Some(number), Some(transaction_id)) => {
                Some(Captured { amount: amount(number, "captured_amount")?, transaction_id })
            }
            (None, None) => None,
            _ => return Err(corrupt("transaction_id")),
        };
        let labels = self.labels.map_or_else(|| Ok(Labels::new()), serde_json::from_value);
        let placed = match self.placed {
            Some(placed) => {
                let placed = serde_json::from_value::<StoredTerms>(placed).ok();
                let placed = placed.and_then(|placed| placed.terms(currency));
                Some(placed.ok_or_else(|| corrupt("placed"))?)
            }
            None => None,
        };
        let hold = Hold {
            account_id: account_id.clone(),
            amount: amount(self.amount, "amount")?,
            state: HoldState::from_name(&self.state).ok_or_else(|| corrupt("state"))?,
            expire_time_us: self.expire_time_us,
            captured,
            placed,
            request_id: RequestId::parse(&self.request_id).map_err(|_| corrupt("request_id"))?,
            description: self.description.unwrap_or_default(),
            labels: labels.map_err(|_| corrupt("labels"))?,
            create_time_us: self.create_time_us,
            update_time_us: self.update_time_us,
            created_by: Identity::from_stored(&self.caller),
            ended_by: Identity::from_stored(&self.end_caller),
            currency: currency.clone(),
            hold_id: HoldId::parse(&hold_id).map_err(|_| corrupt("hold_id"))?,
        };
        match hold.impossible_field() {
            None => Ok(hold),
            Some(column) => Err(corrupt(column)),
        }
    }
}
