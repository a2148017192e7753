//! Events and their positions.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    domain::{
        event::{Event, EventKind, EventPosition},
        unit_of_work::Effects,
    },
    grpc::encode::{accounts, holds, transactions},
    proto,
};

/// The first byte of a token: its form.
pub const EVENT_TOKEN_FORM: u8 = 1;

/// Encodes an event.
pub fn event(event: Event) -> proto::Event {
    let mut encoded = proto::Event { kind: event_kind(event.kind()).into(), ..Default::default() };
    match event {
        Event::Request(Effects { transaction, hold }) => {
            encoded.transaction = transaction.as_deref().map(transactions::transaction);
            encoded.hold = hold.as_deref().map(holds::hold);
        }
        Event::HoldUpdated(hold) | Event::HoldExpired(hold) => {
            encoded.hold = Some(holds::hold(&hold));
        }
        Event::AccountOpened(account) => {
            encoded.account = Some(accounts::account(Arc::unwrap_or_clone(account)));
        }
        Event::AccountChanged(change) => {
            encoded.account_change = Some(accounts::account_change(Arc::unwrap_or_clone(change)));
        }
    }
    encoded
}

/// Encodes the kind of an event.
pub fn event_kind(kind: EventKind) -> proto::EventKind {
    match kind {
        EventKind::Transaction => proto::EventKind::Transaction,
        EventKind::HoldPlaced => proto::EventKind::HoldPlaced,
        EventKind::HoldCaptured => proto::EventKind::HoldCaptured,
        EventKind::HoldReleased => proto::EventKind::HoldReleased,
        EventKind::HoldExpired => proto::EventKind::HoldExpired,
        EventKind::AccountOpened => proto::EventKind::AccountOpened,
        EventKind::AccountUpdated => proto::EventKind::AccountUpdated,
        EventKind::AccountFrozen => proto::EventKind::AccountFrozen,
        EventKind::AccountUnfrozen => proto::EventKind::AccountUnfrozen,
        EventKind::AccountClosed => proto::EventKind::AccountClosed,
        EventKind::HoldUpdated => proto::EventKind::HoldUpdated,
    }
}

/// Encodes a position as a token.
pub fn event_token(position: EventPosition) -> String {
    let EventPosition { commit, commit_time_us, event_count } = position;
    let parts = [
        &[EVENT_TOKEN_FORM][..],
        &commit.to_be_bytes(),
        &commit_time_us.to_be_bytes(),
        &event_count.to_be_bytes(),
    ];
    URL_SAFE_NO_PAD.encode(parts.concat())
}
