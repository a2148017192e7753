//! Holds: placed, changed, captured, released, expired.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::domain::{
    account::{Account, AccountState},
    command::{Condition, Leg, Request},
    hold::{Capture, Captured, Hold, HoldRef, HoldState, HoldUpdate, NewExpiry, NewHold, Terms},
    ids::{AccountId, HoldId, Identity, TransactionId},
    money::{Amount, Currency},
    rejection::Rejection,
    transaction::TransactionKind,
    unit_of_work::{Effects, EventKey, LockedState, UnitOfWork, mark_limit, posting::Funds},
};

impl LockedState {
    /// The accounts with at least so many holds that a unit of work would expire.
    pub fn accounts_with_expired_holds(&self, least: usize) -> BTreeSet<AccountId> {
        let mut counts: HashMap<&AccountId, usize> = HashMap::new();
        for hold in self.expired_holds() {
            *counts.entry(&hold.account_id).or_default() += 1;
        }
        counts.retain(|_, count| *count >= least);
        counts.into_keys().cloned().collect()
    }

    /// The holds that a unit of work would expire.
    pub fn expired_holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.iter().filter(|hold| hold.expired_us(self.now_us).is_some())
    }
}

impl UnitOfWork {
    /// Ends the open holds whose time has passed, on the locked accounts.
    pub(super) fn expire_holds(&mut self) {
        for hold in self.holds.values_mut() {
            if let Some(expire_time_us) = hold.expired_us(self.now_us)
                && let Some(account) = self.accounts.get_mut(&hold.account_id)
            {
                hold.end(HoldState::Expired, expire_time_us);
                account.expire_holds(1, hold.held(), expire_time_us);
                self.events.push(EventKey::HoldExpired(hold.hold_id.clone()));
                self.changed_holds.insert(hold.hold_id.clone());
                self.changed.insert(hold.account_id.clone());
                mark_limit(account, false, &mut self.marked);
            }
        }
    }

    /// The rules of a new hold that need no account.
    pub(super) fn check_new_hold(&self, caller: &Identity, new: &NewHold) -> Result<(), Rejection> {
        if let Some(name) = &new.hold_id {
            let hold_id = name.placed_by(caller);
            // Older versions stored the name alone. It still belongs to its caller, and to no other.
            let former = self.holds.get(name).filter(|hold| hold.created_by == *caller);
            if former.is_some() || self.holds.contains_key(&hold_id) {
                return Err(Rejection::HoldExists { hold_id });
            }
        }
        self.is_in_the_future(new.expire_time_us)
    }

    /// The rules of an update that need no account.
    pub(super) fn check_hold_update(&self, update: &HoldUpdate) -> Result<(), Rejection> {
        self.open_hold(&update.hold)?;
        match update.expiry {
            Some(NewExpiry::At(expire_time_us)) => self.is_in_the_future(Some(expire_time_us)),
            Some(NewExpiry::Never) | None => Ok(()),
        }
    }

    fn is_in_the_future(&self, expire_time_us: Option<i64>) -> Result<(), Rejection> {
        match expire_time_us.filter(|it| *it <= self.now_us) {
            None => Ok(()),
            Some(expire_time_us) => {
                Err(Rejection::ExpireTimePassed { expire_time_us, now_us: self.now_us })
            }
        }
    }

    /// The rules of a capture that need no account.
    pub(super) fn check_capture(&self, capture: &Capture) -> Result<(), Rejection> {
        let hold = self.open_hold(&capture.hold)?;
        let amount = capture.amount.as_ref();
        let amount = amount.and_then(|(currency, it)| hold.currency.convert(currency, *it));
        let amount = amount.filter(|_| !capture.allow_excess);
        match amount.filter(|amount| *amount > hold.held()) {
            None => Ok(()),
            Some(required) => Err(Rejection::HoldAmountExceeded {
                hold_id: hold.hold_id.clone(),
                account_id: Some(hold.account_id.clone()),
                currency_code: hold.currency.code().to_owned(),
                held: Some(hold.held()),
                required,
            }),
        }
    }

    pub(super) fn place_hold(
        &mut self,
        request: &Request,
        new: &NewHold,
    ) -> Result<Effects, Rejection> {
        let named = new.hold_id.as_ref().map(|name| name.placed_by(&request.key.caller));
        let hold_id = named.unwrap_or_else(|| HoldId::from_uuid(request.transaction_id));
        let account = self.account(&new.account_id)?;
        let is_other = account.currency != new.currency;
        let own = is_other.then(|| account.currency.convert(&new.currency, new.amount)).flatten();
        // What the account was opened with counts, not what the server's currencies have.
        let own =
            own.map(|amount| NewHold { currency: account.currency.clone(), amount, ..new.clone() });
        let new = own.as_ref().unwrap_or(new);
        let held = can_hold(account, new)?;
        let create_time_us = self.now_us.max(account.update_time_us);
        let hold = Hold {
            hold_id: hold_id.clone(),
            account_id: new.account_id.clone(),
            currency: new.currency.clone(),
            amount: new.amount,
            state: HoldState::Open,
            expire_time_us: new.expire_time_us,
            captured: None,
            placed: None,
            created_by: request.key.caller.clone(),
            ended_by: Identity::anonymous(),
            request_id: request.key.request_id.clone(),
            description: request.description.clone(),
            labels: request.labels.clone(),
            create_time_us,
            update_time_us: create_time_us,
        };
        self.change(&new.account_id, |account| account.held = held);
        self.placed.insert(hold_id.clone());
        self.holds.insert(hold_id, hold.clone());
        Ok(Effects { transaction: None, hold: Some(Arc::new(hold)) })
    }

    pub(super) fn update_hold(&mut self, update: &HoldUpdate) -> Result<Effects, Rejection> {
        let hold = self.open_hold(&update.hold)?;
        let (hold_id, account_id) = (hold.hold_id.clone(), hold.account_id.clone());
        let account = self.account(&account_id)?;
        let mut terms = hold.terms();
        if let Some((currency, amount)) = &update.amount {
            // What the account was opened with counts, not what the server's currencies have.
            let own = account.currency.convert(currency, *amount);
            terms.amount = own.ok_or_else(|| Rejection::currency_mismatch(account, currency))?;
        }
        match update.expiry {
            None => {}
            Some(NewExpiry::Never) => terms.expire_time_us = None,
            Some(NewExpiry::At(expire_time_us)) => terms.expire_time_us = Some(expire_time_us),
        }
        let held = can_change(account, hold, terms)?;
        let (now_us, hold) = (self.now_us, self.holds.get_mut(&hold_id));
        let hold = hold.map(|hold| {
            hold.change(terms, now_us);
            Arc::new(hold.clone())
        });
        self.change(&account_id, |account| account.held = held);
        self.changed_holds.insert(hold_id);
        Ok(Effects { transaction: None, hold })
    }

    pub(super) fn capture_hold(
        &mut self,
        request: &Request,
        capture: &Capture,
    ) -> Result<Effects, Rejection> {
        let hold = self.open_hold(&capture.hold)?;
        // Not more than the policy has allowed.
        let allowed = capture.hold.resolved.as_ref().map_or(hold.held(), |hold| hold.held());
        let whole = (hold.currency.clone(), hold.held().min(allowed));
        let own = |(currency, amount): (Currency, Amount)| {
            let own = hold.currency.convert(&currency, amount);
            own.map_or((currency, amount), |amount| (hold.currency.clone(), amount))
        };
        let (currency, amount) = capture.amount.clone().map_or(whole, own);
        let leg = |account_id: &AccountId, amount: Amount| Leg {
            account_id: account_id.clone(),
            currency: currency.clone(),
            amount,
            condition: Condition::default(),
        };
        let mut legs = vec![leg(&hold.account_id, -amount)];
        legs.extend(capture.destination_account_id.as_ref().map(|it| leg(it, amount)));
        let planned = self.evaluate(request, &legs, Funds::Held(hold))?;
        let hold_id = hold.hold_id.clone();
        let keep_open = capture.keep_open && amount < hold.held();
        let transaction = self.post(request, TransactionKind::Capture, planned);
        let transaction_id = transaction.transaction_id.unwrap_or_default();
        self.take(&hold_id, amount, transaction_id);
        let hold = match keep_open {
            true => self.holds.get(&hold_id).cloned().map(Arc::new),
            false => self.end_hold(request, &hold_id, HoldState::Captured),
        };
        Ok(Effects { transaction: Some(Arc::new(transaction)), hold })
    }

    /// Takes an amount out of an open hold, which grows if that is more than is held.
    fn take(&mut self, hold_id: &HoldId, amount: Amount, transaction_id: TransactionId) {
        let Some(hold) = self.holds.get_mut(hold_id) else { return };
        let before = hold.held();
        let captured = hold.captured.map_or(amount, |captured| captured.amount.plus(amount));
        let terms = Terms { amount: hold.amount.max(captured), ..hold.terms() };
        hold.change(terms, self.now_us);
        hold.captured = Some(Captured { amount: captured, transaction_id });
        let taken = before.plus(-hold.held());
        self.return_held(hold_id, taken);
    }

    pub(super) fn release_hold(
        &mut self,
        request: &Request,
        named: &HoldRef,
    ) -> Result<Effects, Rejection> {
        let (hold_id, account_id) = {
            let hold = self.open_hold(named)?;
            (hold.hold_id.clone(), hold.account_id.clone())
        };
        let hold = self.end_hold(request, &hold_id, HoldState::Released);
        // `end_hold` has returned the money; this counts the change.
        self.change(&account_id, |_| {});
        Ok(Effects { transaction: None, hold })
    }

    pub(super) fn open_hold(&self, named: &HoldRef) -> Result<&Hold, Rejection> {
        let missing = || Rejection::HoldNotFound { hold_id: named.hold_id.clone() };
        // A hold that was placed since the request arrived does not count: its account is not locked.
        let resolved = named.resolved.as_ref().ok_or_else(missing)?;
        let hold = self.holds.get(&resolved.hold_id).ok_or_else(missing)?;
        match hold.state {
            HoldState::Open => Ok(hold),
            HoldState::Captured | HoldState::Released | HoldState::Expired => {
                let state = hold.state.name().to_owned();
                Err(Rejection::HoldNotOpen { hold_id: hold.hold_id.clone(), state })
            }
        }
    }

    /// Ends an open hold and returns its money to the account.
    fn end_hold(
        &mut self,
        request: &Request,
        hold_id: &HoldId,
        state: HoldState,
    ) -> Option<Arc<Hold>> {
        let hold = self.holds.get_mut(hold_id)?;
        hold.end(state, self.now_us);
        hold.ended_by = request.key.caller.clone();
        let (ended, rest) = (Arc::new(hold.clone()), hold.held());
        self.return_held(hold_id, rest);
        Some(ended)
    }

    /// Reduces what is held on the account of a hold.
    fn return_held(&mut self, hold_id: &HoldId, amount: Amount) {
        if let Some(hold) = self.holds.get(hold_id)
            && let Some(account) = self.accounts.get_mut(&hold.account_id)
        {
            account.held = account.held.plus(-amount);
            mark_limit(account, false, &mut self.marked);
        }
        self.changed_holds.insert(hold_id.clone());
    }
}

/// The total of holds on the account with the new hold, or the first rejection in the order of
/// `ErrorReason`.
fn can_hold(account: &Account, new: &NewHold) -> Result<Amount, Rejection> {
    let account_id = || account.account_id.clone();
    match account.state {
        AccountState::Open => {}
        AccountState::Closed => return Err(Rejection::AccountClosed { account_id: account_id() }),
        AccountState::Frozen => return Err(Rejection::AccountFrozen { account_id: account_id() }),
    }
    if account.currency != new.currency {
        return Err(Rejection::currency_mismatch(account, &new.currency));
    }
    if !account.unlimited_overdraft && account.available() < new.amount {
        return Err(Rejection::insufficient_funds(account, new.amount));
    }
    let held = account.currency.add(account.held, new.amount);
    held.ok_or_else(|| Rejection::out_of_range(account, new.amount))
}

/// The total of holds on the account with the changed hold, or the first rejection in the order of
/// `ErrorReason`. A frozen account keeps its holds, but none of them grows.
fn can_change(account: &Account, hold: &Hold, after: Terms) -> Result<Amount, Rejection> {
    let growth = after.amount.plus(-hold.amount);
    if account.state == AccountState::Frozen && growth.is_positive() {
        return Err(Rejection::AccountFrozen { account_id: account.account_id.clone() });
    }
    let captured = hold.captured.map(|captured| captured.amount);
    if captured.is_some_and(|captured| after.amount <= captured) {
        return Err(Rejection::HoldAmountTooLow {
            hold_id: hold.hold_id.clone(),
            account_id: Some(account.account_id.clone()),
            currency_code: account.currency.code().to_owned(),
            captured,
            required: after.amount,
        });
    }
    let is_available = account.unlimited_overdraft || growth <= account.available();
    if growth.is_positive() && !is_available {
        return Err(Rejection::insufficient_funds(account, growth));
    }
    let held = account.currency.add(account.held, growth);
    held.ok_or_else(|| Rejection::out_of_range(account, growth))
}
