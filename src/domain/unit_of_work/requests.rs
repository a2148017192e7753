//! Requests: repeats, and the rules that need no account.

use std::sync::Arc;

use crate::domain::{
    command::{Action, Command, Request, Reversal},
    fingerprint::FINGERPRINT_LENGTH,
    hold::{Capture, HoldUpdate},
    ids::{HoldId, is_same_attempt},
    rejection::Rejection,
    unit_of_work::{
        CommandResult, Effects, EventKey, NewRequestRecord, RequestRecord, RequestResult,
        UnitOfWork, posting::Funds,
    },
};

impl UnitOfWork {
    /// Whether the look-up of the hold or the transaction that a request names is no longer right: it did
    /// not exist then, and does now, or the other way round, or a hold was less open then than it is now. A
    /// server that was the primary until a moment ago may have answered the look-up. A request that has a
    /// record does not depend on it.
    pub fn is_outdated(&self, command: &Command) -> bool {
        let Command::Request(request) = command else { return false };
        // A hold that was placed in this batch does not count: see `open_hold`.
        let has_been_placed =
            |id: &HoldId| self.holds.contains_key(id) && !self.placed.contains(id);
        let is_outdated = match &request.action {
            Action::UpdateHold(HoldUpdate { hold, .. })
            | Action::CaptureHold(Capture { hold, .. })
            | Action::ReleaseHold(hold) => match &hold.resolved {
                Some(seen) => {
                    let now = self.holds.get(&seen.hold_id);
                    now.is_none_or(|now| now.is_before(seen))
                }
                None => hold.hold_id.candidates(&request.key.caller).iter().any(has_been_placed),
            },
            Action::Reverse(Reversal { transaction, .. }) => {
                let exists = self.transactions.contains(&transaction.transaction_id);
                exists != transaction.resolved.is_some()
            }
            Action::Post(..) | Action::PlaceHold(_) | Action::Fence => false,
        };
        (is_outdated || request.is_repeat) && !self.records.contains_key(&request.key)
    }

    pub(super) fn request(&mut self, request: &Arc<Request>) -> Result<CommandResult, Rejection> {
        let fingerprint = request.fingerprint();
        let is_fence = matches!(request.action, Action::Fence);
        if let Some(record) = self.records.get(&request.key) {
            return match is_fence {
                true => Ok(CommandResult::Record(record.clone())),
                false => replay(record, request, &fingerprint).map(CommandResult::Request),
            };
        }
        let result = self.check_without_accounts(request).and_then(|()| self.execute(request));
        if request.validate_only {
            let effects = result?;
            return Ok(CommandResult::Request(RequestResult { effects, replayed: false }));
        }
        let transaction = result.as_ref().ok().and_then(|effects| effects.transaction.as_ref());
        let transaction_id = transaction.and_then(|transaction| transaction.transaction_id);
        let transaction_id = transaction_id.unwrap_or(request.transaction_id);
        let create_time_us = transaction.map_or(self.now_us, |it| it.create_time_us);
        if result.is_ok() {
            self.events.push(EventKey::Request(transaction_id));
        }
        let record = RequestRecord { fingerprint, transaction_id, result };
        self.records.insert(request.key.clone(), record.clone());
        self.new_records.push(NewRequestRecord {
            request: request.clone(),
            create_time_us,
            record: record.clone(),
        });
        if is_fence {
            return Ok(CommandResult::Record(record));
        }
        let effects = record.result?;
        Ok(CommandResult::Request(RequestResult { effects, replayed: false }))
    }

    /// The rules that need no account, in the order of their numbers in `ErrorReason`. They come before
    /// all rules about accounts. A rule for requests of every kind stands before the `match`, or behind it
    /// if its number is higher.
    fn check_without_accounts(&self, request: &Request) -> Result<(), Rejection> {
        match &request.action {
            Action::PlaceHold(new) => self.check_new_hold(&request.key.caller, new),
            Action::UpdateHold(update) => self.check_hold_update(update),
            Action::CaptureHold(capture) => self.check_capture(capture),
            Action::ReleaseHold(hold) => self.open_hold(hold).map(|_| ()),
            Action::Reverse(reversal) => self.check_reversal(reversal),
            Action::Post(..) | Action::Fence => Ok(()),
        }
    }

    /// Checks the rules about accounts, and makes the change unless it is only validated.
    fn execute(&mut self, request: &Request) -> Result<Effects, Rejection> {
        match &request.action {
            Action::Post(kind, legs) => {
                let planned = self.evaluate(request, legs, Funds::of(request))?;
                let transaction = match request.validate_only {
                    true => planned.into_preview(request, *kind),
                    false => self.post(request, *kind, planned),
                };
                Ok(Effects { transaction: Some(Arc::new(transaction)), hold: None })
            }
            Action::PlaceHold(new) => self.place_hold(request, new),
            Action::UpdateHold(update) => self.update_hold(update),
            Action::CaptureHold(capture) => self.capture_hold(request, capture),
            Action::ReleaseHold(hold) => self.release_hold(request, hold),
            Action::Reverse(reversal) => self.reverse(request, reversal),
            Action::Fence => {
                Err(Rejection::RequestFenced { request_id: request.key.request_id.clone() })
            }
        }
    }
}

/// Answers a repeated request with its record. Another body under the same id is rejected; so is
/// every body under a fence.
fn replay(
    record: &RequestRecord,
    request: &Request,
    fingerprint: &[u8; FINGERPRINT_LENGTH],
) -> Result<RequestResult, Rejection> {
    if let Err(fenced @ Rejection::RequestFenced { .. }) = &record.result {
        return Err(fenced.clone());
    }
    if record.fingerprint != *fingerprint {
        return Err(Rejection::RequestIdReused { request_id: request.key.request_id.clone() });
    }
    let effects = record.result.clone()?;
    // An earlier attempt at this same request, whose commit was in doubt, is no replay.
    let replayed = !is_same_attempt(record.transaction_id, request.transaction_id);
    Ok(RequestResult { effects, replayed })
}
