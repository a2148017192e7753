//! The table `commits`: the events of each database transaction, in order.

use sea_orm::entity::prelude::*;

use crate::{
    domain::{effective_time::TIMES_US, unit_of_work::EventKey},
    storage::error::StorageError,
};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "commits")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub number: i64,
    pub create_time_us: i64,
    /// The transaction ids of the applied requests, 16 bytes each.
    pub transaction_ids: Vec<u8>,
    /// JSON of [`OtherEvents`]; null if there are none.
    pub other_events: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The bytes of a transaction id.
const ID_LENGTH: usize = 16;

/// The events that are no requests, each with the number of requests before it.
pub type OtherEvents = Vec<(usize, EventKey)>;

/// The columns `transaction_ids` and `other_events` for these events.
pub fn columns_of(events: &[EventKey]) -> (Vec<u8>, Option<String>) {
    let (mut transaction_ids, mut others) =
        (Vec::with_capacity(events.len() * ID_LENGTH), Vec::new());
    for event in events {
        match event {
            EventKey::Request(transaction_id) => {
                transaction_ids.extend_from_slice(transaction_id.as_bytes());
            }
            EventKey::HoldExpired(_)
            | EventKey::AccountOpened(_)
            | EventKey::AccountChanged(..) => {
                others.push((transaction_ids.len() / ID_LENGTH, event));
            }
        }
    }
    let others = (!others.is_empty()).then(|| serde_json::json!(others).to_string());
    (transaction_ids, others)
}

impl Model {
    /// The events, in order.
    pub fn events(&self) -> Result<Vec<EventKey>, StorageError> {
        let corrupt =
            |column| StorageError::Corrupt(format!("commit {}: column {column}", self.number));
        if !TIMES_US.contains(&self.create_time_us) {
            return Err(corrupt("create_time_us"));
        }
        let (ids, rest) = self.transaction_ids.as_chunks();
        if !rest.is_empty() {
            return Err(corrupt("transaction_ids"));
        }
        let others = self.other_events.as_deref().unwrap_or("[]");
        let others: OtherEvents =
            serde_json::from_str(others).map_err(|_| corrupt("other_events"))?;
        let mut others = others.into_iter().peekable();
        let mut events = Vec::with_capacity(ids.len() + others.len());
        for (index, id) in ids.iter().enumerate() {
            while let Some((_, event)) = others.next_if(|(before, _)| *before <= index) {
                events.push(event);
            }
            events.push(EventKey::Request(Uuid::from_bytes(*id)));
        }
        events.extend(others.map(|(_, event)| event));
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{fixtures::id, ids::HoldId};

    #[test]
    fn events_are_read_as_they_are_written() {
        let request = |number| EventKey::Request(Uuid::from_u128(number));
        let expired = EventKey::HoldExpired(HoldId::from_stored("h@b"));
        let (opened, changed) =
            (EventKey::AccountOpened(id("a")), EventKey::AccountChanged(id("a"), 7));
        let cases = [
            vec![],
            vec![request(1)],
            vec![expired.clone(), opened.clone()],
            vec![expired, request(1), opened, changed.clone(), request(2), request(3), changed],
        ];
        for events in cases {
            let (transaction_ids, other_events) = columns_of(&events);
            let mut row = Model { number: 1, create_time_us: 2, transaction_ids, other_events };
            assert_eq!(row.events().unwrap(), events);
            row.transaction_ids.push(0);
            assert!(row.events().is_err());
        }
    }

    #[test]
    fn the_stored_form_is_kept() {
        let events = [EventKey::Request(Uuid::nil()), EventKey::AccountChanged(id("a"), 7)];
        let text = r#"[[1,{"account_changed":["a",7]}]]"#;
        assert_eq!(columns_of(&events), (vec![0; 16], Some(text.to_owned())));
    }
}
