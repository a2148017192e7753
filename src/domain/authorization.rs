//! Callers, and the accounts and amounts that they may touch. The methods that they may call are
//! checked in [`crate::auth`].

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::domain::{
    command::{Action, Request},
    hold::Capture,
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
}

/// The accounts and amounts that a caller may touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Accounts whose ids begin with one of these; the empty prefix is all of them.
    pub account_prefixes: Vec<String>,
    /// The most that one amount of a request may be, by the currency's code. A currency that is
    /// not in it is denied. None: no limit.
    pub amount_max: Option<BTreeMap<String, Amount>>,
}

/// A right that the caller lacks. The answer depends on the request and the policy alone, so it
/// does not reveal what exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PermissionDenied {
    /// To touch this account.
    Account(AccountId),
    /// To move so much of this currency at once; `limit` is None if it is not allowed at all.
    Amount {
        /// The currency's code.
        currency_code: String,
        /// The most that is allowed.
        limit: Option<Amount>,
    },
    /// To touch what is named: a hold or a transaction, which may not exist at all.
    Named(&'static str),
    /// To ask for more than accounts of one's own: `account_id` must be given.
    AccountIdRequired,
}

impl Caller {
    /// A caller with all rights.
    #[must_use]
    pub fn unrestricted(identity: &str) -> Self {
        let grant = Grant { account_prefixes: vec![String::new()], amount_max: None };
        let identity = Identity::from_stored(identity);
        Self { recorded_as: identity.clone(), identity, grant: Arc::new(grant) }
    }
}

impl Grant {
    /// Whether the caller may touch all accounts.
    #[must_use]
    pub fn covers_all_accounts(&self) -> bool {
        self.account_prefixes.iter().any(String::is_empty)
    }

    fn covers(&self, account_id: &AccountId) -> bool {
        self.account_prefixes.iter().any(|prefix| account_id.as_str().starts_with(prefix.as_str()))
    }

    /// Checks the right to touch an account.
    ///
    /// # Errors
    /// The caller lacks the right.
    pub fn check_account(&self, account_id: &AccountId) -> Result<(), PermissionDenied> {
        if self.covers(account_id) {
            Ok(())
        } else {
            Err(PermissionDenied::Account(account_id.clone()))
        }
    }

    /// Checks the right to list without naming an account.
    ///
    /// # Errors
    /// The caller lacks the right.
    pub fn check_all_accounts(&self) -> Result<(), PermissionDenied> {
        if self.covers_all_accounts() { Ok(()) } else { Err(PermissionDenied::AccountIdRequired) }
    }

    /// Whether they may make a request, as far as its accounts are known: those of a hold or a
    /// transaction that it names are known when that was looked up.
    ///
    /// # Errors
    /// The caller lacks the right.
    pub fn check_request(&self, request: &Request) -> Result<(), PermissionDenied> {
        match &request.action {
            Action::Post(_, legs) => {
                for leg in legs {
                    self.check_account(&leg.account_id)?;
                    self.check_amount(&leg.currency, leg.amount)?;
                }
                Ok(())
            }
            Action::PlaceHold(new) => {
                self.check_account(&new.account_id)?;
                self.check_amount(&new.currency, new.amount)
            }
            Action::CaptureHold(Capture { hold, amount, destination_account_id }) => {
                destination_account_id.iter().try_for_each(|id| self.check_account(id))?;
                let resolved = hold.resolved.as_deref();
                self.check_resource(
                    "hold",
                    resolved.map(|hold| std::slice::from_ref(&hold.account_id)),
                )?;
                let whole = resolved.map(|hold| (&hold.currency, hold.amount));
                let taken = amount.as_ref().map(|(currency, amount)| (currency, *amount));
                taken.or(whole).map_or(Ok(()), |(currency, it)| self.check_amount(currency, it))
            }
            Action::ReleaseHold(hold) => {
                let resolved = hold.resolved.as_deref();
                self.check_resource(
                    "hold",
                    resolved.map(|hold| std::slice::from_ref(&hold.account_id)),
                )
            }
            Action::Reverse(named) => {
                let entries = named.resolved.as_ref().map_or(&[][..], |it| &it.entries);
                let ids: Vec<_> = entries.iter().map(|entry| entry.account_id.clone()).collect();
                self.check_resource("transaction", named.resolved.as_ref().map(|_| &ids[..]))?;
                let amounts = entries.iter().map(|entry| (&entry.currency, entry.amount));
                amounts.into_iter().try_for_each(|(currency, it)| self.check_amount(currency, it))
            }
            Action::Fence => Ok(()),
        }
    }

    /// Checks the right to touch a hold or transaction by its accounts. None: it does not exist, and
    /// only a caller with the right to all accounts may learn that.
    ///
    /// # Errors
    /// The caller lacks the right.
    pub fn check_resource(
        &self,
        kind: &'static str,
        account_ids: Option<&[AccountId]>,
    ) -> Result<(), PermissionDenied> {
        let is_allowed = self.covers_all_accounts()
            || account_ids.is_some_and(|ids| ids.iter().all(|id| self.covers(id)));
        if is_allowed { Ok(()) } else { Err(PermissionDenied::Named(kind)) }
    }

    /// What they may see of a transaction: the entries of their accounts.
    ///
    /// # Errors
    /// Nothing, or there is no such transaction.
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

    fn check_amount(&self, currency: &Currency, amount: Amount) -> Result<(), PermissionDenied> {
        let Some(limits) = &self.amount_max else { return Ok(()) };
        let limit = limits.get(currency.code()).copied();
        if limit.is_some_and(|limit| amount.decimal().abs() <= limit.decimal()) {
            return Ok(());
        }
        Err(PermissionDenied::Amount { currency_code: currency.code().to_owned(), limit })
    }
}

impl fmt::Display for PermissionDenied {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(account_id) => {
                write!(formatter, "this identity may not touch account {account_id}")
            }
            Self::Amount { currency_code, limit: Some(limit) } => write!(
                formatter,
                "this identity may not move more than {currency_code} {} at once",
                limit.decimal()
            ),
            Self::Amount { currency_code, limit: None } => {
                write!(formatter, "this identity may not move {currency_code}")
            }
            Self::Named(kind) => write!(
                formatter,
                "there is no such {kind}, or it is not on an account that this identity may touch"
            ),
            Self::AccountIdRequired => formatter
                .write_str("this identity may touch some accounts only: account_id must be given"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(prefixes: &[&str]) -> Grant {
        let account_prefixes = prefixes.iter().map(|it| (*it).to_owned()).collect();
        Grant { account_prefixes, amount_max: None }
    }

    fn id(text: &str) -> AccountId {
        AccountId::parse(text).unwrap()
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
        assert_eq!(grant(&[""]).check_resource("hold", None), Ok(()));
        assert_eq!(
            grant(&["a"]).check_resource("hold", None),
            Err(PermissionDenied::Named("hold"))
        );
        let (own, foreign) = ([id("a")], [id("a"), id("b")]);
        assert_eq!(grant(&["a"]).check_resource("hold", Some(&own)), Ok(()));
        assert_eq!(
            grant(&["a"]).check_resource("hold", Some(&foreign)),
            Err(PermissionDenied::Named("hold"))
        );
    }

    #[test]
    fn an_amount_is_limited_whatever_its_sign_and_other_currencies_are_denied() {
        let (eur, usd) = (Currency::from_parts("EUR", 2), Currency::from_parts("USD", 2));
        let limit = eur.parse("10.00").unwrap();
        let amount_max = Some(BTreeMap::from([("EUR".to_owned(), limit)]));
        let grant = Grant { amount_max, ..grant(&[""]) };
        for allowed in ["10", "-10", "0.01"] {
            assert_eq!(grant.check_amount(&eur, eur.parse(allowed).unwrap()), Ok(()), "{allowed}");
        }
        for denied in ["10.01", "-10.01"] {
            let denied = grant.check_amount(&eur, eur.parse(denied).unwrap());
            let currency_code = "EUR".to_owned();
            assert_eq!(denied, Err(PermissionDenied::Amount { currency_code, limit: Some(limit) }));
        }
        let denied = grant.check_amount(&usd, usd.parse("1").unwrap());
        let currency_code = "USD".to_owned();
        assert_eq!(denied, Err(PermissionDenied::Amount { currency_code, limit: None }));
    }
}
