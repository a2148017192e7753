//! Reversals: transactions are undone, as a whole or in parts.

use std::sync::Arc;

use crate::domain::{
    command::{Condition, Leg, Request, Reversal},
    money::{Amount, Currency},
    rejection::{Rejection, TransactionName},
    transaction::{Entry, Reversed, Transaction, TransactionKind},
    unit_of_work::{Effects, UnitOfWork, posting::Funds},
};

impl UnitOfWork {
    /// The rules of a reversal that need no account.
    pub(super) fn check_reversal(&self, reversal: &Reversal) -> Result<(), Rejection> {
        let transaction_id = reversal.transaction.transaction_id;
        let Some(original) = &reversal.transaction.resolved else { return Ok(()) };
        if reversal.amount.is_some() && original.amount().is_none() {
            return Err(Rejection::TransactionNotDivisible { transaction_id });
        }
        let before = self.reversed_by.get(&transaction_id);
        if let Some(&(reversed_by_transaction_id, Reversed { amount: None, .. })) = before {
            return Err(Rejection::AlreadyReversed { transaction_id, reversed_by_transaction_id });
        }
        let (Some((currency, amount)), Some((own, reversible))) =
            (&reversal.amount, self.reversible(original))
        else {
            return Ok(());
        };
        match own.convert(currency, *amount).filter(|amount| *amount > reversible) {
            None => Ok(()),
            Some(required) => Err(Rejection::ReversalAmountExceeded {
                transaction_id,
                account_id: original.entries.first().map(|entry| entry.account_id.clone()),
                currency_code: own.code().to_owned(),
                reversible: Some(reversible),
                required,
            }),
        }
    }

    /// The mirror image of a transaction, or of a part of it.
    pub(super) fn reverse(
        &mut self,
        request: &Request,
        reversal: &Reversal,
    ) -> Result<Effects, Rejection> {
        let transaction_id = reversal.transaction.transaction_id;
        let Some(original) = &reversal.transaction.resolved else {
            let name = TransactionName::TransactionId(transaction_id);
            return Err(Rejection::TransactionNotFound(name));
        };
        let before = self.reversed_by.get(&transaction_id).map(|(_, before)| *before);
        let reversible = self.reversible(original);
        let part = match (&reversal.amount, reversible) {
            (Some((currency, amount)), Some((own, _))) => {
                // What the account was opened with counts, not what the server's currencies have.
                let converted = own.convert(currency, *amount);
                Some(converted.map_or((currency, *amount), |amount| (own, amount)))
            }
            (None, Some(rest)) => Some(rest),
            (_, None) => None,
        };
        let legs: Vec<_> = original.entries.iter().map(|entry| mirrored(entry, part)).collect();
        let planned = self.evaluate(request, &legs, Funds::of(request))?;
        let mut transaction = self.post(request, TransactionKind::Reversal, planned);
        let reversed = Reversed {
            count: before.map_or(0, |before| before.count) + 1,
            // The amount is that of all legs: if it had another currency, they would be rejected.
            amount: part.zip(reversible).and_then(|((currency, amount), (_, reversible))| {
                let reversed = before.and_then(|before| before.amount).unwrap_or(currency.zero());
                (amount < reversible).then(|| reversed.plus(amount))
            }),
        };
        transaction.reverses = Some((transaction_id, reversed));
        let reversal_id = transaction.transaction_id.unwrap_or_default();
        self.reversed_by.insert(transaction_id, (reversal_id, reversed));
        Ok(Effects { transaction: Some(Arc::new(transaction)), hold: None })
    }

    /// The amount of a transaction that is not reversed yet. None if the transaction has several amounts.
    fn reversible<'a>(&self, original: &'a Transaction) -> Option<(&'a Currency, Amount)> {
        let (currency, amount) = original.amount()?;
        let transaction_id = original.transaction_id?;
        let reversed = match self.reversed_by.get(&transaction_id) {
            None => currency.zero(),
            Some((_, reversed)) => reversed.amount.unwrap_or(amount),
        };
        Some((currency, amount.plus(-reversed)))
    }
}

/// A leg that undoes an entry, or so much of it.
fn mirrored(entry: &Entry, part: Option<(&Currency, Amount)>) -> Leg {
    let whole = (&entry.currency, -entry.amount);
    let (currency, amount) =
        part.map_or(whole, |(currency, amount)| (currency, entry.opposite(amount)));
    Leg {
        account_id: entry.account_id.clone(),
        currency: currency.clone(),
        amount,
        condition: Condition::default(),
    }
}
