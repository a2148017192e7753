//! Checks the reversals of one transaction.

use std::collections::BTreeMap;

use crate::domain::{
    money::Amount,
    transaction::{Reversed, Transaction},
};

/// Verifies the reversals of one transaction, which are pushed in the order of their numbers.
pub struct ReversalVerifier {
    original: Transaction,
    count: i64,
    /// The sum of the reversals so far, if the transaction has one amount.
    sum: Option<Amount>,
}

impl ReversalVerifier {
    /// Starts before the first reversal of this transaction.
    pub fn new(original: Transaction) -> Self {
        Self { original, count: 0, sum: None }
    }

    /// Checks the next reversal, which says what is reversed with it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn push(&mut self, reversal: &Transaction, reversed: Reversed) -> Result<(), String> {
        self.count += 1;
        if reversed.count != self.count {
            let (count, expected) = (reversed.count, self.count);
            return Err(format!("it is reversal {count} of its transaction, not {expected}"));
        }
        let part = match self.original.amount() {
            Some((_, whole)) => Some(self.push_amount(reversal, reversed, whole)?),
            None if reversed == Reversed::AT_ONCE => None,
            None => {
                return Err(
                    "it reverses a part of a transaction that has several amounts".to_owned()
                );
            }
        };
        self.require_mirrored(reversal, part)
    }

    /// Checks the amount of a reversal of a transaction that has one amount, and returns it.
    fn push_amount(
        &mut self,
        reversal: &Transaction,
        reversed: Reversed,
        whole: Amount,
    ) -> Result<Amount, String> {
        let Some((_, amount)) = reversal.amount() else {
            return Err("it has several amounts, but its transaction has one".to_owned());
        };
        let sum = self.sum.map_or(amount, |sum| sum.plus(amount));
        self.sum = Some(sum);
        let stored = reversed.amount.unwrap_or(whole);
        if stored != sum {
            return Err(format!(
                "with it, {sum} of its transaction are reversed, but its details say {stored}"
            ));
        }
        if sum > whole {
            return Err(format!("with it, {sum} of {whole} are reversed"));
        }
        Ok(amount)
    }

    /// Checks that the reversal has the opposite of each entry, or so much of it. It can have more: the
    /// entry of a contra account, if the transaction was made without one.
    fn require_mirrored(&self, reversal: &Transaction, part: Option<Amount>) -> Result<(), String> {
        let mut mirrored = BTreeMap::new();
        for entry in &reversal.entries {
            *mirrored.entry((&entry.account_id, entry.amount)).or_insert(0) += 1;
        }
        for entry in &self.original.entries {
            let amount = part.map_or(-entry.amount, |size| entry.opposite(size));
            let count = mirrored.entry((&entry.account_id, amount)).or_insert(0);
            *count -= 1;
            if *count < 0 {
                let account_id = &entry.account_id;
                return Err(format!("it has no entry of {amount} on account {account_id}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::ReversalVerifier;
    use crate::domain::{
        fixtures::{transaction, usd},
        transaction::{Reversed, Transaction, TransactionKind},
    };

    type Legs<'a> = &'a [(&'a str, &'a str)];

    /// Pushes reversals with these entries, each with its number and the sum that it says.
    fn verify(
        original: Legs<'_>,
        reversals: &[(Legs<'_>, i64, Option<&str>)],
    ) -> Result<(), String> {
        let of_kind = |kind, legs| -> Transaction { transaction(kind, &usd(), legs) };
        let mut verifier = ReversalVerifier::new(of_kind(TransactionKind::Posting, original));
        reversals.iter().try_for_each(|(legs, count, sum)| {
            let reversed =
                Reversed { count: *count, amount: sum.map(|it| usd().parse(it).unwrap()) };
            verifier.push(&of_kind(TransactionKind::Reversal, legs), reversed)
        })
    }

    #[test]
    fn parts_sum_to_at_most_the_whole() {
        let whole: Legs<'_> = &[("a", "7")];
        let (two, three, eight): (Legs<'_>, Legs<'_>, Legs<'_>) =
            (&[("a", "-2")], &[("a", "-3")], &[("a", "-8")]);
        let right = [(three, 1, Some("3")), (two, 2, Some("5")), (two, 3, None)];
        for count in 0..=right.len() {
            assert_eq!(verify(whole, &right[..count]), Ok(()));
        }
        for (parts, words) in [
            (&[(three, 2, Some("3"))][..], "it is reversal 2 of its transaction, not 1"),
            (&[(three, 1, Some("3")), (two, 1, Some("5"))], "it is reversal 1 of"),
            (&[(three, 1, Some("2"))], "3.00 of its transaction are reversed, but"),
            (&[(three, 1, None)], "but its details say 7.00"),
            (&[(eight, 1, Some("8"))], "with it, 8.00 of 7.00 are reversed"),
            (&[(&[("a", "-3"), ("b", "4")], 1, Some("3"))], "it has several amounts"),
        ] {
            let error = verify(whole, parts).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_reversal_undoes_each_entry() {
        let whole: Legs<'_> = &[("a", "7"), ("b", "-7")];
        let several: Legs<'_> = &[("a", "7"), ("b", "-6"), ("c", "-1")];
        let verify_one =
            |original: Legs<'_>, reversal: Legs<'_>| verify(original, &[(reversal, 1, None)]);
        assert_eq!(verify_one(whole, &[("b", "7"), ("a", "-7")]), Ok(()), "in any order");
        assert_eq!(verify_one(&[("a", "7")], &[("a", "-7"), ("world", "7")]), Ok(()));
        assert_eq!(verify_one(several, &[("a", "-7"), ("b", "6"), ("c", "1")]), Ok(()));
        for (original, reversal, words) in [
            (whole, &[("a", "7"), ("b", "-7")][..], "it has no entry of -7.00 on account a"),
            (whole, &[("a", "-7"), ("c", "7")], "it has no entry of 7.00 on account b"),
            (several, &[("a", "-7"), ("b", "6")], "it has no entry of 1.00 on account c"),
            (&[("a", "1"), ("a", "1")], &[("a", "-1"), ("b", "1")], "-1.00 on account a"),
        ] {
            let error = verify_one(original, reversal).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        let part = [(&[("a", "-3"), ("b", "3")][..], 1, Some("3"))];
        let error = verify(several, &part).unwrap_err();
        assert!(error.contains("a part of a transaction that has several amounts"), "{error}");
    }
}
