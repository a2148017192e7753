//! Callers, and what they may do on which accounts, up to which amounts. One function decides for
//! every change: [`Grant::check`]. What a caller sees is decided in `visible`. The methods that a
//! caller may call are checked in [`crate::auth`].

#[cfg(test)]
mod limits_tests;
mod needs;
mod rule;
#[cfg(test)]
mod tests;
mod visible;
#[cfg(test)]
mod visible_tests;

use std::{fmt, sync::Arc, time::SystemTime};

use rust_decimal::Decimal;

pub use crate::domain::authorization::rule::{AccountPattern, AmountMax, Effect, Right, Rule};
use crate::domain::{
    authorization::needs::{Missing, Needs},
    command::Command,
    ids::{AccountId, Identity},
    money::Amount,
    query::AccountRange,
};

/// The caller of an RPC. Cheap to copy.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The name that the policy has; anonymous without authentication.
    pub identity: Identity,
    /// The name under which requests are recorded and to which request ids are scoped: the identity,
    /// unless the policy maps it to another one.
    pub recorded_as: Identity,
    /// The rights.
    pub grant: Arc<Grant>,
    /// When the caller's credential expires. None: without a time limit.
    pub expire_time: Option<SystemTime>,
}

/// What a caller may do on which accounts: what one of its rules allows and none denies. Without
/// rules, nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// In any order.
    pub rules: Vec<Rule>,
}

/// A right that the caller lacks. The answer depends on the request and the policy alone, so it
/// does not reveal what exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PermissionDenied {
    /// This right on this account.
    Account(Right, AccountId),
    /// To move so much of this currency at once; `limit` is None if it is not allowed at all.
    Amount {
        /// The account; None if the request names a hold or a transaction instead.
        account_id: Option<AccountId>,
        /// The right for which there is a limit.
        right: Right,
        /// The currency's code.
        currency_code: String,
        /// The most that is allowed.
        limit: Option<Amount>,
    },
    /// To let the balance of this account go below zero without a limit.
    UnlimitedOverdraft(AccountId),
    /// To touch what is named: a hold or a transaction, which may not exist at all.
    Named(&'static str),
    /// To ask for more than accounts of one's own: `account_id` must be given.
    AccountIdRequired,
    /// These rights, on any account at all.
    NoAccount(&'static str),
}

impl Caller {
    /// A caller with all rights.
    pub fn unrestricted(identity: &str) -> Self {
        let identity = Identity::from_stored(identity);
        let grant = Arc::new(Grant::unrestricted());
        Self { recorded_as: identity.clone(), identity, grant, expire_time: None }
    }
}

impl Grant {
    /// All rights on all accounts.
    pub fn unrestricted() -> Self {
        let rule = Rule {
            accounts: vec![AccountPattern::all()],
            rights: Right::ALL.to_vec(),
            effect: Effect::Allow(AmountMax::Unlimited),
        };
        Self { rules: vec![rule] }
    }

    /// Checks the right to every account, amount and currency of a change. What it names must have
    /// been looked up. The accounts come before the amounts: an amount is that of a hold or of a
    /// transaction on the caller's own accounts.
    pub fn check(&self, command: &Command) -> Result<(), PermissionDenied> {
        let needs = Needs::of(command);
        for needed in &needs.rights {
            if !self.allows(needed.right, needed.account_id) {
                let denied = PermissionDenied::Account(needed.right, needed.account_id.clone());
                return Err(needed.found_by.map_or(denied, PermissionDenied::Named));
            }
        }
        if let Some(Missing { kind, rights }) = needs.missing
            && !rights.iter().all(|right| self.covers_all_accounts(*right))
        {
            return Err(PermissionDenied::Named(kind));
        }
        if needs.some_account && !self.may_move_money() {
            return Err(PermissionDenied::NoAccount("credit or debit"));
        }
        for ((account_id, right, currency_code), sum) in &needs.amounts {
            self.check_amount(*right, account_id, currency_code, *sum).map_err(|limit| {
                let account_id = needs.names(*right, account_id).then(|| (*account_id).clone());
                let (right, currency_code) = (*right, (*currency_code).to_owned());
                PermissionDenied::Amount { account_id, right, currency_code, limit }
            })?;
        }
        match needs.unlimited_overdraft {
            Some(account_id) if !self.has_no_limit(Right::Overdraft, account_id) => {
                Err(PermissionDenied::UnlimitedOverdraft(account_id.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Checks the right to read an account.
    pub fn check_read(&self, account_id: &AccountId) -> Result<(), PermissionDenied> {
        if self.allows(Right::Read, account_id) {
            Ok(())
        } else {
            Err(PermissionDenied::Account(Right::Read, account_id.clone()))
        }
    }

    /// Checks the right to read some account, which may not exist yet.
    pub fn check_read_of_some(&self) -> Result<(), PermissionDenied> {
        if self.readable().is_empty() {
            Err(PermissionDenied::NoAccount(Right::Read.name()))
        } else {
            Ok(())
        }
    }

    /// Checks the right to read all accounts.
    pub fn check_read_of_all(&self) -> Result<(), PermissionDenied> {
        if self.covers_all_accounts(Right::Read) {
            Ok(())
        } else {
            Err(PermissionDenied::AccountIdRequired)
        }
    }

    /// Whether the caller may move money of each of these accounts, one way at least.
    pub fn may_move_money_of<'a>(
        &self,
        mut account_ids: impl Iterator<Item = &'a AccountId>,
    ) -> bool {
        account_ids.all(|account_id| {
            self.allows(Right::Credit, account_id) || self.allows(Right::Debit, account_id)
        })
    }

    /// Whether the caller may place holds on this account, and end them.
    pub fn may_debit(&self, account_id: &AccountId) -> bool {
        self.allows(Right::Debit, account_id)
    }

    /// Whether the caller may read this account.
    pub fn may_read(&self, account_id: &AccountId) -> bool {
        self.allows(Right::Read, account_id)
    }

    /// The error for a hold or a transaction that the caller may not read or that does not exist.
    /// None: the caller may read all accounts, and may learn that it does not exist.
    pub fn hidden(&self, kind: &'static str) -> Option<PermissionDenied> {
        (!self.covers_all_accounts(Right::Read)).then_some(PermissionDenied::Named(kind))
    }

    /// The accounts that the caller may read, as disjoint ranges in ascending order.
    pub fn readable(&self) -> Vec<AccountRange> {
        rule::ranges(&self.rules, Right::Read)
    }

    fn covers_all_accounts(&self, right: Right) -> bool {
        rule::ranges(&self.rules, right) == [AccountRange::of_prefix("")]
    }

    fn may_move_money(&self) -> bool {
        [Right::Credit, Right::Debit].iter().any(|it| !rule::ranges(&self.rules, *it).is_empty())
    }

    fn allows(&self, right: Right, account_id: &AccountId) -> bool {
        self.limits(right, account_id).next().is_some()
    }

    fn has_no_limit(&self, right: Right, account_id: &AccountId) -> bool {
        self.limits(right, account_id).any(|limit| *limit == AmountMax::Unlimited)
    }

    /// The limits of the rules that allow this right on this account. None if a rule denies it.
    fn limits<'a>(
        &'a self,
        right: Right,
        account_id: &'a AccountId,
    ) -> impl Iterator<Item = &'a AmountMax> {
        let effects = move || {
            let applying = self.rules.iter().filter(move |rule| rule.applies(right, account_id));
            applying.map(|rule| &rule.effect)
        };
        let is_denied = effects().any(|effect| *effect == Effect::Deny);
        effects().filter_map(move |effect| match effect {
            Effect::Allow(limit) if !is_denied => Some(limit),
            Effect::Allow(_) | Effect::Deny => None,
        })
    }

    /// Checks the sum of a request's amounts. None: more than any limit.
    ///
    /// # Errors
    /// The sum is more than the limit; None if the currency is not allowed at all.
    fn check_amount(
        &self,
        right: Right,
        account_id: &AccountId,
        currency_code: &str,
        sum: Option<Decimal>,
    ) -> Result<(), Option<Amount>> {
        let mut highest = None;
        for limit in self.limits(right, account_id) {
            match limit {
                AmountMax::Unlimited => return Ok(()),
                AmountMax::ByCurrency(limits) => {
                    highest = highest.max(limits.get(currency_code).copied());
                }
            }
        }
        match (highest, sum) {
            (Some(limit), Some(sum)) if sum <= limit.decimal() => Ok(()),
            _ => Err(highest),
        }
    }
}

impl fmt::Display for PermissionDenied {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(right, account_id) => write!(
                formatter,
                "this identity does not have the right {} on account {account_id}",
                right.name()
            ),
            Self::Amount { account_id, right, currency_code, limit } => {
                let limit = limit.map_or_else(
                    || format!("for {currency_code}"),
                    |limit| format!("for more than {currency_code} {} at once", limit.decimal()),
                );
                write!(formatter, "this identity does not have the right {}", right.name())?;
                if let Some(account_id) = account_id {
                    write!(formatter, " on account {account_id}")?;
                }
                write!(formatter, " {limit}")
            }
            Self::UnlimitedOverdraft(account_id) => write!(
                formatter,
                "this identity does not have the right overdraft on account {account_id} without \
                 a limit"
            ),
            Self::Named(kind) => write!(
                formatter,
                "there is no such {kind}, or this identity does not have the right on its accounts"
            ),
            Self::AccountIdRequired => formatter
                .write_str("this identity may read some accounts only: account_id must be given"),
            Self::NoAccount(rights) => {
                write!(formatter, "this identity does not have the right {rights} on any account")
            }
        }
    }
}
