//! The numbers of the story, and how its rounds ended.

use rust_decimal::Decimal;

/// What the joint account holds before anything happens, and should hold after.
pub const START: i64 = 1000;
/// What one process deposits and the other withdraws.
pub const CHANGE: i64 = 100;

/// How many rounds ended how.
#[derive(Default)]
pub struct Endings {
    pub right: u32,
    pub deposit_lost: u32,
    pub withdrawal_lost: u32,
    /// Any other balance: should not happen even without a lock.
    pub strange: u32,
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
            self.strange += 1;
        }
    }

    pub fn wrong(&self) -> u32 {
        self.deposit_lost + self.withdrawal_lost + self.strange
    }
}
