//! The table `requests`: every request that has a result. The applied ones are the transactions.

use std::{collections::HashMap, sync::Arc};

use sea_orm::entity::prelude::*;

use crate::{
    domain::{
        account::Labels,
        command::{PLACE_HOLD, UPDATE_HOLD},
        effective_time::TIMES_US,
        fingerprint::FINGERPRINT_LENGTH,
        hold::Hold,
        ids::{HoldId, Identity, RequestId},
        rejection::Rejection,
        text::{are_stored_labels, is_stored_text},
        transaction::{Entry, Transaction, TransactionKind},
        unit_of_work::{Effects, RequestRecord},
    },
    storage::{entity::details::StoredDetails, error::StorageError},
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
    /// Null if it is empty.
    pub description: Option<String>,
    /// Null if there are none.
    pub labels: Option<Json>,
    /// The keys of the entries, in order; empty if the request was rejected. See [`entry_keys_text`].
    pub entry_keys: String,
    pub create_time_us: i64,
    /// The hold that the request placed, changed or closed.
    pub hold_id: Option<String>,
    /// The transaction that the request reversed.
    pub reverses_transaction_id: Option<Uuid>,
    /// JSON of [`StoredDetails`]; null if there are none.
    pub details: Option<Json>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The primary key of an entry: the key of its account, and its sequence.
pub type EntryKey = (i64, i64);

/// Keys of entries as they are stored: `17:1 18:4` is entry 1 of account 17 and entry 4 of account 18.
pub fn entry_keys_text(keys: impl Iterator<Item = EntryKey>) -> String {
    keys.map(|(account_key, sequence)| format!("{account_key}:{sequence}"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The keys in such a text.
pub fn parse_entry_keys(text: &str) -> Option<Vec<EntryKey>> {
    let key = |text: &str| {
        let (account_key, sequence) = text.split_once(':')?;
        Some((account_key.parse().ok()?, sequence.parse().ok()?))
    };
    match text {
        "" => Some(Vec::new()),
        _ => text.split(' ').map(key).collect(),
    }
}

impl Model {
    /// The length of the caller's texts, in bytes.
    pub fn text_bytes(&self) -> usize {
        let labels = self.labels.iter().filter_map(Json::as_object).flatten();
        let labels = labels.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len));
        self.description.as_ref().map_or(0, String::len) + labels.sum::<usize>()
    }
}

/// What only some kinds of requests can have or must have. Every version has written it so, since there
/// are requests of the kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct ColumnsOfKind {
    /// It has a hold.
    pub hold_id: bool,
    /// It can be forced.
    forced: bool,
    /// It can say what is reversed with it.
    reversed: bool,
    /// It can say how it left its hold.
    hold_as_left: bool,
    /// It says how it left its hold, because it always leaves it open.
    leaves_open: bool,
}

impl ColumnsOfKind {
    /// What a request of this kind can have, which was applied or rejected.
    pub fn of(kind: &str, is_applied: bool) -> Self {
        use TransactionKind as Kind;
        let none = Self::default();
        if !is_applied {
            return none;
        }
        match Kind::from_name(kind) {
            Some(Kind::Deposit) => none,
            Some(Kind::Withdrawal | Kind::Transfer | Kind::Posting) => {
                Self { forced: true, ..none }
            }
            Some(Kind::Reversal) => Self { reversed: true, forced: true, ..none },
            Some(Kind::Capture) => Self { hold_id: true, hold_as_left: true, ..none },
            None if kind == UPDATE_HOLD => {
                Self { hold_id: true, hold_as_left: true, leaves_open: true, ..none }
            }
            None => Self { hold_id: true, ..none },
        }
    }

    /// Whether these are details of a request of the kind.
    pub fn fit(self, details: &StoredDetails) -> bool {
        (self.forced || !details.forced())
            && (self.reversed || !details.has_reversed())
            && (self.hold_as_left || !details.has_hold())
            && (details.has_hold() || !self.leaves_open)
    }
}

impl Model {
    /// The keys of the request's entries.
    pub fn entry_keys(&self) -> Result<Vec<EntryKey>, StorageError> {
        parse_entry_keys(&self.entry_keys).ok_or_else(|| self.corrupt("entry_keys"))
    }

    /// The number of the request's entries.
    pub fn entry_count(&self) -> usize {
        self.entry_keys.split_terminator(' ').count()
    }

    /// Whether the request was applied and has changed balances.
    pub fn is_transaction(&self) -> bool {
        self.rejection.is_none() && TransactionKind::from_name(&self.kind).is_some()
    }

    /// The hold that the request placed, changed or closed.
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

    /// Checks that every column can be decoded, and that a request of its kind has what it must have and
    /// nothing else. `has_hold` says whether the hold of the request exists.
    pub fn check(&self, has_hold: bool) -> Result<(), StorageError> {
        self.request_id()?;
        self.fingerprint()?;
        if !are_stored_labels(&self.labels()?) {
            return Err(self.corrupt("labels"));
        }
        self.entry_keys()?;
        if !TIMES_US.contains(&self.create_time_us) {
            return Err(self.corrupt("create_time_us"));
        }
        if !Identity::is_stored(&self.caller) {
            return Err(self.corrupt("caller"));
        }
        // Null stands for an empty description.
        if self.description.as_deref().is_some_and(|text| text.is_empty() || !is_stored_text(text))
        {
            return Err(self.corrupt("description"));
        }
        let is_applied = self.rejection()?.is_none();
        let columns = ColumnsOfKind::of(&self.kind, is_applied);
        if !columns.fit(&self.details()?) {
            return Err(self.corrupt("details"));
        }
        match &self.hold_id {
            Some(_) if !columns.hold_id || !has_hold => Err(self.corrupt("hold_id")),
            None if is_applied && TransactionKind::from_name(&self.kind).is_none() => {
                Err(self.corrupt("kind"))
            }
            None if columns.hold_id => Err(self.corrupt("hold_id")),
            _ => Ok(()),
        }
    }

    fn request_id(&self) -> Result<RequestId, StorageError> {
        RequestId::parse(&self.request_id).map_err(|_| self.corrupt("request_id"))
    }

    fn fingerprint(&self) -> Result<[u8; FINGERPRINT_LENGTH], StorageError> {
        self.fingerprint.as_slice().try_into().map_err(|_| self.corrupt("fingerprint"))
    }

    /// The labels, which may be none.
    pub fn labels(&self) -> Result<Labels, StorageError> {
        let Some(labels) = &self.labels else { return Ok(Labels::new()) };
        serde_json::from_value(labels.clone()).map_err(|_| self.corrupt("labels"))
    }

    /// What only few requests have.
    pub fn details(&self) -> Result<StoredDetails, StorageError> {
        let Some(details) = &self.details else { return Ok(StoredDetails::default()) };
        serde_json::from_value(details.clone()).map_err(|_| self.corrupt("details"))
    }

    fn rejection(&self) -> Result<Option<Rejection>, StorageError> {
        let rejection = self.rejection.as_deref().map(serde_json::from_str).transpose();
        rejection.map_err(|_| self.corrupt("rejection"))
    }

    /// The effects of the request at its time: a hold that it placed or changed may have changed since.
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
        let details = self.details()?;
        let as_it_was = |hold: Hold| match is_placed {
            true => Ok(hold.as_placed()),
            false => details.hold(hold).ok_or_else(|| self.corrupt("details")),
        };
        let hold = hold.map(as_it_was).transpose()?;
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
        let details = self.details()?;
        let entries = self
            .entry_keys()?
            .iter()
            .map(|key| entries.get(key).cloned().ok_or_else(|| self.corrupt("entry_keys")))
            .collect::<Result<Vec<_>, _>>()?;
        let effective_time_us = entries.first().and_then(|entry| entry.effective_time_us);
        let reverses = match (self.reverses_transaction_id, entries.first()) {
            (Some(id), Some(entry)) => {
                let reversed = details.reversed(&entry.currency);
                Some((id, reversed.ok_or_else(|| self.corrupt("details"))?))
            }
            (Some(_), None) => return Err(self.corrupt("entry_keys")),
            (None, _) => None,
        };
        Ok(Transaction {
            transaction_id: Some(self.transaction_id),
            created_by: Identity::from_stored(&self.caller),
            request_id: self.request_id()?,
            kind,
            entries,
            description: self.description.clone().unwrap_or_default(),
            labels: self.labels()?,
            create_time_us: self.create_time_us,
            effective_time_us,
            forced: details.forced(),
            reverses,
            reversed_by: None,
        })
    }

    fn corrupt(&self, column: &str) -> StorageError {
        StorageError::Corrupt(format!("request {}: column {column}", self.transaction_id))
    }
}

#[cfg(test)]
mod tests {
    use super::{EntryKey, entry_keys_text, parse_entry_keys};

    #[test]
    fn keys_of_entries_are_read_as_they_are_written() {
        let cases: [(&[EntryKey], &str); 3] = [
            (&[], ""),
            (&[(17, 1)], "17:1"),
            (&[(17, 1), (i64::MAX, 4)], "17:1 9223372036854775807:4"),
        ];
        for (keys, text) in cases {
            assert_eq!(entry_keys_text(keys.iter().copied()), text);
            assert_eq!(parse_entry_keys(text).as_deref(), Some(keys));
        }
        for text in [" ", "17", "17:", ":1", "17:1 ", "17:1  18:4", "17:1,18:4", "a:1", "1:2:3"] {
            assert_eq!(parse_entry_keys(text), None, "{text:?}");
        }
    }
}
