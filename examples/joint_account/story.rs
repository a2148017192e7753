//! The amounts of the example, and the balances at which its rounds end.

use rust_decimal::Decimal;

/// The balance of the joint account before each round, in dollars. It must be the same after it.
pub const START: i64 = 1000;
/// The amount that one process deposits and the other withdraws, in dollars.
pub const CHANGE: i64 = 100;

/// The numbers of rounds by their final balance.
#[derive(Default)]
pub struct Endings {
    pub right: u32,
    pub deposit_lost: u32,
    pub withdrawal_lost: u32,
    /// Any other balance, which is a bug even without a lock.
    pub other: u32,
}

impl Endings {
    pub fn add(&mut self, balance: Decimal) {
        let difference = balance - Decimal::from(START);
        if difference.is_zero() {
            self.right += 1;
        } else if difference == Decimal::from(-CHANGE) {
            self.deposit_lost += 1;
        } else if difference == Decimal::from(CHANGE) {
            self.withdrawal_lost += 1;
        } else {
            self.other += 1;
        }
    }

    pub fn wrong(&self) -> u32 {
        self.deposit_lost + self.withdrawal_lost + self.other
    }
}
