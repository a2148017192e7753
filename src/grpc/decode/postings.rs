//! Commands that post transactions: deposits, withdrawals, transfers, postings of any legs, batches
//! of them, and reversals.

use std::fmt;

use crate::{
    domain::{
        account::Labels,
        command::{Action, Leg, Request, TransactionRef},
        ids::Identity,
        money::Currencies,
        transaction::TransactionKind,
    },
    grpc::{
        decode::{
            BATCH_LEGS_MAX, BATCH_POST_MAX, LEGS_MAX,
            decoder::{Decoder, Sign, empty_request},
        },
        error::invalid::Invalid,
    },
    proto::{self, ErrorReason},
};

/// The fields that deposits, withdrawals and transfers share.
struct CommonFields<'a> {
    kind: TransactionKind,
    request_id: &'a str,
    amount: Option<&'a proto::Money>,
    description: String,
    labels: Labels,
    condition: Option<&'a proto::Condition>,
    validate_only: bool,
}

/// The accounts of a deposit, a withdrawal or a transfer, each as (name of the field, value). The
/// condition is on the first account.
#[derive(Clone, Copy)]
enum Sides<'a> {
    /// A deposit into the account.
    Into(&'a str, &'a str),
    /// A withdrawal from the account.
    From(&'a str, &'a str),
    /// A transfer from the first account to the second.
    Between((&'a str, &'a str), (&'a str, &'a str)),
}

/// A deposit, on behalf of `caller`.
pub fn deposit(
    currencies: &Currencies,
    caller: &Identity,
    request: proto::DepositRequest,
) -> Result<Request, Invalid> {
    let common = CommonFields {
        kind: TransactionKind::Deposit,
        request_id: &request.request_id,
        amount: request.amount.as_ref(),
        description: request.description,
        labels: request.labels,
        condition: request.condition.as_ref(),
        validate_only: request.validate_only,
    };
    posting(currencies, caller, common, Sides::Into("account_id", &request.account_id))
}

/// A withdrawal, on behalf of `caller`.
pub fn withdraw(
    currencies: &Currencies,
    caller: &Identity,
    request: proto::WithdrawRequest,
) -> Result<Request, Invalid> {
    let common = CommonFields {
        kind: TransactionKind::Withdrawal,
        request_id: &request.request_id,
        amount: request.amount.as_ref(),
        description: request.description,
        labels: request.labels,
        condition: request.condition.as_ref(),
        validate_only: request.validate_only,
    };
    posting(currencies, caller, common, Sides::From("account_id", &request.account_id))
}

/// A transfer, on behalf of `caller`.
pub fn transfer(
    currencies: &Currencies,
    caller: &Identity,
    request: proto::TransferRequest,
) -> Result<Request, Invalid> {
    let common = CommonFields {
        kind: TransactionKind::Transfer,
        request_id: &request.request_id,
        amount: request.amount.as_ref(),
        description: request.description,
        labels: request.labels,
        condition: request.condition.as_ref(),
        validate_only: request.validate_only,
    };
    let source = ("source_account_id", request.source_account_id.as_str());
    let destination = ("destination_account_id", request.destination_account_id.as_str());
    posting(currencies, caller, common, Sides::Between(source, destination))
}

fn posting(
    currencies: &Currencies,
    caller: &Identity,
    common: CommonFields<'_>,
    sides: Sides<'_>,
) -> Result<Request, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let request_id = decoder.request_id("request_id", common.request_id);
    let (first, second, is_in) = match sides {
        Sides::Into(field, text) => (decoder.account_id(field, text), None, true),
        Sides::From(field, text) => (decoder.account_id(field, text), None, false),
        Sides::Between((source_field, source), (field, destination)) => {
            let source = decoder.account_id(source_field, source);
            let destination = decoder.account_id(field, destination);
            if source.is_some() && source == destination {
                let reason = ErrorReason::InvalidAccountId;
                decoder.report(reason, field, format!("must not be the {source_field}"));
            }
            (source, destination, false)
        }
    };
    let money = decoder.amount("amount", common.amount, Sign::Positive);
    let currency = money.as_ref().map(|(currency, _)| currency);
    let condition = decoder.condition("condition", common.condition, currency);
    decoder.description(&common.description);
    decoder.labels(&common.labels);
    let legs = (|| {
        let (currency, amount) = money?;
        let leg = |account_id, amount, condition| Leg {
            account_id,
            currency: currency.clone(),
            amount,
            condition,
        };
        let mut legs = vec![leg(first?, if is_in { amount } else { -amount }, condition?)];
        legs.extend(second.map(|second| leg(second, amount, Default::default())));
        Some(legs)
    })();
    let decoded = request_id.zip(legs).map(|(request_id, legs)| Request {
        action: Action::Post(common.kind, legs),
        description: common.description,
        labels: common.labels,
        validate_only: common.validate_only,
        ..empty_request(caller, request_id)
    });
    decoder.finish(decoded)
}

/// A transaction of any legs, on behalf of `caller`.
pub fn transaction(
    currencies: &Currencies,
    caller: &Identity,
    request: proto::PostTransactionRequest,
) -> Result<Request, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let request_id = decoder.request_id("request_id", &request.request_id);
    if request.legs.is_empty() || request.legs.len() > LEGS_MAX {
        let description = format!("has {} legs; 1-{LEGS_MAX} are allowed", request.legs.len());
        decoder.report(ErrorReason::InvalidLegs, "legs", description);
        return decoder.finish(None);
    }
    let mut legs = Some(Vec::with_capacity(request.legs.len()));
    for (index, encoded) in request.legs.iter().enumerate() {
        let decoded = leg(&mut decoder, format_args!("legs[{index}]"), encoded);
        legs = legs.zip(decoded).map(|(mut legs, leg)| {
            legs.push(leg);
            legs
        });
    }
    decoder.description(&request.description);
    decoder.labels(&request.labels);
    let decoded = request_id.zip(legs).map(|(request_id, legs)| Request {
        action: Action::Post(TransactionKind::Posting, legs),
        description: request.description,
        labels: request.labels,
        validate_only: request.validate_only,
        ..empty_request(caller, request_id)
    });
    decoder.finish(decoded)
}

fn leg(decoder: &mut Decoder<'_>, field: impl fmt::Display, leg: &proto::Leg) -> Option<Leg> {
    let account_id = decoder.account_id(format_args!("{field}.account_id"), &leg.account_id);
    let money = decoder.amount(format_args!("{field}.amount"), leg.amount.as_ref(), Sign::NotZero);
    let currency = money.as_ref().map(|(currency, _)| currency);
    let condition =
        decoder.condition(format_args!("{field}.condition"), leg.condition.as_ref(), currency);
    let (currency, amount) = money?;
    Some(Leg { account_id: account_id?, currency, amount, condition: condition? })
}

/// The requests of a batch, not decoded yet: an invalid request does not reject the others.
pub fn batch(
    request: proto::BatchPostTransactionsRequest,
) -> Result<Vec<proto::PostTransactionRequest>, Invalid> {
    let length = request.requests.len();
    if length == 0 || length > BATCH_POST_MAX {
        let description = format!("has {length} requests; 1-{BATCH_POST_MAX} are allowed");
        return Err(Invalid::new(ErrorReason::InvalidRequests, "requests", description));
    }
    let legs: usize = request.requests.iter().map(|it| it.legs.len()).sum();
    if legs > BATCH_LEGS_MAX {
        let description = format!("has {legs} legs in all; at most {BATCH_LEGS_MAX} are allowed");
        return Err(Invalid::new(ErrorReason::InvalidRequests, "requests", description));
    }
    Ok(request.requests)
}

/// A transaction to reverse, on behalf of `caller`.
pub fn reversal(
    currencies: &Currencies,
    caller: &Identity,
    request: proto::ReverseTransactionRequest,
) -> Result<Request, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let request_id = decoder.request_id("request_id", &request.request_id);
    let transaction_id = decoder.transaction_id("transaction_id", &request.transaction_id);
    decoder.description(&request.description);
    decoder.labels(&request.labels);
    let decoded = request_id.zip(transaction_id).map(|(request_id, transaction_id)| Request {
        action: Action::Reverse(TransactionRef { transaction_id, resolved: None }),
        description: request.description,
        labels: request.labels,
        ..empty_request(caller, request_id)
    });
    decoder.finish(decoded)
}
