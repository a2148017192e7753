//! Changes of an account's attributes: labels, overdraft, state.

use crate::domain::{
    account::{
        Account, AccountChange, AccountState, AccountUpdate, AttributeChange, Attributes, Labels,
        NewLimit,
    },
    rejection::Rejection,
    unit_of_work::{EventKey, UnitOfWork},
};

impl UnitOfWork {
    pub(super) fn update_account(&mut self, update: &AccountUpdate) -> Result<Account, Rejection> {
        let account = self.account(&update.account_id)?;
        let before = account.attributes();
        let after = evaluate(account, &update.change)?;
        has_version(account, update.expected_version)?;
        if after != before {
            self.change(&update.account_id, |account| {
                let Attributes { state, overdraft_limit, unlimited_overdraft, labels } =
                    after.clone();
                account.state = state;
                account.overdraft_limit = overdraft_limit;
                account.unlimited_overdraft = unlimited_overdraft;
                account.labels = labels;
            });
            let account = self.account(&update.account_id)?;
            let change = AccountChange {
                account_id: account.account_id.clone(),
                version: account.version,
                kind: update.change.kind(),
                reason: update.reason.clone(),
                created_by: update.created_by.clone(),
                currency: account.currency.clone(),
                before,
                after,
                create_time_us: account.update_time_us,
            };
            self.events.push(EventKey::AccountChanged(change.account_id.clone(), change.version));
            self.account_changes.push(change);
        }
        self.account(&update.account_id).cloned()
    }

    /// Whether the update would change the account as it is now.
    pub fn would_change(&self, update: &AccountUpdate) -> bool {
        self.account(&update.account_id).is_ok_and(|account| {
            let after = evaluate(account, &update.change);
            after.is_ok_and(|after| after != account.attributes())
        })
    }
}

/// The attributes after the change, or the first rejection in the order of `ErrorReason`. The
/// expected version is checked last.
fn evaluate(account: &Account, change: &AttributeChange) -> Result<Attributes, Rejection> {
    let with_state = |state| Ok(Attributes { state, ..account.attributes() });
    match (change, account.state) {
        (AttributeChange::Close, AccountState::Closed) => with_state(AccountState::Closed),
        (_, AccountState::Closed) => {
            Err(Rejection::AccountClosed { account_id: account.account_id.clone() })
        }
        (AttributeChange::Freeze, _) => with_state(AccountState::Frozen),
        (AttributeChange::Unfreeze, _) => with_state(AccountState::Open),
        (AttributeChange::Close, _) => {
            is_empty(account)?;
            with_state(AccountState::Closed)
        }
        (AttributeChange::Update { labels, overdraft_limit, unlimited_overdraft }, _) => {
            updated(account, labels, overdraft_limit, *unlimited_overdraft)
        }
    }
}

fn has_version(account: &Account, expected: Option<i64>) -> Result<(), Rejection> {
    match expected.filter(|expected| *expected != account.version) {
        None => Ok(()),
        Some(expected_version) => Err(Rejection::VersionMismatch {
            account_id: account.account_id.clone(),
            expected_version,
            version: account.version,
        }),
    }
}

fn is_empty(account: &Account) -> Result<(), Rejection> {
    let zero = account.currency.zero();
    if account.balance == zero && account.held == zero {
        return Ok(());
    }
    Err(Rejection::AccountNotEmpty {
        account_id: account.account_id.clone(),
        currency_code: account.currency.code().to_owned(),
        balance: account.balance,
        held: account.held,
    })
}

fn updated(
    account: &Account,
    labels: &Option<Labels>,
    overdraft_limit: &Option<NewLimit>,
    unlimited_overdraft: Option<bool>,
) -> Result<Attributes, Rejection> {
    let mut after = account.attributes();
    if let Some(labels) = labels {
        after.labels = labels.clone();
    }
    if let Some(NewLimit::Zero) = overdraft_limit {
        after.overdraft_limit = account.currency.zero();
    }
    if let Some(NewLimit::Amount(currency, limit)) = overdraft_limit {
        let Some(limit) = account.currency.convert(currency, *limit) else {
            return Err(Rejection::currency_mismatch(account, currency));
        };
        after.overdraft_limit = limit;
        after.unlimited_overdraft &= !limit.is_positive();
    }
    if let Some(unlimited) = unlimited_overdraft {
        after.unlimited_overdraft = unlimited;
        if unlimited {
            after.overdraft_limit = account.currency.zero();
        }
    }
    is_covered(account, &after)?;
    Ok(after)
}

/// An overdraft cannot be reduced below what is used of it.
fn is_covered(account: &Account, after: &Attributes) -> Result<(), Rejection> {
    let reduced_by = account.overdraft_limit.plus(-after.overdraft_limit);
    let available_after = account.available().plus(-reduced_by);
    let is_reduced = reduced_by.is_positive() || account.unlimited_overdraft;
    if !is_reduced || after.unlimited_overdraft || !available_after.is_negative() {
        return Ok(());
    }
    // Where the overdraft was unlimited before, nothing is known to be required.
    let required = reduced_by.max(account.currency.zero());
    Err(Rejection::insufficient_funds(account, required))
}
