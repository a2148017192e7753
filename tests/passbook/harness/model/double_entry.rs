//! Double entry in the model.

use std::collections::BTreeMap;

use passbook::proto::*;
use tonic::Code;

use crate::harness::{
    model::command::{Command, Rejection},
    model::money::Leg,
    model::{Model, text, units},
};

/// What the ids of contra accounts begin with.
pub const CONTRA_PREFIX: &str = "World:";

impl Model {
    /// Checks the legs of a posting that must be balanced.
    pub(super) fn is_balanced(&self, command: &Command, legs: &[Leg]) -> Result<(), Rejection> {
        let Command::Post(posting) = command else { return Ok(()) };
        if !posting.require_balanced && !self.has_contra_accounts {
            return Ok(());
        }
        let amounts = legs.iter().map(|leg| (leg.currency_code.clone(), leg.units));
        let Some((currency_code, sum)) = remainder(amounts) else { return Ok(()) };
        let sum = text(&currency_code, sum);
        let metadata = [("currency_code", currency_code), ("sum", sum)];
        Err(Rejection::new(Code::FailedPrecondition, "UNBALANCED", &metadata))
    }
}

/// Checks that a transaction sums to zero, and removes the entries of contra accounts, which the model
/// does not have: they belong to all callers.
pub fn take_contra_entries(transaction: &mut Transaction) {
    let entries = &mut transaction.entries;
    let amounts = entries.iter().map(|entry| entry.amount.as_ref().expect("an amount"));
    let rest = remainder(amounts.map(|it| (it.currency_code.clone(), units(it))));
    assert_eq!(rest, None, "{entries:#?}");
    let is_contra = |entry: &Entry| entry.account_id.starts_with(CONTRA_PREFIX);
    let first = entries.iter().position(is_contra).unwrap_or(entries.len());
    let contra: Vec<Entry> = entries.drain(first..).collect();
    assert!(contra.iter().all(is_contra), "they are behind the others: {contra:#?}");
}

/// The first currency whose amounts do not sum to zero, and their sum.
fn remainder(amounts: impl Iterator<Item = (String, i128)>) -> Option<(String, i128)> {
    let mut sums: BTreeMap<String, i128> = BTreeMap::new();
    for (currency_code, units) in amounts {
        *sums.entry(currency_code).or_default() += units;
    }
    sums.into_iter().find(|(_, sum)| *sum != 0)
}
