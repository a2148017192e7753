//! Rules of the policy: rights on accounts, allowed up to an amount or denied.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::domain::{ids::AccountId, money::Amount, query::AccountRange};

/// A right on an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// To see balance, attributes, entries and holds.
    Read,
    /// To increase the balance.
    Credit,
    /// To decrease the balance, to place holds, and to end them.
    Debit,
    /// To open the account, and to change its attributes.
    Manage,
    /// To let the balance go below zero: the overdraft limit.
    Overdraft,
    /// To decrease the balance although funds lack or the account is frozen.
    Force,
}

names!(Right {
    Read = "read",
    Credit = "credit",
    Debit = "debit",
    Manage = "manage",
    Overdraft = "overdraft",
    Force = "force",
});

/// One rule: some rights on some accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The accounts that the rule is about.
    pub accounts: Vec<AccountPattern>,
    /// The rights that the rule is about.
    pub rights: Vec<Right>,
    /// What becomes of these rights.
    pub effect: Effect,
}

/// What a rule does with its rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Grants the rights, up to this amount.
    Allow(AmountMax),
    /// Denies the rights, whatever other rules allow.
    Deny,
}

/// The most that one request may move, hold or allow as overdraft on one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AmountMax {
    /// Any amount of any currency.
    Unlimited,
    /// By the currency's code. Other currencies are denied.
    ByCurrency(BTreeMap<String, Amount>),
}

/// The accounts that a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountPattern {
    /// The account with this id.
    Exact(AccountId),
    /// The accounts whose ids begin with this; the empty prefix is all of them.
    Prefix(String),
}

impl Rule {
    /// Whether the rule is about this right on this account.
    pub(super) fn applies(&self, right: Right, account_id: &AccountId) -> bool {
        self.rights.contains(&right) && self.accounts.iter().any(|it| it.matches(account_id))
    }
}

impl AccountPattern {
    /// All accounts.
    pub fn all() -> Self {
        Self::Prefix(String::new())
    }

    fn matches(&self, account_id: &AccountId) -> bool {
        match self {
            Self::Exact(own) => own == account_id,
            Self::Prefix(prefix) => account_id.as_str().starts_with(prefix.as_str()),
        }
    }

    fn range(&self) -> AccountRange {
        match self {
            Self::Exact(account_id) => AccountRange::of_one(account_id),
            Self::Prefix(prefix) => AccountRange::of_prefix(prefix),
        }
    }
}

/// The accounts on which the rules grant a right, as disjoint ranges in ascending order.
pub fn ranges(rules: &[Rule], right: Right) -> Vec<AccountRange> {
    let of = |is_denial: bool| {
        let rules = rules.iter().filter(move |rule| {
            rule.rights.contains(&right) && (rule.effect == Effect::Deny) == is_denial
        });
        rules.flat_map(|rule| &rule.accounts).map(AccountPattern::range)
    };
    let mut allowed: Vec<_> = of(false).collect();
    // Two patterns are nested or disjoint: the wider one comes first and contains the other.
    allowed.sort_by(|left, right| {
        (&left.start, Reverse(&left.end)).cmp(&(&right.start, Reverse(&right.end)))
    });
    allowed.dedup_by(|next, kept| next.end <= kept.end);
    of(true).fold(allowed, |allowed, denied| {
        allowed.into_iter().flat_map(|range| range.without(&denied)).collect()
    })
}
