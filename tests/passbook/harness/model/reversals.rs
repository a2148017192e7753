//! Reversals of the model.

use passbook::proto::*;
use tonic::Code;

use crate::harness::{
    model::command::{Rejection, Reply},
    model::money::{Frame, Funds, Leg, leg},
    model::{Model, Reversed, money_in, units},
};

impl Model {
    pub(super) fn reverse(
        &mut self,
        request: &ReverseTransactionRequest,
        reply: &Reply,
    ) -> Result<Transaction, Rejection> {
        let response = &reply.as_ref().ok().cloned().unwrap_or_default();
        let transaction_id = &request.transaction_id;
        let id = ("transaction_id", transaction_id.clone());
        let Some(original) = self.transactions.get(transaction_id) else {
            return Err(Rejection::new(Code::NotFound, "TRANSACTION_NOT_FOUND", &[id]));
        };
        let whole = only_amount(original);
        if request.amount.is_some() && whole.is_none() {
            let reason = "TRANSACTION_NOT_DIVISIBLE";
            return Err(Rejection::new(Code::FailedPrecondition, reason, &[id]));
        }
        let before = match self.reversed.get(transaction_id) {
            None => 0,
            Some(Reversed { units: Some(units), .. }) => *units,
            Some(Reversed { by, units: None }) => {
                let metadata = [id, ("reversed_by_transaction_id", by.clone())];
                let reason = "ALREADY_REVERSED";
                return Err(Rejection::new(Code::FailedPrecondition, reason, &metadata));
            }
        };
        let rest = whole.map(|(currency_code, units)| money_in(&currency_code, units - before));
        let part = request.amount.clone().or_else(|| rest.clone());
        if let (Some(part), Some(rest)) = (&part, &rest)
            && part.currency_code == rest.currency_code
            && units(part) > units(rest)
        {
            let metadata = [
                id,
                ("account_id", original.entries[0].account_id.clone()),
                ("currency_code", rest.currency_code.clone()),
                ("reversible", rest.value.clone()),
                ("required", part.value.clone()),
            ];
            let reason = "REVERSAL_AMOUNT_EXCEEDED";
            return Err(Rejection::new(Code::FailedPrecondition, reason, &metadata));
        }
        let mirrored = |entry: &Entry| {
            let amount = entry.amount.as_ref().expect("an amount");
            let part = part.as_ref().map(|part| (&part.currency_code, units(part)));
            let (currency_code, size) =
                part.unwrap_or((&amount.currency_code, units(amount).abs()));
            leg(&entry.account_id, currency_code, -units(amount).signum() * size)
        };
        let legs: Vec<Leg> = original.entries.iter().map(mirrored).collect();
        let sum = part.as_ref().zip(rest).map(|(part, rest)| (before + units(part), units(&rest)));
        let left = sum.filter(|(sum, rest)| *sum < before + rest).map(|(sum, _)| sum);
        let funds = if request.force { Funds::Any } else { Funds::Nothing };
        self.judge(&legs, funds)?;
        self.takes_effect(&request.effective_time, reply)?;
        // The sum of a transfer or a capture is zero with or without it.
        for leg in &legs {
            self.comes_in(&leg.currency_code, leg.units);
        }
        let frame = Frame {
            kind: TransactionKind::Reversal,
            request_id: request.request_id.clone(),
            description: request.description.clone(),
            labels: request.labels.clone(),
            reverses_transaction_id: transaction_id.clone(),
            forced: request.force,
            effective_time: request.effective_time,
        };
        let reversal = self.carry_out(&legs, frame, response);
        let reversed = Reversed { by: reversal.transaction_id.clone(), units: left };
        self.reversed.insert(transaction_id.clone(), reversed);
        Ok(reversal)
    }
}

/// The amount of a transaction of one entry, or of two that sum to zero.
fn only_amount(transaction: &Transaction) -> Option<(String, i128)> {
    let amounts = transaction.entries.iter().map(|entry| entry.amount.as_ref().expect("money"));
    match amounts.collect::<Vec<_>>()[..] {
        [only] => Some((only.currency_code.clone(), units(only).abs())),
        [left, right]
            if left.currency_code == right.currency_code && units(left) == -units(right) =>
        {
            Some((left.currency_code.clone(), units(left).abs()))
        }
        _ => None,
    }
}
