//! Callers, and the accounts and amounts that they may touch. The methods that they may call are
//! checked in [`crate::auth`].

use std::{collections::BTreeMap, fmt, sync::Arc, time::SystemTime};

use crate::domain::{
    command::{Action, Request},
    hold::{Capture, Hold},
    ids::{AccountId, Identity},
    money::{Amount, Currency},
    transaction::Transaction,
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

/// The accounts and amounts that a caller may touch: what at least one of the rules allows. Without
/// rules, nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// One for each entry of the policy that applies to the caller.
    pub rules: Vec<Rule>,
}

/// The accounts and amounts that one entry of the policy allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Accounts whose ids begin with one of these; the empty prefix is all of them.
    pub account_prefixes: Vec<String>,
    /// The most that one amount of a request may be, by the currency's code. A currency that is
    /// not in it is denied. None: no limit.
    pub amount_max: Option<BTreeMap<String, Amount>>,
}

/// A right that the caller lacks. The answer depends on the request and the policy alone, so it
/// does not reveal what exists.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PermissionDenied {
    /// To touch this account.
    #[error("this identity may not touch account {0}")]
    Account(AccountId),
    /// To move so much of this currency at once; `limit` is None if it is not allowed at all.
    #[error(fmt = amount_denied)]
    Amount {
        /// The currency's code.
        currency_code: String,
        /// The most that is allowed.
        limit: Option<Amount>,
    },
    /// To touch what is named: a hold or a transaction, which may not exist at all.
    #[error("there is no such {0}, or it is not on an account that this identity may touch")]
    Named(&'static str),
    /// To list without naming an account.
    #[error("this identity may touch some accounts only: account_id must be given")]
    AccountIdRequired,
}

impl Caller {
    /// A caller with all rights.
    pub fn unrestricted(identity: &str) -> Self {
        let grant =
            Grant { rules: vec![Rule { account_prefixes: vec![String::new()], amount_max: None }] };
        let identity = Identity::from_stored(identity);
        Self { recorded_as: identity.clone(), identity, grant: Arc::new(grant), expire_time: None }
    }
}

impl Grant {
    /// Whether the caller may touch all accounts.
    pub fn covers_all_accounts(&self) -> bool {
        self.account_prefixes().any(str::is_empty)
    }

    /// The prefixes of all accounts that the caller may touch.
    pub fn account_prefixes(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().flat_map(|rule| &rule.account_prefixes).map(String::as_str)
    }

    fn covers(&self, account_id: &AccountId) -> bool {
        self.rules.iter().any(|rule| rule.covers(account_id))
    }

    /// Checks the right to touch an account.
    pub fn check_account(&self, account_id: &AccountId) -> Result<(), PermissionDenied> {
        let is_allowed = self.covers(account_id);
        if is_allowed { Ok(()) } else { Err(PermissionDenied::Account(account_id.clone())) }
    }

    /// Checks the right to list without naming an account.
    pub fn check_all_accounts(&self) -> Result<(), PermissionDenied> {
        if self.covers_all_accounts() { Ok(()) } else { Err(PermissionDenied::AccountIdRequired) }
    }

    /// Checks the right to make a request. Its hold or transaction must have been looked up before, for
    /// its accounts.
    pub fn check_request(&self, request: &Request) -> Result<(), PermissionDenied> {
        match &request.action {
            Action::Post(_, legs) => {
                for leg in legs {
                    self.check_account(&leg.account_id)?;
                    self.check_amount(&leg.account_id, &leg.currency, leg.amount)?;
                }
                Ok(())
            }
            Action::PlaceHold(new) => {
                self.check_account(&new.account_id)?;
                self.check_amount(&new.account_id, &new.currency, new.amount)
            }
            Action::CaptureHold(Capture { hold, amount, destination_account_id }) => {
                destination_account_id.iter().try_for_each(|id| self.check_account(id))?;
                let hold = hold.resolved.as_deref();
                self.check_hold(hold)?;
                let Some(hold) = hold else { return Ok(()) };
                let taken = amount.as_ref().map(|(currency, amount)| (currency, *amount));
                let (currency, taken) = taken.unwrap_or((&hold.currency, hold.amount));
                let mut touched = destination_account_id.iter().chain([&hold.account_id]);
                touched.try_for_each(|id| self.check_amount(id, currency, taken))
            }
            Action::ReleaseHold(hold) => self.check_hold(hold.resolved.as_deref()),
            Action::Reverse(named) => {
                let entries = named.resolved.as_ref().map(|transaction| &transaction.entries[..]);
                let ids = entries.map(|entries| entries.iter().map(|entry| &entry.account_id));
                self.check_named("transaction", ids)?;
                let mut entries = entries.unwrap_or_default().iter();
                entries.try_for_each(|entry| {
                    self.check_amount(&entry.account_id, &entry.currency, entry.amount)
                })
            }
            Action::Fence => Ok(()),
        }
    }

    /// Checks the right to touch a hold. None: it does not exist.
    pub fn check_hold(&self, hold: Option<&Hold>) -> Result<(), PermissionDenied> {
        self.check_named("hold", hold.map(|hold| std::iter::once(&hold.account_id)))
    }

    /// Checks the right to touch what is on these accounts. None: it does not exist, and only a caller
    /// with the right to all accounts may learn that.
    fn check_named<'a>(
        &self,
        kind: &'static str,
        account_ids: Option<impl IntoIterator<Item = &'a AccountId>>,
    ) -> Result<(), PermissionDenied> {
        let is_allowed = self.covers_all_accounts()
            || account_ids.is_some_and(|ids| ids.into_iter().all(|id| self.covers(id)));
        if is_allowed { Ok(()) } else { Err(PermissionDenied::Named(kind)) }
    }

    /// The part of a transaction that the caller may see: the entries of the caller's accounts. The error
    /// is the same if there are none and if there is no such transaction.
    pub fn redact(
        &self,
        transaction: Option<Arc<Transaction>>,
    ) -> Result<Option<Arc<Transaction>>, PermissionDenied> {
        if self.covers_all_accounts() {
            return Ok(transaction);
        }
        let mut transaction = transaction.ok_or(PermissionDenied::Named("transaction"))?;
        if !transaction.entries.iter().all(|entry| self.covers(&entry.account_id)) {
            let entries = &mut Arc::make_mut(&mut transaction).entries;
            entries.retain(|entry| self.covers(&entry.account_id));
        }
        if transaction.entries.is_empty() {
            return Err(PermissionDenied::Named("transaction"));
        }
        Ok(Some(transaction))
    }

    /// Checks the right to move an amount on an account that the caller may touch.
    fn check_amount(
        &self,
        account_id: &AccountId,
        currency: &Currency,
        amount: Amount,
    ) -> Result<(), PermissionDenied> {
        let mut highest = None;
        for rule in self.rules.iter().filter(|rule| rule.covers(account_id)) {
            let Some(limits) = &rule.amount_max else { return Ok(()) };
            highest = highest.max(limits.get(currency.code()).copied());
        }
        if highest.is_some_and(|limit| amount.decimal().abs() <= limit.decimal()) {
            return Ok(());
        }
        let currency_code = currency.code().to_owned();
        Err(PermissionDenied::Amount { currency_code, limit: highest })
    }
}

impl Rule {
    fn covers(&self, account_id: &AccountId) -> bool {
        self.account_prefixes.iter().any(|prefix| account_id.as_str().starts_with(prefix.as_str()))
    }
}

fn amount_denied(
    currency_code: &str,
    limit: &Option<Amount>,
    formatter: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    match limit {
        Some(limit) => write!(
            formatter,
            "this identity may not move more than {currency_code} {limit} at once"
        ),
        None => write!(formatter, "this identity may not move {currency_code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fixtures::id;

    fn rule(prefixes: &[&str], amount_max: &[(&Currency, &str)]) -> Rule {
        let limit = |(currency, amount): &(&Currency, &str)| {
            (currency.code().to_owned(), currency.parse(amount).unwrap())
        };
        Rule {
            account_prefixes: prefixes.iter().map(|it| (*it).to_owned()).collect(),
            amount_max: (!amount_max.is_empty()).then(|| amount_max.iter().map(limit).collect()),
        }
    }

    fn grant(prefixes: &[&str]) -> Grant {
        Grant { rules: vec![rule(prefixes, &[])] }
    }

    #[test]
    fn a_prefix_is_a_prefix_and_no_prefix_is_no_account() {
        let shop = grant(&["shop:", "fees"]);
        for own in ["shop:1", "shop:", "fees", "fees2"] {
            assert_eq!(shop.check_account(&id(own)), Ok(()), "{own}");
        }
        for other in ["shop", "Shop:1", "xshop:1", "fee"] {
            assert_eq!(
                shop.check_account(&id(other)),
                Err(PermissionDenied::Account(id(other))),
                "{other}"
            );
        }
        assert!(grant(&[]).check_account(&id("a")).is_err());
        assert!(grant(&[""]).check_account(&id("a")).is_ok());
    }

    #[test]
    fn only_callers_who_see_all_learn_that_something_does_not_exist() {
        let denied = Err(PermissionDenied::Named("hold"));
        let check = |prefix, ids: Option<&[AccountId]>| grant(&[prefix]).check_named("hold", ids);
        assert_eq!(check("", None), Ok(()));
        assert_eq!(check("a", None), denied);
        assert_eq!(check("a", Some(&[id("a")])), Ok(()));
        assert_eq!(check("a", Some(&[id("a"), id("b")])), denied);
    }

    #[test]
    fn an_amount_is_limited_whatever_its_sign_and_other_currencies_are_denied() {
        let (eur, usd) = (Currency::from_parts("EUR", 2), Currency::from_parts("USD", 2));
        let grant = Grant { rules: vec![rule(&[""], &[(&eur, "10.00")])] };
        let check = |currency: &Currency, amount: &str| {
            grant.check_amount(&id("a"), currency, currency.parse(amount).unwrap())
        };
        for allowed in ["10", "-10", "0.01"] {
            assert_eq!(check(&eur, allowed), Ok(()), "{allowed}");
        }
        let denied = |currency_code: &str, limit| {
            Err(PermissionDenied::Amount { currency_code: currency_code.to_owned(), limit })
        };
        let limit = Some(eur.parse("10.00").unwrap());
        assert_eq!(check(&eur, "10.01"), denied("EUR", limit));
        assert_eq!(check(&eur, "-10.01"), denied("EUR", limit));
        assert_eq!(check(&usd, "1"), denied("USD", None));
    }

    #[test]
    fn a_limit_counts_for_the_accounts_of_its_own_rule() {
        let eur = Currency::from_parts("EUR", 2);
        let (low, high) = (rule(&["shop:"], &[(&eur, "10")]), rule(&["fees"], &[(&eur, "1000")]));
        let grant = Grant { rules: vec![low.clone(), high] };
        let check = |grant: &Grant, account_id: &str, amount: &str| {
            grant.check_amount(&id(account_id), &eur, eur.parse(amount).unwrap()).is_ok()
        };
        assert!(check(&grant, "shop:1", "10") && check(&grant, "fees", "1000"));
        assert!(!check(&grant, "shop:1", "11") && !check(&grant, "fees", "1001"));
        // Of two rules for one account, the higher limit counts.
        for other in [rule(&[""], &[(&eur, "20")]), rule(&[""], &[])] {
            for rules in [vec![low.clone(), other.clone()], vec![other.clone(), low.clone()]] {
                assert!(check(&Grant { rules }, "shop:1", "20"), "{other:?}");
            }
        }
    }
}
