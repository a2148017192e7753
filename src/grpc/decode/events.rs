//! Watches of events: their filters, and where they begin.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    domain::{
        event::{EventFilter, EventKind, EventPosition, Prefixes},
        ids::AccountId,
    },
    grpc::{
        decode::{
            PREFIXES_MAX,
            decoder::{Decoder, given},
        },
        encode::{self, EVENT_TOKEN_FORM},
    },
    ledger::EventStart,
    proto::{self, ErrorReason, watch_events_request::Start},
};

/// The events to watch, and where the watch begins.
pub fn watched_events(
    decoder: &mut Decoder<'_>,
    request: proto::WatchEventsRequest,
) -> Option<(EventFilter, EventStart)> {
    let prefixes = request.account_id_prefixes;
    let reason = ErrorReason::InvalidFilter;
    if prefixes.len() > PREFIXES_MAX {
        let description =
            format!("has {} prefixes; at most {PREFIXES_MAX} are allowed", prefixes.len());
        decoder.report(reason, "account_id_prefixes", description);
    }
    for (index, prefix) in prefixes.iter().take(PREFIXES_MAX).enumerate() {
        let field = format_args!("account_id_prefixes[{index}]");
        // What an id can be, its beginning can be.
        decoder.check(reason, field, AccountId::parse(prefix));
    }
    let mut kinds = Vec::new();
    for kind in EventKind::ALL {
        if request.kinds.contains(&encode::event_kind(kind).into()) {
            kinds.push(kind);
        }
    }
    let is_known =
        |kind: &i32| EventKind::ALL.iter().any(|it| encode::event_kind(*it) as i32 == *kind);
    if let Some(index) = request.kinds.iter().position(|kind| !is_known(kind)) {
        decoder.report(reason, format_args!("kinds[{index}]"), "is not a known kind");
    }
    let currency =
        given(&request.currency_code).and_then(|it| decoder.currency("currency_code", it));
    decoder.labels(&request.labels);
    let start = match request.start {
        Some(Start::FromBeginning(())) => Some(EventStart::After(EventPosition::default())),
        Some(Start::FromNow(())) => Some(EventStart::Now),
        Some(Start::AfterToken(token)) => {
            let position = event_position(&token).ok_or("is not a token of WatchEvents");
            let reason = ErrorReason::InvalidPageToken;
            decoder.check(reason, "after_token", position).map(EventStart::After)
        }
        None => {
            let description = "or from_now or after_token is required";
            decoder.report(reason, "from_beginning", description);
            None
        }
    };
    let filter = EventFilter {
        account_id_prefixes: Prefixes::new(prefixes),
        kinds,
        currency_code: currency.map(|it| it.code().to_owned()),
        labels: request.labels,
    };
    Some((filter, start?))
}

/// The position in a token.
fn event_position(token: &str) -> Option<EventPosition> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (form, bytes) = bytes.split_first()?;
    let (commit, bytes) = bytes.split_first_chunk()?;
    let (commit_time_us, bytes) = bytes.split_first_chunk()?;
    let event_count = bytes.try_into().ok()?;
    let position = EventPosition {
        commit: i64::from_be_bytes(*commit),
        commit_time_us: i64::from_be_bytes(*commit_time_us),
        event_count: u32::from_be_bytes(event_count),
    };
    let is_valid = *form == EVENT_TOKEN_FORM && position.commit >= 0;
    is_valid.then_some(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_its_position() {
        let position = EventPosition { commit: 7, commit_time_us: -3, event_count: u32::MAX };
        let token = encode::event_token(position);
        assert_eq!(event_position(&token), Some(position));
        assert!(token.len() <= 64);
        for other in ["", "AQ", &token[1..], &format!("{token}AA"), &token.replacen('A', "B", 1)] {
            assert_eq!(event_position(other), None, "{other:?}");
        }
    }
}
