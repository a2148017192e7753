//! Checks the reversals of one transaction in parts.

use crate::domain::{money::Amount, transaction::Reversed};

/// Verifies the reversals of one transaction, which are pushed in the order of their numbers.
pub struct ReversalVerifier {
    /// The amount of the transaction. None: it has several.
    whole: Option<Amount>,
    count: i64,
    sum: Option<Amount>,
}

impl ReversalVerifier {
    /// Starts before the first reversal of a transaction of this amount.
    pub fn new(whole: Option<Amount>) -> Self {
        Self { whole, count: 0, sum: None }
    }

    /// Checks the next reversal, of this amount, which says what is reversed with it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn push(&mut self, amount: Option<Amount>, reversed: Reversed) -> Result<(), String> {
        let (Some(whole), Some(amount)) = (self.whole, amount) else {
            return Err("it reverses a part of a transaction that has several amounts".to_owned());
        };
        self.count += 1;
        if reversed.count != self.count {
            let (count, expected) = (reversed.count, self.count);
            return Err(format!("it is reversal {count} of its transaction, not {expected}"));
        }
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
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::ReversalVerifier;
    use crate::domain::{money::Currency, transaction::Reversed};

    /// Pushes reversals of these amounts, each with its number and the sum that it says.
    fn verify(whole: Option<&str>, parts: &[(&str, i64, Option<&str>)]) -> Result<(), String> {
        let usd = Currency::from_parts("USD", 2);
        let amount = |text: &str| usd.parse(text).unwrap();
        let mut verifier = ReversalVerifier::new(whole.map(amount));
        parts.iter().try_for_each(|(part, count, sum)| {
            let reversed = Reversed { count: *count, amount: sum.map(amount) };
            verifier.push(Some(amount(part)), reversed)
        })
    }

    #[test]
    fn parts_sum_to_at_most_the_whole() {
        let right = [("3", 1, Some("3")), ("2", 2, Some("5")), ("2", 3, None)];
        for count in 0..=right.len() {
            assert_eq!(verify(Some("7"), &right[..count]), Ok(()));
        }
        for (parts, words) in [
            (&[("3", 2, Some("3"))][..], "it is reversal 2 of its transaction, not 1"),
            (&[("3", 1, Some("3")), ("2", 1, Some("5"))], "it is reversal 1 of"),
            (&[("3", 1, Some("2"))], "3.00 of its transaction are reversed, but"),
            (&[("3", 1, None)], "but its details say 7.00"),
            (&[("8", 1, Some("8"))], "with it, 8.00 of 7.00 are reversed"),
        ] {
            let error = verify(Some("7"), parts).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!(verify(None, &right).is_err());
    }
}
