//! Changes of balances: the rules that reject them, and the entries that they write.

use std::collections::{BTreeSet, HashMap};

use crate::domain::{
    account::{Account, AccountState},
    balancing::balanced,
    command::{Condition, Leg, Request},
    effective_time,
    hold::Hold,
    ids::{AccountId, TransactionId, transaction_id_at},
    money::Amount,
    rejection::Rejection,
    transaction::{Entry, Transaction, TransactionKind},
    unit_of_work::{UnitOfWork, mark_limit},
};

impl UnitOfWork {
    /// Plans the entries of the legs and of the contra accounts, or returns the first rejection:
    /// unbalanced legs, then in the order of [`LegCheck::RULES`]; the last is that of the effective time.
    /// Changes nothing.
    pub(super) fn evaluate(
        &self,
        request: &Request,
        legs: &[Leg],
        funds: Funds<'_>,
    ) -> Result<PlannedEntries, Rejection> {
        let contra_accounts = request.contra_accounts.as_deref().unwrap_or_default();
        let is_contra =
            |leg: &Leg| contra_accounts.iter().any(|it| it.account_id == leg.account_id);
        let are_contra = legs.iter().all(is_contra);
        let legs = &*balanced(request, legs)?;
        let mut running: HashMap<&AccountId, Running> = HashMap::new();
        let mut checks = Vec::with_capacity(legs.len());
        for leg in legs {
            let account = self.account(&leg.account_id)?;
            if account.currency != leg.currency
                && let Some(legs) = self.in_own_scales(legs)
            {
                return self.evaluate(request, &legs, funds);
            }
            let after = running.entry(&leg.account_id).or_insert_with(|| Running::new(account));
            after.add(account, leg);
            // The caller has no right to take by force what the server has chosen.
            let is_chosen = are_contra || !is_contra(leg);
            let funds = if is_chosen { funds } else { funds.without_force() };
            checks.push(LegCheck { account, leg, funds, after: *after, last: *after });
        }
        for check in &mut checks {
            check.last = running.get(&check.leg.account_id).copied().unwrap_or(check.after);
        }
        for rule in LegCheck::RULES {
            checks.iter().try_for_each(rule)?;
        }
        let latest = checks.iter().map(|check| check.account.update_time_us).max();
        // A clock that was set back must not put an entry before an earlier one.
        let create_time_us = self.now_us.max(latest.unwrap_or(self.now_us));
        let effective_time_us = effective_time::check(request.effective_time_us, create_time_us)?;
        let entries = checks.iter().map(|check| check.entry(effective_time_us)).collect();
        Ok(PlannedEntries { entries, create_time_us })
    }

    /// The legs with the decimals of their accounts, where the server's currency table has others:
    /// an account keeps the decimals that it was opened with. None if no leg differs.
    fn in_own_scales(&self, legs: &[Leg]) -> Option<Vec<Leg>> {
        let own = |leg: &Leg| leg.in_scale_of(&self.accounts.get(&leg.account_id)?.currency);
        let converted: Vec<_> = legs.iter().map(own).collect();
        let is_any = converted.iter().any(Option::is_some);
        let or_same = |(own, leg): (Option<Leg>, &Leg)| own.unwrap_or_else(|| leg.clone());
        is_any.then(|| converted.into_iter().zip(legs).map(or_same).collect())
    }

    /// Writes planned entries into the accounts.
    pub(super) fn post(
        &mut self,
        request: &Request,
        kind: TransactionKind,
        planned: PlannedEntries,
    ) -> Transaction {
        let create_time_us = planned.create_time_us;
        let mut transaction = planned.into_preview(request, kind);
        let transaction_id = transaction_id_at(request.transaction_id, create_time_us);
        transaction.transaction_id = Some(transaction_id);
        transaction.create_time_us = create_time_us;
        let mut touched = BTreeSet::new();
        for entry in &mut transaction.entries {
            entry.transaction_id = transaction_id;
            entry.create_time_us = create_time_us;
            // The account is here: its rules were checked a moment ago.
            if let Some(account) = self.accounts.get_mut(&entry.account_id) {
                entry.hash = entry.chained_hash(&account.last_hash);
                account.balance = entry.balance_after;
                account.sequence = entry.sequence;
                account.last_hash = entry.hash;
                account.update_time_us = entry.create_time_us;
                // To the account, all legs together are one change.
                if touched.insert(entry.account_id.clone()) {
                    account.version += 1;
                }
            }
        }
        // After all legs, because they are judged together.
        for account_id in &touched {
            if let Some(account) = self.accounts.get_mut(account_id) {
                mark_limit(account, request.force, &mut self.marked);
            }
        }
        // Not `append`, which rebuilds the set from both.
        self.changed.extend(touched);
        transaction
    }
}

/// The money that the legs of a posting may take.
#[derive(Clone, Copy)]
pub(super) enum Funds<'a> {
    /// What is available on each account.
    Available,
    /// The money of this hold besides, even if the account was frozen since.
    Held(&'a Hold),
    /// Any, even if the account is frozen.
    Forced,
}

impl Funds<'_> {
    /// The money that a request without a hold may take.
    pub(super) fn of(request: &Request) -> Self {
        if request.force { Self::Forced } else { Self::Available }
    }

    fn without_force(self) -> Self {
        match self {
            Self::Forced => Self::Available,
            Self::Available | Self::Held(_) => self,
        }
    }
}

/// The entries that a posting would write, one a leg, without ids, times and hashes.
pub(super) struct PlannedEntries {
    entries: Vec<Entry>,
    create_time_us: i64,
}

impl PlannedEntries {
    /// The transaction as the result of a dry run.
    pub(super) fn into_preview(self, request: &Request, kind: TransactionKind) -> Transaction {
        let effective_time_us = self.entries.first().and_then(|entry| entry.effective_time_us);
        Transaction {
            transaction_id: None,
            created_by: request.key.caller.clone(),
            request_id: request.key.request_id.clone(),
            kind,
            entries: self.entries,
            description: request.description.clone(),
            labels: request.labels.clone(),
            create_time_us: 0,
            effective_time_us,
            forced: request.force,
            reverses: None,
            reversed_by: None,
        }
    }
}

/// Where an account stands after some legs of a posting.
#[derive(Clone, Copy)]
struct Running {
    /// The sequence of its last entry.
    sequence: i64,
    /// None once a leg has taken it beyond the limit of an amount.
    balance: Option<Amount>,
    /// The sum of the legs, in the currency's smallest unit. It may be far beyond the limit.
    change: i128,
}

impl Running {
    fn new(account: &Account) -> Self {
        Self { sequence: account.sequence, balance: Some(account.balance), change: 0 }
    }

    fn add(&mut self, account: &Account, leg: &Leg) {
        self.sequence += 1;
        // Amounts of different scales are not added; `has_the_currency` rejects them.
        self.balance = self
            .balance
            .filter(|_| account.currency == leg.currency)
            .and_then(|balance| account.currency.add(balance, leg.amount));
        self.change += leg.amount.units();
    }
}

/// A condition on one leg.
type Rule<'a> = fn(&LegCheck<'a>) -> Result<(), Rejection>;

/// One leg against its account.
struct LegCheck<'a> {
    account: &'a Account,
    leg: &'a Leg,
    funds: Funds<'a>,
    /// Where the account stands after this leg.
    after: Running,
    /// Where it stands after all legs of the posting.
    last: Running,
}

impl<'a> LegCheck<'a> {
    /// The rules after the existence of the accounts, in the order of `ErrorReason`. Each rule is checked
    /// on all legs before the next rule. The limit comes last: before `has_funds`, a caller without the
    /// right to read an account could find out its balance by legs that always lack funds elsewhere.
    const RULES: [Rule<'a>; 6] = [
        Self::is_not_closed,
        Self::is_not_frozen,
        Self::has_the_currency,
        Self::meets_its_condition,
        Self::has_funds,
        Self::is_within_the_limit,
    ];

    fn is_not_closed(&self) -> Result<(), Rejection> {
        match self.account.state {
            AccountState::Open | AccountState::Frozen => Ok(()),
            AccountState::Closed => {
                Err(Rejection::AccountClosed { account_id: self.leg.account_id.clone() })
            }
        }
    }

    fn is_not_frozen(&self) -> Result<(), Rejection> {
        let is_taken = match self.funds {
            Funds::Available => self.leg.amount.is_negative(),
            // An amount in another currency is no excess; `has_the_currency` rejects it.
            Funds::Held(_) => {
                self.account.currency == self.leg.currency
                    && self.leg.amount.plus(self.reserved()).is_negative()
            }
            Funds::Forced => false,
        };
        if self.account.state == AccountState::Frozen && is_taken {
            return Err(Rejection::AccountFrozen { account_id: self.leg.account_id.clone() });
        }
        Ok(())
    }

    fn has_the_currency(&self) -> Result<(), Rejection> {
        if self.account.currency == self.leg.currency {
            return Ok(());
        }
        Err(Rejection::currency_mismatch(self.account, &self.leg.currency))
    }

    fn meets_its_condition(&self) -> Result<(), Rejection> {
        let Condition { expected_version, min_balance_after, max_balance_after } =
            self.leg.condition;
        let version = self.account.version;
        if let Some(expected) = expected_version.filter(|expected| *expected != version) {
            return Err(self.condition_failed("expected_version", expected, version));
        }
        // `is_within_the_limit` rejects a balance that no condition can name.
        let Some(after) = self.last.balance else { return Ok(()) };
        if let Some(min) = min_balance_after.filter(|min| after < *min) {
            return Err(self.condition_failed("min_balance_after", min, after));
        }
        if let Some(max) = max_balance_after.filter(|max| after > *max) {
            return Err(self.condition_failed("max_balance_after", max, after));
        }
        Ok(())
    }

    /// Only a posting whose legs together take money from the account, beyond that of the hold, can lack
    /// funds. A deposit and a capture are applied even if the account is already below its limit.
    fn has_funds(&self) -> Result<(), Rejection> {
        if let Funds::Forced = self.funds {
            return Ok(());
        }
        let taken = -self.last.change - self.reserved().units();
        let available = self.account.available();
        if taken <= 0 || self.account.unlimited_overdraft || taken <= available.units() {
            return Ok(());
        }
        // None only for a sum beyond all numbers, which `is_within_the_limit` rejects.
        match self.account.currency.sum_of_units(taken) {
            Some(required) => Err(Rejection::insufficient_funds(self.account, required)),
            None => Ok(()),
        }
    }

    /// The money of the hold, if it is on this account.
    fn reserved(&self) -> Amount {
        match self.funds {
            Funds::Held(hold) if hold.account_id == self.leg.account_id => hold.held(),
            _ => self.account.currency.zero(),
        }
    }

    /// The balance is, and so is all that was captured of a hold: parts with a tip on each add up.
    fn is_within_the_limit(&self) -> Result<(), Rejection> {
        let is_captured = match self.funds {
            Funds::Held(hold) if self.leg.amount.is_negative() => {
                hold.account_id == self.leg.account_id
                    && hold.captured_with(-self.leg.amount).is_none()
            }
            _ => false,
        };
        if self.after.balance.is_some() && !is_captured {
            return Ok(());
        }
        Err(Rejection::out_of_range(self.account, self.leg.amount))
    }

    fn entry(&self, effective_time_us: Option<i64>) -> Entry {
        Entry {
            account_id: self.leg.account_id.clone(),
            sequence: self.after.sequence,
            transaction_id: TransactionId::nil(),
            currency: self.account.currency.clone(),
            amount: self.leg.amount,
            balance_after: self.after.balance.unwrap_or(self.account.balance),
            create_time_us: 0,
            effective_time_us,
            hash: [0; 32],
        }
    }

    fn condition_failed(
        &self,
        condition: &str,
        required: impl ToString,
        actual: impl ToString,
    ) -> Rejection {
        Rejection::ConditionFailed {
            account_id: self.leg.account_id.clone(),
            condition: condition.to_owned(),
            required: required.to_string(),
            actual: Some(actual.to_string()),
            version: Some(self.account.version),
        }
    }
}
