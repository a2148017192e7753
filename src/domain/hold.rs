//! Holds: money that is reserved until it is captured, released or expired.

use std::sync::Arc;

use crate::domain::{
    account::Labels,
    ids::{AccountId, HoldId, Identity, RequestId, TransactionId},
    money::{Amount, Currency},
};

/// The state of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldState {
    /// The money is held.
    Open,
    /// The money was taken, all or a part of it.
    Captured,
    /// The money is available again.
    Released,
    /// The time of the hold has passed, and the money is available again.
    Expired,
}

stored_names!(HoldState {
    Open = "open",
    Captured = "captured",
    Released = "released",
    Expired = "expired",
});

/// An amount of an account that is reserved. Only `state`, `captured`,
/// `ended_by` and `update_time_us` ever change, and those once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Unique, never reused.
    pub hold_id: HoldId,
    /// The account that owns the money.
    pub account_id: AccountId,
    /// The account's currency.
    pub currency: Currency,
    /// Above zero.
    pub amount: Amount,
    /// The state of the hold.
    pub state: HoldState,
    /// From then on it is expired; microseconds since the Unix epoch. None: never.
    pub expire_time_us: Option<i64>,
    /// The captured amount, if the hold was captured.
    pub captured: Option<Captured>,
    /// The caller who placed it; anonymous without authentication.
    pub created_by: Identity,
    /// The caller who captured or released it; anonymous until then, and if it expired.
    pub ended_by: Identity,
    /// The id of the request that placed it.
    pub request_id: RequestId,
    /// The request's description.
    pub description: String,
    /// The request's labels.
    pub labels: Labels,
    /// Microseconds since the Unix epoch, by the database's clock.
    pub create_time_us: i64,
    /// When it was placed or ended; microseconds since the Unix epoch.
    pub update_time_us: i64,
}

/// The capture of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Above zero, at most the hold's.
    pub amount: Amount,
    /// The transaction that took it.
    pub transaction_id: TransactionId,
}

impl Hold {
    /// The hold as of this time: expired, even if no change has recorded that yet.
    #[must_use]
    pub fn at(mut self, now_us: i64) -> Self {
        if let Some(expire_time_us) = self.expired_us(now_us) {
            self.end(HoldState::Expired, expire_time_us);
        }
        self
    }

    /// Its expire time, if that has passed while the hold is recorded as open.
    pub fn expired_us(&self, now_us: i64) -> Option<i64> {
        self.expire_time_us.filter(|it| *it <= now_us && self.state == HoldState::Open)
    }

    /// The hold as it was placed.
    #[must_use]
    pub fn as_placed(mut self) -> Self {
        self.state = HoldState::Open;
        self.captured = None;
        self.ended_by = Identity::anonymous();
        self.update_time_us = self.create_time_us;
        self
    }

    /// Ends the hold. The caller has checked that it is open.
    pub(super) fn end(&mut self, state: HoldState, now_us: i64) {
        self.state = state;
        self.update_time_us = now_us.max(self.create_time_us);
    }
}

/// A hold to place.
#[derive(Clone, Debug)]
pub struct NewHold {
    /// The caller's name for it: see [`HoldId::placed_by`]. Without one the request's own id names it.
    pub hold_id: Option<HoldId>,
    /// The account that owns the money.
    pub account_id: AccountId,
    /// The currency of the amount.
    pub currency: Currency,
    /// Above zero.
    pub amount: Amount,
    /// From then on it is expired; microseconds since the Unix epoch. None: never.
    pub expire_time_us: Option<i64>,
}

/// A hold to capture.
#[derive(Clone, Debug)]
pub struct Capture {
    /// The hold to capture.
    pub hold: HoldRef,
    /// The amount; None: all of it.
    pub amount: Option<(Currency, Amount)>,
    /// The account that receives the money; None: it leaves the ledger.
    pub destination_account_id: Option<AccountId>,
}

/// A hold that a request names. What never changes of it is looked up when the request arrives,
/// before any lock, and names the account to lock. What can change is read under that lock.
#[derive(Clone, Debug)]
pub struct HoldRef {
    /// Its id as the caller sent it: of an own hold, the name is enough.
    pub hold_id: HoldId,
    /// The hold as it was when the request arrived; None if it did not exist. Then the request is
    /// rejected as of that moment, which lies between the request and its answer.
    pub resolved: Option<Arc<Hold>>,
}
