//! Commands that post transactions: deposits, withdrawals, transfers, postings of any legs, batches
//! of them, and reversals.

use std::fmt;

use crate::{
    domain::{
        command::{Action, Condition, Leg, Request, Reversal, TransactionRef},
        ids::AccountId,
        transaction::TransactionKind,
    },
    grpc::{
        decode::{
            BATCH_LEGS_MAX, LEGS_MAX,
            decoder::{Decoder, Sign, check_length},
        },
        error::invalid::Invalid,
    },
    proto::{self, ErrorReason},
};

/// A deposit.
pub fn deposit(decoder: &mut Decoder<'_>, request: proto::DepositRequest) -> Option<Request> {
    let account_id = decoder.account_id("account_id", &request.account_id);
    let (amount, condition) = (request.amount.as_ref(), request.condition.as_ref());
    let leg = leg(decoder, "", account_id, amount, Sign::Positive, condition);
    let action = leg.map(|leg| Action::Post(TransactionKind::Deposit, vec![leg]));
    let effective_time_us = decoder.effective_time(request.effective_time.as_ref());
    let decoded =
        decoder.request(&request.request_id, action, request.description, request.labels)?;
    Some(Request { validate_only: request.validate_only, effective_time_us, ..decoded })
}

/// A withdrawal.
pub fn withdraw(decoder: &mut Decoder<'_>, request: proto::WithdrawRequest) -> Option<Request> {
    let account_id = decoder.account_id("account_id", &request.account_id);
    let (amount, condition) = (request.amount.as_ref(), request.condition.as_ref());
    let leg = leg(decoder, "", account_id, amount, Sign::Positive, condition);
    let leg = leg.map(|leg| Leg { amount: -leg.amount, ..leg });
    let action = leg.map(|leg| Action::Post(TransactionKind::Withdrawal, vec![leg]));
    let effective_time_us = decoder.effective_time(request.effective_time.as_ref());
    let decoded =
        decoder.request(&request.request_id, action, request.description, request.labels)?;
    let (validate_only, force) = (request.validate_only, request.force);
    Some(Request { validate_only, force, effective_time_us, ..decoded })
}

/// A transfer. The condition is on the source account.
pub fn transfer(decoder: &mut Decoder<'_>, request: proto::TransferRequest) -> Option<Request> {
    let source = decoder.account_id("source_account_id", &request.source_account_id);
    let field = "destination_account_id";
    let destination = decoder.account_id(field, &request.destination_account_id);
    if source.is_some() && source == destination {
        decoder.report(ErrorReason::InvalidAccountId, field, "must not be the source_account_id");
    }
    let (amount, condition) = (request.amount.as_ref(), request.condition.as_ref());
    let source = leg(decoder, "", source, amount, Sign::Positive, condition);
    let action = source.zip(destination).map(|(source, account_id)| {
        let (currency, amount) = (source.currency.clone(), source.amount);
        let source = Leg { amount: -amount, ..source };
        let destination = Leg { account_id, currency, amount, condition: Condition::default() };
        Action::Post(TransactionKind::Transfer, vec![source, destination])
    });
    let effective_time_us = decoder.effective_time(request.effective_time.as_ref());
    let decoded =
        decoder.request(&request.request_id, action, request.description, request.labels)?;
    let (validate_only, force) = (request.validate_only, request.force);
    Some(Request { validate_only, force, effective_time_us, ..decoded })
}

/// A posting of any legs.
pub fn transaction(
    decoder: &mut Decoder<'_>,
    request: proto::PostTransactionRequest,
) -> Option<Request> {
    let count = request.legs.len();
    let is_allowed = (1..=LEGS_MAX).contains(&count);
    if !is_allowed {
        let description = format!("has {count} legs; 1-{LEGS_MAX} are allowed");
        decoder.report(ErrorReason::InvalidLegs, "legs", description);
    }
    let mut legs = Vec::with_capacity(count.min(LEGS_MAX));
    // An invalid request must not take more work than the largest valid one.
    for (index, encoded) in request.legs.iter().take(LEGS_MAX).enumerate() {
        let path = format_args!("legs[{index}].");
        let account_id = decoder.account_id(format_args!("{path}account_id"), &encoded.account_id);
        let (amount, condition) = (encoded.amount.as_ref(), encoded.condition.as_ref());
        legs.extend(leg(decoder, path, account_id, amount, Sign::NotZero, condition));
    }
    let action = is_allowed.then_some(Action::Post(TransactionKind::Posting, legs));
    let effective_time_us = decoder.effective_time(request.effective_time.as_ref());
    let decoded =
        decoder.request(&request.request_id, action, request.description, request.labels)?;
    let (validate_only, force) = (request.validate_only, request.force);
    let require_balanced = request.require_balanced;
    Some(Request { validate_only, force, effective_time_us, require_balanced, ..decoded })
}

/// A leg. `path` is the beginning of the fields' paths.
fn leg(
    decoder: &mut Decoder<'_>,
    path: impl fmt::Display,
    account_id: Option<AccountId>,
    amount: Option<&proto::Money>,
    sign: Sign,
    condition: Option<&proto::Condition>,
) -> Option<Leg> {
    let money = decoder.amount(format_args!("{path}amount"), amount, sign);
    // The condition has the currency of the amount, even if the value of the amount is invalid.
    let of_invalid = match (&money, amount) {
        (None, Some(amount)) => decoder.currencies.get(&amount.currency_code).ok(),
        _ => None,
    };
    let currency = money.as_ref().map(|(currency, _)| currency).or(of_invalid.as_ref());
    let condition = decoder.condition(format_args!("{path}condition"), condition, currency);
    let (currency, amount) = money?;
    Some(Leg { account_id: account_id?, currency, amount, condition: condition? })
}

/// The requests of a batch, not decoded yet: an invalid request does not reject the others.
pub fn batch(
    request: proto::BatchPostTransactionsRequest,
) -> Result<Vec<proto::PostTransactionRequest>, Invalid> {
    check_length(request.requests.len())?;
    let legs: usize = request.requests.iter().map(|it| it.legs.len()).sum();
    if legs > BATCH_LEGS_MAX {
        let description = format!("has {legs} legs in all; at most {BATCH_LEGS_MAX} are allowed");
        return Err(Invalid::new(ErrorReason::InvalidRequests, "requests", description));
    }
    Ok(request.requests)
}

/// A transaction to reverse.
pub fn reversal(
    decoder: &mut Decoder<'_>,
    request: proto::ReverseTransactionRequest,
) -> Option<Request> {
    let transaction_id = decoder.transaction_id(&request.transaction_id);
    let money = request.amount.as_ref();
    let amount = money.and_then(|money| decoder.amount("amount", Some(money), Sign::Positive));
    let action = transaction_id.map(|transaction_id| {
        let transaction = TransactionRef { transaction_id, resolved: None };
        Action::Reverse(Reversal { transaction, amount })
    });
    let effective_time_us = decoder.effective_time(request.effective_time.as_ref());
    let decoded =
        decoder.request(&request.request_id, action, request.description, request.labels)?;
    Some(Request { force: request.force, effective_time_us, ..decoded })
}
