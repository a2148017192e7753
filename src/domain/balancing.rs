//! Balanced transactions: their amounts sum to zero in each currency.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use crate::domain::{
    account::ContraAccount,
    command::{Action, Condition, Leg, Request},
    hold::Capture,
    ids::AccountId,
    money::{Amount, Currency},
    rejection::Rejection,
    transaction::{Entry, TransactionKind},
};

/// The server's contra accounts, by the codes of their currencies: the other side of the money that
/// comes into the ledger or leaves it. With them, all transactions are balanced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContraAccounts(pub BTreeMap<String, AccountId>);

/// What amounts of a currency sum to, if that is not zero.
struct Remainder {
    /// Has the most decimals of all amounts.
    currency: Currency,
    /// In the smallest unit. None: beyond all amounts.
    units: Option<i128>,
}

impl ContraAccounts {
    /// Whether this is one of them.
    pub fn has(&self, account_id: &AccountId) -> bool {
        self.0.values().any(|it| it == account_id)
    }

    /// The accounts that may take a part of this change, or have a part of what it reverses. A posting
    /// and a transfer have none: all of their legs are the caller's.
    pub fn of(&self, action: &Action) -> Vec<ContraAccount> {
        let codes: BTreeSet<&str> = match action {
            Action::Post(TransactionKind::Deposit | TransactionKind::Withdrawal, legs) => {
                legs.iter().map(|leg| leg.currency.code()).collect()
            }
            Action::CaptureHold(Capture { hold, amount, destination_account_id: None, .. }) => {
                let whole = hold.resolved.as_ref().map(|hold| &hold.currency);
                let taken = amount.as_ref().map(|(currency, _)| currency);
                taken.or(whole).into_iter().map(Currency::code).collect()
            }
            Action::Reverse(reversal) => {
                let entries = || reversal.transaction.resolved.iter().flat_map(|it| &it.entries);
                let lacking = remainders(entries().map(Entry::money));
                let is_taken = |entry: &&Entry| {
                    let is_lacking = |it: &Remainder| it.currency.code() == entry.currency.code();
                    self.has(&entry.account_id) || lacking.iter().any(is_lacking)
                };
                entries().filter(is_taken).map(|entry| entry.currency.code()).collect()
            }
            Action::Post(..)
            | Action::PlaceHold(_)
            | Action::UpdateHold(_)
            | Action::CaptureHold(_)
            | Action::ReleaseHold(_)
            | Action::Fence => BTreeSet::new(),
        };
        let contra = |code: &str| {
            let account_id = self.0.get(code)?.clone();
            Some(ContraAccount { currency_code: code.to_owned(), account_id })
        };
        codes.into_iter().filter_map(contra).collect()
    }
}

/// What the caller of a reversal needs rights on, out of the accounts or entries of the reversed
/// transaction: all but the contra accounts, which the server has chosen. If there are no others, the
/// transaction is a posting between contra accounts, which its caller has chosen.
pub fn chosen_by_callers<T>(all: &[T], is_contra: impl Fn(&T) -> bool) -> impl Iterator<Item = &T> {
    let are_contra = all.iter().all(&is_contra);
    all.iter().filter(move |it| are_contra || !is_contra(it))
}

/// The legs of a transaction, with those of contra accounts behind them.
///
/// # Errors
/// The transaction must be balanced, and is not.
pub fn balanced<'a>(request: &Request, legs: &'a [Leg]) -> Result<Cow<'a, [Leg]>, Rejection> {
    if !request.require_balanced && request.contra_accounts.is_none() {
        return Ok(Cow::Borrowed(legs));
    }
    let accounts = request.contra_accounts.as_deref().unwrap_or_default();
    let mut contra_legs = Vec::new();
    for Remainder { currency, units } in remainders(legs.iter().map(Leg::money)) {
        let account = accounts.iter().find(|it| it.currency_code == currency.code());
        // An account cannot be the other side of its own change.
        let account = account.filter(|it| legs.iter().all(|leg| leg.account_id != it.account_id));
        let amount = units.and_then(|units| currency.sum_of_units(-units));
        let (Some(account), Some(amount)) = (account, amount) else {
            let is_named = matches!(request.action, Action::Post(..));
            let sum = units.filter(|_| is_named).map(|units| currency.format_units(units));
            return Err(Rejection::Unbalanced { currency_code: currency.code().to_owned(), sum });
        };
        let account_id = account.account_id.clone();
        contra_legs.push(Leg { account_id, currency, amount, condition: Condition::default() });
    }
    Ok(match contra_legs.is_empty() {
        true => Cow::Borrowed(legs),
        false => Cow::Owned([legs, &contra_legs].concat()),
    })
}

/// The sums that are not zero, in order of the codes of their currencies.
fn remainders<'a>(amounts: impl Iterator<Item = (&'a Currency, Amount)>) -> Vec<Remainder> {
    let units = amounts.map(|(currency, amount)| (currency.clone(), amount.units()));
    let different = sums(units).filter(|(_, units)| *units != Some(0));
    different.map(|(currency, units)| Remainder { currency, units }).collect()
}

/// The sum of each currency, in order of their codes, in the smallest unit of the one with the most
/// decimals: accounts that were opened when a currency had other decimals keep them. None: the sum is
/// beyond 2^127.
pub(super) fn sums(
    amounts: impl Iterator<Item = (Currency, i128)>,
) -> impl Iterator<Item = (Currency, Option<i128>)> {
    let mut sums: BTreeMap<String, (Currency, Option<i128>)> = BTreeMap::new();
    for (currency, units) in amounts {
        let code = currency.code().to_owned();
        let (finest, sum) = sums.entry(code).or_insert_with(|| (currency.clone(), Some(0)));
        if finest.scale() < currency.scale() {
            *sum = sum.and_then(|sum| scaled(sum, currency.scale() - finest.scale()));
            *finest = currency.clone();
        }
        let units = scaled(units, finest.scale() - currency.scale());
        *sum = sum.zip(units).and_then(|(sum, units)| sum.checked_add(units));
    }
    sums.into_values()
}

/// None if the result is beyond 2^127.
fn scaled(units: i128, more_decimals: u32) -> Option<i128> {
    10_i128.checked_pow(more_decimals).and_then(|factor| units.checked_mul(factor))
}
