//! Checks what was captured of a hold against its captures.

use std::collections::BTreeMap;

use crate::domain::{
    hold::Hold,
    money::Amount,
    transaction::{Entry, Transaction},
};

/// What was captured of a hold before something and after it.
#[derive(Clone, Copy, Debug)]
pub struct CapturedStep {
    /// The captured amount before.
    pub before: Amount,
    /// The captured amount after.
    pub after: Amount,
}

impl CapturedStep {
    /// The step of a capture, with the hold as it was afterwards.
    pub fn of_capture(transaction: &Transaction, hold: &Hold) -> Self {
        // What is captured to the account of the hold comes back in another entry.
        let is_taken =
            |entry: &&Entry| entry.account_id == hold.account_id && entry.amount.is_negative();
        let own = transaction.entries.iter().filter(is_taken);
        let taken = own.fold(hold.currency.zero(), |sum, entry| sum.plus(-entry.amount));
        let after = hold.captured.map_or(hold.currency.zero(), |captured| captured.amount);
        Self { before: after.plus(-taken), after }
    }

    /// The step that leads back: from all that was captured of the hold to nothing.
    pub fn back(hold: &Hold) -> Self {
        let after = hold.currency.zero();
        Self { before: hold.captured.map_or(after, |captured| captured.amount), after }
    }
}

/// Verifies the captures of one hold, which are pushed in any order, with the step back. Each ends with
/// the sum that the next one begins with.
#[derive(Debug, Default)]
pub struct CapturesVerifier {
    /// How many steps end with a sum, less those that begin with it.
    ends: BTreeMap<Amount, i64>,
}

impl CapturesVerifier {
    /// Adds a step.
    pub fn push(&mut self, CapturedStep { before, after }: CapturedStep) {
        *self.ends.entry(before).or_default() -= 1;
        *self.ends.entry(after).or_default() += 1;
    }

    /// What is wrong with the steps, if something is.
    pub fn fault(&self) -> Option<String> {
        let (sum, _) = self.ends.iter().find(|(_, count)| **count != 0)?;
        Some(format!(
            "what was captured of it is not the sum of its captures: no capture leads to {sum}, or none \
             goes on from there"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::{CapturedStep, CapturesVerifier};
    use crate::domain::fixtures::usd;

    #[test]
    fn captures_lead_from_zero_to_what_was_captured() {
        let fault = |steps: &[(&str, &str)]| {
            let mut verifier = CapturesVerifier::default();
            for (before, after) in steps {
                let [before, after] = [before, after].map(|it| usd().parse(it).expect("an amount"));
                verifier.push(CapturedStep { before, after });
            }
            verifier.fault()
        };
        let back = ("6", "0");
        assert_eq!(fault(&[]), None);
        assert_eq!(fault(&[("0", "0")]), None, "nothing was captured");
        assert_eq!(fault(&[("2", "5"), ("0", "2"), back, ("5", "6")]), None, "in any order");
        for wrong in [
            &[back][..],
            &[("0", "6")],
            &[("0", "2"), ("2", "5"), back],
            &[("0", "2"), ("3", "6"), back],
            &[("0", "6"), ("0", "6"), back],
        ] {
            assert!(fault(wrong).is_some(), "{wrong:?}");
        }
    }
}
