//! Balanced transactions: their amounts sum to zero in each currency.

use std::collections::BTreeMap;

use crate::domain::{
    command::{Leg, Request},
    money::Currency,
    rejection::Rejection,
};

/// Checks the sums of a posting that must be balanced.
///
/// # Errors
/// It is not.
pub fn check(request: &Request, legs: &[Leg]) -> Result<(), Rejection> {
    if !request.require_balanced {
        return Ok(());
    }
    let units = legs.iter().map(|leg| (leg.currency.clone(), leg.amount.units()));
    let Some((currency, sum)) = sums(units).find(|(_, sum)| *sum != Some(0)) else { return Ok(()) };
    let sum = sum.map(|units| currency.format_units(units));
    Err(Rejection::Unbalanced { currency_code: currency.code().to_owned(), sum })
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
