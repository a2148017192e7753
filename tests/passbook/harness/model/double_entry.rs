//! Double entry in the model.

use std::collections::BTreeMap;

use tonic::Code;

use crate::harness::{
    model::command::{Command, Rejection},
    model::money::Leg,
    model::{Model, text},
};

impl Model {
    /// Checks the legs of a posting that must be balanced.
    pub(super) fn is_balanced(command: &Command, legs: &[Leg]) -> Result<(), Rejection> {
        let Command::Post(posting) = command else { return Ok(()) };
        if !posting.require_balanced {
            return Ok(());
        }
        let amounts = legs.iter().map(|leg| (leg.currency_code.clone(), leg.units));
        let Some((currency_code, sum)) = remainder(amounts) else { return Ok(()) };
        let sum = text(&currency_code, sum);
        let metadata = [("currency_code", currency_code), ("sum", sum)];
        Err(Rejection::new(Code::FailedPrecondition, "UNBALANCED", &metadata))
    }
}

/// The first currency whose amounts do not sum to zero, and their sum.
fn remainder(amounts: impl Iterator<Item = (String, i128)>) -> Option<(String, i128)> {
    let mut sums: BTreeMap<String, i128> = BTreeMap::new();
    for (currency_code, units) in amounts {
        *sums.entry(currency_code).or_default() += units;
    }
    sums.into_iter().find(|(_, sum)| *sum != 0)
}
