//! Checks that each hold has the requests that its row says: one that placed it, and one that ended it if
//! it was released or captured.

use std::{collections::BTreeMap, sync::Arc};

use crate::domain::{
    account::Labels,
    command::{Action, PLACE_HOLD, RELEASE_HOLD, Request, UPDATE_HOLD},
    fingerprint::FINGERPRINT_LENGTH,
    hold::{Hold, HoldRef, HoldState, HoldUpdate, NewExpiry, NewHold},
    ids::{HoldId, RequestKey, TransactionId},
    transaction::{Transaction, TransactionKind},
    verification::CapturedStep,
};

/// An applied request that names a hold.
#[derive(Clone, Debug)]
pub struct AppliedToHold {
    /// The key of the request.
    pub key: RequestKey,
    /// The kind of the request.
    pub kind: String,
    /// The transaction that the request made, if it is a capture.
    pub transaction: Option<Arc<Transaction>>,
    /// The hold: as the request left it, if that is recorded; else as it is now.
    pub hold: Arc<Hold>,
    /// The request has recorded how it left the hold: changed, and open.
    pub is_recorded: bool,
    /// The fingerprint of the request.
    pub fingerprint: [u8; FINGERPRINT_LENGTH],
    /// The description of the request.
    pub description: String,
    /// The labels of the request.
    pub labels: Labels,
}

impl AppliedToHold {
    /// What the request captured of the hold.
    pub fn captured(&self) -> Option<CapturedStep> {
        let transaction = self.transaction.as_ref()?;
        Some(CapturedStep::of_capture(transaction, &self.hold))
    }

    /// What the row of the hold has of the request; None if the request left the hold open.
    pub fn in_row(&self) -> Option<HoldRequest> {
        match self.kind.as_str() {
            PLACE_HOLD => Some(HoldRequest::Placed(self.key.clone())),
            RELEASE_HOLD => Some(HoldRequest::Released),
            kind if kind == TransactionKind::Capture.name() && !self.is_recorded => {
                Some(HoldRequest::Captured)
            }
            _ => None,
        }
    }

    /// Whether the fingerprint of a PlaceHold or an UpdateHold is that of how it left the hold.
    pub fn fits_fingerprint(&self) -> bool {
        let hold = &self.hold;
        // The caller may have sent the whole id, or the name in it.
        let name = hold.hold_id.name();
        let actions: Vec<Action> = match self.kind.as_str() {
            PLACE_HOLD => {
                if (&self.description, &self.labels) != (&hold.description, &hold.labels) {
                    return false;
                }
                let hold = hold.as_ref().clone().as_placed();
                let new = |hold_id| NewHold {
                    hold_id,
                    account_id: hold.account_id.clone(),
                    currency: hold.currency.clone(),
                    amount: hold.amount,
                    expire_time_us: hold.expire_time_us,
                };
                let ids = [None, Some(name), Some(hold.hold_id.clone())];
                ids.map(|id| Action::PlaceHold(new(id))).into()
            }
            UPDATE_HOLD => {
                let amount = Some((hold.currency.clone(), hold.amount));
                let expiry = Some(hold.expire_time_us.map_or(NewExpiry::Never, NewExpiry::At));
                let changes = [(amount.clone(), None), (None, expiry), (amount, expiry)];
                let update = |amount: &Option<_>, expiry, hold_id: &HoldId| {
                    let hold = HoldRef { hold_id: hold_id.clone(), resolved: None };
                    Action::UpdateHold(HoldUpdate { hold, amount: amount.clone(), expiry })
                };
                let of_id =
                    |id| changes.each_ref().map(|(amount, expiry)| update(amount, *expiry, id));
                [of_id(&name), of_id(&hold.hold_id)].into_iter().flatten().collect()
            }
            _ => return true,
        };
        let mut request = Request::new(self.key.clone(), TransactionId::nil(), Action::Fence);
        request.description.clone_from(&self.description);
        request.labels.clone_from(&self.labels);
        actions.into_iter().any(|action| {
            request.action = action;
            request.fingerprint() == self.fingerprint
        })
    }

    /// Whether the request can have left the terms that [`Self::hold`] has. The capture that ends a hold
    /// records nothing, and changes the amount only if it takes more than is held: then all of the hold is
    /// captured.
    pub fn has_left_terms(&self) -> bool {
        let captured = self.hold.captured.filter(|_| self.transaction.is_some());
        self.is_recorded || captured.is_some_and(|captured| captured.amount == self.hold.amount)
    }
}

/// What the row of a hold has of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HoldRequest {
    /// This one placed it.
    Placed(RequestKey),
    /// One released it.
    Released,
    /// One captured all of it, or all that was to be captured.
    Captured,
}

impl HoldRequest {
    /// All that the row of this hold has.
    pub fn of_hold(hold: &Hold) -> Vec<Self> {
        let (caller, request_id) = (hold.created_by.clone(), hold.request_id.clone());
        let mut requests = vec![Self::Placed(RequestKey { caller, request_id })];
        match hold.state {
            HoldState::Released => requests.push(Self::Released),
            HoldState::Captured => requests.push(Self::Captured),
            HoldState::Open | HoldState::Expired => {}
        }
        requests
    }
}

/// Verifies the requests of one hold, which are pushed in any order.
#[derive(Debug, Default)]
pub struct HoldRequestsVerifier {
    /// How many requests there are of each, less those that the row has.
    counts: BTreeMap<HoldRequest, i64>,
}

impl HoldRequestsVerifier {
    /// Adds an applied request with 1, and what the row has of one with -1.
    pub fn push(&mut self, request: HoldRequest, count: i64) {
        *self.counts.entry(request).or_default() += count;
    }

    /// What is wrong with the requests, if something is.
    pub fn fault(&self) -> Option<String> {
        let missing = self.counts.iter().find(|(_, count)| **count < 0);
        let surplus = || self.counts.iter().find(|(_, count)| **count > 0);
        let (request, count) = missing.or_else(surplus)?;
        Some(match (request, *count < 0) {
            (HoldRequest::Placed(key), true) => format!(
                "no request placed it: its row names request {}, but no applied PlaceHold of its \
                 caller has that id",
                key.request_id
            ),
            (HoldRequest::Placed(key), false) => {
                format!("request {} placed it, but its row names another one", key.request_id)
            }
            (HoldRequest::Released, true) => {
                "it is released, but no request released it".to_owned()
            }
            (HoldRequest::Released, false) => {
                "it was released more often than its state says".to_owned()
            }
            (HoldRequest::Captured, true) => "it is captured, but no capture ended it".to_owned(),
            (HoldRequest::Captured, false) => {
                "a capture ended it more often than its state says".to_owned()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{HoldRequest, HoldRequestsVerifier};
    use crate::domain::ids::{Identity, RequestId, RequestKey};

    #[test]
    fn a_hold_has_the_requests_that_its_row_says() {
        let placed = |request_id: &str| {
            let request_id = RequestId::from_stored(request_id);
            HoldRequest::Placed(RequestKey { caller: Identity::anonymous(), request_id })
        };
        let fault = |row: &[HoldRequest], requests: &[HoldRequest]| {
            let mut verifier = HoldRequestsVerifier::default();
            for request in requests {
                verifier.push(request.clone(), 1);
            }
            for request in row {
                verifier.push(request.clone(), -1);
            }
            verifier.fault()
        };
        let (released, captured) = (HoldRequest::Released, HoldRequest::Captured);
        for right in [
            vec![placed("1")],
            vec![placed("1"), released.clone()],
            vec![captured.clone(), placed("1")],
        ] {
            assert_eq!(fault(&right, &right), None);
        }
        for (row, requests, words) in [
            (vec![placed("1")], vec![], "its row names request 1"),
            (vec![placed("1")], vec![placed("2")], "its row names request 1"),
            (vec![placed("1")], vec![placed("1"), placed("2")], "request 2 placed it, but its row"),
            (vec![placed("1"), released.clone()], vec![placed("1")], "no request released it"),
            (vec![placed("1")], vec![placed("1"), released.clone()], "it was released more often"),
            (
                vec![released.clone()],
                vec![released.clone(), released.clone()],
                "it was released more often",
            ),
            (vec![captured.clone()], vec![released.clone()], "no capture ended it"),
            (vec![], vec![captured.clone()], "a capture ended it more often"),
        ] {
            let fault = fault(&row, &requests).expect(words);
            assert!(fault.contains(words), "{fault}");
        }
    }
}
