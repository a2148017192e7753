//! The table `requests`: every request that has a result. The applied ones are the transactions.

use std::{collections::HashMap, sync::Arc};

use sea_orm::entity::prelude::*;

use crate::{
    domain::{
        account::Labels,
        command::PLACE_HOLD,
        hold::Hold,
        ids::{AccountId, HoldId, Identity, RequestId},
        rejection::Rejection,
        transaction::{Entry, Transaction, TransactionKind},
        unit_of_work::{Effects, RequestRecord},
    },
    storage::error::StorageError,
};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "requests")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub caller: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub request_id: String,
    pub fingerprint: Vec<u8>,
    pub transaction_id: Uuid,
    pub kind: String,
    /// JSON of [`Rejection`]; null if the request was applied.
    pub rejection: Option<String>,
    pub description: String,
    pub labels: Json,
    /// JSON of the entries' keys, in order; empty if the request was rejected.
    pub entry_names: Json,
    pub create_time_us: i64,
    /// The hold that the request placed or closed.
    pub hold_id: Option<String>,
    /// The transaction that the request reversed.
    pub reverses_transaction_id: Option<Uuid>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The primary key of an entry: its account and sequence.
pub type EntryKey = (AccountId, i64);

impl Model {
    /// The keys of the request's entries.
    pub fn entry_keys(&self) -> Result<Vec<EntryKey>, StorageError> {
        serde_json::from_value(self.entry_names.clone()).map_err(|_| self.corrupt("entry_names"))
    }

    /// The hold that the request placed or closed.
    pub fn hold_id(&self) -> Option<HoldId> {
        self.hold_id.as_deref().map(HoldId::from_stored)
    }

    /// The request's record. `entries` and `holds` include those of the request.
    pub fn into_record(
        self,
        entries: &HashMap<EntryKey, Entry>,
        holds: &HashMap<HoldId, Hold>,
    ) -> Result<RequestRecord, StorageError> {
        let fingerprint = self.fingerprint()?;
        let result = match self.rejection()? {
            Some(rejection) => Err(rejection),
            None => Ok(self.effects(entries, holds)?),
        };
        Ok(RequestRecord { fingerprint, transaction_id: self.transaction_id, result })
    }

    /// Checks that every column can be decoded. `has_hold` says whether the hold of the request exists.
    pub fn check(&self, has_hold: bool) -> Result<(), StorageError> {
        self.request_id()?;
        self.fingerprint()?;
        self.labels()?;
        self.entry_keys()?;
        if self.rejection()?.is_some() {
            return Ok(());
        }
        match &self.hold_id {
            Some(_) if !has_hold => Err(self.corrupt("hold_id")),
            None if TransactionKind::from_name(&self.kind).is_none() => Err(self.corrupt("kind")),
            _ => Ok(()),
        }
    }

    fn request_id(&self) -> Result<RequestId, StorageError> {
        RequestId::parse(&self.request_id).map_err(|_| self.corrupt("request_id"))
    }

    fn fingerprint(&self) -> Result<[u8; 32], StorageError> {
        self.fingerprint.as_slice().try_into().map_err(|_| self.corrupt("fingerprint"))
    }

    fn labels(&self) -> Result<Labels, StorageError> {
        serde_json::from_value(self.labels.clone()).map_err(|_| self.corrupt("labels"))
    }

    fn rejection(&self) -> Result<Option<Rejection>, StorageError> {
        let rejection = self.rejection.as_deref().map(serde_json::from_str).transpose();
        rejection.map_err(|_| self.corrupt("rejection"))
    }

    /// The effects of the request at its time: a hold that it placed may be closed since.
    fn effects(
        &self,
        entries: &HashMap<EntryKey, Entry>,
        holds: &HashMap<HoldId, Hold>,
    ) -> Result<Effects, StorageError> {
        let hold = match self.hold_id() {
            Some(id) => Some(holds.get(&id).cloned().ok_or_else(|| self.corrupt("hold_id"))?),
            None => None,
        };
        let is_placed = self.kind == PLACE_HOLD;
        let hold = hold.map(|hold| if is_placed { hold.as_placed() } else { hold });
        let transaction = match TransactionKind::from_name(&self.kind) {
            Some(kind) => Some(Arc::new(self.transaction(kind, entries)?)),
            None if hold.is_some() => None,
            None => return Err(self.corrupt("kind")),
        };
        Ok(Effects { transaction, hold: hold.map(Arc::new) })
    }

    fn transaction(
        &self,
        kind: TransactionKind,
        entries: &HashMap<EntryKey, Entry>,
    ) -> Result<Transaction, StorageError> {
        let entries = self
            .entry_keys()?
            .iter()
            .map(|key| entries.get(key).cloned().ok_or_else(|| self.corrupt("entry_names")))
            .collect::<Result<_, _>>()?;
        Ok(Transaction {
            transaction_id: Some(self.transaction_id),
            created_by: Identity::from_stored(&self.caller),
            request_id: self.request_id()?,
            kind,
            entries,
            description: self.description.clone(),
            labels: self.labels()?,
            create_time_us: self.create_time_us,
            reverses_transaction_id: self.reverses_transaction_id,
            reversed_by_transaction_id: None,
        })
    }

    fn corrupt(&self, column: &str) -> StorageError {
        StorageError::Corrupt(format!("request {}: column {column}", self.transaction_id))
    }
}
