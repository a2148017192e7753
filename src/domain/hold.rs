//! Holds: money that is set aside.

use std::sync::Arc;

use crate::domain::{
    account::Labels,
    ids::{AccountId, HoldId, Identity, RequestId, TransactionId},
    money::{Amount, Currency},
};

/// What has become of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldState {
    /// The money is held.
    Open,
    /// It was taken, all or a part.
    Captured,
    /// It was given up.
    Released,
    /// Its time has passed.
    Expired,
}

impl HoldState {
    const ALL: [Self; 4] = [Self::Open, Self::Captured, Self::Released, Self::Expired];

    /// The name in SQL and in errors.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Captured => "captured",
            Self::Released => "released",
            Self::Expired => "expired",
        }
    }

    /// The state with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// An amount of an account that is set aside. Of all this only `state`, `captured`,
/// `ended_by` and `update_time_us` ever change, and those once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Unique, never reused.
    pub hold_id: HoldId,
    /// Whose money.
    pub account_id: AccountId,
    /// The account's.
    pub currency: Currency,
    /// Above zero.
    pub amount: Amount,
    /// What has become of it.
    pub state: HoldState,
    /// From then on it is expired; microseconds since the Unix epoch. None: never.
    pub expire_time_us: Option<i64>,
    /// What was taken of it, if it was captured.
    pub captured: Option<Captured>,
    /// Who placed it; empty without authentication.
    pub created_by: Identity,
    /// Who captured or released it; empty until then, and if it expired.
    pub ended_by: Identity,
    /// The id of the request that placed it.
    pub request_id: RequestId,
    /// As sent.
    pub description: String,
    /// As sent.
    pub labels: Labels,
    /// Microseconds since the Unix epoch, by the database's clock.
    pub create_time_us: i64,
    /// When it was placed or ended; microseconds since the Unix epoch.
    pub update_time_us: i64,
}

/// What was taken of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Above zero, at most the hold's.
    pub amount: Amount,
    /// The transaction that took it.
    pub transaction_id: TransactionId,
}

impl Hold {
    /// The hold as it is at this time: what has expired is so, though it is not recorded yet.
    #[must_use]
    pub fn at(mut self, now_us: i64) -> Self {
        if let Some(expire_time_us) = self.expire_time_us.filter(|it| *it <= now_us)
            && self.state == HoldState::Open
        {
            self.end(HoldState::Expired, expire_time_us);
        }
        self
    }

    /// Whether its time has passed and nobody has recorded it.
    #[must_use]
    pub fn is_expired(&self, now_us: i64) -> bool {
        self.state == HoldState::Open && self.expire_time_us.is_some_and(|it| it <= now_us)
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

    /// Ends it; who does so has seen that it is open.
    pub(super) fn end(&mut self, state: HoldState, now_us: i64) {
        self.state = state;
        self.update_time_us = now_us.max(self.create_time_us);
    }
}

/// A hold to place.
#[derive(Clone, Debug)]
pub struct NewHold {
    /// The caller's name for it; without one the request's own id names it.
    pub hold_id: Option<HoldId>,
    /// Whose money.
    pub account_id: AccountId,
    /// Of the amount.
    pub currency: Currency,
    /// Above zero.
    pub amount: Amount,
    /// From then on it is expired; microseconds since the Unix epoch. None: never.
    pub expire_time_us: Option<i64>,
}

/// A hold to capture.
#[derive(Clone, Debug)]
pub struct Capture {
    /// Which.
    pub hold: HoldRef,
    /// How much; None: all of it.
    pub amount: Option<(Currency, Amount)>,
    /// Who receives it; None: it leaves the ledger.
    pub destination_account_id: Option<AccountId>,
}

/// A hold that a request names. What never changes of it is looked up when the request comes in,
/// before any lock: it tells which account to lock. What can change is read under that lock.
#[derive(Clone, Debug)]
pub struct HoldRef {
    /// Its name.
    pub hold_id: HoldId,
    /// As it was when the request came in; None if there was none. Then that is the verdict: as
    /// of that moment, which lies between the request and its answer.
    pub resolved: Option<Arc<Hold>>,
}
