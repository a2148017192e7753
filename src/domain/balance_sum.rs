//! Sums of balances.

use crate::domain::money::Currency;

/// The sum of some accounts of one currency, in the currency's smallest unit. It may be far beyond the
/// limit of one amount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceSum {
    /// The currency. Of accounts with different decimals, that with the most.
    pub currency: Currency,
    /// The number of accounts.
    pub accounts: u64,
    /// The sum of the balances.
    pub balance: i128,
    /// The sum of what is held.
    pub held: i128,
    /// The sum of the overdraft limits.
    pub overdraft_limit: i128,
}

impl BalanceSum {
    /// What can be spent of all accounts together.
    pub fn available(&self) -> i128 {
        self.balance - self.held + self.overdraft_limit
    }

    /// The sum of both, of accounts of the same currency. None beyond 2^127.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let (left, right) = match self.currency.scale() >= other.currency.scale() {
            true => (self, other),
            false => (other, self),
        };
        let factor = 10_i128.checked_pow(left.currency.scale() - right.currency.scale())?;
        let sum = |left: i128, right: i128| left.checked_add(right.checked_mul(factor)?);
        Some(Self {
            accounts: left.accounts + right.accounts,
            balance: sum(left.balance, right.balance)?,
            held: sum(left.held, right.held)?,
            overdraft_limit: sum(left.overdraft_limit, right.overdraft_limit)?,
            currency: left.currency,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(scale: u32, units: i128) -> BalanceSum {
        let currency = Currency::from_parts("USD", scale);
        BalanceSum { currency, accounts: 1, balance: units, held: 1, overdraft_limit: 2 }
    }

    #[test]
    fn accounts_with_fewer_decimals_are_added_exactly() {
        let expected = BalanceSum {
            currency: Currency::from_parts("USD", 3),
            accounts: 2,
            balance: 1237,
            held: 11,
            overdraft_limit: 22,
        };
        assert_eq!(sum(2, 123).checked_add(sum(3, 7)), Some(expected.clone()));
        assert_eq!(sum(3, 7).checked_add(sum(2, 123)), Some(expected.clone()));
        assert_eq!(expected.available(), 1237 - 11 + 22);
        assert_eq!(sum(0, 10_i128.pow(28)).checked_add(sum(27, 1)), None, "beyond 2^127");
    }
}
