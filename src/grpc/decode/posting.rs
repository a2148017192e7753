//! Changes of balances.

use std::{fmt, sync::Arc};

use uuid::Uuid;

use crate::{
    domain::{
        account::Labels,
        command::{Leg, Posting},
        ids::{RequestId, RequestKey},
        money::Currencies,
        transaction::TransactionKind,
    },
    grpc::decode::{Decoder, Invalid, LEGS_MAX, Sign},
    proto::{self, ErrorReason},
};

/// The fields that a deposit, a withdrawal and a transfer share.
pub struct Common<'a> {
    pub kind: TransactionKind,
    pub request_id: &'a str,
    pub amount: Option<&'a proto::Money>,
    pub description: &'a str,
    pub labels: &'a Labels,
    pub condition: Option<&'a proto::Condition>,
    pub validate_only: bool,
}

/// The accounts of a deposit, a withdrawal or a transfer, each with the name of its field. The
/// condition is on the first.
#[derive(Clone, Copy)]
pub enum Sides<'a> {
    /// Money comes in.
    Into(&'a str, &'a str),
    /// Money goes out.
    OutOf(&'a str, &'a str),
    /// Money goes out of the first and into the second.
    Between((&'a str, &'a str), (&'a str, &'a str)),
}

/// A deposit, a withdrawal or a transfer, on behalf of `caller`.
pub fn posting(
    currencies: &Currencies,
    caller: &Arc<str>,
    common: &Common<'_>,
    sides: Sides<'_>,
) -> Result<Posting, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let request_id = decoder.request_id("request_id", common.request_id);
    let (first, second, is_in) = match sides {
        Sides::Into(field, text) => (decoder.account_id(field, text), None, true),
        Sides::OutOf(field, text) => (decoder.account_id(field, text), None, false),
        Sides::Between((source_field, source), (field, destination)) => {
            let source = decoder.account_id(source_field, source);
            let destination = decoder.account_id(field, destination);
            if source.is_some() && source == destination {
                let reason = ErrorReason::InvalidAccountId;
                decoder.refuse(reason, field, format!("must not be the {source_field}"));
            }
            (source, destination, false)
        }
    };
    let money = decoder.amount("amount", common.amount, Sign::Positive);
    let currency = money.as_ref().map(|(currency, _)| currency);
    let condition = decoder.condition("condition", common.condition, currency);
    decoder.description(common.description);
    decoder.labels(common.labels);
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
    let decoded = request_id.zip(legs).map(|(request_id, legs)| Posting {
        kind: common.kind,
        legs,
        description: common.description.to_owned(),
        labels: common.labels.clone(),
        validate_only: common.validate_only,
        ..blank(caller, request_id)
    });
    decoder.finish(decoded)
}

/// A transaction of any legs, on behalf of `caller`.
pub fn transaction(
    currencies: &Currencies,
    caller: &Arc<str>,
    request: proto::PostTransactionRequest,
) -> Result<Posting, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let request_id = decoder.request_id("request_id", &request.request_id);
    if request.legs.is_empty() || request.legs.len() > LEGS_MAX {
        let description = format!("has {} legs; 1-{LEGS_MAX} are allowed", request.legs.len());
        decoder.refuse(ErrorReason::InvalidLegs, "legs", description);
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
    let decoded = request_id.zip(legs).map(|(request_id, legs)| Posting {
        legs,
        description: request.description,
        labels: request.labels,
        validate_only: request.validate_only,
        ..blank(caller, request_id)
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

/// A posting with nothing in it but its names.
fn blank(caller: &Arc<str>, request_id: RequestId) -> Posting {
    Posting {
        key: RequestKey { caller: caller.clone(), request_id },
        transaction_id: Uuid::now_v7(),
        kind: TransactionKind::Posting,
        legs: Vec::new(),
        description: String::new(),
        labels: Labels::new(),
        validate_only: false,
    }
}
