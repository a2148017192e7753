//! The table `accounts`.

use rust_decimal::Decimal;
use sea_orm::{QueryResult, entity::prelude::*};
use serde::{Deserialize, Serialize};

use crate::{
    domain::{
        account::{Account, AccountState, Attributes, COUNT_MAX, Labels},
        effective_time::TIMES_US,
        ids::{AccountId, Identity},
        money::Currency,
    },
    storage::{
        entity::{currencies::currency, number::Number},
        error::StorageError,
    },
};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "accounts")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub account_id: String,
    pub currency_code: String,
    pub currency_scale: i16,
    pub balance: Number,
    pub held: Number,
    pub overdraft_limit: Number,
    pub unlimited_overdraft: bool,
    pub below_limit: bool,
    pub state: String,
    pub sequence: i64,
    pub version: i64,
    pub last_hash: Vec<u8>,
    pub labels: Json,
    pub create_time_us: i64,
    pub update_time_us: i64,
    pub caller: String,
    /// The number by which entries, requests and holds name the account.
    pub account_key: i64,
    /// JSON of [`StoredOpening`]. Null if a server of an earlier version opened the account.
    pub opening_attributes: Option<Json>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The columns of `accounts a` that [`account_of`] reads.
pub const OF_ACCOUNT: &str = "a.account_id, a.currency_code, a.currency_scale";

/// The account of an entry or a hold, and its currency.
pub fn account_of(row: &QueryResult) -> Result<(AccountId, Currency), StorageError> {
    let account_id: String = row.try_get("", "account_id")?;
    let code: String = row.try_get("", "currency_code")?;
    let currency = currency(&code, row.try_get("", "currency_scale")?)?;
    Ok((AccountId::from_stored(&account_id), currency))
}

/// The attributes of an account at its opening, as they are stored: without what is usual.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoredOpening {
    #[serde(skip_serializing_if = "Decimal::is_zero")]
    overdraft_limit: Decimal,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unlimited_overdraft: bool,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

impl From<&Attributes> for StoredOpening {
    fn from(opening: &Attributes) -> Self {
        Self {
            overdraft_limit: opening.overdraft_limit.decimal(),
            unlimited_overdraft: opening.unlimited_overdraft,
            labels: opening.labels.clone(),
        }
    }
}

impl Model {
    /// The account, and its attributes at its opening. None of these if the row does not have them.
    pub fn into_account_and_opening(
        mut self,
    ) -> Result<(Account, Option<Attributes>), StorageError> {
        let stored = self.opening_attributes.take();
        let account = Account::try_from(self)?;
        let opening = |stored: Json| {
            let StoredOpening { overdraft_limit, unlimited_overdraft, labels } =
                serde_json::from_value(stored).ok()?;
            let overdraft_limit = account.currency.amount_from_zero(overdraft_limit)?;
            let state = AccountState::Open;
            Some(Attributes { state, overdraft_limit, unlimited_overdraft, labels })
        };
        let corrupt = || {
            let id = &account.account_id;
            StorageError::Corrupt(format!("account {id}: column opening_attributes"))
        };
        let opening = stored.map(|it| opening(it).ok_or_else(corrupt)).transpose()?;
        Ok((account, opening))
    }
}

impl TryFrom<Model> for Account {
    type Error = StorageError;

    fn try_from(row: Model) -> Result<Self, StorageError> {
        let corrupt = |column: &str| {
            StorageError::Corrupt(format!("account {}: column {column}", row.account_id))
        };
        let currency = currency(&row.currency_code, row.currency_scale)?;
        let amount =
            |number: Number, column| currency.amount(number.0).ok_or_else(|| corrupt(column));
        let not_negative = |number: Number, column| {
            currency.amount_from_zero(number.0).ok_or_else(|| corrupt(column))
        };
        let time = |time_us: i64, column| {
            TIMES_US.contains(&time_us).then_some(time_us).ok_or_else(|| corrupt(column))
        };
        let count = |number: i64, lowest, column| {
            let count = (lowest..=COUNT_MAX).contains(&number).then_some(number);
            count.ok_or_else(|| corrupt(column))
        };
        Ok(Self {
            account_id: AccountId::parse(&row.account_id).map_err(|_| corrupt("account_id"))?,
            account_key: row.account_key,
            balance: amount(row.balance, "balance")?,
            held: not_negative(row.held, "held")?,
            overdraft_limit: not_negative(row.overdraft_limit, "overdraft_limit")?,
            unlimited_overdraft: row.unlimited_overdraft,
            below_limit: row.below_limit,
            state: AccountState::from_name(&row.state).ok_or_else(|| corrupt("state"))?,
            sequence: count(row.sequence, 0, "sequence")?,
            version: count(row.version, 1, "version")?,
            last_hash: row.last_hash.try_into().map_err(|_| corrupt("last_hash"))?,
            labels: serde_json::from_value(row.labels).map_err(|_| corrupt("labels"))?,
            currency,
            create_time_us: time(row.create_time_us, "create_time_us")?,
            update_time_us: time(row.update_time_us, "update_time_us")?,
            created_by: Identity::from_stored(&row.caller),
        })
    }
}
