//! Holds: money that is reserved until it is captured, released or expired.

use std::sync::Arc;

use crate::domain::{
    account::Labels,
    effective_time::TIMES_US,
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

names!(HoldState {
    Open = "open",
    Captured = "captured",
    Released = "released",
    Expired = "expired",
});

/// An amount of an account that is reserved. While it is open, it can be changed and captured in parts.
/// Once it has ended, nothing of it ever changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Unique, never reused.
    pub hold_id: HoldId,
    /// The account that owns the money.
    pub account_id: AccountId,
    /// The account's currency.
    pub currency: Currency,
    /// Above zero, and at least what was captured of it.
    pub amount: Amount,
    /// The state of the hold.
    pub state: HoldState,
    /// From then on it is expired; microseconds since the Unix epoch. None: never.
    pub expire_time_us: Option<i64>,
    /// What was captured of it, if something was.
    pub captured: Option<Captured>,
    /// How it was placed, if that has changed since.
    pub placed: Option<Terms>,
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
    /// When it was placed or changed last; microseconds since the Unix epoch.
    pub update_time_us: i64,
}

/// What was captured of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The sum, above zero, at most the hold's amount.
    pub amount: Amount,
    /// The transaction that took the last part.
    pub transaction_id: TransactionId,
}

/// What an update of a hold can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// See [`Hold::amount`].
    pub amount: Amount,
    /// See [`Hold::expire_time_us`].
    pub expire_time_us: Option<i64>,
}

impl Hold {
    /// The name of a field that no hold can have so, if there is one.
    pub fn impossible_field(&self) -> Option<&'static str> {
        let captured = self.captured.map(|captured| captured.amount);
        let is_too_much = |captured: Amount| match self.state {
            HoldState::Open => captured >= self.amount,
            HoldState::Captured | HoldState::Released | HoldState::Expired => {
                captured > self.amount
            }
        };
        let has_time = |time_us: Option<i64>| time_us.is_none_or(|it| TIMES_US.contains(&it));
        [
            ("amount", self.amount.is_positive()),
            ("captured_amount", captured.is_none_or(|it| it.is_positive() && !is_too_much(it))),
            (
                "placed",
                self.placed.is_none_or(|it| it.amount.is_positive() && has_time(it.expire_time_us)),
            ),
            ("expire_time_us", has_time(self.expire_time_us)),
            ("create_time_us", has_time(Some(self.create_time_us))),
            ("update_time_us", has_time(Some(self.update_time_us))),
        ]
        .into_iter()
        .find_map(|(field, is_possible)| (!is_possible).then_some(field))
    }

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

    /// Whether it is certainly an earlier state than this one: nothing that has ended is open again, and
    /// nothing that was captured comes back.
    pub(super) fn is_before(&self, later: &Self) -> bool {
        let captured = |hold: &Self| hold.captured.map_or(hold.currency.zero(), |it| it.amount);
        self.state == HoldState::Open && later.state != HoldState::Open
            || captured(self) < captured(later)
    }

    /// What is set aside while it is open: what was not captured yet.
    pub fn held(&self) -> Amount {
        self.captured.map_or(self.amount, |captured| self.amount.plus(-captured.amount))
    }

    /// All that will have been captured of it with this amount. None if that is beyond the limit of an
    /// amount.
    pub(super) fn captured_with(&self, amount: Amount) -> Option<Amount> {
        self.captured.map_or(Some(amount), |captured| self.currency.add(captured.amount, amount))
    }

    /// The hold as it was placed.
    #[must_use]
    pub fn as_placed(self) -> Self {
        let terms = self.placed.unwrap_or(self.terms());
        let placed_us = self.create_time_us;
        Self { placed: None, ..self.as_changed(terms, None, placed_us) }
    }

    /// The open hold as it was after a change.
    #[must_use]
    pub fn as_changed(self, terms: Terms, captured: Option<Captured>, update_time_us: i64) -> Self {
        let Terms { amount, expire_time_us } = terms;
        let (state, ended_by) = (HoldState::Open, Identity::anonymous());
        Self { state, amount, expire_time_us, captured, ended_by, update_time_us, ..self }
    }

    /// What an update can change.
    pub fn terms(&self) -> Terms {
        Terms { amount: self.amount, expire_time_us: self.expire_time_us }
    }

    /// Changes an open hold.
    pub(super) fn change(&mut self, terms: Terms, now_us: i64) {
        if terms != self.terms() {
            self.placed = Some(self.placed.unwrap_or(self.terms()));
        }
        (self.amount, self.expire_time_us) = (terms.amount, terms.expire_time_us);
        self.update_time_us = now_us.max(self.create_time_us);
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
    /// The amount; None: all that is held when the request arrives.
    pub amount: Option<(Currency, Amount)>,
    /// The account that receives the money; None: it leaves the ledger.
    pub destination_account_id: Option<AccountId>,
    /// The rest remains held.
    pub keep_open: bool,
    /// More than the hold may be taken, if that is available.
    pub allow_excess: bool,
}

/// A hold to change.
#[derive(Clone, Debug)]
pub struct HoldUpdate {
    /// The hold to change.
    pub hold: HoldRef,
    /// The new amount; None: unchanged.
    pub amount: Option<(Currency, Amount)>,
    /// The new expire time; None: unchanged.
    pub expiry: Option<NewExpiry>,
}

/// A new expire time.
#[derive(Clone, Copy, Debug)]
pub enum NewExpiry {
    /// The hold does not expire.
    Never,
    /// Microseconds since the Unix epoch.
    At(i64),
}

/// A hold that a request names. It is looked up when the request arrives, before any lock: it names
/// the account to lock, and the most that the request takes without an amount of its own, which the
/// policy has allowed. What can change is read again under that lock.
#[derive(Clone, Debug)]
pub struct HoldRef {
    /// Its id as the caller sent it: of an own hold, the name is enough.
    pub hold_id: HoldId,
    /// The hold as it was when the request arrived; None if it did not exist. Then the request is
    /// rejected, unless the hold exists by now.
    pub resolved: Option<Arc<Hold>>,
}
